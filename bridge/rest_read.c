/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading for HTTP: {"records":[{recordId, data, version, updatedAt}],"more","seq","epoch"}, written piece by piece as
 * the peer takes it, in the order of seq. A record that changes meanwhile may come twice, the newer one later. */
#include "rest.h"

#include "access.h"
#include "bridge.h"
#include "exchange.h"
#include "server.h"

enum {
    PUMP_US = 4000,     /* at most, before the sockets get their turn */
    STEP_US = 2000,     /* of one request */
    LOOK_AT_CLOCK = 32, /* records between two looks */
    READY_MAX = 65536,  /* bytes ready to be written: above that it waits for the peer */
    ASK_FIRST = 32,     /* entries in the first question to the broker */
    ASK_MAX = 5000,     /* and in later ones, if they are small */
    HELD_MAX = 1 << 20, /* bytes ready: above that further pages of a question are not taken, but asked for again */
    WAIT_MS = 10000,    /* for a view, or a page from the broker */
    AGAIN_US = 50000,
};

static const struct mqsync_slice nothing;

/* --- turns -------------------------------------------------------------------------------------------------------- */

void mqsync_rest_hunger(struct mqsync_rest *r)
{
    if (r->asked || r->answer.body.n > READY_MAX)
        return;
    mqsync_turns_enter(&r->bridge->rests.hungry, &r->turn);
    mqsync_server_pump_in(r->bridge->server, 0);
}

static void forget_question(struct mqsync_rest *r)
{
    if (!r->asked)
        return;
    r->asked = false;
    r->deadline_ms = 0;
    mqsync_question_end(r->bridge);
    mqsync_server_pump_in(r->bridge->server, 0);
}

void mqsync_rest_stop_reading(struct mqsync_rest *r)
{
    mqsync_turns_leave(&r->bridge->rests.hungry, &r->turn);
    forget_question(r);
}

/* --- the answer --------------------------------------------------------------------------------------------------- */

static void begin_answer(struct mqsync_rest *r)
{
    if (r->answer.status || r->record_id[0])
        return;
    r->answer.status = 200;
    r->answer.content_type = "application/json";
    r->answer.more = true;
    mqsync_buf_add_str(&r->answer.body, "{\"records\":[");
}

/* seq: up to which the answer is complete. */
static void end_answer(struct mqsync_rest *r, uint64_t seq)
{
    struct mqsync_buf *out = &r->answer.body;
    struct mqsync_error e;

    mqsync_rest_stop_reading(r);
    if (r->record_id[0] && r->taken == 0) {
        mqsync_fail(&e, MQSYNC_RECORD_NOT_FOUND, "there is no such record");
        mqsync_rest_fail(r, &e);
        return;
    }
    mqsync_buf_add_str(out, r->found_more ? "],\"more\":true" : "],\"more\":false");
    if (!r->inexact || !r->found_more) {
        mqsync_buf_add_str(out, ",\"seq\":");
        mqsync_buf_add_u64(out, seq);
    }
    mqsync_buf_add_str(out, ",\"epoch\":");
    mqsync_json_add_string(out, mqsync_slice_str(r->epoch));
    mqsync_buf_add_char(out, '}');
    r->answer.more = false;
    r->answer.broken = out->failed;
    mqsync_exchange_wake(r->exchange);
}

static void add_record(struct mqsync_rest *r, struct mqsync_slice id, struct mqsync_slice data, uint64_t version,
                       int64_t updated_ms)
{
    struct mqsync_buf *out = &r->answer.body;
    char time[MQSYNC_TIMESTAMP_LEN];

    if (r->record_id[0]) { /* found: now the status is known */
        r->answer.status = 200;
        r->answer.content_type = "application/json";
        mqsync_buf_add_str(out, "{\"records\":[");
    }
    mqsync_buf_add_str(out, r->taken++ ? ",{\"recordId\":" : "{\"recordId\":");
    mqsync_json_add_string(out, id);
    mqsync_buf_add_str(out, ",\"data\":");
    mqsync_query_project(&r->query, data, out);
    mqsync_buf_add_str(out, ",\"version\":");
    mqsync_buf_add_u64(out, version);
    mqsync_buf_add_str(out, ",\"updatedAt\":\"");
    mqsync_time_format(updated_ms, time);
    mqsync_buf_add(out, time, sizeof(time));
    mqsync_buf_add_str(out, "\"}");
}

