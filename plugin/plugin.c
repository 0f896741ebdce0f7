/* SPDX-License-Identifier: BSD-3-Clause */
/* The broker's side of the plugin: its three entry points, its options, its life, its callbacks. */
#include "plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <mosquitto_plugin.h>

#include "acl.h"
#include "answer.h"
#include "deciders.h"
#include "followers.h"
#include "log.h"
#include "pipeline.h"
#include "retain.h"
#include "std_fds.h"
#include "stream.h"
#include "version.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int mosquitto_plugin_version(int supported_version_count, const int *supported_versions);
EXPORT int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *options,
                                 int option_count);
EXPORT int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int option_count);

static struct mqsync_plugin plugin;

/* --- callbacks ---------------------------------------------------------------------------------------------------- */

/* What waits for the broker's thread. Costs a few comparisons when nothing does. */
static void housekeep(void)
{
    mqsync_log_flush();
    mqsync_streams_send(&plugin);
    if (mqsync_retain_busy(plugin.retainer))
        mqsync_retain_continue(&plugin);
    mqsync_store_rest(plugin.store);
}

static int on_message(int event, void *event_data, void *userdata)
{
    struct mosquitto_evt_message *message = event_data;
    int result = MOSQ_ERR_SUCCESS;

    (void)event;
    (void)userdata;
    if (plugin.logins)
        mqsync_logins_reapplied(plugin.logins, false);
    if (strncmp(message->topic, plugin.prefix, plugin.prefix_n) == 0) {
        int64_t now_ms = mqsync_time_now();
        result = mqsync_pipeline_run(&plugin, message, now_ms);
        mqsync_counters_publish(&plugin, now_ms);
    }
    housekeep();
    return result;
}

static void tell_expired(void *context, const char *client_id)
{
    struct mqsync_error error;

    (void)context;
    mqsync_fail(&error, MQSYNC_AUTH_FAILED, "the token has expired");
    mqsync_buf_clear(&plugin.scratch.answer);
    mqsync_error_encode(&plugin.scratch.answer, &error, (struct mqsync_slice){0}, (struct mqsync_slice){0},
                        (struct mqsync_slice){0}, false, 0);
    mqsync_answer_tell(&plugin, (struct mqsync_slice){0}, client_id, 0);
}

static int on_tick(int event, void *event_data, void *userdata)
{
    (void)event;
    (void)event_data;
    (void)userdata;
    plugin.last_tick_ms = mqsync_monotonic_us() / 1000;
    plugin.ticks++;
    if (plugin.logins) {
        mqsync_logins_reapplied(plugin.logins, false);
        mqsync_logins_expire(plugin.logins, mqsync_time_now(), tell_expired, NULL);
    }
    mqsync_counters_publish(&plugin, mqsync_time_now());
    housekeep();
    return MOSQ_ERR_SUCCESS;
}

static int on_disconnect(int event, void *event_data, void *userdata)
{
    struct mosquitto_evt_disconnect *disconnect = event_data;
    const char *client_id = mosquitto_client_id(disconnect->client);

    (void)event;
    (void)userdata;
    if (plugin.logins)
        mqsync_logins_leave(plugin.logins, disconnect->client);
    if (!client_id) /* a TCP connection that never became a client */
        return MOSQ_ERR_SUCCESS;
    mqsync_clients_disconnected(&plugin.clients, client_id, mqsync_time_now());
    mqsync_streams_cancel(plugin.streams, client_id, (struct mqsync_slice){0});
    mqsync_followers_leave(plugin.followers, client_id, (struct mqsync_slice){0});
    return MOSQ_ERR_SUCCESS;
}

static struct mqsync_store_options store_options(const struct mqsync_config *config)
{
    return (struct mqsync_store_options){
        .dir = plugin.dir,
        .durability = config->durability,
        .sync_interval_ms = config->sync_interval_ms,
        .tombstone_days = config->tombstone_days,
        .log = mqsync_log_from_store,
    };
}

static int on_basic_auth(int event, void *event_data, void *userdata)
{
    (void)event;
    (void)userdata;
    return mqsync_logins_enter(plugin.logins, event_data, mqsync_time_now());
}

static int on_acl_check(int event, void *event_data, void *userdata)
{
    (void)event;
    (void)userdata;
    return mqsync_acl_check(&plugin, event_data);
}

/* Callbacks are registered at the start alone; what else a new configuration says of tokens holds at once. */
static bool reload_logins(struct mqsync_config *config, struct mqsync_error *ret_error)
{
    bool now = plugin.logins;

    if (config->auth.mqtt != now)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS1008", "auth.mqtt stays %s until the broker is restarted",
                   now ? "true" : "false");
    if (!now)
        return true;
    if (!config->auth.present) {
        mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "auth.jwt: needed as long as auth.mqtt is true");
        return false;
    }
    return mqsync_logins_configure(plugin.logins, config, ret_error) == MQSYNC_OK;
}

