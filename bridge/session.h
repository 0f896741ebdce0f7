/* SPDX-License-Identifier: BSD-3-Clause */
/* One WebSocket client: who it is, what it has subscribed to, what waits for it. */
#ifndef MQSYNC_BRIDGE_SESSION_H
#define MQSYNC_BRIDGE_SESSION_H

#include "bridge.h"
#include "forwarded.h"

struct mqsync_socket;

struct mqsync_session {
    struct mqsync_session *next, *previous;
    struct mqsync_bridge *bridge;
    struct mqsync_socket *socket;
    uint64_t handle; /* index and generation */
    char address[MQSYNC_ADDRESS_LEN];
    char *path; /* collections of /ws/{...}; NULL: none, or subscribed already */
    bool came_by_path;
    bool authenticated;
    struct mqsync_claims claims;
    struct mqsync_user *user; /* NULL until authenticated */
    struct mqsync_feed *feeds;
    unsigned syncs_n, subscriptions_n;
    struct mqsync_queue queue;
    bool starving; /* feeds wait for the queue to have room */
    bool paused;
    unsigned pending;            /* commands not yet acknowledged */
    size_t pending_bytes;        /* of their payloads */
    int64_t opened_ms, heard_ms; /* monotonic */
    int64_t too_long_ms;         /* when a message became too long; 0: none did */
    int64_t closing_ms;          /* 0: not closing */
    uint16_t close_code;         /* once the queue is out */
    const char *close_reason;
};

/* Takes path and address over by copying. token empty: none in the URL. NULL: out of memory. */
struct mqsync_session *mqsync_session_open(struct mqsync_bridge *b, struct mqsync_socket *socket, const char *address,
                                           const char *path, struct mqsync_slice token);
void mqsync_session_close(struct mqsync_session *s);

/* A whole message. */
void mqsync_session_receive(struct mqsync_session *s, struct mqsync_slice text);
/* One that is none: too long, or not text. */
void mqsync_session_receive_too_long(struct mqsync_session *s, size_t max);
void mqsync_session_too_long_over(struct mqsync_session *s); /* the rest of it has passed */
void mqsync_session_receive_binary(struct mqsync_session *s);
/* Anything at all has come. */
static inline void mqsync_session_heard(struct mqsync_session *s, int64_t now_ms)
{
    s->heard_ms = now_ms;
}

/* The broker has acknowledged one of its commands, of so many bytes. */
void mqsync_session_command_done(struct mqsync_session *s, size_t bytes);

/* Reads from the client or lets it wait, as its queue and its commands on their way demand. To be called when the
 * broker has come or gone. */
void mqsync_session_reconsider(struct mqsync_session *s);

/* What to write next; the caller gets the reference. NULL: nothing, and if *ret_close is not 0 the connection is to be
 * closed with that. */
struct mqsync_frame *mqsync_session_next(struct mqsync_session *s, uint16_t *ret_close, const char **ret_reason);

/* Queues a message; takes the reference over; NULL (out of memory) closes. An event beyond sendQueueBytes makes
 * events leave the queue: all that are behind what a feed has read last. */
void mqsync_session_send(struct mqsync_session *s, struct mqsync_frame *f);
void mqsync_session_send_text(struct mqsync_session *s, struct mqsync_slice text);
/* The same of what a feed has read. Events queued before it do not leave any more: read again later, they would come
 * after it, and a client that goes on from its seq would miss them. */
void mqsync_session_send_read(struct mqsync_session *s, struct mqsync_slice text);
/* An answer of the plugin's, as it is. */
void mqsync_session_pass_on(struct mqsync_session *s, struct mqsync_slice answer);
/* Empty slices: the error is about none. */
void mqsync_session_send_error(struct mqsync_session *s, const struct mqsync_error *e, struct mqsync_slice collection,
                               struct mqsync_slice record_id, struct mqsync_slice mutation_id);
/* Closes once the queue is out. Nothing more comes of its feeds. */
void mqsync_session_end(struct mqsync_session *s, uint16_t code, const char *reason);

/* NULL: gone. */
struct mqsync_session *mqsync_session_find(struct mqsync_bridge *b, uint64_t handle);
/* Closes one of its feeds. */
void mqsync_session_drop_feed(struct mqsync_session *s, struct mqsync_feed *f);

static inline struct mqsync_slice mqsync_session_user(const struct mqsync_session *s)
{
    return mqsync_slice_str(s->claims.user);
}

/* The rules, or what the client may do, have changed: subscriptions that are no longer allowed end, those that see
 * other records from now on begin anew. */
void mqsync_session_recheck(struct mqsync_session *s);
/* Time-outs and expired tokens. */
void mqsync_sessions_tick(struct mqsync_bridge *b, int64_t now_ms);
/* All of them close once their queues are out. */
void mqsync_sessions_end(struct mqsync_bridge *b);

enum {
    MQSYNC_ENVELOPE_MAX = 65536, /* what a message may have around its data */
    MQSYNC_QUEUE_LOW = 32768,    /* bytes: a connection that has more waiting gets no more pages */
};

#endif
