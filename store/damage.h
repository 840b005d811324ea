/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a store that are damaged or missing, and what that means: which frames and blocks, which images, which files in them.
 *
 * Whoever notices something adds it (damage_add, from any thread); damage_describe() then looks into it once and says it, in sentences
 * and as JSON:
 *
 *   {"file": "segments/ab/abcd...", "kind": "segment" | "blob" | "table", "missing": bool, "text": sentence,
 *    "frames": [{"frame", "offset", "size", "blocks": [hash of a lost block, ...]}, ...],   segments that can be opened, or whose list the catalog has
 *    "images": [{"id", "kind", "names": [...], "blocks": n, "as": [...], "paths": [...], "more_paths": n}, ...], "more_images": n,
 *    "others": ["the bake cache", ...]}
 *
 * A frame is read as a whole, so an image is damaged when it uses any block of a frame that readers cannot read.
 */
#ifndef KILN_STORE_DAMAGE_H
#define KILN_STORE_DAMAGE_H

#include "base/json.h"
#include "store/salvage.h"

typedef enum DamageKind {
    DAMAGE_SEGMENT,
    DAMAGE_BLOB,
    DAMAGE_TABLE, /* of a repacked segment: segment-moved.h */
} DamageKind;

typedef struct Damage {
    DamageKind kind;
    Digest digest;
    bool missing;
    char *why;            /* as it was noticed */
    char *file;           /* below the store's folder */
    json_t *json;         /* damage_describe() makes it */
    GPtrArray *sentences; /* of char*: the same in words */
    bool repaired;
} Damage;

typedef struct DamageList DamageList;
DamageList *damage_list_new(Store *store);
void damage_list_free(DamageList *list);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DamageList, damage_list_free)

/* The first that is said of a file counts. @why may be NULL. */
void damage_add(DamageList *list, DamageKind kind, const Digest *digest, bool missing, const char *why);
bool damage_has(DamageList *list, DamageKind kind, const Digest *digest);
/* Adds what @other has and @list does not; what was repaired and is in @other all the same counts again. */
void damage_merge(DamageList *list, const DamageList *other);
guint damage_count(DamageList *list);
Damage *damage_nth(DamageList *list, guint index);

/* Fills @json and @sentences of all. Fails only when the catalog cannot be read. */
bool damage_describe(DamageList *list, GError **error);

#endif
