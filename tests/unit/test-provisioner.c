/* SPDX-License-Identifier: Apache-2.0 */
/*
 * provisioner/: arguments, inputs, and what each member does to a guest that is a folder.
 */
#include "provisioner-bench-support.h"

#include "base/error.h"
#include "provisioner/apt-sources.h"

#include <string.h>
#include <sys/stat.h>

static bool check(const char *type, const char *text, const char **ret_argument, GError **error)
{
    g_autoptr(json_t) args = bench_parse(text);
    *ret_argument = NULL;
    return provisioner_find(type)->check(args, ret_argument, error);
}

/* check, inputs and run as a bake does it */
static bool run(Bench *b, const char *type, const char *text, GError **error)
{
    const ProvisionerOps *ops = provisioner_find(type);
    g_autoptr(json_t) args = bench_parse(text);
    g_autoptr(GPtrArray) inputs = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);
    const char *argument = NULL;

    if (!ops->check(args, &argument, error) || (ops->inputs && !ops->inputs(args, &b->host, inputs, error)))
        return false;
    return ops->run(args, &b->host, &b->fg->guest, error);
}

static void works(Bench *b, const char *type, const char *text)
{
    g_autoptr(GError) error = NULL;

    run(b, type, text, &error);
    g_assert_no_error(error);
}

static void fails(Bench *b, const char *type, const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(run(b, type, text, &error));
    g_assert_cmpstr(error->message, ==, message);
}

static void refused(const char *type, const char *text, const char *argument, const char *part)
{
    g_autoptr(GError) error = NULL;
    const char *at = NULL;

    if (check(type, text, &at, &error))
        g_error("%s %s was accepted", type, text);
    g_assert_cmpint(error->code, ==, KILN_ERROR_USAGE);
    g_assert_cmpstr(at, ==, argument);
    if (!strstr(error->message, part))
        g_error("%s %s: '%s', not '%s'", type, text, error->message, part);
}

/* ---- the family ---- */

static void test_table(void)
{
    for (const char *const *type = provisioner_types(); *type; type++) {
        const ProvisionerOps *ops = provisioner_find(*type);
        g_assert_nonnull(ops);
        g_assert_nonnull(ops->arguments);
        g_assert_nonnull(ops->arguments[0]);
        g_assert_nonnull(ops->check);
        g_assert_nonnull(ops->run);
    }
    g_assert_null(provisioner_find("windows-shell"));
}

static void test_checks(void)
{
    refused("shell", "{}", NULL, "one of inline, script, scripts is needed");
    refused("shell", "{\"inline\":[\"a\"],\"script\":\"b\"}", "script", "cannot stand beside 'inline'");
    refused("shell", "{\"inline\":{\"a\":1}}", "inline", "a list of strings");
    refused("shell", "{\"inline\":[\"a\"],\"binary\":\"maybe\"}", "binary", "true or false");
    refused("shell", "{\"inline\":[\"a\"],\"valid_exit_codes\":[256]}", "valid_exit_codes", "0 to 255");
    refused("shell", "{\"inline\":[\"a\"],\"environment_vars\":[\"A\"]}", "environment_vars", "NAME=value");
    refused("shell", "{\"inline\":[\"a\"],\"env\":{\"A-B\":\"x\"}}", "env", "A-B");
    refused("shell", "{\"inline\":[\"a\"],\"env_var_format\":\"%d\"}", "env_var_format", "%s twice");
    refused("shell", "{\"inline\":[\"a\"],\"pause_after\":\"soon\"}", "pause_after", "duration");
    refused("file", "{\"source\":\"a\"}", NULL, "'destination' is needed");
    refused("file", "{\"destination\":\"/a\"}", NULL, "one of source, sources, content");
    refused("file", "{\"content\":\"a\",\"destination\":\"a\"}", "destination", "absolute");
    refused("file", "{\"content\":\"a\",\"destination\":\"/a/\"}", "destination", "name a file");
    refused("file", "{\"content\":\"a\",\"destination\":\"/a\",\"mode\":644}", "mode", "octal");
    refused("file", "{\"content\":\"a\",\"destination\":\"/a\",\"mode\":\"0999\"}", "mode", "octal");
    refused("file", "{\"source\":\"/a\",\"destination\":\"b\",\"direction\":\"sideways\"}", "direction",
            "sideways");
    refused("packages", "{}", NULL, "one of install");
    refused("packages", "{\"install\":[\"-oDir=x\"]}", "install", "no package name");
    refused("packages", "{\"install\":[\"nginx-\"]}", "install", "no package name");
    refused("packages", "{\"install\":[\"a b\"]}", "install", "no package name");
    refused("packages", "{\"remove\":[\"$(id)\"]}", "remove", "no package name");
    refused("packages", "{\"upgrade\":\"some\"}", "upgrade", "security");
    refused("shell-local", "{\"only_on\":[\"amiga\"],\"command\":\"a\"}", "only_on", "amiga");
    refused("test", "{}", NULL, "is needed");
    refused("test", "{\"files\":[\"a\"]}", "files", "absolute");
    refused("sleep", "{}", NULL, "duration");
}

