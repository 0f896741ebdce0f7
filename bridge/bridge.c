/* SPDX-License-Identifier: BSD-3-Clause */
/* What happens upstream, and what happens by itself. */
#include "bridge.h"

#include "feed_ask.h"
#include "server.h"
#include "session.h"
#include "will.h"

enum { REFUSED_US = 2000000, CHECK_EVERY_MS = 2000, SESSIONS_EVERY_MS = 500, EPOCH_WAIT_MS = 3000 };

#define EPOCH_QUESTION UINT64_MAX

/* --- called by the upstream connection ---------------------------------------------------------------------------- */

static void forget_questions(struct mqsync_bridge *b)
{
    for (struct mqsync_session *s = b->sessions; s; s = s->next)
        for (struct mqsync_feed *f = s->feeds; f; f = f->next)
            mqsync_feed_forget_question(b, f);
}

static void feed_all(struct mqsync_bridge *b)
{
    b->checking_until_ms = 0;
    mqsync_channels_catch_up(b);
    for (struct mqsync_session *s = b->sessions; s; s = s->next)
        for (struct mqsync_feed *f = s->feeds; f; f = f->next)
            mqsync_feed_hunger(b, f);
    if (b->feeds.hungry.first || b->rests.hungry.first)
        mqsync_server_pump_in(b->server, 0);
}

/* A name that the broker knows, or may know. */
static struct mqsync_slice any_collection(const struct mqsync_config *config)
{
    for (size_t i = 0; i < config->collections_n; i++)
        if (strcmp(config->collections[i].name, "*") != 0)
            return mqsync_slice_str(config->collections[i].name);
    return MQSYNC_SLICE("_");
}

/* The directory may hold another broker's database, or this one's of last year: only the epoch tells. */
static bool ask_epoch(struct mqsync_bridge *b)
{
    struct mqsync_upstream_command c = {
        .collection = any_collection(b->config),
        .payload = MQSYNC_SLICE("{\"type\":\"subscribe\",\"metadata\":{\"sync\":false}}"),
        .tag = {.question = EPOCH_QUESTION},
    };
    uint16_t mid;

    return mqsync_upstream_command(b->upstream, &c, &mid) == MQSYNC_OK;
}

static void take_epoch(struct mqsync_bridge *b, struct mqsync_slice payload)
{
    struct mqsync_slice metadata, epoch;
    struct mqsync_view *view;
    int64_t wait;

    /* late ones count too: a busy broker is no reason to do without the database until the next connection */
    if (b->database.dir || !b->directory)
        return;
    b->database.dir = b->directory;
    view = mqsync_database_view(&b->database, mqsync_monotonic_us(), false, &wait);
    if (!view || mqsync_json_check(payload, NULL, NULL) != MQSYNC_OK ||
        !mqsync_json_member(payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &metadata) ||
        !mqsync_json_member(metadata, MQSYNC_SLICE("epoch"), MQSYNC_JSON_STRING, &epoch) ||
        !mqsync_slice_equal(mqsync_json_inside(epoch), mqsync_slice_str(mqsync_view_epoch(view)))) {
        if (view)
            mqsync_log(MQSYNC_LOG_WARNING, "MQS3017",
                       "the database in %s is not this broker's: asking the broker instead", b->directory);
        mqsync_database_reopen(&b->database);
        b->database.dir = NULL;
    }
    feed_all(b);
}

static void up(void *context)
{
    struct mqsync_bridge *b = context;

    b->acknowledged_us = mqsync_monotonic_us();
    for (struct mqsync_session *s = b->sessions; s; s = s->next)
        mqsync_session_reconsider(s);
    mqsync_database_reopen(&b->database);
    b->database.dir = NULL;
    if (b->directory && ask_epoch(b))
        b->checking_until_ms = mqsync_monotonic_us() / 1000 + EPOCH_WAIT_MS;
    else
        feed_all(b);
}

static void down(void *context)
{
    struct mqsync_bridge *b = context;

    b->metrics.upstream_losses++;
    forget_questions(b);
    mqsync_rests_down(b);
    for (struct mqsync_session *s = b->sessions; s; s = s->next)
        mqsync_session_reconsider(s);
}

