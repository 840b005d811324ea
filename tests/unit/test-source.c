/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources without network: apt's lists as we read them, arguments as they are refused.
 */
#include "baker/source-apt.h"
#include "baker/source-common.h"

#include "base/error.h"

#include <glib/gstdio.h>
#include <sys/stat.h>

static const char sources_list[] = "# a comment\n"
                                   "deb http://deb.debian.org/debian bookworm main contrib # tail\n"
                                   "deb-src http://deb.debian.org/debian bookworm main\n"
                                   "deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://example.org/debian bookworm main\n"
                                   "deb [trusted=yes http://example.org/x bookworm main\n"
                                   "deb http://example.org/flat ./\n";

static const char debian_sources[] = "Types: deb deb-src\n"
                                     "# why\n"
                                     "URIs: http://mirror.example/debian/\n"
                                     "Suites: bookworm\n"
                                     " bookworm-updates\n"
                                     "Components: main\n"
                                     "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
                                     "\n"
                                     "Types: deb\n"
                                     "URIs: http://mirror.example/debian-security\n"
                                     "Suites: bookworm-security trixie\n"
                                     "Components: main\n"
                                     "\n"
                                     "Enabled: no\n"
                                     "Types: deb\n"
                                     "URIs: http://off.example/debian\n"
                                     "Suites: bookworm\n"
                                     "Components: main\n"
                                     "\n"
                                     "Types: deb\n"
                                     "URIs: http://embedded.example/debian\n"
                                     "Suites: bookworm\n"
                                     "Components: main\n"
                                     "Signed-By:\n"
                                     " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
                                     " .\n"
                                     " abc\n";

static GPtrArray *entries_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)apt_entry_free);
}

static void test_one_line(void)
{
    g_autoptr(GPtrArray) entries = entries_new();
    const AptEntry *entry;

    apt_parse_one_line(sources_list, entries);
    g_assert_cmpuint(entries->len, ==, 3);
    entry = entries->pdata[0];
    g_assert_cmpstr(entry->uri, ==, "http://deb.debian.org/debian");
    g_assert_cmpstr(entry->components[1], ==, "contrib");
    g_assert_null(entry->components[2]);
    g_assert_null(entry->signed_by);
    entry = entries->pdata[1];
    g_assert_cmpstr(entry->signed_by, ==, "/usr/share/keyrings/other.gpg");
    entry = entries->pdata[2];
    g_assert_cmpstr(entry->suite, ==, "./");
    g_assert_null(entry->components[0]);
}

