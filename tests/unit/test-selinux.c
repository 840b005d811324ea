/* SPDX-License-Identifier: Apache-2.0 */
/*
 * provisioner/selinux.c: when a guest is labelled at the seal, by which command, and when that is an error. The setfiles here is a script that
 * says how it was called.
 */
#include "baker/guest-open.h"
#include "base/error.h"
#include "base/file.h"
#include "provisioner/provisioner.h"
#include "provisioner/selinux.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static void test_configurations(void)
{
    static const struct {
        const char *text;
        bool on;
        const char *type;
    } cases[] = {
        {"", false, NULL},
        {"# SELINUX=enforcing\nSELINUX=disabled\nSELINUXTYPE=targeted\n", false, "targeted"},
        {"SELINUX=enforcing\nSELINUXTYPE=targeted\n", true, "targeted"},
        {" SELINUX = Permissive # for now\n\tSELINUXTYPE=\tdefault \r\n", true, "default"},
        {"SELINUX=enforcing\nSELINUXTYPE=../../etc\n", true, NULL},
        {"SELINUXTYPE=a\nSELINUXTYPE=b\nSELINUX=enforcing\nSELINUX=disabled", false, "b"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *type = NULL;

        g_assert_cmpint(provisioner_wants_labels(cases[i].text, &type), ==, cases[i].on);
        g_assert_cmpstr(type, ==, cases[i].type);
    }
}

static void write_file(const char *root, const char *path, const char *text, mode_t mode)
{
    g_autofree char *full = g_build_filename(root, path, NULL), *folder = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(folder, 0755), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
    g_assert_cmpint(chmod(full, mode), ==, 0);
}

static char *make_root(void)
{
    char *root = g_dir_make_tmp("kiln-selinux-XXXXXX", NULL);

    write_file(root, "etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n", 0644);
    write_file(root, ".autorelabel", "", 0644);
    return root;
}

/* NULL: all went well; else the sentence. */
static char *relabel(const char *root)
{
    GuestStep step = {.name = "seal"};
    ProvisionerHost host = {0};
    g_autoptr(GError) error = NULL;
    Guest *guest = NULL;
    bool ok;

    g_assert_true(guest_fake_open(root, &guest, NULL));
    g_assert_true(guest->ops->begin(guest, &step, NULL));
    ok = selinux_relabel(&host, guest, &error);
    g_assert_true(guest->ops->end(guest, NULL));
    guest->ops->kill(guest);
    g_assert_cmpint(ok, ==, error == NULL);
    return error ? g_strdup(error->message) : NULL;
}

static void test_labels(void)
{
    g_autofree char *root = make_root(), *log = g_build_filename(root, "log", NULL), *mark = g_build_filename(root, ".autorelabel", NULL), *said = NULL,
                    *text = NULL, *expected = NULL;

    g_assert_null(relabel(root)); /* no policy: nothing to label by, and nothing is touched */
    g_assert_cmpint(access(mark, F_OK), ==, 0);
    write_file(root, "etc/selinux/targeted/policy/policy.33", "", 0644);
    said = relabel(root);
    g_assert_nonnull(strstr(said, "has no rules for files"));
    g_clear_pointer(&said, g_free);
    write_file(root, "etc/selinux/targeted/contexts/files/file_contexts", "", 0644);
    said = relabel(root);
    g_assert_nonnull(strstr(said, "no setfiles"));
    g_clear_pointer(&said, g_free);
    write_file(root, "usr/sbin/setfiles", "#!/bin/sh\necho \"$@\" >\"$KILN_FAKE_ROOT/log\"; exit 3\n", 0755);
    said = relabel(root);
    g_assert_nonnull(strstr(said, "could not label"));
    g_assert_cmpint(access(mark, F_OK), ==, 0);
    g_clear_pointer(&said, g_free);
    write_file(root, "usr/sbin/setfiles", "#!/bin/sh\necho \"$@\" >\"$KILN_FAKE_ROOT/log\"\n", 0755);
    g_assert_null(relabel(root));
    g_assert_cmpint(access(mark, F_OK), !=, 0);
    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    expected = g_strdup_printf("-F -m -r %s %s/etc/selinux/targeted/contexts/files/file_contexts %s\n", root, root, root);
    g_assert_cmpstr(text, ==, expected);
    g_assert_true(file_remove_tree(AT_FDCWD, root, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/selinux/configurations", test_configurations);
    g_test_add_func("/selinux/labels-or-says-why-not", test_labels);
    return g_test_run();
}
