/* SPDX-License-Identifier: BSD-3-Clause */
#include "feed_ask.h"

#include "bridge.h"
#include "server.h"
#include "session.h"

enum {
    ANSWER_US = 20000000,  /* a question whose answer, or next page, takes longer is asked anew */
    ASK_FIRST = 5000,      /* entries: of a snapshot, whose size `subscribed` tells; others are told by their pages */
    ASK_MAX = 5000,        /* entries, when going on, if they are small */
    WAITING_MAX = 4 << 20, /* bytes, beyond sendQueueBytes: pages come in bursts of as many */
};

/* The broker sends the pages of an answer without asking whether the client can take them, and the answers to the
 * bridge one after the other. So a client gets a large one in pieces. */
static uint64_t ask_for(const struct mqsync_feed *f)
{
    uint64_t n = UINT64_MAX;

    if (f->uncut)
        return f->left;
    if (f->cut && f->seen)
        n = WAITING_MAX / (f->seen_bytes / f->seen + 1) + 1;
    if (f->cut && n > ASK_MAX)
        n = ASK_MAX;
    else if (!f->cut && f->subscription && !f->started && !f->has_since && !f->tombstones)
        n = ASK_FIRST;
    return n < f->left ? n : f->left;
}

static void write_question(struct mqsync_buf *out, const struct mqsync_feed *f)
{
    bool since = !f->anew && (f->started || f->has_since || f->cut);
    uint64_t from = f->rule && f->started && !f->cut ? f->complete : f->seq;

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
    if (f->asked_left != UINT64_MAX) {
        mqsync_buf_add_str(out, ",\"limit\":");
        mqsync_buf_add_u64(out, f->asked_left);
    }
    mqsync_buf_add_str(out, "}}");
}

bool mqsync_feed_ask(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    struct mqsync_upstream_command c = {.collection = mqsync_slice_str(f->channel->name)};

    if (f->rule) /* what he is shown the plugin decides */
        mqsync_command_for(b, &f->session->claims, &c);
    f->asked_n = f->asked_left = ask_for(f);
    write_question(&b->answer, f);
    c.payload = mqsync_buf_slice(&b->answer);
    if (b->answer.failed || !mqsync_question_send(b, f->session->handle, &c, &f->question))
        return false;
    f->asked = true;
    f->asked_us = mqsync_monotonic_us();
    f->held_lost = false;
    return true;
}

void mqsync_feed_forget_question(struct mqsync_bridge *b, struct mqsync_feed *f)
{
    if (f->asked)
        mqsync_question_end(b);
    f->asked = false;
    mqsync_queue_free(&f->held);
    if (b->feeds.hungry.first)
        mqsync_server_pump_in(b->server, 0);
}

void mqsync_feed_hold(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq, struct mqsync_frame *frame,
                      bool own)
{
    struct mqsync_frame *kept = own     ? mqsync_frame_alloc((struct mqsync_slice){0})
                                : frame ? mqsync_frame_ref(frame)
                                        : NULL;

    if (own && kept) {
        kept->seq = seq;
        kept->record = frame ? frame->record : 0;
    }
    if (kept && f->held.bytes + kept->n > b->config->bridge.send_queue_bytes) {
        mqsync_frame_unref(kept);
        kept = NULL;
    }
    if (!kept || !mqsync_queue_push(&f->held, kept)) {
        mqsync_queue_free(&f->held);
        f->held_lost = true;
    }
}

