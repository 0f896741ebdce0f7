/* SPDX-License-Identifier: BSD-3-Clause */
/* What may happen between the writer and the mover, and on a disk that is full or broken: LMDB's calls and the system's
 * stop or fail here when told to. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_dir.h"
#include "unit.h"

#define DAY_MS ((int64_t)24 * 60 * 60 * 1000)
#define PATIENCE 20000 /* ms */

enum place { NOWHERE, BEFORE_BEGIN, BEFORE_COMMIT, AFTER_COMMIT };
static atomic_int stop_at, stopped_at; /* where the mover is to wait, and where it does */
static atomic_int commits_to_pass = INT_MAX, failed_commits, resizes;
static atomic_int commits_to_live = INT_MAX; /* the process is killed after so many */

static void *next_of(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static void stop_here(enum place place)
{
    if (atomic_load(&stop_at) != (int)place)
        return;
    atomic_store(&stopped_at, place);
    while (atomic_load(&stop_at) == (int)place)
        usleep(1000);
    atomic_store(&stopped_at, NOWHERE);
}

int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **ret)
{
    int (*real)(MDB_env *, MDB_txn *, unsigned, MDB_txn **);
    *(void **)(void *)&real = next_of("mdb_txn_begin");
    if (!(flags & MDB_RDONLY))
        stop_here(BEFORE_BEGIN);
    return real(env, parent, flags, ret);
}

int mdb_txn_commit(MDB_txn *txn)
{
    int (*real)(MDB_txn *);
    *(void **)(void *)&real = next_of("mdb_txn_commit");
    if (atomic_fetch_sub(&commits_to_pass, 1) <= 0) {
        mdb_txn_abort(txn);
        atomic_fetch_add(&failed_commits, 1);
        return ENOSPC;
    }
    stop_here(BEFORE_COMMIT);
    int rc = real(txn);
    if (atomic_fetch_sub(&commits_to_live, 1) == 1)
        kill(getpid(), SIGKILL);
    stop_here(AFTER_COMMIT);
    return rc;
}

int mdb_env_set_mapsize(MDB_env *env, size_t n)
{
    int (*real)(MDB_env *, size_t);
    *(void **)(void *)&real = next_of("mdb_env_set_mapsize");
    atomic_fetch_add(&resizes, 1);
    return real(env, n);
}

/* The disk takes no sync, and not even what would take the entry back. */
static atomic_bool disk_broken;

int fdatasync(int fd)
{
    int (*real)(int);
    *(void **)(void *)&real = next_of("fdatasync");
    errno = EIO;
    return atomic_load(&disk_broken) ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    ssize_t (*real)(int, const void *, size_t, off_t);
    *(void **)(void *)&real = next_of("pwrite");
    errno = EIO;
    return atomic_load(&disk_broken) && n == 12 ? -1 : real(fd, bytes, n, at);
}

/* Another program reads: opens the database just before the new one is in its place. Or the process is killed then. */
static bool open_at_rename, die_at_rename;
static pid_t early_reader;

static void start_reader(void)
{
    int ends[2];
    char ready;
    ck_assert_int_eq(pipe(ends), 0);
    early_reader = fork();
    if (early_reader == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "test_store_threads", "--read", dir, (char *)NULL);
        _exit(EXIT_FAILURE);
    }
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], &ready, 1), 1);
    close(ends[0]);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    *(void **)(void *)&real = next_of("rename");
    if (open_at_rename)
        start_reader();
    open_at_rename = false;
    if (die_at_rename)
        kill(getpid(), SIGKILL);
    return real(from, to);
}

/* Waits until *what is at least `least`. */
static void await(atomic_int *what, int least)
{
    for (int i = 0; atomic_load(what) < least; i++) {
        ck_assert_int_lt(i, PATIENCE);
        usleep(1000);
    }
}

/* Lets the mover go on, if it waits, and has it wait there. */
static void stop_mover(enum place place)
{
    atomic_store(&stop_at, place);
    for (int i = 0; atomic_load(&stopped_at) != (int)place; i++) {
        ck_assert_int_lt(i, PATIENCE);
        usleep(1000);
    }
}

static void setup(void)
{
    make_dir();
    options.batch_bytes = 1; /* every change is moved at once */
}

