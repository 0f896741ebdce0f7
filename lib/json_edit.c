/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON objects changed by, and told apart as, rows of members. */
#include "json_scan.h"

#include <stdlib.h>

struct row {
    struct mqsync_slice value;
    bool seen; /* in the other object */
};

/* The members of one object, to be found by key. */
struct rows {
    struct mqsync_json_keys set;
    size_t cap;
    struct mqsync_json_key *keys;
    struct row *rows;
    struct mqsync_json_key keys_at_hand[MQSYNC_JSON_FEW_KEYS];
    struct row rows_at_hand[MQSYNC_JSON_FEW_KEYS];
};

static bool rows_grow(struct rows *r)
{
    size_t n = r->set.n, cap = r->cap * 4;
    struct mqsync_json_key *keys = malloc(cap * sizeof(*keys));
    struct row *rows = malloc(cap * sizeof(*rows));

    if (!keys || !rows) {
        free(keys);
        free(rows);
        return false;
    }
    memcpy(keys, r->keys, n * sizeof(*keys));
    memcpy(rows, r->rows, n * sizeof(*rows));
    if (r->keys != r->keys_at_hand) {
        free(r->keys);
        free(r->rows);
    }
    r->keys = keys;
    r->rows = rows;
    r->cap = cap;
    return true;
}

static void rows_free(struct rows *r)
{
    mqsync_json_keys_free(&r->set);
    if (r->keys != r->keys_at_hand) {
        free(r->keys);
        free(r->rows);
    }
}

/* Reads all members. False when out of memory; rows_free() is due in any case. */
static bool rows_read(struct rows *r, struct mqsync_slice object)
{
    mqsync_json_keys_init(&r->set);
    r->cap = MQSYNC_JSON_FEW_KEYS;
    r->keys = r->keys_at_hand;
    r->rows = r->rows_at_hand;

    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key, value;
    while (mqsync_json_next_member(&it, &key, &value)) {
        size_t n = r->set.n;
        if (n == r->cap && !rows_grow(r))
            return false;
        r->keys[n] = mqsync_json_make_key(key.p, key.n);
        r->rows[n] = (struct row){value, false};
        if (!mqsync_json_keys_add(&r->set, r->keys))
            return false;
    }
    return true;
}

/* The rows are somewhere, which an analyser of single functions cannot know. */
__attribute__((returns_nonnull)) static struct row *rows_at(const struct rows *r, size_t i)
{
    return &r->rows[i];
}

static struct row *rows_find(const struct rows *r, struct mqsync_slice key)
{
    struct mqsync_json_key wanted = mqsync_json_make_key(key.p, key.n);
    size_t i = mqsync_json_keys_find(&r->set, r->keys, &wanted);

    return i == MQSYNC_JSON_NO_KEY ? NULL : rows_at(r, i);
}

static bool is_null(struct mqsync_slice value)
{
    return value.n && value.p[0] == 'n';
}

/* Writes an object into memory with room for it. */
struct writer {
    char *object;
    char *to;
    struct mqsync_slice run; /* members of base that follow each other unchanged: copied at once */
};

static void put_comma(struct writer *w)
{
    if (w->to != w->object + 1)
        *w->to++ = ',';
}

static void put_run(struct writer *w)
{
    if (w->run.n == 0)
        return;
    put_comma(w);
    memcpy(w->to, w->run.p, w->run.n);
    w->to += w->run.n;
    w->run.n = 0;
}

static void put_member(struct writer *w, struct mqsync_slice key, struct mqsync_slice value)
{
    put_run(w);
    put_comma(w);
    memcpy(w->to, key.p - 1, key.n + 2);
    w->to += key.n + 2;
    *w->to++ = ':';
    w->to = mqsync_json_minify_to(w->to, value);
}

static void keep_member(struct writer *w, struct mqsync_slice key, struct mqsync_slice value)
{
    bool minified = value.p == key.p + key.n + 2 && *value.p != '{' && *value.p != '[';
    const char *begin = key.p - 1, *end = mqsync_json_end(value);

    if (!minified) {
        put_member(w, key, value);
    } else if (w->run.n && begin == w->run.p + w->run.n + 1) {
        w->run.n = (size_t)(end - w->run.p);
    } else {
        put_run(w);
        w->run = (struct mqsync_slice){begin, (size_t)(end - begin)};
    }
}

static void apply_any(struct mqsync_buf *out, struct mqsync_slice base, struct mqsync_slice delta)
{
    struct rows changes;
    bool read = rows_read(&changes, delta);

    /* every member written takes its key, colon, comma and value from a different place of base and delta */
    char *object = mqsync_buf_reserve(out, base.n + delta.n + 2);
    if (!read || !object) {
        out->failed = true;
        rows_free(&changes);
        return;
    }

    struct writer w = {.object = object, .to = object};
    *w.to++ = '{';
    struct mqsync_json_iter it = mqsync_json_members(base);
    struct mqsync_slice key, value;
    while (mqsync_json_next_member(&it, &key, &value)) {
        struct row *change = rows_find(&changes, key);
        if (!change) {
            keep_member(&w, key, value);
        } else if (!change->seen) {
            change->seen = true;
            if (!is_null(change->value))
                put_member(&w, key, change->value);
        }
    }
    for (size_t i = 0; i < changes.set.n; i++) {
        const struct row *change = rows_at(&changes, i);
        if (!change->seen && !is_null(change->value))
            put_member(&w, (struct mqsync_slice){changes.keys[i].p, changes.keys[i].n}, change->value);
    }
    put_run(&w);
    *w.to++ = '}';
    out->n = (size_t)(w.to - out->p);
    rows_free(&changes);
}

