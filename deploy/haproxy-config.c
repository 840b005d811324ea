/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why the lines are what they are:
 *
 * - A pool of servers that are there, disabled, from the start (server-template): `add server` makes servers that are up before their
 *   first check and gone after a reload, and `del server` of HAProxy 2.6 has crashed.
 * - Their address is a host name that never resolves, with `init-addr last,...`: only then does HAProxy take an address from the
 *   server-state file. With a literal address a reload would bring port and weight back, and 127.0.0.1.
 * - The state file is the backend's own (`local`): kiln rewrites it with what it knows, and other backends' states are not its to write.
 * - `balance` has to be one that takes weights and states at run time.
 * - Sticky groups use a dynamic cookie, made from the server's address: a place's next tenant is not sought by the former one's clients.
 */
#include "deploy/haproxy-config.h"

#include "base/error.h"
#include "base/units.h"

#include <string.h>

#define STATE_FOLDER "/var/lib/haproxy"
#define MAP_FOLDER "/etc/haproxy"
#define GRACE_DEFAULT 30.0
#define NO_HOST "kiln.invalid" /* RFC 2606: never resolves */

void haproxy_settings_free(HaproxySettings *settings)
{
    if (!settings)
        return;
    g_free(settings->group);
    g_strfreev(settings->sockets);
    g_strfreev(settings->state_files);
    g_strfreev(settings->maps);
    g_free(settings->backend);
    g_free(settings->prefix);
    g_free(settings->backends[0]);
    g_free(settings->backends[1]);
    g_strfreev(settings->configs);
    g_free(settings->health_http);
    g_free(settings);
}

/* A word that can stand in HAProxy's commands and configuration as it is. */
static bool word_is_plain(const char *word, const char *also)
{
    if (!*word || strlen(word) > 200)
        return false;
    for (const char *c = word; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr(also, *c))
            return false;
    return true;
}

static bool check_paths(char **paths, const char *key, GError **error)
{
    for (char **path = paths; *path; path++)
        if ((*path)[0] != '/' || !word_is_plain(*path, "/._-+@"))
            return fail_code(error, KILN_ERROR_USAGE, "%s: '%s' is no absolute path of plain characters", key, *path);
    return true;
}

/* One file per socket, from NAME or NAMEs, or the default. Two balancers on one file would overwrite each other's word. */
static bool read_files(const json_t *arguments, const char *one, const char *many, HaproxySettings *s, char *otherwise /* consumed */, bool shared,
                       char ***ret, GError **error)
{
    g_autofree char *first = otherwise;
    g_auto(GStrv) files = NULL;
    guint length;

    if (!json_get_strings(arguments, json_object_get(arguments, many) ? many : one, &files, error))
        return false;
    length = g_strv_length(files);
    if (length == 0) {
        g_strfreev(files);
        files = g_new0(char *, s->count + 1);
        for (; length < s->count; length++)
            files[length] = s->count == 1 || shared ? g_strdup(first) : g_strdup_printf("%s-%u", first, length + 1);
    }
    if (shared && length == 1 && s->count > 1) {
        char **copies = g_new0(char *, s->count + 1);

        for (length = 0; length < s->count; length++)
            copies[length] = g_strdup(files[0]);
        g_strfreev(files);
        files = copies;
    }
    if (length != s->count)
        return fail_code(error, KILN_ERROR_USAGE, "%s names %u files for %u sockets", many, length, s->count);
    if (!check_paths(files, many, error))
        return false;
    *ret = g_steal_pointer(&files);
    return true;
}

static bool read_sockets(const json_t *arguments, HaproxySettings *s, GError **error)
{
    if (!json_get_strings(arguments, "sockets", &s->sockets, error))
        return false;
    s->count = g_strv_length(s->sockets);
    if (s->count < 1 || s->count > HAPROXY_SOCKETS_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "sockets names %u stats sockets; there have to be 1 to %d", s->count, HAPROXY_SOCKETS_MAX);
    for (unsigned i = 0; i < s->count; i++)
        for (unsigned j = 0; j < i; j++)
            if (strcmp(s->sockets[i], s->sockets[j]) == 0)
                return fail_code(error, KILN_ERROR_USAGE, "sockets names '%s' twice", s->sockets[i]);
    return check_paths(s->sockets, "sockets", error);
}

