/* SPDX-License-Identifier: BSD-3-Clause */
/* One client's connection on the port: its requests of plain HTTP, which exchange.c answers, and if it becomes a
 * WebSocket the upgrade and the messages in and out. Knows libwebsockets. What sessions call is in server.h. */
#ifndef MQSYNC_BRIDGE_SOCKET_H
#define MQSYNC_BRIDGE_SOCKET_H

#include <libwebsockets.h>

#include "frame.h"

struct mqsync_exchange;
struct mqsync_session;

enum {
    MQSYNC_SOCKET_RX = 1024,  /* bytes, in one read of the library's */
    MQSYNC_SOCKET_TX = 32768, /* of messages that leave in one write */
    MQSYNC_HEAD_MAX = 12288,  /* of a request: a token in the URL is long */
};

/* libwebsockets allocates and zeroes it, for each WebSocket connection and for each request of plain HTTP. */
struct mqsync_socket {
    struct mqsync_exchange *exchange; /* of plain HTTP */
    struct lws *wsi;
    struct mqsync_session *session;
    char *path, *token;
    lws_dll2_t awake;
    uint32_t received_n; /* bytes, by the library's last read */
    bool closing;        /* nothing may follow the close frame */
    bool deflate;
    struct mqsync_frame *deflating; /* what the library still reads from between two turns */
    bool too_long;
    struct mqsync_buf received; /* of a message that comes in several pieces */
};

/* What all of them share. Zero-initialise to start. */
struct mqsync_sockets {
    lws_dll2_owner_t awake;     /* those that have something to write */
    struct mqsync_socket *busy; /* the last one that was read from in this turn; NULL: none */
    unsigned char together[MQSYNC_SOCKET_TX];
};

/* Copies a header of the request, without white space around it, with a NUL; empty: not there. False: size is not
 * enough for it. A path is copied as it is. */
bool mqsync_socket_header(struct lws *wsi, enum lws_token_indexes which, char *out, size_t size);

/* Of the port's own protocol. */
int mqsync_socket_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n);

/* Reads more from who was read from last, if there is likely to be more. */
void mqsync_sockets_read_on(struct mqsync_sockets *all, struct lws_context *context);
/* Writes to those that have something to write, until then. True: not to all of them. */
bool mqsync_sockets_flush(struct mqsync_sockets *all, int64_t until_us);

#endif
