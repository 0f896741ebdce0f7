/* SPDX-License-Identifier: BSD-3-Clause */
#include "broker.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "timestamp.h"

enum { ANSWER_WITHIN_MS = 2000 };

#define VERSION_OF(major, minor, patch) ((major)*1000000 + (minor)*1000 + (patch))

static int64_t monotonic_ms(void)
{
    return mqsync_monotonic_us() / 1000;
}

/* Starts `exe -h` with its output going to `out`. Signals are reset: the broker may block or ignore some. */
static bool start(const char *exe, int out, pid_t *ret_pid)
{
    char *argv[] = {(char[]){"mosquitto"}, (char[]){"-h"}, NULL};
    char *environment[] = {NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    bool ok;

    sigemptyset(&none);
    sigfillset(&all);
    if (posix_spawn_file_actions_init(&files))
        return false;
    if (posix_spawnattr_init(&attributes)) {
        posix_spawn_file_actions_destroy(&files);
        return false;
    }
    ok = !posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0) &&
         !posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO) &&
         !posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO) &&
         !posix_spawnattr_setsigmask(&attributes, &none) && !posix_spawnattr_setsigdefault(&attributes, &all) &&
         !posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) &&
         !posix_spawn(ret_pid, exe, &files, &attributes, argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return ok;
}

/* Reads until the end, the limit of time or a full buffer; returns bytes read. */
static size_t read_for_a_while(int fd, char *text, size_t size)
{
    int64_t until = monotonic_ms() + ANSWER_WITHIN_MS;
    size_t n = 0;

    while (n < size) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = until - monotonic_ms();
        ssize_t got;
        if (left <= 0 || poll(&p, 1, (int)left) <= 0)
            break;
        got = read(fd, text + n, size - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    return n;
}

static bool parse_version(const char *text, int *ret)
{
    static const char before[] = "mosquitto version ";
    const char *found = strstr(text, before);
    int major, minor, patch;

    if (!found || sscanf(found + sizeof(before) - 1, "%d.%d.%d", &major, &minor, &patch) != 3)
        return false;
    *ret = VERSION_OF(major, minor, patch);
    return true;
}

static bool ask_binary(int *ret)
{
    char exe[PATH_MAX], text[1024];
    ssize_t length = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    const char *name;
    int ends[2];
    pid_t pid;
    bool ok;

    if (length <= 0)
        return false;
    exe[length] = '\0';
    name = strrchr(exe, '/');
    /* Somebody else's program that has loaded this plugin does who knows what when it is run with -h. */
    if (!name || !strstr(name, "mosquitto") || pipe2(ends, O_CLOEXEC))
        return false;
    ok = start(exe, ends[1], &pid);
    close(ends[1]);
    if (ok) {
        text[read_for_a_while(ends[0], text, sizeof(text) - 1)] = '\0';
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        ok = parse_version(text, ret);
    }
    close(ends[0]);
    return ok;
}

void mqsync_broker_identify(struct mqsync_broker *ret)
{
    int major, minor, patch;

    ret->certain = ask_binary(&ret->version);
    if (ret->certain)
        return;
    mosquitto_lib_version(&major, &minor, &patch);
    ret->version = VERSION_OF(major, minor, patch);
    mqsync_log(MQSYNC_LOG_WARNING, "MQS1013",
               "the broker's binary would not tell its version; taking that of libmosquitto, %d.%d.%d", major, minor,
               patch);
}

int mqsync_broker_reload_result(const struct mqsync_broker *b)
{
    return b->version < VERSION_OF(2, 1, 0) ? MOSQ_ERR_PLUGIN_DEFER : MOSQ_ERR_SUCCESS;
}

int mqsync_broker_no_objection(const struct mqsync_broker *b, bool alone)
{
    enum { PLUGIN_IGNORE = 32 }; /* MOSQ_ERR_PLUGIN_IGNORE, which the headers of 2.0 do not have */

    if (b->version >= VERSION_OF(2, 1, 0))
        return PLUGIN_IGNORE;
    return alone ? MOSQ_ERR_SUCCESS : MOSQ_ERR_PLUGIN_DEFER;
}

/* Since 2.0.15 the broker frees what a callback has replaced; before that nobody did. */
static bool frees_replaced(const struct mqsync_broker *b)
{
    return b->version >= VERSION_OF(2, 0, 15);
}

void mqsync_broker_replace_topic(const struct mqsync_broker *b, struct mosquitto_evt_message *event, char *topic)
{
    if (!frees_replaced(b))
        mosquitto_free(event->topic);
    event->topic = topic;
}

bool mqsync_broker_replace_properties(const struct mqsync_broker *b, struct mosquitto_evt_message *event,
                                      mosquitto_property *properties)
{
    if (!b->certain)
        return false;
    if (!frees_replaced(b))
        mosquitto_property_free_all(&event->properties);
    event->properties = properties;
    return true;
}
