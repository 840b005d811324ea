/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln files, kiln cat, kiln blame: what is in an image, and who brought it.
 */
#include "baker/cli/cli.h"

#include "baker/image-root.h"
#include "baker/origins.h"
#include "base/error.h"
#include "base/printable.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "drwxr-sr-t" of twelve bits and a type. */
static void mode_text(const TreeEntry *entry, char ret[11])
{
    static const char letters[] = "rwxrwxrwx";
    unsigned mode = entry->mode;

    ret[0] = entry->type == 'f' ? '-' : entry->type;
    for (int i = 0; i < 9; i++)
        ret[1 + i] = mode & (0400u >> i) ? letters[i] : '-';
    if (mode & 04000)
        ret[3] = ret[3] == 'x' ? 's' : 'S';
    if (mode & 02000)
        ret[6] = ret[6] == 'x' ? 's' : 'S';
    if (mode & 01000)
        ret[9] = ret[9] == 'x' ? 't' : 'T';
    ret[10] = '\0';
}

/* A name that is no UTF-8 is no key: it is written as trees write it. */
static void set_xattr(json_t *object, const char *name, const char *hex)
{
    g_autoptr(GString) encoded = g_string_new(NULL);

    if (!g_utf8_validate(name, -1, NULL))
        printable_encode(encoded, name);
    json_object_set_new(object, encoded->len ? encoded->str : name, json_string(hex));
}

static json_t *entry_json(const ImageRoot *root, const TreeEntry *name)
{
    static const char *const types[] = {"f", "file", "d", "folder", "l", "link", "b", "block", "c", "character", "p", "fifo", "s", "socket"};
    const TreeEntry *entry = name->type == 'h' ? tree_content_entry(root->tree, name) : name;
    json_t *one = json_object();

    cli_set_path(one, "path", name->path);
    json_object_update_new(one, json_pack("{s:i, s:I, s:I, s:I}", "mode", entry->mode, "uid", (json_int_t)entry->uid, "gid", (json_int_t)entry->gid,
                                          "mtime", (json_int_t)entry->mtime));
    for (size_t i = 0; i < G_N_ELEMENTS(types); i += 2)
        if (entry->type == types[i][0])
            json_object_set_new(one, "type", json_string(types[i + 1]));
    if (entry->type == 'f') {
        json_object_set_new(one, "size", json_integer((json_int_t)entry->size));
        json_set_digest(one, "digest", &entry->sha256);
    }
    if (name->type == 'h')
        cli_set_path(one, "same_as", name->target);
    if (entry->type == 'l')
        cli_set_bytes(one, "target", entry->target);
    if (entry->type == 'b' || entry->type == 'c')
        json_object_set_new(one, "device", json_sprintf("%u:%u", entry->major, entry->minor));
    for (guint i = 0; entry->xattrs && i < entry->xattrs->len; i++) {
        const TreeXattr *xattr = entry->xattrs->pdata[i];
        GString *hex = g_string_new(NULL);
        gsize size;
        const unsigned char *bytes = g_bytes_get_data(xattr->value, &size);

        for (gsize k = 0; k < size; k++)
            g_string_append_printf(hex, "%02x", bytes[k]);
        if (i == 0)
            json_object_set_new(one, "xattrs", json_object());
        set_xattr(json_object_get(one, "xattrs"), xattr->name, hex->str);
        g_string_free(hex, TRUE);
    }
    return one;
}

static void print_entry(const ImageRoot *root, const TreeEntry *name)
{
    const TreeEntry *entry = name->type == 'h' ? tree_content_entry(root->tree, name) : name;
    g_autofree char *path = printable_name(name->path), *target = entry->type == 'l' ? printable_name(entry->target) : NULL;
    g_autofree char *leader = name->type == 'h' ? printable_name(name->target) : NULL;
    g_autofree char *when = cli_time(entry->mtime);
    char mode[11];

    mode_text(entry, mode);
    printf("%s %5u %5u ", mode, entry->uid, entry->gid);
    if (entry->type == 'b' || entry->type == 'c')
        printf("%7u, %3u", entry->major, entry->minor);
    else
        printf("%12" G_GUINT64_FORMAT, entry->type == 'f' ? entry->size : 0);
    printf(" %s /%s%s%s%s%s\n", when, path, target ? " -> " : "", target ? target : "", name->type == 'h' ? " same as /" : "",
           leader ? leader : "");
}

/* The entry itself, and everything below where it is a folder. */
static int list(CliContext *cli, const ImageRoot *root, const TreeEntry *top)
{
    json_t *all = cli->json ? json_array() : NULL;

    for (size_t i = 0; i < tree_count(root->tree); i++) {
        const TreeEntry *entry = tree_nth(root->tree, i);

        if (entry != top && !tree_path_is_below(entry->path, top->path))
            continue;
        if (all)
            json_array_append_new(all, entry_json(root, entry));
        else
            print_entry(root, entry);
    }
    return all ? cli_print_json(json_pack("{s:o}", "files", all)) : 0;
}

/* What all three verbs begin with: words[0] is the image. */
static bool open_root(CliContext *cli, const char *usage, int argc, char **argv, int min, int max, char ***ret_words, Store **ret_store,
                      ImageRoot **ret_root, GError **error)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};

    return cli_parse(options, usage, argc, argv, min, max, ret_words, error) && cli_open_store(cli, STORE_OPEN_ANYWAY, ret_store, error) &&
           image_root_open(*ret_store, (*ret_words)[0], ret_root, error);
}

