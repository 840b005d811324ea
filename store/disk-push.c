/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk as an artifact, to a registry.
 *
 *   1. what the repository has: the indexes of the segments of manifests that were recorded as pushed or pulled there, and still are there
 *   2. segments of the store of which every block is the image's, and none is there: sent as they stand
 *   3. blocks that are in neither: into new segments, frames of the store as they stand where all that is in one is the image's
 *   4. maps over all of these, then the manifest
 *
 * So nothing is sent but blocks of this very image, whatever else shares its segments in the store. Who serves its own disks (serve-disk.c) has
 * other images in the same repository: blocks of those may be in a segment, too.
 */
#include "store/disk-artifact.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/manifests.h"
#include "store/map-private.h"
#include "store/oci-end.h"
#include "store/segment-index.h"
#include "store/store-private.h"


#define BASES_MAX 4
#define CONFIG_MAX 65536
#define TREE_MAX (512u << 20)
#define SEGMENTS_MAX 120 /* with their indexes and the maps well under the 500 layers that registries take */

/* A segment as it is, or will be, in the repository. */
typedef struct There {
    SegmentIndex *index;
    Digest index_digest;
    uint64_t index_size;
    bool base;        /* it is there already */
    Segment *stored;  /* of the store, to be sent as it stands */
    SegmentFile *own; /* made here */
    GArray *pieces;   /* of DiskPiece: of it, from the store */
    uint64_t used;    /* blocks of the image in it */
    bool shunned;
} There;

typedef struct Place {
    uint32_t segment, position; /* index into the list + 1; 0: free slot */
} Place;

typedef struct Push {
    Store *store;
    const StoreImage *image;
    const DiskSink *sink;
    GPtrArray *there; /* of There* */
    Place *slots;     /* by the hash of the block at the place */
    uint32_t slot_mask, filled;

    There *own; /* that is being written */
    uint8_t *gathered;
    Digest hashes[FRAME_MAX_BLOCKS];
    unsigned gather_count;
    uint8_t *encoded;

    GHashTable *all; /* Segment* -> Stored*: where the image's blocks are in the store */

    Progress *progress;
    uint64_t new_blocks;
} Push;

static void there_free(gpointer data)
{
    There *t = data;

    segment_index_free(t->index);
    segment_file_free(t->own);
    if (t->pieces)
        g_array_unref(t->pieces);
    g_free(t);
}

/* --- places by hash --- */

static const Digest *hash_at(const Push *p, const Place *place)
{
    const There *t = p->there->pdata[place->segment - 1];
    uint32_t frame = position_frame(place->position);

    if (t == p->own && frame == t->index->entries->len)
        return &p->hashes[position_block(place->position)];
    return segment_index_hash(t->index, place->position);
}

static uint32_t slot_of(const Push *p, const Digest *hash)
{
    uint32_t at;

    memcpy(&at, hash->bytes, sizeof at);
    at &= p->slot_mask;
    while (p->slots[at].segment && !digest_equal(hash_at(p, &p->slots[at]), hash))
        at = (at + 1) & p->slot_mask;
    return at;
}

static void grow(Push *p)
{
    Place *old = p->slots;
    uint32_t count = p->slot_mask + 1;

    p->slot_mask = p->slot_mask * 2 + 1;
    p->slots = g_new0(Place, (size_t)p->slot_mask + 1);
    for (uint32_t i = 0; i < count; i++)
        if (old[i].segment)
            p->slots[slot_of(p, hash_at(p, &old[i]))] = old[i];
    g_free(old);
}

/* The first place of a block stays its place. */
static void note(Push *p, const Digest *hash, guint segment, uint32_t position)
{
    uint32_t at = slot_of(p, hash);

    if (p->slots[at].segment)
        return;
    p->slots[at] = (Place){segment + 1, position};
    if (++p->filled > p->slot_mask / 4 * 3)
        grow(p);
}

static void note_all(Push *p, guint segment)
{
    const There *t = p->there->pdata[segment];

    for (uint32_t frame = 0; frame < t->index->entries->len; frame++)
        for (unsigned block = 0; block < g_array_index(t->index->entries, SegmentEntry, frame).blocks; block++)
            note(p, segment_index_hash(t->index, position_of(frame, block)), segment, position_of(frame, block));
}

