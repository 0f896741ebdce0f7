/* SPDX-License-Identifier: BSD-3-Clause */
#include "merge.h"
#include "decimal.h"
#include "json.h"
#include "unit.h"

#include <time.h>

enum { FIELDS_MAX = 4 };

/* {strategy, fields by spaces, partial, later, remote, local, result} */
struct merge_case {
    enum mqsync_strategy strategy;
    const char *fields;
    bool partial, later;
    const char *remote, *local, *result;
};

static const int64_t ARRIVED = 1700000000000; /* 2023-11-14T22:13:20Z */

static struct mqsync_buf merge(enum mqsync_strategy strategy, const char *fields, bool partial, bool later,
                               struct mqsync_slice remote, struct mqsync_slice local)
{
    struct mqsync_slice names[FIELDS_MAX];
    struct mqsync_rules rules = {.strategy = strategy, .fields = names};
    for (size_t n; *fields; fields += n + (fields[n] != '\0')) {
        n = strcspn(fields, " ");
        names[rules.fields_n++] = (struct mqsync_slice){fields, n};
    }
    struct mqsync_merge m = {.rules = &rules,
                             .local = local,
                             .remote = remote,
                             .partial = partial,
                             .local_is_later = later,
                             .arrived_ms = ARRIVED,
                             .updated_ms = ARRIVED - 5000};
    struct mqsync_buf out = {0};
    mqsync_merge(&out, &m);
    ck_assert(!out.failed);
    return out;
}

static void run(const struct merge_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct merge_case *c = &cases[i];
        struct mqsync_slice remote = mqsync_slice_str(c->remote), local = mqsync_slice_str(c->local);
        ck_assert_int_eq(mqsync_json_check(remote, NULL, NULL), MQSYNC_OK);
        ck_assert_int_eq(mqsync_json_check(local, NULL, NULL), MQSYNC_OK);
        struct mqsync_buf out = merge(c->strategy, c->fields, c->partial, c->later, remote, local);
        ck_assert_msg(mqsync_slice_equal(mqsync_buf_slice(&out), mqsync_slice_str(c->result)),
                      "case %zu: %s with %s: got %.*s, expected %s", i, c->remote, c->local, (int)out.n, out.p,
                      c->result);
        mqsync_buf_free(&out);
    }
}

#define RUN(cases) run(cases, sizeof(cases) / sizeof((cases)[0]))

START_TEST(merge_arrays)
{
    static const struct merge_case cases[] = {
        {MQSYNC_MERGE_ARRAYS, "t", true, false, "{\"a\":1,\"t\":[1,2],\"z\":0}", "{\"t\":[3,2],\"a\":5}",
         "{\"a\":1,\"t\":[3,2,1],\"z\":0}"},
        {MQSYNC_MERGE_ARRAYS, "t", false, true, "{\"t\":[1]}", "{\"t\":[]}", "{\"t\":[1]}"},
        {MQSYNC_MERGE_ARRAYS, "t", false, true, "{\"t\":[]}", "{\"t\":[]}", "{\"t\":[]}"},
        {MQSYNC_MERGE_ARRAYS, "t", true, true, "{\"t\":[1.0,\"a\"]}", "{\"t\":[10e-1,\"\\u0061\",1]}",
         "{\"t\":[10e-1,\"\\u0061\"]}"},
        {MQSYNC_MERGE_ARRAYS, "t", true, true, "{\"t\":[{\"x\":1,\"y\":[2]}]}",
         "{\"t\":[{\"y\":[2.0],\"x\":1},{\"y\":[2],\"x\":2}]}", "{\"t\":[{\"y\":[2.0],\"x\":1},{\"y\":[2],\"x\":2}]}"},
        {MQSYNC_MERGE_ARRAYS, "t u", true, true, "{\"t\":[1],\"u\":[2]}", "{\"u\":[3],\"t\":[4]}",
         "{\"t\":[4,1],\"u\":[3,2]}"},
        /* not an array on both sides, or not on both sides: the record's stays */
        {MQSYNC_MERGE_ARRAYS, "t u v", true, true, "{\"t\":[1],\"u\":1}", "{\"u\":[3],\"t\":null,\"v\":[1]}",
         "{\"t\":[1],\"u\":1}"},
        /* the same key written otherwise */
        {MQSYNC_MERGE_ARRAYS, "t\"", true, true, "{\"\\u0074\\\"\":[1]}", "{\"t\\u0022\":[2]}",
         "{\"\\u0074\\\"\":[2,1]}"},
        {MQSYNC_MERGE_ARRAYS, "t", true, true, "{\"t\":[null,false,\"\",[],{}]}", "{\"t\":[0,null,[[]],\"[\"]}",
         "{\"t\":[0,null,[[]],\"[\",false,\"\",[],{}]}"},
    };
    RUN(cases);
}
END_TEST

