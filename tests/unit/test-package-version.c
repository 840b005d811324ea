/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The orders of versions; the tables are of the package managers' own documents and tests.
 */
#include "baker/package-version.h"

#include <glib.h>

static int sign(int order)
{
    return order < 0 ? -1 : order > 0;
}

/* Ascending; each against each. */
static void assert_order(const char *type, const char *const *versions)
{
    for (size_t i = 0; versions[i]; i++)
        for (size_t k = 0; versions[k]; k++)
            if (sign(package_version_compare(type, versions[i], versions[k])) != (i < k ? -1 : i > k))
                g_error("%s: '%s' and '%s'", type, versions[i], versions[k]);
}

static void assert_same(const char *type, const char *a, const char *b)
{
    g_assert_cmpint(package_version_compare(type, a, b), ==, 0);
    g_assert_cmpint(package_version_compare(type, b, a), ==, 0);
}

static void test_deb(void)
{
    assert_order("deb", (const char *const[]){"1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-10", "1.0.1-1", "1.10-1", "1:0.1-1", NULL});
}

static void test_rpm(void)
{
    assert_order("rpm", (const char *const[]){"1.0~rc1-1", "1.0~rc1^git1-1", "1.0~rc2-1", "1.0-1", "1.0-2", "1.0-10", "1.0^git1-1", "1.0^20200101-1",
                                              "1.0.a-1", "1.0.1-1", "1.010-1", "2.0a-1", "2.0.1-1", "2.0.1a-1", "1:0.1-1", "10:0-1", NULL});
    assert_same("rpm", "1.0", "1.0-3");
    assert_same("rpm", "0:1.0-1", "1.0-1");
    assert_same("rpm", "1_0.", "1.0");
    g_assert_cmpint(package_version_compare("rpm", "5.5p2", "5.5p10"), <, 0);
    g_assert_cmpint(package_version_compare("rpm", "xyz10", "xyz10.1"), <, 0);
    g_assert_cmpint(package_version_compare("rpm", "xyz.4", "8"), <, 0);
    g_assert_cmpint(package_version_compare("rpm", "6.0.rc1", "6.0"), >, 0);
}

static void test_apk(void)
{
    assert_order("apk", (const char *const[]){"1.0_alpha", "1.0_alpha2", "1.0_beta1", "1.0_pre1", "1.0_rc1", "1.0_rc2-r1", "1.0-r0", "1.0-r1", "1.0-r10",
                                              "1.0_git20200101", "1.0_p1-r0", "1.0_p10", "1.0a-r2", "1.0b", "1.0.01", "1.0.1", "1.0.10", "1.1", "1.10", "9",
                                              "10", NULL});
    assert_same("apk", "1.2.4", "1.2.4-r2");
}

static void test_python(void)
{
    assert_order("pypi", (const char *const[]){"1.dev0", "1.0.dev456", "1.0a1", "1.0a2.dev456", "1.0a12.dev456", "1.0a12", "1.0b1.dev456", "1.0b2",
                                               "1.0b2.post345.dev456", "1.0b2.post345", "1.0rc1.dev456", "1.0rc1", "1.0", "1.0+abc.5", "1.0.post456.dev34",
                                               "1.0.post456", "1.0.15", "1.1.dev1", "1!0.1", NULL});
    assert_same("pypi", "1.0", "1.0.0");
    assert_same("pypi", "1.0RC1", "1.0-c.1");
    assert_same("pypi", "v1.0alpha1", "1.0a1");
    assert_same("pypi", "1.0-1", "1.0.post1");
}

static void test_semantic(void)
{
    assert_order("npm", (const char *const[]){"1.0.0-1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
                                              "1.0.0-rc.1", "1.0.0", "1.0.1", "1.10.0", "2.0.0", NULL});
    assert_same("golang", "v1.9.0", "1.9.0+incompatible");
    g_assert_cmpint(package_version_compare("golang", "v0.0.0-20200101000000-abcdef", "v0.0.0-20210101000000-000000"), <, 0);
}

/* Whatever it is: an end, and an order that has two sides. */
static void test_any_text(void)
{
    static const char *const types[] = {"deb", "rpm", "apk", "pypi", "npm"};
    static const char letters[] = "019.-~^_+:!arcvpost\xff";

    for (unsigned i = 0; i < 20000; i++) {
        char a[9] = "", b[9] = "";

        for (size_t k = 0; k < 8; k++) {
            a[k] = k < i % 9 ? letters[g_test_rand_int_range(0, sizeof letters - 1)] : '\0';
            b[k] = k < i / 9 % 9 ? letters[g_test_rand_int_range(0, sizeof letters - 1)] : '\0';
        }
        for (size_t t = 0; t < G_N_ELEMENTS(types); t++)
            if (sign(package_version_compare(types[t], a, b)) != -sign(package_version_compare(types[t], b, a)))
                g_error("%s: '%s' and '%s'", types[t], a, b);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/package-version/deb", test_deb);
    g_test_add_func("/package-version/rpm", test_rpm);
    g_test_add_func("/package-version/apk", test_apk);
    g_test_add_func("/package-version/python", test_python);
    g_test_add_func("/package-version/semantic", test_semantic);
    g_test_add_func("/package-version/any-text", test_any_text);
    return g_test_run();
}
