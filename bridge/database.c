/* SPDX-License-Identifier: BSD-3-Clause */
#include "database.h"

#include "log.h"

enum { OLD_US = 100000, SHARE = 2, WAIT_MAX_US = 200000 };

static void drop_view(struct mqsync_database *d)
{
    mqsync_view_close(d->view);
    d->view = NULL;
}

static enum mqsync_code open_view(struct mqsync_database *d, struct mqsync_error *ret_error)
{
    enum mqsync_code code = MQSYNC_OK;
    int64_t begin = mqsync_monotonic_us();

    if (!d->reader)
        code = mqsync_reader_open(d->dir, &d->reader, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_reader_view(d->reader, &d->view, ret_error);
    if (code != MQSYNC_OK)
        return code;
    d->opened_us = begin;
    d->cost_us = mqsync_monotonic_us() - begin;
    return MQSYNC_OK;
}

struct mqsync_view *mqsync_database_view(struct mqsync_database *d, int64_t now_us, bool old, int64_t *ret_wait_us)
{
    struct mqsync_error error;
    int64_t rest = d->cost_us * SHARE > WAIT_MAX_US ? WAIT_MAX_US : d->cost_us * SHARE;

    *ret_wait_us = 0;
    if (old && d->view && now_us - d->opened_us < OLD_US)
        return d->view;
    if (now_us - d->opened_us < rest) {
        *ret_wait_us = rest - (now_us - d->opened_us);
        return NULL;
    }
    drop_view(d);
    if (open_view(d, &error) == MQSYNC_OK) {
        d->complained = false;
        return d->view;
    }
    if (!d->complained)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3014", "cannot read the database, asking the broker instead: %s",
                   error.text);
    d->complained = true;
    mqsync_database_reopen(d);
    return NULL;
}

void mqsync_database_rest(struct mqsync_database *d, int64_t now_us)
{
    if (d->view && now_us - d->opened_us >= OLD_US)
        drop_view(d);
}

void mqsync_database_reopen(struct mqsync_database *d)
{
    drop_view(d);
    mqsync_reader_close(d->reader);
    d->reader = NULL;
    d->opened_us = d->cost_us = 0;
}