static bool find(const Push *p, const Digest *hash, Place *ret)
{
    uint32_t at = slot_of(p, hash);

    *ret = p->slots[at];
    return ret->segment != 0;
}

static void forget_places(Push *p)
{
    memset(p->slots, 0, ((size_t)p->slot_mask + 1) * sizeof *p->slots);
    p->filled = 0;
    for (guint i = 0; i < p->there->len; i++)
        if (!((There *)p->there->pdata[i])->shunned)
            note_all(p, i);
}

/* --- 1. what the repository has --- */

static bool knows_segment(const Push *p, const Digest *segment)
{
    for (guint i = 0; i < p->there->len; i++)
        if (digest_equal(&((There *)p->there->pdata[i])->index->segment, segment))
            return true;
    return false;
}

static bool add_base_segment(Push *p, const Digest *index_digest)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(SegmentIndex) index = NULL;
    There *t;

    if (!store_blob_get(p->store, index_digest, SEGMENT_INDEX_MAX, &bytes, NULL) ||
        !segment_index_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &index, NULL))
        return false;
    if (knows_segment(p, &index->segment))
        return true;
    t = g_new0(There, 1);
    t->index = g_steal_pointer(&index);
    t->index_digest = *index_digest;
    t->index_size = g_bytes_get_size(bytes);
    t->base = true;
    g_ptr_array_add(p->there, t);
    note_all(p, p->there->len - 1);
    return true;
}

/* What cannot be read here is not relied on. */
static void add_bases(Push *p)
{
    for (guint i = 0; i < p->sink->bases->len; i++)
        (void)add_base_segment(p, &g_array_index(p->sink->bases, Digest, i));
}

/* --- walking the blocks of a map --- */

/* One run or a part of it, within one frame. */
typedef bool PartFn(Push *p, StoreMap *map, const MapRun *part, const Digest *hashes, void *arg, GError **error);

static bool each_part(Push *p, StoreMap *map, PartFn *fn, void *arg, GError **error)
{
    const MapBody *body = store_map_body(map);

    for (guint i = 0; i < body->runs->len; i++) {
        MapRun run = g_array_index(body->runs, MapRun, i);

        while (run.count > 0) {
            MapRun part = run;
            Digest hashes[FRAME_MAX_BLOCKS];

            /* Whole windows of the disk come together where their frame does. */
            part.count = MIN(run.count, FRAME_MAX_BLOCKS - position_block(run.position));
            if (!interrupt_check(error) || !store_map_hashes(map, part.block, part.count, hashes, error) || !fn(p, map, &part, hashes, arg, error))
                return false;
            run.block += part.count;
            run.position += part.count;
            run.count -= part.count;
        }
    }
    return true;
}

/* --- 2. segments as they stand --- */

typedef struct Stored {
    Segment *segment;
    GByteArray *seen; /* a byte for each position: 1 it is the image's, 2 a donor's */
    uint64_t count;
    bool known; /* a block of it is in the repository */
} Stored;

static void stored_free(gpointer data)
{
    Stored *s = data;

    g_byte_array_unref(s->seen);
    g_free(s);
}

static Stored *stored_of(GHashTable *all, Segment *segment)
{
    Stored *s = g_hash_table_lookup(all, segment);

    if (s)
        return s;
    s = g_new0(Stored, 1);
    s->segment = segment;
    s->seen = g_byte_array_new();
    g_byte_array_set_size(s->seen, segment_frames(segment) * FRAME_MAX_BLOCKS);
    memset(s->seen->data, 0, s->seen->len);
    g_hash_table_insert(all, segment, s);
    return s;
}

static bool count_part(Push *p, StoreMap *map, const MapRun *part, const Digest *hashes, void *arg, GError **error)
{
    GHashTable *all = arg;
    Segment *segment;

    if (!store_map_segment(map, part->segment, &segment, error))
        return false;
    for (uint32_t i = 0; i < part->count; i++) {
        Segment *at;
        uint32_t position;
        Place place;
        Stored *s;

        if (!segment_locate(segment, part->position + i, &at, &position, error))
            return false;
        s = stored_of(all, at);
        if (position >= s->seen->len)
            return fail(error, "a map names blocks that its segment has not; run kiln fsck");
        s->count += !s->seen->data[position];
        s->seen->data[position] = 1;
        s->known = s->known || find(p, &hashes[i], &place);
    }
    return true;
}

