/* SPDX-License-Identifier: BSD-3-Clause */
#include "message.h"
#include "json_scan.h"

#include <stdio.h>

static const struct mqsync_operation operations[MQSYNC_TYPES_N] = {MQSYNC_OPERATIONS};

/* What an error must carry so that its sender can tell which message it answers. */
#define ADDRESS_FIELDS (MQSYNC_FIELD_COLLECTION | MQSYNC_FIELD_RECORD_ID | MQSYNC_FIELD_MUTATION_ID)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct decoder {
    struct mqsync_slice json;
    struct mqsync_buf *scratch;
    struct mqsync_message *message;
    bool spaced; /* data may have to be minified */
};

/* Room for whatever may follow: values are parts of json that do not overlap, and none grows when it is decoded, so
 * that after this nothing moves. */
static bool scratch_ready(struct decoder *d)
{
    return d->scratch->n || mqsync_buf_reserve(d->scratch, d->json.n);
}

/* --- readers: false when the value is not what the field takes ---------------------------------------------------- */

static bool read_string(struct decoder *d, struct mqsync_slice value, struct mqsync_slice *ret)
{
    if (mqsync_json_typeof(value) != MQSYNC_JSON_STRING)
        return false;
    struct mqsync_slice inside = mqsync_json_inside(value);
    if (!memchr(inside.p, '\\', inside.n)) {
        *ret = inside;
        return true;
    }
    if (!scratch_ready(d))
        return false;
    size_t start = d->scratch->n;
    mqsync_json_unescape(d->scratch, value);
    *ret = (struct mqsync_slice){d->scratch->p + start, d->scratch->n - start};
    return true;
}

static bool read_collection(struct decoder *d, struct mqsync_slice value)
{
    struct mqsync_slice name;
    if (!read_string(d, value, &name) || !mqsync_collection_valid(name))
        return false;
    struct mqsync_slice *collection = &d->message->collection;
    if (collection->n)
        return mqsync_slice_equal(name, *collection);
    *collection = name;
    return true;
}

static bool read_record_id(struct decoder *d, struct mqsync_slice value)
{
    struct mqsync_slice id;
    if (!read_string(d, value, &id) || !mqsync_record_id_valid(id))
        return false;
    d->message->record_id = id;
    return true;
}

static bool read_mutation_id(struct decoder *d, struct mqsync_slice value)
{
    struct mqsync_slice id;
    if (!read_string(d, value, &id) || id.n == 0 || id.n > MQSYNC_MAX_MUTATION_ID)
        return false;
    d->message->mutation_id = id;
    return true;
}

static bool read_token(struct decoder *d, struct mqsync_slice value)
{
    return read_string(d, value, &d->message->token);
}

static bool read_data(struct decoder *d, struct mqsync_slice value)
{
    if (mqsync_json_typeof(value) != MQSYNC_JSON_OBJECT)
        return false;
    if (!d->spaced) {
        d->message->data = value;
        return true;
    }
    if (!scratch_ready(d))
        return false;
    size_t start = d->scratch->n;
    mqsync_json_minify(d->scratch, value);
    d->message->data = (struct mqsync_slice){d->scratch->p + start, d->scratch->n - start};
    return true;
}

static bool read_timestamp(struct decoder *d, struct mqsync_slice value)
{
    struct mqsync_slice text;
    return read_string(d, value, &text) && mqsync_time_parse(text, &d->message->time);
}

static bool read_base_version(struct decoder *d, struct mqsync_slice value)
{
    return d->message->has_base_version = mqsync_json_to_u64(value, &d->message->base_version);
}

static bool read_if_version(struct decoder *d, struct mqsync_slice value)
{
    return d->message->has_if_version = mqsync_json_to_u64(value, &d->message->if_version);
}

static bool read_since(struct decoder *d, struct mqsync_slice value)
{
    return d->message->has_since = mqsync_json_to_u64(value, &d->message->since);
}

static bool read_limit(struct decoder *d, struct mqsync_slice value)
{
    return d->message->has_limit = mqsync_json_to_u64(value, &d->message->limit);
}

static bool read_epoch(struct decoder *d, struct mqsync_slice value)
{
    return read_string(d, value, &d->message->epoch);
}

