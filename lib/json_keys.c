/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys compared by what they mean, in time that an attacker who picks the keys cannot make quadratic. */
#define XXH_INLINE_ALL
#include "json_scan.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>

/* One seed for the life of the process, so that nobody outside can choose keys that collide. */
static uint64_t hash_seed(void)
{
    static _Atomic uint64_t kept;
    uint64_t seed = atomic_load_explicit(&kept, memory_order_relaxed);

    if (seed)
        return seed;
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed)) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        seed = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uintptr_t)&now;
    }
    seed |= 1;

    uint64_t expected = 0;
    return atomic_compare_exchange_strong(&kept, &expected, seed) ? seed : expected;
}

static size_t decode_some(struct mqsync_json_decoder *d, unsigned char *to, size_t size)
{
    size_t n = 0;
    int c;

    while (n < size && (c = mqsync_json_decode(d)) >= 0)
        to[n++] = (unsigned char)c;
    return n;
}

static uint64_t hash_escaped(const char *p, size_t n, uint64_t seed)
{
    struct mqsync_json_decoder d = {.p = p, .end = p + n, .escaped = true};
    unsigned char meant[256];
    size_t part = decode_some(&d, meant, sizeof(meant));

    if (part < sizeof(meant))
        return XXH3_64bits_withSeed(meant, part, seed);

    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed);
    for (; part; part = decode_some(&d, meant, sizeof(meant)))
        XXH3_64bits_update(&state, meant, part);
    return XXH3_64bits_digest(&state);
}

/* As memchr(p, '\\', n), without the call: keys are short. */
static inline bool has_backslash(const char *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8)
        if (mqsync_json_zero_bytes(mqsync_json_load(p) ^ MQSYNC_JSON_BYTES('\\')))
            return true;
    while (n)
        if (p[--n] == '\\')
            return true;
    return false;
}

struct mqsync_json_key mqsync_json_make_key(const char *p, size_t n)
{
    uint64_t seed = hash_seed();

    if (has_backslash(p, n))
        return (struct mqsync_json_key){p, n, hash_escaped(p, n, seed)};
    return (struct mqsync_json_key){p, n, XXH3_64bits_withSeed(p, n, seed)};
}

uint64_t mqsync_json_hash_pair(uint64_t a, uint64_t b)
{
    return XXH3_64bits_withSeed((uint64_t[]){a, b}, 2 * sizeof(uint64_t), hash_seed());
}

static bool same_key(const struct mqsync_json_key *a, const struct mqsync_json_key *b)
{
    return mqsync_json_key_equal((struct mqsync_slice){a->p, a->n}, (struct mqsync_slice){b->p, b->n});
}

size_t mqsync_json_keys_search(const struct mqsync_json_keys *set, const struct mqsync_json_key *keys,
                               const struct mqsync_json_key *key)
{
    if (!set->slots) {
        for (size_t i = 0; i < set->n; i++)
            if (keys[i].hash == key->hash && same_key(&keys[i], key))
                return i;
        return MQSYNC_JSON_NO_KEY;
    }

    for (size_t at = key->hash & set->mask; set->slots[at]; at = (at + 1) & set->mask) {
        size_t i = (uint32_t)set->slots[at] - 1;
        if (set->slots[at] >> 32 == key->hash >> 32 && keys[i].hash == key->hash && same_key(&keys[i], key))
            return i;
    }
    return MQSYNC_JSON_NO_KEY;
}

static void put(struct mqsync_json_keys *set, uint64_t hash, size_t i)
{
    size_t at = hash & set->mask;

    while (set->slots[at])
        at = (at + 1) & set->mask;
    set->slots[at] = (hash & ~UINT64_C(0xFFFFFFFF)) | (uint32_t)(i + 1);
}

bool mqsync_json_keys_index(struct mqsync_json_keys *set, const struct mqsync_json_key *keys)
{
    if (set->slots && set->n <= set->mask / 2) {
        put(set, keys[set->n - 1].hash, set->n - 1);
        return true;
    }

    size_t size = set->slots ? (set->mask + 1) * 4 : MQSYNC_JSON_FEW_KEYS * 8;
    if (size > UINT32_MAX)
        return false;
    uint64_t *slots = calloc(size, sizeof(*slots));
    if (!slots)
        return false;
    free(set->slots);
    set->slots = slots;
    set->mask = size - 1;
    for (size_t i = 0; i < set->n; i++)
        put(set, keys[i].hash, i);
    return true;
}

void mqsync_json_keys_free(struct mqsync_json_keys *set)
{
    free(set->slots);
    set->slots = NULL;
}
