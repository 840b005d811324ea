/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What damage means. From a file the way goes back along what refers to it:
 *
 *   segment --map_segment, moved--> maps --their runs--> maps that use a bad frame --reference--> images, and their tree --> paths
 *   blob    --reference--> images;  the bake cache, memos, the ledger
 *
 * Lists are bounded: a lost segment may hold half of a hundred images.
 */
#include "store/damage.h"

#include "base/error.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/image.h"
#include "store/ledger.h"
#include "store/map-private.h"
#include "store/segment-moved.h"
#include "store/store-private.h"

#define MAX_IMAGES 20
#define MAX_PATHS 20
#define MAX_FRAMES 1000
#define SAID_PATHS 5 /* in a sentence */
#define SAID_FRAMES 6

struct DamageList {
    Store *store;
    GMutex lock;
    GPtrArray *list;
};

static void damage_free(gpointer data)
{
    Damage *d = data;

    g_free(d->why);
    g_free(d->file);
    json_decref(d->json);
    g_ptr_array_unref(d->sentences);
    g_free(d);
}

DamageList *damage_list_new(Store *store)
{
    DamageList *list = g_new0(DamageList, 1);

    list->store = store;
    g_mutex_init(&list->lock);
    list->list = g_ptr_array_new_with_free_func(damage_free);
    return list;
}

void damage_list_free(DamageList *list)
{
    if (!list)
        return;
    g_ptr_array_unref(list->list);
    g_mutex_clear(&list->lock);
    g_free(list);
}

static Damage *find(DamageList *list, DamageKind kind, const Digest *digest)
{
    for (guint i = 0; i < list->list->len; i++) {
        Damage *d = list->list->pdata[i];

        if (d->kind == kind && digest_equal(&d->digest, digest))
            return d;
    }
    return NULL;
}

void damage_add(DamageList *list, DamageKind kind, const Digest *digest, bool missing, const char *why)
{
    Damage *d;

    AUTO_LOCK(&list->lock);
    if (find(list, kind, digest))
        return;
    d = g_new0(Damage, 1);
    d->kind = kind;
    d->digest = *digest;
    d->missing = missing;
    d->why = g_strdup(why);
    d->sentences = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(list->list, d);
}

bool damage_has(DamageList *list, DamageKind kind, const Digest *digest)
{
    AUTO_LOCK(&list->lock);
    return find(list, kind, digest) != NULL;
}

void damage_merge(DamageList *list, const DamageList *other)
{
    for (guint i = 0; i < other->list->len; i++) {
        const Damage *d = other->list->pdata[i];
        Damage *here = find(list, d->kind, &d->digest);

        if (here)
            here->repaired = false;
        else
            damage_add(list, d->kind, &d->digest, d->missing, d->why);
    }
}

guint damage_count(DamageList *list)
{
    return list->list->len;
}

Damage *damage_nth(DamageList *list, guint index)
{
    return list->list->pdata[index];
}

/* --- looking into one --- */

typedef struct Use {
    Digest id;
    char *kind, *what; /* "name/kind" it was published as */
    uint64_t blocks;   /* of its disk or layers that cannot be read */
    GPtrArray *as;     /* const char*: roles of the blob or maps */
    GPtrArray *paths;
    uint64_t more_paths;
    TreeStored tree;
} Use;

typedef struct Look {
    Store *store;
    Database *db;
    Damage *d;
    uint8_t *bad;        /* per frame of the segment; NULL: all are */
    uint32_t frames, bad_frames;
    GHashTable *moved;   /* Digest* -> SegmentMoved*: names that lead into the segment */
    SegmentMoved *table; /* a damaged table that can be read: bad is what it lacks */
    GPtrArray *uses;     /* of Use* */
    GPtrArray *others;   /* of char* */
    json_t *frame_list;
    GString *frame_text;
} Look;

static void use_free(gpointer data)
{
    Use *use = data;

    g_free(use->kind);
    g_free(use->what);
    g_ptr_array_unref(use->as);
    g_ptr_array_unref(use->paths);
    g_free(use);
}

