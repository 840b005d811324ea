/* SPDX-License-Identifier: Apache-2.0 */
/*
 * StoreWriter: frames and segments of one class being written, and the commit.
 *
 * Order of writes: frames -> segment file in tmp -> fdatasync -> (in one catalog transaction) rename ->
 * fsync folder -> rows. A name in segments/ without a row is therefore either a commit that is
 * running (and holds the catalog's write lock) or one that was killed; recovery adopts the latter.
 *
 * New blocks that arrive alone are gathered into a common frame of 32; a window of 32 neighbours that are all new
 * becomes a frame of its own, so that reading a fresh disk from front to back unpacks every frame once.
 *
 * Frames are compressed by all processors and appended by the caller's thread in the order in which they were made (store/ordered.h): a
 * segment's bytes do not depend on the number of threads, and all I/O stays where the caller is.
 */
#include "store/writer.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/arrival.h"
#include "store/block-index.h"
#include "store/ordered.h"
#include "store/store-private.h"

/* Blocks this writer has appended: found again by hash before the index knows them. */
typedef struct OwnBlock {
    Digest hash;
    uint32_t position;
} OwnBlock;

typedef struct OwnFrame {
    uint32_t file, number;
} OwnFrame;

/* A frame on its way into a segment. */
typedef struct FrameJob {
    uint32_t frame; /* our own number */
    unsigned blocks;
    Digest hashes[FRAME_MAX_BLOCKS];
    uint8_t encoding;
    uint32_t size; /* encoded */
    uint8_t *data, *encoded;
} FrameJob;

struct StoreWriter {
    Store *store;
    BlockClass class;
    StoreLease *lease;
    bool failed, committed;

    GPtrArray *files;  /* of SegmentFile*; the last one may be open */
    GArray *frames;    /* of OwnFrame, by our own number */
    GPtrArray *foreign; /* of Segment* */
    GHashTable *foreign_index;
    GArray *hooks;

    GArray *blocks; /* of OwnBlock */
    uint32_t *slots; /* open addressing: index into blocks + 1 */
    uint32_t slot_mask;
    uint64_t new_bytes;

    uint8_t *gather; /* the common frame */
    Digest gather_hashes[FRAME_MAX_BLOCKS];
    unsigned gathered;
    uint32_t gather_frame;

    Ordered *ring; /* made with the first frame */
    FrameJob *jobs;
    unsigned job_count;
};

static void free_segment_file(gpointer file)
{
    segment_file_free(file);
}

static StoreWriter *writer_new(Store *store, BlockClass class)
{
    StoreWriter *w = g_new0(StoreWriter, 1);

    w->store = store;
    w->class = class;
    w->files = g_ptr_array_new_with_free_func(free_segment_file);
    w->frames = g_array_new(FALSE, FALSE, sizeof(OwnFrame));
    w->foreign = g_ptr_array_new();
    w->foreign_index = g_hash_table_new(NULL, NULL);
    w->hooks = g_array_new(FALSE, FALSE, sizeof(WriterHook));
    w->blocks = g_array_new(FALSE, FALSE, sizeof(OwnBlock));
    w->slot_mask = 1023;
    w->slots = g_new0(uint32_t, w->slot_mask + 1);
    w->gather = g_malloc(FRAME_MAX_BYTES);
    return w;
}

static void end_ring(StoreWriter *w)
{
    g_clear_pointer(&w->ring, ordered_free);
    for (unsigned i = 0; i < w->job_count; i++) {
        g_free(w->jobs[i].data);
        g_free(w->jobs[i].encoded);
    }
    w->job_count = 0;
    g_clear_pointer(&w->jobs, g_free);
}

bool store_writer_open(Store *store, BlockClass class, StoreWriter **ret, GError **error)
{
    g_autoptr(StoreWriter) w = NULL;

    if (!store_writable(store, error))
        return false;
    w = writer_new(store, class);
    /* The lease before the index: what the index offers from now on stays. */
    if (!store_lease_take(store, "writer", &w->lease, error) || !block_index_refresh(store, error))
        return false;
    *ret = g_steal_pointer(&w);
    return true;
}

void store_writer_free(StoreWriter *w)
{
    if (!w)
        return;
    for (guint i = 0; i < w->hooks->len; i++) {
        const WriterHook *hook = &g_array_index(w->hooks, WriterHook, i);

        if (hook->orphaned)
            hook->orphaned(hook->arg);
    }
    store_lease_release(w->lease);
    end_ring(w);
    g_ptr_array_unref(w->files);
    g_array_unref(w->frames);
    g_ptr_array_unref(w->foreign);
    g_hash_table_destroy(w->foreign_index);
    g_array_unref(w->hooks);
    g_array_unref(w->blocks);
    g_free(w->slots);
    g_free(w->gather);
    g_free(w);
}

