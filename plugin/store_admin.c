/* SPDX-License-Identifier: BSD-3-Clause */
/* What mqsyncctl does to a whole database: check, backup, restore, compact. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store_internal.h"

#define PATH_BYTES 4096

/* --- check -------------------------------------------------------------------------------------------------------- */

struct check {
    MDB_txn *txn;
    const struct mqsync_dbis *dbis;
    void (*wrong)(void *context, const char *text);
    void *context;
    uint64_t n;
    uint64_t *stale; /* of the collection that is looked at, sorted */
    size_t stale_n;
};

static void report(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void report(struct check *c, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    c->n++;
    c->wrong(c->context, text);
}

static bool row_is(struct check *c, MDB_dbi dbi, uint32_t cid, uint64_t seq, size_t skip, struct mqsync_slice id)
{
    unsigned char buffer[12];
    MDB_val key = mqsync_seq_key(buffer, cid, seq), value;
    if (mdb_get(c->txn, dbi, &key, &value) != 0 || value.mv_size < skip)
        return false;
    return mqsync_slice_equal((struct mqsync_slice){(const char *)value.mv_data + skip, value.mv_size - skip}, id);
}

static bool is_stale(const struct check *c, uint64_t seq)
{
    size_t from = 0, to = c->stale_n;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (c->stale[middle] < seq)
            from = middle + 1;
        else
            to = middle;
    }
    return from < c->stale_n && c->stale[from] == seq;
}

/* Whether data, which the plugin checked before it kept it, is still an object. */
static bool data_whole(const struct mqsync_record *r)
{
    struct mqsync_json_info info;
    return r->deleted || (mqsync_json_check(r->data, &info, NULL) == MQSYNC_OK && info.type == MQSYNC_JSON_OBJECT);
}

static void check_record(struct check *c, const char *name, struct mqsync_collection_row *counted,
                         struct mqsync_slice id, struct mqsync_slice stored)
{
    struct mqsync_record r;
    if (!mqsync_record_id_valid(id)) {
        report(c, "%s: a record with an invalid id of %zu bytes", name, id.n);
        return;
    }
    if (mqsync_record_decode(stored, &r, NULL) != MQSYNC_OK) {
        report(c, "%s/%.*s: the record cannot be read", name, (int)id.n, id.p);
        return;
    }
    if (!data_whole(&r))
        report(c, "%s/%.*s: data is not a JSON object", name, (int)id.n, id.p);
    if (r.version == 0 || r.seq == 0 || r.history[r.history_n - 1].version != r.version)
        report(c, "%s/%.*s: version %llu, seq %llu and history do not agree", name, (int)id.n, id.p,
               (unsigned long long)r.version, (unsigned long long)r.seq);
    if (!row_is(c, c->dbis->changes, counted->cid, r.seq, 0, id))
        report(c, "%s/%.*s: no row for seq %llu in the index of changes", name, (int)id.n, id.p,
               (unsigned long long)r.seq);
    if (is_stale(c, r.seq))
        report(c, "%s/%.*s: the row for seq %llu in the index of changes is its latest, yet noted as stale", name,
               (int)id.n, id.p, (unsigned long long)r.seq);
    if (r.deleted && !row_is(c, c->dbis->graves, counted->cid, r.seq, 8, id))
        report(c, "%s/%.*s: no row for seq %llu in the index of tombstones", name, (int)id.n, id.p,
               (unsigned long long)r.seq);
    counted->records += !r.deleted;
    counted->tombstones += r.deleted;
    if (r.seq > counted->seq)
        counted->seq = r.seq;
}

/* Rows of an index by seq, but for those that `stale` names. */
static uint64_t count_rows(struct check *c, MDB_dbi dbi, uint32_t cid)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    unsigned char buffer[12];
    uint64_t n = 0;
    if (mdb_cursor_open(c->txn, dbi, &cursor) != 0)
        return 0;
    key = mqsync_seq_key(buffer, cid, 0);
    for (int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0 && mqsync_key_cid(&key) == cid;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
        n += !is_stale(c, mqsync_key_seq(&key));
    mdb_cursor_close(cursor);
    return n;
}

