/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repacking: segments of which little is needed are written anew with what is, beside writers and readers.
 *
 * No map is touched. A segment's name outlives its file and stands for a table of where its blocks went (segment-moved.h), so whoever
 * knows a map, an image ID or a recipe goes on knowing it. In words of the code: *leaving* segments are those whose files are to go, *names* are
 * the segments that maps speak of and whose blocks are in leaving ones: the leaving ones themselves, and earlier names whose tables point there.
 *
 *   measure   Segments that lost a referrer (suspect) are measured: every map that can still be opened counts, dead or alive. Below 70 % a
 *             segment gets the generation as its mark `leaving`: from the commit on no writer is offered its blocks. So do some over which a
 *             newest image is scattered (fragments.c).
 *   wait      until every living lease has seen the mark (store/lease.c); if not now, the next gc goes on here.
 *   copy      what maps need, in the order in which they need it, newest image first, so that this one lies in a row. An ordinary writer
 *             does it, and its commit adds to `moved` where names will point *as well*: from here on gc holds both places.
 *   switch    under the catalog's write lock: no map came that needs more; tables are written (each whole, synced, renamed), files of
 *             leaving segments and their rows go, `moved` says the new places only.
 *
 * Killed anywhere, every name can be read: by its file while that exists, else by its table, old or new. The marks stay, so the next gc
 * measures and copies again, and as writers are offered the new segments, what was copied already is not copied twice.
 */
#include "store/repack.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/fragments.h"
#include "store/io.h"
#include "store/segment-moved.h"
#include "store/store-private.h"
#include "store/writer.h"

#include <fcntl.h>
#include <sys/file.h>

#define LIVE_PERCENT 70
#define BATCH 64 /* segments: bounds what is held in memory */

typedef struct Leaving {
    Digest digest;
    int64_t size, blocks;
    uint32_t positions;
    uint32_t *order; /* by position: where it stands in the order, counted from 1; 0: not needed */
    uint64_t live;
    bool stays; /* what was copied has the very bytes that it has */
} Leaving;

typedef struct Name {
    Digest digest;
    Segment *segment;
    uint8_t *needed; /* a bit per position */
} Name;

/* One block that is needed, in the order of copying. */
typedef struct Needed {
    const Leaving *leaving;
    uint32_t position;
    BlockRef to;
} Needed;

typedef struct Repack {
    Store *store;
    Database *db;
    GPtrArray *leaving;       /* of Leaving* */
    GHashTable *leaving_by;   /* Digest* -> Leaving* */
    GPtrArray *names;         /* of Name* */
    GHashTable *names_by;     /* Digest* -> Name* */
    GHashTable *maps;         /* Digest*: those that were looked at */
    GArray *order;            /* of Needed */
    StoreWriter *writer;      /* that copies */
    BlockClass class;         /* of the leaving ones; a private name may lead to public ones too */
    bool dead;                /* the map that is looked at is dead: what it needs may be gone */
    bool late;                /* a map came that needs more */
    bool measuring;           /* nothing is copied: enough is known when none of the leaving ones is worth it */
} Repack;

static void leaving_free(gpointer data)
{
    g_free(((Leaving *)data)->order);
    g_free(data);
}

static void name_free(gpointer data)
{
    g_free(((Name *)data)->needed);
    g_free(data);
}

static void repack_clear(Repack *r)
{
    g_ptr_array_unref(r->leaving);
    g_ptr_array_unref(r->names);
    g_hash_table_unref(r->leaving_by);
    g_hash_table_unref(r->names_by);
    g_hash_table_unref(r->maps);
    g_array_unref(r->order);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Repack, repack_clear)

static void repack_init(Repack *r, Store *store, Database *db)
{
    *r = (Repack){.store = store,
                  .db = db,
                  .leaving = g_ptr_array_new_with_free_func(leaving_free),
                  .leaving_by = g_hash_table_new(digest_hash, digest_equal_gfunc),
                  .names = g_ptr_array_new_with_free_func(name_free),
                  .names_by = g_hash_table_new(digest_hash, digest_equal_gfunc),
                  .maps = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL),
                  .order = g_array_new(FALSE, TRUE, sizeof(Needed))};
}

/* --- which segments, under which names --- */

