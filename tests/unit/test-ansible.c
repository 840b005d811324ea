/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioners that bring a tool with them: ansible, ansible-local, puppet-masterless, chef-solo. The guest is a folder of the host; where
 * ansible-playbook is installed, it is the real one that plays on it.
 */
#include "provisioner-bench-support.h"

#include "base/error.h"
#include "base/process.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

/* The socket's input goes onto the step's tmpfs, which a folder has not. */
static void bench_init_run(Bench *b, gconstpointer arg)
{
    bench_init(b, arg);
    folder_guest_write(b->fg, "run/x", "");
}

static void host_write(Bench *b, const char *path, const char *text)
{
    bench_write(b, path, text, 0644);
}

static bool check(const char *type, const char *text, GError **error)
{
    g_autoptr(json_t) args = bench_parse(text);
    const char *argument = NULL, *bad = NULL;

    if (!json_only_keys(args, provisioner_find(type)->arguments, &bad))
        return fail(error, "no argument '%s'", bad);
    return provisioner_find(type)->check(args, &argument, error);
}

static void refuses(const char *type, const char *text, const char *fragment)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(check(type, text, &error));
    if (!strstr(error->message, fragment))
        g_error("'%s' does not say '%s'", error->message, fragment);
}

static bool run(Bench *b, const char *type, const char *text, GError **error)
{
    g_autoptr(json_t) args = bench_parse(text);

    return check(type, text, error) && provisioner_find(type)->run(args, &b->host, &b->fg->guest, error);
}

static void works(Bench *b, const char *type, const char *text)
{
    g_autoptr(GError) error = NULL;

    if (!run(b, type, text, &error))
        g_error("%s: %s\n%s", text, error->message, b->fg->output->str);
}

static void fails(Bench *b, const char *type, const char *text, const char *fragment)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(run(b, type, text, &error));
    if (!strstr(error->message, fragment))
        g_error("'%s' does not say '%s'\n%s", error->message, fragment, b->fg->output->str);
}

static bool said(Bench *b, const char *text)
{
    return strstr(b->fg->output->str, text) != NULL;
}

/* --- what a play depends on --- */

static GPtrArray *inputs_of(Bench *b, const char *type, const char *text)
{
    g_autoptr(json_t) args = bench_parse(text);
    g_autoptr(GError) error = NULL;
    GPtrArray *inputs = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);

    if (!provisioner_find(type)->inputs(args, &b->host, inputs, &error))
        g_error("%s", error->message);
    return inputs;
}

/* All that would stand in the key, as one text. */
static char *key_of(Bench *b, const char *text)
{
    g_autoptr(GPtrArray) inputs = inputs_of(b, "ansible", text);
    GString *key = g_string_new(NULL);
    char hex[DIGEST_HEX_SIZE];

    for (guint i = 0; i < inputs->len; i++) {
        const ProvisionerInput *input = inputs->pdata[i];

        g_string_append_printf(key, "%s %o %s\n", input->name, input->mode,
                               digest_to_hex(&input->digest, hex));
    }
    return g_string_free(key, FALSE);
}

/* A command whose version stands where Ansible's does, so that these tests need no Ansible. */
static void lay_ansible(Bench *b)
{
    g_autofree char *command = g_build_filename(b->folder, "env/bin/ansible-playbook", NULL);
    g_autofree char *text = g_strdup_printf("#!%s/env/bin/python3\n", b->folder);

    host_write(b, "env/bin/python3", "");
    host_write(b, "env/bin/ansible-playbook", text);
    host_write(b, "env/lib/python3.9/site-packages/ansible/release.py", "__version__ = '2.14.1'\n");
    g_assert_cmpint(chmod(command, 0755), ==, 0);
}

static void lay_play(Bench *b)
{
    lay_ansible(b);
    host_write(b, "play/site.yml", "- hosts: all\n  roles: [web]\n");
    host_write(b, "play/roles/web/tasks/main.yml", "- file: path=/x state=touch\n");
    host_write(b, "play/roles/web/files/page", "page\n");
    host_write(b, "play/t.pkr.hcl", "");
    host_write(b, "play/.git/HEAD", "x");
    host_write(b, "play/output-x/disk", "x");
}

#define PLAY "{\"playbook_file\": \"play/site.yml\", \"command\": \"%s/env/bin/ansible-playbook\"%s}"

static char *play_args(Bench *b, const char *more)
{
    return g_strdup_printf(PLAY, b->folder, more);
}

