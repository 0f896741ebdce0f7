/* SPDX-License-Identifier: BSD-3-Clause */
/* Stored records: what decode takes, encode writes again to the byte, and the head is the same by itself. The input is
 * a stored record; with a first byte other than the formats', the rest of it patched into a sound one, with as many
 * former owners as that byte's remainder by three. */
#include "fuzz.h"
#include "record.h"

static void check_stored(struct mqsync_slice stored)
{
    static struct mqsync_record r, untouched;
    struct mqsync_record_head head;
    struct mqsync_error error = {.code = MQSYNC_OK};
    memset(&r, 0x5A, sizeof(r));
    memset(&untouched, 0x5A, sizeof(untouched));
    if (mqsync_record_decode(stored, &r, &error) != MQSYNC_OK) {
        CHECK(error.code == MQSYNC_SERVER_ERROR && error.text[0]);
        CHECK(memcmp(&r, &untouched, sizeof(r)) == 0);
        return;
    }
    CHECK(r.history_n >= 1 && r.history_n <= MQSYNC_HISTORY_MAX && r.user.n <= MQSYNC_USER_MAX);
    CHECK(r.formers_n <= MQSYNC_FORMERS_MAX && (r.formers_n > 0) == (stored.p[0] == MQSYNC_RECORD_FORMAT_FORMERS));
    CHECK(r.deleted == (r.data.n == 0));
    CHECK(mqsync_record_decode_head(stored, &head) == MQSYNC_OK);
    CHECK(head.version == r.version && head.seq == r.seq && head.updated_ms == r.updated_ms &&
          head.deleted == r.deleted);

    struct mqsync_buf again = {0};
    mqsync_record_encode(&again, &r);
    CHECK(!again.failed && mqsync_slice_equal(mqsync_buf_slice(&again), stored));
    mqsync_buf_free(&again);
}

static void patch(unsigned formers_n, const uint8_t *data, size_t size)
{
    struct mqsync_record r = {
        .version = 7, .seq = 9, .updated_ms = 1000, .user = MQSYNC_SLICE("ana"), .data = MQSYNC_SLICE("{\"a\":1}")};
    r.history_n = 3;
    for (unsigned i = 0; i < r.history_n; i++) {
        r.history[i] = (struct mqsync_change){.fingerprint = 1 + i,
                                              .mutation = i,
                                              .sent_ms = i == 1 ? 900 : INT64_MIN,
                                              .arrived_ms = 950,
                                              .effective_ms = 1000,
                                              .version = 5 + i,
                                              .seq = 7 + i};
    }
    for (; r.formers_n < formers_n; r.formers_n++)
        r.formers[r.formers_n] = (struct mqsync_former){.user = 21 + r.formers_n, .seq = 3 + r.formers_n};
    struct mqsync_buf stored = {0};
    mqsync_record_encode(&stored, &r);
    CHECK(!stored.failed);
    for (; size >= 2; data += 2, size -= 2)
        stored.p[data[0] % stored.n] = (char)data[1];
    if (size)
        stored.n -= data[0] % stored.n;
    check_stored(mqsync_buf_slice(&stored));
    mqsync_buf_free(&stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] != MQSYNC_RECORD_FORMAT && data[0] != MQSYNC_RECORD_FORMAT_FORMERS)
        patch(data[0] % 3, data + 1, size - 1);
    else
        check_stored((struct mqsync_slice){(const char *)data, size});
    return 0;
}
