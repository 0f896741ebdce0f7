/* SPDX-License-Identifier: BSD-3-Clause */
/* Lets connections in: how many at once, and where each comes from. */
#ifndef MQSYNC_BRIDGE_ACCEPT_H
#define MQSYNC_BRIDGE_ACCEPT_H

#include <libwebsockets.h>

#include "bridge.h"
#include "listener.h"

#define MQSYNC_ACCEPT_PROTOCOL "mqsync-listener"

struct mqsync_acceptor;

/* One connection of a client, whatever it speaks. */
struct mqsync_peer {
    struct mqsync_peer *next;         /* free ones */
    char address[MQSYNC_ADDRESS_LEN]; /* of the other end: that of a proxy where there is one */
    char client[MQSYNC_ADDRESS_LEN];  /* of who has sent the request that was last begun */
    int64_t since_ms;
    bool in_use;
    bool excess; /* one too many: told so, and nothing else */
    bool asked;  /* has sent a whole request */
};

/* Opens the sockets; nobody is let in yet. */
enum mqsync_code mqsync_acceptor_open(struct mqsync_bridge *b, struct mqsync_acceptor **ret,
                                      struct mqsync_error *ret_error);
/* Lets clients in for vhost, which must know MQSYNC_ACCEPT_PROTOCOL, from the moment on at which the broker has
 * answered, or a second later without it: who comes while the bridge starts anew had rather wait than be refused.
 * False: libwebsockets will not. */
bool mqsync_acceptor_start(struct mqsync_acceptor *a, struct lws_vhost *vhost);
/* Lets nobody in any more. */
void mqsync_acceptor_stop(struct mqsync_acceptor *a);
void mqsync_acceptor_close(struct mqsync_acceptor *a); /* after the context is gone; NULL is fine */

/* Says for each socket where it listens. */
void mqsync_acceptor_log(const struct mqsync_acceptor *a);
/* False while nobody has been let in yet. */
bool mqsync_acceptor_started(const struct mqsync_acceptor *a);
/* Several times a second. */
void mqsync_acceptor_tick(struct mqsync_acceptor *a, int64_t now_ms);

/* To be called for LWS_CALLBACK_RAW_RX_FILE of MQSYNC_ACCEPT_PROTOCOL, and for LWS_CALLBACK_WSI_DESTROY. */
void mqsync_acceptor_readable(struct mqsync_acceptor *a, struct lws *wsi);
void mqsync_acceptor_gone(struct mqsync_acceptor *a, struct lws *wsi);

/* NULL: no client's connection. */
struct mqsync_peer *mqsync_acceptor_peer(struct mqsync_acceptor *a, struct lws *wsi);

#endif
