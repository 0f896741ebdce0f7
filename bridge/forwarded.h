/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a client is that comes through a proxy. */
#ifndef MQSYNC_BRIDGE_FORWARDED_H
#define MQSYNC_BRIDGE_FORWARDED_H

#include "config.h"

enum { MQSYNC_ADDRESS_LEN = 48 };

/* The client's address: the last one, peer included, that trustedProxies does not have. peer is an address, or "unix";
 * header is what all X-Forwarded-For together say, and hostile: what is written in it left of that address is not even
 * read. */
void mqsync_forwarded(const struct mqsync_config *config, const char *peer, struct mqsync_slice header,
                      char ret[static MQSYNC_ADDRESS_LEN]);

#endif
