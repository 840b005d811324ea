/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard against fragmentation. Nothing here moves a block: segments are marked, and repack.c does to them what it does to those of which
 * little is needed.
 *
 * Two images may want the same blocks in different orders, and what serves one harms the other. So each map is looked at while it is new, and
 * no more once it has had its turn: gc never moves the same blocks to and fro between two images that do not change.
 */
#include "store/fragments.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "store/map-private.h"
#include "store/store-private.h"

#define CACHE_FRAMES 96      /* of the store's frame cache, to be on the safe side */
#define TOUCH_FACTOR 2
#define TOUCH_SLACK 4        /* a small map may lie in a frame or two more */
#define SMALL_SEGMENT (4u << 20)
#define SMALL_MAX 10         /* segments below that size that a map may have */
#define TURNS 4              /* a map that the budget was too small for */
#define HAD_ITS_TURN 100     /* in map.judged */

/* What a map has of one segment. */
typedef struct Share {
    Digest digest;
    uint64_t size, blocks, touched;
} Share;

typedef struct Reading {
    GHashTable *shares;  /* Segment* -> Share* */
    GHashTable *seen;    /* Segment* ^ frame -> when it was unpacked last */
    Segment *segment;    /* read last */
    uint32_t frame;
    uint64_t loads, touched, blocks;
} Reading;

static void reading_init(Reading *r)
{
    *r = (Reading){.shares = g_hash_table_new_full(NULL, NULL, NULL, g_free),
                   .seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free)};
}

static void reading_clear(Reading *r)
{
    g_hash_table_unref(r->shares);
    g_hash_table_unref(r->seen);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Reading, reading_clear)

static Share *share_of(Reading *r, Segment *segment)
{
    Share *share = g_hash_table_lookup(r->shares, segment);

    if (!share) {
        share = g_new0(Share, 1);
        share->digest = *segment_digest(segment);
        share->size = segment_file_size(segment);
        g_hash_table_insert(r->shares, segment, share);
    }
    return share;
}

/* Is the frame in the cache, of which the least recently used one leaves? As good as: was it used among the last few? */
static bool is_cached(Reading *r, Segment *segment, uint32_t frame)
{
    gint64 key = (gint64)((uintptr_t)segment << 16 ^ frame), *last = g_hash_table_lookup(r->seen, &key);
    bool cached = last && r->loads - (uint64_t)*last < CACHE_FRAMES;

    r->loads++;
    if (last)
        *last = (gint64)r->loads;
    else
        g_hash_table_insert(r->seen, g_memdup2(&key, sizeof(key)), g_memdup2(&r->loads, sizeof(r->loads)));
    return cached;
}

static void read_blocks(Reading *r, Segment *segment, uint32_t frame, unsigned blocks)
{
    Share *share = share_of(r, segment);

    share->blocks += blocks;
    r->blocks += blocks;
    if (r->segment == segment && r->frame == frame)
        return;
    r->segment = segment;
    r->frame = frame;
    if (is_cached(r, segment, frame))
        return;
    share->touched++;
    r->touched++;
}

static bool read_run(Reading *r, Segment *segment, const MapRun *run, GError **error)
{
    uint32_t at = run->position, end = run->position + run->count, place;
    Segment *where;

    while (at < end) {
        unsigned count = segment_is_moved(segment) ? 1 : MIN(end - at, FRAME_MAX_BLOCKS - position_block(at));

        if (!segment_locate(segment, at, &where, &place, error))
            return false;
        read_blocks(r, where, position_frame(place), count);
        at += count;
    }
    return true;
}

static bool read_map(Store *store, const Digest *digest, Reading *r, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    const MapBody *body;

    if (!store_map_open(store, digest, &map, error))
        return false;
    body = store_map_body(map);
    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        Segment *segment;

        if (!store_map_segment(map, run->segment, &segment, error) || !read_run(r, segment, run, error))
            return false;
    }
    return true;
}

static uint64_t needed_frames(uint64_t blocks)
{
    return (blocks + FRAME_MAX_BLOCKS - 1) / FRAME_MAX_BLOCKS;
}

bool fragments_of_map(Store *store, const Digest *map, uint64_t *ret_touched, uint64_t *ret_needed, GError **error)
{
    g_auto(Reading) r;

    reading_init(&r);
    if (!read_map(store, map, &r, error))
        return false;
    *ret_touched = r.touched;
    *ret_needed = needed_frames(r.blocks);
    return true;
}

/* --- which segments --- */

static bool is_small(const Share *share)
{
    return share->size < SMALL_SEGMENT;
}

