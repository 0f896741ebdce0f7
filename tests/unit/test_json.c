/* SPDX-License-Identifier: BSD-3-Clause */
#include "json.h"
#include "unit.h"

#include <stdio.h>
#include <time.h>

#define S(literal) MQSYNC_SLICE(literal)
#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static void check_text(const struct mqsync_buf *b, struct mqsync_slice expected)
{
    ck_assert(!b->failed);
    ck_assert_msg(mqsync_slice_equal(mqsync_buf_slice(b), expected), "%.*s instead of %.*s", (int)b->n, b->p,
                  (int)expected.n, expected.p);
}

static void add_times(struct mqsync_buf *b, const char *text, size_t times)
{
    while (times--)
        mqsync_buf_add_str(b, text);
}

/* --- check -------------------------------------------------------------------------------------------------------- */

static const struct mqsync_slice taken[] = {
    /* structure */
    S("[]"),
    S("{}"),
    S("[[]]"),
    S("[[],[[]]]"),
    S("{\"a\":{}}"),
    S("{\"a\":[]}"),
    S("[{}]"),
    S(" [] "),
    S("[ ]"),
    S("{ }"),
    S("\t\r\n {\t\r\n \"a\"\t\r\n :\t\r\n 1\t\r\n ,\t\r\n \"b\" : 2 }\t\r\n "),
    S("[1\n]"),
    S("[1,null,\"1\",{}]"),
    S("[null,1,\"1\",{}]"),
    S("{\"a\":1,\"b\":2,\"aa\":3,\"A\":4}"),
    S("{\"\":0}"),
    S("{\"a\":{\"a\":{\"a\":1}}}"),
    S("[{\"a\":1},{\"a\":1}]"),
    S("{\"a\":[{\"a\":1}],\"b\":{\"a\":1}}"),
    /* scalars alone */
    S("null"),
    S("true"),
    S("false"),
    S("0"),
    S("-1"),
    S("\"\""),
    S("\"a\""),
    S(" \"a\" "),
    S("42 "),
    /* numbers */
    S("[0]"),
    S("[-0]"),
    S("[0.0]"),
    S("[-0.0]"),
    S("[123]"),
    S("[-123]"),
    S("[10]"),
    S("[0e1]"),
    S("[0E+1]"),
    S("[0e-00]"),
    S("[1e1]"),
    S("[1E1]"),
    S("[1e+1]"),
    S("[1e-1]"),
    S("[1.5e10]"),
    S("[123.456]"),
    S("[1e9999]"),
    S("[-1e-9999]"),
    S("[123456789012345678901234567890.12345678901234567890e123456789012345678901234567890]"),
    S("[20e1]"),
    S("[0.1e1]"),
    S("[100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000]"),
    /* strings */
    S("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]"),
    S("[\"\\u0000\"]"),
    S("[\"\\u0041\\u00e9\\u00E9\"]"),
    S("[\"\\uFFFF\\uFFFE\"]"),
    S("[\"\\uD83D\\uDE00\"]"),
    S("[\"\\ud83d\\ude00\"]"),
    S("[\"\\uDBFF\\uDFFF\"]"),
    S("[\"\\uD800\\uDC00\"]"),
    S("[\"\\uD7FF\\uE000\"]"),
    S("[\"a\\\\u0000\"]"),
    S("[\"\x7f\"]"),
    S("[\"\xC2\x80\"]"),
    S("[\"\xDF\xBF\"]"),
    S("[\"\xE0\xA0\x80\"]"),
    S("[\"\xED\x9F\xBF\"]"),
    S("[\"\xEE\x80\x80\"]"),
    S("[\"\xEF\xBF\xBF\"]"),
    S("[\"\xF0\x90\x80\x80\"]"),
    S("[\"\xF4\x8F\xBF\xBF\"]"),
    S("[\"\xE2\x82\xAC and \xF0\x9F\x98\x80\"]"),
    S("[\"/*x*/ // #\"]"),
    S("{\"\\u0000\":1,\"\\u0000a\":2,\"a\\u0000\":3}"),
    S("{\"\xC3\xA9\":1,\"e\xCC\x81\":2}"),
    S("\"eight by\""),
    S("\"nine byte\""),
};

START_TEST(takes)
{
    struct mqsync_error e = {.text = ""};

    ck_assert_msg(mqsync_json_check(taken[_i], NULL, &e) == MQSYNC_OK, "%.*s: %s", (int)taken[_i].n, taken[_i].p,
                  e.text);
}
END_TEST

/* Cut short anywhere, no object or array is whole, and none is read past its end (the copy is of exactly that size). */
START_TEST(takes_no_part)
{
    struct mqsync_slice whole = taken[_i];

    while (whole.n && strchr(" \t\r\n", whole.p[whole.n - 1]))
        whole.n--;
    for (size_t n = 0; n <= whole.n; n++) {
        char *part = malloc(n ? n : 1);
        ck_assert_ptr_nonnull(part);
        memcpy(part, whole.p, n);
        enum mqsync_code code = mqsync_json_check((struct mqsync_slice){part, n}, NULL, NULL);
        bool number = strchr("-0123456789", whole.p[0]);
        if (!number)
            ck_assert_msg((code == MQSYNC_OK) == (n == whole.n), "%.*s", (int)n, part);
        free(part);
    }
}
END_TEST

