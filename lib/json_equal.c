/* SPDX-License-Identifier: BSD-3-Clause */
/* When two JSON values are the same, and which of two numbers is larger: by what the text means, to the last digit. */
#include "json_scan.h"

/* --- numbers ------------------------------------------------------------------------------------------------------ */

/* sign * 0.ddd... * 10^(exponent + point), the first digit not 0. The exponent stays text: it may have any length. */
struct number {
    int sign;                        /* -1, 0, 1 */
    const char *digits, *digits_end; /* a '.' may be among them */
    int64_t point;
    int exponent_sign;
    const char *exponent, *exponent_end;
};

static struct number number_read(struct mqsync_slice text)
{
    struct number x = {.sign = 1, .exponent_sign = 1};
    const char *p = text.p, *end = mqsync_json_end(text);

    if (p < end && *p == '-') {
        x.sign = -1;
        p++;
    }

    const char *dot = NULL;
    for (; p < end && (*p == '0' || *p == '.'); p++)
        if (*p == '.')
            dot = p;
    x.digits = p;
    for (; p < end && *p != 'e' && *p != 'E'; p++)
        if (*p == '.')
            dot = p;
    x.digits_end = p;
    if (x.digits == p)
        x.sign = 0;
    if (!dot)
        dot = p;
    x.point = dot >= x.digits ? dot - x.digits : dot + 1 - x.digits;

    if (p < end)
        p++;
    if (p < end && (*p == '+' || *p == '-'))
        x.exponent_sign = *p++ == '-' ? -1 : 1;
    while (p < end && *p == '0')
        p++;
    x.exponent = p;
    x.exponent_end = end;
    return x;
}

/* What the i-th last digit of the exponent adds, i counted from 1. */
static int exponent_digit(const struct number *x, ptrdiff_t i)
{
    return i <= x->exponent_end - x->exponent ? x->exponent_sign * (x->exponent_end[-i] - '0') : 0;
}

/* Compares the powers of ten. The exponents' difference is followed from its first digit on until it is clear that no
 * later digit, and no place of the decimal point, brings the two together again. */
static int compare_scale(const struct number *a, const struct number *b)
{
    const int64_t beyond_any_point = INT64_C(1) << 58;
    ptrdiff_t length_a = a->exponent_end - a->exponent, length_b = b->exponent_end - b->exponent;
    int64_t difference = 0;

    for (ptrdiff_t i = length_a > length_b ? length_a : length_b; i > 0; i--) {
        difference = difference * 10 + exponent_digit(a, i) - exponent_digit(b, i);
        if (difference > beyond_any_point)
            return 1;
        if (difference < -beyond_any_point)
            return -1;
    }
    difference += a->point - b->point;
    return (difference > 0) - (difference < 0);
}

static int next_digit(const char **p, const char *end)
{
    if (*p < end && **p == '.')
        ++*p;
    return *p < end ? *(*p)++ : '0';
}

static int compare_digits(const struct number *a, const struct number *b)
{
    const char *pa = a->digits, *pb = b->digits;

    while (pa < a->digits_end || pb < b->digits_end) {
        int digit_a = next_digit(&pa, a->digits_end), digit_b = next_digit(&pb, b->digits_end);
        if (digit_a != digit_b)
            return digit_a - digit_b;
    }
    return 0;
}

int mqsync_json_number_compare(struct mqsync_slice a, struct mqsync_slice b)
{
    if (mqsync_slice_equal(a, b))
        return 0;

    struct number x = number_read(mqsync_json_trim(a)), y = number_read(mqsync_json_trim(b));
    if (x.sign != y.sign || x.sign == 0)
        return x.sign - y.sign;
    int magnitude = compare_scale(&x, &y);
    if (magnitude == 0)
        magnitude = compare_digits(&x, &y);
    return x.sign * ((magnitude > 0) - (magnitude < 0));
}

/* --- hash --------------------------------------------------------------------------------------------------------- */

#define PRIME61 ((UINT64_C(1) << 61) - 1)

static uint64_t multiply61(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    uint64_t sum = (uint64_t)(product & PRIME61) + (uint64_t)(product >> 61);

    return sum >= PRIME61 ? sum - PRIME61 : sum;
}

/* However it is written: exponent + point is one integer, taken modulo a prime; the digits are a polynomial at a secret
 * place, to which zeros at the end add nothing. */
static uint64_t hash_number(struct mqsync_slice text)
{
    struct number x = number_read(text);
    if (x.sign == 0)
        return mqsync_json_hash_pair(0, 0);

    uint64_t scale = 0;
    for (const char *p = x.exponent; p < x.exponent_end; p++)
        scale = (multiply61(scale, 10) + (uint64_t)(*p - '0')) % PRIME61;
    if (x.exponent_sign < 0)
        scale = (PRIME61 - scale) % PRIME61;
    scale = (scale + (x.point >= 0 ? (uint64_t)x.point : PRIME61 - (uint64_t)-x.point)) % PRIME61;

    uint64_t place = mqsync_json_hash_pair(1, 1) % PRIME61, digits = 0;
    for (const char *p = x.digits_end; p > x.digits; p--)
        if (p[-1] != '.')
            digits = multiply61((digits + (uint64_t)(p[-1] - '0')) % PRIME61, place);
    return mqsync_json_hash_pair(digits, scale << 1 | (x.sign < 0));
}

