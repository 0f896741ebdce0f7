/* SPDX-License-Identifier: BSD-3-Clause */
/* mqsync_resolve() against a deliberately simple second writing of the same rule, over random writes to one record. It
 * knows data as rows of members, users and mutationIds as they are, and keeps no hash of anything. */
#include "json.h"
#include "resolve.h"
#include "unit.h"

#include <stdio.h>

enum { KEYS_N = 6, NUMBER_KEY = 5, SENT_BEFORE = 24, TEXT_MAX = 512 };

static const char *const keys[KEYS_N] = {"a", "", "\\u0062\\\"", "caf\xC3\xA9", "long_name_of_a_field", "n"};
static const char *const values[] = {"null",        "1",
                                     "1.0",         "12345678901234567890123",
                                     "0.10",        "-0",
                                     "\"\\u0000\"", "\"\xF0\x9F\x98\x80\"",
                                     "[1,[2,{}]]",  "{\"k\":{\"k\":null}}",
                                     "true",        "\"\""};
enum { VALUES_N = sizeof(values) / sizeof(values[0]), FIRST_NUMBER = 1, LAST_NUMBER = 5, NO_VALUE = -1 };

static uint64_t random_state;

static unsigned dice(unsigned sides)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 20) % sides;
}

/* --- data --------------------------------------------------------------------------------------------------------- */

struct member {
    int key;
    int value; /* of values; NO_VALUE: number */
    long number;
};

struct rows {
    int n;
    struct member m[KEYS_N];
};

static bool is_null(const struct member *m)
{
    return m->value == 0;
}

static int find(const struct rows *d, int key)
{
    for (int i = 0; i < d->n; i++)
        if (d->m[i].key == key)
            return i;
    return -1;
}

static void set(struct rows *d, const struct member *m)
{
    int i = find(d, m->key);
    if (i < 0)
        i = d->n++;
    d->m[i] = *m;
}

static void unset(struct rows *d, int key)
{
    int i = find(d, key);
    if (i < 0)
        return;
    memmove(&d->m[i], &d->m[i + 1], (size_t)(d->n - i - 1) * sizeof(d->m[0]));
    d->n--;
}

static void apply(struct rows *d, const struct rows *delta)
{
    for (int i = 0; i < delta->n; i++) {
        if (is_null(&delta->m[i]))
            unset(d, delta->m[i].key);
        else
            set(d, &delta->m[i]);
    }
}

static void render(const struct rows *d, char text[TEXT_MAX])
{
    size_t n = (size_t)snprintf(text, TEXT_MAX, "{");
    for (int i = 0; i < d->n; i++) {
        n += (size_t)snprintf(text + n, TEXT_MAX - n, "%s\"%s\":", i ? "," : "", keys[d->m[i].key]);
        if (d->m[i].value == NO_VALUE)
            n += (size_t)snprintf(text + n, TEXT_MAX - n, "%ld", d->m[i].number);
        else
            n += (size_t)snprintf(text + n, TEXT_MAX - n, "%s", values[d->m[i].value]);
    }
    snprintf(text + n, TEXT_MAX - n, "}");
}

static void random_rows(struct rows *d)
{
    d->n = 0;
    for (unsigned i = dice(4); i; i--) {
        struct member m = {(int)dice(KEYS_N), (int)dice(VALUES_N), 0};
        if (m.key == NUMBER_KEY && ((m.value >= FIRST_NUMBER && m.value <= LAST_NUMBER) || dice(4))) {
            m.value = NO_VALUE;
            m.number = (long)dice(2000) - 1000;
        }
        set(d, &m);
    }
}

/* --- writes ------------------------------------------------------------------------------------------------------- */

struct change {
    enum mqsync_op op;
    struct rows data;
    char user[8], mutation[8];
    struct mqsync_time time;
    int64_t arrived, reconnected;
    long base, if_version; /* -1: none */
    /* once accepted */
    int64_t updated;
    uint64_t version, seq;
};

static void random_time(struct change *c)
{
    c->time.kind = (enum mqsync_time_kind)(dice(4) ? 2 : dice(3));
    c->time.ms = c->arrived - (dice(5) ? dice(3000) : dice(40000)) + (dice(8) ? 0 : 50000);
    if (c->time.kind == MQSYNC_TIME_MISSING)
        c->time.ms = 0;
}

static void random_change(struct change *c, uint64_t version)
{
    static const char *const users[] = {"", "ana", "bob"};
    c->op = (enum mqsync_op)(dice(6) % 3 ? dice(2) : dice(3));
    random_rows(&c->data);
    if (c->op == MQSYNC_DELETE)
        c->data.n = 0;
    strcpy(c->user, users[dice(3)]);
    snprintf(c->mutation, sizeof(c->mutation), dice(2) ? "" : "m%u", dice(2000));
    c->reconnected = dice(3) ? INT64_MAX : c->arrived - dice(3000);
    c->base = dice(3) ? -1 : (long)version - (long)dice(2);
    c->if_version = dice(6) ? -1 : dice(3) ? (long)version : (long)dice(4);
    random_time(c);
}

