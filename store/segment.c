/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment files, read by frame number.
 *
 * Opening reads header and footer only and checks that every frame lies inside the file; what a frame holds is
 * checked when it is read. Files are opened when needed and at most MAX_OPEN stay open, so a store of
 * a thousand segments does not exhaust the process's descriptors.
 *
 * A file may be gone when it is needed (again): gc repacked the segment. Then its table says where the blocks are, and if a segment named
 * there is gone as well, the table was written anew and is read anew.
 */
#include "store/segment.h"

#include "base/error.h"
#include "base/scope.h"
#include "store/bytes.h"
#include "store/frame-cache.h"
#include "store/io.h"
#include "store/segment-moved.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

#define MAX_OPEN 128
#define MAX_HOPS 8 /* from table to table; gc leaves one */

struct Segment {
    Store *store;
    uint64_t serial;
    Digest digest;
    BlockClass class;
    uint64_t size;
    uint32_t frames;
    SegmentEntry *entries;
    int fd;         /* -1: closed for now */
    unsigned users; /* of fd */
    SegmentMoved *moved; /* set once or replaced, atomically; never back to NULL */
    GPtrArray *stale;    /* tables that were replaced: somebody may look into them */
};

static bool damaged(const Digest *digest, const char *what, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    return fail(error, "segment %s is damaged: %s; run kiln fsck", digest_to_hex(digest, hex), what);
}

int segment_open_file(Store *store, const Digest *digest)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(store->segments_fd, digest, false, name);

    return dir < 0 ? -1 : io_open(dir, name, O_RDONLY, 0);
}

static bool read_header(Segment *s, int fd, GError **error)
{
    uint8_t head[SEGMENT_HEADER_SIZE];
    uint32_t class;
    struct stat st;

    if (fstat(fd, &st) < 0 || st.st_size < SEGMENT_HEADER_SIZE + 8 + SEGMENT_TAIL_SIZE || st.st_size > SEGMENT_MAX_SIZE)
        return damaged(&s->digest, "its size is impossible", error);
    s->size = (uint64_t)st.st_size;
    if (!io_pread_full(fd, head, sizeof(head), 0))
        return store_fail_errno(s->store, error, "read a segment of");
    class = get_le32(head + 20);
    if (get_le32(head) != ZSTD_SKIP_SEGMENT || memcmp(head + 8, SEGMENT_MAGIC, 8))
        return damaged(&s->digest, "its header is not a segment's", error);
    if (get_le32(head + 16) != SEGMENT_VERSION)
        return fail(error, "a segment has format %u, this kiln reads %d: upgrade kiln", get_le32(head + 16), SEGMENT_VERSION);
    if (class != BLOCK_PRIVATE && class != BLOCK_PUBLIC)
        return damaged(&s->digest, "its class is unknown", error);
    s->class = (BlockClass)class;
    return true;
}

static bool parse_entry(const uint8_t *from, uint64_t *at, uint64_t end, SegmentEntry *ret)
{
    uint64_t offset = get_le64(from);

    ret->size = get_le32(from + 8);
    ret->blocks = from[12];
    ret->encoding = from[13];
    ret->offset = (uint32_t)offset;
    if (offset != *at || ret->blocks < 1 || ret->blocks > FRAME_MAX_BLOCKS || ret->size > FRAME_MAX_STORED ||
        ret->size <= frame_head_size(ret->blocks) || ret->size > end - offset)
        return false;
    *at += ret->size;
    return true;
}

