/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files get their old paths below the temporary folder, so that whatever the template says of paths relative to its own folder is right
 * there. A step's file that was named by an absolute path outside of that folder is read where it was, if it is still the same.
 */
#include "baker/rebuild.h"

#include "baker/bake-lock.h"
#include "baker/kept-inputs.h"
#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define LIST_MAX ((size_t)64 << 20)

static bool load_kept(Store *store, GHashTable *kept, const char *name, json_t **ret, GError **error)
{
    const Digest *digest = g_hash_table_lookup(kept, name);
    g_autoptr(GBytes) bytes = NULL;

    *ret = NULL;
    return !digest || (store_blob_get(store, digest, LIST_MAX, &bytes, error) &&
                       json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), LIST_MAX, name, ret, error));
}

/* --- files ----------------------------------------------------------------------------------- */

static bool still_the_same(const char *path, const json_t *input)
{
    g_autoptr(GBytes) bytes = NULL;
    Digest wanted, digest;

    if (!digest_parse(json_text(input, "digest"), &wanted) || !file_load(AT_FDCWD, path, KEPT_FILE_MAX, &bytes, NULL))
        return false;
    digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest);
    return digest_equal(&wanted, &digest);
}

/* Absolute, without "..", so that it stays below any folder that it is put in. */
static char *old_path(const Rebuild *rebuild, const json_t *input, const char *key)
{
    return g_canonicalize_filename(json_text(input, key), rebuild->origin);
}

static bool put_file(Store *store, const json_t *input, const char *path, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    g_autoptr(GBytes) bytes = NULL;
    mode_t mode = (mode_t)json_integer_value(json_object_get(input, "mode")) & 07777;
    Digest blob;

    if (!digest_parse(json_text(input, "blob"), &blob))
        return fail(error, "what was kept of '%s' has a malformed digest", json_text(input, "name"));
    return store_blob_get(store, &blob, KEPT_FILE_MAX, &bytes, error) && file_make_dirs(folder, 0700, error) &&
           file_replace(AT_FDCWD, path, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), mode, FILE_SYNC_NO, error);
}

static bool restore_file(Store *store, const Rebuild *rebuild, const json_t *input, GError **error)
{
    const char *name = json_text(input, "name");
    g_autofree char *old = old_path(rebuild, input, json_object_get(input, "path") ? "path" : "name"), *path = g_strconcat(rebuild->dir, old, NULL);
    g_autofree char *named = old_path(rebuild, input, "name"), *beside = g_strconcat(rebuild->dir, named, NULL);
    bool outside = json_object_get(input, "step") && g_path_is_absolute(name) && !tree_path_is_below(old, rebuild->origin);

    if (S_ISDIR((mode_t)json_integer_value(json_object_get(input, "mode"))))
        return outside || file_make_dirs(path, 0755, error);
    if (outside)
        return still_the_same(old, input) || fail(error, "'%s' is not the file any more that a step read; put it back", name);
    if (json_is_true(json_object_get(input, "masked")))
        return fail(error, "'%s' held a secret, so that it was not kept as it was; verify the template instead", name);
    if (!json_object_get(input, "blob"))
        return fail(error, "'%s' was not kept with the image; verify the template instead", name);
    /* Where it was, and where the template looks first: what was named relative to the working folder is there now. */
    return put_file(store, input, path, error) && (g_str_equal(path, beside) || put_file(store, input, beside, error));
}

static bool restore_files(Store *store, const Rebuild *rebuild, GError **error)
{
    g_autoptr(json_t) inputs = NULL;
    const json_t *input;
    size_t i;

    if (!load_kept(store, rebuild->kept, KEPT_LIST, &inputs, error))
        return false;
    json_array_foreach (inputs, i, input)
        if (!restore_file(store, rebuild, input, error))
            return false;
    return true;
}

/* --- variables and the template ----------------------------------------------------------------- */

static bool is_given(const char *name, const char *const *vars)
{
    g_autofree char *environment = g_strconcat("PKR_VAR_", name, NULL);

    for (; vars && *vars; vars++)
        if (g_str_has_prefix(*vars, name) && (*vars)[strlen(name)] == '=')
            return true;
    return g_getenv(environment) != NULL;
}

static bool check_sensitive(const json_t *given, const char *const *vars, GError **error)
{
    const json_t *name;
    size_t i;

    json_array_foreach (json_object_get(given, "sensitive"), i, name)
        if (json_is_string(name) && !is_given(json_string_value(name), vars))
            return fail_code(error, KILN_ERROR_USAGE, "the variable '%s' is sensitive, so its value was not kept; give it again with -var %s=VALUE",
                             json_string_value(name), json_string_value(name));
    return true;
}

