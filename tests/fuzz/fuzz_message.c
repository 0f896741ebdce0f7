/* SPDX-License-Identifier: BSD-3-Clause */
/* A client message from the bytes to its event and back: what is accepted, encoded as an event, must decode to the same
 * fields and data, and to what cJSON reads where cJSON can follow. The encoders must give JSON whatever they are given.
 */
#include <cjson/cJSON.h>

#include "fuzz.h"
#include "message.h"

static const struct mqsync_slice nothing = {NULL, 0};

static void check_json(const struct mqsync_buf *b)
{
    struct mqsync_json_info info;
    struct mqsync_error error;
    CHECK(!b->failed);
    CHECK(mqsync_json_check(mqsync_buf_slice(b), &info, &error) == MQSYNC_OK);
    CHECK(info.type == MQSYNC_JSON_OBJECT);
}

static struct mqsync_buf minified(struct mqsync_slice value)
{
    struct mqsync_buf out = {0};
    mqsync_json_minify(&out, value);
    CHECK(!out.failed);
    return out;
}

static void check_data(struct mqsync_slice data)
{
    struct mqsync_json_info info;
    struct mqsync_error error;
    CHECK(mqsync_json_check(data, &info, &error) == MQSYNC_OK);
    CHECK(info.type == MQSYNC_JSON_OBJECT && !info.spaced);
}

static void check_fields(const struct mqsync_message *m)
{
    CHECK(m->collection.n == 0 || mqsync_collection_valid(m->collection));
    CHECK(m->record_id.n == 0 || mqsync_record_id_valid(m->record_id));
    CHECK(m->mutation_id.n <= MQSYNC_MAX_MUTATION_ID);
    CHECK(m->since <= INT64_MAX && m->limit <= INT64_MAX && m->base_version <= INT64_MAX && m->if_version <= INT64_MAX);
}

/* --- against cJSON ------------------------------------------------------------------------------------------------ */

static void same_string(const cJSON *object, const char *name, struct mqsync_slice expected)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    CHECK(cJSON_IsString(item) && mqsync_slice_equal(mqsync_slice_str(item->valuestring), expected));
}

static void same_data(const cJSON *a, const cJSON *b)
{
    char *text_a = cJSON_PrintUnformatted(a), *text_b = cJSON_PrintUnformatted(b);
    CHECK(text_a && text_b && strcmp(text_a, text_b) == 0);
    cJSON_free(text_a);
    cJSON_free(text_b);
}

/* cJSON cuts strings and keys at \u0000 and gives up on numbers of more than 63 characters. */
static void compare_with_cjson(struct mqsync_slice json, const struct mqsync_message *m, const struct mqsync_buf *event)
{
    if (memmem(json.p, json.n, "\\u0000", 6))
        return;
    cJSON *sent = cJSON_ParseWithLength(json.p, json.n);
    if (!sent)
        return;
    cJSON *announced = cJSON_ParseWithLength(event->p, event->n);
    CHECK(announced);
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(announced, "metadata");
    same_string(sent, "collection", m->collection);
    same_string(announced, "collection", m->collection);
    same_string(sent, "recordId", m->record_id);
    same_string(announced, "recordId", m->record_id);
    if (m->mutation_id.n) {
        same_string(cJSON_GetObjectItemCaseSensitive(sent, "metadata"), "mutationId", m->mutation_id);
        same_string(metadata, "mutationId", m->mutation_id);
    }
    if (m->data.n)
        same_data(cJSON_GetObjectItemCaseSensitive(sent, "data"), cJSON_GetObjectItemCaseSensitive(announced, "data"));
    cJSON_Delete(sent);
    cJSON_Delete(announced);
}

/* --- accepted messages -------------------------------------------------------------------------------------------- */

static void check_write(struct mqsync_slice json, const struct mqsync_message *m)
{
    struct mqsync_event e = {
        .op = m->type == MQSYNC_TYPE_INSERT   ? MQSYNC_INSERT
              : m->type == MQSYNC_TYPE_UPDATE ? MQSYNC_UPDATE
                                              : MQSYNC_DELETE,
        .collection = m->collection,
        .record_id = m->record_id,
        .data = m->data,
        .timestamp_ms = m->time.ms,
        .version = m->base_version,
        .seq = m->if_version,
        .user = m->record_id,
        .mutation_id = m->mutation_id,
        .conflict = m->has_if_version,
    };
    struct mqsync_buf out = {0}, scratch = {0}, again = {0};
    struct mqsync_message back;
    struct mqsync_error error;

    mqsync_event_encode(&out, &e);
    check_json(&out);
    CHECK(mqsync_message_decode(mqsync_buf_slice(&out), m->collection, &scratch, &back, &error) == MQSYNC_OK);
    CHECK(back.type == m->type);
    CHECK(mqsync_slice_equal(back.collection, m->collection));
    CHECK(mqsync_slice_equal(back.record_id, m->record_id));
    CHECK(mqsync_slice_equal(back.mutation_id, m->mutation_id));
    CHECK(mqsync_slice_equal(back.data, m->data));
    if (m->data.n) {
        struct mqsync_slice raw;
        CHECK(mqsync_json_find(json, MQSYNC_SLICE("data"), &raw));
        again = minified(raw);
        CHECK(mqsync_slice_equal(mqsync_buf_slice(&again), m->data));
        check_data(m->data);
    }
    if (mqsync_json_find(json, MQSYNC_SLICE("collection"), &(struct mqsync_slice){0}))
        compare_with_cjson(json, m, &out);
    mqsync_buf_free(&again);
    mqsync_buf_free(&scratch);
    mqsync_buf_free(&out);
}