static const struct {
    struct mqsync_slice text;
    size_t at;
    const char *reason;
} refused[] = {
    /* structure */
    {S(""), 0, "empty"},
    {S(" "), 1, "expected a value"},
    {S("["), 1, "expected a value"},
    {S("{"), 1, "expected a key"},
    {S("]"), 0, "expected a value"},
    {S("[1"), 2, "unterminated array"},
    {S("{\"a\":1"), 6, "unterminated object"},
    {S("[1}"), 2, "expected ',' or ']'"},
    {S("{\"a\":1]"), 6, "expected ',' or '}'"},
    {S("[1,]"), 3, "expected a value"},
    {S("[,1]"), 1, "expected a value"},
    {S("[1,,2]"), 3, "expected a value"},
    {S("[1 2]"), 3, "expected ',' or ']'"},
    {S("[\"a\" \"b\"]"), 5, "expected ',' or ']'"},
    {S("[\"a\":1]"), 4, "expected ',' or ']'"},
    {S("{,}"), 1, "expected a key"},
    {S("{\"a\":1,}"), 7, "expected a key"},
    {S("{\"a\":1,,\"b\":2}"), 7, "expected a key"},
    {S("{\"a\"}"), 4, "expected ':'"},
    {S("{\"a\" 1}"), 5, "expected ':'"},
    {S("{\"a\",1}"), 4, "expected ':'"},
    {S("{\"a\":}"), 5, "expected a value"},
    {S("{\"a\"::1}"), 5, "expected a value"},
    {S("{\"a\":1 \"b\":2}"), 7, "expected ',' or '}'"},
    {S("{a:1}"), 1, "expected a key"},
    {S("{1:1}"), 1, "expected a key"},
    {S("{null:1}"), 1, "expected a key"},
    {S("{'a':1}"), 1, "expected a key"},
    {S("{[]:1}"), 1, "expected a key"},
    {S("{}x"), 2, "more text"},
    {S("{}{}"), 2, "more text"},
    {S("[]]"), 2, "more text"},
    {S("1 2"), 2, "more text"},
    {S("[],"), 2, "more text"},
    {S("{}\0"), 2, "more text"},
    {S("[1/*x*/]"), 2, "expected ',' or ']'"},
    {S("// x\n[]"), 0, "expected a value"},
    {S("[\v1]"), 1, "expected a value"},
    {S("[\f]"), 1, "expected a value"},
    {S("[\xC2\xA0]"), 1, "expected a value"},
    {S("\xEF\xBB\xBF{}"), 0, "expected a value"},
    {S("\0"), 0, "expected a value"},
    {S("[\0]"), 1, "expected a value"},
    /* words */
    {S("nul"), 0, "expected a value"},
    {S("nulL"), 0, "expected a value"},
    {S("True"), 0, "expected a value"},
    {S("[truth]"), 1, "expected a value"},
    {S("[fals]"), 1, "expected a value"},
    {S("undefined"), 0, "expected a value"},
    {S("nullx"), 4, "more text"},
    {S("[truefalse]"), 5, "expected ',' or ']'"},
    /* numbers */
    {S("[01]"), 1, "leading zero"},
    {S("[-01]"), 2, "leading zero"},
    {S("[00]"), 1, "leading zero"},
    {S("[-]"), 2, "expected a digit"},
    {S("-"), 1, "expected a digit"},
    {S("[--1]"), 2, "expected a digit"},
    {S("[+1]"), 1, "expected a value"},
    {S("[.5]"), 1, "expected a value"},
    {S("[-.5]"), 2, "expected a digit"},
    {S("[1.]"), 3, "expected a digit"},
    {S("[1.e1]"), 3, "expected a digit"},
    {S("[1.2.3]"), 4, "expected ',' or ']'"},
    {S("[1e]"), 3, "expected a digit"},
    {S("[1e+]"), 4, "expected a digit"},
    {S("[1e-"), 4, "expected a digit"},
    {S("[1e1.5]"), 4, "expected ',' or ']'"},
    {S("[1e+-1]"), 4, "expected a digit"},
    {S("[1 000]"), 3, "expected ',' or ']'"},
    {S("[0x10]"), 2, "expected ',' or ']'"},
    {S("[1_000]"), 2, "expected ',' or ']'"},
    {S("[1a]"), 2, "expected ',' or ']'"},
    {S("[NaN]"), 1, "expected a value"},
    {S("[Infinity]"), 1, "expected a value"},
    {S("[-Infinity]"), 2, "expected a digit"},
    {S("[\xEF\xBC\x91]"), 1, "expected a value"},
    /* strings */
    {S("\""), 1, "unterminated string"},
    {S("[\"abc"), 5, "unterminated string"},
    {S("\"a long enough string"), 21, "unterminated string"},
    {S("\"abc\\\""), 6, "unterminated string"},
    {S("\"abc\\"), 4, "unterminated string"},
    {S("'a'"), 0, "expected a value"},
    {S("\"a\nb\""), 2, "control character"},
    {S("\"a\tb\""), 2, "control character"},
    {S("\"a\0b\""), 2, "control character"},
    {S("\"1234567\x1F\""), 8, "control character"},
    {S("{\"\x01\":1}"), 2, "control character"},
    {S("\"\\x41\""), 1, "unknown escape"},
    {S("\"\\a\""), 1, "unknown escape"},
    {S("\"\\'\""), 1, "unknown escape"},
    {S("\"\\U0041\""), 1, "unknown escape"},
    {S("\"\\\n\""), 1, "unknown escape"},
    {S("\"\\\0\""), 1, "unknown escape"},
    {S("\"\\u\""), 1, "four hex digits"},
    {S("\"\\u12\""), 1, "four hex digits"},
    {S("\"\\u123"), 1, "four hex digits"},
    {S("\"\\u12G4\""), 1, "four hex digits"},
    {S("\"\\u 123\""), 1, "four hex digits"},
    {S("\"\\u-123\""), 1, "four hex digits"},
    {S("\"\\uD800\""), 1, "lone surrogate"},
    {S("\"\\uDBFF"), 1, "lone surrogate"},
    {S("\"\\uDC00\""), 1, "lone surrogate"},
    {S("\"\\uDFFF\\uD800\""), 1, "lone surrogate"},
    {S("\"\\uD800\\uD800\\uDC00\""), 1, "lone surrogate"},
    {S("\"\\uD800\\u0041\""), 1, "lone surrogate"},
    {S("\"\\uD800\\n\""), 1, "lone surrogate"},
    {S("\"\\uD800x\""), 1, "lone surrogate"},
    {S("\"\\uD800\\uDC0\""), 1, "lone surrogate"},
    {S("{\"\\uD800\":1}"), 2, "lone surrogate"},
    /* UTF-8 */
    {S("\"\x80\""), 1, "invalid UTF-8"},
    {S("\"a\xBF\""), 2, "invalid UTF-8"},
    {S("\"\xC0\x80\""), 1, "invalid UTF-8"},
    {S("\"\xC1\xBF\""), 1, "invalid UTF-8"},
    {S("\"\xC2\""), 1, "invalid UTF-8"},
    {S("\"\xC2"), 1, "invalid UTF-8"},
    {S("\"\xC2\xC2\x80\""), 1, "invalid UTF-8"},
    {S("\"\xE0\x80\x80\""), 1, "invalid UTF-8"},
    {S("\"\xE0\x9F\xBF\""), 1, "invalid UTF-8"},
    {S("\"\xE2\x82\""), 1, "invalid UTF-8"},
    {S("\"\xE2\x28\xA1\""), 1, "invalid UTF-8"},
    {S("\"\xED\xA0\x80\""), 1, "invalid UTF-8"},
    {S("\"\xED\xBF\xBF\""), 1, "invalid UTF-8"},
    {S("\"\xED\xA0\xBD\xED\xB8\x80\""), 1, "invalid UTF-8"},
    {S("\"\xF0\x80\x80\x80\""), 1, "invalid UTF-8"},
    {S("\"\xF0\x8F\xBF\xBF\""), 1, "invalid UTF-8"},
    {S("\"\xF0\x9F\x98\""), 1, "invalid UTF-8"},
    {S("\"\xF0\x9F\x98"), 1, "invalid UTF-8"},
    {S("\"\xF4\x90\x80\x80\""), 1, "invalid UTF-8"},
    {S("\"\xF5\x80\x80\x80\""), 1, "invalid UTF-8"},
    {S("\"\xFE\xFF\""), 1, "invalid UTF-8"},
    {S("\"\xC3\xA9\xFF\""), 3, "invalid UTF-8"},
    {S("{\"\xFF\":1}"), 2, "invalid UTF-8"},
    {S("[\xFF]"), 1, "expected a value"},
    /* duplicate keys */
    {S("{\"a\":1,\"a\":1}"), 7, "duplicate key"},
    {S("{\"\":1,\"\":1}"), 6, "duplicate key"},
    {S("{\"a\":1,\"b\":2,\"a\":3}"), 13, "duplicate key"},
    {S("{\"a\":1,\"\\u0061\":2}"), 7, "duplicate key"},
    {S("{\"\\u0061\":1,\"a\":2}"), 12, "duplicate key"},
    {S("{\"a/b\":1,\"a\\/b\":2}"), 9, "duplicate key"},
    {S("{\"\\n\":1,\"\\u000A\":2}"), 8, "duplicate key"},
    {S("{\"\\u00e9\":1,\"\xC3\xA9\":2}"), 12, "duplicate key"},
    {S("{\"\xF0\x9F\x98\x80\":1,\"\\uD83D\\uDE00\":2}"), 10, "duplicate key"},
    {S("{\"\\u0000\":1,\"\\u0000\":2}"), 12, "duplicate key"},
    {S("[{\"a\":{\"b\":1,\"b\":2}}]"), 13, "duplicate key"},
    {S("{\"a\":{\"b\":1},\"a\":2}"), 13, "duplicate key"},
};

