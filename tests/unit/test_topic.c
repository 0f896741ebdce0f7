/* SPDX-License-Identifier: BSD-3-Clause */
#include "topic.h"
#include "unit.h"

#define CONTROL_C1 "\xC2\x85"

static struct mqsync_topic parse(const char *root, const char *topic)
{
    /* a topic that ends where its allocation does, so that sanitizers see a read past it; kept until the next call */
    static char *copy;
    size_t n = strlen(topic);
    struct mqsync_topic t;
    free(copy);
    copy = malloc(n ? n : 1);
    ck_assert_ptr_nonnull(copy);
    if (n)
        memcpy(copy, topic, n);
    mqsync_topic_parse(mqsync_slice_str(root), (struct mqsync_slice){copy, n}, &t);
    return t;
}

static void assert_slice(struct mqsync_slice got, const char *expected)
{
    ck_assert_msg(mqsync_slice_equal(got, mqsync_slice_str(expected)), "got \"%.*s\", expected \"%s\"", (int)got.n,
                  got.n ? got.p : "", expected);
}

static const char *repeat(char c, size_t n)
{
    static char text[256];
    memset(text, c, n);
    text[n] = '\0';
    return text;
}

START_TEST(collection_names)
{
    static const char *const good[] = {"todos", "A", "z9_.-", "...", ".a", "..a", "-", "_"};
    static const char *const bad[] = {"", ".", "..", "a b", "a/b", "a+", "#", "caf\xC3\xA9", "a\n", "a\"b", "a:"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert_msg(mqsync_collection_valid(mqsync_slice_str(good[i])), "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!mqsync_collection_valid(mqsync_slice_str(bad[i])), "%s", bad[i]);
    ck_assert(mqsync_collection_valid(mqsync_slice_str(repeat('a', 64))));
    ck_assert(!mqsync_collection_valid(mqsync_slice_str(repeat('a', 65))));
    ck_assert(!mqsync_collection_valid((struct mqsync_slice){NULL, 0}));
    ck_assert(!mqsync_collection_valid(MQSYNC_SLICE("a\0b")));
}
END_TEST

START_TEST(record_ids)
{
    static const char *const good[] = {"1",
                                       "a b",
                                       "\"quoted\"",
                                       "back\\slash",
                                       "$SYS",
                                       "caf\xC3\xA9",
                                       "\xC2\xA0",
                                       "\xE2\x82\xAC",
                                       "\xED\x9F\xBF",
                                       "\xEE\x80\x80",
                                       "\xF0\x90\x80\x80",
                                       "\xF4\x8F\xBF\xBD",
                                       "0123456789abcdef\xC3\xA9",
                                       "~",
                                       ".",
                                       ".."};
    static const char *const bad[] = {"",
                                      "a/b",
                                      "+",
                                      "a#",
                                      "a\tb",
                                      "\x1F",
                                      "\x7F",
                                      "\xC2\x80",
                                      CONTROL_C1,
                                      "\xC2\x9F",
                                      "\xEF\xB7\x90",     /* U+FDD0 */
                                      "\xEF\xBF\xBE",     /* U+FFFE */
                                      "\xF4\x8F\xBF\xBF", /* U+10FFFF */
                                      "\x80",
                                      "\xC3",
                                      "\xC0\xAF",
                                      "\xC1\xBF",
                                      "\xE0\x80\xAF",
                                      "\xE0\x9F\xBF",
                                      "\xE2\x82",
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xF9\x80\x80\x80",
                                      "\xFC\x80\x80\x80",
                                      "\xFF",
                                      "\xE2\x28\xA1",
                                      "\xC3\xA9/"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert_msg(mqsync_record_id_valid(mqsync_slice_str(good[i])), "good %zu", i);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!mqsync_record_id_valid(mqsync_slice_str(bad[i])), "bad %zu", i);
    ck_assert(mqsync_record_id_valid(mqsync_slice_str(repeat('a', 128))));
    ck_assert(!mqsync_record_id_valid(mqsync_slice_str(repeat('a', 129))));
    ck_assert(!mqsync_record_id_valid(MQSYNC_SLICE("a\0")));
    ck_assert(!mqsync_record_id_valid((struct mqsync_slice){NULL, 0}));
}
END_TEST

START_TEST(record_id_bytes)
{
    for (unsigned c = 0; c < 256; c++) {
        char id[] = {'a', (char)c, 'b'};
        bool expected = c >= 0x20 && c < 0x7F && c != '/' && c != '+' && c != '#';
        ck_assert_msg(mqsync_record_id_valid((struct mqsync_slice){id, 3}) == expected, "byte %u", c);
    }
}
END_TEST

START_TEST(roots)
{
    static const char *const good[] = {"sync", "a/b", "site-1/line_2/sync.v1", ".", "x"};
    static const char *const bad[] = {"", "/", "/a", "a/", "a//b", "a/+/b", "#", "a b", "$SYS", "\xC3\xA9"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert_msg(mqsync_root_valid(mqsync_slice_str(good[i])), "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!mqsync_root_valid(mqsync_slice_str(bad[i])), "%s", bad[i]);
    ck_assert(mqsync_root_valid(mqsync_slice_str(repeat('a', 64))));
    ck_assert(!mqsync_root_valid(mqsync_slice_str(repeat('a', 65))));
}
END_TEST

START_TEST(kinds)
{
    static const struct {
        const char *root, *topic;
        enum mqsync_topic_kind kind;
        const char *collection, *record_id;
        enum mqsync_op op;
    } cases[] = {
        {"sync", "sync/todos/cmd", MQSYNC_TOPIC_CMD, "todos", "", 0},
        {"sync", "sync/todos/cmd/1/insert", MQSYNC_TOPIC_CMD_SHORT, "todos", "1", MQSYNC_INSERT},
        {"sync", "sync/todos/cmd/1/update", MQSYNC_TOPIC_CMD_SHORT, "todos", "1", MQSYNC_UPDATE},
        {"sync", "sync/todos/cmd/caf\xC3\xA9/delete", MQSYNC_TOPIC_CMD_SHORT, "todos", "caf\xC3\xA9", MQSYNC_DELETE},
        {"sync", "sync/cmd/cmd/cmd/insert", MQSYNC_TOPIC_CMD_SHORT, "cmd", "cmd", MQSYNC_INSERT},
        {"a/b", "a/b/c/cmd", MQSYNC_TOPIC_CMD, "c", "", 0},
        {"a/b", "a/c/c/cmd", MQSYNC_TOPIC_OUTSIDE, "", "", 0},
        {"sync", "sync", MQSYNC_TOPIC_OUTSIDE, "", "", 0},
        {"sync", "synced/todos/cmd", MQSYNC_TOPIC_OUTSIDE, "", "", 0},
        {"sync", "Sync/todos/cmd", MQSYNC_TOPIC_OUTSIDE, "", "", 0},
        {"sync", "/sync/todos/cmd", MQSYNC_TOPIC_OUTSIDE, "", "", 0},
        {"sync", "", MQSYNC_TOPIC_OUTSIDE, "", "", 0},
        {"sync", "sync/", MQSYNC_TOPIC_OTHER, "", "", 0},
        {"sync", "sync/todos", MQSYNC_TOPIC_OTHER, "todos", "", 0},
        {"sync", "sync/todos/", MQSYNC_TOPIC_OTHER, "todos", "", 0},
        {"sync", "sync/todos/cmds", MQSYNC_TOPIC_OTHER, "todos", "", 0},
        {"sync", "sync/todos/CMD", MQSYNC_TOPIC_OTHER, "todos", "", 0},
        {"sync", "sync/todos//cmd", MQSYNC_TOPIC_OTHER, "todos", "", 0},
        {"sync", "sync/todos/evt/1", MQSYNC_TOPIC_SERVER, "todos", "", 0},
        {"sync", "sync/todos/rec/1", MQSYNC_TOPIC_SERVER, "todos", "", 0},
        {"sync", "sync/todos/re/c", MQSYNC_TOPIC_SERVER, "todos", "", 0},
        {"sync", "sync/todos/evt", MQSYNC_TOPIC_SERVER, "todos", "", 0},
        {"sync", "sync/todos/evt/1/2/3", MQSYNC_TOPIC_SERVER, "todos", "", 0},
        {"sync", "sync/no name/evt/1", MQSYNC_TOPIC_SERVER, "", "", 0},
        {"sync", "sync/../cmd", MQSYNC_TOPIC_BAD_CMD, "", "", 0},
        {"sync", "sync//cmd", MQSYNC_TOPIC_BAD_CMD, "", "", 0},
        {"sync", "sync/todos/cmd/", MQSYNC_TOPIC_BAD_CMD, "todos", "", 0},
        {"sync", "sync/todos/cmd/1", MQSYNC_TOPIC_BAD_CMD, "todos", "", 0},
        {"sync", "sync/todos/cmd/1/", MQSYNC_TOPIC_BAD_CMD, "todos", "1", 0},
        {"sync", "sync/todos/cmd/1/upsert", MQSYNC_TOPIC_BAD_CMD, "todos", "1", 0},
        {"sync", "sync/todos/cmd/1/insert/", MQSYNC_TOPIC_BAD_CMD, "todos", "1", 0},
        {"sync", "sync/todos/cmd/1/2/insert", MQSYNC_TOPIC_BAD_CMD, "todos", "1", 0},
        {"sync", "sync/todos/cmd//insert", MQSYNC_TOPIC_BAD_CMD, "todos", "", 0},
        {"sync", "sync/todos/cmd/" CONTROL_C1 "/insert", MQSYNC_TOPIC_BAD_CMD, "todos", "", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mqsync_topic t = parse(cases[i].root, cases[i].topic);
        ck_assert_msg(t.kind == cases[i].kind, "%s: kind %d", cases[i].topic, t.kind);
        ck_assert_msg((t.wrong != NULL) == (t.kind == MQSYNC_TOPIC_BAD_CMD), "%s: wrong", cases[i].topic);
        assert_slice(t.collection, cases[i].collection);
        assert_slice(t.record_id, cases[i].record_id);
        if (t.kind == MQSYNC_TOPIC_CMD_SHORT)
            ck_assert_int_eq(t.op, cases[i].op);
    }
}
END_TEST

START_TEST(what_is_wrong)
{
    ck_assert_ptr_nonnull(strstr(parse("sync", "sync/a b/cmd").wrong, "collection"));
    ck_assert_ptr_nonnull(strstr(parse("sync", "sync/todos/cmd/1").wrong, "cmd/{recordId}/{insert|update|delete}"));
    ck_assert_ptr_nonnull(strstr(parse("sync", "sync/todos/cmd/+/insert").wrong, "recordId"));
    ck_assert_ptr_nonnull(strstr(parse("sync", "sync/todos/cmd/1/put").wrong, "insert, update or delete"));
}
END_TEST

START_TEST(op_names)
{
    ck_assert_str_eq(mqsync_op_name(MQSYNC_INSERT), "insert");
    ck_assert_str_eq(mqsync_op_name(MQSYNC_UPDATE), "update");
    ck_assert_str_eq(mqsync_op_name(MQSYNC_DELETE), "delete");
}
END_TEST

START_TEST(client_levels)
{
    static const char *const cases[][2] = {
        {"", "_"},         {"dev-1", "dev-1"},       {"a/b+c#d", "a_b_c_d"}, {"t\tn\n\x7F", "t_n__"}, {"a b$", "a b$"},
        {CONTROL_C1, "_"}, {"\xC3\xA9", "\xC3\xA9"}, {"x\xC3", "x_"},        {"\xFF\xFE", "__"},
    };
    struct mqsync_buf out = {0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mqsync_buf_clear(&out);
        mqsync_topic_add_client(&out, mqsync_slice_str(cases[i][0]));
        assert_slice(mqsync_buf_slice(&out), cases[i][1]);
    }
    mqsync_topic_add_client(&out, (struct mqsync_slice){NULL, 0});
    assert_slice(mqsync_buf_slice(&out), "___");
    mqsync_buf_free(&out);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("topic");
    tcase_add_test(tests, collection_names);
    tcase_add_test(tests, record_ids);
    tcase_add_test(tests, record_id_bytes);
    tcase_add_test(tests, roots);
    tcase_add_test(tests, kinds);
    tcase_add_test(tests, what_is_wrong);
    tcase_add_test(tests, op_names);
    tcase_add_test(tests, client_levels);
    return run_tests("topic", tests);
}
