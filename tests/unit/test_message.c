/* SPDX-License-Identifier: BSD-3-Clause */
#include "message.h"
#include "unit.h"

#include <stdio.h>

#define TIME_MS 1795371420123 /* 2026-11-22T18:17:00.123Z */
#define TIME "2026-11-22T18:17:00.123Z"

static struct mqsync_buf scratch, out;
static struct mqsync_message m;
static struct mqsync_error error;

static void setup(void)
{
    memset(&error, 0, sizeof(error));
}

static void teardown(void)
{
    mqsync_buf_free(&scratch);
    mqsync_buf_free(&out);
}

static void assert_slice(struct mqsync_slice got, const char *expected)
{
    ck_assert_msg(mqsync_slice_equal(got, mqsync_slice_str(expected)), "got      %.*s\nexpected %s", (int)got.n,
                  got.n ? got.p : "", expected);
}

/* The encoded message is exactly this, and JSON. */
static void assert_encoded(const struct mqsync_buf *b, const char *expected)
{
    struct mqsync_json_info info;
    ck_assert(!b->failed);
    assert_slice(mqsync_buf_slice(b), expected);
    ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(b), &info, &error), MQSYNC_OK);
}

static enum mqsync_code decode_at(const char *json, const char *collection)
{
    return mqsync_message_decode(mqsync_slice_str(json), mqsync_slice_str(collection), &scratch, &m, &error);
}

static void decode_good(const char *json)
{
    ck_assert_msg(decode_at(json, "") == MQSYNC_OK, "%s: %s", json, error.text);
}

static void decode_bad(const char *json, const char *text)
{
    ck_assert_msg(decode_at(json, "") == MQSYNC_INVALID_MESSAGE, "%s", json);
    ck_assert_int_eq(error.code, MQSYNC_INVALID_MESSAGE);
    ck_assert_msg(strcmp(error.text, text) == 0, "%s\ngot      %s\nexpected %s", json, error.text, text);
}

/* --- decoding ----------------------------------------------------------------------------------------------------- */

START_TEST(every_type)
{
    static const struct {
        const char *json;
        enum mqsync_type type;
    } cases[] = {
        {"{\"type\":\"auth\",\"token\":\"t\"}", MQSYNC_TYPE_AUTH},
        {"{\"type\":\"subscribe\",\"collection\":\"c\"}", MQSYNC_TYPE_SUBSCRIBE},
        {"{\"type\":\"unsubscribe\",\"collection\":\"c\"}", MQSYNC_TYPE_UNSUBSCRIBE},
        {"{\"type\":\"insert\",\"collection\":\"c\",\"recordId\":\"r\",\"data\":{}}", MQSYNC_TYPE_INSERT},
        {"{\"type\":\"update\",\"collection\":\"c\",\"recordId\":\"r\",\"data\":{}}", MQSYNC_TYPE_UPDATE},
        {"{\"type\":\"delete\",\"collection\":\"c\",\"recordId\":\"r\"}", MQSYNC_TYPE_DELETE},
        {"{\"type\":\"sync\",\"collection\":\"c\"}", MQSYNC_TYPE_SYNC},
        {"{\"type\":\"ping\"}", MQSYNC_TYPE_PING},
    };
    ck_assert_uint_eq(sizeof(cases) / sizeof(cases[0]), MQSYNC_TYPES_N);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        decode_good(cases[i].json);
        ck_assert_int_eq(m.type, cases[i].type);
    }
}
END_TEST

START_TEST(whole_write)
{
    decode_good("{\"type\":\"update\",\"collection\":\"todos\",\"recordId\":\"r1\",\"data\":{\"a\":1.0,\"b\":[1,{}]},"
                "\"timestamp\":\"" TIME "\",\"metadata\":{\"mutationId\":\"m1\",\"baseVersion\":3,\"ifVersion\":0,"
                "\"since\":\"ignored here\"},\"unknown\":[null]}");
    assert_slice(m.collection, "todos");
    assert_slice(m.record_id, "r1");
    assert_slice(m.data, "{\"a\":1.0,\"b\":[1,{}]}");
    assert_slice(m.mutation_id, "m1");
    ck_assert_int_eq(m.time.kind, MQSYNC_TIME_EXACT);
    ck_assert_int_eq(m.time.ms, TIME_MS);
    ck_assert(m.has_base_version && m.base_version == 3);
    ck_assert(m.has_if_version && m.if_version == 0);
    ck_assert(!m.has_since && !m.has_limit);
}
END_TEST

START_TEST(whole_subscribe)
{
    decode_good(
        "{\"type\":\"subscribe\",\"collection\":\"c\",\"metadata\":{\"since\":9223372036854775807,\"epoch\":\"e\","
        "\"sync\":false,\"updates\":\"full\",\"limit\":\"ignored here\"}}");
    ck_assert(m.has_since && m.since == INT64_MAX);
    assert_slice(m.epoch, "e");
    ck_assert(m.no_sync && m.full_updates && !m.has_limit);

    decode_good("{\"type\":\"subscribe\",\"collection\":\"c\",\"metadata\":{\"sync\":true,\"updates\":\"delta\"}}");
    ck_assert(!m.has_since && !m.no_sync && !m.full_updates);
    ck_assert_uint_eq(m.epoch.n, 0);

    decode_good("{\"type\":\"sync\",\"collection\":\"c\",\"metadata\":{\"since\":0,\"limit\":10}}");
    ck_assert(m.has_since && m.since == 0 && m.has_limit && m.limit == 10);
}
END_TEST

