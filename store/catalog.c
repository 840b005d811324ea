/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schema of the two databases, and the rows about bytes.
 *
 * catalog.db can be made again from segments, blobs and state.db (store/rebuild.c) but for the bake cache and the memos. state.db is precious,
 * and the ledger (store/ledger.h) follows it. Digests are 32-byte blobs, times are microseconds since 1970, "dead" is the generation in which
 * gc found the row unreachable (0: alive); a dead segment is no longer offered for deduplication.
 */
#include "store/catalog.h"

#include "base/error.h"
#include "base/scope.h"
#include "store/ledger.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <unistd.h>

#define CATALOG_APPLICATION 0x4B494C43u /* "KILC" */
#define STATE_APPLICATION 0x4B494C53u   /* "KILS" */

static const char catalog_schema[] =
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO meta VALUES ('generation', 1);"
    "CREATE TABLE segment (number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, class INTEGER NOT NULL,"
    " size INTEGER NOT NULL, frames INTEGER NOT NULL, blocks INTEGER NOT NULL, created INTEGER NOT NULL,"
    " dead INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE frame (segment INTEGER NOT NULL, number INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL,"
    " blocks INTEGER NOT NULL, encoding INTEGER NOT NULL, PRIMARY KEY (segment, number)) WITHOUT ROWID;"
    "CREATE TABLE blob (digest BLOB PRIMARY KEY, size INTEGER NOT NULL, stored INTEGER NOT NULL, created INTEGER NOT NULL,"
    " dead INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE map (digest BLOB PRIMARY KEY, class INTEGER NOT NULL, size INTEGER NOT NULL, data INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE map_segment (map BLOB NOT NULL, segment BLOB NOT NULL, PRIMARY KEY (map, segment)) WITHOUT ROWID;"
    "CREATE INDEX map_segment_back ON map_segment (segment);"
    "CREATE TABLE recipe (layer BLOB PRIMARY KEY, recipe BLOB NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE bake (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, parent BLOB, key BLOB, provenance BLOB,"
    " created INTEGER NOT NULL);"
    "CREATE INDEX bake_key ON bake (key);"
    "CREATE TABLE image (number INTEGER PRIMARY KEY AUTOINCREMENT, bake INTEGER NOT NULL, kind TEXT NOT NULL, id BLOB NOT NULL,"
    " name TEXT NOT NULL, manifest BLOB, map BLOB, tree BLOB, files BLOB, size INTEGER NOT NULL, new_bytes INTEGER NOT NULL,"
    " created INTEGER NOT NULL, parent TEXT, UNIQUE (bake, kind));"
    "CREATE INDEX image_id ON image (id);"
    "CREATE TABLE image_layer (image INTEGER NOT NULL, place INTEGER NOT NULL, layer BLOB NOT NULL, recipe BLOB,"
    " PRIMARY KEY (image, place)) WITHOUT ROWID;"
    "CREATE TABLE reference (bake INTEGER NOT NULL, image INTEGER NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL,"
    " digest BLOB NOT NULL, PRIMARY KEY (bake, image, role, name, digest)) WITHOUT ROWID;"
    "CREATE TABLE state (key BLOB PRIMARY KEY, content BLOB, map BLOB, tree BLOB, files BLOB, info TEXT, created INTEGER NOT NULL,"
    " expires INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE memo (key TEXT PRIMARY KEY, value TEXT NOT NULL, blob BLOB, map BLOB, used INTEGER NOT NULL) WITHOUT ROWID;";

