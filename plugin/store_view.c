/* SPDX-License-Identifier: BSD-3-Clause */
/* Views: one moment of the database, which is LMDB's snapshot with the tables laid over it, and walks through them. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "store_internal.h"

#define READER_TRIES 50
#define PATIENCE 1000 /* stale rows that a walk on the broker's thread passes over: some three milliseconds at most */

struct mqsync_reader {
    char *dir;
    MDB_env *env;
    struct mqsync_dbis dbis;
};

struct mqsync_view {
    struct mqsync_store *store; /* of the process that writes; NULL in others */
    bool settled;               /* counted in store->views */
    const struct mqsync_dbis *dbis;
    MDB_txn *txn;
    bool own_txn;
    const struct mqsync_table *tables[2]; /* newest first; what they hold hides LMDB's */
    size_t tables_n;
    const struct mqsync_collections *collections; /* with what the tables change; NULL: LMDB's rows are right */
    struct mqsync_table *own_table;
    struct mqsync_collections own_collections;
    bool hasty;        /* for the broker's thread */
    unsigned patience; /* what is left of it */
    char epoch[33];
};

/* --- opening and closing ------------------------------------------------------------------------------------------ */

static struct mqsync_view *view_alloc(struct mqsync_error *ret_error)
{
    struct mqsync_view *v = calloc(1, sizeof *v);
    if (!v)
        mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    return v;
}

enum mqsync_code mqsync_view_newest(struct mqsync_store *s, struct mqsync_view **ret, struct mqsync_error *ret_error)
{
    struct mqsync_view *v = view_alloc(ret_error);
    if (!v)
        return MQSYNC_SERVER_ERROR;
    v->store = s;
    v->dbis = &s->dbis;
    v->collections = &s->collections;
    v->hasty = true;
    v->patience = PATIENCE;
    memcpy(v->epoch, s->epoch, sizeof v->epoch);
    /* tables first, LMDB's snapshot after: what is moved in between is seen twice, never missed */
    pthread_mutex_lock(&s->lock);
    mqsync_store_let_go(s);
    v->tables[v->tables_n++] = s->active;
    if (s->frozen)
        v->tables[v->tables_n++] = s->frozen;
    pthread_mutex_unlock(&s->lock);
    int rc = mqsync_store_read_txn(s, &v->txn);
    if (rc) {
        free(v);
        return mqsync_lmdb_fail(ret_error, rc, "cannot read", s->dir);
    }
    *ret = v;
    return MQSYNC_OK;
}

enum mqsync_code mqsync_reader_open(const char *dir, struct mqsync_reader **ret, struct mqsync_error *ret_error)
{
    struct mqsync_reader *r = calloc(1, sizeof *r);
    if (!r || !(r->dir = strdup(dir))) {
        free(r);
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    }
    enum mqsync_code code = mqsync_lmdb_open(dir, false, 0, &r->env, &r->dbis, ret_error);
    if (code) {
        free(r->dir);
        free(r);
        return code;
    }
    *ret = r;
    return MQSYNC_OK;
}

void mqsync_reader_close(struct mqsync_reader *r)
{
    if (!r)
        return;
    mdb_env_close(r->env);
    free(r->dir);
    free(r);
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){0, ms * 1000000}, NULL);
}

/* One attempt; MQSYNC_CONFLICT: a running writer moved on meanwhile. */
static enum mqsync_code fill_reader_view(struct mqsync_reader *r, struct mqsync_view *v, struct mqsync_error *ret_error)
{
    struct mqsync_state state;
    int rc = mqsync_lmdb_begin_read(r->env, &v->txn);
    if (rc) {
        v->txn = NULL;
        return mqsync_lmdb_fail(ret_error, rc, "cannot read", r->dir);
    }
    struct mqsync_replay replay = {&v->own_collections, v->own_table, v->txn, &r->dbis, 0, 0};
    uint64_t last;
    rc = mqsync_state_get(v->txn, &r->dbis, &state);
    if (rc == 0)
        rc = mqsync_collections_load(&v->own_collections, v->txn, &r->dbis, &replay.records);
    if (rc)
        return mqsync_lmdb_fail(ret_error, rc == MDB_NOTFOUND ? ENOENT : rc, "cannot read", r->dir);
    mqsync_epoch_text(state.epoch, v->epoch);
    if (state.clean)
        return MQSYNC_OK;
    return mqsync_log_read(r->dir, state.epoch, state.applied, mqsync_replay_entry, &replay, &last, ret_error);
}

