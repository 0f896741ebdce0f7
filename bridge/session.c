/* SPDX-License-Identifier: BSD-3-Clause */
#include "session.h"

#include <stdlib.h>

#include "access.h"
#include "feed_read.h"
#include "owner.h"
#include "server.h"

enum {
    UNAUTHENTICATED_MS = 10000,
    TOO_LONG_MS = 1000, /* for a message that is too long to end */
    LINGER_MS = 5000,   /* for a queue to get out before its connection is closed */
    SYNCS_MAX = 32,
    SUBSCRIPTIONS_MAX = 1000,
    PENDING_HIGH = 256, /* commands on their way: above that a connection is not read from */
    PENDING_LOW = 64,
    PENDING_BYTES_HIGH = 1 << 20, /* and so many bytes of them */
    PENDING_BYTES_LOW = 256 << 10,
    ANSWERS_MAX = 8 << 20, /* bytes that are no events, beyond sendQueueBytes */
};

static const struct mqsync_slice nothing;

/* --- handles ------------------------------------------------------------------------------------------------------ */

/* A free place holds the next free one, marked by its lowest bit. */
static bool take_handle(struct mqsync_bridge *b, struct mqsync_session *s)
{
    uint32_t index;

    if (b->free_index == 0) {
        uint32_t n = b->by_index_n ? b->by_index_n * 2 : 64;
        struct mqsync_session **v = realloc(b->by_index, n * sizeof(*v));
        if (!v)
            return false;
        b->by_index = v;
        /* place 0 is never used: it says that there is none */
        for (uint32_t i = n; i-- > (b->by_index_n ? b->by_index_n : 1);) {
            v[i] = (struct mqsync_session *)((uintptr_t)b->free_index << 1 | 1);
            b->free_index = i;
        }
        b->by_index_n = n;
    }
    index = b->free_index;
    b->free_index = (uint32_t)((uintptr_t)b->by_index[index] >> 1);
    b->by_index[index] = s;
    s->handle = (++b->generation << 32) | index;
    return true;
}

static void give_handle_back(struct mqsync_bridge *b, struct mqsync_session *s)
{
    uint32_t index = (uint32_t)s->handle;

    b->by_index[index] = (struct mqsync_session *)((uintptr_t)b->free_index << 1 | 1);
    b->free_index = index;
}

struct mqsync_session *mqsync_session_find(struct mqsync_bridge *b, uint64_t handle)
{
    uint32_t index = (uint32_t)handle;
    struct mqsync_session *s = index > 0 && index < b->by_index_n ? b->by_index[index] : NULL;

    return s && !((uintptr_t)s & 1) && s->handle == handle ? s : NULL;
}

/* --- what goes out ------------------------------------------------------------------------------------------------ */

void mqsync_session_end(struct mqsync_session *s, uint16_t code, const char *reason)
{
    if (s->closing_ms)
        return;
    s->closing_ms = mqsync_monotonic_us() / 1000;
    s->close_code = code;
    s->close_reason = reason;
    mqsync_socket_wake(s->socket);
}

static struct mqsync_feed *subscription_by_channel(const struct mqsync_session *s, uint64_t channel_id)
{
    for (struct mqsync_feed *f = s->feeds; f; f = f->next)
        if (f->subscription && f->channel->id == channel_id)
            return f;
    return NULL;
}

static void dropped(void *context, const struct mqsync_frame *f)
{
    struct mqsync_session *s = context;
    struct mqsync_feed *feed = subscription_by_channel(s, f->channel);

    if (feed)
        mqsync_feed_unsent(s->bridge, feed, f->seq);
}

static void relieve(struct mqsync_session *s)
{
    size_t max = s->bridge->config->bridge.send_queue_bytes, before = s->queue.bytes;

    mqsync_queue_drop_events(&s->queue, dropped, s);
    s->bridge->metrics.collapses += s->queue.bytes < before;
    if (s->queue.bytes > max + ANSWERS_MAX) {
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3020", "%s (user '%s') does not read its answers: closed", s->address,
                   s->claims.user ? s->claims.user : "");
        mqsync_socket_kill(s->socket);
    }
}

