/* SPDX-License-Identifier: BSD-3-Clause */
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_dir.h"
#include "unit.h"

static void setup(void)
{
    make_dir();
    options.sync_interval_ms = 20;
}

static uint64_t write_one(struct mqsync_store *s, struct mqsync_collection *c, const char *id, const char *data)
{
    uint64_t version;
    OK(try_write(s, c, id, data, mqsync_time_now(), &version));
    return version;
}

static void expect(struct mqsync_store *s, struct mqsync_collection *c, const char *id, uint64_t version,
                   const char *data)
{
    static struct mqsync_record r;
    uint64_t floor;
    OK(mqsync_store_get(s, c, mqsync_slice_str(id), &r, &floor, &error));
    ck_assert_uint_eq(r.version, version);
    ck_assert_int_eq(r.deleted, data == NULL);
    ck_assert(mqsync_slice_equal(r.data, mqsync_slice_str(data)));
}

static void expect_stat(const struct mqsync_collection *c, uint64_t seq, uint64_t records)
{
    struct mqsync_collection_stat stat;
    mqsync_collection_stat(c, &stat);
    ck_assert_uint_eq(stat.seq, seq);
    ck_assert_uint_eq(stat.records, records);
}

START_TEST(keeps_what_it_is_given)
{
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "todos");
    ck_assert_uint_eq(write_one(s, c, "a", "{\"n\":1}"), 1);
    ck_assert_uint_eq(write_one(s, c, "a", "{\"n\":2}"), 2);
    ck_assert_uint_eq(write_one(s, c, "b", "{}"), 1);
    ck_assert_uint_eq(write_one(s, c, "a", NULL), 3);
    ck_assert_uint_eq(write_one(s, c, "a", "{\"n\":4}"), 4);
    expect(s, c, "a", 4, "{\"n\":4}");
    expect(s, c, "b", 1, "{}");
    expect_stat(c, 5, 2);
    char epoch[33];
    snprintf(epoch, sizeof epoch, "%s", mqsync_store_epoch(s));
    mqsync_store_close(s);
    check_database();
    s = open_store();
    ck_assert_str_eq(mqsync_store_epoch(s), epoch);
    c = mqsync_store_find(s, mqsync_slice_str("todos"));
    ck_assert_ptr_nonnull(c);
    expect(s, c, "a", 4, "{\"n\":4}");
    expect_stat(c, 5, 2);
    ck_assert_ptr_null(mqsync_store_find(s, mqsync_slice_str("others")));
    mqsync_store_close(s);
}
END_TEST

/* A program of its own: writes until it is killed, and tells each write on its standard output. It may be killed in the
 * middle of anything, so it has nothing to do with check. */
static int pump(void)
{
    struct mqsync_store *s;
    struct mqsync_collection *c;
    if (mqsync_store_open(&options, &s, &error) != MQSYNC_OK ||
        mqsync_store_ensure(s, mqsync_slice_str("k"), 10, &c, &error) != MQSYNC_OK)
        return EXIT_FAILURE;
    for (unsigned i = 1;; i++) {
        char id[16], data[64];
        snprintf(id, sizeof id, "r%u", i % 300);
        snprintf(data, sizeof data, "{\"i\":%u}", i);
        if (try_write(s, c, id, i % 7 ? data : NULL, mqsync_time_now(), NULL) != MQSYNC_OK ||
            write(STDOUT_FILENO, &i, sizeof i) != sizeof i)
            return EXIT_FAILURE;
    }
}

/* Runs the pump and kills it once it has told of `after` writes; returns what it told last. */
static unsigned run_and_kill(unsigned after)
{
    int fds[2];
    char batch[24], txn[24];
    snprintf(batch, sizeof batch, "%zu", options.batch_bytes);
    snprintf(txn, sizeof txn, "%zu", options.txn_entries);
    ck_assert_int_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        execl("/proc/self/exe", "test_store", "--pump", dir, options.boot_id,
              options.durability == MQSYNC_DURABILITY_POWER ? "power" : "process", batch, txn, (char *)NULL);
        _exit(2);
    }
    close(fds[1]);
    unsigned told = 0, last = 0;
    while (read(fds[0], &told, sizeof told) == sizeof told) {
        last = told;
        if (told == after)
            kill(pid, SIGKILL);
    }
    close(fds[0]);
    int status;
    waitpid(pid, &status, 0);
    ck_assert_msg(WIFSIGNALED(status), "the pump ended by itself, status %x", status);
    return last;
}

