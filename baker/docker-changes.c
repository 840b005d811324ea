/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line, one instruction. Words are split as a Dockerfile's: by blanks, with quotes and backslashes; $NAME in them is what Env has when the line begins.
 */
#include "baker/docker-changes.h"

#include "base/error.h"
#include "base/units.h"

#include <string.h>

#define LINE_MAX_BYTES 65536u
#define HEALTH_SECONDS_MAX 1e9 /* in nanoseconds it fits */
#define WORD_MAX_BYTES (1u << 20) /* of one word whose variables stand for something */
#define DEPTH_MAX 16u             /* ${A:-${B:-...}} */

typedef struct Changing {
    json_t *document, *config;
    bool cmd_given;
    bool checking; /* the image is not known, and so nobody can say what a variable stands for */
} Changing;

/* --- texts --- */

static bool is_list(const char *text)
{
    return *text == '[';
}

static bool parse_list(const char *text, json_t **ret, GError **error)
{
    json_t *one;
    size_t i;
    g_autoptr(json_t) list = NULL;

    if (!json_parse(text, strlen(text), LINE_MAX_BYTES, "a list", &list, error))
        return false;
    json_array_foreach(list, i, one)
    {
        if (!json_is_string(one))
            return fail_code(error, KILN_ERROR_USAGE, "a list holds texts only");
    }
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- variables --- */

static size_t name_length(const char *text)
{
    return strspn(text, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "_");
}

static const char *variable(const Changing *c, const char *name, size_t length)
{
    json_t *one;
    size_t i;

    json_array_foreach (json_object_get(c->config, "Env"), i, one) {
        const char *pair = json_string_value(one);

        if (pair && strncmp(pair, name, length) == 0 && pair[length] == '=')
            return pair + length + 1;
    }
    return NULL;
}

static bool unquote(const Changing *c, const char **text, const char *ends, unsigned depth, GString *word, GError **error);

/* "${NAME}", "${NAME:-otherwise}" or "${NAME:+instead}", behind its "${". */
static bool expand_braces(const Changing *c, const char **text, unsigned depth, GString *word, GError **error)
{
    size_t length = name_length(*text);
    const char *value = variable(c, *text, length), *at = *text + length;
    g_autoptr(GString) other = g_string_new(NULL);
    char how = at[0] == ':' ? at[1] : '\0';

    if (length == 0 || (*at != '}' && how != '-' && how != '+'))
        return fail_code(error, KILN_ERROR_USAGE, "what stands in ${} is NAME, NAME:-TEXT or NAME:+TEXT");
    at += how ? 2 : 0;
    if (how && !unquote(c, &at, "}", depth + 1, other, error))
        return false;
    if (*at != '}')
        return fail_code(error, KILN_ERROR_USAGE, "a ${ has no end");
    value = value && *value ? (how == '+' ? other->str : value) : (how == '-' ? other->str : "");
    g_string_append(word, value);
    *text = at + 1;
    return true;
}

/* Behind the dollar, which stands for itself where no name follows. */
static bool expand(const Changing *c, const char **text, unsigned depth, GString *word, GError **error)
{
    size_t length;

    if (depth > DEPTH_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "its ${} are nested too deep");
    if (**text == '{') {
        ++*text;
        return expand_braces(c, text, depth, word, error);
    }
    length = g_ascii_isdigit(**text) ? 0 : name_length(*text);
    if (length == 0)
        g_string_append_c(word, '$');
    else if (variable(c, *text, length))
        g_string_append(word, variable(c, *text, length));
    *text += length;
    return true;
}

/* --- words --- */

/* Up to one of @ends outside of quotes (or the end), without its quotes and with its variables; moves *text there. */
static bool unquote(const Changing *c, const char **text, const char *ends, unsigned depth, GString *word, GError **error)
{
    const char *at = *text;
    char quote = '\0';

    while (*at && (quote || !strchr(ends, *at)) && word->len <= WORD_MAX_BYTES) {
        if (quote && *at == quote) {
            quote = '\0';
            at++;
        } else if (!quote && (*at == '"' || *at == '\'')) {
            quote = *at++;
        } else if (*at == '\\' && quote != '\'' && at[1]) {
            g_string_append_c(word, at[1]);
            at += 2;
        } else if (*at == '$' && quote != '\'') {
            at++;
            if (!expand(c, &at, depth, word, error))
                return false;
        } else {
            g_string_append_c(word, *at++);
        }
    }
    if (word->len > WORD_MAX_BYTES)
        return fail_code(error, KILN_ERROR_USAGE, "what it stands for is too long");
    if (quote)
        return fail_code(error, KILN_ERROR_USAGE, "a quote has no end");
    *text = at;
    return true;
}

static bool split_words(const Changing *c, const char *text, char ***ret, GError **error)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);

    while (*text) {
        g_autoptr(GString) word = g_string_new(NULL);

        if (!unquote(c, &text, " \t\n", 0, word, error))
            return false;
        g_ptr_array_add(words, g_string_free(g_steal_pointer(&word), FALSE));
        text += strspn(text, " \t\n");
    }
    g_ptr_array_add(words, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&words), FALSE);
    return true;
}

