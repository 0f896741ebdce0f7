/* SPDX-License-Identifier: BSD-3-Clause */
/* mqsync-bridge: WebSocket clients on one side, the broker on the other. */
#include <getopt.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "bridge.h"
#include "server.h"
#include "std_fds.h"
#include "tls.h"
#include "version.h"

enum { EXIT_USAGE = 2 };

static const char usage[] = "usage: mqsync-bridge [--config FILE] [--check-config]\n"
                            "  --config FILE    the configuration (default /etc/mqsync/mqsync.json)\n"
                            "  --check-config   say what is wrong with it, and exit\n"
                            "  --help           this text\n"
                            "  --version        the version\n";

struct options {
    const char *config;
    bool check;
};

/* -1: go on; otherwise the exit status. */
static int read_options(int argc, char **argv, struct options *ret)
{
    static const struct option table[] = {
        {"config", required_argument, NULL, 'c'},
        {"check-config", no_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "c:h", table, NULL)) != -1) {
        switch (c) {
        case 'c':
            ret->config = optarg;
            break;
        case 'k':
            ret->check = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        case 'v':
            printf("mqsync-bridge %s\n", MQSYNC_VERSION);
            return EXIT_SUCCESS;
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "mqsync-bridge: unexpected argument '%s'\n%s", argv[optind], usage);
        return EXIT_USAGE;
    }
    return -1;
}

static void finish(struct mqsync_bridge *b)
{
    mqsync_server_close(b->server);
    b->server = NULL;
    mqsync_upstream_close(b->upstream);
    mqsync_database_reopen(&b->database);
    mqsync_pending_close(&b->pending);
    mqsync_token_verifier_close(b->verifier);
    mqsync_buf_free(&b->message);
    mqsync_buf_free(&b->answer);
    free(b->by_index);
    mqsync_config_free(b->config);
}

/* Woken by the first of a row of events while the broker, on the same core, still has others to send, this process
 * would take the core from it and find one event. It loses nothing where a core is free. */
static void be_patient(void)
{
    struct sched_param none = {0};

    sched_setscheduler(0, SCHED_BATCH, &none);
}

/* Blocks longer than a page of records go back to the system when they are freed. Left to itself the allocator takes
 * the first of them as a reason to keep the next ones, and what one client's large records took stays in holes. */
static void return_large_blocks(void)
{
    mallopt(M_MMAP_THRESHOLD, 512 * 1024);
    mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}

static enum mqsync_code run(struct mqsync_bridge *b, struct mqsync_error *ret_error)
{
    struct mqsync_upstream_handler handler;
    char *directory = NULL;
    enum mqsync_code code;

    if (!mqsync_pending_open(&b->pending))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    if (b->config->database && !(directory = strdup(b->config->database)))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    b->directory = directory;
    mqsync_bridge_handler(b, &handler);
    code = mqsync_upstream_open(b->config, &handler, &b->upstream, ret_error);
    if (code == MQSYNC_OK)
        code = mqsync_server_open(b, &b->server, ret_error);
    if (code == MQSYNC_OK) {
        be_patient();
        mqsync_server_run(b->server);
        mqsync_log(MQSYNC_LOG_INFO, "MQS3007", "stopped");
    }
    finish(b);
    free(directory);
    return code;
}

/* The files that the configuration names, as the start would read them. */
static enum mqsync_code check_files(struct mqsync_bridge *b, struct mqsync_error *ret_error)
{
    struct mqsync_upstream_handler handler;
    struct mqsync_upstream *upstream;
    struct mqsync_tls *tls;
    char until[16];
    enum mqsync_code code;

    mqsync_bridge_handler(b, &handler);
    code = mqsync_upstream_open(b->config, &handler, &upstream, ret_error);
    if (code != MQSYNC_OK)
        return code;
    mqsync_upstream_close(upstream);
    if (!b->config->bridge.tls_cert_file)
        return MQSYNC_OK;
    tls = mqsync_tls_open();
    code = tls ? mqsync_tls_load(tls, b->config->bridge.tls_cert_file, b->config->bridge.tls_key_file, until, ret_error)
               : mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    mqsync_tls_close(tls);
    return code;
}

static void log_failure(const char *id, const char *file, const struct mqsync_error *e)
{
    mqsync_log(MQSYNC_LOG_ERROR, id, "%s (configuration: %s)", e->text, file);
}

/* The exit status of --check-config. */
static int check(struct mqsync_bridge *b)
{
    struct mqsync_error e;
    enum mqsync_code code = check_files(b, &e);

    if (code == MQSYNC_OK)
        printf("%s: nothing wrong\n", b->config_path);
    else
        log_failure("MQS3002", b->config_path, &e);
    mqsync_token_verifier_close(b->verifier);
    mqsync_config_free(b->config);
    return code == MQSYNC_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static struct mqsync_bridge bridge;
    struct options o = {.config = "/etc/mqsync/mqsync.json"};
    struct mqsync_config *config = NULL;
    struct mqsync_error e;
    int status = mqsync_std_fds_hold() ? read_options(argc, argv, &o) : EXIT_FAILURE;

    if (status >= 0)
        return status;
    return_large_blocks();
    setvbuf(stderr, NULL, _IOLBF, 0);
    bridge.metrics.started_ms = mqsync_time_now();
    bridge.config_path = o.config;
    if (mqsync_config_load(o.config, &config, &e) != MQSYNC_OK) {
        mqsync_log(MQSYNC_LOG_ERROR, "MQS3002", "%s", e.text);
        return EXIT_FAILURE;
    }
    if (mqsync_bridge_configure(&bridge, config, &e) != MQSYNC_OK) {
        log_failure("MQS3002", o.config, &e);
        mqsync_config_free(config);
        return EXIT_FAILURE;
    }
    if (o.check)
        return check(&bridge);
    if (run(&bridge, &e) != MQSYNC_OK) {
        log_failure("MQS3008", o.config, &e);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
