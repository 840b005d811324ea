/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file is taken in three parts: its entry waits until its xattrs are known, its content is streamed, and what was not told of it is zero.
 */
#include "baker/guest-tree.h"

#include "base/error.h"

#include <string.h>
#include <sys/stat.h>

#define NAMES_MAX ((uint64_t)2 << 30)  /* bytes of all paths */
#define XATTRS_MAX ((uint64_t)1 << 30) /* bytes of all xattrs */
#define OUTLINE_MAX 10000000u
#define SECRET_BEFORE ((size_t)64 << 10) /* a secret may begin in the piece before */
#define ZEROES ((size_t)128 << 10)

typedef struct Reading {
    TreeBuilder *builder;  /* NULL: an outline alone */
    GuestOutline *outline;
    const Secrets *secrets;
    GHashTable *inodes;    /* "DEVICE:INODE" -> path told first */
    TreeEntry *pending;    /* told, not in the tree yet */
    bool begun;            /* its content */
    uint64_t size, at;     /* of its content, and how much of it is known */
    uint64_t fingerprint;
    char *path;            /* whose the fingerprint is */
    uint64_t name_bytes, xattr_bytes;
    uint64_t apparent_left, data_left; /* bytes that may still be told */
    GByteArray *window;    /* what secrets are looked for in */
} Reading;

static bool nonsense(GError **error, const char *path, const char *what)
{
    return fail(error, "the guest told %s at '/%s'; it was stopped", what, path);
}

/* --- outlines --- */

/* FNV-1a by words: it need not resist anybody, for it only says which step is named. */
static uint64_t mix(uint64_t hash, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        hash = (hash ^ (value >> (8 * i) & 0xff)) * 0x100000001b3u;
    return hash;
}

static uint64_t mix_bytes(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return mix(hash, size);
}

/*
 * A folder's own times say only that something in it came or went, which is told there; the time of a change says also that somebody set a
 * label. What is written over has another mtime, what is replaced another inode.
 */
static uint64_t fingerprint_of(const GuestEntry *entry)
{
    uint64_t hash = mix(mix(mix(0xcbf29ce484222325u, entry->mode), entry->uid), entry->gid);

    hash = mix(mix(mix(hash, entry->major), entry->minor), entry->size);
    hash = mix_bytes(hash, entry->target, strlen(entry->target));
    if (S_ISDIR(entry->mode))
        return hash;
    return mix(mix(mix(hash, (uint64_t)entry->mtime), entry->mtime_ns), entry->inode);
}

static bool outline_flush(Reading *r, GError **error)
{
    if (!r->path)
        return true;
    if (g_hash_table_size(r->outline) >= OUTLINE_MAX)
        return fail(error, "the guest has more files than kiln reads");
    g_hash_table_insert(r->outline, g_steal_pointer(&r->path), g_memdup2(&r->fingerprint, sizeof r->fingerprint));
    return true;
}

static gint compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Those of @a that @b has not, or, with @changed, has otherwise. */
static json_t *paths_of(GuestOutline *a, GuestOutline *b, bool changed)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    json_t *list = json_array();
    GHashTableIter iter;
    gpointer path, mark;

    g_hash_table_iter_init(&iter, a);
    while (g_hash_table_iter_next(&iter, &path, &mark)) {
        const uint64_t *other = g_hash_table_lookup(b, path);

        if (!other || (changed && *other != *(const uint64_t *)mark))
            g_ptr_array_add(paths, g_uri_escape_string(path, G_URI_RESERVED_CHARS_ALLOWED_IN_PATH, FALSE));
    }
    g_ptr_array_sort(paths, compare_texts);
    for (guint i = 0; i < paths->len; i++)
        json_array_append_new(list, json_string(paths->pdata[i]));
    return list;
}

json_t *guest_outline_diff(GuestOutline *before, GuestOutline *after)
{
    return json_pack("{s:o, s:o}", "+", paths_of(after, before, true), "-", paths_of(before, after, false));
}

/* --- the tree --- */

static char type_of(uint32_t mode)
{
    return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : S_ISBLK(mode) ? 'b' : S_ISCHR(mode) ? 'c' : S_ISFIFO(mode) ? 'p' : S_ISSOCK(mode) ? 's' : 0;
}

static bool give(Reading *r, const void *data, size_t size, GError **error)
{
    r->at += size;
    return tree_builder_data(r->builder, data, size, error);
}