/* The whole text as one word; free with g_free. */
static bool one_word(const Changing *c, const char *text, char **ret, GError **error)
{
    g_autoptr(GString) word = g_string_new(NULL);

    if (!unquote(c, &text, "", 0, word, error))
        return false;
    *ret = g_string_free(g_steal_pointer(&word), FALSE);
    return true;
}

/* "A=1 B='two words'", or the older "A one value". */
static bool split_pairs(const Changing *c, const char *text, char ***ret, GError **error)
{
    size_t name = strcspn(text, "= \t");

    if (text[name] != '=' && text[name]) {
        g_autofree char *key = g_strndup(text, name), *rest = g_strstrip(g_strdup(text + name)), *value = NULL;

        if (!one_word(c, rest, &value, error))
            return false;
        *ret = g_new0(char *, 2);
        (*ret)[0] = g_strconcat(key, "=", value, NULL);
        return true;
    }
    if (!split_words(c, text, ret, error))
        return false;
    for (char **pair = *ret; *pair; pair++)
        if (!strchr(*pair, '=') || **pair == '=') {
            fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no NAME=value", *pair);
            g_clear_pointer(ret, g_strfreev);
            return false;
        }
    return true;
}

/* --- instructions --- */

static bool change_command(Changing *c, const char *key, const char *text, GError **error)
{
    const json_t *shell = json_object_get(c->config, "Shell");
    json_t *list;

    if (is_list(text)) {
        if (!parse_list(text, &list, error))
            return false;
    } else if (json_array_size(shell)) { /* the image's own SHELL */
        list = json_deep_copy(shell);
        json_array_append_new(list, json_string(text));
    } else {
        list = json_pack("[s, s, s]", "/bin/sh", "-c", text);
    }
    json_object_set_new(c->config, key, list);
    return true;
}

static bool change_cmd(Changing *c, const char *text, GError **error)
{
    c->cmd_given = true;
    return change_command(c, "Cmd", text, error);
}

static bool change_entrypoint(Changing *c, const char *text, GError **error)
{
    if (!c->cmd_given)
        (void)json_object_del(c->config, "Cmd"); /* there may be none */
    return change_command(c, "Entrypoint", text, error);
}

static void set_env(json_t *list, const char *pair)
{
    size_t name = strcspn(pair, "=") + 1, i;
    json_t *one;

    json_array_foreach(list, i, one)
    {
        if (json_is_string(one) && strncmp(json_string_value(one), pair, name) == 0) {
            json_array_set_new(list, i, json_string(pair));
            return;
        }
    }
    json_array_append_new(list, json_string(pair));
}

static json_t *inside(Changing *c, const char *key, json_t *otherwise /* taken */)
{
    json_t *there = json_object_get(c->config, key);

    if (there && json_typeof(there) == json_typeof(otherwise)) {
        json_decref(otherwise);
        return there;
    }
    json_object_set_new(c->config, key, otherwise);
    return otherwise;
}

static bool change_env(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) pairs = NULL;

    if (!split_pairs(c, text, &pairs, error))
        return false;
    for (char **pair = pairs; *pair; pair++)
        set_env(inside(c, "Env", json_array()), *pair);
    return true;
}

