/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk that takes its time: LD_PRELOADed into a broker, every sync waits MQSYNC_SYNC_MS milliseconds first. */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static void wait_first(void)
{
    const char *text = getenv("MQSYNC_SYNC_MS");
    long ms = text ? strtol(text, NULL, 10) : 0;
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

EXPORTED int fsync(int fd)
{
    wait_first();
    return REAL(fsync)(fd);
}

EXPORTED int fdatasync(int fd)
{
    wait_first();
    return REAL(fdatasync)(fd);
}

EXPORTED int msync(void *address, size_t n, int flags)
{
    wait_first();
    return REAL(msync)(address, n, flags);
}
