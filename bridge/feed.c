/* SPDX-License-Identifier: BSD-3-Clause */
#include "feed.h"

#include <stdlib.h>

#include "access.h"
#include "bridge.h"
#include "server.h"
#include "session.h"

enum {
    PUMP_US = 8000,    /* at most, before the sockets get their turn */
    WALK_US = 2000,    /* for a feed that passes over records it does not show, who then gets his turn too */
    LOOK_AFTER = 1024, /* records passed over, or KiB, before it looks at the clock: under a millisecond */
    ASK_AGAIN_US = 200000,
    ANSWER_US = 20000000, /* a question whose answer, or next page, takes longer is asked anew */
    RACE_MS = 10000,      /* somebody else's change may be on its way to a client for so long */
    CLOSE_TRY_AGAIN = 1013,
};

enum step {
    STEP_DONE,  /* live, or the `sync` is answered */
    STEP_MORE,  /* to be called again, once there is room */
    STEP_FRESH, /* needs a newer view */
    STEP_ENDED, /* failed; the client has been told */
};

/* --- opening and closing ------------------------------------------------------------------------------------------ */

enum mqsync_code mqsync_feed_open(struct mqsync_bridge *b, struct mqsync_session *s, const struct mqsync_message *m,
                                  uint64_t rule, bool tombstones, struct mqsync_feed **ret)
{
    struct mqsync_feed *f = calloc(1, sizeof(*f));

    if (!f)
        return MQSYNC_SERVER_ERROR;
    f->session = s;
    f->subscription = m->type == MQSYNC_TYPE_SUBSCRIBE;
    f->channel = mqsync_channel_enter(b, m->collection);
    if (f->channel && f->subscription && !mqsync_channel_add(f->channel, f)) {
        mqsync_channel_leave(b, f->channel);
        f->channel = NULL;
    }
    if (!f->channel) {
        free(f);
        return MQSYNC_SERVER_ERROR;
    }
    f->rule = rule;
    f->tombstones = tombstones;
    f->full_updates = f->subscription && m->full_updates;
    f->no_pages = m->no_sync;
    f->has_since = m->has_since;
    f->seq = m->since;
    if (m->epoch.n >= sizeof(f->epoch))
        f->has_since = false; /* no epoch of ours is that long */
    else if (m->epoch.n)
        memcpy(f->epoch, m->epoch.p, m->epoch.n);
    f->page_always = !f->subscription || m->has_since;
    f->left = m->has_limit ? m->limit : UINT64_MAX;
    b->metrics.subscriptions += f->subscription;
    mqsync_feed_hunger(b, f);
    *ret = f;
    return MQSYNC_OK;
}

static void leave_turn(struct mqsync_feeds *feeds, struct mqsync_feed *f)
{
    struct mqsync_feed *before = NULL;

    for (struct mqsync_feed *at = feeds->first; at != f; at = at->next_hungry)
        before = at;
    if (before)
        before->next_hungry = f->next_hungry;
    else
        feeds->first = f->next_hungry;
    if (feeds->last == f)
        feeds->last = before;
    f->hungry = false;
}

void mqsync_feed_close(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    if (f->hungry)
        leave_turn(&b->feeds, f);
    mqsync_feed_forget_question(b, f);
    if (f->subscription)
        mqsync_channel_remove(f->channel, f);
    b->metrics.subscriptions -= f->subscription;
    mqsync_channel_leave(b, f->channel);
    free(f);
}

static bool enter_turn(struct mqsync_feeds *feeds, struct mqsync_feed *f)
{
    if (f->hungry || f->asked || f->live)
        return false;
    if (f->session->queue.bytes > MQSYNC_QUEUE_LOW) {
        f->session->starving = true;
        return false;
    }
    f->hungry = true;
    f->next_hungry = NULL;
    if (feeds->last)
        feeds->last->next_hungry = f;
    else
        feeds->first = f;
    feeds->last = f;
    return true;
}

void mqsync_feed_hunger(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    if (enter_turn(&b->feeds, f))
        mqsync_server_pump_in(b->server, 0);
}