static int check_rows(struct check *c, const char *name, const struct mqsync_collection_row *row)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    unsigned char buffer[MQSYNC_KEY_MAX];
    struct mqsync_collection_row counted = {.cid = row->cid};
    int rc = mdb_cursor_open(c->txn, c->dbis->records, &cursor);
    if (rc)
        return rc;
    key = mqsync_record_key(buffer, row->cid, (struct mqsync_slice){"", 0});
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0 && mqsync_key_cid(&key) == row->cid;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
        check_record(c, name, &counted, (struct mqsync_slice){(const char *)key.mv_data + 4, key.mv_size - 4},
                     mqsync_val_slice(&value));
    mdb_cursor_close(cursor);
    if (counted.records != row->records || counted.tombstones != row->tombstones)
        report(c, "%s: counts %llu records and %llu tombstones, holds %llu and %llu", name,
               (unsigned long long)row->records, (unsigned long long)row->tombstones,
               (unsigned long long)counted.records, (unsigned long long)counted.tombstones);
    if (counted.seq > row->seq)
        report(c, "%s: seq is %llu, but a record has %llu", name, (unsigned long long)row->seq,
               (unsigned long long)counted.seq);
    uint64_t changes = count_rows(c, c->dbis->changes, row->cid), graves = count_rows(c, c->dbis->graves, row->cid);
    if (changes != counted.records + counted.tombstones)
        report(c, "%s: the index of changes has %llu rows for %llu records and tombstones", name,
               (unsigned long long)changes, (unsigned long long)(counted.records + counted.tombstones));
    if (graves != counted.tombstones)
        report(c, "%s: the index of tombstones has %llu rows for %llu tombstones", name, (unsigned long long)graves,
               (unsigned long long)counted.tombstones);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int check_collection(struct check *c, const char *name, const struct mqsync_collection_row *row)
{
    int rc = mqsync_lmdb_stale(c->txn, c->dbis, row->cid, 0, &c->stale, &c->stale_n);
    if (rc == 0 && c->stale_n != row->stale)
        report(c, "%s: counts %lu stale rows in the index of changes, knows of %zu", name, (unsigned long)row->stale,
               c->stale_n);
    if (rc == 0)
        rc = check_rows(c, name, row);
    free(c->stale);
    c->stale = NULL;
    c->stale_n = 0;
    return rc;
}