static void free_moved(gpointer moved)
{
    segment_moved_free(moved);
}

static void look_clear(Look *l)
{
    g_free(l->bad);
    segment_moved_free(l->table);
    g_hash_table_unref(l->moved);
    g_ptr_array_unref(l->uses);
    g_ptr_array_unref(l->others);
    json_decref(l->frame_list);
    (void)g_string_free(l->frame_text, TRUE);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Look, look_clear)

static void say(Damage *d, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void say(Damage *d, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(d->sentences, g_strdup_vprintf(format, args));
    va_end(args);
}

/* --- frames --- */

static json_t *lost_blocks(const SalvagedFrame *frame)
{
    json_t *list = json_array();
    char hex[DIGEST_HEX_SIZE];

    for (unsigned i = 0; i < frame->blocks; i++)
        if (!(frame->good & 1u << i))
            json_array_append_new(list, json_string(digest_to_hex(&frame->hashes[i], hex)));
    return list;
}

static void note_frame(Look *l, const Salvage *s, uint32_t number, const SalvagedFrame *frame)
{
    const SegmentEntry *e = &g_array_index(s->entries, SegmentEntry, number);
    unsigned lost = frame->blocks - (unsigned)__builtin_popcount(frame->good);

    l->bad[number] = 1;
    if (l->bad_frames++ < SAID_FRAMES)
        g_string_append_printf(l->frame_text, "%s%u (%u of %u blocks lost)", l->bad_frames > 1 ? ", " : "", number, lost, frame->blocks);
    if (json_array_size(l->frame_list) < MAX_FRAMES)
        json_array_append_new(l->frame_list, json_pack("{s:I, s:I, s:I, s:o}", "frame", (json_int_t)number, "offset", (json_int_t)e->offset, "size",
                                                       (json_int_t)e->size, "blocks", lost_blocks(frame)));
}

static bool look_at_frames(Look *l, GError **error)
{
    g_autofree SalvagedFrame *frame = g_new(SalvagedFrame, 1);
    g_autoptr(Salvage) s = NULL;

    if (!salvage_open(l->store, &l->d->digest, &s, error))
        return false;
    l->frames = s->entries->len;
    l->bad = s->fd < 0 || l->frames == 0 ? NULL : g_malloc0(l->frames);
    for (uint32_t i = 0; l->bad && i < l->frames; i++) {
        salvage_frame(s, i, frame);
        if (!frame->readable)
            note_frame(l, s, i, frame);
    }
    if (l->d->missing)
        say(l->d, "%s is missing", l->d->file);
    else if (!l->bad)
        say(l->d, "%s is damaged: nothing of it can be read", l->d->file);
    else if (l->bad_frames)
        say(l->d, "%s is damaged: of its %u frames these cannot be read: %s%s%s", l->d->file, l->frames, l->frame_text->str,
            l->bad_frames > SAID_FRAMES ? " and more" : "", s->opens ? "" : "; neither can the list of them");
    else if (!s->opens)
        say(l->d, "%s is damaged: its header or its list of frames cannot be read; all %u frames are whole", l->d->file, l->frames);
    else
        say(l->d, "%s is damaged: bytes have changed that nothing reads; all blocks are whole", l->d->file);
    if (l->bad && !s->opens) /* for readers everything is lost */
        memset(l->bad, 1, l->frames);
    return true;
}

static bool is_bad(const Look *l, uint32_t position)
{
    Digest target;
    uint32_t place;

    if (l->table)
        return !segment_moved_find(l->table, position, &target, &place);
    return !l->bad || (position_frame(position) < l->frames && l->bad[position_frame(position)]);
}

/* Names of segments that were repacked into this one; a table that cannot be read is its own damage. */
static bool load_moved(Look *l, GError **error)
{
    g_autoptr(GArray) names = NULL;

    if (!catalog_digests(l->db, &names, error, "SELECT segment FROM moved WHERE target = ?1", &l->d->digest))
        return false;
    for (guint i = 0; i < names->len; i++) {
        const Digest *name = &g_array_index(names, Digest, i);
        SegmentMoved *moved;

        if (segment_moved_load(l->store, name, &moved, NULL) && moved)
            g_hash_table_replace(l->moved, g_memdup2(name, sizeof(*name)), moved);
    }
    return true;
}

/* --- images --- */

static Use *use_of(Look *l, const Digest *id)
{
    for (guint i = 0; i < l->uses->len; i++)
        if (digest_equal(&((Use *)l->uses->pdata[i])->id, id))
            return l->uses->pdata[i];
    return NULL;
}

static void add_role(Use *use, const char *role)
{
    static const char *const roles[] = {"config", "manifest", "map", "tree", "files", "layer", "recipe", "layer-map"};

    for (size_t i = 0; i < G_N_ELEMENTS(roles); i++)
        if (g_strcmp0(roles[i], role) == 0 && !g_ptr_array_find(use->as, roles[i], NULL))
            g_ptr_array_add(use->as, (char *)roles[i]);
}

static void take_image(Look *l, Query *query, uint64_t blocks)
{
    Use *use;
    Digest id;

    query_digest(query, 1, &id);
    use = use_of(l, &id);
    if (!use) {
        use = g_new0(Use, 1);
        use->id = id;
        use->kind = g_strdup(query_text(query, 2));
        use->what = g_strdup_printf("%s/%s", query_text(query, 3), query_text(query, 2));
        use->as = g_ptr_array_new();
        use->paths = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(l->uses, use);
    }
    query_digest(query, 4, &use->tree.tree);
    query_digest(query, 5, &use->tree.files);
    add_role(use, query_text(query, 0));
    if (g_strcmp0(query_text(query, 0), "files") != 0 || use->blocks == 0) /* a disk's files are its own blocks once more */
        use->blocks = MAX(use->blocks, blocks);
}

static void add_other(Look *l, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void add_other(Look *l, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(l->others, g_strdup_vprintf(format, args));
    va_end(args);
}

static bool find_sets(Look *l, const Digest *digest, GError **error)
{
    g_autoptr(Query) query = database_query(l->db, error,
                                            "SELECT DISTINCT b.name, r.role, r.name FROM reference r JOIN bake b ON b.number = r.bake"
                                            " WHERE r.digest = ?1 AND r.image = 0 LIMIT 20", "d", digest);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        add_other(l, "the %s%s%s of '%s'", query_text(query, 1), *query_text(query, 2) ? " " : "", query_text(query, 2), query_text(query, 0));
    return rc >= 0;
}

static bool find_caches(Look *l, const Digest *digest, GError **error)
{
    static const struct {
        const char *sql, *what;
    } caches[] = {
        {"SELECT count(*) FROM state WHERE map = ?1 OR tree = ?1 OR files = ?1", "the bake cache"},
        {"SELECT count(*) FROM memo WHERE blob = ?1 OR map = ?1", "files that were fetched"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(caches); i++) {
        int64_t count;

        if (!database_int(l->db, 0, &count, error, caches[i].sql, "d", digest))
            return false;
        if (count && !g_ptr_array_find_with_equal_func(l->others, caches[i].what, g_str_equal, NULL))
            add_other(l, "%s", caches[i].what);
    }
    return true;
}

/* @blocks of the map that cannot be read, 0 for other blobs. */
static bool find_users(Look *l, const Digest *digest, uint64_t blocks, GError **error)
{
    g_autoptr(Query) query = database_query(l->db, error,
                                            "SELECT r.role, i.id, i.kind, i.name, i.tree, i.files FROM reference r JOIN image i ON i.number = r.image"
                                            " WHERE r.digest = ?1 ORDER BY i.number DESC", "d", digest);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        take_image(l, query, blocks);
    return rc >= 0 && find_sets(l, digest, error) && find_caches(l, digest, error);
}

static bool is_of_ledger(Look *l, bool *ret, GError **error)
{
    int64_t found = 0;
    bool ok = database_run(l->db, error, "CREATE TEMP TABLE IF NOT EXISTS live (digest BLOB PRIMARY KEY) WITHOUT ROWID", "") &&
              database_run(l->db, error, "DELETE FROM live", "") && store_ledger_mark(l->store, l->db, error) &&
              database_int(l->db, 0, &found, error, "SELECT count(*) FROM live WHERE digest = ?1", "d", &l->d->digest) &&
              database_run(l->db, error, "DELETE FROM live", "");

    *ret = found > 0;
    return ok;
}

/* --- maps --- */

/* What of @run lies in bad frames; @moved: the run's segment leads here by a table. @fn may be NULL. */
typedef void BadFn(uint64_t block, void *arg);
static uint64_t bad_of_run(const Look *l, const MapRun *run, const SegmentMoved *moved, BadFn *fn, void *arg)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < run->count; i++) {
        uint32_t position = run->position + i;
        Digest target = l->d->digest;

        if (moved && (!segment_moved_find(moved, run->position + i, &target, &position) || !digest_equal(&target, &l->d->digest)))
            continue;
        if (!is_bad(l, position))
            continue;
        count++;
        if (fn)
            fn(run->block + i, arg);
    }
    return count;
}

static uint64_t bad_of_map(const Look *l, const MapBody *body, BadFn *fn, void *arg)
{
    uint64_t count = 0;

    for (guint i = 0; i < body->runs->len; i++) {
        const MapRun *run = &g_array_index(body->runs, MapRun, i);
        const Digest *segment = &g_array_index(body->segments, Digest, run->segment);
        const SegmentMoved *moved = g_hash_table_lookup(l->moved, segment);

        if (digest_equal(segment, &l->d->digest))
            count += bad_of_run(l, run, NULL, fn, arg);
        else if (moved)
            count += bad_of_run(l, run, moved, fn, arg);
    }
    return count;
}

static bool list_maps(Look *l, GArray **ret, GError **error)
{
    return catalog_digests(l->db, ret, error,
                           "SELECT DISTINCT map FROM map_segment WHERE (segment = ?1 OR segment IN (SELECT segment FROM moved"
                           " WHERE target = ?1)) AND map IN (SELECT digest FROM blob WHERE dead = 0)", &l->d->digest);
}

static bool look_at_maps(Look *l, GError **error)
{
    g_autoptr(GArray) maps = NULL;

    if (!load_moved(l, error) || !list_maps(l, &maps, error))
        return false;
    for (guint i = 0; i < maps->len; i++) {
        const Digest *digest = &g_array_index(maps, Digest, i);
        g_autoptr(StoreMap) map = NULL;
        uint64_t blocks;

        if (!store_map_open(l->store, digest, &map, NULL))
            continue; /* its blob is damaged, too, and told about */
        blocks = bad_of_map(l, store_map_body(map), NULL, NULL);
        if (blocks && !find_users(l, digest, blocks, error))
            return false;
    }
    return true;
}

/* --- paths --- */

typedef struct PathSearch {
    Use *use;
    GPtrArray *files; /* const TreeEntry*, by data_offset */
    const TreeEntry *last;
} PathSearch;

static int by_offset(gconstpointer a, gconstpointer b)
{
    const TreeEntry *const *one = a, *const *other = b;

    return (*one)->data_offset < (*other)->data_offset ? -1 : (*one)->data_offset > (*other)->data_offset;
}

static void add_path(PathSearch *search, const TreeEntry *entry)
{
    if (search->use->paths->len < MAX_PATHS)
        g_ptr_array_add(search->use->paths, g_strconcat("/", entry->path, NULL));
    else
        search->use->more_paths++;
}

/* Files with equal content share their place; all of them are named. Blocks come in ascending order. */
static void path_of_block(uint64_t block, void *arg)
{
    PathSearch *search = arg;
    uint64_t at = block * STORE_BLOCK_SIZE;
    guint low = 0, high = search->files->len;

    while (low < high) { /* the first that starts behind @at */
        guint middle = low + (high - low) / 2;

        if (((const TreeEntry *)search->files->pdata[middle])->data_offset <= at)
            low = middle + 1;
        else
            high = middle;
    }
    for (guint i = low; i > 0; i--) {
        const TreeEntry *entry = search->files->pdata[i - 1];

        if (entry->data_offset + entry->size <= at || entry == search->last)
            break;
        if (i == low)
            search->last = entry;
        add_path(search, entry);
        if (i > 1 && ((const TreeEntry *)search->files->pdata[i - 2])->data_offset != entry->data_offset)
            break;
    }
}

static void find_paths(Look *l, Use *use)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    PathSearch search = {.use = use, .files = list};

    if (digest_is_none(&use->tree.tree) || digest_is_none(&use->tree.files) || !tree_load(l->store, &use->tree, &tree, &files, NULL))
        return;
    for (size_t i = 0; i < tree_count(tree); i++)
        if (tree_nth(tree, i)->type == 'f' && tree_nth(tree, i)->size > 0)
            g_ptr_array_add(list, (gpointer)tree_nth(tree, i));
    g_ptr_array_sort(list, by_offset);
    (void)bad_of_map(l, store_map_body(files), path_of_block, &search);
}

