/* SPDX-License-Identifier: BSD-3-Clause */
/* The store's door: opening and recovery, and what the writer's thread does for each record. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store_internal.h"

#define LOG_LIMIT ((size_t)256 * 1024 * 1024)
#define SYNC_INTERVAL_MS 100
#define REOPEN_AGAIN_MS 1000

int64_t mqsync_monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void mqsync_store_log(struct mqsync_store *s, enum mqsync_log_level level, const char *id, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (s->o.log)
        s->o.log(s->o.log_context, level, id, text);
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static enum mqsync_code make_dir(const char *dir, struct mqsync_error *ret_error)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s", dir);
    if (n <= 0 || (size_t)n >= sizeof path - 16)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the database path is empty or too long");
    for (char *p = path + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        if (mkdir(path, 0750) != 0 && errno != EEXIST)
            return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR,
                               "cannot make the directory %s: %s; make it and give it to the user that runs the broker",
                               path, strerror(errno));
        if (end == '\0')
            return MQSYNC_OK;
        *p = end;
    }
}

enum mqsync_code mqsync_store_lock(const char *dir, int *ret_fd, struct mqsync_error *ret_error)
{
    char name[4096];
    snprintf(name, sizeof name, "%s/lock", dir);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR,
                           "cannot open %s: %s; the user that runs this must own the directory and its files", name,
                           strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[24] = "";
        ssize_t got = pread(fd, pid, sizeof pid - 1, 0);
        pid[got > 0 ? got : 0] = '\0';
        close(fd);
        return mqsync_fail(ret_error, MQSYNC_CONFLICT, "%s is in use by process %s; one broker at a time may have it",
                           dir, *pid ? pid : "(unknown)");
    }
    char pid[24];
    int n = snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n)
        errno = 0; /* who has it is a courtesy */
    *ret_fd = fd;
    return MQSYNC_OK;
}

static void read_boot_id(const char *given, char out[40])
{
    memset(out, 0, 40);
    if (given) {
        snprintf(out, 40, "%s", given);
        return;
    }
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f) {
        if (fscanf(f, "%39s", out) != 1)
            out[0] = '\0';
        fclose(f);
    }
}

static void fill_defaults(struct mqsync_store_options *o)
{
    if (o->sync_interval_ms == 0)
        o->sync_interval_ms = SYNC_INTERVAL_MS;
    if (o->log_limit == 0)
        o->log_limit = LOG_LIMIT;
}

/* The record's latest version, if it has changed lately. The lock is held. */
static const struct mqsync_entry *find_entry(const struct mqsync_store *s, const struct mqsync_collection *c,
                                             struct mqsync_slice id, uint64_t hash)
{
    const struct mqsync_entry *e = mqsync_table_find(s->active, c->cid, id, hash);
    if (!e && s->frozen)
        e = mqsync_table_find(s->frozen, c->cid, id, hash);
    if (!e && s->recent)
        e = mqsync_table_find(s->recent, c->cid, id, hash);
    return e;
}

