/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's one context, and one command on its way through it. All of it belongs to the broker's thread. */
#ifndef MQSYNC_PLUGIN_H
#define MQSYNC_PLUGIN_H

#include "access.h"
#include "config.h"
#include "message.h"
#include "resolve.h"
#include "broker.h"
#include "clients.h"
#include "counters.h"
#include "logins.h"
#include "properties.h"
#include "store.h"

struct mqsync_followers;
struct mqsync_streams;
struct mqsync_retainer;

/* Collections whose newest event may still wait in the broker's queue of what plugins publish. */
enum { MQSYNC_QUEUED_SLOTS = 64, MQSYNC_QUEUED_US = 100000 };
struct mqsync_queued {
    uint64_t ticks;   /* how many there had been */
    int64_t at_us;    /* monotonic; 0: none waits */
    int64_t since_ms; /* when the oldest that may wait was made */
};

struct mqsync_plugin {
    struct mqsync_broker broker;
    struct mqsync_config *config; /* SIGHUP puts another one here */
    char *config_path;            /* NULL: defaults */
    char *dir;                    /* of the database */
    bool dir_given;               /* by plugin_opt_db_path */
    char *prefix;                 /* the root and a slash; stays what it was at the start */
    size_t prefix_n;
    struct mqsync_store *store;
    unsigned instances; /* inits that have not been cleaned up: one for each plugin line */
    int64_t started_ms;
    int64_t last_tick_ms; /* monotonic; long ago when there was none yet */
    uint64_t ticks;
    struct mqsync_queued queued[MQSYNC_QUEUED_SLOTS]; /* by a hash of the collection's pointer */
    struct mqsync_clients clients;
    struct mqsync_counters counters;
    struct mqsync_followers *followers;
    struct mqsync_streams *streams;
    struct mqsync_retainer *retainer;
    struct mqsync_logins *logins; /* NULL without auth.mqtt */
    int allowed;                  /* what the access check answers when the rules allow something */
    /* Used anew by every command, so that none of them allocates. */
    struct {
        struct mqsync_buf message, resolved, event, followed, answer, topic, record;
        struct mqsync_buf owner_before, owner_now, whole; /* of collections with owner alone */
        struct mqsync_record stored;
        struct mqsync_outcome outcome;
    } scratch;
};

struct mqsync_request {
    struct mosquitto_evt_message *event;
    int64_t now_ms;
    const char *client_id; /* NULL: nobody to answer */
    struct mqsync_slice user;
    bool bound;   /* the read, write and owner rules hold for who */
    bool follows; /* a subscribe's client is sent whole records: followers.h */
    struct mqsync_identity who;
    struct mqsync_properties properties;
    struct mqsync_topic topic;
    struct mqsync_message message;
    const struct mqsync_collection_config *rules;
    struct mqsync_collection *collection; /* NULL: never written to */
    struct mqsync_record *stored;         /* NULL: id never used */
    uint64_t floor;
    struct mqsync_slice owner_before, owner_now; /* of an accepted or repeated write; empty: nobody */
    struct mqsync_error error;                   /* filled when a stage has failed */
    bool error_has_version;
    uint64_t error_version;
};

static inline struct mqsync_slice mqsync_plugin_root(const struct mqsync_plugin *p)
{
    return (struct mqsync_slice){p->prefix, p->prefix_n - 1};
}

/* No TICK for two seconds: this broker has none (2.0.11 with per_listener_settings). */
static inline bool mqsync_plugin_ticks(const struct mqsync_plugin *p, int64_t now_us)
{
    return now_us / 1000 - p->last_tick_ms < 2000;
}

#endif
