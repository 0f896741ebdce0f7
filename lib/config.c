/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration: what each key may hold is a row of a table, and one reader walks the tables. */
#include "config.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "json.h"
#include "topic.h"

#define FILE_MAX_BYTES (16 * 1024 * 1024)
#define PATH_MAX_KEYS 8
#define SHOWN_MAX 96       /* a key or value as an error text shows it, with quotes */
#define SHOWN_PATH_MAX 160 /* a longer path is shown by its end */

enum kind {
    SECTION,     /* an object whose keys are the rows of option.section, read into the same struct */
    COLLECTIONS, /* an object of collection names */
    STRING,      /* char * */
    STRINGS,     /* char **, and how many */
    SLICES,      /* struct mqsync_slice *, and how many */
    UNSIGNED,    /* unsigned */
    SIZE,        /* size_t */
    BOOLEAN,     /* bool */
    CHOICE,      /* an enum counted from 0 */
};

struct option {
    const char *key;
    enum kind kind;
    bool required;
    bool nullable;        /* null leaves it unset */
    const char *fallback; /* JSON that stands for the absent key; NULL leaves it unset */
    size_t offset;        /* in the struct that the section fills */
    size_t count;         /* STRINGS, SLICES: where their number goes */
    double min, max;      /* UNSIGNED, SIZE */
    const char *expected; /* STRING and the entries of lists: what valid takes, in words */
    bool (*valid)(struct mqsync_slice s);
    const char *(*choice)(unsigned i); /* CHOICE: the names in the enum's order, then NULL */
    const struct section *section;
};

struct reader {
    struct owned *owned;
    const char *file;
    const char *path[PATH_MAX_KEYS];
    unsigned depth;
    struct mqsync_error *error;
};

struct section {
    const struct option *options;
    size_t n;
    bool (*check)(struct reader *r, void *base); /* what one row alone cannot say; NULL: nothing */
};

/* Everything a configuration points to is a block of its own, so that a half-read one is freed like a whole one. */
struct block {
    struct block *next;
    max_align_t data[];
};

struct owned {
    struct mqsync_config config;
    struct block *blocks;
};

/* --- errors ------------------------------------------------------------------------------------------------------- */

