/* SPDX-License-Identifier: BSD-3-Clause */
/* Checking JSON text and walking through it. */
#include "json_scan.h"
#include "utf8.h"

#include <stdlib.h>

/* --- characters --------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value of the four hex digits at p, -1 when they are not there. */
static int hex4(const char *p, const char *end)
{
    int value = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

static bool is_high_surrogate(int unit)
{
    return unit >= 0xD800 && unit <= 0xDBFF;
}

static bool is_low_surrogate(int unit)
{
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

/* --- checking ----------------------------------------------------------------------------------------------------- */

enum { KEYS_AT_HAND = 512 };

struct level {
    char close; /* what ends it: '}' or ']' */
    size_t first_key;
    struct mqsync_json_keys keys;
};

struct checker {
    const char *start;
    const char *end;
    const char *reason; /* first thing found wrong, at `where` */
    const char *where;
    bool spaced;
    bool value_due;
    size_t depth;
    size_t n_keys, cap_keys;      /* of all open objects, the innermost one's last */
    struct mqsync_json_key *keys; /* keys_at_hand until they are too few */
    struct mqsync_json_key keys_at_hand[KEYS_AT_HAND];
    struct level levels[MQSYNC_JSON_MAX_DEPTH];
};

static const char out_of_memory[] = "out of memory";

static const char *refuse(struct checker *c, const char *where, const char *reason)
{
    c->reason = reason;
    c->where = where;
    return NULL;
}

static inline const char *space(struct checker *c, const char *p)
{
    if (p < c->end && mqsync_json_is_space(*p)) {
        c->spaced = true;
        p = mqsync_json_skip_space(p, c->end);
    }
    return p;
}

static const char *check_escape(struct checker *c, const char *p)
{
    if (c->end - p < 2)
        return refuse(c, p, "unterminated string");
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return p + 2;
    case 'u':
        break;
    default:
        return refuse(c, p, "unknown escape");
    }

    int unit = hex4(p + 2, c->end);
    if (unit < 0)
        return refuse(c, p, "\\u without four hex digits");
    if (is_low_surrogate(unit))
        return refuse(c, p, "lone surrogate");
    if (!is_high_surrogate(unit))
        return p + 6;
    if (c->end - p < 8 || p[6] != '\\' || p[7] != 'u' || !is_low_surrogate(hex4(p + 8, c->end)))
        return refuse(c, p, "lone surrogate");
    return p + 12;
}

/* p is behind the opening quote; returns where the closing one is. */
static const char *check_string(struct checker *c, const char *p)
{
    for (;;) {
        p = mqsync_json_skip_plain(p, c->end);
        if (p == c->end)
            return refuse(c, p, "unterminated string");
        if (*p == '"')
            return p;
        if (*p == '\\') {
            p = check_escape(c, p);
            if (!p)
                return NULL;
        } else if ((unsigned char)*p < 0x20) {
            return refuse(c, p, "control character in a string");
        } else {
            do {
                uint32_t character;
                size_t length = mqsync_utf8_char(p, (size_t)(c->end - p), &character);
                if (length == 0)
                    return refuse(c, p, "invalid UTF-8");
                p += length;
            } while (p < c->end && (unsigned char)*p >= 0x80);
        }
    }
}

static inline const char *skip_digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

static const char *check_number(struct checker *c, const char *p)
{
    const char *end = c->end;
    const char *digits = p + (*p == '-');

    p = skip_digits(digits, end);
    if (p == digits)
        return refuse(c, p, "expected a digit");
    if (*digits == '0' && p - digits > 1)
        return refuse(c, digits, "number with a leading zero");
    if (p < end && *p == '.') {
        digits = p + 1;
        p = skip_digits(digits, end);
        if (p == digits)
            return refuse(c, p, "expected a digit");
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        digits = p + 1;
        if (digits < end && (*digits == '+' || *digits == '-'))
            digits++;
        p = skip_digits(digits, end);
        if (p == digits)
            return refuse(c, p, "expected a digit");
    }
    return p;
}

static const char *check_word(struct checker *c, const char *p, const char *word, size_t n)
{
    if ((size_t)(c->end - p) < n || memcmp(p, word, n) != 0)
        return refuse(c, p, "expected a value");
    return p + n;
}

static bool more_keys(struct checker *c)
{
    struct mqsync_json_key *at_hand = c->keys == c->keys_at_hand ? c->keys : NULL;
    size_t cap = c->cap_keys * 2;
    struct mqsync_json_key *keys = realloc(at_hand ? NULL : c->keys, cap * sizeof(*keys));

    if (!keys)
        return false;
    if (at_hand)
        memcpy(keys, at_hand, c->n_keys * sizeof(*keys));
    c->keys = keys;
    c->cap_keys = cap;
    return true;
}

/* Takes the key and its colon; a value is due then. */
static const char *check_key(struct checker *c, const char *p)
{
    if (p == c->end || *p != '"')
        return refuse(c, p, "expected a key");

    const char *quote = check_string(c, p + 1);
    if (!quote)
        return NULL;

    if (c->n_keys == c->cap_keys && !more_keys(c))
        return refuse(c, p, out_of_memory);
    struct level *level = &c->levels[c->depth - 1];
    struct mqsync_json_key *keys = c->keys + level->first_key;
    struct mqsync_json_key *key = &keys[level->keys.n];
    *key = mqsync_json_make_key(p + 1, (size_t)(quote - p - 1));
    if (mqsync_json_keys_find(&level->keys, keys, key) != MQSYNC_JSON_NO_KEY)
        return refuse(c, p, "duplicate key");
    if (!mqsync_json_keys_add(&level->keys, keys))
        return refuse(c, p, out_of_memory);
    c->n_keys++; /* NOLINT(clang-analyzer-unix.Malloc): c->keys still has what it lost sight of */

    p = space(c, quote + 1);
    if (p == c->end || *p != ':')
        return refuse(c, p, "expected ':'");
    c->value_due = true;
    return p + 1;
}

static void close_level(struct checker *c)
{
    struct level *level = &c->levels[--c->depth];

    c->n_keys = level->first_key;
    mqsync_json_keys_free(&level->keys);
}

static const char *check_open(struct checker *c, const char *p)
{
    if (c->depth == MQSYNC_JSON_MAX_DEPTH)
        return refuse(c, p, "nested too deeply");

    struct level *level = &c->levels[c->depth++];
    level->close = *p == '{' ? '}' : ']';
    level->first_key = c->n_keys;
    mqsync_json_keys_init(&level->keys);

    p = space(c, p + 1);
    if (p < c->end && *p == level->close) {
        close_level(c);
        return p + 1;
    }
    if (level->close == '}')
        return check_key(c, p);
    c->value_due = true;
    return p;
}

/* Takes a scalar, or a container's beginning up to where its first value is due. */
static const char *check_value(struct checker *c, const char *p)
{
    c->value_due = false;
    p = space(c, p);
    if (p == c->end)
        return refuse(c, p, "expected a value");
    switch (*p) {
    case '"':
        p = check_string(c, p + 1);
        return p ? p + 1 : NULL;
    case '{':
    case '[':
        return check_open(c, p);
    case 't':
        return check_word(c, p, "true", 4);
    case 'f':
        return check_word(c, p, "false", 5);
    case 'n':
        return check_word(c, p, "null", 4);
    default:
        if (*p == '-' || (*p >= '0' && *p <= '9'))
            return check_number(c, p);
        return refuse(c, p, "expected a value");
    }
}

/* Takes the comma (and key) before the next value, or a container's end. */
static const char *check_separator(struct checker *c, const char *p)
{
    char close = c->levels[c->depth - 1].close;

    if (p == c->end)
        return refuse(c, p, close == '}' ? "unterminated object" : "unterminated array");
    if (*p == close) {
        close_level(c);
        return p + 1;
    }
    if (*p != ',')
        return refuse(c, p, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
    if (close == '}')
        return check_key(c, space(c, p + 1));
    c->value_due = true;
    return p + 1;
}

static void check_text(struct checker *c)
{
    const char *p = c->start;

    do {
        p = check_value(c, p);
        while (p && !c->value_due && c->depth) {
            p = space(c, p);
            p = check_separator(c, p);
        }
    } while (p && c->value_due);
    if (!p)
        return;
    p = space(c, p);
    if (p < c->end)
        refuse(c, p, "more text after the value");
}

enum mqsync_code mqsync_json_check(struct mqsync_slice text, struct mqsync_json_info *ret_info,
                                   struct mqsync_error *ret_error)
{
    if (text.n == 0)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "invalid JSON: empty text");

    bool spaced;
    if (mqsync_json_is_plain(text, &spaced)) {
        if (ret_info)
            *ret_info = (struct mqsync_json_info){mqsync_json_typeof(text), spaced};
        return MQSYNC_OK;
    }

    /* not initialised as a whole: the arrays are large, and most texts use a few of their first elements */
    struct checker c;
    c.start = text.p;
    c.end = text.p + text.n;
    c.reason = NULL;
    c.where = NULL;
    c.spaced = false;
    c.value_due = false;
    c.depth = 0;
    c.n_keys = 0;
    c.cap_keys = KEYS_AT_HAND;
    c.keys = c.keys_at_hand;

    check_text(&c);
    while (c.depth)
        close_level(&c);
    if (c.keys != c.keys_at_hand)
        free(c.keys);

    if (c.reason == out_of_memory)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    if (c.reason)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "invalid JSON: %s at byte %zu", c.reason,
                           (size_t)(c.where - c.start));
    if (ret_info)
        *ret_info = (struct mqsync_json_info){mqsync_json_typeof(text), c.spaced};
    return MQSYNC_OK;
}

