/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline.h"

#include <stdlib.h>

#include "answer.h"
#include "followers.h"
#include "log.h"
#include "owner.h"
#include "retain.h"
#include "stream.h"

/* What a documented message may have around its data. */
enum { ENVELOPE_MAX = 65536 };

static const struct mqsync_operation operations[] = {MQSYNC_OPERATIONS};

/* A double firing is known by this mark: the broker zeroes the field for each message, and no client reaches it. */
static char passed;

/* --- decode ------------------------------------------------------------------------------------------------------- */

static enum mqsync_code check_size(struct mqsync_request *r, struct mqsync_slice payload, size_t max)
{
    if (payload.n <= max)
        return MQSYNC_OK;
    return mqsync_fail(&r->error, MQSYNC_INVALID_MESSAGE, "the message has %zu bytes; at most %zu are taken", payload.n,
                       max);
}

static enum mqsync_code decode_short(struct mqsync_plugin *p, struct mqsync_request *r, struct mqsync_slice payload)
{
    static const enum mqsync_type types[] = {
        [MQSYNC_INSERT] = MQSYNC_TYPE_INSERT,
        [MQSYNC_UPDATE] = MQSYNC_TYPE_UPDATE,
        [MQSYNC_DELETE] = MQSYNC_TYPE_DELETE,
    };
    struct mqsync_message *m = &r->message;
    enum mqsync_code code;

    m->type = types[r->topic.op];
    m->collection = r->topic.collection;
    m->record_id = r->topic.record_id;
    code = mqsync_properties_apply(&r->properties, m, &r->error);
    if (code == MQSYNC_OK)
        code = check_size(r, payload, p->config->limits.max_record_bytes);
    if (code != MQSYNC_OK || r->topic.op == MQSYNC_DELETE)
        return code;
    return mqsync_data_decode(payload, &p->scratch.message, &m->data, &r->error);
}

static enum mqsync_code out_of_memory(struct mqsync_request *r)
{
    return mqsync_fail(&r->error, MQSYNC_SERVER_ERROR, "out of memory");
}

static enum mqsync_code decode(struct mqsync_plugin *p, struct mqsync_request *r)
{
    struct mqsync_slice payload = {r->event->payload, r->event->payloadlen};

    /* without a userId that was given the write would be somebody else's, without an ifVersion it would be no question
     */
    if (r->event->properties && !mqsync_properties_read(r->event->properties, &r->properties))
        return out_of_memory(r);
    switch (r->topic.kind) {
    case MQSYNC_TOPIC_CMD:
        break;
    case MQSYNC_TOPIC_CMD_SHORT:
        return decode_short(p, r, payload);
    case MQSYNC_TOPIC_BAD_CMD:
        return mqsync_fail(&r->error, MQSYNC_INVALID_MESSAGE, "%s", r->topic.wrong);
    case MQSYNC_TOPIC_SERVER:
        return mqsync_fail(&r->error, MQSYNC_UNAUTHORIZED, "evt, rec and re are published by the server alone");
    default:
        return mqsync_fail(&r->error, MQSYNC_INVALID_MESSAGE,
                           "topic: expected %s{collection}/cmd or %s{collection}/cmd/{recordId}/{insert|update|delete}",
                           p->prefix, p->prefix);
    }
    if (check_size(r, payload, p->config->limits.max_record_bytes + ENVELOPE_MAX) != MQSYNC_OK)
        return r->error.code;
    return mqsync_message_decode(payload, r->topic.collection, &p->scratch.message, &r->message, &r->error);
}

/* --- authorize ---------------------------------------------------------------------------------------------------- */

/* Whose rights count: those of the user that a trusted one acts for; and of every other client, if the rules hold for
 * MQTT clients. */
