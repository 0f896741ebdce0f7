/* SPDX-License-Identifier: BSD-3-Clause */
/* What a feed sends from the database: `subscribed`, pages, single changes, tombstones. */
#ifndef MQSYNC_BRIDGE_FEED_READ_H
#define MQSYNC_BRIDGE_FEED_READ_H

#include "record.h"

struct mqsync_bridge;
struct mqsync_feed;
struct mqsync_view;

enum mqsync_feed_step {
    MQSYNC_STEP_DONE,  /* live, or the `sync` is answered */
    MQSYNC_STEP_MORE,  /* to be called again, once there is room */
    MQSYNC_STEP_FRESH, /* needs a newer view */
    MQSYNC_STEP_ENDED, /* failed, with *ret_error set; the client has not been told */
};

/* Sends at most one page, or as many single messages as the client's queue takes, or walks for some milliseconds (and
 * sets feeds.walked_long) over records that this client is not shown. */
enum mqsync_feed_step mqsync_feed_read(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_view *view,
                                       struct mqsync_error *ret_error);

/* A page of one, after the event: of r its data, version, seq and time. An app that has changed a record itself takes
 * an `update` of it for a conflict and lets its own clock decide who wins; a page it takes as it is. */
void mqsync_feed_send_as_page(struct mqsync_feed *f, struct mqsync_slice id, const struct mqsync_record *r);

/* Tells the client once more that it has subscribed; nothing when it will be told for the first time. */
void mqsync_feed_confirm(struct mqsync_bridge *b, struct mqsync_feed *f);

#endif
