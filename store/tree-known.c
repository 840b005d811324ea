/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents that were hashed before, found again by the hashes of their blocks: between two steps of a bake a file that did not change
 * keeps its blocks, and the store knows their hashes without reading them.
 *
 * The key is SHA-256 over the file's size and (64-bit little-endian block number in the file, block hash) of each block that is not
 * zero. A last block counts whole; what stands behind the end of the file can only make a key miss.
 */
#include "store/tree-known.h"


#define AT_ONCE 1024

typedef struct KnownContent {
    Digest content;
    bool padded;
} KnownContent;

struct TreeKnown {
    GHashTable *contents; /* Digest* of the key -> KnownContent* */
    Digest zero;          /* hash of a block of zeroes */
};

TreeKnown *tree_known_new(void)
{
    static const uint8_t zeroes[STORE_BLOCK_SIZE];
    TreeKnown *known = g_new0(TreeKnown, 1);

    known->contents = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, g_free);
    digest_of(zeroes, sizeof zeroes, &known->zero);
    return known;
}

void tree_known_free(TreeKnown *known)
{
    if (!known)
        return;
    g_hash_table_unref(known->contents);
    g_free(known);
}

DigestStream *tree_known_key_begin(uint64_t size)
{
    DigestStream *key = digest_stream_new();
    uint64_t wire = GUINT64_TO_LE(size);

    digest_stream_update(key, &wire, sizeof wire);
    return key;
}

bool tree_known_key_add(const TreeKnown *known, DigestStream *key, uint64_t logical, StoreMap *map, uint64_t first, uint64_t count,
                        GError **error)
{
    Digest hashes[AT_ONCE];

    while (count) {
        size_t part = (size_t)MIN(count, AT_ONCE);

        if (!store_map_hashes(map, first, part, hashes, error))
            return false;
        for (size_t i = 0; i < part; i++) {
            uint64_t number = GUINT64_TO_LE(logical + i);

            if (digest_equal(&hashes[i], &known->zero) || digest_is_none(&hashes[i]))
                continue;
            digest_stream_update(key, &number, sizeof number);
            digest_stream_update(key, hashes[i].bytes, sizeof hashes[i].bytes);
        }
        logical += part;
        first += part;
        count -= part;
    }
    return true;
}

const Digest *tree_known_find(const TreeKnown *known, const Digest *key, bool *ret_padded)
{
    const KnownContent *found = g_hash_table_lookup(known->contents, key);

    if (!found)
        return NULL;
    *ret_padded = found->padded;
    return &found->content;
}

void tree_known_put(TreeKnown *known, const Digest *key, const Digest *content, bool padded)
{
    KnownContent entry = {*content, padded};

    g_hash_table_insert(known->contents, g_memdup2(key, sizeof *key), g_memdup2(&entry, sizeof entry));
}

bool tree_known_add(TreeKnown *known, Tree *tree, StoreMap *files, GError **error)
{
    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);
        g_autoptr(DigestStream) stream = NULL;
        Digest key;

        if (entry->type != 'f' || entry->size == 0)
            continue;
        stream = tree_known_key_begin(entry->size);
        if (!tree_known_key_add(known, stream, 0, files, entry->data_offset / STORE_BLOCK_SIZE,
                                (entry->size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE, error))
            return false;
        digest_stream_final(stream, &key);
        tree_known_put(known, &key, &entry->sha256, true); /* in a file space zeroes follow always */
    }
    return true;
}
