/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: what a bake depends on, as keys, and how much of it is known already.
 *
 * key[i] = SHA-256 of canonical JSON over (engine, content before, step type, arguments, digests and
 * modes of every input file, base environment, network policy, appliance profile). `content` is the digest of the normalised tree,
 * so a step that changes nothing keeps the keys behind it valid, and an edited step that gives the same tree does too.
 */
#include "baker/bake-internal.h"

#include "baker/bake-lock.h"
#include "baker/bake-why.h"
#include "baker/host-step.h"
#include "baker/source-image.h"
#include "base/host-kernel.h"
#include "base/error.h"
#include "base/log.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

/* Raised by hand when what a bake changes in the appliance can change results. */
#define APPLIANCE_RECIPE "1"

static void step_free(gpointer data)
{
    BakeStep *step = data;

    json_decref(step->transaction);
    json_decref(step->record);
    json_decref(step->reached);
    if (step->inputs)
        g_ptr_array_unref(step->inputs);
    g_free(step->label);
    g_free(step);
}

/* A place to stop at: the image knows nothing of it. */
static bool is_stop(const BakeStep *step)
{
    return step->ops && step->ops->stops;
}

static bool applies_to(const TemplateBlock *block, const char *output)
{
    return !output || !block->only_output || g_strv_contains((const char *const *)block->only_output, output);
}

static bool step_network(const TemplateBuild *build, const TemplateBlock *block, const ProvisionerOps *ops)
{
    if (block->network >= 0)
        return block->network == 1;
    if (ops->wants_network && ops->wants_network(block->args))
        return true;
    return ops != provisioner_first_boot() && bake_is_packers(build);
}

bool bake_is_packers(const TemplateBuild *build)
{
    const SourceOps *ops = source_find(build->source->type);

    return !ops || ops->packers;
}

char *bake_parent_name(const TemplateBuild *build)
{
    g_auto(SourceBase) base = {0};

    source_base(build->source->type, build->source->args, build->rebase, &base);
    return source_image_name(base.args);
}

static BakeStep *step_new(const BakeChain *chain, const TemplateBlock *block, const ProvisionerOps *ops, guint position)
{
    BakeStep *step = g_new0(BakeStep, 1);

    step->position = position;
    step->block = block;
    step->ops = ops;
    step->label = g_strdup(block->name ? block->name : block->type);
    step->network = step->ops->needs_guest && step_network(chain->build, block, step->ops);
    step->is_volatile = step->network && step->ops->volatile_with_network && !block->inputs;
    return step;
}

/* Places to stop at count for nothing, so that a lock fits with and without them. */
static void add_steps(BakeChain *chain)
{
    const GPtrArray *blocks = chain->build->provisioners;
    guint position = 0;

    if (chain->source && strcmp(chain->source->type, "file") == 0)
        return; /* Packer runs none with it */
    for (guint i = 0; i < blocks->len; i++) {
        const TemplateBlock *block = blocks->pdata[i];

        position += !provisioner_find(block->type)->stops;
        if (applies_to(block, chain->output))
            g_ptr_array_add(chain->steps, step_new(chain, block, provisioner_find(block->type), position));
    }
}

static int64_t environment_epoch(void)
{
    const char *text = g_getenv("SOURCE_DATE_EPOCH");
    char *end;
    int64_t value;

    if (!text || !*text)
        return -1;
    value = g_ascii_strtoll(text, &end, 10);
    return *end || value < 0 ? -1 : value;
}

SourceContext bake_source_context(const BakeChain *chain)
{
    const TemplateBuild *build = chain->build;

    return (SourceContext){.store = chain->store,
                           .template_dir = chain->template ? template_dir(chain->template) : NULL,
                           .name = build->name,
                           .build_name = build->build_name,
                           .output = chain->output,
                           .epoch = build->source_date_epoch >= 0 ? build->source_date_epoch : environment_epoch(),
                           .offline = chain->options->offline,
                           .pull = chain->options->pull,
                           .anew = chain->options->unpublished,
                           .other_order = chain->options->around.other_order};
}