static int check_all(struct check *c)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(c->txn, c->dbis->collections, &cursor);
    if (rc)
        return rc;
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        char name[MQSYNC_MAX_COLLECTION + 1];
        struct mqsync_collection_row row;
        if (value.mv_size != sizeof row || !mqsync_collection_valid(mqsync_val_slice(&key))) {
            report(c, "a collection's row cannot be read");
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)key.mv_size, (const char *)key.mv_data);
        memcpy(&row, value.mv_data, sizeof row);
        int one = check_collection(c, name, &row);
        if (one) {
            rc = one;
            break;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The log beyond LMDB: reading it as a view does checks every entry. */
static enum mqsync_code check_log(struct check *c, const char *dir, struct mqsync_error *ret_error)
{
    struct mqsync_reader *reader;
    struct mqsync_view *view;
    struct mqsync_error error;
    enum mqsync_code code = mqsync_reader_open(dir, &reader, ret_error);
    if (code)
        return code;
    if (mqsync_reader_view(reader, &view, &error) == MQSYNC_OK)
        mqsync_view_close(view);
    else
        report(c, "the log: %s", error.text);
    mqsync_reader_close(reader);
    return MQSYNC_OK;
}

enum mqsync_code mqsync_store_check(const char *dir, void (*wrong)(void *context, const char *text), void *context,
                                    uint64_t *ret_wrong, struct mqsync_error *ret_error)
{
    MDB_env *env;
    struct mqsync_dbis dbis;
    struct check c = {.dbis = &dbis, .wrong = wrong, .context = context};
    enum mqsync_code code = mqsync_lmdb_open(dir, false, 0, &env, &dbis, ret_error);
    if (code)
        return code;
    int rc = mqsync_lmdb_begin_read(env, &c.txn);
    if (rc == 0) {
        rc = check_all(&c);
        mdb_txn_abort(c.txn);
    }
    mdb_env_close(env); /* an environment may be open once in a process, and check_log opens it */
    if (rc && c.n == 0)
        return mqsync_lmdb_fail(ret_error, rc, "cannot read", dir);
    if (rc) /* LMDB gives up a transaction that has met a damaged page */
        report(&c, "the rest cannot be read (%s)", mdb_strerror(rc));
    else
        code = check_log(&c, dir, ret_error);
    *ret_wrong = c.n;
    return code;
}

/* --- copies ------------------------------------------------------------------------------------------------------- */

static void path_in(char out[PATH_BYTES], const char *dir, const char *name)
{
    if (snprintf(out, PATH_BYTES, "%s/%s", dir, name) >= PATH_BYTES)
        out[0] = '\0'; /* no file has this name: what is done with it fails */
}

static uint64_t file_bytes(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    struct stat st;
    path_in(path, dir, name);
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static enum mqsync_code make_empty_dir(const char *dir, struct mqsync_error *ret_error)
{
    if (mkdir(dir, 0750) == 0)
        return MQSYNC_OK;
    if (errno != EEXIST)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot make the directory %s: %s", dir, strerror(errno));
    DIR *d = opendir(dir);
    if (!d)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot open the directory %s: %s", dir, strerror(errno));
    bool empty = true;
    for (struct dirent *e = readdir(d); e && empty; e = readdir(d))
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    return empty ? MQSYNC_OK
                 : mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "%s is not empty; name a directory that is", dir);
}

struct copy {
    MDB_env *env;
    const char *to;
    int rc;
    bool done;
    pthread_mutex_t lock;
};

static void *copy_thread(void *context)
{
    struct copy *c = context;
    char path[PATH_BYTES];
    path_in(path, c->to, "data.mdb");
    /* LMDB's own way to name a copy would let everybody read it */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    int rc = fd < 0 ? errno : mdb_env_copyfd2(c->env, fd, MDB_CP_COMPACT);
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = errno;
    pthread_mutex_lock(&c->lock);
    c->rc = rc;
    c->done = true;
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* LMDB copies in one call and tells nothing meanwhile; the growing file does. */
static int copy_env(MDB_env *env, const char *dir, const char *to, void (*progress)(void *, uint64_t, uint64_t),
                    void *context)
{
    struct copy c = {.env = env, .to = to};
    pthread_t thread;
    pthread_mutex_init(&c.lock, NULL);
    int rc = pthread_create(&thread, NULL, copy_thread, &c);
    if (rc == 0) {
        uint64_t total = file_bytes(dir, "data.mdb");
        for (bool done = false; !done;) {
            pthread_mutex_lock(&c.lock);
            done = c.done;
            pthread_mutex_unlock(&c.lock);
            uint64_t so_far = file_bytes(to, "data.mdb");
            if (progress)
                progress(context, done || so_far > total ? total : so_far, total);
            if (!done)
                nanosleep(&(struct timespec){0, 20 * 1000000}, NULL);
        }
        pthread_join(thread, NULL);
        rc = c.rc;
    }
    pthread_mutex_destroy(&c.lock);
    return rc;
}

/* One entry of the log over a copy that is a little younger than the view. What has reached the copy by itself, with a
 * part of its batch maybe, is not older. */
static void lay_over(MDB_txn *txn, const struct mqsync_dbis *d, const struct mqsync_collection *c,
                     struct mqsync_entry *e, int *rc)
{
    struct mqsync_collection_row row = {.cid = e->cid};
    struct mqsync_record_head head = {0};
    unsigned char buffer[MQSYNC_KEY_MAX];
    MDB_val key = mqsync_record_key(buffer, e->cid, mqsync_entry_id(e)), value;
    if (*rc)
        return;
    if (mdb_get(txn, d->records, &key, &value) == 0 &&
        mqsync_record_decode_head(mqsync_val_slice(&value), &head) != MQSYNC_OK)
        *rc = MDB_CORRUPTED;
    if (*rc || head.seq >= e->seq)
        return;
    key = (MDB_val){c->name_n, (void *)(uintptr_t)c->name};
    if (mdb_get(txn, d->collections, &key, &value) == 0 && value.mv_size == sizeof row)
        memcpy(&row, value.mv_data, sizeof row);
    *rc = mqsync_lmdb_put_run(txn, d, &row, &e, 1, false);
    value = (MDB_val){sizeof row, &row};
    if (*rc == 0)
        *rc = mdb_put(txn, d->collections, &key, &value, 0);
}

static int lay_all_over(MDB_txn *txn, const struct mqsync_dbis *d, const struct mqsync_table *over,
                        const struct mqsync_collections *collections, struct mqsync_state *state)
{
    struct mqsync_entry **sorted = malloc((over->n + 1) * sizeof *sorted);
    size_t n = 0;
    int rc = 0;
    if (!sorted)
        return ENOMEM;
    for (size_t i = 0; i < over->slots_n; i++) {
        if (over->slots[i].entry)
            sorted[n++] = over->slots[i].entry;
    }
    qsort(sorted, n, sizeof *sorted, mqsync_entry_by_seq);
    for (size_t i = 0; i < n; i++) {
        lay_over(txn, d, collections->by_cid[sorted[i]->cid], sorted[i], &rc);
        if (sorted[i]->cid >= state->next_cid)
            state->next_cid = sorted[i]->cid + 1;
    }
    free(sorted);
    return rc;
}

/* Makes a copy a whole database of its own: with what the log held (over may be NULL), cleanly closed, perhaps a new
 * epoch. */
static enum mqsync_code finish_copy(const char *to, const struct mqsync_table *over,
                                    const struct mqsync_collections *collections, const unsigned char *new_epoch,
                                    struct mqsync_error *ret_error)
{
    MDB_env *env;
    struct mqsync_dbis d;
    MDB_txn *txn = NULL;
    struct mqsync_state state;
    enum mqsync_code code = mqsync_lmdb_open(to, true, 0, &env, &d, ret_error);
    if (code)
        return code;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc == 0)
        rc = mqsync_state_get(txn, &d, &state);
    if (rc == 0 && over)
        rc = lay_all_over(txn, &d, over, collections, &state);
    state.clean = 1;
    if (new_epoch)
        memcpy(state.epoch, new_epoch, 16);
    if (rc == 0)
        rc = mqsync_state_put(txn, &d, &state);
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else if (txn)
        mdb_txn_abort(txn);
    mdb_env_close(env);
    return rc ? mqsync_lmdb_fail(ret_error, rc == MDB_NOTFOUND ? ENOENT : rc, "cannot complete the copy in", to)
              : MQSYNC_OK;
}

static void remove_files(const char *dir)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "lock", "log.0", "log.1", "log.2"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        path_in(path, dir, names[i]);
        unlink(path);
    }
}

