/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of a vendor's disk that the host cannot read whole: xfs, btrfs, LVM, a root spread over several file systems. One walk in the
 * appliance reads it when the last step has run, and the store remembers it by the disk's map; a bake that finds it gone walks again.
 * Outlines, read after each step, tell which step brought which file.
 */
#ifndef KILN_BAKER_BAKE_WALK_H
#define KILN_BAKER_BAKE_WALK_H

#include "baker/bake-run.h"

/*
 * Is that so of @disk? False for disks that kiln renders. @ret_mounts (NULL: nobody asks) is what guest_mounts_find() says of a disk whose root
 * was found, else NULL.
 */
bool bake_walk_wanted(BakeChain *chain, StoreMap *disk, bool *ret, GPtrArray **ret_mounts, GError **error);

/* The guest is at the state after its last step, still mounted; the disk's map is not known yet. */
bool bake_walk_read(BakeSession *session, GError **error);
/* Between steps: the outline alone. */
bool bake_walk_outline(BakeSession *session, GError **error);
/* What was read last is the state @map, which came from @before. */
bool bake_walk_captured(BakeSession *session, const Digest *before, const Digest *map, GError **error);

/* The tree of the chain's last state: known, remembered, or walked now in a guest of its own. */
bool bake_walk_get(BakeChain *chain, TreeStored *ret, GError **error);

/* What a step changed, as a memo; *ret NULL when that is not known (any more). Also for origins.c, which compares what the host can read. */
bool bake_changes_recall(BakeChain *chain, const char *key, json_t **ret, GError **error);
bool bake_changes_remember(BakeChain *chain, const char *key, const json_t *changes, GError **error);
/* What the step between two states changed, as origins.h keeps it; *ret NULL when that is not known. */
bool bake_walk_changes(BakeChain *chain, const Digest *before, const Digest *after, json_t **ret, GError **error);

#endif
