/* SPDX-License-Identifier: BSD-3-Clause */
/* Private to lib/json*.c: finding one's way through JSON text eight bytes at a time, and sets of keys. */
#ifndef MQSYNC_JSON_SCAN_H
#define MQSYNC_JSON_SCAN_H

#include "json.h"

#include <endian.h>

#define MQSYNC_JSON_FEW_KEYS 32

#define MQSYNC_JSON_BYTES(c) (UINT64_C(0x0101010101010101) * (c))

/* Not p + n where p may be NULL. */
static inline const char *mqsync_json_end(struct mqsync_slice s)
{
    return s.n ? s.p + s.n : s.p;
}

/* The highest bit of each byte of v that is zero; bytes above the first zero one may be marked wrongly. */
static inline uint64_t mqsync_json_zero_bytes(uint64_t v)
{
    return (v - MQSYNC_JSON_BYTES(1)) & ~v & MQSYNC_JSON_BYTES(0x80);
}

static inline uint64_t mqsync_json_load(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static inline bool mqsync_json_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static inline const char *mqsync_json_skip_space(const char *p, const char *end)
{
    while (p < end && mqsync_json_is_space(*p))
        p++;
    return p;
}

static inline struct mqsync_slice mqsync_json_trim(struct mqsync_slice s)
{
    while (s.n && mqsync_json_is_space(s.p[s.n - 1]))
        s.n--;
    while (s.n && mqsync_json_is_space(*s.p)) {
        s.p++;
        s.n--;
    }
    return s;
}

/* Not zero when v holds a byte that is not plain: a quote, a backslash, a control character or UTF-8. The lowest bit
 * set is the highest of the first such byte; others may be set wrongly above it. */
static inline uint64_t mqsync_json_special(uint64_t v)
{
    uint64_t control = (v - MQSYNC_JSON_BYTES(0x20)) & ~v;
    uint64_t special = (v | control) & MQSYNC_JSON_BYTES(0x80);

    special |= mqsync_json_zero_bytes(v ^ MQSYNC_JSON_BYTES('"'));
    return special | mqsync_json_zero_bytes(v ^ MQSYNC_JSON_BYTES('\\'));
}

/* First byte of a string's inside that is not plain ASCII: a quote, a backslash, a control character, UTF-8, or end. */
static inline const char *mqsync_json_skip_plain(const char *p, const char *end)
{
    for (; end - p >= 8; p += 8) {
        uint64_t special = mqsync_json_special(mqsync_json_load(p));
        if (special)
            return p + __builtin_ctzll(special) / 8;
    }
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* p is behind the opening quote of a checked string. Returns its closing quote, or end. */
static inline const char *mqsync_json_string_end(const char *p, const char *end)
{
    for (;;) {
        while (end - p >= 8) {
            uint64_t v = mqsync_json_load(p);
            uint64_t special = mqsync_json_zero_bytes(v ^ MQSYNC_JSON_BYTES('"')) |
                               mqsync_json_zero_bytes(v ^ MQSYNC_JSON_BYTES('\\'));
            if (special) {
                p += __builtin_ctzll(special) / 8;
                break;
            }
            p += 8;
        }
        while (p < end && *p != '"' && *p != '\\')
            p++;
        if (end - p < 2 || *p == '"')
            return p < end && *p == '"' ? p : end;
        p += 2;
    }
}

/* Where the string, number or word that begins at p ends; p is not end. */
static inline const char *mqsync_json_skip_scalar(const char *p, const char *end)
{
    if (*p == '"') {
        p = mqsync_json_string_end(p + 1, end);
        return p < end ? p + 1 : end;
    }
    while (p < end && *p != ',' && *p != '}' && *p != ']' && !mqsync_json_is_space(*p))
        p++;
    return p;
}

/* Where the value that begins at p ends. */
const char *mqsync_json_skip_value(const char *p, const char *end);

/* One member of an object, in the object's text. */
struct mqsync_json_member {
    const char *p; /* the quote before the key */
    size_t n;      /* up to the value's end */
    size_t key_n;  /* bytes between the key's quotes */
    uint32_t sign; /* equal keys have equal ones */
};

/* Equal for equal keys, rarely for others that occur together; p is at the quote before the key. */
static inline uint32_t mqsync_json_key_sign(const char *p, size_t key_n)
{
    uint32_t tail;

    if (key_n < 3)
        return (unsigned char)p[1] | (uint32_t)(unsigned char)p[key_n] << 8 | (uint32_t)key_n << 16;
    /* the end first: keys are numbered there */
    memcpy(&tail, p + key_n - 3, sizeof(tail));
    return tail ^ (uint32_t)(unsigned char)p[1] << 24 ^ (uint32_t)key_n;
}

/* Says of most valid texts that they are: false when text is not valid or too unusual to tell (\u escapes, escapes
 * in keys, white space that is not a space, many members, deep nesting). Much cheaper than mqsync_json_check(). */
bool mqsync_json_is_plain(struct mqsync_slice text, bool *ret_spaced);

/* Cuts an object into members without a look at what they hold. Returns their number, or MQSYNC_JSON_NOT_SPLIT for an
 * object that has more than MQSYNC_JSON_FEW_KEYS of them, white space outside strings, or a key with an escape. */
#define MQSYNC_JSON_NOT_SPLIT SIZE_MAX
size_t mqsync_json_split(struct mqsync_slice object, struct mqsync_json_member *ret);

/* Minifies into room for value.n bytes; returns the end of what was written. */
char *mqsync_json_minify_to(char *to, struct mqsync_slice value);

/* What a raw string stands for, byte by byte. The text that is not `escaped` stands for itself. */
struct mqsync_json_decoder {
    const char *p;
    const char *end;
    bool escaped;
    unsigned char pending[4];
    unsigned at, n; /* of pending */
};

int mqsync_json_decode_escape(struct mqsync_json_decoder *d);

/* The next byte, or -1 at the end. */
static inline int mqsync_json_decode(struct mqsync_json_decoder *d)
{
    if (d->at < d->n)
        return d->pending[d->at++];
    if (d->p == d->end)
        return -1;
    if (*d->p == '\\' && d->escaped)
        return mqsync_json_decode_escape(d);
    return (unsigned char)*d->p++;
}

/* --- keys of one object (json_keys.c) ----------------------------------------------------------------------------- */

#define MQSYNC_JSON_NO_KEY SIZE_MAX

/* A raw key and the hash of what it means. */
struct mqsync_json_key {
    const char *p;
    size_t n;
    uint64_t hash;
};

struct mqsync_json_key mqsync_json_make_key(const char *p, size_t n);

/* Hash of two hashes, as hard to foresee as they are. */
uint64_t mqsync_json_hash_pair(uint64_t a, uint64_t b);

/* Finds a key among the n first of an array that the caller keeps (and may move). Few keys are compared one by one,
 * behind a filter of 64 bits; more get a hash table, which costs memory. */
struct mqsync_json_keys {
    size_t n;
    uint64_t filter;
    uint64_t *slots; /* upper half of the hash, index + 1; 0 when empty */
    size_t mask;
};

static inline void mqsync_json_keys_init(struct mqsync_json_keys *set)
{
    *set = (struct mqsync_json_keys){0};
}

/* Index of the key that means the same, or MQSYNC_JSON_NO_KEY. */
size_t mqsync_json_keys_search(const struct mqsync_json_keys *set, const struct mqsync_json_key *keys,
                               const struct mqsync_json_key *key);

static inline size_t mqsync_json_keys_find(const struct mqsync_json_keys *set, const struct mqsync_json_key *keys,
                                           const struct mqsync_json_key *key)
{
    if (!(set->filter & UINT64_C(1) << (key->hash >> 58)))
        return MQSYNC_JSON_NO_KEY;
    return mqsync_json_keys_search(set, keys, key);
}

/* Builds or grows the table so that it holds all of keys[0..n). False when out of memory. */
bool mqsync_json_keys_index(struct mqsync_json_keys *set, const struct mqsync_json_key *keys);

/* Takes in keys[set->n], which is not in the set yet. False when out of memory. */
static inline bool mqsync_json_keys_add(struct mqsync_json_keys *set, const struct mqsync_json_key *keys)
{
    set->filter |= UINT64_C(1) << (keys[set->n].hash >> 58);
    set->n++;
    return set->n <= MQSYNC_JSON_FEW_KEYS || mqsync_json_keys_index(set, keys);
}

void mqsync_json_keys_free(struct mqsync_json_keys *set);

#endif
