/* SPDX-License-Identifier: BSD-3-Clause */
/* Power cuts, simulated on the database's files: powercut [--mixtures N] [--writes N] [--power] [--seed N]
 *
 * A writer runs with every write and sync of its files recorded (the functions below stand before libc's). Then, for
 * random moments of the recording, the files are built as a power cut at that moment could leave them: each 4 KiB page
 * as of the last sync, or as any write since has made it, at random. Each such mixture must open, be whole, hold a
 * prefix of the writes that misses nothing acknowledged before the last sync began, and have a new epoch when anything
 * acknowledged is gone. Exit status 0: all did. */
#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "store.h"

#define PAGE 4096
#define IDS 97

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* --- the recording ------------------------------------------------------------------------------------------------ */

enum file { DATA, LOG0, LOG1, LOG2, FILES };
static const char *const file_names[FILES] = {"data.mdb", "log.0", "log.1", "log.2"};

enum op_kind { WRITE, SYNC_BEGIN, SYNC_END, TRUNCATE, ACK };

struct op {
    enum op_kind kind;
    enum file file;
    uint64_t offset; /* TRUNCATE: the new size; ACK: the seq */
    uint32_t n;
    bool durable;  /* through a descriptor opened with O_DSYNC */
    uint32_t pair; /* SYNC_END: the index of its SYNC_BEGIN */
    char *bytes;
};

static struct op *ops;
static size_t ops_n, ops_cap;
static pthread_mutex_t ops_lock = PTHREAD_MUTEX_INITIALIZER;
static bool recording;
static char source[256];

/* Which of our files a descriptor is; FILES: none. */
static enum file file_of(int fd, bool *ret_durable)
{
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/thread-self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return FILES;
    path[n] = '\0';
    size_t prefix = strlen(source);
    if (strncmp(path, source, prefix) != 0 || path[prefix] != '/')
        return FILES;
    *ret_durable = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
    for (enum file f = DATA; f < FILES; f++) {
        if (strcmp(path + prefix + 1, file_names[f]) == 0)
            return f;
    }
    return FILES;
}

static size_t record(enum op_kind kind, enum file file, uint64_t offset, const void *bytes, size_t n, bool durable,
                     size_t pair)
{
    pthread_mutex_lock(&ops_lock);
    if (ops_n == ops_cap) {
        ops_cap = ops_cap ? ops_cap * 2 : 4096;
        ops = realloc(ops, ops_cap * sizeof *ops);
    }
    char *copy = n ? malloc(n) : NULL;
    if (!ops || (n && !copy))
        die("out of memory");
    if (n)
        memcpy(copy, bytes, n);
    ops[ops_n] = (struct op){kind, file, offset, (uint32_t)n, durable, (uint32_t)pair, copy};
    size_t index = ops_n++;
    pthread_mutex_unlock(&ops_lock);
    return index;
}

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))
#define EXPORTED __attribute__((visibility("default")))

/* The bytes are recorded before they are written: a sync that begins in between must not count them as written. */
static void record_write(int fd, const void *bytes, size_t n, off_t offset)
{
    bool durable = false;
    enum file file = recording ? file_of(fd, &durable) : FILES;
    if (file != FILES)
        record(WRITE, file, (uint64_t)offset, bytes, n, durable, 0);
}

EXPORTED ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    record_write(fd, bytes, n, offset);
    return REAL(pwrite)(fd, bytes, n, offset);
}

EXPORTED ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t offset)
{
    record_write(fd, bytes, n, offset);
    return REAL(pwrite64)(fd, bytes, n, offset);
}

static void record_vector(int fd, const struct iovec *v, int n, off_t offset)
{
    for (int i = 0; i < n; i++) {
        record_write(fd, v[i].iov_base, v[i].iov_len, offset);
        offset += (off_t)v[i].iov_len;
    }
}

EXPORTED ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset)
{
    record_vector(fd, v, n, offset);
    return REAL(pwritev)(fd, v, n, offset);
}

EXPORTED ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t offset)
{
    record_vector(fd, v, n, offset);
    return REAL(pwritev64)(fd, v, n, offset);
}

EXPORTED ssize_t writev(int fd, const struct iovec *v, int n)
{
    if (recording)
        record_vector(fd, v, n, lseek(fd, 0, SEEK_CUR));
    return REAL(writev)(fd, v, n);
}

EXPORTED ssize_t write(int fd, const void *bytes, size_t n)
{
    if (recording && fd > 2)
        record_write(fd, bytes, n, lseek(fd, 0, SEEK_CUR));
    return REAL(write)(fd, bytes, n);
}

