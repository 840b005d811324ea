/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/: the small things that everything else trusts.
 */
#include "base/digest.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/printable.h"
#include "base/process.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void test_digest_known_answer(void)
{
    char hex[DIGEST_HEX_SIZE];
    Digest a, b;
    g_autoptr(DigestStream) stream = digest_stream_new();

    digest_of("abc", 3, &a);
    g_assert_cmpstr(digest_to_hex(&a, hex), ==, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    digest_stream_update(stream, "a", 1);
    digest_stream_update(stream, "bc", 2);
    digest_stream_final(stream, &b);
    g_assert_true(digest_equal(&a, &b));
    g_assert_true(digest_parse(hex, &b) && digest_equal(&a, &b));
}

static void test_digest_parse_is_strict(void)
{
    Digest d;
    g_autofree char *short_one = g_strnfill(63, 'a'), *long_one = g_strnfill(65, 'a'), *bad = g_strnfill(64, 'g');

    g_assert_false(digest_parse(short_one, &d));
    g_assert_false(digest_parse(long_one, &d));
    g_assert_false(digest_parse(bad, &d));
    g_assert_false(digest_parse("", &d));
}

static void test_uuid5_has_version_and_is_stable(void)
{
    uint8_t a[16], b[16], c[16];

    digest_uuid5("web", "root-fs", a);
    digest_uuid5("web", "root-fs", b);
    digest_uuid5("web", "disk", c);
    g_assert_cmpmem(a, 16, b, 16);
    g_assert_true(memcmp(a, c, 16) != 0);
    g_assert_cmpint(a[6] >> 4, ==, 5);
    g_assert_cmpint(a[8] >> 6, ==, 2);
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0}, {"4096", 4096}, {"2G", 2ULL << 30}, {"1.5K", 1536}, {"10MiB", 10 << 20}, {"3 GB", 3ULL << 30}};
    static const char *const bad[] = {"", "G", "-1", "2X", "2Gx", "nan", "inf", "1e300"};
    uint64_t bytes;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_true(units_parse_size(good[i].text, &bytes, NULL));
        g_assert_cmpuint(bytes, ==, good[i].bytes);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_false(units_parse_size(bad[i], &bytes, NULL));
}

static void test_durations(void)
{
    static const struct {
        const char *text;
        double seconds;
    } good[] = {{"90s", 90}, {"1h30m", 5400}, {"250ms", 0.25}, {"7d", 604800}, {"45", 45}};
    static const char *const bad[] = {"", "s", "5x", "-3s", "5 m", "1h30"};
    double seconds;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_true(units_parse_duration(good[i].text, &seconds, NULL));
        g_assert_cmpfloat(seconds, ==, good[i].seconds);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_false(units_parse_duration(bad[i], &seconds, NULL));
}

static void test_nearest_word(void)
{
    static const char *const words[] = {"shell", "file", "packages", NULL};

    g_assert_cmpstr(units_nearest("shel", words), ==, "shell");
    g_assert_cmpstr(units_nearest("pakages", words), ==, "packages");
    g_assert_null(units_nearest("ansible", words));
}

static void test_json_is_strict_and_canonical(void)
{
    g_autoptr(json_t) value = NULL;
    g_autofree char *text = NULL;
    json_t *none = NULL;

    g_assert_true(json_parse("{\"b\":1,\"a\":[true,\"x\"]}", 22, 100, "doc", &value, NULL));
    text = json_canonical(value);
    g_assert_cmpstr(text, ==, "{\"a\":[true,\"x\"],\"b\":1}");
    g_assert_false(json_parse("{\"a\":1,\"a\":2}", 13, 100, "doc", &none, NULL));
    g_assert_false(json_parse("{} x", 4, 100, "doc", &none, NULL));
    g_assert_false(json_parse("{}", 2, 1, "doc", &none, NULL));
}

static void test_replace_leaves_old_or_new(void)
{
    g_autofree char *dir = g_dir_make_tmp("kiln-XXXXXX", NULL);
    auto_fd int fd = open(dir, O_RDONLY | O_DIRECTORY);
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(file_replace(fd, "x", "old", 3, 0644, FILE_SYNC_YES, &error));
    g_assert_true(file_replace(fd, "x", "newer", 5, 0644, FILE_SYNC_NO, &error));
    g_assert_true(file_load(fd, "x", 5, &bytes, &error));
    g_assert_cmpmem(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), "newer", 5);
    g_assert_false(file_load(fd, "x", 4, &bytes, &error));
    g_clear_error(&error);
    g_assert_false(file_load(fd, "absent", 4, &bytes, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_NOT_FOUND);
    g_assert_true(file_remove_tree(AT_FDCWD, dir, NULL));
    g_assert_false(g_file_test(dir, G_FILE_TEST_EXISTS));
}