static bool read_sync(struct decoder *d, struct mqsync_slice value)
{
    enum mqsync_json_type type = mqsync_json_typeof(value);
    d->message->no_sync = type == MQSYNC_JSON_FALSE;
    return type == MQSYNC_JSON_FALSE || type == MQSYNC_JSON_TRUE;
}

static bool read_updates(struct decoder *d, struct mqsync_slice value)
{
    struct mqsync_slice text;
    if (!read_string(d, value, &text))
        return false;
    d->message->full_updates = mqsync_slice_equal(text, MQSYNC_SLICE("full"));
    d->message->delta_updates = mqsync_slice_equal(text, MQSYNC_SLICE("delta"));
    return d->message->full_updates || d->message->delta_updates;
}

/* --- fields ------------------------------------------------------------------------------------------------------- */

#define UNSIGNED_EXPECTED "an unsigned integer, at most 9223372036854775807"

struct field {
    struct mqsync_slice name;
    bool in_metadata;
    unsigned bit; /* of enum mqsync_field */
    bool (*read)(struct decoder *d, struct mqsync_slice value);
    const char *expected;
};

/* In the order in which they are read: first what an error is addressed with. */
static const struct field fields[] = {
    {MQSYNC_SLICE("collection"), false, MQSYNC_FIELD_COLLECTION, read_collection,
     "1 to 64 of A-Z, a-z, 0-9, \"_\", \".\", \"-\", not \".\" or \"..\""},
    {MQSYNC_SLICE("recordId"), false, MQSYNC_FIELD_RECORD_ID, read_record_id,
     "1 to 128 bytes of UTF-8 without \"/\", \"+\", \"#\" or control characters"},
    {MQSYNC_SLICE("mutationId"), true, MQSYNC_FIELD_MUTATION_ID, read_mutation_id, "a string of 1 to 128 bytes"},
    {MQSYNC_SLICE("token"), false, MQSYNC_FIELD_TOKEN, read_token, "a string"},
    {MQSYNC_SLICE("data"), false, MQSYNC_FIELD_DATA, read_data, "an object"},
    {MQSYNC_SLICE("timestamp"), false, MQSYNC_FIELD_TIMESTAMP, read_timestamp,
     "an ISO 8601 time such as \"2026-11-22T18:17:00.000Z\""},
    {MQSYNC_SLICE("baseVersion"), true, MQSYNC_FIELD_BASE_VERSION, read_base_version, UNSIGNED_EXPECTED},
    {MQSYNC_SLICE("ifVersion"), true, MQSYNC_FIELD_IF_VERSION, read_if_version, UNSIGNED_EXPECTED},
    {MQSYNC_SLICE("since"), true, MQSYNC_FIELD_SINCE, read_since, UNSIGNED_EXPECTED},
    {MQSYNC_SLICE("epoch"), true, MQSYNC_FIELD_EPOCH, read_epoch, "a string"},
    {MQSYNC_SLICE("sync"), true, MQSYNC_FIELD_SYNC, read_sync, "true or false"},
    {MQSYNC_SLICE("updates"), true, MQSYNC_FIELD_UPDATES, read_updates, "\"delta\" or \"full\""},
    {MQSYNC_SLICE("limit"), true, MQSYNC_FIELD_LIMIT, read_limit, UNSIGNED_EXPECTED},
};

/* The raw values found; p is NULL for what is missing or null. */
struct found {
    struct mqsync_slice type, metadata;
    struct mqsync_slice fields[COUNT(fields)];
};

static bool key_is(struct mqsync_slice key, bool escaped, struct mqsync_slice name)
{
    return escaped ? mqsync_json_key_equal(key, name) : mqsync_slice_equal(key, name);
}

static struct mqsync_slice *place_of(struct found *found, struct mqsync_slice key, bool in_metadata)
{
    bool escaped = memchr(key.p, '\\', key.n);
    for (size_t i = 0; i < COUNT(fields); i++)
        if (fields[i].in_metadata == in_metadata && key_is(key, escaped, fields[i].name))
            return &found->fields[i];
    if (!in_metadata && key_is(key, escaped, MQSYNC_SLICE("type")))
        return &found->type;
    if (!in_metadata && key_is(key, escaped, MQSYNC_SLICE("metadata")))
        return &found->metadata;
    return NULL;
}