/* --- deltas of few members ---------------------------------------------------------------------------------------- */

static bool same_key(const struct mqsync_json_member *a, const struct mqsync_json_member *b)
{
    return a->sign == b->sign && a->key_n == b->key_n && memcmp(a->p, b->p, a->key_n + 1) == 0;
}

static bool member_is_null(const struct mqsync_json_member *m)
{
    return m->p[m->key_n + 3] == 'n';
}

struct few {
    size_t n, next; /* the one behind the last found: a delta tends to name members in the object's order */
    uint32_t seen;
    struct mqsync_json_member members[MQSYNC_JSON_FEW_KEYS];
};

/* Index of the change to the member, or n. */
static size_t find_change(struct few *delta, const struct mqsync_json_member *m)
{
    size_t i = delta->next;

    if (i == delta->n || !same_key(&delta->members[i], m))
        for (i = 0; i < delta->n && !same_key(&delta->members[i], m); i++)
            ;
    if (i < delta->n)
        delta->next = i + 1;
    return i;
}

/* Members that follow each other in base or delta are copied at once. */
static void keep_split(struct writer *w, const struct mqsync_json_member *m)
{
    if (w->run.n && m->p == w->run.p + w->run.n + 1) {
        w->run.n += m->n + 1;
        return;
    }
    put_run(w);
    w->run = (struct mqsync_slice){m->p, m->n};
}

static char *apply_few(char *object, const struct mqsync_json_member *base, size_t base_n, struct few *delta)
{
    struct writer w = {.object = object, .to = object};

    *w.to++ = '{';
    for (size_t i = 0; i < base_n; i++) {
        size_t at = find_change(delta, &base[i]);
        if (at == delta->n) {
            keep_split(&w, &base[i]);
            continue;
        }
        delta->seen |= UINT32_C(1) << at;
        if (!member_is_null(&delta->members[at]))
            keep_split(&w, &delta->members[at]);
    }
    for (size_t i = 0; i < delta->n; i++)
        if (!(delta->seen >> i & 1) && !member_is_null(&delta->members[i]))
            keep_split(&w, &delta->members[i]);
    put_run(&w);
    *w.to++ = '}';
    return w.to;
}

void mqsync_json_apply_delta(struct mqsync_buf *out, struct mqsync_slice base, struct mqsync_slice delta)
{
    struct mqsync_json_member members[MQSYNC_JSON_FEW_KEYS];
    struct few changes;

    size_t members_n = mqsync_json_split(base, members);
    changes.n = members_n == MQSYNC_JSON_NOT_SPLIT ? MQSYNC_JSON_NOT_SPLIT : mqsync_json_split(delta, changes.members);
    if (changes.n == MQSYNC_JSON_NOT_SPLIT) {
        apply_any(out, base, delta);
        return;
    }
    changes.next = 0;
    changes.seen = 0;
    char *object = mqsync_buf_reserve(out, base.n + delta.n + 2);
    if (object)
        out->n = (size_t)(apply_few(object, members, members_n, &changes) - out->p);
}

/* --- differences -------------------------------------------------------------------------------------------------- */

static void add_member(struct mqsync_buf *out, size_t object, struct mqsync_slice key, struct mqsync_slice value)
{
    if (out->n != object + 1)
        mqsync_buf_add_char(out, ',');
    mqsync_buf_add(out, key.p - 1, key.n + 2);
    mqsync_buf_add_char(out, ':');
    mqsync_json_minify(out, value);
}

void mqsync_json_diff(struct mqsync_buf *out, struct mqsync_slice from, struct mqsync_slice to, bool full)
{
    struct rows old;

    if (!rows_read(&old, from)) {
        out->failed = true;
        rows_free(&old);
        return;
    }

    size_t object = out->n;
    mqsync_buf_add_char(out, '{');
    struct mqsync_json_iter it = mqsync_json_members(to);
    struct mqsync_slice key, value;
    while (mqsync_json_next_member(&it, &key, &value)) {
        struct row *before = rows_find(&old, key);
        if (before)
            before->seen = true;
        if (full || !before || !mqsync_json_equal(before->value, value))
            add_member(out, object, key, value);
    }
    for (size_t i = 0; i < old.set.n; i++)
        if (!rows_at(&old, i)->seen)
            add_member(out, object, (struct mqsync_slice){old.keys[i].p, old.keys[i].n}, MQSYNC_SLICE("null"));
    mqsync_buf_add_char(out, '}');
    rows_free(&old);
}
