/* SPDX-License-Identifier: BSD-3-Clause */
/* The store's side that knows LMDB: environment, state, and what one record's rows are. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_internal.h"

/* Address space, not memory or disk: the file grows as it is written. */
#define MAP_FIRST (sizeof(void *) > 4 ? (size_t)64 << (sizeof(void *) > 4 ? 30 : 0) : (size_t)512 << 20)
#define MAP_LEAST ((size_t)64 << 20)
#define MAX_READERS 510
#define STALE_ROW 250 /* seqs in a row of `stale`: two such fill a page; longer ones would take pages of their own */

enum mqsync_code mqsync_lmdb_fail(struct mqsync_error *e, int rc, const char *doing, const char *dir)
{
    switch (rc) {
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
        return mqsync_fail(e, MQSYNC_SERVER_ERROR,
                           "%s %s: the database is damaged (%s); restore a backup with mqsyncctl restore", doing, dir,
                           mdb_strerror(rc));
    case MDB_PANIC:
        return mqsync_fail(e, MQSYNC_SERVER_ERROR,
                           "%s %s: the disk did not take the end of a transaction; the database is opened again", doing,
                           dir);
    case MDB_VERSION_MISMATCH:
        return mqsync_fail(e, MQSYNC_SERVER_ERROR, "%s %s: written by a newer mqsync (or LMDB); install that version",
                           doing, dir);
    case MDB_READERS_FULL:
        return mqsync_fail(e, MQSYNC_SERVER_ERROR, "%s %s: too many readers at once (%d)", doing, dir, MAX_READERS);
    case EACCES:
    case EPERM:
    case EROFS:
        return mqsync_fail(e, MQSYNC_SERVER_ERROR,
                           "%s %s: %s; the user that runs this must own the directory and its files", doing, dir,
                           mdb_strerror(rc));
    case EIO: /* LMDB's word for a write that found room for a part only */
        return mqsync_fail(e, MQSYNC_SERVER_ERROR, "%s %s: the disk is full or failing (%s)", doing, dir,
                           mdb_strerror(rc));
    case ENOENT:
        return mqsync_fail(e, MQSYNC_SERVER_ERROR, "%s %s: there is no mqsync database here", doing, dir);
    default:
        return mqsync_fail(e, MQSYNC_SERVER_ERROR, "%s %s: %s", doing, dir, mdb_strerror(rc));
    }
}

static size_t first_map_bytes(const char *dir, size_t asked)
{
    char name[4096];
    struct stat st;
    size_t map = asked ? asked : MAP_FIRST;
    snprintf(name, sizeof name, "%s/data.mdb", dir);
    if (stat(name, &st) == 0) {
        while (map < (size_t)st.st_size * 2 && map < SIZE_MAX / 4)
            map *= 2;
    }
    return map;
}

static int open_dbis(MDB_env *env, bool write, struct mqsync_dbis *d)
{
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } all[] = {
        {"meta", &d->meta},   {"collections", &d->collections}, {"records", &d->records}, {"changes", &d->changes},
        {"stale", &d->stale}, {"graves", &d->graves},           {"floors", &d->floors}};
    MDB_txn *txn;
    int rc = write ? mdb_txn_begin(env, NULL, 0, &txn) : mqsync_lmdb_begin_read(env, &txn);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof all / sizeof *all && rc == 0; i++)
        rc = mdb_dbi_open(txn, all[i].name, write ? MDB_CREATE : 0, all[i].dbi);
    if (rc) {
        mdb_txn_abort(txn);
        return rc == MDB_NOTFOUND ? ENOENT : rc;
    }
    return mdb_txn_commit(txn);
}

static int open_env(const char *dir, bool write, size_t map_bytes, MDB_env **ret)
{
    MDB_env *env;
    int rc = mdb_env_create(&env);
    if (rc)
        return rc;
    rc = mdb_env_set_maxdbs(env, 7);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(env, MAX_READERS);
    if (rc == 0)
        rc = mdb_env_set_mapsize(env, map_bytes);
    /* NOTLS: a transaction belongs to its object, not to a thread. No WRITEMAP: a full disk is an error from pwrite,
     * and a stray pointer in the broker cannot write into the database. */
    if (rc == 0)
        rc = mdb_env_open(env, dir, MDB_NOTLS | MDB_NORDAHEAD | (write ? 0 : MDB_RDONLY), 0640);
    if (rc) {
        mdb_env_close(env);
        return rc;
    }
    *ret = env;
    return 0;
}

