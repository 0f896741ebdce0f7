/* SPDX-License-Identifier: BSD-3-Clause */
/* watch: follows the changes of one collection, across restarts of the broker and restored backups. */
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "ctl.h"
#include "line.h"
#include "message.h"

#define LOOK_EVERY_MS 100

struct watch {
    const struct mqsync_ctl *ctl;
    struct mqsync_slice collection;
    struct mqsync_reader *reader; /* NULL: to be opened (again) */
    ino_t file;                   /* that the reader has open: a restore puts another one in its place */
    uint64_t since;
    char epoch[MQSYNC_EPOCH_SIZE]; /* empty: not known yet */
    bool complained;
    struct mqsync_buf out;
};

static ino_t database_file(const char *dir)
{
    char path[4096];
    struct stat st;
    return snprintf(path, sizeof path, "%s/data.mdb", dir) < (int)sizeof path && stat(path, &st) == 0 ? st.st_ino : 0;
}

static void print_start(struct watch *w)
{
    if (w->ctl->json) {
        mqsync_buf_add_char(&w->out, '{');
        mqsync_line_string(&w->out, "collection", w->collection);
        mqsync_line_string(&w->out, "epoch", mqsync_slice_str(w->epoch));
        mqsync_line_number(&w->out, "seq", w->since);
        mqsync_line_end(&w->out);
    } else if (!w->ctl->quiet) {
        fprintf(stderr, "%s: changes after seq %llu, epoch %s; Ctrl-C ends\n", w->ctl->args[0],
                (unsigned long long)w->since, w->epoch);
    }
}

static void print_change(struct watch *w, struct mqsync_slice id, const struct mqsync_record *r)
{
    const struct mqsync_change *last = &r->history[r->history_n - 1];
    const char *what = mqsync_op_name(r->deleted ? MQSYNC_DELETE : last->created ? MQSYNC_INSERT : MQSYNC_UPDATE);
    char time[MQSYNC_TIMESTAMP_LEN];
    if (w->ctl->json) {
        mqsync_line_begin(&w->out, w->collection, id, r);
        mqsync_line_string(&w->out, "type", mqsync_slice_str(what));
        mqsync_line_number(&w->out, "seq", r->seq);
        if (r->user.n)
            mqsync_line_string(&w->out, "userId", r->user);
        else
            mqsync_line_raw(&w->out, "userId", "null");
        mqsync_line_end(&w->out);
        return;
    }
    mqsync_time_format(r->updated_ms, time);
    printf("%8llu  %.*s  %s %.*s  version %llu  ", (unsigned long long)r->seq, MQSYNC_TIMESTAMP_LEN, time, what,
           (int)id.n, id.p, (unsigned long long)r->version);
    mqsync_line_print(stdout, r->data);
    putchar('\n');
}

static enum mqsync_code print_changes(struct watch *w, struct mqsync_view *view, struct mqsync_error *e)
{
    struct mqsync_walk *walk;
    struct mqsync_slice id;
    struct mqsync_record r;
    enum mqsync_code code = mqsync_walk_changes(view, w->collection, w->since, &walk, e);
    if (code)
        return code;
    while ((code = mqsync_walk_next(walk, &id, &r, e)) == MQSYNC_OK && !mqsync_ctl_interrupted) {
        print_change(w, id, &r);
        w->since = r.seq;
        if (w->out.n > 65536) {
            mqsync_line_print(stdout, mqsync_buf_slice(&w->out));
            mqsync_buf_clear(&w->out);
        }
    }
    mqsync_walk_close(walk);
    return code == MQSYNC_RECORD_NOT_FOUND ? MQSYNC_OK : code;
}

/* Where to go on: a seq of another epoch says nothing here. */
static void take_epoch(struct watch *w, struct mqsync_view *view, uint64_t seq)
{
    bool first = w->epoch[0] == '\0';
    if (!first && strcmp(w->epoch, mqsync_view_epoch(view)) == 0)
        return;
    snprintf(w->epoch, sizeof w->epoch, "%s", mqsync_view_epoch(view));
    w->since = first && w->ctl->has_since ? w->ctl->since : seq;
    if (!first)
        fprintf(stderr,
                "mqsyncctl: the database has a new epoch: its history may have moved back; following from seq %llu\n",
                (unsigned long long)w->since);
    print_start(w);
}

static enum mqsync_code look(struct watch *w, struct mqsync_error *e)
{
    struct mqsync_view *view;
    struct mqsync_collection_stat stat = {.seq = 0};
    enum mqsync_code code = MQSYNC_OK;
    if (w->reader && database_file(w->ctl->dir) != w->file) {
        mqsync_reader_close(w->reader);
        w->reader = NULL;
    }
    if (!w->reader) {
        w->file = database_file(w->ctl->dir);
        code = mqsync_reader_open(w->ctl->dir, &w->reader, e);
        mqsync_ctl_give_files(w->ctl->dir);
    }
    if (code == MQSYNC_OK)
        code = mqsync_reader_view(w->reader, &view, e);
    if (code)
        return code;
    mqsync_view_collection(view, w->collection, &stat);
    take_epoch(w, view, stat.seq);
    if (stat.seq > w->since)
        code = print_changes(w, view, e);
    mqsync_view_close(view);
    mqsync_line_print(stdout, mqsync_buf_slice(&w->out));
    mqsync_buf_clear(&w->out);
    return code;
}

int mqsync_ctl_watch(struct mqsync_ctl *c)
{
    struct watch w = {.ctl = c, .collection = mqsync_slice_str(c->args[0])};
    struct mqsync_error e;
    int status = CTL_DONE;
    if (!mqsync_collection_valid(w.collection))
        return mqsync_ctl_fail("\"%s\" can be no collection: expected 1 to 64 of A-Z a-z 0-9 _ . -", c->args[0]);
    mqsync_ctl_catch_interrupts();
    while (!mqsync_ctl_interrupted && status == CTL_DONE) {
        enum mqsync_code code = look(&w, &e);
        if (code && w.epoch[0] == '\0')
            status = mqsync_ctl_store_failed(&e);
        else if (code && !w.complained) /* it was there: wait until it is again */
            mqsync_ctl_store_failed(&e);
        w.complained = code != MQSYNC_OK;
        if (status == CTL_DONE)
            status = mqsync_ctl_flush(CTL_DONE);
        if (status == CTL_DONE && !mqsync_ctl_interrupted)
            nanosleep(&(struct timespec){0, LOOK_EVERY_MS * 1000000}, NULL);
    }
    mqsync_reader_close(w.reader);
    mqsync_buf_free(&w.out);
    return status;
}
