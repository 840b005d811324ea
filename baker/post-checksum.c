/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "checksum": one file for each checksum type, with a line "SUM  NAME" for each file of the artifact, as `sha256sum -c`
 * reads it in the files' folder. Files of the same name in two folders keep their paths.
 *
 * Types whose output names are equal share one file. It is replaced as a whole, so nothing of earlier runs or of builds beside this one
 * can stand in it.
 */
#include "baker/output-files.h"
#include "baker/post-members.h"

#include "base/checksum.h"
#include "base/error.h"
#include "base/file.h"
#include "base/units.h"

#include <fcntl.h>
#include <string.h>

#define OUTPUT "packer_{{.BuildName}}_{{.BuilderType}}_{{.ChecksumType}}.checksum"

static const char *const arguments[] = {"checksum_types", "output", NULL};

static bool check(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) types = NULL;

    if (!post_check_texts(args, "checksum_types", false, ret_argument, error) || !post_check_text(args, "output", false, ret_argument, error) ||
        !json_get_strings(args, "checksum_types", &types, error))
        return false;
    for (char **type = types; *type; type++)
        if (!g_strv_contains(checksum_types, *type)) {
            g_autofree char *list = g_strjoinv(", ", (char **)checksum_types);

            *ret_argument = "checksum_types";
            return fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no checksum type; there are: %s", *type, list);
        }
    return true;
}

static bool name_is_double(const PostArtifact *in, const char *name)
{
    unsigned count = 0;

    for (guint i = 0; i < in->files->len; i++) {
        g_autofree char *other = g_path_get_basename(in->files->pdata[i]);

        count += strcmp(other, name) == 0;
    }
    return count > 1;
}

static bool add_lines(Store *store, const PostArtifact *in, const char *type, GString *text, GError **error)
{
    for (guint i = 0; i < in->files->len; i++) {
        const char *path = in->files->pdata[i];
        g_autofree char *name = g_path_get_basename(path), *sum = NULL;

        if (!output_checksum(store, path, type, &sum, error))
            return false;
        g_string_append_printf(text, "%s  %s\n", sum, name_is_double(in, name) ? path : name);
    }
    return true;
}

static void free_text(gpointer text)
{
    g_string_free(text, TRUE);
}

/* @texts: output path -> GString. */
static bool add_type(const PostContext *context, const json_t *args, const PostArtifact *in, const char *type, GHashTable *texts, GPtrArray *paths,
                     GError **error)
{
    g_autofree char *path = NULL;
    GString *text;

    if (!post_expand(context, args, "output", OUTPUT, type, &path, error))
        return false;
    text = g_hash_table_lookup(texts, path);
    if (!text) {
        text = g_string_new(NULL);
        g_ptr_array_add(paths, g_strdup(path));
        g_hash_table_insert(texts, g_strdup(path), text);
    }
    return add_lines(context->store, in, type, text, error);
}

static bool write_text(const char *path, void *arg, GError **error)
{
    const GString *text = arg;

    return file_replace(AT_FDCWD, path, text->str, text->len, 0644, FILE_SYNC_NO, error); /* who moves it there syncs */
}

static bool write_texts(const PostContext *context, GHashTable *texts, const GPtrArray *paths, PostArtifact *out, GError **error)
{
    for (guint i = 0; i < paths->len; i++) {
        const char *path = paths->pdata[i];
        GString *text = g_hash_table_lookup(texts, path);
        g_autofree char *what = g_strconcat("text ", text->str, NULL);

        if (!post_claim(context, path, error) || !output_make(context->store, path, what, write_text, text, NULL, error))
            return false;
        post_artifact_add_file(out, path);
    }
    return true;
}

static bool run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    static const char *const otherwise[] = {"sha256", NULL};
    g_autoptr(GHashTable) texts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_text);
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(PostArtifact) out = post_artifact_copy(in);
    g_auto(GStrv) types = NULL;

    if (!json_get_strings(args, "checksum_types", &types, error))
        return false;
    for (const char *const *type = *types ? (const char *const *)types : otherwise; *type; type++)
        if (!add_type(context, args, in, *type, texts, paths, error))
            return false;
    if (!write_texts(context, texts, paths, out, error))
        return false;
    *ret = g_steal_pointer(&out);
    return true;
}

const PostOps post_checksum_ops = {
    .type = "checksum",
    .arguments = arguments,
    .check = check,
    .run = run,
    .wants_files = true,
};
