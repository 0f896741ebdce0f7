/* SPDX-License-Identifier: BSD-3-Clause */
#include "timestamp.h"
#include "unit.h"

#include <stdio.h>
#include <time.h>

static struct mqsync_time parsed(const char *text)
{
    struct mqsync_time t = {MQSYNC_TIME_MISSING, -1};

    ck_assert_msg(mqsync_time_parse(mqsync_slice_str(text), &t), "%s is refused", text);
    return t;
}

static void check_exact(const char *text, int64_t ms)
{
    struct mqsync_time t = parsed(text);

    ck_assert_msg(t.kind == MQSYNC_TIME_EXACT, "%s is not exact", text);
    ck_assert_msg(t.ms == ms, "%s is %lld, not %lld", text, (long long)t.ms, (long long)ms);
}

static void check_zoneless(const char *text, int64_t ms)
{
    struct mqsync_time t = parsed(text);

    ck_assert_msg(t.kind == MQSYNC_TIME_ZONELESS, "%s is not zoneless", text);
    ck_assert_msg(t.ms == ms, "%s is %lld, not %lld", text, (long long)t.ms, (long long)ms);
}

static void check_format(int64_t ms, const char *expected)
{
    char text[MQSYNC_TIMESTAMP_LEN + 1];

    memset(text, '#', sizeof(text));
    mqsync_time_format(ms, text);
    ck_assert_msg(text[MQSYNC_TIMESTAMP_LEN] == '#', "more than %d characters", MQSYNC_TIMESTAMP_LEN);
    text[MQSYNC_TIMESTAMP_LEN] = '\0';
    ck_assert_str_eq(text, expected);
}

START_TEST(parse_exact)
{
    check_exact("1970-01-01T00:00:00Z", 0);
    check_exact("1970-01-01T00:00:00.001Z", 1);
    check_exact("2026-11-22T18:17:00.000Z", INT64_C(1795371420000));
    check_exact("2026-11-22t18:17:00z", INT64_C(1795371420000));
    check_exact("2026-11-22 18:17:00Z", INT64_C(1795371420000));
    check_exact("2026-11-22T18:17Z", INT64_C(1795371420000));
    check_exact("2026-11-22T19:17:00+01:00", INT64_C(1795371420000));
    check_exact("2026-11-22T12:47:00-05:30", INT64_C(1795371420000));
    check_exact("2026-11-23T18:16:00+23:59", INT64_C(1795371420000));
    check_exact("2026-11-22T12:47:00-0530", INT64_C(1795371420000));
    check_exact("2026-11-22T18:17:00-00:00", INT64_C(1795371420000));
    check_exact("1969-12-31T23:59:59.999Z", -1);
    check_exact("0000-01-01T00:00:00Z", INT64_C(-62167219200000));
    check_exact("9999-12-31T23:59:59.999Z", INT64_C(253402300799999));
}
END_TEST

START_TEST(parse_fraction)
{
    check_exact("1970-01-01T00:00:00.1Z", 100);
    check_exact("1970-01-01T00:00:00.12Z", 120);
    check_exact("1970-01-01T00:00:00.1239999999999999999999999999Z", 123);
    check_exact("1970-01-01T00:00:00.000999Z", 0);
}
END_TEST

START_TEST(parse_leap)
{
    check_exact("2016-12-31T23:59:60Z", INT64_C(1483228800000));
    check_exact("2016-12-31T23:59:60.5Z", INT64_C(1483228800500));
    check_exact("2000-02-29T00:00:00Z", INT64_C(951782400000));
    check_exact("2024-02-29T00:00:00Z", INT64_C(1709164800000));
}
END_TEST

START_TEST(parse_zoneless)
{
    check_zoneless("2026-11-22T18:17:00.250", INT64_C(1795371420250));
    check_zoneless("2026-11-22T18:17:00", INT64_C(1795371420000));
    check_zoneless("2026-11-22 18:17", INT64_C(1795371420000));
    check_zoneless("2026-11-22T18:17", INT64_C(1795371420000));
    check_zoneless("2026-11-22 18:17:00,25", INT64_C(1795371420250));
    check_zoneless("20261122T181700", INT64_C(1795371420000));
    check_zoneless("20261122T181700.250", INT64_C(1795371420250));
    check_zoneless("20261122 181700,250", INT64_C(1795371420250));
    check_zoneless("20261122T1817", INT64_C(1795371420000));
}
END_TEST

