/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzers of the store's formats share: a folder in memory, a small store in it, and inputs that change a few bytes of something valid,
 * because a fuzzer alone does not find its way past a checksum.
 */
#ifndef KILN_TESTS_FUZZ_STORE_H
#define KILN_TESTS_FUZZ_STORE_H

#include "base/file.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *fuzz_folder;

static inline void fuzz_remove_folder(void)
{
    (void)file_remove_tree(AT_FDCWD, fuzz_folder, NULL);
}

/* Made on first use, gone when the fuzzer ends in order. */
static inline const char *fuzz_dir(void)
{
    if (!fuzz_folder) {
        fuzz_folder = g_strdup(access("/dev/shm", W_OK) == 0 ? "/dev/shm/kiln-fuzz-XXXXXX" : "/tmp/kiln-fuzz-XXXXXX");
        if (!mkdtemp(fuzz_folder))
            abort();
        (void)atexit(fuzz_remove_folder);
    }
    return fuzz_folder;
}

static inline char *fuzz_path(const char *name)
{
    return g_build_filename(fuzz_dir(), name, NULL);
}

static inline void fuzz_write(const char *name, const void *data, size_t size)
{
    g_autofree char *path = fuzz_path(name), *folder = g_path_get_dirname(path);
    int fd;

    if (!file_make_dirs(folder, 0755, NULL) || (fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0)
        abort();
    if (!file_write_full(fd, data, size, path, NULL) || close(fd) < 0)
        abort();
}

static inline Store *fuzz_open(const char *name, unsigned flags)
{
    g_autofree char *path = fuzz_path(name);
    Store *store = NULL;

    (void)store_open(path, flags, &store, NULL);
    return store;
}

/* Blocks that compress, and differ by @seed. */
static inline void fuzz_fill(uint8_t *bytes, size_t size, unsigned seed)
{
    memset(bytes, 0, size);
    for (size_t i = 0; i + STORE_BLOCK_SIZE <= size; i += STORE_BLOCK_SIZE)
        for (unsigned k = 0; k < 64; k++)
            bytes[i + k] = (uint8_t)(seed + k * 7 + i / STORE_BLOCK_SIZE);
}

/* A public map of @blocks blocks, committed. */
static inline Digest fuzz_map(Store *store, unsigned blocks, unsigned seed)
{
    g_autofree uint8_t *bytes = g_malloc((size_t)blocks * STORE_BLOCK_SIZE);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    fuzz_fill(bytes, (size_t)blocks * STORE_BLOCK_SIZE, seed);
    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, NULL) ||
        !map_writer_new(writer, (uint64_t)blocks * STORE_BLOCK_SIZE, NULL, &map, NULL) ||
        !map_writer_write(map, 0, bytes, (size_t)blocks * STORE_BLOCK_SIZE, NULL) || !map_writer_finish(map, NULL) ||
        !store_writer_commit(writer, NULL))
        abort();
    map_writer_result(map, &result);
    return result.digest;
}

/* [offset 3 | length 1 | bytes]* written over @base; what leads beyond its end is left out. */
static inline void fuzz_patch(uint8_t *base, size_t size, const uint8_t *data, size_t left)
{
    while (left >= 4) {
        size_t at = (size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16, n = MIN(data[3], left - 4);

        if (at < size)
            memcpy(base + at, data + 4, MIN(n, size - at));
        data += 4 + n;
        left -= 4 + n;
    }
}

/* A file in memory with these bytes; the caller closes it. */
static inline int fuzz_memory_file(const void *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    if (fd < 0 || !file_write_full(fd, data, size, "memory", NULL))
        abort();
    return fd;
}

#endif
