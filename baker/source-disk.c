/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk source: a vendor's image as it is, with its own partitions and boot loader.
 *
 *   path or URL -> file -> SHA-256 checked -> private map in the store, remembered by the file's digest
 *
 * A download goes on where an earlier run stopped. Once imported the file is not kept a second time: the store answers
 * for the digest from then on. A URL with a checksum is looked up in the store first and needs no network at all when
 * it is there; one with checksum "none" is asked at every bake whether it has changed. In a registry the disk is a layer, and its digest the file's.
 */
#include "baker/disk-grow.h"
#include "baker/source-checksum.h"
#include "baker/source-common.h"
#include "baker/source-image.h"
#include "baker/transfer.h"

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

static bool is_registry(const char *from)
{
    return g_str_has_prefix(from, REGISTRY_SCHEME);
}

static bool parse_checksum(const json_t *args, SourceChecksum *ret, GError **error)
{
    const char *from = text_of(args, "from"), *checksum = text_of(args, "checksum");

    *ret = (SourceChecksum){0};
    if (from && is_registry(from))
        return !checksum || fail_code(error, KILN_ERROR_USAGE, "a disk in a registry is pinned by its digest, as in docker://HOST/REPOSITORY@sha256:..., and has no checksum");
    if (!checksum && from && is_url(from))
        return fail_code(error, KILN_ERROR_USAGE, "a download needs a checksum: \"sha256:...\", or \"none\" to trust the server");
    if (!checksum || strcmp(checksum, "none") == 0)
        return true;
    if (digest_parse(checksum, &ret->digest))
        return source_checksum_parse(checksum, ret, error);
    return fail_code(error, KILN_ERROR_USAGE, "checksum '%s' is neither \"sha256:\" with 64 hex digits nor \"none\"", checksum);
}

static bool disk_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    const char *from;
    SourceChecksum checksum;
    uint64_t size;

    if (!source_check_strings(args, string_arguments, ret_argument, error) ||
        !source_size_argument(args, NULL, &size, ret_argument, error))
        return false;
    from = text_of(args, "from");
    if (!from || !*from)
        return fail_code(error, KILN_ERROR_USAGE, "a disk source needs from, a path or URL of a disk image, or docker://HOST/REPOSITORY:TAG");
    if (source_image_ref(args))
        return source_image_check(args, ret_argument, error);
    *ret_argument = "from";
    if (is_registry(from) && !registry_ref_parse(from, &ref, error))
        return false;
    if (is_url(from) && !is_registry(from) && !g_str_has_prefix(from, "http://") && !g_str_has_prefix(from, "https://") &&
        !g_str_has_prefix(from, "file://"))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no http, https or file URL", from);
    *ret_argument = "checksum";
    return parse_checksum(args, &checksum, error);
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

/* What is known of an unpinned URL, and what its server says to that. */
typedef struct Last {
    Digest digest;
    const char *etag; /* NULL: fetch it in any case */
    bool unchanged;
    char *new_etag;
} Last;

