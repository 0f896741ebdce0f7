/* SPDX-License-Identifier: BSD-3-Clause */
/* The stored form of a record:
 *
 *     head     format u8, flags u8, history_n u8, formers_n u8, data_n u32, user_n u32, version u64, seq u64,
 *              updated_ms i64
 *     history  history_n times: flags u8, fingerprint u64, arrived_ms i64, then as the flags say
 *              mutation u64, sent_ms i64, {effective_ms i64, version u64, seq u64}
 *     formers  formers_n times: user u64, seq u64
 *     user, data
 *
 * Format 1 is the one without former owners, format 2 has at least one. One record has one stored form: what is left
 * out when it says nothing new must be left out. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "record.h"

#include <endian.h>

enum {
    HEAD_SIZE = 36,
    CHANGE_FIXED = 17,
    CHANGE_OWN = 24,
    CHANGE_LARGEST = CHANGE_FIXED + 8 + 8 + CHANGE_OWN,
    FORMER_SIZE = 16
};

enum { RECORD_DELETED = 1 };

/* The two lowest bits of a change's flags are its enum mqsync_op. */
enum {
    CHANGE_OP = 3,
    CHANGE_ZONELESS = 4,
    CHANGE_HAS_MUTATION = 8,
    CHANGE_HAS_SENT = 16,
    CHANGE_IS_HEAD = 32, /* version, seq and effective time are the record's: so it is with the last one */
    CHANGE_CREATED = 64,
    CHANGE_ALL = 127,
};

static char *put_u32(char *at, uint32_t v)
{
    v = htole32(v);
    memcpy(at, &v, sizeof(v));
    return at + sizeof(v);
}

static char *put_u64(char *at, uint64_t v)
{
    v = htole64(v);
    memcpy(at, &v, sizeof(v));
    return at + sizeof(v);
}

static uint32_t get_u32(const char *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof(v));
    return le32toh(v);
}

static uint64_t get_u64(const char *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof(v));
    return le64toh(v);
}

static uint64_t take_u64(const char **at)
{
    uint64_t v = get_u64(*at);
    *at += sizeof(v);
    return v;
}

static char *put_bytes(char *at, struct mqsync_slice s)
{
    if (s.n)
        memcpy(at, s.p, s.n);
    return at + s.n;
}

static bool is_head(const struct mqsync_change *c, uint64_t version, uint64_t seq, int64_t updated_ms)
{
    return c->version == version && c->seq == seq && c->effective_ms == updated_ms;
}

static char *put_change(char *at, const struct mqsync_record *r, const struct mqsync_change *c)
{
    bool head = is_head(c, r->version, r->seq, r->updated_ms);
    *at++ = (char)((c->op & CHANGE_OP) | (c->zoneless ? CHANGE_ZONELESS : 0) | (c->mutation ? CHANGE_HAS_MUTATION : 0) |
                   (c->sent_ms != INT64_MIN ? CHANGE_HAS_SENT : 0) | (head ? CHANGE_IS_HEAD : 0) |
                   (c->created ? CHANGE_CREATED : 0));
    at = put_u64(at, c->fingerprint);
    at = put_u64(at, (uint64_t)c->arrived_ms);
    if (c->mutation)
        at = put_u64(at, c->mutation);
    if (c->sent_ms != INT64_MIN)
        at = put_u64(at, (uint64_t)c->sent_ms);
    if (!head) {
        at = put_u64(at, (uint64_t)c->effective_ms);
        at = put_u64(at, c->version);
        at = put_u64(at, c->seq);
    }
    return at;
}

/* What decode demands; a record without it is a bug that must not reach the disk. */
static bool storable(const struct mqsync_record *r)
{
    return r->history_n >= 1 && r->history_n <= MQSYNC_HISTORY_MAX && r->user.n <= MQSYNC_USER_MAX &&
           r->data.n <= UINT32_MAX && r->deleted == (r->data.n == 0) && r->formers_n <= MQSYNC_FORMERS_MAX;
}

void mqsync_record_encode(struct mqsync_buf *out, const struct mqsync_record *r)
{
    if (!storable(r)) {
        out->failed = true;
        return;
    }
    char *start = mqsync_buf_reserve(out, HEAD_SIZE + (size_t)r->history_n * CHANGE_LARGEST +
                                              (size_t)r->formers_n * FORMER_SIZE + r->user.n + r->data.n);
    if (!start)
        return;
    char *at = start;
    *at++ = r->formers_n ? MQSYNC_RECORD_FORMAT_FORMERS : MQSYNC_RECORD_FORMAT;
    *at++ = r->deleted ? RECORD_DELETED : 0;
    *at++ = (char)r->history_n;
    *at++ = (char)r->formers_n;
    at = put_u32(at, (uint32_t)r->data.n);
    at = put_u32(at, (uint32_t)r->user.n);
    at = put_u64(at, r->version);
    at = put_u64(at, r->seq);
    at = put_u64(at, (uint64_t)r->updated_ms);
    for (unsigned i = 0; i < r->history_n; i++)
        at = put_change(at, r, &r->history[i]);
    for (unsigned i = 0; i < r->formers_n; i++) {
        at = put_u64(at, r->formers[i].user);
        at = put_u64(at, r->formers[i].seq);
    }
    at = put_bytes(at, r->user);
    at = put_bytes(at, r->data);
    out->n += (size_t)(at - start);
}

