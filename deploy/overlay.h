/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changed on disk: an instance's overlay held against its image, for drivers whose files this host can read.
 *
 * The caller pauses the guest, which makes the hypervisor write out the overlay, calls overlay_changes(), and lets the guest go on.
 */
#ifndef KILN_DEPLOY_OVERLAY_H
#define KILN_DEPLOY_OVERLAY_H

#include "deploy/driver.h"

/*
 * @overlay_path: a qcow2 over @base_path, which is @image's disk, raw. Entries come by partition, then by path, unfiltered (deploy/drift-ignore.h
 * says what is expected to change):
 *
 *   "/etc/hosts"                               "changed", "added", "removed", "type changed", "mode changed", "owner changed",
 *                                              "attributes changed" or several of the last three
 *   "(partition 16) /grub/grub.cfg"            the same of an ext4 that is not the root
 *   "(partition 15, 3 blocks)"                 "changed": content that kiln does not look into
 *   "(swap on partition 3, 9 blocks)"          "changed"
 *   "(partition table, 2 blocks)"              "changed"
 *   "(root, 812 blocks of 4 KiB changed)"      "unreadable: WHY"
 *   "(the journal holds 7 blocks of fast commits)" "unreadable": newer changes that kiln does not read
 *   "(and 12 more)"                            "changed": there is a limit
 *
 * Control bytes, backslashes and what is not UTF-8 stand as \\xNN in paths. An overlay that is damaged, or lies over another file, is an error.
 */
bool overlay_changes(Store *store, const char *overlay_path, const char *base_path, const StoreImage *image, GPtrArray **ret /* of DriftEntry* */,
                     GError **error);

#endif
