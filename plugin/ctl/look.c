/* SPDX-License-Identifier: BSD-3-Clause */
/* stat and get: what is in the database now. */
#include <stdio.h>
#include <sys/stat.h>

#include "ctl.h"
#include "line.h"
#include "progress.h"

struct totals {
    const struct mqsync_ctl *ctl;
    struct mqsync_view *view;
    struct mqsync_buf json;
    uint64_t collections, records, tombstones;
    bool failed;
    struct mqsync_error error;
};

static uint64_t file_bytes(const char *dir, const char *name)
{
    char path[4096];
    struct stat st;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path || stat(path, &st) != 0)
        return 0;
    return (uint64_t)st.st_size;
}

/* The collection's own count of tombstones is as of the last batch that reached LMDB; the index of changes has one row
 * for each record and each tombstone, those of the log included. */
static bool add_collection(void *context, const struct mqsync_collection_stat *stat)
{
    struct totals *t = context;
    struct mqsync_walk *walk;
    if (mqsync_walk_changes(t->view, stat->name, 0, &walk, &t->error) != MQSYNC_OK) {
        t->failed = true;
        return false;
    }
    uint64_t rows = mqsync_walk_count(walk, UINT64_MAX), tombstones = rows > stat->records ? rows - stat->records : 0;
    mqsync_walk_close(walk);
    t->collections++;
    t->records += stat->records;
    t->tombstones += tombstones;
    if (!t->ctl->json) {
        if (t->collections == 1)
            printf("%-24s %12s %12s %12s\n", "collection", "records", "tombstones", "seq");
        printf("%-24.*s %12llu %12llu %12llu\n", (int)stat->name.n, stat->name.p, (unsigned long long)stat->records,
               (unsigned long long)tombstones, (unsigned long long)stat->seq);
        return true;
    }
    if (t->collections > 1)
        mqsync_buf_add_char(&t->json, ',');
    mqsync_buf_add_char(&t->json, '{');
    mqsync_line_string(&t->json, "collection", stat->name);
    mqsync_line_number(&t->json, "records", stat->records);
    mqsync_line_number(&t->json, "tombstones", tombstones);
    mqsync_line_number(&t->json, "seq", stat->seq);
    mqsync_line_number(&t->json, "oldestSeq", stat->oldest_seq);
    mqsync_buf_add_char(&t->json, '}');
    return true;
}

static void print_totals(const struct totals *t, uint64_t data_bytes, uint64_t log_bytes)
{
    char data[MQSYNC_BYTES_TEXT], log[MQSYNC_BYTES_TEXT];
    if (t->ctl->json) {
        struct mqsync_buf out = {0};
        mqsync_buf_add_char(&out, '{');
        mqsync_line_string(&out, "database", mqsync_slice_str(t->ctl->dir));
        mqsync_line_string(&out, "epoch", mqsync_slice_str(mqsync_view_epoch(t->view)));
        mqsync_line_number(&out, "records", t->records);
        mqsync_line_number(&out, "tombstones", t->tombstones);
        mqsync_line_number(&out, "databaseBytes", data_bytes);
        mqsync_line_number(&out, "logBytes", log_bytes);
        mqsync_line_raw(&out, "collections", "[");
        mqsync_buf_add_slice(&out, mqsync_buf_slice(&t->json));
        mqsync_buf_add_str(&out, "]");
        mqsync_line_end(&out);
        fwrite(out.p, 1, out.n, stdout);
        mqsync_buf_free(&out);
        return;
    }
    printf("%s%-24s %12llu %12llu\n", t->collections ? "" : "no collections yet\n", "in all",
           (unsigned long long)t->records, (unsigned long long)t->tombstones);
    printf("database %s, log files %s, epoch %s\n", mqsync_bytes_text(data_bytes, data),
           mqsync_bytes_text(log_bytes, log), mqsync_view_epoch(t->view));
}

int mqsync_ctl_stat(struct mqsync_ctl *c)
{
    struct mqsync_reader *reader;
    struct totals t = {.ctl = c};
    int status = mqsync_ctl_open(c, &reader, &t.view);
    if (status)
        return status;
    t.failed = mqsync_view_collections(t.view, add_collection, &t, &t.error) != MQSYNC_OK || t.failed;
    if (t.failed)
        status = mqsync_ctl_store_failed(&t.error);
    else
        print_totals(&t, file_bytes(c->dir, "data.mdb"),
                     file_bytes(c->dir, "log.0") + file_bytes(c->dir, "log.1") + file_bytes(c->dir, "log.2"));
    mqsync_buf_free(&t.json);
    mqsync_view_close(t.view);
    mqsync_reader_close(reader);
    return mqsync_ctl_flush(status);
}

static void print_record(const struct mqsync_ctl *c, struct mqsync_slice collection, struct mqsync_slice id,
                         const struct mqsync_record *r)
{
    struct mqsync_buf out = {0};
    if (c->json) {
        mqsync_line_begin(&out, collection, id, r);
        mqsync_line_number(&out, "seq", r->seq);
        if (r->user.n)
            mqsync_line_string(&out, "userId", r->user);
        else
            mqsync_line_raw(&out, "userId", "null");
        mqsync_line_end(&out);
        mqsync_line_print(stdout, mqsync_buf_slice(&out));
    } else {
        char time[MQSYNC_TIMESTAMP_LEN];
        mqsync_time_format(r->updated_ms, time);
        mqsync_json_add_string(&out, r->user); /* it may hold anything */
        printf("%s/%s  version %llu  seq %llu  %.*s%s%.*s\n", c->args[0], c->args[1], (unsigned long long)r->version,
               (unsigned long long)r->seq, MQSYNC_TIMESTAMP_LEN, time, r->user.n ? "  by " : "",
               r->user.n ? (int)out.n : 0, out.p);
        if (!r->deleted) {
            mqsync_line_print(stdout, r->data);
            putchar('\n');
        }
    }
    mqsync_buf_free(&out);
}

int mqsync_ctl_get(struct mqsync_ctl *c)
{
    struct mqsync_reader *reader;
    struct mqsync_view *view;
    struct mqsync_record r;
    struct mqsync_error e;
    struct mqsync_slice collection = mqsync_slice_str(c->args[0]), id = mqsync_slice_str(c->args[1]);
    if (!mqsync_collection_valid(collection))
        return mqsync_ctl_fail("\"%s\" can be no collection: expected 1 to 64 of A-Z a-z 0-9 _ . -", c->args[0]);
    if (!mqsync_record_id_valid(id))
        return mqsync_ctl_fail(
            "\"%s\" can be no record's id: expected 1 to 128 bytes without / + # and control characters", c->args[1]);
    int status = mqsync_ctl_open(c, &reader, &view);
    if (status)
        return status;
    enum mqsync_code code = mqsync_view_get(view, collection, id, &r, &e);
    if (code == MQSYNC_OK)
        print_record(c, collection, id, &r);
    if (code == MQSYNC_RECORD_NOT_FOUND || code == MQSYNC_COLLECTION_NOT_FOUND) {
        mqsync_ctl_fail("%s has no record %s", c->args[0], c->args[1]);
        status = CTL_WRONG;
    } else if (code) {
        status = mqsync_ctl_store_failed(&e);
    } else if (r.deleted) {
        mqsync_ctl_fail("%s/%s has been deleted", c->args[0], c->args[1]);
        status = CTL_WRONG;
    }
    mqsync_view_close(view);
    mqsync_reader_close(reader);
    return mqsync_ctl_flush(status);
}
