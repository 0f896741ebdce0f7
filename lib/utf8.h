/* SPDX-License-Identifier: BSD-3-Clause */
/* One character of UTF-8 at a time, for the few places that must look at text that is not plain ASCII. */
#ifndef MQSYNC_UTF8_H
#define MQSYNC_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed character at p (RFC 3629: no overlong form, no surrogate, nothing past U+10FFFF) with n > 0
 * bytes left; its code point in *ret. 0, *ret untouched, when there is none. */
static inline size_t mqsync_utf8_char(const char *p, size_t n, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c = (unsigned char)p[0];
    if (c < 0x80) {
        *ret = c;
        return 1;
    }
    size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    if (c < 0xC2 || c > 0xF4 || length > n)
        return 0;
    c &= 0x7Fu >> length;
    for (size_t i = 1; i < length; i++) {
        unsigned char next = (unsigned char)p[i];
        if ((next & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (next & 0x3F);
    }
    if (c < least[length] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return 0;
    *ret = c;
    return length;
}

#endif
