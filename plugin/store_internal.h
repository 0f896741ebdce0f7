/* SPDX-License-Identifier: BSD-3-Clause */
/* What the store's own files share. Nobody else includes this. */
#ifndef MQSYNC_STORE_INTERNAL_H
#define MQSYNC_STORE_INTERNAL_H

#include <endian.h>
#include <lmdb.h>
#include <pthread.h>

#include "json.h"
#include "store.h"

/* --- keys and values in LMDB: integers big-endian, so that LMDB's own order is ours ------------------------------- */

#define MQSYNC_STORE_FORMAT 1
#define MQSYNC_KEY_MAX (4 + MQSYNC_MAX_RECORD_ID)
#define MQSYNC_FLOOR_BUCKETS (1u << 20)

struct mqsync_dbis {
    MDB_dbi meta;        /* "state" -> struct mqsync_state */
    MDB_dbi collections; /* name -> struct mqsync_collection_row */
    MDB_dbi records;     /* cid, id -> stored record, tombstones too */
    MDB_dbi changes;     /* cid, seq -> id: a row for each record's latest change, and those that `stale` names */
    MDB_dbi stale;       /* cid, n -> seqs of rows of `changes` that later changes of their records have left behind */
    MDB_dbi graves;      /* cid, seq -> arrival in ms, id: one row for each tombstone */
    MDB_dbi floors;      /* bucket -> highest version of the forgotten tombstones that hash there */
};

struct mqsync_state {
    uint32_t format;
    uint32_t next_cid;
    uint64_t applied; /* the last log segment whose entries are all in LMDB */
    unsigned char epoch[16];
    char boot_id[40]; /* of the boot in which it was last opened for writing */
    uint8_t clean;    /* closed properly since */
    uint8_t power;    /* all that was acknowledged since then was on the disk first */
    uint8_t spare[6];
};

struct mqsync_collection_row {
    uint32_t cid;
    uint32_t stale; /* seqs in `stale` */
    uint64_t seq, records, tombstones, oldest_seq;
};

/* key must have room for MQSYNC_KEY_MAX bytes. */
static inline MDB_val mqsync_record_key(unsigned char *key, uint32_t cid, struct mqsync_slice id)
{
    uint32_t be = htobe32(cid);
    memcpy(key, &be, 4);
    memcpy(key + 4, id.p, id.n);
    return (MDB_val){4 + id.n, key};
}

static inline MDB_val mqsync_seq_key(unsigned char key[12], uint32_t cid, uint64_t seq)
{
    uint32_t be = htobe32(cid);
    uint64_t be_seq = htobe64(seq);
    memcpy(key, &be, 4);
    memcpy(key + 4, &be_seq, 8);
    return (MDB_val){12, key};
}

static inline uint32_t mqsync_key_cid(const MDB_val *key)
{
    uint32_t be;
    memcpy(&be, key->mv_data, 4);
    return be32toh(be);
}

static inline uint64_t mqsync_key_seq(const MDB_val *key)
{
    uint64_t be;
    memcpy(&be, (const char *)key->mv_data + 4, 8);
    return be64toh(be);
}

static inline struct mqsync_slice mqsync_val_slice(const MDB_val *v)
{
    return (struct mqsync_slice){v->mv_data, v->mv_size};
}

/* Which row of `floors` an id belongs to. */
uint32_t mqsync_floor_bucket(uint32_t cid, struct mqsync_slice id);

/* --- LMDB (store_lmdb.c) ------------------------------------------------------------------------------------------ */

/* Maps an LMDB or errno code to text for an operator; the one place that knows both. */
enum mqsync_code mqsync_lmdb_fail(struct mqsync_error *e, int rc, const char *doing, const char *dir);

/* Opens dir's environment. write: creates what is missing. map_bytes 0: as large as the file needs, at least 1 GiB. */
enum mqsync_code mqsync_lmdb_open(const char *dir, bool write, size_t map_bytes, MDB_env **ret_env,
                                  struct mqsync_dbis *ret_dbis, struct mqsync_error *ret_error);
/* Opens again what the caller has open for writing, and has no transaction in: after MDB_PANIC, which is LMDB's word
 * for a write that failed where it does not know any more what the file says, nothing else helps. Closes env (NULL is
 * fine) in any case. LMDB's codes. */
int mqsync_lmdb_reopen(MDB_env *env, const char *dir, MDB_env **ret_env, struct mqsync_dbis *ret_dbis);
/* Makes the map up to `bytes` large, if there is room for more than it has: LMDB gives the old one up first, and is
 * left with pointers to nothing if it does not get a new one. There must be no transaction. */
