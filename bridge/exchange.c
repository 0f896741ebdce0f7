/* SPDX-License-Identifier: BSD-3-Clause */
#include "exchange.h"

#include <libwebsockets.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>

#include "ahead.h"
#include "http.h"
#include "server.h"
#include "session.h"
#include "socket.h"

enum {
    PIECE_BYTES = 65536,  /* of an answer, before the others get their turn */
    CHECK_MIN_US = 1000,  /* whether the peer takes what is written: so often while it does, */
    CHECK_MAX_US = 64000, /* and more and more seldom while it does not */
    STALLED_SECONDS = 30, /* for a peer to take anything */
    KEPT_SECONDS = 5,     /* longer than announced: for a request that leaves just before the connection would close */
    BODY_US = 60000000,   /* for a body to come, however slowly */
    LINGER_SECONDS = 2,   /* for the rest of a body that is not wanted: closed at once, the peer might not see why */
    LINGER_BYTES = 4 << 20,
    DISCARD_BYTES = 65536, /* of an unwanted body are taken so that the connection can be used again */
    ARGS_MAX = 96,
    ORIGIN_MAX = 512,
    LENGTH_MAX = 31, /* Content-Length with its NUL; a longer one the library overlooks */
};

struct mqsync_exchange {
    struct mqsync_bridge *bridge;
    struct lws *wsi;
    enum mqsync_http_method method;
    struct mqsync_rest *rest; /* NULL: own has the answer */
    struct mqsync_http_answer own;
    char *origin;                       /* that may read the answer; NULL: none */
    bool under_sync, preflight, is_old; /* HTTP/1.0, which knows no chunks */
    int64_t begun_us;
    /* the request's body */
    bool has_body, has_length, chunked, complete, lingering, continues;
    uint64_t length, taken;
    struct mqsync_chunks chunks;
    struct mqsync_buf body;
    /* the answer */
    bool close, head_sent, last_sent, streams;
    bool wire_is_last; /* nothing follows it: while wire is written, reading goes on and may come to its end */
    struct mqsync_buf wire;
    size_t written;
    lws_sorted_usec_list_t check;
    int64_t check_us;
    int untaken; /* bytes in the socket's buffer, when last looked at */
};

static struct mqsync_http_answer *answer_of(struct mqsync_exchange *x)
{
    return x->rest ? &x->rest->answer : &x->own;
}

/* --- reading and writing in turns --------------------------------------------------------------------------------- */

/* The socket calls itself writable again only when a good part of its buffer, of up to some megabytes, is empty. A slow
 * peer lives all the same. */
static void notice_progress(struct mqsync_exchange *x)
{
    int untaken, before = x->untaken;

    if (ioctl(lws_get_socket_fd(x->wsi), SIOCOUTQ, &untaken) < 0)
        return;
    x->untaken = untaken;
    if (untaken < before)
        lws_set_timeout(x->wsi, PENDING_TIMEOUT_HTTP_CONTENT, STALLED_SECONDS);
}

/* libwebsockets writes for HTTP only while it also watches for input. But what comes during an answer (the next
 * request) it neither reads nor forgets: it would go round and round until the peer has taken the answer. So it may
 * watch only while the peer takes something. */
static void on_check(lws_sorted_usec_list_t *sul)
{
    struct mqsync_exchange *x = lws_container_of(sul, struct mqsync_exchange, check);
    struct pollfd fd = {.fd = lws_get_socket_fd(x->wsi), .events = POLLOUT};
    bool writable = poll(&fd, 1, 0) > 0;

    notice_progress(x);
    lws_rx_flow_control(x->wsi, writable);
    if (writable)
        lws_callback_on_writable(x->wsi);
    x->check_us = writable ? CHECK_MIN_US : x->check_us * 2 < CHECK_MAX_US ? x->check_us * 2 : CHECK_MAX_US;
    lws_sul_schedule(lws_get_context(x->wsi), 0, &x->check, on_check, x->check_us);
}

static void want_write(struct mqsync_exchange *x)
{
    if (x->lingering)
        lws_callback_on_writable(x->wsi);
    else
        on_check(&x->check);
}

