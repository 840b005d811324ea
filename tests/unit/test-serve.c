/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts that `kiln serve` gets from strangers, and its file of users: what needs no connection. The rest is asked by tests/cli/79-serve.sh.
 */
#include "store/serve-auth.h"
#include "store/serve-target.h"

#include "base/checksum.h"

#include <string.h>

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void expect_target(const char *raw, ServeEndpoint endpoint, const char *name, const char *reference, const char *code)
{
    g_auto(ServeTarget) target = {.endpoint = SERVE_NOWHERE};

    serve_target_parse(raw, &target);
    g_assert_cmpint(target.endpoint, ==, endpoint);
    g_assert_cmpstr(target.code, ==, code);
    if (!code) {
        g_assert_cmpstr(target.name, ==, name);
        g_assert_cmpstr(target.reference, ==, reference);
    }
}

static void test_paths(void)
{
    expect_target("/v2/", SERVE_BASE, NULL, NULL, NULL);
    expect_target("/v2", SERVE_BASE, NULL, NULL, NULL);
    expect_target("/v2/_catalog?n=3", SERVE_CATALOG, NULL, NULL, NULL);
    expect_target("/v2/a/tags/list", SERVE_TAGS, "a", NULL, NULL);
    expect_target("/v2/a/b-c/d__e/manifests/v1.0_x", SERVE_MANIFEST, "a/b-c/d__e", "v1.0_x", NULL);
    expect_target("/v2/a/manifests/sha256:" HEX64, SERVE_MANIFEST, "a", "sha256:" HEX64, NULL);
    expect_target("/v2/a/blobs/sha256%3A" HEX64, SERVE_BLOB, "a", "sha256:" HEX64, NULL);
    expect_target("/v2/a/blobs/sha512:" HEX64 HEX64, SERVE_BLOB, "a", "sha512:" HEX64 HEX64, NULL);
    expect_target("/v2/a/blobs/uploads/", SERVE_UPLOADS, "a", "", NULL);
    expect_target("/v2/a/blobs/uploads", SERVE_UPLOADS, "a", NULL, NULL);
    expect_target("/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef", SERVE_UPLOAD, "a", "0123456789abcdef0123456789abcdef", NULL);
    expect_target("/v2/a/referrers/sha256:" HEX64, SERVE_REFERRERS, "a", "sha256:" HEX64, NULL);
    expect_target("/metrics", SERVE_METRICS, NULL, NULL, NULL);
    expect_target("/v3/", SERVE_NOWHERE, NULL, NULL, NULL);
    expect_target("*", SERVE_NOWHERE, NULL, NULL, NULL);
    expect_target("http://host:5000/v2/a/tags/list?n=1", SERVE_TAGS, "a", NULL, NULL);
    expect_target("HTTPS://host", SERVE_NOWHERE, NULL, NULL, NULL);
    expect_target("", SERVE_NOWHERE, NULL, NULL, NULL);
}

static void test_a_name_may_have_components_of_the_api(void)
{
    expect_target("/v2/blobs/manifests/tags/manifests/list", SERVE_MANIFEST, "blobs/manifests/tags", "list", NULL);
    expect_target("/v2/tags/list/tags/list", SERVE_TAGS, "tags/list", NULL, NULL);
    expect_target("/v2/blobs/uploads/blobs/uploads/", SERVE_UPLOADS, "blobs/uploads", "", NULL);
}

static void test_tricks_are_refused(void)
{
    static const char *const names[] = {"/v2/../tags/list",     "/v2/a/../tags/list", "/v2/A/tags/list",  "/v2/a//b/tags/list", "/v2/.a/tags/list",
                                        "/v2/a-/tags/list",     "/v2/a..b/tags/list", "/v2/a___b/tags/list", "/v2/-a/tags/list", "/v2/a/%2e%2e/tags/list",
                                        "/v2/a%2fb/tags/list",  "/v2/a%00/tags/list", "/v2/a%/tags/list", "/v2/a%4/tags/list",  "/v2/a%zz/tags/list",
                                        "/v2/a%0d%0ax/tags/list", "/v2/a\x80/tags/list"};

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_auto(ServeTarget) target = {.endpoint = SERVE_NOWHERE};

        serve_target_parse(names[i], &target);
        g_assert_cmpstr(target.code, ==, "NAME_INVALID");
    }
    expect_target("/v2/a/blobs/sha256:abc", SERVE_BLOB, NULL, NULL, "DIGEST_INVALID");
    expect_target("/v2/a/manifests/-a", SERVE_MANIFEST, NULL, NULL, "MANIFEST_INVALID");
    expect_target("/v2/a/blobs/uploads/..", SERVE_UPLOAD, NULL, NULL, "BLOB_UPLOAD_UNKNOWN");
    expect_target("/v2/a/tags/list?last=%00", SERVE_TAGS, NULL, NULL, "UNSUPPORTED");
}

