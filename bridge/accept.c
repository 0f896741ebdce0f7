/* SPDX-License-Identifier: BSD-3-Clause */
#include "accept.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    AT_ONCE = 32,      /* connections let in before the others get their turn */
    EXCESS_MAX = 32,   /* connections too many that are told so at the same time; others are just closed */
    PAUSE_MS = 500,    /* when there are no descriptors left */
    START_MS = 1000,   /* before the first is let in, unless the broker has answered */
    REQUEST_MS = 9000, /* one that has lived longer and sent no request was ended for that by libwebsockets */
};

struct mqsync_acceptor {
    struct mqsync_bridge *bridge;
    struct lws_vhost *vhost;
    struct mqsync_listener listener;
    struct lws *listening[MQSYNC_LISTENERS_MAX];
    struct mqsync_peer *peers, *free, *letting_in;
    size_t used;       /* of peers, ever: those behind have not been touched */
    size_t max, n;     /* connections */
    int64_t resume_ms; /* 0: not pausing */
    bool started;      /* the first may have been let in */
};

/* --- peers -------------------------------------------------------------------------------------------------------- */

/* NULL: there are too many by far. */
static struct mqsync_peer *take_peer(struct mqsync_acceptor *a, const char *address)
{
    struct mqsync_peer *p = a->free;

    if (p)
        a->free = p->next;
    else if (a->used < a->max + EXCESS_MAX)
        p = &a->peers[a->used++];
    else
        return NULL;
    *p = (struct mqsync_peer){.in_use = true, .since_ms = mqsync_monotonic_us() / 1000, .excess = a->n >= a->max};
    strcpy(p->address, address);
    strcpy(p->client, address);
    a->n++;
    return p;
}

static void give_back(struct mqsync_acceptor *a, struct mqsync_peer *p)
{
    p->in_use = false;
    p->next = a->free;
    a->free = p;
    a->n--;
}

/* A connection carries a pointer to its peer. Others, such as the one to the broker, may carry something else. */
struct mqsync_peer *mqsync_acceptor_peer(struct mqsync_acceptor *a, struct lws *wsi)
{
    uintptr_t p = (uintptr_t)lws_get_opaque_user_data(wsi), first = (uintptr_t)a->peers;

    return p >= first && p < first + (a->max + EXCESS_MAX) * sizeof(*a->peers) ? (struct mqsync_peer *)p : NULL;
}

void mqsync_acceptor_gone(struct mqsync_acceptor *a, struct lws *wsi)
{
    struct mqsync_peer *p = mqsync_acceptor_peer(a, wsi);

    if (!p || !p->in_use)
        return;
    if (a->letting_in == p)
        a->letting_in = NULL;
    if (!p->asked && mqsync_monotonic_us() / 1000 - p->since_ms >= REQUEST_MS)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3027", "%s has sent no whole request in time: closed", p->address);
    give_back(a, p);
}

/* --- letting in --------------------------------------------------------------------------------------------------- */

static void refuse(struct mqsync_acceptor *a, const char *address)
{
    a->bridge->metrics.refused_connections++;
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3025", "refused %s: there are %zu connections already", address, a->max);
}

static void let_in(struct mqsync_acceptor *a, int fd, const char *address)
{
    lws_adopt_desc_t adopt = {
        .vh = a->vhost, .type = LWS_ADOPT_SOCKET | LWS_ADOPT_HTTP | LWS_ADOPT_ALLOW_SSL, .fd.sockfd = fd};

    if (a->n >= a->max)
        refuse(a, address);
    a->letting_in = take_peer(a, address);
    if (!a->letting_in) {
        close(fd);
        return;
    }
    adopt.opaque = a->letting_in;
    /* on failure the descriptor is closed, and mqsync_acceptor_gone() was called, or not */
    if (!lws_adopt_descriptor_vhost_via_info(&adopt) && a->letting_in)
        give_back(a, a->letting_in);
    a->letting_in = NULL;
}

static void take_a_break(struct mqsync_acceptor *a, int64_t ms)
{
    a->resume_ms = mqsync_monotonic_us() / 1000 + ms;
    for (size_t i = 0; i < a->listener.n; i++)
        lws_rx_flow_control(a->listening[i], 0);
}

