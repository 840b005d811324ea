/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the bake engine share: one chain (a source, its steps, its outputs) on its way through
 * bake-check.c, bake-plan.c, bake-run.c (with bake-session.c and bake-stop.c) and bake-seal.c.
 */
#ifndef KILN_BAKER_BAKE_INTERNAL_H
#define KILN_BAKER_BAKE_INTERNAL_H

#include "baker/bake.h"
#include "baker/resolve.h"
#include "baker/secrets.h"
#include "baker/source.h"
#include "provisioner/provisioner.h"

/* Raised by hand when the same inputs would give another result: it is part of every key. */
#define BAKE_ENGINE 5

/* One step of a chain: a provisioner, or (block NULL) the seal's cleaning in the guest. */
typedef struct BakeStep {
    const TemplateBlock *block;
    const ProvisionerOps *ops;
    char *label;       /* "shell", or the block's name */
    bool network;
    bool is_volatile;  /* its result depends on the network, or the host, and on nothing declared */
    bool outside;      /* on the host: what it reached on the network does not tell */
    Digest key;        /* known when the content before it is */
    Digest content;    /* after the step; none until known */
    Digest map;        /* working disk after the step */
    bool cached;
    bool untested;     /* a test that was passed over: nothing was run for it */
    double seconds;
    unsigned position;    /* of its block in the build, from 1; 0: the seal */
    json_t *transaction;  /* "packages": what the host resolved for resolved_for; NULL: the guest resolves itself */
    Digest resolved_for;  /* content that transaction was resolved for */
    json_t *reached;      /* what it tried to reach on the network; NULL: not known */
    GPtrArray *inputs;    /* of ProvisionerInput*: the host's files that the key was made of; NULL: it reads none */
    json_t *record;       /* the parts of the key, for bake-why.h */
} BakeStep;

typedef struct BakeChain {
    Store *store;
    Template *template;
    const TemplateBuild *build;
    const BakeOptions *options;
    const char *output;      /* "disk" or "oci" when this chain serves one kind only, else NULL */
    SourceBase base;
    const SourceOps *source; /* the base's */
    TemplateBlock *first_boot; /* the step before the template's own; NULL: none */
    TemplateBlock *last_step;  /* and the one behind them; NULL: none */
    GError *problem;         /* why one of these cannot be made; told when the chain is planned */
    json_t *identity;
    Digest source_key;
    SourceState state;       /* the source's first state */
    int64_t epoch;
    char **env;              /* base environment of every step */
    Secrets *secrets;        /* read by bake_plan() */
    GPtrArray *steps;        /* of BakeStep* */
    BakeStep *cleanup;       /* error-cleanup-provisioner; NULL: none */
    size_t shell_at;         /* a shell opens before this step, behind the last one when it is their number; SIZE_MAX: nowhere */
    size_t hits;             /* length of the cached prefix */
    bool source_cached;
    uint64_t new_bytes;      /* private bytes that steps added */
    int64_t started;         /* wall clock: what was fetched since counts as fresh for all steps */
    json_t *locked;          /* transactions to replay, by position; NULL: none */
    TreeKnown *known;        /* made by bake_known() */
    bool root_known;         /* bake_find_root() has looked at an in-place disk */
    bool root_found;
    uint64_t root_offset, root_size;
    TreeStored walked;       /* read in the appliance (bake-walk.h) ... */
    Digest walked_map;       /* ... from this state; none: not yet */
    bool is_walked;          /* the seal's tree is that one */
} BakeChain;

BakeChain *bake_chain_new(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options,
                          const char *output);
void bake_chain_free(BakeChain *chain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BakeChain, bake_chain_free)

/* Was the template written for Packer's machines, which have booted and have a network? */
bool bake_is_packers(const TemplateBuild *build);
/* What the source's functions get. */
SourceContext bake_source_context(const BakeChain *chain);
/* Arguments of the container image: what the source stands for, and over it what the output's block (or NULL) says. New reference. */
json_t *bake_output_args(const BakeChain *chain, const TemplateBlock *block);

