/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels and what they ask for, revocation and lineage, signatures, the audit.
 */
#include "tests/unit/store-support.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void add_image(Store *store, GPtrArray *images, const char *name, const char *kind, int seed)
{
    g_autofree char *config = g_strdup_printf("{\"kind\":\"%s\",\"seed\":%d}", kind, seed);
    StoreImage *image = store_image_new(kind, name);

    g_assert_true(store_blob_put(store, config, strlen(config), &image->id, NULL) && store_blob_put(store, "m", 1, &image->manifest, NULL));
    g_ptr_array_add(images, image);
}

/* A set of both kinds, or of a container image alone; borrowed images live as long as the test. */
static GPtrArray *publish(Store *store, const char *name, int seed, bool both, GPtrArray *parents, bool tested)
{
    GPtrArray *images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(GArray) ids = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(json_t) provenance = tested ? json_pack("{s:[{s:s}]}", "tests", "test", "nginx") : json_pack("{s:[]}", "tests");
    StoreSet set = {.name = name, .images = images, .provenance = provenance, .parents = ids};
    g_autoptr(GError) error = NULL;

    if (both)
        add_image(store, images, name, "disk", seed);
    add_image(store, images, name, "oci", seed);
    for (guint i = 0; parents && i < parents->len; i++)
        g_array_append_val(ids, ((StoreImage *)parents->pdata[i])->id);
    if (parents)
        set.parent = ((StoreImage *)parents->pdata[0])->id;
    store_publish(store, &set, &error);
    g_assert_no_error(error);
    return images;
}

static const Digest *id_of(GPtrArray *images, guint index)
{
    return &((StoreImage *)images->pdata[index])->id;
}

static void assert_says(const GError *error, const char *says)
{
    g_assert_nonnull(error);
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, says));
}

static void promote(Store *store, GPtrArray *images, const char *channel)
{
    StorePromotion promotion = {.name = "web", .channel = channel, .images = images};
    g_autoptr(GError) error = NULL;

    store_promote(store, &promotion, NULL, &error);
    g_assert_no_error(error);
}

static void assert_refused(Store *store, const StorePromotion *promotion, const char *says)
{
    g_autoptr(GPtrArray) before = NULL, after = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(store_channels(store, NULL, true, &before, NULL));
    g_assert_false(store_promote(store, promotion, NULL, &error));
    assert_says(error, says);
    g_assert_true(store_channels(store, NULL, true, &after, NULL));
    g_assert_cmpuint(before->len, ==, after->len);
}

static void assert_points(Store *store, const char *ref, const Digest *id)
{
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;

    store_resolve(store, ref, NULL, &image, &error);
    g_assert_no_error(error);
    g_assert_true(digest_equal(&image->id, id));
}

static void assert_whole(Store *store)
{
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);

    g_assert_true(store_audit_verify(store, NULL, problems, NULL, NULL));
    for (guint i = 0; i < problems->len; i++)
        g_test_message("%s", (char *)problems->pdata[i]);
    g_assert_cmpuint(problems->len, ==, 0);
}

static void test_both_kinds_move(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) one = publish(f->store, "web", 1, true, NULL, false), two = publish(f->store, "web", 2, true, NULL, false), log = NULL;
    StorePromotion promotion = {.name = "web", .channel = "prod", .images = two, .why = {"it is better", "bob"}};
    const StoreChannelEntry *entry;
    bool moved = false;

    promote(f->store, one, "prod");
    g_assert_true(store_promote(f->store, &promotion, &moved, NULL) && moved);
    assert_points(f->store, "web/disk:prod", id_of(two, 0));
    assert_points(f->store, "web/oci:prod", id_of(two, 1));
    moved = false;
    g_assert_true(store_promote(f->store, &promotion, &moved, NULL) && !moved);
    g_assert_true(store_channels(f->store, "web", true, &log, NULL));
    g_assert_cmpuint(log->len, ==, 4);
    entry = log->pdata[2];
    g_assert_true(digest_equal(&entry->from, id_of(one, 0)) && digest_equal(&entry->image, id_of(two, 0)));
    g_assert_cmpstr(entry->note, ==, "it is better");
    g_assert_cmpstr(entry->on_behalf_of, ==, "bob");
    g_assert_cmpstr(entry->who, !=, "bob");
    assert_whole(f->store);
}

