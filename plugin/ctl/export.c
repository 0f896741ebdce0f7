/* SPDX-License-Identifier: BSD-3-Clause */
/* export: one moment of the database as NDJSON. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"
#include "line.h"
#include "progress.h"

#define WRITE_BYTES ((size_t)256 * 1024)

struct export
{
    const struct mqsync_ctl *ctl;
    struct mqsync_view *view;
    FILE *out;
    char *part; /* where a file is written until it is complete; NULL: straight to out */
    struct mqsync_buf lines;
    struct mqsync_progress progress;
    uint64_t records, tombstones, damaged;
    bool uneven;           /* a collection holds more or fewer records than it counts */
    enum mqsync_code code; /* sticky */
    struct mqsync_error error;
};

static void write_lines(struct export *x)
{
    if (x->lines.failed)
        x->code = mqsync_fail(&x->error, MQSYNC_SERVER_ERROR, "out of memory");
    else
        mqsync_line_print(x->out, mqsync_buf_slice(&x->lines));
    if (ferror(x->out))
        x->code = mqsync_fail(&x->error, MQSYNC_SERVER_ERROR, "cannot write: %s", strerror(errno));
    mqsync_buf_clear(&x->lines);
}

static void export_record(struct export *x, struct mqsync_slice collection, struct mqsync_slice id,
                          const struct mqsync_record *r)
{
    struct mqsync_json_info info;
    if (r->deleted && !x->ctl->deleted)
        return;
    if (!r->deleted && (mqsync_json_check(r->data, &info, NULL) != MQSYNC_OK || info.type != MQSYNC_JSON_OBJECT)) {
        x->damaged++;
        mqsync_progress_clear(&x->progress);
        mqsync_ctl_fail("%.*s/%.*s is damaged and left out: its data is not a JSON object", (int)collection.n,
                        collection.p, (int)id.n, id.p);
        return;
    }
    mqsync_line_begin(&x->lines, collection, id, r);
    mqsync_line_end(&x->lines);
    *(r->deleted ? &x->tombstones : &x->records) += 1;
    if (x->lines.n >= WRITE_BYTES)
        write_lines(x);
    mqsync_progress_update(&x->progress, x->records + x->tombstones);
}

/* Where LMDB's tree is damaged a walk may pass records by, or find what is none, and end without an error. */
static void check_count(struct export *x, const struct mqsync_collection_stat *stat, uint64_t seen)
{
    if (seen == stat->records)
        return;
    x->uneven = true;
    mqsync_progress_clear(&x->progress);
    mqsync_ctl_fail("%.*s is damaged: it counts %llu records, %llu were found; mqsyncctl check says more",
                    (int)stat->name.n, stat->name.p, (unsigned long long)stat->records, (unsigned long long)seen);
}

static bool export_collection(void *context, const struct mqsync_collection_stat *stat)
{
    struct export *x = context;
    struct mqsync_walk *walk;
    struct mqsync_slice id;
    struct mqsync_record r;
    uint64_t before = x->records + x->damaged;
    x->code = mqsync_walk_records(x->view, stat->name, (struct mqsync_slice){"", 0}, &walk, &x->error);
    if (x->code)
        return false;
    while (x->code == MQSYNC_OK && !mqsync_ctl_interrupted) {
        enum mqsync_code code = mqsync_walk_next(walk, &id, &r, &x->error);
        if (code == MQSYNC_RECORD_NOT_FOUND)
            break;
        if (code)
            x->code = code;
        else
            export_record(x, stat->name, id, &r);
    }
    mqsync_walk_close(walk);
    if (x->code || mqsync_ctl_interrupted)
        return false;
    check_count(x, stat, x->records + x->damaged - before);
    return true;
}

static bool count_collection(void *context, const struct mqsync_collection_stat *stat)
{
    *(uint64_t *)context += stat->records;
    return true;
}

/* A regular file gets its name when it is complete. What else stands there (a device, a pipe, a link such as
 * /dev/stdout) is written to, and never replaced. */
