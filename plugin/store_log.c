/* SPDX-License-Identifier: BSD-3-Clause */
/* The write-ahead log. It is written with pwrite, not through a mapping: a full disk must be an error, not a SIGBUS in
 * the broker. Three preallocated files take turns, so that nothing is created, renamed or deleted while running.
 *
 * A file: a header, then entries {length, checksum, payload}. The checksum is seeded with epoch, segment and offset, so
 * that what an earlier turn left in the file is never taken for an entry. Reading stops at the first that is not whole.
 */
#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "store_internal.h"

#define HEADER_BYTES 64
#define PAGE_BYTES 4096
#define FIRST_BYTES (64 * 1024)
#define ENTRY_HEAD 12                  /* u32 length, u64 checksum */
#define ENTRY_MAX (512u * 1024 * 1024) /* no payload is longer: data is at most 256 MiB (limits.maxRecordBytes) */
#define KEEP_BYTES (32 * 1024 * 1024)  /* a file that grew past this is cut when its turn comes again */

struct header {
    char magic[8];
    uint64_t segment;
    uint64_t previous_end; /* where segment - 1 ended; 0: nothing before this segment is missed */
    unsigned char epoch[16];
    char spare[16];
    uint64_t checksum; /* of the bytes before it */
};
_Static_assert(sizeof(struct header) == HEADER_BYTES, "the header is 64 bytes on disk");

static const char MAGIC[8] = "MQSLOG1";

static uint64_t segment_seed(const unsigned char epoch[16], uint64_t segment)
{
    return XXH3_64bits_withSeed(epoch, 16, segment);
}

static uint64_t entry_checksum(uint64_t seed, uint64_t offset, const void *payload, size_t n)
{
    return XXH3_64bits_withSeed(payload, n, seed + offset);
}

static bool header_valid(const struct header *h)
{
    return memcmp(h->magic, MAGIC, sizeof MAGIC) == 0 && h->segment != 0 &&
           h->checksum == XXH3_64bits(h, offsetof(struct header, checksum));
}

static void file_name(char *out, size_t n, const char *dir, unsigned i)
{
    snprintf(out, n, "%s/log.%u", dir, i);
}

/* All of it or an error; errno tells. */
static bool write_all(int fd, const void *bytes, size_t n, uint64_t offset)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t done = pwrite(fd, p, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            if (done == 0)
                errno = ENOSPC;
            return false;
        }
        p += done;
        n -= (size_t)done;
        offset += (size_t)done;
    }
    return true;
}

static enum mqsync_code open_file(struct mqsync_log *log, const char *dir, unsigned i, struct mqsync_error *ret_error)
{
    char name[4096];
    file_name(name, sizeof name, dir, i);
    log->fd[i] = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (log->fd[i] < 0)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot open %s: %s", name, strerror(errno));
    struct stat st;
    if (fstat(log->fd[i], &st) == 0 && st.st_size >= FIRST_BYTES)
        return MQSYNC_OK;
    /* blocks for the header and the first entries, so that starting a segment needs no space on a full disk */
    int rc = posix_fallocate(log->fd[i], 0, FIRST_BYTES);
    if (rc != 0 || fsync(log->fd[i]) != 0)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot allocate %u KiB for %s: %s", FIRST_BYTES / 1024,
                           name, strerror(rc ? rc : errno));
    return MQSYNC_OK;
}

enum mqsync_code mqsync_log_open(struct mqsync_log *log, const char *dir, struct mqsync_error *ret_error)
{
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++)
        log->fd[i] = -1;
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++) {
        enum mqsync_code code = open_file(log, dir, i, ret_error);
        if (code) {
            mqsync_log_close(log);
            return code;
        }
    }
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd >= 0) {
        fsync(dir_fd); /* the names must be there after a power cut; a file system that cannot has them anyway */
        close(dir_fd);
    }
    return MQSYNC_OK;
}

void mqsync_log_close(struct mqsync_log *log)
{
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++) {
        if (log->fd[i] >= 0)
            close(log->fd[i]);
        log->fd[i] = -1;
    }
    mqsync_buf_free(&log->scratch);
}

enum mqsync_code mqsync_log_start(struct mqsync_log *log, const unsigned char epoch[16], uint64_t segment,
                                  uint64_t previous_end, struct mqsync_error *ret_error)
{
    struct header h = {.segment = segment, .previous_end = previous_end};
    char page[PAGE_BYTES] = {0};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    memcpy(h.epoch, epoch, sizeof h.epoch);
    h.checksum = XXH3_64bits(&h, offsetof(struct header, checksum));
    memcpy(page, &h, sizeof h);
    int fd = log->fd[segment % MQSYNC_LOG_FILES];
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_size > KEEP_BYTES && ftruncate(fd, KEEP_BYTES) != 0)
        errno = 0; /* it stays long: no harm */
    if (!write_all(fd, page, sizeof page, 0))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot write the log: %s", strerror(errno));
    memcpy(log->epoch, epoch, 16);
    log->segment = segment;
    log->end = HEADER_BYTES;
    log->pages_end = PAGE_BYTES;
    log->seed = segment_seed(epoch, segment);
    return MQSYNC_OK;
}

