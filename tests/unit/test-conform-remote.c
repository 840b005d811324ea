/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promises of store/remote.h over every member of the table: a folder, a bucket of tests/fake-s3.py, which looks at signatures, and a repository
 * of kiln serve.
 * And what the members alone know: accounts, answers in XML, retries.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/remote-members.h"
#include "store/s3-account.h"
#include "store/s3-answer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define LARGE (300 * 1024) /* several parts: KILN_TEST_S3_PART */

static char *endpoint; /* NULL: no Python */
static pid_t server;

/* --- the fake --- */

static const char *fake(void)
{
    static char path[4096];

    g_snprintf(path, sizeof(path), "%s/../../tests/fake-s3.py", file_program_dir());
    return path;
}

static void start_server(void)
{
    int ends[2];
    const char *argv[] = {"python3", "-S", fake(), "bucket-root", "0", NULL};
    ProcessSpec spec = {.argv = argv, .inherit_stderr = true};
    g_autoptr(GError) error = NULL;
    char line[32] = "";

    if (!process_have("python3") || access(fake(), R_OK) != 0)
        return;
    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    g_assert_true(file_make_dirs("bucket-root/bucket", 0755, &error));
    spec.stdout_fd = ends[1];
    g_assert_true(process_spawn(&spec, &server, &error));
    (void)close(ends[1]);
    for (size_t n = 0; n < sizeof(line) - 1 && !strchr(line, '\n'); n++)
        g_assert_cmpint(read(ends[0], line + n, 1), ==, 1);
    (void)close(ends[0]);
    endpoint = g_strdup_printf("http://127.0.0.1:%d", atoi(line));
    g_setenv("AWS_ENDPOINT_URL", endpoint, TRUE);
    g_setenv("AWS_ACCESS_KEY_ID", "AKIDTEST", TRUE);
    g_setenv("AWS_SECRET_ACCESS_KEY", "secret-of-test", TRUE);
    g_setenv("AWS_SESSION_TOKEN", "token-of-test", TRUE);
    g_setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", TRUE);
    g_setenv("AWS_CONFIG_FILE", "/dev/null", TRUE);
    g_setenv("KILN_TEST_S3_PART", "100K", TRUE);
    g_setenv("KILN_TEST_S3_DELAY", "0.01", TRUE);
}

static void tell_server(const char *path, const char *json)
{
    g_autofree char *url = g_strconcat(endpoint, path, NULL), *out = NULL;
    const char *argv[] = {"curl", "-s", "-d", json, url, NULL};

    g_assert_true(process_capture(argv, 1 << 20, &out, NULL));
}

/* --- a registry --- */

static char *registry; /* docker://HOST/REPOSITORY; NULL: there is no program to serve it */
static pid_t registry_server;

static void know_registry(const char *url)
{
    g_autofree char *host = g_strdup(g_strstrip(strstr(url, "//") + 2)), *login = g_base64_encode((const guchar *)"ci:secret", 9);
    g_autofree char *config = g_strdup_printf("{\"auths\":{\"%s\":{\"auth\":\"%s\"}}}", host, login);

    g_assert_true(g_file_set_contents("docker/config.json", config, -1, NULL));
    g_setenv("DOCKER_CONFIG", "docker", TRUE);
    g_setenv("XDG_RUNTIME_DIR", "docker", TRUE);
    g_setenv("CONTAINERS_REGISTRIES_CONF", "docker/registries.conf", TRUE);
    g_unsetenv("REGISTRY_AUTH_FILE");
    registry = g_strdup_printf("docker://%s/ci/cache", host);
}

