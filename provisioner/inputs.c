/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The globs of `inputs`: what a template says that a step depends on beyond what its arguments name.
 */
#include "base/error.h"
#include "base/glob.h"
#include "provisioner/host-file.h"
#include "provisioner/provisioner.h"

#include <string.h>

#define WHO "inputs"

static bool is_glob(const char *text)
{
    return strpbrk(text, "*?[") != NULL;
}

typedef struct Match {
    char **pattern;
    const char *base; /* as the user wrote it, "" for none */
    GPtrArray *inputs;
    unsigned found;
} Match;

static bool match_one(const char *path, const char *relative, const struct stat *st, void *arg, GError **error)
{
    Match *match = arg;
    g_auto(GStrv) parts = g_strsplit(relative, "/", -1);
    g_autofree char *name = *match->base ? g_build_filename(match->base, relative, NULL) : g_strdup(relative);

    if (!glob_match_parts(match->pattern, parts, true)) /* a folder that matches stands for all that is in it */
        return true;
    match->found++;
    return host_file_add_entry(name, path, st, match->inputs, error);
}

/* Whole folders in front of the first special letter are where the search starts. */
static char *literal_base(const char *glob)
{
    size_t special = strcspn(glob, "*?["), end = special;

    while (end > 0 && glob[end - 1] != '/')
        end--;
    return g_strndup(glob, end);
}

static bool add_glob(const char *glob, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    g_autofree char *base = literal_base(glob), *folder = NULL;
    g_auto(GStrv) pattern = g_strsplit(glob + strlen(base), "/", -1);
    Match match = {.pattern = pattern, .base = base, .inputs = inputs};
    struct stat st;

    if (!host_file_find(WHO, *base ? base : ".", host, &folder, &st, error) || !host_file_walk(WHO, folder, match_one, &match, error))
        return false;
    return match.found > 0 || fail_code(error, KILN_ERROR_NOT_FOUND, "inputs: \"%s\" matches no file", glob);
}

bool provisioner_declared_inputs(const char *const *globs, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    for (; globs && *globs; globs++)
        if (!(is_glob(*globs) ? add_glob(*globs, host, inputs, error) : host_file_add_inputs(WHO, *globs, host, inputs, error)))
            return false;
    return true;
}

json_t *provisioner_inputs_json(const GPtrArray *inputs)
{
    json_t *list = json_array();

    for (guint i = 0; i < inputs->len; i++) {
        const ProvisionerInput *input = inputs->pdata[i];
        char hex[DIGEST_HEX_SIZE];

        json_array_append_new(list, json_pack("[s, i, s]", input->name, (int)input->mode, digest_to_hex(&input->digest, hex)));
    }
    return list;
}

bool provisioner_declared_json(const char *const *globs, const ProvisionerHost *host, json_t **ret, GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);

    if (!provisioner_declared_inputs(globs, host, files, error))
        return false;
    *ret = provisioner_inputs_json(files);
    return true;
}
