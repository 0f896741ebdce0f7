/* SPDX-License-Identifier: BSD-3-Clause */
/* The bridge without its sockets: the input plays the clients, the broker with the plugin, the network and the clock.
 *
 * What is underneath is replaced at link time: server.h (sockets), upstream.h (the broker), the readers of store.h (the
 * database) and the clock. The broker here keeps records as the plugin does, as far as a bridge can tell: versions,
 * seqs, events, answers, pages. Events may be lost, answers late, connections gone at any moment.
 *
 * Held to: queues and books that add up after each step; each client sees an event once and in order; and when all has
 * come to rest, each subscriber holds what the broker holds. */
#include <time.h>

#include "bridge.h"
#include "exchange.h"
#include "fuzz.h"
#include "server.h"
#include "session.h"

int mqsync_fuzz_clock(clockid_t which, struct timespec *ret);

enum {
    CLIENTS = 6,
    COLLECTIONS = 3,
    RECORDS = 6,
    CHANGES_MAX = 600,
    PAGE = 3, /* entries in a page of the broker's */
    STEPS_MAX = 3000,
    QUEUE_BYTES = 2000,
};

/* --- the broker and its records ----------------------------------------------------------------------------------- */

struct change {
    unsigned record;
    uint64_t version, writer; /* the session's handle; 0: nobody of this bridge's */
    bool deletion;
};

struct row {
    uint64_t version, seq;
    unsigned padding;
    bool deleted;
};

struct collection {
    uint64_t seq;
    struct row rows[RECORDS];
    struct change changes[CHANGES_MAX + 1]; /* by seq */
};

struct mqsync_view {
    char epoch[33];
    struct collection collections[COLLECTIONS];
};

struct command {
    struct command *next;
    uint16_t mid;
    bool applied;
    struct mqsync_message m;
    struct mqsync_upstream_tag tag;
    uint64_t version, seq; /* what came of it */
    size_t collection;
    char name[MQSYNC_MAX_COLLECTION + 1];
    struct mqsync_buf text, scratch;
};

/* What travels from the broker to the bridge, in this order. */
struct packet {
    struct packet *next;
    enum { EVENT, FOLLOWED, ANSWER, ACKNOWLEDGEMENT } kind;
    size_t collection;
    unsigned record;
    bool whole; /* of an EVENT: the second one of its change; of FOLLOWED: whether there are such from now on */
    struct mqsync_upstream_tag tag;
    uint64_t mark;
    uint16_t mid;
    bool refused;
    struct mqsync_buf text;
};

struct replica {
    bool following, paging;
    bool full;    /* updates: full */
    bool path;    /* as /ws/{collection} has it */
    bool unknown; /* it was not told everything by its own wish */
    uint64_t seq;
    struct {
        uint64_t version;
        bool present;
    } rows[RECORDS];
};

struct mqsync_socket {
    struct mqsync_session *session; /* NULL: nobody is connected */
    bool app;                       /* has come by /ws/{collection} */
    bool paused, woken, killed;
    struct replica replicas[COLLECTIONS];
};

static struct {
    const uint8_t *in, *end;
    int64_t now_us, pump_at_us;
    bool up, refusing_to_send, has_database, honest;
    bool followed[COLLECTIONS];
    unsigned epoch;
    struct mqsync_view truth;
    struct command *commands, **commands_end;
    struct packet *packets, **packets_end;
    uint16_t mids;
    struct mqsync_upstream_handler handler;
    struct mqsync_bridge bridge;
    struct mqsync_socket sockets[CLIENTS];
    struct mqsync_config *configs[2];
} w;

static const char *const names[COLLECTIONS] = {"a", "bb", "c.c"};

static unsigned byte(void)
{
    return w.in < w.end ? *w.in++ : 0;
}

static size_t collection_of(struct mqsync_slice name)
{
    size_t i = 0;

    while (i < COLLECTIONS && !mqsync_slice_equal(name, mqsync_slice_str(names[i])))
        i++;
    return i;
}

static unsigned record_of(struct mqsync_slice id)
{
    return id.n == 2 && id.p[0] == 'r' && id.p[1] >= '0' && id.p[1] < '0' + RECORDS ? (unsigned)(id.p[1] - '0')
                                                                                    : RECORDS;
}

static void write_id(char id[3], unsigned record)
{
    id[0] = 'r';
    id[1] = (char)('0' + record);
    id[2] = '\0';
}

static void write_data(struct mqsync_buf *out, const struct row *r)
{
    mqsync_buf_clear(out);
    mqsync_buf_add_str(out, "{\"v\":");
    mqsync_buf_add_u64(out, r->version);
    mqsync_buf_add_str(out, ",\"x\":\"");
    for (unsigned i = 0; i < r->padding; i++)
        mqsync_buf_add_str(out, "xxxxxxxx");
    mqsync_buf_add_str(out, "\"}");
}

static void start_epoch(void)
{
    memset(&w.truth, 0, sizeof(w.truth));
    snprintf(w.truth.epoch, sizeof(w.truth.epoch), "%032x", ++w.epoch);
}

static struct packet *send_packet(int kind)
{
    struct packet *p = calloc(1, sizeof(*p));

    CHECK(p);
    p->kind = kind;
    *w.packets_end = p;
    w.packets_end = &p->next;
    return p;
}

static void send_answer(const struct command *c, struct mqsync_buf *text)
{
    struct packet *p = send_packet(ANSWER);

    p->tag = c->tag;
    p->text = *text;
    *text = (struct mqsync_buf){0};
}