void mqsync_feed_begin_anew(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t rule)
{
    f->rule = rule;
    f->anew = true;
    f->live = f->paging = f->counting = false;
    f->complete = 0;
    mqsync_feed_forget_question(b, f);
    mqsync_feed_hunger(b, f);
}

/* --- live events -------------------------------------------------------------------------------------------------- */

static void not_live(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    f->live = false;
    mqsync_feed_hunger(b, f);
}

static void hold(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq, struct mqsync_frame *frame, bool own)
{
    struct mqsync_frame *kept = own     ? mqsync_frame_alloc((struct mqsync_slice){0})
                                : frame ? mqsync_frame_ref(frame)
                                        : NULL;

    if (own && kept)
        kept->seq = seq;
    if (kept && f->held.bytes + kept->n > b->config->bridge.send_queue_bytes) {
        mqsync_frame_unref(kept);
        kept = NULL;
    }
    if (!kept || !mqsync_queue_push(&f->held, kept)) {
        mqsync_queue_free(&f->held);
        f->held_lost = true;
    }
}

void mqsync_feed_event(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq, struct mqsync_frame *frame,
                       bool own)
{
    bool nothing = frame && frame->n == 0;

    /* one that the database has shown before its event came has been sent to its own author, perhaps over a later one
     * that is on its way: that has to follow */
    if (own && f->full_updates && seq > f->seq)
        f->own[f->own_n++ % MQSYNC_OWN_MAX] = seq;
    if (!f->live) {
        if (f->asked && !f->held_lost)
            hold(b, f, seq, frame, own);
        return;
    }
    if (seq <= f->seq)
        return;
    if (seq != f->seq + 1 || !frame || (f->full_updates && !nothing)) {
        not_live(b, f);
        return;
    }
    f->seq = f->complete = seq;
    if (!own && !nothing)
        mqsync_session_send(f->session, mqsync_frame_ref(frame));
}

void mqsync_feed_unsent(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq)
{
    if (f->started && f->seq >= seq)
        f->seq = seq - 1;
    if (f->complete >= seq)
        f->complete = seq - 1;
    if (f->live)
        not_live(b, f);
}

static enum step become_live(struct mqsync_feed *f, uint64_t seq)
{
    f->seq = f->complete = seq;
    f->live = f->subscription;
    return STEP_DONE;
}

/* --- from the database: one step sends at most one page ----------------------------------------------------------- */

struct moment {
    struct mqsync_view *view;
    struct mqsync_collection_stat stat;
    struct mqsync_slice name, epoch;
    bool fresh; /* holds everything that has been announced */
};

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
                             mqsync_slice_str(f->epoch));
    mqsync_session_send_text(f->session, mqsync_buf_slice(&b->answer));
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

/* Going on, perhaps after a restart of the broker with another database. */
static void resume(struct mqsync_feed *f, const struct moment *m)
{
    if (!f->anew && mqsync_slice_equal(mqsync_slice_str(f->epoch), m->epoch) && (f->whole || can_resume(f, m)))
        return;
    memcpy(f->epoch, m->epoch.p, m->epoch.n);
    begin_whole(f, m);
    f->page_always = f->page_always || f->started;
}

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

/* A page of one, after the event. An app that has changed a record itself takes an `update` of it for a conflict and
 * lets its own clock decide who wins; a page it takes as it is. */
static void send_as_page(struct mqsync_feed *f, struct mqsync_slice id, const struct mqsync_record *r)
{
    struct mqsync_page page = {0};

    mqsync_page_begin(&page, mqsync_slice_str(f->channel->name));
    mqsync_page_add(&page, id, r->data, r->version, r->updated_ms, false);
    mqsync_page_end(&page, mqsync_time_now(), r->seq, mqsync_slice_str(f->epoch), false, false, 1);
    mqsync_session_send_text(f->session, page.out.failed ? (struct mqsync_slice){0} : mqsync_buf_slice(&page.out));
    mqsync_page_free(&page);
}