/* Blocks that others of the repository have: *ret, has it any that nobody had before? Runs are enough, as the hashes are not asked for. */
static bool count_donor_map(StoreMap *map, GHashTable *all, bool *ret, GError **error)
{
    const MapBody *body = store_map_body(map);

    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        Segment *segment;
        Stored *s;

        if (!store_map_segment(map, run->segment, &segment, error))
            return false;
        for (uint32_t block = 0; block < run->count; block++) {
            Segment *at;
            uint32_t position;

            if (!segment_locate(segment, run->position + block, &at, &position, error))
                return false;
            s = g_hash_table_lookup(all, at);
            if (!s || position >= s->seen->len || s->seen->data[position])
                continue;
            *ret = true;
            s->count++;
            s->seen->data[position] = 2;
        }
    }
    return true;
}

/* What of them cannot be read gives nothing. */
static bool count_donors(Push *p, GHashTable *all, GError **error)
{
    for (guint i = 0; p->sink->donors && i < p->sink->donors->len; i++) {
        DiskDonor *donor = p->sink->donors->pdata[i];

        for (guint m = 0; m < donor->maps->len; m++) {
            g_autoptr(StoreMap) map = NULL;

            if (!interrupt_check(error))
                return false;
            if (store_map_open(p->store, &g_array_index(donor->maps, Digest, m), &map, NULL))
                (void)count_donor_map(map, all, &donor->used, NULL);
        }
    }
    return true;
}

static bool is_wholly_ours(const Stored *s)
{
    uint64_t blocks = 0;

    for (uint32_t frame = 0; frame < segment_frames(s->segment); frame++)
        blocks += segment_entry(s->segment, frame)->blocks;
    return blocks == s->count && !s->known && segment_class(s->segment) == BLOCK_PUBLIC;
}

static int compare_stored(gconstpointer a, gconstpointer b)
{
    const Stored *x = *(Stored *const *)a, *y = *(Stored *const *)b;

    return memcmp(segment_digest(x->segment), segment_digest(y->segment), DIGEST_SIZE);
}

static bool choose_stored(Push *p, StoreMap *const maps[2], GError **error)
{
    GHashTable *all = p->all = g_hash_table_new_full(NULL, NULL, NULL, stored_free);
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    GHashTableIter iter;
    gpointer value;

    for (int i = 0; i < 2; i++)
        if (maps[i] && !each_part(p, maps[i], count_part, all, error))
            return false;
    if (!count_donors(p, all, error))
        return false;
    g_hash_table_iter_init(&iter, all);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (is_wholly_ours(value))
            g_ptr_array_add(list, value);
    g_ptr_array_sort(list, compare_stored);
    for (guint i = 0; i < list->len && i < SEGMENTS_MAX / 2; i++) {
        There *t = g_new0(There, 1);

        t->stored = ((Stored *)list->pdata[i])->segment;
        g_ptr_array_add(p->there, t);
        if (!segment_index_of(t->stored, &t->index, error)) {
            t->index = segment_index_new();
            return false;
        }
        note_all(p, p->there->len - 1);
    }
    return true;
}

/* --- too many segments --- */

static bool use_part(Push *p, StoreMap *map, const MapRun *part, const Digest *hashes, void *arg, GError **error)
{
    for (uint32_t i = 0; i < part->count; i++) {
        Place place;

        if (find(p, &hashes[i], &place))
            ((There *)p->there->pdata[place.segment - 1])->used++;
    }
    return true;
}

static int compare_used(gconstpointer a, gconstpointer b)
{
    const There *x = *(There *const *)a, *y = *(There *const *)b;

    return x->used > y->used ? -1 : x->used < y->used;
}

