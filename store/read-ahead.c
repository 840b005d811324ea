/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, a short queue of pieces, and the threads that read them.
 *
 *     waiting  -> running -> in the frame cache
 *        \-> dropped: somebody reads it right now
 *
 * Nothing here keeps bytes: the frame cache does, and forgets what nobody came for. So the queue is kept well below its size.
 */
#include "store/read-ahead.h"

#include "base/scope.h"

#define PIECE (128u << 10) /* about a frame */
#define WINDOW_MAX (2u << 20)
#define STREAMS 8
#define WAITING_MAX 64
#define WORKERS_MAX 4
#define SLACK (256u << 10) /* requests of one reader that are under way together come in any order */

typedef struct Stream {
    uint64_t end;   /* where its reads have come to */
    uint64_t ahead; /* up to here pieces were asked for */
    uint64_t window;
    uint64_t used; /* clock; 0: free */
} Stream;

struct ReadAhead {
    StoreMap *map;
    GThread *workers[WORKERS_MAX];
    unsigned worker_count;

    GMutex lock; /* all below */
    GCond work, done;
    bool closing;
    uint64_t clock, bytes;
    Stream streams[STREAMS];
    uint64_t waiting[WAITING_MAX]; /* offsets, oldest first */
    unsigned waiting_count;
    uint64_t running[WORKERS_MAX]; /* UINT64_MAX: none */
};

static bool overlaps(uint64_t piece, uint64_t offset, uint64_t end)
{
    return piece < end && offset < piece + PIECE;
}

/* --- the threads --- */

/* Called with the lock held. */
static bool take_piece(ReadAhead *ahead, uint64_t *slot)
{
    while (ahead->waiting_count == 0 && !ahead->closing)
        g_cond_wait(&ahead->work, &ahead->lock);
    if (ahead->closing)
        return false;
    *slot = ahead->waiting[0];
    ahead->waiting_count--;
    memmove(ahead->waiting, ahead->waiting + 1, ahead->waiting_count * sizeof *ahead->waiting);
    return true;
}

/* What cannot be read is told to who asks for it. */
static void read_piece(StoreMap *map, uint64_t offset, uint8_t *buffer)
{
    size_t size = (size_t)MIN((uint64_t)PIECE, store_map_size(map) - offset);

    (void)store_map_pread(map, buffer, size, offset, NULL);
}

typedef struct Worker {
    ReadAhead *ahead;
    uint64_t *slot;
} Worker;

static gpointer worker_main(gpointer arg)
{
    g_autofree Worker *worker = arg;
    ReadAhead *ahead = worker->ahead;
    g_autofree uint8_t *buffer = g_malloc(PIECE);

    g_mutex_lock(&ahead->lock);
    while (take_piece(ahead, worker->slot)) {
        g_mutex_unlock(&ahead->lock);
        read_piece(ahead->map, *worker->slot, buffer);
        g_mutex_lock(&ahead->lock);
        *worker->slot = UINT64_MAX;
        ahead->bytes += PIECE;
        g_cond_broadcast(&ahead->done);
    }
    g_mutex_unlock(&ahead->lock);
    return NULL;
}

/* --- streams; all called with the lock held --- */

static Stream *find_stream(ReadAhead *ahead, uint64_t offset)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        Stream *s = &ahead->streams[i];

        if (s->used && offset + SLACK >= s->end && offset <= s->end + SLACK)
            return s;
    }
    return NULL;
}

static Stream *oldest_stream(ReadAhead *ahead)
{
    Stream *oldest = &ahead->streams[0];

    for (unsigned i = 1; i < STREAMS; i++)
        if (ahead->streams[i].used < oldest->used)
            oldest = &ahead->streams[i];
    return oldest;
}

