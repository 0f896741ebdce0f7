/* SPDX-License-Identifier: BSD-3-Clause */
/* import: NDJSON into a database that no broker has open. What is new keeps its version and time; what is there already
 * is replaced only by something newer, so that importing twice changes nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "ctl.h"
#include "line.h"
#include "progress.h"

#define READ_BYTES ((size_t)1 << 20)
#define LINE_MAX_BYTES ((size_t)300 << 20) /* maxRecordBytes can be 256 MiB at most */
/* Large batches are sorted before they go into LMDB and wait for the disk once. */
#define BATCH_BYTES ((size_t)8 << 20)
#define LOG_BYTES ((uint64_t)128 << 20)
#define PACE_BYTES ((uint64_t)1 << 20)
#define STALLED_MS 30000
#define KEEP_TOMBSTONES_DAYS 36500 /* forgetting is the broker's business */
#define COLLECTIONS_MAX 1000000

struct import {
    struct mqsync_ctl *ctl;
    const char *name; /* of the input, in messages */
    int fd;
    struct mqsync_buf text; /* what has been read; from `at` on it has not been looked at */
    size_t at;
    bool ended;
    uint64_t read, size, paced; /* bytes */
    struct mqsync_store *store;
    struct mqsync_collection *collection; /* of the line before */
    char collection_name[MQSYNC_MAX_COLLECTION + 1];
    struct mqsync_line_scratch scratch;
    struct mqsync_buf merged; /* of mqsync_resolve */
    struct mqsync_record stored;
    struct mqsync_outcome outcome;
    struct mqsync_progress progress;
    uint64_t line, inserted, updated, skipped, refused;
    bool unclean; /* the store said that it could not be closed properly */
};

/* --- one record ------------------------------------------------------------------------------------------------- */

static enum mqsync_code find_collection(struct import *m, struct mqsync_slice name, struct mqsync_error *e)
{
    if (m->collection && mqsync_slice_equal(name, mqsync_slice_str(m->collection_name)))
        return MQSYNC_OK;
    size_t max = m->ctl->config ? m->ctl->config->limits.max_collections : COLLECTIONS_MAX;
    enum mqsync_code code = mqsync_store_ensure(m->store, name, max, &m->collection, e);
    if (code) {
        m->collection = NULL;
        return code;
    }
    snprintf(m->collection_name, sizeof m->collection_name, "%.*s", (int)name.n, name.p);
    return MQSYNC_OK;
}

/* The record's version after the line: the file's, unless that number has been used here. */
static void set_version(struct mqsync_record *r, uint64_t version)
{
    if (version <= r->version)
        return;
    r->version = version;
    r->history[r->history_n - 1].version = version;
}

/* Without a configuration nobody knows who owned it; those who once did stay known. */
static void set_formers(struct import *m, const struct mqsync_line *line, const struct mqsync_record *stored)
{
    const struct mqsync_config *config = m->ctl->config;
    const struct mqsync_collection_config *c = config ? mqsync_config_collection(config, line->collection) : NULL;
    struct mqsync_slice before = {NULL, 0}, now = {NULL, 0};
    struct mqsync_buf text[2] = {{0}, {0}};

    if (c && c->owner) {
        before = stored ? mqsync_access_owner(c, stored->data, &text[0]) : before;
        now = mqsync_access_owner(c, m->outcome.next.data, &text[1]);
    }
    mqsync_access_formers(stored, before, now, &m->outcome.next);
    mqsync_buf_free(&text[0]);
    mqsync_buf_free(&text[1]);
}

/* Decides with the plugin's own rule. stored NULL: the id was never used. False: nothing to do. */
static bool decide(struct import *m, const struct mqsync_line *line, const struct mqsync_record *stored, uint64_t floor,
                   uint64_t seq)
{
    struct mqsync_rules rules = {.strategy = MQSYNC_LAST_WRITE_WINS};
    struct mqsync_write write = {
        .op = line->deleted ? MQSYNC_DELETE : MQSYNC_INSERT,
        .data = line->data,
        .time = {MQSYNC_TIME_EXACT, line->updated_ms},
        .arrived_ms = mqsync_time_now(),
        .reconnected_ms = INT64_MAX,
    };
    if (m->ctl->config)
        rules.max_record_bytes = m->ctl->config->limits.max_record_bytes;
    /* The rule deletes only what is there. A tombstone whose record this database never had is the end of such a
     * record. */
    struct mqsync_record gone = {.version = floor, .updated_ms = INT64_MIN};
    if (!stored && line->deleted)
        stored = &gone;
    mqsync_resolve(&rules, stored, floor, seq, &write, &m->merged, &m->outcome);
    if (m->outcome.kind != MQSYNC_ACCEPTED)
        return false;
    set_version(&m->outcome.next, line->version);
    set_formers(m, line, stored);
    return true;
}