static void check_decode(struct mqsync_slice json, struct mqsync_slice collection)
{
    struct mqsync_buf scratch = {0}, out = {0};
    struct mqsync_message m;
    struct mqsync_error error;
    enum mqsync_code code = mqsync_message_decode(json, collection, &scratch, &m, &error);
    check_fields(&m);
    if (code != MQSYNC_OK) {
        CHECK(code == MQSYNC_INVALID_MESSAGE && error.code == code && error.text[0]);
        mqsync_error_encode(&out, &error, m.collection, m.record_id, m.mutation_id, false, 0);
        check_json(&out);
    } else if (m.type == MQSYNC_TYPE_INSERT || m.type == MQSYNC_TYPE_UPDATE || m.type == MQSYNC_TYPE_DELETE) {
        CHECK(m.collection.n && m.record_id.n && (m.data.n > 0) == (m.type != MQSYNC_TYPE_DELETE));
        check_write(json, &m);
    } else {
        CHECK(m.record_id.n == 0 && m.data.n == 0);
    }
    mqsync_buf_free(&out);
    mqsync_buf_free(&scratch);
}

static void check_short_form(struct mqsync_slice payload)
{
    struct mqsync_buf scratch = {0};
    struct mqsync_slice data = nothing;
    struct mqsync_error error = {0};
    struct mqsync_json_info info = {0};
    bool good = mqsync_json_check(payload, &info, NULL) == MQSYNC_OK && info.type == MQSYNC_JSON_OBJECT;
    enum mqsync_code code = mqsync_data_decode(payload, &scratch, &data, &error);
    CHECK(code == (good ? MQSYNC_OK : MQSYNC_INVALID_MESSAGE));
    if (good) {
        struct mqsync_buf expected = minified(payload);
        CHECK(mqsync_slice_equal(data, mqsync_buf_slice(&expected)));
        check_data(data);
        mqsync_buf_free(&expected);
    } else {
        CHECK(error.text[0] && !data.p);
    }
    mqsync_buf_free(&scratch);
}

/* --- encoders on any bytes ---------------------------------------------------------------------------------------- */

static void check_encoders(struct mqsync_slice text)
{
    struct mqsync_buf out = {0};
    struct mqsync_error error = {.code = MQSYNC_SERVER_ERROR};
    size_t n = text.n < sizeof(error.text) ? text.n : sizeof(error.text) - 1;
    struct mqsync_event e = {
        .op = MQSYNC_DELETE, .collection = text, .record_id = text, .user = text, .mutation_id = text};
    if (n)
        memcpy(error.text, text.p, n);

    mqsync_event_encode(&out, &e);
    check_json(&out);
    mqsync_buf_clear(&out);
    mqsync_ack_encode(&out, text, text, text, 1, 2, true);
    check_json(&out);
    mqsync_buf_clear(&out);
    mqsync_error_encode(&out, &error, text, text, text, true, 3);
    check_json(&out);
    mqsync_buf_clear(&out);
    mqsync_subscribed_encode(&out, text, 1, 2, text, true);
    check_json(&out);
    mqsync_buf_clear(&out);
    mqsync_plain_encode(&out, "unsubscribed", text);
    check_json(&out);
    mqsync_buf_free(&out);

    struct mqsync_page page = {0};
    mqsync_page_begin(&page, text);
    CHECK(mqsync_page_add(&page, text, MQSYNC_SLICE("{}"), 1, 0, false));
    mqsync_page_add(&page, text, nothing, 1, 0, true);
    mqsync_page_end(&page, 0, 1, MQSYNC_SLICE("e"), false, false, 2);
    check_json(&page.out);
    mqsync_page_free(&page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mqsync_slice input = {(const char *)data, size};
    check_decode(input, nothing);
    check_decode(input, MQSYNC_SLICE("todos"));
    check_short_form(input);
    check_encoders(input);
    return 0;
}
