/* SPDX-License-Identifier: BSD-3-Clause */
#include "error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

const char *mqsync_code_name(enum mqsync_code code)
{
    switch (code) {
    case MQSYNC_OK:
        return "OK";
    case MQSYNC_AUTH_FAILED:
        return "AUTH_FAILED";
    case MQSYNC_UNAUTHORIZED:
        return "UNAUTHORIZED";
    case MQSYNC_INVALID_MESSAGE:
        return "INVALID_MESSAGE";
    case MQSYNC_COLLECTION_NOT_FOUND:
        return "COLLECTION_NOT_FOUND";
    case MQSYNC_RECORD_NOT_FOUND:
        return "RECORD_NOT_FOUND";
    case MQSYNC_RATE_LIMIT_EXCEEDED:
        return "RATE_LIMIT_EXCEEDED";
    case MQSYNC_SERVER_ERROR:
        return "SERVER_ERROR";
    case MQSYNC_CONFLICT:
        return "CONFLICT";
    }
    return "SERVER_ERROR";
}

/* Where a text of n bytes that goes on must be cut so that no character is split. */
static size_t whole_characters(const char *text, size_t n)
{
    size_t lead = n;

    while (lead > 0 && n - lead < 3 && ((unsigned char)text[lead - 1] & 0xC0) == 0x80)
        lead--;
    if (lead == 0)
        return n;

    unsigned char c = (unsigned char)text[lead - 1];
    size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    return length > n - (lead - 1) ? lead - 1 : n;
}

void mqsync_error_set(struct mqsync_error *e, enum mqsync_code code, const char *fmt, ...)
{
    if (!e)
        return;

    /* not straight into e->text: it may be among the arguments, when a text is wrapped in another */
    char text[sizeof(e->text)];
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    size_t n = length < 0 ? 0 : (size_t)length;
    if (n >= sizeof(text))
        n = whole_characters(text, sizeof(text) - 1);
    memcpy(e->text, text, n);
    e->text[n] = '\0';
    e->code = code;
}

void mqsync_text_tame(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if (*p == 0xC2 && p[1] >= 0x80 && p[1] <= 0x9F) {
            *p++ = '?';
            *p = '?';
        } else if (*p < 0x20 || *p == 0x7F) {
            *p = '?';
        }
    }
}
