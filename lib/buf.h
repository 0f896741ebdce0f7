/* SPDX-License-Identifier: BSD-3-Clause */
/* A growable byte buffer with a sticky error, and the slice: bytes that somebody else owns. */
#ifndef MQSYNC_BUF_H
#define MQSYNC_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes owned elsewhere; never NUL-terminated by promise. p may be NULL when n is 0. */
struct mqsync_slice {
    const char *p;
    size_t n;
};

#define MQSYNC_SLICE(literal) ((struct mqsync_slice){(literal), sizeof(literal) - 1})

static inline struct mqsync_slice mqsync_slice_str(const char *s)
{
    return (struct mqsync_slice){s, s ? strlen(s) : 0};
}

static inline bool mqsync_slice_equal(struct mqsync_slice a, struct mqsync_slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool mqsync_slice_starts_with(struct mqsync_slice s, const char *start)
{
    size_t n = strlen(start);
    return s.n >= n && memcmp(s.p, start, n) == 0;
}

/* Without the blanks and tabs around it: what HTTP allows around a value (RFC 9110, 5.6.3). */
static inline struct mqsync_slice mqsync_slice_trim(struct mqsync_slice s)
{
    while (s.n && (*s.p == ' ' || *s.p == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* Zero-initialise to start. After the first failed growth `failed` stays set and later calls do nothing, so that a
 * chain of calls needs one test at its end. */
struct mqsync_buf {
    char *p;
    size_t n;   /* bytes used */
    size_t cap; /* bytes allocated */
    bool failed;
};

/* Makes room for `more` bytes past n. Returns where they start, or NULL (and sets failed) when out of memory. */
char *mqsync_buf_reserve(struct mqsync_buf *b, size_t more);

void mqsync_buf_add(struct mqsync_buf *b, const void *bytes, size_t n);
void mqsync_buf_add_slice(struct mqsync_buf *b, struct mqsync_slice s);
void mqsync_buf_add_str(struct mqsync_buf *b, const char *s);
void mqsync_buf_add_char(struct mqsync_buf *b, char c);
void mqsync_buf_add_u64(struct mqsync_buf *b, uint64_t v); /* decimal */
/* Up to 511 bytes of text; what is longer is cut. */
void mqsync_buf_printf(struct mqsync_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Empties without giving memory back, and clears failed. */
void mqsync_buf_clear(struct mqsync_buf *b);
void mqsync_buf_free(struct mqsync_buf *b);

static inline struct mqsync_slice mqsync_buf_slice(const struct mqsync_buf *b)
{
    return (struct mqsync_slice){b->p, b->n};
}

#endif
