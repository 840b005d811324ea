/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that look at files. Relative paths start at the template's folder and, where nothing is
 * there, at the working folder, so that both "x" and "${path.root}/x" find what they mean. Every file
 * that is read is told to the context, since it is an input of what is baked.
 */
#include "templates/language/functions.h"

#include "base/error.h"
#include "base/file.h"
#include "base/glob.h"
#include "templates/language/parser.h"
#include "templates/language/types.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILESET_MAX = 100000, FILESET_DEPTH = 64 };

static char *expand(const Call *call, const char *path)
{
    if (path[0] == '~' && (path[1] == '/' || path[1] == '\0'))
        return g_build_filename(g_get_home_dir(), path + 1, NULL);
    if (!g_path_is_absolute(path) && call->context->base_dir) {
        g_autofree char *based = g_build_filename(call->context->base_dir, path, NULL);

        if (access(based, F_OK) == 0 || access(path, F_OK) != 0)
            return g_steal_pointer(&based);
    }
    return g_strdup(path);
}

static GBytes *load(Call *call, size_t arg)
{
    g_autofree char *path = expand(call, call->args[arg]->string);
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) bytes = NULL;
    gsize size;
    const void *data;

    if (!file_load(AT_FDCWD, path, SOURCE_SIZE_MAX, &bytes, &error)) {
        (void)call_fail(call, (int)arg, "%s", error->message);
        return NULL;
    }
    data = g_bytes_get_data(bytes, &size);
    if (call->context->file_read)
        call->context->file_read(call->context->arg, path, data, size);
    return g_steal_pointer(&bytes);
}

static Value *fn_file(Call *call)
{
    g_autoptr(GBytes) bytes = load(call, 0);
    gsize size;
    const char *data;

    if (!bytes)
        return NULL;
    data = g_bytes_get_data(bytes, &size);
    if (memchr(data, '\0', size) || !g_utf8_validate_len(data, size, NULL))
        return call_fail(call, 0, "'%s' is not UTF-8 text; filebase64() reads any file", call->args[0]->string);
    return call_text(call, 0, data, size);
}

static Value *fn_filebase64(Call *call)
{
    g_autoptr(GBytes) bytes = load(call, 0);
    g_autofree char *text = NULL;
    gsize size;
    const guchar *data;

    if (!bytes)
        return NULL;
    data = g_bytes_get_data(bytes, &size);
    text = g_base64_encode(data, size);
    return value_string(call->arena, text);
}

static Value *fn_fileexists(Call *call)
{
    g_autofree char *path = expand(call, call->args[0]->string);
    struct stat st;

    if (stat(path, &st) < 0)
        return value_bool(call->arena, false);
    if (!S_ISREG(st.st_mode))
        return call_fail(call, 0, "'%s' is there but is no regular file", path);
    return value_bool(call->arena, true);
}

static Value *path_value(Call *call, char *path)
{
    g_autofree char *owned = path;

    return call_text(call, 0, owned, strlen(owned));
}

static Value *fn_abspath(Call *call)
{
    return path_value(call, g_canonicalize_filename(call->args[0]->string, NULL));
}

static Value *fn_basename(Call *call)
{
    const char *path = call->args[0]->string;

    return path_value(call, *path ? g_path_get_basename(path) : g_strdup("."));
}

/* Shortened like Go's filepath.Dir: "a//b/" is "a/b", "a" is ".". */
static Value *fn_dirname(Call *call)
{
    g_autofree char *dir = g_path_get_dirname(call->args[0]->string);
    g_autofree char *whole = NULL;

    if (g_path_is_absolute(dir))
        return path_value(call, g_canonicalize_filename(dir, "/"));
    whole = g_canonicalize_filename(dir, "/");
    if (strstr(dir, ".."))
        return path_value(call, g_steal_pointer(&dir));
    return path_value(call, g_strdup(whole[1] ? whole + 1 : "."));
}

static Value *fn_pathexpand(Call *call)
{
    const char *path = call->args[0]->string;

    if (path[0] == '~' && (path[1] == '/' || path[1] == '\0'))
        return path_value(call, g_build_filename(g_get_home_dir(), path + 1, NULL));
    return value_string(call->arena, path);
}

/* --- fileset --- */

