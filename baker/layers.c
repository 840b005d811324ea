/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sealed tree as a container image: what of it a container has use for, on which of a parent's layers, and the OCI config and manifest
 * that describe it. Which entry goes into which layer is layer-cuts.h's to say.
 */
#include "baker/layers.h"

#include "baker/docker-changes.h"
#include "baker/layer-cuts.h"
#include "base/error.h"
#include "base/units.h"

#include <string.h>

#define MANIFEST_MAX (4u << 20)
#define LAYERS_MAX 512
#define CHANGES_MAX 8u /* layers of changes on one image */
#define HISTORY "kiln: "
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define LAYER_MEDIA_TYPE "application/vnd.oci.image.layer.v1.tar+gzip"
#define ZSTD_MEDIA_TYPE "application/vnd.oci.image.layer.v1.tar+zstd"
#define CONFIG_MEDIA_TYPE "application/vnd.oci.image.config.v1+json"
#define MANIFEST_MEDIA_TYPE "application/vnd.oci.image.manifest.v1+json"

struct LayersResult {
    json_t *parent;   /* NULL but for oci sources */
    json_t *manifest; /* the parent's own: a layer for each of @parent's */
    json_t *args;
    int64_t epoch;
    size_t kept;        /* of the parent's layers: the lowest ones */
    GPtrArray *cuts;    /* of LayerCut*, bottom first, only such as hold something */
    GPtrArray *writers; /* of LayerWriter*, one for each */
};

/* --- what a container has no use for -------------------------------------------- */

/* What the rest of a root says about its parts. */
typedef struct Machine {
    GHashTable *kernels; /* set of versions that /boot has; borrowed */
    bool boot_loader;    /* it was installed into /boot */
} Machine;

static bool is_below_any(const char *path, const char *const *folders)
{
    for (; *folders; folders++)
        if (tree_path_is_below(path, *folders))
            return true;
    return false;
}

/* Modules go with the kernel in /boot; a container that brings modules of its own, without that kernel, keeps them. */
static bool is_module(const Machine *machine, const char *path)
{
    static const char *const folders[] = {"usr/lib/modules/", "lib/modules/"};

    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++)
        if (g_str_has_prefix(path, folders[i])) {
            const char *rest = path + strlen(folders[i]);
            g_autofree char *version = g_strndup(rest, strcspn(rest, "/"));

            return g_hash_table_contains(machine->kernels, version);
        }
    return false;
}

static bool excluded(const Machine *machine, const TreeEntry *entry)
{
    static const char *const emptied[] = {"dev", "proc", "sys", "run", "tmp", "lost+found", NULL};
    static const char *const loaders[] = {"usr/lib/grub", "usr/lib/shim", "usr/lib/systemd/boot", NULL};
    static const char *const boot[] = {"boot/vmlinuz",    "boot/initrd", "boot/config-",
                                       "boot/System.map", "boot/grub/",  "boot/efi/"};
    static const char *const root[] = {"vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old", "lost+found", NULL};
    static const char *const bound[] = {"etc/resolv.conf", "etc/hostname", "etc/hosts", NULL};
    const char *path = entry->path;

    if (entry->type == 'b' || entry->type == 'c' || entry->type == 's' || is_below_any(path, emptied))
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(boot); i++)
        if (g_str_has_prefix(path, boot[i]))
            return true;
    if (g_strv_contains(root, path) || is_module(machine, path) || (machine->boot_loader && is_below_any(path, loaders)))
        return true;
    return entry->type != 'f' && g_strv_contains(bound, path); /* runtimes bind their own over these */
}

static void look_at_machine(Tree *tree, Machine *machine)
{
    static const char kernel[] = "boot/vmlinuz-";
    static const char *const loaders[] = {"boot/grub", "boot/efi", NULL};

    for (size_t i = 0; i < tree_count(tree); i++) {
        const char *path = tree_nth(tree, i)->path;

        if (g_str_has_prefix(path, kernel))
            g_hash_table_add(machine->kernels, (gpointer)(path + strlen(kernel)));
        machine->boot_loader |= is_below_any(path, loaders);
    }
}

