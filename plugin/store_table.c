/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables in memory: the changes that LMDB does not have yet. */
#define XXH_INLINE_ALL
#include <stdlib.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "store_internal.h"

/* A table that has more than a few entries is looked up all over, and in small pages each look costs a walk through the
 * page table besides: then its memory comes in huge ones, where the system has them. */
#define HUGE_BYTES ((size_t)2 * 1024 * 1024)
#define FIRST_SLOTS 1024
#define SMALL_SLOTS 4096 /* more than these get a huge page */
#define FIRST_CHUNK_BYTES ((size_t)64 * 1024)
#define FETCHED_BYTES 512
#define KEEP_CHUNKS 33 /* of an emptied table, 64 MiB: new memory has to be zeroed, slowly in a virtual machine */

struct mqsync_chunk {
    struct mqsync_chunk *next;
    size_t n, cap; /* bytes, with this head */
};

/* --- memory ------------------------------------------------------------------------------------------------------- */

/* Zeroed. Sizes from HUGE_BYTES on are rounded up to a multiple of it. */
static void *memory_alloc(size_t *n)
{
    if (*n < HUGE_BYTES)
        return calloc(1, *n);
    *n = (*n + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
    char *p = mmap(NULL, *n + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)p & (HUGE_BYTES - 1);
    if (before)
        munmap(p, before);
    munmap(p + before + *n, HUGE_BYTES - before);
    madvise(p + before, *n, MADV_HUGEPAGE); /* where there are none, small ones do */
    return p + before;
}

static void memory_free(void *p, size_t n)
{
    if (n < HUGE_BYTES)
        free(p);
    else
        munmap(p, n);
}

static struct mqsync_chunk *chunk_alloc(size_t cap)
{
    struct mqsync_chunk *c = memory_alloc(&cap);
    if (c) {
        c->n = sizeof *c;
        c->cap = cap;
    }
    return c;
}

/* The chunk after the current one that has the room, from the last time or a new one. */
static struct mqsync_chunk *next_chunk(struct mqsync_table *t, size_t n)
{
    struct mqsync_chunk **link = t->current ? &t->current->next : &t->chunks;
    if (!*link || (*link)->cap - (*link)->n < n) {
        size_t usual = t->chunks ? HUGE_BYTES : FIRST_CHUNK_BYTES, least = sizeof **link + n;
        struct mqsync_chunk *fresh = chunk_alloc(least > usual ? least : usual);
        if (!fresh)
            return NULL;
        fresh->next = *link;
        *link = fresh;
    }
    return t->current = *link;
}

static void *take(struct mqsync_table *t, size_t n)
{
    struct mqsync_chunk *c = t->current;
    n = (n + 7) & ~(size_t)7;
    if ((!c || c->cap - c->n < n) && !(c = next_chunk(t, n)))
        return NULL;
    void *p = (char *)c + c->n;
    c->n += n;
    return p;
}

struct mqsync_table *mqsync_table_alloc(void)
{
    struct mqsync_table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->slots_bytes = FIRST_SLOTS * sizeof *t->slots;
    t->slots = memory_alloc(&t->slots_bytes);
    if (!t->slots) {
        free(t);
        return NULL;
    }
    t->slots_n = FIRST_SLOTS;
    return t;
}

static void free_chunks(struct mqsync_chunk *c)
{
    while (c) {
        struct mqsync_chunk *next = c->next;
        memory_free(c, c->cap);
        c = next;
    }
}

void mqsync_table_free(struct mqsync_table *t)
{
    if (!t)
        return;
    free_chunks(t->chunks);
    memory_free(t->slots, t->slots_bytes);
    free(t->newest);
    free(t);
}

void mqsync_table_reset(struct mqsync_table *t)
{
    struct mqsync_chunk **link = &t->chunks;
    for (unsigned kept = 0; *link && kept < KEEP_CHUNKS; kept++) {
        (*link)->n = sizeof **link;
        link = &(*link)->next;
    }
    free_chunks(*link);
    *link = NULL;
    t->current = NULL;
    memset(t->slots, 0, t->slots_n * sizeof *t->slots);
    if (t->newest_n)
        memset(t->newest, 0, t->newest_n * sizeof *t->newest);
    t->n = 0;
    t->next = NULL;
}

/* --- slots -------------------------------------------------------------------------------------------------------- */

uint64_t mqsync_table_hash(uint32_t cid, struct mqsync_slice id)
{
    return XXH3_64bits_withSeed(id.p, id.n, cid);
}

uint32_t mqsync_floor_bucket(uint32_t cid, struct mqsync_slice id)
{
    return (uint32_t)mqsync_table_hash(cid, id) & (MQSYNC_FLOOR_BUCKETS - 1);
}

/* The slot that holds the entry, or the empty one where it would go. */
static struct mqsync_slot *slot_of(const struct mqsync_table *t, uint32_t cid, struct mqsync_slice id, uint64_t hash)
{
    size_t i = hash & (t->slots_n - 1);
    for (;;) {
        struct mqsync_slot *slot = &t->slots[i];
        const struct mqsync_entry *e = slot->entry;
        if (!e || (slot->hash == hash && e->cid == cid && e->id_n == id.n && memcmp(e->id, id.p, id.n) == 0))
            return slot;
        i = (i + 1) & (t->slots_n - 1);
    }
}

void mqsync_table_expect(const struct mqsync_table *t, uint64_t hash)
{
    __builtin_prefetch(&t->slots[hash & (t->slots_n - 1)]);
}

/* As a rule a value lies behind its entry: all of it at once is not slower than the entry alone, and not line after
 * line. */
static void fetch(const struct mqsync_entry *e)
{
    for (size_t i = 0; i < FETCHED_BYTES; i += 64)
        __builtin_prefetch((const char *)e + i);
}

struct mqsync_entry *mqsync_table_find(const struct mqsync_table *t, uint32_t cid, struct mqsync_slice id,
                                       uint64_t hash)
{
    const struct mqsync_slot *first = &t->slots[hash & (t->slots_n - 1)];
    if (first->entry && first->hash == hash)
        fetch(first->entry);
    return slot_of(t, cid, id, hash)->entry;
}

/* A table grows when it is half full: by doubling, but from few slots to a whole huge page of them. Moving 100,000
 * slots takes about a millisecond. */
static bool grow(struct mqsync_table *t)
{
    size_t slots_n = t->slots_n == SMALL_SLOTS ? HUGE_BYTES / sizeof(struct mqsync_slot) : t->slots_n * 2;
    size_t bytes = slots_n * sizeof(struct mqsync_slot);
    struct mqsync_slot *slots = memory_alloc(&bytes);
    if (!slots)
        return false;
    for (size_t i = 0; i < t->slots_n; i++) {
        if (!t->slots[i].entry)
            continue;
        size_t j = t->slots[i].hash & (slots_n - 1);
        while (slots[j].entry)
            j = (j + 1) & (slots_n - 1);
        slots[j] = t->slots[i];
    }
    memory_free(t->slots, t->slots_bytes);
    t->slots = slots;
    t->slots_n = slots_n;
    t->slots_bytes = bytes;
    return true;
}

static bool set_value(struct mqsync_table *t, struct mqsync_entry *e, struct mqsync_slice value)
{
    if (value.n > e->value_cap) {
        /* a quarter more than asked, so that a record that grows a little each time is not moved each time */
        size_t cap = value.n + value.n / 4;
        char *place = take(t, cap);
        if (!place)
            return false;
        e->value = place;
        e->value_cap = (uint32_t)cap;
    }
    if (value.n)
        memcpy(e->value, value.p, value.n);
    e->value_n = (uint32_t)value.n;
    return true;
}

/* Has room for a collection's latest change. */
static bool know_collection(struct mqsync_table *t, uint32_t cid)
{
    if (cid < t->newest_n)
        return true;
    size_t n = (cid + (size_t)1) * 2;
    struct mqsync_entry **newest = realloc(t->newest, n * sizeof *newest);
    if (!newest)
        return false;
    memset(newest + t->newest_n, 0, (n - t->newest_n) * sizeof *newest);
    t->newest = newest;
    t->newest_n = n;
    return true;
}

static void make_newest(struct mqsync_table *t, struct mqsync_entry *e)
{
    struct mqsync_entry **newest = &t->newest[e->cid];
    if (*newest == e)
        return;
    if (e->newer)
        e->newer->older = e->older;
    if (e->older)
        e->older->newer = e->newer;
    e->newer = NULL;
    e->older = *newest;
    if (e->older)
        e->older->newer = e;
    *newest = e;
}

struct mqsync_entry *mqsync_table_put(struct mqsync_table *t, uint32_t cid, struct mqsync_slice id, uint64_t hash,
                                      struct mqsync_slice value, uint64_t seq, bool deleted)
{
    if (!know_collection(t, cid) || (t->n >= t->slots_n / 2 && !grow(t)))
        return NULL;
    struct mqsync_slot *slot = slot_of(t, cid, id, hash);
    struct mqsync_entry *e = slot->entry;
    if (!e) {
        e = take(t, sizeof *e + id.n);
        if (!e)
            return NULL;
        *e = (struct mqsync_entry){.hash = hash, .cid = cid, .id_n = (uint8_t)id.n};
        memcpy(e->id, id.p, id.n);
    }
    if (!set_value(t, e, value))
        return NULL;
    e->seq = seq;
    e->deleted = deleted;
    make_newest(t, e);
    if (!slot->entry) {
        *slot = (struct mqsync_slot){hash, e};
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
