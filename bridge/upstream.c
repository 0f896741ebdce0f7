/* SPDX-License-Identifier: BSD-3-Clause */
#include "upstream.h"

#include <errno.h>
#include <inttypes.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "buffered.h"
#include "dial.h"
#include "log.h"
#include "message.h"

enum {
    KEEPALIVE_SECONDS = 15,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 5000,
    HANDSHAKE_MS = 10000,
    IN_FLIGHT = 65535,
};

/* User properties that the plugin adds to the events of records with an owner. */
#define PASSWORD_SIZE 1026 /* 1024 bytes, a newline, a NUL */
#define OWNER_PROPERTY "owner"
#define FORMER_OWNER_PROPERTY "formerOwner"

/* Of all bridges that serve a broker one gets each will. */
#define WILLS_GROUP "$share/mqsync/"

static const char *const metadata_names[MQSYNC_UPSTREAM_METADATA_N] = {"mutationId", "baseVersion", "ifVersion",
                                                                       "timestamp"};

struct mqsync_upstream {
    const struct mqsync_upstream_handler *handler;
    struct mosquitto *mosq;
    struct mqsync_dial *dial; /* has mosq for itself; NULL: nobody is connecting */
    char *prefix;             /* the root and a slash */
    char *host;
    int port;
    bool tls;
    struct sockaddr_storage address; /* the broker's, once it has answered */
    socklen_t address_n;
    char id[48];
    uint64_t secret; /* stands before every tag: another bridge's tags are not ours */
    bool connecting, up, said_down, ever;
    int subscribe_mid, wills_mid;
    bool returned; /* a bridge's command has come back, which has been said */
    int64_t now_ms, retry_ms, deadline_ms;
    unsigned backoff_ms;
    int fd; /* being watched; -1: none */
    bool fd_write;
    uint64_t packets;  /* read, of most kinds */
    unsigned commands; /* in this turn of the loop */
    struct mqsync_buf topic;
};

/* --- the socket --------------------------------------------------------------------------------------------------- */

/* And has what waits written, unless there are commands, which leave together at the turn's end. */
static void watch(struct mqsync_upstream *u)
{
    int fd = mosquitto_socket(u->mosq);
    bool write;

    mqsync_buffered_attach(fd);
    write = (u->commands == 0 && !mqsync_buffered_flush()) || (fd >= 0 && mosquitto_want_write(u->mosq));
    if (fd == u->fd && write == u->fd_write)
        return;
    u->fd = fd;
    u->fd_write = write;
    u->handler->watch(u->handler->context, fd, write);
}

static void lost(struct mqsync_upstream *u, const char *why)
{
    bool was_up = u->up;

    u->up = false;
    u->connecting = false;
    u->fd = -1;
    u->handler->watch(u->handler->context, -1, false);
    if (was_up || !u->said_down)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3011", "%s the broker at %s:%d: %s; trying again",
                   was_up ? "lost the connection to" : "cannot connect to", u->host, u->port, why);
    u->said_down = true;
    u->retry_ms = u->now_ms + u->backoff_ms + (int64_t)(u->backoff_ms * (u->secret % 100) / 400);
    u->backoff_ms = u->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : u->backoff_ms * 2;
    if (was_up)
        u->handler->down(u->handler->context);
}

/* After every call of libmosquitto that may have lost the connection. */
static void settle(struct mqsync_upstream *u, int result)
{
    if ((u->up || u->connecting) && (result != MOSQ_ERR_SUCCESS || mosquitto_socket(u->mosq) < 0)) {
        lost(u, result == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(result ? result : MOSQ_ERR_CONN_LOST));
        mosquitto_disconnect(u->mosq);
        mqsync_buffered_flush();
        mqsync_buffered_attach(-1);
        return;
    }
    watch(u);
}

/* --- what libmosquitto calls -------------------------------------------------------------------------------------- */

/* QoS 0: a session that ends with its connection keeps nothing at QoS 1 either, and of many that come at once the
 * broker drops as many or more there. */
