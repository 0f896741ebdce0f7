/* SPDX-License-Identifier: BSD-3-Clause */
#include "tunnel.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "forwarded.h"
#include "server.h"
#include "stream.h"
#include "tls.h"

enum {
    BATCH = 64,          /* broker connections served before the clients get their turn */
    FIRST_MS = 10000,    /* for a client to send anything at all */
    CONNECT_MS = 10000,  /* for the broker to accept the connection */
    LINGER_MS = 5000,    /* for one side to end after the other has */
    LOOK_EVERY_MS = 500, /* for what has taken too long */
    PING_BYTES = 4,      /* libwebsockets keeps quiet about the answer to an empty one */
};

struct mqsync_tunnel {
    struct mqsync_tunnel *next, *previous;
    struct mqsync_tunnels *all;
    struct lws *wsi;             /* NULL: the client is gone */
    struct mqsync_stream broker; /* fd -1: not yet, or no more */
    uint32_t watching;           /* what epoll waits for; 0: for nothing */
    struct mqsync_buf out;       /* what the broker has not taken yet; the client is not read meanwhile */
    size_t out_at;               /* sent of it */
    bool choked;                 /* the client has not taken everything yet; the broker is not read meanwhile */
    bool heard;                  /* the client has sent something, ever */
    bool hung_up;                /* the client has said all it had to say */
    bool deaf;                   /* the broker takes nothing more, but may have something to say */
    bool pinged;                 /* since the client was last heard of */
    uint16_t close_code;         /* 0: not closing */
    const char *close_reason;
    int64_t heard_ms;
    int64_t deadline_ms; /* for what is under way; 0: nothing is */
    char address[MQSYNC_ADDRESS_LEN];
};

struct mqsync_tunnels {
    struct mqsync_bridge *bridge;
    struct mqsync_tunnel *first;
    struct mqsync_stream_tls *tls;
    int epoll;
    int64_t look_ms;
    unsigned char room[LWS_PRE]; /* before the chunk, for the frame's header */
    unsigned char chunk[MQSYNC_TUNNEL_TX];
};

static int64_t now_ms(void)
{
    return mqsync_monotonic_us() / 1000;
}

/* --- endings ------------------------------------------------------------------------------------------------------ */

static void watch(struct mqsync_tunnel *t)
{
    struct epoll_event e = {.data.ptr = t};
    int operation;

    if (t->broker.fd < 0)
        return;
    if (!t->broker.connected) {
        e.events = (t->broker.wants_read ? EPOLLIN : 0) | (t->broker.wants_write ? EPOLLOUT : 0);
    } else {
        e.events = (t->choked ? 0 : EPOLLIN) | (t->out.n || t->broker.wants_write ? EPOLLOUT : 0);
    }
    if (e.events == t->watching)
        return;
    /* out of it altogether: a connection that is gone would be reported again and again */
    operation = !e.events ? EPOLL_CTL_DEL : t->watching ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    epoll_ctl(t->all->epoll, operation, t->broker.fd, &e);
    t->watching = e.events;
}

static void close_broker(struct mqsync_tunnel *t)
{
    mqsync_stream_close(&t->broker);
    mqsync_buf_free(&t->out);
    t->watching = 0;
    t->out_at = 0;
}

/* Once neither side is left. */
static void free_if_over(struct mqsync_tunnel *t)
{
    if (t->wsi || t->broker.fd >= 0)
        return;
    if (t->next)
        t->next->previous = t->previous;
    *(t->previous ? &t->previous->next : &t->all->first) = t->next;
    free(t);
}

/* Ends the tunnel from this side: what has been sent to the client goes out first, then the WebSocket is closed. */
static void end(struct mqsync_tunnel *t, uint16_t code, const char *reason)
{
    close_broker(t);
    if (!t->wsi || t->close_code || t->hung_up)
        return;
    t->close_code = code;
    t->close_reason = reason;
    t->deadline_ms = now_ms() + LINGER_MS;
    mqsync_tls_flow(t->wsi, true); /* or its answer to the close would not be seen */
    lws_callback_on_writable(t->wsi);
}

static void blame_broker(struct mqsync_tunnel *t, uint16_t code, const char *reason, const char *why)
{
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3040", "the MQTT tunnel of %s: %s: %s", t->address, reason, why);
    end(t, code, reason);
}

