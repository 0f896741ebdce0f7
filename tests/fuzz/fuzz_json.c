/* SPDX-License-Identifier: BSD-3-Clause */
/* The JSON functions against each other and against cJSON, as far as it can follow: it must read what is accepted here
 * (it takes more, loses digits and ends strings at U+0000, so nothing is asked of it in the other direction).
 *
 * An input is one text, or two with a zero byte between them for the functions that take two. */
#include <cjson/cJSON.h>
#include <math.h>

#include "fuzz.h"
#include "json.h"

static bool accepted(struct mqsync_slice text, struct mqsync_json_info *ret_info)
{
    struct mqsync_error error = {.code = MQSYNC_OK};
    enum mqsync_code code = mqsync_json_check(text, ret_info, &error);

    CHECK(code == MQSYNC_OK || code == MQSYNC_INVALID_MESSAGE);
    CHECK(error.code == code);
    return code == MQSYNC_OK;
}

/* --- cJSON -------------------------------------------------------------------------------------------------------- */

/* cJSON reads numbers of up to 63 characters, and does not tell infinity from itself. */
static bool number_too_long(struct mqsync_slice text)
{
    size_t run = 0;

    for (size_t i = 0; i < text.n; i++) {
        run = strchr("+-.eE0123456789", text.p[i]) && text.p[i] ? run + 1 : 0;
        if (run > 60)
            return true;
    }
    return false;
}

static bool has_zero_escape(struct mqsync_slice text)
{
    return memmem(text.p, text.n, "\\u0000", 6);
}

static double to_double(struct mqsync_slice number)
{
    char digits[64];

    CHECK(number.n < sizeof(digits));
    memcpy(digits, number.p, number.n);
    digits[number.n] = '\0';
    return strtod(digits, NULL);
}

static void same_string(struct mqsync_slice quoted, const char *theirs, struct mqsync_buf *scratch)
{
    mqsync_buf_clear(scratch);
    mqsync_json_unescape(scratch, quoted);
    size_t n = strlen(theirs);
    CHECK(n <= scratch->n && memcmp(scratch->p, theirs, n) == 0);
    CHECK(n == scratch->n || scratch->p[n] == '\0');
}

static void same_scalar(struct mqsync_slice value, const cJSON *theirs, struct mqsync_buf *scratch)
{
    switch (mqsync_json_typeof(value)) {
    case MQSYNC_JSON_NULL:
        CHECK(cJSON_IsNull(theirs));
        break;
    case MQSYNC_JSON_FALSE:
        CHECK(cJSON_IsFalse(theirs));
        break;
    case MQSYNC_JSON_TRUE:
        CHECK(cJSON_IsTrue(theirs));
        break;
    case MQSYNC_JSON_NUMBER:
        CHECK(cJSON_IsNumber(theirs) && to_double(value) == theirs->valuedouble);
        break;
    case MQSYNC_JSON_STRING:
        CHECK(cJSON_IsString(theirs));
        same_string(value, theirs->valuestring, scratch);
        break;
    default:
        CHECK(!"a scalar");
    }
}

/* Not deeper than MQSYNC_JSON_MAX_DEPTH: the text has been accepted. */
static void same_tree(struct mqsync_slice value, const cJSON *theirs, struct mqsync_buf *scratch)
{
    enum mqsync_json_type type = mqsync_json_typeof(value);
    const cJSON *child = theirs->child;
    struct mqsync_slice key, inner;

    if (type == MQSYNC_JSON_OBJECT) {
        struct mqsync_json_iter it = mqsync_json_members(value);
        CHECK(cJSON_IsObject(theirs));
        for (; mqsync_json_next_member(&it, &key, &inner); child = child->next) {
            CHECK(child);
            same_string((struct mqsync_slice){key.p - 1, key.n + 2}, child->string, scratch);
            same_tree(inner, child, scratch);
        }
        CHECK(!child);
    } else if (type == MQSYNC_JSON_ARRAY) {
        struct mqsync_json_iter it = mqsync_json_elements(value);
        CHECK(cJSON_IsArray(theirs));
        for (; mqsync_json_next_element(&it, &inner); child = child->next) {
            CHECK(child);
            same_tree(inner, child, scratch);
        }
        CHECK(!child);
    } else {
        same_scalar(value, theirs, scratch);
    }
}

static struct mqsync_slice trimmed(struct mqsync_slice text)
{
    for (; strchr(" \t\r\n", *text.p); text.p++)
        text.n--;
    while (strchr(" \t\r\n", text.p[text.n - 1]))
        text.n--;
    return text;
}

