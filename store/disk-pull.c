/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk from a registry.
 *
 *   1. manifest, config, maps
 *   2. for each segment that the maps name: is it here? else its index says which of the blocks that are needed are here
 *   3. what is needed of the others: frames by ranges, at most one request per MiB, or the whole when that is over 60 % of it
 *   4. whole segments get their names; frames that came alone go into a new segment; maps that say where all is now
 *   5. the disk's content must be what the config says, and each file's what the tree says
 *
 * Frames are unpacked and their blocks compared before anything is named. What was fetched waits in cache/downloads until then, so a
 * pull that is killed is continued.
 */
#include "store/disk-artifact.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/arrival.h"
#include "store/block-index.h"
#include "store/downloads.h"
#include "store/io.h"
#include "store/map-private.h"
#include "store/oci-end.h"
#include "store/recovery.h"
#include "store/segment-index.h"
#include "store/store-private.h"
#include "store/tree-space.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_MAX 65536
#define TREE_MAX (512u << 20)
#define PACKED_MAX (256u << 20)
#define SEGMENTS_MAX 480
#define SMALL (1u << 20)   /* whole without asking what is in it */
#define WHOLE_PERCENT 60
#define PER_REQUEST (1u << 20)
#define WHOLE ".whole"
#define FRAMES ".frames"

/* Where a block is to be in the store. */
typedef struct Home {
    uint32_t target; /* index into the list of targets + 1; 0: not here yet */
    uint32_t position;
} Home;

typedef struct Source {
    Digest digest, index_digest;
    uint64_t size;
    const json_t *index_layer; /* of the manifest, where the index is to be had */
    uint32_t positions;    /* highest that is used + 1 */
    uint8_t *used;         /* a byte for each of them */
    bool here;             /* in the store, as it is; or it will be */
    bool whole;            /* to be fetched so */
    SegmentIndex *index;
    Home *homes;           /* for each position, unless it is here */
    uint8_t *frames;       /* of each: is it needed? */
    int fd;                /* what was fetched */
    GArray *ranges;        /* of Range */
} Source;

typedef struct Range {
    Source *source;
    uint64_t from, to;
} Range;

typedef struct Pull {
    Store *store;
    Registry *registry;
    int downloads;
    GPtrArray *sources; /* of Source* */
    GArray *targets;    /* of Digest: segments that new maps may name */
    GHashTable *target_numbers; /* Digest* -> number + 1 */
    GPtrArray *own;     /* of SegmentFile*: frames that came alone */
    GArray *own_targets;  /* of uint32_t: their numbers among the targets */
    Progress *progress;
    int turn; /* locked: one disk is pulled at a time, as each holds several downloads at once, and the second finds what the first brought */
    bool no_ranges;
    DiskTransfer *report;
} Pull;

static void source_free(gpointer data)
{
    Source *s = data;

    g_free(s->used);
    segment_index_free(s->index);
    g_free(s->homes);
    g_free(s->frames);
    scope_close_fd(&s->fd);
    if (s->ranges)
        g_array_unref(s->ranges);
    g_free(s);
}

bool disk_artifact_is(const json_t *manifest)
{
    return g_strcmp0(json_string_value(json_object_get(manifest, "artifactType")), DISK_ARTIFACT_TYPE) == 0;
}

static bool refuse(const Pull *p, const char *why, GError **error)
{
    return fail(error, "%s: the disk there makes no sense: %s", registry_place(p->registry), why);
}

/* --- 1. documents --- */

static bool fetch_packed(Pull *p, const json_t *descriptor, uint64_t max, GBytes **ret, GError **error)
{
    g_autoptr(GBytes) packed = NULL;

    return oci_fetch_bytes(p->store, p->registry, descriptor, PACKED_MAX, &packed, error) &&
           decompress_bytes(g_bytes_get_data(packed, NULL), g_bytes_get_size(packed), max, ret, error);
}