static bool change_label(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) pairs = NULL;

    if (!split_pairs(c, text, &pairs, error))
        return false;
    for (char **pair = pairs; *pair; pair++) {
        g_autofree char *name = g_strndup(*pair, strcspn(*pair, "="));

        json_object_set_new(inside(c, "Labels", json_object()), name, json_string(strchr(*pair, '=') + 1));
    }
    return true;
}

/* "80", "80/UDP", "8000-8010": one entry for each port, as Docker writes them. */
static bool add_port(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, "/", 2), range = g_strsplit(parts[0] ? parts[0] : "", "-", 2);
    g_autofree char *protocol = g_ascii_strdown(parts[0] && parts[1] ? parts[1] : "tcp", -1);
    guint64 first = 0, last;
    bool ok = range[0] && g_ascii_string_to_unsigned(range[0], 10, 0, 65535, &first, NULL) &&
              (strcmp(protocol, "tcp") == 0 || strcmp(protocol, "udp") == 0 || strcmp(protocol, "sctp") == 0);

    last = first;
    if (ok && range[1])
        ok = g_ascii_string_to_unsigned(range[1], 10, first, 65535, &last, NULL);
    for (guint64 port = first; ok && port <= last; port++) {
        g_autofree char *whole = g_strdup_printf("%u/%s", (unsigned)port, protocol);

        json_object_set_new(inside(c, "ExposedPorts", json_object()), whole, json_object());
    }
    return ok || fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no port", text);
}

static bool change_expose(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) ports = NULL;

    if (!split_words(c, text, &ports, error))
        return false;
    if (c->checking && strchr(text, '$'))
        return true;
    for (char **port = ports; *port; port++)
        if (!add_port(c, *port, error))
            return false;
    return true;
}

static bool change_volume(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) words = NULL;
    g_autoptr(json_t) list = NULL;
    json_t *one;
    size_t i;

    if (is_list(text) ? !parse_list(text, &list, error) : !split_words(c, text, &words, error))
        return false;
    json_array_foreach(list, i, one)
    {
        json_object_set_new(inside(c, "Volumes", json_object()), json_string_value(one), json_object());
    }
    for (char **word = words; word && *word; word++)
        json_object_set_new(inside(c, "Volumes", json_object()), *word, json_object());
    return true;
}

static bool change_workdir(Changing *c, const char *text, GError **error)
{
    const char *before = json_string_value(json_object_get(c->config, "WorkingDir"));
    g_autofree char *word = NULL, *whole = NULL;

    if (!one_word(c, text, &word, error))
        return false;
    whole = g_canonicalize_filename(word, before && g_path_is_absolute(before) ? before : "/");
    json_object_set_new(c->config, "WorkingDir", json_string(whole));
    return true;
}

static bool change_text(Changing *c, const char *key, const char *text, GError **error)
{
    char *word;

    if (!one_word(c, text, &word, error))
        return false;
    json_object_set_new(c->config, key, json_string(word));
    g_free(word);
    return true;
}

static bool change_user(Changing *c, const char *text, GError **error)
{
    return change_text(c, "User", text, error);
}

static bool change_stopsignal(Changing *c, const char *text, GError **error)
{
    return change_text(c, "StopSignal", text, error);
}

/* Docker's own key: OCI says nothing about it, and keeps it. */
static bool change_onbuild(Changing *c, const char *text, GError **error)
{
    json_array_append_new(inside(c, "OnBuild", json_array()), json_string(text));
    return true;
}