START_TEST(null_is_absent)
{
    decode_good("{\"type\":\"delete\",\"collection\":\"c\",\"recordId\":\"r\",\"timestamp\":null,\"metadata\":"
                "{\"mutationId\":null,\"baseVersion\":null,\"ifVersion\":null}}");
    ck_assert_int_eq(m.time.kind, MQSYNC_TIME_MISSING);
    ck_assert(!m.has_base_version && !m.has_if_version);
    ck_assert_uint_eq(m.mutation_id.n, 0);
    decode_good("{\"type\":\"subscribe\",\"collection\":\"c\",\"metadata\":null}");
    decode_good(
        "{\"type\":\"subscribe\",\"collection\":\"c\",\"metadata\":{\"sync\":null,\"since\":null,\"epoch\":null,"
        "\"updates\":null}}");
    ck_assert(!m.no_sync && !m.has_since && !m.full_updates);
    decode_bad("{\"type\":\"insert\",\"collection\":\"c\",\"recordId\":\"r\",\"data\":null}",
               "data: missing, insert needs it: expected an object");
}
END_TEST

START_TEST(irrelevant_fields)
{
    decode_good("{\"type\":\"ping\",\"collection\":5,\"recordId\":[],\"data\":\"x\",\"timestamp\":{},\"token\":1,"
                "\"metadata\":{\"mutationId\":7,\"since\":-1}}");
    ck_assert_uint_eq(m.collection.n + m.record_id.n + m.data.n + m.token.n + m.mutation_id.n, 0);
    decode_good("{\"type\":\"delete\",\"collection\":\"c\",\"recordId\":\"r\",\"data\":[1]}");
    ck_assert_uint_eq(m.data.n, 0);
    ck_assert_int_eq(decode_at("{\"type\":\"ping\",\"collection\":\"other\"}", "todos"), MQSYNC_OK);
}
END_TEST

START_TEST(fields_at_their_place)
{
    decode_good(
        "{\"type\":\"delete\",\"collection\":\"c\",\"recordId\":\"r\",\"mutationId\":7,\"ifVersion\":\"x\","
        "\"metadata\":{\"recordId\":\"other\",\"collection\":5,\"type\":\"ping\",\"metadata\":[],\"timestamp\":0}}");
    ck_assert_int_eq(m.type, MQSYNC_TYPE_DELETE);
    assert_slice(m.record_id, "r");
    ck_assert(m.mutation_id.n == 0 && !m.has_if_version);
}
END_TEST

START_TEST(collection_from_topic)
{
    ck_assert_int_eq(decode_at("{\"type\":\"sync\"}", "todos"), MQSYNC_OK);
    assert_slice(m.collection, "todos");
    ck_assert_int_eq(decode_at("{\"type\":\"sync\",\"collection\":\"todos\"}", "todos"), MQSYNC_OK);
    assert_slice(m.collection, "todos");
    ck_assert_int_eq(decode_at("{\"type\":\"sync\",\"collection\":\"notes\"}", "todos"), MQSYNC_INVALID_MESSAGE);
    ck_assert_str_eq(error.text,
                     "collection: expected \"todos\" as where the message was sent to, or nothing, got \"notes\"");
    assert_slice(m.collection, "todos");
    ck_assert_int_eq(decode_at("{\"type\":\"sync\",\"collection\":7}", "todos"), MQSYNC_INVALID_MESSAGE);
    ck_assert_int_eq(decode_at("{\"type\":\"sync\",\"collection\":null}", "todos"), MQSYNC_OK);
}
END_TEST

START_TEST(escapes_and_space)
{
    decode_good(
        " {\"t\\u0079pe\" : \"ins\\u0065rt\",\n \"collection\" :\"t\\u006fdos\", \"recordId\":\"\\\"\\u00e9\\\\\",\t"
        "\"data\" : { \"a b\" : [ 1 , \"x \\u0020 y\" ] } , \"metadata\":{\"m\\u0075tationId\":\"m\\u0000\\n\"}} ");
    ck_assert_int_eq(m.type, MQSYNC_TYPE_INSERT);
    assert_slice(m.collection, "todos");
    assert_slice(m.record_id, "\"\xC3\xA9\\");
    assert_slice(m.data, "{\"a b\":[1,\"x \\u0020 y\"]}");
    ck_assert(mqsync_slice_equal(m.mutation_id, MQSYNC_SLICE("m\0\n")));

    decode_good("{\"type\":\"auth\",\"token\":\"a\\/b\"}");
    assert_slice(m.token, "a/b");
}
END_TEST

/* What was unescaped first must not move when room for more is needed. */
START_TEST(scratch_does_not_move)
{
    enum { LONG = 100000 };
    char *json = malloc(LONG + 256);
    ck_assert_ptr_nonnull(json);
    int n = sprintf(json, "{\"type\":\"insert\",\"collection\":\"\\u0063\",\"recordId\":\"\\u0072\",\"metadata\":"
                          "{\"mutationId\":\"\\u006d\"}, \"data\":{\"a\":\"");
    memset(json + n, 'x', LONG);
    strcpy(json + n + LONG, "\"}}");
    mqsync_buf_free(&scratch);
    decode_good(json);
    assert_slice(m.collection, "c");
    assert_slice(m.record_id, "r");
    assert_slice(m.mutation_id, "m");
    ck_assert_uint_eq(m.data.n, LONG + 8);
    ck_assert_ptr_eq(m.data.p + m.data.n, scratch.p + scratch.n);
    ck_assert_ptr_eq(m.record_id.p, scratch.p + 1);
    free(json);
}
END_TEST