/* The seed of a qemu source is applied on any base: the template's steps count on it. */
static void add_first_boot(BakeChain *chain)
{
    SourceContext context = bake_source_context(chain);
    const SourceOps *own = source_find(chain->build->source->type);
    const ProvisionerOps *ops = provisioner_first_boot();
    const SourceOps *maker = own && own->packers ? own : chain->source;
    const json_t *maker_args = maker == chain->source ? chain->base.args : chain->build->source->args;
    json_t *args = NULL;

    if (!maker || !maker->first_boot)
        return;
    if (!maker->first_boot(&context, maker_args, &args, &chain->problem))
        args = json_object();
    if (args && chain->build->rebase)
        (void)json_object_del(args, "grow");
    if (!args || (json_object_size(args) == 0 && !chain->problem)) {
        json_decref(args);
        return;
    }
    chain->first_boot = g_new0(TemplateBlock, 1);
    chain->first_boot->type = g_strdup(ops->type);
    chain->first_boot->args = args;
    chain->first_boot->network = -1;
    g_ptr_array_add(chain->steps, step_new(chain, chain->first_boot, ops, chain->build->provisioners->len + 1));
}

/* Whoever takes the place of the source, what its machine does last is the template's. */
static void add_last_step(BakeChain *chain)
{
    SourceContext context = bake_source_context(chain);
    const SourceOps *own = source_find(chain->build->source->type);
    g_autofree char *script = NULL;

    if (!own || !own->last_script || chain->problem || !own->last_script(&context, chain->build->source->args, &script, &chain->problem) || !script)
        return;
    chain->last_step = g_new0(TemplateBlock, 1);
    chain->last_step->type = g_strdup("shell");
    chain->last_step->name = g_strdup("shutdown_command");
    chain->last_step->args = json_pack("{s:[s]}", "inline", script);
    g_ptr_array_add(chain->steps, step_new(chain, chain->last_step, provisioner_find("shell"), chain->build->provisioners->len + 2));
}

static void own_step_free(TemplateBlock *block)
{
    if (!block)
        return;
    g_free(block->type);
    g_free(block->name);
    json_decref(block->args);
    g_free(block);
}

static void add_sysprep(BakeChain *chain)
{
    BakeStep *step = g_new0(BakeStep, 1);

    step->label = g_strdup("seal");
    g_ptr_array_add(chain->steps, step);
}

BakeChain *bake_chain_new(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options,
                          const char *output)
{
    BakeChain *chain = g_new0(BakeChain, 1);

    chain->store = store;
    chain->template = template;
    chain->build = build;
    chain->options = options;
    chain->output = output;
    source_base(build->source->type, build->source->args, build->rebase, &chain->base);
    chain->source = chain->base.ops;
    chain->steps = g_ptr_array_new_with_free_func(step_free);
    chain->started = g_get_real_time() / G_USEC_PER_SEC;
    chain->shell_at = SIZE_MAX;
    add_first_boot(chain);
    add_steps(chain);
    add_last_step(chain);
    if (build->error_cleanup)
        chain->cleanup = step_new(chain, build->error_cleanup, provisioner_find(build->error_cleanup->type), 0);
    return chain;
}

void bake_chain_free(BakeChain *chain)
{
    if (!chain)
        return;
    json_decref(chain->identity);
    json_decref(chain->locked);
    source_state_clear(&chain->state);
    g_strfreev(chain->env);
    tree_known_free(chain->known);
    secrets_free(chain->secrets);
    g_ptr_array_unref(chain->steps);
    if (chain->cleanup)
        step_free(chain->cleanup);
    own_step_free(chain->first_boot);
    own_step_free(chain->last_step);
    source_base_clear(&chain->base);
    g_clear_error(&chain->problem);
    g_free(chain);
}

const Digest *bake_content_before(const BakeChain *chain, size_t index)
{
    return index == 0 ? &chain->state.content : &((BakeStep *)chain->steps->pdata[index - 1])->content;
}

const Digest *bake_map_before(const BakeChain *chain, size_t index)
{
    return index == 0 ? &chain->state.map : &((BakeStep *)chain->steps->pdata[index - 1])->map;
}

static void set_hex(json_t *object, const char *key, const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    json_object_set_new(object, key, json_string(digest_to_hex(digest, hex)));
}

