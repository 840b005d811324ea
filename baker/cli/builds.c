/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options and templates of the verbs that work on builds.
 */
#include "baker/cli/builds.h"

#include "baker/memos.h"
#include "base/units.h"

#include <string.h>

void builds_init(Builds *builds)
{
    *builds = (Builds){.vars = g_ptr_array_new(),
                       .files = g_ptr_array_new(),
                       .only = g_ptr_array_new(),
                       .except = g_ptr_array_new(),
                       .rebase = g_ptr_array_new(),
                       .names = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref),
                       .templates = g_ptr_array_new_with_free_func((GDestroyNotify)template_free)};
}

void builds_clear(Builds *builds)
{
    shared_cache_close(builds->options.shared);
    builds->options.shared = NULL;
    g_ptr_array_unref(builds->templates);
    g_ptr_array_unref(builds->vars);
    g_ptr_array_unref(builds->files);
    g_ptr_array_unref(builds->only);
    g_ptr_array_unref(builds->except);
    g_ptr_array_unref(builds->rebase);
    g_ptr_array_unref(builds->names);
}

CliOption *builds_options(Builds *builds, const CliOption *more)
{
    const CliOption shared[] = {{"var", CLI_LIST, builds->vars},
                                {"var-file", CLI_LIST, builds->files},
                                {"only", CLI_LIST, builds->only},
                                {"except", CLI_LIST, builds->except},
                                {"rebase", CLI_LIST, builds->rebase},
                                {"offline", CLI_FLAG, &builds->options.offline},
                                {"pull", CLI_STRING, &builds->pull},
                                {"refresh", CLI_FLAG, &builds->options.refresh},
                                {"locked", CLI_STRING, &builds->options.locked},
                                {"fresh-since", CLI_STRING, &builds->fresh_since}};
    GArray *all = g_array_new(TRUE, TRUE, sizeof(CliOption));

    g_array_append_vals(all, shared, G_N_ELEMENTS(shared));
    for (; more && more->name; more++)
        g_array_append_vals(all, more, 1);
    return (CliOption *)g_array_free(all, FALSE);
}

GPtrArray *builds_split_commas(const GPtrArray *list)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    for (guint i = 0; i < list->len; i++) {
        g_auto(GStrv) parts = g_strsplit(list->pdata[i], ",", -1);

        for (char **part = parts; *part; part++)
            g_ptr_array_add(names, g_strdup(g_strstrip(*part)));
    }
    return names;
}

static const char *const *split_commas(Builds *builds, const GPtrArray *list)
{
    GPtrArray *names = builds_split_commas(list);

    g_ptr_array_add(builds->names, names);
    return cli_strings(names);
}

/* A moment, or how long ago it was. */
static bool parse_fresh_since(const char *text, int64_t *ret, GError **error)
{
    g_autoptr(GTimeZone) zone = g_time_zone_new_local();
    g_autoptr(GDateTime) moment = g_date_time_new_from_iso8601(text, zone);
    double seconds;

    if (moment)
        *ret = g_date_time_to_unix(moment);
    else if (units_parse_duration(text, &seconds, NULL))
        *ret = g_get_real_time() / G_USEC_PER_SEC - (int64_t)seconds;
    else
        return fail_code(error, KILN_ERROR_USAGE,
                         "--fresh-since '%s' is neither a moment like 2026-01-31T04:00:00 nor a duration like 6h", text);
    return *ret > 0 || fail_code(error, KILN_ERROR_USAGE, "--fresh-since '%s' lies before 1970", text);
}

static bool parse_pull(const Builds *builds, PullPolicy *ret, GError **error)
{
    static const char *const words[] = {[PULL_CHANGED] = "changed", [PULL_ALWAYS] = "always", [PULL_NEVER] = "never"};

    for (size_t i = 0; builds->pull && i < G_N_ELEMENTS(words); i++)
        if (strcmp(builds->pull, words[i]) == 0) {
            *ret = (PullPolicy)i;
            return *ret != PULL_ALWAYS || !builds->options.offline || fail_code(error, KILN_ERROR_USAGE, "--offline forbids what -pull=always asks for");
        }
    return !builds->pull || fail_code(error, KILN_ERROR_USAGE, "-pull=%s is not known; there are always, changed and never", builds->pull);
}

static bool load_one(Builds *builds, const char *path, GError **error)
{
    Template *template = NULL;
    GPtrArray *list;

    if (!template_load(path, &builds->template_options, &template, error))
        return false;
    g_ptr_array_add(builds->templates, template);
    list = template_builds(template);
    if (!bake_check_all(list, error))
        return false;
    return list->len > 0 ||
           fail_code(error, KILN_ERROR_USAGE, "'%s' selects nothing to bake: it has no build%s", path,
                     builds->only->len || builds->except->len ? " that -only and -except let through" : "");
}

static bool open_cache(Builds *builds, GError **error)
{
    SharedCacheOptions *options = &builds->cache;

    if (!options->from && !options->to)
        return true;
    options->memo_prefixes = memo_shared;
    return shared_cache_open(options, &builds->options.shared, error);
}

void builds_report_cache(Builds *builds, json_t *ret)
{
    SharedCacheReport report;
    g_autofree char *fetched = NULL, *pushed = NULL;

    if (!builds->options.shared)
        return;
    shared_cache_report(builds->options.shared, &report);
    fetched = units_format_size(report.fetched.bytes);
    pushed = units_format_size(report.pushed.bytes);
    log_info("shared cache: %" G_GUINT64_FORMAT " entries found, %s fetched, %s sent", report.hits, fetched, pushed);
    if (ret)
        json_object_set_new(ret, "cache", json_pack("{s:I, s:I, s:I}", "hits", (json_int_t)report.hits, "fetched", (json_int_t)report.fetched.bytes,
                                                    "sent", (json_int_t)report.pushed.bytes));
}

bool builds_prepare(Builds *builds, GError **error)
{
    builds->template_options = (TemplateOptions){.vars = cli_strings(builds->vars),
                                                 .var_files = cli_strings(builds->files),
                                                 .only = split_commas(builds, builds->only),
                                                 .except = split_commas(builds, builds->except),
                                                 .rebase = cli_strings(builds->rebase)};
    if (!parse_pull(builds, &builds->options.pull, error) || !open_cache(builds, error))
        return false;
    if (builds->fresh_since)
        return parse_fresh_since(builds->fresh_since, &builds->options.fresh_since, error);
    builds->options.fresh_since = g_get_real_time() / G_USEC_PER_SEC; /* release files are asked for once a call */
    return true;
}

bool builds_load(Builds *builds, char **paths, GError **error)
{
    if (!builds_prepare(builds, error))
        return false;
    for (; *paths; paths++)
        if (!load_one(builds, *paths, error))
            return false;
    return true;
}
