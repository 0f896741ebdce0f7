/* SPDX-License-Identifier: BSD-3-Clause */
/* What one write does to one record: read mqsync_resolve(), at the end, first. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "resolve.h"
#include "json.h"
#include "merge.h"

/* How far apart the times of two copies of one change may lie, and for how long the first copy is remembered. */
enum { SECOND_COPY_APART_MS = 2000, SECOND_COPY_WITHIN_MS = 10 * 60 * 1000 };

enum winner { THE_WRITE, THE_RECORD, A_MERGE };

/* --- strategies by name ------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    bool has_fields, merges;
} strategies[] = {
    [MQSYNC_LAST_WRITE_WINS] = {"lastWriteWins", false, false},
    [MQSYNC_SERVER_WINS] = {"serverWins", false, false},
    [MQSYNC_CLIENT_WINS] = {"clientWins", false, false},
    [MQSYNC_MERGE_ARRAYS] = {"mergeArrays", true, true},
    [MQSYNC_SUM_NUMBERS] = {"sumNumbers", true, true},
    [MQSYNC_MAX_VALUE] = {"maxValue", true, true},
    [MQSYNC_MERGE_FIELDS] = {"mergeFields", true, true},
    [MQSYNC_FIELD_LEVEL_LAST_WRITE_WINS] = {"fieldLevelLastWriteWins", false, true},
    [MQSYNC_DEEP_MERGE] = {"deepMerge", false, true},
};

enum { STRATEGIES_N = sizeof(strategies) / sizeof(strategies[0]) };

const char *mqsync_strategy_name(enum mqsync_strategy s)
{
    return (unsigned)s < STRATEGIES_N ? strategies[s].name : NULL;
}

bool mqsync_strategy_has_fields(enum mqsync_strategy s)
{
    return (unsigned)s < STRATEGIES_N && strategies[s].has_fields;
}

bool mqsync_strategy_merges(enum mqsync_strategy s)
{
    return (unsigned)s < STRATEGIES_N && strategies[s].merges;
}

/* --- the write as a change ---------------------------------------------------------------------------------------- */

