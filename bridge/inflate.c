/* SPDX-License-Identifier: BSD-3-Clause */
/* What libwebsockets (4.1 to 4.3) has read and not yet inflated, since the message it becomes is longer than its
 * buffer, it leaves where it was read to and goes on with in a later turn of the loop. All connections read to the same
 * place, so what another one has sent meanwhile would be inflated instead. Here it is copied first.
 *
 * Where its buffer is full and the input used up, it believes that nothing is left inside zlib and goes on with the end
 * of the message; when there is more, an assertion of its ends the bridge. So its calls of inflate() come here first,
 * as in ahead.h: input is said to be left exactly when at least one more byte of output is there. */
#include "inflate.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* As libwebsockets' own headers have it, which are not installed. */
enum { HAS_PENDING = 2 };
struct buffers {
    struct lws_tokens in, out;
};

struct inflater {
    void *library; /* its own state */
    unsigned char *copy;
    unsigned char ahead; /* a byte of output that did not fit any more */
    bool has_ahead;
    bool pretends; /* the input is used up, and the library was told that one byte of it is left */
};

static struct inflater *running; /* for which the library calls inflate(); NULL: for none */

/* --- what the library calls --------------------------------------------------------------------------------------- */

/* zlib's. A stream may say that it ends (BFINAL) while the connection goes on: RFC 7692, 7.2.3.4. */
static int inflate_on(z_stream *z, int flush)
{
    static int (*theirs)(z_stream *, int), (*reset)(z_stream *);
    int result;

    if (!theirs) {
        *(void **)(void *)&reset = dlsym(RTLD_NEXT, "inflateReset");
        *(void **)(void *)&theirs = dlsym(RTLD_NEXT, "inflate");
    }
    if (!running)
        return theirs(z, flush);
    do
        result = theirs(z, flush);
    while (result == Z_STREAM_END && (result = reset(z)) == Z_OK && z->avail_in && z->avail_out);
    return result;
}

/* The library has room for output. Afterwards either all the input is used up, and all that becomes of it is there; or
 * there is more of both. */
static int inflate_turn(struct inflater *inflater, z_stream *z)
{
    static unsigned char nothing;
    unsigned char *out;
    int result = Z_OK;

    if (inflater->pretends)
        z->avail_in = 0;
    inflater->pretends = false;
    if (inflater->has_ahead) {
        *z->next_out++ = inflater->ahead;
        z->avail_out--;
    }
    inflater->has_ahead = false;
    result = inflate_on(z, Z_NO_FLUSH);
    if (z->avail_out || (result != Z_OK && result != Z_BUF_ERROR))
        return result;
    out = z->next_out;
    z->next_out = &inflater->ahead;
    z->avail_out = 1;
    result = inflate_on(z, Z_NO_FLUSH);
    inflater->has_ahead = z->avail_out == 0;
    z->next_out = out;
    z->avail_out = 0;
    if (inflater->has_ahead && !z->avail_in) {
        inflater->pretends = true;
        z->next_in = &nothing;
        z->avail_in = 1;
    }
    return result;
}

__attribute__((visibility("default"))) int inflate(z_stream *z, int flush)
{
    int result;

    if (running && flush == Z_NO_FLUSH)
        return inflate_turn(running, z);
    result = inflate_on(z, flush);
    /* the four bytes with which each message ends become no output, unless it was broken off before them */
    return running && !z->avail_out ? Z_DATA_ERROR : result;
}

/* --- the extension ------------------------------------------------------------------------------------------------ */

static int inflate_copy(struct inflater *inflater, struct lws_context *context, const struct lws_extension *extension,
                        struct lws *wsi, struct buffers *b)
{
    unsigned char *read = b->in.token, *copy = NULL;
    int result;

    if (!inflater->copy && read && b->in.len > 0) {
        copy = malloc((size_t)b->in.len);
        if (!copy)
            return -1;
        memcpy(copy, read, (size_t)b->in.len);
        inflater->copy = b->in.token = copy;
    }
    running = inflater;
    result = lws_extension_callback_pm_deflate(context, extension, wsi, LWS_EXT_CB_PAYLOAD_RX, inflater->library, b, 0);
    running = NULL;
    if (copy)
        b->in.token = read + (b->in.token - copy);
    if (result != HAS_PENDING) {
        free(inflater->copy);
        inflater->copy = NULL;
    }
    if (result < 0) /* nobody looks at the result when it was a later turn's */
        lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
    return result;
}

static int construct(struct lws_context *context, const struct lws_extension *extension, struct lws *wsi, void **user,
                     void *in)
{
    struct inflater *inflater = calloc(1, sizeof(*inflater));
    int result = -1;

    if (inflater)
        result =
            lws_extension_callback_pm_deflate(context, extension, wsi, LWS_EXT_CB_CONSTRUCT, &inflater->library, in, 0);
    if (result)
        free(inflater);
    else
        *user = inflater;
    return result;
}

int mqsync_inflate(struct lws_context *context, const struct lws_extension *extension, struct lws *wsi,
                   enum lws_extension_callback_reasons reason, void *user, void *in, size_t n)
{
    struct inflater *inflater = user;
    int result;

    if (reason == LWS_EXT_CB_CONSTRUCT)
        return construct(context, extension, wsi, user, in);
    if (!inflater)
        return 0;
    if (reason == LWS_EXT_CB_PAYLOAD_RX)
        return inflate_copy(inflater, context, extension, wsi, in);
    result = lws_extension_callback_pm_deflate(context, extension, wsi, reason, inflater->library, in, n);
    if (reason == LWS_EXT_CB_DESTROY) {
        free(inflater->copy);
        free(inflater);
    }
    return result;
}