START_TEST(refuses)
{
    struct mqsync_json_info info = {MQSYNC_JSON_NUMBER, true};
    struct mqsync_error e;
    char where[32];
    struct mqsync_slice text = refused[_i].text;

    ck_assert_msg(mqsync_json_check(text, &info, &e) == MQSYNC_INVALID_MESSAGE, "%.*s is taken", (int)text.n, text.p);
    ck_assert_int_eq(e.code, MQSYNC_INVALID_MESSAGE);
    ck_assert_msg(strstr(e.text, refused[_i].reason), "\"%s\" does not say %s", e.text, refused[_i].reason);
    if (text.n) {
        snprintf(where, sizeof(where), "at byte %zu", refused[_i].at);
        ck_assert_msg(strlen(e.text) > strlen(where) && !strcmp(e.text + strlen(e.text) - strlen(where), where),
                      "\"%s\" is not %s", e.text, where);
    }
    ck_assert(info.type == MQSYNC_JSON_NUMBER && info.spaced);
    ck_assert_int_eq(mqsync_json_check(text, NULL, NULL), MQSYNC_INVALID_MESSAGE);
}
END_TEST

START_TEST(says_type_and_space)
{
    static const struct {
        struct mqsync_slice text;
        enum mqsync_json_type type;
        bool spaced;
    } cases[] = {
        {S("null"), MQSYNC_JSON_NULL, false},
        {S("true "), MQSYNC_JSON_TRUE, true},
        {S("\nfalse"), MQSYNC_JSON_FALSE, true},
        {S("-1.5"), MQSYNC_JSON_NUMBER, false},
        {S("\" a \""), MQSYNC_JSON_STRING, false},
        {S("[1,2]"), MQSYNC_JSON_ARRAY, false},
        {S("[1, 2]"), MQSYNC_JSON_ARRAY, true},
        {S("[1 ,2]"), MQSYNC_JSON_ARRAY, true},
        {S("[1,2 ]"), MQSYNC_JSON_ARRAY, true},
        {S("[ ]"), MQSYNC_JSON_ARRAY, true},
        {S("{\"a b\":\"c d\"}"), MQSYNC_JSON_OBJECT, false},
        {S("{\"a\" :1}"), MQSYNC_JSON_OBJECT, true},
        {S("{\"a\":\t1}"), MQSYNC_JSON_OBJECT, true},
        {S("{ \"a\":1}"), MQSYNC_JSON_OBJECT, true},
        {S("{}\r\n"), MQSYNC_JSON_OBJECT, true},
    };

    for (int i = 0; i < COUNT(cases); i++) {
        struct mqsync_json_info info;
        ck_assert_int_eq(mqsync_json_check(cases[i].text, &info, NULL), MQSYNC_OK);
        ck_assert_msg(info.type == cases[i].type && info.spaced == cases[i].spaced, "%s", cases[i].text.p);
        ck_assert_int_eq(mqsync_json_typeof(cases[i].text), cases[i].type);
    }
}
END_TEST

