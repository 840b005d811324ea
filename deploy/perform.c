/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One batch of actions: intents into the journal, the deeds, outcomes into the journal. The controller may be killed between any two lines of
 * this file; what it left is found by the next look at the world.
 */
#include "deploy/perform.h"

#include "base/error.h"
#include "base/log.h"
#include "deploy/firewall.h"

#include <signal.h>
#include <stdlib.h>

static const double GRACE = 10; /* seconds that an instance has to end by itself */

/* KILN_TEST_KILL=N ends the process at the Nth point at which a crash could leave things half done. */
static void crash_point(void)
{
    static long left = -1;
    const char *text;

    if (left == -1) {
        text = getenv("KILN_TEST_KILL");
        left = text ? strtol(text, NULL, 10) : 0;
    }
    if (left > 0 && --left == 0)
        (void)raise(SIGKILL);
}

typedef struct Batch {
    Controller *controller;
    GArray *actions;    /* Action */
    GArray *numbers;    /* int64_t: the intents' n; 0 for decisions */
    GPtrArray *records; /* intents, then outcomes */
    GPtrArray *problems; /* GError* or NULL per action */
    GPtrArray *extras;  /* json_t* or NULL per action: what goes into the outcome */
    GHashTable *taken;  /* addresses */
    GPtrArray *list;    /* addresses of revision list_of, looked at up to list_next */
    uint32_t list_of;
    guint list_next;
    unsigned prefix_length;
} Batch;

static void free_problem(gpointer error)
{
    if (error)
        g_error_free(error);
}

static void free_json(gpointer json)
{
    json_decref(json);
}