/* A change, and its event when it is to be announced. */
static void change(size_t at, unsigned record, enum mqsync_op op, uint64_t writer, uint64_t mark, bool announced)
{
    struct collection *c = &w.truth.collections[at];
    struct row *r = &c->rows[record];
    struct mqsync_buf data = {0};
    char id[3];
    struct mqsync_event e = {.op = op, .collection = mqsync_slice_str(names[at]), .record_id = {id, 2}};

    if (op == MQSYNC_UPDATE && (r->version == 0 || r->deleted))
        e.op = MQSYNC_INSERT;
    write_id(id, record);
    r->version++;
    r->seq = ++c->seq;
    r->padding = byte() % 64;
    r->deleted = op == MQSYNC_DELETE;
    c->changes[r->seq] = (struct change){record, r->version, writer, r->deleted};
    write_data(&data, r);
    if (!r->deleted)
        e.data = mqsync_buf_slice(&data);
    e.timestamp_ms = (int64_t)r->seq;
    e.version = r->version;
    e.seq = r->seq;
    for (unsigned i = 0, n = w.followed[at] ? 2 : 1; announced && i < n; i++) {
        struct packet *p = send_packet(EVENT);
        p->collection = at;
        p->record = record;
        p->whole = i;
        p->mark = i ? 0 : mark;
        mqsync_event_encode(&p->text, &e);
    }
    mqsync_buf_free(&data);
}

static void answer_error(struct command *c, enum mqsync_code code, const char *text)
{
    struct mqsync_error e;
    struct mqsync_buf out = {0};

    mqsync_fail(&e, code, "%s", text);
    mqsync_error_encode(&out, &e, c->m.collection, c->m.record_id, c->m.mutation_id, false, 0);
    send_answer(c, &out);
}

static void send_page(struct command *c, struct mqsync_page *page, uint64_t seq, bool full, bool more)
{
    mqsync_page_end(page, 1, seq, mqsync_slice_str(w.truth.epoch), full, more, 1);
    send_answer(c, &page->out);
    mqsync_page_free(page);
}

static void answer_pages(struct command *c, struct mqsync_slice name)
{
    const struct collection *from = &w.truth.collections[c->collection];
    bool full = !c->m.has_since || c->m.since > from->seq ||
                (c->m.epoch.n && !mqsync_slice_equal(c->m.epoch, mqsync_slice_str(w.truth.epoch)));
    uint64_t left = c->m.has_limit ? c->m.limit : UINT64_MAX;
    struct mqsync_page page = {0};
    struct mqsync_buf data = {0};
    uint64_t reached = full ? 0 : c->m.since;
    char id[3];

    mqsync_page_begin(&page, name);
    for (uint64_t seq = reached + 1; seq <= from->seq && left > 0; seq++) {
        const struct row *r = &from->rows[from->changes[seq].record];
        if (r->seq != seq || (full && r->deleted))
            continue;
        if (page.records_n + page.deleted_n == PAGE) {
            send_page(c, &page, reached, full, true);
            mqsync_page_begin(&page, name);
        }
        write_id(id, from->changes[seq].record);
        write_data(&data, r);
        mqsync_page_add(&page, (struct mqsync_slice){id, 2}, mqsync_buf_slice(&data), r->version, (int64_t)seq,
                        r->deleted);
        reached = seq;
        left--;
    }
    send_page(c, &page, left > 0 ? from->seq : reached, full, left == 0);
    mqsync_buf_free(&data);
}

static void answer_question(struct command *c)
{
    const struct collection *from = c->collection < COLLECTIONS ? &w.truth.collections[c->collection] : NULL;
    struct mqsync_slice name = from ? mqsync_slice_str(names[c->collection]) : MQSYNC_SLICE("_");
    struct mqsync_buf out = {0};
    uint64_t records = 0;

    if (c->m.type == MQSYNC_TYPE_SUBSCRIBE) {
        for (unsigned i = 0; from && i < RECORDS; i++)
            records += from->rows[i].version && !from->rows[i].deleted;
        mqsync_subscribed_encode(&out, name, records, from ? from->seq : 0, mqsync_slice_str(w.truth.epoch), false);
        send_answer(c, &out);
        if (c->m.no_sync || (records == 0 && !c->m.has_since))
            return;
    }
    if (from)
        answer_pages(c, name);
}

static bool carry_out_write(struct command *c, bool announced)
{
    unsigned record = record_of(c->m.record_id);
    struct row *r =
        c->collection < COLLECTIONS && record < RECORDS ? &w.truth.collections[c->collection].rows[record] : NULL;
    enum mqsync_op op = c->m.type == MQSYNC_TYPE_DELETE   ? MQSYNC_DELETE
                        : c->m.type == MQSYNC_TYPE_INSERT ? MQSYNC_INSERT
                                                          : MQSYNC_UPDATE;

    if (!r || w.truth.collections[c->collection].seq >= CHANGES_MAX ||
        (op != MQSYNC_INSERT && !c->applied && (r->version == 0 || r->deleted))) {
        answer_error(c, MQSYNC_RECORD_NOT_FOUND, "no");
        return false;
    }
    if (!c->applied) {
        if (op == MQSYNC_INSERT && r->version && !r->deleted)
            op = MQSYNC_UPDATE;
        change(c->collection, record, op, c->tag.sender, c->tag.mark, announced);
        c->applied = true;
        c->version = r->version;
        c->seq = r->seq;
    }
    if (c->m.mutation_id.n) {
        struct mqsync_buf out = {0};
        mqsync_ack_encode(&out, c->m.collection, c->m.record_id, c->m.mutation_id, c->version, c->seq, false);
        send_answer(c, &out);
    }
    return true;
}

static bool is_to_follow(const struct command *c)
{
    return c->tag.question == MQSYNC_UPSTREAM_FOLLOW;
}

