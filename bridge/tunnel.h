/* SPDX-License-Identifier: BSD-3-Clause */
/* MQTT over WebSockets: the bytes of a client's binary frames to a connection of its own to the broker, and back. Reads
 * no MQTT. Knows libwebsockets. */
#ifndef MQSYNC_BRIDGE_TUNNEL_H
#define MQSYNC_BRIDGE_TUNNEL_H

#include <libwebsockets.h>

#include "bridge.h"

struct mqsync_tunnels; /* all of them */

enum mqsync_code mqsync_tunnels_open(struct mqsync_bridge *b, struct lws_vhost *vhost, struct mqsync_tunnels **ret,
                                     struct mqsync_error *ret_error);
/* After the vhost is gone. NULL is fine. */
void mqsync_tunnels_close(struct mqsync_tunnels *all);

/* Time-outs; several times a second. */
void mqsync_tunnels_tick(struct mqsync_tunnels *all, int64_t now_ms);
/* The bridge is stopping: all of them close. */
void mqsync_tunnels_end(struct mqsync_tunnels *all);

/* Whether a client may ask for this subprotocol on /mqtt. */
bool mqsync_tunnel_speaks(const char *subprotocol);

enum {
    MQSYNC_TUNNEL_RX = 4096,  /* bytes read from a client at once, and kept when the broker does not take them */
    MQSYNC_TUNNEL_TX = 16384, /* bytes read from the broker at once, and kept when the client does not take them */
};

int mqsync_tunnel_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n);

/* Entries for the vhost's table of protocols. */
#define MQSYNC_TUNNEL_PROTOCOL(called)                                                                                 \
    {                                                                                                                  \
        .name = (called), .callback = mqsync_tunnel_callback, .per_session_data_size = sizeof(void *),                 \
        .rx_buffer_size = MQSYNC_TUNNEL_RX, .tx_packet_size = MQSYNC_TUNNEL_TX                                         \
    }

#endif
