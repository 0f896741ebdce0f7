/* SPDX-License-Identifier: BSD-3-Clause */
#include "tls.h"

#include <dlfcn.h>
#include <errno.h>
#include <libwebsockets.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct mqsync_tls {
    SSL_CTX *holder; /* of certificate, chain and key; nobody connects with it; NULL: none */
};

struct mqsync_tls *mqsync_tls_open(void)
{
    return calloc(1, sizeof(struct mqsync_tls));
}

void mqsync_tls_close(struct mqsync_tls *t)
{
    if (!t)
        return;
    SSL_CTX_free(t->holder);
    free(t);
}

/* A daemon has nobody to ask for the password of a key. */
static int no_password(char *buf, int size, int for_writing, void *context)
{
    (void)buf;
    (void)size;
    (void)for_writing;
    (void)context;
    return -1;
}

/* The first of the errors that wait is the reason; those behind it say no more than what was being done. */
static const char *why(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());

    return reason ? reason : "not usable";
}

static enum mqsync_code check_readable(const char *key, const char *file, struct mqsync_error *ret_error)
{
    if (access(file, R_OK) == 0)
        return MQSYNC_OK;
    return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.tls.%s: cannot read %s: %s", key, file, strerror(errno));
}

static enum mqsync_code read_files(SSL_CTX *holder, const char *cert_file, const char *key_file,
                                   struct mqsync_error *ret_error)
{
    if (check_readable("certFile", cert_file, ret_error) != MQSYNC_OK ||
        check_readable("keyFile", key_file, ret_error) != MQSYNC_OK)
        return MQSYNC_SERVER_ERROR;
    SSL_CTX_set_default_passwd_cb(holder, no_password);
    if (SSL_CTX_use_certificate_chain_file(holder, cert_file) != 1)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.tls.certFile: %s: %s", cert_file, why());
    if (SSL_CTX_use_PrivateKey_file(holder, key_file, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(holder) != 1)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.tls.keyFile: %s: %s", key_file, why());
    return MQSYNC_OK;
}

enum mqsync_code mqsync_tls_load(struct mqsync_tls *t, const char *cert_file, const char *key_file,
                                 char ret_until[static 16], struct mqsync_error *ret_error)
{
    SSL_CTX *holder;
    enum mqsync_code code;
    struct tm until;

    ERR_clear_error(); /* of connections, which is not what is wrong with these files */
    holder = SSL_CTX_new(TLS_server_method());
    if (!holder)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.tls: %s", why());
    code = read_files(holder, cert_file, key_file, ret_error);
    ERR_clear_error(); /* the next connection would take what is left here for its own */
    if (code != MQSYNC_OK) {
        SSL_CTX_free(holder);
        return code;
    }
    if (ASN1_TIME_to_tm(X509_get0_notAfter(SSL_CTX_get0_certificate(holder)), &until) != 1 ||
        strftime(ret_until, 16, "%Y-%m-%d", &until) == 0)
        strcpy(ret_until, "?");
    SSL_CTX_free(t->holder);
    t->holder = holder;
    return MQSYNC_OK;
}

/* For each handshake. A context would keep the old certificate beside a new one of another kind of key, so it has none
 * of its own. */
static int choose(SSL *ssl, void *context)
{
    const struct mqsync_tls *t = context;
    STACK_OF(X509) *chain = NULL;

    SSL_CTX_get0_chain_certs(t->holder, &chain);
    return SSL_use_cert_and_key(ssl, SSL_CTX_get0_certificate(t->holder), SSL_CTX_get0_privatekey(t->holder), chain, 1);
}

bool mqsync_tls_attach(struct mqsync_tls *t, void *ssl_ctx)
{
    if (SSL_CTX_set_min_proto_version(ssl_ctx, TLS1_2_VERSION) != 1)
        return false;
    SSL_CTX_set_cert_cb(ssl_ctx, choose, t);
    return true;
}

/* --- stopping in the middle of a record --------------------------------------------------------------------------- */

static int stopped_index = -1;

/* OpenSSL's; libwebsockets asks. */
__attribute__((visibility("default"))) int SSL_pending(const SSL *ssl)
{
    static int (*theirs)(const SSL *);

    if (stopped_index >= 0 && SSL_get_ex_data(ssl, stopped_index))
        return 0;
    if (!theirs)
        *(void **)(void *)&theirs = dlsym(RTLD_NEXT, "SSL_pending");
    return theirs(ssl);
}

void mqsync_tls_flow(struct lws *wsi, bool on)
{
    static char yes;
    SSL *ssl = lws_get_ssl(wsi);

    if (ssl && stopped_index < 0)
        stopped_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (ssl)
        SSL_set_ex_data(ssl, stopped_index, on ? NULL : &yes);
    lws_rx_flow_control(wsi, on);
}
