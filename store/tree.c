/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees in memory: entries by path, in byte order, with their hard-link groups.
 *
 * A hash table owns the entries; a sorted array beside it is rebuilt only when
 * it is asked for after additions out of order, so reading a sorted archive and
 * removing single paths both stay cheap.
 *
 * Hard links: the leader (first path in byte order) holds mode, owner, xattrs
 * and content, the other names are 'h' entries with its path as target. Who
 * takes a leader away (tree_remove, tree_put over it) promotes the next name,
 * so that no name ever loses its content.
 */
#include "store/tree.h"

#include "base/error.h"

#include <string.h>

struct Tree {
    GHashTable *by_path; /* path (owned by the entry) -> TreeEntry, owned */
    GPtrArray *sorted;   /* borrowed; valid while @clean */
    bool clean;
    size_t n_links; /* 'h' entries: without any, nothing has heirs to look for */
};

static void entry_free_cb(void *entry)
{
    tree_entry_free(entry);
}

Tree *tree_new(void)
{
    Tree *tree = g_new0(Tree, 1);

    tree->by_path = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, entry_free_cb);
    tree->sorted = g_ptr_array_new();
    tree->clean = true;
    return tree;
}

void tree_free(Tree *tree)
{
    if (!tree)
        return;
    g_ptr_array_unref(tree->sorted);
    g_hash_table_unref(tree->by_path);
    g_free(tree);
}

static void xattr_free(void *p)
{
    TreeXattr *xattr = p;

    g_free(xattr->name);
    g_bytes_unref(xattr->value);
    g_free(xattr);
}

TreeEntry *tree_entry_new(const char *path, char type)
{
    TreeEntry *entry = g_new0(TreeEntry, 1);

    entry->path = g_strdup(path);
    entry->type = type;
    return entry;
}

TreeEntry *tree_entry_copy(const TreeEntry *entry)
{
    TreeEntry *copy = g_memdup2(entry, sizeof *entry);

    copy->path = g_strdup(entry->path);
    copy->target = g_strdup(entry->target);
    copy->xattrs = NULL;
    for (guint i = 0; entry->xattrs && i < entry->xattrs->len; i++) {
        const TreeXattr *x = entry->xattrs->pdata[i];
        size_t size;
        const void *data = g_bytes_get_data(x->value, &size);

        tree_entry_set_xattr(copy, x->name, data, size);
    }
    return copy;
}

void tree_entry_free(TreeEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->path);
    g_free(entry->target);
    g_clear_pointer(&entry->xattrs, g_ptr_array_unref);
    g_free(entry);
}

void tree_entry_set_xattr(TreeEntry *entry, const char *name, const void *value, size_t size)
{
    TreeXattr *xattr;
    guint at;

    if (!entry->xattrs)
        entry->xattrs = g_ptr_array_new_with_free_func(xattr_free);
    for (at = 0; at < entry->xattrs->len; at++) {
        TreeXattr *have = entry->xattrs->pdata[at];
        int order = strcmp(name, have->name);

        if (order == 0) {
            g_bytes_unref(have->value);
            have->value = g_bytes_new(value, size);
            return;
        }
        if (order < 0)
            break;
    }
    xattr = g_new0(TreeXattr, 1);
    xattr->name = g_strdup(name);
    xattr->value = g_bytes_new(value, size);
    g_ptr_array_insert(entry->xattrs, (gint)at, xattr);
}

void tree_entry_remove_xattr(TreeEntry *entry, const char *name)
{
    for (guint i = 0; entry->xattrs && i < entry->xattrs->len; i++)
        if (strcmp(((const TreeXattr *)entry->xattrs->pdata[i])->name, name) == 0) {
            g_ptr_array_remove_index(entry->xattrs, i);
            break;
        }
    if (entry->xattrs && entry->xattrs->len == 0)
        g_clear_pointer(&entry->xattrs, g_ptr_array_unref);
}