Tree *layers_container_tree(Tree *tree)
{
    g_autoptr(GPtrArray) out = g_ptr_array_new();
    g_autoptr(GHashTable) kernels = g_hash_table_new(g_str_hash, g_str_equal);
    Machine machine = {.kernels = kernels};
    Tree *copy = tree_new();

    look_at_machine(tree, &machine);
    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);
        TreeEntry *kept = tree_entry_copy(entry);

        tree_entry_remove_xattr(kept, TREE_LABEL); /* an engine labels what it runs itself */
        tree_put(copy, kept);
        if (excluded(&machine, entry))
            g_ptr_array_add(out, entry->path);
    }
    for (guint i = out->len; i-- > 0;) /* from the back: what is below a folder goes before it */
        tree_remove(copy, g_ptr_array_index(out, i));
    return copy;
}

/* --- a parent's changes ----------------------------------------------------------------- */

static bool fail_layers(GError **error)
{
    return fail(error, "the parent's layers are not those of its manifest");
}

static bool read_manifest(Store *store, LayersResult *result, GError **error)
{
    const char *digest_text = json_string_value(json_object_get(result->parent, "manifest"));
    g_autoptr(GBytes) bytes = NULL;
    size_t layers;
    Digest digest;

    if (!digest_text || !digest_parse(digest_text, &digest))
        return fail(error, "the parent image has no manifest");
    if (!store_blob_get(store, &digest, MANIFEST_MAX, &bytes, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), MANIFEST_MAX, "the parent's manifest", &result->manifest, error))
        return false;
    layers = json_array_size(json_object_get(result->manifest, "layers"));
    return (layers == json_array_size(json_object_get(result->parent, "layers")) && layers <= LAYERS_MAX) || fail_layers(error);
}

/* Places in the history that stand for layers, bottom first. */
static GPtrArray *layer_history(const json_t *config)
{
    GPtrArray *list = g_ptr_array_new();
    json_t *one;
    size_t i;

    json_array_foreach (json_object_get(config, "history"), i, one)
        if (!json_is_true(json_object_get(one, "empty_layer")))
            g_ptr_array_add(list, one);
    return list;
}

/* How many layers on top of the parent are changes that kiln put there, one on the other. */
static size_t changes_on_top(const json_t *parent, size_t layers)
{
    g_autoptr(GPtrArray) history = layer_history(json_object_get(parent, "config"));
    size_t count = 0;

    if (!json_is_true(json_object_get(parent, "own")) || history->len != layers)
        return 0;
    while (count < layers && g_strcmp0(json_string_value(json_object_get(history->pdata[layers - 1 - count], "created_by")), HISTORY LAYER_CHANGES) == 0)
        count++;
    return count;
}

static uint64_t layer_size(const json_t *layers, size_t index)
{
    json_int_t size = json_integer_value(json_object_get(json_array_get(layers, index), "size"));

    return (uint64_t)CLAMP(size, 0, (json_int_t)1 << 50);
}

/*
 * Which of the parent's layers stay. All of them, until CHANGES_MAX layers of changes lie on each other: then the new one takes in those below
 * it, as long as the next is less than twice as large as all that was taken in. So the number stays, the large old ones stay, and what a
 * night uploads beyond its own changes is, in the long run, a small multiple of them. Sizes are the parent's: the same parent, the same answer.
 */
static bool decide_kept(Store *store, LayersResult *result, GError **error)
{
    const json_t *layers;
    size_t count, changes, taken = 1;
    uint64_t size;

    if (!result->parent)
        return true;
    if (!read_manifest(store, result, error))
        return false;
    layers = json_object_get(result->manifest, "layers");
    count = result->kept = json_array_size(layers);
    changes = changes_on_top(result->parent, count);
    if (changes < CHANGES_MAX)
        return true;
    for (size = layer_size(layers, count - 1); taken < changes && layer_size(layers, count - 1 - taken) / 2 < size; taken++)
        size += layer_size(layers, count - 1 - taken);
    result->kept -= taken;
    return true;
}

