/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan is a rollout in a perfect world: the transition function is asked, what it wants is written down, and then it is so.
 */
#include "deploy/plan.h"

#include "base/error.h"
#include "base/units.h"

enum { ROUNDS_MAX = 200000 };

static void step_free(gpointer data)
{
    PlanStep *step = data;

    g_free(step->line);
    g_free(step);
}

void plan_free(Plan *plan)
{
    if (!plan)
        return;
    g_free(plan->group);
    store_image_free(plan->image);
    json_decref(plan->records);
    g_ptr_array_unref(plan->steps);
    g_ptr_array_unref(plan->warnings);
    g_free(plan->firewall);
    g_strfreev(plan->hosts);
    g_free(plan->needs);
    g_free(plan->counts);
    g_free(plan);
}

/* --- a world in which everything works --- */

typedef struct Rehearsal {
    const Group *group;
    const GroupSpec *spec;
    const GroupRules *rules;
    GroupState *state;
    GPtrArray *steps; /* PlanStep* */
    unsigned *counts; /* existing instances per host, and their peak */
    unsigned *peak;
    bool gates;
    GroupState **held; /* where not NULL: gets a copy of the first state in which the new revision has everything */
} Rehearsal;

static void count_hosts(Rehearsal *r)
{
    if (!r->peak)
        return;
    memset(r->counts, 0, sizeof *r->counts * r->state->host_count);
    for (guint i = 0; i < r->state->instances->len; i++) {
        const Instance *row = &g_array_index(r->state->instances, Instance, i);

        if (instance_exists(row) && row->host >= 0)
            r->counts[row->host]++;
    }
    for (unsigned i = 0; i < r->state->host_count; i++)
        r->peak[i] = MAX(r->peak[i], r->counts[i]);
}

static void add_step(Rehearsal *r, char *line, bool wait, double worst)
{
    PlanStep *step = g_new(PlanStep, 1);

    *step = (PlanStep){.line = line, .wait = wait, .worst = worst};
    step->serving = group_serving(r->rules, r->state);
    step->existing = group_existing(r->state);
    g_ptr_array_add(r->steps, step);
}

static void come_true(const Rehearsal *r, const Action *action)
{
    Instance *row = group_instance(r->state, action->revision, action->slot, action->attempt);

    if (action->kind == ACTION_SWITCH)
        r->state->color = (int32_t)action->color;
    if (action->kind == ACTION_PHASE || action->kind == ACTION_BEGIN)
        r->state->hold_over = false;
    if (!row)
        return;
    if (action->kind == ACTION_CREATE) {
        row->life = LIFE_RUNNING;
        row->health = HEALTH_GOOD;
        row->created = true;
    } else if (action->kind == ACTION_ENTER) {
        row->route = ROUTE_DRAINED;
        row->up = true;
    } else if (action->kind == ACTION_ROUTE) {
        row->route = ROUTE_IN;
        row->up = true;
        row->weight = action->weight;
    } else if (action->kind == ACTION_DRAIN) {
        row->route = ROUTE_DRAINED;
        row->empty = true;
    } else if (action->kind == ACTION_LEAVE) {
        row->route = ROUTE_OUT;
        row->empty = true;
    } else if (action->kind == ACTION_DESTROY)
        row->life = LIFE_NONE;
}

static double worst_of(const Rehearsal *r, const Action *action)
{
    if (action->kind == ACTION_CREATE)
        return r->spec->start_timeout;
    return action->kind == ACTION_DRAIN ? r->spec->drain_deadline : 0;
}

static void rehearse_batch(Rehearsal *r, const GArray *actions)
{
    double worst = 0;

    for (guint i = 0; i < actions->len; i++) {
        const Action *action = &g_array_index(actions, Action, i);

        worst = MAX(worst, worst_of(r, action));
        group_intend(r->rules, r->state, action);
        if (!action_is_decision(action->kind))
            group_outcome(r->rules, r->state, action, true, PROOF_GOOD);
        come_true(r, action);
        if (action->kind == ACTION_CREATE)
            count_hosts(r);
        if (action->kind != ACTION_BEGIN && action->kind != ACTION_LOST)
            add_step(r, group_action_line(r->group, action), false, i + 1 == actions->len ? worst : 0);
    }
}

