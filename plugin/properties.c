/* SPDX-License-Identifier: BSD-3-Clause */
#include "properties.h"

#include <stddef.h>
#include <stdlib.h>

#include <mqtt_protocol.h>

enum { MUTATION_ID_MAX = 128 };

static const struct {
    const char *name;
    size_t at;
} ours[] = {
    {"mutationId", offsetof(struct mqsync_properties, mutation_id)},
    {"baseVersion", offsetof(struct mqsync_properties, base_version)},
    {"ifVersion", offsetof(struct mqsync_properties, if_version)},
    {"timestamp", offsetof(struct mqsync_properties, timestamp)},
    {"userId", offsetof(struct mqsync_properties, user_id)},
    {"ack", offsetof(struct mqsync_properties, ack)},
};
static const char role[] = "role", owner[] = "owner", former_owner[] = "formerOwner";

/* Where the value of a user property belongs, NULL for somebody else's. */
static char **place_of(struct mqsync_properties *p, const char *name)
{
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (strcmp(name, ours[i].name) == 0)
            return (char **)(void *)((char *)p + ours[i].at);
    return NULL;
}

static bool names_owner(const char *name)
{
    return strcmp(name, owner) == 0 || strcmp(name, former_owner) == 0;
}

/* Takes the value over. */
static bool add_role(struct mqsync_properties *p, char *value)
{
    if (!p->roles)
        p->roles = calloc(MQSYNC_ROLES_MAX, sizeof(*p->roles));
    if (p->roles && p->roles_n < MQSYNC_ROLES_MAX)
        p->roles[p->roles_n++] = mqsync_slice_str(value);
    else
        free(value);
    return p->roles;
}

static void take(char **place, char *value)
{
    free(*place);
    *place = value;
}

/* The broker's functions give NULL for an empty text since 2.1. False: out of memory. */
static bool or_empty(char **text)
{
    return *text || (*text = strdup(""));
}

static bool read_pair(const mosquitto_property *item, char **ret_name, char **ret_value)
{
    *ret_name = *ret_value = NULL;
    if (mosquitto_property_read_string_pair(item, MQTT_PROP_USER_PROPERTY, ret_name, ret_value, false) &&
        or_empty(ret_name) && or_empty(ret_value))
        return true;
    free(*ret_name);
    free(*ret_value);
    *ret_name = *ret_value = NULL;
    return false;
}

static bool read_user_property(const mosquitto_property *item, struct mqsync_properties *ret)
{
    char *name, *value;
    char **place;
    bool ok = true;

    if (!read_pair(item, &name, &value))
        return false;
    place = place_of(ret, name);
    if (place) {
        ret->any = true;
        take(place, value);
    } else if (strcmp(name, role) == 0) {
        ret->any = true;
        ok = add_role(ret, value);
    } else {
        ret->owner |= names_owner(name);
        free(value);
    }
    free(name);
    return ok;
}

static bool read_response_topic(const mosquitto_property *item, struct mqsync_properties *ret)
{
    char *topic = NULL;

    ret->any = true;
    if (!mosquitto_property_read_string(item, MQTT_PROP_RESPONSE_TOPIC, &topic, false))
        return false;
    if (topic && topic[0] && mosquitto_pub_topic_check(topic) == MOSQ_ERR_SUCCESS)
        take(&ret->response_topic, topic);
    else
        free(topic);
    return true;
}

static bool read_correlation(const mosquitto_property *item, struct mqsync_properties *ret)
{
    ret->any = true;
    free(ret->correlation);
    ret->correlation = NULL;
    ret->correlation_n = 0;
    return mosquitto_property_read_binary(item, MQTT_PROP_CORRELATION_DATA, &ret->correlation, &ret->correlation_n,
                                          false);
}

bool mqsync_properties_read(const mosquitto_property *list, struct mqsync_properties *ret)
{
    bool ok = true;

    for (const mosquitto_property *item = list; item && ok; item = mosquitto_property_next(item)) {
        switch (mosquitto_property_identifier(item)) {
        case MQTT_PROP_USER_PROPERTY:
            ok = read_user_property(item, ret);
            break;
        case MQTT_PROP_RESPONSE_TOPIC:
            ok = read_response_topic(item, ret);
            break;
        case MQTT_PROP_CORRELATION_DATA:
            ok = read_correlation(item, ret);
            break;
        default:
            break;
        }
    }
    return ok;
}

void mqsync_properties_free(struct mqsync_properties *p)
{
    free(p->mutation_id);
    free(p->base_version);
    free(p->if_version);
    free(p->timestamp);
    free(p->user_id);
    free(p->ack);
    for (size_t i = 0; i < p->roles_n; i++)
        free((char *)(uintptr_t)p->roles[i].p);
    free(p->roles);
    free(p->response_topic);
    free(p->correlation);
}