int mqsync_lmdb_grow(MDB_env *env, size_t bytes);
/* A read transaction; takes a map that another process has grown in its stride. MDB_PANIC without an env. */
int mqsync_lmdb_begin_read(MDB_env *env, MDB_txn **ret);
/* MDB_NOTFOUND for a new database. Refuses a newer format with MDB_VERSION_MISMATCH. */
int mqsync_state_get(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_state *ret);
int mqsync_state_put(MDB_txn *txn, const struct mqsync_dbis *d, const struct mqsync_state *state);
void mqsync_epoch_text(const unsigned char epoch[16], char out[33]);
enum mqsync_code mqsync_epoch_new(unsigned char epoch[16], struct mqsync_error *ret_error);

struct mqsync_entry;

/* Writes records of one collection, sorted by id, with their index rows over whatever the ids had before; updates row's
 * counts and seq. Rows of `changes` that are out of date now are removed, or stay and are noted in `stale`. Each index
 * is changed in the order of its keys: at millions of records a page that is still at hand from the key before is what
 * makes the difference. */
int mqsync_lmdb_put_run(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_collection_row *row,
                        struct mqsync_entry *const *entries, size_t n, bool leave_stale);
/* What `stale` holds of a collection, from seq `from` on, sorted; the caller frees *ret. */
int mqsync_lmdb_stale(MDB_txn *txn, const struct mqsync_dbis *d, uint32_t cid, uint64_t from, uint64_t **ret,
                      size_t *ret_n);
/* Removes rows of `changes`, their seqs sorted. One that is not there was removed before, by a sweep that did not come
 * to its end. */
int mqsync_lmdb_sweep(MDB_txn *txn, const struct mqsync_dbis *d, uint32_t cid, const uint64_t *seqs, size_t n);
/* Empties `stale` for a collection. */
int mqsync_lmdb_swept(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_collection_row *row);
/* Forgets up to max tombstones of one collection that arrived before cutoff_ms; returns how many, rc in *rc. */
unsigned mqsync_lmdb_forget(MDB_txn *txn, const struct mqsync_dbis *d, struct mqsync_collection_row *row,
                            int64_t cutoff_ms, unsigned max, int *rc);

/* --- tables in memory (store_table.c) ----------------------------------------------------------------------------- */

/* The latest version of each record changed since some moment. One thread at a time. */
struct mqsync_entry {
    struct mqsync_entry *newer, *older; /* by seq, in the collection */
    uint64_t hash;
    uint64_t seq;
    char *value; /* the stored form */
    uint32_t value_n, value_cap;
    uint32_t cid;
    uint8_t id_n;
    bool deleted;
    char id[];
};

struct mqsync_slot {
    uint64_t hash; /* beside the pointer: most looks end without following it */
    struct mqsync_entry *entry;
};

/* Entries and values lie in chunks, one after the other: they are all let go at the same time, and by another thread
 * than the one that makes them, which is what malloc is worst at. */
struct mqsync_chunk;

struct mqsync_table {
    struct mqsync_slot *slots; /* open addressing */
    size_t slots_n;            /* a power of two */
    size_t slots_bytes;        /* of memory */
    size_t n;
    struct mqsync_entry **newest; /* of each collection, by cid; some NULL */
    size_t newest_n;
    struct mqsync_chunk *chunks, *current;
    struct mqsync_table *next; /* for lists of what is to be let go */
};

struct mqsync_table *mqsync_table_alloc(void);
void mqsync_table_free(struct mqsync_table *t); /* NULL is fine */
/* Empties it, keeping (some of) its memory for the next time. */
void mqsync_table_reset(struct mqsync_table *t);
uint64_t mqsync_table_hash(uint32_t cid, struct mqsync_slice id);
/* Fetches what a mqsync_table_find() that follows looks at first. */
void mqsync_table_expect(const struct mqsync_table *t, uint64_t hash);
struct mqsync_entry *mqsync_table_find(const struct mqsync_table *t, uint32_t cid, struct mqsync_slice id,
                                       uint64_t hash);
/* Puts a copy; seq is the collection's highest. NULL when out of memory (then nothing has changed). */
struct mqsync_entry *mqsync_table_put(struct mqsync_table *t, uint32_t cid, struct mqsync_slice id, uint64_t hash,
                                      struct mqsync_slice value, uint64_t seq, bool deleted);

/* A collection's latest change, or NULL; `older` leads to the others. */
static inline struct mqsync_entry *mqsync_table_newest(const struct mqsync_table *t, uint32_t cid)
{
    return cid < t->newest_n ? t->newest[cid] : NULL;
}
static inline struct mqsync_slice mqsync_entry_id(const struct mqsync_entry *e)
{
    return (struct mqsync_slice){e->id, e->id_n};
}
static inline struct mqsync_slice mqsync_entry_value(const struct mqsync_entry *e)
{
    return (struct mqsync_slice){e->value, e->value_n};
}
/* qsort orders: by cid and id, by cid and seq. */
int mqsync_entry_by_id(const void *a, const void *b);
int mqsync_entry_by_seq(const void *a, const void *b);