static void follow(const struct command *c)
{
    struct packet *p = send_packet(FOLLOWED);

    p->collection = c->collection;
    p->whole = c->m.full_updates;
    p->mid = c->mid;
    if (c->collection < COLLECTIONS)
        w.followed[c->collection] = c->m.full_updates;
}

/* Its answers go out; the acknowledgement before or after them. */
static void carry_out(struct command *c, bool announced, unsigned how)
{
    bool first = how & 1, refused = false;
    struct packet *acknowledgement = NULL;

    if (is_to_follow(c)) {
        follow(c);
        return;
    }
    if (first)
        acknowledgement = send_packet(ACKNOWLEDGEMENT);
    if (how % 16 == 15)
        refused = true; /* by the broker's own rules: no answer */
    else if (c->m.type == MQSYNC_TYPE_SUBSCRIBE || c->m.type == MQSYNC_TYPE_SYNC)
        answer_question(c);
    else
        refused = !carry_out_write(c, announced);
    if (!first)
        acknowledgement = send_packet(ACKNOWLEDGEMENT);
    acknowledgement->mid = c->mid;
    acknowledgement->refused = refused;
}

static void free_command(struct command *c)
{
    mqsync_buf_free(&c->text);
    mqsync_buf_free(&c->scratch);
    free(c);
}

static void forget_command(uint16_t mid)
{
    for (struct command **at = &w.commands, *c; (c = *at); at = &c->next) {
        if (c->mid != mid)
            continue;
        *at = c->next;
        if (!*at)
            w.commands_end = at;
        free_command(c);
        return;
    }
}

static struct packet *take_packet(void)
{
    struct packet *p = w.packets;

    w.packets = p->next;
    if (!w.packets)
        w.packets_end = &w.packets;
    return p;
}

static void free_packet(struct packet *p)
{
    mqsync_buf_free(&p->text);
    free(p);
}

static void deliver(void)
{
    struct packet *p = take_packet();
    struct mqsync_upstream_event e = {.payload = mqsync_buf_slice(&p->text), .mark = p->mark, .whole = p->whole};
    char id[3];

    write_id(id, p->record);
    if (p->kind == EVENT) {
        e.collection = mqsync_slice_str(names[p->collection]);
        e.record_id = (struct mqsync_slice){id, 2};
        w.handler.event(w.handler.context, &e);
    } else if (p->kind == FOLLOWED) {
        forget_command(p->mid);
        if (p->collection < COLLECTIONS)
            w.handler.followed(w.handler.context, mqsync_slice_str(names[p->collection]), p->whole);
    } else if (p->kind == ANSWER) {
        w.handler.answer(w.handler.context, &p->tag, e.payload);
    } else {
        forget_command(p->mid);
        w.handler.acknowledged(w.handler.context, p->mid, p->refused);
    }
    free_packet(p);
}

static void lose_broker(void)
{
    w.up = false;
    memset(w.followed, 0, sizeof(w.followed));
    while (w.packets)
        free_packet(take_packet());
    for (struct command *c = w.commands, *next; c; c = next) { /* at QoS 0 nothing is sent again */
        next = c->next;
        if (is_to_follow(c))
            forget_command(c->mid);
    }
    w.handler.down(w.handler.context);
}

/* What was not acknowledged is sent again before the subscription is back, so that its events are not seen. */
static void find_broker(void)
{
    for (struct command *c = w.commands; c; c = c->next)
        carry_out(c, false, byte() & 1);
    w.up = true;
    w.handler.up(w.handler.context);
}

/* --- upstream.h --------------------------------------------------------------------------------------------------- */

bool mqsync_upstream_is_up(const struct mqsync_upstream *u)
{
    (void)u;
    return w.up;
}

void mqsync_upstream_tick(struct mqsync_upstream *u, int64_t now_ms)
{
    (void)u;
    (void)now_ms;
}

/* Of the short form, whose payload the bridge passes on unread. */
static void read_short_form(struct command *kept, const struct mqsync_upstream_command *c)
{
    static const enum mqsync_type types[] = {MQSYNC_TYPE_INSERT, MQSYNC_TYPE_UPDATE, MQSYNC_TYPE_DELETE};

    CHECK(mqsync_record_id_valid(c->record_id) && c->op <= MQSYNC_DELETE);
    mqsync_buf_add_slice(&kept->scratch, c->record_id);
    kept->m = (struct mqsync_message){.type = types[c->op],
                                      .collection = mqsync_slice_str(kept->name),
                                      .record_id = mqsync_buf_slice(&kept->scratch)};
}

enum mqsync_code mqsync_upstream_command(struct mqsync_upstream *u, const struct mqsync_upstream_command *c,
                                         uint16_t *ret_mid)
{
    struct command *kept;
    struct mqsync_error e;

    (void)u;
    if (!w.up || w.refusing_to_send)
        return MQSYNC_SERVER_ERROR;
    kept = calloc(1, sizeof(*kept));
    CHECK(kept);
    kept->tag = c->tag;
    mqsync_buf_add_slice(&kept->text, c->payload);
    kept->collection = collection_of(c->collection);
    kept->mid = ++w.mids ? w.mids : ++w.mids;
    CHECK(mqsync_collection_valid(c->collection));
    memcpy(kept->name, c->collection.p, c->collection.n);
    if (c->record_id.n)
        read_short_form(kept, c);
    else
        CHECK(mqsync_message_decode(mqsync_buf_slice(&kept->text), mqsync_slice_str(kept->name), &kept->scratch,
                                    &kept->m, &e) == MQSYNC_OK);
    *w.commands_end = kept;
    w.commands_end = &kept->next;
    *ret_mid = kept->mid;
    return MQSYNC_OK;
}

