/* SPDX-License-Identifier: BSD-3-Clause */
#include "topic.h"
#include "utf8.h"

enum byte_class {
    IN_NAME = 1 << 0,   /* [A-Za-z0-9_.-] */
    NOT_IN_ID = 1 << 1, /* '/', '+', '#' and control characters */
    NOT_ASCII = 1 << 2,
};

static const unsigned char classes[256] = {
    ['A' ... 'Z'] = IN_NAME, ['a' ... 'z'] = IN_NAME, ['0' ... '9'] = IN_NAME,  ['_'] = IN_NAME,
    ['.'] = IN_NAME,         ['-'] = IN_NAME,         [0 ... 0x1F] = NOT_IN_ID, [0x7F] = NOT_IN_ID,
    ['/'] = NOT_IN_ID,       ['+'] = NOT_IN_ID,       ['#'] = NOT_IN_ID,        [0x80 ... 0xFF] = NOT_ASCII,
};

static const struct mqsync_slice op_names[] = {
    [MQSYNC_INSERT] = MQSYNC_SLICE("insert"),
    [MQSYNC_UPDATE] = MQSYNC_SLICE("update"),
    [MQSYNC_DELETE] = MQSYNC_SLICE("delete"),
};
#define OPS_N (sizeof(op_names) / sizeof(op_names[0]))

static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0);
}

/* Unicode's noncharacters: Mosquitto takes a topic that holds one for malformed, so no event could carry the id. */
static bool is_noncharacter(uint32_t c)
{
    return (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
}

static bool all_in_name(struct mqsync_slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(classes[(unsigned char)s.p[i]] & IN_NAME))
            return false;
    return true;
}

bool mqsync_collection_valid(struct mqsync_slice name)
{
    if (name.n == 0 || name.n > MQSYNC_MAX_COLLECTION || !all_in_name(name))
        return false;
    return name.p[0] != '.' || (name.n > 1 && (name.p[1] != '.' || name.n > 2));
}

bool mqsync_text_valid(struct mqsync_slice s)
{
    uint32_t c;
    for (size_t i = 0, length; i < s.n; i += length) {
        length = mqsync_utf8_char(s.p + i, s.n - i, &c);
        if (length == 0 || is_control(c) || is_noncharacter(c))
            return false;
    }
    return true;
}

bool mqsync_record_id_valid(struct mqsync_slice id)
{
    if (id.n == 0 || id.n > MQSYNC_MAX_RECORD_ID)
        return false;
    unsigned seen = 0;
    for (size_t i = 0; i < id.n; i++)
        seen |= classes[(unsigned char)id.p[i]];
    if (seen & NOT_IN_ID)
        return false;
    return !(seen & NOT_ASCII) || mqsync_text_valid(id);
}

/* The bytes before the next slash. */
static struct mqsync_slice first_level(struct mqsync_slice s)
{
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    return (struct mqsync_slice){s.p, slash ? (size_t)(slash - s.p) : s.n};
}

bool mqsync_root_valid(struct mqsync_slice root)
{
    if (root.n == 0 || root.n > 64)
        return false;
    for (;;) {
        struct mqsync_slice level = first_level(root);
        if (level.n == 0 || !all_in_name(level))
            return false;
        if (level.n == root.n)
            return true;
        root = (struct mqsync_slice){root.p + level.n + 1, root.n - level.n - 1};
    }
}

/* Takes the first level and its slash off *rest. Returns false when no slash follows: *rest is then empty. */
static bool take_level(struct mqsync_slice *rest, struct mqsync_slice *ret_level)
{
    *ret_level = first_level(*rest);
    if (ret_level->n == rest->n) {
        *rest = (struct mqsync_slice){rest->p + rest->n, 0};
        return false;
    }
    *rest = (struct mqsync_slice){rest->p + ret_level->n + 1, rest->n - ret_level->n - 1};
    return true;
}

static bool op_parse(struct mqsync_slice name, enum mqsync_op *ret)
{
    for (size_t i = 0; i < OPS_N; i++) {
        if (mqsync_slice_equal(name, op_names[i])) {
            *ret = (enum mqsync_op)i;
            return true;
        }
    }
    return false;
}

/* What follows "cmd": nothing (short_form false), or a slash and `rest`. */
static void parse_cmd(struct mqsync_slice rest, bool short_form, struct mqsync_topic *ret)
{
    struct mqsync_slice id;
    ret->kind = MQSYNC_TOPIC_BAD_CMD;
    if (ret->collection.n == 0) {
        ret->wrong =
            "collection in the topic: expected 1 to 64 of A-Z, a-z, 0-9, \"_\", \".\", \"-\", not \".\" or \"..\"";
    } else if (!short_form) {
        ret->kind = MQSYNC_TOPIC_CMD;
    } else if (!take_level(&rest, &id)) {
        ret->wrong = "topic: expected cmd, or cmd/{recordId}/{insert|update|delete}";
    } else if (!mqsync_record_id_valid(id)) {
        ret->wrong =
            "recordId in the topic: expected 1 to 128 bytes of UTF-8 without \"+\", \"#\" or control characters";
    } else {
        ret->record_id = id;
        if (op_parse(rest, &ret->op))
            ret->kind = MQSYNC_TOPIC_CMD_SHORT;
        else
            ret->wrong = "topic: expected cmd/{recordId}/ to end in insert, update or delete";
    }
}

void mqsync_topic_parse(struct mqsync_slice root, struct mqsync_slice topic, struct mqsync_topic *ret)
{
    struct mqsync_slice name, branch, rest;
    *ret = (struct mqsync_topic){.kind = MQSYNC_TOPIC_OUTSIDE};
    if (topic.n <= root.n || topic.p[root.n] != '/' || memcmp(topic.p, root.p, root.n) != 0)
        return;
    ret->kind = MQSYNC_TOPIC_OTHER;
    rest = (struct mqsync_slice){topic.p + root.n + 1, topic.n - root.n - 1};
    bool more = take_level(&rest, &name);
    if (mqsync_collection_valid(name))
        ret->collection = name;
    if (!more)
        return;
    more = take_level(&rest, &branch);
    if (mqsync_slice_equal(branch, MQSYNC_SLICE("cmd")))
        parse_cmd(rest, more, ret);
    else if (mqsync_slice_equal(branch, MQSYNC_SLICE("evt")) || mqsync_slice_equal(branch, MQSYNC_SLICE("rec")) ||
             mqsync_slice_equal(branch, MQSYNC_SLICE("re")))
        ret->kind = MQSYNC_TOPIC_SERVER; /* bare "evt" too: a subscription to evt/# matches it */
}

const char *mqsync_op_name(enum mqsync_op op)
{
    return op_names[op].p;
}

void mqsync_topic_add_client(struct mqsync_buf *out, struct mqsync_slice client_id)
{
    if (client_id.n == 0)
        mqsync_buf_add_char(out, '_');
    uint32_t c;
    for (size_t i = 0, length; i < client_id.n; i += length) {
        length = mqsync_utf8_char(client_id.p + i, client_id.n - i, &c);
        if (length == 0 || is_control(c) || is_noncharacter(c) || c == '/' || c == '+' || c == '#') {
            mqsync_buf_add_char(out, '_');
            length = length ? length : 1;
        } else {
            mqsync_buf_add(out, client_id.p + i, length);
        }
    }
}