/* One that was sent before, as it was or as its second copy. */
static void send_again(struct change *c, const struct change *before)
{
    int64_t arrived = c->arrived;
    *c = *before;
    c->arrived = arrived;
    c->reconnected = dice(2) ? INT64_MAX : arrived - dice(1000);
    if (dice(2)) {
        c->mutation[0] = '\0';
        c->time.ms += c->time.kind == MQSYNC_TIME_MISSING ? 0 : (int64_t)dice(5000) - 2500;
    }
    if (dice(8) == 0 && c->op != MQSYNC_DELETE)
        c->op = (enum mqsync_op)dice(2);
}

/* --- the model ---------------------------------------------------------------------------------------------------- */

struct model {
    enum mqsync_strategy strategy;
    bool upsert, used, deleted;
    uint64_t version, seq;
    int64_t updated;
    struct rows data;
    char user[8];
    struct change history[MQSYNC_HISTORY_MAX + 1];
    int history_n;
};

struct expected {
    enum mqsync_outcome_kind kind;
    enum mqsync_code code;
    uint64_t version, seq;
};

static bool same_rows(const struct rows *a, const struct rows *b)
{
    char x[TEXT_MAX], y[TEXT_MAX];
    render(a, x);
    render(b, y);
    return strcmp(x, y) == 0;
}

static bool timed(const struct change *c)
{
    return c->time.kind != MQSYNC_TIME_MISSING;
}

static bool same_content(const struct change *a, const struct change *b)
{
    return strcmp(a->user, b->user) == 0 && (a->op == MQSYNC_DELETE) == (b->op == MQSYNC_DELETE) &&
           same_rows(&a->data, &b->data);
}

static bool same_change(const struct model *m, const struct change *old, const struct change *c, bool is_last)
{
    const struct change *last = &m->history[m->history_n - 1];
    if (is_last && !c->mutation[0] && old->op == c->op && same_content(old, c)) {
        if (timed(old) && timed(c) && old->time.kind == c->time.kind && old->time.ms == c->time.ms)
            return true;
        if (!timed(old) && !timed(c) && !old->mutation[0] && c->reconnected != INT64_MAX &&
            old->arrived <= c->reconnected && c->arrived - old->arrived <= 600000 && c->if_version < (long)old->version)
            return true;
    }
    if (!same_content(old, c) || !timed(old) || !timed(c) || old->time.kind != c->time.kind)
        return false;
    if (llabs(old->time.ms - c->time.ms) > 2000 || c->arrived - old->arrived > 600000 ||
        (old->mutation[0] && c->mutation[0]) || c->if_version >= (long)old->version)
        return false;
    bool came_back = c->user[0] && strcmp(last->user, c->user) == 0 && !same_content(last, c) &&
                     last->time.kind == c->time.kind && last->time.ms > old->time.ms && last->time.ms <= c->time.ms;
    return !came_back;
}

static const struct change *already(const struct model *m, const struct change *c)
{
    for (int i = m->history_n - 1; i >= 0; i--)
        if (c->mutation[0] && strcmp(m->history[i].mutation, c->mutation) == 0)
            return &m->history[i];
    for (int i = m->history_n - 1; i >= 0; i--)
        if (same_change(m, &m->history[i], c, i == m->history_n - 1))
            return &m->history[i];
    return NULL;
}

static void forget(struct model *m, int i)
{
    memmove(&m->history[i], &m->history[i + 1], (size_t)(m->history_n - i - 1) * sizeof(m->history[0]));
    m->history_n--;
}

static void remember(struct model *m, const struct change *c)
{
    for (int i = m->history_n - 1; i >= 0; i--)
        if (!m->history[i].mutation[0] && (!timed(&m->history[i]) || c->arrived - m->history[i].arrived > 600000))
            forget(m, i);
    m->history[m->history_n++] = *c;
    if (m->history_n <= MQSYNC_HISTORY_MAX)
        return;
    for (int i = 0; i < m->history_n - 1; i++) {
        if (!m->history[i].mutation[0]) {
            forget(m, i);
            return;
        }
    }
    forget(m, 0);
}

