/* SPDX-License-Identifier: BSD-3-Clause */
/* Who follows a collection with whole records: a client that has subscribed with `"updates":"full"`. An event on `evt`
 * is one message for all and an `update` there says what has changed; followers are sent each change besides, with all
 * that the record holds, where their answers go. */
#ifndef MQSYNC_FOLLOWERS_H
#define MQSYNC_FOLLOWERS_H

#include "plugin.h"

/* So many of one collection, and of all: each costs every change a message. Who comes later does not follow. */
enum { MQSYNC_FOLLOWERS_OF_ONE = 16, MQSYNC_FOLLOWERS_MAX = 4096 };

struct mqsync_follower;

/* NULL: out of memory. */
struct mqsync_followers *mqsync_followers_alloc(void);
void mqsync_followers_free(struct mqsync_followers *f); /* NULL is fine */

/* Takes note of what a `subscribe` asks for: `full` or `delta`; when it says neither all stays as it is. Returns
 * whether its client follows by it. Those bound by rules do not: what they may see is decided for each delivery of an
 * event. */
bool mqsync_followers_subscribe(struct mqsync_plugin *p, const struct mqsync_request *r);
/* The client does not follow that collection (empty: any) any more. */
void mqsync_followers_leave(struct mqsync_followers *f, const char *client_id, struct mqsync_slice collection);

/* The first of a collection's, until the next change of them; NULL: there is none. */
const struct mqsync_follower *mqsync_followers_of(const struct mqsync_followers *f, struct mqsync_slice collection);
/* Sends them an event, at qos or what they have subscribed with, if that is lower, with copies of properties. */
void mqsync_followers_tell(const struct mqsync_follower *first, struct mqsync_slice event, uint8_t qos,
                           const mosquitto_property *properties);

#endif