static const char *const refused[] = {
    "",
    "2026",
    "2026-11-22",
    "2026-11-22T",
    "2026-11-22T18",
    "2026-11-22T18Z",
    "2026-11-22T18:1Z",
    "2026-11-22T18:17:",
    "2026-11-22T18:17:0Z",
    "2026-11-22T18:17:00.Z",
    "2026-11-22T18:17:00.",
    "2026-11-22T18:17:00,5Z",
    "2026-11-22T18:17:00ZZ",
    "2026-11-22T18:17:00Z ",
    " 2026-11-22T18:17:00Z",
    "2026-11-22  18:17:00Z",
    "2026-11-22T18:17:00+1:00",
    "2026-11-22T18:17:00+01:0",
    "2026-11-22T18:17:00+01:60",
    "2026-11-22T18:17:00+24:00",
    "2026-11-22T18:17:00+",
    "2026-11-22T18:17:00+01:00Z",
    "2026-13-22T18:17:00Z",
    "2026-00-22T18:17:00Z",
    "2026-11-00T18:17:00Z",
    "2026-11-31T18:17:00Z",
    "2026-02-29T18:17:00Z",
    "1900-02-29T18:17:00Z",
    "2026-11-22T24:00:00Z",
    "2026-11-22T18:60:00Z",
    "2026-11-22T18:17:61Z",
    "02026-11-22T18:17:00Z",
    "-2026-11-22T18:17:00Z",
    "2026/11/22T18:17:00Z",
    "2026-11-22X18:17:00Z",
    "20261122T181700Z",
    "20261122T181700+0100",
    "20261122T18:17:00",
    "2026-11-22T181700",
    "2026-1122T18:17:00",
    "20261122T18170",
    "20261122T181700.",
    "20261122",
    "2026-11-22T18:17:00,",
    "2026-11-22T18:17:00,5+01:00",
    "2026-11-22T18:17:00+010",
    "2026-11-22T18:17:00+01",
    "1795371420000",
    "yesterday",
};

START_TEST(parse_refuses)
{
    struct mqsync_time t = {MQSYNC_TIME_MISSING, 42};

    ck_assert_msg(!mqsync_time_parse(mqsync_slice_str(refused[_i]), &t), "%s is taken", refused[_i]);
    ck_assert(t.kind == MQSYNC_TIME_MISSING && t.ms == 42);
}
END_TEST

START_TEST(parse_no_text)
{
    struct mqsync_time t;

    ck_assert(!mqsync_time_parse((struct mqsync_slice){NULL, 0}, &t));
    ck_assert(!mqsync_time_parse((struct mqsync_slice){"2026-11-22T18:17:00\0", 20}, &t));
}
END_TEST

START_TEST(format)
{
    check_format(0, "1970-01-01T00:00:00.000Z");
    check_format(1, "1970-01-01T00:00:00.001Z");
    check_format(-1, "1969-12-31T23:59:59.999Z");
    check_format(-1000, "1969-12-31T23:59:59.000Z");
    check_format(-1001, "1969-12-31T23:59:58.999Z");
    check_format(INT64_C(1795371420123), "2026-11-22T18:17:00.123Z");
    check_format(INT64_C(1795371420999), "2026-11-22T18:17:00.999Z");
    check_format(INT64_C(1795371421000), "2026-11-22T18:17:01.000Z");
    check_format(INT64_C(951782400000), "2000-02-29T00:00:00.000Z");
    check_format(INT64_C(-62167219200000), "0000-01-01T00:00:00.000Z");
    check_format(INT64_C(253402300799999), "9999-12-31T23:59:59.999Z");
}
END_TEST

START_TEST(format_clamps)
{
    check_format(INT64_C(-62167219200001), "0000-01-01T00:00:00.000Z");
    check_format(INT64_MIN, "0000-01-01T00:00:00.000Z");
    check_format(INT64_C(253402300800000), "9999-12-31T23:59:59.999Z");
    check_format(INT64_MAX, "9999-12-31T23:59:59.999Z");
}
END_TEST

/* Every day from 1597 to 2402, so a whole cycle of leap years, and every eleventh of the other ten thousand years,
 * against the C library, and back through the parser. */
START_TEST(calendar)
{
    for (int64_t day = -719528; day <= 2932896; day += day > -136000 && day < 158000 ? 1 : 11) {
        time_t seconds = (time_t)(day * 86400 + (day * 7919 % 86400 + 86400) % 86400);
        struct tm tm;
        char expected[64], text[MQSYNC_TIMESTAMP_LEN];

        gmtime_r(&seconds, &tm);
        snprintf(expected, sizeof(expected), "%04d-%02d-%02dT%02d:%02d:%02d.007Z", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        mqsync_time_format((int64_t)seconds * 1000 + 7, text);
        ck_assert_msg(memcmp(text, expected, sizeof(text)) == 0, "%.24s instead of %s", text, expected);

        struct mqsync_time back = {MQSYNC_TIME_MISSING, 0};
        bool taken = mqsync_time_parse((struct mqsync_slice){text, sizeof(text)}, &back);
        ck_assert_msg(taken && back.ms == (int64_t)seconds * 1000 + 7, "%s is not read back", expected);
    }
}
END_TEST

START_TEST(now)
{
    struct timespec before, after;

    clock_gettime(CLOCK_REALTIME, &before);
    int64_t ms = mqsync_time_now();
    clock_gettime(CLOCK_REALTIME, &after);
    ck_assert_int_ge(ms, (int64_t)before.tv_sec * 1000 + before.tv_nsec / 1000000);
    ck_assert_int_le(ms, (int64_t)after.tv_sec * 1000 + after.tv_nsec / 1000000);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("timestamp");

    tcase_add_test(tests, parse_exact);
    tcase_add_test(tests, parse_fraction);
    tcase_add_test(tests, parse_leap);
    tcase_add_test(tests, parse_zoneless);
    tcase_add_loop_test(tests, parse_refuses, 0, sizeof(refused) / sizeof(*refused));
    tcase_add_test(tests, parse_no_text);
    tcase_add_test(tests, format);
    tcase_add_test(tests, format_clamps);
    tcase_add_test(tests, calendar);
    tcase_add_test(tests, now);
    return run_tests("timestamp", tests);
}
