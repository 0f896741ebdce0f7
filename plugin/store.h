/* SPDX-License-Identifier: BSD-3-Clause */
/* The store: the latest version of every record, and its changes by seq. docs/architecture.md has the why.
 *
 * One writer (the broker's thread) appends each accepted change to a write-ahead log and to tables in memory; a thread
 * moves them in batches into LMDB, whose own transactions are then on the disk. Readers see LMDB plus what the log
 * holds beyond it, in this process and in others.
 *
 * Errors come as MQSYNC_SERVER_ERROR with text for an operator unless said otherwise. */
#ifndef MQSYNC_STORE_H
#define MQSYNC_STORE_H

#include "../lib/config.h"
#include "../lib/record.h"

enum mqsync_log_level { MQSYNC_LOG_INFO, MQSYNC_LOG_WARNING, MQSYNC_LOG_ERROR };

struct mqsync_store_options {
    const char *dir;
    enum mqsync_durability durability;
    unsigned sync_interval_ms;
    unsigned tombstone_days;
    /* Called from the store's threads as well. id is stable ("MQS2001"), text without newline. May be NULL. */
    void (*log)(void *context, enum mqsync_log_level level, const char *id, const char *text);
    void *log_context;
    /* For tests; 0 / NULL: as in production. */
    const char *boot_id; /* stands for the kernel's */
    size_t map_bytes;    /* first size of the LMDB map */
    size_t log_limit;    /* bytes of log that may wait for LMDB before writes are refused */
    size_t batch_bytes;  /* bytes of log after which they are moved at once, not after some time */
    size_t txn_entries;  /* records that are moved in one transaction of LMDB, as if the database were large */
};

struct mqsync_store;      /* the one writer */
struct mqsync_collection; /* a collection of it; pointers live until the store is closed */

/* Opens for writing, creating dir's files (dir itself and its parents too) when they are not there. Refuses when
 * another process has it open. */
enum mqsync_code mqsync_store_open(const struct mqsync_store_options *o, struct mqsync_store **ret,
                                   struct mqsync_error *ret_error);
/* Moves everything into LMDB and marks the database as cleanly closed. NULL is fine. */
void mqsync_store_close(struct mqsync_store *s);
/* Changes of the configuration while running: durability, interval, tombstone days. */
void mqsync_store_configure(struct mqsync_store *s, const struct mqsync_store_options *o);

/* 32 hex digits; lives as long as the store. */
const char *mqsync_store_epoch(const struct mqsync_store *s);

/* The collection, or NULL: never written to. Writer's thread. */
struct mqsync_collection *mqsync_store_find(struct mqsync_store *s, struct mqsync_slice name);
/* Finds or creates. max: how many collections there may be; past that MQSYNC_COLLECTION_NOT_FOUND. */
enum mqsync_code mqsync_store_ensure(struct mqsync_store *s, struct mqsync_slice name, size_t max,
                                     struct mqsync_collection **ret, struct mqsync_error *ret_error);
struct mqsync_collection_stat {
    struct mqsync_slice name;
    uint64_t seq;        /* of the last change; 0: none yet */
    uint64_t records;    /* live */
    uint64_t tombstones; /* as of the last batch moved */
    uint64_t oldest_seq; /* a `since` below this one may have missed deletions that are forgotten: full snapshot */
};
void mqsync_collection_stat(const struct mqsync_collection *c,
                            struct mqsync_collection_stat *ret); /* writer's thread */

/* A mqsync_store_get() of this id follows soon: what it looks at first is fetched into the cache meanwhile. Writer's
 * thread. */
void mqsync_store_expect(struct mqsync_store *s, const struct mqsync_collection *c, struct mqsync_slice id);

/* The record, tombstones included: MQSYNC_OK, or MQSYNC_RECORD_NOT_FOUND for an id never used (then *ret_floor is the
 * version below or at which it may have been used before). Slices live until the next call on this store. Writer's
 * thread. */
enum mqsync_code mqsync_store_get(struct mqsync_store *s, struct mqsync_collection *c, struct mqsync_slice id,
                                  struct mqsync_record *ret, uint64_t *ret_floor, struct mqsync_error *ret_error);

/* Keeps r as the record's latest version; r->seq must be above the collection's. When it returns MQSYNC_OK the change
 * is kept as the durability promises; otherwise nothing has changed. r's slices may point into what mqsync_store_get
 * returned. Writer's thread. */
enum mqsync_code mqsync_store_put(struct mqsync_store *s, struct mqsync_collection *c, struct mqsync_slice id,
                                  const struct mqsync_record *r, struct mqsync_error *ret_error);

/* Nothing that the calls before returned is looked at any more. Without this LMDB keeps its pages until the next call,
 * and a move that comes before it makes the file longer. Writer's thread. */
void mqsync_store_rest(struct mqsync_store *s);

/* Gives the calling thread a table of descriptors of its own, with only the files below dir in it. While threads share
 * one table, the kernel takes a slower way in each system call on a descriptor, the broker's on its clients' included.
 */
void mqsync_thread_own_files(const char *dir);

