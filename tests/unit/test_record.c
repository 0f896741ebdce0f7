/* SPDX-License-Identifier: BSD-3-Clause */
#include "record.h"
#include "unit.h"

static uint64_t random_state = 42;

static uint64_t random_u64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static struct mqsync_change some_change(uint64_t version)
{
    return (struct mqsync_change){.fingerprint = 11,
                                  .sent_ms = INT64_MIN,
                                  .arrived_ms = 5000,
                                  .effective_ms = 5000,
                                  .version = version,
                                  .seq = version + 100,
                                  .op = MQSYNC_UPDATE};
}

static struct mqsync_record some_record(void)
{
    struct mqsync_record r = {.version = 3,
                              .seq = 103,
                              .updated_ms = 5000,
                              .user = MQSYNC_SLICE("ana"),
                              .data = MQSYNC_SLICE("{\"a\":1}"),
                              .history_n = 2};
    r.history[0] = some_change(2);
    r.history[0].mutation = 77;
    r.history[1] = some_change(3);
    return r;
}

static bool same_change(const struct mqsync_change *a, const struct mqsync_change *b)
{
    return a->fingerprint == b->fingerprint && a->mutation == b->mutation && a->sent_ms == b->sent_ms &&
           a->arrived_ms == b->arrived_ms && a->effective_ms == b->effective_ms && a->version == b->version &&
           a->seq == b->seq && a->op == b->op && a->zoneless == b->zoneless && a->created == b->created;
}

/* The first field in which they differ; NULL: none. One assertion for a record: each is a system call or two. */
static const char *difference(const struct mqsync_record *a, const struct mqsync_record *b)
{
    if (a->version != b->version || a->seq != b->seq || a->updated_ms != b->updated_ms || a->deleted != b->deleted)
        return "head";
    if (!mqsync_slice_equal(a->user, b->user))
        return "user";
    if (!mqsync_slice_equal(a->data, b->data))
        return "data";
    for (unsigned i = 0; i < a->history_n && i < b->history_n; i++) {
        if (!same_change(&a->history[i], &b->history[i]))
            return "history";
    }
    for (unsigned i = 0; i < a->formers_n && i < b->formers_n; i++) {
        if (a->formers[i].user != b->formers[i].user || a->formers[i].seq != b->formers[i].seq)
            return "formers";
    }
    if (a->history_n != b->history_n)
        return "history_n";
    return a->formers_n != b->formers_n ? "formers_n" : NULL;
}

static struct mqsync_buf encode(const struct mqsync_record *r)
{
    struct mqsync_buf stored = {0};
    mqsync_record_encode(&stored, r);
    ck_assert(!stored.failed);
    return stored;
}

static bool decodes(struct mqsync_slice stored)
{
    struct mqsync_record r, before;
    struct mqsync_error error = {.code = MQSYNC_OK};
    memset(&r, 0xA5, sizeof(r));
    before = r;
    if (mqsync_record_decode(stored, &r, &error) == MQSYNC_OK)
        return true;
    ck_assert_int_eq(error.code, MQSYNC_SERVER_ERROR);
    ck_assert_str_ne(error.text, "");
    ck_assert_msg(memcmp(&r, &before, sizeof(r)) == 0, "a refused record has been written to");
    return false;
}

static void random_record(struct mqsync_record *r, struct mqsync_slice bytes)
{
    uint64_t bits = random_u64();
    r->version = random_u64() >> (bits & 63);
    r->seq = random_u64() >> (bits >> 6 & 63);
    r->updated_ms = (int64_t)random_u64();
    r->deleted = (bits >> 12) % 4 == 0;
    r->user = (struct mqsync_slice){bytes.p, (bits >> 16) % (MQSYNC_USER_MAX + 1)};
    r->data = (struct mqsync_slice){bytes.p, r->deleted ? 0 : 1 + (bits >> 32) % bytes.n};
    r->history_n = 1 + (unsigned)((bits >> 48) % MQSYNC_HISTORY_MAX);
    for (unsigned i = 0; i < r->history_n; i++) {
        uint64_t b = random_u64();
        bool last = i + 1 == r->history_n && b & 1;
        r->history[i] = (struct mqsync_change){
            .fingerprint = random_u64(),
            .mutation = b & 2 ? random_u64() : 0,
            .sent_ms = b & 4 ? (int64_t)random_u64() : INT64_MIN,
            .arrived_ms = (int64_t)random_u64(),
            .effective_ms = last ? r->updated_ms : (int64_t)random_u64(),
            .version = last ? r->version : random_u64(),
            .seq = last ? r->seq : random_u64(),
            .op = (enum mqsync_op)(b >> 8 & 0xFF) % 3,
            .zoneless = b & 8,
            .created = b & 16,
        };
    }
    r->formers_n = (bits >> 20) % 2 ? (unsigned)((bits >> 21) % (MQSYNC_FORMERS_MAX + 1)) : 0;
    for (unsigned i = 0; i < r->formers_n; i++)
        r->formers[i] = (struct mqsync_former){random_u64(), random_u64()};
}