/* Steps of a docker source run where `docker exec` would run them: with what the image sets. */
static void add_image_environment(const BakeChain *chain, GPtrArray *env)
{
    const json_t *config = json_object_get(json_object_get(json_object_get(chain->state.info, "oci_parent"), "config"), "config"), *one;
    size_t i;

    if (strcmp(chain->build->source->type, "docker") != 0)
        return;
    json_array_foreach (json_object_get(config, "Env"), i, one)
        if (json_is_string(one) && strchr(json_string_value(one), '='))
            g_ptr_array_add(env, g_strdup(json_string_value(one)));
}

static char **base_environment(const BakeChain *chain)
{
    GPtrArray *env = g_ptr_array_new();

    g_ptr_array_add(env, g_strdup_printf("SOURCE_DATE_EPOCH=%" G_GINT64_FORMAT, chain->epoch));
    g_ptr_array_add(env, g_strdup("TZ=UTC"));
    g_ptr_array_add(env, g_strdup("LC_ALL=C.UTF-8"));
    g_ptr_array_add(env, g_strdup("PYTHONHASHSEED=0"));
    g_ptr_array_add(env, g_strdup_printf("PACKER_BUILD_NAME=%s", chain->build->build_name));
    g_ptr_array_add(env, g_strdup_printf("PACKER_BUILDER_TYPE=%s", chain->build->source->type));
    add_image_environment(chain, env);
    g_ptr_array_add(env, NULL);
    return (char **)g_ptr_array_free(env, FALSE);
}

const char *const *bake_volatile_paths(const BakeChain *chain)
{
    return (const char *const *)chain->build->volatile_paths;
}

void bake_add_volatile_paths(const BakeChain *chain, json_t *key)
{
    const char *const *paths = bake_volatile_paths(chain);
    json_t *list = json_array();

    for (; paths && *paths; paths++)
        json_array_append_new(list, json_string_nocheck(*paths));
    if (json_array_size(list) > 0)
        json_object_set(key, "volatile_paths", list);
    json_decref(list);
}

static const char *working_folder(void)
{
    static gsize cwd;

    if (g_once_init_enter(&cwd))
        g_once_init_leave(&cwd, (gsize)g_get_current_dir());
    return (const char *)cwd;
}

ProvisionerHost bake_host(const BakeChain *chain, const BakeStep *step)
{
    return (ProvisionerHost){
        .template_dir = template_dir(chain->template),
        .cwd = working_folder(),
        .build_name = chain->build->build_name,
        .builder_type = chain->build->source->type,
        .env = (const char *const *)chain->env,
        .epoch = chain->epoch,
        .network = step ? step->network : false,
        .secret = chain->secrets && secrets_any(chain->secrets),
    };
}

static bool add_inputs(BakeChain *chain, BakeStep *step, json_t *key, GError **error)
{
    g_autoptr(GPtrArray) inputs =
        g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);
    ProvisionerHost host = bake_host(chain, step);
    json_t *list = json_array();

    json_object_set_new(key, "inputs", list);
    if (!step->block)
        return true;
    if ((step->ops->inputs && !step->ops->inputs(step->block->args, &host, inputs, error)) ||
        !provisioner_declared_inputs((const char *const *)step->block->inputs, &host, inputs, error))
        return false;
    for (guint i = 0; i < inputs->len; i++) {
        const ProvisionerInput *input = inputs->pdata[i];
        json_t *one = json_object();

        json_object_set_new(one, "name", json_string_nocheck(input->name));
        json_object_set_new(one, "mode", json_integer(input->mode));
        set_hex(one, "digest", &input->digest);
        json_array_append_new(list, one);
    }
    step->outside = step->ops->reaches_outside && !step->block->inputs && step->ops->reaches_outside(step->block->args, inputs);
    step->is_volatile |= step->outside;
    if (step->inputs)
        g_ptr_array_unref(step->inputs);
    step->inputs = g_steal_pointer(&inputs);
    return true;
}

