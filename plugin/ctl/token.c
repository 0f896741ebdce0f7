/* SPDX-License-Identifier: BSD-3-Clause */
/* token: a signed JWT as the configuration's auth.jwt wants it, for trying things. */
#include <errno.h>
#include <jwt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ctl.h"
#include "json.h"
#include "line.h"

#define KEY_MAX ((size_t)64 * 1024)

/* The whole file, NUL-terminated behind out->n. */
static int read_key(const char *name, struct mqsync_buf *out)
{
    FILE *f = fopen(name, "re");
    if (!f)
        return mqsync_ctl_fail("cannot read the key %s: %s", name, strerror(errno));
    char *room = mqsync_buf_reserve(out, KEY_MAX + 1);
    size_t n = room ? fread(room, 1, KEY_MAX + 1, f) : 0;
    bool ok = room && !ferror(f);
    fclose(f);
    if (!ok)
        return mqsync_ctl_fail("cannot read the key %s", name);
    if (n == 0 || n > KEY_MAX)
        return mqsync_ctl_fail("%s holds no key: it is %s", name, n ? "too long" : "empty");
    out->n = n;
    mqsync_buf_add_char(out, '\0');
    out->n--;
    return out->failed ? mqsync_ctl_fail("out of memory") : CTL_DONE;
}

/* A secret is what the file holds without the newline that editors and echo put at its end; PEM is taken as it is. */
static int prepare_key(const struct mqsync_ctl *c, const char *name, struct mqsync_buf *key)
{
    if (c->config->auth.algorithm != MQSYNC_JWT_HS256) {
        if (key->p && strstr(key->p, "PRIVATE KEY"))
            return CTL_DONE;
        return mqsync_ctl_fail("%s holds no private key in PEM form, which signing takes; give it with --key FILE "
                               "(auth.jwt.keyFile has the "
                               "public one)",
                               name);
    }
    if (key->n && key->p[key->n - 1] == '\n')
        key->n--;
    if (key->n && key->p[key->n - 1] == '\r')
        key->n--;
    return key->n ? CTL_DONE : mqsync_ctl_fail("%s holds no secret: it is empty", name);
}

/* {"CLAIM":["role",...]} */
static void add_roles(const struct mqsync_ctl *c, struct mqsync_buf *out)
{
    const char *claim = c->config->auth.role_claim ? c->config->auth.role_claim : "roles";
    mqsync_buf_add_char(out, '{');
    mqsync_json_add_string(out, mqsync_slice_str(claim));
    mqsync_buf_add_str(out, ":[");
    for (size_t i = 0; i < c->roles_n; i++) {
        if (i > 0)
            mqsync_buf_add_char(out, ',');
        mqsync_json_add_string(out, mqsync_slice_str(c->roles[i]));
    }
    mqsync_buf_add(out, "]}", 3); /* with its NUL */
}

static char *sign(const struct mqsync_ctl *c, const struct mqsync_buf *key, time_t now)
{
    static const jwt_alg_t algorithms[] = {
        [MQSYNC_JWT_HS256] = JWT_ALG_HS256, [MQSYNC_JWT_RS256] = JWT_ALG_RS256, [MQSYNC_JWT_ES256] = JWT_ALG_ES256};
    const char *user_claim = c->config->auth.user_claim ? c->config->auth.user_claim : "userId";
    struct mqsync_buf roles = {0};
    jwt_t *jwt = NULL;
    char *token = NULL;
    add_roles(c, &roles);
    int rc = roles.failed ? ENOMEM : jwt_new(&jwt);
    if (rc == 0)
        rc = jwt_add_grant(jwt, user_claim, c->user);
    if (rc == 0 && c->roles_n)
        rc = jwt_add_grants_json(jwt, roles.p);
    if (rc == 0)
        rc = jwt_add_grant_int(jwt, "iat", (long)now);
    if (rc == 0)
        rc = jwt_add_grant_int(jwt, "exp", (long)now + (long)c->ttl);
    if (rc == 0)
        rc = jwt_set_alg(jwt, algorithms[c->config->auth.algorithm], (const unsigned char *)key->p, (int)key->n);
    if (rc == 0) {
        errno = 0;
        token = jwt_encode_str(jwt);
        rc = token ? 0 : errno ? errno : EINVAL;
    }
    jwt_free(jwt);
    mqsync_buf_free(&roles);
    if (rc)
        mqsync_ctl_fail("cannot sign: %s; is this a key for %s, and are user and roles UTF-8?", strerror(rc),
                        jwt_alg_str(algorithms[c->config->auth.algorithm]));
    return token;
}

int mqsync_ctl_token(struct mqsync_ctl *c)
{
    struct mqsync_buf key = {0};
    char *token = NULL, time_text[MQSYNC_TIMESTAMP_LEN];
    time_t now = time(NULL);
    if (!c->user || !*c->user)
        return mqsync_ctl_fail("token needs --user NAME");
    if (!c->config)
        return mqsync_ctl_fail("token needs --config FILE, which says how to sign");
    if (!c->config->auth.present)
        return mqsync_ctl_fail("%s has no auth.jwt: there is nothing to make a token for", c->config->path);
    const char *name = c->key ? c->key : c->config->auth.key_file;
    int status = read_key(name, &key);
    if (status == CTL_DONE)
        status = prepare_key(c, name, &key);
    if (status == CTL_DONE && !(token = sign(c, &key, now)))
        status = CTL_FAILED;
    if (token && c->json) {
        mqsync_time_format((int64_t)(now + (time_t)c->ttl) * 1000, time_text);
        printf("{\"token\":\"%s\",\"expiresAt\":\"%.*s\"}\n", token, MQSYNC_TIMESTAMP_LEN, time_text);
    } else if (token) {
        printf("%s\n", token);
    }
    free(token);
    if (key.p)
        explicit_bzero(key.p, key.cap);
    mqsync_buf_free(&key);
    return mqsync_ctl_flush(status);
}
