/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's own disks as artifacts (disk-artifact.h), made when somebody asks for one first.
 *
 * The repository of a NAME has all images that were published under it. So a segment of the store is served as it stands where each of its blocks is
 * of one of those, and this disk has some of them; blocks that lie elsewhere go into segments of their own, which later disks of the NAME refer
 * to. Private segments, and blocks of other names, are in nothing that is served.
 *
 * What was made is memos, which gc lets go like any others that nobody asks for, and which are made again:
 *
 *     served-disk:NAME@IMAGE         {"donors","manifest","own","rows","segments"}
 *     served-disk:NAME@IMAGE@BLOB    {"manifest","pieces","segment","size"}, keeps the blob; a segment is the store's; with pieces, what it consists of
 *
 * It is good as long as every image whose blocks it has is one of the NAME's, and every segment is in its place: an image that was taken away takes its
 * blocks out of what is served, and gc may pack a segment anew.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/disk-artifact.h"
#include "store/image-private.h"
#include "store/layer.h"
#include "store/manifests.h"
#include "store/segment.h"
#include "store/store-private.h"

#define RECORD_MAX (1u << 20)
#define DONORS_MAX 64
#define RECORDS_MAX 16 /* whose own segments are looked at */
#define NOTE_AGE 3600

static GMutex making;

/* --- records ------------------------------------------------------------------------------- */

/* A segment that was made here, its index, the image whose blocks are in it, and the blob that keeps it: itself, or its pieces. */
typedef struct OwnSegment {
    Digest segment, index, image, keeper;
} OwnSegment;

typedef struct Record {
    Digest manifest;
    int64_t rows;
    GArray *donors, *segments; /* of Digest */
    GArray *own;               /* of OwnSegment */
} Record;

static void record_init(Record *record)
{
    *record = (Record){.manifest = digest_none};
    record->donors = g_array_new(FALSE, FALSE, sizeof(Digest));
    record->segments = g_array_new(FALSE, FALSE, sizeof(Digest));
    record->own = g_array_new(FALSE, FALSE, sizeof(OwnSegment));
}

static void record_clear(Record *record)
{
    g_array_unref(record->donors);
    g_array_unref(record->segments);
    g_array_unref(record->own);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Record, record_clear)

static char *key_of(const char *name, const Digest *image)
{
    char hex[DIGEST_HEX_SIZE];

    return g_strdup_printf(SERVE_DISK_PREFIX "%s@%s", name, image ? digest_to_hex(image, hex) : "");
}

static json_t *digests_text(const GArray *digests)
{
    json_t *list = json_array();
    char oci[DIGEST_OCI_SIZE];

    for (guint i = 0; i < digests->len; i++)
        json_array_append_new(list, json_string(digest_to_oci(&g_array_index(digests, Digest, i), oci)));
    return list;
}

static bool read_digests(const json_t *list, GArray *to)
{
    const json_t *text;
    Digest digest;
    size_t i;

    json_array_foreach((json_t *)list, i, text)
    {
        if (!json_is_string(text) || !digest_parse(json_string_value(text), &digest))
            return false;
        g_array_append_val(to, digest);
    }
    return json_is_array(list);
}

/* The own ones as one list of fours. */
static char *record_text(const Record *record)
{
    g_autoptr(json_t) object = json_pack("{s:I}", "rows", (json_int_t)record->rows);
    g_autoptr(GArray) own = g_array_new(FALSE, FALSE, sizeof(Digest));

    for (guint i = 0; i < record->own->len; i++)
        g_array_append_vals(own, &g_array_index(record->own, OwnSegment, i), 4);
    json_set_digest(object, "manifest", &record->manifest);
    json_object_set_new(object, "donors", digests_text(record->donors));
    json_object_set_new(object, "segments", digests_text(record->segments));
    json_object_set_new(object, "own", digests_text(own));
    return json_canonical(object);
}

static bool record_parse(const char *text, Record *ret)
{
    g_autoptr(json_t) object = NULL;
    g_autoptr(GArray) own = g_array_new(FALSE, FALSE, sizeof(Digest));
    const char *manifest;

    if (!text || !json_parse(text, strlen(text), RECORD_MAX, "a record", &object, NULL))
        return false;
    manifest = json_string_value(json_object_get(object, "manifest"));
    ret->rows = json_integer_value(json_object_get(object, "rows"));
    if (!manifest || !digest_parse(manifest, &ret->manifest) || !read_digests(json_object_get(object, "donors"), ret->donors) ||
        !read_digests(json_object_get(object, "segments"), ret->segments) || !read_digests(json_object_get(object, "own"), own) || own->len % 4)
        return false;
    G_STATIC_ASSERT(sizeof(OwnSegment) == 4 * sizeof(Digest));
    g_array_append_vals(ret->own, own->data, own->len / 4);
    return true;
}

