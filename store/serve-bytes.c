/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored bytes on their way out: a file where the store has one, else made once for all who ask at the same time.
 *
 *     in blobs/ or segments/ as it stands   the file itself, sent by the kernel
 *     compressed in blobs/, or a recipe     the layer cache's file (verified when it is opened first), else a feed
 *
 * A feed is a thread that writes the bytes into a file without a name, and readers who follow it. How far it is, the file's length says. At most
 * MAKERS work at a time; the others wait. A feed that is done stays on the shelf for the next who ask, until the shelf is full of such.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/layer-cache.h"
#include "store/layer.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

#define MAKERS 2
#define SHELF_MAX (512ull << 20) /* bytes of feeds that nobody reads */
#define OPEN_MAX 64              /* files of the layer cache */
#define OPEN_FOR (60 * G_USEC_PER_SEC)
#define LOOK_US 4000             /* how often a reader looks whether there is more */

typedef enum FeedState { FEED_MAKING, FEED_DONE, FEED_FAILED } FeedState;

typedef struct Feed {
    gint refs;
    ServeShelf *shelf;
    ServeLink link;
    int fd;
    GThread *thread;
    int64_t used;    /* monotonic; under the shelf's lock */
    bool verified;   /* a file of the layer cache */
    GMutex lock;
    GCond moved;
    FeedState state;
} Feed;

struct ServeShelf {
    Store *store;
    ServeMetrics *metrics;
    GMutex lock;
    GCond maker_free;
    unsigned makers;
    unsigned threads;   /* that are not over yet */
    GCond thread_over;
    GHashTable *feeds; /* Digest* of the blob -> Feed* */
};

struct ServeBytes {
    int fd;     /* own; or -1 */
    Feed *feed; /* or NULL */
};

static void feed_unref(gpointer data)
{
    Feed *feed = data;

    if (!g_atomic_int_dec_and_test(&feed->refs))
        return;
    scope_close_fd(&feed->fd);
    g_mutex_clear(&feed->lock);
    g_cond_clear(&feed->moved);
    g_free(feed);
}

static Feed *feed_new(ServeShelf *shelf, const ServeLink *link, int fd, FeedState state)
{
    Feed *feed = g_new0(Feed, 1);

    feed->refs = 1;
    feed->shelf = shelf;
    feed->link = *link;
    feed->fd = fd;
    feed->state = state;
    feed->used = g_get_monotonic_time();
    g_mutex_init(&feed->lock);
    g_cond_init(&feed->moved);
    return feed;
}

ServeShelf *serve_shelf_new(Store *store, ServeMetrics *metrics)
{
    ServeShelf *shelf = g_new0(ServeShelf, 1);

    shelf->store = store;
    shelf->metrics = metrics;
    g_mutex_init(&shelf->lock);
    g_cond_init(&shelf->maker_free);
    g_cond_init(&shelf->thread_over);
    shelf->feeds = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, feed_unref);
    return shelf;
}

void serve_shelf_free(ServeShelf *shelf)
{
    if (!shelf)
        return;
    g_mutex_lock(&shelf->lock);
    while (shelf->threads)
        g_cond_wait(&shelf->thread_over, &shelf->lock);
    g_mutex_unlock(&shelf->lock);
    g_hash_table_unref(shelf->feeds);
    g_mutex_clear(&shelf->lock);
    g_cond_clear(&shelf->maker_free);
    g_cond_clear(&shelf->thread_over);
    g_free(shelf);
}

/* --- making --------------------------------------------------------------------------- */

static bool make(Feed *feed, GError **error)
{
    Store *store = feed->shelf->store;
    g_autoptr(StoreLease) lease = NULL;
    struct stat st;

    if (!store_is_readonly(store) && !store_lease_take(store, "serve", &lease, error))
        return false;
    if (!(!digest_is_none(&feed->link.pieces)  ? serve_pieces_write(store, &feed->link.pieces, feed->fd, error)
          : digest_is_none(&feed->link.recipe) ? store_blob_copy(store, &feed->link.blob, feed->fd, error)
                                             : layer_write_out(store, &feed->link.recipe, false, feed->fd, error)))
        return false;
    return (fstat(feed->fd, &st) == 0 && (uint64_t)st.st_size == feed->link.size) || fail(error, "a blob came out with another length");
}

