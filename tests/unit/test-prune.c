/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prune lets go of what no rule and nothing else keeps, and leaves its record.
 */
#include "store/store.h"

#include "base/error.h"
#include "tests/unit/store-support.h"

#include <unistd.h>

#define MIB (1024 * 1024)
#define DAY 86400
#define NOON 1767268800 /* Thursday, 2026-01-01 12:00 UTC */

static const StoreRetention nothing = {-1, -1, -1, -1};

static void make_map(Store *store, uint64_t seed, Digest *ret)
{
    g_autofree uint8_t *bytes = g_malloc(MIB);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    MapResult result;

    test_noise(bytes, MIB, seed);
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL) && map_writer_new(writer, MIB, NULL, &map, NULL) &&
                  map_writer_write(map, 0, bytes, MIB, NULL) && map_writer_finish(map, NULL) && store_writer_commit(writer, NULL));
    map_writer_result(map, &result);
    *ret = result.digest;
}

static void publish(StoreFixture *f, const char *name, uint64_t seed, Digest *ret_id)
{
    g_autoptr(StoreImage) disk = store_image_new("disk", name), oci = store_image_new("oci", name);
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(GHashTable) inputs = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(json_t) provenance = json_pack("{s:I, s:[s]}", "seed", (json_int_t)seed, "tests", "passed");
    g_autofree char *config = g_strdup_printf("config %" G_GUINT64_FORMAT, seed), *other = g_strconcat(config, " oci", NULL);
    g_autofree uint8_t *large = g_malloc(2 * MIB);
    g_autoptr(GError) error = NULL;
    StoreSet set = {.name = name, .images = images, .provenance = provenance, .inputs = inputs};
    Digest template, upload;

    test_noise(large, 2 * MIB, seed + 1000);
    g_assert_true(store_blob_put(f->store, config, strlen(config), &disk->id, NULL) &&
                  store_blob_put(f->store, other, strlen(other), &oci->id, NULL) &&
                  store_blob_put(f->store, "manifest", 8, &oci->manifest, NULL) && store_blob_put(f->store, "text", 4, &template, NULL) &&
                  store_blob_put(f->store, large, 2 * MIB, &upload, NULL));
    g_hash_table_insert(inputs, (char *)"kiln.template", &template);
    g_hash_table_insert(inputs, (char *)"upload", &upload);
    digest_of_string(config, &set.key);
    make_map(f->store, seed, &disk->map);
    g_ptr_array_add(images, disk);
    g_ptr_array_add(images, oci);
    store_publish(f->store, &set, &error);
    g_assert_no_error(error);
    if (ret_id)
        *ret_id = disk->id;
}

/* As if the newest set of @name had been published then. */
static void date_newest(StoreFixture *f, const char *name, int64_t created)
{
    g_autofree char *sql = g_strdup_printf("UPDATE image SET created = %" G_GINT64_FORMAT
                                           " WHERE bake = (SELECT max(bake) FROM image WHERE name = '%s')", created, name);

    test_catalog_sql(f->store, sql);
}

static guint prune(StoreFixture *f, const char *name, StoreRetention rules, bool dry_run)
{
    g_autoptr(GPtrArray) verdicts = NULL;
    g_autoptr(GError) error = NULL;
    guint gone = 0;

    store_prune(f->store, name, &rules, dry_run, &verdicts, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < verdicts->len; i++)
        gone += !((StorePruneVerdict *)verdicts->pdata[i])->stays;
    g_assert_cmpuint(gone % 2, ==, 0); /* both kinds of a set */
    return gone / 2;
}

/* Why the disk @id stays; NULL: it goes. Free with g_free. */
static char *reason(StoreFixture *f, StoreRetention rules, const Digest *id)
{
    g_autoptr(GPtrArray) verdicts = NULL;

    g_assert_true(store_prune(f->store, NULL, &rules, true, &verdicts, NULL));
    for (guint i = 0; i < verdicts->len; i++) {
        const StorePruneVerdict *verdict = verdicts->pdata[i];

        if (digest_equal(&verdict->image->id, id))
            return verdict->stays ? g_strdup(verdict->why) : NULL;
    }
    g_assert_not_reached();
}