START_TEST(a_killed_writer_loses_nothing)
{
    options.batch_bytes = 20000; /* many moves */
    unsigned written = 0;
    for (unsigned round = 0; round < 40; round++) {
        unsigned before = written;
        options.txn_entries = round % 2 ? 30 : 2; /* each in several transactions, sweeps too */
        written += run_and_kill(1 + (unsigned)rand() % 3000);
        struct mqsync_store *s = open_store();
        struct mqsync_collection *c = mqsync_store_find(s, mqsync_slice_str("k"));
        ck_assert_ptr_nonnull(c);
        /* the last one may be kept without having been told */
        ck_assert_uint_ge(seq_of(c), written);
        ck_assert_uint_le(seq_of(c), written + 1);
        written = (unsigned)seq_of(c);
        ck_assert_uint_gt(written, before);
        mqsync_store_close(s);
        check_database();
    }
}
END_TEST

static uint64_t walk_all(struct mqsync_view *v, uint64_t since, uint64_t *ret_last)
{
    static struct mqsync_record r;
    struct mqsync_walk *w;
    struct mqsync_slice id;
    uint64_t n = 0, last = since;
    OK(mqsync_walk_changes(v, mqsync_slice_str("c"), since, &w, &error));
    uint64_t counted = mqsync_walk_count(w, UINT64_MAX);
    while (mqsync_walk_next(w, &id, &r, &error) == MQSYNC_OK) {
        ck_assert_uint_gt(r.seq, last);
        last = r.seq;
        n++;
    }
    mqsync_walk_close(w);
    ck_assert_uint_eq(counted, n);
    *ret_last = last;
    return n;
}

static uint64_t walk_ids(struct mqsync_view *v, const char *from)
{
    static struct mqsync_record r;
    struct mqsync_walk *w;
    struct mqsync_slice id;
    char before[200] = "";
    uint64_t n = 0;
    OK(mqsync_walk_records(v, mqsync_slice_str("c"), mqsync_slice_str(from), &w, &error));
    while (mqsync_walk_next(w, &id, &r, &error) == MQSYNC_OK) {
        char now[200];
        snprintf(now, sizeof now, "%.*s", (int)id.n, id.p);
        ck_assert_int_gt(strcmp(now, before), 0);
        ck_assert_int_ge(strcmp(now, from), 0);
        memcpy(before, now, sizeof before);
        n++;
    }
    mqsync_walk_close(w);
    return n;
}

/* Views of every kind while changes are partly in LMDB, partly in tables. */
START_TEST(views_see_all)
{
    options.batch_bytes = 3000;
    options.txn_entries = 7;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    ensure(s, "b");
    ensure(s, "d");
    for (unsigned i = 0; i < 2000; i++) {
        char id[16];
        snprintf(id, sizeof id, "id%03u", (i * 7919u) % 500);
        write_one(s, c, id, i % 5 == 4 ? NULL : "{\"some\":\"thing\"}");
        if (i % 97 != 0)
            continue;
        struct mqsync_view *v;
        uint64_t last, ids = i < 500 ? i + 1 : 500;
        OK(mqsync_view_newest(s, &v, &error));
        ck_assert_uint_eq(walk_all(v, 0, &last), ids);
        ck_assert_uint_eq(last, i + 1);
        ck_assert_uint_eq(walk_ids(v, ""), ids);
        ck_assert_uint_le(walk_all(v, i > 100 ? i - 100 : 0, &last), 101);
        mqsync_view_close(v);
    }
    /* another process sees the same, without waiting for a move */
    struct mqsync_collection_stat mine;
    mqsync_collection_stat(c, &mine);
    pid_t pid = fork();
    if (pid == 0) {
        struct mqsync_reader *r;
        struct mqsync_view *v;
        struct mqsync_collection_stat stat;
        uint64_t last;
        if (mqsync_reader_open(dir, &r, &error) != MQSYNC_OK || mqsync_reader_view(r, &v, &error) != MQSYNC_OK)
            _exit(2);
        if (!mqsync_view_collection(v, mqsync_slice_str("c"), &stat) || stat.seq != mine.seq ||
            stat.records != mine.records)
            _exit(3);
        if (walk_all(v, 0, &last) != 500 || last != 2000 || walk_ids(v, "id250") != 250)
            _exit(4);
        mqsync_view_close(v);
        mqsync_reader_close(r);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "reader: status %x", status);
    struct mqsync_view *v;
    struct mqsync_collection_stat stat;
    uint64_t last;
    OK(mqsync_view_settled(s, 5000, &v, &error));
    ck_assert(mqsync_view_collection(v, mqsync_slice_str("c"), &stat));
    ck_assert_uint_eq(stat.seq, 2000);
    ck_assert_uint_eq(stat.records, mine.records);
    ck_assert_uint_eq(walk_all(v, 0, &last), 500);
    mqsync_view_close(v);
    mqsync_store_close(s);
    check_database();
}
END_TEST