static unsigned formers_n_of(struct mqsync_slice stored)
{
    return (unsigned char)stored.p[3];
}

static bool format_is_known(struct mqsync_slice stored)
{
    unsigned n = formers_n_of(stored);
    return (stored.p[0] == MQSYNC_RECORD_FORMAT && n == 0) ||
           (stored.p[0] == MQSYNC_RECORD_FORMAT_FORMERS && n > 0 && n <= MQSYNC_FORMERS_MAX);
}

enum mqsync_code mqsync_record_decode_head(struct mqsync_slice stored, struct mqsync_record_head *ret)
{
    if (stored.n < HEAD_SIZE || !format_is_known(stored) || (stored.p[1] & ~RECORD_DELETED))
        return MQSYNC_SERVER_ERROR;
    ret->deleted = stored.p[1] & RECORD_DELETED;
    ret->version = get_u64(stored.p + 12);
    ret->seq = get_u64(stored.p + 20);
    ret->updated_ms = (int64_t)get_u64(stored.p + 28);
    return MQSYNC_OK;
}

static size_t change_size(unsigned flags)
{
    return CHANGE_FIXED + (flags & CHANGE_HAS_MUTATION ? 8 : 0) + (flags & CHANGE_HAS_SENT ? 8 : 0) +
           (flags & CHANGE_IS_HEAD ? 0 : CHANGE_OWN);
}

/* False when nothing could have been written like this. */
static bool get_change(const char *at, const struct mqsync_record_head *head, struct mqsync_change *ret)
{
    unsigned flags = (unsigned char)*at++;
    ret->op = (enum mqsync_op)(flags & CHANGE_OP);
    ret->zoneless = flags & CHANGE_ZONELESS;
    ret->created = flags & CHANGE_CREATED;
    ret->fingerprint = take_u64(&at);
    ret->arrived_ms = (int64_t)take_u64(&at);
    ret->mutation = flags & CHANGE_HAS_MUTATION ? take_u64(&at) : 0;
    ret->sent_ms = flags & CHANGE_HAS_SENT ? (int64_t)take_u64(&at) : INT64_MIN;
    bool own = !(flags & CHANGE_IS_HEAD);
    ret->effective_ms = own ? (int64_t)take_u64(&at) : head->updated_ms;
    ret->version = own ? take_u64(&at) : head->version;
    ret->seq = own ? take_u64(&at) : head->seq;
    return (ret->mutation || !(flags & CHANGE_HAS_MUTATION)) &&
           (ret->sent_ms != INT64_MIN || !(flags & CHANGE_HAS_SENT)) &&
           !(own && is_head(ret, head->version, head->seq, head->updated_ms));
}

/* Walks the history without keeping it. NULL when it does not fit between at and end; else where it ends. */
static const char *check_history(const char *at, const char *end, unsigned n, const struct mqsync_record_head *head)
{
    struct mqsync_change c;
    for (; n; n--) {
        if (end - at < CHANGE_FIXED)
            return NULL;
        unsigned flags = (unsigned char)*at;
        if ((flags & ~(unsigned)CHANGE_ALL) || (flags & CHANGE_OP) > MQSYNC_DELETE ||
            (size_t)(end - at) < change_size(flags) || !get_change(at, head, &c))
            return NULL;
        at += change_size(flags);
    }
    return at;
}

enum mqsync_code mqsync_record_decode(struct mqsync_slice stored, struct mqsync_record *ret,
                                      struct mqsync_error *ret_error)
{
    struct mqsync_record_head head;
    if (mqsync_record_decode_head(stored, &head) != MQSYNC_OK)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "stored record: not format %d or %d, or its head is damaged",
                           MQSYNC_RECORD_FORMAT, MQSYNC_RECORD_FORMAT_FORMERS);
    unsigned history_n = (unsigned char)stored.p[2], formers_n = formers_n_of(stored);
    size_t data_n = get_u32(stored.p + 4), user_n = get_u32(stored.p + 8);
    if (history_n < 1 || history_n > MQSYNC_HISTORY_MAX || user_n > MQSYNC_USER_MAX || head.deleted != (data_n == 0))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR,
                           "stored record: history of %u, user of %zu bytes, data of %zu bytes cannot be", history_n,
                           user_n, data_n);
    const char *history = stored.p + HEAD_SIZE, *end = stored.p + stored.n;
    const char *rest = check_history(history, end, history_n, &head);
    if (!rest || (size_t)(end - rest) != (size_t)formers_n * FORMER_SIZE + user_n + data_n)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "stored record: its lengths do not add up to its %zu bytes",
                           stored.n);
    ret->version = head.version;
    ret->seq = head.seq;
    ret->updated_ms = head.updated_ms;
    ret->deleted = head.deleted;
    ret->formers_n = formers_n;
    for (unsigned i = 0; i < formers_n; i++) {
        ret->formers[i].user = take_u64(&rest);
        ret->formers[i].seq = take_u64(&rest);
    }
    ret->user = (struct mqsync_slice){rest, user_n};
    ret->data = (struct mqsync_slice){rest + user_n, data_n};
    ret->history_n = history_n;
    for (unsigned i = 0; i < history_n; i++) {
        get_change(history, &head, &ret->history[i]);
        history += change_size((unsigned char)*history);
    }
    return MQSYNC_OK;
}

uint64_t mqsync_record_user_hash(struct mqsync_slice user)
{
    return XXH3_64bits(user.n ? user.p : "", user.n);
}