enum mqsync_code mqsync_reader_view(struct mqsync_reader *r, struct mqsync_view **ret, struct mqsync_error *ret_error)
{
    enum mqsync_code code = MQSYNC_CONFLICT;
    for (int try = 0; try < READER_TRIES && code == MQSYNC_CONFLICT; try++) {
        struct mqsync_view *v = view_alloc(ret_error);
        if (!v)
            return MQSYNC_SERVER_ERROR;
        v->dbis = &r->dbis;
        v->own_txn = true;
        v->own_table = mqsync_table_alloc();
        code = v->own_table ? fill_reader_view(r, v, ret_error)
                            : mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
        /* a segment that is missing for good (power cut) is no reason to wait for ever: what is whole counts */
        if (code == MQSYNC_OK || (code == MQSYNC_CONFLICT && try == READER_TRIES - 1)) {
            v->tables[v->tables_n++] = v->own_table;
            v->collections = &v->own_collections;
            *ret = v;
            return MQSYNC_OK;
        }
        mqsync_view_close(v);
        if (code == MQSYNC_CONFLICT)
            pause_ms(2);
    }
    return code;
}

/* LMDB alone has it all. */
static enum mqsync_code settled_view(struct mqsync_store *s, MDB_txn *txn, struct mqsync_view **ret,
                                     struct mqsync_error *ret_error)
{
    struct mqsync_view *v = view_alloc(ret_error);
    if (!v) {
        mdb_txn_abort(txn);
        return MQSYNC_SERVER_ERROR;
    }
    v->own_txn = true;
    v->txn = txn;
    memcpy(v->epoch, s->epoch, sizeof v->epoch);
    *ret = v;
    return MQSYNC_OK;
}

static void uncount_view(struct mqsync_store *s)
{
    pthread_mutex_lock(&s->lock);
    s->views--;
    pthread_mutex_unlock(&s->lock);
}

enum mqsync_code mqsync_view_settled(struct mqsync_store *s, unsigned timeout_ms, struct mqsync_view **ret,
                                     struct mqsync_error *ret_error)
{
    struct mqsync_view *v = NULL;
    MDB_txn *txn;
    enum mqsync_code code = MQSYNC_SERVER_ERROR;
    int rc = mqsync_store_settle(s, timeout_ms, &txn);
    struct mqsync_reader as_others = {s->dir, s->env, s->dbis}; /* which stay while the view is counted */
    if (rc == 0)
        code = settled_view(s, txn, &v, ret_error);
    else if (rc == EAGAIN)
        code = mqsync_reader_view(&as_others, &v, ret_error);
    else
        mqsync_lmdb_fail(ret_error, rc, "cannot read", s->dir);
    if (code) {
        uncount_view(s);
        return code;
    }
    v->store = s;
    v->dbis = &s->dbis;
    v->settled = true;
    *ret = v;
    return MQSYNC_OK;
}

void mqsync_view_close(struct mqsync_view *v)
{
    if (!v)
        return;
    if (v->own_txn && v->txn)
        mdb_txn_abort(v->txn);
    if (v->settled)
        uncount_view(v->store);
    mqsync_table_free(v->own_table);
    mqsync_collections_free(&v->own_collections);
    free(v);
}

void mqsync_view_over(const struct mqsync_view *v, const struct mqsync_table **ret_table,
                      const struct mqsync_collections **ret_collections)
{
    *ret_table = v->own_table;
    *ret_collections = &v->own_collections;
}

MDB_env *mqsync_reader_env(const struct mqsync_reader *r)
{
    return r->env;
}

