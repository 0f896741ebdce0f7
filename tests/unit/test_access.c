/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>

#include "access.h"
#include "unit.h"

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
        {"a\x7f", "{\"ownerId\":\"a\x7f\"}", false},
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

static void assert_owner(const char *data, const char *expected)
{
    struct mqsync_buf scratch = {0};
    struct mqsync_slice owner =
        mqsync_access_owner(mqsync_config_collection(config, MQSYNC_SLICE("notes")), mqsync_slice_str(data), &scratch);
    ck_assert_msg(mqsync_slice_equal(owner, mqsync_slice_str(expected)), "%s: %.*s", data, (int)owner.n, owner.p);
    ck_assert(!scratch.failed);
    mqsync_buf_free(&scratch);
}

START_TEST(whom_data_names)
{
    static char data[MQSYNC_USER_MAX + 64], name[MQSYNC_USER_MAX + 2];

    assert_owner("{\"ownerId\":\"ana\"}", "ana");
    assert_owner("{\"b\":1,\"ownerId\":\"\\u0061n\\u00e1\"}", "an\xC3\xA1");
    assert_owner("{\"ownerId\":-17}", "-17");
    assert_owner("{\"ownerId\":\"\"}", "");
    assert_owner("{\"ownerId\":{\"ownerId\":\"ana\"}}", "");
    assert_owner("{\"ownerId\":\"a\\u0000\"}", "");
    assert_owner("{\"ownerId\":\"a\\n\"}", "");
    assert_owner("{\"ownerId\":\"a\\uffff\"}", "");
    assert_owner("", "");
    memset(name, 'x', MQSYNC_USER_MAX + 1);
    snprintf(data, sizeof(data), "{\"ownerId\":\"%s\"}", name);
    assert_owner(data, "");
    name[MQSYNC_USER_MAX] = '\0';
    snprintf(data, sizeof(data), "{\"ownerId\":\"%s\"}", name);
    assert_owner(data, name);
}
END_TEST

/* --- former owners ------------------------------------------------------------------------------------------------ */

/* A record that has gone from hand to hand: data NULL deletes. */
static void hand(struct mqsync_record *r, uint64_t seq, const char *data)
{
    const struct mqsync_collection_config *notes = mqsync_config_collection(config, MQSYNC_SLICE("notes"));
    static struct mqsync_record next;
    struct mqsync_buf scratch[2] = {{0}, {0}};

    next.seq = seq;
    next.data = mqsync_slice_str(data);
    next.deleted = !data;
    mqsync_access_formers(r->seq ? r : NULL, mqsync_access_owner(notes, r->data, &scratch[0]),
                          mqsync_access_owner(notes, next.data, &scratch[1]), &next);
    *r = next;
    mqsync_buf_free(&scratch[0]);
    mqsync_buf_free(&scratch[1]);
}

static enum mqsync_sight sight(const char *user, const struct mqsync_record *r, uint64_t since)
{
    return mqsync_access_sight(mqsync_config_collection(config, MQSYNC_SLICE("notes")), mqsync_slice_str(user), r,
                               since);
}

START_TEST(what_an_owner_is_shown)
{
    static struct mqsync_record r;
    memset(&r, 0, sizeof(r));

    hand(&r, 10, "{\"ownerId\":\"ana\"}");
    ck_assert_uint_eq(r.formers_n, 0);
    ck_assert_int_eq(sight("ana", &r, 0), MQSYNC_SIGHT_RECORD);
    ck_assert_int_eq(sight("ana", &r, 10), MQSYNC_SIGHT_NONE);
    ck_assert_int_eq(sight("bo", &r, 0), MQSYNC_SIGHT_NONE);
    ck_assert_int_eq(sight("", &r, 0), MQSYNC_SIGHT_NONE);

    hand(&r, 20, "{\"ownerId\":\"bo\"}");
    hand(&r, 30, "{\"ownerId\":\"bo\",\"a\":1}");
    ck_assert_uint_eq(r.formers_n, 1);
    ck_assert_int_eq(sight("bo", &r, 0), MQSYNC_SIGHT_RECORD);
    ck_assert_int_eq(sight("ana", &r, 15), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("ana", &r, 19), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("ana", &r, 20), MQSYNC_SIGHT_NONE);
    ck_assert_int_eq(sight("cy", &r, 0), MQSYNC_SIGHT_NONE);

    hand(&r, 40, NULL);
    ck_assert_int_eq(sight("bo", &r, 35), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("ana", &r, 15), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("ana", &r, 25), MQSYNC_SIGHT_NONE);

    hand(&r, 50, "{\"ownerId\":\"ana\"}");
    ck_assert_uint_eq(r.formers_n, 1);
    ck_assert_int_eq(sight("ana", &r, 15), MQSYNC_SIGHT_RECORD);
    hand(&r, 60, "{\"ownerId\":null}");
    ck_assert_int_eq(sight("ana", &r, 55), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("bo", &r, 39), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("bo", &r, 40), MQSYNC_SIGHT_NONE);
}
END_TEST

START_TEST(the_oldest_former_owner_is_forgotten)
{
    static struct mqsync_record r;
    char data[MQSYNC_FORMERS_MAX + 2][32];
    memset(&r, 0, sizeof(r));

    for (int i = 0; i < MQSYNC_FORMERS_MAX + 2; i++) {
        snprintf(data[i], sizeof(data[i]), "{\"ownerId\":%d}", i);
        hand(&r, 1 + (uint64_t)i, data[i]);
    }
    ck_assert_uint_eq(r.formers_n, MQSYNC_FORMERS_MAX);
    ck_assert_int_eq(sight("0", &r, 0), MQSYNC_SIGHT_NONE);
    ck_assert_int_eq(sight("1", &r, 0), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("16", &r, 0), MQSYNC_SIGHT_GONE);
    ck_assert_int_eq(sight("17", &r, 0), MQSYNC_SIGHT_RECORD);
    hand(&r, 100, data[1]);
    hand(&r, 101, data[2]);
    ck_assert_uint_eq(r.formers_n, MQSYNC_FORMERS_MAX);
    ck_assert_uint_eq(r.formers[MQSYNC_FORMERS_MAX - 1].seq, 101);
    ck_assert_uint_eq(r.formers[MQSYNC_FORMERS_MAX - 1].user, mqsync_record_user_hash(MQSYNC_SLICE("1")));
    ck_assert_uint_eq(r.formers[MQSYNC_FORMERS_MAX - 2].seq, 100);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("access");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, who_may_read_and_write);
    tcase_add_test(tc, whose_record_it_is);
    tcase_add_test(tc, whom_data_names);
    tcase_add_test(tc, what_an_owner_is_shown);
    tcase_add_test(tc, the_oldest_former_owner_is_forgotten);
    return run_tests("access", tc);
}
