/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln diff: what changed between two images.
 */
#include "baker/cli/cli.h"

#include "baker/image-diff.h"
#include "base/printable.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct DiffCall {
    ImageRoot *a, *b;
    ImageDiff *diff;
    bool patch;
} DiffCall;

/* By name of the package; what has none comes last. */
static gint by_package(gconstpointer a, gconstpointer b)
{
    const FileChange *x = a, *y = b;

    if (!x->package != !y->package)
        return x->package ? -1 : 1;
    if (x->package && strcmp(x->package, y->package) != 0)
        return strcmp(x->package, y->package);
    return strcmp((x->b ? x->b : x->a)->path, (y->b ? y->b : y->a)->path);
}

static uint64_t size_of(const ImageRoot *root, const TreeEntry *name)
{
    const TreeEntry *entry = name ? tree_content_entry(root->tree, name) : NULL;

    return entry && entry->type == 'f' ? entry->size : 0;
}

/* --- for people -------------------------------------------------------------------------------- */

static void print_packages(const ImageDiff *diff)
{
    printf("packages: %u\n", diff->packages->len);
    for (guint i = 0; i < diff->packages->len; i++) {
        const PackageChange *change = &g_array_index(diff->packages, PackageChange, i);
        const Package *one = change->to ? change->to : change->from;

        printf("  %c %s%s%s %s%s%s\n", !change->from ? '+' : !change->to ? '-' : '~', strcmp(one->type, "deb") == 0 ? "" : one->type,
               strcmp(one->type, "deb") == 0 ? "" : ":", one->name, change->from ? change->from->version : change->to->version,
               change->from && change->to ? " -> " : "", change->from && change->to ? change->to->version : "");
    }
}

static void print_file(const DiffCall *call, const FileChange *change)
{
    g_autofree char *path = printable_name((change->b ? change->b : change->a)->path);
    g_autofree char *before = units_format_size(size_of(call->a, change->a)), *after = units_format_size(size_of(call->b, change->b));

    printf("    %c /%s", !change->a ? '+' : !change->b ? '-' : '~', path);
    if (!change->a || !change->b) {
        printf("  %s\n", change->a ? before : after);
        return;
    }
    for (size_t i = 0, n = 0; i < FILE_PARTS; i++)
        if (change->parts & (1u << i))
            printf("%s%s", n++ ? ", " : "  ", file_part_names[i]);
    if (change->parts & FILE_PART_CONTENT && strcmp(before, after) != 0)
        printf("  %s -> %s", before, after);
    printf("\n");
}

static bool print_patch(const DiffCall *call, const FileChange *change, GError **error)
{
    g_autofree char *text = NULL;

    if (change->a && change->b && !(change->parts & FILE_PART_CONTENT))
        return true;
    if (!image_diff_patch(call->a, call->b, change, &text, error))
        return false;
    if (text && isatty(STDOUT_FILENO)) {
        g_autofree char *shown = printable_text(text);

        fputs(shown, stdout);
    } else if (text) {
        fputs(text, stdout);
    }
    return true;
}

/* A folder's own time changes with what is in it, and a file's without its content says nothing new: counted, not listed. */
static bool only_time(const FileChange *change)
{
    return change->parts == FILE_PART_TIME;
}

/* dpkg's packages are called as the files that list theirs: by the guest. */
static void print_package(const char *package)
{
    g_autofree char *name = printable_name(package ? package : "(no package)");

    printf("  %s\n", name);
}

static bool print_files(const DiffCall *call, GError **error)
{
    const GArray *files = call->diff->files;
    const char *package = "";
    guint times = 0;

    for (guint i = 0; i < files->len; i++)
        times += only_time(&g_array_index(files, FileChange, i));
    printf("files: %u%s\n", files->len - times, files->len == times ? "" : ", by package");
    for (guint i = 0; i < files->len; i++) {
        const FileChange *change = &g_array_index(files, FileChange, i);

        if (only_time(change))
            continue;
        if (g_strcmp0(package, change->package) != 0) {
            package = change->package;
            print_package(package);
        }
        print_file(call, change);
        if (call->patch && !print_patch(call, change, error))
            return false;
    }
    if (times)
        printf("and %u whose time alone changed\n", times);
    return true;
}

