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
#define JINJA_MAX ((size_t)8 << 20)

/* Keys of a cloud-config that are applied here ... */
static const char *const applied[] = {
    "users", "user", "groups", "password", "chpasswd", "ssh_pwauth", "ssh_authorized_keys", "hostname", "fqdn", "prefer_fqdn_over_hostname",
    "preserve_hostname", "manage_etc_hosts", "timezone", "locale", "write_files", "packages", "package_update", "package_upgrade", "apt_update", "apt_upgrade",
    "bootcmd", "runcmd", "disable_root", "apt", "ca_certs", "ca-certs", "yum_repos", NULL};
/* ... and those that mean nothing where nothing boots, or where kiln does it anyway. */
static const char *const needless[] = {
    "growpart", "resize_rootfs", "final_message", "output", "power_state", "package_reboot_if_required", "apt_reboot_if_required", "datasource", "datasource_list",
    "system_info", "cloud_init_modules", "cloud_config_modules", "cloud_final_modules", "disable_root_opts", "ssh_deletekeys",
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
    json_t *config;   /* what its parts say so far */
    const char *what; /* "user-data" */
    const char *how;  /* Merge-Type of the part at hand, or NULL */
    unsigned depth, count;
    size_t filled;    /* bytes that Jinja made */
} Part;

static bool read_part(Part *part, const char *text, const char *type, GError **error);

/* How a part goes over those before it: cloud-init's merge_how. Without one, what a later part says of a key is all that is said of it. */
typedef struct Merging {
    bool dict_replaces, dict_lists, dict_texts; /* of a key that both have: the new value; else lists and texts are merged, and others stay */
    bool list_dicts, list_lists;
    bool text_appends;
    char list; /* 'a'ppend, 'p'repend, 'n'othing, or 'r'eplace one by one */
} Merging;

static void merging_of_text(const char *how, Merging *ret)
{
    g_auto(GStrv) mergers = g_strsplit(how, "+", -1);

    for (char **one = mergers; *one; one++) {
        const char *name = g_strstrip(*one);
        bool lists = strstr(name, "recurse_array") || strstr(name, "recurse_list");

        if (g_str_has_prefix(name, "dict"))
            ret->dict_replaces = strstr(name, "replace") && !strstr(name, "no_replace"), ret->dict_lists = lists, ret->dict_texts = strstr(name, "recurse_str");
        else if (g_str_has_prefix(name, "list"))
            ret->list = strstr(name, "append") ? 'a' : strstr(name, "prepend") ? 'p' : strstr(name, "no_replace") ? 'n' : 'r', ret->list_lists = lists,
            ret->list_dicts = strstr(name, "recurse_dict");
        else if (g_str_has_prefix(name, "str"))
            ret->text_appends = strstr(name, "append");
    }
}

/* "list(append)+dict(recurse_array)+str()", or [{name: list, settings: [append]}, ...]; taken out of @config. */
static Merging take_merging(json_t *config, const char *header)
{
    static const char *const keys[] = {"merge_how", "merge_type"};
    g_autoptr(GString) text = g_string_new(NULL);
    Merging how = {.list = 'r'};
    json_t *one, *word;
    size_t i, j;

    for (size_t k = 0; k < G_N_ELEMENTS(keys); k++) {
        json_t *said = text->len == 0 ? json_object_get(config, keys[k]) : NULL;

        if (json_is_string(said))
            g_string_append(text, json_string_value(said));
        json_array_foreach (said, i, one) {
            const char *name = json_string_value(json_object_get(one, "name"));

            g_string_append_printf(text, "%s%s(", text->len ? "+" : "", name ? name : "");
            json_array_foreach (json_object_get(one, "settings"), j, word)
                g_string_append_printf(text, "%s,", json_is_string(word) ? json_string_value(word) : "");
            g_string_append_c(text, ')');
        }
        (void)json_object_del(config, keys[k]); /* may be absent */
    }
    how.dict_replaces = text->len == 0 && !header;
    merging_of_text(text->len || !header ? text->str : header, &how);
    return how;
}

static json_t *merged(json_t *old, json_t *new, const Merging *how);

static json_t *merged_lists(json_t *old, json_t *new, const Merging *how)
{
    json_t *list = json_array(), *one;
    size_t i;

    if (how->list == 'a' || how->list == 'p') {
        json_array_extend(list, how->list == 'a' ? old : new);
        json_array_extend(list, how->list == 'a' ? new : old);
        return list;
    }
    json_array_extend(list, old);
    json_array_foreach (new, i, one) {
        bool both = (json_is_object(one) && how->list_dicts) || (json_is_array(one) && how->list_lists);

        if (how->list == 'r' && i < json_array_size(old))
            json_array_set_new(list, i, both ? merged(json_array_get(old, i), one, how) : json_incref(one));
    }
    return list;
}

static json_t *merged_dicts(json_t *old, json_t *new, const Merging *how)
{
    json_t *dict = json_copy(old), *one;
    const char *key;

    json_object_foreach (new, key, one) {
        json_t *there = json_object_get(old, key);
        bool both = json_is_object(one) || (json_is_array(one) && how->dict_lists) || (json_is_string(one) && how->dict_texts);

        if (!there || how->dict_replaces)
            json_object_set(dict, key, one);
        else if (both)
            json_object_set_new(dict, key, merged(there, one, how));
    }
    return dict;
}

/* New reference. Nested as deep as YAML may be. */
static json_t *merged(json_t *old, json_t *new, const Merging *how)
{
    if (json_is_object(old))
        return json_is_object(new) ? merged_dicts(old, new, how) : json_incref(old);
    if (json_is_array(old) && json_is_array(new))
        return merged_lists(old, new, how);
    if (json_is_string(old) && json_is_string(new) && how->text_appends)
        return json_sprintf("%s%s", json_string_value(old), json_string_value(new));
    return json_incref(new);
}