static void test_key_is_content_and_mode(Bench *b, gconstpointer arg)
{
    g_autofree char *args = NULL, *before = NULL, *touched = NULL, *moded = NULL, *changed = NULL;
    g_autofree char *page = g_build_filename(b->folder, "play/roles/web/files/page", NULL);
    const struct utimbuf old = {1, 1};

    lay_play(b);
    args = play_args(b, "");
    before = key_of(b, args);
    g_assert_cmpint(utime(page, &old), ==, 0);
    touched = key_of(b, args);
    g_assert_cmpstr(touched, ==, before);
    g_assert_cmpint(chmod(page, 0600), ==, 0);
    moded = key_of(b, args);
    g_assert_cmpstr(moded, !=, before);
    host_write(b, "play/roles/web/files/page", "other\n");
    changed = key_of(b, args);
    g_assert_cmpstr(changed, !=, moded);
}

static void test_key_leaves_out_what_is_no_play(Bench *b, gconstpointer arg)
{
    g_autofree char *args = NULL, *key = NULL;

    lay_play(b);
    args = play_args(b, "");
    key = key_of(b, args);
    g_assert_nonnull(strstr(key, "play/roles/web/files/page"));
    g_assert_nonnull(strstr(key, "ansible/release.py"));
    g_assert_nonnull(strstr(key, "kiln/ansible/connection/kiln.py"));
    g_assert_null(strstr(key, ".git"));
    g_assert_null(strstr(key, "pkr.hcl"));
    g_assert_null(strstr(key, "output-x"));
}

static void test_key_has_what_lies_elsewhere(Bench *b, gconstpointer arg)
{
    g_autofree char *args = NULL, *key = NULL, *link = g_build_filename(b->folder, "play/roles/linked", NULL);

    lay_play(b);
    host_write(b, "shared/linked/tasks/main.yml", "[]\n");
    host_write(b, "other/vars.yml", "a: 1\n");
    host_write(b, "more.yml", "b: 1\n");
    host_write(b, "roles2/db/tasks/main.yml", "[]\n");
    host_write(b, "coll/ansible_collections/a/b/galaxy.yml", "x\n");
    host_write(b, "inv/group_vars/all.yml", "c: 1\n");
    host_write(b, "secret", "vault password\n");
    host_write(b, "play/roles/web/tasks/main.yml",
               "- include_vars: \"{{ playbook_dir }}/../other/vars.yml\"\n");
    g_assert_cmpint(symlink("../../shared/linked", link), ==, 0);
    args = play_args(b, ", \"extra_arguments\": [\"-e\", \"@more.yml\", \"--vault-password-file\", "
                        "\"secret\"], \"roles_path\": \"roles2\", "
                        "\"collections_path\": \"coll\", \"inventory_directory\": \"inv\"");
    key = key_of(b, args);
    for (const char *const *name =
             (const char *const[]){"shared/linked/tasks/main.yml", "other/vars.yml", "more.yml",
                                   "roles2/db/tasks/main.yml", "coll/ansible_collections/a/b/galaxy.yml",
                                   "inv/group_vars/all.yml", NULL};
         *name; name++)
        if (!strstr(key, *name))
            g_error("'%s' is not in\n%s", *name, key);
    g_assert_null(strstr(key, "secret"));
}

static void test_paths_know_go_templates(Bench *b, gconstpointer arg)
{
    g_autofree char *args = NULL, *key = NULL;

    lay_play(b);
    host_write(b, "play/requirements.yml", "roles:\n  - src: file:///nowhere\n");
    host_write(b, "roles2/db/tasks/main.yml", "[]\n");
    host_write(b, "coll/ansible_collections/a/b/galaxy.yml", "x\n");
    args = play_args(b, ", \"galaxy_file\": \"{{template_dir}}/play/requirements.yml\", \"roles_path\": \"{{template_dir}}/roles2\", "
                        "\"collections_path\": \"{{ template_dir }}/coll\"");
    key = key_of(b, args);
    g_assert_nonnull(strstr(key, "requirements.yml"));
    g_assert_nonnull(strstr(key, "roles2/db/tasks/main.yml"));
    g_assert_nonnull(strstr(key, "coll/ansible_collections/a/b/galaxy.yml"));
}

