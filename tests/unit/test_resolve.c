/* SPDX-License-Identifier: BSD-3-Clause */
/* The write rule of docs/protocol.md, sentence by sentence: stories of writes to one record, kept between them as the
 * store would keep it. test_resolve_model.c does the same with random writes. */
#include "json.h"
#include "resolve.h"
#include "unit.h"

#include <stdio.h>

enum { T0_SECONDS = 1700000000, STEPS_MAX = 12 };
#define T0 ((int64_t)T0_SECONDS * 1000)

/* Times are milliseconds after T0. */
struct step {
    const char *op; /* "insert", ... with data; NULL ends a story */
    const char *data;
    int64_t arrives;
    enum mqsync_time_kind kind;
    int64_t sent;
    const char *user; /* NULL: anonymous */
    const char *mutation;
    int64_t base, if_version; /* + 1; 0: none */
    int64_t reconnected;      /* 0: not */
    /* what is expected */
    enum mqsync_outcome_kind outcome;
    uint64_t version;
    const char *record; /* the data afterwards; "" a tombstone or nothing; NULL: not looked at */
    const char *event;  /* "insert {...}"; NULL: not looked at */
    bool conflict, send_winner;
    enum mqsync_code code;
    int64_t updated; /* the record's; 0: not looked at */
    bool others;     /* REPEATED: known by its mutationId alone */
};

#define SENT(ms) .kind = MQSYNC_TIME_EXACT, .sent = (ms)
#define ZONELESS(ms) .kind = MQSYNC_TIME_ZONELESS, .sent = (ms)
#define BASE(v) .base = (v) + 1
#define IF(v) .if_version = (v) + 1
#define ACCEPTED(v) .outcome = MQSYNC_ACCEPTED, .version = (v)
#define REPEATED(v) .outcome = MQSYNC_REPEATED, .version = (v)
#define LOST(v) .outcome = MQSYNC_LOST, .version = (v), .conflict = true, .send_winner = true
#define REFUSED(c, v) .outcome = MQSYNC_REFUSED, .code = MQSYNC_##c, .version = (v)

struct story {
    const char *name;
    enum mqsync_strategy strategy;
    bool upsert;
    const char *field;
    size_t max_record_bytes;
    uint64_t floor;
    struct step steps[STEPS_MAX];
};

/* One record and its store. */
struct place {
    struct mqsync_rules rules;
    struct mqsync_slice field;
    uint64_t floor, seq;
    bool used;
    struct mqsync_record record;
    struct mqsync_buf stored, out;
    struct mqsync_outcome outcome;
};

static void place_init(struct place *p, const struct story *s)
{
    *p =
        (struct place){.rules = {.strategy = s->strategy, .upsert = s->upsert, .max_record_bytes = s->max_record_bytes},
                       .floor = s->floor};
    if (s->field) {
        p->field = mqsync_slice_str(s->field);
        p->rules.fields = &p->field;
        p->rules.fields_n = 1;
    }
}

static void place_fini(struct place *p)
{
    mqsync_buf_free(&p->stored);
    mqsync_buf_free(&p->out);
}

static void keep(struct place *p)
{
    struct mqsync_buf fresh = {0};
    mqsync_record_encode(&fresh, &p->outcome.next);
    ck_assert(!fresh.failed);
    mqsync_buf_free(&p->stored);
    p->stored = fresh;
    ck_assert_int_eq(mqsync_record_decode(mqsync_buf_slice(&p->stored), &p->record, NULL), MQSYNC_OK);
    p->used = true;
    p->seq += 3;
}

static enum mqsync_op op_of(const char *name)
{
    return *name == 'i' ? MQSYNC_INSERT : *name == 'u' ? MQSYNC_UPDATE : MQSYNC_DELETE;
}

static struct mqsync_write write_of(const struct step *s)
{
    return (struct mqsync_write){
        .op = op_of(s->op),
        .data = mqsync_slice_str(s->data),
        .time = {s->kind, T0 + s->sent},
        .arrived_ms = T0 + s->arrives,
        .user = mqsync_slice_str(s->user),
        .mutation_id = mqsync_slice_str(s->mutation),
        .has_base_version = s->base,
        .base_version = (uint64_t)(s->base - 1),
        .has_if_version = s->if_version,
        .if_version = (uint64_t)(s->if_version - 1),
        .reconnected_ms = s->reconnected ? T0 + s->reconnected : INT64_MAX,
    };
}

static void assert_text(struct mqsync_slice got, const char *expected, const char *where, const char *what)
{
    ck_assert_msg(mqsync_slice_equal(got, mqsync_slice_str(expected)), "%s: %s is %.*s, expected %s", where, what,
                  (int)got.n, got.n ? got.p : "", expected);
}

static void assert_event(const struct mqsync_outcome *o, const char *expected, const char *where)
{
    char text[512];
    snprintf(text, sizeof(text), "%s%s%.*s", mqsync_op_name(o->event), o->event_data.n ? " " : "", (int)o->event_data.n,
             o->event_data.n ? o->event_data.p : "");
    ck_assert_msg(strcmp(text, expected) == 0, "%s: event is %s, expected %s", where, text, expected);
}

static void assert_outcome(struct place *p, const struct step *s, const char *where)
{
    const struct mqsync_outcome *o = &p->outcome;
    ck_assert_msg(o->kind == s->outcome, "%s: outcome %d, expected %d: %s", where, o->kind, s->outcome, o->error.text);
    ck_assert_msg(o->same_content == (o->kind == MQSYNC_REPEATED && !s->others), "%s: whose content", where);
    ck_assert_msg(o->version == s->version, "%s: version %llu, expected %llu", where, (unsigned long long)o->version,
                  (unsigned long long)s->version);
    ck_assert_msg(o->kind == MQSYNC_REFUSED || o->was_conflict == s->conflict, "%s: was_conflict", where);
    ck_assert_msg(o->send_winner == s->send_winner, "%s: send_winner", where);
    ck_assert_msg(o->error.code == s->code, "%s: code %d: %s", where, o->error.code, o->error.text);
    ck_assert_msg((o->error.text[0] != '\0') == (s->code != MQSYNC_OK), "%s: text \"%s\"", where, o->error.text);
    if (s->event)
        assert_event(o, s->event, where);
}

