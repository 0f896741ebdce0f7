/* SPDX-License-Identifier: BSD-3-Clause */
/* Answers to `subscribe` and `sync`. A small one is made and sent in the callback. A large one is prepared page by page
 * in a thread of its own, from a view of the database, and sent in slices by the broker's thread.
 *
 * Limits: 32 answers are being prepared at once, one of each client, each at most 16 pages or 2 MiB ahead of what was
 * sent; 1024 wait for their turn, 32 of them for one client; what comes beyond is refused with RATE_LIMIT_EXCEEDED. A
 * client that is disconnected, or has not read for a minute, loses its answers. */
#ifndef MQSYNC_STREAM_H
#define MQSYNC_STREAM_H

#include "plugin.h"

struct mqsync_streams *mqsync_streams_alloc(struct mqsync_store *store, const char *dir); /* NULL: out of memory */
/* Stops the thread and drops every answer. Before the store is closed. NULL is fine. */
void mqsync_streams_free(struct mqsync_streams *s);

/* Answers r, a subscribe or sync, now or later. On failure nothing has been sent. */
enum mqsync_code mqsync_stream_answer(struct mqsync_plugin *p, const struct mqsync_request *r,
                                      struct mqsync_error *ret_error);

/* Drops a client's answers: those to subscribe for one collection, or all when that is empty. */
void mqsync_streams_cancel(struct mqsync_streams *s, const char *client_id, struct mqsync_slice collection);

/* Sends what has been prepared, within limits of time and number. Broker's thread, outside of any other call on the
 * streams. */
void mqsync_streams_send(struct mqsync_plugin *p);

unsigned mqsync_streams_count(const struct mqsync_streams *s);

#endif
