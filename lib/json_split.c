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
    size_t key_n = (size_t)(s->colon - s->begin) - 2;
    m->p = s->begin;
    m->n = (size_t)(p - s->begin);
    m->key_n = key_n;
    m->sign = mqsync_json_key_sign(s->begin, key_n);
    return !s->escapes || !memchr(s->begin, '\\', key_n + 1);
}

/* p is at a bracket, colon or comma outside strings. False when the object ends there or cannot be split. */
static inline bool take(struct splitter *s, const char *p)
{
    char c = *p;

    if (c == ':') {
        s->colon = s->depth == 1 ? p : s->colon;
        return true;
    }
    if (c == '{' || c == '[') {
        s->depth++;
        return true;
    }
    s->depth -= c != ',';
    if (s->depth != (c == ','))
        return true;
    if (c != ',') {
        s->done = p == s->begin || end_member(s, p);
        return false;
    }
    if (!end_member(s, p))
        return false;
    s->begin = p + 1;
    return true;
}

/* `bytes` hold what is at `text`. False when that is all. */
static inline bool take_block(struct splitter *s, struct mqsync_json_carry *carry, const char *bytes, const char *text)
{
    struct mqsync_json_block b = mqsync_json_block_read(bytes);
    uint64_t inside = mqsync_json_block_strings(&b, carry);

    s->escapes |= b.backslashes != 0;
    if ((b.spaces | b.control) & ~inside)
        return false;
    for (uint64_t rest = b.structure & ~inside; rest; rest &= rest - 1)
        if (!take(s, text + __builtin_ctzll(rest)))
            return false;
    return true;
}

size_t mqsync_json_split(struct mqsync_slice object, struct mqsync_json_member *ret)
{
    const char *p = object.p, *end = mqsync_json_end(object);
    char tail[MQSYNC_JSON_BLOCK];

    if (p == end)
        return 0;
    if (*p != '{')
        return MQSYNC_JSON_NOT_SPLIT;

    struct splitter s = {.member = ret, .end = ret + MQSYNC_JSON_FEW_KEYS, .begin = p + 1};
    struct mqsync_json_carry carry = {0};
    while (p < end && take_block(&s, &carry, mqsync_json_block_at(p, end, tail), p))
        p = end - p < MQSYNC_JSON_BLOCK ? end : p + MQSYNC_JSON_BLOCK;
    return s.done ? (size_t)(s.member - ret) : MQSYNC_JSON_NOT_SPLIT;
}