const char *mqsync_view_epoch(const struct mqsync_view *v)
{
    return v->epoch;
}

/* --- looking things up -------------------------------------------------------------------------------------------- */

static bool find_collection(struct mqsync_view *v, struct mqsync_slice name, uint32_t *ret_cid,
                            struct mqsync_collection_stat *ret)
{
    if (v->collections) {
        const struct mqsync_collection *c = mqsync_collections_find(v->collections, name);
        if (!c)
            return false;
        *ret_cid = c->cid;
        mqsync_collection_stat(c, ret);
        return true;
    }
    MDB_val key = {name.n, (void *)(uintptr_t)name.p}, value;
    struct mqsync_collection_row row;
    if (name.n == 0 || mdb_get(v->txn, v->dbis->collections, &key, &value) != 0 || value.mv_size != sizeof row)
        return false;
    memcpy(&row, value.mv_data, sizeof row);
    *ret_cid = row.cid;
    *ret = (struct mqsync_collection_stat){name, row.seq, row.records, row.tombstones, row.oldest_seq};
    return true;
}

bool mqsync_view_collection(struct mqsync_view *v, struct mqsync_slice name, struct mqsync_collection_stat *ret)
{
    uint32_t cid;
    return find_collection(v, name, &cid, ret);
}

static int by_name(const void *a, const void *b)
{
    const struct mqsync_collection *x = *(struct mqsync_collection *const *)a,
                                   *y = *(struct mqsync_collection *const *)b;
    return strcmp(x->name, y->name);
}

static bool each_in_memory(const struct mqsync_collections *all,
                           bool (*each)(void *, const struct mqsync_collection_stat *), void *context)
{
    struct mqsync_collection **sorted = malloc((all->n + 1) * sizeof *sorted);
    size_t n = 0;
    if (!sorted)
        return false;
    for (size_t i = 0; i < all->by_cid_n; i++) {
        if (all->by_cid[i])
            sorted[n++] = all->by_cid[i];
    }
    qsort(sorted, n, sizeof *sorted, by_name);
    for (size_t i = 0; i < n; i++) {
        struct mqsync_collection_stat stat;
        mqsync_collection_stat(sorted[i], &stat);
        if (!each(context, &stat))
            break;
    }
    free(sorted);
    return true;
}

enum mqsync_code mqsync_view_collections(struct mqsync_view *v,
                                         bool (*each)(void *context, const struct mqsync_collection_stat *stat),
                                         void *context, struct mqsync_error *ret_error)
{
    if (v->collections)
        return each_in_memory(v->collections, each, context)
                   ? MQSYNC_OK
                   : mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(v->txn, v->dbis->collections, &cursor);
    if (rc)
        return mqsync_lmdb_fail(ret_error, rc, "cannot read", "the database");
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        uint32_t cid;
        struct mqsync_collection_stat stat;
        if (!find_collection(v, mqsync_val_slice(&key), &cid, &stat) || !each(context, &stat))
            break;
    }
    mdb_cursor_close(cursor);
    return rc && rc != MDB_NOTFOUND ? mqsync_lmdb_fail(ret_error, rc, "cannot read", "the database") : MQSYNC_OK;
}

static const struct mqsync_entry *find_overlaid(const struct mqsync_view *v, uint32_t cid, struct mqsync_slice id)
{
    uint64_t hash = mqsync_table_hash(cid, id);
    for (size_t i = 0; i < v->tables_n; i++) {
        const struct mqsync_entry *e = mqsync_table_find(v->tables[i], cid, id, hash);
        if (e)
            return e;
    }
    return NULL;
}

/* LMDB's record, whatever lies over it. */
static enum mqsync_code get_below(struct mqsync_view *v, uint32_t cid, struct mqsync_slice id,
                                  struct mqsync_record *ret, struct mqsync_error *ret_error)
{
    unsigned char buffer[MQSYNC_KEY_MAX];
    MDB_val key = mqsync_record_key(buffer, cid, id), value;
    int rc = mdb_get(v->txn, v->dbis->records, &key, &value);
    if (rc == MDB_NOTFOUND)
        return MQSYNC_RECORD_NOT_FOUND;
    return rc ? mqsync_lmdb_fail(ret_error, rc, "cannot read", "the database")
              : mqsync_record_decode(mqsync_val_slice(&value), ret, ret_error);
}

