/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration file of plugin, bridge and mqsyncctl (docs/man/mqsync.json.5). Immutable once loaded. */
#ifndef MQSYNC_CONFIG_H
#define MQSYNC_CONFIG_H

#include "error.h"
#include "resolve.h"

enum mqsync_durability { MQSYNC_DURABILITY_PROCESS, MQSYNC_DURABILITY_POWER };

struct mqsync_names { /* of read, write: "*", "user:NAME", "role:NAME" as written */
    struct mqsync_slice *v;
    size_t n;
};

struct mqsync_collection_config {
    char *name; /* "*" for the one that stands for all others */
    struct mqsync_rules rules;
    bool retain;
    struct mqsync_names read, write;
    char *owner; /* field name, or NULL */
};

enum mqsync_jwt_algorithm { MQSYNC_JWT_HS256, MQSYNC_JWT_RS256, MQSYNC_JWT_ES256 };

struct mqsync_config {
    char *path; /* where it came from; NULL: the built-in defaults */
    char *root;
    char *database; /* NULL: not set, or not on this host */
    enum mqsync_durability durability;
    unsigned sync_interval_ms; /* 1..60000 */
    struct mqsync_collection_config *collections;
    size_t collections_n;
    struct {
        bool present; /* "auth"."jwt" is there */
        enum mqsync_jwt_algorithm algorithm;
        char *key_file, *user_claim /* NULL: userId, then sub */, *role_claim;
        bool mqtt; /* auth.mqtt */
    } auth;
    struct {
        unsigned messages_per_minute, connections_per_user; /* 0: no limit */
        size_t max_record_bytes;
        unsigned max_collections; /* limits.maxCollections, default 10000 */
    } limits;
    unsigned tombstone_days;
    struct {
        char *listen, *broker, *username, *password_file;
        unsigned idle_timeout_seconds;
        size_t send_queue_bytes;
        char **allowed_origins;
        size_t allowed_origins_n;
        char *tls_cert_file, *tls_key_file; /* NULL: no TLS */
        bool mqtt;                          /* whether /mqtt is served */
        unsigned max_connections;
        char **trusted_proxies; /* "unix", ADDRESS, or ADDRESS/BITS */
        size_t trusted_proxies_n;
    } bridge;
    char **trusted_users;
    size_t trusted_users_n;
};

/* Reads and checks a file (NULL: defaults, every collection). On failure returns MQSYNC_SERVER_ERROR and says in
 * *ret_error which file, which key (a path such as collections.notes.conflict.strategy) and what is allowed there; an
 * unknown key is a failure. */
enum mqsync_code mqsync_config_load(const char *path, struct mqsync_config **ret, struct mqsync_error *ret_error);
/* The same from a text in memory; file is what errors call it and what becomes the path (NULL: "configuration", no
 * path). */
enum mqsync_code mqsync_config_parse(struct mqsync_slice text, const char *file, struct mqsync_config **ret,
                                     struct mqsync_error *ret_error);
void mqsync_config_free(struct mqsync_config *c); /* NULL is fine */

/* The named collection's settings, those of "*" if it is not named, NULL if there is no "*" either. Fast with
 * thousands. */
const struct mqsync_collection_config *mqsync_config_collection(const struct mqsync_config *c,
                                                                struct mqsync_slice name);

/* Whether trustedUsers has the MQTT user name, which may be NULL: that is nobody. */
bool mqsync_config_trusted(const struct mqsync_config *c, const char *mqtt_username);

#endif
