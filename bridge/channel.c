/* SPDX-License-Identifier: BSD-3-Clause */
#include "channel.h"

#include <stdlib.h>
#include <xxhash.h>

#include "bridge.h"
#include "message.h"
#include "owner.h"
#include "session.h"

static struct mqsync_channel **bucket_of(struct mqsync_channels *all, struct mqsync_slice name)
{
    return &all->buckets[XXH3_64bits(name.p, name.n) % MQSYNC_CHANNELS_BUCKETS];
}

static struct mqsync_channel *find(struct mqsync_channels *all, struct mqsync_slice name)
{
    for (struct mqsync_channel *c = *bucket_of(all, name); c; c = c->next)
        if (mqsync_slice_equal(mqsync_slice_str(c->name), name))
            return c;
    return NULL;
}

struct mqsync_channel *mqsync_channel_enter(struct mqsync_bridge *b, struct mqsync_slice name)
{
    struct mqsync_channel *c = find(&b->channels, name);

    if (!c) {
        c = calloc(1, sizeof(*c));
        if (!c)
            return NULL;
        memcpy(c->name, name.p, name.n);
        c->id = ++b->channels.ids;
        c->since_us = mqsync_monotonic_us();
        struct mqsync_channel **bucket = bucket_of(&b->channels, name);
        c->next = *bucket;
        *bucket = c;
    }
    c->references++;
    return c;
}

void mqsync_channel_leave(struct mqsync_bridge *b, struct mqsync_channel *c)
{
    struct mqsync_channel **at;

    if (--c->references > 0)
        return;
    at = bucket_of(&b->channels, mqsync_slice_str(c->name));
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    free(c->senders);
    free(c->feeds);
    free(c);
}

bool mqsync_channel_add(struct mqsync_channel *c, struct mqsync_feed *f)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 4;
        struct mqsync_feed **feeds = realloc(c->feeds, cap * sizeof(*feeds));
        if (!feeds)
            return false;
        c->feeds = feeds;
        c->cap = cap;
    }
    f->place = c->n;
    c->feeds[c->n++] = f;
    return true;
}

void mqsync_channel_remove(struct mqsync_channel *c, struct mqsync_feed *f)
{
    struct mqsync_feed *last = c->feeds[--c->n];

    c->feeds[f->place] = last;
    last->place = f->place;
}

/* --- whole records ------------------------------------------------------------------------------------------------ */

/* At QoS 0, like the subscription to the events: what is missing is seen by its seq. */
static void ask_to_follow(struct mqsync_bridge *b, struct mqsync_channel *c)
{
    struct mqsync_upstream_command command = {
        .collection = mqsync_slice_str(c->name),
        .payload = c->full_n
                       ? MQSYNC_SLICE("{\"type\":\"subscribe\",\"metadata\":{\"sync\":false,\"updates\":\"full\"}}")
                       : MQSYNC_SLICE("{\"type\":\"subscribe\",\"metadata\":{\"sync\":false,\"updates\":\"delta\"}}"),
        .tag = {.question = MQSYNC_UPSTREAM_FOLLOW},
        .at_most_once = true,
    };
    uint16_t mid;

    c->followed = false;
    mqsync_upstream_command(b->upstream, &command, &mid); /* where it does not get through, records are looked up */
}

void mqsync_channel_follow(struct mqsync_bridge *b, struct mqsync_channel *c)
{
    if (!c->senders)
        c->senders = calloc(MQSYNC_SENDERS, sizeof(*c->senders));
    if (c->full_n++ == 0)
        ask_to_follow(b, c);
}

void mqsync_channel_unfollow(struct mqsync_bridge *b, struct mqsync_channel *c)
{
    if (--c->full_n == 0)
        ask_to_follow(b, c);
}

void mqsync_channels_followed(struct mqsync_bridge *b, struct mqsync_slice collection, bool follows)
{
    struct mqsync_channel *c = find(&b->channels, collection);

    if (c)
        c->followed = follows && c->full_n && c->senders;
}

static struct mqsync_sender *place_of(const struct mqsync_channel *c, uint64_t seq)
{
    return c->senders ? &c->senders[seq % MQSYNC_SENDERS] : NULL;
}

/* --- events ------------------------------------------------------------------------------------------------------- */

