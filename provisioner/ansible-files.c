/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ansible finds files by rules that nobody can foresee in full: beside the playbook, in roles, by names that are made while it runs. So a
 * step's key takes whole folders: the playbook's, roles, collections, inventory, and what texts in them name by a path with "..". Left
 * out of the playbook's folder is what cannot be a play's: version control, templates of kiln and Packer, disks, what bakes write.
 *
 * Content and mode count, times do not. Links are followed where they lead out of the folder.
 */
#include "provisioner/ansible-files.h"

#include "base/error.h"
#include "base/file.h"
#include "base/libexec.h"
#include "provisioner/ansible-text.h"
#include "provisioner/ansible-version.h"
#include "provisioner/arguments.h"
#include "provisioner/host-file.h"
#include "provisioner/provisioner.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WHO "ansible"
#define FILES_MAX 50000u
#define BYTES_MAX (4ull << 30)

typedef struct Gather {
    const ProvisionerHost *host;
    GPtrArray *inputs;
    GHashTable *seen; /* real paths of files that are in */
    GPtrArray *queue; /* names of what is still to be taken */
    char *play;       /* the playbook's folder */
    uint64_t bytes;
} Gather;

/* @real as a name that is the same wherever template and play lie side by side: relative to the template's folder. */
static char *name_from_template(const Gather *g, const char *real)
{
    g_autofree char *base = realpath(g->host->template_dir ? g->host->template_dir : ".", NULL);
    g_auto(GStrv) from = g_strsplit(base ? base : "", "/", -1), to = g_strsplit(real, "/", -1);
    g_autoptr(GString) name = g_string_new(NULL);
    guint same = 0;

    while (from[same] && to[same] && strcmp(from[same], to[same]) == 0)
        same++;
    if (same < 2) /* nothing but the root in common */
        return g_strdup(real);
    for (guint i = same; from[i]; i++)
        g_string_append(name, "../");
    for (guint i = same; to[i]; i++)
        g_string_append_printf(name, "%s%s", i > same ? "/" : "", to[i]);
    return name->len ? g_string_free(g_steal_pointer(&name), FALSE) : g_strdup(".");
}

static void enqueue(Gather *g, const char *real)
{
    g_ptr_array_add(g->queue, name_from_template(g, real));
}

/* --- folders --- */

static bool is_ours(const char *name, bool at_top)
{
    static const char *const anywhere[] = {".git",  ".svn",        ".hg",  ".vagrant",
                                           ".venv", "__pycache__", ".tox", NULL};
    static const char *const suffixes[] = {".pyc", ".retry", ".swp", NULL};
    static const char *const top_names[] = {"packer_cache", "packer-manifest.json", ".kiln", NULL};
    static const char *const top_suffixes[] = {
        ".pkr.hcl", ".pkr.json", ".pkrvars.hcl", ".pkrvars.json", ".group.hcl", ".qcow2", ".raw",
        ".img",     ".iso",      ".vmdk",        ".box",          ".log",       NULL};
    bool out = g_strv_contains(anywhere, name) || (at_top && g_strv_contains(top_names, name));

    for (size_t i = 0; suffixes[i]; i++)
        out |= g_str_has_suffix(name, suffixes[i]);
    for (size_t i = 0; at_top && top_suffixes[i]; i++)
        out |= g_str_has_suffix(name, top_suffixes[i]);
    return out || (at_top && (g_str_has_prefix(name, "output-") ||
                              g_str_has_prefix(name, "packer-provisioner-ansible")));
}

/* A folder with a store in it changes with every bake. */
static bool is_store(const char *folder, const char *top)
{
    g_autofree char *state = g_build_filename(folder, top, "state.db", NULL),
                    *segments = g_build_filename(folder, top, "segments", NULL);

    return access(state, F_OK) == 0 && access(segments, F_OK) == 0;
}

typedef struct Folder {
    Gather *gather;
    const char *name, *path; /* as the user wrote it, and where it is */
    char *real;
    GHashTable *stores; /* first parts of relative paths -> whether they are stores */
} Folder;

static bool is_left_out(Folder *folder, const char *relative)
{
    g_auto(GStrv) parts = g_strsplit(relative, "/", -1);
    gpointer known;

    if (!g_hash_table_lookup_extended(folder->stores, parts[0], NULL, &known)) {
        known = GINT_TO_POINTER(is_store(folder->path, parts[0]));
        g_hash_table_insert(folder->stores, g_strdup(parts[0]), known);
    }
    for (guint i = 0; parts[i]; i++)
        if (is_ours(parts[i], i == 0))
            return true;
    return GPOINTER_TO_INT(known);
}

