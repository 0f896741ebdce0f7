/* SPDX-License-Identifier: BSD-3-Clause */
#include "clients.h"

#include <string.h>
#include <sys/random.h>

#include <xxhash.h>

enum { MINUTE_MS = 60000 };

void mqsync_clients_init(struct mqsync_clients *c)
{
    memset(c, 0, sizeof(*c));
    if (getrandom(&c->seed, sizeof(c->seed), GRND_NONBLOCK) != sizeof(c->seed))
        c->seed = (uint64_t)(uintptr_t)c; /* predictable slots cost an attacker's victim no more than a resent change */
}

static uint64_t hash_of(const struct mqsync_clients *c, const char *client_id)
{
    return XXH3_64bits_withSeed(client_id, strlen(client_id), c->seed) | 1; /* 0 is a free slot */
}

/* The lowest bit is always set; the slot is chosen by those above it. */
static unsigned slot_of(uint64_t hash)
{
    return (unsigned)(hash >> 1) % MQSYNC_CLIENT_SLOTS;
}

void mqsync_clients_disconnected(struct mqsync_clients *c, const char *client_id, int64_t now_ms)
{
    uint64_t hash = hash_of(c, client_id);
    c->disconnected[slot_of(hash)].client = hash;
    c->disconnected[slot_of(hash)].at_ms = now_ms;
}

int64_t mqsync_clients_last_disconnected(const struct mqsync_clients *c, const char *client_id, int64_t otherwise)
{
    if (!client_id)
        return otherwise;
    uint64_t hash = hash_of(c, client_id);
    return c->disconnected[slot_of(hash)].client == hash ? c->disconnected[slot_of(hash)].at_ms : otherwise;
}

void mqsync_clients_hold(struct mqsync_clients *c, const char *client_id)
{
    if (client_id)
        c->holds[slot_of(hash_of(c, client_id))] = true;
}

bool mqsync_clients_may_hold(const struct mqsync_clients *c, const char *client_id)
{
    return !client_id || c->holds[slot_of(hash_of(c, client_id))];
}

bool mqsync_clients_may_send(struct mqsync_clients *c, const char *client_id, unsigned limit, int64_t now_ms)
{
    if (limit == 0 || !client_id)
        return true;
    uint64_t hash = hash_of(c, client_id);
    unsigned i = slot_of(hash);
    bool same_minute = now_ms >= c->minute[i].since_ms && now_ms - c->minute[i].since_ms < MINUTE_MS;
    if (c->minute[i].client != hash || !same_minute) {
        c->minute[i].client = hash;
        c->minute[i].since_ms = now_ms;
        c->minute[i].sent = 0;
    }
    if (c->minute[i].sent >= limit)
        return false;
    c->minute[i].sent++;
    return true;
}