static struct mqsync_frame *frame_of(const struct mqsync_channel *c, const struct mqsync_upstream_event *e,
                                     uint64_t seq)
{
    struct mqsync_slice payload = e->payload;
    struct mqsync_frame *frame = mqsync_frame_alloc(payload);
    bool insert = mqsync_slice_starts_with(payload, "{\"type\":\"insert\",");
    uint64_t version = 0;

    if (!frame)
        return NULL;
    frame->channel = c->id;
    frame->seq = seq;
    frame->record = c->full_n ? XXH3_64bits(e->record_id.p, e->record_id.n) | 1 : 0;
    frame->whole = e->whole || insert || mqsync_slice_starts_with(payload, "{\"type\":\"delete\",");
    frame->first = insert && mqsync_event_version(payload, &version) && version == 1;
    return frame;
}

/* The handle of the session whose change it was; 0: of none. */
static uint64_t announce(struct mqsync_bridge *b, const struct mqsync_upstream_event *e)
{
    struct mqsync_pending_command *command = mqsync_pending_announce(&b->pending, e->mark);

    b->metrics.events++;
    if (!command)
        return 0;
    mqsync_metrics_latency(&b->metrics, mqsync_monotonic_us() - command->sent_us);
    return command->session;
}

void mqsync_channels_event(struct mqsync_bridge *b, const struct mqsync_upstream_event *e)
{
    uint64_t from = e->whole ? 0 : announce(b, e);
    struct mqsync_channel *c = find(&b->channels, e->collection);
    struct mqsync_sender *place;
    struct mqsync_frame *frame;
    uint64_t seq;

    if (!c || !mqsync_event_seq(e->payload, &seq))
        return;
    place = place_of(c, seq);
    if (place && !e->whole)
        *place = (struct mqsync_sender){seq, from};
    else if (place && place->seq == seq)
        from = place->session;
    struct mqsync_session *sender = from ? mqsync_session_find(b, from) : NULL;
    if (seq > c->last_seq)
        c->last_seq = seq;
    c->stirred = true;
    frame = c->n ? frame_of(c, e, seq) : NULL;
    struct mqsync_showing showing = {e, frame, c->id, seq, NULL, NULL, NULL};
    /* from the end: a feed that is closed on the way is replaced by one that has had its turn */
    for (size_t i = c->n; i-- > 0;) {
        struct mqsync_feed *f = c->feeds[i];
        bool own = sender && f->session == sender;
        if (e->whole != (c->followed && f->full_updates))
            continue;
        struct mqsync_frame *shown =
            f->rule ? mqsync_showing_to(&showing, mqsync_session_user(f->session), &own) : frame;
        mqsync_feed_event(b, f, seq, shown, own);
    }
    mqsync_showing_end(&showing);
    mqsync_frame_unref(frame);
}

static void each(struct mqsync_bridge *b, void (*visit)(struct mqsync_bridge *b, struct mqsync_channel *c))
{
    for (size_t i = 0; i < MQSYNC_CHANNELS_BUCKETS; i++)
        for (struct mqsync_channel *c = b->channels.buckets[i]; c; c = c->next)
            visit(b, c);
}

static void catch_up(struct mqsync_bridge *b, struct mqsync_channel *c)
{
    c->since_us = mqsync_monotonic_us();
    c->last_seq = c->expected = 0; /* the database may be another one */
    if (c->senders)
        memset(c->senders, 0, MQSYNC_SENDERS * sizeof(*c->senders));
    if (c->full_n)
        ask_to_follow(b, c);
    for (size_t i = 0; i < c->n; i++) {
        c->feeds[i]->live = false;
        mqsync_feed_hunger(b, c->feeds[i]);
    }
}

void mqsync_channels_catch_up(struct mqsync_bridge *b)
{
    each(b, catch_up);
}

static void check(struct mqsync_bridge *b, struct mqsync_channel *c)
{
    struct mqsync_collection_stat stat;
    struct mqsync_view *view;
    int64_t wait;

    for (size_t i = 0; i < c->n; i++) {
        if (!c->feeds[i]->live || c->feeds[i]->seq >= c->expected)
            continue;
        c->feeds[i]->live = false;
        mqsync_feed_hunger(b, c->feeds[i]);
    }
    c->expected = 0;
    if (!c->stirred)
        return;
    c->stirred = false;
    view = mqsync_database_view(&b->database, mqsync_monotonic_us(), true, &wait);
    if (view && mqsync_view_collection(view, mqsync_slice_str(c->name), &stat))
        c->expected = stat.seq;
}

void mqsync_channels_check(struct mqsync_bridge *b)
{
    if (b->database.dir)
        each(b, check);
}
