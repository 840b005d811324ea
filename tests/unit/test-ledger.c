/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What state.db and catalog.db say outlives them: the ledger, rebuilding, and copies of whole stores.
 */
#include "tests/unit/store-support.h"

#include "base/file.h"
#include "store/io.h"

#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1024 * 1024)

/* --- a store with something of everything --- */

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

/* The image that @name means after it, as everything else here uses it. */
static GPtrArray *publish(Store *store, const char *name, uint64_t seed)
{
    g_autofree char *config = g_strdup_printf("{\"name\":\"%s\",\"seed\":%d}", name, (int)seed);
    GPtrArray *images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(json_t) provenance = json_pack("{s:I}", "seed", (json_int_t)seed);
    StoreImage *image = store_image_new("disk", name);
    g_autoptr(GError) error = NULL;
    StoreSet set = {.name = name, .images = images, .provenance = provenance};

    g_assert_true(store_blob_put(store, config, strlen(config), &image->id, NULL));
    make_map(store, seed, &image->map);
    image->size = MIB;
    g_ptr_array_add(images, image);
    digest_of_string("parent", &set.parent);
    digest_of_string(config, &set.key);
    store_publish(store, &set, &error);
    g_assert_no_error(error);
    return images;
}

static void promote(Store *store, GPtrArray *images, const char *channel)
{
    StorePromotion promotion = {.name = ((StoreImage *)images->pdata[0])->name, .channel = channel, .images = images, .why = {.reason = "why\xc3\xa4"}};
    g_autoptr(GError) error = NULL;

    store_promote(store, &promotion, NULL, &error);
    g_assert_no_error(error);
}

static void say(StoreJournal *journal, int number, const Digest *hold)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    g_autoptr(GArray) holds = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(GError) error = NULL;

    g_array_append_vals(holds, hold, 1);
    g_ptr_array_add(records, json_pack("{s:s, s:i}", "do", "begin", "n", number));
    store_journal_append(journal, records, holds, &error);
    g_assert_no_error(error);
}

static void write_journal(Store *store, const char *group, int from, int count, const Digest *hold)
{
    g_autoptr(StoreJournal) journal = NULL;

    g_assert_true(store_journal_open(store, group, false, &journal, NULL));
    for (int i = from; i < from + count; i++)
        say(journal, i, hold);
}

static void sign(Store *store, GPtrArray *images)
{
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(GError) error = NULL;

    g_autofree char *path = g_strdup_printf("%s/../%u.pem", store_path(store), g_random_int());

    g_assert_true(signature_generate(path, &error) && signature_load(path, &key, &error));
    g_assert_no_error(error);
    g_assert_true(store_sign_images(store, images, key, NULL) && store_sign_heads(store, key, NULL, NULL));
}

static void populate(Store *store)
{
    g_autoptr(GPtrArray) one = publish(store, "one", 1), two = publish(store, "two", 2);

    promote(store, one, "test");
    promote(store, one, "prod");
    promote(store, two, "prod");
    write_journal(store, "web", 0, 5, &((StoreImage *)one->pdata[0])->id);
    write_journal(store, "db", 0, 3, &((StoreImage *)two->pdata[0])->id);
    write_journal(store, "web", 5, 2, &((StoreImage *)two->pdata[0])->id);
    sign(store, one);
}

/* --- the same after it? --- */

static void add_images(Store *store, GString *to)
{
    g_autoptr(GPtrArray) images = NULL;
    char oci[DIGEST_OCI_SIZE];

    g_assert_true(store_list_images(store, true, &images, NULL));
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autoptr(json_t) provenance = NULL;
        g_autofree uint8_t *wanted = g_malloc(MIB), *got = g_malloc(MIB);
        g_autoptr(StoreMap) map = NULL;

        g_assert_true(store_image_provenance(store, image, &provenance, NULL));
        test_noise(wanted, MIB, (uint64_t)json_integer_value(json_object_get(provenance, "seed")));
        g_assert_true(store_map_open(store, &image->map, &map, NULL) && store_map_pread(map, got, MIB, 0, NULL));
        g_assert_cmpint(memcmp(wanted, got, MIB), ==, 0);
        g_string_append_printf(to, "%s %s %s %d %d\n", image->name, image->kind, digest_to_oci(&image->id, oci), (int)image->set, (int)image->created);
    }
}

