/* SPDX-License-Identifier: BSD-3-Clause */
/* A message on its way out: one copy, shared by all the connections it goes to, and the queue of one connection. */
#ifndef MQSYNC_BRIDGE_FRAME_H
#define MQSYNC_BRIDGE_FRAME_H

#include "buf.h"

enum { MQSYNC_FRAME_ROOM = 16 }; /* bytes before the text, where its WebSocket header goes */

struct mqsync_frame {
    unsigned references;
    uint32_t n;
    uint64_t channel; /* id of the event's: it may be dropped and made up for by a sync; 0: it is no event */
    uint64_t seq;     /* of an event */
    uint64_t record;  /* of an event: a hash of the record's id, never 0; 0: not known */
    bool whole;       /* an event that tells all there is of the record */
    bool first;       /* an `insert` of a record that has never been there before */
    bool read;        /* no event, but read in place of some: what is before it in a queue is older, and stays */
    unsigned char room[MQSYNC_FRAME_ROOM];
    unsigned char text[];
};

/* With what a WebSocket is closed: RFC 6455, 7.4.1, and what IANA has registered since. */
enum mqsync_close {
    MQSYNC_CLOSE_NORMAL = 1000,
    MQSYNC_CLOSE_GOING_AWAY = 1001,
    MQSYNC_CLOSE_UNSUPPORTED = 1003,
    MQSYNC_CLOSE_POLICY = 1008,
    MQSYNC_CLOSE_TOO_BIG = 1009,
    MQSYNC_CLOSE_FAILURE = 1011,
    MQSYNC_CLOSE_TRY_AGAIN = 1013,
};

/* A copy of text with one reference; NULL: out of memory. */
struct mqsync_frame *mqsync_frame_alloc(struct mqsync_slice text);
static inline struct mqsync_frame *mqsync_frame_ref(struct mqsync_frame *f)
{
    f->references++;
    return f;
}
void mqsync_frame_unref(struct mqsync_frame *f); /* NULL is fine */
/* The text with the header of a WebSocket message before it, neither masked nor compressed: the same for every
 * receiver. It lies in the frame. */
unsigned char *mqsync_frame_message(struct mqsync_frame *f, size_t *ret_n);

/* First in, first out. Zero-initialise to start. */
struct mqsync_queue {
    struct mqsync_frame **v; /* a ring of cap (a power of two, or 0) */
    uint32_t cap, first, n;
    size_t bytes; /* of the texts */
};

/* Takes a reference over, also when it fails (out of memory). */
bool mqsync_queue_push(struct mqsync_queue *q, struct mqsync_frame *f);
/* The caller gets the reference; NULL: empty. */
struct mqsync_frame *mqsync_queue_pop(struct mqsync_queue *q);
/* Removes the events behind all that was read, calling back for each before its reference goes. */
void mqsync_queue_drop_events(struct mqsync_queue *q, void (*dropped)(void *context, const struct mqsync_frame *f),
                              void *context);
void mqsync_queue_free(struct mqsync_queue *q);

#endif