/* Galaxy stands before the playbook, and is told apart from it. */
static void test_galaxy_has_the_steps_limit(Bench *b, gconstpointer arg)
{
    g_autofree char *galaxy = g_build_filename(b->folder, "galaxy", NULL), *args = NULL;
    g_autofree char *more = g_strdup_printf(", \"galaxy_file\": \"{{template_dir}}/r.yml\", \"galaxy_command\": \"%s\"", galaxy);

    lay_play(b);
    host_write(b, "galaxy", "#!/bin/sh\nsleep 60\n");
    host_write(b, "r.yml", "roles: []\n");
    g_assert_cmpint(chmod(galaxy, 0755), ==, 0);
    args = play_args(b, more);
    b->host.deadline = g_get_monotonic_time() + G_USEC_PER_SEC / 5;
    fails(b, "ansible", args, "galaxy of \"");
}

static void test_missing_files_are_told(Bench *b, gconstpointer arg)
{
    const ProvisionerOps *ops = provisioner_find("ansible");
    g_autoptr(GPtrArray) inputs = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);
    g_autoptr(json_t) none = bench_parse("{\"playbook_file\": \"none.yml\"}");
    g_autoptr(json_t) tool =
        bench_parse("{\"playbook_file\": \"play/site.yml\", \"command\": \"no-such-ansible\"}");
    g_autoptr(GError) error = NULL, second = NULL;

    lay_play(b);
    g_assert_false(ops->inputs(none, &b->host, inputs, &error));
    g_assert_nonnull(strstr(error->message, "none.yml"));
    g_assert_false(ops->inputs(tool, &b->host, inputs, &second));
    g_assert_nonnull(strstr(second->message, "'no-such-ansible' is not installed"));
}

static bool reaches_outside(Bench *b, const char *text)
{
    g_autofree char *args = play_args(b, "");
    g_autoptr(GPtrArray) inputs = NULL;
    g_autoptr(json_t) parsed = bench_parse(args);

    host_write(b, "play/roles/web/tasks/main.yml", text);
    inputs = inputs_of(b, "ansible", args);
    return provisioner_find("ansible")->reaches_outside(parsed, inputs);
}

static void test_what_asks_the_host_is_volatile(Bench *b, gconstpointer arg)
{
    lay_play(b);
    g_assert_false(reaches_outside(b, "- debug: msg=plain\n"));
    g_assert_true(reaches_outside(b, "- debug: msg=\"{{ lookup('env', 'USER') }}\"\n"));
    g_assert_true(
        reaches_outside(b, "- debug: msg=\"{{ query(\\\"ansible.builtin.url\\\", 'https://x/') }}\"\n"));
    g_assert_true(reaches_outside(b, "- command: date\n  delegate_to: localhost\n"));
    g_assert_true(reaches_outside(b, "- local_action: command date\n"));
    g_assert_false(reaches_outside(b, "- debug: msg=\"{{ lookup('template', 'x.j2') }}\"\n"));
    g_assert_true(reaches_outside(b, "- debug: msg=\"{{ lookup('file', '/etc/hostname') }}\"\n"));
    g_assert_false(reaches_outside(b, "- debug: msg=\"{{ lookup('vars', 'x') }}\"\n"));
}

/* --- arguments --- */

static void test_options_of_packer_are_known(void)
{
    static const char *const all = "{\"playbook_file\": \"p.yml\", \"command\": \"a\", \"extra_arguments\": "
                                   "[\"-v\"], \"ansible_env_vars\": [\"A=b\"], "
                                   "\"ansible_ssh_extra_args\": [\"x\"], \"groups\": [\"g\"], "
                                   "\"empty_groups\": [\"e\"], \"host_alias\": \"h\", \"user\": \"u\", "
                                   "\"local_port\": 2222, \"inventory_directory\": \"i\", "
                                   "\"inventory_file_template\": \"t\", \"keep_inventory_file\": true, "
                                   "\"galaxy_file\": \"g\", \"galaxy_command\": \"gc\", "
                                   "\"galaxy_force_install\": true, \"galaxy_force_with_deps\": true, "
                                   "\"roles_path\": \"r\", \"collections_path\": \"c\", \"use_proxy\": "
                                   "false, \"use_sftp\": true, \"sftp_command\": \"s\", "
                                   "\"ssh_host_key_file\": \"k\", \"ssh_authorized_key_file\": \"k\", "
                                   "\"ansible_proxy_key_type\": \"RSA\", \"skip_version_check\": true}";
    g_autoptr(GError) error = NULL;

    if (!check("ansible", all, &error))
        g_error("%s", error->message);
    refuses("ansible", "{}", "'playbook_file' is needed");
    refuses("ansible", "{\"playbook_file\": \"p\", \"ansible_env_vars\": [\"nonsense\"]}", "NAME=value");
    refuses("ansible",
            "{\"playbook_file\": \"p\", \"inventory_file\": \"i\", \"inventory_directory\": \"d\"}",
            "cannot stand beside");
    refuses("ansible-local", "{\"playbook_file\": \"p\", \"playbook_files\": [\"q\"]}",
            "cannot stand beside");
    refuses("puppet-masterless", "{}", "'manifest_file' is needed");
    refuses("puppet-masterless", "{\"manifest_file\": \"m\", \"guest_os_type\": \"windows\"}",
            "Windows would have to boot");
    refuses("puppet-masterless", "{\"manifest_file\": \"m\", \"facter\": {\"a;b\": \"c\"}}",
            "no name of a fact");
    refuses("chef-solo", "{\"json\": [1]}", "'json' must be an object");
}

