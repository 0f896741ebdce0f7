/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether a client reads what it is sent. The broker drops what goes beyond a client's queue and tells nobody, least of
 * all the plugin; but a client that reads too slowly shows in the kernel, where its socket's send queue stays long. */
#ifndef MQSYNC_PEER_H
#define MQSYNC_PEER_H

#include <stdbool.h>

struct mosquitto;

/* The client's socket, or -1 where it cannot be told for certain (then nothing is known of the client). Good as long as
 * the client is connected. Broker's thread. */
int mqsync_peer_socket(const struct mosquitto *client);

/* Whether more than a megabyte waits in the socket; false for -1. */
bool mqsync_peer_behind(int fd);

#endif
