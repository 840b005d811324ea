/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oci source: a container image from a registry, a layout folder or an archive, or nothing at all ("scratch").
 *
 * The parent's layers are kept byte for byte; a bake adds layers on top. Its tree is rendered as a plain disk without
 * boot loader, so that steps run on it as on any other guest.
 */
#include "baker/source-common.h"
#include "baker/source-image.h"
#include "baker/transfer.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"

#include <fcntl.h>
#include <sys/stat.h>

#define INDEX_MAX (4 << 20)

static const char *const oci_arguments[] = {"from", "size", NULL};
static const char *const string_arguments[] = {"from", NULL};

typedef struct OciFrom {
    bool scratch;
    bool registry;   /* @path is docker://... */
    bool remembered; /* what its tag stood for when it was last asked is good enough */
    OciForm form;
    char *path, *tag; /* tag may be NULL */
} OciFrom;

static void oci_from_clear(OciFrom *from)
{
    g_free(from->path);
    g_free(from->tag);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(OciFrom, oci_from_clear)

static const char *from_of(const json_t *args)
{
    const char *from = NULL;

    (void)json_get_string(args, "from", NULL, &from, NULL); /* its type was checked */
    return from ? from : "";
}

/* "DIR:TAG": the last colon starts a tag unless a slash follows it or a file of the whole name is there. */
static void split_tag(const SourceContext *context, const char *text, OciFrom *from)
{
    const char *colon = strrchr(text, ':');
    g_autofree char *whole = context ? source_find_file(context, text) : g_strdup(text);
    g_autofree char *bare = NULL;

    if (!colon || colon == text || strchr(colon, '/') || access(whole, F_OK) == 0) {
        from->path = g_steal_pointer(&whole);
        return;
    }
    bare = g_strndup(text, (gsize)(colon - text));
    from->path = context ? source_find_file(context, bare) : g_steal_pointer(&bare);
    from->tag = g_strdup(colon + 1);
}

/* @context NULL: the words only, no file is looked for. */
static bool parse_from(const SourceContext *context, const char *text, OciFrom *ret, GError **error)
{
    *ret = (OciFrom){0};
    ret->scratch = strcmp(text, "scratch") == 0;
    if (ret->scratch)
        return true;
    if (g_str_has_prefix(text, REGISTRY_SCHEME)) {
        g_auto(RegistryRef) ref = {0};

        ret->registry = true;
        ret->path = g_strdup(text);
        return registry_ref_parse(text, &ref, error);
    }
    ret->form = g_str_has_prefix(text, "oci-archive:") ? OCI_ARCHIVE : OCI_DIR;
    if (ret->form == OCI_DIR && !g_str_has_prefix(text, "oci:"))
        return fail_code(error, KILN_ERROR_USAGE, "from is docker://..., oci:DIR, oci-archive:FILE, image:REF or scratch, not '%s'", text);
    text = strchr(text, ':') + 1;
    if (!*text)
        return fail_code(error, KILN_ERROR_USAGE, "from names no file");
    split_tag(context, text, ret);
    return true;
}

static bool oci_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(OciFrom) from = {0};
    uint64_t size;

    if (!source_check_strings(args, string_arguments, ret_argument, error) ||
        !source_size_argument(args, NULL, &size, ret_argument, error))
        return false;
    if (source_image_ref(args))
        return source_image_check(args, ret_argument, error);
    *ret_argument = "from";
    if (!*from_of(args))
        return fail_code(error, KILN_ERROR_USAGE, "an oci source needs from: docker://..., oci:DIR, oci-archive:FILE, image:REF or scratch");
    return parse_from(NULL, from_of(args), &from, error);
}

/* What stands for the image's state on disk: the index of a layout, the bytes of an archive. */
static bool outside_digest(const SourceContext *context, const OciFrom *from, Digest *ret, GError **error)
{
    g_autofree char *index = NULL;
    g_autoptr(GBytes) bytes = NULL;

    if (from->form == OCI_ARCHIVE)
        return source_file_digest(context, from->path, ret, error);
    index = g_build_filename(from->path, "index.json", NULL);
    if (!file_load(AT_FDCWD, index, INDEX_MAX, &bytes, error))
        return fail_prefix(error, "'%s' is no OCI layout", from->path);
    digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret);
    return true;
}

