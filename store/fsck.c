/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsck: does everything that something refers to exist, and is it what its name says?
 *
 * What killed processes left is not a problem: it is recovered first. Rows that gc has marked dead are left out, since
 * their files may be on their way out. With @read_data every byte of every segment and blob is read and hashed.
 */
#include "store/upkeep.h"

#include "base/error.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/channel.h"
#include "store/block-index.h"
#include "store/journal.h"
#include "store/io.h"
#include "store/layer.h"
#include "store/ledger.h"
#include "store/map-private.h"
#include "store/recovery.h"
#include "store/signature.h"
#include "store/store-private.h"

typedef struct Fsck {
    Store *store;
    Database *db, *state;
    bool read_data;
    GPtrArray *problems;
} Fsck;

static void problem(Fsck *f, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void problem(Fsck *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(f->problems, g_strdup_vprintf(format, args));
    va_end(args);
}

/* Turns an error of a look into a problem found. */
static void problem_error(Fsck *f, GError *error)
{
    problem(f, "%s", error->message);
    g_error_free(error);
}

/* Rows are collected before the slow work, so that no read transaction stays open over it. */
typedef struct Row {
    Digest digest, other;
    int64_t a, b, c, d;
    char *text;
} Row;

static void row_clear(gpointer data)
{
    g_free(((Row *)data)->text);
}

/* Columns: digest, digest, int, int, int, int, text. */
static bool load_rows(Database *db, const char *sql, GArray **ret, GError **error)
{
    g_autoptr(GArray) rows = g_array_new(FALSE, TRUE, sizeof(Row));
    g_autoptr(Query) query = database_query(db, error, sql, "");
    int rc = query ? 0 : -1;

    g_array_set_clear_func(rows, row_clear);
    while (query && (rc = query_step(query, error)) > 0) {
        Row row = { .a = query_int(query, 2), .b = query_int(query, 3), .c = query_int(query, 4), .d = query_int(query, 5) };

        query_digest(query, 0, &row.digest);
        query_digest(query, 1, &row.other);
        row.text = g_strdup(query_text(query, 6));
        g_array_append_val(rows, row);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&rows);
    return true;
}

typedef bool RowFn(Fsck *f, const Row *row, GError **error);

static bool each_row(Fsck *f, Database *db, const char *sql, RowFn *fn, GError **error)
{
    g_autoptr(GArray) rows = NULL;

    if (!load_rows(db, sql, &rows, error))
        return false;
    for (guint i = 0; i < rows->len; i++)
        if (!fn(f, &g_array_index(rows, Row, i), error))
            return false;
    return true;
}

/* --- segments --- */

static void check_segment_digest(Fsck *f, const Digest *digest)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(f->store->segments_fd, digest, false, name);
    GError *why = NULL;
    Digest have;

    if (dir >= 0 && !digest_of_file(dir, name, &have, NULL, &why))
        problem_error(f, why);
    else if (dir >= 0 && !digest_equal(digest, &have))
        problem(f, "segment %s does not have the bytes its name says", name);
}

static void read_segment(Fsck *f, Segment *segment)
{
    check_segment_digest(f, segment_digest(segment));
    for (uint32_t i = 0; i < segment_frames(segment); i++) {
        GError *why = NULL;

        if (!segment_verify_frame(segment, i, &why))
            problem_error(f, why);
    }
}

static bool check_frame_rows(Fsck *f, const Row *row, const Segment *segment, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    int64_t bytes = 0, blocks = 0, rows, row_bytes;

    for (uint32_t i = 0; i < segment_frames(segment); i++) {
        bytes += segment_entry(segment, i)->size;
        blocks += segment_entry(segment, i)->blocks;
    }
    if (!database_int(f->db, 0, &rows, error, "SELECT count(*) FROM frame WHERE segment = ?1", "i", row->d) ||
        !database_int(f->db, 0, &row_bytes, error, "SELECT sum(size) FROM frame WHERE segment = ?1", "i", row->d))
        return false;
    if (rows != segment_frames(segment) || row_bytes != bytes)
        problem(f, "the catalog's frames of segment %s are not those of its file", digest_to_hex(&row->digest, hex));
    return true;
}

static bool check_segment(Fsck *f, const Row *row, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    GError *why = NULL;
    Segment *segment;

    digest_to_hex(&row->digest, hex);
    /* Forgotten first: what is open was checked when it was opened, the file may have changed since. */
    segment_forget(f->store, &row->digest);
    if (!segment_get(f->store, &row->digest, &segment, &why)) {
        problem_error(f, why);
        return true;
    }
    if (segment_is_moved(segment))
        return true; /* a repacking was killed after it took the file away; the next gc takes the row */
    if (row->a != (int64_t)segment_class(segment) || row->b != (int64_t)segment_file_size(segment) || row->c != segment_frames(segment))
        problem(f, "the catalog's row of segment %s does not fit its file", hex);
    if (!check_frame_rows(f, row, segment, error))
        return false;
    if (f->read_data)
        read_segment(f, segment);
    return true;
}