/* One of @parent's layers. */
static bool read_layer(const json_t *layer, StoreLayerRef *ret, GError **error)
{
    const char *blob = json_string_value(json_object_get(layer, "blob")), *recipe = json_string_value(json_object_get(layer, "recipe"));

    ret->recipe = digest_none;
    if (!blob || !digest_parse(blob, &ret->blob))
        return fail_layers(error);
    return !recipe || digest_parse(recipe, &ret->recipe) || fail(error, "the parent's layer has a malformed recipe");
}

/* The tree that the parent's layers that stay make, where not all of them do. */
static bool kept_tree(Store *store, const LayersResult *result, Tree **ret, GError **error)
{
    const json_t *layers = json_object_get(result->parent, "layers");
    g_autoptr(OciParent) kept = g_new0(OciParent, 1);
    g_autoptr(Tree) tree = NULL;

    kept->layers = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < result->kept; i++) {
        StoreLayerRef *ref = g_new0(StoreLayerRef, 1);

        g_ptr_array_add(kept->layers, ref);
        if (!read_layer(json_array_get(layers, i), ref, error))
            return false;
    }
    if (!oci_parent_tree(store, NULL, kept, &tree, NULL, error))
        return false;
    *ret = layers_container_tree(tree);
    return true;
}

/* --- plans -------------------------------------------------------------------------------- */

static bool uses_zstd(const LayersResult *result)
{
    return g_strcmp0(json_string_value(json_object_get(result->args, "compression")), "zstd") == 0;
}

static bool has_content(Tree *tree)
{
    return tree && tree_count(tree) > 1; /* the root folder alone is nothing */
}

static bool plan_on_parent(Store *store, LayersResult *result, Tree *base, const LayerRoot *root, GError **error)
{
    g_autoptr(Tree) kept = NULL;

    if (result->kept < json_array_size(json_object_get(result->parent, "layers")) && !kept_tree(store, result, &kept, error))
        return fail_prefix(error, "the parent's lower layers");
    layer_cut_changes(kept ? kept : base, root, result->cuts);
    return true;
}

static bool plan_by_rule(LayersResult *result, const LayersSpec *spec, Tree *base, LayerRoot *root, GError **error)
{
    g_autoptr(GHashTable) origins = NULL, base_origins = NULL;
    LayerRoot from = {base, spec->base_files, NULL};

    if (!layer_origins(spec->tree, spec->files, &origins, error) ||
        (base && !layer_origins(spec->base, spec->base_files, &base_origins, error)))
        return false;
    root->origins = origins;
    from.origins = base_origins;
    layer_cuts_by_rule(base ? &from : NULL, root, result->cuts);
    root->origins = NULL;
    return true;
}

static bool write_cuts(Store *store, StoreWriter *writer, LayersResult *result, GError **error)
{
    for (guint i = 0; i < result->cuts->len; i++) {
        LayerCut *cut = g_ptr_array_index(result->cuts, i);
        LayerWriter *layer = NULL;

        if (!layer_writer_new(store, writer, &layer, error))
            return false;
        g_ptr_array_add(result->writers, layer);
        if (uses_zstd(result))
            layer_writer_use_zstd(layer);
        if (!layer_cut_write(cut, layer, error) || !layer_writer_finish(layer, error))
            return fail_prefix(error, "layer '%s'", cut->title);
        cut->tree = NULL; /* ours ends with the caller's */
        cut->files = NULL;
    }
    return true;
}