static void test_remove_tree_does_not_follow_links(void)
{
    g_autofree char *dir = g_dir_make_tmp("kiln-XXXXXX", NULL), *kept = g_dir_make_tmp("kiln-XXXXXX", NULL);
    g_autofree char *link = g_build_filename(dir, "link", NULL), *file = g_build_filename(kept, "f", NULL);

    g_assert_true(g_file_set_contents(file, "x", 1, NULL));
    g_assert_cmpint(symlink(kept, link), ==, 0);
    g_assert_true(file_remove_tree(AT_FDCWD, dir, NULL));
    g_assert_true(g_file_test(file, G_FILE_TEST_EXISTS));
    g_assert_true(file_remove_tree(AT_FDCWD, kept, NULL));
}

static void test_zero_bytes(void)
{
    uint8_t buf[4096] = {0};

    g_assert_true(bytes_are_zero(buf, sizeof(buf)));
    buf[4095] = 1;
    g_assert_false(bytes_are_zero(buf, sizeof(buf)));
    g_assert_true(bytes_are_zero(buf, 4095));
}

static void collect(const char *line, bool is_stderr, void *arg)
{
    g_string_append_printf(arg, "%c%s|", is_stderr ? 'E' : 'O', line);
}

static void test_process_lines_and_code(void)
{
    const char *argv[] = {"sh", "-c", "echo one; echo two >&2; sleep 0.1; printf three; exit 3", NULL};
    g_autoptr(GString) text = g_string_new(NULL);
    ProcessSpec spec = {.argv = argv, .on_line = collect, .arg = text};
    int code = 0;

    g_assert_true(process_run(&spec, &code, NULL));
    g_assert_cmpint(code, ==, 3);
    g_assert_nonnull(strstr(text->str, "Oone|"));
    g_assert_nonnull(strstr(text->str, "Etwo|"));
    g_assert_nonnull(strstr(text->str, "Othree|"));
}

static void test_process_limit_ends_the_whole_group(void)
{
    const char *argv[] = {"sh", "-c", "sleep 77.25 & wait", NULL};
    ProcessSpec spec = {.argv = argv, .timeout = 0.3};
    g_autoptr(GError) error = NULL;
    gint64 start = g_get_monotonic_time();
    const char *find[] = {"pgrep", "-fx", "sleep 77.25", NULL};
    int code;

    g_assert_false(process_run(&spec, &code, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_TIMEOUT);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 5 * G_USEC_PER_SEC);
    if (process_have("pgrep")) {
        ProcessSpec pgrep = {.argv = find};

        g_assert_true(process_run(&pgrep, &code, NULL));
        g_assert_cmpint(code, ==, 1);
    }
}

/* A daemon in a session of its own that never stops talking holds the pipe, not us. */
static void test_process_talking_daemon(void)
{
    const char *const argv[] = {"sh", "-c", "setsid sh -c 'i=0; while [ $i -lt 80 ]; do echo x; sleep 0.1; i=$((i + 1)); done' & exit 0", NULL};
    ProcessSpec spec = {.argv = argv};
    gint64 start = g_get_monotonic_time();
    int code = -1;

    g_assert_true(process_run(&spec, &code, NULL));
    g_assert_cmpint(code, ==, 0);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 5 * G_USEC_PER_SEC);
}

static void test_process_absent_program(void)
{
    const char *argv[] = {"no-such-program-of-kiln", NULL};
    g_autoptr(GError) error = NULL;

    g_assert_false(process_capture(argv, 10, NULL, &error));
    g_assert_cmpstr(error->message, ==, "the program 'no-such-program-of-kiln' is not installed");
}

static void test_process_child_inherits_no_descriptors(void)
{
    auto_fd int fd = open("/dev/null", O_RDONLY); /* on purpose without O_CLOEXEC */
    const char *argv[] = {"sh", "-c", "ls /proc/self/fd | wc -l", NULL};
    g_autofree char *out = NULL;

    g_assert_cmpint(fd, >=, 0);
    g_assert_true(process_capture(argv, 100, &out, NULL));
    g_assert_cmpint(atoi(out), <=, 4); /* 0, 1, 2 and the folder that ls reads */
}

static void test_exit_status(void)
{
    g_autoptr(GError) error = NULL;

    fail_code(&error, KILN_ERROR_USAGE, "x");
    g_assert_cmpint(error_exit_status(error), ==, 2);
    fail_prefix(&error, "file %d", 1);
    g_assert_cmpstr(error->message, ==, "file 1: x");
    g_clear_error(&error);
    errno = ENOSPC;
    fail_errno(&error, "write 'y'");
    g_assert_error(error, KILN_ERROR, KILN_ERROR_NO_SPACE);
    g_assert_cmpint(error_exit_status(error), ==, 1);
}

/* --- bytes of strangers --- */

static void assert_shown(char *(*fn)(const char *), const char *text, const char *expected)
{
    g_autofree char *shown = fn(text);

    g_assert_cmpstr(shown, ==, expected);
    g_assert_true(g_utf8_validate(shown, -1, NULL));
}

