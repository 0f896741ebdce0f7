/* SPDX-License-Identifier: BSD-3-Clause */
/* What /metrics shows, in Prometheus' text format. */
#ifndef MQSYNC_BRIDGE_METRICS_H
#define MQSYNC_BRIDGE_METRICS_H

#include "message.h"

enum { MQSYNC_LATENCY_BUCKETS = 12 };

struct mqsync_metrics {
    uint64_t connections_total, refused_connections;
    uint64_t http_requests;
    uint64_t messages[MQSYNC_TYPES_N]; /* from clients, by type */
    uint64_t invalid_messages;
    uint64_t errors[MQSYNC_CONFLICT + 1]; /* to clients, by code */
    uint64_t events;                      /* from the broker */
    uint64_t wills;                       /* carried out */
    uint64_t deliveries;                  /* messages written to clients */
    uint64_t delivered_bytes;
    uint64_t conflicts; /* winners sent to those who lost */
    uint64_t collapses;
    uint64_t upstream_losses;
    uint64_t tunnel_bytes_in, tunnel_bytes_out;   /* of MQTT, from clients and to them */
    uint64_t latency[MQSYNC_LATENCY_BUCKETS + 1]; /* from command to event; the last: above all bounds */
    uint64_t latency_us;
    /* now */
    int64_t started_ms; /* since 1970 */
    bool upstream_up;
    size_t connections; /* all of them */
    size_t tunnels;     /* those to /mqtt */
    size_t subscriptions, queue_bytes, http_open;
};

void mqsync_metrics_latency(struct mqsync_metrics *m, int64_t us);
void mqsync_metrics_print(const struct mqsync_metrics *m, struct mqsync_buf *out);

#endif
