/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushing and pulling.
 *
 * A push of a container image is a copy from the store to the registry, a pull one into a folder from which the image is taken in; what the store has
 * is not fetched. Disks have a form of their own (store/disk-artifact.h).
 */
#include "baker/transfer.h"

#include "baker/import.h"
#include "baker/origins.h"
#include "baker/sbom.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <fcntl.h>
#include <string.h>

#define DOCUMENT_MAX (16u << 20)
#define REFERRERS_MAX 64

/* --- referrers, out --- */

/* One document as an artifact that points at @subject. */
static bool push_referrer(Registry *registry, const Digest *subject, uint64_t subject_size, const char *type, const char *text, TransferReport *report, GError **error)
{
    char subject_text[DIGEST_OCI_SIZE], config_text[DIGEST_OCI_SIZE], layer_text[DIGEST_OCI_SIZE], own[DIGEST_OCI_SIZE];
    g_autoptr(json_t) manifest = NULL, descriptor = NULL;
    g_autofree char *canonical = NULL;
    g_autoptr(GBytes) bytes = NULL;
    Digest config, layer, digest;
    bool listed = false;

    if (!registry_put_blob_bytes(registry, "{}", 2, &config, error) || !registry_put_blob_bytes(registry, text, strlen(text), &layer, error))
        return false;
    manifest = json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i}, s:[{s:s, s:s, s:I}], s:{s:s, s:s, s:I}}", "schemaVersion", 2, "mediaType", OCI_MANIFEST_TYPE,
                         "artifactType", type, "config", "mediaType", OCI_EMPTY_TYPE, "digest", digest_to_oci(&config, config_text), "size", 2, "layers",
                         "mediaType", type, "digest", digest_to_oci(&layer, layer_text), "size", (json_int_t)strlen(text), "subject", "mediaType",
                         OCI_MANIFEST_TYPE, "digest", digest_to_oci(subject, subject_text), "size", (json_int_t)subject_size);
    canonical = json_canonical(manifest);
    bytes = g_bytes_new(canonical, strlen(canonical));
    digest_of(canonical, strlen(canonical), &digest);
    if (!registry_put_manifest(registry, digest_to_oci(&digest, own), bytes, OCI_MANIFEST_TYPE, &listed, error))
        return false;
    report->referrers++;
    descriptor = json_pack("{s:s, s:s, s:s, s:I}", "mediaType", OCI_MANIFEST_TYPE, "artifactType", type, "digest", own, "size", (json_int_t)strlen(canonical));
    return listed || registry_add_referrer(registry, subject, descriptor, error);
}

static bool push_signatures(Store *store, const StoreImage *image, Registry *registry, TransferReport *report, uint64_t size, GError **error)
{
    g_autoptr(GPtrArray) signatures = NULL;

    if (!store_signatures(store, &image->id, &signatures, error))
        return false;
    for (guint i = 0; i < signatures->len; i++) {
        g_autoptr(json_t) document = store_signature_to_json(signatures->pdata[i]);
        g_autofree char *text = json_canonical(document);

        if (!push_referrer(registry, &report->manifest, size, TRANSFER_SIGNATURE_TYPE, text, report, error))
            return false;
    }
    return true;
}

static bool push_provenance(Store *store, const StoreImage *image, Registry *registry, TransferReport *report, uint64_t size, GError **error)
{
    g_autoptr(json_t) provenance = NULL;
    g_autofree char *text = NULL;

    if (!store_image_provenance(store, image, &provenance, NULL) || !provenance || json_object_get(provenance, "imported") || json_object_get(provenance, "pulled"))
        return true; /* there is none, or it says no more than where the image was found */
    text = json_canonical(provenance);
    return push_referrer(registry, &report->manifest, size, TRANSFER_PROVENANCE_TYPE, text, report, error);
}

static bool push_sbom(Store *store, const StoreImage *image, Registry *registry, TransferReport *report, uint64_t size, GError **error)
{
    g_autoptr(PackageList) list = NULL;
    g_autoptr(json_t) document = NULL;
    g_autofree char *text = NULL;

    if (!origins_packages(store, image, &list, NULL))
        return true; /* nobody knows the packages of every image */
    document = sbom_spdx(image, list);
    text = json_canonical(document);
    return push_referrer(registry, &report->manifest, size, TRANSFER_SPDX_TYPE, text, report, error);
}

static bool push_referrers(Store *store, const StoreImage *image, Registry *registry, TransferReport *report, uint64_t size, GError **error)
{
    return push_signatures(store, image, registry, report, size, error) && push_provenance(store, image, registry, report, size, error) &&
           push_sbom(store, image, registry, report, size, error);
}