/* --- the database: store.h ---------------------------------------------------------------------------------------- */

struct mqsync_walk {
    const struct mqsync_view *view;
    const struct collection *collection;
    uint64_t seq;
    struct mqsync_buf data;
    char id[3];
};

enum mqsync_code mqsync_reader_open(const char *dir, struct mqsync_reader **ret, struct mqsync_error *ret_error)
{
    (void)dir;
    if (!w.has_database)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "none");
    *ret = (struct mqsync_reader *)&w;
    return MQSYNC_OK;
}

void mqsync_reader_close(struct mqsync_reader *r)
{
    (void)r;
}

enum mqsync_code mqsync_reader_view(struct mqsync_reader *r, struct mqsync_view **ret, struct mqsync_error *ret_error)
{
    struct mqsync_view *v = w.has_database ? malloc(sizeof(*v)) : NULL;

    (void)r;
    if (!v)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "none");
    *v = w.truth;
    if (!w.honest)
        v->epoch[0] = 'f';
    *ret = v;
    return MQSYNC_OK;
}

void mqsync_view_close(struct mqsync_view *v)
{
    free(v);
}

const char *mqsync_view_epoch(const struct mqsync_view *v)
{
    return v->epoch;
}

bool mqsync_view_collection(struct mqsync_view *v, struct mqsync_slice name, struct mqsync_collection_stat *ret)
{
    size_t i = collection_of(name);

    *ret = (struct mqsync_collection_stat){.name = name};
    if (i == COLLECTIONS || v->collections[i].seq == 0)
        return false;
    ret->seq = v->collections[i].seq;
    for (unsigned k = 0; k < RECORDS; k++) {
        ret->records += v->collections[i].rows[k].version && !v->collections[i].rows[k].deleted;
        ret->tombstones += v->collections[i].rows[k].deleted;
    }
    return true;
}

enum mqsync_code mqsync_view_get(struct mqsync_view *v, struct mqsync_slice collection, struct mqsync_slice id,
                                 struct mqsync_record *ret, struct mqsync_error *ret_error)
{
    (void)v;
    (void)collection;
    (void)id;
    (void)ret;
    return mqsync_fail(ret_error, MQSYNC_RECORD_NOT_FOUND, "asked for by HTTP alone");
}

enum mqsync_code mqsync_walk_changes(struct mqsync_view *v, struct mqsync_slice collection, uint64_t since,
                                     struct mqsync_walk **ret, struct mqsync_error *ret_error)
{
    size_t i = collection_of(collection);

    if (i == COLLECTIONS)
        return mqsync_fail(ret_error, MQSYNC_RECORD_NOT_FOUND, "none");
    *ret = calloc(1, sizeof(**ret));
    CHECK(*ret);
    (*ret)->view = v;
    (*ret)->collection = &v->collections[i];
    (*ret)->seq = since;
    return MQSYNC_OK;
}

enum mqsync_code mqsync_walk_next(struct mqsync_walk *walk, struct mqsync_slice *ret_id, struct mqsync_record *ret,
                                  struct mqsync_error *ret_error)
{
    const struct collection *c = walk->collection;

    while (++walk->seq <= c->seq) {
        unsigned record = c->changes[walk->seq].record;
        const struct row *r = &c->rows[record];
        if (r->seq != walk->seq)
            continue;
        write_id(walk->id, record);
        write_data(&walk->data, r);
        *ret_id = (struct mqsync_slice){walk->id, 2};
        *ret = (struct mqsync_record){
            .version = r->version, .seq = r->seq, .updated_ms = (int64_t)r->seq, .deleted = r->deleted};
        if (!r->deleted)
            ret->data = mqsync_buf_slice(&walk->data);
        for (uint64_t seq = 1; seq <= r->seq; seq++) {
            if (c->changes[seq].record != record || (seq % 3 == 0 && seq < r->seq))
                continue; /* the plugin does not remember all of them */
            if (ret->history_n == MQSYNC_HISTORY_MAX)
                memmove(&ret->history[0], &ret->history[1], sizeof(ret->history[0]) * --ret->history_n);
            ret->history[ret->history_n++] = (struct mqsync_change){.version = c->changes[seq].version,
                                                                    .seq = seq,
                                                                    .arrived_ms = (int64_t)seq * 3000,
                                                                    .created = c->changes[seq].version == 1};
        }
        return MQSYNC_OK;
    }
    return mqsync_fail(ret_error, MQSYNC_RECORD_NOT_FOUND, "the end");
}

uint64_t mqsync_walk_count(struct mqsync_walk *walk, uint64_t max)
{
    const struct collection *c = walk->collection;
    uint64_t n = 0;

    for (uint64_t seq = walk->seq + 1; seq <= c->seq && n < max; seq++)
        n += c->rows[c->changes[seq].record].seq == seq;
    return n;
}

void mqsync_walk_close(struct mqsync_walk *walk)
{
    if (walk)
        mqsync_buf_free(&walk->data);
    free(walk);
}

/* --- server.h, the log, the clock --------------------------------------------------------------------------------- */

int mqsync_fuzz_clock(clockid_t which, struct timespec *ret)
{
    (void)which;
    w.now_us += 5; /* whoever asks has used some */
    ret->tv_sec = w.now_us / 1000000;
    ret->tv_nsec = w.now_us % 1000000 * 1000;
    return 0;
}

void mqsync_log(enum mqsync_log_level level, const char *id, const char *fmt, ...)
{
    (void)level;
    (void)id;
    (void)fmt;
}

