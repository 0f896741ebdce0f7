/* SPDX-License-Identifier: BSD-3-Clause */
#include "query.h"
#include "unit.h"

static void assert_slice(struct mqsync_slice got, const char *expected)
{
    ck_assert_msg(mqsync_slice_equal(got, mqsync_slice_str(expected)), "got \"%.*s\", expected \"%s\"", (int)got.n,
                  got.n ? got.p : "", expected);
}

/* Up to three parameters; NULL: fewer. */
static enum mqsync_code parse(struct mqsync_query *q, const char *a, const char *b, const char *c)
{
    struct mqsync_slice args[] = {mqsync_slice_str(a), mqsync_slice_str(b), mqsync_slice_str(c)};
    struct mqsync_error e;
    return mqsync_query_parse(args, (size_t)(a != NULL) + (b != NULL) + (c != NULL), q, &e);
}

START_TEST(targets)
{
    static const struct {
        const char *path, *collection, *record_id; /* collection NULL: none of them */
    } cases[] = {
        {"/sync/todos", "todos", ""},
        {"/sync/todos/", "todos", ""},
        {"/sync/todos/r", "todos", "r"},
        {"/sync/todos/r/", "todos", "r"},
        {"/sync/todos/a b", "todos", "a b"},
        {"/sync/todos/r/x", NULL, NULL},
        {"/sync//r", NULL, NULL},
        {"/sync/", NULL, NULL},
        {"/sync", NULL, NULL},
        {"/", NULL, NULL},
        {"", NULL, NULL},
        {"/synced/todos", NULL, NULL},
        {"sync/todos", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct mqsync_target t;
        bool found = mqsync_target_parse(mqsync_slice_str(cases[i].path), &t);
        ck_assert_msg(found == (cases[i].collection != NULL), "%s", cases[i].path);
        if (found) {
            assert_slice(t.collection, cases[i].collection);
            assert_slice(t.record_id, cases[i].record_id);
        }
    }
}
END_TEST

START_TEST(since)
{
    struct mqsync_query q;

    ck_assert_int_eq(parse(&q, NULL, NULL, NULL), MQSYNC_OK);
    ck_assert(!q.has_since && q.since_seq == 0 && q.limit == UINT64_MAX && q.offset == 0);
    ck_assert_int_eq(parse(&q, "since=1970-01-02T00:00:00.5Z", NULL, NULL), MQSYNC_OK);
    ck_assert(q.has_since && q.since_ms == 86400500);
    ck_assert_int_eq(parse(&q, "since=1970-01-02T02:00:00+02:00", NULL, NULL), MQSYNC_OK);
    ck_assert(q.since_ms == 86400000);
    ck_assert_int_eq(parse(&q, "since=1970-01-02T02:00:00 02:00", NULL, NULL), MQSYNC_OK);
    ck_assert(q.since_ms == 86400000);
    /* no zone: the earliest moment that it can mean */
    ck_assert_int_eq(parse(&q, "since=1970-01-02T14:00:00", NULL, NULL), MQSYNC_OK);
    ck_assert(q.since_ms == 86400000);
    ck_assert_int_eq(parse(&q, "since=1970-01-02T14:00:00Z", "since=42", NULL), MQSYNC_OK);
    ck_assert(!q.has_since && q.since_seq == 42);
    ck_assert_int_eq(parse(&q, "since=9223372036854775807", NULL, NULL), MQSYNC_INVALID_MESSAGE);
    ck_assert_int_eq(parse(&q, "since", NULL, NULL), MQSYNC_INVALID_MESSAGE);
    ck_assert_int_eq(parse(&q, "since= 5", NULL, NULL), MQSYNC_INVALID_MESSAGE);
    ck_assert_int_eq(parse(&q, "limit=3", "offset=4", "else=x"), MQSYNC_OK);
    ck_assert(q.limit == 3 && q.offset == 4);
    ck_assert_int_eq(parse(&q, "limit=+3", NULL, NULL), MQSYNC_INVALID_MESSAGE);
}
END_TEST

START_TEST(conditions)
{
    static const struct {
        const char *condition, *data;
        bool matches;
    } cases[] = {
        {"where[a]=x", "{\"a\":\"x\"}", true},
        {"where[a]=x", "{\"b\":1,\"\\u0061\":\"\\u0078\"}", true},
        {"where[a]=x", "{\"a\":\"xx\"}", false},
        {"where[a]=x", "{\"a\":[\"x\"]}", false},
        {"where[a]=x", "{}", false},
        {"where[a]=", "{\"a\":\"\"}", true},
        {"where[]=1", "{\"\":1}", true},
        {"where[a]=\"x\"", "{\"a\":\"x\"}", false},
        {"where[a]=100", "{\"a\":1e2}", true},
        {"where[a]=1e+2", "{\"a\":100.000}", true},
        {"where[a]=100", "{\"a\":100.0001}", false},
        {"where[a]= 100", "{\"a\":100}", false},
        {"where[a]=0x64", "{\"a\":100}", false},
        {"where[a]=100", "{\"a\":\"100\"}", true},
        {"where[a]=true", "{\"a\":true}", true},
        {"where[a]=false", "{\"a\":true}", false},
        {"where[a]=null", "{\"a\":null}", true},
        {"where[a]=null", "{}", true},
        {"where[a]=null", "{\"a\":0}", false},
        {"where[a]=\xff", "{\"a\":\"x\"}", false},
        {"where[a.b]=1", "{\"a\":{\"b\":1}}", false},
        {"where[a]=b=c", "{\"a\":\"b=c\"}", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct mqsync_query q;
        ck_assert_int_eq(parse(&q, cases[i].condition, NULL, NULL), MQSYNC_OK);
        ck_assert_msg(mqsync_query_matches(&q, mqsync_slice_str(cases[i].data), 0) == cases[i].matches, "%s of %s",
                      cases[i].condition, cases[i].data);
    }
}
END_TEST

START_TEST(projections)
{
    static const char data[] = "{\"a\":1.0,\"\\u0062\":[1],\"c\":{\"a\":2}}";
    static const struct {
        const char *args[3], *result;
    } cases[] = {
        {{NULL, NULL, NULL}, data},
        {{"fields=a", NULL, NULL}, "{\"a\":1.0}"},
        {{"fields=b,,c", NULL, NULL}, "{\"\\u0062\":[1],\"c\":{\"a\":2}}"},
        {{"fields=", NULL, NULL}, "{}"},
        {{"excludeFields=b", "excludeFields=c", NULL}, "{\"a\":1.0}"},
        {{"fields=a,c", "excludeFields=a", NULL}, "{\"c\":{\"a\":2}}"},
        {{"excludeFields=", NULL, NULL}, data},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct mqsync_query q;
        struct mqsync_buf out = {0};
        ck_assert_int_eq(parse(&q, cases[i].args[0], cases[i].args[1], cases[i].args[2]), MQSYNC_OK);
        mqsync_query_project(&q, mqsync_slice_str(data), &out);
        assert_slice(mqsync_buf_slice(&out), cases[i].result);
        mqsync_buf_free(&out);
    }
}
END_TEST

START_TEST(commands)
{
    static const struct {
        enum mqsync_http_method method;
        const char *record_id, *body, *command; /* NULL: INVALID_MESSAGE */
    } cases[] = {
        {MQSYNC_HTTP_POST, "", "{\"recordId\":\"r\",\"data\":{\"a\":1}}",
         "{\"type\":\"insert\",\"recordId\":\"r\",\"data\":{\"a\":1},\"metadata\":{}}"},
        {MQSYNC_HTTP_PUT, "a\"b", "{\"data\":{},\"mutationId\":\"m\"}",
         "{\"type\":\"insert\",\"recordId\":\"a\\\"b\",\"data\":{},\"metadata\":{\"mutationId\":\"m\"}}"},
        {MQSYNC_HTTP_PATCH, "r", "{\"delta\":{\"a\":null},\"data\":{},\"baseVersion\":2,\"metadata\":{\"x\":1}}",
         "{\"type\":\"update\",\"recordId\":\"r\",\"data\":{\"a\":null},\"metadata\":{\"x\":1,\"baseVersion\":2}}"},
        {MQSYNC_HTTP_DELETE, "r", "", "{\"type\":\"delete\",\"recordId\":\"r\",\"metadata\":{}}"},
        {MQSYNC_HTTP_DELETE, "r", "{\"timestamp\":\"2026-01-01T00:00:00Z\"}",
         "{\"type\":\"delete\",\"recordId\":\"r\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"metadata\":{}}"},
        {MQSYNC_HTTP_POST, "", "{\"data\":{}}", NULL},
        {MQSYNC_HTTP_POST, "r", "{\"recordId\":\"s\",\"data\":{}}", NULL},
        {MQSYNC_HTTP_POST, "r", "{\"recordId\":1,\"data\":{}}", NULL},
        {MQSYNC_HTTP_POST, "a/b", "{\"data\":{}}", NULL},
        {MQSYNC_HTTP_POST, "r", "{\"data\":{},\"ifVersion\":1,\"metadata\":{\"ifVersion\":1}}", NULL},
        {MQSYNC_HTTP_PATCH, "r", "{\"delta\":[]}", NULL},
        {MQSYNC_HTTP_PATCH, "r", "null", NULL},
        {MQSYNC_HTTP_PATCH, "r", "{", NULL},
    };
    struct mqsync_buf command = {0}, scratch = {0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct mqsync_target t = {MQSYNC_SLICE("todos"), mqsync_slice_str(cases[i].record_id)};
        struct mqsync_message m;
        struct mqsync_error e;
        enum mqsync_code code =
            mqsync_query_command(cases[i].method, &t, mqsync_slice_str(cases[i].body), &command, &scratch, &m, &e);
        ck_assert_msg(code == (cases[i].command ? MQSYNC_OK : MQSYNC_INVALID_MESSAGE), "%s", cases[i].body);
        if (cases[i].command)
            assert_slice(mqsync_buf_slice(&command), cases[i].command);
    }
    mqsync_buf_free(&command);
    mqsync_buf_free(&scratch);
}
END_TEST

START_TEST(chunks)
{
    static const struct {
        const char *bytes, *body;
        enum mqsync_chunks_result result;
    } cases[] = {
        {"5\r\nhello\r\n0\r\n\r\n", "hello", MQSYNC_CHUNKS_END},
        {"2\r\nhe\r\n00003;a=b\r\nllo\r\n0;c\r\nT: x\r\nU: y\r\n\r\nnext", "hello", MQSYNC_CHUNKS_END},
        {"5\nhello\n0\n\n", "hello", MQSYNC_CHUNKS_END},
        {"0\r\n\r\n", "", MQSYNC_CHUNKS_END},
        {"A\r\n01234", "01234", MQSYNC_CHUNKS_MORE},
        {"0\r\n", "", MQSYNC_CHUNKS_MORE},
        {"", "", MQSYNC_CHUNKS_MORE},
        {"\r\n", "", MQSYNC_CHUNKS_BAD},
        {"g\r\n", "", MQSYNC_CHUNKS_BAD},
        {"-5\r\n", "", MQSYNC_CHUNKS_BAD},
        {"000000001\r\n", "", MQSYNC_CHUNKS_BAD},
        {"2\r\nhex", "he", MQSYNC_CHUNKS_BAD},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct mqsync_chunks c = {0};
        struct mqsync_buf out = {0};
        ck_assert_msg(mqsync_chunks_take(&c, mqsync_slice_str(cases[i].bytes), &out) == cases[i].result, "%s",
                      cases[i].bytes);
        assert_slice(mqsync_buf_slice(&out), cases[i].body);
        mqsync_buf_free(&out);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("query");
    tcase_add_test(tests, targets);
    tcase_add_test(tests, since);
    tcase_add_test(tests, conditions);
    tcase_add_test(tests, projections);
    tcase_add_test(tests, commands);
    tcase_add_test(tests, chunks);
    return run_tests("query", tests);
}
