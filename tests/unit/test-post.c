/* SPDX-License-Identifier: Apache-2.0 */
/*
 * baker/post*.c and what they stand on: files that are written once, archives, checksums, lines of a Dockerfile, steps of a chain.
 */
#include "baker/docker-changes.h"
#include "baker/output-files.h"
#include "baker/post.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"
#include "store-support.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Bench {
    StoreFixture store;
    char *folder, *before;
    unsigned made;
    const char *text;
} Bench;

static void bench_init(Bench *b, gconstpointer arg)
{
    store_fixture_setup(&b->store, NULL);
    b->folder = g_dir_make_tmp("kiln-test-post-XXXXXX", NULL);
    b->before = g_get_current_dir();
    g_assert_cmpint(chdir(b->folder), ==, 0);
}

static void bench_clear(Bench *b, gconstpointer arg)
{
    g_assert_cmpint(chdir(b->before), ==, 0);
    (void)file_remove_tree(AT_FDCWD, b->folder, NULL);
    g_free(b->folder);
    g_free(b->before);
    store_fixture_teardown(&b->store, NULL);
}

/* --- files --- */

static bool make(const char *path, void *arg, GError **error)
{
    Bench *b = arg;

    b->made++;
    return file_replace(AT_FDCWD, path, b->text, strlen(b->text), 0600, FILE_SYNC_NO, error);
}

static bool output(Bench *b, const char *what, const char *text)
{
    g_autoptr(GError) error = NULL;
    bool written = false;

    b->text = text;
    (void)output_make(b->store.store, "sub/file", what, make, b, &written, &error);
    g_assert_no_error(error);
    return written;
}

static void assert_file(const char *path, const char *text)
{
    g_autofree char *got = NULL;

    g_assert_true(g_file_get_contents(path, &got, NULL, NULL));
    g_assert_cmpstr(got, ==, text);
}

static void test_written_once(Bench *b, gconstpointer arg)
{
    struct stat st, after;

    g_assert_true(output(b, "one", "1"));
    g_assert_false(output(b, "one", "1"));
    g_assert_cmpuint(b->made, ==, 1);
    g_assert_cmpint(stat("sub/file", &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0644);

    /* made of something else, to the same bytes */
    g_assert_false(output(b, "other", "1"));
    g_assert_cmpuint(b->made, ==, 2);
    g_assert_cmpint(stat("sub/file", &after), ==, 0);
    g_assert_cmpuint(after.st_ino, ==, st.st_ino);

    /* touched: made again, and left */
    g_assert_cmpint(utimensat(AT_FDCWD, "sub/file", NULL, 0), ==, 0);
    g_assert_false(output(b, "other", "1"));
    g_assert_cmpuint(b->made, ==, 3);

    /* changed, lost, a link in its place */
    g_assert_true(g_file_set_contents("sub/file", "2", 1, NULL));
    g_assert_true(output(b, "other", "1"));
    g_assert_cmpint(unlink("sub/file"), ==, 0);
    g_assert_true(output(b, "other", "1"));
    g_assert_cmpint(unlink("sub/file"), ==, 0);
    g_assert_true(g_file_set_contents("theirs", "kept", 4, NULL));
    g_assert_cmpint(symlink("../theirs", "sub/file"), ==, 0);
    g_assert_true(output(b, "other", "1"));
    assert_file("sub/file", "1");
    assert_file("theirs", "kept");
}

static bool fail_to_make(const char *path, void *arg, GError **error)
{
    (void)make(path, arg, NULL);
    g_set_error_literal(error, G_FILE_ERROR, 0, "broken");
    return false;
}

static void test_a_failure_leaves_the_old_file(Bench *b, gconstpointer arg)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) dir = NULL;

    g_assert_true(output(b, "one", "1"));
    b->text = "2";
    g_assert_false(output_make(b->store.store, "sub/file", "two", fail_to_make, b, NULL, &error));
    g_assert_nonnull(strstr(error->message, "sub/file"));
    assert_file("sub/file", "1");
    dir = g_dir_open("sub", 0, NULL);
    g_assert_cmpstr(g_dir_read_name(dir), ==, "file");
    g_assert_null(g_dir_read_name(dir));
}