static const char *const catalog_upgrades[] = {
    /*
     * image.bytes_gone: when prune let the bytes go; the row is the record. segment.suspect: something that referred to it is gone since it
     * was last measured; leaving: the generation in which repacking was decided. moved: where blocks of repacked segments are now. map.judged:
     * store/fragments.c.
     */
    "ALTER TABLE image ADD COLUMN bytes_gone INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE segment ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE segment ADD COLUMN leaving INTEGER NOT NULL DEFAULT 0;"
    "UPDATE segment SET suspect = 1;"
    "ALTER TABLE map ADD COLUMN judged INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE moved (segment BLOB NOT NULL, target BLOB NOT NULL, PRIMARY KEY (segment, target)) WITHOUT ROWID;"
    "CREATE INDEX moved_back ON moved (target);",
    /* store/package-index.h; image.indexed: its packages are entered. */
    "ALTER TABLE image ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE package (number INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, version TEXT NOT NULL, architecture TEXT NOT NULL,"
    " UNIQUE (name, type, version, architecture));"
    "CREATE TABLE image_package (package INTEGER NOT NULL, image INTEGER NOT NULL, PRIMARY KEY (package, image)) WITHOUT ROWID;"
    "CREATE INDEX image_package_back ON image_package (image);"
    "CREATE TRIGGER image_gone AFTER DELETE ON image BEGIN DELETE FROM image_package WHERE image = OLD.number; END;",
    /* When all bytes were last found whole (store/scrub.h); file: the hash of a blob's file as it is stored, compressed or not. */
    "ALTER TABLE segment ADD COLUMN verified INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE blob ADD COLUMN verified INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE blob ADD COLUMN file BLOB;",
    NULL,
};

static const char state_schema[] =
    "CREATE TABLE name (name TEXT NOT NULL, kind TEXT NOT NULL, image BLOB NOT NULL, bake INTEGER NOT NULL, at INTEGER NOT NULL,"
    " PRIMARY KEY (name, kind)) WITHOUT ROWID;"
    "CREATE TABLE channel_log (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, kind TEXT NOT NULL,"
    " channel TEXT NOT NULL, image BLOB NOT NULL, at INTEGER NOT NULL, who TEXT, previous BLOB, hash BLOB NOT NULL);";

/*
 * Which rows of @table changed, by the two columns of its key, in the order of changing: what store/ledger.c has not written out yet is what
 * is numbered higher than what it has. Deleted first and not replaced, because the statement that sets a trigger off may say OR IGNORE,
 * which would hold for the trigger too.
 */
#define NOTE_ROW(table, row, a, b)                                                                                                        \
    " BEGIN DELETE FROM change WHERE tbl = '" table "' AND a = " row "." a " AND b = " row "." b ";"                                        \
    " INSERT INTO change (tbl, a, b) VALUES ('" table "', " row "." a ", " row "." b "); END;"
#define NOTE_CHANGES(table, a, b)                                                                                                         \
    "CREATE TRIGGER " table "_added AFTER INSERT ON " table NOTE_ROW(table, "NEW", a, b)                                                   \
    "CREATE TRIGGER " table "_changed AFTER UPDATE ON " table NOTE_ROW(table, "NEW", a, b)                                                 \
    "CREATE TRIGGER " table "_gone AFTER DELETE ON " table NOTE_ROW(table, "OLD", a, b)                                                    \
    "INSERT INTO change (tbl, a, b) SELECT '" table "', " a ", " b " FROM " table ";"