/* --- files that were cut off -------------------------------------------------------------------------------------- */

/* Whether the file ends before the last page that LMDB has given out. A page that was taken and given back in one
 * transaction is never written, so that this may be as it should. */
static bool ends_early(MDB_env *env)
{
    MDB_envinfo info;
    MDB_stat pages;
    struct stat st;
    int fd;
    return mdb_env_info(env, &info) == 0 && mdb_env_stat(env, &pages) == 0 && mdb_env_get_fd(env, &fd) == 0 &&
           fstat(fd, &st) == 0 && (uint64_t)st.st_size / pages.ms_psize <= info.me_last_pgno;
}

static volatile unsigned char touched;

static int touch_rows(MDB_txn *txn, MDB_dbi dbi)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, dbi, &cursor);
    if (rc)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (value.mv_size > 0)
            touched = ((const unsigned char *)value.mv_data)[value.mv_size - 1];
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Reads whatever may be read one day. What has been cut off ends the process. */
static int touch_all(const char *dir, size_t map)
{
    MDB_env *env;
    MDB_txn *txn;
    struct mqsync_dbis d;
    int rc = open_env(dir, false, map, &env);
    if (rc == 0)
        rc = open_dbis(env, false, &d);
    if (rc == 0)
        rc = mqsync_lmdb_begin_read(env, &txn);
    if (rc)
        return rc;
    const MDB_dbi all[] = {
        0 /* LMDB's own of free pages */, d.meta, d.collections, d.records, d.changes, d.stale, d.graves, d.floors};
    for (size_t i = 0; i < sizeof all / sizeof *all && rc == 0; i++)
        rc = touch_rows(txn, all[i]);
    return rc;
}

/* Whether nothing is missing in a file that ends early: tried by a child, since the broker would not survive to tell.
 */
