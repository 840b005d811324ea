/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apt's lists of sources, read by us and not by apt: apt's own reading brings the host's options, hooks and pins along,
 * and a bootstrap must not depend on those.
 */
#include "baker/source-apt.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LIST_MAX (1 << 20) /* bytes of one list */
#define LISTS_MAX 256
#define ENTRIES_MAX 4096
#define DEBIAN_KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"
#define DEBIAN_KEYRING_PREFIX "/usr/share/keyrings/debian-archive-"

void apt_entry_free(AptEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->uri);
    g_free(entry->suite);
    g_strfreev(entry->components);
    g_free(entry->signed_by);
    g_free(entry);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AptEntry, apt_entry_free)

/* Words between blanks, empty ones left out. */
static char **words(const char *text)
{
    g_auto(GStrv) split = g_strsplit_set(text, " \t\r\n", -1);
    GPtrArray *kept = g_ptr_array_new();

    for (char **w = split; *w; w++)
        if (**w)
            g_ptr_array_add(kept, g_strdup(*w));
    g_ptr_array_add(kept, NULL);
    return (char **)g_ptr_array_free(kept, FALSE);
}

/* Nothing that could become another word, option or line when it is written out again. */
static bool plain(const char *text)
{
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == '[' || *c == ']' || *c == 0x7f)
            return false;
    return *text != '\0';
}

static void add_entry(GPtrArray *entries, const char *uri, const char *suite, char **components, const char *signed_by,
                      bool trusted)
{
    AptEntry *entry;
    bool flat = g_str_has_suffix(suite, "/");

    if (entries->len >= ENTRIES_MAX || !plain(uri) || !plain(suite) || flat == (components[0] != NULL))
        return;
    for (char **component = components; *component; component++)
        if (!plain(*component))
            return;
    entry = g_new0(AptEntry, 1);
    entry->uri = g_strdup(uri);
    while (g_str_has_suffix(entry->uri, "/"))
        entry->uri[strlen(entry->uri) - 1] = '\0';
    entry->suite = g_strdup(suite);
    entry->components = g_strdupv(components);
    entry->signed_by = g_strdup(signed_by);
    entry->trusted = trusted;
    g_ptr_array_add(entries, entry);
}

/* "[ a=b signed-by=/x ]" at @text: the keyring, whether none is wanted, and where the entry goes on. */
static const char *skip_options(const char *text, char **ret_signed_by, bool *ret_trusted)
{
    const char *end = strchr(text, ']');
    g_autofree char *inside = NULL;
    g_auto(GStrv) options = NULL;

    if (!end)
        return NULL;
    inside = g_strndup(text + 1, (gsize)(end - text - 1));
    options = words(inside);
    *ret_trusted = g_strv_contains((const char *const *)options, "trusted=yes");
    for (char **o = options; *o; o++)
        if (g_ascii_strncasecmp(*o, "signed-by=", 10) == 0 && plain(*o + 10)) {
            g_free(*ret_signed_by);
            *ret_signed_by = g_strdup(*o + 10);
        }
    return end + 1;
}

static void parse_line(const char *line, GPtrArray *entries)
{
    g_autofree char *signed_by = NULL;
    g_auto(GStrv) fields = NULL;
    bool trusted = false;

    while (*line == ' ' || *line == '\t')
        line++;
    if (!g_str_has_prefix(line, "deb") || (line[3] != ' ' && line[3] != '\t'))
        return;
    line += 3;
    while (*line == ' ' || *line == '\t')
        line++;
    if (*line == '[')
        line = skip_options(line, &signed_by, &trusted);
    if (!line)
        return;
    fields = words(line);
    if (g_strv_length(fields) >= 2)
        add_entry(entries, fields[0], fields[1], fields + 2, signed_by, trusted);
}

void apt_parse_one_line(const char *text, GPtrArray *entries)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        char *comment = strchr(*line, '#');

        if (comment)
            *comment = '\0';
        parse_line(*line, entries);
    }
}

static bool has_word(const char *text, const char *word)
{
    g_auto(GStrv) all = words(text ? text : "");

    return g_strv_contains((const char *const *)all, word);
}

/* A key written into the field itself: an empty line stands there as a dot. */
static char *armoured_key(const char *field)
{
    g_auto(GStrv) lines = g_strsplit(field, "\n", -1);
    g_autoptr(GString) key = g_string_new(NULL);

    for (char **line = lines; *line; line++) {
        g_strstrip(*line);
        if (key->len == 0 && !g_str_has_prefix(*line, "-----BEGIN"))
            continue;
        g_string_append_printf(key, "%s\n", strcmp(*line, ".") == 0 ? "" : *line);
    }
    return g_string_free(g_steal_pointer(&key), FALSE);
}