START_TEST(comes_back_as_it_was)
{
    static char bytes[2048];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)random_u64();
    for (int round = 0; round < 5000; round++) {
        struct mqsync_record r, back;
        struct mqsync_record_head head;
        random_record(&r, (struct mqsync_slice){bytes, sizeof(bytes)});
        struct mqsync_buf stored = encode(&r);
        ck_assert_int_eq(mqsync_record_decode(mqsync_buf_slice(&stored), &back, NULL), MQSYNC_OK);
        ck_assert_pstr_eq(difference(&r, &back), NULL);
        ck_assert_int_eq(mqsync_record_decode_head(mqsync_buf_slice(&stored), &head), MQSYNC_OK);
        ck_assert_uint_eq(head.version, r.version);
        ck_assert_uint_eq(head.seq, r.seq);
        ck_assert_int_eq(head.updated_ms, r.updated_ms);
        ck_assert_int_eq(head.deleted, r.deleted);
        mqsync_buf_free(&stored);
    }
}
END_TEST

START_TEST(is_appended_and_small)
{
    struct mqsync_record r = some_record();
    r.history[0] = r.history[1];
    r.history_n = 1;
    struct mqsync_buf stored = {0};
    mqsync_buf_add_str(&stored, "before");
    mqsync_record_encode(&stored, &r);
    ck_assert_int_eq(memcmp(stored.p, "before", 6), 0);
    ck_assert(decodes((struct mqsync_slice){stored.p + 6, stored.n - 6}));
    ck_assert_int_eq(stored.p[6], MQSYNC_RECORD_FORMAT);
    ck_assert_uint_le(stored.n - 6, r.user.n + r.data.n + 56);
    mqsync_buf_free(&stored);
}
END_TEST

START_TEST(former_owners_make_another_format)
{
    struct mqsync_record r = some_record();
    struct mqsync_buf without = encode(&r), with = {0};
    r.formers_n = 2;
    r.formers[0] = (struct mqsync_former){5, 101};
    r.formers[1] = (struct mqsync_former){6, 103};
    mqsync_record_encode(&with, &r);
    ck_assert_int_eq(without.p[0], MQSYNC_RECORD_FORMAT);
    ck_assert_int_eq(with.p[0], MQSYNC_RECORD_FORMAT_FORMERS);
    ck_assert_uint_eq(with.n, without.n + 32);
    mqsync_buf_free(&without);
    mqsync_buf_free(&with);
}
END_TEST

START_TEST(any_cut_and_any_addition_is_refused)
{
    struct mqsync_record r = some_record();
    r.formers_n = (unsigned)_i;
    memset(r.formers, 1, sizeof(r.formers));
    struct mqsync_buf stored = encode(&r);
    ck_assert(decodes(mqsync_buf_slice(&stored)));
    for (size_t n = 0; n < stored.n; n++)
        ck_assert_msg(!decodes((struct mqsync_slice){stored.p, n}), "cut to %zu", n);
    mqsync_buf_add_char(&stored, '}');
    ck_assert(!decodes(mqsync_buf_slice(&stored)));
    mqsync_buf_free(&stored);
}
END_TEST