struct mqsync_store_stat {
    uint64_t records, tombstones, collections; /* in all */
    uint64_t database_bytes;                   /* of LMDB's file */
    uint64_t log_bytes;                        /* not yet in LMDB */
    int64_t sync_age_ms; /* how long the oldest write not yet on the disk has waited; 0: all are */
    bool failing;        /* the last attempt to write to the disk failed */
};
void mqsync_store_stat(struct mqsync_store *s, struct mqsync_store_stat *ret); /* any thread of the process */

/* --- views: one moment of the database, for reading --------------------------------------------------------------- */

struct mqsync_view;

/* On the writer's thread: the newest state, without waiting. Valid until the next mqsync_store_put. For short walks:
 * one by seq gives up with MQSYNC_CONFLICT when there is too much to pass over (mqsync_walk_count says UINT64_MAX
 * then). */
enum mqsync_code mqsync_view_newest(struct mqsync_store *s, struct mqsync_view **ret, struct mqsync_error *ret_error);
/* On any other thread of the writer's process: a view of what has been put by now at least. Has it moved into LMDB
 * first; when the disk is full, or takes longer than timeout_ms, reads the log as another process would. May be kept
 * for seconds; a view that is kept costs disk space. */
enum mqsync_code mqsync_view_settled(struct mqsync_store *s, unsigned timeout_ms, struct mqsync_view **ret,
                                     struct mqsync_error *ret_error);
/* In another process, beside a running writer or after its death. The reader keeps the environment open between views.
 */
struct mqsync_reader;
enum mqsync_code mqsync_reader_open(const char *dir, struct mqsync_reader **ret, struct mqsync_error *ret_error);
enum mqsync_code mqsync_reader_view(struct mqsync_reader *r, struct mqsync_view **ret, struct mqsync_error *ret_error);
void mqsync_reader_close(struct mqsync_reader *r);

void mqsync_view_close(struct mqsync_view *v); /* NULL is fine */

const char *mqsync_view_epoch(const struct mqsync_view *v);
/* false: no such collection. */
bool mqsync_view_collection(struct mqsync_view *v, struct mqsync_slice name, struct mqsync_collection_stat *ret);
/* Calls back for each collection, in name order, until it returns false. */
enum mqsync_code mqsync_view_collections(struct mqsync_view *v,
                                         bool (*each)(void *context, const struct mqsync_collection_stat *stat),
                                         void *context, struct mqsync_error *ret_error);
enum mqsync_code mqsync_view_get(struct mqsync_view *v, struct mqsync_slice collection, struct mqsync_slice id,
                                 struct mqsync_record *ret, struct mqsync_error *ret_error);

/* Walks records: by seq (every record's latest change with seq > since, tombstones included), or by id (ids >= from,
 * live ones and tombstones). */
struct mqsync_walk;
enum mqsync_code mqsync_walk_changes(struct mqsync_view *v, struct mqsync_slice collection, uint64_t since,
                                     struct mqsync_walk **ret, struct mqsync_error *ret_error);
enum mqsync_code mqsync_walk_records(struct mqsync_view *v, struct mqsync_slice collection, struct mqsync_slice from,
                                     struct mqsync_walk **ret, struct mqsync_error *ret_error);
/* MQSYNC_OK with the next one (slices live until the next call on this walk), MQSYNC_RECORD_NOT_FOUND at the end. */
enum mqsync_code mqsync_walk_next(struct mqsync_walk *w, struct mqsync_slice *ret_id, struct mqsync_record *ret,
                                  struct mqsync_error *ret_error);
/* How many changes the walk by seq still has, counting stops at max. Does not move the walk. */
uint64_t mqsync_walk_count(struct mqsync_walk *w, uint64_t max);
void mqsync_walk_close(struct mqsync_walk *w); /* NULL is fine */

/* --- for mqsyncctl ------------------------------------------------------------------------------------------------ */

/* Every index against every record, in LMDB and log. Calls back with one line for each thing wrong. *ret_wrong counts
 * them. */
enum mqsync_code mqsync_store_check(const char *dir, void (*wrong)(void *context, const char *text), void *context,
                                    uint64_t *ret_wrong, struct mqsync_error *ret_error);
/* A copy in `to` (created; must be empty) of one moment of the database, hot; progress may be NULL (done, total in
 * bytes). Compact: same, leaving free pages out (a plain backup does that too). */
enum mqsync_code mqsync_store_backup(const char *dir, const char *to,
                                     void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                     struct mqsync_error *ret_error);
/* Makes dir what the backup in `from` holds, with a new epoch. The store must be closed. What was in dir is replaced
 * only when the copy is complete. */
enum mqsync_code mqsync_store_restore(const char *dir, const char *from,
                                      void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                      struct mqsync_error *ret_error);
/* Rewrites the database without free pages. The store must be closed. Same epoch. */
enum mqsync_code mqsync_store_compact(const char *dir, void (*progress)(void *context, uint64_t done, uint64_t total),
                                      void *context, struct mqsync_error *ret_error);

#endif
