/* SPDX-License-Identifier: BSD-3-Clause */
#include "query.h"

/* The zone furthest east: a time without one can mean a moment this much earlier than it would be in UTC. */
enum { EARLIEST_ZONE_MS = 14 * 3600 * 1000 };

static const struct mqsync_slice nothing;

/* --- the path ----------------------------------------------------------------------------------------------------- */

bool mqsync_target_parse(struct mqsync_slice path, struct mqsync_target *ret)
{
    static const char prefix[] = "/sync/";
    size_t prefix_n = sizeof(prefix) - 1;
    const char *slash;

    if (path.n > prefix_n && path.p[path.n - 1] == '/')
        path.n--;
    if (path.n <= prefix_n || memcmp(path.p, prefix, prefix_n) != 0)
        return false;
    path.p += prefix_n;
    path.n -= prefix_n;
    *ret = (struct mqsync_target){.collection = path};
    slash = memchr(path.p, '/', path.n);
    if (!slash)
        return true;
    ret->collection.n = (size_t)(slash - path.p);
    ret->record_id = (struct mqsync_slice){slash + 1, path.n - ret->collection.n - 1};
    return ret->collection.n && !memchr(slash + 1, '/', ret->record_id.n);
}

/* --- parameters --------------------------------------------------------------------------------------------------- */

static bool parse_u64(struct mqsync_slice text, uint64_t *ret)
{
    uint64_t v = 0;

    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || v > ((uint64_t)INT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (uint64_t)(text.p[i] - '0');
    }
    *ret = v;
    return text.n > 0;
}

static enum mqsync_code parse_count(const char *name, struct mqsync_slice value, uint64_t *ret,
                                    struct mqsync_error *ret_error)
{
    if (parse_u64(value, ret))
        return MQSYNC_OK;
    return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "%s: expected an unsigned integer", name);
}

/* A "+" before the zone that was sent as it is has become a space. */
static bool parse_time(struct mqsync_slice value, struct mqsync_time *ret)
{
    char text[64];

    if (value.n >= sizeof(text) || value.n < sizeof("+00:00"))
        return mqsync_time_parse(value, ret);
    memcpy(text, value.p, value.n);
    if (text[value.n - 6] == ' ' && text[value.n - 3] == ':' && memchr(text, ':', value.n - 6))
        text[value.n - 6] = '+';
    return mqsync_time_parse((struct mqsync_slice){text, value.n}, ret);
}

static enum mqsync_code parse_since(struct mqsync_slice value, struct mqsync_query *ret, struct mqsync_error *ret_error)
{
    struct mqsync_time time;

    ret->has_since = false;
    ret->since_seq = 0;
    if (parse_u64(value, &ret->since_seq))
        return MQSYNC_OK;
    if (!parse_time(value, &time))
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE,
                           "since: expected a time such as 2026-11-22T18:17:00.000Z, or a seq");
    ret->has_since = true;
    ret->since_ms = time.kind == MQSYNC_TIME_ZONELESS ? time.ms - EARLIEST_ZONE_MS : time.ms;
    return MQSYNC_OK;
}

static enum mqsync_code parse_names(const char *name, struct mqsync_slice value, struct mqsync_slice *names, size_t *n,
                                    struct mqsync_error *ret_error)
{
    while (value.n) {
        const char *comma = memchr(value.p, ',', value.n);
        size_t length = comma ? (size_t)(comma - value.p) : value.n;
        if (*n == MQSYNC_FIELDS_MAX)
            return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "%s: expected at most %d fields", name,
                               MQSYNC_FIELDS_MAX);
        if (length)
            names[(*n)++] = (struct mqsync_slice){value.p, length};
        length += comma ? 1 : 0;
        value = (struct mqsync_slice){value.p + length, value.n - length};
    }
    return MQSYNC_OK;
}

static enum mqsync_code parse_where(struct mqsync_slice field, struct mqsync_slice value, struct mqsync_query *ret,
                                    struct mqsync_error *ret_error)
{
    struct mqsync_json_info info;
    bool trimmed = value.n && (unsigned char)value.p[0] > ' ' && (unsigned char)value.p[value.n - 1] > ' ';

    if (ret->where_n == MQSYNC_WHERE_MAX)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "where: expected at most %d conditions",
                           MQSYNC_WHERE_MAX);
    ret->where[ret->where_n++] = (struct mqsync_condition){
        .field = field,
        .value = value,
        .is_number = trimmed && mqsync_json_check(value, &info, NULL) == MQSYNC_OK && info.type == MQSYNC_JSON_NUMBER,
    };
    return MQSYNC_OK;
}

