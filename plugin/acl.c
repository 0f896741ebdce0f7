/* SPDX-License-Identifier: BSD-3-Clause */
#include "acl.h"

#include <mosquitto_plugin.h>

#include "answer.h"
#include "owner.h"

/* A topic or a filter below the root: collection/level/rest; what is not there is empty. */
struct place {
    struct mqsync_slice collection, level, rest;
};

struct check {
    struct mqsync_plugin *plugin;
    const struct mosquitto_evt_acl_check *event;
    struct mqsync_identity who;
    struct place at;
    const struct mqsync_collection_config *rules;
};

static struct mqsync_slice take_level(const char **at)
{
    size_t n = strcspn(*at, "/");
    struct mqsync_slice level = {*at, n};
    *at += n + ((*at)[n] == '/');
    return level;
}

static struct place place_of(const char *below_root)
{
    struct place at;
    at.collection = take_level(&below_root);
    at.level = take_level(&below_root);
    at.rest = mqsync_slice_str(below_root);
    return at;
}

static bool is(struct mqsync_slice level, const char *name)
{
    return mqsync_slice_equal(level, mqsync_slice_str(name));
}

static bool is_wildcard(struct mqsync_slice level)
{
    return is(level, "+") || is(level, "#");
}

static bool is_own_answer(const struct check *c)
{
    struct mqsync_buf *own = &c->plugin->scratch.topic;

    mqsync_buf_clear(own);
    mqsync_topic_add_client(own, mqsync_slice_str(mosquitto_client_id(c->event->client)));
    return !own->failed && mqsync_slice_equal(mqsync_buf_slice(own), c->at.rest);
}

/* --- a record that may be his ------------------------------------------------------------------------------------- */

/* Of an event that the plugin has made: its seq, and whether it is a deletion. 0: it has none. */
static uint64_t seq_of(struct mqsync_slice payload, bool *ret_deletes)
{
    struct mqsync_slice value;
    uint64_t seq;

    if (!mqsync_event_seq(payload, &seq))
        return 0;
    *ret_deletes = mqsync_json_find(payload, MQSYNC_SLICE("type"), &value) && is(value, "\"delete\"");
    return seq;
}

static uint64_t version_of(struct mqsync_slice payload)
{
    uint64_t version = 0;

    if (mqsync_json_check(payload, NULL, NULL) == MQSYNC_OK)
        mqsync_json_member_u64(payload, MQSYNC_SLICE("version"), &version);
    return version;
}

static bool parted_at(const struct check *c, const struct mqsync_record *r, uint64_t seq)
{
    uint64_t user = mqsync_record_user_hash(c->who.user);

    for (unsigned i = 0; i < r->formers_n; i++)
        if (r->formers[i].user == user && r->formers[i].seq == seq)
            return true;
    return false;
}

/* The record has become somebody else's with this event, which its former owner may not see: for him it is a deletion.
 */
static void tell_gone(const struct check *c, const struct mqsync_record *r, uint64_t seq)
{
    struct mqsync_buf *out = &c->plugin->scratch.answer;
    struct mqsync_event gone = {
        .op = MQSYNC_DELETE,
        .collection = c->at.collection,
        .record_id = c->at.rest,
        .timestamp_ms = r->updated_ms,
        .version = r->version,
        .seq = seq,
    };

    for (unsigned i = 0; i < r->history_n; i++) {
        if (r->history[i].seq == seq) {
            gone.version = r->history[i].version;
            gone.timestamp_ms = r->history[i].effective_ms;
        }
    }
    mqsync_buf_clear(out);
    mqsync_event_encode(out, &gone);
    mqsync_answer_tell(c->plugin, c->at.collection, mosquitto_client_id(c->event->client), c->event->qos);
}

static bool may_have_event(const struct check *c, const struct mqsync_record *r)
{
    bool deletes = false;
    uint64_t seq = seq_of((struct mqsync_slice){c->event->payload, c->event->payloadlen}, &deletes);

    if (seq == 0)
        return false;
    if (parted_at(c, r, seq)) {
        if (!deletes)
            tell_gone(c, r, seq);
        return deletes;
    }
    return !deletes && !r->deleted && mqsync_access_owns(c->rules, c->who.user, r->data) && mqsync_owner_since(r, seq);
}

