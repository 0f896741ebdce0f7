/* SPDX-License-Identifier: BSD-3-Clause */
#include "line.h"

#include <unistd.h>

#include "timestamp.h"

/* --- writing ---------------------------------------------------------------------------------------------------- */

static void key(struct mqsync_buf *out, const char *name)
{
    if (out->n > 0 && out->p[out->n - 1] != '{')
        mqsync_buf_add_char(out, ',');
    mqsync_buf_add_char(out, '"');
    mqsync_buf_add_str(out, name);
    mqsync_buf_add(out, "\":", 2);
}

void mqsync_line_string(struct mqsync_buf *out, const char *name, struct mqsync_slice value)
{
    key(out, name);
    mqsync_json_add_string(out, value);
}

void mqsync_line_number(struct mqsync_buf *out, const char *name, uint64_t value)
{
    key(out, name);
    mqsync_buf_add_u64(out, value);
}

static void add_time(struct mqsync_buf *out, const char *name, int64_t ms)
{
    char text[MQSYNC_TIMESTAMP_LEN];
    mqsync_time_format(ms, text);
    mqsync_line_string(out, name, (struct mqsync_slice){text, sizeof text});
}

void mqsync_line_raw(struct mqsync_buf *out, const char *name, const char *json)
{
    key(out, name);
    mqsync_buf_add_str(out, json);
}

void mqsync_line_begin(struct mqsync_buf *out, struct mqsync_slice collection, struct mqsync_slice id,
                       const struct mqsync_record *r)
{
    mqsync_buf_add_char(out, '{');
    mqsync_line_string(out, "collection", collection);
    mqsync_line_string(out, "id", id);
    if (!r->deleted) {
        key(out, "data");
        mqsync_buf_add_slice(out, r->data);
    }
    mqsync_line_number(out, "version", r->version);
    add_time(out, "updatedAt", r->updated_ms);
    if (r->deleted)
        mqsync_line_raw(out, "deleted", "true");
}

void mqsync_line_end(struct mqsync_buf *out)
{
    mqsync_buf_add(out, "}\n", 2);
}

void mqsync_line_print(FILE *out, struct mqsync_slice json)
{
    size_t from = 0;
    bool terminal = isatty(fileno(out));
    for (size_t i = 0; terminal && i + 1 < json.n; i++) {
        unsigned char next = (unsigned char)json.p[i + 1];
        if ((unsigned char)json.p[i] != 0xc2 || next < 0x80 || next > 0x9f)
            continue;
        fwrite(json.p + from, 1, i - from, out);
        fprintf(out, "\\u%04x", next);
        from = i + 2;
    }
    if (json.n > from)
        fwrite(json.p + from, 1, json.n - from, out);
}

/* --- reading ---------------------------------------------------------------------------------------------------- */

/* Behind the string that begins at p, or end. The text has not been checked. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\' && p + 1 < end;
    return p < end ? p + 1 : end;
}

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
        p++;
    return p;
}

/* Where the object that begins at p ends, if it does. */
static const char *skip_object(const char *p, const char *end)
{
    size_t depth = 0;
    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
            continue;
        }
        depth += *p == '{' || *p == '[';
        depth -= *p == '}' || *p == ']';
        p++;
        if (depth == 0)
            break;
    }
    return p;
}

/* Finds the object that is the top level's "data" in a text that has not been checked, so that it can be checked by
 * itself: it may be nested as deeply as JSON may, which leaves no level for the line around it. */
static bool find_data(struct mqsync_slice text, struct mqsync_slice *ret)
{
    static const char name[] = "\"data\"";
    const char *p = text.p, *end = text.p + text.n;
    size_t depth = 0;
    while (p < end) {
        if (*p != '"') {
            depth += *p == '{' || *p == '[';
            depth -= depth && (*p == '}' || *p == ']');
            p++;
            continue;
        }
        const char *string = p;
        p = skip_string(p, end);
        if (depth != 1 || p - string != sizeof name - 1 || memcmp(string, name, sizeof name - 1) != 0)
            continue;
        p = skip_space(p, end);
        if (p == end || *p != ':')
            continue;
        p = skip_space(p + 1, end);
        if (p == end || *p != '{')
            return false;
        *ret = (struct mqsync_slice){p, (size_t)(skip_object(p, end) - p)};
        return true;
    }
    return false;
}