/* A living record, in its turn. False: it belongs to the answer but exceeds its limit. */
static bool take_record(struct mqsync_rest *r, const struct mqsync_collection_config *owned, struct mqsync_slice id,
                        struct mqsync_slice data, uint64_t version, int64_t updated_ms)
{
    if (owned && !mqsync_access_owns(owned, mqsync_slice_str(r->claims.user), data))
        return true;
    if (r->record_id[0] ? !mqsync_slice_equal(id, mqsync_slice_str(r->record_id))
                        : !mqsync_query_matches(&r->query, data, updated_ms))
        return true;
    if (r->record_id[0] == '\0') {
        if (r->skipped < r->query.offset) {
            r->skipped++;
            return true;
        }
        if (r->taken == r->query.limit) {
            r->found_more = true;
            return false;
        }
    }
    add_record(r, id, data, version, updated_ms);
    return true;
}

/* What the rules let the user see now: *ret_owned is NULL for everything. False: nothing; the request has failed. */
static bool may_read(struct mqsync_rest *r, const struct mqsync_collection_config **ret_owned)
{
    const struct mqsync_collection_config *c =
        mqsync_config_collection(r->bridge->config, mqsync_slice_str(r->collection));
    struct mqsync_identity who = {mqsync_slice_str(r->claims.user), r->claims.roles, r->claims.roles_n};
    enum mqsync_right right = c ? mqsync_access(c, false, &who) : MQSYNC_RIGHT_NONE;
    struct mqsync_error e;

    *ret_owned = right == MQSYNC_RIGHT_OWN ? c : NULL;
    if (right != MQSYNC_RIGHT_NONE)
        return true;
    mqsync_fail(&e, MQSYNC_UNAUTHORIZED, "this user may not read this collection");
    mqsync_rest_fail(r, &e);
    return false;
}

static void fail_reading(struct mqsync_rest *r, const struct mqsync_error *cause)
{
    struct mqsync_error e;

    mqsync_log(MQSYNC_LOG_ERROR, "MQS3036", "cannot read %s for an HTTP request: %s", r->collection, cause->text);
    mqsync_fail(&e, MQSYNC_SERVER_ERROR, "the records cannot be read");
    mqsync_rest_fail(r, &e);
}

/* --- from the database -------------------------------------------------------------------------------------------- */

/* The database may be another one after a restart of the broker; its seqs say nothing about this answer's. */
static bool is_same_epoch(struct mqsync_rest *r, struct mqsync_slice epoch)
{
    struct mqsync_error e;

    if (r->epoch[0] == '\0' && epoch.n < sizeof(r->epoch))
        memcpy(r->epoch, epoch.p, epoch.n);
    if (mqsync_slice_equal(mqsync_slice_str(r->epoch), epoch))
        return true;
    mqsync_fail(&e, MQSYNC_SERVER_ERROR, "the broker has another database now; ask again");
    mqsync_rest_fail(r, &e);
    return false;
}

static enum mqsync_code read_one(struct mqsync_rest *r, struct mqsync_view *view,
                                 const struct mqsync_collection_config *owned, struct mqsync_error *ret_error)
{
    struct mqsync_slice id = mqsync_slice_str(r->record_id);
    struct mqsync_record record;
    enum mqsync_code code = mqsync_view_get(view, mqsync_slice_str(r->collection), id, &record, ret_error);

    if (code == MQSYNC_OK && !record.deleted)
        take_record(r, owned, id, record.data, record.version, record.updated_ms);
    return code == MQSYNC_OK ? MQSYNC_RECORD_NOT_FOUND : code;
}

/* MQSYNC_OK: to be continued; MQSYNC_RECORD_NOT_FOUND: that was all. */
static enum mqsync_code read_some(struct mqsync_rest *r, struct mqsync_view *view,
                                  const struct mqsync_collection_config *owned, struct mqsync_error *ret_error)
{
    int64_t until = mqsync_monotonic_us() + STEP_US;
    struct mqsync_walk *walk;
    struct mqsync_record record;
    struct mqsync_slice id;
    enum mqsync_code code = mqsync_walk_changes(view, mqsync_slice_str(r->collection), r->at, &walk, ret_error);

    if (code != MQSYNC_OK)
        return code;
    for (unsigned n = 1; code == MQSYNC_OK && r->answer.body.n <= READY_MAX; n++) {
        code = mqsync_walk_next(walk, &id, &record, ret_error);
        if (code != MQSYNC_OK)
            break;
        if (!record.deleted && !take_record(r, owned, id, record.data, record.version, record.updated_ms))
            code = MQSYNC_RECORD_NOT_FOUND;
        else
            r->at = record.seq;
        if (n % LOOK_AT_CLOCK == 0 || record.data.n > READY_MAX / 4) {
            if (mqsync_monotonic_us() > until)
                break;
        }
    }
    mqsync_walk_close(walk);
    return code;
}

