/* SPDX-License-Identifier: BSD-3-Clause */
/* An HTTP request and its answer on the socket: heads, bodies as they come, answers as the peer takes them. Knows
 * libwebsockets. */
#ifndef MQSYNC_BRIDGE_EXCHANGE_H
#define MQSYNC_BRIDGE_EXCHANGE_H

#include "bridge.h"

struct lws;
struct mqsync_exchange;

/* A request's head is there. *ret_x is the exchange until it is closed. Like all of these returns what a callback of
 * libwebsockets is to return: not 0 ends the connection. */
int mqsync_exchange_begin(struct mqsync_bridge *b, struct lws *wsi, struct mqsync_slice path,
                          struct mqsync_exchange **ret_x);
int mqsync_exchange_body(struct mqsync_exchange *x, const void *bytes, size_t n);
int mqsync_exchange_body_end(struct mqsync_exchange *x);
/* Writes what there is; sets *x to NULL when the exchange is over and the connection waits for the next request. */
int mqsync_exchange_writable(struct mqsync_exchange **x);
void mqsync_exchange_close(struct mqsync_exchange *x); /* NULL is fine */

/* Answers a request that becomes no exchange, such as a refused upgrade, in one write. Frees what the answer holds. Not
 * 0: it could not be written; the connection is to be closed either way. */
int mqsync_exchange_refuse(struct lws *wsi, struct mqsync_http_answer *a);

/* There is (more of) an answer. */
void mqsync_exchange_wake(struct mqsync_exchange *x);

#endif