static void test_checksums(Bench *b, gconstpointer arg)
{
    static const char *const known[][2] = {
        {"md5", "900150983cd24fb0d6963f7d28e17f72"},
        {"sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
        {"sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}};

    g_assert_true(g_file_set_contents("abc", "abc", 3, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        g_autofree char *sum = NULL, *again = NULL;

        g_assert_true(output_checksum(b->store.store, "abc", known[i][0], &sum, NULL));
        g_assert_cmpstr(sum, ==, known[i][1]);
        g_assert_true(output_checksum(b->store.store, "abc", known[i][0], &again, NULL));
        g_assert_cmpstr(again, ==, sum);
    }
    g_assert_true(g_file_set_contents("abc", "abd", 3, NULL));
    g_autofree char *other = NULL;
    g_assert_true(output_checksum(b->store.store, "abc", "sha256", &other, NULL));
    g_assert_cmpstr(other, !=, known[3][1]);
}

/* --- archives --- */

static void test_formats(void)
{
    g_assert_cmpstr(archive_format_of("a/disk.qcow2.gz"), ==, "gz");
    g_assert_cmpstr(archive_format_of("x.tar.gz"), ==, "tar.gz");
    g_assert_cmpstr(archive_format_of("x.tgz"), ==, "tar.gz");
    g_assert_cmpstr(archive_format_of("x.tar"), ==, "tar");
    g_assert_cmpstr(archive_format_of("x.zip"), ==, "zip");
    g_assert_null(archive_format_of("packer_a_b"));
    for (const char *const *format = archive_formats; *format; format++)
        g_assert_cmpint(archive_format_is_single(*format), ==, !g_str_has_prefix(*format, "tar") && strcmp(*format, "zip") != 0);
}

/* Equal files give equal bytes, whatever their times are. */
static void test_archives_are_equal(Bench *b, gconstpointer arg)
{
    g_assert_true(g_file_set_contents("one", "111", 3, NULL));
    g_assert_true(g_file_set_contents("two", "222", 3, NULL));
    for (const char *const *format = archive_formats; *format; format++) {
        ArchiveMember members[] = {{(char *)"one", (char *)"one"}, {(char *)"in/two", (char *)"two"}};
        ArchiveSpec spec = {.format = *format, .level = g_str_has_suffix(*format, "gz") ? 9 : 0};
        unsigned count = archive_format_is_single(*format) ? 1 : 2;
        g_autofree char *first = NULL, *second = NULL;
        gsize n, m;
        const struct timespec early[2] = {{1000000000, 0}, {1000000000, 0}}, late[2] = {{1500000000, 0}, {1500000000, 0}};

        g_assert_cmpint(utimensat(AT_FDCWD, "one", early, 0), ==, 0);
        g_assert_true(archive_write("a", &spec, members, count, NULL));
        g_assert_cmpint(utimensat(AT_FDCWD, "one", late, 0), ==, 0);
        g_assert_true(archive_write("b", &spec, members, count, NULL));
        g_assert_true(g_file_get_contents("a", &first, &n, NULL) && g_file_get_contents("b", &second, &m, NULL));
        g_assert_cmpmem(first, n, second, m);
        g_assert_cmpuint(n, >, 0);
    }
}

/* Over the ends of pieces: zlib's own reader takes the row of members as one stream. */
static void test_gzip_members_are_one_stream(Bench *b, gconstpointer arg)
{
    static const size_t sizes[] = {0, 1, 65280, 65281, (1 << 20) - 1, 1 << 20, (2 << 20) + 5};

    for (size_t i = 0; i < 2 * G_N_ELEMENTS(sizes); i++) {
        size_t size = sizes[i / 2];
        g_autofree char *in = g_malloc0(size + 8), *out = NULL;
        ArchiveMember member = {(char *)"in", (char *)"in"};
        ArchiveSpec spec = {.format = i % 2 ? "bgzf" : "gz", .level = 1};
        const char *const argv[] = {"gzip", "-dc", "a", NULL};

        test_noise((uint8_t *)in, (size / 2 + 7) / 8 * 8, i); /* half of it does not shrink */
        g_assert_true(g_file_set_contents("in", in, (gssize)size, NULL));
        g_assert_true(archive_write("a", &spec, &member, 1, NULL));
        auto_fd int fd = open("out", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        ProcessSpec gzip = {.argv = argv, .stdout_fd = fd};
        int code;
        gsize n;

        g_assert_true(process_run(&gzip, &code, NULL) && g_file_get_contents("out", &out, &n, NULL));
        g_assert_cmpint(code, ==, 0);
        g_assert_cmpmem(out, n, in, size);
    }
}

static void test_a_missing_member_is_named(Bench *b, gconstpointer arg)
{
    ArchiveMember member = {(char *)"gone", (char *)"gone"};
    ArchiveSpec spec = {.format = "tar"};
    g_autoptr(GError) error = NULL;

    g_assert_false(archive_write("a", &spec, &member, 1, &error));
    g_assert_nonnull(strstr(error->message, "'gone'"));
}

/* --- lines of a Dockerfile --- */

static void assert_config(const char *const *changes, const char *before, const char *after)
{
    g_autoptr(json_t) config = json_loads(before, 0, NULL), want = json_loads(after, 0, NULL);
    g_autoptr(GError) error = NULL;

    (void)docker_changes_apply(changes, config, &error);
    g_assert_no_error(error);
    if (!json_equal(config, want)) {
        g_autofree char *got = json_canonical(config);

        g_error("%s\nis not %s", got, after);
    }
}

static void test_changes(void)
{
    const char *const all[] = {"CMD [\"a\", \"b c\"]", "env A=1 B='two words' C=x\\ y", "ENV A 3 and more", "EXPOSE 80 53/UDP",
                               "LABEL a.b=\"c d\"", "USER 10:10", "VOLUME [\"/x\"]", "VOLUME /y /z", "WORKDIR /srv",
                               "WORKDIR www", "STOPSIGNAL SIGINT", "MAINTAINER Me <me@x>", "ONBUILD RUN x", NULL};

    assert_config(all, "{}",
                  "{\"author\": \"Me <me@x>\", \"config\": {\"Cmd\": [\"a\", \"b c\"], \"Env\": [\"A=3 and more\", \"B=two words\", \"C=x y\"],"
                  " \"ExposedPorts\": {\"80/tcp\": {}, \"53/udp\": {}}, \"Labels\": {\"a.b\": \"c d\"}, \"User\": \"10:10\","
                  " \"Volumes\": {\"/x\": {}, \"/y\": {}, \"/z\": {}}, \"WorkingDir\": \"/srv/www\", \"StopSignal\": \"SIGINT\","
                  " \"OnBuild\": [\"RUN x\"]}}");
    /* Docker's rule: an entrypoint drops a command that was there before, not one that was given with it. */
    assert_config((const char *const[]){"ENTRYPOINT run it", NULL}, "{\"config\": {\"Cmd\": [\"old\"]}}",
                  "{\"config\": {\"Entrypoint\": [\"/bin/sh\", \"-c\", \"run it\"]}}");
    assert_config((const char *const[]){"CMD [\"new\"]", "ENTRYPOINT [\"x\"]", NULL}, "{\"config\": {\"Cmd\": [\"old\"]}}",
                  "{\"config\": {\"Cmd\": [\"new\"], \"Entrypoint\": [\"x\"]}}");
    assert_config((const char *const[]){"HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://CMD/", NULL}, "{}",
                  "{\"config\": {\"Healthcheck\": {\"Interval\": 90000000000, \"Retries\": 3, \"Test\": [\"CMD-SHELL\", \"curl -f http://CMD/\"]}}}");
    assert_config((const char *const[]){"HEALTHCHECK CMD [\"a\", \"b\"]", NULL}, "{}", "{\"config\": {\"Healthcheck\": {\"Test\": [\"CMD\", \"a\", \"b\"]}}}");
    assert_config((const char *const[]){"HEALTHCHECK CMD x", "HEALTHCHECK none", NULL}, "{}", "{\"config\": {\"Healthcheck\": {\"Test\": [\"NONE\"]}}}");
}

static void test_changes_have_variables(void)
{
    const char *const all[] = {"ENV PATH=/opt/bin:$PATH HOME=${NONE:-/home/$USER_}", "LABEL who='$A' is=\"${A}b\" free=\\$A", "WORKDIR ${A:+sub}/$A", "USER \"$A\"",
                               "EXPOSE $PORT 8000-8002/udp", "CMD echo $A", "ENV OLD \"two words\" $A", NULL};

    assert_config(all, "{\"config\": {\"Env\": [\"PATH=/bin\", \"A=a\", \"USER_=u\", \"PORT=80\", 5], \"WorkingDir\": \"/srv\", \"Shell\": [\"/bin/bash\", \"-c\"]}}",
                  "{\"config\": {\"Env\": [\"PATH=/opt/bin:/bin\", \"A=a\", \"USER_=u\", \"PORT=80\", 5, \"HOME=/home/u\", \"OLD=two words a\"], \"WorkingDir\": \"/srv/sub/a\","
                  " \"Shell\": [\"/bin/bash\", \"-c\"], \"Labels\": {\"who\": \"$A\", \"is\": \"ab\", \"free\": \"$A\"}, \"User\": \"a\","
                  " \"ExposedPorts\": {\"80/tcp\": {}, \"8000/udp\": {}, \"8001/udp\": {}, \"8002/udp\": {}}, \"Cmd\": [\"/bin/bash\", \"-c\", \"echo $A\"]}}");
    g_assert_true(docker_changes_check(all, NULL)); /* nobody knows $PORT yet */
}

/* A few lines that double a text each, and braces that nest without end. */
static void test_changes_are_bounded(void)
{
    g_autofree char *text = g_strnfill(60000, 'x'), *first = g_strconcat("ENV A=", text, NULL), *open = g_strnfill(3 * 1000, '-');
    const char *lines[40] = {first};
    g_autoptr(json_t) config = json_object(), other = json_object();
    g_autofree char *deep = NULL;

    for (size_t i = 1; i < G_N_ELEMENTS(lines) - 1; i++)
        lines[i] = "ENV A=$A$A";
    g_assert_false(docker_changes_apply(lines, config, NULL));
    for (size_t i = 0; i < 3000; i += 6)
        memcpy(open + i, "${A:-x", 6);
    deep = g_strconcat("USER ", open, NULL);
    g_assert_false(docker_changes_apply((const char *const[]){deep, NULL}, other, NULL));
}

static void test_wrong_changes_are_cited(void)
{
    static const char *const wrong[] = {"RUN x",        "CMD",       "CMD [1]", "CMD [\"x\"", "ENV A='1",    "ENV =x",
                                        "EXPOSE http",  "EXPOSE 1-", "",        "LABEL x=1 y", "VOLUME [{}]", "FROM \xff",
                                        "HEALTHCHECK",  "HEALTHCHECK CMD", "HEALTHCHECK curl", "HEALTHCHECK --often=1 CMD x",
                                        "HEALTHCHECK --interval=x CMD x", "USER ${", "USER ${A", "USER ${A:-b", "USER ${A?b}", "EXPOSE 9-8", "EXPOSE 70000"};

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(json_t) config = json_object();
        g_autoptr(GError) error = NULL;

        if (docker_changes_apply((const char *const[]){wrong[i], NULL}, config, &error))
            g_error("'%s' passes", wrong[i]);
        g_assert_nonnull(strstr(error->message, "in 'changes'"));
    }
}

/* --- the family --- */

static void test_family(void)
{
    for (const char *const *type = post_types(); *type; type++) {
        g_assert_null(post_refusal(*type));
        g_assert_true(post_find(*type)->check && post_find(*type)->run && post_find(*type)->arguments);
    }
    g_assert_nonnull(strstr(post_refusal("vagrant"), "compress"));
    g_assert_null(post_find("vagrant"));
}

#define ADD(path, fn) g_test_add(path, Bench, NULL, bench_init, fn, bench_clear)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_QUIET);
    ADD("/output-files/written-once", test_written_once);
    ADD("/output-files/a-failure-leaves-the-old-file", test_a_failure_leaves_the_old_file);
    ADD("/output-files/checksums", test_checksums);
    g_test_add_func("/archive/formats-by-suffix", test_formats);
    ADD("/archive/equal-files-give-equal-bytes", test_archives_are_equal);
    ADD("/archive/gzip-members-are-one-stream", test_gzip_members_are_one_stream);
    ADD("/archive/a-missing-member-is-named", test_a_missing_member_is_named);
    g_test_add_func("/docker-changes/lines", test_changes);
    g_test_add_func("/docker-changes/wrong-lines-are-cited", test_wrong_changes_are_cited);
    g_test_add_func("/docker-changes/variables-of-the-image", test_changes_have_variables);
    g_test_add_func("/docker-changes/bounded", test_changes_are_bounded);
    g_test_add_func("/post/family", test_family);
    return g_test_run();
}
