/* SPDX-License-Identifier: BSD-3-Clause */
/* One request under /sync: who asks, what it becomes (a command, or a reading of records), and its answer. Knows
 * nothing of sockets; rest_read.c has the reading. */
#ifndef MQSYNC_BRIDGE_REST_H
#define MQSYNC_BRIDGE_REST_H

#include "http_answer.h"
#include "query.h"
#include "token.h"
#include "turns.h"

struct mqsync_bridge;
struct mqsync_exchange; /* the socket's side of it */

/* What tells a request's handle from a session's. */
#define MQSYNC_REST_HANDLE (UINT64_C(1) << 63)

struct mqsync_rest {
    struct mqsync_rest *next; /* of its bucket */
    uint64_t handle;          /* never used again */
    struct mqsync_bridge *bridge;
    struct mqsync_exchange *exchange;
    enum mqsync_http_method method;
    char collection[MQSYNC_MAX_COLLECTION + 1], record_id[MQSYNC_MAX_RECORD_ID + 1]; /* "": none */
    struct mqsync_claims claims;
    struct mqsync_http_answer answer;
    /* a write on its way */
    bool sent, acknowledged, answered;
    bool oversized;      /* its data alone is more than a record may have */
    int64_t deadline_ms; /* monotonic; 0: none */
    uint64_t version, seq;
    struct mqsync_buf winner; /* of a conflict: members of the answer */
    /* a reading */
    struct mqsync_buf args; /* what the query's slices point into */
    struct mqsync_query query;
    bool reading;
    struct mqsync_turn turn; /* among the hungry readings */
    int64_t arrived_us;
    uint64_t at; /* the seq reached */
    uint64_t skipped, taken;
    bool found_more;
    char epoch[MQSYNC_EPOCH_SIZE]; /* "": not known yet */
    /* through the broker */
    bool asked, unlimited, inexact;
    uint64_t question, asked_left;
    uint64_t seen, seen_bytes; /* of entries, for how many to ask at once */
};

enum { MQSYNC_RESTS_BUCKETS = 1024 };
struct mqsync_rests {
    struct mqsync_rest *buckets[MQSYNC_RESTS_BUCKETS];
    size_t n;
    uint64_t handles;
    struct mqsync_turns hungry; /* readings */
};

struct mqsync_rest_request {
    enum mqsync_http_method method;
    struct mqsync_target target;
    const struct mqsync_slice *args; /* as mqsync_query_parse() takes them */
    size_t args_n;
    struct mqsync_slice authorization; /* the header; empty: none */
    const char *address;
};

/* NULL: out of memory. What can be refused by the head alone has answer.status set, and needs no body. */
struct mqsync_rest *mqsync_rest_open(struct mqsync_bridge *b, struct mqsync_exchange *x,
                                     const struct mqsync_rest_request *request);
/* The body is there (empty: there is none). The answer comes then or later, with mqsync_exchange_wake(). */
void mqsync_rest_run(struct mqsync_rest *r, struct mqsync_slice body);
/* answer.body has been emptied and there is room for more. */
void mqsync_rest_continue(struct mqsync_rest *r);
/* Also in the middle of it: a change that is on its way is made all the same. */
void mqsync_rest_close(struct mqsync_rest *r); /* NULL is fine */

/* The failure, as the `error` message with the status that belongs to the code; where part of the answer has left, the
 * connection breaks off. */
void mqsync_rest_fail(struct mqsync_rest *r, const struct mqsync_error *e);
/* SERVER_ERROR as well, but with 503: try again later. */
void mqsync_rest_fail_unavailable(struct mqsync_rest *r, const char *text);
/* The same with status 413. */
void mqsync_rest_fail_too_long(struct mqsync_rest *r, const char *text);

struct mqsync_rest *mqsync_rest_find(struct mqsync_bridge *b, uint64_t handle); /* NULL: gone */
/* An answer to its command (question 0) or question. */
void mqsync_rest_answered(struct mqsync_rest *r, uint64_t question, struct mqsync_slice payload);
/* The broker has acknowledged its command. */
void mqsync_rest_acknowledged(struct mqsync_rest *r);
/* The broker is gone: nothing new will be answered, and what was asked neither. */
void mqsync_rests_down(struct mqsync_bridge *b);
/* Those that have waited too long are told. Several times a second. */
void mqsync_rests_tick(struct mqsync_bridge *b, int64_t now_ms);

/* --- rest_read.c -------------------------------------------------------------------------------------------------- */

/* Starts reading what the query asks for. */
void mqsync_rest_read(struct mqsync_rest *r);
void mqsync_rest_hunger(struct mqsync_rest *r); /* it wants to go on */
void mqsync_rest_read_answered(struct mqsync_rest *r, struct mqsync_slice payload);
/* What it has asked the broker is of no interest any more, nor is its turn. */
void mqsync_rest_stop_reading(struct mqsync_rest *r);
/* Goes on with the hungry ones for some milliseconds. */
void mqsync_rests_pump(struct mqsync_bridge *b);

#endif