void mqsync_server_watch_upstream(struct mqsync_server *s, int fd, bool write)
{
    (void)s;
    (void)fd;
    (void)write;
}

void mqsync_server_turn_over(struct mqsync_server *s)
{
    (void)s;
}

void mqsync_server_pump_in(struct mqsync_server *s, int64_t us)
{
    (void)s;
    if (w.now_us + us < w.pump_at_us)
        w.pump_at_us = w.now_us + us;
}

void mqsync_socket_wake(struct mqsync_socket *s)
{
    s->woken = true;
}

void mqsync_socket_pause(struct mqsync_socket *s, bool pause)
{
    CHECK(s->paused != pause);
    s->paused = pause;
}

void mqsync_socket_kill(struct mqsync_socket *s)
{
    s->killed = true;
}

void mqsync_exchange_wake(struct mqsync_exchange *x)
{
    (void)x; /* nobody comes by HTTP here: fuzz_http is for them */
}

int64_t mqsync_socket_silent_ms(struct mqsync_socket *s)
{
    (void)s;
    return 0;
}

/* --- the clients -------------------------------------------------------------------------------------------------- */

static struct mqsync_slice member(struct mqsync_slice object, const char *name)
{
    struct mqsync_slice value = {0};

    if (object.n && mqsync_json_typeof(object) == MQSYNC_JSON_OBJECT)
        mqsync_json_find(object, mqsync_slice_str(name), &value);
    return value;
}

static struct mqsync_slice text_member(struct mqsync_slice object, const char *name)
{
    struct mqsync_slice value = member(object, name);
    return value.n >= 2 && *value.p == '"' ? (struct mqsync_slice){value.p + 1, value.n - 2} : (struct mqsync_slice){0};
}

static uint64_t number_member(struct mqsync_slice object, const char *name)
{
    uint64_t n = 0;
    struct mqsync_slice value = member(object, name);

    if (value.n)
        CHECK(mqsync_json_to_u64(value, &n));
    return n;
}

static bool is(struct mqsync_slice text, const char *what)
{
    return mqsync_slice_equal(text, mqsync_slice_str(what));
}

/* Whether the client has made all of a record's versions between the two itself, and so was not told of them. Of what
 * was before a deletion it need not have known. */
static bool own_between(const struct mqsync_socket *s, size_t collection, unsigned record, uint64_t after,
                        uint64_t before)
{
    const struct collection *c = &w.truth.collections[collection];
    bool own = true;

    for (uint64_t seq = 1; seq <= c->seq; seq++) {
        const struct change *one = &c->changes[seq];
        if (one->record == record && one->version > after && one->version < before)
            own = one->deletion || (own && one->writer == s->session->handle);
    }
    return own;
}

static void take_event(struct mqsync_socket *s, struct replica *r, size_t collection, struct mqsync_slice m)
{
    struct mqsync_slice metadata = member(m, "metadata");
    unsigned record = record_of(text_member(m, "recordId"));
    uint64_t version = number_member(metadata, "version"), seq = number_member(metadata, "seq");

    CHECK(r->following && record < RECORDS);
    if (!r->full && !r->unknown) {
        CHECK(seq > r->seq);
        CHECK(version > r->rows[record].version &&
              own_between(s, collection, record, r->rows[record].version, version));
    }
    if (!r->full)
        r->seq = seq;
    r->rows[record].version = version;
    r->rows[record].present = !is(text_member(m, "type"), "delete");
}

static void take_entries(struct replica *r, struct mqsync_slice array, bool present)
{
    struct mqsync_json_iter it;
    struct mqsync_slice entry;

    if (!array.n)
        return;
    it = mqsync_json_elements(array);
    while (mqsync_json_next_element(&it, &entry)) {
        unsigned record = record_of(text_member(entry, "id"));
        CHECK(record < RECORDS);
        r->rows[record].version = number_member(entry, "version");
        r->rows[record].present = present;
    }
}

static void take_page(struct replica *r, struct mqsync_slice m)
{
    struct mqsync_slice metadata = member(m, "metadata"), data = member(m, "data");

    CHECK(data.n);
    /* records that are gone with their epoch stay with clients who drop nothing by themselves */
    r->unknown |= r->full && !is(text_member(metadata, "epoch"), w.truth.epoch);
    if (mqsync_json_typeof(member(metadata, "full")) == MQSYNC_JSON_TRUE && !r->paging && !r->path)
        memset(r->rows, 0, sizeof(r->rows));
    take_entries(r, member(data, "records"), true);
    take_entries(r, member(data, "deleted"), false);
    r->paging = mqsync_json_typeof(member(metadata, "more")) == MQSYNC_JSON_TRUE;
    r->seq = number_member(metadata, "seq");
}

static void take_message(struct mqsync_socket *s, struct mqsync_slice m)
{
    struct mqsync_slice type, name;
    size_t collection;
    struct replica *r;

    CHECK(mqsync_json_check(m, NULL, NULL) == MQSYNC_OK && mqsync_json_typeof(m) == MQSYNC_JSON_OBJECT);
    type = text_member(m, "type");
    name = is(type, "error") ? text_member(member(m, "metadata"), "collection") : text_member(m, "collection");
    collection = collection_of(name);
    if (collection == COLLECTIONS)
        return;
    r = &s->replicas[collection];
    if (is(type, "insert") || is(type, "update") || is(type, "delete")) {
        take_event(s, r, collection, m);
    } else if (is(type, "sync")) {
        take_page(r, m);
    } else if (is(type, "subscribed")) {
        if (!r->path)
            memset(r->rows, 0, sizeof(r->rows));
        r->following = true;
        r->paging = false;
        r->unknown |= r->full && !is(text_member(member(m, "metadata"), "epoch"), w.truth.epoch);
        r->seq = number_member(member(m, "metadata"), "seq");
    } else if (is(type, "unsubscribed") || (is(type, "error") && is(text_member(m, "code"), "UNAUTHORIZED") &&
                                            !member(member(m, "metadata"), "recordId").n)) {
        r->following = r->path = false;
    }
    CHECK(member(m, "data").n == 0 || is(type, "insert") || is(type, "update") || is(type, "sync"));
}

