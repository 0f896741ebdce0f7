/* SPDX-License-Identifier: BSD-3-Clause */
#include "followers.h"

#include <stdlib.h>
#include <xxhash.h>

#include "answer.h"

enum { BUCKETS = 256 };

struct mqsync_follower {
    struct mqsync_follower *next;
    char collection[MQSYNC_MAX_COLLECTION + 1];
    struct mqsync_address to;
};

struct mqsync_followers {
    struct mqsync_follower *buckets[BUCKETS]; /* by collection */
    unsigned n;
};

static unsigned bucket_of(struct mqsync_slice collection)
{
    return (unsigned)(XXH3_64bits(collection.p, collection.n) % BUCKETS);
}

static bool is_of(const struct mqsync_follower *f, struct mqsync_slice collection)
{
    return mqsync_slice_equal(mqsync_slice_str(f->collection), collection);
}

struct mqsync_followers *mqsync_followers_alloc(void)
{
    return calloc(1, sizeof(struct mqsync_followers));
}

static void follower_free(struct mqsync_follower *f)
{
    mqsync_address_free(&f->to);
    free(f);
}

void mqsync_followers_free(struct mqsync_followers *f)
{
    for (unsigned i = 0; f && i < BUCKETS; i++) {
        while (f->buckets[i]) {
            struct mqsync_follower *first = f->buckets[i];
            f->buckets[i] = first->next;
            follower_free(first);
        }
    }
    free(f);
}

static void leave(struct mqsync_followers *f, unsigned bucket, const char *client_id, struct mqsync_slice collection)
{
    for (struct mqsync_follower **at = &f->buckets[bucket], *one; (one = *at);) {
        if (strcmp(one->to.client_id, client_id) != 0 || (collection.n && !is_of(one, collection))) {
            at = &one->next;
            continue;
        }
        *at = one->next;
        follower_free(one);
        f->n--;
    }
}

void mqsync_followers_leave(struct mqsync_followers *f, const char *client_id, struct mqsync_slice collection)
{
    if (f->n == 0)
        return;
    if (collection.n) {
        leave(f, bucket_of(collection), client_id, collection);
        return;
    }
    for (unsigned i = 0; i < BUCKETS; i++)
        leave(f, i, client_id, collection);
}

static bool has_room(const struct mqsync_followers *f, struct mqsync_slice collection)
{
    unsigned of_one = 0;

    for (const struct mqsync_follower *one = f->buckets[bucket_of(collection)]; one; one = one->next)
        of_one += is_of(one, collection);
    return of_one < MQSYNC_FOLLOWERS_OF_ONE && f->n < MQSYNC_FOLLOWERS_MAX;
}

bool mqsync_followers_subscribe(struct mqsync_plugin *p, const struct mqsync_request *r)
{
    struct mqsync_followers *f = p->followers;
    struct mqsync_slice collection = r->message.collection;
    struct mqsync_follower *fresh;

    if (!r->client_id || !(r->message.full_updates || r->message.delta_updates))
        return false;
    mqsync_followers_leave(f, r->client_id, collection);
    if (!r->message.full_updates || r->bound || !has_room(f, collection) || !(fresh = calloc(1, sizeof(*fresh))))
        return false;
    if (!mqsync_address_copy(p, r, &fresh->to)) {
        free(fresh);
        return false;
    }
    memcpy(fresh->collection, collection.p, collection.n);
    fresh->next = f->buckets[bucket_of(collection)];
    f->buckets[bucket_of(collection)] = fresh;
    f->n++;
    return true;
}

const struct mqsync_follower *mqsync_followers_of(const struct mqsync_followers *f, struct mqsync_slice collection)
{
    const struct mqsync_follower *one = f->n ? f->buckets[bucket_of(collection)] : NULL;

    while (one && !is_of(one, collection))
        one = one->next;
    return one;
}

void mqsync_followers_tell(const struct mqsync_follower *first, struct mqsync_slice event, uint8_t qos,
                           const mosquitto_property *properties)
{
    for (const struct mqsync_follower *one = first; one; one = one->next)
        if (is_of(one, mqsync_slice_str(first->collection)))
            mqsync_address_send_event(&one->to, event, qos, properties);
}