static enum mqsync_code identify(struct mqsync_plugin *p, struct mqsync_request *r, bool trusted)
{
    if (r->properties.user_id) {
        if (!trusted)
            return mqsync_fail(&r->error, MQSYNC_UNAUTHORIZED,
                               "user property userId: only for users listed in trustedUsers");
        r->user = mqsync_slice_str(r->properties.user_id);
        r->who = (struct mqsync_identity){r->user, r->properties.roles, r->properties.roles_n};
        r->bound = true;
    } else if (p->logins && !trusted) {
        if (!mqsync_logins_identify(p->logins, r->event->client, r->now_ms, &r->who))
            return mqsync_fail(&r->error, MQSYNC_AUTH_FAILED, "the token has expired");
        r->bound = true;
    }
    return MQSYNC_OK;
}

/* Of an owner-only user's write only the stored record can tell: see mqsync_owner_may_write(). */
static enum mqsync_code check_rules(struct mqsync_request *r)
{
    bool write = operations[r->message.type].access == MQSYNC_ACCESS_WRITE;

    if (r->message.type == MQSYNC_TYPE_UNSUBSCRIBE || mqsync_access(r->rules, write, &r->who) != MQSYNC_RIGHT_NONE)
        return MQSYNC_OK;
    return mqsync_fail(&r->error, MQSYNC_UNAUTHORIZED, "collection %.*s: no right to %s", (int)r->message.collection.n,
                       r->message.collection.p, write ? "write" : "read");
}

/* Whatever a client sends counts, what cannot be understood as well. */
static enum mqsync_code count(struct mqsync_plugin *p, struct mqsync_request *r, bool trusted)
{
    unsigned max = p->config->limits.messages_per_minute;

    if (trusted || mqsync_clients_may_send(&p->clients, r->client_id, max, r->now_ms))
        return MQSYNC_OK;
    return mqsync_fail(&r->error, MQSYNC_RATE_LIMIT_EXCEEDED, "more than %u messages in a minute", max);
}

/* The broker's ACLs have decided about the topic by now; here it is about the collection and about acting for others.
 * decoded: what became of that. */
static enum mqsync_code authorize(struct mqsync_plugin *p, struct mqsync_request *r, enum mqsync_code decoded)
{
    const char *name = mosquitto_client_username(r->event->client);
    bool trusted = p->config->trusted_users_n && mqsync_config_trusted(p->config, name);

    if (count(p, r, trusted) != MQSYNC_OK || decoded != MQSYNC_OK)
        return r->error.code;
    r->user = mqsync_slice_str(name);
    if ((r->properties.user_id || p->logins) && identify(p, r, trusted) != MQSYNC_OK)
        return r->error.code;
    if (operations[r->message.type].access == MQSYNC_ACCESS_NONE)
        return MQSYNC_OK;
    r->rules = mqsync_config_collection(p->config, r->message.collection);
    if (!r->rules)
        return mqsync_fail(&r->error, MQSYNC_COLLECTION_NOT_FOUND, "there is no collection of that name");
    return r->bound ? check_rules(r) : MQSYNC_OK;
}

/* --- what is no write --------------------------------------------------------------------------------------------- */

static bool answer_subscribed(struct mqsync_plugin *p, struct mqsync_request *r)
{
    struct mqsync_collection *c = mqsync_store_find(p->store, r->message.collection);
    struct mqsync_collection_stat stat = {0};

    if (c)
        mqsync_collection_stat(c, &stat);
    mqsync_buf_clear(&p->scratch.answer);
    mqsync_subscribed_encode(&p->scratch.answer, r->message.collection, stat.records, stat.seq,
                             mqsync_slice_str(mqsync_store_epoch(p->store)), r->follows);
    return mqsync_answer_send(p, r);
}

static enum mqsync_code answer_subscribe(struct mqsync_plugin *p, struct mqsync_request *r)
{
    enum mqsync_code code = MQSYNC_OK;

    r->follows = mqsync_followers_subscribe(p, r);
    if (!r->message.no_sync || mqsync_owner_reads_own(r))
        code = mqsync_stream_answer(p, r, &r->error);
    else if (!answer_subscribed(p, r))
        code = out_of_memory(r);
    if (code != MQSYNC_OK && r->follows)
        mqsync_followers_leave(p->followers, r->client_id, r->message.collection);
    return code;
}