static void test_expect(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) one = publish(f->store, "web", 1, true, NULL, false), two = publish(f->store, "web", 2, true, NULL, false);
    char hex[DIGEST_HEX_SIZE], oci[DIGEST_OCI_SIZE];
    StorePromotion promotion = {.name = "web", .channel = "prod", .images = one, .expect = "none"};

    promotion.expect = digest_to_oci(id_of(two, 0), oci);
    assert_refused(f->store, &promotion, "points at nothing, not at sha256:");
    promotion.expect = "none";
    g_assert_true(store_promote(f->store, &promotion, NULL, NULL));
    promotion.images = two;
    assert_refused(f->store, &promotion, "points at disk sha256:");
    promotion.expect = oci;
    assert_refused(f->store, &promotion, "not at sha256:");
    digest_to_hex(id_of(one, 1), hex);
    hex[12] = '\0';
    promotion.expect = hex;
    g_assert_true(store_promote(f->store, &promotion, NULL, NULL));
    hex[11] = '\0';
    assert_refused(f->store, &promotion, "12 or more");
    promotion.expect = "web:prod";
    assert_refused(f->store, &promotion, "an image ID");
}

static void test_bad_words(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) one = publish(f->store, "web", 1, false, NULL, false);
    g_autofree char *longer = g_strnfill(1025, 'a');
    static const char *const bad[] = {"", "two\nlines", "\x1b[31m", "w\xff"};
    StorePromotion promotion = {.name = "web", .channel = "prod", .images = one};

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        promotion.why = (StoreWhy){.reason = bad[i]};
        assert_refused(f->store, &promotion, "a reason is");
        promotion.why = (StoreWhy){.on_behalf_of = bad[i]};
        assert_refused(f->store, &promotion, "on behalf of is");
    }
    promotion.why = (StoreWhy){.reason = longer};
    assert_refused(f->store, &promotion, "a reason is");
    promotion.why = (StoreWhy){.reason = "gr\xc3\xbc\xc3\x9f"};
    g_assert_true(store_promote(f->store, &promotion, NULL, NULL));
    assert_whole(f->store);
}

static GPtrArray *previous(Store *store, const char *kind)
{
    GPtrArray *images = NULL;
    g_autoptr(GError) error = NULL;

    store_channel_previous(store, "web", kind, "prod", &images, &error);
    g_assert_no_error(error);
    return images;
}

static void test_way_back(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) one = publish(f->store, "web", 1, true, NULL, false), two = publish(f->store, "web", 2, true, NULL, false),
                         three = publish(f->store, "web", 3, false, NULL, false), back = NULL, only = NULL;
    g_autoptr(GPtrArray) none = NULL;
    g_autoptr(GError) error = NULL;
    StorePromotion promotion = {.name = "web", .channel = "prod", .back = true};

    g_assert_false(store_channel_previous(f->store, "web", NULL, "prod", &none, &error));
    assert_says(error, "never promoted");
    g_clear_error(&error);
    promote(f->store, one, "prod");
    g_assert_false(store_channel_previous(f->store, "web", NULL, "prod", &none, &error));
    assert_says(error, "pointed at no");
    promote(f->store, two, "prod");
    back = previous(f->store, NULL);
    g_assert_cmpuint(back->len, ==, 2);
    promotion.images = back;
    g_assert_true(store_promote(f->store, &promotion, NULL, NULL));
    assert_points(f->store, "web/disk:prod", id_of(one, 0));
    assert_points(f->store, "web/oci:prod", id_of(one, 1));
    /* Only what moved last goes back. */
    promote(f->store, three, "prod");
    only = previous(f->store, NULL);
    g_assert_cmpuint(only->len, ==, 1);
    g_assert_true(digest_equal(id_of(only, 0), id_of(one, 1)));
    g_clear_pointer(&only, g_ptr_array_unref);
    only = previous(f->store, "disk");
    g_assert_true(digest_equal(id_of(only, 0), id_of(two, 0)));
    /* Entries of an earlier version do not say what moved together: those of one second did. */
    test_state_sql(f->store, "UPDATE channel_log SET extra = NULL, at = 1000 + (number - 1) / 2");
    test_state_sql(f->store, "DELETE FROM channel_log WHERE number > 4");
    g_clear_pointer(&only, g_ptr_array_unref);
    only = previous(f->store, NULL);
    g_assert_cmpuint(only->len, ==, 2);
    g_assert_true(digest_equal(id_of(only, 0), id_of(one, 1)) && digest_equal(id_of(only, 1), id_of(one, 0)));
}