/* What a tag stands for is asked each time, unless @from->remembered or nothing is to be asked; what a digest stands for is remembered. */
static bool find_in_registry(const SourceContext *context, const OciFrom *from, Digest *ret, GError **error)
{
    g_autofree char *key = g_strconcat("oci-registry:", from->path, NULL), *known = NULL;
    bool pinned = strchr(from->path, '@') != NULL, last = source_keeps_still(context) || (from->remembered && context->pull != PULL_ALWAYS);
    char hex[DIGEST_HEX_SIZE];

    if (!store_memo_get(context->store, key, &known, error))
        return false;
    if (known && (last || pinned) && digest_parse(known, ret)) {
        if (!pinned)
            log_info("%s'%s' is what it was when it was last asked for", context->offline ? "offline: " : "", from->path);
        return true;
    }
    if (context->offline || (source_keeps_still(context) && !pinned))
        return fail(error, "'%s' is not in the store yet, and %s forbids to fetch it", from->path, source_keeps_still(context));
    return transfer_resolve(context->store, from->path, ret, error) && store_memo_put(context->store, key, digest_to_hex(ret, hex), NULL, NULL, error);
}

/* The manifest's digest, without reading layers again when this very file was read before. */
static bool find_manifest(const SourceContext *context, const OciFrom *from, Digest *ret, GError **error)
{
    g_autoptr(OciParent) parent = NULL;
    g_autofree char *key = NULL, *known = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest outside;

    if (from->registry)
        return find_in_registry(context, from, ret, error);
    if (!outside_digest(context, from, &outside, error))
        return false;
    key = g_strdup_printf("oci:%s:%s", digest_to_hex(&outside, hex), from->tag ? from->tag : "");
    if (!store_memo_get(context->store, key, &known, error))
        return false;
    if (known && digest_parse(known, ret))
        return true;
    if (!oci_import(context->store, from->form, from->path, from->tag, &parent, error))
        return false;
    *ret = parent->manifest;
    return store_memo_put(context->store, key, digest_to_hex(ret, hex), NULL, NULL, error);
}

static bool oci_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    const char *argument;
    uint64_t size;

    if (source_image_ref(args))
        return source_image_identify(context, args, ret_identity, error);
    return source_size_argument(args, NULL, &size, &argument, error) && source_oci_identify(context, from_of(args), size, false, ret_identity, error);
}

bool source_oci_identify(const SourceContext *context, const char *text, uint64_t size, bool remembered, json_t **ret_identity, GError **error)
{
    g_auto(OciFrom) from = {0};
    char oci[DIGEST_OCI_SIZE];
    Digest manifest;

    if (!parse_from(context, text, &from, error))
        return false;
    from.remembered = remembered;
    if (from.scratch) {
        *ret_identity = json_pack("{ss ss sI}", "type", "oci", "from", "scratch", "size", (json_int_t)size);
        return true;
    }
    if (!find_manifest(context, &from, &manifest, error))
        return false;
    *ret_identity = json_pack("{ss ss sI}", "type", "oci", "manifest", digest_to_oci(&manifest, oci), "size",
                              (json_int_t)size);
    return true;
}

/* An empty root; its folder has the time of nothing. */
static bool scratch_tree(const SourceContext *context, int64_t epoch, TreeStored *ret, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(Tree) tree = NULL;
    TreeEntry *root = tree_entry_new("", 'd');

    root->mode = 0755;
    root->mtime = epoch;
    if (!store_writer_open(context->store, BLOCK_PUBLIC, &writer, error) || !tree_builder_new(writer, &builder, error)) {
        tree_entry_free(root);
        return false;
    }
    return tree_builder_add(builder, root, error) && tree_builder_finish(builder, &tree, &space, error) &&
           store_writer_commit(writer, error) && tree_stored_result(context->store, tree, space, ret, error);
}

