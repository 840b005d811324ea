/* SPDX-License-Identifier: Apache-2.0 */
/*
 * provisioner/sysprep.c: the judge over paths, and the same judgement in guests with and without find.
 */
#include "folder-guest-support.h"

#include "provisioner/guest-file.h"

#include <string.h>
#include <unistd.h>

static const struct {
    const char *path;
    char type;
    SysprepVerdict verdict;
} cases[] = {
    {"etc/machine-id", 'f', SYSPREP_EMPTY},
    {"var/lib/dbus/machine-id", 'f', SYSPREP_DROP},
    {"var/lib/dbus/machine-id", 'l', SYSPREP_KEEP},
    {"etc/ssh/ssh_host_ed25519_key", 'f', SYSPREP_DROP},
    {"etc/ssh/ssh_host_rsa_key.pub", 'f', SYSPREP_DROP},
    {"etc/ssh/sshd_config", 'f', SYSPREP_KEEP},
    {"srv/etc/ssh/ssh_host_rsa_key", 'f', SYSPREP_KEEP},
    {"var/lib/systemd/random-seed", 'f', SYSPREP_DROP},
    {"var/lib/systemd/credential.secret", 'f', SYSPREP_DROP},
    {"var/log", 'd', SYSPREP_KEEP},
    {"var/log/dpkg.log", 'f', SYSPREP_EMPTY},
    {"var/log/nginx", 'd', SYSPREP_KEEP},
    {"var/log/nginx/access.log", 'f', SYSPREP_EMPTY},
    {"var/log/nginx/access.log", 'h', SYSPREP_EMPTY},
    {"var/log/nginx/access.log.2.gz", 'f', SYSPREP_DROP},
    {"var/log/syslog.1", 'f', SYSPREP_DROP},
    {"var/log/messages-20240101", 'f', SYSPREP_DROP},
    {"var/log/README", 'l', SYSPREP_KEEP},
    {"var/log/journal", 'd', SYSPREP_EMPTY_DIR},
    {"var/logs/x.gz", 'f', SYSPREP_KEEP},
    {"var/cache/apt/pkgcache.bin", 'f', SYSPREP_DROP},
    {"var/cache/apt/archives", 'd', SYSPREP_KEEP},
    {"var/cache/apt/archives/partial", 'd', SYSPREP_KEEP},
    {"var/cache/apt/archives/a.deb", 'f', SYSPREP_DROP},
    {"var/lib/apt/lists/deb_InRelease", 'f', SYSPREP_DROP},
    {"var/lib/apt/extended_states", 'f', SYSPREP_KEEP},
    {"var/cache/dnf", 'd', SYSPREP_EMPTY_DIR},
    {"var/cache/ldconfig/aux-cache", 'f', SYSPREP_DROP},
    {"var/cache/debconf/templates.dat-old", 'f', SYSPREP_DROP},
    {"var/cache/debconf/templates.dat", 'f', SYSPREP_KEEP},
    {"var/lib/dpkg/status-old", 'f', SYSPREP_DROP},
    {"var/lib/dpkg/status", 'f', SYSPREP_KEEP},
    {"etc/shadow-", 'f', SYSPREP_DROP},
    {"etc/shadow", 'f', SYSPREP_KEEP},
    {"var/lib/cloud/instances", 'd', SYSPREP_DROP},
    {"var/lib/cloud/instance", 'l', SYSPREP_DROP},
    {"var/lib/cloud/seed", 'd', SYSPREP_KEEP},
    {"etc/udev/rules.d/70-persistent-net.rules", 'f', SYSPREP_DROP},
    {"root/.bash_history", 'f', SYSPREP_DROP},
    {"home/bob/.bash_history", 'f', SYSPREP_DROP},
    {"home/bob/.ssh/authorized_keys", 'f', SYSPREP_KEEP},
    {"var/spool/cron/crontabs/root", 'f', SYSPREP_KEEP},
    {"tmp", 'd', SYSPREP_EMPTY_DIR},
    {"run", 'd', SYSPREP_EMPTY_DIR},
    {"usr/bin/env", 'f', SYSPREP_KEEP},
};

static void test_verdicts(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        if (provisioner_sysprep_verdict(cases[i].path, cases[i].type, NULL) != cases[i].verdict)
            g_error("%s (%c): %d, not %d", cases[i].path, cases[i].type,
                    (int)provisioner_sysprep_verdict(cases[i].path, cases[i].type, NULL), (int)cases[i].verdict);
}