static bool read_backend(const json_t *arguments, bool bluegreen, HaproxySettings *s, GError **error)
{
    const char *backend, *prefix;

    if (!json_get_string(arguments, "backend", NULL, &backend, error) || !json_get_string(arguments, "prefix", NULL, &prefix, error))
        return false;
    if (!backend || !word_is_plain(backend, "._:-"))
        return fail_code(error, KILN_ERROR_USAGE, "backend has to name HAProxy's backend, of letters, digits and . _ : -");
    if (prefix && (!word_is_plain(prefix, "._:-") || g_ascii_isdigit(prefix[strlen(prefix) - 1])))
        return fail_code(error, KILN_ERROR_USAGE, "prefix has to be of letters, digits and . _ : - and not to end in a digit");
    s->backend = g_strdup(backend);
    s->prefix = g_strdup(prefix);
    s->colors = bluegreen ? 2 : 1;
    for (unsigned i = 0; i < s->colors; i++)
        s->backends[i] = bluegreen ? g_strdup_printf("%s-%u", backend, i) : g_strdup(backend);
    return true;
}

static bool read_rest(const json_t *arguments, HaproxySettings *s, const char **at, GError **error)
{
    const char *grace;

    *at = "state_file";
    if (!read_files(arguments, "state_file", "state_files", s, g_strdup_printf("%s/kiln-%s.state", STATE_FOLDER, s->group), false, &s->state_files,
                    error))
        return false;
    *at = "map";
    if (!read_files(arguments, "map", "maps", s, g_strdup_printf("%s/kiln-%s.map", MAP_FOLDER, s->group), true, &s->maps, error))
        return false;
    *at = "config";
    if (!json_get_strings(arguments, "config", &s->configs, error) || !check_paths(s->configs, "config", error))
        return false;
    if (g_strv_length(s->configs) > 1 && g_strv_length(s->configs) != s->count)
        return fail_code(error, KILN_ERROR_USAGE, "config names %u files for %u sockets", g_strv_length(s->configs), s->count);
    *at = "reload_grace";
    s->reload_grace = GRACE_DEFAULT;
    return json_get_string(arguments, "reload_grace", NULL, &grace, error) && (!grace || units_parse_duration(grace, &s->reload_grace, error));
}

bool haproxy_settings_new(const BalancerConfig *config, HaproxySettings **ret, const char **ret_argument, GError **error)
{
    static const char *const keys[] = {"sockets", "backend", "prefix", "state_file", "state_files", "map", "maps", "config", "reload_grace", NULL};
    g_autoptr(HaproxySettings) s = g_new0(HaproxySettings, 1);
    const char *ignored, **at = ret_argument ? ret_argument : &ignored;

    *at = NULL;
    if (!json_only_keys(config->arguments, keys, at))
        return fail_code(error, KILN_ERROR_USAGE, "balancer \"haproxy\" has no argument '%s'", *at);
    s->group = g_strdup(config->group);
    *at = "sockets";
    if (!read_sockets(config->arguments, s, error))
        return false;
    *at = "backend";
    if (!read_backend(config->arguments, config->strategy == STRATEGY_BLUEGREEN, s, error) || !read_rest(config->arguments, s, at, error))
        return false;
    *at = NULL;
    if (config->places > HAPROXY_PLACES_MAX)
        return fail(error, "group '%s' needs %u places in HAProxy's pool; kiln keeps at most %d", config->group, config->places, HAPROXY_PLACES_MAX);

    s->places = config->places;
    s->rise = MAX(config->rise, 1);
    s->fall = MAX(config->fall, 1);
    s->health_http = g_strdup(config->health_http);
    s->health_interval = config->health_interval > 0 ? config->health_interval : 2;
    s->sticky = config->sticky;
    *ret = g_steal_pointer(&s);
    return true;
}

/* --- the lines --- */

static char *state_file_line(const HaproxySettings *s, unsigned index)
{
    return g_strdup_printf("server-state-file-name %s", s->state_files[index]);
}

static char *server_line(const HaproxySettings *s)
{
    return g_strdup_printf("server-template %s 1-%u %s:1 init-addr last,127.0.0.1 check disabled inter %.0f rise %u fall %u",
                           s->prefix ? s->prefix : s->backend, MAX(s->places, 1), NO_HOST, s->health_interval * 1000, s->rise,
                           s->fall);
}

static char *switch_line(const HaproxySettings *s, unsigned index)
{
    return g_strdup_printf("use_backend %%[str(%s),map(%s)]", s->group, s->maps[index]);
}

/* HAProxy's quoting for a word from a group file. */
static void append_quoted(GString *text, const char *word)
{
    for (const char *c = word; *c; c++) {
        if (!g_ascii_isalnum(*c) && !strchr("/._-?=&%+~,:@", *c))
            g_string_append_c(text, '\\');
        g_string_append_c(text, *c);
    }
}

static void append_backend(const HaproxySettings *s, unsigned index, unsigned color, GString *text)
{
    g_autofree char *state = state_file_line(s, index), *server = server_line(s);

    g_string_append_printf(text, "\nbackend %s\n    balance roundrobin                  # or leastconn, or random\n", s->backends[color]);
    g_string_append_printf(text, "    load-server-state-from-file local\n    %s\n", state);
    if (s->health_http) {
        g_string_append(text, "    option httpchk GET ");
        append_quoted(text, s->health_http);
        g_string_append_c(text, '\n');
    }
    if (s->sticky)
        g_string_append_printf(text, "    cookie KILN insert indirect nocache dynamic\n    dynamic-cookie-key %s\n", s->group);
    g_string_append_printf(text, "    %s\n", server);
}

