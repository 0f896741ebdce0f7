/* SPDX-License-Identifier: BSD-3-Clause */
#include "feed.h"

#include <stdlib.h>

#include "bridge.h"
#include "feed_ask.h"
#include "feed_read.h"
#include "json.h"
#include "server.h"
#include "session.h"
#include "timestamp.h"

enum {
    PUMP_US = 8000, /* at most, before the sockets get their turn */
    ASK_AGAIN_US = 200000,
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
    if (f->full_updates)
        mqsync_channel_follow(b, f->channel);
    f->no_pages = m->no_sync;
    f->has_since = m->has_since;
    f->seq = m->since;
    if (m->epoch.p && (m->epoch.n == 0 || m->epoch.n >= sizeof(f->epoch)))
        f->has_since = false; /* no epoch of ours is that long, or empty */
    else if (m->epoch.p)
        memcpy(f->epoch, m->epoch.p, m->epoch.n);
    f->page_always = !f->subscription || m->has_since;
    f->left = m->has_limit ? m->limit : UINT64_MAX;
    b->metrics.subscriptions += f->subscription;
    mqsync_feed_hunger(b, f);
    *ret = f;
    return MQSYNC_OK;
}

void mqsync_feed_close(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    mqsync_turns_leave(&b->feeds.hungry, &f->turn);
    mqsync_feed_forget_question(b, f);
    if (f->full_updates)
        mqsync_channel_unfollow(b, f->channel);
    if (f->subscription)
        mqsync_channel_remove(f->channel, f);
    b->metrics.subscriptions -= f->subscription;
    mqsync_channel_leave(b, f->channel);
    free(f);
}

static bool enter_turn(struct mqsync_feeds *feeds, struct mqsync_feed *f)
{
    if (f->turn.waiting || f->asked || f->live || f->session->closing_ms)
        return false;
    if (f->session->queue.bytes > MQSYNC_QUEUE_LOW) {
        f->session->starving = true;
        return false;
    }
    mqsync_turns_enter(&feeds->hungry, &f->turn);
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
    f->live = f->paging = f->counting = f->cut = false;
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

/* Whether it may be one of the records that the client has changed. */
static bool may_be_own_record(const struct mqsync_feed *f, uint64_t record)
{
    for (unsigned i = 0; i < MQSYNC_OWN_MAX && i < f->own_n; i++)
        if (f->own_record[i] == record || f->own_record[i] == 0)
            return true;
    return false;
}

/* Sends the page that goes with an event; none with a `delete`. */
static void send_page_too(struct mqsync_bridge *b, struct mqsync_feed *f, const struct mqsync_frame *frame)
{
    struct mqsync_slice event = {(const char *)frame->text, frame->n}, id, time;
    struct mqsync_record record = {.seq = frame->seq};
    struct mqsync_time updated;

    if (!mqsync_json_member(event, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &record.data) ||
        !mqsync_json_member(event, MQSYNC_SLICE("recordId"), MQSYNC_JSON_STRING, &id) ||
        !mqsync_json_member(event, MQSYNC_SLICE("timestamp"), MQSYNC_JSON_STRING, &time) ||
        !mqsync_time_parse(mqsync_json_inside(time), &updated) || !mqsync_event_version(event, &record.version))
        return;
    record.updated_ms = updated.ms;
    mqsync_buf_clear(&b->answer);
    mqsync_json_unescape(&b->answer, id);
    if (!b->answer.failed)
        mqsync_feed_send_as_page(f, mqsync_buf_slice(&b->answer), &record);
}

/* With full_updates only what is whole can be passed on as it is, and not to a slow reader: what he is to be sent is
 * read when there is room for it. Of the client's own changes it is looked up whether somebody else's have crossed
 * them, which for a new record cannot be. */
static bool passes(const struct mqsync_feed *f, const struct mqsync_frame *frame, bool own)
{
    return !f->full_updates || frame->n == 0 ||
           (frame->whole && (!own || frame->first) && f->session->queue.bytes <= MQSYNC_QUEUE_LOW);
}

void mqsync_feed_event(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq, struct mqsync_frame *frame,
                       bool own)
{
    bool nothing = frame && frame->n == 0;

    if (f->session->closing_ms)
        return;
    /* one that the database has shown before its event came has been sent to its own author, perhaps over a later one
     * that is on its way: that has to follow */
    if (own && f->full_updates && seq > f->seq) {
        f->own_record[f->own_n % MQSYNC_OWN_MAX] = frame ? frame->record : 0;
        f->own[f->own_n++ % MQSYNC_OWN_MAX] = seq;
    }
    if (!f->live) {
        if (f->asked && !f->held_lost)
            mqsync_feed_hold(b, f, seq, frame, own);
        return;
    }
    if (seq <= f->seq)
        return;
    if (seq != f->seq + 1 || !frame || !passes(f, frame, own)) {
        not_live(b, f);
        return;
    }
    f->seq = f->complete = seq;
    if (own || nothing)
        return;
    mqsync_session_send(f->session, mqsync_frame_ref(frame));
    /* an event that there was no room for is read later, and then its page comes with it */
    if (f->seq == seq && f->tombstones && may_be_own_record(f, frame->record))
        send_page_too(b, f, frame);
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

/* --- turns -------------------------------------------------------------------------------------------------------- */

static struct mqsync_feed *take_turn(struct mqsync_feeds *feeds)
{
    return (struct mqsync_feed *)((char *)mqsync_turns_take(&feeds->hungry) - offsetof(struct mqsync_feed, turn));
}

static void fail(struct mqsync_feed *f, const struct mqsync_error *error)
{
    mqsync_log(MQSYNC_LOG_ERROR, "MQS3016", "cannot read %s: %s", f->channel->name, error->text);
    /* the client comes back and goes on from what it has */
    mqsync_session_end(f->session, MQSYNC_CLOSE_TRY_AGAIN, "the database cannot be read");
}

/* False: nobody can be served now. */
static bool feed_one(struct mqsync_bridge *b, struct mqsync_feed *f, int64_t now_us)
{
    struct mqsync_error error = {0};
    struct mqsync_view *view = NULL;
    enum mqsync_feed_step result = MQSYNC_STEP_FRESH;
    int64_t wait = 0;

    for (int try = 0; try < 2 && result == MQSYNC_STEP_FRESH; try++) {
        view = b->database.dir ? mqsync_database_view(&b->database, now_us, try == 0, &wait) : NULL;
        if (!view)
            break;
        result = mqsync_feed_read(b, f, view, &error);
    }
    if (!view && wait == 0) { /* no database here */
        if (mqsync_feed_ask(b, f))
            return true;
        enter_turn(&b->feeds, f);
        if (mqsync_question_possible(b))
            mqsync_server_pump_in(b->server, ASK_AGAIN_US);
        return false;
    }
    if (result == MQSYNC_STEP_FRESH) {
        enter_turn(&b->feeds, f);
        mqsync_server_pump_in(b->server, wait > 0 ? wait : 1000);
        return false;
    }
    if (result == MQSYNC_STEP_ENDED)
        fail(f, &error);
    else if (result == MQSYNC_STEP_MORE)
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
    while (b->feeds.hungry.first && now - begin < PUMP_US && !b->feeds.walked_long) {
        struct mqsync_feed *f = take_turn(&b->feeds);
        if (!f->session->closing_ms && !feed_one(b, f, now))
            return;
        now = mqsync_monotonic_us();
    }
    if (b->feeds.hungry.first)
        mqsync_server_pump_in(b->server, 0);
}
