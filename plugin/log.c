/* SPDX-License-Identifier: BSD-3-Clause */
#include "log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>

enum { QUEUE_LINES = 64, LINE_MAX_BYTES = 1024, REFUSED_EVERY_MS = 1000 };

struct line {
    enum mqsync_log_level level;
    char id[16];
    char text[LINE_MAX_BYTES];
};

static struct {
    pthread_t broker_thread;
    pthread_mutex_t lock;
    atomic_uint waiting;
    unsigned dropped;
    struct line lines[QUEUE_LINES];
    struct {
        int64_t last_ms;
        unsigned kept_back;
    } refused[MQSYNC_CONFLICT + 1];
} self = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int broker_level(enum mqsync_log_level level)
{
    return level == MQSYNC_LOG_ERROR ? MOSQ_LOG_ERR : level == MQSYNC_LOG_WARNING ? MOSQ_LOG_WARNING : MOSQ_LOG_INFO;
}

static void print(enum mqsync_log_level level, const char *id, char *text)
{
    mqsync_text_tame(text);
    mosquitto_log_printf(broker_level(level), "mqsync %s: %s", id, text);
}

static void queue(enum mqsync_log_level level, const char *id, const char *text)
{
    pthread_mutex_lock(&self.lock);
    unsigned n = atomic_load(&self.waiting);
    if (n < QUEUE_LINES) {
        self.lines[n].level = level;
        snprintf(self.lines[n].id, sizeof(self.lines[n].id), "%s", id);
        snprintf(self.lines[n].text, sizeof(self.lines[n].text), "%s", text);
        atomic_store(&self.waiting, n + 1);
    } else {
        self.dropped++;
    }
    pthread_mutex_unlock(&self.lock);
}

void mqsync_log_init(void)
{
    self.broker_thread = pthread_self();
}

void mqsync_log(enum mqsync_log_level level, const char *id, const char *fmt, ...)
{
    char text[LINE_MAX_BYTES];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (pthread_equal(pthread_self(), self.broker_thread))
        print(level, id, text);
    else
        queue(level, id, text);
}

void mqsync_log_from_store(void *context, enum mqsync_log_level level, const char *id, const char *text)
{
    (void)context;
    mqsync_log(level, id, "%s", text);
}

void mqsync_log_flush(void)
{
    if (atomic_load_explicit(&self.waiting, memory_order_relaxed) == 0)
        return;
    pthread_mutex_lock(&self.lock);
    for (unsigned i = 0; i < atomic_load(&self.waiting); i++)
        print(self.lines[i].level, self.lines[i].id, self.lines[i].text);
    if (self.dropped)
        mosquitto_log_printf(MOSQ_LOG_WARNING, "mqsync MQS1014: %u more lines of the log were dropped", self.dropped);
    self.dropped = 0;
    atomic_store(&self.waiting, 0);
    pthread_mutex_unlock(&self.lock);
}

void mqsync_log_refused(int64_t now_ms, const char *client_id, const char *topic, const struct mqsync_error *error)
{
    if (now_ms - self.refused[error->code].last_ms < REFUSED_EVERY_MS && now_ms >= self.refused[error->code].last_ms) {
        self.refused[error->code].kept_back++;
        return;
    }
    mqsync_log(error->code == MQSYNC_SERVER_ERROR ? MQSYNC_LOG_ERROR : MQSYNC_LOG_INFO, "MQS1020",
               "refused (%s) client '%.64s' on '%.160s': %s (and %u like it before)", mqsync_code_name(error->code),
               client_id ? client_id : "", topic, error->text, self.refused[error->code].kept_back);
    self.refused[error->code].last_ms = now_ms;
    self.refused[error->code].kept_back = 0;
}