static bool load_record(Database *catalog, const char *name, const Digest *image, Record *ret, bool *ret_found, GError **error)
{
    g_autofree char *key = key_of(name, image);
    g_autoptr(Query) query = database_query(catalog, error, "SELECT value FROM memo WHERE key = ?1", "t", key);
    int rc = query ? query_step(query, error) : -1;

    *ret_found = rc > 0 && record_parse(query_text(query, 0), ret);
    return rc >= 0;
}

/* --- is it still good? ----------------------------------------------------------------------- */

static bool donors_are_there(Store *store, const char *name, const Record *record, bool *ret, GError **error)
{
    *ret = true;
    for (guint i = 0; i < record->donors->len && *ret; i++)
        if (!serve_view_has_image(store, name, &g_array_index(record->donors, Digest, i), ret, error))
            return false;
    return true;
}

static bool segments_are_there(Database *catalog, const Record *record, bool *ret, GError **error)
{
    *ret = true;
    for (guint i = 0; i < record->segments->len && *ret; i++) {
        int64_t count;

        if (!database_int(catalog, 0, &count, error, "SELECT count(*) FROM segment WHERE digest = ?1 AND dead = 0 AND leaving = 0", "d",
                          &g_array_index(record->segments, Digest, i)))
            return false;
        *ret = count > 0;
    }
    return true;
}

static bool blobs_are_there(Database *catalog, const char *name, const Digest *image, const Record *record, bool *ret, GError **error)
{
    g_autofree char *from = key_of(name, image), *end = memo_prefix_end(from);
    int64_t rows;

    if (!database_int(catalog, 0, &rows, error,
                      "SELECT count(*) FROM memo WHERE key > ?1 AND key < ?2 AND (blob IS NULL OR blob IN (SELECT digest FROM blob))", "tt", from, end))
        return false;
    *ret = rows == record->rows;
    return true;
}

static bool is_good(Store *store, Database *catalog, const char *name, const Digest *image, const Record *record, bool *ret, GError **error)
{
    return donors_are_there(store, name, record, ret, error) && (!*ret || segments_are_there(catalog, record, ret, error)) &&
           (!*ret || blobs_are_there(catalog, name, image, record, ret, error));
}

/* gc counts from when it was asked for last. */
static void note_use(Store *store, Database *catalog, const char *name, const Digest *image)
{
    g_autofree char *from = key_of(name, image), *end = memo_prefix_end(from);
    int64_t now = g_get_real_time() / G_USEC_PER_SEC, old;

    if (store_is_readonly(store) ||
        !database_int(catalog, 0, &old, NULL, "SELECT count(*) FROM memo WHERE key >= ?1 AND key < ?2 AND used < ?3", "tti", from, end, now - NOTE_AGE) || !old ||
        !database_begin(catalog, false, NULL))
        return;
    if (!database_run(catalog, NULL, "UPDATE memo SET used = ?3 WHERE key >= ?1 AND key < ?2", "tti", from, end, now))
        database_rollback(catalog);
    else
        (void)database_commit(catalog, NULL);
}

/* *ret_manifest none: there is nothing good. */
static bool find_made(Store *store, const char *name, const StoreImage *image, Digest *ret_manifest, GError **error)
{
    g_auto(Record) record;
    Database *catalog;
    bool good;

    record_init(&record);
    *ret_manifest = digest_none;
    if (!store_catalog(store, &catalog, error) || !load_record(catalog, name, &image->id, &record, &good, error) ||
        (good && !is_good(store, catalog, name, &image->id, &record, &good, error)))
        return false;
    if (good) {
        note_use(store, catalog, name, &image->id);
        *ret_manifest = record.manifest;
    }
    return true;
}

/* --- making ------------------------------------------------------------------------------------ */

