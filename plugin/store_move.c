/* SPDX-License-Identifier: BSD-3-Clause */
/* The store's two threads: the mover, which brings what the tables hold into LMDB, and the syncer, which has the log
 * written to the disk. Neither holds the lock while it waits for the disk. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "store_internal.h"

#define MOVE_AFTER_MS 1000       /* the oldest entry of a table waits this long at most, */
#define MOVE_LARGE_AFTER_MS 5000 /* in a large database this long, */
#define MOVE_FEW_AFTER_MS 10000  /* with a log as short as MQSYNC_FEW_BYTES this long */
#define BATCH_SMALL ((size_t)16 * 1024 * 1024)
#define BATCH_LARGE ((size_t)32 * 1024 * 1024)
#define LARGE_PAGES (64u * 1024 * 1024 / 4096)
#define TXN_ENTRIES 4096 /* of a large database */
#define TXN_UNLIMITED (SIZE_MAX / SWEPT_SHARE)
#define SWEPT_SHARE 8         /* rows of `changes` that a sweep removes in the place of one entry: many share a page */
#define STALE_SHARE 8         /* a sweep begins when there are more stale rows than this share of the others */
#define RETRY_MS 1000         /* after a failure */
#define FORGET_EVERY_MS 60000 /* looks for old tombstones */
#define FORGET_AGAIN_MS 100   /* when there were more than a slice */
#define FORGET_SLICE 256
#define DAY_MS ((int64_t)24 * 60 * 60 * 1000)

/* --- one move ----------------------------------------------------------------------------------------------------- */

void mqsync_store_measure(struct mqsync_store *s)
{
    MDB_envinfo info;
    mdb_env_info(s->env, &info);
    s->large = s->o.txn_entries || info.me_last_pgno >= LARGE_PAGES;
}

/* In a large database the changes of a longer time meet on more pages. */
size_t mqsync_store_batch(const struct mqsync_store *s)
{
    if (s->o.batch_bytes)
        return s->o.batch_bytes;
    return s->large ? BATCH_LARGE : BATCH_SMALL;
}

/* How many entries go into one transaction. LMDB keeps a transaction's pages in memory, and their numbers in an array
 * that it sorts by insertion: with a page or two for each entry, which is what a large database takes, the time for
 * that grows with the square. In a small one many entries meet on few pages. */
static size_t suitable_txn(const struct mqsync_store *s)
{
    if (s->o.txn_entries)
        return s->o.txn_entries;
    return s->large ? TXN_ENTRIES : TXN_UNLIMITED;
}

/* On the disk first: what a power cut takes from the log must not be older than what a part of a batch has brought into
 * LMDB. */
static int sync_log_files(const struct mqsync_log *log)
{
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++) {
        if (fdatasync(log->fd[i]) != 0)
            return errno;
    }
    return 0;
}

/* A collection that this move touches; what the writer's copy is to know afterwards. */
struct touched {
    struct mqsync_collection *collection;
    uint64_t tombstones;
};

struct move {
    struct mqsync_store *s;
    MDB_txn *txn;
    size_t txn_n;   /* entries in it */
    size_t txn_max; /* at most */
    struct mqsync_entry **entries;
    size_t entries_n;
    struct mqsync_collection **collections; /* all there are now, by cid; some NULL */
    size_t collections_n;                   /* the next cid */
    struct touched *touched;
    size_t touched_n;
    unsigned created, forgotten;
    bool log_synced;
    bool power;        /* the durability that is asked for */
    int64_t forget_ms; /* tombstones that arrived before this are forgotten */
    int rc;            /* sticky */
};