static void test_good_arguments(void)
{
    static const struct {
        const char *type, *args;
    } good[] = {
        {"shell", "{\"inline\":\"a\",\"env\":{\"PORT\":80},\"script\":null,\"pause_after\":\"5s\",\"expect_"
                  "disconnect\":true}"},
        {"packages", "{\"install\":[\"g++\",\"libc6:amd64=2.36-9+deb12u9\",\"nginx/"
                     "bookworm-backports\",\"0ad\"],\"upgrade\":\"all\"}"},
        {"file", "{\"sources\":[\"a\",\"b/\"],\"destination\":\"{{ template_dir "
                 "}}/x\",\"mode\":\"0640\",\"generated\":true}"},
        {"shell-local", "{\"command\":\"true\",\"execute_command\":[\"bash\",\"{{.Script}}\"]}"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) error = NULL;
        const char *argument;
        check(good[i].type, good[i].args, &argument, &error);
        g_assert_no_error(error);
    }
}

/* ---- inputs ---- */

static char *declared(Bench *b, const char *glob, GError **error)
{
    g_autoptr(GPtrArray) inputs = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);
    const char *const globs[] = {glob, NULL};
    GString *names = g_string_new(NULL);

    if (!provisioner_declared_inputs(globs, &b->host, inputs, error))
        g_string_append(names, "none");
    for (guint i = 0; i < inputs->len; i++)
        g_string_append_printf(names, "%s ", ((ProvisionerInput *)inputs->pdata[i])->name);
    return g_string_free(names, FALSE);
}

static void test_declared_inputs(Bench *b, gconstpointer arg)
{
    static const struct {
        const char *glob, *names;
    } cases[] = {
        {"src/main.c", "src/main.c "},
        {"src/*.c", "src/main.c "},
        {"src/**/*.c", "src/lib/deep/x.c src/lib/y.c src/main.c "},
        {"**/y.[ch]", "src/lib/y.c "},
        {"src/lib", "src/lib src/lib/deep src/lib/deep/x.c src/lib/y.c "},
        {"src/l*", "src/lib src/lib/deep src/lib/deep/x.c src/lib/y.c "},
        {"src/lib/?.c", "src/lib/y.c "},
    };

    bench_write(b, "src/main.c", "1", 0644);
    bench_write(b, "src/lib/y.c", "2", 0644);
    bench_write(b, "src/lib/deep/x.c", "3", 0644);
    bench_write(b, "other.c", "4", 0644);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *names = declared(b, cases[i].glob, &error);

        g_assert_no_error(error);
        g_assert_cmpstr(names, ==, cases[i].names);
    }
    for (const char *const *glob = (const char *const[]){"src/*.h", "absent", "absent/*", NULL}; *glob; glob++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *names = declared(b, *glob, &error);

        g_assert_error(error, KILN_ERROR, KILN_ERROR_NOT_FOUND);
    }
}

