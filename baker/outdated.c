/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The base is what the set's own provenance says it was baked from, asked for again by the same words.
 */
#include "baker/outdated.h"

#include "baker/patch.h"
#include "baker/resolve.h"
#include "base/error.h"

#include <string.h>

/* A night's patch starts from an older set of its own name: that one is meant to be left behind. */
static bool is_own_name(const char *ref, const char *name)
{
    size_t length = strcspn(ref, "/:@");

    return strlen(name) == length && strncmp(ref, name, length) == 0;
}

static bool base_moved(Store *store, const json_t *source, const char *own_name, char **ret_why, GError **error)
{
    const char *ref = json_string_value(json_object_get(source, "ref")), *kind;
    g_autoptr(GPtrArray) now = NULL;
    g_autoptr(GError) problem = NULL;
    json_t *id;

    if (!ref)
        return true;
    if (!store_resolve_set(store, ref, &now, &problem)) {
        *ret_why = g_strdup_printf("its base '%s' is gone", ref);
        return true;
    }
    json_object_foreach (json_object_get((json_t *)source, "images"), kind, id) {
        g_autofree char *revoked = NULL;
        bool there = false;
        Digest digest;

        if (!json_string_value(id) || !digest_parse(json_string_value(id), &digest) || !store_revoked(store, &digest, &revoked, error))
            return false;
        if (revoked) {
            *ret_why = g_strdup_printf("its base '%s' was revoked: %s", ref, revoked);
            return true;
        }
        for (guint i = 0; i < now->len; i++)
            there |= digest_equal(&((StoreImage *)now->pdata[i])->id, &digest);
        if (!there && !is_own_name(ref, own_name)) {
            *ret_why = g_strdup_printf("its base '%s' moved", ref);
            return true;
        }
    }
    return true;
}

static bool updates_wait(Store *store, const StoreImage *image, const BakeOptions *options, char **ret_why, GError **error)
{
    g_autoptr(json_t) transaction = NULL;
    g_autofree char *summary = NULL;
    char id[DIGEST_OCI_SIZE];

    if (!patch_pending(store, image->name, digest_to_oci(&image->id, id), image->kind, options, &transaction, error))
        return false;
    if (!transaction || resolve_is_empty(transaction))
        return true;
    summary = resolve_summary(transaction);
    *ret_why = g_strdup_printf("updates wait: %s", summary);
    return true;
}

bool outdated_why(Store *store, const StoreImage *image, const BakeOptions *options, char **ret_why, GError **error)
{
    g_autofree char *revoked = NULL;
    g_autoptr(json_t) source = NULL;

    *ret_why = NULL;
    if (!store_revoked(store, &image->id, &revoked, error))
        return false;
    if (revoked) {
        *ret_why = g_strdup_printf("revoked: %s", revoked);
        return true;
    }
    if (image->parent && !json_parse(image->parent, strlen(image->parent), 1 << 20, "a parent's identity", &source, error))
        return false;
    if (g_strcmp0(json_string_value(json_object_get(source, "type")), "image") == 0 && !base_moved(store, source, image->name, ret_why, error))
        return false;
    return *ret_why || updates_wait(store, image, options, ret_why, error);
}

bool outdated_why_build(Store *store, const TemplateBuild *build, const BakeOptions *options, char **ret_why, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(GError) problem = NULL;

    if (!store_resolve_set(store, build->name, &images, &problem)) {
        *ret_why = g_strdup("never baked");
        return problem->code == KILN_ERROR_NOT_FOUND || (g_propagate_error(error, g_steal_pointer(&problem)), false);
    }
    return outdated_why(store, images->pdata[0], options, ret_why, error);
}
