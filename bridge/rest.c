/* SPDX-License-Identifier: BSD-3-Clause */
#include "rest.h"

#include <stdlib.h>

#include "access.h"
#include "bridge.h"
#include "exchange.h"
#include "session.h"

enum {
    CONFIRM_MS = 10000, /* for a command to be confirmed */
    LOST_MS = 2000,     /* for the broker to come back */
};

static const struct mqsync_slice nothing;

/* --- the requests that there are ---------------------------------------------------------------------------------- */

static struct mqsync_rest **bucket_of(struct mqsync_bridge *b, uint64_t handle)
{
    return &b->rests.buckets[handle % MQSYNC_RESTS_BUCKETS];
}

struct mqsync_rest *mqsync_rest_find(struct mqsync_bridge *b, uint64_t handle)
{
    struct mqsync_rest *r = handle & MQSYNC_REST_HANDLE ? *bucket_of(b, handle) : NULL;

    while (r && r->handle != handle)
        r = r->next;
    return r;
}

static void enter(struct mqsync_bridge *b, struct mqsync_rest *r)
{
    struct mqsync_rest **bucket;

    r->handle = ++b->rests.handles | MQSYNC_REST_HANDLE;
    bucket = bucket_of(b, r->handle);
    r->next = *bucket;
    *bucket = r;
    b->rests.n++;
}

void mqsync_rest_close(struct mqsync_rest *r)
{
    struct mqsync_rest **at;

    if (!r)
        return;
    mqsync_rest_stop_reading(r);
    at = bucket_of(r->bridge, r->handle);
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    r->bridge->rests.n--;
    mqsync_claims_free(&r->claims);
    mqsync_buf_free(&r->answer.body);
    mqsync_buf_free(&r->winner);
    mqsync_buf_free(&r->args);
    free(r);
}

static void each(struct mqsync_bridge *b, void (*visit)(struct mqsync_rest *r, int64_t now_ms), int64_t now_ms)
{
    if (b->rests.n == 0)
        return;
    for (size_t i = 0; i < MQSYNC_RESTS_BUCKETS; i++)
        for (struct mqsync_rest *r = b->rests.buckets[i]; r; r = r->next)
            visit(r, now_ms);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static unsigned status_of(enum mqsync_code code)
{
    switch (code) {
    case MQSYNC_AUTH_FAILED:
        return 401;
    case MQSYNC_UNAUTHORIZED:
        return 403;
    case MQSYNC_INVALID_MESSAGE:
        return 400;
    case MQSYNC_COLLECTION_NOT_FOUND:
    case MQSYNC_RECORD_NOT_FOUND:
        return 404;
    case MQSYNC_CONFLICT:
        return 409;
    case MQSYNC_RATE_LIMIT_EXCEEDED:
        return 429;
    default:
        return 500;
    }
}

/* Begins the answer; true: it is to be filled. */
static bool begin_answer(struct mqsync_rest *r, unsigned status)
{
    if (r->answer.status)
        return false;
    r->answer.status = status;
    r->answer.content_type = "application/json";
    r->deadline_ms = 0;
    return true;
}

static void fail_as(struct mqsync_rest *r, unsigned status, const struct mqsync_error *e)
{
    r->bridge->metrics.errors[e->code]++;
    mqsync_rest_stop_reading(r);
    if (begin_answer(r, status)) {
        mqsync_error_encode(&r->answer.body, e, mqsync_slice_str(r->collection), mqsync_slice_str(r->record_id),
                            nothing, false, 0);
        r->answer.more = false;
        if (e->code == MQSYNC_RATE_LIMIT_EXCEEDED)
            r->answer.retry_after = (unsigned)(60 - mqsync_time_now() / 1000 % 60);
    } else {
        r->answer.broken = true;
    }
    mqsync_exchange_wake(r->exchange);
}

void mqsync_rest_fail(struct mqsync_rest *r, const struct mqsync_error *e)
{
    fail_as(r, status_of(e->code), e);
}

void mqsync_rest_fail_unavailable(struct mqsync_rest *r, const char *text)
{
    struct mqsync_error e;

    mqsync_fail(&e, MQSYNC_SERVER_ERROR, "%s", text);
    fail_as(r, 503, &e);
}

void mqsync_rest_fail_too_long(struct mqsync_rest *r, const char *text)
{
    struct mqsync_error e;

    mqsync_fail(&e, MQSYNC_INVALID_MESSAGE, "%s", text);
    fail_as(r, 413, &e);
}

/* --- who asks ----------------------------------------------------------------------------------------------------- */

static enum mqsync_code authenticate(struct mqsync_rest *r, struct mqsync_slice authorization,
                                     struct mqsync_error *ret_error)
{
    static const char scheme[] = "Bearer ";
    size_t n = sizeof(scheme) - 1;

    r->claims.expires_ms = INT64_MAX;
    if (!r->bridge->verifier)
        return MQSYNC_OK;
    if (authorization.n <= n || strncasecmp(authorization.p, scheme, n) != 0)
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "a token is needed: Authorization: Bearer ...");
    while (n < authorization.n && authorization.p[n] == ' ')
        n++;
    return mqsync_token_verify(r->bridge->verifier, (struct mqsync_slice){authorization.p + n, authorization.n - n},
                               mqsync_time_now(), &r->claims, ret_error);
}

