/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single files and folders of an ext4 root in a map, for whoever needs three files and not a whole tree.
 *
 * The confined reader finds them: links are followed inside of the file system only and as often as libext2fs allows (8). Here sizes are held
 * against the caller's limit before anything is allocated, places against the file system, names are cut off at a number.
 */
#include "base/error.h"
#include "store/ext4-session.h"
#include "store/tree.h"

#include <string.h>
#include <sys/stat.h>

#define NAMES_MAX 65536

struct Ext4Root {
    StoreMap *map;
    uint64_t offset;
    Ext4Session *session;
    Ext4Info info;
};

bool ext4_root_open(StoreMap *map, uint64_t offset, uint64_t size, Ext4Root **ret, GError **error)
{
    g_autoptr(Ext4Root) root = g_new0(Ext4Root, 1);

    root->map = store_map_ref(map);
    root->offset = offset;
    if (!ext4_session_open(map, offset, size, false, &root->session, &root->info, error))
        return false;
    *ret = g_steal_pointer(&root);
    return true;
}

void ext4_root_close(Ext4Root *root)
{
    if (!root)
        return;
    ext4_session_close(root->session);
    store_map_unref(root->map);
    g_free(root);
}

/* What is told of a file before its size is known; a file of a few megabytes may lie in as many pieces as it has blocks. */
typedef struct Found {
    const Ext4Info *info;
    GArray *runs;
    GByteArray *inlined;
    Ext4Entry entry;
    bool there;
    guint runs_max;
} Found;

static bool take_runs(Ext4Session *session, Ext4Said *said, Found *found, GError **error)
{
    Ext4Run run;

    while (said->size) {
        if (!ext4_session_take(session, said, &run, sizeof run, error))
            return false;
        if (found->runs->len >= found->runs_max || run.physical >= found->info->blocks || run.count > found->info->blocks - run.physical)
            return ext4_session_nonsense(session, error);
        g_array_append_val(found->runs, run);
    }
    return true;
}

static bool take_word(Ext4Session *session, Ext4Said *said, void *arg, GError **error)
{
    Found *found = arg;

    switch (said->word) {
    case EXT4_RUNS:
        return take_runs(session, said, found, error);
    case EXT4_INLINE:
        if (found->inlined->len || said->size > 65536)
            return ext4_session_nonsense(session, error);
        g_byte_array_append(found->inlined, said->data, (guint)said->size);
        return true;
    case EXT4_ENTRY:
        found->there = true;
        return ext4_session_take(session, said, &found->entry, sizeof found->entry, error);
    case EXT4_XATTR:
        return true;
    default:
        return ext4_session_nonsense(session, error);
    }
}

static bool read_runs(Ext4Root *root, const Found *found, char *to, uint64_t size, GError **error)
{
    uint64_t block = root->info.block_size;

    for (guint i = 0; i < found->runs->len; i++) {
        const Ext4Run *run = &g_array_index(found->runs, Ext4Run, i);
        uint64_t from, end;

        if (run->logical > size / block || run->count > size / block + 1)
            return ext4_session_nonsense(root->session, error);
        from = MIN(run->logical * block, size);
        end = MIN((run->logical + run->count) * block, size);
        if (!store_map_pread(root->map, to + from, end - from, root->offset + run->physical * block, error))
            return false;
    }
    return true;
}

static bool read_found(Ext4Root *root, const Found *found, GBytes **ret, GError **error)
{
    size_t size = (size_t)found->entry.size;
    g_autofree char *data = g_malloc0(size + 1);

    if (found->entry.is_inline && found->inlined->len != size)
        return ext4_session_nonsense(root->session, error);
    if (found->entry.is_inline && size)
        memcpy(data, found->inlined->data, size);
    else if (!read_runs(root, found, data, size, error))
        return false;
    *ret = g_bytes_new_take(g_steal_pointer(&data), size);
    return true;
}

bool ext4_root_read(Ext4Root *root, const char *path, size_t max, GBytes **ret, GError **error)
{
    g_autoptr(GArray) runs = g_array_new(FALSE, FALSE, sizeof(Ext4Run));
    g_autoptr(GByteArray) inlined = g_byte_array_new();
    Found found = {.info = &root->info, .runs = runs, .inlined = inlined, .runs_max = (guint)MIN(max / root->info.block_size + 2, (size_t)1 << 22)};

    *ret = NULL;
    if (!ext4_session_each(root->session, EXT4_FIND, path, take_word, &found, error))
        return false;
    if (!found.there || !S_ISREG(found.entry.mode))
        return true;
    if (found.entry.size > max)
        return fail(error, "'%s' of the root is larger than %zu bytes", path, max);
    return read_found(root, &found, ret, error) || fail_prefix(error, "read '%s'", path);
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool take_name(Ext4Session *session, Ext4Said *said, void *arg, GError **error)
{
    GPtrArray *names = arg;

    if (said->word != EXT4_NAME || said->size > 255 || names->len > NAMES_MAX)
        return ext4_session_nonsense(session, error);
    if (said->size && !memchr(said->data, '/', said->size) && !memchr(said->data, '\0', said->size))
        g_ptr_array_add(names, g_strndup((const char *)said->data, said->size));
    return true;
}

bool ext4_root_list(Ext4Root *root, const char *path, char ***ret, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    if (!ext4_session_each(root->session, EXT4_LIST, path, take_name, names, error))
        return false;
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_set_free_func(names, NULL);
    g_ptr_array_add(names, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&names), FALSE);
    return true;
}