void mqsync_session_reconsider(struct mqsync_session *s)
{
    size_t max = s->bridge->config->bridge.send_queue_bytes;
    /* without a broker nothing is acknowledged, and writes are refused at once: reading them costs nothing */
    unsigned pending = mqsync_upstream_is_up(s->bridge->upstream) ? s->pending : 0;
    size_t bytes = pending > 1 ? s->pending_bytes : 0; /* a single one has to be taken, however large */
    bool pause = s->paused ? pending > PENDING_LOW || bytes > PENDING_BYTES_LOW || s->queue.bytes > max / 2
                           : pending > PENDING_HIGH || bytes > PENDING_BYTES_HIGH || s->queue.bytes > max;

    if (pause == s->paused)
        return;
    s->paused = pause;
    mqsync_socket_pause(s->socket, pause);
}

void mqsync_session_send(struct mqsync_session *s, struct mqsync_frame *f)
{
    bool first = s->queue.n == 0;

    if (!f || !mqsync_queue_push(&s->queue, f)) {
        mqsync_session_end(s, MQSYNC_CLOSE_FAILURE, "out of memory");
        return;
    }
    if (s->queue.bytes > s->bridge->config->bridge.send_queue_bytes) {
        relieve(s);
        mqsync_session_reconsider(s);
    }
    if (first)
        mqsync_socket_wake(s->socket);
}

void mqsync_session_send_text(struct mqsync_session *s, struct mqsync_slice text)
{
    mqsync_session_send(s, text.n ? mqsync_frame_alloc(text) : NULL);
}

void mqsync_session_send_read(struct mqsync_session *s, struct mqsync_slice text)
{
    struct mqsync_frame *f = text.n ? mqsync_frame_alloc(text) : NULL;

    if (f)
        f->read = true;
    mqsync_session_send(s, f);
}

void mqsync_session_pass_on(struct mqsync_session *s, struct mqsync_slice answer)
{
    enum mqsync_code code = mqsync_error_read(answer);

    if (code != MQSYNC_OK)
        s->bridge->metrics.errors[code]++;
    mqsync_session_send_text(s, answer);
}

void mqsync_session_send_error(struct mqsync_session *s, const struct mqsync_error *e, struct mqsync_slice collection,
                               struct mqsync_slice record_id, struct mqsync_slice mutation_id)
{
    struct mqsync_buf *out = &s->bridge->answer;

    s->bridge->metrics.errors[e->code]++;
    mqsync_buf_clear(out);
    mqsync_error_encode(out, e, collection, record_id, mutation_id, false, 0);
    mqsync_session_send_text(s, mqsync_buf_slice(out));
}

static void send_plain(struct mqsync_session *s, const char *type, struct mqsync_slice collection)
{
    struct mqsync_buf *out = &s->bridge->answer;

    mqsync_buf_clear(out);
    mqsync_plain_encode(out, type, collection);
    mqsync_session_send_text(s, mqsync_buf_slice(out));
}

struct mqsync_frame *mqsync_session_next(struct mqsync_session *s, uint16_t *ret_close, const char **ret_reason)
{
    struct mqsync_frame *f = mqsync_queue_pop(&s->queue);

    *ret_close = 0;
    if (f) {
        s->bridge->metrics.deliveries++;
        s->bridge->metrics.delivered_bytes += f->n;
    } else if (s->closing_ms) {
        *ret_close = s->close_code;
        *ret_reason = s->close_reason;
    }
    if (s->starving && s->queue.bytes <= MQSYNC_QUEUE_LOW) {
        s->starving = false;
        for (struct mqsync_feed *feed = s->feeds; feed; feed = feed->next)
            mqsync_feed_hunger(s->bridge, feed);
    }
    if (s->paused)
        mqsync_session_reconsider(s);
    return f;
}

/* --- who it is ---------------------------------------------------------------------------------------------------- */

static struct mqsync_identity identity(const struct mqsync_session *s)
{
    return (struct mqsync_identity){mqsync_slice_str(s->claims.user), s->claims.roles, s->claims.roles_n};
}

/* May it read, or write, anything of the collection? What it may write to its own records the plugin decides, who has
 * the record. */