static void want_nothing(struct mqsync_exchange *x)
{
    lws_sul_cancel(&x->check);
    lws_rx_flow_control(x->wsi, 0);
    lws_set_timeout(x->wsi, NO_PENDING_TIMEOUT, 0);
}

void mqsync_exchange_wake(struct mqsync_exchange *x)
{
    if (!x->has_body || x->complete)
        want_write(x);
}

/* --- the head ----------------------------------------------------------------------------------------------------- */

static const struct {
    enum lws_token_indexes token;
    enum mqsync_http_method method;
} methods[] = {
    {WSI_TOKEN_GET_URI, MQSYNC_HTTP_GET},         {WSI_TOKEN_HEAD_URI, MQSYNC_HTTP_HEAD},
    {WSI_TOKEN_POST_URI, MQSYNC_HTTP_POST},       {WSI_TOKEN_PUT_URI, MQSYNC_HTTP_PUT},
    {WSI_TOKEN_PATCH_URI, MQSYNC_HTTP_PATCH},     {WSI_TOKEN_DELETE_URI, MQSYNC_HTTP_DELETE},
    {WSI_TOKEN_OPTIONS_URI, MQSYNC_HTTP_OPTIONS},
};

static void fail(struct mqsync_exchange *x, unsigned status, enum mqsync_code code, const char *text)
{
    if (answer_of(x)->status)
        return;
    x->bridge->metrics.errors[code]++;
    mqsync_http_fail(status, code, text, answer_of(x));
}

/* A request whose end cannot be told: the connection is of no further use. */
static void fail_head(struct mqsync_exchange *x, const char *text)
{
    x->close = true;
    fail(x, 400, MQSYNC_INVALID_MESSAGE, text);
}

static bool parse_length(const char *text, uint64_t *ret)
{
    uint64_t v = 0;

    for (; *text; text++) {
        if (*text < '0' || *text > '9' || v > (UINT64_MAX >> 8))
            return false;
        v = v * 10 + (uint64_t)(*text - '0');
    }
    *ret = v;
    return true;
}

static bool takes_body(enum mqsync_http_method method)
{
    return method == MQSYNC_HTTP_POST || method == MQSYNC_HTTP_PUT || method == MQSYNC_HTTP_PATCH;
}

/* list: of options, as in Connection; it is taken apart. */
static bool lists(char *list, const char *option)
{
    const char *one;

    while ((one = strsep(&list, ", \t")))
        if (strcasecmp(one, option) == 0)
            return true;
    return false;
}

static void read_framing(struct mqsync_exchange *x)
{
    char length[LENGTH_MAX], encoding[32], expect[32], version[16], connection[256];

    x->is_old =
        mqsync_socket_header(x->wsi, WSI_TOKEN_HTTP, version, sizeof(version)) && strcmp(version, "HTTP/1.0") == 0;
    if (!mqsync_socket_header(x->wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, length, sizeof(length)) ||
        !parse_length(length, &x->length)) {
        fail_head(x, "Content-Length: expected one number");
        return;
    }
    x->has_length = length[0];
    if (!mqsync_socket_header(x->wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING, encoding, sizeof(encoding)) ||
        (encoding[0] && (strcasecmp(encoding, "chunked") != 0 || x->has_length || !takes_body(x->method)))) {
        fail_head(x, "Transfer-Encoding: expected chunked, without a Content-Length, with POST, PUT or PATCH");
        return;
    }
    x->chunked = encoding[0];
    x->has_body = x->chunked || x->length > 0;
    x->close = x->is_old || (takes_body(x->method) && !x->has_length); /* libwebsockets would wait for more */
    if (mqsync_socket_header(x->wsi, WSI_TOKEN_CONNECTION, connection, sizeof(connection)) &&
        lists(connection, "close"))
        x->close = true;
    if (mqsync_socket_header(x->wsi, WSI_TOKEN_HTTP_EXPECT, expect, sizeof(expect)))
        x->continues = strcasecmp(expect, "100-continue") == 0;
}

