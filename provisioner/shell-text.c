/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts of the shell provisioners, written exactly as Packer writes them: templates rely on the quoting, and
 * on the order of variables.
 */
#include "provisioner/shell-text.h"

#include "base/error.h"
#include "provisioner/arguments.h"

#include <string.h>

bool shell_text_inline(const json_t *args, const ProvisionerHost *host, const char *shebang, GString **ret,
                       GError **error)
{
    g_auto(GStrv) lines = argument_texts(args, "inline");
    GString *text = g_string_new(NULL);

    g_string_append_printf(text, "#!%s\n", shebang);
    for (char **line = lines; *line; line++) {
        g_autofree char *expanded = NULL;
        if (!argument_expand(*line, host, NULL, &expanded, error)) {
            g_string_free(text, TRUE);
            return fail_prefix(error, "'inline'");
        }
        g_string_append(text, expanded);
        g_string_append_c(text, '\n');
    }
    *ret = text;
    return true;
}

typedef struct Writing {
    const char *format;
    GString *out;
    const ProvisionerHost *host;
    GError **error;
    bool failed;
} Writing;

/* Not printf: the format is the user's. */
static void append_formatted(GString *out, const char *format, const char *name, const char *value)
{
    const char *next[] = {name, value};

    for (unsigned i = 0; *format; format++) {
        if (format[0] == '%' && format[1] == 's' && i < G_N_ELEMENTS(next)) {
            g_string_append(out, next[i++]);
            format++;
        } else if (format[0] == '%' && format[1] == '%') {
            g_string_append_c(out, '%');
            format++;
        } else {
            g_string_append_c(out, *format);
        }
    }
}

static gboolean write_variable(gpointer key, gpointer value, gpointer arg)
{
    Writing *w = arg;
    g_autofree char *expanded = NULL;

    if (!argument_expand(value, w->host, NULL, &expanded, w->error)) {
        w->failed = true;
        fail_prefix(w->error, "variable %s", (char *)key);
        return TRUE;
    }
    g_autoptr(GString) escaped = g_string_new(expanded);
    g_string_replace(escaped, "'", "'\"'\"'", 0);
    append_formatted(w->out, w->format, key, escaped->str);
    return FALSE;
}

bool shell_text_vars(const json_t *args, const ProvisionerHost *host, const char *format, char **ret,
                     GError **error)
{
    g_autoptr(GTree) map = arguments_environment(args);
    g_autoptr(GString) out = g_string_new(NULL);
    Writing w = {.format = format, .out = out, .host = host, .error = error};

    if (!g_tree_lookup(map, "PACKER_BUILD_NAME"))
        g_tree_insert(map, g_strdup("PACKER_BUILD_NAME"), g_strdup(host->build_name ? host->build_name : ""));
    if (!g_tree_lookup(map, "PACKER_BUILDER_TYPE"))
        g_tree_insert(map, g_strdup("PACKER_BUILDER_TYPE"),
                      g_strdup(host->builder_type ? host->builder_type : ""));
    g_tree_foreach(map, write_variable, &w);
    if (w.failed)
        return false;
    *ret = g_string_free(g_steal_pointer(&out), FALSE);
    return true;
}

bool shell_text_check_format(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *format = argument_text(args, "env_var_format", "%s='%s' ");
    unsigned conversions = 0;

    for (const char *p = format; *p; p++) {
        if (*p != '%')
            continue;
        p++;
        if (*p != 's' && *p != '%') {
            conversions = 0;
            break;
        }
        conversions += *p == 's';
    }
    if (conversions == 2)
        return true;
    *ret_argument = "env_var_format";
    return fail_code(error, KILN_ERROR_USAGE,
                     "'env_var_format' must hold %%s twice, for name and value, as in \"%%s='%%s' \"");
}

void shell_text_strip_cr(GString *text)
{
    g_string_replace(text, "\r\n", "\n", 0);
}

bool shell_text_scripts(const json_t *args, const ProvisionerHost *host, char ***ret, GError **error)
{
    g_auto(GStrv) names = argument_texts(args, argument_given(args, "script") ? "script" : "scripts");

    for (char **name = names; *name; name++) {
        char *expanded;
        if (!argument_expand(*name, host, NULL, &expanded, error))
            return fail_prefix(error, "script \"%s\"", *name);
        g_free(*name);
        *name = expanded;
    }
    *ret = g_steal_pointer(&names);
    return true;
}
