/* SPDX-License-Identifier: BSD-3-Clause */
/* The one write rule (docs/protocol.md, "The write rule" and what follows): what a write does to a record. A pure
 * function of the stored record, the write and the collection's rules; it has never heard of a broker, a store or a
 * clock. */
#ifndef MQSYNC_RESOLVE_H
#define MQSYNC_RESOLVE_H

#include "record.h"
#include "timestamp.h"

enum mqsync_strategy {
    MQSYNC_LAST_WRITE_WINS,
    MQSYNC_SERVER_WINS,
    MQSYNC_CLIENT_WINS,
    MQSYNC_MERGE_ARRAYS,
    MQSYNC_SUM_NUMBERS,
    MQSYNC_MAX_VALUE,
    MQSYNC_MERGE_FIELDS,
    MQSYNC_FIELD_LEVEL_LAST_WRITE_WINS,
    MQSYNC_DEEP_MERGE,
};

/* "lastWriteWins", ... as in the configuration; NULL / false for what is none. */
const char *mqsync_strategy_name(enum mqsync_strategy s);
bool mqsync_strategy_has_fields(enum mqsync_strategy s);

struct mqsync_rules {
    enum mqsync_strategy strategy;
    const struct mqsync_slice *fields; /* plain UTF-8 names, for the strategies that take them */
    size_t fields_n;
    bool upsert;
    size_t max_record_bytes; /* of data, minified; 0: no limit */
};

struct mqsync_write {
    enum mqsync_op op;
    struct mqsync_slice data; /* checked, minified JSON object; empty for delete */
    struct mqsync_time time;  /* as sent */
    int64_t arrived_ms;
    struct mqsync_slice user;        /* empty: anonymous */
    struct mqsync_slice mutation_id; /* empty: none */
    bool has_base_version;
    bool has_if_version;
    uint64_t base_version;
    uint64_t if_version;
    /* The sender may be repeating what it sent before its connection was lost at or after this time (server's clock,
     * ms); INT64_MAX: its connection has not been lost. A write without a time and a mutationId that equals the
     * record's last change, accepted before this, is that change redelivered. */
    int64_t reconnected_ms;
};

enum mqsync_outcome_kind {
    MQSYNC_ACCEPTED, /* next is to be stored, the event announced */
    MQSYNC_REPEATED, /* an accepted change came again: nothing changes; version, seq as then; event as then */
    MQSYNC_LOST,     /* conflict lost: nothing changes; the sender is to be sent the stored record */
    MQSYNC_REFUSED,  /* error is filled; version holds the record's version for CONFLICT (0: there is none) */
};

struct mqsync_outcome {
    enum mqsync_outcome_kind kind;
    struct mqsync_error error;
    uint64_t version; /* the record's version after this write (of the repeated change for REPEATED) */
    uint64_t seq;
    int64_t timestamp_ms;           /* of the event */
    enum mqsync_op event;           /* what subscribers are told: INSERT, UPDATE or DELETE */
    struct mqsync_slice event_data; /* ACCEPTED, REPEATED: JSON object of the event; empty for DELETE */
    bool same_content; /* REPEATED: from the same user with the same data, not just with the same mutationId */
    bool was_conflict; /* counts as a conflict (whoever won) */
    bool send_winner;  /* the sender's own picture is now wrong: send it the record (stored, or next when ACCEPTED) */
    /* ACCEPTED: complete, with version, seq, history, but without former owners (mqsync_access_formers() adds them).
     * Slices point into *out, the write or stored */
    struct mqsync_record next;
};

/* stored: the record as kept, a tombstone included; NULL when the id was never used. floor: the version below or at
 * which this id may already have been used (0 as a rule); a record's first version is floor + 1. next_seq: the seq an
 * accepted change gets. out: scratch that next and event_data may point into; cleared first; must outlive the outcome.
 *
 * Out of memory is MQSYNC_REFUSED with MQSYNC_SERVER_ERROR. Linear in the sizes of stored data and write data (merges
 * of arrays n log n). */
void mqsync_resolve(const struct mqsync_rules *rules, const struct mqsync_record *stored, uint64_t floor,
                    uint64_t next_seq, const struct mqsync_write *write, struct mqsync_buf *out,
                    struct mqsync_outcome *ret);

#endif
