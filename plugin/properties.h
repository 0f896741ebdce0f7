/* SPDX-License-Identifier: BSD-3-Clause */
/* The MQTT 5 properties of a command: metadata of the short form as user properties, and where the answer goes. */
#ifndef MQSYNC_PROPERTIES_H
#define MQSYNC_PROPERTIES_H

#include "message.h"
#include "record.h"
#include "broker.h"

enum { MQSYNC_ROLES_MAX = 256 };

struct mqsync_properties {
    /* Each NULL when it was not given; the last one counts when it was given twice. */
    char *mutation_id, *base_version, *if_version, *timestamp, *user_id, *ack;
    struct mqsync_slice *roles; /* each malloc'd; at most MQSYNC_ROLES_MAX, what comes after them is left out */
    size_t roles_n;
    char *response_topic; /* a topic that can be published to */
    void *correlation;
    uint16_t correlation_n;
    bool any;   /* at least one of the above was there: the event must lose them */
    bool owner; /* there is one that on events of a collection with `owner` says whose the record is */
};

/* Fills *ret (zeroed by the caller) from a list that may be NULL. Unknown ones are left alone. False: out of memory,
 * something is missing. */
bool mqsync_properties_read(const mosquitto_property *list, struct mqsync_properties *ret);
void mqsync_properties_free(struct mqsync_properties *p);

/* Puts the metadata into a message of the short form. A value that is none is MQSYNC_INVALID_MESSAGE naming the
 * property. The message's slices point into p. */
enum mqsync_code mqsync_properties_apply(const struct mqsync_properties *p, struct mqsync_message *message,
                                         struct mqsync_error *ret_error);

/* Copies what is in list and was not for the plugin. With owners also leaves out what claims to say whose the record
 * is. False: something cannot be copied; *ret is NULL then. */
bool mqsync_properties_keep(const mosquitto_property *list, bool owners, mosquitto_property **ret);

/* Says whose the record is, and whose it was before; empty: nobody's; NULL: not to be said. False: out of memory. */
bool mqsync_properties_add_owners(mosquitto_property **list, struct mqsync_slice owner, struct mqsync_slice former);

#endif