static struct mqsync_json_key key_of(struct mqsync_slice string)
{
    struct mqsync_slice name = mqsync_json_inside(string);

    return mqsync_json_make_key(name.p, name.n);
}

struct open_value {
    bool object, keyed;
    uint64_t key;
    uint64_t sum;
};

static uint64_t hash_scalar(struct mqsync_slice value)
{
    char first = value.p[0];

    if (first == '"')
        return mqsync_json_hash_pair(key_of(value).hash, '"');
    if (first == 't' || first == 'f' || first == 'n')
        return mqsync_json_hash_pair((uint64_t)first, 'w');
    return hash_number(value);
}

/* Takes one value's hash into the value around it. Members come in any order, elements in theirs. */
static void hash_into(struct open_value *around, uint64_t hash)
{
    if (around->object)
        around->sum += mqsync_json_hash_pair(around->key, hash);
    else
        around->sum = mqsync_json_hash_pair(around->sum, hash);
    around->keyed = false;
}

uint64_t mqsync_json_hash(struct mqsync_slice value)
{
    struct open_value open[MQSYNC_JSON_MAX_DEPTH];
    size_t depth = 0;
    const char *p = value.p, *end = mqsync_json_end(value);

    while (p < end) {
        uint64_t hash;
        if (mqsync_json_is_space(*p) || *p == ',' || *p == ':') {
            p++;
            continue;
        } else if (*p == '{' || *p == '[') {
            if (depth == MQSYNC_JSON_MAX_DEPTH)
                break;
            open[depth++] = (struct open_value){.object = *p++ == '{'};
            continue;
        } else if (*p == '}' || *p == ']') {
            if (depth == 0)
                break;
            hash = mqsync_json_hash_pair(open[--depth].sum, (uint64_t)*p++);
        } else {
            struct mqsync_slice scalar = {p, (size_t)(mqsync_json_skip_value(p, end) - p)};
            p += scalar.n;
            if (depth && open[depth - 1].object && !open[depth - 1].keyed) {
                open[depth - 1].key = key_of(scalar).hash;
                open[depth - 1].keyed = true;
                continue;
            }
            hash = hash_scalar(scalar);
        }
        if (depth == 0)
            return hash;
        hash_into(&open[depth - 1], hash);
    }
    return 0;
}

/* --- equality ----------------------------------------------------------------------------------------------------- */

/* A value, or the key before a member's value. With the whole text laid out in a row of these, stepping over a value
 * costs the same however much is in it. */
struct node {
    struct mqsync_slice text;
    size_t next; /* the node behind this value; while it is open, the one around it */
};

struct pair {
    size_t a, b;
};

struct comparison {
    struct mqsync_buf nodes_a, nodes_b; /* of struct node */
    struct mqsync_buf pairs;            /* of struct pair: containers still to be compared */
    struct mqsync_buf keys, values;     /* of one object whose order differs: struct mqsync_json_key, size_t */
};

static const struct node *nodes(const struct mqsync_buf *b)
{
    return (const struct node *)(const void *)b->p;
}

static bool lay_out(struct mqsync_buf *b, struct mqsync_slice value)
{
    const char *p = value.p, *end = mqsync_json_end(value);
    size_t around = SIZE_MAX, n = 0;

    while (p < end) {
        if (mqsync_json_is_space(*p) || *p == ',' || *p == ':') {
            p++;
            continue;
        }
        if (*p == '}' || *p == ']') {
            if (around == SIZE_MAX)
                return false;
            struct node *container = (struct node *)(void *)b->p + around;
            container->text.n = (size_t)(++p - container->text.p);
            around = container->next;
            container->next = n;
            continue;
        }
        bool opens = *p == '{' || *p == '[';
        size_t length = opens ? 1 : (size_t)(mqsync_json_skip_value(p, end) - p);
        struct node node = {{p, length}, opens ? around : n + 1};
        mqsync_buf_add(b, &node, sizeof(node));
        if (b->failed)
            return false;
        if (opens)
            around = n;
        n++;
        p += length;
    }
    return n > 0 && around == SIZE_MAX;
}

static bool is_container(struct mqsync_slice value)
{
    return value.p[0] == '{' || value.p[0] == '[';
}

static bool scalars_equal(struct mqsync_slice a, struct mqsync_slice b)
{
    enum mqsync_json_type type = mqsync_json_typeof(a);

    if (type != mqsync_json_typeof(b))
        return false;
    if (type == MQSYNC_JSON_NUMBER)
        return mqsync_json_number_compare(a, b) == 0;
    return type != MQSYNC_JSON_STRING || mqsync_json_key_equal(mqsync_json_inside(a), mqsync_json_inside(b));
}

