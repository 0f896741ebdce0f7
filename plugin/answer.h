/* SPDX-License-Identifier: BSD-3-Clause */
/* What goes back to the client that sent a command: to root/{collection}/re/{clientId}, or to the command's Response
 * Topic with its Correlation Data; to that client alone, at the command's QoS, and past the broker's ACLs. */
#ifndef MQSYNC_ANSWER_H
#define MQSYNC_ANSWER_H

#include "plugin.h"

/* Where an answer goes, kept for answers that come later. */
struct mqsync_address {
    char *client_id;
    char *topic;
    void *correlation; /* NULL: none */
    uint16_t correlation_n;
    uint8_t qos;
};

/* Copies out of r, whose client_id is not NULL. False: out of memory. */
bool mqsync_address_copy(struct mqsync_plugin *p, const struct mqsync_request *r, struct mqsync_address *ret);
void mqsync_address_free(struct mqsync_address *a);
/* False: out of memory, nothing has been sent. */
bool mqsync_address_send(const struct mqsync_address *a, struct mqsync_slice answer);
/* An event, at qos or the address's, if that is lower, with copies of properties besides. */
void mqsync_address_send_event(const struct mqsync_address *a, struct mqsync_slice event, uint8_t qos,
                               const mosquitto_property *properties);

/* Sends p->scratch.answer to the sender of r. Not after the event has been rewritten: the topic's slices are gone then.
 * False: out of memory. */
bool mqsync_answer_send(struct mqsync_plugin *p, const struct mqsync_request *r);

/* Sends p->scratch.answer to a client that has not asked: to root/{collection}/re/{clientId} (no collection: "_"). */
void mqsync_answer_tell(struct mqsync_plugin *p, struct mqsync_slice collection, const char *client_id, uint8_t qos);

bool mqsync_answer_error(struct mqsync_plugin *p, const struct mqsync_request *r); /* r->error */
/* Does nothing for a write without mutationId that does not ask for it (user property `ack`) either. */
void mqsync_answer_ack(struct mqsync_plugin *p, const struct mqsync_request *r, uint64_t version, uint64_t seq,
                       bool conflict);
/* `pong`, `authenticated`, `unsubscribed` */
bool mqsync_answer_plain(struct mqsync_plugin *p, const struct mqsync_request *r, const char *type,
                         struct mqsync_slice collection);
/* The record as an `update` with its full data, or a `delete`, marked as a conflict's winner, into p->scratch.answer.
 * False: out of memory. */
bool mqsync_answer_compose_winner(struct mqsync_plugin *p, const struct mqsync_request *r,
                                  const struct mqsync_record *winner);

/* root/{collection}/{level}/{id} in scratch.topic, NUL-terminated, good until the next answer; NULL: out of memory. */
const char *mqsync_answer_record_topic(struct mqsync_plugin *p, struct mqsync_slice collection, const char *level,
                                       struct mqsync_slice id);

/* Lets the PUBLISH in flight end in a topic that nobody has, empty and without properties, so that the broker
 * acknowledges it and delivers nothing. */
void mqsync_answer_swallow(struct mqsync_plugin *p, struct mosquitto_evt_message *event);

#endif
