/* SPDX-License-Identifier: BSD-3-Clause */
/* The protocol's messages (docs/protocol.md), to and from JSON. */
#ifndef MQSYNC_MESSAGE_H
#define MQSYNC_MESSAGE_H

#include "error.h"
#include "json.h"
#include "timestamp.h"
#include "topic.h"

/* Generated from schemas/operations.json: MQSYNC_TYPE_AUTH, _SUBSCRIBE, _UNSUBSCRIBE, _INSERT, _UPDATE, _DELETE, _SYNC,
 * _PING, and the table of what each carries. */
#include "operations.gen.h"

#define MQSYNC_MAX_MUTATION_ID 128
#define MQSYNC_EPOCH_SIZE 33 /* an epoch's 32 hex digits and a NUL */

/* How the Correlation Data of a bridge's commands begins. The plugin leaves it on the event, where the bridge knows its
 * own by it. */
#define MQSYNC_BRIDGE_CORRELATION "mqsync-b"

struct mqsync_message {
    enum mqsync_type type;
    struct mqsync_slice collection; /* empty: left out */
    struct mqsync_slice record_id;
    struct mqsync_slice data; /* a checked, minified JSON object; empty: left out */
    struct mqsync_slice token;
    struct mqsync_time time;
    /* metadata */
    struct mqsync_slice mutation_id; /* empty: none */
    struct mqsync_slice epoch;       /* empty: none */
    bool has_base_version, has_if_version, has_since, has_limit;
    uint64_t base_version, if_version, since, limit;
    bool no_sync;                     /* metadata.sync is false */
    bool full_updates, delta_updates; /* metadata.updates is "full", "delta"; neither: not said */
};

/* Decodes one client message. default_collection (from the topic or path; may be empty) stands in for a missing
 * collection; when both are there and differ it is INVALID_MESSAGE. Checks everything that does not need the store:
 * types of fields, names, which fields the type requires and that a number is one. Unknown fields are ignored; a
 * documented field with a wrong type is an error that names the field, what was expected and what was found. A
 * timestamp that cannot be parsed is an error. mutationId: a string of 1 to 128 bytes.
 *
 * Slices of *ret point into json or into scratch (cleared first); both must outlive it. On failure *ret's collection,
 * record_id and mutation_id are filled as far as they were understood, even of what is no JSON, so that the error can
 * be addressed. */
enum mqsync_code mqsync_message_decode(struct mqsync_slice json, struct mqsync_slice default_collection,
                                       struct mqsync_buf *scratch, struct mqsync_message *ret,
                                       struct mqsync_error *ret_error);

/* Checks the bare data object of a short-form insert or update, as mqsync_message_decode does for `data`. *ret points
 * into payload when that is minified already, else into scratch. */
enum mqsync_code mqsync_data_decode(struct mqsync_slice payload, struct mqsync_buf *scratch, struct mqsync_slice *ret,
                                    struct mqsync_error *ret_error);

/* --- to JSON: each appends one whole message ---------------------------------------------------------------------- */

struct mqsync_event {
    enum mqsync_op op;
    struct mqsync_slice collection, record_id, data; /* data empty: left out */
    int64_t timestamp_ms;
    uint64_t version, seq;
    struct mqsync_slice user;        /* empty: null */
    struct mqsync_slice mutation_id; /* empty: left out */
    bool conflict;                   /* metadata.conflict: true */
};
/* {"type","collection","recordId","data","timestamp","metadata":{"version","userId","seq","mutationId","conflict"}} */
void mqsync_event_encode(struct mqsync_buf *out, const struct mqsync_event *e);
/* metadata.seq of an encoded event. False: the text is something else. */
bool mqsync_event_seq(struct mqsync_slice event, uint64_t *ret);
/* metadata.version of a text whose seq mqsync_event_seq() has found. */
bool mqsync_event_version(struct mqsync_slice event, uint64_t *ret);

/* {"type":"ack","collection","recordId","metadata":{"mutationId","version","seq"}}; an empty mutation_id is left out;
 * conflict true adds "conflict":true. */
void mqsync_ack_encode(struct mqsync_buf *out, struct mqsync_slice collection, struct mqsync_slice record_id,
                       struct mqsync_slice mutation_id, uint64_t version, uint64_t seq, bool conflict);

/* {"type":"error","error","code","metadata":{...}}: of collection, record_id, mutation_id the non-empty ones; version
 * only with has_version. */
void mqsync_error_encode(struct mqsync_buf *out, const struct mqsync_error *e, struct mqsync_slice collection,
                         struct mqsync_slice record_id, struct mqsync_slice mutation_id, bool has_version,
                         uint64_t version);
/* Its code, of an encoded message that may be any other as well: MQSYNC_OK then, and for a code of no known name. */
enum mqsync_code mqsync_error_read(struct mqsync_slice message);

/* {"type":"subscribed","collection","metadata":{"recordCount","seq","epoch"}}; full_updates adds "updates":"full". */
void mqsync_subscribed_encode(struct mqsync_buf *out, struct mqsync_slice collection, uint64_t record_count,
                              uint64_t seq, struct mqsync_slice epoch, bool full_updates);
/* {"type":"unsubscribed","collection"}; collection may be empty for pong, authenticated. */
void mqsync_plain_encode(struct mqsync_buf *out, const char *type, struct mqsync_slice collection);

/* A sync page, built record by record:
 * {"type":"sync","collection","data":{"records":[...],"deleted":[...]},"timestamp",
 *  "metadata":{"seq","epoch","full","more","total"}}
 * begin, then live and deleted records in any order, then end. With full false "deleted" is always there, with full
 * true only when it is not empty. Out of memory shows in out.failed after end. */
struct mqsync_page {
    struct mqsync_buf out;     /* the message so far */
    struct mqsync_buf deleted; /* collected apart, joined by end */
    unsigned records_n, deleted_n;
};
#define MQSYNC_PAGE_MAX_ENTRIES 500
#define MQSYNC_PAGE_MAX_BYTES (256 * 1024)
void mqsync_page_begin(struct mqsync_page *p, struct mqsync_slice collection);
/* Adds {id, data, version, updatedAt}, or (deleted) {id, version, updatedAt}. Returns false and adds nothing when the
 * page would exceed its limits, unless it is the page's first entry. */
bool mqsync_page_add(struct mqsync_page *p, struct mqsync_slice id, struct mqsync_slice data, uint64_t version,
                     int64_t updated_ms, bool deleted);
void mqsync_page_end(struct mqsync_page *p, int64_t now_ms, uint64_t seq, struct mqsync_slice epoch, bool full,
                     bool more, uint64_t total);
void mqsync_page_free(struct mqsync_page *p);

#endif