START_TEST(depth_is_limited)
{
    for (int deeper = 0; deeper < 2; deeper++) {
        size_t depth = MQSYNC_JSON_MAX_DEPTH + (size_t)deeper;
        enum mqsync_code expected = deeper ? MQSYNC_INVALID_MESSAGE : MQSYNC_OK;
        struct mqsync_buf b = {0};

        add_times(&b, "[", depth);
        add_times(&b, "]", depth);
        ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&b), NULL, NULL), expected);

        mqsync_buf_clear(&b);
        add_times(&b, "{\"key\":", depth);
        mqsync_buf_add_str(&b, "1");
        add_times(&b, "}", depth);
        ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&b), NULL, NULL), expected);
        mqsync_buf_free(&b);
    }

    struct mqsync_buf open = {0};
    add_times(&open, "[", 1000000);
    ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&open), NULL, NULL), MQSYNC_INVALID_MESSAGE);
    mqsync_buf_free(&open);
}
END_TEST

static void add_key(struct mqsync_buf *b, int i, bool escaped)
{
    char text[64];

    snprintf(text, sizeof(text), "%s\"%s%d\":%d", b->p[b->n - 1] == '{' ? "" : ",", escaped ? "\\u006b" : "k", i, i);
    mqsync_buf_add_str(b, text);
}

/* Around the sizes where the way of comparing changes, a duplicate is found wherever it is. */
START_TEST(duplicates_among_many)
{
    static const int sizes[] = {2, 31, 32, 33, 34, 127, 128, 129, 511, 512, 513, 5000};
    int size = sizes[_i / 2];
    bool escaped = _i % 2;

    for (int first = 0; first < size; first += size < 200 ? 1 : 97) {
        struct mqsync_buf b = {0};
        mqsync_buf_add_str(&b, "{");
        for (int i = 0; i < size; i++)
            add_key(&b, i, false);
        mqsync_buf_add_str(&b, "}");
        ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&b), NULL, NULL), MQSYNC_OK);
        b.n--;
        add_key(&b, first, escaped);
        mqsync_buf_add_str(&b, "}");
        ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&b), NULL, NULL), MQSYNC_INVALID_MESSAGE);
        mqsync_buf_free(&b);
    }
}
END_TEST

/* Each of many open objects keeps its own keys, small ones inside large ones and the other way round. */
START_TEST(duplicates_after_nested)
{
    for (int duplicate = 0; duplicate < 2; duplicate++) {
        struct mqsync_buf b = {0};
        int depth = 100;
        mqsync_buf_add_str(&b, "{");
        for (int level = 0; level < depth; level++) {
            for (int i = 0; i < (level % 3 ? 5 : 40); i++)
                add_key(&b, i, false);
            mqsync_buf_add_str(&b, ",\"in\":{");
        }
        for (int level = depth; level > 0; level--) {
            mqsync_buf_add_str(&b, "}");
            add_key(&b, duplicate && level == 50 ? 3 : 1000, false);
        }
        mqsync_buf_add_str(&b, "}");
        ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&b), NULL, NULL),
                         duplicate ? MQSYNC_INVALID_MESSAGE : MQSYNC_OK);
        mqsync_buf_free(&b);
    }
}
END_TEST

/* Keys longer than what is unescaped in one go. */
START_TEST(duplicates_long)
{
    for (size_t length = 250; length < 1100; length += length < 260 || length > 500 ? 1 : 120) {
        for (int differs = 0; differs < 2; differs++) {
            struct mqsync_buf b = {0};
            mqsync_buf_add_str(&b, "{\"");
            add_times(&b, "a", length);
            mqsync_buf_add_str(&b, "\":1,\"");
            add_times(&b, "a", length - 1);
            mqsync_buf_add_str(&b, differs ? "\\u0062\":2}" : "\\u0061\":2}");
            ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&b), NULL, NULL),
                             differs ? MQSYNC_OK : MQSYNC_INVALID_MESSAGE);
            mqsync_buf_free(&b);
        }
    }
}
END_TEST

/* --- walking ------------------------------------------------------------------------------------------------------ */

START_TEST(walks_members)
{
    static const struct mqsync_slice expected[][2] = {
        {S("a"), S("1")},           {S("\\u0062"), S("\"x,}]\\\"\"")}, {S("c"), S("[1, {\"]\":2} ]")},
        {S(""), S("{\"a\" : {}}")}, {S("e\\\\"), S("null")},           {S("\\\""), S("-1.5e3")},
    };
    struct mqsync_json_iter it =
        mqsync_json_members(S(" { \"a\":1,\"\\u0062\" : \"x,}]\\\"\" ,\n\"c\":[1, {\"]\":2} ],\"\":{\"a\" : {}} , "
                              "\"e\\\\\":null,\"\\\"\":-1.5e3\t} "));
    struct mqsync_slice key, value;

    for (int i = 0; i < COUNT(expected); i++) {
        ck_assert(mqsync_json_next_member(&it, &key, &value));
        ck_assert_msg(mqsync_slice_equal(key, expected[i][0]), "key %.*s", (int)key.n, key.p);
        ck_assert_msg(mqsync_slice_equal(value, expected[i][1]), "value %.*s", (int)value.n, value.p);
    }
    ck_assert(!mqsync_json_next_member(&it, &key, &value));
    ck_assert(!mqsync_json_next_member(&it, &key, &value));
}
END_TEST

START_TEST(walks_elements)
{
    static const struct mqsync_slice expected[] = {S("1"),    S("\"]\""), S("[[]]"), S("{\"a\":[1,2]}"),
                                                   S("true"), S("-0")};
    struct mqsync_json_iter it = mqsync_json_elements(S("\n[1 ,\"]\",[[]], {\"a\":[1,2]} ,true,-0]"));
    struct mqsync_slice value;

    for (int i = 0; i < COUNT(expected); i++) {
        ck_assert(mqsync_json_next_element(&it, &value));
        ck_assert_msg(mqsync_slice_equal(value, expected[i]), "%.*s", (int)value.n, value.p);
    }
    ck_assert(!mqsync_json_next_element(&it, &value));
}
END_TEST

START_TEST(walks_nothing)
{
    static const struct mqsync_slice texts[] = {S("{}"), S(" { } "), S("[]"), S("[ ]"), S("1"), S("\"{\""), {NULL, 0}};
    struct mqsync_slice key, value;

    for (int i = 0; i < COUNT(texts); i++) {
        struct mqsync_json_iter members = mqsync_json_members(texts[i]), elements = mqsync_json_elements(texts[i]);
        ck_assert(!mqsync_json_next_member(&members, &key, &value));
        ck_assert(!mqsync_json_next_element(&elements, &value));
    }
    struct mqsync_json_iter it = mqsync_json_members(S("[{\"a\":1}]"));
    ck_assert(!mqsync_json_next_member(&it, &key, &value));
    it = mqsync_json_elements(S("{\"a\":[1]}"));
    ck_assert(!mqsync_json_next_element(&it, &value));
}
END_TEST