/* Records that change again before anything is moved, from the list's end, its middle and its beginning. */
START_TEST(changes_in_memory_are_in_order)
{
    static const char *const ids[] = {"a", "b", "c", "a", "c", "c", "b", "d", "c"};
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c"), *other = ensure(s, "other");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        struct mqsync_view *v;
        uint64_t last;
        write_one(s, c, ids[i], "{}");
        write_one(s, other, ids[i], "{}");
        OK(mqsync_view_newest(s, &v, &error));
        for (size_t since = 0; since <= i + 1; since++) {
            uint64_t expected = 0;
            for (size_t seq = since + 1; seq <= i + 1; seq++) {
                bool again = false;
                for (size_t later = seq + 1; later <= i + 1; later++)
                    again |= strcmp(ids[later - 1], ids[seq - 1]) == 0;
                expected += !again;
            }
            ck_assert_uint_eq(walk_all(v, since, &last), expected);
        }
        mqsync_view_close(v);
    }
    mqsync_store_close(s);
}
END_TEST

static void write_range(struct mqsync_store *s, struct mqsync_collection *c, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char id[16];
        snprintf(id, sizeof id, "id%05u", i);
        write_one(s, c, id, "{}");
    }
}

static void expect_settled(struct mqsync_store *s, uint64_t seq)
{
    struct mqsync_view *v;
    uint64_t last;
    OK(mqsync_view_settled(s, 60000, &v, &error));
    ck_assert_uint_eq(walk_all(v, 0, &last), 40000);
    ck_assert_uint_eq(last, seq);
    ck_assert_uint_eq(walk_all(v, 39000, &last), seq - 39000);
    mqsync_view_close(v);
}

/* Rows of the index that later changes have left behind: an eighth at most. */
START_TEST(stale_rows_do_not_count)
{
    options.txn_entries = 4096;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    struct mqsync_view *v;
    struct mqsync_walk *w;
    uint64_t last;
    write_range(s, c, 0, 40000);
    expect_settled(s, 40000);
    write_range(s, c, 0, 3000);
    expect_settled(s, 43000);
    OK(mqsync_view_newest(s, &v, &error)); /* 3,000 stale rows at the beginning: too many for the broker's thread */
    ck_assert_int_eq(mqsync_walk_changes(v, mqsync_slice_str("c"), 0, &w, &error), MQSYNC_CONFLICT);
    mqsync_view_close(v);
    OK(mqsync_view_newest(s, &v, &error));
    ck_assert_uint_eq(walk_all(v, 2500, &last), 40000);
    mqsync_view_close(v);
    write_range(s, c, 3000, 6000);
    expect_settled(s, 46000);
    OK(mqsync_view_newest(s, &v, &error)); /* swept */
    ck_assert_uint_eq(walk_all(v, 0, &last), 40000);
    mqsync_view_close(v);
    write_range(s, c, 6000, 8000);
    mqsync_store_close(s);
    check_database();
    s = open_store();
    expect_settled(s, 48000);
    mqsync_store_close(s);
}
END_TEST