START_TEST(data_is_not_copied)
{
    const char *json = "{\"type\":\"insert\",\"collection\":\"c\",\"recordId\":\"r\",\"data\":{\"a\":\" \"}}";
    decode_good(json);
    ck_assert_ptr_eq(m.data.p, strstr(json, "{\"a\""));
    ck_assert_uint_eq(scratch.n, 0);
}
END_TEST

#define EXPECTED_ID "recordId: expected 1 to 128 bytes of UTF-8 without \"/\", \"+\", \"#\" or control characters, got "
#define EXPECTED_NAME "collection: expected 1 to 64 of A-Z, a-z, 0-9, \"_\", \".\", \"-\", not \".\" or \"..\", got "
#define EXPECTED_UNSIGNED "expected an unsigned integer, at most 9223372036854775807, got "
#define EXPECTED_TYPE "type: expected auth, subscribe, unsubscribe, insert, update, delete, sync or ping, got "
#define DELETE_C "{\"type\":\"delete\",\"collection\":\"c\","

START_TEST(wrong_fields)
{
    static const char *const cases[][2] = {
        {"[]", "message: expected an object, got an array"},
        {" \n\"x\" ", "message: expected an object, got \"x\""},
        {"null", "message: expected an object, got null"},
        {"{}", EXPECTED_TYPE "nothing"},
        {"{\"type\":null}", EXPECTED_TYPE "nothing"},
        {"{\"type\":\"upsert\"}", EXPECTED_TYPE "\"upsert\""},
        {"{\"type\":\"\"}", EXPECTED_TYPE "\"\""},
        {"{\"type\":7}", EXPECTED_TYPE "7"},
        {"{\"type\":\"ping\",\"metadata\":[]}", "metadata: expected an object, got an array"},
        {"{\"type\":\"auth\"}", "token: missing, auth needs it: expected a string"},
        {"{\"type\":\"auth\",\"token\":5}", "token: expected a string, got 5"},
        {"{\"type\":\"sync\",\"collection\":\"a/b\"}", EXPECTED_NAME "\"a/b\""},
        {"{\"type\":\"sync\",\"collection\":\"..\"}", EXPECTED_NAME "\"..\""},
        {"{\"type\":\"sync\",\"collection\":{}}", EXPECTED_NAME "an object"},
        {DELETE_C "\"recordId\":\"a/b\"}", EXPECTED_ID "\"a/b\""},
        {DELETE_C "\"recordId\":\"a\\u0000\"}", EXPECTED_ID "\"a\\u0000\""},
        {DELETE_C "\"recordId\":\"a\\u0085\"}", EXPECTED_ID "\"a\\u0085\""},
        {DELETE_C "\"recordId\":\"a\\u002fb\"}", EXPECTED_ID "\"a\\u002fb\""},
        {DELETE_C "\"recordId\":\"\"}", EXPECTED_ID "\"\""},
        {DELETE_C "\"recordId\":12}", EXPECTED_ID "12"},
        {DELETE_C "\"recordId\":\"r\",\"timestamp\":5}",
         "timestamp: expected an ISO 8601 time such as \"2026-11-22T18:17:00.000Z\", got 5"},
        {DELETE_C "\"recordId\":\"r\",\"timestamp\":\"yesterday\"}",
         "timestamp: expected an ISO 8601 time such as \"2026-11-22T18:17:00.000Z\", got \"yesterday\""},
        {DELETE_C "\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"\"}}",
         "metadata.mutationId: expected a string of 1 to 128 bytes, got \"\""},
        {DELETE_C "\"recordId\":\"r\",\"metadata\":{\"mutationId\":1}}",
         "metadata.mutationId: expected a string of 1 to 128 bytes, got 1"},
        {DELETE_C "\"recordId\":\"r\",\"metadata\":{\"baseVersion\":\"1\"}}",
         "metadata.baseVersion: " EXPECTED_UNSIGNED "\"1\""},
        {DELETE_C "\"recordId\":\"r\",\"metadata\":{\"ifVersion\":-1}}", "metadata.ifVersion: " EXPECTED_UNSIGNED "-1"},
        {"{\"type\":\"sync\",\"collection\":\"c\",\"metadata\":{\"since\":1.0}}",
         "metadata.since: " EXPECTED_UNSIGNED "1.0"},
        {"{\"type\":\"sync\",\"collection\":\"c\",\"metadata\":{\"since\":9223372036854775808}}",
         "metadata.since: " EXPECTED_UNSIGNED "9223372036854775808"},
        {"{\"type\":\"sync\",\"collection\":\"c\",\"metadata\":{\"limit\":true}}",
         "metadata.limit: " EXPECTED_UNSIGNED "true"},
        {"{\"type\":\"sync\",\"collection\":\"c\",\"metadata\":{\"epoch\":1}}",
         "metadata.epoch: expected a string, got 1"},
        {"{\"type\":\"subscribe\",\"collection\":\"c\",\"metadata\":{\"sync\":\"false\"}}",
         "metadata.sync: expected true or false, got \"false\""},
        {"{\"type\":\"subscribe\",\"collection\":\"c\",\"metadata\":{\"updates\":\"all\"}}",
         "metadata.updates: expected \"delta\" or \"full\", got \"all\""},
        {"{\"type\":\"insert\",\"collection\":\"c\",\"recordId\":\"r\"}",
         "data: missing, insert needs it: expected an object"},
        {"{\"type\":\"update\",\"collection\":\"c\",\"recordId\":\"r\",\"data\":[]}",
         "data: expected an object, got an array"},
        {"{\"type\":\"update\",\"collection\":\"c\",\"recordId\":\"r\",\"data\":\"{}\"}",
         "data: expected an object, got \"{}\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        decode_bad(cases[i][0], cases[i][1]);
}
END_TEST

START_TEST(long_values_are_cut)
{
    decode_bad(DELETE_C "\"recordId\":\"12345678901234567890123456789012345678\xC3\xA9/901234567890\"}",
               EXPECTED_ID "\"12345678901234567890123456789012345678...");
    decode_bad(DELETE_C "\"recordId\":\"1234567890123456789012345678901234567\xC3\xA9/901234567890\"}",
               EXPECTED_ID "\"1234567890123456789012345678901234567\xC3\xA9...");
}
END_TEST

static void assert_limit(const char *before, size_t n, const char *after, bool good)
{
    char json[512], text[256];
    memset(text, 'x', n);
    text[n] = '\0';
    snprintf(json, sizeof(json), "%s%s%s", before, text, after);
    ck_assert_msg((decode_at(json, "") == MQSYNC_OK) == good, "%s", json);
}

START_TEST(lengths)
{
    assert_limit("{\"type\":\"sync\",\"collection\":\"", 64, "\"}", true);
    assert_limit("{\"type\":\"sync\",\"collection\":\"", 65, "\"}", false);
    assert_limit(DELETE_C "\"recordId\":\"", 128, "\"}", true);
    assert_limit(DELETE_C "\"recordId\":\"", 129, "\"}", false);
    assert_limit(DELETE_C "\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"", 128, "\"}}", true);
    assert_limit(DELETE_C "\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"", 129, "\"}}", false);
    /* the limit is on what the string stands for */
    assert_limit(DELETE_C "\"recordId\":\"\\u0041", 127, "\"}", true);
    assert_limit(DELETE_C "\"recordId\":\"\\u0041", 128, "\"}", false);
}
END_TEST

START_TEST(not_json)
{
    static const char *const cases[] = {
        "",
        " ",
        "{",
        "{\"type\":\"ping\"",
        "{\"type\":\"ping\"}}",
        "{\"type\":\"ping\",}",
        "{'type':'ping'}",
        "{\"type\":\"ping\",\"type\":\"ping\"}",
        "{\"type\":\"ping\",\"x\":\"\xFF\"}",
        "{\"type\":\"ping\",\"x\":\"\\ud800\"}",
        "{\"type\":\"ping\",\"data\":{\"a\":1,\"\\u0061\":2}}",
        "{\"type\":\"ping\",\"x\":01}",
        "{\"type\":\"ping\",\"recordId\":\"r",
        "{\"type\":\"ping\",\"recordId\":\"r\xFF\",\"metadata\":{\"mutationId\":\"\\ud800\"}}",
        "{\"type\":\"ping\",\"recordId\":,\"metadata\":}",
        "{\"type\":\"ping\",\"data\":{\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"m\"}}",
        "{\"type\":\"ping\",\"recordId\":[\"r\",\"metadata\":[{\"mutationId\":\"m\"",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_msg(decode_at(cases[i], "todos") == MQSYNC_INVALID_MESSAGE, "%s", cases[i]);
        ck_assert(error.text[0]);
        assert_slice(m.collection, "todos");
        ck_assert_uint_eq(m.record_id.n + m.mutation_id.n, 0);
    }
}
END_TEST

START_TEST(failures_can_be_addressed)
{
    static const char *const cases[] = {
        "{\"type\":\"upsert\",\"collection\":\"c\",\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"m\"}}",
        "{\"collection\":\"c\",\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"m\"}}",
        "{\"type\":\"insert\",\"metadata\":{\"mutationId\":\"m\"},\"collection\":\"c\",\"recordId\":\"r\",\"data\":7}",
        DELETE_C "\"recordId\":\"r\",\"timestamp\":\"x\",\"metadata\":{\"baseVersion\":\"x\",\"mutationId\":\"m\"}}",
        /* no JSON, or none that is taken */
        DELETE_C "\"recordId\":\"r\",\"data\":{\"a\":1,\"a\":2},\"metadata\":{\"mutationId\":\"m\"}}",
        DELETE_C
        "\"x\":\"\\ud800\",\"recordId\":\"r\",\"metadata\":{\"x\":\"\xFF\",\"mutationId\":\"\\u006d\",\"x\":1}}",
        DELETE_C "\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"m\"},\"data\":{\"a\":01},\"timestamp\":\"20",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_int_eq(decode_at(cases[i], ""), MQSYNC_INVALID_MESSAGE);
        assert_slice(m.collection, "c");
        assert_slice(m.record_id, "r");
        assert_slice(m.mutation_id, "m");
    }
    ck_assert_int_eq(
        decode_at("{\"type\":\"delete\",\"collection\":\"..\",\"recordId\":\"r\",\"metadata\":{\"mutationId\":\"\"}}",
                  ""),
        MQSYNC_INVALID_MESSAGE);
    ck_assert_uint_eq(m.collection.n + m.mutation_id.n, 0);
    assert_slice(m.record_id, "r");
    ck_assert_ptr_nonnull(strstr(error.text, "collection"));
}
END_TEST

START_TEST(error_is_optional)
{
    ck_assert_int_eq(mqsync_message_decode(MQSYNC_SLICE("{\"type\":5}"), MQSYNC_SLICE(""), &scratch, &m, NULL),
                     MQSYNC_INVALID_MESSAGE);
    ck_assert_int_eq(mqsync_message_decode(MQSYNC_SLICE("{"), MQSYNC_SLICE(""), &scratch, &m, NULL),
                     MQSYNC_INVALID_MESSAGE);
}
END_TEST

START_TEST(short_form_data)
{
    struct mqsync_slice minified = MQSYNC_SLICE("{\"a\":\" \",\"n\":1.50}"), data = MQSYNC_SLICE("untouched");
    ck_assert_int_eq(mqsync_data_decode(minified, &scratch, &data, &error), MQSYNC_OK);
    ck_assert_ptr_eq(data.p, minified.p);
    ck_assert_uint_eq(data.n, minified.n);

    static const char *const spaced[] = {" {\"a\":1}", "{\"a\":1}\n", "{ \"a\" :1}", "{\"a\":\t1}\r\n"};
    for (size_t i = 0; i < sizeof(spaced) / sizeof(spaced[0]); i++) {
        ck_assert_int_eq(mqsync_data_decode(mqsync_slice_str(spaced[i]), &scratch, &data, &error), MQSYNC_OK);
        assert_slice(data, "{\"a\":1}");
    }

    data = MQSYNC_SLICE("untouched");
    ck_assert_int_eq(mqsync_data_decode(MQSYNC_SLICE("[1]"), &scratch, &data, &error), MQSYNC_INVALID_MESSAGE);
    ck_assert_str_eq(error.text, "data: expected an object, got an array");
    ck_assert_int_eq(mqsync_data_decode(MQSYNC_SLICE(" 17 "), &scratch, &data, &error), MQSYNC_INVALID_MESSAGE);
    ck_assert_str_eq(error.text, "data: expected an object, got 17");
    ck_assert_int_eq(mqsync_data_decode(MQSYNC_SLICE(""), &scratch, &data, &error), MQSYNC_INVALID_MESSAGE);
    ck_assert_int_eq(mqsync_data_decode(MQSYNC_SLICE("{\"a\":1,\"a\":2}"), &scratch, &data, &error),
                     MQSYNC_INVALID_MESSAGE);
    assert_slice(data, "untouched");
}
END_TEST

/* --- encoding ----------------------------------------------------------------------------------------------------- */

START_TEST(event)
{
    struct mqsync_event e = {.op = MQSYNC_INSERT,
                             .collection = MQSYNC_SLICE("todos"),
                             .record_id = MQSYNC_SLICE("r1"),
                             .data = MQSYNC_SLICE("{\"a\":1.0}"),
                             .timestamp_ms = TIME_MS,
                             .version = 1,
                             .seq = UINT64_MAX};
    mqsync_event_encode(&out, &e);
    assert_encoded(&out, "{\"type\":\"insert\",\"collection\":\"todos\",\"recordId\":\"r1\",\"data\":{\"a\":1.0},"
                         "\"timestamp\":\"" TIME
                         "\",\"metadata\":{\"version\":1,\"userId\":null,\"seq\":18446744073709551615}}");

    mqsync_buf_clear(&out);
    e.op = MQSYNC_UPDATE;
    e.user = MQSYNC_SLICE("ana");
    e.mutation_id = MQSYNC_SLICE("m-1");
    e.conflict = true;
    mqsync_event_encode(&out, &e);
    assert_encoded(&out, "{\"type\":\"update\",\"collection\":\"todos\",\"recordId\":\"r1\",\"data\":{\"a\":1.0},"
                         "\"timestamp\":\"" TIME "\",\"metadata\":{\"version\":1,\"userId\":\"ana\","
                         "\"seq\":18446744073709551615,\"mutationId\":\"m-1\",\"conflict\":true}}");

    mqsync_buf_clear(&out);
    e = (struct mqsync_event){
        .op = MQSYNC_DELETE, .collection = MQSYNC_SLICE("c"), .record_id = MQSYNC_SLICE("r"), .version = 2, .seq = 3};
    mqsync_event_encode(&out, &e);
    assert_encoded(
        &out, "{\"type\":\"delete\",\"collection\":\"c\",\"recordId\":\"r\",\"timestamp\":\"1970-01-01T00:00:00.000Z\","
              "\"metadata\":{\"version\":2,\"userId\":null,\"seq\":3}}");
}
END_TEST

START_TEST(event_seq)
{
    static const char *const others[] = {
        "",
        "x",
        "{}",
        "[{\"a\":1,\"seq\":2}]",
        "{\"type\":\"pong\"}",
        "{\"a\":\"\\\",\\\"seq\\\":1\"}",
        "{\"seq\":1}",
        "{\"a\":1,\"seq\":\"1\"}",
        "{\"a\":1,\"seq\":[1,2]}",
        "{\"a\":1,\"seq\":1.5}",
        "{\"a\":1,\"seq\":-1}",
        "{\"a\":1,\"seq\":1",
    };
    struct mqsync_event e = {.op = MQSYNC_UPDATE,
                             .collection = MQSYNC_SLICE("c"),
                             .record_id = MQSYNC_SLICE(",\"seq\":1"),
                             .data = MQSYNC_SLICE("{\"a\":1,\"seq\":2,\"metadata\":{\"version\":1,\"seq\":3}}"),
                             .version = 17,
                             .seq = 4711,
                             .user = MQSYNC_SLICE("u,\"seq\":5{\"version\":6")};
    uint64_t seq = 0, version = 0;

    for (int i = 0; i < 4; i++) {
        mqsync_buf_clear(&out);
        e.mutation_id = i & 1 ? MQSYNC_SLICE("m\\\",\"seq\":6,\\") : (struct mqsync_slice){NULL, 0};
        e.conflict = i & 2;
        mqsync_event_encode(&out, &e);
        ck_assert(mqsync_event_seq(mqsync_buf_slice(&out), &seq));
        ck_assert_uint_eq(seq, 4711);
        ck_assert(mqsync_event_version(mqsync_buf_slice(&out), &version));
        ck_assert_uint_eq(version, 17);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        ck_assert_msg(!mqsync_event_seq(mqsync_slice_str(others[i]), &seq), "%s", others[i]);
}
END_TEST

START_TEST(encoders_append)
{
    mqsync_buf_add_str(&out, "x");
    mqsync_plain_encode(&out, "pong", MQSYNC_SLICE(""));
    mqsync_plain_encode(&out, "pong", MQSYNC_SLICE(""));
    assert_slice(mqsync_buf_slice(&out), "x{\"type\":\"pong\"}{\"type\":\"pong\"}");
}
END_TEST

START_TEST(texts_are_escaped)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"plain text, 16 b", "plain text, 16 b"},
        {"quote\"", "quote\\\""},
        {"\"2345678", "\\\"2345678"},
        {"1234567\"", "1234567\\\""},
        {"123456789\\", "123456789\\\\"},
        {"\\", "\\\\"},
        {"tab\tnl\n", "tab\\tnl\\n"},
        {"\x1F", "\\u001f"},
        {" \x7F~!#[]", " \x7F~!#[]"},
        {"caf\xC3\xA9\"", "caf\xC3\xA9\\\""},
        {"bad\xFF\xC3(", "bad\xEF\xBF\xBD\xEF\xBF\xBD("},
        {"cut\xE2\x82", "cut\xEF\xBF\xBD\xEF\xBF\xBD"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[256];
        struct mqsync_slice text = mqsync_slice_str(cases[i].text);
        mqsync_buf_clear(&out);
        mqsync_ack_encode(&out, MQSYNC_SLICE("c"), text, text, 1, 2, false);
        snprintf(expected, sizeof(expected),
                 "{\"type\":\"ack\",\"collection\":\"c\",\"recordId\":\"%s\",\"metadata\":{\"mutationId\":\"%s\","
                 "\"version\":1,"
                 "\"seq\":2}}",
                 cases[i].json, cases[i].json);
        assert_encoded(&out, expected);
    }

    /* each byte at each place of a word and beyond it, against the plain way to write a string */
    for (unsigned c = 0; c < 0x80; c++) {
        for (size_t at = 0; at < 11; at++) {
            char text[11] = "abcdefghij";
            struct mqsync_buf plain = {0};
            text[10] = 'k';
            text[at] = (char)c;
            struct mqsync_slice s = {text, sizeof(text)};
            mqsync_buf_add_str(&plain, "{\"type\":\"unsubscribed\",\"collection\":");
            mqsync_json_add_string(&plain, s);
            mqsync_buf_add(&plain, "}", 2);
            mqsync_buf_clear(&out);
            mqsync_plain_encode(&out, "unsubscribed", s);
            assert_encoded(&out, plain.p);
            mqsync_buf_free(&plain);
        }
    }
}
END_TEST

START_TEST(ack)
{
    mqsync_ack_encode(&out, MQSYNC_SLICE("todos"), MQSYNC_SLICE("r1"), MQSYNC_SLICE("m1"), 7, 42, false);
    assert_encoded(&out, "{\"type\":\"ack\",\"collection\":\"todos\",\"recordId\":\"r1\","
                         "\"metadata\":{\"mutationId\":\"m1\",\"version\":7,\"seq\":42}}");
    mqsync_buf_clear(&out);
    mqsync_ack_encode(&out, MQSYNC_SLICE("todos"), MQSYNC_SLICE("r1"), MQSYNC_SLICE("m1"), 7, 42, true);
    assert_encoded(&out, "{\"type\":\"ack\",\"collection\":\"todos\",\"recordId\":\"r1\","
                         "\"metadata\":{\"mutationId\":\"m1\",\"version\":7,\"seq\":42,\"conflict\":true}}");
    mqsync_buf_clear(&out);
    mqsync_ack_encode(&out, MQSYNC_SLICE("todos"), MQSYNC_SLICE("r1"), (struct mqsync_slice){NULL, 0}, 7, 42, false);
    assert_encoded(&out, "{\"type\":\"ack\",\"collection\":\"todos\",\"recordId\":\"r1\","
                         "\"metadata\":{\"version\":7,\"seq\":42}}");
}
END_TEST

START_TEST(codes_of_errors)
{
    for (int code = MQSYNC_AUTH_FAILED; code <= MQSYNC_CONFLICT; code++) {
        struct mqsync_error e = {.code = (enum mqsync_code)code, .text = "\"code\":\"CONFLICT\""};
        mqsync_buf_clear(&out);
        mqsync_error_encode(&out, &e, MQSYNC_SLICE("c"), MQSYNC_SLICE("r"), MQSYNC_SLICE("m"), false, 0);
        ck_assert_int_eq(mqsync_error_read(mqsync_buf_slice(&out)), code);
    }
    ck_assert_int_eq(mqsync_error_read(MQSYNC_SLICE("{\"type\":\"pong\",\"code\":\"CONFLICT\"}")), MQSYNC_OK);
    ck_assert_int_eq(mqsync_error_read(MQSYNC_SLICE("{\"type\":\"error\",\"code\":\"OTHER\"}")), MQSYNC_OK);
    ck_assert_int_eq(mqsync_error_read(MQSYNC_SLICE("{\"type\":\"error\",\"code\":")), MQSYNC_OK);
}
END_TEST

START_TEST(errors)
{
    struct mqsync_error e = {.code = MQSYNC_CONFLICT, .text = "ifVersion: expected \"7\""};
    struct mqsync_slice none = {NULL, 0};
    mqsync_error_encode(&out, &e, MQSYNC_SLICE("c"), MQSYNC_SLICE("r"), MQSYNC_SLICE("m"), true, 0);
    assert_encoded(&out,
                   "{\"type\":\"error\",\"error\":\"ifVersion: expected \\\"7\\\"\",\"code\":\"CONFLICT\",\"metadata\":"
                   "{\"collection\":\"c\",\"recordId\":\"r\",\"mutationId\":\"m\",\"version\":0}}");
    mqsync_buf_clear(&out);
    e = (struct mqsync_error){.code = MQSYNC_INVALID_MESSAGE, .text = "no"};
    mqsync_error_encode(&out, &e, none, none, none, false, 9);
    assert_encoded(&out, "{\"type\":\"error\",\"error\":\"no\",\"code\":\"INVALID_MESSAGE\",\"metadata\":{}}");
    mqsync_buf_clear(&out);
    mqsync_error_encode(&out, &e, none, none, MQSYNC_SLICE("m"), true, 9);
    assert_encoded(&out, "{\"type\":\"error\",\"error\":\"no\",\"code\":\"INVALID_MESSAGE\",\"metadata\":"
                         "{\"mutationId\":\"m\",\"version\":9}}");
    mqsync_buf_clear(&out);
    mqsync_error_encode(&out, &e, none, MQSYNC_SLICE("r"), none, false, 0);
    assert_encoded(
        &out, "{\"type\":\"error\",\"error\":\"no\",\"code\":\"INVALID_MESSAGE\",\"metadata\":{\"recordId\":\"r\"}}");
}
END_TEST

START_TEST(subscribed)
{
    mqsync_subscribed_encode(&out, MQSYNC_SLICE("todos"), 3, 12, MQSYNC_SLICE("9f"), false);
    assert_encoded(&out, "{\"type\":\"subscribed\",\"collection\":\"todos\",\"metadata\":{\"recordCount\":3,\"seq\":12,"
                         "\"epoch\":\"9f\"}}");
    mqsync_buf_clear(&out);
    mqsync_subscribed_encode(&out, MQSYNC_SLICE("todos"), 3, 12, MQSYNC_SLICE("9f"), true);
    assert_encoded(&out, "{\"type\":\"subscribed\",\"collection\":\"todos\",\"metadata\":{\"recordCount\":3,\"seq\":12,"
                         "\"epoch\":\"9f\",\"updates\":\"full\"}}");
}
END_TEST

START_TEST(plain)
{
    mqsync_plain_encode(&out, "unsubscribed", MQSYNC_SLICE("todos"));
    assert_encoded(&out, "{\"type\":\"unsubscribed\",\"collection\":\"todos\"}");
    mqsync_buf_clear(&out);
    mqsync_plain_encode(&out, "authenticated", (struct mqsync_slice){NULL, 0});
    assert_encoded(&out, "{\"type\":\"authenticated\"}");
}
END_TEST

/* --- pages -------------------------------------------------------------------------------------------------------- */

static struct mqsync_page page;

static bool add(const char *id, const char *data, bool deleted)
{
    return mqsync_page_add(&page, mqsync_slice_str(id), mqsync_slice_str(data), 2, TIME_MS, deleted);
}

START_TEST(page_full)
{
    mqsync_page_begin(&page, MQSYNC_SLICE("todos"));
    ck_assert(add("r1", "{\"a\":1}", false));
    ck_assert(add("r\"2", "{}", false));
    mqsync_page_end(&page, TIME_MS, 9, MQSYNC_SLICE("e1"), true, false, 2);
    assert_encoded(&page.out,
                   "{\"type\":\"sync\",\"collection\":\"todos\",\"data\":{\"records\":["
                   "{\"id\":\"r1\",\"data\":{\"a\":1},\"version\":2,\"updatedAt\":\"" TIME "\"},"
                   "{\"id\":\"r\\\"2\",\"data\":{},\"version\":2,\"updatedAt\":\"" TIME "\"}]},"
                   "\"timestamp\":\"" TIME "\",\"metadata\":{\"seq\":9,\"epoch\":\"e1\",\"full\":true,\"more\":false,"
                   "\"total\":2}}");

    mqsync_page_begin(&page, MQSYNC_SLICE("todos"));
    ck_assert(add("gone", "", true));
    mqsync_page_end(&page, TIME_MS, 9, MQSYNC_SLICE("e1"), true, true, 5);
    assert_encoded(&page.out,
                   "{\"type\":\"sync\",\"collection\":\"todos\",\"data\":{\"records\":[],\"deleted\":["
                   "{\"id\":\"gone\",\"version\":2,\"updatedAt\":\"" TIME "\"}]},"
                   "\"timestamp\":\"" TIME "\",\"metadata\":{\"seq\":9,\"epoch\":\"e1\",\"full\":true,\"more\":true,"
                   "\"total\":5}}");
    mqsync_page_free(&page);
}
END_TEST

START_TEST(page_incremental)
{
    mqsync_page_begin(&page, MQSYNC_SLICE("c"));
    mqsync_page_end(&page, TIME_MS, 0, MQSYNC_SLICE("e1"), false, false, 0);
    assert_encoded(&page.out,
                   "{\"type\":\"sync\",\"collection\":\"c\",\"data\":{\"records\":[],\"deleted\":[]},"
                   "\"timestamp\":\"" TIME "\",\"metadata\":{\"seq\":0,\"epoch\":\"e1\",\"full\":false,\"more\":false,"
                   "\"total\":0}}");

    /* live and deleted ones may come in any order */
    mqsync_page_begin(&page, MQSYNC_SLICE("c"));
    ck_assert(add("d1", "", true));
    ck_assert(add("r1", "{}", false));
    ck_assert(add("d2", "", true));
    mqsync_page_end(&page, TIME_MS, 7, MQSYNC_SLICE("e1"), false, false, 3);
    assert_encoded(&page.out,
                   "{\"type\":\"sync\",\"collection\":\"c\",\"data\":{\"records\":["
                   "{\"id\":\"r1\",\"data\":{},\"version\":2,\"updatedAt\":\"" TIME "\"}],\"deleted\":["
                   "{\"id\":\"d1\",\"version\":2,\"updatedAt\":\"" TIME "\"},"
                   "{\"id\":\"d2\",\"version\":2,\"updatedAt\":\"" TIME "\"}]},"
                   "\"timestamp\":\"" TIME "\",\"metadata\":{\"seq\":7,\"epoch\":\"e1\",\"full\":false,\"more\":false,"
                   "\"total\":3}}");

    /* a page begun again has none of the last one's entries */
    mqsync_page_begin(&page, MQSYNC_SLICE("c"));
    ck_assert_uint_eq(page.records_n + page.deleted_n, 0);
    mqsync_page_end(&page, TIME_MS, 8, MQSYNC_SLICE("e1"), false, false, 0);
    ck_assert_ptr_nonnull(memmem(page.out.p, page.out.n, "{\"records\":[],\"deleted\":[]}", 27));
    mqsync_page_free(&page);
}
END_TEST

START_TEST(page_entries)
{
    mqsync_page_begin(&page, MQSYNC_SLICE("c"));
    for (unsigned i = 0; i < MQSYNC_PAGE_MAX_ENTRIES; i++)
        ck_assert(add("r", "{}", i % 2));
    ck_assert(!add("r", "{}", false));
    ck_assert(!add("r", "{}", true));
    ck_assert_uint_eq(page.records_n + page.deleted_n, MQSYNC_PAGE_MAX_ENTRIES);
    mqsync_page_free(&page);
}
END_TEST

/* An object of exactly n bytes; good until the next call. */
static const char *object_of(size_t n)
{
    static char text[2 * MQSYNC_PAGE_MAX_BYTES];
    memset(text, 'x', n);
    memcpy(text, "{\"a\":\"", 6);
    memcpy(text + n - 2, "\"}", 3);
    return text;
}

START_TEST(page_bytes)
{
    static const char longest_epoch[] = "ffffffff-ffff-ffff-ffff-ffffffffffff";
    struct mqsync_slice epoch = mqsync_slice_str(longest_epoch);
    unsigned n = 0;
    mqsync_page_begin(&page, MQSYNC_SLICE("c"));
    while (add("r", object_of(3000), n % 3 == 0))
        n++;
    struct mqsync_page before = page;
    ck_assert(!add("r", object_of(MQSYNC_PAGE_MAX_BYTES), false));
    ck_assert_uint_eq(page.out.n, before.out.n);
    ck_assert_uint_eq(page.deleted.n, before.deleted.n);
    ck_assert_uint_eq(page.records_n + page.deleted_n, n);
    mqsync_page_end(&page, TIME_MS, UINT64_MAX, epoch, false, false, UINT64_MAX);
    ck_assert_uint_le(page.out.n, MQSYNC_PAGE_MAX_BYTES);
    ck_assert_uint_ge(page.out.n, MQSYNC_PAGE_MAX_BYTES - 4096);
    struct mqsync_json_info info;
    ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&page.out), &info, &error), MQSYNC_OK);

    /* a single larger record is a page */
    mqsync_page_begin(&page, MQSYNC_SLICE("c"));
    ck_assert(add("r", object_of(MQSYNC_PAGE_MAX_BYTES + 1), false));
    ck_assert(!add("r", "{}", false));
    ck_assert(!add("r", "", true));
    mqsync_page_end(&page, TIME_MS, 1, epoch, true, true, 2);
    ck_assert_int_eq(mqsync_json_check(mqsync_buf_slice(&page.out), &info, &error), MQSYNC_OK);
    mqsync_page_free(&page);
}
END_TEST

START_TEST(page_failed_memory)
{
    mqsync_page_begin(&page, MQSYNC_SLICE("c"));
    page.deleted.failed = true;
    mqsync_page_end(&page, TIME_MS, 1, MQSYNC_SLICE("e"), true, false, 0);
    ck_assert(page.out.failed);
    mqsync_page_free(&page);
    mqsync_page_free(&page);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("message");
    const TTest *const all[] = {
        every_type,
        whole_write,
        whole_subscribe,
        null_is_absent,
        irrelevant_fields,
        collection_from_topic,
        escapes_and_space,
        scratch_does_not_move,
        data_is_not_copied,
        fields_at_their_place,
        wrong_fields,
        long_values_are_cut,
        lengths,
        not_json,
        failures_can_be_addressed,
        error_is_optional,
        short_form_data,
        event,
        event_seq,
        encoders_append,
        texts_are_escaped,
        ack,
        errors,
        codes_of_errors,
        subscribed,
        plain,
        page_full,
        page_incremental,
        page_entries,
        page_bytes,
        page_failed_memory,
    };
    tcase_add_checked_fixture(tests, setup, teardown);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        tcase_add_test(tests, all[i]);
    return run_tests("message", tests);
}