static void hang_up(struct mqsync_socket *s)
{
    mqsync_session_close(s->session);
    memset(s, 0, sizeof(*s));
}

static void write_to(struct mqsync_socket *s, unsigned messages)
{
    for (; messages > 0; messages--) {
        uint16_t code;
        const char *reason;
        struct mqsync_frame *f = mqsync_session_next(s->session, &code, &reason);
        if (f)
            take_message(s, (struct mqsync_slice){(const char *)f->text, f->n});
        mqsync_frame_unref(f);
        if (code) {
            CHECK(reason);
            hang_up(s);
            return;
        }
        if (!f)
            break;
    }
    s->woken = s->session->queue.n > 0;
}

static void call(struct mqsync_socket *s, unsigned how)
{
    static const char *const paths[] = {NULL, "a", "a,bb", "bb,bb,nowhere", "a,bb,c.c"};
    const char *path = paths[how % 5];

    memset(s, 0, sizeof(*s));
    s->session = mqsync_session_open(&w.bridge, s, "::1", path, (struct mqsync_slice){0});
    CHECK(s->session);
    s->app = path;
    for (size_t i = 0; path && i < COLLECTIONS; i++)
        s->replicas[i].full = s->replicas[i].path = strstr(path, names[i]) != NULL;
}

static void say(struct mqsync_socket *s, struct mqsync_slice text)
{
    /* from a buffer of its own, so that a read past it is seen */
    char *copy = malloc(text.n + 1);

    CHECK(copy);
    if (text.n)
        memcpy(copy, text.p, text.n);
    mqsync_session_heard(s->session, w.now_us / 1000);
    mqsync_session_receive(s->session, (struct mqsync_slice){copy, text.n});
    free(copy);
}

#define say_formatted(s, ...)                                                                                          \
    do {                                                                                                               \
        char text_[400];                                                                                               \
        int n_ = snprintf(text_, sizeof(text_), __VA_ARGS__);                                                          \
        CHECK(n_ > 0 && (size_t)n_ < sizeof(text_));                                                                   \
        say((s), (struct mqsync_slice){text_, (size_t)n_});                                                            \
    } while (0)

static void say_subscribe(struct mqsync_socket *s, size_t collection, unsigned how)
{
    struct replica *r = &s->replicas[collection];
    const char *name = names[collection];

    if (r->path) {
        say_formatted(s, "{\"type\":\"subscribe\",\"collection\":\"%s\"}", name);
        return;
    }
    r->full = how & 1;
    r->unknown |= s->app; /* it depends on whether an unsubscribe has been answered meanwhile */
    if (how % 4 < 2) {
        say_formatted(s, "{\"type\":\"subscribe\",\"collection\":\"%s\",\"metadata\":{\"updates\":\"%s\"}}", name,
                      r->full ? "full" : "delta");
        return;
    }
    r->unknown = true;
    say_formatted(
        s, "{\"type\":\"subscribe\",\"collection\":\"%s\",\"metadata\":{\"since\":%u,\"sync\":%s,\"updates\":\"%s\"}}",
        name, byte(), how & 8 ? "false" : "true", r->full ? "full" : "delta");
}

static void say_write(struct mqsync_socket *s, size_t collection, unsigned how)
{
    static const char *const types[] = {"insert", "insert", "update", "update", "update", "delete"};
    const char *type = types[how % 6];

    say_formatted(s, "{\"type\":\"%s\",\"collection\":\"%s\",\"recordId\":\"r%u\"%s%s}", type, names[collection],
                  how / 6 % (RECORDS + 1), *type == 'd' ? "" : ",\"data\":{\"a\":1}",
                  how & 128 ? ",\"metadata\":{\"mutationId\":\"m\"}" : "");
}

/* A message of the input's own. What it makes of its subscriptions nobody can tell. */
static void say_anything(struct mqsync_socket *s)
{
    size_t n = byte();

    if (n > (size_t)(w.end - w.in))
        n = (size_t)(w.end - w.in);
    for (size_t i = 0; i < COLLECTIONS; i++)
        s->replicas[i].unknown = s->replicas[i].full = true;
    say(s, (struct mqsync_slice){(const char *)w.in, n});
    w.in += n;
}

static void say_something(struct mqsync_socket *s, unsigned how)
{
    size_t collection = byte() % COLLECTIONS;

    if (s->paused)
        return;
    switch (how % 8) {
    case 0:
    case 1:
        say_subscribe(s, collection, byte());
        break;
    case 2:
        say_formatted(s, "{\"type\":\"unsubscribe\",\"collection\":\"%s\"}", names[collection]);
        break;
    case 3:
        s->replicas[collection].unknown = true;
        say_formatted(s, "{\"type\":\"sync\",\"collection\":\"%s\",\"metadata\":{\"since\":%u,\"limit\":%u}}",
                      names[collection], byte(), byte());
        break;
    case 4:
        say_anything(s);
        break;
    case 5:
        if (byte() % 4 == 0)
            mqsync_session_receive_too_long(s->session, 1);
        else
            mqsync_session_receive_binary(s->session);
        break;
    default:
        say_write(s, collection, byte());
        break;
    }
}

/* --- what must hold ----------------------------------------------------------------------------------------------- */