static bool subscribe_to_wills(struct mqsync_upstream *u)
{
    struct mqsync_buf pattern = {0};
    bool ok;

    mqsync_buf_add_str(&pattern, WILLS_GROUP);
    mqsync_buf_add_str(&pattern, u->prefix);
    mqsync_buf_add(&pattern, "+/cmd/#", sizeof("+/cmd/#"));
    ok = !pattern.failed &&
         !mosquitto_subscribe_v5(u->mosq, &u->wills_mid, pattern.p, 0, MQTT_SUB_OPT_SEND_RETAIN_NEVER, NULL);
    mqsync_buf_free(&pattern);
    return ok;
}

static void on_connect(struct mosquitto *mosq, void *context, int result, int flags,
                       const mosquitto_property *properties)
{
    struct mqsync_upstream *u = context;
    struct mqsync_buf pattern = {0};
    socklen_t n = sizeof(u->address);

    (void)flags;
    (void)properties;
    if (getpeername(mosquitto_socket(mosq), (struct sockaddr *)&u->address, &n) == 0)
        u->address_n = n;
    if (result) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS3012", "the broker at %s:%d refuses the bridge: %s", u->host, u->port,
                   mosquitto_reason_string(result));
        return;
    }
    u->packets++;
    u->returned = false;
    if (!subscribe_to_wills(u)) /* out of memory: the connection is given up after HANDSHAKE_MS */
        return;
    mqsync_buf_add_str(&pattern, u->prefix);
    mqsync_buf_add(&pattern, "+/evt/+", sizeof("+/evt/+"));
    /* QoS 0: at QoS 1 the broker lets 20 be unacknowledged and drops what waits longer; either way seq tells */
    if (!pattern.failed)
        mosquitto_subscribe_v5(mosq, &u->subscribe_mid, pattern.p, 0, 0, NULL);
    mqsync_buf_free(&pattern);
}

static void on_subscribe(struct mosquitto *mosq, void *context, int mid, int n, const int *granted,
                         const mosquitto_property *properties)
{
    struct mqsync_upstream *u = context;

    (void)mosq;
    (void)properties;
    u->packets++;
    if (mid == u->wills_mid && (n < 1 || granted[0] >= 0x80))
        mqsync_log(
            MQSYNC_LOG_WARNING, "MQS3051",
            "the broker does not let the bridge subscribe to " WILLS_GROUP
            "%s+/cmd/#: wills are not carried out until its ACLs allow it, as \"topic readwrite %s+/cmd/#\" does "
            "in an acl_file, and with auth.mqtt trustedUsers",
            u->prefix, u->prefix);
    if (mid != u->subscribe_mid || u->up)
        return;
    if (n < 1 || granted[0] >= 0x80) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS3013",
                   "the broker does not let the bridge subscribe to %s+/evt/+: its ACLs must allow it", u->prefix);
        return;
    }
    u->up = true;
    u->connecting = false;
    u->said_down = false;
    u->backoff_ms = BACKOFF_FIRST_MS;
    mqsync_log(MQSYNC_LOG_INFO, "MQS3010", "connected to the broker at %s:%d as %s", u->host, u->port, u->id);
    u->handler->up(u->handler->context);
}

/* The Correlation Data of a command. The plugin leaves it on the event because of how it begins. */
struct correlation {
    char name[sizeof(MQSYNC_BRIDGE_CORRELATION) - 1];
    uint64_t secret;
    struct mqsync_upstream_tag tag;
};
_Static_assert(sizeof(struct correlation) == 40, "nothing between its parts");

/* Whether a bridge, whichever, has sent what has these properties. */
static bool read_correlation(const mosquitto_property *list, struct correlation *ret)
{
    void *bytes = NULL;
    uint16_t n = 0;
    bool good;

    if (!mosquitto_property_read_binary(list, MQTT_PROP_CORRELATION_DATA, &bytes, &n, false))
        return false;
    good = n == sizeof(*ret) && memcmp(bytes, MQSYNC_BRIDGE_CORRELATION, sizeof(ret->name)) == 0;
    if (good)
        memcpy(ret, bytes, sizeof(*ret));
    free(bytes);
    return good;
}