/* data.mdb of `from` becomes dir's, in one step. */
static enum mqsync_code put_in_place(const char *dir, const char *from, struct mqsync_error *ret_error)
{
    char source[PATH_BYTES], target[PATH_BYTES];
    path_in(source, from, "data.mdb");
    path_in(target, dir, "data.mdb");
    struct stat owner;
    char lock[PATH_BYTES];
    int fd = open(source, O_RDWR | O_CLOEXEC);
    /* the broker's user must be able to open what root has restored */
    bool ok = fd >= 0 && (stat(dir, &owner) != 0 || fchown(fd, owner.st_uid, owner.st_gid) == 0 || geteuid() != 0) &&
              fsync(fd) == 0;
    int why = errno;
    if (fd >= 0)
        close(fd);
    /* LMDB's table of readers tells of the old file */
    path_in(lock, dir, "lock.mdb");
    unlink(lock);
    if (!ok || rename(source, target) != 0)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot put the new database in place as %s: %s", target,
                           strerror(ok ? errno : why));
    unlink(lock); /* made again by who opened the old file meanwhile: LMDB would go on from where that was */
    /* logs of the old database name its epoch or segments that the new one counts as done: none is taken for the new
     * one's */
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd >= 0) {
        fsync(dir_fd);
        close(dir_fd);
    }
    return MQSYNC_OK;
}