typedef struct Make {
    Store *store;
    const char *name;
    const StoreImage *image;
    GPtrArray *donors;      /* of DiskDonor* */
    GPtrArray *donor_ids;   /* of Digest*, in the same order */
    GArray *bases;          /* of Digest: indexes of own segments that were made before */
    GHashTable *base_images; /* Digest* of an index -> Digest* of the image whose blocks are in its segment */
    GMutex lock;
    GHashTable *stored;     /* Digest* of segments of the store that are served */
    GHashTable *keepers;    /* Digest* of an own segment, an old one too -> Digest* of the blob that keeps it */
    json_t *manifest;
} Make;

static bool put_bytes(void *arg, GBytes *bytes, Digest *ret, GError **error)
{
    Make *m = arg;

    return store_blob_put(m->store, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret, error);
}

static bool keep_segment(Make *m, const Digest *digest, uint64_t size, int fd, const GArray *pieces, Digest *ret_keeper, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    uint64_t theirs = 0, written;

    for (guint i = 0; i < pieces->len; i++)
        theirs += g_array_index(pieces, DiskPiece, i).size;
    if (theirs >= size / 2)
        return serve_pieces_encode(fd, size, pieces, &bytes, error) && put_bytes(m, bytes, ret_keeper, error);
    return store_blob_put_file(m->store, fd, ret_keeper, &written, error) &&
           ((digest_equal(ret_keeper, digest) && written == size) || fail(error, "a segment came out with another digest"));
}

static bool put_segment(void *arg, const Digest *digest, uint64_t size, int fd, const GArray *pieces, Progress *progress, GError **error)
{
    Make *m = arg;
    Digest keeper = digest_none;

    (void)progress;
    if (pieces && !keep_segment(m, digest, size, fd, pieces, &keeper, error))
        return false;
    AUTO_LOCK(&m->lock);
    if (pieces)
        g_hash_table_replace(m->keepers, g_memdup2(digest, sizeof *digest), g_memdup2(&keeper, sizeof keeper));
    else
        g_hash_table_add(m->stored, g_memdup2(digest, sizeof *digest));
    return true;
}

static bool put_manifest(void *arg, GBytes *bytes, const Digest *digest, GError **error)
{
    Make *m = arg;

    (void)digest;
    return json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), SERVE_MANIFEST_MAX, "a manifest", &m->manifest, error);
}

static void donor_free(gpointer data)
{
    DiskDonor *donor = data;

    g_array_unref(donor->maps);
    g_free(donor);
}

/* What is served of the image: a disk's blocks and its files', a container's layers. */
static DiskDonor *donor_of(Store *store, const StoreImage *image)
{
    DiskDonor *donor = g_new0(DiskDonor, 1);
    Digest map;

    donor->maps = g_array_new(FALSE, FALSE, sizeof(Digest));
    if (strcmp(image->kind, "disk") == 0) {
        g_array_append_val(donor->maps, image->map);
        if (!digest_is_none(&image->tree.tree) && !digest_is_none(&image->tree.files))
            g_array_append_val(donor->maps, image->tree.files);
    }
    for (guint i = 0; image->layers && i < image->layers->len; i++) {
        const StoreLayerRef *layer = image->layers->pdata[i];

        if (!digest_is_none(&layer->recipe) && layer_recipe_map(store, &layer->recipe, &map, NULL) && !digest_is_none(&map))
            g_array_append_val(donor->maps, map);
    }
    return donor;
}

/* Under its very name; those that were only promoted under it are left out. */
static bool find_donors(Make *m, Database *catalog, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(Query) query = database_query(catalog, error,
                                            "SELECT " IMAGE_COLUMNS " FROM image WHERE name = ?1 AND bytes_gone = 0 ORDER BY number DESC LIMIT ?2", "ti",
                                            m->name, (int64_t)DONORS_MAX);

    if (!images_from_query(catalog, query, &images, error))
        return false;
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];

        if (digest_equal(&image->id, &m->image->id) || (strcmp(image->kind, "oci") == 0 && digest_is_none(&image->manifest)))
            continue;
        g_ptr_array_add(m->donors, donor_of(m->store, image));
        g_ptr_array_add(m->donor_ids, g_memdup2(&image->id, sizeof(Digest)));
    }
    return true;
}

static bool pieces_are_there(Make *m, const OwnSegment *own, bool *ret, GError **error)
{
    g_auto(Record) record;
    Database *catalog;

    record_init(&record);
    return digest_equal(&own->keeper, &own->segment) || (store_catalog(m->store, &catalog, error) &&
           serve_pieces_sources(m->store, &own->keeper, record.segments, error) && segments_are_there(catalog, &record, ret, error));
}