struct told {
    char *owner, *former_owner;
    bool unknown; /* told twice, or not to be read: then neither is to be believed */
};

/* Takes value over. */
static void take_owner(struct told *t, char **at, char *value)
{
    t->unknown = t->unknown || *at;
    free(*at);
    *at = value;
}

/* Whether item is a user property; then its parts, which have to be freed. NULL: out of memory. */
static bool read_user_property(const mosquitto_property *item, char **ret_name, char **ret_value)
{
    *ret_name = *ret_value = NULL;
    if (mosquitto_property_identifier(item) != MQTT_PROP_USER_PROPERTY)
        return false;
    const mosquitto_property *read =
        mosquitto_property_read_string_pair(item, MQTT_PROP_USER_PROPERTY, ret_name, ret_value, false);
    /* later versions of the library give NULL for what is empty */
    if (read && !*ret_name)
        *ret_name = strdup("");
    if (read && !*ret_value)
        *ret_value = strdup("");
    if (!*ret_name || !*ret_value) {
        free(*ret_name);
        free(*ret_value);
        *ret_name = *ret_value = NULL;
    }
    return true;
}

static void read_told(const mosquitto_property *list, struct told *t)
{
    char *name, *value;

    for (const mosquitto_property *item = list; item; item = mosquitto_property_next(item)) {
        if (!read_user_property(item, &name, &value))
            continue;
        if (!name)
            t->unknown = true;
        else if (strcmp(name, OWNER_PROPERTY) == 0)
            take_owner(t, &t->owner, value);
        else if (strcmp(name, FORMER_OWNER_PROPERTY) == 0)
            take_owner(t, &t->former_owner, value);
        else
            free(value);
        free(name);
    }
}

static void take_event(struct mqsync_upstream *u, struct mqsync_upstream_event *e, const mosquitto_property *properties)
{
    struct told told = {0};
    struct correlation correlation;

    read_told(properties, &told);
    if (read_correlation(properties, &correlation) && correlation.secret == u->secret)
        e->mark = correlation.tag.mark;
    e->owner_told = !told.unknown && (told.owner || told.former_owner);
    e->former_owner_told = !told.unknown && told.former_owner;
    e->owner = mqsync_slice_str(told.owner);
    e->former_owner = mqsync_slice_str(told.former_owner);
    u->handler->event(u->handler->context, e);
    free(told.owner);
    free(told.former_owner);
}

/* The topic does not tell the record; the plugin wrote the payload, which has been checked by nobody yet. */
static void take_followed(struct mqsync_upstream *u, struct mqsync_upstream_event *e,
                          const mosquitto_property *properties)
{
    struct mqsync_slice value;

    if (mqsync_json_check(e->payload, NULL, NULL) != MQSYNC_OK)
        return;
    if (mqsync_json_member(e->payload, MQSYNC_SLICE("recordId"), MQSYNC_JSON_STRING, &value)) {
        struct mqsync_buf id = {0};
        mqsync_json_unescape(&id, value);
        e->record_id = mqsync_buf_slice(&id);
        e->whole = true;
        if (!id.failed)
            take_event(u, e, properties);
        mqsync_buf_free(&id);
    } else if (mqsync_slice_starts_with(e->payload, "{\"type\":\"subscribed\"")) {
        bool follows = mqsync_json_member(e->payload, MQSYNC_SLICE("metadata"), MQSYNC_JSON_OBJECT, &value) &&
                       mqsync_json_member(value, MQSYNC_SLICE("updates"), MQSYNC_JSON_STRING, &value);
        u->handler->followed(u->handler->context, e->collection, follows);
    }
}

