/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeds for cloud-init as they are read and applied, YAML as they are written in, and checksums of the disk images that they belong to.
 */
#include "baker/source-checksum.h"
#include "folder-guest-support.h"
#include "provisioner/seed.h"

#include "base/error.h"
#include "base/yaml.h"

#include <string.h>
#include <sys/stat.h>

/* --- YAML --- */

static void test_yaml_values(void)
{
    static const struct {
        const char *yaml, *json; /* json NULL: refused */
    } cases[] = {
        {"a: 1\nb: [x, 'yes', yes, ~, 0644, 0x1f, 1.5]\n", "{\"a\":1,\"b\":[\"x\",\"yes\",true,null,420,31,1.5]}"},
        {"text: |\n  one\n  two\n", "{\"text\":\"one\\ntwo\\n\"}"},
        {"base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n", "{\"base\":{\"x\":1,\"y\":2},\"use\":{\"x\":1,\"y\":3}}"},
        {"ssh_pwauth: True\n8: eight\n", "{\"8\":\"eight\",\"ssh_pwauth\":true}"},
        {"b: !!binary aGVsbG8=\n", "{\"b\":\"hello\"}"},
        {"v: 1_000\nw: 12:30:45\nx: 089\ny: -7\n", "{\"v\":1000,\"w\":\"12:30:45\",\"x\":\"089\",\"y\":-7}"},
        {"", "null"},
        {"# only a comment\n", "null"},
        {"a: [1, 2\n", NULL},
        {"a: *nobody\n", NULL},
        {"? [a]\n: b\n", NULL},
        {"\"\\0\": 1\n", NULL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(json_t) value = NULL;
        g_autofree char *text = NULL;
        bool ok = yaml_parse(cases[i].yaml, strlen(cases[i].yaml), "text", &value, &error);

        g_test_message("%s", cases[i].yaml);
        g_assert_cmpint(ok, ==, cases[i].json != NULL);
        text = ok ? json_dumps(value, JSON_ENCODE_ANY | JSON_SORT_KEYS | JSON_COMPACT) : NULL;
        g_assert_cmpstr(text, ==, cases[i].json);
        if (!ok)
            g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
    }
}

/* A few lines that stand for billions of values or bytes, and ones that nest without end. */
static void test_yaml_bounds(void)
{
    static const char bomb[] = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
                               "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    g_autofree char *open = g_strnfill(500, '['), *closed = g_strnfill(500, ']'), *deep = g_strconcat(open, closed, NULL);
    g_autofree char *text = g_strnfill(1 << 20, 'x'), *key = g_strnfill(1000, 'k');
    g_autoptr(GString) copies = g_string_new(NULL), keys = g_string_new(NULL), nested = g_string_new("- &v0 x\n");
    json_t *value = NULL;

    g_string_printf(copies, "- &a %s\n", text);
    g_string_printf(keys, "- &a {%s: 1}\n", key);
    for (int i = 0; i < 30000; i++) {
        g_string_append(copies, "- *a\n");
        g_string_append(keys, "- *a\n");
    }
    for (int i = 1; i < 100; i++)
        g_string_append_printf(nested, "- &v%d [*v%d]\n", i, i - 1);
    g_assert_false(yaml_parse(bomb, strlen(bomb), "bomb", &value, NULL));
    g_assert_false(yaml_parse(deep, strlen(deep), "deep", &value, NULL));
    g_assert_false(yaml_parse(copies->str, copies->len, "long text, often", &value, NULL));
    g_assert_false(yaml_parse(keys->str, keys->len, "long key, often", &value, NULL));
    g_assert_false(yaml_parse(nested->str, nested->len, "nested by aliases", &value, NULL));
}

/* --- seeds --- */

static Seed *parse(const char *user, const char *vendor, const char *meta)
{
    Seed *seed = NULL;
    g_autoptr(GError) error = NULL;

    seed_parse(user, vendor, meta, &seed, &error);
    g_assert_no_error(error);
    return seed;
}

static void test_merge(void)
{
    g_autoptr(Seed) seed = parse("#cloud-config\nhostname: mine\nchpasswd: {expire: false}\n", "#cloud-config\nhostname: theirs\nchpasswd: {list: 'a:b'}\n",
                                 "{instance-id: i-1, local-hostname: meta}");

    g_assert_cmpstr(json_string_value(json_object_get(seed->config, "hostname")), ==, "mine");
    g_assert_cmpuint(json_object_size(json_object_get(seed->config, "chpasswd")), ==, 2);
    g_assert_cmpstr(json_string_value(json_object_get(seed->meta, "local-hostname")), ==, "meta");
    g_assert_cmpuint(seed->ignored->len, ==, 0);
    g_assert_false(seed_wants_network(seed));
}

static void test_forms(void)
{
    static const char mime[] = "Content-Type: multipart/mixed; boundary=\"==B==\"\nMIME-Version: 1.0\n\n"
                               "--==B==\nContent-Type: text/cloud-config; charset=\"us-ascii\"\n\n#cloud-config\ntimezone: UTC\n\n"
                               "--==B==\nContent-Type: text/x-shellscript\nContent-Transfer-Encoding: base64\n\nIyEvYmluL3NoCmVjaG8gaGkK\n\n--==B==--\n";
    g_autoptr(Seed) script = parse("#!/bin/sh\necho hi\n", NULL, NULL), parts = parse(mime, NULL, NULL);
    g_autoptr(Seed) archive = parse("#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    timezone: UTC\n- '#!/bin/sh'\n", NULL, NULL);
    g_autoptr(Seed) jinja = parse("## template: jinja\n#cloud-config\nhostname: plain\n", NULL, NULL), filled = parse("## template: jinja\n#cloud-config\nhostname: '{{ x }}'\n", NULL, NULL);

    g_assert_cmpuint(script->scripts->len, ==, 1);
    g_assert_true(seed_wants_network(script));
    g_assert_cmpstr(json_string_value(json_object_get(parts->config, "timezone")), ==, "UTC");
    g_assert_cmpuint(parts->scripts->len, ==, 1);
    g_assert_cmpstr(parts->scripts->pdata[0], ==, "#!/bin/sh\necho hi\n");
    g_assert_cmpstr(json_string_value(json_object_get(archive->config, "timezone")), ==, "UTC");
    g_assert_cmpuint(archive->scripts->len, ==, 1);
    g_assert_cmpstr(json_string_value(json_object_get(jinja->config, "hostname")), ==, "plain");
    g_assert_cmpuint(filled->ignored->len, ==, 1);
}

static void assert_said(const Seed *seed, const char *json)
{
    g_autoptr(json_t) want = json_loads(json, 0, NULL);

    if (!json_equal(seed->config, want)) {
        g_autofree char *got = json_dumps(seed->config, JSON_SORT_KEYS);

        g_error("%s is not %s", got, json);
    }
}

/* Values as cloud-init's own mergers give them. */
static void test_merge_how(void)
{
    static const char before[] = "#cloud-config-archive\n- |\n  #cloud-config\n  runcmd: [a, b]\n  chpasswd: {expire: false, list: [x]}\n  locale: C\n- |\n  #cloud-config\n";
    static const struct {
        const char *later, *json;
    } cases[] = {
        {"  runcmd: [c]\n  chpasswd: {list: [y]}\n  locale: D\n", "{\"runcmd\": [\"c\"], \"chpasswd\": {\"list\": [\"y\"]}, \"locale\": \"D\"}"},
        {"  merge_how: 'list(append)+dict(recurse_array)+str()'\n  runcmd: [c]\n  chpasswd: {list: [y]}\n  locale: D\n  hostname: h\n",
         "{\"runcmd\": [\"a\", \"b\", \"c\"], \"chpasswd\": {\"expire\": false, \"list\": [\"x\", \"y\"]}, \"locale\": \"C\", \"hostname\": \"h\"}"},
        {"  merge_how:\n  - {name: list, settings: [prepend]}\n  - {name: dict, settings: [no_replace, recurse_list, recurse_str]}\n  - {name: str, settings: [append]}\n"
         "  runcmd: [c]\n  locale: D\n",
         "{\"runcmd\": [\"c\", \"a\", \"b\"], \"chpasswd\": {\"expire\": false, \"list\": [\"x\"]}, \"locale\": \"CD\"}"},
        {"  merge_type: 'list()+dict(recurse_list)+str()'\n  runcmd: [c]\n", "{\"runcmd\": [\"c\", \"b\"], \"chpasswd\": {\"expire\": false, \"list\": [\"x\"]}, \"locale\": \"C\"}"},
    };
    static const char mime[] = "Content-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/cloud-config\n\nruncmd: [a]\n"
                               "--B\nContent-Type: text/cloud-config\nX-Merge-Type: list(append)+dict(recurse_array)+str()\n\nruncmd: [b]\n--B--\n";
    g_autoptr(Seed) parts = parse(mime, NULL, NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strconcat(before, cases[i].later, NULL);
        g_autoptr(Seed) seed = parse(text, NULL, NULL);

        assert_said(seed, cases[i].json);
    }
    assert_said(parts, "{\"runcmd\": [\"a\", \"b\"]}");
}

static void test_jinja(void)
{
    static const char meta[] = "instance-id: i-1\nlocal-hostname: web\ndeep: {a: 1}\nrole: db\n";
    g_autoptr(Seed) seed = parse("## template: jinja\n#cloud-config\nhostname: '{{ v1.local_hostname }}-{{ds.meta_data.role}}'\nfqdn: '{{ instance_id }}'\n", NULL, meta);
    g_autoptr(Seed) asks = parse("## template: jinja\n#cloud-config\nhostname: '{{ v1.region }}'\n", NULL, meta);
    g_autoptr(Seed) deep = parse("## template: jinja\n#cloud-config\nhostname: '{{ ds.meta_data.deep }}'\n", NULL, meta);
    g_autoptr(Seed) open = parse("## template: jinja\n#cloud-config\nhostname: '{{ instance_id '\n", NULL, meta);
    g_autofree char *long_value = g_strnfill(1 << 20, 'x'), *long_meta = g_strconcat("role: ", long_value, NULL);
    g_autoptr(GString) many = g_string_new("## template: jinja\n#cloud-config\nlocale: '");
    g_autoptr(Seed) huge = NULL;

    assert_said(seed, "{\"hostname\": \"web-db\", \"fqdn\": \"i-1\"}");
    g_assert_cmpuint(asks->ignored->len + deep->ignored->len + open->ignored->len, ==, 3);
    g_assert_cmpuint(json_object_size(asks->config) + json_object_size(deep->config) + json_object_size(open->config), ==, 0);
    for (int i = 0; i < 1000; i++)
        g_string_append(many, "{{ds.meta_data.role}}");
    g_string_append(many, "'\n");
    huge = parse(many->str, NULL, long_meta);
    g_assert_cmpuint(huge->ignored->len, ==, 1);
}

static void test_ignored(void)
{
    g_autoptr(Seed) seed = parse("#cloud-config\nntp: {enabled: true}\ngrowpart: {mode: auto}\npower_state: {mode: reboot}\nsnap: {}\nusers: []\n", NULL, NULL);
    g_autoptr(Seed) other = parse("just text", NULL, NULL), url = parse("#include\nhttp://example.org/x\n", NULL, NULL);

    g_assert_cmpuint(seed->ignored->len, ==, 2);
    g_assert_cmpstr(seed->ignored->pdata[0], ==, "ntp");
    g_assert_cmpstr(seed->ignored->pdata[1], ==, "snap");
    g_assert_cmpuint(other->ignored->len, ==, 1);
    g_assert_cmpuint(url->ignored->len, ==, 1);
}

static void test_refused(void)
{
    static const char *const texts[] = {"#cloud-config\n- a list\n", "#cloud-config\nusers: [\n", "Content-Type: multipart/mixed\n\nx"};

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        Seed *seed = NULL;

        g_assert_false(seed_parse(texts[i], NULL, NULL, &seed, &error));
        g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
        g_assert_nonnull(strstr(error->message, "user-data"));
    }
}

