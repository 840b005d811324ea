/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln find: which images have a package, by version.
 */
#include "baker/cli/cli.h"

#include "baker/origins.h"
#include "baker/package-version.h"
#include "base/error.h"
#include "base/printable.h"

#include <stdio.h>
#include <string.h>

typedef enum Comparison { ANY, LESS, LESS_EQUAL, EQUAL, GREATER_EQUAL, GREATER } Comparison;

typedef struct FindCall {
    CliContext *cli;
    char *package;
    Comparison comparison;
    const char *version;
    bool all;      /* not only what a name still means */
    json_t *found; /* for --json */
} FindCall;

/* "openssl", "openssl<3.0.16", "openssl >= 3" */
static bool parse_query(FindCall *call, const char *text, GError **error)
{
    static const struct {
        const char *sign;
        Comparison comparison;
    } signs[] = {{"<=", LESS_EQUAL}, {">=", GREATER_EQUAL}, {"<<", LESS}, {">>", GREATER}, {"==", EQUAL}, {"<", LESS}, {">", GREATER}, {"=", EQUAL}};
    size_t length = strcspn(text, "<>=");
    const char *rest = text + length;

    call->package = g_strstrip(g_strndup(text, length));
    for (size_t i = 0; *rest && i < G_N_ELEMENTS(signs); i++)
        if (g_str_has_prefix(rest, signs[i].sign)) {
            call->comparison = signs[i].comparison;
            call->version = rest + strlen(signs[i].sign);
            call->version += strspn(call->version, " ");
            break;
        }
    if (!*call->package || strpbrk(call->package, "!~ ") || (call->comparison != ANY && (!*call->version || strpbrk(call->version, "<>= "))))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no package: it is NAME, or NAME with <, <=, =, >= or > and a version", text);
    return true;
}

static bool fits(const FindCall *call, const char *type, const char *version)
{
    int order = call->comparison == ANY ? 0 : package_version_compare(type, version, call->version);

    switch (call->comparison) {
    case LESS:
        return order < 0;
    case LESS_EQUAL:
        return order <= 0;
    case EQUAL:
        return order == 0;
    case GREATER_EQUAL:
        return order >= 0;
    case GREATER:
        return order > 0;
    default:
        return true;
    }
}

static bool take_hit(const PackageHit *hit, void *arg)
{
    FindCall *call = arg;
    g_autofree char *version = printable_name(hit->version); /* what a guest or another store wrote */
    char id[DIGEST_OCI_SIZE];

    if (!fits(call, hit->type, hit->version) || (!call->all && (!hit->newest || hit->bytes_gone)))
        return true;
    (void)digest_to_oci(&hit->image, id);
    if (call->found)
        json_array_append_new(call->found, json_pack("{s:s, s:s, s:s, s:I, s:b, s:b, s:{s:s, s:s, s:s, s:s}}", "name", hit->name, "kind", hit->kind,
                                                     "id", id, "created", (json_int_t)hit->created, "newest", hit->newest, "bytes_gone",
                                                     hit->bytes_gone, "package", "type", hit->type, "name", hit->package, "version", hit->version,
                                                     "architecture", hit->architecture ? hit->architecture : ""));
    else
        printf("%-24s %-5s %s  %s %s\n", hit->name, hit->kind, id, call->package, version);
    return true;
}

/* Images from before there was an index, and all of them after the catalog was made again. */
static bool index_rest(Store *store, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;

    if (!store_unindexed_images(store, &images, error))
        return false;
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autoptr(PackageList) list = NULL;
        g_autoptr(json_t) object = NULL;
        g_autoptr(GError) problem = NULL;

        if (!origins_packages(store, image, &list, &problem)) {
            log_warning("the packages of %s/%s are not known: %s", image->name, image->kind, problem->message);
            continue;
        }
        object = package_list_to_json(list);
        if (!store_index_packages(store, image, json_object_get(object, "packages"), &problem)) {
            log_warning("%u images are not looked at, because their packages cannot be entered into the catalog: %s", images->len - i, problem->message);
            break;
        }
    }
    return true;
}

int verb_find(CliContext *cli, int argc, char **argv)
{
    const char *package = NULL;
    FindCall call = {.cli = cli};
    const CliOption options[] = {{"package", CLI_STRING, &package}, {"all", CLI_FLAG, &call.all}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autofree char **words = NULL;
    g_autofree char *name = NULL;
    g_autoptr(json_t) found = cli->json ? json_array() : NULL;
    g_autoptr(GError) error = NULL;
    bool ok = cli_parse(options, "find --package 'NAME[<|<=|=|>=|>VERSION]' [--all]", argc, argv, 0, 0, &words, &error) &&
              (package || fail_code(&error, KILN_ERROR_USAGE, "say what to look for: kiln find --package 'openssl<3.0.16'")) &&
              parse_query(&call, package, &error);

    name = call.package;
    call.found = found;
    if (!ok || !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) || !index_rest(store, &error) ||
        !store_find_package(store, call.package, take_hit, &call, &error))
        return cli_fail(cli, error);
    return cli->json ? cli_print_json(json_pack("{s:O}", "images", found)) : 0;
}
