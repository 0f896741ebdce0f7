/* SPDX-License-Identifier: BSD-3-Clause */
/* The certificate that clients are shown, and how it is replaced while connections go on. */
#ifndef MQSYNC_BRIDGE_TLS_H
#define MQSYNC_BRIDGE_TLS_H

#include <stdbool.h>

#include "error.h"

struct mqsync_tls;

/* Nothing to show yet: mqsync_tls_load() follows. NULL: out of memory. */
struct mqsync_tls *mqsync_tls_open(void);
void mqsync_tls_close(struct mqsync_tls *t); /* NULL is fine */

/* Reads a certificate chain and its key, PEM files, to be shown to connections from now on. On failure those before
 * stay. ret_until gets the day until which the certificate is valid, as YYYY-MM-DD. */
enum mqsync_code mqsync_tls_load(struct mqsync_tls *t, const char *cert_file, const char *key_file,
                                 char ret_until[static 16], struct mqsync_error *ret_error);

/* Makes a server's SSL_CTX show the certificate, and speak TLS 1.2 at least. t must outlive it. False: OpenSSL will
 * not. */
bool mqsync_tls_attach(struct mqsync_tls *t, void *ssl_ctx);

struct lws;
/* lws_rx_flow_control() for a WebSocket, with TLS or without. A libwebsockets that is told to stop while more is
 * decrypted already, and what it had kept from the time before is not used up, would go round for ever: it takes what
 * is kept, puts it back, and is asked by the rest of the record to go on. Until it may go on it sees no such rest. */
void mqsync_tls_flow(struct lws *wsi, bool on);

#endif