/* @last may be NULL. *ret_path stays NULL when nothing is new. */
static bool download(const SourceContext *context, const char *url, const SourceChecksum *wanted, Last *last, char **ret_path,
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
    if (last) {
        request.etag = last->etag;
        request.ret_unchanged = &last->unchanged;
        request.ret_etag = &last->new_etag;
    }
    if (!http_download(&request, dirfd, name, error))
        return false;
    if (last && last->unchanged) {
        *ret_digest = last->digest;
        return true;
    }
    if (!digest_of_file(dirfd, name, ret_digest, &size, error))
        return false;
    if (!source_checksum_matches(wanted, url, path, ret_digest, error)) {
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

/* The file that had this sum when it was last seen. */
static char *sum_key(const SourceChecksum *wanted)
{
    return g_strdup_printf("sum:%s:%s", wanted->type, wanted->hex);
}

static bool known_by_sum(const SourceContext *context, const SourceChecksum *wanted, Digest *ret, bool *ret_known, GError **error)
{
    g_autofree char *key = wanted->is_sha256 ? NULL : sum_key(wanted), *value = NULL;
    Digest map;

    *ret = wanted->digest;
    *ret_known = false;
    if (key && !store_memo_get(context->store, key, &value, error))
        return false;
    if (key && !(value && digest_parse(value, ret)))
        return true;
    return imported(context, ret, &map, ret_known, error);
}

static bool remember_sum(const SourceContext *context, const SourceChecksum *wanted, const Digest *file, GError **error)
{
    g_autofree char *key = wanted->given && !wanted->is_sha256 ? sum_key(wanted) : NULL;
    char hex[DIGEST_HEX_SIZE];

    return !key || store_memo_put(context->store, key, digest_to_hex(file, hex), NULL, NULL, error);
}

/* A URL: the digest of what it gives, imported at once so that no second copy stays. */
static bool identify_url(const SourceContext *context, const char *url, const SourceChecksum *wanted, Last *last, Digest *ret, GError **error)
{
    g_autofree char *path = NULL;
    bool known = false, ok;
    Digest map;

    if (wanted->given && !known_by_sum(context, wanted, ret, &known, error))
        return false;
    if (known)
        return true;
    if (!download(context, url, wanted, last, &path, ret, error))
        return false;
    if (!path)
        return true;
    ok = imported(context, ret, &map, &known, error) && (known || import_file(context, path, url, ret, &map, error)) &&
         remember_sum(context, wanted, ret, error);
    download_forget(path); /* imported, or no disk image: in neither case worth its space */
    return ok;
}

/* What is known of the URL, as far as the store still has what it gave. */
static bool find_last(const SourceContext *context, const json_t *memo, Last *ret, GError **error)
{
    const char *etag = memo ? text_of(memo, "etag") : NULL;
    bool known = false;
    Digest map;

    if (memo && context->pull != PULL_ALWAYS && digest_parse(json_text(memo, "sha256"), &ret->digest) && !imported(context, &ret->digest, &map, &known, error))
        return false;
    ret->etag = known && etag && !g_str_has_prefix(etag, "W/") ? etag : NULL; /* a weak one lets bytes differ */
    return true;
}

static bool ask_unpinned(const SourceContext *context, const char *url, const char *key, const json_t *memo, Digest *ret, GError **error)
{
    g_autoptr(json_t) now = NULL;
    g_autofree char *etag = NULL;
    char hex[DIGEST_HEX_SIZE];
    Last last = {.etag = NULL};
    bool ok = find_last(context, memo, &last, error) && identify_url(context, url, &(SourceChecksum){0}, &last, ret, error);

    etag = last.new_etag;
    if (!ok)
        return false;
    if (last.unchanged)
        log_verbose("'%s' has not changed", url);
    now = json_pack("{ss sI ss*}", "sha256", digest_to_hex(ret, hex), "fetched", (json_int_t)(g_get_real_time() / G_USEC_PER_SEC), "etag",
                    etag ? etag : last.unchanged ? last.etag : NULL);
    return source_memo_put(context->store, key, now, NULL, error);
}

/* The URL is asked whether it has changed, unless nothing is to be asked: then the last word on it counts. */
static bool identify_unpinned(const SourceContext *context, const char *url, Digest *ret, GError **error)
{
    g_autofree char *key = g_strconcat("url:", url, NULL), *age = NULL;
    g_autoptr(json_t) memo = NULL;

    if (!source_memo_get(context->store, key, &memo, error))
        return false;
    if (!source_keeps_still(context))
        return ask_unpinned(context, url, key, memo, ret, error);
    if (!memo || !digest_parse(json_text(memo, "sha256"), ret))
        return fail(error, "'%s' is not in the store yet, and %s forbids to fetch it", url, source_keeps_still(context));
    age = units_format_duration((double)g_get_real_time() / 1e6 - (double)json_integer_value(json_object_get(memo, "fetched")));
    log_info("%s: '%s' was fetched %s ago", context->offline ? "offline" : "not asked for", url, age);
    return true;
}

/* What a tag stands for is asked like a URL; what a digest stands for is remembered. */
static bool identify_in_registry(const SourceContext *context, const char *from, Digest *ret, GError **error)
{
    g_autofree char *key = g_strconcat("disk-registry:", from, NULL), *known = NULL;
    bool pinned = strchr(from, '@') != NULL;
    const char *still = source_keeps_still(context);
    char hex[DIGEST_HEX_SIZE];

    if (!store_memo_get(context->store, key, &known, error))
        return false;
    if (known && (still || pinned) && digest_parse(known, ret))
        return true;
    if (context->offline || (still && !pinned))
        return fail(error, "'%s' is not in the store yet, and %s forbids to fetch it", from, still);
    return transfer_resolve_disk(from, ret, error) && store_memo_put(context->store, key, digest_to_hex(ret, hex), NULL, NULL, error);
}

bool source_disk_identify(const SourceContext *context, const char *from, const SourceChecksum *wanted, Digest *ret, GError **error)
{
    g_autofree char *path = NULL;

    if (is_registry(from))
        return identify_in_registry(context, from, ret, error);
    if (is_url(from))
        return wanted->given ? identify_url(context, from, wanted, NULL, ret, error) : identify_unpinned(context, from, ret, error);
    path = source_find_file(context, from);
    return source_file_digest(context, path, ret, error) && source_checksum_matches(wanted, from, path, ret, error);
}

static bool disk_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    const char *argument;
    SourceChecksum wanted;
    Digest digest;
    uint64_t size;

    if (source_image_ref(args))
        return source_image_identify(context, args, ret_identity, error);
    if (!parse_checksum(args, &wanted, error) || !source_size_argument(args, NULL, &size, &argument, error) ||
        !source_disk_identify(context, text_of(args, "from"), &wanted, &digest, error))
        return false;
    *ret_identity = source_disk_identity("disk", &digest, size);
    return true;
}

typedef struct LayerImport {
    const SourceContext *context;
    const char *from;
    const Digest *layer;
    Digest *map;
} LayerImport;

static bool import_layer(const char *path, void *arg, GError **error)
{
    LayerImport *import = arg;

    return import_file(import->context, path, import->from, import->layer, import->map, error);
}

static bool import_from_registry(const SourceContext *context, const char *from, const Digest *layer, Digest *ret_map, GError **error)
{
    LayerImport import = {context, from, layer, ret_map};

    if (context->offline)
        return fail(error, "'%s' is not in the store yet, and --offline forbids to fetch it", from);
    return transfer_fetch_disk(context->store, from, layer, import_layer, &import, error);
}

/* The file again, for a store that forgot it; it must still be the identity's. */
static bool import_again(const SourceContext *context, const char *from, const Digest *file, Digest *ret_map, GError **error)
{
    g_autofree char *path = NULL;
    bool known = false;
    Digest now;

    if (is_registry(from))
        return import_from_registry(context, from, file, ret_map, error);
    if (is_url(from))
        return identify_url(context, from, &(SourceChecksum){.given = true, .is_sha256 = true, .digest = *file, .type = "sha256"}, NULL, &now, error) && imported(context, file, ret_map, &known, error) &&
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
static bool read_root(const SourceContext *context, StoreMap *disk, TreeStored *ret, Digest *ret_content, uint64_t *ret_offset, bool *ret_found,
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
        *ret_offset = part->offset;
        *ret_found = true;
    }
    return true;
}

static bool grow(const SourceContext *context, StoreMap *disk, uint64_t size, uint64_t root, Digest *ret_map, GError **error)
{
    g_autofree char *now = units_format_size(store_map_size(disk)), *wanted = units_format_size(size);

    if (size < store_map_size(disk))
        return fail(error, "the disk image is %s large; size may not be smaller than that, but says %s", now, wanted);
    return disk_grow(context->store, disk, size, root, ret_map, error);
}

bool source_disk_first_state(const SourceContext *context, const Digest *map, uint64_t size, SourceState *state, GError **error)
{
    g_autoptr(StoreMap) disk = NULL;
    uint64_t root = DISK_GROW_ROOT_UNKNOWN;
    bool found;

    state->map = *map;
    if (!store_map_open(context->store, map, &disk, error) ||
        !read_root(context, disk, &state->tree, &state->content, &root, &found, error))
        return false;
    if (!found && !store_map_content(disk, &state->content, error))
        return false;
    state->size = store_map_size(disk);
    if (size != 0 && size != state->size) {
        if (!grow(context, disk, size, root, &state->map, error))
            return false;
        state->size = size;
    }
    return true;
}

json_t *source_disk_identity(const char *type, const Digest *file, uint64_t size)
{
    char oci[DIGEST_OCI_SIZE];
    json_t *identity = json_pack("{ss ss sI}", "type", type, "sha256", digest_to_oci(file, oci), "size", (json_int_t)size);

    if (size)
        json_object_set_new(identity, "grown", json_integer(1)); /* how: disk-grow.h's way */
    return identity;
}

bool source_disk_prepare(const SourceContext *context, const char *from, const json_t *identity, SourceState *ret, GError **error)
{
    uint64_t size = (uint64_t)json_integer_value(json_object_get(identity, "size"));
    const char *file_text = text_of(identity, "sha256");
    SourceState state = {.layout = LAYOUT_INPLACE, .epoch = context->epoch >= 0 ? context->epoch : 0};
    bool known;
    Digest file, map;

    if (!file_text || !digest_parse(file_text, &file) || !imported(context, &file, &map, &known, error))
        return false;
    if (!known && !import_again(context, from, &file, &map, error))
        return false;
    if (!source_disk_first_state(context, &map, size, &state, error))
        return fail_prefix(error, "disk image '%s'", from);
    state.info = json_pack("{s{ss}}", "disk", "sha256", file_text);
    *ret = state;
    return true;
}

bool source_disk_import(const SourceContext *context, const char *from, const Digest *file, GError **error)
{
    bool known;
    Digest map;

    return imported(context, file, &map, &known, error) && (known || import_again(context, from, file, &map, error));
}

bool source_disk_size(const SourceContext *context, const Digest *file, uint64_t *ret, GError **error)
{
    g_autoptr(StoreMap) disk = NULL;
    bool known;
    Digest map;

    *ret = 0;
    if (!imported(context, file, &map, &known, error) || !known)
        return !known;
    if (!store_map_open(context->store, &map, &disk, error))
        return false;
    *ret = store_map_size(disk);
    return true;
}

static bool disk_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret, GError **error)
{
    return source_image_ref(args) ? source_image_prepare(context, identity, ret, error)
                                  : source_disk_prepare(context, text_of(args, "from"), identity, ret, error);
}

/* The file system of a root whose partition has grown. */
static bool disk_first_boot(const SourceContext *context, const json_t *args, json_t **ret, GError **error)
{
    *ret = json_object_get(args, "size") ? json_pack("{s:b}", "grow", true) : NULL;
    return true;
}

const SourceOps source_disk_ops = {
    .type = "disk",
    .arguments = disk_arguments,
    .check = disk_check,
    .identify = disk_identify,
    .prepare = disk_prepare,
    .first_boot = disk_first_boot,
    .default_output = "disk",
};
