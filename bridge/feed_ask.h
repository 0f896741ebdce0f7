/* SPDX-License-Identifier: BSD-3-Clause */
/* What a feed gets from the broker where there is no database: a question (`subscribe` or `sync` with `since`), its
 * answer, and the events between the two. */
#ifndef MQSYNC_BRIDGE_FEED_ASK_H
#define MQSYNC_BRIDGE_FEED_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

struct mqsync_bridge;
struct mqsync_feed;
struct mqsync_frame;

/* Asks for what is missing. False: not now. */
bool mqsync_feed_ask(struct mqsync_bridge *b, struct mqsync_feed *f);
/* An event since the question, arguments as of mqsync_feed_event(): it goes out after the answer if that does not
 * have it. Beyond sendQueueBytes all of them are dropped, and asked for afterwards. */
void mqsync_feed_hold(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq, struct mqsync_frame *frame,
                      bool own);
/* One message of the answer to its question; may close the feed. payload: as it came. */
void mqsync_feed_answer(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload);
/* What was asked will not be answered (the broker is gone), or is of no interest any more. */
void mqsync_feed_forget_question(struct mqsync_bridge *b, struct mqsync_feed *f);

/* Asks again what was never answered: refused by the broker's rules, or dropped by it. Now and then. */
void mqsync_feeds_check(struct mqsync_bridge *b, int64_t now_us);

#endif