BlockClass store_writer_class(const StoreWriter *writer)
{
    return writer->class;
}

Store *store_writer_store(const StoreWriter *writer)
{
    return writer->store;
}

uint64_t store_writer_new_bytes(const StoreWriter *writer)
{
    return writer->new_bytes;
}

uint64_t store_writer_fresh_blocks(const StoreWriter *writer)
{
    return writer->blocks->len;
}

void store_writer_add_hook(StoreWriter *writer, const WriterHook *hook)
{
    g_array_append_val(writer->hooks, *hook);
}

void store_writer_drop_hooks(StoreWriter *writer, const void *arg)
{
    for (guint i = writer->hooks->len; i > 0; i--)
        if (g_array_index(writer->hooks, WriterHook, i - 1).arg == arg)
            g_array_remove_index(writer->hooks, i - 1);
}

/* --- our own blocks by hash --- */

static uint32_t slot_of(const StoreWriter *w, const Digest *hash)
{
    uint32_t at;

    memcpy(&at, hash->bytes, sizeof(at));
    at &= w->slot_mask;
    while (w->slots[at] && !digest_equal(&g_array_index(w->blocks, OwnBlock, w->slots[at] - 1).hash, hash))
        at = (at + 1) & w->slot_mask;
    return at;
}

static void grow_slots(StoreWriter *w)
{
    w->slot_mask = w->slot_mask * 2 + 1;
    g_free(w->slots);
    w->slots = g_new0(uint32_t, (size_t)w->slot_mask + 1);
    for (guint i = 0; i < w->blocks->len; i++)
        w->slots[slot_of(w, &g_array_index(w->blocks, OwnBlock, i).hash)] = i + 1;
}

static void remember(StoreWriter *w, const Digest *hash, uint32_t position)
{
    OwnBlock block = { *hash, position };
    uint32_t at = slot_of(w, hash);

    if (w->slots[at])
        return; /* a frame of its own holds the same block twice */
    g_array_append_val(w->blocks, block);
    w->slots[at] = w->blocks->len;
    if (w->blocks->len > w->slot_mask / 4 * 3)
        grow_slots(w);
}

static bool find_own(const StoreWriter *w, const Digest *hash, BlockRef *ret)
{
    uint32_t at = slot_of(w, hash);

    if (!w->slots[at])
        return false;
    ret->segment = REF_OWN;
    ret->position = g_array_index(w->blocks, OwnBlock, w->slots[at] - 1).position;
    return true;
}

bool store_writer_may_refer(const StoreWriter *writer, const Segment *segment)
{
    return segment_class(segment) >= writer->class;
}

uint32_t store_writer_foreign(StoreWriter *w, Segment *segment)
{
    gpointer found;

    if (g_hash_table_lookup_extended(w->foreign_index, segment, NULL, &found))
        return GPOINTER_TO_UINT(found);
    g_ptr_array_add(w->foreign, segment);
    g_hash_table_insert(w->foreign_index, segment, GUINT_TO_POINTER(w->foreign->len - 1));
    return w->foreign->len - 1;
}

static bool find_known(StoreWriter *w, const Digest *hash, BlockRef *ret)
{
    Segment *segment;

    if (find_own(w, hash, ret))
        return true;
    if (!block_index_find(w->store, hash, w->class, &segment, &ret->position))
        return false;
    ret->segment = store_writer_foreign(w, segment);
    return true;
}

/* --- frames --- */

static bool told(StoreWriter *w, GError **error)
{
    w->failed = true;
    return fail_prefix(error, "store '%s'", w->store->path);
}

static bool open_file(StoreWriter *w, SegmentFile **ret, GError **error)
{
    SegmentFile *last = w->files->len ? w->files->pdata[w->files->len - 1] : NULL;
    int dirfd;

    if (last && (last->size >= SEGMENT_TARGET_SIZE || last->entries->len >= SEGMENT_MAX_FRAMES)) {
        if (!segment_file_finish(last, error))
            return told(w, error);
        last = NULL;
    }
    if (!last || last->finished) {
        if (!store_owner_dir(w->store, &dirfd, error))
            return false;
        if (!segment_file_new(dirfd, store_fresh_name(w->store, "segment"), w->class, &last, error))
            return told(w, error);
        g_ptr_array_add(w->files, last);
    }
    *ret = last;
    return true;
}