static bool add_one(Gather *g, const char *name, const char *path, const struct stat *st, GError **error)
{
    g_autofree char *real = S_ISLNK(st->st_mode) ? g_strdup(path) : realpath(path, NULL);

    if (!g_hash_table_add(g->seen, real ? g_steal_pointer(&real) : g_strdup(path)))
        return true;
    g->bytes += S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
    if (g_hash_table_size(g->seen) > FILES_MAX || g->bytes > BYTES_MAX)
        return fail(error,
                    "ansible provisioner: '%s' and the folders beside it hold more than %u files or %u GiB; "
                    "keep the playbook in a "
                    "folder of its own",
                    name, FILES_MAX, (unsigned)(BYTES_MAX >> 30));
    return host_file_add_entry(name, path, st, g->inputs, error);
}

/* A link out of the folder: the folder's text says where to, the target's content is wanted, too. */
static void follow(Folder *folder, const char *path)
{
    g_autofree char *real = realpath(path, NULL);
    size_t n = strlen(folder->real);

    if (real && !(strncmp(real, folder->real, n) == 0 && (real[n] == '/' || real[n] == '\0')))
        enqueue(folder->gather, real);
}

static bool take_entry(const char *path, const char *relative, const struct stat *st, void *arg,
                       GError **error)
{
    Folder *folder = arg;
    g_autofree char *name = g_build_filename(folder->name, relative, NULL);

    if (is_left_out(folder, relative))
        return true;
    if (S_ISLNK(st->st_mode))
        follow(folder, path);
    return add_one(folder->gather, name, path, st, error);
}

static bool take_folder(Gather *g, const char *name, const char *path, GError **error)
{
    g_autofree char *real = realpath(path, NULL);
    g_autoptr(GHashTable) stores = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    Folder folder = {
        .gather = g, .name = name, .path = path, .real = real ? real : (char *)path, .stores = stores};

    return host_file_walk(WHO, path, take_entry, &folder, error);
}

static bool take(Gather *g, const char *name, GError **error)
{
    g_autofree char *path = NULL, *real = NULL;
    struct stat st;

    if (!host_file_find(WHO, name, g->host, &path, &st, error))
        return false;
    real = realpath(path, NULL);
    if (real && g_hash_table_contains(g->seen, real))
        return true;
    if (!S_ISDIR(st.st_mode))
        return add_one(g, name, path, &st, error);
    return add_one(g, name, path, &st, error) && take_folder(g, name, path, error);
}

static bool exists(const Gather *g, const char *name)
{
    g_autofree char *path = NULL;
    struct stat st;

    return *name && host_file_find(WHO, name, g->host, &path, &st, NULL);
}

/* What a search path or a text names but is not there is nothing that a play could read. */
static bool take_if_there(Gather *g, const char *name, GError **error)
{
    return !exists(g, name) || take(g, name, error);
}

/* --- texts --- */

static bool ends_word(char c)
{
    return !c || g_ascii_isspace(c) || strchr("\"'`,;()[]{}<>|=#", c);
}

/* Where Ansible would look for "../x" that stands in @path: beside the text, in the folders of a role or play around it, from the playbook. */
static void queue_relative(Gather *g, const char *path, const char *word)
{
    static const char *const places[] = {".",        "files",        "templates", "vars",     "tasks",
                                         "../files", "../templates", "../vars",   "../tasks", NULL};
    g_autofree char *folder = g_path_get_dirname(path);

    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *guess = places[i] ? g_build_filename(folder, places[i], word, NULL)
                                           : g_build_filename(g->play, word, NULL);
        g_autofree char *real = realpath(guess, NULL);

        /* never a folder of the root: ".." of a text may be about the guest */
        if (real && strrchr(real, '/') != real && !g_hash_table_contains(g->seen, real))
            enqueue(g, real);
    }
}

static void queue_named(Gather *g, const ProvisionerInput *input)
{
    g_autofree char *text = strstr(input->path, "..") ? NULL : ansible_text_load(input);

    for (const char *at = text; at && (at = strstr(at, "../")); at += 3) {
        const char *start = at, *end = at;
        g_autofree char *word = NULL;

        while (start > text && !ends_word(start[-1]) && start[-1] != ':' && start[-1] != '@')
            start--;
        while (!ends_word(*end))
            end++;
        start += *start == '/'; /* of "{{ playbook_dir }}/../x" */
        word = g_strndup(start, (gsize)(end - start));
        if (end - start < PATH_MAX && word[strspn(word, "./")])
            queue_relative(g, input->path, word);
        at = end > at + 3 ? end - 3 : at;
    }
}