static void send_event(struct mqsync_bridge *b, struct mqsync_feed *f, const struct mqsync_event *event)
{
    mqsync_buf_clear(&b->answer);
    mqsync_event_encode(&b->answer, event);
    mqsync_session_send_text(f->session, mqsync_buf_slice(&b->answer));
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
        send_as_page(f, id, r);
    w->sent++;
    return true;
}

static bool walk_tombstones(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    if (sight_of(w, r, 0) != MQSYNC_SIGHT_GONE || is_own(w->f, r->seq))
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

static enum step step_count(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                            struct mqsync_error *error)
{
    struct walker w = walker_of(b, f);
    bool end;

    /* what changes while counting goes on in a newer view may be counted twice, or not: most counts need only one */
    if (f->count_at == f->count_from && !m->fresh)
        return STEP_FRESH;
    if (walk(&w, m, &f->count_at, &end, walk_count, error) != MQSYNC_OK)
        return STEP_ENDED;
    if (!end)
        return STEP_MORE;
    if (!f->started && !m->fresh)
        return STEP_FRESH;
    f->counting = false;
    if (f->whole || !f->started)
        f->records = f->count_records;
    f->total = f->count_entries < f->left ? f->count_entries : f->left;
    f->counted = true;
    return STEP_DONE;
}

static enum step step_page(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                           struct mqsync_error *error)
{
    struct walker w = walker_of(b, f);
    uint64_t at = f->seq, left = f->left;
    bool end;
    enum step step = STEP_MORE;

    mqsync_page_begin(&w.page, m->name);
    if (walk(&w, m, &at, &end, walk_page, error) != MQSYNC_OK) {
        mqsync_page_free(&w.page);
        return STEP_ENDED;
    }
    bool last = (end && m->fresh) || f->left == 0;
    bool entries = w.page.records_n || w.page.deleted_n;
    if (end && !m->fresh && f->left > 0) {
        f->left = left;
        step = STEP_FRESH;
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
            mqsync_session_send_text(f->session,
                                     w.page.out.failed ? (struct mqsync_slice){0} : mqsync_buf_slice(&w.page.out));
            f->paging = true;
        }
    }
    if (step == STEP_MORE)
        f->seq = at;
    mqsync_page_free(&w.page);
    if (step != STEP_MORE || !last)
        return step;
    bool bury = f->whole && f->tombstones;
    f->paging = f->page_always = f->whole = f->counted = false;
    if (!bury)
        return become_live(f, m->stat.seq);
    f->burying = true;
    f->bury_at = 0;
    f->seq = m->stat.seq;
    f->whole_at = m->stat.seq;
    return STEP_MORE;
}

static enum step step_tombstones(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                                 struct mqsync_error *error)
{
    struct walker w = walker_of(b, f);
    bool end;

    if (walk(&w, m, &f->bury_at, &end, walk_tombstones, error) != MQSYNC_OK)
        return STEP_ENDED;
    f->burying = !end && f->bury_at < f->whole_at;
    return STEP_MORE;
}

static enum step step_changes(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                              struct mqsync_error *error)
{
    struct walker w = walker_of(b, f);
    bool end;

    if (walk(&w, m, &f->seq, &end, walk_changes, error) != MQSYNC_OK)
        return STEP_ENDED;
    if (!end)
        return STEP_MORE;
    return m->fresh ? become_live(f, m->stat.seq) : STEP_FRESH;
}

static enum step step(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_view *view,
                      struct mqsync_error *error)
{
    struct moment m = {
        .view = view, .name = mqsync_slice_str(f->channel->name), .epoch = mqsync_slice_str(mqsync_view_epoch(view))};

