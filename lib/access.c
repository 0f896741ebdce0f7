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

bool mqsync_access_owns(const struct mqsync_collection_config *c, struct mqsync_slice user, struct mqsync_slice data)
{
    struct mqsync_slice value;

    if (!c->owner || user.n == 0 || data.n == 0 || !mqsync_json_find(data, mqsync_slice_str(c->owner), &value))
        return false;
    if (mqsync_json_typeof(value) == MQSYNC_JSON_NUMBER)
        return mqsync_slice_equal(value, user);
    if (mqsync_json_typeof(value) != MQSYNC_JSON_STRING)
        return false;
    struct mqsync_buf text = {0};
    mqsync_json_unescape(&text, value);
    bool same = !text.failed && mqsync_slice_equal(mqsync_buf_slice(&text), user);
    mqsync_buf_free(&text);
    return same;
}
