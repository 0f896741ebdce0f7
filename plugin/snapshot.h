/* SPDX-License-Identifier: BSD-3-Clause */
/* The pages that answer `subscribe` and `sync`: a collection's state, or its changes after a seq, at one moment. Knows
 * the store, not the broker. */
#ifndef MQSYNC_SNAPSHOT_H
#define MQSYNC_SNAPSHOT_H

#include "../lib/message.h"
#include "store.h"

struct mqsync_snapshot_query {
    char collection[MQSYNC_MAX_COLLECTION + 1];
    bool has_since; /* false also when it came with another epoch */
    uint64_t since;
    bool continues;   /* since is where an answer of the full state to the same client was cut by its limit */
    uint64_t limit;   /* entries at most; UINT64_MAX: all */
    bool page_always; /* a page even when there is nothing to tell */
};

/* Zero-initialise to start. */
struct mqsync_snapshot {
    /* valid after open */
    bool full;
    bool done;               /* there is no (further) page */
    uint64_t seq;            /* of the collection at that moment */
    uint64_t records;        /* live ones at that moment */
    uint64_t total;          /* entries the pages will carry */
    uint64_t cut_at;         /* not 0: the limit cut the answer at this seq, below what is known of deletions */
    uint64_t walked;         /* entries looked at so far, tombstones passed over included */
    struct mqsync_page page; /* page.out is the last page made */
    /* private */
    struct mqsync_slice collection;
    struct mqsync_view *view;
    struct mqsync_walk *walk;
    uint64_t left, last_seq, oldest_seq;
    bool pending; /* id and record did not fit on the last page */
    struct mqsync_slice id;
    struct mqsync_record record;
};

/* Starts an answer on a view, which it owns from now on (on failure too). q must outlive the snapshot. At most
 * count_max changes are counted for total. */
enum mqsync_code mqsync_snapshot_open(struct mqsync_snapshot *s, struct mqsync_view *view,
                                      const struct mqsync_snapshot_query *q, uint64_t count_max,
                                      struct mqsync_error *ret_error);

/* Makes the next page, to be found in s->page.out until the next call. Not to be called when s->done. */
enum mqsync_code mqsync_snapshot_page(struct mqsync_snapshot *s, struct mqsync_error *ret_error);

/* Frees what open and page have taken; on the thread that opened it. Fine when never opened. */
void mqsync_snapshot_close(struct mqsync_snapshot *s);

#endif