/* Of the place that the broker keeps its own database in, where there is one. malloc'd. */
static char *default_dir(void)
{
    const char *(*location)(void);
    const char *base;
    struct stat st;
    char *dir;
    int n;

    *(void **)(void *)&location = dlsym(RTLD_DEFAULT, "mosquitto_persistence_location"); /* 2.1 */
    base = location ? location() : NULL;
    if (!base || !*base)
        base = stat("/var/lib/mosquitto", &st) == 0 && S_ISDIR(st.st_mode) ? "/var/lib/mosquitto" : ".";
    n = asprintf(&dir, "%s%smqsync", base, base[strlen(base) - 1] == '/' ? "" : "/");
    return n < 0 ? NULL : dir;
}

/* db_path: the option, NULL when not given. malloc'd. */
static char *choose_dir(const char *db_path, const struct mqsync_config *config)
{
    if (db_path)
        return strdup(db_path);
    return config->database ? strdup(config->database) : default_dir();
}

/* Where plugin_opt_db_path says, nothing that mqsync.json says moves it. */
static void check_dir(const struct mqsync_config *config)
{
    char *dir = plugin.dir_given ? NULL : choose_dir(NULL, config);

    if (dir && strcmp(dir, plugin.dir) != 0)
        mqsync_log(MQSYNC_LOG_WARNING, "MQS1008", "the database stays %s until the broker is restarted", plugin.dir);
    free(dir);
}

static void reload(void)
{
    struct mqsync_config *before = plugin.config, *config;
    struct mqsync_error error;
    struct mqsync_store_options options;
    struct mqsync_slice root = mqsync_plugin_root(&plugin);

    if (mqsync_config_load(plugin.config_path, &config, &error) != MQSYNC_OK) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1007", "keeping the configuration as it was: %s", error.text);
        return;
    }
    if (!reload_logins(config, &error)) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1007", "keeping the configuration as it was: %s", error.text);
        mqsync_config_free(config);
        return;
    }
    if (!mqsync_slice_equal(root, mqsync_slice_str(config->root)))
        mqsync_log(MQSYNC_LOG_WARNING, "MQS1008", "root stays %.*s until the broker is restarted", (int)root.n, root.p);
    check_dir(config);
    plugin.config = config;
    options = store_options(config);
    mqsync_store_configure(plugin.store, &options);
    mqsync_retain_reload(&plugin, before);
    mqsync_config_free(before);
    mqsync_log(MQSYNC_LOG_INFO, "MQS1009", "configuration read again from %s",
               plugin.config_path ? plugin.config_path : "the defaults");
}

static int on_reload(int event, void *event_data, void *userdata)
{
    (void)event;
    (void)event_data;
    (void)userdata;
    reload();
    if (plugin.logins)
        mqsync_logins_reapplied(plugin.logins, true);
    return mqsync_broker_reload_result(&plugin.broker);
}

/* BASIC_AUTH and ACL_CHECK only when auth.mqtt asks for it: whoever registers those takes part in decisions about
 * topics that are none of its business. */
static const struct {
    int event;
    MOSQ_FUNC_generic_callback callback;
    bool decides; /* about access */
} callbacks[] = {
    {MOSQ_EVT_RELOAD, on_reload, false},
    {MOSQ_EVT_MESSAGE, on_message, false},
    {MOSQ_EVT_TICK, on_tick, false},
    {MOSQ_EVT_DISCONNECT, on_disconnect, false},
    {MOSQ_EVT_BASIC_AUTH, on_basic_auth, true},
    {MOSQ_EVT_ACL_CHECK, on_acl_check, true},
};
enum { CALLBACKS_N = sizeof(callbacks) / sizeof(callbacks[0]) };

/* One for each plugin line of mosquitto.conf. */
struct instance {
    mosquitto_plugin_id_t *identifier;
    bool registered[CALLBACKS_N]; /* not when the same callback was there already: then it is another instance's */
};

static void unregister_callbacks(struct instance *instance)
{
    for (int i = CALLBACKS_N - 1; i >= 0; i--)
        if (instance->registered[i])
            mosquitto_callback_unregister(instance->identifier, callbacks[i].event, callbacks[i].callback, NULL);
}

