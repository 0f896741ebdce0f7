/* SPDX-License-Identifier: BSD-3-Clause */
/* What the bridge sends to the plugin: commands, which are pending until the broker has acknowledged them, and
 * questions, of which only a few are open at once. */
#ifndef MQSYNC_BRIDGE_COMMAND_H
#define MQSYNC_BRIDGE_COMMAND_H

#include "token.h"
#include "upstream.h"

struct mqsync_bridge;

/* Sets the user and roles on whose behalf a command or question is sent; NULL: nobody's. They point into claims. */
void mqsync_command_for(const struct mqsync_bridge *b, const struct mqsync_claims *claims,
                        struct mqsync_upstream_command *c);

/* Sends a command; its tag is not the caller's to set. On failure (MQSYNC_SERVER_ERROR) nothing has been sent. */
enum mqsync_code mqsync_command_send(struct mqsync_bridge *b, uint64_t sender, const struct mqsync_upstream_command *c,
                                     struct mqsync_error *ret_error);
/* The broker owes acknowledgements and has sent none for some seconds: it hangs. */
bool mqsync_commands_stalled(const struct mqsync_bridge *b);

/* The broker keeps so many long answers going at once. */
enum { MQSYNC_QUESTIONS_MAX = 8 };

/* Zero-initialise to start. */
struct mqsync_questions {
    unsigned open; /* sent, and neither answered nor forgotten */
    uint64_t last; /* the number of the latest */
};

/* The broker is there, and another question may be opened. */
bool mqsync_question_possible(const struct mqsync_bridge *b);
/* Sends a question, likewise, whose answers come back with the number *ret_question; it is open until
 * mqsync_question_end(). False: not possible now. */
bool mqsync_question_send(struct mqsync_bridge *b, uint64_t sender, const struct mqsync_upstream_command *c,
                          uint64_t *ret_question);
/* One is answered, or its answer is of no interest any more. */
void mqsync_question_end(struct mqsync_bridge *b);

#endif