/* --- the write-ahead log (store_log.c) ---------------------------------------------------------------------------- */

/* Three files take turns: segment n is in file n % 3. At most two hold what LMDB does not have yet. */
#define MQSYNC_LOG_FILES 3

struct mqsync_log {
    int fd[MQSYNC_LOG_FILES];
    unsigned char epoch[16];
    uint64_t segment;   /* the one being written */
    uint64_t end;       /* where its next entry goes */
    uint64_t pages_end; /* the pages before this have been written in this turn */
    uint64_t seed;      /* of its checksums */
    struct mqsync_buf scratch;
};

enum mqsync_log_kind { MQSYNC_LOG_COLLECTION = 1, MQSYNC_LOG_RECORD = 2 };

/* One entry, as read back; slices point into the reader's buffer. */
struct mqsync_log_entry {
    enum mqsync_log_kind kind;
    uint32_t cid;
    struct mqsync_slice id;     /* the record's id, or the collection's name */
    struct mqsync_slice stored; /* of a record */
};

enum mqsync_code mqsync_log_open(struct mqsync_log *log, const char *dir, struct mqsync_error *ret_error);
void mqsync_log_close(struct mqsync_log *log);
/* Starts segment `segment` in its file. previous_end: where the one before it ended (0: there is none that counts). */
enum mqsync_code mqsync_log_start(struct mqsync_log *log, const unsigned char epoch[16], uint64_t segment,
                                  uint64_t previous_end, struct mqsync_error *ret_error);
/* Appends one entry. On failure nothing has been appended. */
enum mqsync_code mqsync_log_append(struct mqsync_log *log, const struct mqsync_log_entry *entry,
                                   struct mqsync_error *ret_error);
/* Takes the last append back: end is where it began. */
void mqsync_log_undo(struct mqsync_log *log, uint64_t end);
static inline int mqsync_log_fd(const struct mqsync_log *log, uint64_t segment)
{
    return log->fd[segment % MQSYNC_LOG_FILES];
}

/* Reads all entries after segment `applied`, in order, as far as they are whole. MQSYNC_CONFLICT: the log moved on
 * meanwhile (a running writer), begin again with a new read transaction. *ret_last: the last segment there is (applied
 * when none). Works on the directory, so that other processes can use it. each returns false to stop with
 * MQSYNC_SERVER_ERROR. */
enum mqsync_code mqsync_log_read(const char *dir, const unsigned char epoch[16], uint64_t applied,
                                 bool (*each)(void *context, const struct mqsync_log_entry *entry), void *context,
                                 uint64_t *ret_last, struct mqsync_error *ret_error);

/* The highest segment number in any file's header, whatever its epoch; 0: none. A new segment must be above it: an
 * entry of an earlier run must never be taken for one of this. */
uint64_t mqsync_log_highest(const struct mqsync_log *log);

/* --- the store itself (store.c) and views (store_view.c) ---------------------------------------------------------- */

struct mqsync_collection {
    char name[MQSYNC_MAX_COLLECTION + 1];
    uint8_t name_n;
    bool unapplied; /* LMDB does not know it yet */
    uint32_t cid;
    uint64_t seq, records, tombstones, oldest_seq;
    struct mqsync_collection *next_in_bucket;
};

struct mqsync_collections { /* by name and by cid */
    struct mqsync_collection **buckets;
    size_t buckets_n;
    struct mqsync_collection **by_cid; /* sparse array, cid is the index */
    size_t by_cid_n;
    size_t n;
};
struct mqsync_collection *mqsync_collections_find(const struct mqsync_collections *c, struct mqsync_slice name);
struct mqsync_collection *mqsync_collections_add(struct mqsync_collections *c, struct mqsync_slice name, uint32_t cid);
void mqsync_collections_free(struct mqsync_collections *c);
/* All rows of LMDB; adds their records to *records. */
int mqsync_collections_load(struct mqsync_collections *c, MDB_txn *txn, const struct mqsync_dbis *d, uint64_t *records);

/* What a log is read into: LMDB's collections and an empty table become the state at the log's end. */
struct mqsync_replay {
    struct mqsync_collections *collections;
    struct mqsync_table *table;
    MDB_txn *txn;
    const struct mqsync_dbis *dbis;
    uint64_t records;
    uint32_t next_cid;
};
bool mqsync_replay_entry(void *replay, const struct mqsync_log_entry *entry);

