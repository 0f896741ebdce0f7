/* SPDX-License-Identifier: BSD-3-Clause */
/* The collections in memory, by name and by number, and the reading of a log into them. */
#define XXH_INLINE_ALL
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "store_internal.h"

static size_t bucket_of(const struct mqsync_collections *c, struct mqsync_slice name)
{
    return XXH3_64bits(name.p, name.n) & (c->buckets_n - 1);
}

struct mqsync_collection *mqsync_collections_find(const struct mqsync_collections *c, struct mqsync_slice name)
{
    if (c->buckets_n == 0)
        return NULL;
    struct mqsync_collection *at = c->buckets[bucket_of(c, name)];
    while (at && !(at->name_n == name.n && memcmp(at->name, name.p, name.n) == 0))
        at = at->next_in_bucket;
    return at;
}

static bool grow_buckets(struct mqsync_collections *c)
{
    size_t n = c->buckets_n ? c->buckets_n * 2 : 64;
    struct mqsync_collection **buckets = calloc(n, sizeof *buckets), **old = c->buckets;
    if (!buckets)
        return false;
    size_t old_n = c->buckets_n;
    c->buckets = buckets;
    c->buckets_n = n;
    for (size_t i = 0; i < old_n; i++) {
        for (struct mqsync_collection *at = old[i], *next; at; at = next) {
            next = at->next_in_bucket;
            size_t b = bucket_of(c, (struct mqsync_slice){at->name, at->name_n});
            at->next_in_bucket = buckets[b];
            buckets[b] = at;
        }
    }
    free(old);
    return true;
}

static bool grow_by_cid(struct mqsync_collections *c, uint32_t cid)
{
    if (cid < c->by_cid_n)
        return true;
    size_t n = c->by_cid_n ? c->by_cid_n : 64;
    while (n <= cid)
        n *= 2;
    struct mqsync_collection **by_cid = realloc(c->by_cid, n * sizeof *by_cid);
    if (!by_cid)
        return false;
    memset(by_cid + c->by_cid_n, 0, (n - c->by_cid_n) * sizeof *by_cid);
    c->by_cid = by_cid;
    c->by_cid_n = n;
    return true;
}

struct mqsync_collection *mqsync_collections_add(struct mqsync_collections *c, struct mqsync_slice name, uint32_t cid)
{
    if ((c->n >= c->buckets_n && !grow_buckets(c)) || !grow_by_cid(c, cid))
        return NULL;
    struct mqsync_collection *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return NULL;
    memcpy(fresh->name, name.p, name.n);
    fresh->name_n = (uint8_t)name.n;
    fresh->cid = cid;
    size_t b = bucket_of(c, name);
    fresh->next_in_bucket = c->buckets[b];
    c->buckets[b] = fresh;
    c->by_cid[cid] = fresh;
    c->n++;
    return fresh;
}

void mqsync_collections_free(struct mqsync_collections *c)
{
    for (size_t i = 0; i < c->by_cid_n; i++)
        free(c->by_cid[i]);
    free(c->by_cid);
    free(c->buckets);
    *c = (struct mqsync_collections){0};
}

int mqsync_collections_load(struct mqsync_collections *c, MDB_txn *txn, const struct mqsync_dbis *d, uint64_t *records)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, d->collections, &cursor);
    if (rc)
        return rc;
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        struct mqsync_collection_row row;
        if (value.mv_size != sizeof row || !mqsync_collection_valid(mqsync_val_slice(&key))) {
            rc = MDB_CORRUPTED;
            break;
        }
        memcpy(&row, value.mv_data, sizeof row);
        struct mqsync_collection *fresh = mqsync_collections_add(c, mqsync_val_slice(&key), row.cid);
        if (!fresh) {
            rc = ENOMEM;
            break;
        }
        fresh->seq = row.seq;
        fresh->records = row.records;
        fresh->tombstones = row.tombstones;
        fresh->oldest_seq = row.oldest_seq;
        *records += row.records;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* --- reading a log ------------------------------------------------------------------------------------------------ */

static bool replay_collection(struct mqsync_replay *r, const struct mqsync_log_entry *entry)
{
    if (mqsync_collections_find(r->collections, entry->id))
        return true;
    struct mqsync_collection *c = mqsync_collections_add(r->collections, entry->id, entry->cid);
    if (!c)
        return false;
    c->unapplied = true;
    if (entry->cid >= r->next_cid)
        r->next_cid = entry->cid + 1;
    return true;
}

static bool replay_was_live(const struct mqsync_replay *r, uint32_t cid, struct mqsync_slice id, uint64_t hash)
{
    const struct mqsync_entry *e = mqsync_table_find(r->table, cid, id, hash);
    if (e)
        return !e->deleted;
    unsigned char buffer[MQSYNC_KEY_MAX];
    MDB_val key = mqsync_record_key(buffer, cid, id), value;
    struct mqsync_record_head head;
    return mdb_get(r->txn, r->dbis->records, &key, &value) == 0 &&
           mqsync_record_decode_head(mqsync_val_slice(&value), &head) == MQSYNC_OK && !head.deleted;
}

bool mqsync_replay_entry(void *replay, const struct mqsync_log_entry *entry)
{
    struct mqsync_replay *r = replay;
    if (entry->kind == MQSYNC_LOG_COLLECTION)
        return replay_collection(r, entry);
    struct mqsync_collection *c = entry->cid < r->collections->by_cid_n ? r->collections->by_cid[entry->cid] : NULL;
    struct mqsync_record_head head;
    if (!c || mqsync_record_decode_head(entry->stored, &head) != MQSYNC_OK)
        return false;
    uint64_t hash = mqsync_table_hash(c->cid, entry->id);
    bool live = replay_was_live(r, c->cid, entry->id, hash);
    if (!mqsync_table_put(r->table, c->cid, entry->id, hash, entry->stored, head.seq, head.deleted))
        return false;
    if (head.seq > c->seq)
        c->seq = head.seq;
    if (live != !head.deleted) {
        c->records += head.deleted ? UINT64_MAX : 1;
        r->records += head.deleted ? UINT64_MAX : 1;
    }
    return true;
}
