/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arena: chunks handed out from the front; what is larger gets a chunk of its own. The first chunk has 64 KiB, and each is
 * twice as large as the one before it up to 4 MiB: a console's line costs little.
 *
 * Large chunks are mapped and ask for huge pages. A template of ten megabytes makes hundreds of megabytes of tree and values, and
 * a third of its time went into the kernel's handing out of single pages.
 */
#include "templates/language/arena.h"

#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK_FIRST = 64 * 1024, CHUNK_MOST = 4 * 1024 * 1024, MAP_LEAST = 2 * 1024 * 1024, ALIGN = 8 };

typedef struct Chunk {
    void *memory;
    size_t mapped; /* bytes; 0: it is from malloc */
} Chunk;

struct Arena {
    GArray *chunks; /* of Chunk */
    char *at;
    size_t left;
    size_t chunk; /* bytes of the one that is being handed out */
    size_t used;
};

Arena *arena_new(void)
{
    Arena *arena = g_new0(Arena, 1);

    arena->chunks = g_array_new(FALSE, FALSE, sizeof(Chunk));
    return arena;
}

void arena_free(Arena *arena)
{
    if (!arena)
        return;
    for (guint i = 0; i < arena->chunks->len; i++) {
        Chunk *chunk = &g_array_index(arena->chunks, Chunk, i);

        if (chunk->mapped)
            (void)munmap(chunk->memory, chunk->mapped);
        else
            g_free(chunk->memory);
    }
    g_array_unref(arena->chunks);
    g_free(arena);
}

static void *chunk_new(Arena *arena, size_t size)
{
    Chunk chunk = { .memory = MAP_FAILED };

    if (size >= MAP_LEAST)
        chunk.memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk.memory != MAP_FAILED) {
        chunk.mapped = size;
        (void)madvise(chunk.memory, size, MADV_HUGEPAGE); /* single pages do too */
    } else {
        chunk.memory = g_malloc0(size);
    }
    g_array_append_val(arena->chunks, chunk);
    return chunk.memory;
}

void *arena_alloc(Arena *arena, size_t size)
{
    void *result;

    g_assert(size < G_MAXSIZE - ALIGN);
    size = (MAX(size, (size_t)1) + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    arena->used += size;
    if (size > arena->left && size > CHUNK_FIRST / 4)
        return chunk_new(arena, size);
    if (size > arena->left) {
        arena->chunk = arena->chunk ? MIN(arena->chunk * 2, (size_t)CHUNK_MOST) : CHUNK_FIRST;
        arena->at = chunk_new(arena, arena->chunk);
        arena->left = arena->chunk;
    }
    result = arena->at;
    arena->at += size;
    arena->left -= size;
    return result;
}

char *arena_strndup(Arena *arena, const char *text, size_t size)
{
    char *copy = arena_alloc(arena, size + 1);

    memcpy(copy, text, size);
    return copy;
}

char *arena_strdup(Arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *arena_printf(Arena *arena, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    return arena_strdup(arena, text);
}

size_t arena_used(const Arena *arena)
{
    return arena->used;
}

void *arena_take_pointers(Arena *arena, const GPtrArray *list)
{
    void **copy = arena_alloc(arena, sizeof(void *) * list->len);

    if (list->len > 0)
        memcpy(copy, list->pdata, sizeof(void *) * list->len);
    return copy;
}
