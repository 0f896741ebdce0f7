/* SPDX-License-Identifier: BSD-3-Clause */
#include "feed.h"

#include <stdlib.h>

#include "bridge.h"
#include "server.h"
#include "session.h"

enum {
    PUMP_US = 8000,    /* at most, before the sockets get their turn */
    WALK_MAX = 20000,  /* records passed over for one page */
    QUESTIONS_MAX = 8, /* the broker keeps so many long answers going at once */
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
                                  bool tombstones, struct mqsync_feed **ret)
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
    if (!kept || f->held.bytes + kept->n > b->config->bridge.send_queue_bytes || !mqsync_queue_push(&f->held, kept)) {
        mqsync_queue_free(&f->held);
        f->held_lost = true;
    }
}

void mqsync_feed_event(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq, struct mqsync_frame *frame,
                       bool own)
{
    if (own && f->full_updates)
        f->own[f->own_n++ % MQSYNC_OWN_MAX] = seq;
    if (!f->live) {
        if (f->asked && !f->held_lost)
            hold(b, f, seq, frame, own);
        return;
    }
    if (seq <= f->seq)
        return;
    if (seq != f->seq + 1 || f->full_updates || !frame) {
        not_live(b, f);
        return;
    }
    f->seq = seq;
    if (!own)
        mqsync_session_send(f->session, mqsync_frame_ref(frame));
}

void mqsync_feed_unsent(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq)
{
    if (f->started && f->seq >= seq)
        f->seq = seq - 1;
    if (f->live)
        not_live(b, f);
}

static enum step become_live(struct mqsync_feed *f, uint64_t seq)
{
    f->seq = seq;
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

/* The state begins anew: everything there is, then the changes. */
static void begin_whole(struct mqsync_feed *f, const struct moment *m)
{
    f->whole = true;
    f->whole_at = m->stat.seq;
    f->seq = 0;
    f->total = m->stat.records < f->left ? m->stat.records : f->left;
    f->counted = true;
    f->burying = false;
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
    if (f->started)
        send_subscribed(b, f, f->seq);
}

/* The first moment of a subscription or `sync`. True: that was all. */
static bool begin(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m)
{
    f->started = true;
    if (f->has_since && can_resume(f, m)) {
        f->whole = false;
        f->total = count_changes(m, f->seq, f->left);
        f->counted = true;
    } else {
        begin_whole(f, m);
    }
    memcpy(f->epoch, m->epoch.p, m->epoch.n);
    f->records = m->stat.records;
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
    if (mqsync_slice_equal(mqsync_slice_str(f->epoch), m->epoch) && (f->whole || can_resume(f, m)))
        return;
    memcpy(f->epoch, m->epoch.p, m->epoch.n);
    begin_whole(f, m);
    f->page_always = true;
}

static bool is_own(const struct mqsync_feed *f, uint64_t seq)
{
    for (unsigned i = 0; i < MQSYNC_OWN_MAX && i < f->own_n; i++)
        if (f->own[i] == seq)
            return true;
    return false;
}

static void send_record(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice id,
                        const struct mqsync_record *r)
{
    struct mqsync_event event = {
        .op = r->deleted                             ? MQSYNC_DELETE
              : r->history[r->history_n - 1].created ? MQSYNC_INSERT
                                                     : MQSYNC_UPDATE,
        .collection = mqsync_slice_str(f->channel->name),
        .record_id = id,
        .data = r->data,
        .timestamp_ms = r->updated_ms,
        .version = r->version,
        .seq = r->seq,
        .user = r->user,
    };

    mqsync_buf_clear(&b->answer);
    mqsync_event_encode(&b->answer, &event);
    mqsync_session_send_text(f->session, mqsync_buf_slice(&b->answer));
}

/* One step. It calls back for each record that it walks over; false: there is no room for that one, the step ends. */
struct walker {
    struct mqsync_bridge *b;
    struct mqsync_feed *f;
    struct mqsync_page page;
    size_t room; /* bytes for the page: it has to fit into the queue, too */
    size_t sent; /* messages */
};

static bool walk_page(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    struct mqsync_feed *f = w->f;

    if (r->deleted && f->whole && (r->seq <= f->whole_at || f->tombstones))
        return true;
    if (w->page.out.n + w->page.deleted.n + r->data.n > w->room && (w->page.records_n || w->page.deleted_n))
        return false;
    if (f->left == 0 || !mqsync_page_add(&w->page, id, r->data, r->version, r->updated_ms, r->deleted))
        return false;
    f->left--;
    return true;
}

static bool walk_changes(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    if (w->f->session->queue.bytes > MQSYNC_QUEUE_LOW || w->sent >= MQSYNC_PAGE_MAX_ENTRIES)
        return false;
    if (!is_own(w->f, r->seq)) {
        send_record(w->b, w->f, id, r);
        w->sent++;
    }
    return true;
}

static bool walk_tombstones(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    return r->deleted ? walk_changes(w, id, r) : true;
}

/* Walks on from *at, which it moves; *ret_end: there is nothing more. */
static enum mqsync_code walk(struct walker *w, const struct moment *m, uint64_t *at, bool *ret_end,
                             bool (*take)(struct walker *w, struct mqsync_slice id, const struct mqsync_record *r),
                             struct mqsync_error *ret_error)
{
    struct mqsync_record r;
    struct mqsync_slice id;
    struct mqsync_walk *walk = NULL;
    enum mqsync_code code = MQSYNC_RECORD_NOT_FOUND;

