/* SPDX-License-Identifier: BSD-3-Clause */
/* Times: ISO 8601 on the wire, milliseconds since 1970-01-01T00:00:00Z inside. */
#ifndef MQSYNC_TIMESTAMP_H
#define MQSYNC_TIMESTAMP_H

#include <time.h>

#include "buf.h"

enum mqsync_time_kind {
    MQSYNC_TIME_MISSING,
    MQSYNC_TIME_ZONELESS, /* ISO 8601 without a zone: ms is what it would be in UTC, good for comparing two such times
                             only */
    MQSYNC_TIME_EXACT,
};

struct mqsync_time {
    enum mqsync_time_kind kind;
    int64_t ms;
};

#define MQSYNC_TIMESTAMP_LEN 24 /* 2026-11-22T18:17:00.000Z */

/* Parses RFC 3339 (any offset, its colon may be missing; 'T', 't' or space, 'Z' or 'z', any number of fraction digits,
 * cut to ms; second 60 counts as the next minute). Without a zone the same and what else ISO 8601 has for a date and a
 * time: a decimal comma, and the basic form without separators. The seconds may be missing. False, *ret untouched,
 * otherwise. */
bool mqsync_time_parse(struct mqsync_slice text, struct mqsync_time *ret);

/* Writes exactly MQSYNC_TIMESTAMP_LEN characters, no NUL. ms outside the years 0000 to 9999 is clamped to them. Fast:
 * it runs for every accepted write (remembers the last second's text per thread). */
void mqsync_time_format(int64_t ms, char out[MQSYNC_TIMESTAMP_LEN]);

/* CLOCK_REALTIME in ms. */
int64_t mqsync_time_now(void);

/* CLOCK_MONOTONIC in microseconds, for how long something takes. */
static inline int64_t mqsync_monotonic_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

#endif