enum mqsync_code mqsync_view_get(struct mqsync_view *v, struct mqsync_slice collection, struct mqsync_slice id,
                                 struct mqsync_record *ret, struct mqsync_error *ret_error)
{
    uint32_t cid;
    struct mqsync_collection_stat stat;
    if (!mqsync_record_id_valid(id) || !find_collection(v, collection, &cid, &stat))
        return MQSYNC_RECORD_NOT_FOUND;
    const struct mqsync_entry *e = find_overlaid(v, cid, id);
    return e ? mqsync_record_decode(mqsync_entry_value(e), ret, ret_error) : get_below(v, cid, id, ret, ret_error);
}

/* --- walks -------------------------------------------------------------------------------------------------------- */

struct mqsync_walk {
    struct mqsync_view *view;
    uint32_t cid;
    bool by_seq;
    bool below_done; /* LMDB has no more */
    MDB_cursor *cursor;
    MDB_val key, value;         /* LMDB's next */
    MDB_val record;             /* by seq: its record */
    uint64_t next_seq;          /* by seq: what has been handed out is below this */
    struct mqsync_entry **over; /* the tables' entries of this walk, in its order */
    size_t over_n, over_at;
};

static bool hidden(const struct mqsync_view *v, size_t table, const struct mqsync_entry *e)
{
    return table > 0 && mqsync_table_find(v->tables[0], e->cid, mqsync_entry_id(e), e->hash);
}

/* By seq: no more than what has changed since. From the newest table's newest change on, each is older than the one
 * before. */
static void collect_changes(struct mqsync_walk *w, uint64_t since)
{
    const struct mqsync_view *v = w->view;
    for (size_t t = 0; t < v->tables_n; t++) {
        for (struct mqsync_entry *e = mqsync_table_newest(v->tables[t], w->cid); e && e->seq > since; e = e->older) {
            if (!hidden(v, t, e))
                w->over[w->over_n++] = e;
        }
    }
    for (size_t i = 0; i < w->over_n / 2; i++) {
        struct mqsync_entry *e = w->over[i];
        w->over[i] = w->over[w->over_n - 1 - i];
        w->over[w->over_n - 1 - i] = e;
    }
}

static void collect_ids(struct mqsync_walk *w, struct mqsync_slice from)
{
    const struct mqsync_view *v = w->view;
    for (size_t t = 0; t < v->tables_n; t++) {
        for (size_t i = 0; i < v->tables[t]->slots_n; i++) {
            struct mqsync_entry *e = v->tables[t]->slots[i].entry;
            if (!e || e->cid != w->cid || hidden(v, t, e))
                continue;
            size_t n = e->id_n < from.n ? e->id_n : from.n;
            int order = n ? memcmp(e->id, from.p, n) : 0;
            if (order > 0 || (order == 0 && e->id_n >= from.n))
                w->over[w->over_n++] = e;
        }
    }
    qsort(w->over, w->over_n, sizeof(struct mqsync_entry *), mqsync_entry_by_id);
}

static bool collect_over(struct mqsync_walk *w, uint64_t since, struct mqsync_slice from)
{
    const struct mqsync_view *v = w->view;
    size_t max = 0;
    for (size_t t = 0; t < v->tables_n; t++)
        max += v->tables[t]->n;
    if (max == 0)
        return true;
    w->over = malloc(max * sizeof(struct mqsync_entry *));
    if (!w->over)
        return false;
    if (w->by_seq)
        collect_changes(w, since);
    else
        collect_ids(w, from);
    return true;
}

/* Of a row of `records`. */
static struct mqsync_slice row_id(const MDB_val *key)
{
    return (struct mqsync_slice){(const char *)key->mv_data + 4, key->mv_size - 4};
}

