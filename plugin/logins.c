/* SPDX-License-Identifier: BSD-3-Clause */
#include "logins.h"

#include <inttypes.h>
#include <stdlib.h>

#include "token/token.h"
#include "log.h"

enum { BUCKETS = 4096, LOGINS_MAX = 100000, END_AFTER_MS = 150, REFUSED_EVERY_MS = 1000, EXPIRE_AT_A_TIME = 32 };

struct login {
    struct login *next;
    const struct mosquitto *client;
    char *client_id;
    struct mqsync_claims claims;
    int64_t end_ms; /* of an expired one: not before; 0: it has not been told */
    bool ended;
};

struct mqsync_logins {
    const struct mqsync_config *config;
    struct mqsync_token_verifier *verifier;
    struct login *buckets[BUCKETS];
    unsigned n;
    int64_t next_ms; /* nothing to be done by expire before */
    bool reapplying;
    int64_t refused_ms;
    unsigned kept_back;
};

/* --- the table ---------------------------------------------------------------------------------------------------- */

static struct login **bucket_of(const struct mqsync_logins *l, const struct mosquitto *client)
{
    return (struct login **)(uintptr_t)&l->buckets[((uintptr_t)client >> 4) % BUCKETS];
}

static struct login *find(const struct mqsync_logins *l, const struct mosquitto *client)
{
    for (struct login *login = *bucket_of(l, client); login; login = login->next)
        if (login->client == client)
            return login;
    return NULL;
}

static void login_free(struct login *login)
{
    if (login) {
        free(login->client_id);
        mqsync_claims_free(&login->claims);
        free(login);
    }
}

enum mqsync_code mqsync_logins_open(const struct mqsync_config *config, struct mqsync_logins **ret,
                                    struct mqsync_error *ret_error)
{
    struct mqsync_logins *l = calloc(1, sizeof(*l));
    enum mqsync_code code;

    if (!l)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    l->next_ms = INT64_MAX;
    code = mqsync_logins_configure(l, config, ret_error);
    if (code == MQSYNC_OK)
        *ret = l;
    else
        free(l);
    return code;
}

void mqsync_logins_close(struct mqsync_logins *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (l->buckets[i]) {
            struct login *login = l->buckets[i];
            l->buckets[i] = login->next;
            login_free(login);
        }
    }
    mqsync_token_verifier_close(l->verifier);
    free(l);
}

enum mqsync_code mqsync_logins_configure(struct mqsync_logins *l, const struct mqsync_config *config,
                                         struct mqsync_error *ret_error)
{
    struct mqsync_token_verifier *verifier;
    enum mqsync_code code = mqsync_token_verifier_open(config, &verifier, ret_error);

    if (code != MQSYNC_OK)
        return code;
    mqsync_token_verifier_close(l->verifier);
    l->verifier = verifier;
    l->config = config;
    return MQSYNC_OK;
}

void mqsync_logins_leave(struct mqsync_logins *l, const struct mosquitto *client)
{
    for (struct login **at = bucket_of(l, client); *at; at = &(*at)->next) {
        if ((*at)->client == client) {
            struct login *login = *at;
            *at = login->next;
            login_free(login);
            l->n--;
            return;
        }
    }
}

void mqsync_logins_reapplied(struct mqsync_logins *l, bool reapplying)
{
    l->reapplying = reapplying;
}

/* --- logging in --------------------------------------------------------------------------------------------------- */

static size_t base64url(const char *s)
{
    return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
}

/* Three parts of base64url; the last one is empty in a token without signature, which is to be refused, not passed on.
 */
static bool is_token(const char *password)
{
    size_t n = password ? base64url(password) : 0;

    if (n == 0 || password[n] != '.')
        return false;
    password += n + 1;
    n = base64url(password);
    if (n == 0 || password[n] != '.')
        return false;
    password += n + 1;
    return password[base64url(password)] == '\0';
}

static int refuse(struct mqsync_logins *l, const struct mosquitto *client, int64_t now_ms,
                  const struct mqsync_error *error)
{
    const char *id = mosquitto_client_id(client), *address = mosquitto_client_address(client);

    if (now_ms >= l->refused_ms && now_ms - l->refused_ms < REFUSED_EVERY_MS) {
        l->kept_back++;
        return MOSQ_ERR_AUTH;
    }
    mqsync_log(MQSYNC_LOG_WARNING, "MQS1021", "login refused: client '%.64s' from %.64s: %s (and %u more before)",
               id ? id : "", address ? address : "?", error->text, l->kept_back);
    l->refused_ms = now_ms;
    l->kept_back = 0;
    return MOSQ_ERR_AUTH;
}

static enum mqsync_code check_user(const struct mqsync_logins *l, const char *username, const char *user,
                                   struct mqsync_error *ret_error)
{
    if (username && username[0] && strcmp(username, user) != 0)
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token is of user '%.64s', not of '%.64s'", user,
                           username);
    if (mqsync_config_trusted(l->config, user))
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED,
                           "user '%.64s' is listed in trustedUsers and needs a password of the broker's", user);
    if (l->n >= LOGINS_MAX)
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "%u clients are logged in already", l->n);
    return MQSYNC_OK;
}

