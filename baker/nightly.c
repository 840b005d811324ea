/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One image of a nightly file, from its channel to its channel.
 *
 * Nothing here is remembered between nights but what the store remembers anyway: a night that was killed is simply run again.
 */
#include "baker/nightly.h"

#include "baker/patch.h"
#include "base/error.h"
#include "base/log.h"

#include <string.h>

static const char *const known_arguments[] = {"from", "to", "keep", "upgrade", "test", "hold", "exclude", "conffiles",
                                              "autoremove", "purge", NULL};
static const char *const packages_arguments[] = {"upgrade", "hold", "exclude", "conffiles", "autoremove", "purge", NULL};

static void image_free(gpointer data)
{
    NightlyImage *image = data;

    json_decref(image->packages);
    g_free(image);
}

void nightly_file_free(NightlyFile *file)
{
    if (!file)
        return;
    g_ptr_array_unref(file->images);
    template_free(file->template);
    g_free(file->dir);
    g_free(file);
}

static bool check_channel(const TemplateBlock *block, const char *argument, const char **ret, GError **error)
{
    g_autoptr(GError) problem = NULL;

    if (json_get_string(block->args, argument, NULL, ret, &problem) && (!*ret || store_channel_check(*ret, &problem)))
        return true;
    return template_complain(block, argument, error, "%s", problem->message);
}

static bool read_image(const TemplateBlock *block, NightlyImage *image, GError **error)
{
    g_autoptr(GError) problem = NULL;
    const char *bad = NULL;

    image->block = block;
    image->name = block->name;
    image->packages = json_object();
    if (!json_only_keys(block->args, known_arguments, &bad))
        return template_complain(block, bad, error, "image has no argument '%s'; there are from, upgrade, to, keep, test, hold, exclude, "
                                                    "conffiles, autoremove and purge", bad);
    if (!store_name_check(block->name, &problem))
        return template_complain(block, NULL, error, "%s", problem->message);
    if (!check_channel(block, "from", &image->from, error) || !check_channel(block, "to", &image->to, error))
        return false;
    if (!json_get_int(block->args, "keep", 0, &image->keep, &problem) || image->keep < 0)
        return template_complain(block, "keep", error, "keep is the number of sets that stay, 1 or more");
    for (const char *const *name = packages_arguments; *name; name++)
        if (json_object_get(block->args, *name))
            json_object_set(image->packages, *name, json_object_get(block->args, *name));
    if (!json_object_get(image->packages, "upgrade"))
        json_object_set_new(image->packages, "upgrade", json_string("all"));
    image->tests = json_object_get(block->args, "test");
    return true;
}

static char *image_ref(const NightlyImage *image)
{
    return image->from ? g_strconcat(image->name, ":", image->from, NULL) : g_strdup(image->name);
}

static bool make_template(const NightlyFile *file, const NightlyImage *image, const char *kind, Template **ret, GError **error)
{
    g_autofree char *ref = image_ref(image);
    PatchSpec spec = {.name = image->name, .ref = ref, .kind = kind, .packages = image->packages, .tests = image->tests};

    return patch_template(&spec, file->dir, ret, error);
}

/* The arguments that go on to steps are checked by the steps' owners, before the first image is worked on. */
static bool check_image(const NightlyFile *file, const NightlyImage *image, GError **error)
{
    g_autoptr(Template) template = NULL;
    g_autoptr(GError) problem = NULL;

    if (make_template(file, image, "disk", &template, &problem) && bake_check(template_builds(template)->pdata[0], &problem))
        return true;
    return template_complain(image->block, NULL, error, "%s", problem->message);
}

static bool read_images(NightlyFile *file, GError **error)
{
    GPtrArray *blocks = template_list_blocks(file->template);
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < blocks->len; i++) {
        NightlyImage *image = g_new0(NightlyImage, 1);

        g_ptr_array_add(file->images, image);
        if (!read_image(blocks->pdata[i], image, error) || !check_image(file, image, error))
            return false;
        if (!g_hash_table_add(names, (gpointer)image->name))
            return template_complain(image->block, NULL, error, "image \"%s\" is listed twice", image->name);
    }
    return true;
}