/* Whatever is not accepted leaves the record as it is: nothing is kept. */
static void take(struct place *p, const struct step *s, const char *where)
{
    struct mqsync_write w = write_of(s);
    uint64_t old_version = p->used ? p->record.version : p->floor;
    int64_t old_updated = p->used ? p->record.updated_ms : INT64_MIN;
    mqsync_resolve(&p->rules, p->used ? &p->record : NULL, p->floor, p->seq + 3, &w, &p->out, &p->outcome);
    assert_outcome(p, s, where);
    if (p->outcome.kind == MQSYNC_ACCEPTED) {
        ck_assert_uint_eq(p->outcome.next.version, old_version + 1);
        ck_assert_uint_eq(p->outcome.next.seq, p->seq + 3);
        ck_assert_uint_eq(p->outcome.seq, p->seq + 3);
        ck_assert_int_ge(p->outcome.next.updated_ms, old_updated);
        ck_assert_int_eq(p->outcome.timestamp_ms, p->outcome.next.updated_ms);
        keep(p);
        assert_text(p->record.user, s->user ? s->user : "", where, "user");
    }
    if (s->record)
        assert_text(p->used ? p->record.data : (struct mqsync_slice){NULL, 0}, s->record, where, "record");
    ck_assert_msg(!s->updated || p->record.updated_ms == T0 + s->updated, "%s: updatedAt is %lld", where,
                  (long long)(p->record.updated_ms - T0));
}

static void run_stories(const struct story *stories, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct place p;
        place_init(&p, &stories[i]);
        for (size_t j = 0; j < STEPS_MAX && stories[i].steps[j].op; j++) {
            char where[160];
            snprintf(where, sizeof(where), "%s, step %zu", stories[i].name, j + 1);
            take(&p, &stories[i].steps[j], where);
        }
        place_fini(&p);
    }
}

#define RUN(stories) run_stories(stories, sizeof(stories) / sizeof((stories)[0]))

START_TEST(writes)
{
    static const struct story stories[] = {
        {.name = "insert, update, delete",
         .steps = {{"insert", "{\"a\":1,\"n\":null}", 10, ACCEPTED(1), .record = "{\"a\":1,\"n\":null}",
                    .event = "insert {\"a\":1,\"n\":null}", .updated = 10},
                   {"update", "{\"b\":12345678901234567890.10}", 20, ACCEPTED(2),
                    .record = "{\"a\":1,\"n\":null,\"b\":12345678901234567890.10}",
                    .event = "update {\"b\":12345678901234567890.10}"},
                   {"update", "{\"a\":null,\"zz\":null}", 30, ACCEPTED(3),
                    .record = "{\"n\":null,\"b\":12345678901234567890.10}", .event = "update {\"a\":null,\"zz\":null}"},
                   {"update", "{}", 40, ACCEPTED(4), .record = "{\"n\":null,\"b\":12345678901234567890.10}",
                    .event = "update {}", .updated = 40},
                   {"delete", NULL, 50, ACCEPTED(5), .record = "", .event = "delete", .updated = 50}}},
        {.name = "insert over what exists",
         .steps = {{"insert", "{\"a\":1,\"b\":2}", 10, ACCEPTED(1)},
                   {"insert", "{\"c\":3,\"a\":1}", 20, ACCEPTED(2), .record = "{\"c\":3,\"a\":1}",
                    .event = "update {\"c\":3,\"a\":1,\"b\":null}"}}},
        {.name = "nothing there",
         .steps = {{"update", "{\"a\":1}", 10, REFUSED(RECORD_NOT_FOUND, 0), .record = ""},
                   {"delete", NULL, 10, REFUSED(RECORD_NOT_FOUND, 0), .record = ""},
                   {"insert", "{}", 20, ACCEPTED(1), .record = "{}"}}},
        {.name = "nothing there any more",
         .steps = {{"insert", "{\"a\":1}", 10, ACCEPTED(1)},
                   {"delete", NULL, 20, ACCEPTED(2)},
                   {"update", "{\"a\":1}", 30, REFUSED(RECORD_NOT_FOUND, 0), .record = ""},
                   {"delete", NULL, 40, REFUSED(RECORD_NOT_FOUND, 0)}}},
        {.name = "upsert",
         .upsert = true,
         .steps = {{"delete", NULL, 5, REFUSED(RECORD_NOT_FOUND, 0)},
                   {"update", "{\"a\":1,\"b\":null}", 10, ACCEPTED(1), .record = "{\"a\":1}",
                    .event = "insert {\"a\":1}"},
                   {"update", "{\"c\":2}", 20, ACCEPTED(2), .record = "{\"a\":1,\"c\":2}", .event = "update {\"c\":2}"},
                   {"delete", NULL, 30, ACCEPTED(3)},
                   {"delete", NULL, 35, REFUSED(RECORD_NOT_FOUND, 0)},
                   {"update", "{\"d\":1,\"e\":null}", 40, ACCEPTED(4), .record = "{\"d\":1}",
                    .event = "insert {\"d\":1}"}}},
        {.name = "versions go on across delete and insert",
         .steps = {{"insert", "{}", 10, ACCEPTED(1)},
                   {"delete", NULL, 20, ACCEPTED(2)},
                   {"insert", "{\"a\":1}", 30, ACCEPTED(3), .record = "{\"a\":1}", .event = "insert {\"a\":1}"},
                   {"update", "{\"a\":2}", 40, ACCEPTED(4)}}},
        {.name = "a floor",
         .floor = 41,
         .steps = {{"update", "{}", 5, REFUSED(RECORD_NOT_FOUND, 0)},
                   {"insert", "{}", 10, ACCEPTED(42)},
                   {"update", "{}", 20, ACCEPTED(43)}}},
        {.name = "too large",
         .max_record_bytes = 20,
         .steps = {{"insert", "{\"a\":\"0123456789abc\"}", 10, REFUSED(INVALID_MESSAGE, 0), .record = ""},
                   {"insert", "{\"a\":\"0123456789ab\"}", 20, ACCEPTED(1)},
                   {"update", "{\"b\":1}", 30, REFUSED(INVALID_MESSAGE, 1), .record = "{\"a\":\"0123456789ab\"}"},
                   {"update", "{\"a\":null,\"b\":1}", 40, ACCEPTED(2), .record = "{\"b\":1}"},
                   {"delete", NULL, 50, ACCEPTED(3)}}},
        {.name = "a merge too large",
         .strategy = MQSYNC_MERGE_ARRAYS,
         .field = "t",
         .max_record_bytes = 20,
         .steps = {{"insert", "{\"t\":[\"aaaaaa\"]}", 10, ACCEPTED(1)},
                   {"update", "{\"t\":[\"bbbbbb\"]}", 20, SENT(5), REFUSED(INVALID_MESSAGE, 1),
                    .record = "{\"t\":[\"aaaaaa\"]}"}}},
    };
    RUN(stories);
}
END_TEST

