/* SPDX-License-Identifier: BSD-3-Clause */
/* root/{collection}/rec/{recordId}: the record itself, retained, for collections with "retain": true. */
#ifndef MQSYNC_RETAIN_H
#define MQSYNC_RETAIN_H

#include "plugin.h"

struct mqsync_retainer *mqsync_retainer_alloc(void); /* NULL: out of memory */
void mqsync_retainer_free(struct mqsync_retainer *t);

/* Makes the retained message of record in p->scratch.record: the record, nothing for a tombstone. False: out of memory.
 */
bool mqsync_retain_compose(struct mqsync_plugin *p, struct mqsync_slice id, const struct mqsync_record *record);
/* Publishes p->scratch.record. Uses p->scratch.topic. False: out of memory. */
bool mqsync_retain_publish(struct mqsync_plugin *p, struct mqsync_slice collection, struct mqsync_slice id);

/* When the plugin starts: queues every collection whose topics have to be brought up to date, those that are retained,
 * published record by record, and those that were in an earlier run and are no longer, cleared. Which these are is
 * noted in the database's directory. */
void mqsync_retain_start(struct mqsync_plugin *p);
/* The configuration has changed: the same for the collections that are retained and were not `before`, or the other way
 * round. */
void mqsync_retain_reload(struct mqsync_plugin *p, const struct mqsync_config *before);
/* When the broker stops in order: what has been cleared is forgotten. */
void mqsync_retain_stop(struct mqsync_plugin *p);
/* What was published last is not the last there is: all retained records are brought up to date once more. */
void mqsync_retain_missed(struct mqsync_plugin *p);
/* Does a bounded piece of that work; a walk over the newest state each time, so that it never overtakes a write. */
void mqsync_retain_continue(struct mqsync_plugin *p);
bool mqsync_retain_busy(const struct mqsync_retainer *t);

#endif