/* False: nothing that time or people could bring. */
static bool rehearse_wait(Rehearsal *r, Wait wait)
{
    GroupState *state = r->state;
    double seconds;

    if (wait == WAIT_HOLD && !state->hold_over) {
        g_autofree char *text = NULL;

        seconds = state->phase == PHASE_HOLD ? r->spec->rollback_keep : r->spec->canary_hold;
        text = units_format_duration(seconds);
        add_step(r, g_strdup_printf("hold %s", text), true, seconds);
        return state->hold_over = true;
    }
    if (wait == WAIT_VERDICT && state->verdict == VERDICT_NONE) {
        seconds = 0;
        for (guint i = 0; i < r->spec->analyses->len; i++) {
            const AnalysisSpec *analysis = r->spec->analyses->pdata[i];

            seconds = MAX(seconds, analysis->interval * (analysis->samples + 1));
        }
        add_step(r, g_strdup("wait for the analysis to pass"), true, seconds);
        state->verdict = VERDICT_PASS;
        return true;
    }
    if (wait == WAIT_GATE && !state->passed_gate) {
        add_step(r, g_strdup_printf("wait for `kiln deploy continue %s`", r->group->name), true, 0);
        r->gates = true;
        return state->passed_gate = true;
    }
    return false;
}

/* What the rows say of now is taken as it is; what is on its way will arrive. */
static void settle(GroupState *state)
{
    for (guint i = 0; i < state->instances->len; i++) {
        Instance *row = &g_array_index(state->instances, Instance, i);

        row->cooled = true;
        row->start_late = false;
        if (row->ended || row->life == LIFE_DEAD || row->life == LIFE_NONE)
            continue; /* what a silent host has will come back with it */
        row->life = LIFE_RUNNING;
        row->health = HEALTH_GOOD;
        if (row->route == ROUTE_IN || (row->route == ROUTE_DRAINED && !row->drained))
            row->up = true;
        if (row->route == ROUTE_DRAINED)
            row->empty = true;
    }
}

static void keep_held(Rehearsal *r)
{
    if (r->held && !*r->held && r->state->phase == PHASE_HOLD)
        *r->held = group_state_copy(r->state);
}

static bool rehearse(Rehearsal *r, GError **error)
{
    g_autoptr(GArray) actions = g_array_new(FALSE, TRUE, sizeof(Action));
    Wait wait;

    settle(r->state);
    count_hosts(r);
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        keep_held(r);
        group_next(r->rules, r->state, actions, &wait);
        if (actions->len > 0)
            rehearse_batch(r, actions);
        else if (!rehearse_wait(r, wait))
            return wait == WAIT_NOTHING || group_settled(r->rules, r->state) ||
                   fail(error, "group '%s' cannot get there: %s", r->group->name, wait_sentence(wait));
    }
    return fail(error, "group '%s' cannot get there: the steps do not end", r->group->name);
}

static double sum_worst(const GPtrArray *steps)
{
    double sum = 0;

    for (guint i = 0; i < steps->len; i++)
        sum += ((const PlanStep *)steps->pdata[i])->worst;
    return sum;
}