static void blame_client(struct mqsync_tunnel *t, uint16_t code, const char *reason)
{
    mqsync_log(MQSYNC_LOG_WARNING, "MQS3041", "the MQTT tunnel of %s is closed: %s", t->address, reason);
    end(t, code, reason);
}

/* The client is going: the broker gets what is left, and then the end, so that it publishes the will. */
static void hang_up(struct mqsync_tunnel *t)
{
    if (t->hung_up)
        return;
    t->hung_up = true;
    t->choked = false;
    t->deadline_ms = now_ms() + LINGER_MS;
    if (t->broker.connected && !t->out.n)
        mqsync_stream_finish(&t->broker);
    watch(t);
}

/* --- from the client to the broker -------------------------------------------------------------------------------- */

/* The broker takes nothing more; what it has said can still be read. */
static void go_deaf(struct mqsync_tunnel *t)
{
    t->deaf = true;
    mqsync_buf_free(&t->out);
    t->out_at = 0;
}

static void flush(struct mqsync_tunnel *t)
{
    while (t->out_at < t->out.n) {
        ssize_t n = mqsync_stream_write(&t->broker, t->out.p + t->out_at, t->out.n - t->out_at);
        if (n == MQSYNC_STREAM_AGAIN)
            return;
        if (n < 0) {
            go_deaf(t);
            break;
        }
        t->out_at += (size_t)n;
    }
    mqsync_buf_free(&t->out);
    t->out_at = 0;
    if (t->hung_up)
        mqsync_stream_finish(&t->broker);
    else if (t->wsi)
        mqsync_tls_flow(t->wsi, true);
}

static void to_broker(struct mqsync_tunnel *t, const char *bytes, size_t n)
{
    ssize_t written = 0;

    if (t->deaf)
        return;
    if (t->broker.connected && !t->out.n) {
        written = mqsync_stream_write(&t->broker, bytes, n);
        if (written == MQSYNC_STREAM_FAILED) {
            go_deaf(t);
            return;
        }
        written = written < 0 ? 0 : written;
    }
    if ((size_t)written < n) {
        mqsync_buf_add(&t->out, bytes + written, n - (size_t)written);
        if (t->out.failed) {
            end(t, MQSYNC_CLOSE_FAILURE, "out of memory");
            return;
        }
        mqsync_tls_flow(t->wsi, false);
    }
    watch(t);
}

static void dial(struct mqsync_tunnel *t)
{
    struct mqsync_upstream_peer peer;
    char why[256] = "it has not been reached yet";

    mqsync_upstream_peer(t->all->bridge->upstream, &peer);
    if (!peer.address_n || !mqsync_stream_open(&peer, &t->all->tls, &t->broker, why, sizeof(why))) {
        blame_broker(t, MQSYNC_CLOSE_TRY_AGAIN, "the broker cannot be reached", why);
        return;
    }
    t->deadline_ms = now_ms() + CONNECT_MS;
    watch(t);
}

static void on_received(struct mqsync_tunnel *t, const char *in, size_t n)
{
    t->heard_ms = now_ms();
    t->pinged = false;
    if (t->close_code || t->hung_up)
        return;
    if (!lws_frame_is_binary(t->wsi)) {
        blame_client(t, MQSYNC_CLOSE_UNSUPPORTED, "MQTT comes in binary frames");
        return;
    }
    if (n == 0)
        return;
    t->all->bridge->metrics.tunnel_bytes_in += n;
    /* only now: whoever has nothing to say costs the broker nothing */
    if (!t->heard)
        dial(t);
    t->heard = true;
    if (t->broker.fd >= 0)
        to_broker(t, in, n);
}

/* --- from the broker to the client -------------------------------------------------------------------------------- */