/* One paragraph: lower-case field name -> text, lines joined by newlines. */
static void add_paragraph(GHashTable *fields, GPtrArray *entries)
{
    const char *enabled = g_hash_table_lookup(fields, "enabled"), *key = g_hash_table_lookup(fields, "signed-by");
    const char *uris_text = g_hash_table_lookup(fields, "uris"), *suites_text = g_hash_table_lookup(fields, "suites");
    const char *components_text = g_hash_table_lookup(fields, "components");
    g_auto(GStrv) uris = words(uris_text ? uris_text : "");
    g_auto(GStrv) suites = words(suites_text ? suites_text : "");
    g_auto(GStrv) components = words(components_text ? components_text : "");
    g_auto(GStrv) keys = words(key ? key : "");
    g_autofree char *inside = key && strstr(key, "-----BEGIN") ? armoured_key(key) : NULL;

    if (!has_word(g_hash_table_lookup(fields, "types"), "deb") || (enabled && has_word(enabled, "no")))
        return;
    /* Fingerprints, or several keyrings: not ours to understand, and with fewer keys than it wants it would be wrong. */
    if (!inside && keys[0] && (keys[1] || keys[0][0] != '/'))
        return;
    for (char **uri = uris; *uri; uri++)
        for (char **suite = suites; *suite; suite++)
            add_entry(entries, *uri, *suite, components, inside ? inside : keys[0],
                      has_word(g_hash_table_lookup(fields, "trusted"), "yes"));
}

void apt_parse_deb822(const char *text, GPtrArray *entries)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(GHashTable) fields = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autofree char *last = NULL;

    for (char **line = lines; *line; line++) {
        char *colon = strchr(*line, ':');

        if ((*line)[0] == '#')
            continue;
        if (((*line)[0] == ' ' || (*line)[0] == '\t') && g_strstrip(*line)[0]) {
            const char *before = last ? g_hash_table_lookup(fields, last) : NULL;

            if (before)
                g_hash_table_insert(fields, g_strdup(last), g_strconcat(before, "\n", *line, NULL));
        } else if (g_strstrip(*line)[0] == '\0') {
            add_paragraph(fields, entries);
            g_hash_table_remove_all(fields);
        } else if (colon) {
            g_free(last);
            last = g_ascii_strdown(*line, colon - *line);
            g_hash_table_insert(fields, g_strdup(last), g_strdup(colon + 1));
        }
    }
    add_paragraph(fields, entries);
}

static void read_list(const char *path, bool deb822, GPtrArray *entries)
{
    g_autoptr(GBytes) bytes = NULL;

    if (!file_load(AT_FDCWD, path, LIST_MAX, &bytes, NULL))
        return; /* absent, or nothing apt would read either */
    if (deb822)
        apt_parse_deb822(g_bytes_get_data(bytes, NULL), entries);
    else
        apt_parse_one_line(g_bytes_get_data(bytes, NULL), entries);
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

GPtrArray *apt_read_folder(const char *folder)
{
    GPtrArray *entries = g_ptr_array_new_with_free_func((GDestroyNotify)apt_entry_free);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *main_list = g_build_filename(folder, "sources.list", NULL);
    g_autofree char *parts = g_build_filename(folder, "sources.list.d", NULL);
    g_autoptr(GDir) dir = g_dir_open(parts, 0, NULL);

    read_list(main_list, false, entries);
    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name && names->len < LISTS_MAX;
         name = g_dir_read_name(dir))
        if (g_str_has_suffix(name, ".list") || g_str_has_suffix(name, ".sources"))
            g_ptr_array_add(names, g_build_filename(parts, name, NULL));
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++)
        read_list(names->pdata[i], g_str_has_suffix(names->pdata[i], ".sources"), entries);
    return entries;
}

/*
 * Signed by Debian's archive key: said so by the entry, or, where it names no key, an archive that calls itself
 * Debian (a mirror's path ends in /debian or /debian-security). With a foreign key the bootstrap would only fail.
 */
static bool is_debian(const AptEntry *entry)
{
    const char *last = strrchr(entry->uri, '/');

    if (entry->signed_by)
        return g_str_has_prefix(entry->signed_by, DEBIAN_KEYRING_PREFIX);
    return last && (strcmp(last, "/debian") == 0 || strcmp(last, "/debian-security") == 0);
}

static bool belongs(const AptEntry *entry, const char *suite)
{
    size_t length = strlen(suite);
    const char *rest = entry->suite + length;

    return strncmp(entry->suite, suite, length) == 0 &&
           (*rest == '\0' || strcmp(rest, "-updates") == 0 || strcmp(rest, "-security") == 0);
}

static char *line_of(const char *uri, const char *suite, const char *const *components, const char *signed_by)
{
    g_autofree char *joined = g_strjoinv(" ", (char **)components);

    return g_strdup_printf("deb [signed-by=%s] %s %s %s", signed_by, uri, suite, joined);
}

