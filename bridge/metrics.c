/* SPDX-License-Identifier: BSD-3-Clause */
#include "metrics.h"

#include "version.h"

static const unsigned bounds_us[MQSYNC_LATENCY_BUCKETS] = {100,   250,   500,    1000,   2000,    5000,
                                                           10000, 25000, 100000, 250000, 1000000, 5000000};

void mqsync_metrics_latency(struct mqsync_metrics *m, int64_t us)
{
    size_t i = 0;

    while (i < MQSYNC_LATENCY_BUCKETS && us > (int64_t)bounds_us[i])
        i++;
    m->latency[i]++;
    m->latency_us += us > 0 ? (uint64_t)us : 0;
}

static void head(struct mqsync_buf *out, const char *name, const char *type, const char *help)
{
    mqsync_buf_printf(out, "# HELP mqsync_bridge_%s %s\n# TYPE mqsync_bridge_%s %s\n", name, help, name, type);
}

static void print_latency(const struct mqsync_metrics *m, struct mqsync_buf *out)
{
    uint64_t sum = 0;

    head(out, "command_to_event_seconds", "histogram", "Time from a client's write to its event.");
    for (size_t i = 0; i < MQSYNC_LATENCY_BUCKETS; i++) {
        sum += m->latency[i];
        mqsync_buf_printf(out, "mqsync_bridge_command_to_event_seconds_bucket{le=\"%g\"} %llu\n", bounds_us[i] / 1e6,
                          (unsigned long long)sum);
    }
    sum += m->latency[MQSYNC_LATENCY_BUCKETS];
    mqsync_buf_printf(out, "mqsync_bridge_command_to_event_seconds_bucket{le=\"+Inf\"} %llu\n",
                      (unsigned long long)sum);
    mqsync_buf_printf(out, "mqsync_bridge_command_to_event_seconds_sum %.6f\n", (double)m->latency_us / 1e6);
    mqsync_buf_printf(out, "mqsync_bridge_command_to_event_seconds_count %llu\n", (unsigned long long)sum);
}

void mqsync_metrics_print(const struct mqsync_metrics *m, struct mqsync_buf *out)
{
    static const struct mqsync_operation operations[] = {MQSYNC_OPERATIONS};
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"connections", "gauge", "WebSocket connections now.", m->connections},
        {"connections_total", "counter", "WebSocket connections ever.", m->connections_total},
        {"tunnels", "gauge", "Of these, those that carry MQTT.", m->tunnels},
        {"tunnel_received_bytes_total", "counter", "Bytes of MQTT from WebSocket clients to the broker.",
         m->tunnel_bytes_in},
        {"tunnel_sent_bytes_total", "counter", "Bytes of MQTT from the broker to WebSocket clients.",
         m->tunnel_bytes_out},
        {"refused_connections_total", "counter", "Connections refused because there were maxConnections.",
         m->refused_connections},
        {"http_open", "gauge", "HTTP requests under /sync being answered.", m->http_open},
        {"http_requests_total", "counter", "HTTP requests.", m->http_requests},
        {"subscriptions", "gauge", "Subscriptions now.", m->subscriptions},
        {"queue_bytes", "gauge", "Bytes waiting for clients that read slower than they are written to.",
         m->queue_bytes},
        {"invalid_messages_total", "counter", "Messages from clients that were none.", m->invalid_messages},
        {"events_total", "counter", "Events from the broker.", m->events},
        {"wills_total", "counter", "MQTT wills that the bridge has had carried out.", m->wills},
        {"deliveries_total", "counter", "Messages sent to clients.", m->deliveries},
        {"delivered_bytes_total", "counter", "Bytes of messages sent to clients.", m->delivered_bytes},
        {"conflicts_total", "counter", "Current records sent to those whose write lost.", m->conflicts},
        {"collapses_total", "counter", "Times that a slow client's pending changes were dropped for a later sync.",
         m->collapses},
        {"upstream_up", "gauge", "1 when connected to the broker.", m->upstream_up},
        {"upstream_losses_total", "counter", "Times that the connection to the broker was lost.", m->upstream_losses},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        head(out, rows[i].name, rows[i].type, rows[i].help);
        mqsync_buf_printf(out, "mqsync_bridge_%s %llu\n", rows[i].name, (unsigned long long)rows[i].value);
    }
    head(out, "messages_total", "counter", "Messages from clients.");
    for (size_t i = 0; i < MQSYNC_TYPES_N; i++)
        mqsync_buf_printf(out, "mqsync_bridge_messages_total{type=\"%s\"} %llu\n", operations[i].type,
                          (unsigned long long)m->messages[i]);
    head(out, "errors_total", "counter", "Errors sent to clients.");
    for (int code = MQSYNC_OK + 1; code <= MQSYNC_CONFLICT; code++)
        mqsync_buf_printf(out, "mqsync_bridge_errors_total{code=\"%s\"} %llu\n",
                          mqsync_code_name((enum mqsync_code)code), (unsigned long long)m->errors[code]);
    print_latency(m, out);
    head(out, "build_info", "gauge", "Always 1; the label says which version this is.");
    mqsync_buf_printf(out, "mqsync_bridge_build_info{version=\"%s\"} 1\n", MQSYNC_VERSION);
    mqsync_buf_printf(out,
                      "# HELP process_start_time_seconds Start of the process, in seconds since 1970.\n"
                      "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.3f\n",
                      (double)m->started_ms / 1000);
}