static bool add_own(Make *m, const Record *record, GError **error)
{
    for (guint i = 0; i < record->own->len; i++) {
        const OwnSegment *own = &g_array_index(record->own, OwnSegment, i);
        bool there = store_blob_has(m->store, &own->keeper) && store_blob_has(m->store, &own->index);

        if (there && !pieces_are_there(m, own, &there, error))
            return false;
        if (there && !serve_view_has_image(m->store, m->name, &own->image, &there, error))
            return false;
        if (!there || g_hash_table_contains(m->base_images, &own->index))
            continue;
        g_array_append_val(m->bases, own->index);
        g_hash_table_replace(m->keepers, g_memdup2(&own->segment, sizeof(Digest)), g_memdup2(&own->keeper, sizeof(Digest)));
        g_hash_table_insert(m->base_images, g_memdup2(&own->index, sizeof(Digest)), g_memdup2(&own->image, sizeof(Digest)));
    }
    return true;
}

static bool find_bases(Make *m, Database *catalog, GError **error)
{
    g_autofree char *from = key_of(m->name, NULL), *end = memo_prefix_end(from);
    g_autoptr(Query) query = database_query(catalog, error,
                                            "SELECT value FROM memo WHERE key >= ?1 AND key < ?2 AND length(key) = length(?1) + 64 ORDER BY used DESC LIMIT ?3",
                                            "tti", from, end, (int64_t)RECORDS_MAX);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        g_auto(Record) record;

        record_init(&record);
        if (record_parse(query_text(query, 0), &record) && !add_own(m, &record, error))
            return false;
    }
    return rc >= 0;
}

static bool has_digest(const GArray *list, const Digest *digest)
{
    for (guint i = 0; i < list->len; i++)
        if (digest_equal(&g_array_index(list, Digest, i), digest))
            return true;
    return false;
}

static void add_donor(const Make *m, Record *record, const Digest *image)
{
    if (!digest_equal(image, &m->image->id) && !has_digest(record->donors, image))
        g_array_append_vals(record->donors, image, 1);
}

static bool descriptor_of(const json_t *layer, Digest *ret, int64_t *ret_size, GError **error)
{
    const char *text = json_string_value(json_object_get(layer, "digest"));

    *ret_size = json_integer_value(json_object_get(layer, "size"));
    return (text && digest_parse(text, ret)) || fail(error, "a manifest that was made here has no digests");
}

/* Segments come in the order of their indexes. */
static bool describe_segments(const Make *m, Record *record, GError **error)
{
    g_autoptr(GArray) segments = g_array_new(FALSE, FALSE, sizeof(Digest)), indexes = g_array_new(FALSE, FALSE, sizeof(Digest));
    const json_t *layer;
    int64_t size;
    Digest digest;
    size_t i;

    json_array_foreach(json_object_get(m->manifest, "layers"), i, layer)
    {
        const char *type = json_string_value(json_object_get(layer, "mediaType"));
        GArray *list = g_strcmp0(type, DISK_SEGMENT_TYPE) == 0 ? segments : g_strcmp0(type, DISK_INDEX_TYPE) == 0 ? indexes : NULL;

        if (!descriptor_of(layer, &digest, &size, error))
            return false;
        if (list)
            g_array_append_val(list, digest);
    }
    for (guint s = 0; s < segments->len && s < indexes->len; s++) {
        OwnSegment own = {g_array_index(segments, Digest, s), g_array_index(indexes, Digest, s), m->image->id, digest_none};
        const Digest *base = g_hash_table_lookup(m->base_images, &own.index), *keeper = g_hash_table_lookup(m->keepers, &own.segment);

        if (g_hash_table_contains(m->stored, &own.segment)) {
            g_array_append_val(record->segments, own.segment);
            continue;
        }
        if (!keeper)
            return fail(error, "a manifest that was made here names a segment that was not");
        own.keeper = *keeper;
        if (!digest_equal(keeper, &own.segment) && !serve_pieces_sources(m->store, keeper, record->segments, error))
            return false;
        if (base)
            own.image = *base;
        add_donor(m, record, &own.image);
        g_array_append_val(record->own, own);
    }
    for (guint d = 0; d < m->donors->len; d++)
        if (((DiskDonor *)m->donors->pdata[d])->used)
            add_donor(m, record, m->donor_ids->pdata[d]);
    return true;
}

