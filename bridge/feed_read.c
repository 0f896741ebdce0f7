/* SPDX-License-Identifier: BSD-3-Clause */
/* One step of reading walks the changes of the collection since the seq that the client has, and sends what of them it
 * is to see: a step is short, so that neither the client's queue nor the loop's turn runs over. */
#include "feed_read.h"

#include "access.h"
#include "bridge.h"
#include "session.h"

enum {
    WALK_US = 2000,    /* for a feed that passes over records it does not show, who then gets his turn too */
    LOOK_AFTER = 1024, /* records passed over, or KiB, before it looks at the clock: under a millisecond */
    RACE_MS = 10000,   /* somebody else's change may be on its way to a client for so long */
};

struct moment {
    struct mqsync_view *view;
    struct mqsync_collection_stat stat;
    struct mqsync_slice name, epoch;
    bool fresh; /* holds everything that has been announced */
};

/* --- beginning and going on --------------------------------------------------------------------------------------- */

static enum mqsync_feed_step become_live(struct mqsync_feed *f, uint64_t seq)
{
    f->seq = f->complete = seq;
    f->live = f->subscription;
    return MQSYNC_STEP_DONE;
}

static void begin_counting(struct mqsync_feed *f)
{
    f->counting = true;
    /* what there is in all is told only with `subscribed` */
    f->count_from = f->count_at = f->subscription && !f->started ? 0 : f->seq;
    f->count_records = f->count_entries = 0;
}

/* The state begins anew: everything there is, then the changes. */
static void begin_whole(struct mqsync_feed *f, const struct moment *m)
{
    f->whole = true;
    f->whole_at = m->stat.seq;
    f->seq = 0;
    f->total = m->stat.records < f->left ? m->stat.records : f->left;
    f->counted = true;
    f->burying = f->anew = false;
    if (f->rule)
        begin_counting(f);
}

static uint64_t count_changes(const struct moment *m, uint64_t since, uint64_t max)
{
    struct mqsync_walk *walk;
    uint64_t n;

    if (mqsync_walk_changes(m->view, m->name, since, &walk, NULL) != MQSYNC_OK)
        return 0;
    n = mqsync_walk_count(walk, max);
    mqsync_walk_close(walk);
    return n;
}

static bool can_resume(const struct mqsync_feed *f, const struct moment *m)
{
    bool same = f->epoch[0] == '\0' || mqsync_slice_equal(mqsync_slice_str(f->epoch), m->epoch);
    return same && f->seq >= m->stat.oldest_seq && f->seq <= m->stat.seq;
}

static void send_subscribed(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq)
{
    mqsync_buf_clear(&b->answer);
    mqsync_subscribed_encode(&b->answer, mqsync_slice_str(f->channel->name), f->records, seq,
                             mqsync_slice_str(f->epoch), false);
    mqsync_session_send_read(f->session, mqsync_buf_slice(&b->answer));
}

void mqsync_feed_confirm(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    struct mqsync_collection_stat stat;
    struct mqsync_view *view;
    int64_t wait;

    if (!f->started)
        return;
    /* what an owner sees of it would have to be counted: he is told the number of the snapshot */
    view = f->rule || !b->database.dir ? NULL : mqsync_database_view(&b->database, mqsync_monotonic_us(), true, &wait);
    if (view && mqsync_view_collection(view, mqsync_slice_str(f->channel->name), &stat))
        f->records = stat.records;
    send_subscribed(b, f, f->seq);
}

/* The first moment of a subscription or `sync`. */
static void begin(struct mqsync_feed *f, const struct moment *m)
{
    f->records = m->stat.records;
    if (f->has_since && can_resume(f, m)) {
        f->whole = f->anew = false;
        f->counted = true;
        if (f->rule)
            begin_counting(f);
        else
            f->total = count_changes(m, f->seq, f->left);
    } else {
        begin_whole(f, m);
    }
    memcpy(f->epoch, m->epoch.p, m->epoch.n);
}

/* True: that was all. */
static bool announce(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m)
{
    f->started = true;
    if (f->subscription)
        send_subscribed(b, f, m->stat.seq);
    if (f->no_pages || (f->total == 0 && f->left > 0 && !f->page_always && !f->tombstones)) {
        f->page_always = f->whole = f->counted = false;
        return true;
    }
    return false;
}

/* A view that may be behind what has been announced, and so behind what the client has been sent, goes on with that. It
 * cannot tell that there is another state to begin with. */
static bool knows_enough(const struct mqsync_feed *f, const struct moment *m)
{
    return f->counting || (f->started && (f->whole || can_resume(f, m)));
}