static void set_rules(Store *store, const char *channel, StoreChannelRules rules)
{
    StoreWhy why = {.reason = NULL};
    g_autoptr(GError) error = NULL;

    store_channel_set_rules(store, "web", channel, &rules, &why, &error);
    g_assert_no_error(error);
}

static void test_rules(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) raw = publish(f->store, "web", 1, true, NULL, false), tested = publish(f->store, "web", 2, true, NULL, true), rules = NULL,
                         back = NULL;
    StorePromotion promotion = {.name = "web", .channel = "prod", .images = raw};
    StoreChannelRules read;

    promote(f->store, raw, "prod");
    set_rules(f->store, "prod", (StoreChannelRules){.reason = true, .test = true, .from = "staging"});
    set_rules(f->store, "other", (StoreChannelRules){.reason = true});
    set_rules(f->store, "other", (StoreChannelRules){.reason = false});
    g_assert_true(store_channel_rules(f->store, "web", &rules, NULL));
    g_assert_cmpuint(rules->len, ==, 1);
    store_channel_rules_read(((StoreChannelEntry *)rules->pdata[0])->rules, &read);
    g_assert_true(read.reason && read.test && strcmp(read.from, "staging") == 0);

    g_assert_true(store_promote(f->store, &promotion, NULL, NULL)); /* it stands there already */
    promotion.images = tested;
    assert_refused(f->store, &promotion, "asks for a reason");
    promotion.why.reason = "because";
    assert_refused(f->store, &promotion, "takes only what was in 'web:staging'");
    promote(f->store, tested, "staging");
    g_assert_true(store_promote(f->store, &promotion, NULL, NULL));
    promote(f->store, raw, "staging");
    promotion.images = raw;
    assert_refused(f->store, &promotion, "asks for a passed test");
    /* Back to where it was: with a reason, and without what it did not have then. */
    back = previous(f->store, NULL);
    promotion = (StorePromotion){.name = "web", .channel = "prod", .images = back, .back = true};
    assert_refused(f->store, &promotion, "asks for a reason");
    promotion.why.reason = "it is slow";
    g_assert_true(store_promote(f->store, &promotion, NULL, NULL));
    assert_points(f->store, "web/disk:prod", id_of(raw, 0));
    g_assert_false(store_channel_set_rules(f->store, "web", "prod", &(StoreChannelRules){.from = "prod"}, &promotion.why, NULL));
}

/* What was tested once stays tested: under another name, and when it is published anew. */
static void test_proof_stays(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) tested = publish(f->store, "web", 1, false, NULL, true), copy = publish(f->store, "copy", 1, false, NULL, false);
    g_autoptr(json_t) tests = NULL, none = NULL;

    g_assert_true(store_image_tests(f->store, id_of(copy, 0), &tests, NULL));
    g_assert_cmpuint(json_array_size(tests), ==, 1);
    g_assert_true(store_image_tests(f->store, id_of(tested, 0), &none, NULL));
    g_assert_true(json_equal(tests, none));
}

/* --- revocation --- */