/* The record that a row of `changes` tells of. MDB_NOTFOUND: a later change has left the row behind. EAGAIN: it has,
 * and so many that who is in haste gives up. */
static int record_of_row(struct mqsync_view *v, const MDB_val *row, struct mqsync_slice id, MDB_val *ret)
{
    unsigned char buffer[MQSYNC_KEY_MAX];
    struct mqsync_record_head head;
    if (id.n > MQSYNC_MAX_RECORD_ID)
        return MDB_CORRUPTED;
    MDB_val key = mqsync_record_key(buffer, mqsync_key_cid(row), id);
    int rc = mdb_get(v->txn, v->dbis->records, &key, ret);
    if (rc == 0 && mqsync_record_decode_head(mqsync_val_slice(ret), &head) != MQSYNC_OK)
        rc = MDB_CORRUPTED;
    if (rc == 0 && head.seq != mqsync_key_seq(row))
        rc = MDB_NOTFOUND;
    if (rc != MDB_NOTFOUND || !v->hasty)
        return rc;
    if (v->patience == 0)
        return EAGAIN;
    v->patience--;
    return MDB_NOTFOUND;
}

/* Moves LMDB's side on to a row of this collection that counts. EAGAIN: there are too many that do not. */
static int settle_below(struct mqsync_walk *w, MDB_cursor_op op)
{
    for (;; op = MDB_NEXT) {
        int rc = mdb_cursor_get(w->cursor, &w->key, &w->value, op);
        if (rc == MDB_NOTFOUND || (rc == 0 && mqsync_key_cid(&w->key) != w->cid)) {
            w->below_done = true;
            return 0;
        }
        if (rc)
            return rc;
        struct mqsync_slice id = w->by_seq ? mqsync_val_slice(&w->value) : row_id(&w->key);
        if (find_overlaid(w->view, w->cid, id))
            continue;
        if (w->by_seq)
            rc = record_of_row(w->view, &w->key, id, &w->record);
        if (rc != MDB_NOTFOUND)
            return rc;
    }
}

static enum mqsync_code walk_failed(struct mqsync_error *ret_error, int rc)
{
    return rc == EAGAIN ? mqsync_fail(ret_error, MQSYNC_CONFLICT, "too many rows to pass over at once")
                        : mqsync_lmdb_fail(ret_error, rc, "cannot read", "the database");
}

static enum mqsync_code walk_open(struct mqsync_view *v, struct mqsync_slice collection, bool by_seq, uint64_t since,
                                  struct mqsync_slice from, struct mqsync_walk **ret, struct mqsync_error *ret_error)
{
    struct mqsync_walk *w = calloc(1, sizeof *w);
    struct mqsync_collection_stat stat;
    if (!w)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    w->view = v;
    w->by_seq = by_seq;
    w->below_done =
        !find_collection(v, collection, &w->cid, &stat) || from.n > MQSYNC_MAX_RECORD_ID || since == UINT64_MAX;
    w->next_seq = since + 1;
    int rc = 0;
    if (!w->below_done && !collect_over(w, since, from))
        rc = ENOMEM;
    if (!w->below_done && rc == 0) {
        unsigned char buffer[MQSYNC_KEY_MAX];
        rc = mdb_cursor_open(v->txn, by_seq ? v->dbis->changes : v->dbis->records, &w->cursor);
        w->key = by_seq ? mqsync_seq_key(buffer, w->cid, since + 1) : mqsync_record_key(buffer, w->cid, from);
        if (rc == 0)
            rc = settle_below(w, MDB_SET_RANGE);
    }
    if (rc) {
        mqsync_walk_close(w);
        return walk_failed(ret_error, rc);
    }
    *ret = w;
    return MQSYNC_OK;
}

enum mqsync_code mqsync_walk_changes(struct mqsync_view *v, struct mqsync_slice collection, uint64_t since,
                                     struct mqsync_walk **ret, struct mqsync_error *ret_error)
{
    return walk_open(v, collection, true, since, (struct mqsync_slice){"", 0}, ret, ret_error);
}

