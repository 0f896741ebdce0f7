/* SPDX-License-Identifier: BSD-3-Clause */
#include "deciders.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { COMMAND_LINE_MAX = 65536 };

struct reader {
    struct mqsync_deciders *found;
    char *own; /* this plugin's file */
    bool per_listener, other_plugin, included;
};

static void not_known(struct mqsync_deciders *d, const char *what, const char *name)
{
    d->kind = MQSYNC_DECIDERS_UNKNOWN;
    snprintf(d->where, sizeof(d->where), "%s %s: %s", what, name, strerror(errno));
}

static void note(struct reader *r, enum mqsync_deciders_kind kind, const char *file)
{
    if (r->found->kind == MQSYNC_DECIDERS_UNKNOWN || r->found->kind == MQSYNC_DECIDERS_PLUGIN)
        return;
    r->found->kind = kind;
    snprintf(r->found->where, sizeof(r->found->where), "%s", file);
}

static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static void read_plugin(struct reader *r, const char *path, const char *file)
{
    if (path && same_file(path, r->own)) {
        r->found->asked_before |= r->other_plugin;
        return;
    }
    r->other_plugin = true;
    note(r, MQSYNC_DECIDERS_PLUGIN, file);
}

static void read_dir(struct reader *r, const char *dir);

static void read_line(struct reader *r, char *line, const char *file)
{
    char *rest = line, *word, *value;

    rest[strcspn(rest, "\r\n")] = '\0';
    word = strtok_r(rest, " ", &rest);
    if (!word || word[0] == '#')
        return;
    value = rest + strspn(rest, " ");
    if (strcmp(word, "acl_file") == 0)
        note(r, MQSYNC_DECIDERS_ACL, file);
    else if (strcmp(word, "plugin") == 0 || strcmp(word, "auth_plugin") == 0 || strcmp(word, "global_plugin") == 0)
        read_plugin(r, value, file);
    else if (strcmp(word, "plugin_load") == 0) { /* 2.1: a name, then the path */
        strtok_r(value, " ", &rest);
        read_plugin(r, rest + strspn(rest, " "), file);
    } else if (strcmp(word, "per_listener_settings") == 0)
        r->per_listener = strcmp(value, "true") == 0;
    else if (strcmp(word, "listener") == 0 && r->per_listener)
        r->other_plugin = false; /* those before are asked about other clients */
    else if (strcmp(word, "include_dir") == 0)
        read_dir(r, value);
}

static void read_file(struct reader *r, const char *name)
{
    FILE *f = fopen(name, "re");
    char *line = NULL;
    size_t size = 0;

    if (!f) {
        not_known(r->found, "cannot read", name);
        return;
    }
    while (getline(&line, &size, f) >= 0)
        read_line(r, line, name);
    if (!feof(f)) /* out of memory, too */
        not_known(r->found, "cannot read", name);
    free(line);
    fclose(f);
}

static int is_conf(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 5 && entry->d_name[0] != '.' && strcmp(entry->d_name + n - 5, ".conf") == 0;
}

static void read_dir(struct reader *r, const char *dir)
{
    struct dirent **entries;
    int n;

    if (r->included) /* the broker does not go further than one directory deep either */
        return;
    n = scandir(dir, &entries, is_conf, alphasort);
    if (n < 0) {
        not_known(r->found, "cannot read", dir);
        return;
    }
    r->included = true;
    for (int i = 0; i < n; i++) {
        char *name;
        if (asprintf(&name, "%s/%s", dir, entries[i]->d_name) >= 0) {
            read_file(r, name);
            free(name);
        } else {
            not_known(r->found, "cannot read", entries[i]->d_name);
        }
        free(entries[i]);
    }
    free(entries);
    r->included = false;
}

/* What follows -c or --config-file; NULL when there is none. */
static const char *config_file(const char *arguments, size_t n)
{
    for (const char *at = arguments, *end = arguments + n; at < end; at += strlen(at) + 1) {
        const char *next = at + strlen(at) + 1;
        if ((strcmp(at, "-c") == 0 || strcmp(at, "--config-file") == 0) && next < end)
            return next;
    }
    return NULL;
}

void mqsync_deciders_find(struct mqsync_deciders *ret)
{
    static const char self[] = "/proc/self/cmdline";
    struct reader r = {.found = ret};
    char *arguments = malloc(COMMAND_LINE_MAX + 1);
    FILE *f = fopen(self, "re");
    const char *file = NULL;
    Dl_info own;

    memset(ret, 0, sizeof(*ret));
    if (f && arguments) {
        size_t n = fread(arguments, 1, COMMAND_LINE_MAX, f);
        arguments[n] = '\0';
        file = config_file(arguments, n);
    }
    if (f)
        fclose(f);
    if (!file || !dladdr((void *)(uintptr_t)mqsync_deciders_find, &own) || !own.dli_fname) {
        ret->kind = MQSYNC_DECIDERS_UNKNOWN;
        snprintf(ret->where, sizeof(ret->where), "the broker's command line names no configuration file");
    } else {
        r.own = strdup(own.dli_fname);
        if (r.own)
            read_file(&r, file);
        else
            not_known(ret, "cannot read", file);
    }
    free(r.own);
    free(arguments);
}
