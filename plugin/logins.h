/* SPDX-License-Identifier: BSD-3-Clause */
/* Who the MQTT clients are that have logged in with a token (auth.mqtt). Broker's thread.
 *
 * A login belongs to a connection and ends with it: a session that goes on without one has only its user name. */
#ifndef MQSYNC_LOGINS_H
#define MQSYNC_LOGINS_H

#include "access.h"
#include "broker.h"

struct mqsync_logins;

/* Reads the key; config must outlive the logins or the next configure. */
enum mqsync_code mqsync_logins_open(const struct mqsync_config *config, struct mqsync_logins **ret,
                                    struct mqsync_error *ret_error);
void mqsync_logins_close(struct mqsync_logins *l); /* NULL is fine */

/* A new configuration, and its key. On failure everything is as it was. */
enum mqsync_code mqsync_logins_configure(struct mqsync_logins *l, const struct mqsync_config *config,
                                         struct mqsync_error *ret_error);

/* MOSQ_EVT_BASIC_AUTH: MOSQ_ERR_SUCCESS and the client has the token's user name; MOSQ_ERR_AUTH (logged); or
 * MOSQ_ERR_PLUGIN_DEFER when the password is no token at all. */
int mqsync_logins_enter(struct mqsync_logins *l, const struct mosquitto_evt_basic_auth *e, int64_t now_ms);

/* After a reload the broker asks again about all that are connected, with the passwords of then. Those who are logged
 * in still are, until this is called with false. */
void mqsync_logins_reapplied(struct mqsync_logins *l, bool reapplying);

void mqsync_logins_leave(struct mqsync_logins *l, const struct mosquitto *client);

/* Who a client is: what its token says, else its user name without roles. False: its token has expired. *ret lives
 * until the client's next login, renewal or end. */
bool mqsync_logins_identify(struct mqsync_logins *l, const struct mosquitto *client, int64_t now_ms,
                            struct mqsync_identity *ret);

/* A fresh token of the same user takes the place of the one it has logged in with. */
enum mqsync_code mqsync_logins_renew(struct mqsync_logins *l, const struct mosquitto *client, struct mqsync_slice token,
                                     int64_t now_ms, struct mqsync_error *ret_error);

/* Ends expired logins: tell(context, client_id) at once, the connection with one of the next calls. From TICK alone. */
void mqsync_logins_expire(struct mqsync_logins *l, int64_t now_ms, void (*tell)(void *context, const char *client_id),
                          void *context);

#endif
