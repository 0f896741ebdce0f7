/* SPDX-License-Identifier: BSD-3-Clause */
/* deepMerge, apart from the strategies that know a list of fields or one level only. */
#ifndef MQSYNC_MERGE_DEEP_H
#define MQSYNC_MERGE_DEEP_H

#include "merge.h"

/* Appends remote with what only local has added, objects and arrays inside being merged too. */
void mqsync_merge_deep(struct mqsync_buf *out, const struct mqsync_merge *m);

#endif