static bool add_name(Repack *r, const Digest *digest, GError **error)
{
    Segment *segment;
    Name *name;

    if (g_hash_table_contains(r->names_by, digest))
        return true;
    /* Forgotten first: what counts is which file is there now. */
    segment_forget(r->store, digest);
    if (!segment_get(r->store, digest, &segment, error))
        return false;
    name = g_new0(Name, 1);
    name->digest = *digest;
    name->segment = segment;
    name->needed = g_malloc0((size_t)segment_frames(segment) * FRAME_MAX_BLOCKS / 8 + 1);
    g_ptr_array_add(r->names, name);
    g_hash_table_insert(r->names_by, &name->digest, name);
    return true;
}

static bool add_earlier_names(Repack *r, const Digest *leaving, GError **error)
{
    g_autoptr(GArray) earlier = NULL;

    if (!catalog_digests(r->db, &earlier, error, "SELECT segment FROM moved WHERE target = ?1", leaving))
        return false;
    for (guint i = 0; i < earlier->len; i++)
        if (!add_name(r, &g_array_index(earlier, Digest, i), error))
            return false;
    return true;
}

/* One whose file is gone already, because the switch was killed, has nothing to copy. */
static bool prepare_leaving(Repack *r, GError **error)
{
    for (guint i = 0; i < r->leaving->len; i++) {
        Leaving *leaving = r->leaving->pdata[i];
        Segment *segment;

        if (!add_name(r, &leaving->digest, error))
            return false;
        segment = ((Name *)g_hash_table_lookup(r->names_by, &leaving->digest))->segment;
        leaving->positions = segment_is_moved(segment) ? 0 : segment_frames(segment) * FRAME_MAX_BLOCKS;
        leaving->order = g_new0(uint32_t, MAX(leaving->positions, 1));
        g_hash_table_insert(r->leaving_by, &leaving->digest, leaving);
        if (!add_earlier_names(r, &leaving->digest, error))
            return false;
    }
    return true;
}

static bool list_leaving(Repack *r, const char *sql, int64_t limit, GError **error)
{
    g_autoptr(Query) query = database_query(r->db, error, sql, "ii", limit, (int64_t)BATCH);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        Leaving *leaving = g_new0(Leaving, 1);

        query_digest(query, 0, &leaving->digest);
        leaving->size = query_int(query, 1);
        leaving->blocks = query_int(query, 2);
        g_ptr_array_add(r->leaving, leaving);
    }
    g_clear_pointer(&query, query_free);
    return rc >= 0 && prepare_leaving(r, error);
}

/* --- what is needed of them --- */

static Leaving *leaving_of(const Repack *r, const Digest *segment)
{
    return g_hash_table_lookup(r->leaving_by, segment);
}

/* Where the block of a name is now; NULL: not in a leaving segment. */
static Leaving *find_leaving(Repack *r, const Name *name, uint32_t position, Digest *ret_segment, uint32_t *ret_position, GError **error)
{
    Segment *at;

    if (!segment_locate(name->segment, position, &at, ret_position, error))
        return NULL;
    *ret_segment = *segment_digest(at);
    return leaving_of(r, ret_segment);
}

static bool need(Repack *r, const Name *name, uint32_t position, GError **error)
{
    GError *why = NULL;
    uint32_t place;
    Digest segment;
    Leaving *leaving;

    if (position >= segment_frames(name->segment) * FRAME_MAX_BLOCKS)
        return fail(error, "a map names blocks that its segment does not have; run kiln fsck");
    if (name->needed[position / 8] & 1 << position % 8)
        return true; /* an earlier map has it too, as most have most of theirs */
    name->needed[position / 8] |= (uint8_t)(1 << position % 8);
    leaving = find_leaving(r, name, position, &segment, &place, &why);
    if (why && r->dead && why->code == KILN_ERROR_NOT_FOUND) {
        g_error_free(why);
        name->needed[position / 8] &= (uint8_t)~(1 << position % 8);
        return true;
    }
    if (why) {
        g_propagate_error(error, why);
        return false;
    }
    if (leaving && place < leaving->positions && leaving->order[place] == 0) {
        Needed one = {.leaving = leaving, .position = place};

        g_array_append_val(r->order, one);
        leaving->order[place] = r->order->len;
        leaving->live++;
    }
    return true;
}

typedef bool PositionFn(Repack *r, const Name *name, uint32_t position, GError **error);

/* Calls @fn for each block that the map has under one of the names, in the map's order. */
static bool each_position(Repack *r, const Digest *digest, PositionFn *fn, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    const MapBody *body;

    if (!store_map_open(r->store, digest, &map, error))
        return false;
    body = store_map_body(map);
    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        const Name *name = g_hash_table_lookup(r->names_by, &g_array_index(body->segments, Digest, run->segment));

        for (uint32_t j = 0; name && j < run->count; j++)
            if (!fn(r, name, run->position + j, error))
                return false;
    }
    return true;
}

