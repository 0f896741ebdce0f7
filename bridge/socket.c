/* SPDX-License-Identifier: BSD-3-Clause */
#include "socket.h"

#include <netinet/tcp.h>
#include <stdlib.h>

#include "accept.h"
#include "ahead.h"
#include "exchange.h"
#include "http.h"
#include "server.h"
#include "session.h"
#include "tls.h"
#include "tunnel.h"

enum {
    AT_ONCE = 64,   /* messages to one connection before the others get their turn */
    READS_MAX = 64, /* of MQSYNC_SOCKET_RX from one connection before the others get their turn */
};

_Static_assert(LWS_PRE <= MQSYNC_FRAME_ROOM, "room for the WebSocket header");

/* --- what sessions call ------------------------------------------------------------------------------------------- */

/* What has become known in this turn of the loop is written at its end, all that there is for one socket together,
 * without asking first whether the socket takes it. Compressed messages go through the library's turns. */
void mqsync_socket_wake(struct mqsync_socket *s)
{
    struct mqsync_sockets *all = mqsync_server_sockets(s->wsi);

    if (s->deflate) {
        lws_callback_on_writable(s->wsi);
        return;
    }
    if (!lws_dll2_is_detached(&s->awake))
        return;
    if (!all->awake.count)
        mqsync_server_turn_over(mqsync_server_bridge(s->wsi)->server);
    lws_dll2_add_tail(&s->awake, &all->awake);
}

void mqsync_socket_pause(struct mqsync_socket *s, bool pause)
{
    mqsync_tls_flow(s->wsi, !pause);
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

/* --- plain HTTP --------------------------------------------------------------------------------------------------- */

/* libwebsockets takes off the blanks before a value alone. */
static void trim(char *text)
{
    struct mqsync_slice value = mqsync_slice_trim(mqsync_slice_str(text));

    memmove(text, value.p, value.n);
    text[value.n] = '\0';
}

bool mqsync_socket_header(struct lws *wsi, enum lws_token_indexes which, char *out, size_t size)
{
    int n = lws_hdr_total_length(wsi, which);

    out[0] = '\0';
    if (n > 0 && ((size_t)n >= size || lws_hdr_copy(wsi, out, (int)size, which) < 0))
        return false;
    if (which != WSI_TOKEN_GET_URI)
        trim(out);
    return true;
}

/* A request has come: where from, and whether the connection is one too many, which gets *ret and nothing else. */
static bool too_many(struct lws *wsi, struct mqsync_http_answer *ret)
{
    struct mqsync_peer *peer = mqsync_server_peer(wsi);
    char forwarded[MQSYNC_HEAD_MAX];

    if (!peer)
        return false;
    peer->asked = true;
    if (!mqsync_socket_header(wsi, WSI_TOKEN_X_FORWARDED_FOR, forwarded, sizeof(forwarded)))
        forwarded[0] = '\0';
    mqsync_forwarded(mqsync_server_bridge(wsi)->config, peer->address, mqsync_slice_str(forwarded), peer->client);
    if (peer->excess)
        mqsync_http_fail(503, MQSYNC_SERVER_ERROR, "there are too many connections", ret);
    return peer->excess;
}

static int on_http(struct mqsync_socket *socket, struct lws *wsi, struct mqsync_slice path)
{
    struct mqsync_http_answer answer = {0};

    if (too_many(wsi, &answer)) {
        mqsync_exchange_refuse(wsi, &answer);
        return -1;
    }
    return mqsync_exchange_begin(mqsync_server_bridge(wsi), wsi, path, &socket->exchange);
}

/* --- from HTTP to WebSocket --------------------------------------------------------------------------------------- */

/* Whether the subprotocol that libwebsockets will choose, the first in the client's list that it knows, is one for this
 * path: all the names in its table would be served, those for descriptors too. */
static bool subprotocol_fits(struct lws *wsi, bool tunnel)
{
    char list[128], *rest = list, *name;

    if (!mqsync_socket_header(wsi, WSI_TOKEN_PROTOCOL, list, sizeof(list)))
        return false;
    if (!*list)
        return !tunnel;
    while ((name = strsep(&rest, ", \t")))
        if (lws_vhost_name_to_protocol(lws_get_vhost(wsi), name))
            return tunnel ? mqsync_tunnel_speaks(name) : strcmp(name, "mqsync") == 0;
    return false;
}

/* Whether this is the beginning of a WebSocket, if a bad one. Any other upgrade is only offered (`curl --http2` and
 * Java offer h2c), and without `Connection: Upgrade` it is none of the bridge's business. */
static bool wants_websocket(struct lws *wsi, const char *to)
{
    char connection[256];

    return strcasecmp(to, "websocket") == 0 &&
           mqsync_socket_header(wsi, WSI_TOKEN_CONNECTION, connection, sizeof(connection)) &&
           strcasestr(connection, "upgrade");
}

/* Of RFC 6455, or not said: the library does not look. */
static bool version_fits(struct lws *wsi)
{
    char version[8];

    return mqsync_socket_header(wsi, WSI_TOKEN_VERSION, version, sizeof(version)) &&
           (!version[0] || strcmp(version, "13") == 0);
}

static void check_upgrade(struct lws *wsi, struct mqsync_http_answer *ret)
{
    const struct mqsync_bridge *b = mqsync_server_bridge(wsi);
    char path[MQSYNC_HEAD_MAX], origin[512];
    const char *collections;
    bool got = mqsync_socket_header(wsi, WSI_TOKEN_GET_URI, path, sizeof(path)),
         tunnel = got && strcmp(path, "/mqtt") == 0;

    ret->tells_websocket = !version_fits(wsi);
    if (!got || !(tunnel ? b->config->bridge.mqtt : mqsync_http_is_websocket(path, &collections)))
        mqsync_http_fail(404, MQSYNC_INVALID_MESSAGE, "there is no WebSocket at this path", ret);
    else if (!mqsync_socket_header(wsi, WSI_TOKEN_ORIGIN, origin, sizeof(origin)) ||
             !mqsync_http_origin_allowed(b->config, mqsync_slice_str(origin)))
        mqsync_http_fail(403, MQSYNC_UNAUTHORIZED, "pages of this origin are not allowed here", ret);
    else if (!lws_hdr_total_length(wsi, WSI_TOKEN_HOST) || !lws_hdr_total_length(wsi, WSI_TOKEN_KEY))
        mqsync_http_fail(400, MQSYNC_INVALID_MESSAGE, "a WebSocket begins with Host and Sec-WebSocket-Key", ret);
    else if (ret->tells_websocket)
        mqsync_http_fail(400, MQSYNC_INVALID_MESSAGE, "the WebSocket protocol here has version 13", ret);
    else if (!subprotocol_fits(wsi, tunnel))
        mqsync_http_fail(400, MQSYNC_INVALID_MESSAGE,
                         tunnel ? "the WebSocket subprotocol here is mqtt" : "no such WebSocket subprotocol here", ret);
    else if (b->stopping)
        mqsync_http_fail(503, MQSYNC_SERVER_ERROR, "the server is stopping", ret);
}

/* to: the header's value, which libwebsockets looks at again afterwards. 0: goes on; 1: refused and answered; -1: to be
 * closed. */
static int on_upgrade(struct lws *wsi, char *to)
{
    struct mqsync_http_answer answer = {0};
    /* the library does not read a body before an upgrade: what follows would be taken for the next request */
    bool body = lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH) ||
                lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING);

    if (!lws_hdr_total_length(wsi, WSI_TOKEN_UPGRADE))
        return -1; /* the library has answered 403 already, and `to` is no more */
    if (!wants_websocket(wsi, to)) {
        *to = '-'; /* an upgrade that the library does not know, after this call, is a request like others */
        return 0;
    }
    if (!too_many(wsi, &answer))
        check_upgrade(wsi, &answer);
    if (!answer.status)
        return 0;
    return mqsync_exchange_refuse(wsi, &answer) || body ? -1 : 1;
}

