/* SPDX-License-Identifier: BSD-3-Clause */
/* A system that refuses what LMDB counts on: no room for a larger map, a disk that does not take the page that ends a
 * transaction. mmap and pwrite are this program's own, for the library as well. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store_dir.h"
#include "unit.h"

static atomic_size_t largest_map = SIZE_MAX;
static atomic_bool meta_fails;

/* Without the thread sanitizer, which calls mmap() before it can be called itself. */
#define EXPORTED __attribute__((visibility("default"), no_sanitize("thread")))

EXPORTED void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    if (fd >= 0 && n > largest_map) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset); /* NOLINT */
}

/* LMDB's pages are written whole; of the two that say which transaction is the last one, some bytes are. */
EXPORTED ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    if (meta_fails && n < 256 && offset < 2 * 4096 && offset > 0) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, n, offset);
}

static void setup(void)
{
    make_dir();
    options.sync_interval_ms = 20;
    options.batch_bytes = 100000;
}

static char data[20001];

static enum mqsync_code write_number(struct mqsync_store *s, struct mqsync_collection *c, unsigned i)
{
    char id[16];
    snprintf(id, sizeof id, "x%u", i);
    return try_write(s, c, id, data, mqsync_time_now(), NULL);
}

static void expect_all(struct mqsync_store *s, struct mqsync_collection *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        static struct mqsync_record r;
        uint64_t floor;
        char id[16];
        snprintf(id, sizeof id, "x%u", i);
        OK(mqsync_store_get(s, c, mqsync_slice_str(id), &r, &floor, &error));
        ck_assert(mqsync_slice_equal(r.data, mqsync_slice_str(data)));
    }
}

/* Until all is in LMDB. */
static void settle(struct mqsync_store *s, struct mqsync_collection *c)
{
    struct mqsync_store_stat stat;
    for (int tries = 0; tries < 500; tries++) {
        static struct mqsync_record r;
        struct mqsync_view *v;
        uint64_t floor;
        mqsync_store_get(s, c, MQSYNC_SLICE("x0"), &r, &floor, &error); /* the writer's next call has its part in it */
        if (mqsync_view_settled(s, 20, &v, &error) == MQSYNC_OK)
            mqsync_view_close(v);
        mqsync_store_stat(s, &stat);
        if (!stat.failing && stat.log_bytes == 0)
            return;
        usleep(10000);
    }
    ck_abort_msg("not moved");
}

START_TEST(a_map_that_cannot_grow)
{
    options.map_bytes = 1 << 20;
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    largest_map = 1 << 20;
    for (unsigned i = 0; i < 100; i++) {
        OK(write_number(s, c, i));
        usleep(5000);
    }
    expect_all(s, c, 100);
    largest_map = SIZE_MAX;
    settle(s, c);
    expect_all(s, c, 100);
    mqsync_store_close(s);
    check_database();
}
END_TEST

/* The store's threads have descriptors of their own, and those of what is opened later have other numbers. */
START_TEST(a_transaction_that_cannot_end)
{
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct mqsync_store *s = open_store();
    struct mqsync_collection *c = ensure(s, "c");
    for (unsigned i = 0; i < 20; i++)
        OK(write_number(s, c, i));
    settle(s, c);
    close(before);
    meta_fails = true;
    for (unsigned i = 20; i < 60; i++) {
        write_number(s, c, i);
        usleep(5000);
    }
    struct mqsync_store_stat stat;
    mqsync_store_stat(s, &stat);
    ck_assert(stat.failing);
    meta_fails = false;
    settle(s, c);
    for (unsigned i = 20; i < 60; i++)
        OK(write_number(s, c, i));
    expect_all(s, c, 60);
    settle(s, c);
    mqsync_store_close(s);
    check_database();
    s = open_store();
    expect_all(s, ensure(s, "c"), 60);
    mqsync_store_close(s);
}
END_TEST

int main(void)
{
    memset(data, ' ', 20000);
    memcpy(data, "{\"x\":1", 6);
    data[19999] = '}';
    TCase *tc = tcase_create("store, failing");
    tcase_add_checked_fixture(tc, setup, remove_dir);
    tcase_add_test(tc, a_map_that_cannot_grow);
    tcase_add_test(tc, a_transaction_that_cannot_end);
    return run_tests("store, failing", tc);
}
