/* SPDX-License-Identifier: BSD-3-Clause */
#include "merge.h"
#include "decimal.h"
#include "json_tree.h"
#include "merge_deep.h"

#include <stdlib.h>

/* A member of either side on its way into the result. */
struct fate {
    struct mqsync_slice value; /* what it is replaced by; p NULL: what it was */
    size_t made_at, made_n;    /* made_n not 0: replaced by this part of work.made */
    bool dropped;              /* remote's: not in the result */
    bool added;                /* local's: put behind remote's members */
    bool is_stamp;             /* fieldLevelLastWriteWins: the time of another field, and goes where that goes */
};

struct work {
    const struct mqsync_merge *m;
    struct mqsync_json_index local, remote;
    struct fate *local_fate, *remote_fate;
    struct mqsync_buf made; /* values that are in neither text */
    struct mqsync_buf key;
};

static bool is_null(struct mqsync_slice value)
{
    return mqsync_json_typeof(value) == MQSYNC_JSON_NULL;
}

static struct mqsync_slice key_at(const struct mqsync_json_index *x, size_t i)
{
    return (struct mqsync_slice){x->keys[i].p, x->keys[i].n};
}

/* Local's member (NO_KEY: it has none) in the place of remote's (NO_KEY: it is new). */
static void take_local(struct work *w, size_t remote, size_t local)
{
    bool gone = local == MQSYNC_JSON_NO_KEY || (w->m->partial && is_null(w->local.values[local]));
    if (remote == MQSYNC_JSON_NO_KEY)
        w->local_fate[local].added = !gone;
    else if (gone)
        w->remote_fate[remote].dropped = true;
    else
        w->remote_fate[remote].value = w->local.values[local];
}

/* --- strategies with a list of fields ----------------------------------------------------------------------------- */

static bool both(const struct work *w, size_t remote, size_t local, enum mqsync_json_type type)
{
    return remote != MQSYNC_JSON_NO_KEY && mqsync_json_typeof(w->remote.values[remote]) == type &&
           mqsync_json_typeof(w->local.values[local]) == type;
}

/* local is there, remote may be NO_KEY. */
static void merge_field(struct work *w, size_t remote, size_t local)
{
    size_t made_at = w->made.n;
    switch (w->m->rules->strategy) {
    case MQSYNC_MERGE_FIELDS:
        take_local(w, remote, local);
        return;
    case MQSYNC_MAX_VALUE:
        if (both(w, remote, local, MQSYNC_JSON_NUMBER) &&
            mqsync_json_number_compare(w->local.values[local], w->remote.values[remote]) > 0)
            take_local(w, remote, local);
        return;
    case MQSYNC_SUM_NUMBERS:
        if (both(w, remote, local, MQSYNC_JSON_NUMBER))
            mqsync_decimal_sum(&w->made, w->local.values[local], w->remote.values[remote]);
        break;
    case MQSYNC_MERGE_ARRAYS:
        if (both(w, remote, local, MQSYNC_JSON_ARRAY))
            mqsync_json_union(&w->made, w->local.values[local], w->remote.values[remote]);
        break;
    default:
        return;
    }
    if (w->made.n > made_at) {
        w->remote_fate[remote].made_at = made_at;
        w->remote_fate[remote].made_n = w->made.n - made_at;
    }
}

static void merge_listed(struct work *w)
{
    const struct mqsync_rules *rules = w->m->rules;
    for (size_t i = 0; i < rules->fields_n; i++) {
        mqsync_buf_clear(&w->key);
        mqsync_json_add_string(&w->key, rules->fields[i]);
        if (w->key.failed)
            return;
        struct mqsync_slice key = mqsync_json_inside(mqsync_buf_slice(&w->key));
        size_t local = mqsync_json_index_find(&w->local, key);
        if (local != MQSYNC_JSON_NO_KEY)
            merge_field(w, mqsync_json_index_find(&w->remote, key), local);
    }
}

/* --- fieldLevelLastWriteWins -------------------------------------------------------------------------------------- */

/* A field on both sides, and the times that go with it. Each may be NO_KEY. */
struct field {
    size_t local, remote;
    size_t local_stamp, remote_stamp;
};

static struct field field_of(struct work *w, struct mqsync_slice key)
{
    struct field f = {mqsync_json_index_find(&w->local, key), mqsync_json_index_find(&w->remote, key),
                      MQSYNC_JSON_NO_KEY, MQSYNC_JSON_NO_KEY};
    mqsync_buf_clear(&w->key);
    mqsync_buf_add_slice(&w->key, key);
    mqsync_buf_add_str(&w->key, "_updatedAt");
    if (!w->key.failed) {
        f.local_stamp = mqsync_json_index_find(&w->local, mqsync_buf_slice(&w->key));
        f.remote_stamp = mqsync_json_index_find(&w->remote, mqsync_buf_slice(&w->key));
    }
    return f;
}

static bool read_stamp(const struct mqsync_json_index *x, size_t i, struct mqsync_time *ret)
{
    if (i == MQSYNC_JSON_NO_KEY || mqsync_json_typeof(x->values[i]) != MQSYNC_JSON_STRING)
        return false;
    return mqsync_time_parse(mqsync_json_inside(x->values[i]), ret);
}