static enum mqsync_code allow(const struct mqsync_session *s, struct mqsync_slice collection, bool write,
                              uint64_t *ret_rule, struct mqsync_error *ret_error)
{
    const struct mqsync_collection_config *c = mqsync_config_collection(s->bridge->config, collection);
    struct mqsync_identity who = identity(s);
    enum mqsync_right right;

    if (!s->authenticated)
        return mqsync_fail(ret_error, MQSYNC_UNAUTHORIZED, "authenticate first: auth with a token");
    if (!c)
        return mqsync_fail(ret_error, MQSYNC_COLLECTION_NOT_FOUND, "there is no collection of that name");
    right = mqsync_access(c, write, &who);
    if (right == MQSYNC_RIGHT_NONE)
        return mqsync_fail(ret_error, MQSYNC_UNAUTHORIZED, "this user may not %s this collection",
                           write ? "write to" : "read");
    *ret_rule = mqsync_owner_rule(c, right);
    return MQSYNC_OK;
}

static void fail_auth(struct mqsync_session *s, const struct mqsync_error *e)
{
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3021", "refused %s (user '%s'): %s", s->address,
               s->claims.user ? s->claims.user : "", e->text);
    mqsync_session_send_error(s, e, nothing, nothing, nothing);
    mqsync_session_end(s, MQSYNC_CLOSE_POLICY, "AUTH_FAILED");
}

static enum mqsync_code enter(struct mqsync_session *s, struct mqsync_slice name, struct mqsync_error *ret_error)
{
    struct mqsync_bridge *b = s->bridge;
    unsigned max = b->config->limits.connections_per_user;
    bool full;

    s->user = mqsync_user_enter(&b->users, name, mqsync_slice_str(s->address), max, &full);
    if (s->user)
        return MQSYNC_OK;
    if (!full)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3022", "refused %s (user '%.*s'): there are %u connections already", s->address,
               (int)name.n, name.p ? name.p : "", max);
    return mqsync_fail(ret_error, MQSYNC_RATE_LIMIT_EXCEEDED, "this user has %u connections already", max);
}

static void subscribe(struct mqsync_session *s, const struct mqsync_message *m, bool by_path);

static void subscribe_path(struct mqsync_session *s)
{
    char *list = s->path, *rest = list, *name;

    s->path = NULL;
    while (list && (name = strsep(&rest, ","))) {
        struct mqsync_message m = {.type = MQSYNC_TYPE_SUBSCRIBE, .collection = mqsync_slice_str(name)};
        subscribe(s, &m, true);
    }
    free(list);
}

/* False: refused, and on the way out. */
static bool become(struct mqsync_session *s, struct mqsync_claims *claims)
{
    struct mqsync_error e;

    if (s->authenticated && !mqsync_slice_equal(mqsync_slice_str(s->claims.user), mqsync_slice_str(claims->user))) {
        mqsync_fail(&e, MQSYNC_AUTH_FAILED, "the token is another user's than this connection's");
        mqsync_claims_free(claims);
        fail_auth(s, &e);
        return false;
    }
    if (!s->user && enter(s, mqsync_slice_str(claims->user), &e) != MQSYNC_OK) {
        mqsync_claims_free(claims);
        mqsync_session_send_error(s, &e, nothing, nothing, nothing);
        mqsync_session_end(s, MQSYNC_CLOSE_POLICY, "too many connections");
        return false;
    }
    mqsync_claims_free(&s->claims);
    s->claims = *claims;
    s->authenticated = true;
    return true;
}

static bool authenticate(struct mqsync_session *s, struct mqsync_slice token)
{
    struct mqsync_claims claims;
    struct mqsync_error e;

    if (mqsync_token_verify(s->bridge->verifier, token, mqsync_time_now(), &claims, &e) == MQSYNC_OK)
        return become(s, &claims);
    fail_auth(s, &e);
    return false;
}

/* --- messages ----------------------------------------------------------------------------------------------------- */

static void send_error_about(struct mqsync_session *s, const struct mqsync_error *e, const struct mqsync_message *m)
{
    mqsync_session_send_error(s, e, m->collection, m->record_id, m->mutation_id);
}