static bool read_config(Part *part, const char *text, GError **error)
{
    g_autoptr(json_t) config = NULL;
    json_t *before = part->config;
    Merging how;

    if (!yaml_parse(text, strlen(text), part->what, &config, error))
        return false;
    if (json_is_null(config))
        return true;
    if (!json_is_object(config))
        return fail_code(error, KILN_ERROR_USAGE, "%s: a cloud-config is a mapping, and this is none", part->what);
    how = take_merging(config, part->how);
    part->config = merged(before, config, &how);
    json_decref(before);
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
    g_autofree char *content = g_strdup(body), *how = header(text, body, "Merge-Type");
    const char *before = part->how;
    bool ok;

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
    if (!how)
        how = header(text, body, "X-Merge-Type");
    part->how = how;
    ok = read_part(part, content, type, error);
    part->how = before;
    return ok;
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

/* --- Jinja --- */

/* What cloud-init would know by @name before the machine is one: its instance's ID and name, and meta-data; NULL: something else. Free with g_free. */
static char *jinja_value(const Seed *seed, const char *name)
{
    static const char *const prefixes[] = {"ds.meta_data.", "v1.", ""};
    static const char *const keys[][2] = {{"instance_id", "instance-id"}, {"local_hostname", "local-hostname"}};

    for (size_t i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        const char *key = name + strlen(prefixes[i]);

        if (!g_str_has_prefix(name, prefixes[i]))
            continue;
        for (size_t j = 0; j < G_N_ELEMENTS(keys); j++)
            if (strcmp(key, keys[j][0]) == 0 || strcmp(key, keys[j][1]) == 0) {
                char *text = seed_text(json_object_get(seed->meta, keys[j][1]));

                return text ? text : seed_text(json_object_get(seed->meta, keys[j][0]));
            }
        return i == 0 ? seed_text(json_object_get(seed->meta, key)) : NULL;
    }
    return NULL;
}

/* Plain names in {{ }} that are known here; NULL where it asks for more. */
static char *fill_jinja(Part *part, const char *text)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (const char *at; (at = strstr(text, "{{"));) {
        const char *end = strstr(at, "}}");
        g_autofree char *name = end ? g_strstrip(g_strndup(at + 2, (gsize)(end - at - 2))) : NULL, *value = name ? jinja_value(part->seed, name) : NULL;

        g_string_append_len(out, text, at - text);
        if (!value || part->filled + out->len + strlen(value) > JINJA_MAX)
            return NULL;
        g_string_append(out, value);
        text = end + 2;
    }
    g_string_append(out, text);
    part->filled += out->len;
    return g_string_free(g_steal_pointer(&out), FALSE);
}

/* Jinja fills in what mostly only a booted machine knows; what asks for more than meta-data is not applied. */
static bool read_jinja(Part *part, const char *text, GError **error)
{
    const char *rest = strchr(text, '\n');
    g_autofree char *filled = NULL;

    rest = rest ? rest + 1 : text + strlen(text);
    if (!strstr(rest, "{%") && !strstr(rest, "{#"))
        filled = fill_jinja(part, rest);
    if (filled)
        return read_part(part, filled, NULL, error);
    seed_ignore(part->seed, "%s as a Jinja template that asks for more than meta-data says", part->what);
    return true;
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
    if (g_str_has_prefix(text, "## template: jinja") || g_str_has_prefix(text, "## template:jinja"))
        return read_jinja(part, text, error);
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

static bool read_data(Seed *seed, const char *what, const char *text, GError **error)
{
    Part part = {.seed = seed, .config = json_object(), .what = what};
    bool ok = !text || read_part(&part, text, NULL, error);

    seed_merge(seed->config, part.config);
    json_decref(part.config);
    return ok;
}

bool seed_parse(const char *user_data, const char *vendor_data, const char *meta_data, Seed **ret, GError **error)
{
    g_autoptr(Seed) seed = g_new0(Seed, 1);

    seed->config = json_object();
    seed->meta = json_object();
    seed->boothooks = g_ptr_array_new_with_free_func(g_free);
    seed->scripts = g_ptr_array_new_with_free_func(g_free);
    seed->ignored = g_ptr_array_new_with_free_func(g_free);
    if (!read_meta(seed, meta_data, error) || !read_data(seed, "vendor-data", vendor_data, error) || !read_data(seed, "user-data", user_data, error))
        return false;
    note_ignored(seed);
    *ret = g_steal_pointer(&seed);
    return true;
}

static bool is_something(const json_t *value)
{
    return json_is_array(value) ? json_array_size(value) > 0 : json_is_string(value) || json_is_true(value);
}

bool seed_fetches_key(const json_t *source)
{
    const json_t *id = json_object_get(source, "keyid");

    return (json_is_string(id) || json_is_integer(id)) && !json_is_string(json_object_get(source, "key"));
}

bool seed_wants_network(const Seed *seed)
{
    static const char *const keys[] = {"packages", "package_upgrade", "apt_upgrade", "runcmd", "bootcmd"};
    const json_t *sources = json_object_get(json_object_get(seed->config, "apt"), "sources");
    const char *name;
    json_t *one;
    size_t at;

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        if (is_something(json_object_get(seed->config, keys[i])))
            return true;
    json_object_foreach ((json_t *)sources, name, one)
        if (seed_fetches_key(one))
            return true;
    json_array_foreach (sources, at, one)
        if (seed_fetches_key(one))
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
    const char *key;
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
    json_object_foreach ((json_t *)value, key, one) {
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