/* Until nothing new is named. */
static bool take_queue(Gather *g, GError **error)
{
    guint looked = 0;

    do {
        for (; looked < g->inputs->len; looked++)
            queue_named(g, g->inputs->pdata[looked]);
        for (guint i = 0; i < g->queue->len; i++)
            if (!take_if_there(g, g->queue->pdata[i], error))
                return false;
        g_ptr_array_set_size(g->queue, 0);
    } while (looked < g->inputs->len);
    return true;
}

/* --- what the arguments name --- */

static bool take_paths(Gather *g, const char *list, const char *base, GError **error)
{
    g_auto(GStrv) paths = g_strsplit(list, ":", -1);

    for (char **path = paths; *path; path++) {
        g_autofree char *full =
            base && !g_path_is_absolute(*path) ? g_build_filename(base, *path, NULL) : g_strdup(*path);

        if (!take_if_there(g, g_strstrip(full), error))
            return false;
    }
    return true;
}

static bool take_search_path(Gather *g, const json_t *args, const char *name, GError **error)
{
    g_autofree char *list = NULL;

    return argument_expanded(args, name, "", g->host, NULL, &list, error) && take_paths(g, list, NULL, error);
}

/* "-e @vars.yml", "--extra-vars=@vars.yml", "-i hosts". A vault's password is no input: it decides whether, not what. */
static bool take_extra_arguments(Gather *g, const json_t *args, GError **error)
{
    g_auto(GStrv) words = argument_texts(args, "extra_arguments");

    for (guint i = 0; words[i]; i++) {
        const char *at = strchr(words[i], '@'), *equals = strchr(words[i], '=');
        bool vault = strstr(words[i], "vault") || (i > 0 && strstr(words[i - 1], "vault"));
        bool after_list =
            i > 0 && (strcmp(words[i - 1], "-i") == 0 || strcmp(words[i - 1], "--inventory") == 0 ||
                      strcmp(words[i - 1], "-M") == 0);
        const char *file = vault ? NULL
                           : at && (at == words[i] || at[-1] == '=' || g_str_has_prefix(words[i], "-e@"))
                               ? at + 1
                           : after_list                                 ? words[i]
                           : g_str_has_prefix(words[i], "--inventory=") ? equals + 1
                                                                        : NULL;

        if (file && !(after_list && strchr(file, ',')) && !take(g, file, error))
            return false;
    }
    return true;
}

static bool take_environment(Gather *g, const json_t *args, GError **error)
{
    g_auto(GStrv) vars = argument_texts(args, "ansible_env_vars");

    for (char **var = vars; *var; var++)
        if ((g_str_has_prefix(*var, "ANSIBLE_ROLES_PATH=") ||
             g_str_has_prefix(*var, "ANSIBLE_COLLECTIONS_PATH") ||
             g_str_has_prefix(*var, "ANSIBLE_LIBRARY=") ||
             g_str_has_prefix(*var, "ANSIBLE_FILTER_PLUGINS=") ||
             g_str_has_prefix(*var, "ANSIBLE_INVENTORY=")) &&
            !take_paths(g, strchr(*var, '=') + 1, NULL, error))
            return false;
    return true;
}

char *ansible_files_config(const json_t *args, const ProvisionerHost *host)
{
    g_auto(GStrv) vars = argument_texts(args, "ansible_env_vars");
    g_autofree char *here = g_build_filename(host->cwd ? host->cwd : ".", "ansible.cfg", NULL);
    const char *given = NULL;

    for (char **var = vars; *var; var++)
        if (g_str_has_prefix(*var, "ANSIBLE_CONFIG="))
            given = strchr(*var, '=') + 1;
    if (given)
        return g_path_is_absolute(given) ? g_strdup(given)
                                         : g_build_filename(host->cwd ? host->cwd : ".", given, NULL);
    return access(here, R_OK) == 0 ? g_steal_pointer(&here) : NULL;
}

/* The search paths in ansible.cfg lead from its own folder. */
static bool take_config(Gather *g, const json_t *args, GError **error)
{
    static const char *const keys[] = {"roles_path", "collections_path", "collections_paths",
                                       "library",    "inventory",        "filter_plugins",
                                       NULL};
    g_autofree char *path = ansible_files_config(args, g->host), *folder = NULL;
    g_autoptr(GBytes) text = NULL;

    if (!path || !take_if_there(g, path, error))
        return path == NULL;
    folder = g_path_get_dirname(path);
    (void)file_load(AT_FDCWD, path, HOST_TEXT_MAX, &text, NULL); /* not there: Ansible will say so */
    g_auto(GStrv) lines = g_strsplit(text ? g_bytes_get_data(text, NULL) : "", "\n", -1);
    for (char **line = lines; *line; line++) {
        char *equals = strchr(*line, '=');

        if (!equals)
            continue;
        *equals = '\0';
        if (g_strv_contains(keys, g_strstrip(*line)) && !take_paths(g, equals + 1, folder, error))
            return false;
    }
    return true;
}