/* Going on, perhaps after a restart of the broker with another database. */
static void resume(struct mqsync_feed *f, const struct moment *m)
{
    if (!f->anew && mqsync_slice_equal(mqsync_slice_str(f->epoch), m->epoch) && (f->whole || can_resume(f, m)))
        return;
    memcpy(f->epoch, m->epoch.p, m->epoch.n);
    begin_whole(f, m);
    f->page_always = f->page_always || f->started;
}

/* --- what the client knows ---------------------------------------------------------------------------------------- */

static bool is_own(const struct mqsync_feed *f, uint64_t seq)
{
    for (unsigned i = 0; i < MQSYNC_OWN_MAX && i < f->own_n; i++)
        if (f->own[i] == seq)
            return true;
    return false;
}

static bool has_own(const struct mqsync_feed *f, const struct mqsync_record *r)
{
    for (unsigned i = r->history_n; i-- > 0;)
        if (is_own(f, r->history[i].seq))
            return true;
    return false;
}

/* A client's own change is no news to it, unless somebody else has changed the record too, unseen by it or so shortly
 * before that the client may have put that in the place of its own change, or never knew what it was changing. The
 * history leaves out what the plugin need not remember: who made a version that is missing, nobody knows. */
static bool is_known(const struct mqsync_feed *f, const struct mqsync_record *r)
{
    const struct mqsync_change *last = &r->history[r->history_n - 1], *c = last;

    if (!is_own(f, r->seq))
        return false;
    while (c > r->history && c[-1].version + 1 == c->version && is_own(f, c[-1].seq))
        c--;
    if (c->version == 1)
        return true;
    if (c > r->history && c[-1].version + 1 == c->version)
        c--;
    return c->seq <= f->complete && last->arrived_ms - c->arrived_ms > RACE_MS;
}

/* --- single messages ---------------------------------------------------------------------------------------------- */

static void send_page(struct mqsync_feed *f, const struct mqsync_page *page)
{
    mqsync_session_send_read(f->session, page->out.failed ? (struct mqsync_slice){0} : mqsync_buf_slice(&page->out));
}

void mqsync_feed_send_as_page(struct mqsync_feed *f, struct mqsync_slice id, const struct mqsync_record *r)
{
    struct mqsync_page page = {0};

    mqsync_page_begin(&page, mqsync_slice_str(f->channel->name));
    mqsync_page_add(&page, id, r->data, r->version, r->updated_ms, false);
    mqsync_page_end(&page, mqsync_time_now(), r->seq, mqsync_slice_str(f->epoch), false, false, 1);
    send_page(f, &page);
    mqsync_page_free(&page);
}

static void send_event(struct mqsync_bridge *b, struct mqsync_feed *f, const struct mqsync_event *event)
{
    mqsync_buf_clear(&b->answer);
    mqsync_event_encode(&b->answer, event);
    mqsync_session_send_read(f->session, mqsync_buf_slice(&b->answer));
}

/* came: it was not there for the client before. */
static void send_record(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice id,
                        const struct mqsync_record *r, bool came)
{
    struct mqsync_event event = {
        .op = r->deleted                                     ? MQSYNC_DELETE
              : came || r->history[r->history_n - 1].created ? MQSYNC_INSERT
                                                             : MQSYNC_UPDATE,
        .collection = mqsync_slice_str(f->channel->name),
        .record_id = id,
        .data = r->data,
        .timestamp_ms = r->updated_ms,
        .version = r->version,
        .seq = r->seq,
        .user = r->user,
    };

    send_event(b, f, &event);
}

/* It is there, but not for the client: not who has changed it last either. */
static void send_gone(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice id,
                      const struct mqsync_record *r)
{
    struct mqsync_event event = {
        .op = MQSYNC_DELETE,
        .collection = mqsync_slice_str(f->channel->name),
        .record_id = id,
        .timestamp_ms = r->updated_ms,
        .version = r->version,
        .seq = r->seq,
    };

    send_event(b, f, &event);
}

/* --- walking ------------------------------------------------------------------------------------------------------ */

/* One step. It calls back for each record that it walks over; false: there is no room for that one, the step ends. */
struct walker {
    struct mqsync_bridge *b;
    struct mqsync_feed *f;
    struct mqsync_page page;
    size_t room;   /* bytes for the page: it has to fit into the queue, too */
    size_t sent;   /* messages */
    size_t passed; /* records passed over, and KiB of them, since the clock was looked at */
    /* with the feed's rule */
    const struct mqsync_collection_config *collection;
    struct mqsync_slice user;
};

static struct walker walker_of(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    struct walker w = {.b = b, .f = f, .room = b->config->bridge.send_queue_bytes / 2};

    if (f->rule) {
        w.collection = mqsync_config_collection(b->config, mqsync_slice_str(f->channel->name));
        w.user = mqsync_session_user(f->session);
    }
    return w;
}

