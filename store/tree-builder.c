/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collects a tree from a stream. Archives come in any order and do not say
 * how much there will be, while a file space is laid out in path order with
 * equal content once; so contents wait in an unnamed temporary file and the
 * space is written at the end, from memory-mapped pages.
 *
 * States: idle -> begin -> data* -> end -> idle ... -> finish. An error leaves
 * the builder fit for nothing but tree_builder_free().
 */
#include "store/tree-space.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BUILDER_ENTRIES_MAX 10000000
#define BUILDER_BUFFER ((size_t)1 << 20)

struct TreeBuilder {
    StoreWriter *writer;
    Tree *tree;
    int spool;
    uint64_t spool_end;    /* next free offset, on the 4 KiB grid */
    TreeEntry *open;       /* between begin and end */
    DigestStream *digest;  /* of the open file */
    uint64_t written;      /* of the open file, including what the buffer holds */
    uint8_t *buffer;
    size_t buffered;
};

/* No name, so nothing stays behind however we end. */
static bool spool_open(int *ret, GError **error)
{
    const char *dir = g_getenv("TMPDIR");
    g_autofree char *template = NULL;
    int fd;

    if (!dir || !*dir)
        dir = "/var/tmp"; /* made for large files, unlike /tmp */
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        template = g_build_filename(dir, "kiln-spool-XXXXXX", NULL);
        fd = mkostemp(template, O_CLOEXEC);
        if (fd < 0)
            return fail_errno(error, "make a temporary file in '%s'", dir);
        (void)unlink(template); /* a name left behind would only be untidy */
    }
    *ret = fd;
    return true;
}

bool tree_builder_new(StoreWriter *writer, TreeBuilder **ret, GError **error)
{
    g_autoptr(TreeBuilder) builder = g_new0(TreeBuilder, 1);

    builder->spool = -1;
    builder->writer = writer;
    builder->tree = tree_new();
    builder->buffer = g_malloc(BUILDER_BUFFER);
    if (writer && !spool_open(&builder->spool, error))
        return false;
    *ret = g_steal_pointer(&builder);
    return true;
}

void tree_builder_free(TreeBuilder *builder)
{
    if (!builder)
        return;
    tree_entry_free(builder->open);
    digest_stream_free(builder->digest);
    tree_free(builder->tree);
    if (builder->spool >= 0)
        (void)close(builder->spool); /* unnamed: nothing to lose */
    g_free(builder->buffer);
    g_free(builder);
}

Tree *tree_builder_tree(TreeBuilder *builder)
{
    return builder->tree;
}

bool tree_builder_add(TreeBuilder *builder, TreeEntry *entry, GError **error)
{
    const TreeEntry *old = tree_find(builder->tree, entry->path);

    assert(!builder->open);
    if (!old && tree_count(builder->tree) >= BUILDER_ENTRIES_MAX) {
        tree_entry_free(entry);
        return fail(error, "there are more than %d entries", BUILDER_ENTRIES_MAX);
    }
    if (old && old->type == 'd' && entry->type != 'd')
        tree_remove(builder->tree, entry->path); /* with all below: they have no folder any more */
    tree_put(builder->tree, entry);
    return true;
}

bool tree_builder_begin(TreeBuilder *builder, TreeEntry *entry, GError **error)
{
    assert(!builder->open && entry->type == 'f');
    builder->open = entry;
    builder->written = 0;
    builder->buffered = 0;
    builder->digest = digest_stream_new();
    entry->data_offset = builder->spool_end;
    return true;
}

/* Zero blocks are left out: the spool stays sparse where the file is. */
static bool builder_flush(TreeBuilder *builder, GError **error)
{
    uint64_t offset = builder->open->data_offset + builder->written - builder->buffered;
    bool zero = !builder->writer || bytes_are_zero(builder->buffer, builder->buffered);

    if (!zero && !file_pwrite_full(builder->spool, builder->buffer, builder->buffered, offset, "temporary file", error))
        return false;
    builder->buffered = 0;
    return true;
}