static void add_logs(Store *store, GString *to)
{
    g_autoptr(GPtrArray) entries = NULL, records = NULL;
    char hex[DIGEST_HEX_SIZE];

    g_assert_true(store_channels(store, NULL, true, &entries, NULL) && store_journal_read(store, NULL, 0, &records, NULL));
    for (guint i = 0; i < entries->len; i++)
        g_string_append_printf(to, "entry %s\n", digest_to_hex(&((StoreChannelEntry *)entries->pdata[i])->hash, hex));
    for (guint i = 0; i < records->len; i++)
        g_string_append_printf(to, "record %s\n", digest_to_hex(&((StoreJournalRecord *)records->pdata[i])->hash, hex));
}

static void add_signatures(Store *store, const Digest *image, GString *to)
{
    g_autoptr(GPtrArray) signatures = NULL;

    g_assert_true(store_signatures(store, image, &signatures, NULL));
    for (guint i = 0; i < signatures->len; i++)
        g_string_append_printf(to, "%s %s\n", ((StoreSignature *)signatures->pdata[i])->log, ((StoreSignature *)signatures->pdata[i])->signature);
}

static void add_holds(Store *store, GString *to)
{
    g_autoptr(GPtrArray) images = NULL;

    g_assert_true(store_list_images(store, true, &images, NULL));
    add_signatures(store, NULL, to);
    for (guint i = 0; i < images->len; i++) {
        g_autoptr(GPtrArray) groups = NULL;

        add_signatures(store, &((StoreImage *)images->pdata[i])->id, to);
        g_assert_true(store_journal_holders(store, &((StoreImage *)images->pdata[i])->id, &groups, NULL));
        for (guint j = 0; j < groups->len; j++)
            g_string_append_printf(to, "%s holds %u\n", (char *)groups->pdata[j], i);
    }
}

/* Everything that must not be lost, as text. Reads all blocks of all images. */
static char *says(Store *store)
{
    GString *text = g_string_new(NULL);

    add_images(store, text);
    add_logs(store, text);
    add_holds(store, text);
    return g_string_free(text, FALSE);
}

static char *says_at(const char *path)
{
    g_autoptr(Store) store = test_store_open(path, 0);

    return says(store);
}

static guint count_problems(Store *store)
{
    g_autoptr(GPtrArray) problems = NULL;
    g_autoptr(GError) error = NULL;

    store_fsck(store, true, &problems, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < problems->len; i++)
        g_test_message("%s", (char *)problems->pdata[i]);
    return problems->len;
}

static void assert_clean(const char *path)
{
    g_autoptr(Store) store = test_store_open(path, 0);

    g_assert_cmpuint(count_problems(store), ==, 0);
}

/* The store is $S. */
static void shell(const char *path, const char *command)
{
    g_setenv("S", path, TRUE);
    g_assert_cmpint(system(command), ==, 0);
}

static guint rebuild(const char *path)
{
    g_autoptr(GPtrArray) notes = NULL;
    g_autoptr(GError) error = NULL;

    store_rebuild(path, &notes, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < notes->len; i++)
        g_test_message("%s", (char *)notes->pdata[i]);
    return notes->len;
}

static char *close_store(StoreFixture *f)
{
    char *path = g_strdup(store_path(f->store));

    store_close(f->store);
    f->store = NULL;
    return path;
}

/* Does @damage to the closed store, rebuilds it and expects it to say what it said. */
static void lose(StoreFixture *f, const char *damage)
{
    g_autofree char *before = NULL, *after = NULL, *path = NULL;

    populate(f->store);
    before = says(f->store);
    path = close_store(f);
    shell(path, damage);
    g_assert_cmpuint(rebuild(path), >, 0);
    after = says_at(path);
    g_assert_cmpstr(after, ==, before);
    assert_clean(path);
    g_assert_cmpuint(rebuild(path), ==, 0);
}