typedef struct Referrer {
    Digest map;
    int64_t image; /* the newest that needs it; 0: none */
    int64_t dead;
} Referrer;

static int newest_first(gconstpointer a, gconstpointer b)
{
    const Referrer *one = a, *other = b;

    if (one->image != other->image)
        return one->image < other->image ? 1 : -1;
    return memcmp(one->map.bytes, other->map.bytes, DIGEST_SIZE);
}

/* The newest image that needs a map, for all of them at once: `reference` is by set. */
static bool list_newest(Repack *r, GError **error)
{
    return database_run(r->db, error, "CREATE TEMP TABLE IF NOT EXISTS newest (digest BLOB PRIMARY KEY, image INTEGER) WITHOUT ROWID", "") &&
           database_run(r->db, error, "DELETE FROM newest", "") &&
           database_run(r->db, error, "INSERT INTO newest SELECT digest, max(image) FROM reference GROUP BY digest", "");
}

/* Maps that speak of one of the names and were not looked at yet. */
static bool list_referrers(Repack *r, GArray **ret, GError **error)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(Referrer));

    for (guint i = 0; i < r->names->len; i++) {
        g_autoptr(GArray) maps = NULL;

        if (!catalog_digests(r->db, &maps, error, "SELECT map FROM map_segment WHERE segment = ?1", &((Name *)r->names->pdata[i])->digest))
            return false;
        for (guint j = 0; j < maps->len; j++) {
            Referrer referrer = {.map = g_array_index(maps, Digest, j)};

            if (!g_hash_table_add(r->maps, g_memdup2(&referrer.map, sizeof(Digest))))
                continue;
            if (!database_int(r->db, 0, &referrer.image, error, "SELECT image FROM newest WHERE digest = ?1", "d", &referrer.map) ||
                !database_int(r->db, 0, &referrer.dead, error, "SELECT dead FROM blob WHERE digest = ?1", "d", &referrer.map))
                return false;
            g_array_append_val(list, referrer);
        }
    }
    g_array_sort(list, newest_first);
    *ret = g_steal_pointer(&list);
    return true;
}

static bool is_worth_it(const Leaving *leaving)
{
    return (int64_t)leaving->live * 100 < leaving->blocks * LIVE_PERCENT;
}

static bool is_measured(const Repack *r)
{
    for (guint i = 0; i < r->leaving->len; i++)
        if (is_worth_it(r->leaving->pdata[i]))
            return false;
    return r->measuring;
}

static bool scan(Repack *r, PositionFn *fn, GError **error)
{
    g_autoptr(GArray) list = NULL;

    if (!list_newest(r, error) || !list_referrers(r, &list, error))
        return false;
    for (guint i = 0; i < list->len && !is_measured(r); i++) {
        const Referrer *referrer = &g_array_index(list, Referrer, i);

        r->dead = referrer->dead != 0;
        if (!each_position(r, &referrer->map, fn, error))
            return false;
    }
    return true;
}

/* --- measuring --- */

static bool note_measures(Repack *r, unsigned *ret_marked, GError **error)
{
    int64_t generation;

    if (!catalog_bump_generation(r->db, &generation, error))
        return false;
    for (guint i = 0; i < r->leaving->len; i++) {
        const Leaving *leaving = r->leaving->pdata[i];
        bool goes = is_worth_it(leaving);

        if (!database_run(r->db, error, "UPDATE segment SET suspect = 0, leaving = ?1 WHERE digest = ?2", "id", goes ? generation : 0,
                          &leaving->digest))
            return false;
        *ret_marked += goes;
    }
    return true;
}

/* *ret_more: there may be further ones. */
static bool measure(Store *store, Database *db, int64_t young, bool *ret_more, GError **error)
{
    g_auto(Repack) r;
    unsigned marked = 0;

    repack_init(&r, store, db);
    r.measuring = true;
    if (!list_leaving(&r, "SELECT digest, size, blocks FROM segment WHERE suspect != 0 AND leaving = 0 AND dead = 0 AND created < ?1"
                          " ORDER BY number DESC LIMIT ?2", young, error))
        return false;
    *ret_more = r.leaving->len > 0;
    if (r.leaving->len == 0)
        return true;
    if (!scan(&r, need, error) || !database_begin(db, true, error))
        return false;
    if (!note_measures(&r, &marked, error)) {
        database_rollback(db);
        return false;
    }
    trace("store.gc", "measured %u segments, %u of them are to be repacked", r.leaving->len, marked);
    return database_commit(db, error);
}