/* --- saying it --- */

static json_t *names_of(Look *l, const Use *use)
{
    json_t *names = json_array();
    g_autoptr(Query) query = NULL;
    Database *state;

    json_array_append_new(names, store_text_json(use->what));
    if (!store_state_db(l->store, &state, NULL) ||
        !(query = database_query(state, NULL, "SELECT name || '/' || kind FROM name WHERE image = ?1 ORDER BY 1 LIMIT 20", "d", &use->id)))
        return names;
    while (query_step(query, NULL) > 0)
        if (g_strcmp0(query_text(query, 0), use->what) != 0)
            json_array_append_new(names, store_text_json(query_text(query, 0)));
    return names;
}

static json_t *strings_json(const GPtrArray *list)
{
    json_t *array = json_array();

    for (guint i = 0; i < list->len; i++) {
        g_autofree char *valid = g_utf8_make_valid(list->pdata[i], -1);

        json_array_append_new(array, json_string(valid));
    }
    return array;
}

static json_t *use_json(Look *l, const Use *use)
{
    char id[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:o, s:o, s:I, s:o, s:o, s:I}", "id", digest_to_oci(&use->id, id), "kind", store_text_json(use->kind), "names",
                     names_of(l, use), "blocks", (json_int_t)use->blocks, "as", strings_json(use->as), "paths", strings_json(use->paths), "more_paths",
                     (json_int_t)use->more_paths);
}

