/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packer's docker source: a container image as the base, what `changes` says of the result, and the tar that export_path asks for. No daemon is asked.
 *
 *   image -> docker://HOST/REPOSITORY:TAG -> what the --url-map list has for it, or else its registry -> the oci source's own way (source-oci.c)
 *         -> with pull = false the image that docker-tag or docker-import called so in the store       -> that of images (source-image.h)
 *
 * In Packer the entrypoint of the container it works in becomes that of the image; here the image's own stays unless `changes` says otherwise.
 */
#include "baker/docker-changes.h"
#include "baker/docker-names.h"
#include "baker/layers.h"
#include "baker/source-common.h"
#include "baker/source-image.h"
#include "baker/source-packer.h"

#include "base/error.h"
#include "base/http.h"

#include <string.h>

#define DOCKER_SCHEMA(X)                                                                                     \
    PACKER_CORE(X) PACKER_COMMUNICATOR(X)                                                                    \
    X(author, TEXT, true) X(changes, TEXTS, true) X(commit, BOOL, true) X(container_dir, TEXT, false) X(device, TEXTS, false) X(discard, BOOL, true)      \
    X(cap_add, TEXTS, false) X(cap_drop, TEXTS, false) X(exec_user, TEXT, false) X(export_path, TEXT, true) X(image, TEXT, true) X(message, TEXT, true)   \
    X(privileged, BOOL, false) X(pty, BOOL, false) X(runtime, TEXT, false) X(pull, BOOL, true) X(run_command, TEXTS, false) X(tmpfs, TEXTS, false)       \
    X(volumes, MAP, false) X(fix_upload_owner, BOOL, false) X(windows_container, BOOL, true) X(platform, TEXT, true) X(docker_path, TEXT, false)         \
    X(login, BOOL, true) X(login_password, TEXT, true) X(login_server, TEXT, true) X(login_username, TEXT, true) X(ecr_login, BOOL, false)            \
    X(aws_access_key, TEXT, false) X(aws_secret_key, TEXT, false) X(aws_token, TEXT, false) X(aws_profile, TEXT, false)                                  \
    X(aws_force_use_public_ecr, BOOL, false) X(build, BLOCK, true)
PACKER_SCHEMA(DOCKER_SCHEMA);

static const PackerReason reasons[] = {
    {" volumes ", "folders of this machine are not mounted into the guest (provisioner \"file\" puts files there)"},
    {" tmpfs ", "only /run is a file system of its own, and what steps write elsewhere stays"},
    {" exec_user fix_upload_owner ", "steps run as root, and what they upload is root's"},
    {" ecr_login aws_access_key aws_secret_key aws_token aws_profile aws_force_use_public_ecr ",
     "Amazon is not asked for a password (name docker-credential-ecr-login as the registry's credHelper in docker's config.json, or give login_username = \"AWS\" and what "
     "'aws ecr get-login-password' prints)"},
    {0},
};

/* --- the result --- */

static json_t *docker_output(const json_t *args)
{
    g_autofree char *author = packer_raw(args, "author"), *message = packer_raw(args, "message");
    json_t *output = json_object(), *changes = json_object_get(args, "changes");

    if (!packer_bool(args, "commit"))
        return output;
    if (json_array_size(changes) > 0)
        json_object_set(output, LAYERS_CHANGES, changes);
    if (author && *author)
        json_object_set_new(output, "author", json_string(author));
    if (message && *message)
        json_object_set_new(output, "comment", json_string(message));
    return output;
}

/* --- check --- */

static bool check_changes(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) changes = NULL;

    *ret_argument = "changes";
    if (!json_get_strings(args, "changes", &changes, error) || !docker_changes_check((const char *const *)changes, error))
        return false;
    *ret_argument = NULL;
    return true;
}

static bool check_result(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *path = packer_raw(args, "export_path");
    int ways = packer_bool(args, "commit") + packer_bool(args, "discard") + packer_given(args, "export_path");

    *ret_argument = NULL;
    if (ways == 0)
        return fail_code(error, KILN_ERROR_USAGE, "a docker source needs one of 'commit', 'discard' and 'export_path'");
    if (ways > 1)
        return fail_code(error, KILN_ERROR_USAGE, "only one of 'commit', 'discard' and 'export_path' can stand here");
    *ret_argument = "export_path";
    return !path || !g_file_test(path, G_FILE_TEST_IS_DIR) || fail_code(error, KILN_ERROR_USAGE, "'export_path' is a file, and '%s' is a folder", path);
}

