/* SPDX-License-Identifier: BSD-3-Clause */
/* An object cut into its members. */
#include "json_block.h"

struct splitter {
    struct mqsync_json_member *member, *end; /* where the next one goes */
    const char *begin;                       /* of the next one */
    const char *colon;
    size_t depth;
    bool escapes; /* there may be some in keys */
    bool done;    /* the object's end has been seen */
};

/* Takes in the member that ends before p. False when the object cannot be split. */
static inline bool end_member(struct splitter *s, const char *p)
{
    struct mqsync_json_member *m = s->member;

    if (m == s->end)
        return false;
    s->member++;
    m->p = s->begin;
    m->n = (size_t)(p - s->begin);
    m->key_n = (size_t)(s->colon - s->begin) - 2;
    /* an empty key has its quotes read */
    m->sign = (unsigned char)m->p[1] | (uint32_t)(unsigned char)m->p[m->key_n] << 8 | (uint32_t)m->key_n << 16;
    s->begin = p + 1;
    return !s->escapes || !memchr(m->p, '\\', m->key_n + 1);
}

/* p is at a bracket, colon or comma outside strings. False when the object ends there or cannot be split. */
static inline bool take(struct splitter *s, const char *p)
{
    switch (*p) {
    case ':':
        if (s->depth == 1)
            s->colon = p;
        return true;
    case ',':
        return s->depth != 1 || end_member(s, p);
    case '{':
    case '[':
        s->depth++;
        return true;
    default:
        if (--s->depth)
            return true;
        s->done = p == s->begin || end_member(s, p);
        return false;
    }
}

/* `bytes` hold what is at `text`. False when that is all. */
static inline bool take_block(struct splitter *s, struct mqsync_json_carry *carry, const char *bytes, const char *text)
{
    struct mqsync_json_block b = mqsync_json_block_read(bytes);
    uint64_t inside = mqsync_json_block_strings(&b, carry);

    s->escapes |= b.backslashes != 0;
    if (b.blank & ~inside)
        return false;
    for (uint64_t rest = b.structure & ~inside; rest; rest &= rest - 1)
        if (!take(s, text + __builtin_ctzll(rest)))
            return false;
    return true;
}

size_t mqsync_json_split(struct mqsync_slice object, struct mqsync_json_member *ret)
{
    const char *p = object.p, *end = mqsync_json_end(object);

    if (p == end)
        return 0;
    if (*p != '{')
        return MQSYNC_JSON_NOT_SPLIT;

    struct splitter s = {.member = ret, .end = ret + MQSYNC_JSON_FEW_KEYS, .begin = p + 1};
    struct mqsync_json_carry carry = {0};
    bool more = true;
    for (; more && end - p >= MQSYNC_JSON_BLOCK; p += MQSYNC_JSON_BLOCK)
        more = take_block(&s, &carry, p, p);
    if (more) {
        char tail[MQSYNC_JSON_BLOCK];
        memset(tail, '0', sizeof(tail));
        memcpy(tail, p, (size_t)(end - p));
        take_block(&s, &carry, tail, p);
    }
    return s.done ? (size_t)(s.member - ret) : MQSYNC_JSON_NOT_SPLIT;
}
