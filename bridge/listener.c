/* SPDX-License-Identifier: BSD-3-Clause */
#include "listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "service.h"

enum {
    FDS_KEPT = 64, /* descriptors that are no clients' connections: database, broker, log, signals */
    FDS_EACH = 2,  /* one passed on to the broker has a connection there as well */
};

union any_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_un path;
};

/* --- opening ------------------------------------------------------------------------------------------------------ */

static enum mqsync_code inherit(unsigned n, struct mqsync_listener *ret, struct mqsync_error *ret_error)
{
    if (n > MQSYNC_LISTENERS_MAX)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "%u sockets were passed, at most %d can be used", n,
                           MQSYNC_LISTENERS_MAX);
    for (unsigned i = 0; i < n; i++) {
        int fd = MQSYNC_SERVICE_FIRST_FD + (int)i, listens = 0, type = 0;
        socklen_t size = sizeof(listens);
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens ||
            getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
            return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR,
                               "descriptor %d, passed as a socket, is none that listens for streams", fd);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        ret->fds[ret->n++] = fd;
    }
    ret->inherited = true;
    return MQSYNC_OK;
}

static int bind_and_listen(const struct addrinfo *to)
{
    int on = 1, off = 0, error;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (to->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, to->ai_addr, to->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* "host:port" as the configuration has checked it; "*" is every address. */
static enum mqsync_code make(const char *where, struct mqsync_listener *ret, struct mqsync_error *ret_error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    const char *colon = strrchr(where, ':'), *start = *where == '[' ? where + 1 : where;
    char host[256];
    int fd = -1, rc;

    snprintf(host, sizeof(host), "%.*s", (int)(colon - start - (start > where)), start);
    rc = getaddrinfo(strcmp(host, "*") == 0 ? "::" : host, colon + 1, &hints, &found);
    for (const struct addrinfo *a = rc ? NULL : found; a && fd < 0; a = a->ai_next)
        fd = bind_and_listen(a);
    if (rc == 0)
        freeaddrinfo(found);
    if (fd < 0 && strcmp(host, "*") == 0) { /* a host without IPv6 */
        struct sockaddr_in every = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
        struct addrinfo ipv4 = {
            .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&every, .ai_addrlen = sizeof(every)};
        rc = 0;
        fd = bind_and_listen(&ipv4);
    }
    if (fd < 0)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.listen: cannot listen on %s: %s", where,
                           rc ? gai_strerror(rc) : strerror(errno));
    ret->fds[ret->n++] = fd;
    return MQSYNC_OK;
}

enum mqsync_code mqsync_listener_open(const struct mqsync_config *config, struct mqsync_listener *ret,
                                      struct mqsync_error *ret_error)
{
    unsigned passed = mqsync_service_sockets();

    *ret = (struct mqsync_listener){0};
    return passed ? inherit(passed, ret, ret_error) : make(config->bridge.listen, ret, ret_error);
}

void mqsync_listener_close(struct mqsync_listener *l)
{
    while (l->n)
        close(l->fds[--l->n]);
}

/* --- addresses ---------------------------------------------------------------------------------------------------- */

static void name_address(const union any_address *a, char ret[static MQSYNC_ADDRESS_LEN])
{
    static const char mapped[] = "::ffff:";

    if (a->any.sa_family == AF_INET)
        inet_ntop(AF_INET, &a->ipv4.sin_addr, ret, MQSYNC_ADDRESS_LEN);
    else if (a->any.sa_family == AF_INET6)
        inet_ntop(AF_INET6, &a->ipv6.sin6_addr, ret, MQSYNC_ADDRESS_LEN);
    else
        strcpy(ret, "unix");
    if (strncmp(ret, mapped, strlen(mapped)) == 0 && strchr(ret, '.'))
        memmove(ret, ret + strlen(mapped), strlen(ret + strlen(mapped)) + 1);
}

void mqsync_listener_where(int fd, char *out, size_t size)
{
    union any_address a = {0};
    socklen_t n = sizeof(a);
    char address[MQSYNC_ADDRESS_LEN];

    getsockname(fd, &a.any, &n);
    name_address(&a, address);
    if (a.any.sa_family == AF_INET)
        snprintf(out, size, "%s:%u", address, ntohs(a.ipv4.sin_port));
    else if (a.any.sa_family == AF_INET6)
        snprintf(out, size, "[%s]:%u", address, ntohs(a.ipv6.sin6_port));
    else
        snprintf(out, size, "%.*s", (int)sizeof(a.path.sun_path), a.path.sun_path);
}

int mqsync_listener_accept(int fd, char ret_address[static MQSYNC_ADDRESS_LEN])
{
    union any_address a = {0};
    socklen_t n = sizeof(a);
    int accepted = accept4(fd, &a.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;

    if (accepted < 0)
        return -1;
    name_address(&a, ret_address);
    if (a.any.sa_family != AF_UNIX)
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return accepted;
}

/* --- descriptors -------------------------------------------------------------------------------------------------- */

unsigned mqsync_listener_room(unsigned wanted)
{
    rlim_t needed = (rlim_t)wanted * FDS_EACH + FDS_KEPT;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return wanted;
    if (limit.rlim_cur < needed && limit.rlim_cur < limit.rlim_max) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max < needed ? limit.rlim_max : needed;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            limit.rlim_cur = before;
    }
    if (limit.rlim_cur >= (rlim_t)wanted + FDS_KEPT)
        return wanted;
    return limit.rlim_cur > FDS_KEPT ? (unsigned)(limit.rlim_cur - FDS_KEPT) : 1;
}