/* --interval=30s and its like, as the config has them: times in nanoseconds. */
static bool health_option(json_t *health, const char *option, GError **error)
{
    static const char *const times[][2] = {
        {"--interval=", "Interval"}, {"--timeout=", "Timeout"}, {"--start-period=", "StartPeriod"}, {"--start-interval=", "StartInterval"}};
    guint64 retries;
    double seconds;

    for (size_t i = 0; i < G_N_ELEMENTS(times); i++)
        if (g_str_has_prefix(option, times[i][0])) {
            if (!units_parse_duration(option + strlen(times[i][0]), &seconds, error))
                return false;
            json_object_set_new(health, times[i][1], json_integer((json_int_t)(MIN(seconds, HEALTH_SECONDS_MAX) * 1e9)));
            return true;
        }
    if (!g_str_has_prefix(option, "--retries=") || !g_ascii_string_to_unsigned(option + strlen("--retries="), 10, 0, G_MAXINT, &retries, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no option of HEALTHCHECK", option);
    json_object_set_new(health, "Retries", json_integer((json_int_t)retries));
    return true;
}

/* [OPTION ...] CMD with a list or a line for the shell; NONE switches off what was inherited. */
static bool change_healthcheck(Changing *c, const char *text, GError **error)
{
    json_t *health = json_object(), *test;

    json_object_set_new(c->config, "Healthcheck", health);
    if (g_ascii_strcasecmp(text, "NONE") == 0)
        return json_object_set_new(health, "Test", json_pack("[s]", "NONE")) == 0;
    while (g_str_has_prefix(text, "--")) {
        g_autofree char *option = g_strndup(text, strcspn(text, " \t"));

        if (!health_option(health, option, error))
            return false;
        text += strlen(option);
        text += strspn(text, " \t");
    }
    if (g_ascii_strncasecmp(text, "CMD", 3) != 0 || !text[3] || !strchr(" \t[", text[3]) || !text[3 + strspn(text + 3, " \t")])
        return fail_code(error, KILN_ERROR_USAGE, "HEALTHCHECK is NONE, or CMD and a command");
    text += 3 + strspn(text + 3, " \t");
    if (!is_list(text))
        return json_object_set_new(health, "Test", json_pack("[s, s]", "CMD-SHELL", text)) == 0;
    if (!parse_list(text, &test, error))
        return false;
    json_array_insert_new(test, 0, json_string("CMD"));
    return json_object_set_new(health, "Test", test) == 0;
}

static bool change_maintainer(Changing *c, const char *text, GError **error)
{
    json_object_set_new(c->document, "author", json_string(text));
    return true;
}

static const struct {
    const char *word;
    bool (*change)(Changing *c, const char *text, GError **error);
} instructions[] = {{"CMD", change_cmd},         {"ENTRYPOINT", change_entrypoint}, {"ENV", change_env},
                    {"EXPOSE", change_expose},   {"HEALTHCHECK", change_healthcheck}, {"LABEL", change_label},
                    {"MAINTAINER", change_maintainer}, {"ONBUILD", change_onbuild}, {"STOPSIGNAL", change_stopsignal},
                    {"USER", change_user},       {"VOLUME", change_volume},         {"WORKDIR", change_workdir}};

static bool change_line(Changing *c, const char *line, GError **error)
{
    g_autofree char *word = g_strndup(line, strcspn(line, " \t\n")), *text = g_strstrip(g_strdup(line + strlen(word)));

    if (strlen(line) > LINE_MAX_BYTES || !g_utf8_validate(line, -1, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "it is too long, or no UTF-8");
    for (size_t i = 0; i < G_N_ELEMENTS(instructions); i++)
        if (g_ascii_strcasecmp(word, instructions[i].word) == 0)
            return *text ? instructions[i].change(c, text, error) : fail_code(error, KILN_ERROR_USAGE, "nothing follows %s", instructions[i].word);
    return fail_code(error, KILN_ERROR_USAGE, "there are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, MAINTAINER, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR");
}

static bool apply(Changing *c, const char *const *changes, GError **error)
{
    c->config = json_object_get(c->document, "config");
    if (!json_is_object(c->config)) {
        c->config = json_object();
        json_object_set_new(c->document, "config", c->config);
    }
    for (; changes && *changes; changes++) {
        g_autofree char *line = g_strstrip(g_strdup(*changes));

        if (!change_line(c, line, error))
            return fail_prefix(error, "\"%s\" in 'changes'", *changes);
    }
    return true;
}

bool docker_changes_apply(const char *const *changes, json_t *image_config, GError **error)
{
    Changing c = {.document = image_config};

    return apply(&c, changes, error);
}

bool docker_changes_check(const char *const *changes, GError **error)
{
    g_autoptr(json_t) nothing = json_object();
    Changing c = {.document = nothing, .checking = true};

    return apply(&c, changes, error);
}