/* --- walking ------------------------------------------------------------------------------------------------------ */

enum mqsync_json_type mqsync_json_typeof(struct mqsync_slice value)
{
    const char *end = mqsync_json_end(value);
    const char *p = mqsync_json_skip_space(value.p, end);

    if (p == end)
        return MQSYNC_JSON_NULL;
    switch (*p) {
    case '{':
        return MQSYNC_JSON_OBJECT;
    case '[':
        return MQSYNC_JSON_ARRAY;
    case '"':
        return MQSYNC_JSON_STRING;
    case 't':
        return MQSYNC_JSON_TRUE;
    case 'f':
        return MQSYNC_JSON_FALSE;
    case 'n':
        return MQSYNC_JSON_NULL;
    default:
        return MQSYNC_JSON_NUMBER;
    }
}

static const char *skip_container(const char *p, const char *end)
{
    size_t depth = 0;

    for (; p < end; p++) {
        switch (*p) {
        case '"':
            p = mqsync_json_string_end(p + 1, end);
            if (p == end)
                return end;
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (--depth == 0)
                return p + 1;
            break;
        default:
            break;
        }
    }
    return end;
}

const char *mqsync_json_skip_value(const char *p, const char *end)
{
    if (p == end)
        return end;
    if (*p == '{' || *p == '[')
        return skip_container(p, end);
    return mqsync_json_skip_scalar(p, end);
}