START_TEST(finds)
{
    struct mqsync_slice object =
        S("{\"a\":1,\"\\u0062\":2,\"\\\\u0063\":3,\"d\\u0000\":4,\"\":5,\"\\uD83D\\uDE00\":6,\"n\":{\"z\":1}}");
    static const struct {
        struct mqsync_slice name, value;
    } cases[] = {
        {S("a"), S("1")}, {S("b"), S("2")},    {S("\\u0063"), S("3")},          {S("d\0"), S("4")},
        {S(""), S("5")},  {{NULL, 0}, S("5")}, {S("\xF0\x9F\x98\x80"), S("6")}, {S("n"), S("{\"z\":1}")},
    };
    static const struct mqsync_slice absent[] = {S("c"), S("d"), S("z"), S("\\u0062"), S("aa"), S("A")};
    struct mqsync_slice value;

    for (int i = 0; i < COUNT(cases); i++) {
        ck_assert_msg(mqsync_json_find(object, cases[i].name, &value), "case %d", i);
        ck_assert(mqsync_slice_equal(value, cases[i].value));
    }
    value = S("untouched");
    for (int i = 0; i < COUNT(absent); i++)
        ck_assert_msg(!mqsync_json_find(object, absent[i], &value), "%s", absent[i].p);
    ck_assert(mqsync_slice_equal(value, S("untouched")));
}
END_TEST

/* --- strings ------------------------------------------------------------------------------------------------------ */

START_TEST(compares_keys)
{
    ck_assert(mqsync_json_key_equal(S("a"), S("a")));
    ck_assert(mqsync_json_key_equal(S(""), (struct mqsync_slice){NULL, 0}));
    ck_assert(mqsync_json_key_equal(S("a"), S("\\u0061")));
    ck_assert(mqsync_json_key_equal(S("\\u00e9\\/"), S("\xC3\xA9/")));
    ck_assert(mqsync_json_key_equal(S("\\uD83D\\uDE00"), S("\xF0\x9F\x98\x80")));
    ck_assert(
        mqsync_json_key_equal(S("\\b\\f\\n\\r\\t\\\"\\\\"), S("\\u0008\\u000c\\u000a\\u000d\\u0009\\u0022\\u005C")));
    ck_assert(!mqsync_json_key_equal(S("a"), S("b")));
    ck_assert(!mqsync_json_key_equal(S("a"), S("aa")));
    ck_assert(!mqsync_json_key_equal(S("\\u0061"), S("aa")));
    ck_assert(!mqsync_json_key_equal(S("\\u0061"), S("")));
    ck_assert(!mqsync_json_key_equal(S("\\\\u0061"), S("a")));
    ck_assert(!mqsync_json_key_equal(S("\\u0000"), S("")));
}
END_TEST

START_TEST(unescapes)
{
    struct mqsync_buf b = {0};

    mqsync_buf_add_str(&b, ">");
    mqsync_json_unescape(
        &b, S("\"a\\\"\\\\\\/"
              "\\b\\f\\n\\r\\tz\\u0000\\u007f\\u0080\\u07FF\\u0800\\uffff\\uD800\\uDC00\\uDBFF\\uDFFF\xC3\xA9\""));
    check_text(
        &b,
        S(">a\"\\/\b\f\n\r\tz\0\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\xC3\xA9"));
    mqsync_buf_clear(&b);
    mqsync_json_unescape(&b, S("\"\""));
    check_text(&b, S(""));
    mqsync_buf_free(&b);
}
END_TEST

