/* SPDX-License-Identifier: BSD-3-Clause */
/* check, backup, restore, compact: what is done to a whole database. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "ctl.h"
#include "line.h"
#include "progress.h"

/* --- check ------------------------------------------------------------------------------------------------------ */

struct findings {
    bool json;
    struct mqsync_buf list;
};

static void add_finding(void *context, const char *text)
{
    struct findings *f = context;
    if (!f->json) {
        printf("%s\n", text);
        fflush(stdout); /* what comes next may be worse */
        return;
    }
    if (f->list.n)
        mqsync_buf_add_char(&f->list, ',');
    mqsync_json_add_string(&f->list, mqsync_slice_str(text));
}

int mqsync_ctl_check(struct mqsync_ctl *c)
{
    struct findings f = {.json = c->json};
    struct mqsync_error e;
    uint64_t wrong = 0;
    enum mqsync_code code = mqsync_store_check(c->dir, add_finding, &f, &wrong, &e);
    mqsync_ctl_give_files(c->dir);
    /* what LMDB itself says of damage is a finding, too; that there is no database is none */
    if (code && !strstr(e.text, "damaged")) {
        mqsync_buf_free(&f.list);
        return mqsync_ctl_store_failed(&e);
    }
    if (code && !c->json) {
        mqsync_ctl_store_failed(&e);
        return CTL_WRONG;
    }
    if (code) {
        add_finding(&f, e.text);
        wrong++;
    }
    if (c->json)
        printf("{\"ok\":%s,\"wrong\":[%.*s]}\n", wrong ? "false" : "true", (int)f.list.n, f.list.n ? f.list.p : "");
    else if (wrong)
        printf("%llu things wrong; restore a backup (mqsyncctl restore)\n", (unsigned long long)wrong);
    else if (!c->quiet)
        printf("OK\n");
    mqsync_buf_free(&f.list);
    return mqsync_ctl_flush(wrong ? CTL_WRONG : CTL_DONE);
}

/* --- copies ----------------------------------------------------------------------------------------------------- */

static uint64_t database_bytes(const char *dir)
{
    char path[4096];
    struct stat st;
    return snprintf(path, sizeof path, "%s/data.mdb", dir) < (int)sizeof path && stat(path, &st) == 0
               ? (uint64_t)st.st_size
               : 0;
}

static int finish(const struct mqsync_ctl *c, struct mqsync_progress *p, const struct mqsync_error *e,
                  const char *result, uint64_t before)
{
    char now_text[MQSYNC_BYTES_TEXT], before_text[MQSYNC_BYTES_TEXT];
    if (e->code) {
        mqsync_progress_clear(p);
        return mqsync_ctl_store_failed(e);
    }
    uint64_t bytes = database_bytes(result);
    mqsync_progress_finish(p);
    if (c->json) {
        struct mqsync_buf out = {0};
        mqsync_buf_add_char(&out, '{');
        mqsync_line_string(&out, "directory", mqsync_slice_str(result));
        mqsync_line_number(&out, "bytes", bytes);
        mqsync_line_number(&out, "bytesBefore", before);
        mqsync_line_end(&out);
        fwrite(out.p, 1, out.n, stdout);
        mqsync_buf_free(&out);
    } else if (!c->quiet) {
        printf("%s: %s is complete: %s (before: %s)\n", p->what, result, mqsync_bytes_text(bytes, now_text),
               mqsync_bytes_text(before, before_text));
    }
    return mqsync_ctl_flush(CTL_DONE);
}

int mqsync_ctl_backup(struct mqsync_ctl *c)
{
    struct mqsync_progress p;
    struct mqsync_error e = {.code = MQSYNC_OK};
    uint64_t before = database_bytes(c->dir);
    mqsync_progress_begin(&p, c->quiet, "backup", MQSYNC_UNIT_BYTES, before);
    e.code = mqsync_store_backup(c->dir, c->args[0], mqsync_progress_callback, &p, &e);
    mqsync_ctl_give_files(c->dir);
    return finish(c, &p, &e, c->args[0], before);
}

int mqsync_ctl_restore(struct mqsync_ctl *c)
{
    struct mqsync_progress p;
    struct mqsync_error e = {.code = MQSYNC_OK};
    struct stat a, b;
    uint64_t before = database_bytes(c->dir);
    if (stat(c->dir, &a) == 0 && stat(c->args[0], &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return mqsync_ctl_fail("%s is the database itself; name the directory of a backup", c->args[0]);
    mqsync_progress_begin(&p, c->quiet, "restore", MQSYNC_UNIT_BYTES, database_bytes(c->args[0]));
    e.code = mqsync_store_restore(c->dir, c->args[0], mqsync_progress_callback, &p, &e);
    mqsync_ctl_give_files(c->dir);
    return finish(c, &p, &e, c->dir, before);
}

int mqsync_ctl_compact(struct mqsync_ctl *c)
{
    struct mqsync_progress p;
    struct mqsync_error e = {.code = MQSYNC_OK};
    uint64_t before = database_bytes(c->dir);
    mqsync_progress_begin(&p, c->quiet, "compact", MQSYNC_UNIT_BYTES, before);
    e.code = mqsync_store_compact(c->dir, mqsync_progress_callback, &p, &e);
    mqsync_ctl_give_files(c->dir);
    return finish(c, &p, &e, c->dir, before);
}