struct mqsync_store {
    char *dir;
    struct mqsync_store_options o; /* dir, boot_id: not used after open */
    int lock_fd;
    MDB_env *env; /* NULL: could not be opened again */
    struct mqsync_dbis dbis;
    char epoch[33];
    unsigned char epoch_bytes[16];
    char boot_id[40];
    uint32_t next_cid;
    struct mqsync_state state; /* as last written; the mover's, once it runs */

    pthread_mutex_t lock; /* guards what follows; held for microseconds */
    pthread_cond_t wake_mover, wake_syncer, moved;
    pthread_t mover, syncer;
    bool mover_runs, syncer_runs, stop, flush, retry_now;
    bool moving;                  /* the mover has, or is about to begin, a transaction: the map may not move */
    struct mqsync_table *active;  /* segment log.segment */
    struct mqsync_table *frozen;  /* segment log.segment - 1, being moved */
    struct mqsync_table *recent;  /* moved last: found here, a record need not be looked for in LMDB; or NULL */
    struct mqsync_table *retired; /* of no more use, but the writer may still be looking at them */
    struct mqsync_table *garbage; /* nobody looks at them: the mover empties or frees them */
    struct mqsync_table *spare;   /* empty, the next active one; or NULL */
    struct mqsync_log log;
    uint64_t frozen_end;     /* log bytes of the frozen segment */
    int64_t active_since_ms; /* monotonic; when its first entry came */
    uint64_t applied;        /* segment */
    uint64_t moves;          /* counts commits: readers renew when it changed */
    uint64_t synced_segment; /* earlier segments of the log are on the disk, or in LMDB */
    int64_t dirty_since_ms;  /* monotonic; 0: all is on the disk */
    unsigned views;          /* settled views open: the map may not move */
    unsigned settling;       /* threads that wait for their settled view */
    uint64_t settle_target;  /* the segment that the last of them waits for */
    size_t want_map_bytes;   /* not 0: the map is full; the writer, whose pointers lead into it, makes it this large */
    int64_t reopen_ms;       /* monotonic; not before */
    bool want_reopen;        /* LMDB has given up: the writer opens it again */
    bool large;              /* the database: a page holds a small part of it */
    bool promises_power;     /* LMDB says state.power, so a power cut now must lose nothing */
    bool failing;
    uint64_t records;
    struct mqsync_collections collections;

    /* the writer's thread only */
    MDB_txn *read_txn;
    bool read_active;
    uint64_t read_moves;
    struct {
        const struct mqsync_collection *collection;
        uint64_t hash;
        bool live;
        uint8_t id_n;
        char id[MQSYNC_MAX_RECORD_ID];
    } last_get;
    struct mqsync_buf encoded;
};

int64_t mqsync_monotonic_ms(void);
void mqsync_store_log(struct mqsync_store *s, enum mqsync_log_level level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* At the start of each call of the writer's thread: what the call before handed out is no longer looked at. The lock is
 * held. */
void mqsync_store_let_go(struct mqsync_store *s);
/* The writer's read transaction, at the newest commit. */
int mqsync_store_read_txn(struct mqsync_store *s, MDB_txn **ret);
/* Bytes of log after which they are moved at once. The lock is held. */
size_t mqsync_store_batch(const struct mqsync_store *s);
/* Takes note of the database's size. The lock is held, or nobody else is there yet. */
void mqsync_store_measure(struct mqsync_store *s);
/* A log shorter than this holds few changes, which are not moved as soon as others. */
#define MQSYNC_FEW_BYTES ((uint64_t)64 * 1024)

/* Moves `table` into LMDB, after which segment is applied; also creates collections and forgets some old tombstones.
 * *ret_forgotten: how many; may be NULL. When it fails, a part of the table may be in LMDB. */
int mqsync_store_move(struct mqsync_store *s, const struct mqsync_table *table, uint64_t segment,
                      unsigned *ret_forgotten);
void *mqsync_store_mover(void *store);  /* thread (store_move.c) */
void *mqsync_store_syncer(void *store); /* thread */
/* Asks for a move and waits until everything put by now is in LMDB; then begins a transaction for reading that has all
 * of that, and of what has been put since either all of a batch or nothing. EAGAIN on timeout, or at once when the disk
 * is failing; LMDB's codes. Counts in `views`, whatever it returns. Takes the lock itself. */
int mqsync_store_settle(struct mqsync_store *s, unsigned timeout_ms, MDB_txn **ret_txn);

/* What a reader's view lays over LMDB's snapshot; both live as long as the view. */
void mqsync_view_over(const struct mqsync_view *v, const struct mqsync_table **ret_table,
                      const struct mqsync_collections **ret_collections);
MDB_env *mqsync_reader_env(const struct mqsync_reader *r);

/* flock on dir/lock: MQSYNC_CONFLICT when somebody has it. */
enum mqsync_code mqsync_store_lock(const char *dir, int *ret_fd, struct mqsync_error *ret_error);

#endif