bool layers_build(Store *store, StoreWriter *writer, const LayersSpec *spec, LayersResult **ret,
                  GError **error)
{
    g_autoptr(LayersResult) result = g_new0(LayersResult, 1);
    g_autoptr(Tree) tree = layers_container_tree(spec->tree), base = spec->base ? layers_container_tree(spec->base) : NULL;
    LayerRoot root = {tree, spec->files, NULL};

    result->cuts = g_ptr_array_new_with_free_func((GDestroyNotify)layer_cut_free);
    result->writers = g_ptr_array_new_with_free_func((GDestroyNotify)layer_writer_free);
    result->epoch = spec->epoch;
    result->args = spec->args ? json_deep_copy(spec->args) : json_object();
    result->parent = spec->parent ? json_deep_copy(spec->parent) : NULL;
    if (!decide_kept(store, result, error))
        return false;
    if (!(spec->parent && base ? plan_on_parent(store, result, base, &root, error)
                               : plan_by_rule(result, spec, has_content(base) ? base : NULL, &root, error)) ||
        !write_cuts(store, writer, result, error))
        return false;
    *ret = g_steal_pointer(&result);
    return true;
}

void layers_result_free(LayersResult *result)
{
    if (!result)
        return;
    g_clear_pointer(&result->cuts, g_ptr_array_unref);
    g_clear_pointer(&result->writers, g_ptr_array_unref);
    json_decref(result->parent);
    json_decref(result->manifest);
    json_decref(result->args);
    g_free(result);
}

/* --- arguments ------------------------------------------------------------------------------ */

static const char *const arguments[] = {"entrypoint", "cmd",    "env",     "expose",      "workdir",
                                        "user",       "labels", "volumes", "stop_signal", "compression", NULL};

/* "80", "80/tcp": returns "80/tcp", or NULL. */
static char *port_text(const json_t *port)
{
    g_auto(GStrv) parts = NULL;
    g_autofree char *number = NULL;
    double value;

    if (json_is_number(port)) {
        value = json_number_value(port);
        return value >= 1 && value <= 65535 && value == (double)(int)value
                   ? g_strdup_printf("%d/tcp", (int)value)
                   : NULL;
    }
    if (!json_is_string(port))
        return NULL;
    parts = g_strsplit(json_string_value(port), "/", 3);
    if (!parts[0] || strlen(parts[0]) > 5 || strspn(parts[0], "0123456789") != strlen(parts[0]) ||
        atoi(parts[0]) < 1 || atoi(parts[0]) > 65535)
        return NULL;
    if (!parts[1])
        return g_strdup_printf("%d/tcp", atoi(parts[0]));
    if (parts[2] ||
        (strcmp(parts[1], "tcp") != 0 && strcmp(parts[1], "udp") != 0 && strcmp(parts[1], "sctp") != 0))
        return NULL;
    return g_strdup_printf("%d/%s", atoi(parts[0]), parts[1]);
}

static char *scalar_text(const json_t *value)
{
    if (json_is_string(value))
        return g_strdup(json_string_value(value));
    if (json_is_boolean(value))
        return g_strdup(json_is_true(value) ? "true" : "false");
    if (json_is_integer(value))
        return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_real(value)) {
        char digits[G_ASCII_DTOSTR_BUF_SIZE];

        return g_strdup(g_ascii_formatd(digits, sizeof(digits), "%.15g", json_real_value(value)));
    }
    return NULL;
}

/* A list or a single value, always as a new list. */
static json_t *as_list(json_t *value)
{
    json_t *list;

    if (json_is_array(value))
        return json_incref(value);
    list = json_array();
    if (value && !json_is_null(value))
        json_array_append(list, value);
    return list;
}

static bool check_strings(const json_t *value, const char *name, GError **error)
{
    const json_t *item;
    size_t i;

    if (json_is_string(value))
        return true;
    if (!json_is_array(value))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' must be a list of strings", name);
    json_array_foreach(value, i, item) if (!json_is_string(item)) return fail_code(
        error, KILN_ERROR_USAGE, "'%s' must be a list of strings", name);
    return true;
}

