/* SPDX-License-Identifier: BSD-3-Clause */
/* Wills on cmd topics: the broker shows them to no plugin, so the bridge sends them to it again, as commands of
 * nobody's.
 */
#ifndef MQSYNC_BRIDGE_WILL_H
#define MQSYNC_BRIDGE_WILL_H

#include "upstream.h"

struct mqsync_bridge;

/* Who sends it, among those whose commands are on their way. */
#define MQSYNC_WILL_SENDER UINT64_C(0)

/* Sends it as a command, or says in the log why not. Nobody is there to be answered. */
void mqsync_will_carry_out(struct mqsync_bridge *b, const struct mqsync_upstream_will *w);

/* The plugin's answer to one that was sent. */
void mqsync_will_answered(struct mqsync_slice payload);

#endif