static enum mqsync_code answer_query(struct mqsync_plugin *p, struct mqsync_request *r)
{
    struct mqsync_slice none = {0};

    switch (r->message.type) {
    case MQSYNC_TYPE_AUTH:
        if (p->logins && mqsync_logins_renew(p->logins, r->event->client, r->message.token, r->now_ms, &r->error))
            return r->error.code;
        return mqsync_answer_plain(p, r, "authenticated", none) ? MQSYNC_OK : out_of_memory(r);
    case MQSYNC_TYPE_PING:
        return mqsync_answer_plain(p, r, "pong", none) ? MQSYNC_OK : out_of_memory(r);
    case MQSYNC_TYPE_UNSUBSCRIBE:
        if (r->client_id) {
            mqsync_streams_cancel(p->streams, r->client_id, r->message.collection);
            mqsync_followers_leave(p->followers, r->client_id, r->message.collection);
        }
        return mqsync_answer_plain(p, r, "unsubscribed", r->message.collection) ? MQSYNC_OK : out_of_memory(r);
    case MQSYNC_TYPE_SUBSCRIBE:
        return answer_subscribe(p, r);
    default:
        return mqsync_stream_answer(p, r, &r->error);
    }
}

/* --- load, resolve ------------------------------------------------------------------------------------------------ */

/* A short form says in its topic what will be loaded. */
static void expect(struct mqsync_plugin *p, struct mqsync_request *r)
{
    if (r->topic.kind != MQSYNC_TOPIC_CMD_SHORT)
        return;
    r->collection = mqsync_store_find(p->store, r->topic.collection);
    if (r->collection)
        mqsync_store_expect(p->store, r->collection, r->topic.record_id);
}

static enum mqsync_code load(struct mqsync_plugin *p, struct mqsync_request *r)
{
    enum mqsync_code code;

    if (!r->collection)
        r->collection = mqsync_store_find(p->store, r->message.collection);
    if (!r->collection)
        return MQSYNC_OK;
    code = mqsync_store_get(p->store, r->collection, r->message.record_id, &p->scratch.stored, &r->floor, &r->error);
    if (code == MQSYNC_OK)
        r->stored = &p->scratch.stored;
    return code == MQSYNC_RECORD_NOT_FOUND ? MQSYNC_OK : code;
}

static void resolve(struct mqsync_plugin *p, struct mqsync_request *r)
{
    const struct mqsync_message *m = &r->message;
    struct mqsync_collection_stat stat = {0};
    struct mqsync_write write = {
        .op = m->type == MQSYNC_TYPE_INSERT   ? MQSYNC_INSERT
              : m->type == MQSYNC_TYPE_UPDATE ? MQSYNC_UPDATE
                                              : MQSYNC_DELETE,
        .data = m->data,
        .time = m->time,
        .arrived_ms = r->now_ms,
        .user = r->user,
        .mutation_id = m->mutation_id,
        .has_base_version = m->has_base_version,
        .has_if_version = m->has_if_version,
        .base_version = m->base_version,
        .if_version = m->if_version,
        .reconnected_ms = INT64_MAX,
    };
    if (r->event->qos > 0)
        write.reconnected_ms = mqsync_clients_last_disconnected(&p->clients, r->client_id, p->started_ms);
    if (r->collection)
        mqsync_collection_stat(r->collection, &stat);
    mqsync_resolve(&r->rules->rules, r->stored, r->floor, stat.seq + 1, &write, &p->scratch.resolved,
                   &p->scratch.outcome);
    if (r->rules->owner)
        mqsync_owner_resolve(p, r);
}

/* --- store -------------------------------------------------------------------------------------------------------- */

static enum mqsync_code store(struct mqsync_plugin *p, struct mqsync_request *r)
{
    enum mqsync_code code = MQSYNC_OK;

