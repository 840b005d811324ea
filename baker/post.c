/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains of post-processors. As in Packer, a chain that fails does not stop the others; the bake then fails with the first error, and what
 * was published stays published.
 */
#include "baker/post.h"

#include "baker/output-files.h"
#include "base/error.h"
#include "base/gotemplate.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"

#include <string.h>
#include <unistd.h>

/* --- artifacts --- */

PostArtifact *post_artifact_new(GPtrArray *images)
{
    PostArtifact *artifact = g_new0(PostArtifact, 1);

    artifact->images = g_ptr_array_ref(images);
    artifact->files = g_ptr_array_new_with_free_func(g_free);
    artifact->tags = g_ptr_array_new_with_free_func(g_free);
    return artifact;
}

PostArtifact *post_artifact_copy(const PostArtifact *artifact)
{
    PostArtifact *copy = post_artifact_new(artifact->images);

    for (guint i = 0; i < artifact->files->len; i++)
        g_ptr_array_add(copy->files, g_strdup(artifact->files->pdata[i]));
    for (guint i = 0; i < artifact->tags->len; i++)
        g_ptr_array_add(copy->tags, g_strdup(artifact->tags->pdata[i]));
    copy->own_files = artifact->own_files;
    return copy;
}

void post_artifact_free(PostArtifact *artifact)
{
    if (!artifact)
        return;
    g_ptr_array_unref(artifact->images);
    g_ptr_array_unref(artifact->files);
    g_ptr_array_unref(artifact->tags);
    g_free(artifact);
}

static bool has_file(const PostArtifact *artifact, const char *path)
{
    return g_ptr_array_find_with_equal_func(artifact->files, path, g_str_equal, NULL);
}

void post_artifact_add_file(PostArtifact *artifact, const char *path)
{
    if (!has_file(artifact, path))
        g_ptr_array_add(artifact->files, g_strdup(path));
}

/* --- arguments --- */

