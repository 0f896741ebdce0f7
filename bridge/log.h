/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines for the operator on standard error: "mqsync-bridge MQS3001: text". docs/bridge.md lists the ids. */
#ifndef MQSYNC_BRIDGE_LOG_H
#define MQSYNC_BRIDGE_LOG_H

#include "store.h"

/* Control characters become '?', so that no client writes lines of its own. Of one id at most 20 lines a second are
 * printed; how many were kept back is said with the first one after that. */
void mqsync_log(enum mqsync_log_level level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
