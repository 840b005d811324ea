/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk source: a vendor's image as it is, with its own partitions and boot loader.
 *
 *   path or URL -> file -> SHA-256 checked -> private map in the store, remembered by the file's digest
 *
 * A download goes on where an earlier run stopped. Once imported the file is not kept a second time: the store answers
 * for the digest from then on. A URL with a checksum is looked up in the store first and needs no network at all when
 * it is there; one with checksum "none" is fetched at every bake, for only the bytes tell what it is today.
 */
#include "baker/source-common.h"
#include "baker/source-image.h"

#include "base/error.h"
#include "base/file.h"
#include "base/http.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static const char *const disk_arguments[] = {"from", "checksum", "size", NULL};
static const char *const string_arguments[] = {"from", "checksum", NULL};

static const char *text_of(const json_t *args, const char *key)
{
    const char *text = NULL;

    (void)json_get_string(args, key, NULL, &text, NULL); /* types were checked; NULL when absent */
    return text;
}

static bool is_url(const char *from)
{
    return strstr(from, "://") != NULL;
}

/* What the file must be; without checksum, and with "none", anything. */
typedef struct Checksum {
    bool given;
    Digest digest;
} Checksum;

static bool parse_checksum(const json_t *args, Checksum *ret, GError **error)
{
    const char *from = text_of(args, "from"), *checksum = text_of(args, "checksum");

    *ret = (Checksum){0};
    if (!checksum && from && is_url(from))
        return fail_code(error, KILN_ERROR_USAGE, "a download needs a checksum: \"sha256:...\", or \"none\" to trust the server");
    if (!checksum || strcmp(checksum, "none") == 0)
        return true;
    ret->given = true;
    if (!digest_parse(checksum, &ret->digest))
        return fail_code(error, KILN_ERROR_USAGE, "checksum '%s' is neither \"sha256:\" with 64 hex digits nor \"none\"",
                         checksum);
    return true;
}

static bool disk_check(const json_t *args, const char **ret_argument, GError **error)
{
    const char *from;
    Checksum checksum;
    uint64_t size;

    if (!source_check_strings(args, string_arguments, ret_argument, error) ||
        !source_size_argument(args, NULL, &size, ret_argument, error))
        return false;
    from = text_of(args, "from");
    if (!from || !*from)
        return fail_code(error, KILN_ERROR_USAGE, "a disk source needs from, a path or URL of a disk image");
    if (source_image_ref(args))
        return source_image_check(args, ret_argument, error);
    *ret_argument = "from";
    if (g_str_has_prefix(from, "docker://"))
        return fail_code(error, KILN_ERROR_USAGE, "from = \"%s\" is not in this version; use a path or a URL", from);
    if (is_url(from) && !g_str_has_prefix(from, "http://") && !g_str_has_prefix(from, "https://") &&
        !g_str_has_prefix(from, "file://"))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no http, https or file URL", from);
    *ret_argument = "checksum";
    return parse_checksum(args, &checksum, error);
}

static bool checksum_matches(const char *from, const Checksum *wanted, const Digest *got, GError **error)
{
    char a[DIGEST_OCI_SIZE], b[DIGEST_OCI_SIZE];

    if (!wanted->given || digest_equal(&wanted->digest, got))
        return true;
    return fail(error, "checksum of '%s' is wrong: expected %s, found %s", from, digest_to_oci(&wanted->digest, a),
                digest_to_oci(got, b));
}

/* STORE/downloads/<sha256 of the URL>: the same name in every run, so that a broken download can go on. */
static bool download_place(const SourceContext *context, const char *url, char **ret_folder, char **ret_name,
                           GError **error)
{
    g_autofree char *folder = g_build_filename(store_path(context->store), "downloads", NULL);
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    if (!file_make_dirs(folder, 0700, error))
        return false;
    digest_of_string(url, &digest);
    *ret_name = g_strdup(digest_to_hex(&digest, hex));
    *ret_folder = g_steal_pointer(&folder);
    return true;
}

/* The file and what base/http.h keeps beside it. */
static void download_forget(const char *path)
{
    g_autofree char *validator = g_strconcat(path, ".validator", NULL);

    (void)unlink(path);
    (void)unlink(validator);
}

static bool download(const SourceContext *context, const char *url, const Checksum *wanted, char **ret_path,
                     Digest *ret_digest, GError **error)
{
    g_autofree char *folder = NULL, *name = NULL, *path = NULL;
    auto_fd int dirfd = -1;
    HttpDownload request = {.url = url, .title = "download"};
    uint64_t size;

    if (context->offline)
        return fail(error, "'%s' is not in the store yet, and --offline forbids to fetch it", url);
    if (!download_place(context, url, &folder, &name, error))
        return false;
    path = g_build_filename(folder, name, NULL);
    dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return fail_errno(error, "open '%s'", folder);
    /* Without a checksum an old partial file may be the start of other bytes than today's. */
    if (!wanted->given)
        download_forget(path);
    if (!http_download(&request, dirfd, name, error) || !digest_of_file(dirfd, name, ret_digest, &size, error))
        return false;
    if (!checksum_matches(url, wanted, ret_digest, error)) {
        download_forget(path); /* going on with it could never succeed */
        return false;
    }
    *ret_path = g_steal_pointer(&path);
    return true;
}

