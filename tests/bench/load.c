/* SPDX-License-Identifier: BSD-3-Clause */
/* The load generator of tests/bench/broker: MQTT 3.1.1 clients in one thread, cheap enough that the broker is what is
 * measured. Each command prints one line of JSON; it exits with 1 when a message is missing, doubled or out of order.
 *
 *   load updates     --port P --records N --messages M
 *       short-form updates of random records; one subscribes to the events
 *   load passthrough --port P --records N --messages M
 *       the same payloads on plain topics (--prefix), one subscriber
 *   load fill        --port P --records N
 *       inserts records 0..N-1
 *   load touch       --port P --messages M
 *       updates records 0..M-1 once each
 *   load latency     --port P --seconds S
 *       messages on plain topics at a fixed rate
 *   load snapshot    --port P --expect N
 *       the same, for --seconds without and then while one client takes a snapshot
 *   load sync        --port P --expect N --since S --epoch E
 *       the snapshot or the changes since S alone
 *
 * With --pid the broker's CPU time is measured too, until --settle ms after the last message: what a broker puts off is
 * not free. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"
#include "mqtt_packets.h"

#define MAX_PUBLISHERS 64
#define QOS0_BATCH_BYTES 8192

struct options {
    const char *command, *collection, *prefix, *epoch;
    unsigned port, qos, publishers, window, settle_ms;
    int pid;
    uint64_t records, messages, first, seed, expect, since;
    double rate, seconds;
};

struct conn {
    int fd;
    uint8_t *in;
    size_t in_n, in_cap;
    struct outbox out;
    uint16_t packet_id;
    unsigned inflight;
    bool blocked;
    void (*on_packet)(struct conn *c, const struct mqtt_packet *p);
    void *context;
};

static int epoll_fd;

/* --- connections -------------------------------------------------------------------------------------------------- */

static void conn_flush(struct conn *c)
{
    c->blocked = !outbox_flush(&c->out, c->fd, "the broker closed a connection");
}

/* Hands over every whole packet in the buffer and keeps the rest. */
static void conn_dispatch(struct conn *c)
{
    size_t at = 0;
    struct mqtt_packet p;
    int rc;
    while ((rc = at < c->in_n ? mqtt_parse(c->in + at, c->in_n - at, &p) : 0) > 0) {
        at += p.whole_n;
        c->on_packet(c, &p);
    }
    if (rc < 0)
        die("the broker sent something that is not MQTT");
    memmove(c->in, c->in + at, c->in_n - at);
    c->in_n -= at;
}

/* Takes at most `budget` bytes, so that one busy connection cannot keep the others waiting. Returns whether there may
 * be more. */
static bool conn_read(struct conn *c, size_t budget)
{
    if (c->in_cap - c->in_n < budget) {
        c->in_cap = 2 * (c->in_n + budget);
        c->in = grow(c->in, c->in_cap);
    }
    ssize_t n = recv(c->fd, c->in + c->in_n, budget, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        die("the broker closed a connection: %s", n == 0 ? "end of file" : strerror(errno));
    if (n < 0)
        return false;
    c->in_n += (size_t)n;
    conn_dispatch(c);
    return (size_t)n == budget;
}

static void expect_packet(struct conn *c, unsigned type, size_t status_at, const char *what)
{
    uint8_t reply[5];
    size_t want = type == MQTT_SUBACK ? 5 : 4;
    ssize_t n = recv(c->fd, reply, want, MSG_WAITALL);
    if (n != (ssize_t)want || reply[0] >> 4 != type || reply[status_at] > 2)
        die("no good answer to %s", what);
}

static void conn_open(struct conn *c, const struct options *o, const char *name, unsigned number, const char *filter)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)o->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, send_buffer = 128 * 1024; /* bounds what QoS 0 piles up between here and the broker */
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer));
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        die("cannot connect to 127.0.0.1:%u: %s", o->port, strerror(errno));

    char client_id[64];
    uint8_t packet[512];
    snprintf(client_id, sizeof(client_id), "bench-%s-%u-%d", name, number, (int)getpid());
    size_t n = mqtt_put_connect(packet, client_id);
    if (send(c->fd, packet, n, MSG_NOSIGNAL) != (ssize_t)n)
        die("cannot send CONNECT");
    expect_packet(c, MQTT_CONNACK, 3, "CONNECT");
    if (filter != NULL) {
        n = mqtt_put_subscribe(packet, filter, o->qos);
        if (send(c->fd, packet, n, MSG_NOSIGNAL) != (ssize_t)n)
            die("cannot send SUBSCRIBE");
        expect_packet(c, MQTT_SUBACK, 4, "SUBSCRIBE");
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void conn_close(struct conn *c)
{
    close(c->fd);
    free(c->in);
    free(c->out.p);
}

static void conn_put_puback(struct conn *c, const uint8_t *packet_id)
{
    c->out.n += mqtt_put_puback(outbox_reserve(&c->out, 4), packet_id);
}

/* Packet ids 1 to 65535; no window is near that many. */
static uint16_t conn_next_packet_id(struct conn *c)
{
    c->packet_id = c->packet_id == UINT16_MAX ? 1 : c->packet_id + 1;
    return c->packet_id;
}

/* --- the broker's CPU time ---------------------------------------------------------------------------------------- */

struct broker_cpu {
    int64_t all_ns;  /* every thread, ended ones too */
    int64_t main_ns; /* the thread that serves the clients */
};

static struct broker_cpu broker_cpu(int pid)
{
    struct broker_cpu cpu = {0};
    char path[64];
    if (pid == 0)
        return cpu;
    cpu.all_ns = cpu_ns(pid);
    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, pid);
    char text[128];
    FILE *f = fopen(path, "re");
    if (f == NULL || fgets(text, sizeof(text), f) == NULL)
        die("cannot read %s", path);
    fclose(f);
    cpu.main_ns = strtoll(text, NULL, 10);
    return cpu;
}