/* Those that have least of the image are sent anew, in one piece. */
static bool bound_segments(Push *p, StoreMap *const maps[2], GError **error)
{
    g_autoptr(GPtrArray) order = g_ptr_array_new();

    if (p->there->len <= SEGMENTS_MAX / 2)
        return true;
    for (int i = 0; i < 2; i++)
        if (maps[i] && !each_part(p, maps[i], use_part, NULL, error))
            return false;
    for (guint i = 0; i < p->there->len; i++)
        g_ptr_array_add(order, p->there->pdata[i]);
    g_ptr_array_sort(order, compare_used);
    for (guint i = 0; i < order->len; i++) {
        There *t = order->pdata[i];

        t->shunned = i >= SEGMENTS_MAX / 2;
        t->used = 0;
    }
    forget_places(p);
    return true;
}

/* --- 3. new segments --- */

static bool finish_own(Push *p, GError **error)
{
    There *t = p->own;

    if (!t)
        return true;
    if (!segment_file_finish(t->own, error))
        return false;
    t->index->segment = t->own->digest;
    t->index->size = t->own->size;
    p->own = NULL;
    return true;
}

static bool open_own(Push *p, GError **error)
{
    There *t;
    int dirfd;

    if (p->own && (p->own->own->size >= SEGMENT_TARGET_SIZE || p->own->index->entries->len >= SEGMENT_MAX_FRAMES) && !finish_own(p, error))
        return false;
    if (p->own)
        return true;
    if (!store_owner_dir(p->store, &dirfd, error))
        return false;
    t = g_new0(There, 1);
    t->index = segment_index_new();
    t->pieces = g_array_new(FALSE, FALSE, sizeof(DiskPiece));
    g_ptr_array_add(p->there, t);
    if (!segment_file_new(dirfd, store_fresh_name(p->store, "segment"), BLOCK_PUBLIC, &t->own, error))
        return false;
    p->own = t;
    return true;
}

/* As long as one is written no other is added. */
static guint own_number(const Push *p)
{
    g_assert(p->there->pdata[p->there->len - 1] == p->own);
    return p->there->len - 1;
}

static bool append_frame(Push *p, const uint8_t *stored, uint32_t size, uint8_t encoding, const Digest *hashes, unsigned blocks, GError **error)
{
    SegmentFile *file = p->own->own;
    SegmentEntry entry = {(uint32_t)file->size, size, (uint8_t)blocks, encoding};

    if (!segment_file_append(file, stored, size, blocks, encoding, error))
        return false;
    segment_index_add(p->own->index, &entry, hashes);
    p->new_blocks += blocks;
    return true;
}

static bool flush(Push *p, GError **error)
{
    uint8_t encoding;
    uint32_t size;
    unsigned blocks = p->gather_count;

    if (blocks == 0)
        return true;
    size = frame_encode(compressor_of_thread(), p->gathered, p->hashes, blocks, p->encoded, &encoding);
    p->gather_count = 0;
    return append_frame(p, p->encoded, size, encoding, p->hashes, blocks, error);
}

/* The last @size bytes of the new segment are a frame of the store; frames that lie behind each other there too are one piece. */
static void note_piece(Push *p, Segment *segment, uint32_t frame, uint32_t size)
{
    GArray *pieces = p->own->pieces;
    DiskPiece piece = {*segment_digest(segment), p->own->own->size - size, segment_entry(segment, frame)->offset, size};
    DiskPiece *last = pieces->len ? &g_array_index(pieces, DiskPiece, pieces->len - 1) : NULL;

    if (last && digest_equal(&last->segment, &piece.segment) && last->at + last->size == piece.at && last->from + last->size == piece.from)
        last->size += size;
    else
        g_array_append_val(pieces, piece);
}

/* All of it may be sent, half of it at least is the image's, and nothing of it is there. */
static bool frame_is_ours(const Push *p, const Stored *s, uint32_t frame, const Digest *hashes, unsigned blocks)
{
    unsigned ours = 0;
    Place place;

    for (unsigned i = 0; i < blocks; i++) {
        uint8_t seen = s->seen->data[position_of(frame, i)];

        if (!seen || find(p, &hashes[i], &place))
            return false;
        ours += seen == 1;
    }
    return ours > 0 && ours >= blocks / 2;
}

