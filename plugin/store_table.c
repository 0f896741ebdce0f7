/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables in memory: the changes that LMDB does not have yet. */
#define XXH_INLINE_ALL
#include <stdlib.h>
#include <xxhash.h>

#include "store_internal.h"

#define FIRST_SLOTS 1024

struct mqsync_table *mqsync_table_alloc(void)
{
    struct mqsync_table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->slots = calloc(FIRST_SLOTS, sizeof(struct mqsync_entry *));
    if (!t->slots) {
        free(t);
        return NULL;
    }
    t->slots_n = FIRST_SLOTS;
    return t;
}

void mqsync_table_free(struct mqsync_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->slots_n; i++) {
        if (t->slots[i]) {
            free(t->slots[i]->value);
            free(t->slots[i]);
        }
    }
    free(t->slots);
    free(t);
}

uint64_t mqsync_table_hash(uint32_t cid, struct mqsync_slice id)
{
    return XXH3_64bits_withSeed(id.p, id.n, cid);
}

uint32_t mqsync_floor_bucket(uint32_t cid, struct mqsync_slice id)
{
    return (uint32_t)mqsync_table_hash(cid, id) & (MQSYNC_FLOOR_BUCKETS - 1);
}

/* The slot that holds the entry, or the empty one where it would go. */
static size_t slot_of(const struct mqsync_table *t, uint32_t cid, struct mqsync_slice id, uint64_t hash)
{
    size_t i = hash & (t->slots_n - 1);
    for (;;) {
        const struct mqsync_entry *e = t->slots[i];
        if (!e || (e->hash == hash && e->cid == cid && e->id_n == id.n && memcmp(e->id, id.p, id.n) == 0))
            return i;
        i = (i + 1) & (t->slots_n - 1);
    }
}

struct mqsync_entry *mqsync_table_find(const struct mqsync_table *t, uint32_t cid, struct mqsync_slice id, uint64_t hash)
{
    return t->slots[slot_of(t, cid, id, hash)];
}

/* A table grows by doubling when it is half full. Moving 100,000 pointers takes about a millisecond. */
bool mqsync_table_prepare(struct mqsync_table *t)
{
    if (t->n < t->slots_n / 2)
        return true;
    size_t slots_n = t->slots_n * 2;
    struct mqsync_entry **slots = calloc(slots_n, sizeof(struct mqsync_entry *));
    if (!slots)
        return false;
    for (size_t i = 0; i < t->slots_n; i++) {
        if (!t->slots[i])
            continue;
        size_t j = t->slots[i]->hash & (slots_n - 1);
        while (slots[j])
            j = (j + 1) & (slots_n - 1);
        slots[j] = t->slots[i];
    }
    free(t->slots);
    t->slots = slots;
    t->slots_n = slots_n;
    return true;
}

static bool entry_set_value(struct mqsync_entry *e, struct mqsync_slice value)
{
    if (value.n > e->value_cap) {
        /* a quarter more than asked, so that a record that grows a little each time is not moved each time */
        size_t cap = value.n + value.n / 4;
        char *grown = malloc(cap);
        if (!grown)
            return false;
        free(e->value);
        e->value = grown;
        e->value_cap = (uint32_t)cap;
    }
    if (value.n)
        memcpy(e->value, value.p, value.n);
    e->value_n = (uint32_t)value.n;
    return true;
}

struct mqsync_entry *mqsync_table_put(struct mqsync_table *t, uint32_t cid, struct mqsync_slice id, uint64_t hash,
                                      struct mqsync_slice value, uint64_t seq, bool deleted)
{
    if (!mqsync_table_prepare(t))
        return NULL;
    size_t slot = slot_of(t, cid, id, hash);
    struct mqsync_entry *e = t->slots[slot];
    bool fresh = !e;
    if (fresh) {
        e = calloc(1, sizeof *e + id.n);
        if (!e)
            return NULL;
        e->hash = hash;
        e->cid = cid;
        e->id_n = (uint8_t)id.n;
        memcpy(e->id, id.p, id.n);
    }
    if (!entry_set_value(e, value)) {
        if (fresh)
            free(e);
        return NULL;
    }
    e->seq = seq;
    e->deleted = deleted;
    if (fresh) {
        t->slots[slot] = e;
        t->n++;
    }
    return e;
}

int mqsync_entry_by_id(const void *a, const void *b)
{
    const struct mqsync_entry *x = *(struct mqsync_entry *const *)a, *y = *(struct mqsync_entry *const *)b;
    if (x->cid != y->cid)
        return x->cid < y->cid ? -1 : 1;
    size_t n = x->id_n < y->id_n ? x->id_n : y->id_n;
    int order = memcmp(x->id, y->id, n);
    return order ? order : (int)x->id_n - (int)y->id_n;
}

int mqsync_entry_by_seq(const void *a, const void *b)
{
    const struct mqsync_entry *x = *(struct mqsync_entry *const *)a, *y = *(struct mqsync_entry *const *)b;
    if (x->cid != y->cid)
        return x->cid < y->cid ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}