static void test_a_name_that_is_no_utf8(Bench *b, gconstpointer arg)
{
    g_autofree char *names = NULL;
    g_autoptr(GError) error = NULL;

    bench_write(b, "src/a\377b", "1", 0644);
    names = declared(b, "src/*", &error);
    g_assert_cmpstr(names, ==, "none");
    g_assert_nonnull(strstr(error->message, "no UTF-8"));
}

static void test_inputs(Bench *b, gconstpointer arg)
{
    g_autoptr(GPtrArray) inputs = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);
    g_autoptr(json_t) args = bench_parse("{\"source\":\"conf\",\"destination\":\"/etc\"}");
    g_autofree char *link = g_build_filename(b->folder, "conf/link", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) names = g_string_new(NULL);
    Digest want;

    bench_write(b, "conf/b", "content", 0644);
    bench_write(b, "conf/a.d/x", "1", 0600);
    g_assert_cmpint(symlink("b", link), ==, 0);
    provisioner_find("file")->inputs(args, &b->host, inputs, &error);
    g_assert_no_error(error);
    for (guint i = 0; i < inputs->len; i++)
        g_string_append_printf(names, "%s ", ((ProvisionerInput *)inputs->pdata[i])->name);
    g_assert_cmpstr(names->str, ==, "conf conf/a.d conf/a.d/x conf/b conf/link ");
    digest_of("content", 7, &want);
    g_assert_true(digest_equal(&want, &((ProvisionerInput *)inputs->pdata[3])->digest));
    g_assert_cmpint(((ProvisionerInput *)inputs->pdata[2])->mode, ==, S_IFREG | 0600);
    g_assert_true(S_ISLNK(((ProvisionerInput *)inputs->pdata[4])->mode));
}

static void test_missing_input(Bench *b, gconstpointer arg)
{
    fails(b, "file", "{\"source\":\"nope\",\"destination\":\"/etc/\"}",
          "file provisioner: cannot read \"nope\": no such file");
    fails(b, "shell", "{\"script\":\"nope.sh\"}", "shell provisioner: cannot read \"nope.sh\": no such file");
}

/* ---- shell ---- */

static void test_shell_command_line(Bench *b, gconstpointer arg)
{
    b->fg->exec_code = 0;
    works(b, "shell",
          "{\"inline\":[\"a\"],\"environment_vars\":[\"Z=it's\",\"A=1\"],\"env\":{\"M\":\"x "
          "y\"},\"skip_clean\":true}");
    g_assert_cmpstr(
        b->fg->ran->pdata[0], ==,
        "chmod +x /tmp/script_0001.sh; A='1' M='x y' PACKER_BUILDER_TYPE='bootstrap' PACKER_BUILD_NAME='web' "
        "Z='it'\"'\"'s'  /tmp/script_0001.sh");
    g_assert_cmpstr(b->fg->env->pdata[0], ==, "SOURCE_DATE_EPOCH=1700000000");
    g_autofree char *text = folder_guest_read(b->fg, "tmp/script_0001.sh");
    g_assert_cmpstr(text, ==, "#!/bin/sh -e\na\n");
}

static void test_shell_env_file(Bench *b, gconstpointer arg)
{
    b->fg->exec_code = 0;
    folder_guest_write(b->fg, "opt/x", "");
    works(b, "shell",
          "{\"inline\":[\"a\"],\"env\":{\"A\":\"1\"},\"use_env_var_file\":true,\"skip_clean\":true,"
          "\"remote_folder\":\"/opt\",\"remote_file\":\"s\"}");
    g_assert_cmpstr(b->fg->ran->pdata[0], ==, "chmod +x /opt/s; . /opt/varfile_0001 && /opt/s");
    g_autofree char *text = folder_guest_read(b->fg, "opt/varfile_0001");
    g_assert_cmpstr(text, ==,
                    "export A='1'\nexport PACKER_BUILDER_TYPE='bootstrap'\nexport PACKER_BUILD_NAME='web'\n");
}