static bool check_env(const json_t *value, GError **error)
{
    const json_t *item;
    const char *key;
    size_t i;

    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, item)
        {
            g_autofree char *text = scalar_text(item);

            if (!text || !*key || strchr(key, '='))
                return fail_code(error, KILN_ERROR_USAGE, "'env' has a wrong entry '%s'", key);
        }
        return true;
    }
    if (!check_strings(value, "env", error))
        return false;
    json_array_foreach(value, i,
                       item) if (!strchr(json_string_value(item), '=') ||
                                 *json_string_value(item) ==
                                     '=') return fail_code(error, KILN_ERROR_USAGE,
                                                           "'env' entries read NAME=VALUE, not '%s'",
                                                           json_string_value(item));
    return !json_is_string(value) || strchr(json_string_value(value), '=') ||
           fail_code(error, KILN_ERROR_USAGE, "'env' entries read NAME=VALUE, not '%s'",
                     json_string_value(value));
}

static bool check_expose(json_t *value, GError **error)
{
    g_autoptr(json_t) list = as_list(value);
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        g_autofree char *text = port_text(item);

        if (!text)
            return fail_code(error, KILN_ERROR_USAGE, "'expose' takes ports such as 80 or \"53/udp\"");
    }
    return true;
}

static bool check_labels(json_t *value, GError **error)
{
    const json_t *item;
    const char *key;

    if (!json_is_object(value))
        return fail_code(error, KILN_ERROR_USAGE, "'labels' must be an object of strings");
    json_object_foreach(value, key, item)
    {
        g_autofree char *text = scalar_text(item);

        if (!text || !*key)
            return fail_code(error, KILN_ERROR_USAGE, "the label '%s' must be a string", key);
    }
    return true;
}

static bool check_argument(const char *name, json_t *value, GError **error)
{
    if (json_is_null(value))
        return true;
    if (strcmp(name, "env") == 0)
        return check_env(value, error);
    if (strcmp(name, "expose") == 0)
        return check_expose(value, error);
    if (strcmp(name, "labels") == 0)
        return check_labels(value, error);
    if (strcmp(name, "workdir") == 0 || strcmp(name, "user") == 0 || strcmp(name, "stop_signal") == 0) {
        g_autofree char *text = scalar_text(value);

        if (!text || (*name == 'w' && *text != '/'))
            return fail_code(error, KILN_ERROR_USAGE,
                             *name == 'w' ? "'workdir' must be an absolute path" : "'%s' must be a string",
                             name);
        return true;
    }
    if (strcmp(name, "compression") == 0)
        return g_strcmp0(json_string_value(value), "gzip") == 0 || g_strcmp0(json_string_value(value), "zstd") == 0 ||
               fail_code(error, KILN_ERROR_USAGE, "'compression' is \"gzip\" or \"zstd\"");
    return check_strings(value, name, error);
}

bool layers_check_output_args(const json_t *args, const char **ret_argument, GError **error)
{
    const char *bad = NULL, *key, *near;
    json_t *value;

    *ret_argument = NULL;
    if (!args)
        return true;
    if (!json_only_keys(args, arguments, &bad)) {
        *ret_argument = bad;
        near = units_nearest(bad, arguments);
        return near ? fail_code(error, KILN_ERROR_USAGE,
                                "output \"oci\" has no argument '%s'; did you mean '%s'?", bad, near)
                    : fail_code(error, KILN_ERROR_USAGE, "output \"oci\" has no argument '%s'", bad);
    }
    json_object_foreach((json_t *)args, key, value)
    {
        *ret_argument = key;
        if (!check_argument(key, value, error))
            return false;
    }
    *ret_argument = NULL;
    return true;
}

/* --- the config -------------------------------------------------------------------------------- */

/* As in Dockerfiles: a string is for the shell, a list is the command itself. */
static json_t *command(json_t *value)
{
    if (json_is_string(value))
        return json_pack("[sss]", "/bin/sh", "-c", json_string_value(value));
    return json_incref(value);
}

