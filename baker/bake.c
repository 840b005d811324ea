/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bake engine's front: runs a build's chains and publishes the set.
 */
#include "baker/bake-run.h"

#include "baker/bake-lock.h"
#include "baker/boot-test.h"
#include "baker/kept-inputs.h"
#include "baker/origins.h"
#include "baker/post.h"
#include "baker/provenance.h"
#include "baker/source-image.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"

#include <string.h>

void bake_result_clear(BakeResult *result)
{
    g_clear_pointer(&result->images, g_ptr_array_unref);
    g_clear_pointer(&result->steps, json_decref);
    g_clear_pointer(&result->packages, json_decref);
    g_clear_pointer(&result->kept, g_hash_table_unref);
}

bool bake_wants_output(const BakeChain *chain, const char *kind, const TemplateBlock **ret_block)
{
    const GPtrArray *outputs = chain->build->outputs;

    *ret_block = NULL;
    if (chain->output && !g_str_equal(chain->output, kind))
        return false;
    for (guint i = 0; i < outputs->len; i++)
        if (g_str_equal(((TemplateBlock *)outputs->pdata[i])->type, kind)) {
            *ret_block = outputs->pdata[i];
            return true;
        }
    if (outputs->len == 0 && bake_parent_images(chain))
        return json_object_get(bake_parent_images(chain), kind) != NULL;
    return outputs->len == 0 && g_strcmp0(chain->source->default_output, kind) == 0;
}

bool bake_is_parent(const BakeChain *chain)
{
    const json_t *size = json_object_get(chain->identity, "size");
    g_autoptr(json_t) said = bake_output_args(chain, NULL);

    return bake_parent_images(chain) && chain->build->outputs->len == 0 && json_integer_value(size) == 0 &&
           !chain->build->volatile_paths && json_object_size(said) == 0 &&
           digest_equal(bake_content_before(chain, chain->steps->len), &chain->state.content);
}

/*
 * Kinds that need a chain of their own: all outputs, when some step is for one of them only, or was when the parent was baked; a place to stop
 * at is no reason.
 */
GPtrArray *bake_chains_new(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options)
{
    GPtrArray *chains = g_ptr_array_new_with_free_func((GDestroyNotify)bake_chain_free);
    g_auto(SourceBase) base = {0};
    const char *ref;
    bool split, branches;

    source_base(build->source->type, build->source->args, build->rebase, &base);
    ref = source_image_ref(base.args);
    branches = split = store && ref && source_image_is_split(store, ref);

    for (guint i = 0; i < build->provisioners->len; i++) {
        const TemplateBlock *block = build->provisioners->pdata[i];

        branches |= block->only_output && !provisioner_find(block->type)->stops;
    }
    for (guint i = 0; branches && i < build->outputs->len; i++)
        g_ptr_array_add(chains, bake_chain_new(store, template, build, options,
                                               ((TemplateBlock *)build->outputs->pdata[i])->type));
    if (split && build->outputs->len == 0) { /* the parent's own, each from its own root */
        g_ptr_array_add(chains, bake_chain_new(store, template, build, options, "disk"));
        g_ptr_array_add(chains, bake_chain_new(store, template, build, options, "oci"));
    }
    if (chains->len == 0)
        g_ptr_array_add(chains, bake_chain_new(store, template, build, options, NULL));
    return chains;
}

json_t *bake_output_args(const BakeChain *chain, const TemplateBlock *block)
{
    const SourceOps *own = source_find(chain->build->source->type); /* another base in its place changes nothing of what it says of the result */
    json_t *args = own && own->output ? own->output(chain->build->source->args) : json_object();

    if (block)
        (void)json_object_update(args, block->args);
    return args;
}

static void combined_key(GPtrArray *chains, Digest *ret)
{
    g_autoptr(DigestStream) stream = digest_stream_new();

    for (guint i = 0; i < chains->len; i++) {
        Digest key;

        bake_final_key(chains->pdata[i], &key);
        digest_stream_update(stream, key.bytes, sizeof(key.bytes));
    }
    digest_stream_final(stream, ret);
}

static void add_steps(json_t *list, const BakeChain *chain)
{
    for (guint i = 0; i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];
        char key[DIGEST_HEX_SIZE], content[DIGEST_HEX_SIZE];

        json_array_append_new(
            list, json_pack("{s:s, s:s, s:b, s:f, s:b, s:s, s:s}", "step", step->label, "type",
                            step->block ? step->block->type : "seal", "cached", step->cached, "seconds", step->seconds,
                            "network", step->network, "key", digest_to_hex(&step->key, key), "content",
                            digest_to_hex(&step->content, content)));
        if (step->reached)
            json_object_set(json_array_get(list, json_array_size(list) - 1), "reached", step->reached);
    }
}

