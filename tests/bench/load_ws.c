/* SPDX-License-Identifier: BSD-3-Clause */
/* The load generator of tests/bench/bridge: WebSocket clients in one thread, cheap enough that the server is what is
 * measured. One client writes, the others have subscribed to the collection. Every subscriber has to get every update,
 * in the order in which they were written: each update carries its number. Each command prints one line of JSON; it
 * exits with 1 when a delivery is missing, doubled or out of order.
 *
 *   load_ws stream  --port P --subscribers S --messages M     as fast as the window lets the writer
 *   load_ws paced   --port P --subscribers S --rate R --seconds T    at a rate: how long each update takes to arrive
 *   load_ws idle    --port P --subscribers S                  opens connections and looks at the server's memory
 *
 * Each --pid (up to four) is a process of the server's: CPU time is measured until --settle ms after the last message,
 * and the memory of the first while the updates are paced. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum {
    PIDS_MAX = 4,
    FRAME_MAX = 1024,
    IN_BYTES = 262144,  /* one buffer for all connections: what is read is used up at once, but for the last frame */
    PER_ADDRESS = 5000, /* connections from one source address: ports are few */
    COUNTER_DIGITS = 10,
    EVENTS = 512,
    OPENING_MAX = 64, /* handshakes at a time */
};

struct options {
    const char *command, *collection;
    unsigned port, subscribers, window, settle_ms;
    int pids[PIDS_MAX];
    unsigned pids_n;
    uint64_t messages, records, seed;
    double rate, seconds;
    bool no_subscribe;
};

struct conn {
    int fd;
    bool subscribed;
    uint8_t *rest; /* the beginning of a frame */
    size_t rest_n;
    uint64_t next;     /* number of the update that has to come next */
    size_t counter_at; /* where the last one had its number */
};

struct load {
    const struct options *o;
    struct conn *subscribers;
    int writer;
    struct outbox out;
    char template[FRAME_MAX];
    size_t template_n, id_at, time_at, template_counter_at;
    uint64_t sent, delivered, wrong;
    int64_t stamped_ms;
    char stamp[32];
    char complaint[512];
    /* paced */
    int64_t *due_ns; /* of each update */
    struct samples samples;
};

static int epoll_fd;

/* --- the server's CPU time and memory ----------------------------------------------------------------------------- */

static int64_t cpu_all(const struct options *o, int64_t *each)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < o->pids_n; i++)
        sum += each[i] = cpu_ns(o->pids[i]);
    return sum;
}

/* Waits ms, and then until the processes are idle. */
static void settle_all(const struct options *o, unsigned ms, int64_t *each)
{
    enum { IDLE_NS = 2000000, STEPS_MAX = 200 };
    settle(o->pids, o->pids_n, ms, IDLE_NS, STEPS_MAX);
    cpu_all(o, each);
}

/* Proportional set size, bytes. */
static uint64_t memory(int pid)
{
    char path[64], line[256];
    unsigned long kb = 0;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "Pss: %lu", &kb) == 1)
            break;
    if (f == NULL || kb == 0)
        die("cannot read %s", path);
    fclose(f);
    return (uint64_t)kb * 1024;
}

/* --- frames ------------------------------------------------------------------------------------------------------- */

/* A masked text frame; the mask is all zeroes: servers unmask all the same. Returns bytes. */
static size_t put_frame(uint8_t *out, const char *text, size_t n)
{
    size_t at = 0;
    out[at++] = 0x81;
    if (n < 126) {
        out[at++] = 0x80 | (uint8_t)n;
    } else {
        out[at++] = 0x80 | 126;
        out[at++] = (uint8_t)(n >> 8);
        out[at++] = (uint8_t)n;
    }
    memset(out + at, 0, 4);
    memcpy(out + at + 4, text, n);
    return at + 4 + n;
}

struct frame {
    const uint8_t *text;
    size_t n, whole_n;
    unsigned opcode;
};

