/* SPDX-License-Identifier: BSD-3-Clause */
#include "token.h"

#include <errno.h>
#include <jwt.h>
#include <stdio.h>
#include <stdlib.h>

#include "json.h"

enum { KEY_MAX = 65536, ROLES_MAX = 256, CLAIM_DIGITS = 15 };

struct mqsync_token_verifier {
    const struct mqsync_config *config;
    struct mqsync_buf key; /* with a NUL behind it */
};

/* --- the key ------------------------------------------------------------------------------------------------------ */

static enum mqsync_code read_key(const char *name, struct mqsync_buf *out, struct mqsync_error *ret_error)
{
    FILE *f = fopen(name, "re");
    if (!f)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "auth.jwt.keyFile: cannot read %s: %s", name,
                           strerror(errno));
    char *room = mqsync_buf_reserve(out, KEY_MAX + 1);
    if (room)
        out->n = fread(room, 1, KEY_MAX, f);
    bool ok = room && !ferror(f) && feof(f);
    fclose(f);
    if (!ok)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR,
                           "auth.jwt.keyFile: cannot read %s, or it is longer than %d bytes", name, KEY_MAX);
    return MQSYNC_OK;
}

/* Whoever has what everybody may have could sign with it. */
static bool is_public(const char *key)
{
    return strstr(key, "PUBLIC KEY-----") || strstr(key, "-----BEGIN CERTIFICATE-----");
}

enum mqsync_code mqsync_token_verifier_open(const struct mqsync_config *config, struct mqsync_token_verifier **ret,
                                            struct mqsync_error *ret_error)
{
    struct mqsync_token_verifier *v = calloc(1, sizeof(*v));
    const char *name = config->auth.key_file;
    enum mqsync_code code;

    if (!v)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    v->config = config;
    code = read_key(name, &v->key, ret_error);
    /* a secret is what the file holds without the newline that editors and echo put at its end */
    if (code == MQSYNC_OK && config->auth.algorithm == MQSYNC_JWT_HS256) {
        if (v->key.n && v->key.p[v->key.n - 1] == '\n')
            v->key.n--;
        if (v->key.n && v->key.p[v->key.n - 1] == '\r')
            v->key.n--;
    }
    mqsync_buf_add_char(&v->key, '\0');
    v->key.n--;
    if (code == MQSYNC_OK && v->key.n == 0)
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "auth.jwt.keyFile: %s holds no key", name);
    else if (code == MQSYNC_OK && config->auth.algorithm == MQSYNC_JWT_HS256 && is_public(v->key.p))
        code = mqsync_fail(
            ret_error, MQSYNC_SERVER_ERROR,
            "auth.jwt.keyFile: %s is public; HS256 takes a secret (is auth.jwt.algorithm RS256 or ES256?)", name);
    else if (code == MQSYNC_OK && config->auth.algorithm != MQSYNC_JWT_HS256 && !strstr(v->key.p, "PUBLIC KEY"))
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "auth.jwt.keyFile: expected a public key in PEM form in %s",
                           name);
    if (code != MQSYNC_OK) {
        mqsync_token_verifier_close(v);
        return code;
    }
    *ret = v;
    return MQSYNC_OK;
}

void mqsync_token_verifier_close(struct mqsync_token_verifier *v)
{
    if (!v)
        return;
    if (v->key.p)
        explicit_bzero(v->key.p, v->key.cap);
    mqsync_buf_free(&v->key);
    free(v);
}

/* --- claims ------------------------------------------------------------------------------------------------------- */

/* A time in seconds, which RFC 7519 lets have a fraction. */
static bool read_time(struct mqsync_slice value, int64_t *ret_ms)
{
    int64_t seconds = 0;
    size_t i = 0;

    if (mqsync_json_typeof(value) != MQSYNC_JSON_NUMBER)
        return false;
    for (; i < value.n && i <= CLAIM_DIGITS && value.p[i] >= '0' && value.p[i] <= '9'; i++)
        seconds = seconds * 10 + (value.p[i] - '0');
    if (i == 0 || i > CLAIM_DIGITS ||
        (i < value.n && (value.p[i] != '.' || memchr(value.p, 'e', value.n) || memchr(value.p, 'E', value.n))))
        return false;
    *ret_ms = seconds * 1000;
    return true;
}

static enum mqsync_code check_times(struct mqsync_slice grants, int64_t now_ms, int64_t *ret_expires,
                                    struct mqsync_error *ret_error)
{
    struct mqsync_slice value;
    int64_t ms;

    *ret_expires = INT64_MAX;
    if (mqsync_json_find(grants, MQSYNC_SLICE("exp"), &value)) {
        if (!read_time(value, ret_expires))
            return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token's exp is not a time");
        if (*ret_expires <= now_ms)
            return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token has expired");
    }
    if (mqsync_json_find(grants, MQSYNC_SLICE("nbf"), &value)) {
        if (!read_time(value, &ms))
            return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token's nbf is not a time");
        if (ms > now_ms)
            return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token is not valid yet");
    }
    return MQSYNC_OK;
}

/* A name that MQTT can carry (it becomes a user name or a user property), or a number's digits, appended to text with
 * its NUL. */