const GBytes *tree_entry_xattr(const TreeEntry *entry, const char *name)
{
    for (guint i = 0; entry->xattrs && i < entry->xattrs->len; i++) {
        const TreeXattr *x = entry->xattrs->pdata[i];

        if (strcmp(x->name, name) == 0)
            return x->value;
    }
    return NULL;
}

bool tree_xattrs_equal(const GPtrArray *a, const GPtrArray *b)
{
    guint na = a ? a->len : 0, nb = b ? b->len : 0;

    if (na != nb)
        return false;
    for (guint i = 0; i < na; i++) {
        const TreeXattr *xa = a->pdata[i], *xb = b->pdata[i];

        if (strcmp(xa->name, xb->name) != 0 || !g_bytes_equal(xa->value, xb->value))
            return false;
    }
    return true;
}

bool tree_entry_equal(const TreeEntry *a, const TreeEntry *b)
{
    if (a->type != b->type || strcmp(a->path, b->path) != 0)
        return false;
    if (a->type == 'h')
        return g_strcmp0(a->target, b->target) == 0;
    if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || a->mtime != b->mtime)
        return false;
    if (a->type == 'l' && g_strcmp0(a->target, b->target) != 0)
        return false;
    if ((a->type == 'b' || a->type == 'c') && (a->major != b->major || a->minor != b->minor))
        return false;
    if (a->type == 'f' && (a->size != b->size || !digest_equal(&a->sha256, &b->sha256)))
        return false;
    return tree_xattrs_equal(a->xattrs, b->xattrs);
}

static int compare_entries(const void *a, const void *b)
{
    const TreeEntry *ea = *(TreeEntry *const *)a, *eb = *(TreeEntry *const *)b;

    return strcmp(ea->path, eb->path);
}

static void tree_sort(Tree *tree)
{
    GHashTableIter iter;
    gpointer value;

    if (tree->clean)
        return;
    g_ptr_array_set_size(tree->sorted, 0);
    g_hash_table_iter_init(&iter, tree->by_path);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        g_ptr_array_add(tree->sorted, value);
    g_ptr_array_sort(tree->sorted, compare_entries);
    tree->clean = true;
}