static bool put_row(Database *catalog, const Make *m, Record *record, const Digest *digest, int64_t size, bool manifest, GError **error)
{
    bool segment = !manifest && g_hash_table_contains(m->stored, digest);
    const Digest *keeper = g_hash_table_lookup(m->keepers, digest);
    bool pieces = keeper && !digest_equal(keeper, digest);
    g_autofree char *image = key_of(m->name, &m->image->id), *key = NULL, *value = NULL;
    char hex[DIGEST_HEX_SIZE];

    key = g_strdup_printf("%s@%s", image, digest_to_hex(digest, hex));
    value = g_strdup_printf("{\"manifest\":%s,\"pieces\":%s,\"segment\":%s,\"size\":%" G_GINT64_FORMAT "}", manifest ? "true" : "false",
                            pieces ? "true" : "false", segment || pieces ? "true" : "false", size);
    if (pieces)
        digest = keeper;
    if (!database_run(catalog, error, "INSERT OR IGNORE INTO memo VALUES (?1,?2,?3,?4,?5)", "ttddi", key, value, segment ? &digest_none : digest, &digest_none,
                      g_get_real_time() / G_USEC_PER_SEC))
        return false;
    record->rows += database_changes(catalog);
    return segment || database_run(catalog, error, "UPDATE blob SET dead = 0 WHERE digest = ?1", "d", digest);
}

static bool put_rows(Database *catalog, const Make *m, Record *record, int64_t manifest_size, GError **error)
{
    g_autofree char *from = key_of(m->name, &m->image->id), *end = memo_prefix_end(from), *value = NULL;
    const json_t *layer;
    int64_t size;
    Digest digest;
    size_t i;

    if (!database_run(catalog, error, "DELETE FROM memo WHERE key >= ?1 AND key < ?2", "tt", from, end) ||
        !put_row(catalog, m, record, &record->manifest, manifest_size, true, error) ||
        !descriptor_of(json_object_get(m->manifest, "config"), &digest, &size, error) || !put_row(catalog, m, record, &digest, size, false, error))
        return false;
    json_array_foreach(json_object_get(m->manifest, "layers"), i, layer)
        if (!descriptor_of(layer, &digest, &size, error) || !put_row(catalog, m, record, &digest, size, false, error))
            return false;
    value = record_text(record);
    return database_run(catalog, error, "INSERT OR REPLACE INTO memo VALUES (?1,?2,?3,?4,?5)", "ttddi", from, value, &record->manifest, &digest_none,
                        g_get_real_time() / G_USEC_PER_SEC);
}

static bool keep(const Make *m, Database *catalog, const DiskTransfer *made, GError **error)
{
    g_autofree char *place = g_strconcat(m->name, "/disk", NULL);
    g_auto(Record) record;

    record_init(&record);
    record.manifest = made->manifest;
    if (!describe_segments(m, &record, error) || !database_begin(catalog, true, error))
        return false;
    if (!put_rows(catalog, m, &record, (int64_t)made->manifest_size, error)) {
        database_rollback(catalog);
        return false;
    }
    return database_commit(catalog, error) && store_image_add_manifest(m->store, m->image, place, &made->manifest, NULL, error);
}

static bool make(Make *m, Digest *ret_manifest, GError **error)
{
    g_autoptr(GArray) indexes = NULL;
    DiskSink sink = {.arg = m, .bases = m->bases, .donors = m->donors, .put_bytes = put_bytes, .put_segment = put_segment, .put_manifest = put_manifest};
    Database *catalog;
    DiskTransfer made;

    if (!store_catalog(m->store, &catalog, error) || !find_donors(m, catalog, error) || !find_bases(m, catalog, error) ||
        !disk_artifact_make(m->store, m->image, &sink, &indexes, &made, error) || !keep(m, catalog, &made, error))
        return false;
    log_verbose("made the artifact of disk '%s': %" G_GUINT64_FORMAT " segments as they stand or made before, %" G_GUINT64_FORMAT " blocks in new ones", m->name,
                made.segments + made.present, made.blocks);
    *ret_manifest = made.manifest;
    return true;
}