/* False: not all of it is there. */
static bool parse_frame(const uint8_t *in, size_t n, struct frame *ret)
{
    size_t head = 2, length;
    if (n < 2)
        return false;
    length = in[1] & 127;
    if (in[1] & 128 || !(in[0] & 128) || in[0] & 0x70)
        die("the server sent a frame that is masked, in pieces or compressed");
    if (length == 126) {
        head = 4;
        if (n < head)
            return false;
        length = (size_t)in[2] << 8 | in[3];
    } else if (length == 127) {
        head = 10;
        if (n < head)
            return false;
        length = 0;
        for (unsigned i = 2; i < 10; i++)
            length = length << 8 | in[i];
        if (length > 64u << 20)
            die("the server sent a frame of %zu bytes", length);
    }
    *ret = (struct frame){.text = in + head, .n = length, .whole_n = head + length, .opcode = in[0] & 15};
    return n >= ret->whole_n;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static int open_socket(const struct options *o, unsigned number)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / PER_ADDRESS)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)o->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        die("cannot connect to 127.0.0.1:%u: %s", o->port, strerror(errno));
    return fd;
}

static void request_upgrade(int fd)
{
    static const char request[] = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1)
        die("cannot send the handshake: %s", strerror(errno));
}

/* Nothing follows the answer until the client has sent something. */
static void await_upgrade(int fd)
{
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    char answer[2048];
    size_t n = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    while (n < sizeof(answer) - 1) {
        ssize_t got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);
        if (got <= 0)
            die("the handshake was not answered: %s", got == 0 ? "closed" : strerror(errno));
        n += (size_t)got;
        answer[n] = '\0';
        if (strstr(answer, "\r\n\r\n") != NULL)
            break;
    }
    if (strncmp(answer, "HTTP/1.1 101", 12) != 0)
        die("the handshake was refused: %.200s", answer);
}

static void send_text(int fd, const char *text)
{
    uint8_t frame[FRAME_MAX];
    size_t n = put_frame(frame, text, strlen(text));
    if (send(fd, frame, n, MSG_NOSIGNAL) != (ssize_t)n)
        die("cannot send: %s", strerror(errno));
}

/* Reads one frame, which is all that is to come, and looks for its type. */
static void await_text(int fd, const char *type)
{
    uint8_t in[FRAME_MAX];
    size_t n = 0;
    struct frame f;
    bool whole = false;
    while (!whole && n < sizeof(in)) {
        ssize_t got = recv(fd, in + n, sizeof(in) - n, 0);
        if (got <= 0)
            die("no answer: %s", got == 0 ? "closed" : strerror(errno));
        n += (size_t)got;
        whole = parse_frame(in, n, &f);
    }
    if (!whole || memmem(in, n, type, strlen(type)) == NULL)
        die("not \"%s\" but %.*s", type, (int)n, (const char *)in);
}

