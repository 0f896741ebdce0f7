/* SPDX-License-Identifier: BSD-3-Clause */
#include "retain.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "answer.h"
#include "log.h"

#define NOTE_NAME "retained"

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
    struct mqsync_config *noted; /* what the note in the database's directory says; NULL: there is none */
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
    mqsync_config_free(t->noted);
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

static bool is_retained(const struct mqsync_config *c, struct mqsync_slice name)
{
    const struct mqsync_collection_config *collection = c ? mqsync_config_collection(c, name) : NULL;
    return collection && collection->retain;
}

/* --- the note: a configuration of the collections that may have retained messages ---------------------------------
 * A broker with persistence comes back with those of a collection whose retain was switched off meanwhile, and tells
 * no plugin that it has them. */

static bool is_named(const struct mqsync_config *c, struct mqsync_slice name)
{
    const struct mqsync_collection_config *collection = mqsync_config_collection(c, name);
    return collection && mqsync_slice_equal(mqsync_slice_str(collection->name), name);
}

/* What a retains or b does (NULL: nothing). Empty: nobody retains anything. */
static void compose_note(struct mqsync_buf *out, const struct mqsync_config *a, const struct mqsync_config *b)
{
    const struct mqsync_config *sides[] = {a, b};
    bool any = false;

    mqsync_buf_clear(out);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; sides[side] && i < sides[side]->collections_n; i++) {
            struct mqsync_slice name = mqsync_slice_str(sides[side]->collections[i].name);
            bool retain = is_retained(a, name) || is_retained(b, name);
            if (side == 1 && a && is_named(a, name))
                continue;
            mqsync_buf_add_str(out, out->n ? ",\n  \"" : "{\"collections\": {\n  \"");
            mqsync_buf_add_slice(out, name);
            mqsync_buf_add_str(out, retain ? "\": {\"retain\": true}" : "\": {\"retain\": false}");
            any = any || retain;
        }
    }
    if (any)
        mqsync_buf_add_str(out, "\n}}\n");
    else if (!out->failed)
        mqsync_buf_clear(out);
}

static bool write_file(const char *path, const char *temporary, struct mqsync_slice text)
{
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    bool ok = fd >= 0 && write(fd, text.p, text.n) == (ssize_t)text.n;

    if (fd >= 0 && close(fd) != 0)
        ok = false;
    return ok && rename(temporary, path) == 0;
}

/* Makes the note say what a retains or b does, unless it does so already. */
static void note(struct mqsync_plugin *p, const struct mqsync_config *a, const struct mqsync_config *b)
{
    struct mqsync_retainer *t = p->retainer;
    struct mqsync_buf now = {0}, *before = &p->scratch.record;
    struct mqsync_config *noted = NULL;
    struct mqsync_error error;
    char *path = NULL, *temporary = NULL;
    bool ok;

    compose_note(before, t->noted, NULL);
    compose_note(&now, a, b);
    ok = !now.failed && !before->failed;
    if (ok && mqsync_slice_equal(mqsync_buf_slice(&now), mqsync_buf_slice(before))) {
        mqsync_buf_free(&now);
        return;
    }
    errno = ENOMEM;
    ok = ok && asprintf(&path, "%s/" NOTE_NAME, p->dir) >= 0 && asprintf(&temporary, "%s.tmp", path) >= 0 &&
         (now.n == 0 || mqsync_config_parse(mqsync_buf_slice(&now), path, &noted, &error) == MQSYNC_OK) &&
         (now.n == 0 ? unlink(path) == 0 || errno == ENOENT : write_file(path, temporary, mqsync_buf_slice(&now)));
    if (ok) {
        mqsync_config_free(t->noted);
        t->noted = noted;
    } else {
        mqsync_log(MQSYNC_LOG_WARNING, "MQS1027", "cannot note in %s which collections are retained: %s", p->dir,
                   strerror(errno));
        mqsync_config_free(noted);
    }
    free(path);
    free(temporary);
    mqsync_buf_free(&now);
}

/* One that cannot be read is as good as none. */
static void read_note(struct mqsync_plugin *p)
{
    struct mqsync_error error;
    char *path;

    if (asprintf(&path, "%s/" NOTE_NAME, p->dir) < 0)
        return;
    if (access(path, F_OK) == 0 && mqsync_config_load(path, &p->retainer->noted, &error) != MQSYNC_OK)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS1027", "which collections were retained is not known: %s", error.text);
    free(path);
}

/* --- what is to be brought up to date ------------------------------------------------------------------------------
 */

struct starting {
    struct mqsync_plugin *plugin;
    const struct mqsync_config *before;
    bool all; /* what was retained before too: the broker may have lost it */
};

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
    bool stays = now == is_retained(s->before, stat->name);

    if ((stays && !(now && s->all)) || stat->name.n > MQSYNC_MAX_COLLECTION)
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

static void queue_collections(struct starting s)
{
    struct mqsync_plugin *p = s.plugin;
    struct mqsync_view *view;
    struct mqsync_error error;

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

void mqsync_retain_start(struct mqsync_plugin *p)
{
    read_note(p);
    queue_collections((struct starting){p, p->retainer->noted, true});
    note(p, p->retainer->noted, p->config);
}

void mqsync_retain_reload(struct mqsync_plugin *p, const struct mqsync_config *before)
{
    struct starting s = {p, before, false};

    drop_changed(&s);
    queue_collections(s);
    note(p, p->retainer->noted, p->config);
}

void mqsync_retain_stop(struct mqsync_plugin *p)
{
    /* What is not retained any more has been cleared, and the broker has written that down: it stops in order. */
    if (!mqsync_retain_busy(p->retainer))
        note(p, p->config, NULL);
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
        queue_collections((struct starting){p, p->retainer->noted, true});
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
