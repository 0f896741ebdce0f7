/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may read and write a collection: the `read`, `write` and `owner` rules of the configuration
 * (docs/security.md, "Rules"), the same for every way in. Pure functions of a rule and a user. */
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
 * and is listed by "*" alone. */
enum mqsync_right mqsync_access(const struct mqsync_collection_config *c, bool write,
                                const struct mqsync_identity *who);

/* Whether a record's data (checked JSON object; may be empty) names the user in the collection's owner field: as a
 * string, or as a number with the digits of the id. Linear in data. */
bool mqsync_access_owns(const struct mqsync_collection_config *c, struct mqsync_slice user, struct mqsync_slice data);

/* The user id that data (as above) names in the collection's owner field; empty when it names none. A user id has 1 to
 * MQSYNC_USER_MAX bytes and no control characters (mqsync_text_valid): any other value names nobody. The slice points
 * into data, or into scratch (cleared first), of which `failed` tells out of memory. */
struct mqsync_slice mqsync_access_owner(const struct mqsync_collection_config *c, struct mqsync_slice data,
                                        struct mqsync_buf *scratch);

/* Fills next's former owners: those of stored (NULL: the id was never used) without who owns it now, and with `before`,
 * who owned it so far, if that is over with next (then as of next->seq). When there are too many the oldest goes. */
void mqsync_access_formers(const struct mqsync_record *stored, struct mqsync_slice before, struct mqsync_slice now,
                           struct mqsync_record *next);

enum mqsync_sight { MQSYNC_SIGHT_NONE, MQSYNC_SIGHT_RECORD, MQSYNC_SIGHT_GONE };

/* What an owner-only user is shown of a record's latest state who has seen everything up to `since`: the record, that
 * it is gone (deleted, or no longer his), or nothing. */
enum mqsync_sight mqsync_access_sight(const struct mqsync_collection_config *c, struct mqsync_slice user,
                                      const struct mqsync_record *r, uint64_t since);

#endif