static void test_shell_runs(Bench *b, gconstpointer arg)
{
    bench_write(b, "one.sh", "#!/bin/sh\r\necho one $WHO >>result\r\n", 0644);
    bench_write(b, "two.sh", "#!/bin/sh\necho two $PACKER_BUILD_NAME >>result\necho loud\n", 0644);
    works(b, "shell",
          "{\"scripts\":[\"one.sh\",\"two.sh\"],\"env\":{\"WHO\":\"me\"},"
          "\"execute_command\":\"{{.Vars}} sh .{{.Path}}\"}");
    g_autofree char *text = folder_guest_read(b->fg, "result");
    g_assert_cmpstr(text, ==, "one me\ntwo web\n");
    g_assert_nonnull(strstr(b->fg->output->str, "loud\n"));
    g_assert_false(folder_guest_has(b->fg, "tmp/script_0001.sh"));
}

static void test_shell_exit_codes(Bench *b, gconstpointer arg)
{
    bench_write(b, "three.sh", "exit 3\n", 0644);
    fails(b, "shell", "{\"inline\":[\"exit 3\"],\"execute_command\":\"sh .{{.Path}}\"}",
          "inline script exited with 3; valid codes are 0");
    fails(b, "shell",
          "{\"script\":\"three.sh\",\"execute_command\":\"sh .{{.Path}}\",\"valid_exit_codes\":[0,2]}",
          "script \"three.sh\" exited with 3; valid codes are 0, 2");
    works(b, "shell",
          "{\"script\":\"three.sh\",\"execute_command\":\"sh .{{.Path}}\",\"valid_exit_codes\":[3]}");
}

static void test_shell_without_sh(Bench *b, gconstpointer arg)
{
    g_autofree char *sh = g_build_filename(b->fg->root, "bin/sh", NULL);
    g_assert_cmpint(unlink(sh), ==, 0);
    fails(b, "shell", "{\"inline\":[\"a\"]}", "shell provisioner: the guest has no /bin/sh");
}

/* ---- file ---- */

static void test_file_slashes(Bench *b, gconstpointer arg)
{
    bench_write(b, "conf/app.conf", "x", 0640);
    bench_write(b, "conf/sub/run.sh", "y", 0755);
    bench_write(b, "a.txt", "z", 0644);
    works(b, "file", "{\"source\":\"conf\",\"destination\":\"/etc\"}");
    g_assert_true(folder_guest_has(b->fg, "etc/conf/sub/run.sh"));
    works(b, "file", "{\"source\":\"conf/\",\"destination\":\"/srv/app\"}");
    g_assert_true(folder_guest_has(b->fg, "srv/app/app.conf"));
    g_assert_false(folder_guest_has(b->fg, "srv/app/conf"));
    works(b, "file", "{\"source\":\"a.txt\",\"destination\":\"/new/\"}");
    g_assert_true(folder_guest_has(b->fg, "new/a.txt"));
    works(b, "file", "{\"source\":\"a.txt\",\"destination\":\"/new\"}"); /* a folder by now */
    works(b, "file", "{\"source\":\"a.txt\",\"destination\":\"/b/c.txt\"}");
    g_assert_true(folder_guest_has(b->fg, "b/c.txt"));
    works(b, "file", "{\"sources\":[\"a.txt\",\"conf\"],\"destination\":\"/many\"}");
    g_assert_true(folder_guest_has(b->fg, "many/a.txt"));
    g_assert_true(folder_guest_has(b->fg, "many/conf/app.conf"));
}