static void test_script(void)
{
    g_autoptr(json_t) list = json_pack("[s[sss]si]", "echo $HOME", "sh", "-c", "echo 'it is'", "", 7), none = json_array();
    g_autofree char *script = seed_script(list), *nothing = seed_script(none);

    g_assert_cmpstr(script, ==, "#!/bin/sh\necho $HOME\n'sh' '-c' 'echo '\\''it is'\\'''\n\n7\n");
    g_assert_null(nothing);
}

static void test_passwords(void)
{
    g_autofree char *a = seed_hash_password("secret", "web\npacker"), *b = seed_hash_password("secret", "web\npacker"), *c = seed_hash_password("secret", "web\nother");

    g_assert_true(g_str_has_prefix(a, "$6$"));
    g_assert_cmpstr(a, ==, b);
    g_assert_cmpstr(a, !=, c);
    g_assert_true(seed_is_hash(a));
    g_assert_true(seed_is_hash("$y$j9T$abc$def"));
    g_assert_false(seed_is_hash("secret"));
    g_assert_false(seed_is_hash("$6$only"));
}

/* --- the first boot, in a folder --- */

static bool ran(FolderGuest *fg, const char *last)
{
    return g_ptr_array_find_with_equal_func(fg->ran, last, g_str_equal, NULL);
}