/* --- push --- */

static void count(const Registry *registry, TransferReport *report)
{
    uint64_t received, sent;

    registry_counts(registry, &report->requests, &received, &sent);
    report->bytes = MAX(received, sent);
}

static bool copy_out(Store *store, const StoreImage *image, OciEnd *to, TransferReport *ret, GError **error)
{
    g_autoptr(OciEnd) from = NULL;
    OciCopyReport copied;

    if (!oci_end_image(store, image, &from, error) || !oci_copy(store, from, to, &(OciCopy){.whole_index = true}, &copied, error))
        return false;
    ret->manifest = copied.manifest;
    ret->blobs = copied.blobs;
    ret->present = copied.present;
    return true;
}

static bool push_container(Store *store, const StoreImage *image, const RegistryRef *ref, PushForm form, const OciEndOptions *options, TransferReport *ret, GError **error)
{
    g_autoptr(OciEnd) to = NULL;
    Registry *registry;
    uint64_t size;

    if (!oci_end_registry(store, ref, options, &to, error) ||
        !(form == PUSH_DOCKER ? oci_push_docker(store, image, to, &ret->manifest, error) : copy_out(store, image, to, ret, error)))
        return false;
    registry = oci_end_registry_session(to);
    if (!store_blob_size(store, &ret->manifest, &size, error) || !push_referrers(store, image, registry, ret, size, error))
        return false;
    count(registry, ret);
    return true;
}

static bool push_disk(Store *store, const StoreImage *image, const RegistryRef *ref, const OciEndOptions *options, TransferReport *ret, GError **error)
{
    g_autofree char *version = registry_ref_version(ref);
    g_autoptr(Registry) registry = NULL;
    DiskTransfer moved;

    if (!registry_open(ref, &(RegistryOptions){.push = true, .plain_http = options->plain_http}, &registry, error) ||
        !disk_artifact_push(store, image, registry, version, &moved, error))
        return false;
    ret->manifest = moved.manifest;
    ret->blobs = moved.segments;
    ret->present = moved.present;
    if (!push_referrers(store, image, registry, ret, moved.manifest_size, error))
        return false;
    count(registry, ret);
    return true;
}

static bool push_plain(Store *store, const StoreImage *image, const RegistryRef *ref, bool qcow2, const OciEndOptions *options, TransferReport *ret, GError **error)
{
    g_autofree char *version = registry_ref_version(ref);
    g_autoptr(Registry) registry = NULL;
    uint64_t size;

    if (!registry_open(ref, &(RegistryOptions){.push = true, .plain_http = options->plain_http}, &registry, error) ||
        !disk_plain_push(store, image, registry, version, qcow2, &ret->manifest, error) ||
        !store_blob_size(store, &ret->manifest, &size, error) || !push_referrers(store, image, registry, ret, size, error))
        return false;
    count(registry, ret);
    return true;
}

bool transfer_push(Store *store, const StoreImage *image, const char *to, PushForm form, bool plain_http, TransferReport *ret, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    g_autofree char *place = NULL;
    OciEndOptions options = {.write = true, .plain_http = plain_http};
    bool as_changes = form == PUSH_KILN && strcmp(image->kind, "disk") == 0, ok;

    *ret = (TransferReport){0};
    if (!g_str_has_prefix(to, REGISTRY_SCHEME))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no place in a registry: that is docker://HOST/REPOSITORY:TAG", to);
    if (!registry_ref_parse(to, &ref, error))
        return false;
    if (!digest_is_none(&ref.digest))
        return fail_code(error, KILN_ERROR_USAGE, "a push goes to a tag; what digest it gets is said when it is done");
    if (form == PUSH_RAW_ZST || form == PUSH_QCOW2)
        ok = push_plain(store, image, &ref, form == PUSH_QCOW2, &options, ret, error);
    else
        ok = as_changes ? push_disk(store, image, &ref, &options, ret, error) : push_container(store, image, &ref, form, &options, ret, error);
    if (!ok)
        return false;
    place = registry_ref_place(&ref);
    return as_changes || store_image_add_manifest(store, image, place, &ret->manifest, NULL, error);
}

/* --- referrers, in --- */

/* The one layer of a small artifact. */
static bool fetch_document(Store *store, Registry *registry, const char *digest, GBytes **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) manifest = NULL;
    g_autofree char *type = NULL;
    Digest ignored;

    return registry_get_manifest(registry, digest, &bytes, &type, &ignored, error) &&
           json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "a referrer", &manifest, error) &&
           oci_fetch_bytes(store, registry, json_array_get(json_object_get(manifest, "layers"), 0), DOCUMENT_MAX, ret, error);
}

