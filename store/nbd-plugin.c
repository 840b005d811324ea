/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nbdkit plugin that serves a working disk, or without `dir` a stored disk as it is, read-only; store/working-disk.c and
 * store/disk-server.c start it:
 *
 *   nbdkit -f --exit-with-parent -U SOCKET kiln-nbd-plugin.so store=DIR map=DIGEST size=BYTES dir=FOLDER
 *          control=FD scratch=FOLDER
 *   nbdkit -f -r --exit-with-parent -U SOCKET kiln-nbd-plugin.so store=DIR map=DIGEST control=FD scratch=SOCKET
 *
 * Reads and writes are store/generation-stack.c, reads of a stored disk store/read-ahead.c. Beside NBD there is one
 * conversation, with kiln, over the stream socket given as `control`: a line
 * asks, a line answers "ok", "ok N" or "error SENTENCE".
 *
 *   (first, unasked)   ok              the disk is open and can be connected to
 *   seal               ok N            generation N is sealed, its files may be read
 *   rebase DIGEST      ok              the parent is this map now; the sealed generation is gone
 *   drop               ok              what was written since the seal is forgotten
 *   check              ok              no read or write has failed; else the first one's error
 *   (stored, unasked)  failed SENTENCE a read has failed: nobody asks then, and the client learns of an I/O error only
 *
 * The end of that socket is the end of kiln, however it died: we stop and remove the scratch folders. That is
 * a second string beside --exit-with-parent, which looks at one thread of kiln only. Flush and FUA do
 * nothing: a working disk need not outlive its host's crash.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/generation-stack.h"
#include "store/pool.h"
#include "store/read-ahead.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define LINE_MAX_BYTES 256
#define SCRATCH_MAX 4
#define FAILURES_TOLD 20 /* a client that tries again and again must not fill the log */
#define EXTENTS_PER_REQUEST 512 /* an answer may be partial; this bounds its cost on a shredded disk */
#define LAST_WORDS_US (500 * 1000)

/* One disk per process, as nbdkit's own state is. */
static struct {
    char *store_dir, *dir;
    char *scratch[SCRATCH_MAX];
    unsigned scratch_count;
    Digest map;
    uint64_t size;
    int control; /* -1: none */
    Store *store;
    GenerationStack *stack; /* a working disk; else: */
    StoreMap *stored;
    ReadAhead *ahead;
    pthread_t thread;
    bool thread_runs;
    GMutex lock;
    GCond changed;
    bool unloading;
    char *failure; /* of the first request that failed, under the lock */
    unsigned failures_told;
} self = {.control = -1};

/* --- parameters --- */

static int bad_parameter(const char *key, const char *value)
{
    nbdkit_error("bad parameter %s=%s", key, value);
    return -1;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    return g_ascii_string_to_unsigned(text, 10, 0, max, ret, NULL);
}

static int plugin_config(const char *key, const char *value)
{
    uint64_t number;

    if (strcmp(key, "store") == 0) {
        g_free(self.store_dir);
        self.store_dir = g_strdup(value);
    } else if (strcmp(key, "dir") == 0) {
        g_free(self.dir);
        self.dir = g_strdup(value);
    } else if (strcmp(key, "map") == 0) {
        if (!digest_parse(value, &self.map))
            return bad_parameter(key, value);
    } else if (strcmp(key, "size") == 0) {
        if (!parse_number(value, GENERATION_SIZE_MAX, &self.size))
            return bad_parameter(key, value);
    } else if (strcmp(key, "control") == 0) {
        if (!parse_number(value, G_MAXINT, &number))
            return bad_parameter(key, value);
        self.control = (int)number;
        (void)fcntl(self.control, F_SETFD, FD_CLOEXEC);
    } else if (strcmp(key, "scratch") == 0) {
        if (self.scratch_count == SCRATCH_MAX)
            return bad_parameter(key, value);
        self.scratch[self.scratch_count++] = g_strdup(value);
    } else {
        return bad_parameter(key, value);
    }
    return 0;
}

static int plugin_config_complete(void)
{
    if (self.dir ? self.size > 0 && (self.store_dir || digest_is_none(&self.map)) : self.store_dir && !digest_is_none(&self.map))
        return 0;
    nbdkit_error("store= and map= are needed, and for a working disk size= and dir=");
    return -1;
}

/* --- the conversation with kiln --- */