static bool whole(const char *dir, size_t map)
{
    int status = 0;
    pid_t ended, child = fork();
    if (child == 0) {
        static const int signals[] = {SIGBUS, SIGSEGV, SIGABRT};
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
            signal(signals[i], SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        _exit(touch_all(dir, map) ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    if (child < 0)
        return false;
    while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR)
        ;
    return ended == child && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

enum mqsync_code mqsync_lmdb_open(const char *dir, bool write, size_t map_bytes, MDB_env **ret_env,
                                  struct mqsync_dbis *ret_dbis, struct mqsync_error *ret_error)
{
    MDB_env *env = NULL;
    size_t map = first_map_bytes(dir, map_bytes);
    int rc;
    /* a limit on address space (ulimit -v), or valgrind, which says EINVAL */
    while (((rc = open_env(dir, write, map, &env)) == ENOMEM || rc == EINVAL) && map > MAP_LEAST)
        map /= 2;
    if (rc == 0 && write && ends_early(env)) {
        mdb_env_close(env);
        if (!whole(dir, map))
            return mqsync_fail(
                ret_error, MQSYNC_SERVER_ERROR,
                "cannot open %s: the database is damaged (data.mdb has been cut off: a copy that is not complete?); "
                "restore a backup with mqsyncctl restore",
                dir);
        rc = open_env(dir, write, map, &env);
    }
    if (rc == EBADF && !write) /* LMDB found an empty file and tried to write its first page */
        rc = ENOENT;
    if (rc == 0 && (rc = open_dbis(env, write, ret_dbis)) != 0)
        mdb_env_close(env);
    if (rc)
        return mqsync_lmdb_fail(ret_error, rc, "cannot open", dir);
    int dead;
    mdb_reader_check(env, &dead); /* slots of killed readers would keep pages from being used again */
    *ret_env = env;
    return MQSYNC_OK;
}

int mqsync_lmdb_reopen(MDB_env *env, const char *dir, MDB_env **ret_env, struct mqsync_dbis *ret_dbis)
{
    MDB_envinfo info = {.me_mapsize = first_map_bytes(dir, 0)};
    if (env) {
        mdb_env_info(env, &info);
        mdb_env_close(env); /* an environment may be open once in a process */
    }
    *ret_env = NULL;
    int rc = open_env(dir, true, info.me_mapsize, &env);
    if (rc == 0 && (rc = open_dbis(env, true, ret_dbis)) != 0)
        mdb_env_close(env);
    if (rc == 0)
        *ret_env = env;
    return rc;
}

/* Whether there is room for a map of that size, beside the one there is. */
static bool can_map(MDB_env *env, size_t bytes)
{
    int fd;
    void *p = mdb_env_get_fd(env, &fd) == 0 ? mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (p != MAP_FAILED)
        munmap(p, bytes);
    return p != MAP_FAILED;
}

int mqsync_lmdb_grow(MDB_env *env, size_t bytes)
{
    MDB_envinfo info;
    mdb_env_info(env, &info);
    if (bytes <= info.me_mapsize)
        return ENOMEM;
    for (size_t more = bytes - info.me_mapsize; more >= bytes / 16; more = (more / 2) & ~(size_t)0xFFFF) {
        if (can_map(env, info.me_mapsize + more))
            return mdb_env_set_mapsize(env, info.me_mapsize + more);
    }
    return ENOMEM;
}

/* As large as the file is by now. */
static int follow_map(MDB_env *env)
{
    MDB_envinfo info;
    MDB_stat pages;
    mdb_env_info(env, &info);
    mdb_env_stat(env, &pages);
    size_t size = info.me_mapsize;
    while (size / pages.ms_psize <= info.me_last_pgno && size < SIZE_MAX / 4)
        size *= 2;
    return can_map(env, size) ? mdb_env_set_mapsize(env, size) : ENOMEM;
}

int mqsync_lmdb_begin_read(MDB_env *env, MDB_txn **ret)
{
    int rc = env ? mdb_txn_begin(env, NULL, MDB_RDONLY, ret) : MDB_PANIC;
    if (rc == MDB_MAP_RESIZED) {
        rc = follow_map(env);
        if (rc == 0)
            rc = mdb_txn_begin(env, NULL, MDB_RDONLY, ret);
    }
    return rc;
}

static MDB_val state_key(void)
{
    static char name[] = "state";
    return (MDB_val){sizeof name - 1, name};
}

int mqsync_state_get(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_state *ret)
{
    MDB_val key = state_key(), value;
    int rc = mdb_get(txn, d->meta, &key, &value);
    if (rc)
        return rc;
    if (value.mv_size < 4)
        return MDB_CORRUPTED;
    uint32_t format;
    memcpy(&format, value.mv_data, 4);
    if (format > MQSYNC_STORE_FORMAT)
        return MDB_VERSION_MISMATCH;
    if (value.mv_size != sizeof *ret)
        return MDB_CORRUPTED;
    memcpy(ret, value.mv_data, sizeof *ret);
    ret->boot_id[sizeof ret->boot_id - 1] = '\0';
    return 0;
}

int mqsync_state_put(MDB_txn *txn, const struct mqsync_dbis *d, const struct mqsync_state *state)
{
    MDB_val key = state_key();
    struct mqsync_state copy = *state;
    MDB_val value = {sizeof copy, &copy};
    return mdb_put(txn, d->meta, &key, &value, 0);
}

void mqsync_epoch_text(const unsigned char epoch[16], char out[33])
{
    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", epoch[i]);
}

enum mqsync_code mqsync_epoch_new(unsigned char epoch[16], struct mqsync_error *ret_error)
{
    if (getrandom(epoch, 16, 0) != 16)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot get random bytes for an epoch: %s", strerror(errno));
    return MQSYNC_OK;
}

/* --- a record's rows ---------------------------------------------------------------------------------------------- */

static void remove_row(MDB_txn *txn, MDB_dbi dbi, uint32_t cid, uint64_t seq, int *rc)
{
    unsigned char buffer[12];
    MDB_val key = mqsync_seq_key(buffer, cid, seq);
    if (*rc == 0)
        *rc = mdb_del(txn, dbi, &key, NULL);
    if (*rc == MDB_NOTFOUND)
        *rc = MDB_CORRUPTED; /* the row that belongs to a record is not there */
}

struct run {
    MDB_txn *txn;
    const struct mqsync_dbis *d;
    struct mqsync_collection_row *row;
    uint64_t *stale; /* seqs that the ids of the run had before */
    size_t stale_n;
    int rc; /* sticky */
};

static void put_record(struct run *r, MDB_cursor *records, const struct mqsync_entry *e)
{
    unsigned char buffer[MQSYNC_KEY_MAX];
    MDB_val key = mqsync_record_key(buffer, e->cid, mqsync_entry_id(e)), old, value = {e->value_n, e->value};
    struct mqsync_record_head head;
    int found = mdb_cursor_get(records, &key, &old, MDB_SET);
    if (found && found != MDB_NOTFOUND) {
        r->rc = found;
        return;
    }
    if (found == 0) {
        if (mqsync_record_decode_head(mqsync_val_slice(&old), &head) != MQSYNC_OK) {
            r->rc = MDB_CORRUPTED;
            return;
        }
        if (head.seq != e->seq) /* the same: moved before, by who did not come to the batch's end */
            r->stale[r->stale_n++] = head.seq;
        if (head.deleted)
            remove_row(r->txn, r->d->graves, e->cid, head.seq, &r->rc);
        *(head.deleted ? &r->row->tombstones : &r->row->records) -= 1;
    }
    if (r->rc)
        return;
    key = mqsync_record_key(buffer, e->cid, mqsync_entry_id(e));
    r->rc = mdb_cursor_put(records, &key, &value, found == 0 ? MDB_CURRENT : 0);
    *(e->deleted ? &r->row->tombstones : &r->row->records) += 1;
    if (e->seq > r->row->seq)
        r->row->seq = e->seq;
}

static void put_records(struct run *r, struct mqsync_entry *const *entries, size_t n)
{
    MDB_cursor *records;
    r->rc = mdb_cursor_open(r->txn, r->d->records, &records);
    if (r->rc)
        return;
    for (size_t i = 0; i < n && r->rc == 0; i++)
        put_record(r, records, entries[i]);
    mdb_cursor_close(records);
}

static void note_stale(struct run *r)
{
    for (size_t at = 0; at < r->stale_n && r->rc == 0;) {
        unsigned char buffer[12];
        size_t n = r->stale_n - at < STALE_ROW ? r->stale_n - at : STALE_ROW;
        MDB_val key = mqsync_seq_key(buffer, r->row->cid, r->row->stale), value = {n * sizeof *r->stale, r->stale + at};
        r->rc = mdb_put(r->txn, r->d->stale, &key, &value, 0);
        r->row->stale += (uint32_t)n;
        at += n;
    }
}

static void put_grave(struct run *r, const struct mqsync_entry *e)
{
    struct mqsync_record record;
    unsigned char buffer[12], row[8 + MQSYNC_MAX_RECORD_ID];
    if (r->rc || mqsync_record_decode(mqsync_entry_value(e), &record, NULL) != MQSYNC_OK) {
        r->rc = r->rc ? r->rc : MDB_CORRUPTED;
        return;
    }
    uint64_t be = htobe64((uint64_t)record.history[record.history_n - 1].arrived_ms);
    memcpy(row, &be, 8);
    memcpy(row + 8, e->id, e->id_n);
    MDB_val key = mqsync_seq_key(buffer, e->cid, e->seq), value = {8 + e->id_n, row};
    r->rc = mdb_put(r->txn, r->d->graves, &key, &value, 0);
}

static void put_new_rows(struct run *r, struct mqsync_entry **by_seq, size_t n)
{
    MDB_cursor *changes;
    /* seqs of the collection with the highest number go at the very end, where pages can be filled; LMDB says whether
     * it is one */
    unsigned flags = MDB_APPEND;
    if (r->rc || (r->rc = mdb_cursor_open(r->txn, r->d->changes, &changes)) != 0)
        return;
    for (size_t i = 0; i < n && r->rc == 0; i++) {
        unsigned char buffer[12];
        MDB_val key = mqsync_seq_key(buffer, by_seq[i]->cid, by_seq[i]->seq), value = {by_seq[i]->id_n, by_seq[i]->id};
        r->rc = mdb_cursor_put(changes, &key, &value, flags);
        if (r->rc == MDB_KEYEXIST && flags) {
            flags = 0;
            r->rc = mdb_cursor_put(changes, &key, &value, 0);
        }
        if (by_seq[i]->deleted)
            put_grave(r, by_seq[i]);
    }
    mdb_cursor_close(changes);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void remove_stale(struct run *r)
{
    qsort(r->stale, r->stale_n, sizeof *r->stale, by_value);
    if (r->rc == 0)
        r->rc = mqsync_lmdb_sweep(r->txn, r->d, r->row->cid, r->stale, r->stale_n);
}

int mqsync_lmdb_put_run(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_collection_row *row,
                        struct mqsync_entry *const *entries, size_t n, bool leave_stale)
{
    struct run r = {.txn = txn, .d = d, .row = row};
    struct mqsync_entry **by_seq = malloc((n + 1) * sizeof *by_seq);
    r.stale = malloc((n + 1) * sizeof *r.stale);
    if (by_seq && r.stale) {
        memcpy(by_seq, entries, n * sizeof *by_seq);
        qsort(by_seq, n, sizeof *by_seq, mqsync_entry_by_seq);
        put_records(&r, entries, n);
        if (leave_stale)
            note_stale(&r);
        else
            remove_stale(&r);
        put_new_rows(&r, by_seq, n);
    } else {
        r.rc = ENOMEM;
    }
    free(by_seq);
    free(r.stale);
    return r.rc;
}

/* --- sweeping the index of changes -------------------------------------------------------------------------------- */

/* The seqs of one row of `stale` that count, behind *n others. */
static bool add_seqs(uint64_t **seqs, size_t *n, size_t *cap, const MDB_val *row, uint64_t from)
{
    size_t more = row->mv_size / sizeof **seqs;
    if (*n + more > *cap) {
        size_t bigger = (*n + more) * 2;
        uint64_t *p = realloc(*seqs, bigger * sizeof *p);
        if (!p)
            return false;
        *seqs = p;
        *cap = bigger;
    }
    for (size_t i = 0; i < more; i++) {
        uint64_t seq;
        memcpy(&seq, (const char *)row->mv_data + i * sizeof seq, sizeof seq);
        if (seq >= from)
            (*seqs)[(*n)++] = seq;
    }
    return true;
}

int mqsync_lmdb_stale(MDB_txn *txn, const struct mqsync_dbis *d, uint32_t cid, uint64_t from, uint64_t **ret,
                      size_t *ret_n)
{
    MDB_cursor *cursor;
    unsigned char buffer[12];
    MDB_val key = mqsync_seq_key(buffer, cid, 0), value;
    size_t cap = 0;
    *ret = NULL;
    *ret_n = 0;
    int rc = mdb_cursor_open(txn, d->stale, &cursor);
    if (rc)
        return rc;
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0 && mqsync_key_cid(&key) == cid;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (!add_seqs(ret, ret_n, &cap, &value, from)) {
            rc = ENOMEM;
            break;
        }
    }
    mdb_cursor_close(cursor);
    if (*ret_n)
        qsort(*ret, *ret_n, sizeof **ret, by_value);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int mqsync_lmdb_sweep(MDB_txn *txn, const struct mqsync_dbis *d, uint32_t cid, const uint64_t *seqs, size_t n)
{
    MDB_cursor *changes;
    int rc = mdb_cursor_open(txn, d->changes, &changes);
    if (rc)
        return rc;
    for (size_t i = 0; i < n && rc == 0; i++) {
        unsigned char buffer[12];
        MDB_val key = mqsync_seq_key(buffer, cid, seqs[i]), value;
        rc = mdb_cursor_get(changes, &key, &value, MDB_SET);
        if (rc == 0)
            rc = mdb_cursor_del(changes, 0);
        else if (rc == MDB_NOTFOUND)
            rc = 0;
    }
    mdb_cursor_close(changes);
    return rc;
}

int mqsync_lmdb_swept(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_collection_row *row)
{
    MDB_cursor *cursor;
    unsigned char buffer[12];
    MDB_val key = mqsync_seq_key(buffer, row->cid, 0), value;
    int rc = mdb_cursor_open(txn, d->stale, &cursor);
    if (rc)
        return rc;
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0 && mqsync_key_cid(&key) == row->cid;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        rc = mdb_cursor_del(cursor, 0);
        if (rc)
            break;
    }
    mdb_cursor_close(cursor);
    row->stale = 0;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* --- forgetting tombstones ---------------------------------------------------------------------------------------- */

/* Versions are never used again: what a forgotten id counted to goes into its bucket's floor. */
static void raise_floor(MDB_txn *txn, const struct mqsync_dbis *d, uint32_t cid, struct mqsync_slice id,
                        uint64_t version, int *rc)
{
    uint32_t bucket = htobe32(mqsync_floor_bucket(cid, id));
    MDB_val key = {4, &bucket}, value;
    uint64_t old = 0;
    int found = mdb_get(txn, d->floors, &key, &value);
    if (found == 0 && value.mv_size == 8)
        memcpy(&old, value.mv_data, 8);
    if (found != 0 && found != MDB_NOTFOUND) {
        *rc = found;
        return;
    }
    if (version <= old)
        return;
    value = (MDB_val){8, &version};
    *rc = mdb_put(txn, d->floors, &key, &value, 0);
}

static void forget_one(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_collection_row *row, uint64_t seq,
                       struct mqsync_slice id, int *rc)
{
    unsigned char buffer[MQSYNC_KEY_MAX];
    MDB_val key = mqsync_record_key(buffer, row->cid, id), value;
    struct mqsync_record_head head;
    *rc = mdb_get(txn, d->records, &key, &value);
    if (*rc == 0 &&
        (mqsync_record_decode_head(mqsync_val_slice(&value), &head) != MQSYNC_OK || !head.deleted || head.seq != seq))
        *rc = MDB_CORRUPTED;
    if (*rc == 0)
        raise_floor(txn, d, row->cid, id, head.version, rc);
    if (*rc == 0)
        *rc = mdb_del(txn, d->records, &key, NULL);
    remove_row(txn, d->changes, row->cid, seq, rc);
    remove_row(txn, d->graves, row->cid, seq, rc);
    row->tombstones--;
    if (seq > row->oldest_seq)
        row->oldest_seq = seq;
}

unsigned mqsync_lmdb_forget(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_collection_row *row,
                            int64_t cutoff_ms, unsigned max, int *rc)
{
    unsigned n = 0;
    while (*rc == 0 && n < max && row->tombstones > 0) {
        MDB_cursor *cursor;
        unsigned char buffer[12];
        MDB_val key = mqsync_seq_key(buffer, row->cid, 0), value;
        *rc = mdb_cursor_open(txn, d->graves, &cursor);
        if (*rc)
            break;
        int found = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        char id[MQSYNC_MAX_RECORD_ID];
        uint64_t be = 0, seq = 0;
        size_t id_n = 0;
        bool due = false;
        if (found == 0 && mqsync_key_cid(&key) == row->cid && value.mv_size > 8 && value.mv_size <= 8 + sizeof id) {
            memcpy(&be, value.mv_data, 8);
            id_n = value.mv_size - 8;
            memcpy(id, (const char *)value.mv_data + 8, id_n);
            seq = mqsync_key_seq(&key);
            due = (int64_t)be64toh(be) < cutoff_ms;
        }
        mdb_cursor_close(cursor);
        if (!due)
            break;
        forget_one(txn, d, row, seq, (struct mqsync_slice){id, id_n}, rc);
        n++;
    }
    return n;
}
