/* SPDX-License-Identifier: BSD-3-Clause */
/* A write against a record, and what must hold of any outcome. The input is lines:
 *   a character for each choice below ('0' and up; missing ones are '0')
 *   the record's data
 *   the write's data
 *   fields of the strategy, by commas
 *   user
 *   mutationId */
#include "fuzz.h"
#include "json.h"
#include "resolve.h"

enum choice {
    STRATEGY,
    OP,
    RECORD, /* 0: live, 1: a tombstone, 2: none */
    UPSERT,
    TIME_KIND,
    SENT,    /* in half seconds before or after the record's time; '5' is the same */
    ARRIVED, /* likewise */
    BASE,    /* 0: none, 1: the record's version, 2: another */
    IF,      /* likewise */
    SAME_USER,
    RECONNECTED,
    LIMIT, /* 0: none, else so many times 16 bytes */
    FLOOR,
    CHOICES_N
};

enum { FIELDS_MAX = 8 };

static const int64_t RECORD_TIME = 1700000000000;

struct input {
    unsigned choice[CHOICES_N];
    struct mqsync_slice record_data, write_data, user, mutation_id;
    struct mqsync_slice fields[FIELDS_MAX];
    size_t fields_n;
};

static bool read_input(struct mqsync_slice rest, struct input *ret)
{
    struct mqsync_slice choices = take_until(&rest, '\n');
    for (size_t i = 0; i < CHOICES_N; i++)
        ret->choice[i] = i < choices.n ? (unsigned char)(choices.p[i] - '0') : 0;
    ret->record_data = take_until(&rest, '\n');
    ret->write_data = take_until(&rest, '\n');
    struct mqsync_slice fields = take_until(&rest, '\n');
    for (ret->fields_n = 0; fields.n && ret->fields_n < FIELDS_MAX;)
        ret->fields[ret->fields_n++] = take_until(&fields, ',');
    ret->user = take_until(&rest, '\n');
    ret->mutation_id = take_until(&rest, '\n');
    return is_object(ret->record_data) && is_object(ret->write_data);
}

static struct mqsync_slice minified(struct mqsync_buf *b, struct mqsync_slice text)
{
    mqsync_json_minify(b, text);
    CHECK(!b->failed);
    return mqsync_buf_slice(b);
}

static bool has_null_member(struct mqsync_slice object)
{
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key, value;
    while (mqsync_json_next_member(&it, &key, &value))
        if (mqsync_json_typeof(value) == MQSYNC_JSON_NULL)
            return true;
    return false;
}

/* The record as the store would hand it out: encoded, decoded. */
static void keep(struct mqsync_buf *stored, struct mqsync_record *record, const struct mqsync_outcome *o)
{
    struct mqsync_buf fresh = {0};
    mqsync_record_encode(&fresh, &o->next);
    CHECK(!fresh.failed);
    mqsync_buf_free(stored);
    *stored = fresh;
    CHECK(mqsync_record_decode(mqsync_buf_slice(stored), record, NULL) == MQSYNC_OK);
    CHECK(record->version == o->next.version && record->history_n == o->next.history_n);
    for (unsigned i = 0; i < record->history_n; i++)
        CHECK(record->history[i].fingerprint == o->next.history[i].fingerprint &&
              record->history[i].sent_ms == o->next.history[i].sent_ms &&
              record->history[i].version == o->next.history[i].version);
}

static void check_event(const struct mqsync_record *old, const struct mqsync_outcome *o)
{
    const struct mqsync_record *next = &o->next;
    bool was_live = old && !old->deleted;
    if (next->deleted) {
        CHECK(o->event == MQSYNC_DELETE && next->data.n == 0 && o->event_data.n == 0 && was_live);
        return;
    }
    CHECK(is_plain_object(next->data) && is_plain_object(o->event_data));
    CHECK(o->event == (was_live ? MQSYNC_UPDATE : MQSYNC_INSERT));
    if (!was_live) {
        CHECK(mqsync_slice_equal(o->event_data, next->data));
    } else if (!has_null_member(next->data)) {
        struct mqsync_buf seen = {0};
        mqsync_json_apply_delta(&seen, old->data, o->event_data);
        CHECK(!seen.failed && mqsync_json_equal(mqsync_buf_slice(&seen), next->data));
        mqsync_buf_free(&seen);
    }
}

static void check_merge(const struct mqsync_rules *rules, const struct mqsync_record *old,
                        const struct mqsync_outcome *o)
{
    if (!o->send_winner)
        return;
    CHECK(o->was_conflict && o->event == MQSYNC_UPDATE && !mqsync_json_equal(old->data, o->next.data));
    if (rules->strategy != MQSYNC_DEEP_MERGE)
        return;
    struct mqsync_json_iter before = mqsync_json_members(old->data), after = mqsync_json_members(o->next.data);
    struct mqsync_slice key, value, next_key;
    while (mqsync_json_next_member(&before, &key, &value)) {
        CHECK(mqsync_json_next_member(&after, &next_key, &value));
        CHECK(mqsync_slice_equal(key, next_key));
    }
}

static void check_accepted(const struct mqsync_rules *rules, const struct mqsync_record *old, uint64_t floor,
                           uint64_t seq, const struct mqsync_outcome *o)
{
    CHECK(o->version == (old ? old->version : floor) + 1 && o->seq == seq);
    CHECK(o->next.version == o->version && o->next.seq == seq && o->next.updated_ms == o->timestamp_ms);
    CHECK(!old || o->next.updated_ms >= old->updated_ms);
    CHECK(!rules->max_record_bytes || o->next.data.n <= rules->max_record_bytes);
    const struct mqsync_change *last = &o->next.history[o->next.history_n - 1];
    CHECK(last->version == o->version && last->seq == seq && last->fingerprint &&
          last->effective_ms == o->timestamp_ms);
    check_event(old, o);
    check_merge(rules, old, o);
}