/* From the moment in which all traffic is on the new revision: until the old one has it again. */
static double rollback_from(const Group *group, const GroupSpec *spec, const GroupState *held)
{
    g_autoptr(GPtrArray) steps = g_ptr_array_new_with_free_func(step_free);
    g_autoptr(GroupState) state = group_state_copy(held);
    Rehearsal r = {.group = group, .spec = spec, .rules = &spec->rules, .state = state, .steps = steps};
    double sum = 0, until = 0;

    if (!state->current)
        return 0;
    state->asked_back = true;
    if (!rehearse(&r, NULL))
        return 0;
    for (guint i = 0; i < steps->len; i++) {
        const PlanStep *step = steps->pdata[i];

        sum += step->worst;
        if (g_str_has_prefix(step->line, "route ") || g_str_has_prefix(step->line, "switch "))
            until = sum;
    }
    return until;
}

double plan_rollback_seconds(const Group *group, const GroupSpec *spec)
{
    return group->state->target ? rollback_from(group, spec, group->state) : 0;
}

/* --- checks --- */

static bool find_image(Store *store, const GroupFile *file, const DriverOps *ops, StoreImage **ret, GError **error)
{
    return store_resolve(store, file->spec->image_ref, ops->kind, ret, error) ||
           fail_prefix(error, "group '%s'", file->spec->name);
}

static bool check_revoked(Store *store, const Plan *plan, const PlanRequest *request, GError **error)
{
    StoreRevocation revocation = {0};
    bool ok = true;

    if (!store_revocation(store, &plan->image->id, &revocation, error))
        return false;
    if (revocation.revoked && !request->allow_revoked)
        ok = fail(error, "the image of group '%s' was revoked: %s (a rollback may use it with --allow-revoked REASON)", plan->group, revocation.reason);
    else if (revocation.revoked && request->file)
        ok = fail(error, "the image of group '%s' was revoked: %s; only a rollback may use it", plan->group, revocation.reason);
    store_revocation_clear(&revocation);
    return ok;
}

/* Of all channels that name the image, when was it last promoted? */
static bool promoted_at(Store *store, const Digest *image, int64_t *ret, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;

    *ret = 0;
    if (!store_channels(store, NULL, true, &entries, error))
        return false;
    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];

        if (strcmp(entry->action, "promote") == 0 && digest_equal(&entry->image, image))
            *ret = MAX(*ret, entry->at);
    }
    return true;
}

static bool check_tests(Store *store, const GroupFile *file, const Plan *plan, GError **error)
{
    g_autoptr(json_t) tests = NULL;

    if (!file || !file->spec->needs_test)
        return true;
    if (!store_image_tests(store, &plan->image->id, &tests, error))
        return false;
    return json_array_size(tests) > 0 || fail(error, "group '%s' takes only images that passed a test, and no bake of this one ran any", plan->group);
}

static bool check_failed(Store *store, const Group *group, const Plan *plan, const PlanRequest *request, GError **error)
{
    int64_t promoted;

    for (guint i = group->revisions->len; i-- > 0 && !request->retry;) {
        const RevisionFacts *revision = group->revisions->pdata[i];

        if (!digest_equal(&revision->image, &plan->image->id))
            continue;
        if (!revision->failed_at || !group_revision(group->state, revision->number)->failed)
            return true;
        if (!promoted_at(store, &plan->image->id, &promoted, error))
            return false;
        return promoted > revision->failed_at / G_USEC_PER_SEC ||
               fail(error, "group '%s' was rolled back from this image as revision %u (%s): promote it again, or give --retry", plan->group,
                    revision->number, revision->failed_why);
    }
    return true;
}

/* --- the new revision --- */

static json_t *revision_record(Store *store, const Plan *plan, const GroupFile *file)
{
    g_autoptr(json_t) tests = NULL;
    char image[DIGEST_OCI_SIZE];
    json_t *record = json_pack("{s:s, s:I, s:s, s:s, s:s, s:o}", "do", "revision", "revision", (json_int_t)plan->revision, "image",
                               digest_to_oci(&plan->image->id, image), "kind", plan->image->kind, "name", plan->image->name, "spec",
                               group_spec_json(file->spec));

    if (store_image_tests(store, &plan->image->id, &tests, NULL) && json_array_size(tests) > 0) {
        g_autofree char *text = json_canonical(tests);

        json_object_set_new(record, "tests", json_string(text));
    }
    return record;
}

