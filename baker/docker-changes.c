/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line, one instruction. Words are split as a Dockerfile's: by blanks, with quotes and backslashes.
 */
#include "baker/docker-changes.h"

#include "base/error.h"
#include "base/units.h"

#include <string.h>

#define LINE_MAX_BYTES 65536u
#define HEALTH_SECONDS_MAX 1e9 /* in nanoseconds it fits */

typedef struct Changing {
    json_t *document, *config;
    bool cmd_given;
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

/* One word with its quotes taken off; moves *text behind it. */
static bool take_word(const char **text, char **ret, GError **error)
{
    g_autoptr(GString) word = g_string_new(NULL);
    const char *at = *text;
    char quote = '\0';

    for (; *at && (quote || !g_ascii_isspace(*at)); at++) {
        if (quote && *at == quote)
            quote = '\0';
        else if (!quote && (*at == '"' || *at == '\''))
            quote = *at;
        else if (*at == '\\' && quote != '\'' && at[1])
            g_string_append_c(word, *++at);
        else
            g_string_append_c(word, *at);
    }
    if (quote)
        return fail_code(error, KILN_ERROR_USAGE, "a quote has no end");
    while (g_ascii_isspace(*at))
        at++;
    *text = at;
    *ret = g_string_free(g_steal_pointer(&word), FALSE);
    return true;
}

static bool split_words(const char *text, char ***ret, GError **error)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);

    while (*text) {
        char *word = NULL;

        if (!take_word(&text, &word, error))
            return false;
        g_ptr_array_add(words, word);
    }
    g_ptr_array_add(words, NULL);
    *ret = (char **)g_ptr_array_free(g_steal_pointer(&words), FALSE);
    return true;
}

/* "A=1 B='two words'", or the older "A one value". */
static bool split_pairs(const char *text, char ***ret, GError **error)
{
    size_t name = strcspn(text, "= \t");

    if (text[name] != '=' && text[name]) {
        g_autofree char *key = g_strndup(text, name), *value = g_strstrip(g_strdup(text + name));

        *ret = g_new0(char *, 2);
        (*ret)[0] = g_strconcat(key, "=", value, NULL);
        return true;
    }
    if (!split_words(text, ret, error))
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
    json_t *list;

    if (!is_list(text))
        list = json_pack("[s, s, s]", "/bin/sh", "-c", text);
    else if (!parse_list(text, &list, error))
        return false;
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
        if (strncmp(json_string_value(one), pair, name) == 0) {
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

    if (!split_pairs(text, &pairs, error))
        return false;
    for (char **pair = pairs; *pair; pair++)
        set_env(inside(c, "Env", json_array()), *pair);
    return true;
}

static bool change_label(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) pairs = NULL;

    if (!split_pairs(text, &pairs, error))
        return false;
    for (char **pair = pairs; *pair; pair++) {
        g_autofree char *name = g_strndup(*pair, strcspn(*pair, "="));

        json_object_set_new(inside(c, "Labels", json_object()), name, json_string(strchr(*pair, '=') + 1));
    }
    return true;
}

static bool change_expose(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) ports = NULL;

    if (!split_words(text, &ports, error))
        return false;
    for (char **port = ports; *port; port++) {
        g_autofree char *whole = strchr(*port, '/') ? g_ascii_strdown(*port, -1) : g_strconcat(*port, "/tcp", NULL);

        if (!g_regex_match_simple("^[0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp|sctp)$", whole, G_REGEX_DOLLAR_ENDONLY, 0))
            return fail_code(error, KILN_ERROR_USAGE, "\"%s\" is no port", *port);
        json_object_set_new(inside(c, "ExposedPorts", json_object()), whole, json_object());
    }
    return true;
}

static bool change_volume(Changing *c, const char *text, GError **error)
{
    g_auto(GStrv) words = NULL;
    g_autoptr(json_t) list = NULL;
    json_t *one;
    size_t i;

    if (is_list(text) ? !parse_list(text, &list, error) : !split_words(text, &words, error))
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
    g_autofree char *whole = g_canonicalize_filename(text, before && g_path_is_absolute(before) ? before : "/");

    json_object_set_new(c->config, "WorkingDir", json_string(whole));
    return true;
}

static bool change_user(Changing *c, const char *text, GError **error)
{
    json_object_set_new(c->config, "User", json_string(text));
    return true;
}

static bool change_stopsignal(Changing *c, const char *text, GError **error)
{
    json_object_set_new(c->config, "StopSignal", json_string(text));
    return true;
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

bool docker_changes_apply(const char *const *changes, json_t *image_config, GError **error)
{
    Changing c = {.document = image_config, .config = json_object_get(image_config, "config")};

    if (!json_is_object(c.config)) {
        c.config = json_object();
        json_object_set_new(image_config, "config", c.config);
    }
    for (; changes && *changes; changes++) {
        g_autofree char *line = g_strstrip(g_strdup(*changes));

        if (!change_line(&c, line, error))
            return fail_prefix(error, "\"%s\" in 'changes'", *changes);
    }
    return true;
}