static void start_registry(void)
{
    static const char user[] = "ci:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n"; /* "secret" */
    g_autofree char *program = g_strdup_printf("%s/../kiln", file_program_dir());
    const char *argv[] = {program, "--store", "registry-store", "serve", "--listen", "127.0.0.1:0", "--htpasswd", "docker/users", "--write-users", "ci",
                          "--access-log", "-", NULL};
    ProcessSpec spec = {.argv = argv};
    g_autoptr(GError) error = NULL;
    char line[128] = "";
    int ends[2];

    if (access(program, X_OK) != 0)
        return;
    g_assert_true(file_make_dirs("docker", 0755, &error) && g_file_set_contents("docker/registries.conf", "", 0, &error));
    g_assert_true(g_file_set_contents("docker/users", user, -1, &error));
    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    spec.stdout_fd = ends[1];
    g_assert_true(process_spawn(&spec, &registry_server, &error));
    (void)close(ends[1]);
    for (size_t n = 0; n < sizeof(line) - 1 && !strchr(line, '\n') && read(ends[0], line + n, 1) == 1; n++)
        ;
    (void)close(ends[0]);
    g_assert_nonnull(strchr(line, '\n'));
    know_registry(line);
}

/* --- every member --- */

static const char *location_of(const RemoteOps *ops)
{
    return strcmp(ops->scheme, "file") == 0 ? "file:folder" : strcmp(ops->scheme, "s3") == 0 ? "s3://bucket/some/prefix" : registry;
}

static bool is_registry(gconstpointer data)
{
    return strcmp(((const RemoteOps *)data)->scheme, "docker") == 0;
}

static Remote *open_member(gconstpointer data)
{
    const RemoteOps *ops = data;
    RemoteOptions options = {.create = true};
    GError *error = NULL;
    Remote *remote = NULL;

    if (strcmp(ops->scheme, "s3") == 0 && !endpoint) {
        g_test_skip("no python3");
        return NULL;
    }
    if (is_registry(ops) && !registry) {
        g_test_skip("no kiln");
        return NULL;
    }
    g_assert_true(remote_open(location_of(ops), &options, &remote, &error));
    g_assert_no_error(error);
    return remote;
}

static void put_text(Remote *remote, const char *key, const char *text)
{
    GError *error = NULL;
    bool added;

    g_assert_true(remote_put(remote, key, text, strlen(text), false, &added, &error));
    g_assert_no_error(error);
}

static char *get_text(Remote *remote, const char *key)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) error = NULL;

    if (!remote_get(remote, key, NULL, 1 << 20, &bytes, &error))
        return g_strdup(error->code == KILN_ERROR_NOT_FOUND ? "(none)" : error->message);
    return g_bytes_get_size(bytes) ? g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes)) : g_strdup("");
}

#define assert_text(remote, key, text) \
    do { g_autofree char *have_ = get_text(remote, key); g_assert_cmpstr(have_, ==, text); } while (0)

static void test_put_and_get(gconstpointer data)
{
    g_autoptr(Remote) remote = open_member(data);
    g_autoptr(GError) error = NULL;
    bool there, added;
    uint64_t size;

    if (!remote)
        return;
    assert_text(remote, "a/one", "(none)");
    put_text(remote, "a/one", "first");
    assert_text(remote, "a/one", "first");
    put_text(remote, "a/one", "second"); /* replaces it */
    assert_text(remote, "a/one", "second");
    g_assert_true(remote_put(remote, "a/one", "third", 5, true, &added, &error) && !added);
    assert_text(remote, "a/one", "second");
    g_assert_true(remote_put(remote, "a/two", "third", 5, true, &added, &error) && added);
    put_text(remote, "a/empty", "");
    assert_text(remote, "a/empty", "");
    g_assert_true(remote_head(remote, "a/one", &there, &size, &error) && there && size == 6);
    g_assert_true(remote_head(remote, "a/three", &there, &size, &error) && !there);
    g_assert_true(remote_head(remote, "a", &there, &size, &error) && !there); /* a folder is no object */
    g_assert_true(remote_remove(remote, "a/one", &error) && remote_remove(remote, "a/one", &error));
    assert_text(remote, "a/one", "(none)");
}