static void test_lost_state(StoreFixture *f, gconstpointer data)
{
    lose(f, "rm \"$S\"/state.db*");
}

static void test_lost_catalog(StoreFixture *f, gconstpointer data)
{
    lose(f, "rm \"$S\"/catalog.db*");
}

static void test_lost_both(StoreFixture *f, gconstpointer data)
{
    lose(f, "rm -r \"$S\"/catalog.db* \"$S\"/state.db* \"$S\"/ledger \"$S\"/index");
}

static void test_damaged(StoreFixture *f, gconstpointer data)
{
    lose(f, "cd \"$S\"; for d in state catalog; do dd if=/dev/urandom of=$d.db bs=1k seek=3 count=9 conv=notrunc status=none; done");
    shell(g_getenv("S"), "ls \"$S\"/state.db.damaged-* \"$S\"/catalog.db.damaged-* >/dev/null");
}

/* A rebuilt store goes on, and what it does then survives the next loss. */
static void test_goes_on(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) images = NULL;

    test_lost_both(f, data);
    f->store = test_store_open(g_getenv("S"), 0);
    images = publish(f->store, "three", 3);
    promote(f->store, images, "prod");
    lose(f, "rm \"$S\"/state.db*");
}

static guint chain_length(const char *path)
{
    g_autofree char *name = g_build_filename(path, "ledger/head", NULL), *text = NULL;
    g_autoptr(json_t) head = NULL;

    g_assert_true(g_file_get_contents(name, &text, NULL, NULL));
    g_assert_true(json_parse(text, strlen(text), MIB, "head", &head, NULL));
    return (guint)json_array_size(json_object_get(head, "chain"));
}

static int64_t stat_of(Store *store, const char *key)
{
    g_autoptr(json_t) stats = NULL;

    g_assert_true(store_stats(store, &stats, NULL));
    return json_integer_value(json_object_get(stats, key));
}

static void test_short_chain(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) one = publish(f->store, "one", 1), other = publish(f->store, "one", 2);
    g_autofree char *before = NULL, *after = NULL, *path = NULL;
    StoreGcReport report;
    int64_t blobs;

    for (int i = 0; i < 100; i++)
        promote(f->store, i % 2 ? one : other, "prod");
    g_assert_cmpuint(chain_length(store_path(f->store)), <=, 8);
    blobs = stat_of(f->store, "blobs");
    g_assert_cmpint(blobs, >, 100);
    g_assert_true(store_gc(f->store, &(StoreGcOptions){.grace = 0}, &report, NULL));
    g_assert_cmpint(stat_of(f->store, "blobs"), <=, 6 + 8);
    before = says(f->store);
    path = close_store(f);
    shell(path, "rm \"$S\"/state.db*");
    rebuild(path);
    after = says_at(path);
    g_assert_cmpstr(after, ==, before);
}

/* Killed with the promotion committed and its blob not yet named: the next one to look writes it out. */
static void test_follows_a_kill(StoreFixture *f, gconstpointer data)
{
    g_autofree char *before = NULL, *after = NULL, *path = NULL;
    g_autoptr(GPtrArray) images = publish(f->store, "one", 1);
    int status;
    pid_t pid;

    path = close_store(f);
    pid = fork();
    if (pid == 0) {
        Store *own = test_store_open(path, 0);

        g_setenv("KILN_TEST_FAIL", "rename:1:KILL", TRUE);
        io_fault_reload();
        promote(own, images, "prod");
        _exit(3);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFSIGNALED(status));
    before = says_at(path); /* which also follows */
    g_assert_nonnull(strstr(before, "entry "));
    shell(path, "rm \"$S\"/state.db*");
    rebuild(path);
    after = says_at(path);
    g_assert_cmpstr(after, ==, before);
}