static bool read_footer(Segment *s, int fd, GError **error)
{
    uint8_t tail[SEGMENT_TAIL_SIZE];
    g_autofree uint8_t *footer = NULL;
    uint64_t at = SEGMENT_HEADER_SIZE, footer_size, end;
    size_t list;
    Digest check;

    if (!io_pread_full(fd, tail, sizeof(tail), s->size - sizeof(tail)))
        return store_fail_errno(s->store, error, "read a segment of");
    s->frames = get_le32(tail);
    footer_size = get_le32(tail + 4);
    list = (size_t)s->frames * SEGMENT_ENTRY_SIZE;
    if (memcmp(tail + 16, SEGMENT_END_MAGIC, 8) || s->frames > SEGMENT_MAX_FRAMES ||
        footer_size != 8 + list + SEGMENT_TAIL_SIZE || footer_size > s->size - SEGMENT_HEADER_SIZE)
        return damaged(&s->digest, "its footer is not whole", error);
    end = s->size - footer_size;
    footer = g_malloc(footer_size);
    if (!io_pread_full(fd, footer, footer_size, end))
        return store_fail_errno(s->store, error, "read a segment of");
    digest_of(footer + 8, list, &check);
    if (get_le32(footer) != ZSTD_SKIP_FOOTER || memcmp(check.bytes, tail + 8, 8))
        return damaged(&s->digest, "its list of frames does not match its check", error);
    s->entries = g_new(SegmentEntry, MAX(s->frames, 1));
    for (uint32_t i = 0; i < s->frames; i++)
        if (!parse_entry(footer + 8 + (size_t)i * SEGMENT_ENTRY_SIZE, &at, end, &s->entries[i]))
            return damaged(&s->digest, "its list of frames makes no sense", error);
    return at == end || damaged(&s->digest, "it has bytes that no frame owns", error);
}

static void segment_free(gpointer data)
{
    Segment *s = data;

    if (!s)
        return;
    if (s->fd >= 0)
        (void)close(s->fd);
    g_free(s->entries);
    segment_moved_free(s->moved);
    g_ptr_array_unref(s->stale);
    g_free(s);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Segment, segment_free)

GHashTable *segment_table_new(void)
{
    return g_hash_table_new_full(digest_hash, digest_equal_gfunc, NULL, segment_free);
}

GPtrArray *segment_list_new(void)
{
    return g_ptr_array_new_with_free_func(segment_free);
}

static bool segment_load(Store *store, const Digest *digest, Segment **ret, GError **error)
{
    static guint64 serial; /* guarded by no lock on purpose: see the atomic add */
    g_autoptr(Segment) s = g_new0(Segment, 1);
    char hex[DIGEST_HEX_SIZE];

    s->store = store;
    s->digest = *digest;
    s->stale = g_ptr_array_new_with_free_func((GDestroyNotify)segment_moved_free);
    s->serial = __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED);
    s->fd = segment_open_file(store, digest);
    if (s->fd < 0 && errno == ENOENT) {
        if (!segment_moved_load(store, digest, &s->moved, error))
            return false;
        if (s->moved) {
            s->frames = s->moved->frames;
            s->class = s->moved->body->class;
            *ret = g_steal_pointer(&s);
            return true;
        }
        return fail_code(error, KILN_ERROR_NOT_FOUND, "segment %s is missing from store '%s'; run kiln fsck",
                         digest_to_hex(digest, hex), store->path);
    }
    if (s->fd < 0)
        return store_fail_errno(store, error, "open a segment of");
    if (!read_header(s, s->fd, error) || !read_footer(s, s->fd, error))
        return false;
    *ret = g_steal_pointer(&s);
    return true;
}

/* Called with the lock held. */
static void close_idle_files(Store *store)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, store->segments);
    while (store->open_files > MAX_OPEN / 2 && g_hash_table_iter_next(&iter, NULL, &value)) {
        Segment *s = value;

        if (s->fd < 0 || s->users > 0)
            continue;
        (void)close(s->fd);
        s->fd = -1;
        store->open_files--;
    }
}

bool segment_get(Store *store, const Digest *digest, Segment **ret, GError **error)
{
    Segment *s;

    AUTO_LOCK(&store->lock);
    s = g_hash_table_lookup(store->segments, digest);
    if (!s) {
        if (!segment_load(store, digest, &s, error))
            return false;
        g_hash_table_insert(store->segments, &s->digest, s);
        store->open_files += s->fd >= 0;
        if (store->open_files > MAX_OPEN)
            close_idle_files(store);
    }
    *ret = s;
    return true;
}