/* Of the strategies that merge the model knows those of the "n" field. True when it has changed something. */
static bool merge_number(struct model *m, const struct change *c)
{
    int local = find(&c->data, NUMBER_KEY), remote = find(&m->data, NUMBER_KEY);
    struct rows before = m->data;
    if (local < 0)
        return false;
    if (m->strategy == MQSYNC_MERGE_FIELDS) {
        if (is_null(&c->data.m[local]) && c->op == MQSYNC_UPDATE)
            unset(&m->data, NUMBER_KEY);
        else
            set(&m->data, &c->data.m[local]);
    } else if (remote >= 0 && c->data.m[local].value == NO_VALUE && m->data.m[remote].value == NO_VALUE) {
        long *n = &m->data.m[remote].number, other = c->data.m[local].number;
        *n = m->strategy == MQSYNC_SUM_NUMBERS ? *n + other : other > *n ? other : *n;
    }
    return !same_rows(&before, &m->data);
}

static void accept(struct model *m, const struct change *c, int64_t effective, uint64_t seq)
{
    struct change kept = *c;
    m->version++;
    m->seq = seq;
    m->updated = m->used && m->updated > effective ? m->updated : effective;
    m->used = true;
    m->deleted = c->op == MQSYNC_DELETE;
    strcpy(m->user, c->user);
    if (m->deleted)
        m->data.n = 0;
    kept.version = m->version;
    kept.seq = seq;
    kept.updated = m->updated;
    remember(m, &kept);
}

static void overwrite(struct model *m, const struct change *c)
{
    if (c->op == MQSYNC_INSERT)
        m->data = c->data;
    else if (c->op == MQSYNC_UPDATE)
        apply(&m->data, &c->data);
}

static struct expected model_take(struct model *m, const struct change *c, uint64_t seq)
{
    bool live = m->used && !m->deleted;
    const struct change *old = already(m, c);
    if (old)
        return (struct expected){MQSYNC_REPEATED, MQSYNC_OK, old->version, old->seq};
    if (c->if_version >= 0 && (uint64_t)c->if_version != (live ? m->version : 0))
        return (struct expected){MQSYNC_REFUSED, MQSYNC_CONFLICT, live ? m->version : 0, 0};
    if (!live && (c->op == MQSYNC_DELETE || (c->op == MQSYNC_UPDATE && !m->upsert)))
        return (struct expected){MQSYNC_REFUSED, MQSYNC_RECORD_NOT_FOUND, 0, 0};

    bool good = c->time.kind == MQSYNC_TIME_EXACT && c->time.ms <= c->arrived;
    int64_t effective = good ? c->time.ms : m->used && m->updated > c->arrived ? m->updated : c->arrived;
    bool older = m->used && effective < m->updated;
    bool conflict = m->used && (c->base >= 0 ? (uint64_t)c->base != m->version : c->if_version > 0 ? false : older);
    bool wins = true;
    if (conflict && m->strategy == MQSYNC_SERVER_WINS)
        wins = false;
    else if (conflict && m->strategy != MQSYNC_CLIENT_WINS)
        wins = !older;
    if (conflict && m->strategy >= MQSYNC_MERGE_ARRAYS && live && c->op != MQSYNC_DELETE)
        wins = merge_number(m, c);
    else if (wins)
        overwrite(m, c);
    if (!wins)
        return (struct expected){MQSYNC_LOST, MQSYNC_OK, m->version, m->seq};
    accept(m, c, effective, seq);
    return (struct expected){MQSYNC_ACCEPTED, MQSYNC_OK, m->version, seq};
}

/* --- side by side ------------------------------------------------------------------------------------------------- */

static struct mqsync_write write_of(const struct change *c, const char *data)
{
    return (struct mqsync_write){
        .op = c->op,
        .data = mqsync_slice_str(c->op == MQSYNC_DELETE ? NULL : data),
        .time = c->time,
        .arrived_ms = c->arrived,
        .user = mqsync_slice_str(c->user),
        .mutation_id = mqsync_slice_str(c->mutation),
        .has_base_version = c->base >= 0,
        .base_version = (uint64_t)c->base,
        .has_if_version = c->if_version >= 0,
        .if_version = (uint64_t)c->if_version,
        .reconnected_ms = c->reconnected,
    };
}

static void assert_record(const struct model *m, const struct mqsync_record *r, int round)
{
    char text[TEXT_MAX];
    render(&m->data, text);
    ck_assert_msg(mqsync_slice_equal(r->data, mqsync_slice_str(m->deleted ? "" : text)), "round %d: %.*s, expected %s",
                  round, (int)r->data.n, r->data.n ? r->data.p : "", text);
    ck_assert_uint_eq(r->version, m->version);
    ck_assert_uint_eq(r->seq, m->seq);
    ck_assert_int_eq(r->updated_ms, m->updated);
    ck_assert_int_eq(r->deleted, m->deleted);
    ck_assert(mqsync_slice_equal(r->user, mqsync_slice_str(m->user)));
    ck_assert_int_eq((int)r->history_n, m->history_n);
    for (int i = 0; i < m->history_n; i++)
        ck_assert_uint_eq(r->history[i].version, m->history[i].version);
}