    mqsync_view_collection(view, m.name, &m.stat);
    m.fresh = b->database.opened_us >= f->channel->since_us && m.stat.seq >= f->channel->last_seq;
    if (f->started || f->counting)
        resume(f, &m);
    else if (m.fresh)
        begin(f, &m);
    else
        return STEP_FRESH;
    if (f->counting) {
        enum step counted = step_count(b, f, &m, error);
        if (counted != STEP_DONE)
            return counted;
    }
    if (!f->started && announce(b, f, &m))
        return become_live(f, m.stat.seq);
    if (f->burying)
        return step_tombstones(b, f, &m, error);
    if (f->full_updates && !f->whole && !f->page_always && !f->paging)
        return step_changes(b, f, &m, error);
    return step_page(b, f, &m, error);
}

/* --- from the broker ---------------------------------------------------------------------------------------------- */

static void write_question(struct mqsync_buf *out, const struct mqsync_feed *f)
{
    bool since = !f->anew && (f->started || f->has_since);
    uint64_t from = f->rule && f->started ? f->complete : f->seq;

    mqsync_buf_clear(out);
    mqsync_buf_add_str(out, f->started || !f->subscription ? "{\"type\":\"sync\",\"metadata\":{"
                                                           : "{\"type\":\"subscribe\",\"metadata\":{");
    mqsync_buf_add_str(out, f->no_pages && !f->started ? "\"sync\":false" : "\"sync\":true");
    /* an incremental answer carries the tombstones */
    if (since || (f->tombstones && !f->anew)) {
        mqsync_buf_add_str(out, ",\"since\":");
        mqsync_buf_add_u64(out, since ? from : 0);
    }
    if (since && f->epoch[0]) {
        mqsync_buf_add_str(out, ",\"epoch\":");
        mqsync_json_add_string(out, mqsync_slice_str(f->epoch));
    }
    if (f->left != UINT64_MAX) {
        mqsync_buf_add_str(out, ",\"limit\":");
        mqsync_buf_add_u64(out, f->left);
    }
    mqsync_buf_add_str(out, "}}");
}

static bool ask(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    struct mqsync_upstream_command c = {.collection = mqsync_slice_str(f->channel->name),
                                        .tag = {.sender = f->session->handle, .question = ++b->feeds.questions}};
    uint16_t mid;

    if (f->rule) { /* what he is shown the plugin decides */
        c.user = f->session->claims.user;
        c.roles = f->session->claims.roles;
        c.roles_n = f->session->claims.roles_n;
    }
    if (!mqsync_upstream_is_up(b->upstream) || b->feeds.asked_n >= MQSYNC_QUESTIONS_MAX)
        return false;
    write_question(&b->answer, f);
    c.payload = mqsync_buf_slice(&b->answer);
    if (b->answer.failed || mqsync_upstream_command(b->upstream, &c, &mid) != MQSYNC_OK)
        return false;
    f->asked = true;
    f->asked_us = mqsync_monotonic_us();
    f->question = c.tag.question;
    f->held_lost = false;
    b->feeds.asked_n++;
    return true;
}

void mqsync_feed_forget_question(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    if (f->asked)
        b->feeds.asked_n--;
    f->asked = false;
    mqsync_queue_free(&f->held);
    if (b->feeds.first)
        mqsync_server_pump_in(b->server, 0);
}

/* A `delete` for each entry of an answer's data.deleted: {id, version, updatedAt}. */
static uint64_t send_tombstones(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice deleted,
                                uint64_t seq)
{
    struct mqsync_json_iter it = mqsync_json_elements(deleted);
    struct mqsync_slice entry, id, version, updated;
    uint64_t n = 0;

    for (; mqsync_json_next_element(&it, &entry); n++) {
        struct mqsync_event event = {.op = MQSYNC_DELETE, .collection = mqsync_slice_str(f->channel->name), .seq = seq};
        struct mqsync_time time = {0};
        struct mqsync_buf text = {0};
        if (!f->full_updates || !mqsync_json_member(entry, MQSYNC_SLICE("id"), MQSYNC_JSON_STRING, &id) ||
            !mqsync_json_member(entry, MQSYNC_SLICE("version"), MQSYNC_JSON_NUMBER, &version) ||
            !mqsync_json_member(entry, MQSYNC_SLICE("updatedAt"), MQSYNC_JSON_STRING, &updated))
            continue;
        mqsync_json_unescape(&text, id);
        event.record_id = mqsync_buf_slice(&text);
        mqsync_json_to_u64(version, &event.version);
        mqsync_time_parse((struct mqsync_slice){updated.p + 1, updated.n - 2}, &time);
        event.timestamp_ms = time.ms;
        mqsync_buf_clear(&b->answer);
        mqsync_event_encode(&b->answer, &event);
        mqsync_session_send_text(f->session, mqsync_buf_slice(&b->answer));
        mqsync_buf_free(&text);
    }
    return n;
}