static enum mqsync_code make_login(struct mqsync_logins *l, const struct mosquitto_evt_basic_auth *e, int64_t now_ms,
                                   struct login **ret, struct mqsync_error *ret_error)
{
    const char *id = mosquitto_client_id(e->client);
    struct login *login = calloc(1, sizeof(*login));
    enum mqsync_code code = MQSYNC_OK;

    if (!login || !(login->client_id = strdup(id ? id : "")))
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    if (code == MQSYNC_OK)
        code = mqsync_token_verify(l->verifier, mqsync_slice_str(e->password), now_ms, &login->claims, ret_error);
    if (code == MQSYNC_OK)
        code = check_user(l, e->username, login->claims.user, ret_error);
    if (code == MQSYNC_OK && mosquitto_set_username(e->client, login->claims.user) != MOSQ_ERR_SUCCESS)
        code = mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the broker does not take '%.64s' for a user name",
                           login->claims.user);
    if (code == MQSYNC_OK)
        *ret = login;
    else
        login_free(login);
    return code;
}

int mqsync_logins_enter(struct mqsync_logins *l, const struct mosquitto_evt_basic_auth *e, int64_t now_ms)
{
    struct mqsync_identity who;
    struct mqsync_error error;
    struct login *login, **bucket;

    if (l->reapplying && find(l, e->client))
        return mqsync_logins_identify(l, e->client, now_ms, &who) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_AUTH;
    mqsync_logins_leave(l, e->client);
    if (!is_token(e->password))
        return MOSQ_ERR_PLUGIN_DEFER;
    if (make_login(l, e, now_ms, &login, &error) != MQSYNC_OK)
        return refuse(l, e->client, now_ms, &error);
    login->client = e->client;
    bucket = bucket_of(l, e->client);
    login->next = *bucket;
    *bucket = login;
    l->n++;
    if (login->claims.expires_ms < l->next_ms)
        l->next_ms = login->claims.expires_ms;
    return MOSQ_ERR_SUCCESS;
}

/* With use_username_as_clientid the client gets its id after it has logged in. */
static void learn_id(struct login *login, const struct mosquitto *client)
{
    const char *id = mosquitto_client_id(client);

    if (id && strcmp(id, login->client_id) != 0) {
        char *copy = strdup(id);
        if (copy) {
            free(login->client_id);
            login->client_id = copy;
        }
    }
}

bool mqsync_logins_identify(struct mqsync_logins *l, const struct mosquitto *client, int64_t now_ms,
                            struct mqsync_identity *ret)
{
    const char *name = mosquitto_client_username(client);
    struct login *login = find(l, client);

    *ret = (struct mqsync_identity){.user = mqsync_slice_str(name)};
    /* a broker that did not tell of a client's end must not lend its rights to another user at the same address */
    if (!login || !name || strcmp(name, login->claims.user) != 0)
        return true;
    learn_id(login, client);
    ret->roles = login->claims.roles;
    ret->roles_n = login->claims.roles_n;
    return login->claims.expires_ms > now_ms;
}

enum mqsync_code mqsync_logins_renew(struct mqsync_logins *l, const struct mosquitto *client, struct mqsync_slice token,
                                     int64_t now_ms, struct mqsync_error *ret_error)
{
    struct login *login = find(l, client);
    struct mqsync_claims claims;
    enum mqsync_code code;

    if (!login)
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED,
                           "this connection was not opened with a token: give it as the MQTT password");
    code = mqsync_token_verify(l->verifier, token, now_ms, &claims, ret_error);
    if (code != MQSYNC_OK)
        return code;
    if (strcmp(claims.user, login->claims.user) != 0) {
        mqsync_claims_free(&claims);
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token is of another user");
    }
    mqsync_claims_free(&login->claims);
    login->claims = claims;
    if (claims.expires_ms < l->next_ms)
        l->next_ms = claims.expires_ms;
    return MQSYNC_OK;
}

/* --- expiry ------------------------------------------------------------------------------------------------------- */

static int64_t due_ms(const struct login *login)
{
    return login->ended ? INT64_MAX : login->end_ms ? login->end_ms : login->claims.expires_ms;
}

static struct login *find_due(struct mqsync_logins *l, int64_t now_ms)
{
    l->next_ms = INT64_MAX;
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct login *login = l->buckets[i]; login; login = login->next) {
            if (due_ms(login) <= now_ms)
                return login;
            if (due_ms(login) < l->next_ms)
                l->next_ms = due_ms(login);
        }
    }
    return NULL;
}

void mqsync_logins_expire(struct mqsync_logins *l, int64_t now_ms, void (*tell)(void *context, const char *client_id),
                          void *context)
{
    struct login *login;

    for (unsigned n = 0; n < EXPIRE_AT_A_TIME && now_ms >= l->next_ms && (login = find_due(l, now_ms)); n++) {
        l->next_ms = INT64_MIN; /* there may be more */
        if (!login->end_ms) {
            login->end_ms = now_ms + END_AFTER_MS;
            mqsync_log(MQSYNC_LOG_INFO, "MQS1022", "client '%.64s' of user '%.64s': its token has expired",
                       login->client_id, login->claims.user);
            tell(context, login->client_id);
        } else {
            char *id = strdup(login->client_id); /* what comes of it frees the login */
            login->ended = true;
            if (id)
                mosquitto_kick_client_by_clientid(id, false);
            free(id);
        }
    }
}