static bool pass(struct walker *w, const struct mqsync_record *r)
{
    w->passed += 1 + r->data.n / 1024;
    return true;
}

static enum mqsync_sight sight_of(const struct walker *w, const struct mqsync_record *r, uint64_t since)
{
    if (!w->f->rule)
        return r->deleted ? MQSYNC_SIGHT_GONE : MQSYNC_SIGHT_RECORD;
    return w->collection ? mqsync_access_sight(w->collection, w->user, r, since) : MQSYNC_SIGHT_NONE;
}

static bool walk_page(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    struct mqsync_feed *f = w->f;
    enum mqsync_sight sight = sight_of(w, r, f->whole ? 0 : f->complete);
    bool gone = sight == MQSYNC_SIGHT_GONE;

    if (sight == MQSYNC_SIGHT_NONE || (gone && f->whole && (r->seq <= f->whole_at || f->tombstones)))
        return pass(w, r);
    if (w->page.out.n + w->page.deleted.n + (gone ? 0 : r->data.n) > w->room &&
        (w->page.records_n || w->page.deleted_n))
        return false;
    if (f->left == 0 || !mqsync_page_add(&w->page, id, r->data, r->version, r->updated_ms, gone))
        return false;
    f->left -= f->left != UINT64_MAX;
    return true;
}

static bool walk_count(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    struct mqsync_feed *f = w->f;
    enum mqsync_sight sight = sight_of(w, r, f->whole ? 0 : f->complete);

    (void)id;
    f->count_records += sight == MQSYNC_SIGHT_RECORD;
    f->count_entries += f->whole ? sight == MQSYNC_SIGHT_RECORD : sight != MQSYNC_SIGHT_NONE && r->seq > f->seq;
    return pass(w, r);
}

static bool has_room(const struct walker *w)
{
    return w->f->session->queue.bytes <= MQSYNC_QUEUE_LOW && w->sent < MQSYNC_PAGE_MAX_ENTRIES;
}

static bool walk_changes(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    struct mqsync_feed *f = w->f;
    enum mqsync_sight sight = sight_of(w, r, f->complete);
    bool lost = sight == MQSYNC_SIGHT_GONE && !r->deleted;
    bool page = f->tombstones && !lost && !r->deleted && has_own(f, r);

    if (sight == MQSYNC_SIGHT_NONE || (is_known(f, r) && !lost))
        return pass(w, r);
    if (!has_room(w))
        return false;
    if (lost)
        send_gone(w->b, f, id, r);
    else if (!page || !is_own(f, r->seq))
        send_record(w->b, f, id, r, f->rule && r->formers_n && r->formers[r->formers_n - 1].seq > f->complete);
    if (page)
        mqsync_feed_send_as_page(f, id, r);
    w->sent++;
    return true;
}

/* Those that have come since the snapshot are told in their turn, with the changes. */
static bool walk_tombstones(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    if (r->seq > w->f->whole_at || sight_of(w, r, 0) != MQSYNC_SIGHT_GONE || is_own(w->f, r->seq))
        return pass(w, r);
    if (!has_room(w))
        return false;
    if (r->deleted)
        send_record(w->b, w->f, id, r, false);
    else
        send_gone(w->b, w->f, id, r);
    w->sent++;
    return true;
}

/* Walks on from *at, which it moves, for as long as it may; *ret_end: there is nothing more. */
static enum mqsync_code walk(struct walker *w, const struct moment *m, uint64_t *at, bool *ret_end,
                             bool (*take)(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r),
                             struct mqsync_error *ret_error)
{
    int64_t until = mqsync_monotonic_us() + WALK_US;
    struct mqsync_record r;
    struct mqsync_slice id;
    struct mqsync_walk *walk = NULL;
    enum mqsync_code code = MQSYNC_RECORD_NOT_FOUND;

    if (m->stat.seq > 0)
        code = mqsync_walk_changes(m->view, m->name, *at, &walk, ret_error);
    while (walk && code == MQSYNC_OK) {
        code = mqsync_walk_next(walk, &id, &r, ret_error);
        if (code != MQSYNC_OK || !take(w, id, &r))
            break;
        *at = r.seq;
        if (w->passed < LOOK_AFTER)
            continue;
        w->passed = 0;
        if (mqsync_monotonic_us() >= until) {
            w->b->feeds.walked_long = true;
            break;
        }
    }
    mqsync_walk_close(walk);
    *ret_end = code == MQSYNC_RECORD_NOT_FOUND;
    return *ret_end ? MQSYNC_OK : code;
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static enum mqsync_feed_step step_count(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                                        struct mqsync_error *ret_error)
{
    struct walker w = walker_of(b, f);
    bool end;

    /* what changes while counting goes on in a newer view may be counted twice, or not: most counts need only one */
    if (f->count_at == f->count_from && !m->fresh)
        return MQSYNC_STEP_FRESH;
    if (walk(&w, m, &f->count_at, &end, walk_count, ret_error) != MQSYNC_OK)
        return MQSYNC_STEP_ENDED;
    if (!end)
        return MQSYNC_STEP_MORE;
    if (!f->started && !m->fresh)
        return MQSYNC_STEP_FRESH;
    f->counting = false;
    if (f->whole || !f->started)
        f->records = f->count_records;
    f->total = f->count_entries < f->left ? f->count_entries : f->left;
    f->counted = true;
    return MQSYNC_STEP_DONE;
}

static enum mqsync_feed_step step_page(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                                       struct mqsync_error *ret_error)
{
    struct walker w = walker_of(b, f);
    uint64_t at = f->seq, left = f->left;
    bool end;
    enum mqsync_feed_step step = MQSYNC_STEP_MORE;