/* An iterator stands on the opening bracket, then on the commas. */
static struct mqsync_json_iter begin(struct mqsync_slice container, char bracket)
{
    const char *end = mqsync_json_end(container);
    const char *p = mqsync_json_skip_space(container.p, end);

    return (struct mqsync_json_iter){p < end && *p == bracket ? p : end, end};
}

struct mqsync_json_iter mqsync_json_members(struct mqsync_slice object)
{
    return begin(object, '{');
}

struct mqsync_json_iter mqsync_json_elements(struct mqsync_slice array)
{
    return begin(array, '[');
}

/* Takes the value at p and moves the iterator behind it. */
static struct mqsync_slice take_value(struct mqsync_json_iter *it, const char *p)
{
    const char *value_end = mqsync_json_skip_value(p, it->end);

    it->at = mqsync_json_skip_space(value_end, it->end);
    return (struct mqsync_slice){p, (size_t)(value_end - p)};
}

bool mqsync_json_next_member(struct mqsync_json_iter *it, struct mqsync_slice *ret_key, struct mqsync_slice *ret_value)
{
    if (it->at == it->end || (*it->at != ',' && *it->at != '{'))
        return false;

    const char *p = mqsync_json_skip_space(it->at + 1, it->end);
    if (p == it->end || *p != '"')
        return false;
    const char *key = p + 1;
    const char *quote = mqsync_json_string_end(key, it->end);
    if (quote == it->end)
        return false;
    p = mqsync_json_skip_space(quote + 1, it->end);
    if (p == it->end || *p != ':')
        return false;

    p = mqsync_json_skip_space(p + 1, it->end);
    if (p == it->end)
        return false;

    *ret_key = (struct mqsync_slice){key, (size_t)(quote - key)};
    *ret_value = take_value(it, p);
    return true;
}