/* Waits ms, and then until the broker is idle. */
static struct broker_cpu broker_settle(const struct options *o, unsigned ms)
{
    enum { IDLE_NS = 1000000, STEPS_MAX = 1200 };
    if (o->pid != 0)
        settle(&o->pid, 1, ms, IDLE_NS, STEPS_MAX);
    return broker_cpu(o->pid);
}

/* --- records and payloads ----------------------------------------------------------------------------------------- */

/* One PUBLISH, made once; for each message only the places that differ are written. */
struct template
{
    uint8_t bytes[1024];
    size_t n, id_at, packet_id_at, counter_at, temperature_at, pressure_at;
};

static void template_make(struct template *t, const char *prefix, const char *suffix, unsigned qos)
{
    char payload[DATA_BYTES + 1], topic[256];
    make_data(payload);
    snprintf(topic, sizeof(topic), "%s%0*d%s", prefix, ID_DIGITS, 0, suffix);
    size_t head = mqtt_put_publish_head(t->bytes, topic, qos, DATA_BYTES);
    memcpy(t->bytes + head, payload, DATA_BYTES);
    t->n = head + DATA_BYTES;
    t->packet_id_at = qos > 0 ? head - 2 : 0;
    t->id_at = head - (qos > 0 ? 2 : 0) - strlen(suffix) - ID_DIGITS;
    t->counter_at = head + (size_t)(strstr(payload, "1000000000") - payload);
    t->temperature_at = head + (size_t)(strstr(payload, "21.437") - payload) + 3;
    t->pressure_at = head + (size_t)(strstr(payload, "1.013") - payload) + 2;
}

/* --- many messages: publishers with a window each, one subscriber ------------------------------------------------- */

struct stream {
    const struct options *o;
    struct template template;
    struct conn publishers[MAX_PUBLISHERS], subscriber;
    bool has_subscriber, sequential, check_seq;
    uint64_t goal, sent, acked, delivered, random, next;
    uint64_t last_seq, out_of_order, answers; /* what went wrong */
};

static void stream_on_publisher(struct conn *c, const struct mqtt_packet *p)
{
    struct stream *s = c->context;
    if (p->type == MQTT_PUBACK) {
        c->inflight--;
        s->acked++;
    } else if (p->type == MQTT_PUBLISH) {
        if (s->answers++ == 0)
            fprintf(stderr, "load: answered with %.*s\n", (int)p->payload_n, (const char *)p->payload);
        if (p->qos > 0)
            conn_put_puback(c, p->packet_id);
    }
}

