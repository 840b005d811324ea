/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Container layers, stored as a recipe (tar headers verbatim, member payloads
 * by 4 KiB block) so that they share every block with disks, and brought back bit-exact.
 *
 * The gzip form is made by kiln's own frozen deflate encoder (store/deflate.c): its output is
 * part of the store's format and may never change. Layers of other encoders are kept verbatim as blobs.
 *
 * Writing: layer_writer_new on a public StoreWriter, entries in the order of the tar,
 * layer_writer_finish (which reads every payload once or twice and compresses it), and after the
 * StoreWriter's commit layer_writer_result. The tar is deterministic PAX: sorted by the caller, no atime or
 * ctime, numeric owners only, SCHILY.xattr.*.
 */
#ifndef KILN_STORE_LAYER_H
#define KILN_STORE_LAYER_H

#include "store/tree.h"

typedef struct LayerWriter LayerWriter;
typedef struct LayerResult {
    Digest diff_id; /* of the uncompressed tar */
    Digest blob;    /* of the gzip bytes: what manifests list */
    uint64_t size;  /* of the gzip bytes */
    Digest recipe;  /* blob in the store that makes it again; digest_none: it is a blob itself */
    uint64_t tar_size;
    uint64_t new_bytes;
} LayerResult;

bool layer_writer_new(Store *store, StoreWriter *writer, LayerWriter **ret, GError **error);
/* @entry of @tree; content from @files. Sockets are left out. A name that starts with ".wh." is an error. */
bool layer_writer_add(LayerWriter *layer, const Tree *tree, StoreMap *files, const TreeEntry *entry,
                      GError **error);
bool layer_writer_whiteout(LayerWriter *layer, const char *path, GError **error); /* path that disappears */
/* Before finish: compressed by zstd instead. Its bytes are nobody's promise to make again, so they are kept as they are, and there is no recipe. */
void layer_writer_use_zstd(LayerWriter *layer);
bool layer_writer_finish(LayerWriter *layer, GError **error);
bool layer_writer_empty(const LayerWriter *layer); /* nothing was added */
/* Only after the StoreWriter's commit: writes the recipe, which names the payload's map. */
bool layer_writer_result(LayerWriter *layer, LayerResult *ret, GError **error);
void layer_writer_free(LayerWriter *layer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayerWriter, layer_writer_free)

/*
 * A layer from elsewhere as a recipe: @tar_fd holds its plain tar, whose blocks go into @writer. What the layer's own bytes are, the tar or
 * what our encoder makes of it, is known to the caller (LayerProbe).
 *
 *     layer_ingest_new -> the StoreWriter's commit -> layer_ingest_result
 *
 * Nothing depends on the recipe before layer_ingest_result, which makes the tar again from what was stored, and compares.
 */
typedef struct LayerIngest LayerIngest;
typedef struct LayerBytes {
    bool gzip; /* our encoder's; else @blob is @diff_id */
    Digest diff_id, blob;
    uint64_t tar_size, size;
} LayerBytes;
bool layer_ingest_new(Store *store, StoreWriter *writer, int tar_fd, const LayerBytes *bytes, LayerIngest **ret, GError **error);
bool layer_ingest_result(LayerIngest *ingest, LayerResult *ret, GError **error);
void layer_ingest_free(LayerIngest *ingest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayerIngest, layer_ingest_free)

/*
 * Are the bytes of @gzip_fd, read from their start, what our encoder makes of the tar that is pushed? push: false as soon as they are not, which for
 * a layer of another encoder is within the first megabyte; is_ours: after the last byte.
 */
typedef struct LayerProbe LayerProbe;
LayerProbe *layer_probe_new(int gzip_fd);
bool layer_probe_push(LayerProbe *probe, const void *data, size_t size);
bool layer_probe_is_ours(LayerProbe *probe);
void layer_probe_free(LayerProbe *probe);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayerProbe, layer_probe_free)

/* How our encoder starts its output; Go's does too, so it says little. */
#define LAYER_GZIP_HEAD 10
bool layer_starts_as_ours(const uint8_t head[LAYER_GZIP_HEAD]);
/*
 * The plain tar of @gzip_fd, read from its start, in a file without a name; its digest and size go into @bytes. *ret_tar_fd stays -1 when the layer is
 * not our encoder's, or is one that unpacks to more than @max.
 */
bool layer_unpack_ours(Store *store, int gzip_fd, uint64_t max, LayerBytes *bytes, int *ret_tar_fd, GError **error);

/* Writes the layer's gzip bytes (or with @tar the uncompressed tar) to @fd, verifying the digest. */
bool layer_write_out(Store *store, const Digest *recipe, bool tar, int fd, GError **error);
/* The same; @progress is moved by the bytes of the uncompressed tar. */
bool layer_write_out_watched(Store *store, const Digest *recipe, bool tar, int fd, struct Progress *progress,
                             GError **error);

/* Segments and maps a recipe refers to are found through the map it names: for gc and fsck. */
bool layer_recipe_map(Store *store, const Digest *recipe, Digest *ret_map, GError **error);

/* Sizes and digests written in a recipe, without making the layer. */
bool layer_recipe_info(Store *store, const Digest *recipe, LayerResult *ret, GError **error);

#endif
