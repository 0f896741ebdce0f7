/* SPDX-License-Identifier: BSD-3-Clause */
#include "frame.h"

#include <stdlib.h>

enum { QUEUE_FIRST_CAP = 8 };

struct mqsync_frame *mqsync_frame_alloc(struct mqsync_slice text)
{
    struct mqsync_frame *f = text.n <= UINT32_MAX / 2 ? malloc(sizeof(*f) + text.n) : NULL;

    if (!f)
        return NULL;
    f->references = 1;
    f->n = (uint32_t)text.n;
    f->channel = 0;
    f->seq = f->record = 0;
    f->whole = f->first = f->read = false;
    if (text.n)
        memcpy(f->text, text.p, text.n);
    return f;
}

void mqsync_frame_unref(struct mqsync_frame *f)
{
    if (f && --f->references == 0)
        free(f);
}

/* RFC 6455, 5.2 */
unsigned char *mqsync_frame_message(struct mqsync_frame *f, size_t *ret_n)
{
    enum { FIN_TEXT = 0x81, TWO_BYTES = 126, EIGHT_BYTES = 127 };
    unsigned kind = f->n < TWO_BYTES ? f->n : f->n <= UINT16_MAX ? TWO_BYTES : EIGHT_BYTES;
    unsigned length_bytes = kind < TWO_BYTES ? 0 : kind == TWO_BYTES ? 2 : 8;
    unsigned char *message = (unsigned char *)f + offsetof(struct mqsync_frame, text) - length_bytes - 2;

    message[0] = FIN_TEXT;
    message[1] = (unsigned char)kind;
    for (unsigned i = 0; i < length_bytes; i++)
        message[2 + i] = (unsigned char)((uint64_t)f->n >> (8 * (length_bytes - 1 - i)));
    *ret_n = 2 + length_bytes + f->n;
    return message;
}

static bool grow(struct mqsync_queue *q)
{
    uint32_t cap = q->cap ? q->cap * 2 : QUEUE_FIRST_CAP;
    struct mqsync_frame **v = cap > q->cap ? malloc(cap * sizeof(*v)) : NULL;

    if (!v)
        return false;
    for (uint32_t i = 0; i < q->n; i++)
        v[i] = q->v[(q->first + i) & (q->cap - 1)];
    free(q->v);
    q->v = v;
    q->cap = cap;
    q->first = 0;
    return true;
}

bool mqsync_queue_push(struct mqsync_queue *q, struct mqsync_frame *f)
{
    if (q->n == q->cap && !grow(q)) {
        mqsync_frame_unref(f);
        return false;
    }
    q->v[(q->first + q->n++) & (q->cap - 1)] = f;
    q->bytes += f->n;
    return true;
}

struct mqsync_frame *mqsync_queue_pop(struct mqsync_queue *q)
{
    struct mqsync_frame *f;

    if (q->n == 0)
        return NULL;
    f = q->v[q->first];
    q->first = (q->first + 1) & (q->cap - 1);
    q->n--;
    q->bytes -= f->n;
    /* what a burst has needed is not kept by a connection that is idle now */
    if (q->n == 0 && q->cap > QUEUE_FIRST_CAP)
        mqsync_queue_free(q);
    return f;
}

void mqsync_queue_drop_events(struct mqsync_queue *q, void (*dropped)(void *context, const struct mqsync_frame *f),
                              void *context)
{
    uint32_t kept = q->n;

    while (kept > 0 && !q->v[(q->first + kept - 1) & (q->cap - 1)]->read)
        kept--;
    for (uint32_t i = kept; i < q->n; i++) {
        struct mqsync_frame *f = q->v[(q->first + i) & (q->cap - 1)];
        if (!f->channel) {
            q->v[(q->first + kept++) & (q->cap - 1)] = f;
            continue;
        }
        q->bytes -= f->n;
        dropped(context, f);
        mqsync_frame_unref(f);
    }
    q->n = kept;
}

void mqsync_queue_free(struct mqsync_queue *q)
{
    for (uint32_t i = 0; i < q->n; i++)
        mqsync_frame_unref(q->v[(q->first + i) & (q->cap - 1)]);
    free(q->v);
    *q = (struct mqsync_queue){0};
}