/* An older copy of state.db in place of the newest: told, not written over. */
static void test_older_state(StoreFixture *f, gconstpointer data)
{
    g_autofree char *before = NULL, *after = NULL, *path = NULL;
    g_autoptr(GPtrArray) images = publish(f->store, "one", 1);
    StoreGcReport report;

    path = close_store(f);
    shell(path, "cp \"$S\"/state.db \"$S\"/../old.db");
    f->store = test_store_open(path, 0);
    promote(f->store, images, "prod");
    before = says(f->store);
    g_free(close_store(f));
    shell(path, "rm \"$S\"/state.db*; cp \"$S\"/../old.db \"$S\"/state.db");
    f->store = test_store_open(path, 0);
    g_assert_cmpuint(count_problems(f->store), ==, 1);
    g_assert_false(store_gc(f->store, &(StoreGcOptions){.grace = 0}, &report, NULL));
    g_free(close_store(f));
    shell(path, "rm \"$S\"/state.db*");
    rebuild(path);
    after = says_at(path);
    g_assert_cmpstr(after, ==, before);
}

/* --- copies --- */

static StoreSyncReport sync_to(Store *from, const char *to)
{
    g_autoptr(GError) error = NULL;
    StoreSyncReport report = {0};

    store_sync_all(from, to, &report, &error);
    g_assert_no_error(error);
    return report;
}

static void assert_same(Store *store, const char *path)
{
    g_autofree char *here = says(store), *there = says_at(path);

    g_assert_cmpstr(here, ==, there);
    assert_clean(path);
}

static void test_sync(StoreFixture *f, gconstpointer data)
{
    g_autofree char *copy = g_build_filename(f->dir, "copy", NULL), *again = g_build_filename(f->dir, "again", NULL);
    g_autoptr(GPtrArray) three = NULL, images = NULL;
    g_autoptr(Store) other = NULL;
    StoreSyncReport report;

    populate(f->store);
    report = sync_to(f->store, copy);
    g_assert_cmpuint(report.segments, ==, 2);
    g_assert_cmpuint(report.bytes, >, 2 * MIB);
    assert_same(f->store, copy);
    report = sync_to(f->store, copy);
    g_assert_cmpuint(report.segments + report.blobs, ==, 0);
    three = publish(f->store, "three", 3);
    promote(f->store, three, "prod");
    report = sync_to(f->store, copy);
    g_assert_cmpuint(report.segments, ==, 1);
    assert_same(f->store, copy);
    /* An image that leaves here leaves there. */
    images = publish(f->store, "four", 4);
    sync_to(f->store, copy);
    g_assert_true(store_remove_image(f->store, images->pdata[0], NULL));
    sync_to(f->store, copy);
    assert_same(f->store, copy);
    /* The copy is a store: it goes on, and is copied itself. */
    other = test_store_open(copy, 0);
    promote(other, three, "test");
    write_journal(other, "web", 7, 3, &((StoreImage *)three->pdata[0])->id);
    sync_to(other, again);
    assert_same(other, again);
}

static void assert_refused(Store *from, const char *to, const char *why)
{
    g_autoptr(GError) error = NULL;
    StoreSyncReport report;

    g_assert_false(store_sync_all(from, to, &report, &error));
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, why));
}

/* What has images of its own is not written over, whether a copy once or never one. */
static void test_sync_spares(StoreFixture *f, gconstpointer data)
{
    g_autofree char *copy = g_build_filename(f->dir, "copy", NULL), *strange = g_build_filename(f->dir, "strange", NULL), *home = NULL;
    g_autoptr(GPtrArray) images = publish(f->store, "one", 1), more = NULL, own = NULL, strangers = NULL;
    g_autoptr(Store) other = test_store_open(strange, STORE_OPEN_CREATE), second = NULL;

    strangers = publish(other, "other", 5);
    assert_refused(f->store, strange, "another one");
    assert_refused(other, store_path(f->store), "another one");
    sync_to(f->store, copy);
    second = test_store_open(copy, 0);
    own = publish(second, "own", 2);
    more = publish(f->store, "more", 3);
    assert_refused(f->store, copy, "of its own");
    assert_refused(second, store_path(f->store), "of its own");
    g_assert_true(store_remove_image(f->store, more->pdata[0], NULL));
    home = g_strdup(store_path(f->store));
    sync_to(second, home); /* all that is there is in the copy, too */
    assert_same(second, home);
}

