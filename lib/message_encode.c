/* SPDX-License-Identifier: BSD-3-Clause */
#include "message.h"

/* Room for everything in a message but its texts and data: keys, punctuation, numbers, time. */
enum { FRAME_MAX = 256 };

/* What end adds to a page: FRAME_MAX and an epoch of sane length. Kept free while entries are added. */
enum { PAGE_TAIL_MAX = 512 };

/* An encoder reserves once what it will need and then appends without a call; it grows only for escapes. */
static inline void put(struct mqsync_buf *out, const char *bytes, size_t n)
{
    if (out->cap - out->n < n && !mqsync_buf_reserve(out, n))
        return;
    if (n) {
        memcpy(out->p + out->n, bytes, n);
        out->n += n;
    }
}

#define PUT(out, literal) put((out), (literal), sizeof(literal) - 1)

static void put_time(struct mqsync_buf *out, int64_t ms)
{
    char text[MQSYNC_TIMESTAMP_LEN + 2];
    text[0] = '"';
    mqsync_time_format(ms, text + 1);
    text[sizeof(text) - 1] = '"';
    put(out, text, sizeof(text));
}

static const struct mqsync_slice event_heads[] = {
    [MQSYNC_INSERT] = MQSYNC_SLICE("{\"type\":\"insert\",\"collection\":"),
    [MQSYNC_UPDATE] = MQSYNC_SLICE("{\"type\":\"update\",\"collection\":"),
    [MQSYNC_DELETE] = MQSYNC_SLICE("{\"type\":\"delete\",\"collection\":"),
};

void mqsync_event_encode(struct mqsync_buf *out, const struct mqsync_event *e)
{
    if (!mqsync_buf_reserve(out,
                            FRAME_MAX + e->collection.n + e->record_id.n + e->data.n + e->user.n + e->mutation_id.n))
        return;
    put(out, event_heads[e->op].p, event_heads[e->op].n);
    mqsync_json_add_string(out, e->collection);
    PUT(out, ",\"recordId\":");
    mqsync_json_add_string(out, e->record_id);
    if (e->data.n) {
        PUT(out, ",\"data\":");
        put(out, e->data.p, e->data.n);
    }
    PUT(out, ",\"timestamp\":");
    put_time(out, e->timestamp_ms);
    PUT(out, ",\"metadata\":{\"version\":");
    mqsync_buf_add_u64(out, e->version);
    PUT(out, ",\"userId\":");
    if (e->user.n)
        mqsync_json_add_string(out, e->user);
    else
        PUT(out, "null");
    PUT(out, ",\"seq\":");
    mqsync_buf_add_u64(out, e->seq);
    if (e->mutation_id.n) {
        PUT(out, ",\"mutationId\":");
        mqsync_json_add_string(out, e->mutation_id);
    }
    if (e->conflict)
        PUT(out, ",\"conflict\":true");
    PUT(out, "}}");
}

/* From the end, where it is: an unescaped quote between a comma, or a brace, and a key is in no string. */
static bool last_u64(struct mqsync_slice event, struct mqsync_slice key, uint64_t *ret)
{
    const char *colon = event.p + event.n;

    while ((colon = memrchr(event.p, ':', (size_t)(colon - event.p)))) {
        if ((size_t)(colon - event.p) < key.n || memcmp(colon - key.n, key.p, key.n) != 0)
            continue;
        struct mqsync_slice value = {colon + 1, 0};
        while (value.p[value.n] != ',' && value.p[value.n] != '}')
            value.n++;
        return mqsync_json_to_u64(value, ret);
    }
    return false;
}

bool mqsync_event_seq(struct mqsync_slice event, uint64_t *ret)
{
    return mqsync_slice_starts_with(event, "{") && mqsync_json_check(event, NULL, NULL) == MQSYNC_OK &&
           last_u64(event, MQSYNC_SLICE(",\"seq\""), ret);
}

bool mqsync_event_version(struct mqsync_slice event, uint64_t *ret)
{
    return last_u64(event, MQSYNC_SLICE("{\"version\""), ret);
}

void mqsync_ack_encode(struct mqsync_buf *out, struct mqsync_slice collection, struct mqsync_slice record_id,
                       struct mqsync_slice mutation_id, uint64_t version, uint64_t seq, bool conflict)
{
    if (!mqsync_buf_reserve(out, FRAME_MAX + collection.n + record_id.n + mutation_id.n))
        return;
    PUT(out, "{\"type\":\"ack\",\"collection\":");
    mqsync_json_add_string(out, collection);
    PUT(out, ",\"recordId\":");
    mqsync_json_add_string(out, record_id);
    PUT(out, ",\"metadata\":{");
    if (mutation_id.n) {
        PUT(out, "\"mutationId\":");
        mqsync_json_add_string(out, mutation_id);
        PUT(out, ",");
    }
    PUT(out, "\"version\":");
    mqsync_buf_add_u64(out, version);
    PUT(out, ",\"seq\":");
    mqsync_buf_add_u64(out, seq);
    if (conflict)
        PUT(out, ",\"conflict\":true");
    PUT(out, "}}");
}

