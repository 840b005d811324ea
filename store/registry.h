/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of OCI registries (distribution-spec 1.1): names, and a session with one repository of one of them.
 *
 *   registry_ref_parse -> registry_open -> manifests, blobs, tags, referrers -> registry_close
 *
 * Who we are comes from docker's and podman's own files (registry-auth.h), certificates from their certs.d folders, mirrors from
 * registries.conf. Every session may be used by several threads at once. What arrives is held against the digest it was asked by; a transfer that
 * breaks goes on where it was, as long as that gains something. Plain HTTP is spoken to this machine alone, or where the caller allows it.
 */
#ifndef KILN_STORE_REGISTRY_H
#define KILN_STORE_REGISTRY_H

#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define REGISTRY_SCHEME "docker://"
#define REGISTRY_MANIFEST_MAX (4u << 20)

#define OCI_INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define OCI_EMPTY_TYPE "application/vnd.oci.empty.v1+json"
#define DOCKER_INDEX_TYPE "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_MANIFEST_TYPE "application/vnd.docker.distribution.manifest.v2+json"

/* docker://HOST[:PORT]/REPOSITORY[:TAG][@sha256:...]; without a host that looks like one, docker.io's; there, one word is library/WORD. */
typedef struct RegistryRef {
    char *host, *repository;
    char *tag;     /* NULL: none was given */
    Digest digest; /* digest_none: none was given */
} RegistryRef;
bool registry_ref_parse(const char *text, RegistryRef *ret, GError **error);
void registry_ref_clear(RegistryRef *ref);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(RegistryRef, registry_ref_clear)
/* HOST/REPOSITORY; free with g_free. */
char *registry_ref_place(const RegistryRef *ref);
/* Its digest as text, else its tag, else "latest"; free with g_free. */
char *registry_ref_version(const RegistryRef *ref);

/* A login that goes before those of the files, for as long as this process runs. @server: a host, or a URL as docker login takes it. */
void registry_login_add(const char *server, const char *user, const char *password);

typedef struct Registry Registry;
typedef struct RegistryOptions {
    bool push;       /* ask for the right to write; no mirrors */
    bool plain_http; /* also to other machines */
} RegistryOptions;
bool registry_open(const RegistryRef *ref, const RegistryOptions *options, Registry **ret, GError **error);
void registry_close(Registry *registry);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Registry, registry_close)
const char *registry_place(const Registry *registry); /* HOST/REPOSITORY, for messages and records */
const char *registry_host(const Registry *registry);

/*
 * The manifest or index that @version (a tag or "sha256:...") names, byte for byte. @ret_type: its media type. Asked for by digest, it has
 * that. Not there: KILN_ERROR_NOT_FOUND. Docker's first schema is refused.
 */
bool registry_get_manifest(Registry *registry, const char *version, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error);
bool registry_has_manifest(Registry *registry, const char *version, Digest *ret_digest /* none when not told */, bool *ret, GError **error);
/* A blob that it names is not there: KILN_ERROR_NOT_FOUND. @ret_subject (may be NULL): the registry lists it among the referrers of its subject. */
bool registry_put_manifest(Registry *registry, const char *version, GBytes *manifest, const char *type, bool *ret_subject, GError **error);

/*
 * Into @fd, which has @have verified or unverified bytes from an earlier try: they are used when they prove good. At the end the file has
 * @size bytes and @digest, or nothing of it is to be used.
 */
bool registry_get_blob(Registry *registry, const Digest *digest, uint64_t size, int fd, uint64_t have, Progress *progress, GError **error);
/* [from, from+size) of a blob to the same place of @fd. Not verified. *ret_done false: the registry answers no ranges. */
bool registry_get_range(Registry *registry, const Digest *digest, uint64_t from, uint64_t size, int fd, Progress *progress, bool *ret_done, GError **error);
bool registry_has_blob(Registry *registry, const Digest *digest, bool *ret, GError **error);
/* Nothing is sent when it is there, or can be mounted from the repository @from of the same registry (may be NULL). *ret_sent: bytes sent. */
bool registry_put_blob(Registry *registry, const Digest *digest, uint64_t size, int fd, const char *from, Progress *progress, uint64_t *ret_sent, GError **error);
bool registry_put_blob_bytes(Registry *registry, const void *data, size_t size, Digest *ret_digest, GError **error);

bool registry_tags(Registry *registry, GPtrArray **ret /* of char * */, GError **error);

/* Descriptors of the manifests whose subject is @digest: by the referrers API, else by the tag sha256-HEX. */
bool registry_referrers(Registry *registry, const Digest *digest, json_t **ret, GError **error);
/* For registries without that API: enters @descriptor into the index under that tag. */
bool registry_add_referrer(Registry *registry, const Digest *subject, json_t *descriptor, GError **error);

/* Requests made and bytes of blobs received so far, for tests and --json. */
void registry_counts(const Registry *registry, uint64_t *ret_requests, uint64_t *ret_received, uint64_t *ret_sent);

#endif
