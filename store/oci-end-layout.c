/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OCI layout as an end: a folder, or an archive, which is read where it lies and written from a folder in the store's tmp.
 *
 * What is read is held against its digest while it is copied; nothing is opened but index.json and blobs/sha256/<hex>, never through a symbolic link.
 */
#include "store/oci-end.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/export-path.h"
#include "store/tar-header.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMBERS_MAX 65536
#define COPY_PIECE (1u << 20)
#define LAYOUT_TEXT "{\"imageLayoutVersion\":\"1.0.0\"}"
#define REF_NAME "org.opencontainers.image.ref.name"

typedef struct LayoutEnd {
    Store *store;
    char *path, *tag, *archive; /* @archive: the file that becomes of the folder @path */
    int fd;                     /* the folder, or the archive that is read */
    GPtrArray *members;         /* of TarMember*, of an archive that is read */
    json_t *added;              /* descriptors for index.json */
    bool intake;
} LayoutEnd;

/* --- reading --- */

/* The last of a name counts, as for whoever unpacks the archive. */
static const TarMember *find_member(const LayoutEnd *e, const char *name)
{
    for (guint i = e->members->len; i-- > 0;)
        if (strcmp(((TarMember *)e->members->pdata[i])->name, name) == 0)
            return e->members->pdata[i];
    return NULL;
}

static int open_folder(const LayoutEnd *e, bool blobs)
{
    auto_fd int above = blobs ? openat(e->fd, "blobs", O_RDONLY | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC) : -1;

    return !blobs ? fcntl(e->fd, F_DUPFD_CLOEXEC, 3) : above < 0 ? -1 : openat(above, "sha256", O_RDONLY | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
}

static bool open_file(const LayoutEnd *e, bool blob, const char *name, int *ret_fd, uint64_t *ret_size)
{
    auto_fd int at = open_folder(e, blob);
    auto_fd int fd = at < 0 ? -1 : openat(at, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    *ret_size = (uint64_t)st.st_size;
    *ret_fd = g_steal_fd(&fd);
    return true;
}

/* A blob by its digest, or another file of the layout. */
static bool open_in(const LayoutEnd *e, bool blob, const char *name, int *ret_fd, uint64_t *ret_offset, uint64_t *ret_size, GError **error)
{
    g_autofree char *whole = g_strconcat(blob ? "blobs/sha256/" : "", name, NULL);
    const TarMember *member = e->members ? find_member(e, whole) : NULL;

    if (member) {
        *ret_offset = member->offset;
        *ret_size = member->size;
        *ret_fd = fcntl(e->fd, F_DUPFD_CLOEXEC, 3);
        return *ret_fd >= 0 || fail_errno(error, "read '%s'", e->path);
    }
    *ret_offset = 0;
    return (!e->members && open_file(e, blob, name, ret_fd, ret_size)) ||
           fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' is no OCI image, or not whole: %s is missing", e->path, name);
}

static bool load(const LayoutEnd *e, bool blob, const char *name, GBytes **ret, GError **error)
{
    auto_fd int fd = -1;
    uint64_t offset, size;
    char *data;

    if (!open_in(e, blob, name, &fd, &offset, &size, error))
        return false;
    if (size > REGISTRY_MANIFEST_MAX)
        return fail(error, "'%s' in '%s' is larger than 4 MiB", name, e->path);
    data = g_malloc(size + 1);
    data[size] = '\0';
    if (!file_pread_full(fd, data, size, offset, e->path, error)) {
        g_free(data);
        return false;
    }
    *ret = g_bytes_new_take(data, size);
    return true;
}

static bool load_index(const LayoutEnd *e, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    return load(e, false, "index.json", &bytes, error) &&
           (json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "index.json", ret, error) || fail_prefix(error, "'%s'", e->path));
}

/* With a tag the one that has it; without, the only one that is there for itself. */
static bool find_top(const LayoutEnd *e, Digest *ret, GError **error)
{
    g_autoptr(json_t) index = NULL;
    json_t *item;
    unsigned found = 0;
    uint64_t size;
    size_t i;

    if (!load_index(e, &index, error))
        return false;
    json_array_foreach(json_object_get(index, "manifests"), i, item)
    {
        const char *name = json_text(json_object_get(item, "annotations"), REF_NAME);

        if (e->tag ? strcmp(name, e->tag) != 0 : json_object_get(item, "artifactType") != NULL && !*name)
            continue;
        if (!oci_read_descriptor(item, ret, &size, error))
            return fail_prefix(error, "'%s'", e->path);
        found++;
    }
    if (found == 0)
        return e->tag ? fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' has no image with the tag '%s'", e->path, e->tag) : fail(error, "'%s' holds no image", e->path);
    return found == 1 || e->tag || fail_code(error, KILN_ERROR_USAGE, "'%s' holds %u images: say which, as in oci:DIR:TAG", e->path, found);
}

/* The index says types; so do most documents themselves. */
static char *type_of(const json_t *document)
{
    const char *type = json_text(document, "mediaType");

    return g_strdup(*type ? type : json_object_get(document, "manifests") ? OCI_INDEX_TYPE : OCI_MANIFEST_TYPE);
}

static bool get_manifest(void *end, const char *version, GBytes **ret, char **ret_type, Digest *ret_digest, GError **error)
{
    LayoutEnd *e = end;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) document = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest have;

    if (version ? !digest_parse(version, ret_digest) : !find_top(e, ret_digest, error))
        return version ? fail(error, "'%s' is no digest", version) : false;
    if (!load(e, true, digest_to_hex(ret_digest, hex), &bytes, error))
        return false;
    digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &have);
    if (!digest_equal(&have, ret_digest))
        return fail(error, "'%s' is damaged: a manifest does not have the digest it is named by", e->path);
    if (!json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "a manifest", &document, error))
        return fail_prefix(error, "'%s'", e->path);
    *ret_type = type_of(document);
    *ret = g_steal_pointer(&bytes);
    return true;
}

