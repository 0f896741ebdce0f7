/* SPDX-License-Identifier: BSD-3-Clause */
/* Valid text of the usual kind, told at a fraction of what the full check costs. That one is asked about all else, so
 * that whatever is in doubt here, and what is wrong with a text, is decided in one place. */
#include "json_block.h"
#include "utf8.h"

enum { DEPTH_MAX = 16 };

/* What may come next. */
enum { A_KEY = 1, A_COLON = 2, A_VALUE = 4, A_COMMA = 8, A_CLOSE = 16 };

struct key {
    const char *p; /* the quote before it */
    size_t n;
    uint32_t sign;
};

struct level {
    bool object;
    size_t first_key;
    uint64_t signs; /* one bit for each key's */
};

struct reader {
    const char *end;
    unsigned expected;
    bool spaced;
    bool after_scalar; /* the block before ended in one */
    bool escapes;      /* there may be some in keys */
    const char *key;   /* the last one's quote */
    const char *utf8;  /* checked up to here */
    size_t depth, keys_n;
    struct level levels[DEPTH_MAX + 1]; /* the first one is around the text */
    struct key keys[MQSYNC_JSON_FEW_KEYS];
};

/* The key ends before the colon at p. */
static bool take_key(struct reader *r, const char *p)
{
    struct level *level = &r->levels[r->depth];

    if (r->expected != A_COLON || r->keys_n == MQSYNC_JSON_FEW_KEYS)
        return false;
    while (*--p == ' ')
        ;
    struct key key = {r->key, (size_t)(p - r->key) - 1, 0};
    if (r->escapes && memchr(key.p, '\\', key.n + 1))
        return false;
    key.sign = mqsync_json_key_sign(key.p, key.n);
    uint64_t bit = UINT64_C(1) << (key.sign * UINT32_C(0x9E3779B1) >> 26);
    if (level->signs & bit) {
        for (size_t i = level->first_key; i < r->keys_n; i++)
            if (r->keys[i].sign == key.sign && r->keys[i].n == key.n && !memcmp(r->keys[i].p, key.p, key.n + 1))
                return false;
    }
    level->signs |= bit;
    r->keys[r->keys_n++] = key;
    r->expected = A_VALUE;
    return true;
}

static bool open_level(struct reader *r, bool object)
{
    if (!(r->expected & A_VALUE) || r->depth == DEPTH_MAX)
        return false;
    r->levels[++r->depth] = (struct level){.object = object, .first_key = r->keys_n};
    r->expected = A_CLOSE | (object ? A_KEY : A_VALUE);
    return true;
}

static void value_taken(struct reader *r)
{
    r->expected = r->depth ? A_COMMA | A_CLOSE : 0;
}

static bool close_level(struct reader *r, bool object)
{
    if (!(r->expected & A_CLOSE) || r->levels[r->depth].object != object)
        return false;
    r->keys_n = r->levels[r->depth--].first_key;
    value_taken(r);
    return true;
}

static inline bool is_digit(const char *p, const char *end)
{
    return p < end && (unsigned char)(*p - '0') < 10;
}

/* Behind at least one digit, or NULL. */
static inline const char *digits(const char *p, const char *end)
{
    if (!is_digit(p, end))
        return NULL;
    do
        p++;
    while (is_digit(p, end));
    return p;
}

static const char *number(const char *p, const char *end)
{
    p += *p == '-';
    bool zero = p < end && *p == '0';
    p = zero ? p + 1 : digits(p, end);
    if (p && p < end && *p == '.')
        p = digits(p + 1, end);
    if (p && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        p = digits(p, end);
    }
    return p;
}

static const char *word(const char *p, const char *end, struct mqsync_slice expected)
{
    return (size_t)(end - p) >= expected.n && !memcmp(p, expected.p, expected.n) ? p + expected.n : NULL;
}

