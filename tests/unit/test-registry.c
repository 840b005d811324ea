/* SPDX-License-Identifier: Apache-2.0 */
/* Names, logins, challenges and mirrors of registries (store/registry-*.c), and indexes of segments: what needs no network. */
#include "store/disk-artifact.h"
#include "store/registry-auth.h"
#include "store/registry-hosts.h"
#include "store/registry.h"
#include "store/segment-index.h"

#include "base/error.h"

#include <string.h>

static const char digest[] = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static void check_ref(const char *text, const char *host, const char *repository, const char *tag, bool has_digest)
{
    g_auto(RegistryRef) ref = {0};
    g_autoptr(GError) error = NULL;

    if (!registry_ref_parse(text, &ref, &error))
        g_error("%s: %s", text, error->message);
    g_assert_cmpstr(ref.host, ==, host);
    g_assert_cmpstr(ref.repository, ==, repository);
    g_assert_cmpstr(ref.tag, ==, tag);
    g_assert_true(has_digest == !digest_is_none(&ref.digest));
}

static void test_names(void)
{
    g_autofree char *pinned = g_strconcat("docker://quay.io/a/b:1.0@", digest, NULL);

    check_ref("docker://debian", "docker.io", "library/debian", NULL, false);
    check_ref("docker://debian:12", "docker.io", "library/debian", "12", false);
    check_ref("docker://team/app", "docker.io", "team/app", NULL, false);
    check_ref("docker://index.docker.io/debian", "docker.io", "library/debian", NULL, false);
    check_ref("docker://localhost/x", "localhost", "x", NULL, false);
    check_ref("docker://127.0.0.1:5000/a/b/c:v_1.2-3", "127.0.0.1:5000", "a/b/c", "v_1.2-3", false);
    check_ref("docker://[::1]:5000/a", "[::1]:5000", "a", NULL, false);
    check_ref("docker://Registry.Example.com/a__b/c.d/e--f", "registry.example.com", "a__b/c.d/e--f", NULL, false);
    check_ref(pinned, "quay.io", "a/b", "1.0", true);
}

static void test_no_names(void)
{
    static const char *const bad[] = {
        "docker://", "docker:///a", "docker://host.io/", "docker://host.io/A", "docker://host.io/a//b", "docker://host.io/a/", "docker://host.io/../a",
        "docker://host.io/a:", "docker://host.io/a:-x", "docker://host.io/a@sha256:12", "docker://host.io/a@sha512:12", "docker://host.io:99999/a",
        "docker://host.io:x/a", "docker://user@host.io/a", "docker://host.io/a b", "docker://host.io/a?x=1", "docker://host.io/a._b", "docker://host.io/a___b",
        "docker://host..io/a", "docker://-host.io/a", "docker://[::1/a", "docker://host.io/a:x/y:", "docker://host.io/a\n"};
    g_autofree char *longest = g_strnfill(5000, 'a'), *tag = g_strnfill(129, 't'), *tagged = g_strconcat("docker://host.io/a:", tag, NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_auto(RegistryRef) ref = {0};
        g_autoptr(GError) error = NULL;

        if (registry_ref_parse(bad[i], &ref, &error))
            g_error("'%s' was taken for a name", bad[i]);
        g_assert_cmpint(error->code, ==, KILN_ERROR_USAGE);
        g_assert_null(strchr(error->message, '\n'));
    }
    g_assert_false(registry_ref_parse(longest, &(RegistryRef){0}, NULL));
    g_assert_false(registry_ref_parse(tagged, &(RegistryRef){0}, NULL));
}

