/* SPDX-License-Identifier: BSD-3-Clause */
#include "user.h"

#include <stdlib.h>
#include <xxhash.h>

static struct mqsync_user **bucket_of(struct mqsync_users *users, struct mqsync_slice name)
{
    return &users->buckets[XXH3_64bits(name.p, name.n) % MQSYNC_USERS_BUCKETS];
}

static struct mqsync_user *find(struct mqsync_users *users, struct mqsync_slice name)
{
    for (struct mqsync_user *u = *bucket_of(users, name); u; u = u->next)
        if (mqsync_slice_equal(mqsync_slice_str(u->name), name))
            return u;
    return NULL;
}

struct mqsync_user *mqsync_user_enter(struct mqsync_users *users, struct mqsync_slice name, unsigned max,
                                      bool *ret_full)
{
    struct mqsync_user *u = name.n ? find(users, name) : NULL;

    *ret_full = u && max && u->connections >= max;
    if (*ret_full)
        return NULL;
    if (!u) {
        u = calloc(1, sizeof(*u) + name.n + 1);
        if (!u)
            return NULL;
        if (name.n) {
            memcpy(u->name, name.p, name.n);
            struct mqsync_user **bucket = bucket_of(users, name);
            u->next = *bucket;
            *bucket = u;
        }
    }
    u->connections++;
    return u;
}

void mqsync_user_leave(struct mqsync_users *users, struct mqsync_user *u)
{
    if (!u || --u->connections > 0)
        return;
    if (u->name[0]) {
        struct mqsync_user **at = bucket_of(users, mqsync_slice_str(u->name));
        while (*at != u)
            at = &(*at)->next;
        *at = u->next;
    }
    free(u);
}

bool mqsync_user_may_send(struct mqsync_user *u, unsigned max, int64_t now_ms)
{
    if (u->minute != now_ms / 60000) {
        u->minute = now_ms / 60000;
        u->messages = 0;
    }
    return u->messages++ < max || max == 0;
}
