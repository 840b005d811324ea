/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a seed. It comes from the template's folder, or from a stranger's ISO: every text is bounded, and parts are taken in the order in which cloud-init
 * takes them.
 */
#include "provisioner/seed.h"

#include "base/error.h"
#include "base/yaml.h"

#include <crypt.h>
#include <stdarg.h>
#include <string.h>

enum { PARTS_MAX = 256, DEPTH_MAX = 4 };

/* Keys of a cloud-config that are applied here ... */
static const char *const applied[] = {
    "users", "user", "groups", "password", "chpasswd", "ssh_pwauth", "ssh_authorized_keys", "hostname", "fqdn", "prefer_fqdn_over_hostname",
    "preserve_hostname", "manage_etc_hosts", "timezone", "locale", "write_files", "packages", "package_update", "package_upgrade", "apt_update", "apt_upgrade",
    "bootcmd", "runcmd", NULL};
/* ... and those that mean nothing where nothing boots, or where kiln does it anyway. */
static const char *const needless[] = {
    "growpart", "resize_rootfs", "final_message", "output", "power_state", "package_reboot_if_required", "apt_reboot_if_required", "datasource", "datasource_list",
    "system_info", "cloud_init_modules", "cloud_config_modules", "cloud_final_modules", "disable_root", "disable_root_opts", "ssh_deletekeys",
    "ssh_genkeytypes", "ssh_quiet_keygen", "no_ssh_fingerprints", "ssh_fp_console_blacklist", "ssh_key_console_blacklist", "ssh", "manual_cache_clean",
    "merge_how", "merge_type", "warnings", "debug", "reporting", "syslog_fix_perms", "def_log_file", "log_cfgs", "vendor_data", "vendor_data2", "allow_public_ssh_keys",
    "create_hostname_file", "locale_configfile", "random_seed", "byobu_by_default", "updates", "unverified_modules", NULL};

void seed_free(Seed *seed)
{
    if (!seed)
        return;
    json_decref(seed->config);
    json_decref(seed->meta);
    g_ptr_array_unref(seed->boothooks);
    g_ptr_array_unref(seed->scripts);
    g_ptr_array_unref(seed->ignored);
    g_free(seed);
}

void seed_ignore(Seed *seed, const char *format, ...)
{
    char *text;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    if (g_ptr_array_find_with_equal_func(seed->ignored, text, g_str_equal, NULL))
        g_free(text);
    else
        g_ptr_array_add(seed->ignored, text);
}

void seed_merge(json_t *under, const json_t *over)
{
    g_autoptr(json_t) own = json_deep_copy(over); /* a later merge writes into what this one took */

    (void)json_object_update_recursive(under, own);
}

/* --- parts --- */

typedef struct Part {
    Seed *seed;
    const char *what; /* "user-data" */
    unsigned depth, count;
} Part;

static bool read_part(Part *part, const char *text, const char *type, GError **error);

static bool read_config(Part *part, const char *text, GError **error)
{
    g_autoptr(json_t) config = NULL;

    if (!yaml_parse(text, strlen(text), part->what, &config, error))
        return false;
    if (json_is_null(config))
        return true;
    if (!json_is_object(config))
        return fail_code(error, KILN_ERROR_USAGE, "%s: a cloud-config is a mapping, and this is none", part->what);
    seed_merge(part->seed->config, config);
    return true;
}

/* A list of parts, each a text or { type, content }. */
static bool read_archive(Part *part, const char *text, GError **error)
{
    g_autoptr(json_t) list = NULL;
    json_t *one;
    size_t i;

    if (!yaml_parse(text, strlen(text), part->what, &list, error))
        return false;
    json_array_foreach (list, i, one) {
        g_autofree char *content = seed_text(json_is_object(one) ? json_object_get(one, "content") : one);
        const char *type = json_string_value(json_object_get(one, "type"));

        if (content && !read_part(part, content, type, error))
            return false;
    }
    return true;
}

/* "NAME: value" of the header lines before @body, or NULL. */
static char *header(const char *text, const char *body, const char *name)
{
    g_autofree char *all = g_strndup(text, (gsize)(body - text));
    g_auto(GStrv) lines = g_strsplit(all, "\n", -1);
    GString *found = NULL;

    for (char **line = lines; *line; line++) {
        if (found && (**line == ' ' || **line == '\t'))
            g_string_append(found, *line);
        else if (found)
            break;
        else if (g_ascii_strncasecmp(*line, name, strlen(name)) == 0 && (*line)[strlen(name)] == ':')
            found = g_string_new(*line + strlen(name) + 1);
    }
    return found ? g_strstrip(g_string_free(found, FALSE)) : NULL;
}

/* Behind the empty line. */
static const char *body_of(const char *text)
{
    const char *unix_end = strstr(text, "\n\n"), *dos_end = strstr(text, "\r\n\r\n");

    if (dos_end && (!unix_end || dos_end < unix_end))
        return dos_end + 4;
    return unix_end ? unix_end + 2 : text + strlen(text);
}

