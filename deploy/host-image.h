/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image's file on the host that kiln runs on: FOLDER/<hex of the image ID>.raw, read-only, with a stamp beside it.
 *
 *   FOLDER/<hex>.raw     the disk, sparse, mode 0444; never written again: a new one replaces it
 *   FOLDER/<hex>.stamp   JSON: device, inode, size, mtime and ctime of the file when its bytes were last hashed, and their digest
 *   FOLDER/<hex>.part    being written by whoever holds the lock on it
 *
 * The bytes are hashed while they are written, against the `content` of the disk's config, and again whenever the stamp does not fit what is there:
 * a bit that flips underneath leaves ctime alone and is the disk's matter; anything that goes through the kernel does not. An instance
 * keeps the file that it was started with, whatever is put in its place.
 */
#ifndef KILN_DEPLOY_HOST_IMAGE_H
#define KILN_DEPLOY_HOST_IMAGE_H

#include "base/json.h"
#include "store/store.h"

/* What an image's disk must be, from its config in the store. */
typedef struct HostImageWant {
    Digest id, content;
    uint64_t size;
    char arch[16]; /* as libvirt calls it: "x86_64", "aarch64"; "" where the config does not say */
} HostImageWant;
bool host_image_want(Store *store, const Digest *id, HostImageWant *ret, GError **error);

/* SHA-256 over (block number, block hash) of the blocks that are not zero, fed in order; holes are skipped over. */
typedef struct ContentHash ContentHash;
ContentHash *content_hash_new(void);
void content_hash_data(ContentHash *hash, const void *data, size_t size);
void content_hash_hole(ContentHash *hash, uint64_t size);
void content_hash_final(ContentHash *hash, Digest *ret, uint64_t *ret_size);
void content_hash_free(ContentHash *hash);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ContentHash, content_hash_free)
/* Told now and then while bytes are read, that it goes on. */
typedef void ImageTick(void *arg);
/* Reads a file's data, holes by SEEK_HOLE. Ends early when the user interrupts. @tick may be NULL. */
bool content_hash_fd(int fd, const char *path, ImageTick *tick, void *arg, Digest *ret, uint64_t *ret_size, GError **error);

char *host_image_path(const char *folder, const Digest *id); /* free with g_free */

/* Writes the file unless a good one is there. Concurrent calls wait for each other. Progress bar. */
bool host_image_prepare(const char *folder, Store *store, const StoreImage *image, GError **error);

/* Is the file there, and the image's? Compares the stamp, hashes only when that differs. False with a sentence otherwise (KILN_ERROR_NOT_FOUND: absent). */
bool host_image_check(const char *folder, const HostImageWant *want, ImageTick *tick, void *arg, GError **error);
/* The stamp alone, without reading the file: costs nothing, false is no proof of the contrary. */
bool host_image_stamp_fits(const char *folder, const HostImageWant *want);

/* Image files whose digest is not in @keep (array of Digest) and whose path is no key of @used go, with their stamps. */
bool host_image_forget(const char *folder, const GArray *keep, GHashTable *used, GError **error);

#endif