static bool is_where(struct mqsync_slice name, struct mqsync_slice *ret_field)
{
    static const char start[] = "where[";
    size_t n = sizeof(start) - 1;

    if (name.n <= n || memcmp(name.p, start, n) != 0 || name.p[name.n - 1] != ']')
        return false;
    *ret_field = (struct mqsync_slice){name.p + n, name.n - n - 1};
    return true;
}

static enum mqsync_code parse_one(struct mqsync_slice name, struct mqsync_slice value, struct mqsync_query *ret,
                                  struct mqsync_error *ret_error)
{
    struct mqsync_slice field;

    if (mqsync_slice_equal(name, MQSYNC_SLICE("since")))
        return parse_since(value, ret, ret_error);
    if (mqsync_slice_equal(name, MQSYNC_SLICE("limit")))
        return parse_count("limit", value, &ret->limit, ret_error);
    if (mqsync_slice_equal(name, MQSYNC_SLICE("offset")))
        return parse_count("offset", value, &ret->offset, ret_error);
    if (is_where(name, &field))
        return parse_where(field, value, ret, ret_error);
    if (mqsync_slice_equal(name, MQSYNC_SLICE("excludeFields")))
        return parse_names("excludeFields", value, ret->exclude, &ret->exclude_n, ret_error);
    if (!mqsync_slice_equal(name, MQSYNC_SLICE("fields")))
        return MQSYNC_OK;
    ret->has_fields = true;
    return parse_names("fields", value, ret->fields, &ret->fields_n, ret_error);
}

enum mqsync_code mqsync_query_parse(const struct mqsync_slice *args, size_t n, struct mqsync_query *ret,
                                    struct mqsync_error *ret_error)
{
    enum mqsync_code code = MQSYNC_OK;

    *ret = (struct mqsync_query){.limit = UINT64_MAX};
    for (size_t i = 0; i < n && code == MQSYNC_OK; i++) {
        const char *equals = args[i].n ? memchr(args[i].p, '=', args[i].n) : NULL;
        size_t name_n = equals ? (size_t)(equals - args[i].p) : args[i].n;
        struct mqsync_slice value = equals ? (struct mqsync_slice){equals + 1, args[i].n - name_n - 1} : nothing;
        code = parse_one((struct mqsync_slice){args[i].p, name_n}, value, ret, ret_error);
    }
    return code;
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* A string's text between its quotes, as it stands there, against plain text. */
static bool string_equal(struct mqsync_slice raw, struct mqsync_slice plain)
{
    struct mqsync_buf text = {0};
    bool equal;

    if (raw.n < plain.n)
        return false; /* an escape is never shorter than what it stands for */
    if (raw.n == 0 || !memchr(raw.p, '\\', raw.n))
        return mqsync_slice_equal(raw, plain);
    mqsync_json_unescape(&text, (struct mqsync_slice){raw.p - 1, raw.n + 2});
    equal = !text.failed && mqsync_slice_equal(mqsync_buf_slice(&text), plain);
    mqsync_buf_free(&text);
    return equal;
}

static bool holds(const struct mqsync_condition *c, struct mqsync_slice value)
{
    switch (mqsync_json_typeof(value)) {
    case MQSYNC_JSON_STRING:
        return string_equal(mqsync_json_inside(value), c->value);
    case MQSYNC_JSON_NUMBER:
        return c->is_number && mqsync_json_number_compare(value, c->value) == 0;
    case MQSYNC_JSON_ARRAY:
    case MQSYNC_JSON_OBJECT:
        return false;
    default: /* true, false, null */
        return mqsync_slice_equal(value, c->value);
    }
}

bool mqsync_query_matches(const struct mqsync_query *q, struct mqsync_slice data, int64_t updated_ms)
{
    struct mqsync_json_iter it;
    struct mqsync_slice key, value;
    bool found[MQSYNC_WHERE_MAX] = {false};

    if (q->has_since && updated_ms < q->since_ms)
        return false;
    if (q->where_n == 0)
        return true;
    it = mqsync_json_members(data);
    while (mqsync_json_next_member(&it, &key, &value)) {
        for (size_t i = 0; i < q->where_n; i++) {
            if (!string_equal(key, q->where[i].field))
                continue;
            if (!holds(&q->where[i], value))
                return false;
            found[i] = true;
        }
    }
    for (size_t i = 0; i < q->where_n; i++)
        if (!found[i] && !mqsync_slice_equal(q->where[i].value, MQSYNC_SLICE("null")))
            return false;
    return true;
}

static bool among(const struct mqsync_slice *names, size_t n, struct mqsync_slice raw_key)
{
    for (size_t i = 0; i < n; i++)
        if (string_equal(raw_key, names[i]))
            return true;
    return false;
}

void mqsync_query_project(const struct mqsync_query *q, struct mqsync_slice data, struct mqsync_buf *out)
{
    struct mqsync_json_iter it;
    struct mqsync_slice key, value;
    bool first = true;

    if (!q->has_fields && q->exclude_n == 0) {
        mqsync_buf_add_slice(out, data);
        return;
    }
    mqsync_buf_add_char(out, '{');
    it = mqsync_json_members(data);
    while (mqsync_json_next_member(&it, &key, &value)) {
        if ((q->has_fields && !among(q->fields, q->fields_n, key)) || among(q->exclude, q->exclude_n, key))
            continue;
        mqsync_buf_add_str(out, first ? "\"" : ",\"");
        mqsync_buf_add_slice(out, key);
        mqsync_buf_add_str(out, "\":");
        mqsync_buf_add_slice(out, value);
        first = false;
    }
    mqsync_buf_add_char(out, '}');
}

/* --- writes ------------------------------------------------------------------------------------------------------- */

struct body {
    struct mqsync_slice record_id, data, delta, timestamp, metadata, base_version, if_version, mutation_id;
};

static enum mqsync_code read_body(struct mqsync_slice text, struct body *ret, struct mqsync_error *ret_error)
{
    const struct {
        struct mqsync_slice name, *place;
    } fields[] = {
        {MQSYNC_SLICE("recordId"), &ret->record_id},   {MQSYNC_SLICE("data"), &ret->data},
        {MQSYNC_SLICE("delta"), &ret->delta},          {MQSYNC_SLICE("timestamp"), &ret->timestamp},
        {MQSYNC_SLICE("metadata"), &ret->metadata},    {MQSYNC_SLICE("baseVersion"), &ret->base_version},
        {MQSYNC_SLICE("ifVersion"), &ret->if_version}, {MQSYNC_SLICE("mutationId"), &ret->mutation_id},
    };
    struct mqsync_json_info info;
    struct mqsync_json_iter it;
    struct mqsync_slice key, value;
    enum mqsync_code code = mqsync_json_check(text, &info, ret_error);