static void assert_stays(StoreFixture *f, const Digest *id, const char *part)
{
    g_autofree char *why = reason(f, nothing, id);

    g_assert_nonnull(why);
    g_test_message("%s", why);
    g_assert_nonnull(strstr(why, part));
}

static void assert_goes(StoreFixture *f, const Digest *id)
{
    g_autofree char *why = reason(f, nothing, id);

    g_assert_null(why);
}

static void assert_clean(StoreFixture *f)
{
    g_autoptr(GPtrArray) problems = NULL;

    g_assert_true(store_fsck(f->store, true, &problems, NULL));
    for (guint i = 0; i < problems->len; i++)
        g_test_message("%s", (char *)problems->pdata[i]);
    g_assert_cmpuint(problems->len, ==, 0);
}

static void collect(StoreFixture *f)
{
    StoreGcReport report;

    g_assert_true(store_gc(f->store, &(StoreGcOptions){.grace = 0}, &report, NULL));
}

static void test_rules(StoreFixture *f, gconstpointer data)
{
    /* Two sets on each of 40 days. */
    for (int i = 0; i < 80; i++) {
        publish(f, "web", (uint64_t)i, NULL);
        date_newest(f, "web", NOON + (int64_t)(i / 2) * DAY + (i % 2) * 3600);
    }
    publish(f, "other", 500, NULL);
    g_assert_cmpuint(prune(f, "web", (StoreRetention){5, -1, -1, -1}, true), ==, 75);
    g_assert_cmpuint(prune(f, "web", (StoreRetention){-1, 5, -1, -1}, true), ==, 75);
    g_assert_cmpuint(prune(f, "web", (StoreRetention){-1, -1, -1, 12}, true), ==, 78); /* January and February */
    g_assert_cmpuint(prune(f, "web", (StoreRetention){-1, -1, 3, -1}, true), ==, 77);
    /* The last two are of one day, a Monday; four more days, of which the first ends a week; and the Sunday of the week before. */
    g_assert_cmpuint(prune(f, "web", (StoreRetention){2, 5, 3, -1}, true), ==, 80 - 2 - 4 - 1);
    g_assert_cmpuint(prune(f, "web", (StoreRetention){1000, -1, -1, -1}, true), ==, 0);
    g_assert_cmpuint(prune(f, "web", (StoreRetention){0, 0, 0, 0}, true), ==, 79); /* the newest stays */
    g_assert_cmpuint(prune(f, NULL, (StoreRetention){-1, 5, -1, -1}, false), ==, 75);
    g_assert_cmpuint(prune(f, NULL, (StoreRetention){-1, 5, -1, -1}, false), ==, 0);
    assert_clean(f);
}

static void promote(StoreFixture *f, const Digest *id, const char *channel)
{
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) error = NULL;
    char oci[DIGEST_OCI_SIZE];
    StorePromotion promotion = {.name = "web", .channel = channel};

    g_assert_true(store_resolve_set(f->store, digest_to_oci(id, oci), &images, NULL));
    promotion.images = images;
    store_promote(f->store, &promotion, NULL, &error);
    g_assert_no_error(error);
}

static void test_channels(StoreFixture *f, gconstpointer data)
{
    Digest id[5];

    for (int i = 0; i < 5; i++)
        publish(f, "web", (uint64_t)i, &id[i]);
    for (int i = 0; i < 3; i++)
        promote(f, &id[i], "prod");
    assert_goes(f, &id[0]);
    assert_stays(f, &id[1], "goes back to it");
    assert_stays(f, &id[2], "web/disk:prod");
    assert_goes(f, &id[3]);
    assert_stays(f, &id[4], "newest");
    /* Of a set with one kind in a channel both stay. */
    g_assert_cmpuint(prune(f, NULL, nothing, false), ==, 2);
    assert_clean(f);
}