/* From @offset of @in to the start of @out, with the digest on the way. */
static bool copy_verified(int in, uint64_t offset, int out, const Digest *digest, uint64_t size, const char *what, Progress *progress, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autofree uint8_t *buf = g_malloc(COPY_PIECE);
    Digest have;

    for (uint64_t at = 0; at < size;) {
        size_t n = (size_t)MIN(COPY_PIECE, size - at);

        if (!file_pread_full(in, buf, n, offset + at, what, error) || !file_pwrite_full(out, buf, n, at, "a copied blob", error))
            return false;
        digest_stream_update(stream, buf, n);
        at += n;
        progress_add(progress, n);
    }
    digest_stream_final(stream, &have);
    return digest_equal(&have, digest) || fail(error, "'%s' is damaged: a blob does not have the digest it is named by", what);
}

static bool get_blob(void *end, const Digest *digest, uint64_t size, int fd, uint64_t have, Progress *progress, GError **error)
{
    LayoutEnd *e = end;
    char hex[DIGEST_HEX_SIZE];
    uint64_t offset, there;
    auto_fd int from = -1;

    if (!open_in(e, true, digest_to_hex(digest, hex), &from, &offset, &there, error))
        return false;
    if (there != size)
        return fail(error, "'%s' is damaged: a blob is not as long as its manifest says", e->path);
    return (ftruncate(fd, 0) == 0 || fail_errno(error, "empty a temporary file")) && copy_verified(from, offset, fd, digest, size, e->path, progress, error);
}

/* In a layout there are as many lists of them as manifests: whoever has a subject. */
static bool referrers(void *end, const Digest *subject, json_t **ret, GError **error)
{
    LayoutEnd *e = end;
    g_autoptr(json_t) index = NULL, list = json_array();
    char oci[DIGEST_OCI_SIZE];
    json_t *item;
    size_t i;

    if (!load_index(e, &index, error))
        return false;
    json_array_foreach(json_object_get(index, "manifests"), i, item)
    {
        g_autoptr(GBytes) bytes = NULL;
        g_autoptr(json_t) document = NULL;
        g_autofree char *type = NULL;
        Digest digest;

        if (!json_object_get(item, "artifactType") || !get_manifest(e, json_text(item, "digest"), &bytes, &type, &digest, NULL) ||
            !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "a manifest", &document, NULL))
            continue;
        if (strcmp(json_text(json_object_get(document, "subject"), "digest"), digest_to_oci(subject, oci)) == 0)
            json_array_append(list, item);
    }
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- writing --- */

static char *blob_name(const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strconcat("blobs/sha256/", digest_to_hex(digest, hex), NULL);
}

static bool has_blob(void *end, const Digest *digest, bool *ret, GError **error)
{
    LayoutEnd *e = end;
    g_autofree char *name = blob_name(digest);

    *ret = (e->intake && store_blob_has(e->store, digest)) || faccessat(e->fd, name, F_OK, 0) == 0;
    return true;
}

