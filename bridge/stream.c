/* SPDX-License-Identifier: BSD-3-Clause */
#include "stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct mqsync_stream_tls {
    SSL_CTX *context;
};

static void say_ssl(const SSL *ssl, char *ret_why, size_t size)
{
    long verified = ssl ? SSL_get_verify_result(ssl) : X509_V_OK;
    unsigned long error = ERR_peek_error();

    if (verified != X509_V_OK)
        snprintf(ret_why, size, "its certificate: %s", X509_verify_cert_error_string(verified));
    else
        snprintf(ret_why, size, "TLS: %s", error ? ERR_reason_error_string(error) : "the connection ended");
    ERR_clear_error();
}

/* As the bridge's own connection: the system's authorities, and the certificate must be the host's. */
static bool share(struct mqsync_stream_tls **shared)
{
    struct mqsync_stream_tls *tls = calloc(1, sizeof(*tls));

    if (!tls)
        return false;
    tls->context = SSL_CTX_new(TLS_client_method());
    if (!tls->context || !SSL_CTX_set_default_verify_paths(tls->context)) {
        mqsync_stream_tls_close(tls);
        return false;
    }
    SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION);
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls->context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    *shared = tls;
    return true;
}

void mqsync_stream_tls_close(struct mqsync_stream_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    free(tls);
}

static bool start_tls(struct mqsync_stream *s, const char *host, struct mqsync_stream_tls **shared)
{
    unsigned char address[sizeof(struct in6_addr)];
    bool numeric = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    SSL *ssl;

    if (!*shared && !share(shared))
        return false;
    s->ssl = ssl = SSL_new((*shared)->context);
    if (!ssl || !SSL_set_fd(ssl, s->fd))
        return false;
    SSL_set_connect_state(ssl);
    if (numeric)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    return SSL_set_tlsext_host_name(ssl, host) && SSL_set1_host(ssl, host);
}

bool mqsync_stream_open(const struct mqsync_upstream_peer *peer, struct mqsync_stream_tls **shared,
                        struct mqsync_stream *ret, char *ret_why, size_t size)
{
    struct mqsync_stream s = {.wants_write = true};
    const struct sockaddr *address = (const struct sockaddr *)&peer->address;
    int on = 1;

    s.fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s.fd < 0) {
        snprintf(ret_why, size, "%s", strerror(errno));
        return false;
    }
    setsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(s.fd, address, peer->address_n) < 0 && errno != EINPROGRESS) {
        snprintf(ret_why, size, "%s", strerror(errno));
        mqsync_stream_close(&s);
        return false;
    }
    if (peer->tls && !start_tls(&s, peer->host, shared)) {
        say_ssl(NULL, ret_why, size);
        mqsync_stream_close(&s);
        return false;
    }
    *ret = s;
    return true;
}

/* What an SSL function's result means: below 0. */
static int ssl_result(struct mqsync_stream *s, int result)
{
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        s->wants_read = true;
        return MQSYNC_STREAM_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        s->wants_write = true;
        return MQSYNC_STREAM_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return MQSYNC_STREAM_END;
    default:
        return MQSYNC_STREAM_FAILED;
    }
}

int mqsync_stream_connect(struct mqsync_stream *s, char *ret_why, size_t size)
{
    int error = 0, result;
    socklen_t n = sizeof(error);

    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
        error = errno;
    if (error) {
        snprintf(ret_why, size, "%s", strerror(error));
        return MQSYNC_STREAM_FAILED;
    }
    s->wants_read = s->wants_write = false;
    if (s->ssl) {
        ERR_clear_error();
        result = SSL_do_handshake(s->ssl);
        if (result != 1) {
            result = ssl_result(s, result);
            if (result == MQSYNC_STREAM_AGAIN)
                return result;
            say_ssl(s->ssl, ret_why, size);
            return MQSYNC_STREAM_FAILED;
        }
    }
    s->connected = true;
    return 0;
}

static int socket_result(void)
{
    return errno == EAGAIN || errno == EINTR ? MQSYNC_STREAM_AGAIN : MQSYNC_STREAM_FAILED;
}

ssize_t mqsync_stream_read(struct mqsync_stream *s, void *buffer, size_t room)
{
    ssize_t n;

    if (s->ssl) {
        ERR_clear_error();
        s->wants_write = false;
        n = SSL_read(s->ssl, buffer, (int)room);
        return n > 0 ? n : ssl_result(s, (int)n);
    }
    n = recv(s->fd, buffer, room, 0);
    if (n > 0)
        return n;
    return n == 0 ? MQSYNC_STREAM_END : socket_result();
}

ssize_t mqsync_stream_write(struct mqsync_stream *s, const void *bytes, size_t n)
{
    ssize_t written;

    if (s->ssl) {
        ERR_clear_error();
        s->wants_write = false;
        written = SSL_write(s->ssl, bytes, (int)n);
        return written > 0 ? written : ssl_result(s, (int)written);
    }
    written = send(s->fd, bytes, n, MSG_NOSIGNAL);
    return written >= 0 ? written : socket_result();
}

void mqsync_stream_finish(struct mqsync_stream *s)
{
    if (s->ssl)
        SSL_shutdown(s->ssl);
    ERR_clear_error();
    shutdown(s->fd, SHUT_WR);
}

void mqsync_stream_close(struct mqsync_stream *s)
{
    SSL_free(s->ssl);
    s->ssl = NULL;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->connected = false;
}