START_TEST(sum_numbers)
{
    static const struct merge_case cases[] = {
        {MQSYNC_SUM_NUMBERS, "n", true, false, "{\"n\":1,\"m\":1}", "{\"n\":2,\"m\":2}", "{\"n\":3,\"m\":1}"},
        {MQSYNC_SUM_NUMBERS, "n m", false, true, "{\"n\":0.1,\"m\":-7}", "{\"m\":7,\"n\":0.2}", "{\"n\":0.3,\"m\":0}"},
        {MQSYNC_SUM_NUMBERS, "n", true, true, "{\"n\":9007199254740993}", "{\"n\":1}", "{\"n\":9007199254740994}"},
        {MQSYNC_SUM_NUMBERS, "n", true, true, "{\"n\":\"1\"}", "{\"n\":1}", "{\"n\":\"1\"}"},
        {MQSYNC_SUM_NUMBERS, "n", true, true, "{\"n\":1}", "{\"n\":null}", "{\"n\":1}"},
        {MQSYNC_SUM_NUMBERS, "n", true, true, "{\"a\":1}", "{\"n\":1}", "{\"a\":1}"},
        {MQSYNC_SUM_NUMBERS, "n", true, true, "{\"n\":1e401}", "{\"n\":1}", "{\"n\":1e401}"},
        {MQSYNC_SUM_NUMBERS, "n n", true, true, "{\"n\":1}", "{\"n\":1}", "{\"n\":2}"},
    };
    RUN(cases);
}
END_TEST

START_TEST(max_value)
{
    static const struct merge_case cases[] = {
        {MQSYNC_MAX_VALUE, "n", true, false, "{\"n\":1}", "{\"n\":2.50,\"m\":1}", "{\"n\":2.50}"},
        {MQSYNC_MAX_VALUE, "n", true, true, "{\"n\":3}", "{\"n\":2}", "{\"n\":3}"},
        {MQSYNC_MAX_VALUE, "n", true, true, "{\"n\":1.0}", "{\"n\":1}", "{\"n\":1.0}"},
        {MQSYNC_MAX_VALUE, "n", true, true, "{\"n\":-2}", "{\"n\":-10}", "{\"n\":-2}"},
        {MQSYNC_MAX_VALUE, "n", true, true, "{\"n\":9007199254740992}", "{\"n\":9007199254740993}",
         "{\"n\":9007199254740993}"},
        {MQSYNC_MAX_VALUE, "n", true, true, "{\"n\":1e9999}", "{\"n\":2e9999}", "{\"n\":2e9999}"},
        {MQSYNC_MAX_VALUE, "n", true, true, "{\"n\":true}", "{\"n\":5}", "{\"n\":true}"},
    };
    RUN(cases);
}
END_TEST