/* A revision that is the same in all but number is the same; but a failed one is not taken up again. */
static uint32_t find_same(const Group *group, const Plan *plan, const GroupFile *file)
{
    g_autoptr(json_t) spec = group_spec_json(file->spec);
    const GroupState *state = group->state;
    uint32_t candidates[] = {state->next, state->target, state->current};
    Digest digest;

    json_digest(spec, &digest);
    for (size_t i = 0; i < G_N_ELEMENTS(candidates); i++) {
        const RevisionFacts *revision = group_revision_facts(group, candidates[i]);

        if (!revision)
            continue;
        return digest_equal(&revision->image, &plan->image->id) && digest_equal(&revision->spec_digest, &digest) ? revision->number : 0;
    }
    return 0;
}

static void make_records(Store *store, const Group *group, Plan *plan, const PlanRequest *request)
{
    const GroupFile *file = request->file;
    unsigned size = file && (file->size_given || !group->exists || group->destroyed) ? file->size : group->state->size;
    uint32_t same = file ? find_same(group, plan, file) : request->revision;
    json_t *want;

    plan->records = json_array();
    plan->size = size;
    plan->revision = same ? same : group->revisions->len + 1;
    if (!same)
        json_array_append_new(plan->records, revision_record(store, plan, file));
    want = json_pack("{s:s, s:I, s:I}", "do", "want", "revision", (json_int_t)plan->revision, "size", (json_int_t)size);
    if (!file)
        json_object_set_new(want, "rollback", json_true());
    if (request->allow_revoked)
        json_object_set_new(want, "allow_revoked", json_string_nocheck(request->allow_revoked));
    json_array_append_new(plan->records, want);
}

/* The order of hosts is part of the revision: whoever reads the journal numbers them alike. */
static void record_hosts(World *world, const RevisionFacts *revision, Plan *plan)
{
    Driver *driver = world_driver(world, revision);
    json_t *record = json_array_get(plan->records, 0), *hosts;

    if (json_array_size(plan->records) < 2)
        return;
    hosts = json_array();
    for (unsigned i = 0; i < driver->ops->host_count(driver); i++)
        json_array_append_new(hosts, json_string(driver->ops->host_name(driver, i)));
    json_object_set_new(record, "hosts", hosts);
}

static bool imagine(Group *group, const json_t *records, GError **error)
{
    const json_t *record;
    size_t i;

    json_array_foreach(records, i, record)
        if (!group_imagine(group, record, error))
            return false;
    return true;
}

/* --- what is needed on hosts and of the balancer --- */

static bool check_hosts(World *world, const RevisionFacts *revision, Plan *plan, const PlanRequest *request, GError **error)
{
    Driver *driver = world_driver(world, revision);
    unsigned answering = 0;

    for (unsigned i = 0; i < world->group->state->host_count; i++) {
        int host = world_driver_host(world, revision, (int)i);

        if (host < 0)
            continue;
        if (world->group->state->hosts[i])
            answering++;
        else if (!request->without_silent_hosts)
            return fail(error, "host '%s' of group '%s' does not answer: start it, or give --without-silent-hosts", driver->ops->host_name(driver, (unsigned)host), plan->group);
    }
    return answering > 0 || fail(error, "no host of group '%s' answers", plan->group);
}

static bool check_room(const DriverNeeds *needs, const char *host, const char *group, GError **error)
{
    g_autofree char *need = NULL, *have = NULL;

    if (needs->disk_free && needs->disk > needs->disk_free) {
        need = units_format_size(needs->disk);
        have = units_format_size(needs->disk_free);
        return fail_code(error, KILN_ERROR_NO_SPACE, "group '%s' does not fit on host '%s': it needs %s of disk, and %s are free", group, host, need, have);
    }
    if (needs->memory_free && needs->memory > needs->memory_free) {
        need = units_format_size(needs->memory);
        have = units_format_size(needs->memory_free);
        return fail(error, "group '%s' does not fit on host '%s': it needs %s more memory, and %s are free", group, host, need, have);
    }
    return true;
}

