/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock files: what is a whole transaction, and what people and merges make of it.
 */
#include "baker/bake-lock.h"
#include "baker/resolve-parts.h"

#include <string.h>

#define SEED "tests/data/fuzz/fuzz-lock/web.json"

/* The seed's transaction, with @from replaced by @to. */
static json_t *edited(const char *from, const char *to)
{
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "..", "..", SEED, NULL), *text = NULL, *joined = NULL;
    g_autoptr(json_t) transactions = NULL;
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) parts = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    parts = g_strsplit(text, from, -1);
    g_assert_nonnull(parts[1]);
    joined = g_strjoinv(to, parts);
    (void)bake_lock_parse(joined, strlen(joined), "web.lock", "web", &transactions, &error);
    g_assert_no_error(error);
    return json_incref(json_object_get(transactions, "1"));
}

static void assert_sound(const char *from, const char *to, bool sound)
{
    g_autoptr(json_t) transaction = edited(from, to);

    g_test_message("%s -> %s", from, to);
    g_assert_cmpint(resolve_lock_is_sound(transaction), ==, sound);
}

static void test_whole(void)
{
    assert_sound("\"app\"", "\"app\"", true);
    assert_sound("\"nginx-light\"", "\"libstdc++6:i386\"", true);
}

static void test_edited(void)
{
    static const char *const edits[][2] = {
        {"[\"libc6\"]", "[7]"}, {"[\"libc6\"]", "[null]"}, {"[\"libc6\"]", "[\"--force-all\"]"}, {"[\"libc6\"]", "7"},
        {"\"unpack\",0", "\"unpack\",1"}, {"\"unpack\",0", "\"unpack\",-1"}, {"\"unpack\"", "\"install\""},
        {"\"purge\",\"app\"", "\"purge\",\"--no-triggers\""}, {"\"architecture\":\"all\"", "\"architecture\":\"all\\nPackage: x\""},
        {"\"version\":\"1.22.1-9\"", "\"version\":[]"}, {"\"sha256\":\"0", "\"sha256\":\"x"}, {"\"manager\":\"apt\"", "\"manager\":\"apk\""},
        {"\"name\":\"app\"", "\"name\":{}"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(edits); i++)
        assert_sound(edits[i][0], edits[i][1], false);
}

static void refused(const char *text, const char *fragment)
{
    g_autoptr(json_t) transactions = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(bake_lock_parse(text, strlen(text), "web.lock", "web", &transactions, &error));
    g_assert_nonnull(strstr(error->message, fragment));
}

static void test_no_lock(void)
{
    refused("{\"kiln_lock\":2,\"builds\":{}}", "'web.lock' is no lock file of this version of kiln");
    refused("[]", "'web.lock' is no lock file");
    refused("{\"kiln_lock\":1,\"builds\":{\"other\":{}}}", "says nothing of build 'web'");
    refused("<<<<<<< HEAD\n{}", "web.lock");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/lock/a-whole-transaction", test_whole);
    g_test_add_func("/lock/edits-are-refused", test_edited);
    g_test_add_func("/lock/what-is-no-lock-file", test_no_lock);
    return g_test_run();
}
