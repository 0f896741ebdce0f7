/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines for the operator, through the broker's own log: "mqsync MQS1001: text". docs/operations.md lists the ids. */
#ifndef MQSYNC_LOG_H
#define MQSYNC_LOG_H

#include "store.h"

/* Remembers the calling thread as the broker's: mosquitto_log_printf() may be called on no other. */
void mqsync_log_init(void);

/* Prints at once on the broker's thread, otherwise queues (at most 64 lines; what does not fit is counted and
 * the count printed). Control characters become '?', so that no client writes lines of its own. */
void mqsync_log(enum mqsync_log_level level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same in the form that the store calls. */
void mqsync_log_from_store(void *context, enum mqsync_log_level level, const char *id, const char *text);

/* Prints what other threads have queued. Broker's thread. Costs one read when there is nothing. */
void mqsync_log_flush(void);

/* A refused message. At most one line a second for each code, with the number of those kept back since. */
void mqsync_log_refused(int64_t now_ms, const char *client_id, const char *topic, const struct mqsync_error *error);

#endif