START_TEST(merge_fields)
{
    static const struct merge_case cases[] = {
        {MQSYNC_MERGE_FIELDS, "a b", true, false, "{\"a\":1,\"c\":2}", "{\"b\":3,\"c\":4,\"a\":5}",
         "{\"a\":5,\"c\":2,\"b\":3}"},
        {MQSYNC_MERGE_FIELDS, "a b", true, false, "{\"a\":1,\"c\":2}", "{\"b\":null,\"a\":null}", "{\"c\":2}"},
        {MQSYNC_MERGE_FIELDS, "a b", false, false, "{\"a\":1,\"c\":2}", "{\"b\":null,\"a\":null}",
         "{\"a\":null,\"c\":2,\"b\":null}"},
        {MQSYNC_MERGE_FIELDS, "a", false, false, "{\"a\":1}", "{\"b\":1}", "{\"a\":1}"},
        {MQSYNC_MERGE_FIELDS, "", false, false, "{\"\":1}", "{\"\":2}", "{\"\":1}"},
    };
    RUN(cases);
}
END_TEST

#define STAMP(s) "\"2023-11-14T22:13:" s "Z\""

START_TEST(field_level_last_write_wins)
{
    const enum mqsync_strategy fl = MQSYNC_FIELD_LEVEL_LAST_WRITE_WINS;
    const struct merge_case cases[] = {
        /* each field by its own time; the winner brings it along */
        {fl, "", true, false, "{\"a\":1,\"a_updatedAt\":" STAMP("10") ",\"b\":1,\"b_updatedAt\":" STAMP("12") "}",
         "{\"a\":2,\"a_updatedAt\":" STAMP("11") ",\"b\":2,\"b_updatedAt\":" STAMP("11") "}",
         "{\"a\":2,\"a_updatedAt\":" STAMP("11") ",\"b\":1,\"b_updatedAt\":" STAMP("12") "}"},
        /* only a strictly later one wins */
        {fl, "", true, true, "{\"a\":1,\"a_updatedAt\":" STAMP("10") "}",
         "{\"a\":2,\"a_updatedAt\":\"2023-11-14T23:13:10.000+01:00\"}", "{\"a\":1,\"a_updatedAt\":" STAMP("10") "}"},
        /* without both, the write's own time decides */
        {fl, "", true, true, "{\"a\":1,\"a_updatedAt\":" STAMP("10") ",\"b\":1}", "{\"a\":2,\"b\":null,\"c\":3}",
         "{\"a\":2,\"a_updatedAt\":" STAMP("10") ",\"c\":3}"},
        {fl, "", true, false, "{\"a\":1,\"b\":1}", "{\"a\":2,\"b\":null,\"c\":3}", "{\"a\":1,\"b\":1}"},
        {fl, "", true, false, "{\"a\":1,\"a_updatedAt\":\"soon\"}", "{\"a\":2,\"a_updatedAt\":" STAMP("11") "}",
         "{\"a\":1,\"a_updatedAt\":\"soon\"}"},
        {fl, "", true, true, "{\"a\":1,\"a_updatedAt\":\"soon\"}", "{\"a\":2,\"a_updatedAt\":" STAMP("11") "}",
         "{\"a\":2,\"a_updatedAt\":" STAMP("11") "}"},
        /* zone-less times compare with their like only */
        {fl, "", true, false, "{\"a\":1,\"a_updatedAt\":\"2023-11-14T22:00:00\"}",
         "{\"a\":2,\"a_updatedAt\":\"2023-11-14T22:00:01\"}", "{\"a\":2,\"a_updatedAt\":\"2023-11-14T22:00:01\"}"},
        {fl, "", true, false, "{\"a\":1,\"a_updatedAt\":\"2023-11-14T22:00:00\"}",
         "{\"a\":2,\"a_updatedAt\":" STAMP("11") "}", "{\"a\":1,\"a_updatedAt\":\"2023-11-14T22:00:00\"}"},
        /* a whole object lacks what it lacks; a delta does not */
        {fl, "", false, true, "{\"a\":1,\"b\":1,\"b_updatedAt\":" STAMP("10") "}", "{\"a\":2}", "{\"a\":2}"},
        {fl, "", true, true, "{\"a\":1,\"b\":1,\"b_updatedAt\":" STAMP("10") "}", "{\"a\":2}",
         "{\"a\":2,\"b\":1,\"b_updatedAt\":" STAMP("10") "}"},
        {fl, "", false, false, "{\"a\":1,\"b\":1}", "{\"a\":2}", "{\"a\":1,\"b\":1}"},
        /* a time alone is a field like others */
        {fl, "", true, true, "{\"a\":1,\"a_updatedAt\":" STAMP("10") "}", "{\"a_updatedAt\":" STAMP("11") "}",
         "{\"a\":1,\"a_updatedAt\":" STAMP("11") "}"},
        /* times that have not come yet: the write's counts as its arrival, the record's as the record's time */
        {fl, "", true, false, "{\"a\":1,\"a_updatedAt\":\"2099-01-01T00:00:00Z\"}",
         "{\"a\":2,\"a_updatedAt\":" STAMP("16") "}", "{\"a\":2,\"a_updatedAt\":" STAMP("16") "}"},
        {fl, "", true, false, "{\"a\":1,\"a_updatedAt\":\"2099-01-01T00:00:00Z\"}",
         "{\"a\":2,\"a_updatedAt\":" STAMP("14") "}", "{\"a\":1,\"a_updatedAt\":\"2099-01-01T00:00:00Z\"}"},
        {fl, "", true, false, "{\"a\":1,\"a_updatedAt\":" STAMP("20") "}",
         "{\"a\":2,\"a_updatedAt\":\"2099-01-01T00:00:00Z\"}", "{\"a\":1,\"a_updatedAt\":" STAMP("20") "}"},
    };
    RUN(cases);
}
END_TEST

