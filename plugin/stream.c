/* SPDX-License-Identifier: BSD-3-Clause */
#include "stream.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <xxhash.h>

#include "answer.h"
#include "log.h"
#include "owner.h"
#include "peer.h"
#include "snapshot.h"

enum {
    ACTIVE_MAX = 32, /* and one of each client */
    WAITING_MAX = 1024,
    CLIENT_MAX = 32,
    AHEAD_PAGES = 16,
    AHEAD_BYTES = 2 << 20,
    SETTLE_MS = 10000,
    COUNT_AT_A_TIME = 4096, /* entries; then it is the next answer's turn */
};

/* How much is done on the broker's thread. The second row is for a broker that never ticks, where what is not sent at
 * once has to wait until somebody sends a message. */
static const struct limits {
    uint64_t entries; /* of an answer in the callback */
    uint64_t walked;  /* tombstones passed over included */
    size_t bytes;
    unsigned window_pages; /* of one answer in WINDOW_US */
    int64_t send_us;       /* in one call */
} limits_of[] = {
    {128, 1024, 512 << 10, 16, 4000},
    {8192, 16384, 4 << 20, 64, 10000},
};
enum { WINDOW_US = 100000 };

/* A client that does not read: how often that is looked at, and after how long its answer is broken off. */
enum { BEHIND_LOOK_US = 10000, BEHIND_AT_MOST_US = 60000000 };

struct item {
    struct item *next;
    size_t n;
    char bytes[];
};

struct stream {
    struct stream *next; /* of those that wait */
    struct mqsync_address to;
    struct mqsync_snapshot_query query;
    char *owner, *user; /* what the query's lead into; NULL: everything may be seen */
    bool subscribed;    /* the first message is `subscribed` */
    bool follows;       /* which says so: followers.h */
    /* the preparing thread's, until closed */
    bool open;
    struct mqsync_snapshot snapshot;
    /* under the lock, once queued */
    struct item *first, *last;
    unsigned ready;
    size_t ready_bytes;
    bool cancelled, closed;
    bool broken; /* the answer ends with an error that has yet to be told */
    struct mqsync_error error;
    /* the broker's thread's: how long the stream has waited for what it may send, and when that was last looked at */
    int64_t credit_us, looked_us;
    int socket;  /* the client's, or -1 */
    bool behind; /* it does not keep up */
    int64_t behind_looked_us, behind_since_us;
};

/* Who was given the full state up to a seq that is older than the oldest deletion known, by a limit: going on from
 * there must not begin again. A slot that another takes over costs its owner just that. */
enum { CUT_SLOTS = 256 };
struct cut {
    uint64_t who, seq;
};

struct mqsync_streams {
    struct mqsync_store *store;
    const char *dir; /* of the store */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool started, stop, warned;
    unsigned count;      /* broker's thread: waiting and active */
    unsigned next_first; /* broker's thread: whose turn it is to be the first to send */
    unsigned waiting_n, active_n;
    struct stream *waiting, *waiting_last;
    struct stream *active[ACTIVE_MAX];
    struct cut cut[CUT_SLOTS]; /* broker's thread */
};

/* --- one stream --------------------------------------------------------------------------------------------------- */

static void drop_items(struct stream *st)
{
    while (st->first) {
        struct item *item = st->first;
        st->first = item->next;
        free(item);
    }
    st->last = NULL;
    st->ready = 0;
    st->ready_bytes = 0;
}

static void stream_free(struct stream *st)
{
    mqsync_snapshot_close(&st->snapshot);
    drop_items(st);
    mqsync_address_free(&st->to);
    free(st->owner);
    free(st->user);
    free(st);
}

static uint64_t who_of(const struct stream *st)
{
    uint64_t client = XXH3_64bits(st->to.client_id, strlen(st->to.client_id));
    return XXH3_64bits_withSeed(st->query.collection, strlen(st->query.collection), client);
}

/* At the end of an answer, when its snapshot is not prepared any more. */
static void remember_cut(struct mqsync_streams *s, const struct stream *st)
{
    if (st->snapshot.cut_at)
        s->cut[who_of(st) % CUT_SLOTS] = (struct cut){who_of(st), st->snapshot.cut_at};
}

static bool continues_cut(const struct mqsync_streams *s, const struct stream *st)
{
    const struct cut *cut = &s->cut[who_of(st) % CUT_SLOTS];
    return st->query.has_since && cut->seq == st->query.since && cut->who == who_of(st);
}