static void clear_record(const struct check *c)
{
    mosquitto_broker_publish_copy(mosquitto_client_id(c->event->client), c->event->topic, 0, "", c->event->qos, false,
                                  NULL);
}

/* Of a retained record the state counts, not the way there. */
static bool may_have_record(const struct check *c, const struct mqsync_record *r)
{
    struct mqsync_slice payload = {c->event->payload, c->event->payloadlen};

    if (!r->deleted && mqsync_access_owns(c->rules, c->who.user, r->data))
        return version_of(payload) == r->version;
    if (!parted_at(c, r, r->seq))
        return false;
    if (payload.n)
        clear_record(c);
    return payload.n == 0;
}

static bool may_have_own(const struct check *c)
{
    struct mqsync_plugin *p = c->plugin;
    struct mqsync_collection *collection = mqsync_store_find(p->store, c->at.collection);
    struct mqsync_record *r = &p->scratch.stored;
    uint64_t floor;

    if (!collection || !mqsync_record_id_valid(c->at.rest) ||
        mqsync_store_get(p->store, collection, c->at.rest, r, &floor, NULL) != MQSYNC_OK)
        return false;
    return is(c->at.level, "evt") ? may_have_event(c, r) : may_have_record(c, r);
}

/* --- the three questions ------------------------------------------------------------------------------------------ */

static bool may_receive(struct check *c)
{
    if (is(c->at.level, "re"))
        return is_own_answer(c);
    if (!is(c->at.level, "evt") && !is(c->at.level, "rec")) /* such as a will to cmd */
        return false;
    c->rules = mqsync_config_collection(c->plugin->config, c->at.collection);
    switch (c->rules ? mqsync_access(c->rules, false, &c->who) : MQSYNC_RIGHT_NONE) {
    case MQSYNC_RIGHT_ALL:
        return true;
    case MQSYNC_RIGHT_OWN:
        return may_have_own(c);
    default:
        return false;
    }
}

/* What a filter with wildcards may bring is decided at each delivery; but whoever shared the bridge's subscription
 * would take wills away from it, though he would not be given them. */
static bool may_subscribe(struct check *c)
{
    if (is(c->at.level, "cmd"))
        return false;
    if (is_wildcard(c->at.collection) || is_wildcard(c->at.level) || c->at.level.n == 0)
        return true;
    if (is(c->at.level, "re"))
        return is_wildcard(c->at.rest) || is_own_answer(c);
    if (!is(c->at.level, "evt") && !is(c->at.level, "rec"))
        return false;
    c->rules = mqsync_config_collection(c->plugin->config, c->at.collection);
    return c->rules && mqsync_access(c->rules, false, &c->who) != MQSYNC_RIGHT_NONE;
}

/* Only commands: the pipeline sees every one of them, but not wills, which the broker publishes unseen. */
static bool may_publish(const struct check *c)
{
    return is(c->at.level, "cmd");
}

/* The filter of a shared subscription without "$share/{group}/"; others as they are. */
static const char *filter_of(const char *topic)
{
    static const char share[] = "$share/";
    const char *slash;

    if (strncmp(topic, share, sizeof(share) - 1) != 0)
        return topic;
    slash = strchr(topic + sizeof(share) - 1, '/');
    return slash ? slash + 1 : topic;
}

int mqsync_acl_check(struct mqsync_plugin *p, const struct mosquitto_evt_acl_check *e)
{
    struct check c = {.plugin = p, .event = e};
    const char *topic = e->access == MOSQ_ACL_SUBSCRIBE ? filter_of(e->topic) : e->topic;
    bool may = true;

    if (strncmp(topic, p->prefix, p->prefix_n) != 0 ||
        mqsync_config_trusted(p->config, mosquitto_client_username(e->client)))
        return p->allowed;
    if (!mqsync_logins_identify(p->logins, e->client, mqsync_time_now(), &c.who))
        return MOSQ_ERR_ACL_DENIED;
    c.at = place_of(topic + p->prefix_n);
    if (e->access == MOSQ_ACL_READ)
        may = may_receive(&c);
    else if (e->access == MOSQ_ACL_SUBSCRIBE)
        may = may_subscribe(&c);
    else if (e->access == MOSQ_ACL_WRITE)
        may = may_publish(&c);
    return may ? p->allowed : MOSQ_ERR_ACL_DENIED;
}