void segment_forget(Store *store, const Digest *digest)
{
    Segment *s;

    AUTO_LOCK(&store->lock);
    s = g_hash_table_lookup(store->segments, digest);
    if (!s)
        return;
    (void)g_hash_table_steal(store->segments, digest);
    if (s->fd >= 0 && s->users == 0) {
        (void)close(s->fd);
        s->fd = -1;
        store->open_files--;
    }
    g_ptr_array_add(store->forgotten, s);
}

static int file_take(Segment *s, GError **error)
{
    AUTO_LOCK(&s->store->lock);
    if (s->fd < 0) {
        s->fd = segment_open_file(s->store, &s->digest);
        if (s->fd < 0) {
            (void)store_fail_errno(s->store, error, "open a segment of");
            return -1;
        }
        if (++s->store->open_files > MAX_OPEN) {
            s->users++;
            close_idle_files(s->store);
            s->users--;
        }
    }
    s->users++;
    return s->fd;
}

static void file_give_back(Segment *s)
{
    AUTO_LOCK(&s->store->lock);
    s->users--;
}

const Digest *segment_digest(const Segment *segment)
{
    return &segment->digest;
}

BlockClass segment_class(const Segment *segment)
{
    return segment->class;
}

uint32_t segment_frames(const Segment *segment)
{
    return segment->frames;
}

uint64_t segment_file_size(const Segment *segment)
{
    return segment->size;
}

const SegmentEntry *segment_entry(const Segment *segment, uint32_t frame)
{
    g_assert(frame < segment->frames && segment->entries);
    return &segment->entries[frame];
}

static bool bad_frame(const Segment *s, uint32_t frame, const char *what, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    return fail(error, "frame %u of segment %s in store '%s' %s; run kiln fsck --read-data", frame,
                digest_to_hex(&s->digest, hex), s->store->path, what);
}

static bool read_bytes(Segment *s, uint32_t frame, uint8_t *to, uint32_t size, GError **error)
{
    int fd = file_take(s, error);
    bool ok;

    if (fd < 0)
        return false;
    ok = io_pread_full(fd, to, size, s->entries[frame].offset);
    if (!ok)
        (void)bad_frame(s, frame, g_strerror(errno), error);
    file_give_back(s);
    return ok;
}

static bool head_of(Segment *s, uint32_t frame, const uint8_t *bytes, uint32_t size, FrameHead *ret, GError **error)
{
    const SegmentEntry *e = &s->entries[frame];

    if (!frame_parse_head(bytes, size, ret) || ret->blocks != e->blocks || ret->encoding != e->encoding ||
        ret->payload + frame_head_size(ret->blocks) != e->size)
        return bad_frame(s, frame, "has a damaged head", error);
    return true;
}

static bool check_number(Segment *s, uint32_t frame, GError **error)
{
    return frame < s->frames || bad_frame(s, frame, "does not exist", error);
}

static bool load_hashes(Segment *s, uint32_t frame, CachedFrame **ret, GError **error)
{
    uint32_t size = frame_head_size(s->entries[frame].blocks);
    g_autofree uint8_t *bytes = g_malloc(size);
    FrameHead head;

    if (!read_bytes(s, frame, bytes, size, error) || !head_of(s, frame, bytes, size, &head, error))
        return false;
    *ret = cached_frame_new(s->serial, frame, head.blocks * DIGEST_SIZE);
    memcpy((*ret)->data, head.hashes, (*ret)->size);
    frame_cache_put(s->store->heads, *ret);
    return true;
}

static bool own_hashes(Segment *s, uint32_t frame, Digest ret[FRAME_MAX_BLOCKS], unsigned *ret_blocks, GError **error)
{
    g_autoptr(CachedFrame) cached = NULL;

    if (!check_number(s, frame, error))
        return false;
    cached = frame_cache_get(s->store->heads, s->serial, frame);
    if (!cached && !load_hashes(s, frame, &cached, error))
        return false;
    memcpy(ret, cached->data, cached->size);
    *ret_blocks = cached->size / DIGEST_SIZE;
    return true;
}

