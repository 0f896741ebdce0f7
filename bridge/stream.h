/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection to the broker as a stream of bytes, for what the bridge passes on unread: TCP, or TLS on top of it.
 * Never blocks; who waits for the descriptor is the caller's business. Knows OpenSSL. */
#ifndef MQSYNC_BRIDGE_STREAM_H
#define MQSYNC_BRIDGE_STREAM_H

#include <stdbool.h>
#include <sys/types.h>

#include "upstream.h"

/* What all TLS connections share; NULL until the first one. */
struct mqsync_stream_tls;
void mqsync_stream_tls_close(struct mqsync_stream_tls *tls); /* NULL is fine */

struct mqsync_stream {
    int fd;          /* -1: closed */
    bool connected;  /* TLS included */
    bool wants_read; /* while connecting: what it waits for */
    bool wants_write;
    void *ssl; /* NULL: no TLS */
};

/* Results of reading and writing below 0. */
enum {
    MQSYNC_STREAM_AGAIN = -1, /* not now: wait for the descriptor */
    MQSYNC_STREAM_END = -2,   /* the peer has said all it had to say */
    MQSYNC_STREAM_FAILED = -3,
};

/* Begins to connect; mqsync_stream_connect() goes on with it. False: no descriptor, or out of memory, with the reason
 * in ret_why (size bytes). *shared is made when needed, and is the caller's to close after all streams. */
bool mqsync_stream_open(const struct mqsync_upstream_peer *peer, struct mqsync_stream_tls **shared,
                        struct mqsync_stream *ret, char *ret_why, size_t size);
/* To be called when the descriptor is ready for what the stream wants. 0: connected; MQSYNC_STREAM_AGAIN;
 * MQSYNC_STREAM_FAILED with the reason in ret_why. */
int mqsync_stream_connect(struct mqsync_stream *s, char *ret_why, size_t size);

/* At least one byte, or one of the results above. With 16 KiB of room nothing readable stays behind in the TLS layer.
 */
ssize_t mqsync_stream_read(struct mqsync_stream *s, void *buffer, size_t room);
/* As many bytes as went out, or AGAIN or FAILED. */
ssize_t mqsync_stream_write(struct mqsync_stream *s, const void *bytes, size_t n);
/* Tells the peer that nothing more will be written. */
void mqsync_stream_finish(struct mqsync_stream *s);
void mqsync_stream_close(struct mqsync_stream *s);

#endif