/* MQSYNC_INVALID_MESSAGE: the line is wrong. Other errors: the store cannot. */
static enum mqsync_code apply(struct import *m, const struct mqsync_line *line, struct mqsync_error *e)
{
    uint64_t floor = 0;
    struct mqsync_collection_stat stat;
    enum mqsync_code code = find_collection(m, line->collection, e);
    if (code)
        return code;
    code = mqsync_store_get(m->store, m->collection, line->id, &m->stored, &floor, e);
    if (code != MQSYNC_OK && code != MQSYNC_RECORD_NOT_FOUND)
        return code;
    bool known = code == MQSYNC_OK;
    if (known && line->updated_ms <= m->stored.updated_ms) {
        m->skipped++;
        return MQSYNC_OK;
    }
    mqsync_collection_stat(m->collection, &stat);
    if (!decide(m, line, known ? &m->stored : NULL, floor, stat.seq + 1)) {
        enum mqsync_code why = m->outcome.error.code;
        if (m->outcome.kind == MQSYNC_REFUSED && why != MQSYNC_RECORD_NOT_FOUND)
            return mqsync_fail(e, why, "%s", m->outcome.error.text);
        m->skipped++; /* the same change, or a deletion of what is deleted */
        return MQSYNC_OK;
    }
    code = mqsync_store_put(m->store, m->collection, line->id, &m->outcome.next, e);
    if (code == MQSYNC_OK)
        *(known ? &m->updated : &m->inserted) += 1;
    return code;
}

/* --- reading the input ------------------------------------------------------------------------------------------ */

/* Reads more behind what there is. False at the end, and when it cannot (said in *e). */
static bool read_more(struct import *m, struct mqsync_error *e)
{
    if (m->at > 0) {
        memmove(m->text.p, m->text.p + m->at, m->text.n - m->at);
        m->text.n -= m->at;
        m->at = 0;
    }
    if (m->text.n > LINE_MAX_BYTES) {
        mqsync_fail(e, MQSYNC_SERVER_ERROR, "line %llu is longer than any record: this is no NDJSON",
                    (unsigned long long)m->line + 1);
        return false;
    }
    char *room = mqsync_buf_reserve(&m->text, READ_BYTES);
    ssize_t got;
    if (!room) {
        mqsync_fail(e, MQSYNC_SERVER_ERROR, "out of memory");
        return false;
    }
    do
        got = read(m->fd, room, READ_BYTES);
    while (got < 0 && errno == EINTR && !mqsync_ctl_interrupted);
    if (got < 0 && !mqsync_ctl_interrupted)
        mqsync_fail(e, MQSYNC_SERVER_ERROR, "cannot read %s: %s", m->name, strerror(errno));
    if (got <= 0)
        return false;
    m->text.n += (size_t)got;
    return true;
}

/* The next line without its newline; the last one may lack it. False at the end or with an error in *e. */
static bool next_line(struct import *m, struct mqsync_slice *ret, struct mqsync_error *e)
{
    size_t looked = 0;
    for (;;) {
        const char *from = m->text.p + m->at, *newline = NULL;
        size_t n = m->text.n - m->at;
        if (n > looked)
            newline = memchr(from + looked, '\n', n - looked);
        if (newline || (m->ended && n > 0)) {
            *ret = (struct mqsync_slice){from, newline ? (size_t)(newline - from) : n};
            m->at += ret->n + (newline != NULL);
            m->read += ret->n + (newline != NULL);
            m->line++;
            return true;
        }
        if (m->ended)
            return false;
        looked = n;
        m->ended = !read_more(m, e);
        if (e->code)
            return false;
    }
}

static bool blank(struct mqsync_slice text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != ' ' && text.p[i] != '\t' && text.p[i] != '\r')
            return false;
    }
    return true;
}

/* Waits while LMDB is behind, instead of filling the log until it refuses. */
static enum mqsync_code pace(struct import *m, struct mqsync_error *e)
{
    struct mqsync_store_stat stat;
    struct mqsync_record r;
    uint64_t floor;
    if (m->read - m->paced < PACE_BYTES)
        return MQSYNC_OK;
    m->paced = m->read;
    for (int waited = 0;; waited += 5) {
        mqsync_store_stat(m->store, &stat);
        if (stat.log_bytes < LOG_BYTES / 2)
            return MQSYNC_OK;
        if (stat.failing && waited > STALLED_MS)
            return mqsync_fail(e, MQSYNC_SERVER_ERROR, "the disk takes no more");
        nanosleep(&(struct timespec){0, 5 * 1000000}, NULL);
        /* a full map is made larger within a call of this thread */
        if (m->collection)
            mqsync_store_get(m->store, m->collection, MQSYNC_SLICE("-"), &r, &floor, e);
        mqsync_progress_update(&m->progress, m->read);
    }
}

/* --- the story -------------------------------------------------------------------------------------------------- */

static int refuse(struct import *m, const struct mqsync_error *e)
{
    m->refused++;
    mqsync_progress_clear(&m->progress);
    mqsync_ctl_fail("%s:%llu: %s", m->name, (unsigned long long)m->line, e->text);
    return CTL_WRONG;
}