static bool put_file(LayoutEnd *e, const Digest *digest, int from, uint64_t size, Progress *progress, GError **error)
{
    g_autofree char *name = blob_name(digest), *part = g_strconcat(name, ".part", NULL);
    auto_fd int fd = openat(e->fd, part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);

    if (fd < 0)
        return fail_errno(error, "write into '%s'", e->path);
    if (!copy_verified(from, 0, fd, digest, size, e->path, progress, error))
        return false;
    return (e->intake || fdatasync(fd) == 0) && renameat(e->fd, part, e->fd, name) == 0 ? true : fail_errno(error, "write into '%s'", e->path);
}

static bool put_blob(void *end, const Digest *digest, uint64_t size, int fd, Progress *progress, uint64_t *ret_sent, GError **error)
{
    LayoutEnd *e = end;

    *ret_sent = size;
    return put_file(e, digest, fd, size, progress, error);
}

static json_t *describe(const LayoutEnd *e, GBytes *manifest, const char *type, const Digest *digest, bool top)
{
    char oci[DIGEST_OCI_SIZE];
    g_autoptr(json_t) document = NULL;
    json_t *descriptor = json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", digest_to_oci(digest, oci), "size", (json_int_t)g_bytes_get_size(manifest));

    if (top && e->tag)
        json_object_set_new(descriptor, "annotations", json_pack("{s:s}", REF_NAME, e->tag));
    if (json_parse(g_bytes_get_data(manifest, NULL), g_bytes_get_size(manifest), REGISTRY_MANIFEST_MAX, "a manifest", &document, NULL) &&
        json_object_get(document, "artifactType"))
        json_object_set(descriptor, "artifactType", json_object_get(document, "artifactType"));
    return descriptor;
}

/* Children of an index need not be listed; what refers to others must be, or nobody finds it. */
static bool put_manifest(void *end, GBytes *manifest, const char *type, const Digest *digest, bool top, bool *ret_subject, GError **error)
{
    LayoutEnd *e = end;
    g_autofree char *name = blob_name(digest);
    json_t *descriptor;

    if (!file_replace(e->fd, name, g_bytes_get_data(manifest, NULL), g_bytes_get_size(manifest), 0644, e->intake ? FILE_SYNC_NO : FILE_SYNC_YES, error))
        return fail_prefix(error, "'%s'", e->path);
    descriptor = describe(e, manifest, type, digest, top);
    if (top || json_object_get(descriptor, "artifactType"))
        json_array_append(e->added, descriptor);
    json_decref(descriptor);
    *ret_subject = true;
    return true;
}

static bool same_entry(const json_t *a, const json_t *b)
{
    const char *tag = json_text(json_object_get(a, "annotations"), REF_NAME);

    if (*tag)
        return strcmp(tag, json_text(json_object_get(b, "annotations"), REF_NAME)) == 0;
    return strcmp(json_text(a, "digest"), json_text(b, "digest")) == 0 && !*json_text(json_object_get(b, "annotations"), REF_NAME);
}

static bool write_index(LayoutEnd *e, GError **error)
{
    g_autoptr(json_t) index = NULL;
    g_autofree char *text = NULL;
    json_t *list, *added;
    size_t i;

    if (!load_index(e, &index, NULL) || !json_is_array(json_object_get(index, "manifests"))) {
        json_decref(index);
        index = json_pack("{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", OCI_INDEX_TYPE, "manifests");
    }
    list = json_object_get(index, "manifests");
    json_array_foreach(e->added, i, added)
    {
        for (size_t k = json_array_size(list); k-- > 0;)
            if (same_entry(added, json_array_get(list, k)))
                (void)json_array_remove(list, k);
        json_array_append(list, added);
    }
    text = json_canonical(index);
    return file_replace(e->fd, "index.json", text, strlen(text), 0644, e->intake ? FILE_SYNC_NO : FILE_SYNC_YES, error);
}

/* --- an archive of it --- */

static bool put_member(int out, int folder, const char *name, GError **error)
{
    static const char zeroes[TAR_BLOCK];
    auto_fd int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    g_autoptr(GByteArray) header = g_byte_array_new();
    struct stat st;
    TreeEntry entry = {.path = (char *)name, .type = 'f', .mode = 0644};

    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "read '%s'", name);
    entry.size = (uint64_t)st.st_size;
    return tar_header_append(header, &entry, error) && file_write_full(out, header->data, header->len, "OCI archive", error) &&
           file_copy_stream(fd, out, entry.size, "OCI archive", error) && file_write_full(out, zeroes, tar_padding(entry.size), "OCI archive", error);
}