bool nightly_load(const char *path, const TemplateOptions *options, NightlyFile **ret, GError **error)
{
    g_autoptr(NightlyFile) file = g_new0(NightlyFile, 1);
    TemplateOptions mine = *options;
    g_autoptr(GBytes) input = NULL;
    g_autofree char *text = NULL;
    gsize size;

    file->images = g_ptr_array_new_with_free_func(image_free);
    file->dir = g_path_get_dirname(path);
    if (!g_file_get_contents(path, &text, &size, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "the nightly file '%s' cannot be read", path);
    input = g_bytes_new_take(g_steal_pointer(&text), size);
    mine.input = input;
    mine.list_block = "image";
    if (!template_load(path, &mine, &file->template, error) || !read_images(file, error))
        return false;
    if (file->images->len == 0)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' lists no image; write image \"NAME\" { upgrade = \"all\" }", path);
    *ret = g_steal_pointer(&file);
    return true;
}

/* ---- one image ---- */

void nightly_result_clear(NightlyResult *result)
{
    bake_result_clear(&result->bake);
}

static bool same_images(GPtrArray *before, GPtrArray *after)
{
    unsigned found = 0;

    for (guint i = 0; i < after->len; i++)
        for (guint j = 0; j < before->len; j++)
            found += digest_equal(&((StoreImage *)after->pdata[i])->id, &((StoreImage *)before->pdata[j])->id);
    return found == after->len;
}

/* Does the target channel stand on the set that the night starts from? Then its tests were passed already. */
static bool is_promoted(Store *store, const NightlyImage *image, GPtrArray *before)
{
    g_autofree char *ref = g_strconcat(image->name, ":", image->to, NULL);
    g_autoptr(GPtrArray) now = NULL;

    return !image->to || (store_resolve_set(store, ref, &now, NULL) && same_images(now, before));
}

/* The newest @keep sets of the name stay, and what is held; of the others the records. */
static bool prune(Store *store, const NightlyImage *image, unsigned *ret_removed, GError **error)
{
    const StoreRetention rules = {.last = image->keep, .daily = -1, .weekly = -1, .monthly = -1};
    g_autoptr(GPtrArray) verdicts = NULL;

    if (image->keep == 0)
        return true;
    if (!store_prune(store, image->name, &rules, false, &verdicts, error))
        return false;
    for (guint i = 0; i < verdicts->len; i++)
        *ret_removed += !((StorePruneVerdict *)verdicts->pdata[i])->stays;
    return true;
}

static bool patch(Store *store, const NightlyFile *file, const NightlyImage *image, const BakeOptions *options, GPtrArray *before,
                  NightlyResult *result, GError **error)
{
    const char *kind = before->len == 1 ? ((StoreImage *)before->pdata[0])->kind : "disk";
    BakeOptions mine = {.offline = options->offline,
                        .refresh = options->refresh,
                        .fresh_since = options->fresh_since,
                        .shared = options->shared,
                        .skip_known_tests = is_promoted(store, image, before),
                        .boot_critical = image->to != NULL};
    g_autoptr(Template) template = NULL;

    return make_template(file, image, kind, &template, error) &&
           bake_build(store, template, template_builds(template)->pdata[0], &mine, &result->bake, error);
}

static bool promote(Store *store, const NightlyImage *image, NightlyResult *result, GError **error)
{
    const StorePromotion promotion = {
        .name = image->name, .channel = image->to, .images = result->bake.images, .why.reason = "nightly"};

    return store_promote(store, &promotion, &result->moved, error);
}

bool nightly_run(Store *store, const NightlyFile *file, const NightlyImage *image, const BakeOptions *options, NightlyResult *ret,
                 GError **error)
{
    g_autofree char *ref = image_ref(image);
    g_autoptr(GPtrArray) before = NULL;

    *ret = (NightlyResult){0};
    if (!store_resolve_set(store, ref, &before, error) || !patch(store, file, image, options, before, ret, error))
        return false;
    ret->unchanged = same_images(before, ret->bake.images);
    if (image->to && !promote(store, image, ret, error))
        return false;
    return prune(store, image, &ret->removed, error);
}