static const char *const state_upgrades[] = {
    "ALTER TABLE channel_log ADD COLUMN action TEXT NOT NULL DEFAULT 'promote';"
    "ALTER TABLE channel_log ADD COLUMN note TEXT;"
    "CREATE INDEX channel_log_place ON channel_log (name, kind, channel);"
    "CREATE INDEX channel_log_image ON channel_log (image);",
    "ALTER TABLE channel_log ADD COLUMN extra TEXT;"
    "CREATE TABLE journal (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, epoch INTEGER NOT NULL, grp TEXT NOT NULL,"
    " who TEXT, record TEXT NOT NULL, previous BLOB, hash BLOB NOT NULL);"
    "CREATE INDEX journal_group ON journal (grp, number);"
    "CREATE TABLE journal_epoch (grp TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE hold (grp TEXT NOT NULL, image BLOB NOT NULL, PRIMARY KEY (grp, image)) WITHOUT ROWID;"
    "CREATE INDEX hold_image ON hold (image);"
    "CREATE TABLE journal_request (number INTEGER PRIMARY KEY AUTOINCREMENT, grp TEXT NOT NULL, at INTEGER NOT NULL, who TEXT,"
    " request TEXT NOT NULL);"
    "CREATE TABLE signature (number INTEGER PRIMARY KEY AUTOINCREMENT, log TEXT NOT NULL, entry INTEGER NOT NULL, digest BLOB NOT NULL,"
    " key BLOB NOT NULL, signature TEXT NOT NULL, at INTEGER NOT NULL, who TEXT);"
    "CREATE INDEX signature_digest ON signature (digest);",
    /* A channel's rules are entries too, and name no image. Lineage outlives the sets that it came from: a revocation reaches over them. */
    "CREATE TABLE channel_new (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, action TEXT NOT NULL, name TEXT NOT NULL,"
    " kind TEXT NOT NULL, channel TEXT NOT NULL, image BLOB, who TEXT, note TEXT, extra TEXT, previous BLOB, hash BLOB NOT NULL);"
    "INSERT INTO channel_new (number, at, action, name, kind, channel, image, who, note, extra, previous, hash)"
    " SELECT number, at, action, name, kind, channel, image, who, note, extra, previous, hash FROM channel_log;"
    "DROP TABLE channel_log;"
    "ALTER TABLE channel_new RENAME TO channel_log;"
    "CREATE INDEX channel_log_place ON channel_log (name, kind, channel);"
    "CREATE INDEX channel_log_image ON channel_log (image);"
    "CREATE TABLE lineage (image BLOB NOT NULL, parent BLOB NOT NULL, PRIMARY KEY (image, parent)) WITHOUT ROWID;"
    "CREATE INDEX lineage_parent ON lineage (parent);",
    /* What a lost state.db and a lost catalog are made again from: see store/ledger.h and store/published.c. */
    "CREATE TABLE change (number INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, a NOT NULL, b NOT NULL, UNIQUE (tbl, a, b));"
    "CREATE TABLE published (bake INTEGER PRIMARY KEY, mark INTEGER NOT NULL, record TEXT NOT NULL);"
    "CREATE INDEX published_mark ON published (mark);"
    /* Which store this is, or is a copy of; and up to which change it is nothing but a copy: see ledger_mirror(). */
    "CREATE TABLE identity (what TEXT PRIMARY KEY, id BLOB NOT NULL) WITHOUT ROWID;"
    "INSERT INTO identity VALUES ('store', randomblob(32));"
    "CREATE TABLE copied (change INTEGER NOT NULL);"
    NOTE_CHANGES("identity", "what", "what") NOTE_CHANGES("name", "name", "kind") NOTE_CHANGES("hold", "grp", "image") NOTE_CHANGES("journal_epoch", "grp", "grp")
    NOTE_CHANGES("lineage", "image", "parent") NOTE_CHANGES("published", "bake", "bake"),
    /* store/serve-rows.h; image: the container image that was published of the manifest; wide: its digest where that is no SHA-256. */
    "CREATE TABLE repository_tag (repository TEXT NOT NULL, tag TEXT NOT NULL, manifest BLOB NOT NULL, image BLOB, at INTEGER NOT NULL,"
    " wide TEXT, PRIMARY KEY (repository, tag)) WITHOUT ROWID;"
    "CREATE INDEX repository_tag_manifest ON repository_tag (manifest);"
    NOTE_CHANGES("repository_tag", "repository", "tag"),
    NULL,
};

static void fill_spec(const char *dir, bool state, const char *suffix, DatabaseSpec *ret, char **ret_path)
{
    g_autofree char *name = g_strconcat(state ? "state.db" : "catalog.db", suffix, NULL);

    *ret = (DatabaseSpec){
        .what = g_strdup_printf("%s of store '%s'", state ? "state database" : "catalog", dir),
        .application = state ? STATE_APPLICATION : CATALOG_APPLICATION,
        .version = state ? 6 : 4,
        .schema = state ? state_schema : catalog_schema,
        .upgrades = state ? state_upgrades : catalog_upgrades,
        .full = state,
    };
    *ret_path = g_build_filename(dir, name, NULL);
}

bool catalog_open_file(const char *dir, bool state, const char *suffix, DatabaseMode mode, Database **ret, GError **error)
{
    g_autofree char *path = NULL;
    DatabaseSpec spec;
    bool ok;

    fill_spec(dir, state, suffix, &spec, &path);
    ok = database_open(path, mode, &spec, ret, error);
    g_free((char *)spec.what);
    return ok;
}