static int import_lines(struct import *m)
{
    struct mqsync_slice text;
    struct mqsync_error e = {.code = MQSYNC_OK};
    int status = CTL_DONE;
    while (!mqsync_ctl_interrupted && next_line(m, &text, &e)) {
        struct mqsync_line line;
        if (blank(text))
            continue;
        enum mqsync_code code = mqsync_line_parse(text, &m->scratch, &line, &e);
        if (code == MQSYNC_OK)
            code = apply(m, &line, &e);
        if (code == MQSYNC_INVALID_MESSAGE || code == MQSYNC_COLLECTION_NOT_FOUND) {
            status = refuse(m, &e);
            if (!m->ctl->keep_going)
                return status;
            code = MQSYNC_OK;
        }
        if (code == MQSYNC_OK)
            code = pace(m, &e);
        if (code) {
            mqsync_progress_clear(&m->progress);
            return mqsync_ctl_fail("%s:%llu: %s", m->name, (unsigned long long)m->line, e.text);
        }
        e.code = MQSYNC_OK;
        mqsync_progress_update(&m->progress, m->read);
    }
    if (e.code || mqsync_ctl_interrupted) {
        mqsync_progress_clear(&m->progress);
        return mqsync_ctl_fail("%s",
                               e.code ? e.text : "interrupted; import it again, and what is there already is skipped");
    }
    return status;
}

static void log_line(void *context, enum mqsync_log_level level, const char *id, const char *text)
{
    struct import *m = context;
    if (level == MQSYNC_LOG_INFO)
        return;
    m->unclean |= level == MQSYNC_LOG_ERROR && strcmp(id, "MQS2004") == 0;
    mqsync_progress_clear(&m->progress);
    fprintf(stderr, "mqsyncctl: %s %s\n", id, text);
}

static void report(const struct import *m, int status)
{
    if (m->ctl->json)
        printf(
            "{\"lines\":%llu,\"inserted\":%llu,\"updated\":%llu,\"skipped\":%llu,\"refused\":%llu,\"complete\":%s}\n",
            (unsigned long long)m->line, (unsigned long long)m->inserted, (unsigned long long)m->updated,
            (unsigned long long)m->skipped, (unsigned long long)m->refused,
            status == CTL_DONE || (status == CTL_WRONG && m->ctl->keep_going) ? "true" : "false");
    else if (!m->ctl->quiet)
        printf("%llu lines: %llu records new, %llu updated, %llu skipped (not newer than what is here), %llu lines "
               "refused%s\n",
               (unsigned long long)m->line, (unsigned long long)m->inserted, (unsigned long long)m->updated,
               (unsigned long long)m->skipped, (unsigned long long)m->refused,
               status == CTL_WRONG && !m->ctl->keep_going ? "; stopped at the first (--keep-going goes on)" : "");
}

static int open_input(struct import *m)
{
    struct stat st;
    m->name = m->ctl->args_n ? m->ctl->args[0] : "-";
    if (strcmp(m->name, "-") == 0) {
        m->fd = STDIN_FILENO;
        m->name = "stdin";
    } else {
        m->fd = open(m->name, O_RDONLY | O_CLOEXEC);
    }
    if (m->fd < 0 || fstat(m->fd, &st) != 0)
        return mqsync_ctl_fail("cannot read %s: %s", m->name, strerror(errno));
    m->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    return CTL_DONE;
}

static int import_all(struct import *m)
{
    struct mqsync_error e;
    struct mqsync_store_options options = {
        .dir = m->ctl->dir,
        .durability = MQSYNC_DURABILITY_PROCESS, /* all is on the disk when the store has been closed */
        .tombstone_days = KEEP_TOMBSTONES_DAYS,
        .sync_interval_ms = 1000,
        .batch_bytes = BATCH_BYTES,
        .log_limit = LOG_BYTES,
        .log = log_line,
        .log_context = m,
    };
    if (mqsync_store_open(&options, &m->store, &e) != MQSYNC_OK)
        return mqsync_ctl_store_failed(&e);
    mqsync_ctl_catch_interrupts();
    mqsync_progress_begin(&m->progress, m->ctl->quiet, "import", MQSYNC_UNIT_BYTES, m->size);
    int status = import_lines(m);
    if (status == CTL_FAILED || (status == CTL_WRONG && !m->ctl->keep_going))
        m->progress.shown = false;
    mqsync_store_close(m->store);
    mqsync_ctl_give_files(m->ctl->dir);
    mqsync_progress_finish(&m->progress);
    report(m, status);
    return m->unclean ? CTL_FAILED : mqsync_ctl_flush(status);
}

int mqsync_ctl_import(struct mqsync_ctl *c)
{
    struct import m = {.ctl = c};
    int status = open_input(&m);
    if (status == CTL_DONE)
        status = import_all(&m);
    if (m.fd > STDIN_FILENO)
        close(m.fd);
    mqsync_buf_free(&m.text);
    mqsync_buf_free(&m.merged);
    mqsync_line_scratch_free(&m.scratch);
    return status;
}
