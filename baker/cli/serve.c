/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln serve: the store as an OCI registry, until SIGTERM or Ctrl-C.
 */
#include "baker/cli/cli.h"

#include "base/units.h"

#include <stdio.h>

#define USAGE                                                                                                                              \
    "serve [--listen HOST:PORT]... [--tls-cert FILE --tls-key FILE] [--plain-http] [--htpasswd FILE] [--write-users U[,U...]|'*']\n"       \
    "     [--anonymous-read] [--access-log FILE|-] [--max-blob SIZE] [--max-uploads SIZE] [--max-uploads-per-user SIZE] [--upload-idle T]\n" \
    "     [--max-connections N] [--max-connections-per-address N] [--idle T] [--stop-timeout T]"

typedef struct ServeTexts {
    const char *blob, *uploads, *per_user, *upload_idle, *connections, *per_address, *idle, *stop, *writers;
} ServeTexts;

/* Flushed, because who reads this waits for it to connect. */
static void say_urls(const char *const *urls, void *arg)
{
    const CliContext *cli = arg;
    json_t *list = json_array();

    for (; *urls; urls++) {
        json_array_append_new(list, json_string(*urls));
        if (!cli->json)
            printf("%s\n", *urls);
    }
    if (cli->json)
        (void)cli_print_json(json_pack("{s:O}", "urls", list));
    json_decref(list);
    (void)fflush(stdout);
    log_info("==> serving; Ctrl-C ends it");
}

static bool parse_size(const char *option, const char *text, uint64_t *ret, GError **error)
{
    return !text || units_parse_size(text, ret, error) || fail_prefix(error, "--%s", option);
}

static bool parse_number(const char *option, const char *text, unsigned *ret, GError **error)
{
    guint64 number;

    if (!text)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, 1, 100000, &number, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "--%s wants a number from 1 to 100000, not '%s'", option, text);
    *ret = (unsigned)number;
    return true;
}

static bool parse_seconds(const char *option, const char *text, unsigned *ret, GError **error)
{
    double seconds;

    if (!text)
        return true;
    if (!units_parse_duration(text, &seconds, error))
        return fail_prefix(error, "--%s", option);
    if (seconds < 1 || seconds > 7 * 86400)
        return fail_code(error, KILN_ERROR_USAGE, "--%s wants a time from 1s to 168h, not '%s'", option, text);
    *ret = (unsigned)seconds;
    return true;
}

static bool parse_texts(const ServeTexts *texts, ServeOptions *ret, GError **error)
{
    return parse_size("max-blob", texts->blob, &ret->blob_max, error) && parse_size("max-uploads", texts->uploads, &ret->uploads_max, error) &&
           parse_size("max-uploads-per-user", texts->per_user, &ret->uploads_per_user, error) &&
           parse_seconds("upload-idle", texts->upload_idle, &ret->upload_idle, error) &&
           parse_number("max-connections", texts->connections, &ret->connections, error) &&
           parse_number("max-connections-per-address", texts->per_address, &ret->connections_per_address, error) &&
           parse_seconds("idle", texts->idle, &ret->idle, error) && parse_seconds("stop-timeout", texts->stop, &ret->stop, error);
}

int verb_serve(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) listen = g_ptr_array_new();
    g_auto(GStrv) writers = NULL;
    ServeOptions serve;
    ServeTexts texts = {0};
    const CliOption options[] = {
        {"listen", CLI_LIST, listen},
        {"tls-cert", CLI_STRING, &serve.certificate},
        {"tls-key", CLI_STRING, &serve.key},
        {"plain-http", CLI_FLAG, &serve.plain_http},
        {"htpasswd", CLI_STRING, &serve.htpasswd},
        {"write-users", CLI_STRING, &texts.writers},
        {"anonymous-read", CLI_FLAG, &serve.anonymous_read},
        {"access-log", CLI_STRING, &serve.access_log},
        {"max-blob", CLI_STRING, &texts.blob},
        {"max-uploads", CLI_STRING, &texts.uploads},
        {"max-uploads-per-user", CLI_STRING, &texts.per_user},
        {"upload-idle", CLI_STRING, &texts.upload_idle},
        {"max-connections", CLI_STRING, &texts.connections},
        {"max-connections-per-address", CLI_STRING, &texts.per_address},
        {"idle", CLI_STRING, &texts.idle},
        {"stop-timeout", CLI_STRING, &texts.stop},
        {NULL, CLI_FLAG, NULL},
    };
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(GError) error = NULL;

    serve_options_default(&serve);
    if (!cli_parse(options, USAGE, argc, argv, 0, 0, &arguments, &error) || !parse_texts(&texts, &serve, &error))
        return cli_fail(cli, error);
    serve.listen = cli_strings(listen);
    if (texts.writers)
        serve.writers = (const char *const *)(writers = g_strsplit(texts.writers, ",", -1));
    /* Who takes nothing makes no store either. */
    if (!cli_open_store(cli, serve.htpasswd ? STORE_OPEN_CREATE : STORE_OPEN_ANYWAY, &store, &error) ||
        !serve_run(store, &serve, say_urls, cli, &error))
        return cli_fail(cli, error);
    return 0;
}