bool tree_builder_data(TreeBuilder *builder, const void *data, size_t size, GError **error)
{
    const uint8_t *from = data;

    assert(builder->open);
    if (size > TREE_FILE_MAX - builder->written)
        return fail(error, "the file '%s' is too large to keep", builder->open->path);
    digest_stream_update(builder->digest, data, size);
    while (size) {
        size_t part = MIN(size, BUILDER_BUFFER - builder->buffered);

        memcpy(builder->buffer + builder->buffered, from, part);
        builder->buffered += part;
        builder->written += part;
        from += part;
        size -= part;
        if (builder->buffered == BUILDER_BUFFER && !builder_flush(builder, error))
            return false;
    }
    return true;
}

bool tree_builder_end(TreeBuilder *builder, GError **error)
{
    TreeEntry *entry = builder->open;

    assert(entry);
    if (builder->buffered && !builder_flush(builder, error))
        return false;
    entry->size = builder->written;
    digest_stream_final(builder->digest, &entry->sha256);
    g_clear_pointer(&builder->digest, digest_stream_free);
    builder->spool_end += tree_space_round(entry->size);
    builder->open = NULL;
    return tree_builder_add(builder, entry, error);
}

/* Archives may leave parents out; they become plain folders of root. */
static void builder_add_parents(Tree *tree)
{
    g_autoptr(GPtrArray) missing = g_ptr_array_new_with_free_func(g_free);

    if (!tree_find(tree, ""))
        g_ptr_array_add(missing, g_strdup(""));
    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);

        for (const char *slash = strchr(entry->path, '/'); slash; slash = strchr(slash + 1, '/')) {
            g_autofree char *parent = g_strndup(entry->path, (gsize)(slash - entry->path));

            if (!tree_find(tree, parent))
                g_ptr_array_add(missing, g_steal_pointer(&parent));
        }
    }
    for (guint i = 0; i < missing->len; i++) {
        TreeEntry *folder;

        if (tree_find(tree, missing->pdata[i]))
            continue;
        folder = tree_entry_new(missing->pdata[i], 'd');
        folder->mode = 0755;
        tree_put(tree, folder);
    }
}

/* One file from the mapped spool into the space; the tail of its last block becomes zero. */
static bool space_copy_file(MapWriter *space, const uint8_t *mapped, const TreeSpaceFile *file, GError **error)
{
    uint64_t whole = file->size & ~(uint64_t)(STORE_BLOCK_SIZE - 1), rest = file->size - whole;
    uint8_t tail[STORE_BLOCK_SIZE] = {0};

    for (uint64_t at = 0; at < whole; at += BUILDER_BUFFER) {
        size_t part = MIN(BUILDER_BUFFER, whole - at);

        if (!map_writer_write(space, file->to + at, mapped + file->from + at, part, error))
            return false;
    }
    if (rest == 0)
        return true;
    memcpy(tail, mapped + file->from + whole, rest);
    return map_writer_write(space, file->to + whole, tail, sizeof tail, error);
}

static bool space_copy_all(TreeBuilder *builder, MapWriter *space, const GArray *layout, GError **error)
{
    size_t size = builder->spool_end;
    uint8_t *mapped;
    bool ok = true;

    if (size == 0)
        return true;
    if (ftruncate(builder->spool, (off_t)size) < 0) /* the last blocks may have been left out as zeroes */
        return fail_errno(error, "grow a temporary file");
    mapped = mmap(NULL, size, PROT_READ, MAP_SHARED, builder->spool, 0);
    if (mapped == MAP_FAILED)
        return fail_errno(error, "map a temporary file");
    for (guint i = 0; i < layout->len && ok; i++)
        ok = space_copy_file(space, mapped, &g_array_index(layout, TreeSpaceFile, i), error);
    (void)munmap(mapped, size);
    return ok;
}

bool tree_builder_finish(TreeBuilder *builder, Tree **ret_tree, MapWriter **ret_space, GError **error)
{
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GArray) layout = NULL;

    assert(!builder->open);
    builder_add_parents(builder->tree);
    tree_normalise_links(builder->tree);
    if (!builder->writer) {
        *ret_tree = g_steal_pointer(&builder->tree);
        *ret_space = NULL;
        return true;
    }
    if (!tree_space_lay_out(builder->tree, &layout, error) ||
        !map_writer_new(builder->writer, tree_space_size(layout), NULL, &space, error) ||
        !space_copy_all(builder, space, layout, error) || !map_writer_finish(space, error))
        return fail_prefix(error, "keep the tree's files");
    *ret_tree = g_steal_pointer(&builder->tree);
    *ret_space = g_steal_pointer(&space);
    return true;
}