static int compare_text(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool write_archive(int out, void *arg, GError **error)
{
    static const char zeroes[TAR_END_SIZE];
    LayoutEnd *e = arg;
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    auto_dir DIR *dir = fdopendir(openat(e->fd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            g_ptr_array_add(names, g_strconcat("blobs/sha256/", entry->d_name, NULL));
    g_ptr_array_sort(names, compare_text);
    g_ptr_array_insert(names, 0, g_strdup("oci-layout"));
    g_ptr_array_insert(names, 1, g_strdup("index.json"));
    for (guint i = 0; i < names->len; i++)
        if (!put_member(out, e->fd, names->pdata[i], error))
            return false;
    return file_write_full(out, zeroes, sizeof zeroes, "OCI archive", error);
}

static bool finish(void *end, GError **error)
{
    LayoutEnd *e = end;
    auto_fd int blobs = openat(e->fd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (!e->intake && (blobs < 0 || fsync(blobs) < 0))
        return fail_errno(error, "sync '%s'", e->path);
    return write_index(e, error) && (!e->archive || export_to_path(e->archive, write_archive, e, error));
}

static void close_end(void *end)
{
    LayoutEnd *e = end;

    scope_close_fd(&e->fd);
    if (e->archive)
        (void)file_remove_tree(AT_FDCWD, e->path, NULL);
    g_clear_pointer(&e->members, g_ptr_array_unref);
    json_decref(e->added);
    g_free(e->path);
    g_free(e->tag);
    g_free(e->archive);
    g_free(e);
}

static const OciEndOps layout_end_ops = {
    .name = "oci",
    .get_manifest = get_manifest,
    .get_blob = get_blob,
    .has_blob = has_blob,
    .put_blob = put_blob,
    .put_manifest = put_manifest,
    .referrers = referrers,
    .finish = finish,
    .close = close_end,
};

static bool open_for_reading(LayoutEnd *e, OciForm form, GError **error)
{
    struct stat st;

    e->fd = open(e->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (e->fd < 0 || fstat(e->fd, &st) < 0)
        return fail_errno(error, "open '%s'", e->path);
    if (form == OCI_DIR)
        return S_ISDIR(st.st_mode) || fail(error, "'%s' is no folder; an archive is named oci-archive:FILE", e->path);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' is no file; a folder is named oci:DIR", e->path);
    return tar_list(e->fd, MEMBERS_MAX, e->path, &e->members, error);
}

/* A folder that is neither new, empty nor a layout is left alone. */
static bool check_folder(const char *path, GError **error)
{
    g_autofree char *marker = g_build_filename(path, "oci-layout", NULL);
    auto_dir DIR *dir = opendir(path);
    const struct dirent *entry;

    if (!dir || access(marker, F_OK) == 0)
        return true;
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return fail(error, "'%s' is there already and is no OCI layout; it is left as it is", path);
    return true;
}

static bool open_for_writing(LayoutEnd *e, GError **error)
{
    g_autofree char *blobs = g_build_filename(e->path, "blobs", "sha256", NULL);

    if (!check_folder(e->path, error) || !file_make_dirs(blobs, 0755, error))
        return false;
    e->fd = open(e->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (e->fd < 0)
        return fail_errno(error, "open '%s'", e->path);
    return file_replace(e->fd, "oci-layout", LAYOUT_TEXT, strlen(LAYOUT_TEXT), 0644, e->intake ? FILE_SYNC_NO : FILE_SYNC_YES, error);
}

static LayoutEnd *layout_new(Store *store, const char *tag)
{
    LayoutEnd *e = g_new0(LayoutEnd, 1);

    e->store = store;
    e->fd = -1;
    e->tag = g_strdup(tag);
    e->added = json_array();
    return e;
}

bool oci_end_layout(Store *store, OciForm form, const char *path, const char *tag, bool write, OciEnd **ret, GError **error)
{
    g_autoptr(OciEnd) end = oci_end_new(&layout_end_ops, layout_new(store, tag));
    LayoutEnd *e = end->data;
    bool ok = true;

    if (write && form == OCI_ARCHIVE) {
        ok = store_make_tmpdir(store, &e->path, error);
        e->archive = ok ? g_strdup(path) : NULL;
    } else {
        e->path = g_strdup(path);
    }
    ok = ok && (write ? open_for_writing(e, error) : open_for_reading(e, form, error));
    if (ok)
        *ret = g_steal_pointer(&end);
    return ok;
}

bool oci_end_intake(Store *store, const char *path, OciEnd **ret, GError **error)
{
    g_autoptr(OciEnd) end = oci_end_new(&layout_end_ops, layout_new(store, NULL));
    LayoutEnd *e = end->data;

    e->path = g_strdup(path);
    e->intake = true;
    if (!open_for_writing(e, error))
        return false;
    *ret = g_steal_pointer(&end);
    return true;
}
