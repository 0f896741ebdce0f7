/* SPDX-License-Identifier: BSD-3-Clause */
/* What the port answers to plain HTTP. Knows nothing of sockets. */
#ifndef MQSYNC_BRIDGE_HTTP_H
#define MQSYNC_BRIDGE_HTTP_H

#include "bridge.h"

/* Answers a GET of anything but /sync. Frees nothing of *ret, which it fills. */
void mqsync_http_get(struct mqsync_bridge *b, struct mqsync_slice path, struct mqsync_http_answer *ret);
/* A failure: the `error` message. */
void mqsync_http_fail(unsigned status, enum mqsync_code code, const char *text, struct mqsync_http_answer *ret);

/* Whether the path is that of a WebSocket: /ws, or /ws/{c1},{c2},... with *ret_collections what comes after the slash
 * (else NULL). */
bool mqsync_http_is_websocket(const char *path, const char **ret_collections);
/* Whether allowedOrigins has the origin; an empty one is no browser's and passes. */
bool mqsync_http_origin_allowed(const struct mqsync_config *config, struct mqsync_slice origin);

#endif
