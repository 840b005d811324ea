/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root file systems of container images as folders on this host, written from the store and watched from then on.
 *
 *   DIR/config.json  the image's OCI config, byte for byte: its SHA-256 is the image ID
 *   DIR/rootfs/      the tree, with owners, modes, times and extended attributes
 *   DIR/stamp        what was written: for each entry its identity (type, mode, owner, size, extended attributes, SHA-256 or target) and the stat it had then
 *
 * A check compares every entry's stat with the stamp, which costs a few microseconds an entry; only what differs is read and
 * hashed again. ctime and inode number can't be set by whoever writes to a file, so equal stats mean equal bytes.
 */
#ifndef KILN_DEPLOY_ROOTFS_H
#define KILN_DEPLOY_ROOTFS_H

#include "base/json.h"
#include "store/store.h"

#include <sys/stat.h>

/* Writes all three into @dir, which exists and is empty. Contents are hashed on the way. */
bool rootfs_write(Store *store, const StoreImage *image, const char *dir, GError **error);

typedef struct RootfsStamp RootfsStamp;
bool rootfs_stamp_load(const char *dir, const Digest *image, RootfsStamp **ret, GError **error);
void rootfs_stamp_free(RootfsStamp *stamp);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RootfsStamp, rootfs_stamp_free)

/* False names the first path that is not as it was written. */
bool rootfs_check(const char *dir, const RootfsStamp *stamp, GError **error);

/* The image's OCI config out of @dir, held against the image ID. */
bool rootfs_config(const char *dir, const Digest *image, json_t **ret, GError **error);

typedef struct RootfsEntry {
    char *path; /* without leading slash; "" is the root */
    char type;  /* as in a tree, but that further names of a file are files */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t size;
    dev_t device;  /* 'b', 'c' */
    Digest sha256; /* 'f' */
    char *target;  /* 'l' */
    Digest xattrs; /* over all of them; digest_none: none */
    /* the stat it had */
    ino_t inode;
    struct timespec mtime, ctime;
} RootfsEntry;

const RootfsEntry *rootfs_stamp_find(const RootfsStamp *stamp, const char *path);
guint rootfs_stamp_count(const RootfsStamp *stamp);
const RootfsEntry *rootfs_stamp_nth(const RootfsStamp *stamp, guint index); /* sorted by path */

/* Bytes that @image's layers have unpacked, as far as the store knows without unpacking: an estimate for plans. */
uint64_t rootfs_estimate(Store *store, const StoreImage *image);

/* Opens @path below @rootfd, links followed inside of it only. -1 with errno. */
int rootfs_open_inside(int rootfd, const char *path, int flags);

#endif
