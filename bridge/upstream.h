/* SPDX-License-Identifier: BSD-3-Clause */
/* The connection to the broker: MQTT 5, commands out, events and answers in. Knows libmosquitto; who waits for the
 * socket is the caller's business. Never blocks. */
#ifndef MQSYNC_BRIDGE_UPSTREAM_H
#define MQSYNC_BRIDGE_UPSTREAM_H

#include <sys/socket.h>

#include "config.h"
#include "topic.h"

/* What a command is known by when something comes of it. */
struct mqsync_upstream_tag {
    uint64_t sender;   /* a session's handle, a request's */
    uint64_t mark;     /* of a change that waits for its event; 0: none */
    uint64_t question; /* that the answers are to; 0: none */
};

/* The question of a command by which the bridge follows a collection: its answers are `subscribed` and then events that
 * have all of the record. */
#define MQSYNC_UPSTREAM_FOLLOW (UINT64_MAX - 1)

struct mqsync_upstream_event {
    struct mqsync_slice collection, record_id;
    struct mqsync_slice payload;
    bool whole;                         /* the second one of its change: an answer to MQSYNC_UPSTREAM_FOLLOW */
    uint64_t mark;                      /* of the command's tag; 0: somebody else's */
    bool owner_told, former_owner_told; /* the plugin says whose record it is, and whose it was before the change */
    struct mqsync_slice owner, former_owner; /* empty: nobody's */
};

/* User properties that are metadata of a command of the short form. */
enum { MQSYNC_UPSTREAM_METADATA_N = 4 };

/* A command that no plugin has taken: somebody's will. Everything lives for the call. */
struct mqsync_upstream_will {
    struct mqsync_topic topic; /* below root/{collection}/cmd */
    struct mqsync_slice payload;
    const char *metadata[MQSYNC_UPSTREAM_METADATA_N]; /* NULL: not given */
};

struct mqsync_upstream_handler {
    void *context;
    void (*up)(void *context); /* connected, subscribed: what happens from now on is announced */
    void (*down)(void *context);
    /* Announced from the moment of the subscription on; some may be missing, and are seen missing by their seq. */
    void (*event)(void *context, const struct mqsync_upstream_event *e);
    /* From now on a collection's events come whole, too, each after the other one; or they do not. */
    void (*followed)(void *context, struct mqsync_slice collection, bool follows);
    /* Never for what a bridge has sent, this or another one. */
    void (*will)(void *context, const struct mqsync_upstream_will *w);
    /* An answer to the command with that tag; payload lives for the call. */
    void (*answer)(void *context, const struct mqsync_upstream_tag *tag, struct mqsync_slice payload);
    /* The broker has acknowledged the command of that message id. */
    void (*acknowledged)(void *context, uint16_t mid, bool refused);
    /* Wait for fd to become readable, and once for it to become writable when write; fd -1: for nothing. Another fd is
     * another connection. */
    void (*watch)(void *context, int fd, bool write);
    /* A command has been sent: mqsync_upstream_turn_over() is to be called once no more follow for now. */
    void (*busy)(void *context);
};

struct mqsync_upstream;

/* Starts nothing yet: mqsync_upstream_tick() does. config and handler must outlive it. */
enum mqsync_code mqsync_upstream_open(const struct mqsync_config *config, const struct mqsync_upstream_handler *handler,
                                      struct mqsync_upstream **ret, struct mqsync_error *ret_error);
void mqsync_upstream_close(struct mqsync_upstream *u); /* NULL is fine */

/* Keep-alive and reconnection; several times a second. now_ms never steps. */
void mqsync_upstream_tick(struct mqsync_upstream *u, int64_t now_ms);
void mqsync_upstream_readable(struct mqsync_upstream *u);
void mqsync_upstream_writable(struct mqsync_upstream *u);

/* The descriptor given to watch() is no longer being watched, though it may still have something to say. */
void mqsync_upstream_unwatched(struct mqsync_upstream *u);

/* Commands that wait for others to leave with leave now. */
void mqsync_upstream_turn_over(struct mqsync_upstream *u);

bool mqsync_upstream_is_up(const struct mqsync_upstream *u);

/* Where the broker was when it last answered, for more connections to it: nobody has to resolve its name again. */
struct mqsync_upstream_peer {
    struct sockaddr_storage address;
    socklen_t address_n; /* 0: it has never answered */
    const char *host;    /* as configured; the upstream's */
    bool tls;
};
void mqsync_upstream_peer(const struct mqsync_upstream *u, struct mqsync_upstream_peer *ret);

struct mqsync_upstream_command {
    struct mqsync_slice collection;
    struct mqsync_slice record_id; /* of the short form; n is 0: the documented one */
    enum mqsync_op op;
    const char *const *metadata; /* of the short form: MQSYNC_UPSTREAM_METADATA_N, as of a will; NULL: none */
    struct mqsync_slice payload;
    const char *user;                 /* on whose behalf; "": nobody's; NULL: not said */
    const struct mqsync_slice *roles; /* the user's: roles_n, each with a NUL behind it */
    size_t roles_n;
    struct mqsync_upstream_tag tag; /* comes back with every answer, its mark with the event that the command becomes */
    bool ack;                       /* wants an `ack` also without a mutationId */
    bool at_most_once;              /* at QoS 0, and its answers too: nobody acknowledges it */
};

/* Sends at QoS 1 as a rule: once it returns MQSYNC_OK the command is sent again after a reconnection until it is
 * acknowledged. *ret_mid is what acknowledged() will say. */
enum mqsync_code mqsync_upstream_command(struct mqsync_upstream *u, const struct mqsync_upstream_command *c,
                                         uint16_t *ret_mid);

#endif