    if (m->stat.seq > 0)
        code = mqsync_walk_changes(m->view, m->name, *at, &walk, ret_error);
    for (unsigned n = 0; n < WALK_MAX && walk && code == MQSYNC_OK; n++) {
        code = mqsync_walk_next(walk, &id, &r, ret_error);
        if (code != MQSYNC_OK || !take(w, id, &r))
            break;
        *at = r.seq;
    }
    mqsync_walk_close(walk);
    *ret_end = code == MQSYNC_RECORD_NOT_FOUND;
    return *ret_end ? MQSYNC_OK : code;
}

static enum step step_page(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                           struct mqsync_error *error)
{
    struct walker w = {.b = b, .f = f, .room = b->config->bridge.send_queue_bytes / 2};
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
    struct walker w = {.b = b, .f = f};
    bool end;

    if (walk(&w, m, &f->bury_at, &end, walk_tombstones, error) != MQSYNC_OK)
        return STEP_ENDED;
    f->burying = !end && f->bury_at < f->whole_at;
    return STEP_MORE;
}

static enum step step_changes(struct mqsync_bridge *b, struct mqsync_feed *f, const struct moment *m,
                              struct mqsync_error *error)
{
    struct walker w = {.b = b, .f = f};
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
    if (!f->started) {
        if (!m.fresh)
            return STEP_FRESH;
        if (begin(b, f, &m))
            return become_live(f, m.stat.seq);
    } else {
        resume(f, &m);
    }
    if (f->burying)
        return step_tombstones(b, f, &m, error);
    if (f->full_updates && !f->whole && !f->page_always && !f->paging)
        return step_changes(b, f, &m, error);
    return step_page(b, f, &m, error);
}

/* --- from the broker ---------------------------------------------------------------------------------------------- */

static void write_question(struct mqsync_buf *out, const struct mqsync_feed *f)
{
    bool since = f->started || f->has_since;

    mqsync_buf_clear(out);
    mqsync_buf_add_str(out, f->started || !f->subscription ? "{\"type\":\"sync\",\"metadata\":{"
                                                           : "{\"type\":\"subscribe\",\"metadata\":{");
    mqsync_buf_add_str(out, f->no_pages && !f->started ? "\"sync\":false" : "\"sync\":true");
    /* an incremental answer carries the tombstones */
    if (since || f->tombstones) {
        mqsync_buf_add_str(out, ",\"since\":");
        mqsync_buf_add_u64(out, since ? f->seq : 0);
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
    uint64_t correlation[3] = {f->session->handle, 0, ++b->feeds.questions};
    struct mqsync_upstream_command c = {.collection = mqsync_slice_str(f->channel->name),
                                        .correlation = {(const char *)correlation, sizeof(correlation)}};
    uint16_t mid;

    if (!mqsync_upstream_is_up(b->upstream) || b->feeds.asked_n >= QUESTIONS_MAX)
        return false;
    write_question(&b->answer, f);
    c.payload = mqsync_buf_slice(&b->answer);
    if (b->answer.failed || mqsync_upstream_command(b->upstream, &c, &mid) != MQSYNC_OK)
        return false;
    f->asked = true;
    f->question = correlation[2];
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

static bool member(struct mqsync_slice object, struct mqsync_slice name, enum mqsync_json_type type,
                   struct mqsync_slice *ret)
{
    return mqsync_json_typeof(object) == MQSYNC_JSON_OBJECT && mqsync_json_find(object, name, ret) &&
           mqsync_json_typeof(*ret) == type;
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
        if (!f->full_updates || !member(entry, MQSYNC_SLICE("id"), MQSYNC_JSON_STRING, &id) ||
            !member(entry, MQSYNC_SLICE("version"), MQSYNC_JSON_NUMBER, &version) ||
            !member(entry, MQSYNC_SLICE("updatedAt"), MQSYNC_JSON_STRING, &updated))
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

static uint64_t count_elements(struct mqsync_slice array)
{
    struct mqsync_json_iter it = mqsync_json_elements(array);
    struct mqsync_slice value;
    uint64_t n = 0;

    while (mqsync_json_next_element(&it, &value))
        n++;
    return n;
}

/* The answer is complete up to f->seq: now what has happened since. */
static void release_held(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    bool lost = f->held_lost;
    struct mqsync_frame *frame;

    f->live = true;
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

    if (!member(metadata, MQSYNC_SLICE("seq"), MQSYNC_JSON_NUMBER, &value))
        return;
    mqsync_json_to_u64(value, &f->seq);
    bool more = member(metadata, MQSYNC_SLICE("more"), MQSYNC_JSON_TRUE, &value);
    bool has_data = member(payload, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &data);
    bool deleted = has_data && member(data, MQSYNC_SLICE("deleted"), MQSYNC_JSON_ARRAY, &array);
    uint64_t deleted_n = deleted ? count_elements(array) : 0;
    if (has_data && member(data, MQSYNC_SLICE("records"), MQSYNC_JSON_ARRAY, &value))
        entries = count_elements(value) + deleted_n;
    if (entries || !unasked || member(metadata, MQSYNC_SLICE("full"), MQSYNC_JSON_TRUE, &value))
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

    if (!member(metadata, MQSYNC_SLICE("seq"), MQSYNC_JSON_NUMBER, &seq) ||
        !member(metadata, MQSYNC_SLICE("recordCount"), MQSYNC_JSON_NUMBER, &records))
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

void mqsync_feed_answer(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload)
{
    struct mqsync_slice type, metadata, epoch;

    if (mqsync_json_check(payload, NULL, NULL) != MQSYNC_OK ||
        !member(payload, MQSYNC_SLICE("type"), MQSYNC_JSON_STRING, &type))
        return;
    if (!member(payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &metadata))
        metadata = MQSYNC_SLICE("{}");
    if (member(metadata, MQSYNC_SLICE("epoch"), MQSYNC_JSON_STRING, &epoch) && epoch.n == sizeof(f->epoch) + 1) {
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
        mqsync_session_send_text(f->session, payload);
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
    while (b->feeds.first && now - begin < PUMP_US) {
        struct mqsync_feed *f = take_turn(&b->feeds);
        if (!feed_one(b, f, now))
            return;
        now = mqsync_monotonic_us();
    }
    if (b->feeds.first)
        mqsync_server_pump_in(b->server, 0);
}
