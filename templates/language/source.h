/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source text, places in it, and what is wrong there.
 *
 * Every token, node and message carries a Range: bytes [start, end) of one Source. Lines and columns are
 * worked out only when a message is shown. A run collects as many diagnostics as it finds; nobody prints here.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_SOURCE_H
#define KILN_TEMPLATES_LANGUAGE_SOURCE_H

#include "templates/language/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#define SOURCE_SIZE_MAX (10u * 1024 * 1024)
#define DIAGNOSTICS_MAX 100 /* more are counted, not kept */

typedef struct Source Source;
struct Source {
    const char *name; /* as the user wrote it, for messages */
    const char *text; /* valid UTF-8 without NUL, NUL-terminated; a byte order mark is left out */
    size_t size;
    const Source *outer;     /* the text this was taken out of (a string of JSON), or NULL; messages speak of that one */
    const uint32_t *places;  /* with outer: where each byte, and the end, stands in it */
};

typedef struct Range {
    const Source *source;
    uint32_t start, end;
} Range;

typedef struct Position {
    unsigned line, column; /* from 1; columns count characters as a reader sees them */
    size_t byte;
} Position;

typedef struct Diagnostic {
    Range range;
    const char *text; /* one sentence without final stop */
} Diagnostic;

typedef struct Diagnostics {
    Arena *arena;
    GPtrArray *list; /* of Diagnostic* in the arena */
    unsigned count;  /* of all, kept or not */
    bool gave_up;    /* told already that the limit of memory is reached: nothing more is computed */
} Diagnostics;

/* Copies @text into the arena. Bad UTF-8, NUL bytes and too large texts become a diagnostic and NULL. */
Source *source_new(Diagnostics *diagnostics, const char *name, const char *text, size_t size);

/* Characters of @size bytes as a reader counts them: what a column counts. */
size_t text_columns(const char *text, size_t size);
const char *text_next(const char *text); /* past one of them; @text is not at its end */

Range range_join(Range first, Range last);
Range range_outermost(Range range);
const char *range_file(Range range);
Position range_start(Range range);
Position range_end(Range range);

void diagnostics_init(Diagnostics *diagnostics, Arena *arena);
void diagnostics_clear(Diagnostics *diagnostics);
void diagnose(Diagnostics *diagnostics, Range range, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* "; did you mean 'x'?" in the arena, or "". */
const char *did_you_mean(Arena *arena, const char *word, const char *const *candidates);

/* "FILE:LINE:COLUMN: sentence", the line, and a caret under the range; free with g_free. */
char *diagnostic_format(const Diagnostic *diagnostic);

/* All of them in the order of their places, separated by newlines; free with g_free. */
char *diagnostics_format(const Diagnostics *diagnostics);

#endif