static void test_what_cannot_be_has_a_reason(void)
{
    g_assert_nonnull(strstr(provisioner_refusal("puppet-server"), "puppet-masterless"));
    g_assert_nonnull(strstr(provisioner_refusal("windows-restart"), "boot"));
    g_assert_nonnull(provisioner_refusal("chef-client"));
    g_assert_null(provisioner_refusal("shel"));
    for (const char *const *type = provisioner_types(); *type; type++)
        g_assert_null(provisioner_refusal(*type));
}

/* --- the real ansible-playbook --- */

static bool skip_without_ansible(void)
{
    if (process_have("ansible-playbook"))
        return false;
    g_test_skip("ansible-playbook is not installed");
    return true;
}

static void test_a_play_reaches_the_guest(Bench *b, gconstpointer arg)
{
    g_autofree char *made = NULL, *args = NULL, *playbook = NULL;

    if (skip_without_ansible())
        return;
    playbook = g_strdup_printf("- hosts: web\n  gather_facts: false\n  become: true\n  tasks:\n"
                               "    - raw: echo \"$SOURCE_DATE_EPOCH {{ packer_build_name }} {{ answer }}\" "
                               ">%s/run/raw; echo err >&2; exit 0\n"
                               "      register: raw\n"
                               "    - file: {path: \"%s/tmp/made\", state: directory}\n"
                               "    - debug: msg=\"{{ raw.stderr }}\"\n",
                               b->fg->root, b->fg->root);
    host_write(b, "play/site.yml", playbook);
    args = g_strdup("{\"playbook_file\": \"play/site.yml\", \"groups\": [\"web\"], \"user\": \"debian\", "
                    "\"use_proxy\": false, "
                    "\"extra_arguments\": [\"-e\", \"answer=42\", \"--ssh-extra-args\", \"-o X\"], "
                    "\"ansible_env_vars\": [\"ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3\", "
                    "\"ANSIBLE_TRANSPORT=ssh\"]}");
    works(b, "ansible", args);
    made = folder_guest_read(b->fg, "run/raw");
    g_assert_cmpstr(made, ==, "1700000000 web 42\n");
    g_assert_true(said(
        b, "without effect, since there is no SSH between kiln and a guest: use_proxy, --ssh-extra-args"));
    g_assert_true(said(b, "\"msg\": \"err"));
    g_assert_true(folder_guest_has(b->fg, "tmp/made"));
    g_assert_false(folder_guest_has(b->fg, "run/.kiln-ansible-input"));
}

static void test_a_failed_task_is_told(Bench *b, gconstpointer arg)
{
    if (skip_without_ansible())
        return;
    host_write(b, "site.yml",
               "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: break it\n      raw: echo why "
               ">&2; exit 3\n");
    fails(b, "ansible", "{\"playbook_file\": \"site.yml\"}",
          "playbook \"site.yml\": task \"break it\" failed: non-zero return code: why");
}

static void test_a_play_has_the_steps_limit(Bench *b, gconstpointer arg)
{
    gint64 start = g_get_monotonic_time();

    if (skip_without_ansible())
        return;
    host_write(b, "site.yml", "- hosts: all\n  gather_facts: false\n  tasks:\n    - pause: {seconds: 60}\n");
    b->host.deadline = start + G_USEC_PER_SEC / 2;
    fails(b, "ansible", "{\"playbook_file\": \"site.yml\"}",
          "playbook \"site.yml\" passed the step's time limit and was stopped");
    g_assert_cmpint(g_get_monotonic_time() - start, <, 5 * G_USEC_PER_SEC);
}

/* --- tools of the guest --- */

static const char *last_command(Bench *b)
{
    return b->fg->ran->pdata[b->fg->ran->len - 1];
}