/* Up to @end of the disk; a hole costs nothing to read and is passed over. */
static void ask_for(ReadAhead *ahead, Stream *s, uint64_t end)
{
    uint64_t next;
    bool zero;

    while (s->ahead < end && ahead->waiting_count < WAITING_MAX) {
        store_map_extent(ahead->map, s->ahead, &next, &zero);
        if (!zero) {
            ahead->waiting[ahead->waiting_count++] = s->ahead;
            next = s->ahead + PIECE;
        }
        s->ahead = MAX(next / PIECE * PIECE, s->ahead + PIECE);
    }
    g_cond_broadcast(&ahead->work);
}

static void note_read(ReadAhead *ahead, uint64_t offset, uint64_t end)
{
    Stream *s = find_stream(ahead, offset);

    if (!s) {
        s = oldest_stream(ahead);
        *s = (Stream){.end = end, .ahead = (end + PIECE - 1) / PIECE * PIECE, .window = PIECE, .used = ++ahead->clock};
        return;
    }
    s->used = ++ahead->clock;
    if (end <= s->end)
        return;
    s->end = end;
    s->window = MIN(s->window * 2, (uint64_t)WINDOW_MAX);
    s->ahead = MAX(s->ahead, (end + PIECE - 1) / PIECE * PIECE);
    ask_for(ahead, s, MIN(end + s->window, store_map_size(ahead->map)));
}

/* The reader is there already: it reads these itself. */
static void drop_waiting(ReadAhead *ahead, uint64_t offset, uint64_t end)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < ahead->waiting_count; i++)
        if (!overlaps(ahead->waiting[i], offset, end))
            ahead->waiting[kept++] = ahead->waiting[i];
    ahead->waiting_count = kept;
}

static bool is_running(const ReadAhead *ahead, uint64_t offset, uint64_t end)
{
    for (unsigned i = 0; i < ahead->worker_count; i++)
        if (ahead->running[i] != UINT64_MAX && overlaps(ahead->running[i], offset, end))
            return true;
    return false;
}

/* --- the face --- */

ReadAhead *read_ahead_new(StoreMap *map)
{
    ReadAhead *ahead = g_new0(ReadAhead, 1);

    ahead->map = store_map_ref(map);
    g_mutex_init(&ahead->lock);
    g_cond_init(&ahead->work);
    g_cond_init(&ahead->done);
    ahead->worker_count = CLAMP(g_get_num_processors(), 1, WORKERS_MAX);
    for (unsigned i = 0; i < ahead->worker_count; i++)
        ahead->running[i] = UINT64_MAX;
    for (unsigned i = 0; i < ahead->worker_count; i++) {
        Worker *worker = g_new(Worker, 1);

        *worker = (Worker){ahead, &ahead->running[i]};
        ahead->workers[i] = g_thread_new("read-ahead", worker_main, worker);
    }
    return ahead;
}

void read_ahead_free(ReadAhead *ahead)
{
    if (!ahead)
        return;
    g_mutex_lock(&ahead->lock);
    ahead->closing = true;
    g_cond_broadcast(&ahead->work);
    g_mutex_unlock(&ahead->lock);
    for (unsigned i = 0; i < ahead->worker_count; i++)
        (void)g_thread_join(ahead->workers[i]);
    g_mutex_clear(&ahead->lock);
    g_cond_clear(&ahead->work);
    g_cond_clear(&ahead->done);
    store_map_unref(ahead->map);
    g_free(ahead);
}

bool read_ahead_pread(ReadAhead *ahead, void *buf, size_t size, uint64_t offset, GError **error)
{
    uint64_t end = offset + size;

    g_mutex_lock(&ahead->lock);
    drop_waiting(ahead, offset, end);
    note_read(ahead, offset, end);
    while (is_running(ahead, offset, end))
        g_cond_wait(&ahead->done, &ahead->lock);
    g_mutex_unlock(&ahead->lock);
    return store_map_pread(ahead->map, buf, size, offset, error);
}

uint64_t read_ahead_bytes(ReadAhead *ahead)
{
    AUTO_LOCK(&ahead->lock);
    return ahead->bytes;
}