static void take_answer(struct mqsync_upstream *u, struct mqsync_upstream_event *e,
                        const mosquitto_property *properties)
{
    struct correlation correlation;

    if (!read_correlation(properties, &correlation) || correlation.secret != u->secret)
        return;
    if (correlation.tag.question == MQSYNC_UPSTREAM_FOLLOW)
        take_followed(u, e, properties);
    else
        u->handler->answer(u->handler->context, &correlation.tag, e->payload);
}

/* False: out of memory. */
static bool read_metadata(const mosquitto_property *list, char *metadata[MQSYNC_UPSTREAM_METADATA_N])
{
    char *name, *value;
    bool ok = true;

    for (const mosquitto_property *item = list; item; item = mosquitto_property_next(item)) {
        if (!read_user_property(item, &name, &value))
            continue;
        ok = ok && name;
        for (size_t i = 0; value && i < MQSYNC_UPSTREAM_METADATA_N; i++) {
            if (strcmp(name, metadata_names[i]) == 0) {
                free(metadata[i]);
                metadata[i] = value;
                value = NULL;
            }
        }
        free(name);
        free(value);
    }
    return ok;
}

/* The plugin lets no command through, so this is a will; or there is no plugin, and then a bridge's own commands come,
 * too, and must not go round and round. */
static void take_will(struct mqsync_upstream *u, const struct mosquitto_message *m,
                      const mosquitto_property *properties)
{
    struct mqsync_upstream_will w = {.payload = {m->payload, (size_t)m->payloadlen}};
    char *metadata[MQSYNC_UPSTREAM_METADATA_N] = {0};
    struct correlation correlation;
    bool from_bridge = read_correlation(properties, &correlation);

    mqsync_topic_parse((struct mqsync_slice){u->prefix, strlen(u->prefix) - 1}, mqsync_slice_str(m->topic), &w.topic);
    bool whole = read_metadata(properties, metadata);
    if (!whole) { /* without its ifVersion a will would do more than it was to do */
        mqsync_log(MQSYNC_LOG_WARNING, "MQS3052", "a will was not carried out: out of memory");
    } else if (!from_bridge && !m->retain) {
        memcpy(w.metadata, metadata, sizeof(w.metadata));
        u->handler->will(u->handler->context, &w);
    } else if (from_bridge && !u->returned) {
        u->returned = true;
        mqsync_log(
            MQSYNC_LOG_ERROR, "MQS3050",
            "a command of a bridge has come back: the broker at %s:%d seems not to have loaded the plugin, so that "
            "nothing is kept; see the lines of mqsync in its log, and \"plugin\" in mosquitto.conf",
            u->host, u->port);
    }
    for (size_t i = 0; i < MQSYNC_UPSTREAM_METADATA_N; i++)
        free(metadata[i]);
}

static void on_message(struct mosquitto *mosq, void *context, const struct mosquitto_message *m,
                       const mosquitto_property *properties)
{
    struct mqsync_upstream *u = context;
    size_t prefix_n = strlen(u->prefix);
    const char *collection, *kind, *rest;

    (void)mosq;
    u->packets++;
    if (strncmp(m->topic, u->prefix, prefix_n) != 0)
        return;
    collection = m->topic + prefix_n;
    kind = strchr(collection, '/');
    rest = kind ? strchr(kind + 1, '/') : NULL;
    struct mqsync_upstream_event e = {.payload = {m->payload, (size_t)m->payloadlen}};
    if (rest) {
        e.collection = (struct mqsync_slice){collection, (size_t)(kind - collection)};
        e.record_id = mqsync_slice_str(rest + 1);
    }
    if (rest && strncmp(kind, "/re/", 4) == 0) {
        take_answer(u, &e, properties);
    } else if (rest && strncmp(kind, "/evt/", 5) == 0) {
        take_event(u, &e, properties);
    } else if (kind && strncmp(kind, "/cmd", 4) == 0) {
        take_will(u, m, properties);
    }
}