bool mqsync_json_next_element(struct mqsync_json_iter *it, struct mqsync_slice *ret_value)
{
    if (it->at == it->end || (*it->at != ',' && *it->at != '['))
        return false;

    const char *p = mqsync_json_skip_space(it->at + 1, it->end);
    if (p == it->end || *p == ']')
        return false;
    *ret_value = take_value(it, p);
    return true;
}

/* --- strings ------------------------------------------------------------------------------------------------------ */

static unsigned utf8_encode(unsigned char out[4], unsigned code)
{
    if (code < 0x80) {
        out[0] = (unsigned char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (unsigned char)(0xC0 | code >> 6);
        out[1] = (unsigned char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (unsigned char)(0xE0 | code >> 12);
        out[1] = (unsigned char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (unsigned char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (unsigned char)(0xF0 | code >> 18);
    out[1] = (unsigned char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (unsigned char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (unsigned char)(0x80 | (code & 0x3F));
    return 4;
}

int mqsync_json_decode_escape(struct mqsync_json_decoder *d)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *p = d->p + 1;

    if (p == d->end) {
        d->p = d->end;
        return '\\';
    }
    d->p = p + 1;
    if (*p != 'u') {
        const char *letter = memchr(from, *p, sizeof(from) - 1);
        return letter ? to[letter - from] : (unsigned char)*p;
    }

    int unit = hex4(p + 1, d->end);
    if (unit < 0)
        return 'u';
    d->p = p + 5;
    unsigned code = (unsigned)unit;
    if (is_high_surrogate(unit) && d->end - d->p >= 6 && d->p[0] == '\\' && d->p[1] == 'u') {
        int low = hex4(d->p + 2, d->end);
        if (is_low_surrogate(low)) {
            code = 0x10000 + ((code - 0xD800) << 10) + ((unsigned)low - 0xDC00);
            d->p += 6;
        }
    }
    d->n = utf8_encode(d->pending, code);
    d->at = 1;
    return d->pending[0];
}

static bool decoded_equal(struct mqsync_json_decoder a, struct mqsync_json_decoder b)
{
    int byte;

    do {
        byte = mqsync_json_decode(&a);
        if (byte != mqsync_json_decode(&b))
            return false;
    } while (byte >= 0);
    return true;
}

static bool has_escape(struct mqsync_slice raw)
{
    return raw.n && memchr(raw.p, '\\', raw.n);
}

bool mqsync_json_key_equal(struct mqsync_slice raw_a, struct mqsync_slice raw_b)
{
    if (mqsync_slice_equal(raw_a, raw_b))
        return true;
    if (!has_escape(raw_a) && !has_escape(raw_b))
        return false;
    return decoded_equal((struct mqsync_json_decoder){.p = raw_a.p, .end = mqsync_json_end(raw_a), .escaped = true},
                         (struct mqsync_json_decoder){.p = raw_b.p, .end = mqsync_json_end(raw_b), .escaped = true});
}

static bool key_means(struct mqsync_slice raw, struct mqsync_slice name)
{
    if (!has_escape(raw))
        return mqsync_slice_equal(raw, name);
    return decoded_equal((struct mqsync_json_decoder){.p = raw.p, .end = mqsync_json_end(raw), .escaped = true},
                         (struct mqsync_json_decoder){.p = name.p, .end = mqsync_json_end(name), .escaped = false});
}

bool mqsync_json_find(struct mqsync_slice object, struct mqsync_slice name, struct mqsync_slice *ret_value)
{
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key, value;

    while (mqsync_json_next_member(&it, &key, &value)) {
        if (key_means(key, name)) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

bool mqsync_json_member(struct mqsync_slice object, struct mqsync_slice name, enum mqsync_json_type type,
                        struct mqsync_slice *ret_value)
{
    return mqsync_json_typeof(object) == MQSYNC_JSON_OBJECT && mqsync_json_find(object, name, ret_value) &&
           mqsync_json_typeof(*ret_value) == type;
}

size_t mqsync_json_count(struct mqsync_slice array)
{
    struct mqsync_json_iter it = mqsync_json_elements(array);
    struct mqsync_slice value;
    size_t n = 0;

    while (mqsync_json_next_element(&it, &value))
        n++;
    return n;
}

void mqsync_json_unescape(struct mqsync_buf *out, struct mqsync_slice string_value)
{
    const char *end = mqsync_json_end(string_value);
    const char *p = mqsync_json_skip_space(string_value.p, end);

    if (p == end || *p != '"')
        return;
    p++;
    end = mqsync_json_string_end(p, end);

    /* no escape is shorter than what it stands for */
    char *to = mqsync_buf_reserve(out, (size_t)(end - p));
    if (!to)
        return;
    struct mqsync_json_decoder d = {.p = p, .end = end, .escaped = true};
    int byte;
    while ((byte = mqsync_json_decode(&d)) >= 0)
        *to++ = (char)byte;
    out->n = (size_t)(to - out->p);
}

static void add_escaped(struct mqsync_buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *letter = memchr(from, c, sizeof(from) - 1);

    if (letter) {
        mqsync_buf_add(out, (char[]){'\\', to[letter - from]}, 2);
        return;
    }
    mqsync_buf_add(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

static inline uint64_t load4(const char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Without a loop for the last few bytes: names are short. */
static bool all_plain(struct mqsync_slice s)
{
    if (s.n >= 8) {
        uint64_t special = 0;
        for (size_t i = 0; i < s.n - 8; i += 8)
            special |= mqsync_json_special(mqsync_json_load(s.p + i));
        return !(special | mqsync_json_special(mqsync_json_load(s.p + s.n - 8)));
    }
    if (s.n >= 4)
        return !mqsync_json_special(load4(s.p) << 32 | load4(s.p + s.n - 4));
    return mqsync_json_skip_plain(s.p, mqsync_json_end(s)) == mqsync_json_end(s);
}

static void add_quoted(struct mqsync_buf *out, struct mqsync_slice plain)
{
    char *to = mqsync_buf_reserve(out, plain.n + 2);

    if (!to)
        return;
    *to++ = '"';
    if (plain.n)
        memcpy(to, plain.p, plain.n);
    to[plain.n] = '"';
    out->n += plain.n + 2;
}

void mqsync_json_add_string(struct mqsync_buf *out, struct mqsync_slice utf8)
{
    const char *p = utf8.p, *end = mqsync_json_end(utf8);

    if (all_plain(utf8)) {
        add_quoted(out, utf8);
        return;
    }
    mqsync_buf_add_char(out, '"');
    while (p < end) {
        const char *run = p;
        p = mqsync_json_skip_plain(p, end);
        mqsync_buf_add(out, run, (size_t)(p - run));
        if (p == end)
            break;
        uint32_t character;
        size_t length = mqsync_utf8_char(p, (size_t)(end - p), &character);
        if (length == 0) {
            /* a name from elsewhere may be anything; what leaves here stays JSON: U+FFFD stands for the byte */
            mqsync_buf_add(out, "\xEF\xBF\xBD", 3);
            p++;
        } else if (length == 1) {
            add_escaped(out, (unsigned char)*p++);
        } else {
            mqsync_buf_add(out, p, length);
            p += length;
        }
    }
    mqsync_buf_add_char(out, '"');
}

/* --- whole values ------------------------------------------------------------------------------------------------- */

char *mqsync_json_minify_to(char *to, struct mqsync_slice value)
{
    const char *p = value.p, *end = mqsync_json_end(value);

    while (p < end) {
        p = mqsync_json_skip_space(p, end);
        const char *run = p;
        while (p < end && !mqsync_json_is_space(*p)) {
            if (*p++ != '"')
                continue;
            p = mqsync_json_string_end(p, end);
            if (p < end)
                p++;
        }
        memcpy(to, run, (size_t)(p - run));
        to += p - run;
    }
    return to;
}

void mqsync_json_minify(struct mqsync_buf *out, struct mqsync_slice value)
{
    char *to = mqsync_buf_reserve(out, value.n);

    if (to)
        out->n = (size_t)(mqsync_json_minify_to(to, value) - out->p);
}

bool mqsync_json_to_u64(struct mqsync_slice value, uint64_t *ret)
{
    uint64_t v = 0;

    if (value.n == 0 || value.n > 19)
        return false;
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(value.p[i] - '0');
    }
    if (v > INT64_MAX)
        return false;
    *ret = v;
    return true;
}

bool mqsync_json_member_u64(struct mqsync_slice object, struct mqsync_slice name, uint64_t *ret)
{
    struct mqsync_slice value;

    return mqsync_json_member(object, name, MQSYNC_JSON_NUMBER, &value) && mqsync_json_to_u64(value, ret);
}