static void event(void *context, const struct mqsync_upstream_event *e)
{
    mqsync_channels_event(context, e);
}

static void followed(void *context, struct mqsync_slice collection, bool follows)
{
    mqsync_channels_followed(context, collection, follows);
}

static void will(void *context, const struct mqsync_upstream_will *w)
{
    mqsync_will_carry_out(context, w);
}

static struct mqsync_feed *feed_of_question(const struct mqsync_session *s, uint64_t question)
{
    for (struct mqsync_feed *f = s->feeds; f; f = f->next)
        if (f->asked && f->question == question)
            return f;
    return NULL;
}

static void answer(void *context, const struct mqsync_upstream_tag *tag, struct mqsync_slice payload)
{
    struct mqsync_bridge *b = context;

    if (tag->question == EPOCH_QUESTION) {
        take_epoch(b, payload);
        return;
    }
    struct mqsync_session *s = mqsync_session_find(b, tag->sender);
    struct mqsync_pending_command *c = mqsync_pending_by_mark(&b->pending, tag->mark);
    if (tag->sender == MQSYNC_WILL_SENDER)
        mqsync_will_answered(payload);
    if (c && mqsync_slice_starts_with(payload, "{\"type\":\"error\"") && c->refused)
        mqsync_pending_remove(&b->pending, c);
    struct mqsync_rest *r = mqsync_rest_find(b, tag->sender);
    if (r)
        mqsync_rest_answered(r, tag->question, payload);
    if (!s)
        return;
    if (tag->question != 0) {
        struct mqsync_feed *f = feed_of_question(s, tag->question);
        if (f)
            mqsync_feed_answer(b, f, payload);
        return;
    }
    b->metrics.conflicts += mqsync_slice_starts_with(payload, "{\"type\":\"update\"") ||
                            mqsync_slice_starts_with(payload, "{\"type\":\"delete\"");
    mqsync_session_pass_on(s, payload);
}

static void release(struct mqsync_bridge *b, const struct mqsync_pending_command *c)
{
    struct mqsync_session *s = mqsync_session_find(b, c->session);
    struct mqsync_rest *r = mqsync_rest_find(b, c->session);

    if (s)
        mqsync_session_command_done(s, c->bytes);
    if (r)
        mqsync_rest_acknowledged(r);
}

static void acknowledged(void *context, uint16_t mid, bool refused)
{
    struct mqsync_bridge *b = context;
    struct mqsync_pending_command *c = mqsync_pending_by_mid(&b->pending, mid);

    b->acknowledged_us = mqsync_monotonic_us();
    if (!c || c->refused)
        return;
    release(b, c);
    b->metrics.wills += c->session == MQSYNC_WILL_SENDER && !refused;
    if (refused)
        mqsync_pending_refused(&b->pending, c);
    else
        mqsync_pending_remove(&b->pending, c);
}

static void watch(void *context, int fd, bool write)
{
    struct mqsync_bridge *b = context;

    if (b->server)
        mqsync_server_watch_upstream(b->server, fd, write);
}

static void busy(void *context)
{
    struct mqsync_bridge *b = context;

    mqsync_server_turn_over(b->server);
}

void mqsync_bridge_handler(struct mqsync_bridge *b, struct mqsync_upstream_handler *ret)
{
    *ret = (struct mqsync_upstream_handler){b, up, down, event, followed, will, answer, acknowledged, watch, busy};
}

/* --- by the clock ------------------------------------------------------------------------------------------------- */

/* The plugin answers what it refuses; what nobody answers, the broker's own access rules have refused. */
static void answer_refused(struct mqsync_bridge *b)
{
    static const struct mqsync_slice nothing;
    struct mqsync_pending_command *c;
    struct mqsync_error e;

    while ((c = mqsync_pending_unanswered(&b->pending, mqsync_monotonic_us() - REFUSED_US))) {
        struct mqsync_session *s = mqsync_session_find(b, c->session);
        struct mqsync_rest *r = mqsync_rest_find(b, c->session);
        mqsync_log(
            MQSYNC_LOG_ERROR, "MQS3015",
            "the broker has refused a command without an answer: its ACLs must let the bridge write to {root}/+/cmd/#");
        mqsync_fail(&e, MQSYNC_SERVER_ERROR, "the broker does not let the bridge write");
        if (s)
            mqsync_session_send_error(s, &e, nothing, nothing, nothing);
        if (r)
            mqsync_rest_fail(r, &e);
        mqsync_pending_remove(&b->pending, c);
    }
}