/* "linux/arm64/v8", or parts of that, as `docker pull --platform` takes it: steps are run, so it is what this machine runs. */
static bool check_platform(const char *platform, GError **error)
{
    static const char *const other_names[][2] = {{"x86_64", "amd64"}, {"x86-64", "amd64"}, {"aarch64", "arm64"}, {"i386", "386"}, {"armhf", "arm"}};
    g_auto(GStrv) parts = g_strsplit(platform, "/", 3);
    const char *os = parts[0] && (parts[1] || strcmp(parts[0], "linux") == 0 || strcmp(parts[0], "windows") == 0) ? parts[0] : "linux";
    const char *machine = parts[0] && parts[1] ? parts[1] : strcmp(platform, os) == 0 ? oci_host_architecture() : parts[0] ? parts[0] : "";

    for (size_t i = 0; i < G_N_ELEMENTS(other_names); i++)
        if (strcmp(machine, other_names[i][0]) == 0)
            machine = other_names[i][1];
    return (strcmp(os, "linux") == 0 && strcmp(machine, oci_host_architecture()) == 0) ||
           fail_code(error, KILN_ERROR_USAGE, "'platform' is \"%s\", and steps run on this machine as it is, which is linux/%s: bake that on a machine of its kind",
                     platform, oci_host_architecture());
}

static bool check_login(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *platform = packer_raw(args, "platform");

    *ret_argument = "ecr_login";
    if (packer_bool(args, "ecr_login") && !packer_given(args, "login_server"))
        return fail_code(error, KILN_ERROR_USAGE, "'ecr_login' needs 'login_server'");
    *ret_argument = "platform";
    return !platform || !*platform || strstr(platform, "{{") || check_platform(platform, error);
}

static bool docker_check(const json_t *args, const char **ret_argument, GError **error)
{
    bool build = json_object_get(args, "build") != NULL;

    if (!packer_check(args, arguments, ret_argument, error) || !packer_check_communicator(args, "docker", ret_argument, error))
        return false;
    if (!build && !packer_given(args, "image"))
        return fail_code(error, KILN_ERROR_USAGE, "'image' must be given");
    *ret_argument = build ? "build" : "windows_container";
    if (build && packer_given(args, "image"))
        return fail_code(error, KILN_ERROR_USAGE, "'image' and 'build' cannot both stand here");
    if (build)
        return fail_code(error, KILN_ERROR_USAGE, "'build' makes the base from a Dockerfile, which needs a builder of those: build it before, and name it by 'image'");
    if (packer_bool(args, "windows_container"))
        return fail_code(error, KILN_ERROR_USAGE, "a Windows container needs a Windows machine");
    return check_login(args, ret_argument, error) && check_result(args, ret_argument, error) && check_changes(args, ret_argument, error);
}

/* --- the image --- */

/* "ubuntu" -> "docker.io/library/ubuntu:latest" */
static char *whole_name(const RegistryRef *ref)
{
    g_autofree char *place = registry_ref_place(ref);
    GString *whole = g_string_new(place);
    char oci[DIGEST_OCI_SIZE];

    if (ref->tag)
        g_string_append_printf(whole, ":%s", ref->tag);
    if (!digest_is_none(&ref->digest))
        g_string_append_printf(whole, "@%s", digest_to_oci(&ref->digest, oci));
    else if (!ref->tag)
        g_string_append(whole, ":latest");
    return g_string_free(whole, FALSE);
}

/* An OCI layout or archive at @path, as the oci source names it; NULL where there is none. "PATH:TAG" is the image TAG of the layout PATH. */
static char *local_form(const char *path)
{
    g_autofree char *plain = g_strdup(path), *index = NULL, *archive = NULL;
    char *colon;

    while (strlen(plain) > 1 && g_str_has_suffix(plain, "/"))
        plain[strlen(plain) - 1] = '\0';
    index = g_build_filename(plain, "index.json", NULL);
    archive = g_strconcat(plain, ".tar", NULL);
    if (g_file_test(index, G_FILE_TEST_EXISTS))
        return g_strconcat("oci:", plain, NULL);
    if (g_file_test(plain, G_FILE_TEST_IS_REGULAR))
        return g_strconcat("oci-archive:", plain, NULL);
    if (g_file_test(archive, G_FILE_TEST_IS_REGULAR))
        return g_strconcat("oci-archive:", archive, NULL);
    colon = strrchr(plain, ':');
    if (!colon || strchr(colon, '/'))
        return NULL;
    *colon = '\0';
    g_free(index);
    index = g_build_filename(plain, "index.json", NULL);
    return g_file_test(index, G_FILE_TEST_EXISTS) ? g_strconcat("oci:", plain, ":", colon + 1, NULL) : NULL;
}

/* Where --url-map has it, by its name as written or in full. */
static bool mapped_form(const char *image, const char *whole, char **ret, GError **error)
{
    const char *const both[] = {image, whole};

    *ret = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(both) && !*ret; i++) {
        g_autofree char *url = g_strconcat("docker://", both[i], NULL), *path = NULL;

        if (!http_url_mapped(url, &path, error))
            return false;
        if (path)
            *ret = local_form(path);
    }
    return true;
}