static void check_session(const struct mqsync_session *s)
{
    size_t bytes = 0, events = 0;

    for (uint32_t i = 0; i < s->queue.n; i++) {
        const struct mqsync_frame *f = s->queue.v[(s->queue.first + i) & (s->queue.cap - 1)];
        bytes += f->n;
        events += f->channel ? f->n : 0;
    }
    CHECK(bytes == s->queue.bytes);
    CHECK(events <= QUEUE_BYTES);
    for (const struct mqsync_feed *f = s->feeds; f; f = f->next) {
        CHECK(f->held.bytes <= QUEUE_BYTES);
        CHECK(!(f->live && (f->turn.waiting || f->asked)));
        CHECK(!f->subscription || f->channel->feeds[f->place] == f);
    }
}

static void check_books(void)
{
    size_t connections = 0, subscriptions = 0, hungry = 0, in_turn = 0;
    unsigned asked = 0;

    for (const struct mqsync_session *s = w.bridge.sessions; s; s = s->next) {
        connections++;
        check_session(s);
        for (const struct mqsync_feed *f = s->feeds; f; f = f->next) {
            subscriptions += f->subscription;
            asked += f->asked;
            hungry += f->turn.waiting;
        }
    }
    for (const struct mqsync_turn *t = w.bridge.feeds.hungry.first; t; t = t->next)
        in_turn++;
    CHECK(connections == w.bridge.metrics.connections && subscriptions == w.bridge.metrics.subscriptions);
    CHECK(asked == w.bridge.questions.open && hungry == in_turn);
}

static void pump(void)
{
    if (w.pump_at_us == INT64_MAX)
        return;
    if (w.now_us < w.pump_at_us)
        w.now_us = w.pump_at_us;
    w.pump_at_us = INT64_MAX;
    mqsync_feeds_pump(&w.bridge);
}

static void check_replicas(void)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        const struct mqsync_socket *s = &w.sockets[i];
        for (size_t k = 0; s->session && k < COLLECTIONS; k++) {
            const struct replica *r = &s->replicas[k];
            for (unsigned record = 0; r->following && !r->unknown && record < RECORDS; record++) {
                const struct row *true_row = &w.truth.collections[k].rows[record];
                bool present = true_row->version && !true_row->deleted;
                CHECK(own_between(s, k, record, r->rows[record].version, true_row->version + 1) ||
                      (!present && !r->rows[record].present));
                CHECK(present || !r->rows[record].present ||
                      w.truth.collections[k].changes[true_row->seq].writer == s->session->handle);
                CHECK(r->rows[record].version <= true_row->version);
                CHECK(r->rows[record].version != true_row->version || r->rows[record].present == present);
            }
        }
    }
}

/* Nothing new happens until everybody has everything. */
static void come_to_rest(void)
{
    w.refusing_to_send = false;
    if (!w.up)
        find_broker();
    for (size_t i = 0; i < COLLECTIONS; i++)
        if (w.truth.collections[i].seq < CHANGES_MAX)
            change(i, 0, MQSYNC_INSERT, 0, 0, true);
    for (int round = 0; round < 40; round++) {
        for (struct command *c = w.commands, *next; c; c = next) {
            next = c->next;
            if (!c->version)
                carry_out(c, true, 0);
            c->version = 1; /* once */
        }
        while (w.packets)
            deliver();
        for (size_t i = 0; i < CLIENTS; i++)
            if (w.sockets[i].session)
                write_to(&w.sockets[i], UINT32_MAX);
        pump();
        w.now_us += 1000000;
        mqsync_bridge_tick(&w.bridge);
        check_books();
    }
    check_replicas();
}

/* --- the play ----------------------------------------------------------------------------------------------------- */

static void reconfigure(unsigned which)
{
    w.bridge.config = w.configs[which % 2];
    for (struct mqsync_session *s = w.bridge.sessions; s; s = s->next)
        mqsync_session_recheck(s);
}

static void lose_records(void)
{
    lose_broker();
    start_epoch();
    for (size_t i = 0; i < CLIENTS; i++)
        for (size_t k = 0; k < COLLECTIONS; k++)
            w.sockets[i].replicas[k].unknown |= w.sockets[i].replicas[k].path || w.sockets[i].replicas[k].full;
    for (struct command *c = w.commands; c; c = c->next)
        c->applied = false;
}

static void anything_from_broker(void)
{
    struct mqsync_upstream_tag tag = {w.sockets[byte() % CLIENTS].session ? byte() : 0, byte(), byte() - 1U};
    size_t n = byte();
    char *copy;

    if (n > (size_t)(w.end - w.in))
        n = (size_t)(w.end - w.in);
    copy = malloc(n + 1);
    CHECK(copy);
    memcpy(copy, w.in, n);
    w.in += n;
    w.handler.answer(w.handler.context, &tag, (struct mqsync_slice){copy, n});
    w.handler.acknowledged(w.handler.context, (uint16_t)(byte() | 0xFF00U), byte() & 1);
    free(copy);
}

