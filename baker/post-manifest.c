/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packer's manifest, with digests.
 *
 * The file belongs to the user and to other programs: a file that is there and
 * is not understood is an error and is never overwritten; keys that we do not
 * know, in the document or in earlier builds, stay as they are.
 *
 * The lock file is removed by its holder while it is held. Whoever waited for
 * it finds that the name no longer leads to the inode it locked, and starts over.
 */
#include "baker/post-manifest.h"

#include "baker/output-files.h"
#include "baker/post-members.h"
#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MANIFEST_SIZE_MAX (64u << 20)
#define LOCK_TRIES 300 /* of 0.1 s */

static const char *const arguments[] = {"output", "strip_path", "strip_time", "custom_data", NULL};

static bool get_custom_data(const json_t *args, json_t **ret, GError **error)
{
    json_t *data = json_object_get(args, "custom_data");

    if (data && !json_is_null(data) && !json_is_object(data))
        return fail_code(error, KILN_ERROR_USAGE, "'custom_data' must be an object");
    *ret = json_is_object(data) ? data : NULL;
    return true;
}

static bool check(const json_t *args, const char **ret_argument, GError **error)
{
    json_t *data;

    if (!post_check_text(args, "output", false, ret_argument, error) || !post_check_bool(args, "strip_path", ret_argument, error) ||
        !post_check_bool(args, "strip_time", ret_argument, error))
        return false;
    *ret_argument = "custom_data";
    return get_custom_data(args, &data, error);
}

/* ---- one build ---- */

static json_t *image_json(const StoreImage *image)
{
    json_t *object = json_object();

    json_set_digest(object, "image_id", &image->id);
    json_set_digest(object, "manifest", &image->manifest);
    json_set_digest(object, "tree", &image->tree.tree);
    json_object_set_new(object, "size", json_integer((json_int_t)image->size));
    return object;
}

/* "disk:sha256:..,oci:sha256:.." */
static char *artifact_id(GPtrArray *images)
{
    g_autoptr(GString) id = g_string_new(NULL);

    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        char text[DIGEST_OCI_SIZE];
        g_string_append_printf(id, "%s%s:%s", i ? "," : "", image->kind, digest_to_oci(&image->id, text));
    }
    return g_string_free(g_steal_pointer(&id), FALSE);
}

/* One for the whole run of kiln, as Packer has it: builds of one command can be told from those of another.
 */
static const char *run_uuid(void)
{
    static char *uuid;

    if (g_once_init_enter(&uuid)) {
        const char *given = g_getenv("PACKER_RUN_UUID");
        g_once_init_leave(&uuid, given && *given ? g_strdup(given) : g_uuid_string_random());
    }
    return uuid;
}

static json_t *kiln_json(const ManifestBuild *build)
{
    json_t *object = json_object(), *tags = json_array();

    json_object_set_new(object, "name", json_string(build->set_name));
    for (guint i = 0; i < build->images->len; i++) {
        const StoreImage *image = build->images->pdata[i];
        json_object_set_new(object, image->kind, image_json(image));
    }
    for (guint i = 0; build->tags && i < build->tags->len; i++)
        json_array_append_new(tags, json_string(build->tags->pdata[i]));
    if (json_array_size(tags) > 0)
        json_object_set(object, "tags", tags);
    json_decref(tags);
    return object;
}

static json_t *build_json(const ManifestBuild *build, bool strip_time, json_t *custom_data)
{
    g_autofree char *id = artifact_id(build->images);
    json_t *object = json_object();

    json_object_set_new(object, "name", json_string(build->build_name));
    json_object_set_new(object, "builder_type", json_string(build->builder_type));
    if (!strip_time)
        json_object_set_new(object, "build_time", json_integer(g_get_real_time() / G_USEC_PER_SEC));
    json_object_set_new(object, "files", build->files ? json_incref(build->files) : json_array());
    json_object_set_new(object, "artifact_id", json_string(id));
    json_object_set_new(object, "packer_run_uuid", json_string(run_uuid()));
    json_object_set(object, "custom_data", custom_data ? custom_data : json_null());
    json_object_set_new(object, "kiln", kiln_json(build));
    return object;
}