bool bake_resolve_request(BakeChain *chain, size_t index, ResolveRequest *ret, GError **error)
{
    const BakeStep *step = chain->steps->pdata[index];
    const BakeOptions *options = chain->options;
    g_autoptr(StoreMap) disk = NULL;
    bool found = false;

    *ret = (ResolveRequest){.store = chain->store,
                            .args = step->block->args,
                            .map = bake_map_before(chain, index),
                            .content = bake_content_before(chain, index),
                            .offline = options->offline,
                            .fresh_since = options->fresh_since ? options->fresh_since : chain->started,
                            .template_dir = template_dir(chain->template)};
    if (!chain->root_known && !store_map_open(chain->store, ret->map, &disk, error))
        return false;
    if (!bake_find_root(chain, disk, &ret->root_offset, &ret->root_size, &found, error))
        return false;
    if (!found)
        ret->map = NULL; /* nothing that could be read here */
    return true;
}

/* The lock's transaction for a step; a lock that lacks one was made for another template. */
static bool find_locked(BakeChain *chain, const BakeStep *step, const json_t **ret, GError **error)
{
    *ret = NULL;
    if (!chain->options->locked)
        return true;
    if (!chain->locked && !bake_lock_load(chain->options->locked, chain->build->name, &chain->locked, error))
        return false;
    *ret = bake_lock_find(chain->locked, step->position, chain->output);
    return *ret || fail(error, "lock file '%s' has no transaction for provisioner %u of build '%s'; make it again with --lock",
                        chain->options->locked, step->position, chain->build->name);
}

/* A packages step is what the host resolves for it, not what its text says. */
static bool resolve_step(BakeChain *chain, size_t index, GError **error)
{
    BakeStep *step = chain->steps->pdata[index];
    const Digest *content = bake_content_before(chain, index);
    g_autofree char *note = NULL;
    ResolveRequest request;

    if (!step->block || strcmp(step->block->type, "packages") != 0 || digest_equal(&step->resolved_for, content))
        return true;
    g_clear_pointer(&step->transaction, json_decref);
    if (!bake_resolve_request(chain, index, &request, error) || !find_locked(chain, step, &request.locked, error))
        return false;
    if (request.map && !resolve_packages(&request, &step->transaction, &note, error))
        return fail_prefix(error, "%s: step %zu (%s)", chain->build->name, index + 1, step->label);
    step->resolved_for = *content;
    step->network = !step->transaction && step_network(chain->build, step->block, step->ops);
    step->is_volatile = step->network && !step->block->inputs;
    if (note)
        log_verbose("    %s: %s", step->label, note);
    return true;
}

/* The appliance as far as it can change results: "1/x86_64/6.1". A kernel's own updates keep the first two parts of its version. */
static const char *appliance_profile(void)
{
    static gsize profile;

    if (g_once_init_enter(&profile)) {
        g_autofree char *kernel = NULL;
        struct utsname host = {0};
        unsigned major = 0, minor = 0;

        (void)uname(&host);
        if (host_kernel_find(&kernel, NULL, NULL)) /* without one nothing but what is known can be baked */
            (void)sscanf(strchr(kernel, '-'), "-%u.%u", &major, &minor);
        g_once_init_leave(&profile, (gsize)g_strdup_printf(APPLIANCE_RECIPE "/%s/%u.%u", host.machine, major, minor));
    }
    return (const char *)profile;
}

bool bake_step_key(BakeChain *chain, size_t index, GError **error)
{
    BakeStep *step = chain->steps->pdata[index];
    g_autoptr(json_t) key = json_object();
    json_t *env = json_array();

    if (!resolve_step(chain, index, error))
        return false;
    json_object_set_new(key, "engine", json_integer(BAKE_ENGINE));
    json_object_set_new(key, "profile", json_string(appliance_profile()));
    set_hex(key, "content", bake_content_before(chain, index));
    json_object_set_new(key, "step", json_string(step->block ? step->block->type : "seal"));
    json_object_set_new(key, "layout", json_integer(chain->state.layout));
    if (chain->state.layout == LAYOUT_RENDERED) /* its cached states are disks of that size */
        json_object_set_new(key, "size", json_integer((json_int_t)chain->state.size));
    if (step->transaction) {
        Digest digest;

        resolve_digest(step->transaction, &digest);
        set_hex(key, "transaction", &digest);
    } else if (step->block) {
        json_object_set_new(key, "args", secrets_mask_json(chain->secrets, step->block->args));
    } else {
        bake_add_volatile_paths(chain, key);
    }
    json_object_set_new(key, "network", json_boolean(step->network));
    for (char **e = chain->env; *e; e++)
        json_array_append_new(env, json_string_nocheck(*e));
    json_object_set_new(key, "env", env);
    if (!add_inputs(chain, step, key, error))
        return false;
    json_digest(key, &step->key);
    json_decref(step->record);
    step->record = bake_why_record(key, step->block ? step->block->type : "seal", step->label, step->transaction);
    return true;
}

