/* SPDX-License-Identifier: BSD-3-Clause */
/* Whose a record is, in collections with `owner`: what somebody may do and see who is bound by the rules, and what the
 * event tells others about it. */
#ifndef MQSYNC_OWNER_H
#define MQSYNC_OWNER_H

#include "plugin.h"

/* Whether the sender may see his own records alone. */
bool mqsync_owner_reads_own(const struct mqsync_request *r);

/* Whether the sender may be shown the record (or, of a tombstone, that it is gone). */
bool mqsync_owner_may_see(const struct mqsync_request *r, const struct mqsync_record *record);

/* Whether the sender, bound by the rules and not without any right to write, may do what the write comes to. Called
 * with the outcome in p->scratch; when false r->error says why. */
bool mqsync_owner_may_write(const struct mqsync_plugin *p, struct mqsync_request *r);

/* Of the outcome in p->scratch of a write to a collection with `owner`: fills r->owner_before and r->owner_now, and the
 * next record's former owners; when the owner changes, the event carries the whole record. Out of memory turns the
 * outcome into a refusal. */
void mqsync_owner_resolve(struct mqsync_plugin *p, struct mqsync_request *r);

/* Whether the record, his now, was nobody else's at any time after seq. */
bool mqsync_owner_since(const struct mqsync_record *record, uint64_t seq);

#endif
