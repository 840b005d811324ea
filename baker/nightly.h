/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nightly files: images to patch, and what becomes of them.
 *
 *     image "web" {
 *       from    = "prod"       # channel to start from; absent: the newest image of the name
 *       upgrade = "all"        # or "security"
 *       to      = "prod"       # channel that moves when all went well; absent: none
 *       keep    = 7            # sets of the name that stay, besides what channels hold; absent: all
 *       test {                 # as provisioner "test"; any number
 *         enabled = ["nginx"]
 *       }
 *     }
 *
 * Also arguments of the packages step: hold, exclude, conffiles, autoremove, purge. Variables, locals and functions as in templates.
 *
 *   nightly_load -> nightly_run for each image, in any thread -> nightly_file_free
 */
#ifndef KILN_BAKER_NIGHTLY_H
#define KILN_BAKER_NIGHTLY_H

#include "baker/bake.h"

typedef struct NightlyImage {
    const char *name, *from, *to; /* borrowed from the file */
    int64_t keep;                 /* 0: all */
    json_t *packages;             /* arguments of the packages step */
    const json_t *tests;          /* borrowed; may be NULL */
    const TemplateBlock *block;
} NightlyImage;

typedef struct NightlyFile {
    Template *template;
    GPtrArray *images; /* of NightlyImage* */
    char *dir;
} NightlyFile;

/* All mistakes are usage errors with file, line and caret. */
bool nightly_load(const char *path, const TemplateOptions *options, NightlyFile **ret, GError **error);
void nightly_file_free(NightlyFile *file);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NightlyFile, nightly_file_free)

typedef struct NightlyResult {
    BakeResult bake;
    bool unchanged; /* the same image IDs as before */
    bool moved;     /* the channel points at something new */
    unsigned removed; /* images whose bytes `keep` let go */
} NightlyResult;
void nightly_result_clear(NightlyResult *result);

/* Patches, tests, promotes and prunes one image. @options: offline, fresh_since and refresh count. */
bool nightly_run(Store *store, const NightlyFile *file, const NightlyImage *image, const BakeOptions *options, NightlyResult *ret,
                 GError **error);

#endif
