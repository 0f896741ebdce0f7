/* SPDX-License-Identifier: BSD-3-Clause */
/* What a client sends ahead, before it has been answered.
 *
 * libwebsockets 4.1 keeps that in a list. When a request that comes from this list has a body, it takes the beginning
 * of the list, which is the request's own head, for the body, and then goes round for ever. What is in the list it asks
 * by a function that it exports. The bridge has one of the same name, which is found first, passes the question on, and
 * hides the list at that one place; the library then goes on where the head ends, as it should.
 *
 * A library that is linked to call its own functions (-Bsymbolic) does not ask. Then no connection may be used for a
 * second request. */
#ifndef MQSYNC_BRIDGE_AHEAD_H
#define MQSYNC_BRIDGE_AHEAD_H

struct lws;

/* To be called last thing in LWS_CALLBACK_HTTP, when the library is going to expect a body. */
void mqsync_ahead_expect_body(struct lws *wsi);
/* To be called first thing in any callback: what was expected is over. */
void mqsync_ahead_forget(void);
/* lws_http_transaction_completed(); not 0, too, when the connection cannot be used again safely. */
int mqsync_ahead_completed(struct lws *wsi);

#endif