static void add_feed(struct mqsync_session *s, const struct mqsync_message *m, uint64_t rule, bool tombstones)
{
    struct mqsync_feed *f;
    struct mqsync_error e;

    if (mqsync_feed_open(s->bridge, s, m, rule, tombstones, &f) != MQSYNC_OK) {
        mqsync_fail(&e, MQSYNC_SERVER_ERROR, "out of memory");
        send_error_about(s, &e, m);
        return;
    }
    f->next = s->feeds;
    s->feeds = f;
    s->syncs_n += !f->subscription;
    s->subscriptions_n += f->subscription;
}

void mqsync_session_drop_feed(struct mqsync_session *s, struct mqsync_feed *f)
{
    struct mqsync_feed **at = &s->feeds;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    s->syncs_n -= !f->subscription;
    s->subscriptions_n -= f->subscription;
    mqsync_feed_close(s->bridge, f);
}

static struct mqsync_feed *subscription_to(const struct mqsync_session *s, struct mqsync_slice collection)
{
    for (struct mqsync_feed *f = s->feeds; f; f = f->next)
        if (f->subscription && mqsync_slice_equal(mqsync_slice_str(f->channel->name), collection))
            return f;
    return NULL;
}

/* One who has come by /ws/{collections} gets what an app needs, also where it subscribes by a message that does not ask
 * for anything else; when it subscribes again it is told that it has, and gets no second snapshot. Any other
 * `subscribe` begins anew. */
static void subscribe(struct mqsync_session *s, const struct mqsync_message *m, bool by_path)
{
    struct mqsync_feed *have = subscription_to(s, m->collection);
    bool as_app = s->came_by_path && !m->has_since && !m->no_sync && !m->delta_updates;
    struct mqsync_message as_asked = *m;
    struct mqsync_error e;
    uint64_t rule;

    if (allow(s, m->collection, false, &rule, &e) != MQSYNC_OK) {
        send_error_about(s, &e, m);
        return;
    }
    if (have && have->tombstones) {
        if (!by_path)
            mqsync_feed_confirm(s->bridge, have);
        return;
    }
    if (have)
        mqsync_session_drop_feed(s, have);
    if (s->subscriptions_n >= SUBSCRIPTIONS_MAX) {
        mqsync_fail(&e, MQSYNC_RATE_LIMIT_EXCEEDED, "a connection has at most %d subscriptions", SUBSCRIPTIONS_MAX);
        send_error_about(s, &e, m);
        return;
    }
    as_asked.full_updates |= as_app;
    add_feed(s, &as_asked, rule, as_app);
}

static void unsubscribe(struct mqsync_session *s, const struct mqsync_message *m)
{
    struct mqsync_feed *have = subscription_to(s, m->collection);
    struct mqsync_error e;
    uint64_t rule;

    if (!have && allow(s, m->collection, false, &rule, &e) != MQSYNC_OK) {
        send_error_about(s, &e, m);
        return;
    }
    if (have)
        mqsync_session_drop_feed(s, have);
    send_plain(s, "unsubscribed", m->collection);
}

static void sync_once(struct mqsync_session *s, const struct mqsync_message *m)
{
    struct mqsync_error e;
    uint64_t rule;
    enum mqsync_code code = allow(s, m->collection, false, &rule, &e);

    if (code == MQSYNC_OK && s->syncs_n >= SYNCS_MAX)
        code = mqsync_fail(&e, MQSYNC_RATE_LIMIT_EXCEEDED, "%d answers to sync are on their way already", SYNCS_MAX);
    if (code != MQSYNC_OK)
        send_error_about(s, &e, m);
    else
        add_feed(s, m, rule, false);
}

static enum mqsync_code forward(struct mqsync_session *s, const struct mqsync_message *m, struct mqsync_slice text,
                                struct mqsync_error *ret_error)
{
    struct mqsync_bridge *b = s->bridge;
    struct mqsync_upstream_command c = {.collection = m->collection, .payload = text};
    enum mqsync_code code;

