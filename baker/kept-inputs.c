/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping inputs. The bake is done when this runs, so that nothing here may fail it for a file's sake: one that is gone or not the
 * same any more is left out, and the list says with which digest it was used.
 */
#include "baker/kept-inputs.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mask.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

typedef struct Keeping {
    Store *store;
    const KeptLimits *limits;
    const Secrets *secrets;
    GHashTable *kept; /* name -> Digest* */
    json_t *list;
    uint64_t total;
} Keeping;

/* One file on its way. */
typedef struct Input {
    const char *name, *path;
    uint32_t mode;
    Digest digest;     /* as it was used */
    unsigned position; /* of the step; 0: the template */
} Input;

static void set_hex(json_t *object, const char *key, const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    json_object_set_new(object, key, json_string(digest_to_hex(digest, hex)));
}

/* Our own names are not a user's to take. */
static char *kept_name(const char *name)
{
    return g_str_has_prefix(name, "kiln.") ? g_strconcat("./", name, NULL) : g_strdup(name);
}

static void note(Keeping *k, const Input *input, const Digest *digest, const Digest *blob)
{
    json_t *one = json_object();

    json_array_append_new(k->list, one);
    json_object_set_new(one, "name", json_string_nocheck(input->name));
    json_object_set_new(one, "mode", json_integer(input->mode));
    set_hex(one, "digest", digest);
    if (input->position) {
        g_autofree char *path = g_canonicalize_filename(input->path, NULL);

        json_object_set_new(one, "step", json_integer(input->position));
        json_object_set_new(one, "path", json_string_nocheck(path));
    }
    if (!blob)
        return;
    set_hex(one, "blob", blob);
    if (!digest_equal(blob, &input->digest))
        json_object_set_new(one, "masked", json_true());
    g_hash_table_insert(k->kept, kept_name(input->name), g_memdup2(blob, sizeof *blob));
}

static bool fits(const Keeping *k, uint64_t size)
{
    return size <= k->limits->file && size <= k->limits->total - k->total && g_hash_table_size(k->kept) < k->limits->count;
}

/* What may be kept of @bytes: the same, a text without its secrets, or NULL. */
static GBytes *without_secrets(const Keeping *k, GBytes *bytes)
{
    gsize size;
    const char *data = g_bytes_get_data(bytes, &size);
    g_autofree char *text = NULL, *masked = NULL;

    if (!mask_active())
        return g_bytes_ref(bytes);
    if (memchr(data, '\0', size))
        return k->secrets && secrets_find(k->secrets, data, size) ? NULL : g_bytes_ref(bytes);
    text = g_strndup(data, size);
    masked = mask_text(text);
    return g_bytes_new(masked, strlen(masked));
}

/* *ret is NULL when there is nothing to keep: too much of it, gone, changed, or secret. */
static void load(const Keeping *k, const Input *input, GBytes **ret, Digest *ret_digest)
{
    g_autoptr(GBytes) bytes = NULL;
    struct stat st;
    gsize size;
    const void *data;

    *ret = NULL;
    if (stat(input->path, &st) < 0 || !S_ISREG(st.st_mode) || !fits(k, (uint64_t)st.st_size) ||
        !file_load(AT_FDCWD, input->path, k->limits->file, &bytes, NULL))
        return;
    data = g_bytes_get_data(bytes, &size);
    digest_of(data, size, ret_digest);
    if (!digest_equal(ret_digest, &input->digest)) {
        log_verbose("'%s' is not kept with the set: it changed after it was used", input->name);
        return;
    }
    *ret = without_secrets(k, bytes);
}

static bool keep(Keeping *k, const Input *input, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    Digest digest = input->digest, blob;
    gsize size;
    const void *data;

    if (S_ISREG(input->mode))
        load(k, input, &bytes, &digest);
    if (!bytes) {
        note(k, input, &input->digest, NULL);
        return true;
    }
    data = g_bytes_get_data(bytes, &size);
    if (!store_blob_put(k->store, data, size, &blob, error))
        return fail_prefix(error, "keep '%s'", input->name);
    k->total += size;
    note(k, input, &blob, &blob); /* of a masked text not its own digest: a short secret could be guessed from it */
    return true;
}