static void collect(struct move *m, const struct mqsync_table *table)
{
    struct mqsync_store *s = m->s;
    m->txn_max = suitable_txn(s);
    if (table && table->n > 0) {
        m->entries = malloc(table->n * sizeof(struct mqsync_entry *));
        if (!m->entries) {
            m->rc = ENOMEM;
            return;
        }
        for (size_t i = 0; i < table->slots_n; i++) {
            if (table->slots[i].entry)
                m->entries[m->entries_n++] = table->slots[i].entry;
        }
        qsort(m->entries, m->entries_n, sizeof(struct mqsync_entry *), mqsync_entry_by_id);
    }
    pthread_mutex_lock(&s->lock);
    m->power = s->o.durability == MQSYNC_DURABILITY_POWER;
    m->forget_ms = mqsync_time_now() - (int64_t)s->o.tombstone_days * DAY_MS;
    m->collections_n = s->next_cid < s->collections.by_cid_n ? s->next_cid : s->collections.by_cid_n;
    m->collections = malloc((m->collections_n + 1) * sizeof(struct mqsync_collection *));
    m->touched = malloc((m->collections_n + 1) * sizeof(struct touched));
    if (m->collections && m->touched && m->collections_n)
        memcpy(m->collections, s->collections.by_cid, m->collections_n * sizeof(struct mqsync_collection *));
    else if (!m->collections || !m->touched)
        m->rc = ENOMEM;
    pthread_mutex_unlock(&s->lock);
}

static void begin(struct move *m)
{
    if (m->rc == 0)
        m->rc = m->s->env ? mdb_txn_begin(m->s->env, NULL, 0, &m->txn) : MDB_PANIC;
    m->txn_n = 0;
}

static void commit(struct move *m, struct mqsync_state *state)
{
    if (m->collections_n > state->next_cid)
        state->next_cid = (uint32_t)m->collections_n;
    if (m->rc == 0)
        m->rc = mqsync_state_put(m->txn, &m->s->dbis, state);
    if (m->rc == 0) {
        m->rc = mdb_txn_commit(m->txn);
        m->txn = NULL;
    }
}

/* What LMDB has said of the database still holds, a new epoch least of all: the log is read by it should the process be
 * killed now. But the numbers of collections that have come in are taken. */
static void commit_part(struct move *m)
{
    struct mqsync_state state;
    if (m->rc == 0 && !m->log_synced)
        m->rc = sync_log_files(&m->s->log);
    m->log_synced = true;
    if (m->rc == 0)
        m->rc = mqsync_state_get(m->txn, &m->s->dbis, &state);
    if (m->rc == 0)
        commit(m, &state);
    /* the pages that each part gives back are for the next ones: the writer's snapshot must not keep them */
    pthread_mutex_lock(&m->s->lock);
    m->s->moves++;
    pthread_mutex_unlock(&m->s->lock);
}

static void commit_last(struct move *m, uint64_t segment)
{
    struct mqsync_state state = m->s->state;
    state.applied = segment;
    state.power = state.power && m->power;
    commit(m, &state);
    if (m->rc == 0)
        m->s->state = state;
}

static void get_row(struct move *m, const struct mqsync_collection *c, struct mqsync_collection_row *row)
{
    *row = (struct mqsync_collection_row){.cid = c->cid};
    MDB_val key = {c->name_n, (void *)(uintptr_t)c->name}, value;
    int rc = m->rc ? m->rc : mdb_get(m->txn, m->s->dbis.collections, &key, &value);
    if (rc == 0 && value.mv_size == sizeof *row)
        memcpy(row, value.mv_data, sizeof *row);
    else if (rc != MDB_NOTFOUND)
        m->rc = rc ? rc : MDB_CORRUPTED;
}

static void put_row(struct move *m, struct mqsync_collection *c, const struct mqsync_collection_row *row)
{
    struct mqsync_collection_row copy = *row;
    MDB_val key = {c->name_n, (void *)(uintptr_t)c->name}, value = {sizeof copy, &copy};
    if (m->rc == 0)
        m->rc = mdb_put(m->txn, m->s->dbis.collections, &key, &value, 0);
    /* before the commit: a snapshot without the tombstones must not go with a number that promises them */
    if (m->rc == 0)
        __atomic_store_n(&c->oldest_seq, row->oldest_seq, __ATOMIC_RELEASE);
}

/* How many of n things of a collection go into this transaction, or into the next one when this is full; `share` of
 * them count as one entry. Each transaction that has some has the collection's row as well. */
