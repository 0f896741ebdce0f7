/* SPDX-License-Identifier: BSD-3-Clause */
/* Connecting to the broker without holding up the loop: a host name may take many seconds to resolve, and
 * libmosquitto resolves it where it connects. So that one call is made by a thread. */
#ifndef MQSYNC_BRIDGE_DIAL_H
#define MQSYNC_BRIDGE_DIAL_H

#include <stdbool.h>

struct mosquitto;
struct mqsync_dial;

/* Begins to connect, or to connect again. mosq and host must be left alone until mqsync_dial_done() says so. NULL: no
 * memory, or no thread. */
struct mqsync_dial *mqsync_dial_start(struct mosquitto *mosq, const char *host, int port, int keepalive, bool again);
/* True once it is over, and d gone: *ret is libmosquitto's result, *ret_errno what errno was. */
bool mqsync_dial_done(struct mqsync_dial *d, int *ret, int *ret_errno);
/* Nobody waits for it any more. False: the thread still uses mosq and host, and will until the process ends. */
bool mqsync_dial_abandon(struct mqsync_dial *d);

#endif
