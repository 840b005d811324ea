/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a copy of OCI images: a repository in a registry, a layout as a folder or in an archive, or an image of this store.
 *
 * Documents are small and come whole; blobs go through a file, so that whoever reads may go on where it broke. What an end reads it verifies by
 * digest. Members are thread-safe for blobs.
 */
#ifndef KILN_STORE_OCI_END_H
#define KILN_STORE_OCI_END_H

#include "store/oci.h"
#include "store/registry.h"

typedef struct OciEndOps {
    const char *name;
    bool (*get_manifest)(void *end, const char *version /* NULL: the one the end was opened for */, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error);
    bool (*get_blob)(void *end, const Digest *digest, uint64_t size, int fd, uint64_t have, Progress *progress, GError **error);
    bool (*has_blob)(void *end, const Digest *digest, bool *ret, GError **error);
    bool (*put_blob)(void *end, const Digest *digest, uint64_t size, int fd, Progress *progress, uint64_t *ret_sent, GError **error);
    /* @top: the one that the end was opened for. *ret_subject: it is found by its subject from now on. */
    bool (*put_manifest)(void *end, GBytes *manifest, const char *type, const Digest *digest, bool top, bool *ret_subject, GError **error);
    bool (*referrers)(void *end, const Digest *subject, json_t **ret, GError **error); /* absent: it knows none */
    bool (*add_referrer)(void *end, const Digest *subject, json_t *descriptor, GError **error); /* absent: they find each other */
    bool (*finish)(void *end, GError **error); /* absent: nothing to do */
    void (*close)(void *end);
} OciEndOps;

typedef struct OciEnd {
    const OciEndOps *ops;
    void *data;
} OciEnd;
void oci_end_close(OciEnd *end);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(OciEnd, oci_end_close)
OciEnd *oci_end_new(const OciEndOps *ops, void *data);

typedef struct OciEndOptions {
    bool write, plain_http;
} OciEndOptions;

/* docker://..., oci:DIR[:TAG], oci-archive:FILE[:TAG], and for writing docker-archive:FILE. */
bool oci_end_open(Store *store, const char *text, const OciEndOptions *options, OciEnd **ret, GError **error);
bool oci_end_is_name(const char *text); /* does it start with one of these? */

/* The members. */
bool oci_end_registry(Store *store, const RegistryRef *ref, const OciEndOptions *options, OciEnd **ret, GError **error);
Registry *oci_end_registry_session(const OciEnd *end); /* borrowed; NULL: it is none */
bool oci_end_layout(Store *store, OciForm form, const char *path, const char *tag, bool write, OciEnd **ret, GError **error);
/* A layout in a folder of the store's, for reading back; blobs that the store has are not asked for. */
bool oci_end_intake(Store *store, const char *path, OciEnd **ret, GError **error);
bool oci_end_image(Store *store, const StoreImage *image, OciEnd **ret, GError **error);
bool oci_end_docker_archive(Store *store, const char *path, OciEnd **ret, GError **error);

typedef struct OciCopy {
    bool whole_index;   /* else the manifest that suits @architecture */
    const char *architecture; /* NULL: this machine's */
    bool referrers;
} OciCopy;

typedef struct OciCopyReport {
    Digest manifest; /* what was put at the top */
    uint64_t blobs, present, bytes_sent;
    unsigned referrers;
} OciCopyReport;
bool oci_copy(Store *store, OciEnd *from, OciEnd *to, const OciCopy *how, OciCopyReport *ret, GError **error);

/* A container image of the store with docker's media types in its manifest; config and layers are the same. The manifest is kept in the store. */
bool oci_push_docker(Store *store, const StoreImage *image, OciEnd *to, Digest *ret_manifest, GError **error);

/* A descriptor's parts, bounded. */
bool oci_read_descriptor(const json_t *descriptor, Digest *ret_digest, uint64_t *ret_size, GError **error);
/* A blob of the registry by its descriptor, in memory and followed by a NUL; larger than @max is an error. */
bool oci_fetch_bytes(Store *store, Registry *registry, const json_t *descriptor, uint64_t max, GBytes **ret, GError **error);
bool oci_type_is_index(const char *type);
bool oci_type_is_manifest(const char *type);
const char *oci_host_architecture(void);
/* The descriptor in @index that suits, borrowed; NULL when none does. */
json_t *oci_choose_platform(const json_t *index, const char *architecture);

/* At most three at a time. The first error ends all. */
typedef bool OciJobFn(gpointer item, void *arg, GError **error);
bool oci_in_parallel(GPtrArray *items, OciJobFn *fn, void *arg, GError **error);

#endif