void mqsync_error_encode(struct mqsync_buf *out, const struct mqsync_error *e, struct mqsync_slice collection,
                         struct mqsync_slice record_id, struct mqsync_slice mutation_id, bool has_version,
                         uint64_t version)
{
    const struct {
        struct mqsync_slice key, value;
    } texts[] = {
        {MQSYNC_SLICE("\"collection\":"), collection},
        {MQSYNC_SLICE("\"recordId\":"), record_id},
        {MQSYNC_SLICE("\"mutationId\":"), mutation_id},
    };
    bool comma = false;

    PUT(out, "{\"type\":\"error\",\"error\":");
    mqsync_json_add_string(out, mqsync_slice_str(e->text));
    PUT(out, ",\"code\":");
    mqsync_json_add_string(out, mqsync_slice_str(mqsync_code_name(e->code)));
    PUT(out, ",\"metadata\":{");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].value.n == 0)
            continue;
        put(out, ",", comma);
        put(out, texts[i].key.p, texts[i].key.n);
        mqsync_json_add_string(out, texts[i].value);
        comma = true;
    }
    if (has_version) {
        put(out, ",", comma);
        PUT(out, "\"version\":");
        mqsync_buf_add_u64(out, version);
    }
    PUT(out, "}}");
}

enum mqsync_code mqsync_error_read(struct mqsync_slice message)
{
    struct mqsync_slice value;
    int code = MQSYNC_CONFLICT;

    if (!mqsync_slice_starts_with(message, "{\"type\":\"error\",") ||
        mqsync_json_check(message, NULL, NULL) != MQSYNC_OK ||
        !mqsync_json_member(message, MQSYNC_SLICE("code"), MQSYNC_JSON_STRING, &value))
        return MQSYNC_OK;
    value = mqsync_json_inside(value);
    while (code > MQSYNC_OK && !mqsync_slice_equal(value, mqsync_slice_str(mqsync_code_name((enum mqsync_code)code))))
        code--;
    return (enum mqsync_code)code;
}

void mqsync_subscribed_encode(struct mqsync_buf *out, struct mqsync_slice collection, uint64_t record_count,
                              uint64_t seq, struct mqsync_slice epoch, bool full_updates)
{
    PUT(out, "{\"type\":\"subscribed\",\"collection\":");
    mqsync_json_add_string(out, collection);
    PUT(out, ",\"metadata\":{\"recordCount\":");
    mqsync_buf_add_u64(out, record_count);
    PUT(out, ",\"seq\":");
    mqsync_buf_add_u64(out, seq);
    PUT(out, ",\"epoch\":");
    mqsync_json_add_string(out, epoch);
    if (full_updates)
        PUT(out, ",\"updates\":\"full\"");
    PUT(out, "}}");
}

void mqsync_plain_encode(struct mqsync_buf *out, const char *type, struct mqsync_slice collection)
{
    PUT(out, "{\"type\":");
    mqsync_json_add_string(out, mqsync_slice_str(type));
    if (collection.n) {
        PUT(out, ",\"collection\":");
        mqsync_json_add_string(out, collection);
    }
    PUT(out, "}");
}

void mqsync_page_begin(struct mqsync_page *p, struct mqsync_slice collection)
{
    mqsync_buf_clear(&p->out);
    mqsync_buf_clear(&p->deleted);
    p->records_n = p->deleted_n = 0;
    PUT(&p->out, "{\"type\":\"sync\",\"collection\":");
    mqsync_json_add_string(&p->out, collection);
    PUT(&p->out, ",\"data\":{\"records\":[");
}

bool mqsync_page_add(struct mqsync_page *p, struct mqsync_slice id, struct mqsync_slice data, uint64_t version,
                     int64_t updated_ms, bool deleted)
{
    struct mqsync_buf *out = deleted ? &p->deleted : &p->out;
    unsigned *count = deleted ? &p->deleted_n : &p->records_n;
    size_t before = out->n;
    bool first = p->records_n + p->deleted_n == 0;
    if (p->records_n + p->deleted_n >= MQSYNC_PAGE_MAX_ENTRIES)
        return false;

    put(out, ",", *count > 0);
    PUT(out, "{\"id\":");
    mqsync_json_add_string(out, id);
    if (!deleted) {
        PUT(out, ",\"data\":");
        put(out, data.p, data.n);
    }
    PUT(out, ",\"version\":");
    mqsync_buf_add_u64(out, version);
    PUT(out, ",\"updatedAt\":");
    put_time(out, updated_ms);
    PUT(out, "}");
    if (!first && p->out.n + p->deleted.n + PAGE_TAIL_MAX > MQSYNC_PAGE_MAX_BYTES) {
        out->n = before;
        return false;
    }
    ++*count;
    return true;
}

static void put_bool(struct mqsync_buf *out, bool b)
{
    put(out, b ? "true" : "false", b ? 4 : 5);
}

void mqsync_page_end(struct mqsync_page *p, int64_t now_ms, uint64_t seq, struct mqsync_slice epoch, bool full,
                     bool more, uint64_t total)
{
    struct mqsync_buf *out = &p->out;
    PUT(out, "]");
    if (!full || p->deleted_n) {
        PUT(out, ",\"deleted\":[");
        put(out, p->deleted.p, p->deleted.n);
        PUT(out, "]");
    }
    PUT(out, "},\"timestamp\":");
    put_time(out, now_ms);
    PUT(out, ",\"metadata\":{\"seq\":");
    mqsync_buf_add_u64(out, seq);
    PUT(out, ",\"epoch\":");
    mqsync_json_add_string(out, epoch);
    PUT(out, ",\"full\":");
    put_bool(out, full);
    PUT(out, ",\"more\":");
    put_bool(out, more);
    PUT(out, ",\"total\":");
    mqsync_buf_add_u64(out, total);
    PUT(out, "}}");
    out->failed |= p->deleted.failed;
}

void mqsync_page_free(struct mqsync_page *p)
{
    mqsync_buf_free(&p->out);
    mqsync_buf_free(&p->deleted);
    *p = (struct mqsync_page){0};
}