/* libwebsockets gets the window sizes of the two directions mixed up; only clients that ask for a size notice. */
static bool asks_for_window(struct lws *wsi)
{
    char extensions[1024];

    return !mqsync_socket_header(wsi, WSI_TOKEN_EXTENSIONS, extensions, sizeof(extensions)) ||
           strstr(extensions, "server_max_window_bits");
}

/* The last moment at which the request's headers are there. */
static int keep_request(struct mqsync_socket *socket, struct lws *wsi)
{
    char path[MQSYNC_HEAD_MAX], extensions[1024], token[MQSYNC_HEAD_MAX]; /* one that is too long is refused as such */
    const char *collections, *value;

    if (!mqsync_socket_header(wsi, WSI_TOKEN_GET_URI, path, sizeof(path)) ||
        !mqsync_http_is_websocket(path, &collections))
        return -1;
    if (collections && !(socket->path = strdup(collections)))
        return -1;
    value = lws_get_urlarg_by_name(wsi, "token=", token, sizeof(token));
    if (value && !(socket->token = strdup(value)))
        return -1;
    socket->deflate = !mqsync_socket_header(wsi, WSI_TOKEN_EXTENSIONS, extensions, sizeof(extensions)) ||
                      strstr(extensions, "permessage-deflate");
    return 0;
}

