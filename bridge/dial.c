/* SPDX-License-Identifier: BSD-3-Clause */
#include "dial.h"

#include <errno.h>
#include <mosquitto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct mqsync_dial {
    pthread_t thread;
    struct mosquitto *mosq;
    const char *host;
    int port, keepalive;
    bool again;
    int result, error;
    atomic_bool done;
};

static void *dial(void *context)
{
    struct mqsync_dial *d = context;

    d->result = d->again ? mosquitto_reconnect_async(d->mosq)
                         : mosquitto_connect_async(d->mosq, d->host, d->port, d->keepalive);
    d->error = errno;
    atomic_store(&d->done, true);
    return NULL;
}

struct mqsync_dial *mqsync_dial_start(struct mosquitto *mosq, const char *host, int port, int keepalive, bool again)
{
    struct mqsync_dial *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->mosq = mosq;
    d->host = host;
    d->port = port;
    d->keepalive = keepalive;
    d->again = again;
    if (pthread_create(&d->thread, NULL, dial, d) != 0) {
        free(d);
        return NULL;
    }
    return d;
}

bool mqsync_dial_done(struct mqsync_dial *d, int *ret, int *ret_errno)
{
    if (!atomic_load(&d->done))
        return false;
    pthread_join(d->thread, NULL);
    *ret = d->result;
    *ret_errno = d->error;
    free(d);
    return true;
}

bool mqsync_dial_abandon(struct mqsync_dial *d)
{
    int result, error;

    if (mqsync_dial_done(d, &result, &error))
        return true;
    pthread_detach(d->thread);
    return false;
}
