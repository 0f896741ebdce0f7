/* SPDX-License-Identifier: BSD-3-Clause */
/* What an HTTP request under /sync asks for: pure functions of its bytes. */
#ifndef MQSYNC_BRIDGE_QUERY_H
#define MQSYNC_BRIDGE_QUERY_H

#include "message.h"

enum mqsync_http_method {
    MQSYNC_HTTP_GET,
    MQSYNC_HTTP_HEAD,
    MQSYNC_HTTP_POST,
    MQSYNC_HTTP_PUT,
    MQSYNC_HTTP_PATCH,
    MQSYNC_HTTP_DELETE,
    MQSYNC_HTTP_OPTIONS,
    MQSYNC_HTTP_METHODS_N
};

/* Takes a path apart whose %xx are resolved: /sync/{collection} or /sync/{collection}/{recordId}; a slash at the end
 * says nothing. record_id is empty where there is none. */
struct mqsync_target {
    struct mqsync_slice collection, record_id;
};
/* False: the path is none of those. The names are not checked. */
bool mqsync_target_parse(struct mqsync_slice path, struct mqsync_target *ret);

enum { MQSYNC_WHERE_MAX = 16, MQSYNC_FIELDS_MAX = 64 };

struct mqsync_condition {
    struct mqsync_slice field, value; /* plain text */
    bool is_number;
};

/* Zero-initialise to start. */
struct mqsync_query {
    bool has_since;
    int64_t since_ms;   /* updatedAt at that time or later */
    uint64_t since_seq; /* changes after that seq; 0: all */
    uint64_t limit, offset;
    struct mqsync_condition where[MQSYNC_WHERE_MAX];
    size_t where_n;
    bool has_fields;
    struct mqsync_slice fields[MQSYNC_FIELDS_MAX], exclude[MQSYNC_FIELDS_MAX];
    size_t fields_n, exclude_n;
};

/* Reads `name=value` parameters whose %xx are resolved: since, limit, offset, where[field], fields, excludeFields. Of
 * since, limit and offset the last one counts, of the others all. Unknown names are ignored. INVALID_MESSAGE names the
 * parameter. Slices of *ret point into args. */
enum mqsync_code mqsync_query_parse(const struct mqsync_slice *args, size_t n, struct mqsync_query *ret,
                                    struct mqsync_error *ret_error);

/* Whether a record belongs to the answer, by its data and time. One pass over data. False also when out of memory. */
bool mqsync_query_matches(const struct mqsync_query *q, struct mqsync_slice data, int64_t updated_ms);

/* Appends data with those of its fields that were asked for. */
void mqsync_query_project(const struct mqsync_query *q, struct mqsync_slice data, struct mqsync_buf *out);

/* Turns a write (POST, PUT, PATCH, DELETE) into the client message that it stands for, in `command`, and decodes that
 * as any client message; *ret points into command, collection or scratch. What INVALID_MESSAGE names is a field of the
 * body. An empty body is {}. */
enum mqsync_code mqsync_query_command(enum mqsync_http_method method, const struct mqsync_target *target,
                                      struct mqsync_slice body, struct mqsync_buf *command, struct mqsync_buf *scratch,
                                      struct mqsync_message *ret, struct mqsync_error *ret_error);

/* --- a chunked body ----------------------------------------------------------------------------------------------- */

/* Zero-initialise to start. */
struct mqsync_chunks {
    unsigned state;
    uint64_t left; /* of the chunk */
    unsigned line; /* bytes of the size line or trailer so far */
};
enum mqsync_chunks_result { MQSYNC_CHUNKS_MORE, MQSYNC_CHUNKS_END, MQSYNC_CHUNKS_BAD };
/* Appends what the bytes hold of the body. What comes after the end is left alone. */
enum mqsync_chunks_result mqsync_chunks_take(struct mqsync_chunks *c, struct mqsync_slice bytes,
                                             struct mqsync_buf *out);

#endif
