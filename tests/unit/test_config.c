/* SPDX-License-Identifier: BSD-3-Clause */
/* schemas/config/good, bad and unreadable hold files that the schema's test reads too, so that reader and schema agree.
 */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#define FILES "schemas/config/"

static struct mqsync_config *load(const char *path)
{
    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    ck_assert_msg(mqsync_config_load(path, &c, &e) == MQSYNC_OK, "%s", e.text);
    ck_assert_ptr_nonnull(c);
    return c;
}

static struct mqsync_config *parse(const char *text)
{
    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    ck_assert_msg(mqsync_config_parse(mqsync_slice_str(text), "test", &c, &e) == MQSYNC_OK, "%s", e.text);
    return c;
}

static void refuse(const char *text, const char *expected)
{
    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    ck_assert_int_eq(mqsync_config_parse(mqsync_slice_str(text), NULL, &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_ptr_null(c);
    ck_assert_int_eq(e.code, MQSYNC_SERVER_ERROR);
    ck_assert_str_eq(e.text, expected);
}

static const struct mqsync_collection_config *find(const struct mqsync_config *c, const char *name)
{
    return mqsync_config_collection(c, mqsync_slice_str(name));
}

/* Calls each(path) for every .json of a directory; there must be some. */
static void for_each_file(const char *directory, void (*each)(const char *path))
{
    struct dirent **entries;
    int n = scandir(directory, &entries, NULL, alphasort);
    int found = 0;
    for (int i = 0; i < n; i++) {
        char path[512];
        const char *dot = strrchr(entries[i]->d_name, '.');
        if (dot && strcmp(dot, ".json") == 0) {
            snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
            each(path);
            found++;
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    ck_assert_int_gt(found, 0);
}

static void accepted(const char *path)
{
    struct mqsync_config *c = load(path);
    ck_assert_str_eq(c->path, path);
    mqsync_config_free(c);
}

/* NAME.error beside NAME.json holds what the error says after the file's name. */
static void refused(const char *path)
{
    char error_path[512], expected[512] = "", full[1024];
    snprintf(error_path, sizeof(error_path), "%.*s.error", (int)(strlen(path) - strlen(".json")), path);
    FILE *f = fopen(error_path, "r");
    ck_assert_msg(f && fgets(expected, sizeof(expected), f), "%s: no error text", error_path);
    fclose(f);
    expected[strcspn(expected, "\n")] = '\0';
    snprintf(full, sizeof(full), "%s: %s", path, expected);

    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    ck_assert_msg(mqsync_config_load(path, &c, &e) == MQSYNC_SERVER_ERROR, "%s: accepted", path);
    ck_assert_ptr_null(c);
    ck_assert_str_eq(e.text, full);
}

START_TEST(good_files)
{
    for_each_file(FILES "good", accepted);
    accepted("../conf/mqsync.json");
}
END_TEST

START_TEST(bad_files)
{
    for_each_file(FILES "bad", refused);
}
END_TEST

START_TEST(unreadable_files)
{
    for_each_file(FILES "unreadable", refused);
}
END_TEST

static void assert_defaults(const struct mqsync_config *c)
{
    ck_assert_str_eq(c->root, "sync");
    ck_assert_ptr_null(c->database);
    ck_assert_int_eq(c->durability, MQSYNC_DURABILITY_PROCESS);
    ck_assert_uint_eq(c->sync_interval_ms, 100);
    ck_assert_uint_eq(c->collections_n, 1);
    const struct mqsync_collection_config *all = &c->collections[0];
    ck_assert_str_eq(all->name, "*");
    ck_assert_int_eq(all->rules.strategy, MQSYNC_LAST_WRITE_WINS);
    ck_assert_uint_eq(all->rules.fields_n, 0);
    ck_assert(!all->rules.upsert && !all->retain);
    ck_assert_uint_eq(all->rules.max_record_bytes, 1048576);
    ck_assert_uint_eq(all->read.n, 1);
    ck_assert(mqsync_slice_equal(all->read.v[0], MQSYNC_SLICE("*")));
    ck_assert_uint_eq(all->write.n, 1);
    ck_assert(mqsync_slice_equal(all->write.v[0], MQSYNC_SLICE("*")));
    ck_assert_ptr_null(all->owner);
    ck_assert(!c->auth.present && !c->auth.mqtt);
    ck_assert_ptr_null(c->auth.key_file);
    ck_assert_uint_eq(c->limits.messages_per_minute, 0);
    ck_assert_uint_eq(c->limits.connections_per_user, 0);
    ck_assert_uint_eq(c->limits.max_record_bytes, 1048576);
    ck_assert_uint_eq(c->limits.max_collections, 10000);
    ck_assert_uint_eq(c->tombstone_days, 30);
    ck_assert_str_eq(c->bridge.listen, "127.0.0.1:8080");
    ck_assert_str_eq(c->bridge.broker, "mqtt://127.0.0.1:1883");
    ck_assert_ptr_null(c->bridge.username);
    ck_assert_ptr_null(c->bridge.password_file);
    ck_assert_uint_eq(c->bridge.idle_timeout_seconds, 60);
    ck_assert_uint_eq(c->bridge.send_queue_bytes, 1048576);
    ck_assert_uint_eq(c->bridge.allowed_origins_n, 1);
    ck_assert_str_eq(c->bridge.allowed_origins[0], "*");
    ck_assert_ptr_null(c->bridge.tls_cert_file);
    ck_assert_ptr_null(c->bridge.tls_key_file);
    ck_assert(c->bridge.mqtt);
    ck_assert_uint_eq(c->bridge.max_connections, 16000);
    ck_assert_uint_eq(c->bridge.trusted_proxies_n, 0);
    ck_assert_uint_eq(c->trusted_users_n, 0);
}

START_TEST(defaults)
{
    struct mqsync_config *c = load(NULL);
    ck_assert_ptr_null(c->path);
    assert_defaults(c);
    mqsync_config_free(c);
    c = load(FILES "good/empty.json");
    assert_defaults(c);
    mqsync_config_free(c);
    /* the schema's test holds the schema's defaults against this file */
    c = load(FILES "good/defaults.json");
    assert_defaults(c);
    mqsync_config_free(c);
}
END_TEST

START_TEST(contract_example)
{
    struct mqsync_config *c = load(FILES "good/contract.json");
    ck_assert_str_eq(c->database, "/var/lib/mqsync");
    ck_assert_uint_eq(c->collections_n, 4);
    ck_assert(find(c, "sensors")->rules.upsert && find(c, "sensors")->retain);
    const struct mqsync_collection_config *notes = find(c, "notes");
    ck_assert_str_eq(notes->name, "notes");
    ck_assert_int_eq(notes->rules.strategy, MQSYNC_MERGE_ARRAYS);
    ck_assert_uint_eq(notes->rules.fields_n, 1);
    ck_assert(mqsync_slice_equal(notes->rules.fields[0], MQSYNC_SLICE("tags")));
    ck_assert_uint_eq(notes->read.n, 2);
    ck_assert(mqsync_slice_equal(notes->read.v[0], MQSYNC_SLICE("user:ana")));
    ck_assert(mqsync_slice_equal(notes->read.v[1], MQSYNC_SLICE("role:staff")));
    ck_assert_uint_eq(notes->write.n, 1);
    ck_assert_str_eq(notes->owner, "ownerId");
    ck_assert(c->auth.present && !c->auth.mqtt);
    ck_assert_int_eq(c->auth.algorithm, MQSYNC_JWT_HS256);
    ck_assert_str_eq(c->auth.key_file, "/etc/mqsync/jwt.key");
    ck_assert_str_eq(c->auth.user_claim, "userId");
    ck_assert_str_eq(c->auth.role_claim, "roles");
    ck_assert_str_eq(c->bridge.username, "mqsync-bridge");
    ck_assert(mqsync_config_trusted(c, "mqsync-bridge"));
    ck_assert(!mqsync_config_trusted(c, "mqsync-bridg"));
    ck_assert(!mqsync_config_trusted(c, ""));
    ck_assert(!mqsync_config_trusted(c, NULL));
    mqsync_config_free(c);
}
END_TEST

START_TEST(everything_else)
{
    struct mqsync_config *c = load(FILES "good/everything-else.json");
    ck_assert_str_eq(c->root, "site-1/sync_v2.x");
    ck_assert_int_eq(c->durability, MQSYNC_DURABILITY_POWER);
    ck_assert_uint_eq(c->sync_interval_ms, 60000);
    ck_assert_int_eq(find(c, "a")->rules.strategy, MQSYNC_SERVER_WINS);
    ck_assert_int_eq(find(c, "B.b-b_9")->rules.strategy, MQSYNC_CLIENT_WINS);
    ck_assert_int_eq(find(c, "...")->rules.strategy, MQSYNC_SUM_NUMBERS);
    ck_assert_uint_eq(find(c, "...")->rules.fields_n, 2);
    ck_assert_int_eq(find(c, "m")->rules.strategy, MQSYNC_MAX_VALUE);
    ck_assert(mqsync_slice_equal(find(c, "m")->rules.fields[0], MQSYNC_SLICE("gr\xc3\xb6\xc3\x9f"
                                                                             "e")));
    ck_assert_int_eq(find(c, "f")->rules.strategy, MQSYNC_MERGE_FIELDS);
    ck_assert_int_eq(find(c, "l")->rules.strategy, MQSYNC_FIELD_LEVEL_LAST_WRITE_WINS);
    ck_assert_int_eq(find(c, "d")->rules.strategy, MQSYNC_DEEP_MERGE);
    ck_assert_uint_eq(find(c, "d")->read.n, 0);
    ck_assert_uint_eq(find(c, "d")->write.n, 2);
    ck_assert(c->auth.present && c->auth.mqtt);
    ck_assert_int_eq(c->auth.algorithm, MQSYNC_JWT_ES256);
    ck_assert_ptr_null(c->auth.user_claim);
    ck_assert_str_eq(c->auth.role_claim, "roles");
    ck_assert_uint_eq(c->limits.messages_per_minute, 1000000000);
    ck_assert_uint_eq(c->limits.max_collections, 1000000);
    for (size_t i = 0; i < c->collections_n; i++)
        ck_assert_uint_eq(c->collections[i].rules.max_record_bytes, 268435456);
    ck_assert_uint_eq(c->bridge.allowed_origins_n, 4);
    ck_assert_str_eq(c->bridge.allowed_origins[3], "null");
    ck_assert_str_eq(c->bridge.tls_cert_file, "cert.pem");
    ck_assert_str_eq(c->bridge.tls_key_file, "key.pem");
    ck_assert(!c->bridge.mqtt);
    ck_assert_uint_eq(c->bridge.max_connections, 1000000);
    ck_assert_uint_eq(c->bridge.trusted_proxies_n, 9);
    ck_assert_str_eq(c->bridge.trusted_proxies[8], "unix");
    ck_assert(mqsync_config_trusted(c, "Zo\xc3\xab"));
    mqsync_config_free(c);
}
END_TEST

START_TEST(odd_integers)
{
    struct mqsync_config *c = load(FILES "good/integers-written-oddly.json");
    ck_assert_uint_eq(c->sync_interval_ms, 100);
    ck_assert_uint_eq(c->tombstone_days, 30);
    ck_assert_uint_eq(c->limits.messages_per_minute, 0);
    mqsync_config_free(c);
}
END_TEST

START_TEST(collection_lookup)
{
    struct mqsync_config *c = parse("{\"collections\":{\"b\":{},\"*\":{},\"ab\":{},\"-\":{},\"a\":{}}}");
    ck_assert_str_eq(find(c, "a")->name, "a");
    ck_assert_str_eq(find(c, "ab")->name, "ab");
    ck_assert_str_eq(find(c, "b")->name, "b");
    ck_assert_str_eq(find(c, "-")->name, "-");
    ck_assert_str_eq(find(c, "abc")->name, "*");
    ck_assert_str_eq(find(c, "*")->name, "*");
    ck_assert_str_eq(find(c, "")->name, "*");
    ck_assert_str_eq(mqsync_config_collection(c, (struct mqsync_slice){NULL, 0})->name, "*");
    /* a slice ends where it ends, and not at a NUL */
    ck_assert_str_eq(mqsync_config_collection(c, (struct mqsync_slice){"abc", 2})->name, "ab");
    ck_assert_str_eq(mqsync_config_collection(c, (struct mqsync_slice){"a\0b", 3})->name, "*");
    mqsync_config_free(c);

    c = parse("{\"collections\":{\"notes\":{}}}");
    ck_assert_str_eq(find(c, "notes")->name, "notes");
    ck_assert_ptr_null(find(c, "note"));
    ck_assert_ptr_null(find(c, "notes2"));
    ck_assert_ptr_null(find(c, "*"));
    mqsync_config_free(c);

    c = parse("{\"collections\":{}}");
    ck_assert_ptr_null(find(c, "notes"));
    mqsync_config_free(c);
}
END_TEST

START_TEST(many_collections)
{
    struct mqsync_buf text = {0};
    mqsync_buf_add_str(&text, "{\"collections\":{\"*\":{}");
    for (unsigned i = 0; i < 20000; i++) {
        mqsync_buf_add_str(&text, ",\"c");
        mqsync_buf_add_u64(&text, i * 7919u % 20000u);
        mqsync_buf_add_str(&text, "\":{}");
    }
    mqsync_buf_add(&text, "}}", 3);
    struct mqsync_config *c = parse(text.p);
    ck_assert_uint_eq(c->collections_n, 20001);
    for (unsigned i = 0; i < 20010; i++) {
        char name[16];
        snprintf(name, sizeof(name), "c%u", i);
        ck_assert_str_eq(find(c, name)->name, i < 20000 ? name : "*");
    }
    mqsync_config_free(c);
    mqsync_buf_free(&text);
}
END_TEST

START_TEST(errors_without_a_file)
{
    refuse("{\"tombstoneDays\":true}", "configuration: tombstoneDays: true is not an integer from 0 to 36500");
    refuse("\"sync\"", "configuration: \"sync\" is not an object");
}
END_TEST

/* What is allowed must stay readable however long the operator's own text is. */
START_TEST(long_values_are_cut)
{
    char text[2000], path[1000];
    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    snprintf(text, sizeof(text), "{\"durability\":\"%0500d\"}", 7);
    memset(path, 'd', sizeof(path));
    strcpy(path + 900, "/mqsync.json");
    ck_assert_int_eq(mqsync_config_parse(mqsync_slice_str(text), path, &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_msg(strncmp(e.text, "...d", 4) == 0, "%s", e.text);
    ck_assert_ptr_nonnull(strstr(e.text, "d/mqsync.json: durability: \"000"));
    ck_assert_ptr_nonnull(strstr(e.text, "0...\" is not one of process, power"));

    /* three bytes a character: the cut falls between characters */
    char *p = text + sprintf(text, "{\"");
    for (int i = 0; i < 100; i++)
        p += sprintf(p, "\xe2\x82\xac");
    strcpy(p, "\":1}");
    ck_assert_int_eq(mqsync_config_parse(mqsync_slice_str(text), NULL, &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_ptr_nonnull(strstr(e.text, "\xe2\x82\xac...\": unknown key; allowed here: root, "));
}
END_TEST

/* The longest of everything that is shown, and the longest lists of what is allowed. */
START_TEST(what_is_allowed_is_always_said)
{
    char text[2000], path[1000];
    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    memset(path, 'd', sizeof(path));
    strcpy(path + 900, "/mqsync.json");
    snprintf(text, sizeof(text), "{\"collections\":{\"%064d\":{\"conflict\":{\"strategy\":\"%0500d\"}}}}", 1, 2);
    ck_assert_int_eq(mqsync_config_parse(mqsync_slice_str(text), path, &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_msg(strstr(e.text, "is not one of lastWriteWins, ") && strstr(e.text, ", deepMerge"), "%s", e.text);
    snprintf(text, sizeof(text), "{\"bridge\":{\"%0500d\":1}}", 3);
    ck_assert_int_eq(mqsync_config_parse(mqsync_slice_str(text), path, &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_msg(strstr(e.text, "allowed here: listen, ") && strstr(e.text, ", trustedProxies"), "%s", e.text);
    snprintf(text, sizeof(text), "{\"collections\":{\"%0500d\":{}}}", 4);
    ck_assert_int_eq(mqsync_config_parse(mqsync_slice_str(text), path, &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_msg(strstr(e.text, "or * for all others") != NULL, "%s", e.text);
}
END_TEST

START_TEST(error_is_optional)
{
    struct mqsync_config *c = NULL;
    ck_assert_int_eq(mqsync_config_load("/does/not/exist", &c, NULL), MQSYNC_SERVER_ERROR);
    ck_assert_int_eq(mqsync_config_parse(MQSYNC_SLICE("{\"a\":1}"), NULL, &c, NULL), MQSYNC_SERVER_ERROR);
    ck_assert_int_eq(mqsync_config_parse(MQSYNC_SLICE("{"), NULL, &c, NULL), MQSYNC_SERVER_ERROR);
    ck_assert_ptr_null(c);
    mqsync_config_free(NULL);
}
END_TEST

START_TEST(files_that_cannot_be_read)
{
    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    ck_assert_int_eq(mqsync_config_load("/does/not/exist.json", &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_str_eq(e.text, "/does/not/exist.json: No such file or directory");
    ck_assert_int_eq(mqsync_config_load("/", &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_str_eq(e.text, "/: Is a directory");
    ck_assert_int_eq(mqsync_config_load("/dev/zero", &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_str_eq(e.text, "/dev/zero: larger than 16 MiB");
    ck_assert_ptr_null(c);
}
END_TEST

/* Up to 16 MiB is read, in as many pieces as come. */
START_TEST(large_file)
{
    FILE *f = tmpfile();
    ck_assert_ptr_nonnull(f);
    const size_t largest = 16 * 1024 * 1024;
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fileno(f));
    fputs("{\"tombstoneDays\": 7", f);
    for (size_t i = strlen("{\"tombstoneDays\": 7}"); i < largest; i++)
        putc(' ', f);
    fputs("}", f);
    ck_assert_int_eq(fflush(f), 0);
    struct mqsync_config *c = load(path);
    ck_assert_uint_eq(c->tombstone_days, 7);
    mqsync_config_free(c);

    fputs(" ", f);
    ck_assert_int_eq(fflush(f), 0);
    struct mqsync_error e = {0};
    c = NULL;
    ck_assert_int_eq(mqsync_config_load(path, &c, &e), MQSYNC_SERVER_ERROR);
    ck_assert_ptr_nonnull(strstr(e.text, ": larger than 16 MiB"));
    fclose(f);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("config");
    tcase_add_test(tc, good_files);
    tcase_add_test(tc, bad_files);
    tcase_add_test(tc, unreadable_files);
    tcase_add_test(tc, defaults);
    tcase_add_test(tc, contract_example);
    tcase_add_test(tc, everything_else);
    tcase_add_test(tc, odd_integers);
    tcase_add_test(tc, collection_lookup);
    tcase_add_test(tc, many_collections);
    tcase_add_test(tc, errors_without_a_file);
    tcase_add_test(tc, long_values_are_cut);
    tcase_add_test(tc, what_is_allowed_is_always_said);
    tcase_add_test(tc, error_is_optional);
    tcase_add_test(tc, files_that_cannot_be_read);
    tcase_add_test(tc, large_file);
    return run_tests("config", tc);
}
