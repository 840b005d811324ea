/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The patch's template, and the look ahead at what it would install.
 */
#include "baker/patch.h"

#include "baker/bake-internal.h"
#include "base/error.h"

#include <string.h>

/* Strings of JSON templates are templates themselves: "${" is written "$${". */
static json_t *escaped(const json_t *value)
{
    json_t *ret, *one;
    const char *key;
    size_t i;

    if (json_is_string(value)) {
        g_auto(GStrv) dollars = g_strsplit(json_string_value(value), "${", -1);
        g_autofree char *first = g_strjoinv("$${", dollars);
        g_auto(GStrv) percents = g_strsplit(first, "%{", -1);
        g_autofree char *text = g_strjoinv("%%{", percents);

        return json_string_nocheck(text);
    }
    if (json_is_array(value)) {
        ret = json_array();
        json_array_foreach (value, i, one)
            json_array_append_new(ret, escaped(one));
        return ret;
    }
    if (json_is_object(value)) {
        ret = json_object();
        json_object_foreach ((json_t *)value, key, one)
            json_object_set_new(ret, key, escaped(one));
        return ret;
    }
    return json_deep_copy(value);
}

static json_t *provisioners(const PatchSpec *spec)
{
    json_t *list = json_array(), *test;
    size_t i;

    json_array_append_new(list, json_pack("{s:o}", "packages", escaped(spec->packages)));
    json_array_foreach ((json_t *)spec->tests, i, test)
        json_array_append_new(list, json_pack("{s:o}", "test", escaped(test)));
    return list;
}

bool patch_template(const PatchSpec *spec, const char *dir, Template **ret, GError **error)
{
    g_autofree char *from = g_strconcat("image:", spec->ref, NULL), *place = g_build_filename(dir, "patch.pkr.json", NULL), *text = NULL,
                    *source = g_strconcat("source.", spec->kind, ".patch", NULL);
    g_autoptr(json_t) template = NULL;
    g_autoptr(GBytes) input = NULL;

    template = json_pack("{s:{s:{s:{s:s}}}, s:{s:s, s:[s], s:o}}", "source", spec->kind, "patch", "from", from, "build", "name", spec->name,
                         "sources", source, "provisioner", provisioners(spec));
    text = json_canonical(template);
    input = g_bytes_new(text, strlen(text));
    return template_load(place, &(TemplateOptions){.input = input}, ret, error);
}

static bool pending(Store *store, Template *template, const BakeOptions *options, json_t **ret, GError **error)
{
    const TemplateBuild *build = template_builds(template)->pdata[0];
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(GPtrArray) chains = NULL;
    BakeChain *chain;

    if (!store_lease_take(store, "a look at pending updates", &lease, error))
        return false;
    chains = bake_chains_new(store, template, build, options);
    chain = chains->pdata[0];
    if (!bake_plan(chain, error))
        return false;
    *ret = json_incref(((BakeStep *)chain->steps->pdata[0])->transaction);
    return true;
}

bool patch_pending(Store *store, const char *name, const char *ref, const char *kind, const BakeOptions *options, json_t **ret,
                   GError **error)
{
    g_autoptr(json_t) packages = json_pack("{s:s}", "upgrade", "all");
    PatchSpec spec = {.name = name, .ref = ref, .kind = kind, .packages = packages};
    BakeOptions ask = {.offline = options->offline, .fresh_since = options->fresh_since};
    g_autoptr(Template) template = NULL;

    *ret = NULL;
    return patch_template(&spec, ".", &template, error) && pending(store, template, &ask, ret, error);
}