static bool fetch_map(Pull *p, const json_t *descriptor, MapBody **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(MapBody) body = NULL;

    if (!fetch_packed(p, descriptor, MAP_MAX_BLOB, &bytes, error) || !map_body_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &body, error))
        return fail_prefix(error, "%s", registry_place(p->registry));
    if (body->class != BLOCK_PUBLIC)
        return refuse(p, "its map is not a public one", error);
    *ret = g_steal_pointer(&body);
    return true;
}

static const char *type_of(const json_t *layer)
{
    const char *type = json_string_value(json_object_get(layer, "mediaType"));

    return type ? type : "";
}

/* The manifest's layers by what they are. */
typedef struct Layers {
    const json_t *map, *tree, *files;
    GPtrArray *segments, *indexes; /* of const json_t* */
} Layers;

static bool sort_layers(Pull *p, const json_t *manifest, Layers *ret, GError **error)
{
    const json_t *layer;
    size_t i;

    json_array_foreach(json_object_get(manifest, "layers"), i, layer)
    {
        const char *type = type_of(layer);
        const json_t **one = strcmp(type, DISK_MAP_TYPE) == 0     ? &ret->map
                             : strcmp(type, DISK_TREE_TYPE) == 0  ? &ret->tree
                             : strcmp(type, DISK_FILES_TYPE) == 0 ? &ret->files
                                                                  : NULL;
        GPtrArray *list = strcmp(type, DISK_SEGMENT_TYPE) == 0 ? ret->segments : strcmp(type, DISK_INDEX_TYPE) == 0 ? ret->indexes : NULL;

        if (one && !*one)
            *one = layer;
        else if (list)
            g_ptr_array_add(list, (gpointer)layer);
        else if (one)
            return refuse(p, "it has two maps of one kind", error);
    }
    if (!ret->map)
        return refuse(p, "it has no map", error);
    if (ret->segments->len > SEGMENTS_MAX || ret->segments->len != ret->indexes->len)
        return refuse(p, "its segments do not have an index each", error);
    return true;
}

static bool add_sources(Pull *p, const Layers *layers, GError **error)
{
    for (guint i = 0; i < layers->segments->len; i++) {
        Source *s = g_new0(Source, 1);
        uint64_t index_size;

        s->fd = -1;
        s->index_layer = layers->indexes->pdata[i];
        g_ptr_array_add(p->sources, s);
        if (!oci_read_descriptor(layers->segments->pdata[i], &s->digest, &s->size, error) ||
            !oci_read_descriptor(s->index_layer, &s->index_digest, &index_size, error))
            return false;
        if (s->size > SEGMENT_MAX_SIZE || index_size > SEGMENT_INDEX_MAX)
            return refuse(p, "a segment is too large", error);
    }
    return true;
}

static Source *find_source(const Pull *p, const Digest *digest)
{
    for (guint i = 0; i < p->sources->len; i++)
        if (digest_equal(&((Source *)p->sources->pdata[i])->digest, digest))
            return p->sources->pdata[i];
    return NULL;
}

/* By the map's numbers of its segments; NULL where there is none. A map has far more runs than segments. */
static Source **sources_of(const Pull *p, const MapBody *body)
{
    Source **sources = g_new0(Source *, body->segments->len + 1);

    for (guint i = 0; i < body->segments->len; i++)
        sources[i] = find_source(p, &g_array_index(body->segments, Digest, i));
    return sources;
}

/* --- 2. what is here --- */

static bool mark_used(Pull *p, const MapBody *body, GError **error)
{
    g_autofree Source **sources = sources_of(p, body);

    for (guint i = 0; i < body->segments->len; i++)
        if (!sources[i])
            return refuse(p, "its map names a segment that it does not have", error);
    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        Source *s = sources[run->segment];
        uint32_t end = run->position + run->count;

        if (end > s->positions) {
            uint32_t room = MIN(MAX(end, s->positions * 2), (uint32_t)SEGMENT_MAX_FRAMES * FRAME_MAX_BLOCKS);

            s->used = g_realloc(s->used, room);
            memset(s->used + s->positions, 0, room - s->positions);
            s->positions = room;
        }
        memset(s->used + run->position, 1, run->count);
    }
    return true;
}

