/* SPDX-License-Identifier: BSD-3-Clause */
#include "retain.h"

#include <inttypes.h>
#include <stdlib.h>

#include "answer.h"
#include "log.h"

enum {
    RECORD_QOS = 1,
    SLICE_RECORDS = 256,
    SLICE_BYTES = 1 << 20,
    SLICE_US = 2000,
    PAUSE_US = 10000,
    RETRY_US = 1000000, /* when memory or disk have failed */
};

struct job {
    struct job *next;
    bool clear;
    char collection[MQSYNC_MAX_COLLECTION + 1];
    char after[MQSYNC_MAX_RECORD_ID + 1]; /* the last id that has been dealt with */
};

struct mqsync_retainer {
    struct job *first;
    uint64_t published;
    int64_t next_us; /* not before: what else the broker has to do comes first */
    bool missed;     /* something is not in the list that ought to be: all of them are */
    bool complained;
};

struct mqsync_retainer *mqsync_retainer_alloc(void)
{
    return calloc(1, sizeof(struct mqsync_retainer));
}

static void drop_first(struct mqsync_retainer *t)
{
    struct job *job = t->first;
    t->first = job->next;
    free(job);
}

void mqsync_retainer_free(struct mqsync_retainer *t)
{
    if (!t)
        return;
    while (t->first)
        drop_first(t);
    free(t);
}

bool mqsync_retain_compose(struct mqsync_plugin *p, struct mqsync_slice id, const struct mqsync_record *record)
{
    struct mqsync_buf *out = &p->scratch.record;
    char time[MQSYNC_TIMESTAMP_LEN];

    mqsync_buf_clear(out);
    if (record->deleted)
        return true;
    mqsync_buf_add_str(out, "{\"id\":");
    mqsync_json_add_string(out, id);
    mqsync_buf_add_str(out, ",\"data\":");
    mqsync_buf_add_slice(out, record->data);
    mqsync_buf_add_str(out, ",\"version\":");
    mqsync_buf_add_u64(out, record->version);
    mqsync_buf_add_str(out, ",\"updatedAt\":\"");
    mqsync_time_format(record->updated_ms, time);
    mqsync_buf_add(out, time, sizeof(time));
    mqsync_buf_add_str(out, "\"}");
    return !out->failed;
}

bool mqsync_retain_publish(struct mqsync_plugin *p, struct mqsync_slice collection, struct mqsync_slice id)
{
    const char *topic = mqsync_answer_record_topic(p, collection, "rec", id);

    /* publish_copy copies from its argument even when there is nothing to copy */
    return topic && mosquitto_broker_publish_copy(NULL, topic, (int)p->scratch.record.n,
                                                  p->scratch.record.n ? p->scratch.record.p : "", RECORD_QOS, true,
                                                  NULL) != MOSQ_ERR_NOMEM;
}

void mqsync_retain_missed(struct mqsync_plugin *p)
{
    p->retainer->missed = true;
}

static void complain(struct mqsync_retainer *t, const char *collection, const struct mqsync_error *error)
{
    t->next_us = mqsync_monotonic_us() + RETRY_US;
    if (!t->complained)
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1015", "retained records of %s are not brought up to date yet: %s", collection,
                   error->text);
    t->complained = true;
}

struct starting {
    struct mqsync_plugin *plugin;
    const struct mqsync_config *before;
};

static bool is_retained(const struct mqsync_config *c, struct mqsync_slice name)
{
    const struct mqsync_collection_config *collection = c ? mqsync_config_collection(c, name) : NULL;
    return collection && collection->retain;
}

/* What has been begun goes on, unless the collection is to be begun anew, or the other way round. */
static void drop_changed(const struct starting *s)
{
    struct job **at = &s->plugin->retainer->first;

    while (*at) {
        struct job *job = *at;
        struct mqsync_slice name = mqsync_slice_str(job->collection);
        if (is_retained(s->plugin->config, name) == is_retained(s->before, name)) {
            at = &job->next;
        } else {
            *at = job->next;
            free(job);
        }
    }
}