static enum mqsync_code get(struct mqsync_store *s, struct mqsync_collection *c, const char *id,
                            struct mqsync_record *ret)
{
    uint64_t floor;
    return mqsync_store_get(s, c, mqsync_slice_str(id), ret, &floor, &error);
}

/* data NULL: a deletion. */
static void put(struct mqsync_store *s, struct mqsync_collection *c, const char *id, const char *data,
                int64_t arrived_ms)
{
    OK(try_write(s, c, id, data, arrived_ms, NULL));
}

static void settle(struct mqsync_store *s)
{
    struct mqsync_view *v;
    OK(mqsync_view_settled(s, PATIENCE, &v, &error));
    mqsync_view_close(v);
}

#define TURNS 40 /* records that change in turn */
#define VIEWERS 4

static atomic_int viewers_done;

/* The latest changes of records that change in turn have the last seqs, without a gap. */
static void expect_one_moment(struct mqsync_view *v)
{
    struct mqsync_collection_stat stat;
    struct mqsync_walk *walk;
    struct mqsync_slice id;
    struct mqsync_record r;
    ck_assert(mqsync_view_collection(v, MQSYNC_SLICE("c"), &stat));
    OK(mqsync_walk_changes(v, MQSYNC_SLICE("c"), 0, &walk, &error));
    for (uint64_t seq = stat.seq - TURNS + 1; seq <= stat.seq; seq++) {
        OK(mqsync_walk_next(walk, &id, &r, &error));
        ck_assert_uint_eq(r.seq, seq);
    }
    ck_assert_int_eq(mqsync_walk_next(walk, &id, &r, &error), MQSYNC_RECORD_NOT_FOUND);
    mqsync_walk_close(walk);
}

static void put_in_turn(struct mqsync_store *s, struct mqsync_collection *c, unsigned i)
{
    char id[16];
    snprintf(id, sizeof id, "%u", i % TURNS * 7 % TURNS);
    put(s, c, id, "{}", mqsync_time_now());
}

static void *open_settled_views(void *store)
{
    struct mqsync_view *v;
    for (int i = 0; i < 100; i++) {
        OK(mqsync_view_settled(store, PATIENCE, &v, &error));
        expect_one_moment(v);
        mqsync_view_close(v);
    }
    atomic_fetch_add(&viewers_done, 1);
    return NULL;
}

/* Batches are moved in many transactions while views are opened: none shows a part of a batch. */
START_TEST(a_settled_view_is_one_moment)
{
    pthread_t threads[VIEWERS];
    options.batch_bytes = 2000;
    options.txn_entries = 1;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    for (unsigned i = 0; i < TURNS; i++)
        put_in_turn(s, c, i);
    for (int t = 0; t < VIEWERS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, open_settled_views, s), 0);
    for (unsigned i = TURNS; atomic_load(&viewers_done) < VIEWERS; i++) {
        put_in_turn(s, c, i);
        if (i % 16 == 0)
            usleep(500);
    }
    for (int t = 0; t < VIEWERS; t++)
        pthread_join(threads[t], NULL);
    mqsync_store_close(s);
}
END_TEST

