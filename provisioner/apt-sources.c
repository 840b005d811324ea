/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading sources.list(5). Both formats end in one-line entries, because a line can be judged and copied
 * without the rest of its file.
 */
#include "provisioner/apt-sources.h"

#include <string.h>

static bool is_security_suite(const char *suite)
{
    g_autofree char *bare = g_strdup(suite);
    size_t n = strlen(bare);

    while (n && bare[n - 1] == '/')
        bare[--n] = '\0';
    return g_str_has_suffix(bare, "-security") || g_str_has_suffix(bare, "/updates");
}

/* deb [options] URI SUITE COMPONENT... */
static void one_line(const char *line, GString *list)
{
    g_autofree char *copy = g_strdup(line);
    char *p = g_strstrip(copy), *hash = strchr(copy, '#');

    if (hash)
        *hash = '\0';
    if (!g_str_has_prefix(p, "deb ") && !g_str_has_prefix(p, "deb\t"))
        return; /* deb-src brings nothing that can be installed */
    p += 4;
    p += strspn(p, " \t");
    if (*p == '[') {
        p = strchr(p, ']');
        if (!p)
            return;
        p++;
    }
    g_auto(GStrv) words = g_strsplit_set(p, " \t", -1);
    const char *uri = NULL;
    for (char **w = words; *w; w++) {
        if (!**w)
            continue;
        if (uri) {
            if (is_security_suite(*w))
                g_string_append_printf(list, "%s\n", g_strchomp(copy));
            return;
        }
        uri = *w;
    }
}

/* Fields of one stanza, lower-case name -> value with continuation lines joined by spaces. */
static GHashTable *stanza_fields(const char *stanza)
{
    GHashTable *fields = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_auto(GStrv) lines = g_strsplit(stanza, "\n", -1);
    g_autofree char *name = NULL;

    for (char **line = lines; *line; line++) {
        char *colon = strchr(*line, ':');
        if (**line == '#')
            continue;
        if ((**line == ' ' || **line == '\t') && name) {
            const char *before = g_hash_table_lookup(fields, name);
            char *joined = g_strconcat(before ? before : "", " ", g_strstrip(*line), NULL);
            g_hash_table_insert(fields, g_strdup(name), joined);
        } else if (colon) {
            g_autofree char *key = g_strndup(*line, (gsize)(colon - *line));
            g_free(name);
            name = g_ascii_strdown(g_strstrip(key), -1);
            g_hash_table_insert(fields, g_strdup(name), g_strdup(g_strstrip(colon + 1)));
        }
    }
    return fields;
}

static const char *field(GHashTable *fields, const char *name)
{
    const char *value = g_hash_table_lookup(fields, name);
    return value ? value : "";
}

static void append_options(GHashTable *fields, GString *entry)
{
    static const struct {
        const char *field, *option;
    } options[] = {
        {"signed-by", "signed-by"},
        {"architectures", "arch"},
        {"trusted", "trusted"},
        {"check-valid-until", "check-valid-until"},
    };
    g_autoptr(GString) text = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        g_autofree char *value = g_strdup(field(fields, options[i].field));
        if (!*value || strstr(value, "-----BEGIN"))
            continue;
        g_string_append_printf(text, "%s%s=%s", text->len ? " " : "", options[i].option,
                               g_strdelimit(g_strstrip(value), " \t", ','));
    }
    if (text->len)
        g_string_append_printf(entry, "[%s] ", text->str);
}

static void deb822_stanza(const char *stanza, GString *list)
{
    g_autoptr(GHashTable) fields = stanza_fields(stanza);
    g_auto(GStrv) uris = g_strsplit_set(field(fields, "uris"), " \t", -1);
    g_auto(GStrv) suites = g_strsplit_set(field(fields, "suites"), " \t", -1);
    g_auto(GStrv) types = g_strsplit_set(field(fields, "types"), " \t", -1);
    const char *enabled = field(fields, "enabled");

    if (g_ascii_strcasecmp(enabled, "no") == 0 || g_ascii_strcasecmp(enabled, "false") == 0 ||
        strcmp(enabled, "0") == 0 || !g_strv_contains((const char *const *)types, "deb"))
        return;
    for (char **uri = uris; *uri; uri++)
        for (char **suite = suites; **uri && *suite; suite++) {
            if (!is_security_suite(*suite))
                continue;
            g_string_append(list, "deb ");
            append_options(fields, list);
            g_string_append_printf(list, "%s %s %s\n", *uri, *suite, field(fields, "components"));
        }
}

void apt_sources_security(const char *text, bool deb822, GString *list)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(GString) stanza = g_string_new(NULL);

    for (char **line = lines; *line; line++) {
        if (!deb822) {
            one_line(*line, list);
            continue;
        }
        if (*g_strchomp(*line)) { /* an empty line ends a stanza */
            g_string_append_printf(stanza, "%s\n", *line);
            continue;
        }
        deb822_stanza(stanza->str, list);
        g_string_truncate(stanza, 0);
    }
    if (deb822)
        deb822_stanza(stanza->str, list);
}