/* Counts per host of the driver: new instances at the peak beyond those that exist already. */
static bool find_needs(World *world, const RevisionFacts *revision, const unsigned *before, const unsigned *peak, Plan *plan, GError **error)
{
    Driver *driver = world_driver(world, revision);
    unsigned count = driver->ops->host_count(driver);
    g_autofree unsigned *more = g_new0(unsigned, count + 1);

    plan->host_count = count;
    plan->hosts = g_new0(char *, count + 1);
    plan->needs = g_new0(DriverNeeds, count + 1);
    plan->counts = g_new0(unsigned, count + 1);
    for (unsigned i = 0; i < world->group->state->host_count; i++) {
        int host = world_driver_host(world, revision, (int)i);

        if (host < 0)
            continue;
        plan->counts[host] = peak[i];
        more[host] = peak[i] > before[i] ? peak[i] - before[i] : 0;
    }
    for (unsigned i = 0; i < count; i++)
        plan->hosts[i] = g_strdup(driver->ops->host_name(driver, i));
    if (!driver->ops->needs(driver, plan->image, &revision->spec->shape, more, plan->needs, error))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!check_room(&plan->needs[i], plan->hosts[i], plan->group, error))
            return false;
    return true;
}

static bool check_balancer(World *world, const RevisionFacts *revision, const Plan *plan, GError **error)
{
    unsigned wanted = world_places(revision->spec, plan->size);

    if (!world->balancer)
        return true;
    if (!world->view.answers)
        return fail(error, "the balancer of group '%s' cannot be used: %s", plan->group, world->view.problem ? world->view.problem : "it does not answer");
    if (world->balancer->ops->verify && !world->balancer->ops->verify(world->balancer, error))
        return fail_prefix(error, "the balancer of group '%s' (`kiln deploy balancer-config` prints what it needs)", plan->group);
    return world->view.places == 0 || world->view.places >= wanted ||
           fail(error, "the balancer of group '%s' has %u places, and %u are needed: `kiln deploy balancer-config` prints the line", plan->group,
                world->view.places, wanted);
}

static bool check_addresses(const GroupSpec *spec, unsigned size, GError **error)
{
    unsigned surge = spec->rules.strategy == STRATEGY_BLUEGREEN ? MAX(size, 1u) : spec->rules.max_surge;
    g_autoptr(GPtrArray) addresses = NULL;
    unsigned prefix;

    if (!spec->shape.addresses)
        return true;
    if (!group_addresses(&spec->shape, &addresses, &prefix, error))
        return false;
    return addresses->len >= size + surge ||
           fail(error, "group '%s' of size %u needs %u addresses (its ceiling), and network.addresses has %u", spec->name, size, size + surge, addresses->len);
}

bool plan_check_size(const Group *group, unsigned size, GError **error)
{
    const RevisionFacts *ruling = group_ruling(group);
    g_autoptr(World) world = NULL;

    if (!ruling)
        return fail(error, "group '%s' has no revision yet", group->name);
    if (!check_addresses(ruling->spec, size, error) || !world_open((Group *)group, false, &world, error) || !world_observe(world, error))
        return false;
    return world->view.places == 0 || world->view.places >= world_places(ruling->spec, size) ||
           fail(error, "the balancer of group '%s' has %u places, and size %u needs %u", group->name, world->view.places, size,
                world_places(ruling->spec, size));
}