/* Only rows of living segments count: gc is done with the others. */
static bool is_here(Pull *p, Source *s, bool *ret, GError **error)
{
    Segment *segment;
    Database *db;
    int64_t alive;

    *ret = false;
    if (!store_catalog(p->store, &db, error) ||
        !database_int(db, 0, &alive, error, "SELECT count(*) FROM segment WHERE digest = ?1 AND dead = 0 AND leaving = 0", "d", &s->digest))
        return false;
    *ret = alive && segment_get(p->store, &s->digest, &segment, NULL) && !segment_is_moved(segment) && segment_class(segment) == BLOCK_PUBLIC;
    return true;
}

static uint32_t target_of(Pull *p, const Digest *segment)
{
    gpointer found = g_hash_table_lookup(p->target_numbers, segment);

    if (found)
        return GPOINTER_TO_UINT(found);
    g_array_append_vals(p->targets, segment, 1);
    g_hash_table_insert(p->target_numbers, g_memdup2(segment, sizeof *segment), GUINT_TO_POINTER(p->targets->len));
    return p->targets->len;
}

static bool frame_is_needed(const Pull *p, const Source *s, uint32_t frame)
{
    for (unsigned block = 0; block < FRAME_MAX_BLOCKS; block++) {
        uint32_t position = position_of(frame, block);

        if (position < s->positions && s->used[position] && !s->homes[position].target)
            return true;
    }
    return false;
}

/* Blocks that are here by their hashes; frames that have others. */
static bool look_for_blocks(Pull *p, Source *s, uint64_t *ret_needed, GError **error)
{
    s->homes = g_new0(Home, MAX(s->positions, 1));
    s->frames = g_new0(uint8_t, MAX(s->index->entries->len, 1));
    *ret_needed = 0;
    for (uint32_t position = 0; position < s->positions; position++) {
        const Digest *hash = s->used[position] ? segment_index_hash(s->index, position) : NULL;
        Segment *segment;
        uint32_t place;

        if (s->used[position] && !hash)
            return refuse(p, "its map names blocks that its segments do not have", error);
        if (hash && block_index_find(p->store, hash, BLOCK_PUBLIC, &segment, &place))
            s->homes[position] = (Home){target_of(p, segment_digest(segment)), place};
    }
    for (guint frame = 0; frame < s->index->entries->len; frame++) {
        s->frames[frame] = frame_is_needed(p, s, frame);
        *ret_needed += s->frames[frame] ? g_array_index(s->index->entries, SegmentEntry, frame).size : 0;
    }
    return true;
}

static bool fetch_index(Pull *p, Source *s, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    if (!oci_fetch_bytes(p->store, p->registry, s->index_layer, SEGMENT_INDEX_MAX, &bytes, error) ||
        !segment_index_decode(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &s->index, error))
        return fail_prefix(error, "%s", registry_place(p->registry));
    return (digest_equal(&s->index->segment, &s->digest) && s->index->size == s->size) || refuse(p, "an index is another segment's", error);
}

/* --- 3. ranges --- */