static void has(const char *text, const char *fragment)
{
    if (!strstr(text, fragment))
        g_error("'%s' is not in: %s", fragment, text);
}

static void test_puppet_is_called_as_packer_does(Bench *b, gconstpointer arg)
{
    g_autofree char *manifest = NULL, *data = NULL;
    static const char *const args = "{\"manifest_file\": \"m/site.pp\", \"module_paths\": [\"mods\"], "
                                    "\"hiera_config_path\": \"hiera.yaml\", "
                                    "\"facter\": {\"role\": \"it's\"}, \"extra_arguments\": [\"--noop\"], "
                                    "\"staging_directory\": \"/tmp/stage\"}";

    host_write(b, "m/site.pp", "include x\n");
    host_write(b, "mods/x/manifests/init.pp", "class x {}\n");
    host_write(b, "hiera.yaml", "defaults:\n  datadir: \"data\"\n");
    host_write(b, "data/common.yaml", "a: 1\n");
    b->fg->exec_code = 2; /* changes were made */
    works(b, "puppet-masterless", args);
    has(last_command(b), "cd /tmp/stage && FACTER_packer_build_name='web' "
                         "FACTER_packer_builder_type='bootstrap' FACTER_role='it'\\''s' puppet apply "
                         "--detailed-exitcodes ");
    has(last_command(b), "--modulepath='/tmp/stage/module-0' --hiera_config='/tmp/stage/hiera.yaml' --noop "
                         "/tmp/stage/manifests/site.pp");
    manifest = folder_guest_read(b->fg, "tmp/stage/manifests/site.pp");
    data = folder_guest_read(b->fg, "tmp/stage/data/common.yaml");
    g_assert_cmpstr(manifest, ==, "include x\n");
    g_assert_cmpstr(data, ==, "a: 1\n");
    b->fg->exec_code = 6;
    fails(b, "puppet-masterless", args, "puppet apply exited with 6");
    b->fg->exec_code = 199;
    fails(b, "puppet-masterless", args, "the guest has no 'puppet'");
}

static void test_what_the_key_expands_a_run_expands(Bench *b, gconstpointer arg)
{
    static const char *const puppet =
        "{\"manifest_file\": \"m/site.pp\", \"manifest_dir\": \"{{template_dir}}/m\", "
        "\"hiera_config_path\": \"{{template_dir}}/h/hiera.yaml\", \"staging_directory\": \"/tmp/stage\"}";
    static const char *const chef =
        "{\"config_template\": \"{{template_dir}}/solo\", \"staging_directory\": \"/tmp/chef\"}";
    g_autoptr(GPtrArray) of_puppet = NULL, of_chef = NULL;
    g_autofree char *solo = NULL;

    host_write(b, "m/site.pp", "include x\n");
    host_write(b, "m/more.pp", "\n");
    host_write(b, "h/hiera.yaml", "defaults:\n  datadir: data\n");
    host_write(b, "h/data/common.yaml", "a: 1\n");
    host_write(b, "solo", "of my own\n");
    b->fg->exec_code = 0;
    of_puppet = inputs_of(b, "puppet-masterless", puppet);
    works(b, "puppet-masterless", puppet);
    g_assert_true(folder_guest_has(b->fg, "tmp/stage/manifests/more.pp"));
    g_assert_true(folder_guest_has(b->fg, "tmp/stage/hiera.yaml"));
    g_assert_true(folder_guest_has(b->fg, "tmp/stage/data/common.yaml"));
    of_chef = inputs_of(b, "chef-solo", chef);
    works(b, "chef-solo", chef);
    solo = folder_guest_read(b->fg, "tmp/chef/solo.rb");
    g_assert_cmpstr(solo, ==, "of my own\n");
}

static void test_puppets_services_are_told(Bench *b, gconstpointer arg)
{
    host_write(b, "site.pp", "\n");
    folder_guest_write(b->fg, "run/.kiln-puppet/state/resources.txt",
                       "file[/x]\nservice[nginx]\nservice[other]\n");
    folder_guest_write(b->fg, "etc/systemd/system/multi-user.target.wants/nginx.service", "");
    b->fg->exec_code = 0;
    works(b, "puppet-masterless", "{\"manifest_file\": \"site.pp\"}");
    g_assert_true(said(b, "at boot: nginx\n"));
    g_assert_false(said(b, "other"));
    g_assert_false(folder_guest_has(b->fg, "tmp/packer-puppet-masterless"));
}