/* A group in use keeps its balancer: its entries would be orphans. */
static bool check_same_balancer(const Group *group, const RevisionFacts *revision, GError **error)
{
    const RevisionFacts *now = group_revision_facts(group, group->state->current);

    if (!now || (strcmp(now->spec->balancer, revision->spec->balancer) == 0 &&
                 g_strcmp0(json_string_value(json_object_get(now->spec->balancer_arguments, "backend")),
                           json_string_value(json_object_get(revision->spec->balancer_arguments, "backend"))) == 0 &&
                 (now->spec->rules.strategy == STRATEGY_BLUEGREEN) == (revision->spec->rules.strategy == STRATEGY_BLUEGREEN)))
        return true;
    return fail_code(error, KILN_ERROR_USAGE, "group '%s' has instances behind its balancer: another balancer, backend or a change between blue/green and others needs `kiln deploy destroy` first", group->name);
}

/* --- the hash --- */

static json_t *existing_json(const GroupState *state)
{
    json_t *list = json_array();

    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *row = &g_array_index(state->instances, Instance, i);

        if (!row->ended && row->life != LIFE_NONE)
            json_array_append_new(list, json_pack("[I, I, I, i]", (json_int_t)row->revision, (json_int_t)row->slot, (json_int_t)row->attempt, row->host));
    }
    return list;
}

static void make_hash(const Group *group, const RevisionFacts *revision, Plan *plan, const json_t *existing)
{
    g_autoptr(GString) lines = g_string_new(NULL);
    g_autoptr(json_t) whole = NULL;
    char image[DIGEST_OCI_SIZE], spec[DIGEST_OCI_SIZE], steps[DIGEST_OCI_SIZE];

    for (guint i = 0; i < plan->steps->len; i++) {
        const PlanStep *step = plan->steps->pdata[i];

        if (!step->wait)
            g_string_append_printf(lines, "%s\n", step->line);
    }
    digest_of_string(lines->str, &plan->steps_digest);
    whole = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:O, s:I}", "group", group->name, "image", digest_to_oci(&plan->image->id, image), "spec",
                      digest_to_oci(&revision->spec_digest, spec), "size", (json_int_t)plan->size, "from", (json_int_t)plan->from, "steps",
                      digest_to_oci(&plan->steps_digest, steps), "existing", existing, "revision", (json_int_t)plan->revision);
    json_digest(whole, &plan->hash);
}

/* --- making one --- */

static bool plan_steps(Group *group, World *world, const RevisionFacts *revision, Plan *plan, GError **error)
{
    g_autoptr(GroupState) state = group_state_copy(group->state);
    g_autoptr(GroupState) held = NULL;
    g_autofree unsigned *counts = g_new0(unsigned, state->host_count + 1), *peak = g_new0(unsigned, state->host_count + 1);
    g_autofree unsigned *before = g_new0(unsigned, state->host_count + 1);
    g_autoptr(json_t) existing = existing_json(state);
    Rehearsal r = {.group = group, .spec = revision->spec, .rules = &plan->rules, .state = state, .steps = plan->steps, .counts = counts, .peak = peak, .held = &held};

    count_hosts(&r);
    memcpy(before, peak, sizeof *before * state->host_count);
    plan->floor = group_floor(r.rules, state);
    plan->ceiling = group_ceiling(r.rules, state);
    if (!rehearse(&r, error) || !find_needs(world, revision, before, peak, plan, error))
        return false;
    plan->gates = r.gates;
    plan->worst = sum_worst(plan->steps);
    plan->rollback = held ? rollback_from(group, revision->spec, held) : 0;
    make_hash(group, revision, plan, existing);
    return true;
}

static bool find_target(Store *store, const Group *group, const PlanRequest *request, Plan *plan, GError **error)
{
    const RevisionFacts *revision;
    char id[DIGEST_OCI_SIZE];

    if (request->file) {
        const DriverOps *ops = driver_find(request->file->spec->driver, NULL);

        return (ops || fail(error, "this kiln has no driver '%s'", request->file->spec->driver)) &&
               find_image(store, request->file, ops, &plan->image, error) && group_check_image(store, request->file->spec, plan->image, error);
    }
    revision = group_revision_facts(group, request->revision);
    return (revision || fail(error, "group '%s' has no revision %u", group->name, request->revision)) &&
           store_resolve(store, digest_to_oci(&revision->image, id), revision->kind, &plan->image, error);
}