static bool take_scalar(struct reader *r, const char *p)
{
    if (!(r->expected & A_VALUE))
        return false;
    p = *p == 't'   ? word(p, r->end, MQSYNC_SLICE("true"))
        : *p == 'f' ? word(p, r->end, MQSYNC_SLICE("false"))
        : *p == 'n' ? word(p, r->end, MQSYNC_SLICE("null"))
                    : number(p, r->end);
    value_taken(r);
    /* it must be as long as it looked: all else before the next bracket or comma would not be looked at again */
    return p && (p == r->end || *p == ',' || *p == '}' || *p == ']' || *p == ' ');
}

static bool take_string(struct reader *r, const char *p)
{
    if (r->expected & A_KEY) {
        r->key = p;
        r->expected = A_COLON;
        return true;
    }
    if (!(r->expected & A_VALUE))
        return false;
    value_taken(r);
    return true;
}

static inline bool take(struct reader *r, const char *p)
{
    switch (*p) {
    case '"':
        return take_string(r, p);
    case ':':
        return take_key(r, p);
    case ',':
        if (!(r->expected & A_COMMA))
            return false;
        r->expected = r->levels[r->depth].object ? A_KEY : A_VALUE;
        return true;
    case '{':
    case '[':
        return open_level(r, *p == '{');
    case '}':
    case ']':
        return close_level(r, *p == '}');
    default:
        return take_scalar(r, p);
    }
}

static bool take_utf8(struct reader *r, const char *p, uint64_t high)
{
    uint32_t c;

    for (; high; high &= high - 1) {
        const char *at = p + __builtin_ctzll(high);
        if (at < r->utf8)
            continue;
        size_t n = mqsync_utf8_char(at, (size_t)(r->end - at), &c);
        if (!n)
            return false;
        r->utf8 = at + n;
    }
    return true;
}

/* All but \u: what that stands for would have to be looked at. */
static bool take_escapes(struct reader *r, const char *p, uint64_t escaped)
{
    r->escapes = true;
    for (; escaped; escaped &= escaped - 1) {
        const char *at = p + __builtin_ctzll(escaped);
        if (at >= r->end || !memchr("\"\\/bfnrt", *at, 8))
            return false;
    }
    return true;
}

/* `bytes` hold what is at p. */
static inline bool take_block(struct reader *r, struct mqsync_json_carry *carry, const char *bytes, const char *p)
{
    struct mqsync_json_block b = mqsync_json_block_read(bytes);
    uint64_t inside = mqsync_json_block_strings(&b, carry);

    if (b.control || (b.high && !take_utf8(r, p, b.high)) ||
        ((b.backslashes | b.escaped) && !take_escapes(r, p, b.escaped)))
        return false;
    uint64_t scalars = ~(inside | b.quotes | b.structure | b.spaces);
    if (r->end - p < MQSYNC_JSON_BLOCK)
        scalars &= (UINT64_C(1) << (r->end - p)) - 1;
    uint64_t begins = scalars & ~(scalars << 1 | r->after_scalar);
    r->after_scalar = scalars >> 63;
    r->spaced |= (b.spaces & ~inside) != 0;

    uint64_t rest = (b.structure & ~inside) | (b.quotes & inside) | begins;
    for (; rest; rest &= rest - 1)
        if (!take(r, p + __builtin_ctzll(rest)))
            return false;
    return true;
}

bool mqsync_json_is_plain(struct mqsync_slice text, bool *ret_spaced)
{
    struct reader r; /* not initialised as a whole: its arrays are large */
    struct mqsync_json_carry carry = {0};
    char tail[MQSYNC_JSON_BLOCK];

    r.end = mqsync_json_end(text);
    r.expected = A_VALUE;
    r.spaced = r.after_scalar = r.escapes = false;
    r.key = NULL;
    r.utf8 = text.p;
    r.depth = r.keys_n = 0;
    for (const char *p = text.p; p < r.end;) {
        if (!take_block(&r, &carry, mqsync_json_block_at(p, r.end, tail), p))
            return false;
        p = r.end - p < MQSYNC_JSON_BLOCK ? r.end : p + MQSYNC_JSON_BLOCK;
    }
    *ret_spaced = r.spaced;
    return r.expected == 0 && !carry.in_string;
}