static int compare_gaps(gconstpointer a, gconstpointer b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Needed frames as ranges; those with the smallest gaps between them are joined until there is one per MiB. */
static void make_ranges(Source *s, uint64_t needed)
{
    g_autoptr(GArray) gaps = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    uint64_t allowed = MAX(1, needed / PER_REQUEST), widest = 0;

    s->ranges = g_array_new(FALSE, FALSE, sizeof(Range));
    for (int joined = 0; joined < 2; joined++) {
        g_array_set_size(s->ranges, 0);
        for (guint frame = 0; frame < s->index->entries->len; frame++) {
            const SegmentEntry *entry = &g_array_index(s->index->entries, SegmentEntry, frame);
            Range *last = s->ranges->len ? &g_array_index(s->ranges, Range, s->ranges->len - 1) : NULL;
            Range range = {s, entry->offset, (uint64_t)entry->offset + entry->size};

            if (!s->frames[frame])
                continue;
            if (last && range.from - last->to <= widest) {
                last->to = range.to;
                continue;
            }
            if (last && !joined) {
                uint64_t gap = range.from - last->to;

                g_array_append_val(gaps, gap);
            }
            g_array_append_val(s->ranges, range);
        }
        if (s->ranges->len <= allowed)
            return;
        g_array_sort(gaps, compare_gaps);
        widest = g_array_index(gaps, uint64_t, s->ranges->len - allowed - 1);
    }
}

static uint64_t range_bytes(const Source *s)
{
    uint64_t bytes = 0;

    for (guint i = 0; i < s->ranges->len; i++)
        bytes += g_array_index(s->ranges, Range, i).to - g_array_index(s->ranges, Range, i).from;
    return bytes;
}

/* Does the file have the frame already, from an earlier try? */
static bool have_frame(const Source *s, uint32_t frame, uint8_t *stored, uint8_t *plain, FrameHead *ret_head)
{
    const SegmentEntry *entry = &g_array_index(s->index->entries, SegmentEntry, frame);

    return file_pread_full(s->fd, stored, entry->size, entry->offset, "a fetched segment", NULL) && frame_parse_head(stored, entry->size, ret_head) &&
           ret_head->blocks == entry->blocks && ret_head->encoding == entry->encoding && frame_head_size(ret_head->blocks) + ret_head->payload == entry->size &&
           memcmp(ret_head->hashes, segment_index_hash(s->index, position_of(frame, 0)), ret_head->blocks * DIGEST_SIZE) == 0 &&
           frame_decode(ret_head, stored + frame_head_size(ret_head->blocks), plain);
}

/* Frames that are in the file stay in @frames, which says what the maps need, and are not fetched. */
static bool plan_ranges(Pull *p, Source *s, uint64_t needed, GError **error)
{
    g_autofree uint8_t *stored = g_malloc(FRAME_MAX_STORED), *plain = g_malloc(FRAME_MAX_BYTES), *wanted = NULL;
    uint64_t have;
    FrameHead head;

    if (!downloads_take(p->downloads, &s->digest, FRAMES, &s->fd, &have, error))
        return false;
    wanted = g_memdup2(s->frames, s->index->entries->len);
    for (guint frame = 0; have > 0 && frame < s->index->entries->len; frame++)
        if (s->frames[frame] && have_frame(s, frame, stored, plain, &head)) {
            s->frames[frame] = 0;
            needed -= g_array_index(s->index->entries, SegmentEntry, frame).size;
        }
    make_ranges(s, needed);
    s->whole = range_bytes(s) > s->size / 100 * WHOLE_PERCENT;
    memcpy(s->frames, wanted, s->index->entries->len);
    return true;
}

static bool plan(Pull *p, Source *s, bool empty_store, GError **error)
{
    uint64_t needed;

    if (!interrupt_check(error) || !is_here(p, s, &s->here, error))
        return false;
    if (s->here) {
        p->report->present++;
        return true;
    }
    s->whole = s->size <= SMALL || empty_store;
    if (s->whole)
        return true;
    if (!fetch_index(p, s, error) || !look_for_blocks(p, s, &needed, error))
        return false;
    s->whole = needed > s->size / 100 * WHOLE_PERCENT;
    if (s->whole || needed == 0)
        return true;
    return plan_ranges(p, s, needed, error);
}

static bool fetch_whole(Pull *p, Source *s, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    g_autofree char *what = g_strdup_printf("%s: segment %s", registry_place(p->registry), digest_to_hex(&s->digest, hex));
    uint64_t have;

    scope_close_fd(&s->fd);
    if (!downloads_take(p->downloads, &s->digest, WHOLE, &s->fd, &have, error) ||
        !registry_get_blob(p->registry, &s->digest, s->size, s->fd, have, p->progress, error))
        return false;
    return segment_verify_file(s->fd, s->size, what, error);
}

static bool fetch_range(gpointer item, void *arg, GError **error)
{
    Pull *p = arg;
    Range *range = item;
    bool done;

    if (p->no_ranges)
        return true;
    if (!registry_get_range(p->registry, &range->source->digest, range->from, range->to - range->from, range->source->fd, p->progress, &done, error))
        return false;
    if (!done)
        p->no_ranges = true;
    return true;
}

static bool fetch_one(gpointer item, void *arg, GError **error)
{
    return fetch_whole(arg, item, error);
}

static bool fetch_list(Pull *p, GError **error)
{
    g_autoptr(GPtrArray) ranges = g_ptr_array_new(), whole = g_ptr_array_new();
    uint64_t total = 0;

    for (guint i = 0; i < p->sources->len; i++) {
        Source *s = p->sources->pdata[i];

        for (guint k = 0; !s->whole && s->ranges && k < s->ranges->len; k++)
            g_ptr_array_add(ranges, &g_array_index(s->ranges, Range, k));
        total += s->here ? 0 : s->whole ? s->size : s->ranges ? range_bytes(s) : 0;
    }
    progress_set(p->progress, 0, total);
    if (!oci_in_parallel(ranges, fetch_range, p, error))
        return false;
    for (guint i = 0; i < p->sources->len; i++) {
        Source *s = p->sources->pdata[i];

        s->whole = s->whole || (p->no_ranges && s->ranges && s->ranges->len);
        if (s->whole && !s->here)
            g_ptr_array_add(whole, s);
        p->report->segments += s->whole && !s->here;
        p->report->segments += !s->whole && s->ranges && s->ranges->len;
    }
    p->report->bytes = total;
    return oci_in_parallel(whole, fetch_one, p, error);
}

static bool fetch(Pull *p, GError **error)
{
    bool ok;

    p->progress = progress_new("pull", 0, true);
    ok = fetch_list(p, error);
    if (ok)
        progress_done(p->progress);
    g_clear_pointer(&p->progress, progress_free);
    return ok;
}

/* --- 4. into the store --- */

static bool open_own(Pull *p, SegmentFile **ret, GError **error)
{
    SegmentFile *last = p->own->len ? p->own->pdata[p->own->len - 1] : NULL;
    uint32_t number;
    int dirfd;

    if (last && last->size < SEGMENT_TARGET_SIZE && last->entries->len < SEGMENT_MAX_FRAMES) {
        *ret = last;
        return true;
    }
    if (!store_owner_dir(p->store, &dirfd, error) || !segment_file_new(dirfd, store_fresh_name(p->store, "segment"), BLOCK_PUBLIC, ret, error))
        return false;
    g_ptr_array_add(p->own, *ret);
    g_array_append_vals(p->targets, &digest_none, 1); /* named when it is finished */
    number = p->targets->len;
    g_array_append_val(p->own_targets, number);
    return true;
}

static bool take_frame(Pull *p, Source *s, uint32_t frame, uint8_t *stored, uint8_t *plain, GError **error)
{
    const SegmentEntry *entry = &g_array_index(s->index->entries, SegmentEntry, frame);
    SegmentFile *own = NULL;
    FrameHead head;

    if (!have_frame(s, frame, stored, plain, &head))
        return fail(error, "%s: a part of a segment is not what its index says; nothing of it was kept", registry_place(p->registry));
    if (!open_own(p, &own, error) || !segment_file_append(own, stored, entry->size, entry->blocks, entry->encoding, error))
        return false;
    for (unsigned block = 0; block < entry->blocks; block++) {
        uint32_t position = position_of(frame, block);

        if (position < s->positions && !s->homes[position].target)
            s->homes[position] = (Home){g_array_index(p->own_targets, uint32_t, p->own_targets->len - 1), position_of(own->entries->len - 1, block)};
    }
    p->report->blocks += entry->blocks;
    return true;
}

static bool take_frames(Pull *p, GError **error)
{
    g_autofree uint8_t *stored = g_malloc(FRAME_MAX_STORED), *plain = g_malloc(FRAME_MAX_BYTES);

    for (guint i = 0; i < p->sources->len; i++) {
        Source *s = p->sources->pdata[i];

        if (s->here || s->whole || !s->used)
            continue;
        for (guint frame = 0; frame < s->index->entries->len; frame++)
            if (s->frames[frame] && (!interrupt_check(error) || !take_frame(p, s, frame, stored, plain, error))) {
                if (s->fd >= 0)
                    (void)!ftruncate(s->fd, 0); /* the next try begins anew */
                return false;
            }
    }
    for (guint i = 0; i < p->own->len; i++) {
        SegmentFile *own = p->own->pdata[i];

        if (!segment_file_finish(own, error) || !segment_file_sync(own, error))
            return false;
        g_array_index(p->targets, Digest, g_array_index(p->own_targets, uint32_t, i) - 1) = own->digest;
    }
    return true;
}

static bool sync_whole(Pull *p, GError **error)
{
    for (guint i = 0; i < p->sources->len; i++) {
        const Source *s = p->sources->pdata[i];

        if (s->whole && !s->here && (fchmod(s->fd, 0644) < 0 || io_fdatasync(s->fd) < 0))
            return store_fail_errno(p->store, error, "write a segment to");
    }
    return true;
}

static bool place_whole(Pull *p, Database *db, const Source *s, GError **error)
{
    g_autofree char *file = downloads_name(&s->digest, WHOLE);

    return segment_place_file(p->store, db, p->downloads, file, &s->digest, error);
}

static bool keep_here(Pull *p, Database *db, const Source *s, GError **error)
{
    bool there;

    return segment_keep(p->store, db, &s->digest, &there, error) && (there || fail(error, "a segment of the disk has gone meanwhile; try again"));
}

/* The map as it is to be here. Where every segment has its name here, it is the very map that was pushed. */
static bool localise(Pull *p, const MapBody *body, MapBody **ret, GError **error)
{
    g_autoptr(MapBody) local = map_body_new(body->size, BLOCK_PUBLIC);
    g_autoptr(GHashTable) indexes = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    g_autofree Source **sources = sources_of(p, body);

    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        const Source *s = sources[run->segment];

        for (uint32_t k = 0; k < run->count; k++) {
            uint32_t position = run->position + k;
            const Home *home = s->here || s->whole ? NULL : &s->homes[position];

            if (home && !home->target)
                return refuse(p, "a block of it could not be found", error);
            map_body_append(local, run->block + k,
                            map_body_segment(local, indexes, home ? &g_array_index(p->targets, Digest, home->target - 1) : &s->digest), home ? home->position : position);
        }
    }
    *ret = g_steal_pointer(&local);
    return true;
}

