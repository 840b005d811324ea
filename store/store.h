/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The face of the store. Outsiders include this file (or the ports named in
 * HACKING.md) and nothing else of this folder. The parts, in reading order:
 *
 *   store/pool.h          opening, classes, writers, blobs, leases
 *   store/map.h           disks: maps of 4 KiB blocks, read and written
 *   store/tree.h          root file systems as canonical trees
 *   store/layer.h         container layers: recipes that come back bit-exact
 *   store/image.h         artifacts, sets, names, references, bake states
 *   store/channel.h       channels and revocations
 *   store/journal.h       journals of groups, under a lock and an epoch
 *   store/signature.h     signatures of images and of logs
 *   store/audit.h         who moved what, when and why
 *   store/prune.h         which sets keep their bytes
 *   store/upkeep.h        gc, fsck, stats
 *   store/sync.h          a store copied into another folder
 *   store/remote-sync.h   published sets in a folder or a bucket elsewhere (store/remote.h), and back
 *   store/shared-cache.h   a bake cache that machines share
 *   store/working-disk.h  the block device a bake runs on
 *   store/disk-file.h     disk images as files, in and out
 *   store/disk-server.h   a stored disk over NBD
 *   store/oci.h           OCI layouts and archives in and out
 *   store/registry.h      OCI registries: names and sessions
 *   store/oci-end.h       copies between registries, layouts and the store
 *   store/disk-artifact.h disks in registries
 *   store/manifests.h     by which manifests registries know an image
 *   store/serve.h         the store as an OCI registry
 */
#ifndef KILN_STORE_STORE_H
#define KILN_STORE_STORE_H

#include "store/pool.h"

#include "store/archive.h"
#include "store/audit.h"
#include "store/channel.h"
#include "store/disk-artifact.h"
#include "store/disk-file.h"
#include "store/disk-server.h"
#include "store/image.h"
#include "store/journal.h"
#include "store/layer.h"
#include "store/manifests.h"
#include "store/map.h"
#include "store/oci.h"
#include "store/oci-end.h"
#include "store/package-index.h"
#include "store/prune.h"
#include "store/registry.h"
#include "store/remote-sync.h"
#include "store/serve.h"
#include "store/shared-cache.h"
#include "store/signature.h"
#include "store/sync.h"
#include "store/tree.h"
#include "store/upkeep.h"
#include "store/working-disk.h"

#endif