static bool may_use_cache(const BakeChain *chain, const BakeStep *step)
{
    return !chain->options->no_cache && !(step->ops && provisioner_always_runs(step->ops, step->block->args));
}

/* A result that was kept without an end although its step is volatile: the step reached nothing. */
static bool counts(const BakeChain *chain, BakeStep *step, const StoreState *state)
{
    if (step->is_volatile && state->expires == 0 && g_strcmp0(step->block->refresh, "never") != 0)
        step->is_volatile = false;
    return !(step->is_volatile && chain->options->refresh);
}

void bake_note_run(BakeStep *step, int64_t when)
{
    if (step->is_volatile)
        json_object_set_new(step->record, "ran", json_integer(when));
}

const json_t *bake_parent_images(const BakeChain *chain)
{
    return chain->state.info ? json_object_get(chain->state.info, "images") : NULL;
}

/*
 * Nothing that belongs to the image; nothing to install; the cleaning of a root that was published clean; with skip_known_tests a test of what its parent was
 * published after.
 */
static bool is_transparent(const BakeChain *chain, const BakeStep *step, size_t index)
{
    bool untouched = bake_parent_images(chain) && digest_equal(bake_content_before(chain, index), &chain->state.content);

    if (is_stop(step))
        return true;
    if (step->transaction)
        return resolve_is_empty(step->transaction);
    if (!step->block)
        return untouched && !bake_volatile_paths(chain); /* the parent's may have been others */
    /* Only a boot block: nothing of it happens in the guest. */
    if (strcmp(step->block->type, "test") == 0 && json_object_size(step->block->args) == 1 && json_object_get(step->block->args, "boot"))
        return true;
    return untouched && chain->options->skip_known_tests && strcmp(step->block->type, "test") == 0;
}

static bool lookup_host_step(BakeChain *chain, BakeStep *step, size_t index, GError **error)
{
    if (chain->options->no_cache)
        return true;
    step->content = *bake_content_before(chain, index);
    step->map = *bake_map_before(chain, index);
    return host_step_known(chain, step, &step->cached, error);
}

bool bake_step_lookup(BakeChain *chain, size_t index, GError **error)
{
    BakeStep *step = chain->steps->pdata[index];
    g_autoptr(StoreState) state = NULL;

    step->cached = step->untested = false; /* an earlier look may have been from another state */
    if (!bake_step_key(chain, index, error))
        return false;
    if (is_transparent(chain, step, index)) {
        step->cached = true;
        step->untested = step->block && strcmp(step->block->type, "test") == 0;
        step->content = *bake_content_before(chain, index);
        step->map = *bake_map_before(chain, index);
        return true;
    }
    if (host_step_is_declared(step))
        return lookup_host_step(chain, step, index, error);
    if (!may_use_cache(chain, step))
        return true;
    if (!store_state_get(chain->store, &step->key, &state, error))
        return false;
    if (state && counts(chain, step, state)) {
        step->cached = true;
        step->content = state->content;
        step->map = state->map;
        bake_note_run(step, state->created);
    }
    return true;
}

/* The first state of a source as the cache keeps it. */
static char *pack_source_state(const SourceState *state)
{
    g_autoptr(json_t) info = json_object();

    json_object_set_new(info, "layout", json_integer(state->layout));
    json_object_set_new(info, "epoch", json_integer(state->epoch));
    json_object_set_new(info, "size", json_integer((json_int_t)state->size));
    if (state->info)
        json_object_set(info, "info", state->info);
    return json_canonical(info);
}

static bool unpack_source_state(const StoreState *cached, SourceState *ret, GError **error)
{
    g_autoptr(json_t) info = NULL;
    int64_t layout, size;

    if (!cached->info ||
        !json_parse(cached->info, strlen(cached->info), 64 << 20, "a cached source state", &info, error) ||
        !json_get_int(info, "layout", LAYOUT_NONE, &layout, error) ||
        !json_get_int(info, "epoch", 0, &ret->epoch, error) || !json_get_int(info, "size", 0, &size, error))
        return false;
    ret->layout = (DiskLayout)layout;
    ret->size = (uint64_t)size;
    ret->content = cached->content;
    ret->map = cached->map;
    ret->tree = cached->tree;
    ret->info = json_incref(json_object_get(info, "info"));
    return true;
}