/* Index of the first entry whose path is not below @path in byte order. */
static guint tree_lower_bound(Tree *tree, const char *path)
{
    guint low = 0, high;

    tree_sort(tree);
    high = tree->sorted->len;
    while (low < high) {
        guint middle = low + (high - low) / 2;
        const TreeEntry *entry = tree->sorted->pdata[middle];

        if (strcmp(entry->path, path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Adds an entry at a path that is free. */
static void tree_insert(Tree *tree, TreeEntry *entry)
{
    if (tree->clean) {
        guint n = tree->sorted->len;
        const TreeEntry *last = n ? tree->sorted->pdata[n - 1] : NULL;

        if (!last || strcmp(last->path, entry->path) < 0)
            g_ptr_array_add(tree->sorted, entry);
        else
            tree->clean = false;
    }
    tree->n_links += entry->type == 'h';
    g_hash_table_insert(tree->by_path, entry->path, entry);
}

/*
 * @gone: leaders' paths -> their entries, taken out of the tree already. The first remaining name of each group
 * becomes a leader with the same content; the others follow it.
 */
static void tree_promote_heirs(Tree *tree, GHashTable *gone)
{
    g_autoptr(GHashTable) heirs = g_hash_table_new(g_str_hash, g_str_equal); /* old leader -> new leader's entry */

    if (tree->n_links == 0 || g_hash_table_size(gone) == 0)
        return;
    tree_sort(tree);
    for (guint i = 0; i < tree->sorted->len; i++) {
        TreeEntry *entry = tree->sorted->pdata[i], *heir;
        const TreeEntry *leader;

        if (entry->type != 'h' || !(leader = g_hash_table_lookup(gone, entry->target)))
            continue;
        heir = g_hash_table_lookup(heirs, leader->path);
        if (heir) {
            g_free(entry->target);
            entry->target = g_strdup(heir->path);
            continue;
        }
        {
            g_autoptr(GPtrArray) old_xattrs = entry->xattrs;
            TreeEntry *copy = tree_entry_copy(leader);
            char *path = g_steal_pointer(&entry->path); /* the table's key: stays the same pointer */

            g_free(entry->target);
            g_free(copy->path);
            *entry = *copy;
            entry->path = path;
            g_free(copy);
            tree->n_links--;
            g_hash_table_insert(heirs, leader->path, entry);
        }
    }
}

/* Takes @count entries from @first out of the tree; leaders hand over. */
static void tree_take_range(Tree *tree, guint first, guint count)
{
    g_autoptr(GHashTable) gone = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, entry_free_cb);

    for (guint i = first; i < first + count; i++) {
        TreeEntry *entry = tree->sorted->pdata[i];

        tree->n_links -= entry->type == 'h';
        g_hash_table_steal(tree->by_path, entry->path);
        g_hash_table_insert(gone, entry->path, entry);
    }
    if (count)
        g_ptr_array_remove_range(tree->sorted, first, count);
    tree_promote_heirs(tree, gone);
}

void tree_put(Tree *tree, TreeEntry *entry)
{
    if (g_hash_table_contains(tree->by_path, entry->path))
        tree_take_range(tree, tree_lower_bound(tree, entry->path), 1);
    tree_insert(tree, entry);
}

void tree_remove(Tree *tree, const char *path)
{
    TreeEntry *entry = g_hash_table_lookup(tree->by_path, path);
    g_autofree char *below = NULL, *beyond = NULL;
    guint first, end;

    if (!entry)
        return;
    first = tree_lower_bound(tree, path);
    if (*path == '\0') { /* the root: everything goes */
        tree_take_range(tree, 0, tree->sorted->len);
        return;
    }
    if (entry->type == 'd') {
        /* "a-b" sorts between "a" and "a/b": what is below is a range of its own. */
        below = g_strconcat(path, "/", NULL);
        beyond = g_strconcat(path, "0", NULL); /* '0' follows '/' */
        first = tree_lower_bound(tree, below);
        end = tree_lower_bound(tree, beyond);
        tree_take_range(tree, first, end - first);
        first = tree_lower_bound(tree, path);
    }
    tree_take_range(tree, first, 1);
}

const TreeEntry *tree_find(const Tree *tree, const char *path)
{
    return g_hash_table_lookup(tree->by_path, path);
}

TreeEntry *tree_find_mutable(Tree *tree, const char *path)
{
    return g_hash_table_lookup(tree->by_path, path);
}

size_t tree_count(Tree *tree)
{
    return g_hash_table_size(tree->by_path);
}

const TreeEntry *tree_nth(Tree *tree, size_t index)
{
    tree_sort(tree);
    return index < tree->sorted->len ? tree->sorted->pdata[index] : NULL;
}

bool tree_path_is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);

    return length ? strncmp(path, folder, length) == 0 && path[length] == '/' : *path != '\0';
}

const TreeEntry *tree_content_entry(const Tree *tree, const TreeEntry *entry)
{
    if (entry->type != 'h')
        return entry;
    return entry->target ? tree_find(tree, entry->target) : NULL;
}

/* The entry at the end of @entry's chain of links; NULL for a missing end and for a loop. */
static TreeEntry *link_end(Tree *tree, TreeEntry *entry)
{
    size_t steps = tree->n_links + 1;

    while (entry && entry->type == 'h' && steps-- > 0)
        entry = g_hash_table_lookup(tree->by_path, entry->target);
    return entry && entry->type != 'h' && entry->type != 'd' ? entry : NULL;
}

/* Makes the entries at @a and @b change places in all but their path. */
static void entry_swap_content(TreeEntry *a, TreeEntry *b)
{
    TreeEntry hold = *a;
    char *path_a = a->path, *path_b = b->path;

    *a = *b;
    *b = hold;
    a->path = path_a;
    b->path = path_b;
}

void tree_normalise_links(Tree *tree)
{
    g_autoptr(GHashTable) leaders = NULL; /* entry that holds the content -> entry of the first path */
    g_autoptr(GPtrArray) links = NULL, ends = NULL;

    if (tree->n_links == 0)
        return;
    tree_sort(tree);
    leaders = g_hash_table_new(NULL, NULL);
    links = g_ptr_array_new();
    ends = g_ptr_array_new();
    for (guint i = 0; i < tree->sorted->len; i++) {
        TreeEntry *entry = tree->sorted->pdata[i];
        TreeEntry *end = entry->type == 'h' ? link_end(tree, entry) : NULL;

        if (!end)
            continue;
        g_ptr_array_add(links, entry);
        g_ptr_array_add(ends, end);
        if (!g_hash_table_contains(leaders, end)) /* in order, so the first seen is the first path among the links */
            g_hash_table_insert(leaders, end, strcmp(entry->path, end->path) < 0 ? entry : end);
    }
    for (guint i = 0; i < links->len; i++) {
        TreeEntry *entry = links->pdata[i], *leader = g_hash_table_lookup(leaders, ends->pdata[i]);

        if (entry == leader)
            entry_swap_content(entry, ends->pdata[i]);
        entry = entry == leader ? ends->pdata[i] : entry; /* after a swap the old holder is the link */
        g_free(entry->target);
        entry->target = g_strdup(leader->path);
    }
}

bool tree_path_is_sound(const char *path)
{
    size_t size = 0;

    if (strlen(path) > 4095)
        return false;
    for (const char *p = path;; p++) {
        if (*p != '/' && *p != '\0') {
            size++;
            continue;
        }
        if (size == 0 || size > 255 || (size == 1 && p[-1] == '.') || (size == 2 && p[-1] == '.' && p[-2] == '.'))
            return false;
        if (*p == '\0')
            return true;
        size = 0;
    }
}

static bool check_entry(Tree *tree, const TreeEntry *entry, GError **error)
{
    g_autofree char *parent = g_path_get_dirname(entry->path);
    const char *key = strchr(entry->path, '/') ? parent : "";
    const TreeEntry *up = tree_find(tree, key), *leader;

    if (!tree_path_is_sound(entry->path))
        return fail(error, "the path '%s' cannot be kept: a part of it is '.', '..', empty or too long", entry->path);
    if (!up || up->type != 'd')
        return fail(error, "'%s' has no parent folder", entry->path);
    if (!strchr("fdlhbcps", entry->type))
        return fail(error, "'%s' is of an unknown type", entry->path);
    if (entry->type == 'l' && (!entry->target || !*entry->target || strlen(entry->target) > 4095))
        return fail(error, "the symbolic link '%s' has no usable target", entry->path);
    if (entry->type == 'h') {
        leader = entry->target ? tree_find(tree, entry->target) : NULL;
        if (!leader || leader->type == 'h' || leader->type == 'd' || strcmp(leader->path, entry->path) >= 0)
            return fail(error, "the hard link '%s' points at '%s', which is not there", entry->path,
                        entry->target ? entry->target : "");
    }
    return true;
}

static bool check_xattrs(const TreeEntry *entry, GError **error)
{
    return !entry->xattrs || entry->xattrs->len <= TREE_XATTRS_MAX ||
           fail(error, "'/%s' has more than %d extended attributes", entry->path, TREE_XATTRS_MAX);
}

bool tree_check(Tree *tree, GError **error)
{
    const TreeEntry *root = tree_find(tree, "");

    if (!root || root->type != 'd')
        return fail(error, "the tree has no root folder");
    tree_sort(tree);
    for (guint i = 0; i < tree->sorted->len; i++)
        if (!check_xattrs(tree->sorted->pdata[i], error) || (i > 0 && !check_entry(tree, tree->sorted->pdata[i], error)))
            return false;
    return true;
}