static void test_ansible_local_lays_everything(Bench *b, gconstpointer arg)
{
    g_autofree char *inventory = NULL;
    static const char *const args =
        "{\"playbook_file\": \"play/site.yml\", \"role_paths\": [\"r/web\"], \"group_vars\": \"gv\", "
        "\"inventory_groups\": [\"web\"], \"extra_arguments\": [\"-v\"], \"staging_directory\": "
        "\"/tmp/stage\"}";

    host_write(b, "play/site.yml", "x\n");
    host_write(b, "r/web/tasks/main.yml", "x\n");
    host_write(b, "gv/all.yml", "x\n");
    b->fg->exec_code = 0;
    works(b, "ansible-local", args);
    has(last_command(b), "cd '/tmp/stage' && ansible-playbook 'site.yml' --extra-vars 'packer_build_name=web "
                         "packer_builder_type=bootstrap' -v -c local "
                         "-i packer-inventory");
    inventory = folder_guest_read(b->fg, "tmp/stage/packer-inventory");
    g_assert_cmpstr(inventory, ==, "127.0.0.1\n[web]\n127.0.0.1\n");
    g_assert_true(folder_guest_has(b->fg, "tmp/stage/roles/web/tasks/main.yml"));
    g_assert_true(folder_guest_has(b->fg, "tmp/stage/group_vars/all.yml"));
    b->fg->exec_code = 199;
    fails(b, "ansible-local", args, "the guest has no 'ansible-playbook'");
}

static void test_chef_solo_is_configured(Bench *b, gconstpointer arg)
{
    g_autofree char *config = NULL, *node = NULL;
    static const char *const args =
        "{\"cookbook_paths\": [\"books\"], \"run_list\": [\"recipe[web]\"], \"json\": {\"a\": {\"b\": 1}}, "
        "\"staging_directory\": \"/tmp/stage\", \"chef_license\": \"accept\"}";
    g_autoptr(json_t) parsed = NULL;

    host_write(b, "books/web/recipes/default.rb", "x\n");
    b->fg->exec_code = 0;
    works(b, "chef-solo", args);
    has(last_command(b), "chef-solo --no-color -c /tmp/stage/solo.rb -j /tmp/stage/node.json");
    config = folder_guest_read(b->fg, "tmp/stage/solo.rb");
    has(config, "cookbook_path [\"/tmp/stage/cookbooks-0\"]\nchef_license \"accept\"\n");
    node = folder_guest_read(b->fg, "tmp/stage/node.json");
    parsed = bench_parse(node);
    g_assert_cmpstr(json_string_value(json_array_get(json_object_get(parsed, "run_list"), 0)), ==,
                    "recipe[web]");
    g_assert_cmpint(json_integer_value(json_object_get(json_object_get(parsed, "a"), "b")), ==, 1);
}

#define ADD(name, fn) g_test_add(name, Bench, NULL, bench_init_run, fn, bench_clear)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("/ansible/key-is-content-and-mode", test_key_is_content_and_mode);
    ADD("/ansible/key-leaves-out-what-is-no-play", test_key_leaves_out_what_is_no_play);
    ADD("/ansible/key-has-what-lies-elsewhere", test_key_has_what_lies_elsewhere);
    ADD("/ansible/missing-files-are-told", test_missing_files_are_told);
    ADD("/ansible/paths-know-go-templates", test_paths_know_go_templates);
    ADD("/ansible/galaxy-has-the-steps-limit", test_galaxy_has_the_steps_limit);
    ADD("/ansible/what-asks-the-host-is-volatile", test_what_asks_the_host_is_volatile);
    g_test_add_func("/ansible/options-of-packer-are-known", test_options_of_packer_are_known);
    g_test_add_func("/ansible/what-cannot-be-has-a-reason", test_what_cannot_be_has_a_reason);
    ADD("/ansible/a-play-reaches-the-guest", test_a_play_reaches_the_guest);
    ADD("/ansible/a-failed-task-is-told", test_a_failed_task_is_told);
    ADD("/ansible/a-play-has-the-steps-limit", test_a_play_has_the_steps_limit);
    ADD("/puppet/called-as-packer-does", test_puppet_is_called_as_packer_does);
    ADD("/staging/what-the-key-expands-a-run-expands", test_what_the_key_expands_a_run_expands);
    ADD("/puppet/services-are-told", test_puppets_services_are_told);
    ADD("/ansible-local/lays-everything", test_ansible_local_lays_everything);
    ADD("/chef-solo/is-configured", test_chef_solo_is_configured);
    return g_test_run();
}