static int synced(int fd, int (*real)(int))
{
    bool durable = false;
    enum file file = recording ? file_of(fd, &durable) : FILES;
    size_t begin = file != FILES ? record(SYNC_BEGIN, file, 0, NULL, 0, false, 0) : 0;
    int rc = real(fd);
    if (file != FILES && rc == 0)
        record(SYNC_END, file, 0, NULL, 0, false, begin);
    return rc;
}

EXPORTED int fdatasync(int fd)
{
    return synced(fd, REAL(fdatasync));
}

EXPORTED int fsync(int fd)
{
    return synced(fd, REAL(fsync));
}

EXPORTED int ftruncate(int fd, off_t size)
{
    bool durable;
    enum file file = recording ? file_of(fd, &durable) : FILES;
    if (file != FILES)
        record(TRUNCATE, file, (uint64_t)size, NULL, 0, false, 0);
    return REAL(ftruncate)(fd, size);
}

/* --- the writer --------------------------------------------------------------------------------------------------- */

static struct mqsync_error error;

static void id_of(unsigned write, char id[16])
{
    snprintf(id, 16, "r%u", write * 31 % IDS);
}

/* Write n (from 1) is seq n; every seventh deletes. */
static bool deletes(unsigned write)
{
    return write % 7 == 0;
}

static void data_of(unsigned write, char data[2048])
{
    int n = snprintf(data, 2048, "{\"write\":%u,\"fill\":\"", write);
    size_t fill = write * 17 % 900;
    memset(data + n, 'x', fill);
    memcpy(data + n + fill, "\"}", 3);
}

static void write_one(struct mqsync_store *s, struct mqsync_collection *c, unsigned write)
{
    static struct mqsync_record r;
    char id[16], data[2048];
    uint64_t floor;
    id_of(write, id);
    data_of(write, data);
    uint64_t version = 1;
    if (mqsync_store_get(s, c, mqsync_slice_str(id), &r, &floor, &error) == MQSYNC_OK)
        version = r.version + 1;
    int64_t now = mqsync_time_now();
    r = (struct mqsync_record){.version = version, .seq = write, .updated_ms = now, .deleted = deletes(write)};
    r.data = r.deleted ? (struct mqsync_slice){0} : mqsync_slice_str(data);
    r.history_n = 1;
    r.history[0] = (struct mqsync_change){.fingerprint = 1,
                                          .sent_ms = INT64_MIN,
                                          .arrived_ms = now,
                                          .effective_ms = now,
                                          .version = version,
                                          .seq = write,
                                          .op = r.deleted ? MQSYNC_DELETE : MQSYNC_UPDATE};
    if (mqsync_store_put(s, c, mqsync_slice_str(id), &r, &error) != MQSYNC_OK)
        die("the writer failed: %s", error.text);
}

static void run_writer(unsigned writes, bool power, char epoch[33])
{
    struct mqsync_store_options o = {.dir = source,
                                     .durability = power ? MQSYNC_DURABILITY_POWER : MQSYNC_DURABILITY_PROCESS,
                                     .sync_interval_ms = 3,
                                     .tombstone_days = 30,
                                     .boot_id = "before",
                                     .batch_bytes = 30000,
                                     .txn_entries = 9};
    struct mqsync_store *s;
    struct mqsync_collection *c;
    recording = true;
    if (mqsync_store_open(&o, &s, &error) != MQSYNC_OK ||
        mqsync_store_ensure(s, mqsync_slice_str("c"), 10, &c, &error) != MQSYNC_OK)
        die("the writer cannot start: %s", error.text);
    snprintf(epoch, 33, "%s", mqsync_store_epoch(s));
    for (unsigned i = 1; i <= writes; i++) {
        write_one(s, c, i);
        record(ACK, FILES, i, NULL, 0, false, 0);
        if (rand() % 20 == 0)
            nanosleep(&(struct timespec){0, rand() % 3000000}, NULL);
    }
    recording = false; /* the end is not a power cut's business: every moment before it is */
    mqsync_store_close(s);
}

/* --- the mixtures ------------------------------------------------------------------------------------------------- */

/* A page since its last sync: what it was then, and every state since, oldest first. */
struct page {
    char (*states)[PAGE]; /* states[0]: as synced */
    uint32_t *written_at; /* index of the op that made the state */
    unsigned n, cap;
};

struct model {
    struct page *pages;
    size_t pages_n;
    uint64_t size; /* as synced or truncated; a mixture is as long as its newest page at least */
};

static struct model models[FILES];

static void page_push(struct page *p, uint32_t at)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 2;
        p->states = realloc(p->states, p->cap * sizeof *p->states);
        p->written_at = realloc(p->written_at, p->cap * sizeof *p->written_at);
        if (!p->states || !p->written_at)
            die("out of memory");
    }
    if (p->n)
        memcpy(p->states[p->n], p->states[p->n - 1], PAGE);
    else
        memset(p->states[0], 0, PAGE);
    p->written_at[p->n++] = at;
}