static void test_group(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GArray) holds = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(GPtrArray) records = g_ptr_array_new();
    g_autoptr(json_t) record = json_pack("{s:s}", "do", "begin");
    g_autoptr(StoreJournal) journal = NULL;
    g_autoptr(GError) error = NULL;
    Digest id[3];

    for (int i = 0; i < 3; i++)
        publish(f, "web", (uint64_t)i, &id[i]);
    g_ptr_array_add(records, record);
    g_array_append_val(holds, id[1]);
    g_assert_true(store_journal_open(f->store, "site", false, &journal, NULL) && store_journal_append(journal, records, holds, NULL));
    assert_stays(f, &id[1], "group 'site'");
    g_assert_cmpuint(prune(f, NULL, nothing, false), ==, 1);
    /* What has gone cannot be held any more. */
    g_array_append_val(holds, id[0]);
    g_assert_false(store_journal_append(journal, records, holds, &error));
    g_assert_nonnull(strstr(error->message, "bytes"));
}

static bool keep(StoreFixture *f, const Digest *id, bool release, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    char oci[DIGEST_OCI_SIZE];

    return store_resolve_set_record(f->store, digest_to_oci(id, oci), &images, error) &&
           store_keep(f->store, images, &(StoreWhy){"the audit", "ann"}, release, error);
}

static void test_keep(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) kept = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    char oci[DIGEST_OCI_SIZE];
    Digest id[3];

    for (int i = 0; i < 3; i++)
        publish(f, "web", (uint64_t)i, &id[i]);
    g_assert_false(keep(f, &id[0], true, &error));
    g_clear_error(&error);
    g_assert_true(keep(f, &id[0], false, NULL));
    assert_stays(f, &id[0], "the audit");
    g_assert_true(store_keeps(f->store, &kept, NULL));
    g_assert_cmpuint(kept->len, ==, 2);
    g_assert_cmpstr(((StoreChannelEntry *)kept->pdata[0])->on_behalf_of, ==, "ann");
    g_assert_true(store_resolve(f->store, digest_to_oci(&id[0], oci), NULL, &image, NULL));
    g_assert_false(store_remove_image(f->store, image, &error));
    g_assert_nonnull(strstr(error->message, "kiln keep"));
    g_clear_error(&error);
    g_assert_true(keep(f, &id[0], true, NULL));
    assert_goes(f, &id[0]);
    g_assert_cmpuint(prune(f, NULL, nothing, false), ==, 2);
    g_assert_false(keep(f, &id[0], false, &error)); /* too late */
    g_assert_nonnull(strstr(error->message, "only the record"));
    assert_clean(f); /* the chain as well */
}