static void read_view(struct mqsync_rest *r, struct mqsync_view *view)
{
    struct mqsync_collection_stat stat = {0};
    const struct mqsync_collection_config *owned;
    struct mqsync_error e;
    enum mqsync_code code = MQSYNC_RECORD_NOT_FOUND;

    if (!may_read(r, &owned) || !is_same_epoch(r, mqsync_slice_str(mqsync_view_epoch(view))))
        return;
    r->deadline_ms = 0;
    begin_answer(r);
    mqsync_view_collection(view, mqsync_slice_str(r->collection), &stat);
    if (stat.seq > 0)
        code = r->record_id[0] ? read_one(r, view, owned, &e) : read_some(r, view, owned, &e);
    if (code == MQSYNC_OK) {
        mqsync_exchange_wake(r->exchange);
        mqsync_rest_hunger(r);
    } else if (code == MQSYNC_RECORD_NOT_FOUND) {
        end_answer(r, r->found_more ? r->at : stat.seq);
    } else {
        fail_reading(r, &e);
    }
}

/* --- from the broker ---------------------------------------------------------------------------------------------- */

/* How many entries to ask for: what can be held, going by those that came. */
static uint64_t ask_for(const struct mqsync_rest *r)
{
    uint64_t left = r->query.limit - r->taken, n = ASK_FIRST;
    bool plain = r->query.where_n == 0 && !r->query.has_since && r->query.offset == 0;

    if (r->unlimited)
        return INT64_MAX;
    if (r->seen)
        n = HELD_MAX / (r->seen_bytes / r->seen + 1) + 1;
    n = n < ASK_MAX ? n : ASK_MAX;
    return plain && left < n ? left : n; /* one that the limit ends exactly can be gone on with by its seq */
}

static bool ask(struct mqsync_rest *r)
{
    struct mqsync_bridge *b = r->bridge;
    struct mqsync_upstream_command c = {.collection = mqsync_slice_str(r->collection)};

    r->asked_left = ask_for(r);
    mqsync_buf_clear(&b->answer);
    mqsync_buf_add_str(&b->answer, "{\"type\":\"sync\",\"metadata\":{\"limit\":");
    mqsync_buf_add_u64(&b->answer, r->asked_left);
    if (r->at) {
        mqsync_buf_add_str(&b->answer, ",\"since\":");
        mqsync_buf_add_u64(&b->answer, r->at);
    }
    mqsync_buf_add_str(&b->answer, "}}");
    c.payload = mqsync_buf_slice(&b->answer);
    if (b->answer.failed || !mqsync_question_send(b, r->handle, &c, &r->question))
        return false;
    r->asked = true;
    r->deadline_ms = mqsync_monotonic_us() / 1000 + WAIT_MS;
    return true;
}

/* One {id, data, version, updatedAt} of a page. */
static bool take_entry(struct mqsync_rest *r, const struct mqsync_collection_config *owned, struct mqsync_slice entry)
{
    struct mqsync_slice id, data, updated;
    struct mqsync_time time;
    struct mqsync_buf text = {0};
    uint64_t v;
    bool ok = true;

    if (!mqsync_json_member(entry, MQSYNC_SLICE("id"), MQSYNC_JSON_STRING, &id) ||
        !mqsync_json_member(entry, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &data) ||
        !mqsync_json_member_u64(entry, MQSYNC_SLICE("version"), &v) ||
        !mqsync_json_member(entry, MQSYNC_SLICE("updatedAt"), MQSYNC_JSON_STRING, &updated) ||
        !mqsync_time_parse(mqsync_json_inside(updated), &time))
        return true;
    mqsync_json_unescape(&text, id);
    if (!text.failed)
        ok = take_record(r, owned, mqsync_buf_slice(&text), data, v, time.ms);
    mqsync_buf_free(&text);
    return ok;
}

/* False: the limit was reached within the page. */
static bool take_entries(struct mqsync_rest *r, const struct mqsync_collection_config *owned,
                         struct mqsync_slice records)
{
    struct mqsync_json_iter it = mqsync_json_elements(records);
    struct mqsync_slice entry;

    while (mqsync_json_next_element(&it, &entry))
        if (!take_entry(r, owned, entry))
            return false;
    return true;
}

/* After the last page of a question, or as much of it as there is room for. */
static void go_on(struct mqsync_rest *r, bool progress)
{
    forget_question(r);
    /* a full state instead of what was asked for, and all of it known: the seq to go on from cannot be asked for */
    r->unlimited = r->unlimited || !progress;
    mqsync_exchange_wake(r->exchange);
    mqsync_rest_hunger(r);
}

