/* SPDX-License-Identifier: BSD-3-Clause */
/* What the load generators have in common: the payload, what goes out, samples, the CPU time of what is measured. For
 * programs of one file: whatever fails ends the program. */
#ifndef MQSYNC_BENCH_LOAD_H
#define MQSYNC_BENCH_LOAD_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
    PATIENCE_MS = 20000, /* without any progress; a server that is this slow has lost something */
    ID_DIGITS = 16,
    DATA_BYTES = 220,
};

static inline void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static inline void *grow(void *p, size_t n)
{
    p = realloc(p, n);
    if (p == NULL)
        die("out of memory");
    return p;
}

static inline uint64_t read_number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end != '\0')
        die("not a number: %s", text);
    return value;
}

static inline int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) != 0)
        die("clock_gettime: %s", strerror(errno));
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- what is measured --------------------------------------------------------------------------------------------- */

/* Of all threads, ended ones too. */
static inline int64_t cpu_ns(int pid)
{
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock) != 0)
        die("no process %d", pid);
    return now_ns(clock);
}

/* Waits ms, and then until the processes together use less than idle_ns in each of two steps of 50 ms; not for more
 * than steps_max of them. */
static inline void settle(const int *pids, unsigned n, unsigned ms, int64_t idle_ns, unsigned steps_max)
{
    struct timespec first = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    struct timespec step = {.tv_nsec = 50000000};
    nanosleep(&first, NULL);
    for (unsigned quiet = 0, steps = 0; quiet < 2 && steps < steps_max; steps++) {
        int64_t used = 0;
        for (unsigned i = 0; i < n; i++)
            used -= cpu_ns(pids[i]);
        nanosleep(&step, NULL);
        for (unsigned i = 0; i < n; i++)
            used += cpu_ns(pids[i]);
        quiet = used < idle_ns ? quiet + 1 : 0;
    }
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* A bijection (splitmix64's last step): distinct records have distinct ids, in random order. */
static inline uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline void put_hex(uint8_t *out, uint64_t value)
{
    for (unsigned i = 0; i < ID_DIGITS; i++)
        out[i] = (uint8_t) "0123456789abcdef"[value >> (60 - 4 * i) & 15];
}

static inline void put_decimal(char *out, unsigned digits, uint64_t value)
{
    for (; digits > 0; value /= 10)
        out[--digits] = (char)('0' + value % 10);
}

/* A record's data, an object of DATA_BYTES with a NUL behind it; its numbers are there to be written over. */
static inline void make_data(char out[static DATA_BYTES + 1])
{
    static const char begin[] = "{\"name\":\"Pump 17, hall B\",\"state\":\"running\",\"counter\":1000000000,"
                                "\"temperature\":21.437,\"pressure\":1.013,\"limits\":{\"low\":4.5,\"high\":82},"
                                "\"tags\":[\"cooling\",\"north\"],\"service\":\"2026-11-02\",\"note\":\"";
    memset(out, '.', DATA_BYTES);
    out[DATA_BYTES] = '\0';
    memcpy(out, begin, sizeof(begin) - 1);
    memcpy(out + DATA_BYTES - 2, "\"}", 2);
}

/* --- what goes out ------------------------------------------------------------------------------------------------ */

/* Zero-initialise to start. */
struct outbox {
    uint8_t *p;
    size_t at, n, cap; /* p[at] to p[n] have not been sent yet */
};

/* Room for more bytes at the end, to be counted in n once they are there. */
static inline uint8_t *outbox_reserve(struct outbox *o, size_t more)
{
    if (o->at == o->n)
        o->at = o->n = 0;
    if (o->n + more > o->cap)
        o->p = grow(o->p, o->cap = 2 * (o->n + more));
    return o->p + o->n;
}

/* Returns whether all of it went out; failed: what is said when the other side has closed. */
static inline bool outbox_flush(struct outbox *o, int fd, const char *failed)
{
    while (o->at < o->n) {
        ssize_t n = send(fd, o->p + o->at, o->n - o->at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0)
            die("%s: %s", failed, strerror(errno));
        o->at += (size_t)n;
    }
    return true;
}

/* --- samples ------------------------------------------------------------------------------------------------------ */

/* Times. Zero-initialise to start. */
struct samples {
    float *us;
    size_t n, cap;
};

static inline void samples_add(struct samples *s, int64_t ns)
{
    if (s->n == s->cap)
        s->us = grow(s->us, (s->cap = s->cap == 0 ? 65536 : 2 * s->cap) * sizeof(*s->us));
    s->us[s->n++] = (float)ns / 1e3F;
}

static inline int samples_compare(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Members of a JSON object; sorts. There must be a sample. */
static inline void samples_print(struct samples *s)
{
    const float *us = s->us;
    const size_t n = s->n;
    qsort(s->us, n, sizeof(*us), samples_compare);
    printf("\"p50Us\":%.1f,\"p99Us\":%.1f,\"p999Us\":%.1f,\"maxUs\":%.1f", (double)us[n / 2], (double)us[n * 99 / 100],
           (double)us[n * 999 / 1000], (double)us[n - 1]);
}

#endif