START_TEST(forgets_old_tombstones_but_no_version)
{
    options.tombstone_days = 1;
    options.batch_bytes = 100;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    int64_t old = mqsync_time_now() - (int64_t)2 * 24 * 60 * 60 * 1000;
    for (unsigned i = 0; i < 600; i++) {
        char id[16];
        snprintf(id, sizeof id, "x%u", i);
        OK(try_write(s, c, id, "{}", old, NULL));
        OK(try_write(s, c, id, NULL, old, NULL));
    }
    write_one(s, c, "young", "{}");
    write_one(s, c, "young", NULL);
    mqsync_store_close(s); /* a move at each, so at least some slices are forgotten by now; the rest at the next open */
    struct mqsync_collection_stat stat;
    for (int tries = 0;; tries++) {
        s = open_store();
        struct mqsync_view *v;
        c = mqsync_store_find(s, mqsync_slice_str("c"));
        write_one(s, c, "again", "{}");
        OK(mqsync_view_settled(s, 5000, &v, &error));
        mqsync_view_close(v);
        mqsync_collection_stat(c, &stat);
        if (stat.tombstones == 1)
            break;
        ck_assert_int_lt(tries, 20);
        mqsync_store_close(s);
    }
    ck_assert_uint_ge(stat.oldest_seq, 1200);
    ck_assert_uint_eq(write_one(s, c, "x5", "{}"), 3); /* 1 and 2 have been used */
    ck_assert_uint_eq(write_one(s, c, "young", "{}"), 3);
    mqsync_store_close(s);
    check_database();
}
END_TEST

START_TEST(grows_its_map)
{
    options.map_bytes = 1 << 20;
    options.batch_bytes = 100000;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    char *data = malloc(20001);
    memset(data, ' ', 20000);
    memcpy(data, "{\"x\":1", 6);
    memcpy(data + 19999, "}", 2);
    for (unsigned i = 0; i < 500; i++) {
        char id[16];
        snprintf(id, sizeof id, "x%u", i);
        write_one(s, c, id, data);
        if (i % 50 == 49) {
            struct mqsync_view *v;
            enum mqsync_code code = MQSYNC_SERVER_ERROR;
            for (int tries = 0; tries < 100 && code; tries++) {
                uint64_t floor;
                static struct mqsync_record r;
                mqsync_store_get(s, c, mqsync_slice_str(id), &r, &floor,
                                 &error); /* the writer's next call makes the map larger */
                code = mqsync_view_settled(s, 100, &v, &error);
            }
            OK(code);
            mqsync_view_close(v);
        }
    }
    for (unsigned i = 0; i < 500; i++) {
        char id[16];
        snprintf(id, sizeof id, "x%u", i);
        expect(s, c, id, 1, data);
    }
    mqsync_store_close(s);
    check_database();
    free(data);
}
END_TEST

/* With more stale rows than the broker's thread passes over it cannot say how many changes there are, however few are
 * asked for: those rows may be one record's. */
START_TEST(who_gives_up_does_not_count)
{
    options.txn_entries = 4096;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    struct mqsync_view *v;
    struct mqsync_walk *w;
    write_range(s, c, 0, 8000);
    OK(mqsync_view_settled(s, 60000, &v, &error));
    mqsync_view_close(v);
    write_range(s, c, 0, 600);
    OK(mqsync_view_settled(s, 60000, &v, &error));
    OK(mqsync_walk_changes(v, mqsync_slice_str("c"), 7999, &w, &error));
    ck_assert_uint_eq(mqsync_walk_count(w, 1000), 601);
    mqsync_walk_close(w);
    mqsync_view_close(v);
    OK(mqsync_view_newest(s, &v, &error));
    OK(mqsync_walk_changes(v, mqsync_slice_str("c"), 0, &w, &error));
    ck_assert_uint_eq(mqsync_walk_count(w, 5), UINT64_MAX);
    mqsync_walk_close(w);
    mqsync_view_close(v);
    mqsync_store_close(s);
}
END_TEST

enum { LOG_PAGES = 64, PAGE_BYTES = 4096 };

/* Until where a log file that was full of old bytes has been written. Each page has been written whole or not at all:
 * of one that is written in part the kernel would read the rest first. */
static unsigned written_pages(unsigned file)
{
    static unsigned char bytes[LOG_PAGES][PAGE_BYTES];
    unsigned char old[16];
    char name[300];
    memset(old, 0xFF, sizeof old);
    snprintf(name, sizeof name, "%s/log.%u", dir, file);
    FILE *f = fopen(name, "re");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fread(bytes, PAGE_BYTES, LOG_PAGES, f), LOG_PAGES);
    fclose(f);
    unsigned n = 0;
    for (unsigned i = 0; i < LOG_PAGES; i++) {
        bool first_is_old = memcmp(bytes[i], old, sizeof old) == 0;
        bool last_is_old = memcmp(bytes[i] + PAGE_BYTES - sizeof old, old, sizeof old) == 0;
        ck_assert_msg(last_is_old == first_is_old, "page %u of log.%u is written in part", i, file);
        ck_assert_msg(first_is_old || i == n, "page %u of log.%u is written, and one before it is not", i, file);
        n += !first_is_old;
    }
    return n;
}

