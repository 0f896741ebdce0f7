/* SPDX-License-Identifier: BSD-3-Clause */
/* bridge/buffered.c, which in this program takes the place of the C library's read(), write() and close() as well. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buffered.h"
#include "unit.h"

enum { OURS, PEER };

static int fd[2];

static void set_up(void)
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    mqsync_buffered_attach(fd[OURS]);
}

static void tear_down(void)
{
    close(fd[OURS]);
    close(fd[PEER]);
}

static void peer_sends(const char *text)
{
    ck_assert_int_eq(write(fd[PEER], text, strlen(text)), (ssize_t)strlen(text));
}

static int waiting(int socket)
{
    int n = -1;

    ck_assert_int_eq(ioctl(socket, FIONREAD, &n), 0);
    return n;
}

static void assert_again(ssize_t result)
{
    ck_assert_int_eq(result, -1);
    ck_assert_int_eq(errno, EAGAIN);
}

START_TEST(reads_ask_the_system_once_a_turn)
{
    char bytes[8];

    peer_sends("abc");
    mqsync_buffered_turn();
    ck_assert_int_eq(read(fd[OURS], bytes, 1), 1);
    ck_assert_int_eq(bytes[0], 'a');
    ck_assert_uint_eq(mqsync_buffered_input(), 2);
    ck_assert_int_eq(waiting(fd[OURS]), 0);
    peer_sends("de");
    ck_assert_int_eq(read(fd[OURS], bytes, sizeof(bytes)), 2);
    ck_assert(memcmp(bytes, "bc", 2) == 0);
    assert_again(read(fd[OURS], bytes, sizeof(bytes)));
    mqsync_buffered_turn();
    ck_assert_int_eq(read(fd[OURS], bytes, sizeof(bytes)), 2);
    ck_assert(memcmp(bytes, "de", 2) == 0);
    mqsync_buffered_turn();
    assert_again(read(fd[OURS], bytes, 1));
    ck_assert_int_eq(shutdown(fd[PEER], SHUT_WR), 0);
    mqsync_buffered_turn();
    ck_assert_int_eq(read(fd[OURS], bytes, 1), 0);
}
END_TEST

START_TEST(writes_wait_for_each_other)
{
    char bytes[8];

    ck_assert_int_eq(write(fd[OURS], "ab", 2), 2);
    ck_assert_int_eq(write(fd[OURS], "c", 1), 1);
    ck_assert_int_eq(waiting(fd[PEER]), 0);
    ck_assert(mqsync_buffered_flush());
    ck_assert_int_eq(read(fd[PEER], bytes, sizeof(bytes)), 3);
    ck_assert(memcmp(bytes, "abc", 3) == 0);
    ck_assert(mqsync_buffered_flush());
    assert_again(read(fd[PEER], bytes, 1));
}
END_TEST

START_TEST(closing_writes_the_rest)
{
    char bytes[8];
    int again;

    ck_assert_int_eq(write(fd[OURS], "bye", 3), 3);
    close(fd[OURS]);
    ck_assert_int_eq(read(fd[PEER], bytes, sizeof(bytes)), 3);
    ck_assert_int_eq(read(fd[PEER], bytes, sizeof(bytes)), 0);
    /* the next descriptor of that number is another one's */
    again = dup(fd[PEER]);
    ck_assert_int_eq(again, fd[OURS]);
    ck_assert_int_eq(read(again, bytes, 1), 0);
    ck_assert_int_eq(write(again, "x", 1), -1);
    ck_assert_int_eq(errno, EPIPE);
}
END_TEST

START_TEST(a_broken_connection_takes_everything)
{
    char bytes[8];

    close(fd[PEER]);
    ck_assert_int_eq(write(fd[OURS], "ab", 2), 2);
    ck_assert(mqsync_buffered_flush());
    mqsync_buffered_turn();
    ck_assert_int_eq(read(fd[OURS], bytes, 1), 0);
    fd[PEER] = -1;
}
END_TEST

START_TEST(another_one_begins_with_nothing)
{
    char bytes[8];
    int second[2];

    peer_sends("old");
    mqsync_buffered_turn();
    ck_assert_int_eq(read(fd[OURS], bytes, 1), 1);
    ck_assert_int_eq(write(fd[OURS], "old", 3), 3);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, second), 0);
    mqsync_buffered_attach(second[OURS]);
    ck_assert_uint_eq(mqsync_buffered_input(), 0);
    ck_assert(mqsync_buffered_flush());
    assert_again(read(second[PEER], bytes, 1));
    /* and the old one is like any other */
    ck_assert_int_eq(write(fd[OURS], "x", 1), 1);
    ck_assert_int_eq(waiting(fd[PEER]), 1);
    close(second[OURS]);
    close(second[PEER]);
}
END_TEST

/* --- whatever the sizes, both ways the bytes come out as they went in --------------------------------------------- */

enum { TOTAL = 8000000, PIECE_MAX = 150000 };

static char byte_at(size_t i)
{
    return (char)((i * 2654435761U) >> 13);
}

static size_t any_size(void)
{
    return 1 + (size_t)rand() % (rand() % 8 ? 400 : PIECE_MAX);
}

/* Writes some of what is left; returns how far it has got. */
static size_t write_some(int socket, size_t at)
{
    static char piece[PIECE_MAX];
    size_t n = any_size();
    ssize_t done;

    if (n > TOTAL - at)
        n = TOTAL - at;
    for (size_t i = 0; i < n; i++)
        piece[i] = byte_at(at + i);
    done = n ? write(socket, piece, n) : 0;
    if (done < 0)
        ck_assert_int_eq(errno, EAGAIN);
    return done < 0 ? at : at + (size_t)done;
}

static size_t read_some(int socket, size_t at)
{
    static char piece[PIECE_MAX];
    ssize_t n = read(socket, piece, any_size());

    if (n < 0)
        ck_assert_int_eq(errno, EAGAIN);
    for (ssize_t i = 0; i < n; i++)
        if (piece[i] != byte_at(at + (size_t)i))
            ck_abort_msg("byte %zu", at + (size_t)i);
    return n < 0 ? at : at + (size_t)n;
}

START_TEST(all_sizes)
{
    size_t out = 0, out_read = 0, in = 0, in_read = 0;

    srand((unsigned)_i);
    for (int turn = 0; out_read < TOTAL || in_read < TOTAL; turn++) {
        ck_assert_int_lt(turn, 10000000);
        mqsync_buffered_turn();
        for (int n = rand() % 20; n > 0; n--)
            in_read = read_some(fd[OURS], in_read);
        for (int n = rand() % 20; n > 0; n--)
            out = write_some(fd[OURS], out);
        mqsync_buffered_flush();
        in = write_some(fd[PEER], in);
        out_read = read_some(fd[PEER], out_read);
    }
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("buffered");

    signal(SIGPIPE, SIG_IGN);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, reads_ask_the_system_once_a_turn);
    tcase_add_test(c, writes_wait_for_each_other);
    tcase_add_test(c, closing_writes_the_rest);
    tcase_add_test(c, a_broken_connection_takes_everything);
    tcase_add_test(c, another_one_begins_with_nothing);
    tcase_add_loop_test(c, all_sizes, 0, 3);
    return run_tests("buffered", c);
}