/* One variable, in place of an earlier one of the same name. */
static void env_set(json_t *env, const char *text)
{
    size_t name = (size_t)(strchr(text, '=') - text) + 1, i;
    json_t *item;

    json_array_foreach(env, i, item) if (strncmp(json_string_value(item), text, name) == 0)
    {
        json_array_set_new(env, i, json_string(text));
        return;
    }
    json_array_append_new(env, json_string(text));
}

static void env_merge(json_t *env, json_t *more)
{
    json_t *value;
    size_t i;

    if (json_is_object(more)) {
        g_autoptr(GList) keys = NULL;
        const char *key;

        json_object_foreach(more, key, value) keys =
            g_list_insert_sorted(keys, (gpointer)key, (GCompareFunc)strcmp);
        for (GList *at = keys; at; at = at->next) {
            g_autofree char *text = scalar_text(json_object_get(more, at->data));
            g_autofree char *both = g_strconcat(at->data, "=", text, NULL);

            env_set(env, both);
        }
        return;
    }
    g_autoptr(json_t) list = as_list(more);

    json_array_foreach(list, i, value) if (json_is_string(value) && strchr(json_string_value(value), '='))
        env_set(env, json_string_value(value));
}

/* {"80/tcp": {}} and the like: a set as the image-spec writes it. */
static void add_to_set(json_t *config, const char *key, const char *member)
{
    json_t *set = json_object_get(config, key);

    if (!json_is_object(set)) {
        set = json_object();
        json_object_set_new(config, key, set);
    }
    json_object_set_new(set, member, json_object());
}

static void set_lists(json_t *config, const json_t *args)
{
    g_autoptr(json_t) ports = as_list(json_object_get(args, "expose"));
    g_autoptr(json_t) volumes = as_list(json_object_get(args, "volumes"));
    json_t *item, *labels = json_object_get(config, "Labels");
    const char *key;
    size_t i;

    json_array_foreach(ports, i, item)
    {
        g_autofree char *port = port_text(item);

        if (port)
            add_to_set(config, "ExposedPorts", port);
    }
    json_array_foreach(volumes, i, item) add_to_set(config, "Volumes", json_string_value(item));
    if (!json_is_object(json_object_get(args, "labels")))
        return;
    if (!json_is_object(labels)) {
        labels = json_object();
        json_object_set_new(config, "Labels", labels);
    }
    json_object_foreach(json_object_get(args, "labels"), key, item)
    {
        g_autofree char *text = scalar_text(item);

        json_object_set_new(labels, key, json_string(text));
    }
}

static void set_text(json_t *config, const char *key, const json_t *value)
{
    g_autofree char *text = value ? scalar_text(value) : NULL;

    if (text)
        json_object_set_new(config, key, json_string(text));
}

/* What `changes` of Packer's docker source say, over what the parent says in @document. */
static bool apply_changes(const LayersResult *result, json_t *document, GError **error)
{
    g_auto(GStrv) changes = NULL;

    return !json_object_get(result->args, LAYERS_CHANGES) ||
           (json_get_strings(result->args, LAYERS_CHANGES, &changes, error) && docker_changes_apply((const char *const *)changes, document, error));
}

/* The config's "config": what is there already, and what the output says. */
static void make_run_config(const LayersResult *result, json_t *config)
{
    g_autoptr(json_t) env = json_array();
    json_t *value;

    env_merge(env, json_object_get(config, "Env"));
    env_merge(env, json_object_get(result->args, "env"));
    if (json_array_size(env))
        json_object_set(config, "Env", env);
    if ((value = json_object_get(result->args, "entrypoint")) && !json_is_null(value)) {
        json_object_set_new(config, "Entrypoint", command(value));
        (void)json_object_del(config, "Cmd"); /* it was meant for the parent's entrypoint; absent is fine */
    }
    if ((value = json_object_get(result->args, "cmd")) && !json_is_null(value))
        json_object_set_new(config, "Cmd", command(value));
    set_text(config, "WorkingDir", json_object_get(result->args, "workdir"));
    set_text(config, "User", json_object_get(result->args, "user"));
    set_text(config, "StopSignal", json_object_get(result->args, "stop_signal"));
    set_lists(config, result->args);
}

