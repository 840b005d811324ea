/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: what a bake starts from, one file each, listed in source-table.c.
 *
 * check (arguments only) -> identify (what exactly it is, as canonical JSON: the key of the first state) -> prepare (makes the
 * first working-disk state in the store; only when no state with that key is cached).
 */
#ifndef KILN_BAKER_SOURCE_H
#define KILN_BAKER_SOURCE_H

#include "base/json.h"
#include "store/store.h"

/* What is known of a URL or tag that is pinned by no digest: */
typedef enum PullPolicy {
    PULL_CHANGED, /* is asked for; fetched when it is another one */
    PULL_ALWAYS,  /* a URL is fetched whatever its server says of its age; what templates say against asking counts nothing */
    PULL_NEVER,   /* is what it was */
} PullPolicy;

typedef enum DiskLayout { LAYOUT_NONE, LAYOUT_RENDERED, LAYOUT_INPLACE } DiskLayout;

typedef struct SourceContext {
    Store *store;
    const char *template_dir;
    const char *name;       /* set name: seeds UUIDs */
    const char *build_name; /* the source's own name */
    int64_t epoch;          /* template's or the environment's SOURCE_DATE_EPOCH; -1 unknown */
    const char *output;     /* "disk" or "oci" where the bake is for that output only; else NULL */
    bool offline;
    PullPolicy pull;
    bool anew;              /* a root that was made before is made again, and not remembered */
    bool kept;              /* a root that the store does not have any more is an error: it could only be made of other packages */
    bool other_order;       /* BakeAround's */
} SourceContext;

/* The first state. Saved in the store as a StoreState whose info holds layout, epoch and OCI parent. */
typedef struct SourceState {
    DiskLayout layout;
    int64_t epoch;          /* resolved SOURCE_DATE_EPOCH */
    Digest content;         /* tree digest, or block content where the root cannot be read */
    Digest map;             /* the first working disk */
    TreeStored tree;        /* base tree (none for a disk whose root could not be read) */
    uint64_t size;          /* of the working disk */
    json_t *info;           /* owned: anything the outputs need: {"oci_parent": {...}} */
} SourceState;
void source_state_clear(SourceState *state);

#define SOURCE_BOOTSTRAP_SIZE ((uint64_t)2 << 30) /* of a bootstrapped disk whose template gives none, if that is enough */

typedef struct SourceOps {
    const char *type;
    const char *const *arguments;
    bool (*check)(const json_t *args, const char **ret_argument, GError **error);
    bool (*identify)(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error);
    bool (*prepare)(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret, GError **error);
    const char *default_output; /* "disk" or "oci"; NULL: nothing is baked, and steps have no guest */
    /*
     * The steps begin with one for what a first boot would do (provisioner_first_boot()), and these are its arguments. The slot may be NULL, and *ret:
     * nothing of that.
     */
    bool (*first_boot)(const SourceContext *context, const json_t *args, json_t **ret, GError **error);
    /* The steps end with this shell script, without network: what the template does as it switches the machine off. The slot may be NULL, and *ret: nothing. */
    bool (*last_script)(const SourceContext *context, const json_t *args, char **ret, GError **error);
    /* Arguments of `output "oci"` that the source stands for; new reference. The slot may be NULL. */
    json_t *(*output)(const json_t *args);
    /*
     * After every bake, cached or not: files that the source's arguments name, written by baker/output-files.h. Their paths (char*) are appended to
     * @files, for post-processors. The slot may be NULL.
     */
    bool (*deliver)(const SourceContext *context, const json_t *args, const GPtrArray *images /* of StoreImage* */, GPtrArray *files, GError **error);
    bool packers;               /* a source of Packer's: its steps have the network, and expect a machine that has booted */
} SourceOps;

/* What a build is baked on: its source, or what takes its place. */
typedef struct SourceBase {
    const SourceOps *ops; /* NULL: there is no such source */
    json_t *args;         /* owned */
} SourceBase;
void source_base(const char *type, const json_t *args, const char *rebase /* or NULL */, SourceBase *ret);
void source_base_clear(SourceBase *base);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SourceBase, source_base_clear)

const SourceOps *source_find(const char *type);
const char *const *source_types(void);

#endif
