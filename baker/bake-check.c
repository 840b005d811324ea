/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be known to be wrong with a build before anything is made: types, arguments, words. Errors carry file, line and caret.
 */
#include "baker/bake-internal.h"

#include "baker/layers.h"
#include "baker/plugin-names.h"
#include "baker/post.h"
#include "base/error.h"
#include "base/units.h"

#include <string.h>

enum { FINDINGS_MAX = 100 };

static const char *const output_kinds[] = {"disk", "oci", NULL};

/* Each sentence once: several builds may share a source. */
static void note(GPtrArray *findings, GError *problem /* taken */)
{
    if (findings->len < FINDINGS_MAX && !g_ptr_array_find_with_equal_func(findings, problem->message, g_str_equal, NULL))
        g_ptr_array_add(findings, g_strdup(problem->message));
    g_error_free(problem);
}

/* A typo is told as a typo; what a plugin of Packer would do, with the plugin's name. */
static bool unknown_type(const TemplateBlock *block, const char *what, const char *const *known, GError **error)
{
    const char *near = units_nearest(block->type, known);
    const char *plugin = template_plugin_of(block) ? template_plugin_of(block) : plugin_known_for(block->type);
    g_autofree char *list = g_strjoinv(", ", (char **)known);

    if (near && !plugin)
        return template_complain(block, NULL, error, "unknown %s \"%s\", did you mean \"%s\"?", what, block->type,
                                 near);
    if (plugin)
        return template_complain(block, NULL, error, "%s \"%s\" is of Packer's plugin %s, and nothing here stands in for it%s; there are: %s", what,
                                 block->type, plugin, strcmp(what, "source") == 0 ? " (-rebase bakes its steps on another base)" : "", list);
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

/* The template's own source does not count, whatever it is. */
static bool check_rebase(const TemplateBuild *build, GError **error)
{
    g_auto(SourceBase) base = {0};
    const char *argument = NULL;

    source_base(build->source->type, build->source->args, build->rebase, &base);
    return base.ops->check(base.args, &argument, error) || fail_prefix(error, "-rebase '%s.%s=%s'", build->source->type, build->build_name, build->rebase);
}

static bool check_source(const TemplateBuild *build, GError **error)
{
    const SourceOps *ops = source_find(build->source->type);

    if (build->rebase)
        return check_rebase(build, error);
    if (!ops)
        return unknown_type(build->source, "source", source_types(), error);
    if (!ops->default_output && build->outputs->len > 0)
        return template_complain(build->outputs->pdata[0], NULL, error, "a source \"%s\" makes no image", build->source->type);
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

static bool check_output(const TemplateBlock *block, GError **error)
{
    static const char *const no_arguments[] = {NULL};
    bool disk = g_str_equal(block->type, "disk");

    if (!g_strv_contains(output_kinds, block->type))
        return unknown_type(block, "output", output_kinds, error);
    return check_arguments(block, "output", disk ? no_arguments : NULL, disk ? NULL : layers_check_output_args, error);
}

static bool check_outputs_differ(const TemplateBuild *build, GError **error)
{
    for (guint i = 0; i < build->outputs->len; i++)
        for (guint j = 0; j < i; j++) {
            const TemplateBlock *block = build->outputs->pdata[i], *other = build->outputs->pdata[j];

            if (g_str_equal(block->type, other->type))
                return template_complain(block, NULL, error, "a build has at most one output \"%s\"", block->type);
        }
    return true;
}

static bool check_post_processor(const TemplateBlock *block, GError **error)
{
    const PostOps *ops = post_find(block->type);
    g_autofree const char **known = NULL;
    g_autoptr(GError) problem = NULL;
    const char *argument = NULL;
    size_t n = 0;

    if (!ops && post_refusal(block->type))
        return template_complain(block, NULL, error, "post-processor \"%s\" cannot be run: %s", block->type, post_refusal(block->type));
    if (!ops)
        return unknown_type(block, "post-processor", post_types(), error);
    known = g_new0(const char *, g_strv_length((char **)ops->arguments) + 2);
    for (; ops->arguments[n]; n++)
        known[n] = ops->arguments[n];
    known[n] = "keep_input_artifact";
    post_convert(block->args);
    if (!block->unknown && !post_check_bool(block->args, "keep_input_artifact", &argument, &problem))
        return template_complain(block, argument, error, "%s", problem->message);
    return check_arguments(block, "post-processor", known, ops->check, error);
}

static void check_chain(const GPtrArray *chain, GPtrArray *findings)
{
    for (guint i = 0; i < chain->len; i++) {
        GError *problem = NULL;

        if (!check_post_processor(chain->pdata[i], &problem))
            note(findings, problem);
    }
}

static bool check_volatile_paths(const TemplateBuild *build, GError **error)
{
    for (char **path = build->volatile_paths; path && *path; path++)
        if (!provisioner_sysprep_check(*path, error))
            return fail_prefix(error, "%s: volatile_paths", build->name);
    return true;
}

static void check_build(const TemplateBuild *build, GPtrArray *findings)
{
    GError *problem = NULL;

    if (!check_source(build, &problem))
        note(findings, g_steal_pointer(&problem));
    if (!check_volatile_paths(build, &problem))
        note(findings, g_steal_pointer(&problem));
    for (guint i = 0; i < build->provisioners->len; i++)
        if (!check_provisioner(build->provisioners->pdata[i], "provisioner", &problem))
            note(findings, g_steal_pointer(&problem));
    if (build->error_cleanup && !check_provisioner(build->error_cleanup, "error-cleanup-provisioner", &problem))
        note(findings, g_steal_pointer(&problem));
    for (guint i = 0; i < build->outputs->len; i++)
        if (!check_output(build->outputs->pdata[i], &problem))
            note(findings, g_steal_pointer(&problem));
    if (!check_outputs_differ(build, &problem))
        note(findings, g_steal_pointer(&problem));
    for (guint i = 0; i < build->post_processors->len; i++)
        check_chain(build->post_processors->pdata[i], findings);
}

static bool tell(GPtrArray *findings, GError **error)
{
    g_autofree char *text = NULL;

    if (findings->len == 0)
        return true;
    g_ptr_array_add(findings, NULL);
    text = g_strjoinv("\n", (char **)findings->pdata);
    return fail_code(error, KILN_ERROR_USAGE, "%s", text);
}

bool bake_check_all(const GPtrArray *builds, GError **error)
{
    g_autoptr(GPtrArray) findings = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; i < builds->len; i++)
        check_build(builds->pdata[i], findings);
    return tell(findings, error);
}

bool bake_check(const TemplateBuild *build, GError **error)
{
    g_autoptr(GPtrArray) one = g_ptr_array_new();

    g_ptr_array_add(one, (gpointer)build);
    return bake_check_all(one, error);
}