static struct page *page_at(struct model *m, size_t index)
{
    if (index >= m->pages_n) {
        m->pages = realloc(m->pages, (index + 1) * sizeof *m->pages);
        if (!m->pages)
            die("out of memory");
        memset(m->pages + m->pages_n, 0, (index + 1 - m->pages_n) * sizeof *m->pages);
        m->pages_n = index + 1;
    }
    if (m->pages[index].n == 0)
        page_push(&m->pages[index], 0);
    return &m->pages[index];
}

/* The newest state written before op `before` becomes the synced one. */
static void page_sync(struct page *p, uint32_t before)
{
    unsigned keep = 0;
    for (unsigned i = 1; i < p->n; i++) {
        if (p->written_at[i] < before)
            keep = i;
    }
    if (keep == 0)
        return;
    memmove(p->states, p->states + keep, (p->n - keep) * sizeof *p->states);
    memmove(p->written_at, p->written_at + keep, (p->n - keep) * sizeof *p->written_at);
    p->n -= keep;
}

static void apply_write(const struct op *op, uint32_t at)
{
    struct model *m = &models[op->file];
    for (uint64_t done = 0; done < op->n;) {
        uint64_t offset = op->offset + done, in_page = offset % PAGE;
        uint64_t n = op->n - done < PAGE - in_page ? op->n - done : PAGE - in_page;
        struct page *p = page_at(m, offset / PAGE);
        page_push(p, at);
        memcpy(p->states[p->n - 1] + in_page, op->bytes + done, n);
        if (op->durable)
            page_sync(p, at + 1);
        done += n;
    }
    if (op->durable && op->offset + op->n > m->size)
        m->size = op->offset + op->n;
}

static void apply(const struct op *op, uint32_t at)
{
    switch (op->kind) {
    case WRITE:
        apply_write(op, at);
        break;
    case SYNC_END:
        for (size_t i = 0; i < models[op->file].pages_n; i++)
            page_sync(&models[op->file].pages[i], op->pair + 1);
        break;
    case TRUNCATE:
        models[op->file].size = op->offset;
        break;
    default:
        break;
    }
}

static void build_file(const char *dir, enum file f)
{
    static const char zeros[PAGE];
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file_names[f]);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    if (fd < 0)
        die("cannot make %s", path);
    const struct model *m = &models[f];
    size_t last = m->pages_n; /* how far the file reaches: a page that was never synced need not be there at all */
    while (last > 0 && m->pages[last - 1].n > 1 && m->pages[last - 1].written_at[0] == 0 && rand() % 2)
        last--;
    for (size_t i = 0; i < last; i++) {
        const struct page *p = &m->pages[i];
        const char *bytes = p->n ? p->states[(unsigned)rand() % p->n] : zeros;
        if (pwrite(fd, bytes, PAGE, (off_t)(i * PAGE)) != PAGE)
            die("cannot write %s", path);
    }
    close(fd);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void complain(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "check: %s\n", text);
}

/* What the first `writes` writes made of an id. */
static unsigned last_write_of(const char *id, unsigned writes, uint64_t *ret_version)
{
    unsigned last = 0;
    *ret_version = 0;
    for (unsigned i = 1; i <= writes; i++) {
        char other[16];
        id_of(i, other);
        if (strcmp(id, other) == 0) {
            last = i;
            ++*ret_version;
        }
    }
    return last;
}

static void check_prefix(struct mqsync_store *s, struct mqsync_collection *c, unsigned writes, size_t cut)
{
    for (unsigned k = 0; k < IDS; k++) {
        static struct mqsync_record r;
        char id[16], data[2048];
        uint64_t floor, version;
        snprintf(id, sizeof id, "r%u", k);
        unsigned last = last_write_of(id, writes, &version);
        enum mqsync_code code = mqsync_store_get(s, c, mqsync_slice_str(id), &r, &floor, &error);
        if ((code == MQSYNC_OK) != (last > 0))
            die("cut at %zu, %u writes kept: %s is %s", cut, writes, id, last ? "missing" : "there");
        if (last == 0)
            continue;
        data_of(last, data);
        if (r.version != version || r.seq != last || r.deleted != deletes(last) ||
            (!r.deleted && !mqsync_slice_equal(r.data, mqsync_slice_str(data))))
            die("cut at %zu, %u writes kept: %s is not what write %u made it", cut, writes, id, last);
    }
}

struct expected {
    uint64_t acked;  /* the last acknowledged write */
    uint64_t synced; /* the last one acknowledged before the newest complete sync of its log began */
    const char *epoch;
    bool power;
};