static void take_turn(ServeShelf *shelf)
{
    AUTO_LOCK(&shelf->lock);
    while (shelf->makers >= MAKERS)
        g_cond_wait(&shelf->maker_free, &shelf->lock);
    shelf->makers++;
}

/* One that failed leaves the shelf, so that the next who asks tries again. */
static void end_turn(Feed *feed, bool ok)
{
    ServeShelf *shelf = feed->shelf;

    AUTO_LOCK(&shelf->lock);
    shelf->makers--;
    g_cond_signal(&shelf->maker_free);
    feed->used = g_get_monotonic_time();
    if (!ok && g_hash_table_lookup(shelf->feeds, &feed->link.blob) == feed)
        g_hash_table_remove(shelf->feeds, &feed->link.blob);
}

static gpointer feed_main(gpointer data)
{
    Feed *feed = data;
    ServeShelf *shelf = feed->shelf;
    g_autoptr(GError) error = NULL;
    bool ok;

    take_turn(shelf);
    ok = make(feed, &error);
    if (!ok)
        log_warning("%s", error->message);
    serve_metrics_count(shelf->metrics, SERVE_COUNT_MADE);
    g_mutex_lock(&feed->lock);
    feed->state = ok ? FEED_DONE : FEED_FAILED;
    g_cond_broadcast(&feed->moved);
    g_mutex_unlock(&feed->lock);
    end_turn(feed, ok);
    feed_unref(feed);
    g_mutex_lock(&shelf->lock);
    shelf->threads--;
    g_cond_broadcast(&shelf->thread_over);
    g_mutex_unlock(&shelf->lock);
    return NULL;
}

