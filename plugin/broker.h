/* SPDX-License-Identifier: BSD-3-Clause */
/* What differs between the brokers that load the plugin: who frees what a callback replaces, what a callback returns.
 */
#ifndef MQSYNC_BROKER_H
#define MQSYNC_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>

struct mqsync_broker {
    int version;  /* 2000011 is 2.0.11 */
    bool certain; /* the broker said so itself; otherwise it is the version of its client library */
};

/* Asks the broker's own binary for its version (at most 2 s), else takes libmosquitto's. */
void mqsync_broker_identify(struct mqsync_broker *ret);

/* What a MOSQ_EVT_RELOAD callback returns: 2.0.x skips later plugins after anything but DEFER, 2.1 takes that as a
 * failure. */
int mqsync_broker_reload_result(const struct mqsync_broker *b);

/* What an access check returns so that the others which there are decide: MOSQ_ERR_PLUGIN_DEFER leaves it to them, but
 * is a no where there are none (`alone`), where 2.0 knows only a yes. 2.1 has a value of its own. */
int mqsync_broker_no_objection(const struct mqsync_broker *b, bool alone);

/* The event's topic becomes `topic`, which is from mosquitto_malloc() and is the broker's from now on. */
void mqsync_broker_replace_topic(const struct mqsync_broker *b, struct mosquitto_evt_message *event, char *topic);

/* The event's properties become `properties` (may be NULL), the broker's from now on. Does nothing and returns false
 * when it is not certain who frees the old ones. */
bool mqsync_broker_replace_properties(const struct mqsync_broker *b, struct mosquitto_evt_message *event,
                                      mosquitto_property *properties);

#endif