static bool keep_bytes(Keeping *k, const char *name, const void *data, size_t size, GError **error)
{
    Digest blob;

    if (!store_blob_put(k->store, data, size, &blob, error))
        return false;
    g_hash_table_insert(k->kept, g_strdup(name), g_memdup2(&blob, sizeof blob));
    return true;
}

static bool keep_masked(Keeping *k, const char *name, GBytes *all, GError **error)
{
    g_autoptr(GBytes) bytes = without_secrets(k, all);

    return !bytes || keep_bytes(k, name, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), error);
}

/* Strings in it are searched for secrets as those of a file are: a variable need not be marked to hold one. */
static bool keep_given(Keeping *k, Template *template, GError **error)
{
    g_autoptr(json_t) given = template_given(template);
    g_autofree char *text = json_canonical(given);
    g_autoptr(GBytes) all = g_bytes_new(text, strlen(text));

    return keep_masked(k, KEPT_GIVEN, all, error);
}

/* A night's template is on no disk. */
static bool keep_template_text(Keeping *k, Template *template, GError **error)
{
    GBytes *text = template_given_text(template);

    return !text || keep_masked(k, KEPT_TEMPLATE, text, error);
}

static bool keep_template(Keeping *k, Template *template, GError **error)
{
    g_autoptr(GList) paths = g_list_sort(g_hash_table_get_keys(template_files(template)), (GCompareFunc)strcmp);

    for (const GList *at = paths; at; at = at->next) {
        const Digest *digest = g_hash_table_lookup(template_files(template), at->data);
        Input input = {.name = at->data, .path = at->data, .digest = *digest, .mode = S_IFREG};
        struct stat st;

        if (stat(input.path, &st) == 0)
            input.mode = st.st_mode;
        if (!keep(k, &input, error))
            return false;
    }
    return true;
}

static bool keep_step(Keeping *k, const BakeStep *step, GError **error)
{
    for (guint i = 0; step->inputs && i < step->inputs->len; i++) {
        const ProvisionerInput *from = step->inputs->pdata[i];
        const Input input = {from->name, from->path, from->mode, from->digest, step->position};

        if (!keep(k, &input, error))
            return false;
    }
    return true;
}

/* Chains of one build share the steps before they part. */
static bool keep_steps(Keeping *k, GPtrArray *chains, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    for (guint i = 0; i < chains->len; i++) {
        const BakeChain *chain = chains->pdata[i];

        for (guint j = 0; j < chain->steps->len; j++) {
            const BakeStep *step = chain->steps->pdata[j];

            if (step->position && g_hash_table_add(seen, GUINT_TO_POINTER(step->position)) && !keep_step(k, step, error))
                return false;
        }
    }
    return true;
}

static bool keep_list(Keeping *k, GError **error)
{
    g_autofree char *text = json_canonical(k->list);

    return keep_bytes(k, KEPT_LIST, text, strlen(text), error);
}

bool kept_inputs_within(const KeptLimits *limits, Store *store, Template *template, GPtrArray *chains, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) kept = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(json_t) list = json_array();
    Keeping k = {.store = store, .limits = limits, .kept = kept, .list = list};

    if (chains->len > 0)
        k.secrets = ((BakeChain *)chains->pdata[0])->secrets;
    if (!keep_template(&k, template, error) || !keep_template_text(&k, template, error) ||
        !keep_steps(&k, chains, error) || !keep_given(&k, template, error) || !keep_list(&k, error))
        return false;
    *ret = g_steal_pointer(&kept);
    return true;
}

bool kept_inputs(Store *store, Template *template, GPtrArray *chains, GHashTable **ret, GError **error)
{
    static const KeptLimits limits = {KEPT_FILE_MAX, KEPT_TOTAL_MAX, KEPT_COUNT_MAX};

    return kept_inputs_within(&limits, store, template, chains, ret, error);
}