static bool take_frames_of(Push *p, const Stored *s, GError **error)
{
    for (uint32_t frame = 0; frame < segment_frames(s->segment); frame++) {
        Digest hashes[FRAME_MAX_BLOCKS];
        FrameHead head;
        unsigned blocks;
        uint32_t size;

        if (!interrupt_check(error) || !segment_hashes(s->segment, frame, hashes, &blocks, error))
            return false;
        if (!frame_is_ours(p, s, frame, hashes, blocks))
            continue;
        if (!segment_stored(s->segment, frame, p->encoded, &head, p->gathered, NULL))
            return true; /* it moved just now */
        size = frame_head_size(head.blocks) + head.payload;
        if (!open_own(p, error) || !append_frame(p, p->encoded, size, head.encoding, hashes, blocks, error))
            return false;
        note_piece(p, s->segment, frame, size);
        for (unsigned i = 0; i < blocks; i++)
            note(p, &hashes[i], own_number(p), position_of(p->own->index->entries->len - 1, i));
    }
    return true;
}

/* In the order of the store, since few frames come whole in a disk's: it was laid out after its files were stored. */
static bool take_frames(Push *p, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, p->all);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (segment_class(((Stored *)value)->segment) == BLOCK_PUBLIC && !segment_is_moved(((Stored *)value)->segment))
            g_ptr_array_add(list, value);
    g_ptr_array_sort(list, compare_stored);
    for (guint i = 0; i < list->len; i++)
        if (!take_frames_of(p, list->pdata[i], error))
            return false;
    return true;
}

/* A frame of the store as it stands. What is gathered comes before it, so that places that were given stay right. */
static bool take_frame(Push *p, StoreMap *map, const MapRun *part, const Digest *hashes, bool *ret_done, GError **error)
{
    Segment *segment;
    FrameHead head;
    uint32_t frame;

    *ret_done = false;
    if (part->count != FRAME_MAX_BLOCKS || !store_map_whole_frame(map, part->block, &segment, &frame))
        return true;
    if (!flush(p, error) || !open_own(p, error))
        return false;
    if (!segment_stored(segment, frame, p->encoded, &head, p->gathered, NULL))
        return true; /* it moved just now */
    if (!append_frame(p, p->encoded, frame_head_size(head.blocks) + head.payload, head.encoding, hashes, FRAME_MAX_BLOCKS, error))
        return false;
    note_piece(p, segment, frame, frame_head_size(head.blocks) + head.payload);
    for (unsigned i = 0; i < FRAME_MAX_BLOCKS; i++)
        note(p, &hashes[i], own_number(p), position_of(p->own->index->entries->len - 1, i));
    *ret_done = true;
    return true;
}

static bool gather(Push *p, StoreMap *map, const MapRun *part, uint32_t i, const Digest *hash, GError **error)
{
    Segment *segment;
    uint32_t position = part->position + i;

    if (p->gather_count == 0 && !open_own(p, error))
        return false;
    if (!store_map_segment(map, part->segment, &segment, error) ||
        !segment_read(segment, position_frame(position), position_block(position) * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE,
                      p->gathered + (size_t)p->gather_count * STORE_BLOCK_SIZE, error))
        return false;
    p->hashes[p->gather_count] = *hash;
    position = position_of(p->own->index->entries->len, p->gather_count++);
    note(p, hash, own_number(p), position);
    return p->gather_count < FRAME_MAX_BLOCKS || flush(p, error);
}

/* The frame's twins inside are told apart by the first of them. */
static bool place_part(Push *p, StoreMap *map, const MapRun *part, const Digest *hashes, void *arg, GError **error)
{
    MapBody *body = arg;
    unsigned missing = 0;
    bool done = false;
    Place place;

    for (uint32_t i = 0; i < part->count; i++)
        missing += !find(p, &hashes[i], &place);
    if (missing == FRAME_MAX_BLOCKS && !take_frame(p, map, part, hashes, &done, error))
        return false;
    for (uint32_t i = 0; i < part->count; i++) {
        if (!find(p, &hashes[i], &place)) {
            if (!gather(p, map, part, i, &hashes[i], error))
                return false;
            (void)find(p, &hashes[i], &place);
        }
        map_body_append(body, part->block + i, place.segment - 1, place.position);
        ((There *)p->there->pdata[place.segment - 1])->used++;
    }
    return true;
}

/* --- 4. maps and manifest --- */