static void test_record(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) image = NULL, again = NULL;
    g_autoptr(GPtrArray) all = NULL, named = NULL, set = NULL;
    g_autoptr(GHashTable) inputs = NULL;
    g_autoptr(json_t) provenance = NULL, tests = NULL;
    g_autoptr(GError) error = NULL;
    char oci[DIGEST_OCI_SIZE];
    Digest old, new, key;

    publish(f, "web", 1, &old);
    publish(f, "web", 2, &new);
    digest_to_oci(&old, oci);
    digest_of_string("config 1", &key);
    g_assert_cmpuint(prune(f, "web", (StoreRetention){1, -1, -1, -1}, false), ==, 1);
    collect(f);
    assert_clean(f);
    /* For what needs bytes it is one sentence. */
    g_assert_false(store_resolve(f->store, oci, NULL, &image, &error));
    g_assert_nonnull(strstr(error->message, "only the record is left"));
    g_clear_error(&error);
    g_assert_false(store_resolve_set(f->store, oci, &set, &error));
    g_clear_error(&error);
    /* For what reads about it, it is all there. */
    g_assert_true(store_resolve_record(f->store, oci, NULL, &image, NULL));
    g_assert_cmpint(image->bytes_gone, >, 0);
    g_assert_false(store_blob_has(f->store, &image->map));
    g_assert_true(store_blob_has(f->store, &image->id));
    g_assert_true(store_image_provenance(f->store, image, &provenance, NULL) && store_image_tests(f->store, &old, &tests, NULL));
    g_assert_cmpint(json_array_size(tests), ==, 1);
    g_assert_true(store_image_inputs(f->store, image, &inputs, NULL));
    g_assert_true(g_hash_table_contains(inputs, "kiln.template") && !g_hash_table_contains(inputs, "upload"));
    g_assert_true(store_list_images(f->store, true, &all, NULL) && store_list_images(f->store, false, &named, NULL));
    g_assert_cmpuint(all->len, ==, 4);
    g_assert_cmpuint(named->len, ==, 2);
    /* A bake with its key is no hit; baked again it is whole again. */
    g_assert_true(store_find_set_by_key(f->store, &key, "web", &set, NULL));
    g_assert_null(set);
    publish(f, "web", 1, &old);
    g_assert_true(store_resolve(f->store, oci, NULL, &again, NULL) && store_blob_has(f->store, &again->map));
    g_assert_true(store_find_set_by_key(f->store, &key, "web", &set, NULL));
    g_assert_nonnull(set);
    assert_clean(f);
}

/* rm of the newest gives the name to the newest that has bytes. */
static void test_remove_next_to_records(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreImage) image = NULL, next = NULL;
    Digest id[3];

    for (int i = 0; i < 3; i++)
        publish(f, "web", (uint64_t)i, &id[i]);
    promote(f, &id[0], "prod");
    g_assert_cmpuint(prune(f, NULL, nothing, false), ==, 1);
    g_assert_true(store_resolve(f->store, "web/disk", NULL, &image, NULL) && store_remove_image(f->store, image, NULL));
    g_assert_true(store_resolve(f->store, "web/disk", NULL, &next, NULL));
    g_assert_true(digest_equal(&next->id, &id[0]));
}

static void test_unknown_name(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) verdicts = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(store_prune(f->store, "web", &nothing, true, &verdicts, &error));
    g_assert_cmpint(error->code, ==, KILN_ERROR_NOT_FOUND);
}

/* A catalog from before there were records. */
static void test_upgrade(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = g_strdup(store_path(f->store));
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;

    publish(f, "web", 1, NULL);
    test_catalog_sql(f->store, "ALTER TABLE image DROP COLUMN bytes_gone; ALTER TABLE segment DROP COLUMN suspect;"
         " ALTER TABLE segment DROP COLUMN leaving; ALTER TABLE segment DROP COLUMN verified; ALTER TABLE blob DROP COLUMN verified; ALTER TABLE blob DROP COLUMN file; DROP TABLE moved; ALTER TABLE map DROP COLUMN judged; DROP TRIGGER image_gone;"
         " DROP TABLE image_package; DROP TABLE package; ALTER TABLE image DROP COLUMN indexed; PRAGMA user_version = 1");
    store_close(g_steal_pointer(&f->store));
    store_open(path, 0, &f->store, &error);
    g_assert_no_error(error);
    g_assert_true(store_resolve(f->store, "web/disk", NULL, &image, NULL));
    g_assert_cmpint(image->bytes_gone, ==, 0);
    assert_clean(f);
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_setenv("TZ", "UTC", TRUE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/prune/" name, StoreFixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    ADD("rules-count-per-name", test_rules);
    ADD("channels-hold-two", test_channels);
    ADD("groups-hold-theirs", test_group);
    ADD("keep-holds-until-released", test_keep);
    ADD("records-stay-when-bytes-go", test_record);
    ADD("names-go-to-what-has-bytes", test_remove_next_to_records);
    ADD("unknown-name-is-refused", test_unknown_name);
    ADD("version-1-is-upgraded", test_upgrade);
    return g_test_run();
}