static void test_file_meta(Bench *b, gconstpointer arg)
{
    g_autofree char *link = g_build_filename(b->folder, "conf/link", NULL),
                    *in_guest = g_build_filename(b->fg->root, "etc/link", NULL);
    g_autofree char *sh = g_build_filename(b->fg->root, "etc/run.sh", NULL),
                    *etc = g_build_filename(b->fg->root, "etc", NULL);
    g_autofree char *made = g_build_filename(b->fg->root, "etc/owned", NULL), *target = NULL;
    struct stat st;

    folder_guest_write(b->fg, "etc/passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:34::/:/bin/sh\n");
    folder_guest_write(b->fg, "etc/group", "root:x:0:\nwww-data:x:34:\n");
    g_assert_cmpint(chmod(etc, 0711), ==, 0);
    bench_write(b, "conf/run.sh", "x", 0751);
    g_assert_cmpint(symlink("/nowhere", link), ==, 0);
    works(b, "file", "{\"source\":\"conf/\",\"destination\":\"/etc/\"}");
    g_assert_cmpint(stat(sh, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 07777, ==, 0751);
    g_assert_cmpint(st.st_mtime, ==, 1700000000);
    target = g_file_read_link(in_guest, NULL);
    g_assert_cmpstr(target, ==, "/nowhere");
    g_assert_cmpint(stat(etc, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 07777, ==, 0711); /* what exists is not ours to change */

    works(b, "file",
          "{\"content\":\"hello {{ build_name "
          "}}\",\"destination\":\"/etc/owned\",\"owner\":\"www-data\",\"group\":\"34\",\"mode\":\"4750\"}");
    g_assert_cmpint(stat(made, &st), ==, 0);
    g_assert_cmpint(st.st_uid, ==, 33);
    g_assert_cmpint(st.st_gid, ==, 34);
    g_assert_cmpint(st.st_mode & 07777, ==, 04750);
    g_autofree char *text = folder_guest_read(b->fg, "etc/owned");
    g_assert_cmpstr(text, ==, "hello web");
    fails(b, "file", "{\"content\":\"\",\"destination\":\"/x\",\"owner\":\"bob\"}",
          "file provisioner: \"bob\" is not in the guest's /etc/passwd");
}

static void test_file_names(Bench *b, gconstpointer arg)
{
    bench_write(b, "odd/with space", "1", 0644);
    bench_write(b, "odd/new\nline", "2", 0644);
    bench_write(b, "odd/\xc3\xbc-utf8", "3", 0644);
    works(b, "file", "{\"source\":\"odd/\",\"destination\":\"/odd dir/\"}");
    g_assert_true(folder_guest_has(b->fg, "odd dir/with space"));
    g_assert_true(folder_guest_has(b->fg, "odd dir/new\nline"));
    g_assert_true(folder_guest_has(b->fg, "odd dir/\xc3\xbc-utf8"));
}

static void test_file_download(Bench *b, gconstpointer arg)
{
    g_autofree char *one = g_build_filename(b->folder, "out/one.txt", NULL),
                    *two = g_build_filename(b->folder, "tree/d/sub/x", NULL);
    g_autofree char *text = NULL;

    folder_guest_write(b->fg, "var/one.txt", "guest's");
    folder_guest_write(b->fg, "d/sub/x", "deep");
    works(b, "file", "{\"direction\":\"download\",\"source\":\"/var/one.txt\",\"destination\":\"out/\"}");
    g_assert_true(g_file_get_contents(one, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "guest's");
    works(b, "file", "{\"direction\":\"download\",\"source\":\"/d\",\"destination\":\"tree/\"}");
    g_assert_true(g_file_test(two, G_FILE_TEST_IS_REGULAR));
    fails(b, "file", "{\"direction\":\"download\",\"source\":\"/nope\",\"destination\":\"x\"}",
          "file provisioner: cannot read \"/nope\" in the guest: no such file");
    g_autoptr(json_t) args = bench_parse("{\"direction\":\"download\"}");
    g_assert_true(provisioner_always_runs(provisioner_find("file"), args));
}

/* ---- packages ---- */

static void test_packages_apt_line(Bench *b, gconstpointer arg)
{
    folder_guest_write(b->fg, "usr/bin/apt-get", "");
    b->fg->exec_code = 0;
    works(b, "packages", "{\"install\":[\"nginx-light\"],\"remove\":[\"nano\"],\"upgrade\":\"all\"}");
    g_assert_cmpint(b->fg->ran->len, ==, 4);
    g_assert_cmpstr(b->fg->ran->pdata[0], ==, "update");
    g_assert_cmpstr(b->fg->ran->pdata[1], ==, "nginx-light");
    g_assert_cmpstr(b->fg->ran->pdata[2], ==, "nano");
    g_assert_cmpstr(b->fg->ran->pdata[3], ==, "upgrade");
    g_assert_true(
        g_ptr_array_find_with_equal_func(b->fg->env, "DEBIAN_FRONTEND=noninteractive", g_str_equal, NULL));
}

static void test_packages_errors(Bench *b, gconstpointer arg)
{
    fails(b, "packages", "{\"install\":[\"x\"]}",
          "packages provisioner: the guest has none of apt-get, dnf, apk");
    folder_guest_write(b->fg, "usr/bin/apt-get", "");
    b->fg->exec_code = 100;
    b->host.network = false; /* so that install is the first call */
    b->fg->exec_errors = "Reading...\nE: Unable to locate package nosuch\n";
    fails(b, "packages", "{\"install\":[\"nosuch\"]}",
          "package 'nosuch' does not exist in the guest's package sources");
    b->fg->exec_errors = "E: Package 'ghost' has no installation candidate\n";
    fails(b, "packages", "{\"install\":[\"ghost\"]}",
          "package 'ghost' does not exist in the guest's package sources");
    b->fg->exec_errors = "W: x\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n";
    fails(b, "packages", "{\"install\":[\"a\"]}",
          "apt-get install failed with exit code 100: Sub-process /usr/bin/dpkg returned an error code (1)");
    b->host.network = true;
    b->fg->exec_errors = "E: Failed to fetch http://x/InRelease  Could not resolve 'x'\n";
    fails(
        b, "packages", "{\"install\":[\"a\"]}",
        "cannot fetch the guest's package lists: Failed to fetch http://x/InRelease  Could not resolve 'x'");
}

static void test_security_sources(Bench *b, gconstpointer arg)
{
    g_autoptr(GString) list = g_string_new(NULL);

    apt_sources_security("# deb http://x bookworm-security main\ndeb http://d bookworm main\n"
                         "deb [signed-by=/k.gpg arch=amd64] http://s bookworm-security main contrib # why\n"
                         "deb-src http://s bookworm-security main\ndeb http://old buster/updates main\n",
                         false, list);
    g_assert_cmpstr(list->str, ==,
                    "deb [signed-by=/k.gpg arch=amd64] http://s bookworm-security main contrib\ndeb "
                    "http://old buster/updates main\n");
    g_string_truncate(list, 0);
    apt_sources_security(
        "Types: deb deb-src\nURIs: http://d\nSuites: trixie trixie-updates\nComponents: main\n\n"
        "# c\nTypes: deb\nURIs: http://s\nSuites: trixie-security\n foo-security\nComponents: main "
        "contrib\nSigned-By: /k.gpg\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off\nSuites: x-security\n",
        true, list);
    g_assert_cmpstr(list->str, ==,
                    "deb [signed-by=/k.gpg] http://s trixie-security main contrib\n"
                    "deb [signed-by=/k.gpg] http://s foo-security main contrib\n");
}

static void test_packages_security(Bench *b, gconstpointer arg)
{
    folder_guest_write(b->fg, "usr/bin/apt-get", "");
    b->fg->exec_code = 0;
    fails(b, "packages", "{\"upgrade\":\"security\"}",
          "upgrade = \"security\": no package source of the guest has a suite that ends in -security");
    folder_guest_write(b->fg, "etc/apt/sources.list", "deb http://s a-security main\n");
    folder_guest_write(b->fg, "etc/apt/sources.list.d/more.sources",
                       "Types: deb\nURIs: http://t\nSuites: b-security\nComponents: main\n");
    works(b, "packages", "{\"upgrade\":\"security\"}");
    g_autofree char *text = folder_guest_read(b->fg, "tmp/kiln-security.list");
    g_assert_cmpstr(text, ==, "deb http://s a-security main\ndeb http://t b-security main\n");
}

/* ---- shell-local, test, sleep ---- */

static void test_shell_local(Bench *b, gconstpointer arg)
{
    g_autofree char *out = g_build_filename(b->folder, "out", NULL), *text = NULL;

    bench_write(b, "s.sh", "#!/bin/sh\necho script $X >>out\n", 0755);
    works(b, "shell-local", "{\"command\":\"echo $PACKER_BUILD_NAME $SOURCE_DATE_EPOCH >>out; echo said\"}");
    works(b, "shell-local", "{\"inline\":[\"echo in\",\"echo line >>out\"],\"tempfile_extension\":\"sh\"}");
    works(b, "shell-local", "{\"script\":\"s.sh\",\"env\":{\"X\":\"it's\"}}");
    works(b, "shell-local", "{\"command\":\"echo never >>out\",\"only_on\":[\"windows\"]}");
    g_assert_true(g_file_get_contents(out, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "web 1700000000\nline\nscript it's\n");
    g_assert_nonnull(strstr(b->fg->output->str, "said\n"));
    fails(b, "shell-local", "{\"command\":\"exit 5\"}",
          "inline script on the host exited with 5; valid codes are 0");
    bench_write(b, "n.sh", "#!/bin/sh\n", 0644);
    fails(b, "shell-local", "{\"script\":\"n.sh\"}",
          "script \"n.sh\" on the host exited with 126: it is not executable (chmod +x)");
}

/* On the host, too: what ignores SIGTERM gets a second more, and the scripts of one step share its time. */
static void test_shell_local_limit(Bench *b, gconstpointer arg)
{
    gint64 start = g_get_monotonic_time();

    b->host.deadline = start + G_USEC_PER_SEC / 2;
    fails(b, "shell-local", "{\"inline\":[\"trap '' TERM\",\"while :; do sleep 0.1; done\"]}",
          "inline script on the host passed the step's time limit and was stopped");
    g_assert_cmpint(g_get_monotonic_time() - start, <, 2 * G_USEC_PER_SEC + G_USEC_PER_SEC / 2);
    bench_write(b, "s.sh", "#!/bin/sh\nsleep 0.3\n", 0755);
    b->host.deadline = g_get_monotonic_time() + G_USEC_PER_SEC / 2;
    fails(b, "shell-local", "{\"scripts\":[\"s.sh\",\"s.sh\"]}",
          "script \"s.sh\" on the host passed the step's time limit and was stopped");
    b->host.deadline = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
    works(b, "shell-local", "{\"scripts\":[\"s.sh\",\"s.sh\"]}");
}

static void test_test(Bench *b, gconstpointer arg)
{
    folder_guest_write(b->fg, "var/lib/dpkg/status",
                       "Package: nginx-light\nStatus: install ok installed\nArchitecture: amd64\n\n"
                       "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\n\n"
                       "Package: held\nStatus: hold ok installed\nArchitecture: all");
    folder_guest_write(b->fg, "etc/systemd/system/multi-user.target.wants/nginx.service", "");
    folder_guest_write(b->fg, "etc/rc2.d/S01cron", "");
    works(b, "test",
          "{\"packages\":[\"nginx-light\",\"nginx-light:amd64\",\"held\"],\"enabled\":[\"nginx\",\"cron\"],"
          "\"files\":[\"/etc/rc2.d\"],\"command\":\"test -d etc\"}");
    fails(b, "test", "{\"packages\":[\"gone\"]}", "test failed: package 'gone' is not installed");
    fails(b, "test",
          "{\"packages\":[\"gone\"],\"enabled\":[\"sshd\"],\"files\":[\"/no\"],\"command\":\"exit 4\"}",
          "test failed: package 'gone' is not installed, and 3 more");
    g_assert_nonnull(strstr(b->fg->output->str, "test: command \"exit 4\" exited with 4\n"));
}

static void test_sleep(Bench *b, gconstpointer arg)
{
    works(b, "sleep", "{\"duration\":\"10h\"}");
}

#define ADD(path, fn) g_test_add(path, Bench, NULL, bench_init, fn, bench_clear)

static bool count_shells(const char *why, void *arg, GError **error)
{
    g_string_append_printf(((FolderGuest *)arg)->output, "shell: %s\n", why);
    return true;
}

static void test_breakpoint(Bench *b, gconstpointer arg)
{
    const ProvisionerOps *ops = provisioner_find("breakpoint");
    g_autoptr(json_t) off = bench_parse("{\"disable\":true}"), on = bench_parse("{}");

    g_assert_true(ops->stops(on));
    g_assert_false(ops->stops(off));
    works(b, "breakpoint", "{\"note\":\"see /etc\"}");
    g_assert_cmpstr(b->fg->output->str, ==, "passed over, nobody sits at a terminal: see /etc\n");
    g_string_truncate(b->fg->output, 0);
    b->host.shell = count_shells;
    works(b, "breakpoint", "{\"note\":\"see /etc\"}");
    works(b, "breakpoint", "{\"disable\":true}");
    g_assert_cmpstr(b->fg->output->str, ==, "shell: breakpoint: see /etc\npassed over, it is disabled\n");
    refused("breakpoint", "{\"note\":[]}", "note", "");
    refused("breakpoint", "{\"disable\":\"maybe\"}", "disable", "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/provisioner/table-is-whole", test_table);
    g_test_add_func("/provisioner/wrong-arguments-are-named", test_checks);
    g_test_add_func("/provisioner/good-arguments-are-taken", test_good_arguments);
    ADD("/provisioner/inputs-are-sorted-with-digests", test_inputs);
    ADD("/provisioner/missing-input-is-named", test_missing_input);
    ADD("/shell/command-line-is-packers", test_shell_command_line);
    ADD("/shell/env-file-is-written", test_shell_env_file);
    ADD("/shell/scripts-run-in-order", test_shell_runs);
    ADD("/shell/exit-codes-are-compared", test_shell_exit_codes);
    ADD("/shell/guest-without-sh-is-told", test_shell_without_sh);
    ADD("/file/slashes-are-rsyncs", test_file_slashes);
    ADD("/file/modes-owners-links-times", test_file_meta);
    ADD("/file/odd-names-arrive", test_file_names);
    ADD("/file/download", test_file_download);
    ADD("/packages/apt-is-called-in-order", test_packages_apt_line);
    ADD("/packages/failures-are-one-sentence", test_packages_errors);
    ADD("/provisioner/declared-inputs-are-globs", test_declared_inputs);
    ADD("/provisioner/a-name-of-an-input-that-is-no-utf8-is-refused", test_a_name_that_is_no_utf8);
    ADD("/packages/security-sources-are-found", test_security_sources);
    ADD("/packages/security-upgrade-is-restricted", test_packages_security);
    ADD("/shell-local/runs-on-the-host", test_shell_local);
    ADD("/shell-local/obeys-the-steps-limit", test_shell_local_limit);
    ADD("/breakpoint/opens-a-shell-or-is-passed-over", test_breakpoint);
    ADD("/test/finds-what-is-missing", test_test);
    ADD("/sleep/is-left-out", test_sleep);
    return g_test_run();
}
