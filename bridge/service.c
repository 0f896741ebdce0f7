/* SPDX-License-Identifier: BSD-3-Clause */
#include "service.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "timestamp.h"

enum { SOCKETS_MAX = 1024 };

/* A number of the environment; 0: none. */
static uint64_t number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    unsigned long long value;

    if (!text || *text < '0' || *text > '9')
        return 0;
    value = strtoull(text, &end, 10);
    return *end ? 0 : value;
}

void mqsync_service_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    int fd;

    if (n < 2 || n >= sizeof(to.sun_path) || (*path != '/' && *path != '@'))
        return;
    memcpy(to.sun_path, path, n);
    if (*path == '@')
        to.sun_path[0] = '\0'; /* an abstract address */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    /* nobody can be told that this failed; a manager that hears nothing acts on that */
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

void mqsync_service_notify_reloading(void)
{
    char state[80];

    snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRId64, mqsync_monotonic_us());
    mqsync_service_notify(state);
}

int64_t mqsync_service_watchdog_us(void)
{
    uint64_t us = number("WATCHDOG_USEC"), pid = number("WATCHDOG_PID");

    if (us == 0 || us > INT64_MAX || (pid && pid != (uint64_t)getpid()))
        return 0;
    return (int64_t)us;
}

unsigned mqsync_service_sockets(void)
{
    uint64_t n = number("LISTEN_FDS");

    /* the variables may have been meant for a parent of this process */
    if (number("LISTEN_PID") != (uint64_t)getpid() || n > SOCKETS_MAX)
        return 0;
    return (unsigned)n;
}