static json_t *transactions_of(GPtrArray *chains)
{
    json_t *transactions = json_object();

    for (guint i = 0; i < chains->len; i++) {
        const BakeChain *chain = chains->pdata[i];

        for (guint j = 0; j < chain->steps->len; j++) {
            const BakeStep *step = chain->steps->pdata[j];

            if (step->transaction)
                bake_lock_add(transactions, step->position, chain->output, step->transaction);
        }
    }
    return transactions;
}

static json_t *package_changes(const json_t *transactions)
{
    json_t *list = json_array();
    const char *number;
    json_t *transaction, *one;
    size_t i;

    json_object_foreach ((json_t *)transactions, number, transaction) {
        json_array_foreach (json_object_get(transaction, "install"), i, one) {
            json_t *change = json_pack("{s:O, s:O}", "name", json_object_get(one, "name"), "version", json_object_get(one, "version"));

            if (json_object_get(one, "from"))
                json_object_set(change, "from", json_object_get(one, "from"));
            json_array_append_new(list, change);
        }
        json_array_foreach (json_object_get(transaction, "remove"), i, one)
            json_array_append_new(list, json_pack("{s:O, s:O}", "name", json_object_get(one, "name"), "from",
                                                  json_object_get(one, "version")));
    }
    return list;
}

/* A set keeps what its packages steps did, as it keeps its template. */
static bool keep_transactions(Store *store, GPtrArray *chains, GHashTable *inputs, GError **error)
{
    g_autoptr(json_t) transactions = transactions_of(chains);
    g_autofree char *text = json_canonical(transactions);
    g_autofree Digest *digest = g_new0(Digest, 1);

    if (json_object_size(transactions) == 0)
        return true;
    if (!store_blob_put(store, text, strlen(text), digest, error))
        return false;
    g_hash_table_insert(inputs, g_strdup(KEPT_LOCK), g_steal_pointer(&digest));
    return true;
}

static void parent_id(const BakeChain *chain, Digest *ret)
{
    const json_t *images = bake_parent_images(chain);
    const char *id = json_string_value(json_object_get(images, "disk"));

    if (!id)
        id = json_string_value(json_object_get(images, "oci"));
    if (!id || !digest_parse(id, ret))
        *ret = digest_none;
}

void bake_boot_tests(const BakeChain *chain, json_t **ret)
{
    *ret = json_array();
    for (guint i = 0; i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];

        if (step->block && strcmp(step->block->type, "test") == 0)
            (void)json_array_extend(*ret, json_object_get(step->block->args, "boot"));
    }
}

/*
 * What the set's provenance says was tested: test steps that ran, or whose result is in the cache, which takes in only what was
 * passed; and what earlier provenance says of the same images.
 */
static json_t *passed_tests(GPtrArray *chains, const json_t *earlier, const json_t *boots)
{
    json_t *list = earlier ? json_copy((json_t *)earlier) : json_array(), *one;
    size_t k;

    for (guint i = 0; i < chains->len; i++) {
        const BakeChain *chain = chains->pdata[i];

        for (guint j = 0; j < chain->steps->len; j++) {
            const BakeStep *step = chain->steps->pdata[j];

            if (step->block && strcmp(step->block->type, "test") == 0 && !step->untested)
                json_array_add_new(list, json_pack("{s:s, s:s, s:I}", "test", step->label, "where", "guest", "step",
                                                   (json_int_t)step->position));
        }
    }
    json_array_foreach (boots, k, one)
        json_array_add_new(list, json_incref(one));
    return list;
}

/* Before anybody can see the set. What was passed is added to @passed. */
static bool run_boot_tests(Store *store, const TemplateBuild *build, const BakeOptions *options, GPtrArray *chains, const BakeResult *result,
                           json_t *passed, GError **error)
{
    const StoreImage *disk = store_images_find(result->images, "disk");
    unsigned count = 0;
    const char *critical;

    for (guint i = 0; disk && i < chains->len; i++) {
        g_autoptr(json_t) tests = NULL;
        const json_t *one;
        size_t j;

        bake_boot_tests(chains->pdata[i], &tests);
        json_array_foreach (tests, j, one) {
            count++;
            if (!boot_test(store, disk, one, build->name, error))
                return fail_prefix(error, "%s", build->name);
            json_array_append_new(passed, json_pack("{s:s, s:s}", "test", "boot", "where", "machine"));
        }
    }
    if (!disk || count > 0 || !options->boot_critical)
        return true;
    g_autoptr(json_t) transactions = transactions_of(chains), changes = package_changes(transactions);

    critical = boot_test_critical(changes);
    if (!critical)
        return true;
    log_info("==> %s: '%s' changed, which machines boot with", build->name, critical);
    if (!boot_test(store, disk, NULL, build->name, error))
        return fail_prefix(error, "%s", build->name);
    json_array_append_new(passed, json_pack("{s:s, s:s}", "test", "boot", "where", "machine"));
    return true;
}