static bool give_zeroes(Reading *r, uint64_t until, GError **error)
{
    static const uint8_t zeroes[ZEROES];

    while (r->at < until)
        if (!give(r, zeroes, MIN(until - r->at, ZEROES), error))
            return false;
    return true;
}

/* The builder takes the entry. */
static bool begin_content(Reading *r, GError **error)
{
    if (r->begun)
        return true;
    r->begun = true;
    g_byte_array_set_size(r->window, 0);
    return tree_builder_begin(r->builder, g_steal_pointer(&r->pending), error);
}

/* The entry that was told last is whole now. */
static bool settle(Reading *r, GError **error)
{
    if (!outline_flush(r, error))
        return false;
    if (r->begun || (r->pending && r->pending->type == 'f')) {
        if (!begin_content(r, error) || !give_zeroes(r, r->size, error) || !tree_builder_end(r->builder, error))
            return false;
        r->begun = false;
    }
    return !r->pending || tree_builder_add(r->builder, g_steal_pointer(&r->pending), error);
}

/* A name comes once, and its folder before it. */
static bool check_place(Reading *r, const char *path, GError **error)
{
    Tree *tree = tree_builder_tree(r->builder);
    const char *slash = strrchr(path, '/');
    g_autofree char *parent = g_strndup(path, slash ? (gsize)(slash - path) : 0);
    const TreeEntry *folder = *path ? tree_find(tree, parent) : NULL;

    if (tree_find(tree, path) || (*path && (!folder || folder->type != 'd')))
        return nonsense(error, path, "an impossible name");
    return true;
}

static bool take_again(Reading *r, const GuestEntry *entry, const char *key, GError **error)
{
    const char *first = g_hash_table_lookup(r->inodes, key);

    if (!first || S_ISDIR(entry->mode))
        return nonsense(error, entry->path, "a further name of nothing");
    r->pending = tree_entry_new(entry->path, 'h');
    r->pending->target = g_strdup(first);
    return true;
}

static bool take_file(Reading *r, const GuestEntry *entry, GError **error)
{
    if (entry->size > r->apparent_left)
        return fail(error, "the file '/%s' claims more bytes than a disk of this size should hold", entry->path);
    r->apparent_left -= entry->size;
    r->size = entry->size;
    r->at = 0;
    return true;
}

static bool take_typed(Reading *r, const GuestEntry *entry, GError **error)
{
    TreeEntry *made = r->pending = tree_entry_new(entry->path, type_of(entry->mode));

    made->mode = entry->mode & 07777;
    made->uid = entry->uid;
    made->gid = entry->gid;
    made->mtime = entry->mtime;
    if (made->type == 'b' || made->type == 'c') {
        made->major = entry->major;
        made->minor = entry->minor;
    }
    if (made->type == 'l') {
        made->mode = 0777;
        made->target = g_strdup(entry->target);
        return *entry->target || nonsense(error, entry->path, "an impossible symbolic link");
    }
    return made->type != 'f' || take_file(r, entry, error);
}