static void append_balancer(const HaproxySettings *s, unsigned index, GString *text)
{
    g_autofree char *route = switch_line(s, index);

    g_string_append_printf(text, "# HAProxy with the stats socket %s, for group \"%s\"\n", s->sockets[index], s->group);
    g_string_append_printf(text, "global\n    stats socket %s mode 660 level admin expose-fd listeners\n", s->sockets[index]);
    g_string_append_printf(text, "    hard-stop-after %.0fs                 # at least the group's drain deadline; kiln's reload_grace\n",
                           s->reload_grace);
    g_string_append_printf(text, "\nfrontend %s                             # an example: yours needs the last line\n    bind :80\n", s->group);
    if (s->colors == 2)
        g_string_append_printf(text, "    %s\n", route);
    else
        g_string_append_printf(text, "    default_backend %s\n", s->backend);
    for (unsigned color = 0; color < s->colors; color++)
        append_backend(s, index, color, text);
    if (s->colors == 2)
        g_string_append_printf(text, "\n# HAProxy does not start without the map: touch %s\n", s->maps[index]);
}

char *haproxy_config_lines(const HaproxySettings *settings)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned i = 0; i < settings->count; i++) {
        g_string_append(text, i > 0 ? "\n" : "");
        append_balancer(settings, i, text);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

/* --- the check of a file --- */

/* Words joined by one blank, without comment and quotes; "" for an empty line. */
static char *plain_line(const char *line, size_t length)
{
    g_autoptr(GString) plain = g_string_new(NULL);
    bool blank = false;

    for (size_t i = 0; i < length && line[i] != '#'; i++) {
        if (g_ascii_isspace(line[i])) {
            blank = plain->len > 0;
            continue;
        }
        if (line[i] == '"' || line[i] == '\'')
            continue;
        if (blank)
            g_string_append_c(plain, ' ');
        blank = false;
        if (line[i] == '\\' && i + 1 < length)
            i++;
        g_string_append_c(plain, line[i]);
    }
    return g_string_free(g_steal_pointer(&plain), FALSE);
}

static bool is_section(const char *plain)
{
    static const char *const sections[] = {"global", "defaults", "frontend", "backend", "listen", "userlist", "peers", "resolvers", "cache",
                                           "program", "mailers", "http-errors", "ring", "log-forward", "fcgi-app", NULL};
    g_autofree char *word = g_strndup(plain, strcspn(plain, " "));

    return g_strv_contains(sections, word);
}

/* Does a section that starts with @head ("backend web", "frontend") have a line that starts with @wanted? */
static bool section_has(const char *text, const char *head, const char *wanted)
{
    bool inside = false;

    while (*text) {
        size_t length = strcspn(text, "\n");
        g_autofree char *plain = plain_line(text, length);
        size_t head_length = strlen(head), wanted_length = strlen(wanted);

        if (is_section(plain))
            inside = strncmp(plain, head, head_length) == 0 && (plain[head_length] == '\0' || plain[head_length] == ' ');
        else if (inside && strncmp(plain, wanted, wanted_length) == 0 && (plain[wanted_length] == '\0' || plain[wanted_length] == ' '))
            return true;
        text += length + (text[length] == '\n');
    }
    return false;
}

static bool fail_missing(const HaproxySettings *s, const char *where, const char *line, GError **error)
{
    return fail(error, "HAProxy's configuration lacks '%s' in %s (all lines: kiln deploy balancer-config %s)", line, where, s->group);
}

bool haproxy_config_check(const HaproxySettings *s, unsigned index, const char *text, GError **error)
{
    static const char local[] = "load-server-state-from-file local";
    g_autofree char *route = switch_line(s, index), *state = state_file_line(s, index);
    g_autofree char *route_short = g_strdup_printf("use_backend %%[str(%s),map(%s,", s->group, s->maps[index]);

    for (unsigned color = 0; color < s->colors; color++) {
        g_autofree char *backend = g_strdup_printf("backend %s", s->backends[color]);

        if (!section_has(text, backend, local) && !section_has(text, "defaults", local))
            return fail_missing(s, backend, local, error);
        if (!section_has(text, backend, state))
            return fail_missing(s, backend, state, error);
    }
    if (s->colors == 2 && !section_has(text, "frontend", route) && !section_has(text, "listen", route) && !strstr(text, route_short))
        return fail_missing(s, "a frontend", route, error);
    return true;
}
