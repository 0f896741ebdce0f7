/* SPDX-License-Identifier: BSD-3-Clause */
/* permessage-deflate as libwebsockets has it, with some things mended: see inflate.c. */
#ifndef MQSYNC_BRIDGE_INFLATE_H
#define MQSYNC_BRIDGE_INFLATE_H

#include <libwebsockets.h>

/* For the table of extensions, in place of lws_extension_callback_pm_deflate. */
int mqsync_inflate(struct lws_context *context, const struct lws_extension *extension, struct lws *wsi,
                   enum lws_extension_callback_reasons reason, void *user, void *in, size_t n);

#endif
