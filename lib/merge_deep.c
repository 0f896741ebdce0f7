/* SPDX-License-Identifier: BSD-3-Clause */
/* First every object of the one side is paired with its counterpart of the other, then the result is written in one
 * walk over the record. Both keep their own account of what is open: the depth is the sender's choice. */
#include "merge_deep.h"
#include "json_tree.h"

#include <stdlib.h>

enum { NO_MATCH = 0 }; /* node 0 is the record itself, which is nobody's member */

struct deep {
    struct mqsync_json_tree tree; /* remote at 0, then local */
    uint32_t local;
    uint32_t *match; /* of both sides' members: the other side's member of that name, or NO_MATCH */
    /* scratch for pairing */
    struct mqsync_json_key *keys;
    uint32_t *members; /* members[i] is the node of keys[i] */
};

static bool both(const struct deep *d, uint32_t a, uint32_t b, enum mqsync_json_type type)
{
    return d->tree.nodes[a].type == type && d->tree.nodes[b].type == type;
}

static struct mqsync_json_key key_of(const struct mqsync_json_node *node)
{
    return mqsync_json_make_key(node->key.p, node->key.n);
}

static bool pair_members(struct deep *d, uint32_t remote, uint32_t local)
{
    const struct mqsync_json_node *nodes = d->tree.nodes;
    struct mqsync_json_keys set;
    bool done = true;
    mqsync_json_keys_init(&set);
    for (uint32_t c = local + 1; c < nodes[local].next && done; c = nodes[c].next) {
        d->keys[set.n] = key_of(&nodes[c]);
        d->members[set.n] = c;
        done = mqsync_json_keys_add(&set, d->keys);
    }
    for (uint32_t c = remote + 1; c < nodes[remote].next && done; c = nodes[c].next) {
        struct mqsync_json_key key = key_of(&nodes[c]);
        size_t i = mqsync_json_keys_find(&set, d->keys, &key);
        if (i == MQSYNC_JSON_NO_KEY)
            continue;
        d->match[c] = d->members[i];
        d->match[d->members[i]] = c;
    }
    mqsync_json_keys_free(&set);
    return done;
}

static bool pair_all(struct deep *d)
{
    if (!pair_members(d, 0, d->local))
        return false;
    /* a member comes after the object it is in, so that its match is known by the time the walk gets there */
    for (uint32_t i = 1; i < d->local; i++) {
        if (d->match[i] != NO_MATCH && both(d, i, d->match[i], MQSYNC_JSON_OBJECT) && !pair_members(d, i, d->match[i]))
            return false;
    }
    return true;
}

static void add_key(struct mqsync_buf *out, const struct mqsync_json_node *node)
{
    if (out->n && out->p[out->n - 1] != '{')
        mqsync_buf_add_char(out, ',');
    if (node->key.p) {
        mqsync_buf_add(out, node->key.p - 1, node->key.n + 2);
        mqsync_buf_add_char(out, ':');
    }
}

/* What only local has, and the end of the object. */
static void close_object(struct mqsync_buf *out, const struct deep *d, uint32_t local, bool partial)
{
    const struct mqsync_json_node *nodes = d->tree.nodes;
    for (uint32_t c = local + 1; c < nodes[local].next; c = nodes[c].next) {
        if (d->match[c] != NO_MATCH || (partial && nodes[c].type == MQSYNC_JSON_NULL))
            continue;
        add_key(out, &nodes[c]);
        mqsync_buf_add_slice(out, nodes[c].text);
    }
    mqsync_buf_add_char(out, '}');
}

static void write_merged(struct mqsync_buf *out, const struct deep *d, bool partial)
{
    const struct mqsync_json_node *nodes = d->tree.nodes;
    uint32_t open = 0, i = 1;
    mqsync_buf_add_char(out, '{');
    for (;;) {
        while (i == nodes[open].next) {
            close_object(out, d, open ? d->match[open] : d->local, partial && open == 0);
            if (open == 0)
                return;
            open = nodes[open].parent;
        }
        uint32_t match = d->match[i];
        add_key(out, &nodes[i]);
        if (match != NO_MATCH && both(d, i, match, MQSYNC_JSON_OBJECT)) {
            mqsync_buf_add_char(out, '{');
            open = i++;
            continue;
        }
        if (match != NO_MATCH && both(d, i, match, MQSYNC_JSON_ARRAY))
            mqsync_json_union(out, nodes[match].text, nodes[i].text);
        else
            mqsync_buf_add_slice(out, nodes[i].text);
        i = nodes[i].next;
    }
}

void mqsync_merge_deep(struct mqsync_buf *out, const struct mqsync_merge *m)
{
    struct deep d = {0};
    uint32_t remote;
    bool done = mqsync_json_tree_add(&d.tree, m->remote, &remote) && mqsync_json_tree_add(&d.tree, m->local, &d.local);
    if (done) {
        d.match = calloc(d.tree.n, sizeof(*d.match));
        d.keys = malloc(d.tree.n * sizeof(*d.keys));
        d.members = malloc(d.tree.n * sizeof(*d.members));
        done = d.match && d.keys && d.members && pair_all(&d);
    }
    if (done)
        write_merged(out, &d, m->partial);
    else
        out->failed = true;
    free(d.match);
    free(d.keys);
    free(d.members);
    mqsync_json_tree_free(&d.tree);
}