static void test_applied(void)
{
    static const char user_data[] =
        "#cloud-config\nfqdn: web.example.org\nusers:\n- default\n- name: packer\n  groups: [sudo]\n  sudo: ALL=(ALL) NOPASSWD:ALL\n"
        "  ssh_authorized_keys: [ssh-ed25519 AAAA packer]\nssh_authorized_keys: [ssh-ed25519 BBBB main]\npassword: x\nchpasswd: {expire: false}\n"
        "runcmd: [echo hi]\nmounts: [[a, b]]\n";
    g_autoptr(FolderGuest) fg = folder_guest_new(false);
    ProvisionerHost host = folder_guest_host(fg, "/tmp");
    g_autoptr(json_t) args = json_pack("{ss ss}", "user_data", user_data, "meta_data", "instance-id: x\n");
    g_autofree char *name = NULL, *keys = NULL, *main_keys = NULL, *sudoers = NULL;
    g_autoptr(GError) error = NULL;
    const char *argument = NULL;
    struct stat st;
    g_autofree char *path = g_strconcat(fg->root, "/home/packer/.ssh/authorized_keys", NULL);

    folder_guest_write(fg, "/bin/sh", "");
    folder_guest_write(fg, "/run/x", "");
    folder_guest_write(fg, "/etc/cloud/cloud.cfg", "system_info:\n  default_user:\n    name: debian\n    sudo: [\"ALL=(ALL) NOPASSWD:ALL\"]\n");
    folder_guest_write(fg, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndebian:x:0:0::/home/debian:/bin/sh\npacker:x:0:0::/home/packer:/bin/sh\n");
    fg->exec_code = 0; /* the guest's tools succeed */
    g_assert_true(provisioner_first_boot()->check(args, &argument, &error));
    g_assert_true(provisioner_first_boot()->wants_network(args));
    g_assert_true(provisioner_first_boot()->run(args, &host, &fg->guest, &error));
    g_assert_no_error(error);
    name = folder_guest_read(fg, "/etc/hostname");
    keys = folder_guest_read(fg, "/home/packer/.ssh/authorized_keys");
    main_keys = folder_guest_read(fg, "/home/debian/.ssh/authorized_keys");
    sudoers = folder_guest_read(fg, "/etc/sudoers.d/90-cloud-init-users");
    g_assert_cmpstr(name, ==, "web\n");
    g_assert_cmpstr(keys, ==, "ssh-ed25519 AAAA packer\n");
    g_assert_cmpstr(main_keys, ==, "ssh-ed25519 BBBB main\n");
    g_assert_nonnull(strstr(sudoers, "\npacker ALL=(ALL) NOPASSWD:ALL\n"));
    g_assert_nonnull(strstr(sudoers, "\ndebian ALL=(ALL) NOPASSWD:ALL\n"));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 07777, ==, 0600);
    g_assert_true(ran(fg, "/run/kiln-seed-script"));
    g_assert_nonnull(strstr(fg->output->str, "user packer"));
    g_assert_nonnull(strstr(fg->output->str, "not applied: mounts"));
    g_assert_null(strstr(fg->output->str, "ssh-ed25519"));
}

