/* SPDX-License-Identifier: BSD-3-Clause */
/* The pages that answer `subscribe` and `sync`: a collection's state, or its changes after a seq, at one moment. Knows
 * the store, not the broker. */
#ifndef MQSYNC_SNAPSHOT_H
#define MQSYNC_SNAPSHOT_H

#include "access.h"
#include "message.h"
#include "store.h"

struct mqsync_snapshot_query {
    char collection[MQSYNC_MAX_COLLECTION + 1];
    bool has_since; /* false also when it came with another epoch */
    uint64_t since;
    bool continues;   /* since is where an answer of the full state to the same client was cut by its limit */
    uint64_t limit;   /* entries at most; UINT64_MAX: all */
    bool page_always; /* a page even when there is nothing to tell */
    bool no_pages;    /* none at all: it is about how many records there are */
    bool count;       /* that is to be told */
    /* For a user who may see only what the field `owner` says is his; NULL: everything. */
    const char *owner;
    struct mqsync_slice user;
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
    uint64_t walked;         /* entries looked at so far, those passed over included */
    bool gave_up;            /* more than walk_max of them: the answer is not complete */
    struct mqsync_page page; /* page.out is the last page made */
    /* private */
    struct mqsync_slice collection;
    struct mqsync_view *view;
    struct mqsync_walk *walk;
    const struct mqsync_snapshot_query *query;
    struct mqsync_walk *counting; /* not NULL: records and total are not known yet */
    uint64_t since;
    uint64_t left, last_seq, oldest_seq;
    bool pending; /* id and record did not fit on the last page */
    struct mqsync_slice id;
    struct mqsync_record record;
    enum mqsync_sight sight; /* how that is shown */
};

/* Starts an answer on a view, which it owns from now on (on failure too). q must outlive the snapshot. At most
 * count_max changes are counted for total, and a full state of so many has no pages: it takes another view, with a
 * higher one. */
enum mqsync_code mqsync_snapshot_open(struct mqsync_snapshot *s, struct mqsync_view *view,
                                      const struct mqsync_snapshot_query *q, uint64_t count_max,
                                      struct mqsync_error *ret_error);

/* After open, until *ret_done: looks at up to `max` more entries to count those that the user may see. Only then are
 * records, total and done valid. One call is enough where everything may be seen. */
enum mqsync_code mqsync_snapshot_count(struct mqsync_snapshot *s, uint64_t max, bool *ret_done,
                                       struct mqsync_error *ret_error);

/* Makes the next page, to be found in s->page.out until the next call. Not to be called when s->done. Gives up (see
 * there) when walked gets beyond walk_max. */
enum mqsync_code mqsync_snapshot_page(struct mqsync_snapshot *s, uint64_t walk_max, struct mqsync_error *ret_error);

/* Frees what open and page have taken; on the thread that opened it. Fine when never opened. */
void mqsync_snapshot_close(struct mqsync_snapshot *s);

#endif
