/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "progress.h"
#include "timestamp.h"

#define REDRAW_MS 100
#define BAR_MAX 40
#define BAR_LEAST 8
#define CLOCK_EVERY 64 /* calls */
#define TEXT_MAX 160

static int64_t now_ms(void)
{
    return mqsync_monotonic_us() / 1000;
}

const char *mqsync_bytes_text(uint64_t bytes, char out[MQSYNC_BYTES_TEXT])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        snprintf(out, MQSYNC_BYTES_TEXT, "%u B", (unsigned)bytes);
        return out;
    }
    double n = (double)bytes / 1024;
    size_t unit = 0;
    while (n >= 1000 && unit + 1 < sizeof units / sizeof *units) {
        n /= 1024;
        unit++;
    }
    snprintf(out, MQSYNC_BYTES_TEXT, "%.1f %s", n, units[unit]);
    return out;
}

static const char *amount(const struct mqsync_progress *p, uint64_t n, char out[MQSYNC_BYTES_TEXT])
{
    if (p->unit == MQSYNC_UNIT_BYTES)
        return mqsync_bytes_text(n, out);
    snprintf(out, MQSYNC_BYTES_TEXT, "%llu", (unsigned long long)n);
    return out;
}

/* "1:05", "2:00:00" */
static void duration(uint64_t s, char out[MQSYNC_BYTES_TEXT])
{
    unsigned long long hours = s / 3600;
    unsigned minutes = (unsigned)(s / 60 % 60), seconds = (unsigned)(s % 60);
    if (hours)
        snprintf(out, MQSYNC_BYTES_TEXT, "%llu:%02u:%02u", hours, minutes, seconds);
    else
        snprintf(out, MQSYNC_BYTES_TEXT, "%u:%02u", minutes, seconds);
}

static unsigned columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

static void draw(const struct mqsync_progress *p, int64_t now, bool last)
{
    char text[TEXT_MAX], done[MQSYNC_BYTES_TEXT], total[MQSYNC_BYTES_TEXT], rate[MQSYNC_BYTES_TEXT],
        left[MQSYNC_BYTES_TEXT] = "";
    char bar[BAR_MAX + 3] = "";
    double seconds = (double)(now - p->began_ms) / 1000, speed = seconds > 0 ? (double)p->done / seconds : 0;
    unsigned width = columns();
    uint64_t all = p->total > p->done ? p->total : p->done;
    if (last)
        duration((uint64_t)seconds, left);
    else if (p->total && speed > 0)
        duration((uint64_t)((double)(all - p->done) / speed + 0.5), left);
    amount(p, p->done, done);
    amount(p, (uint64_t)speed, rate);
    if (p->total)
        snprintf(text, sizeof text, " %3u%%  %s of %s  %s/s  %s%s",
                 all ? (unsigned)(100 * ((double)p->done / (double)all)) : 100, done, amount(p, all, total), rate,
                 *left ? (last ? "in " : "ETA ") : "", left);
    else
        snprintf(text, sizeof text, " %s  %s/s%s%s", done, rate, *left ? "  in " : "", left);
    size_t used = strlen(p->what) + 1 + strlen(text) + 3;
    if (p->total && width > used + BAR_LEAST) {
        unsigned cells = width - (unsigned)used < BAR_MAX ? width - (unsigned)used : BAR_MAX;
        unsigned full = all ? (unsigned)((double)cells * ((double)p->done / (double)all)) : cells;
        bar[0] = '[';
        memset(bar + 1, '#', full);
        memset(bar + 1 + full, '.', cells - full);
        bar[cells + 1] = ']';
    }
    fprintf(stderr, "\r%s %s%.*s\033[K", p->what, bar, (int)(width > 1 ? width - 1 : 1), text);
    fflush(stderr);
}

void mqsync_progress_begin(struct mqsync_progress *p, bool quiet, const char *what, enum mqsync_unit unit,
                           uint64_t total)
{
    *p = (struct mqsync_progress){.shown = !quiet && isatty(STDERR_FILENO), .what = what, .unit = unit, .total = total};
    p->began_ms = now_ms();
}

static void redraw_when_due(struct mqsync_progress *p)
{
    int64_t now = now_ms();
    if (p->drawn_ms && now - p->drawn_ms < REDRAW_MS)
        return;
    p->drawn_ms = now;
    draw(p, now, false);
}

void mqsync_progress_update(struct mqsync_progress *p, uint64_t done)
{
    p->done = done;
    if (!p->shown || p->skip-- > 0)
        return;
    p->skip = CLOCK_EVERY;
    redraw_when_due(p);
}

void mqsync_progress_callback(void *context, uint64_t done, uint64_t total)
{
    struct mqsync_progress *p = context;
    p->done = done;
    p->total = total;
    if (p->shown)
        redraw_when_due(p);
}

void mqsync_progress_finish(struct mqsync_progress *p)
{
    if (!p->shown)
        return;
    draw(p, now_ms(), true);
    fputc('\n', stderr);
    p->shown = false;
}

void mqsync_progress_clear(struct mqsync_progress *p)
{
    if (p->shown && p->drawn_ms)
        fputs("\r\033[K", stderr);
}