static void test_deb822(void)
{
    g_autoptr(GPtrArray) entries = entries_new();

    apt_parse_deb822(debian_sources, entries);
    g_assert_cmpuint(entries->len, ==, 5); /* bookworm, -updates, -security, trixie, the embedded key; not the disabled one */
    g_assert_true(g_str_has_prefix(((AptEntry *)entries->pdata[4])->signed_by, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc"));
    g_assert_cmpstr(((AptEntry *)entries->pdata[0])->uri, ==, "http://mirror.example/debian");
    g_assert_cmpstr(((AptEntry *)entries->pdata[1])->suite, ==, "bookworm-updates");
}

static void test_lines_of_the_host(void)
{
    g_autoptr(GPtrArray) entries = entries_new();
    g_auto(GStrv) lines = NULL;

    apt_parse_one_line("deb [signed-by=/usr/share/keyrings/docker.asc] https://example.org/docker bookworm stable\n", entries);
    apt_parse_deb822(debian_sources, entries);
    lines = apt_lines_for_suite(entries, "bookworm", NULL);
    g_assert_cmpuint(g_strv_length(lines), ==, 3);
    g_assert_cmpstr(lines[0], ==, "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
                                  "http://mirror.example/debian bookworm main");
    g_assert_nonnull(strstr(lines[2], "/debian-security bookworm-security main"));
}

static void test_lines_without_host_entries(void)
{
    static const char *const components[] = {"main", "contrib", NULL};
    g_autoptr(GPtrArray) entries = entries_new();
    g_auto(GStrv) stable = NULL, sid = NULL;

    apt_parse_deb822(debian_sources, entries);
    stable = apt_lines_for_suite(entries, "bullseye", components);
    sid = apt_lines_for_suite(entries, "sid", NULL);
    g_assert_cmpuint(g_strv_length(stable), ==, 3);
    g_assert_true(g_str_has_suffix(stable[0], "/debian bullseye main contrib"));
    g_assert_cmpuint(g_strv_length(sid), ==, 1);
}

static void test_template_lines(void)
{
    g_autofree char *url = NULL, *line = NULL, *release = NULL;
    char *bad = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(apt_line_from_template("http://mirror.example/debian/", "trixie", NULL, &url, NULL));
    g_assert_true(g_str_has_suffix(url, "] http://mirror.example/debian trixie main"));
    g_assert_true(apt_line_from_template("deb [signed-by=/k.gpg trusted=yes] http://m.example/d s a b", "trixie", NULL, &line, NULL));
    g_assert_cmpstr(line, ==, "deb [signed-by=/k.gpg] http://m.example/d s a b");
    release = apt_release_url(line);
    g_assert_cmpstr(release, ==, "http://m.example/d/dists/s/InRelease");
    g_assert_false(apt_line_from_template("deb http://a x main\ndeb http://b x main", "x", NULL, &bad, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
}

static void test_release_date(void)
{
    g_assert_cmpint(apt_release_date("Origin: Debian\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n"), ==, 1783764997);
    g_assert_cmpint(apt_release_date("Origin: Debian\n"), ==, -1);
    g_assert_cmpint(apt_release_date("Date: yesterday\n"), ==, -1);
    g_assert_cmpint(apt_release_date("Date: Sat, 11 anF 2026 10:16:37 UTC\n"), ==, -1);
}

/* Arguments as JSON text; what must be said, and about which argument (NULL: accepted). */
typedef struct Case {
    const char *type, *args, *argument, *says;
} Case;

static const Case cases[] = {
    {"bootstrap", "{\"suite\":\"bookworm\"}", NULL, NULL},
    {"bootstrap", "{\"suite\":\"bookworm\",\"packages\":[\"libstdc++6\",\"vim=2:9.0\"],\"size\":\"4G\"}", NULL, NULL},
    {"bootstrap", "{\"suite\":\"bookworm\",\"grow\":true,\"kernel_arguments\":\"console=ttyS0 quiet\"}", NULL, NULL},
    {"bootstrap", "{\"suite\":\"bookworm\",\"grow\":\"yes\"}", "grow", "true or false"},
    {"bootstrap", "{\"suite\":\"bookworm\",\"kernel_arguments\":\"a;b\"}", "kernel_arguments", "cannot carry"},
    {"bootstrap", "{}", NULL, "needs a suite"},
    {"bootstrap", "{\"suite\":\"--help\"}", "suite", "not the name of a suite"},
    {"bootstrap", "{\"suite\":\"bookworm\",\"packages\":[\"?essential\"]}", "packages", "not the name of a package"},
    {"bootstrap", "{\"suite\":\"bookworm\",\"packages\":[\"a,b\"]}", "packages", "not the name of a package"},
    {"bootstrap", "{\"suite\":\"bookworm\",\"variant\":\"tiny\"}", "variant", "not known"},
    {"bootstrap", "{\"suite\":\"bookworm\",\"size\":\"1M\"}", "size", "between 80M and 16T"},
    {"bootstrap", "{\"suite\":\"bookworm\",\"size\":\"many\"}", "size", "size"},
    {"bootstrap", "{\"suite\":\"bookworm\",\"sources\":[\"nonsense\"]}", "sources", "neither a URL"},
    {"bootstrap", "{\"suite\":7}", "suite", "suite"},
    {"disk", "{\"from\":\"vendor.qcow2\"}", NULL, NULL},
    {"disk", "{\"from\":\"https://example.org/a.img\",\"checksum\":\"none\"}", NULL, NULL},
    {"disk", "{\"from\":\"https://example.org/a.img\"}", "checksum", "needs a checksum"},
    {"disk", "{\"from\":\"a.img\",\"checksum\":\"sha256:12\"}", "checksum", "64 hex digits"},
    {"disk", "{\"from\":\"ftp://example.org/a.img\",\"checksum\":\"none\"}", "from", "no http"},
    {"disk", "{\"from\":\"image:web\"}", NULL, NULL},
    {"disk", "{\"from\":\"image:\"}", "from", "names no image"},
    {"disk", "{\"from\":\"image:web:prod\",\"checksum\":\"none\"}", "checksum", "its own checksum"},
    {"oci", "{\"from\":\"image:web/oci\"}", NULL, NULL},
    {"disk", "{}", NULL, "needs from"},
    {"oci", "{\"from\":\"scratch\"}", NULL, NULL},
    {"oci", "{\"from\":\"oci:folder:tag\"}", NULL, NULL},
    {"oci", "{\"from\":\"docker://example.org/x\"}", NULL, NULL},
    {"disk", "{\"from\":\"docker://example.org/x\"}", NULL, NULL},
    {"disk", "{\"from\":\"docker://example.org/X\"}", "from", "names nothing in a registry"},
    {"disk", "{\"from\":\"docker://example.org/x\",\"checksum\":\"none\"}", "checksum", "has no checksum"},
    {"oci", "{\"from\":\"docker://example.org/X\"}", "from", "names nothing in a registry"},
    {"oci", "{\"from\":\"folder\"}", "from", "oci:DIR"},
    {"oci", "{\"from\":\"oci:\"}", "from", "names no file"},
};

static void test_arguments(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Case *c = &cases[i];
        g_autoptr(GError) error = NULL;
        g_autoptr(json_t) args = NULL;
        const char *argument = NULL;
        bool ok;

        g_assert_true(json_parse(c->args, strlen(c->args), 65536, "case", &args, NULL));
        g_test_message("%s %s", c->type, c->args);
        ok = source_find(c->type)->check(args, &argument, &error);
        g_assert_cmpint(ok, ==, c->says == NULL);
        if (!c->says)
            continue;
        g_assert_nonnull(strstr(error->message, c->says));
        if (c->argument)
            g_assert_cmpstr(argument, ==, c->argument);
    }
}

static void test_table(void)
{
    const char *const *types = source_types();

    for (size_t i = 0; types[i]; i++) {
        const SourceOps *ops = source_find(types[i]);

        g_assert_nonnull(ops);
        g_assert_true(ops->check && ops->identify && ops->prepare);
        g_assert_true(!ops->default_output || g_strv_contains((const char *const[]){"disk", "oci", NULL}, ops->default_output));
    }
    g_assert_nonnull(source_find("qemu"));
    g_assert_null(source_find("amazon-ebs"));
}

static void test_time(void)
{
    g_assert_cmpint(source_parse_time("1970-01-02T00:00:00Z"), ==, 86400);
    g_assert_cmpint(source_parse_time("1970-01-02T01:00:00.5+01:00"), ==, 86400);
    g_assert_cmpint(source_parse_time("soon"), ==, -1);
    g_assert_cmpint(source_parse_time(NULL), ==, -1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/source/apt/one-line-entries", test_one_line);
    g_test_add_func("/source/apt/deb822-entries", test_deb822);
    g_test_add_func("/source/apt/foreign-repositories-are-left-out", test_lines_of_the_host);
    g_test_add_func("/source/apt/public-archive-without-host-entries", test_lines_without_host_entries);
    g_test_add_func("/source/apt/lines-of-a-template", test_template_lines);
    g_test_add_func("/source/apt/release-date", test_release_date);
    g_test_add_func("/source/arguments", test_arguments);
    g_test_add_func("/source/table-is-whole", test_table);
    g_test_add_func("/source/time", test_time);
    return g_test_run();
}
