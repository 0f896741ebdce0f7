/* SPDX-License-Identifier: BSD-3-Clause */
/* A bar on a terminal's last line, on stderr: percent, amount, rate, time left. Nothing at all where there is no
 * terminal. */
#ifndef MQSYNC_CTL_PROGRESS_H
#define MQSYNC_CTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum mqsync_unit { MQSYNC_UNIT_RECORDS, MQSYNC_UNIT_BYTES };

struct mqsync_progress {
    bool shown; /* there is a terminal, and nobody asked for quiet */
    const char *what;
    enum mqsync_unit unit;
    uint64_t done, total; /* total 0: not known */
    int64_t began_ms, drawn_ms;
    unsigned skip; /* calls until the clock is looked at again */
};

void mqsync_progress_begin(struct mqsync_progress *p, bool quiet, const char *what, enum mqsync_unit unit,
                           uint64_t total);
/* Cheap enough to be called for each record; draws at most ten times a second. */
void mqsync_progress_update(struct mqsync_progress *p, uint64_t done);
/* The form of the store's callbacks; context is the progress. */
void mqsync_progress_callback(void *context, uint64_t done, uint64_t total);
/* Leaves the finished bar as a line of its own. */
void mqsync_progress_finish(struct mqsync_progress *p);
/* Takes the bar away, for a message to be seen. */
void mqsync_progress_clear(struct mqsync_progress *p);

/* "12.3 MiB" */
#define MQSYNC_BYTES_TEXT 24
const char *mqsync_bytes_text(uint64_t bytes, char out[MQSYNC_BYTES_TEXT]);

#endif