static char *boundary_of(const char *content_type)
{
    const char *at = strcasestr(content_type, "boundary=");
    g_autofree char *text = at ? g_strdup(at + strlen("boundary=")) : NULL;

    if (!text)
        return NULL;
    if (*text == '"') {
        text[1 + strcspn(text + 1, "\"")] = '\0';
        return g_strdup(text + 1);
    }
    text[strcspn(text, "; \t\r\n")] = '\0';
    return *text ? g_steal_pointer(&text) : NULL;
}

static bool read_mime_part(Part *part, const char *text, GError **error)
{
    const char *body = body_of(text);
    g_autofree char *type = header(text, body, "Content-Type"), *encoding = header(text, body, "Content-Transfer-Encoding");
    g_autofree char *content = g_strdup(body);

    if (encoding && g_ascii_strcasecmp(encoding, "base64") == 0) {
        gsize size;
        g_autofree guchar *bytes = g_base64_decode(body, &size);

        g_free(content);
        content = g_strndup((const char *)bytes, size);
        if (strlen(content) != size || !g_utf8_validate(content, -1, NULL)) {
            seed_ignore(part->seed, "a part of %s that is no text", part->what);
            return true;
        }
    }
    if (type)
        type[strcspn(type, "; \t\r\n")] = '\0';
    return read_part(part, content, type, error);
}

static bool read_mime(Part *part, const char *text, GError **error)
{
    const char *body = body_of(text);
    g_autofree char *type = header(text, body, "Content-Type"), *boundary = type ? boundary_of(type) : NULL, *line = NULL;
    g_auto(GStrv) parts = NULL;

    if (!type || g_ascii_strncasecmp(type, "multipart/", strlen("multipart/")) != 0)
        return read_mime_part(part, text, error);
    if (!boundary)
        return fail_code(error, KILN_ERROR_USAGE, "%s: its parts have no boundary", part->what);
    line = g_strconcat("--", boundary, NULL);
    parts = g_strsplit(body, line, PARTS_MAX);
    for (char **one = *parts ? parts + 1 : parts; *one && !g_str_has_prefix(*one, "--"); one++) {
        const char *start = *one + strspn(*one, " \t\r");

        if (!read_mime_part(part, start + (*start == '\n'), error))
            return false;
    }
    return true;
}

static bool is_mime(const char *text)
{
    return g_ascii_strncasecmp(text, "content-type:", 13) == 0 || g_ascii_strncasecmp(text, "mime-version:", 13) == 0 || g_str_has_prefix(text, "From ");
}

/* Jinja fills in what only a booted machine knows; a text that asks for nothing of it is the text below its first line. */
static const char *below_jinja(Part *part, const char *text)
{
    const char *rest = strchr(text, '\n');

    rest = rest ? rest + 1 : text + strlen(text);
    if (!strstr(rest, "{{") && !strstr(rest, "{%"))
        return rest;
    seed_ignore(part->seed, "%s as a Jinja template", part->what);
    return NULL;
}

static bool is_kind(const char *text, const char *type, const char *start, const char *mime)
{
    return g_str_has_prefix(text, start) || (type && strcmp(type, mime) == 0);
}

static bool read_text(Part *part, const char *text, const char *type, GError **error)
{
    Seed *seed = part->seed;

    if (is_mime(text))
        return read_mime(part, text, error);
    if (g_str_has_prefix(text, "## template: jinja") || g_str_has_prefix(text, "## template:jinja")) {
        text = below_jinja(part, text);
        return !text || read_part(part, text, NULL, error);
    }
    if (is_kind(text, type, "#cloud-config-archive", "text/cloud-config-archive"))
        return read_archive(part, text, error);
    if (is_kind(text, type, "#cloud-config", "text/cloud-config"))
        return read_config(part, text, error);
    if (is_kind(text, type, "#cloud-boothook", "text/cloud-boothook"))
        g_ptr_array_add(seed->boothooks, g_strdup(text));
    else if (is_kind(text, type, "#!", "text/x-shellscript"))
        g_ptr_array_add(seed->scripts, g_strdup(text));
    else if (is_kind(text, type, "#include", "text/x-include-url"))
        seed_ignore(seed, "what %s includes by URL", part->what);
    else if (*text)
        seed_ignore(seed, "%s, which cloud-init does not read either (its first line is not #cloud-config)", part->what);
    return true;
}

static bool read_part(Part *part, const char *text, const char *type, GError **error)
{
    bool ok;

    if (++part->count > PARTS_MAX || part->depth >= DEPTH_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "%s has too many parts", part->what);
    part->depth++;
    if (g_str_has_prefix(text, "\xEF\xBB\xBF"))
        text += 3;
    ok = read_text(part, text + strspn(text, " \t\r\n"), type, error);
    part->depth--;
    return ok;
}