static int open_output(struct export *x)
{
    const char *name = x->ctl->output;
    struct stat st;
    x->out = stdout;
    if (!name || strcmp(name, "-") == 0)
        return CTL_DONE;
    if (lstat(name, &st) != 0 || S_ISREG(st.st_mode)) {
        x->part = malloc(strlen(name) + sizeof ".part");
        if (!x->part)
            return mqsync_ctl_fail("out of memory");
        sprintf(x->part, "%s.part", name);
    }
    x->out = fopen(x->part ? x->part : name, "we");
    if (!x->out)
        return mqsync_ctl_fail("cannot write %s: %s", x->part ? x->part : name, strerror(errno));
    return CTL_DONE;
}

static int close_output(struct export *x, int status)
{
    if (x->out == stdout)
        return mqsync_ctl_flush(status);
    bool ok = fflush(x->out) == 0 && (!x->part || fsync(fileno(x->out)) == 0);
    ok = fclose(x->out) == 0 && ok;
    if (x->part && ok && status != CTL_FAILED)
        ok = rename(x->part, x->ctl->output) == 0;
    if (!ok)
        status = mqsync_ctl_fail("cannot write %s: %s", x->ctl->output, strerror(errno));
    if (x->part && status == CTL_FAILED)
        unlink(x->part);
    return status;
}

static void report(const struct export *x)
{
    if (x->out == stdout)
        return; /* that is where the records went */
    if (x->ctl->json)
        printf("{\"records\":%llu,\"tombstones\":%llu,\"damaged\":%llu}\n", (unsigned long long)x->records,
               (unsigned long long)x->tombstones, (unsigned long long)x->damaged);
    else if (!x->ctl->quiet)
        printf("exported %llu records and %llu tombstones to %s\n", (unsigned long long)x->records,
               (unsigned long long)x->tombstones, x->ctl->output);
}

static void each_collection(struct export *x, bool (*each)(void *, const struct mqsync_collection_stat *),
                            void *context)
{
    enum mqsync_code code = mqsync_view_collections(x->view, each, context, &x->error);
    if (code != MQSYNC_OK)
        x->code = code;
}

static int export_all(struct export *x)
{
    struct mqsync_collection_stat one;
    const char *name = x->ctl->args_n ? x->ctl->args[0] : NULL;
    uint64_t total = 0;
    if (name && !mqsync_view_collection(x->view, mqsync_slice_str(name), &one)) {
        mqsync_ctl_fail("there is no collection \"%s\"; mqsyncctl stat lists them", name);
        return CTL_WRONG;
    }
    int status = open_output(x);
    if (status)
        return status;
    if (name)
        total = one.records;
    else
        each_collection(x, count_collection, &total);
    mqsync_ctl_catch_interrupts();
    /* records that go to the terminal would run into the bar */
    mqsync_progress_begin(&x->progress, x->ctl->quiet || (x->out == stdout && isatty(STDOUT_FILENO)), "export",
                          MQSYNC_UNIT_RECORDS, total);
    if (name)
        export_collection(x, &one);
    else
        each_collection(x, export_collection, x);
    if (x->code == MQSYNC_OK)
        write_lines(x);
    if (x->code || mqsync_ctl_interrupted)
        mqsync_progress_clear(&x->progress);
    else
        mqsync_progress_finish(&x->progress);
    if (x->code)
        status = mqsync_ctl_store_failed(&x->error);
    else if (mqsync_ctl_interrupted)
        status = mqsync_ctl_fail("interrupted: the export is not complete");
    else if (x->damaged || x->uneven)
        status = CTL_WRONG;
    status = close_output(x, status);
    if (status != CTL_FAILED)
        report(x);
    return status;
}

int mqsync_ctl_export(struct mqsync_ctl *c)
{
    struct mqsync_reader *reader;
    struct export x = {.ctl = c};
    int status = mqsync_ctl_open(c, &reader, &x.view);
    if (status)
        return status;
    status = export_all(&x);
    free(x.part);
    mqsync_buf_free(&x.lines);
    mqsync_view_close(x.view);
    mqsync_reader_close(reader);
    return status;
}
