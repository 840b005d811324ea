/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "docker-push": the tags of the chain, into their registries. After every bake, cached or not; what a registry has is not sent again, and
 * with --offline nothing is.
 */
#include "baker/post-members.h"
#include "baker/transfer.h"

#include "base/error.h"
#include "base/log.h"

#include <string.h>

static bool push_check(const json_t *args, const char **ret_argument, GError **error)
{
    static const char *const texts[] = {"login_username", "login_password", "login_server", "docker_path", "platform", "aws_access_key", "aws_secret_key", "aws_token", "aws_profile"};
    static const char *const bools[] = {"login", "ecr_login", "aws_force_use_public_ecr"};

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        if (!post_check_text(args, texts[i], false, ret_argument, error))
            return false;
    for (size_t i = 0; i < G_N_ELEMENTS(bools); i++)
        if (!post_check_bool(args, bools[i], ret_argument, error))
            return false;
    *ret_argument = "ecr_login";
    if (json_is_true(json_object_get(args, "ecr_login")))
        return fail_code(error, KILN_ERROR_USAGE,
                         "Amazon is not asked for a password: leave 'ecr_login' out, and name docker-credential-ecr-login as the registry's credHelper in docker's config.json, or set "
                         "login, login_server and login_username = \"AWS\" with the password that 'aws ecr get-login-password' prints");
    *ret_argument = NULL;
    return true;
}

static bool log_in(const PostContext *context, const json_t *args, GError **error)
{
    g_autofree char *server = NULL, *user = NULL, *password = NULL;

    if (!json_is_true(json_object_get(args, "login")))
        return true;
    if (!post_expand(context, args, "login_server", "docker.io", NULL, &server, error) || !post_expand(context, args, "login_username", "", NULL, &user, error) ||
        !post_expand(context, args, "login_password", "", NULL, &password, error))
        return false;
    if (*user && *password)
        registry_login_add(server, user, password);
    return true;
}

static bool push_tag(const PostContext *context, const StoreImage *image, const char *tag, GError **error)
{
    g_autofree char *to = g_strconcat(REGISTRY_SCHEME, tag, NULL);
    TransferReport report;
    char manifest[DIGEST_OCI_SIZE];

    if (!transfer_push(context->store, image, to, PUSH_KILN, false, &report, error))
        return fail_prefix(error, "push '%s'", tag);
    log_info("    pushed %s %s", tag, digest_to_oci(&report.manifest, manifest));
    return true;
}

static bool push_run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    const StoreImage *image = store_images_find(in->images, "oci");

    *ret = NULL;
    if (!image)
        return fail(error, "there is no container image: give the build an output \"oci\" {}");
    if (in->tags->len == 0)
        return fail(error, "nothing says where to: a \"docker-tag\" or \"docker-import\" before it in the chain does");
    if (context->offline) {
        log_warning("docker-push: nothing is pushed, as --offline says");
        return true;
    }
    if (!log_in(context, args, error))
        return false;
    for (guint i = 0; i < in->tags->len; i++)
        if (!push_tag(context, image, in->tags->pdata[i], error))
            return false;
    return true;
}

static const char *const push_arguments[] = {"login", "login_username", "login_password", "login_server", "ecr_login", "docker_path", "platform",
                                             "aws_access_key", "aws_secret_key", "aws_token", "aws_profile", "aws_force_use_public_ecr", NULL};
const PostOps post_docker_push_ops = {
    .type = "docker-push",
    .arguments = push_arguments,
    .check = push_check,
    .run = push_run,
};