static bool place_all(Pull *p, Database *db, StagedBlob staged[2], GError **error)
{
    for (guint i = 0; i < p->sources->len; i++) {
        const Source *s = p->sources->pdata[i];

        if (s->here && !keep_here(p, db, s, error))
            return false;
        if (s->whole && !s->here && !place_whole(p, db, s, error))
            return false;
    }
    for (guint i = 0; i < p->own->len; i++)
        if (!segment_place_own(p->store, db, p->own->pdata[i], g_get_real_time(), error))
            return false;
    for (int i = 0; i < 2; i++)
        if (staged[i].name && (!blob_place(p->store, db, &staged[i], g_get_real_time(), error) || !store_catalog_map(p->store, db, &staged[i].digest, error)))
            return false;
    return true;
}

static bool commit(Pull *p, StagedBlob staged[2], GError **error)
{
    Database *db;

    if (!store_catalog(p->store, &db, error) || !database_begin(db, false, error))
        return false;
    if (!place_all(p, db, staged, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

static bool place(Pull *p, MapBody *const bodies[2], Digest ret_maps[2], GError **error)
{
    StagedBlob staged[2] = {{.name = NULL}, {.name = NULL}};
    bool ok = take_frames(p, error) && sync_whole(p, error);

    for (int i = 0; ok && i < 2; i++) {
        g_autoptr(MapBody) local = NULL;
        g_autoptr(GByteArray) bytes = NULL;

        if (!bodies[i])
            continue;
        ok = localise(p, bodies[i], &local, error);
        bytes = ok ? map_body_encode(local) : NULL;
        ok = ok && blob_stage(p->store, bytes->data, bytes->len, &staged[i], error);
        if (ok)
            ret_maps[i] = staged[i].digest;
    }
    ok = ok && commit(p, staged, error);
    for (int i = 0; i < 2; i++)
        blob_unstage(&staged[i]);
    return ok;
}

static void drop_downloads(Pull *p)
{
    for (guint i = 0; i < p->sources->len; i++) {
        const Source *s = p->sources->pdata[i];

        if (s->here || !s->used)
            continue;
        downloads_drop(p->downloads, &s->digest, WHOLE);
        downloads_drop(p->downloads, &s->digest, FRAMES);
    }
}

/* --- 5. is it that? --- */

static bool check_disk(Pull *p, const Digest *map, const json_t *config, GError **error)
{
    g_autoptr(StoreMap) opened = NULL;
    const char *text = json_string_value(json_object_get(config, "content"));
    Digest wanted, have;

    if (!store_map_open(p->store, map, &opened, error) || !store_map_content(opened, &have, error))
        return false;
    return (text && digest_parse(text, &wanted) && digest_equal(&wanted, &have)) ||
           fail(error, "%s: the disk's blocks are not those that its config names; it was not taken in", registry_place(p->registry));
}

/* --- all of it --- */

static bool plan_all(Pull *p, GError **error)
{
    uint64_t entries, capacity;

    if (!block_index_refresh(p->store, error))
        return false;
    block_index_counts(p->store, &entries, &capacity);
    for (guint i = 0; i < p->sources->len; i++) {
        Source *s = p->sources->pdata[i];

        if (s->used && !plan(p, s, entries == 0, error))
            return false;
    }
    return true;
}

static bool read_config(Pull *p, const json_t *manifest, StoreImage *image, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) config = NULL;
    json_int_t size;

    if (!oci_fetch_bytes(p->store, p->registry, json_object_get(manifest, "config"), CONFIG_MAX, &bytes, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), CONFIG_MAX, "the disk's config", &config, error) ||
        !store_blob_put(p->store, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &image->id, error))
        return false;
    size = json_integer_value(json_object_get(config, "size"));
    if (size <= 0)
        return refuse(p, "its config says no size", error);
    image->size = (uint64_t)size;
    *ret = g_steal_pointer(&config);
    return true;
}

/* Without its list of files a disk is a disk all the same. */
static bool read_tree(Pull *p, const Layers *layers, const json_t *config, StoreImage *image, MapBody **ret_files, GError **error)
{
    const char *text = json_string_value(json_object_get(config, "tree"));
    g_autoptr(GBytes) bytes = NULL;
    Digest wanted;

    if (!text || !layers->tree || !layers->files)
        return true;
    if (!fetch_packed(p, layers->tree, TREE_MAX, &bytes, error) ||
        !store_blob_put(p->store, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &image->tree.tree, error))
        return false;
    if (!digest_parse(text, &wanted) || !digest_equal(&wanted, &image->tree.tree))
        return refuse(p, "its list of files is another disk's", error);
    return fetch_map(p, layers->files, ret_files, error);
}

static bool pull(Pull *p, const json_t *manifest, const Layers *layers, StoreImage *image, MapBody *bodies[2], GError **error)
{
    g_autoptr(json_t) config = NULL;
    Digest maps[2] = {digest_none, digest_none};

    if (!add_sources(p, layers, error) || !read_config(p, manifest, image, &config, error) || !fetch_map(p, layers->map, &bodies[0], error) ||
        !read_tree(p, layers, config, image, &bodies[1], error))
        return false;
    if (bodies[0]->size != image->size)
        return refuse(p, "its map is not of the size that its config says", error);
    for (int i = 0; i < 2; i++)
        if (bodies[i] && !mark_used(p, bodies[i], error))
            return false;
    if (!plan_all(p, error) || !fetch(p, error) || !place(p, bodies, maps, error))
        return false;
    image->map = maps[0];
    image->tree.files = maps[1];
    drop_downloads(p);
    return check_disk(p, &image->map, config, error) && (!bodies[1] || tree_check_files(p->store, &image->tree, error)) && block_index_refresh(p->store, error);
}

static bool keep_indexes(Pull *p, GBytes *manifest, GArray *kept, GError **error)
{
    if (!store_blob_put(p->store, g_bytes_get_data(manifest, NULL), g_bytes_get_size(manifest), &p->report->manifest, error))
        return false;
    p->report->manifest_size = g_bytes_get_size(manifest);
    /* What a later push to the same repository can refer to; of what came whole, the index is made here. */
    for (guint i = 0; i < p->sources->len; i++) {
        Source *s = p->sources->pdata[i];
        g_autoptr(SegmentIndex) made = NULL;
        g_autoptr(GBytes) bytes = NULL;
        Segment *segment;
        Digest digest;

        if (!s->index && (!segment_get(p->store, &s->digest, &segment, NULL) || segment_is_moved(segment) || !segment_index_of(segment, &made, NULL)))
            continue;
        bytes = segment_index_encode(s->index ? s->index : made);
        digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest);
        if (!digest_equal(&digest, &s->index_digest)) /* theirs is another one's, so nothing is to be built on it */
            continue;
        if (!store_blob_put(p->store, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest, error))
            return false;
        g_array_append_val(kept, digest);
    }
    return true;
}