    if (!mqsync_upstream_is_up(b->upstream))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the broker is not there; nothing was changed");
    if (mqsync_commands_stalled(b))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the broker does not answer; nothing was changed");
    mqsync_command_for(b, &s->claims, &c);
    code = mqsync_command_send(b, s->handle, &c, ret_error);
    if (code != MQSYNC_OK)
        return code;
    s->pending++;
    s->pending_bytes += text.n;
    mqsync_session_reconsider(s);
    return MQSYNC_OK;
}

void mqsync_session_command_done(struct mqsync_session *s, size_t bytes)
{
    s->pending--;
    s->pending_bytes -= bytes;
    if (s->paused)
        mqsync_session_reconsider(s);
}

static void write_record(struct mqsync_session *s, const struct mqsync_message *m, struct mqsync_slice text)
{
    struct mqsync_error e;
    uint64_t rule;

    if (allow(s, m->collection, true, &rule, &e) != MQSYNC_OK || forward(s, m, text, &e) != MQSYNC_OK)
        send_error_about(s, &e, m);
}

static void take_auth(struct mqsync_session *s, const struct mqsync_message *m)
{
    if (s->bridge->verifier && !authenticate(s, m->token))
        return;
    send_plain(s, "authenticated", nothing);
    mqsync_session_recheck(s);
    subscribe_path(s);
}

static void dispatch(struct mqsync_session *s, const struct mqsync_message *m, struct mqsync_slice text)
{
    switch (m->type) {
    case MQSYNC_TYPE_AUTH:
        take_auth(s, m);
        break;
    case MQSYNC_TYPE_SUBSCRIBE:
        subscribe(s, m, false);
        break;
    case MQSYNC_TYPE_UNSUBSCRIBE:
        unsubscribe(s, m);
        break;
    case MQSYNC_TYPE_SYNC:
        sync_once(s, m);
        break;
    case MQSYNC_TYPE_PING:
        send_plain(s, "pong", nothing);
        break;
    default:
        write_record(s, m, text);
        break;
    }
}

void mqsync_session_receive(struct mqsync_session *s, struct mqsync_slice text)
{
    struct mqsync_bridge *b = s->bridge;
    struct mqsync_message m;
    struct mqsync_error e;
    unsigned max = b->config->limits.messages_per_minute;

    if (s->closing_ms)
        return;
    enum mqsync_code code = mqsync_message_decode(text, nothing, &b->message, &m, &e);
    b->metrics.invalid_messages += code != MQSYNC_OK;
    b->metrics.messages[m.type] += code == MQSYNC_OK;
    if (s->user && !mqsync_user_may_send(s->user, max, mqsync_time_now())) {
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3023", "%s (user '%s') has sent more than %u messages in a minute",
                   s->address, s->claims.user ? s->claims.user : "", max);
        mqsync_fail(&e, MQSYNC_RATE_LIMIT_EXCEEDED, "more than %u messages in a minute", max);
        send_error_about(s, &e, &m);
        return;
    }
    if (code != MQSYNC_OK)
        send_error_about(s, &e, &m);
    else
        dispatch(s, &m, text);
}

void mqsync_session_receive_too_long(struct mqsync_session *s, size_t max)
{
    struct mqsync_error e;

    if (s->closing_ms)
        return;
    s->bridge->metrics.invalid_messages++;
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3024", "%s (user '%s') has sent a message of more than %zu bytes", s->address,
               s->claims.user ? s->claims.user : "", max);
    mqsync_fail(&e, MQSYNC_INVALID_MESSAGE, "a message has at most %zu bytes", max);
    mqsync_session_send_error(s, &e, nothing, nothing, nothing);
    s->too_long_ms = mqsync_monotonic_us() / 1000;
}

void mqsync_session_too_long_over(struct mqsync_session *s)
{
    mqsync_session_end(s, MQSYNC_CLOSE_TOO_BIG, "message too big");
}