static char *import_key(const Digest *file)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strconcat("disk:", digest_to_hex(file, hex), NULL);
}

/* The map of an imported file; *ret_known false when the store has it not (any more). */
static bool imported(const SourceContext *context, const Digest *file, Digest *ret_map, bool *ret_known, GError **error)
{
    g_autofree char *key = import_key(file), *value = NULL;

    if (!store_memo_get(context->store, key, &value, error))
        return false;
    *ret_known = value && digest_parse(value, ret_map) && store_blob_has(context->store, ret_map);
    return true;
}

static bool import_file(const SourceContext *context, const char *path, const char *what, const Digest *file,
                        Digest *ret_map, GError **error)
{
    g_autofree char *key = import_key(file);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    char hex[DIGEST_HEX_SIZE];
    MapResult result;

    if (!store_writer_open(context->store, BLOCK_PRIVATE, &writer, error) ||
        !disk_import_file(context->store, writer, path, what, &map, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    *ret_map = result.digest;
    return store_memo_put(context->store, key, digest_to_hex(ret_map, hex), NULL, ret_map, error);
}

/* A URL: the digest of what it gives, imported at once so that no second copy stays. */
static bool identify_url(const SourceContext *context, const char *url, const Checksum *wanted, Digest *ret,
                         GError **error)
{
    g_autofree char *path = NULL;
    bool known = false, ok;
    Digest map;

    if (wanted->given) {
        if (!imported(context, &wanted->digest, &map, &known, error))
            return false;
        if (known) {
            *ret = wanted->digest;
            return true;
        }
    }
    if (!download(context, url, wanted, &path, ret, error))
        return false;
    ok = imported(context, ret, &map, &known, error) && (known || import_file(context, path, url, ret, &map, error));
    download_forget(path); /* imported, or no disk image: in neither case worth its space */
    return ok;
}

/* The last word on an unpinned URL, for --offline. */
static bool identify_unpinned(const SourceContext *context, const char *url, Digest *ret, GError **error)
{
    g_autofree char *key = g_strconcat("url:", url, NULL), *age = NULL;
    g_autoptr(json_t) memo = NULL;
    char hex[DIGEST_HEX_SIZE];
    const char *text = NULL;

    if (!context->offline) {
        if (!identify_url(context, url, &(Checksum){0}, ret, error))
            return false;
        memo = json_pack("{ss sI}", "sha256", digest_to_hex(ret, hex), "fetched",
                         (json_int_t)(g_get_real_time() / G_USEC_PER_SEC));
        return source_memo_put(context->store, key, memo, NULL, error);
    }
    if (!source_memo_get(context->store, key, &memo, error))
        return false;
    if (memo)
        text = text_of(memo, "sha256");
    if (!text || !digest_parse(text, ret))
        return fail(error, "'%s' is not in the store yet, and --offline forbids to fetch it", url);
    age = units_format_duration((double)g_get_real_time() / 1e6 - (double)json_integer_value(json_object_get(memo, "fetched")));
    log_info("offline: '%s' was fetched %s ago", url, age);
    return true;
}

static bool disk_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    const char *from = text_of(args, "from"), *argument;
    char oci[DIGEST_OCI_SIZE];
    Checksum wanted;
    Digest digest;
    uint64_t size;
    bool ok;

    if (source_image_ref(args))
        return source_image_identify(context, args, ret_identity, error);
    if (!parse_checksum(args, &wanted, error) || !source_size_argument(args, NULL, &size, &argument, error))
        return false;
    if (is_url(from)) {
        ok = wanted.given ? identify_url(context, from, &wanted, &digest, error)
                          : identify_unpinned(context, from, &digest, error);
    } else {
        g_autofree char *path = source_find_file(context, from);

        ok = source_file_digest(context, path, &digest, error) && checksum_matches(from, &wanted, &digest, error);
    }
    if (!ok)
        return false;
    *ret_identity = json_pack("{ss ss sI}", "type", "disk", "sha256", digest_to_oci(&digest, oci), "size",
                              (json_int_t)size);
    return true;
}

/* The file behind @args again, for a store that forgot it; it must still be the identity's. */
static bool import_again(const SourceContext *context, const json_t *args, const Digest *file, Digest *ret_map,
                         GError **error)
{
    const char *from = text_of(args, "from");
    g_autofree char *path = NULL;
    bool known = false;
    Digest now;

    if (is_url(from))
        return identify_url(context, from, &(Checksum){true, *file}, &now, error) && imported(context, file, ret_map, &known, error) &&
               (known || fail(error, "'%s' could not be kept in the store", from));
    path = source_find_file(context, from);
    if (!source_file_digest(context, path, &now, error))
        return false;
    if (!digest_equal(&now, file))
        return fail(error, "'%s' changed while it was being read", from);
    return import_file(context, path, from, file, ret_map, error);
}

static bool is_root(Tree *tree)
{
    return tree_find(tree, "etc/os-release") || tree_find(tree, "usr/lib/os-release") || tree_find(tree, "etc/fstab");
}

/* Reads the first ext4 file system that looks like a root; *ret_found false when there is none, or none that can be
 * read before the guest's kernel has replayed its journal. */
static bool read_root(const SourceContext *context, StoreMap *disk, TreeStored *ret, Digest *ret_content, bool *ret_found,
                      GError **error)
{
    g_autoptr(GArray) partitions = NULL;

    *ret_found = false;
    if (!disk_partitions(disk, &partitions, error))
        return false;
    for (guint i = 0; i < partitions->len && !*ret_found; i++) {
        const DiskPartition *part = &g_array_index(partitions, DiskPartition, i);
        g_autoptr(StoreWriter) writer = NULL;
        g_autoptr(MapWriter) space = NULL;
        g_autoptr(Tree) tree = NULL;

        if (strcmp(part->fs, "ext4") != 0)
            continue;
        if (part->unclean) {
            log_verbose("partition %u was not unmounted cleanly; its journal is replayed in the guest", part->number);
            continue;
        }
        if (!store_writer_open(context->store, BLOCK_PRIVATE, &writer, error) ||
            !tree_read_ext4(context->store, disk, part->offset, part->size, writer, NULL, &tree, &space, error))
            return fail_prefix(error, "partition %u", part->number);
        if (!is_root(tree))
            continue;
        if (!store_writer_commit(writer, error) || !tree_stored_result(context->store, tree, space, ret, error))
            return false;
        tree_digest(tree, ret_content);
        *ret_found = true;
    }
    return true;
}

/* A larger disk is the image with zeroes behind it. */
static bool grow(const SourceContext *context, StoreMap *disk, uint64_t size, Digest *ret_map, GError **error)
{
    g_autofree char *now = units_format_size(store_map_size(disk)), *wanted = units_format_size(size);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    if (size < store_map_size(disk))
        return fail(error, "the disk image is %s large; size may not be smaller than that, but says %s", now, wanted);
    log_warning("the disk grows from %s to %s; its partitions keep their sizes in this version", now, wanted);
    if (!store_writer_open(context->store, BLOCK_PRIVATE, &writer, error) ||
        !map_writer_new(writer, size, disk, &map, error) || !map_writer_finish(map, error) ||
        !store_writer_commit(writer, error))
        return false;
    map_writer_result(map, &result);
    *ret_map = result.digest;
    return true;
}

bool source_disk_first_state(const SourceContext *context, const Digest *map, uint64_t size, SourceState *state, GError **error)
{
    g_autoptr(StoreMap) disk = NULL;
    bool found;

    state->map = *map;
    if (!store_map_open(context->store, map, &disk, error) ||
        !read_root(context, disk, &state->tree, &state->content, &found, error))
        return false;
    if (!found && !store_map_content(disk, &state->content, error))
        return false;
    state->size = store_map_size(disk);
    if (size != 0 && size != state->size) {
        if (!grow(context, disk, size, &state->map, error))
            return false;
        state->size = size;
    }
    return true;
}

static bool disk_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret,
                         GError **error)
{
    uint64_t size = (uint64_t)json_integer_value(json_object_get(identity, "size"));
    const char *file_text = text_of(identity, "sha256");
    SourceState state = {.layout = LAYOUT_INPLACE, .epoch = context->epoch >= 0 ? context->epoch : 0};
    bool known;
    Digest file, map;

    if (source_image_ref(args))
        return source_image_prepare(context, identity, ret, error);
    if (!file_text || !digest_parse(file_text, &file) || !imported(context, &file, &map, &known, error))
        return false;
    if (!known && !import_again(context, args, &file, &map, error))
        return false;
    if (!source_disk_first_state(context, &map, size, &state, error))
        return fail_prefix(error, "disk image '%s'", text_of(args, "from"));
    state.info = json_pack("{s{ss}}", "disk", "sha256", file_text);
    *ret = state;
    return true;
}

const SourceOps source_disk_ops = {
    .type = "disk",
    .arguments = disk_arguments,
    .check = disk_check,
    .identify = disk_identify,
    .prepare = disk_prepare,
    .default_output = "disk",
};