/* Offsets of the head as record.c documents it. */
START_TEST(what_cannot_be_is_refused)
{
    static const struct {
        const char *what;
        size_t at;
        char byte;
    } cases[] = {
        {"a format without former owners that has some", 3, 1},
        {"a format with former owners that has none", 0, 2},
        {"another format", 0, 3},
        {"an unknown flag", 1, 2},
        {"a tombstone with data", 1, 1},
        {"no history", 2, 0},
        {"a longer history", 2, 33},
        {"a history that is not there", 2, 3},
        {"a shorter history", 2, 1},
        {"shorter data", 4, 6},
        {"longer data", 4, 8},
        {"no data", 4, 0},
        {"huge data", 7, 127},
        {"a shorter user", 8, 2},
        {"a longer user", 8, 4},
        {"a huge user", 11, -1},
        {"an unknown operation", 36, 3 | 8},
        {"an unknown flag of a change", 36, -128},
        {"a missing mutation", 36, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mqsync_record r = some_record();
        struct mqsync_buf stored = encode(&r);
        stored.p[cases[i].at] = cases[i].byte;
        ck_assert_msg(!decodes(mqsync_buf_slice(&stored)), "%s", cases[i].what);
        mqsync_buf_free(&stored);
    }
}
END_TEST

START_TEST(lengths_that_make_up_for_each_other_are_refused)
{
    struct mqsync_record r = some_record();
    struct mqsync_buf stored = encode(&r);
    stored.p[4] = 10; /* data 7 + 3 */
    stored.p[8] = 0;  /* user 3 - 3: this one is a record again, of nobody */
    ck_assert(decodes(mqsync_buf_slice(&stored)));
    stored.p[4] = 0;
    stored.p[8] = 10;
    ck_assert(!decodes(mqsync_buf_slice(&stored)));
    mqsync_buf_free(&stored);
}
END_TEST

START_TEST(too_many_former_owners_are_refused)
{
    struct mqsync_record r = some_record();
    memset(r.formers, 1, sizeof(r.formers));
    r.formers_n = MQSYNC_FORMERS_MAX;
    struct mqsync_buf stored = encode(&r);
    ck_assert(decodes(mqsync_buf_slice(&stored)));
    stored.p[3] = MQSYNC_FORMERS_MAX + 1;
    stored.p[4] = 0; /* room for another one: data 7 bytes, user 3 */
    stored.p[8] = 0;
    ck_assert(!decodes(mqsync_buf_slice(&stored)));
    stored.p[3] = 0;
    ck_assert(!decodes(mqsync_buf_slice(&stored)));
    mqsync_buf_free(&stored);
}
END_TEST

/* What the head says already must be left out of the history: one record has one stored form. */
START_TEST(another_form_of_the_same_is_refused)
{
    enum { FIRST_CHANGE = 36, ITS_VERSION = FIRST_CHANGE + 33, ITS_SEQ = FIRST_CHANGE + 41 };
    struct mqsync_record r = some_record();
    struct mqsync_buf stored = encode(&r);
    stored.p[ITS_VERSION] = 3;
    ck_assert(decodes(mqsync_buf_slice(&stored)));
    stored.p[ITS_SEQ] = 103;
    ck_assert(!decodes(mqsync_buf_slice(&stored)));
    mqsync_buf_free(&stored);
}
END_TEST

START_TEST(a_record_that_cannot_be_read_is_not_written)
{
    static char user[MQSYNC_USER_MAX + 1];
    struct mqsync_record cases[7];
    for (int i = 0; i < 7; i++)
        cases[i] = some_record();
    cases[1].history_n = 0;
    cases[2].history_n = MQSYNC_HISTORY_MAX + 1;
    cases[3].deleted = true;
    cases[4].data.n = 0;
    cases[5].user = (struct mqsync_slice){user, sizeof(user)};
    cases[6].formers_n = MQSYNC_FORMERS_MAX + 1;
    for (int i = 0; i < 7; i++) {
        struct mqsync_buf stored = {0};
        mqsync_record_encode(&stored, &cases[i]);
        ck_assert_msg(stored.failed == (i > 0), "case %d", i);
        ck_assert((stored.n == 0) == (i > 0));
        mqsync_buf_free(&stored);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("record");
    tcase_add_test(tests, comes_back_as_it_was);
    tcase_add_test(tests, is_appended_and_small);
    tcase_add_test(tests, former_owners_make_another_format);
    tcase_add_loop_test(tests, any_cut_and_any_addition_is_refused, 0, 3);
    tcase_add_test(tests, what_cannot_be_is_refused);
    tcase_add_test(tests, lengths_that_make_up_for_each_other_are_refused);
    tcase_add_test(tests, too_many_former_owners_are_refused);
    tcase_add_test(tests, another_form_of_the_same_is_refused);
    tcase_add_test(tests, a_record_that_cannot_be_read_is_not_written);
    return run_tests("record", tests);
}
