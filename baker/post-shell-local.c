/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "shell-local": the provisioner of that name, after the bake. Scripts find the images by
 *
 *   PACKER_BUILD_NAME  PACKER_BUILDER_TYPE  KILN_NAME  KILN_DISK  KILN_OCI  (image IDs; unset for a kind that there is not)
 *   KILN_FILES  the artifact's files, a line each     KILN_STORE  so that a `kiln` they call means the same store
 *
 * It runs every time, unless it declares `inputs` and `outputs`: then once for the same inputs, images and files, for as long as the outputs
 * stay as it left them.
 */
#include "baker/output-files.h"
#include "baker/post-members.h"

#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"
#include "provisioner/provisioner.h"

#include <string.h>

#define MEMO "shell-local:"

static const char *const arguments[] = {"command",         "inline",       "inline_shebang",    "script",             "scripts",
                                        "environment_vars", "env",          "env_var_format",    "execute_command",    "only_on",
                                        "use_linux_pathing", "tempfile_extension", "valid_exit_codes", "inputs", "outputs", NULL};

static const ProvisionerOps *shell_local(void)
{
    return provisioner_find("shell-local");
}

static bool check(const json_t *args, const char **ret_argument, GError **error)
{
    return post_check_texts(args, "inputs", false, ret_argument, error) && shell_local()->check(args, ret_argument, error);
}

/* --- what a script is told --- */

static void say(const char *line, bool is_stderr, void *arg)
{
    g_autofree char *clean = printable_line(line);

    log_info("    shell-local: %s", clean);
}

static char **set_image(char **env, const PostArtifact *in, const char *kind, const char *variable)
{
    const StoreImage *image = store_images_find(in->images, kind);
    char id[DIGEST_OCI_SIZE];

    return image ? g_environ_setenv(env, variable, digest_to_oci(&image->id, id), TRUE) : env;
}

static char **environment(const PostContext *context, const PostArtifact *in)
{
    g_autoptr(GString) files = g_string_new(NULL);
    char **env = g_environ_setenv(NULL, "PACKER_BUILD_NAME", context->build->build_name, TRUE);

    for (guint i = 0; i < in->files->len; i++)
        g_string_append_printf(files, "%s%s", i > 0 ? "\n" : "", (char *)in->files->pdata[i]);
    env = g_environ_setenv(env, "PACKER_BUILDER_TYPE", context->build->source->type, TRUE);
    env = g_environ_setenv(env, "KILN_NAME", context->build->name, TRUE);
    env = g_environ_setenv(env, "KILN_STORE", store_path(context->store), TRUE);
    env = g_environ_setenv(env, "KILN_FILES", files->str, TRUE);
    return set_image(set_image(env, in, "disk", "KILN_DISK"), in, "oci", "KILN_OCI");
}

/* --- whether it has to run --- */

static bool add_files(const char *const *globs, const ProvisionerHost *host, json_t *list, GError **error)
{
    g_autoptr(json_t) found = NULL;

    return provisioner_declared_json(globs, host, &found, error) && json_array_extend(list, found) == 0;
}

/* Scripts are inputs whether they are declared or not. */
static bool add_scripts(const json_t *args, const ProvisionerHost *host, json_t *list, GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);

    if (!shell_local()->inputs(args, host, files, error))
        return false;
    for (guint i = 0; i < files->len; i++) {
        char hex[DIGEST_HEX_SIZE];

        json_array_append_new(list, json_string(digest_to_hex(&((ProvisionerInput *)files->pdata[i])->digest, hex)));
    }
    return true;
}

static bool add_artifact(const PostContext *context, const PostArtifact *in, json_t *list, GError **error)
{
    for (guint i = 0; i < in->images->len; i++) {
        char id[DIGEST_OCI_SIZE];

        json_array_append_new(list, json_string(digest_to_oci(&((StoreImage *)in->images->pdata[i])->id, id)));
    }
    for (guint i = 0; i < in->files->len; i++) {
        g_autofree char *sum = NULL;

        if (!output_checksum(context->store, in->files->pdata[i], "sha256", &sum, error))
            return false;
        json_array_append_new(list, json_pack("[s, s]", (char *)in->files->pdata[i], sum));
    }
    return true;
}

static bool memo_key(const PostContext *context, const json_t *args, const PostArtifact *in, const ProvisionerHost *host, const char *const *inputs,
                     char **ret, GError **error)
{
    g_autoptr(json_t) key = json_array();
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    json_array_append(key, (json_t *)args);
    json_array_append_new(key, json_string(context->build->name));
    if (!add_artifact(context, in, key, error) || !add_scripts(args, host, key, error) || !add_files(inputs, host, key, error))
        return false;
    json_digest(key, &digest);
    *ret = g_strconcat(MEMO, digest_to_hex(&digest, hex), NULL);
    return true;
}

static bool outputs_text(const char *const *outputs, const ProvisionerHost *host, char **ret, GError **error)
{
    g_autoptr(json_t) list = NULL;

    if (!provisioner_declared_json(outputs, host, &list, error))
        return false;
    *ret = json_canonical(list);
    return true;
}

static bool run_when_needed(const PostContext *context, const json_t *args, const PostArtifact *in, const ProvisionerHost *host,
                            const char *const *inputs, const char *const *outputs, GError **error)
{
    g_autofree char *key = NULL, *before = NULL, *now = NULL;

    if (!memo_key(context, args, in, host, inputs, &key, error) || !store_memo_get(context->store, key, &before, error))
        return false;
    if (before && outputs_text(outputs, host, &now, NULL) && strcmp(before, now) == 0) {
        log_info("    its outputs are as it left them");
        return true;
    }
    g_clear_pointer(&now, g_free);
    if (!shell_local()->run(args, host, NULL, error))
        return false;
    if (!outputs_text(outputs, host, &now, error))
        return fail_prefix(error, "declared as 'outputs'");
    return store_memo_put(context->store, key, now, NULL, NULL, error);
}

static bool run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    g_auto(GStrv) env = environment(context, in), inputs = NULL, outputs = NULL;
    g_autofree char *cwd = g_get_current_dir();
    ProvisionerHost host = {.template_dir = template_dir(context->template),
                            .cwd = cwd,
                            .build_name = context->build->build_name,
                            .builder_type = context->build->source->type,
                            .env = (const char *const *)env,
                            .epoch = MAX(context->build->source_date_epoch, 0),
                            .say = say};

    if (!json_get_strings(args, "inputs", &inputs, error) || !json_get_strings(args, "outputs", &outputs, error))
        return false;
    return *inputs && *outputs ? run_when_needed(context, args, in, &host, (const char *const *)inputs, (const char *const *)outputs, error)
                               : shell_local()->run(args, &host, NULL, error);
}

const PostOps post_shell_local_ops = {
    .type = "shell-local",
    .arguments = arguments,
    .check = check,
    .run = run,
};
