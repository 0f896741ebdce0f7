/* SPDX-License-Identifier: BSD-3-Clause */
/* The few MQTT 3.1.1 packets a load generator needs, written by hand: a client library would cost more than the broker.
 */
#ifndef MQSYNC_BENCH_MQTT_PACKETS_H
#define MQSYNC_BENCH_MQTT_PACKETS_H

#include <stdint.h>
#include <string.h>

enum { MQTT_CONNACK = 2, MQTT_PUBLISH = 3, MQTT_PUBACK = 4, MQTT_SUBACK = 9 };

static inline size_t mqtt_put_length(uint8_t *out, size_t length)
{
    size_t n = 0;
    do {
        out[n] = length & 0x7f;
        length >>= 7;
        if (length > 0)
            out[n] |= 0x80;
        n++;
    } while (length > 0);
    return n;
}

static inline size_t mqtt_put_u16(uint8_t *out, size_t value)
{
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
    return 2;
}

static inline size_t mqtt_put_string(uint8_t *out, const char *text)
{
    size_t length = strlen(text);
    mqtt_put_u16(out, length);
    memcpy(out + 2, text, length);
    return 2 + length;
}

/* out: room for 20 bytes and the client id. */
static inline size_t mqtt_put_connect(uint8_t *out, const char *client_id)
{
    static const uint8_t head[] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2 /* clean session */, 0, 0 /* no keep alive */};
    size_t n = 0;
    out[n++] = 0x10;
    n += mqtt_put_length(out + n, sizeof(head) + 2 + strlen(client_id));
    memcpy(out + n, head, sizeof(head));
    n += sizeof(head);
    return n + mqtt_put_string(out + n, client_id);
}

/* out: room for 12 bytes and the filter. */
static inline size_t mqtt_put_subscribe(uint8_t *out, const char *filter, unsigned qos)
{
    size_t n = 0;
    out[n++] = 0x82;
    n += mqtt_put_length(out + n, 2 + 2 + strlen(filter) + 1);
    n += mqtt_put_u16(out + n, 1);
    n += mqtt_put_string(out + n, filter);
    out[n++] = (uint8_t)qos;
    return n;
}

/* All of a PUBLISH before its payload; with QoS 1 the packet id is the last two bytes. out: room for 9 bytes and the
 * topic. */
static inline size_t mqtt_put_publish_head(uint8_t *out, const char *topic, unsigned qos, size_t payload_length)
{
    size_t n = 0;
    out[n++] = (uint8_t)(0x30 | qos << 1);
    n += mqtt_put_length(out + n, 2 + strlen(topic) + (qos > 0 ? 2 : 0) + payload_length);
    n += mqtt_put_string(out + n, topic);
    if (qos > 0)
        n += mqtt_put_u16(out + n, 1);
    return n;
}

static inline size_t mqtt_put_puback(uint8_t *out, const uint8_t packet_id[2])
{
    out[0] = 0x40;
    out[1] = 2;
    memcpy(out + 2, packet_id, 2);
    return 4;
}

struct mqtt_packet {
    unsigned type, qos;
    const uint8_t *body;
    size_t body_n, whole_n;
    const uint8_t *packet_id; /* of a PUBLISH with QoS 1 */
    const uint8_t *payload;   /* of a PUBLISH */
    size_t payload_n;
};

/* 1 with the packet at the start of `in`, 0 when more bytes are needed, -1 when they are no MQTT. */
static inline int mqtt_parse(const uint8_t *in, size_t n, struct mqtt_packet *ret)
{
    size_t at = 1, length = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (shift > 21)
            return -1;
        if (at >= n)
            return 0;
        length |= (size_t)(in[at] & 0x7f) << shift;
        if ((in[at++] & 0x80) == 0)
            break;
    }
    if (n - at < length)
        return 0;
    *ret = (struct mqtt_packet){
        .type = in[0] >> 4, .qos = in[0] >> 1 & 3, .body = in + at, .body_n = length, .whole_n = at + length};
    if (ret->type != MQTT_PUBLISH)
        return 1;
    size_t head = length < 2 ? length + 1 : 2u + (size_t)(in[at] << 8 | in[at + 1]);
    if (ret->qos > 0) {
        ret->packet_id = ret->body + head;
        head += 2;
    }
    if (head > length)
        return -1;
    ret->payload = ret->body + head;
    ret->payload_n = length - head;
    return 1;
}

#endif