static bool make_disk(Store *store, const char *name, const StoreImage *image, Digest *ret_manifest, GError **error)
{
    Make m = {.store = store, .name = name, .image = image};
    g_autoptr(StoreLease) lease = NULL;
    bool ok;

    if (!store_lease_take(store, "serve", &lease, error))
        return false;
    g_mutex_init(&m.lock);
    m.donors = g_ptr_array_new_with_free_func(donor_free);
    m.donor_ids = g_ptr_array_new_with_free_func(g_free);
    m.bases = g_array_new(FALSE, FALSE, sizeof(Digest));
    m.base_images = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, g_free);
    m.stored = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    m.keepers = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, g_free);
    ok = make(&m, ret_manifest, error);
    g_ptr_array_unref(m.donors);
    g_ptr_array_unref(m.donor_ids);
    g_array_unref(m.bases);
    g_hash_table_unref(m.base_images);
    g_hash_table_unref(m.stored);
    g_hash_table_unref(m.keepers);
    json_decref(m.manifest);
    g_mutex_clear(&m.lock);
    serve_drop_process_lease(store);
    return ok;
}

bool serve_disk_manifest(Store *store, const char *name, const StoreImage *image, Digest *ret, GError **error)
{
    if (!find_made(store, name, image, ret, error))
        return false;
    if (!digest_is_none(ret))
        return true;
    if (store_is_readonly(store)) {
        log_warning("disk '%s' can't be served: what it is sent as has to be made first, and store '%s' can't be written to", name, store_path(store));
        return true;
    }
    AUTO_LOCK(&making);
    return find_made(store, name, image, ret, error) && (!digest_is_none(ret) || make_disk(store, name, image, ret, error));
}

/* --- what it consists of --------------------------------------------------------------------------- */

/* A row of the blob: is its image's artifact one that still may be had? */
static bool may_be_had(Store *store, Database *catalog, const char *name, const char *key, bool *ret, GError **error)
{
    const char *at = strchr(key, '@');
    g_autofree char *hex = at ? g_strndup(at + 1, 64) : NULL;
    g_auto(Record) record;
    Digest image;

    record_init(&record);
    *ret = false;
    if (!hex || !digest_parse(hex, &image))
        return true;
    return serve_view_has_image(store, name, &image, ret, error) && (!*ret || load_record(catalog, name, &image, &record, ret, error)) &&
           (!*ret || donors_are_there(store, name, &record, ret, error)) && (!*ret || segments_are_there(catalog, &record, ret, error));
}

static bool is_in_place(Store *store, const ServeLink *link)
{
    int fd;

    if (!link->segment || !digest_is_none(&link->pieces))
        return store_blob_has(store, link->segment ? &link->pieces : &link->blob);
    fd = segment_open_file(store, &link->blob);
    if (fd >= 0)
        (void)close(fd);
    return fd >= 0;
}

static bool link_of_row(Store *store, Query *query, const Digest *digest, bool manifest, ServeLink *ret)
{
    const char *text = query_text(query, 1);
    g_autoptr(json_t) value = NULL;

    if (!text || !json_parse(text, strlen(text), RECORD_MAX, "a row", &value, NULL))
        return false;
    *ret = (ServeLink){.blob = *digest, .segment = json_is_true(json_object_get(value, "segment")), .size = (uint64_t)json_integer_value(json_object_get(value, "size"))};
    if (json_is_true(json_object_get(value, "pieces")))
        query_digest(query, 2, &ret->pieces);
    return json_is_true(json_object_get(value, "manifest")) == manifest && is_in_place(store, ret);
}

bool serve_disk_find(Store *store, const char *name, const Digest *digest, bool manifest, ServeLink *ret, bool *ret_found, GError **error)
{
    g_autofree char *from = key_of(name, NULL), *end = memo_prefix_end(from);
    g_autoptr(Query) query = NULL;
    char hex[DIGEST_HEX_SIZE];
    Database *catalog;
    int rc;

    *ret_found = false;
    digest_to_hex(digest, hex);
    if (!store_catalog(store, &catalog, error) ||
        !(query = database_query(catalog, error,
                                 "SELECT key, value, blob FROM memo WHERE key >= ?1 AND key < ?2 AND length(key) = length(?1) + 129 AND substr(key, -64) = ?3", "ttt",
                                 from, end, hex)))
        return false;
    while (!*ret_found && (rc = query_step(query, error)) != 0) {
        if (rc < 0 || (link_of_row(store, query, digest, manifest, ret) && !may_be_had(store, catalog, name, query_text(query, 0), ret_found, error)))
            return false;
    }
    return true;
}