START_TEST(quotes)
{
    struct mqsync_buf b = {0};

    mqsync_json_add_string(&b, S("plain /'<\x7F \xC3\xA9\xF0\x9F\x98\x80"));
    check_text(&b, S("\"plain /'<\x7F \xC3\xA9\xF0\x9F\x98\x80\""));
    mqsync_buf_clear(&b);
    mqsync_json_add_string(&b, S("\"\\\b\f\n\r\t\0\x1F\x0B"));
    check_text(&b, S("\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\\u000b\""));
    mqsync_buf_clear(&b);
    mqsync_json_add_string(&b, (struct mqsync_slice){NULL, 0});
    check_text(&b, S("\"\""));
    /* whatever comes in, what goes out is JSON */
    mqsync_buf_clear(&b);
    mqsync_json_add_string(&b, S("a\xFF\xC3z\xED\xA0\x80"));
    check_text(&b, S("\"a\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""));
    mqsync_buf_free(&b);
}
END_TEST

START_TEST(minifies)
{
    static const struct mqsync_slice cases[][2] = {
        {S(" { \"a b\" : [ 1 , 2.50 , \"c \\\" d\" ] ,\r\n\t\"e\" : { } } \n"),
         S("{\"a b\":[1,2.50,\"c \\\" d\"],\"e\":{}}")},
        {S("{\"a\":1}"), S("{\"a\":1}")},
        {S(" 1e+05 "), S("1e+05")},
        {S("\" \\u0041 \""), S("\" \\u0041 \"")},
        {S("[ ]"), S("[]")},
        {S("\"\\\\\" "), S("\"\\\\\"")},
    };
    struct mqsync_buf b = {0};

    for (int i = 0; i < COUNT(cases); i++) {
        mqsync_buf_clear(&b);
        mqsync_json_minify(&b, cases[i][0]);
        check_text(&b, cases[i][1]);
    }
    mqsync_buf_free(&b);
}
END_TEST

/* --- numbers ------------------------------------------------------------------------------------------------------ */

START_TEST(reads_u64)
{
    uint64_t v = 42;

    ck_assert(mqsync_json_to_u64(S("0"), &v) && v == 0);
    ck_assert(mqsync_json_to_u64(S("9223372036854775807"), &v) && v == INT64_MAX);
    v = 42;
    static const struct mqsync_slice others[] = {S("9223372036854775808"),
                                                 S("9999999999999999999"),
                                                 S("18446744073709551616"),
                                                 S("-1"),
                                                 S("-0"),
                                                 S("1.0"),
                                                 S("1e1"),
                                                 S("\"1\""),
                                                 S("null"),
                                                 S("[1]"),
                                                 S("")};
    for (int i = 0; i < COUNT(others); i++)
        ck_assert_msg(!mqsync_json_to_u64(others[i], &v), "%s", others[i].p);
    ck_assert_uint_eq(v, 42);

    ck_assert(mqsync_json_member_u64(S("{\"b\":1, \"a\" : 7}"), S("a"), &v) && v == 7);
    static const struct mqsync_slice without[] = {S("{\"a\":\"7\"}"), S("{\"a\":-7}"), S("{\"b\":7}"), S("[7]")};
    for (int i = 0; i < COUNT(without); i++)
        ck_assert_msg(!mqsync_json_member_u64(without[i], S("a"), &v), "%s", without[i].p);
    ck_assert_uint_eq(v, 7);
}
END_TEST

START_TEST(looks_inside_strings)
{
    ck_assert(mqsync_slice_equal(mqsync_json_inside(S("\"a\\n\"")), S("a\\n")));
    ck_assert(mqsync_slice_equal(mqsync_json_inside(S("\"\"")), S("")));
    ck_assert(mqsync_slice_equal(mqsync_json_inside(S("")), S("")));
}
END_TEST

/* Rows in rising order; within a row all are the same number. */
static const struct mqsync_slice ladder[][6] = {
    {S("-1e1000000000000000000000000000001")},
    {S("-1e1000000000000000000000000000000"), S("-10e999999999999999999999999999999"),
     S("-0.1e1000000000000000000000000000001")},
    {S("-1e999999999999999999")},
    {S("-9007199254740993"), S("-9007199254740993.000")},
    {S("-9007199254740992")},
    {S("-1.5"), S("-15e-1"), S("-0.15E1"), S("-1.50"), S("-150E-2")},
    {S("-1")},
    {S("-0.1"), S("-1e-1")},
    {S("-1e-999999999999999999")},
    {S("-1e-99999999999999999999999")},
    {S("0"), S("-0"), S("0.000"), S("-0e5"), S("0e99999999999999999999999"), S("-0.0E-99999999999999999999999")},
    {S("1e-99999999999999999999999"), S("0.001e-99999999999999999999996"), S("100e-100000000000000000000001")},
    {S("1.0000001e-99999999999999999999999")},
    {S("1e-999999999999999999")},
    {S("0.00012299999999999999999999999999")},
    {S("0.000123"), S("1.23e-4"), S("123e-6"), S("0.0000000123e4"), S("12300000e-11"), S("0.00012300")},
    {S("0.1")},
    {S("0.9999999999999999999999999")},
    {S("1"), S("1.0"), S("10e-1"), S("0.01e2"), S("1e0"), S("1E-0000000000000000000000000000000")},
    {S("1.000000000000000000000000000000000000000001")},
    {S("2")},
    {S("9.9")},
    {S("10"), S("1e1"), S("1e+1"), S("1e+01"), S("100e-1")},
    {S("10.1")},
    {S("99")},
    {S("100")},
    {S("9007199254740992")},
    {S("9007199254740993"), S("9007199254740993.0"), S("9.007199254740993e15"), S("9007199254740993e0")},
    {S("123456789012345678901234567890")},
    {S("123456789012345678901234567891")},
    {S("1e308")},
    {S("1e309")},
    {S("9e999999999999999999")},
    {S("1e1000000000000000000"), S("10e999999999999999999"), S("0.00001e1000000000000000005")},
    {S("1e18446744073709551616")},
    {S("1e18446744073709551617"), S("10e18446744073709551616")},
};

START_TEST(compares_numbers)
{
    struct mqsync_slice a, b;

    for (int i = 0; i < COUNT(ladder); i++)
        for (int j = 0; j < COUNT(ladder); j++)
            for (int k = 0; k < 36; k++) {
                a = ladder[i][k / 6];
                b = ladder[j][k % 6];
                if (!a.n || !b.n)
                    continue;
                int order = mqsync_json_number_compare(a, b);
                ck_assert_msg((order > 0) - (order < 0) == (i > j) - (i < j), "%s and %s: %d", a.p, b.p, order);
                ck_assert(mqsync_json_equal(a, b) == (i == j));
                ck_assert((mqsync_json_hash(a) == mqsync_json_hash(b)) == (i == j));
            }
}
END_TEST

/* --- equality ----------------------------------------------------------------------------------------------------- */

static const struct {
    struct mqsync_slice a, b;
    bool equal;
} pairs[] = {
    {S("null"), S(" null "), true},
    {S("true"), S("true\n"), true},
    {S("true"), S("false"), false},
    {S("null"), S("false"), false},
    {S("0"), S("false"), false},
    {S("1"), S("\"1\""), false},
    {S("1"), S(" 1.0 "), true},
    {S("\"a\""), S(" \"\\u0061\" "), true},
    {S("\"a\""), S("\"A\""), false},
    {S("\"\""), S("\"\\u0000\""), false},
    {S("[]"), S("{}"), false},
    {S("[]"), S("[ ]"), true},
    {S("[[]]"), S("[{}]"), false},
    {S("[[]]"), S("[[[]]]"), false},
    {S("[[],[]]"), S("[[[]]]"), false},
    {S("[1,2]"), S("[1.0, 2e0]"), true},
    {S("[1,2]"), S("[2,1]"), false},
    {S("[1,2]"), S("[1]"), false},
    {S("[1]"), S("[1,null]"), false},
    {S("{\"a\":1}"), S("{}"), false},
    {S("{\"a\":null}"), S("{}"), false},
    {S("{\"a\":null}"), S("{\"b\":null}"), false},
    {S("{\"a\":1,\"b\":2}"), S("{ \"b\" : 2.0, \"\\u0061\" : 1 }"), true},
    {S("{\"a\":1,\"b\":2}"), S("{\"a\":2,\"b\":1}"), false},
    {S("{\"a\":1,\"b\":2,\"c\":3}"), S("{\"c\":3,\"b\":2,\"d\":1}"), false},
    {S("{\"a\":1,\"b\":2}"), S("{\"b\":2,\"a\":1,\"c\":3}"), false},
    {S("{\"a\":{\"x\":[1,{\"p\":1,\"q\":2}]},\"b\":[]}"), S("{\"b\":[],\"a\":{\"x\":[1.0,{\"q\":2,\"p\":1}]}}"), true},
    {S("{\"a\":{\"x\":[1,{\"p\":1,\"q\":2}]},\"b\":[]}"), S("{\"b\":[],\"a\":{\"x\":[1.0,{\"q\":1,\"p\":2}]}}"), false},
    {S("[{\"a\":1,\"b\":2},{\"a\":2}]"), S("[{\"b\":2,\"a\":1},{\"a\":3}]"), false},
    {S("[9007199254740993]"), S("[9007199254740992]"), false},
    {S("{\"a\":[1,2],\"b\":[3]}"), S("{\"a\":[1],\"b\":[2,3]}"), false},
    {S("[\"a\",\"b\"]"), S("{\"a\":\"b\"}"), false},
    {S("[1,[2,3]]"), S("[[1,2],3]"), false},
};

START_TEST(equality)
{
    struct mqsync_slice a = pairs[_i].a, b = pairs[_i].b;

    ck_assert_msg(mqsync_json_equal(a, b) == pairs[_i].equal, "%s and %s", a.p, b.p);
    ck_assert_msg(mqsync_json_equal(b, a) == pairs[_i].equal, "%s and %s", b.p, a.p);
    ck_assert(mqsync_json_equal(a, a) && mqsync_json_equal(b, b));
    ck_assert_msg((mqsync_json_hash(a) == mqsync_json_hash(b)) == pairs[_i].equal, "hashes of %s and %s", a.p, b.p);
}
END_TEST

START_TEST(equality_deep)
{
    struct mqsync_buf a = {0}, b = {0}, c = {0};
    size_t depth = MQSYNC_JSON_MAX_DEPTH / 2;

    add_times(&a, "{\"x\":0,\"y\":[", depth);
    add_times(&a, "]}", depth);
    add_times(&b, "{\"y\":[", depth);
    add_times(&b, "],\"x\":0}", depth);
    add_times(&c, "{\"y\":[", depth);
    mqsync_buf_add_str(&c, "1");
    add_times(&c, "],\"x\":0}", depth);
    ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&a), NULL, NULL), MQSYNC_OK);
    ck_assert(mqsync_json_equal(mqsync_buf_slice(&a), mqsync_buf_slice(&b)));
    ck_assert(!mqsync_json_equal(mqsync_buf_slice(&a), mqsync_buf_slice(&c)));
    ck_assert(mqsync_json_hash(mqsync_buf_slice(&a)) == mqsync_json_hash(mqsync_buf_slice(&b)));
    ck_assert(mqsync_json_hash(mqsync_buf_slice(&a)) != mqsync_json_hash(mqsync_buf_slice(&c)));
    mqsync_buf_free(&a);
    mqsync_buf_free(&b);
    mqsync_buf_free(&c);
}
END_TEST

