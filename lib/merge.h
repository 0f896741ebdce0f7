/* SPDX-License-Identifier: BSD-3-Clause */
/* The merging strategies of a conflict (docs/protocol.md, "Strategies"): two objects become one. */
#ifndef MQSYNC_MERGE_H
#define MQSYNC_MERGE_H

#include "resolve.h"

struct mqsync_merge {
    const struct mqsync_rules *rules; /* a strategy for which mqsync_strategy_merges() holds */
    struct mqsync_slice local;        /* the write's data: a whole object, or with `partial` an update's delta */
    struct mqsync_slice remote;       /* the record's data */
    bool partial;                     /* what local does not name is not missing from it; a null removes */
    bool local_is_later;              /* the write is as new as the record or newer */
    int64_t arrived_ms;               /* no time of the write's fields counts as later than this */
    int64_t updated_ms;               /* the record's; stands for a time of its fields that lies in the future */
};

bool mqsync_strategy_merges(enum mqsync_strategy s);

/* Appends the merged object, minified: the record's members in their order, then new ones. Sets out->failed when out of
 * memory. O(n log n) in the size of both. */
void mqsync_merge(struct mqsync_buf *out, const struct mqsync_merge *m);

#endif