static bool read_name(struct mqsync_slice value, struct mqsync_buf *text)
{
    size_t start = text->n;

    if (mqsync_json_typeof(value) == MQSYNC_JSON_STRING)
        mqsync_json_unescape(text, value);
    else if (mqsync_json_typeof(value) == MQSYNC_JSON_NUMBER)
        mqsync_buf_add_slice(text, value);
    size_t n = text->n - start;
    bool ok =
        !text->failed && n > 0 && n <= MQSYNC_USER_MAX && mqsync_text_valid((struct mqsync_slice){text->p + start, n});
    mqsync_buf_add_char(text, '\0');
    return ok && !text->failed;
}

static bool read_user(const struct mqsync_config *config, struct mqsync_slice grants, char **ret)
{
    const char *names[] = {config->auth.user_claim ? config->auth.user_claim : "userId",
                           config->auth.user_claim ? NULL : "sub"};

    for (size_t i = 0; i < 2 && names[i]; i++) {
        struct mqsync_slice value;
        struct mqsync_buf text = {0};
        if (mqsync_json_find(grants, mqsync_slice_str(names[i]), &value) && read_name(value, &text)) {
            *ret = text.p;
            return true;
        }
        mqsync_buf_free(&text);
    }
    return false;
}

static bool is_array(struct mqsync_slice value)
{
    return mqsync_json_typeof(value) == MQSYNC_JSON_ARRAY;
}

/* An array of names, or one name. */
static bool read_roles(const struct mqsync_config *config, struct mqsync_slice grants, struct mqsync_claims *c)
{
    const char *name = config->auth.role_claim ? config->auth.role_claim : "roles";
    struct mqsync_slice claim, value;
    struct mqsync_buf text = {0};
    size_t starts[ROLES_MAX], n = 0;

    if (!mqsync_json_find(grants, mqsync_slice_str(name), &claim))
        return true;
    value = claim;
    struct mqsync_json_iter it = is_array(claim) ? mqsync_json_elements(claim) : (struct mqsync_json_iter){0};
    while (n < ROLES_MAX && (!is_array(claim) || mqsync_json_next_element(&it, &value))) {
        starts[n] = text.n;
        n += read_name(value, &text);
        if (!is_array(claim))
            break;
    }
    c->roles = calloc(n + 1, sizeof(*c->roles));
    if (text.failed || !c->roles) {
        mqsync_buf_free(&text);
        return false;
    }
    c->text = text.p;
    for (c->roles_n = 0; c->roles_n < n; c->roles_n++)
        c->roles[c->roles_n] = mqsync_slice_str(text.p + starts[c->roles_n]);
    return true;
}

static enum mqsync_code read_claims(const struct mqsync_config *config, struct mqsync_slice grants, int64_t now_ms,
                                    struct mqsync_claims *c, struct mqsync_error *ret_error)
{
    enum mqsync_code code = mqsync_json_check(grants, NULL, NULL);

    if (code != MQSYNC_OK)
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token's claims are not a JSON object");
    code = check_times(grants, now_ms, &c->expires_ms, ret_error);
    if (code != MQSYNC_OK)
        return code;
    if (!read_user(config, grants, &c->user))
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token names no user: expected the claim %s",
                           config->auth.user_claim ? config->auth.user_claim : "userId or sub");
    if (!read_roles(config, grants, c))
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "out of memory");
    return MQSYNC_OK;
}

enum mqsync_code mqsync_token_verify(const struct mqsync_token_verifier *v, struct mqsync_slice token, int64_t now_ms,
                                     struct mqsync_claims *ret, struct mqsync_error *ret_error)
{
    static const jwt_alg_t algorithms[] = {
        [MQSYNC_JWT_HS256] = JWT_ALG_HS256, [MQSYNC_JWT_RS256] = JWT_ALG_RS256, [MQSYNC_JWT_ES256] = JWT_ALG_ES256};
    struct mqsync_claims claims = {0};
    char text[MQSYNC_TOKEN_MAX + 1];
    jwt_t *jwt = NULL;
    enum mqsync_code code;

    if (token.n == 0 || token.n > MQSYNC_TOKEN_MAX || memchr(token.p, '\0', token.n))
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "expected a token of 1 to %d bytes", MQSYNC_TOKEN_MAX);
    memcpy(text, token.p, token.n);
    text[token.n] = '\0';
    if (jwt_decode(&jwt, text, (const unsigned char *)v->key.p, (int)v->key.n) != 0)
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token is not signed with the server's key");
    /* jwt_decode has used the algorithm that the token names */
    if (jwt_get_alg(jwt) != algorithms[v->config->auth.algorithm]) {
        jwt_free(jwt);
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token is signed with another algorithm than %s",
                           jwt_alg_str(algorithms[v->config->auth.algorithm]));
    }
    char *critical = jwt_get_headers_json(jwt, "crit"), *grants = jwt_get_grants_json(jwt, NULL);
    jwt_free(jwt);
    if (critical) {
        free(critical);
        free(grants);
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token has an extension (crit) that is not known here");
    }
    if (!grants)
        return mqsync_fail(ret_error, MQSYNC_AUTH_FAILED, "the token has no claims");
    code = read_claims(v->config, mqsync_slice_str(grants), now_ms, &claims, ret_error);
    free(grants);
    if (code == MQSYNC_OK)
        *ret = claims;
    else
        mqsync_claims_free(&claims);
    return code;
}

void mqsync_claims_free(struct mqsync_claims *c)
{
    free(c->user);
    free(c->roles);
    free(c->text);
    *c = (struct mqsync_claims){0};
}
