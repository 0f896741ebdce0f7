/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a configuration: refused with a text that can be logged, or complete and consistent. */
#include "config.h"
#include "fuzz.h"
#include "json.h"

static void check_error(const struct mqsync_error *e)
{
    CHECK(e->code == MQSYNC_SERVER_ERROR);
    CHECK(strncmp(e->text, "fuzz.json: ", 11) == 0 && e->text[11]);
    struct mqsync_buf quoted = {0};
    for (const char *p = e->text; *p; p++)
        CHECK((unsigned char)*p >= 0x20 && *p != 0x7f);
    mqsync_json_add_string(&quoted, mqsync_slice_str(e->text));
    CHECK(mqsync_json_check(mqsync_buf_slice(&quoted), NULL, NULL) == MQSYNC_OK);
    mqsync_buf_free(&quoted);
}

static void check_collection(const struct mqsync_config *c, size_t i)
{
    const struct mqsync_collection_config *one = &c->collections[i];
    CHECK(strcmp(one->name, "*") == 0 ? i == 0 : mqsync_collection_valid(mqsync_slice_str(one->name)));
    CHECK(i == 0 || strcmp(c->collections[i - 1].name, one->name) < 0);
    CHECK(mqsync_config_collection(c, mqsync_slice_str(one->name)) == one);
    CHECK(mqsync_strategy_has_fields(one->rules.strategy) == (one->rules.fields_n > 0));
    CHECK(one->rules.max_record_bytes == c->limits.max_record_bytes);
    CHECK(!one->owner || one->owner[0]);
    for (size_t j = 0; j < one->read.n; j++)
        CHECK(one->read.v[j].n > 0);
    for (size_t j = 0; j < one->write.n; j++)
        CHECK(one->write.v[j].n > 0);
}

static void check_config(const struct mqsync_config *c)
{
    CHECK(mqsync_root_valid(mqsync_slice_str(c->root)));
    CHECK(!c->database || c->database[0]);
    CHECK(c->sync_interval_ms >= 1 && c->sync_interval_ms <= 60000);
    CHECK(c->limits.max_collections >= 1 && c->limits.max_record_bytes >= 2);
    CHECK(c->auth.present == (c->auth.key_file != NULL) && c->auth.present == (c->auth.role_claim != NULL));
    CHECK(c->auth.present || !c->auth.mqtt);
    CHECK(c->bridge.listen && c->bridge.broker);
    CHECK(!c->bridge.tls_cert_file == !c->bridge.tls_key_file);
    if (c->trusted_users_n)
        CHECK(mqsync_config_trusted(c, c->trusted_users[c->trusted_users_n - 1]));
    for (size_t i = 0; i < c->collections_n; i++)
        check_collection(c, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mqsync_config *c = NULL;
    struct mqsync_error e = {0};
    struct mqsync_slice text = {(const char *)data, size};
    if (mqsync_config_parse(text, "fuzz.json", &c, &e)) {
        CHECK(c == NULL);
        check_error(&e);
        return 0;
    }
    check_config(c);
    mqsync_config_free(c);
    return 0;
}