/* A guest of files, and tools that succeed; what @user_data made of it. */
static FolderGuest *boot_with(const char *user_data, const char *const *files /* path, text, ... */)
{
    FolderGuest *fg = folder_guest_new(false);
    ProvisionerHost host = folder_guest_host(fg, "/tmp");
    g_autoptr(json_t) args = json_pack("{ss sb}", "user_data", user_data, "grow", true);
    g_autoptr(GError) error = NULL;
    const char *argument = NULL;

    folder_guest_write(fg, "/bin/sh", "");
    folder_guest_write(fg, "/run/x", "");
    for (; *files; files += 2)
        folder_guest_write(fg, files[0], files[1]);
    fg->exec_code = 0;
    g_assert_true(provisioner_first_boot()->check(args, &argument, &error));
    (void)provisioner_first_boot()->run(args, &host, &fg->guest, &error);
    g_assert_no_error(error);
    return fg;
}

static void assert_file(FolderGuest *fg, const char *path, const char *text)
{
    g_autofree char *there = folder_guest_read(fg, path);

    g_assert_cmpstr(there, ==, text);
}

#define PASSWD "root:x:0:0:root:/root:/bin/sh\ndebian:x:0:0::/home/debian:/bin/sh\n"
#define CLOUD_CFG "users: [default]\nsystem_info: {default_user: {name: debian, lock_passwd: true}}\n"
static const char *const cloud_guest[] = {"/etc/passwd", PASSWD, "/etc/group", "root:x:0:\noperator:x:37:\n", "/etc/cloud/cloud.cfg", CLOUD_CFG, NULL};