START_TEST(names_the_limit)
{
    static const struct story story = {.max_record_bytes = 20};
    static const struct step step = {"insert", "{\"a\":\"0123456789abc\"}", 10, REFUSED(INVALID_MESSAGE, 0)};
    struct place p;
    place_init(&p, &story);
    take(&p, &step, "too large");
    ck_assert_str_eq(p.outcome.error.text, "data: the record would have 21 bytes, maxRecordBytes is 20");
    place_fini(&p);
}
END_TEST

START_TEST(if_version)
{
    static const struct story stories[] = {
        {.name = "must not exist",
         .steps = {{"insert", "{\"a\":1}", 10, IF(0), ACCEPTED(1)},
                   {"insert", "{\"a\":2}", 20, IF(0), REFUSED(CONFLICT, 1), .record = "{\"a\":1}"},
                   {"delete", NULL, 30, IF(2), REFUSED(CONFLICT, 1)},
                   {"delete", NULL, 30, IF(1), ACCEPTED(2)},
                   {"update", "{}", 35, IF(2), REFUSED(CONFLICT, 0)},
                   {"update", "{}", 35, IF(0), REFUSED(RECORD_NOT_FOUND, 0)},
                   {"insert", "{\"a\":3}", 40, IF(2), REFUSED(CONFLICT, 0)},
                   {"insert", "{\"a\":3}", 40, IF(0), ACCEPTED(3), .record = "{\"a\":3}"}}},
        {.name = "of nothing",
         .upsert = true,
         .steps = {{"insert", "{}", 10, IF(1), REFUSED(CONFLICT, 0)},
                   {"update", "{}", 10, IF(7), REFUSED(CONFLICT, 0)},
                   {"delete", NULL, 10, IF(1), REFUSED(CONFLICT, 0)},
                   {"update", "{}", 10, IF(0), ACCEPTED(1)}}},
        {.name = "strict whatever the strategy",
         .strategy = MQSYNC_CLIENT_WINS,
         .steps = {{"insert", "{\"a\":1}", 10, ACCEPTED(1)},
                   {"update", "{\"a\":2}", 20, IF(5), REFUSED(CONFLICT, 1), .record = "{\"a\":1}"},
                   {"update", "{\"a\":2}", 20, IF(1), ACCEPTED(2), .record = "{\"a\":2}"}}},
        {.name = "repeated before it is compared",
         .steps = {{"insert", "{}", 10, .mutation = "m1", IF(0), ACCEPTED(1)},
                   {"insert", "{}", 20, .mutation = "m1", IF(0), REPEATED(1)},
                   {"update", "{\"a\":1}", 30, SENT(29), IF(1), ACCEPTED(2)},
                   {"update", "{\"a\":1}", 40, SENT(29), IF(1), REPEATED(2)}}},
        {.name = "who knows the version is not late",
         .steps = {{"insert", "{\"a\":1}", 1000, ACCEPTED(1), .updated = 1000},
                   {"update", "{\"a\":2}", 1100, SENT(100), IF(1), ACCEPTED(2), .record = "{\"a\":2}", .updated = 1000},
                   {"update", "{\"a\":3}", 1200, SENT(100), IF(2), BASE(1), LOST(2)}}},
        {.name = "must not exist does not undo a later delete",
         .steps = {{"insert", "{\"a\":1}", 1000, ACCEPTED(1)},
                   {"delete", NULL, 2000, ACCEPTED(2)},
                   {"insert", "{\"a\":1}", 3000, SENT(500), IF(0), LOST(2), .record = ""}}},
    };
    RUN(stories);
}
END_TEST

/* The record {"a":1,"t":[1],"n":5,"n_updatedAt":...} of version 2 and time 1000; a write that conflicts. */
#define BEFORE "{\"a\":1,\"t\":[1],\"n\":5}"
#define SETUP                                                                                                          \
    {"insert", "{}", 900, .user = "ana", ACCEPTED(1)},                                                                 \
    {                                                                                                                  \
        "insert", BEFORE, 1000, .user = "ana", ACCEPTED(2), .updated = 1000                                            \
    }
#define WRITE "{\"a\":2,\"t\":[2],\"n\":7,\"z\":0}"
#define ALL_OF_IT "{\"a\":2,\"t\":[2],\"n\":7,\"z\":0}"