/* {a,b} means either, as in Packer's globs: one level is written out before matching. */
static bool match_path(const char *pattern, const char *path)
{
    const char *open = strchr(pattern, '{'), *close = open ? strchr(open, '}') : NULL;

    if (close) {
        g_autofree char *inside = g_strndup(open + 1, (gsize)(close - open - 1));
        g_auto(GStrv) choices = g_strsplit(inside, ",", 64);

        for (size_t i = 0; choices[i]; i++) {
            g_autofree char *one = g_strdup_printf("%.*s%s%s", (int)(open - pattern), pattern, choices[i], close + 1);

            if (match_path(one, path))
                return true;
        }
        return false;
    } else {
        g_auto(GStrv) parts = g_strsplit(pattern, "/", 64);
        g_auto(GStrv) names = g_strsplit(path, "/", FILESET_DEPTH + 1);

        return glob_match_parts(parts, names, false);
    }
}

static bool collect(Call *call, const char *root, const char *below, const char *pattern, unsigned depth, GPtrArray *found)
{
    g_autofree char *path = *below ? g_build_filename(root, below, NULL) : g_strdup(root);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    if (!dir)
        return *below ? true : call_fail(call, 0, "the folder '%s' can't be read", path) != NULL;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *entry = *below ? g_build_filename(below, name, NULL) : g_strdup(name);
        g_autofree char *full = g_build_filename(root, entry, NULL);
        struct stat st;

        if (lstat(full, &st) < 0 || !g_utf8_validate(entry, -1, NULL))
            continue;
        if (S_ISDIR(st.st_mode) && depth < FILESET_DEPTH && !collect(call, root, entry, pattern, depth + 1, found))
            return false;
        if ((S_ISREG(st.st_mode) || (S_ISLNK(st.st_mode) && stat(full, &st) == 0 && S_ISREG(st.st_mode))) &&
            match_path(pattern, entry))
            g_ptr_array_add(found, g_steal_pointer(&entry));
        if (found->len > FILESET_MAX)
            return call_fail(call, -1, "more than %d files match", FILESET_MAX) != NULL;
    }
    return true;
}

static Value *fn_fileset(Call *call)
{
    g_autofree char *root = expand(call, call->args[0]->string);
    g_autoptr(GPtrArray) found = g_ptr_array_new_with_free_func(g_free);
    Value *list;

    if (!collect(call, root, "", call->args[1]->string, 0, found))
        return NULL;
    list = value_strings(call->arena, found);
    return value_set(call->arena, &type_string, list->items, list->n);
}

/* --- templatefile --- */

static bool names_are_usable(Call *call, const Value *variables)
{
    for (size_t i = 0; i < variables->n; i++)
        if (!g_regex_match_simple("^[\\p{L}_][\\p{L}\\p{N}_-]*$", variables->keys[i], 0, 0))
            return call_fail(call, 1, "'%s' can't be the name of a variable", variables->keys[i]) != NULL;
    return true;
}

static Value *fn_templatefile(Call *call)
{
    const Value *variables = call->args[1];
    g_autoptr(GBytes) bytes = NULL;
    Source *source;
    Expr *template;
    gsize size;
    const char *data;
    Scope scope;
    EvalContext inner = *call->context;
    unsigned before = inner.diagnostics->count;
    Value *result;

    if (inner.in_template_file)
        return call_fail(call, -1, "a template file can't use another one");
    if (!names_are_usable(call, variables) || !(bytes = load(call, 0)))
        return NULL;
    data = g_bytes_get_data(bytes, &size);
    source = source_new(inner.diagnostics, call->args[0]->string, data, size);
    template = source ? parse_template(source, inner.diagnostics) : NULL;
    if (!template)
        return NULL;
    scope = (Scope){ .names = variables->keys, .values = variables->items, .n = variables->n };
    inner.scope = &scope; /* only these names: nothing of the outer template */
    inner.in_template_file = true;
    inner.noun = NULL;
    result = eval_expr(&inner, template);
    return inner.diagnostics->count == before ? result : NULL;
}

const Function functions_file[] = {
    { "abspath", "s", fn_abspath, 0 },
    { "basename", "s", fn_basename, 0 },
    { "dirname", "s", fn_dirname, 0 },
    { "file", "s", fn_file, 0 },
    { "filebase64", "s", fn_filebase64, 0 },
    { "fileexists", "s", fn_fileexists, 0 },
    { "fileset", "ss", fn_fileset, 0 },
    { "pathexpand", "s", fn_pathexpand, 0 },
    { "templatefile", "sm", fn_templatefile, 0 },
    { 0 },
};