static void test_long_names(void)
{
    g_autofree char *name = g_strnfill(SERVE_NAME_MAX, 'a'), *longer = g_strnfill(SERVE_NAME_MAX + 1, 'a'), *tag = g_strnfill(SERVE_TAG_MAX + 1, 'a');

    g_assert_true(serve_name_is_valid(name));
    g_assert_false(serve_name_is_valid(longer));
    g_assert_false(serve_tag_is_valid(tag));
    g_assert_true(serve_tag_is_valid(tag + 1));
    g_assert_false(serve_tag_is_valid(""));
}

static void test_queries(void)
{
    g_auto(ServeTarget) target = {.endpoint = SERVE_NOWHERE};

    serve_target_parse("/v2/a/tags/list?n=1&last=b%2Bc+d&&flag&n=2", &target);
    g_assert_null(target.code);
    g_assert_cmpstr(serve_target_query(&target, "n"), ==, "1");
    g_assert_cmpstr(serve_target_query(&target, "last"), ==, "b+c d");
    g_assert_cmpstr(serve_target_query(&target, "flag"), ==, "");
    g_assert_null(serve_target_query(&target, "other"));
}

static void expect_range(const char *text, uint64_t size, ServeRangeKind kind, uint64_t first, uint64_t last)
{
    uint64_t have_first = 0, have_last = 0;

    g_assert_cmpint(serve_range_parse(text, size, &have_first, &have_last), ==, kind);
    if (kind == SERVE_RANGE_PART) {
        g_assert_cmpuint(have_first, ==, first);
        g_assert_cmpuint(have_last, ==, last);
    }
}

static void test_ranges(void)
{
    expect_range("bytes=0-0", 10, SERVE_RANGE_PART, 0, 0);
    expect_range("bytes=3-", 10, SERVE_RANGE_PART, 3, 9);
    expect_range("bytes=-3", 10, SERVE_RANGE_PART, 7, 9);
    expect_range("bytes=-30", 10, SERVE_RANGE_PART, 0, 9);
    expect_range("bytes=5-99", 10, SERVE_RANGE_PART, 5, 9);
    expect_range("bytes=10-", 10, SERVE_RANGE_BAD, 0, 0);
    expect_range("bytes=0-", 0, SERVE_RANGE_BAD, 0, 0);
    expect_range("bytes=-0", 10, SERVE_RANGE_BAD, 0, 0);
    expect_range("bytes=5-4", 10, SERVE_RANGE_BAD, 0, 0);
    expect_range("bytes=1-2,4-5", 10, SERVE_RANGE_ALL, 0, 0);
    expect_range("bytes=99999999999999999999-", 10, SERVE_RANGE_ALL, 0, 0);
    expect_range("bytes=", 10, SERVE_RANGE_ALL, 0, 0);
    expect_range("bytes=-", 10, SERVE_RANGE_ALL, 0, 0);
    expect_range("items=1-2", 10, SERVE_RANGE_ALL, 0, 0);
}

static void test_chunk_ranges(void)
{
    uint64_t first, last;

    g_assert_true(serve_chunk_range_parse("5-9", &first, &last));
    g_assert_cmpuint(first, ==, 5);
    g_assert_cmpuint(last, ==, 9);
    g_assert_true(serve_chunk_range_parse("bytes 5-9/*", &first, &last));
    g_assert_true(serve_chunk_range_parse("bytes 5-9/10", &first, &last));
    g_assert_false(serve_chunk_range_parse("bytes 5-9/9", &first, &last));
    g_assert_false(serve_chunk_range_parse("9-5", &first, &last));
    g_assert_false(serve_chunk_range_parse("5-", &first, &last));
    g_assert_false(serve_chunk_range_parse("-5", &first, &last));
    g_assert_false(serve_chunk_range_parse("5-9x", &first, &last));
    g_assert_false(serve_chunk_range_parse("", &first, &last));
}