static void watch(int fd, struct conn *c)
{
    struct epoll_event e = {.events = c == NULL ? EPOLLIN | EPOLLOUT | EPOLLET : EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void open_subscribers(struct load *l)
{
    const struct options *o = l->o;
    char subscribe[256];
    snprintf(subscribe, sizeof(subscribe),
             "{\"type\":\"subscribe\",\"collection\":\"%s\",\"metadata\":{\"sync\":false}}", o->collection);
    l->subscribers = grow(NULL, (o->subscribers + 1) * sizeof(*l->subscribers));
    memset(l->subscribers, 0, (o->subscribers + 1) * sizeof(*l->subscribers));
    for (unsigned first = 0; first < o->subscribers; first += OPENING_MAX) {
        unsigned end = first + OPENING_MAX < o->subscribers ? first + OPENING_MAX : o->subscribers;
        for (unsigned i = first; i < end; i++)
            request_upgrade(l->subscribers[i].fd = open_socket(o, i));
        for (unsigned i = first; i < end; i++) {
            await_upgrade(l->subscribers[i].fd);
            if (!o->no_subscribe)
                send_text(l->subscribers[i].fd, subscribe);
        }
        for (unsigned i = first; i < end; i++) {
            if (!o->no_subscribe)
                await_text(l->subscribers[i].fd, "\"subscribed\"");
            l->subscribers[i].next = o->seed;
            watch(l->subscribers[i].fd, &l->subscribers[i]);
        }
    }
}

static void open_writer(struct load *l)
{
    l->writer = open_socket(l->o, l->o->subscribers);
    request_upgrade(l->writer);
    await_upgrade(l->writer);
    watch(l->writer, NULL);
}

/* --- the updates -------------------------------------------------------------------------------------------------- */

static void make_template(struct load *l)
{
    char data[DATA_BYTES + 1], text[FRAME_MAX];
    make_data(data);
    int n = snprintf(text, sizeof(text),
                     "{\"type\":\"update\",\"collection\":\"%s\",\"recordId\":\"0000000000000000\",\"data\":%s,"
                     "\"timestamp\":\"2000-01-01T00:00:00.000Z\"}",
                     l->o->collection, data);
    l->template_n = put_frame((uint8_t *)l->template, text, (size_t)n);
    char *end = l->template + l->template_n;
    *end = '\0';
    const char *body = end - n;
    l->id_at = (size_t)(strstr(body, "0000000000000000") - l->template);
    l->time_at = (size_t)(strstr(body, "2000-01-01T") - l->template);
    l->template_counter_at = (size_t)(strstr(body, "1000000000") - l->template);
}

static void stamp_time(struct load *l)
{
    int64_t ms = now_ns(CLOCK_REALTIME) / 1000000;
    time_t seconds = ms / 1000;
    struct tm t;
    if (ms == l->stamped_ms)
        return;
    l->stamped_ms = ms;
    gmtime_r(&seconds, &t);
    size_t n = strftime(l->stamp, sizeof(l->stamp), "%Y-%m-%dT%H:%M:%S", &t);
    snprintf(l->stamp + n, sizeof(l->stamp) - n, ".%03uZ", (unsigned)(ms % 1000) % 1000);
}

static void put_update(struct load *l)
{
    uint64_t number = l->o->seed + l->sent;
    uint8_t *out = outbox_reserve(&l->out, l->template_n);
    memcpy(out, l->template, l->template_n);
    put_hex(out + l->id_at, mix(number % l->o->records + 1));
    memcpy(out + l->time_at, l->stamp, 24);
    put_decimal((char *)out + l->template_counter_at + 1, COUNTER_DIGITS - 1, number);
    l->out.n += l->template_n;
    l->sent++;
}

static void flush(struct load *l)
{
    outbox_flush(&l->out, l->writer, "the server closed the writer's connection");
}

/* --- what arrives ------------------------------------------------------------------------------------------------- */

static void complain(struct load *l, const struct frame *f)
{
    l->wrong++;
    if (l->complaint[0] == '\0')
        snprintf(l->complaint, sizeof(l->complaint), "%.*s", (int)(f->n < 400 ? f->n : 400), (const char *)f->text);
}

/* Who says nothing for five minutes is asked whether he is there. */
static void pong(int fd, const struct frame *f)
{
    uint8_t out[6 + 125] = {0x8A, (uint8_t)(0x80 | f->n)}; /* masked with zeros */
    memcpy(out + 6, f->text, f->n);
    if (send(fd, out, 6 + f->n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)(6 + f->n))
        die("a ping cannot be answered: %s", strerror(errno));
}

static void take_frame(struct load *l, struct conn *c, const struct frame *f)
{
    static const char mark[] = "\"counter\":";
    enum { MARK = sizeof(mark) - 1 };
    const uint8_t *at = f->text + c->counter_at;
    uint64_t number = 0;
    if (f->opcode == 9 && f->n <= 125) {
        pong(c->fd, f);
        return;
    }
    if (f->opcode != 1) {
        complain(l, f);
        return;
    }
    if (c->counter_at == 0 || c->counter_at + MARK + COUNTER_DIGITS > f->n || memcmp(at, mark, MARK) != 0)
        at = memmem(f->text, f->n, mark, MARK);
    if (at == NULL || at + MARK + COUNTER_DIGITS > f->text + f->n) {
        complain(l, f);
        return;
    }
    c->counter_at = (size_t)(at - f->text);
    for (unsigned i = 1; i < COUNTER_DIGITS; i++)
        number = number * 10 + (uint64_t)(at[MARK + i] - '0');
    if (number != c->next) {
        complain(l, f);
        if (number < c->next)
            return; /* once more */
    }
    c->next = number + 1;
    l->delivered++;
    if (l->due_ns != NULL && number - l->o->seed < l->sent)
        samples_add(&l->samples, now_ns(CLOCK_MONOTONIC) - l->due_ns[number - l->o->seed]);
}

/* Returns whether there may be more. */
static bool read_conn(struct load *l, struct conn *c)
{
    static uint8_t in[IN_BYTES];
    size_t n = c->rest_n, at = 0;
    struct frame f;
    memcpy(in, c->rest, n);
    ssize_t got = recv(c->fd, in + n, sizeof(in) - n, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got <= 0)
        die("the server closed a subscriber's connection: %s", got == 0 ? "end of file" : strerror(errno));
    n += (size_t)got;
    while (parse_frame(in + at, n - at, &f)) {
        take_frame(l, c, &f);
        at += f.whole_n;
    }
    if (n - at == sizeof(in))
        die("the server sent a frame that is too long");
    if (n - at > 0) {
        c->rest = grow(c->rest, n - at);
        memcpy(c->rest, in + at, n - at);
    }
    c->rest_n = n - at;
    return n == sizeof(in);
}

/* Nobody sends the writer anything but errors and pings. */
static void read_writer(struct load *l)
{
    uint8_t in[FRAME_MAX];
    ssize_t got = recv(l->writer, in, sizeof(in), MSG_DONTWAIT);
    struct frame f;
    if (got > 0 && parse_frame(in, (size_t)got, &f) && f.opcode == 9 && f.n <= 125 && f.whole_n == (size_t)got) {
        pong(l->writer, &f);
        return;
    }
    if (got > 0)
        die("the writer was sent %.*s", (int)got, (const char *)in);
    if (got == 0)
        die("the server closed the writer's connection");
}

static int turn(struct load *l, int64_t wait_ns)
{
    struct epoll_event events[EVENTS];
    struct timespec t = {.tv_sec = wait_ns / 1000000000, .tv_nsec = wait_ns % 1000000000};
    int n = epoll_pwait2(epoll_fd, events, EVENTS, &t, NULL);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c == NULL) {
            if (events[i].events & ~(unsigned)EPOLLOUT)
                read_writer(l);
            flush(l);
        } else {
            while (read_conn(l, c))
                ;
        }
    }
    return n;
}