START_TEST(conflicts)
{
    static const struct {
        enum mqsync_strategy strategy;
        const char *field, *old, *late; /* the record afterwards for a write of an older, of a newer time */
    } cases[] = {
        {MQSYNC_LAST_WRITE_WINS, NULL, NULL, ALL_OF_IT},
        {MQSYNC_SERVER_WINS, NULL, NULL, NULL},
        {MQSYNC_CLIENT_WINS, NULL, ALL_OF_IT, ALL_OF_IT},
        {MQSYNC_MERGE_ARRAYS, "t", "{\"a\":1,\"t\":[2,1],\"n\":5}", "{\"a\":1,\"t\":[2,1],\"n\":5}"},
        {MQSYNC_SUM_NUMBERS, "n", "{\"a\":1,\"t\":[1],\"n\":12}", "{\"a\":1,\"t\":[1],\"n\":12}"},
        {MQSYNC_MAX_VALUE, "n", "{\"a\":1,\"t\":[1],\"n\":7}", "{\"a\":1,\"t\":[1],\"n\":7}"},
        {MQSYNC_MERGE_FIELDS, "a", "{\"a\":2,\"t\":[1],\"n\":5}", "{\"a\":2,\"t\":[1],\"n\":5}"},
        {MQSYNC_FIELD_LEVEL_LAST_WRITE_WINS, NULL, NULL, ALL_OF_IT},
        {MQSYNC_DEEP_MERGE, NULL, "{\"a\":1,\"t\":[2,1],\"n\":5,\"z\":0}", "{\"a\":1,\"t\":[2,1],\"n\":5,\"z\":0}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum mqsync_strategy strategy = cases[i].strategy;
        bool merges = strategy >= MQSYNC_MERGE_ARRAYS;
        for (int how = 0; how < 6; how++) {
            bool older = how < 4,
                 based = how >= 2; /* 0, 1: older; 2, 3: older with another base; 4, 5: newer with one */
            const char *expected = older ? cases[i].old : cases[i].late;
            struct story story = {.name = mqsync_strategy_name(strategy),
                                  .strategy = strategy,
                                  .field = cases[i].field,
                                  .steps = {SETUP,
                                            {.op = how % 2 ? "update" : "insert",
                                             .data = WRITE,
                                             .arrives = 2000,
                                             .kind = MQSYNC_TIME_EXACT,
                                             .sent = older ? 500 : 1500,
                                             .base = based ? 2 : 0,
                                             .user = "bob",
                                             .conflict = true,
                                             .send_winner = merges,
                                             .outcome = MQSYNC_ACCEPTED,
                                             .version = 3,
                                             .record = expected,
                                             .updated = older ? 1000 : 1500}}};
            struct step *last = &story.steps[2];
            if (!expected) {
                last->outcome = MQSYNC_LOST;
                last->version = 2;
                last->send_winner = true;
                last->record = BEFORE;
                last->updated = 1000;
            }
            run_stories(&story, 1);
        }
    }
}
END_TEST

START_TEST(no_conflict)
{
    for (int strategy = MQSYNC_LAST_WRITE_WINS; strategy <= MQSYNC_DEEP_MERGE; strategy++) {
        const struct story stories[] = {
            {.name = "newer",
             .strategy = (enum mqsync_strategy)strategy,
             .steps = {SETUP, {"insert", WRITE, 2000, SENT(1500), ACCEPTED(3), .record = WRITE, .updated = 1500}}},
            {.name = "equal times: the later arrival",
             .strategy = (enum mqsync_strategy)strategy,
             .steps = {SETUP, {"insert", WRITE, 2000, SENT(1000), ACCEPTED(3), .record = WRITE, .updated = 1000}}},
            {.name = "older on the current version",
             .strategy = (enum mqsync_strategy)strategy,
             .steps = {SETUP,
                       {"insert", WRITE, 2000, SENT(500), BASE(2), ACCEPTED(3), .record = WRITE, .updated = 1000},
                       {"delete", NULL, 2000, SENT(400), BASE(3), ACCEPTED(4), .record = "", .updated = 1000}}},
        };
        RUN(stories);
    }
}
END_TEST

START_TEST(conflicts_with_deletes)
{
    for (int s = MQSYNC_LAST_WRITE_WINS; s <= MQSYNC_DEEP_MERGE; s++) {
        enum mqsync_strategy strategy = (enum mqsync_strategy)s;
        struct story stories[] = {
            {.name = "an older delete", .steps = {SETUP, {"delete", NULL, 2000, SENT(500), LOST(2), .record = BEFORE}}},
            {.name = "a newer delete of another version",
             .steps = {SETUP,
                       {"delete", NULL, 2000, SENT(1500), BASE(1), ACCEPTED(3), .conflict = true, .record = "",
                        .updated = 1500}}},
            {.name = "an insert older than the deletion",
             .steps = {SETUP,
                       {"delete", NULL, 2000, ACCEPTED(3)},
                       {"insert", WRITE, 3000, SENT(1500), LOST(3), .record = ""}}},
            {.name = "an update older than the deletion",
             .upsert = true,
             .steps = {SETUP,
                       {"delete", NULL, 2000, ACCEPTED(3)},
                       {"update", WRITE, 3000, SENT(1500), LOST(3), .record = ""}}},
            {.name = "a newer insert of another version",
             .steps = {SETUP,
                       {"delete", NULL, 2000, ACCEPTED(3)},
                       {"insert", WRITE, 3000, SENT(2500), BASE(2), ACCEPTED(4), .conflict = true, .record = WRITE,
                        .event = "insert " WRITE}}},
            {.name = "an older insert on the tombstone's version",
             .steps = {SETUP,
                       {"delete", NULL, 2000, ACCEPTED(3)},
                       {"insert", WRITE, 3000, SENT(1500), BASE(3), ACCEPTED(4), .record = WRITE, .updated = 2000}}},
        };
        for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
            struct story *story = &stories[i];
            struct step *last = &story->steps[story->steps[3].op ? 3 : 2];
            story->strategy = strategy;
            if (strategy == MQSYNC_CLIENT_WINS && last->outcome == MQSYNC_LOST) {
                last->outcome = MQSYNC_ACCEPTED;
                last->version++;
                last->send_winner = false;
                last->record = NULL;
            }
            if (strategy == MQSYNC_SERVER_WINS && last->conflict && last->outcome == MQSYNC_ACCEPTED) {
                last->outcome = MQSYNC_LOST;
                last->version--;
                last->send_winner = true;
                last->record = NULL;
                last->event = NULL;
                last->updated = 0;
            }
            run_stories(story, 1);
        }
    }
}
END_TEST

