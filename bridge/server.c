/* SPDX-License-Identifier: BSD-3-Clause */
#include "server.h"

#include <libwebsockets.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "accept.h"
#include "inflate.h"
#include "service.h"
#include "session.h"
#include "socket.h"
#include "tls.h"
#include "tunnel.h"

enum {
    TICK_US = 100000,
    TICK_STARTING_US = 2000, /* while clients may be waiting for the first answer of the broker */
    STOP_US = 5000000,
    TX_BYTES = 65536, /* in one write; else it would be that of reading */
    FLUSH_US = 8000,  /* at most, before whoever has sent something gets his turn */
};

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
    int64_t pump_at_us; /* INT64_MAX: not asked for */
    bool stopped;
    struct mqsync_sockets sockets;
};

static struct mqsync_server *server_of(struct lws *wsi)
{
    return lws_context_user(lws_get_context(wsi));
}

struct mqsync_bridge *mqsync_server_bridge(struct lws *wsi)
{
    return server_of(wsi)->bridge;
}

struct mqsync_sockets *mqsync_server_sockets(struct lws *wsi)
{
    return &server_of(wsi)->sockets;
}

struct mqsync_peer *mqsync_server_peer(struct lws *wsi)
{
    return mqsync_acceptor_peer(server_of(wsi)->acceptor, wsi);
}

const char *mqsync_server_client(struct lws *wsi)
{
    const struct mqsync_peer *peer = mqsync_server_peer(wsi);

    return peer ? peer->client : "";
}

/* --- what the others call ----------------------------------------------------------------------------------------- */

static void on_flush(lws_sorted_usec_list_t *sul)
{
    struct mqsync_server *s = lws_container_of(sul, struct mqsync_server, flush);
    int64_t until = mqsync_monotonic_us() + FLUSH_US;

    mqsync_sockets_read_on(&s->sockets, s->context);
    mqsync_upstream_turn_over(s->bridge->upstream);
    if (mqsync_sockets_flush(&s->sockets, until))
        mqsync_server_turn_over(s);
}

void mqsync_server_turn_over(struct mqsync_server *s)
{
    lws_sul_schedule(s->context, 0, &s->flush, on_flush, 1);
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

/* --- clients ------------------------------------------------------------------------------------------------------ */

/* What concerns the port as a whole; all the rest is one connection's. */
static int on_client(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    if (reason == LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS)
        return !mqsync_tls_attach(server_of(wsi)->tls, user);
    if (reason == LWS_CALLBACK_WSI_DESTROY) {
        mqsync_acceptor_gone(server_of(wsi)->acceptor, wsi);
        return 0;
    }
    return mqsync_socket_callback(wsi, reason, user, in, n);
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
     .rx_buffer_size = MQSYNC_SOCKET_RX,
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
        .max_http_header_data = MQSYNC_HEAD_MAX,
        .max_http_header_data2 = MQSYNC_HEAD_MAX,
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
