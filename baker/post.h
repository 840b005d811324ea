/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processors: what is done with a bake's result on the host, one file each (post-NAME.c), listed in post-table.c.
 *
 * They run after every bake, cached or not, in chains. Each gets an artifact and hands one on; every chain of a build starts from the
 * build's own. Images stay in the store whatever happens; keeping the input is about files: those that one post-processor of a chain made are
 * removed when a later one has made others of them and does not keep its input. Files of the build itself stay, for the next bake would only have to
 * write them again, unless every chain says keep_input_artifact = false.
 *
 * check (arguments only, at plan time) -> run
 */
#ifndef KILN_BAKER_POST_H
#define KILN_BAKER_POST_H

#include "base/json.h"
#include "store/store.h"
#include "templates/templates.h"

/*
 * What a chain hands on. Files of the build itself are those that its source writes (SourceOps.deliver: Packer's `qemu` and `docker`); of
 * other sources the disk as output-NAME/NAME.qcow2, or the container image as output-NAME/NAME.tar, but only where some post-processor wants files.
 */
typedef struct PostArtifact {
    GPtrArray *images; /* of StoreImage*: the build's set, or what was made of it; empty where only files are left */
    GPtrArray *files;  /* of char*: paths on this host, as the user wrote them */
    GPtrArray *tags;   /* of char*: "repository:tag" */
    bool own_files;    /* the files were made in this chain */
} PostArtifact;
PostArtifact *post_artifact_new(GPtrArray *images /* shared */);
PostArtifact *post_artifact_copy(const PostArtifact *artifact);
void post_artifact_free(PostArtifact *artifact);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PostArtifact, post_artifact_free)
void post_artifact_add_file(PostArtifact *artifact, const char *path);

typedef struct PostContext {
    Store *store;
    Template *template;
    const TemplateBuild *build;
    bool offline; /* nothing goes over the network */
} PostContext;

/* Go template of argument @name, with {{.BuildName}} and {{.BuilderType}}, and {{.ChecksumType}} where @checksum_type is not NULL. */
bool post_expand(const PostContext *context, const json_t *args, const char *name, const char *otherwise, const char *checksum_type, char **ret,
                 GError **error);

/* Two builds of one run that write the same file would take turns in it for ever: an error that names both. */
bool post_claim(const PostContext *context, const char *path, GError **error);

/* Checks for arguments that must be there, or must be a list of texts. @ret_argument as in PostOps.check. */
bool post_check_text(const json_t *args, const char *name, bool needed, const char **ret_argument, GError **error);
bool post_check_texts(const json_t *args, const char *name, bool needed, const char **ret_argument, GError **error);
bool post_check_bool(const json_t *args, const char *name, const char **ret_argument, GError **error);

/* Values of @args (an object) in the types that the arguments have, as HCL converts them: "true" to true, 1.2 to "1.2". Before PostOps.check. */
void post_convert(json_t *args);

typedef struct PostOps {
    const char *type;
    const char *const *arguments; /* besides keep_input_artifact, which all take */
    bool (*check)(const json_t *args, const char **ret_argument, GError **error);
    /* *ret: what the chain goes on with; NULL: with @in. */
    bool (*run)(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error);
    bool wants_files; /* the build's are written before it runs */
    bool makes_files; /* the artifact that it hands on has its own files instead of those that it got */
    bool keeps_input; /* when `keep_input_artifact` does not say */
} PostOps;

const PostOps *post_find(const char *type);
const char *const *post_types(void); /* NULL-terminated */
/* Why a type of Packer's is none here; NULL: it is not known at all. */
const char *post_refusal(const char *type);

/* All chains of the build. @images: of StoreImage*, the set; @files: of char*, what its source delivered. */
bool post_run(const PostContext *context, GPtrArray *images, const GPtrArray *files, GError **error);

#endif