START_TEST(merges)
{
    static const struct story stories[] = {
        {.name = "the event holds what changed",
         .strategy = MQSYNC_MERGE_ARRAYS,
         .field = "t",
         .steps = {SETUP,
                   {"update", "{\"t\":[2],\"a\":9}", 2000, SENT(500), ACCEPTED(3), .conflict = true,
                    .send_winner = true, .event = "update {\"t\":[2,1]}"}}},
        {.name = "a merge that changes nothing is lost",
         .strategy = MQSYNC_MERGE_ARRAYS,
         .field = "t",
         .steps = {SETUP, {"update", "{\"t\":[1.0],\"a\":9}", 2000, SENT(500), LOST(2), .record = BEFORE}}},
        {.name = "nothing to merge",
         .strategy = MQSYNC_MAX_VALUE,
         .field = "n",
         .steps = {SETUP, {"update", "{\"n\":4}", 2000, SENT(500), LOST(2), .record = BEFORE}}},
        {.name = "a null removes",
         .strategy = MQSYNC_MERGE_FIELDS,
         .field = "a",
         .steps = {SETUP,
                   {"update", "{\"a\":null}", 2000, SENT(500), ACCEPTED(3), .conflict = true, .send_winner = true,
                    .record = "{\"t\":[1],\"n\":5}", .event = "update {\"a\":null}"}}},
        {.name = "a sum counts once",
         .strategy = MQSYNC_SUM_NUMBERS,
         .field = "n",
         .steps = {SETUP,
                   {"update", "{\"n\":1}", 2000, SENT(500), .mutation = "m", ACCEPTED(3), .conflict = true,
                    .send_winner = true},
                   {"update", "{\"n\":1}", 2100, SENT(500), .mutation = "m", REPEATED(3),
                    .record = "{\"a\":1,\"t\":[1],\"n\":6}"}}},
    };
    RUN(stories);
}
END_TEST

START_TEST(idempotence)
{
    static const struct story stories[] = {
        {.name = "the same mutationId",
         .steps = {{"insert", "{\"a\":1}", 10, .mutation = "m1", .user = "ana", ACCEPTED(1)},
                   {"update", "{\"a\":2}", 20, .mutation = "m2", .user = "bob", ACCEPTED(2)},
                   {"update", "{\"a\":3}", 30, ACCEPTED(3)},
                   {"insert", "{\"a\":1}", 40, .mutation = "m1", .user = "ana", REPEATED(1),
                    .event = "insert {\"a\":1}", .record = "{\"a\":3}"},
                   {"update", "{\"a\":2}", 90000000, .mutation = "m2", .user = "bob", REPEATED(2),
                    .event = "update {\"a\":2}", .record = "{\"a\":3}"},
                   {"update", "{\"a\":2}", 90000000, .mutation = "m2", .user = "eve", REPEATED(2), .others = true},
                   {"update", "{\"a\":9}", 90000000, .mutation = "m2", .user = "bob", REPEATED(2), .others = true},
                   {"delete", NULL, 90000000, .mutation = "m2", .user = "bob", REPEATED(2), .others = true},
                   {"update", "{\"a\":2}", 90000001, .mutation = "m3", .user = "bob", ACCEPTED(4)}}},
        {.name = "of a delete",
         .steps = {{"insert", "{\"a\":1}", 10, .mutation = "m1", ACCEPTED(1)},
                   {"delete", NULL, 20, .mutation = "m2", ACCEPTED(2)},
                   {"delete", NULL, 30, .mutation = "m2", REPEATED(2), .event = "delete"},
                   {"delete", NULL, 30, .mutation = "m3", REFUSED(RECORD_NOT_FOUND, 0)},
                   {"insert", "{\"a\":1}", 40, .mutation = "m1", REPEATED(1), .record = ""}}},
        {.name = "an insert that an update was",
         .upsert = true,
         .steps = {{"update", "{\"a\":1,\"b\":null}", 10, .mutation = "m1", ACCEPTED(1), .event = "insert {\"a\":1}"},
                   {"update", "{\"a\":1,\"b\":null}", 20, .mutation = "m1", REPEATED(1), .event = "insert {\"a\":1}"}}},
        {.name = "the same type, time, user and data",
         .steps = {{"insert", "{\"a\":1}", 10, SENT(5), .user = "ana", ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 90000000, SENT(5), .user = "ana", REPEATED(1)},
                   {"insert", "{\"a\":1}", 90000000, SENT(5), .user = "bob", ACCEPTED(2)}}},
        {.name = "a future time is a time",
         .steps = {{"insert", "{\"a\":1}", 10, SENT(99000), .user = "ana", ACCEPTED(1), .updated = 10},
                   {"insert", "{\"a\":1}", 90000000, SENT(99000), .user = "ana", REPEATED(1), .updated = 10}}},
        {.name = "a zone-less time is a time",
         .steps = {{"insert", "{\"a\":1}", 10, ZONELESS(5), ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 90000000, ZONELESS(5), REPEATED(1)},
                   {"insert", "{\"a\":1}", 90000000, SENT(11), ACCEPTED(2)}}},
        {.name = "without a time it is another write",
         .steps = {{"update", "{\"a\":1}", 5, REFUSED(RECORD_NOT_FOUND, 0)},
                   {"insert", "{\"a\":1}", 10, ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 10, ACCEPTED(2)},
                   {"update", "{\"a\":1}", 20, ACCEPTED(3)}}},
        {.name = "other data, type or user",
         .steps = {{"insert", "{\"a\":1}", 10, SENT(5), .user = "ana", ACCEPTED(1)},
                   {"insert", "{\"a\":2}", 20, SENT(5), .user = "ana", ACCEPTED(2)},
                   {"delete", NULL, 30, SENT(5), .user = "ana", ACCEPTED(3)},
                   {"delete", NULL, 40, SENT(5), .user = "ana", REPEATED(3)}}},
        {.name = "redelivered after the connection was lost",
         .steps = {{"insert", "{\"a\":1}", 100, .user = "ana", ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 300, .user = "ana", .reconnected = 200, REPEATED(1)},
                   {"insert", "{\"a\":1}", 300, .user = "ana", .reconnected = 99, ACCEPTED(2)},
                   {"insert", "{\"a\":1}", 400, .user = "bob", .reconnected = 350, ACCEPTED(3)},
                   {"insert", "{\"a\":1}", 500, .user = "ana", .reconnected = 450, ACCEPTED(4)},
                   {"update", "{\"a\":1}", 600, .user = "ana", .reconnected = 550, ACCEPTED(5)},
                   {"update", "{\"a\":1}", 600, .user = "ana", .reconnected = 600, .mutation = "m", ACCEPTED(6)},
                   {"update", "{\"a\":1}", 700, .user = "ana", .reconnected = 650, ACCEPTED(7)}}},
        {.name = "redelivered with an ifVersion, and the same for the version that this made",
         .steps = {{"insert", "{\"a\":1}", 100, IF(0), ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 300, IF(0), .reconnected = 200, REPEATED(1)},
                   {"insert", "{\"a\":1}", 400, IF(1), .reconnected = 200, ACCEPTED(2)}}},
        {.name = "the same reading long after the connection was lost",
         .steps = {{"insert", "{\"a\":1}", 100, ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 600100, .reconnected = 200, REPEATED(1)},
                   {"insert", "{\"a\":1}", 600101, .reconnected = 200, ACCEPTED(2)}}},
    };
    RUN(stories);
}
END_TEST

