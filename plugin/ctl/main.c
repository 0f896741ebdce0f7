/* SPDX-License-Identifier: BSD-3-Clause */
/* mqsyncctl: looks into a database of mqsync, checks it, moves records in and out, backs it up. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"
#include "json.h"
#include "line.h"
#include "std_fds.h"
#include "token.h"
#include "version.h"

#define TTL_SECONDS 3600

/* --- the commands ----------------------------------------------------------------------------------------------- */

enum needs { NEEDS_DATABASE, NEEDS_CONFIG, NEEDS_NOTHING };

static const struct command {
    const char *name, *args, *help;
    int args_least, args_most;
    const char *options; /* of its own; --json, --quiet, --db and --config go with all */
    enum needs needs;
    int (*run)(struct mqsync_ctl *c);
} commands[] = {
    {"stat", "", "collections, records, tombstones, sizes, epoch", 0, 0, "", NEEDS_DATABASE, mqsync_ctl_stat},
    {"get", "COLLECTION ID", "one record", 2, 2, "", NEEDS_DATABASE, mqsync_ctl_get},
    {"export", "[COLLECTION]", "records as NDJSON to stdout or -o FILE", 0, 1, "do", NEEDS_DATABASE, mqsync_ctl_export},
    {"import", "[FILE|-]", "NDJSON into the database; the broker must be stopped", 0, 1, "k", NEEDS_DATABASE,
     mqsync_ctl_import},
    {"watch", "COLLECTION", "follow changes until Ctrl-C", 1, 1, "s", NEEDS_DATABASE, mqsync_ctl_watch},
    {"check", "", "every index against every record", 0, 0, "", NEEDS_DATABASE, mqsync_ctl_check},
    {"backup", "DIR", "a copy in DIR, while the broker runs", 1, 1, "", NEEDS_DATABASE, mqsync_ctl_backup},
    {"restore", "DIR", "replace the database by the backup in DIR; the broker must be stopped", 1, 1, "",
     NEEDS_DATABASE, mqsync_ctl_restore},
    {"compact", "", "give free space back; the broker must be stopped", 0, 0, "", NEEDS_DATABASE, mqsync_ctl_compact},
    {"token", "--user NAME", "a signed JWT for trying things", 0, 0, "urtK", NEEDS_CONFIG, mqsync_ctl_token},
    {"check-config", "[FILE]", "whether the configuration can be loaded", 0, 1, "", NEEDS_NOTHING,
     mqsync_ctl_check_config},
};

static const struct option options[] = {
    {"db", required_argument, NULL, 'D'},
    {"config", required_argument, NULL, 'c'},
    {"json", no_argument, NULL, 'j'},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"deleted", no_argument, NULL, 'd'},
    {"output", required_argument, NULL, 'o'},
    {"keep-going", no_argument, NULL, 'k'},
    {"since", required_argument, NULL, 's'},
    {"user", required_argument, NULL, 'u'},
    {"role", required_argument, NULL, 'r'},
    {"ttl", required_argument, NULL, 't'},
    {"key", required_argument, NULL, 'K'},
    {NULL, 0, NULL, 0},
};

