/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON Web Tokens: who a client is, as its token proves. The only file that knows libjwt is token.c. */
#ifndef MQSYNC_TOKEN_H
#define MQSYNC_TOKEN_H

#include "access.h"

enum { MQSYNC_TOKEN_MAX = 8192 };

struct mqsync_token_verifier;

/* Reads the key of config.auth.jwt, which must be present; config must outlive the verifier. */
enum mqsync_code mqsync_token_verifier_open(const struct mqsync_config *config, struct mqsync_token_verifier **ret,
                                            struct mqsync_error *ret_error);
void mqsync_token_verifier_close(struct mqsync_token_verifier *v); /* NULL is fine */

/* What a token says. */
struct mqsync_claims {
    char *user;
    struct mqsync_slice *roles;
    size_t roles_n;
    int64_t expires_ms; /* INT64_MAX: never */
    char *text;         /* what roles point into */
};

/* Checks the signature with the configured algorithm and no other, exp and nbf against now_ms, and that there is a
 * user. Returns MQSYNC_AUTH_FAILED with the reason otherwise; *ret is then untouched. */
enum mqsync_code mqsync_token_verify(const struct mqsync_token_verifier *v, struct mqsync_slice token, int64_t now_ms,
                                     struct mqsync_claims *ret, struct mqsync_error *ret_error);
void mqsync_claims_free(struct mqsync_claims *c); /* and zeroes */

#endif
