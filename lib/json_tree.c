/* SPDX-License-Identifier: BSD-3-Clause */
#include "json_tree.h"

#include <stdlib.h>

/* --- one object's members ----------------------------------------------------------------------------------------- */

static size_t count_members(struct mqsync_slice object)
{
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key, value;
    size_t n = 0;
    while (mqsync_json_next_member(&it, &key, &value))
        n++;
    return n;
}

bool mqsync_json_index_init(struct mqsync_json_index *x, struct mqsync_slice object)
{
    size_t n = count_members(object);
    x->n = 0;
    mqsync_json_keys_init(&x->set);
    x->values = malloc((n + 1) * sizeof(*x->values));
    x->keys = malloc((n + 1) * sizeof(*x->keys));
    if (!x->values || !x->keys)
        return false;
    struct mqsync_json_iter it = mqsync_json_members(object);
    struct mqsync_slice key;
    for (; x->n < n && mqsync_json_next_member(&it, &key, &x->values[x->n]); x->n++) {
        x->keys[x->n] = mqsync_json_make_key(key.p, key.n);
        if (!mqsync_json_keys_add(&x->set, x->keys))
            return false;
    }
    return true;
}

size_t mqsync_json_index_find(const struct mqsync_json_index *x, struct mqsync_slice raw_key)
{
    struct mqsync_json_key key = mqsync_json_make_key(raw_key.p, raw_key.n);
    return mqsync_json_keys_find(&x->set, x->keys, &key);
}

void mqsync_json_index_fini(struct mqsync_json_index *x)
{
    free(x->values);
    free(x->keys);
    mqsync_json_keys_free(&x->set);
}

/* --- nodes -------------------------------------------------------------------------------------------------------- */

static struct mqsync_json_node *new_node(struct mqsync_json_tree *t)
{
    if (t->n == t->cap) {
        if (t->cap > UINT32_MAX / 4)
            return NULL;
        uint32_t cap = t->cap ? t->cap * 2 : 64;
        struct mqsync_json_node *nodes = realloc(t->nodes, cap * sizeof(*nodes));
        if (!nodes)
            return NULL;
        t->nodes = nodes;
        t->cap = cap;
    }
    return &t->nodes[t->n++];
}

/* A member's key and colon, where *p stands on it. */
static struct mqsync_slice take_key(const char **p, const char *end)
{
    const char *key = *p + 1, *quote = mqsync_json_string_end(key, end);
    *p = quote < end ? quote + 1 : end;
    while (*p < end && (mqsync_json_is_space(**p) || **p == ':'))
        ++*p;
    return (struct mqsync_slice){key, (size_t)(quote - key)};
}

bool mqsync_json_tree_add(struct mqsync_json_tree *t, struct mqsync_slice text, uint32_t *ret_root)
{
    const char *p = text.p, *end = text.p + text.n;
    uint32_t root = t->n, open = UINT32_MAX; /* the innermost container that has not ended */
    while (p < end) {
        if (*p == ',' || mqsync_json_is_space(*p)) {
            p++;
            continue;
        }
        if (*p == '}' || *p == ']') {
            struct mqsync_json_node *node = &t->nodes[open];
            node->text.n = (size_t)(++p - node->text.p);
            node->next = t->n;
            open = node->parent;
            continue;
        }
        struct mqsync_slice key = {NULL, 0};
        if (open != UINT32_MAX && t->nodes[open].type == MQSYNC_JSON_OBJECT)
            key = take_key(&p, end);
        struct mqsync_json_node *node = new_node(t);
        if (!node)
            return false;
        uint32_t at = t->n - 1;
        *node = (struct mqsync_json_node){
            .type = mqsync_json_typeof((struct mqsync_slice){p, (size_t)(end - p)}),
            .parent = at == root ? root : open,
            .next = at + 1,
            .key = key,
            .text = {p, 1},
        };
        if (node->type == MQSYNC_JSON_OBJECT || node->type == MQSYNC_JSON_ARRAY) {
            open = at;
            p++;
        } else {
            p = mqsync_json_skip_scalar(p, end);
            node->text.n = (size_t)(p - node->text.p);
        }
    }
    *ret_root = root;
    return true;
}

void mqsync_json_tree_free(struct mqsync_json_tree *t)
{
    free(t->nodes);
    *t = (struct mqsync_json_tree){0};
}

/* --- arrays ------------------------------------------------------------------------------------------------------- */

struct element {
    struct mqsync_slice text; /* p NULL: an empty slot */
    uint64_t hash;
};

/* The values of an array so far, by hash. */
struct seen {
    struct element *slots;
    size_t mask;
};

static bool seen_init(struct seen *s, size_t values)
{
    size_t size = 16;
    while (size / 2 < values)
        size *= 2;
    s->mask = size - 1;
    s->slots = calloc(size, sizeof(*s->slots));
    return s->slots;
}

/* False when an equal value has been seen. */
static bool see(struct seen *s, struct mqsync_slice value)
{
    uint64_t hash = mqsync_json_hash(value);
    size_t at = hash & s->mask;
    for (; s->slots[at].text.p; at = (at + 1) & s->mask) {
        if (s->slots[at].hash == hash && mqsync_json_equal(s->slots[at].text, value))
            return false;
    }
    s->slots[at] = (struct element){value, hash};
    return true;
}

static void add_unseen(struct mqsync_buf *out, size_t start, struct seen *s, struct mqsync_slice array)
{
    struct mqsync_json_iter it = mqsync_json_elements(array);
    struct mqsync_slice value;
    while (mqsync_json_next_element(&it, &value)) {
        if (!see(s, value))
            continue;
        if (out->n != start + 1)
            mqsync_buf_add_char(out, ',');
        mqsync_buf_add_slice(out, value);
    }
}

void mqsync_json_union(struct mqsync_buf *out, struct mqsync_slice a, struct mqsync_slice b)
{
    struct seen s;
    size_t start = out->n;
    if (!seen_init(&s, mqsync_json_count(a) + mqsync_json_count(b))) {
        out->failed = true;
        return;
    }
    mqsync_buf_add_char(out, '[');
    add_unseen(out, start, &s, a);
    add_unseen(out, start, &s, b);
    mqsync_buf_add_char(out, ']');
    free(s.slots);
}