/* Whether the library is going to read a body. It has a mind of its own where the head is not what it should be. */
static bool library_reads_body(const struct mqsync_exchange *x)
{
    char length[LENGTH_MAX];

    if (!lws_hdr_total_length(x->wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH) ||
        !mqsync_socket_header(x->wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, length, sizeof(length)))
        return takes_body(x->method);
    return strtoll(length, NULL, 10) != 0;
}

static bool read_origin(struct mqsync_exchange *x)
{
    char origin[ORIGIN_MAX];

    if (!mqsync_socket_header(x->wsi, WSI_TOKEN_ORIGIN, origin, sizeof(origin)) ||
        !mqsync_http_origin_allowed(x->bridge->config, mqsync_slice_str(origin)))
        return false;
    if (origin[0])
        x->origin = strdup(origin);
    return true;
}

/* --- what is asked for -------------------------------------------------------------------------------------------- */

static const char *allowed_methods(const struct mqsync_target *t)
{
    return t->record_id.n ? "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" : "GET, HEAD, POST, OPTIONS";
}

static void open_rest(struct mqsync_exchange *x, const struct mqsync_target *target)
{
    char text[MQSYNC_HEAD_MAX], authorization[MQSYNC_TOKEN_MAX + 32];
    struct mqsync_slice args[ARGS_MAX];
    struct mqsync_rest_request request = {.method = x->method, .target = *target, .args = args};
    size_t used = 0;
    int n;

    if (!mqsync_socket_header(x->wsi, WSI_TOKEN_HTTP_AUTHORIZATION, authorization, sizeof(authorization))) {
        fail(x, 401, MQSYNC_AUTH_FAILED, "Authorization: too long");
        return;
    }
    while (request.args_n < ARGS_MAX && used + 1 < sizeof(text) &&
           (n = lws_hdr_copy_fragment(x->wsi, text + used, (int)(sizeof(text) - used), WSI_TOKEN_HTTP_URI_ARGS,
                                      (int)request.args_n)) >= 0) {
        args[request.args_n++] = (struct mqsync_slice){text + used, (size_t)n};
        used += (size_t)n;
    }
    request.authorization = mqsync_slice_str(authorization);
    request.address = mqsync_server_client(x->wsi);
    x->rest = mqsync_rest_open(x->bridge, x, &request);
    if (!x->rest)
        fail(x, 500, MQSYNC_SERVER_ERROR, "out of memory");
    explicit_bzero(authorization, sizeof(authorization));
}

static void route_sync(struct mqsync_exchange *x, const struct mqsync_target *target)
{
    bool known = x->method != MQSYNC_HTTP_METHODS_N;
    bool wrong = !target->record_id.n &&
                 (x->method == MQSYNC_HTTP_PUT || x->method == MQSYNC_HTTP_PATCH || x->method == MQSYNC_HTTP_DELETE);

    x->under_sync = true;
    if (!read_origin(x)) {
        fail(x, 403, MQSYNC_UNAUTHORIZED, "pages of this origin are not allowed here");
    } else if (x->bridge->stopping) {
        x->close = true;
        fail(x, 503, MQSYNC_SERVER_ERROR, "the server is stopping");
    } else if (x->method == MQSYNC_HTTP_OPTIONS) {
        x->own.status = 204;
        x->own.allow = allowed_methods(target);
        x->preflight = x->origin;
    } else if (!known || wrong) {
        x->own.allow = allowed_methods(target);
        fail(x, 405, MQSYNC_INVALID_MESSAGE,
             wrong ? "this method needs a recordId in the path" : "this path does not have this method");
    } else {
        open_rest(x, target);
    }
}

static void route(struct mqsync_exchange *x, struct mqsync_slice path)
{
    struct mqsync_target target;

    if (mqsync_target_parse(path, &target)) {
        route_sync(x, &target);
        return;
    }
    mqsync_http_get(x->bridge, path, &x->own);
    if (x->method == MQSYNC_HTTP_GET || x->method == MQSYNC_HTTP_HEAD || x->own.status == 404)
        return;
    mqsync_buf_clear(&x->own.body);
    x->own = (struct mqsync_http_answer){.body = x->own.body, .allow = "GET, HEAD, OPTIONS"};
    if (x->method == MQSYNC_HTTP_OPTIONS)
        x->own.status = 204;
    else
        fail(x, 405, MQSYNC_INVALID_MESSAGE, "this path does not have this method");
}

