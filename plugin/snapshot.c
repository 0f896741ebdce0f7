/* SPDX-License-Identifier: BSD-3-Clause */
#include "snapshot.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool is_done_already(const struct mqsync_snapshot *s)
{
    return s->query->no_pages || (s->total == 0 && s->query->limit > 0 && !s->query->page_always);
}

enum mqsync_code mqsync_snapshot_open(struct mqsync_snapshot *s, struct mqsync_view *view,
                                      const struct mqsync_snapshot_query *q, uint64_t count_max,
                                      struct mqsync_error *ret_error)
{
    struct mqsync_collection_stat stat = {0};
    enum mqsync_code code = MQSYNC_OK;
    uint64_t since;

    s->view = view;
    s->query = q;
    s->collection = mqsync_slice_str(q->collection);
    s->left = q->limit;
    bool exists = mqsync_view_collection(view, s->collection, &stat);

    s->seq = stat.seq;
    s->records = stat.records;
    s->oldest_seq = stat.oldest_seq;
    s->full = !q->has_since || (q->since < stat.oldest_seq && !q->continues) || q->since > stat.seq;
    if (s->full && !q->owner &&
        smaller(stat.records, q->limit) >= count_max) { /* to open a walk costs all that is in memory */
        s->total = count_max;
        return MQSYNC_OK;
    }
    since = s->full ? 0 : q->since;
    s->last_seq = s->since = since;
    if (exists)
        code = mqsync_walk_changes(view, s->collection, since, &s->walk, ret_error);
    if (exists && q->owner && code == MQSYNC_OK)
        code = mqsync_walk_changes(view, s->collection, q->count ? 0 : since, &s->counting, ret_error);
    if (code != MQSYNC_OK) {
        mqsync_snapshot_close(s);
        return code;
    }
    if (q->owner)
        s->records = 0;
    else if (s->full)
        s->total = smaller(stat.records, q->limit);
    else if (s->walk)
        s->total = mqsync_walk_count(s->walk, smaller(q->limit, count_max));
    s->done = is_done_already(s);
    return MQSYNC_OK;
}

/* Whether the entry belongs to the answer, and how: the full state has no tombstones. A record that was ever the user's
 * and has changed after `since` is told as gone, whenever he has lost it: if `since` is where another answer was cut,
 * the loss may lie before it, and was to be told after it. */
static enum mqsync_sight sight_of(const struct mqsync_snapshot *s, const struct mqsync_record *r)
{
    enum mqsync_sight sight = r->deleted ? MQSYNC_SIGHT_GONE : MQSYNC_SIGHT_RECORD;

    if (s->query->owner) {
        struct mqsync_collection_config c = {.owner = (char *)(uintptr_t)s->query->owner};
        sight = mqsync_access_sight(&c, s->query->user, r, 0);
    }
    return s->full && sight == MQSYNC_SIGHT_GONE ? MQSYNC_SIGHT_NONE : sight;
}

static void count_entry(struct mqsync_snapshot *s)
{
    struct mqsync_collection_config c = {.owner = (char *)(uintptr_t)s->query->owner};

    s->records += mqsync_access_sight(&c, s->query->user, &s->record, 0) == MQSYNC_SIGHT_RECORD;
    if (s->total < s->query->limit && s->record.seq > s->since)
        s->total += sight_of(s, &s->record) != MQSYNC_SIGHT_NONE;
}

enum mqsync_code mqsync_snapshot_count(struct mqsync_snapshot *s, uint64_t max, bool *ret_done,
                                       struct mqsync_error *ret_error)
{
    *ret_done = !s->counting;
    for (; s->counting && max; max--) {
        enum mqsync_code code = mqsync_walk_next(s->counting, &s->id, &s->record, ret_error);
        if (code == MQSYNC_OK) {
            s->walked++;
            count_entry(s);
            continue;
        }
        if (code != MQSYNC_RECORD_NOT_FOUND)
            return code;
        mqsync_walk_close(s->counting);
        s->counting = NULL;
        s->done = is_done_already(s);
        *ret_done = true;
    }
    return MQSYNC_OK;
}

/* Finds the next entry that belongs to the answer. */
static enum mqsync_code next_entry(struct mqsync_snapshot *s, uint64_t walk_max, struct mqsync_error *ret_error)
{
    if (s->pending)
        return MQSYNC_OK;
    if (!s->walk)
        return MQSYNC_RECORD_NOT_FOUND;
    do {
        s->gave_up = s->walked >= walk_max;
        if (s->gave_up)
            return MQSYNC_RECORD_NOT_FOUND;
        enum mqsync_code code = mqsync_walk_next(s->walk, &s->id, &s->record, ret_error);
        if (code != MQSYNC_OK)
            return code;
        s->walked++;
        s->sight = sight_of(s, &s->record);
    } while (s->sight == MQSYNC_SIGHT_NONE);
    s->pending = true;
    return MQSYNC_OK;
}

enum mqsync_code mqsync_snapshot_page(struct mqsync_snapshot *s, uint64_t walk_max, struct mqsync_error *ret_error)
{
    const struct mqsync_record *r = &s->record;
    enum mqsync_code code;

    mqsync_page_begin(&s->page, s->collection);
    while ((code = next_entry(s, walk_max, ret_error)) == MQSYNC_OK) {
        if (s->left == 0 ||
            !mqsync_page_add(&s->page, s->id, r->data, r->version, r->updated_ms, s->sight == MQSYNC_SIGHT_GONE))
            break;
        s->pending = false;
        s->left--;
        s->last_seq = r->seq;
    }
    if (code != MQSYNC_OK && code != MQSYNC_RECORD_NOT_FOUND)
        return code;
    bool more = code == MQSYNC_OK;
    s->done = !more || s->left == 0;
    if (more && s->done && s->last_seq < s->oldest_seq)
        s->cut_at = s->last_seq;
    mqsync_page_end(&s->page, mqsync_time_now(), more ? s->last_seq : s->seq,
                    mqsync_slice_str(mqsync_view_epoch(s->view)), s->full, more, s->total);
    if (s->page.out.failed)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory while a page was made");
    return MQSYNC_OK;
}

void mqsync_snapshot_close(struct mqsync_snapshot *s)
{
    mqsync_walk_close(s->walk);
    mqsync_walk_close(s->counting);
    mqsync_view_close(s->view);
    mqsync_page_free(&s->page);
    s->walk = NULL;
    s->counting = NULL;
    s->view = NULL;
}
