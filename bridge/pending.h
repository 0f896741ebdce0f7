/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands on their way: whose they are, until the broker has acknowledged them. */
#ifndef MQSYNC_BRIDGE_PENDING_H
#define MQSYNC_BRIDGE_PENDING_H

#include "buf.h"

enum { MQSYNC_PENDING_MAX = 32768 };

struct mqsync_pending_command {
    uint64_t mark;    /* on the command and its event; cannot be guessed; 0: unused */
    uint64_t session; /* or HTTP request, or MQSYNC_WILL_SENDER */
    int64_t sent_us;
    size_t bytes;   /* of its payload */
    uint16_t mid;   /* 0: not sent yet */
    bool announced; /* its event has been seen */
    bool refused;   /* by the broker; the plugin's answer, if it was the plugin that refused, is to come */
};

/* Zero-initialise to start. */
struct mqsync_pending {
    struct mqsync_pending_command *slots;
    uint16_t *free;   /* of slots */
    uint16_t *by_mid; /* slot + 1 */
    uint32_t free_n, refused_n;
    uint64_t secret, counter;
};

/* Nothing waits for the broker. */
static inline bool mqsync_pending_idle(const struct mqsync_pending *p)
{
    return p->free_n + p->refused_n == MQSYNC_PENDING_MAX;
}

/* False: out of memory, or no random number was to be had; close it all the same. */
bool mqsync_pending_open(struct mqsync_pending *p);
void mqsync_pending_close(struct mqsync_pending *p);

/* A command about to be sent; NULL: too many are on their way. */
struct mqsync_pending_command *mqsync_pending_add(struct mqsync_pending *p, uint64_t session, size_t bytes,
                                                  int64_t now_us);
/* It has been sent under that message id. */
void mqsync_pending_sent(struct mqsync_pending *p, struct mqsync_pending_command *c, uint16_t mid);
void mqsync_pending_remove(struct mqsync_pending *p, struct mqsync_pending_command *c);
struct mqsync_pending_command *mqsync_pending_by_mid(struct mqsync_pending *p, uint16_t mid);   /* NULL: none */
struct mqsync_pending_command *mqsync_pending_by_mark(struct mqsync_pending *p, uint64_t mark); /* NULL: none */
void mqsync_pending_refused(struct mqsync_pending *p, struct mqsync_pending_command *c);
/* One that was sent before that time, was refused and never answered: the broker's own ACLs have refused it. NULL:
 * none. */
struct mqsync_pending_command *mqsync_pending_unanswered(struct mqsync_pending *p, int64_t before_us);
/* By mark, once: a second event with the same mark is somebody else's. NULL: none. */
struct mqsync_pending_command *mqsync_pending_announce(struct mqsync_pending *p, uint64_t mark);

#endif