/* Copies: the configuration may be replaced while the answer is on its way. */
static bool show_own(struct stream *st, const struct mqsync_request *r)
{
    st->owner = strdup(r->rules->owner);
    st->user = malloc(r->who.user.n);
    if (!st->owner || !st->user)
        return false;
    memcpy(st->user, r->who.user.p, r->who.user.n);
    st->query.owner = st->owner;
    st->query.user = (struct mqsync_slice){st->user, r->who.user.n};
    return true;
}

static struct stream *stream_alloc(struct mqsync_plugin *p, const struct mqsync_request *r)
{
    const struct mqsync_message *m = &r->message;
    struct mqsync_slice epoch = mqsync_slice_str(mqsync_store_epoch(p->store));
    struct stream *st = calloc(1, sizeof(*st));

    if (!st || !mqsync_address_copy(p, r, &st->to)) {
        free(st);
        return NULL;
    }
    memcpy(st->query.collection, m->collection.p, m->collection.n);
    st->query.has_since = m->has_since && (!m->epoch.p || mqsync_slice_equal(m->epoch, epoch));
    st->query.since = m->since;
    st->query.limit = m->has_limit ? m->limit : UINT64_MAX;
    st->query.continues = continues_cut(p->streams, st);
    st->query.page_always = m->type == MQSYNC_TYPE_SYNC || m->has_since;
    st->query.no_pages = m->type == MQSYNC_TYPE_SUBSCRIBE && m->no_sync;
    st->subscribed = st->query.count = m->type == MQSYNC_TYPE_SUBSCRIBE;
    st->follows = r->follows;
    st->socket = -1;
    if (mqsync_owner_reads_own(r) && !show_own(st, r)) {
        stream_free(st);
        return NULL;
    }
    return st;
}

static struct item *item_of(const struct mqsync_buf *message)
{
    struct item *item = message->failed ? NULL : malloc(sizeof(*item) + message->n);

    if (!item)
        return NULL;
    item->next = NULL;
    item->n = message->n;
    memcpy(item->bytes, message->p, message->n);
    return item;
}

static void append(struct stream *st, struct item *item)
{
    if (st->last)
        st->last->next = item;
    else
        st->first = item;
    st->last = item;
    st->ready++;
    st->ready_bytes += item->n;
}

/* The first of those that are ready. */
static struct item *take_out(struct stream *st)
{
    struct item *item = st->first;
    st->first = item->next;
    if (!st->first)
        st->last = NULL;
    st->ready--;
    st->ready_bytes -= item->n;
    return item;
}

static void put_back(struct stream *st, struct item *item)
{
    item->next = st->first;
    st->first = item;
    if (!st->last)
        st->last = item;
    st->ready++;
    st->ready_bytes += item->n;
}

static enum mqsync_code make_subscribed(struct stream *st, struct item **ret, struct mqsync_error *ret_error)
{
    const struct mqsync_snapshot *s = &st->snapshot;
    struct mqsync_buf message = {0};

    mqsync_subscribed_encode(&message, mqsync_slice_str(st->query.collection), s->records, s->seq,
                             mqsync_slice_str(mqsync_view_epoch(s->view)), st->follows);
    *ret = item_of(&message);
    mqsync_buf_free(&message);
    return *ret ? MQSYNC_OK : mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
}

/* The stream's next message, of an open snapshot; *ret NULL when there is none left. */
static enum mqsync_code next_item(struct stream *st, uint64_t walk_max, struct item **ret,
                                  struct mqsync_error *ret_error)
{
    enum mqsync_code code;

    *ret = NULL;
    if (st->subscribed) {
        code = make_subscribed(st, ret, ret_error);
        st->subscribed = false;
        return code;
    }
    if (st->snapshot.done)
        return MQSYNC_OK;
    code = mqsync_snapshot_page(&st->snapshot, walk_max, ret_error);
    if (code != MQSYNC_OK)
        return code;
    *ret = item_of(&st->snapshot.page.out);
    return *ret ? MQSYNC_OK : mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
}

static struct item *error_item(const struct stream *st, const struct mqsync_error *error)
{
    struct mqsync_buf message = {0};
    struct item *item;

    mqsync_error_encode(&message, error, mqsync_slice_str(st->query.collection), (struct mqsync_slice){0},
                        (struct mqsync_slice){0}, false, 0);
    item = item_of(&message);
    mqsync_buf_free(&message);
    return item;
}

/* --- the preparing thread: never calls the broker ----------------------------------------------------------------- */

/* Prepares one more message. Returns it, or NULL at the end, when the stream's snapshot is closed; or when there is
 * more to be counted before the first one: *ret_again. */