static bool take_argument(Gather *g, const json_t *args, const char *name, GError **error)
{
    g_autofree char *path = NULL;

    return argument_expanded(args, name, NULL, g->host, NULL, &path, error) &&
           (!path || take(g, path, error));
}

/* Archives and folders that the file names on this disk. */
static bool take_galaxy(Gather *g, const json_t *args, GError **error)
{
    g_autofree char *name = NULL, *path = NULL, *folder = NULL;
    g_autoptr(GBytes) text = NULL;
    struct stat st;

    if (!argument_expanded(args, "galaxy_file", NULL, g->host, NULL, &name, error))
        return false;
    if (!name)
        return true;
    if (!take(g, name, error) || !host_file_find(WHO, name, g->host, &path, &st, error))
        return false;
    folder = g_path_get_dirname(path);
    if (!file_load(AT_FDCWD, path, HOST_TEXT_MAX, &text, error))
        return false;
    g_auto(GStrv) lines = g_strsplit(g_bytes_get_data(text, NULL), "\n", -1);
    for (char **line = lines; *line; line++) {
        const char *colon = strstr(*line, ": ");
        g_autofree char *value =
            colon ? g_strdup(colon + 2) : g_strdup(strstr(*line, "- ") ? strstr(*line, "- ") + 2 : "");
        g_autofree char *beside = NULL;

        g_strdelimit(g_strstrip(value), "\"'", ' ');
        (void)g_strstrip(value);
        if (g_str_has_prefix(value, "file://"))
            memmove(value, value + 7, strlen(value + 7) + 1);
        beside = g_build_filename(folder, value, NULL);
        if (strchr(value, '/') && (!take_if_there(g, value, error) || !take_if_there(g, beside, error)))
            return false;
    }
    return true;
}

static bool take_playbook(Gather *g, const json_t *args, GError **error)
{
    g_autofree char *name = NULL, *folder = NULL, *path = NULL;
    struct stat st;

    if (!argument_expanded(args, "playbook_file", "", g->host, NULL, &name, error) || !take(g, name, error) ||
        !host_file_find(WHO, name, g->host, &path, &st, error))
        return false;
    folder = g_path_get_dirname(name);
    g->play = g_path_get_dirname(path);
    return take(g, folder, error);
}

/* The folder's group_vars and host_vars; the inventory that kiln makes stands beside them. */
static bool take_all(Gather *g, const json_t *args, GError **error)
{
    return take_playbook(g, args, error) && take_argument(g, args, "inventory_file", error) &&
           take_argument(g, args, "inventory_directory", error) && take_galaxy(g, args, error) &&
           take_search_path(g, args, "roles_path", error) && take_search_path(g, args, "collections_path", error) &&
           take_extra_arguments(g, args, error) && take_environment(g, args, error) &&
           take_config(g, args, error) && take_queue(g, error) &&
           ansible_version_inputs(args, g->inputs, error) && ansible_plugin_inputs(g->inputs, error);
}

/* The same wherever kiln is installed, so the mode is not the file's. */
bool ansible_plugin_inputs(GPtrArray *inputs, GError **error)
{
    static const char *const plugins[] = {"action/normal.py", "become/kiln.py", "callback/kiln_events.py", "connection/kiln.py"};

    for (size_t i = 0; i < G_N_ELEMENTS(plugins); i++) {
        g_autofree char *helper = g_strconcat("ansible/", plugins[i], NULL), *path = NULL;
        ProvisionerInput *input;

        if (!libexec_find(helper, &path, error))
            return false;
        input = g_new0(ProvisionerInput, 1);
        *input = (ProvisionerInput){.name = g_strconcat("kiln/", helper, NULL), .path = g_strdup(path), .mode = S_IFREG | 0644};
        g_ptr_array_add(inputs, input);
        if (!digest_of_file(AT_FDCWD, path, &input->digest, NULL, error))
            return false;
    }
    return true;
}

bool ansible_files_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) queue = g_ptr_array_new_with_free_func(g_free);
    Gather gather = {.host = host, .inputs = inputs, .seen = seen, .queue = queue};
    bool ok = take_all(&gather, args, error);

    g_free(gather.play);
    return ok;
}