/* What SyncLayer apps send by HTTP after the same by WebSocket. */
START_TEST(second_copies)
{
    static const struct story stories[] = {
        {.name = "1.9 s off, with others' changes in between",
         .steps = {{"insert", "{\"a\":1}", 3000, SENT(1000), .user = "ana", ACCEPTED(1)},
                   {"update", "{\"b\":2}", 3100, SENT(2000), .user = "bob", ACCEPTED(2)},
                   {"update", "{\"a\":9}", 3200, .user = "eve", ACCEPTED(3)},
                   {"insert", "{\"a\":1}", 300000, SENT(2900), .user = "ana", REPEATED(1),
                    .record = "{\"a\":9,\"b\":2}"},
                   {"insert", "{\"a\":1}", 300000, SENT(-900), .user = "ana", REPEATED(1),
                    .record = "{\"a\":9,\"b\":2}"},
                   {"insert", "{\"a\":1}", 300000, SENT(3200), .user = "ana", ACCEPTED(4)}}},
        {.name = "2.0 s and a little more",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(1000), .user = "ana", ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 4000, SENT(3000), .user = "ana", REPEATED(1)},
                   {"insert", "{\"a\":1}", 4000, SENT(3001), .user = "ana", ACCEPTED(2)}}},
        {.name = "2.1 s off is another write",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(1000), .user = "ana", ACCEPTED(1)},
                   {"update", "{\"a\":2}", 1500, SENT(1500), .user = "bob", ACCEPTED(2)},
                   {"insert", "{\"a\":1}", 4000, SENT(3100), .user = "ana", ACCEPTED(3), .record = "{\"a\":1}"}}},
        {.name = "an update whose copy is an insert",
         .steps = {{"insert", "{}", 500, .user = "eve", ACCEPTED(1)},
                   {"update", "{\"a\":1}", 1000, SENT(1000), .user = "ana", ACCEPTED(2)},
                   {"insert", "{\"a\":1}", 4000, SENT(1100), .user = "ana", REPEATED(2)},
                   {"delete", NULL, 4000, SENT(1100), .user = "ana", ACCEPTED(3)}}},
        {.name = "a delete's copy",
         .steps = {{"insert", "{}", 500, .user = "ana", ACCEPTED(1)},
                   {"delete", NULL, 1000, SENT(900), .user = "ana", ACCEPTED(2)},
                   {"insert", "{\"b\":1}", 1200, SENT(1100), .user = "bob", ACCEPTED(3)},
                   {"delete", NULL, 1300, SENT(1000), .user = "ana", REPEATED(2), .record = "{\"b\":1}"},
                   {"delete", NULL, 1300, SENT(1000), .user = "eve", LOST(3), .record = "{\"b\":1}"}}},
        {.name = "another user, other data, another kind of time",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(1000), .user = "ana", ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 1000, SENT(1000), .user = "bob", ACCEPTED(2)},
                   {"insert", "{\"a\":2}", 1000, SENT(1000), .user = "ana", ACCEPTED(3)},
                   {"insert", "{\"a\":2}", 1000, ZONELESS(1000), .user = "ana", ACCEPTED(4)},
                   {"insert", "{\"a\":2}", 1000, .user = "ana", ACCEPTED(5)}}},
        {.name = "after ten minutes",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(1000), .user = "ana", ACCEPTED(1)},
                   {"update", "{\"b\":1}", 2000, .user = "bob", ACCEPTED(2)},
                   {"insert", "{\"a\":1}", 601000, SENT(900), .user = "ana", REPEATED(1)},
                   {"insert", "{\"a\":1}", 601001, SENT(2500), .user = "ana", ACCEPTED(3)}}},
        {.name = "two mutationIds are two writes",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(1000), .mutation = "m1", .user = "ana", ACCEPTED(1)},
                   {"insert", "{\"a\":1}", 1100, SENT(1100), .mutation = "m2", .user = "ana", ACCEPTED(2)},
                   {"insert", "{\"a\":1}", 1200, SENT(1100), .user = "ana", REPEATED(2)},
                   {"insert", "{\"a\":1}", 1300, SENT(1100), .user = "ana", .mutation = "m1", REPEATED(1)}}},
        {.name = "an ifVersion that has the first one in it",
         .steps = {{"insert", "{\"on\":true}", 1000, SENT(1000), IF(0), ACCEPTED(1)},
                   {"update", "{\"on\":false}", 1500, SENT(1500), IF(1), ACCEPTED(2)},
                   {"insert", "{\"on\":true}", 1600, SENT(1100), IF(0), REPEATED(1), .record = "{\"on\":false}"},
                   {"update", "{\"on\":true}", 1900, SENT(1900), IF(1), REFUSED(CONFLICT, 2)},
                   {"update", "{\"on\":true}", 1900, SENT(1900), BASE(2), REPEATED(1)},
                   {"update", "{\"on\":true}", 1900, SENT(1900), IF(2), ACCEPTED(3), .record = "{\"on\":true}"},
                   {"update", "{\"on\":true}", 2900, SENT(1905), IF(2), REPEATED(3)}}},
        {.name = "on, off and on again",
         .steps = {{"insert", "{\"on\":true}", 1000, SENT(1000), .user = "ana", ACCEPTED(1)},
                   {"update", "{\"on\":false}", 1500, SENT(1500), .user = "ana", ACCEPTED(2)},
                   {"insert", "{\"on\":true}", 1600, SENT(1200), .user = "ana", REPEATED(1),
                    .record = "{\"on\":false}"},
                   {"update", "{\"on\":true}", 1900, SENT(1900), .user = "ana", ACCEPTED(3), .record = "{\"on\":true}"},
                   {"update", "{\"on\":true}", 2900, SENT(1905), .user = "ana", REPEATED(3)}}},
    };
    RUN(stories);
}
END_TEST