/* A root with every file and folder of the cases, and some beside them. */
static FolderGuest *make_root(bool with_commands)
{
    FolderGuest *fg = folder_guest_new(false);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *inside = g_strconcat(cases[i].path, "/some.file", NULL);
        if (cases[i].type == 'd')
            folder_guest_write(fg, inside, "inside");
        else if (cases[i].type == 'f')
            folder_guest_write(fg, cases[i].path, "text");
    }
    folder_guest_write(fg, "var/log/journal/abc/system.journal", "j");
    folder_guest_write(fg, "var/log/odd\nname.gz", "j");
    folder_guest_write(fg, "var/cache/dnf-5/x", "kept");
    folder_guest_write(fg, "var/cache/dnf/deep/er/x", "gone");
    folder_guest_write(fg, "var/lib/cloud/instances/i-1/user-data", "gone");
    if (with_commands) {
        folder_guest_write(fg, "bin/sh", "");
        folder_guest_write(fg, "usr/bin/find", "");
        folder_guest_write(fg, "usr/bin/xargs", "");
    }
    return fg;
}

static bool is_step_mount(const char *path)
{
    return strcmp(path, "tmp") == 0 || strcmp(path, "run") == 0;
}

static void assert_case(FolderGuest *fg, const char *path, char type, SysprepVerdict verdict)
{
    g_autofree char *text = type == 'f' ? folder_guest_read(fg, path) : NULL;
    g_autofree char *inside = g_strconcat(path, "/some.file", NULL);

    switch (verdict) {
    case SYSPREP_KEEP:
        g_assert_true(folder_guest_has(fg, path));
        if (type == 'f')
            g_assert_cmpstr(text, ==, "text");
        break;
    case SYSPREP_DROP:
        g_assert_false(folder_guest_has(fg, path));
        break;
    case SYSPREP_EMPTY:
        g_assert_cmpstr(text, ==, "");
        break;
    case SYSPREP_EMPTY_DIR:
        g_assert_true(folder_guest_has(fg, path));
        g_assert_false(folder_guest_has(fg, inside));
        break;
    }
}

