/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packer's docker source: a container image as the base, what `changes` says of the result, and the tar that export_path asks for. No daemon is asked.
 *
 *   image -> docker://HOST/REPOSITORY:TAG -> what the --url-map list has for it, or else its registry -> the oci source's own way (source-oci.c)
 *
 * In Packer the entrypoint of the container it works in becomes that of the image; here the image's own stays unless `changes` says otherwise.
 */
#include "baker/source-common.h"
#include "baker/source-packer.h"

#include "base/error.h"
#include "base/http.h"

#include <string.h>

#define DOCKER_SCHEMA(X)                                                                                     \
    PACKER_CORE(X) PACKER_COMMUNICATOR(X)                                                                    \
    X(author, TEXT, true) X(changes, TEXTS, true) X(commit, BOOL, true) X(container_dir, TEXT, false) X(device, TEXTS, false) X(discard, BOOL, true)      \
    X(cap_add, TEXTS, false) X(cap_drop, TEXTS, false) X(exec_user, TEXT, false) X(export_path, TEXT, true) X(image, TEXT, true) X(message, TEXT, true)   \
    X(privileged, BOOL, false) X(pty, BOOL, false) X(runtime, TEXT, false) X(pull, BOOL, true) X(run_command, TEXTS, false) X(tmpfs, TEXTS, false)       \
    X(volumes, MAP, false) X(fix_upload_owner, BOOL, false) X(windows_container, BOOL, true) X(platform, TEXT, false) X(docker_path, TEXT, false)         \
    X(login, BOOL, true) X(login_password, TEXT, true) X(login_server, TEXT, true) X(login_username, TEXT, true) X(ecr_login, BOOL, false)            \
    X(aws_access_key, TEXT, false) X(aws_secret_key, TEXT, false) X(aws_token, TEXT, false) X(aws_profile, TEXT, false)                                  \
    X(aws_force_use_public_ecr, BOOL, false) X(build, BLOCK, true)
PACKER_SCHEMA(DOCKER_SCHEMA);

/* --- changes --- */

/* JSON's list, or a line for the shell. */
static json_t *command_of(const char *text)
{
    g_autoptr(json_t) list = NULL;

    if (*text == '[' && json_parse(text, strlen(text), 65536, "a list", &list, NULL) && json_is_array(list))
        return g_steal_pointer(&list);
    return json_pack("[sss]", "/bin/sh", "-c", text);
}

/* JSON's list, or words. */
static json_t *words_of(const char *text)
{
    g_autoptr(json_t) list = NULL;
    g_auto(GStrv) words = NULL;

    if (*text == '[' && json_parse(text, strlen(text), 65536, "a list", &list, NULL) && json_is_array(list))
        return g_steal_pointer(&list);
    list = json_array();
    words = g_strsplit_set(text, " \t", -1);
    for (char **word = words; *word; word++)
        if (**word)
            json_array_append_new(list, json_string(*word));
    return g_steal_pointer(&list);
}

static json_t *member(json_t *object, const char *key, json_t *(*make)(void))
{
    json_t *value = json_object_get(object, key);

    if (!value) {
        value = make();
        json_object_set_new(object, key, value);
    }
    return value;
}

/* A="b c" D=e as words, quotes taken off; one word without "=" makes it "NAME rest of the line". */
static bool pairs_of(const char *text, void (*add)(json_t *to, const char *name, const char *value), json_t *to)
{
    g_auto(GStrv) words = NULL;
    const char *blank = strpbrk(text, " \t");

    if (blank && !g_strstr_len(text, blank - text, "=")) {
        g_autofree char *name = g_strndup(text, (gsize)(blank - text));

        add(to, name, blank + strspn(blank, " \t"));
        return true;
    }
    if (!g_shell_parse_argv(text, NULL, &words, NULL))
        return false;
    for (char **word = words; *word; word++) {
        char *equals = strchr(*word, '=');

        if (!equals || equals == *word)
            return false;
        *equals = '\0';
        add(to, *word, equals + 1);
    }
    return true;
}

static void add_env(json_t *to, const char *name, const char *value)
{
    json_array_append_new(to, json_sprintf("%s=%s", name, value));
}

static void add_label(json_t *to, const char *name, const char *value)
{
    json_object_set_new(to, name, json_string(value));
}

/* CMD ["CMD", ...] or a line; NONE switches it off. Times are in nanoseconds, as the image's config has them. */
static bool set_health(json_t *output, const char *text)
{
    json_t *health = json_object();

    if (g_ascii_strcasecmp(text, "NONE") == 0) {
        json_object_set_new(health, "Test", json_pack("[s]", "NONE"));
    } else {
        const char *cmd = strstr(text, "CMD");
        json_t *test = cmd ? json_pack("[s]", cmd[3 + strspn(cmd + 3, " ")] == '[' ? "CMD" : "CMD-SHELL") : NULL;

        if (!test) {
            json_decref(health);
            return false;
        }
        cmd += 3 + strspn(cmd + 3, " \t");
        if (*cmd == '[') {
            json_t *list = command_of(cmd);

            (void)json_array_extend(test, list);
            json_decref(list);
        } else {
            json_array_append_new(test, json_string(cmd));
        }
        json_object_set_new(health, "Test", test);
    }
    json_object_set_new(output, "healthcheck", health);
    return true;
}

