/* SPDX-License-Identifier: BSD-3-Clause */
#include "decimal.h"

enum {
    /* every digit of two numbers within the limits has a place at a fixed distance from the point */
    FRACTION_PLACES = MQSYNC_DECIMAL_MAX_DIGITS + MQSYNC_DECIMAL_MAX_EXPONENT,
    INTEGER_PLACES = MQSYNC_DECIMAL_MAX_DIGITS + MQSYNC_DECIMAL_MAX_EXPONENT + 1, /* and a carry */
    PLACES = FRACTION_PLACES + INTEGER_PLACES,
};

struct decimal {
    bool negative;
    int low, high;                /* digits outside low..high - 1 are 0 */
    unsigned char digits[PLACES]; /* lowest first; the point is before FRACTION_PLACES */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* at is behind the 'e'. False when it is beyond the limit. */
static bool read_exponent(const char *at, const char *end, int *ret)
{
    bool negative = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+'))
        at++;
    int v = 0;
    for (; at < end && is_digit(*at); at++) {
        v = v * 10 + (*at - '0');
        if (v > MQSYNC_DECIMAL_MAX_EXPONENT)
            return false;
    }
    *ret = negative ? -v : v;
    return true;
}

static bool read_decimal(struct mqsync_slice text, struct decimal *ret)
{
    const char *at = text.p, *end = text.p + text.n;
    ret->negative = at < end && *at == '-';
    if (ret->negative)
        at++;

    const char *first = at;
    int digits_n = 0, fraction_n = 0;
    bool fraction = false;
    for (; at < end && (is_digit(*at) || *at == '.'); at++) {
        if (*at == '.') {
            fraction = true;
            continue;
        }
        if (++digits_n > MQSYNC_DECIMAL_MAX_DIGITS)
            return false;
        fraction_n += fraction;
    }
    const char *last = at;
    int exponent = 0;
    if (at < end && (*at == 'e' || *at == 'E') && !read_exponent(at + 1, end, &exponent))
        return false;

    ret->low = FRACTION_PLACES + exponent - fraction_n;
    ret->high = ret->low + digits_n;
    memset(ret->digits, 0, sizeof(ret->digits));
    int place = ret->high;
    for (at = first; at < last; at++) {
        if (*at != '.')
            ret->digits[--place] = (unsigned char)(*at - '0');
    }
    return true;
}

static int compare_size(const struct decimal *a, const struct decimal *b, int low, int high)
{
    for (int i = high; i-- > low;) {
        if (a->digits[i] != b->digits[i])
            return a->digits[i] - b->digits[i];
    }
    return 0;
}

/* a += b, or a -= b where a is not the smaller one. One place above high is free for the carry. */
static void add_digits(struct decimal *a, const struct decimal *b, int low, int high, bool subtract)
{
    int carry = 0;
    for (int i = low; i <= high; i++) {
        int d = subtract ? a->digits[i] - b->digits[i] - carry : a->digits[i] + b->digits[i] + carry;
        carry = subtract ? d < 0 : d > 9;
        a->digits[i] = (unsigned char)(carry ? (subtract ? d + 10 : d - 10) : d);
    }
}

static void write_decimal(struct mqsync_buf *out, const struct decimal *d, int low, int high)
{
    while (high > FRACTION_PLACES + 1 && d->digits[high - 1] == 0)
        high--;
    if (high < FRACTION_PLACES + 1)
        high = FRACTION_PLACES + 1;
    while (low < FRACTION_PLACES && d->digits[low] == 0)
        low++;
    if (low > FRACTION_PLACES)
        low = FRACTION_PLACES;
    bool zero = high == FRACTION_PLACES + 1 && low == FRACTION_PLACES && d->digits[low] == 0;
    if (d->negative && !zero)
        mqsync_buf_add_char(out, '-');
    for (int i = high; i-- > low;) {
        if (i == FRACTION_PLACES - 1)
            mqsync_buf_add_char(out, '.');
        mqsync_buf_add_char(out, (char)('0' + d->digits[i]));
    }
}

bool mqsync_decimal_sum(struct mqsync_buf *out, struct mqsync_slice a, struct mqsync_slice b)
{
    struct decimal x, y;
    if (!read_decimal(a, &x) || !read_decimal(b, &y))
        return false;
    int low = x.low < y.low ? x.low : y.low, high = x.high > y.high ? x.high : y.high;
    struct decimal *larger = &x, *smaller = &y;
    if (compare_size(&x, &y, low, high) < 0) {
        larger = &y;
        smaller = &x;
    }
    add_digits(larger, smaller, low, high, x.negative != y.negative);
    write_decimal(out, larger, low, high + 1);
    return true;
}
