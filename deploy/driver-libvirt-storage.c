/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on libvirt hosts. On a local host they are files in our folder (host-image.h); on a remote one they are volumes of a storage pool, written
 * and read through libvirt:
 *
 *   <hex>.<random>.raw   an image's disk, mode 0444
 *   <hex>.stamp          JSON: which of them is good, its bytes' digest, and path, capacity, mtime and ctime of it when they were last hashed
 *
 * Volumes cannot be renamed, so an upload has a name of its own until the stamp names it: one that broke off, or that another controller
 * was quicker than, is never taken for the image, and what instances run from is never written to. The pool is made, as a folder pool over the
 * image folder's path, where the host has none of that name.
 *
 * What is sent is hashed on the way against the image's config; before each create the volume's times are compared with the stamp, and when they differ it
 * is downloaded and hashed again. (Not its allocation: file systems change that by themselves.)
 */
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "deploy/driver-libvirt.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define STAMP_MAX 4096
#define COPY_PIECE ((uint64_t)1 << 20)

/* --- pools --- */

static bool make_pool(LvHost *host, virStoragePoolPtr *ret, GError **error)
{
    g_autofree char *xml = domain_pool_xml(host->config->pool, host->config->image_dir);
    auto_pool pool = virStoragePoolDefineXML(host->connection, xml, 0);

    if (!pool)
        return lv_fail(host, error, "make the storage pool '%s'", host->config->pool);
    if (virStoragePoolCreate(pool, VIR_STORAGE_POOL_CREATE_WITH_BUILD) < 0) {
        (void)lv_fail(host, error, "start the storage pool '%s' over %s", host->config->pool, host->config->image_dir);
        (void)virStoragePoolUndefine(pool);
        return false;
    }
    (void)virStoragePoolSetAutostart(pool, 1);
    *ret = g_steal_pointer(&pool);
    return true;
}

static bool open_pool(LvHost *host, virStoragePoolPtr *ret, GError **error)
{
    auto_pool pool = virStoragePoolLookupByName(host->connection, host->config->pool);

    if (!pool && virGetLastErrorCode() == VIR_ERR_NO_STORAGE_POOL)
        return make_pool(host, ret, error);
    if (!pool)
        return lv_fail(host, error, "open the storage pool '%s'", host->config->pool);
    if (virStoragePoolIsActive(pool) != 1 && virStoragePoolCreate(pool, 0) < 0)
        return lv_fail(host, error, "start the storage pool '%s'", host->config->pool);
    *ret = g_steal_pointer(&pool);
    return true;
}

/* What came or went behind libvirt's back is not known to it before a refresh. */
static virStorageVolPtr find_volume(virStoragePoolPtr pool, const char *name)
{
    virStorageVolPtr volume = virStorageVolLookupByName(pool, name);

    if (!volume && virStoragePoolRefresh(pool, 0) == 0)
        volume = virStorageVolLookupByName(pool, name);
    return volume;
}

static bool volume_stamp(LvHost *host, virStorageVolPtr volume, DomainVolumeStamp *ret, GError **error)
{
    auto_text *xml = virStorageVolGetXMLDesc(volume, 0);

    if (!xml)
        return lv_fail(host, error, "look at a volume");
    return domain_volume_stamp_parse(xml, ret) || fail(error, "%s describes a volume in a way that kiln does not understand", host->uri);
}

/* --- small volumes --- */

static bool send_all(LvHost *host, virStorageVolPtr volume, const char *data, size_t size, GError **error)
{
    auto_stream stream = virStreamNew(host->connection, 0);

    if (!stream || virStorageVolUpload(volume, stream, 0, size, 0) < 0)
        return lv_fail(host, error, "write a volume");
    for (size_t at = 0; at < size;) {
        int n = virStreamSend(stream, data + at, size - at);

        if (n <= 0)
            return lv_fail(host, error, "write a volume");
        at += (size_t)n;
    }
    return virStreamFinish(stream) == 0 || lv_fail(host, error, "write a volume");
}