/* The number after a name that occurs near the end of a message, 0 without it. */
static uint64_t number_in_tail(const struct mqtt_packet *p, const char *name)
{
    const uint8_t *end = p->payload + p->payload_n, *from = p->payload_n > 256 ? end - 256 : p->payload;
    const uint8_t *at = memmem(from, (size_t)(end - from), name, strlen(name));
    uint64_t value = 0;
    if (at == NULL)
        return 0;
    for (at += strlen(name); at < end && *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

static void stream_on_subscriber(struct conn *c, const struct mqtt_packet *p)
{
    struct stream *s = c->context;
    if (p->type != MQTT_PUBLISH)
        return;
    s->delivered++;
    if (p->qos > 0)
        conn_put_puback(c, p->packet_id);
    if (s->check_seq) {
        uint64_t seq = number_in_tail(p, "\"seq\":");
        if (seq <= s->last_seq)
            s->out_of_order++;
        s->last_seq = seq;
    }
}

static void stream_put(struct stream *s, struct conn *c)
{
    const struct template *t = &s->template;
    uint8_t *out = outbox_reserve(&c->out, t->n);
    uint64_t number = s->o->seed + s->sent, record;
    if (s->sequential) {
        record = s->next++;
    } else {
        s->random = mix(s->random + UINT64_C(0x9e3779b97f4a7c15));
        record = (s->random >> 32) * s->o->records >> 32;
    }
    memcpy(out, t->bytes, t->n);
    put_hex(out + t->id_at, mix(record + 1));
    if (s->o->qos > 0)
        mqtt_put_u16(out + t->packet_id_at, conn_next_packet_id(c));
    put_decimal((char *)out + t->counter_at + 1, 9, number);
    put_decimal((char *)out + t->temperature_at, 3, number * 7);
    put_decimal((char *)out + t->pressure_at, 3, number * 11);
    c->out.n += t->n;
    s->sent++;
}

/* A window is filled up when half of it is free: as many bytes, fewer system calls. */
static void stream_top_up(struct stream *s, struct conn *c)
{
    const unsigned window = s->o->window;
    if (s->o->qos == 0) {
        while (!c->blocked && c->out.n - c->out.at < QOS0_BATCH_BYTES && s->sent < s->goal)
            stream_put(s, c);
    } else if (c->inflight <= window / 2) {
        for (; c->inflight < window && s->sent < s->goal; c->inflight++)
            stream_put(s, c);
    }
    conn_flush(c);
}

static bool stream_done(const struct stream *s)
{
    if (s->sent < s->goal || (s->has_subscriber && s->delivered < s->goal))
        return false;
    if (s->o->qos > 0)
        return s->acked == s->goal;
    for (unsigned i = 0; i < s->o->publishers; i++)
        if (s->publishers[i].out.at < s->publishers[i].out.n)
            return false;
    return true;
}

/* Sends all messages and waits for what they cause. */
static void stream_run(struct stream *s)
{
    struct epoll_event events[MAX_PUBLISHERS + 1];
    for (;;) {
        bool more = false;
        for (unsigned i = 0; i < s->o->publishers; i++) {
            stream_top_up(s, &s->publishers[i]);
            more |= s->o->qos == 0 && !s->publishers[i].blocked && s->sent < s->goal;
        }
        if (stream_done(s))
            return;
        int n = epoll_wait(epoll_fd, events, MAX_PUBLISHERS + 1, more ? 0 : PATIENCE_MS);
        if (n == 0 && !more)
            return; /* something is missing; the result says what */
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                while (conn_read(c, 65536))
                    ;
            conn_flush(c);
        }
    }
}

static void stream_open(struct stream *s, const char *prefix, const char *suffix, const char *filter)
{
    const struct options *o = s->o;
    template_make(&s->template, prefix, suffix, o->qos);
    s->random = o->seed;
    s->goal = o->messages;
    s->has_subscriber = filter != NULL;
    if (filter != NULL) {
        s->subscriber.on_packet = stream_on_subscriber;
        s->subscriber.context = s;
        conn_open(&s->subscriber, o, "sub", 0, filter);
    }
    for (unsigned i = 0; i < o->publishers; i++) {
        s->publishers[i].on_packet = stream_on_publisher;
        s->publishers[i].context = s;
        conn_open(&s->publishers[i], o, "pub", i, NULL);
    }
}

static void stream_close(struct stream *s)
{
    if (s->has_subscriber)
        conn_close(&s->subscriber);
    for (unsigned i = 0; i < s->o->publishers; i++)
        conn_close(&s->publishers[i]);
}

static int stream_report(const struct stream *s, double seconds, double own_seconds, struct broker_cpu busy,
                         struct broker_cpu all)
{
    const struct options *o = s->o;
    const uint64_t messages = s->sent;
    bool right = s->sent == s->goal && s->out_of_order == 0 && s->answers == 0 &&
                 (o->qos == 0 || s->acked == s->goal) && (!s->has_subscriber || s->delivered == s->goal);
    printf("{\"command\":\"%s\",\"qos\":%u,\"messages\":%" PRIu64 ",\"seconds\":%.4f,\"rate\":%.0f,", o->command,
           o->qos, messages, seconds, (double)messages / seconds);
    printf("\"sent\":%" PRIu64 ",\"acked\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"outOfOrder\":%" PRIu64
           ",\"answers\":%" PRIu64 ",",
           s->sent, s->acked, s->delivered, s->out_of_order, s->answers);
    printf("\"cpuUs\":%.3f,\"mainCpuUs\":%.3f,\"brokerBusy\":%.3f,\"loadBusy\":%.3f,\"right\":%s}\n",
           (double)all.all_ns / 1e3 / (double)messages, (double)all.main_ns / 1e3 / (double)messages,
           (double)busy.all_ns / 1e9 / seconds, own_seconds / seconds, right ? "true" : "false");
    return right ? 0 : 1;
}

static struct broker_cpu cpu_minus(struct broker_cpu a, struct broker_cpu b)
{
    return (struct broker_cpu){.all_ns = a.all_ns - b.all_ns, .main_ns = a.main_ns - b.main_ns};
}

static int stream_measure(struct stream *s)
{
    const struct options *o = s->o;
    struct broker_cpu before = broker_settle(o, 0);
    int64_t start = now_ns(CLOCK_MONOTONIC), own = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    stream_run(s);
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - start) / 1e9;
    double own_seconds = (double)(now_ns(CLOCK_PROCESS_CPUTIME_ID) - own) / 1e9;
    struct broker_cpu busy = cpu_minus(broker_cpu(o->pid), before);
    struct broker_cpu all = cpu_minus(broker_settle(o, o->settle_ms), before);
    int rc = stream_report(s, seconds, own_seconds, busy, all);
    stream_close(s);
    return rc;
}