static void pull_clear(Pull *p)
{
    g_ptr_array_unref(p->sources);
    g_array_unref(p->targets);
    g_hash_table_unref(p->target_numbers);
    g_ptr_array_unref(p->own);
    g_array_unref(p->own_targets);
    scope_close_fd(&p->downloads);
    scope_close_fd(&p->turn);
}

static bool wait_for_turn(Pull *p, GError **error)
{
    p->turn = openat(p->downloads, ".disk", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->turn < 0)
        return store_fail_errno(p->store, error, "open a lock of");
    return file_lock(p->turn, ".disk", "another kiln is fetching a disk", error);
}

bool disk_artifact_pull(Store *store, Registry *registry, GBytes *manifest, const char *name, StoreImage **ret, GArray **ret_kept, DiskTransfer *ret_report,
                        GError **error)
{
    g_autoptr(StoreImage) image = store_image_new("disk", name);
    g_autoptr(GArray) kept = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(GPtrArray) segments = g_ptr_array_new(), indexes = g_ptr_array_new();
    g_autoptr(json_t) document = NULL;
    Layers layers = {.segments = segments, .indexes = indexes};
    MapBody *bodies[2] = {NULL, NULL};
    Pull p = {.store = store, .registry = registry, .downloads = -1, .turn = -1, .report = ret_report};
    bool ok;

    *ret_report = (DiskTransfer){0};
    p.sources = g_ptr_array_new_with_free_func(source_free);
    p.targets = g_array_new(FALSE, FALSE, sizeof(Digest));
    p.target_numbers = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    p.own = g_ptr_array_new_with_free_func((GDestroyNotify)segment_file_free);
    p.own_targets = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    ok = store_hold_lease(store, error) && downloads_open(store, &p.downloads, error) && wait_for_turn(&p, error) &&
         json_parse(g_bytes_get_data(manifest, NULL), g_bytes_get_size(manifest), REGISTRY_MANIFEST_MAX, "the manifest", &document, error) &&
         sort_layers(&p, document, &layers, error) && pull(&p, document, &layers, image, bodies, error) && keep_indexes(&p, manifest, kept, error);
    image->new_bytes = ret_report->bytes;
    for (int i = 0; i < 2; i++)
        map_body_free(bodies[i]);
    pull_clear(&p);
    if (!ok)
        return false;
    *ret = g_steal_pointer(&image);
    *ret_kept = g_steal_pointer(&kept);
    return true;
}