/* --- for programs -------------------------------------------------------------------------------- */

static json_t *packages_json(const ImageDiff *diff)
{
    json_t *list = json_array();

    for (guint i = 0; i < diff->packages->len; i++) {
        const PackageChange *change = &g_array_index(diff->packages, PackageChange, i);
        const Package *one = change->to ? change->to : change->from;
        json_t *object = json_pack("{s:s, s:s}", "type", one->type, "name", one->name);

        if (change->from)
            json_object_set_new(object, "from", json_string(change->from->version));
        if (change->to)
            json_object_set_new(object, "to", json_string(change->to->version));
        json_array_append_new(list, object);
    }
    return list;
}

static bool file_json(const DiffCall *call, const FileChange *change, json_t **ret, GError **error)
{
    g_autofree char *patch = NULL;
    json_t *object = json_object(), *parts = json_array();

    cli_set_path(object, "path", (change->b ? change->b : change->a)->path);
    json_object_set_new(object, "change", json_string(!change->a ? "added" : !change->b ? "removed" : "changed"));
    for (size_t i = 0; i < FILE_PARTS; i++)
        if (change->parts & (1u << i))
            json_array_append_new(parts, json_string(file_part_names[i]));
    if (change->a && change->b)
        json_object_set_new(object, "what", json_incref(parts));
    json_decref(parts);
    if (change->package)
        json_object_set_new(object, "package", cli_text(change->package));
    if (change->a)
        json_object_set_new(object, "size_from", json_integer((json_int_t)size_of(call->a, change->a)));
    if (change->b)
        json_object_set_new(object, "size_to", json_integer((json_int_t)size_of(call->b, change->b)));
    if (call->patch && (!change->a || !change->b || change->parts & FILE_PART_CONTENT) &&
        !image_diff_patch(call->a, call->b, change, &patch, error)) {
        json_decref(object);
        return false;
    }
    if (patch)
        json_object_set_new(object, "patch", json_string(patch));
    *ret = object;
    return true;
}

static bool diff_json(const DiffCall *call, json_t **ret, GError **error)
{
    json_t *files = json_array();
    g_autoptr(json_t) document = json_pack("{s:o, s:o}", "packages", packages_json(call->diff), "files", files);

    json_set_digest(document, "from", &call->a->image->id);
    json_set_digest(document, "to", &call->b->image->id);
    for (guint i = 0; i < call->diff->files->len; i++) {
        json_t *one = NULL;

        if (!file_json(call, &g_array_index(call->diff->files, FileChange, i), &one, error))
            return false;
        json_array_append_new(files, one);
    }
    *ret = g_steal_pointer(&document);
    return true;
}

static int tell(CliContext *cli, const DiffCall *call)
{
    g_autoptr(GError) error = NULL;
    json_t *document = NULL;

    if (cli->json)
        return diff_json(call, &document, &error) ? cli_print_json(document) : cli_fail(cli, error);
    g_array_sort(call->diff->files, by_package);
    print_packages(call->diff);
    return print_files(call, &error) ? 0 : cli_fail(cli, error);
}

int verb_diff(CliContext *cli, int argc, char **argv)
{
    DiffCall call = {0};
    const CliOption options[] = {{"patch", CLI_FLAG, &call.patch}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(ImageRoot) a = NULL, b = NULL;
    g_autoptr(ImageDiff) diff = NULL;
    g_autofree char **refs = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "diff [--patch] REF REF", argc, argv, 2, 2, &refs, &error) || !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) ||
        !image_root_open(store, refs[0], &a, &error) || !image_root_open(store, refs[1], &b, &error) || !image_diff(a, b, &diff, &error))
        return cli_fail(cli, error);
    call = (DiffCall){.a = a, .b = b, .diff = diff, .patch = call.patch};
    return tell(cli, &call);
}