static bool open_one(const char *dir, bool state, DatabaseMode mode, Database **ret, GError **error)
{
    g_autofree char *path = g_build_filename(dir, state ? "state.db" : "catalog.db", NULL);

    if (mode != DATABASE_CREATE && access(path, F_OK) < 0 && errno == ENOENT)
        return fail(error, "store '%s' has lost its %s: kiln fsck --rebuild makes it again", dir, state ? "state.db" : "catalog.db");
    return catalog_open_file(dir, state, "", mode, ret, error);
}

bool catalog_create(const char *dir, GError **error)
{
    Database *db = NULL;

    for (int state = 0; state < 2; state++) {
        if (!open_one(dir, state, DATABASE_CREATE, &db, error))
            return false;
        database_close(db);
    }
    return true;
}

/*
 * For reading: as an ordinary reader where that is possible, because the newest rows of a store in use are in its WAL. On
 * read-only media, or in a folder that we may not write and where no writer has laid out the WAL's index, as immutable.
 */
static bool open_for_reading(Store *store, bool state, Database **ret, GError **error)
{
    bool may_write = faccessat(store->dirfd, ".", W_OK, AT_EACCESS) == 0;

    if ((may_write || errno != EROFS) && open_one(store->path, state, DATABASE_READ, ret, may_write ? error : NULL))
        return true;
    return !may_write && open_one(store->path, state, DATABASE_IMMUTABLE, ret, error);
}

static bool open_lazily(Store *store, bool state, Database **slot, Database **ret, GError **error)
{
    if (store->flags & STORE_OPEN_NO_CATALOG)
        return fail(error, "store '%s' was opened without its catalog", store->path);
    AUTO_LOCK(&store->database_lock);
    if (!*slot && !((store->flags & STORE_OPEN_READONLY) ? open_for_reading(store, state, slot, error)
                                                         : open_one(store->path, state, DATABASE_WRITE, slot, error)))
        return false;
    *ret = *slot;
    return true;
}

bool store_catalog(Store *store, Database **ret, GError **error)
{
    return open_lazily(store, false, &store->catalog, ret, error);
}

/* What a killed process committed and did not write out is written out by whoever comes next. */
bool store_state_db(Store *store, Database **ret, GError **error)
{
    bool fresh = !g_atomic_pointer_get(&store->state);

    if (!open_lazily(store, true, &store->state, ret, error))
        return false;
    return !fresh || (store->flags & STORE_OPEN_READONLY) || store_ledger_follow(store);
}

/* --- segments --- */

static bool revive_segment(Database *db, const Digest *digest, int64_t created, bool *ret_known, GError **error)
{
    if (!database_run(db, error, "UPDATE segment SET created = ?1, dead = 0, leaving = 0 WHERE digest = ?2", "id", created, digest))
        return false;
    *ret_known = database_changes(db) > 0;
    return true;
}

static bool add_segment_row(Database *db, const Digest *digest, BlockClass class, uint64_t size, uint32_t frames, int64_t created,
                            int64_t *ret_number, GError **error)
{
    if (!database_run(db, error, "INSERT INTO segment (digest, class, size, frames, blocks, created) VALUES (?1,?2,?3,?4,0,?5)",
                      "diiii", digest, (int64_t)class, (int64_t)size, (int64_t)frames, created))
        return false;
    *ret_number = database_last_id(db);
    return true;
}

static bool add_frame_row(Database *db, int64_t segment, uint32_t number, const SegmentEntry *e, GError **error)
{
    return database_run(db, error, "INSERT INTO frame VALUES (?1,?2,?3,?4,?5,?6)", "iiiiii", segment, (int64_t)number,
                        (int64_t)e->offset, (int64_t)e->size, (int64_t)e->blocks, (int64_t)e->encoding);
}

static bool set_blocks(Database *db, int64_t segment, GError **error)
{
    return database_run(db, error,
                        "UPDATE segment SET blocks = (SELECT coalesce(sum(blocks), 0) FROM frame WHERE segment = ?1) WHERE number = ?1",
                        "i", segment);
}