    if (!r->collection)
        code = mqsync_store_ensure(p->store, r->message.collection, p->config->limits.max_collections, &r->collection,
                                   &r->error);
    if (code == MQSYNC_OK)
        code = mqsync_store_put(p->store, r->collection, r->message.record_id, &p->scratch.outcome.next, &r->error);
    return code;
}

/* --- emit --------------------------------------------------------------------------------------------------------- */

/* What an accepted or repeated write sends, made before the store is changed: nothing can fail after it, and the
 * record's slices do not outlive it. */
struct emission {
    char *topic; /* NULL: the command's topic is long enough to be rewritten in place */
    char *payload;
    uint32_t payload_n;
    mosquitto_property *properties; /* instead of the command's */
    bool has_properties;
    bool winner;                             /* in scratch.answer */
    bool record;                             /* in scratch.record */
    const struct mqsync_follower *followers; /* who are sent scratch.followed, */
    mosquitto_property *followed;            /* with this, which says whose the record is */
};

static void emission_free(struct emission *e)
{
    mosquitto_free(e->topic);
    mosquitto_free(e->payload);
    mosquitto_property_free_all(&e->properties);
    mosquitto_property_free_all(&e->followed);
}

/* Of an accepted write. */
static bool compose_followed(struct mqsync_plugin *p, const struct mqsync_request *r, struct mqsync_event event,
                             struct emission *e)
{
    if (event.op == MQSYNC_UPDATE)
        event.data = p->scratch.outcome.next.data;
    mqsync_buf_clear(&p->scratch.followed);
    mqsync_event_encode(&p->scratch.followed, &event);
    return !p->scratch.followed.failed &&
           (!r->rules->owner || mqsync_properties_add_owners(&e->followed, r->owner_now, r->owner_before));
}

static enum mqsync_code compose_event(struct mqsync_plugin *p, const struct mqsync_request *r, struct emission *e)
{
    const struct mqsync_outcome *o = &p->scratch.outcome;
    struct mqsync_buf *out = &p->scratch.event;
    struct mqsync_event event = {
        .op = o->event,
        .collection = r->message.collection,
        .record_id = r->message.record_id,
        .data = o->event_data,
        .timestamp_ms = o->timestamp_ms,
        .version = o->version,
        .seq = o->seq,
        .user = r->user,
        .mutation_id = r->message.mutation_id,
    };

    mqsync_buf_clear(out);
    mqsync_event_encode(out, &event);
    if (out->failed || !(e->payload = mosquitto_malloc(out->n)))
        return MQSYNC_SERVER_ERROR;
    memcpy(e->payload, out->p, out->n);
    e->payload_n = (uint32_t)out->n;
    e->followers = o->kind == MQSYNC_ACCEPTED ? mqsync_followers_of(p->followers, event.collection) : NULL;
    return e->followers && !compose_followed(p, r, event, e) ? MQSYNC_SERVER_ERROR : MQSYNC_OK;
}

static enum mqsync_code compose_topic(struct mqsync_plugin *p, const struct mqsync_request *r, struct emission *e)
{
    struct mqsync_slice collection = r->topic.collection, id = r->message.record_id;
    char *at;

    if (r->topic.kind == MQSYNC_TOPIC_CMD_SHORT)
        return MQSYNC_OK;
    at = e->topic = mosquitto_malloc(p->prefix_n + collection.n + id.n + sizeof("/evt/"));
    if (!at)
        return MQSYNC_SERVER_ERROR;
    at = mempcpy(at, p->prefix, p->prefix_n);
    at = mempcpy(at, collection.p, collection.n);
    at = mempcpy(at, "/evt/", 5);
    at = mempcpy(at, id.p, id.n);
    *at = '\0';
    return MQSYNC_OK;
}

/* Where somebody relies on what they say, an event without them is worse than none. */
static enum mqsync_code compose_properties(const struct mqsync_request *r, struct emission *e)
{
    bool owners = r->rules->owner;