static bool remove_volume(LvHost *host, virStoragePoolPtr pool, const char *name, GError **error)
{
    auto_vol volume = find_volume(pool, name);

    return !volume || virStorageVolDelete(volume, 0) == 0 || lv_fail(host, error, "remove the volume '%s'", name);
}

static bool put_volume(LvHost *host, virStoragePoolPtr pool, const char *name, const void *data, size_t size, unsigned mode, char **ret_path,
                       GError **error)
{
    g_autofree char *xml = domain_volume_xml(name, size, mode);
    auto_text *path = NULL;
    auto_vol volume = NULL;

    if (!remove_volume(host, pool, name, error))
        return false;
    volume = virStorageVolCreateXML(pool, xml, 0);
    if (!volume)
        return lv_fail(host, error, "make the volume '%s'", name);
    if (!send_all(host, volume, data, size, error)) {
        (void)virStorageVolDelete(volume, 0);
        return false;
    }
    path = virStorageVolGetPath(volume);
    if (!path || !domain_text_is_fit(path))
        return lv_fail(host, error, "find the path of the volume '%s'", name);
    if (ret_path)
        *ret_path = g_strdup(path);
    return true;
}

static bool load_volume(LvHost *host, virStorageVolPtr volume, char buffer[STAMP_MAX], size_t *ret_size, GError **error)
{
    auto_stream stream = virStreamNew(host->connection, 0);
    size_t got = 0;
    int n = -1;

    if (!stream || virStorageVolDownload(volume, stream, 0, STAMP_MAX, 0) < 0)
        return lv_fail(host, error, "read a volume");
    while (got < STAMP_MAX && (n = virStreamRecv(stream, buffer + got, STAMP_MAX - got)) > 0)
        got += (size_t)n;
    if (n < 0) {
        (void)virStreamAbort(stream);
        return lv_fail(host, error, "read a volume");
    }
    if (virStreamFinish(stream) < 0 && got < STAMP_MAX)
        return lv_fail(host, error, "read a volume");
    *ret_size = got;
    return true;
}

/* --- stamps of remote images --- */

static char *image_name(const Digest *id, const char *suffix)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf("%s.%s", digest_to_hex(id, hex), suffix);
}

/* NULL where there is none that can be read. */
static json_t *read_stamp(LvHost *host, virStoragePoolPtr pool, const HostImageWant *want)
{
    g_autofree char *name = image_name(&want->id, "stamp");
    auto_vol volume = find_volume(pool, name);
    char buffer[STAMP_MAX];
    size_t size = 0;
    json_t *stamp = NULL;

    if (!volume || !load_volume(host, volume, buffer, &size, NULL) || !json_parse(buffer, size, STAMP_MAX, name, &stamp, NULL))
        return NULL;
    return stamp;
}

static json_t *make_stamp(const HostImageWant *want, const char *volume, const DomainVolumeStamp *now)
{
    json_t *stamp = domain_volume_stamp_json(now);
    char hex[DIGEST_HEX_SIZE];

    (void)json_object_del(stamp, "allocation");
    json_object_set_new(stamp, "volume", json_string(volume));
    json_object_set_new(stamp, "content", json_string(digest_to_hex(&want->content, hex)));
    return stamp;
}

static bool write_stamp(LvHost *host, virStoragePoolPtr pool, const HostImageWant *want, const char *volume, const DomainVolumeStamp *now,
                        GError **error)
{
    g_autoptr(json_t) stamp = make_stamp(want, volume, now);
    g_autofree char *text = json_canonical(stamp), *name = image_name(&want->id, "stamp");

    return put_volume(host, pool, name, text, strlen(text), 0644, NULL, error);
}

typedef struct Receiving {
    ContentHash *hash;
    BoundedCall *call;
} Receiving;

static bool goes_on(BoundedCall *call)
{
    bounded_call_tick(call);
    return !interrupt_requested() && !bounded_call_given_up(call);
}

static int receive_data(virStreamPtr stream, const char *data, size_t size, void *arg)
{
    Receiving *receiving = arg;

    content_hash_data(receiving->hash, data, size);
    return goes_on(receiving->call) ? (int)size : -1;
}