/* Image archives need not list the root folder. */
static void add_root_folder(Tree *tree, int64_t epoch)
{
    TreeEntry *root;

    if (tree_find(tree, ""))
        return;
    root = tree_entry_new("", 'd');
    root->mode = 0755;
    root->mtime = epoch;
    tree_put(tree, root);
}

static bool parent_tree(const SourceContext *context, const OciParent *parent, int64_t epoch, TreeStored *ret,
                        GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    MapResult result;

    if (!store_writer_open(context->store, BLOCK_PUBLIC, &writer, error) ||
        !oci_parent_tree(context->store, writer, parent, &tree, &space, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(space, &result);
    add_root_folder(tree, epoch);
    return store_map_open(context->store, &result.digest, &files, error) &&
           source_store_tree(context->store, tree, files, ret, NULL, error);
}

static json_t *parent_info(const OciParent *parent)
{
    json_t *layers = json_array();
    char oci[DIGEST_OCI_SIZE];

    for (guint i = 0; i < parent->layers->len; i++) {
        const StoreLayerRef *ref = parent->layers->pdata[i];
        json_t *layer = json_pack("{ss}", "blob", digest_to_oci(&ref->blob, oci));

        if (!digest_is_none(&ref->recipe))
            json_object_set_new(layer, "recipe", json_string(digest_to_oci(&ref->recipe, oci)));
        json_array_append_new(layers, layer);
    }
    return json_pack("{s{sO so ss}}", "oci_parent", "config", parent->config, "layers", layers, "manifest",
                     digest_to_oci(&parent->manifest, oci));
}

static int64_t parent_epoch(const SourceContext *context, const OciParent *parent)
{
    int64_t created = source_parse_time(json_string_value(json_object_get(parent->config, "created")));

    return context->epoch >= 0 ? context->epoch : MAX(created, 0);
}

static bool prepare_parent(const SourceContext *context, const OciFrom *from, const json_t *identity, SourceState *state,
                           GError **error)
{
    g_autoptr(OciParent) parent = NULL;
    Digest wanted;

    if (!digest_parse(json_string_value(json_object_get(identity, "manifest")), &wanted))
        return fail(error, "'%s': the plan names no manifest", from->path);
    if (from->registry && context->offline)
        return fail(error, "'%s' is not in the store yet, and --offline forbids to fetch it", from->path);
    if (!(from->registry ? transfer_fetch_parent(context->store, from->path, &wanted, &parent, error)
                         : oci_import(context->store, from->form, from->path, from->tag, &parent, error)))
        return false;
    if (!digest_equal(&wanted, &parent->manifest))
        return fail(error, "'%s' changed while it was being read", from->path);
    state->epoch = parent_epoch(context, parent);
    if (!parent_tree(context, parent, state->epoch, &state->tree, error))
        return fail_prefix(error, "'%s'", from->path);
    state->info = parent_info(parent);
    return true;
}

static bool oci_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret,
                        GError **error)
{
    return source_image_ref(args) ? source_image_prepare(context, identity, ret, error)
                                  : source_oci_prepare(context, from_of(args), identity, ret, error);
}

bool source_oci_prepare(const SourceContext *context, const char *text, const json_t *identity, SourceState *ret, GError **error)
{
    g_auto(OciFrom) from = {0};
    SourceState state = {.epoch = MAX(context->epoch, 0)};
    bool ok;

    ok = parse_from(context, text, &from, error);
    if (ok && from.scratch) {
        ok = scratch_tree(context, state.epoch, &state.tree, error);
        state.info = json_object();
    } else if (ok) {
        ok = prepare_parent(context, &from, identity, &state, error);
    }
    ok = ok && source_render(context,
                             &(RenderSpec){.name = context->name, .other_order = context->other_order, .epoch = state.epoch, .bootable = false,
                                           .size = (uint64_t)json_integer_value(json_object_get(identity, "size"))},
                             &state, error);
    if (ok)
        *ret = state;
    else
        source_state_clear(&state);
    return ok;
}

const SourceOps source_oci_ops = {
    .type = "oci",
    .arguments = oci_arguments,
    .check = oci_check,
    .identify = oci_identify,
    .prepare = oci_prepare,
    .default_output = "oci",
};
