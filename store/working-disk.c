/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working disk, kiln's side: starts nbdkit with our plugin, asks it to
 * seal, rebase and drop, and captures sealed generations into the store.
 *
 *     open        sealed = none
 *     seal        none -> sealed            (plugin opens the next generation)
 *     capture     sealed -> capturing -> none (plugin's parent is the new map), or back to sealed on failure
 *
 * Processes we start end with the *thread* that started them (base/process.h),
 * and whoever opens a disk may well do so in a thread that ends sooner than the
 * bake. So each disk keeps a thread that does nothing but start nbdkit and wait for the close.
 */
#include "store/working-disk.h"

#include "base/error.h"
#include "base/file.h"
#include "base/libexec.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/generation.h"
#include "store/ingest.h"
#include "store/nbd-control.h"
#include "store/shared-cache.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SCAN_MAX ((size_t)256 * 1024) /* what an ingest shows at once, at most */
#define SCAN_OVERLAP ((size_t)64 * 1024)
#define END_GRACE 3.0

struct WorkingDisk {
    Store *store; /* borrowed */
    uint64_t size;
    char *dir, *short_dir; /* generations; socket, NULL when it is in dir */
    char *socket;
    char *plugin;
    char **argv;

    GThread *keeper;
    int control, server_control; /* our end; nbdkit's, until it is started */

    GMutex talk; /* one question at a time */

    GMutex lock; /* all below */
    GCond changed;
    bool started, closing;
    GError *start_error;
    Digest parent;
    Generation *sealed; /* NULL: none */
    bool capturing;

    WorkingDiskScanFn *scan; /* may be NULL */
    void *scan_arg;
};

/* --- starting nbdkit --- */

/* In the store's own folder where the name is short enough: then recovery removes it in any case. */
static bool place_socket(WorkingDisk *disk, GError **error)
{
    disk->socket = g_build_filename(disk->dir, "nbd", NULL);
    if (strlen(disk->socket) < sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return true;

    g_clear_pointer(&disk->socket, g_free);
    if (!file_make_short_tmpdir(&disk->short_dir, error))
        return false;
    disk->socket = g_build_filename(disk->short_dir, "nbd", NULL);
    return true;
}

static char **server_argv(const WorkingDisk *disk)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    char hex[DIGEST_HEX_SIZE];

    g_ptr_array_add(argv, g_strdup("nbdkit"));
    g_ptr_array_add(argv, g_strdup("-f"));
    g_ptr_array_add(argv, g_strdup("--exit-with-parent"));
    g_ptr_array_add(argv, g_strdup("-U"));
    g_ptr_array_add(argv, g_strdup(disk->socket));
    g_ptr_array_add(argv, g_strdup(disk->plugin));
    g_ptr_array_add(argv, g_strdup_printf("store=%s", store_path(disk->store)));
    g_ptr_array_add(argv, g_strdup_printf("map=%s", digest_to_hex(&disk->parent, hex)));
    g_ptr_array_add(argv, g_strdup_printf("size=%" G_GUINT64_FORMAT, disk->size));
    g_ptr_array_add(argv, g_strdup_printf("dir=%s", disk->dir));
    g_ptr_array_add(argv, g_strdup_printf("control=%d", disk->server_control));
    g_ptr_array_add(argv, g_strdup_printf("scratch=%s", disk->dir));
    if (disk->short_dir)
        g_ptr_array_add(argv, g_strdup_printf("scratch=%s", disk->short_dir));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
}

static gpointer keeper_main(gpointer arg)
{
    WorkingDisk *disk = arg;
    int keep[] = {disk->server_control, -1};
    ProcessSpec spec = {.argv = (const char *const *)disk->argv, .keep_fds = keep, .inherit_stderr = true};
    GError *error = NULL;
    pid_t pid = 0;
    bool ok = process_spawn(&spec, &pid, &error);

    /* Only nbdkit holds its end from now on, so its death ends our reads. */
    (void)close(disk->server_control);
    disk->server_control = -1;

    g_mutex_lock(&disk->lock);
    disk->started = true;
    disk->start_error = error;
    g_cond_broadcast(&disk->changed);
    while (!disk->closing)
        g_cond_wait(&disk->changed, &disk->lock);
    g_mutex_unlock(&disk->lock);

    if (ok)
        process_end(pid, END_GRACE);
    return NULL;
}

static bool start_keeper(WorkingDisk *disk, GError **error)
{
    GError *start_error;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(error, "make a socket pair");
    disk->control = pair[0];
    disk->server_control = pair[1];
    disk->argv = server_argv(disk);
    disk->keeper = g_thread_new("working-disk", keeper_main, disk);

    g_mutex_lock(&disk->lock);
    while (!disk->started)
        g_cond_wait(&disk->changed, &disk->lock);
    start_error = g_steal_pointer(&disk->start_error);
    g_mutex_unlock(&disk->lock);

    if (start_error) {
        g_propagate_error(error, start_error);
        return false;
    }
    return true;
}

/* --- talking to it --- */

static bool ask(WorkingDisk *disk, const char *question, unsigned *ret_number, GError **error)
{
    AUTO_LOCK(&disk->talk);
    g_autofree char *line = g_strdup_printf("%s\n", question);

    trace("store.working-disk", "%s: %s", disk->dir, question);
    if (send(disk->control, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
        return fail(error, "the working disk's server (nbdkit) ended unexpectedly");
    return nbd_control_answer(disk->control, ret_number, error);
}

static bool prepare(WorkingDisk *disk, GError **error)
{
    return libexec_find(NBD_PLUGIN_FILE, &disk->plugin, error) && store_make_tmpdir(disk->store, &disk->dir, error) &&
           place_socket(disk, error) && start_keeper(disk, error) && nbd_control_answer(disk->control, NULL, error);
}

bool working_disk_open(Store *store, const Digest *parent, uint64_t size, WorkingDisk **ret, GError **error)
{
    g_autoptr(WorkingDisk) disk = g_new0(WorkingDisk, 1);

    disk->store = store;
    disk->parent = *parent;
    disk->size = size;
    disk->control = disk->server_control = -1;
    g_mutex_init(&disk->talk);
    g_mutex_init(&disk->lock);
    g_cond_init(&disk->changed);

    if (!store_provide_map(store, parent, error) || !prepare(disk, error)) /* another process reads it */
        return fail_prefix(error, "open the working disk");

    *ret = g_steal_pointer(&disk);
    return true;
}

static void remove_dir(const char *dir)
{
    g_autoptr(GError) error = NULL;

    if (dir && !file_remove_tree(AT_FDCWD, dir, &error) &&
        !g_error_matches(error, KILN_ERROR, KILN_ERROR_NOT_FOUND))
        log_warning("%s", error->message);
}

void working_disk_close(WorkingDisk *disk)
{
    if (!disk)
        return;
    if (disk->keeper) {
        (void)shutdown(disk->control, SHUT_RDWR); /* also ends a server whose clients hang on */
        g_mutex_lock(&disk->lock);
        disk->closing = true;
        g_cond_broadcast(&disk->changed);
        g_mutex_unlock(&disk->lock);
        (void)g_thread_join(disk->keeper);
    }
    scope_close_fd(&disk->control);
    scope_close_fd(&disk->server_control);
    generation_close(disk->sealed);
    remove_dir(disk->dir);
    remove_dir(disk->short_dir);
    g_clear_error(&disk->start_error);
    g_strfreev(disk->argv);
    g_free(disk->plugin);
    g_free(disk->socket);
    g_free(disk->short_dir);
    g_free(disk->dir);
    g_mutex_clear(&disk->talk);
    g_mutex_clear(&disk->lock);
    g_cond_clear(&disk->changed);
    g_free(disk);
}

const char *working_disk_socket(const WorkingDisk *disk)
{
    return disk->socket;
}

/* --- sealing and dropping --- */

bool working_disk_seal(WorkingDisk *disk, GError **error)
{
    AUTO_LOCK(&disk->lock);
    unsigned number;

    while (disk->capturing)
        g_cond_wait(&disk->changed, &disk->lock);
    if (disk->sealed)
        return fail(error, "the working disk's last seal is not captured yet");
    if (!ask(disk, "seal", &number, error))
        return fail_prefix(error, "seal the working disk");
    return generation_open(disk->dir, number, disk->size, &disk->sealed, error);
}

bool working_disk_dirty_bytes(WorkingDisk *disk, uint64_t *ret)
{
    AUTO_LOCK(&disk->lock);

    *ret = disk->sealed ? generation_dirty_blocks(disk->sealed) * GENERATION_BLOCK : 0;
    return true;
}

bool working_disk_check(WorkingDisk *disk, GError **error)
{
    return ask(disk, "check", NULL, error) || fail_prefix(error, "the working disk failed");
}

bool working_disk_drop(WorkingDisk *disk, GError **error)
{
    return ask(disk, "drop", NULL, error) || fail_prefix(error, "drop what the working disk holds");
}

/* --- capturing --- */

/* The writer is made at the first block that differs, so that an idle step costs no segment. */
typedef struct Capture {
    WorkingDisk *disk;
    StoreMap *parent; /* NULL: none */
    StoreWriter *writer;
    MapWriter *map;
    Ingest *ingest;
    uint8_t *window;      /* what the scan sees: the end of the bytes before, and these */
    size_t window_size;
    uint64_t window_end;  /* on the disk */
} Capture;

static void capture_clear(Capture *capture)
{
    ingest_free(capture->ingest);
    g_free(capture->window);
    map_writer_free(capture->map);
    store_writer_free(capture->writer);
    if (capture->parent)
        store_map_unref(capture->parent);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Capture, capture_clear)

static bool read_sealed(void *buf, size_t size, uint64_t offset, void *arg, GError **error)
{
    const Capture *capture = arg;

    return generation_pread(capture->disk->sealed, buf, size, offset, error);
}

/* Bytes that lie side by side on the disk are looked at side by side. */
static bool scan_blocks(const void *data, size_t size, uint64_t offset, void *arg, GError **error)
{
    Capture *capture = arg;
    size_t kept = 0;

    g_assert(size <= SCAN_MAX);
    if (!capture->window)
        capture->window = g_malloc(SCAN_OVERLAP + SCAN_MAX);
    if (capture->window_end == offset) {
        kept = MIN(capture->window_size, SCAN_OVERLAP);
        memmove(capture->window, capture->window + capture->window_size - kept, kept);
    }
    memcpy(capture->window + kept, data, size);
    capture->window_size = kept + size;
    capture->window_end = offset + size;
    return capture->disk->scan(capture->window, capture->window_size, capture->disk->scan_arg, error);
}

static bool need_writer(Capture *capture, GError **error)
{
    if (capture->map)
        return true;
    if (!store_writer_open(capture->disk->store, BLOCK_PRIVATE, &capture->writer, error) ||
        !map_writer_new(capture->writer, capture->disk->size, capture->parent, &capture->map, error))
        return false;
    capture->ingest = ingest_new(capture->map, read_sealed, capture);
    if (capture->disk->scan)
        ingest_set_seen(capture->ingest, scan_blocks, capture);
    return true;
}

/* Trimming tells of every free extent of a file system; those that were zero before are no change. */
static bool zero_range(Capture *capture, uint64_t offset, uint64_t end, GError **error)
{
    uint64_t parent_size = capture->parent ? store_map_size(capture->parent) : 0;

    while (offset < end) {
        uint64_t next = end;
        bool zero = true;

        if (offset < parent_size) {
            store_map_extent(capture->parent, offset, &next, &zero);
            next = MIN(next, end);
        }
        /* Extents end on the grid, but for the parent's last block. */
        if (next < end)
            next = MIN(end, (next + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE);
        if (!zero &&
            (!need_writer(capture, error) || !map_writer_zero(capture->map, offset, next - offset, error)))
            return false;
        offset = next;
    }
    return true;
}

static bool data_range(Capture *capture, uint64_t offset, uint64_t end, GError **error)
{
    return need_writer(capture, error) && ingest_range(capture->ingest, offset, end - offset, offset, error);
}

static bool dirty_range(Capture *capture, uint64_t offset, uint64_t end, GError **error)
{
    uint64_t next;
    bool zero;

    for (; offset < end; offset = next) {
        generation_extent(capture->disk->sealed, offset, end, &next, &zero);
        /* A hole of the delta is a multiple of the host's blocks, which may be smaller than ours. */
        if (next < end && next % STORE_BLOCK_SIZE != 0) {
            next = zero ? next / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE
                        : (next + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
            if (next <= offset) {
                next = offset + STORE_BLOCK_SIZE;
                zero = false;
            }
            next = MIN(next, end);
        }
        if (!(zero ? zero_range : data_range)(capture, offset, next, error))
            return false;
    }
    return true;
}

static bool capture_blocks(Capture *capture, GError **error)
{
    uint64_t size = capture->disk->size, blocks = (size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
    uint64_t count;
    bool dirty;

    for (uint64_t block = 0; block < blocks; block += count) {
        count = generation_run(capture->disk->sealed, block, blocks, &dirty);
        if (dirty && !dirty_range(capture, block * STORE_BLOCK_SIZE,
                                  MIN(size, (block + count) * STORE_BLOCK_SIZE), error))
            return false;
    }
    return true;
}

/* @parent on entry, the new map on return. */
static bool capture_sealed(WorkingDisk *disk, Digest *map, uint64_t *ret_new_bytes, GError **error)
{
    g_auto(Capture) capture = {.disk = disk};
    MapResult result;

    if (!digest_is_none(map) && !store_map_open(disk->store, map, &capture.parent, error))
        return false;
    if (!capture_blocks(&capture, error))
        return false;
    *ret_new_bytes = 0;
    if (!capture.map)
        return true;

    if (!ingest_finish(capture.ingest, error) || !map_writer_finish(capture.map, error) ||
        !store_writer_commit(capture.writer, error))
        return false;
    map_writer_result(capture.map, &result);
    *map = result.digest;
    *ret_new_bytes = store_writer_new_bytes(capture.writer);
    return true;
}

static bool rebase(WorkingDisk *disk, const Digest *map, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *question = g_strdup_printf("rebase %s", digest_to_hex(map, hex));

    return ask(disk, question, NULL, error);
}

/* Between these two nobody but the capture touches disk->sealed and disk->parent. */
static bool begin_capture(WorkingDisk *disk, Digest *ret_parent, bool *ret_sealed, GError **error)
{
    AUTO_LOCK(&disk->lock);

    if (disk->capturing)
        return fail(error, "the working disk is being captured already");
    *ret_parent = disk->parent;
    *ret_sealed = disk->capturing = disk->sealed != NULL;
    return true;
}

static void end_capture(WorkingDisk *disk, const Digest *map /* NULL: it failed */)
{
    AUTO_LOCK(&disk->lock);

    if (map) {
        disk->parent = *map;
        g_clear_pointer(&disk->sealed, generation_close);
    }
    disk->capturing = false;
    g_cond_broadcast(&disk->changed);
}

void working_disk_set_scan(WorkingDisk *disk, WorkingDiskScanFn *scan, void *arg)
{
    disk->scan = scan;
    disk->scan_arg = arg;
}

bool working_disk_capture(WorkingDisk *disk, Digest *ret_map, uint64_t *ret_new_bytes, GError **error)
{
    uint64_t new_bytes = 0;
    bool sealed = false;
    Digest map;

    if (!begin_capture(disk, &map, &sealed, error))
        return false;
    if (sealed) {
        bool ok = capture_sealed(disk, &map, &new_bytes, error) && rebase(disk, &map, error);

        end_capture(disk, ok ? &map : NULL);
        if (!ok)
            return fail_prefix(error, "capture the working disk");
    }

    *ret_map = map;
    if (ret_new_bytes)
        *ret_new_bytes = new_bytes;
    return true;
}