/* --- blobs and maps --- */

static bool check_blob(Fsck *f, const Row *row, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    GError *why = NULL;
    uint64_t size, stored;

    if (!blob_file_exists(f->store, &row->digest))
        problem(f, "blob %s is missing", digest_to_hex(&row->digest, hex));
    else if (f->read_data && !blob_file_verify(f->store, &row->digest, &size, &stored, &why))
        problem_error(f, why);
    else if (f->read_data && (int64_t)size != row->a)
        problem(f, "the catalog says %" G_GINT64_FORMAT " bytes for blob %s, it has %" G_GUINT64_FORMAT, row->a,
                digest_to_hex(&row->digest, hex), size);
    return true;
}

/* Every block that the run names is in its segment. */
static bool run_fits(const MapRun *run, Segment *segment)
{
    uint32_t at = run->position, end = run->position + run->count;

    for (; segment_is_moved(segment) && at < end; at++)
        if (!segment_holds(segment, at))
            return false;

    while (at < end) {
        uint32_t frame = position_frame(at);

        if (frame >= segment_frames(segment) || position_block(at) >= segment_entry(segment, frame)->blocks)
            return false;
        if (position_of(frame + 1, 0) < end && segment_entry(segment, frame)->blocks < FRAME_MAX_BLOCKS)
            return false;
        if (position_of(frame + 1, 0) >= end)
            return position_block(end - 1) < segment_entry(segment, frame)->blocks;
        at = position_of(frame + 1, 0);
    }
    return true;
}

static void check_runs(Fsck *f, const char *hex, StoreMap *map)
{
    const MapBody *body = store_map_body(map);

    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        GError *why = NULL;
        Segment *segment;

        if (!store_map_segment(map, run->segment, &segment, &why)) {
            problem(f, "map %s: %s", hex, why->message);
            g_error_free(why);
            return;
        }
        if (!run_fits(run, segment)) {
            problem(f, "map %s names blocks that its segment does not have", hex);
            return;
        }
    }
}

static bool check_map(Fsck *f, const Row *row, GError **error)
{
    g_autoptr(StoreMap) map = NULL;
    char hex[DIGEST_HEX_SIZE];
    GError *why = NULL;
    int64_t rows;

    digest_to_hex(&row->digest, hex);
    if (!store_map_open(f->store, &row->digest, &map, &why)) {
        problem_error(f, why);
        return true;
    }
    if (!database_int(f->db, 0, &rows, error, "SELECT count(*) FROM map_segment WHERE map = ?1", "d", &row->digest))
        return false;
    if (rows != store_map_body(map)->segments->len || row->a != (int64_t)store_map_body(map)->class ||
        row->b != (int64_t)store_map_size(map))
        problem(f, "the catalog's row of map %s does not fit its blob", hex);
    check_runs(f, hex, map);
    return true;
}

static bool check_map_segment(Fsck *f, const Row *row, GError **error)
{
    char map[DIGEST_HEX_SIZE], segment[DIGEST_HEX_SIZE];

    problem(f, "map %s needs segment %s, which is missing", digest_to_hex(&row->digest, map), digest_to_hex(&row->other, segment));
    return true;
}

static bool check_moved(Fsck *f, const Row *row, GError **error)
{
    char segment[DIGEST_HEX_SIZE], target[DIGEST_HEX_SIZE];

    problem(f, "segment %s was repacked into segment %s, which is missing", digest_to_hex(&row->digest, segment), digest_to_hex(&row->other, target));
    return true;
}

/* --- images and names --- */

static bool check_reference(Fsck *f, const Row *row, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    if (!blob_file_exists(f->store, &row->digest))
        problem(f, "image %s lacks its blob %s", row->text, digest_to_hex(&row->digest, hex));
    return true;
}

static bool check_image(Fsck *f, const Row *row, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    int64_t known = 1;

    if (!digest_is_none(&row->other) &&
        !database_int(f->db, 0, &known, error, "SELECT count(*) FROM map WHERE digest = ?1 AND class = 1", "d", &row->other))
        return false;
    if (!known)
        problem(f, "image %s has no public map %s", row->text, digest_to_hex(&row->other, hex));
    return true;
}

static bool check_name(Fsck *f, const Row *row, GError **error)
{
    int64_t known;

    if (!database_int(f->db, 0, &known, error, "SELECT count(*) FROM image WHERE id = ?1", "d", &row->digest))
        return false;
    if (!known)
        problem(f, "the name %s points to an image that is not in the catalog", row->text);
    return true;
}