/* --- deltas ------------------------------------------------------------------------------------------------------- */

static const struct {
    struct mqsync_slice base, delta, result;
} deltas[] = {
    {S("{\"a\":1,\"b\":2}"), S("{\"b\":3}"), S("{\"a\":1,\"b\":3}")},
    {S("{\"a\":1,\"b\":2}"), S("{\"c\":3}"), S("{\"a\":1,\"b\":2,\"c\":3}")},
    {S("{\"a\":1,\"b\":2}"), S("{\"d\":4,\"a\":0,\"c\":3}"), S("{\"a\":0,\"b\":2,\"d\":4,\"c\":3}")},
    {S("{\"a\":1,\"b\":2}"), S("{\"a\":null}"), S("{\"b\":2}")},
    {S("{\"a\":1,\"b\":2}"), S("{\"a\":null,\"b\":null}"), S("{}")},
    {S("{\"a\":1}"), S("{\"z\":null}"), S("{\"a\":1}")},
    {S("{\"a\":1,\"b\":2,\"c\":3}"), S("{\"b\":null}"), S("{\"a\":1,\"c\":3}")},
    {S("{\"a\":1,\"b\":2, \"c\":3}"), S("{}"), S("{\"a\":1,\"b\":2,\"c\":3}")},
    {S("{\"a\":null,\"b\":1}"), S("{\"b\":2}"), S("{\"a\":null,\"b\":2}")},
    {S("{\"a\":{\"x\":1,\"y\":2}}"), S("{\"a\":{\"x\":null}}"), S("{\"a\":{\"x\":null}}")},
    {S("{\"\\u0061\":1}"), S("{\"a\":2}"), S("{\"\\u0061\":2}")},
    {S("{\"a\":1}"), S("{\"\\u0061\":null}"), S("{}")},
    {S("{\"a\":1}"), S("{}"), S("{\"a\":1}")},
    {S("{}"), S("{}"), S("{}")},
    {{NULL, 0}, S("{\"a\":1,\"b\":null,\"c\":[]}"), S("{\"a\":1,\"c\":[]}")},
    {{NULL, 0}, S("{}"), S("{}")},
    {S(" { \"a\" : [ 1 , 2 ] , \"b\" : \"x y\" } "), S("{ \"c\" : { \"d\" : 1 } , \"b\" : 1.50 }"),
     S("{\"a\":[1,2],\"b\":1.50,\"c\":{\"d\":1}}")},
    {S("{\"a\":\"nothing\"}"), S("{\"b\":\"null\"}"), S("{\"a\":\"nothing\",\"b\":\"null\"}")},
    {S("{\"\":1,\"n\":12345678901234567890.10}"), S("{\"\":1e400}"), S("{\"\":1e400,\"n\":12345678901234567890.10}")},
};

START_TEST(applies_delta)
{
    struct mqsync_buf b = {0};

    mqsync_buf_add_str(&b, ">");
    mqsync_json_apply_delta(&b, deltas[_i].base, deltas[_i].delta);
    ck_assert(b.p[0] == '>');
    memmove(b.p, b.p + 1, --b.n);
    check_text(&b, deltas[_i].result);
    mqsync_buf_free(&b);
}
END_TEST