static void check_outcome(const struct mqsync_rules *rules, const struct mqsync_record *old, uint64_t floor,
                          uint64_t seq, const struct mqsync_outcome *o)
{
    switch (o->kind) {
    case MQSYNC_ACCEPTED:
        check_accepted(rules, old, floor, seq, o);
        break;
    case MQSYNC_LOST:
        CHECK(old && o->was_conflict && o->send_winner && o->version == old->version && o->seq == old->seq);
        break;
    case MQSYNC_REPEATED:
        CHECK(old && o->version <= old->version && o->seq <= old->seq && !o->send_winner);
        break;
    case MQSYNC_REFUSED:
        CHECK(o->error.code != MQSYNC_OK && o->error.text[0] && strlen(o->error.text) < sizeof(o->error.text));
        CHECK(o->error.code != MQSYNC_SERVER_ERROR);
        break;
    }
}

static void set_version(unsigned choice, uint64_t version, bool *ret_has, uint64_t *ret)
{
    *ret_has = choice % 3 != 0;
    *ret = choice % 3 == 1 ? version : choice / 3;
}

static struct mqsync_write the_write(const struct input *in, const struct mqsync_record *old, struct mqsync_slice data)
{
    const unsigned *c = in->choice;
    struct mqsync_write w = {
        .op = (enum mqsync_op)(c[OP] % 3),
        .data = data,
        .time = {(enum mqsync_time_kind)(c[TIME_KIND] % 3), RECORD_TIME + ((int64_t)c[SENT] - 5) * 500},
        .arrived_ms = RECORD_TIME + ((int64_t)c[ARRIVED] - 5) * 500,
        .user = c[SAME_USER] % 2 ? MQSYNC_SLICE("ana") : in->user,
        .mutation_id = in->mutation_id,
        .reconnected_ms = c[RECONNECTED] % 2 ? RECORD_TIME : INT64_MAX,
    };
    if (w.op == MQSYNC_DELETE)
        w.data = (struct mqsync_slice){NULL, 0};
    set_version(c[BASE], old ? old->version : 0, &w.has_base_version, &w.base_version);
    set_version(c[IF], old ? old->version : 0, &w.has_if_version, &w.if_version);
    return w;
}

/* Brings the record about by writes, as it would be in a store. NULL: there is to be none. */
static const struct mqsync_record *the_record(const struct input *in, const struct mqsync_rules *rules, uint64_t floor,
                                              struct mqsync_slice data, struct mqsync_buf *stored,
                                              struct mqsync_record *record)
{
    if (in->choice[RECORD] % 3 == 2)
        return NULL;
    struct mqsync_rules no_limit = *rules;
    no_limit.max_record_bytes = 0;
    struct mqsync_buf out = {0};
    struct mqsync_outcome o;
    struct mqsync_write w = {.op = MQSYNC_INSERT,
                             .data = data,
                             .user = MQSYNC_SLICE("ana"),
                             .arrived_ms = RECORD_TIME,
                             .time = {MQSYNC_TIME_EXACT, RECORD_TIME},
                             .reconnected_ms = INT64_MAX};
    mqsync_resolve(&no_limit, NULL, floor, 1, &w, &out, &o);
    CHECK(o.kind == MQSYNC_ACCEPTED && mqsync_slice_equal(o.next.data, data));
    keep(stored, record, &o);
    if (in->choice[RECORD] % 3 == 1) {
        w.op = MQSYNC_DELETE;
        w.data = (struct mqsync_slice){NULL, 0};
        mqsync_resolve(&no_limit, record, floor, 2, &w, &out, &o);
        CHECK(o.kind == MQSYNC_ACCEPTED && o.next.deleted);
        keep(stored, record, &o);
    }
    mqsync_buf_free(&out);
    return record;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mqsync_record record;
    struct input in;
    if (!read_input((struct mqsync_slice){(const char *)data, size}, &in))
        return 0;
    struct mqsync_buf record_text = {0}, write_text = {0}, stored = {0}, out = {0};
    struct mqsync_slice record_data = minified(&record_text, in.record_data);
    struct mqsync_slice write_data = minified(&write_text, in.write_data);
    struct mqsync_rules rules = {
        .strategy = (enum mqsync_strategy)(in.choice[STRATEGY] % 9),
        .fields = in.fields,
        .fields_n = in.fields_n,
        .upsert = in.choice[UPSERT] % 2,
        .max_record_bytes = in.choice[LIMIT] * 16,
    };
    uint64_t floor = in.choice[FLOOR] % 10;
    const struct mqsync_record *old = the_record(&in, &rules, floor, record_data, &stored, &record);
    struct mqsync_write w = the_write(&in, old, write_data);

    struct mqsync_outcome o;
    mqsync_resolve(&rules, old, floor, 17, &w, &out, &o);
    check_outcome(&rules, old, floor, 17, &o);

    if (o.kind == MQSYNC_ACCEPTED && (w.mutation_id.n || w.time.kind != MQSYNC_TIME_MISSING)) {
        keep(&stored, &record, &o);
        uint64_t version = o.version;
        mqsync_resolve(&rules, &record, floor, 18, &w, &out, &o);
        CHECK(o.kind == MQSYNC_REPEATED && o.version == version && o.seq == 17);
        check_outcome(&rules, &record, floor, 18, &o);
    }
    mqsync_buf_free(&record_text);
    mqsync_buf_free(&write_text);
    mqsync_buf_free(&stored);
    mqsync_buf_free(&out);
    return 0;
}
