/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory that runs out: LD_PRELOADed into a broker, some allocations fail that the plugin asks for. Which, the test
 * says in the file that MQSYNC_NOMEMORY names; there it also finds how many there were. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define FRAMES 24

void *__libc_malloc(size_t n);           /* NOLINT: glibc's own names */
void *__libc_calloc(size_t n, size_t m); /* NOLINT */
void *__libc_realloc(void *p, size_t n); /* NOLINT */

static struct orders {
    _Atomic uint32_t whose; /* 0: none fail; 1: the plugin's own and LMDB's; 2: what the broker allocates for it */
    _Atomic uint32_t after; /* so many are let through, */
    _Atomic uint32_t fails; /* then so many fail */
    _Atomic uint32_t seen, failed;
} * orders;
static __thread bool inside __attribute__((tls_model("initial-exec")));
static uintptr_t plugin_from, plugin_to, lmdb_from, lmdb_to;

static int note_place(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size, (void)context;
    bool plugin = strstr(info->dlpi_name, "mosquitto_mqsync.so"), lmdb = strstr(info->dlpi_name, "liblmdb");
    for (int i = 0; (plugin || lmdb) && i < info->dlpi_phnum; i++) {
        uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, to = from + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X))
            continue;
        *(plugin ? &plugin_from : &lmdb_from) = from;
        *(plugin ? &plugin_to : &lmdb_to) = to;
    }
    return 0;
}

static bool is_ours(const void *address)
{
    uintptr_t at = (uintptr_t)address;
    return (at >= plugin_from && at < plugin_to) || (at >= lmdb_from && at < lmdb_to);
}

__attribute__((constructor)) static void start(void)
{
    void *frames[FRAMES];
    const char *name = getenv("MQSYNC_NOMEMORY");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    void *p = fd >= 0 ? mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    backtrace(frames, FRAMES); /* loads a library the first time */
    orders = p == MAP_FAILED ? NULL : p;
}

static bool is_for_plugin(const void *caller)
{
    void *frames[FRAMES];
    bool own = is_ours(caller);
    if (own || orders->whose == 1)
        return own && orders->whose == 1;
    int n = backtrace(frames, FRAMES);
    for (int i = 0; i < n && !own; i++)
        own = is_ours(frames[i]);
    return own;
}

static bool fails(const void *caller)
{
    if (!orders || orders->whose == 0 || inside)
        return false;
    inside = true;
    if (!plugin_from)
        dl_iterate_phdr(note_place, NULL);
    bool failing = false;
    if (is_for_plugin(caller)) {
        uint32_t n = orders->seen++;
        failing = n >= orders->after && n - orders->after < orders->fails;
        orders->failed += failing;
    }
    inside = false;
    if (failing)
        errno = ENOMEM;
    return failing;
}

EXPORTED void *malloc(size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

EXPORTED void *calloc(size_t n, size_t m)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, m);
}

EXPORTED void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

EXPORTED char *strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
    return copy ? memcpy(copy, text, n) : NULL;
}
