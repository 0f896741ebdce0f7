/* SPDX-License-Identifier: BSD-3-Clause */
#include "counters.h"

#include <inttypes.h>
#include <stdio.h>

#include "plugin.h"
#include "stream.h"
#include "version.h"

enum { PUBLISH_EVERY_MS = 10000 };

static void publish(const char *name, const char *value)
{
    char topic[64];
    snprintf(topic, sizeof(topic), "$SYS/broker/mqsync/%s", name);
    mosquitto_broker_publish_copy(NULL, topic, (int)strlen(value), value, 0, true, NULL);
}

void mqsync_counters_publish(struct mqsync_plugin *p, int64_t now_ms)
{
    struct mqsync_counters *c = &p->counters;
    struct mqsync_store_stat stat;

    if (now_ms < c->due_ms && c->due_ms - now_ms <= PUBLISH_EVERY_MS) /* else the clock has been set back */
        return;
    c->due_ms = now_ms + PUBLISH_EVERY_MS;
    mqsync_store_stat(p->store, &stat);
    const struct {
        const char *name;
        uint64_t value;
    } now[] = {
        {"records", stat.records},
        {"tombstones", stat.tombstones},
        {"collections", stat.collections},
        {"writes", c->writes},
        {"conflicts", c->conflicts},
        {"refused", c->refused},
        {"repeated", c->repeated},
        {"bytes", c->bytes},
        {"log/bytes", stat.log_bytes},
        {"sync/age", (uint64_t)stat.sync_age_ms},
        {"streams", mqsync_streams_count(p->streams)},
    };
    _Static_assert(sizeof(now) / sizeof(now[0]) == MQSYNC_COUNTERS_N, "one place for each counter");
    for (unsigned i = 0; i < MQSYNC_COUNTERS_N; i++) {
        char text[24];
        if (c->ever[i] && c->published[i] == now[i].value)
            continue;
        c->ever[i] = true;
        c->published[i] = now[i].value;
        snprintf(text, sizeof(text), "%" PRIu64, now[i].value);
        publish(now[i].name, text);
    }
    if (!c->version_said)
        publish("version", MQSYNC_VERSION);
    c->version_said = true;
}