static void on_publish(struct mosquitto *mosq, void *context, int mid, int reason, const mosquitto_property *properties)
{
    struct mqsync_upstream *u = context;

    (void)mosq;
    (void)properties;
    u->packets++;
    u->handler->acknowledged(u->handler->context, (uint16_t)mid, reason >= 0x80);
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

/* "mqtt://host:port" as the configuration has checked it. */
static bool parse_address(struct mqsync_upstream *u, const char *url)
{
    const char *host = strstr(url, "://") + 3;
    const char *end = *host == '[' ? strchr(host, ']') : host + strcspn(host, ":");
    const char *port = strrchr(end, ':');

    u->tls = strncmp(url, "mqtts:", 6) == 0;
    u->port = port ? atoi(port + 1) : u->tls ? 8883 : 1883;
    if (*host == '[')
        host++;
    u->host = strndup(host, (size_t)(end - host));
    return u->host;
}

/* The first line of the file. */
static enum mqsync_code read_password(const char *file, char ret[static PASSWORD_SIZE], struct mqsync_error *ret_error)
{
    FILE *f = fopen(file, "re");
    bool read = f && (fgets(ret, PASSWORD_SIZE, f) || !ferror(f));
    int error = errno;

    if (f)
        fclose(f);
    if (!read)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.passwordFile: cannot read %s: %s", file,
                           strerror(error));
    if (strlen(ret) == PASSWORD_SIZE - 1 && !strchr(ret, '\n'))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR,
                           "bridge.passwordFile: the first line of %s is longer than any password, %d bytes", file,
                           PASSWORD_SIZE - 2);
    ret[strcspn(ret, "\r\n")] = '\0';
    if (!*ret)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.passwordFile: the first line of %s is empty", file);
    return MQSYNC_OK;
}

static enum mqsync_code set_login(struct mqsync_upstream *u, const struct mqsync_config *config,
                                  struct mqsync_error *ret_error)
{
    const char *file = config->bridge.password_file;
    char password[PASSWORD_SIZE] = "";
    enum mqsync_code code = file ? read_password(file, password, ret_error) : MQSYNC_OK;

    if (code == MQSYNC_OK && config->bridge.username) {
        int rc = mosquitto_username_pw_set(u->mosq, config->bridge.username, file ? password : NULL);
        if (rc)
            code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.username: %s", mosquitto_strerror(rc));
    }
    explicit_bzero(password, sizeof(password));
    return code;
}

static enum mqsync_code set_up(struct mqsync_upstream *u, const struct mqsync_config *config,
                               struct mqsync_error *ret_error)
{
    if (asprintf(&u->prefix, "%s/", config->root) < 0)
        u->prefix = NULL;
    if (!u->prefix || !parse_address(u, config->bridge.broker) ||
        getrandom(&u->secret, sizeof(u->secret), 0) != sizeof(u->secret))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    /* not the secret itself: the id is seen in the broker's log */
    snprintf(u->id, sizeof(u->id), "mqsync-bridge-%08" PRIx32,
             (uint32_t)((u->secret * UINT64_C(0x9E3779B97F4A7C15)) >> 32));
    u->mosq = mosquitto_new(u->id, true, u);
    if (!u->mosq)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    mosquitto_int_option(u->mosq, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    mosquitto_int_option(u->mosq, MOSQ_OPT_RECEIVE_MAXIMUM, IN_FLIGHT);
    mosquitto_int_option(u->mosq, MOSQ_OPT_SEND_MAXIMUM, IN_FLIGHT);
    mosquitto_int_option(u->mosq, MOSQ_OPT_TCP_NODELAY, 1);
    if (u->tls &&
        (mosquitto_int_option(u->mosq, MOSQ_OPT_TLS_USE_OS_CERTS, 1) || mosquitto_tls_opts_set(u->mosq, 1, NULL, NULL)))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "bridge.broker: this libmosquitto has no TLS");
    mosquitto_connect_v5_callback_set(u->mosq, on_connect);
    mosquitto_subscribe_v5_callback_set(u->mosq, on_subscribe);
    mosquitto_message_v5_callback_set(u->mosq, on_message);
    mosquitto_publish_v5_callback_set(u->mosq, on_publish);
    return set_login(u, config, ret_error);
}

