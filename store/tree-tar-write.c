/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root file system as one tar: the headers of our layers, in path order, with the contents between them. Equal trees give equal bytes.
 */
#include "store/tree.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "store/export-path.h"
#include "store/read-ahead.h"
#include "store/tar-header.h"

#define OUT_SIZE (1u << 20)

typedef struct TarOut {
    int fd;
    ReadAhead *files; /* contents lie in the file space in the order that they are wanted in */
    GByteArray *out;  /* not written yet */
    Progress *progress;
} TarOut;

static bool flush(TarOut *tar, GError **error)
{
    if (!interrupt_check(error) || !file_write_full(tar->fd, tar->out->data, tar->out->len, "tar archive", error))
        return false;
    progress_add(tar->progress, tar->out->len);
    g_byte_array_set_size(tar->out, 0);
    return true;
}

static bool put_content(TarOut *tar, const TreeEntry *entry, GError **error)
{
    static const guint8 zeroes[TAR_BLOCK];
    uint64_t done = 0;

    while (done < entry->size) {
        size_t part = (size_t)MIN(entry->size - done, (uint64_t)OUT_SIZE / 2);
        guint at = tar->out->len;

        g_byte_array_set_size(tar->out, at + (guint)part);
        if (!read_ahead_pread(tar->files, tar->out->data + at, part, entry->data_offset + done, error))
            return fail_prefix(error, "'%s'", entry->path);
        done += part;
        if (tar->out->len >= OUT_SIZE / 2 && !flush(tar, error))
            return false;
    }
    g_byte_array_append(tar->out, zeroes, (guint)tar_padding(entry->size));
    return true;
}

static bool put_entry(TarOut *tar, const Tree *tree, const TreeEntry *entry, GError **error)
{
    TreeEntry named = tar_header_entry(tree, entry);

    if (entry->type == 's')
        return true; /* made by whoever listens on it */
    if (!tar_header_append(tar->out, &named, error) || (entry->type == 'f' && !put_content(tar, entry, error)))
        return false;
    return tar->out->len < OUT_SIZE / 2 || flush(tar, error);
}

static bool put_tree(TarOut *tar, Tree *tree, GError **error)
{
    static const guint8 zeroes[TAR_END_SIZE];

    for (size_t i = 0; i < tree_count(tree); i++)
        if (!put_entry(tar, tree, tree_nth(tree, i), error))
            return false;
    g_byte_array_append(tar->out, zeroes, sizeof zeroes);
    return flush(tar, error);
}

bool tree_write_tar(Tree *tree, StoreMap *files, int fd, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autoptr(ReadAhead) ahead = read_ahead_new(files);
    g_autoptr(Progress) progress = progress_new("export", 0, true);
    TarOut tar = {fd, ahead, out, progress};

    if (!put_tree(&tar, tree, error))
        return false;
    progress_done(progress);
    return true;
}

typedef struct TarExport {
    Tree *tree;
    StoreMap *files;
} TarExport;

static bool write_tar(int fd, void *arg, GError **error)
{
    const TarExport *export = arg;

    return tree_write_tar(export->tree, export->files, fd, error);
}

bool tree_export_tar(Tree *tree, StoreMap *files, const char *path, GError **error)
{
    TarExport export = {tree, files};

    return export_to_path(path, write_tar, &export, error);
}
