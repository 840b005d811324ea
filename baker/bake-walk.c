/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memos: "walk:1:MAP" -> TREE FILES, "walk-changes:1:BEFORE:AFTER" -> blob of {"+", "-"}. A bake that is not published does without the
 * first, and keeps what it read in the chain.
 */
#include "baker/bake-walk.h"

#include "baker/guest-mounts.h"
#include "base/error.h"
#include "base/log.h"
#include "base/units.h"

#include <string.h>

#define CHANGES_MAX ((size_t)256 << 20)

/* --- which disks --- */

static bool is_fat(const GArray *partitions, uint64_t offset)
{
    for (guint i = 0; i < partitions->len; i++) {
        const DiskPartition *partition = &g_array_index(partitions, DiskPartition, i);

        if (partition->offset == offset)
            return strcmp(partition->fs, "vfat") == 0;
    }
    return false;
}

bool bake_walk_wanted(BakeChain *chain, StoreMap *disk, bool *ret, GPtrArray **ret_mounts, GError **error)
{
    g_autoptr(GPtrArray) mounts = NULL;
    g_autoptr(GArray) partitions = NULL;
    uint64_t offset, size;
    bool found;

    *ret = false;
    if (chain->state.layout != LAYOUT_INPLACE)
        return true;
    if (!bake_find_root(chain, disk, &offset, &size, &found, error))
        return false;
    *ret = !found;
    if (!found)
        return true;
    if (!guest_mounts_find(disk, offset, size, &mounts, error) || !disk_partitions(disk, &partitions, error))
        return false;
    *ret = mounts == NULL;
    for (guint i = 0; mounts && i < mounts->len && !*ret; i++) {
        const GuestMount *mount = mounts->pdata[i];

        *ret = strcmp(mount->folder, "/") != 0 && !is_fat(partitions, mount->offset);
    }
    if (ret_mounts)
        *ret_mounts = g_steal_pointer(&mounts);
    return true;
}

/* --- memos --- */

static char *walk_key(const Digest *map)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strconcat("walk:1:", digest_to_hex(map, hex), NULL);
}

static char *changes_key(const Digest *before, const Digest *after)
{
    char a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];

    return g_strdup_printf("walk-changes:1:%s:%s", digest_to_hex(before, a), digest_to_hex(after, b));
}

static bool remember_tree(BakeChain *chain, const Digest *map, GError **error)
{
    g_autofree char *key = walk_key(map), *value = NULL;
    char tree[DIGEST_HEX_SIZE], files[DIGEST_HEX_SIZE];

    if (chain->options->unpublished)
        return true;
    value = g_strdup_printf("%s %s", digest_to_hex(&chain->walked.tree, tree), digest_to_hex(&chain->walked.files, files));
    return store_memo_put(chain->store, key, value, &chain->walked.tree, &chain->walked.files, error);
}

static bool recall_tree(BakeChain *chain, const Digest *map, bool *ret_known, GError **error)
{
    g_autofree char *key = walk_key(map), *value = NULL;
    g_auto(GStrv) parts = NULL;
    TreeStored stored;

    *ret_known = !digest_is_none(&chain->walked_map) && digest_equal(&chain->walked_map, map);
    if (*ret_known)
        return true;
    if (!store_memo_get(chain->store, key, &value, error))
        return false;
    parts = g_strsplit(value ? value : "", " ", 2);
    *ret_known = parts[0] && parts[1] && digest_parse(parts[0], &stored.tree) && digest_parse(parts[1], &stored.files) &&
                 store_blob_has(chain->store, &stored.tree) && store_blob_has(chain->store, &stored.files);
    if (*ret_known) {
        chain->walked = stored;
        chain->walked_map = *map;
    }
    return true;
}