static bool fail(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "FILE: key.path: what"; always false, so that a reader can `return fail(...)`. */
static bool fail(struct reader *r, const char *fmt, ...)
{
    char where[PATH_MAX_KEYS * (SHOWN_MAX + 1)] = "";
    size_t n = 0;
    for (unsigned i = 0; i < r->depth; i++)
        n += (size_t)snprintf(where + n, sizeof(where) - n, "%s%s", i ? "." : "", r->path[i]);
    char what[sizeof(r->error->text)];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    mqsync_fail(r->error, MQSYNC_SERVER_ERROR, "%s: %s%s%s", r->file, where, n ? ": " : "", what);
    return false;
}

/* Text in quotes, shortened, without anything that would garble a log line. */
static void show_text(const char *text, char out[SHOWN_MAX])
{
    size_t room = SHOWN_MAX - sizeof("\"...\"");
    size_t n = strlen(text);
    size_t shown = n <= room ? n : room;
    while (shown < n && ((unsigned char)text[shown] & 0xc0) == 0x80)
        shown--;
    char *p = out;
    *p++ = '"';
    for (size_t i = 0; i < shown; i++)
        *p++ = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    strcpy(p, shown < n ? "...\"" : "\"");
}

static void show_value(const cJSON *value, char out[SHOWN_MAX])
{
    if (cJSON_IsString(value))
        show_text(value->valuestring, out);
    else if (cJSON_IsNumber(value))
        snprintf(out, SHOWN_MAX, "%.15g", value->valuedouble);
    else if (cJSON_IsArray(value))
        strcpy(out, "a list");
    else if (cJSON_IsObject(value))
        strcpy(out, "an object");
    else
        strcpy(out, cJSON_IsNull(value) ? "null" : cJSON_IsTrue(value) ? "true" : "false");
}

/* Keys stand in the path as they are where they could be a name, else in quotes. */
static void show_key(const char *key, char out[SHOWN_MAX])
{
    if (mqsync_collection_valid(mqsync_slice_str(key)))
        strcpy(out, key);
    else
        show_text(key, out);
}

static void expected_text(const struct option *o, bool entry, char *out, size_t size)
{
    static const char *const kinds[] = {
        [SECTION] = "an object", [COLLECTIONS] = "an object", [BOOLEAN] = "true or false"};
    const char *null = o->nullable && !entry ? " or null" : "";
    switch (o->kind) {
    case STRING:
        snprintf(out, size, "%s%s", o->expected, null);
        break;
    case STRINGS:
    case SLICES:
        snprintf(out, size, "%s%s%s", entry ? "" : "a list, each entry ", o->expected, null);
        break;
    case UNSIGNED:
    case SIZE:
        snprintf(out, size, "an integer from %.0f to %.0f%s", o->min, o->max, null);
        break;
    case CHOICE: {
        size_t n = (size_t)snprintf(out, size, "one of ");
        for (unsigned i = 0; o->choice(i) && n < size; i++)
            n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", o->choice(i));
        break;
    }
    default:
        snprintf(out, size, "%s%s", kinds[o->kind], null);
    }
}

/* The one error text for a value that does not fit its row. */
static bool wrong(struct reader *r, const struct option *o, const cJSON *value, bool entry)
{
    char found[SHOWN_MAX], expected[200];
    show_value(value, found);
    expected_text(o, entry, expected, sizeof(expected));
    return fail(r, "%s is not %s", found, expected);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

/* Zeroed, freed with the configuration. */
static void *alloc(struct reader *r, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || __builtin_add_overflow(bytes, sizeof(struct block), &bytes) ||
        bytes > PTRDIFF_MAX)
        return fail(r, "out of memory"), NULL;
    struct block *b = calloc(1, bytes);
    if (!b)
        return fail(r, "out of memory"), NULL;
    b->next = r->owned->blocks;
    r->owned->blocks = b;
    return b->data;
}

static char *copy(struct reader *r, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = alloc(r, n, 1);
    return p ? memcpy(p, s, n) : NULL;
}

void mqsync_config_free(struct mqsync_config *c)
{
    if (!c)
        return;
    struct owned *owned = (struct owned *)c;
    for (struct block *b = owned->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(owned);
}

/* --- what strings may hold ---------------------------------------------------------------------------------------- */

static bool non_empty(struct mqsync_slice s)
{
    return s.n > 0;
}

static bool strip(struct mqsync_slice *s, const char *prefix)
{
    size_t n = strlen(prefix);
    if (s->n < n || memcmp(s->p, prefix, n) != 0)
        return false;
    s->p += n;
    s->n -= n;
    return true;
}

static bool access_valid(struct mqsync_slice s)
{
    if (mqsync_slice_equal(s, MQSYNC_SLICE("*")))
        return true;
    return (strip(&s, "user:") || strip(&s, "role:")) && s.n > 0;
}

#define ALPHANUMERIC "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/* Takes what consists of accepted characters off the front; false when there is none. */
static bool strip_span(struct mqsync_slice *s, const char *accept)
{
    size_t n = 0;
    while (n < s->n && s->p[n] && strchr(accept, s->p[n]))
        n++;
    s->p += n;
    s->n -= n;
    return n > 0;
}

static bool number_valid(struct mqsync_slice s, unsigned min, unsigned max)
{
    unsigned number = 0;
    if (s.n < 1 || s.n > 5 || (s.n > 1 && s.p[0] == '0'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        number = number * 10 + (unsigned)(s.p[i] - '0');
    }
    return number >= min && number <= max;
}

static bool port_valid(struct mqsync_slice s, unsigned min)
{
    return number_valid(s, min, 65535);
}

/* Takes a host name, an IPv4 address or a bracketed IPv6 address off the front. */
static bool strip_host(struct mqsync_slice *s)
{
    if (strip(s, "["))
        return strip_span(s, "0123456789abcdefABCDEF:.") && strip(s, "]");
    return strip_span(s, ALPHANUMERIC "._-");
}

static bool listen_valid(struct mqsync_slice s)
{
    return (strip(&s, "*") || strip_host(&s)) && strip(&s, ":") && port_valid(s, 0);
}

static bool broker_valid(struct mqsync_slice s)
{
    if (!(strip(&s, "mqtt://") || strip(&s, "mqtts://")) || !strip_host(&s))
        return false;
    return s.n == 0 || (strip(&s, ":") && port_valid(s, 1));
}

static bool origin_valid(struct mqsync_slice s)
{
    if (mqsync_slice_equal(s, MQSYNC_SLICE("*")) || mqsync_slice_equal(s, MQSYNC_SLICE("null")))
        return true;
    if (!strip_span(&s, ALPHANUMERIC "+.-") || !strip(&s, "://") || s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || strchr("/?#", s.p[i]))
            return false;
    return true;
}

/* An address, or a network as ADDRESS/BITS. */
static bool proxy_valid(struct mqsync_slice s)
{
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    struct mqsync_slice host = {s.p, slash ? (size_t)(slash - s.p) : s.n};
    char address[INET6_ADDRSTRLEN];
    struct in6_addr parsed;
    if (mqsync_slice_equal(s, MQSYNC_SLICE("unix")))
        return true;
    if (host.n >= sizeof(address))
        return false;
    memcpy(address, host.p, host.n);
    address[host.n] = '\0';
    unsigned max = inet_pton(AF_INET, address, &parsed) == 1    ? 32
                   : inet_pton(AF_INET6, address, &parsed) == 1 ? 128
                                                                : 0;
    if (!max || !slash)
        return max;
    return number_valid((struct mqsync_slice){slash + 1, s.n - host.n - 1}, 0, max);
}

/* --- what a configuration is -------------------------------------------------------------------------------------- */

static const char *strategy_name(unsigned i)
{
    return mqsync_strategy_name((enum mqsync_strategy)i);
}

static const char *durability_name(unsigned i)
{
    static const char *const names[] = {[MQSYNC_DURABILITY_PROCESS] = "process", [MQSYNC_DURABILITY_POWER] = "power"};
    return i < sizeof(names) / sizeof(*names) ? names[i] : NULL;
}

static const char *algorithm_name(unsigned i)
{
    static const char *const names[] = {
        [MQSYNC_JWT_HS256] = "HS256", [MQSYNC_JWT_RS256] = "RS256", [MQSYNC_JWT_ES256] = "ES256"};
    return i < sizeof(names) / sizeof(*names) ? names[i] : NULL;
}

static bool check_conflict(struct reader *r, void *base);
static bool check_auth(struct reader *r, void *base);
static bool check_root(struct reader *r, void *base);

#define ROWS(rows) .options = rows, .n = sizeof(rows) / sizeof(*rows)
#define AT(member) .offset = offsetof(BASE, member)
#define LIST(member, number) .offset = offsetof(BASE, member), .count = offsetof(BASE, number)
#define A_PATH .valid = non_empty, .expected = "a path"
#define A_NAME .valid = non_empty, .expected = "a name"
#define ACCESS .valid = access_valid, .expected = "*, user:NAME or role:NAME"

#define BASE struct mqsync_collection_config
static const struct option conflict_options[] = {
    {"strategy", CHOICE, AT(rules.strategy), .fallback = "\"lastWriteWins\"", .choice = strategy_name},
    {"fields", SLICES, LIST(rules.fields, rules.fields_n), .valid = non_empty, .expected = "a field name"},
};
static const struct section conflict_section = {ROWS(conflict_options), .check = check_conflict};

static const struct option collection_options[] = {
    {"conflict", SECTION, .fallback = "{}", .section = &conflict_section},
    {"upsert", BOOLEAN, AT(rules.upsert), .fallback = "false"},
    {"retain", BOOLEAN, AT(retain), .fallback = "false"},
    {"read", SLICES, LIST(read.v, read.n), .fallback = "[\"*\"]", ACCESS},
    {"write", SLICES, LIST(write.v, write.n), .fallback = "[\"*\"]", ACCESS},
    {"owner", STRING, AT(owner), .valid = non_empty, .expected = "a field name"},
};
static const struct section collection_section = {ROWS(collection_options)};
#undef BASE

#define BASE struct mqsync_config
static const struct option jwt_options[] = {
    {"algorithm", CHOICE, AT(auth.algorithm), .fallback = "\"HS256\"", .choice = algorithm_name},
    {"keyFile", STRING, AT(auth.key_file), .required = true, A_PATH},
    {"userClaim", STRING, AT(auth.user_claim), A_NAME},
    {"roleClaim", STRING, AT(auth.role_claim), .fallback = "\"roles\"", A_NAME},
};
static const struct section jwt_section = {ROWS(jwt_options)};

static const struct option auth_options[] = {
    {"jwt", SECTION, .section = &jwt_section},
    {"mqtt", BOOLEAN, AT(auth.mqtt), .fallback = "false"},
};
static const struct section auth_section = {ROWS(auth_options), .check = check_auth};

static const struct option limits_options[] = {
    {"messagesPerMinute", UNSIGNED, AT(limits.messages_per_minute), .fallback = "0", .min = 0, .max = 1e9},
    {"connectionsPerUser", UNSIGNED, AT(limits.connections_per_user), .fallback = "0", .min = 0, .max = 1e6},
    {"maxRecordBytes", SIZE, AT(limits.max_record_bytes), .fallback = "1048576", .min = 2, .max = 256 * 1024 * 1024},
    {"maxCollections", UNSIGNED, AT(limits.max_collections), .fallback = "10000", .min = 1, .max = 1e6},
};
static const struct section limits_section = {ROWS(limits_options)};

static const struct option tls_options[] = {
    {"certFile", STRING, AT(bridge.tls_cert_file), .required = true, A_PATH},
    {"keyFile", STRING, AT(bridge.tls_key_file), .required = true, A_PATH},
};
static const struct section tls_section = {ROWS(tls_options)};

static const struct option bridge_options[] = {
    {"listen", STRING, AT(bridge.listen), .fallback = "\"127.0.0.1:8080\"", .valid = listen_valid,
     .expected = "ADDRESS:PORT, such as 127.0.0.1:8080, [::1]:8080 or *:8080"},
    {"broker", STRING, AT(bridge.broker), .fallback = "\"mqtt://127.0.0.1:1883\"", .valid = broker_valid,
     .expected = "mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"},
    {"username", STRING, AT(bridge.username), .nullable = true, A_NAME},
    {"passwordFile", STRING, AT(bridge.password_file), .nullable = true, A_PATH},
    {"idleTimeoutSeconds", UNSIGNED, AT(bridge.idle_timeout_seconds), .fallback = "60", .min = 1, .max = 86400},
    {"sendQueueBytes", SIZE, AT(bridge.send_queue_bytes), .fallback = "1048576", .min = 1024,
     .max = 1024 * 1024 * 1024},
    {"allowedOrigins", STRINGS, LIST(bridge.allowed_origins, bridge.allowed_origins_n), .fallback = "[\"*\"]",
     .valid = origin_valid, .expected = "*, null or SCHEME://HOST[:PORT] without a path"},
    {"tls", SECTION, .nullable = true, .section = &tls_section},
    {"mqtt", BOOLEAN, AT(bridge.mqtt), .fallback = "true"},
    {"maxConnections", UNSIGNED, AT(bridge.max_connections), .fallback = "16000", .min = 1, .max = 1e6},
    {"trustedProxies", STRINGS, LIST(bridge.trusted_proxies, bridge.trusted_proxies_n), .fallback = "[]",
     .valid = proxy_valid, .expected = "an IP address, a network such as 10.0.0.0/8, or unix"},
};
static const struct section bridge_section = {ROWS(bridge_options)};

static const struct option root_options[] = {
    {"root", STRING, AT(root), .fallback = "\"sync\"", .valid = mqsync_root_valid,
     .expected = "1 to 64 characters: topic levels of A-Z a-z 0-9 _ . - joined by single slashes"},
    {"database", STRING, AT(database), .nullable = true, A_PATH},
    {"durability", CHOICE, AT(durability), .fallback = "\"process\"", .choice = durability_name},
    {"syncIntervalMs", UNSIGNED, AT(sync_interval_ms), .fallback = "100", .min = 1, .max = 60000},
    {"collections", COLLECTIONS, LIST(collections, collections_n), .fallback = "{\"*\":{}}"},
    {"auth", SECTION, .fallback = "{}", .section = &auth_section},
    {"limits", SECTION, .fallback = "{}", .section = &limits_section},
    {"tombstoneDays", UNSIGNED, AT(tombstone_days), .fallback = "30", .min = 0, .max = 36500},
    {"bridge", SECTION, .fallback = "{}", .section = &bridge_section},
    {"trustedUsers", STRINGS, LIST(trusted_users, trusted_users_n), .fallback = "[]", .valid = non_empty,
     .expected = "an MQTT user name"},
};
static const struct section root_section = {ROWS(root_options), .check = check_root};
#undef BASE

static const struct option an_object = {.kind = SECTION};

static bool check_conflict(struct reader *r, void *base)
{
    const struct mqsync_rules *rules = &((struct mqsync_collection_config *)base)->rules;
    const char *strategy = mqsync_strategy_name(rules->strategy);
    if (mqsync_strategy_has_fields(rules->strategy) && rules->fields_n == 0)
        return fail(r, "%s needs fields, a list of field names", strategy);
    if (!mqsync_strategy_has_fields(rules->strategy) && rules->fields)
        return fail(r, "%s takes no fields; mergeArrays, sumNumbers, maxValue and mergeFields do", strategy);
    return true;
}

static bool check_auth(struct reader *r, void *base)
{
    struct mqsync_config *c = base;
    c->auth.present = c->auth.key_file != NULL;
    if (c->auth.mqtt && !c->auth.present)
        return fail(r, "mqtt true needs jwt");
    return true;
}

/* Every collection's rules carry the limit, so that the resolver needs nothing but rules. */
static bool check_root(struct reader *r, void *base)
{
    (void)r;
    struct mqsync_config *c = base;
    for (size_t i = 0; i < c->collections_n; i++)
        c->collections[i].rules.max_record_bytes = c->limits.max_record_bytes;
    return true;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static bool read_section(struct reader *r, const struct section *section, void *base, const cJSON *object);

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_collections(const void *a, const void *b)
{
    const struct mqsync_collection_config *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static bool read_string(struct reader *r, const struct option *o, const cJSON *value, bool entry, char **ret)
{
    if (!cJSON_IsString(value) || !o->valid(mqsync_slice_str(value->valuestring)))
        return wrong(r, o, value, entry);
    *ret = copy(r, value->valuestring);
    return *ret != NULL;
}

/* An entry that is there twice is a slip of the pen, and would count twice where fields are summed. */
static bool check_distinct(struct reader *r, char *const *v, size_t n)
{
    char **sorted = alloc(r, n, sizeof(*sorted));
    if (!sorted)
        return false;
    for (size_t i = 0; i < n; i++)
        sorted[i] = v[i];
    qsort(sorted, n, sizeof(*sorted), compare_names);
    for (size_t i = 1; i < n; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0) {
            char shown[SHOWN_MAX];
            show_text(sorted[i], shown);
            return fail(r, "%s is listed twice", shown);
        }
    return true;
}

static bool read_list(struct reader *r, const struct option *o, void *base, const cJSON *value)
{
    if (!cJSON_IsArray(value))
        return wrong(r, o, value, false);
    size_t n = (size_t)cJSON_GetArraySize(value);
    char **v = alloc(r, n, sizeof(*v));
    if (!v)
        return false;
    size_t i = 0;
    for (const cJSON *entry = value->child; entry; entry = entry->next)
        if (!read_string(r, o, entry, true, &v[i++]))
            return false;
    if (!check_distinct(r, v, n))
        return false;
    void *list = v;
    if (o->kind == SLICES) {
        struct mqsync_slice *slices = alloc(r, n, sizeof(*slices));
        if (!slices)
            return false;
        for (i = 0; i < n; i++)
            slices[i] = mqsync_slice_str(v[i]);
        list = slices;
    }
    memcpy((char *)base + o->offset, &list, sizeof(list));
    memcpy((char *)base + o->count, &n, sizeof(n));
    return true;
}

static bool read_number(struct reader *r, const struct option *o, void *base, const cJSON *value)
{
    double d = value->valuedouble;
    if (!cJSON_IsNumber(value) || !(d >= o->min && d <= o->max) || d != (double)(uint64_t)d)
        return wrong(r, o, value, false);
    if (o->kind == SIZE)
        *(size_t *)((char *)base + o->offset) = (size_t)d;
    else
        *(unsigned *)((char *)base + o->offset) = (unsigned)d;
    return true;
}

static bool read_choice(struct reader *r, const struct option *o, void *base, const cJSON *value)
{
    _Static_assert(sizeof(enum mqsync_strategy) == sizeof(unsigned), "choices are stored as unsigned");
    for (unsigned i = 0; cJSON_IsString(value) && o->choice(i); i++)
        if (strcmp(o->choice(i), value->valuestring) == 0) {
            memcpy((char *)base + o->offset, &i, sizeof(i));
            return true;
        }
    return wrong(r, o, value, false);
}

static bool read_collections(struct reader *r, const struct option *o, void *base, const cJSON *value)
{
    if (!cJSON_IsObject(value))
        return wrong(r, o, value, false);
    size_t n = (size_t)cJSON_GetArraySize(value);
    struct mqsync_collection_config *v = alloc(r, n, sizeof(*v));
    if (!v)
        return false;
    size_t i = 0;
    for (const cJSON *entry = value->child; entry; entry = entry->next, i++) {
        char shown[SHOWN_MAX];
        show_key(entry->string, shown);
        bool named = mqsync_collection_valid(mqsync_slice_str(entry->string));
        bool others = strcmp(entry->string, "*") == 0;
        r->path[r->depth++] = others ? "*" : shown;
        if (!named && !others)
            return fail(r,
                        "not a collection name: 1 to 64 of A-Z a-z 0-9 _ . -, neither . nor .., or * for all others");
        if (!cJSON_IsObject(entry))
            return wrong(r, &an_object, entry, false);
        v[i].name = copy(r, entry->string);
        if (!v[i].name || !read_section(r, &collection_section, &v[i], entry))
            return false;
        r->depth--;
    }
    qsort(v, n, sizeof(*v), compare_collections);
    memcpy((char *)base + o->offset, &v, sizeof(v));
    memcpy((char *)base + o->count, &n, sizeof(n));
    return true;
}

static bool read_value(struct reader *r, const struct option *o, void *base, const cJSON *value)
{
    if (o->nullable && cJSON_IsNull(value))
        return true;
    switch (o->kind) {
    case SECTION:
        return cJSON_IsObject(value) ? read_section(r, o->section, base, value) : wrong(r, o, value, false);
    case COLLECTIONS:
        return read_collections(r, o, base, value);
    case STRING:
        return read_string(r, o, value, false, (char **)((char *)base + o->offset));
    case STRINGS:
    case SLICES:
        return read_list(r, o, base, value);
    case UNSIGNED:
    case SIZE:
        return read_number(r, o, base, value);
    case BOOLEAN:
        *(bool *)((char *)base + o->offset) = cJSON_IsTrue(value);
        return cJSON_IsBool(value) || wrong(r, o, value, false);
    case CHOICE:
        return read_choice(r, o, base, value);
    }
    return false;
}

static bool read_absent(struct reader *r, const struct option *o, void *base)
{
    if (o->required)
        return fail(r, "missing; expected %s", o->expected);
    if (!o->fallback)
        return true;
    cJSON *value = cJSON_Parse(o->fallback);
    if (!value)
        return fail(r, "out of memory");
    bool ok = read_value(r, o, base, value);
    cJSON_Delete(value);
    return ok;
}

static bool check_keys(struct reader *r, const struct section *section, const cJSON *object)
{
    for (const cJSON *member = object->child; member; member = member->next) {
        size_t i = 0;
        while (i < section->n && strcmp(section->options[i].key, member->string) != 0)
            i++;
        if (i < section->n)
            continue;
        char shown[SHOWN_MAX], allowed[200] = "";
        show_key(member->string, shown);
        size_t n = 0;
        for (i = 0; i < section->n && n < sizeof(allowed); i++)
            n += (size_t)snprintf(allowed + n, sizeof(allowed) - n, "%s%s", i ? ", " : "", section->options[i].key);
        r->path[r->depth++] = shown;
        return fail(r, "unknown key; allowed here: %s", allowed);
    }
    return true;
}

static bool read_section(struct reader *r, const struct section *section, void *base, const cJSON *object)
{
    if (!check_keys(r, section, object))
        return false;
    for (size_t i = 0; i < section->n; i++) {
        const struct option *o = &section->options[i];
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, o->key);
        r->path[r->depth++] = o->key;
        if (!(value ? read_value(r, o, base, value) : read_absent(r, o, base)))
            return false;
        r->depth--;
    }
    return !section->check || section->check(r, base);
}

/* --- texts and files ---------------------------------------------------------------------------------------------- */

static bool fail_at(struct reader *r, struct mqsync_slice text, size_t offset, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < offset && i < text.n; i++) {
        if (text.p[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text.p[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return fail(r, "line %zu, column %zu: %s", line, column, what);
}

/* C strings end at a NUL, so one inside would cut a name short. text has been checked. */
static bool check_no_nul(struct reader *r, struct mqsync_slice text)
{
    for (size_t i = 0; i + 5 < text.n; i++) {
        if (text.p[i] != '\\')
            continue;
        if (memcmp(text.p + i, "\\u0000", 6) == 0)
            return fail_at(r, text, i, "\\u0000 is not allowed in a configuration");
        i++;
    }
    return true;
}

/* What editors and people put into a file that JSON does not have; NULL: nothing of the kind. */
static const char *habit_at(struct mqsync_slice text, size_t offset)
{
    static const struct {
        const char *start, *what;
    } habits[] = {{"\xef\xbb\xbf", "a byte order mark; save the file as UTF-8 without one"},
                  {"\xff\xfe", "UTF-16; save the file as UTF-8"},
                  {"\xfe\xff", "UTF-16; save the file as UTF-8"},
                  {"//", "a comment; JSON has none"},
                  {"/*", "a comment; JSON has none"},
                  {"#", "a comment; JSON has none"}};
    for (size_t i = 0; i < sizeof(habits) / sizeof(*habits); i++) {
        size_t n = strlen(habits[i].start);
        if (offset <= text.n && text.n - offset >= n && memcmp(text.p + offset, habits[i].start, n) == 0)
            return habits[i].what;
    }
    return NULL;
}

/* The key whose quotes open at offset, as it is written. */
static void show_key_at(struct mqsync_slice text, size_t offset, char out[SHOWN_MAX])
{
    char key[SHOWN_MAX]; /* longer than what is shown, so that show_text sees that it is too long */
    size_t n = 0;
    for (size_t i = offset + 1; i < text.n && text.p[i] != '"' && n < sizeof(key) - 1; i++) {
        if (text.p[i] == '\\' && i + 1 < text.n && n < sizeof(key) - 2)
            key[n++] = text.p[i++];
        key[n++] = text.p[i];
    }
    key[n] = '\0';
    show_text(key, out);
}

/* The checker says at which byte; people look for lines. */
static bool fail_syntax(struct reader *r, struct mqsync_slice text, const struct mqsync_error *e)
{
    static const char at[] = " at byte ";
    const char *place = strstr(e->text, at);
    if (!place)
        return fail(r, "%s", e->text);
    size_t offset = strtoul(place + strlen(at), NULL, 10);
    const char *habit = habit_at(text, offset);
    if (habit)
        return fail_at(r, text, offset, habit);
    char what[sizeof(e->text)], key[SHOWN_MAX] = "";
    int n = (int)(place - e->text);
    if (strstr(e->text, "duplicate key"))
        show_key_at(text, offset, key);
    snprintf(what, sizeof(what), "%.*s%s%s", n, e->text, *key ? " " : "", key);
    return fail_at(r, text, offset, what);
}

static bool read_text(struct reader *r, struct mqsync_slice text)
{
    struct mqsync_json_info info;
    struct mqsync_error syntax;
    if (mqsync_json_check(text, &info, &syntax))
        return fail_syntax(r, text, &syntax);
    if (!check_no_nul(r, text))
        return false;
    const char *end = text.p;
    cJSON *json = cJSON_ParseWithLengthOpts(text.p, text.n, &end, false);
    if (!json)
        return fail_at(r, text, (size_t)(end - text.p), "a number with too many digits, or not enough memory");
    bool ok = cJSON_IsObject(json) ? read_section(r, &root_section, &r->owned->config, json)
                                   : wrong(r, &an_object, json, false);
    cJSON_Delete(json);
    return ok;
}

/* A path too long for an error text is shown by its end. */
static void shorten_path(const char *path, char *out, size_t size)
{
    size_t n = strlen(path);
    if (n < size)
        memcpy(out, path, n + 1);
    else
        snprintf(out, size, "...%s", path + n - (size - sizeof("...")));
}

enum mqsync_code mqsync_config_parse(struct mqsync_slice text, const char *file, struct mqsync_config **ret,
                                     struct mqsync_error *ret_error)
{
    char shown[SHOWN_PATH_MAX];
    shorten_path(file ? file : "configuration", shown, sizeof(shown));
    struct reader r = {.file = shown, .error = ret_error, .owned = calloc(1, sizeof(*r.owned))};
    if (!r.owned)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "%s: out of memory", shown);
    struct mqsync_config *c = &r.owned->config;
    bool ok = read_text(&r, text);
    if (ok && file)
        ok = (c->path = copy(&r, file)) != NULL;
    if (!ok) {
        mqsync_config_free(c);
        return MQSYNC_SERVER_ERROR;
    }
    *ret = c;
    return MQSYNC_OK;
}

/* 0, or errno; EFBIG when there is more than a configuration may have. */
static int read_file(const char *path, struct mqsync_buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno;
    int error = 0;
    for (;;) {
        char *room = mqsync_buf_reserve(out, 65536);
        if (!room) {
            error = ENOMEM;
            break;
        }
        ssize_t n = read(fd, room, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            error = n < 0 ? errno : 0;
            break;
        }
        out->n += (size_t)n;
        if (out->n > FILE_MAX_BYTES) {
            error = EFBIG;
            break;
        }
    }
    close(fd);
    return error;
}

enum mqsync_code mqsync_config_load(const char *path, struct mqsync_config **ret, struct mqsync_error *ret_error)
{
    if (!path)
        return mqsync_config_parse(MQSYNC_SLICE("{}"), NULL, ret, ret_error);
    struct mqsync_buf text = {0};
    int error = read_file(path, &text);
    enum mqsync_code code;
    if (error) {
        char shown[SHOWN_PATH_MAX];
        shorten_path(path, shown, sizeof(shown));
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "%s: %s", shown,
                           error == EFBIG ? "larger than 16 MiB" : strerror(error));
    } else {
        code = mqsync_config_parse(mqsync_buf_slice(&text), path, ret, ret_error);
    }
    mqsync_buf_free(&text);
    return code;
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

static int compare_slice(const void *key, const void *element)
{
    const struct mqsync_slice *name = key;
    const struct mqsync_collection_config *c = element;
    int order = strncmp(name->p, c->name, name->n);
    return order ? order : c->name[name->n] ? -1 : 0;
}

const struct mqsync_collection_config *mqsync_config_collection(const struct mqsync_config *c, struct mqsync_slice name)
{
    if (c->collections_n == 0)
        return NULL;
    /* "*" sorts before every character a name may have */
    const struct mqsync_collection_config *first = c->collections;
    const struct mqsync_collection_config *others = strcmp(first->name, "*") == 0 ? first : NULL;
    if (name.n == 0 || memchr(name.p, '\0', name.n))
        return others;
    const struct mqsync_collection_config *named =
        bsearch(&name, first, c->collections_n, sizeof(*first), compare_slice);
    return named ? named : others;
}

bool mqsync_config_trusted(const struct mqsync_config *c, const char *mqtt_username)
{
    if (!mqtt_username)
        return false;
    for (size_t i = 0; i < c->trusted_users_n; i++)
        if (strcmp(c->trusted_users[i], mqtt_username) == 0)
            return true;
    return false;
}