/* --- commands ----------------------------------------------------------------------------------------------------- */

static uint64_t expected(const struct load *l)
{
    return l->sent * l->o->subscribers;
}

/* As many as the window allows are on their way, measured by what all subscribers together have yet to get. Filled up
 * when half of it is free: as many bytes, fewer system calls. */
static bool stream(struct load *l)
{
    const struct options *o = l->o;
    const uint64_t window = (uint64_t)o->window * o->subscribers;
    while (l->sent < o->messages || l->delivered < expected(l)) {
        if (expected(l) - l->delivered <= window / 2) {
            stamp_time(l);
            while (l->sent < o->messages && expected(l) - l->delivered < window)
                put_update(l);
            flush(l);
        }
        if (turn(l, (int64_t)PATIENCE_MS * 1000000) == 0 || l->wrong > 0)
            return false;
    }
    return true;
}

static void print_end(struct load *l, bool right)
{
    right = right && l->wrong == 0 && l->delivered == expected(l);
    if (!right)
        fprintf(stderr,
                "load_ws: of %" PRIu64 " deliveries %" PRIu64 " came and %" PRIu64 " were wrong, the first: %s\n",
                expected(l), l->delivered, l->wrong, l->complaint);
    printf("\"sent\":%" PRIu64 ",\"deliveries\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"right\":%s}\n", l->sent,
           l->delivered, l->wrong, right ? "true" : "false");
    exit(right ? 0 : 1);
}

