/* SPDX-License-Identifier: BSD-3-Clause */
#include "peer.h"

#include <dlfcn.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <mosquitto_broker.h>

enum { BEHIND_BYTES = 1 << 20 };

/* Of the client at the other end of fd: its address as the broker writes it, and its port. */
static bool read_peer(int fd, char address[NI_MAXHOST], int *ret_port)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t n = sizeof(peer);

    if (getpeername(fd, (struct sockaddr *)&peer, &n) != 0 ||
        (peer.ss_family != AF_INET && peer.ss_family != AF_INET6) ||
        getnameinfo((struct sockaddr *)&peer, n, address, NI_MAXHOST, NULL, 0, NI_NUMERICHOST) != 0)
        return false;
    *ret_port = ntohs(peer.ss_family == AF_INET ? ((struct sockaddr_in *)&peer)->sin_port
                                                : ((struct sockaddr_in6 *)&peer)->sin6_port);
    return true;
}

/* The plugin interface gives out a client's address, and since 2.1 its port, but not its socket. That stands at the
 * head of the broker's struct: second in 2.0 built with epoll, first without. What is found there counts only if it is
 * a socket that leads to that very address (and port), so that another layout, of another version, finds nothing rather
 * than something wrong. Nothing but the pace of long answers depends on it. */
int mqsync_peer_socket(const struct mosquitto *client)
{
    const char *wanted = client ? mosquitto_client_address(client) : NULL;
    int (*port_of)(const struct mosquitto *);
    int head[4];

    if (!wanted)
        return -1;
    *(void **)(void *)&port_of = dlsym(RTLD_DEFAULT, "mosquitto_client_port"); /* 2.1 */
    memcpy(head, client, sizeof(head));
    static const unsigned places[] = {1, 0, 2, 3};
    for (unsigned i = 0; i < (port_of ? 4 : 2); i++) {
        char address[NI_MAXHOST];
        int fd = head[places[i]], port;
        if (fd > 2 && read_peer(fd, address, &port) && strcmp(address, wanted) == 0 &&
            (!port_of || port == port_of(client)))
            return fd;
    }
    return -1;
}

bool mqsync_peer_behind(int fd)
{
    int waiting = 0;
    return fd >= 0 && ioctl(fd, SIOCOUTQ, &waiting) == 0 && waiting > BEHIND_BYTES;
}
