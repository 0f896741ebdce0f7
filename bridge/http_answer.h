/* SPDX-License-Identifier: BSD-3-Clause */
/* An HTTP answer, whoever makes it. */
#ifndef MQSYNC_BRIDGE_HTTP_ANSWER_H
#define MQSYNC_BRIDGE_HTTP_ANSWER_H

#include "buf.h"

struct mqsync_http_answer {
    unsigned status; /* 0: not known yet */
    const char *content_type;
    struct mqsync_buf body;
    bool more;            /* the body is not complete yet */
    bool broken;          /* and never will be: the connection has to end, so that the peer sees that */
    const char *allow;    /* the methods that the path has; NULL: not said */
    const char *policy;   /* Content-Security-Policy; NULL: none */
    unsigned retry_after; /* seconds; 0: not said */
    bool tells_websocket; /* which version of that protocol is spoken */
};

#endif