static void print_cpu(const struct options *o, const int64_t *before, const int64_t *after, uint64_t per)
{
    printf("\"cpuUs\":[");
    for (unsigned i = 0; i < o->pids_n; i++)
        printf("%s%.4f", i ? "," : "", (double)(after[i] - before[i]) / 1e3 / (double)per);
    printf("],");
}

static void command_stream(struct load *l)
{
    const struct options *o = l->o;
    int64_t before[PIDS_MAX] = {0}, after[PIDS_MAX] = {0};
    open_subscribers(l);
    open_writer(l);
    settle_all(o, 0, before);
    int64_t own = now_ns(CLOCK_PROCESS_CPUTIME_ID), start = now_ns(CLOCK_MONOTONIC);
    bool right = stream(l);
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - start) / 1e9;
    own = now_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
    cpu_all(o, after);
    double busy = 0;
    for (unsigned i = 0; i < o->pids_n; i++)
        busy += (double)(after[i] - before[i]) / 1e9 / seconds;
    settle_all(o, o->settle_ms, after);
    printf("{\"command\":\"stream\",\"subscribers\":%u,\"seconds\":%.4f,\"rate\":%.1f,\"serverBusy\":%.3f,\"loadBusy\":"
           "%.3f,",
           o->subscribers, seconds, (double)l->sent / seconds, busy, (double)own / 1e9 / seconds);
    print_cpu(o, before, after, l->sent); /* of an update, to all subscribers */
    print_end(l, right);
}

/* The memory is looked at once a second; the first third of the time does not count: buffers find their size. */
static void command_paced(struct load *l)
{
    const struct options *o = l->o;
    const uint64_t messages = (uint64_t)(o->rate * o->seconds) + 1;
    const int64_t interval = (int64_t)(1e9 / o->rate);
    int64_t before[PIDS_MAX] = {0}, after[PIDS_MAX] = {0};
    uint64_t first = 0, last = 0, most = 0;
    open_subscribers(l);
    open_writer(l);
    l->due_ns = grow(NULL, messages * sizeof(int64_t));
    settle_all(o, 0, before);
    const int64_t start = now_ns(CLOCK_MONOTONIC);
    int64_t looked = start;
    for (uint64_t i = 0; i < messages && l->wrong == 0; i++) {
        const int64_t due = start + (int64_t)i * interval;
        for (int64_t left; (left = due - now_ns(CLOCK_MONOTONIC)) > 0;)
            turn(l, left);
        l->due_ns[i] = due;
        stamp_time(l);
        put_update(l);
        flush(l);
        if (o->pids_n > 0 && now_ns(CLOCK_MONOTONIC) - looked > 1000000000) {
            looked = now_ns(CLOCK_MONOTONIC);
            last = memory(o->pids[0]);
            first = first == 0 && i >= messages / 3 ? last : first;
            most = last > most ? last : most;
        }
    }
    while (l->delivered < expected(l) && l->wrong == 0 && turn(l, (int64_t)PATIENCE_MS * 1000000) > 0)
        ;
    cpu_all(o, after);
    printf("{\"command\":\"paced\",\"subscribers\":%u,\"rate\":%.1f,\"seconds\":%.1f,", o->subscribers, o->rate,
           o->seconds);
    if (l->samples.n > 0) {
        samples_print(&l->samples);
        printf(",");
    }
    printf("\"memory\":{\"afterAThird\":%" PRIu64 ",\"last\":%" PRIu64 ",\"most\":%" PRIu64 "},", first, last, most);
    print_cpu(o, before, after, l->sent);
    print_end(l, true);
}

