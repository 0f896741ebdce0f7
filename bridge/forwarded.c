/* SPDX-License-Identifier: BSD-3-Clause */
#include "forwarded.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* IPv4 as IPv6 has it, ::ffff:a.b.c.d, so that there is one kind to compare. */
struct address {
    unsigned char bytes[16];
};

enum { IPV4_BITS = 96 };

static bool parse(const char *text, size_t n, struct address *ret, bool *ret_ipv4)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    char copy[MQSYNC_ADDRESS_LEN];

    if (n >= sizeof(copy))
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    *ret_ipv4 = inet_pton(AF_INET, copy, ret->bytes + sizeof(mapped)) == 1;
    if (!*ret_ipv4)
        return inet_pton(AF_INET6, copy, ret->bytes) == 1;
    memcpy(ret->bytes, mapped, sizeof(mapped));
    return true;
}

static bool within(const struct address *a, const struct address *network, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    return memcmp(a->bytes, network->bytes, whole) == 0 &&
           (rest == 0 || (a->bytes[whole] ^ network->bytes[whole]) >> (8 - rest) == 0);
}

static bool trusted(const struct mqsync_config *config, const char *text)
{
    struct address a, network;
    bool ipv4, known = parse(text, strlen(text), &a, &ipv4);

    for (size_t i = 0; i < config->bridge.trusted_proxies_n; i++) {
        const char *entry = config->bridge.trusted_proxies[i];
        size_t n = strcspn(entry, "/");
        unsigned bits;
        if (strcmp(entry, text) == 0)
            return true;
        if (!known || !parse(entry, n, &network, &ipv4))
            continue;
        bits = entry[n] ? (unsigned)strtoul(entry + n + 1, NULL, 10) + (ipv4 ? IPV4_BITS : 0) : 128;
        if (within(&a, &network, bits))
            return true;
    }
    return false;
}

/* The address in an entry: as it is, in brackets, and with a port or without. False: it is none. */
static bool read_entry(struct mqsync_slice entry, char ret[static MQSYNC_ADDRESS_LEN])
{
    struct address a;
    bool ipv4;
    const char *end;

    entry = mqsync_slice_trim(entry);
    if (entry.n && *entry.p == '[') {
        end = memchr(entry.p, ']', entry.n);
        if (!end)
            return false;
        entry = (struct mqsync_slice){entry.p + 1, (size_t)(end - entry.p - 1)};
    } else if ((end = entry.n ? memchr(entry.p, ':', entry.n) : NULL) &&
               memchr(entry.p, '.', (size_t)(end - entry.p))) {
        entry.n = (size_t)(end - entry.p);
    }
    if (!parse(entry.p, entry.n, &a, &ipv4))
        return false;
    /* one form for each address: it is what clients are counted by */
    if (memcmp(a.bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0)
        return inet_ntop(AF_INET, a.bytes + 12, ret, MQSYNC_ADDRESS_LEN);
    return inet_ntop(AF_INET6, a.bytes, ret, MQSYNC_ADDRESS_LEN);
}

void mqsync_forwarded(const struct mqsync_config *config, const char *peer, struct mqsync_slice header,
                      char ret[static MQSYNC_ADDRESS_LEN])
{
    strncpy(ret, peer, MQSYNC_ADDRESS_LEN - 1);
    ret[MQSYNC_ADDRESS_LEN - 1] = '\0';
    while (header.n && trusted(config, ret)) {
        const char *comma = memrchr(header.p, ',', header.n);
        const char *start = comma ? comma + 1 : header.p;
        struct mqsync_slice entry = {start, header.n - (size_t)(start - header.p)};
        if (!read_entry(entry, ret))
            return;
        header.n = comma ? (size_t)(comma - header.p) : 0;
    }
}
