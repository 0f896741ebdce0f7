/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may read and write a collection: the `read`, `write` and `owner` rules of the configuration (CONTRACT section 6),
 * the same for every way in. Pure functions of a rule and a user. */
#ifndef MQSYNC_ACCESS_H
#define MQSYNC_ACCESS_H

#include "config.h"

struct mqsync_identity {
    struct mqsync_slice user;         /* empty: anonymous */
    const struct mqsync_slice *roles; /* roles_n of them */
    size_t roles_n;
};

enum mqsync_right {
    MQSYNC_RIGHT_NONE,
    MQSYNC_RIGHT_OWN, /* only records whose owner field holds the user's id: mqsync_access_owns() */
    MQSYNC_RIGHT_ALL,
};

/* What the identity may do: reading with write false, changing with write true. An anonymous user is nobody's owner,
 * and is listed by
 * "*" alone. */
enum mqsync_right mqsync_access(const struct mqsync_collection_config *c, bool write,
                                const struct mqsync_identity *who);

/* Whether a record's data (checked JSON object; may be empty) names the user in the collection's owner field: as a
 * string, or as a number with the digits of the id. Linear in data. */
bool mqsync_access_owns(const struct mqsync_collection_config *c, struct mqsync_slice user, struct mqsync_slice data);

#endif