static bool register_callbacks(struct instance *instance)
{
    for (int i = 0; i < CALLBACKS_N; i++) {
        if (callbacks[i].decides && !plugin.logins)
            continue;
        int result =
            mosquitto_callback_register(instance->identifier, callbacks[i].event, callbacks[i].callback, NULL, NULL);
        instance->registered[i] = result == MOSQ_ERR_SUCCESS;
        if (result != MOSQ_ERR_SUCCESS && result != MOSQ_ERR_ALREADY_EXISTS) {
            mqsync_log(MQSYNC_LOG_ERROR, "MQS1004", "the broker does not let the plugin take part (event %d: %s)",
                       callbacks[i].event, mosquitto_strerror(result));
            unregister_callbacks(instance);
            return false;
        }
    }
    return true;
}

/* --- options ------------------------------------------------------------------------------------------------------ */

struct options {
    const char *config, *db_path; /* NULL: not given */
    const char *access;           /* "alone", "shared", or NULL: to be found out */
};

static bool read_options(const struct mosquitto_opt *list, int n, struct options *ret)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(list[i].key, "config") == 0)
            ret->config = list[i].value;
        else if (strcmp(list[i].key, "db_path") == 0)
            ret->db_path = list[i].value;
        else if (strcmp(list[i].key, "access") == 0 &&
                 (strcmp(list[i].value, "alone") == 0 || strcmp(list[i].value, "shared") == 0))
            ret->access = list[i].value;
        else {
            mqsync_log(MQSYNC_LOG_ERROR, "MQS1003",
                       "mosquitto.conf: there is no plugin_opt_%s %.100s; expected plugin_opt_config FILE, "
                       "plugin_opt_db_path DIRECTORY or plugin_opt_access alone|shared",
                       list[i].key, list[i].value);
            return false;
        }
    }
    return true;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static void shut(void)
{
    mqsync_logins_close(plugin.logins);
    mqsync_followers_free(plugin.followers);
    mqsync_streams_free(plugin.streams);
    mqsync_retainer_free(plugin.retainer);
    mqsync_store_close(plugin.store);
    mqsync_log_flush();
    mqsync_config_free(plugin.config);
    free(plugin.config_path);
    free(plugin.dir);
    free(plugin.prefix);
    mqsync_buf_free(&plugin.scratch.message);
    mqsync_buf_free(&plugin.scratch.resolved);
    mqsync_buf_free(&plugin.scratch.event);
    mqsync_buf_free(&plugin.scratch.followed);
    mqsync_buf_free(&plugin.scratch.answer);
    mqsync_buf_free(&plugin.scratch.topic);
    mqsync_buf_free(&plugin.scratch.record);
    mqsync_buf_free(&plugin.scratch.owner_before);
    mqsync_buf_free(&plugin.scratch.owner_now);
    mqsync_buf_free(&plugin.scratch.whole);
    memset(&plugin, 0, sizeof(plugin));
}

static bool open_store(void)
{
    struct mqsync_store_options options = store_options(plugin.config);
    struct mqsync_error error;

    /* the broker logs to stderr, open or not */
    if (!mqsync_std_fds_hold())
        mqsync_fail(&error, MQSYNC_SERVER_ERROR, "cannot open /dev/null: %s", strerror(errno));
    else if (mqsync_store_open(&options, &plugin.store, &error) == MQSYNC_OK)
        return true;
    mqsync_log(MQSYNC_LOG_ERROR, "MQS1005",
               "cannot open the database: %s (plugin_opt_db_path or \"database\" chooses another place than %s)",
               error.text, plugin.dir);
    return false;
}

/* Finds out what to answer when the rules allow something. False: the rules would not hold. */
static bool find_deciders(const struct options *o)
{
    struct mqsync_deciders d;
    bool alone;

    if (o->access) {
        plugin.allowed = mqsync_broker_no_objection(&plugin.broker, strcmp(o->access, "alone") == 0);
        return true;
    }
    mqsync_deciders_find(&d);
    if (d.asked_before) {
        mqsync_log(
            MQSYNC_LOG_ERROR, "MQS1024",
            "auth.mqtt: another plugin comes first and may allow what the rules of mqsync.json forbid: let the "
            "plugin line of mqsync be the first one, or say with plugin_opt_access shared that it does not decide");
        return false;
    }
    alone = d.kind == MQSYNC_DECIDERS_NONE;
    plugin.allowed = mqsync_broker_no_objection(&plugin.broker, alone);
    if (plugin.allowed == MOSQ_ERR_PLUGIN_DEFER && d.kind != MQSYNC_DECIDERS_ACL)
        mqsync_log(
            MQSYNC_LOG_WARNING, "MQS1023",
            "auth.mqtt: what the rules allow is left to the broker's other access checks, and if there are none, "
            "everything is denied (%s %s): plugin_opt_access alone says that there are none, plugin_opt_access shared "
            "that there are",
            d.kind == MQSYNC_DECIDERS_PLUGIN ? "another plugin in" : "not found out:", d.where);
    return true;
}