static void against_cjson(struct mqsync_slice text)
{
    if (number_too_long(text))
        return;

    const char *end = NULL;
    struct mqsync_buf scratch = {0};
    cJSON *theirs = cJSON_ParseWithLengthOpts(text.p, text.n, &end, false);
    CHECK(theirs);
    for (; end < text.p + text.n; end++)
        CHECK(strchr(" \t\r\n", *end) && *end);
    same_tree(trimmed(text), theirs, &scratch);
    cJSON_Delete(theirs);
    mqsync_buf_free(&scratch);
}

/* --- one text ----------------------------------------------------------------------------------------------------- */

static void minified(struct mqsync_slice text, bool spaced)
{
    struct mqsync_buf once = {0}, twice = {0};
    struct mqsync_json_info info;

    mqsync_json_minify(&once, text);
    struct mqsync_slice small = mqsync_buf_slice(&once);
    CHECK(accepted(small, &info) && !info.spaced && info.type == mqsync_json_typeof(text));
    CHECK(spaced == !mqsync_slice_equal(small, text));
    mqsync_json_minify(&twice, small);
    CHECK(mqsync_slice_equal(small, mqsync_buf_slice(&twice)));
    CHECK(mqsync_json_equal(text, small) && mqsync_json_equal(small, text));
    CHECK(mqsync_json_hash(text) == mqsync_json_hash(small));
    mqsync_buf_free(&once);
    mqsync_buf_free(&twice);
}

static void quoted_again(struct mqsync_slice string)
{
    struct mqsync_buf plain = {0}, quoted = {0};

    mqsync_json_unescape(&plain, string);
    mqsync_json_add_string(&quoted, mqsync_buf_slice(&plain));
    struct mqsync_slice again = mqsync_buf_slice(&quoted);
    CHECK(accepted(again, NULL));
    CHECK(mqsync_json_equal(string, again) && mqsync_json_hash(string) == mqsync_json_hash(again));
    mqsync_buf_free(&plain);
    mqsync_buf_free(&quoted);
}

/* Each member is found by what its key means, and no other is. */
static void members_found(struct mqsync_slice object)
{
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key, value, found;
    struct mqsync_buf name = {0};

    for (int i = 0; i < 100 && mqsync_json_next_member(&it, &key, &value); i++) {
        mqsync_buf_clear(&name);
        mqsync_json_unescape(&name, (struct mqsync_slice){key.p - 1, key.n + 2});
        CHECK(mqsync_json_find(object, mqsync_buf_slice(&name), &found) && found.p == value.p && found.n == value.n);
    }
    mqsync_buf_free(&name);
}

static void one_text(struct mqsync_slice text)
{
    struct mqsync_json_info info;

    if (!accepted(text, &info))
        return;
    CHECK(info.type == mqsync_json_typeof(text));
    against_cjson(text);
    minified(text, info.spaced);
    if (info.type == MQSYNC_JSON_STRING)
        quoted_again(text);
    if (info.type == MQSYNC_JSON_OBJECT)
        members_found(text);
}

/* --- two texts ---------------------------------------------------------------------------------------------------- */

static bool find_raw(struct mqsync_slice object, struct mqsync_slice raw_key, struct mqsync_slice *ret_value)
{
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key;

    while (mqsync_json_next_member(&it, &key, ret_value))
        if (mqsync_json_key_equal(key, raw_key))
            return true;
    return false;
}

static bool is_null(struct mqsync_slice value)
{
    return mqsync_json_typeof(value) == MQSYNC_JSON_NULL;
}

/* A delta cannot set null: can it turn `from` into `to` all the same? */
static bool delta_can(struct mqsync_slice from, struct mqsync_slice to, bool full)
{
    struct mqsync_json_iter it = mqsync_json_members(to);
    struct mqsync_slice key, value, before;

    while (mqsync_json_next_member(&it, &key, &value))
        if (is_null(value) && (full || !find_raw(from, key, &before) || !is_null(before)))
            return false;
    return true;
}

