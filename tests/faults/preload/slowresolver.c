/* SPDX-License-Identifier: BSD-3-Clause */
/* A name server that is far away: names in .slow take five seconds, which standard error is told of, and are then not
 * known. */
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

__attribute__((visibility("default"))) int getaddrinfo(const char *node, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **ret)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    size_t n = node ? strlen(node) : 0;

    if (n > 5 && strcmp(node + n - 5, ".slow") == 0) {
        fprintf(stderr, "slowresolver: looking for %s\n", node);
        sleep(5);
        return EAI_NONAME;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(node, service, hints, ret);
}
