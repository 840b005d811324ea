/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks in registries, as artifacts of the type application/vnd.kiln.disk.v1 (kiln-store(5)): a night's push sends what is new in it.
 *
 *   config     the disk config, whose digest is the image ID
 *   layers     map of the disk | tree, and map of its files, where the image has them | segments | indexes of the segments
 *
 * A segment in a repository holds blocks of that artifact or of others in the same repository, and nothing else: blocks that the repository has
 * (by manifests recorded as pushed or pulled there, and looked for) are referred to, the others are sent. A segment of the store is sent as
 * it stands where all that is in it is to be sent; else what is to be sent goes into a new one. Private ones are never read.
 */
#ifndef KILN_STORE_DISK_ARTIFACT_H
#define KILN_STORE_DISK_ARTIFACT_H

#include "store/image.h"
#include "store/registry.h"

#define DISK_ARTIFACT_TYPE "application/vnd.kiln.disk.v1"
#define DISK_CONFIG_TYPE "application/vnd.kiln.disk.config.v1+json"
#define DISK_MAP_TYPE "application/vnd.kiln.map.v1+zstd"
#define DISK_FILES_TYPE "application/vnd.kiln.files.map.v1+zstd"
#define DISK_TREE_TYPE "application/vnd.kiln.tree.v1+zstd"
#define DISK_SEGMENT_TYPE "application/vnd.kiln.segment.v1"
#define DISK_INDEX_TYPE "application/vnd.kiln.segment.index.v1"

typedef struct DiskTransfer {
    Digest manifest;
    uint64_t manifest_size;
    uint64_t segments, present; /* segments moved, and not moved because they were there */
    uint64_t bytes, blocks;     /* bytes of blobs that were moved; blocks of the disk that were */
} DiskTransfer;

/* Another image, whose blocks may be in a segment that is sent as it stands. */
typedef struct DiskDonor {
    GArray *maps; /* of Digest */
    bool used;    /* there is such a segment */
} DiskDonor;

/* Bytes of a new segment from @at on that are those of a segment of the store from @from on. */
typedef struct DiskPiece {
    Digest segment;
    uint64_t at, from, size;
} DiskPiece;

/* Where the pieces of an artifact go. Segments and their indexes may come from several threads; the manifest comes last. */
typedef struct DiskSink {
    void *arg;
    const char *title;   /* of the progress; NULL: none is shown */
    const GArray *bases; /* of Digest: blobs of the store, the indexes of segments that are there and may be referred to */
    GPtrArray *donors;   /* of DiskDonor*: others whose blocks may be in a segment that is sent as it stands; NULL: nobody's */
    bool (*put_bytes)(void *arg, GBytes *bytes, Digest *ret, GError **error);
    /* @pieces: of DiskPiece, in their order; NULL: it is a segment of the store's, under its own name. */
    bool (*put_segment)(void *arg, const Digest *digest, uint64_t size, int fd, const GArray *pieces, Progress *progress, GError **error);
    bool (*put_manifest)(void *arg, GBytes *bytes, const Digest *digest, GError **error);
} DiskSink;

/* *ret_kept: of Digest, the indexes of its segments, which are blobs of the store then; as is the manifest. */
bool disk_artifact_make(Store *store, const StoreImage *image, const DiskSink *sink, GArray **ret_kept, DiskTransfer *ret, GError **error);

/* Puts the image there under @version (a tag, or NULL: its digest) and records that. */
bool disk_artifact_push(Store *store, const StoreImage *image, Registry *registry, const char *version, DiskTransfer *ret, GError **error);

bool disk_artifact_is(const json_t *manifest);
/*
 * Takes the bytes of the disk into the store: nothing that is there is fetched again. *ret: an image with everything but its name, for store_publish();
 * *ret_kept: blobs for store_image_add_manifest().
 */
bool disk_artifact_pull(Store *store, Registry *registry, GBytes *manifest, const char *name, StoreImage **ret, GArray **ret_kept, DiskTransfer *ret_report,
                        GError **error);

/* The whole disk as one layer for others than kiln: raw in a zstd frame, or qcow2. The manifest is kept in the store. */
bool disk_plain_push(Store *store, const StoreImage *image, Registry *registry, const char *version, bool qcow2, Digest *ret_manifest, GError **error);

/*
 * The other way, whoever made it: an artifact (its config is no container's) of which one layer is a whole disk by its media type (qcow2, raw or disk in
 * it) or its title (*.qcow2, *.raw, *.img, also .zst). *ret_layer: its descriptor, borrowed; NULL when the manifest is a container's. Anything
 * else, and several disks, is an error.
 */
bool disk_plain_find(const json_t *manifest, const json_t **ret_layer, GError **error);
/*
 * Fetches that layer into the store's downloads, verified, and unpacked where it is zstd. @fn gets the path of a raw or qcow2 file that nobody has
 * judged yet, and that is gone afterwards; only what an interrupt or a broken line left is gone on with by the next call.
 */
typedef bool DiskPlainFn(const char *path, void *arg, GError **error);
bool disk_plain_fetch(Store *store, Registry *registry, const json_t *layer, DiskPlainFn *fn, void *arg, GError **error);

#endif