static void test_bytes_are_checked(gconstpointer data)
{
    g_autoptr(Remote) remote = open_member(data);
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) error = NULL;
    Digest digest;

    if (!remote)
        return;
    put_text(remote, "b/x", "some bytes");
    digest_of("other bytes", 11, &digest);
    g_assert_false(remote_get(remote, "b/x", &digest, 100, &bytes, &error));
    g_assert_nonnull(strstr(error->message, "other bytes than its name says"));
    g_clear_error(&error);
    digest_of("some bytes", 10, &digest);
    g_assert_true(remote_get(remote, "b/x", &digest, 10, &bytes, &error));
    g_clear_pointer(&bytes, g_bytes_unref);
    g_assert_false(remote_get(remote, "b/x", &digest, 9, &bytes, &error));
    g_assert_nonnull(strstr(error->message, "larger than the 9 bytes"));
    g_clear_error(&error);
    g_assert_true(remote_get_range(remote, "b/x", 5, 4, &bytes, &error));
    g_assert_cmpmem(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), "byte", 4);
    g_clear_pointer(&bytes, g_bytes_unref);
    g_assert_false(remote_get_range(remote, "b/x", 5, 6, &bytes, &error));
}

static int make_large(Digest *ret)
{
    int fd = memfd_create("large", MFD_CLOEXEC);
    g_autofree uint32_t *words = g_malloc(LARGE);

    for (uint32_t i = 0; i < LARGE / 4; i++)
        words[i] = i * 2654435761u;
    g_assert_cmpint(write(fd, words, LARGE), ==, LARGE);
    digest_of(words, LARGE, ret);
    return fd;
}

static void test_large_files(gconstpointer data)
{
    g_autoptr(Remote) remote = open_member(data);
    g_autoptr(GError) error = NULL;
    auto_fd int from = -1;
    auto_fd int to = memfd_create("copy", MFD_CLOEXEC);
    g_autofree char *key = NULL;
    Digest digest, have;
    uint64_t size;
    bool added;

    if (!remote)
        return;
    from = make_large(&digest);
    key = remote_digest_key("c", &digest);
    g_assert_true(remote_put_file(remote, key, from, &digest, true, &added, &error) && added);
    g_assert_true(remote_put_file(remote, key, from, &digest, true, &added, &error) && !added);
    g_assert_true(remote_get_file(remote, key, &digest, LARGE, to, &size, &error));
    g_assert_cmpuint(size, ==, LARGE);
    g_assert_true(digest_of_fd(to, &have, &error) && digest_equal(&have, &digest));
}

static void test_lists(gconstpointer data)
{
    g_autoptr(Remote) remote = open_member(data);
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;

    if (!remote)
        return;
    put_text(remote, "d/b/2", "12");
    put_text(remote, "d/b/1", "1");
    put_text(remote, "d/a", "");
    put_text(remote, "d/b-c", "");
    put_text(remote, "da", "");
    g_assert_true(remote_list(remote, "d/", 100, &list, &error));
    g_assert_cmpuint(list->len, ==, 4);
    g_assert_cmpstr(((RemoteEntry *)list->pdata[0])->key, ==, "d/a");
    g_assert_cmpstr(((RemoteEntry *)list->pdata[1])->key, ==, "d/b-c"); /* bytewise: '-' before '/' */
    g_assert_cmpstr(((RemoteEntry *)list->pdata[3])->key, ==, "d/b/2");
    g_assert_cmpuint(((RemoteEntry *)list->pdata[3])->size, ==, is_registry(data) ? REMOTE_SIZE_UNKNOWN : 2);
    g_assert_cmpint(is_registry(data) ? ((RemoteEntry *)list->pdata[3])->changed : ABS(((RemoteEntry *)list->pdata[3])->changed - g_get_real_time() / G_USEC_PER_SEC), <, 600);
    g_clear_pointer(&list, g_ptr_array_unref);
    g_assert_false(remote_list(remote, "d/", 3, &list, &error));
    g_clear_error(&error);
    g_assert_true(remote_list(remote, "nothing/", 3, &list, &error));
    g_assert_cmpuint(list->len, ==, 0);
}

