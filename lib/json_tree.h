/* SPDX-License-Identifier: BSD-3-Clause */
/* Checked JSON text taken apart, for merges, which must look at it from two sides: the members of one object by name,
 * and whole values as nodes. Everything here is linear in the text, whatever its depth and its keys. */
#ifndef MQSYNC_JSON_TREE_H
#define MQSYNC_JSON_TREE_H

#include "json_scan.h"

/* --- one object's members ----------------------------------------------------------------------------------------- */

struct mqsync_json_index {
    size_t n;
    struct mqsync_slice *values;
    struct mqsync_json_key *keys; /* raw, in the object's order; values[i] belongs to keys[i] */
    struct mqsync_json_keys set;
};

/* False when out of memory; fini it all the same. */
bool mqsync_json_index_init(struct mqsync_json_index *x, struct mqsync_slice object);
/* Which member a raw key names, or MQSYNC_JSON_NO_KEY. */
size_t mqsync_json_index_find(const struct mqsync_json_index *x, struct mqsync_slice raw_key);
void mqsync_json_index_fini(struct mqsync_json_index *x);

/* --- whole values ------------------------------------------------------------------------------------------------- */

/* The children of node i are i + 1, then each one's `next`, until nodes[i].next. */
struct mqsync_json_node {
    enum mqsync_json_type type;
    uint32_t parent;          /* a root is its own */
    uint32_t next;            /* the first node that is not inside this one */
    struct mqsync_slice key;  /* raw, of a member of an object; else empty */
    struct mqsync_slice text; /* of the value */
};

/* Zero-initialise to start. */
struct mqsync_json_tree {
    struct mqsync_json_node *nodes;
    uint32_t n, cap;
};

/* Adds a value's nodes; *ret_root is the first of them. False when out of memory. */
bool mqsync_json_tree_add(struct mqsync_json_tree *t, struct mqsync_slice text, uint32_t *ret_root);
void mqsync_json_tree_free(struct mqsync_json_tree *t);

/* --- arrays ------------------------------------------------------------------------------------------------------- */

/* Appends the array of what is in a and then what is in b, each value (mqsync_json_equal) once. */
void mqsync_json_union(struct mqsync_buf *out, struct mqsync_slice a, struct mqsync_slice b);

#endif
