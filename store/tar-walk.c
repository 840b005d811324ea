/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks headers only. @literal_start is where the bytes begin that no span has covered yet.
 */
#include "store/tar-walk.h"

#include "base/file.h"
#include "store/tar-header.h"

#include <string.h>

#define EXTENSION_MAX (1u << 20)    /* a larger extension header is content */
#define ZEROES_MAX (64u * 1024u)    /* more zeroes than this in a row are content: they cost nothing there */
#define SPARSE_MORE 482             /* in a GNU sparse header: more of its list follows */
#define SPARSE_MORE_EXTENDED 504    /* the same in the blocks that follow */
#define SPARSE_BLOCKS_MAX 65536

typedef struct Walk {
    const uint8_t *data;
    uint64_t size, at, literal_start;
    uint64_t next_size; /* what a pax header says of the next member */
    bool has_next_size;
    TarSpanFn *fn;
    void *arg;
} Walk;

/* Content from @at on, @size bytes. */
static bool emit(Walk *w, uint64_t size, GError **error)
{
    uint64_t literal = w->at - w->literal_start;

    w->at += size;
    w->literal_start = w->at;
    return literal == 0 && size == 0 ? true : w->fn(literal, size, w->arg, error);
}

/* "<length> size=<digits>\n" among the records; a malformed record ends the search. */
static void read_pax_size(Walk *w, const char *text, uint64_t size)
{
    for (uint64_t at = 0; at < size;) {
        uint64_t length = 0, i = at;

        while (i < size && i < at + 10 && g_ascii_isdigit(text[i]))
            length = length * 10 + (uint64_t)(text[i++] - '0');
        if (i == at || i >= size || text[i] != ' ' || length <= i + 1 - at || length > size - at)
            return;
        if (length > i + 6 - at && memcmp(text + i + 1, "size=", 5) == 0) {
            g_autofree char *digits = g_strndup(text + i + 6, (gsize)(at + length - (i + 6)));

            w->next_size = g_ascii_strtoull(digits, NULL, 10);
            w->has_next_size = true;
        }
        at += length;
    }
}

static bool is_extension(char type)
{
    return type == 'x' || type == 'g' || type == 'L' || type == 'K' || type == 'X';
}

/* Blocks that go on with the list of an old GNU sparse header. */
static void skip_sparse_list(Walk *w, const TarUstar *u)
{
    bool more = ((const uint8_t *)u)[SPARSE_MORE] != 0;

    for (unsigned i = 0; more && i < SPARSE_BLOCKS_MAX && w->size - w->at >= TAR_BLOCK; i++) {
        more = w->data[w->at + SPARSE_MORE_EXTENDED] != 0;
        w->at += TAR_BLOCK;
    }
}

static uint64_t content_size(Walk *w, const TarUstar *u, uint64_t size)
{
    if (w->has_next_size && !is_extension(u->type))
        size = w->next_size;
    if (!is_extension(u->type))
        w->has_next_size = false;
    return u->type >= '1' && u->type <= '6' ? 0 : size; /* links, devices and folders have none, whatever they say */
}

/* A header at @at: true when it was one, and @at is behind its content and padding. */
static bool step_header(Walk *w, bool *ret_done, GError **error)
{
    const TarUstar *u = (const TarUstar *)(w->data + w->at);
    uint64_t size;

    *ret_done = !tar_checksum_fits(u) || !tar_get_number(u->size, sizeof(u->size), &size);
    if (*ret_done)
        return true;
    w->at += TAR_BLOCK;
    if (u->type == 'S')
        skip_sparse_list(w, u);
    size = content_size(w, u, size);
    if (size > w->size - w->at) { /* it ends too early */
        *ret_done = true;
        return true;
    }
    if (is_extension(u->type) && size <= EXTENSION_MAX) {
        if (u->type == 'x')
            read_pax_size(w, (const char *)w->data + w->at, size);
        w->at += size;
    } else if (size && !emit(w, size, error)) {
        return false;
    }
    w->at += MIN(tar_padding(size), w->size - w->at);
    return true;
}

/* Zero blocks: the end, or what is between two archives. */
static bool step_zeroes(Walk *w, bool *ret_any, GError **error)
{
    uint64_t end = w->at;

    while (w->size - end >= TAR_BLOCK && bytes_are_zero(w->data + end, TAR_BLOCK))
        end += TAR_BLOCK;
    *ret_any = end > w->at;
    if (end - w->at > ZEROES_MAX)
        return emit(w, end - w->at, error);
    w->at = end;
    return true;
}

bool tar_walk(const uint8_t *data, uint64_t size, TarSpanFn *fn, void *arg, GError **error)
{
    Walk w = {.data = data, .size = size, .fn = fn, .arg = arg};
    bool done = false, zeroes = false;

    while (!done && w.size - w.at >= TAR_BLOCK) {
        if (!step_zeroes(&w, &zeroes, error) || (!zeroes && !step_header(&w, &done, error)))
            return false;
    }
    if (w.size - w.at >= TAR_BLOCK)
        return emit(&w, w.size - w.at, error);
    w.at = w.size;
    return emit(&w, 0, error);
}
