/* SPDX-License-Identifier: BSD-3-Clause */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUF_SMALLEST = 256 };

char *mqsync_buf_reserve(struct mqsync_buf *b, size_t more)
{
    if (b->failed)
        return NULL;
    if (b->p && more <= b->cap - b->n)
        return b->p + b->n;
    if (more > (size_t)PTRDIFF_MAX - b->n) {
        b->failed = true;
        return NULL;
    }

    size_t needed = b->n + more;
    size_t cap = b->cap ? b->cap : BUF_SMALLEST;
    while (cap < needed)
        cap = cap <= (size_t)PTRDIFF_MAX / 2 ? cap * 2 : needed;

    char *p = realloc(b->p, cap);
    if (!p) {
        b->failed = true;
        return NULL;
    }
    b->p = p;
    b->cap = cap;
    return p + b->n;
}

void mqsync_buf_add(struct mqsync_buf *b, const void *bytes, size_t n)
{
    char *to = mqsync_buf_reserve(b, n);

    /* memcpy must not see the NULL that an empty slice may hold */
    if (!to || n == 0)
        return;
    memcpy(to, bytes, n);
    b->n += n;
}

void mqsync_buf_add_slice(struct mqsync_buf *b, struct mqsync_slice s)
{
    mqsync_buf_add(b, s.p, s.n);
}

void mqsync_buf_add_str(struct mqsync_buf *b, const char *s)
{
    mqsync_buf_add(b, s, strlen(s));
}

void mqsync_buf_add_char(struct mqsync_buf *b, char c)
{
    char *to = mqsync_buf_reserve(b, 1);

    if (!to)
        return;
    *to = c;
    b->n++;
}

void mqsync_buf_add_u64(struct mqsync_buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    mqsync_buf_add(b, digits + at, sizeof(digits) - at);
}

void mqsync_buf_printf(struct mqsync_buf *b, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    mqsync_buf_add_str(b, text);
}

void mqsync_buf_clear(struct mqsync_buf *b)
{
    b->n = 0;
    b->failed = false;
}

void mqsync_buf_free(struct mqsync_buf *b)
{
    free(b->p);
    *b = (struct mqsync_buf){0};
}