/* One mixture: built, opened, compared. Returns how many acknowledged writes are gone. */
static uint64_t try_mixture(const struct expected *e, size_t cut)
{
    char dir[300];
    struct mqsync_store *s;
    uint64_t wrong = 0, kept = 0;
    snprintf(dir, sizeof dir, "%s.cut", source);
    mkdir(dir, 0750);
    for (enum file f = DATA; f < FILES; f++)
        build_file(dir, f);
    struct mqsync_store_options o = {.dir = dir,
                                     .durability = e->power ? MQSYNC_DURABILITY_POWER : MQSYNC_DURABILITY_PROCESS,
                                     .sync_interval_ms = 100,
                                     .tombstone_days = 30,
                                     .boot_id = "after"};
    if (mqsync_store_open(&o, &s, &error) != MQSYNC_OK)
        die("cut at %zu: does not open: %s", cut, error.text);
    struct mqsync_collection *c = mqsync_store_find(s, MQSYNC_SLICE("c"));
    if (c) {
        struct mqsync_collection_stat stat;
        mqsync_collection_stat(c, &stat);
        kept = stat.seq;
        check_prefix(s, c, (unsigned)kept, cut);
    }
    bool same_epoch = strcmp(mqsync_store_epoch(s), e->epoch) == 0;
    if (kept < e->synced)
        die("cut at %zu: %llu writes kept, but %llu were acknowledged before the last sync", cut,
            (unsigned long long)kept, (unsigned long long)e->synced);
    if (kept < e->acked && (same_epoch || e->power))
        die("cut at %zu: %llu of %llu acknowledged writes kept, epoch %s", cut, (unsigned long long)kept,
            (unsigned long long)e->acked, same_epoch ? "the same" : "new");
    mqsync_store_close(s);
    if (mqsync_store_check(dir, complain, NULL, &wrong, &error) != MQSYNC_OK || wrong)
        die("cut at %zu: not whole: %s", cut, error.text);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return e->acked > kept ? e->acked - kept : 0;
}

static void run_mixtures(unsigned mixtures, size_t first, struct expected *e)
{
    uint64_t lost = 0, most = 0, ack_in[FILES] = {0}, ack_before_sync[FILES] = {0};
    unsigned done = 0, some_lost = 0;
    enum file log = LOG0;
    for (size_t i = 0; i < ops_n && done < mixtures; i++) {
        const struct op *op = &ops[i];
        apply(op, (uint32_t)i + 1);
        if (op->kind == WRITE && op->file != DATA)
            log = op->file;
        else if (op->kind == ACK)
            e->acked = ack_in[log] = op->offset;
        else if (op->kind == SYNC_BEGIN)
            ack_before_sync[op->file] =
                ack_in[op->file]; /* what is in the file by now; the segments before it are synced before it */
        else if (op->kind == SYNC_END && op->file != DATA && ack_before_sync[op->file] > e->synced)
            e->synced = ack_before_sync[op->file];
        if (e->power)
            e->synced = e->acked;
        /* as many cuts as are asked for, spread evenly at random */
        if (i < first || (uint64_t)rand() % (ops_n - first) >= mixtures)
            continue;
        uint64_t gone = try_mixture(e, i);
        lost += gone;
        most = gone > most ? gone : most;
        some_lost += gone > 0;
        done++;
    }
    printf("powercut: %u mixtures of %zu recorded operations opened whole; %u lost acknowledged writes (all with a new "
           "epoch), "
           "%llu at most, %.1f on average\n",
           done, ops_n, some_lost, (unsigned long long)most, done ? (double)lost / done : 0);
    if (done == 0)
        die("no mixture was tried");
}

int main(int argc, char **argv)
{
    unsigned mixtures = 1000, writes = 3000, seed = (unsigned)time(NULL);
    bool power = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--power") == 0)
            power = true;
        else if (i + 1 < argc && strcmp(argv[i], "--mixtures") == 0)
            mixtures = (unsigned)atoi(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--writes") == 0)
            writes = (unsigned)atoi(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
            seed = (unsigned)atoi(argv[++i]);
        else
            die("usage: powercut [--mixtures N] [--writes N] [--power] [--seed N]");
    }
    printf("powercut: seed %u\n", seed);
    srand(seed);
    const char *tmp = getenv("TMPDIR");
    snprintf(source, sizeof source, "%s/mqsync-powercut-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(source))
        die("cannot make a directory in %s", tmp ? tmp : "/tmp");
    struct expected e = {.power = power};
    char epoch[33];
    run_writer(writes, power, epoch);
    e.epoch = epoch;
    /* a database that was never complete has nothing to lose: begin with the first acknowledgement */
    size_t first = 0;
    while (first < ops_n && ops[first].kind != ACK)
        first++;
    run_mixtures(mixtures, first, &e);
    nftw(source, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