static void kill_client(struct mqsync_tunnel *t)
{
    if (t->wsi)
        lws_set_timeout(t->wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
}

static void to_client(struct mqsync_tunnel *t, size_t n)
{
    t->all->bridge->metrics.tunnel_bytes_out += n;
    if (lws_write(t->wsi, t->all->chunk, n, LWS_WRITE_BINARY) < 0) {
        hang_up(t);
        kill_client(t);
        return;
    }
    /* libwebsockets keeps what the socket has not taken, and says when that is out */
    t->choked = lws_partial_buffered(t->wsi);
}

/* t may be freed. */
static void from_broker(struct mqsync_tunnel *t)
{
    ssize_t n = mqsync_stream_read(&t->broker, t->all->chunk, sizeof(t->all->chunk));

    if (n > 0 && t->wsi && !t->hung_up)
        to_client(t, (size_t)n);
    else if (n == MQSYNC_STREAM_END)
        end(t, MQSYNC_CLOSE_GOING_AWAY, "the broker has closed the connection");
    else if (n == MQSYNC_STREAM_FAILED && !t->hung_up)
        blame_broker(t, MQSYNC_CLOSE_FAILURE, "the connection to the broker has failed", "reset");
    else if (n == MQSYNC_STREAM_FAILED)
        close_broker(t);
    watch(t);
    free_if_over(t);
}

static void on_writable(struct mqsync_tunnel *t)
{
    t->choked = false;
    if (t->broker.connected && !t->hung_up)
        from_broker(t); /* which leaves it: it has a client */
}

/* --- the broker's side -------------------------------------------------------------------------------------------- */

/* t may be freed. */
static void on_connecting(struct mqsync_tunnel *t)
{
    char why[256];
    int result = mqsync_stream_connect(&t->broker, why, sizeof(why));

    if (result == MQSYNC_STREAM_FAILED) {
        blame_broker(t, MQSYNC_CLOSE_TRY_AGAIN, "the broker cannot be reached", why);
    } else if (result == 0) {
        t->deadline_ms = t->hung_up ? t->deadline_ms : 0;
        flush(t);
    }
    watch(t);
    free_if_over(t);
}

static void on_broker(struct mqsync_tunnel *t)
{
    if (!t->broker.connected) {
        on_connecting(t);
        return;
    }
    if (t->out.n)
        flush(t);
    if (t->choked)
        watch(t);
    else
        from_broker(t);
}

static void on_brokers(struct mqsync_tunnels *all)
{
    struct epoll_event events[BATCH];
    int n = epoll_wait(all->epoll, events, BATCH, 0);

    /* each handler ends at most its own tunnel */
    for (int i = 0; i < n; i++)
        on_broker(events[i].data.ptr);
}

/* --- the client's side -------------------------------------------------------------------------------------------- */

bool mqsync_tunnel_speaks(const char *subprotocol)
{
    return strcmp(subprotocol, "mqtt") == 0 || strcmp(subprotocol, "mqttv3.1") == 0;
}

/* server.c has looked at the subprotocols as well, but it is libwebsockets that chooses. */
static int on_filter(struct lws *wsi)
{
    char path[sizeof("/mqtt")];

    return lws_hdr_copy(wsi, path, sizeof(path), WSI_TOKEN_GET_URI) > 0 && strcmp(path, "/mqtt") == 0 ? 0 : -1;
}

static int on_established(struct mqsync_bridge *b, struct mqsync_tunnel **ret, struct lws *wsi)
{
    struct mqsync_tunnel *t = calloc(1, sizeof(*t));

    if (!t)
        return -1;
    strncpy(t->address, mqsync_server_client(wsi), sizeof(t->address) - 1);
    t->all = b->tunnels;
    t->wsi = wsi;
    t->broker.fd = -1;
    t->heard_ms = now_ms();
    t->deadline_ms = t->heard_ms + FIRST_MS;
    t->next = t->all->first;
    if (t->next)
        t->next->previous = t;
    t->all->first = t;
    b->metrics.connections++;
    b->metrics.connections_total++;
    b->metrics.tunnels++;
    *ret = t;
    return 0;
}

static void on_closed(struct mqsync_tunnel *t)
{
    struct mqsync_bridge *b = t->all->bridge;

    b->metrics.connections--;
    b->metrics.tunnels--;
    hang_up(t);
    t->wsi = NULL;
    free_if_over(t);
}

int mqsync_tunnel_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    struct mqsync_tunnel **tunnel = user;

    switch (reason) {
    case LWS_CALLBACK_RAW_RX_FILE:
        on_brokers(mqsync_server_bridge(wsi)->tunnels);
        return 0;
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return on_filter(wsi);
    case LWS_CALLBACK_CONFIRM_EXTENSION_OKAY:
        return 1; /* no permessage-deflate: bytes pass as they come */
    case LWS_CALLBACK_ESTABLISHED:
        return on_established(mqsync_server_bridge(wsi), tunnel, wsi);
    case LWS_CALLBACK_RECEIVE:
        on_received(*tunnel, in, n);
        return 0;
    case LWS_CALLBACK_RECEIVE_PONG:
        (*tunnel)->heard_ms = now_ms();
        (*tunnel)->pinged = false;
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        if ((*tunnel)->close_code) {
            const char *text = (*tunnel)->close_reason;
            lws_close_reason(wsi, (enum lws_close_status)(*tunnel)->close_code, (unsigned char *)(uintptr_t)text,
                             strlen(text));
            return -1;
        }
        on_writable(*tunnel);
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        hang_up(*tunnel);
        return 0;
    case LWS_CALLBACK_CLOSED:
        if (*tunnel)
            on_closed(*tunnel);
        *tunnel = NULL;
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, in, n);
    }
}

