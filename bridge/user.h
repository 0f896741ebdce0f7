/* SPDX-License-Identifier: BSD-3-Clause */
/* What is counted for each user over all its connections and requests: connectionsPerUser and messagesPerMinute. */
#ifndef MQSYNC_BRIDGE_USER_H
#define MQSYNC_BRIDGE_USER_H

#include "buf.h"

struct mqsync_user {
    struct mqsync_user *next;
    unsigned connections;
    unsigned messages;
    int64_t minute;  /* that messages were counted in */
    bool is_address; /* name is that of a host: anonymous ones are counted by it */
    char name[];
};

enum { MQSYNC_USERS_BUCKETS = 1024 };
struct mqsync_users {
    struct mqsync_user *buckets[MQSYNC_USERS_BUCKETS];
};

/* One more connection of that user, or of an anonymous one, who has no name, at that address; NULL: out of memory, or
 * max (0: no limit) are there already (*ret_full). */
struct mqsync_user *mqsync_user_enter(struct mqsync_users *users, struct mqsync_slice name, struct mqsync_slice address,
                                      unsigned max, bool *ret_full);
void mqsync_user_leave(struct mqsync_user *u); /* NULL is fine */

/* For a request, which is no connection: a user that stays until mqsync_users_sweep() after its minute. NULL: out of
 * memory. */
struct mqsync_user *mqsync_user_visit(struct mqsync_users *users, struct mqsync_slice name,
                                      struct mqsync_slice address);
/* Forgets those without a connection whose minute is over. */
void mqsync_users_sweep(struct mqsync_users *users, int64_t now_ms);

/* Counts a message; false when there were max (0: no limit) in this minute already. */
bool mqsync_user_may_send(struct mqsync_user *u, unsigned max, int64_t now_ms);

#endif