static void test_lineage(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) base = publish(f->store, "base", 1, true, NULL, false), web = publish(f->store, "web", 2, true, base, false),
                         shop = publish(f->store, "shop", 3, false, web, false), other = publish(f->store, "other", 4, true, NULL, false),
                         list = NULL;
    g_autoptr(GPtrArray) half = g_ptr_array_new();
    g_auto(StoreRevocation) revocation = {.revoked = false};
    StorePromotion promotion = {.name = "shop", .channel = "prod", .images = shop};
    StoreWhy why = {.reason = NULL};
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(store_revoke(f->store, base, &why, false, &error));
    assert_says(error, "needs a reason");
    g_assert_true(store_descendants(f->store, id_of(base, 0), &list, NULL));
    g_assert_cmpuint(list->len, ==, 3);
    g_assert_cmpstr(((StoreImage *)list->pdata[0])->name, ==, "shop");
    g_assert_true(store_revocation(f->store, id_of(shop, 0), &revocation, NULL) && !revocation.revoked);
    /* The one in between is gone; the line is not. */
    g_assert_true(store_remove_image(f->store, web->pdata[0], NULL) && store_remove_image(f->store, web->pdata[1], NULL));
    why.reason = "it leaks";
    g_ptr_array_add(half, base->pdata[1]);
    g_assert_true(store_revoke(f->store, half, &why, false, NULL));
    g_assert_true(store_revocation(f->store, id_of(shop, 0), &revocation, NULL));
    g_assert_true(revocation.revoked && !revocation.stop && digest_equal(&revocation.because, id_of(base, 1)));
    g_assert_cmpstr(revocation.reason, ==, "it leaks");
    assert_refused(f->store, &promotion, "was baked from sha256:");
    g_assert_true(store_revoked(f->store, id_of(other, 0), &text, NULL) && !text);
    g_assert_true(store_revoked(f->store, id_of(base, 0), &text, NULL) && !text);
}

static void test_stop(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) base = publish(f->store, "base", 1, false, NULL, false), web = publish(f->store, "web", 2, false, base, false);
    g_auto(StoreRevocation) revocation = {.revoked = false};
    StoreWhy soft = {.reason = "old"}, hard = {.reason = "stolen key"};

    g_assert_true(store_revoke(f->store, web, &soft, false, NULL));
    g_assert_true(store_revoke(f->store, base, &hard, true, NULL));
    g_assert_true(store_revoke(f->store, base, &soft, false, NULL));
    g_assert_true(store_revocation(f->store, id_of(web, 0), &revocation, NULL));
    g_assert_true(revocation.stop && digest_equal(&revocation.because, id_of(base, 0)));
    g_assert_cmpstr(revocation.reason, ==, "stolen key");
    assert_whole(f->store);
}

/* An image that is its own ancestor, by a bake that changed nothing. */
static void test_loops(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) one = publish(f->store, "one", 1, false, NULL, false), two = publish(f->store, "two", 2, false, one, false),
                         again = publish(f->store, "again", 1, false, two, false), list = NULL;
    g_auto(StoreRevocation) revocation = {.revoked = false};

    g_assert_true(store_descendants(f->store, id_of(one, 0), &list, NULL));
    g_assert_cmpuint(list->len, ==, 1);
    g_assert_true(store_revocation(f->store, id_of(again, 0), &revocation, NULL) && !revocation.revoked);
}

/* --- the chain --- */

static void test_tampering(StoreFixture *f, gconstpointer data)
{
    static const struct {
        const char *sql, *says;
    } cases[] = {
        {"UPDATE channel_log SET note = 'x' WHERE number = 2", "entry 2"},
        {"UPDATE channel_log SET note = x'ff' WHERE number = 2", "entry 2"},
        {"UPDATE channel_log SET who = NULL WHERE number = 1", "entry 1"},
        {"UPDATE channel_log SET extra = NULL WHERE number = 2", "entry 2"},
        {"UPDATE channel_log SET extra = '{}' WHERE number = 1", "entry 1"},
        {"UPDATE channel_log SET extra = '{' WHERE number = 2", "entry 2"},
        {"UPDATE channel_log SET image = NULL WHERE number = 2", "entry 2"},
        {"DELETE FROM channel_log WHERE number = 1", "entry 2"},
        {"DELETE FROM channel_log WHERE number = 3", "record 3 of the channel log was taken"},
    };
    g_autoptr(GPtrArray) one = publish(f->store, "web", 1, false, NULL, false), two = publish(f->store, "web", 2, false, NULL, false);

    promote(f->store, one, "prod");
    promote(f->store, two, "prod");
    promote(f->store, two, "next");
    test_state_sql(f->store, "CREATE TABLE kept AS SELECT * FROM channel_log");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);

        test_state_sql(f->store, cases[i].sql);
        g_assert_true(store_channels_verify(f->store, problems, NULL));
        g_assert_cmpuint(problems->len, >, 0);
        g_test_message("%s: %s", cases[i].sql, (char *)problems->pdata[0]);
        g_assert_nonnull(strstr(problems->pdata[0], cases[i].says));
        test_state_sql(f->store, "DELETE FROM channel_log; INSERT INTO channel_log SELECT * FROM kept");
        assert_whole(f->store);
    }
    test_state_sql(f->store, "DROP TABLE kept");
}

