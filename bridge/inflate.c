/* SPDX-License-Identifier: BSD-3-Clause */
/* What libwebsockets (4.1 to 4.3) has read and not yet inflated, since the message it becomes is longer than its
 * buffer, it leaves where it was read to and goes on with in a later turn of the loop. All connections read to the same
 * place, so what another one has sent meanwhile would be inflated instead. Here it is copied first. */
#include "inflate.h"

#include <stdlib.h>
#include <string.h>

/* As libwebsockets' own headers have it, which are not installed. */
enum { HAS_PENDING = 2 };
struct buffers {
    struct lws_tokens in, out;
};

struct inflater {
    void *library; /* its own state */
    unsigned char *copy;
};

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
    result = lws_extension_callback_pm_deflate(context, extension, wsi, LWS_EXT_CB_PAYLOAD_RX, inflater->library, b, 0);
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