/* bake-plan.c: identifies the source, makes its first state if needed, finds the cached prefix. */
bool bake_plan(BakeChain *chain, GError **error);
/* The same without making anything: *ret_known is false when the source's first state is not there. */
bool bake_plan_known(BakeChain *chain, bool *ret_known, GError **error);
/* The step that --shell-at's @text means, as BakeChain.shell_at; false when this chain has none or several of that name. */
bool bake_find_step(const BakeChain *chain, const char *text, size_t *ret);
/* The chains of a build: one, or one for each output where steps are for one of them only. */
GPtrArray *bake_chains_new(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options);
/* Records of the last bake's steps, for bake-why.h; *ret is NULL when there was none. */
bool bake_records_load(BakeChain *chain, json_t **ret, GError **error);
/* Those of this one, as far as its keys are known. New reference. */
json_t *bake_records_of(const BakeChain *chain);
/* Keeps those of this one; nothing is written when nothing changed. */
bool bake_records_save(BakeChain *chain, GError **error);
/* The request behind a packages step, for resolve.h. */
bool bake_resolve_request(BakeChain *chain, size_t index, ResolveRequest *ret, GError **error);
/* Content and map before step @index. */
const Digest *bake_content_before(const BakeChain *chain, size_t index);
/* The template's volatile_paths, NULL without; and as part of a key. */
const char *const *bake_volatile_paths(const BakeChain *chain);
void bake_add_volatile_paths(const BakeChain *chain, json_t *key);
const Digest *bake_map_before(const BakeChain *chain, size_t index);
/* The key of step @index, once the content before it is known. */
bool bake_step_key(BakeChain *chain, size_t index, GError **error);
/* Looks step @index up in the cache; sets cached, content and map on a hit. */
bool bake_step_lookup(BakeChain *chain, size_t index, GError **error);
/* When a volatile step's result was made: a plan says how old it is. */
void bake_note_run(BakeStep *step, int64_t when);
/* Host side of a step's environment, for inputs() and run(). */
ProvisionerHost bake_host(const BakeChain *chain, const BakeStep *step);

/* bake-run.c: runs steps from chain->hits on in one guest session; every good state enters the cache. */
bool bake_run(BakeChain *chain, GError **error);

/* bake-tree.c: the content of a working disk, and what a sealed root looks like. */
bool bake_content(BakeChain *chain, const Digest *map, Digest *ret, GError **error);
/* The same of a tree that was rendered: what bake_content() gives for its disk after a step that changed nothing. */
bool bake_tree_content(BakeChain *chain, const TreeStored *stored, Digest *ret, GError **error);
/* Contents that this chain has seen, those of its source's tree among them; borrowed. */
bool bake_known(BakeChain *chain, TreeKnown **ret, GError **error);
/* The root's partition in a working disk; false without error when there is no ext4 root. */
bool bake_find_root(BakeChain *chain, StoreMap *disk, uint64_t *ret_offset, uint64_t *ret_size, bool *ret_found,
                    GError **error);
void bake_normalise(BakeChain *chain, Tree *tree);

/* bake-seal.c: outputs from the last state; appends StoreImage* to @images. */
bool bake_seal(BakeChain *chain, GPtrArray *images, GError **error);
/* Key of the published set: final content, outputs, layout, name. */
void bake_final_key(const BakeChain *chain, Digest *ret);
/* bake.c: the set that the chains' final states were published as (*ret_images NULL: never), and whether it is its name's newest. */
bool bake_published(Store *store, const TemplateBuild *build, GPtrArray *chains, GPtrArray **ret_images, bool *ret_newest,
                    GError **error);
/* Images that a source "image:REF" took, {KIND: ID}; NULL for other sources. */
const json_t *bake_parent_images(const BakeChain *chain);
/* The chain's last state is its published parent, and no output is asked for that the parent has not. */
bool bake_is_parent(const BakeChain *chain);
/* The boot blocks of its test steps; new reference. */
void bake_boot_tests(const BakeChain *chain, json_t **ret);
/* Does this chain make the output kind, and with which block (NULL: default arguments)? */
bool bake_wants_output(const BakeChain *chain, const char *kind, const TemplateBlock **ret_block);

#endif