    *ret = (struct body){.record_id = nothing};
    if (code != MQSYNC_OK)
        return code;
    if (info.type != MQSYNC_JSON_OBJECT)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "body: expected a JSON object");
    it = mqsync_json_members(text);
    while (mqsync_json_next_member(&it, &key, &value)) {
        if (mqsync_json_typeof(value) == MQSYNC_JSON_NULL)
            continue;
        for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
            if (string_equal(key, fields[i].name))
                *fields[i].place = value;
    }
    if (ret->metadata.n && mqsync_json_typeof(ret->metadata) != MQSYNC_JSON_OBJECT)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "metadata: expected an object");
    return MQSYNC_OK;
}

static void add_member(struct mqsync_buf *out, const char *name, struct mqsync_slice value)
{
    if (value.n == 0)
        return;
    if (out->n && out->p[out->n - 1] != '{')
        mqsync_buf_add_char(out, ',');
    mqsync_buf_add_char(out, '"');
    mqsync_buf_add_str(out, name);
    mqsync_buf_add_str(out, "\":");
    mqsync_buf_add_slice(out, value);
}

/* A field that stands beside `data` in an HTTP body stands in `metadata` in a message. The same one in both places is a
 * duplicate key, which the decoder refuses. */
static void add_metadata(struct mqsync_buf *out, const struct body *body)
{
    struct mqsync_slice inner = body->metadata;

    mqsync_buf_add_str(out, ",\"metadata\":{");
    if (inner.n) {
        struct mqsync_json_iter it = mqsync_json_members(inner);
        struct mqsync_slice key, value;
        while (mqsync_json_next_member(&it, &key, &value)) {
            if (out->n && out->p[out->n - 1] != '{')
                mqsync_buf_add_char(out, ',');
            mqsync_buf_add_char(out, '"');
            mqsync_buf_add_slice(out, key);
            mqsync_buf_add_str(out, "\":");
            mqsync_buf_add_slice(out, value);
        }
    }
    add_member(out, "baseVersion", body->base_version);
    add_member(out, "ifVersion", body->if_version);
    add_member(out, "mutationId", body->mutation_id);
    mqsync_buf_add_str(out, "}}");
}

static enum mqsync_code check_ids(const struct mqsync_target *target, const struct body *body,
                                  struct mqsync_error *ret_error)
{
    struct mqsync_slice id = body->record_id;