static int receive_hole(virStreamPtr stream, long long size, void *arg)
{
    Receiving *receiving = arg;

    content_hash_hole(receiving->hash, (uint64_t)size);
    return goes_on(receiving->call) ? 0 : -1;
}

static bool download_and_compare(LvHost *host, virStorageVolPtr volume, const HostImageWant *want, BoundedCall *call, GError **error)
{
    auto_stream stream = virStreamNew(host->connection, 0);
    g_autoptr(ContentHash) hash = content_hash_new();
    Receiving receiving = {.hash = hash, .call = call};
    Digest content;
    uint64_t size;

    if (!stream || virStorageVolDownload(volume, stream, 0, 0, VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM) < 0 ||
        virStreamSparseRecvAll(stream, receive_data, receive_hole, &receiving) < 0 || virStreamFinish(stream) < 0)
        return interrupt_check(error) && lv_fail(host, error, "read the image's volume");
    content_hash_final(hash, &content, &size);
    if (size != want->size || !digest_equal(&content, &want->content))
        return fail(error, "the bytes of the image's volume on %s are not the image's", host->uri);
    return true;
}

/* The volume that the stamp names, whether its times fit or not. */
static virStorageVolPtr stamped_volume(virStoragePoolPtr pool, const json_t *stamp)
{
    const char *name = json_string_value(json_object_get(stamp, "volume"));

    return name && strlen(name) < 256 && domain_text_is_fit(name) ? find_volume(pool, name) : NULL;
}

static bool check_remote(LvHost *host, const HostImageWant *want, bool may_hash, BoundedCall *call, char **ret_path, GError **error)
{
    g_autoptr(json_t) stamp = NULL, fresh = NULL;
    const char *name;
    DomainVolumeStamp now, after;
    auto_pool pool = NULL;
    auto_vol volume = NULL;

    if (!open_pool(host, &pool, error))
        return false;
    stamp = read_stamp(host, pool, want);
    volume = stamped_volume(pool, stamp);
    if (!volume)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "the image is not in the storage pool '%s' of %s", host->config->pool, host->uri);
    if (!volume_stamp(host, volume, &now, error))
        return false;
    if (now.capacity != want->size || !domain_text_is_fit(now.path))
        return fail(error, "the image's volume on %s has %" G_GUINT64_FORMAT " bytes instead of %" G_GUINT64_FORMAT, host->uri, now.capacity,
                    want->size);
    name = json_string_value(json_object_get(stamp, "volume"));
    fresh = make_stamp(want, name, &now);
    if (!json_equal(stamp, fresh)) {
        if (!may_hash)
            return fail(error, "the image's volume on %s was touched", host->uri);
        trace("deploy.libvirt", "%s: the image's volume was touched, it is hashed again", host->uri);
        if (!download_and_compare(host, volume, want, call, error) || !volume_stamp(host, volume, &after, error))
            return false;
        if (strcmp(now.mtime, after.mtime) != 0 || strcmp(now.ctime, after.ctime) != 0)
            return fail(error, "the image's volume on %s was changed while it was read", host->uri);
        if (!write_stamp(host, pool, want, name, &after, error))
            return false;
    }
    *ret_path = g_strdup(now.path);
    return true;
}

static void tick_call(void *call)
{
    bounded_call_tick(call);
}

bool lv_image_check(LvHost *host, const HostImageWant *want, BoundedCall *call, char **ret_path, GError **error)
{
    HostKind kind;

    if (!lv_kind(host, &kind, error))
        return false;
    if (kind == HOST_REMOTE)
        return check_remote(host, want, true, call, ret_path, error);
    if (!host_image_check(host->config->image_dir, want, tick_call, call, error))
        return false;
    *ret_path = host_image_path(host->config->image_dir, &want->id);
    return true;
}