/* Under the shelf's lock. */
static bool start(ServeShelf *shelf, const ServeLink *link, Feed **ret, GError **error)
{
    auto_fd int fd = -1;
    Feed *feed;

    if (store_is_readonly(shelf->store)) {
        fd = open(g_get_tmp_dir(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
        if (fd < 0)
            return fail_errno(error, "make a temporary file");
    } else if (!store_open_unnamed(shelf->store, &fd, error)) {
        return false;
    }
    feed = feed_new(shelf, link, g_steal_fd(&fd), FEED_MAKING);
    g_hash_table_insert(shelf->feeds, g_memdup2(&link->blob, sizeof(link->blob)), feed);
    g_atomic_int_inc(&feed->refs); /* the thread's */
    shelf->threads++;
    g_thread_unref(g_thread_new("layer", feed_main, feed));
    *ret = feed;
    return true;
}

/* The whole file is hashed, once for as long as it stays open. Nobody else waits for that. */
static Feed *from_cache(ServeShelf *shelf, const ServeLink *link)
{
    Feed *feed;
    int fd;

    if (digest_is_none(&link->recipe) || !layer_cache_find(shelf->store, &link->blob, link->size, &fd))
        return NULL;
    feed = feed_new(shelf, link, fd, FEED_DONE);
    feed->verified = true;
    return feed;
}

static Feed *on_shelf(ServeShelf *shelf, const ServeLink *link)
{
    Feed *feed = g_hash_table_lookup(shelf->feeds, &link->blob);

    if (!feed)
        return NULL;
    serve_metrics_count(shelf->metrics, SERVE_COUNT_KEPT);
    feed->used = g_get_monotonic_time();
    g_atomic_int_inc(&feed->refs);
    return feed;
}

static bool find_feed(ServeShelf *shelf, const ServeLink *link, Feed **ret, GError **error)
{
    Feed *cached;

    g_mutex_lock(&shelf->lock);
    *ret = on_shelf(shelf, link);
    g_mutex_unlock(&shelf->lock);
    if (*ret)
        return true;
    cached = from_cache(shelf, link);
    AUTO_LOCK(&shelf->lock);
    if ((*ret = on_shelf(shelf, link))) { /* somebody was faster */
        g_clear_pointer(&cached, feed_unref);
        return true;
    }
    if (cached)
        g_hash_table_insert(shelf->feeds, g_memdup2(&link->blob, sizeof(link->blob)), cached);
    else if (!start(shelf, link, &cached, error))
        return false;
    g_atomic_int_inc(&cached->refs);
    *ret = cached;
    return true;
}

/* Files of the cache that it has let go, or that nobody wanted for a minute; of the others the least recently used, over what the shelf may hold. */
static bool is_done_with(const Feed *feed, int64_t now)
{
    struct stat st;

    return feed->verified && (now - feed->used > OPEN_FOR || fstat(feed->fd, &st) < 0 || st.st_nlink == 0);
}

static Feed *least_used(ServeShelf *shelf, uint64_t *ret_bytes, unsigned *ret_files)
{
    GHashTableIter iter;
    gpointer value;
    Feed *oldest = NULL;

    *ret_bytes = 0;
    *ret_files = 0;
    g_hash_table_iter_init(&iter, shelf->feeds);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Feed *feed = value;

        if (g_atomic_int_get(&feed->refs) > 1)
            continue;
        *ret_bytes += feed->verified ? 0 : feed->link.size;
        *ret_files += 1;
        if (!oldest || feed->used < oldest->used)
            oldest = feed;
    }
    return oldest;
}

void serve_shelf_tidy(ServeShelf *shelf)
{
    int64_t now = g_get_monotonic_time();
    GHashTableIter iter;
    gpointer value;
    uint64_t bytes;
    unsigned files;
    Feed *oldest;

    AUTO_LOCK(&shelf->lock);
    g_hash_table_iter_init(&iter, shelf->feeds);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (g_atomic_int_get(&((Feed *)value)->refs) == 1 && is_done_with(value, now))
            g_hash_table_iter_remove(&iter);
    while ((oldest = least_used(shelf, &bytes, &files)) && (bytes > SHELF_MAX || files > OPEN_MAX))
        g_hash_table_remove(shelf->feeds, &oldest->link.blob);
}

/* --- reading ------------------------------------------------------------------------------ */

/* -1: it has to be made. */
static int open_file(Store *store, const ServeLink *link)
{
    bool packed = false;
    int fd;

    if (!digest_is_none(&link->pieces))
        return -1;
    if (link->segment)
        return segment_open_file(store, &link->blob);
    if (!digest_is_none(&link->recipe))
        return -1;
    fd = blob_file_open(store, &link->blob, &packed);
    if (fd >= 0 && packed) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

static bool is_whole(Feed *feed)
{
    AUTO_LOCK(&feed->lock);
    return feed->state == FEED_DONE;
}

bool serve_bytes_open(ServeShelf *shelf, const ServeLink *link, ServeBytes **ret, GError **error)
{
    auto_fd int fd = open_file(shelf->store, link);
    Feed *feed = NULL;
    struct stat st;

    if (fd >= 0 && (fstat(fd, &st) < 0 || (uint64_t)st.st_size != link->size))
        return fail(error, "a blob in store '%s' does not have its length; run kiln fsck --read-data", shelf->store->path);
    if (fd < 0 && !find_feed(shelf, link, &feed, error))
        return false;
    if (feed && is_whole(feed))
        fd = fcntl(feed->fd, F_DUPFD_CLOEXEC, 3);
    *ret = g_new0(ServeBytes, 1);
    (*ret)->fd = g_steal_fd(&fd);
    (*ret)->feed = feed;
    return true;
}

void serve_bytes_free(ServeBytes *bytes)
{
    if (!bytes)
        return;
    scope_close_fd(&bytes->fd);
    if (bytes->feed)
        feed_unref(bytes->feed);
    g_free(bytes);
}

int serve_bytes_fd(const ServeBytes *bytes)
{
    return bytes->fd;
}

/* Up to where it can be read; false: it failed. Looks again every few milliseconds, because who writes only knows its descriptor. */
static bool wait_for(Feed *feed, uint64_t offset, uint64_t *ret_end)
{
    struct stat st;
    bool ok = true;

    g_mutex_lock(&feed->lock);
    for (;;) {
        ok = feed->state != FEED_FAILED && fstat(feed->fd, &st) == 0;
        if (!ok || (uint64_t)st.st_size > offset || feed->state == FEED_DONE)
            break;
        (void)g_cond_wait_until(&feed->moved, &feed->lock, g_get_monotonic_time() + LOOK_US);
    }
    g_mutex_unlock(&feed->lock);
    *ret_end = ok ? (uint64_t)st.st_size : 0;
    return ok;
}

ssize_t serve_bytes_read(ServeBytes *bytes, uint64_t offset, void *buffer, size_t size)
{
    Feed *feed = bytes->feed;
    uint64_t end;

    if (!feed || offset >= feed->link.size)
        return feed ? 0 : -1;
    if (!wait_for(feed, offset, &end) || end <= offset)
        return -1;
    return pread(feed->fd, buffer, (size_t)MIN(end - offset, size), (off_t)offset);
}