static bool parse_u64(const char *text, uint64_t *ret)
{
    uint64_t v = 0;
    size_t n = 0;

    for (; text[n] >= '0' && text[n] <= '9'; n++) {
        if (v > ((uint64_t)INT64_MAX - (uint64_t)(text[n] - '0')) / 10)
            return false;
        v = v * 10 + (uint64_t)(text[n] - '0');
    }
    if (n == 0 || text[n])
        return false;
    *ret = v;
    return true;
}

static enum mqsync_code apply_version(const char *name, const char *text, bool *ret_has, uint64_t *ret,
                                      struct mqsync_error *ret_error)
{
    if (!text)
        return MQSYNC_OK;
    if (!parse_u64(text, ret))
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "user property %s: expected an unsigned integer", name);
    *ret_has = true;
    return MQSYNC_OK;
}

enum mqsync_code mqsync_properties_apply(const struct mqsync_properties *p, struct mqsync_message *message,
                                         struct mqsync_error *ret_error)
{
    enum mqsync_code code;

    if (p->mutation_id) {
        size_t n = strlen(p->mutation_id);
        if (n == 0 || n > MUTATION_ID_MAX)
            return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "user property mutationId: expected 1 to %d bytes",
                               MUTATION_ID_MAX);
        message->mutation_id = (struct mqsync_slice){p->mutation_id, n};
    }
    code = apply_version("baseVersion", p->base_version, &message->has_base_version, &message->base_version, ret_error);
    if (code == MQSYNC_OK)
        code = apply_version("ifVersion", p->if_version, &message->has_if_version, &message->if_version, ret_error);
    if (code == MQSYNC_OK && p->timestamp && !mqsync_time_parse(mqsync_slice_str(p->timestamp), &message->time))
        code = mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE,
                           "user property timestamp: expected a time such as 2026-11-22T18:17:00.000Z");
    return code;
}

/* Appends a copy of item to *list unless it was for the plugin. False: cannot be copied. */
static bool keep(const mosquitto_property *item, bool owners, mosquitto_property **list)
{
    static const char bridge[] = MQSYNC_BRIDGE_CORRELATION;
    struct mqsync_properties unused;
    char *name = NULL, *value = NULL;
    void *bytes = NULL;
    uint16_t n;
    uint8_t byte;
    bool ok = false;

    switch (mosquitto_property_identifier(item)) {
    case MQTT_PROP_RESPONSE_TOPIC:
        return true;
    case MQTT_PROP_CORRELATION_DATA:
        ok = mosquitto_property_read_binary(item, MQTT_PROP_CORRELATION_DATA, &bytes, &n, false) &&
             (n < sizeof(bridge) - 1 || memcmp(bytes, bridge, sizeof(bridge) - 1) != 0 ||
              !mosquitto_property_add_binary(list, MQTT_PROP_CORRELATION_DATA, bytes, n));
        break;
    case MQTT_PROP_PAYLOAD_FORMAT_INDICATOR:
        return mosquitto_property_read_byte(item, MQTT_PROP_PAYLOAD_FORMAT_INDICATOR, &byte, false) &&
               !mosquitto_property_add_byte(list, MQTT_PROP_PAYLOAD_FORMAT_INDICATOR, byte);
    case MQTT_PROP_CONTENT_TYPE:
        ok = mosquitto_property_read_string(item, MQTT_PROP_CONTENT_TYPE, &value, false) && or_empty(&value) &&
             !mosquitto_property_add_string(list, MQTT_PROP_CONTENT_TYPE, value);
        break;
    case MQTT_PROP_USER_PROPERTY:
        ok = read_pair(item, &name, &value) &&
             (place_of(&unused, name) || strcmp(name, role) == 0 || (owners && names_owner(name)) ||
              !mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, name, value));
        break;
    default:
        break;
    }
    free(name);
    free(value);
    free(bytes);
    return ok;
}

bool mqsync_properties_keep(const mosquitto_property *list, bool owners, mosquitto_property **ret)
{
    bool ok = true;

    *ret = NULL;
    for (const mosquitto_property *item = list; item && ok; item = mosquitto_property_next(item))
        ok = keep(item, owners, ret);
    if (!ok)
        mosquitto_property_free_all(ret);
    return ok;
}

static bool add_user_property(mosquitto_property **list, const char *name, struct mqsync_slice value)
{
    char text[MQSYNC_USER_MAX + 1];

    if (!value.p)
        return true;
    memcpy(text, value.p, value.n);
    text[value.n] = '\0';
    return !mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, name, text);
}

bool mqsync_properties_add_owners(mosquitto_property **list, struct mqsync_slice now, struct mqsync_slice former)
{
    return add_user_property(list, owner, now) && add_user_property(list, former_owner, former);
}