static bool add_rows(Database *db, const Segment *segment, int64_t created, GError **error)
{
    int64_t number;

    if (!add_segment_row(db, segment_digest(segment), segment_class(segment), segment_file_size(segment),
                         segment_frames(segment), created, &number, error))
        return false;
    for (uint32_t i = 0; i < segment_frames(segment); i++)
        if (!add_frame_row(db, number, i, segment_entry(segment, i), error))
            return false;
    return set_blocks(db, number, error);
}

bool catalog_add_segment(Database *db, const Segment *segment, int64_t created, GError **error)
{
    bool known;

    return revive_segment(db, segment_digest(segment), created, &known, error) && (known || add_rows(db, segment, created, error)) &&
           database_run(db, error, "UPDATE segment SET suspect = 1 WHERE digest = ?1", "d", segment_digest(segment));
}

bool catalog_add_segment_file(Database *db, const SegmentFile *file, int64_t created, GError **error)
{
    bool known = false;
    int64_t number;

    if (!revive_segment(db, &file->digest, created, &known, error) || known)
        return known;
    if (!add_segment_row(db, &file->digest, file->class, file->size, file->entries->len, created, &number, error))
        return false;
    for (guint i = 0; i < file->entries->len; i++)
        if (!add_frame_row(db, number, i, &g_array_index(file->entries, SegmentEntry, i), error))
            return false;
    return set_blocks(db, number, error);
}

bool catalog_remove_segment(Database *db, const Digest *digest, GError **error)
{
    return database_run(db, error, "DELETE FROM frame WHERE segment = (SELECT number FROM segment WHERE digest = ?1)", "d", digest) &&
           database_run(db, error, "DELETE FROM segment WHERE digest = ?1", "d", digest);
}

/* --- blobs, maps, recipes --- */

bool catalog_add_blob(Database *db, const Digest *digest, uint64_t size, uint64_t stored, int64_t created, GError **error)
{
    return database_run(db, error,
                        "INSERT INTO blob (digest, size, stored, created) VALUES (?1,?2,?3,?4)"
                        " ON CONFLICT (digest) DO UPDATE SET stored = ?3, created = ?4, dead = 0, verified = 0, file = NULL",
                        "diii", digest, (int64_t)size, (int64_t)stored, created);
}

bool catalog_add_map(Database *db, const Digest *digest, BlockClass class, uint64_t size, uint64_t data_bytes,
                     const Digest *segments, size_t count, GError **error)
{
    if (!database_run(db, error, "INSERT OR REPLACE INTO map (digest, class, size, data) VALUES (?1,?2,?3,?4)", "diii", digest, (int64_t)class,
                      (int64_t)size, (int64_t)data_bytes))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!database_run(db, error, "INSERT OR IGNORE INTO map_segment VALUES (?1,?2)", "dd", digest, &segments[i]))
            return false;
    return true;
}

bool catalog_add_moved(Database *db, const Digest *segment, const GArray *targets, GError **error)
{
    for (guint i = 0; i < targets->len; i++)
        if (!database_run(db, error, "INSERT OR IGNORE INTO moved VALUES (?1,?2)", "dd", segment, &g_array_index(targets, Digest, i)))
            return false;
    return true;
}

bool catalog_add_recipe(Database *db, const Digest *layer, const Digest *recipe, uint64_t size, GError **error)
{
    return database_run(db, error, "INSERT OR REPLACE INTO recipe VALUES (?1,?2,?3)", "ddi", layer, recipe, (int64_t)size);
}

bool catalog_digests(Database *db, GArray **ret, GError **error, const char *sql, const Digest *digest)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(Query) query = database_query(db, error, sql, digest ? "d" : "", digest);
    int rc = query ? 0 : -1;
    Digest one;

    while (query && (rc = query_step(query, error)) > 0) {
        query_digest(query, 0, &one);
        g_array_append_val(list, one);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- generations --- */

bool catalog_generation(Database *db, int64_t *ret, GError **error)
{
    return database_int(db, 1, ret, error, "SELECT value FROM meta WHERE key = 'generation'", "");
}

bool catalog_bump_generation(Database *db, int64_t *ret, GError **error)
{
    return database_run(db, error, "UPDATE meta SET value = value + 1 WHERE key = 'generation'", "") &&
           catalog_generation(db, ret, error);
}
