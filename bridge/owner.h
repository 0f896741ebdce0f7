/* SPDX-License-Identifier: BSD-3-Clause */
/* What the readers of a collection who see only their own records are told of an event: the plugin says with it to whom
 * the record belonged before and after. Whatever is told is made once and shared by all who are told the same. */
#ifndef MQSYNC_BRIDGE_OWNER_H
#define MQSYNC_BRIDGE_OWNER_H

#include "access.h"
#include "frame.h"
#include "upstream.h"

/* Of one event. Set the first four, zero-initialise the rest, and end it with mqsync_showing_end(). */
struct mqsync_showing {
    const struct mqsync_upstream_event *event;
    struct mqsync_frame *frame; /* the event as it is; NULL: out of memory. Stays the caller's */
    uint64_t channel, seq;
    struct mqsync_frame *appeared, *gone, *nothing;
};

/* What the user is told. The frame stays the showing's; an empty one: nothing; NULL: it is not known what, and has to
 * be looked up. *own says whether he has made the change himself; when it comes back as false he is told nevertheless,
 * since the record came or went with it. */
struct mqsync_frame *mqsync_showing_to(struct mqsync_showing *s, struct mqsync_slice user, bool *own);
void mqsync_showing_end(struct mqsync_showing *s);

/* Which records somebody with that right sees; 0: all of them. Another number: others. */
uint64_t mqsync_owner_rule(const struct mqsync_collection_config *c, enum mqsync_right right);

#endif
