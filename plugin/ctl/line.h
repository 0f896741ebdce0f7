/* SPDX-License-Identifier: BSD-3-Clause */
/* One record as a line of NDJSON, what export writes and import reads:
 * {"collection","id","data","version","updatedAt"}, a tombstone with "deleted":true and without data. */
#ifndef MQSYNC_CTL_LINE_H
#define MQSYNC_CTL_LINE_H

#include <stdio.h>

#include "json.h"
#include "record.h"

/* Appends a record's members and leaves the object open for more; data byte for byte as stored. */
void mqsync_line_begin(struct mqsync_buf *out, struct mqsync_slice collection, struct mqsync_slice id,
                       const struct mqsync_record *r);
/* Closes it, with a newline. */
void mqsync_line_end(struct mqsync_buf *out);

/* Appends a member, with the comma it needs, to an object begun with '{'. */
void mqsync_line_string(struct mqsync_buf *out, const char *key, struct mqsync_slice value);
void mqsync_line_number(struct mqsync_buf *out, const char *key, uint64_t value);
void mqsync_line_raw(struct mqsync_buf *out, const char *key, const char *json);

/* Prints JSON, one value or whole lines. On a terminal the control characters U+0080 to U+009F, which some terminals
 * obey and JSON strings may hold, as escapes of the same value; otherwise byte for byte. ferror(out) tells. */
void mqsync_line_print(FILE *out, struct mqsync_slice json);

struct mqsync_line {
    struct mqsync_slice collection, id; /* valid names */
    struct mqsync_slice data;           /* minified; empty for a tombstone */
    uint64_t version;                   /* at least 1 */
    int64_t updated_ms;
    bool deleted;
};

/* What reading a line needs; zero-initialise, free when done. */
struct mqsync_line_scratch {
    struct mqsync_buf rest, names, data;
};
void mqsync_line_scratch_free(struct mqsync_line_scratch *s);

/* Reads one line. Slices of *ret point into text or *s. MQSYNC_INVALID_MESSAGE and which member is wrong otherwise.
 * Unknown members are ignored. */
enum mqsync_code mqsync_line_parse(struct mqsync_slice text, struct mqsync_line_scratch *s, struct mqsync_line *ret,
                                   struct mqsync_error *ret_error);

#endif
