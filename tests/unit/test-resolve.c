/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of apt that resolution lives by, and those that must not be taken for one.
 */
#include "baker/resolve-parts.h"

#include <string.h>

static void test_operations(void)
{
    g_autoptr(AptOperation) fresh = apt_operation_parse("Inst nginx-light (1.22.1-9 Debian:12.5/stable [all]) []");
    g_autoptr(AptOperation) upgrade =
        apt_operation_parse("Inst openssl [3.0.15-1] (3.0.16-1 Debian-Security:12/stable-security [amd64])");
    g_autoptr(AptOperation) removal = apt_operation_parse("Remv libfoo:i386 [1:2.0~rc1]");
    g_autoptr(AptOperation) setting_up = apt_operation_parse("Conf openssl (3.0.16-1 Debian-Security:12/stable-security [amd64])");

    g_assert_true(fresh && fresh->kind == 'i' && !fresh->from && !fresh->security);
    g_assert_cmpstr(fresh->version, ==, "1.22.1-9");
    g_assert_cmpstr(fresh->architecture, ==, "all");
    g_assert_true(upgrade && upgrade->security);
    g_assert_cmpstr(upgrade->from, ==, "3.0.15-1");
    g_assert_cmpstr(upgrade->version, ==, "3.0.16-1");
    g_assert_true(removal && removal->kind == 'r');
    g_assert_cmpstr(removal->name, ==, "libfoo:i386");
    g_assert_cmpstr(removal->from, ==, "1:2.0~rc1");
    g_assert_true(setting_up && setting_up->kind == 'c');
}

static void test_no_operations(void)
{
    static const char *const lines[] = {"", "Inst", "Inst ", "Inst -oDir=/ (1 x [all])", "Inst a", "Inst a (1 x)", "Inst a;b (1 x [all])",
                                        "Inst a ($(id) x [all])", "Inst a (1 x [al l])", "Reading package lists...", "Insta b (1 x [all])"};

    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autoptr(AptOperation) operation = apt_operation_parse(lines[i]);

        g_assert_null(operation);
    }
}

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_uris(void)
{
    g_autoptr(AptUri) uri = apt_uri_parse("'http://deb.example/pool/a/a_1%3a2_all.deb' a_1%3a2_all.deb 1234 SHA256:" HEX);
    static const char *const lines[] = {"", "'http://x/a.deb' a.deb 1 SHA256:" HEX, "'http://x/a_1_all.deb' a_1_all.deb 1 MD5Sum:00",
                                        "'http://x/a_1_all.deb' a_1_all.deb x SHA256:" HEX, "http://x/a_1_all.deb a_1_all.deb 1 SHA256:" HEX,
                                        "'http://x/a_1_all.deb' a_1_all.deb 1 SHA256:12"};

    g_assert_nonnull(uri);
    g_assert_cmpstr(uri->uri, ==, "http://deb.example/pool/a/a_1%3a2_all.deb");
    g_assert_cmpstr(uri->version, ==, "1:2");
    g_assert_cmpuint(uri->size, ==, 1234);
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autoptr(AptUri) none = apt_uri_parse(lines[i]);

        g_assert_null(none);
    }
}

static void test_growth(void)
{
    static const struct {
        const char *line;
        int64_t growth;
    } cases[] = {
        {"After this operation, 136 kB of additional disk space will be used.", 136000},
        {"After this operation, 10.2 MB of additional disk space will be used.", 10200000},
        {"After this operation, 1500 B of additional disk space will be used.", 1500},
        {"After this operation, 2 GB disk space will be freed.", -2000000000},
    };
    int64_t growth = 7;

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_true(apt_growth_parse(cases[i].line, &growth));
        g_assert_cmpint(growth, ==, cases[i].growth);
    }
    growth = 7;
    g_assert_false(apt_growth_parse("Need to get 30.9 kB of archives.", &growth));
    g_assert_false(apt_growth_parse("After this operation, nan MB", &growth));
    g_assert_cmpint(growth, ==, 7);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/resolve/apt-tells-its-operations", test_operations);
    g_test_add_func("/resolve/other-lines-are-no-operations", test_no_operations);
    g_test_add_func("/resolve/apt-tells-where-packages-are", test_uris);
    g_test_add_func("/resolve/apt-tells-how-much-the-root-grows", test_growth);
    return g_test_run();
}