static size_t room_for(struct move *m, struct mqsync_collection *c, const struct mqsync_collection_row *row, size_t n,
                       size_t share)
{
    if (m->txn_n == m->txn_max) {
        put_row(m, c, row);
        commit_part(m);
        begin(m);
    }
    size_t room = (m->txn_max - m->txn_n) * share;
    n = n < room ? n : room;
    m->txn_n += (n + share - 1) / share;
    return n;
}

static void move_entries(struct move *m, struct mqsync_collection *c, struct mqsync_collection_row *row,
                         struct mqsync_entry *const *entries, size_t n)
{
    while (n > 0 && m->rc == 0) {
        size_t now = room_for(m, c, row, n, 1);
        if (m->rc == 0)
            m->rc = mqsync_lmdb_put_run(m->txn, &m->s->dbis, row, entries, now, m->s->large);
        entries += now;
        n -= now;
    }
}

/* Removes the stale rows of `changes`, in their order. Whoever is killed meanwhile leaves the list as it was. */
static void sweep(struct move *m, struct mqsync_collection *c, struct mqsync_collection_row *row)
{
    uint64_t *seqs = NULL;
    size_t n = 0;
    if (m->rc == 0)
        m->rc = mqsync_lmdb_stale(m->txn, &m->s->dbis, row->cid, 0, &seqs, &n);
    for (size_t at = 0, now; at < n && m->rc == 0; at += now) {
        now = room_for(m, c, row, n - at, SWEPT_SHARE);
        if (m->rc == 0)
            m->rc = mqsync_lmdb_sweep(m->txn, &m->s->dbis, row->cid, seqs + at, now);
    }
    if (m->rc == 0)
        m->rc = mqsync_lmdb_swept(m->txn, &m->s->dbis, row);
    free(seqs);
}

/* The entries of one collection, from *at on; then its tombstones that are old enough. */
static void move_collection(struct move *m, struct mqsync_collection *c, size_t *at)
{
    struct mqsync_collection_row row;
    bool due = m->forgotten < FORGET_SLICE && c->tombstones > 0;
    if (!(*at < m->entries_n && m->entries[*at]->cid == c->cid) && !c->unapplied && !due)
        return;
    get_row(m, c, &row);
    m->created += c->unapplied;
    size_t first = *at;
    while (*at < m->entries_n && m->entries[*at]->cid == c->cid)
        ++*at;
    move_entries(m, c, &row, m->entries + first, *at - first);
    /* one by one each would cost a page of a large index; together they share most of them. In a small one the notes
     * would be what costs a page */
    if (row.stale > (row.records + row.tombstones) / STALE_SHARE)
        sweep(m, c, &row);
    m->forgotten += mqsync_lmdb_forget(m->txn, &m->s->dbis, &row, m->forget_ms, FORGET_SLICE - m->forgotten, &m->rc);
    put_row(m, c, &row);
    m->touched[m->touched_n++] = (struct touched){c, row.tombstones};
}

/* Between its transactions LMDB has some of the batch, and each index agrees with the records that are there. Readers
 * lay the table over all of it, or the log; a settled view waits for the last one. What is killed in between begins
 * again. */
static void move_all(struct move *m, uint64_t segment)
{
    struct mqsync_store *s = m->s;
    size_t at = 0;
    begin(m);
    for (size_t cid = 0; cid < m->collections_n && m->rc == 0; cid++) {
        if (m->collections[cid])
            move_collection(m, m->collections[cid], &at);
    }
    /* nothing to write: an idle broker does not wake its disk. But a segment without entries counts, since the third
     * after it takes its file */
    if (m->rc == 0 && m->entries_n == 0 && m->created == 0 && m->forgotten == 0 && segment == s->state.applied)
        return;
    commit_last(m, segment);
}

