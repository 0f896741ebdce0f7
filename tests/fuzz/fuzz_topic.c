/* SPDX-License-Identifier: BSD-3-Clause */
/* Topics against an oracle that splits at every slash and compares whole levels. The input is "ROOT TOPIC"; without a
 * valid root before the first space it is a topic below "sync". */
#include "fuzz.h"
#include "topic.h"

enum { LEVELS_MAX = 80 }; /* a root of 64 bytes has at most 32 */

static size_t split(struct mqsync_slice s, struct mqsync_slice levels[LEVELS_MAX])
{
    size_t n = 0;
    levels[n++] = (struct mqsync_slice){s.p, 0};
    for (size_t i = 0; i < s.n && n < LEVELS_MAX; i++) {
        if (s.p[i] == '/')
            levels[n++] = (struct mqsync_slice){s.p + i + 1, 0};
        else
            levels[n - 1].n++;
    }
    return n;
}

static bool is(struct mqsync_slice level, const char *name)
{
    return mqsync_slice_equal(level, mqsync_slice_str(name));
}

static bool oracle_collection(struct mqsync_slice s)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\0' || !strchr(allowed, s.p[i]))
            return false;
    return s.n >= 1 && s.n <= 64 && !is(s, ".") && !is(s, "..");
}

static size_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> n) | c);
    return n;
}

/* Decodes loosely, encodes the result and wants the same bytes back: overlong and broken forms cannot pass. */
static bool oracle_record_id(struct mqsync_slice s)
{
    char again[4];
    for (size_t i = 0; i < s.n;) {
        unsigned char lead = (unsigned char)s.p[i];
        size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        if (i + n > s.n)
            return false;
        uint32_t c = n == 1 ? lead : lead & (0xFFu >> (n + 1));
        for (size_t j = 1; j < n; j++)
            c = c << 6 | (s.p[i + j] & 0x3F);
        if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF) || utf8_encode(c, again) != n ||
            memcmp(again, s.p + i, n) != 0)
            return false;
        if ((c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE || c <= 0x1F || (c >= 0x7F && c <= 0x9F) ||
            c == '/' || c == '+' || c == '#')
            return false;
        i += n;
    }
    return s.n >= 1 && s.n <= 128;
}

static struct mqsync_topic oracle(struct mqsync_slice root, struct mqsync_slice topic)
{
    struct mqsync_slice r[LEVELS_MAX], l[LEVELS_MAX];
    struct mqsync_topic t = {.kind = MQSYNC_TOPIC_OUTSIDE};
    size_t skip = split(root, r), n = split(topic, l);
    if (n <= skip)
        return t;
    for (size_t i = 0; i < skip; i++)
        if (!mqsync_slice_equal(r[i], l[i]))
            return t;

    struct mqsync_slice *level = l + skip;
    n -= skip;
    t.kind = MQSYNC_TOPIC_OTHER;
    if (oracle_collection(level[0]))
        t.collection = level[0];
    if (n >= 2 && (is(level[1], "evt") || is(level[1], "rec") || is(level[1], "re")))
        t.kind = MQSYNC_TOPIC_SERVER;
    if (n < 2 || !is(level[1], "cmd"))
        return t;

    bool named = t.collection.n > 0;
    t.kind = named && n == 2 ? MQSYNC_TOPIC_CMD : MQSYNC_TOPIC_BAD_CMD;
    if (!named || n < 4 || !oracle_record_id(level[2]))
        return t;
    t.record_id = level[2];
    for (int op = MQSYNC_INSERT; n == 4 && op <= MQSYNC_DELETE; op++) {
        if (is(level[3], mqsync_op_name((enum mqsync_op)op))) {
            t.kind = MQSYNC_TOPIC_CMD_SHORT;
            t.op = (enum mqsync_op)op;
        }
    }
    return t;
}

static void check_client(struct mqsync_slice client_id)
{
    struct mqsync_buf out = {0};
    mqsync_topic_add_client(&out, client_id);
    CHECK(!out.failed && out.n > 0 && out.n <= client_id.n + 1);
    CHECK(!memchr(out.p, '/', out.n) && !memchr(out.p, '+', out.n) && !memchr(out.p, '#', out.n));
    if (out.n <= MQSYNC_MAX_RECORD_ID)
        CHECK(oracle_record_id(mqsync_buf_slice(&out)));
    mqsync_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mqsync_slice root = MQSYNC_SLICE("sync"), topic = {(const char *)data, size};
    const char *space = size ? memchr(data, ' ', size) : NULL;
    if (space && mqsync_root_valid((struct mqsync_slice){topic.p, (size_t)(space - topic.p)})) {
        root = (struct mqsync_slice){topic.p, (size_t)(space - topic.p)};
        topic = (struct mqsync_slice){space + 1, size - root.n - 1};
    }

    struct mqsync_topic got, expected = oracle(root, topic);
    mqsync_topic_parse(root, topic, &got);
    CHECK(got.kind == expected.kind);
    CHECK(mqsync_slice_equal(got.collection, expected.collection));
    CHECK(mqsync_slice_equal(got.record_id, expected.record_id));
    CHECK(got.kind != MQSYNC_TOPIC_CMD_SHORT || got.op == expected.op);
    CHECK((got.wrong != NULL) == (got.kind == MQSYNC_TOPIC_BAD_CMD));

    CHECK(mqsync_record_id_valid(topic) == oracle_record_id(topic));
    CHECK(mqsync_collection_valid(topic) == oracle_collection(topic));
    check_client(topic);
    return 0;
}