void mqsync_session_receive_binary(struct mqsync_session *s)
{
    struct mqsync_error e;

    if (s->closing_ms)
        return;
    s->bridge->metrics.invalid_messages++;
    mqsync_fail(&e, MQSYNC_INVALID_MESSAGE, "expected a text message, got a binary one");
    mqsync_session_send_error(s, &e, nothing, nothing, nothing);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct mqsync_session *mqsync_session_open(struct mqsync_bridge *b, struct mqsync_socket *socket, const char *address,
                                           const char *path, struct mqsync_slice token)
{
    struct mqsync_session *s = calloc(1, sizeof(*s));
    struct mqsync_claims nobody = {.expires_ms = INT64_MAX};

    if (!s || !take_handle(b, s)) {
        free(s);
        return NULL;
    }
    s->bridge = b;
    s->socket = socket;
    s->opened_ms = s->heard_ms = mqsync_monotonic_us() / 1000;
    strncpy(s->address, address, sizeof(s->address) - 1);
    s->next = b->sessions;
    if (s->next)
        s->next->previous = s;
    b->sessions = s;
    b->metrics.connections++;
    b->metrics.connections_total++;
    s->path = path ? strdup(path) : NULL;
    s->came_by_path = path;
    if (!b->verifier ? become(s, &nobody) : token.n && authenticate(s, token))
        subscribe_path(s);
    return s;
}

void mqsync_session_close(struct mqsync_session *s)
{
    struct mqsync_bridge *b = s->bridge;

    while (s->feeds)
        mqsync_session_drop_feed(s, s->feeds);
    mqsync_queue_free(&s->queue);
    mqsync_user_leave(s->user);
    mqsync_claims_free(&s->claims);
    free(s->path);
    if (s->previous)
        s->previous->next = s->next;
    else
        b->sessions = s->next;
    if (s->next)
        s->next->previous = s->previous;
    give_handle_back(b, s);
    b->metrics.connections--;
    free(s);
}

void mqsync_session_recheck(struct mqsync_session *s)
{
    struct mqsync_error e;

    for (struct mqsync_feed *f = s->feeds, *next; f; f = next) {
        struct mqsync_slice collection = mqsync_slice_str(f->channel->name);
        uint64_t rule;
        next = f->next;
        if (allow(s, collection, false, &rule, &e) == MQSYNC_OK) {
            if (rule != f->rule)
                mqsync_feed_begin_anew(s->bridge, f, rule);
            continue;
        }
        mqsync_session_send_error(s, &e, collection, nothing, nothing);
        mqsync_session_drop_feed(s, f);
    }
}

static void tick(struct mqsync_session *s, int64_t now_ms, int64_t time_ms)
{
    int64_t idle_ms = (int64_t)s->bridge->config->bridge.idle_timeout_seconds * 1000;
    struct mqsync_error e;

    if (s->closing_ms) {
        if (now_ms - s->closing_ms > LINGER_MS)
            mqsync_socket_kill(s->socket);
    } else if (s->too_long_ms && now_ms - s->too_long_ms > TOO_LONG_MS) {
        mqsync_session_too_long_over(s);
    } else if (!s->authenticated && now_ms - s->opened_ms > UNAUTHENTICATED_MS) {
        mqsync_fail(&e, MQSYNC_AUTH_FAILED, "no auth came within %d s", UNAUTHENTICATED_MS / 1000);
        fail_auth(s, &e);
    } else if (s->claims.expires_ms <= time_ms && s->authenticated) {
        mqsync_fail(&e, MQSYNC_AUTH_FAILED, "the token has expired");
        fail_auth(s, &e);
    } else if (idle_ms && now_ms - s->heard_ms > idle_ms && mqsync_socket_silent_ms(s->socket) > idle_ms) {
        mqsync_log(MQSYNC_LOG_INFO, "MQS3026", "%s (user '%s') has sent nothing for %d s: closed", s->address,
                   s->claims.user ? s->claims.user : "", (int)(idle_ms / 1000));
        mqsync_session_end(s, MQSYNC_CLOSE_NORMAL, "nothing heard for too long");
    }
}

void mqsync_sessions_tick(struct mqsync_bridge *b, int64_t now_ms)
{
    int64_t time_ms = mqsync_time_now();

    for (struct mqsync_session *s = b->sessions, *next; s; s = next) {
        next = s->next;
        tick(s, now_ms, time_ms);
    }
}

void mqsync_sessions_end(struct mqsync_bridge *b)
{
    for (struct mqsync_session *s = b->sessions; s; s = s->next)
        mqsync_session_end(s, MQSYNC_CLOSE_GOING_AWAY, "the server is stopping");
}
