/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packages as a seed names them, and before them what they come from: certificates that the guest trusts, sources and settings of apt, repositories of dnf.
 *
 * Files have the names that cloud-init gives them, so that one which runs at a later boot finds its own. A key that only a key server has is fetched by the
 * guest's gpg; without one it is named as not applied, as are mirrors, which cloud-init would choose for a cloud.
 */
#include "provisioner/first-boot.h"

#include "base/error.h"
#include "provisioner/members.h"

#include <string.h>

#define LISTS "/etc/apt/sources.list.d"
#define KEYS "/etc/apt/cloud-init.gpg.d"
#define TRUSTED "/etc/apt/trusted.gpg.d"
#define SETTINGS "/etc/apt/apt.conf.d"
#define REPOSITORIES "/etc/yum.repos.d"
#define SOURCES_MAX 1000u

static bool has_folder(const FirstBoot *boot, const char *path, bool *ret, GError **error)
{
    char type = 0;

    if (!guest_type(boot->guest, path, &type, error))
        return false;
    *ret = type == 'd';
    return true;
}

/* A name of a file alone, of what a template says; free with g_free. */
static char *file_name(const char *name, const char *suffix)
{
    g_autofree char *plain = g_strcanon(g_strdup(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", '_');

    if (*plain == '.')
        *plain = '_';
    return g_strconcat(plain, g_str_has_suffix(plain, suffix) ? "" : suffix, NULL);
}

static bool write_in(const FirstBoot *boot, const char *folder, const char *name, const char *text, GError **error)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    return boot->guest->ops->mkdir(boot->guest, folder, NULL, error) && first_boot_write(boot, path, text, 0644, error);
}

/* --- certificates --- */

static bool trust(FirstBoot *boot, GError **error)
{
    static const char script[] = "if command -v update-ca-trust >/dev/null 2>&1; then update-ca-trust; else update-ca-certificates >/dev/null; fi";
    static const char *const folders[] = {"/usr/share/pki/ca-trust-source/anchors", "/usr/share/pki/trust/anchors"}; /* of Red Hat's and SUSE's kin */
    const json_t *said = first_boot_said(boot, "ca_certs"), *certs = said ? said : first_boot_said(boot, "ca-certs");
    g_auto(GStrv) texts = seed_texts(json_object_get(certs, "trusted"), "");
    const char *folder = "/usr/local/share/ca-certificates";
    unsigned count = 0;

    if (first_boot_flag(json_object_get(certs, "remove_defaults"), first_boot_flag(json_object_get(certs, "remove-defaults"), false)))
        seed_ignore(boot->seed, "ca_certs.remove_defaults");
    for (size_t i = 0; i < G_N_ELEMENTS(folders) && *texts; i++) {
        bool there;

        if (!has_folder(boot, folders[i], &there, error))
            return false;
        folder = there ? folders[i] : folder;
    }
    for (char **text = texts; *text; text++) {
        g_autofree char *name = g_strdup_printf("cloud-init-ca-cert-%u.crt", ++count);

        if (!write_in(boot, folder, name, *text, error))
            return false;
    }
    if (count == 0)
        return true;
    g_ptr_array_add(boot->done, g_strdup_printf("%u certificate%s", count, count == 1 ? "" : "s"));
    return first_boot_sh(boot, "ca_certs (the package ca-certificates makes use of them)", script, NULL, error);
}

/* --- apt --- */

/* VERSION_CODENAME of the guest; free with g_free. */
static bool read_release(const FirstBoot *boot, char **ret, GError **error)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!first_boot_read(boot, "/etc/os-release", &text, error))
        return false;
    lines = g_strsplit(text ? text : "", "\n", -1);
    *ret = NULL;
    for (char **line = lines; *line && !*ret; line++)
        if (g_str_has_prefix(*line, "VERSION_CODENAME="))
            *ret = g_strdup(g_strdelimit(*line + strlen("VERSION_CODENAME="), "\"'", ' '));
    if (*ret)
        g_strstrip(*ret);
    return true;
}

static char *replaced(const char *text, const char *what, const char *with)
{
    g_auto(GStrv) parts = g_strsplit(text, what, -1);

    return g_strjoinv(with, parts);
}

