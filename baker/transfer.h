/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images to registries and from them, with what belongs to them: signatures, the bill of materials and the provenance go along as referrers
 * of the manifest and come back.
 */
#ifndef KILN_BAKER_TRANSFER_H
#define KILN_BAKER_TRANSFER_H

#include "store/store.h"

#define TRANSFER_SIGNATURE_TYPE "application/vnd.kiln.signature.v1+json"
#define TRANSFER_PROVENANCE_TYPE "application/vnd.kiln.provenance.v1+json"
#define TRANSFER_SPDX_TYPE "application/spdx+json"

typedef struct TransferReport {
    Digest manifest;
    uint64_t bytes;    /* of blobs that were moved */
    uint64_t blobs, present;
    uint64_t requests;
    unsigned referrers;
} TransferReport;

typedef enum PushForm {
    PUSH_KILN,   /* a disk as its changes; a container image as it is */
    PUSH_DOCKER, /* a container image with docker's media types */
    PUSH_RAW_ZST,
    PUSH_QCOW2, /* the whole disk as one layer, for others */
} PushForm;

bool transfer_push(Store *store, const StoreImage *image, const char *to, PushForm form, bool plain_http, TransferReport *ret, GError **error);

typedef struct PullOptions {
    const char *architecture; /* NULL: this machine's */
    bool plain_http;
} PullOptions;
/* Publishes under @name; NULL: the last word of the repository. Array of StoreImage*. */
bool transfer_pull(Store *store, const char *from, const char *name, const PullOptions *options, GPtrArray **ret_images, TransferReport *ret, GError **error);

/* A container image as a parent to bake from: layers and config in the store, nothing published. */
bool transfer_fetch_parent(Store *store, const char *from, const Digest *manifest, OciParent **ret, GError **error);
/* What the reference stands for now: the manifest for this machine. */
bool transfer_resolve(Store *store, const char *from, Digest *ret, GError **error);

/* The digest of the layer that is a whole disk (store/disk-artifact.h) in what the reference stands for now. */
bool transfer_resolve_disk(const char *from, Digest *ret, GError **error);
/* Fetches it, if that is still @layer, as disk_plain_fetch() does. */
bool transfer_fetch_disk(Store *store, const char *from, const Digest *layer, DiskPlainFn *fn, void *arg, GError **error);

#endif