static void test_sync_refuses(StoreFixture *f, gconstpointer data)
{
    g_autofree char *copy = g_build_filename(f->dir, "copy", NULL), *before = NULL, *after = NULL;
    g_autoptr(GPtrArray) images = publish(f->store, "one", 1), more = NULL;
    g_autoptr(Store) other = NULL;

    assert_refused(f->store, store_path(f->store), "itself");
    sync_to(f->store, copy);
    other = test_store_open(copy, 0);
    promote(other, images, "prod");
    promote(f->store, images, "test");
    before = says(other);
    more = publish(f->store, "two", 2);
    assert_refused(f->store, copy, "no copy");
    after = says(other);
    g_assert_cmpstr(after, ==, before);
}

/* A damaged source gives nothing half: what was there before stays. */
static void test_sync_of_damage(StoreFixture *f, gconstpointer data)
{
    g_autofree char *copy = g_build_filename(f->dir, "copy", NULL), *before = NULL, *after = NULL;
    g_autoptr(GPtrArray) one = publish(f->store, "one", 1), two = NULL;

    sync_to(f->store, copy);
    before = says_at(copy);
    two = publish(f->store, "two", 2);
    shell(store_path(f->store), "cd \"$S\"/segments; for f in */*; do [ -e ../../copy/segments/$f ] || "
                                "printf x | dd of=$f bs=1 seek=9999 conv=notrunc status=none; done");
    assert_refused(f->store, copy, "damaged");
    after = says_at(copy);
    g_assert_cmpstr(after, ==, before);
    assert_clean(copy);
}

static void sync_killed(const char *from, const char *to, int at)
{
    g_autofree char *fault = g_strdup_printf("rename:%d:KILL", at);
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        Store *own = test_store_open(from, 0);

        g_setenv("KILN_TEST_FAIL", fault, TRUE);
        io_fault_reload();
        sync_to(own, to);
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
}

/* Killed at its second file again and again: each time a file further, and to be seen is what was there before, or in the end all of it. */
static void test_sync_resumes(StoreFixture *f, gconstpointer data)
{
    g_autofree char *copy = g_build_filename(f->dir, "copy", NULL), *before = NULL, *after = NULL, *path = NULL;
    g_autoptr(GPtrArray) one = publish(f->store, "one", 1);
    int rounds = 0, unseen = 0;

    sync_to(f->store, copy);
    before = says_at(copy);
    populate(f->store);
    after = says(f->store);
    path = close_store(f);
    for (bool whole = false; !whole; rounds++) {
        g_autofree char *now = NULL;

        g_assert_cmpint(rounds, <, 20);
        sync_killed(path, copy, 2);
        now = says_at(copy);
        whole = strcmp(now, after) == 0;
        unseen += strcmp(now, before) == 0;
        g_assert_true(whole || strcmp(now, before) == 0);
        assert_clean(copy);
    }
    g_assert_cmpint(unseen, >=, 2);
    f->store = test_store_open(path, 0);
    g_assert_cmpuint(sync_to(f->store, copy).segments, ==, 0);
    assert_same(f->store, copy);
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/ledger/" name, StoreFixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    ADD("a-lost-state-comes-back", test_lost_state);
    ADD("a-lost-catalog-comes-back", test_lost_catalog);
    ADD("both-lost-and-the-head-come-back", test_lost_both);
    ADD("damaged-databases-come-back", test_damaged);
    ADD("a-rebuilt-store-goes-on", test_goes_on);
    ADD("many-changes-make-a-short-chain", test_short_chain);
    ADD("a-killed-promotion-is-followed", test_follows_a_kill);
    ADD("an-older-state-is-told", test_older_state);
    ADD("sync-copies-what-is-new", test_sync);
    ADD("sync-refuses-what-is-no-copy", test_sync_refuses);
    ADD("sync-spares-what-has-its-own", test_sync_spares);
    ADD("sync-takes-nothing-damaged", test_sync_of_damage);
    ADD("sync-goes-on-after-a-kill", test_sync_resumes);
    return g_test_run();
}