static bool load_stored(Segment *s, uint32_t frame, uint8_t *stored, FrameHead *ret_head, uint8_t *plain, GError **error)
{
    uint32_t size = s->entries[frame].size;

    if (!read_bytes(s, frame, stored, size, error) || !head_of(s, frame, stored, size, ret_head, error))
        return false;
    return frame_decode(ret_head, stored + frame_head_size(ret_head->blocks), plain) ||
           bad_frame(s, frame, "is damaged: its blocks do not have their hashes", error);
}

bool segment_stored(Segment *s, uint32_t frame, uint8_t *stored, FrameHead *ret_head, uint8_t *plain, GError **error)
{
    if (segment_is_moved(s))
        return bad_frame(s, frame, "was repacked", error);
    return check_number(s, frame, error) && load_stored(s, frame, stored, ret_head, plain, error);
}

static bool load_plain(Segment *s, uint32_t frame, CachedFrame **ret, GError **error)
{
    g_autofree uint8_t *bytes = g_malloc(s->entries[frame].size);
    g_autoptr(CachedFrame) cached = cached_frame_new(s->serial, frame, s->entries[frame].blocks * STORE_BLOCK_SIZE);
    FrameHead head;

    if (!load_stored(s, frame, bytes, &head, cached->data, error))
        return false;
    *ret = g_steal_pointer(&cached);
    return true;
}

static bool own_read(Segment *s, uint32_t frame, uint32_t from, uint32_t size, void *to, GError **error)
{
    g_autoptr(CachedFrame) cached = NULL;

    if (!check_number(s, frame, error))
        return false;
    cached = frame_cache_get(s->store->plain, s->serial, frame);
    if (!cached) {
        if (!load_plain(s, frame, &cached, error))
            return false;
        frame_cache_put(s->store->plain, cached);
    }
    if (from > cached->size || size > cached->size - from)
        return bad_frame(s, frame, "has fewer blocks than a map says", error);
    memcpy(to, cached->data + from, size);
    return true;
}

/* --- segments that have moved --- */

static SegmentMoved *table_of(const Segment *s)
{
    return g_atomic_pointer_get(&((Segment *)s)->moved);
}

bool segment_is_moved(const Segment *segment)
{
    return table_of(segment) != NULL;
}

/* True when there is another table than @seen now (NULL: none so far), and the segment's own file is gone. */
static bool follow(Segment *s, const SegmentMoved *seen)
{
    auto_fd int fd = segment_open_file(s->store, &s->digest);
    SegmentMoved *moved = NULL;

    if (fd >= 0 || errno != ENOENT || !segment_moved_load(s->store, &s->digest, &moved, NULL) || !moved)
        return false;
    AUTO_LOCK(&s->store->lock);
    if (moved->frames != s->frames || s->moved != seen) {
        segment_moved_free(moved); /* another's, or another thread was quicker */
        return s->moved != seen;
    }
    if (s->moved)
        g_ptr_array_add(s->stale, s->moved);
    g_atomic_pointer_set(&s->moved, moved);
    return true;
}

/* The same bytes may come again, by a bake or a copy from another store: then there is a file as before, and who asks now gets that. */
static bool came_back(Segment *s, Segment **ret)
{
    Segment *now;

    if (!segment_get(s->store, &s->digest, &now, NULL))
        return false;
    if (now == s) {
        segment_forget(s->store, &s->digest);
        if (!segment_get(s->store, &s->digest, &now, NULL))
            return false;
    }
    *ret = now;
    return !segment_is_moved(now);
}