static bool remember_source(BakeChain *chain, GError **error)
{
    g_autoptr(StoreState) state = store_state_new();

    if (chain->options->unpublished)
        return true;
    state->key = chain->source_key;
    state->content = chain->state.content;
    state->map = chain->state.map;
    state->tree = chain->state.tree;
    state->info = pack_source_state(&chain->state);
    return store_state_put(chain->store, state, error);
}

static void source_key(BakeChain *chain, const SourceContext *context)
{
    g_autoptr(json_t) key = json_object();

    json_object_set_new(key, "engine", json_integer(BAKE_ENGINE));
    json_object_set_new(key, "name", json_string(chain->build->name));
    json_object_set_new(key, "epoch", json_integer(context->epoch));
    json_object_set(key, "source", chain->identity);
    /* Packer's sources have arguments that change nothing of the first state, and one edit of them must not cost a bake. */
    json_object_set_new(key, "args", chain->source->packers ? json_object() : secrets_mask_json(chain->secrets, chain->base.args));
    if (chain->output && source_image_ref(chain->base.args))
        json_object_set_new(key, "output", json_string(chain->output));
    json_digest(key, &chain->source_key);
}

/* One at a time in this process: builds of a batch that share a source make it once. */
static bool make_source(BakeChain *chain, const SourceContext *context, GError **error)
{
    static GMutex one_at_a_time;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&one_at_a_time);
    const TemplateBlock *source = chain->build->source;
    g_autoptr(StoreState) cached = NULL;

    if (!chain->options->no_cache && !store_state_get(chain->store, &chain->source_key, &cached, error))
        return false;
    if (cached)
        return unpack_source_state(cached, &chain->state, error);
    if (!chain->source->prepare(context, chain->base.args, chain->identity, &chain->state, error))
        return fail_prefix(error, "source '%s'", source->type);
    chain->epoch = chain->state.epoch;
    if (chain->state.layout == LAYOUT_NONE)
        return true; /* a source of nothing */
    if (!(chain->state.layout == LAYOUT_INPLACE ? bake_content(chain, &chain->state.map, &chain->state.content, error)
                                                : bake_tree_content(chain, &chain->state.tree, &chain->state.content, error)))
        return fail_prefix(error, "source '%s'", source->type);
    chain->source_cached = bake_parent_images(chain) != NULL; /* looking at an image of the store is no work */
    return remember_source(chain, error);
}

/*
 * Where today's archive still gives the recorded root it is made again; else the one that the store kept has to do, and it is said. A place that
 * does not answer is no reason to stop.
 */
static bool identify_recorded(BakeChain *chain, SourceContext *context, GError **error)
{
    const BakeRebuild *rebuild = chain->options->rebuild;
    g_autoptr(json_t) today = NULL;
    g_autoptr(GError) problem = NULL;

    chain->identity = json_incref(rebuild->source);
    if (!rebuild->source)
        return fail(error, "what it was baked from was not recorded");
    if (strcmp(chain->source->type, "bootstrap") != 0 ||
        (chain->source->identify(context, chain->base.args, &today, &problem) && json_equal(today, rebuild->source)))
        return true;
    log_warning("the root is not made again: %s; the store's own copy of it is taken", problem ? problem->message : "the archive has other packages now");
    context->anew = false;
    context->kept = true;
    return true;
}

/* What the store took in then from outside is what was recorded: it need not be there any more. */
static bool is_rebuilt_import(const BakeChain *chain)
{
    return chain->options->rebuild && strcmp(chain->source->type, "bootstrap") != 0;
}

/* The environment of then, not of now. */
static void recorded_context(const BakeChain *chain, SourceContext *context)
{
    const BakeRebuild *rebuild = chain->options->rebuild;
    const json_t *request = json_object_get(json_object_get(rebuild->source, "root"), "request"), *said = json_object_get(request, "source_date_epoch");

    context->template_dir = rebuild->dir;
    if (chain->build->source_date_epoch < 0)
        context->epoch = json_is_integer(said) ? json_integer_value(said) : -1;
}