static bool queue_collection(void *context, const struct mqsync_collection_stat *stat)
{
    struct starting *s = context;
    bool now = is_retained(s->plugin->config, stat->name);

    if (now == is_retained(s->before, stat->name) || stat->name.n > MQSYNC_MAX_COLLECTION)
        return true;
    struct job *job = calloc(1, sizeof(*job));
    if (!job) {
        s->plugin->retainer->missed = true;
        return false;
    }
    memcpy(job->collection, stat->name.p, stat->name.n);
    job->clear = !now;
    job->next = s->plugin->retainer->first;
    s->plugin->retainer->first = job;
    return true;
}

void mqsync_retain_start(struct mqsync_plugin *p, const struct mqsync_config *before)
{
    struct starting s = {p, before};
    struct mqsync_view *view;
    struct mqsync_error error;

    drop_changed(&s);
    enum mqsync_code code = mqsync_view_newest(p->store, &view, &error);
    if (code == MQSYNC_OK) {
        code = mqsync_view_collections(view, queue_collection, &s, &error);
        mqsync_view_close(view);
    }
    if (code != MQSYNC_OK) {
        p->retainer->missed = true;
        complain(p->retainer, "all collections", &error);
    }
}

/* Publishes records from job->after on until the slice is over. Returns MQSYNC_RECORD_NOT_FOUND at the collection's
 * end. */
static enum mqsync_code walk_slice(struct mqsync_plugin *p, struct job *job, struct mqsync_walk *walk,
                                   struct mqsync_error *ret_error)
{
    int64_t until = mqsync_monotonic_us() + SLICE_US;
    struct mqsync_record *record = &p->scratch.stored;
    struct mqsync_slice id, collection = mqsync_slice_str(job->collection);
    size_t bytes = 0;

    for (unsigned n = 0; n < SLICE_RECORDS && bytes < SLICE_BYTES && mqsync_monotonic_us() < until; n++) {
        enum mqsync_code code = mqsync_walk_next(walk, &id, record, ret_error);
        if (code != MQSYNC_OK)
            return code;
        if (id.n > MQSYNC_MAX_RECORD_ID || mqsync_slice_equal(id, mqsync_slice_str(job->after)))
            continue;
        if (job->clear)
            mqsync_buf_clear(&p->scratch.record);
        else if (!mqsync_retain_compose(p, id, record))
            return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
        if (!mqsync_retain_publish(p, collection, id))
            return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
        p->retainer->published++;
        bytes += p->scratch.record.n;
        memcpy(job->after, id.p, id.n);
        job->after[id.n] = '\0';
    }
    return MQSYNC_OK;
}

void mqsync_retain_continue(struct mqsync_plugin *p)
{
    struct job *job;
    struct mqsync_view *view;
    struct mqsync_walk *walk = NULL;
    struct mqsync_error error;
    enum mqsync_code code;

    if (mqsync_monotonic_us() < p->retainer->next_us)
        return;
    if (p->retainer->missed && !p->retainer->first) {
        p->retainer->missed = false;
        mqsync_retain_start(p, NULL);
    }
    job = p->retainer->first;
    if (!job)
        return;
    code = mqsync_view_newest(p->store, &view, &error);
    if (code == MQSYNC_OK) {
        code =
            mqsync_walk_records(view, mqsync_slice_str(job->collection), mqsync_slice_str(job->after), &walk, &error);
        if (code == MQSYNC_OK)
            code = walk_slice(p, job, walk, &error);
        mqsync_walk_close(walk);
        mqsync_view_close(view);
    }
    p->retainer->next_us = mqsync_monotonic_us() + PAUSE_US;
    if (code == MQSYNC_OK)
        return;
    if (code != MQSYNC_RECORD_NOT_FOUND) {
        complain(p->retainer, job->collection, &error);
        return;
    }
    drop_first(p->retainer);
    p->retainer->complained = false;
    if (!p->retainer->first) {
        mqsync_log(MQSYNC_LOG_INFO, "MQS1012", "retained records are up to date (%" PRIu64 " published)",
                   p->retainer->published);
        p->retainer->published = 0;
    }
}

bool mqsync_retain_busy(const struct mqsync_retainer *t)
{
    return t->first || t->missed;
}