static enum mqsync_code count(struct mqsync_rest *r, const char *address, struct mqsync_error *ret_error)
{
    unsigned max = r->bridge->config->limits.messages_per_minute;
    struct mqsync_user *u;

    if (max == 0)
        return MQSYNC_OK;
    u = mqsync_user_visit(&r->bridge->users, mqsync_slice_str(r->claims.user), mqsync_slice_str(address));
    if (!u)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    if (mqsync_user_may_send(u, max, mqsync_time_now()))
        return MQSYNC_OK;
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3023", "%s (user '%s') has sent more than %u messages in a minute", address,
               r->claims.user ? r->claims.user : "", max);
    return mqsync_fail(ret_error, MQSYNC_RATE_LIMIT_EXCEEDED, "more than %u messages in a minute", max);
}

/* Whose right is for his own records only: reading leaves the others out, about writing the plugin decides. */
static enum mqsync_code allow(const struct mqsync_rest *r, struct mqsync_error *ret_error)
{
    struct mqsync_slice name = mqsync_slice_str(r->collection);
    const struct mqsync_collection_config *c = mqsync_config_collection(r->bridge->config, name);
    struct mqsync_identity who = {mqsync_slice_str(r->claims.user), r->claims.roles, r->claims.roles_n};
    bool write = r->method != MQSYNC_HTTP_GET && r->method != MQSYNC_HTTP_HEAD;

    if (!c)
        return mqsync_fail(ret_error, MQSYNC_COLLECTION_NOT_FOUND, "there is no collection of that name");
    if (mqsync_access(c, write, &who) != MQSYNC_RIGHT_NONE)
        return MQSYNC_OK;
    return mqsync_fail(ret_error, MQSYNC_UNAUTHORIZED, "this user may not %s this collection",
                       write ? "write to" : "read");
}

/* --- the request -------------------------------------------------------------------------------------------------- */

static enum mqsync_code check_target(struct mqsync_rest *r, const struct mqsync_target *t,
                                     struct mqsync_error *ret_error)
{
    bool needs_id = r->method == MQSYNC_HTTP_PATCH || r->method == MQSYNC_HTTP_DELETE;

    if (!mqsync_collection_valid(t->collection))
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "collection: expected 1 to 64 of A-Z a-z 0-9 _ . -");
    memcpy(r->collection, t->collection.p, t->collection.n);
    if (t->record_id.n == 0 && !needs_id)
        return MQSYNC_OK;
    if (!mqsync_record_id_valid(t->record_id))
        return mqsync_fail(
            ret_error, MQSYNC_INVALID_MESSAGE,
            "recordId in the path: expected 1 to 128 bytes of UTF-8 without / + # and control characters");
    memcpy(r->record_id, t->record_id.p, t->record_id.n);
    return MQSYNC_OK;
}

/* The query's slices must outlive the request's head. */
static enum mqsync_code keep_query(struct mqsync_rest *r, const struct mqsync_rest_request *request,
                                   struct mqsync_error *ret_error)
{
    struct mqsync_slice *args = calloc(request->args_n + 1, sizeof(*args));
    enum mqsync_code code = MQSYNC_SERVER_ERROR;
    size_t at = 0;

    for (size_t i = 0; i < request->args_n; i++)
        mqsync_buf_add_slice(&r->args, request->args[i]);
    for (size_t i = 0; i < request->args_n && args && !r->args.failed; i++) {
        args[i] = (struct mqsync_slice){r->args.p + at, request->args[i].n};
        at += request->args[i].n;
    }
    if (args && !r->args.failed)
        code = mqsync_query_parse(args, request->args_n, &r->query, ret_error);
    else
        mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    free(args);
    return code;
}