/* Whether the id is a live record now: in the tables, else in LMDB. */
static int is_live(struct mqsync_store *s, const struct mqsync_collection *c, struct mqsync_slice id, uint64_t hash,
                   bool *ret)
{
    const struct mqsync_entry *e = find_entry(s, c, id, hash);
    if (e) {
        *ret = !e->deleted;
        return 0;
    }
    MDB_txn *txn;
    unsigned char buffer[MQSYNC_KEY_MAX];
    MDB_val key = mqsync_record_key(buffer, c->cid, id), value;
    struct mqsync_record_head head;
    int rc = mqsync_store_read_txn(s, &txn);
    if (rc == 0)
        rc = mdb_get(txn, s->dbis.records, &key, &value);
    *ret = rc == 0 && mqsync_record_decode_head(mqsync_val_slice(&value), &head) == MQSYNC_OK && !head.deleted;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Puts into the active table and counts. The lock is held (or nobody else is there yet). */
static bool take_in(struct mqsync_store *s, struct mqsync_collection *c, struct mqsync_slice id, uint64_t hash,
                    struct mqsync_slice stored, uint64_t seq, bool deleted, bool was_live)
{
    if (s->active->n == 0)
        s->active_since_ms = mqsync_monotonic_ms();
    if (!mqsync_table_put(s->active, c->cid, id, hash, stored, seq, deleted))
        return false;
    if (seq > c->seq)
        c->seq = seq;
    if (was_live != !deleted) {
        c->records += deleted ? UINT64_MAX : 1;
        s->records += deleted ? UINT64_MAX : 1;
    }
    return true;
}

static enum mqsync_code read_state(struct mqsync_store *s, struct mqsync_state *ret, bool *ret_new,
                                   struct mqsync_error *ret_error)
{
    MDB_txn *txn;
    int rc = mqsync_lmdb_begin_read(s->env, &txn);
    if (rc)
        return mqsync_lmdb_fail(ret_error, rc, "cannot read", s->dir);
    rc = mqsync_state_get(txn, &s->dbis, ret);
    *ret_new = rc == MDB_NOTFOUND;
    if (rc == 0)
        rc = mqsync_collections_load(&s->collections, txn, &s->dbis, &s->records);
    mdb_txn_abort(txn);
    if (*ret_new) {
        *ret = (struct mqsync_state){.format = MQSYNC_STORE_FORMAT, .next_cid = 1};
        return mqsync_epoch_new(ret->epoch, ret_error);
    }
    return rc ? mqsync_lmdb_fail(ret_error, rc, "cannot read", s->dir) : MQSYNC_OK;
}

static enum mqsync_code read_log(struct mqsync_store *s, const struct mqsync_state *state,
                                 struct mqsync_error *ret_error)
{
    struct mqsync_replay r = {&s->collections, s->active, NULL, &s->dbis, s->records, state->next_cid};
    uint64_t last;
    int rc = mqsync_lmdb_begin_read(s->env, &r.txn);
    if (rc)
        return mqsync_lmdb_fail(ret_error, rc, "cannot read", s->dir);
    enum mqsync_code code =
        mqsync_log_read(s->dir, state->epoch, state->applied, mqsync_replay_entry, &r, &last, ret_error);
    mdb_txn_abort(r.txn);
    s->records = r.records;
    s->next_cid = r.next_cid;
    /* CONFLICT: nobody else writes here, so a segment is missing, and what follows it does not count */
    return code == MQSYNC_CONFLICT ? MQSYNC_OK : code;
}

/* Brings in what the log holds beyond LMDB, and decides whether history may have moved back. */
static enum mqsync_code recover(struct mqsync_store *s, struct mqsync_state *state, bool is_new,
                                struct mqsync_error *ret_error)
{
    s->next_cid = state->next_cid;
    if (state->clean || is_new)
        return MQSYNC_OK;
    enum mqsync_code code = read_log(s, state, ret_error);
    if (code)
        return code;
    bool same_boot = s->boot_id[0] && strcmp(state->boot_id, s->boot_id) == 0;
    mqsync_store_log(s, MQSYNC_LOG_INFO, "MQS2002", "%s was not closed: %zu records brought in from the log", s->dir,
                     s->active->n);
    if (same_boot || state->power)
        return MQSYNC_OK;
    mqsync_store_log(s, MQSYNC_LOG_WARNING, "MQS2003",
                     "%s was last open before the machine restarted: up to the last sync interval of writes may be "
                     "lost, so clients will fetch full snapshots (new epoch); \"durability\": \"power\" avoids this",
                     s->dir);
    return mqsync_epoch_new(state->epoch, ret_error);
}

static int write_state(struct mqsync_store *s, const struct mqsync_state *state)
{
    MDB_txn *txn;
    int rc = s->env ? mdb_txn_begin(s->env, NULL, 0, &txn) : MDB_PANIC;
    if (rc)
        return rc;
    rc = mqsync_state_put(txn, &s->dbis, state);
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

/* On a full disk what the log held becomes the frozen table, which the mover tries to move like any other: a broker
 * must come up to serve its other topics. */
static int freeze_recovered(struct mqsync_store *s)
{
    s->frozen = s->active;
    s->failing = true;
    mqsync_store_log(s, MQSYNC_LOG_ERROR, "MQS2008",
                     "the disk under %s is full or failing: reading works, changes are refused until it takes them",
                     s->dir);
    return (s->active = mqsync_table_alloc()) ? 0 : ENOMEM;
}

/* Whether the log made a collection that LMDB does not know yet, be it without records: this run's log will not tell of
 * it. */
static bool has_unapplied(const struct mqsync_store *s)
{
    for (size_t i = 0; i < s->collections.by_cid_n; i++) {
        if (s->collections.by_cid[i] && s->collections.by_cid[i]->unapplied)
            return true;
    }
    return false;
}

/* Everything from the old log into LMDB, the new state on the disk, and the first segment of this run. may_wait: LMDB
 * knows the epoch, so the log can bear it and wait for room. */
static enum mqsync_code settle_recovery(struct mqsync_store *s, bool may_wait, struct mqsync_error *ret_error)
{
    int rc = 0;
    uint64_t last = mqsync_log_highest(&s->log);
    if (last < s->state.applied)
        last = s->state.applied;
    s->applied = s->state.applied;
    if (s->active->n > 0 || has_unapplied(s)) {
        rc = mqsync_store_move(s, s->active, last, NULL);
        if (rc == 0)
            mqsync_table_reset(s->active);
    }
    if (rc == 0) {
        struct mqsync_state state = s->state;
        state.applied = last;
        state.next_cid = s->next_cid;
        state.clean = 0;
        state.power = s->o.durability == MQSYNC_DURABILITY_POWER;
        memcpy(state.boot_id, s->boot_id, sizeof state.boot_id);
        rc = write_state(s, &state);
        if (rc == 0) {
            s->state = state;
            s->applied = last;
        }
    }
    /* EIO is what LMDB makes of a write that found room for a part only. While LMDB says "closed properly" the next
     * start would not read the log, and the new segment needs a file that holds none of those which still count. */
    may_wait = may_wait && !s->state.clean && last + 1 - s->applied <= MQSYNC_LOG_FILES;
    may_wait = may_wait && (rc == ENOSPC || rc == EIO || rc == MDB_MAP_FULL);
    if (rc && may_wait)
        rc = freeze_recovered(s);
    if (rc)
        return mqsync_lmdb_fail(ret_error, rc, "cannot bring the log into", s->dir);
    s->promises_power = s->state.power;
    memcpy(s->epoch_bytes, s->state.epoch, 16);
    mqsync_epoch_text(s->state.epoch, s->epoch);
    s->moves++;
    s->synced_segment = last + 1;
    return mqsync_log_start(&s->log, s->state.epoch, last + 1, 0, ret_error);
}

static void init_locks(struct mqsync_store *s)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake_mover, &monotonic);
    pthread_cond_init(&s->wake_syncer, &monotonic);
    pthread_cond_init(&s->moved, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* The threads start with the first change: a second thread alone, idle as it may be, makes each system call and each
 * malloc of the broker's own a little dearer, which a broker that syncs nothing does not have to pay. Every signal is
 * blocked in them: they are for the broker's thread. */
static enum mqsync_code start_threads(struct mqsync_store *s, struct mqsync_error *ret_error)
{
    sigset_t all, before;
    int rc = 0;
    if (s->mover_runs && s->syncer_runs)
        return MQSYNC_OK;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!s->mover_runs)
        s->mover_runs = (rc = pthread_create(&s->mover, NULL, mqsync_store_mover, s)) == 0;
    if (rc == 0 && !s->syncer_runs)
        s->syncer_runs = (rc = pthread_create(&s->syncer, NULL, mqsync_store_syncer, s)) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc ? mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot start a thread: %s", strerror(rc)) : MQSYNC_OK;
}

static bool has_tombstones(const struct mqsync_store *s)
{
    for (size_t i = 0; i < s->collections.by_cid_n; i++) {
        if (s->collections.by_cid[i] && s->collections.by_cid[i]->tombstones)
            return true;
    }
    return false;
}

static enum mqsync_code open_all(struct mqsync_store *s, struct mqsync_error *ret_error)
{
    bool is_new = false;
    enum mqsync_code code = make_dir(s->dir, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_store_lock(s->dir, &s->lock_fd, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_lmdb_open(s->dir, true, s->o.map_bytes, &s->env, &s->dbis, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_log_open(&s->log, s->dir, ret_error);
    if (code == MQSYNC_OK)
        code = read_state(s, &s->state, &is_new, ret_error);
    if (code)
        return code;
    mqsync_store_measure(s);
    unsigned char epoch_before[16];
    memcpy(epoch_before, s->state.epoch, sizeof epoch_before);
    code = recover(s, &s->state, is_new, ret_error);
    if (code == MQSYNC_OK)
        code = settle_recovery(s, !is_new && memcmp(s->state.epoch, epoch_before, sizeof epoch_before) == 0, ret_error);
    if (code == MQSYNC_OK && (has_tombstones(s) || s->frozen))
        code = start_threads(s, ret_error); /* there may be something to forget, or to move */
    return code;
}

static void free_tables(struct mqsync_table *list)
{
    while (list) {
        struct mqsync_table *next = list->next;
        mqsync_table_free(list);
        list = next;
    }
}

static void free_all(struct mqsync_store *s)
{
    if (s->read_txn)
        mdb_txn_abort(s->read_txn);
    if (s->env)
        mdb_env_close(s->env);
    mqsync_log_close(&s->log);
    mqsync_table_free(s->active);
    mqsync_table_free(s->frozen);
    mqsync_table_free(s->recent);
    free_tables(s->retired);
    free_tables(s->garbage);
    mqsync_table_free(s->spare);
    mqsync_collections_free(&s->collections);
    mqsync_buf_free(&s->encoded);
    if (s->lock_fd >= 0) {
        /* a thread that has been joined may not quite have closed its own descriptors yet */
        flock(s->lock_fd, LOCK_UN);
        close(s->lock_fd);
    }
    pthread_cond_destroy(&s->wake_mover);
    pthread_cond_destroy(&s->wake_syncer);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}

enum mqsync_code mqsync_store_open(const struct mqsync_store_options *o, struct mqsync_store **ret,
                                   struct mqsync_error *ret_error)
{
    struct mqsync_store *s = calloc(1, sizeof *s);
    if (!s)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    s->o = *o;
    fill_defaults(&s->o);
    init_locks(s);
    s->lock_fd = -1;
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++)
        s->log.fd[i] = -1;
    s->dir = strdup(o->dir);
    s->active = mqsync_table_alloc();
    read_boot_id(o->boot_id, s->boot_id);
    enum mqsync_code code =
        s->dir && s->active ? open_all(s, ret_error) : mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    if (code) {
        free_all(s);
        return code == MQSYNC_CONFLICT ? MQSYNC_SERVER_ERROR : code;
    }
    mqsync_store_log(s, MQSYNC_LOG_INFO, "MQS2001", "%s open: %llu records in %zu collections, epoch %s", s->dir,
                     (unsigned long long)s->records, s->collections.n, s->epoch);
    *ret = s;
    return MQSYNC_OK;
}

/* The mover has ended: in its own table of descriptors the numbers of the new ones would be something else, or nothing.
 * The lock is held, or nobody else is there any more. */
static int reopen(struct mqsync_store *s)
{
    MDB_txn *txn;
    if (s->mover_runs)
        pthread_join(s->mover, NULL);
    s->mover_runs = false;
    if (s->read_txn)
        mdb_txn_abort(s->read_txn);
    s->read_txn = NULL;
    s->read_active = false;
    int rc = mqsync_lmdb_reopen(s->env, s->dir, &s->env, &s->dbis);
    /* with the first transaction for reading LMDB locks a byte of its file, by a descriptor again */
    if (rc == 0 && (rc = mqsync_lmdb_begin_read(s->env, &txn)) == 0)
        mdb_txn_abort(txn);
    s->want_reopen = rc != 0;
    s->reopen_ms = mqsync_monotonic_ms() + REOPEN_AGAIN_MS;
    return rc;
}

/* --- closing ------------------------------------------------------------------------------------------------------ */

void mqsync_store_close(struct mqsync_store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake_mover);
    pthread_cond_signal(&s->wake_syncer);
    pthread_mutex_unlock(&s->lock);
    if (s->mover_runs)
        pthread_join(s->mover, NULL);
    s->mover_runs = false;
    if (s->syncer_runs)
        pthread_join(s->syncer, NULL);
    if (s->read_txn)
        mdb_txn_abort(s->read_txn);
    s->read_txn = NULL;
    int rc = s->want_reopen ? reopen(s) : 0;
    if (rc == 0 && s->frozen)
        rc = mqsync_store_move(s, s->frozen, s->log.segment - 1, NULL);
    if (rc == 0 && s->active->n > 0)
        rc = mqsync_store_move(s, s->active, s->log.segment, NULL);
    if (rc == 0) {
        s->state.clean = 1;
        rc = write_state(s, &s->state);
    }
    if (rc)
        mqsync_store_log(
            s, MQSYNC_LOG_ERROR, "MQS2004",
            "%s could not be closed properly (%s): the log keeps what is missing; the next start brings it in", s->dir,
            mdb_strerror(rc));
    free_all(s);
}

void mqsync_store_configure(struct mqsync_store *s, const struct mqsync_store_options *o)
{
    pthread_mutex_lock(&s->lock);
    s->o.durability = o->durability;
    s->o.sync_interval_ms = o->sync_interval_ms;
    s->o.tombstone_days = o->tombstone_days;
    fill_defaults(&s->o);
    pthread_cond_signal(&s->wake_syncer);
    pthread_mutex_unlock(&s->lock);
}

const char *mqsync_store_epoch(const struct mqsync_store *s)
{
    return s->epoch;
}

/* --- the writer's thread ------------------------------------------------------------------------------------------ */

int mqsync_store_read_txn(struct mqsync_store *s, MDB_txn **ret)
{
    int rc = 0;
    if (!s->read_txn)
        rc = mqsync_lmdb_begin_read(s->env, &s->read_txn);
    else if (!s->read_active)
        rc = mdb_txn_renew(s->read_txn);
    s->read_active = rc == 0;
    *ret = s->read_txn;
    return rc;
}

void mqsync_store_rest(struct mqsync_store *s)
{
    if (s->read_active)
        mdb_txn_reset(s->read_txn);
    s->read_active = false;
}

static void renew_env(struct mqsync_store *s)
{
    int rc = 0;
    if (s->want_map_bytes) /* that it did not fit shows at the next attempt to move, which asks for it again */
        rc = mqsync_lmdb_grow(s->env, s->want_map_bytes);
    else if (mqsync_monotonic_ms() < s->reopen_ms || reopen(s) != 0 || start_threads(s, NULL) != MQSYNC_OK)
        return;
    s->want_map_bytes = 0;
    s->retry_now = rc == 0;
    pthread_cond_signal(&s->wake_mover);
}

void mqsync_store_let_go(struct mqsync_store *s)
{
    bool renew = s->want_map_bytes || s->want_reopen;
    if (s->retired && !s->garbage) {
        s->garbage = s->retired;
        s->retired = NULL;
    }
    if (s->read_moves != s->moves || renew)
        mqsync_store_rest(s);
    s->read_moves = s->moves;
    if (renew && s->views == 0 && !s->moving)
        renew_env(s);
}

struct mqsync_collection *mqsync_store_find(struct mqsync_store *s, struct mqsync_slice name)
{
    return mqsync_collections_find(&s->collections, name); /* only the writer's thread adds to it */
}

/* The log up to its end, with the segments before (they may come from a time before "power" was asked for: without them
 * this one would not count after a power cut). The lock is held. */
static bool sync_all(struct mqsync_store *s)
{
    uint64_t from = s->synced_segment > s->applied ? s->synced_segment : s->applied + 1;
    for (uint64_t segment = from < s->log.segment ? from : s->log.segment; segment <= s->log.segment; segment++) {
        if (fdatasync(mqsync_log_fd(&s->log, segment)) != 0)
            return false;
    }
    s->synced_segment = s->log.segment;
    return true;
}

/* The log, and the sync that "power" asks for. The lock is held. */
static enum mqsync_code append(struct mqsync_store *s, const struct mqsync_log_entry *entry,
                               struct mqsync_error *ret_error)
{
    if (s->log.end + s->frozen_end > s->o.log_limit)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the disk does not keep up or is full: %zu MiB wait for it",
                           s->o.log_limit >> 20);
    uint64_t before = s->log.end;
    enum mqsync_code code = start_threads(s, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_log_append(&s->log, entry, ret_error);
    if (code)
        return code;
    if (s->o.durability == MQSYNC_DURABILITY_POWER || s->promises_power) {
        if (sync_all(s))
            return MQSYNC_OK;
        mqsync_log_undo(&s->log, before);
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the disk did not take the change: %s", strerror(errno));
    }
    if (s->dirty_since_ms == 0) {
        s->dirty_since_ms = mqsync_monotonic_ms();
        pthread_cond_signal(&s->wake_syncer);
    }
    return MQSYNC_OK;
}

enum mqsync_code mqsync_store_ensure(struct mqsync_store *s, struct mqsync_slice name, size_t max,
                                     struct mqsync_collection **ret, struct mqsync_error *ret_error)
{
    struct mqsync_collection *c = mqsync_store_find(s, name);
    if (c) {
        *ret = c;
        return MQSYNC_OK;
    }
    if (s->collections.n >= max)
        return mqsync_fail(ret_error, MQSYNC_COLLECTION_NOT_FOUND,
                           "collection \"%.*s\": there are %zu collections already (limits.maxCollections)",
                           (int)name.n, name.p, s->collections.n);
    pthread_mutex_lock(&s->lock);
    uint64_t before = s->log.end;
    enum mqsync_code code =
        append(s, &(struct mqsync_log_entry){.kind = MQSYNC_LOG_COLLECTION, .cid = s->next_cid, .id = name}, ret_error);
    if (code == MQSYNC_OK && !(c = mqsync_collections_add(&s->collections, name, s->next_cid))) {
        mqsync_log_undo(&s->log, before);
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    }
    if (code == MQSYNC_OK && c) {
        c->unapplied = true;
        s->next_cid++;
        *ret = c;
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

void mqsync_collection_stat(const struct mqsync_collection *c, struct mqsync_collection_stat *ret)
{
    *ret = (struct mqsync_collection_stat){
        .name = {c->name, c->name_n},
        .seq = c->seq,
        .records = c->records,
        .tombstones = __atomic_load_n(&c->tombstones, __ATOMIC_RELAXED), /* the mover's */
        .oldest_seq = __atomic_load_n(&c->oldest_seq, __ATOMIC_ACQUIRE),
    };
}

static uint64_t read_floor(struct mqsync_store *s, MDB_txn *txn, uint32_t cid, struct mqsync_slice id)
{
    uint32_t bucket = htobe32(mqsync_floor_bucket(cid, id));
    MDB_val key = {4, &bucket}, value;
    uint64_t floor = 0;
    if (mdb_get(txn, s->dbis.floors, &key, &value) == 0 && value.mv_size == 8)
        memcpy(&floor, value.mv_data, 8);
    return floor;
}

static enum mqsync_code get_from_lmdb(struct mqsync_store *s, const struct mqsync_collection *c, struct mqsync_slice id,
                                      struct mqsync_record *ret, uint64_t *ret_floor, struct mqsync_error *ret_error)
{
    MDB_txn *txn;
    unsigned char buffer[MQSYNC_KEY_MAX];
    MDB_val key = mqsync_record_key(buffer, c->cid, id), value;
    int rc = mqsync_store_read_txn(s, &txn);
    if (rc == 0)
        rc = mdb_get(txn, s->dbis.records, &key, &value);
    if (rc == 0)
        return mqsync_record_decode(mqsync_val_slice(&value), ret, ret_error);
    if (rc != MDB_NOTFOUND)
        return mqsync_lmdb_fail(ret_error, rc, "cannot read", s->dir);
    *ret_floor = read_floor(s, txn, c->cid, id);
    return MQSYNC_RECORD_NOT_FOUND;
}

void mqsync_store_expect(struct mqsync_store *s, const struct mqsync_collection *c, struct mqsync_slice id)
{
    uint64_t hash = mqsync_table_hash(c->cid, id);
    pthread_mutex_lock(&s->lock);
    mqsync_table_expect(s->active, hash);
    if (s->recent)
        mqsync_table_expect(s->recent, hash);
    pthread_mutex_unlock(&s->lock);
}

enum mqsync_code mqsync_store_get(struct mqsync_store *s, struct mqsync_collection *c, struct mqsync_slice id,
                                  struct mqsync_record *ret, uint64_t *ret_floor, struct mqsync_error *ret_error)
{
    uint64_t hash = mqsync_table_hash(c->cid, id);
    pthread_mutex_lock(&s->lock);
    mqsync_store_let_go(s);
    const struct mqsync_entry *e = find_entry(s, c, id, hash);
    pthread_mutex_unlock(&s->lock);
    /* e stays: a table is freed only after the writer's next call has let go of it */
    enum mqsync_code code = e ? mqsync_record_decode(mqsync_entry_value(e), ret, ret_error)
                              : get_from_lmdb(s, c, id, ret, ret_floor, ret_error);
    s->last_get.collection = c;
    s->last_get.hash = hash;
    s->last_get.live = code == MQSYNC_OK && !ret->deleted;
    s->last_get.id_n = (uint8_t)id.n;
    memcpy(s->last_get.id, id.p, id.n);
    if (code != MQSYNC_OK && code != MQSYNC_RECORD_NOT_FOUND)
        s->last_get.collection = NULL;
    return code;
}

static enum mqsync_code was_live(struct mqsync_store *s, const struct mqsync_collection *c, struct mqsync_slice id,
                                 uint64_t hash, bool *ret, struct mqsync_error *ret_error)
{
    if (s->last_get.collection == c && s->last_get.hash == hash && s->last_get.id_n == id.n &&
        memcmp(s->last_get.id, id.p, id.n) == 0) {
        *ret = s->last_get.live;
        return MQSYNC_OK;
    }
    int rc = is_live(s, c, id, hash, ret);
    return rc ? mqsync_lmdb_fail(ret_error, rc, "cannot read", s->dir) : MQSYNC_OK;
}

static bool passes(uint64_t before, uint64_t now, uint64_t mark)
{
    return before < mark && now >= mark;
}

enum mqsync_code mqsync_store_put(struct mqsync_store *s, struct mqsync_collection *c, struct mqsync_slice id,
                                  const struct mqsync_record *r, struct mqsync_error *ret_error)
{
    uint64_t hash = mqsync_table_hash(c->cid, id);
    bool live;
    mqsync_buf_clear(&s->encoded);
    mqsync_record_encode(&s->encoded, r);
    if (s->encoded.failed)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    struct mqsync_slice stored = mqsync_buf_slice(&s->encoded);
    pthread_mutex_lock(&s->lock);
    mqsync_store_let_go(s);
    uint64_t before = s->log.end;
    enum mqsync_code code = was_live(s, c, id, hash, &live, ret_error);
    if (code == MQSYNC_OK)
        code = append(s, &(struct mqsync_log_entry){MQSYNC_LOG_RECORD, c->cid, id, stored}, ret_error);
    if (code == MQSYNC_OK && !take_in(s, c, id, hash, stored, r->seq, r->deleted, live)) {
        mqsync_log_undo(&s->log, before);
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    }
    /* the first entry of a table starts the mover's clock; when they are no longer few it goes faster, and a full batch
     * stops it; at other times the mover sleeps on */
    if (code == MQSYNC_OK && (s->active->n == 1 || passes(before, s->log.end, MQSYNC_FEW_BYTES) ||
                              passes(before, s->log.end, mqsync_store_batch(s))))
        pthread_cond_signal(&s->wake_mover);
    pthread_mutex_unlock(&s->lock);
    s->last_get.collection = NULL;
    return code;
}

void mqsync_store_stat(struct mqsync_store *s, struct mqsync_store_stat *ret)
{
    char name[4096];
    struct stat st;
    pthread_mutex_lock(&s->lock);
    *ret = (struct mqsync_store_stat){
        .records = s->records,
        .collections = s->collections.n,
        .log_bytes = (s->active->n ? s->log.end : 0) + s->frozen_end,
        .sync_age_ms = s->dirty_since_ms ? mqsync_monotonic_ms() - s->dirty_since_ms : 0,
        .failing = s->failing,
    };
    for (size_t i = 0; i < s->collections.by_cid_n; i++) {
        if (s->collections.by_cid[i])
            ret->tombstones += s->collections.by_cid[i]->tombstones;
    }
    pthread_mutex_unlock(&s->lock);
    snprintf(name, sizeof name, "%s/data.mdb", s->dir);
    if (stat(name, &st) == 0)
        ret->database_bytes = (uint64_t)st.st_size;
}