static void somebody_dies(unsigned how)
{
    static const char *const topics[] = {
        "s/a/cmd",           "s/bb/cmd",          "s/nowhere/cmd",
        "s/a/cmd/r1/insert", "s/a/cmd/r2/update", "s/bb/cmd/r1/delete",
        "s/a/cmd/r1/no",     "s//cmd/x/insert",   "s/a/cmd/x",
    };
    static const char *const texts[] = {
        "{\"type\":\"insert\",\"recordId\":\"r3\",\"data\":{}}",
        "{\"type\":\"delete\",\"recordId\":\"r3\"}",
        "{\"type\":\"sync\"}",
        "{\"type\":\"subscribe\",\"collection\":\"a\"}",
        "{\"a\":1}",
        "",
    };
    const char *topic = topics[how % 9];
    size_t n = how % 7 < 6 ? strlen(texts[how % 7]) : byte();
    struct mqsync_upstream_will will = {.metadata = {how & 1 ? "m" : NULL, how & 2 ? "x" : NULL}};
    char *copy;

    if (how % 7 == 6 && n > (size_t)(w.end - w.in))
        n = (size_t)(w.end - w.in);
    copy = malloc(n + 1);
    CHECK(copy);
    memcpy(copy, how % 7 < 6 ? texts[how % 7] : (const char *)w.in, n);
    w.in += how % 7 < 6 ? 0 : n;
    will.payload = (struct mqsync_slice){copy, n};
    mqsync_topic_parse(MQSYNC_SLICE("s"), mqsync_slice_str(topic), &will.topic);
    w.handler.will(w.handler.context, &will);
    free(copy);
}

static void play_broker(unsigned how)
{
    struct command *c = w.commands;
    size_t collection;

    switch (how % 8) {
    case 0:
    case 1:
        for (unsigned skip = byte() % 4; c && (c->version || skip--);)
            c = c->next;
        if (c && w.up) {
            carry_out(c, true, how / 8 % 31);
            c->version = c->version ? c->version : 1;
        }
        break;
    case 2:
    case 3:
    case 4:
        for (unsigned n = byte() % 8; n > 0 && w.packets; n--)
            deliver();
        break;
    case 5:
        if (w.packets && w.packets->kind == EVENT)
            free_packet(take_packet());
        break;
    case 6:
        if (w.up && how & 8)
            somebody_dies(byte());
        else if (w.up)
            anything_from_broker();
        break;
    default:
        collection = byte() % COLLECTIONS;
        if (w.truth.collections[collection].seq < CHANGES_MAX)
            change(collection, byte() % RECORDS, how & 64 ? MQSYNC_DELETE : MQSYNC_UPDATE, 0, 0, w.up);
        break;
    }
}

static void step(void)
{
    unsigned what = byte(), how = byte();
    struct mqsync_socket *s = &w.sockets[how % CLIENTS];

    switch (what % 16) {
    case 0:
        if (s->session)
            hang_up(s);
        else
            call(s, byte());
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        if (s->session && !s->killed)
            say_something(s, byte());
        else if (!s->session)
            call(s, byte());
        break;
    case 5:
    case 6:
    case 7:
        if (s->session)
            write_to(s, byte() % 8);
        break;
    case 8:
        w.now_us += (int64_t)how * how * 100;
        mqsync_bridge_tick(&w.bridge);
        break;
    case 9:
        pump();
        break;
    case 10:
        if (how % 4 == 0)
            reconfigure(how / 4);
        else if (how % 4 == 1)
            w.refusing_to_send = how & 4;
        else if (how % 64 == 2)
            lose_records();
        else if (w.up)
            lose_broker();
        else
            find_broker();
        break;
    default:
        play_broker(how);
        break;
    }
}

static struct mqsync_config *configure(const char *text)
{
    struct mqsync_config *c;
    struct mqsync_error e;

    CHECK(mqsync_config_parse(mqsync_slice_str(text), "fuzz.json", &c, &e) == MQSYNC_OK);
    c->bridge.send_queue_bytes = QUEUE_BYTES;
    return c;
}

static void finish(void)
{
    for (size_t i = 0; i < CLIENTS; i++)
        if (w.sockets[i].session)
            hang_up(&w.sockets[i]);
    for (size_t i = 0; i < MQSYNC_CHANNELS_BUCKETS; i++)
        CHECK(!w.bridge.channels.buckets[i]);
    CHECK(!w.bridge.feeds.hungry.first && w.bridge.questions.open == 0 && w.bridge.metrics.connections == 0);
    mqsync_users_sweep(&w.bridge.users, INT64_MAX);
    mqsync_database_reopen(&w.bridge.database);
    mqsync_pending_close(&w.bridge.pending);
    mqsync_buf_free(&w.bridge.message);
    mqsync_buf_free(&w.bridge.answer);
    free(w.bridge.by_index);
    while (w.packets)
        free_packet(take_packet());
    while (w.commands)
        forget_command(w.commands->mid);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mqsync_config *all = w.configs[0], *some = w.configs[1];
    unsigned how;

    if (!all) {
        all = configure("{\"bridge\":{\"idleTimeoutSeconds\":3600}}");
        some = configure("{\"collections\":{\"a\":{},\"bb\":{\"read\":[\"user:x\"]},\"c.c\":{\"write\":[\"user:x\"]}},"
                         "\"limits\":{\"messagesPerMinute\":1000},\"bridge\":{\"idleTimeoutSeconds\":3600}}");
    }
    memset(&w, 0, sizeof(w));
    w.configs[0] = all;
    w.configs[1] = some;
    w.in = data;
    w.end = data + size;
    w.now_us = 10000000;
    w.pump_at_us = INT64_MAX;
    w.commands_end = &w.commands;
    w.packets_end = &w.packets;
    how = byte();
    w.has_database = how & 1;
    w.honest = !(how & 2);
    start_epoch();
    w.bridge.config = all;
    w.bridge.directory = how & 4 ? NULL : "somewhere";
    CHECK(mqsync_pending_open(&w.bridge.pending));
    mqsync_bridge_handler(&w.bridge, &w.handler);
    if (!(how & 8))
        find_broker();
    for (int i = 0; i < STEPS_MAX && w.in < w.end; i++) {
        step();
        check_books();
    }
    come_to_rest();
    finish();
    return 0;
}