static int by_suite_length(gconstpointer a, gconstpointer b)
{
    return (int)strlen((*(AptEntry *const *)a)->suite) - (int)strlen((*(AptEntry *const *)b)->suite);
}

/* What Debian's own installer would write for @suite. */
static void add_public_archive(GPtrArray *lines, const char *suite, const char *const *components)
{
    static const char *const only_main[] = {"main", NULL};
    g_autofree char *updates = g_strconcat(suite, "-updates", NULL);
    g_autofree char *security = g_strconcat(suite, "-security", NULL);
    const char *archive = "http://deb.debian.org/debian";

    components = components ? components : only_main;
    g_ptr_array_add(lines, line_of(archive, suite, components, DEBIAN_KEYRING));
    if (strcmp(suite, "sid") == 0 || strcmp(suite, "unstable") == 0 || strcmp(suite, "experimental") == 0)
        return;
    g_ptr_array_add(lines, line_of(archive, updates, components, DEBIAN_KEYRING));
    g_ptr_array_add(lines, line_of("http://security.debian.org/debian-security", security, components, DEBIAN_KEYRING));
}

char **apt_lines_for_suite(GPtrArray *entries, const char *suite, const char *const *components)
{
    g_autoptr(GPtrArray) chosen = g_ptr_array_new();
    GPtrArray *lines = g_ptr_array_new();
    bool has_base = false;

    for (guint i = 0; i < entries->len; i++) {
        const AptEntry *entry = entries->pdata[i];

        if (!belongs(entry, suite) || !is_debian(entry))
            continue;
        g_ptr_array_add(chosen, entries->pdata[i]);
        has_base = has_base || strcmp(entry->suite, suite) == 0;
    }
    g_ptr_array_sort(chosen, by_suite_length); /* the suite itself first: its release file gives the time */
    for (guint i = 0; has_base && i < chosen->len; i++) {
        const AptEntry *entry = chosen->pdata[i];

        g_ptr_array_add(lines, line_of(entry->uri, entry->suite,
                                       components ? components : (const char *const *)entry->components,
                                       entry->signed_by ? entry->signed_by : DEBIAN_KEYRING));
    }
    if (!has_base)
        add_public_archive(lines, suite, components);
    g_ptr_array_add(lines, NULL);
    return (char **)g_ptr_array_free(lines, FALSE);
}

bool apt_line_from_template(const char *text, const char *suite, const char *const *components, char **ret,
                            GError **error)
{
    static const char *const only_main[] = {"main", NULL};
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)apt_entry_free);
    const AptEntry *entry;

    if (strstr(text, "://") && plain(text)) {
        g_autofree char *uri = g_strdup(text);

        while (g_str_has_suffix(uri, "/"))
            uri[strlen(uri) - 1] = '\0';
        *ret = line_of(uri, suite, components ? components : only_main, DEBIAN_KEYRING);
        return true;
    }
    apt_parse_one_line(text, entries);
    if (entries->len != 1 || strchr(text, '\n'))
        return fail_code(error, KILN_ERROR_USAGE,
                         "'%s' is neither a URL nor a line like \"deb http://deb.debian.org/debian %s main\"", text, suite);
    entry = entries->pdata[0];
    if (!entry->components[0])
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is a flat repository, which no root can be bootstrapped from", text);
    *ret = line_of(entry->uri, entry->suite, (const char *const *)entry->components,
                   entry->signed_by ? entry->signed_by : DEBIAN_KEYRING);
    return true;
}

char *apt_release_url(const char *line)
{
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)apt_entry_free);

    apt_parse_one_line(line, entries);
    if (entries->len != 1)
        return NULL;
    return apt_entry_release_url(entries->pdata[0]);
}

char *apt_entry_release_url(const AptEntry *entry)
{
    if (!g_str_has_suffix(entry->suite, "/"))
        return g_strdup_printf("%s/dists/%s/InRelease", entry->uri, entry->suite);
    return g_strdup_printf("%s/%sInRelease", entry->uri, strcmp(entry->suite, "/") == 0 ? "" : entry->suite);
}

int64_t apt_release_date(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const char *field = g_str_has_prefix(text, "Date:") ? text : strstr(text, "\nDate:"), *found;
    struct tm tm = {0};
    char month[4];

    if (!field || sscanf(strchr(field, ':') + 1, " %*3s, %2d %3s %4d %2d:%2d:%2d", &tm.tm_mday, month, &tm.tm_year,
                         &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
        return -1;
    found = strstr(months, month);
    if (!found || strlen(month) != 3 || (found - months) % 3 != 0)
        return -1;
    tm.tm_mon = (int)(found - months) / 3;
    tm.tm_year -= 1900;
    return (int64_t)timegm(&tm);
}