/* The answer is complete up to f->seq: now what has happened since. */
static void release_held(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    bool lost = f->held_lost;
    struct mqsync_frame *frame;

    f->live = true;
    f->complete = f->seq;
    while (f->live && (frame = mqsync_queue_pop(&f->held))) {
        bool own = frame->n == 0;
        mqsync_feed_event(b, f, frame->seq, frame, own);
        mqsync_frame_unref(frame);
    }
    mqsync_feed_forget_question(b, f);
    if (lost)
        f->live = false;
    mqsync_feed_hunger(b, f);
}

static void take_page(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload,
                      struct mqsync_slice metadata)
{
    struct mqsync_slice data, array, value;
    uint64_t entries = 0;
    bool unasked = f->subscription && !f->paging && (f->tombstones || !f->page_always);

    if (!mqsync_json_member(metadata, MQSYNC_SLICE("seq"), MQSYNC_JSON_NUMBER, &value))
        return;
    mqsync_json_to_u64(value, &f->seq);
    f->anew = false;
    bool more = mqsync_json_member(metadata, MQSYNC_SLICE("more"), MQSYNC_JSON_TRUE, &value);
    bool has_data = mqsync_json_member(payload, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &data);
    bool deleted = has_data && mqsync_json_member(data, MQSYNC_SLICE("deleted"), MQSYNC_JSON_ARRAY, &array);
    uint64_t deleted_n = deleted ? mqsync_json_count(array) : 0;
    if (has_data && mqsync_json_member(data, MQSYNC_SLICE("records"), MQSYNC_JSON_ARRAY, &value))
        entries = mqsync_json_count(value) + deleted_n;
    if (entries || !unasked || mqsync_json_member(metadata, MQSYNC_SLICE("full"), MQSYNC_JSON_TRUE, &value))
        mqsync_session_send_text(f->session, payload);
    if (deleted_n)
        send_tombstones(b, f, array, f->seq);
    f->paging = more;
    f->left -= f->left == UINT64_MAX ? 0 : entries < f->left ? entries : f->left;
    if (more && f->left > 0)
        return;
    f->page_always = false;
    if (f->subscription)
        release_held(b, f);
    else
        mqsync_session_drop_feed(f->session, f);
}

static void take_subscribed(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload,
                            struct mqsync_slice metadata)
{
    struct mqsync_slice seq, records;
    uint64_t n = 0;

    if (!mqsync_json_member(metadata, MQSYNC_SLICE("seq"), MQSYNC_JSON_NUMBER, &seq) ||
        !mqsync_json_member(metadata, MQSYNC_SLICE("recordCount"), MQSYNC_JSON_NUMBER, &records))
        return;
    mqsync_session_send_text(f->session, payload);
    mqsync_json_to_u64(records, &n);
    f->records = n;
    f->started = true;
    /* pages follow, at least one where a `since` was asked for */
    f->page_always = !f->no_pages && (n > 0 || f->has_since || f->tombstones);
    if (f->page_always)
        return;
    mqsync_json_to_u64(seq, &f->seq);
    release_held(b, f);
}

void mqsync_feeds_check(struct mqsync_bridge *b, int64_t now_us)
{
    for (struct mqsync_session *s = b->feeds.asked_n ? b->sessions : NULL; s; s = s->next)
        for (struct mqsync_feed *f = s->feeds; f; f = f->next)
            if (f->asked && now_us - f->asked_us > ANSWER_US) {
                mqsync_feed_forget_question(b, f);
                mqsync_feed_hunger(b, f);
            }
}