START_TEST(deep_merge)
{
    const enum mqsync_strategy dm = MQSYNC_DEEP_MERGE;
    const struct merge_case cases[] = {
        {dm, "", true, false, "{\"a\":1,\"o\":{\"x\":1}}", "{\"b\":2,\"a\":3,\"o\":{\"y\":2,\"x\":9}}",
         "{\"a\":1,\"o\":{\"x\":1,\"y\":2},\"b\":2}"},
        {dm, "", true, false, "{\"l\":[1,2]}", "{\"l\":[2,3]}", "{\"l\":[2,3,1]}"},
        {dm, "", true, false, "{\"o\":{\"l\":[1],\"p\":{}}}", "{\"o\":{\"p\":{\"q\":null},\"l\":[[]]}}",
         "{\"o\":{\"l\":[[],1],\"p\":{\"q\":null}}}"},
        {dm, "", true, false, "{\"o\":{}}", "{\"o\":[1]}", "{\"o\":{}}"},
        {dm, "", true, false, "{\"o\":[]}", "{\"o\":{\"a\":1}}", "{\"o\":[]}"},
        {dm, "", true, false, "{}", "{\"a\":null,\"b\":{\"c\":null}}", "{\"b\":{\"c\":null}}"},
        {dm, "", false, false, "{}", "{\"a\":null}", "{\"a\":null}"},
        {dm, "", true, true, "{\"a\":1}", "{\"a\":null}", "{\"a\":1}"},
        {dm, "", true, true, "{\"\":{\"\":{}}}", "{\"\":{\"\":{\"\":0}}}", "{\"\":{\"\":{\"\":0}}}"},
        {dm, "", true, true, "{\"k\":{\"\\u0061\":1}}", "{\"k\":{\"a\":2,\"b\":12345678901234567890.10}}",
         "{\"k\":{\"\\u0061\":1,\"b\":12345678901234567890.10}}"},
        {dm, "", true, true, "{\"a\":\"{\",\"l\":[{\"m\":1}]}", "{\"b\":\"}\",\"l\":[{\"m\":1.0}]}",
         "{\"a\":\"{\",\"l\":[{\"m\":1.0}],\"b\":\"}\"}"},
    };
    RUN(cases);
}
END_TEST

