/* SPDX-License-Identifier: BSD-3-Clause */
#include "command.h"

#include "bridge.h"

enum { STALLED_US = 5000000 /* without an acknowledgement while some are due */ };

void mqsync_command_for(const struct mqsync_bridge *b, const struct mqsync_claims *claims,
                        struct mqsync_upstream_command *c)
{
    const char *user = claims ? claims->user : NULL;

    /* nobody's user has to be said, too: without it a trusted bridge would be bound by no rule */
    c->user = user ? user : b->trusted ? "" : NULL;
    c->roles = claims ? claims->roles : NULL;
    c->roles_n = claims && b->trusted ? claims->roles_n : 0;
}

bool mqsync_commands_stalled(const struct mqsync_bridge *b)
{
    return !mqsync_pending_idle(&b->pending) && mqsync_monotonic_us() - b->acknowledged_us > STALLED_US;
}

enum mqsync_code mqsync_command_send(struct mqsync_bridge *b, uint64_t sender, const struct mqsync_upstream_command *c,
                                     struct mqsync_error *ret_error)
{
    struct mqsync_upstream_command command = *c;
    int64_t now_us = mqsync_monotonic_us();
    struct mqsync_pending_command *pending;
    uint16_t mid;

    if (mqsync_pending_idle(&b->pending))
        b->acknowledged_us = now_us;
    pending = mqsync_pending_add(&b->pending, sender, c->payload.n, now_us);
    if (!pending)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "too many changes are on their way; nothing was changed");
    command.tag = (struct mqsync_upstream_tag){.sender = sender, .mark = pending->mark};
    if (mqsync_upstream_command(b->upstream, &command, &mid) != MQSYNC_OK) {
        mqsync_pending_remove(&b->pending, pending);
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the change cannot be passed on to the broker");
    }
    mqsync_pending_sent(&b->pending, pending, mid);
    return MQSYNC_OK;
}

bool mqsync_question_possible(const struct mqsync_bridge *b)
{
    return mqsync_upstream_is_up(b->upstream) && b->questions.open < MQSYNC_QUESTIONS_MAX;
}

bool mqsync_question_send(struct mqsync_bridge *b, uint64_t sender, const struct mqsync_upstream_command *c,
                          uint64_t *ret_question)
{
    struct mqsync_upstream_command command = *c;
    uint16_t mid;

    command.tag = (struct mqsync_upstream_tag){.sender = sender, .question = b->questions.last + 1};
    if (!mqsync_question_possible(b) || mqsync_upstream_command(b->upstream, &command, &mid) != MQSYNC_OK)
        return false;
    b->questions.open++;
    *ret_question = ++b->questions.last;
    return true;
}

void mqsync_question_end(struct mqsync_bridge *b)
{
    b->questions.open--;
}
