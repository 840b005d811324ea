/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arena: chunks of 64 KiB handed out from the front; what is larger gets a chunk of its own.
 */
#include "templates/language/arena.h"

#include <stdarg.h>
#include <string.h>

enum { CHUNK_SIZE = 64 * 1024, ALIGN = 16 };

struct Arena {
    GPtrArray *chunks;
    char *at;
    size_t left;
    size_t used;
};

Arena *arena_new(void)
{
    Arena *arena = g_new0(Arena, 1);

    arena->chunks = g_ptr_array_new_with_free_func(g_free);
    return arena;
}

void arena_free(Arena *arena)
{
    if (!arena)
        return;
    g_ptr_array_unref(arena->chunks);
    g_free(arena);
}

void *arena_alloc(Arena *arena, size_t size)
{
    void *result;

    g_assert(size < G_MAXSIZE - ALIGN);
    size = (MAX(size, (size_t)1) + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    arena->used += size;
    if (size > CHUNK_SIZE / 4) {
        result = g_malloc0(size);
        g_ptr_array_add(arena->chunks, result);
        return result;
    }
    if (size > arena->left) {
        arena->at = g_malloc0(CHUNK_SIZE);
        arena->left = CHUNK_SIZE;
        g_ptr_array_add(arena->chunks, arena->at);
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