static int on_established(struct mqsync_socket *socket, struct lws *wsi)
{
    socket->wsi = wsi;
    socket->session = mqsync_session_open(mqsync_server_bridge(wsi), socket, mqsync_server_client(wsi), socket->path,
                                          mqsync_slice_str(socket->token));
    free(socket->path);
    if (socket->token)
        explicit_bzero(socket->token, strlen(socket->token));
    free(socket->token);
    socket->path = socket->token = NULL;
    return socket->session ? 0 : -1;
}

/* --- messages ----------------------------------------------------------------------------------------------------- */

/* The library reads MQSYNC_SOCKET_RX from a connection in a turn of the loop. Where there are likely to be more, they
 * are read before the turn ends: the more commands leave together, the less each of them costs. */
void mqsync_sockets_read_on(struct mqsync_sockets *all, struct lws_context *context)
{
    struct pollfd fd = {.fd = all->busy ? lws_get_socket_fd(all->busy->wsi) : -1};

    for (int i = 0; i < READS_MAX && all->busy && all->busy->received_n >= MQSYNC_SOCKET_RX / 2; i++) {
        all->busy->received_n = 0;
        fd.events = fd.revents = POLLIN;
        lws_service_fd(context, &fd);
    }
    all->busy = NULL;
}

static void note_busy(struct mqsync_socket *socket, size_t n)
{
    struct mqsync_sockets *all = mqsync_server_sockets(socket->wsi);

    if (all->busy != socket)
        socket->received_n = 0;
    all->busy = socket;
    socket->received_n += (uint32_t)n;
}

static int on_receive(struct mqsync_socket *socket, const char *in, size_t n)
{
    size_t max = socket->session->bridge->config->limits.max_record_bytes + MQSYNC_ENVELOPE_MAX;
    bool last = lws_is_final_fragment(socket->wsi) && lws_remaining_packet_payload(socket->wsi) == 0;
    struct mqsync_slice text = {in, n};

    note_busy(socket, n);
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
    unsigned char *out = mqsync_server_sockets(socket->wsi)->together;
    size_t n = 0;
    bool good = true;

    for (int i = 0; good && i < AT_ONCE && n < MQSYNC_SOCKET_TX / 2; i++) {
        struct mqsync_frame *f = mqsync_session_next(socket->session, ret_code, ret_reason);
        if (!f)
            break;
        size_t message_n;
        unsigned char *message = mqsync_frame_message(f, &message_n);
        if (message_n <= MQSYNC_SOCKET_TX / 2) {
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

/* libwebsockets says nothing of pings, and a Unix socket does not tell when something came last. But when the answer to
 * a ping has left the library asks for more, though nobody had wished to write. */
static void note_ping(struct mqsync_socket *socket)
{
    struct mqsync_session *s = socket->session;

    if (!s->queue.n && !s->closing_ms && !socket->deflating && mqsync_socket_silent_ms(socket) == INT64_MAX)
        mqsync_session_heard(s, mqsync_monotonic_us() / 1000);
}

static int on_writable(struct mqsync_socket *socket)
{
    const char *reason = NULL;
    uint16_t code = 0;

    note_ping(socket);
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

bool mqsync_sockets_flush(struct mqsync_sockets *all, int64_t until_us)
{
    /* those that are woken meanwhile get their turn in the next one */
    for (uint32_t n = all->awake.count; n > 0 && mqsync_monotonic_us() < until_us; n--) {
        struct mqsync_socket *socket = lws_container_of(all->awake.head, struct mqsync_socket, awake);
        lws_dll2_remove(&socket->awake);
        flush(socket);
    }
    return all->awake.count > 0;
}

static void on_closed(struct mqsync_socket *socket)
{
    struct mqsync_sockets *all;

    if (!socket->wsi)
        return; /* it never was open: the library did not like the handshake */
    all = mqsync_server_sockets(socket->wsi);
    if (all->busy == socket)
        all->busy = NULL;
    lws_dll2_remove(&socket->awake);
    if (socket->session)
        mqsync_session_close(socket->session);
    socket->session = NULL;
    mqsync_buf_free(&socket->received);
    mqsync_frame_unref(socket->deflating);
    socket->deflating = NULL;
}

int mqsync_socket_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    struct mqsync_socket *socket = user;

    mqsync_ahead_forget();
    switch (reason) {
    case LWS_CALLBACK_HTTP:
        return on_http(socket, wsi, (struct mqsync_slice){in, n});
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
        return on_upgrade(wsi, in);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return keep_request(socket, wsi);
    case LWS_CALLBACK_CONFIRM_EXTENSION_OKAY:
        return asks_for_window(wsi);
    case LWS_CALLBACK_ESTABLISHED:
        return on_established(socket, wsi);
    case LWS_CALLBACK_RECEIVE:
        return socket->session ? on_receive(socket, in, n) : -1;
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
        if (socket)
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