static bool check_hold(Fsck *f, const Row *row, GError **error)
{
    char hex[DIGEST_OCI_SIZE];
    int64_t known;

    if (!database_int(f->db, 0, &known, error, "SELECT count(*) FROM image WHERE id = ?1 AND bytes_gone = 0", "d", &row->digest))
        return false;
    if (!known)
        problem(f, "group '%s' needs image %s, which is not in the catalog", row->text, digest_to_oci(&row->digest, hex));
    return true;
}

static bool check_recipe(Fsck *f, const Row *row, GError **error)
{
    char hex[DIGEST_HEX_SIZE];
    GError *why = NULL;
    Digest map;

    digest_to_hex(&row->digest, hex);
    if (!layer_recipe_map(f->store, &row->other, &map, &why)) {
        problem(f, "layer %s: %s", hex, why->message);
        g_error_free(why);
    } else if (!digest_is_none(&map) && !blob_file_exists(f->store, &map)) { /* a layer of nothing but names has none */
        problem(f, "layer %s lacks the map that its recipe names", hex);
    }
    return true;
}

/* --- all of it --- */

static bool check_everything(Fsck *f, GError **error)
{
    static const struct {
        bool state;
        RowFn *fn;
        const char *sql;
    } checks[] = {
        { false, check_segment, "SELECT digest, NULL, class, size, frames, number, NULL FROM segment WHERE dead = 0" },
        { false, check_blob, "SELECT digest, NULL, size, stored, 0, 0, NULL FROM blob WHERE dead = 0" },
        { false, check_map_segment,
          "SELECT map, segment, 0, 0, 0, 0, NULL FROM map_segment WHERE map IN (SELECT digest FROM blob WHERE dead = 0)"
          " AND segment NOT IN (SELECT digest FROM segment) AND segment NOT IN (SELECT segment FROM moved)" },
        { false, check_moved,
          "SELECT segment, target, 0, 0, 0, 0, NULL FROM moved WHERE target NOT IN (SELECT digest FROM segment)"
          " AND segment IN (SELECT segment FROM map_segment WHERE map IN (SELECT digest FROM blob WHERE dead = 0))" },
        { false, check_map,
          "SELECT digest, NULL, class, size, 0, 0, NULL FROM map WHERE digest IN (SELECT digest FROM blob WHERE dead = 0)"
          " AND NOT EXISTS (SELECT 1 FROM map_segment WHERE map = map.digest AND segment NOT IN (SELECT digest FROM segment WHERE dead = 0)"
          " AND segment NOT IN (SELECT segment FROM moved))" },
        { false, check_reference,
          "SELECT r.digest, NULL, 0, 0, 0, 0, b.name || ' (' || r.role || ')' FROM reference r JOIN bake b ON b.number = r.bake" },
        { false, check_image, "SELECT id, map, 0, 0, 0, 0, name || '/' || kind FROM image WHERE bytes_gone = 0" },
        { false, check_recipe, "SELECT layer, recipe, 0, 0, 0, 0, NULL FROM recipe WHERE recipe IN (SELECT digest FROM blob WHERE dead = 0)" },
        { true, check_name, "SELECT image, NULL, 0, 0, 0, 0, name || '/' || kind FROM name" },
        { true, check_hold, "SELECT image, NULL, 0, 0, 0, 0, grp FROM hold" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(checks); i++)
        if (!each_row(f, checks[i].state ? f->state : f->db, checks[i].sql, checks[i].fn, error))
            return false;
    return true;
}

static bool recover_first(Store *store, StoreLease **ret_lease, GError **error)
{
    if (store->flags & STORE_OPEN_READONLY)
        return true;
    /* The lease keeps what we are about to look at from a gc that starts now. */
    return store_clear_dead_owners(store, NULL, error) && store_adopt(store, error) && store_lease_take(store, "fsck", ret_lease, error);
}

bool store_fsck(Store *store, bool read_data, GPtrArray **ret_problems, GError **error)
{
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(StoreLease) lease = NULL;
    Fsck f = { .store = store, .read_data = read_data, .problems = problems };

    if (!store_catalog(store, &f.db, error) || !store_state_db(store, &f.state, error) || !recover_first(store, &lease, error))
        return false;
    if (!database_check(f.db, problems, error) || !database_check(f.state, problems, error) || !check_everything(&f, error) ||
        !store_channels_verify(store, problems, error) || !store_journals_verify(store, problems, error) ||
        !store_heads_verify(store, NULL, problems, NULL, error) || !store_ledger_verify(store, problems, error))
        return false;
    *ret_problems = g_steal_pointer(&problems);
    return true;
}

bool store_rebuild_index(Store *store, GError **error)
{
    return store_writable(store, error) && block_index_rebuild(store, error);
}