START_TEST(clocks)
{
    static const struct story stories[] = {
        {.name = "no good time counts as the arrival",
         .steps = {{"insert", "{\"a\":1}", 1000, ACCEPTED(1), .updated = 1000},
                   {"update", "{\"a\":2}", 2000, ZONELESS(100), ACCEPTED(2), .updated = 2000},
                   {"update", "{\"a\":3}", 3000, ZONELESS(100000000), ACCEPTED(3), .updated = 3000},
                   {"update", "{\"a\":4}", 4000, SENT(4001), ACCEPTED(4), .updated = 4000},
                   {"update", "{\"a\":5}", 5000, SENT(3000000000000), ACCEPTED(5), .updated = 5000},
                   {"update", "{\"a\":6}", 6000, SENT(6000), ACCEPTED(6), .updated = 6000}}},
        {.name = "a clock ahead locks nothing",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(99999999), .user = "ana", ACCEPTED(1), .updated = 1000},
                   {"update", "{\"a\":2}", 1500, SENT(1400), .user = "bob", ACCEPTED(2), .record = "{\"a\":2}",
                    .updated = 1400}}},
        {.name = "a clock behind undoes nothing",
         .steps = {{"insert", "{\"a\":1}", 1000, ACCEPTED(1)},
                   {"update", "{\"a\":2}", 2000, SENT(-99999999), LOST(1), .record = "{\"a\":1}", .updated = 1000},
                   {"delete", NULL, 2000, SENT(999), LOST(1), .record = "{\"a\":1}"}}},
        {.name = "the server's clock stepped back",
         .steps = {{"insert", "{\"a\":1}", 100000, ACCEPTED(1), .updated = 100000},
                   {"update", "{\"a\":2}", 1000, ACCEPTED(2), .record = "{\"a\":2}", .updated = 100000},
                   {"update", "{\"a\":3}", 2000, SENT(50000), ACCEPTED(3), .record = "{\"a\":3}", .updated = 100000},
                   {"update", "{\"a\":4}", 3000, ZONELESS(0), ACCEPTED(4), .record = "{\"a\":4}", .updated = 100000},
                   {"update", "{\"a\":5}", 4000, SENT(3500), LOST(4), .updated = 100000},
                   {"delete", NULL, 5000, ACCEPTED(5), .record = "", .updated = 100000},
                   {"insert", "{}", 6000, ACCEPTED(6), .record = "{}", .updated = 100000}}},
        {.name = "updatedAt does not go back with a base",
         .steps = {{"insert", "{\"a\":1}", 5000, ACCEPTED(1)},
                   {"update", "{\"a\":2}", 6000, SENT(1), BASE(1), ACCEPTED(2), .updated = 5000},
                   {"update", "{\"a\":3}", 6000, SENT(5500), BASE(1), .conflict = true, ACCEPTED(3), .updated = 5500}}},
        {.name = "the ends of time",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(-62167219200000 - T0), ACCEPTED(1)},
                   {"update", "{\"a\":2}", 1000, SENT(INT64_C(9223372036854775807) - T0), ACCEPTED(2), .updated = 1000},
                   {"update", "{\"a\":1}", 1000, SENT(-62167219200000 - T0), REPEATED(1)},
                   {"update", "{\"a\":2}", 1000, SENT(-62167219200000 - T0), LOST(2)}}},
    };
    RUN(stories);
}
END_TEST

static struct mqsync_write numbered(unsigned i, char *data, size_t data_size, char *mutation, size_t mutation_size)
{
    snprintf(data, data_size, "{\"i\":%u}", i);
    if (mutation)
        snprintf(mutation, mutation_size, "m%u", i);
    return (struct mqsync_write){.op = MQSYNC_INSERT,
                                 .data = mqsync_slice_str(data),
                                 .arrived_ms = T0 + 1000 + i,
                                 .time = {MQSYNC_TIME_EXACT, T0 + i},
                                 .mutation_id = mqsync_slice_str(mutation),
                                 .reconnected_ms = INT64_MAX};
}

static enum mqsync_outcome_kind put(struct place *p, const struct mqsync_write *w)
{
    mqsync_resolve(&p->rules, p->used ? &p->record : NULL, 0, p->seq + 3, w, &p->out, &p->outcome);
    enum mqsync_outcome_kind kind = p->outcome.kind;
    if (kind == MQSYNC_ACCEPTED)
        keep(p);
    return kind;
}