static void answer(const char *format, ...) G_GNUC_PRINTF(1, 2);
static void answer(const char *format, ...)
{
    g_autofree char *text = NULL;
    g_autofree char *line = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    line = g_strdelimit(g_strconcat(text, " ", NULL), "\n", ' ');
    line[strlen(line) - 1] = '\n';
    /* When kiln is gone there is nobody to tell; the next read says so. */
    if (self.control >= 0)
        (void)file_write_full(self.control, line, strlen(line), "the control socket", NULL);
}

static bool open_map(const Digest *digest, StoreMap **ret, GError **error)
{
    if (digest_is_none(digest)) {
        *ret = NULL;
        return true;
    }
    return store_map_open(self.store, digest, ret, error);
}

static bool do_rebase(const char *hex, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    Digest digest;

    if (!digest_parse(hex, &digest))
        return fail(error, "'%s' is no digest", hex);
    if (!open_map(&digest, &map, error))
        return false;
    if (map && store_map_size(map) > self.size)
        return fail(error, "map %s is larger than the working disk", hex);
    generation_stack_rebase(self.stack, map);
    return true;
}

/* After a request that failed the disk is not what the guest thinks: nothing may be kept of it. */
static bool do_check(GError **error)
{
    bool good;

    g_mutex_lock(&self.lock);
    good = !self.failure || fail(error, "%s", self.failure);
    g_mutex_unlock(&self.lock);
    return good;
}

static void handle_line(const char *line)
{
    g_autoptr(GError) error = NULL;
    unsigned number = 0;
    bool ok;

    if (!self.stack && strcmp(line, "check") != 0)
        ok = fail(&error, "a stored disk is served as it is");
    else if (strcmp(line, "seal") == 0)
        ok = do_check(&error) && generation_stack_seal(self.stack, &number, &error);
    else if (strcmp(line, "drop") == 0)
        ok = generation_stack_drop(self.stack, &error);
    else if (strcmp(line, "check") == 0)
        ok = do_check(&error);
    else if (g_str_has_prefix(line, "rebase "))
        ok = do_rebase(line + strlen("rebase "), &error);
    else
        ok = fail(&error, "unknown command '%s'", line);

    if (!ok)
        answer("error %s", error->message);
    else if (number > 0)
        answer("ok %u", number);
    else
        answer("ok");
}

/* False at the end of the conversation. */
static bool read_line(FILE *in, char line[LINE_MAX_BYTES])
{
    if (!fgets(line, LINE_MAX_BYTES, in))
        return false;
    g_strchomp(line);
    return true;
}

static void remove_scratch(void)
{
    for (unsigned i = 0; i < self.scratch_count; i++)
        (void)file_remove_tree(AT_FDCWD, self.scratch[i], NULL); /* kiln may be removing it as well */
}

/* nbdkit waits for its clients before it ends; a client that hangs must not keep us from ending. */
static void end_with_kiln(void)
{
    gint64 deadline = g_get_monotonic_time() + LAST_WORDS_US;

    nbdkit_shutdown();
    g_mutex_lock(&self.lock);
    while (!self.unloading && g_cond_wait_until(&self.changed, &self.lock, deadline))
        ;
    if (!self.unloading) {
        remove_scratch();
        _exit(1);
    }
    g_mutex_unlock(&self.lock);
}

static void *control_main(void *arg)
{
    int fd = fcntl(self.control, F_DUPFD_CLOEXEC, 0);
    FILE *in = fd >= 0 ? fdopen(fd, "r") : NULL;
    char line[LINE_MAX_BYTES];

    answer("ok");
    while (in && read_line(in, line))
        handle_line(line);
    end_with_kiln();
    if (in)
        (void)fclose(in);
    return NULL;
}

/* --- life --- */

static bool open_disk(GError **error)
{
    g_autoptr(StoreMap) parent = NULL;

    if (self.store_dir &&
        !store_open(self.store_dir, STORE_OPEN_READONLY | STORE_OPEN_NO_CATALOG, &self.store, error))
        return false;
    if (!open_map(&self.map, &parent, error))
        return false;
    if (!self.dir) {
        store_set_cache(self.store, READ_AHEAD_CACHE);
        self.size = store_map_size(parent);
        self.stored = g_steal_pointer(&parent);
        return true;
    }
    return generation_stack_open(parent, self.dir, self.size, &self.stack, error);
}