void mqsync_acceptor_readable(struct mqsync_acceptor *a, struct lws *wsi)
{
    char address[MQSYNC_ADDRESS_LEN];

    for (int i = 0; i < AT_ONCE && !a->resume_ms; i++) {
        int fd = mqsync_listener_accept(lws_get_socket_fd(wsi), address);
        if (fd >= 0)
            let_in(a, fd, address);
        else if (errno == EAGAIN)
            return;
        else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* the connections that cannot be taken stay where they are, so waiting for them would return at once, again
             * and again; a while later there may be room */
            mqsync_log(MQSYNC_LOG_ERROR, "MQS3030", "cannot accept connections: %s; they wait", strerror(errno));
            take_a_break(a, PAUSE_MS);
        }
        /* any other error is that of one connection, which is gone already */
    }
}

void mqsync_acceptor_tick(struct mqsync_acceptor *a, int64_t now_ms)
{
    bool first = !a->started && mqsync_upstream_is_up(a->bridge->upstream);

    if (!a->resume_ms || (now_ms < a->resume_ms && !first))
        return;
    a->started = true;
    a->resume_ms = 0;
    for (size_t i = 0; i < a->listener.n; i++)
        lws_rx_flow_control(a->listening[i], 1);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

enum mqsync_code mqsync_acceptor_open(struct mqsync_bridge *b, struct mqsync_acceptor **ret,
                                      struct mqsync_error *ret_error)
{
    struct mqsync_acceptor *a = calloc(1, sizeof(*a));
    unsigned wanted = b->config->bridge.max_connections, room = mqsync_listener_room(wanted);
    enum mqsync_code code;

    if (a)
        a->peers = calloc((size_t)room + EXCESS_MAX, sizeof(*a->peers));
    if (!a || !a->peers) {
        free(a);
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    }
    a->bridge = b;
    a->max = room;
    code = mqsync_listener_open(b->config, &a->listener, ret_error);
    if (code != MQSYNC_OK) {
        mqsync_acceptor_close(a);
        return code;
    }
    if (room < wanted)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3031",
                   "bridge.maxConnections is %u, but the limit of open files leaves room for %u", wanted, room);
    *ret = a;
    return MQSYNC_OK;
}

bool mqsync_acceptor_start(struct mqsync_acceptor *a, struct lws_vhost *vhost)
{
    a->vhost = vhost;
    for (size_t i = 0; i < a->listener.n; i++) {
        lws_sock_file_fd_type fd = {.filefd = a->listener.fds[i]};
        a->listening[i] = lws_adopt_descriptor_vhost(vhost, LWS_ADOPT_RAW_FILE_DESC, fd, MQSYNC_ACCEPT_PROTOCOL, NULL);
        if (!a->listening[i])
            return false;
    }
    take_a_break(a, START_MS);
    return true;
}

bool mqsync_acceptor_started(const struct mqsync_acceptor *a)
{
    return a->started;
}

void mqsync_acceptor_stop(struct mqsync_acceptor *a)
{
    for (size_t i = 0; i < a->listener.n; i++)
        lws_set_timeout(a->listening[i], PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
    a->listener.n = 0; /* libwebsockets closes them */
    a->resume_ms = 0;
    a->started = true;
}

void mqsync_acceptor_close(struct mqsync_acceptor *a)
{
    if (!a)
        return;
    if (!a->vhost)
        mqsync_listener_close(&a->listener);
    free(a->peers);
    free(a);
}

void mqsync_acceptor_log(const struct mqsync_acceptor *a)
{
    char where[128];

    for (size_t i = 0; i < a->listener.n; i++) {
        mqsync_listener_where(a->listener.fds[i], where, sizeof(where));
        mqsync_log(MQSYNC_LOG_INFO, "MQS3001", "listening on %s%s%s", where,
                   a->bridge->config->bridge.tls_cert_file ? " with TLS" : "",
                   a->listener.inherited ? ", a socket of the service manager's" : "");
    }
}