int verb_files(CliContext *cli, int argc, char **argv)
{
    g_autoptr(Store) store = NULL;
    g_autoptr(ImageRoot) root = NULL;
    g_autofree char **words = NULL;
    g_autoptr(GError) error = NULL;
    const TreeEntry *top = NULL;

    if (!open_root(cli, "files REF [PATH]", argc, argv, 1, 2, &words, &store, &root, &error) ||
        !image_root_find(root, words[1] ? words[1] : "/", words[1] && g_str_has_suffix(words[1], "/"), &top, &error))
        return cli_fail(cli, error);
    return list(cli, root, top);
}

int verb_cat(CliContext *cli, int argc, char **argv)
{
    g_autoptr(Store) store = NULL;
    g_autoptr(ImageRoot) root = NULL;
    g_autofree char **words = NULL;
    g_autoptr(GError) error = NULL;
    const TreeEntry *file = NULL;

    if (!open_root(cli, "cat REF PATH...", argc, argv, 2, -1, &words, &store, &root, &error))
        return cli_fail(cli, error);
    for (char **path = words + 1; *path; path++)
        if (!image_root_find(root, *path, true, &file, &error) || !image_root_copy(root, file, STDOUT_FILENO, &error))
            return cli_fail(cli, error);
    return 0;
}

/* --- blame ------------------------------------------------------------------------------------ */

static json_t *origin_json(const TreeEntry *entry, const Origin *origin)
{
    json_t *one = json_object();

    cli_set_path(one, "path", entry->path);
    json_object_update_new(one, json_pack("{s:s, s:I}", "name", origin->image->name, "created", (json_int_t)origin->image->created));
    json_set_digest(one, "image", &origin->image->id);
    if (origin->package)
        json_object_set_new(one, "package", json_pack("{s:o, s:s*}", "name", cli_text(origin->package), "version", origin->version));
    if (origin->step)
        json_object_set_new(one, "step", json_pack("{s:i, s:s, s:s}", "position", (int)origin->position, "step", origin->step, "type", origin->type));
    else if (origin->source)
        json_object_set_new(one, "source", json_string(origin->source));
    return one;
}

/* "bootstrap bookworm", "disk image:base", "oci ...": the rest of a source's identity is for kiln show. */
static void print_source(const Origin *origin)
{
    static const char *const keys[] = {"suite", "ref", "from", "path", "url"};
    g_autoptr(json_t) identity = NULL;
    const json_t *request;
    const char *what = NULL;

    if (!origin->recorded || !origin->source || !json_parse(origin->source, strlen(origin->source), strlen(origin->source), "a source", &identity, NULL)) {
        printf("  step     not known: nothing was recorded when the image was made\n");
        return;
    }
    request = json_object_get(json_object_get(identity, "root"), "request");
    for (size_t i = 0; i < G_N_ELEMENTS(keys) && !what; i++) {
        what = json_string_value(json_object_get(identity, keys[i]));
        if (!what)
            what = json_string_value(json_object_get(request, keys[i]));
    }
    printf("  source   %s%s%s\n", json_string_value(json_object_get(identity, "type")), what ? " " : "", what ? what : "");
}

static void print_origin(const TreeEntry *entry, const Origin *origin)
{
    g_autofree char *path = printable_name(entry->path), *package = printable_name(origin->package ? origin->package : ""), *when = cli_time(origin->image->created);
    char id[DIGEST_OCI_SIZE];

    printf("/%s\n", path);
    if (origin->package)
        printf("  package  %s %s\n", package, origin->version ? origin->version : "");
    if (origin->step && origin->position)
        printf("  step     %u %s%s%s%s\n", origin->position, origin->step, strcmp(origin->step, origin->type) ? " (" : "",
               strcmp(origin->step, origin->type) ? origin->type : "", strcmp(origin->step, origin->type) ? ")" : "");
    else if (origin->step)
        printf("  step     the seal's cleaning\n");
    else
        print_source(origin);
    printf("  image    %s %s %s, %s\n", origin->image->name, origin->image->kind, digest_to_oci(&origin->image->id, id), when);
}

int verb_blame(CliContext *cli, int argc, char **argv)
{
    g_autoptr(Store) store = NULL;
    g_autoptr(ImageRoot) root = NULL;
    g_autofree char **words = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) all = json_array();
    g_autoptr(Origins) origins = NULL;
    const TreeEntry *entry = NULL;

    if (!open_root(cli, "blame REF PATH...", argc, argv, 2, -1, &words, &store, &root, &error) || !origins_open(store, root, &origins, &error))
        return cli_fail(cli, error);
    for (char **path = words + 1; *path; path++) {
        Origin origin;

        if (!image_root_find(root, *path, false, &entry, &error) || !origins_find(origins, entry, &origin, &error))
            return cli_fail(cli, error);
        if (cli->json)
            json_array_append_new(all, origin_json(entry, &origin));
        else
            print_origin(entry, &origin);
        origin_clear(&origin);
    }
    return cli->json ? cli_print_json(json_pack("{s:O}", "files", all)) : 0;
}