static int command_updates(const struct options *o)
{
    static struct stream s;
    char prefix[128], filter[128];
    snprintf(prefix, sizeof(prefix), "sync/%s/cmd/", o->collection);
    snprintf(filter, sizeof(filter), "sync/%s/evt/+", o->collection);
    s.o = o;
    s.check_seq = true;
    stream_open(&s, prefix, "/update", filter);
    return stream_measure(&s);
}

static int command_passthrough(const struct options *o)
{
    static struct stream s;
    char filter[128];
    snprintf(filter, sizeof(filter), "%s+", o->prefix);
    s.o = o;
    stream_open(&s, o->prefix, "", filter);
    return stream_measure(&s);
}

/* fill, touch: each record once, nobody listens. */
static int command_each(const struct options *o, const char *suffix)
{
    static struct stream s;
    char prefix[128];
    snprintf(prefix, sizeof(prefix), "sync/%s/cmd/", o->collection);
    s.o = o;
    s.sequential = true;
    s.next = o->first;
    stream_open(&s, prefix, suffix, NULL);
    return stream_measure(&s);
}

/* --- messages at a fixed rate, and a snapshot beside them --------------------------------------------------------- */

struct paced {
    const struct options *o;
    struct template template;
    struct conn publishers[MAX_PUBLISHERS], subscriber, reader;
    int64_t start_ns, stop_ns; /* of what is being sampled */
    uint64_t sent, delivered;
    struct samples samples;
    bool reading, reading_done;
    uint64_t pages, entries, bytes, total, seq;
    char epoch[65], failure[512];
};

/* The time that a message carries is when it was due, so that a sender held up counts as delay too. */
static void paced_on_subscriber(struct conn *c, const struct mqtt_packet *p)
{
    struct paced *l = c->context;
    if (p->type != MQTT_PUBLISH)
        return;
    if (p->qos > 0)
        conn_put_puback(c, p->packet_id);
    l->delivered++;
    int64_t due = 0;
    for (unsigned i = 0; i < ID_DIGITS; i++)
        due = due * 16 + (p->payload[i] <= '9' ? p->payload[i] - '0' : p->payload[i] - 'a' + 10);
    if (due < l->start_ns || due >= l->stop_ns)
        return;
    samples_add(&l->samples, now_ns(CLOCK_MONOTONIC) - due);
}