static struct item *prepare(struct mqsync_streams *s, struct stream *st, bool *ret_again)
{
    struct mqsync_error error = {0};
    struct mqsync_view *view;
    struct item *item = NULL;
    enum mqsync_code code = MQSYNC_OK;
    bool counted = false;

    if (!st->open) {
        code = mqsync_view_settled(s->store, SETTLE_MS, &view, &error);
        if (code == MQSYNC_OK)
            code = mqsync_snapshot_open(&st->snapshot, view, &st->query, UINT64_MAX, &error);
        st->open = true;
    }
    if (code == MQSYNC_OK)
        code = mqsync_snapshot_count(&st->snapshot, COUNT_AT_A_TIME, &counted, &error);
    *ret_again = code == MQSYNC_OK && !counted;
    if (*ret_again)
        return NULL;
    if (code == MQSYNC_OK)
        code = next_item(st, UINT64_MAX, &item, &error);
    if (code != MQSYNC_OK) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS1016", "an answer about %s was broken off: %s", st->query.collection,
                   error.text);
        st->error = error;
        st->broken = true;
        mqsync_snapshot_close(&st->snapshot);
    } else if (!item) {
        mqsync_snapshot_close(&st->snapshot);
    }
    return item;
}

static bool has_active(const struct mqsync_streams *s, const char *client_id)
{
    for (unsigned i = 0; i < s->active_n; i++)
        if (strcmp(s->active[i]->to.client_id, client_id) == 0)
            return true;
    return false;
}

/* Those that wait become active in their order, but one client's answers one after the other: however many it asks for
 * and does not read, it takes one place. */
static void activate(struct mqsync_streams *s)
{
    struct stream **at = &s->waiting, *before = NULL;

    while (*at && s->active_n < ACTIVE_MAX) {
        struct stream *st = *at;
        if (has_active(s, st->to.client_id)) {
            before = st;
            at = &st->next;
            continue;
        }
        *at = st->next;
        if (s->waiting_last == st)
            s->waiting_last = before;
        s->waiting_n--;
        s->active[s->active_n++] = st;
    }
}

static struct stream *pick(struct mqsync_streams *s, unsigned *turn)
{
    activate(s);
    for (unsigned i = 0; i < s->active_n; i++) {
        struct stream *st = s->active[(*turn + i) % s->active_n];
        if (!st->closed && (st->cancelled || (st->ready < AHEAD_PAGES && st->ready_bytes < AHEAD_BYTES))) {
            *turn = (*turn + i + 1) % s->active_n;
            return st;
        }
    }
    return NULL;
}