    if (!owners && !r->properties.any)
        return MQSYNC_OK;
    e->has_properties = mqsync_properties_keep(r->event->properties, owners, &e->properties);
    if (!owners)
        return MQSYNC_OK;
    return e->has_properties && mqsync_properties_add_owners(&e->properties, r->owner_now, r->owner_before)
               ? MQSYNC_OK
               : MQSYNC_SERVER_ERROR;
}

static enum mqsync_code compose(struct mqsync_plugin *p, struct mqsync_request *r, struct emission *e)
{
    const struct mqsync_outcome *o = &p->scratch.outcome;
    bool ok = compose_event(p, r, e) == MQSYNC_OK && compose_topic(p, r, e) == MQSYNC_OK &&
              compose_properties(r, e) == MQSYNC_OK;

    if (ok && o->kind == MQSYNC_ACCEPTED) {
        e->record = r->rules->retain;
        ok = !e->record || mqsync_retain_compose(p, r->message.record_id, &o->next);
        e->winner = o->send_winner && mqsync_owner_may_see(r, &o->next);
        ok = ok && (!e->winner || mqsync_answer_compose_winner(p, r, &o->next));
    }
    if (ok)
        return MQSYNC_OK;
    emission_free(e);
    return out_of_memory(r);
}

/* Turns the PUBLISH in flight into the event. In place .../cmd/{id}/{op} becomes .../evt/{id}, with the id where it
 * was. */
static void forward(struct mqsync_plugin *p, struct mqsync_request *r, struct emission *e)
{
    struct mosquitto_evt_message *event = r->event;

    if (e->topic) {
        mqsync_broker_replace_topic(&p->broker, event, e->topic);
    } else {
        char *id = event->topic + (r->topic.record_id.p - event->topic);
        memcpy(id - 4, "evt", 3);
        id[r->topic.record_id.n] = '\0';
    }
    event->payload = e->payload;
    event->payloadlen = e->payload_n;
    event->retain = false;
    if (event->qos == 2)
        mqsync_clients_hold(&p->clients, r->client_id);
    if (e->has_properties && !mqsync_broker_replace_properties(&p->broker, event, e->properties))
        mosquitto_property_free_all(&e->properties);
    if (p->instances > 1)
        event->future2[3] = &passed;
}

/* Only the rewritten PUBLISH honours No Local, which comes with a subscription of MQTT 5. */
static bool may_be_no_local(const struct mqsync_request *r)
{
    return mosquitto_client_protocol_version(r->event->client) >= 5 && mosquitto_client_sub_count(r->event->client) > 0;
}

/* Whether the broker holds a rewritten PUBLISH back until its PUBREL, and that can be helped. An event that comes late
 * comes after younger ones, and a subscriber that resumes from those would miss it; it never comes when the writer and
 * its session are lost meanwhile. The plugin can publish the event itself instead. */
static bool is_held_back(const struct mqsync_request *r)
{
    return r->event->qos == 2 && !may_be_no_local(r);
}

/* Whether the event cannot be the rewritten PUBLISH: also when its properties have to say whose the record is, and it
 * is not certain who frees those it came with. */
static bool must_queue(const struct mqsync_plugin *p, const struct mqsync_request *r)
{
    return is_held_back(r) || (r->rules->owner && !p->broker.certain);
}

/* Whether the record's last event may be in the broker's queue. */
static bool follows_queued(const struct mqsync_request *r, const struct mqsync_queued *q)
{
    return r->stored && r->stored->history_n && r->stored->history[r->stored->history_n - 1].arrived_ms >= q->since_ms;
}

/* What the plugin publishes waits in the broker's queue until its loop comes round. Until then all events of that
 * collection go the same way, so that none overtakes another; but those for which No Local may hold only if one of the
 * same record is there. A TICK, or where there is none a while, says that the loop has. */