static const struct {
    struct mqsync_slice from, to, delta, full;
} diffs[] = {
    {S("{}"), S("{}"), S("{}"), S("{}")},
    {S("{\"a\":1}"), S("{\"a\":1.0}"), S("{}"), S("{\"a\":1.0}")},
    {S("{\"a\":1,\"b\":2}"), S("{\"b\":3,\"a\":1}"), S("{\"b\":3}"), S("{\"b\":3,\"a\":1}")},
    {S("{\"a\":1,\"b\":2}"), S("{\"a\":1}"), S("{\"b\":null}"), S("{\"a\":1,\"b\":null}")},
    {S("{}"), S("{\"a\":[ 1, 2 ]}"), S("{\"a\":[1,2]}"), S("{\"a\":[1,2]}")},
    {{NULL, 0}, S("{\"a\":1}"), S("{\"a\":1}"), S("{\"a\":1}")},
    {S("{\"a\":{\"x\":1,\"y\":2}}"), S("{\"a\":{\"y\":2,\"x\":1}}"), S("{}"), S("{\"a\":{\"y\":2,\"x\":1}}")},
    {S("{\"\\u0061\":1,\"b\":1}"), S("{\"a\":2}"), S("{\"a\":2,\"b\":null}"), S("{\"a\":2,\"b\":null}")},
    {S("{\"a\":\"\\u0041\"}"), S("{\"a\":\"A\"}"), S("{}"), S("{\"a\":\"A\"}")},
};

START_TEST(finds_differences)
{
    struct mqsync_buf b = {0};

    mqsync_json_diff(&b, diffs[_i].from, diffs[_i].to, false);
    check_text(&b, diffs[_i].delta);
    mqsync_buf_clear(&b);
    mqsync_json_diff(&b, diffs[_i].from, diffs[_i].to, true);
    check_text(&b, diffs[_i].full);
    mqsync_buf_free(&b);
}
END_TEST

/* --- cost --------------------------------------------------------------------------------------------------------- */

enum { MANY = 200000 };

static struct mqsync_slice many_members(struct mqsync_buf *b, int first, int step)
{
    mqsync_buf_add_str(b, "{");
    for (int i = 0; i < MANY; i++)
        add_key(b, first + i * step, false);
    mqsync_buf_add_str(b, "}");
    return mqsync_buf_slice(b);
}

/* What is quadratic takes minutes with this many members; a tenth of a second is what it needs. */
START_TEST(many_keys_take_linear_time)
{
    struct mqsync_buf a = {0}, b = {0}, delta = {0}, result = {0};
    clock_t start = clock();
    struct mqsync_slice rising = many_members(&a, 0, 1), falling = many_members(&b, MANY * 3 / 2, -1);

    ck_assert_int_eq(mqsync_json_check(rising, NULL, NULL), MQSYNC_OK);
    ck_assert_int_eq(mqsync_json_check(falling, NULL, NULL), MQSYNC_OK);
    mqsync_json_diff(&delta, rising, falling, false);
    mqsync_json_apply_delta(&result, rising, mqsync_buf_slice(&delta));
    ck_assert(mqsync_json_equal(mqsync_buf_slice(&result), falling));
    ck_assert(!mqsync_json_equal(rising, falling));
    ck_assert(mqsync_json_hash(mqsync_buf_slice(&result)) == mqsync_json_hash(falling));
    ck_assert_msg(clock() - start < 10 * CLOCKS_PER_SEC, "not linear");
    mqsync_buf_free(&a);
    mqsync_buf_free(&b);
    mqsync_buf_free(&delta);
    mqsync_buf_free(&result);
}
END_TEST

/* Stepping over a value again at each level it is nested in would cost 512 times as much. */
START_TEST(deep_values_take_linear_time)
{
    struct mqsync_buf a = {0}, b = {0};
    size_t depth = MQSYNC_JSON_MAX_DEPTH - 1;

    add_times(&a, "[0,", depth);
    mqsync_buf_add_str(&a, "[1");
    add_times(&a, ",1", 2000000);
    mqsync_buf_add_str(&a, "]");
    add_times(&a, "]", depth);
    mqsync_buf_add_slice(&b, mqsync_buf_slice(&a));
    b.p[b.n - depth - 2] = '2';

    clock_t start = clock();
    ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&a), NULL, NULL), MQSYNC_OK);
    ck_assert(!mqsync_json_equal(mqsync_buf_slice(&a), mqsync_buf_slice(&b)));
    ck_assert(mqsync_json_hash(mqsync_buf_slice(&a)) != mqsync_json_hash(mqsync_buf_slice(&b)));
    ck_assert_msg(clock() - start < 10 * CLOCKS_PER_SEC, "not linear");
    mqsync_buf_free(&a);
    mqsync_buf_free(&b);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("json");

    tcase_add_loop_test(tests, takes, 0, COUNT(taken));
    tcase_add_loop_test(tests, takes_no_part, 0, COUNT(taken));
    tcase_add_loop_test(tests, refuses, 0, COUNT(refused));
    tcase_add_test(tests, says_type_and_space);
    tcase_add_test(tests, depth_is_limited);
    tcase_add_loop_test(tests, duplicates_among_many, 0, 24);
    tcase_add_test(tests, duplicates_after_nested);
    tcase_add_test(tests, duplicates_long);
    tcase_add_test(tests, walks_members);
    tcase_add_test(tests, walks_elements);
    tcase_add_test(tests, walks_nothing);
    tcase_add_test(tests, finds);
    tcase_add_test(tests, compares_keys);
    tcase_add_test(tests, unescapes);
    tcase_add_test(tests, quotes);
    tcase_add_test(tests, minifies);
    tcase_add_test(tests, reads_u64);
    tcase_add_test(tests, looks_inside_strings);
    tcase_add_test(tests, compares_numbers);
    tcase_add_loop_test(tests, equality, 0, COUNT(pairs));
    tcase_add_test(tests, equality_deep);
    tcase_add_loop_test(tests, applies_delta, 0, COUNT(deltas));
    tcase_add_loop_test(tests, finds_differences, 0, COUNT(diffs));
    tcase_add_test(tests, many_keys_take_linear_time);
    tcase_add_test(tests, deep_values_take_linear_time);
    return run_tests("json", tests);
}