static enum mqsync_code parse_data(struct mqsync_slice found, struct mqsync_buf *scratch, struct mqsync_slice *ret,
                                   struct mqsync_error *ret_error)
{
    struct mqsync_json_info info;
    struct mqsync_error e;
    if (mqsync_json_check(found, &info, &e) != MQSYNC_OK)
        return mqsync_fail(ret_error, e.code, "data: %s", e.text);
    *ret = found;
    if (info.spaced) {
        mqsync_buf_clear(scratch);
        mqsync_json_minify(scratch, found);
        *ret = mqsync_buf_slice(scratch);
    }
    return scratch->failed ? mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory") : MQSYNC_OK;
}

/* The string members, unescaped, one behind the other in *names, which has room for both and so does not move. */
static bool parse_string(struct mqsync_slice object, const char *name, struct mqsync_buf *names,
                         struct mqsync_slice *ret)
{
    struct mqsync_slice value;
    size_t begin = names->n;
    if (!mqsync_json_find(object, mqsync_slice_str(name), &value) || mqsync_json_typeof(value) != MQSYNC_JSON_STRING)
        return false;
    mqsync_json_unescape(names, value);
    *ret = (struct mqsync_slice){names->p + begin, names->n - begin};
    return !names->failed;
}

static enum mqsync_code parse_rest(struct mqsync_slice object, struct mqsync_buf *names, struct mqsync_line *ret,
                                   struct mqsync_error *ret_error)
{
    struct mqsync_slice value, time_text;
    struct mqsync_time time;
    mqsync_buf_clear(names);
    if (!mqsync_buf_reserve(names, object.n))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    if (!parse_string(object, "collection", names, &ret->collection) || !mqsync_collection_valid(ret->collection))
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE,
                           "collection: expected a name of 1 to 64 of A-Z a-z 0-9 _ . -");
    if (!parse_string(object, "id", names, &ret->id) || !mqsync_record_id_valid(ret->id))
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE,
                           "id: expected 1 to 128 bytes without / + # and control characters");
    if (!mqsync_json_find(object, MQSYNC_SLICE("version"), &value) || !mqsync_json_to_u64(value, &ret->version) ||
        ret->version == 0)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE,
                           "version: expected a whole number from 1 to 9223372036854775807");
    if (!parse_string(object, "updatedAt", names, &time_text) || !mqsync_time_parse(time_text, &time) ||
        time.kind != MQSYNC_TIME_EXACT)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE,
                           "updatedAt: expected a time with a zone, such as 2026-01-31T12:00:00.000Z");
    ret->updated_ms = time.ms;
    ret->deleted = false;
    if (mqsync_json_find(object, MQSYNC_SLICE("deleted"), &value)) {
        ret->deleted = mqsync_json_typeof(value) == MQSYNC_JSON_TRUE;
        if (!ret->deleted && mqsync_json_typeof(value) != MQSYNC_JSON_FALSE)
            return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "deleted: expected true or false");
    }
    return MQSYNC_OK;
}

enum mqsync_code mqsync_line_parse(struct mqsync_slice text, struct mqsync_line_scratch *s, struct mqsync_line *ret,
                                   struct mqsync_error *ret_error)
{
    struct mqsync_slice found = {NULL, 0}, rest = text;
    bool has_data = find_data(text, &found);
    if (has_data) {
        mqsync_buf_clear(&s->rest);
        mqsync_buf_add(&s->rest, text.p, (size_t)(found.p - text.p));
        mqsync_buf_add(&s->rest, "{}", 2);
        mqsync_buf_add(&s->rest, found.p + found.n, (size_t)(text.p + text.n - found.p - found.n));
        if (s->rest.failed)
            return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
        rest = mqsync_buf_slice(&s->rest);
    }
    struct mqsync_json_info info;
    enum mqsync_code code = mqsync_json_check(rest, &info, ret_error);
    if (code)
        return code;
    if (info.type != MQSYNC_JSON_OBJECT)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "expected a JSON object");
    code = parse_rest(rest, &s->names, ret, ret_error);
    if (code)
        return code;
    ret->data = (struct mqsync_slice){NULL, 0};
    if (ret->deleted)
        return has_data ? mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "data: not expected where deleted is true")
                        : MQSYNC_OK;
    if (!has_data)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "data: expected an object");
    return parse_data(found, &s->data, &ret->data, ret_error);
}

void mqsync_line_scratch_free(struct mqsync_line_scratch *s)
{
    mqsync_buf_free(&s->rest);
    mqsync_buf_free(&s->names);
    mqsync_buf_free(&s->data);
}