bool bake_changes_remember(BakeChain *chain, const char *key, const json_t *changes, GError **error)
{
    g_autofree char *text = json_canonical(changes);
    char oci[DIGEST_OCI_SIZE];
    Digest digest;

    if (strlen(text) > CHANGES_MAX)
        return true; /* bake_changes_recall() would not read it */
    return store_blob_put(chain->store, text, strlen(text), &digest, error) &&
           store_memo_put(chain->store, key, digest_to_oci(&digest, oci), &digest, NULL, error);
}

bool bake_changes_recall(BakeChain *chain, const char *key, json_t **ret, GError **error)
{
    g_autofree char *value = NULL;
    g_autoptr(GBytes) bytes = NULL;
    Digest digest;

    *ret = NULL;
    if (!store_memo_get(chain->store, key, &value, error))
        return false;
    if (value && digest_parse(value, &digest) && store_blob_get(chain->store, &digest, CHANGES_MAX, &bytes, NULL))
        (void)json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), CHANGES_MAX, "a kept list", ret, NULL); /* lost: not known */
    return true;
}

bool bake_walk_changes(BakeChain *chain, const Digest *before, const Digest *after, json_t **ret, GError **error)
{
    g_autofree char *key = changes_key(before, after);

    return bake_changes_recall(chain, key, ret, error);
}

/* --- in a guest --- */

bool bake_walk_outline(BakeSession *session, GError **error)
{
    g_clear_pointer(&session->outline_now, g_hash_table_unref);
    return guest_outline_read(session->guest, &session->outline_now, error) || fail_prefix(error, "list the guest's files");
}

static bool read_into(BakeSession *session, StoreWriter *writer, GError **error)
{
    BakeChain *chain = session->chain;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(MapWriter) space = NULL;

    g_clear_pointer(&session->outline_now, g_hash_table_unref);
    return guest_tree_read(session->guest, writer, chain->state.size, chain->secrets, &tree, &space, &session->outline_now, error) &&
           store_writer_commit(writer, error) && tree_stored_result(chain->store, tree, space, &chain->walked, error);
}

bool bake_walk_read(BakeSession *session, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    gint64 start = g_get_monotonic_time();
    g_autofree char *took = NULL;

    session->chain->walked_map = digest_none;
    if (!store_writer_open(session->chain->store, BLOCK_PRIVATE, &writer, error) || !read_into(session, writer, error))
        return fail_prefix(error, "read the root in the appliance");
    session->has_tree = true;
    took = units_format_duration((double)(g_get_monotonic_time() - start) / 1e6);
    log_info("    root read in the appliance in %s", took);
    return true;
}

bool bake_walk_captured(BakeSession *session, const Digest *before, const Digest *map, GError **error)
{
    BakeChain *chain = session->chain;

    if (session->has_tree) {
        chain->walked_map = *map;
        if (!remember_tree(chain, map, error))
            return false;
    }
    session->has_tree = false;
    if (session->outline && session->outline_now && digest_equal(&session->outline_at, before) && !digest_equal(before, map)) {
        g_autoptr(json_t) changes = guest_outline_diff(session->outline, session->outline_now);
        g_autofree char *key = changes_key(before, map);

        if (!bake_changes_remember(chain, key, changes, error))
            return false;
    }
    g_clear_pointer(&session->outline, g_hash_table_unref);
    session->outline = g_steal_pointer(&session->outline_now);
    session->outline_at = *map;
    return true;
}

/* --- the seal's --- */

static bool walk_alone(BakeChain *chain, const Digest *map, GError **error)
{
    BakeSession session = {.chain = chain};
    bool ok = bake_session_clean(&session, chain->steps->len, error) && bake_walk_read(&session, error) &&
              bake_walk_captured(&session, map, map, error);

    bake_session_close(&session); /* nothing was written that counts */
    return ok;
}

bool bake_walk_get(BakeChain *chain, TreeStored *ret, GError **error)
{
    const Digest *map = bake_map_before(chain, chain->steps->len);
    bool known;

    if (!recall_tree(chain, map, &known, error) || (!known && !walk_alone(chain, map, error)))
        return false;
    *ret = chain->walked;
    return true;
}
