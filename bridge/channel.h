/* SPDX-License-Identifier: BSD-3-Clause */
/* A collection that somebody of this bridge follows: its subscriptions, and how far its events have come. */
#ifndef MQSYNC_BRIDGE_CHANNEL_H
#define MQSYNC_BRIDGE_CHANNEL_H

#include "topic.h"
#include "upstream.h"

struct mqsync_bridge;
struct mqsync_feed;

struct mqsync_channel {
    struct mqsync_channel *next;
    uint64_t id; /* never used again */
    char name[MQSYNC_MAX_COLLECTION + 1];
    unsigned references;        /* of feeds */
    struct mqsync_feed **feeds; /* those of subscriptions, in no order; each knows its place */
    size_t n, cap;
    unsigned full_n;               /* feeds with full updates */
    bool followed;                 /* these are sent the events that come whole, the others the others */
    struct mqsync_sender *senders; /* of the latest events; NULL: nobody has wanted to know */
    uint64_t last_seq;             /* of the events seen; what is older than the channel is not known */
    int64_t since_us;              /* events have been seen without a break since then */
    bool stirred;                  /* there were events since the last check */
    uint64_t expected; /* as of the last check the database was there: by the next one everybody has to be */
};

/* Whose change an event was, for when it comes a second time. The broker sends the second ones once it has taken a
 * packet from each of its clients that has one: there may be as many events in between as there are writers. */
enum { MQSYNC_SENDERS = 1024 };
struct mqsync_sender {
    uint64_t seq, session;
};

enum { MQSYNC_CHANNELS_BUCKETS = 4096 };
struct mqsync_channels {
    struct mqsync_channel *buckets[MQSYNC_CHANNELS_BUCKETS];
    uint64_t ids;
};

/* Finds or makes; one more reference. NULL: out of memory. */
struct mqsync_channel *mqsync_channel_enter(struct mqsync_bridge *b, struct mqsync_slice name);
void mqsync_channel_leave(struct mqsync_bridge *b, struct mqsync_channel *c); /* the last one out frees it */

/* The feed of a subscription gets the channel's events from now on (false: out of memory), or no more. */
bool mqsync_channel_add(struct mqsync_channel *c, struct mqsync_feed *f);
void mqsync_channel_remove(struct mqsync_channel *c, struct mqsync_feed *f);

/* One more feed, or one less, needs events that have all of the record. */
void mqsync_channel_follow(struct mqsync_bridge *b, struct mqsync_channel *c);
void mqsync_channel_unfollow(struct mqsync_bridge *b, struct mqsync_channel *c);
/* The broker says whether they come. */
void mqsync_channels_followed(struct mqsync_bridge *b, struct mqsync_slice collection, bool follows);

/* An event goes out to all subscriptions but the sender's. */
void mqsync_channels_event(struct mqsync_bridge *b, const struct mqsync_upstream_event *e);
/* Events may have been missed: every subscription is brought up to date. */
void mqsync_channels_catch_up(struct mqsync_bridge *b);
/* The same for those channels that had events lately: the last ones of a burst may have been dropped by the broker. */
void mqsync_channels_check(struct mqsync_bridge *b);

#endif
