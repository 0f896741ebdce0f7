/* SPDX-License-Identifier: BSD-3-Clause */
#include "will.h"

#include "bridge.h"
#include "session.h"

/* Only writes: what a `sync` or a `subscribe` asks for would be for the bridge. The plugin checks the rest. */
static enum mqsync_code check(struct mqsync_bridge *b, const struct mqsync_upstream_will *w,
                              struct mqsync_error *ret_error)
{
    static const struct mqsync_operation operations[] = {MQSYNC_OPERATIONS};
    bool documented = w->topic.kind == MQSYNC_TOPIC_CMD;
    size_t max = b->config->limits.max_record_bytes + (documented ? MQSYNC_ENVELOPE_MAX : 0);
    struct mqsync_message m;
    enum mqsync_code code;

    if (!documented && w->topic.kind != MQSYNC_TOPIC_CMD_SHORT)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "%s", w->topic.wrong ? w->topic.wrong : "no command");
    if (w->payload.n > max)
        return mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "the message has %zu bytes; at most %zu are taken",
                           w->payload.n, max);
    if (!documented)
        return MQSYNC_OK;
    code = mqsync_message_decode(w->payload, w->topic.collection, &b->message, &m, ret_error);
    if (code == MQSYNC_OK && operations[m.type].access != MQSYNC_ACCESS_WRITE)
        code = mqsync_fail(ret_error, MQSYNC_INVALID_MESSAGE, "a will can insert, update and delete, and nothing else");
    return code;
}

static enum mqsync_code send_on(struct mqsync_bridge *b, const struct mqsync_upstream_will *w,
                                struct mqsync_error *ret_error)
{
    struct mqsync_upstream_command c = {.collection = w->topic.collection, .payload = w->payload};

    if (w->topic.kind == MQSYNC_TOPIC_CMD_SHORT) {
        c.record_id = w->topic.record_id;
        c.op = w->topic.op;
        c.metadata = w->metadata;
    }
    mqsync_command_for(b, NULL, &c);
    return mqsync_command_send(b, MQSYNC_WILL_SENDER, &c, ret_error);
}

void mqsync_will_carry_out(struct mqsync_bridge *b, const struct mqsync_upstream_will *w)
{
    struct mqsync_slice name = w->topic.collection, id = w->topic.record_id;
    struct mqsync_error e;

    if (check(b, w, &e) != MQSYNC_OK || send_on(b, w, &e) != MQSYNC_OK)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3052", "a will for collection '%.*s'%s%.*s was not carried out: %s",
                   (int)name.n, name.p ? name.p : "", id.n ? ", record " : "", (int)id.n, id.p ? id.p : "", e.text);
}

void mqsync_will_answered(struct mqsync_slice payload)
{
    if (mqsync_error_read(payload) != MQSYNC_OK)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3052", "a will was not carried out: %.*s", (int)payload.n, payload.p);
}