/* A time that cannot be, because it has not come yet anywhere, counts as `instead`: it must not lock the field. */
static int64_t credible(struct mqsync_time t, int64_t arrived_ms, int64_t instead_ms)
{
    const int64_t furthest_zone_ms = 14 * 3600 * 1000;
    int64_t ahead = t.kind == MQSYNC_TIME_ZONELESS ? furthest_zone_ms : 0;
    return t.ms - ahead > arrived_ms ? instead_ms : t.ms;
}

static bool local_wins(const struct work *w, const struct field *f)
{
    struct mqsync_time local, remote;
    if (!read_stamp(&w->local, f->local_stamp, &local) || !read_stamp(&w->remote, f->remote_stamp, &remote) ||
        local.kind != remote.kind)
        return w->m->local_is_later;
    return credible(local, w->m->arrived_ms, w->m->arrived_ms) > credible(remote, w->m->arrived_ms, w->m->updated_ms);
}

/* What an update does not name is not up for decision, and a time alone is a field like others. */
static bool at_stake(const struct work *w, const struct field *f)
{
    return f->local != MQSYNC_JSON_NO_KEY || !w->m->partial;
}

static void mark_stamps(struct work *w, const struct field *f)
{
    if (!at_stake(w, f))
        return;
    if (f->local_stamp != MQSYNC_JSON_NO_KEY)
        w->local_fate[f->local_stamp].is_stamp = true;
    if (f->remote_stamp != MQSYNC_JSON_NO_KEY)
        w->remote_fate[f->remote_stamp].is_stamp = true;
}

static void decide_field(struct work *w, const struct field *f)
{
    if (!at_stake(w, f) || !local_wins(w, f))
        return;
    take_local(w, f->remote, f->local);
    if (f->local_stamp != MQSYNC_JSON_NO_KEY || (!w->m->partial && f->remote_stamp != MQSYNC_JSON_NO_KEY))
        take_local(w, f->remote_stamp, f->local_stamp);
}

static void merge_by_stamps(struct work *w)
{
    for (int deciding = 0; deciding < 2; deciding++) {
        for (size_t i = 0; i < w->remote.n; i++) {
            struct field f = field_of(w, key_at(&w->remote, i));
            if (!deciding)
                mark_stamps(w, &f);
            else if (!w->remote_fate[i].is_stamp)
                decide_field(w, &f);
        }
        for (size_t i = 0; i < w->local.n; i++) {
            struct field f = field_of(w, key_at(&w->local, i));
            if (f.remote != MQSYNC_JSON_NO_KEY)
                continue;
            if (!deciding)
                mark_stamps(w, &f);
            else if (!w->local_fate[i].is_stamp)
                decide_field(w, &f);
        }
    }
}

/* --- the result --------------------------------------------------------------------------------------------------- */

static void add_member(struct mqsync_buf *out, size_t start, struct mqsync_slice key, struct mqsync_slice value)
{
    if (out->n != start + 1)
        mqsync_buf_add_char(out, ',');
    mqsync_buf_add(out, key.p - 1, key.n + 2);
    mqsync_buf_add_char(out, ':');
    mqsync_buf_add_slice(out, value);
}

static void write_result(struct mqsync_buf *out, const struct work *w)
{
    size_t start = out->n;
    mqsync_buf_add_char(out, '{');
    for (size_t i = 0; i < w->remote.n; i++) {
        const struct fate *f = &w->remote_fate[i];
        struct mqsync_slice value = w->remote.values[i];
        if (f->made_n)
            value = (struct mqsync_slice){w->made.p + f->made_at, f->made_n};
        else if (f->value.p)
            value = f->value;
        if (!f->dropped)
            add_member(out, start, key_at(&w->remote, i), value);
    }
    for (size_t i = 0; i < w->local.n; i++) {
        if (w->local_fate[i].added)
            add_member(out, start, key_at(&w->local, i), w->local.values[i]);
    }
    mqsync_buf_add_char(out, '}');
}

static bool work_init(struct work *w, const struct mqsync_merge *m)
{
    *w = (struct work){.m = m};
    bool done = mqsync_json_index_init(&w->local, m->local);
    done = mqsync_json_index_init(&w->remote, m->remote) && done;
    w->local_fate = calloc(w->local.n + 1, sizeof(*w->local_fate));
    w->remote_fate = calloc(w->remote.n + 1, sizeof(*w->remote_fate));
    return done && w->local_fate && w->remote_fate;
}

static void work_fini(struct work *w)
{
    mqsync_json_index_fini(&w->local);
    mqsync_json_index_fini(&w->remote);
    free(w->local_fate);
    free(w->remote_fate);
    mqsync_buf_free(&w->made);
    mqsync_buf_free(&w->key);
}

void mqsync_merge(struct mqsync_buf *out, const struct mqsync_merge *m)
{
    if (m->rules->strategy == MQSYNC_DEEP_MERGE) {
        mqsync_merge_deep(out, m);
        return;
    }
    struct work w;
    if (!work_init(&w, m))
        out->failed = true;
    else if (m->rules->strategy == MQSYNC_FIELD_LEVEL_LAST_WRITE_WINS)
        merge_by_stamps(&w);
    else
        merge_listed(&w);
    out->failed |= w.made.failed || w.key.failed;
    if (!out->failed)
        write_result(out, &w);
    work_fini(&w);
}