static uint32_t reserve_frame(StoreWriter *w)
{
    OwnFrame none = { UINT32_MAX, 0 };

    g_array_append_val(w->frames, none);
    return w->frames->len - 1;
}

static bool job_encode(void *slot, void *arg, GError **error)
{
    FrameJob *job = slot;

    job->size = frame_encode(compressor_of_thread(), job->data, job->hashes, job->blocks, job->encoded, &job->encoding);
    return true;
}

static bool job_append(void *slot, void *arg, GError **error)
{
    StoreWriter *w = arg;
    const FrameJob *job = slot;
    SegmentFile *file = NULL;

    if (!open_file(w, &file, error))
        return false;
    if (!segment_file_append(file, job->encoded, job->size, job->blocks, job->encoding, error))
        return told(w, error);
    g_array_index(w->frames, OwnFrame, job->frame) = (OwnFrame){ w->files->len - 1, file->entries->len - 1 };
    w->new_bytes += job->size;
    return true;
}

/* Twice as many frames as threads: while one is appended, each thread has its next. */
static void start_ring(StoreWriter *w)
{
    static const OrderedOps ops = { NULL, job_encode, job_append };

    w->job_count = 2 * ordered_threads() + 2;
    w->jobs = g_new0(FrameJob, w->job_count);
    for (unsigned i = 0; i < w->job_count; i++) {
        w->jobs[i].data = g_malloc(FRAME_MAX_BYTES);
        w->jobs[i].encoded = g_malloc(FRAME_MAX_STORED);
    }
    w->ring = ordered_new(&ops, w->jobs, sizeof *w->jobs, w->job_count, w);
}

static bool write_frame(StoreWriter *w, uint32_t frame, const uint8_t *data, const Digest *hashes, unsigned blocks, GError **error)
{
    FrameJob *job;
    void *slot;

    if (w->failed)
        return fail(error, "store '%s': an earlier write failed", w->store->path);
    if (!w->ring)
        start_ring(w);
    if (!ordered_slot(w->ring, &slot, error)) {
        w->failed = true;
        return false;
    }
    job = slot;
    job->frame = frame;
    job->blocks = blocks;
    memcpy(job->data, data, (size_t)blocks * STORE_BLOCK_SIZE);
    memcpy(job->hashes, hashes, blocks * sizeof(*hashes));
    ordered_push(w->ring);
    return true;
}

static bool flush_gathered(StoreWriter *w, GError **error)
{
    unsigned blocks = w->gathered;

    w->gathered = 0;
    return blocks == 0 || write_frame(w, w->gather_frame, w->gather, w->gather_hashes, blocks, error);
}

static bool gather(StoreWriter *w, const uint8_t *data, const Digest *hash, BlockRef *ret, GError **error)
{
    if (w->gathered == 0)
        w->gather_frame = reserve_frame(w);
    memcpy(w->gather + (size_t)w->gathered * STORE_BLOCK_SIZE, data, STORE_BLOCK_SIZE);
    w->gather_hashes[w->gathered] = *hash;
    ret->segment = REF_OWN;
    ret->position = position_of(w->gather_frame, w->gathered);
    remember(w, hash, ret->position);
    return ++w->gathered < FRAME_MAX_BLOCKS || flush_gathered(w, error);
}

bool store_writer_knows_block(StoreWriter *w, const uint8_t data[STORE_BLOCK_SIZE])
{
    BlockRef ref;
    Digest hash;

    digest_of(data, STORE_BLOCK_SIZE, &hash);
    return find_known(w, &hash, &ref);
}

static bool put_whole_window(StoreWriter *w, const uint8_t *data, const Digest *hashes, BlockRef *ret, GError **error)
{
    uint32_t frame = reserve_frame(w);

    if (!write_frame(w, frame, data, hashes, FRAME_MAX_BLOCKS, error))
        return false;
    for (unsigned i = 0; i < FRAME_MAX_BLOCKS; i++) {
        ret[i] = (BlockRef){ REF_OWN, position_of(frame, i) };
        remember(w, &hashes[i], ret[i].position);
    }
    return true;
}

static bool twins_inside(const Digest *hashes)
{
    for (unsigned i = 1; i < FRAME_MAX_BLOCKS; i++)
        for (unsigned j = 0; j < i; j++)
            if (hashes[i].bytes[0] == hashes[j].bytes[0] && digest_equal(&hashes[i], &hashes[j]))
                return true;
    return false;
}