/* Its key in @folder; *ret is the file, NULL where it could not be had. Free with g_free. */
static bool place_key(FirstBoot *boot, const json_t *source, const char *name, const char *folder, char **ret, GError **error)
{
    static const char script[] = "command -v gpg >/dev/null 2>&1 || exit 3\n"
                                 "mkdir -p -m 700 /run/kiln-gpg \"${3%/*}\" && gpg --homedir /run/kiln-gpg --batch --no-tty --keyserver \"$1\" --recv-keys \"$2\" &&\n"
                                 "gpg --homedir /run/kiln-gpg --batch --no-tty --export --armor \"$2\" >\"$3\" && chmod 644 \"$3\"";
    g_autofree char *key = seed_text(json_object_get(source, "key")), *id = seed_text(json_object_get(source, "keyid")), *server = seed_text(json_object_get(source, "keyserver"));
    g_autofree char *file = file_name(name, ".asc"), *path = g_build_filename(folder, file, NULL);
    int code = 0;

    *ret = NULL;
    if (key && !write_in(boot, folder, file, key, error))
        return false;
    if (!key && !guest_sh(boot->guest, boot->host, script, (const char *const[]){server ? server : "keyserver.ubuntu.com", id, path, NULL}, NULL, &code, error))
        return false;
    if (code == 3)
        return seed_ignore(boot->seed, "apt source %s (its key %s is on a key server, and the guest has no gpg to ask)", name, id), true;
    if (code != 0)
        return fail(error, "the seed: apt source '%s': its key '%s' could not be fetched: exit status %d", name, id, code);
    *ret = g_steal_pointer(&path);
    return true;
}

static bool add_line(FirstBoot *boot, const char *name, const char *line, GError **error)
{
    g_autofree char *file = g_str_has_suffix(name, ".sources") ? file_name(name, ".sources") : file_name(name, ".list"), *path = g_build_filename(LISTS, file, NULL);
    g_autofree char *before = NULL, *text = NULL;

    if (!first_boot_read(boot, path, &before, error))
        return false;
    text = g_strconcat(before ? before : "", line, g_str_has_suffix(line, "\n") ? "" : "\n", NULL);
    return write_in(boot, LISTS, file, text, error);
}

static bool add_source(FirstBoot *boot, const json_t *source, const char *name, const char *release, GError **error)
{
    g_autofree char *line = seed_text(json_object_get(source, "source")), *file = seed_text(json_object_get(source, "filename")), *key = NULL, *known = NULL, *text = NULL;
    bool has_key = json_is_string(json_object_get(source, "key")) || seed_fetches_key(source);

    if (line && (g_str_has_prefix(line, "ppa:") || strstr(line, "$MIRROR") || strstr(line, "$PRIMARY") || strstr(line, "$SECURITY")))
        return seed_ignore(boot->seed, "apt source %s (%s)", name, *line == 'p' ? "a PPA" : "it asks for a mirror that cloud-init would choose"), true;
    if (has_key && !place_key(boot, source, name, line && strstr(line, "$KEY_FILE") ? KEYS : TRUSTED, &key, error))
        return false;
    if ((has_key && !key) || !line)
        return true;
    known = replaced(line, "$RELEASE", release ? release : "stable");
    text = replaced(known, "$KEY_FILE", key ? key : "");
    return add_line(boot, file ? file : name, text, error);
}

/* { NAME = { source, key, ... } }, or a list of those. */
static bool add_sources(FirstBoot *boot, const json_t *sources, GError **error)
{
    g_autofree char *release = NULL;
    const char *name;
    json_t *one;
    size_t i;

    if (json_object_size(sources) + json_array_size(sources) > SOURCES_MAX)
        return fail(error, "the seed has more than %u apt sources", SOURCES_MAX);
    if (sources && !read_release(boot, &release, error))
        return false;
    json_object_foreach ((json_t *)sources, name, one)
        if (!add_source(boot, one, name, release, error))
            return false;
    json_array_foreach ((json_t *)sources, i, one) {
        g_autofree char *numbered = i ? g_strdup_printf("cloud_config_sources_%zu", i) : g_strdup("cloud_config_sources");

        if (!add_source(boot, one, numbered, release, error))
            return false;
    }
    if (json_object_size(sources) + json_array_size(sources) > 0)
        g_ptr_array_add(boot->done, g_strdup("apt sources"));
    return true;
}

static bool write_proxies(FirstBoot *boot, const json_t *apt, GError **error)
{
    static const char *const proxies[][2] = {{"http_proxy", "http"}, {"proxy", "http"}, {"https_proxy", "https"}, {"ftp_proxy", "ftp"}};
    g_autoptr(GString) text = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(proxies); i++) {
        g_autofree char *value = seed_text(json_object_get(apt, proxies[i][0]));

        if (value && *value && !strpbrk(value, "\"\n") && !(i == 1 && text->len))
            g_string_append_printf(text, "Acquire::%s::Proxy \"%s\";\n", proxies[i][1], value);
    }
    return text->len == 0 || write_in(boot, SETTINGS, "90cloud-init-aptproxy", text->str, error);
}

static bool answer_questions(FirstBoot *boot, const json_t *selections, GError **error)
{
    g_auto(GStrv) texts = seed_texts(selections, "\n");
    g_autofree char *all = g_strjoinv("\n", texts);

    return !*texts || first_boot_sh(boot, "apt.debconf_selections", "printf '%s\\n' \"$1\" | debconf-set-selections", (const char *const[]){all, NULL}, error);
}