static void test_printable(void)
{
    assert_shown(printable_text, "a\n\tb\x1b[31m\r\x7f", "a\n\tb\\x1b[31m\\x0d\\x7f");
    assert_shown(printable_line, "a\n\tb\\", "a\\x0a\tb\\");
    assert_shown(printable_name, "a\n\tb\\x1b", "a\\x0a\\x09b\\\\x1b");
    /* C1 as UTF-8, a byte of it alone, what is cut short, too long a form, a surrogate; letters stay */
    assert_shown(printable_name, "\xc2\x9b" "31m \x9b \xc3", "\\xc2\\x9b31m \\x9b \\xc3");
    assert_shown(printable_name, "\xc0\xaf \xed\xa0\x80 \xf5", "\\xc0\\xaf \\xed\\xa0\\x80 \\xf5");
    assert_shown(printable_name, "\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80", "\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80");
    assert_shown(printable_quoted, "a/b c'", "a/b c'");
    assert_shown(printable_quoted, "a\n\"\\\xff" "1", "\"a\\012\\\"\\\\\\3771\"");
}

static void test_encoded(void)
{
    g_autoptr(GString) out = g_string_new(NULL);

    printable_encode(out, "/a b%=\x1b\xc3\xa9\x7f~");
    g_assert_cmpstr(out->str, ==, "/a%20b%25%3d%1b%c3%a9%7f~");
}

/* A name's line end makes no line of a message; a message's own lines stay. */
static void test_errors_are_printable(void)
{
    g_autoptr(GError) error = NULL;

    fail(&error, "no file '%s'", "x\x1b\xff\nkiln: all is well");
    fail_prefix(&error, "layer '%s'", "y\xc2\x9b\n");
    g_assert_cmpstr(error->message, ==, "layer 'y\\xc2\\x9b\\x0a': no file 'x\\x1b\\xff\\x0akiln: all is well'");
    g_clear_error(&error);
    errno = ENOENT;
    fail_errno(&error, "read '%s'", "\x1b\n");
    g_assert_cmpstr(error->message, ==, "cannot read '\\x1b\\x0a': No such file or directory");
    g_clear_error(&error);
    fail(&error, "%s", "one\ntwo\x1b");
    g_assert_cmpstr(error->message, ==, "one\ntwo\\x1b");
    g_clear_error(&error);
    fail(&error, "one\n%s", "two");
    g_assert_cmpstr(error->message, ==, "one\ntwo");
}

static void test_json_drives_no_terminal(void)
{
    json_t *again = NULL;
    json_t *value = json_string("a\x1b\x7f\xc2\x80\xc2\x9f\xc2\xa0\xc3\x9f");
    g_autofree char *text = json_pretty(value);

    g_assert_cmpstr(text, ==, "\"a\\u001B\\u007f\\u0080\\u009f\xc2\xa0\xc3\x9f\"\n");
    g_assert_true(json_parse(text, strlen(text), 100, "it", &again, NULL));
    g_assert_true(json_equal(value, again));
    json_decref(value);
    json_decref(again);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/digest/known-answer", test_digest_known_answer);
    g_test_add_func("/digest/parse-is-strict", test_digest_parse_is_strict);
    g_test_add_func("/digest/uuid5-has-version-and-is-stable", test_uuid5_has_version_and_is_stable);
    g_test_add_func("/units/sizes", test_sizes);
    g_test_add_func("/units/durations", test_durations);
    g_test_add_func("/units/nearest-word", test_nearest_word);
    g_test_add_func("/json/strict-and-canonical", test_json_is_strict_and_canonical);
    g_test_add_func("/file/replace-leaves-old-or-new", test_replace_leaves_old_or_new);
    g_test_add_func("/file/remove-tree-does-not-follow-links", test_remove_tree_does_not_follow_links);
    g_test_add_func("/file/zero-bytes", test_zero_bytes);
    g_test_add_func("/process/lines-and-code", test_process_lines_and_code);
    g_test_add_func("/process/limit-ends-the-whole-group", test_process_limit_ends_the_whole_group);
    g_test_add_func("/process/a-daemon-that-talks-is-not-waited-for", test_process_talking_daemon);
    g_test_add_func("/process/absent-program", test_process_absent_program);
    g_test_add_func("/process/child-inherits-no-descriptors", test_process_child_inherits_no_descriptors);
    g_test_add_func("/error/exit-status", test_exit_status);
    g_test_add_func("/error/no-control-character-and-utf-8", test_errors_are_printable);
    g_test_add_func("/printable/controls-and-bytes-that-are-no-text", test_printable);
    g_test_add_func("/printable/as-a-tree-writes-it", test_encoded);
    g_test_add_func("/json/no-control-character", test_json_drives_no_terminal);
    return g_test_run();
}