typedef struct Belongings {
    GPtrArray *signatures; /* of json_t* */
    GHashTable *inputs;    /* name -> Digest* */
} Belongings;

static void belongings_clear(Belongings *b)
{
    g_ptr_array_unref(b->signatures);
    g_hash_table_unref(b->inputs);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Belongings, belongings_clear)

static void belongings_init(Belongings *b)
{
    b->signatures = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    b->inputs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

static bool keep_document(Store *store, Belongings *b, const char *name, GBytes *bytes, GError **error)
{
    Digest digest;

    if (!store_blob_put(store, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest, error))
        return false;
    g_hash_table_insert(b->inputs, g_strdup(name), g_memdup2(&digest, sizeof digest));
    return true;
}

static bool take_referrer(Store *store, Registry *registry, const json_t *item, Belongings *b, GError **error)
{
    const char *type = json_text(item, "artifactType");
    bool signature = strcmp(type, TRANSFER_SIGNATURE_TYPE) == 0, provenance = strcmp(type, TRANSFER_PROVENANCE_TYPE) == 0,
         sbom = strcmp(type, TRANSFER_SPDX_TYPE) == 0;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) document = NULL;

    if (!signature && !provenance && !sbom)
        return true;
    if (!fetch_document(store, registry, json_text(item, "digest"), &bytes, error))
        return false;
    if (!signature)
        return keep_document(store, b, provenance ? "pulled/provenance.json" : "pulled/sbom.spdx.json", bytes, error);
    if (!json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), DOCUMENT_MAX, "a signature", &document, error))
        return false;
    g_ptr_array_add(b->signatures, g_steal_pointer(&document));
    return true;
}

/* Anybody may attach anything to an image in a registry: what is malformed is left there, with a warning. */
static bool take_referrers(Store *store, Registry *registry, const Digest *manifest, Belongings *b, TransferReport *report, GError **error)
{
    g_autoptr(json_t) list = NULL;
    json_t *item;
    size_t i;

    if (!registry_referrers(registry, manifest, &list, error))
        return false;
    json_array_foreach(list, i, item)
    {
        g_autoptr(GError) why = NULL;

        if (i >= REFERRERS_MAX)
            break;
        if (!take_referrer(store, registry, item, b, &why)) {
            if (why->code == KILN_ERROR_INTERRUPTED) {
                g_propagate_error(error, g_steal_pointer(&why));
                return false;
            }
            log_warning("something that belongs to the image could not be fetched: %s", why->message);
            continue;
        }
        report->referrers++;
    }
    return true;
}

static void keep_signatures(Store *store, const StoreImage *image, const Belongings *b)
{
    for (guint i = 0; i < b->signatures->len; i++) {
        g_autoptr(GError) why = NULL;

        if (!store_signature_take(store, &image->id, b->signatures->pdata[i], NULL, &why))
            log_warning("%s", why->message);
    }
}

/* --- pull --- */

/* To a folder in tmp; *ret_folder is the caller's to remove. */
static bool fetch_container(Store *store, OciEnd *from, const char *architecture, char **ret_folder, OciCopyReport *ret, GError **error)
{
    g_autoptr(OciEnd) to = NULL;

    return store_make_tmpdir(store, ret_folder, error) && oci_end_intake(store, *ret_folder, &to, error) &&
           oci_copy(store, from, to, &(OciCopy){.architecture = architecture}, ret, error);
}

static bool pull_container(Store *store, OciEnd *from, const char *what, const char *name, const char *architecture, StoreImage **ret, TransferReport *report, GError **error)
{
    g_autofree char *folder = NULL;
    OciCopyReport copied;
    bool ok = fetch_container(store, from, architecture, &folder, &copied, error) && import_pulled(store, folder, what, name, ret, error);

    if (folder)
        (void)file_remove_tree(AT_FDCWD, folder, NULL);
    if (!ok)
        return false;
    report->manifest = copied.manifest;
    report->blobs = copied.blobs;
    report->present = copied.present;
    return true;
}

static bool pull_disk(Store *store, Registry *registry, GBytes *manifest, const char *name, StoreImage **ret, GArray **ret_kept, TransferReport *report, GError **error)
{
    DiskTransfer moved;

    if (!disk_artifact_pull(store, registry, manifest, name, ret, ret_kept, &moved, error))
        return false;
    report->manifest = moved.manifest;
    report->blobs = moved.segments;
    report->present = moved.present;
    return true;
}

