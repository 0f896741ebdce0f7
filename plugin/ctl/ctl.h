/* SPDX-License-Identifier: BSD-3-Clause */
/* mqsyncctl: what its commands share. main.c has the table of them. */
#ifndef MQSYNC_CTL_H
#define MQSYNC_CTL_H

#include "store.h"

#define MQSYNC_CTL_CONFIG "/etc/mqsync/mqsync.json" /* taken when neither --db nor --config is given */

/* Exit statuses. */
enum { CTL_DONE = 0, CTL_WRONG = 1, CTL_FAILED = 2 };

struct mqsync_ctl {
    const char *dir;              /* of the database; NULL for commands that need none */
    struct mqsync_config *config; /* what --config names, or the default file; else NULL */
    char **args;                  /* what follows the command */
    int args_n;
    /* options */
    const char *db, *config_file, *output, *user, *key;
    const char **roles;
    size_t roles_n;
    bool json, quiet, deleted, keep_going, has_since;
    uint64_t since, ttl;
};

/* Says what went wrong on stderr, after "mqsyncctl: "; returns CTL_FAILED. */
int mqsync_ctl_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same for an error of the store; adds what to do when a broker has the database. */
int mqsync_ctl_store_failed(const struct mqsync_error *e);

/* Ends a command that has written to stdout: CTL_FAILED when what it wrote did not arrive, else status. */
int mqsync_ctl_flush(int status);

/* Opens the database for reading. CTL_DONE or CTL_FAILED, which has been said. */
int mqsync_ctl_open(const struct mqsync_ctl *c, struct mqsync_reader **ret_reader, struct mqsync_view **ret_view);

/* What root makes in a directory that belongs to the broker's user is given to that user. */
void mqsync_ctl_give_files(const char *dir);

/* Set by SIGINT and SIGTERM once asked for; a second one ends the program at once. */
extern volatile int mqsync_ctl_interrupted;
void mqsync_ctl_catch_interrupts(void);

/* --- commands: each returns an exit status ---------------------------------------------------------------------- */

int mqsync_ctl_stat(struct mqsync_ctl *c);         /* look.c */
int mqsync_ctl_get(struct mqsync_ctl *c);          /* look.c */
int mqsync_ctl_watch(struct mqsync_ctl *c);        /* watch.c */
int mqsync_ctl_export(struct mqsync_ctl *c);       /* export.c */
int mqsync_ctl_import(struct mqsync_ctl *c);       /* import.c */
int mqsync_ctl_check(struct mqsync_ctl *c);        /* whole.c */
int mqsync_ctl_backup(struct mqsync_ctl *c);       /* whole.c */
int mqsync_ctl_restore(struct mqsync_ctl *c);      /* whole.c */
int mqsync_ctl_compact(struct mqsync_ctl *c);      /* whole.c */
int mqsync_ctl_token(struct mqsync_ctl *c);        /* token.c */
int mqsync_ctl_check_config(struct mqsync_ctl *c); /* main.c */

#endif