bool lv_image_is_there(LvHost *host, const HostImageWant *want)
{
    g_autofree char *path = NULL;
    HostKind kind;

    if (!lv_kind(host, &kind, NULL))
        return false;
    if (kind == HOST_REMOTE)
        return check_remote(host, want, false, NULL, &path, NULL);
    return host_image_stamp_fits(host->config->image_dir, want);
}

/* --- uploading --- */

typedef struct Sending {
    StoreMap *map;
    uint64_t at, size;
    ContentHash *hash;
    Progress *progress;
    BoundedCall *call;
    GError *error;
} Sending;

static void extent_at(const Sending *sending, uint64_t *ret_end, bool *ret_zero)
{
    store_map_extent(sending->map, sending->at, ret_end, ret_zero);
    *ret_end = MIN(*ret_end, sending->size);
}

static int send_data(virStreamPtr stream, char *buffer, size_t size, void *arg)
{
    Sending *sending = arg;
    uint64_t end;
    bool zero;

    if (sending->at >= sending->size)
        return 0;
    extent_at(sending, &end, &zero);
    size = (size_t)MIN(size, end - sending->at);
    if (!goes_on(sending->call) || !store_map_pread(sending->map, buffer, size, sending->at, &sending->error))
        return -1;
    content_hash_data(sending->hash, buffer, size);
    progress_add(sending->progress, size);
    sending->at += size;
    return (int)size;
}

/* libvirt asks where it is, and then skips holes by send_skip. */
static int send_hole(virStreamPtr stream, int *in_data, long long *length, void *arg)
{
    Sending *sending = arg;
    uint64_t end;
    bool zero;

    *in_data = 0;
    *length = 0;
    if (sending->at >= sending->size)
        return 0;
    extent_at(sending, &end, &zero);
    *in_data = zero ? 0 : 1;
    *length = (long long)(end - sending->at);
    return 0;
}

static int send_skip(virStreamPtr stream, long long length, void *arg)
{
    Sending *sending = arg;

    content_hash_hole(sending->hash, (uint64_t)length);
    sending->at += (uint64_t)length;
    return goes_on(sending->call) ? 0 : -1;
}

static bool send_disk(LvHost *host, virStorageVolPtr volume, const HostImageWant *want, StoreMap *map, BoundedCall *call, GError **error)
{
    g_autofree char *title = g_strdup_printf("image to %s", host->uri);
    g_autoptr(Progress) progress = progress_new(title, store_map_data_size(map), true);
    g_autoptr(ContentHash) hash = content_hash_new();
    Sending sending = {.map = map, .size = store_map_size(map), .hash = hash, .progress = progress, .call = call};
    auto_stream stream = virStreamNew(host->connection, 0);
    Digest content;
    uint64_t size;

    if (!stream || virStorageVolUpload(volume, stream, 0, 0, VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM) < 0)
        return lv_fail(host, error, "send the image");
    if (virStreamSparseSendAll(stream, send_data, send_hole, send_skip, &sending) < 0) {
        if (sending.error)
            g_propagate_error(error, sending.error);
        return sending.error || !interrupt_check(error) ? false : lv_fail(host, error, "send the image");
    }
    if (virStreamFinish(stream) < 0)
        return lv_fail(host, error, "send the image");
    content_hash_final(hash, &content, &size);
    if (size != want->size || !digest_equal(&content, &want->content))
        return fail(error, "what the store holds for the image is not what its config says; run `kiln fsck`");
    progress_done(progress);
    return true;
}

static bool upload_into(LvHost *host, virStoragePoolPtr pool, const char *name, const HostImageWant *want, StoreMap *map, BoundedCall *call,
                        GError **error)
{
    g_autofree char *xml = domain_volume_xml(name, want->size, 0444);
    auto_vol volume = virStorageVolCreateXML(pool, xml, 0);
    DomainVolumeStamp now;

    if (!volume)
        return lv_fail(host, error, "make a volume for the image in the storage pool '%s'", host->config->pool);
    if (send_disk(host, volume, want, map, call, error) && volume_stamp(host, volume, &now, error) &&
        write_stamp(host, pool, want, name, &now, error))
        return true;
    (void)virStorageVolDelete(volume, 0); /* half-written, or nobody would know it */
    return false;
}