static void test_challenges(void)
{
    g_auto(RegistryChallenge) a = {0}, b = {0}, c = {0}, d = {0};

    registry_challenge_parse("Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"", &a);
    g_assert_true(a.bearer && !a.basic);
    g_assert_cmpstr(a.realm, ==, "https://auth.docker.io/token");
    g_assert_cmpstr(a.service, ==, "registry.docker.io");
    g_assert_cmpstr(a.scope, ==, "repository:a/b:pull,push");
    registry_challenge_parse("basic realm=\"x, y\", bearer  realm=https://z , service=\"q\\\"q\"", &b);
    g_assert_true(b.bearer && b.basic);
    g_assert_cmpstr(b.realm, ==, "https://z");
    g_assert_cmpstr(b.service, ==, "q\"q");
    registry_challenge_parse("Basic", &c);
    g_assert_true(c.basic && !c.bearer && !c.realm);
    registry_challenge_parse(",,=\"\" Bearer realm=\"unfinished", &d);
    g_assert_true(d.bearer);
    g_assert_cmpstr(d.realm, ==, "unfinished");
}

static void check_login(const char *config, const char *host, const char *repository, const char *user, const char *password, const char *helper)
{
    g_autoptr(json_t) parsed = json_loads(config, 0, NULL);
    g_auto(RegistryLogin) login = {0};
    g_autofree char *asked = NULL;

    g_assert_nonnull(parsed);
    g_assert_true(registry_login_in(parsed, host, repository, &login, &asked) == (user || helper));
    g_assert_cmpstr(login.user, ==, user);
    g_assert_cmpstr(login.password, ==, password);
    g_assert_cmpstr(asked, ==, helper);
}

static void test_logins(void)
{
    /* ann:pw, bob:x:y */
    static const char auths[] = "{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"YW5uOnB3\"}, \"quay.io\": {\"auth\": \"YW5uOnB3\"},"
                                " \"quay.io/team\": {\"auth\": \"Ym9iOng6eQ==\"}, \"http://local:5000\": {\"username\": \"u\", \"password\": \"p\"}, \"empty.io\": {},"
                                " \"broken.io\": {\"auth\": \"!!!\"}}}";

    check_login(auths, "docker.io", "library/debian", "ann", "pw", NULL);
    check_login(auths, "quay.io", "other/x", "ann", "pw", NULL);
    check_login(auths, "quay.io", "team/x", "bob", "x:y", NULL);
    check_login(auths, "quay.io", "teamwork/x", "ann", "pw", NULL);
    check_login(auths, "local:5000", "x", "u", "p", NULL);
    check_login(auths, "empty.io", "x", NULL, NULL, NULL);
    check_login(auths, "broken.io", "x", NULL, NULL, NULL);
    check_login(auths, "quay.io.evil.example", "x", NULL, NULL, NULL);
    check_login("{\"credHelpers\": {\"gcr.io\": \"gcloud\"}, \"credsStore\": \"pass\"}", "gcr.io", "x", NULL, NULL, "gcloud");
    check_login("{\"credHelpers\": {\"gcr.io\": \"gcloud\"}, \"credsStore\": \"pass\"}", "quay.io", "x", NULL, NULL, "pass");
    check_login("[1]", "quay.io", "x", NULL, NULL, NULL);
}

static void test_mirrors(void)
{
    static const char conf[] = "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n"
                               "[[registry.mirror]]\nlocation = \"mirror.example:5000/hub\"\ninsecure = true\n[[registry]]\nlocation = 'bad.example'\nblocked = true\n"
                               "[[registry]]\nprefix = \"docker.io/team\"\nlocation = \"internal.example/t\" # ours\n";
    g_autoptr(GPtrArray) hub = g_ptr_array_new_with_free_func(g_free), team = g_ptr_array_new_with_free_func(g_free), bad = g_ptr_array_new_with_free_func(g_free);
    bool blocked;

    registry_places_in(conf, "docker.io/library/debian", hub, &blocked);
    g_assert_cmpuint(hub->len, ==, 2);
    g_assert_cmpstr(hub->pdata[0], ==, "mirror.example:5000/hub/library/debian");
    g_assert_cmpstr(hub->pdata[1], ==, "docker.io/library/debian");
    g_assert_false(blocked);
    registry_places_in(conf, "docker.io/team/app", team, &blocked);
    g_assert_cmpuint(team->len, ==, 1);
    g_assert_cmpstr(team->pdata[0], ==, "internal.example/t/app");
    registry_places_in(conf, "bad.example/x", bad, &blocked);
    g_assert_true(blocked);
}

static SegmentIndex *sample(void)
{
    SegmentIndex *index = segment_index_new();
    SegmentEntry one = {SEGMENT_HEADER_SIZE, 5000, 2, FRAME_ZSTD}, two = {SEGMENT_HEADER_SIZE + 5000, 300, 1, FRAME_ZSTD};
    Digest hashes[2];

    digest_of_string("a", &hashes[0]);
    digest_of_string("b", &hashes[1]);
    segment_index_add(index, &one, hashes);
    segment_index_add(index, &two, hashes);
    index->size = SEGMENT_HEADER_SIZE + 5300 + 8 + 2 * SEGMENT_ENTRY_SIZE + SEGMENT_TAIL_SIZE;
    return index;
}

static void test_index(void)
{
    g_autoptr(SegmentIndex) index = sample(), again = NULL;
    g_autoptr(GBytes) bytes = segment_index_encode(index);
    g_autoptr(GError) error = NULL;
    gsize size;
    const uint8_t *data = g_bytes_get_data(bytes, &size);

    g_assert_true(segment_index_decode(data, size, &again, &error));
    g_assert_cmpuint(again->entries->len, ==, 2);
    g_assert_nonnull(segment_index_hash(again, position_of(0, 1)));
    g_assert_null(segment_index_hash(again, position_of(1, 1)));
    g_assert_null(segment_index_hash(again, position_of(2, 0)));
    for (gsize at = 0; at < size; at++) {
        g_autoptr(SegmentIndex) cut = NULL;

        g_assert_false(segment_index_decode(data, at, &cut, NULL));
    }
    for (gsize at = 0; at < 56 + 2 * SEGMENT_ENTRY_SIZE; at++) { /* what only the segment can tell is let through, and kept */
        g_autofree uint8_t *wrong = g_memdup2(data, size);
        g_autoptr(SegmentIndex) other = NULL;

        wrong[at] ^= 0x40;
        if (segment_index_decode(wrong, size, &other, NULL)) {
            g_autoptr(GBytes) written = segment_index_encode(other);

            if (at >= 56 && (at - 56) % SEGMENT_ENTRY_SIZE >= 14) /* reserved */
                wrong[at] ^= 0x40;
            g_assert_cmpmem(g_bytes_get_data(written, NULL), g_bytes_get_size(written), wrong, size);
        }
    }
}

/* The number of the layer that is a disk, -1: a container's manifest, -2: an error that has @why in it. */
static void check_disk(const char *manifest, int wanted, const char *why)
{
    g_autoptr(json_t) parsed = json_loads(manifest, 0, NULL);
    g_autoptr(GError) error = NULL;
    const json_t *layer = NULL;
    bool ok;

    g_assert_nonnull(parsed);
    ok = disk_plain_find(parsed, &layer, &error);
    g_assert_true(ok == (wanted > -2));
    if (wanted == -2)
        g_assert_nonnull(strstr(error->message, why));
    else
        g_assert_true(layer == (wanted < 0 ? NULL : json_array_get(json_object_get(parsed, "layers"), (size_t)wanted)));
}

static void test_plain_disks(void)
{
#define TITLE(title) "{\"annotations\": {\"org.opencontainers.image.title\": \"" title "\"}}"
#define ARTIFACT "\"artifactType\": \"a/b\", \"config\": {\"mediaType\": \"application/vnd.oci.empty.v1+json\"}, \"layers\": "

    check_disk("{\"config\": {\"mediaType\": \"application/vnd.oci.image.config.v1+json\"}, \"layers\": [" TITLE("x.qcow2") "]}", -1, NULL);
    check_disk("{\"layers\": [" TITLE("x.qcow2") "]}", -1, NULL);
    check_disk("{" ARTIFACT "[" TITLE("README") ", " TITLE("x.QCOW2.zst") "]}", 1, NULL);
    check_disk("{" ARTIFACT "[{\"mediaType\": \"application/vnd.qemu.qcow2\"}]}", 0, NULL);
    check_disk("{" ARTIFACT "[" TITLE("x.img.xz") "]}", 0, NULL);
    check_disk("{" ARTIFACT "[" TITLE("zst") ", " TITLE("") ", 7, {}]}", -2, "'a/b', and no layer");
    check_disk("{" ARTIFACT "[" TITLE("a.raw") ", " TITLE("b.raw") "]}", -2, "with 2 disks");
    check_disk("{" ARTIFACT "{}}", -2, "no layer");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/registry/plain-disks-are-told-by-type-or-title", test_plain_disks);
    g_test_add_func("/registry/names", test_names);
    g_test_add_func("/registry/no-names", test_no_names);
    g_test_add_func("/registry/challenges", test_challenges);
    g_test_add_func("/registry/logins", test_logins);
    g_test_add_func("/registry/mirrors", test_mirrors);
    g_test_add_func("/segment-index/round-trip-and-cuts", test_index);
    return g_test_run();
}