/* Frames that would not be unpacked if the map's blocks of the segment lay in a row. */
static uint64_t wasted(const Share *share)
{
    uint64_t needed = needed_frames(share->blocks);

    return share->touched > needed ? share->touched - needed : 0;
}

/* What a byte of writing wins. */
static int most_wasted_first(gconstpointer a, gconstpointer b)
{
    const Share *one = *(const Share *const *)a, *other = *(const Share *const *)b;
    double left = (double)wasted(one) / (double)MAX(one->size, 1), right = (double)wasted(other) / (double)MAX(other->size, 1);

    if (left != right)
        return left < right ? 1 : -1;
    return memcmp(one->digest.bytes, other->digest.bytes, DIGEST_SIZE);
}

/* Borrowed from @r. */
static GPtrArray *choose(const Reading *r)
{
    GPtrArray *chosen = g_ptr_array_new();
    bool scattered = r->touched > TOUCH_FACTOR * needed_frames(r->blocks) + TOUCH_SLACK;
    GHashTableIter iter;
    unsigned small = 0;
    gpointer value;

    g_hash_table_iter_init(&iter, r->shares);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        small += is_small(value);
    g_hash_table_iter_init(&iter, r->shares);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if ((scattered && wasted(value)) || (small > SMALL_MAX && is_small(value)))
            g_ptr_array_add(chosen, value);
    g_ptr_array_sort(chosen, most_wasted_first);
    return chosen;
}

typedef struct Marking {
    Database *db;
    int64_t young, generation;
    uint64_t budget;
    unsigned marked;
} Marking;

/* *ret_all: the budget was large enough. Segments that are too young, or marked already, are none of ours. */
static bool mark_chosen(Marking *m, const GPtrArray *chosen, bool *ret_all, GError **error)
{
    *ret_all = true;
    for (guint i = 0; i < chosen->len; i++) {
        const Share *share = chosen->pdata[i];

        if (share->size > m->budget) {
            *ret_all = false;
            continue;
        }
        if (!database_run(m->db, error, "UPDATE segment SET leaving = ?1 WHERE digest = ?2 AND leaving = 0 AND dead = 0 AND created < ?3", "idi",
                          m->generation, &share->digest, m->young))
            return false;
        if (database_changes(m->db) == 0)
            continue;
        m->budget -= share->size;
        m->marked++;
    }
    return true;
}

/* --- which maps --- */

static bool judge(Marking *m, const Digest *map, const GPtrArray *chosen, GError **error)
{
    bool all;

    return mark_chosen(m, chosen, &all, error) &&
           database_run(m->db, error, "UPDATE map SET judged = CASE WHEN ?1 OR judged + 1 >= ?2 THEN ?3 ELSE judged + 1 END WHERE digest = ?4",
                        "iiid", (int64_t)all, (int64_t)TURNS, (int64_t)HAD_ITS_TURN, map);
}

/*
 * In a transaction of its own, as reading takes its time; one that is lost in a power cut is had again. A map that cannot be read is fsck's
 * to tell.
 */
static bool look_at(Store *store, Marking *m, const Digest *map, GError **error)
{
    g_autoptr(GPtrArray) chosen = NULL;
    g_auto(Reading) r;

    reading_init(&r);
    if (!read_map(store, map, &r, NULL))
        return true;
    chosen = choose(&r);
    if (!database_begin(m->db, false, error))
        return false;
    if (!catalog_bump_generation(m->db, &m->generation, error) || !judge(m, map, chosen, error)) {
        database_rollback(m->db);
        return false;
    }
    return database_commit(m->db, error);
}

bool fragments_mark(Store *store, Database *db, int64_t young, uint64_t budget, GError **error)
{
    static const char newest[] = "SELECT DISTINCT r.digest FROM reference r JOIN map ON map.digest = r.digest WHERE map.judged < " G_STRINGIFY(HAD_ITS_TURN)
                                 " AND r.image IN (SELECT max(number) FROM image WHERE bytes_gone = 0 GROUP BY name, kind)"
                                 " ORDER BY r.image DESC";
    Marking m = {.db = db, .young = young, .budget = budget};
    g_autoptr(GArray) maps = NULL;

    if (!catalog_digests(db, &maps, error, newest, NULL))
        return false;
    for (guint i = 0; i < maps->len; i++)
        if (!interrupt_check(error) || !look_at(store, &m, &g_array_index(maps, Digest, i), error))
            return false;
    if (m.marked)
        trace("store.gc", "%u segments are to be repacked so that newest images lie in a row", m.marked);
    return true;
}