static void test_user_keys(void)
{
    g_autoptr(FolderGuest) fg = boot_with("#cloud-config\nusers:\n- name: operator\n  no-create-home: true\n  primary-group: staff\n  doas: [permit nopass]\n"
                                          "- name: two\n  create_groups: false\n  groups: wheel\n  expiredate: '2030-01-01'\n- default\n", cloud_guest);
    g_autoptr(FolderGuest) same = boot_with("#cloud-config\nusers: {operator: {gecos: An Operator}, root: false}\n", cloud_guest);

    g_assert_nonnull(strstr(fg->commands->str, " kiln --gid staff -M -- operator \n"));
    g_assert_nonnull(strstr(fg->commands->str, " kiln --expiredate 2030-01-01 --groups wheel -m -- two \n"));
    g_assert_null(strstr(fg->commands->str, "groupadd \"$1\" kiln wheel"));
    g_assert_nonnull(strstr(fg->output->str, "not applied: doas of operator"));
    g_assert_nonnull(strstr(same->commands->str, " kiln --comment An Operator --gid operator -m -- operator \n"));
    g_assert_null(strstr(same->commands->str, "-m -- root"));
    g_assert_null(strstr(same->output->str, "user debian"));
}

/* Keys and the password of the whole are the default user's, and nobody else's; root's where root may log in. */
static void test_whose_they_are(void)
{
    g_autoptr(FolderGuest) root = boot_with("#cloud-config\ndisable_root: false\nssh_authorized_keys: {a: ssh-ed25519 A}\n", cloud_guest);
    g_autoptr(FolderGuest) nobody = boot_with("#cloud-config\nusers: [{name: root}]\nssh_authorized_keys: [ssh-ed25519 A]\npassword: x\n", cloud_guest);
    g_autoptr(FolderGuest) both = boot_with("#cloud-config\nusers: [{name: root}]\nuser: {ssh-authorized-keys: [ssh-ed25519 B]}\n", cloud_guest);
    g_autoptr(FolderGuest) unnamed = boot_with("#cloud-config\nusers: [{ssh_authorized_keys: [ssh-ed25519 C]}]\n", cloud_guest);

    assert_file(root, "/root/.ssh/authorized_keys", "ssh-ed25519 A\n");
    assert_file(root, "/home/debian/.ssh/authorized_keys", "ssh-ed25519 A\n");
    assert_file(nobody, "/root/.ssh/authorized_keys", NULL);
    g_assert_nonnull(strstr(nobody->output->str, "not applied: ssh_authorized_keys ("));
    g_assert_nonnull(strstr(nobody->output->str, "password ("));
    assert_file(both, "/home/debian/.ssh/authorized_keys", "ssh-ed25519 B\n");
    assert_file(unnamed, "/home/debian/.ssh/authorized_keys", "ssh-ed25519 C\n");
}

