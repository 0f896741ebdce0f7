/* SPDX-License-Identifier: BSD-3-Clause */
#include "user.h"

#include <stdlib.h>
#include <xxhash.h>

static struct mqsync_user **bucket_of(struct mqsync_users *users, struct mqsync_slice name)
{
    return &users->buckets[XXH3_64bits(name.p, name.n) % MQSYNC_USERS_BUCKETS];
}

static struct mqsync_user *find(struct mqsync_users *users, struct mqsync_slice name, bool is_address)
{
    for (struct mqsync_user *u = *bucket_of(users, name); u; u = u->next)
        if (u->is_address == is_address && mqsync_slice_equal(mqsync_slice_str(u->name), name))
            return u;
    return NULL;
}

static struct mqsync_user *add(struct mqsync_users *users, struct mqsync_slice name, bool is_address)
{
    struct mqsync_user *u = calloc(1, sizeof(*u) + name.n + 1);

    if (!u)
        return NULL;
    memcpy(u->name, name.p, name.n);
    u->is_address = is_address;
    struct mqsync_user **bucket = bucket_of(users, name);
    u->next = *bucket;
    *bucket = u;
    return u;
}

struct mqsync_user *mqsync_user_visit(struct mqsync_users *users, struct mqsync_slice name, struct mqsync_slice address)
{
    bool is_address = name.n == 0;
    struct mqsync_slice key = is_address ? address : name;
    struct mqsync_user *u = find(users, key, is_address);

    return u ? u : add(users, key, is_address);
}

struct mqsync_user *mqsync_user_enter(struct mqsync_users *users, struct mqsync_slice name, struct mqsync_slice address,
                                      unsigned max, bool *ret_full)
{
    struct mqsync_user *u = mqsync_user_visit(users, name, address);

    *ret_full = u && max && u->connections >= max;
    if (*ret_full)
        return NULL;
    if (u)
        u->connections++;
    return u;
}

/* It stays until it is swept: a new connection does not begin a new count. */
void mqsync_user_leave(struct mqsync_user *u)
{
    if (u)
        u->connections--;
}

void mqsync_users_sweep(struct mqsync_users *users, int64_t now_ms)
{
    for (size_t i = 0; i < MQSYNC_USERS_BUCKETS; i++) {
        struct mqsync_user **at = &users->buckets[i], *u;
        while ((u = *at)) {
            if (u->connections || u->minute == now_ms / 60000) {
                at = &u->next;
                continue;
            }
            *at = u->next;
            free(u);
        }
    }
}

bool mqsync_user_may_send(struct mqsync_user *u, unsigned max, int64_t now_ms)
{
    if (u->minute != now_ms / 60000) {
        u->minute = now_ms / 60000;
        u->messages = 0;
    }
    return u->messages++ < max || max == 0;
}