static bool on_entry(const GuestEntry *entry, void *arg, GError **error)
{
    Reading *r = arg;
    g_autofree char *key = NULL;

    if (!settle(r, error))
        return false;
    r->name_bytes += strlen(entry->path) + 1;
    if (r->name_bytes > NAMES_MAX)
        return fail(error, "the guest has more or deeper folders than kiln reads, at '/%s'", entry->path);
    r->path = g_strdup(entry->path);
    r->fingerprint = fingerprint_of(entry);
    if (!r->builder)
        return true;
    if (!type_of(entry->mode) || (!*entry->path && !S_ISDIR(entry->mode)))
        return nonsense(error, entry->path, "an impossible type");
    if (!check_place(r, entry->path, error))
        return false;
    key = g_strdup_printf("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT, entry->device, entry->inode);
    if (entry->again)
        return take_again(r, entry, key, error);
    if (!S_ISDIR(entry->mode))
        g_hash_table_insert(r->inodes, g_steal_pointer(&key), g_strdup(entry->path));
    return take_typed(r, entry, error);
}

/* Those that a tree knows; a file system's own ways of telling its settings ("btrfs.compression") stay on its disk. */
static bool is_kept_xattr(const char *name)
{
    return g_str_has_prefix(name, "user.") || g_str_has_prefix(name, "trusted.") || g_str_has_prefix(name, "security.") || tree_acl_is_name(name);
}

static bool on_xattr(const char *name, const void *value, size_t size, void *arg, GError **error)
{
    Reading *r = arg;

    if (strcmp(name, TREE_LABEL) != 0)
        r->fingerprint = mix_bytes(mix_bytes(r->fingerprint, name, strlen(name)), value, size);
    r->xattr_bytes += strlen(name) + size;
    if (r->xattr_bytes > XATTRS_MAX)
        return fail(error, "the guest has more xattrs than kiln reads, at '/%s'", r->path);
    if (!r->builder || !is_kept_xattr(name))
        return true;
    if (r->pending && r->pending->xattrs && r->pending->xattrs->len >= TREE_XATTRS_MAX)
        return fail(error, "'/%s' has more xattrs than kiln keeps", r->path);
    if (!r->pending || r->pending->type == 'h' || tree_entry_xattr(r->pending, name))
        return nonsense(error, r->path, "an xattr out of turn");
    tree_entry_set_xattr(r->pending, name, value, size);
    return true;
}

/* What is compressed on the disk is first seen here. */
static bool scan(Reading *r, bool follows, const void *data, size_t size, GError **error)
{
    const char *found;

    if (!r->secrets)
        return true;
    if (!follows)
        g_byte_array_set_size(r->window, 0);
    if (r->window->len > SECRET_BEFORE)
        g_byte_array_remove_range(r->window, 0, r->window->len - (guint)SECRET_BEFORE);
    g_byte_array_append(r->window, data, (guint)size);
    found = secrets_find(r->secrets, r->window->data, r->window->len);
    return !found || fail(error, "%s was written to '/%s'; nothing of this step is kept (steps find secrets in " SECRETS_FOLDER
                                 ", and what they write must not hold them)", found, r->path);
}

static bool on_piece(uint64_t offset, const void *data, size_t size, void *arg, GError **error)
{
    Reading *r = arg;
    uint64_t end = r->at;

    if (!r->begun && (!r->pending || r->pending->type != 'f'))
        return nonsense(error, r->path, "a content out of turn");
    if (offset < r->at || offset > r->size || size > r->size - offset)
        return nonsense(error, r->path, "a content of impossible length");
    if (size > r->data_left)
        return fail(error, "the guest's files hold more bytes than a disk of this size should, at '/%s'", r->path);
    r->data_left -= size;
    return begin_content(r, error) && give_zeroes(r, offset, error) && scan(r, offset == end, data, size, error) && give(r, data, size, error);
}

static void reading_clear(Reading *r)
{
    tree_entry_free(r->pending);
    g_free(r->path);
    g_clear_pointer(&r->inodes, g_hash_table_unref);
    g_clear_pointer(&r->window, g_byte_array_unref);
    g_clear_pointer(&r->outline, g_hash_table_unref);
    g_clear_pointer(&r->builder, tree_builder_free);
}

static bool read_all(Reading *r, Guest *guest, GError **error)
{
    GuestWalk walk = {r->builder != NULL, on_entry, on_xattr, on_piece, r};

    if (!guest->ops->walk)
        return fail(error, "this guest cannot be walked");
    return guest->ops->walk(guest, &walk, error) && settle(r, error);
}

static GuestOutline *outline_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

bool guest_outline_read(Guest *guest, GuestOutline **ret, GError **error)
{
    Reading r = {.outline = outline_new()};
    bool ok = read_all(&r, guest, error);

    if (ok)
        *ret = g_steal_pointer(&r.outline);
    reading_clear(&r);
    return ok;
}

bool guest_tree_read(Guest *guest, StoreWriter *writer, uint64_t disk_size, const Secrets *secrets, Tree **ret, MapWriter **ret_space,
                     GuestOutline **ret_outline, GError **error)
{
    Reading r = {.outline = outline_new(), .apparent_left = 16 * disk_size + ((uint64_t)64 << 30), .data_left = 4 * disk_size + ((uint64_t)4 << 30)};
    g_autoptr(Tree) tree = NULL;
    g_autoptr(MapWriter) space = NULL;
    bool ok;

    r.secrets = secrets && secrets_any(secrets) ? secrets : NULL;
    r.inodes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    r.window = g_byte_array_new();
    ok = tree_builder_new(writer, &r.builder, error) && read_all(&r, guest, error) && tree_builder_finish(r.builder, &tree, &space, error) &&
         tree_check(tree, error);
    if (ok) {
        *ret = g_steal_pointer(&tree);
        *ret_space = g_steal_pointer(&space);
        *ret_outline = g_steal_pointer(&r.outline);
    }
    reading_clear(&r);
    return ok;
}