static void test_where_packages_come_from(void)
{
    static const char *const apt_guest[] = {"/etc/apt/apt.conf.d/x", "", "/etc/os-release", "VERSION_CODENAME=\"bookworm\"\n", NULL};
    static const char *const dnf_guest[] = {"/etc/yum.repos.d/x", "", "/usr/share/pki/ca-trust-source/anchors/x", "", NULL};
    static const char user_data[] = "#cloud-config\napt:\n  sources:\n    docker.list:\n      source: deb [signed-by=$KEY_FILE] https://d.example $RELEASE main\n      key: |\n        KEY\n"
                                    "    ../up: {source: 'deb https://u.example x y', filename: ../../up, key: K2}\n    p: {source: 'ppa:a/b'}\n    m: {source: 'deb $MIRROR x y'}\n"
                                    "  conf: 'APT::A \"1\";'\n  proxy: http://p:3128\n  https_proxy: 'x\";'\n  primary: [{arches: [default]}]\n"
                                    "  debconf_selections: {a: 'x y boolean true'}\n"
                                    "ca_certs: {trusted: ['CERT'], remove_defaults: true}\nyum_repos: {epel: {}}\ngrowpart: {mode: 'off'}\n";
    g_autoptr(FolderGuest) fg = boot_with(user_data, apt_guest);
    g_autoptr(FolderGuest) dnf = boot_with("#cloud-config\nyum_repos:\n  e p/el: {name: E, baseurl: [http://a, http://b], enabled: true, priority: 9}\nca-certs: {trusted: C}\napt: {conf: x}\n",
                                           dnf_guest);

    assert_file(fg, "/etc/apt/sources.list.d/docker.list", "deb [signed-by=/etc/apt/cloud-init.gpg.d/docker.list.asc] https://d.example bookworm main\n");
    assert_file(fg, "/etc/apt/cloud-init.gpg.d/docker.list.asc", "KEY\n");
    assert_file(fg, "/etc/apt/sources.list.d/_._.._up.list", "deb https://u.example x y\n");
    assert_file(fg, "/etc/apt/trusted.gpg.d/_._up.asc", "K2");
    assert_file(fg, "/etc/apt/apt.conf.d/94cloud-init-config", "APT::A \"1\";");
    assert_file(fg, "/etc/apt/apt.conf.d/90cloud-init-aptproxy", "Acquire::http::Proxy \"http://p:3128\";\n");
    assert_file(fg, "/usr/local/share/ca-certificates/cloud-init-ca-cert-1.crt", "CERT");
    g_assert_nonnull(strstr(fg->commands->str, "debconf-set-selections kiln x y boolean true \n"));
    g_assert_nonnull(strstr(fg->output->str, "not applied: growpart: off (skip_resize_disk = true in the template leaves the disk as it is), ca_certs.remove_defaults, apt.primary, "
                                             "apt source p (a PPA), apt source m (it asks for a mirror that cloud-init would choose), yum_repos (the guest has no dnf)"));
    assert_file(dnf, "/etc/yum.repos.d/e_p_el.repo",
                "# Made of the seed that this image was baked with\n[e_p_el]\nname = E\nbaseurl = http://a\n  http://b\nenabled = 1\npriority = 9\n");
    assert_file(dnf, "/usr/share/pki/ca-trust-source/anchors/cloud-init-ca-cert-1.crt", "C");
    g_assert_nonnull(strstr(dnf->output->str, "not applied: apt (the guest has none)"));
}

static void test_forms_of_packages(void)
{
    g_autoptr(FolderGuest) fg = boot_with("#cloud-config\npackages:\n- one\n- [two, '2.0']\n- apt: [three, [four, '4']]\n- snap: [five]\n", (const char *const[]){"/usr/bin/apt-get", "", NULL});
    g_autoptr(FolderGuest) lone = boot_with("#cloud-config\npackages: lone\n", (const char *const[]){"/usr/bin/apt-get", "", NULL});

    g_assert_nonnull(strstr(fg->commands->str, " one two=2.0 three four=4 \n"));
    g_assert_nonnull(strstr(fg->output->str, "not applied: packages of snap"));
    g_assert_nonnull(strstr(lone->commands->str, " lone \n"));
}