static void take_page(struct mqsync_rest *r, struct mqsync_slice payload, uint64_t seq, bool more)
{
    const struct mqsync_collection_config *owned;
    struct mqsync_slice data, records = nothing, deleted;
    bool known = seq <= r->at, limited = false;
    uint64_t entries = 0;

    if (!may_read(r, &owned))
        return;
    r->deadline_ms = mqsync_monotonic_us() / 1000 + WAIT_MS;
    begin_answer(r);
    if (mqsync_json_member(payload, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &data)) {
        if (mqsync_json_member(data, MQSYNC_SLICE("records"), MQSYNC_JSON_ARRAY, &records)) {
            entries += mqsync_json_count(records);
            limited = !known && !take_entries(r, owned, records);
        }
        if (mqsync_json_member(data, MQSYNC_SLICE("deleted"), MQSYNC_JSON_ARRAY, &deleted))
            entries += mqsync_json_count(deleted);
    }
    r->seen += entries;
    r->seen_bytes += payload.n;
    r->inexact = limited;
    r->at = known ? r->at : seq;
    r->asked_left -= entries < r->asked_left ? entries : r->asked_left;
    if (limited || !more || (r->record_id[0] && r->taken)) {
        end_answer(r, seq);
    } else if (r->taken == r->query.limit && r->query.where_n == 0 && !r->query.has_since && !owned) {
        r->found_more = true;
        end_answer(r, seq);
    } else if (r->asked_left == 0 || r->answer.body.n > HELD_MAX) {
        go_on(r, !known);
    } else {
        mqsync_exchange_wake(r->exchange);
    }
}

void mqsync_rest_read_answered(struct mqsync_rest *r, struct mqsync_slice payload)
{
    struct mqsync_slice metadata, epoch, value;
    uint64_t n;

    if (!mqsync_json_member(payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &metadata) ||
        !mqsync_json_member_u64(metadata, MQSYNC_SLICE("seq"), &n) ||
        !mqsync_json_member(metadata, MQSYNC_SLICE("epoch"), MQSYNC_JSON_STRING, &epoch))
        return;
    if (is_same_epoch(r, mqsync_json_inside(epoch)))
        take_page(r, payload, n, mqsync_json_member(metadata, MQSYNC_SLICE("more"), MQSYNC_JSON_TRUE, &value));
}

/* --- one turn ----------------------------------------------------------------------------------------------------- */

void mqsync_rest_read(struct mqsync_rest *r)
{
    if (r->method == MQSYNC_HTTP_HEAD && !r->record_id[0]) {
        r->answer.status = 200;
        r->answer.content_type = "application/json";
        mqsync_exchange_wake(r->exchange);
        return;
    }
    r->at = r->query.since_seq;
    r->deadline_ms = mqsync_monotonic_us() / 1000 + WAIT_MS;
    mqsync_rest_hunger(r);
}

/* False: nobody can be served now. */
static bool serve(struct mqsync_rest *r, int64_t now_us)
{
    struct mqsync_database *d = &r->bridge->database;
    int64_t wait = 0;
    struct mqsync_view *view = d->dir ? mqsync_database_view(d, now_us, true, &wait) : NULL;

    /* it has to hold what was written before the request came */
    if (view && d->opened_us < r->arrived_us)
        view = mqsync_database_view(d, now_us, false, &wait);
    if (view) {
        read_view(r, view);
        return true;
    }
    if (wait == 0 && !mqsync_upstream_is_up(r->bridge->upstream)) {
        mqsync_rest_fail_unavailable(r, "neither the database nor the broker can be read now");
        return true;
    }
    if (wait == 0 && ask(r))
        return true;
    mqsync_turns_enter(&r->bridge->rests.hungry, &r->turn);
    mqsync_server_pump_in(r->bridge->server, wait > 0 ? wait : AGAIN_US);
    return false;
}

static struct mqsync_rest *take_turn(struct mqsync_rests *all)
{
    return (struct mqsync_rest *)((char *)mqsync_turns_take(&all->hungry) - offsetof(struct mqsync_rest, turn));
}

void mqsync_rests_pump(struct mqsync_bridge *b)
{
    struct mqsync_rests *all = &b->rests;
    int64_t begin = mqsync_monotonic_us(), now = begin;

    if (b->checking_until_ms)
        return;
    while (all->hungry.first && now - begin < PUMP_US) {
        struct mqsync_rest *r = take_turn(all);
        if (!serve(r, now))
            return;
        now = mqsync_monotonic_us();
    }
    if (all->hungry.first)
        mqsync_server_pump_in(b->server, 0);
}
