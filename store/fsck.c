/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsck: does everything that something refers to exist, and is it what its name says?
 *
 * What killed processes left is not a problem: it is recovered first. Rows that gc has marked dead are left out, since
 * their files may be on their way out. With @read_data every byte of every segment and blob is read and hashed (store/scrub.h). What is missing
 * or damaged is looked into at the end (store/damage.h), and made good where that is asked for and possible (store/repair.h).
 */
#include "store/upkeep.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/channel.h"
#include "store/block-index.h"
#include "store/damage.h"
#include "store/journal.h"
#include "store/io.h"
#include "store/layer.h"
#include "store/ledger.h"
#include "store/map-private.h"
#include "store/recovery.h"
#include "store/repair.h"
#include "store/scrub.h"
#include "store/segment-moved.h"
#include "store/signature.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

typedef struct Fsck {
    Store *store;
    Database *db, *state;
    DamageList *damage;
    GPtrArray *problems;
    guint of_databases; /* so many of them, the first, are of the databases themselves */
} Fsck;

static void problem(Fsck *f, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void problem(Fsck *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(f->problems, g_strdup_vprintf(format, args));
    va_end(args);
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

static bool is_entry(Query *row, const SegmentEntry *e)
{
    return query_int(row, 0) == e->offset && query_int(row, 1) == e->size && query_int(row, 2) == e->blocks && query_int(row, 3) == e->encoding;
}

static bool check_frame_rows(Fsck *f, const Row *row, const Segment *segment, GError **error)
{
    g_autoptr(Query) query =
        database_query(f->db, error, "SELECT offset, size, blocks, encoding FROM frame WHERE segment = ?1 ORDER BY number", "i", row->d);
    char hex[DIGEST_HEX_SIZE];
    uint32_t count = 0;
    bool same = true;
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        if (count++ < segment_frames(segment))
            same &= is_entry(query, segment_entry(segment, count - 1));
    if (rc < 0)
        return false;
    if (!same || count != segment_frames(segment))
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
        damage_add(f->damage, DAMAGE_SEGMENT, &row->digest, why->code == KILN_ERROR_NOT_FOUND, why->message);
        g_error_free(why);
        return true;
    }
    if (segment_is_moved(segment))
        return true; /* a repacking was killed after it took the file away; the next gc takes the row */
    if (row->a != (int64_t)segment_class(segment) || row->b != (int64_t)segment_file_size(segment) || row->c != segment_frames(segment))
        problem(f, "the catalog's row of segment %s does not fit its file", hex);
    return check_frame_rows(f, row, segment, error);
}

/* --- blobs and maps --- */

static bool blob_size_fits(const Row *row, int fd, bool packed)
{
    uint64_t plain;
    struct stat st;

    return fstat(fd, &st) == 0 && (int64_t)st.st_size == row->b && blob_file_plain_size(fd, packed, (uint64_t)st.st_size, &plain) &&
           (int64_t)plain == row->a;
}

static bool check_blob(Fsck *f, const Row *row, GError **error)
{
    bool packed;
    auto_fd int fd = blob_file_open(f->store, &row->digest, &packed);
    g_autofree char *why = fd < 0 ? g_strdup_printf("it cannot be opened: %s", g_strerror(errno)) : NULL;

    if (fd < 0)
        damage_add(f->damage, DAMAGE_BLOB, &row->digest, errno == ENOENT, why);
    else if (!blob_size_fits(row, fd, packed))
        damage_add(f->damage, DAMAGE_BLOB, &row->digest, false, "its size is not what the catalog says");
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

        if (damage_has(f->damage, DAMAGE_SEGMENT, &g_array_index(body->segments, Digest, run->segment)) ||
            damage_has(f->damage, DAMAGE_TABLE, &g_array_index(body->segments, Digest, run->segment)))
            continue; /* which says more */
        if (!store_map_segment(map, run->segment, &segment, &why)) {
            problem(f, "map %s: %s", hex, why->message);
            g_error_free(why);
            return;
        }
        if (!run_fits(run, segment) && segment_is_moved(segment)) {
            damage_add(f->damage, DAMAGE_TABLE, segment_digest(segment), false, "blocks that are needed are not in it");
            continue;
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
        damage_add(f->damage, DAMAGE_BLOB, &row->digest, why->code == KILN_ERROR_NOT_FOUND, "it cannot be read as a map");
        g_error_free(why);
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

/* @digest has no row. */
static void check_rowless(Fsck *f, const char *what, const Digest *from, const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE], segment[DIGEST_HEX_SIZE];
    Segment *there;

    if (segment_get(f->store, digest, &there, NULL))
        problem(f, "%s %s needs segment %s, which is not in the catalog", what, digest_to_hex(from, hex), digest_to_hex(digest, segment));
    else
        damage_add(f->damage, DAMAGE_SEGMENT, digest, true, NULL);
}

static bool check_map_segment(Fsck *f, const Row *row, GError **error)
{
    check_rowless(f, "map", &row->digest, &row->other);
    return true;
}

static bool check_moved(Fsck *f, const Row *row, GError **error)
{
    check_rowless(f, "what was repacked of segment", &row->digest, &row->other);
    return true;
}

/* A file by the segment's own name counts, as long as there is one. */
static bool check_table(Fsck *f, const Row *row, GError **error)
{
    g_autoptr(SegmentMoved) moved = NULL;
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(f->store->segments_fd, &row->digest, false, name);
    GError *why = NULL;

    if (dir >= 0 && faccessat(dir, name, F_OK, 0) == 0)
        return true;
    segment_forget(f->store, &row->digest);
    if (!segment_moved_load(f->store, &row->digest, &moved, &why) || !moved)
        damage_add(f->damage, DAMAGE_TABLE, &row->digest, !why, why ? why->message : NULL);
    g_clear_error(&why);
    return true;
}

/* --- images and names --- */

static bool check_reference(Fsck *f, const Row *row, GError **error)
{
    if (!blob_file_exists(f->store, &row->digest))
        damage_add(f->damage, DAMAGE_BLOB, &row->digest, true, NULL);
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
    if (damage_has(f->damage, DAMAGE_BLOB, &row->other))
        return true;
    if (!layer_recipe_map(f->store, &row->other, &map, &why)) {
        damage_add(f->damage, DAMAGE_BLOB, &row->other, false, "it cannot be read as the recipe of a layer");
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
        { false, check_table,
          "SELECT DISTINCT segment, NULL, 0, 0, 0, 0, NULL FROM moved WHERE segment IN"
          " (SELECT segment FROM map_segment WHERE map IN (SELECT digest FROM blob WHERE dead = 0))" },
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

static bool check_logs(Fsck *f, GError **error)
{
    return store_channels_verify(f->store, f->problems, error) && store_journals_verify(f->store, f->problems, error) &&
           store_heads_verify(f->store, NULL, f->problems, NULL, error) && store_ledger_verify(f->store, f->problems, error);
}

static bool read_everything(Fsck *f, const StoreFsckOptions *options, StoreFsckReport *report, GError **error)
{
    ScrubOptions scrub = {.rate = options->rate, .part = options->part, .parts = options->parts, .progress = options->progress};
    ScrubReport done = {0};

    if (!options->read_data)
        return true;
    if (!store_scrub(f->store, &scrub, f->damage, &done, error))
        return false;
    report->files = done.files;
    report->bytes = done.bytes;
    report->earlier_files = done.earlier_files;
    report->earlier_bytes = done.earlier_bytes;
    report->begun = done.begun;
    report->oldest = done.oldest;
    report->noted = done.noted;
    return true;
}

static bool repair(Fsck *f, const StoreFsckOptions *options, StoreFsckReport *report, GError **error)
{
    g_autoptr(DamageList) again = NULL;
    DamageList *first = f->damage;
    guint before = report->repairs->len;
    bool ok;

    if (!store_repair(f->store, options->from, first, report->repairs, error))
        return false;
    if (report->repairs->len == before)
        return true;
    /* Much that was found followed from what is good again now. */
    f->damage = again = damage_list_new(f->store);
    g_ptr_array_set_size(f->problems, (gint)f->of_databases);
    ok = check_everything(f, error) && check_logs(f, error);
    damage_merge(first, again);
    f->damage = first;
    return ok && damage_describe(f->damage, error);
}

static void gather(Fsck *f, StoreFsckReport *report)
{
    for (guint i = 0; i < damage_count(f->damage); i++) {
        const Damage *d = damage_nth(f->damage, i);

        if (!d->json) { /* the catalog could not be asked */
            problem(f, "a file is damaged or missing: %s", d->why ? d->why : "nothing more can be said");
            continue;
        }
        json_object_set_new(d->json, "repaired", json_boolean(d->repaired));
        json_array_append(report->damage, d->json);
        for (guint j = 0; !d->repaired && j < d->sentences->len; j++)
            problem(f, "%s", (char *)d->sentences->pdata[j]);
    }
}

static bool has_log(const char *path)
{
    g_autofree char *log = g_strconcat(path, "-wal", NULL);
    struct stat st;

    return stat(log, &st) == 0 && st.st_size > 0;
}

/* A power cut may have torn pages that are whole in the log; they are copied from there once more. */
static bool copy_log(Fsck *f, bool state, GError **error)
{
    return (state ? store_state_db(f->store, &f->state, error) : store_catalog(f->store, &f->db, error)) &&
           database_checkpoint(state ? f->state : f->db, error);
}

static bool check_pages_of(Fsck *f, bool state, bool *ret_checked, GError **error)
{
    const char *file = state ? "state.db" : "catalog.db";
    g_autofree char *path = g_build_filename(f->store->path, file, NULL);
    guint before = f->problems->len;

    if (!database_check_pages(path, file, f->problems, ret_checked, error))
        return false;
    if (f->problems->len == before || (f->store->flags & STORE_OPEN_READONLY) || !has_log(path) || !copy_log(f, state, NULL))
        return true;
    g_ptr_array_set_size(f->problems, (gint)before);
    return database_check_pages(path, file, f->problems, ret_checked, error);
}

/* Before SQLite reads them, which may refuse to, and before anything is written into a page that is not whole. */
static bool check_pages(Fsck *f, bool ret_checked[2], GError **error)
{
    return check_pages_of(f, false, &ret_checked[0], error) && check_pages_of(f, true, &ret_checked[1], error);
}

/* Databases from before pages had checks get them. */
static void add_checks(Fsck *f, const bool checked[2])
{
    g_autoptr(GError) why = NULL;

    if ((f->store->flags & STORE_OPEN_READONLY) || f->problems->len > 0)
        return;
    /* It needs room, and to be alone for a moment: if not now, then with the next look. */
    if ((!checked[0] && !database_add_checks(f->db, &why)) || (!checked[1] && !database_add_checks(f->state, &why)))
        log_verbose("databases from an earlier version were not written anew yet: %s", why->message);
}

static bool check_databases(Fsck *f, const StoreFsckOptions *options, StoreFsckReport *report, GError **error)
{
    bool checked[2] = {true, true};

    if ((options->read_data && !check_pages(f, checked, error)) ||
        !store_ledger_check_head(f->store, options->repair, f->problems, report->repairs, error) || !store_catalog(f->store, &f->db, error) ||
        !store_state_db(f->store, &f->state, error) || !database_check(f->db, f->problems, error) ||
        !database_check(f->state, f->problems, error))
        return false;
    add_checks(f, checked);
    return true;
}

static bool look(Fsck *f, const StoreFsckOptions *options, StoreFsckReport *report, StoreLease **lease, GError **error)
{
    bool ok = check_databases(f, options, report, error);

    f->of_databases = f->problems->len;
    return ok && recover_first(f->store, lease, error) && check_everything(f, error) &&
           read_everything(f, options, report, error) && check_logs(f, error);
}

/* What cannot be looked at is a finding, too: a damaged database ends the look, not fsck. */
static bool run(Fsck *f, const StoreFsckOptions *options, StoreFsckReport *report, GError **error)
{
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(GError) why = NULL;

    if (!look(f, options, report, &lease, &why)) {
        if (why->code == KILN_ERROR_INTERRUPTED || why->code == KILN_ERROR_NO_SPACE) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        problem(f, "%s", why->message);
    }
    if (damage_count(f->damage) == 0)
        return true;
    if (!damage_describe(f->damage, why ? NULL : error)) {
        if (!why)
            return false;
    } else if (options->repair && !repair(f, options, report, error)) {
        return false;
    }
    gather(f, report);
    return true;
}

void store_fsck_report_clear(StoreFsckReport *report)
{
    g_clear_pointer(&report->problems, g_ptr_array_unref);
    g_clear_pointer(&report->repairs, g_ptr_array_unref);
    g_clear_pointer(&report->damage, json_decref);
}

bool store_fsck_with(Store *store, const StoreFsckOptions *options, StoreFsckReport *ret, GError **error)
{
    g_auto(StoreFsckReport) report = {.problems = g_ptr_array_new_with_free_func(g_free),
                                      .repairs = g_ptr_array_new_with_free_func(g_free),
                                      .damage = json_array()};
    g_autoptr(DamageList) damage = damage_list_new(store);
    Fsck f = {.store = store, .damage = damage, .problems = report.problems};

    if (!run(&f, options, &report, error))
        return false;
    *ret = report;
    report = (StoreFsckReport){0};
    return true;
}

bool store_fsck(Store *store, bool read_data, GPtrArray **ret_problems, GError **error)
{
    g_auto(StoreFsckReport) report = {0};
    StoreFsckOptions options = {.read_data = read_data};

    if (!store_fsck_with(store, &options, &report, error))
        return false;
    *ret_problems = g_steal_pointer(&report.problems);
    return true;
}

bool store_rebuild_index(Store *store, GError **error)
{
    return store_writable(store, error) && block_index_rebuild(store, error);
}
