/* SPDX-License-Identifier: BSD-3-Clause */
#include "buf.h"
#include "error.h"
#include "unit.h"

START_TEST(adds)
{
    struct mqsync_buf b = {0};

    mqsync_buf_add(&b, NULL, 0);
    mqsync_buf_add_slice(&b, (struct mqsync_slice){NULL, 0});
    mqsync_buf_add_str(&b, "ab");
    mqsync_buf_add_char(&b, 'c');
    mqsync_buf_add_slice(&b, MQSYNC_SLICE("d\0e"));
    mqsync_buf_add_u64(&b, 0);
    mqsync_buf_add_u64(&b, UINT64_MAX);
    ck_assert(mqsync_slice_equal(mqsync_buf_slice(&b), MQSYNC_SLICE("abcd\0e018446744073709551615")));
    ck_assert(!b.failed);
    mqsync_buf_free(&b);
    ck_assert(!b.p && !b.n && !b.cap);
}
END_TEST

START_TEST(grows)
{
    struct mqsync_buf b = {0};

    for (int i = 0; i < 100000; i++)
        mqsync_buf_add_char(&b, (char)i);
    ck_assert_uint_eq(b.n, 100000);
    for (int i = 0; i < 100000; i++)
        ck_assert(b.p[i] == (char)i);

    size_t cap = b.cap;
    mqsync_buf_clear(&b);
    ck_assert(b.n == 0 && b.cap == cap);
    ck_assert_ptr_eq(mqsync_buf_reserve(&b, cap), b.p);
    ck_assert_uint_eq(b.cap, cap);
    mqsync_buf_free(&b);
}
END_TEST

START_TEST(reserve_nothing)
{
    struct mqsync_buf b = {0};

    ck_assert_ptr_nonnull(mqsync_buf_reserve(&b, 0));
    mqsync_buf_free(&b);
}
END_TEST

START_TEST(failure_sticks)
{
    struct mqsync_buf b = {0};

    mqsync_buf_add_str(&b, "kept");
    ck_assert_ptr_null(mqsync_buf_reserve(&b, SIZE_MAX));
    ck_assert(b.failed);
    mqsync_buf_add_char(&b, 'x');
    ck_assert_ptr_null(mqsync_buf_reserve(&b, 1));
    ck_assert(mqsync_slice_equal(mqsync_buf_slice(&b), MQSYNC_SLICE("kept")));
    mqsync_buf_clear(&b);
    mqsync_buf_add_char(&b, 'x');
    ck_assert(!b.failed && b.n == 1);
    mqsync_buf_free(&b);
}
END_TEST

START_TEST(code_names)
{
    ck_assert_str_eq(mqsync_code_name(MQSYNC_AUTH_FAILED), "AUTH_FAILED");
    ck_assert_str_eq(mqsync_code_name(MQSYNC_UNAUTHORIZED), "UNAUTHORIZED");
    ck_assert_str_eq(mqsync_code_name(MQSYNC_INVALID_MESSAGE), "INVALID_MESSAGE");
    ck_assert_str_eq(mqsync_code_name(MQSYNC_COLLECTION_NOT_FOUND), "COLLECTION_NOT_FOUND");
    ck_assert_str_eq(mqsync_code_name(MQSYNC_RECORD_NOT_FOUND), "RECORD_NOT_FOUND");
    ck_assert_str_eq(mqsync_code_name(MQSYNC_RATE_LIMIT_EXCEEDED), "RATE_LIMIT_EXCEEDED");
    ck_assert_str_eq(mqsync_code_name(MQSYNC_SERVER_ERROR), "SERVER_ERROR");
    ck_assert_str_eq(mqsync_code_name(MQSYNC_CONFLICT), "CONFLICT");
}
END_TEST

START_TEST(fails)
{
    struct mqsync_error e;

    ck_assert_int_eq(mqsync_fail(NULL, MQSYNC_CONFLICT, "%d", 1), MQSYNC_CONFLICT);
    ck_assert_int_eq(mqsync_fail(&e, MQSYNC_CONFLICT, "version is %d", 7), MQSYNC_CONFLICT);
    ck_assert_int_eq(e.code, MQSYNC_CONFLICT);
    ck_assert_str_eq(e.text, "version is 7");
    mqsync_fail(&e, MQSYNC_SERVER_ERROR, "data: %s", e.text);
    ck_assert_str_eq(e.text, "data: version is 7");
}
END_TEST

START_TEST(tames_control_characters)
{
    char text[] = "a\x1b[1m\n\x7f \xc2\x9b"
                  "1m \xc2\x80\xc2\x9f \xc2\xa0\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \xc2";
    mqsync_text_tame(text);
    ck_assert_str_eq(text, "a?[1m?? ??1m ???? \xc2\xa0\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \xc2");
}
END_TEST

/* A text of one byte less than there is room fits; a longer one loses whole characters only. */
START_TEST(cut_at_a_character)
{
    static const char *const characters[] = {"x", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    const char *character = characters[_i / 8];
    struct mqsync_error e;
    size_t length = strlen(character), head = sizeof(e.text) - 11 + (size_t)(_i % 8);
    char text[sizeof(e.text) + 200];

    memset(text, 'a', head);
    size_t n = head;
    while (n < sizeof(e.text) + 50) {
        memcpy(text + n, character, length);
        n += length;
    }
    text[n] = '\0';
    mqsync_fail(&e, MQSYNC_SERVER_ERROR, "%s", text);
    ck_assert_uint_eq(strlen(e.text), head + (sizeof(e.text) - 1 - head) / length * length);
    ck_assert(memcmp(e.text, text, strlen(e.text)) == 0);

    text[head] = '\0';
    mqsync_fail(&e, MQSYNC_SERVER_ERROR, "%s", text);
    ck_assert_str_eq(e.text, text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("buf and error");

    tcase_add_test(tests, adds);
    tcase_add_test(tests, grows);
    tcase_add_test(tests, reserve_nothing);
    tcase_add_test(tests, failure_sticks);
    tcase_add_test(tests, code_names);
    tcase_add_test(tests, fails);
    tcase_add_test(tests, tames_control_characters);
    tcase_add_loop_test(tests, cut_at_a_character, 0, 32);
    return run_tests("buf and error", tests);
}