/* False when the two are known to differ; containers are put aside. */
static bool compare_values(struct comparison *c, size_t a, size_t b)
{
    struct mqsync_slice text_a = nodes(&c->nodes_a)[a].text, text_b = nodes(&c->nodes_b)[b].text;

    if (!is_container(text_a) || !is_container(text_b))
        return scalars_equal(text_a, text_b);
    if (text_a.p[0] != text_b.p[0])
        return false;
    mqsync_buf_add(&c->pairs, &(struct pair){a, b}, sizeof(struct pair));
    return !c->pairs.failed;
}

static bool compare_arrays(struct comparison *c, struct pair arrays)
{
    size_t a = arrays.a + 1, end_a = nodes(&c->nodes_a)[arrays.a].next;
    size_t b = arrays.b + 1, end_b = nodes(&c->nodes_b)[arrays.b].next;

    while (a < end_a && b < end_b) {
        if (!compare_values(c, a, b))
            return false;
        a = nodes(&c->nodes_a)[a].next;
        b = nodes(&c->nodes_b)[b].next;
    }
    return a == end_a && b == end_b;
}

/* Members a..end_a against b..end_b, in any order. */
static bool compare_members(struct comparison *c, size_t a, size_t end_a, size_t b, size_t end_b)
{
    struct mqsync_json_keys set;
    bool equal = true;

    mqsync_json_keys_init(&set);
    mqsync_buf_clear(&c->keys);
    mqsync_buf_clear(&c->values);
    while (b < end_b && equal) {
        struct mqsync_json_key key = key_of(nodes(&c->nodes_b)[b].text);
        mqsync_buf_add(&c->keys, &key, sizeof(key));
        mqsync_buf_add(&c->values, &(size_t){b + 1}, sizeof(size_t));
        equal = !c->keys.failed && !c->values.failed &&
                mqsync_json_keys_add(&set, (const struct mqsync_json_key *)(void *)c->keys.p);
        b = nodes(&c->nodes_b)[b + 1].next;
    }

    size_t matched = 0;
    while (a < end_a && equal) {
        struct mqsync_json_key key = key_of(nodes(&c->nodes_a)[a].text);
        size_t i = mqsync_json_keys_find(&set, (const struct mqsync_json_key *)(void *)c->keys.p, &key);
        equal = i != MQSYNC_JSON_NO_KEY && compare_values(c, a + 1, ((const size_t *)(void *)c->values.p)[i]);
        a = nodes(&c->nodes_a)[a + 1].next;
        matched++;
    }
    equal = equal && matched == set.n;
    mqsync_json_keys_free(&set);
    return equal;
}

static bool compare_objects(struct comparison *c, struct pair objects)
{
    size_t a = objects.a + 1, end_a = nodes(&c->nodes_a)[objects.a].next;
    size_t b = objects.b + 1, end_b = nodes(&c->nodes_b)[objects.b].next;

    /* most often the order is the same, and no key needs looking up */
    while (a < end_a && b < end_b) {
        if (!mqsync_json_key_equal(mqsync_json_inside(nodes(&c->nodes_a)[a].text),
                                   mqsync_json_inside(nodes(&c->nodes_b)[b].text)))
            return compare_members(c, a, end_a, b, end_b);
        if (!compare_values(c, a + 1, b + 1))
            return false;
        a = nodes(&c->nodes_a)[a + 1].next;
        b = nodes(&c->nodes_b)[b + 1].next;
    }
    return a == end_a && b == end_b;
}

static bool compare_containers(struct comparison *c, struct mqsync_slice a, struct mqsync_slice b)
{
    if (!lay_out(&c->nodes_a, a) || !lay_out(&c->nodes_b, b))
        return false;

    bool equal = compare_values(c, 0, 0);
    while (equal && c->pairs.n) {
        struct pair pair;
        c->pairs.n -= sizeof(pair);
        memcpy(&pair, c->pairs.p + c->pairs.n, sizeof(pair));
        bool arrays = nodes(&c->nodes_a)[pair.a].text.p[0] == '[';
        equal = arrays ? compare_arrays(c, pair) : compare_objects(c, pair);
    }
    return equal;
}

bool mqsync_json_equal(struct mqsync_slice a, struct mqsync_slice b)
{
    if (mqsync_slice_equal(a, b))
        return true;
    enum mqsync_json_type type = mqsync_json_typeof(a);
    if (type != mqsync_json_typeof(b))
        return false;
    if (type != MQSYNC_JSON_OBJECT && type != MQSYNC_JSON_ARRAY)
        return scalars_equal(mqsync_json_trim(a), mqsync_json_trim(b));

    struct comparison c = {0};
    bool equal = compare_containers(&c, a, b);
    mqsync_buf_free(&c.nodes_a);
    mqsync_buf_free(&c.nodes_b);
    mqsync_buf_free(&c.pairs);
    mqsync_buf_free(&c.keys);
    mqsync_buf_free(&c.values);
    return equal;
}