static bool configure_apt(FirstBoot *boot, GError **error)
{
    static const char *const applied[] = {"sources",   "conf",      "proxy", "http_proxy", "https_proxy", "ftp_proxy", "debconf_selections", "preserve_sources_list",
                                          "add_apt_repo_match", NULL};
    const json_t *apt = first_boot_said(boot, "apt");
    g_autofree char *conf = seed_text(json_object_get(apt, "conf"));
    const char *key;
    json_t *value;
    bool there;

    if (!json_is_object(apt))
        return true;
    if (!has_folder(boot, "/etc/apt", &there, error))
        return false;
    if (!there)
        return seed_ignore(boot->seed, "apt (the guest has none)"), true;
    json_object_foreach ((json_t *)apt, key, value)
        if (!g_strv_contains(applied, key))
            seed_ignore(boot->seed, "apt.%s", key);
    return (!conf || write_in(boot, SETTINGS, "94cloud-init-config", conf, error)) && write_proxies(boot, apt, error) &&
           answer_questions(boot, json_object_get(apt, "debconf_selections"), error) && add_sources(boot, json_object_get(apt, "sources"), error);
}

/* --- dnf --- */

/* One "key = value" for each, as dnf's files have them. */
static char *repository_text(const char *id, const json_t *repository)
{
    GString *text = g_string_new("# Made of the seed that this image was baked with\n");
    const char *key;
    json_t *value;

    g_string_append_printf(text, "[%s]\n", id);
    json_object_foreach ((json_t *)repository, key, value) {
        g_auto(GStrv) words = seed_texts(json_is_array(value) ? value : NULL, ""), lines = NULL;
        g_autofree char *plain = json_is_boolean(value) ? g_strdup(json_is_true(value) ? "1" : "0") : seed_text(value), *joined = NULL;

        joined = plain ? g_steal_pointer(&plain) : g_strjoinv("\n", words);
        lines = g_strsplit(joined, "\n", -1);
        g_free(joined);
        joined = g_strjoinv("\n  ", lines);
        g_string_append_printf(text, "%s = %s\n", key, joined);
    }
    return g_string_free(text, FALSE);
}

static bool add_repositories(FirstBoot *boot, GError **error)
{
    const json_t *repositories = first_boot_said(boot, "yum_repos");
    const char *id;
    json_t *one;
    bool there;

    if (!json_is_object(repositories))
        return true;
    if (json_object_size(repositories) > SOURCES_MAX)
        return fail(error, "the seed has more than %u repositories", SOURCES_MAX);
    if (!has_folder(boot, REPOSITORIES, &there, error))
        return false;
    if (!there)
        return seed_ignore(boot->seed, "yum_repos (the guest has no dnf)"), true;
    json_object_foreach ((json_t *)repositories, id, one) {
        g_autofree char *file = file_name(id, ".repo"), *text = NULL;
        g_autofree char *plain = g_strndup(file, strlen(file) - strlen(".repo"));

        text = repository_text(plain, one);
        if (!write_in(boot, REPOSITORIES, file, text, error))
            return false;
    }
    g_ptr_array_add(boot->done, g_strdup("repositories"));
    return true;
}

/* --- packages --- */

/* "name", or [name, version]. */
static void add_name(json_t *names, const json_t *one)
{
    g_autofree char *package = seed_text(json_is_array(one) ? json_array_get(one, 0) : one), *version = seed_text(json_array_get(one, 1));

    if (package)
        json_array_append_new(names, version ? json_sprintf("%s=%s", package, version) : json_string(package));
}

/* { apt: [...] } is for apt alone, which is who asks here. */
static json_t *package_names(FirstBoot *boot)
{
    const json_t *list = first_boot_said(boot, "packages"), *one, *name;
    json_t *names = json_array();
    const char *manager;
    json_t *inner;
    size_t i, j;

    if (json_is_string(list))
        add_name(names, list);
    json_array_foreach (list, i, one) {
        if (!json_is_object(one))
            add_name(names, one);
        json_object_foreach ((json_t *)one, manager, inner) {
            if (strcmp(manager, "apt") != 0)
                seed_ignore(boot->seed, "packages of %s", manager);
            json_array_foreach (strcmp(manager, "apt") == 0 ? inner : NULL, j, name)
                add_name(names, name);
        }
    }
    return names;
}

static bool install_packages(FirstBoot *boot, GError **error)
{
    bool upgrade = first_boot_flag(first_boot_said(boot, "package_upgrade"), first_boot_flag(first_boot_said(boot, "apt_upgrade"), false));
    g_autoptr(json_t) names = package_names(boot), args = json_pack("{s:O, s:b}", "install", names, "recommends", true);
    const char *argument = NULL;

    if (upgrade)
        json_object_set_new(args, "upgrade", json_string("all"));
    if (json_array_size(names) == 0 && !upgrade)
        return true;
    if (!provisioner_packages.check(args, &argument, error) || !provisioner_packages.run(args, boot->host, boot->guest, error))
        return fail_prefix(error, "the seed's packages");
    g_ptr_array_add(boot->done, g_strdup("packages"));
    return true;
}

bool first_boot_packages(FirstBoot *boot, GError **error)
{
    return trust(boot, error) && configure_apt(boot, error) && add_repositories(boot, error) && install_packages(boot, error);
}
