/* SPDX-License-Identifier: BSD-3-Clause */
#include "answer.h"

#include <stdlib.h>

#include <mqtt_protocol.h>

/* Not below $SYS, which the broker's own would be; `#` does not match it, nor what is left of it where a topic is
 * shorter: that is at least a root of one letter and a slash. */
static const char nowhere[] = "$mqsync";

/* root/{collection}/re/{clientId} into scratch, with its NUL. */
static const char *default_topic(struct mqsync_plugin *p, struct mqsync_slice collection, const char *client_id)
{
    struct mqsync_buf *topic = &p->scratch.topic;

    mqsync_buf_clear(topic);
    mqsync_buf_add(topic, p->prefix, p->prefix_n);
    mqsync_buf_add_slice(topic, collection.n ? collection : MQSYNC_SLICE("_"));
    mqsync_buf_add_str(topic, "/re/");
    mqsync_topic_add_client(topic, mqsync_slice_str(client_id));
    mqsync_buf_add_char(topic, '\0');
    /* a client id of nearly 64 KiB leaves no room for the levels before it: such a client is not answered */
    return topic->failed || topic->n > UINT16_MAX ? NULL : topic->p;
}

static const char *topic_of(struct mqsync_plugin *p, const struct mqsync_request *r)
{
    return r->properties.response_topic ? r->properties.response_topic
                                        : default_topic(p, r->topic.collection, r->client_id);
}

/* Takes properties over. False: out of memory. What the broker refuses for another reason it would refuse again. */
static bool send_with(const char *client_id, const char *topic, const void *correlation, uint16_t correlation_n,
                      uint8_t qos, struct mqsync_slice answer, mosquitto_property *properties)
{
    int result = answer.n > INT32_MAX ? MOSQ_ERR_PAYLOAD_SIZE : MOSQ_ERR_SUCCESS;

    if (!result && correlation)
        result = mosquitto_property_add_binary(&properties, MQTT_PROP_CORRELATION_DATA, correlation, correlation_n);
    if (!result)
        result = mosquitto_broker_publish_copy(client_id, topic, (int)answer.n, answer.p, qos, false, properties);
    if (result)
        mosquitto_property_free_all(&properties);
    return result != MOSQ_ERR_NOMEM;
}

static bool send_to(const char *client_id, const char *topic, const void *correlation, uint16_t correlation_n,
                    uint8_t qos, struct mqsync_slice answer)
{
    return send_with(client_id, topic, correlation, correlation_n, qos, answer, NULL);
}

bool mqsync_address_copy(struct mqsync_plugin *p, const struct mqsync_request *r, struct mqsync_address *ret)
{
    struct mqsync_address a = {.qos = r->event->qos, .correlation_n = r->properties.correlation_n};
    const char *topic = topic_of(p, r);

    a.client_id = strdup(r->client_id);
    a.topic = topic ? strdup(topic) : NULL;
    if (r->properties.correlation) {
        a.correlation = malloc(r->properties.correlation_n + 1u);
        if (a.correlation)
            memcpy(a.correlation, r->properties.correlation, r->properties.correlation_n);
    }
    if (!a.client_id || !a.topic || (r->properties.correlation && !a.correlation)) {
        mqsync_address_free(&a);
        return false;
    }
    *ret = a;
    return true;
}

void mqsync_address_free(struct mqsync_address *a)
{
    free(a->client_id);
    free(a->topic);
    free(a->correlation);
}

bool mqsync_address_send(const struct mqsync_address *a, struct mqsync_slice answer)
{
    return send_to(a->client_id, a->topic, a->correlation, a->correlation_n, a->qos, answer);
}

void mqsync_address_send_event(const struct mqsync_address *a, struct mqsync_slice event, uint8_t qos,
                               const mosquitto_property *properties)
{
    mosquitto_property *copy = NULL;

    if (!properties || !mosquitto_property_copy_all(&copy, properties))
        send_with(a->client_id, a->topic, a->correlation, a->correlation_n, qos < a->qos ? qos : a->qos, event, copy);
}