/* The request is complete: from here on nothing is read, and the answer comes when it is there. */
static void run(struct mqsync_exchange *x)
{
    x->complete = true;
    want_nothing(x);
    if (x->rest)
        mqsync_rest_run(x->rest, mqsync_buf_slice(&x->body));
    mqsync_buf_free(&x->body);
    if (answer_of(x)->status)
        want_write(x);
}

/* Answers before the body has come, and reads the rest of it for a while. */
static void refuse_body(struct mqsync_exchange *x)
{
    x->close = x->lingering = true;
    x->begun_us = mqsync_monotonic_us();
    mqsync_buf_free(&x->body);
    want_write(x);
}

static size_t max_body(const struct mqsync_exchange *x)
{
    return x->bridge->config->limits.max_record_bytes + MQSYNC_ENVELOPE_MAX;
}

static void refuse_size(struct mqsync_exchange *x)
{
    if (!answer_of(x)->status) {
        static const char text[] = "the body is longer than the bridge takes";
        const char *user = x->rest && x->rest->claims.user ? x->rest->claims.user : "";
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3024",
                   "%s (user '%s') has sent an HTTP request with a body of more than %zu bytes",
                   mqsync_server_client(x->wsi), user, max_body(x));
        if (x->rest)
            mqsync_rest_fail_too_long(x->rest, text);
        else
            fail(x, 413, MQSYNC_INVALID_MESSAGE, text);
    }
    refuse_body(x);
}

int mqsync_exchange_begin(struct mqsync_bridge *b, struct lws *wsi, struct mqsync_slice path,
                          struct mqsync_exchange **ret_x)
{
    static unsigned char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct mqsync_exchange *x = calloc(1, sizeof(*x));

    if (!x)
        return -1;
    *ret_x = x;
    x->bridge = b;
    x->wsi = wsi;
    x->method = MQSYNC_HTTP_METHODS_N;
    x->check_us = CHECK_MIN_US;
    x->begun_us = mqsync_monotonic_us();
    b->metrics.http_requests++;
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
        if (lws_hdr_total_length(wsi, methods[i].token) > 0)
            x->method = methods[i].method;
    read_framing(x);
    if (!x->own.status)
        route(x, path);
    if (!x->has_body || x->own.status == 400) {
        run(x);
    } else if (x->length > max_body(x)) {
        refuse_size(x);
    } else if (answer_of(x)->status && (x->continues || x->chunked || x->length > DISCARD_BYTES)) {
        refuse_body(x);
    } else if (x->continues && lws_write(wsi, go_on, sizeof(go_on) - 1, LWS_WRITE_HTTP) < 0) {
        return -1;
    }
    if (library_reads_body(x))
        mqsync_ahead_expect_body(wsi);
    return 0;
}

/* --- the body ----------------------------------------------------------------------------------------------------- */

static void take_chunks(struct mqsync_exchange *x, struct mqsync_slice bytes)
{
    switch (mqsync_chunks_take(&x->chunks, bytes, &x->body)) {
    case MQSYNC_CHUNKS_BAD:
        fail(x, 400, MQSYNC_INVALID_MESSAGE, "the body's chunks are not well formed");
        refuse_body(x);
        break;
    case MQSYNC_CHUNKS_END:
        if (x->body.n <= max_body(x))
            run(x);
        break;
    default:
        break;
    }
}

int mqsync_exchange_body(struct mqsync_exchange *x, const void *bytes, size_t n)
{
    int64_t age = mqsync_monotonic_us() - x->begun_us;

    x->taken += n;
    if (x->complete)
        return 0;
    if (x->lingering)
        return age > LINGER_SECONDS * 1000000 || x->taken > LINGER_BYTES ? -1 : 0;
    if (age > BODY_US)
        return -1;
    if (answer_of(x)->status)
        return 0;
    if (x->chunked)
        take_chunks(x, (struct mqsync_slice){bytes, n});
    else
        mqsync_buf_add(&x->body, bytes, n);
    if (x->body.failed)
        return -1;
    if (x->body.n > max_body(x))
        refuse_size(x);
    return 0;
}