/* --- what it says --- */

static void note_ignored(Seed *seed)
{
    const char *key;
    json_t *value;

    json_object_foreach (seed->config, key, value)
        if (!g_strv_contains(applied, key) && !g_strv_contains(needless, key))
            seed_ignore(seed, "%s", key);
}

static bool read_meta(Seed *seed, const char *text, GError **error)
{
    g_autoptr(json_t) meta = NULL;

    if (!text)
        return true;
    if (!yaml_parse(text, strlen(text), "meta-data", &meta, error))
        return false;
    if (json_is_object(meta)) {
        json_decref(seed->meta);
        seed->meta = g_steal_pointer(&meta);
    }
    return true;
}

bool seed_parse(const char *user_data, const char *vendor_data, const char *meta_data, Seed **ret, GError **error)
{
    g_autoptr(Seed) seed = g_new0(Seed, 1);
    Part vendor = {.seed = seed, .what = "vendor-data"}, user = {.seed = seed, .what = "user-data"};

    seed->config = json_object();
    seed->meta = json_object();
    seed->boothooks = g_ptr_array_new_with_free_func(g_free);
    seed->scripts = g_ptr_array_new_with_free_func(g_free);
    seed->ignored = g_ptr_array_new_with_free_func(g_free);
    if ((vendor_data && !read_part(&vendor, vendor_data, NULL, error)) || (user_data && !read_part(&user, user_data, NULL, error)) ||
        !read_meta(seed, meta_data, error))
        return false;
    note_ignored(seed);
    *ret = g_steal_pointer(&seed);
    return true;
}

static bool is_something(const json_t *value)
{
    return json_is_array(value) ? json_array_size(value) > 0 : json_is_string(value) || json_is_true(value);
}

bool seed_wants_network(const Seed *seed)
{
    static const char *const keys[] = {"packages", "package_upgrade", "apt_upgrade", "runcmd", "bootcmd"};

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        if (is_something(json_object_get(seed->config, keys[i])))
            return true;
    return seed->boothooks->len > 0 || seed->scripts->len > 0;
}

char *seed_text(const json_t *value)
{
    if (json_is_string(value))
        return g_strdup(json_string_value(value));
    if (json_is_integer(value))
        return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_real(value))
        return json_dumps(value, JSON_ENCODE_ANY);
    return json_is_boolean(value) ? g_strdup(json_is_true(value) ? "true" : "false") : NULL;
}

char **seed_texts(const json_t *value, const char *separators)
{
    GPtrArray *out = g_ptr_array_new();
    json_t *one;
    size_t i;

    if (!json_is_array(value)) {
        g_autofree char *text = seed_text(value);
        g_auto(GStrv) words = g_strsplit_set(text ? text : "", separators, -1);

        for (char **word = words; *word; word++)
            if (*g_strstrip(*word))
                g_ptr_array_add(out, g_strdup(*word));
    }
    json_array_foreach (value, i, one) {
        char *text = seed_text(one);

        if (text)
            g_ptr_array_add(out, text);
    }
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(out, FALSE);
}

char *seed_script(const json_t *commands)
{
    g_autoptr(GString) script = g_string_new("#!/bin/sh\n");
    gsize empty = script->len;
    json_t *one, *word;
    size_t i, j;

    if (json_is_string(commands))
        g_string_append_printf(script, "%s\n", json_string_value(commands));
    json_array_foreach (commands, i, one) {
        g_autofree char *line = seed_text(one);

        if (line)
            g_string_append_printf(script, "%s\n", line);
        json_array_foreach (one, j, word) {
            g_autofree char *text = seed_text(word), *quoted = g_shell_quote(text ? text : "");

            g_string_append_printf(script, "%s%s", j ? " " : "", quoted);
        }
        if (json_array_size(one))
            g_string_append_c(script, '\n');
    }
    return script->len > empty ? g_string_free(g_steal_pointer(&script), FALSE) : NULL;
}

char *seed_hash_password(const char *password, const char *salt_of)
{
    static const char letters[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    g_autofree struct crypt_data *data = g_new0(struct crypt_data, 1);
    g_autofree char *text = g_strconcat(salt_of, "\n", password, NULL);
    char setting[] = "$6$0123456789abcdef";
    const char *hash;
    Digest digest;

    digest_of_string(text, &digest);
    for (size_t i = 0; i < 16; i++)
        setting[3 + i] = letters[digest.bytes[i] % 64];
    hash = crypt_r(password, setting, data);
    return hash && *hash != '*' ? g_strdup(hash) : NULL;
}

bool seed_is_hash(const char *password)
{
    return g_regex_match_simple("^\\$(1|2[abxy]|5|6|7|y|gy)\\$[^:\\n]+\\$[^:\\n]+$", password, G_REGEX_DOLLAR_ENDONLY, 0);
}
