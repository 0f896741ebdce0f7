/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemon's one context. All of it belongs to one thread. */
#ifndef MQSYNC_BRIDGE_H
#define MQSYNC_BRIDGE_H

#include "channel.h"
#include "command.h"
#include "config.h"
#include "database.h"
#include "feed.h"
#include "log.h"
#include "metrics.h"
#include "pending.h"
#include "rest.h"
#include "user.h"

struct mqsync_server;
struct mqsync_session;
struct mqsync_tunnels;

struct mqsync_bridge {
    struct mqsync_config *config; /* SIGHUP puts another one here */
    const char *config_path;
    struct mqsync_token_verifier *verifier; /* NULL: everybody is anonymous */
    bool trusted;                           /* the bridge may say on whose behalf it writes */
    struct mqsync_upstream *upstream;
    struct mqsync_server *server;
    struct mqsync_tunnels *tunnels;
    struct mqsync_database database;
    const char *directory;     /* the database's, as configured; NULL: none */
    int64_t checking_until_ms; /* is it this broker's? Nobody is fed until that is known; 0: it is known */
    struct mqsync_metrics metrics;
    struct mqsync_users users;
    struct mqsync_channels channels;
    struct mqsync_feeds feeds;
    struct mqsync_pending pending;
    struct mqsync_questions questions;
    struct mqsync_rests rests;       /* HTTP requests */
    int64_t acknowledged_us;         /* when the broker has last acknowledged a command, or had none to */
    struct mqsync_session *sessions; /* all of them */
    struct mqsync_session **by_index;
    uint32_t by_index_n, free_index;
    uint64_t generation;
    bool stopping;
    int64_t sessions_due_ms, check_due_ms;
    /* Used anew by every message, so that none of them allocates. */
    struct mqsync_buf message, answer;
};

/* What the upstream connection is to call. */
void mqsync_bridge_handler(struct mqsync_bridge *b, struct mqsync_upstream_handler *ret);
/* Takes a configuration, which becomes the bridge's; on failure (a key that cannot be read) nothing has changed. */
enum mqsync_code mqsync_bridge_configure(struct mqsync_bridge *b, struct mqsync_config *config,
                                         struct mqsync_error *ret_error);
/* Several times a second. */
void mqsync_bridge_tick(struct mqsync_bridge *b);
/* SIGHUP: takes the configuration file as it is now, or keeps what it has. */
void mqsync_bridge_reload(struct mqsync_bridge *b);

#endif