int mqsync_exchange_body_end(struct mqsync_exchange *x)
{
    if (x->complete)
        return 0;
    if (!x->lingering) {
        run(x);
        return 0;
    }
    x->complete = true;
    x->lingering = false;
    return x->last_sent ? -1 : 0;
}

/* --- the answer --------------------------------------------------------------------------------------------------- */

static const char *reason_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {429, "Too Many Requests"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };

    for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Unknown";
}

static void add_header(struct mqsync_buf *out, const char *name, const char *value)
{
    mqsync_buf_add_str(out, name);
    mqsync_buf_add_str(out, ": ");
    mqsync_buf_add_str(out, value);
    mqsync_buf_add_str(out, "\r\n");
}

static bool every_origin(const struct mqsync_config *config)
{
    for (size_t i = 0; i < config->bridge.allowed_origins_n; i++)
        if (strcmp(config->bridge.allowed_origins[i], "*") == 0)
            return true;
    return false;
}

static void add_cors(const struct mqsync_exchange *x, struct mqsync_buf *out)
{
    bool every = every_origin(x->bridge->config);

    if (!every)
        add_header(out, "vary", "Origin");
    if (!x->origin)
        return;
    add_header(out, "access-control-allow-origin", every ? "*" : x->origin);
    if (!x->preflight)
        return;
    add_header(out, "access-control-allow-methods", x->own.allow);
    add_header(out, "access-control-allow-headers", "Authorization, Content-Type");
    add_header(out, "access-control-max-age", "7200");
}

static void compose_head(struct mqsync_exchange *x)
{
    struct mqsync_http_answer *a = answer_of(x);
    struct mqsync_buf *out = &x->wire;
    char date[40], line[64];
    time_t now = time(NULL);
    struct tm tm;

    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    snprintf(line, sizeof(line), "HTTP/1.1 %u %s\r\n", a->status, reason_of(a->status));
    mqsync_buf_add_str(out, line);
    add_header(out, "date", date);
    if (a->content_type)
        add_header(out, "content-type", a->content_type);
    if (a->more && !x->is_old) {
        add_header(out, "transfer-encoding", "chunked");
    } else if (!a->more && a->status != 204 && (a->body.n || x->method != MQSYNC_HTTP_HEAD)) {
        snprintf(line, sizeof(line), "%zu", a->body.n);
        add_header(out, "content-length", line);
    }
    add_header(out, "x-content-type-options", "nosniff");
    add_header(out, "cache-control", x->under_sync ? "no-store" : "no-cache");
    if (a->policy) {
        add_header(out, "content-security-policy", a->policy);
        add_header(out, "referrer-policy", "no-referrer");
    }
    if (a->allow)
        add_header(out, "allow", a->allow);
    if (a->status == 401)
        add_header(out, "www-authenticate", "Bearer");
    if (a->retry_after) {
        snprintf(line, sizeof(line), "%u", a->retry_after);
        add_header(out, "retry-after", line);
    }
    if (a->tells_websocket)
        add_header(out, "sec-websocket-version", "13");
    if (x->under_sync)
        add_cors(x, out);
    add_header(out, "connection", x->close ? "close" : "keep-alive");
    if (!x->close) {
        snprintf(line, sizeof(line), "timeout=%u", x->bridge->config->bridge.idle_timeout_seconds);
        add_header(out, "keep-alive", line);
    }
    mqsync_buf_add_str(out, "\r\n");
}

