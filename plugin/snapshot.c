/* SPDX-License-Identifier: BSD-3-Clause */
#include "snapshot.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

enum mqsync_code mqsync_snapshot_open(struct mqsync_snapshot *s, struct mqsync_view *view,
                                      const struct mqsync_snapshot_query *q, uint64_t count_max,
                                      struct mqsync_error *ret_error)
{
    struct mqsync_collection_stat stat = {0};
    uint64_t since;

    s->view = view;
    s->collection = mqsync_slice_str(q->collection);
    s->left = q->limit;
    bool exists = mqsync_view_collection(view, s->collection, &stat);

    s->seq = stat.seq;
    s->records = stat.records;
    s->oldest_seq = stat.oldest_seq;
    s->full = !q->has_since || (q->since < stat.oldest_seq && !q->continues) || q->since > stat.seq;
    since = s->full ? 0 : q->since;
    s->last_seq = since;
    if (exists) {
        enum mqsync_code code = mqsync_walk_changes(view, s->collection, since, &s->walk, ret_error);
        if (code != MQSYNC_OK) {
            mqsync_snapshot_close(s);
            return code;
        }
    }
    if (s->full)
        s->total = smaller(stat.records, q->limit);
    else if (s->walk)
        s->total = mqsync_walk_count(s->walk, smaller(q->limit, count_max));
    s->done = s->total == 0 && q->limit > 0 && !q->page_always;
    return MQSYNC_OK;
}

/* Finds the next entry that belongs to the answer: the full state has no tombstones. */
static enum mqsync_code next_entry(struct mqsync_snapshot *s, struct mqsync_error *ret_error)
{
    if (s->pending)
        return MQSYNC_OK;
    if (!s->walk)
        return MQSYNC_RECORD_NOT_FOUND;
    do {
        enum mqsync_code code = mqsync_walk_next(s->walk, &s->id, &s->record, ret_error);
        if (code != MQSYNC_OK)
            return code;
        s->walked++;
    } while (s->full && s->record.deleted);
    s->pending = true;
    return MQSYNC_OK;
}

enum mqsync_code mqsync_snapshot_page(struct mqsync_snapshot *s, struct mqsync_error *ret_error)
{
    const struct mqsync_record *r = &s->record;
    enum mqsync_code code;

    mqsync_page_begin(&s->page, s->collection);
    while ((code = next_entry(s, ret_error)) == MQSYNC_OK) {
        if (s->left == 0 || !mqsync_page_add(&s->page, s->id, r->data, r->version, r->updated_ms, r->deleted))
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
    mqsync_view_close(s->view);
    mqsync_page_free(&s->page);
    s->walk = NULL;
    s->view = NULL;
}