int mqsync_store_move(struct mqsync_store *s, const struct mqsync_table *table, uint64_t segment,
                      unsigned *ret_forgotten)
{
    struct move m = {.s = s};
    collect(&m, table);
    if (m.rc == 0)
        move_all(&m, segment);
    if (m.txn)
        mdb_txn_abort(m.txn);
    pthread_mutex_lock(&s->lock);
    if (m.rc == 0)
        s->promises_power = s->state.power;
    for (size_t i = 0; i < m.touched_n && m.rc == 0; i++) {
        struct mqsync_collection *c = m.touched[i].collection;
        c->unapplied = false;
        __atomic_store_n(&c->tombstones, m.touched[i].tombstones, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&s->lock);
    free(m.entries);
    free(m.collections);
    free(m.touched);
    if (ret_forgotten)
        *ret_forgotten = m.forgotten;
    return m.rc;
}

/* --- a thread's own files ----------------------------------------------------------------------------------------- */

static bool is_below(int fds, const char *name, const char *dir)
{
    char path[4096];
    size_t prefix = strlen(dir);
    ssize_t n = readlinkat(fds, name, path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    return strncmp(path, dir, prefix) == 0 && path[prefix] == '/';
}

/* Of the calling thread's own table. With no descriptor free the highest ones, which are clients', make room. */
static DIR *open_own_files(void)
{
    static const char name[] = "/proc/thread-self/fd";
    struct rlimit limit;
    DIR *all = opendir(name);
    int top = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur - 1 : 0;
    for (int fd = top; !all && errno == EMFILE && fd > 64 && fd > top - 16; fd--) {
        close(fd);
        all = opendir(name);
    }
    return all;
}

void mqsync_thread_own_files(const char *dir)
{
    char real[PATH_MAX];
    /* some sandboxes do not allow it: then the table stays shared, which is a matter of speed only */
    if (access("/proc/thread-self/fd", R_OK) != 0 || !realpath(dir, real) || unshare(CLONE_FILES) != 0)
        return;
    DIR *all = open_own_files();
    /* a copy that stayed open would keep a client's connection from ending when the broker closes it */
    for (struct dirent *e = all ? readdir(all) : NULL; e; e = readdir(all)) {
        int fd = atoi(e->d_name);
        if (fd > 2 && fd != dirfd(all) && !is_below(dirfd(all), e->d_name, real))
            close(fd);
    }
    if (all)
        closedir(all);
}

/* --- the mover ---------------------------------------------------------------------------------------------------- */

static void wait_ms(struct mqsync_store *s, pthread_cond_t *cond, int64_t ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(cond, &s->lock, &t);
}

/* The active table becomes the frozen one, its log segment ends. The lock is held. */
static enum mqsync_code freeze(struct mqsync_store *s, struct mqsync_error *ret_error)
{
    struct mqsync_table *fresh = s->spare ? s->spare : mqsync_table_alloc();
    s->spare = NULL;
    if (!fresh)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    uint64_t end = s->log.end;
    enum mqsync_code code = mqsync_log_start(&s->log, s->epoch_bytes, s->log.segment + 1, end, ret_error);
    if (code) {
        s->spare = fresh;
        return code;
    }
    s->frozen = s->active;
    s->frozen_end = end;
    s->active = fresh;
    return MQSYNC_OK;
}

static void failed(struct mqsync_store *s, const char *text, int64_t *logged_ms)
{
    int64_t now = mqsync_monotonic_ms();
    s->failing = true;
    pthread_cond_broadcast(&s->moved); /* whoever waits for this move need not wait any longer */
    if (*logged_ms && now - *logged_ms < 10000)
        return;
    *logged_ms = now;
    mqsync_store_log(s, MQSYNC_LOG_ERROR, "MQS2005",
                     "cannot move changes into %s/data.mdb: %s; they are safe in the log, but once %zu MiB wait there, "
                     "writes are refused",
                     s->dir, text, s->o.log_limit >> 20);
}

/* `table` (NULL: none) is in LMDB now. */
static void keep_recent(struct mqsync_store *s, struct mqsync_table *table)
{
    if (s->recent) {
        s->recent->next = s->retired;
        s->retired = s->recent;
    }
    s->recent = table;
}

/* What the writer has to do before the next attempt can succeed. The lock is held. */
static void ask_writer(struct mqsync_store *s, int rc)
{
    MDB_envinfo info;
    MDB_txn *txn;
    if (rc == MDB_MAP_FULL) {
        mdb_env_info(s->env, &info);
        s->want_map_bytes = info.me_mapsize * 2;
    } else if ((rc = mqsync_lmdb_begin_read(s->env, &txn)) == 0) {
        mdb_txn_abort(txn);
    }
    s->want_reopen = rc == MDB_PANIC;
}

/* Freezes what there is (unless an earlier attempt did) and moves it. The lock is held on entry and exit, not during
 * the move. Returns the number of tombstones forgotten. */
static unsigned move_now(struct mqsync_store *s, int64_t *logged_ms)
{
    struct mqsync_error error;
    unsigned forgotten = 0;
    s->retry_now = false;
    if (!s->frozen && s->active->n > 0 && freeze(s, &error) != MQSYNC_OK) {
        failed(s, error.text, logged_ms);
        return 0;
    }
    struct mqsync_table *table = s->frozen, *unused = NULL;
    uint64_t segment = table ? s->log.segment - 1 : s->state.applied;
    if (!table) { /* a quiet minute: what busier ones have needed is given back */
        unused = s->spare;
        s->spare = NULL;
    }
    s->moving = true;
    pthread_mutex_unlock(&s->lock);
    mqsync_table_free(unused);
    int rc = mqsync_store_move(s, table, segment, &forgotten);
    pthread_mutex_lock(&s->lock);
    s->moving = false;
    if (rc) {
        ask_writer(s, rc);
        failed(s, rc == EIO ? "the disk is full or failing" : mdb_strerror(rc), logged_ms);
        return 0;
    }
    if (s->failing)
        mqsync_store_log(s, MQSYNC_LOG_INFO, "MQS2006", "changes reach %s/data.mdb again", s->dir);
    s->failing = false;
    mqsync_store_measure(s);
    s->moves++;
    keep_recent(s, table);
    if (forgotten) /* there may be some in it */
        keep_recent(s, NULL);
    if (table) {
        s->applied = segment;
        s->frozen = NULL;
        s->frozen_end = 0;
    }
    s->flush = s->flush && s->active->n > 0;
    pthread_cond_broadcast(&s->moved);
    return forgotten;
}

/* Milliseconds until a move is due; 0: now. Each move writes a dozen pages besides what it moves: where few changes
 * come, which is where the disk is a memory card, they wait for each other. The lock is held. */
static int64_t move_due(const struct mqsync_store *s, int64_t retry_ms, int64_t forget_ms)
{
    int64_t now = mqsync_monotonic_ms();
    int64_t due = forget_ms;
    int64_t usual = s->large ? MOVE_LARGE_AFTER_MS : MOVE_AFTER_MS;
    int64_t after = s->active_since_ms + (s->log.end < MQSYNC_FEW_BYTES ? MOVE_FEW_AFTER_MS : usual);
    if (s->failing && !s->retry_now)
        due = retry_ms;
    else if (s->frozen || (s->active->n > 0 && (s->flush || s->log.end >= mqsync_store_batch(s))))
        due = now;
    else if (s->active->n > 0 && after < due)
        due = after;
    return due > now ? due - now : 0;
}

/* LMDB has everything up to the end of segment `target`, and nothing of one that it has a part of. The lock is held. */
static bool is_settled(const struct mqsync_store *s, uint64_t target)
{
    return s->applied >= target && !s->frozen;
}

/* What nobody looks at any more: one table is kept for the next turn. */
static void let_garbage_go(struct mqsync_store *s)
{
    struct mqsync_table *t = s->garbage, *spare = NULL;
    bool keep = !s->spare;
    s->garbage = NULL;
    pthread_mutex_unlock(&s->lock);
    while (t) {
        struct mqsync_table *next = t->next;
        if (keep && !spare)
            mqsync_table_reset(spare = t);
        else
            mqsync_table_free(t);
        t = next;
    }
    pthread_mutex_lock(&s->lock);
    if (spare)
        s->spare = spare; /* only this thread sets it */
}

void *mqsync_store_mover(void *store)
{
    struct mqsync_store *s = store;
    int64_t logged_ms = 0, retry_ms = 0, forget_ms = mqsync_monotonic_ms();
    mqsync_thread_own_files(s->dir);
    pthread_mutex_lock(&s->lock);
    while (!s->stop && !s->want_reopen) {
        if (s->garbage)
            let_garbage_go(s);
        /* a view that waited for the last move is opened before the next one begins */
        int64_t wait = s->settling && is_settled(s, s->settle_target) ? 10 : move_due(s, retry_ms, forget_ms);
        if (wait > 0) {
            wait_ms(s, &s->wake_mover, wait);
            continue;
        }
        unsigned forgotten = move_now(s, &logged_ms);
        int64_t now = mqsync_monotonic_ms();
        retry_ms = now + RETRY_MS;
        if (forgotten == FORGET_SLICE)
            forget_ms = now + FORGET_AGAIN_MS;
        else if (forget_ms <= now)
            forget_ms = now + FORGET_EVERY_MS;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int mqsync_store_settle(struct mqsync_store *s, unsigned timeout_ms, MDB_txn **ret_txn)
{
    int rc = EAGAIN;
    pthread_mutex_lock(&s->lock);
    uint64_t target = s->active->n > 0 ? s->log.segment : s->frozen ? s->log.segment - 1 : s->applied;
    int64_t deadline = mqsync_monotonic_ms() + timeout_ms;
    s->settling++;
    if (target > s->settle_target)
        s->settle_target = target;
    for (;;) {
        int64_t left = deadline - mqsync_monotonic_ms();
        if (is_settled(s, target) || s->failing || s->stop || left <= 0)
            break;
        s->flush = true;
        pthread_cond_signal(&s->wake_mover);
        wait_ms(s, &s->moved, left);
    }
    s->views++; /* from here on the map does not move */
    if (is_settled(s, target))
        rc = mqsync_lmdb_begin_read(s->env, ret_txn);
    if (--s->settling == 0)
        pthread_cond_signal(&s->wake_mover);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* --- the syncer --------------------------------------------------------------------------------------------------- */

/* Has the log's open segments written to the disk. The lock is not held. */
static bool sync_log(struct mqsync_store *s, uint64_t from, uint64_t to)
{
    bool ok = true;
    for (uint64_t segment = from; segment <= to; segment++)
        ok = fdatasync(mqsync_log_fd(&s->log, segment)) == 0 && ok;
    return ok;
}

void *mqsync_store_syncer(void *store)
{
    struct mqsync_store *s = store;
    bool failed_before = false;
    mqsync_thread_own_files(s->dir);
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        int64_t due = s->dirty_since_ms ? s->dirty_since_ms + s->o.sync_interval_ms - mqsync_monotonic_ms() : 60000;
        if (due > 0) {
            wait_ms(s, &s->wake_syncer, due);
            continue;
        }
        int64_t dirty_since = s->dirty_since_ms;
        uint64_t to = s->log.segment;
        /* what LMDB has is on the disk already; at most two segments are not there yet */
        uint64_t from = s->synced_segment > s->applied ? s->synced_segment : s->applied + 1;
        s->dirty_since_ms = 0;
        pthread_mutex_unlock(&s->lock);
        bool ok = sync_log(s, from < to ? from : to, to);
        int why = errno;
        pthread_mutex_lock(&s->lock);
        if (ok) {
            s->synced_segment = to;
            failed_before = false;
            continue;
        }
        if (!failed_before)
            mqsync_store_log(
                s, MQSYNC_LOG_ERROR, "MQS2007",
                "the disk under %s does not take the log: %s; a power cut now loses more than the sync interval",
                s->dir, strerror(why));
        failed_before = true;
        s->dirty_since_ms = dirty_since;
        s->flush = true; /* LMDB writes the changes elsewhere: better odds than the pages the kernel has given up */
        pthread_cond_signal(&s->wake_mover);
        wait_ms(s, &s->wake_syncer, RETRY_MS);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