START_TEST(writes_whole_pages_of_the_log)
{
    for (unsigned i = 0; i < 3; i++) {
        char name[300], old[PAGE_BYTES];
        snprintf(name, sizeof name, "%s/log.%u", dir, i);
        memset(old, 0xFF, sizeof old);
        FILE *f = fopen(name, "we");
        ck_assert_ptr_nonnull(f);
        for (unsigned page = 0; page < LOG_PAGES; page++)
            ck_assert_uint_eq(fwrite(old, sizeof old, 1, f), 1);
        fclose(f);
    }
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    char data[9000];
    memset(data, 'x', sizeof data);
    memcpy(data, "{\"a\":\"", 6);
    unsigned n = 0;
    for (unsigned i = 0; i < 12; i++) {
        size_t size = i % 4 == 3 ? sizeof data - 1 : 100 + i * 7;
        memcpy(data + size - 2, "\"}", 3);
        write_one(s, c, "r", data);
        memset(data + size - 2, 'x', 3);
        n = written_pages(0) + written_pages(1) + written_pages(2);
    }
    ck_assert_uint_gt(n, 6);
    mqsync_store_close(s);
    check_database();
}
END_TEST

START_TEST(one_writer_at_a_time)
{
    struct mqsync_store *s = open_store(), *second = NULL;
    ck_assert(mqsync_store_open(&options, &second, &error) != MQSYNC_OK);
    ck_assert_ptr_nonnull(strstr(error.text, "in use by process"));
    mqsync_store_close(s);
    s = open_store();
    mqsync_store_close(s);
}
END_TEST

START_TEST(a_power_cut_changes_the_epoch)
{
    run_and_kill(100);
    struct mqsync_store *s = open_store();
    char epoch[33];
    snprintf(epoch, sizeof epoch, "%s", mqsync_store_epoch(s));
    mqsync_store_close(s);
    run_and_kill(100);
    s = open_store();
    ck_assert_str_eq(mqsync_store_epoch(s), epoch); /* a killed process lost nothing */
    mqsync_store_close(s);
    options.boot_id = "boot-2"; /* a restart after a proper close neither */
    s = open_store();
    ck_assert_str_eq(mqsync_store_epoch(s), epoch);
    mqsync_store_close(s);
    run_and_kill(100);
    options.boot_id = "boot-3";
    s = open_store();
    ck_assert_str_ne(mqsync_store_epoch(s), epoch);
    snprintf(epoch, sizeof epoch, "%s", mqsync_store_epoch(s));
    mqsync_store_close(s);
    options.durability = MQSYNC_DURABILITY_POWER; /* what is acknowledged is on the disk */
    run_and_kill(20);
    options.boot_id = "boot-4";
    s = open_store();
    ck_assert_str_eq(mqsync_store_epoch(s), epoch);
    mqsync_store_close(s);
}
END_TEST

/* As a child that is killed: opens with one durability, goes on with the other. */
static void switch_and_kill(enum mqsync_durability to)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct mqsync_store *s = open_store();
        write_one(s, ensure(s, "k"), "a", "{}");
        options.durability = to;
        mqsync_store_configure(s, &options);
        for (int i = 0; i < 20; i++)
            write_one(s, ensure(s, "k"), "a", "{}");
        struct mqsync_view *v;
        OK(mqsync_view_settled(s, 5000, &v, &error));
        mqsync_view_close(v);
        for (int i = 0; i < 20; i++)
            write_one(s, ensure(s, "k"), "a", "{}");
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

START_TEST(power_counts_only_while_it_is_kept)
{
    struct mqsync_store *s = open_store();
    char epoch[33];
    snprintf(epoch, sizeof epoch, "%s", mqsync_store_epoch(s));
    mqsync_store_close(s);
    options.durability = MQSYNC_DURABILITY_POWER;
    switch_and_kill(MQSYNC_DURABILITY_PROCESS);
    options.boot_id = "boot-2";
    s = open_store();
    ck_assert_str_ne(mqsync_store_epoch(s), epoch);
    mqsync_store_close(s);
}
END_TEST