static void paced_on_publisher(struct conn *c, const struct mqtt_packet *p)
{
    (void)p;
    c->inflight--;
}

static void reader_take_epoch(struct paced *l, const struct mqtt_packet *p)
{
    static const char name[] = "\"epoch\":\"";
    size_t tail = p->payload_n < 512 ? p->payload_n : 512;
    const uint8_t *at = memmem(p->payload + p->payload_n - tail, tail, name, sizeof(name) - 1);
    if (at == NULL)
        return;
    at += sizeof(name) - 1;
    const uint8_t *quote = memchr(at, '"', (size_t)(p->payload + p->payload_n - at));
    if (quote != NULL && quote - at < (ptrdiff_t)sizeof(l->epoch))
        snprintf(l->epoch, sizeof(l->epoch), "%.*s", (int)(quote - at), (const char *)at);
}

static bool payload_has(const struct mqtt_packet *p, size_t from, const char *text)
{
    return from < p->payload_n && memmem(p->payload + from, p->payload_n - from, text, strlen(text)) != NULL;
}

/* Every entry of a page has one updatedAt; `data` of this benchmark has none. */
static void reader_on_packet(struct conn *c, const struct mqtt_packet *p)
{
    static const char mark[] = "\"updatedAt\":";
    struct paced *l = c->context;
    if (p->type != MQTT_PUBLISH)
        return;
    if (p->qos > 0)
        conn_put_puback(c, p->packet_id);
    if (memmem(p->payload, p->payload_n < 64 ? p->payload_n : 64, "\"error\"", 7) != NULL) {
        snprintf(l->failure, sizeof(l->failure), "%.*s", (int)p->payload_n, (const char *)p->payload);
        l->reading_done = true;
        return;
    }
    const uint8_t *at = p->payload, *end = p->payload + p->payload_n;
    size_t tail = p->payload_n > 512 ? p->payload_n - 512 : 0;
    bool last = payload_has(p, tail, "\"more\":false");
    if (!last && !payload_has(p, tail, "\"more\":true"))
        return; /* `subscribed` */
    while ((at = memmem(at, (size_t)(end - at), mark, sizeof(mark) - 1)) != NULL) {
        l->entries++;
        at += sizeof(mark) - 1;
    }
    l->pages++;
    l->bytes += p->payload_n;
    if (last) {
        l->total = number_in_tail(p, "\"total\":");
        l->seq = number_in_tail(p, "\"seq\":");
        reader_take_epoch(l, p);
        l->reading_done = true;
    }
}

static void reader_start(struct paced *l)
{
    const struct options *o = l->o;
    char topic[128], message[256];
    int n = o->epoch == NULL
                ? snprintf(message, sizeof(message), "{\"type\":\"subscribe\",\"collection\":\"%s\"}", o->collection)
                : snprintf(message, sizeof(message),
                           "{\"type\":\"subscribe\",\"collection\":\"%s\",\"metadata\":{\"since\":%" PRIu64
                           ",\"epoch\":\"%s\"}}",
                           o->collection, o->since, o->epoch);
    snprintf(topic, sizeof(topic), "sync/%s/cmd", o->collection);
    uint8_t *out = outbox_reserve(&l->reader.out, (size_t)n + 256);
    size_t head = mqtt_put_publish_head(out, topic, o->qos, (size_t)n);
    memcpy(out + head, message, (size_t)n);
    l->reader.out.n += head + (size_t)n;
    l->reading = true;
    conn_flush(&l->reader);
}

static void paced_put(struct paced *l, int64_t due)
{
    struct conn *c = &l->publishers[l->sent++ % l->o->publishers];
    const struct template *t = &l->template;
    uint8_t *out = outbox_reserve(&c->out, t->n);
    memcpy(out, t->bytes, t->n);
    put_hex(out + t->id_at, mix(l->sent));
    put_hex(out + t->n - DATA_BYTES, (uint64_t)due);
    if (l->o->qos > 0)
        mqtt_put_u16(out + t->packet_id_at, conn_next_packet_id(c));
    c->out.n += t->n;
    c->inflight++;
    conn_flush(c);
}

/* One turn of everything, until `until` at the latest. The reader takes small bites: the others' clock must not wait
 * for it. */
