/* SPDX-License-Identifier: BSD-3-Clause */
/* The port and the event loop: libwebsockets set up, run and closed. */
#ifndef MQSYNC_BRIDGE_SERVER_H
#define MQSYNC_BRIDGE_SERVER_H

#include "bridge.h"

struct lws;
struct mqsync_server;
struct mqsync_peer;
struct mqsync_socket; /* of one WebSocket connection */
struct mqsync_sockets;

/* Opens the port and the loop, and says so to the service manager. The bridge must outlive it. */
enum mqsync_code mqsync_server_open(struct mqsync_bridge *b, struct mqsync_server **ret,
                                    struct mqsync_error *ret_error);
void mqsync_server_close(struct mqsync_server *s); /* NULL is fine */

/* Runs until SIGTERM or SIGINT, and then until the connections are closed: at most some seconds, or until a second such
 * signal. */
void mqsync_server_run(struct mqsync_server *s);

/* Of the connection's server. */
struct mqsync_bridge *mqsync_server_bridge(struct lws *wsi);
struct mqsync_sockets *mqsync_server_sockets(struct lws *wsi);
struct mqsync_peer *mqsync_server_peer(struct lws *wsi); /* NULL: no client's connection */
/* Where the client of a connection is, proxies aside; lives as long as the connection. */
const char *mqsync_server_client(struct lws *wsi);

/* Watches the descriptor of the upstream connection; -1: nothing any more. */
void mqsync_server_watch_upstream(struct mqsync_server *s, int fd, bool write);

/* Calls mqsync_feeds_pump() after so many microseconds, or earlier when that has been asked for. */
void mqsync_server_pump_in(struct mqsync_server *s, int64_t us);

/* What has become known in this turn of the loop leaves at its end: messages to clients, and commands by
 * mqsync_upstream_turn_over(). */
void mqsync_server_turn_over(struct mqsync_server *s);

/* --- socket.c ----------------------------------------------------------------------------------------------------- */

/* There is something to be had from mqsync_session_next(). */
void mqsync_socket_wake(struct mqsync_socket *s);
void mqsync_socket_pause(struct mqsync_socket *s, bool pause); /* reads no more, or again */
/* Closes without ado; mqsync_session_close() follows, later. */
void mqsync_socket_kill(struct mqsync_socket *s);
/* Milliseconds since the peer has sent anything, control frames included. */
int64_t mqsync_socket_silent_ms(struct mqsync_socket *s);

#endif