/* --- signatures --- */

static SignatureKey *make_key(StoreFixture *f, const char *name, char **ret_path)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);
    g_autoptr(GError) error = NULL;
    SignatureKey *key = NULL;

    signature_generate(path, &error);
    g_assert_no_error(error);
    signature_load(path, &key, &error);
    g_assert_no_error(error);
    *ret_path = g_steal_pointer(&path);
    return key;
}

static void test_keys(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = NULL, *public_path = NULL, *junk = g_build_filename(f->dir, "junk", NULL);
    g_autoptr(SignatureKey) key = make_key(f, "key", &path), public = NULL, none = NULL;
    uint8_t signature[SIGNATURE_SIZE];
    g_autoptr(GError) error = NULL;
    struct stat info;
    Digest one, other;

    public_path = g_strconcat(path, ".pub", NULL);
    g_assert_true(signature_load_public(public_path, &public, NULL));
    signature_key_id(key, &one);
    signature_key_id(public, &other);
    g_assert_true(digest_equal(&one, &other));
    g_assert_true(signature_sign(key, "text", 4, signature, NULL));
    g_assert_true(signature_verify(public, "text", 4, signature, sizeof(signature)));
    g_assert_false(signature_verify(public, "texT", 4, signature, sizeof(signature)));
    g_assert_false(signature_verify(public, "text", 4, signature, sizeof(signature) - 1));
    signature[7] ^= 1;
    g_assert_false(signature_verify(public, "text", 4, signature, sizeof(signature)));
    g_assert_true(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
    g_assert_false(signature_generate(path, &error)); /* never over a key */
    assert_says(error, "File exists");
    g_clear_error(&error);
    g_assert_false(signature_load(public_path, &none, &error));
    assert_says(error, "can be read by others");
    g_clear_error(&error);
    g_assert_cmpint(chmod(public_path, 0600), ==, 0);
    g_assert_false(signature_load(public_path, &none, &error));
    assert_says(error, "no private key");
    g_clear_error(&error);
    g_assert_true(g_file_set_contents(junk, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", -1, NULL));
    g_assert_false(signature_load_public(junk, &none, &error));
    assert_says(error, "no public key");
}

static void test_image_signatures(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = NULL, *other_path = NULL;
    g_autoptr(SignatureKey) key = make_key(f, "key", &path), other = make_key(f, "other", &other_path);
    g_autoptr(GPtrArray) images = publish(f->store, "web", 1, true, NULL, false), signatures = NULL, changed = NULL;

    g_assert_true(store_sign_images(f->store, images, key, NULL) && store_sign_images(f->store, images, key, NULL));
    g_assert_true(store_signatures(f->store, id_of(images, 0), &signatures, NULL));
    g_assert_cmpuint(signatures->len, ==, 1);
    g_assert_true(store_signature_check(signatures->pdata[0], key));
    g_assert_false(store_signature_check(signatures->pdata[0], other));
    test_state_sql(f->store, "UPDATE signature SET who = 'eve'");
    g_assert_true(store_signatures(f->store, id_of(images, 0), &changed, NULL));
    g_assert_false(store_signature_check(changed->pdata[0], key));
}

static void assert_heads(StoreFixture *f, const SignatureKey *key, unsigned checked, const char *says)
{
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);
    unsigned count = 0;
    bool found = false;

    g_assert_true(store_heads_verify(f->store, key, problems, &count, NULL));
    for (guint i = 0; i < problems->len; i++) {
        g_test_message("%s", (char *)problems->pdata[i]);
        found |= says && strstr(problems->pdata[i], says);
    }
    g_assert_cmpuint(count, ==, checked);
    g_assert_true(says ? found : problems->len == 0);
}

static void record(Store *store, const char *text)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    g_autoptr(StoreJournal) journal = NULL;
    g_autoptr(GError) error = NULL;
    json_t *one = NULL;

    g_assert_true(json_parse(text, strlen(text), 65536, "a record", &one, NULL));
    g_ptr_array_add(records, one);
    g_assert_true(store_journal_open(store, "web", false, &journal, NULL));
    store_journal_append(journal, records, NULL, &error);
    g_assert_no_error(error);
}

static void test_signed_heads(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = NULL;
    g_autoptr(SignatureKey) key = make_key(f, "key", &path);
    g_autoptr(GPtrArray) one = publish(f->store, "web", 1, false, NULL, false), two = publish(f->store, "web", 2, false, NULL, false), heads = NULL;

    promote(f->store, one, "prod");
    record(f->store, "{\"do\":\"begin\"}");
    g_assert_true(store_sign_heads(f->store, key, &heads, NULL));
    g_assert_cmpuint(heads->len, ==, 2);
    promote(f->store, two, "prod");
    record(f->store, "{\"do\":\"stable\"}");
    g_assert_true(store_sign_heads(f->store, key, NULL, NULL) && store_sign_heads(f->store, key, NULL, NULL));
    assert_heads(f, key, 4, NULL);
    assert_heads(f, NULL, 0, NULL);
    test_state_sql(f->store, "CREATE TABLE kept AS SELECT * FROM journal; CREATE TABLE signed AS SELECT * FROM signature;"
           "DELETE FROM journal WHERE number = 2; UPDATE sqlite_sequence SET seq = 1 WHERE name = 'journal'");
    assert_heads(f, key, 4, "record 2 of group/web, which a signed head names, is gone");
    record(f->store, "{\"do\":\"something else\"}"); /* and a new end, whose chain is whole */
    assert_heads(f, NULL, 0, "record 2 of group/web is not the one");
    test_state_sql(f->store, "DELETE FROM journal; INSERT INTO journal SELECT * FROM kept; UPDATE signature SET at = at + 1 WHERE log = 'channels'");
    assert_heads(f, key, 4, "the signature of record 1 of channels is not valid");
    test_state_sql(f->store, "DELETE FROM signature; INSERT INTO signature SELECT * FROM signed; DELETE FROM signature WHERE number = 4");
    assert_heads(f, key, 3, "record 4 of the signatures was taken away");
    test_state_sql(f->store, "DROP TABLE kept; DROP TABLE signed");
}

/* --- the audit --- */

static json_t *audit(Store *store, StoreAuditFilter filter)
{
    g_autoptr(GError) error = NULL;
    json_t *rows = NULL;

    store_audit(store, &filter, &rows, &error);
    g_assert_no_error(error);
    return rows;
}

static const char *text_of(const json_t *rows, size_t index, const char *key)
{
    return json_string_value(json_object_get(json_array_get(rows, index), key));
}

static void test_audit(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) one = publish(f->store, "web", 1, false, NULL, true), two = publish(f->store, "web", 2, false, NULL, false);
    g_autofree char *begin = NULL;
    g_autoptr(json_t) rows = NULL, group = NULL, image = NULL, later = NULL;
    g_autoptr(GArray) ids = g_array_new(FALSE, FALSE, sizeof(Digest));
    char oci[DIGEST_OCI_SIZE];

    promote(f->store, one, "prod");
    promote(f->store, two, "prod");
    test_state_sql(f->store, "UPDATE channel_log SET at = 1000 + number");
    begin = g_strdup_printf("{\"do\":\"begin\",\"revision\":1,\"image\":\"%s\",\"plan\":\"sha256:77\",\"reason\":\"news\",\"on_behalf_of\":\"bob\"}",
                            digest_to_oci(id_of(one, 0), oci));
    record(f->store, begin);
    record(f->store, "{\"do\":\"intent\",\"act\":\"create\"}");
    record(f->store, "{\"do\":\"stable\",\"revision\":1}");
    record(f->store, "{\"do\":\"begin\",\"revision\":2,\"image\":7}"); /* of no type that we know */
    record(f->store, "{\"do\":\"failed\",\"revision\":2,\"cause\":\"health\"}");
    record(f->store, "{\"do\":\"returned\",\"revision\":2}");
    record(f->store, "{\"do\":\"begin\",\"revision\":3}");
    record(f->store, "{\"do\":\"verb\",\"verb\":\"scale\",\"arguments\":{\"size\":4},\"on_behalf_of\":\"ann\"}");
    record(f->store, "{\"do\":\"begin\",\"revision\":4}");
    record(f->store, "{\"do\":[]}");
    rows = audit(f->store, (StoreAuditFilter){.since = 0});
    g_assert_cmpuint(json_array_size(rows), ==, 7);
    g_assert_cmpstr(text_of(rows, 0, "what"), ==, "promote");
    g_assert_cmpstr(text_of(rows, 0, "to"), ==, "1970-01-01T00:16:42Z");
    g_assert_null(text_of(rows, 1, "to"));
    g_assert_cmpstr(text_of(rows, 1, "from_image"), ==, oci);
    g_assert_cmpuint(json_array_size(json_object_get(json_array_get(rows, 0), "tests")), ==, 1);
    g_assert_cmpstr(text_of(rows, 2, "outcome"), ==, "stable");
    g_assert_cmpstr(text_of(rows, 2, "on_behalf_of"), ==, "bob");
    g_assert_cmpstr(text_of(rows, 2, "plan"), ==, "sha256:77");
    g_assert_cmpuint(json_array_size(json_object_get(json_array_get(rows, 2), "tests")), ==, 1);
    g_assert_nonnull(text_of(rows, 2, "to"));
    g_assert_cmpstr(text_of(rows, 3, "outcome"), ==, "rolled back");
    g_assert_cmpstr(text_of(rows, 3, "cause"), ==, "health");
    g_assert_cmpstr(text_of(rows, 4, "outcome"), ==, "superseded");
    g_assert_cmpstr(text_of(rows, 5, "verb"), ==, "scale");
    g_assert_cmpstr(text_of(rows, 6, "outcome"), ==, "running");
    group = audit(f->store, (StoreAuditFilter){.group = "web"});
    g_assert_cmpuint(json_array_size(group), ==, 5);
    g_array_append_val(ids, *id_of(one, 0));
    image = audit(f->store, (StoreAuditFilter){.images = ids});
    g_assert_cmpuint(json_array_size(image), ==, 3); /* promoted, replaced, rolled out */
    later = audit(f->store, (StoreAuditFilter){.since = 1002});
    g_assert_cmpuint(json_array_size(later), ==, 7);
    json_decref(g_steal_pointer(&later));
    later = audit(f->store, (StoreAuditFilter){.since = 1003});
    g_assert_cmpuint(json_array_size(later), ==, 5);
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/channel/" name, StoreFixture, NULL, store_fixture_setup, fn, store_fixture_teardown)
    ADD("both-kinds-move-at-once", test_both_kinds_move);
    ADD("compare-and-set", test_expect);
    ADD("bad-words-are-refused", test_bad_words);
    ADD("way-back", test_way_back);
    ADD("rules", test_rules);
    ADD("proof-of-tests-stays", test_proof_stays);
    ADD("revocation-reaches-descendants", test_lineage);
    ADD("stop-is-told-first", test_stop);
    ADD("own-ancestors", test_loops);
    ADD("tampering-is-found", test_tampering);
    ADD("keys", test_keys);
    ADD("signed-images", test_image_signatures);
    ADD("signed-heads-find-truncation", test_signed_heads);
    ADD("audit", test_audit);
    return g_test_run();
}