/* Every kind of the set that it was baked from: all of them are its ancestors. */
static GArray *parent_ids(const BakeChain *chain)
{
    GArray *ids = g_array_new(FALSE, FALSE, sizeof(Digest));
    const char *kind;
    json_t *id;
    Digest digest;

    json_object_foreach ((json_t *)bake_parent_images(chain), kind, id)
        if (json_is_string(id) && digest_parse(json_string_value(id), &digest))
            g_array_append_val(ids, digest);
    return ids;
}

/* @earlier: tests that the same images have passed before, or NULL; @boots: boot tests of this bake. */
static bool publish(Store *store, Template *template, const TemplateBuild *build, GPtrArray *chains,
                    const Digest *key, const json_t *earlier, const json_t *boots, BakeResult *result, GError **error)
{
    const BakeChain *first = chains->pdata[0];
    g_autoptr(GHashTable) inputs = NULL;
    g_autoptr(json_t) tests = passed_tests(chains, earlier, boots);
    g_autoptr(json_t) provenance = provenance_make(build, first->identity, first->epoch, result->steps, tests);
    g_autoptr(GArray) parents = parent_ids(first);
    StoreSet set = {.name = build->name, .images = result->images, .key = *key, .provenance = provenance};

    if (!kept_inputs(store, template, chains, &inputs, error) || !keep_transactions(store, chains, inputs, error) ||
        !origins_keep(store, chains, result->images, inputs, error))
        return false;
    if (first->options->unpublished) {
        result->kept = g_steal_pointer(&inputs);
        return true;
    }
    set.inputs = inputs;
    set.parents = parents;
    parent_id(first, &set.parent);
    return store_publish(store, &set, error);
}

static bool run_chains(GPtrArray *chains, BakeResult *result, GError **error)
{
    for (guint i = 0; i < chains->len; i++) {
        BakeChain *chain = chains->pdata[i];

        result->cached &= chain->hits == chain->steps->len;
        if ((chain->hits < chain->steps->len || bake_stops(chain)) && !bake_run(chain, error))
            return false;
        result->new_bytes += chain->new_bytes;
        result->cached &= chain->source_cached;
        add_steps(result->steps, chain);
    }
    return true;
}

static bool seal_chains(GPtrArray *chains, BakeResult *result, GError **error)
{
    for (guint i = 0; i < chains->len; i++)
        if (!bake_seal(chains->pdata[i], result->images, error))
            return false;
    for (guint i = 0; i < result->images->len; i++)
        result->new_bytes += ((StoreImage *)result->images->pdata[i])->new_bytes;
    return true;
}

/* A night without changes leaves no trace; an older set that is baked again becomes the newest of its name. */
static bool is_newest(Store *store, GPtrArray *images, const char *name)
{
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autoptr(StoreImage) newest = NULL;

        if (!store_resolve(store, name, image->kind, &newest, NULL) || !digest_equal(&newest->id, &image->id))
            return false;
    }
    return true;
}

bool bake_published(Store *store, const TemplateBuild *build, GPtrArray *chains, GPtrArray **ret_images, bool *ret_newest,
                    GError **error)
{
    Digest key;

    combined_key(chains, &key);
    if (!store_find_set_by_key(store, &key, build->name, ret_images, error))
        return false;
    *ret_newest = *ret_images && is_newest(store, *ret_images, build->name);
    return true;
}

static bool earlier_tests(Store *store, GPtrArray *images, json_t **ret, GError **error)
{
    *ret = NULL;
    return images->len == 0 || store_image_tests(store, &((StoreImage *)images->pdata[0])->id, ret, error);
}

/* Of two chains both: a set is taken whole or not at all. */
static bool are_parent(GPtrArray *chains)
{
    for (guint i = 0; i < chains->len; i++)
        if (!bake_is_parent(chains->pdata[i]))
            return false;
    return true;
}

