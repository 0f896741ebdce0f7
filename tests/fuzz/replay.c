/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs a fuzz target over kept inputs, as an ordinary test: every file given, and every file below a directory given.
 * Exits 0 when there was at least one and all could be read; a finding ends the program by itself. */
#include <fts.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input lies in an allocation of exactly its size, so that sanitizers and valgrind see a read past it. */
static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t size = 0, part;
    char chunk[65536];

    if (!file) {
        perror(path);
        return -1;
    }
    while ((part = fread(chunk, 1, sizeof(chunk), file)) > 0) {
        uint8_t *grown = realloc(data, size + part);
        if (!grown)
            break;
        data = grown;
        for (size_t i = 0; i < part; i++)
            data[size++] = (uint8_t)chunk[i];
    }
    int failed = ferror(file) || !feof(file);
    fclose(file);
    if (failed)
        fprintf(stderr, "%s: could not be read to its end\n", path);
    else
        LLVMFuzzerTestOneInput(data ? data : (const uint8_t *)chunk, size);
    free(data);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    unsigned long inputs = 0;
    int failed = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE-OR-DIRECTORY...\n", argv[0]);
        return 2;
    }
    FTS *tree = fts_open(argv + 1, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!tree) {
        perror("fts_open");
        return 2;
    }
    for (FTSENT *entry; (entry = fts_read(tree));) {
        if (entry->fts_info == FTS_F) {
            inputs++;
            failed |= replay(entry->fts_path) != 0;
        } else if (entry->fts_info == FTS_NS || entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR) {
            fprintf(stderr, "%s: not readable\n", entry->fts_path);
            failed = 1;
        }
    }
    fts_close(tree);
    printf("%lu inputs\n", inputs);
    return failed || inputs == 0;
}