typedef struct PlainPull {
    Store *store;
    const char *from, *name;
    StoreImage *image;
    Tree *tree;
} PlainPull;

static bool take_plain(const char *path, void *arg, GError **error)
{
    PlainPull *p = arg;

    return import_pulled_disk(p->store, path, p->from, p->name, &p->image, &p->tree, error);
}

/* A whole disk that is a layer: its manifest is kept like that of any other image, and says where it came from. */
static bool pull_plain(Store *store, Registry *registry, GBytes *manifest, const json_t *layer, const char *from, const char *name, StoreImage **ret, Tree **ret_tree,
                       TransferReport *report, GError **error)
{
    PlainPull p = {.store = store, .from = from, .name = name};

    if (!disk_plain_fetch(store, registry, layer, take_plain, &p, error) ||
        !store_blob_put(store, g_bytes_get_data(manifest, NULL), g_bytes_get_size(manifest), &report->manifest, error)) {
        g_clear_pointer(&p.image, store_image_free);
        g_clear_pointer(&p.tree, tree_free);
        return false;
    }
    *ret = p.image;
    *ret_tree = p.tree;
    report->blobs = 1;
    return true;
}

/* Of an index the manifest for the machine, in place of it; containers find theirs by themselves. */
static bool look_inside(Registry *registry, const char *architecture, GBytes **manifest, json_t **document, const char *type, GError **error)
{
    const json_t *chosen = oci_type_is_index(type) ? oci_choose_platform(*document, architecture ? architecture : oci_host_architecture()) : NULL;
    g_autoptr(GBytes) inner = NULL;
    g_autofree char *inner_type = NULL;
    char oci[DIGEST_OCI_SIZE];
    json_t *parsed = NULL;
    Digest digest;
    uint64_t size;

    if (!chosen)
        return true;
    if (!oci_read_descriptor(chosen, &digest, &size, error) || !registry_get_manifest(registry, digest_to_oci(&digest, oci), &inner, &inner_type, &digest, error) ||
        !json_parse(g_bytes_get_data(inner, NULL), g_bytes_get_size(inner), REGISTRY_MANIFEST_MAX, "the manifest", &parsed, error))
        return false;
    json_decref(*document);
    *document = parsed;
    g_bytes_unref(*manifest);
    *manifest = g_steal_pointer(&inner);
    return true;
}

/* The last word of the repository, as a name of ours. */
static char *name_of(const RegistryRef *ref)
{
    const char *slash = strrchr(ref->repository, '/');

    return g_strdup(slash ? slash + 1 : ref->repository);
}

static bool publish(Store *store, StoreImage *image, Tree *tree, const char *from, Belongings *b, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(json_t) provenance = json_pack("{s:s}", "pulled", from);
    StoreSet set = {.name = image->name, .images = images, .provenance = provenance, .inputs = b->inputs};

    g_ptr_array_add(images, image);
    if (!origins_keep_packages(store, images, tree, b->inputs, error) || !store_publish(store, &set, error))
        return false;
    *ret = g_steal_pointer(&images);
    return true;
}

bool transfer_pull(Store *store, const char *from, const char *name, const PullOptions *options, GPtrArray **ret_images, TransferReport *ret, GError **error)
{
    OciEndOptions how = {.plain_http = options->plain_http};
    g_auto(RegistryRef) ref = {0};
    g_autoptr(OciEnd) end = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) manifest = NULL;
    g_autoptr(GArray) kept = NULL;
    g_autoptr(Tree) tree = NULL;
    const json_t *layer = NULL;
    g_autofree char *type = NULL, *own_name = NULL, *place = NULL;
    g_auto(Belongings) belongings;
    StoreImage *image = NULL;
    Registry *registry;
    Digest digest;

    *ret = (TransferReport){0};
    belongings_init(&belongings);
    if (!g_str_has_prefix(from, REGISTRY_SCHEME))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no image in a registry: that is docker://HOST/REPOSITORY:TAG", from);
    if (!registry_ref_parse(from, &ref, error))
        return false;
    own_name = name ? g_strdup(name) : name_of(&ref);
    if (!store_name_check(own_name, error) || !oci_end_registry(store, &ref, &how, &end, error))
        return false;
    registry = oci_end_registry_session(end);
    if (!end->ops->get_manifest(end->data, NULL, &bytes, &type, &digest, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "the manifest", &manifest, error))
        return false;
    if (!look_inside(registry, options->architecture, &bytes, &manifest, type, error) || (!disk_artifact_is(manifest) && !disk_plain_find(manifest, &layer, error)))
        return fail_prefix(error, "pull: %s", from);
    if (layer ? !pull_plain(store, registry, bytes, layer, from, own_name, &image, &tree, ret, error)
        : disk_artifact_is(manifest) ? !pull_disk(store, registry, bytes, own_name, &image, &kept, ret, error)
                                     : !pull_container(store, end, from, own_name, options->architecture, &image, ret, error))
        return fail_prefix(error, "pull");
    place = registry_ref_place(&ref);
    if (!take_referrers(store, registry, &ret->manifest, &belongings, ret, error)) {
        store_image_free(image);
        return false;
    }
    if (!publish(store, image, tree, from, &belongings, ret_images, error) ||
        !store_image_add_manifest(store, image, place, &ret->manifest, kept, error))
        return false;
    count(registry, ret);
    keep_signatures(store, image, &belongings);
    return true;
}