static void test_basic(void)
{
    g_autofree char *user = NULL, *password = NULL;
    char *none_user = NULL, *none_password = NULL;

    g_assert_true(serve_basic_parse("Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ==", &user, &password));
    g_assert_cmpstr(user, ==, "Aladdin");
    g_assert_cmpstr(password, ==, "open:sesame");
    g_assert_false(serve_basic_parse("Basic QQ==", &none_user, &none_password));     /* no colon */
    g_assert_false(serve_basic_parse("Basic QTpCAA==", &none_user, &none_password)); /* a NUL */
    g_assert_false(serve_basic_parse("Basic !!", &none_user, &none_password));
    g_assert_false(serve_basic_parse("Bearer abc", &none_user, &none_password));
    g_assert_false(serve_basic_parse("", &none_user, &none_password));
}

static void expect_htpasswd(const char *text, const char *fragment)
{
    g_autoptr(GHashTable) users = NULL;
    g_autoptr(GError) error = NULL;

    if (!fragment) {
        g_assert_true(serve_htpasswd_parse(text, "users", &users, NULL));
        return;
    }
    g_assert_false(serve_htpasswd_parse(text, "users", &users, &error));
    g_assert_nonnull(strstr(error->message, fragment));
}

static void test_htpasswd(void)
{
    expect_htpasswd("", NULL);
    expect_htpasswd("# nobody\n\na:$6$abc$defghijklmnop\r\nb:$2y$05$abcdefghijklmnopqrstuuO1234567890123456789012345678901\n", NULL);
    expect_htpasswd("a\n", "line 1");
    expect_htpasswd(":$6$abc$x\n", "line 1");
    expect_htpasswd("a:$6$abc$x\na:$6$abc$y\n", "twice");
    expect_htpasswd("a:{SHA}abc\n", "htpasswd -B");
    expect_htpasswd("a:$apr1$abc$x\n", "htpasswd -B");
    expect_htpasswd("a:abcdefghijklm\n", "htpasswd -B");
    expect_htpasswd("a:plain\n", "htpasswd -B");
    expect_htpasswd("a:$5$abc$defghijklmnop\n", NULL);
    expect_htpasswd("a:$y$j9T$abcdefghij$abc\n", NULL);
    expect_htpasswd("a:$2y$31$abcdefghijklmnopqrstuuO1234567890123456789012345678901\n", "take minutes");
    expect_htpasswd("a:$6$rounds=999999999$abc$defghijklmnop\n", "take minutes");
    expect_htpasswd("a:$y$jQT$abcdefghij$abc\n", "take minutes");
    expect_htpasswd("a:\n", "htpasswd -B");
}

static void test_media_types(void)
{
    g_autofree char *type = serve_media_type("Application/VND.oci.image.index.v1+json; charset=utf-8");

    g_assert_cmpstr(type, ==, "application/vnd.oci.image.index.v1+json");
    g_assert_null(serve_media_type("text"));
    g_assert_null(serve_media_type(""));
    g_assert_null(serve_media_type("text/\"x\""));
}

static void test_sha512(void)
{
    g_autoptr(ChecksumStream) stream = NULL;
    g_autofree char *hex = NULL;

    g_assert_true(checksum_stream_new("sha512", &stream, NULL) && checksum_stream_update(stream, "a", 1, NULL) &&
                  checksum_stream_update(stream, "bc", 2, NULL) && checksum_stream_final(stream, &hex, NULL));
    g_assert_cmpstr(hex, ==,
                    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/serve/paths", test_paths);
    g_test_add_func("/serve/a-name-may-have-components-of-the-api", test_a_name_may_have_components_of_the_api);
    g_test_add_func("/serve/tricks-are-refused", test_tricks_are_refused);
    g_test_add_func("/serve/long-names", test_long_names);
    g_test_add_func("/serve/queries", test_queries);
    g_test_add_func("/serve/ranges", test_ranges);
    g_test_add_func("/serve/chunk-ranges", test_chunk_ranges);
    g_test_add_func("/serve/basic", test_basic);
    g_test_add_func("/serve/htpasswd", test_htpasswd);
    g_test_add_func("/serve/media-types", test_media_types);
    g_test_add_func("/serve/sha512", test_sha512);
    return g_test_run();
}