static bool is_live(const struct mqsync_record *stored)
{
    return stored && !stored->deleted;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Chained through the seed, so that a byte moved from the user to the data makes another fingerprint. */
static uint64_t fingerprint(const struct mqsync_write *w)
{
    uint64_t h = XXH3_64bits(w->user.n ? w->user.p : "", w->user.n);
    if (w->op != MQSYNC_DELETE)
        h = XXH3_64bits_withSeed(w->data.p, w->data.n, h);
    return h ? h : 1;
}

static uint64_t mutation_hash(struct mqsync_slice id)
{
    uint64_t h = id.n ? XXH3_64bits(id.p, id.n) : 0;
    return id.n && h == 0 ? 1 : h;
}

/* A clock can be trusted as far as it cannot be shown to be wrong. Any other write happens as it arrives. */
static bool time_is_good(const struct mqsync_write *w)
{
    return w->time.kind == MQSYNC_TIME_EXACT && w->time.ms <= w->arrived_ms;
}

/* Never older than the record for a write without a good time: a server clock that has stepped back must not lock it.
 */
static int64_t effective_time(const struct mqsync_record *stored, const struct mqsync_write *w)
{
    if (time_is_good(w))
        return w->time.ms;
    return stored ? later(w->arrived_ms, stored->updated_ms) : w->arrived_ms;
}

/* The write as the history would keep it if it were accepted. */
static struct mqsync_change describe(const struct mqsync_record *stored, uint64_t floor, uint64_t next_seq,
                                     const struct mqsync_write *w)
{
    int64_t effective = effective_time(stored, w);
    return (struct mqsync_change){
        .fingerprint = fingerprint(w),
        .mutation = mutation_hash(w->mutation_id),
        .sent_ms = w->time.kind == MQSYNC_TIME_MISSING ? INT64_MIN : w->time.ms,
        .arrived_ms = w->arrived_ms,
        .effective_ms = stored ? later(stored->updated_ms, effective) : effective,
        .version = (stored ? stored->version : floor) + 1,
        .seq = next_seq,
        .op = w->op,
        .zoneless = w->time.kind == MQSYNC_TIME_ZONELESS,
        .created = !is_live(stored),
    };
}

static void out_of_memory(struct mqsync_outcome *ret)
{
    ret->kind = MQSYNC_REFUSED;
    mqsync_fail(&ret->error, MQSYNC_SERVER_ERROR, "out of memory");
}

/* --- repetition --------------------------------------------------------------------------------------------------- */

static bool has_sent(const struct mqsync_change *c)
{
    return c->sent_ms != INT64_MIN;
}

static bool same_content(const struct mqsync_change *a, const struct mqsync_change *b)
{
    return a->fingerprint == b->fingerprint && (a->op == MQSYNC_DELETE) == (b->op == MQSYNC_DELETE);
}

/* How far apart two such times were sent, without overflow for times at the ends of the range. */
static bool within(int64_t a, int64_t b, uint64_t ms)
{
    return (a > b ? (uint64_t)a - (uint64_t)b : (uint64_t)b - (uint64_t)a) <= ms;
}

static bool is_recent(const struct mqsync_change *c, int64_t now_ms)
{
    return c->arrived_ms > now_ms || within(c->arrived_ms, now_ms, SECOND_COPY_WITHIN_MS);
}

/* The write is for a record that has `first` in it already. A baseVersion says less: apps count it up by themselves. */
static bool was_made_after(const struct mqsync_write *w, const struct mqsync_change *first)
{
    return w->has_if_version && w->if_version >= first->version;
}

/* The last change sent again: with its time, or, when neither has one, soon and over a connection that was lost
 * meanwhile. Later it is rather a device that has come back with the same reading. */
static bool is_resent(const struct mqsync_change *last, const struct mqsync_change *now, const struct mqsync_write *w)
{
    if (now->mutation || last->op != now->op || !same_content(last, now))
        return false;
    if (has_sent(last) || has_sent(now))
        return last->sent_ms == now->sent_ms && last->zoneless == now->zoneless;
    return !last->mutation && w->reconnected_ms != INT64_MAX && last->arrived_ms <= w->reconnected_ms &&
           is_recent(last, now->arrived_ms) && !was_made_after(w, last);
}

/* The copy of a change that comes another way, later, with a time of its own. */
static bool is_second_copy(const struct mqsync_change *first, const struct mqsync_change *now)
{
    return same_content(first, now) && has_sent(first) && has_sent(now) && first->zoneless == now->zoneless &&
           within(first->sent_ms, now->sent_ms, SECOND_COPY_APART_MS) && is_recent(first, now->arrived_ms) &&
           (!first->mutation || !now->mutation);
}

/* The same user has changed the record to something else after `first` and before the write was sent: on, off, on
 * again. Then it is a change of its own. Of users only the last one is known, and nobody in particular may be many
 * people. */
static bool came_back_to_it(const struct mqsync_record *stored, const struct mqsync_write *w,
                            const struct mqsync_change *first, const struct mqsync_change *now)
{
    const struct mqsync_change *last = &stored->history[stored->history_n - 1];
    return w->user.n && mqsync_slice_equal(stored->user, w->user) && !same_content(last, now) && has_sent(last) &&
           last->zoneless == now->zoneless && last->sent_ms > first->sent_ms && last->sent_ms <= now->sent_ms;
}

static const struct mqsync_change *find_repeated(const struct mqsync_record *stored, const struct mqsync_write *w,
                                                 const struct mqsync_change *now)
{
    if (!stored || !stored->history_n)
        return NULL;
    if (now->mutation) {
        for (unsigned i = stored->history_n; i--;) {
            if (stored->history[i].mutation == now->mutation)
                return &stored->history[i];
        }
    }
    const struct mqsync_change *last = &stored->history[stored->history_n - 1];
    if (is_resent(last, now, w))
        return last;
    for (unsigned i = stored->history_n; i--;) {
        const struct mqsync_change *c = &stored->history[i];
        if (is_second_copy(c, now) && !was_made_after(w, c) && !came_back_to_it(stored, w, c, now))
            return c;
    }
    return NULL;
}

/* The answer and the event of then. What an insert removed from the record it replaced, or a merge kept of it, is no
 * longer known: such an event names what the write says. */
static void repeat(const struct mqsync_change *c, const struct mqsync_change *now, const struct mqsync_write *w,
                   struct mqsync_buf *out, struct mqsync_outcome *ret)
{
    ret->kind = MQSYNC_REPEATED;
    ret->same_content = same_content(c, now);
    ret->version = c->version;
    ret->seq = c->seq;
    ret->timestamp_ms = c->effective_ms;
    ret->event = c->op == MQSYNC_DELETE ? MQSYNC_DELETE : c->created ? MQSYNC_INSERT : MQSYNC_UPDATE;
    if (ret->event == MQSYNC_DELETE)
        return;
    ret->event_data = w->op == MQSYNC_DELETE ? MQSYNC_SLICE("{}") : w->data;
    if (c->op == MQSYNC_UPDATE && c->created && w->op != MQSYNC_DELETE) {
        mqsync_json_apply_delta(out, (struct mqsync_slice){NULL, 0}, w->data);
        ret->event_data = mqsync_buf_slice(out);
    }
    if (out->failed)
        out_of_memory(ret);
}

/* --- refusals ----------------------------------------------------------------------------------------------------- */

static bool if_version_fails(const struct mqsync_record *stored, const struct mqsync_write *w,
                             struct mqsync_outcome *ret)
{
    uint64_t version = is_live(stored) ? stored->version : 0;
    if (!w->has_if_version || w->if_version == version)
        return false;
    ret->version = version;
    if (version)
        mqsync_fail(&ret->error, MQSYNC_CONFLICT, "ifVersion: expected %llu, the record is at %llu",
                    (unsigned long long)w->if_version, (unsigned long long)version);
    else
        mqsync_fail(&ret->error, MQSYNC_CONFLICT, "ifVersion: expected %llu, there is no such record",
                    (unsigned long long)w->if_version);
    return true;
}

static bool nothing_to_change(const struct mqsync_rules *rules, const struct mqsync_record *stored,
                              const struct mqsync_write *w, struct mqsync_outcome *ret)
{
    if (is_live(stored) || w->op == MQSYNC_INSERT || (w->op == MQSYNC_UPDATE && rules->upsert))
        return false;
    mqsync_fail(&ret->error, MQSYNC_RECORD_NOT_FOUND, "%s: there is no such record", mqsync_op_name(w->op));
    return true;
}

static bool cannot_be_kept(const struct mqsync_rules *rules, const struct mqsync_buf *out, struct mqsync_outcome *ret)
{
    if (out->failed)
        out_of_memory(ret);
    else if (rules->max_record_bytes && ret->next.data.n > rules->max_record_bytes)
        mqsync_fail(&ret->error, MQSYNC_INVALID_MESSAGE, "data: the record would have %zu bytes, maxRecordBytes is %zu",
                    ret->next.data.n, rules->max_record_bytes);
    return ret->error.code != MQSYNC_OK;
}

/* --- conflict ----------------------------------------------------------------------------------------------------- */

/* An ifVersion that holds says as much as a baseVersion: the writer knows what it replaces. */
static bool is_conflict(const struct mqsync_record *stored, const struct mqsync_write *w)
{
    if (!stored)
        return false;
    if (w->has_base_version)
        return w->base_version != stored->version;
    if (w->has_if_version && w->if_version)
        return false;
    return effective_time(stored, w) < stored->updated_ms;
}

static enum winner winner_of(const struct mqsync_rules *rules, const struct mqsync_record *stored,
                             const struct mqsync_write *w)
{
    if (rules->strategy == MQSYNC_CLIENT_WINS)
        return THE_WRITE;
    if (rules->strategy == MQSYNC_SERVER_WINS)
        return THE_RECORD;
    if (mqsync_strategy_merges(rules->strategy) && is_live(stored) && w->op != MQSYNC_DELETE)
        return A_MERGE;
    return effective_time(stored, w) >= stored->updated_ms ? THE_WRITE : THE_RECORD;
}

/* --- applying ----------------------------------------------------------------------------------------------------- */

static void apply_write(const struct mqsync_record *stored, const struct mqsync_write *w, struct mqsync_buf *out,
                        struct mqsync_outcome *ret)
{
    bool live = is_live(stored);
    struct mqsync_slice none = {NULL, 0}, old = live ? stored->data : none;
    ret->event = live ? MQSYNC_UPDATE : MQSYNC_INSERT;
    switch (w->op) {
    case MQSYNC_INSERT:
        ret->next.data = w->data;
        ret->event_data = w->data;
        if (live) {
            mqsync_json_diff(out, old, w->data, true);
            ret->event_data = mqsync_buf_slice(out);
        }
        break;
    case MQSYNC_UPDATE:
        mqsync_json_apply_delta(out, old, w->data);
        ret->next.data = mqsync_buf_slice(out);
        ret->event_data = live ? w->data : ret->next.data;
        break;
    case MQSYNC_DELETE:
        ret->event = MQSYNC_DELETE;
        ret->next.data = none;
        break;
    }
}

/* False when the merge leaves the record as it is. */
static bool apply_merge(const struct mqsync_rules *rules, const struct mqsync_record *stored,
                        const struct mqsync_write *w, struct mqsync_buf *out, struct mqsync_outcome *ret)
{
    struct mqsync_merge m = {
        .rules = rules,
        .local = w->data,
        .remote = stored->data,
        .partial = w->op == MQSYNC_UPDATE,
        .local_is_later = effective_time(stored, w) >= stored->updated_ms,
        .arrived_ms = w->arrived_ms,
        .updated_ms = stored->updated_ms,
    };
    mqsync_merge(out, &m);
    size_t merged_n = out->n;
    if (out->failed)
        return true;
    if (mqsync_slice_equal(mqsync_buf_slice(out), stored->data) ||
        mqsync_json_equal(mqsync_buf_slice(out), stored->data))
        return false;
    struct mqsync_buf event = {0};
    mqsync_json_diff(&event, stored->data, mqsync_buf_slice(out), false);
    mqsync_buf_add_slice(out, mqsync_buf_slice(&event));
    out->failed |= event.failed;
    mqsync_buf_free(&event);
    if (out->failed)
        return true;
    ret->event = MQSYNC_UPDATE;
    ret->next.data = (struct mqsync_slice){out->p, merged_n};
    ret->event_data = (struct mqsync_slice){out->p + merged_n, out->n - merged_n};
    return true;
}

/* --- history ------------------------------------------------------------------------------------------------------ */

static bool worth_remembering(const struct mqsync_change *c, int64_t now_ms)
{
    return c->mutation || (has_sent(c) && is_recent(c, now_ms));
}

/* What is left of the old history and then the new change. */
static void remember(const struct mqsync_record *stored, const struct mqsync_change *now, struct mqsync_record *next)
{
    unsigned n = 0;
    for (unsigned i = 0; stored && i < stored->history_n; i++) {
        if (worth_remembering(&stored->history[i], now->arrived_ms))
            next->history[n++] = stored->history[i];
    }
    if (n == MQSYNC_HISTORY_MAX) {
        unsigned drop = 0;
        while (drop < n && next->history[drop].mutation)
            drop++;
        if (drop == n)
            drop = 0;
        memmove(&next->history[drop], &next->history[drop + 1], (n - drop - 1) * sizeof(*now));
        n--;
    }
    next->history[n++] = *now;
    next->history_n = n;
}

static void fill_next(const struct mqsync_record *stored, const struct mqsync_write *w, const struct mqsync_change *now,
                      struct mqsync_record *next)
{
    next->version = now->version;
    next->seq = now->seq;
    next->updated_ms = now->effective_ms;
    next->deleted = w->op == MQSYNC_DELETE;
    next->user = w->user.n <= MQSYNC_USER_MAX ? w->user : (struct mqsync_slice){NULL, 0};
    next->formers_n = 0;
    remember(stored, now, next);
}

/* --- the story ---------------------------------------------------------------------------------------------------- */

/* Field by field: `next` is large, and of no use before a change is accepted. */
static void begin(const struct mqsync_record *stored, struct mqsync_buf *out, struct mqsync_outcome *ret)
{
    mqsync_buf_clear(out);
    ret->kind = MQSYNC_REFUSED;
    ret->error.code = MQSYNC_OK;
    ret->error.text[0] = '\0';
    ret->version = is_live(stored) ? stored->version : 0;
    ret->seq = stored ? stored->seq : 0;
    ret->timestamp_ms = stored ? stored->updated_ms : 0;
    ret->event = is_live(stored) ? MQSYNC_UPDATE : MQSYNC_DELETE;
    ret->event_data = (struct mqsync_slice){NULL, 0};
    ret->same_content = false;
    ret->was_conflict = false;
    ret->send_winner = false;
}

static void lose(const struct mqsync_record *stored, struct mqsync_outcome *ret)
{
    ret->kind = MQSYNC_LOST;
    ret->version = stored->version;
    ret->send_winner = true;
}

static void accept(const struct mqsync_change *now, struct mqsync_outcome *ret)
{
    ret->kind = MQSYNC_ACCEPTED;
    ret->version = now->version;
    ret->seq = now->seq;
    ret->timestamp_ms = now->effective_ms;
}

void mqsync_resolve(const struct mqsync_rules *rules, const struct mqsync_record *stored, uint64_t floor,
                    uint64_t next_seq, const struct mqsync_write *write, struct mqsync_buf *out,
                    struct mqsync_outcome *ret)
{
    begin(stored, out, ret);
    struct mqsync_change now = describe(stored, floor, next_seq, write);

    const struct mqsync_change *earlier = find_repeated(stored, write, &now);
    if (earlier) {
        repeat(earlier, &now, write, out, ret);
        return;
    }
    if (if_version_fails(stored, write, ret) || nothing_to_change(rules, stored, write, ret))
        return;

    ret->was_conflict = is_conflict(stored, write);
    enum winner winner = ret->was_conflict ? winner_of(rules, stored, write) : THE_WRITE;
    if (winner == THE_WRITE)
        apply_write(stored, write, out, ret);
    else if (winner == A_MERGE && !apply_merge(rules, stored, write, out, ret))
        winner = THE_RECORD;

    if (winner == THE_RECORD) {
        lose(stored, ret);
        return;
    }
    if (cannot_be_kept(rules, out, ret))
        return;
    fill_next(stored, write, &now, &ret->next);
    ret->send_winner = winner == A_MERGE;
    accept(&now, ret);
}