void mqsync_bridge_tick(struct mqsync_bridge *b)
{
    int64_t now_us = mqsync_monotonic_us(), now_ms = now_us / 1000;

    mqsync_upstream_tick(b->upstream, now_ms);
    if (b->checking_until_ms && now_ms > b->checking_until_ms)
        feed_all(b);
    answer_refused(b);
    mqsync_rests_tick(b, now_ms);
    mqsync_database_rest(&b->database, now_us);
    if (now_ms >= b->sessions_due_ms) {
        b->sessions_due_ms = now_ms + SESSIONS_EVERY_MS;
        mqsync_sessions_tick(b, now_ms);
    }
    if (now_ms >= b->check_due_ms) {
        b->check_due_ms = now_ms + CHECK_EVERY_MS;
        mqsync_channels_check(b);
        mqsync_users_sweep(&b->users, mqsync_time_now());
        mqsync_feeds_check(b, now_us);
    }
}

/* --- the configuration -------------------------------------------------------------------------------------------- */

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

enum mqsync_code mqsync_bridge_configure(struct mqsync_bridge *b, struct mqsync_config *config,
                                         struct mqsync_error *ret_error)
{
    struct mqsync_token_verifier *verifier = NULL;

    if (config->auth.present) {
        enum mqsync_code code = mqsync_token_verifier_open(config, &verifier, ret_error);
        if (code != MQSYNC_OK)
            return code;
    }
    mqsync_token_verifier_close(b->verifier);
    b->verifier = verifier;
    b->config = config;
    b->trusted = mqsync_config_trusted(config, config->bridge.username);
    if (config->auth.present && !b->trusted)
        mqsync_log(
            MQSYNC_LOG_WARNING, "MQS3045",
            "bridge.username is not listed in trustedUsers: the plugin refuses all writes of clients with a token");
    return MQSYNC_OK;
}

/* What stays as it is until a restart. */
static void warn_of_changes(const struct mqsync_config *a, const struct mqsync_config *b)
{
    const struct {
        const char *key;
        bool same;
    } keys[] = {
        {"root", same(a->root, b->root)},
        {"database", same(a->database, b->database)},
        {"bridge.listen", same(a->bridge.listen, b->bridge.listen)},
        {"bridge.broker", same(a->bridge.broker, b->bridge.broker)},
        {"bridge.username", same(a->bridge.username, b->bridge.username)},
        {"bridge.passwordFile", same(a->bridge.password_file, b->bridge.password_file)},
        {"bridge.tls", !a->bridge.tls_cert_file == !b->bridge.tls_cert_file},
        {"bridge.maxConnections", a->bridge.max_connections == b->bridge.max_connections},
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
        if (!keys[i].same)
            mqsync_log(MQSYNC_LOG_WARNING, "MQS3005", "%s has changed: that takes effect with a restart", keys[i].key);
}

void mqsync_bridge_reload(struct mqsync_bridge *b)
{
    struct mqsync_config *before = b->config, *config;
    struct mqsync_error e;

    if (mqsync_config_load(b->config_path, &config, &e) != MQSYNC_OK) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS3004", "keeping the configuration as it was: %s", e.text);
        return;
    }
    if (config->auth.present != before->auth.present || mqsync_bridge_configure(b, config, &e) != MQSYNC_OK) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS3004", "keeping the configuration as it was: %s",
                   config->auth.present != before->auth.present ? "turning auth.jwt on or off takes a restart"
                                                                : e.text);
        mqsync_config_free(config);
        return;
    }
    warn_of_changes(before, config);
    mqsync_config_free(before);
    for (struct mqsync_session *s = b->sessions; s; s = s->next)
        mqsync_session_recheck(s);
    mqsync_log(MQSYNC_LOG_INFO, "MQS3003", "configuration read again from %s", b->config_path);
}
