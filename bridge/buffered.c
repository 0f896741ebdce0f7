/* SPDX-License-Identifier: BSD-3-Clause */
#include "buffered.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { BUFFER_BYTES = 65536 };

static struct {
    int fd;     /* -1: none. Other threads compare theirs with it */
    bool asked; /* in this turn */
    size_t in_at, in_n, out_at, out_n;
    char in[BUFFER_BYTES], out[BUFFER_BYTES];
} buffered = {.fd = -1};

static bool is_buffered(int fd)
{
    return fd >= 0 && fd == __atomic_load_n(&buffered.fd, __ATOMIC_RELAXED);
}

void mqsync_buffered_attach(int fd)
{
    if (fd == buffered.fd)
        return;
    buffered.in_at = buffered.in_n = buffered.out_at = buffered.out_n = 0;
    buffered.asked = false;
    __atomic_store_n(&buffered.fd, fd, __ATOMIC_RELAXED);
}

void mqsync_buffered_turn(void)
{
    buffered.asked = false;
}

size_t mqsync_buffered_input(void)
{
    return buffered.in_n - buffered.in_at;
}

bool mqsync_buffered_flush(void)
{
    while (buffered.out_at < buffered.out_n) {
        long done = syscall(SYS_write, buffered.fd, buffered.out + buffered.out_at, buffered.out_n - buffered.out_at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return false;
        buffered.out_at = done < 0 ? buffered.out_n : buffered.out_at + (size_t)done;
    }
    buffered.out_at = buffered.out_n = 0;
    return true;
}

/* --- in place of the C library's ---------------------------------------------------------------------------------- */

/* Seen by the libraries, unlike everything else here. Under names of their own, since <unistd.h> may have made inline
 * functions of theirs. */
#define IN_PLACE_OF(name) __asm__(name) __attribute__((visibility("default")))
ssize_t mqsync_buffered_read(int fd, void *bytes, size_t n) IN_PLACE_OF("read");
ssize_t mqsync_buffered_write(int fd, const void *bytes, size_t n) IN_PLACE_OF("write");
int mqsync_buffered_close(int fd) IN_PLACE_OF("close");

ssize_t mqsync_buffered_read(int fd, void *bytes, size_t n)
{
    if (!is_buffered(fd))
        return syscall(SYS_read, fd, bytes, n);
    if (mqsync_buffered_input() == 0) {
        if (buffered.asked) {
            errno = EAGAIN;
            return -1;
        }
        buffered.asked = true;
        if (n >= sizeof(buffered.in))
            return syscall(SYS_read, fd, bytes, n);
        long got = syscall(SYS_read, fd, buffered.in, sizeof(buffered.in));
        if (got <= 0)
            return got;
        buffered.in_at = 0;
        buffered.in_n = (size_t)got;
    }
    if (n > buffered.in_n - buffered.in_at)
        n = buffered.in_n - buffered.in_at;
    memcpy(bytes, buffered.in + buffered.in_at, n);
    buffered.in_at += n;
    return (ssize_t)n;
}

ssize_t mqsync_buffered_write(int fd, const void *bytes, size_t n)
{
    if (!is_buffered(fd))
        return syscall(SYS_write, fd, bytes, n);
    if (n > sizeof(buffered.out) - buffered.out_n && !mqsync_buffered_flush()) {
        errno = EAGAIN;
        return -1;
    }
    if (n > sizeof(buffered.out))
        return syscall(SYS_write, fd, bytes, n);
    memcpy(buffered.out + buffered.out_n, bytes, n);
    buffered.out_n += n;
    return (ssize_t)n;
}

int mqsync_buffered_close(int fd)
{
    if (is_buffered(fd)) {
        mqsync_buffered_flush();
        mqsync_buffered_attach(-1);
    }
    return (int)syscall(SYS_close, fd);
}