/* --- parents of bakes --- */

bool transfer_resolve(Store *store, const char *from, Digest *ret, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    g_autoptr(OciEnd) end = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) document = NULL;
    g_autofree char *type = NULL;
    const json_t *chosen;
    uint64_t size;

    if (!registry_ref_parse(from, &ref, error) || !oci_end_registry(store, &ref, &(OciEndOptions){0}, &end, error) ||
        !end->ops->get_manifest(end->data, NULL, &bytes, &type, ret, error))
        return false;
    if (!oci_type_is_index(type))
        return true;
    if (!json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "the index", &document, error))
        return false;
    chosen = oci_choose_platform(document, oci_host_architecture());
    if (!chosen)
        return fail(error, "'%s' has no image for linux/%s", from, oci_host_architecture());
    return oci_read_descriptor(chosen, ret, &size, error);
}

bool transfer_fetch_parent(Store *store, const char *from, const Digest *manifest, OciParent **ret, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    g_autoptr(OciEnd) end = NULL;
    g_autofree char *folder = NULL;
    OciCopyReport copied;
    bool ok;

    if (!registry_ref_parse(from, &ref, error))
        return false;
    ref.digest = *manifest;
    ok = oci_end_registry(store, &ref, &(OciEndOptions){0}, &end, error) && fetch_container(store, end, NULL, &folder, &copied, error) &&
         oci_import_over(store, folder, from, ret, error);
    if (folder)
        (void)file_remove_tree(AT_FDCWD, folder, NULL);
    return ok;
}

/* --- disks to bake from --- */

/* @ret_manifest holds *ret_layer. */
static bool find_disk(const char *from, Registry **ret_registry, json_t **ret_manifest, const json_t **ret_layer, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    g_autoptr(Registry) registry = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *type = NULL, *version = NULL;
    Digest digest;

    if (!registry_ref_parse(from, &ref, error) || !registry_open(&ref, &(RegistryOptions){0}, &registry, error))
        return false;
    version = registry_ref_version(&ref);
    if (!registry_get_manifest(registry, version, &bytes, &type, &digest, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), REGISTRY_MANIFEST_MAX, "the manifest", ret_manifest, error) ||
        !look_inside(registry, NULL, &bytes, ret_manifest, type, error))
        return false;
    if (disk_artifact_is(*ret_manifest))
        return fail(error, "'%s' is a disk as kiln pushes it: kiln pull it, and start from image:NAME", from);
    if (!disk_plain_find(*ret_manifest, ret_layer, error))
        return fail_prefix(error, "'%s'", from);
    if (!*ret_layer)
        return fail(error, "'%s' is a container image, which an oci source starts from", from);
    *ret_registry = g_steal_pointer(&registry);
    return true;
}

bool transfer_resolve_disk(const char *from, Digest *ret, GError **error)
{
    g_autoptr(Registry) registry = NULL;
    g_autoptr(json_t) manifest = NULL;
    const json_t *layer;
    uint64_t size;

    return find_disk(from, &registry, &manifest, &layer, error) && oci_read_descriptor(layer, ret, &size, error);
}

bool transfer_fetch_disk(Store *store, const char *from, const Digest *wanted, DiskPlainFn *fn, void *arg, GError **error)
{
    g_autoptr(Registry) registry = NULL;
    g_autoptr(json_t) manifest = NULL;
    const json_t *layer;
    uint64_t size;
    Digest digest;

    if (!find_disk(from, &registry, &manifest, &layer, error) || !oci_read_descriptor(layer, &digest, &size, error))
        return false;
    if (!digest_equal(&digest, wanted))
        return fail(error, "'%s' is another disk than it was: its tag has moved", from);
    return disk_plain_fetch(store, registry, layer, fn, arg, error);
}