void store_hash_blocks(const uint8_t *data, size_t count, Digest *ret)
{
    for (size_t i = 0; i < count; i++, data += STORE_BLOCK_SIZE) {
        ret[i] = digest_none;
        if (!bytes_are_zero(data, STORE_BLOCK_SIZE))
            digest_of(data, STORE_BLOCK_SIZE, &ret[i]);
    }
}

bool store_writer_put_hashed(StoreWriter *w, const uint8_t *data, const Digest *hashes, unsigned count, BlockRef *ret, GError **error)
{
    bool known[FRAME_MAX_BLOCKS];
    unsigned news = 0;

    g_assert(count <= FRAME_MAX_BLOCKS && !w->committed);
    for (unsigned i = 0; i < count; i++) {
        ret[i] = (BlockRef){ REF_ZERO, 0 };
        known[i] = digest_is_none(&hashes[i]) || find_known(w, &hashes[i], &ret[i]);
        news += !known[i];
    }
    if (news == FRAME_MAX_BLOCKS && !twins_inside(hashes))
        return put_whole_window(w, data, hashes, ret, error);
    for (unsigned i = 0; i < count; i++) {
        /* Looked up again: the same block may have come a moment ago. */
        if (!known[i] && !find_own(w, &hashes[i], &ret[i]) &&
            !gather(w, data + (size_t)i * STORE_BLOCK_SIZE, &hashes[i], &ret[i], error))
            return false;
    }
    return true;
}

void store_writer_resolve(const StoreWriter *w, const BlockRef *ref, Digest *ret_segment, uint32_t *ret_position)
{
    const OwnFrame *own;
    const SegmentFile *file;

    if (ref->segment != REF_OWN) {
        *ret_segment = *segment_digest(w->foreign->pdata[ref->segment]);
        *ret_position = ref->position;
        return;
    }
    own = &g_array_index(w->frames, OwnFrame, position_frame(ref->position));
    file = w->files->pdata[own->file];
    g_assert(file->finished);
    *ret_segment = file->digest;
    *ret_position = position_of(own->number, position_block(ref->position));
}

/* --- commit --- */

static bool finish_files(StoreWriter *w, GError **error)
{
    if (!flush_gathered(w, error) || (w->ring && !ordered_drain(w->ring, error)))
        return false;
    end_ring(w);
    for (guint i = 0; i < w->files->len; i++) {
        SegmentFile *file = w->files->pdata[i];

        if (!file->finished && !segment_file_finish(file, error))
            return told(w, error);
        if (!segment_file_sync(file, error))
            return told(w, error);
    }
    return true;
}

static bool place_all(StoreWriter *w, Database *db, GError **error)
{
    int64_t created = g_get_real_time();

    for (guint i = 0; i < w->files->len; i++)
        if (!segment_place_own(w->store, db, w->files->pdata[i], created, error))
            return false;
    for (guint i = 0; i < w->hooks->len; i++) {
        const WriterHook *hook = &g_array_index(w->hooks, WriterHook, i);

        if (hook->place && !hook->place(hook->arg, db, created, error))
            return false;
    }
    return true;
}

static bool publish(StoreWriter *w, GError **error)
{
    Database *db;

    if (!store_catalog(w->store, &db, error) || !database_begin(db, false, error))
        return false;
    if (!place_all(w, db, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

/* What we committed is not published yet: our lease, which is the oldest claim, goes to the store if that has none. */
static void hand_over_lease(StoreWriter *w)
{
    AUTO_LOCK(&w->store->tmp_lock);
    if (!w->store->lease)
        w->store->lease = g_steal_pointer(&w->lease);
}

static bool run_hooks(StoreWriter *w, bool done, GError **error)
{
    for (guint i = 0; i < w->hooks->len; i++) {
        const WriterHook hook = g_array_index(w->hooks, WriterHook, i);
        bool (*fn)(void *, GError **) = done ? hook.done : hook.stage;

        if (fn && !fn(hook.arg, error))
            return false;
    }
    return true;
}

bool store_writer_commit(StoreWriter *w, GError **error)
{
    g_autoptr(GError) why = NULL;

    g_assert(!w->committed);
    if (w->failed)
        return fail(error, "store '%s': an earlier write failed", w->store->path);
    if (!finish_files(w, error) || !run_hooks(w, false, error) || !publish(w, error)) {
        w->failed = true;
        return false;
    }
    w->committed = true;
    hand_over_lease(w);
    /* The index is derived: when it cannot grow, only deduplication suffers, and the next writer tries again. */
    if (w->files->len > 0 && !block_index_refresh(w->store, &why))
        trace("store.index", "%s", why->message);
    return run_hooks(w, true, error);
}