static const char *host_architecture(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__i386__)
    return "386";
#elif defined(__arm__)
    return "arm";
#elif defined(__riscv) && __riscv_xlen == 64
    return "riscv64";
#elif defined(__powerpc64__)
    return "ppc64le";
#elif defined(__s390x__)
    return "s390x";
#else
#error "name this machine as GOARCH does"
#endif
}

static char *created_text(int64_t epoch)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(epoch);

    return time ? g_date_time_format(time, "%Y-%m-%dT%H:%M:%SZ") : g_strdup("1970-01-01T00:00:00Z");
}

static json_t *array_or_new(const json_t *object, const char *key)
{
    json_t *array = json_object_get(object, key);

    return json_is_array(array) ? json_deep_copy(array) : json_array();
}

/* Layers of the parent that went into a new one: kiln's own, so each is one of the last entries of both lists. */
static void drop_merged(const LayersResult *result, json_t *diff_ids, json_t *history)
{
    while (result->parent && json_array_size(diff_ids) > result->kept) {
        (void)json_array_remove(diff_ids, json_array_size(diff_ids) - 1);
        for (size_t i = json_array_size(history); i-- > 0;)
            if (!json_is_true(json_object_get(json_array_get(history, i), "empty_layer"))) {
                (void)json_array_remove(history, i);
                break;
            }
    }
}

/* Starts from the parent's document, so that what it says beyond us (os.version, variant) stays. */
static bool make_config(const LayersResult *result, const LayerResult *layers, json_t **ret, GError **error)
{
    json_t *from = json_object_get(result->parent, "config");
    g_autoptr(json_t) config = json_is_object(from) ? json_deep_copy(from) : json_object();
    g_autofree char *created = created_text(result->epoch);
    json_t *diff_ids, *history;
    char oci[DIGEST_OCI_SIZE];

    if (!json_is_object(json_object_get(config, "config")))
        json_object_set_new(config, "config", result->parent ? json_object() : json_pack("{s:[s]}", "Env", DEFAULT_PATH));
    if (!apply_changes(result, config, error))
        return false;
    make_run_config(result, json_object_get(config, "config"));
    diff_ids = array_or_new(json_object_get(from, "rootfs"), "diff_ids");
    history = array_or_new(from, "history");
    drop_merged(result, diff_ids, history);
    if (!json_is_string(json_object_get(config, "architecture")))
        json_object_set_new(config, "architecture", json_string(host_architecture()));
    json_object_set_new(config, "os", json_string("linux"));
    json_object_set_new(config, "created", json_string(created));
    set_text(config, "author", json_object_get(result->args, "author"));
    for (guint i = 0; i < result->cuts->len; i++) {
        const LayerCut *cut = g_ptr_array_index(result->cuts, i);
        g_autofree char *by = g_strconcat(HISTORY, cut->title, NULL);

        json_array_append_new(diff_ids, json_string(digest_to_oci(&layers[i].diff_id, oci)));
        json_array_append_new(history, json_pack("{ssss}", "created", created, "created_by", by));
        set_text(json_array_get(history, json_array_size(history) - 1), "comment", json_object_get(result->args, "comment"));
    }
    json_object_set_new(config, "rootfs", json_pack("{sssO}", "type", "layers", "diff_ids", diff_ids));
    json_decref(diff_ids);
    if (json_array_size(from ? json_object_get(from, "history") : NULL) || !from)
        json_object_set(config, "history", history);
    json_decref(history);
    /* Says how some container was once started, not what the image is. */
    (void)json_object_del(config, "container");
    (void)json_object_del(config, "container_config");
    *ret = g_steal_pointer(&config);
    return true;
}