/* A `delete` for each entry of an answer's data.deleted: {id, version, updatedAt}. */
static uint64_t send_tombstones(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice deleted,
                                uint64_t seq)
{
    struct mqsync_json_iter it = mqsync_json_elements(deleted);
    struct mqsync_slice entry, id, updated;
    uint64_t n = 0;

    for (; mqsync_json_next_element(&it, &entry); n++) {
        struct mqsync_event event = {.op = MQSYNC_DELETE, .collection = mqsync_slice_str(f->channel->name), .seq = seq};
        struct mqsync_time time = {0};
        struct mqsync_buf text = {0};
        if (!f->tombstones || !mqsync_json_member(entry, MQSYNC_SLICE("id"), MQSYNC_JSON_STRING, &id) ||
            !mqsync_json_member_u64(entry, MQSYNC_SLICE("version"), &event.version) ||
            !mqsync_json_member(entry, MQSYNC_SLICE("updatedAt"), MQSYNC_JSON_STRING, &updated))
            continue;
        mqsync_json_unescape(&text, id);
        event.record_id = mqsync_buf_slice(&text);
        mqsync_time_parse(mqsync_json_inside(updated), &time);
        event.timestamp_ms = time.ms;
        mqsync_buf_clear(&b->answer);
        mqsync_event_encode(&b->answer, &event);
        mqsync_session_send_read(f->session, mqsync_buf_slice(&b->answer));
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

/* A page of an answer that was asked for in pieces is one of the whole answer to the client. */
static void send_page(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload,
                      struct mqsync_slice metadata, bool more)
{
    struct mqsync_slice value;
    bool full = mqsync_json_member(metadata, MQSYNC_SLICE("full"), MQSYNC_JSON_TRUE, &value);
    uint64_t total = 0;

    mqsync_json_member_u64(metadata, MQSYNC_SLICE("total"), &total);
    f->uncut = f->uncut || (f->cut && full); /* the plugin cannot go on there */
    if (full || !f->cut) {
        f->whole_answer = full;
        f->total = f->subscription && total == f->asked_n && total < f->records ? f->records : total;
    }
    if (full == f->whole_answer && total == f->total) {
        mqsync_session_send_read(f->session, payload);
        return;
    }
    mqsync_buf_clear(&b->answer);
    mqsync_buf_add(&b->answer, payload.p, (size_t)(metadata.p - payload.p));
    mqsync_buf_add_str(&b->answer, "{\"seq\":");
    mqsync_buf_add_u64(&b->answer, f->seq);
    mqsync_buf_add_str(&b->answer, ",\"epoch\":");
    mqsync_json_add_string(&b->answer, mqsync_slice_str(f->epoch));
    mqsync_buf_add_str(&b->answer, f->whole_answer ? ",\"full\":true" : ",\"full\":false");
    mqsync_buf_add_str(&b->answer, more ? ",\"more\":true,\"total\":" : ",\"more\":false,\"total\":");
    mqsync_buf_add_u64(&b->answer, f->total);
    mqsync_buf_add_char(&b->answer, '}');
    mqsync_buf_add(&b->answer, metadata.p + metadata.n, payload.n - (size_t)(metadata.p - payload.p) - metadata.n);
    mqsync_session_send_read(f->session, b->answer.failed ? (struct mqsync_slice){0} : mqsync_buf_slice(&b->answer));
}

/* That was all that was asked for, or the client has as much as it takes now. */
static bool is_enough(const struct mqsync_bridge *b, const struct mqsync_feed *f)
{
    size_t max = b->config->bridge.send_queue_bytes + WAITING_MAX;

    return f->asked_left == 0 || (!f->uncut && f->session->queue.bytes > max);
}

static void take_page(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload,
                      struct mqsync_slice metadata)
{
    struct mqsync_slice data, array, value;
    uint64_t entries = 0;
    bool unasked = f->subscription && !f->paging && (f->tombstones || !f->page_always);

    if (!mqsync_json_member_u64(metadata, MQSYNC_SLICE("seq"), &f->seq))
        return;
    f->anew = false;
    bool more = mqsync_json_member(metadata, MQSYNC_SLICE("more"), MQSYNC_JSON_TRUE, &value);
    bool has_data = mqsync_json_member(payload, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &data);
    bool deleted = has_data && mqsync_json_member(data, MQSYNC_SLICE("deleted"), MQSYNC_JSON_ARRAY, &array);
    uint64_t deleted_n = deleted ? mqsync_json_count(array) : 0;
    if (has_data && mqsync_json_member(data, MQSYNC_SLICE("records"), MQSYNC_JSON_ARRAY, &value))
        entries = mqsync_json_count(value) + deleted_n;
    if (entries || !unasked || mqsync_json_member(metadata, MQSYNC_SLICE("full"), MQSYNC_JSON_TRUE, &value))
        send_page(b, f, payload, metadata, more);
    if (deleted_n)
        send_tombstones(b, f, array, f->seq);
    f->paging = more;
    f->left -= f->left == UINT64_MAX ? 0 : entries < f->left ? entries : f->left;
    f->asked_left -= f->asked_left == UINT64_MAX ? 0 : entries < f->asked_left ? entries : f->asked_left;
    f->seen += entries;
    f->seen_bytes += payload.n;
    if (more && f->left > 0) {
        if (is_enough(b, f)) {
            f->cut = true;
            mqsync_feed_forget_question(b, f);
            mqsync_feed_hunger(b, f);
        }
        return;
    }
    f->page_always = f->cut = false;
    if (f->subscription)
        release_held(b, f);
    else
        mqsync_session_drop_feed(f->session, f);
}

static void take_subscribed(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload,
                            struct mqsync_slice metadata)
{
    uint64_t seq, n;

    if (!mqsync_json_member_u64(metadata, MQSYNC_SLICE("seq"), &seq) ||
        !mqsync_json_member_u64(metadata, MQSYNC_SLICE("recordCount"), &n))
        return;
    mqsync_session_send_read(f->session, payload);
    f->records = n;
    f->started = true;
    /* pages follow, at least one where a `since` was asked for */
    f->page_always = !f->no_pages && (n > 0 || f->has_since || f->tombstones);
    if (f->page_always)
        return;
    f->seq = seq;
    release_held(b, f);
}

void mqsync_feeds_check(struct mqsync_bridge *b, int64_t now_us)
{
    for (struct mqsync_session *s = b->questions.open ? b->sessions : NULL; s; s = s->next)
        for (struct mqsync_feed *f = s->feeds; f; f = f->next)
            if (f->asked && now_us - f->asked_us > ANSWER_US) {
                mqsync_feed_forget_question(b, f);
                mqsync_feed_hunger(b, f);
            }
}

void mqsync_feed_answer(struct mqsync_bridge *b, struct mqsync_feed *f, struct mqsync_slice payload)
{
    struct mqsync_slice type, metadata, epoch;

    if (f->session->closing_ms) {
        mqsync_feed_forget_question(b, f);
        return;
    }
    f->asked_us = mqsync_monotonic_us();
    if (mqsync_json_check(payload, NULL, NULL) != MQSYNC_OK ||
        !mqsync_json_member(payload, MQSYNC_SLICE("type"), MQSYNC_JSON_STRING, &type))
        return;
    if (!mqsync_json_member(payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &metadata))
        metadata = MQSYNC_SLICE("{}");
    if (mqsync_json_member(metadata, MQSYNC_SLICE("epoch"), MQSYNC_JSON_STRING, &epoch) &&
        epoch.n == sizeof(f->epoch) + 1) {
        epoch = mqsync_json_inside(epoch);
        f->cut = f->cut && mqsync_slice_equal(epoch, mqsync_slice_str(f->epoch));
        memcpy(f->epoch, epoch.p, epoch.n);
        f->epoch[epoch.n] = '\0';
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