/* The list's numbers become those of the map's own table; only what it uses is in that. */
static void name_segments(Push *p, MapBody *body)
{
    g_autoptr(GHashTable) indexes = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);

    for (guint i = 0; i < body->runs->len; i++) {
        MapRun *run = &g_array_index(body->runs, MapRun, i);
        const There *t = p->there->pdata[run->segment];

        run->segment = map_body_segment(body, indexes, &t->index->segment);
    }
}

static bool make_map(Push *p, StoreMap *map, MapBody **ret, GError **error)
{
    g_autoptr(MapBody) body = map_body_new(store_map_size(map), BLOCK_PUBLIC);

    if (store_map_body(map)->class != BLOCK_PUBLIC)
        return fail(error, "the map of '%s' is private to the working disk", p->image->name);
    if (!each_part(p, map, place_part, body, error))
        return false;
    *ret = g_steal_pointer(&body);
    return true;
}

static bool make_maps(Push *p, StoreMap *const maps[2], MapBody *ret[2], GError **error)
{
    if (!take_frames(p, error))
        return false;
    for (int i = 0; i < 2; i++)
        if (maps[i] && !make_map(p, maps[i], &ret[i], error))
            return false;
    if (!flush(p, error) || !finish_own(p, error))
        return false;
    for (int i = 0; i < 2; i++)
        if (ret[i])
            name_segments(p, ret[i]);
    return true;
}