bool lv_image_upload(LvHost *host, const HostImageWant *want, StoreMap *map, BoundedCall *call, GError **error)
{
    g_autofree char *suffix = g_strdup_printf("%08x.raw", g_random_int());
    g_autofree char *name = image_name(&want->id, suffix), *path = NULL;
    g_autoptr(GError) why = NULL;
    auto_pool pool = NULL;

    if (!lv_connect(host, error) || !open_pool(host, &pool, error))
        return false;
    if (check_remote(host, want, true, call, &path, &why))
        return true;
    if (!g_error_matches(why, KILN_ERROR, KILN_ERROR_NOT_FOUND))
        log_warning("%s; it is sent again", why->message);
    return upload_into(host, pool, name, want, map, call, error);
}

/* --- seeds --- */

bool lv_file_put(LvHost *host, const char *name, const void *data, size_t size, char **ret_path, GError **error)
{
    auto_pool pool = NULL;
    auto_fd int dirfd = -1;

    if (host->kind == HOST_REMOTE)
        return open_pool(host, &pool, error) && put_volume(host, pool, name, data, size, 0600, ret_path, error);
    dirfd = open(host->config->image_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return fail_errno(error, "open the hosts' image folder '%s'", host->config->image_dir);
    if (!file_replace(dirfd, name, data, size, 0600, FILE_SYNC_NO, error))
        return false;
    *ret_path = g_build_filename(host->config->image_dir, name, NULL);
    return true;
}

bool lv_file_remove(LvHost *host, const char *name, GError **error)
{
    g_autofree char *path = g_build_filename(host->config->image_dir, name, NULL);
    auto_pool pool = NULL;

    if (host->kind != HOST_REMOTE)
        return unlink(path) == 0 || errno == ENOENT || fail_errno(error, "remove '%s'", path);
    pool = virStoragePoolLookupByName(host->connection, host->config->pool);
    return !pool || remove_volume(host, pool, name, error);
}

/* --- volumes that outlive instances --- */

static char *volume_file(const LvHost *host, const char *volume, uint32_t slot)
{
    return g_strdup_printf("%s.%s.%u.volume", host->config->group, volume, slot);
}

static bool make_local_volume(LvHost *host, const char *path, uint64_t size, GError **error)
{
    auto_fd int fd = -1;

    if (!file_make_dirs(host->config->volume_dir, 0711, error))
        return false;
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno == EEXIST || fail_errno(error, "make the volume '%s'", path);
    if (ftruncate(fd, (off_t)size) == 0 && fsync(fd) == 0)
        return true;
    (void)fail_errno(error, "make the volume '%s'", path);
    (void)unlink(path);
    return false;
}

static bool make_remote_volume(LvHost *host, const char *name, uint64_t size, char **ret_path, GError **error)
{
    g_autofree char *xml = domain_volume_xml(name, size, 0600);
    auto_text *path = NULL;
    auto_pool pool = NULL;
    auto_vol volume = NULL;

    if (!open_pool(host, &pool, error))
        return false;
    volume = find_volume(pool, name);
    if (!volume)
        volume = virStorageVolCreateXML(pool, xml, 0);
    path = volume ? virStorageVolGetPath(volume) : NULL;
    if (!path || !domain_text_is_fit(path))
        return lv_fail(host, error, "make the volume '%s'", name);
    *ret_path = g_strdup(path);
    return true;
}

bool lv_volume_make(LvHost *host, const char *volume, uint32_t slot, uint64_t size, char **ret_path, GError **error)
{
    g_autofree char *name = volume_file(host, volume, slot), *path = g_build_filename(host->config->volume_dir, name, NULL);

    if (host->kind == HOST_REMOTE)
        return make_remote_volume(host, name, size, ret_path, error);
    if (!make_local_volume(host, path, size, error))
        return false;
    *ret_path = g_steal_pointer(&path);
    return true;
}

static bool is_volume_of_group(const LvHost *host, const char *name)
{
    g_autofree char *prefix = g_strdup_printf("%s.", host->config->group);

    return g_str_has_prefix(name, prefix) && g_str_has_suffix(name, ".volume");
}

static bool remove_local_volumes(LvHost *host, GError **error)
{
    g_autoptr(GDir) dir = g_dir_open(host->config->volume_dir, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(host->config->volume_dir, name, NULL);

        if (is_volume_of_group(host, name) && unlink(path) < 0 && errno != ENOENT)
            return fail_errno(error, "remove the volume '%s'", path);
    }
    return true;
}

typedef bool EachVolume(LvHost *host, virStorageVolPtr volume, const char *name, void *arg, GError **error);

static bool each_volume(LvHost *host, EachVolume *fn, void *arg, GError **error)
{
    auto_pool pool = virStoragePoolLookupByName(host->connection, host->config->pool);
    virStorageVolPtr *volumes = NULL;
    bool ok = true;
    int count;

    if (!pool || virStoragePoolIsActive(pool) != 1)
        return true; /* nothing was ever brought there */
    (void)virStoragePoolRefresh(pool, 0);
    count = virStoragePoolListAllVolumes(pool, &volumes, 0);
    if (count < 0)
        return lv_fail(host, error, "list the storage pool '%s'", host->config->pool);
    for (int i = 0; i < count; i++) {
        const char *name = virStorageVolGetName(volumes[i]);

        ok = ok && (!name || fn(host, volumes[i], name, arg, error));
        (void)virStorageVolFree(volumes[i]);
    }
    free(volumes);
    return ok;
}

static bool remove_if_volume(LvHost *host, virStorageVolPtr volume, const char *name, void *arg, GError **error)
{
    return !is_volume_of_group(host, name) || virStorageVolDelete(volume, 0) == 0 || lv_fail(host, error, "remove the volume '%s'", name);
}

bool lv_volumes_remove(LvHost *host, GError **error)
{
    if (host->kind != HOST_REMOTE)
        return remove_local_volumes(host, error);
    return each_volume(host, remove_if_volume, NULL, error);
}

/* --- overlays --- */

static bool copy_range(int from, int to, uint64_t at, uint64_t end, BoundedCall *call, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(COPY_PIECE);

    while (at < end) {
        size_t n = (size_t)MIN(end - at, COPY_PIECE);

        if (!file_pread_full(from, buffer, n, at, "the overlay", error) || !file_pwrite_full(to, buffer, n, at, "the overlay's copy", error))
            return false;
        bounded_call_tick(call);
        at += n;
    }
    return true;
}

static bool copy_data(int from, int to, BoundedCall *call, GError **error)
{
    off_t size = lseek(from, 0, SEEK_END), at = 0, end;

    if (size < 0 || ftruncate(to, size) < 0)
        return fail_errno(error, "copy the overlay");
    while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
        end = lseek(from, at, SEEK_HOLE);
        if (end < 0 || !copy_range(from, to, (uint64_t)at, (uint64_t)end, call, error))
            return end >= 0 ? false : fail_errno(error, "copy the overlay");
        at = end;
    }
    return errno == ENXIO || fail_errno(error, "copy the overlay");
}