static void paced_turn(struct paced *l, int64_t until)
{
    struct epoll_event events[MAX_PUBLISHERS + 2];
    static bool reader_has_more;
    int64_t left = reader_has_more ? 0 : until - now_ns(CLOCK_MONOTONIC);
    struct timespec t = {.tv_sec = left > 0 ? left / 1000000000 : 0, .tv_nsec = left > 0 ? left % 1000000000 : 0};
    int n = epoll_pwait2(epoll_fd, events, MAX_PUBLISHERS + 2, &t, NULL);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c == &l->reader) {
            reader_has_more = true;
            continue;
        }
        while (conn_read(c, 65536))
            ;
        conn_flush(c);
    }
    if (reader_has_more) {
        reader_has_more = conn_read(&l->reader, 65536);
        conn_flush(&l->reader);
    }
}

/* Sends at the rate until stop_ns, or until the reader has its last page. */
static void paced_run(struct paced *l, double seconds)
{
    const int64_t start = now_ns(CLOCK_MONOTONIC), interval = l->o->rate > 0 ? (int64_t)(1e9 / l->o->rate) : 1000000;
    const bool reading = l->reading;
    uint64_t progress = l->bytes;
    int64_t progress_at = start, stop = reading ? INT64_MAX : start + (int64_t)(seconds * 1e9);
    l->start_ns = start;
    l->stop_ns = stop;
    l->samples.n = 0;
    for (int64_t due = start; due < stop && !(reading && l->reading_done); due += interval) {
        while (now_ns(CLOCK_MONOTONIC) < due)
            paced_turn(l, due);
        if (l->o->rate > 0)
            paced_put(l, due);
        if (l->bytes != progress || !reading) {
            progress = l->bytes;
            progress_at = due;
        } else if (due - progress_at > (int64_t)PATIENCE_MS * 1000000) {
            snprintf(l->failure, sizeof(l->failure), "no page for %d s", PATIENCE_MS / 1000);
            return;
        }
    }
    const int64_t give_up = now_ns(CLOCK_MONOTONIC) + (int64_t)PATIENCE_MS * 1000000;
    while (l->delivered < l->sent && now_ns(CLOCK_MONOTONIC) < give_up)
        paced_turn(l, give_up);
}

static void print_latency(const char *name, struct paced *l)
{
    if (l->samples.n == 0) {
        printf("\"%s\":null,", name);
        return;
    }
    printf("\"%s\":{\"n\":%zu,", name, l->samples.n);
    samples_print(&l->samples);
    printf("},");
}

static void paced_open(struct paced *l)
{
    const struct options *o = l->o;
    char filter[128];
    snprintf(filter, sizeof(filter), "%s+", o->prefix);
    template_make(&l->template, o->prefix, "", o->qos);
    l->subscriber.on_packet = paced_on_subscriber;
    l->subscriber.context = l->reader.context = l;
    conn_open(&l->subscriber, o, "sub", 0, filter);
    for (unsigned i = 0; i < o->publishers; i++) {
        l->publishers[i].on_packet = paced_on_publisher;
        conn_open(&l->publishers[i], o, "pub", i, NULL);
    }
    if (strcmp(o->command, "latency") != 0) {
        l->reader.on_packet = reader_on_packet;
        conn_open(&l->reader, o, "reader", 0, NULL);
    }
}

static int command_paced(const struct options *o)
{
    static struct paced l;
    bool right = true;
    l.o = o;
    paced_open(&l);
    printf("{\"command\":\"%s\",\"qos\":%u,\"rateAsked\":%.0f,", o->command, o->qos, o->rate);
    if (strcmp(o->command, "sync") != 0) {
        paced_run(&l, o->seconds);
        print_latency("alone", &l);
    }
    if (strcmp(o->command, "latency") != 0) {
        struct broker_cpu before = broker_settle(o, 0);
        const int64_t start = now_ns(CLOCK_MONOTONIC);
        reader_start(&l);
        paced_run(&l, 0);
        const double seconds = (double)(now_ns(CLOCK_MONOTONIC) - start) / 1e9;
        struct broker_cpu cpu = cpu_minus(broker_settle(o, o->settle_ms), before);
        print_latency("beside", &l);
        right = l.failure[0] == '\0' && l.entries == o->expect && l.total == o->expect;
        printf("\"seconds\":%.4f,\"entries\":%" PRIu64 ",\"total\":%" PRIu64 ",\"expected\":%" PRIu64
               ",\"pages\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seq\":%" PRIu64
               ",\"epoch\":\"%s\",\"cpuUs\":%.3f,\"mainCpuUs\":%.3f,",
               seconds, l.entries, l.total, o->expect, l.pages, l.bytes, l.seq, l.epoch, (double)cpu.all_ns / 1e3,
               (double)cpu.main_ns / 1e3);
        if (l.failure[0] != '\0')
            fprintf(stderr, "load: %s\n", l.failure);
    }
    right = right && l.delivered == l.sent;
    printf("\"sent\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"right\":%s}\n", l.sent, l.delivered,
           right ? "true" : "false");
    return right ? 0 : 1;
}

