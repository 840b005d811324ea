/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An arena: memory that lives as long as one template does.
 *
 * Text, syntax tree and values are made while a template is read and all end
 * together, so nothing in the language is freed one by one and a value may be
 * shared freely: it never changes after it was made. arena_used() lets the
 * evaluator stop a template that multiplies itself.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_ARENA_H
#define KILN_TEMPLATES_LANGUAGE_ARENA_H

#include <glib.h>
#include <stddef.h>

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *arena);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Arena, arena_free)

void *arena_alloc(Arena *arena, size_t size); /* zeroed, aligned to 8 bytes */
char *arena_strndup(Arena *arena, const char *text, size_t size);
char *arena_strdup(Arena *arena, const char *text);
char *arena_printf(Arena *arena, const char *format, ...) G_GNUC_PRINTF(2, 3);
size_t arena_used(const Arena *arena);

#define arena_new0(arena, type, count) ((type *)arena_alloc((arena), sizeof(type) * (size_t)(count)))

/* The collected pointers of @list as an array in the arena; an empty list gives a valid pointer too. */
void *arena_take_pointers(Arena *arena, const GPtrArray *list);

#endif