void mqsync_feed_answer(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload)
{
    struct mqsync_slice type, metadata, epoch;

    f->asked_us = mqsync_monotonic_us();
    if (mqsync_json_check(payload, NULL, NULL) != MQSYNC_OK ||
        !mqsync_json_member(payload, MQSYNC_SLICE("type"), MQSYNC_JSON_STRING, &type))
        return;
    if (!mqsync_json_member(payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &metadata))
        metadata = MQSYNC_SLICE("{}");
    if (mqsync_json_member(metadata, MQSYNC_SLICE("epoch"), MQSYNC_JSON_STRING, &epoch) &&
        epoch.n == sizeof(f->epoch) + 1) {
        memcpy(f->epoch, epoch.p + 1, epoch.n - 2);
        f->epoch[epoch.n - 2] = '\0';
    }
    if (mqsync_slice_equal(type, MQSYNC_SLICE("\"sync\""))) {
        take_page(b, f, payload, metadata);
    } else if (mqsync_slice_equal(type, MQSYNC_SLICE("\"subscribed\""))) {
        take_subscribed(b, f, payload, metadata);
    } else if (f->subscription && f->started) {
        /* not now: with the next event, or the next connection to the broker */
        mqsync_feed_forget_question(b, f);
    } else {
        mqsync_session_pass_on(f->session, payload);
        mqsync_session_drop_feed(f->session, f);
    }
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

static struct mqsync_feed *take_turn(struct mqsync_feeds *feeds)
{
    struct mqsync_feed *f = feeds->first;

    feeds->first = f->next_hungry;
    if (!feeds->first)
        feeds->last = NULL;
    f->hungry = false;
    return f;
}

static void fail(struct mqsync_feed *f, const struct mqsync_error *error)
{
    mqsync_log(MQSYNC_LOG_ERROR, "MQS3016", "cannot read %s: %s", f->channel->name, error->text);
    /* the client comes back and goes on from what it has */
    mqsync_session_end(f->session, CLOSE_TRY_AGAIN, "the database cannot be read");
}

/* False: nobody can be served now. */
static bool feed_one(struct mqsync_bridge *b, struct mqsync_feed *f, int64_t now_us)
{
    struct mqsync_error error = {0};
    struct mqsync_view *view = NULL;
    enum step result = STEP_FRESH;
    int64_t wait = 0;

    for (int try = 0; try < 2 && result == STEP_FRESH; try++) {
        view = b->database.dir ? mqsync_database_view(&b->database, now_us, try == 0, &wait) : NULL;
        if (!view)
            break;
        result = step(b, f, view, &error);
    }
    if (!view && wait == 0) { /* no database here */
        if (ask(b, f))
            return true;
        enter_turn(&b->feeds, f);
        if (mqsync_upstream_is_up(b->upstream) && b->feeds.asked_n < MQSYNC_QUESTIONS_MAX)
            mqsync_server_pump_in(b->server, ASK_AGAIN_US);
        return false;
    }
    if (result == STEP_FRESH) {
        enter_turn(&b->feeds, f);
        mqsync_server_pump_in(b->server, wait > 0 ? wait : 1000);
        return false;
    }
    if (result == STEP_ENDED)
        fail(f, &error);
    else if (result == STEP_MORE)
        mqsync_feed_hunger(b, f);
    else if (!f->subscription)
        mqsync_session_drop_feed(f->session, f);
    return true;
}

void mqsync_feeds_pump(struct mqsync_bridge *b)
{
    int64_t begin = mqsync_monotonic_us(), now = begin;

    if (b->checking_until_ms)
        return;
    b->feeds.walked_long = false;
    while (b->feeds.first && now - begin < PUMP_US && !b->feeds.walked_long) {
        struct mqsync_feed *f = take_turn(&b->feeds);
        if (!feed_one(b, f, now))
            return;
        now = mqsync_monotonic_us();
    }
    if (b->feeds.first)
        mqsync_server_pump_in(b->server, 0);
}
