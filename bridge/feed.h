/* SPDX-License-Identifier: BSD-3-Clause */
/* What brings one connection up to date with one collection: the pages of a snapshot, of a `sync`, of what a slow
 * reader or a lost connection has missed; and for a subscription the place from which live events go on.
 *
 * A feed is live when its client has been sent (or is itself the author of) everything up to `seq`. Any event that does
 * not follow on that makes it not live; then it is hungry: it waits for its turn and for its connection to have room,
 * and gets pages made from the database, or asked from the broker, until there is nothing newer than what has been
 * seen. Events that come meanwhile need not be kept, since the last page is made after they were seen. */
#ifndef MQSYNC_BRIDGE_FEED_H
#define MQSYNC_BRIDGE_FEED_H

#include "frame.h"
#include "message.h"
#include "turns.h"

struct mqsync_bridge;
struct mqsync_channel;
struct mqsync_session;

enum { MQSYNC_OWN_MAX = 64 };

struct mqsync_feed {
    struct mqsync_session *session;
    struct mqsync_channel *channel;
    struct mqsync_feed *next; /* of the session's */
    struct mqsync_turn turn;  /* among the hungry ones */
    size_t place;             /* among the channel's */
    bool subscription;        /* or one `sync` */
    bool live, started;
    bool full_updates; /* an update carries the whole record */
    bool tombstones;   /* the snapshot ends with a `delete` for each tombstone */
    bool no_pages;     /* no snapshot */
    bool has_since;
    uint64_t rule;     /* of the records it shows, mqsync_owner_rule(); 0: all */
    bool anew;         /* it has to begin with a full snapshot: the rule has changed */
    uint64_t seq;      /* reached */
    uint64_t complete; /* nothing up to there is missing, while some of what lies between there and seq may be: of a
                        * record that has changed again since, only the later pages tell that it was lost on the way */
    char epoch[MQSYNC_EPOCH_SIZE]; /* that seq belongs to; "": the client did not say */
    /* of the pages being sent */
    bool paging;       /* between the first and the last page */
    bool page_always;  /* a page even when it is empty */
    bool counted;      /* total holds for these pages */
    bool whole;        /* full: true */
    uint64_t whole_at; /* seq when that began: older tombstones are none of its business */
    uint64_t total, left;
    uint64_t records; /* of the collection, as last told */
    bool burying;     /* sending the `delete` messages */
    uint64_t bury_at;
    /* of the counting before the pages, where what a user sees has to be looked for among other users' records */
    bool counting;
    uint64_t count_from, count_at, count_records, count_entries;
    /* when asking the broker */
    bool asked;
    uint64_t question;
    int64_t asked_us;         /* or when its last page came */
    struct mqsync_queue held; /* events since the question; an empty one stands for the client's own */
    bool held_lost;
    bool cut;                     /* the answer was not taken to its end: the next question goes on at seq */
    bool uncut;                   /* going on began anew: no more cuts while pages come */
    bool whole_answer;            /* full: true on its first page, and so on all of them */
    uint64_t asked_n, asked_left; /* entries asked for (UINT64_MAX: all), and those of them that have not come */
    uint64_t seen, seen_bytes;    /* of entries, for how many to ask at once */
    /* own changes that need not be told, with full_updates */
    uint64_t own[MQSYNC_OWN_MAX];
    uint64_t own_record[MQSYNC_OWN_MAX]; /* as a frame's */
    unsigned own_n;
};

struct mqsync_feeds {
    struct mqsync_turns hungry;
    bool walked_long; /* one has used up its time: enough for this turn */
};

/* Starts a subscription or `sync` as the message asks; *ret is the session's until closed. What it sends, `subscribed`
 * too, comes later. rule: mqsync_owner_rule(). */
enum mqsync_code mqsync_feed_open(struct mqsync_bridge *b, struct mqsync_session *s, const struct mqsync_message *m,
                                  uint64_t rule, bool tombstones, struct mqsync_feed **ret);
/* Its user sees other records from now on: a full snapshot of those comes. */
void mqsync_feed_begin_anew(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t rule);
void mqsync_feed_close(struct mqsync_bridge *b, struct mqsync_feed *f);

/* It has something to catch up with. */
void mqsync_feed_hunger(struct mqsync_bridge *b, struct mqsync_feed *f);
/* An event of its channel. frame: what to send of it; empty: nothing; NULL: not known, or out of memory: it is made up
 * for. own: by the feed's own client, who is not told. */
void mqsync_feed_event(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq, struct mqsync_frame *frame,
                       bool own);
/* One of its events was not sent after all. */
void mqsync_feed_unsent(struct mqsync_bridge *b, struct mqsync_feed *f, uint64_t seq);

/* Feeds the hungry for some milliseconds. */
void mqsync_feeds_pump(struct mqsync_bridge *b);

#endif