static bool identify_source(BakeChain *chain, SourceContext *context, GError **error)
{
    return chain->options->rebuild ? identify_recorded(chain, context, error) : chain->source->identify(context, chain->base.args, &chain->identity, error);
}

/* @make: a first state that is not there is made; else *ret_known tells. */
static bool plan_source(BakeChain *chain, bool make, bool *ret_known, GError **error)
{
    const TemplateBuild *build = chain->build;
    SourceContext context = bake_source_context(chain);
    bool imported = is_rebuilt_import(chain);
    g_autoptr(StoreState) cached = NULL;

    if (chain->options->rebuild)
        recorded_context(chain, &context);
    *ret_known = true;
    if (!identify_source(chain, &context, error))
        return fail_prefix(error, "source '%s'", build->source->type);
    source_key(chain, &context);
    if ((!chain->options->no_cache || imported) && !store_state_get(chain->store, &chain->source_key, &cached, error))
        return false;
    if (cached) {
        chain->source_cached = true;
        return unpack_source_state(cached, &chain->state, error);
    }
    if (imported)
        context.epoch = chain->options->rebuild->epoch;
    *ret_known = make;
    if (!make)
        return true;
    return make_source(chain, &context, error);
}

static bool check_step_inputs(BakeChain *chain, BakeStep *step, GError **error)
{
    g_autoptr(json_t) unused = json_object();
    g_autoptr(GError) problem = NULL;

    if (add_inputs(chain, step, unused, &problem))
        return true;
    return step->block->place ? template_complain(step->block, NULL, error, "%s", problem->message)
                              : fail_code(error, KILN_ERROR_USAGE, "%s: %s", chain->build->name, problem->message);
}

/* A seed that cannot be read, and steps that nothing could run in. */
static bool check_first_boot(BakeChain *chain, GError **error)
{
    const char *argument = NULL;

    if (chain->problem) {
        g_propagate_error(error, g_steal_pointer(&chain->problem));
        return fail_prefix(error, "source '%s'", chain->build->source->type);
    }
    if (chain->first_boot && !provisioner_first_boot()->check(chain->first_boot->args, &argument, error))
        return fail_prefix(error, "the seed");
    for (guint i = 0; !chain->source->default_output && i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];

        if (step->ops && step->ops->needs_guest && !step->ops->stops)
            return template_complain(step->block, NULL, error, "provisioner \"%s\" needs a guest, and a source \"%s\" has none", step->block->type,
                                     chain->build->source->type);
    }
    return true;
}

/* A missing upload is told before an hour of bootstrap, not after it; what steps on the host are to make may not be there yet. */
static bool check_inputs(BakeChain *chain, GError **error)
{
    bool made = false;

    if (!check_first_boot(chain, error))
        return false;
    for (guint i = 0; i < chain->steps->len && !made; i++) {
        if (!check_step_inputs(chain, chain->steps->pdata[i], error))
            return false;
        made = host_step_is_declared(chain->steps->pdata[i]);
    }
    return !chain->cleanup || check_step_inputs(chain, chain->cleanup, error);
}

static bool changes_anything(const BakeChain *chain)
{
    for (guint i = 0; i < chain->steps->len; i++)
        if (!is_stop(chain->steps->pdata[i]))
            return true;
    return false;
}

static size_t number_of_blocks(const BakeChain *chain)
{
    size_t n = chain->steps->len;

    return n > 0 && !((BakeStep *)chain->steps->pdata[n - 1])->block ? n - 1 : n;
}

static bool find_named_step(const BakeChain *chain, const char *name, size_t *ret)
{
    unsigned found = 0;

    for (size_t i = 0; i < number_of_blocks(chain); i++)
        if (strcmp(((BakeStep *)chain->steps->pdata[i])->label, name) == 0) {
            *ret = i;
            found++;
        }
    return found == 1;
}

/* The seal is the step behind the last block; where there is none its place is the end. */
bool bake_find_step(const BakeChain *chain, const char *text, size_t *ret)
{
    size_t n = number_of_blocks(chain);
    guint64 number;

    *ret = strcmp(text, "end") == 0 ? chain->steps->len : n;
    if (g_ascii_string_to_unsigned(text, 10, 1, n + 1, &number, NULL)) {
        *ret = (size_t)number - 1;
        return true;
    }
    return find_named_step(chain, text, ret) || strcmp(text, "seal") == 0 || strcmp(text, "end") == 0;
}

