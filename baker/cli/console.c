/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln console: evaluates expressions of the language, from the arguments or line by line from standard input.
 *
 * On a terminal a mistake is told and the next line read; from a pipe it ends the run, so that a script notices.
 */
#include "baker/cli/cli.h"

#include "templates/templates.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const help = "The console evaluates one expression a line: literals, functions, var.NAME, local.NAME, path.root.\n"
                                "\n"
                                "  variables  shows all variables and locals\n"
                                "  help       shows this text\n"
                                "  exit       ends, as Ctrl-D does\n";

/* --- values as Packer's console shows them --- */

static void append_value(GString *out, const json_t *value, unsigned depth);

static void append_items(GString *out, const json_t *value, unsigned depth)
{
    const char *key;
    json_t *item;
    size_t i;

    g_string_append(out, json_is_object(value) ? "{\n" : "[\n");
    json_object_foreach((json_t *)value, key, item) {
        g_string_append_printf(out, "%*s\"%s\" = ", (int)depth * 2 + 2, "", key);
        append_value(out, item, depth + 1);
        g_string_append_c(out, '\n');
    }
    json_array_foreach((json_t *)value, i, item) {
        g_string_append_printf(out, "%*s", (int)depth * 2 + 2, "");
        append_value(out, item, depth + 1);
        g_string_append(out, ",\n");
    }
    g_string_append_printf(out, "%*s%c", (int)depth * 2, "", json_is_object(value) ? '}' : ']');
}

static void append_value(GString *out, const json_t *value, unsigned depth)
{
    g_autofree char *text = NULL;

    if ((json_is_array(value) && json_array_size(value) > 0) || (json_is_object(value) && json_object_size(value) > 0))
        append_items(out, value, depth);
    else if (json_is_string(value) && depth == 0)
        g_string_append(out, json_string_value(value));
    else
        g_string_append(out, text = json_canonical(value));
}

static int evaluate(const CliContext *cli, Template *template, const char *expression)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) value = NULL;
    g_autoptr(GString) out = g_string_new(NULL);

    if (!template_evaluate(template, expression, &value, &error)) {
        cli_tell_error(error);
        return error_exit_status(error);
    }
    if (cli->json) {
        g_autofree char *text = json_canonical(value);

        puts(text);
    } else {
        append_value(out, value, 0);
        puts(out->str);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

static void show_variables(Template *template)
{
    g_autoptr(json_t) about = template ? template_describe(template) : json_object();
    g_autoptr(GString) out = g_string_new("> input-variables:\n\n");

    cli_values_text(out, json_object_get(about, "variables"), "var");
    g_string_append(out, "> local-variables:\n\n");
    cli_values_text(out, json_object_get(about, "locals"), "local");
    fputs(out->str, stdout);
}

/* False when the console is to end. */
static bool run_line(const CliContext *cli, Template *template, char *line, bool terminal, int *status)
{
    g_strstrip(line);
    if (strcmp(line, "exit") == 0)
        return false;
    if (strcmp(line, "help") == 0)
        fputs(help, stdout);
    else if (strcmp(line, "variables") == 0)
        show_variables(template);
    else if (*line)
        *status = evaluate(cli, template, line);
    return terminal || *status == 0;
}

static int run_lines(const CliContext *cli, Template *template)
{
    bool terminal = isatty(STDIN_FILENO);
    char *line = NULL;
    size_t room = 0;
    int status = 0;

    do {
        if (terminal) {
            fputs("> ", stdout);
            fflush(stdout);
        }
    } while (getline(&line, &room, stdin) >= 0 && run_line(cli, template, line, terminal, &status));
    free(line);
    return terminal ? 0 : status;
}

static bool is_template(const char *argument)
{
    return g_file_test(argument, G_FILE_TEST_EXISTS) || g_str_has_suffix(argument, ".pkr.hcl") || g_str_has_suffix(argument, ".pkr.json");
}

int verb_console(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) vars = g_ptr_array_new(), files = g_ptr_array_new();
    bool ignored;
    const char *config_type;
    const CliOption options[] = {{"var", CLI_LIST, vars}, {"var-file", CLI_LIST, files}, {"config-type", CLI_STRING, &config_type},
                                 {"use-sequential-evaluation", CLI_FLAG, &ignored}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(json_t) diagnostics = json_array();
    TemplateOptions how = { .allow_unset = true, .look_only = true, .diagnostics = diagnostics };
    g_autofree char **arguments = NULL;
    g_autoptr(Template) template = NULL;
    g_autoptr(GError) error = NULL;
    char **next;
    int status = 0;

    if (!cli_parse(options, "console [-var K=V] [-var-file F] [TEMPLATE] [EXPRESSION]...", argc, argv, 0, -1, &arguments, &error))
        return cli_fail(cli, error);
    how.vars = cli_strings(vars);
    how.var_files = cli_strings(files);
    next = arguments;
    if (*next && is_template(*next) && !template_load(*next++, &how, &template, &error))
        return cli_fail_template(cli, false, diagnostics, error);
    if (!*next)
        return run_lines(cli, template);
    for (; *next && status == 0; next++)
        status = evaluate(cli, template, *next);
    return status;
}
