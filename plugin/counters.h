/* SPDX-License-Identifier: BSD-3-Clause */
/* $SYS/broker/mqsync/...: retained, published when changed and at most every ten seconds. */
#ifndef MQSYNC_COUNTERS_H
#define MQSYNC_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

enum { MQSYNC_COUNTERS_N = 11 };

struct mqsync_counters {
    uint64_t writes;    /* accepted */
    uint64_t conflicts; /* whoever won */
    uint64_t refused;   /* messages answered with an error */
    uint64_t repeated;  /* changes that came again */
    uint64_t bytes;     /* of accepted commands' payloads */
    int64_t due_ms;     /* when to publish next; 0: at once */
    bool version_said;
    uint64_t published[MQSYNC_COUNTERS_N];
    bool ever[MQSYNC_COUNTERS_N];
};

struct mqsync_plugin;

/* Publishes what has changed if it is time. Broker's thread. */
void mqsync_counters_publish(struct mqsync_plugin *p, int64_t now_ms);

#endif