static void test_pages(gconstpointer data)
{
    g_autoptr(Remote) remote = open_member(data);
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    const char *folder = strcmp(((const RemoteOps *)data)->scheme, "s3") == 0 ? "bucket-root/bucket/some/prefix/pages" : "folder/pages";
    g_autofree char *first = g_strconcat(folder, "/0000", NULL);

    if (!remote)
        return;
    if (is_registry(data)) {
        g_test_skip("it would have to be pushed to a thousand times"); /* test-serve has its lists' pages, test-registry how they are read */
        return;
    }
    g_assert_true(file_make_dirs(folder, 0755, &error) && g_file_set_contents(first, "", 0, &error));
    for (int i = 1; i < REMOTE_PAGE * 2 + 10; i++) { /* past the remote, for time's sake */
        g_autofree char *name = g_strdup_printf("%s/%04d", folder, i);

        g_assert_cmpint(link(first, name), ==, 0);
    }
    g_assert_true(remote_list(remote, "pages/", 5000, &list, &error));
    g_assert_cmpuint(list->len, ==, REMOTE_PAGE * 2 + 10);
    g_assert_cmpstr(((RemoteEntry *)list->pdata[REMOTE_PAGE])->key, ==, "pages/1000");
}

static void test_keys(gconstpointer data)
{
    static const char *const bad[] = {"", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", ".a", "a b", "a%2fb", "a\\b", "a?b", "\xc3\xa4"};
    g_autoptr(Remote) remote = open_member(data);

    for (size_t i = 0; remote && i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GBytes) bytes = NULL;

        g_assert_false(remote_put(remote, bad[i], "x", 1, false, NULL, NULL));
        g_assert_false(remote_get(remote, bad[i], NULL, 1, &bytes, NULL));
        g_assert_false(remote_remove(remote, bad[i], NULL));
    }
}

/* --- a folder --- */

static void test_folder_is_marked(void)
{
    RemoteOptions look = {0}, make = {.create = true};
    g_autoptr(GError) error = NULL;
    Remote *remote = NULL;

    g_assert_true(file_make_dirs("empty", 0755, &error) && file_make_dirs("full", 0755, &error));
    g_assert_true(g_file_set_contents("full/mail", "", 0, &error));
    g_assert_false(remote_open("file:empty", &look, &remote, &error)); /* a mount that is missing looks so */
    g_assert_nonnull(strstr(error->message, "is no remote"));
    g_clear_error(&error);
    g_assert_false(remote_open("file:full", &make, &remote, &error));
    g_clear_error(&error);
    g_assert_true(remote_open("file:empty", &make, &remote, &error));
    remote_close(remote);
    g_assert_true(remote_open("file:empty", &look, &remote, &error));
    remote_close(remote);
    g_assert_false(remote_open("ftp://x/y", &look, &remote, &error));
    g_assert_cmpint(error->code, ==, KILN_ERROR_USAGE);
}

/* --- a bucket that has bad days --- */

static void test_s3_retries(void)
{
    g_autoptr(Remote) remote = endpoint ? open_member(remote_table[1]) : NULL;
    g_autoptr(GError) error = NULL;
    auto_fd int from = -1;
    auto_fd int to = memfd_create("copy", MFD_CLOEXEC);
    Digest digest;
    uint64_t size;
    bool added;

    if (!remote) {
        g_test_skip("no python3");
        return;
    }
    from = make_large(&digest);
    tell_server("/_fault", "{\"method\": \"PUT\", \"do\": \"status\", \"status\": 503, \"code\": \"SlowDown\"}");
    tell_server("/_fault", "{\"method\": \"POST\", \"do\": \"drop\"}");
    g_assert_true(remote_put_file(remote, "e/large", from, &digest, false, &added, &error));
    g_assert_no_error(error);
    tell_server("/_fault", "{\"method\": \"GET\", \"do\": \"cut\", \"after\": 70000, \"times\": 1}");
    g_assert_true(remote_get_file(remote, "e/large", &digest, LARGE, to, &size, &error));
    g_assert_no_error(error);
    tell_server("/_fault", "{\"method\": \"GET\", \"do\": \"wrong\"}");
    g_assert_false(remote_get_file(remote, "e/large", &digest, LARGE, to, &size, &error));
    g_assert_nonnull(strstr(error->message, "other bytes"));
    g_clear_error(&error);
    tell_server("/_fault", "{\"method\": \"GET\", \"do\": \"status\", \"status\": 403, \"code\": \"AccessDenied\"}");
    g_assert_false(remote_get_file(remote, "e/large", &digest, LARGE, to, &size, &error));
    g_assert_nonnull(strstr(error->message, "403 (AccessDenied: as the test wants)"));
    tell_server("/_reset", "");
}