bool lv_overlay_copy(LvHost *host, const char *overlay, BoundedCall *call, int *ret_fd, GError **error)
{
    auto_fd int from = open(overlay, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    auto_fd int to = -1;

    if (from < 0)
        return fail_errno(error, "open '%s'", overlay);
    to = open(host->config->image_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); /* without a name: gone with us */
    if (to < 0)
        return fail_errno(error, "make a copy of '%s' in '%s'", overlay, host->config->image_dir);
    if (!copy_data(from, to, call, error))
        return false;
    *ret_fd = g_steal_fd(&to);
    return true;
}

/* --- what is not needed any more --- */

bool lv_overlay_remove(LvHost *host, const char *base, const char *name)
{
    g_autofree char *path = g_strdup_printf("%s.TRANSIENT-%s", base, name), *file = g_path_get_basename(path);
    auto_pool pool = NULL;
    auto_vol volume = NULL;

    if (host->kind != HOST_REMOTE)
        return unlink(path) == 0;
    pool = virStoragePoolLookupByName(host->connection, host->config->pool);
    volume = pool ? find_volume(pool, file) : NULL;
    return volume && virStorageVolDelete(volume, 0) == 0;
}

/* "BASE.TRANSIENT-NAME" or "NAME.seed.iso" of an instance of the group that is in nobody's list. */
static bool is_left_over(const LvHost *host, const char *file, GHashTable *names)
{
    const char *overlay = strstr(file, ".TRANSIENT-");
    g_autofree char *name = NULL;
    InstanceId id;

    if (overlay)
        name = g_strdup(overlay + strlen(".TRANSIENT-"));
    else if (g_str_has_suffix(file, ".seed.iso"))
        name = g_strndup(file, strlen(file) - strlen(".seed.iso"));
    return name && instance_name_parse(name, &id) && g_str_equal(id.group, host->config->group) && !g_hash_table_contains(names, name);
}

static bool sweep_volume(LvHost *host, virStorageVolPtr volume, const char *name, void *names, GError **error)
{
    if (is_left_over(host, name, names))
        (void)virStorageVolDelete(volume, 0);
    return true;
}

void lv_sweep(LvHost *host, GHashTable *names)
{
    g_autoptr(GDir) dir = host->kind != HOST_REMOTE ? g_dir_open(host->config->image_dir, 0, NULL) : NULL;
    const char *name;

    if (host->kind == HOST_REMOTE)
        (void)each_volume(host, sweep_volume, names, NULL);
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(host->config->image_dir, name, NULL);

        if (is_left_over(host, name, names))
            (void)unlink(path);
    }
}

