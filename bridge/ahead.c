/* SPDX-License-Identifier: BSD-3-Clause */
#include "ahead.h"

#include <dlfcn.h>
#include <libwebsockets.h>
#include <stdint.h>

enum {
    WSI_BYTES_MAX = 4096, /* the list's head is a member of the library's struct lws, which has less */
};

static uintptr_t head_offset;    /* of the head in a struct lws; 0: not seen yet */
static uintptr_t hidden;         /* the head of the list that is hidden once; 0: none is */
static uintptr_t last_asked_for; /* a head; 0: the library has not asked */

size_t lws_buflist_next_segment_len(struct lws_buflist **head, uint8_t **buf)
{
    static size_t (*theirs)(struct lws_buflist **, uint8_t **);

    last_asked_for = (uintptr_t)head;
    if (hidden == last_asked_for) {
        hidden = 0;
        if (buf)
            *buf = NULL;
        return 0;
    }
    if (!theirs)
        *(void **)(void *)&theirs = dlsym(RTLD_NEXT, "lws_buflist_next_segment_len");
    return theirs(head, buf);
}

void mqsync_ahead_expect_body(struct lws *wsi)
{
    hidden = head_offset ? (uintptr_t)wsi + head_offset : 0;
}

void mqsync_ahead_forget(void)
{
    hidden = 0;
}

/* Here the library asks whether there is more, so this is where the place of the head is learned: before any request
 * that was sent ahead. */
int mqsync_ahead_completed(struct lws *wsi)
{
    last_asked_for = 0;
    if (lws_http_transaction_completed(wsi) || last_asked_for <= (uintptr_t)wsi ||
        last_asked_for - (uintptr_t)wsi >= WSI_BYTES_MAX)
        return -1;
    head_offset = last_asked_for - (uintptr_t)wsi;
    return 0;
}