static const char *role_words(const char *role)
{
    static const char *const words[][2] = {
        {"map", "the map of its disk"}, {"tree", "the list of its files"}, {"files", "the map of its files"}, {"recipe", "the recipe of a layer"},
        {"layer-map", "the map of a layer"}, {"layer", "a layer"}, {"config", "its config"}, {"manifest", "its manifest"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (strcmp(words[i][0], role) == 0)
            return words[i][1];
    return role;
}

static char *use_details(const Look *l, const Use *use)
{
    GString *text = g_string_new(NULL);
    guint said = MIN(use->paths->len, SAID_PATHS);

    if (l->d->kind == DAMAGE_BLOB) {
        for (guint i = 0; i < use->as->len; i++)
            g_string_append_printf(text, "%s%s", i ? " and " : "", role_words(use->as->pdata[i]));
        return g_string_free(text, FALSE);
    }
    g_string_append_printf(text, "%" G_GUINT64_FORMAT " block%s", use->blocks, use->blocks == 1 ? "" : "s");
    for (guint i = 0; i < said; i++)
        g_string_append_printf(text, "%s%s", i ? ", " : ", in ", (char *)use->paths->pdata[i]);
    if (use->paths->len + use->more_paths > said)
        g_string_append_printf(text, " and %" G_GUINT64_FORMAT " more files", use->paths->len + use->more_paths - said);
    return g_string_free(text, FALSE);
}

static void tell(Look *l)
{
    json_t *images = json_array();

    for (guint i = 0; i < l->uses->len && i < MAX_IMAGES; i++) {
        Use *use = l->uses->pdata[i];
        g_autofree char *details = NULL;
        char id[DIGEST_OCI_SIZE];

        if (l->d->kind != DAMAGE_BLOB)
            find_paths(l, use);
        details = use_details(l, use);
        say(l->d, "%s: image %s %s needs it: %s", l->d->file, use->what, digest_to_oci(&use->id, id), details);
        json_array_append_new(images, use_json(l, use));
    }
    if (l->uses->len > MAX_IMAGES)
        say(l->d, "%s: %u more images need it", l->d->file, l->uses->len - MAX_IMAGES);
    for (guint i = 0; i < l->others->len; i++)
        say(l->d, "%s: %s needs it", l->d->file, (char *)l->others->pdata[i]);
    if (l->uses->len + l->others->len == 0)
        say(l->d, "%s: no image needs it%s", l->d->file, l->d->kind == DAMAGE_BLOB || l->bad_frames == l->frames ? "" : " for what cannot be read");
    l->d->json = json_pack("{s:s, s:s, s:b, s:s, s:O, s:o, s:I, s:o}", "file", l->d->file, "kind",
                           l->d->kind == DAMAGE_SEGMENT ? "segment" : l->d->kind == DAMAGE_BLOB ? "blob" : "table", "missing", l->d->missing, "text",
                           (char *)l->d->sentences->pdata[0], "frames", l->frame_list, "images", images, "more_images",
                           (json_int_t)(l->uses->len - json_array_size(images)), "others", strings_json(l->others));
}

static bool look_at_blob(Look *l, GError **error)
{
    bool ledger;

    if (l->d->missing)
        say(l->d, "%s is missing", l->d->file);
    else
        say(l->d, "%s is damaged%s%s", l->d->file, l->d->why ? ": " : "", l->d->why ? l->d->why : "");
    if (!find_users(l, &l->d->digest, 0, error) || !is_of_ledger(l, &ledger, error))
        return false;
    if (ledger)
        add_other(l, "the ledger");
    return true;
}

/* Whatever leads through the table is lost, or what it lacks. */
static bool look_at_table(Look *l, GError **error)
{
    (void)segment_moved_load(l->store, &l->d->digest, &l->table, NULL);
    say(l->d, "%s %s%s%s", l->d->file, l->d->missing ? "is missing" : "is damaged", l->d->why ? ": " : "", l->d->why ? l->d->why : "");
    return look_at_maps(l, error);
}

static char *file_of(Store *store, const Damage *d)
{
    bool packed = false;
    auto_fd int fd = d->kind == DAMAGE_BLOB ? blob_file_open(store, &d->digest, &packed) : -1;
    char hex[DIGEST_HEX_SIZE];

    digest_to_hex(&d->digest, hex);
    return g_strdup_printf("%s/%.2s/%s%s", d->kind == DAMAGE_BLOB ? "blobs" : "segments", hex, hex,
                           d->kind == DAMAGE_TABLE ? MOVED_SUFFIX : fd >= 0 && packed ? BLOB_PACKED_SUFFIX : "");
}

static bool describe(DamageList *list, Database *db, Damage *d, GError **error)
{
    g_auto(Look) l = {.store = list->store,
                      .db = db,
                      .d = d,
                      .moved = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, free_moved),
                      .uses = g_ptr_array_new_with_free_func(use_free),
                      .others = g_ptr_array_new_with_free_func(g_free),
                      .frame_list = json_array(),
                      .frame_text = g_string_new(NULL)};
    bool ok;

    d->file = file_of(list->store, d);
    if (d->kind == DAMAGE_SEGMENT)
        ok = look_at_frames(&l, error) && look_at_maps(&l, error);
    else
        ok = d->kind == DAMAGE_BLOB ? look_at_blob(&l, error) : look_at_table(&l, error);
    if (ok)
        tell(&l);
    return ok;
}

bool damage_describe(DamageList *list, GError **error)
{
    Database *db;

    if (!store_catalog(list->store, &db, error))
        return false;
    for (guint i = 0; i < list->list->len; i++) {
        Damage *d = list->list->pdata[i];

        if (!d->json && !describe(list, db, d, error))
            return false;
    }
    return true;
}
