/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be known to be wrong with a build before anything is made: types, arguments, words. Errors carry file, line and caret.
 */
#include "baker/bake-internal.h"

#include "baker/layers.h"
#include "baker/post-manifest.h"
#include "base/error.h"
#include "base/units.h"

#include <string.h>

static const char *const output_kinds[] = {"disk", "oci", NULL};
static const char *const post_processor_types[] = {"manifest", NULL};

static bool unknown_type(const TemplateBlock *block, const char *what, const char *const *known, GError **error)
{
    const char *near = units_nearest(block->type, known);
    g_autofree char *list = g_strjoinv(", ", (char **)known);

    if (near)
        return template_complain(block, NULL, error, "unknown %s \"%s\", did you mean \"%s\"?", what, block->type,
                                 near);
    return template_complain(block, NULL, error, "unknown %s \"%s\"; there are: %s", what, block->type, list);
}

/* Names first, so that a typo is told as a typo; then what the arguments' owner says. */
static bool check_arguments(const TemplateBlock *block, const char *what, const char *const *known,
                            bool (*check)(const json_t *, const char **, GError **), GError **error)
{
    const char *bad = NULL;
    g_autoptr(GError) problem = NULL;

    if (known && !json_only_keys(block->args, known, &bad)) {
        const char *near = units_nearest(bad, known);

        return near ? template_complain(block, bad, error, "%s \"%s\" has no argument '%s', did you mean '%s'?", what,
                                        block->type, bad, near)
                    : template_complain(block, bad, error, "%s \"%s\" has no argument '%s'", what, block->type, bad);
    }
    bad = NULL;
    if (check && !block->unknown && !check(block->args, &bad, &problem))
        return template_complain(block, bad, error, "%s", problem->message);
    return true;
}

static bool check_source(const TemplateBuild *build, GError **error)
{
    const SourceOps *ops = source_find(build->source->type);

    if (!ops)
        return unknown_type(build->source, "source", source_types(), error);
    return check_arguments(build->source, "source", ops->arguments, ops->check, error);
}

static bool check_refresh(const TemplateBlock *block, GError **error)
{
    double seconds;

    return !block->refresh || strcmp(block->refresh, "never") == 0 || (units_parse_duration(block->refresh, &seconds, NULL) && seconds > 0) ||
           template_complain(block, "refresh", error, "refresh is a duration like \"24h\", or \"never\", not \"%s\"", block->refresh);
}

static bool check_provisioner(const TemplateBlock *block, const char *what, GError **error)
{
    const ProvisionerOps *ops = provisioner_find(block->type);

    if (!ops && provisioner_refusal(block->type))
        return template_complain(block, NULL, error, "%s \"%s\" cannot be baked: %s", what, block->type, provisioner_refusal(block->type));
    if (!ops)
        return unknown_type(block, what, provisioner_types(), error);
    if (!check_arguments(block, what, ops->arguments, ops->check, error) || !check_refresh(block, error))
        return false;
    for (char **kind = block->only_output; kind && *kind; kind++)
        if (!g_strv_contains(output_kinds, *kind))
            return template_complain(block, "only_output", error, "only_output takes \"disk\" and \"oci\", not \"%s\"", *kind);
    return true;
}

static bool check_provisioners(const TemplateBuild *build, GError **error)
{
    for (guint i = 0; i < build->provisioners->len; i++)
        if (!check_provisioner(build->provisioners->pdata[i], "provisioner", error))
            return false;
    return !build->error_cleanup || check_provisioner(build->error_cleanup, "error-cleanup-provisioner", error);
}

static bool check_outputs(const TemplateBuild *build, GError **error)
{
    static const char *const no_arguments[] = {NULL};
    unsigned seen[2] = {0};

    for (guint i = 0; i < build->outputs->len; i++) {
        const TemplateBlock *block = build->outputs->pdata[i];
        bool disk = g_str_equal(block->type, "disk");

        if (!g_strv_contains(output_kinds, block->type))
            return unknown_type(block, "output", output_kinds, error);
        if (seen[disk]++)
            return template_complain(block, NULL, error, "a build has at most one output \"%s\"", block->type);
        if (!check_arguments(block, "output", disk ? no_arguments : NULL,
                             disk ? NULL : layers_check_output_args, error))
            return false;
    }
    return true;
}

static bool check_post_processors(const TemplateBuild *build, GError **error)
{
    for (guint i = 0; i < build->post_processors->len; i++) {
        const GPtrArray *chain = build->post_processors->pdata[i];

        for (guint j = 0; j < chain->len; j++) {
            const TemplateBlock *block = chain->pdata[j];

            if (!g_strv_contains(post_processor_types, block->type))
                return unknown_type(block, "post-processor", post_processor_types, error);
            if (!check_arguments(block, "post-processor", post_manifest_arguments, post_manifest_check, error))
                return false;
        }
    }
    return true;
}

static bool check_volatile_paths(const TemplateBuild *build, GError **error)
{
    for (char **path = build->volatile_paths; path && *path; path++)
        if (!provisioner_sysprep_check(*path, error))
            return fail_prefix(error, "%s: volatile_paths", build->name);
    return true;
}

bool bake_check(const TemplateBuild *build, GError **error)
{
    return check_source(build, error) && check_volatile_paths(build, error) && check_provisioners(build, error) && check_outputs(build, error) &&
           check_post_processors(build, error);
}
