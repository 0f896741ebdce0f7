/* SPDX-License-Identifier: BSD-3-Clause */
/* The database beside the broker, for reading. A view costs as much as what the broker has written in the last second,
 * so that one view serves many readers. */
#ifndef MQSYNC_BRIDGE_DATABASE_H
#define MQSYNC_BRIDGE_DATABASE_H

#include "store.h"

/* dir NULL: there is none to be used. Zero-initialise the rest. */
struct mqsync_database {
    const char *dir;
    /* private */
    struct mqsync_reader *reader;
    struct mqsync_view *view;
    int64_t opened_us; /* the view */
    int64_t cost_us;   /* of opening it */
    bool complained;
};

/* The newest state, or with `old` true a view of the last half second. NULL with *ret_wait_us > 0: not before so many
 * microseconds, since views have taken too much time lately; NULL with 0: it cannot be read (which the log says). The
 * view stays the database's; it lives until the next call. */
struct mqsync_view *mqsync_database_view(struct mqsync_database *d, int64_t now_us, bool old, int64_t *ret_wait_us);

/* Lets the view go once it has not been needed for a while: a view that is kept costs disk space. */
void mqsync_database_rest(struct mqsync_database *d, int64_t now_us);

/* Forgets what is open: another database may lie there now. */
void mqsync_database_reopen(struct mqsync_database *d);

#endif