/* Fills up the last page that the bytes in b reach, unless it has been begun before. A page of which only a part is
 * written would have to be read first when the kernel has dropped it since the file's last turn, and the broker's
 * thread would wait for the disk. */
static void fill_page(const struct mqsync_log *log, struct mqsync_buf *b)
{
    uint64_t end = log->end + b->n;
    if (end <= log->pages_end)
        return;
    size_t rest = (size_t)(-end % PAGE_BYTES);
    char *zeros = mqsync_buf_reserve(b, rest);
    if (zeros)
        memset(zeros, 0, rest);
    b->n += zeros ? rest : 0;
}

enum mqsync_code mqsync_log_append(struct mqsync_log *log, const struct mqsync_log_entry *entry,
                                   struct mqsync_error *ret_error)
{
    struct mqsync_buf *b = &log->scratch;
    mqsync_buf_clear(b);
    char head[ENTRY_HEAD + 6] = {0};
    head[ENTRY_HEAD] = (char)entry->kind;
    head[ENTRY_HEAD + 1] = (char)entry->id.n;
    memcpy(head + ENTRY_HEAD + 2, &entry->cid, 4);
    mqsync_buf_add(b, head, sizeof head);
    mqsync_buf_add_slice(b, entry->id);
    mqsync_buf_add_slice(b, entry->stored);
    size_t entry_n = b->n;
    fill_page(log, b);
    if (b->failed)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "out of memory");
    if (entry_n - ENTRY_HEAD > ENTRY_MAX) /* would not be read back, nor what follows it */
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "the change has %zu bytes: too long for the log", entry_n);
    uint32_t n = (uint32_t)(entry_n - ENTRY_HEAD);
    uint64_t checksum = entry_checksum(log->seed, log->end, b->p + ENTRY_HEAD, n);
    memcpy(b->p, &n, 4);
    memcpy(b->p + 4, &checksum, 8);
    if (!write_all(mqsync_log_fd(log, log->segment), b->p, b->n, log->end))
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot keep the change: %s", strerror(errno));
    if (b->n > entry_n)
        log->pages_end = log->end + b->n;
    log->end += entry_n;
    return MQSYNC_OK;
}

void mqsync_log_undo(struct mqsync_log *log, uint64_t end)
{
    static const char nothing[ENTRY_HEAD];
    int why = errno;
    /* over blocks that have just been written, so this needs no space; were it to fail all the same, the next append
     * covers them */
    if (!write_all(mqsync_log_fd(log, log->segment), nothing, sizeof nothing, end))
        errno = why; /* the caller's failure is the one to tell */
    log->end = end;
}

/* --- reading back ------------------------------------------------------------------------------------------------- */

static bool read_header(int fd, struct header *ret)
{
    return pread(fd, ret, sizeof *ret, 0) == (ssize_t)sizeof *ret && header_valid(ret);
}

uint64_t mqsync_log_highest(const struct mqsync_log *log)
{
    uint64_t highest = 0;
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++) {
        struct header h;
        if (read_header(log->fd[i], &h) && h.segment > highest)
            highest = h.segment;
    }
    return highest;
}

/* The whole file; NULL with errno. */
static char *read_file(int fd, size_t *ret_n)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return NULL;
    char *bytes = malloc((size_t)st.st_size + 1);
    if (!bytes)
        return NULL;
    size_t n = 0;
    while (n < (size_t)st.st_size) {
        ssize_t got = pread(fd, bytes + n, (size_t)st.st_size - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(bytes);
            return NULL;
        }
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret_n = n;
    return bytes;
}

static bool parse_payload(struct mqsync_slice payload, struct mqsync_log_entry *ret)
{
    if (payload.n < 6)
        return false;
    *ret = (struct mqsync_log_entry){.kind = (enum mqsync_log_kind)(unsigned char)payload.p[0]};
    size_t id_n = (unsigned char)payload.p[1];
    memcpy(&ret->cid, payload.p + 2, 4);
    if (payload.n - 6 < id_n)
        return false;
    ret->id = (struct mqsync_slice){payload.p + 6, id_n};
    ret->stored = (struct mqsync_slice){payload.p + 6 + id_n, payload.n - 6 - id_n};
    switch (ret->kind) {
    case MQSYNC_LOG_COLLECTION:
        return mqsync_collection_valid(ret->id) && ret->stored.n == 0;
    case MQSYNC_LOG_RECORD:
        return id_n > 0 && id_n <= MQSYNC_MAX_RECORD_ID && ret->stored.n > 0;
    }
    return false;
}

