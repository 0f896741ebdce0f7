/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fuzz targets have in common. */
#ifndef MQSYNC_FUZZ_H
#define MQSYNC_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "json.h"

/* libFuzzer's, or replay.c's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A finding: unlike assert(), in every build. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Cuts off what is before the next c, which goes too, or everything. */
static inline struct mqsync_slice take_until(struct mqsync_slice *rest, char c)
{
    const char *at = rest->n ? memchr(rest->p, c, rest->n) : NULL;
    struct mqsync_slice part = {rest->p, at ? (size_t)(at - rest->p) : rest->n};
    size_t taken = part.n + (at != NULL);
    *rest = (struct mqsync_slice){rest->p + taken, rest->n - taken};
    return part;
}

static inline bool is_object(struct mqsync_slice text)
{
    struct mqsync_json_info info;
    return mqsync_json_check(text, &info, NULL) == MQSYNC_OK && info.type == MQSYNC_JSON_OBJECT;
}

static inline bool is_plain_object(struct mqsync_slice text)
{
    struct mqsync_json_info info;
    return mqsync_json_check(text, &info, NULL) == MQSYNC_OK && info.type == MQSYNC_JSON_OBJECT && !info.spaced;
}

#endif