static int plugin_get_ready(void)
{
    g_autoptr(GError) error = NULL;

    if (open_disk(&error))
        return 0;
    if (self.control >= 0)
        answer("error %s", error->message); /* kiln tells it, once */
    else
        nbdkit_error("%s", error->message);
    return -1;
}

/* The socket listens by now, so "ok" means that clients may come. */
static int plugin_after_fork(void)
{
    if (self.stored)
        self.ahead = read_ahead_new(self.stored);
    if (self.control < 0)
        return 0;
    if (pthread_create(&self.thread, NULL, control_main, NULL) != 0) {
        nbdkit_error("cannot start the control thread");
        return -1;
    }
    self.thread_runs = true;
    return 0;
}

static void plugin_unload(void)
{
    g_mutex_lock(&self.lock);
    self.unloading = true;
    g_cond_broadcast(&self.changed);
    g_mutex_unlock(&self.lock);
    if (self.control >= 0)
        (void)shutdown(self.control, SHUT_RDWR);
    if (self.thread_runs)
        (void)pthread_join(self.thread, NULL);

    generation_stack_close(self.stack);
    read_ahead_free(self.ahead);
    store_map_unref(self.stored);
    store_close(self.store);
    remove_scratch();
}

/* --- requests --- */

static void *plugin_open(int readonly)
{
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plugin_get_size(void *handle)
{
    return (int64_t)self.size;
}

static int yes(void *handle)
{
    return 1;
}

static int is_writable(void *handle)
{
    return self.stack != NULL;
}

static int native_fua(void *handle)
{
    return NBDKIT_FUA_NATIVE;
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    *minimum = 1;
    *preferred = GENERATION_BLOCK;
    *maximum = 0xffffffff;
    return 0;
}

/*
 * The guest only learns of an I/O error; the sentence behind it waits here until kiln asks. Never ENOSPC: at that
 * qemu would stop the guest until somebody makes room, and a bake would wait for ever.
 */
static int answer_failure(GError *error)
{
    nbdkit_debug("%s", error->message);
    nbdkit_set_error(EIO);
    g_mutex_lock(&self.lock);
    if (!self.failure)
        self.failure = g_strdup(error->message);
    if (self.stored && self.failures_told++ < FAILURES_TOLD)
        answer("failed %s", error->message);
    g_mutex_unlock(&self.lock);
    g_error_free(error);
    return -1;
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    GError *error = NULL;
    bool ok = self.stack ? generation_stack_pread(self.stack, buf, count, offset, &error)
                         : read_ahead_pread(self.ahead, buf, count, offset, &error);

    return ok ? 0 : answer_failure(error);
}

static int plugin_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    GError *error = NULL;

    return generation_stack_pwrite(self.stack, buf, count, offset, &error) ? 0 : answer_failure(error);
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    GError *error = NULL;

    return generation_stack_zero(self.stack, count, offset, &error) ? 0 : answer_failure(error);
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    GError *error = NULL;

    return generation_stack_trim(self.stack, count, offset, &error) ? 0 : answer_failure(error);
}

static int plugin_flush(void *handle, uint32_t flags)
{
    return 0;
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                          struct nbdkit_extents *extents)
{
    uint64_t end = offset + count;

    for (unsigned i = 0; i < EXTENTS_PER_REQUEST && offset < end; i++) {
        uint64_t next;
        bool zero;

        if (self.stack)
            generation_stack_extent(self.stack, offset, end, &next, &zero);
        else
            store_map_extent(self.stored, offset, &next, &zero);
        if (nbdkit_add_extent(extents, offset, next - offset,
                              zero ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0) < 0)
            return -1;
        offset = next;
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "kiln",
    .longname = "kiln disk",
    .description = "A stored disk, read-only or with a bake's writes on top",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "store=DIR map=DIGEST [size=BYTES dir=FOLDER] [control=FD] [scratch=FOLDER]...",
    .get_ready = plugin_get_ready,
    .after_fork = plugin_after_fork,
    .unload = plugin_unload,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .can_write = is_writable,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_fast_zero = yes,
    .can_fua = native_fua,
    .can_multi_conn = yes,
    .can_extents = yes,
    .block_size = plugin_block_size,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .zero = plugin_zero,
    .trim = plugin_trim,
    .flush = plugin_flush,
    .extents = plugin_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
