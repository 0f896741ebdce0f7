/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef MQSYNC_STD_FDS_H
#define MQSYNC_STD_FDS_H

#include <stdbool.h>

/* A program that was started with stdin, stdout or stderr closed opens its first files in their place: what it prints
 * goes into those, and lock.mdb, which is shared with the broker, was one of them. Puts something else there, on which
 * reading and writing fail as on what is closed. To be called before anything is opened that is written to. False, with
 * errno, when that cannot be done. */
bool mqsync_std_fds_hold(void);

#endif