static void command_idle(struct load *l)
{
    const struct options *o = l->o;
    int64_t each[PIDS_MAX] = {0};
    settle_all(o, 0, each);
    const uint64_t before = memory(o->pids[0]);
    open_subscribers(l);
    settle_all(o, o->settle_ms, each);
    const uint64_t after = memory(o->pids[0]);
    for (unsigned i = 0; i < o->subscribers; i++) { /* is everybody still there? */
        send_text(l->subscribers[i].fd, "{\"type\":\"ping\"}");
        await_text(l->subscribers[i].fd, "\"pong\"");
    }
    printf("{\"command\":\"idle\",\"connections\":%u,\"subscribed\":%s,\"before\":%" PRIu64 ",\"after\":%" PRIu64
           ",\"bytesEach\":%.1f,\"right\":true}\n",
           o->subscribers, o->no_subscribe ? "false" : "true", before, after,
           ((double)after - (double)before) / o->subscribers);
}

/* --- the command line --------------------------------------------------------------------------------------------- */

static void parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"port", 1, NULL, 'p'},     {"pid", 1, NULL, 'i'},        {"subscribers", 1, NULL, 'S'},
        {"messages", 1, NULL, 'm'}, {"window", 1, NULL, 'w'},     {"settle", 1, NULL, 't'},
        {"records", 1, NULL, 'r'},  {"seed", 1, NULL, 's'},       {"rate", 1, NULL, 'R'},
        {"seconds", 1, NULL, 'T'},  {"collection", 1, NULL, 'c'}, {"no-subscribe", 0, NULL, 'n'},
        {NULL, 0, NULL, 0},
    };
    *o = (struct options){.collection = "bench",
                          .subscribers = 1,
                          .window = 256,
                          .records = 1000,
                          .messages = 10000,
                          .rate = 1000,
                          .seconds = 5};
    for (int opt; (opt = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (opt) {
        case 'p':
            o->port = (unsigned)read_number(optarg);
            break;
        case 'i':
            if (o->pids_n == PIDS_MAX)
                die("too many processes");
            o->pids[o->pids_n++] = (int)read_number(optarg);
            break;
        case 'S':
            o->subscribers = (unsigned)read_number(optarg);
            break;
        case 'm':
            o->messages = read_number(optarg);
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
        case 's':
            o->seed = read_number(optarg);
            break;
        case 'R':
            o->rate = strtod(optarg, NULL);
            break;
        case 'T':
            o->seconds = strtod(optarg, NULL);
            break;
        case 'c':
            o->collection = optarg;
            break;
        case 'n':
            o->no_subscribe = true;
            break;
        default:
            die("see the head of load_ws.c for the options");
        }
    }
    if (optind + 1 != argc || o->port == 0 || o->port > 65535)
        die("usage: load_ws COMMAND --port PORT [OPTION...]");
    if (o->subscribers == 0 || o->subscribers > 200000 || o->window == 0 || o->records == 0 || o->rate <= 0 ||
        strlen(o->collection) > 64)
        die("an option is out of range");
    o->command = argv[optind];
}

/* Every connection is a descriptor. */
static void raise_limit(unsigned connections)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < connections + 16)
        die("%u connections need more open files than the %ju that are allowed (ulimit -Hn)", connections,
            (uintmax_t)limit.rlim_cur);
}

int main(int argc, char **argv)
{
    static struct options o;
    static struct load l = {.o = &o};
    parse(argc, argv, &o);
    raise_limit(o.subscribers);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    make_template(&l);
    if (strcmp(o.command, "stream") == 0)
        command_stream(&l);
    else if (strcmp(o.command, "paced") == 0)
        command_paced(&l);
    else if (strcmp(o.command, "idle") == 0 && o.pids_n > 0)
        command_idle(&l);
    else
        die("no such command, or no --pid: %s", o.command);
    return 0;
}
