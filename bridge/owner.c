/* SPDX-License-Identifier: BSD-3-Clause */
#include "owner.h"

#include <xxhash.h>

#include "message.h"

static const char insert_head[] = "{\"type\":\"insert\",", update_head[] = "{\"type\":\"update\",",
                  delete_head[] = "{\"type\":\"delete\",";

static struct mqsync_frame *frame_of(const struct mqsync_showing *s, struct mqsync_slice text)
{
    struct mqsync_frame *f = mqsync_frame_alloc(text);

    if (f) {
        f->channel = s->channel;
        f->seq = s->seq;
    }
    return f;
}

/* A member that is null may stand for one that was removed, or for one that the record has. */
static bool has_null(struct mqsync_slice object)
{
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key, value;

    while (mqsync_json_next_member(&it, &key, &value))
        if (mqsync_json_typeof(value) == MQSYNC_JSON_NULL)
            return true;
    return false;
}

/* An `update` with the full data, as the plugin announces a change of owner, is an `insert` to the new one. When it
 * says nothing of a former one it may be the repetition of an old event, of which the plugin does not know that any
 * more; its data then are those of the write. */
static struct mqsync_frame *make_appeared(const struct mqsync_showing *s)
{
    struct mqsync_slice data;
    struct mqsync_frame *f;

    if (!s->event->former_owner_told || !mqsync_slice_starts_with(s->event->payload, update_head) ||
        !mqsync_json_member(s->event->payload, MQSYNC_SLICE("data"), MQSYNC_JSON_OBJECT, &data) || has_null(data))
        return NULL;
    f = frame_of(s, s->event->payload);
    _Static_assert(sizeof(insert_head) == sizeof(update_head), "one head replaces the other");
    if (f)
        memcpy(f->text, insert_head, sizeof(insert_head) - 1);
    return f;
}

static struct mqsync_frame *make_gone(const struct mqsync_showing *s)
{
    struct mqsync_event event = {
        .op = MQSYNC_DELETE, .collection = s->event->collection, .record_id = s->event->record_id, .seq = s->seq};
    struct mqsync_slice metadata, user, timestamp;
    struct mqsync_buf name = {0}, out = {0};
    struct mqsync_time time;
    struct mqsync_frame *f = NULL;

    if (!mqsync_json_member(s->event->payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &metadata) ||
        !mqsync_json_member_u64(metadata, MQSYNC_SLICE("version"), &event.version) ||
        !mqsync_json_member(s->event->payload, MQSYNC_SLICE("timestamp"), MQSYNC_JSON_STRING, &timestamp) ||
        !mqsync_time_parse(mqsync_json_inside(timestamp), &time))
        return NULL;
    event.timestamp_ms = time.ms;
    if (mqsync_json_member(metadata, MQSYNC_SLICE("userId"), MQSYNC_JSON_STRING, &user))
        mqsync_json_unescape(&name, user);
    event.user = mqsync_buf_slice(&name);
    mqsync_event_encode(&out, &event);
    if (!out.failed && !name.failed)
        f = frame_of(s, mqsync_buf_slice(&out));
    mqsync_buf_free(&name);
    mqsync_buf_free(&out);
    return f;
}

static struct mqsync_frame *make_nothing(const struct mqsync_showing *s)
{
    return frame_of(s, (struct mqsync_slice){0});
}

static struct mqsync_frame *made(const struct mqsync_showing *s, struct mqsync_frame **at,
                                 struct mqsync_frame *(*make)(const struct mqsync_showing *s))
{
    if (!*at)
        *at = make(s);
    return *at;
}

struct mqsync_frame *mqsync_showing_to(struct mqsync_showing *s, struct mqsync_slice user, bool *own)
{
    const struct mqsync_upstream_event *e = s->event;
    bool before = user.n && mqsync_slice_equal(e->former_owner, user);
    bool after = user.n && mqsync_slice_equal(e->owner, user);

    if (!e->owner_told) {
        *own = false;
        return NULL;
    }
    if (!before && !after)
        return made(s, &s->nothing, make_nothing);
    if (before && after)
        return s->frame;
    if (after && mqsync_slice_starts_with(e->payload, insert_head))
        return s->frame;
    if (before && mqsync_slice_starts_with(e->payload, delete_head))
        return s->frame;
    *own = false;
    return after ? made(s, &s->appeared, make_appeared) : made(s, &s->gone, make_gone);
}

void mqsync_showing_end(struct mqsync_showing *s)
{
    mqsync_frame_unref(s->appeared);
    mqsync_frame_unref(s->gone);
    mqsync_frame_unref(s->nothing);
}

uint64_t mqsync_owner_rule(const struct mqsync_collection_config *c, enum mqsync_right right)
{
    return right == MQSYNC_RIGHT_OWN ? XXH3_64bits(c->owner, strlen(c->owner)) | 1 : 0;
}