/* Moves what is ready of the body to the wire. */
static void compose_body(struct mqsync_exchange *x, bool chunked)
{
    struct mqsync_http_answer *a = answer_of(x);
    char size[24];

    if (x->method == MQSYNC_HTTP_HEAD || a->status == 204) {
        mqsync_buf_clear(&a->body);
        return;
    }
    if (chunked && a->body.n) {
        snprintf(size, sizeof(size), "%zx\r\n", a->body.n);
        mqsync_buf_add_str(&x->wire, size);
    }
    mqsync_buf_add_slice(&x->wire, mqsync_buf_slice(&a->body));
    if (chunked && a->body.n)
        mqsync_buf_add_str(&x->wire, "\r\n");
    if (chunked && !a->more)
        mqsync_buf_add_str(&x->wire, "0\r\n\r\n");
    x->wire.failed |= a->body.failed;
    mqsync_buf_clear(&a->body);
}

/* The peer has taken what there was: what is there now. */
static void compose(struct mqsync_exchange *x)
{
    mqsync_buf_clear(&x->wire);
    x->written = 0;
    if (!x->head_sent) {
        x->streams = answer_of(x)->more;
        compose_head(x);
        x->head_sent = true;
    }
    compose_body(x, x->streams && !x->is_old);
    x->wire_is_last = !answer_of(x)->more;
}

int mqsync_exchange_refuse(struct lws *wsi, struct mqsync_http_answer *a)
{
    struct mqsync_exchange x = {
        .bridge = mqsync_server_bridge(wsi), .wsi = wsi, .method = MQSYNC_HTTP_METHODS_N, .own = *a, .close = true};
    int result;

    compose(&x);
    result = x.wire.failed || lws_write(wsi, (unsigned char *)x.wire.p, x.wire.n, LWS_WRITE_HTTP_FINAL) < 0 ? -1 : 0;
    mqsync_buf_free(&x.wire);
    mqsync_buf_free(&x.own.body);
    a->body = x.own.body;
    return result;
}

static int finish(struct mqsync_exchange **at)
{
    struct mqsync_exchange *x = *at;
    struct lws *wsi = x->wsi;
    int kept_seconds = (int)x->bridge->config->bridge.idle_timeout_seconds + KEPT_SECONDS;

    if (x->lingering) {
        lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, LINGER_SECONDS);
        return 0;
    }
    if (x->close)
        return -1;
    *at = NULL;
    lws_set_timeout(wsi, NO_PENDING_TIMEOUT, 0);
    mqsync_exchange_close(x);
    lws_rx_flow_control(wsi, 1);
    if (mqsync_ahead_completed(wsi))
        return -1;
    lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_KEEPALIVE_IDLE, kept_seconds);
    return 0;
}

int mqsync_exchange_writable(struct mqsync_exchange **at)
{
    struct mqsync_exchange *x = *at;
    struct mqsync_http_answer *a = answer_of(x);
    size_t n;

    if (a->status == 0 || (x->has_body && !x->complete && !x->lingering))
        return 0;
    if (x->last_sent)
        return finish(at);
    if (a->broken)
        return -1;
    if (x->written == x->wire.n)
        compose(x);
    if (x->wire.failed)
        return -1;
    n = x->wire.n - x->written < PIECE_BYTES ? x->wire.n - x->written : PIECE_BYTES;
    if (n && lws_write(x->wsi, (unsigned char *)x->wire.p + x->written, n, LWS_WRITE_HTTP) < 0)
        return -1;
    x->written += n;
    if (n && !x->lingering)
        lws_set_timeout(x->wsi, PENDING_TIMEOUT_HTTP_CONTENT, STALLED_SECONDS);
    x->last_sent = x->written == x->wire.n && x->wire_is_last;
    if (x->written < x->wire.n || lws_partial_buffered(x->wsi)) {
        lws_callback_on_writable(x->wsi);
        return 0;
    }
    if (x->last_sent)
        return finish(at);
    if (a->body.n == 0 && a->more) {
        want_nothing(x);
        mqsync_rest_continue(x->rest);
    } else {
        lws_callback_on_writable(x->wsi);
    }
    return 0;
}

void mqsync_exchange_close(struct mqsync_exchange *x)
{
    if (!x)
        return;
    lws_sul_cancel(&x->check);
    mqsync_rest_close(x->rest);
    mqsync_buf_free(&x->own.body);
    mqsync_buf_free(&x->body);
    mqsync_buf_free(&x->wire);
    free(x->origin);
    free(x);
}