static void *prepare_all(void *argument)
{
    struct mqsync_streams *s = argument;
    unsigned turn = 0;

    mqsync_thread_own_files(s->dir);
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct stream *st = pick(s, &turn);
        struct item *item = NULL;
        bool again = false;
        if (!st) {
            pthread_cond_wait(&s->wake, &s->lock);
            continue;
        }
        if (st->cancelled) {
            mqsync_snapshot_close(&st->snapshot);
            st->closed = true;
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        item = prepare(s, st, &again);
        pthread_mutex_lock(&s->lock);
        st->closed = !item && !again;
        if (item && st->cancelled)
            free(item);
        else if (item)
            append(st, item);
    }
    for (unsigned i = 0; i < s->active_n; i++)
        mqsync_snapshot_close(&s->active[i]->snapshot);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* With every signal blocked: they are for the broker's thread. */
static bool start_thread(struct mqsync_streams *s)
{
    sigset_t all, before;

    if (s->started)
        return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->started = pthread_create(&s->thread, NULL, prepare_all, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return s->started;
}

/* --- the broker's thread ------------------------------------------------------------------------------------------ */

struct mqsync_streams *mqsync_streams_alloc(struct mqsync_store *store, const char *dir)
{
    struct mqsync_streams *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->store = store;
    s->dir = dir;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    return s;
}

void mqsync_streams_free(struct mqsync_streams *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    if (s->started)
        pthread_join(s->thread, NULL);
    for (unsigned i = 0; i < s->active_n; i++)
        stream_free(s->active[i]);
    while (s->waiting) {
        struct stream *st = s->waiting;
        s->waiting = st->next;
        stream_free(st);
    }
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

unsigned mqsync_streams_count(const struct mqsync_streams *s)
{
    return s->count;
}

/* Makes the whole answer on the broker's thread when that is little work: *ret_done. Otherwise st is as it was. */
static enum mqsync_code make_at_once(struct mqsync_plugin *p, struct stream *st, const struct limits *limits,
                                     bool *ret_done, struct mqsync_error *ret_error)
{
    struct mqsync_snapshot *s = &st->snapshot;
    bool subscribed = st->subscribed;
    struct mqsync_view *view;
    struct item *item = NULL;
    enum mqsync_code code;
    bool counted = false;

    *ret_done = false;
    code = mqsync_view_newest(p->store, &view, ret_error);
    if (code != MQSYNC_OK)
        return code;
    code = mqsync_snapshot_open(s, view, &st->query, limits->entries + 1, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_snapshot_count(s, limits->walked, &counted, ret_error);
    while (code == MQSYNC_OK && counted && s->total <= limits->entries && st->ready_bytes <= limits->bytes) {
        code = next_item(st, 2 * limits->walked, &item, ret_error);
        if (code != MQSYNC_OK || s->gave_up) {
            free(item);
            break;
        }
        *ret_done = !item;
        if (!item)
            break;
        append(st, item);
    }
    mqsync_snapshot_close(s);
    if (code == MQSYNC_CONFLICT) /* it is more work than it looked */
        code = MQSYNC_OK;
    if (*ret_done)
        remember_cut(p->streams, st);
    if (!*ret_done) {
        drop_items(st);
        st->subscribed = subscribed;
        *s = (struct mqsync_snapshot){0};
    }
    return code;
}

static unsigned waiting_of(const struct mqsync_streams *s, const char *client_id)
{
    unsigned n = 0;
    for (const struct stream *st = s->waiting; st; st = st->next)
        n += strcmp(st->to.client_id, client_id) == 0;
    return n;
}

static enum mqsync_code make_later(struct mqsync_streams *s, struct stream *st, const struct mosquitto *client,
                                   struct mqsync_error *ret_error)
{
    if (!start_thread(s))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the broker's host gives out no more threads");
    /* QoS 0, whatever the command's: then what is on its way is in the client's socket, where it shows (peer.h), and
     * not with PUBACKs that no plugin sees. TCP loses none, and an answer that its connection does not outlive is asked
     * for again. */
    st->to.qos = 0;
    st->socket = mqsync_peer_socket(client);
    pthread_mutex_lock(&s->lock);
    bool room = s->waiting_n < WAITING_MAX && waiting_of(s, st->to.client_id) < CLIENT_MAX;
    if (room) {
        if (s->waiting_last)
            s->waiting_last->next = st;
        else
            s->waiting = st;
        s->waiting_last = st;
        s->waiting_n++;
        s->count++;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    if (!room)
        return mqsync_fail(ret_error, MQSYNC_RATE_LIMIT_EXCEEDED, "too many long answers are waiting; ask again later");
    return MQSYNC_OK;
}

static void warn_without_ticks(struct mqsync_streams *s)
{
    if (s->warned)
        return;
    s->warned = true;
    mqsync_log(MQSYNC_LOG_WARNING, "MQS1010",
               "this broker does not call its plugins regularly (2.0.11 with per_listener_settings does not): long "
               "answers move on only while messages arrive");
}

enum mqsync_code mqsync_stream_answer(struct mqsync_plugin *p, const struct mqsync_request *r,
                                      struct mqsync_error *ret_error)
{
    bool ticks = mqsync_plugin_ticks(p, mqsync_monotonic_us());
    struct stream *st = r->client_id ? stream_alloc(p, r) : NULL;
    enum mqsync_code code;
    bool done;

    if (!r->client_id)
        return MQSYNC_OK;
    if (!st)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    code = make_at_once(p, st, &limits_of[!ticks], &done, ret_error);
    if (code == MQSYNC_OK && !done) {
        code = make_later(p->streams, st, r->event->client, ret_error);
        if (code == MQSYNC_OK && !ticks && mqsync_time_now() - p->started_ms > 2000)
            warn_without_ticks(p->streams);
        if (code == MQSYNC_OK)
            return MQSYNC_OK;
    }
    /* without one of its pages an answer that has an end would be a wrong one */
    for (const struct item *item = st->first; item && code == MQSYNC_OK; item = item->next)
        if (!mqsync_address_send(&st->to, (struct mqsync_slice){item->bytes, item->n}))
            code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    stream_free(st);
    return code;
}

/* Only a subscribe asks for a count. */
static bool concerns(const struct stream *st, const char *client_id, struct mqsync_slice collection)
{
    return strcmp(st->to.client_id, client_id) == 0 &&
           (collection.n == 0 ||
            (st->query.count && mqsync_slice_equal(collection, mqsync_slice_str(st->query.collection))));
}

void mqsync_streams_cancel(struct mqsync_streams *s, const char *client_id, struct mqsync_slice collection)
{
    if (s->count == 0)
        return;
    pthread_mutex_lock(&s->lock);
    struct stream **at = &s->waiting;
    s->waiting_last = NULL;
    while (*at) {
        struct stream *st = *at;
        if (concerns(st, client_id, collection)) {
            *at = st->next;
            stream_free(st);
            s->waiting_n--;
            s->count--;
        } else {
            s->waiting_last = st;
            at = &st->next;
        }
    }
    for (unsigned i = 0; i < s->active_n; i++) {
        if (!concerns(s->active[i], client_id, collection))
            continue;
        s->active[i]->cancelled = true;
        drop_items(s->active[i]);
    }
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static bool may_send(struct stream *st, int64_t now)
{
    if (now - st->behind_looked_us >= BEHIND_LOOK_US) {
        bool before = st->behind;
        st->behind_looked_us = now;
        st->behind = mqsync_peer_behind(st->socket);
        if (st->behind && !before)
            st->behind_since_us = now;
    }
    return !st->behind;
}

/* For a client that has not read for a minute. What it is told waits behind what it has not read. */
static void break_off(struct mqsync_streams *s, struct stream *st)
{
    struct mqsync_error error;

    mqsync_fail(&error, MQSYNC_RATE_LIMIT_EXCEEDED,
                "the answer was broken off: the client has not read for a minute; ask again with since");
    mqsync_log(MQSYNC_LOG_WARNING, "MQS1017", "client '%s' does not read its answer about %s: broken off",
               st->to.client_id, st->query.collection);
    drop_items(st);
    struct item *item = error_item(st, &error);
    if (item)
        mqsync_address_send(&st->to, (struct mqsync_slice){item->bytes, item->n});
    free(item);
    st->cancelled = true;
    pthread_cond_signal(&s->wake); /* the preparing thread gives its place to the next */
}

/* As often as it takes: a client that was told nothing would wait for the rest. */
static bool tell_broken(const struct stream *st)
{
    struct item *item = error_item(st, &st->error);
    bool told = item && mqsync_address_send(&st->to, (struct mqsync_slice){item->bytes, item->n});

    free(item);
    return told;
}

/* Sends one stream's messages until its window or the time is used up; returns how many. Called and returns with the
 * lock held. */
static unsigned send_stream(struct mqsync_streams *s, struct stream *st, const struct limits *limits, int64_t until)
{
    int64_t now = mqsync_monotonic_us();
    int64_t cost = WINDOW_US / limits->window_pages;
    unsigned sent = 0;

    /* Evenly where the calls come often, all that a window holds at once where they do not. */
    st->credit_us += now - st->looked_us;
    if (st->credit_us > WINDOW_US)
        st->credit_us = WINDOW_US;
    st->looked_us = now;
    while (st->first && st->credit_us >= cost && mqsync_monotonic_us() < until && may_send(st, now)) {
        struct item *item = take_out(st);
        st->credit_us -= cost;
        pthread_mutex_unlock(&s->lock);
        bool taken = mqsync_address_send(&st->to, (struct mqsync_slice){item->bytes, item->n});
        pthread_mutex_lock(&s->lock);
        if (!taken && !st->cancelled) { /* another time: the pages after it would be taken for all there is */
            put_back(st, item);
            break;
        }
        free(item);
        sent++;
    }
    if (st->closed && st->broken && !st->first && !st->cancelled)
        st->broken = !tell_broken(st);
    if (st->behind && !st->cancelled && now - st->behind_since_us > BEHIND_AT_MOST_US)
        break_off(s, st);
    return sent;
}

static void remove_finished(struct mqsync_streams *s)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < s->active_n; i++) {
        struct stream *st = s->active[i];
        if (st->closed && !st->first && (!st->broken || st->cancelled)) {
            remember_cut(s, st);
            stream_free(st);
            s->count--;
        } else {
            s->active[kept++] = st;
        }
    }
    s->active_n = kept;
}

void mqsync_streams_send(struct mqsync_plugin *p)
{
    struct mqsync_streams *s = p->streams;
    if (s->count == 0)
        return;

    int64_t now = mqsync_monotonic_us();
    const struct limits *limits = &limits_of[!mqsync_plugin_ticks(p, now)];
    pthread_mutex_lock(&s->lock);
    unsigned n = s->active_n, sent = 0;
    for (unsigned i = 0; i < n; i++)
        sent += send_stream(s, s->active[(s->next_first + i) % n], limits, now + limits->send_us);
    s->next_first++;
    remove_finished(s);
    if (sent || s->active_n < n)
        pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}