static bool through_queue(struct mqsync_plugin *p, const struct mqsync_request *r)
{
    struct mqsync_queued *q = &p->queued[(uintptr_t)r->collection / sizeof(void *) % MQSYNC_QUEUED_SLOTS];
    bool must = must_queue(p, r);
    int64_t now = must || q->at_us ? mqsync_monotonic_us() : 0;

    if (q->at_us && (q->ticks != p->ticks || now - q->at_us > MQSYNC_QUEUED_US))
        q->at_us = 0;
    if (!must && (!q->at_us || (may_be_no_local(r) && !follows_queued(r, q))))
        return false;
    if (!q->at_us)
        q->since_ms = r->now_ms;
    q->ticks = p->ticks;
    q->at_us = now;
    return true;
}

/* Publishes the event and lets the command end. False: out of memory, e is as it was. */
static bool publish(struct mqsync_plugin *p, struct mqsync_request *r, struct emission *e)
{
    const char *topic =
        e->topic ? e->topic : mqsync_answer_record_topic(p, r->topic.collection, "evt", r->message.record_id);
    mosquitto_property *properties = e->properties;

    if (!e->has_properties && r->event->properties && mosquitto_property_copy_all(&properties, r->event->properties))
        return false;
    if (!topic ||
        mosquitto_broker_publish(NULL, topic, (int)e->payload_n, e->payload, r->event->qos, false, properties)) {
        if (!e->has_properties)
            mosquitto_property_free_all(&properties);
        return false;
    }
    mosquitto_free(e->topic);
    mqsync_answer_swallow(p, r->event);
    return true;
}

static void emit(struct mqsync_plugin *p, struct mqsync_request *r, struct emission *e)
{
    const struct mqsync_outcome *o = &p->scratch.outcome;

    p->counters.writes++;
    p->counters.conflicts += o->was_conflict;
    p->counters.bytes += r->event->payloadlen;
    if (e->winner)
        mqsync_answer_send(p, r);
    mqsync_answer_ack(p, r, o->version, o->seq, false);
    if (e->record && !mqsync_retain_publish(p, r->message.collection, r->message.record_id))
        mqsync_retain_missed(p);
    if (!through_queue(p, r) || !publish(p, r, e))
        forward(p, r, e);
    if (e->followers) { /* after the event itself, where both are in the broker's queue */
        mqsync_followers_tell(e->followers, mqsync_buf_slice(&p->scratch.followed), r->event->qos, e->followed);
        mosquitto_property_free_all(&e->followed);
    }
}

/* --- the other outcomes ------------------------------------------------------------------------------------------- */

/* To deny is what gives MQTT 5 its reason code. Where there is none the message is swallowed: with max_queued_messages
 * 0 Mosquitto 2.0 ends the connection of whom it denies a message. */
static int refuse(struct mqsync_plugin *p, struct mqsync_request *r)
{
    p->counters.refused++;
    mqsync_log_refused(r->now_ms, r->client_id, r->event->topic, &r->error);
    bool told = mqsync_answer_error(p, r);
    if (r->event->qos > 0 && mosquitto_client_protocol_version(r->event->client) >= 5)
        return MOSQ_ERR_ACL_DENIED;
    if (!told) /* a PUBACK alone would say that it is kept: rather the connection ends */
        return MOSQ_ERR_NOMEM;
    mqsync_answer_swallow(p, r->event);
    return MOSQ_ERR_SUCCESS;
}

static int refuse_outcome(struct mqsync_plugin *p, struct mqsync_request *r)
{
    r->error = p->scratch.outcome.error;
    r->error_has_version = r->error.code == MQSYNC_CONFLICT;
    r->error_version = p->scratch.outcome.version;
    return refuse(p, r);
}

static int tell_loser(struct mqsync_plugin *p, struct mqsync_request *r)
{
    p->counters.conflicts++;
    if (!mqsync_owner_may_see(r, r->stored)) {
        r->error_has_version = true;
        r->error_version = r->stored->version;
        mqsync_fail(&r->error, MQSYNC_CONFLICT, "the record has changed since, and may not be shown");
        return refuse(p, r);
    }
    if (!mqsync_answer_compose_winner(p, r, r->stored) || !mqsync_answer_send(p, r)) {
        out_of_memory(r);
        return refuse(p, r);
    }
    mqsync_answer_ack(p, r, r->stored->version, r->stored->seq, true);
    mqsync_answer_swallow(p, r->event);
    return MOSQ_ERR_SUCCESS;
}

