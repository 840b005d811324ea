/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options in Packer's spelling (one dash or two, value after a space or '='),
 * which GOption does not read; and where the store is.
 */
#include "baker/cli/cli.h"

#include "base/file.h"
#include "base/mask.h"
#include "base/printable.h"
#include "base/units.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONF_MAX (64 * 1024)

static const CliOption *find_option(const CliOption *options, const char *name, size_t size)
{
    for (; options->name; options++)
        if (strlen(options->name) == size && strncmp(options->name, name, size) == 0)
            return options;
    return NULL;
}

static bool unknown_option(const CliOption *options, const char *argument, const char *usage, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    const char *near;

    for (; options->name; options++)
        g_ptr_array_add(names, (char *)options->name);
    g_ptr_array_add(names, NULL);
    near = units_nearest(argument + strspn(argument, "-"), (const char *const *)names->pdata);
    if (near)
        return fail_code(error, KILN_ERROR_USAGE, "unknown option '%s', did you mean '-%s'?", argument, near);
    return fail_code(error, KILN_ERROR_USAGE, "unknown option '%s'; usage: kiln %s", argument, usage);
}

static bool set_flag(const CliOption *option, const char *value, GError **error)
{
    if (value && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return fail_code(error, KILN_ERROR_USAGE, "option '-%s' takes true or false, not '%s'", option->name, value);
    *(bool *)option->target = !value || strcmp(value, "true") == 0;
    return true;
}

/* Handles argv[*at]; steps over a value that stands apart. */
static bool take_option(const CliOption *options, const char *usage, int argc, char **argv, int *at, GError **error)
{
    const char *name = argv[*at] + strspn(argv[*at], "-");
    const char *equals = strchr(name, '=');
    const CliOption *option = find_option(options, name, equals ? (size_t)(equals - name) : strlen(name));
    const char *value = equals ? equals + 1 : NULL;

    if (!option)
        return unknown_option(options, argv[*at], usage, error);
    if (option->kind == CLI_FLAG)
        return set_flag(option, value, error);
    if (!value && *at + 1 >= argc)
        return fail_code(error, KILN_ERROR_USAGE, "option '-%s' needs a value", option->name);
    if (!value)
        value = argv[++*at];
    if (option->kind == CLI_STRING)
        *(const char **)option->target = value;
    else
        g_ptr_array_add(option->target, (char *)value);
    return true;
}

bool cli_parse(const CliOption *options, const char *usage, int argc, char **argv, int min, int max,
               char ***ret_arguments, GError **error)
{
    g_autoptr(GPtrArray) arguments = g_ptr_array_new();
    bool only_arguments = false;

    for (int i = 1; i < argc; i++) {
        if (only_arguments || argv[i][0] != '-' || argv[i][1] == '\0')
            g_ptr_array_add(arguments, argv[i]);
        else if (strcmp(argv[i], "--") == 0)
            only_arguments = true;
        else if (!take_option(options, usage, argc, argv, &i, error))
            return false;
    }
    if ((int)arguments->len < min || (max >= 0 && (int)arguments->len > max))
        return fail_code(error, KILN_ERROR_USAGE, "%s; usage: kiln %s",
                         (int)arguments->len < min ? "something is missing" : "too many arguments", usage);
    g_ptr_array_add(arguments, NULL);
    *ret_arguments = (char **)g_ptr_array_free(g_steal_pointer(&arguments), FALSE);
    return true;
}

/* kiln.conf: lines "key = value", '#' comments. */
static char *conf_value(const char *path, const char *key)
{
    g_autoptr(GBytes) bytes = NULL;
    g_auto(GStrv) lines = NULL;

    if (!file_load(AT_FDCWD, path, CONF_MAX, &bytes, NULL))
        return NULL;
    lines = g_strsplit(g_bytes_get_data(bytes, NULL), "\n", -1);
    for (char **line = lines; *line; line++) {
        char *equals = strchr(*line, '=');

        if (!equals || **line == '#')
            continue;
        *equals = '\0';
        if (strcmp(g_strstrip(*line), key) == 0 && *g_strstrip(equals + 1))
            return g_strdup(g_strstrip(equals + 1));
    }
    return NULL;
}

/* The environment, the user's kiln.conf, the machine's; NULL: nobody says. */
static char *setting(const char *variable, const char *key)
{
    g_autofree char *user_conf = g_build_filename(g_get_user_config_dir(), "kiln", "kiln.conf", NULL);
    const char *env = g_getenv(variable);
    char *value;

    if (env && *env)
        return g_strdup(env);
    value = conf_value(user_conf, key);
    return value ? value : conf_value("/etc/kiln/kiln.conf", key);
}

static char *default_store(void)
{
    char *dir = setting("KILN_STORE", "store");

    if (dir)
        return dir;
    return geteuid() == 0 ? g_strdup("/var/lib/kiln") : g_build_filename(g_get_user_data_dir(), "kiln", NULL);
}

bool cli_signing_key(const char *file, SignatureKey **ret, GError **error)
{
    g_autofree char *path = file ? g_strdup(file) : setting("KILN_SIGNING_KEY", "signing_key");

    *ret = NULL;
    return !path || signature_load(path, ret, error);
}

bool cli_sign_heads(Store *store, const SignatureKey *key, GError **error)
{
    return !key || store_sign_heads(store, key, NULL, error) || fail_prefix(error, "it was done, but the log could not be signed");
}

char *cli_store_path(const CliContext *cli)
{
    return cli->store_dir ? g_strdup(cli->store_dir) : default_store();
}

bool cli_open_store(CliContext *cli, unsigned flags, Store **ret, GError **error)
{
    g_autofree char *dir = cli_store_path(cli), *quota = setting("KILN_LAYER_CACHE", "layer_cache");
    g_autoptr(Store) store = NULL;
    uint64_t bytes = 0;

    if (quota && !units_parse_size(quota, &bytes, error))
        return fail_prefix(error, "the room for compressed layers (KILN_LAYER_CACHE, or layer_cache in kiln.conf)");
    if (!store_open(dir, flags, &store, error))
        return false;
    if (quota)
        store_set_layer_cache(store, bytes);
    *ret = g_steal_pointer(&store);
    return true;
}

/* What others than fail() said goes through the same sieve. */
static char *message_of(const GError *error)
{
    g_autofree char *masked = mask_text(error ? error->message : "failed without a reason (please report this)");

    return printable_text(masked);
}

void cli_tell_error(const GError *error)
{
    g_autofree char *message = message_of(error);

    fprintf(stderr, "kiln: %s\n", message);
}

int cli_fail(CliContext *cli, const GError *error)
{
    int status = error_exit_status(error);
    g_autofree char *message = message_of(error);

    fprintf(stderr, "kiln: %s\n", message);
    if (cli->json)
        (void)cli_print_json(json_pack("{s:s, s:i}", "error", message, "exit", status));
    return status;
}

int cli_print_json(json_t *document)
{
    g_autofree char *plain = json_pretty(document), *text = mask_text(plain);

    fputs(text, stdout);
    json_decref(document);
    return fflush(stdout) == 0 ? 0 : 1;
}

json_t *cli_text(const char *name)
{
    g_autofree char *text = g_utf8_validate(name, -1, NULL) ? g_strdup(name) : printable_line(name);

    return json_string(text);
}

void cli_set_bytes(json_t *object, const char *key, const char *bytes)
{
    json_object_set_new(object, key, cli_text(bytes));
    if (!g_utf8_validate(bytes, -1, NULL)) {
        g_autofree char *encoded_key = g_strconcat(key, "_encoded", NULL);
        g_autoptr(GString) encoded = g_string_new(NULL);

        printable_encode(encoded, bytes);
        json_object_set_new(object, encoded_key, json_string(encoded->str));
    }
}

void cli_set_path(json_t *object, const char *key, const char *path)
{
    g_autofree char *full = g_strconcat("/", path, NULL);

    cli_set_bytes(object, key, full);
}

json_t *cli_image_json(const StoreImage *image)
{
    char id[DIGEST_OCI_SIZE], tree[DIGEST_OCI_SIZE], manifest[DIGEST_OCI_SIZE];
    json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "name", image->name, "kind", image->kind, "id",
                               digest_to_oci(&image->id, id), "size", (json_int_t)image->size, "new_bytes",
                               (json_int_t)image->new_bytes, "created",
                               (json_int_t)image->created, "set", (json_int_t)image->set);

    if (image->bytes_gone)
        json_object_set_new(object, "bytes_gone", json_integer((json_int_t)image->bytes_gone));
    if (!digest_is_none(&image->tree.tree))
        json_object_set_new(object, "tree", json_string(digest_to_oci(&image->tree.tree, tree)));
    if (!digest_is_none(&image->manifest))
        json_object_set_new(object, "manifest", json_string(digest_to_oci(&image->manifest, manifest)));
    return object;
}

const char *const *cli_strings(GPtrArray *list)
{
    if (list->len == 0)
        return NULL;
    g_ptr_array_add(list, NULL);
    return (const char *const *)list->pdata;
}

bool cli_parse_parallel(const char *text, unsigned *ret, GError **error)
{
    char *end = NULL;
    long value = text ? strtol(text, &end, 10) : 0;

    if (text && (end == text || *end || value < 0 || value > 1024))
        return fail_code(error, KILN_ERROR_USAGE, "-parallel-builds takes a number from 0 (as many as memory allows) to 1024, not '%s'",
                         text);
    *ret = (unsigned)value;
    return true;
}

char *cli_time(int64_t seconds)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(seconds);

    return time ? g_date_time_format(time, "%Y-%m-%d %H:%M") : g_strdup("-");
}
