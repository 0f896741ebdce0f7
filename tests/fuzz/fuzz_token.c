/* SPDX-License-Identifier: BSD-3-Clause */
/* Tokens: any bytes, and any claims under a good signature. Nothing but what is signed, names a user and is in force
 * gets in; what is refused leaves nothing behind. */
#include <jwt.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"
#include "token.h"

int mqsync_fuzz_clock(clockid_t which, struct timespec *ret); /* what the library asks; nothing here does */

enum { NOW_MS = 1700000000 };
static const char key[] = "thirty-two bytes that are a key.";
static struct mqsync_token_verifier *verifier;

int mqsync_fuzz_clock(clockid_t which, struct timespec *ret)
{
    return clock_gettime(which, ret);
}

static void open_verifier(void)
{
    char name[] = "/tmp/mqsync-fuzz-token-XXXXXX", text[200];
    int fd = mkstemp(name);
    struct mqsync_config *config;
    struct mqsync_error e;

    CHECK(fd >= 0 && write(fd, key, sizeof(key) - 1) == (ssize_t)sizeof(key) - 1);
    close(fd);
    snprintf(text, sizeof(text), "{\"auth\":{\"jwt\":{\"algorithm\":\"HS256\",\"keyFile\":\"%s\"}}}", name);
    CHECK(mqsync_config_parse(mqsync_slice_str(text), "fuzz.json", &config, &e) == MQSYNC_OK);
    CHECK(mqsync_token_verifier_open(config, &verifier, &e) == MQSYNC_OK);
    unlink(name);
}

/* What the token says is not looked at again: only that it holds together. */
static bool verify(struct mqsync_slice token)
{
    struct mqsync_claims claims, untouched;
    struct mqsync_error e = {.code = MQSYNC_OK};

    memset(&claims, 0x5A, sizeof(claims));
    memset(&untouched, 0x5A, sizeof(untouched));
    if (mqsync_token_verify(verifier, token, NOW_MS, &claims, &e) != MQSYNC_OK) {
        CHECK(e.code == MQSYNC_AUTH_FAILED && e.text[0]);
        CHECK(memcmp(&claims, &untouched, sizeof(claims)) == 0);
        return false;
    }
    CHECK(claims.user && claims.user[0] && strlen(claims.user) <= MQSYNC_USER_MAX);
    CHECK(claims.expires_ms > NOW_MS);
    for (size_t i = 0; i < claims.roles_n; i++)
        CHECK(claims.roles[i].n > 0 && claims.roles[i].n <= MQSYNC_USER_MAX);
    mqsync_claims_free(&claims);
    CHECK(!claims.user && !claims.roles && !claims.text);
    return true;
}

/* The same token with one character of its signature or claims changed is refused. */
static void verify_spoilt(char *token, size_t at)
{
    size_t n = strlen(token);
    char *end = strrchr(token, '.');

    if (n > MQSYNC_TOKEN_MAX || !end)
        return;
    at %= n - 1; /* the last character has bits that mean nothing */
    if (token[at] == '.')
        return;
    token[at] = token[at] == 'A' ? 'B' : 'A';
    CHECK(!verify((struct mqsync_slice){token, n}) || at < strcspn(token, "."));
}

static void verify_signed(const char *claims, size_t spoil)
{
    static const jwt_alg_t algorithms[] = {JWT_ALG_HS256, JWT_ALG_HS256, JWT_ALG_HS256,
                                           JWT_ALG_HS384, JWT_ALG_HS512, JWT_ALG_NONE};
    jwt_alg_t algorithm = algorithms[spoil % 6];
    jwt_t *jwt = NULL;
    char *token;

    CHECK(jwt_new(&jwt) == 0);
    if (jwt_add_grants_json(jwt, claims) == 0 &&
        jwt_set_alg(jwt, algorithm, algorithm == JWT_ALG_NONE ? NULL : (const unsigned char *)key,
                    algorithm == JWT_ALG_NONE ? 0 : (int)sizeof(key) - 1) == 0 &&
        (token = jwt_encode_str(jwt))) {
        CHECK(!verify(mqsync_slice_str(token)) || algorithm == JWT_ALG_HS256);
        verify_spoilt(token, spoil);
        free(token);
    }
    jwt_free(jwt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!verifier)
        open_verifier();
    if (size == 0)
        return 0;
    char *text = malloc(size);
    CHECK(text);
    memcpy(text, data + 1, size - 1);
    if (data[0] == 0) {
        verify((struct mqsync_slice){text, size - 1});
    } else {
        text[size - 1] = '\0';
        verify_signed(text, data[0]);
    }
    free(text);
    return 0;
}