/* One instruction as `docker commit --change` takes it; false: there is no such. */
static bool apply_change(json_t *output, const char *line)
{
    const char *blank = strpbrk(line, " \t"), *text = blank ? blank + strspn(blank, " \t") : "";
    g_autofree char *word = g_ascii_strup(line, blank ? blank - line : -1);

    if (!*text)
        return false;
    if (strcmp(word, "CMD") == 0 || strcmp(word, "ENTRYPOINT") == 0)
        return json_object_set_new(output, strcmp(word, "CMD") == 0 ? "cmd" : "entrypoint", command_of(text)) == 0;
    if (strcmp(word, "EXPOSE") == 0 || strcmp(word, "VOLUME") == 0) {
        json_t *list = words_of(text);

        (void)json_array_extend(member(output, strcmp(word, "EXPOSE") == 0 ? "expose" : "volumes", json_array), list);
        json_decref(list);
        return true;
    }
    if (strcmp(word, "ENV") == 0)
        return pairs_of(text, add_env, member(output, "env", json_array));
    if (strcmp(word, "LABEL") == 0)
        return pairs_of(text, add_label, member(output, "labels", json_object));
    if (strcmp(word, "ONBUILD") == 0)
        return json_array_append_new(member(output, "onbuild", json_array), json_string(text)) == 0;
    if (strcmp(word, "HEALTHCHECK") == 0)
        return set_health(output, text);
    static const char *const texts[][2] = {{"USER", "user"}, {"WORKDIR", "workdir"}, {"STOPSIGNAL", "stop_signal"}, {"MAINTAINER", "author"}};

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        if (strcmp(word, texts[i][0]) == 0)
            return json_object_set_new(output, texts[i][1], json_string(text)) == 0;
    return false;
}

static json_t *docker_output(const json_t *args)
{
    g_autofree char *author = packer_raw(args, "author"), *message = packer_raw(args, "message");
    const json_t *line;
    json_t *output = json_object();
    size_t i;

    if (!packer_bool(args, "commit"))
        return output;
    json_array_foreach (json_object_get(args, "changes"), i, line)
        if (json_is_string(line))
            (void)apply_change(output, json_string_value(line));
    if (author && *author)
        json_object_set_new(output, "author", json_string(author));
    if (message && *message)
        json_object_set_new(output, "comment", json_string(message));
    return output;
}

/* --- check --- */

static bool check_changes(const json_t *args, const char **ret_argument, GError **error)
{
    g_autoptr(json_t) output = json_object();
    const json_t *line;
    size_t i;

    *ret_argument = "changes";
    json_array_foreach (json_object_get(args, "changes"), i, line)
        if (json_is_string(line) && !apply_change(output, json_string_value(line)))
            return fail_code(error, KILN_ERROR_USAGE,
                             "'%s' is none of the instructions that change an image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, MAINTAINER, ONBUILD, STOPSIGNAL, "
                             "USER, VOLUME, WORKDIR", json_string_value(line));
    *ret_argument = NULL;
    return true;
}

static bool check_result(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *path = packer_raw(args, "export_path");
    int ways = packer_bool(args, "commit") + packer_bool(args, "discard") + (path && *path);

    *ret_argument = NULL;
    if (ways == 0)
        return fail_code(error, KILN_ERROR_USAGE, "a docker source needs one of 'commit', 'discard' and 'export_path'");
    if (ways > 1)
        return fail_code(error, KILN_ERROR_USAGE, "only one of 'commit', 'discard' and 'export_path' can stand here");
    *ret_argument = "export_path";
    return !path || !*path || !g_file_test(path, G_FILE_TEST_IS_DIR) || fail_code(error, KILN_ERROR_USAGE, "'export_path' is a file, and '%s' is a folder", path);
}

static bool docker_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *image = packer_raw(args, "image");
    bool build = json_object_get(args, "build") != NULL;

    if (!packer_check(args, arguments, ret_argument, error) || !packer_check_communicator(args, "docker", ret_argument, error))
        return false;
    if (!build && (!image || !*image))
        return fail_code(error, KILN_ERROR_USAGE, "'image' must be given");
    *ret_argument = build ? "build" : "windows_container";
    if (build && image && *image)
        return fail_code(error, KILN_ERROR_USAGE, "'image' and 'build' cannot both stand here");
    if (build)
        return fail_code(error, KILN_ERROR_USAGE, "'build' makes the base from a Dockerfile, which needs a builder of those: build it before, and name it by 'image'");
    if (packer_bool(args, "windows_container"))
        return fail_code(error, KILN_ERROR_USAGE, "a Windows container needs a Windows machine");
    return check_result(args, ret_argument, error) && check_changes(args, ret_argument, error);
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

    if (!packer_bool(args, "login"))
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
    g_autofree char *image = NULL, *whole = NULL;
    g_auto(RegistryRef) ref = {0};

    if (!packer_text(context, args, "image", NULL, &image, error))
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

static bool docker_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    g_autofree char *from = NULL, *pull = packer_raw(args, "pull");

    if (!find_base(context, args, &from, error))
        return false;
    if (source_oci_identify(context, from, 0, g_strcmp0(pull, "false") == 0, ret_identity, error))
        return true;
    return g_str_has_prefix(from, REGISTRY_SCHEME) ? fail_prefix(error, "the image, which no --url-map %s=PATH gives", from) : false;
}

static bool docker_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret, GError **error)
{
    g_autofree char *from = NULL;

    packer_tell_unused(context, args, arguments, "no container is started");
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
    Delivery delivery = {.store = context->store};
    g_autofree char *path = NULL, *what = NULL;
    char id[DIGEST_OCI_SIZE];

    for (guint i = 0; i < images->len; i++)
        if (strcmp(((const StoreImage *)images->pdata[i])->kind, "oci") == 0)
            delivery.image = images->pdata[i];
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
