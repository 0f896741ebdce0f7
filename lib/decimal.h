/* SPDX-License-Identifier: BSD-3-Clause */
/* Arithmetic on JSON numbers as they are written, without rounding. */
#ifndef MQSYNC_DECIMAL_H
#define MQSYNC_DECIMAL_H

#include "buf.h"

#define MQSYNC_DECIMAL_MAX_DIGITS 2000
#define MQSYNC_DECIMAL_MAX_EXPONENT 400

/* Appends the exact sum of two JSON numbers, without exponent and without zeros that say nothing. False, with nothing
 * appended, when one has more than MQSYNC_DECIMAL_MAX_DIGITS digits or an exponent beyond
 * +-MQSYNC_DECIMAL_MAX_EXPONENT. */
bool mqsync_decimal_sum(struct mqsync_buf *out, struct mqsync_slice a, struct mqsync_slice b);

#endif