bool plan_make(Store *store, const char *name, const PlanRequest *request, Plan **ret, GError **error)
{
    g_autoptr(Plan) plan = g_new0(Plan, 1);
    g_autoptr(Group) group = NULL;
    g_autoptr(World) world = NULL;
    const RevisionFacts *revision;

    plan->group = g_strdup(name);
    plan->steps = g_ptr_array_new_with_free_func(step_free);
    plan->warnings = g_ptr_array_new_with_free_func(g_free);
    if (!group_read(store, name, &group, error) || !find_target(store, group, request, plan, error) ||
        !check_revoked(store, plan, request, error) || !check_tests(store, request->file, plan, error) ||
        !check_failed(store, group, plan, request, error))
        return false;
    plan->from = group->state->current;
    make_records(store, group, plan, request);
    if (!imagine(group, plan->records, error))
        return false;
    revision = group_revision_facts(group, plan->revision);
    plan->rules = *group_rules(group);
    if (!check_same_balancer(group, revision, error) || !check_addresses(revision->spec, plan->size, error) || !world_open(group, false, &world, error) ||
        !world_use_balancer(world, revision, error) || !world_observe(world, error) || !check_hosts(world, revision, plan, request, error) || !check_balancer(world, revision, plan, error))
        return false;
    record_hosts(world, revision, plan);
    plan->firewall = g_strdup(world_firewall(world, revision));
    if (!plan_steps(group, world, revision, plan, error))
        return false;
    plan->nothing = plan->steps->len == 0;
    *ret = g_steal_pointer(&plan);
    return true;
}

json_t *plan_json(const Plan *plan)
{
    json_t *steps = json_array(), *hosts = json_array(), *warnings = json_array();
    char image[DIGEST_OCI_SIZE], hash[DIGEST_OCI_SIZE];

    for (guint i = 0; i < plan->steps->len; i++) {
        const PlanStep *step = plan->steps->pdata[i];

        json_array_append_new(steps, json_pack("{s:s, s:b, s:I, s:I, s:f}", "step", step->line, "wait", step->wait, "serving",
                                               (json_int_t)step->serving, "existing", (json_int_t)step->existing, "worst_seconds", step->worst));
    }
    for (unsigned i = 0; i < plan->host_count; i++)
        json_array_append_new(hosts, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "host", plan->hosts[i], "instances", (json_int_t)plan->counts[i],
                                               "bytes_to_move", (json_int_t)plan->needs[i].bytes_to_move, "disk", (json_int_t)plan->needs[i].disk,
                                               "disk_free", (json_int_t)plan->needs[i].disk_free, "memory", (json_int_t)plan->needs[i].memory,
                                               "memory_free", (json_int_t)plan->needs[i].memory_free));
    for (guint i = 0; i < plan->warnings->len; i++)
        json_array_append_new(warnings, json_string_nocheck(plan->warnings->pdata[i]));
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:I, s:I, s:f, s:f, s:b, s:s*, s:o, s:o, s:o, s:s}", "group", plan->group, "image",
                     digest_to_oci(&plan->image->id, image), "name", plan->image->name, "revision", (json_int_t)plan->revision, "from_revision",
                     (json_int_t)plan->from, "nothing_to_do", plan->nothing, "size", (json_int_t)plan->size, "floor", (json_int_t)plan->floor,
                     "ceiling", (json_int_t)plan->ceiling, "worst_seconds", plan->worst, "rollback_seconds", plan->rollback, "gates", plan->gates,
                     "firewall", plan->firewall, "hosts", hosts, "steps", steps, "warnings", warnings, "hash", digest_to_oci(&plan->hash, hash));
}