static void batch_init(Batch *batch, Controller *controller, GArray *actions)
{
    *batch = (Batch){.controller = controller,
                     .actions = actions,
                     .numbers = g_array_new(FALSE, TRUE, sizeof(int64_t)),
                     .records = g_ptr_array_new_with_free_func(free_json),
                     .problems = g_ptr_array_new_with_free_func(free_problem),
                     .extras = g_ptr_array_new_with_free_func(free_json),
                     .taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
    g_array_set_size(batch->numbers, actions->len);
    g_ptr_array_set_size(batch->problems, (gint)actions->len);
    g_ptr_array_set_size(batch->extras, (gint)actions->len);
}

static void batch_clear(Batch *batch)
{
    g_array_unref(batch->numbers);
    g_ptr_array_unref(batch->records);
    g_ptr_array_unref(batch->problems);
    g_ptr_array_unref(batch->extras);
    g_hash_table_unref(batch->taken);
    g_clear_pointer(&batch->list, g_ptr_array_unref);
}

static Action *batch_action(const Batch *batch, guint i)
{
    return &g_array_index(batch->actions, Action, i);
}

static GError **batch_problem(const Batch *batch, guint i)
{
    return (GError **)&batch->problems->pdata[i];
}

static RevisionFacts *revision_of(const Batch *batch, const Action *action)
{
    return group_revision_facts(batch->controller->group, action->revision);
}

static InstanceFacts *facts_of(const Batch *batch, const Action *action)
{
    return group_facts(batch->controller->group, action->revision, action->slot, action->attempt);
}

static uint32_t color_of(const Batch *batch, const Action *action)
{
    return group_color(batch->controller->group, action->revision);
}

/* --- addresses --- */

/* Addresses of all that exists, so that none is given twice. */
static void collect_taken(Batch *batch)
{
    const Group *group = batch->controller->group;

    for (guint i = 0; i < group->state->instances->len; i++) {
        const Instance *row = &g_array_index(group->state->instances, Instance, i);
        const InstanceFacts *facts = group_facts(group, row->revision, row->slot, row->attempt);

        if (!row->ended && facts->address)
            g_hash_table_add(batch->taken, g_strdup(facts->address));
    }
}

/* The list of the batch's revision, expanded once; a batch creates instances of one revision, as a rule. */
static bool address_list(Batch *batch, const RevisionFacts *revision, GError **error)
{
    if (batch->list && batch->list_of == revision->number)
        return true;
    g_clear_pointer(&batch->list, g_ptr_array_unref);
    batch->list_of = revision->number;
    batch->list_next = 0;
    return group_addresses(&revision->spec->shape, &batch->list, &batch->prefix_length, error);
}

/* The first free address of the list goes into the intent: whoever resumes gives the same one. */
static bool choose_address(Batch *batch, const Action *action, char **ret, GError **error)
{
    const RevisionFacts *revision = revision_of(batch, action);
    const InstanceFacts *facts = facts_of(batch, action);

    *ret = NULL;
    if (!revision->spec->shape.addresses)
        return true;
    if (facts->address) { /* asked for once already */
        *ret = g_strdup(facts->address);
        return true;
    }
    if (!address_list(batch, revision, error))
        return false;
    while (batch->list_next < batch->list->len) {
        const char *address = batch->list->pdata[batch->list_next++];

        if (g_hash_table_add(batch->taken, g_strdup(address))) {
            *ret = g_strdup(address);
            return true;
        }
    }
    return fail(error, "group '%s' has no free address left in network.addresses (%u given): add some", batch->controller->group->name, batch->list->len);
}

/* --- intents --- */

/* The record that begins a rollout carries what was asked for, so that an audit needs no other. */
static void describe_begin(const Group *group, const Action *action, json_t *record)
{
    static const char *const keys[] = {"plan", "reason", "on_behalf_of", "approver", "allow_revoked", "steps", "rollback"};
    const RevisionFacts *to = group_revision_facts(group, action->revision), *from = group_revision_facts(group, group->state->current);
    char image[DIGEST_OCI_SIZE];

    json_object_set_new(record, "image", json_string(digest_to_oci(&to->image, image)));
    if (from) {
        json_object_set_new(record, "from_revision", json_integer(from->number));
        json_object_set_new(record, "from_image", json_string(digest_to_oci(&from->image, image)));
    }
    if (to->tests)
        json_object_set_new(record, "tests", json_string(to->tests));
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        if (json_object_get(group->want, keys[i]))
            json_object_set(record, keys[i], json_object_get(group->want, keys[i]));
}

static void describe_failed(const Controller *controller, json_t *record)
{
    if (controller->last_failure)
        json_object_set_new(record, "why", json_string_nocheck(controller->last_failure));
}

/* The last records of a rollout say whether it went as planned, step by step. */
static void describe_end(const Group *group, const Action *action, json_t *record)
{
    const char *planned = json_string_value(json_object_get(group->rollout, "steps"));
    g_autofree char *last = group_action_line(group, action), *lines = g_strdup_printf("%s%s\n", group->executed->str, last);
    Digest executed;
    char text[DIGEST_OCI_SIZE];

    if (!planned)
        return;
    digest_of_string(lines, &executed);
    json_object_set_new(record, "as_planned", json_boolean(strcmp(planned, digest_to_oci(&executed, text)) == 0));
}

static bool add_intent(Batch *batch, guint i, GError **error)
{
    Group *group = batch->controller->group;
    const Action *action = batch_action(batch, i);
    json_t *record = group_action_record(group, action);
    g_autofree char *address = NULL;

    g_ptr_array_add(batch->records, record);
    g_array_index(batch->numbers, int64_t, i) = json_integer_value(json_object_get(record, "n"));
    if (action->kind == ACTION_CREATE) {
        if (!choose_address(batch, action, &address, error))
            return false;
        if (address)
            json_object_set_new(record, "address", json_string(address));
    }
    if (action->kind == ACTION_BEGIN)
        describe_begin(group, action, record);
    if (action->kind == ACTION_FAILED)
        describe_failed(batch->controller, record);
    if (action->kind == ACTION_STABLE)
        describe_end(group, action, record);
    return true;
}

static bool journal_intents(Batch *batch, GError **error)
{
    collect_taken(batch);
    for (guint i = 0; i < batch->actions->len; i++)
        if (!add_intent(batch, i, error))
            return false;
    return group_append(batch->controller->group, batch->records, error);
}

/* --- outcomes --- */

static void add_outcome(Batch *batch, guint i)
{
    const GError *problem = *batch_problem(batch, i);
    json_t *extra = batch->extras->pdata[i];
    json_t *record = json_pack("{s:s, s:I, s:b}", "do", "done", "n", (json_int_t)g_array_index(batch->numbers, int64_t, i), "ok", problem == NULL);

    if (problem)
        json_object_set_new(record, "error", json_string_nocheck(problem->message));
    if (extra)
        (void)json_object_update(record, extra);
    g_ptr_array_add(batch->records, record);
}

static void tell_outcome(Batch *batch, guint i)
{
    Controller *controller = batch->controller;
    const GError *problem = *batch_problem(batch, i);
    const Action *action = batch_action(batch, i);
    g_autofree char *line = group_action_line(controller->group, action);

    controller->changed = true;
    if (!problem) {
        if (action_is_decision(action->kind) || action->kind == ACTION_SWITCH || action->kind == ACTION_CREATE || action->kind == ACTION_ROUTE ||
            action->kind == ACTION_DESTROY)
            log_info("%s: %s%s%s%s", controller->group->name, line, action->cause != CAUSE_ROLLOUT ? " (" : "",
                     action->cause != CAUSE_ROLLOUT ? cause_name(action->cause) : "", action->cause != CAUSE_ROLLOUT ? ")" : "");
        else
            log_verbose("%s: %s", controller->group->name, line);
        return;
    }
    log_warning("%s: %s: %s", controller->group->name, line, problem->message);
    controller_note_failure(controller, problem->message);
}

static bool journal_outcomes(Batch *batch, GError **error)
{
    bool failed = false;

    g_ptr_array_set_size(batch->records, 0);
    for (guint i = 0; i < batch->actions->len; i++) {
        if (!action_is_decision(batch_action(batch, i)->kind))
            add_outcome(batch, i);
        failed = failed || *batch_problem(batch, i);
        tell_outcome(batch, i);
    }
    batch->controller->failures = failed ? batch->controller->failures + 1 : 0;
    return batch->records->len == 0 || group_append(batch->controller->group, batch->records, error);
}

/* --- doing --- */

static bool find_image(const Batch *batch, const RevisionFacts *revision, StoreImage **ret, GError **error)
{
    char id[DIGEST_OCI_SIZE];

    return store_resolve(batch->controller->group->store, digest_to_oci(&revision->image, id), revision->kind, ret, error);
}

static bool prepare_revision(Batch *batch, const RevisionFacts *revision, GError **error)
{
    Driver *driver = world_driver(batch->controller->world, revision);
    g_autoptr(StoreImage) image = NULL;

    if (g_hash_table_contains(batch->controller->prepared, GUINT_TO_POINTER(revision->number)))
        return true;
    if (!find_image(batch, revision, &image, error) || !driver->ops->prepare(driver, image, error))
        return false;
    g_hash_table_add(batch->controller->prepared, GUINT_TO_POINTER(revision->number));
    return true;
}

static void fail_all(Batch *batch, const guint *at, guint count, const GError *error)
{
    for (guint i = 0; i < count; i++)
        if (!*batch_problem(batch, at[i]))
            *batch_problem(batch, at[i]) = g_error_copy(error);
}

static void fill_create(Batch *batch, const Action *action, const RevisionFacts *revision, DriverCreate *ret)
{
    Controller *controller = batch->controller;

    if (revision->spec->shape.addresses)
        (void)address_list(batch, revision, NULL);
    *ret = (DriverCreate){.id = {.revision = action->revision,
                                 .slot = action->slot,
                                 .attempt = action->attempt,
                                 .image = revision->image,
                                 .epoch = store_journal_epoch(controller->group->journal)},
                          .host = MAX(world_driver_host(controller->world, revision, action->host), 0),
                          .address = facts_of(batch, action)->address,
                          .prefix_length = batch->prefix_length,
                          .shape = &revision->spec->shape};
    (void)g_strlcpy(ret->id.group, controller->group->name, sizeof ret->id.group);
}

/* All creates of one revision, as one call. */
static void create_some(Batch *batch, const RevisionFacts *revision, const guint *at, guint count)
{
    Driver *driver = world_driver(batch->controller->world, revision);
    g_autofree DriverCreate *creates = g_new0(DriverCreate, count);
    g_autofree GError **problems = g_new0(GError *, count);
    g_autoptr(GError) error = NULL;

    for (guint i = 0; i < count; i++)
        fill_create(batch, batch_action(batch, at[i]), revision, &creates[i]);
    if (!prepare_revision(batch, revision, &error) || !driver->ops->create(driver, creates, count, problems, &error)) {
        fail_all(batch, at, count, error);
        g_hash_table_remove(batch->controller->prepared, GUINT_TO_POINTER(revision->number));
    }
    for (guint i = 0; i < count; i++) {
        if (!problems[i])
            continue;
        g_clear_error(batch_problem(batch, at[i]));
        *batch_problem(batch, at[i]) = problems[i];
        g_hash_table_remove(batch->controller->prepared, GUINT_TO_POINTER(revision->number)); /* the image there may be what is wrong */
    }
}

static void destroy_some(Batch *batch, const RevisionFacts *revision, const guint *at, guint count)
{
    World *world = batch->controller->world;
    Driver *driver = world_driver(world, revision);
    g_autofree const DriverInstance **instances = g_new0(const DriverInstance *, count);
    g_autofree guint *which = g_new0(guint, count);
    g_autofree GError **problems = g_new0(GError *, count);
    g_autoptr(GError) error = NULL;
    guint found = 0;

    for (guint i = 0; i < count; i++) {
        const Action *action = batch_action(batch, at[i]);
        const DriverInstance *seen = world_seen(world, action->revision, action->slot, action->attempt);

        if (!seen) /* absent is success */
            continue;
        which[found] = at[i];
        instances[found++] = seen;
    }
    if (found > 0 && !driver->ops->destroy(driver, instances, found, GRACE, problems, &error))
        fail_all(batch, which, found, error);
    for (guint i = 0; i < found; i++)
        if (problems[i])
            *batch_problem(batch, which[i]) = problems[i];
}

static void attest_one(Batch *batch, guint i)
{
    const Action *action = batch_action(batch, i);
    World *world = batch->controller->world;
    const RevisionFacts *revision = revision_of(batch, action);
    const DriverInstance *seen = world_seen(world, action->revision, action->slot, action->attempt);
    Driver *driver = world_driver(world, revision);
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    unsigned flags = 0;
    json_t *extra = json_object();

    batch->extras->pdata[i] = extra;
    if (!seen) {
        (void)fail(batch_problem(batch, i), "it is gone");
        return;
    }
    if (!find_image(batch, revision, &image, batch_problem(batch, i)))
        return;
    if (driver->ops->attest(driver, seen, image, &revision->spec->shape, &flags, &error))
        json_object_set_new(extra, "proof", json_string("good"));
    else {
        log_warning("%s: '%s' does not run its image, and gets no traffic: %s", batch->controller->group->name, seen->name, error->message);
        controller_note_failure(batch->controller, error->message);
        json_object_set_new(extra, "proof", json_string("bad"));
        json_object_set_new(extra, "why", json_string_nocheck(error->message));
    }
    json_object_set_new(extra, "proofs", json_integer(flags));
    if (seen->address)
        json_object_set_new(extra, "address", json_string_nocheck(seen->address));
}

static bool enter_one(Batch *batch, const Action *action, GError **error)
{
    Balancer *balancer = batch->controller->world->balancer;
    g_autofree char *address = group_instance_address(batch->controller->group, facts_of(batch, action));

    if (!address)
        return fail(error, "its address is not known");
    return balancer->ops->enter(balancer, color_of(batch, action), (uint32_t)action->place, address, error);
}

static bool leave_one(Batch *batch, guint i, const Action *action, GError **error)
{
    Balancer *balancer = batch->controller->world->balancer;
    uint64_t cut = 0;

    if (!balancer->ops->leave(balancer, color_of(batch, action), (uint32_t)action->place, &cut, error))
        return false;
    if (cut > 0) {
        log_warning("%s: %" G_GUINT64_FORMAT " sessions were cut when the drain's deadline passed", batch->controller->group->name, cut);
        batch->extras->pdata[i] = json_pack("{s:I}", "cut", (json_int_t)cut);
    }
    return true;
}

/* From the moment the first balancer may have heard it until all have said so: only then can both revisions have got new requests. */
static bool switch_one(Batch *batch, guint i, const Action *action, GError **error)
{
    Balancer *balancer = batch->controller->world->balancer;
    gint64 begun = g_get_monotonic_time();
    double overlap;

    if (!balancer->ops->switch_color)
        return true;
    if (!balancer->ops->switch_color(balancer, action->color, error))
        return false;
    overlap = (double)(g_get_monotonic_time() - begun) / 1000;
    log_info("%s: switched; both revisions got new requests for at most %.1f ms", batch->controller->group->name, overlap);
    batch->extras->pdata[i] = json_pack("{s:f}", "overlap_ms", overlap);
    return true;
}

static bool balance_one(Batch *batch, guint i, GError **error)
{
    const Action *action = batch_action(batch, i);
    Balancer *balancer = batch->controller->world->balancer;
    uint32_t place = (uint32_t)action->place;

    if (batch->controller->group->state->places == 0 || (action->place < 0 && action->kind != ACTION_SWITCH))
        return true; /* a group without balancer: the journal is its route */
    switch (action->kind) {
    case ACTION_ENTER:
        return enter_one(batch, action, error);
    case ACTION_ROUTE:
        return balancer->ops->route(balancer, color_of(batch, action), place, action->weight, error);
    case ACTION_DRAIN:
        return balancer->ops->drain(balancer, color_of(batch, action), place, error);
    case ACTION_LEAVE:
        return leave_one(batch, i, action, error);
    case ACTION_SWITCH:
        return switch_one(batch, i, action, error);
    default:
        return true;
    }
}

typedef void SomeFn(Batch *batch, const RevisionFacts *revision, const guint *at, guint count);

/* Runs @fn over the batch's actions of one kind, revision by revision. */
static void by_revision(Batch *batch, ActionKind kind, SomeFn *fn)
{
    g_autofree guint *at = g_new0(guint, batch->actions->len);
    g_autoptr(GHashTable) done = g_hash_table_new(g_direct_hash, g_direct_equal);

    for (guint i = 0; i < batch->actions->len; i++) {
        const Action *first = batch_action(batch, i);
        guint count = 0;

        if (first->kind != kind || !g_hash_table_add(done, GUINT_TO_POINTER(first->revision)))
            continue;
        for (guint j = i; j < batch->actions->len; j++)
            if (batch_action(batch, j)->kind == kind && batch_action(batch, j)->revision == first->revision)
                at[count++] = j;
        if (revision_of(batch, first))
            fn(batch, revision_of(batch, first), at, count);
    }
}

static void do_batch(Batch *batch)
{
    by_revision(batch, ACTION_CREATE, create_some);
    for (guint i = 0; i < batch->actions->len; i++) {
        ActionKind kind = batch_action(batch, i)->kind;

        if (kind == ACTION_ATTEST)
            attest_one(batch, i);
        else if (kind >= ACTION_ENTER && kind <= ACTION_SWITCH && kind != ACTION_DESTROY)
            (void)balance_one(batch, i, batch_problem(batch, i));
        crash_point();
    }
    by_revision(batch, ACTION_DESTROY, destroy_some);
}

static bool has_kind(const GArray *actions, ActionKind kind)
{
    for (guint i = 0; i < actions->len; i++)
        if (g_array_index(actions, Action, i).kind == kind)
            return true;
    return false;
}

/* What has to be gone before the journal may say that all is gone. */
static bool end_group(Controller *controller, const GArray *actions, GError **error)
{
    if (!has_kind(actions, ACTION_ENDED))
        return true;
    if (controller->group->end_volumes && !world_end_volumes(controller->world, error))
        return false;
    return !controller->walled || firewall_remove(controller->group->name, error);
}

/* A rollout is over: images that nobody needs leave the hosts, and the journal's head is signed where a key is configured. */
static void tidy(Controller *controller, const GArray *actions)
{
    g_autoptr(GArray) keep = NULL;
    g_autoptr(GError) error = NULL;

    if (!has_kind(actions, ACTION_STABLE) && !has_kind(actions, ACTION_RETURNED) && !has_kind(actions, ACTION_ENDED))
        return;
    if (store_journal_all_holds(controller->group->store, &keep, &error)) /* other groups have their images in the same folders */
        world_forget_images(controller->world, keep);
    g_clear_error(&error);
    if (controller->key && !store_sign_heads(controller->group->store, controller->key, NULL, &error))
        log_warning("%s: the journal's head is not signed: %s", controller->group->name, error->message);
}

bool perform_batch(Controller *controller, GArray *actions, GError **error)
{
    Batch batch;
    bool ok;

    batch_init(&batch, controller, actions);
    crash_point();
    ok = end_group(controller, actions, error) && journal_intents(&batch, error);
    crash_point();
    if (ok) {
        do_batch(&batch);
        crash_point();
        ok = journal_outcomes(&batch, error);
        crash_point();
    }
    if (ok)
        tidy(controller, actions);
    batch_clear(&batch);
    return ok;
}