static bool put_values(const json_t *given, const char *path, GError **error)
{
    g_autofree char *text = json_canonical(json_object_get(given, "variables"));

    return file_replace(AT_FDCWD, path, text, strlen(text), 0600, FILE_SYNC_NO, error);
}

static bool load_template(Store *store, Rebuild *rebuild, const json_t *given, const char *const *vars, GError **error)
{
    g_autofree char *values = g_build_filename(rebuild->dir, "kiln-values.json", NULL), *place = g_strconcat(rebuild->dir, json_text(given, "template"), NULL);
    const Digest *text = g_hash_table_lookup(rebuild->kept, KEPT_TEMPLATE);
    const char *files[] = {values, NULL};
    g_autoptr(GBytes) input = NULL;
    g_auto(GStrv) rebase = NULL;
    TemplateOptions options = {.vars = vars, .var_files = files};

    if (!check_sensitive(given, vars, error) || !put_values(given, values, error) || (text && !store_blob_get(store, text, KEPT_FILE_MAX, &input, error)))
        return false;
    options.input = input;
    if (!json_get_strings(given, "rebase", &rebase, error))
        return false;
    options.rebase = (const char *const *)rebase;
    return template_load(place, &options, &rebuild->template, error);
}

static bool find_build(Rebuild *rebuild, const json_t *provenance, GError **error)
{
    GPtrArray *builds = template_builds(rebuild->template);

    for (guint i = 0; i < builds->len; i++)
        if (strcmp(((TemplateBuild *)builds->pdata[i])->name, json_text(provenance, "build")) == 0)
            rebuild->build = builds->pdata[i];
    return rebuild->build ? bake_check(rebuild->build, error) : fail(error, "its template has no build '%s'", json_text(provenance, "build"));
}

/* --- the whole ----------------------------------------------------------------------------------- */

static bool put_lock(Store *store, Rebuild *rebuild, GError **error)
{
    g_autoptr(json_t) transactions = NULL;

    if (!load_kept(store, rebuild->kept, KEPT_LOCK, &transactions, error))
        return false;
    if (!transactions)
        return true;
    rebuild->lock = g_build_filename(rebuild->dir, "kiln-lock.json", NULL);
    return bake_lock_save(rebuild->lock, rebuild->build->name, transactions, error);
}

static bool read_records(Store *store, Rebuild *rebuild, json_t **ret_given, json_t **ret_provenance, GError **error)
{
    const StoreImage *image = rebuild->images->pdata[0];

    if (!store_image_inputs(store, image, &rebuild->kept, error) || !store_image_provenance(store, image, ret_provenance, error) ||
        !load_kept(store, rebuild->kept, KEPT_GIVEN, ret_given, error))
        return false;
    if (!*ret_given)
        return fail(error, "it is not known what its template was given: it was imported, or baked before kiln kept that; verify its template instead");
    rebuild->origin = g_canonicalize_filename(json_text(*ret_given, "dir"), "/");
    rebuild->recorded = (BakeRebuild){.dir = rebuild->origin, .source = json_incref(json_object_get(*ret_provenance, "source")),
                                      .epoch = json_integer_value(json_object_get(*ret_provenance, "source_date_epoch"))};
    return true;
}

static bool open_all(Store *store, Rebuild *rebuild, const char *ref, const char *const *vars, GError **error)
{
    g_autoptr(json_t) given = NULL, provenance = NULL;

    return store_resolve_set(store, ref, &rebuild->images, error) && read_records(store, rebuild, &given, &provenance, error) &&
           file_make_short_tmpdir(&rebuild->dir, error) && restore_files(store, rebuild, error) &&
           load_template(store, rebuild, given, vars, error) && find_build(rebuild, provenance, error) && put_lock(store, rebuild, error);
}

bool rebuild_open(Store *store, const char *ref, const char *const *vars, Rebuild **ret, GError **error)
{
    g_autoptr(Rebuild) rebuild = g_new0(Rebuild, 1);

    if (!open_all(store, rebuild, ref, vars, error))
        return fail_prefix(error, "rebuild '%s'", ref);
    *ret = g_steal_pointer(&rebuild);
    return true;
}

void rebuild_close(Rebuild *rebuild)
{
    if (!rebuild)
        return;
    template_free(rebuild->template);
    g_clear_pointer(&rebuild->images, g_ptr_array_unref);
    g_clear_pointer(&rebuild->kept, g_hash_table_unref);
    json_decref(rebuild->recorded.source);
    if (rebuild->dir)
        (void)file_remove_tree(AT_FDCWD, rebuild->dir, NULL); /* a temporary folder */
    g_free(rebuild->dir);
    g_free(rebuild->lock);
    g_free(rebuild->origin);
    g_free(rebuild);
}
