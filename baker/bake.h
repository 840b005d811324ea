/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bake engine: one build of a template becomes one published set.
 *
 *   plan (arguments, keys, cached prefix) -> run (guest session for the rest) -> seal (tree, disk, layers) -> publish
 *
 * A step's key covers the content it starts from and everything that can change its result; its state is kept in the
 * store as a private map. A bake starts at its longest cached prefix; when every step is cached and the
 * outputs were published before, it starts no appliance and answers with the known image IDs.
 *
 * Steps with `only_output` make a branch: each output kind is then its own chain over the same cache, so the
 * common prefix runs once.
 */
#ifndef KILN_BAKER_BAKE_H
#define KILN_BAKER_BAKE_H

#include "base/json.h"
#include "provisioner/guest.h"
#include "store/store.h"
#include "baker/source.h"
#include "templates/templates.h"

/* What differs between two bakes and must not show in their results: verify.h gives the second one others than the first. */
typedef struct BakeAround {
    int64_t clock_ahead; /* seconds that the guest's clock goes ahead in steps with network */
    bool other_order;    /* folders of the first working disk hand out their entries in another order */
} BakeAround;

/* A bake from what another one recorded instead of from what its template would find today. */
typedef struct BakeRebuild {
    const char *dir;   /* the folder that the template was in: sources are looked for there */
    json_t *source;    /* the source's identity */
    int64_t epoch;     /* SOURCE_DATE_EPOCH */
} BakeRebuild;

typedef struct BakeOptions {
    bool offline;  /* nothing is asked from the network by kiln itself */
    PullPolicy pull;
    bool refresh;  /* volatile results are made again */
    bool no_cache; /* every step runs; results still enter the cache */
    bool skip_known_tests;   /* test steps on an unchanged image: source do not run */
    bool boot_critical;      /* a bake that changes what a machine boots with is booted before it is published */
    int64_t fresh_since;     /* release files fetched at or after this time count as fresh; 0: asked again */
    const char *lock;        /* file to write the package transactions to; NULL: none */
    const char *locked;      /* file to take them from; NULL: none */
    const char *on_error;    /* "cleanup" (NULL), "abort", "ask", "run-cleanup-provisioner" */
    const char *shell_at;    /* step before which a shell opens, see bake_check_step(); NULL: none */
    bool unpublished;        /* nothing is published or remembered: the images are in the result only. Boot tests and post-processors do not run */
    BakeAround around;
    const BakeRebuild *rebuild; /* NULL: none */
    SharedCache *shared;     /* attached to the store during the bake; NULL: none */
    bool interactive;        /* somebody sits at the terminal: breakpoints open, questions are asked */
    GuestLineFn *shell_line; /* gets the output of a shell that is fed from standard input; NULL: the log */
} BakeOptions;

typedef struct BakeResult {
    GPtrArray *images;   /* of StoreImage* */
    json_t *steps;       /* [{type, cached, seconds}] */
    json_t *packages;    /* what packages steps changed: [{name, from?, version?}]; without version: removed */
    double seconds;
    uint64_t new_bytes;  /* compressed bytes this bake added to the store */
    bool cached;         /* nothing ran */
    GHashTable *kept;    /* what the set keeps: name -> Digest* of a blob; set with BakeOptions.unpublished */
} BakeResult;
void bake_result_clear(BakeResult *result);

/* Checks every argument of every block of @build without running anything; errors carry file, line and caret. */
bool bake_check(const TemplateBuild *build, GError **error);
/* The same of several, TemplateBuild*: all that is wrong with them is told at once. */
bool bake_check_all(const GPtrArray *builds, GError **error);

/* @step is a number as bake_plan_describe() counts, a step's name, "seal", or "end". The error lists the build's steps. */
bool bake_check_step(const TemplateBuild *build, const char *step, GError **error);
/* Could a bake with @options wait for somebody? It then wants the terminal for itself. */
bool bake_may_stop(const TemplateBuild *build, const BakeOptions *options);

/* The name of the image that @build is baked on, where that is an image of the store and its newest; else NULL. Free with g_free. */
char *bake_parent_name(const TemplateBuild *build);

/* Bakes and publishes. Call from a thread that lives as long as the bake (children are tied to it). */
bool bake_build(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options,
                BakeResult *ret, GError **error);

#endif