/* One hop. A target that is gone was repacked in its turn, and our table written anew. */
static bool hop(Segment *s, uint32_t position, Segment **ret, uint32_t *ret_position, GError **error)
{
    for (int tries = 0;; tries++) {
        const SegmentMoved *moved = table_of(s);
        g_autoptr(GError) why = NULL;
        uint32_t place = 0;
        Digest target;

        if (!segment_moved_find(moved, position, &target, &place))
            (void)bad_frame(s, position_frame(position), "was repacked without a block that is needed", &why);
        if (!why && segment_get(s->store, &target, ret, &why)) {
            *ret_position = place;
            return true;
        }
        if (tries == 0 && follow(s, moved))
            continue;
        *ret_position = position;
        if (came_back(s, ret))
            return true;
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
}

bool segment_locate(Segment *s, uint32_t position, Segment **ret, uint32_t *ret_position, GError **error)
{
    for (int hops = 0; segment_is_moved(s); hops++) {
        if (hops == MAX_HOPS)
            return bad_frame(s, position_frame(position), "was moved in a circle", error);
        if (!hop(s, position, &s, &position, error))
            return false;
    }
    *ret = s;
    *ret_position = position;
    return true;
}

bool segment_holds(Segment *s, uint32_t position)
{
    return segment_locate(s, position, &s, &position, NULL) && position_frame(position) < s->frames &&
           position_block(position) < s->entries[position_frame(position)].blocks;
}

static bool moved_read(Segment *s, uint32_t frame, uint32_t from, uint32_t size, uint8_t *to, GError **error)
{
    if (from > FRAME_MAX_BYTES || size > FRAME_MAX_BYTES - from)
        return bad_frame(s, frame, "has fewer blocks than a map says", error);
    while (size > 0) {
        uint32_t inside = from % STORE_BLOCK_SIZE, part = MIN(size, STORE_BLOCK_SIZE - inside), position;
        Segment *at;

        if (!segment_locate(s, position_of(frame, from / STORE_BLOCK_SIZE), &at, &position, error) ||
            !segment_read(at, position_frame(position), position_block(position) * STORE_BLOCK_SIZE + inside, part, to, error))
            return false;
        to += part;
        from += part;
        size -= part;
    }
    return true;
}

static bool moved_hashes(Segment *s, uint32_t frame, Digest ret[FRAME_MAX_BLOCKS], unsigned *ret_blocks, GError **error)
{
    for (unsigned i = 0; i < FRAME_MAX_BLOCKS; i++) {
        Digest hashes[FRAME_MAX_BLOCKS], target;
        uint32_t position;
        unsigned blocks;
        Segment *at;

        ret[i] = digest_none;
        if (!segment_moved_find(table_of(s), position_of(frame, i), &target, &position))
            continue;
        if (!segment_locate(s, position_of(frame, i), &at, &position, error) ||
            !segment_hashes(at, position_frame(position), hashes, &blocks, error))
            return false;
        if (position_block(position) >= blocks)
            return bad_frame(s, frame, "was moved to where its blocks are not", error);
        ret[i] = hashes[position_block(position)];
    }
    *ret_blocks = FRAME_MAX_BLOCKS;
    return true;
}

bool segment_read(Segment *s, uint32_t frame, uint32_t from, uint32_t size, void *to, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (segment_is_moved(s))
        return moved_read(s, frame, from, size, to, error);
    if (own_read(s, frame, from, size, to, &why))
        return true;
    if (follow(s, NULL))
        return moved_read(s, frame, from, size, to, error);
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

bool segment_hashes(Segment *s, uint32_t frame, Digest ret[FRAME_MAX_BLOCKS], unsigned *ret_blocks, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (segment_is_moved(s))
        return check_number(s, frame, error) && moved_hashes(s, frame, ret, ret_blocks, error);
    if (own_hashes(s, frame, ret, ret_blocks, &why))
        return true;
    if (follow(s, NULL))
        return moved_hashes(s, frame, ret, ret_blocks, error);
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

/* Repacked segments, also those that become it right now, are read block by block as always. */
bool segment_read_once(Segment *s, uint32_t frame, uint32_t from, uint32_t size, void *to, GError **error)
{
    g_autofree uint8_t *bytes = NULL;
    FrameHead head;

    if (segment_is_moved(s) || frame >= s->frames || from != 0 || size != (uint32_t)s->entries[frame].blocks * STORE_BLOCK_SIZE)
        return segment_read(s, frame, from, size, to, error);
    bytes = g_malloc(s->entries[frame].size);
    return load_stored(s, frame, bytes, &head, to, NULL) || segment_read(s, frame, from, size, to, error);
}

bool segment_verify_frame(Segment *s, uint32_t frame, GError **error)
{
    g_autoptr(CachedFrame) cached = NULL;

    return check_number(s, frame, error) && load_plain(s, frame, &cached, error);
}
