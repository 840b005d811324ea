/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "compress": the artifact's files as one archive, or a single file compressed. `format`, else the output name's suffix,
 * tells how; a name that tells nothing gives a tar.gz, as with Packer. Nothing is compressed again while files and options are the same.
 */
#include "baker/output-files.h"
#include "baker/post-members.h"

#include "base/error.h"
#include "base/units.h"

#include <string.h>

#define OUTPUT "packer_{{.BuildName}}_{{.BuilderType}}"

static const char *const arguments[] = {"output", "format", "compression_level", NULL};

/* Packer's words are suffixes, too: ".gz", "tgz". */
static const char *format_by_word(const char *word)
{
    g_autofree char *name = g_strconcat(*word == '.' ? "" : ".", word, NULL);

    return archive_format_of(name);
}

static const char *format_of(const char *format, const char *output)
{
    if (format)
        return format_by_word(format);
    format = archive_format_of(output);
    return format ? format : "tar.gz";
}

static bool read_format(const json_t *args, const char *output, const char **ret, GError **error)
{
    const char *word;

    if (!json_get_string(args, "format", NULL, &word, error))
        return false;
    *ret = format_of(word, output);
    if (*ret)
        return true;
    g_autofree char *list = g_strjoinv(", ", (char **)archive_formats);
    return fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no format that kiln writes; there are: %s", word, list);
}

static bool read_level(const json_t *args, const char *format, int *ret, GError **error)
{
    int max = archive_level_max(format);
    int64_t level;

    if (!json_get_int(args, "compression_level", 0, &level, error))
        return false;
    if (json_object_get(args, "compression_level") && max > 0 && (level < 1 || level > max))
        return fail_code(error, KILN_ERROR_USAGE, "'compression_level' of %s is a number from 1 to %d", format, max);
    *ret = max > 0 ? (int)level : 0;
    return true;
}

/* The suffix is the template's; what {{ }} gives stands before it. */
static bool check(const json_t *args, const char **ret_argument, GError **error)
{
    const char *output, *format;
    int level;

    if (!post_check_text(args, "output", false, ret_argument, error))
        return false;
    *ret_argument = "format";
    if (!json_get_string(args, "output", OUTPUT, &output, error) || !read_format(args, output, &format, error))
        return false;
    *ret_argument = "compression_level";
    if (!read_level(args, format, &level, error))
        return false;
    *ret_argument = NULL;
    return true;
}

typedef struct Packing {
    ArchiveSpec spec;
    ArchiveMember *members;
    unsigned count;
} Packing;

static void packing_clear(Packing *packing)
{
    for (unsigned i = 0; i < packing->count; i++) {
        g_free(packing->members[i].name);
        g_free(packing->members[i].path);
    }
    g_free(packing->members);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Packing, packing_clear)

static bool name_is_taken(const Packing *packing, const char *name)
{
    for (unsigned i = 0; i < packing->count; i++)
        if (strcmp(packing->members[i].name, name) == 0)
            return true;
    return false;
}

/* Base names; where two are equal the second keeps its path, which never leads out of the archive's folder. */
static char *member_name(const Packing *packing, const char *path)
{
    g_autofree char *name = g_path_get_basename(path), *whole = NULL;

    if (!name_is_taken(packing, name))
        return g_steal_pointer(&name);
    whole = g_canonicalize_filename(path, "/");
    return g_strdup(whole + 1);
}

static bool add_members(Store *store, const PostArtifact *in, Packing *packing, GString *what, GError **error)
{
    packing->members = g_new0(ArchiveMember, in->files->len + 1);
    for (guint i = 0; i < in->files->len; i++) {
        const char *path = in->files->pdata[i];
        g_autofree char *sum = NULL, *name = member_name(packing, path);

        if (!output_checksum(store, path, "sha256", &sum, error))
            return false;
        g_string_append_printf(what, " %s %s", sum, name);
        packing->members[packing->count++] = (ArchiveMember){g_steal_pointer(&name), g_strdup(path)};
    }
    return true;
}

static bool make(const char *path, void *arg, GError **error)
{
    const Packing *packing = arg;

    return archive_write(path, &packing->spec, packing->members, packing->count, error);
}

static bool check_files(const PostArtifact *in, const char *output, const char *format, GError **error)
{
    if (in->files->len == 0)
        return fail(error, "the artifact has no files");
    if (in->files->len > 1 && archive_format_is_single(format))
        return fail(error, "%s holds one file and the artifact has %u: take tar.%s or zip", format, in->files->len, format);
    return !g_ptr_array_find_with_equal_func(in->files, output, g_str_equal, NULL) ||
           fail(error, "'%s' is the artifact's own file", output);
}

static bool pack(const PostContext *context, const json_t *args, const PostArtifact *in, const char *output, GError **error)
{
    g_autoptr(GString) what = g_string_new("compress");
    g_auto(Packing) packing = {.spec.mtime = MAX(context->build->source_date_epoch, 0)};

    if (!read_format(args, output, &packing.spec.format, error) || !read_level(args, packing.spec.format, &packing.spec.level, error) ||
        !check_files(in, output, packing.spec.format, error) || !post_claim(context, output, error))
        return false;
    g_string_append_printf(what, " %s %d %" G_GINT64_FORMAT, packing.spec.format, packing.spec.level, packing.spec.mtime);
    return add_members(context->store, in, &packing, what, error) &&
           output_make(context->store, output, what->str, make, &packing, NULL, error);
}

static bool run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    g_autoptr(PostArtifact) out = NULL;
    g_autofree char *output = NULL;

    if (!post_expand(context, args, "output", OUTPUT, NULL, &output, error) || !pack(context, args, in, output, error))
        return false;
    out = post_artifact_copy(in);
    g_ptr_array_set_size(out->files, 0);
    post_artifact_add_file(out, output);
    out->own_files = true;
    *ret = g_steal_pointer(&out);
    return true;
}

const PostOps post_compress_ops = {
    .type = "compress",
    .arguments = arguments,
    .check = check,
    .run = run,
    .wants_files = true,
    .makes_files = true,
};