/* --- time --------------------------------------------------------------------------------------------------------- */

/* What was under way has taken too long; t may be freed. */
static void give_up(struct mqsync_tunnel *t)
{
    t->deadline_ms = 0;
    if (t->close_code) {
        kill_client(t);
    } else if (t->hung_up) {
        close_broker(t);
        free_if_over(t);
    } else if (t->broker.fd >= 0) {
        blame_broker(t, MQSYNC_CLOSE_TRY_AGAIN, "the broker cannot be reached", "no answer in time");
    } else {
        blame_client(t, MQSYNC_CLOSE_POLICY, "no MQTT came in time");
    }
}

/* A client that says nothing is asked for a sign of life; how long MQTT may be silent is the broker's business. */
static void look_after(struct mqsync_tunnel *t, int64_t now)
{
    int64_t idle_ms = (int64_t)t->all->bridge->config->bridge.idle_timeout_seconds * 1000;
    unsigned char ping[LWS_PRE + PING_BYTES] = {0};

    if (t->out.n)
        t->heard_ms = now; /* it is not being listened to */
    if (idle_ms == 0 || now - t->heard_ms < idle_ms)
        return;
    if (now - t->heard_ms >= 2 * idle_ms) {
        blame_client(t, MQSYNC_CLOSE_GOING_AWAY, "no sign of life");
    } else if (!t->pinged && !t->choked) {
        t->pinged = true;
        if (lws_write(t->wsi, ping + LWS_PRE, PING_BYTES, LWS_WRITE_PING) < 0)
            kill_client(t);
    }
}

void mqsync_tunnels_tick(struct mqsync_tunnels *all, int64_t now)
{
    if (now < all->look_ms)
        return;
    all->look_ms = now + LOOK_EVERY_MS;
    for (struct mqsync_tunnel *t = all->first, *next; t; t = next) {
        next = t->next;
        if (t->deadline_ms && now >= t->deadline_ms)
            give_up(t);
        else if (t->wsi && !t->deadline_ms)
            look_after(t, now);
    }
}

/* --- life --------------------------------------------------------------------------------------------------------- */

enum mqsync_code mqsync_tunnels_open(struct mqsync_bridge *b, struct lws_vhost *vhost, struct mqsync_tunnels **ret,
                                     struct mqsync_error *ret_error)
{
    struct mqsync_tunnels *all = calloc(1, sizeof(*all));
    lws_sock_file_fd_type watched;

    if (!all)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    all->bridge = b;
    all->epoll = epoll_create1(EPOLL_CLOEXEC);
    watched.filefd = all->epoll < 0 ? -1 : dup(all->epoll); /* which libwebsockets closes */
    if (watched.filefd < 0 || !lws_adopt_descriptor_vhost(vhost, LWS_ADOPT_RAW_FILE_DESC, watched, "mqtt", NULL)) {
        mqsync_tunnels_close(all);
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot wait for the broker's connections");
    }
    *ret = all;
    return MQSYNC_OK;
}

void mqsync_tunnels_end(struct mqsync_tunnels *all)
{
    for (struct mqsync_tunnel *t = all->first, *next; t; t = next) {
        next = t->next;
        end(t, MQSYNC_CLOSE_GOING_AWAY, "the server is stopping");
        free_if_over(t);
    }
}

void mqsync_tunnels_close(struct mqsync_tunnels *all)
{
    if (!all)
        return;
    while (all->first) {
        all->first->wsi = NULL;
        close_broker(all->first);
        free_if_over(all->first);
    }
    mqsync_stream_tls_close(all->tls);
    if (all->epoll >= 0)
        close(all->epoll);
    free(all);
}