static void applied(struct mqsync_slice base, struct mqsync_slice delta, struct mqsync_buf *out)
{
    struct mqsync_json_info info;
    struct mqsync_slice key, value, other;

    mqsync_buf_clear(out);
    mqsync_json_apply_delta(out, base, delta);
    struct mqsync_slice result = mqsync_buf_slice(out);
    CHECK(!out->failed && accepted(result, &info) && info.type == MQSYNC_JSON_OBJECT && !info.spaced);

    size_t members = 0;
    struct mqsync_json_iter it = mqsync_json_members(delta);
    while (mqsync_json_next_member(&it, &key, &value)) {
        members += !is_null(value);
        CHECK(find_raw(result, key, &other) == !is_null(value));
        CHECK(is_null(value) || mqsync_json_equal(value, other));
    }
    it = mqsync_json_members(base);
    while (mqsync_json_next_member(&it, &key, &value)) {
        if (find_raw(delta, key, &other))
            continue;
        members++;
        CHECK(find_raw(result, key, &other) && mqsync_json_equal(value, other));
    }
    it = mqsync_json_members(result);
    while (mqsync_json_next_member(&it, &key, &value))
        members--;
    CHECK(members == 0);
}

static void two_objects(struct mqsync_slice from, struct mqsync_slice to)
{
    struct mqsync_buf result = {0}, again = {0}, delta = {0};

    applied(from, to, &result);
    applied(mqsync_buf_slice(&result), to, &again);
    CHECK(mqsync_slice_equal(mqsync_buf_slice(&result), mqsync_buf_slice(&again)));
    applied((struct mqsync_slice){NULL, 0}, to, &again);

    for (int full = 0; full < 2; full++) {
        mqsync_buf_clear(&delta);
        mqsync_json_diff(&delta, from, to, full);
        CHECK(!delta.failed && accepted(mqsync_buf_slice(&delta), NULL));
        applied(from, mqsync_buf_slice(&delta), &result);
        if (delta_can(from, to, full))
            CHECK(mqsync_json_equal(mqsync_buf_slice(&result), to));
        if (!full)
            CHECK((delta.n == 2) == mqsync_json_equal(from, to));
    }
    mqsync_buf_free(&result);
    mqsync_buf_free(&again);
    mqsync_buf_free(&delta);
}

static void two_numbers(struct mqsync_slice a, struct mqsync_slice b)
{
    int order = mqsync_json_number_compare(a, b), reverse = mqsync_json_number_compare(b, a);

    CHECK((order > 0) == (reverse < 0) && (order < 0) == (reverse > 0));
    CHECK((order == 0) == mqsync_json_equal(a, b));
    if (a.n > 60 || b.n > 60)
        return;
    double x = to_double(a), y = to_double(b);
    if (x < y)
        CHECK(order < 0);
    if (x > y)
        CHECK(order > 0);
}

static bool has_infinity(const cJSON *value)
{
    if (cJSON_IsNumber(value) && isinf(value->valuedouble))
        return true;
    for (const cJSON *child = value->child; child; child = child->next)
        if (has_infinity(child))
            return true;
    return false;
}

static void equal_for_cjson(struct mqsync_slice a, struct mqsync_slice b)
{
    if (number_too_long(a) || number_too_long(b) || has_zero_escape(a) || has_zero_escape(b))
        return;
    cJSON *x = cJSON_ParseWithLength(a.p, a.n), *y = cJSON_ParseWithLength(b.p, b.n);
    if (!has_infinity(x))
        CHECK(cJSON_Compare(x, y, true));
    cJSON_Delete(x);
    cJSON_Delete(y);
}

static void two_texts(struct mqsync_slice a, struct mqsync_slice b)
{
    struct mqsync_json_info info_a, info_b;

    if (!accepted(a, &info_a) || !accepted(b, &info_b))
        return;
    bool equal = mqsync_json_equal(a, b);
    CHECK(equal == mqsync_json_equal(b, a));
    if (equal) {
        CHECK(info_a.type == info_b.type && mqsync_json_hash(a) == mqsync_json_hash(b));
        equal_for_cjson(a, b);
    } else {
        /* 64 bits of a secret hash: a collision would be a finding */
        CHECK(mqsync_json_hash(a) != mqsync_json_hash(b));
    }
    if (info_a.type == MQSYNC_JSON_OBJECT && info_b.type == MQSYNC_JSON_OBJECT)
        two_objects(a, b);
    if (info_a.type == MQSYNC_JSON_NUMBER && info_b.type == MQSYNC_JSON_NUMBER && !info_a.spaced && !info_b.spaced)
        two_numbers(a, b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *zero = size ? memchr(text, 0, size) : NULL;
    size_t first = zero ? (size_t)(zero - text) : size;

    one_text((struct mqsync_slice){text, size});
    if (zero) {
        one_text((struct mqsync_slice){text, first});
        two_texts((struct mqsync_slice){text, first}, (struct mqsync_slice){zero + 1, size - first - 1});
    }
    return 0;
}