/* Someone who has only seen the events has the record, except for a null that an insert put there. */
static void follow(struct mqsync_buf *seen, const struct mqsync_outcome *o)
{
    struct mqsync_buf now = {0};
    if (o->event == MQSYNC_UPDATE)
        mqsync_json_apply_delta(&now, mqsync_buf_slice(seen), o->event_data);
    else
        mqsync_buf_add_slice(&now, o->event_data);
    mqsync_buf_free(seen);
    *seen = now;
    if (!o->next.deleted && !memmem(o->next.data.p, o->next.data.n, ":null", 5))
        ck_assert(mqsync_json_equal(mqsync_buf_slice(seen), o->next.data));
    mqsync_buf_clear(seen);
    mqsync_buf_add_slice(seen, o->next.data);
}

struct tally {
    unsigned of[4];
};

static void run_model(enum mqsync_strategy strategy, bool upsert, uint64_t seed, struct tally *tally)
{
    static struct model m;
    static struct mqsync_record record;
    struct mqsync_slice field = MQSYNC_SLICE("n");
    struct mqsync_rules rules = {.strategy = strategy, .fields = &field, .fields_n = 1, .upsert = upsert};
    struct mqsync_buf stored = {0}, out = {0}, seen = {0};
    struct change before[SENT_BEFORE] = {0};
    int64_t now = 1700000000000;
    uint64_t seq = 0;

    m = (struct model){.strategy = strategy, .upsert = upsert};
    random_state = seed;
    for (int round = 0; round < 2000; round++) {
        now += dice(50) ? dice(1500) : dice(2) ? -(int64_t)dice(100000) : dice(1300000);
        struct change c = {.arrived = now};
        random_change(&c, m.version);
        if (round > SENT_BEFORE && dice(3) == 0)
            send_again(&c, &before[dice(SENT_BEFORE)]);
        before[round % SENT_BEFORE] = c;

        char data[TEXT_MAX];
        struct mqsync_outcome o;
        render(&c.data, data);
        struct mqsync_write w = write_of(&c, data);
        seq += 1 + dice(3);
        mqsync_resolve(&rules, m.used ? &record : NULL, 0, seq, &w, &out, &o);
        struct expected e = model_take(&m, &c, seq);
        ck_assert_msg(o.kind == e.kind && o.error.code == e.code, "%s, seed %llu, round %d: outcome %d %s, expected %d",
                      mqsync_strategy_name(strategy), (unsigned long long)seed, round, o.kind, o.error.text, e.kind);
        ck_assert_uint_eq(o.version, e.version);
        ck_assert(o.kind == MQSYNC_REFUSED || o.seq == e.seq);
        tally->of[o.kind]++;
        if (o.kind == MQSYNC_ACCEPTED) {
            follow(&seen, &o);
            struct mqsync_buf fresh = {0};
            mqsync_record_encode(&fresh, &o.next);
            mqsync_buf_free(&stored);
            stored = fresh;
            ck_assert_int_eq(mqsync_record_decode(mqsync_buf_slice(&stored), &record, NULL), MQSYNC_OK);
        }
        if (m.used)
            assert_record(&m, &record, round);
    }
    mqsync_buf_free(&stored);
    mqsync_buf_free(&out);
    mqsync_buf_free(&seen);
}

START_TEST(agrees_with_the_model)
{
    static const enum mqsync_strategy strategies[] = {MQSYNC_LAST_WRITE_WINS, MQSYNC_SERVER_WINS, MQSYNC_CLIENT_WINS,
                                                      MQSYNC_SUM_NUMBERS,     MQSYNC_MAX_VALUE,   MQSYNC_MERGE_FIELDS};
    struct tally tally = {{0}};
    run_model(strategies[_i / 2], _i % 2, 0x9E3779B97F4A7C15u + (unsigned)_i, &tally);
    run_model(strategies[_i / 2], _i % 2, 0xDEADBEEFCAFEu + (unsigned)_i, &tally);
    /* a model that never gets to one of the outcomes shows nothing about it */
    for (int kind = MQSYNC_ACCEPTED; kind <= MQSYNC_REFUSED; kind++)
        ck_assert_msg(tally.of[kind] > 50 || (kind == MQSYNC_LOST && strategies[_i / 2] == MQSYNC_CLIENT_WINS),
                      "outcome %d came %u times", kind, tally.of[kind]);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("model");
    tcase_add_loop_test(tests, agrees_with_the_model, 0, 12);
    return run_tests("resolve_model", tests);
}