struct mqsync_rest *mqsync_rest_open(struct mqsync_bridge *b, struct mqsync_exchange *x,
                                     const struct mqsync_rest_request *request)
{
    struct mqsync_rest *r = calloc(1, sizeof(*r));
    struct mqsync_error e, e_target;
    enum mqsync_code code, code_target;

    if (!r)
        return NULL;
    r->bridge = b;
    r->exchange = x;
    r->method = request->method;
    r->reading = r->method == MQSYNC_HTTP_GET || r->method == MQSYNC_HTTP_HEAD;
    r->arrived_us = mqsync_monotonic_us();
    enter(b, r);
    code_target = check_target(r, &request->target, &e_target); /* first, since every error names the target */
    code = authenticate(r, request->authorization, &e);
    if (code == MQSYNC_AUTH_FAILED)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3021", "refused %s (user ''): %s", request->address, e.text);
    if (code == MQSYNC_OK)
        code = count(r, request->address, &e);
    if (code == MQSYNC_OK && code_target != MQSYNC_OK) {
        code = code_target;
        e = e_target;
    }
    if (code == MQSYNC_OK)
        code = allow(r, &e);
    if (code == MQSYNC_OK && r->reading)
        code = keep_query(r, request, &e);
    if (code != MQSYNC_OK)
        mqsync_rest_fail(r, &e);
    return r;
}

/* --- writes ------------------------------------------------------------------------------------------------------- */

static void forward(struct mqsync_rest *r, const struct mqsync_message *m)
{
    struct mqsync_bridge *b = r->bridge;
    struct mqsync_upstream_command c = {
        .collection = m->collection, .payload = mqsync_buf_slice(&b->answer), .ack = true};
    struct mqsync_error e;

    mqsync_command_for(b, &r->claims, &c);
    if (mqsync_command_send(b, r->handle, &c, &e) != MQSYNC_OK) {
        mqsync_rest_fail_unavailable(r, e.text);
        return;
    }
    r->sent = true;
    r->oversized = m->data.n > b->config->limits.max_record_bytes;
    r->deadline_ms = mqsync_monotonic_us() / 1000 + CONFIRM_MS;
}

static void write_record(struct mqsync_rest *r, struct mqsync_slice body)
{
    struct mqsync_bridge *b = r->bridge;
    struct mqsync_target target = {mqsync_slice_str(r->collection), mqsync_slice_str(r->record_id)};
    struct mqsync_message m;
    struct mqsync_error e;
    enum mqsync_code code;

    code = mqsync_query_command(r->method, &target, body, &b->answer, &b->message, &m, &e);
    if (m.record_id.n) { /* an error names it, too */
        memmove(r->record_id, m.record_id.p, m.record_id.n);
        r->record_id[m.record_id.n] = '\0';
    }
    if (code != MQSYNC_OK) {
        b->metrics.invalid_messages++;
        mqsync_rest_fail(r, &e);
        return;
    }
    b->metrics.messages[m.type]++;
    if (!mqsync_upstream_is_up(b->upstream))
        mqsync_rest_fail_unavailable(r, "the broker is not there; nothing was changed");
    else
        forward(r, &m);
}

void mqsync_rest_run(struct mqsync_rest *r, struct mqsync_slice body)
{
    if (r->answer.status)
        return;
    if (!r->reading) {
        write_record(r, body);
        return;
    }
    r->bridge->metrics.messages[MQSYNC_TYPE_SYNC]++;
    mqsync_rest_read(r);
}

void mqsync_rest_continue(struct mqsync_rest *r)
{
    if (r->answer.more)
        mqsync_rest_hunger(r);
}

/* --- their results ------------------------------------------------------------------------------------------------ */

/* The broker has it and the plugin has said what became of it: {recordId, version, seq}, and where others have won, the
 * record as it is now. */
static void settle(struct mqsync_rest *r)
{
    struct mqsync_buf *out = &r->answer.body;

    if (!r->acknowledged || !r->answered || !begin_answer(r, 200))
        return;
    mqsync_buf_add_str(out, "{\"recordId\":");
    mqsync_json_add_string(out, mqsync_slice_str(r->record_id));
    mqsync_buf_add_str(out, ",\"version\":");
    mqsync_buf_add_u64(out, r->version);
    mqsync_buf_add_str(out, ",\"seq\":");
    mqsync_buf_add_u64(out, r->seq);
    mqsync_buf_add_slice(out, mqsync_buf_slice(&r->winner));
    if (r->method == MQSYNC_HTTP_DELETE && r->winner.n == 0)
        mqsync_buf_add_str(out, ",\"deleted\":true");
    mqsync_buf_add_char(out, '}');
    mqsync_exchange_wake(r->exchange);
}