static struct mqsync_buf nested(const char *innermost, size_t filler)
{
    struct mqsync_buf b = {0};
    for (int i = 0; i < MQSYNC_JSON_MAX_DEPTH - 1; i++)
        mqsync_buf_add_str(&b, "{\"a\":");
    mqsync_buf_add_str(&b, innermost);
    for (size_t i = 0; i < filler; i++)
        mqsync_buf_add_str(&b, "[],");
    mqsync_buf_add_str(&b, "0]}");
    for (int i = 0; i < MQSYNC_JSON_MAX_DEPTH - 1; i++)
        mqsync_buf_add_char(&b, '}');
    return b;
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A megabyte at the deepest place, and a megabyte of equal values: work that grew with depth or with the square would
 * take minutes here; the limit leaves room for sanitizers and slow machines. */
START_TEST(time_is_linear)
{
    struct mqsync_buf remote = nested("{\"l\":[1,", 330000), local = nested("{\"l\":[2,", 330000);
    double start = cpu_seconds();
    struct mqsync_buf out =
        merge(MQSYNC_DEEP_MERGE, "", true, true, mqsync_buf_slice(&remote), mqsync_buf_slice(&local));
    struct mqsync_buf expected = nested("{\"l\":[2,[],", 0);
    expected.n -= MQSYNC_JSON_MAX_DEPTH + 1;
    mqsync_buf_add_str(&expected, ",1]}");
    for (int i = 0; i < MQSYNC_JSON_MAX_DEPTH - 1; i++)
        mqsync_buf_add_char(&expected, '}');
    ck_assert(mqsync_slice_equal(mqsync_buf_slice(&out), mqsync_buf_slice(&expected)));
    ck_assert_msg(cpu_seconds() - start < 10, "took %.1f s", cpu_seconds() - start);
    mqsync_buf_free(&expected);
    mqsync_buf_free(&remote);
    mqsync_buf_free(&local);
    mqsync_buf_free(&out);
}
END_TEST

START_TEST(many_members)
{
    struct mqsync_buf remote = {0}, local = {0};
    mqsync_buf_add_char(&remote, '{');
    mqsync_buf_add_char(&local, '{');
    for (uint64_t i = 0; i < 50000; i++) {
        mqsync_buf_add_str(&remote, i ? ",\"r" : "\"r");
        mqsync_buf_add_u64(&remote, i);
        mqsync_buf_add_str(&remote, "\":1");
        mqsync_buf_add_str(&local, i ? ",\"l" : "\"l");
        mqsync_buf_add_u64(&local, i);
        mqsync_buf_add_str(&local, "\":1");
    }
    mqsync_buf_add_char(&remote, '}');
    mqsync_buf_add_char(&local, '}');
    double start = cpu_seconds();
    for (int s = MQSYNC_MERGE_ARRAYS; s <= MQSYNC_DEEP_MERGE; s++) {
        struct mqsync_buf out =
            merge((enum mqsync_strategy)s, "l1 l2", true, true, mqsync_buf_slice(&remote), mqsync_buf_slice(&local));
        bool all = s == MQSYNC_FIELD_LEVEL_LAST_WRITE_WINS || s == MQSYNC_DEEP_MERGE;
        ck_assert_uint_eq(out.n, remote.n + (all                        ? local.n - 1
                                             : s == MQSYNC_MERGE_FIELDS ? strlen(",\"l1\":1,\"l2\":1")
                                                                        : 0));
        mqsync_buf_free(&out);
    }
    ck_assert_msg(cpu_seconds() - start < 10, "took %.1f s", cpu_seconds() - start);
    mqsync_buf_free(&remote);
    mqsync_buf_free(&local);
}
END_TEST

static void assert_sum(const char *a, const char *b, const char *expected)
{
    struct mqsync_buf out = {0};
    bool done = mqsync_decimal_sum(&out, mqsync_slice_str(a), mqsync_slice_str(b));
    ck_assert_msg(done == (expected != NULL), "%.60s + %.60s", a, b);
    ck_assert_msg(mqsync_slice_equal(mqsync_buf_slice(&out), mqsync_slice_str(expected)), "%.60s + %.60s: got %.*s", a,
                  b, (int)out.n, out.n ? out.p : "");
    mqsync_buf_free(&out);
}

START_TEST(decimal_sums)
{
    static const char *const cases[][3] = {
        {"0", "0", "0"},
        {"-0", "-0", "0"},
        {"-0.0", "0e5", "0"},
        {"1", "-1", "0"},
        {"999", "1", "1000"},
        {"0.1", "0.2", "0.3"},
        {"1.50", "1.50", "3"},
        {"-1.5", "0.25", "-1.25"},
        {"1e3", "1E-3", "1000.001"},
        {"100", "-0.01", "99.99"},
        {"-5", "3", "-2"},
        {"3", "-5", "-2"},
        {"12e+1", "0.0", "120"},
        {"1e0000000001", "0", "10"},
        {"0.1e1", "9", "10"},
        {"-99.9", "-0.1", "-100"},
        {"12345678901234567890123456789.000000000001", "0.000000000009", "12345678901234567890123456789.00000000001"},
        {"1e401", "0", NULL},
        {"0", "1e-401", NULL},
        {"0e99999999999999999999", "1", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_sum(cases[i][0], cases[i][1], cases[i][2]);
}
END_TEST

START_TEST(decimal_limits)
{
    static char nines[MQSYNC_DECIMAL_MAX_DIGITS + 16],
        sum[MQSYNC_DECIMAL_MAX_DIGITS + MQSYNC_DECIMAL_MAX_EXPONENT + 16];
    memset(nines, '9', MQSYNC_DECIMAL_MAX_DIGITS);
    assert_sum(nines, "1e-401", NULL);
    strcpy(nines + MQSYNC_DECIMAL_MAX_DIGITS, "9");
    assert_sum(nines, "1", NULL);
    strcpy(nines + MQSYNC_DECIMAL_MAX_DIGITS, "e400");
    sum[0] = '1';
    memset(sum + 1, '9', MQSYNC_DECIMAL_MAX_DIGITS - 1);
    sum[MQSYNC_DECIMAL_MAX_DIGITS] = '8';
    memset(sum + MQSYNC_DECIMAL_MAX_DIGITS + 1, '0', MQSYNC_DECIMAL_MAX_EXPONENT);
    sum[MQSYNC_DECIMAL_MAX_DIGITS + MQSYNC_DECIMAL_MAX_EXPONENT + 1] = '\0';
    assert_sum(nines, nines, sum);

    static char small[MQSYNC_DECIMAL_MAX_DIGITS + 16] = "0.";
    memset(small + 2, '0', MQSYNC_DECIMAL_MAX_DIGITS - 2);
    small[MQSYNC_DECIMAL_MAX_DIGITS] = '1';
    strcpy(small + MQSYNC_DECIMAL_MAX_DIGITS + 1, "e-400");
    struct mqsync_buf out = {0};
    ck_assert(mqsync_decimal_sum(&out, mqsync_slice_str(small), mqsync_slice_str(small)));
    ck_assert_uint_eq(out.n, 2 + MQSYNC_DECIMAL_MAX_DIGITS - 1 + MQSYNC_DECIMAL_MAX_EXPONENT);
    ck_assert_int_eq(out.p[out.n - 1], '2');
    mqsync_buf_free(&out);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("merge");
    tcase_add_test(tests, merge_arrays);
    tcase_add_test(tests, sum_numbers);
    tcase_add_test(tests, max_value);
    tcase_add_test(tests, merge_fields);
    tcase_add_test(tests, field_level_last_write_wins);
    tcase_add_test(tests, deep_merge);
    tcase_add_test(tests, time_is_linear);
    tcase_add_test(tests, many_members);
    tcase_add_test(tests, decimal_sums);
    tcase_add_test(tests, decimal_limits);
    return run_tests("merge", tests);
}
