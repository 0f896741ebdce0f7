/* SPDX-License-Identifier: BSD-3-Clause */
/* Those that wait for their turn, first come, first served. What waits has a struct mqsync_turn in it, by which it is
 * found again: nothing is allocated. */
#ifndef MQSYNC_BRIDGE_TURNS_H
#define MQSYNC_BRIDGE_TURNS_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise to start. */
struct mqsync_turn {
    struct mqsync_turn *next, *previous;
    bool waiting;
};

/* Zero-initialise to start. */
struct mqsync_turns {
    struct mqsync_turn *first, *last;
};

/* At the end; one that waits already keeps its place. */
static inline void mqsync_turns_enter(struct mqsync_turns *all, struct mqsync_turn *t)
{
    if (t->waiting)
        return;
    t->waiting = true;
    t->next = NULL;
    t->previous = all->last;
    if (all->last)
        all->last->next = t;
    else
        all->first = t;
    all->last = t;
}

/* It waits no more, if it did. */
static inline void mqsync_turns_leave(struct mqsync_turns *all, struct mqsync_turn *t)
{
    if (!t->waiting)
        return;
    *(t->previous ? &t->previous->next : &all->first) = t->next;
    *(t->next ? &t->next->previous : &all->last) = t->previous;
    t->waiting = false;
}

/* The first one, which waits no more; there has to be one. */
static inline struct mqsync_turn *mqsync_turns_take(struct mqsync_turns *all)
{
    struct mqsync_turn *t = all->first;

    mqsync_turns_leave(all, t);
    return t;
}

#endif