bool post_expand(const PostContext *context, const json_t *args, const char *name, const char *otherwise, const char *checksum_type, char **ret,
                 GError **error)
{
    g_autoptr(GHashTable) values = g_hash_table_new(g_str_hash, g_str_equal);
    g_autofree char *cwd = g_get_current_dir();
    const char *build = context->build->build_name, *type = context->build->source->type, *text;
    const char *const pairs[][2] = {{"BuildName", build},  {"BuilderType", type}, {"ChecksumType", checksum_type},
                                    {"build_name", build}, {"build_type", type},  {"pwd", cwd},
                                    {"template_dir", context->template ? template_dir(context->template) : NULL}};

    if (!json_get_string(args, name, otherwise, &text, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++)
        if (pairs[i][1])
            g_hash_table_insert(values, (void *)pairs[i][0], (void *)pairs[i][1]);
    return gotemplate_expand(text, values, ret, error) || fail_prefix(error, "'%s'", name);
}

bool post_claim(const PostContext *context, const char *path, GError **error)
{
    static GMutex mutex;
    static GHashTable *owners; /* absolute path -> name of the set */
    g_autofree char *absolute = g_canonicalize_filename(path, NULL);
    const char *owner;
    AUTO_LOCK(&mutex);

    if (!owners)
        owners = g_hash_table_new(g_str_hash, g_str_equal);
    owner = g_hash_table_lookup(owners, absolute);
    if (owner && strcmp(owner, context->build->name) != 0)
        return fail(error, "'%s' was written for '%s' in this run: give each build a file of its own, by {{.BuildName}} in its name", path, owner);
    if (!owner)
        g_hash_table_insert(owners, g_steal_pointer(&absolute), g_strdup(context->build->name));
    return true;
}

static bool is_missing(const json_t *args, const char *name)
{
    const json_t *value = json_object_get(args, name);

    return !value || json_is_null(value) || (json_is_string(value) && !*json_string_value(value)) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static bool check_there(const json_t *args, const char *name, bool needed, GError **error)
{
    return !needed || !is_missing(args, name) || fail_code(error, KILN_ERROR_USAGE, "'%s' is needed", name);
}

bool post_check_text(const json_t *args, const char *name, bool needed, const char **ret_argument, GError **error)
{
    const char *text;

    *ret_argument = json_object_get(args, name) ? name : NULL;
    if (!json_get_string(args, name, NULL, &text, error) || !check_there(args, name, needed, error))
        return false;
    *ret_argument = NULL;
    return true;
}

bool post_check_texts(const json_t *args, const char *name, bool needed, const char **ret_argument, GError **error)
{
    g_auto(GStrv) texts = NULL;

    *ret_argument = json_object_get(args, name) ? name : NULL;
    if (!json_get_strings(args, name, &texts, error) || !check_there(args, name, needed, error))
        return false;
    *ret_argument = NULL;
    return true;
}

bool post_check_bool(const json_t *args, const char *name, const char **ret_argument, GError **error)
{
    bool flag;

    *ret_argument = name;
    if (!json_get_bool(args, name, false, &flag, error))
        return false;
    *ret_argument = NULL;
    return true;
}

/* --- types --- */

static json_t *as_text(json_t *value)
{
    if (json_is_boolean(value))
        return json_string(json_is_true(value) ? "true" : "false");
    if (json_is_number(value)) {
        g_autofree char *text = json_dumps(value, JSON_ENCODE_ANY);

        return json_string(text);
    }
    return json_incref(value);
}

static json_t *as_texts(json_t *value)
{
    json_t *list = json_array(), *one;
    size_t i;

    json_array_foreach (value, i, one)
        json_array_append_new(list, as_text(one));
    if (json_is_array(value))
        return list;
    json_decref(list);
    return as_text(value);
}

static json_t *as_map(json_t *value)
{
    json_t *map = json_object(), *one;
    const char *key;

    json_object_foreach (value, key, one)
        json_object_set_new(map, key, as_text(one));
    if (json_is_object(value))
        return map;
    json_decref(map);
    return json_incref(value);
}

static json_t *as_bool(json_t *value)
{
    const char *text = json_string_value(value);

    return text && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) ? json_boolean(*text == 't') : json_incref(value);
}

static json_t *as_number(json_t *value)
{
    const char *text = json_string_value(value);
    gint64 number;

    return text && g_ascii_string_to_signed(text, 10, G_MININT32, G_MAXINT32, &number, NULL) ? json_integer(number) : json_incref(value);
}

void post_convert(json_t *args)
{
    static const struct {
        const char *name;
        json_t *(*as)(json_t *value);
    } types[] = {{"keep_input_artifact", as_bool}, {"force", as_bool},        {"login", as_bool},     {"ecr_login", as_bool},  {"strip_path", as_bool},
                 {"strip_time", as_bool},          {"aws_force_use_public_ecr", as_bool}, {"compression_level", as_number}, {"custom_data", as_map},
                 {"tag", as_texts},                {"tags", as_texts},        {"files", as_texts},    {"changes", as_texts},   {"checksum_types", as_texts},
                 {"repository", as_text},          {"path", as_text},         {"output", as_text},    {"format", as_text},     {"platform", as_text},
                 {"login_username", as_text},      {"login_password", as_text}, {"login_server", as_text}};

    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        json_t *value = json_object_get(args, types[i].name);

        if (value)
            json_object_set_new(args, types[i].name, types[i].as(value));
    }
}

/* --- the build's own files --- */

static bool wants_files(const TemplateBuild *build)
{
    for (guint i = 0; i < build->post_processors->len; i++) {
        const GPtrArray *chain = build->post_processors->pdata[i];

        for (guint j = 0; j < chain->len; j++) {
            const PostOps *ops = post_find(((TemplateBlock *)chain->pdata[j])->type);

            if (ops->wants_files)
                return true;
            if (ops->makes_files)
                break;
        }
    }
    return false;
}