static json_t *describe(const char *type, const Digest *digest, uint64_t size)
{
    char oci[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", digest_to_oci(digest, oci), "size", (json_int_t)size);
}

static bool send_bytes(Push *p, const char *type, GBytes *bytes, json_t *layers, GError **error)
{
    Digest digest;

    if (!p->sink->put_bytes(p->sink->arg, bytes, &digest, error))
        return false;
    json_array_append_new(layers, describe(type, &digest, g_bytes_get_size(bytes)));
    return true;
}

static bool send_map(Push *p, const char *type, const MapBody *body, json_t *layers, GError **error)
{
    g_autoptr(GByteArray) plain = map_body_encode(body);
    g_autoptr(GBytes) packed = compress_bytes(plain->data, plain->len);

    return send_bytes(p, type, packed, layers, error);
}

static bool send_tree(Push *p, json_t *layers, GError **error)
{
    g_autoptr(GBytes) plain = NULL, packed = NULL;

    if (!store_blob_get(p->store, &p->image->tree.tree, TREE_MAX, &plain, error))
        return false;
    packed = compress_bytes(g_bytes_get_data(plain, NULL), g_bytes_get_size(plain));
    return send_bytes(p, DISK_TREE_TYPE, packed, layers, error);
}

static bool send_segment(gpointer item, void *arg, GError **error)
{
    Push *p = arg;
    There *t = item;
    auto_fd int stored = t->stored ? segment_open_file(p->store, &t->index->segment) : -1;
    g_autoptr(GBytes) index = NULL;
    Digest digest;

    if (t->stored && stored < 0)
        return store_fail_errno(p->store, error, "open a segment of");
    if (!p->sink->put_segment(p->sink->arg, &t->index->segment, t->index->size, t->stored ? stored : t->own->fd, t->stored ? NULL : t->pieces, p->progress, error))
        return false;
    index = segment_index_encode(t->index);
    t->index_size = g_bytes_get_size(index);
    if (!store_blob_put(p->store, g_bytes_get_data(index, NULL), t->index_size, &t->index_digest, error))
        return false;
    return p->sink->put_bytes(p->sink->arg, index, &digest, error);
}

static bool send_segments(Push *p, DiskTransfer *report, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    uint64_t total = 0;
    bool ok;

    for (guint i = 0; i < p->there->len; i++) {
        There *t = p->there->pdata[i];

        if (t->used == 0)
            continue;
        if (t->base) {
            report->present++;
            continue;
        }
        g_ptr_array_add(list, t);
        total += t->index->size;
    }
    report->segments = list->len;
    report->bytes = total;
    if (report->segments + report->present > SEGMENTS_MAX)
        return fail(error, "the disk would need %" G_GUINT64_FORMAT " segments in the registry, more than the %d that kiln puts into one manifest",
                    report->segments + report->present, SEGMENTS_MAX);
    p->progress = p->sink->title ? progress_new(p->sink->title, total, true) : NULL;
    ok = oci_in_parallel(list, send_segment, p, error);
    if (ok && p->progress)
        progress_done(p->progress);
    g_clear_pointer(&p->progress, progress_free);
    return ok;
}

static void list_segments(const Push *p, json_t *layers, GArray *kept)
{
    for (int indexes = 0; indexes < 2; indexes++)
        for (guint i = 0; i < p->there->len; i++) {
            const There *t = p->there->pdata[i];

            if (t->used == 0)
                continue;
            json_array_append_new(layers, indexes ? describe(DISK_INDEX_TYPE, &t->index_digest, t->index_size)
                                                  : describe(DISK_SEGMENT_TYPE, &t->index->segment, t->index->size));
            if (indexes)
                g_array_append_val(kept, t->index_digest);
        }
}

static bool send_config(Push *p, json_t **ret, GError **error)
{
    g_autoptr(GBytes) config = NULL;
    g_autoptr(json_t) list = json_array();

    if (!store_blob_get(p->store, &p->image->id, CONFIG_MAX, &config, error) || !send_bytes(p, DISK_CONFIG_TYPE, config, list, error))
        return false;
    *ret = json_incref(json_array_get(list, 0));
    return true;
}

static bool send_manifest(Push *p, json_t *config, json_t *layers, DiskTransfer *report, GError **error)
{
    g_autoptr(json_t) manifest = json_pack("{s:i, s:s, s:s, s:O, s:O}", "schemaVersion", 2, "mediaType", OCI_MANIFEST_TYPE, "artifactType", DISK_ARTIFACT_TYPE,
                                           "config", config, "layers", layers);
    g_autofree char *text = json_canonical(manifest);
    g_autoptr(GBytes) bytes = g_bytes_new(text, strlen(text));

    report->manifest_size = strlen(text);
    return store_blob_put(p->store, text, strlen(text), &report->manifest, error) && p->sink->put_manifest(p->sink->arg, bytes, &report->manifest, error);
}

/* Among others' blocks, segments of the store come before what was made of them earlier. */
static bool choose(Push *p, StoreMap *const maps[2], GError **error)
{
    bool stored_first = p->sink->donors != NULL;

    if (!stored_first)
        add_bases(p);
    if (!choose_stored(p, maps, error))
        return false;
    if (stored_first)
        add_bases(p);
    return bound_segments(p, maps, error);
}

static bool push(Push *p, StoreMap *const maps[2], MapBody *bodies[2], GArray *kept, DiskTransfer *report, GError **error)
{
    g_autoptr(json_t) layers = json_array(), config = NULL;

    if (!choose(p, maps, error) || !make_maps(p, maps, bodies, error) || !send_segments(p, report, error) ||
        !send_map(p, DISK_MAP_TYPE, bodies[0], layers, error))
        return false;
    if (bodies[1] && (!send_tree(p, layers, error) || !send_map(p, DISK_FILES_TYPE, bodies[1], layers, error)))
        return false;
    list_segments(p, layers, kept);
    report->blocks = p->new_blocks;
    return send_config(p, &config, error) && send_manifest(p, config, layers, report, error);
}

static bool open_maps(Store *store, const StoreImage *image, StoreMap *ret[2], GError **error)
{
    if (!store_map_open(store, &image->map, &ret[0], error))
        return false;
    return digest_is_none(&image->tree.tree) || digest_is_none(&image->tree.files) || store_map_open(store, &image->tree.files, &ret[1], error);
}

bool disk_artifact_make(Store *store, const StoreImage *image, const DiskSink *sink, GArray **ret_kept, DiskTransfer *ret, GError **error)
{
    Push p = {.store = store, .image = image, .sink = sink, .slot_mask = 4095};
    g_autoptr(GArray) kept = g_array_new(FALSE, FALSE, sizeof(Digest));
    StoreMap *maps[2] = {NULL, NULL};
    MapBody *bodies[2] = {NULL, NULL};
    bool ok;

    *ret = (DiskTransfer){0};
    p.there = g_ptr_array_new_with_free_func(there_free);
    p.slots = g_new0(Place, (size_t)p.slot_mask + 1);
    p.gathered = g_malloc(FRAME_MAX_BYTES);
    p.encoded = g_malloc(FRAME_MAX_STORED);
    ok = open_maps(store, image, maps, error) && push(&p, maps, bodies, kept, ret, error);
    for (int i = 0; i < 2; i++) {
        store_map_unref(maps[i]);
        map_body_free(bodies[i]);
    }
    if (p.all)
        g_hash_table_unref(p.all);
    g_ptr_array_unref(p.there);
    g_free(p.slots);
    g_free(p.gathered);
    g_free(p.encoded);
    if (ok)
        *ret_kept = g_steal_pointer(&kept);
    return ok;
}

/* --- to a registry --- */

typedef struct ToRegistry {
    Registry *registry;
    const char *version;
} ToRegistry;

static bool put_bytes(void *arg, GBytes *bytes, Digest *ret, GError **error)
{
    ToRegistry *to = arg;

    return registry_put_blob_bytes(to->registry, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret, error);
}

static bool put_segment(void *arg, const Digest *digest, uint64_t size, int fd, const GArray *pieces, Progress *progress, GError **error)
{
    ToRegistry *to = arg;
    uint64_t sent;

    (void)pieces;
    return registry_put_blob(to->registry, digest, size, fd, NULL, progress, &sent, error);
}

static bool put_manifest(void *arg, GBytes *bytes, const Digest *digest, GError **error)
{
    ToRegistry *to = arg;
    char oci[DIGEST_OCI_SIZE];

    return registry_put_manifest(to->registry, to->version ? to->version : digest_to_oci(digest, oci), bytes, OCI_MANIFEST_TYPE, NULL, error);
}

/* The indexes that a manifest names. What cannot be read here is not relied on. */
static void add_indexes(Store *store, const Digest *manifest, GArray *bases)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) document = NULL;
    const json_t *layer;
    uint64_t size;
    Digest digest;
    size_t i;

    if (!store_blob_get(store, manifest, REGISTRY_MANIFEST_MAX, &bytes, NULL) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "a manifest", &document, NULL) || !disk_artifact_is(document))
        return;
    json_array_foreach(json_object_get(document, "layers"), i, layer)
        if (g_strcmp0(json_string_value(json_object_get(layer, "mediaType")), DISK_INDEX_TYPE) == 0 && oci_read_descriptor(layer, &digest, &size, NULL))
            g_array_append_val(bases, digest);
}