/* ---- the file ---- */

/* True with *ret_fd = -1 when somebody else has it. */
static bool try_lock(const char *path, int *ret_fd, GError **error)
{
    auto_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    struct stat ours, named;

    *ret_fd = -1;
    if (fd < 0)
        return fail_errno(error, "open lock file '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK || errno == EINTR ? true : fail_errno(error, "lock '%s'", path);
    if (fstat(fd, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino &&
        ours.st_dev == named.st_dev)
        *ret_fd = g_steal_fd(&fd);
    return true;
}

static bool lock(const char *path, int *ret_fd, GError **error)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (!interrupt_check(error) || !try_lock(path, ret_fd, error))
            return false;
        if (*ret_fd >= 0)
            return true;
        g_usleep(G_USEC_PER_SEC / 10);
    }
    return fail_code(error, KILN_ERROR_TIMEOUT, "'%s' is held by another process", path);
}

static bool load(const char *path, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) document = NULL;

    if (access(path, F_OK) < 0 && errno == ENOENT) {
        *ret = json_pack("{s:[]}", "builds");
        return true;
    }
    if (!file_load(AT_FDCWD, path, MANIFEST_SIZE_MAX, &bytes, error))
        return false;
    if (!json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), MANIFEST_SIZE_MAX, path,
                    &document, error))
        return fail_prefix(error, "the manifest that is there is kept");
    if (!json_is_array(json_object_get(document, "builds")))
        return fail(error, "'%s' is there and is no manifest; remove it or name another 'output'", path);
    *ret = g_steal_pointer(&document);
    return true;
}

static bool append(const char *path, json_t *build /* taken */, GError **error)
{
    g_autoptr(json_t) taken = build, document = NULL;
    g_autofree char *text = NULL;

    if (!load(path, &document, error))
        return false;
    json_array_append(json_object_get(document, "builds"), build);
    json_object_set_new(document, "last_run_uuid", json_string(run_uuid()));
    text = json_pretty(document);
    return file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_YES, error);
}

bool post_manifest_run(const json_t *args, const ManifestBuild *build, GError **error)
{
    const char *path = NULL;
    json_t *custom_data = NULL;
    bool strip_time = false;
    auto_fd int lock_fd = -1;

    if (!json_get_string(args, "output", "packer-manifest.json", &path, error) ||
        !json_get_bool(args, "strip_time", false, &strip_time, error) ||
        !get_custom_data(args, &custom_data, error))
        return false;

    g_autofree char *lock_path = g_strconcat(path, ".lock", NULL), *parent = g_path_get_dirname(path);
    if (!file_make_dirs(parent, 0777, error) || !lock(lock_path, &lock_fd, error))
        return false;
    bool ok = append(path, build_json(build, strip_time, custom_data), error);
    (void)unlink(lock_path); /* a stale one does no harm */
    return ok;
}

/* ---- as a post-processor ---- */

/* The sum may be known from "checksum", or serves it later. */
static bool add_file(Store *store, json_t *list, const char *path, bool strip_path, GError **error)
{
    g_autofree char *name = strip_path ? g_path_get_basename(path) : g_strdup(path);
    g_autofree char *sum = NULL;
    struct stat st;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return true;
    if (!output_checksum(store, path, "sha256", &sum, error))
        return false;
    json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", name, "size", (json_int_t)st.st_size, "sha256",
                                          sum));
    return true;
}

static bool run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    g_autoptr(json_t) files = json_array();
    ManifestBuild build = {context->build->name, context->build->build_name, context->build->source->type, in->images, files, in->tags};
    bool strip_path;

    if (!json_get_bool(args, "strip_path", false, &strip_path, error))
        return false;
    for (guint i = 0; i < in->files->len; i++)
        if (!add_file(context->store, files, in->files->pdata[i], strip_path, error))
            return false;
    return post_manifest_run(args, &build, error);
}

const PostOps post_manifest_ops = {
    .type = "manifest",
    .arguments = arguments,
    .check = check,
    .run = run,
};
