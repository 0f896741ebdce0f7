/* SPDX-License-Identifier: BSD-3-Clause */
#include "timestamp.h"

#include <time.h>

#define MS_PER_MINUTE INT64_C(60000)
#define SECONDS_PER_DAY INT64_C(86400)
#define FIRST_SECOND INT64_C(-62167219200) /* 0000-01-01T00:00:00Z */
#define LAST_SECOND INT64_C(253402300799)  /* 9999-12-31T23:59:59Z */

/* --- calendar ----------------------------------------------------------------------------------------------------- */

/* Years are counted from 1 March, so that the leap day is a year's last; 400 years, an era, always have 146097 days. */

static int64_t days_from_date(int year, int month, int day)
{
    int y = year - (month <= 2) + 400; /* year 0 begins in the year before it; no negative divisions */
    int era = y / 400, year_of_era = y % 400;
    int day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return (int64_t)(era - 1) * 146097 + day_of_era - 719468;
}

static void date_from_days(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
    int64_t shifted = days + 719468 + 146097;
    int era = (int)(shifted / 146097), day_of_era = (int)(shifted % 146097);
    int year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int month = (5 * day_of_year + 2) / 153;

    *ret_day = day_of_year - (153 * month + 2) / 5 + 1;
    *ret_month = month < 10 ? month + 3 : month - 9;
    *ret_year = (era - 1) * 400 + year_of_era + (*ret_month <= 2);
}

static int days_in_month(int year, int month)
{
    static const signed char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return days[month - 1] + (month == 2 && leap);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static bool take_digits(struct mqsync_slice *s, size_t n, int *ret)
{
    int value = 0;

    if (s->n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return false;
        value = value * 10 + (s->p[i] - '0');
    }
    s->p += n;
    s->n -= n;
    *ret = value;
    return true;
}

static bool take_any(struct mqsync_slice *s, const char *choice)
{
    if (s->n == 0 || *s->p == '\0' || !strchr(choice, *s->p))
        return false;
    s->p++;
    s->n--;
    return true;
}

static bool take_two(struct mqsync_slice *s, int least, int most, int *ret)
{
    return take_digits(s, 2, ret) && *ret >= least && *ret <= most;
}

/* ".ddd...", cut to ms. */
static bool take_fraction(struct mqsync_slice *s, int *ret_ms)
{
    int ms = 0, digit, weight = 100;

    if (!take_digits(s, 1, &digit))
        return false;
    do {
        ms += digit * weight;
        weight /= 10;
    } while (take_digits(s, 1, &digit));
    *ret_ms = ms;
    return true;
}

/* Nothing, or an offset and then nothing. Without its colon the offset is no RFC 3339, but what strftime() writes. */
static bool take_zone(struct mqsync_slice *s, enum mqsync_time_kind *ret_kind, int64_t *ret_minutes)
{
    int hours, minutes;

    *ret_minutes = 0;
    if (s->n == 0) {
        *ret_kind = MQSYNC_TIME_ZONELESS;
        return true;
    }
    *ret_kind = MQSYNC_TIME_EXACT;
    if (take_any(s, "Zz"))
        return s->n == 0;

    bool west = *s->p == '-';
    if (!take_any(s, "+-") || !take_two(s, 0, 23, &hours))
        return false;
    take_any(s, ":");
    if (!take_two(s, 0, 59, &minutes))
        return false;
    *ret_minutes = (west ? -1 : 1) * (hours * 60 + minutes);
    return s->n == 0;
}

/* Behind the minute. */
static bool take_second(struct mqsync_slice *s, int *ret_second, int *ret_ms, bool *ret_comma)
{
    if (!take_two(s, 0, 60, ret_second))
        return false;
    *ret_comma = take_any(s, ",");
    return (!*ret_comma && !take_any(s, ".")) || take_fraction(s, ret_ms);
}

bool mqsync_time_parse(struct mqsync_slice text, struct mqsync_time *ret)
{
    struct mqsync_slice s = text;
    int year, month, day, hour, minute, second = 0, ms = 0;
    enum mqsync_time_kind kind;
    bool comma = false;
    int64_t offset;

    if (!take_digits(&s, 4, &year))
        return false;
    bool extended = take_any(&s, "-"); /* or ISO 8601's basic form: 20261122T181700 */
    if (!take_two(&s, 1, 12, &month) || (extended && !take_any(&s, "-")) ||
        !take_two(&s, 1, days_in_month(year, month), &day) || !take_any(&s, "Tt ") || !take_two(&s, 0, 23, &hour) ||
        (extended && !take_any(&s, ":")) || !take_two(&s, 0, 59, &minute))
        return false;
    bool has_second = extended ? take_any(&s, ":") : s.n && *s.p >= '0' && *s.p <= '9';
    if ((has_second && !take_second(&s, &second, &ms, &comma)) || !take_zone(&s, &kind, &offset))
        return false;
    if (kind == MQSYNC_TIME_EXACT && (!extended || comma)) /* with a zone it is to be RFC 3339's form */
        return false;

    int64_t minutes = (days_from_date(year, month, day) * 24 + hour) * 60 + minute - offset;
    *ret = (struct mqsync_time){kind, minutes * MS_PER_MINUTE + second * 1000 + ms};
    return true;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put_digits(char *to, size_t n, int value)
{
    while (n) {
        to[--n] = (char)('0' + value % 10);
        value /= 10;
    }
}

static void format_second(int64_t second, char out[20])
{
    int64_t days = second >= 0 ? second / SECONDS_PER_DAY : -((SECONDS_PER_DAY - 1 - second) / SECONDS_PER_DAY);
    int of_day = (int)(second - days * SECONDS_PER_DAY);
    int year, month, day;

    date_from_days(days, &year, &month, &day);
    memcpy(out, "0000-00-00T00:00:00.", 20);
    put_digits(out, 4, year);
    put_digits(out + 5, 2, month);
    put_digits(out + 8, 2, day);
    put_digits(out + 11, 2, of_day / 3600);
    put_digits(out + 14, 2, of_day / 60 % 60);
    put_digits(out + 17, 2, of_day % 60);
}

void mqsync_time_format(int64_t ms, char out[MQSYNC_TIMESTAMP_LEN])
{
    static _Thread_local int64_t last_second;
    static _Thread_local char last_text[20] = "1970-01-01T00:00:00.";

    if (ms < FIRST_SECOND * 1000)
        ms = FIRST_SECOND * 1000;
    if (ms > LAST_SECOND * 1000 + 999)
        ms = LAST_SECOND * 1000 + 999;

    int64_t second = ms >= 0 ? ms / 1000 : -((999 - ms) / 1000);
    if (second != last_second) {
        format_second(second, last_text);
        last_second = second;
    }
    memcpy(out, last_text, sizeof(last_text));
    put_digits(out + 20, 3, (int)(ms - second * 1000));
    out[23] = 'Z';
}

int64_t mqsync_time_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