/* --- copying --- */

static bool copy_window(Repack *r, guint first, unsigned count, uint8_t *buffer, GError **error)
{
    BlockRef refs[FRAME_MAX_BLOCKS];
    Digest hashes[FRAME_MAX_BLOCKS];

    for (unsigned i = 0; i < count; i++) {
        const Needed *one = &g_array_index(r->order, Needed, first + i);
        Segment *segment;

        if (!segment_get(r->store, &one->leaving->digest, &segment, error) ||
            !segment_read(segment, position_frame(one->position), position_block(one->position) * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE,
                          buffer + (size_t)i * STORE_BLOCK_SIZE, error))
            return false;
    }
    store_hash_blocks(buffer, count, hashes);
    if (!store_writer_put_hashed(r->writer, buffer, hashes, count, refs, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        g_array_index(r->order, Needed, first + i).to = refs[i];
    return true;
}

static bool copy_all(Repack *r, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(FRAME_MAX_BYTES);

    for (guint at = 0; at < r->order->len; at += FRAME_MAX_BLOCKS)
        if (!interrupt_check(error) || !copy_window(r, at, MIN(r->order->len - at, FRAME_MAX_BLOCKS), buffer, error))
            return false;
    return true;
}

/* --- tables --- */

/*
 * Blocks copied in the same order have the same name. So one that is leaving may be written anew as it is, after a kill for example, when
 * both an old segment and its copy are leaving.
 */
static bool place_block(const Repack *r, const Leaving *leaving, Digest *segment, uint32_t *position, GError **error)
{
    Leaving *again;

    if (!leaving)
        return true;
    if (*position >= leaving->positions || !leaving->order[*position])
        return fail(error, "a block that is needed was not copied; run kiln fsck");
    store_writer_resolve(r->writer, &g_array_index(r->order, Needed, leaving->order[*position] - 1).to, segment, position);
    again = leaving_of(r, segment);
    if (again)
        again->stays = true;
    return true;
}

/* From the writer's commit on. */
static bool make_table(Repack *r, const Name *name, SegmentMoved **ret, GError **error)
{
    uint32_t frames = segment_frames(name->segment);
    g_autoptr(MapBody) body = map_body_new((uint64_t)frames * FRAME_MAX_BYTES, segment_class(name->segment));
    g_autoptr(GHashTable) indexes = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);

    for (uint32_t position = 0; position < frames * FRAME_MAX_BLOCKS; position++) {
        GError *why = NULL;
        const Leaving *leaving;
        uint32_t place;
        Digest segment;

        if (!(name->needed[position / 8] & 1 << position % 8))
            continue;
        leaving = find_leaving(r, name, position, &segment, &place, &why);
        if (why) {
            g_propagate_error(error, why);
            return false;
        }
        if (!place_block(r, leaving, &segment, &place, error))
            return false;
        map_body_append(body, position, map_body_segment(body, indexes, &segment), place);
    }
    *ret = segment_moved_new(frames, g_steal_pointer(&body));
    return true;
}

/* A name whose file came back, or stays, needs no table. */
static bool needs_table(const Repack *r, const Name *name)
{
    const Leaving *leaving = leaving_of(r, &name->digest);

    return leaving ? !leaving->stays : segment_is_moved(name->segment);
}

/* In the writer's transaction: what is written now must not look unreachable to the next gc. */
static bool hold_both(void *arg, Database *db, int64_t created, GError **error)
{
    Repack *r = arg;

    (void)created;
    for (guint i = 0; i < r->names->len; i++) {
        g_autoptr(SegmentMoved) moved = NULL;

        if (!needs_table(r, r->names->pdata[i]))
            continue;
        if (!make_table(r, r->names->pdata[i], &moved, error) ||
            !catalog_add_moved(db, &((Name *)r->names->pdata[i])->digest, moved->body->segments, error))
            return false;
    }
    return true;
}

static bool copy(Repack *r, GError **error)
{
    const WriterHook hook = {.place = hold_both, .arg = r};

    if (!store_writer_open(r->store, r->class, &r->writer, error))
        return false;
    store_writer_add_hook(r->writer, &hook);
    return copy_all(r, error) && store_writer_commit(r->writer, error);
}

/* --- switching --- */

static bool check_covered(Repack *r, const Name *name, uint32_t position, GError **error)
{
    (void)error;
    if (position >= segment_frames(name->segment) * FRAME_MAX_BLOCKS || !(name->needed[position / 8] & 1 << position % 8))
        r->late = true;
    return true;
}

static bool switch_name(Repack *r, const Name *name, GError **error)
{
    g_autoptr(SegmentMoved) moved = NULL;
    int64_t used;

    if (!database_int(r->db, 0, &used, error, "SELECT count(*) FROM map_segment WHERE segment = ?1", "d", &name->digest) ||
        !database_run(r->db, error, "DELETE FROM moved WHERE segment = ?1", "d", &name->digest))
        return false;
    if (!used || !needs_table(r, name))
        return segment_moved_remove(r->store, &name->digest, error);
    return make_table(r, name, &moved, error) && segment_moved_write(r->store, &name->digest, moved, error) &&
           catalog_add_moved(r->db, &name->digest, moved->body->segments, error);
}

static bool remove_leaving(Repack *r, const Leaving *leaving, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(r->store->segments_fd, &leaving->digest, false, name);

    if (dir >= 0 && io_unlink(dir, name, 0) < 0 && errno != ENOENT)
        return store_fail_errno(r->store, error, "remove a segment of");
    return catalog_remove_segment(r->db, &leaving->digest, error);
}

static bool take_mark_away(Repack *r, const Leaving *leaving, GError **error)
{
    return database_run(r->db, error, "UPDATE segment SET leaving = 0 WHERE digest = ?1", "d", &leaving->digest);
}

/* Whoever stored the same bytes meanwhile took the mark away, and is about to refer to them. */
static bool check_marks(Repack *r, GError **error)
{
    for (guint i = 0; i < r->leaving->len; i++) {
        const Leaving *leaving = r->leaving->pdata[i];
        int64_t mark;

        if (!database_int(r->db, 0, &mark, error, "SELECT leaving FROM segment WHERE digest = ?1 AND dead = 0", "d", &leaving->digest))
            return false;
        r->late = r->late || (!mark && !leaving->stays);
    }
    return true;
}

/* Tables first, all of them: a name may lead through another's file. */
static bool switch_all(Repack *r, GError **error)
{
    if (!scan(r, check_covered, error) || !check_marks(r, error))
        return false;
    for (guint i = 0; !r->late && i < r->names->len; i++)
        if (!switch_name(r, r->names->pdata[i], error))
            return false;
    for (guint i = 0; !r->late && i < r->leaving->len; i++) {
        const Leaving *leaving = r->leaving->pdata[i];

        if (!(leaving->stays ? take_mark_away : remove_leaving)(r, leaving, error))
            return false;
    }
    return true;
}

/* The rows of what was copied are on the disk before a file goes: commits are durable in their order. */
static bool settle(Repack *r, GError **error)
{
    if (!database_begin(r->db, true, error))
        return false;
    if (!database_run(r->db, error, "UPDATE meta SET value = value WHERE key = 'generation'", "")) {
        database_rollback(r->db);
        return false;
    }
    return database_commit(r->db, error);
}

static bool switch_over(Repack *r, GError **error)
{
    if (!settle(r, error) || !database_begin(r->db, true, error))
        return false;
    if (!switch_all(r, error) || r->late) {
        database_rollback(r->db);
        return r->late;
    }
    return database_commit(r->db, error);
}

static void count(const Repack *r, StoreGcReport *report)
{
    uint64_t before = 0, after = store_writer_new_bytes(r->writer);

    for (guint i = 0; i < r->leaving->len; i++) /* what stays is among what was written */
        before += (uint64_t)((Leaving *)r->leaving->pdata[i])->size;
    report->segments_repacked += r->leaving->len;
    report->bytes_freed += before > after ? before - after : 0;
}

static void forget(const Repack *r)
{
    for (guint i = 0; i < r->names->len; i++)
        segment_forget(r->store, &((Name *)r->names->pdata[i])->digest);
}

static bool repack_some(Repack *r, StoreGcReport *report, GError **error)
{
    if (!scan(r, need, error) || !copy(r, error) || !switch_over(r, error))
        return false;
    if (r->late)
        return true;
    forget(r);
    count(r, report);
    return true;
}

/* One class at a time. *ret_more: there may be further ones. */
static bool repack_batch(Store *store, Database *db, BlockClass class, int64_t oldest_lease, StoreGcReport *report, bool *ret_more, GError **error)
{
    g_auto(Repack) r;
    bool ok;

    repack_init(&r, store, db);
    r.class = class;
    if (!list_leaving(&r, class == BLOCK_PUBLIC ? "SELECT digest, size, blocks FROM segment WHERE leaving != 0 AND leaving <= ?1 AND dead = 0"
                                                  " AND class = 1 ORDER BY number DESC LIMIT ?2"
                                                : "SELECT digest, size, blocks FROM segment WHERE leaving != 0 AND leaving <= ?1 AND dead = 0"
                                                  " AND class = 0 ORDER BY number DESC LIMIT ?2",
                      oldest_lease, error))
        return false;
    *ret_more = r.leaving->len > 0;
    ok = r.leaving->len == 0 || repack_some(&r, report, error);
    *ret_more = *ret_more && ok && !r.late;
    store_writer_free(r.writer);
    return ok;
}

static bool repack_leaving(Store *store, Database *db, StoreGcReport *report, GError **error)
{
    int64_t oldest;

    if (!store_oldest_lease(store, &oldest, error))
        return false;
    for (int class = BLOCK_PRIVATE; class <= BLOCK_PUBLIC; class++)
        for (bool more = true; more;)
            if (!repack_batch(store, db, (BlockClass)class, oldest, report, &more, error))
                return false;
    return true;
}

/* --- after a kill --- */

/* Does the table of an earlier name still lead there? One that cannot be read may. */
static bool is_led_to(Store *store, const Digest *name, const Digest *target)
{
    g_autoptr(SegmentMoved) moved = NULL;

    if (!segment_moved_load(store, name, &moved, NULL))
        return true;
    for (guint i = 0; moved && i < moved->body->segments->len; i++)
        if (digest_equal(&g_array_index(moved->body->segments, Digest, i), target))
            return true;
    return false;
}

/* Neither file nor table: it was switched over when no map said its name, or it is lost, which is fsck's to tell. */
static bool forget_if_gone(Store *store, Database *db, const Digest *leaving, GError **error)
{
    g_autoptr(GArray) earlier = NULL;
    g_autoptr(GError) why = NULL;
    Segment *segment;

    segment_forget(store, leaving);
    if (segment_get(store, leaving, &segment, &why) || why->code != KILN_ERROR_NOT_FOUND)
        return true;
    if (!catalog_digests(db, &earlier, error, "SELECT segment FROM moved WHERE target = ?1", leaving))
        return false;
    for (guint i = 0; i < earlier->len; i++)
        if (is_led_to(store, &g_array_index(earlier, Digest, i), leaving))
            return true;
    return database_run(db, error, "DELETE FROM moved WHERE segment = ?1 OR target = ?1", "d", leaving) &&
           catalog_remove_segment(db, leaving, error);
}

bool repack_forget_gone(Store *store, Database *db, GError **error)
{
    g_autoptr(GArray) list = NULL;

    if (!catalog_digests(db, &list, error, "SELECT digest FROM segment WHERE leaving != 0 AND digest NOT IN (SELECT segment FROM map_segment)", NULL))
        return false;
    for (guint i = 0; i < list->len; i++)
        if (!forget_if_gone(store, db, &g_array_index(list, Digest, i), error))
            return false;
    return true;
}

/* With somebody else there, nobody recovered. */
static bool tidy(Store *store, Database *db, GError **error)
{
    if (!database_begin(db, true, error))
        return false;
    if (!repack_forget_gone(store, db, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

/* --- all of it --- */

bool store_repack(Store *store, int64_t young, uint64_t rewrite, StoreGcReport *report, GError **error)
{
    auto_fd int lock = io_open(store->dirfd, "index/repack.lock", O_RDWR | O_CREAT, 0644);
    bool more = true, ok = true;
    Database *db;

    if (lock < 0 && errno == ENOENT)
        return true; /* nothing was ever written */
    if (lock < 0)
        return store_fail_errno(store, error, "lock repacking in");
    if (flock(lock, LOCK_EX | LOCK_NB) < 0)
        return true;
    if (!store_catalog(store, &db, error) || !tidy(store, db, error))
        return false;
    while (more && ok)
        ok = measure(store, db, young, &more, error);
    return ok && fragments_mark(store, db, young, rewrite, error) && repack_leaving(store, db, report, error);
}