static void take_winner(struct mqsync_rest *r, struct mqsync_slice payload, bool deleted)
{
    struct mqsync_slice data, time;

    mqsync_buf_clear(&r->winner);
    mqsync_buf_add_str(&r->winner, ",\"conflict\":true");
    if (deleted)
        mqsync_buf_add_str(&r->winner, ",\"deleted\":true");
    else if (mqsync_json_member(payload, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &data)) {
        mqsync_buf_add_str(&r->winner, ",\"data\":");
        mqsync_buf_add_slice(&r->winner, data);
    }
    if (mqsync_json_member(payload, MQSYNC_SLICE("timestamp"), MQSYNC_JSON_STRING, &time)) {
        mqsync_buf_add_str(&r->winner, ",\"updatedAt\":");
        mqsync_buf_add_slice(&r->winner, time);
    }
}

/* What is gone already is as it was asked for. */
static void take_gone(struct mqsync_rest *r)
{
    if (!begin_answer(r, 200))
        return;
    mqsync_buf_add_str(&r->answer.body, "{\"recordId\":");
    mqsync_json_add_string(&r->answer.body, mqsync_slice_str(r->record_id));
    mqsync_buf_add_str(&r->answer.body, ",\"deleted\":true}");
    mqsync_exchange_wake(r->exchange);
}

/* The plugin's `error` is the answer's body as it is. */
static void take_error(struct mqsync_rest *r, struct mqsync_slice payload)
{
    enum mqsync_code code = mqsync_error_read(payload);

    if (code == MQSYNC_OK) /* a name that a later plugin knows */
        code = MQSYNC_SERVER_ERROR;
    if (code == MQSYNC_RECORD_NOT_FOUND && r->method == MQSYNC_HTTP_DELETE) {
        take_gone(r);
        return;
    }
    if (!begin_answer(r, code == MQSYNC_INVALID_MESSAGE && r->oversized ? 413 : status_of(code)))
        return;
    r->bridge->metrics.errors[code]++;
    mqsync_buf_add_slice(&r->answer.body, payload);
    mqsync_exchange_wake(r->exchange);
}

static void take_ack(struct mqsync_rest *r, struct mqsync_slice payload)
{
    struct mqsync_slice metadata;

    if (!mqsync_json_member(payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &metadata))
        return;
    mqsync_json_member_u64(metadata, MQSYNC_SLICE("version"), &r->version);
    mqsync_json_member_u64(metadata, MQSYNC_SLICE("seq"), &r->seq);
    r->answered = true;
    settle(r);
}

void mqsync_rest_answered(struct mqsync_rest *r, uint64_t question, struct mqsync_slice payload)
{
    struct mqsync_slice type;

    if (r->reading ? !r->asked || r->question != question : question != 0)
        return;
    if (mqsync_json_check(payload, NULL, NULL) != MQSYNC_OK ||
        !mqsync_json_member(payload, MQSYNC_SLICE("type"), MQSYNC_JSON_STRING, &type))
        return;
    if (mqsync_slice_equal(type, MQSYNC_SLICE("\"error\""))) {
        mqsync_rest_stop_reading(r);
        take_error(r, payload);
    } else if (r->reading) {
        mqsync_rest_read_answered(r, payload);
    } else if (mqsync_slice_equal(type, MQSYNC_SLICE("\"ack\""))) {
        take_ack(r, payload);
    } else {
        r->bridge->metrics.conflicts++;
        take_winner(r, payload, mqsync_slice_equal(type, MQSYNC_SLICE("\"delete\"")));
    }
}

void mqsync_rest_acknowledged(struct mqsync_rest *r)
{
    r->acknowledged = true;
    settle(r);
}

/* --- when nothing comes ------------------------------------------------------------------------------------------- */

static void lose(struct mqsync_rest *r, int64_t now_ms)
{
    if (r->asked)
        mqsync_rest_fail_unavailable(r, "the connection to the broker was lost");
    else if (r->deadline_ms > now_ms + LOST_MS)
        r->deadline_ms = now_ms + LOST_MS;
}

void mqsync_rests_down(struct mqsync_bridge *b)
{
    each(b, lose, mqsync_monotonic_us() / 1000);
}

static void check_deadline(struct mqsync_rest *r, int64_t now_ms)
{
    if (r->deadline_ms == 0 || now_ms < r->deadline_ms)
        return;
    if (r->reading) {
        mqsync_rest_fail_unavailable(r, "neither the database nor the broker has answered in time");
        return;
    }
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3035", "the broker has not confirmed a change of %s/%s in time", r->collection,
               r->record_id);
    mqsync_rest_fail_unavailable(r, "the broker has not confirmed the change in time: it may have been made or not");
}

void mqsync_rests_tick(struct mqsync_bridge *b, int64_t now_ms)
{
    each(b, check_deadline, now_ms);
}
