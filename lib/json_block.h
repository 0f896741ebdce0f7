/* SPDX-License-Identifier: BSD-3-Clause */
/* Private to lib/json*.c: JSON text 64 bytes at a time, each kind of byte as a mask with one bit per byte. Short
 * strings and numbers of varying length cost a mispredicted branch each when they are walked byte by byte; masks are
 * walked by their bits. */
#ifndef MQSYNC_JSON_BLOCK_H
#define MQSYNC_JSON_BLOCK_H

#include "json_scan.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define MQSYNC_JSON_BLOCK 64

struct mqsync_json_block {
    uint64_t quotes, backslashes;
    uint64_t structure; /* { } [ ] , : */
    uint64_t spaces;
    uint64_t control; /* everything below the space */
    uint64_t high;    /* not ASCII */
    uint64_t escaped; /* the bytes behind backslashes, once mqsync_json_block_strings() has been here */
};

#ifdef __SSE2__

static inline void mqsync_json_block_read16(struct mqsync_json_block *b, const char *p, unsigned shift)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + shift));
    /* with this bit set { and [ are the same, and so are } and ] */
    __m128i bracket = _mm_or_si128(v, _mm_set1_epi8(0x20));
    __m128i structure = _mm_or_si128(
        _mm_or_si128(_mm_cmpeq_epi8(bracket, _mm_set1_epi8('{')), _mm_cmpeq_epi8(bracket, _mm_set1_epi8('}'))),
        _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(',')), _mm_cmpeq_epi8(v, _mm_set1_epi8(':'))));
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1F)), v);

    b->quotes |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('"'))) << shift;
    b->backslashes |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))) << shift;
    b->structure |= (uint64_t)(unsigned)_mm_movemask_epi8(structure) << shift;
    b->spaces |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(' '))) << shift;
    b->control |= (uint64_t)(unsigned)_mm_movemask_epi8(control) << shift;
    b->high |= (uint64_t)(unsigned)_mm_movemask_epi8(v) << shift;
}

static inline struct mqsync_json_block mqsync_json_block_read(const char p[MQSYNC_JSON_BLOCK])
{
    struct mqsync_json_block b = {0};

    mqsync_json_block_read16(&b, p, 0);
    mqsync_json_block_read16(&b, p, 16);
    mqsync_json_block_read16(&b, p, 32);
    mqsync_json_block_read16(&b, p, 48);
    return b;
}

#else

static inline struct mqsync_json_block mqsync_json_block_read(const char p[MQSYNC_JSON_BLOCK])
{
    struct mqsync_json_block b = {0};

    for (unsigned i = 0; i < MQSYNC_JSON_BLOCK; i++) {
        unsigned char c = (unsigned char)p[i];
        b.quotes |= (uint64_t)(c == '"') << i;
        b.backslashes |= (uint64_t)(c == '\\') << i;
        b.structure |= (uint64_t)((c | 0x20) == '{' || (c | 0x20) == '}' || c == ',' || c == ':') << i;
        b.spaces |= (uint64_t)(c == ' ') << i;
        b.control |= (uint64_t)(c < ' ') << i;
        b.high |= (uint64_t)(c >> 7) << i;
    }
    return b;
}

#endif

/* A block's bytes: those at p, or a copy when there are fewer, filled up with what means nothing. */
static inline const char *mqsync_json_block_at(const char *p, const char *end, char copy[MQSYNC_JSON_BLOCK])
{
    if (end - p >= MQSYNC_JSON_BLOCK)
        return p;
    memset(copy, '0', MQSYNC_JSON_BLOCK);
    memcpy(copy, p, (size_t)(end - p));
    return copy;
}

/* What a block must know of the one before it. */
struct mqsync_json_carry {
    uint64_t in_string; /* all bits or none */
    uint64_t escaped;   /* the first byte is, by a backslash before it */
};

/* The bytes that follow a backslash which is not itself escaped. */
static inline uint64_t mqsync_json_block_escaped(uint64_t backslashes, struct mqsync_json_carry *carry)
{
    uint64_t escaped = carry->escaped;

    carry->escaped = 0;
    for (backslashes &= ~escaped; backslashes; backslashes &= backslashes - 1) {
        uint64_t next = (backslashes & -backslashes) << 1;
        carry->escaped = !next;
        escaped |= next;
        backslashes &= ~next;
    }
    return escaped;
}

/* Takes escaped quotes off b->quotes, and fills b->escaped. Returns the insides of strings, with the opening quote and
 * without the closing one. */
static inline uint64_t mqsync_json_block_strings(struct mqsync_json_block *b, struct mqsync_json_carry *carry)
{
    if (b->backslashes | carry->escaped) {
        b->escaped = mqsync_json_block_escaped(b->backslashes, carry);
        b->quotes &= ~b->escaped;
    }

    uint64_t inside = b->quotes; /* then each bit the parity of the quotes up to it */
    inside ^= inside << 1;
    inside ^= inside << 2;
    inside ^= inside << 4;
    inside ^= inside << 8;
    inside ^= inside << 16;
    inside ^= inside << 32;
    inside ^= carry->in_string;
    carry->in_string = 0 - (inside >> 63);
    return inside;
}

#endif