static void print_help(void)
{
    printf("usage: mqsyncctl [--db DIR | --config FILE] COMMAND [ARGUMENT...]\n\ncommands\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        printf("  %-12s %-14s %s\n", commands[i].name, commands[i].args, commands[i].help);
    printf("\noptions\n"
           "  --db DIR           the database\n"
           "  -c, --config FILE  mqsync.json, whose \"database\" is taken (default " MQSYNC_CTL_CONFIG ")\n"
           "  -j, --json         output for programs\n"
           "  -q, --quiet        results only: no progress bar, no summary\n"
           "  export: -o, --output FILE; -d, --deleted (tombstones too)\n"
           "  import: -k, --keep-going (past lines that are refused)\n"
           "  watch:  --since SEQ (default: from now on)\n"
           "  token:  --user NAME, --role ROLE (any number), --ttl SECONDS (3600), --key FILE (private, for RS256 and "
           "ES256)\n"
           "  -h, --help; -V, --version\n\n"
           "exit status: 0 done; 1 something is wrong or not there; 2 it could not be done. More: man mqsyncctl\n");
}

/* --- what commands share ---------------------------------------------------------------------------------------- */

int mqsync_ctl_fail(const char *fmt, ...)
{
    va_list args;
    fflush(stdout);
    fputs("mqsyncctl: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    return CTL_FAILED;
}

int mqsync_ctl_store_failed(const struct mqsync_error *e)
{
    mqsync_ctl_fail("%s", e->text);
    if (e->code == MQSYNC_CONFLICT)
        fputs("mqsyncctl: this command writes to the database: stop the broker first\n", stderr);
    return CTL_FAILED;
}

int mqsync_ctl_flush(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    return mqsync_ctl_fail("cannot write to stdout: %s", strerror(errno));
}

void mqsync_ctl_give_files(const char *dir)
{
    struct stat owner, st;
    int fd = geteuid() == 0 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    static const char *const names[] = {"data.mdb", "lock.mdb", "lock", "log.0", "log.1", "log.2"};
    for (size_t i = 0; fstat(fd, &owner) == 0 && owner.st_uid != 0 && i < sizeof names / sizeof *names; i++) {
        /* only what root has just made here: a link would let the directory's owner have any file */
        if (fstatat(fd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 &&
            st.st_uid == 0 && fchownat(fd, names[i], owner.st_uid, owner.st_gid, AT_SYMLINK_NOFOLLOW) != 0)
            mqsync_ctl_fail("cannot give %s/%s to its directory's owner: %s; the broker may not be able to open it",
                            dir, names[i], strerror(errno));
    }
    close(fd);
}

int mqsync_ctl_open(const struct mqsync_ctl *c, struct mqsync_reader **ret_reader, struct mqsync_view **ret_view)
{
    struct mqsync_error e;
    enum mqsync_code code = mqsync_reader_open(c->dir, ret_reader, &e);
    mqsync_ctl_give_files(c->dir);
    if (code)
        return mqsync_ctl_store_failed(&e);
    code = mqsync_reader_view(*ret_reader, ret_view, &e);
    if (code == MQSYNC_OK)
        return CTL_DONE;
    mqsync_reader_close(*ret_reader);
    return mqsync_ctl_store_failed(&e);
}

volatile int mqsync_ctl_interrupted;

static void interrupt(int signal)
{
    (void)signal;
    mqsync_ctl_interrupted = 1;
}

void mqsync_ctl_catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* --- a database so damaged that reading it leads out of it ------------------------------------------------------ */

static volatile int crash_status = CTL_FAILED;
static volatile bool crash_json; /* check --json, which has not said anything yet */

/* LMDB trusts its pages. Where one is damaged, reading may end here; nothing has been written then. */
static void crashed(int signal)
{
    static const char text[] =
        "\nmqsyncctl: the database is damaged, reading it led out of it; restore a backup (mqsyncctl restore)\n";
    static const char json[] = "{\"ok\":false,\"wrong\":[\"reading the database led out of it\"]}\n";
    (void)signal;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0 ||
        (crash_json && write(STDOUT_FILENO, json, sizeof json - 1) < 0))
        _exit(CTL_FAILED);
    _exit(crash_status);
}

static void catch_crashes(const struct mqsync_ctl *c, const struct command *command)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE};
    struct sigaction action = {.sa_handler = crashed, .sa_flags = (int)SA_RESETHAND};
    if (command->run == mqsync_ctl_check) {
        crash_status = CTL_WRONG;
        crash_json = c->json;
    }
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

/* --- the command line ------------------------------------------------------------------------------------------- */

static bool parse_number(const char *text, uint64_t *ret)
{
    return mqsync_json_check(mqsync_slice_str(text), NULL, NULL) == MQSYNC_OK &&
           mqsync_json_to_u64(mqsync_slice_str(text), ret);
}

static int take_option(struct mqsync_ctl *c, int option)
{
    switch (option) {
    case 'D':
        c->db = optarg;
        return CTL_DONE;
    case 'c':
        c->config_file = optarg;
        return CTL_DONE;
    case 'o':
        c->output = optarg;
        return CTL_DONE;
    case 'u':
        c->user = optarg;
        return CTL_DONE;
    case 'K':
        c->key = optarg;
        return CTL_DONE;
    case 'r':
        c->roles[c->roles_n++] = optarg;
        return CTL_DONE;
    case 'j':
        c->json = true;
        return CTL_DONE;
    case 'q':
        c->quiet = true;
        return CTL_DONE;
    case 'd':
        c->deleted = true;
        return CTL_DONE;
    case 'k':
        c->keep_going = true;
        return CTL_DONE;
    case 's':
        c->has_since = true;
        return parse_number(optarg, &c->since) ? CTL_DONE
                                               : mqsync_ctl_fail("--since %s: expected a seq, a whole number", optarg);
    default: /* 't' */
        return parse_number(optarg, &c->ttl) && c->ttl > 0 && c->ttl <= INT32_MAX
                   ? CTL_DONE
                   : mqsync_ctl_fail("--ttl %s: expected seconds, a whole number from 1 to %d", optarg, INT32_MAX);
    }
}

/* The options, whose letters go to *given; -1 when the program goes on, else its exit status. */
static int parse_options(struct mqsync_ctl *c, int argc, char **argv, char *given)
{
    int option;
    while ((option = getopt_long(argc, argv, "c:jqhVdo:k", options, NULL)) != -1) {
        if (option == 'h') {
            print_help();
            return CTL_DONE;
        }
        if (option == 'V') {
            printf("mqsyncctl %s\n", MQSYNC_VERSION);
            return CTL_DONE;
        }
        if (option == '?') {
            fputs("mqsyncctl --help lists commands and options\n", stderr);
            return CTL_FAILED;
        }
        if (take_option(c, option))
            return CTL_FAILED;
        if (!strchr(given, option))
            given[strlen(given)] = (char)option;
    }
    return -1;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int check_usage(const struct mqsync_ctl *c, const struct command *command, const char *given)
{
    for (; *given; given++) {
        if (strchr("Dcjq", *given) || strchr(command->options, *given))
            continue;
        for (const struct option *o = options; o->name; o++) {
            if (o->val == *given)
                return mqsync_ctl_fail("%s takes no --%s; mqsyncctl --help", command->name, o->name);
        }
    }
    if (c->args_n < command->args_least || c->args_n > command->args_most)
        return mqsync_ctl_fail("usage: mqsyncctl %s%s%s", command->name, *command->args ? " " : "", command->args);
    return CTL_DONE;
}

/* --- where things are ------------------------------------------------------------------------------------------- */

static int load_config(struct mqsync_ctl *c, const struct command *command)
{
    struct mqsync_error e;
    if (!c->config_file && (command->needs == NEEDS_CONFIG || !c->db) && access(MQSYNC_CTL_CONFIG, F_OK) == 0)
        c->config_file = MQSYNC_CTL_CONFIG;
    if (c->config_file && mqsync_config_load(c->config_file, &c->config, &e) != MQSYNC_OK)
        return mqsync_ctl_fail("%s", e.text);
    return CTL_DONE;
}

static int find_database(struct mqsync_ctl *c)
{
    c->dir = c->db ? c->db : c->config ? c->config->database : NULL;
    if (c->dir)
        return CTL_DONE;
    if (!c->config)
        return mqsync_ctl_fail("which database? Say --db DIR, or --config FILE for the one that mqsync.json names "
                               "(there is no " MQSYNC_CTL_CONFIG " here)");
    return mqsync_ctl_fail("%s names no \"database\"; say --db DIR (the broker's plugin_opt_db_path, or mqsync in its "
                           "persistence_location)",
                           c->config->path);
}

/* With auth.mqtt the broker does not start without the key. Otherwise it is the bridge's, perhaps on another host. */
static enum mqsync_code check_key(const struct mqsync_config *config, const char *file, struct mqsync_error *ret_error)
{
    struct mqsync_token_verifier *verifier;
    struct mqsync_error e;
    if (!config->auth.mqtt)
        return MQSYNC_OK;
    if (mqsync_token_verifier_open(config, &verifier, &e) != MQSYNC_OK) {
        mqsync_text_tame(e.text);
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "%s: %s", file, e.text);
    }
    mqsync_token_verifier_close(verifier);
    return MQSYNC_OK;
}

int mqsync_ctl_check_config(struct mqsync_ctl *c)
{
    struct mqsync_error e;
    const char *file = c->args_n ? c->args[0] : c->config_file ? c->config_file : MQSYNC_CTL_CONFIG;
    enum mqsync_code code = mqsync_config_load(file, &c->config, &e);
    if (code == MQSYNC_OK)
        code = check_key(c->config, file, &e);
    if (!c->json && code)
        mqsync_ctl_fail("%s", e.text);
    else if (!c->json && !c->quiet)
        printf("%s: OK\n", file);
    if (c->json) {
        struct mqsync_buf out = {0};
        mqsync_buf_add_char(&out, '{');
        mqsync_line_string(&out, "file", mqsync_slice_str(file));
        mqsync_line_raw(&out, "ok", code ? "false" : "true");
        if (code)
            mqsync_line_string(&out, "error", mqsync_slice_str(e.text));
        mqsync_line_end(&out);
        fwrite(out.p, 1, out.n, stdout);
        mqsync_buf_free(&out);
    }
    return mqsync_ctl_flush(code ? CTL_WRONG : CTL_DONE);
}

static int run(struct mqsync_ctl *c, int argc, char **argv)
{
    char given[sizeof options / sizeof *options] = "";
    int status = parse_options(c, argc, argv, given);
    if (status >= 0)
        return mqsync_ctl_flush(status);
    if (optind == argc)
        return mqsync_ctl_fail("which command? mqsyncctl --help lists them");
    const struct command *command = find_command(argv[optind]);
    if (!command)
        return mqsync_ctl_fail("there is no command \"%s\"; mqsyncctl --help lists them", argv[optind]);
    c->args = argv + optind + 1;
    c->args_n = argc - optind - 1;
    status = check_usage(c, command, given);
    if (status == CTL_DONE && command->needs != NEEDS_NOTHING)
        status = load_config(c, command);
    if (status == CTL_DONE && command->needs == NEEDS_DATABASE) {
        status = find_database(c);
        catch_crashes(c, command);
    }
    return status ? status : command->run(c);
}

int main(int argc, char **argv)
{
    struct mqsync_ctl c = {.ttl = TTL_SECONDS};
    if (!mqsync_std_fds_hold())
        return CTL_FAILED;
    c.roles = calloc((size_t)argc + 1, sizeof *c.roles);
    int status = c.roles ? run(&c, argc, argv) : mqsync_ctl_fail("out of memory");
    mqsync_config_free(c.config);
    free(c.roles);
    return status;
}
