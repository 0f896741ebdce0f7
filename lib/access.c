/* SPDX-License-Identifier: BSD-3-Clause */
#include "access.h"
#include "json.h"

/* What follows the prefix of a name such as "role:staff"; false when it has another prefix. */
static bool after(struct mqsync_slice name, struct mqsync_slice prefix, struct mqsync_slice *ret)
{
    if (name.n < prefix.n || memcmp(name.p, prefix.p, prefix.n) != 0)
        return false;
    *ret = (struct mqsync_slice){name.p + prefix.n, name.n - prefix.n};
    return true;
}

static bool has_role(const struct mqsync_identity *who, struct mqsync_slice role)
{
    for (size_t i = 0; i < who->roles_n; i++)
        if (mqsync_slice_equal(who->roles[i], role))
            return true;
    return false;
}

static bool listed(const struct mqsync_names *names, const struct mqsync_identity *who)
{
    struct mqsync_slice rest;

    for (size_t i = 0; i < names->n; i++) {
        if (mqsync_slice_equal(names->v[i], MQSYNC_SLICE("*")))
            return true;
        if (after(names->v[i], MQSYNC_SLICE("user:"), &rest) && who->user.n && mqsync_slice_equal(rest, who->user))
            return true;
        if (after(names->v[i], MQSYNC_SLICE("role:"), &rest) && has_role(who, rest))
            return true;
    }
    return false;
}

enum mqsync_right mqsync_access(const struct mqsync_collection_config *c, bool write, const struct mqsync_identity *who)
{
    if (listed(write ? &c->write : &c->read, who))
        return MQSYNC_RIGHT_ALL;
    return c->owner && who->user.n ? MQSYNC_RIGHT_OWN : MQSYNC_RIGHT_NONE;
}

struct mqsync_slice mqsync_access_owner(const struct mqsync_collection_config *c, struct mqsync_slice data,
                                        struct mqsync_buf *scratch)
{
    struct mqsync_slice none = {NULL, 0}, value;

    mqsync_buf_clear(scratch);
    if (!c->owner || data.n == 0 || !mqsync_json_find(data, mqsync_slice_str(c->owner), &value))
        return none;
    enum mqsync_json_type type = mqsync_json_typeof(value);
    if (type == MQSYNC_JSON_STRING && memchr(value.p, '\\', value.n)) {
        mqsync_json_unescape(scratch, value);
        value = mqsync_buf_slice(scratch);
        if (scratch->failed)
            return none;
    } else if (type == MQSYNC_JSON_STRING) {
        value = mqsync_json_inside(value);
    } else if (type != MQSYNC_JSON_NUMBER) {
        return none;
    }
    return value.n <= MQSYNC_USER_MAX && mqsync_text_valid(value) ? value : none;
}

bool mqsync_access_owns(const struct mqsync_collection_config *c, struct mqsync_slice user, struct mqsync_slice data)
{
    struct mqsync_buf scratch = {0};
    bool owns = user.n && mqsync_slice_equal(mqsync_access_owner(c, data, &scratch), user);

    mqsync_buf_free(&scratch);
    return owns;
}

void mqsync_access_formers(const struct mqsync_record *stored, struct mqsync_slice before, struct mqsync_slice now,
                           struct mqsync_record *next)
{
    bool parts = before.n && !mqsync_slice_equal(before, now);
    uint64_t before_hash = parts ? mqsync_record_user_hash(before) : 0;
    uint64_t now_hash = now.n ? mqsync_record_user_hash(now) : 0;
    unsigned n = 0;

    for (unsigned i = 0; stored && i < stored->formers_n; i++) {
        uint64_t user = stored->formers[i].user;
        if (!(parts && user == before_hash) && !(now.n && user == now_hash))
            next->formers[n++] = stored->formers[i];
    }
    if (parts && n == MQSYNC_FORMERS_MAX)
        memmove(next->formers, next->formers + 1, --n * sizeof(next->formers[0]));
    if (parts)
        next->formers[n++] = (struct mqsync_former){before_hash, next->seq};
    next->formers_n = n;
}

enum mqsync_sight mqsync_access_sight(const struct mqsync_collection_config *c, struct mqsync_slice user,
                                      const struct mqsync_record *r, uint64_t since)
{
    if (r->seq <= since || user.n == 0)
        return MQSYNC_SIGHT_NONE;
    if (!r->deleted && mqsync_access_owns(c, user, r->data))
        return MQSYNC_SIGHT_RECORD;
    uint64_t hash = r->formers_n ? mqsync_record_user_hash(user) : 0;
    for (unsigned i = r->formers_n; i--;) {
        if (r->formers[i].user == hash)
            return r->formers[i].seq > since ? MQSYNC_SIGHT_GONE : MQSYNC_SIGHT_NONE;
    }
    return MQSYNC_SIGHT_NONE;
}