static bool start_logins(const struct options *o)
{
    struct mqsync_error error;

    if (!plugin.config->auth.mqtt)
        return true;
    if (mqsync_logins_open(plugin.config, &plugin.logins, &error) != MQSYNC_OK) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1025", "%s (configuration: %s)", error.text,
                   plugin.config_path ? plugin.config_path : "the defaults");
        return false;
    }
    return find_deciders(o);
}

static bool start(const struct options *o)
{
    struct mqsync_error error;

    if (mqsync_config_load(o->config, &plugin.config, &error) != MQSYNC_OK) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1002", "%s", error.text);
        return false;
    }
    plugin.config_path = o->config ? strdup(o->config) : NULL;
    plugin.dir = choose_dir(o->db_path, plugin.config);
    plugin.dir_given = o->db_path != NULL;
    if (asprintf(&plugin.prefix, "%s/", plugin.config->root) < 0)
        plugin.prefix = NULL;
    if (!plugin.dir || !plugin.prefix || (o->config && !plugin.config_path))
        return false;
    plugin.prefix_n = strlen(plugin.prefix);
    mqsync_broker_identify(&plugin.broker);
    if (!start_logins(o))
        return false;
    if (!open_store())
        return false;
    plugin.followers = mqsync_followers_alloc();
    plugin.streams = mqsync_streams_alloc(plugin.store, plugin.dir);
    plugin.retainer = mqsync_retainer_alloc();
    if (!plugin.followers || !plugin.streams || !plugin.retainer)
        return false;
    mqsync_clients_init(&plugin.clients);
    plugin.started_ms = mqsync_time_now();
    plugin.last_tick_ms = INT64_MIN / 2; /* not before there was one */
    mqsync_retain_start(&plugin);
    if (plugin.logins)
        mqsync_log(MQSYNC_LOG_INFO, "MQS1026",
                   "auth.mqtt: tokens are taken for passwords, and the rules of mqsync.json hold "
                   "for MQTT clients%s",
                   plugin.allowed == MOSQ_ERR_SUCCESS ? "; nobody else decides about access" : "");
    mqsync_log(MQSYNC_LOG_INFO, "MQS1001", "version %s serves %s{collection}/... from %s, epoch %s", MQSYNC_VERSION,
               plugin.prefix, plugin.dir, mqsync_store_epoch(plugin.store));
    return true;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return strcmp(a, b) == 0 ||
           (stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino);
}

/* Another plugin line of the same broker shares what the first one has opened; all of them must want the same. */
static bool join(const struct options *o)
{
    char *dir;
    bool same;

    if (!same_text(o->config, plugin.config_path)) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1011",
                   "mosquitto.conf: every plugin line of mqsync in one broker needs the same plugin_opt_config");
        return false;
    }
    dir = choose_dir(o->db_path, plugin.config);
    same = dir && same_file(dir, plugin.dir);
    free(dir);
    if (!same)
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1011",
                   "mosquitto.conf: every plugin line of mqsync in one broker needs the same plugin_opt_db_path");
    return same;
}

int mosquitto_plugin_version(int supported_version_count, const int *supported_versions)
{
    for (int i = 0; i < supported_version_count; i++)
        if (supported_versions[i] == MOSQ_PLUGIN_VERSION)
            return MOSQ_PLUGIN_VERSION;
    return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *options,
                          int option_count)
{
    struct instance *instance;
    struct options o = {0};

    *userdata = NULL;
    if (plugin.instances == 0)
        mqsync_log_init();
    if (!read_options(options, option_count, &o))
        return MOSQ_ERR_INVAL;
    instance = calloc(1, sizeof(*instance));
    if (!instance)
        return MOSQ_ERR_NOMEM;
    instance->identifier = identifier;
    if (!(plugin.instances ? join(&o) : start(&o)) || !register_callbacks(instance)) {
        if (plugin.instances == 0)
            shut();
        free(instance);
        return MOSQ_ERR_UNKNOWN;
    }
    plugin.instances++;
    *userdata = instance;
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int option_count)
{
    struct instance *instance = userdata;

    (void)options;
    (void)option_count;
    if (!instance) /* its init has failed */
        return MOSQ_ERR_SUCCESS;
    unregister_callbacks(instance);
    free(instance);
    if (--plugin.instances == 0) {
        mqsync_retain_stop(&plugin);
        shut();
    }
    return MOSQ_ERR_SUCCESS;
}
