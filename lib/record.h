/* SPDX-License-Identifier: BSD-3-Clause */
/* A record as it is kept: the latest version, its data's bytes, and what is needed to know a repeated write again. */
#ifndef MQSYNC_RECORD_H
#define MQSYNC_RECORD_H

#include "buf.h"
#include "error.h"
#include "topic.h"

#define MQSYNC_HISTORY_MAX 32
#define MQSYNC_USER_MAX 1024 /* a longer user name is kept as none (it still counts in the fingerprint) */

/* One accepted change, enough to recognise its repetition and to answer it again. */
struct mqsync_change {
    uint64_t fingerprint; /* of user and data (of user alone for a delete), never 0 */
    uint64_t mutation;    /* hash of the mutationId; 0: there was none */
    int64_t sent_ms;      /* the time as sent (zone-less ones read as UTC); INT64_MIN: none was sent */
    int64_t arrived_ms;   /* the server's clock */
    int64_t effective_ms; /* what became the record's updatedAt */
    uint64_t version;
    uint64_t seq;
    enum mqsync_op op;
    bool zoneless; /* sent_ms came without a zone */
    bool created;  /* there was no (living) record before it: its event was an insert */
};

/* Who a record of a collection with `owner` belonged to. */
#define MQSYNC_FORMERS_MAX 16
struct mqsync_former {
    uint64_t user; /* hash of the user id: mqsync_record_user_hash() */
    uint64_t seq;  /* of the change that made it somebody else's, or nobody's, or deleted it */
};

struct mqsync_record {
    uint64_t version;
    uint64_t seq;
    int64_t updated_ms;
    bool deleted;             /* a tombstone; data is empty */
    struct mqsync_slice user; /* who made the last change; empty: nobody known */
    struct mqsync_slice data; /* a JSON object, minified */
    unsigned history_n;       /* 1..MQSYNC_HISTORY_MAX, oldest first; the last one is the last accepted change */
    struct mqsync_change history[MQSYNC_HISTORY_MAX];
    unsigned formers_n; /* 0..MQSYNC_FORMERS_MAX, each user once, the latest last */
    struct mqsync_former formers[MQSYNC_FORMERS_MAX];
};

/* Appends the stored form. Its format byte is MQSYNC_RECORD_FORMAT, or MQSYNC_RECORD_FORMAT_FORMERS for a record with
 * former owners; integers are little-endian, unaligned. */
#define MQSYNC_RECORD_FORMAT 1
#define MQSYNC_RECORD_FORMAT_FORMERS 2
void mqsync_record_encode(struct mqsync_buf *out, const struct mqsync_record *r);

/* Reads the stored form. *ret's slices point into `stored` and live as long as it. Every length is checked: returns
 * MQSYNC_SERVER_ERROR and leaves *ret untouched for anything that encode could not have written. */
enum mqsync_code mqsync_record_decode(struct mqsync_slice stored, struct mqsync_record *ret,
                                      struct mqsync_error *ret_error);

/* Just the head of the stored form, for walks that do not need the history or the data. */
struct mqsync_record_head {
    uint64_t version;
    uint64_t seq;
    int64_t updated_ms;
    bool deleted;
};
enum mqsync_code mqsync_record_decode_head(struct mqsync_slice stored, struct mqsync_record_head *ret);

/* The same in every process: it is stored. */
uint64_t mqsync_record_user_hash(struct mqsync_slice user);

#endif