enum mqsync_code mqsync_upstream_open(const struct mqsync_config *config, const struct mqsync_upstream_handler *handler,
                                      struct mqsync_upstream **ret, struct mqsync_error *ret_error)
{
    struct mqsync_upstream *u = calloc(1, sizeof(*u));
    enum mqsync_code code;

    if (!u)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    u->handler = handler;
    u->fd = -1;
    u->backoff_ms = BACKOFF_FIRST_MS;
    mosquitto_lib_init();
    code = set_up(u, config, ret_error);
    if (code != MQSYNC_OK) {
        mqsync_upstream_close(u);
        return code;
    }
    *ret = u;
    return MQSYNC_OK;
}

void mqsync_upstream_close(struct mqsync_upstream *u)
{
    if (!u)
        return;
    mqsync_buf_free(&u->topic);
    free(u->prefix);
    if (!u->dial || mqsync_dial_abandon(u->dial)) {
        if (u->up)
            mosquitto_disconnect(u->mosq);
        mosquitto_destroy(u->mosq);
        mosquitto_lib_cleanup();
        free(u->host);
    }
    free(u);
}

/* --- driving it --------------------------------------------------------------------------------------------------- */

static void connect_now(struct mqsync_upstream *u)
{
    u->dial = mqsync_dial_start(u->mosq, u->host, u->port, KEEPALIVE_SECONDS, u->ever);
    if (!u->dial)
        lost(u, "out of memory");
}

static void connected(struct mqsync_upstream *u, int rc, int error)
{
    u->dial = NULL;
    u->connecting = true;
    u->ever = u->ever || rc != MOSQ_ERR_INVAL;
    u->deadline_ms = u->now_ms + HANDSHAKE_MS;
    errno = error;
    settle(u, rc);
}

void mqsync_upstream_tick(struct mqsync_upstream *u, int64_t now_ms)
{
    int rc, error;

    u->now_ms = now_ms;
    if (u->dial) {
        if (mqsync_dial_done(u->dial, &rc, &error))
            connected(u, rc, error);
    } else if (u->up || u->connecting) {
        settle(u, u->connecting && now_ms >= u->deadline_ms ? MOSQ_ERR_CONN_LOST : mosquitto_loop_misc(u->mosq));
    } else if (now_ms >= u->retry_ms) {
        connect_now(u);
    }
}

/* What there is, by one read of the system's. libmosquitto takes one packet of it a call, or a part of one, or none of
 * those that TLS keeps to itself; so it has nothing left once it has made nothing of two calls. */
static int read_packets(struct mqsync_upstream *u, int fd)
{
    int rc = MOSQ_ERR_SUCCESS;

    mqsync_buffered_turn();
    for (int idle = 0; idle < 2 && rc == MOSQ_ERR_SUCCESS && mosquitto_socket(u->mosq) == fd; idle++) {
        uint64_t packets = u->packets;
        size_t input = mqsync_buffered_input();
        rc = mosquitto_loop_read(u->mosq, 1);
        if (u->packets != packets || mqsync_buffered_input() != input)
            idle = -1;
    }
    return rc;
}

void mqsync_upstream_readable(struct mqsync_upstream *u)
{
    int fd = u->dial ? -1 : mosquitto_socket(u->mosq);

    if (fd >= 0)
        settle(u, read_packets(u, fd));
}

void mqsync_upstream_writable(struct mqsync_upstream *u)
{
    int fd = u->dial ? -1 : mosquitto_socket(u->mosq), rc;

    u->fd_write = false; /* it was waited for once */
    if (fd < 0)
        return;
    rc = mosquitto_loop_write(u->mosq, 1);
    /* TLS may have had to write before it could read on */
    settle(u, rc == MOSQ_ERR_SUCCESS && mqsync_buffered_input() > 0 ? read_packets(u, fd) : rc);
}

void mqsync_upstream_unwatched(struct mqsync_upstream *u)
{
    u->fd = -1;
    mqsync_upstream_readable(u);
}