/* 40 changes: of those with a mutationId the last ones stay, those without go first. */
START_TEST(history_is_bounded)
{
    static const struct story story = {.name = "history"};
    char data[32], mutation[32];
    struct place p;
    place_init(&p, &story);
    for (unsigned i = 0; i < 40; i++) {
        struct mqsync_write w = numbered(i, data, sizeof(data), i % 2 ? mutation : NULL, sizeof(mutation));
        ck_assert_int_eq(put(&p, &w), MQSYNC_ACCEPTED);
        ck_assert_uint_eq(p.record.history_n, i < MQSYNC_HISTORY_MAX ? i + 1 : MQSYNC_HISTORY_MAX);
        ck_assert_uint_eq(p.record.history[p.record.history_n - 1].version, i + 1);
    }
    /* 20 with a mutationId, and the last 12 of those without: 16, 18, ... 38 */
    for (unsigned i = 0; i < 40; i++) {
        bool kept = false;
        for (unsigned j = 0; j < p.record.history_n; j++)
            kept |= p.record.history[j].version == i + 1;
        ck_assert_msg(kept == (i % 2 || i >= 16), "change %u", i);
    }
    for (unsigned i = 40; i < 80; i++) {
        struct mqsync_write w = numbered(i, data, sizeof(data), mutation, sizeof(mutation));
        ck_assert_int_eq(put(&p, &w), MQSYNC_ACCEPTED);
    }
    struct mqsync_write oldest_kept = numbered(48, data, sizeof(data), mutation, sizeof(mutation));
    ck_assert_int_eq(put(&p, &oldest_kept), MQSYNC_REPEATED);
    struct mqsync_write forgotten = numbered(47, data, sizeof(data), mutation, sizeof(mutation));
    ck_assert_int_ne(put(&p, &forgotten), MQSYNC_REPEATED);
    place_fini(&p);
}
END_TEST

START_TEST(history_forgets)
{
    static const struct story stories[] = {
        {.name = "without time and mutationId only the last",
         .steps = {{"insert", "{\"a\":1}", 1000, ACCEPTED(1)},
                   {"insert", "{\"a\":2}", 2000, ACCEPTED(2)},
                   {"insert", "{\"a\":3}", 3000, ACCEPTED(3)}}},
        {.name = "times for ten minutes",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(1000), ACCEPTED(1)},
                   {"insert", "{\"a\":2}", 601001, ACCEPTED(2)}}},
    };
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        struct place p;
        place_init(&p, &stories[i]);
        for (size_t j = 0; stories[i].steps[j].op; j++)
            take(&p, &stories[i].steps[j], stories[i].name);
        ck_assert_uint_eq(p.record.history_n, 1);
        place_fini(&p);
    }
}
END_TEST

START_TEST(long_user_names)
{
    static char name[MQSYNC_USER_MAX + 2];
    memset(name, 'u', sizeof(name));
    static const struct story story = {.name = "users"};
    struct place p;
    place_init(&p, &story);
    struct mqsync_write w = {.op = MQSYNC_INSERT,
                             .data = MQSYNC_SLICE("{}"),
                             .arrived_ms = T0,
                             .time = {MQSYNC_TIME_EXACT, T0 - 1},
                             .user = {name, MQSYNC_USER_MAX},
                             .reconnected_ms = INT64_MAX};
    ck_assert_int_eq(put(&p, &w), MQSYNC_ACCEPTED);
    ck_assert_uint_eq(p.record.user.n, MQSYNC_USER_MAX);
    w.user.n = MQSYNC_USER_MAX + 1;
    ck_assert_int_eq(put(&p, &w), MQSYNC_ACCEPTED);
    ck_assert_uint_eq(p.record.user.n, 0);
    ck_assert_int_eq(put(&p, &w), MQSYNC_REPEATED);
    w.user.n = MQSYNC_USER_MAX + 2;
    ck_assert_int_eq(put(&p, &w), MQSYNC_ACCEPTED);
    place_fini(&p);
}
END_TEST

/* A byte that moves from the user to the data is another write. */
START_TEST(user_and_data_are_told_apart)
{
    static const struct story stories[] = {
        {.name = "boundary",
         .steps = {{"insert", "{\"a\":1}", 1000, SENT(1000), .user = "x", ACCEPTED(1)},
                   {"delete", NULL, 1001, SENT(1000), .user = "x{\"a\":1}", ACCEPTED(2)},
                   {"insert", "{}", 1002, SENT(1000), .user = "x{\"a\":1}", ACCEPTED(3)},
                   {"insert", "{\"a\":2}", 1003, SENT(1000), .user = "x{}", ACCEPTED(4)},
                   {"insert", "{\"a\":2}", 1004, SENT(1000), .user = "x", ACCEPTED(5)}}},
    };
    RUN(stories);
}
END_TEST

START_TEST(strategies_by_name)
{
    static const struct {
        const char *name;
        bool has_fields;
    } cases[] = {
        {"lastWriteWins", false}, {"serverWins", false}, {"clientWins", false}, {"mergeArrays", true},
        {"sumNumbers", true},     {"maxValue", true},    {"mergeFields", true}, {"fieldLevelLastWriteWins", false},
        {"deepMerge", false}};
    for (int i = 0; i < 9; i++) {
        enum mqsync_strategy s = (enum mqsync_strategy)i;
        ck_assert_str_eq(mqsync_strategy_name(s), cases[i].name);
        ck_assert_int_eq(mqsync_strategy_has_fields(s), cases[i].has_fields);
    }
    ck_assert_ptr_null(mqsync_strategy_name((enum mqsync_strategy)9));
    ck_assert(!mqsync_strategy_has_fields((enum mqsync_strategy)9));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("resolve");
    tcase_add_test(tests, writes);
    tcase_add_test(tests, names_the_limit);
    tcase_add_test(tests, if_version);
    tcase_add_test(tests, conflicts);
    tcase_add_test(tests, no_conflict);
    tcase_add_test(tests, conflicts_with_deletes);
    tcase_add_test(tests, merges);
    tcase_add_test(tests, idempotence);
    tcase_add_test(tests, second_copies);
    tcase_add_test(tests, clocks);
    tcase_add_test(tests, history_is_bounded);
    tcase_add_test(tests, history_forgets);
    tcase_add_test(tests, long_user_names);
    tcase_add_test(tests, user_and_data_are_told_apart);
    tcase_add_test(tests, strategies_by_name);
    return run_tests("resolve", tests);
}
