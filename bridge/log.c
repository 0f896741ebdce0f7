/* SPDX-License-Identifier: BSD-3-Clause */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "error.h"
#include "timestamp.h"

enum { IDS_MAX = 256, LINES_A_SECOND = 20 };

/* By the last three digits of an id. */
static struct {
    int64_t second;
    unsigned lines, kept_back;
} said[IDS_MAX];

void mqsync_log(enum mqsync_log_level level, const char *id, const char *fmt, ...)
{
    static const char *const names[] = {
        [MQSYNC_LOG_INFO] = "info", [MQSYNC_LOG_WARNING] = "warning", [MQSYNC_LOG_ERROR] = "error"};
    unsigned i = (unsigned)atoi(id + 4) % IDS_MAX;
    int64_t now = mqsync_time_now();
    char text[600], time[MQSYNC_TIMESTAMP_LEN];
    va_list args;

    if (said[i].second != now / 1000) {
        if (said[i].kept_back)
            fprintf(stderr, "mqsync-bridge %s: %u more lines like this were kept back\n", id, said[i].kept_back);
        said[i].second = now / 1000;
        said[i].lines = said[i].kept_back = 0;
    }
    if (said[i].lines++ >= LINES_A_SECOND) {
        said[i].kept_back++;
        return;
    }
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    mqsync_text_tame(text);
    mqsync_time_format(now, time);
    fprintf(stderr, "%.*s %s mqsync-bridge %s: %s\n", MQSYNC_TIMESTAMP_LEN, time, names[level], id, text);
}