bool mqsync_upstream_is_up(const struct mqsync_upstream *u)
{
    return u->up;
}

void mqsync_upstream_peer(const struct mqsync_upstream *u, struct mqsync_upstream_peer *ret)
{
    *ret = (struct mqsync_upstream_peer){u->address, u->address_n, u->host, u->tls};
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static bool add_properties(const struct mqsync_upstream *u, const struct mqsync_upstream_command *c,
                           mosquitto_property **list)
{
    struct correlation correlation = {.secret = u->secret, .tag = c->tag};

    memcpy(correlation.name, MQSYNC_BRIDGE_CORRELATION, sizeof(correlation.name));
    if (mosquitto_property_add_binary(list, MQTT_PROP_CORRELATION_DATA, &correlation, sizeof(correlation)))
        return false;
    if (c->user && mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, "userId", c->user))
        return false;
    for (size_t i = 0; i < c->roles_n; i++) {
        int rc = mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, "role", c->roles[i].p);
        /* a name that MQTT cannot carry: nobody can have given a right to it in the plugin's eyes */
        if (rc && rc != MOSQ_ERR_MALFORMED_UTF8)
            return false;
    }
    for (size_t i = 0; c->metadata && i < MQSYNC_UPSTREAM_METADATA_N; i++)
        if (c->metadata[i] &&
            mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, metadata_names[i], c->metadata[i]))
            return false;
    return !c->ack || !mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, "ack", "1");
}

/* Whether libmosquitto has taken a message. It refuses before it queues; whatever goes wrong after that is the
 * connection's fault, which the next call finds lost, and the message is sent with the next connection. */
static bool is_taken(int rc)
{
    switch (rc) {
    case MOSQ_ERR_INVAL:
    case MOSQ_ERR_NOMEM:
    case MOSQ_ERR_PROTOCOL:
    case MOSQ_ERR_PAYLOAD_SIZE:
    case MOSQ_ERR_MALFORMED_UTF8:
    case MOSQ_ERR_OVERSIZE_PACKET:
    case MOSQ_ERR_QOS_NOT_SUPPORTED:
    case MOSQ_ERR_DUPLICATE_PROPERTY:
        return false;
    default:
        return true;
    }
}

void mqsync_upstream_turn_over(struct mqsync_upstream *u)
{
    u->commands = 0;
    if (u->up)
        watch(u);
}

static void write_topic(struct mqsync_upstream *u, const struct mqsync_upstream_command *c)
{
    mqsync_buf_clear(&u->topic);
    mqsync_buf_add_str(&u->topic, u->prefix);
    mqsync_buf_add_slice(&u->topic, c->collection);
    mqsync_buf_add_str(&u->topic, "/cmd");
    if (c->record_id.n) {
        mqsync_buf_add_char(&u->topic, '/');
        mqsync_buf_add_slice(&u->topic, c->record_id);
        mqsync_buf_add_char(&u->topic, '/');
        mqsync_buf_add_str(&u->topic, mqsync_op_name(c->op));
    }
    mqsync_buf_add_char(&u->topic, '\0');
}

enum mqsync_code mqsync_upstream_command(struct mqsync_upstream *u, const struct mqsync_upstream_command *c,
                                         uint16_t *ret_mid)
{
    mosquitto_property *properties = NULL;
    int mid = 0, rc = MOSQ_ERR_NOMEM;

    if (!u->up)
        return MQSYNC_SERVER_ERROR;
    if (u->commands++ == 0)
        u->handler->busy(u->handler->context);
    write_topic(u, c);
    if (!u->topic.failed && add_properties(u, c, &properties))
        rc = mosquitto_publish_v5(u->mosq, &mid, u->topic.p, (int)c->payload.n, c->payload.p, !c->at_most_once, false,
                                  properties);
    mosquitto_property_free_all(&properties);
    watch(u);
    *ret_mid = (uint16_t)mid;
    return is_taken(rc) ? MQSYNC_OK : MQSYNC_SERVER_ERROR;
}
