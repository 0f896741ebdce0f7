/* SPDX-License-Identifier: BSD-3-Clause */
/* What a service manager such as systemd says to a daemon and wants to hear from it: sd_notify(3) and
 * sd_listen_fds(3). Written out here, since it is one datagram and two variables, and libsystemd would bring three
 * compressors and a crypto library into the process. Without a service manager all of it does nothing. */
#ifndef MQSYNC_BRIDGE_SERVICE_H
#define MQSYNC_BRIDGE_SERVICE_H

#include <stdint.h>

/* Lines such as "READY=1"; at most 200 bytes. */
void mqsync_service_notify(const char *state);
/* The same for a reload that begins now. */
void mqsync_service_notify_reloading(void);

/* How often "WATCHDOG=1" has to be said at least, in microseconds; 0: never. */
int64_t mqsync_service_watchdog_us(void);

enum { MQSYNC_SERVICE_FIRST_FD = 3 };
/* How many listening sockets have been passed, as descriptors from MQSYNC_SERVICE_FIRST_FD on. */
unsigned mqsync_service_sockets(void);

#endif