static void find_fields(struct found *found, struct mqsync_slice object, bool in_metadata)
{
    struct mqsync_slice key, value;
    struct mqsync_json_iter it = mqsync_json_members(object);
    while (mqsync_json_next_member(&it, &key, &value)) {
        struct mqsync_slice *place = place_of(found, key, in_metadata);
        if (place && mqsync_json_typeof(value) != MQSYNC_JSON_NULL)
            *place = value;
    }
}

/* --- errors ------------------------------------------------------------------------------------------------------- */

enum { SHOWN_MAX = 40 };

/* What was found, for an error text: the value's own text, cut, unless it is a structure. */
struct shown {
    const char *before, *after;
    struct mqsync_slice value;
};

static struct shown show(struct mqsync_slice value)
{
    if (!value.p)
        return (struct shown){"nothing", "", MQSYNC_SLICE("")};
    value = mqsync_json_trim(value);
    enum mqsync_json_type type = mqsync_json_typeof(value);
    if (type == MQSYNC_JSON_OBJECT || type == MQSYNC_JSON_ARRAY)
        return (struct shown){type == MQSYNC_JSON_OBJECT ? "an object" : "an array", "", MQSYNC_SLICE("")};
    if (value.n <= SHOWN_MAX)
        return (struct shown){"", "", value};
    size_t n = SHOWN_MAX;
    while (n && ((unsigned char)value.p[n] & 0xC0) == 0x80)
        n--;
    return (struct shown){"", "...", {value.p, n}};
}

#define SHOWN_FORMAT "%s%.*s%s"
#define SHOWN_ARGS(s) (s).before, (int)(s).value.n, (s).value.p, (s).after

static enum mqsync_code fail_field(const struct field *field, const char *type, const struct mqsync_message *m,
                                   struct mqsync_slice value, struct mqsync_error *ret_error)
{
    const char *parent = field->in_metadata ? "metadata." : "";
    struct shown shown = show(value);
    if (!value.p)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "%s%s: missing, %s needs it: expected %s", parent,
                           field->name.p, type, field->expected);
    if (field->bit == MQSYNC_FIELD_COLLECTION && m->collection.n)
        return mqsync_fail(
            ret_error, MQSYNC_INVALID_MESSAGE,
            "collection: expected \"%.*s\" as where the message was sent to, or nothing, got " SHOWN_FORMAT,
            (int)m->collection.n, m->collection.p, SHOWN_ARGS(shown));
    return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "%s%s: expected %s, got " SHOWN_FORMAT, parent, field->name.p,
                       field->expected, SHOWN_ARGS(shown));
}

static void list_types(char *names, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < MQSYNC_TYPES_N && n < size; i++) {
        const char *before = i == 0 ? "" : i == MQSYNC_TYPES_N - 1 ? " or " : ", ";
        n += (size_t)snprintf(names + n, size - n, "%s%s", before, operations[i].type);
    }
}

static enum mqsync_code fail_type(struct mqsync_slice value, struct mqsync_error *ret_error)
{
    char names[128] = "";
    list_types(names, sizeof(names));
    struct shown shown = show(value);
    return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "type: expected %s, got " SHOWN_FORMAT, names,
                       SHOWN_ARGS(shown));
}

static enum mqsync_code fail_object(const char *what, struct mqsync_slice value, struct mqsync_error *ret_error)
{
    struct shown shown = show(value);
    return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "%s: expected an object, got " SHOWN_FORMAT, what,
                       SHOWN_ARGS(shown));
}

/* --- decoding ----------------------------------------------------------------------------------------------------- */

static enum mqsync_code find_operation(struct decoder *d, struct mqsync_slice value,
                                       const struct mqsync_operation **ret, struct mqsync_error *ret_error)
{
    struct mqsync_slice name;
    if (value.p && read_string(d, value, &name)) {
        for (size_t i = 0; i < MQSYNC_TYPES_N; i++) {
            if (mqsync_slice_equal(name, mqsync_slice_str(operations[i].type))) {
                d->message->type = (enum mqsync_type)i;
                *ret = &operations[i];
                return MQSYNC_OK;
            }
        }
    }
    return fail_type(value, ret_error);
}

