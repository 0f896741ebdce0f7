/* SPDX-License-Identifier: BSD-3-Clause */
#include "server.h"

#include <libwebsockets.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "accept.h"
#include "exchange.h"
#include "http.h"
#include "inflate.h"
#include "service.h"
#include "session.h"
#include "tls.h"
#include "tunnel.h"

enum {
    TICK_US = 100000,
    TICK_STARTING_US = 2000, /* while clients may be waiting for the first answer of the broker */
    STOP_US = 5000000,
    RX_BYTES = 1024,
    TX_BYTES = 65536,     /* in one write; else it would be that of reading */
    HEADER_BYTES = 12288, /* of a request: a token in the URL is long */
    PATH_MAX_BYTES = 2048,
    AT_ONCE = 64,           /* messages to one connection before the others get their turn */
    TOGETHER_BYTES = 32768, /* of messages that leave in one write */
    FLUSH_US = 8000,        /* at most, before whoever has sent something gets his turn */
    READS_MAX = 64,         /* of RX_BYTES from one connection before the others get their turn */
};

_Static_assert(LWS_PRE <= MQSYNC_FRAME_ROOM, "room for the WebSocket header");

struct mqsync_server {
    struct mqsync_bridge *bridge;
    struct lws_context *context;
    struct lws_vhost *vhost;
    struct lws *upstream; /* NULL: not watched */
    struct lws *signals;
    struct mqsync_acceptor *acceptor;
    struct mqsync_tls *tls;              /* NULL: none */
    int64_t watchdog_us, watchdog_at_us; /* how often the service manager is told that the loop runs; 0: never */
    lws_sorted_usec_list_t tick, pump, stop, write, flush;
    int64_t pump_at_us;         /* INT64_MAX: not asked for */
    lws_dll2_owner_t awake;     /* sockets that have something to write */
    struct mqsync_socket *busy; /* the last one that was read from in this turn; NULL: none */
    bool stopped;
    unsigned char together[TOGETHER_BYTES];
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

static struct mqsync_server *server_of(struct lws *wsi)
{
    return lws_context_user(lws_get_context(wsi));
}

struct mqsync_bridge *mqsync_server_bridge(struct lws *wsi)
{
    return server_of(wsi)->bridge;
}

const char *mqsync_server_client(struct lws *wsi)
{
    const struct mqsync_peer *peer = mqsync_acceptor_peer(server_of(wsi)->acceptor, wsi);

    return peer ? peer->client : "";
}

/* --- what the others call ----------------------------------------------------------------------------------------- */

static void on_flush(lws_sorted_usec_list_t *sul);

/* What has become known in this turn of the loop is written at its end, all that there is for one socket together,
 * without asking first whether the socket takes it. Compressed messages go through the library's turns. */
void mqsync_socket_wake(struct mqsync_socket *s)
{
    struct mqsync_server *server = server_of(s->wsi);

    if (s->deflate) {
        lws_callback_on_writable(s->wsi);
        return;
    }
    if (!lws_dll2_is_detached(&s->awake))
        return;
    if (!server->awake.count)
        mqsync_server_turn_over(server);
    lws_dll2_add_tail(&s->awake, &server->awake);
}

void mqsync_server_turn_over(struct mqsync_server *s)
{
    lws_sul_schedule(s->context, 0, &s->flush, on_flush, 1);
}

void mqsync_socket_pause(struct mqsync_socket *s, bool pause)
{
    lws_rx_flow_control(s->wsi, !pause);
}

void mqsync_socket_kill(struct mqsync_socket *s)
{
    lws_set_timeout(s->wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
}

int64_t mqsync_socket_silent_ms(struct mqsync_socket *s)
{
    struct tcp_info info;
    socklen_t n = sizeof(info);

    if (getsockopt(lws_get_socket_fd(s->wsi), IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
        return INT64_MAX;
    return info.tcpi_last_data_recv;
}

static void on_pump(lws_sorted_usec_list_t *sul)
{
    struct mqsync_server *s = lws_container_of(sul, struct mqsync_server, pump);

    s->pump_at_us = INT64_MAX;
    mqsync_feeds_pump(s->bridge);
    mqsync_rests_pump(s->bridge);
}

void mqsync_server_pump_in(struct mqsync_server *s, int64_t us)
{
    int64_t at = mqsync_monotonic_us() + us;

    if (at >= s->pump_at_us)
        return;
    s->pump_at_us = at;
    lws_sul_schedule(s->context, 0, &s->pump, on_pump, us > 0 ? us : 1);
}

static void on_write(lws_sorted_usec_list_t *sul)
{
    struct mqsync_server *s = lws_container_of(sul, struct mqsync_server, write);

    if (s->upstream)
        lws_callback_on_writable(s->upstream);
}

void mqsync_server_watch_upstream(struct mqsync_server *s, int fd, bool write)
{
    static const char protocol[] = "mqsync-upstream";
    lws_sock_file_fd_type adopted;

    if (s->upstream && fd < 0) {
        struct lws *old = s->upstream;
        s->upstream = NULL;
        lws_set_timeout(old, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
        return;
    }
    if (!s->upstream && fd >= 0) {
        /* a copy: both sides close theirs */
        adopted.filefd = dup(fd);
        s->upstream = adopted.filefd < 0
                          ? NULL
                          : lws_adopt_descriptor_vhost(s->vhost, LWS_ADOPT_RAW_FILE_DESC, adopted, protocol, NULL);
    }
    /* from the loop: a wish uttered while the descriptor is being written is forgotten by libwebsockets */
    if (s->upstream && write)
        lws_sul_schedule(s->context, 0, &s->write, on_write, 1);
}

/* --- plain HTTP --------------------------------------------------------------------------------------------------- */

static int respond(struct lws *wsi, struct mqsync_http_answer *a)
{
    unsigned char head[LWS_PRE + 1024], *start = head + LWS_PRE, *p = start, *end = head + sizeof(head) - 1;
    struct mqsync_buf body = {0};
    char room[LWS_PRE] = {0};
    int result = -1;

    mqsync_buf_add(&body, room, sizeof(room));
    mqsync_buf_add_slice(&body, mqsync_buf_slice(&a->body));
    if (!a->body.failed && !body.failed &&
        !lws_add_http_common_headers(wsi, a->status, a->content_type, a->body.n, &p, end) &&
        !lws_finalize_write_http_header(wsi, start, &p, end) &&
        lws_write(wsi, (unsigned char *)body.p + LWS_PRE, a->body.n, LWS_WRITE_HTTP_FINAL) >= 0)
        result = 0;
    mqsync_buf_free(&body);
    mqsync_buf_free(&a->body);
    return result;
}

static bool header(struct lws *wsi, enum lws_token_indexes which, char *out, size_t size)
{
    int n = lws_hdr_total_length(wsi, which);

    out[0] = '\0';
    return n <= 0 || ((size_t)n < size && lws_hdr_copy(wsi, out, (int)size, which) >= 0);
}

/* A request has come: where from, and whether the connection is one too many, which gets *ret and nothing else. */
static bool too_many(struct mqsync_server *s, struct lws *wsi, struct mqsync_http_answer *ret)
{
    struct mqsync_peer *peer = mqsync_acceptor_peer(s->acceptor, wsi);
    char forwarded[HEADER_BYTES];

    if (!peer)
        return false;
    peer->asked = true;
    if (!header(wsi, WSI_TOKEN_X_FORWARDED_FOR, forwarded, sizeof(forwarded)))
        forwarded[0] = '\0';
    mqsync_forwarded(s->bridge->config, peer->address, mqsync_slice_str(forwarded), peer->client);
    if (peer->excess)
        mqsync_http_fail(503, MQSYNC_SERVER_ERROR, "there are too many connections", ret);
    return peer->excess;
}

static int on_http(struct mqsync_server *s, struct mqsync_socket *socket, struct lws *wsi, struct mqsync_slice path)
{
    struct mqsync_http_answer answer = {0};

    if (too_many(s, wsi, &answer)) {
        respond(wsi, &answer);
        return -1;
    }
    return mqsync_exchange_begin(s->bridge, wsi, path, &socket->exchange);
}

/* --- from HTTP to WebSocket --------------------------------------------------------------------------------------- */

/* Whether the subprotocol that libwebsockets will choose, the first in the client's list that it knows, is one for this
 * path: all the names in its table would be served, those for descriptors too. */
static bool subprotocol_fits(struct lws *wsi, bool tunnel)
{
    char list[128], *rest = list, *name;

    if (!header(wsi, WSI_TOKEN_PROTOCOL, list, sizeof(list)))
        return false;
    if (!*list)
        return !tunnel;
    while ((name = strsep(&rest, ", \t")))
        if (lws_vhost_name_to_protocol(lws_get_vhost(wsi), name))
            return tunnel ? mqsync_tunnel_speaks(name) : strcmp(name, "mqsync") == 0;
    return false;
}

/* 0: goes on; 1: refused and answered; -1: to be closed. */
static int on_upgrade(struct mqsync_server *s, struct lws *wsi, const char *to)
{
    struct mqsync_http_answer answer = {0};
    char path[PATH_MAX_BYTES], origin[512];
    const char *collections;
    bool got = header(wsi, WSI_TOKEN_GET_URI, path, sizeof(path)), tunnel = got && strcmp(path, "/mqtt") == 0;

    if (too_many(s, wsi, &answer))
        return respond(wsi, &answer) ? -1 : 1;
    if (!got || strcmp(to, "websocket") != 0 ||
        !(tunnel ? s->bridge->config->bridge.mqtt : mqsync_http_is_websocket(path, &collections)))
        mqsync_http_fail(404, MQSYNC_INVALID_MESSAGE, "there is no WebSocket at this path", &answer);
    else if (!header(wsi, WSI_TOKEN_ORIGIN, origin, sizeof(origin)) ||
             !mqsync_http_origin_allowed(s->bridge->config, mqsync_slice_str(origin)))
        mqsync_http_fail(403, MQSYNC_UNAUTHORIZED, "pages of this origin are not allowed here", &answer);
    else if (!subprotocol_fits(wsi, tunnel))
        mqsync_http_fail(400, MQSYNC_INVALID_MESSAGE,
                         tunnel ? "the WebSocket subprotocol here is mqtt" : "no such WebSocket subprotocol here",
                         &answer);
    else if (s->bridge->stopping)
        mqsync_http_fail(503, MQSYNC_SERVER_ERROR, "the server is stopping", &answer);
    else
        return 0;
    return respond(wsi, &answer) ? -1 : 1;
}

/* libwebsockets gets the window sizes of the two directions mixed up; only clients that ask for a size notice. */
static bool asks_for_window(struct lws *wsi)
{
    char extensions[1024];

    return !header(wsi, WSI_TOKEN_EXTENSIONS, extensions, sizeof(extensions)) ||
           strstr(extensions, "server_max_window_bits");
}

/* The last moment at which the request's headers are there. */
static int keep_request(struct mqsync_socket *socket, struct lws *wsi)
{
    char path[PATH_MAX_BYTES], extensions[1024], token[HEADER_BYTES]; /* one that is too long is refused as such */
    const char *collections, *value;

    if (!header(wsi, WSI_TOKEN_GET_URI, path, sizeof(path)) || !mqsync_http_is_websocket(path, &collections))
        return -1;
    if (collections && !(socket->path = strdup(collections)))
        return -1;
    value = lws_get_urlarg_by_name(wsi, "token=", token, sizeof(token));
    if (value && !(socket->token = strdup(value)))
        return -1;
    socket->deflate =
        !header(wsi, WSI_TOKEN_EXTENSIONS, extensions, sizeof(extensions)) || strstr(extensions, "permessage-deflate");
    return 0;
}

static int on_established(struct mqsync_server *s, struct mqsync_socket *socket, struct lws *wsi)
{
    socket->wsi = wsi;
    socket->session = mqsync_session_open(s->bridge, socket, mqsync_server_client(wsi), socket->path,
                                          mqsync_slice_str(socket->token));
    free(socket->path);
    if (socket->token)
        explicit_bzero(socket->token, strlen(socket->token));
    free(socket->token);
    socket->path = socket->token = NULL;
    return socket->session ? 0 : -1;
}

/* --- messages ----------------------------------------------------------------------------------------------------- */

/* The library reads RX_BYTES from a connection in a turn of the loop. Where there are likely to be more, they are read
 * before the turn ends: the more commands leave together, the less each of them costs. */
static void read_on(struct mqsync_server *s)
{
    struct pollfd fd = {.fd = s->busy ? lws_get_socket_fd(s->busy->wsi) : -1};

    for (int i = 0; i < READS_MAX && s->busy && s->busy->received_n >= RX_BYTES / 2; i++) {
        s->busy->received_n = 0;
        fd.events = fd.revents = POLLIN;
        lws_service_fd(s->context, &fd);
    }
    s->busy = NULL;
}

static void note_busy(struct mqsync_server *s, struct mqsync_socket *socket, size_t n)
{
    if (s->busy != socket)
        socket->received_n = 0;
    s->busy = socket;
    socket->received_n += (uint32_t)n;
}

static int on_receive(struct mqsync_server *s, struct mqsync_socket *socket, const char *in, size_t n)
{
    size_t max = s->bridge->config->limits.max_record_bytes + MQSYNC_ENVELOPE_MAX;
    bool last = lws_is_final_fragment(socket->wsi) && lws_remaining_packet_payload(socket->wsi) == 0;
    struct mqsync_slice text = {in, n};

    note_busy(s, socket, n);
    mqsync_session_heard(socket->session, mqsync_monotonic_us() / 1000);
    if (socket->too_long) {
        /* closed in the middle of it, the peer would lose what it was told */
        if (last)
            mqsync_session_too_long_over(socket->session);
        return 0;
    }
    size_t room = max - socket->received.n;
    /* apart: of a frame without mask whose long form says 0 the library believes that 2^64 - 1 bytes are to come */
    if (n > room || lws_remaining_packet_payload(socket->wsi) > room - n) {
        socket->too_long = true;
        mqsync_buf_free(&socket->received);
        mqsync_session_receive_too_long(socket->session, max);
        if (last)
            mqsync_session_too_long_over(socket->session);
        return 0;
    }
    if (!last || socket->received.n) {
        mqsync_buf_add(&socket->received, in, n);
        if (socket->received.failed)
            return -1;
        text = mqsync_buf_slice(&socket->received);
    }
    if (!last)
        return 0;
    if (lws_frame_is_binary(socket->wsi))
        mqsync_session_receive_binary(socket->session);
    else
        mqsync_session_receive(socket->session, text);
    mqsync_buf_free(&socket->received);
    return 0;
}

/* Closes once the code is known. -1: the library is to close. */
static int end(struct mqsync_socket *socket, uint16_t code, const char *reason)
{
    if (!code)
        return 0;
    socket->closing = true;
    lws_close_reason(socket->wsi, (enum lws_close_status)code, (unsigned char *)(uintptr_t)reason, strlen(reason));
    return -1;
}

/* A message is compressed piece by piece, turn by turn: the next one has to wait for that. */
static int write_deflated(struct mqsync_socket *socket)
{
    const char *reason = NULL;
    uint16_t code = 0;

    mqsync_frame_unref(socket->deflating);
    socket->deflating = mqsync_session_next(socket->session, &code, &reason);
    if (socket->deflating && lws_write(socket->wsi, socket->deflating->text, socket->deflating->n, LWS_WRITE_TEXT) < 0)
        return -1;
    if (end(socket, code, reason))
        return -1;
    if (socket->session->queue.n || socket->session->closing_ms || socket->deflating)
        lws_callback_on_writable(socket->wsi);
    return 0;
}

/* What does not leave at once the library keeps, and sends before anything else of its own. */
static bool write_raw(struct mqsync_socket *socket, unsigned char *p, size_t n)
{
    return n == 0 || lws_write(socket->wsi, p, n, LWS_WRITE_RAW) >= 0;
}

/* Some messages of the queue in one write; a long one in a write of its own. False: nothing can be written any more. */
static bool write_together(struct mqsync_socket *socket, uint16_t *ret_code, const char **ret_reason)
{
    unsigned char *out = server_of(socket->wsi)->together;
    size_t n = 0;
    bool good = true;

    for (int i = 0; good && i < AT_ONCE && n < TOGETHER_BYTES / 2; i++) {
        struct mqsync_frame *f = mqsync_session_next(socket->session, ret_code, ret_reason);
        if (!f)
            break;
        size_t message_n;
        unsigned char *message = mqsync_frame_message(f, &message_n);
        if (message_n <= TOGETHER_BYTES / 2) {
            memcpy(out + n, message, message_n);
            n += message_n;
        } else {
            good = write_raw(socket, out, n) && write_raw(socket, message, message_n);
            n = 0;
            i = AT_ONCE;
        }
        mqsync_frame_unref(f);
    }
    return good && write_raw(socket, out, n);
}

static int on_writable(struct mqsync_socket *socket)
{
    const char *reason = NULL;
    uint16_t code = 0;

    if (socket->deflate)
        return write_deflated(socket);
    if (!write_together(socket, &code, &reason) || end(socket, code, reason))
        return -1;
    if (socket->session->queue.n || socket->session->closing_ms)
        lws_callback_on_writable(socket->wsi);
    return 0;
}

/* Here the library has not called, so nothing can be closed by what is returned. */
static void flush(struct mqsync_socket *socket)
{
    const char *reason;
    uint16_t code = 0;

    if (!socket->session || socket->closing)
        return;
    /* with something left over from the last time, the library calls on_writable() anyway; with an empty queue, too, is
     * asked what is next: a feed may wait for just that */
    if (!lws_partial_buffered(socket->wsi)) {
        if (!write_together(socket, &code, &reason)) {
            socket->closing = true;
            mqsync_socket_kill(socket);
            return;
        }
        if (socket->session->queue.n && !lws_partial_buffered(socket->wsi))
            mqsync_socket_wake(socket);
    }
    if (socket->session->closing_ms)
        lws_callback_on_writable(socket->wsi);
}

static void on_flush(lws_sorted_usec_list_t *sul)
{
    struct mqsync_server *s = lws_container_of(sul, struct mqsync_server, flush);
    int64_t until = mqsync_monotonic_us() + FLUSH_US;

    read_on(s);
    mqsync_upstream_turn_over(s->bridge->upstream);
    /* those that are woken meanwhile get their turn in the next one */
    for (uint32_t n = s->awake.count; n > 0 && mqsync_monotonic_us() < until; n--) {
        struct mqsync_socket *socket = lws_container_of(s->awake.head, struct mqsync_socket, awake);
        lws_dll2_remove(&socket->awake);
        flush(socket);
    }
    if (s->awake.count)
        mqsync_server_turn_over(s);
}

static void on_closed(struct mqsync_socket *socket)
{
    if (server_of(socket->wsi)->busy == socket)
        server_of(socket->wsi)->busy = NULL;
    lws_dll2_remove(&socket->awake);
    if (socket->session)
        mqsync_session_close(socket->session);
    socket->session = NULL;
    mqsync_buf_free(&socket->received);
    mqsync_frame_unref(socket->deflating);
    socket->deflating = NULL;
}

static int on_client(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    struct mqsync_socket *socket = user;

    switch (reason) {
    case LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS:
        return !mqsync_tls_attach(server_of(wsi)->tls, user);
    case LWS_CALLBACK_WSI_DESTROY:
        mqsync_acceptor_gone(server_of(wsi)->acceptor, wsi);
        return 0;
    case LWS_CALLBACK_HTTP:
        return on_http(server_of(wsi), socket, wsi, (struct mqsync_slice){in, n});
    case LWS_CALLBACK_HTTP_BODY:
        return socket->exchange ? mqsync_exchange_body(socket->exchange, in, n) : 0;
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        return socket->exchange ? mqsync_exchange_body_end(socket->exchange) : 0;
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return socket && socket->exchange ? mqsync_exchange_writable(&socket->exchange) : 0;
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
        if (socket) {
            mqsync_exchange_close(socket->exchange);
            socket->exchange = NULL;
        }
        return 0;
    case LWS_CALLBACK_RAW_ADOPT: /* what CONNECT makes of a connection, with no time-out */
    case LWS_CALLBACK_RAW_RX:
        return -1;
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return on_upgrade(server_of(wsi), wsi, in);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return keep_request(socket, wsi);
    case LWS_CALLBACK_CONFIRM_EXTENSION_OKAY:
        return asks_for_window(wsi);
    case LWS_CALLBACK_ESTABLISHED:
        return on_established(server_of(wsi), socket, wsi);
    case LWS_CALLBACK_RECEIVE:
        return socket->session ? on_receive(server_of(wsi), socket, in, n) : -1;
    case LWS_CALLBACK_RECEIVE_PONG:
        if (socket->session)
            mqsync_session_heard(socket->session, mqsync_monotonic_us() / 1000);
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return socket->session ? on_writable(socket) : -1;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        socket->closing = true;
        return 0;
    case LWS_CALLBACK_CLOSED:
        on_closed(socket);
        return 0;
    case LWS_CALLBACK_WS_SERVER_DROP_PROTOCOL:
        if (socket) {
            free(socket->path);
            free(socket->token);
            socket->path = socket->token = NULL;
        }
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, in, n);
    }
}

/* --- descriptors that are no clients ------------------------------------------------------------------------------ */

static int on_upstream(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    struct mqsync_server *s = server_of(wsi);

    (void)user;
    (void)in;
    (void)n;
    if (reason == LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION)
        return -1; /* a name in the table of protocols, but no WebSocket's */
    if (wsi != s->upstream)
        return 0;
    if (reason == LWS_CALLBACK_RAW_RX_FILE)
        mqsync_upstream_readable(s->bridge->upstream);
    else if (reason == LWS_CALLBACK_RAW_WRITEABLE_FILE)
        mqsync_upstream_writable(s->bridge->upstream);
    else if (reason == LWS_CALLBACK_RAW_CLOSE_FILE) {
        s->upstream = NULL;
        mqsync_upstream_unwatched(s->bridge->upstream);
    }
    return 0;
}

static void on_stop(lws_sorted_usec_list_t *sul)
{
    lws_container_of(sul, struct mqsync_server, stop)->stopped = true;
}

static int on_listener(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    (void)user;
    (void)in;
    (void)n;
    if (reason == LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION)
        return -1;
    if (reason == LWS_CALLBACK_RAW_RX_FILE)
        mqsync_acceptor_readable(server_of(wsi)->acceptor, wsi);
    return 0;
}

static void begin_stop(struct mqsync_server *s)
{
    if (s->bridge->stopping) {
        s->stopped = true;
        return;
    }
    s->bridge->stopping = true;
    mqsync_service_notify("STOPPING=1");
    mqsync_acceptor_stop(s->acceptor);
    mqsync_log(MQSYNC_LOG_INFO, "MQS3006", "stopping: %zu connections are told so", s->bridge->metrics.connections);
    mqsync_sessions_end(s->bridge);
    mqsync_tunnels_end(s->bridge->tunnels);
    lws_sul_schedule(s->context, 0, &s->stop, on_stop, STOP_US);
}

static enum mqsync_code load_certificate(struct mqsync_server *s, struct mqsync_error *ret_error)
{
    const struct mqsync_config *config = s->bridge->config;
    char until[16];
    enum mqsync_code code =
        mqsync_tls_load(s->tls, config->bridge.tls_cert_file, config->bridge.tls_key_file, until, ret_error);

    if (code == MQSYNC_OK)
        mqsync_log(MQSYNC_LOG_INFO, "MQS3029", "showing the certificate in %s, valid until %s",
                   config->bridge.tls_cert_file, until);
    return code;
}

static void reload(struct mqsync_server *s)
{
    struct mqsync_error e;

    mqsync_service_notify_reloading();
    mqsync_bridge_reload(s->bridge);
    if (s->tls && s->bridge->config->bridge.tls_cert_file && load_certificate(s, &e) != MQSYNC_OK)
        mqsync_log(MQSYNC_LOG_ERROR, "MQS3028", "keeping the certificate as it was: %s", e.text);
    mqsync_service_notify("READY=1");
}

static int on_signal(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    struct signalfd_siginfo info;
    struct mqsync_server *s = server_of(wsi);

    (void)user;
    (void)in;
    (void)n;
    if (reason == LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION)
        return -1;
    if (reason != LWS_CALLBACK_RAW_RX_FILE)
        return 0;
    while (read(lws_get_socket_fd(wsi), &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP)
            reload(s);
        else
            begin_stop(s);
    }
    return 0;
}

static void on_tick(lws_sorted_usec_list_t *sul)
{
    struct mqsync_server *s = lws_container_of(sul, struct mqsync_server, tick);
    int64_t now_us = mqsync_monotonic_us();

    mqsync_bridge_tick(s->bridge);
    mqsync_tunnels_tick(s->bridge->tunnels, now_us / 1000);
    mqsync_acceptor_tick(s->acceptor, now_us / 1000);
    if (s->watchdog_us && now_us >= s->watchdog_at_us) {
        mqsync_service_notify("WATCHDOG=1");
        s->watchdog_at_us = now_us + s->watchdog_us / 3;
    }
    lws_sul_schedule(s->context, 0, &s->tick, on_tick,
                     mqsync_acceptor_started(s->acceptor) ? TICK_US : TICK_STARTING_US);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static const struct lws_protocols protocols[] = {
    {.name = "mqsync",
     .callback = on_client,
     .per_session_data_size = sizeof(struct mqsync_socket),
     .rx_buffer_size = RX_BYTES,
     .tx_packet_size = TX_BYTES},
    MQSYNC_TUNNEL_PROTOCOL("mqtt"),
    MQSYNC_TUNNEL_PROTOCOL("mqttv3.1"),
    {.name = MQSYNC_ACCEPT_PROTOCOL, .callback = on_listener},
    {.name = "mqsync-upstream", .callback = on_upstream},
    {.name = "mqsync-signals", .callback = on_signal},
    {.name = NULL},
};

static const struct lws_extension extensions[] = {
    {"permessage-deflate", mqsync_inflate,
     "permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
    {NULL, NULL, NULL},
};

static void from_library(int level, const char *line)
{
    mqsync_log(level == LLL_ERR ? MQSYNC_LOG_ERROR : MQSYNC_LOG_WARNING, "MQS3009", "libwebsockets: %.*s",
               (int)strcspn(line, "\n"), line);
}

static bool watch_signals(struct mqsync_server *s)
{
    lws_sock_file_fd_type fd;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    fd.filefd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    s->signals = fd.filefd < 0
                     ? NULL
                     : lws_adopt_descriptor_vhost(s->vhost, LWS_ADOPT_RAW_FILE_DESC, fd, "mqsync-signals", NULL);
    return s->signals;
}

static bool create(struct mqsync_server *s)
{
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .protocols = protocols,
        .extensions = extensions,
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
        .user = s,
        .server_string = "mqsync",
        .alpn = "http/1.1", /* an answer is written as HTTP/1.1 has it */
        .max_http_header_data = HEADER_BYTES,
        .max_http_header_data2 = HEADER_BYTES,
        .timeout_secs = 10,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
                   (s->tls ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT | LWS_SERVER_OPTION_CREATE_VHOST_SSL_CTX : 0),
    };

    lws_set_log_level(LLL_ERR, from_library);
    s->context = lws_create_context(&info);
    if (s->context)
        s->vhost = lws_create_vhost(s->context, &info);
    return s->vhost && mqsync_acceptor_start(s->acceptor, s->vhost) && watch_signals(s);
}

enum mqsync_code mqsync_server_open(struct mqsync_bridge *b, struct mqsync_server **ret, struct mqsync_error *ret_error)
{
    struct mqsync_server *s = calloc(1, sizeof(*s));
    enum mqsync_code code;

    if (!s)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    s->bridge = b;
    s->pump_at_us = INT64_MAX;
    s->watchdog_us = mqsync_service_watchdog_us();
    s->tls = b->config->bridge.tls_cert_file ? mqsync_tls_open() : NULL;
    code = mqsync_acceptor_open(b, &s->acceptor, ret_error);
    if (code == MQSYNC_OK && s->tls)
        code = load_certificate(s, ret_error);
    if (code == MQSYNC_OK && !create(s))
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the event loop cannot be set up");
    if (code != MQSYNC_OK) {
        mqsync_server_close(s);
        return code;
    }
    if (mqsync_tunnels_open(b, s->vhost, &b->tunnels, ret_error) != MQSYNC_OK) {
        mqsync_server_close(s);
        return MQSYNC_SERVER_ERROR;
    }
    lws_sul_schedule(s->context, 0, &s->tick, on_tick, 1);
    mqsync_acceptor_log(s->acceptor);
    mqsync_service_notify("READY=1");
    *ret = s;
    return MQSYNC_OK;
}

void mqsync_server_run(struct mqsync_server *s)
{
    while (!s->stopped && !(s->bridge->stopping && s->bridge->metrics.connections == 0 && s->bridge->rests.n == 0))
        if (lws_service(s->context, 0) < 0)
            break;
}

void mqsync_server_close(struct mqsync_server *s)
{
    if (!s)
        return;
    s->upstream = NULL; /* that it is being closed is no news */
    if (s->context)
        lws_context_destroy(s->context);
    mqsync_tunnels_close(s->bridge->tunnels);
    mqsync_acceptor_close(s->acceptor);
    mqsync_tls_close(s->tls);
    free(s);
}
