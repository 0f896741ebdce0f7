/* SPDX-License-Identifier: BSD-3-Clause */
/* What is remembered of clients, in memory of fixed size: when one was last disconnected, and how much it has sent. */
#ifndef MQSYNC_CLIENTS_H
#define MQSYNC_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

enum { MQSYNC_CLIENT_SLOTS = 4096 };

/* Two clients that share a slot push each other out: then a redelivery is not known as one, or a limit starts anew. */
struct mqsync_clients {
    uint64_t seed;
    struct {
        uint64_t client;
        int64_t at_ms;
    } disconnected[MQSYNC_CLIENT_SLOTS];
    struct {
        uint64_t client;
        int64_t since_ms;
        unsigned sent;
    } minute[MQSYNC_CLIENT_SLOTS];
    bool holds[MQSYNC_CLIENT_SLOTS]; /* for good: nobody says when the broker has let go */
};

void mqsync_clients_init(struct mqsync_clients *c);

void mqsync_clients_disconnected(struct mqsync_clients *c, const char *client_id, int64_t now_ms);

/* When the client was last disconnected, `otherwise` when that is not known. client_id may be NULL. */
int64_t mqsync_clients_last_disconnected(const struct mqsync_clients *c, const char *client_id, int64_t otherwise);

/* The broker holds an event of the client's until its PUBREL. client_id may be NULL. */
void mqsync_clients_hold(struct mqsync_clients *c, const char *client_id);

/* False: the broker has held no event of the client's since mqsync_clients_init(). */
bool mqsync_clients_may_hold(const struct mqsync_clients *c, const char *client_id);

/* Counts a message; false when the client has sent more than `limit` (0: as many as it likes) within this minute. */
bool mqsync_clients_may_send(struct mqsync_clients *c, const char *client_id, unsigned limit, int64_t now_ms);

#endif
