/* SPDX-License-Identifier: BSD-3-Clause */
#include "pending.h"

#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

bool mqsync_pending_open(struct mqsync_pending *p)
{
    p->slots = calloc(MQSYNC_PENDING_MAX, sizeof(*p->slots));
    p->free = calloc(MQSYNC_PENDING_MAX, sizeof(*p->free));
    p->by_mid = calloc(UINT16_MAX + 1, sizeof(*p->by_mid));
    if (!p->slots || !p->free || !p->by_mid || getrandom(&p->secret, sizeof(p->secret), 0) != sizeof(p->secret))
        return false;
    for (uint32_t i = 0; i < MQSYNC_PENDING_MAX; i++)
        p->free[i] = (uint16_t)(MQSYNC_PENDING_MAX - 1 - i);
    p->free_n = MQSYNC_PENDING_MAX;
    return true;
}

void mqsync_pending_close(struct mqsync_pending *p)
{
    free(p->slots);
    free(p->free);
    free(p->by_mid);
    *p = (struct mqsync_pending){0};
}

struct mqsync_pending_command *mqsync_pending_add(struct mqsync_pending *p, uint64_t session, size_t bytes,
                                                  int64_t now_us)
{
    struct mqsync_pending_command *c;
    uint16_t slot;

    if (p->free_n == 0)
        return NULL;
    slot = p->free[--p->free_n];
    c = &p->slots[slot];
    p->counter++;
    c->mark = (XXH3_64bits_withSeed(&p->counter, sizeof(p->counter), p->secret) << 16 | UINT64_C(1) << 15) | slot;
    c->session = session;
    c->sent_us = now_us;
    c->bytes = bytes;
    c->mid = 0;
    c->announced = c->refused = false;
    return c;
}

void mqsync_pending_sent(struct mqsync_pending *p, struct mqsync_pending_command *c, uint16_t mid)
{
    c->mid = mid;
    p->by_mid[mid] = (uint16_t)(c - p->slots + 1);
}

void mqsync_pending_remove(struct mqsync_pending *p, struct mqsync_pending_command *c)
{
    uint16_t slot = (uint16_t)(c - p->slots);

    if (p->by_mid[c->mid] == slot + 1)
        p->by_mid[c->mid] = 0;
    p->refused_n -= c->refused;
    c->refused = false;
    c->mark = 0;
    p->free[p->free_n++] = slot;
}

struct mqsync_pending_command *mqsync_pending_by_mid(struct mqsync_pending *p, uint16_t mid)
{
    uint16_t slot = p->by_mid[mid];
    return slot ? &p->slots[slot - 1] : NULL;
}

struct mqsync_pending_command *mqsync_pending_by_mark(struct mqsync_pending *p, uint64_t mark)
{
    struct mqsync_pending_command *c = &p->slots[mark & (MQSYNC_PENDING_MAX - 1)];
    return mark && c->mark == mark ? c : NULL;
}

struct mqsync_pending_command *mqsync_pending_announce(struct mqsync_pending *p, uint64_t mark)
{
    struct mqsync_pending_command *c = mqsync_pending_by_mark(p, mark);

    if (!c || c->announced)
        return NULL;
    c->announced = true;
    return c;
}

void mqsync_pending_refused(struct mqsync_pending *p, struct mqsync_pending_command *c)
{
    p->refused_n += !c->refused;
    c->refused = true;
}

struct mqsync_pending_command *mqsync_pending_unanswered(struct mqsync_pending *p, int64_t before_us)
{
    if (p->refused_n == 0)
        return NULL;
    for (uint32_t i = 0; i < MQSYNC_PENDING_MAX; i++)
        if (p->slots[i].mark && p->slots[i].refused && p->slots[i].sent_us < before_us)
            return &p->slots[i];
    return NULL;
}