#define SELINUX_CONFIG "etc/selinux/config"
#define SELINUX_CONFIG_MAX ((size_t)64 << 10)

/* Only the guest's own setfiles can label files, so a root with SELinux needs the seal in the guest even when no step runs. */
static bool needs_labels(BakeChain *chain, bool *ret, GError **error)
{
    const TemplateBlock *block;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GBytes) config = NULL;
    g_autofree char *policy = NULL, *rules = NULL;
    const TreeEntry *entry;

    *ret = false;
    if (bake_parent_images(chain) || digest_is_none(&chain->state.tree.tree) || !bake_wants_output(chain, "disk", &block))
        return true;
    if (!tree_load(chain->store, &chain->state.tree, &tree, &files, error))
        return false;
    entry = tree_find(tree, SELINUX_CONFIG);
    if (!entry || entry->type != 'f' || entry->size > SELINUX_CONFIG_MAX)
        return true;
    if (!tree_read_file(tree, files, SELINUX_CONFIG, SELINUX_CONFIG_MAX, &config, error))
        return false;
    if (!provisioner_wants_labels(g_bytes_get_data(config, NULL), &policy) || !policy)
        return true;
    rules = g_strdup_printf("etc/selinux/%s/contexts/files/file_contexts", policy);
    *ret = tree_find(tree, rules) != NULL;
    return true;
}

static bool find_hits(BakeChain *chain, GError **error)
{
    bool seal = changes_anything(chain) || chain->state.layout == LAYOUT_INPLACE;

    chain->epoch = chain->state.epoch;
    chain->env = base_environment(chain);
    /* Without steps a rendered root was never touched by a guest: the host's own cleaning is enough, but for labels. */
    if (!seal && !needs_labels(chain, &seal, error))
        return false;
    if (seal && chain->state.layout != LAYOUT_NONE)
        add_sysprep(chain);
    for (chain->hits = 0; chain->hits < chain->steps->len; chain->hits++) {
        if (!bake_step_lookup(chain, chain->hits, error))
            return false;
        if (!((BakeStep *)chain->steps->pdata[chain->hits])->cached)
            break;
    }
    return true;
}

bool bake_plan(BakeChain *chain, GError **error)
{
    bool known;

    return secrets_load(chain->template, chain->build, &chain->secrets, error) && check_inputs(chain, error) &&
           plan_source(chain, true, &known, error) && find_hits(chain, error);
}

bool bake_plan_known(BakeChain *chain, bool *ret_known, GError **error)
{
    return secrets_load(chain->template, chain->build, &chain->secrets, error) && check_inputs(chain, error) &&
           plan_source(chain, false, ret_known, error) && (!*ret_known || find_hits(chain, error));
}

/* ---- records of the last bake ---- */

static char *records_key(const BakeChain *chain)
{
    return g_strdup_printf("record:%s:%s", chain->build->name, chain->output ? chain->output : "");
}

bool bake_records_load(BakeChain *chain, json_t **ret, GError **error)
{
    g_autofree char *key = records_key(chain), *text = NULL;

    *ret = NULL;
    if (!store_memo_get(chain->store, key, &text, error))
        return false;
    if (text)
        (void)json_parse(text, strlen(text), (size_t)64 << 20, key, ret, NULL); /* unreadable is as good as none */
    return true;
}

json_t *bake_records_of(const BakeChain *chain)
{
    json_t *list = json_array();

    for (guint i = 0; i < chain->steps->len; i++) {
        const BakeStep *step = chain->steps->pdata[i];

        if (step->record)
            json_array_append(list, step->record);
    }
    return list;
}

bool bake_records_save(BakeChain *chain, GError **error)
{
    g_autoptr(json_t) before = NULL, now = bake_records_of(chain);
    g_autofree char *key = records_key(chain), *text = json_canonical(now);

    if (!bake_records_load(chain, &before, error))
        return false;
    return json_equal(before, now) || store_memo_put(chain->store, key, text, NULL, NULL, error);
}
