/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays are read as text, by words, not as YAML and Jinja: a word too many only makes a step run again sooner than it had to.
 */
#include "provisioner/ansible-text.h"

#include "base/file.h"
#include "provisioner/arguments.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define TEXT_MAX (4u << 20)

static bool is_text(const ProvisionerInput *input)
{
    static const char *const suffixes[] = {".yml", ".yaml", ".j2", ".json", ".ini", ".cfg", NULL};

    for (size_t i = 0; suffixes[i]; i++)
        if (g_str_has_suffix(input->path, suffixes[i]))
            return S_ISREG(input->mode);
    return S_ISREG(input->mode) && (strstr(input->path, "group_vars/") || strstr(input->path, "host_vars/") ||
                                    strstr(input->path, "inventory"));
}

char *ansible_text_load(const ProvisionerInput *input)
{
    g_autoptr(GBytes) bytes = NULL;

    if (!is_text(input) || !file_load(AT_FDCWD, input->path, TEXT_MAX, &bytes, NULL))
        return NULL;
    return g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
}

/* Lookups that only turn values over, or read files that the key has. */
static bool is_inward(const char *text)
{
    static const char *const pure[] = {
        "vars",        "varnames", "items",       "list",          "dict",      "sequence",
        "nested",      "together", "subelements", "indexed_items", "flattened", "cartesian",
        "first_found", "template", "file",        "fileglob",      NULL};
    g_autofree char *name = NULL;

    text += strspn(text, " \t\"'");
    if (g_str_has_prefix(text, "ansible.builtin."))
        text += strlen("ansible.builtin.");
    name = g_strndup(text, strcspn(text, "\"' ,)"));
    return g_strv_contains(pure, name) && !g_str_has_prefix(text + strcspn(text, ",)"), ", '/") &&
           !g_str_has_prefix(text + strcspn(text, ",)"), ", \"/") &&
           !g_str_has_prefix(text + strcspn(text, ",)"), ", '~");
}

static bool has_lookup(const char *text, const char *call)
{
    for (const char *at = text; (at = strstr(at, call)); at += strlen(call))
        if ((at == text || !(g_ascii_isalnum(at[-1]) || at[-1] == '_')) && !is_inward(at + strlen(call)))
            return true;
    return false;
}

/* "key: value" where the value names the host that kiln itself runs on. */
static bool has_key(const char *text, const char *key, const char *const *values)
{
    for (const char *at = text; (at = strstr(at, key)); at += strlen(key)) {
        const char *value = at + strlen(key);

        if (at > text && (g_ascii_isalnum(at[-1]) || at[-1] == '_'))
            continue;
        value += strspn(value, " \t\"'");
        for (size_t i = 0; values[i]; i++)
            if (g_str_has_prefix(value, values[i]))
                return true;
    }
    return false;
}

static bool text_reaches_outside(const char *text)
{
    static const char *const any[] = {"", NULL}, *const local[] = {"local", NULL},
                             *const self[] = {"localhost", "127.0.0.1", NULL};
    static const char *const loops[] = {
        "with_url:",      "with_pipe:", "with_env:", "with_lines:", "with_inventory_hostnames:",
        "with_password:", NULL};

    for (size_t i = 0; loops[i]; i++)
        if (strstr(text, loops[i]))
            return true;
    return has_lookup(text, "lookup(") || has_lookup(text, "query(") || has_lookup(text, "q(") ||
           has_key(text, "delegate_to:", any) || has_key(text, "local_action:", any) ||
           has_key(text, "connection:", local) || has_key(text, "hosts:", self);
}

/* Collections come with tests and examples that no play runs. */
static bool is_about(const char *path)
{
    return strstr(path, "/tests/") || strstr(path, "/docs/") || strstr(path, "/molecule/") ||
           strstr(path, "/examples/") || strstr(path, "/.github/");
}

static bool galaxy_uses_servers(const json_t *args, const char *text)
{
    return argument_given(args, "galaxy_file") && (strstr(text, "://") || strstr(text, "git@")) &&
           !strstr(text, "file://");
}

bool ansible_text_reaches_outside(const json_t *args, const GPtrArray *inputs)
{
    g_autofree char *galaxy = argument_text(args, "galaxy_file", NULL);

    for (guint i = 0; i < inputs->len; i++) {
        const ProvisionerInput *input = inputs->pdata[i];
        g_autofree char *text = is_about(input->name) ? NULL : ansible_text_load(input);

        if (text && (text_reaches_outside(text) ||
                     (g_strcmp0(galaxy, input->name) == 0 && galaxy_uses_servers(args, text))))
            return true;
    }
    return false;
}
