/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON as bytes (RFC 8259): checked once, then cut, never turned into a tree. Numbers stay the digits they came as.
 *
 * Stricter than the RFC where two readers could disagree: duplicate keys in one object, invalid UTF-8, lone surrogates
 * (as bytes or as \u escapes) are errors. Every function but mqsync_json_check() expects text that it has accepted. */
#ifndef MQSYNC_JSON_H
#define MQSYNC_JSON_H

#include "buf.h"
#include "error.h"

#define MQSYNC_JSON_MAX_DEPTH 512

enum mqsync_json_type {
    MQSYNC_JSON_NULL,
    MQSYNC_JSON_FALSE,
    MQSYNC_JSON_TRUE,
    MQSYNC_JSON_NUMBER,
    MQSYNC_JSON_STRING,
    MQSYNC_JSON_ARRAY,
    MQSYNC_JSON_OBJECT,
};

struct mqsync_json_info {
    enum mqsync_json_type type;
    bool spaced; /* there is white space outside strings: minifying would change the bytes */
};

/* Checks that text is exactly one JSON value (white space around it allowed). Linear time in the text's length whatever
 * the content (duplicate-key detection uses seeded hashes), iterative, no allocation for objects of up to 32 keys.
 * On failure returns MQSYNC_INVALID_MESSAGE and fills *ret_error with reason and byte offset (or MQSYNC_SERVER_ERROR
 * when out of memory); *ret_info is untouched then. Both may be NULL. */
enum mqsync_code mqsync_json_check(struct mqsync_slice text, struct mqsync_json_info *ret_info,
                                   struct mqsync_error *ret_error);

/* Type of a value slice (leading white space allowed). */
enum mqsync_json_type mqsync_json_typeof(struct mqsync_slice value);

/* Walks the members of an object: key is the raw text between the quotes (escapes not resolved), value the raw value
 * without surrounding white space. Start with mqsync_json_members(); false at the end. Of text that was not accepted,
 * too, nothing outside of it is read; what is found there may be anything. */
struct mqsync_json_iter {
    const char *at;
    const char *end;
};
struct mqsync_json_iter mqsync_json_members(struct mqsync_slice object);
bool mqsync_json_next_member(struct mqsync_json_iter *it, struct mqsync_slice *ret_key, struct mqsync_slice *ret_value);
struct mqsync_json_iter mqsync_json_elements(struct mqsync_slice array);
bool mqsync_json_next_element(struct mqsync_json_iter *it, struct mqsync_slice *ret_value);

/* Raw keys (or raw string contents) compared by what they mean: "a" equals "\u0061". */
bool mqsync_json_key_equal(struct mqsync_slice raw_a, struct mqsync_slice raw_b);

/* Finds a member by plain (unescaped, UTF-8) name. Linear. */
bool mqsync_json_find(struct mqsync_slice object, struct mqsync_slice name, struct mqsync_slice *ret_value);
/* The same where `object` may be any JSON value, and the member has to be of that type. */
bool mqsync_json_member(struct mqsync_slice object, struct mqsync_slice name, enum mqsync_json_type type,
                        struct mqsync_slice *ret_value);
/* The same for a number that mqsync_json_to_u64() reads; *ret is untouched on false. */
bool mqsync_json_member_u64(struct mqsync_slice object, struct mqsync_slice name, uint64_t *ret);
size_t mqsync_json_count(struct mqsync_slice array); /* its elements */

/* What stands between the quotes of a string value, escapes as they are. */
static inline struct mqsync_slice mqsync_json_inside(struct mqsync_slice string_value)
{
    return string_value.n < 2 ? MQSYNC_SLICE("") : (struct mqsync_slice){string_value.p + 1, string_value.n - 2};
}

/* Same JSON value: object order does not matter, array order does, numbers compare by exact decimal value
 * (1 equals 1.0 equals 10e-1), strings by content. Linear. False also when out of memory. */
bool mqsync_json_equal(struct mqsync_slice a, struct mqsync_slice b);

/* Equal values have equal hashes, for sets of values in linear time. Seeded: another number in the next process. */
uint64_t mqsync_json_hash(struct mqsync_slice value);

/* Compares two JSON numbers by exact decimal value: <0, 0, >0. Any length, any exponent. */
int mqsync_json_number_compare(struct mqsync_slice a, struct mqsync_slice b);

/* Appends value without insignificant white space; strings and numbers to the letter. */
void mqsync_json_minify(struct mqsync_buf *out, struct mqsync_slice value);

/* Appends the UTF-8 a string value (with its quotes) stands for. */
void mqsync_json_unescape(struct mqsync_buf *out, struct mqsync_slice string_value);

/* Appends UTF-8 text as a JSON string with quotes, escaping only what must be. */
void mqsync_json_add_string(struct mqsync_buf *out, struct mqsync_slice utf8);

/* Reads a number that is an unsigned integer (no sign, fraction or exponent) of at most 2^63-1; false otherwise. */
bool mqsync_json_to_u64(struct mqsync_slice value, uint64_t *ret);

/* --- objects as rows of members ---------------------------------------------------------------------------------- */

/* Applies a delta to an object, top level only, as an `update` does: a member of delta replaces base's of the same name
 * in its place, null removes it, new ones are appended in delta's order. base may be an empty slice (taken as {}).
 * Appends the minified result object. Linear in base + delta. */
void mqsync_json_apply_delta(struct mqsync_buf *out, struct mqsync_slice base, struct mqsync_slice delta);

/* Appends an object that turns `from` into `to` with apply_delta: members that differ (mqsync_json_equal) or are new as
 * they are in `to`, removed ones as null. With full true every member of `to` is listed, not only changed ones. */
void mqsync_json_diff(struct mqsync_buf *out, struct mqsync_slice from, struct mqsync_slice to, bool full);

#endif
