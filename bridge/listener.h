/* SPDX-License-Identifier: BSD-3-Clause */
/* The listening sockets: those of the service manager, or one that is made. Knows nothing of libwebsockets, whose own
 * listener takes none from outside, accepts without a bound and spins when it runs out of descriptors. */
#ifndef MQSYNC_BRIDGE_LISTENER_H
#define MQSYNC_BRIDGE_LISTENER_H

#include "forwarded.h"

enum { MQSYNC_LISTENERS_MAX = 8 };

struct mqsync_listener {
    int fds[MQSYNC_LISTENERS_MAX];
    size_t n;
    bool inherited; /* from the service manager: bridge.listen is not used */
};

/* SERVER_ERROR names the address and what is wrong with it. */
enum mqsync_code mqsync_listener_open(const struct mqsync_config *config, struct mqsync_listener *ret,
                                      struct mqsync_error *ret_error);
void mqsync_listener_close(struct mqsync_listener *l);

/* Where a socket listens: ADDRESS:PORT or a path. */
void mqsync_listener_where(int fd, char *out, size_t size);

/* The next connection, not blocking, and its peer's address ("unix" for one over a Unix socket); -1: errno says why. */
int mqsync_listener_accept(int fd, char ret_address[static MQSYNC_ADDRESS_LEN]);

/* Raises the process' limit of descriptors as far as it may for that many connections. Returns how many there can be.
 */
unsigned mqsync_listener_room(unsigned wanted);

#endif
