/* SPDX-License-Identifier: BSD-3-Clause */
#include <check.h>
#include <stdlib.h>

#include "access.h"

static struct mqsync_config *config;

static void setup(void)
{
    static const char text[] =
        "{\"collections\":{"
        "\"open\":{},"
        "\"notes\":{\"read\":[\"user:ana\",\"role:staff\"],\"write\":[\"role:staff\"],\"owner\":\"ownerId\"},"
        "\"closed\":{\"read\":[],\"write\":[]}}}";
    struct mqsync_error e;

    ck_assert_msg(mqsync_config_parse(MQSYNC_SLICE(text), NULL, &config, &e) == MQSYNC_OK, "%s", e.text);
}

static void teardown(void)
{
    mqsync_config_free(config);
}

static const struct mqsync_slice staff[] = {MQSYNC_SLICE("guest"), MQSYNC_SLICE("staff")};
static const struct mqsync_slice other_roles[] = {MQSYNC_SLICE("staf"), MQSYNC_SLICE("staff2"), MQSYNC_SLICE("")};

static enum mqsync_right right(const char *collection, bool write, const char *user, const struct mqsync_slice *roles,
                               size_t roles_n)
{
    const struct mqsync_collection_config *c = mqsync_config_collection(config, mqsync_slice_str(collection));
    struct mqsync_identity who = {mqsync_slice_str(user), roles, roles_n};
    return c ? mqsync_access(c, write, &who) : MQSYNC_RIGHT_NONE;
}

START_TEST(who_may_read_and_write)
{
    static const struct {
        const char *collection, *user;
        const struct mqsync_slice *roles;
        size_t roles_n;
        enum mqsync_right read, write;
    } rows[] = {
        {"open", "", NULL, 0, MQSYNC_RIGHT_ALL, MQSYNC_RIGHT_ALL},
        {"open", "ana", NULL, 0, MQSYNC_RIGHT_ALL, MQSYNC_RIGHT_ALL},
        {"notes", "ana", NULL, 0, MQSYNC_RIGHT_ALL, MQSYNC_RIGHT_OWN},
        {"notes", "an", NULL, 0, MQSYNC_RIGHT_OWN, MQSYNC_RIGHT_OWN},
        {"notes", "ana2", NULL, 0, MQSYNC_RIGHT_OWN, MQSYNC_RIGHT_OWN},
        {"notes", "user:ana", NULL, 0, MQSYNC_RIGHT_OWN, MQSYNC_RIGHT_OWN},
        {"notes", "staff", NULL, 0, MQSYNC_RIGHT_OWN, MQSYNC_RIGHT_OWN},
        {"notes", "bo", staff, 2, MQSYNC_RIGHT_ALL, MQSYNC_RIGHT_ALL},
        {"notes", "bo", other_roles, 3, MQSYNC_RIGHT_OWN, MQSYNC_RIGHT_OWN},
        {"notes", "", NULL, 0, MQSYNC_RIGHT_NONE, MQSYNC_RIGHT_NONE},
        {"notes", "", staff, 2, MQSYNC_RIGHT_ALL, MQSYNC_RIGHT_ALL},
        {"closed", "ana", staff, 2, MQSYNC_RIGHT_NONE, MQSYNC_RIGHT_NONE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        ck_assert_msg(right(rows[i].collection, false, rows[i].user, rows[i].roles, rows[i].roles_n) == rows[i].read,
                      "read, row %zu", i);
        ck_assert_msg(right(rows[i].collection, true, rows[i].user, rows[i].roles, rows[i].roles_n) == rows[i].write,
                      "write, row %zu", i);
    }
}
END_TEST

START_TEST(whose_record_it_is)
{
    static const struct {
        const char *user, *data;
        bool owns;
    } rows[] = {
        {"ana", "{\"ownerId\":\"ana\"}", true},
        {"ana", "{\"a\":{\"ownerId\":\"bo\"},\"ownerId\":\"\\u0061na\"}", true},
        {"ana", "{\"owner\\u0049d\":\"ana\"}", true},
        {"ana", "{\"ownerId\":\"Ana\"}", false},
        {"ana", "{\"ownerId\":\"ana \"}", false},
        {"ana", "{\"ownerId\":[\"ana\"]}", false},
        {"ana", "{\"ownerId\":null}", false},
        {"ana", "{\"a\":{\"ownerId\":\"ana\"}}", false},
        {"ana", "{}", false},
        {"ana", "", false},
        {"", "{\"ownerId\":\"\"}", false},
        {"42", "{\"ownerId\":42}", true},
        {"42", "{\"ownerId\":42.0}", false},
        {"true", "{\"ownerId\":true}", false},
    };
    const struct mqsync_collection_config *notes = mqsync_config_collection(config, MQSYNC_SLICE("notes"));
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        ck_assert_msg(mqsync_access_owns(notes, mqsync_slice_str(rows[i].user), mqsync_slice_str(rows[i].data)) ==
                          rows[i].owns,
                      "row %zu", i);
    ck_assert(!mqsync_access_owns(mqsync_config_collection(config, MQSYNC_SLICE("open")), MQSYNC_SLICE("ana"),
                                  MQSYNC_SLICE("{\"ownerId\":\"ana\"}")));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access");
    TCase *tc = tcase_create("access");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, who_may_read_and_write);
    tcase_add_test(tc, whose_record_it_is);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