enum mqsync_code mqsync_walk_records(struct mqsync_view *v, struct mqsync_slice collection, struct mqsync_slice from,
                                     struct mqsync_walk **ret, struct mqsync_error *ret_error)
{
    return walk_open(v, collection, false, 0, from.n ? from : (struct mqsync_slice){"", 0}, ret, ret_error);
}

/* Whether the next one comes from the tables: by seq they follow all of LMDB's, by id the two are merged. */
static bool over_is_next(const struct mqsync_walk *w)
{
    if (w->over_at == w->over_n)
        return false;
    if (w->below_done || w->by_seq)
        return w->below_done;
    const struct mqsync_entry *e = w->over[w->over_at];
    size_t below_n = w->key.mv_size - 4;
    size_t n = e->id_n < below_n ? e->id_n : below_n;
    int order = memcmp(e->id, (const char *)w->key.mv_data + 4, n);
    return order ? order < 0 : e->id_n < below_n;
}

enum mqsync_code mqsync_walk_next(struct mqsync_walk *w, struct mqsync_slice *ret_id, struct mqsync_record *ret,
                                  struct mqsync_error *ret_error)
{
    enum mqsync_code code;
    if (over_is_next(w)) {
        const struct mqsync_entry *e = w->over[w->over_at++];
        *ret_id = mqsync_entry_id(e);
        code = mqsync_record_decode(mqsync_entry_value(e), ret, ret_error);
    } else if (w->below_done) {
        return MQSYNC_RECORD_NOT_FOUND;
    } else {
        *ret_id = w->by_seq ? mqsync_val_slice(&w->value) : row_id(&w->key);
        code = mqsync_record_decode(mqsync_val_slice(w->by_seq ? &w->record : &w->value), ret, ret_error);
        /* slices lead into LMDB's map, which moving the cursor on leaves as it is */
        int rc = settle_below(w, MDB_NEXT);
        if (rc)
            return walk_failed(ret_error, rc);
    }
    if (code == MQSYNC_OK)
        w->next_seq = ret->seq + 1;
    return code;
}

/* What LMDB has; UINT64_MAX when there is too much to pass over. By the rows and the notes alone, since to look at each
 * record takes longer; but who is in haste counts few, and the notes are many. */
static uint64_t count_rows(struct mqsync_walk *w, MDB_cursor *cursor, uint64_t max)
{
    struct mqsync_view *v = w->view;
    unsigned char buffer[12];
    MDB_val key = mqsync_seq_key(buffer, w->cid, w->next_seq), value, record;
    uint64_t n = 0, *stale = NULL;
    size_t stale_n = 0, at = 0;
    bool noted = !v->hasty && mqsync_lmdb_stale(v->txn, v->dbis, w->cid, w->next_seq, &stale, &stale_n) == 0;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    for (; rc == 0 && n < max && mqsync_key_cid(&key) == w->cid; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        struct mqsync_slice id = mqsync_val_slice(&value);
        uint64_t seq = mqsync_key_seq(&key);
        while (noted && at < stale_n && stale[at] < seq)
            at++;
        if ((noted && at < stale_n && stale[at] == seq) || find_overlaid(v, w->cid, id))
            continue;
        int found = noted ? 0 : record_of_row(v, &key, id, &record);
        if (found == EAGAIN) {
            n = UINT64_MAX;
            break;
        }
        n += found == 0;
    }
    free(stale);
    return n;
}

uint64_t mqsync_walk_count(struct mqsync_walk *w, uint64_t max)
{
    uint64_t n = w->over_n - w->over_at;
    MDB_cursor *cursor;
    if (!w->by_seq || w->below_done || n >= max || mdb_cursor_open(w->view->txn, w->view->dbis->changes, &cursor) != 0)
        return n < max ? n : max;
    uint64_t below = count_rows(w, cursor, max - n);
    mdb_cursor_close(cursor);
    return below == UINT64_MAX ? below : n + below;
}

void mqsync_walk_close(struct mqsync_walk *w)
{
    if (!w)
        return;
    if (w->cursor)
        mdb_cursor_close(w->cursor);
    free(w->over);
    free(w);
}