/* As `docker login` before Packer's pull: without names it is docker's own files that say who we are. */
static bool log_in(const SourceContext *context, const json_t *args, GError **error)
{
    g_autofree char *server = NULL, *user = NULL, *password = NULL;

    if (!packer_bool(args, "login") || packer_bool(args, "ecr_login"))
        return true;
    if (!packer_text(context, args, "login_server", "docker.io", &server, error) || !packer_text(context, args, "login_username", NULL, &user, error) ||
        !packer_text(context, args, "login_password", NULL, &password, error))
        return false;
    if (user && password)
        registry_login_add(server, user, password);
    return true;
}

/* The base as the oci source names it. */
static bool find_base(const SourceContext *context, const json_t *args, char **ret, GError **error)
{
    g_autofree char *image = NULL, *whole = NULL, *platform = NULL;
    g_auto(RegistryRef) ref = {0};

    if (!packer_text(context, args, "image", NULL, &image, error) || !packer_text(context, args, "platform", NULL, &platform, error) ||
        (platform && !check_platform(platform, error)))
        return false;
    if (g_str_has_prefix(image, "oci:") || g_str_has_prefix(image, "oci-archive:") || strcmp(image, "scratch") == 0) {
        *ret = g_steal_pointer(&image);
        return true;
    }
    if (!registry_ref_parse(image, &ref, error))
        return false;
    whole = whole_name(&ref);
    if (!mapped_form(g_str_has_prefix(image, REGISTRY_SCHEME) ? image + strlen(REGISTRY_SCHEME) : image, whole, ret, error))
        return false;
    if (*ret)
        return true;
    *ret = g_strconcat(REGISTRY_SCHEME, whole, NULL);
    return log_in(context, args, error);
}

/* With pull = false: what the store has under the image's name, which knows no tags but the newest. *ret NULL: nothing. */
static bool find_stored(const SourceContext *context, const json_t *args, json_t **ret, GError **error)
{
    g_autofree char *pull = packer_raw(args, "pull"), *image = NULL, *name = NULL;
    g_autoptr(StoreImage) stored = NULL;

    *ret = NULL;
    if (g_strcmp0(pull, "false") != 0 || context->pull == PULL_ALWAYS)
        return true;
    if (!packer_text(context, args, "image", "", &image, error))
        return false;
    if (g_str_has_suffix(image, ":latest"))
        image[strlen(image) - strlen(":latest")] = '\0';
    name = docker_name_in_store(image);
    if (!store_name_check(name, NULL) || !store_resolve(context->store, name, "oci", &stored, NULL))
        return true; /* the registry is asked, or what it said before */
    *ret = json_pack("{s:s+}", "from", "image:", name);
    return true;
}

static bool docker_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    g_autofree char *from = NULL, *pull = packer_raw(args, "pull");
    g_autoptr(json_t) stored = NULL;

    if (!find_stored(context, args, &stored, error))
        return false;
    if (stored)
        return source_image_identify(context, stored, ret_identity, error);
    if (!find_base(context, args, &from, error))
        return false;
    if (source_oci_identify(context, from, 0, g_strcmp0(pull, "false") == 0, ret_identity, error))
        return true;
    return g_str_has_prefix(from, REGISTRY_SCHEME) ? fail_prefix(error, "the image, which no --url-map %s=PATH gives", from) : false;
}

static bool docker_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret, GError **error)
{
    g_autofree char *from = NULL;

    packer_tell_unused(context, args, arguments, "no container is started (steps are root in a virtual machine)", reasons);
    if (g_strcmp0(json_string_value(json_object_get(identity, "type")), "image") == 0)
        return source_image_prepare(context, identity, ret, error);
    return find_base(context, args, &from, error) && source_oci_prepare(context, from, identity, ret, error);
}

/* --- export_path --- */

typedef struct Delivery {
    Store *store;
    const StoreImage *image;
} Delivery;

static bool write_tar(const char *path, void *arg, GError **error)
{
    const Delivery *delivery = arg;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;

    return oci_image_load(delivery->store, delivery->image, &tree, &files, error) && tree_export_tar(tree, files, path, error);
}

static bool docker_deliver(const SourceContext *context, const json_t *args, const GPtrArray *images, GPtrArray *files, GError **error)
{
    Delivery delivery = {context->store, store_images_find(images, "oci")};
    g_autofree char *path = NULL, *what = NULL;
    char id[DIGEST_OCI_SIZE];

    if (!packer_text(context, args, "export_path", NULL, &path, error))
        return false;
    if (!path || !delivery.image)
        return true;
    what = g_strconcat(digest_to_oci(&delivery.image->id, id), " tar", NULL);
    return packer_deliver(context->store, files, path, what, write_tar, &delivery, error);
}

const SourceOps source_docker_ops = {
    .type = "docker",
    .arguments = argument_names,
    .check = docker_check,
    .identify = docker_identify,
    .prepare = docker_prepare,
    .output = docker_output,
    .deliver = docker_deliver,
    .default_output = "oci",
    .packers = true,
};