/* Hands out a segment's whole entries. Returns where they end; 0 when `each` said stop. */
static uint64_t parse_segment(const char *bytes, size_t n, uint64_t seed,
                              bool (*each)(void *, const struct mqsync_log_entry *), void *context)
{
    uint64_t at = HEADER_BYTES;
    while (n >= ENTRY_HEAD && at <= n - ENTRY_HEAD) {
        uint32_t length;
        uint64_t checksum;
        memcpy(&length, bytes + at, 4);
        memcpy(&checksum, bytes + at + 4, 8);
        if (length == 0 || length > ENTRY_MAX || length > n - at - ENTRY_HEAD)
            break;
        const char *payload = bytes + at + ENTRY_HEAD;
        struct mqsync_log_entry entry;
        if (checksum != entry_checksum(seed, at, payload, length) ||
            !parse_payload((struct mqsync_slice){payload, length}, &entry))
            break;
        if (!each(context, &entry))
            return 0;
        at += ENTRY_HEAD + length;
    }
    return at;
}

struct files {
    int fd[MQSYNC_LOG_FILES];
    struct header header[MQSYNC_LOG_FILES];
    bool valid[MQSYNC_LOG_FILES];
};

static void files_open(struct files *f, const char *dir, const unsigned char epoch[16])
{
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++) {
        char name[4096];
        file_name(name, sizeof name, dir, i);
        f->fd[i] = open(name, O_RDONLY | O_CLOEXEC);
        f->valid[i] = f->fd[i] >= 0 && read_header(f->fd[i], &f->header[i]) &&
                      memcmp(f->header[i].epoch, epoch, 16) == 0 && f->header[i].segment % MQSYNC_LOG_FILES == i;
    }
}

static void files_close(struct files *f)
{
    for (unsigned i = 0; i < MQSYNC_LOG_FILES; i++) {
        if (f->fd[i] >= 0)
            close(f->fd[i]);
    }
}

static bool files_have(const struct files *f, uint64_t segment)
{
    unsigned i = segment % MQSYNC_LOG_FILES;
    return f->valid[i] && f->header[i].segment == segment;
}

/* One segment. *ret_end: where its entries end. */
static enum mqsync_code read_segment(const struct files *f, uint64_t segment,
                                     bool (*each)(void *, const struct mqsync_log_entry *), void *context,
                                     uint64_t *ret_end, struct mqsync_error *ret_error)
{
    unsigned i = segment % MQSYNC_LOG_FILES;
    size_t n = 0;
    char *bytes = read_file(f->fd[i], &n);
    if (!bytes)
        return mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot read the log: %s", strerror(errno));
    /* had the file begun its next turn before it was read, the header says so now */
    struct header again;
    enum mqsync_code code = MQSYNC_OK;
    if (!read_header(f->fd[i], &again) || again.segment != segment)
        code = MQSYNC_CONFLICT;
    else if (!(*ret_end = parse_segment(bytes, n, segment_seed(f->header[i].epoch, segment), each, context)))
        code = mqsync_fail(ret_error, MQSYNC_SERVER_ERROR, "cannot take over the log: out of memory or damaged entry");
    free(bytes);
    return code;
}

enum mqsync_code mqsync_log_read(const char *dir, const unsigned char epoch[16], uint64_t applied,
                                 bool (*each)(void *context, const struct mqsync_log_entry *entry), void *context,
                                 uint64_t *ret_last, struct mqsync_error *ret_error)
{
    struct files f;
    files_open(&f, dir, epoch);
    enum mqsync_code code = MQSYNC_OK;
    uint64_t segment = applied, end = 0;
    while (code == MQSYNC_OK && files_have(&f, segment + 1)) {
        const struct header *h = &f.header[(segment + 1) % MQSYNC_LOG_FILES];
        /* the tail of the segment before was lost (power cut): what came after it must not be kept without it */
        if (segment > applied && h->previous_end > end)
            break;
        segment++;
        code = read_segment(&f, segment, each, context, &end, ret_error);
    }
    *ret_last = segment;
    if (segment ==
        applied) { /* nothing follows: either all is in LMDB, or the files have gone round since its snapshot */
        for (unsigned i = 0; i < MQSYNC_LOG_FILES && code == MQSYNC_OK; i++) {
            if (f.valid[i] && f.header[i].segment > applied + 1)
                code = MQSYNC_CONFLICT;
        }
    }
    files_close(&f);
    return code;
}
