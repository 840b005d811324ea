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
    const char *fresh_since;
    TemplateOptions template_options;
    BakeOptions options;
    GPtrArray *templates; /* of Template*, in the order they were named */
} Builds;

#define BUILDS_USAGE "[-var K=V] [-var-file F] [-only G] [-except G] [-rebase TYPE.NAME=BASE]"

void builds_init(Builds *builds);
void builds_clear(Builds *builds);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Builds, builds_clear)

/* The shared options followed by @more (ended by a NULL name, may be NULL). Free with g_free. */
CliOption *builds_options(Builds *builds, const CliOption *more);

/* Makes options of the parsed texts; builds_load() does it too. */
bool builds_prepare(Builds *builds, GError **error);

/* All templates are read and checked before the first one bakes: a typo in the last must not cost an hour. */
bool builds_load(Builds *builds, char **paths, GError **error);

#endif