/* Nothing changed: the parent's set is the result. Under another name it is published there, too. */
static bool take_parent(Store *store, Template *template, const TemplateBuild *build, GPtrArray *chains, BakeResult *result,
                        GError **error)
{
    static const char *const kinds[] = {"disk", "oci"};
    const BakeChain *chain = chains->pdata[0];
    g_autoptr(json_t) earlier = NULL;
    Digest key;

    result->images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        StoreImage *image = NULL;

        if (!source_image_load(store, chain->identity, kinds[i], &image, error))
            return false;
        if (!image)
            continue;
        g_ptr_array_add(result->images, image);
        if (strcmp(image->name, build->name) != 0)
            result->cached = false;
    }
    if (result->cached || is_newest(store, result->images, build->name))
        return true;
    for (guint i = 0; i < result->images->len; i++) {
        StoreImage *image = result->images->pdata[i];

        g_free(image->name);
        image->name = g_strdup(build->name);
        image->new_bytes = 0;
    }
    combined_key(chains, &key);
    return earlier_tests(store, result->images, &earlier, error) &&
           publish(store, template, build, chains, &key, earlier, NULL, result, error);
}

static char *list_steps(GPtrArray *chains)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < chains->len; i++) {
        const BakeChain *chain = chains->pdata[i];

        g_string_append_printf(text, "%s%s%s", i > 0 ? "; " : "", chain->output ? chain->output : "", chain->output ? ": " : "");
        for (guint j = 0; j < chain->steps->len; j++)
            g_string_append_printf(text, "%u %s, ", j + 1, ((BakeStep *)chain->steps->pdata[j])->label);
        g_string_append_printf(text, "%u seal, end", chain->steps->len + 1);
    }
    return g_string_free(text, FALSE);
}

bool bake_check_step(const TemplateBuild *build, const char *step, GError **error)
{
    static const BakeOptions none;
    g_autoptr(GPtrArray) chains = bake_chains_new(NULL, NULL, build, &none);
    g_autofree char *list = list_steps(chains);
    size_t index;

    for (guint i = 0; i < chains->len; i++)
        if (bake_find_step(chains->pdata[i], step, &index))
            return true;
    return fail_code(error, KILN_ERROR_USAGE, "--shell-at: build '%s' has no step, or several, called '%s'; its steps are: %s",
                     build->name, step, list);
}

bool bake_may_stop(const TemplateBuild *build, const BakeOptions *options)
{
    bool breakpoint = false;

    for (guint i = 0; i < build->provisioners->len; i++) {
        const TemplateBlock *block = build->provisioners->pdata[i];
        const ProvisionerOps *ops = provisioner_find(block->type);

        breakpoint |= ops->stops && ops->stops(block->args);
    }
    return options->shell_at || (options->interactive && (breakpoint || g_strcmp0(options->on_error, "ask") == 0));
}

/* In the first chain that has the step: one shell is enough. */
static void place_shell(GPtrArray *chains, const char *step)
{
    for (guint i = 0; step && i < chains->len; i++) {
        BakeChain *chain = chains->pdata[i];

        if (bake_find_step(chain, step, &chain->shell_at))
            return;
        chain->shell_at = SIZE_MAX;
    }
}

static bool bake_chains(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options,
                        GPtrArray *chains, BakeResult *result, GError **error)
{
    g_autoptr(json_t) earlier = NULL, boots = json_array();
    bool newest = false;
    Digest key;

    for (guint i = 0; i < chains->len; i++)
        if (!bake_plan(chains->pdata[i], error))
            return false;
    place_shell(chains, options->shell_at);
    result->cached = true;
    if (!run_chains(chains, result, error))
        return false;
    if (are_parent(chains))
        return take_parent(store, template, build, chains, result, error);
    if (!((BakeChain *)chains->pdata[0])->source->default_output) { /* nothing is baked, and nothing published */
        result->images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
        return true;
    }
    combined_key(chains, &key);
    if (!options->no_cache && !bake_published(store, build, chains, &result->images, &newest, error))
        return false;
    if (newest)
        return true;
    if (!result->images) {
        result->cached = false;
        result->images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
        if (!seal_chains(chains, result, error) ||
            (!options->unpublished && !run_boot_tests(store, build, options, chains, result, boots, error)))
            return false;
    }
    /* Sealed again to the same images, or taken from an earlier set: what they passed then, they passed. */
    return earlier_tests(store, result->images, &earlier, error) &&
           publish(store, template, build, chains, &key, earlier, boots, result, error);
}

