/* SPDX-License-Identifier: BSD-3-Clause */
/* A request under /sync from its bytes: "METHOD PATH", a line for each query parameter, an empty line, the body, all as
 * they are once the %xx are resolved. What is accepted as a write must be a client message; what is read must stay JSON
 * and lose no more than was asked for; chunks must give the same however they are cut. */
#include "fuzz.h"
#include "query.h"

enum { ARGS_MAX = 128 };

struct input {
    enum mqsync_http_method method;
    struct mqsync_slice path, args[ARGS_MAX], body;
    size_t args_n;
};

static void read_input(struct mqsync_slice text, struct input *ret)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    struct mqsync_slice line = take_until(&text, '\n');
    const char *space = line.n ? memchr(line.p, ' ', line.n) : NULL;
    size_t n = space ? (size_t)(space - line.p) : 0;

    ret->method = MQSYNC_HTTP_POST;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (space && mqsync_slice_equal((struct mqsync_slice){line.p, n}, mqsync_slice_str(names[i])))
            ret->method = (enum mqsync_http_method)i;
    ret->path = space ? (struct mqsync_slice){space + 1, line.n - n - 1} : line;
    ret->args_n = 0;
    while (text.n && ret->args_n < ARGS_MAX && (line = take_until(&text, '\n')).n)
        ret->args[ret->args_n++] = line;
    ret->body = text;
}

static uint64_t count_members(struct mqsync_slice object)
{
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key, value;
    uint64_t n = 0;
    while (mqsync_json_next_member(&it, &key, &value))
        n++;
    return n;
}

static void check_reading(const struct input *in)
{
    struct mqsync_query q;
    struct mqsync_error e = {.text = ""};
    struct mqsync_buf out = {0};
    struct mqsync_slice data = in->body;

    if (mqsync_query_parse(in->args, in->args_n, &q, &e) != MQSYNC_OK) {
        CHECK(e.code == MQSYNC_INVALID_MESSAGE && strchr(e.text, ':'));
        return;
    }
    CHECK(q.where_n <= in->args_n && q.where_n <= MQSYNC_WHERE_MAX);
    if (!is_object(data))
        return;
    if (q.where_n == 0 && !q.has_since)
        CHECK(mqsync_query_matches(&q, data, 0));
    CHECK(!q.has_since || !mqsync_query_matches(&q, data, q.since_ms - 1));
    mqsync_query_matches(&q, data, INT64_MAX);
    mqsync_query_project(&q, data, &out);
    CHECK(!out.failed && is_object(mqsync_buf_slice(&out)));
    CHECK(count_members(mqsync_buf_slice(&out)) <= count_members(data));
    if (!q.has_fields && q.exclude_n == 0)
        CHECK(mqsync_slice_equal(mqsync_buf_slice(&out), data));
    mqsync_buf_free(&out);
}

static void check_write(const struct input *in, const struct mqsync_target *target)
{
    struct mqsync_buf command = {0}, scratch = {0}, again = {0};
    struct mqsync_message m, second;
    struct mqsync_error e;

    if (mqsync_query_command(in->method, target, in->body, &command, &scratch, &m, &e) != MQSYNC_OK) {
        CHECK(e.code != MQSYNC_OK && e.text[0]);
    } else {
        CHECK(m.type == (in->method == MQSYNC_HTTP_PATCH    ? MQSYNC_TYPE_UPDATE
                         : in->method == MQSYNC_HTTP_DELETE ? MQSYNC_TYPE_DELETE
                                                            : MQSYNC_TYPE_INSERT));
        CHECK(mqsync_slice_equal(m.collection, target->collection) && mqsync_collection_valid(m.collection));
        CHECK(mqsync_record_id_valid(m.record_id));
        CHECK(!target->record_id.n || mqsync_slice_equal(m.record_id, target->record_id));
        CHECK(m.type == MQSYNC_TYPE_DELETE || is_object(m.data));
        CHECK(mqsync_message_decode(mqsync_buf_slice(&command), m.collection, &again, &second, &e) == MQSYNC_OK);
        CHECK(mqsync_slice_equal(second.record_id, m.record_id) && mqsync_slice_equal(second.data, m.data));
    }
    mqsync_buf_free(&command);
    mqsync_buf_free(&scratch);
    mqsync_buf_free(&again);
}

static void check_chunks(struct mqsync_slice bytes)
{
    struct mqsync_chunks whole = {0}, cut = {0};
    struct mqsync_buf a = {0}, b = {0};
    enum mqsync_chunks_result result = mqsync_chunks_take(&whole, bytes, &a), one = MQSYNC_CHUNKS_MORE;

    for (size_t i = 0; i < bytes.n && one == MQSYNC_CHUNKS_MORE; i++)
        one = mqsync_chunks_take(&cut, (struct mqsync_slice){bytes.p + i, 1}, &b);
    CHECK(result == one);
    CHECK(a.n <= bytes.n && mqsync_slice_equal(mqsync_buf_slice(&a), mqsync_buf_slice(&b)));
    mqsync_buf_free(&a);
    mqsync_buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mqsync_target target;
    struct input in;

    read_input((struct mqsync_slice){(const char *)data, size}, &in);
    check_reading(&in);
    check_chunks(in.body);
    if (!mqsync_target_parse(in.path, &target))
        return 0;
    CHECK(target.collection.n && target.collection.n + target.record_id.n < in.path.n);
    CHECK(!memchr(target.collection.p, '/', target.collection.n));
    CHECK(!target.record_id.n || !memchr(target.record_id.p, '/', target.record_id.n));
    if (in.method != MQSYNC_HTTP_GET && in.method != MQSYNC_HTTP_HEAD && in.method != MQSYNC_HTTP_OPTIONS)
        check_write(&in, &target);
    return 0;
}