/* Killed when LMDB has a part of the first batch of a new collection, the later change alone. */
START_TEST(a_part_of_a_batch_is_moved_again)
{
    struct mqsync_record r;
    char copy[300];
    snprintf(copy, sizeof copy, "%s/copy", dir);
    options.batch_bytes = 0;
    options.txn_entries = 1;
    pid_t pid = fork();
    if (pid == 0) {
        struct mqsync_store *s = open_store();
        struct mqsync_collection *c = ensure(s, "c");
        put(s, c, "2", "{}", mqsync_time_now());
        put(s, c, "1", "{}", mqsync_time_now());
        stop_mover(AFTER_COMMIT);
        kill(getpid(), SIGKILL);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert(WIFSIGNALED(status));
    OK(mqsync_store_backup(dir, copy, NULL, NULL, &error));
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = mqsync_store_find(s, mqsync_slice_str("c")), *d = ensure(s, "d");
    ck_assert_ptr_nonnull(c);
    put(s, d, "3", "{}", mqsync_time_now());
    OK(get(s, c, "1", &r));
    OK(get(s, c, "2", &r));
    ck_assert_int_eq(get(s, c, "3", &r), MQSYNC_RECORD_NOT_FOUND);
    ck_assert_int_eq(get(s, d, "1", &r), MQSYNC_RECORD_NOT_FOUND);
    ck_assert_uint_eq(seq_of(c), 2);
    mqsync_store_close(s);
    OK(mqsync_store_restore(dir, copy, NULL, NULL, &error));
    s = open_store();
    c = ensure(s, "c");
    OK(get(s, c, "1", &r));
    OK(get(s, c, "2", &r));
    mqsync_store_close(s);
}
END_TEST

/* After a power cut, which changes the epoch by which the log is read. */
START_TEST(a_recovery_that_is_killed_loses_nothing)
{
    struct mqsync_record r;
    char epoch[33];
    options.batch_bytes = 0;
    options.txn_entries = 1;
    struct mqsync_store *s = open_store();
    memcpy(epoch, mqsync_store_epoch(s), sizeof epoch);
    mqsync_store_close(s);
    for (int run = 0; run < 2; run++) {
        pid_t pid = fork();
        if (pid == 0) {
            options.boot_id = run == 0 ? "boot-1" : "boot-2";
            atomic_store(&commits_to_live, run == 0 ? INT_MAX : 2); /* of the tables, and of a part */
            s = open_store();
            for (int i = 0; i < 3; i++)
                put(s, ensure(s, "c"), (char[]){(char)('0' + i), '\0'}, "{}", mqsync_time_now());
            kill(getpid(), SIGKILL);
        }
        int status;
        waitpid(pid, &status, 0);
        ck_assert(WIFSIGNALED(status));
    }
    options.boot_id = "boot-2";
    s = open_store();
    ck_assert_str_ne(mqsync_store_epoch(s), epoch);
    ck_assert_uint_eq(seq_of(ensure(s, "c")), 3);
    for (int i = 0; i < 3; i++)
        OK(get(s, ensure(s, "c"), (char[]){(char)('0' + i), '\0'}, &r));
    mqsync_store_close(s);
}
END_TEST

/* A `since` before a deletion that LMDB has just forgotten: either the deletion is there, or it is known that one may
 * be missing. */
START_TEST(what_is_forgotten_is_known_to_be)
{
    struct mqsync_view *v;
    struct mqsync_walk *walk;
    struct mqsync_slice id, c_name = MQSYNC_SLICE("c");
    struct mqsync_collection_stat stat;
    static struct mqsync_record r;
    bool seen = false;
    options.tombstone_days = 3650;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    put(s, c, "a", "{}", mqsync_time_now() - 40 * DAY_MS);
    put(s, c, "a", NULL, mqsync_time_now() - 40 * DAY_MS);
    settle(s);

    atomic_store(&stop_at, BEFORE_COMMIT);
    put(s, c, "b", "{}", mqsync_time_now());
    stop_mover(BEFORE_COMMIT);
    options.tombstone_days = 30;
    mqsync_store_configure(s, &options);
    put(s, c, "b", "{}", mqsync_time_now()); /* found in memory: the writer's transaction does not follow */
    stop_mover(BEFORE_BEGIN);                /* of the next move, which forgets */
    stop_mover(AFTER_COMMIT);
    OK(mqsync_view_newest(s, &v, &error));
    ck_assert(mqsync_view_collection(v, c_name, &stat));
    OK(mqsync_walk_changes(v, c_name, 1, &walk, &error));
    while (mqsync_walk_next(walk, &id, &r, &error) == MQSYNC_OK)
        seen |= mqsync_slice_equal(id, mqsync_slice_str("a"));
    mqsync_walk_close(walk);
    mqsync_view_close(v);
    atomic_store(&stop_at, NOWHERE);
    ck_assert(seen || stat.oldest_seq > 1);
    mqsync_store_close(s);
}
END_TEST

/* The mover, which tries again each second, must not begin a transaction while the map moves. */
START_TEST(the_map_grows_while_nothing_is_moved)
{
    static char data[100 * 1024];
    static struct mqsync_record r;
    struct mqsync_view *view;
    options.map_bytes = 1024 * 1024;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    put(s, c, "a", "{}", mqsync_time_now());
    OK(mqsync_view_settled(s, PATIENCE, &view, &error)); /* the map may not move */
    memset(data, ' ', sizeof data - 1);
    data[0] = '{', data[sizeof data - 2] = '}';
    struct mqsync_store_stat stat = {0};
    for (int i = 0, more = 20; more > 0; i++) {
        char id[16];
        snprintf(id, sizeof id, "x%d", i);
        put(s, c, id, data, mqsync_time_now());
        usleep(1000);
        mqsync_store_stat(s, &stat);
        more -= stat.failing;
        ck_assert_int_lt(i, 1000);
    }
    stop_mover(BEFORE_BEGIN);
    atomic_store(&resizes, 0);
    mqsync_view_close(view);
    OK(get(s, c, "a", &r));
    ck_assert_int_eq(atomic_load(&resizes), 0);
    atomic_store(&stop_at, NOWHERE);
    for (int i = 0; stat.failing || atomic_load(&resizes) == 0; i++) {
        OK(get(s, c, "a", &r));
        usleep(1000);
        mqsync_store_stat(s, &stat);
        ck_assert_int_lt(i, PATIENCE);
    }
    mqsync_store_close(s);
}
END_TEST

/* As a child that is killed, on a disk with no room but in the log's own files; id may be NULL. */
static void run_full_and_kill(const char *id)
{
    pid_t pid = fork();
    if (pid == 0) {
        atomic_store(&commits_to_pass, 1); /* that of the tables, which changes nothing */
        struct mqsync_store *s = open_store();
        int before = atomic_load(&failed_commits);
        if (id) {
            put(s, ensure(s, "c"), id, "{}", mqsync_time_now());
            await(&failed_commits, before + 1);
        }
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

START_TEST(restarts_on_a_full_disk_lose_nothing)
{
    static struct mqsync_record r;
    struct mqsync_store *s = open_store();
    put(s, ensure(s, "c"), "a", "{}", mqsync_time_now());
    mqsync_store_close(s);
    pid_t pid = fork();
    if (pid == 0) {
        open_store();
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
    run_full_and_kill(NULL);
    run_full_and_kill("b");
    s = open_store();
    OK(get(s, ensure(s, "c"), "a", &r));
    OK(get(s, ensure(s, "c"), "b", &r));
    mqsync_store_close(s);
}
END_TEST

START_TEST(what_was_refused_is_not_kept)
{
    static struct mqsync_record r;
    options.durability = MQSYNC_DURABILITY_POWER;
    options.batch_bytes = 0;
    pid_t pid = fork();
    if (pid == 0) {
        struct mqsync_store *s = open_store();
        struct mqsync_collection *c = ensure(s, "c");
        put(s, c, "a", "{}", mqsync_time_now());
        settle(s);
        atomic_store(&disk_broken, true);
        r = (struct mqsync_record){.version = 1, .seq = 2, .data = MQSYNC_SLICE("{}"), .history_n = 1};
        r.history[0] = (struct mqsync_change){.fingerprint = 1, .sent_ms = INT64_MIN, .version = 1, .seq = 2};
        ck_assert_int_eq(mqsync_store_put(s, c, mqsync_slice_str("refused"), &r, &error), MQSYNC_SERVER_ERROR);
        atomic_store(&disk_broken, false);
        put(s, c, "b", "{}", mqsync_time_now());
        kill(getpid(), SIGKILL);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert(WIFSIGNALED(status));
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    OK(get(s, c, "a", &r));
    OK(get(s, c, "b", &r));
    ck_assert_int_eq(get(s, c, "refused", &r), MQSYNC_RECORD_NOT_FOUND);
    mqsync_store_close(s);
}
END_TEST

/* LMDB keeps in lock.mdb where a database has got to: another database must not go on from there. */
START_TEST(who_reads_while_a_backup_is_restored_harms_nobody)
{
    static struct mqsync_record r;
    char copy[300];
    snprintf(copy, sizeof copy, "%s/copy", dir);
    for (unsigned changes = 1; changes <= 2; changes++) { /* an odd number of commits, and an even one */
        struct mqsync_store *s = open_store();
        struct mqsync_collection *c = ensure(s, "c");
        put(s, c, "a", "{}", mqsync_time_now());
        char epoch[33];
        snprintf(epoch, sizeof epoch, "%s", mqsync_store_epoch(s));
        mqsync_store_close(s);
        OK(mqsync_store_backup(dir, copy, NULL, NULL, &error));
        s = open_store();
        c = ensure(s, "c");
        for (unsigned i = 0; i < changes; i++) {
            put(s, c, "b", "{}", mqsync_time_now());
            settle(s);
        }
        mqsync_store_close(s);
        open_at_rename = true;
        OK(mqsync_store_restore(dir, copy, NULL, NULL, &error));
        ck_assert(!open_at_rename);
        s = open_store();
        ck_assert_str_ne(mqsync_store_epoch(s), epoch);
        OK(get(s, ensure(s, "c"), "a", &r));
        ck_assert_int_eq(get(s, ensure(s, "c"), "b", &r), MQSYNC_RECORD_NOT_FOUND);
        mqsync_store_close(s);
        kill(early_reader, SIGKILL);
        waitpid(early_reader, NULL, 0);
        remove_dir();
    }
}
END_TEST

/* Few changes wait for each other, ten seconds; when they are few no longer the mover is told. */
START_TEST(many_changes_do_not_wait_as_long_as_few)
{
    static char data[4096];
    struct mqsync_store_stat stat;
    options.batch_bytes = 0;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    memset(data, ' ', sizeof data - 1);
    data[0] = '{', data[sizeof data - 2] = '}';
    put(s, c, "few", "{}", mqsync_time_now());
    usleep(300 * 1000); /* the mover sleeps */
    for (char id[] = "a"; *id <= 'z'; ++*id)
        put(s, c, id, data, mqsync_time_now());
    int64_t until = mqsync_time_now() + 6000;
    do {
        usleep(1000);
        mqsync_store_stat(s, &stat);
    } while (stat.log_bytes > 0 && mqsync_time_now() < until);
    ck_assert_uint_eq(stat.log_bytes, 0);
    mqsync_store_close(s);
}
END_TEST

START_TEST(half_a_backup_is_none)
{
    char copy[300], file[320];
    struct mqsync_store *s = open_store();
    put(s, ensure(s, "c"), "a", "{}", mqsync_time_now());
    mqsync_store_close(s);
    snprintf(copy, sizeof copy, "%s/copy", dir);
    snprintf(file, sizeof file, "%s/data.mdb", copy);
    pid_t pid = fork();
    if (pid == 0) {
        die_at_rename = true;
        mqsync_store_backup(dir, copy, NULL, NULL, &error);
        _exit(EXIT_SUCCESS);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_ne(access(file, F_OK), 0);
    ck_assert(mqsync_store_restore(dir, copy, NULL, NULL, &error) != MQSYNC_OK);
    nftw(copy, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    OK(mqsync_store_backup(dir, copy, NULL, NULL, &error));
    ck_assert_int_eq(access(file, F_OK), 0);
    OK(mqsync_store_restore(dir, copy, NULL, NULL, &error));
}
END_TEST

static int read_until_killed(const char *directory)
{
    struct mqsync_reader *reader;
    if (mqsync_reader_open(directory, &reader, &error) == MQSYNC_OK && write(STDOUT_FILENO, "r", 1) == 1)
        pause();
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--read") == 0)
        return read_until_killed(argv[2]);
    TCase *tc = tcase_create("store-threads");
    tcase_add_checked_fixture(tc, setup, remove_dir);
    tcase_add_test(tc, a_settled_view_is_one_moment);
    tcase_add_test(tc, a_part_of_a_batch_is_moved_again);
    tcase_add_test(tc, a_recovery_that_is_killed_loses_nothing);
    tcase_add_test(tc, what_is_forgotten_is_known_to_be);
    tcase_add_test(tc, the_map_grows_while_nothing_is_moved);
    tcase_add_test(tc, restarts_on_a_full_disk_lose_nothing);
    tcase_add_test(tc, what_was_refused_is_not_kept);
    tcase_add_test(tc, who_reads_while_a_backup_is_restored_harms_nobody);
    tcase_add_test(tc, many_changes_do_not_wait_as_long_as_few);
    tcase_add_test(tc, half_a_backup_is_none);
    return run_tests("store-threads", tc);
}