static void test_s3_refuses_strangers(void)
{
    RemoteOptions options = {0}, plain = {.plain_http = true};
    g_autoptr(Remote) remote = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) bytes = NULL;

    if (!endpoint) {
        g_test_skip("no python3");
        return;
    }
    g_setenv("AWS_SECRET_ACCESS_KEY", "wrong", TRUE);
    g_assert_true(remote_open("s3://bucket", &options, &remote, &error));
    g_setenv("AWS_SECRET_ACCESS_KEY", "secret-of-test", TRUE);
    g_assert_false(remote_get(remote, "x", NULL, 10, &bytes, &error));
    g_assert_nonnull(strstr(error->message, "SignatureDoesNotMatch"));
    g_clear_error(&error);
    g_clear_pointer(&remote, remote_close);
    g_assert_true(remote_open("s3://other-bucket", &options, &remote, &error));
    g_assert_false(remote_get(remote, "x", NULL, 10, &bytes, &error));
    g_assert_nonnull(strstr(error->message, "NoSuchBucket"));
    g_clear_error(&error);
    g_clear_pointer(&remote, remote_close);
    g_assert_false(remote_open("s3://b/../c", &options, &remote, &error));
    g_clear_error(&error);
    g_setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9", TRUE);
    g_assert_false(remote_open("s3://bucket", &options, &remote, &error));
    g_assert_nonnull(strstr(error->message, "--plain-http"));
    g_assert_true(remote_open("s3://bucket", &plain, &remote, NULL));
    g_clear_pointer(&remote, remote_close);
    g_clear_error(&error);
    g_setenv("AWS_ENDPOINT_URL", "http://127.example.org", TRUE);
    g_assert_false(remote_open("s3://bucket", &options, &remote, &error));
    g_setenv("AWS_ENDPOINT_URL", endpoint, TRUE);
}