/* The files that the source's own arguments name: Packer's output, where post-processors look for it. */
static bool deliver(const BakeChain *chain, const BakeResult *result, GPtrArray *files, GError **error)
{
    SourceContext context = bake_source_context(chain);

    return !chain->source->deliver || chain->source->deliver(&context, chain->base.args, result->images, files, error) ||
           fail_prefix(error, "source '%s'", chain->build->source->type);
}

static bool finish_on_host(GPtrArray *chains, const BakeResult *result, GError **error)
{
    const BakeChain *first = chains->pdata[0];
    PostContext context = {first->store, first->template, first->build, first->options->offline};
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);

    return deliver(first, result, files, error) && post_run(&context, result->images, files, error);
}

/* What the next plan compares with, and the lock the user asked for. */
static bool keep_notes(const TemplateBuild *build, const BakeOptions *options, GPtrArray *chains, BakeResult *result, GError **error)
{
    g_autoptr(json_t) transactions = transactions_of(chains);

    result->packages = package_changes(transactions);
    for (guint i = 0; i < chains->len && !options->unpublished; i++)
        if (!bake_records_save(chains->pdata[i], error))
            return false;
    return !options->lock || bake_lock_save(options->lock, build->name, transactions, error);
}

/* What its states' keys are, for the cache that others read. A chain that failed has those up to there. */
static void push_to_others(Store *store, const BakeOptions *options, GPtrArray *chains, const GPtrArray *images)
{
    g_autoptr(GArray) states = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(GError) problem = NULL;

    if (!options->shared || !shared_cache_writes(options->shared) || options->unpublished)
        return;
    for (guint i = 0; i < chains->len; i++) {
        const BakeChain *chain = chains->pdata[i];

        g_array_append_val(states, chain->source_key);
        for (guint j = 0; j < chain->steps->len; j++)
            g_array_append_val(states, ((BakeStep *)chain->steps->pdata[j])->key);
    }
    if (!shared_cache_push(options->shared, store, states, images, &problem))
        log_warning("the shared cache was not written: %s", problem->message);
}

static bool bake_and_share(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options, GPtrArray **ret_chains,
                           BakeResult *result, GError **error)
{
    g_autoptr(GPtrArray) chains = bake_chains_new(store, template, build, options);
    bool ok = bake_chains(store, template, build, options, chains, result, error) && keep_notes(build, options, chains, result, error);

    if (!interrupt_requested())
        push_to_others(store, options, chains, ok ? result->images : NULL); /* what is not published is nobody's result */
    if (ok)
        *ret_chains = g_steal_pointer(&chains);
    return ok;
}

/* What was promised by a shared cache and could not be had costs a second start without it, not the bake. */
static bool bake_with_cache(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options, GPtrArray **ret_chains,
                            BakeResult *result, GError **error)
{
    g_autoptr(GError) problem = NULL;
    bool ok;

    if (!options->shared || options->unpublished) /* what is verified is made here */
        return bake_and_share(store, template, build, options, ret_chains, result, error);
    store_attach_cache(store, options->shared);
    ok = bake_and_share(store, template, build, options, ret_chains, result, &problem);
    if (!ok && !interrupt_requested() && shared_cache_failed(options->shared)) {
        log_warning("%s; beginning again without it", problem->message);
        g_clear_error(&problem);
        bake_result_clear(result);
        *result = (BakeResult){.steps = json_array()};
        store_attach_cache(store, NULL);
        ok = bake_and_share(store, template, build, options, ret_chains, result, &problem);
    }
    store_attach_cache(store, NULL);
    if (problem)
        g_propagate_error(error, g_steal_pointer(&problem));
    return ok;
}

bool bake_build(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options,
                BakeResult *ret, GError **error)
{
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(GPtrArray) chains = NULL;
    gint64 start = g_get_monotonic_time();
    BakeResult result = {.steps = json_array()};
    g_autofree char *why = g_strdup_printf("bake of %s", build->name);

    if (!bake_check(build, error) || !store_name_check(build->name, error) ||
        !store_lease_take(store, why, &lease, error)) {
        bake_result_clear(&result);
        return false;
    }
    if (!bake_with_cache(store, template, build, options, &chains, &result, error) ||
        (!options->unpublished && !finish_on_host(chains, &result, error))) {
        bake_result_clear(&result);
        return false;
    }
    result.seconds = (double)(g_get_monotonic_time() - start) / 1e6;
    *ret = result;
    return true;
}