/* Whether the broker may still hold the first copy, undelivered until its PUBREL: at QoS 2, when the client has been
 * away since. Then it compares this copy with that one, and would drop the first if they differed. A session that was
 * begun after a restart holds nothing from before it, and those who read have been brought up to date since: to them
 * the event would be a step back. */
static bool may_be_held(struct mqsync_plugin *p, const struct mqsync_request *r)
{
    int64_t away_ms, first_ms = INT64_MAX;

    if (r->event->qos < 2 || mosquitto_client_protocol_version(r->event->client) < 5 || !r->stored)
        return false;
    away_ms = mqsync_clients_last_disconnected(&p->clients, r->client_id, p->started_ms);
    for (unsigned i = 0; i < r->stored->history_n; i++)
        if (r->stored->history[i].version == p->scratch.outcome.version)
            first_ms = r->stored->history[i].arrived_ms;
    if (first_ms <= p->started_ms)
        return first_ms <= away_ms && !mosquitto_client_clean_session(r->event->client);
    return first_ms <= away_ms && mqsync_clients_may_hold(&p->clients, r->client_id);
}

static int repeat(struct mqsync_plugin *p, struct mqsync_request *r)
{
    const struct mqsync_outcome *o = &p->scratch.outcome;
    struct emission e = {0};

    p->counters.repeated++;
    mqsync_answer_ack(p, r, o->version, o->seq, false);
    if (!may_be_held(p, r))
        mqsync_answer_swallow(p, r->event);
    else if (compose(p, r, &e) == MQSYNC_OK)
        forward(p, r, &e);
    else
        return refuse(p, r);
    return MOSQ_ERR_SUCCESS;
}

/* --- the story ---------------------------------------------------------------------------------------------------- */

static int run(struct mqsync_plugin *p, struct mqsync_request *r)
{
    struct emission e = {0};

    if (authorize(p, r, decode(p, r)) != MQSYNC_OK)
        return refuse(p, r);

    if (operations[r->message.type].access != MQSYNC_ACCESS_WRITE) {
        if (answer_query(p, r) != MQSYNC_OK)
            return refuse(p, r);
        mqsync_answer_swallow(p, r->event);
        return MOSQ_ERR_SUCCESS;
    }

    if (load(p, r) != MQSYNC_OK)
        return refuse(p, r);

    resolve(p, r);
    if (r->bound && !mqsync_owner_may_write(p, r))
        return refuse(p, r);
    switch (p->scratch.outcome.kind) {
    case MQSYNC_REFUSED:
        return refuse_outcome(p, r);
    case MQSYNC_LOST:
        return tell_loser(p, r);
    case MQSYNC_REPEATED:
        return repeat(p, r);
    case MQSYNC_ACCEPTED:
        break;
    }

    if (compose(p, r, &e) != MQSYNC_OK)
        return refuse(p, r);
    if (store(p, r) != MQSYNC_OK) {
        emission_free(&e);
        return refuse(p, r);
    }
    emit(p, r, &e);
    return MOSQ_ERR_SUCCESS;
}

int mqsync_pipeline_run(struct mqsync_plugin *p, struct mosquitto_evt_message *event, int64_t now_ms)
{
    struct mqsync_request r;
    int result;

    if (event->future2[3] == &passed)
        return MOSQ_ERR_SUCCESS;
    memset(&r, 0, offsetof(struct mqsync_request, error));
    r.error.code = MQSYNC_OK;
    r.error_has_version = false;
    r.event = event;
    r.now_ms = now_ms;
    r.client_id = mosquitto_client_id(event->client);
    mqsync_topic_parse(mqsync_plugin_root(p), mqsync_slice_str(event->topic), &r.topic);
    expect(p, &r);
    result = run(p, &r);
    if (event->properties || r.properties.any)
        mqsync_properties_free(&r.properties);
    return result;
}