static void clean_and_compare(bool with_commands)
{
    g_autoptr(FolderGuest) fg = make_root(with_commands);
    ProvisionerHost host = folder_guest_host(fg, "/");
    g_autoptr(GError) error = NULL;

    provisioner_sysprep(&host, NULL, &fg->guest, &error);
    g_assert_no_error(error);
    g_assert_cmpint(fg->ran->len, ==, with_commands ? 2 : 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        if (cases[i].type != 'l' && cases[i].type != 'h' && (with_commands || !is_step_mount(cases[i].path)))
            assert_case(fg, cases[i].path, cases[i].type, cases[i].verdict);
    g_assert_false(folder_guest_has(fg, "var/log/journal/abc"));
    g_assert_false(folder_guest_has(fg, "var/log/odd\nname.gz"));
    g_assert_false(folder_guest_has(fg, "var/cache/dnf/deep"));
    g_assert_true(folder_guest_has(fg, "var/cache/dnf-5/x"));
    g_assert_false(folder_guest_has(fg, "tmp/.kiln-sysprep"));
}

static void test_by_commands(void)
{
    clean_and_compare(true);
}

static void test_by_port(void)
{
    clean_and_compare(false);
}

/* A link in place of a log must not lead the cleaning out of the image. */
static void test_links_are_not_followed(void)
{
    g_autoptr(FolderGuest) fg = make_root(true);
    ProvisionerHost host = folder_guest_host(fg, "/");
    g_autofree char *log = g_build_filename(fg->root, "var/log/link.log", NULL),
                    *data = g_build_filename(fg->root, "srv/data", NULL);
    g_autofree char *tmp = g_build_filename(fg->root, "tmp/link", NULL), *text = NULL;
    g_autoptr(GError) error = NULL;

    folder_guest_write(fg, "srv/data", "precious");
    g_assert_cmpint(symlink(data, log), ==, 0);
    g_assert_cmpint(symlink(data, tmp), ==, 0);
    provisioner_sysprep(&host, NULL, &fg->guest, &error);
    g_assert_no_error(error);
    text = folder_guest_read(fg, "srv/data");
    g_assert_cmpstr(text, ==, "precious");
    g_assert_true(folder_guest_has(fg, "var/log/link.log"));
    g_assert_false(folder_guest_has(fg, "tmp/link"));
}

static void test_ssh_unit(void)
{
    g_autoptr(FolderGuest) fg = make_root(true);
    ProvisionerHost host = folder_guest_host(fg, "/");
    g_autoptr(GError) error = NULL;
    const char *const link = "etc/systemd/system/ssh.service.wants/kiln-ssh-host-keys.service";

    provisioner_sysprep(&host, NULL, &fg->guest, &error);
    g_assert_no_error(error);
    g_assert_false(folder_guest_has(fg, link));
    folder_guest_write(fg, "usr/sbin/sshd", "");
    folder_guest_write(fg, "lib/systemd/system/ssh.service", "");
    for (int i = 0; i < 2; i++) { /* twice is harmless */
        provisioner_sysprep(&host, NULL, &fg->guest, &error);
        g_assert_no_error(error);
        g_autofree char *unit = folder_guest_read(fg, "etc/systemd/system/kiln-ssh-host-keys.service");
        g_assert_nonnull(unit);
        g_assert_nonnull(strstr(unit, "ssh-keygen -A"));
        g_assert_true(folder_guest_has(fg, link));
    }
}

static const char *const more[] = {"/srv/app/*.pid", "/opt/x y/**", "/usr/**/__pycache__", "/var/log/keep?.log", "/data[12]", NULL};

/* What a template's patterns do, on a host's tree and in a guest. @path is written with "text". */
static const struct {
    const char *path;
    bool goes;
} volatile_cases[] = {
    {"srv/app/a.pid", true},        {"srv/app/deep/a.pid", false}, {"srv/app/a.conf", false},     {"opt/x y/a/b", true},
    {"usr/lib/a/__pycache__/m.pyc", true}, {"usr/__pycache__/m.pyc", true}, {"usr/lib/a/m.pyc", false}, {"var/log/keep1.log", true},
    {"data1/a/b", true},            {"data3/a/b", false},          {"usr/bin/env", false},
};

static bool goes(const char *path)
{
    g_autofree char *up = g_strdup(path);

    for (char type = 'f'; *up; type = 'd') {
        char *slash = strrchr(up, '/');

        if (provisioner_sysprep_verdict(up, type, more) == SYSPREP_DROP)
            return true;
        *(slash ? slash : up) = '\0';
    }
    return false;
}

static void check_volatile(bool with_commands)
{
    g_autoptr(FolderGuest) fg = make_root(with_commands);
    ProvisionerHost host = folder_guest_host(fg, "/");
    g_autoptr(GError) error = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(volatile_cases); i++)
        folder_guest_write(fg, volatile_cases[i].path, "text");
    provisioner_sysprep(&host, more, &fg->guest, &error);
    g_assert_no_error(error);
    for (size_t i = 0; i < G_N_ELEMENTS(volatile_cases); i++) {
        if (goes(volatile_cases[i].path) != volatile_cases[i].goes || folder_guest_has(fg, volatile_cases[i].path) == volatile_cases[i].goes)
            g_error("%s: expected to %s", volatile_cases[i].path, volatile_cases[i].goes ? "go" : "stay");
    }
}

static void test_volatile_paths(void)
{
    check_volatile(true);
    check_volatile(false);
}

static void test_volatile_patterns(void)
{
    static const char *const good[] = {"/a", "/a/*", "/a/b?/c[0-9]", "/a/**", "/**/*.pyc", "/a/**/x*", "/a b/c"};
    static const char *const bad[] = {"", "a", "/", "/*", "/**", "/*/*", "/a/../b", "/a//b", "/a/", "/./a", "/a'b", "/a\nb", "/a\\b",
                                      "/a**", "/a/**b", "/a/*/**", "/a/**/b/c", "/a/**/**"};

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++)
        if (!provisioner_sysprep_check(good[i], NULL))
            g_error("'%s' is refused", good[i]);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        if (provisioner_sysprep_check(bad[i], &error))
            g_error("'%s' is taken", bad[i]);
        g_assert_nonnull(error);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sysprep/verdicts", test_verdicts);
    g_test_add_func("/sysprep/guest-with-find-agrees", test_by_commands);
    g_test_add_func("/sysprep/guest-without-a-shell-agrees", test_by_port);
    g_test_add_func("/sysprep/links-are-not-followed", test_links_are_not_followed);
    g_test_add_func("/sysprep/sshd-gets-keys-at-first-boot", test_ssh_unit);
    g_test_add_func("/sysprep/volatile-paths-of-a-template", test_volatile_paths);
    g_test_add_func("/sysprep/volatile-patterns", test_volatile_patterns);
    return g_test_run();
}
