/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One ext4 file system at two times. Both are read as outlines, which takes the tables and folders alone; the contents of two files are
 * read only where their blocks differ and their sizes do not.
 */
#include "store/ext4-journal.h"
#include "store/ext4-read.h"

#include "base/error.h"
#include "base/interrupt.h"


typedef struct Differ {
    Ext4Reader *a, *b;
    TreeDiffFn *fn;
    void *arg;
    GError *error;
} Differ;

/* Different keys of equal contents: from here on @b has @a's. A content that cannot be read is another one. */
static bool settle_content(Differ *d, const TreeEntry *a, TreeEntry *b)
{
    g_autoptr(GError) error = NULL;
    Digest before, now;

    if (a->type != 'f' || b->type != 'f' || a->size != b->size || digest_equal(&a->sha256, &b->sha256))
        return true;
    if (ext4_outline_content(d->a, a, &before, &error) && ext4_outline_content(d->b, b, &now, &error)) {
        if (digest_equal(&before, &now))
            b->sha256 = a->sha256;
        return true;
    }
    return interrupt_check(&d->error);
}

static bool is_same(const TreeEntry *a, const TreeEntry *b)
{
    return a->type == b->type && a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->size == b->size &&
           a->major == b->major && a->minor == b->minor && g_strcmp0(a->target, b->target) == 0 && digest_equal(&a->sha256, &b->sha256) &&
           tree_xattrs_equal(a->xattrs, b->xattrs);
}

/* What a name stands for: a further name of an inode has its leader's content and attributes. */
static TreeEntry *meant_by(Tree *tree, const TreeEntry *entry)
{
    const TreeEntry *content = tree_content_entry(tree, entry);
    TreeEntry *copy = tree_entry_copy(content ? content : entry);

    g_free(copy->path);
    copy->path = g_strdup(entry->path);
    return copy;
}

static bool differs(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    Differ *d = arg;
    TreeEntry *before = a ? meant_by(ext4_outline_tree(d->a), a) : NULL, *now = b ? meant_by(ext4_outline_tree(d->b), b) : NULL;
    bool more = what != '~' || settle_content(d, before, now);

    if (more && (what != '~' || !is_same(before, now)))
        more = d->fn(what, before, now, d->arg);
    tree_entry_free(before);
    tree_entry_free(now);
    return more;
}

bool tree_diff_ext4(StoreMap *a, uint64_t a_offset, uint64_t a_size, StoreMap *b, uint64_t b_offset, uint64_t b_size, TreeDiffFn *fn, void *arg,
                    uint64_t *ret_left, GError **error)
{
    g_autoptr(StoreMap) before = NULL, now = NULL;
    g_autoptr(Ext4Reader) reader_a = NULL, reader_b = NULL;
    Differ d = {.fn = fn, .arg = arg};
    uint64_t ignored;

    if (!ext4_settle(a, a_offset, a_size, &before, &ignored, error) || !ext4_settle(b, b_offset, b_size, &now, ret_left, error) ||
        !ext4_outline(before, a_offset, a_size, &reader_a, error) || !ext4_outline(now, b_offset, b_size, &reader_b, error))
        return false;
    d.a = reader_a;
    d.b = reader_b;
    tree_diff(ext4_outline_tree(reader_a), ext4_outline_tree(reader_b), differs, &d);
    if (d.error)
        g_propagate_error(error, d.error);
    return !d.error;
}
