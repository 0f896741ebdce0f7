/* SPDX-License-Identifier: BSD-3-Clause */
/* A store in a directory of its own, for the tests of it. */
#ifndef MQSYNC_UNIT_STORE_DIR_H
#define MQSYNC_UNIT_STORE_DIR_H

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "store.h"

static char dir[256];
static struct mqsync_error error;
static struct mqsync_store_options options;

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void remove_dir(void)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A new one, and options for a store in it. */
static inline void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/mqsync-test-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    options = (struct mqsync_store_options){.dir = dir, .tombstone_days = 30, .boot_id = "boot-1"};
}

#define OK(call) ck_assert_msg((call) == MQSYNC_OK, "%s: %s", #call, error.text)

static inline struct mqsync_store *open_store(void)
{
    struct mqsync_store *s = NULL;
    OK(mqsync_store_open(&options, &s, &error));
    return s;
}

static inline void count_wrong(void *context, const char *text)
{
    fprintf(stderr, "check: %s\n", text);
    ++*(int *)context;
}

/* Every index against every record. */
static inline void check_database(void)
{
    uint64_t n = 0;
    int lines = 0;
    OK(mqsync_store_check(dir, count_wrong, &lines, &n, &error));
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(lines, 0);
}

static inline struct mqsync_collection *ensure(struct mqsync_store *s, const char *name)
{
    struct mqsync_collection *c = NULL;
    OK(mqsync_store_ensure(s, mqsync_slice_str(name), 1000, &c, &error));
    return c;
}

static inline uint64_t seq_of(const struct mqsync_collection *c)
{
    struct mqsync_collection_stat stat;
    mqsync_collection_stat(c, &stat);
    return stat.seq;
}

/* The next version of an id: what the plugin does, without rules. data NULL: a deletion. */
static inline enum mqsync_code try_write(struct mqsync_store *s, struct mqsync_collection *c, const char *id,
                                         const char *data, int64_t arrived_ms, uint64_t *ret_version)
{
    static struct mqsync_record r;
    uint64_t floor = 0, version = 0;
    enum mqsync_code code = mqsync_store_get(s, c, mqsync_slice_str(id), &r, &floor, &error);
    if (code != MQSYNC_OK && code != MQSYNC_RECORD_NOT_FOUND)
        return code;
    version = 1 + (code == MQSYNC_OK ? r.version : floor);
    r = (struct mqsync_record){.version = version,
                               .seq = seq_of(c) + 1,
                               .updated_ms = arrived_ms,
                               .deleted = !data,
                               .data = mqsync_slice_str(data)};
    r.history_n = 1;
    r.history[0] = (struct mqsync_change){.fingerprint = 1,
                                          .sent_ms = INT64_MIN,
                                          .arrived_ms = arrived_ms,
                                          .effective_ms = arrived_ms,
                                          .version = version,
                                          .seq = r.seq,
                                          .op = data ? MQSYNC_UPDATE : MQSYNC_DELETE};
    if (ret_version)
        *ret_version = version;
    return mqsync_store_put(s, c, mqsync_slice_str(id), &r, &error);
}

#endif