static void test_s3_profiles(void)
{
    static const char text[] = "# comment\n[default]\naws_access_key_id = A\ns3 =\n  region = nested\n[profile  two]\nregion=eu-1 \n"
                               "aws_access_key_id=\nAWS_secret_access_key = B = C\n";
    static const struct { const char *section, *name, *value; } cases[] = {
        {"default", "aws_access_key_id", "A"}, {"default", "region", NULL}, {"two", "region", "eu-1"},
        {"two", "aws_secret_access_key", "B = C"}, {"two", "aws_access_key_id", NULL}, {"three", "region", NULL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *value = s3_profile_value(text, cases[i].section, cases[i].name);

        g_assert_cmpstr(value, ==, cases[i].value);
    }
}

static void check_answer(const char *text, bool good)
{
    g_auto(S3Answer) answer = {0};

    g_assert_true(s3_answer_parse(text, strlen(text), &answer, NULL) == good);
}

static void test_s3_answers(void)
{
    static const char list[] = "<L xmlns='x'><IsTruncated>true</IsTruncated><Contents><Key>a&amp;b</Key><Size>12</Size>"
                               "<Owner><Key>no</Key></Owner><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents><Contents/></L>";
    g_autoptr(GString) deep = g_string_new(NULL), wide = g_string_new("<L><Code>");
    g_auto(S3Answer) answer = {0};

    g_assert_true(s3_answer_parse(list, strlen(list), &answer, NULL));
    g_assert_true(answer.truncated);
    g_assert_cmpuint(answer.entries->len, ==, 2);
    g_assert_cmpstr(((RemoteEntry *)answer.entries->pdata[0])->key, ==, "a&b");
    g_assert_cmpuint(((RemoteEntry *)answer.entries->pdata[0])->size, ==, 12);
    g_assert_cmpint(((RemoteEntry *)answer.entries->pdata[0])->changed, ==, 1767323045);
    for (int i = 0; i < 100; i++) {
        g_string_prepend(deep, "<a>");
        g_string_append(deep, "</a>");
    }
    for (int i = 0; i < 10000; i++)
        g_string_append(wide, "text ");
    g_string_append(wide, "</Code></L>");
    check_answer("", false);
    check_answer("<a>", false);
    check_answer("<html><p>no", false);
    check_answer("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", false);
    check_answer(deep->str, false);
    check_answer("<a><b><c><d><e><f><g><h><i/></h></g></f></e></d></c></b></a>", false);
    check_answer(wide->str, false);
    check_answer("<a/>", true);
}

/* --- a repository's tags --- */

static void test_tags_are_keys(void)
{
    static const char *const keys[] = {"segments/ab/abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789",
                                       "cache/blobs/ff/ff00000000000000000000000000000000000000000000000000000000000000.zst",
                                       "cache/moved/0000000000000000000000000000000000000000000000000000000000000000/"
                                       "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff0",
                                       "ab/cdef000000000000000000000000000000000000000000000000000000000000ab", "-a_b/_d/__", "ab/abcdef",
                                       "index/a-name-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on/"
                                       "0000000000000000000000000000000000000000000000000000000000000000-"
                                       "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff0"};
    g_autoptr(Remote) remote = registry ? open_member(&remote_registry_ops) : NULL;
    g_autofree char *tag = g_strconcat(registry, ":x", NULL);
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(GError) error = NULL;
    Remote *none = NULL;

    if (!remote) {
        g_test_skip("no kiln");
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        put_text(remote, keys[i], keys[i]);
        assert_text(remote, keys[i], keys[i]);
        g_assert_true(remote_list(remote, keys[i], 10, &list, &error));
        g_assert_cmpuint(list->len, ==, 1);
        g_assert_cmpstr(((RemoteEntry *)list->pdata[0])->key, ==, keys[i]);
        g_clear_pointer(&list, g_ptr_array_unref);
    }
    g_assert_false(remote_open(tag, &(RemoteOptions){.create = true}, &none, &error));
    g_assert_cmpint(error->code, ==, KILN_ERROR_USAGE);
}

static void add_for_all(const char *name, GTestDataFunc test)
{
    for (const RemoteOps *const *ops = remote_table; *ops; ops++) {
        g_autofree char *path = g_strdup_printf("/remote/%s/%s", (*ops)->scheme, name);

        g_test_add_data_func(path, *ops, test);
    }
}

int main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    start_server();
    start_registry();
    add_for_all("what-is-put-can-be-had", test_put_and_get);
    add_for_all("other-bytes-are-refused", test_bytes_are_checked);
    add_for_all("large-files", test_large_files);
    add_for_all("lists-in-order", test_lists);
    add_for_all("lists-of-many-pages", test_pages);
    add_for_all("keys-that-are-none", test_keys);
    g_test_add_func("/remote/folder-that-is-none-is-refused", test_folder_is_marked);
    g_test_add_func("/remote/s3-bad-days-pass", test_s3_retries);
    g_test_add_func("/remote/s3-refuses-strangers", test_s3_refuses_strangers);
    g_test_add_func("/remote/tags-of-a-repository-are-keys", test_tags_are_keys);
    g_test_add_func("/remote/s3-profiles", test_s3_profiles);
    g_test_add_func("/remote/s3-answers", test_s3_answers);
    status = g_test_run();
    if (server)
        process_end(server, 1);
    if (registry_server)
        process_end(registry_server, 1);
    return status;
}