/* Reads the fields that the operation (NULL: unknown) takes. The first error stays, and does not end the reading: what
 * the error is addressed with may follow. */
static enum mqsync_code read_fields(struct decoder *d, const struct found *found, const struct mqsync_operation *op,
                                    enum mqsync_code code, struct mqsync_error *ret_error)
{
    unsigned required = op ? op->requires_fields : 0;
    unsigned taken = op ? required | op->optional_fields : ADDRESS_FIELDS;
    const char *type = op ? op->type : "?";

    for (size_t i = 0; i < COUNT(fields); i++) {
        const struct field *field = &fields[i];
        struct mqsync_slice value = found->fields[i];
        bool by_default = field->bit == MQSYNC_FIELD_COLLECTION && d->message->collection.n;
        if (!(field->bit & taken))
            continue;
        bool good = value.p ? field->read(d, value) : !(field->bit & required) || by_default;
        if (!good && code == MQSYNC_OK)
            code = fail_field(field, type, d->message, value, ret_error);
    }
    return code;
}

/* What an error is addressed with, from text that is refused: a key may be there twice, a surrogate stand alone, the
 * end be missing. Whoever waits for the answer to this write still has to learn that it is the one. Only the values
 * taken are known to be JSON. */
static void read_address(struct decoder *d, struct mqsync_slice object, bool in_metadata)
{
    struct mqsync_slice key, value;
    struct mqsync_json_iter it = mqsync_json_members(object);
    while (mqsync_json_next_member(&it, &key, &value)) {
        if (!in_metadata && mqsync_slice_equal(key, MQSYNC_SLICE("metadata")))
            read_address(d, value, true);
        for (size_t i = 0; i < COUNT(fields); i++)
            if ((fields[i].bit & ADDRESS_FIELDS) && fields[i].in_metadata == in_metadata &&
                mqsync_slice_equal(key, fields[i].name) && mqsync_json_check(value, NULL, NULL) == MQSYNC_OK)
                fields[i].read(d, value);
    }
}

enum mqsync_code mqsync_message_decode(struct mqsync_slice json, struct mqsync_slice default_collection,
                                       struct mqsync_buf *scratch, struct mqsync_message *ret,
                                       struct mqsync_error *ret_error)
{
    struct mqsync_json_info info;
    struct found found = {0};
    const struct mqsync_operation *op = NULL;

    mqsync_buf_clear(scratch);
    *ret = (struct mqsync_message){.collection = default_collection};
    struct decoder d = {.json = json, .scratch = scratch, .message = ret};
    enum mqsync_code code = mqsync_json_check(json, &info, ret_error);
    if (code != MQSYNC_OK) {
        read_address(&d, json, false);
        return code;
    }
    if (info.type != MQSYNC_JSON_OBJECT)
        return fail_object("message", json, ret_error);

    d.spaced = info.spaced;
    find_fields(&found, json, false);
    code = find_operation(&d, found.type, &op, ret_error);
    if (found.metadata.p && mqsync_json_typeof(found.metadata) == MQSYNC_JSON_OBJECT)
        find_fields(&found, found.metadata, true);
    else if (found.metadata.p && code == MQSYNC_OK)
        code = fail_object("metadata", found.metadata, ret_error);
    code = read_fields(&d, &found, op, code, ret_error);
    return scratch->failed ? mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory") : code;
}

enum mqsync_code mqsync_data_decode(struct mqsync_slice payload, struct mqsync_buf *scratch, struct mqsync_slice *ret,
                                    struct mqsync_error *ret_error)
{
    struct mqsync_json_info info;
    mqsync_buf_clear(scratch);
    enum mqsync_code code = mqsync_json_check(payload, &info, ret_error);
    if (code != MQSYNC_OK)
        return code;
    if (info.type != MQSYNC_JSON_OBJECT)
        return fail_object("data", payload, ret_error);
    if (!info.spaced) {
        *ret = payload;
        return MQSYNC_OK;
    }
    mqsync_json_minify(scratch, payload);
    if (scratch->failed)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    *ret = mqsync_buf_slice(scratch);
    return MQSYNC_OK;
}
