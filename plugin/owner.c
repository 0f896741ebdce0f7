/* SPDX-License-Identifier: BSD-3-Clause */
#include "owner.h"

bool mqsync_owner_reads_own(const struct mqsync_request *r)
{
    return r->bound && mqsync_access(r->rules, false, &r->who) == MQSYNC_RIGHT_OWN;
}

bool mqsync_owner_may_see(const struct mqsync_request *r, const struct mqsync_record *record)
{
    enum mqsync_right right = r->bound ? mqsync_access(r->rules, false, &r->who) : MQSYNC_RIGHT_ALL;

    if (right != MQSYNC_RIGHT_OWN)
        return right == MQSYNC_RIGHT_ALL;
    return mqsync_access_sight(r->rules, r->who.user, record, 0) ==
           (record->deleted ? MQSYNC_SIGHT_GONE : MQSYNC_SIGHT_RECORD);
}

/* A change that was accepted when the record was his is known again although it may be somebody else's by now; but not
 * by its mutationId alone, which others may have seen. */
static bool owns_enough(const struct mqsync_plugin *p, const struct mqsync_request *r)
{
    const struct mqsync_outcome *o = &p->scratch.outcome;
    bool live = r->stored && !r->stored->deleted;

    if (live && mqsync_access_owns(r->rules, r->who.user, r->stored->data))
        return true;
    if (o->kind == MQSYNC_REPEATED)
        return o->same_content;
    if (live)
        return false;
    return o->kind == MQSYNC_REFUSED ||
           mqsync_access_owns(r->rules, r->who.user, o->kind == MQSYNC_ACCEPTED ? o->next.data : r->message.data);
}

bool mqsync_owner_may_write(const struct mqsync_plugin *p, struct mqsync_request *r)
{
    if (mqsync_access(r->rules, true, &r->who) == MQSYNC_RIGHT_ALL || owns_enough(p, r))
        return true;
    mqsync_fail(&r->error, MQSYNC_UNAUTHORIZED, "collection %.*s: only records whose %s is the user",
                (int)r->message.collection.n, r->message.collection.p, r->rules->owner);
    return false;
}

bool mqsync_owner_since(const struct mqsync_record *record, uint64_t seq)
{
    return record->formers_n == 0 || record->formers[record->formers_n - 1].seq <= seq;
}

/* The change is an old one. What is said of its owner must be right or not be said. */
static void resolve_repeated(struct mqsync_plugin *p, struct mqsync_request *r)
{
    if (mqsync_owner_since(r->stored, p->scratch.outcome.seq))
        r->owner_now = mqsync_access_owner(r->rules, r->stored->data, &p->scratch.owner_now);
}

static bool resolve_accepted(struct mqsync_plugin *p, struct mqsync_request *r)
{
    struct mqsync_outcome *o = &p->scratch.outcome;
    struct mqsync_buf *whole = &p->scratch.whole;

    p->scratch.owner_before.failed = false;
    if (r->stored)
        r->owner_before = mqsync_access_owner(r->rules, r->stored->data, &p->scratch.owner_before);
    r->owner_now = mqsync_access_owner(r->rules, o->next.data, &p->scratch.owner_now);
    if (p->scratch.owner_before.failed || p->scratch.owner_now.failed)
        return false;
    /* nobody's is said too: only of a repetition nothing is */
    if (r->owner_before.n == 0)
        r->owner_before = MQSYNC_SLICE("");
    if (r->owner_now.n == 0)
        r->owner_now = MQSYNC_SLICE("");
    mqsync_access_formers(r->stored, r->owner_before, r->owner_now, &o->next);
    if (!r->stored || o->event != MQSYNC_UPDATE || mqsync_slice_equal(r->owner_before, r->owner_now))
        return true;
    mqsync_buf_clear(whole);
    mqsync_json_diff(whole, r->stored->data, o->next.data, true);
    o->event_data = mqsync_buf_slice(whole);
    return !whole->failed;
}

void mqsync_owner_resolve(struct mqsync_plugin *p, struct mqsync_request *r)
{
    struct mqsync_outcome *o = &p->scratch.outcome;

    if (o->kind == MQSYNC_REPEATED)
        resolve_repeated(p, r);
    else if (o->kind == MQSYNC_ACCEPTED && !resolve_accepted(p, r)) {
        o->kind = MQSYNC_REFUSED;
        mqsync_fail(&o->error, MQSYNC_SERVER_ERROR, "out of memory");
    }
}