bool mqsync_answer_send(struct mqsync_plugin *p, const struct mqsync_request *r)
{
    const char *topic;

    if (!r->client_id)
        return true;
    if (p->scratch.answer.failed)
        return false;
    topic = topic_of(p, r);
    if (!topic)
        return !p->scratch.topic.failed;
    return send_to(r->client_id, topic, r->properties.correlation, r->properties.correlation_n, r->event->qos,
                   mqsync_buf_slice(&p->scratch.answer));
}

void mqsync_answer_tell(struct mqsync_plugin *p, struct mqsync_slice collection, const char *client_id, uint8_t qos)
{
    const char *topic = p->scratch.answer.failed ? NULL : default_topic(p, collection, client_id);

    if (topic)
        send_to(client_id, topic, NULL, 0, qos, mqsync_buf_slice(&p->scratch.answer));
}

bool mqsync_answer_error(struct mqsync_plugin *p, const struct mqsync_request *r)
{
    const struct mqsync_message *m = &r->message;

    mqsync_buf_clear(&p->scratch.answer);
    mqsync_error_encode(&p->scratch.answer, &r->error, m->collection.n ? m->collection : r->topic.collection,
                        m->record_id.n ? m->record_id : r->topic.record_id, m->mutation_id, r->error_has_version,
                        r->error_version);
    return mqsync_answer_send(p, r);
}

void mqsync_answer_ack(struct mqsync_plugin *p, const struct mqsync_request *r, uint64_t version, uint64_t seq,
                       bool conflict)
{
    if (r->message.mutation_id.n == 0 && !r->properties.ack)
        return;
    mqsync_buf_clear(&p->scratch.answer);
    mqsync_ack_encode(&p->scratch.answer, r->message.collection, r->message.record_id, r->message.mutation_id, version,
                      seq, conflict);
    mqsync_answer_send(p, r);
}

bool mqsync_answer_plain(struct mqsync_plugin *p, const struct mqsync_request *r, const char *type,
                         struct mqsync_slice collection)
{
    mqsync_buf_clear(&p->scratch.answer);
    mqsync_plain_encode(&p->scratch.answer, type, collection);
    return mqsync_answer_send(p, r);
}

bool mqsync_answer_compose_winner(struct mqsync_plugin *p, const struct mqsync_request *r,
                                  const struct mqsync_record *winner)
{
    struct mqsync_event event = {
        .op = winner->deleted ? MQSYNC_DELETE : MQSYNC_UPDATE,
        .collection = r->message.collection,
        .record_id = r->message.record_id,
        .data = winner->data,
        .timestamp_ms = winner->updated_ms,
        .version = winner->version,
        .seq = winner->seq,
        .user = winner->user,
        .conflict = true,
    };
    mqsync_buf_clear(&p->scratch.answer);
    mqsync_event_encode(&p->scratch.answer, &event);
    return !p->scratch.answer.failed;
}

const char *mqsync_answer_record_topic(struct mqsync_plugin *p, struct mqsync_slice collection, const char *level,
                                       struct mqsync_slice id)
{
    struct mqsync_buf *topic = &p->scratch.topic;

    mqsync_buf_clear(topic);
    mqsync_buf_add(topic, p->prefix, p->prefix_n);
    mqsync_buf_add_slice(topic, collection);
    mqsync_buf_add_char(topic, '/');
    mqsync_buf_add_str(topic, level);
    mqsync_buf_add_char(topic, '/');
    mqsync_buf_add_slice(topic, id);
    mqsync_buf_add_char(topic, '\0');
    return topic->failed ? NULL : topic->p;
}

void mqsync_answer_swallow(struct mqsync_plugin *p, struct mosquitto_evt_message *event)
{
    size_t n = strnlen(event->topic, sizeof(nowhere) - 1);
    memcpy(event->topic, nowhere, n);
    event->topic[n] = '\0';
    event->payload = NULL; /* the broker frees the old one, and takes the length back with the changed pointer */
    event->payloadlen = 0;
    event->retain = false;
    if (event->properties)
        mqsync_broker_replace_properties(&p->broker, event, NULL);
}