/* A source of ours leaves nothing on the host: its disk is written, or the container image of a set without disk. */
static bool write_image(const PostContext *context, PostArtifact *artifact, GError **error)
{
    const StoreImage *disk = store_images_find(artifact->images, "disk"), *oci = store_images_find(artifact->images, "oci");
    const char *name = context->build->name;
    g_autofree char *path = g_strdup_printf("output-%s/%s.%s", name, name, disk ? "qcow2" : "tar");
    OutputFile file = {.image = disk ? disk : oci, .form = disk ? OUTPUT_QCOW2 : OUTPUT_OCI_ARCHIVE, .path = path};

    if (!file.image)
        return true;
    post_artifact_add_file(artifact, path);
    return post_claim(context, path, error) && output_file_write(context->store, &file, NULL, error);
}

/* The source's, or for who wants files of an image that has none (docker with `commit`, our own sources) an export. */
static bool find_files(const PostContext *context, const GPtrArray *delivered, PostArtifact *artifact, GError **error)
{
    for (guint i = 0; i < delivered->len; i++) {
        post_artifact_add_file(artifact, delivered->pdata[i]);
        if (!post_claim(context, delivered->pdata[i], error))
            return false;
    }
    return delivered->len > 0 || !wants_files(context->build) || write_image(context, artifact, error);
}

/* --- chains --- */

/* What the template says of the input's files; else @otherwise. */
static bool keeps(const TemplateBlock *block, bool otherwise)
{
    const json_t *value = json_object_get(block->args, "keep_input_artifact");

    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static void remove_files(const PostArtifact *artifact, const PostArtifact *but)
{
    for (guint i = 0; i < artifact->files->len; i++) {
        const char *path = artifact->files->pdata[i];

        if (but && has_file(but, path))
            continue;
        if (unlink(path) == 0)
            log_verbose("    removed %s", path);
    }
}

static bool run_one(const PostContext *context, const TemplateBlock *block, PostArtifact **artifact, bool *ret_keeps, GError **error)
{
    const PostOps *ops = post_find(block->type);
    g_autoptr(PostArtifact) in = *artifact, out = NULL;

    *artifact = NULL;
    log_info("==> %s: post-processor %s", context->build->name, block->name ? block->name : block->type);
    if (!interrupt_check(error) || !ops->run(context, block->args, in, &out, error))
        return fail_prefix(error, "post-processor '%s'", block->name ? block->name : block->type);
    *ret_keeps = !ops->makes_files || keeps(block, in->own_files ? ops->keeps_input : true);
    if (out && ops->makes_files && in->own_files && !*ret_keeps)
        remove_files(in, out);
    *artifact = out ? g_steal_pointer(&out) : g_steal_pointer(&in);
    return true;
}

/* *ret_keeps: the build's files stay, as far as this chain is asked. */
static bool run_chain(const PostContext *context, const GPtrArray *chain, const PostArtifact *build, bool *ret_keeps, GError **error)
{
    PostArtifact *artifact = post_artifact_copy(build);
    bool own, one = true;

    *ret_keeps = true;
    for (guint i = 0; i < chain->len; i++) {
        own = artifact->own_files;
        if (!run_one(context, chain->pdata[i], &artifact, &one, error))
            return false;
        *ret_keeps &= own || one;
    }
    post_artifact_free(artifact);
    return true;
}

bool post_run(const PostContext *context, GPtrArray *images, const GPtrArray *files, GError **error)
{
    const GPtrArray *chains = context->build->post_processors;
    g_autoptr(PostArtifact) artifact = post_artifact_new(images);
    bool ok = true, keep = chains->len == 0, one = true;

    if (!find_files(context, files, artifact, error))
        return fail_prefix(error, "%s", context->build->name);
    for (guint i = 0; i < chains->len; i++) {
        g_autoptr(GError) problem = NULL;

        if (run_chain(context, chains->pdata[i], artifact, &one, &problem)) {
            keep |= one;
            continue;
        }
        keep = true;
        if (ok)
            g_propagate_error(error, g_steal_pointer(&problem));
        else
            log_warning("%s", problem->message);
        ok = false;
    }
    if (!keep)
        remove_files(artifact, NULL);
    return ok;
}