START_TEST(backs_up_and_restores)
{
    char copy[300], other[300];
    snprintf(copy, sizeof copy, "%s/copy", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    for (unsigned i = 0; i < 1000; i++) {
        char id[16];
        snprintf(id, sizeof id, "x%u", i);
        write_one(s, c, id, "{\"a\":true}");
    }
    write_one(s, c, "x7", NULL);
    pid_t pid = fork();
    if (pid == 0) {
        /* a program of its own, as mqsyncctl is: a process with threads that forks may not start others */
        execl("/proc/self/exe", "test_store", "--backup", dir, copy, (char *)NULL);
        _exit(2);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_int_eq(status, 0);
    write_one(s, c, "x8", "{\"later\":1}");
    char epoch[33];
    snprintf(epoch, sizeof epoch, "%s", mqsync_store_epoch(s));
    mqsync_store_close(s);
    OK(mqsync_store_compact(dir, NULL, NULL, &error));
    check_database();
    ck_assert(mqsync_store_backup(dir, copy, NULL, NULL, &error) != MQSYNC_OK); /* not empty */
    OK(mqsync_store_restore(dir, copy, NULL, NULL, &error));
    check_database();
    s = open_store();
    ck_assert_str_ne(mqsync_store_epoch(s), epoch);
    c = mqsync_store_find(s, mqsync_slice_str("c"));
    expect_stat(c, 1001, 999);
    expect(s, c, "x8", 1, "{\"a\":true}");
    expect(s, c, "x7", 2, NULL);
    mqsync_store_close(s);
    OK(mqsync_store_restore(other, copy, NULL, NULL, &error));
    ck_assert(mqsync_store_restore(dir, "/nonexistent", NULL, NULL, &error) != MQSYNC_OK);
    s = open_store();
    mqsync_store_close(s);
}
END_TEST

/* As a child that is killed at once: makes the collection, and writes to it if there is an id. */
static void begin_and_kill(const char *id)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct mqsync_store *s = open_store();
        struct mqsync_collection *c = ensure(s, "k");
        if (id)
            write_one(s, c, id, "{}");
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

/* The log knows the collection, LMDB does not: the disk was full just then, or the broker was killed between the two
 * entries. */
START_TEST(a_collection_without_records_survives_twice)
{
    mqsync_store_close(open_store());
    for (int i = 0; i < 5; i++) {
        begin_and_kill(NULL);
        begin_and_kill("a");
        struct mqsync_store *s = open_store();
        expect(s, ensure(s, "k"), "a", 1, "{}");
        mqsync_store_close(s);
        check_database();
        remove_dir();
        mqsync_store_close(open_store());
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--backup") == 0)
        return mqsync_store_backup(argv[2], argv[3], NULL, NULL, &error) == MQSYNC_OK ? EXIT_SUCCESS : EXIT_FAILURE;
    if (argc == 7 && strcmp(argv[1], "--pump") == 0) {
        options = (struct mqsync_store_options){.dir = argv[2],
                                                .boot_id = argv[3],
                                                .tombstone_days = 30,
                                                .sync_interval_ms = 20,
                                                .batch_bytes = strtoul(argv[5], NULL, 10),
                                                .txn_entries = strtoul(argv[6], NULL, 10)};
        options.durability = strcmp(argv[4], "power") == 0 ? MQSYNC_DURABILITY_POWER : MQSYNC_DURABILITY_PROCESS;
        return pump();
    }
    TCase *tc = tcase_create("store");
    tcase_add_checked_fixture(tc, setup, remove_dir);
    tcase_add_test(tc, keeps_what_it_is_given);
    tcase_add_test(tc, a_killed_writer_loses_nothing);
    tcase_add_test(tc, views_see_all);
    tcase_add_test(tc, changes_in_memory_are_in_order);
    tcase_add_test(tc, stale_rows_do_not_count);
    tcase_add_test(tc, who_gives_up_does_not_count);
    tcase_add_test(tc, forgets_old_tombstones_but_no_version);
    tcase_add_test(tc, grows_its_map);
    tcase_add_test(tc, writes_whole_pages_of_the_log);
    tcase_add_test(tc, one_writer_at_a_time);
    tcase_add_test(tc, a_power_cut_changes_the_epoch);
    tcase_add_test(tc, power_counts_only_while_it_is_kept);
    tcase_add_test(tc, backs_up_and_restores);
    tcase_add_test(tc, a_collection_without_records_survives_twice);
    return run_tests("store", tc);
}