/* Copies what reader has open, `from`, into dir/new.tmp, completes it there, and puts it in place: whoever finds
 * data.mdb in dir finds all of it. Closes reader. */
static enum mqsync_code copy_whole(struct mqsync_reader *reader, const char *from, const char *dir,
                                   const unsigned char *new_epoch, void (*progress)(void *, uint64_t, uint64_t),
                                   void *context, struct mqsync_error *ret_error)
{
    char temporary[PATH_BYTES];
    struct mqsync_view *view = NULL;
    const struct mqsync_table *over;
    const struct mqsync_collections *collections;
    path_in(temporary, dir, "new.tmp");
    remove_files(temporary); /* of an attempt that was killed */
    rmdir(temporary);
    enum mqsync_code code = make_empty_dir(temporary, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_reader_view(reader, &view, ret_error);
    if (code == MQSYNC_OK) {
        mqsync_view_over(view, &over, &collections);
        int rc = copy_env(mqsync_reader_env(reader), from, temporary, progress, context);
        code = rc ? mqsync_lmdb_fail(ret_error, rc, "cannot copy to", dir)
                  : finish_copy(temporary, over, collections, new_epoch, ret_error);
    }
    mqsync_view_close(view);
    mqsync_reader_close(reader);
    if (code == MQSYNC_OK)
        code = put_in_place(dir, temporary, ret_error);
    remove_files(temporary);
    rmdir(temporary);
    return code;
}

enum mqsync_code mqsync_store_backup(const char *dir, const char *to, void (*progress)(void *, uint64_t, uint64_t),
                                     void *context, struct mqsync_error *ret_error)
{
    struct mqsync_reader *reader;
    enum mqsync_code code = mqsync_reader_open(dir, &reader, ret_error);
    if (code)
        return code;
    code = make_empty_dir(to, ret_error);
    if (code == MQSYNC_OK)
        return copy_whole(reader, dir, to, NULL, progress, context, ret_error);
    mqsync_reader_close(reader);
    return code;
}

/* dir, which is locked meanwhile, becomes what `from` is. */
static enum mqsync_code replace_with_copy(const char *dir, const char *from, const unsigned char *new_epoch,
                                          void (*progress)(void *, uint64_t, uint64_t), void *context,
                                          struct mqsync_error *ret_error)
{
    int lock_fd;
    struct mqsync_reader *reader;
    enum mqsync_code code = mqsync_reader_open(from, &reader, ret_error); /* first: without it nothing is made */
    if (code)
        return code;
    if (mkdir(dir, 0750) != 0 && errno != EEXIST)
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot make the directory %s: %s", dir, strerror(errno));
    else
        code = mqsync_store_lock(dir, &lock_fd, ret_error);
    if (code) {
        mqsync_reader_close(reader);
        return code;
    }
    code = copy_whole(reader, from, dir, new_epoch, progress, context, ret_error);
    close(lock_fd);
    return code;
}

enum mqsync_code mqsync_store_restore(const char *dir, const char *from, void (*progress)(void *, uint64_t, uint64_t),
                                      void *context, struct mqsync_error *ret_error)
{
    unsigned char epoch[16];
    enum mqsync_code code = mqsync_epoch_new(epoch, ret_error);
    return code ? code : replace_with_copy(dir, from, epoch, progress, context, ret_error);
}

enum mqsync_code mqsync_store_compact(const char *dir, void (*progress)(void *, uint64_t, uint64_t), void *context,
                                      struct mqsync_error *ret_error)
{
    return replace_with_copy(dir, dir, NULL, progress, context, ret_error);
}
