/* SPDX-License-Identifier: BSD-3-Clause */
/* What can go wrong, in the protocol's words. Foreign errors (LMDB, Mosquitto, errno) are mapped to these once, where
 * they come in. */
#ifndef MQSYNC_ERROR_H
#define MQSYNC_ERROR_H

enum mqsync_code {
    MQSYNC_OK = 0,
    MQSYNC_AUTH_FAILED,
    MQSYNC_UNAUTHORIZED,
    MQSYNC_INVALID_MESSAGE,
    MQSYNC_COLLECTION_NOT_FOUND,
    MQSYNC_RECORD_NOT_FOUND,
    MQSYNC_RATE_LIMIT_EXCEEDED,
    MQSYNC_SERVER_ERROR,
    MQSYNC_CONFLICT,
};

struct mqsync_error {
    enum mqsync_code code;
    char text[512]; /* for a person: names the field and what was expected; always NUL-terminated. Room for what is
                     * allowed behind the longest path, key and value that an error about the configuration shows */
};

/* The protocol's name of a code, e.g. "INVALID_MESSAGE"; a static string. */
const char *mqsync_code_name(enum mqsync_code code);

/* Fills *e (may be NULL) printf-style, cutting the text to fit at a UTF-8 boundary. */
void mqsync_error_set(struct mqsync_error *e, enum mqsync_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts ? for each byte of a control character (up to U+001F, U+007F to U+009F), for a line of a log or a terminal. */
void mqsync_text_tame(char *text);

static inline enum mqsync_code mqsync_error_code(enum mqsync_code code)
{
    return code;
}

/* The same, and has the code as its value, so that a function can `return mqsync_fail(e, ...)`. A macro, so that
 * whoever analyses one source file sees that this is the code and not MQSYNC_OK. */
#define mqsync_fail(e, code, ...) (mqsync_error_set((e), (code), __VA_ARGS__), mqsync_error_code(code))

#endif