typedef struct Forgetting {
    const GArray *keep;
    GHashTable *used;
} Forgetting;

static bool is_kept(const Digest *id, const GArray *keep)
{
    for (guint i = 0; i < keep->len; i++)
        if (digest_equal(&g_array_index(keep, Digest, i), id))
            return true;
    return false;
}

static bool forget_volume(LvHost *host, virStorageVolPtr volume, const char *name, void *arg, GError **error)
{
    const Forgetting *forgetting = arg;
    g_autofree char *hex = g_strndup(name, DIGEST_HEX_SIZE - 1);
    auto_text *path = virStorageVolGetPath(volume);
    Digest id;

    if (strlen(name) <= DIGEST_HEX_SIZE || name[DIGEST_HEX_SIZE - 1] != '.' || !digest_parse(hex, &id) || strstr(name, ".TRANSIENT-") ||
        is_kept(&id, forgetting->keep) || (path && g_hash_table_contains(forgetting->used, path)))
        return true;
    return virStorageVolDelete(volume, 0) == 0 || lv_fail(host, error, "remove the volume '%s'", name);
}

bool lv_images_forget(LvHost *host, const GArray *keep, GHashTable *used, GError **error)
{
    Forgetting forgetting = {.keep = keep, .used = used};
    HostKind kind;

    if (!lv_kind(host, &kind, error))
        return false;
    if (kind != HOST_REMOTE)
        return host_image_forget(host->config->image_dir, keep, used, error);
    return each_volume(host, forget_volume, &forgetting, error);
}

uint64_t lv_room(LvHost *host)
{
    g_autofree char *folder = g_strdup(host->config->image_dir);
    auto_pool pool = NULL;
    virStoragePoolInfo info;
    struct statvfs st;

    if (host->kind == HOST_REMOTE) {
        pool = virStoragePoolLookupByName(host->connection, host->config->pool);
        return pool && virStoragePoolGetInfo(pool, &info) == 0 ? info.available : 0;
    }
    while (statvfs(folder, &st) < 0 && strlen(folder) > 1) { /* it may not be there yet */
        char *parent = g_path_get_dirname(folder);

        g_free(folder);
        folder = parent;
    }
    return statvfs(folder, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize : 0;
}
