/* SPDX-License-Identifier: BSD-3-Clause */
/* The MQTT 5 properties of a command: metadata of the short form as user properties, and where the answer goes. */
#ifndef MQSYNC_PROPERTIES_H
#define MQSYNC_PROPERTIES_H

#include "../lib/message.h"
#include "broker.h"

struct mqsync_properties {
    /* Each NULL when it was not given; the last one counts when it was given twice. */
    char *mutation_id, *base_version, *if_version, *timestamp, *user_id;
    char *response_topic; /* a topic that can be published to */
    void *correlation;
    uint16_t correlation_n;
    bool any; /* at least one of the above was there: the event must lose them */
};

/* Fills *ret (zeroed by the caller) from a list that may be NULL. Unknown ones are left alone. */
void mqsync_properties_read(const mosquitto_property *list, struct mqsync_properties *ret);
void mqsync_properties_free(struct mqsync_properties *p);

/* Puts the metadata into a message of the short form. A value that is none is MQSYNC_INVALID_MESSAGE naming the
 * property. The message's slices point into p. */
enum mqsync_code mqsync_properties_apply(const struct mqsync_properties *p, struct mqsync_message *message,
                                         struct mqsync_error *ret_error);

/* Takes what was for the plugin out of an event's properties; the others stay. */
void mqsync_properties_strip(const struct mqsync_broker *b, struct mosquitto_evt_message *event);

#endif