/* --- the manifest ------------------------------------------------------------------------------- */

static bool put_json(Store *store, const json_t *value, Digest *ret, size_t *ret_size, GError **error)
{
    g_autofree char *text = json_canonical(value);

    *ret_size = strlen(text);
    return store_blob_put(store, text, *ret_size, ret, error);
}

static json_t *descriptor(const char *media_type, const Digest *digest, uint64_t size)
{
    char oci[DIGEST_OCI_SIZE];

    return json_pack("{sssssI}", "mediaType", media_type, "digest", digest_to_oci(digest, oci), "size",
                     (json_int_t)size);
}

/* Docker's names for the same things. */
static const char *oci_media_type(const char *type)
{
    if (!type || strcmp(type, "application/vnd.docker.image.rootfs.diff.tar.gzip") == 0)
        return LAYER_MEDIA_TYPE;
    if (strcmp(type, "application/vnd.docker.image.rootfs.diff.tar") == 0)
        return "application/vnd.oci.image.layer.v1.tar";
    if (strcmp(type, "application/vnd.docker.image.rootfs.diff.tar.zstd") == 0)
        return "application/vnd.oci.image.layer.v1.tar+zstd";
    return type;
}

static bool add_parent_layer(const json_t *from, const json_t *layer, json_t *layers, StoreImage *image,
                             GError **error)
{
    json_int_t size = json_integer_value(json_object_get(from, "size"));
    StoreLayerRef ref;
    Digest said;

    if (!read_layer(layer, &ref, error))
        return false;
    if (!digest_parse(json_string_value(json_object_get(from, "digest")), &said) || !digest_equal(&ref.blob, &said) || size < 0)
        return fail_layers(error);
    json_array_append_new(layers,
                          descriptor(oci_media_type(json_string_value(json_object_get(from, "mediaType"))),
                                     &ref.blob, (uint64_t)size));
    store_image_add_layer(image, &ref.blob, &ref.recipe);
    image->size += (uint64_t)size;
    return true;
}

/* Descriptors of the parent's layers that stay, as its own manifest (a blob of the store) writes them. */
static bool add_parent_layers(const LayersResult *result, json_t *layers, StoreImage *image, GError **error)
{
    const json_t *ours = json_object_get(result->parent, "layers"), *theirs = json_object_get(result->manifest, "layers");

    for (size_t i = 0; i < result->kept; i++)
        if (!add_parent_layer(json_array_get(theirs, i), json_array_get(ours, i), layers, image, error))
            return false;
    return true;
}

bool layers_finish(Store *store, LayersResult *result, StoreImage *image, GError **error)
{
    g_autofree LayerResult *made = g_new0(LayerResult, MAX(result->cuts->len, 1));
    g_autoptr(json_t) config = NULL, manifest = NULL, layers = json_array();
    size_t config_size, manifest_size;

    image->size = 0;
    if (!add_parent_layers(result, layers, image, error))
        return false;
    for (guint i = 0; i < result->cuts->len; i++) {
        if (!layer_writer_result(g_ptr_array_index(result->writers, i), &made[i], error))
            return false;
        json_array_append_new(layers, descriptor(uses_zstd(result) ? ZSTD_MEDIA_TYPE : LAYER_MEDIA_TYPE, &made[i].blob, made[i].size));
        store_image_add_layer(image, &made[i].blob, &made[i].recipe);
        image->size += made[i].size;
    }
    if (!make_config(result, made, &config, error) || !put_json(store, config, &image->id, &config_size, error))
        return false;
    manifest = json_pack("{sisssosO}", "schemaVersion", 2, "mediaType", MANIFEST_MEDIA_TYPE, "config",
                         descriptor(CONFIG_MEDIA_TYPE, &image->id, config_size), "layers", layers);
    return put_json(store, manifest, &image->manifest, &manifest_size, error);
}