    if (target->record_id.n && !mqsync_record_id_valid(target->record_id))
        return mqsync_fail(
            ret_error, MQSYNC_INVALID_MESSAGE,
            "recordId in the path: expected 1 to 128 bytes of UTF-8 without / + # and control characters");
    if (!target->record_id.n || !id.n)
        return MQSYNC_OK;
    if (mqsync_json_typeof(id) == MQSYNC_JSON_STRING && string_equal(mqsync_json_inside(id), target->record_id))
        return MQSYNC_OK;
    return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "recordId: expected \"%.*s\" as in the path, or nothing",
                       (int)target->record_id.n, target->record_id.p);
}

static const char *type_of(enum mqsync_http_method method)
{
    return method == MQSYNC_HTTP_PATCH ? "update" : method == MQSYNC_HTTP_DELETE ? "delete" : "insert";
}

enum mqsync_code mqsync_query_command(enum mqsync_http_method method, const struct mqsync_target *target,
                                      struct mqsync_slice body, struct mqsync_buf *command, struct mqsync_buf *scratch,
                                      struct mqsync_message *ret, struct mqsync_error *ret_error)
{
    struct body b;
    enum mqsync_code code;

    *ret = (struct mqsync_message){.collection = target->collection, .record_id = target->record_id};
    if (!mqsync_collection_valid(target->collection))
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "collection: expected 1 to 64 of A-Z a-z 0-9 _ . -");
    code = read_body(body.n ? body : MQSYNC_SLICE("{}"), &b, ret_error);
    if (code == MQSYNC_OK)
        code = check_ids(target, &b, ret_error);
    if (code != MQSYNC_OK)
        return code;
    mqsync_buf_clear(command);
    mqsync_buf_add_str(command, "{\"type\":\"");
    mqsync_buf_add_str(command, type_of(method));
    mqsync_buf_add_char(command, '"');
    if (target->record_id.n) {
        mqsync_buf_add_str(command, ",\"recordId\":");
        mqsync_json_add_string(command, target->record_id);
    } else {
        add_member(command, "recordId", b.record_id);
    }
    if (method != MQSYNC_HTTP_DELETE)
        add_member(command, "data", method == MQSYNC_HTTP_PATCH && b.delta.n ? b.delta : b.data);
    add_member(command, "timestamp", b.timestamp);
    add_metadata(command, &b);
    if (command->failed)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    return mqsync_message_decode(mqsync_buf_slice(command), target->collection, scratch, ret, ret_error);
}

/* --- a chunked body ----------------------------------------------------------------------------------------------- */

enum { SIZE, EXTENSION, DATA, DATA_END, TRAILER, OVER };
enum { LINE_MAX_BYTES = 4096, SIZE_DIGITS = 8 };

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One byte outside of a chunk's data. False: not allowed there. */
static bool take_byte(struct mqsync_chunks *c, char byte)
{
    int digit = hex_digit(byte);

    switch (c->state) {
    case SIZE:
        if (digit >= 0) {
            c->left = c->left * 16 + (uint64_t)digit;
            return ++c->line <= SIZE_DIGITS;
        }
        c->state = EXTENSION;
        if (c->line == 0 || (byte != ';' && byte != '\r' && byte != '\n' && byte != ' ' && byte != '\t'))
            return false;
        __attribute__((fallthrough));
    case EXTENSION:
        if (byte == '\n') {
            c->state = c->left ? DATA : TRAILER;
            c->line = 0;
        }
        return ++c->line <= LINE_MAX_BYTES;
    case DATA_END:
        if (byte != '\n')
            return byte == '\r' && ++c->line == 1;
        c->state = SIZE;
        c->line = 0;
        return true;
    default: /* a trailer's lines are ignored; an empty one is the end */
        if (byte == '\n')
            c->state = c->left == 0 ? OVER : TRAILER;
        c->left = byte == '\n' ? 0 : byte == '\r' ? c->left : 1;
        return ++c->line <= LINE_MAX_BYTES;
    }
}

enum mqsync_chunks_result mqsync_chunks_take(struct mqsync_chunks *c, struct mqsync_slice bytes, struct mqsync_buf *out)
{
    for (size_t i = 0; i < bytes.n && c->state != OVER;) {
        if (c->state != DATA) {
            if (!take_byte(c, bytes.p[i++]))
                return MQSYNC_CHUNKS_BAD;
            continue;
        }
        size_t n = c->left < bytes.n - i ? (size_t)c->left : bytes.n - i;
        mqsync_buf_add(out, bytes.p + i, n);
        i += n;
        c->left -= n;
        if (c->left == 0) {
            c->state = DATA_END;
            c->line = 0;
        }
    }
    return c->state == OVER ? MQSYNC_CHUNKS_END : MQSYNC_CHUNKS_MORE;
}