/* --- the command line --------------------------------------------------------------------------------------------- */

static void parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"port", 1, NULL, 'p'},       {"pid", 1, NULL, 'i'},      {"qos", 1, NULL, 'q'},
        {"publishers", 1, NULL, 'P'}, {"window", 1, NULL, 'w'},   {"settle", 1, NULL, 't'},
        {"records", 1, NULL, 'r'},    {"messages", 1, NULL, 'm'}, {"seed", 1, NULL, 's'},
        {"collection", 1, NULL, 'c'}, {"prefix", 1, NULL, 'x'},   {"rate", 1, NULL, 'R'},
        {"seconds", 1, NULL, 'S'},    {"expect", 1, NULL, 'e'},   {"since", 1, NULL, 'n'},
        {"epoch", 1, NULL, 'E'},      {"first", 1, NULL, 'f'},    {NULL, 0, NULL, 0},
    };
    *o = (struct options){.collection = "bench",
                          .prefix = "sync/bench/pass-along/",
                          .qos = 1,
                          .publishers = 8,
                          .window = 20,
                          .records = 10000,
                          .messages = 100000,
                          .rate = 2000,
                          .seconds = 2};
    for (int opt; (opt = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (opt) {
        case 'p':
            o->port = (unsigned)read_number(optarg);
            break;
        case 'i':
            o->pid = (int)read_number(optarg);
            break;
        case 'q':
            o->qos = (unsigned)read_number(optarg);
            break;
        case 'P':
            o->publishers = (unsigned)read_number(optarg);
            break;
        case 'w':
            o->window = (unsigned)read_number(optarg);
            break;
        case 't':
            o->settle_ms = (unsigned)read_number(optarg);
            break;
        case 'r':
            o->records = read_number(optarg);
            break;
        case 'm':
            o->messages = read_number(optarg);
            break;
        case 's':
            o->seed = read_number(optarg);
            break;
        case 'f':
            o->first = read_number(optarg);
            break;
        case 'c':
            o->collection = optarg;
            break;
        case 'x':
            o->prefix = optarg;
            break;
        case 'R':
            o->rate = strtod(optarg, NULL);
            break;
        case 'S':
            o->seconds = strtod(optarg, NULL);
            break;
        case 'e':
            o->expect = read_number(optarg);
            break;
        case 'n':
            o->since = read_number(optarg);
            break;
        case 'E':
            o->epoch = optarg;
            break;
        default:
            die("see the head of load.c for the options");
        }
    }
    if (optind + 1 != argc || o->port == 0 || o->port > 65535)
        die("usage: load COMMAND --port PORT [OPTION...]");
    if (o->qos > 1 || o->publishers == 0 || o->publishers > MAX_PUBLISHERS || o->window == 0 || o->window > 10000 ||
        o->records == 0 || strlen(o->collection) > 64 || strlen(o->prefix) > 100)
        die("an option is out of range");
    o->command = argv[optind];
}

int main(int argc, char **argv)
{
    static struct options o;
    parse(argc, argv, &o);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (strcmp(o.command, "updates") == 0)
        return command_updates(&o);
    if (strcmp(o.command, "passthrough") == 0)
        return command_passthrough(&o);
    if (strcmp(o.command, "fill") == 0)
        return command_each(&o, "/insert");
    if (strcmp(o.command, "touch") == 0)
        return command_each(&o, "/update");
    if (strcmp(o.command, "latency") == 0 || strcmp(o.command, "snapshot") == 0 || strcmp(o.command, "sync") == 0) {
        if (strcmp(o.command, "sync") == 0)
            o.rate = 0;
        return command_paced(&o);
    }
    die("no such command: %s", o.command);
}