    mqsync_page_begin(&w.page, m->name);
    if (walk(&w, m, &at, &end, walk_page, ret_error) != MQSYNC_OK) {
        mqsync_page_free(&w.page);
        return MQSYNC_STEP_ENDED;
    }
    bool last = (end && m->fresh) || f->left == 0;
    bool entries = w.page.records_n || w.page.deleted_n;
    if (end && !m->fresh && f->left > 0) {
        f->left = left;
        step = MQSYNC_STEP_FRESH;
    } else if (entries && !last && !f->paging && !f->counted && f->rule) {
        f->left = left;
        begin_counting(f);
        at = f->seq;
    } else if (entries || last) {
        if (!f->paging && !f->counted) /* changes that were missed: the client did not ask, and knows no total */
            f->total = last ? w.page.records_n + w.page.deleted_n : count_changes(m, f->seq, UINT64_MAX);
        if (entries || f->paging || f->page_always) {
            bool more = !last || (f->left == 0 && !end);
            mqsync_page_end(&w.page, mqsync_time_now(), end ? m->stat.seq : at, m->epoch, f->whole, more, f->total);
            send_page(f, &w.page);
            f->paging = true;
        }
    }
    if (step == MQSYNC_STEP_MORE)
        f->seq = at;
    mqsync_page_free(&w.page);
    if (step != MQSYNC_STEP_MORE || !last)
        return step;
    bool bury = f->whole && f->tombstones;
    f->paging = f->page_always = f->whole = f->counted = false;
    if (!bury)
        return become_live(f, m->stat.seq);
    f->burying = true;
    f->bury_at = 0;
    f->seq = m->stat.seq;
    f->whole_at = m->stat.seq;
    return MQSYNC_STEP_MORE;
}

static enum mqsync_feed_step step_tombstones(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                                             struct mqsync_error *ret_error)
{
    struct walker w = walker_of(b, f);
    bool end;

    if (walk(&w, m, &f->bury_at, &end, walk_tombstones, ret_error) != MQSYNC_OK)
        return MQSYNC_STEP_ENDED;
    f->burying = !end && f->bury_at < f->whole_at;
    return MQSYNC_STEP_MORE;
}

static enum mqsync_feed_step step_changes(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                                          struct mqsync_error *ret_error)
{
    struct walker w = walker_of(b, f);
    bool end;

    if (walk(&w, m, &f->seq, &end, walk_changes, ret_error) != MQSYNC_OK)
        return MQSYNC_STEP_ENDED;
    if (!end)
        return MQSYNC_STEP_MORE;
    return m->fresh ? become_live(f, m->stat.seq) : MQSYNC_STEP_FRESH;
}

enum mqsync_feed_step mqsync_feed_read(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_view *view,
                                       struct mqsync_error *ret_error)
{
    struct moment m = {
        .view = view, .name = mqsync_slice_str(f->channel->name), .epoch = mqsync_slice_str(mqsync_view_epoch(view))};

    mqsync_view_collection(view, m.name, &m.stat);
    m.fresh = b->database.opened_us >= f->channel->since_us && m.stat.seq >= f->channel->last_seq;
    if (!m.fresh && !knows_enough(f, &m))
        return MQSYNC_STEP_FRESH;
    if (f->started || f->counting)
        resume(f, &m);
    else
        begin(f, &m);
    if (f->counting) {
        enum mqsync_feed_step counted = step_count(b, f, &m, ret_error);
        if (counted != MQSYNC_STEP_DONE)
            return counted;
    }
    if (!f->started && announce(b, f, &m))
        return become_live(f, m.stat.seq);
    if (f->burying)
        return step_tombstones(b, f, &m, ret_error);
    if (f->full_updates && !f->whole && !f->page_always && !f->paging)
        return step_changes(b, f, &m, ret_error);
    return step_page(b, f, &m, ret_error);
}