static bool find_bases(Store *store, Registry *registry, GArray *bases, GError **error)
{
    g_autoptr(GPtrArray) manifests = NULL;
    unsigned used = 0;

    if (!store_manifests(store, NULL, "disk", registry_place(registry), &manifests, error))
        return false;
    for (guint i = 0; i < manifests->len && i < 2 * BASES_MAX && used < BASES_MAX; i++) {
        const StoreManifest *manifest = manifests->pdata[i];
        char oci[DIGEST_OCI_SIZE];
        Digest ignored;
        bool there;

        if (!registry_has_manifest(registry, digest_to_oci(&manifest->digest, oci), &ignored, &there, error))
            return false;
        if (there) {
            add_indexes(store, &manifest->digest, bases);
            used++;
        }
    }
    return true;
}

static bool try_push(Store *store, const StoreImage *image, Registry *registry, bool on_bases, const char *version, DiskTransfer *ret, GError **error)
{
    g_autoptr(GArray) bases = g_array_new(FALSE, FALSE, sizeof(Digest)), kept = NULL;
    ToRegistry to = {registry, version};
    DiskSink sink = {.arg = &to, .title = "push", .bases = bases, .put_bytes = put_bytes, .put_segment = put_segment, .put_manifest = put_manifest};

    return (!on_bases || find_bases(store, registry, bases, error)) && disk_artifact_make(store, image, &sink, &kept, ret, error) &&
           store_image_add_manifest(store, image, registry_place(registry), &ret->manifest, kept, error);
}

/* A registry may have lost what a manifest of its own names: then all is sent. */
bool disk_artifact_push(Store *store, const StoreImage *image, Registry *registry, const char *version, DiskTransfer *ret, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (try_push(store, image, registry, true, version, ret, &why))
        return true;
    if (why->code != KILN_ERROR_NOT_FOUND || ret->present == 0) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    log_verbose("%s; sending all of the disk", why->message);
    return try_push(store, image, registry, false, version, ret, error);
}
