/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What bake, plan and their kin share: the options that choose and shape builds, and the templates they name.
 *
 *   builds_init -> options from builds_options -> cli_parse -> builds_load -> builds_clear
 */
#ifndef KILN_BAKER_CLI_BUILDS_H
#define KILN_BAKER_CLI_BUILDS_H

#include "baker/bake.h"
#include "baker/cli/cli.h"

typedef struct Builds {
    GPtrArray *vars, *files, *only, *except, *rebase, *names;
    const char *fresh_since, *pull;
    SharedCacheOptions cache; /* of verbs with BUILDS_CACHE_OPTIONS */
    TemplateOptions template_options;
    BakeOptions options;
    GPtrArray *templates; /* of Template*, in the order they were named */
} Builds;

#define BUILDS_USAGE "[-var K=V] [-var-file F] [-only G] [-except G] [-rebase TYPE.NAME=BASE]"

/* What bake, plan and nightly may read states from; builds_prepare() opens it. Writing is bake's and nightly's own option. */
#define BUILDS_CACHE_OPTIONS(builds)                                                                                  \
    {"cache-from", CLI_STRING, &(builds)->cache.from}, {"cache-key", CLI_STRING, &(builds)->cache.key},               \
    {"plain-http", CLI_FLAG, &(builds)->cache.plain_http}

/* What a shared cache did, on a line or (@ret not NULL) as JSON; nothing when there was none. */
void builds_report_cache(Builds *builds, json_t *ret);

void builds_init(Builds *builds);
void builds_clear(Builds *builds);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Builds, builds_clear)

/* The shared options followed by @more (ended by a NULL name, may be NULL). Free with g_free. */
CliOption *builds_options(Builds *builds, const CliOption *more);

/* Makes options of the parsed texts; builds_load() does it too. */
bool builds_prepare(Builds *builds, GError **error);

/* All templates are read and checked before the first one bakes: a typo in the last must not cost an hour. */
bool builds_load(Builds *builds, char **paths, GError **error);

/* The names in the values of -only and -except, which Packer separates by commas. New reference, of char* that it owns. */
GPtrArray *builds_split_commas(const GPtrArray *list);

#endif