static void test_hostile_names(void)
{
    static const char *const seeds[] = {"#cloud-config\nusers: [{name: '-x'}]\n", "#cloud-config\nusers: [{name: a, groups: ['x;y']}]\n", "#cloud-config\ngroups: ['../x']\n"};

    for (size_t i = 0; i < G_N_ELEMENTS(seeds); i++) {
        g_autoptr(FolderGuest) fg = folder_guest_new(false);
        ProvisionerHost host = folder_guest_host(fg, "/tmp");
        g_autoptr(json_t) args = json_pack("{ss}", "user_data", seeds[i]);
        g_autoptr(GError) error = NULL;

        folder_guest_write(fg, "/bin/sh", "");
        fg->exec_code = 0;
        g_assert_false(provisioner_first_boot()->run(args, &host, &fg->guest, &error));
        g_assert_nonnull(strstr(error->message, "is no name of a"));
    }
}

/* --- checksums --- */

#define SHA512 "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
#define SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void test_checksum_words(void)
{
    static const struct {
        const char *text, *type; /* type NULL: refused; "": anything will do */
    } cases[] = {{"none", ""},  {SHA256, "sha256"}, {"sha256:" SHA256, "sha256"}, {"SHA512:" SHA512, "sha512"}, {SHA512, "sha512"}, {"md5:d41d8cd98f00b204e9800998ecf8427e", "md5"},
                 {"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "sha1"}, {"sha1:" SHA256, NULL}, {"crc:12", NULL}, {"", NULL}, {"sha256:", NULL}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        SourceChecksum sum;

        g_test_message("%s", cases[i].text);
        g_assert_cmpint(source_checksum_parse(cases[i].text, &sum, NULL), ==, cases[i].type != NULL);
        if (cases[i].type)
            g_assert_cmpstr(sum.given ? sum.type : "", ==, cases[i].type);
    }
}

static void test_checksum_files(void)
{
    static const struct {
        const char *text, *type;
    } cases[] = {{"# sums\n" SHA256 "  other.qcow2\n" SHA512 " *a.qcow2\n", "sha512"},
                 {SHA256 "  ./images/a.qcow2\r\n", "sha256"},
                 {"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n# a.qcow2: 1 bytes\nSHA256 (a.qcow2) = " SHA256 "\n-----BEGIN PGP SIGNATURE-----\nabcdef\n", "sha256"},
                 {SHA256 "\n", "sha256"},
                 {SHA256 "  xa.qcow2\n", NULL},
                 {"SHA1 (a.qcow2) = " SHA256 "\n", NULL},
                 {"", NULL}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        SourceChecksum sum;
        bool found;

        source_checksum_find(cases[i].text, strlen(cases[i].text), "a.qcow2", &sum, &found);
        g_test_message("%zu", i);
        g_assert_cmpint(found, ==, cases[i].type != NULL);
        if (found)
            g_assert_cmpstr(sum.type, ==, cases[i].type);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/yaml/values", test_yaml_values);
    g_test_add_func("/yaml/bounds", test_yaml_bounds);
    g_test_add_func("/seed/user-data-over-vendor-data", test_merge);
    g_test_add_func("/seed/forms", test_forms);
    g_test_add_func("/seed/merge-how", test_merge_how);
    g_test_add_func("/seed/jinja-of-meta-data", test_jinja);
    g_test_add_func("/seed/what-is-not-applied-is-named", test_ignored);
    g_test_add_func("/seed/refused", test_refused);
    g_test_add_func("/seed/script", test_script);
    g_test_add_func("/seed/passwords-have-steady-salts", test_passwords);
    g_test_add_func("/first-boot/applied", test_applied);
    g_test_add_func("/first-boot/keys-of-users", test_user_keys);
    g_test_add_func("/first-boot/whose-keys-and-password", test_whose_they_are);
    g_test_add_func("/first-boot/where-packages-come-from", test_where_packages_come_from);
    g_test_add_func("/first-boot/forms-of-packages", test_forms_of_packages);
    g_test_add_func("/first-boot/names-that-are-none", test_hostile_names);
    g_test_add_func("/checksum/words", test_checksum_words);
    g_test_add_func("/checksum/files", test_checksum_files);
    return g_test_run();
}
