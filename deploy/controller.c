/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking, asking the transition function, having it done (perform.c), until there is a reason to stop.
 */
#include "deploy/controller.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "deploy/firewall.h"
#include "deploy/judge.h"
#include "deploy/perform.h"
#include "deploy/repair.h"

static const double POLL = 0.1, POLL_IDLE = 2, POLL_FAILED_MAX = 10; /* seconds */

bool controller_open(Store *store, const char *name, bool wait, Controller **ret, GError **error)
{
    g_autoptr(Controller) controller = g_new0(Controller, 1);

    controller->prepared = g_hash_table_new(g_direct_hash, g_direct_equal);
    if (!group_write(store, name, wait, &controller->group, error) || !world_open(controller->group, true, &controller->world, error))
        return false;
    *ret = g_steal_pointer(&controller);
    return true;
}

void controller_close(Controller *controller)
{
    if (!controller)
        return;
    world_close(controller->world);
    group_free(controller->group);
    g_hash_table_unref(controller->prepared);
    analysis_free(controller->analysis);
    g_free(controller->last_failure);
    g_free(controller->last_wait);
    g_free(controller->walled);
    g_free(controller);
}

bool controller_verb(Controller *controller, const char *verb, json_t *arguments, const char *reason, const char *on_behalf_of, GError **error)
{
    return group_append_one(controller->group, group_verb_record(verb, arguments, reason, on_behalf_of), error) &&
           world_extend(controller->world, error);
}

void controller_note_failure(Controller *controller, const char *sentence)
{
    g_free(controller->last_failure);
    controller->last_failure = g_strdup(sentence);
}

bool controller_want(Controller *controller, const Plan *plan, GError **error)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    json_t *record;
    size_t i;

    json_array_foreach(plan->records, i, record)
        g_ptr_array_add(records, json_incref(record));
    return group_append(controller->group, records, error) && world_extend(controller->world, error);
}

/* --- what others asked for while we hold the lock --- */

static bool take_requests(Controller *controller, GError **error)
{
    g_autoptr(GPtrArray) requests = NULL;

    if (!store_journal_asked(controller->group->journal, &requests, error))
        return false;
    for (guint i = 0; i < requests->len; i++) {
        const StoreJournalRequest *request = requests->pdata[i];

        json_object_set_new(request->request, "asked_by", json_string_nocheck(request->who));
        if (!group_append_one(controller->group, json_incref(request->request), error) ||
            !store_journal_answered(controller->group->journal, request->number, error))
            return false;
    }
    return requests->len == 0 || world_extend(controller->world, error);
}

/* --- steps --- */

/* Revocation with --stop forbids healing; without, a warning is enough. */
static bool look_at_revocations(Controller *controller, GError **error)
{
    Group *group = controller->group;

    for (guint i = 0; i < group->state->revisions->len; i++) {
        Revision *revision = &g_array_index(group->state->revisions, Revision, i);
        StoreRevocation revocation = {0};

        if (revision->number != group->state->current && revision->number != group->state->target)
            continue;
        if (!store_revocation(group->store, &group_revision_facts(group, revision->number)->image, &revocation, error))
            return false;
        revision->stopped = revocation.revoked && revocation.stop;
        store_revocation_clear(&revocation);
    }
    return true;
}

/* The sentence that a failed start will be explained with. */
static void note_late(Controller *controller)
{
    const GroupState *state = controller->group->state;

    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *row = &g_array_index(state->instances, Instance, i);
        g_autofree char *why = NULL;

        if (row->ended || row->served || row->drained || row->revision != state->target || (!row->start_late && row->life != LIFE_DEAD))
            continue;
        why = world_why_not(controller->world, row);
        if (why)
            controller_note_failure(controller, why);
    }
}

static int compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Addresses of what exists; told to the firewall when they change. */
static bool keep_firewall(Controller *controller, GError **error)
{
    const RevisionFacts *ruling = group_ruling(controller->group);
    const GroupState *state = controller->group->state;
    g_autoptr(GPtrArray) addresses = g_ptr_array_new();
    g_autoptr(GString) key = g_string_new(NULL);
    const char *kind = ruling ? world_firewall(controller->world, ruling) : NULL;

    if (!kind || !g_str_has_prefix(kind, "nft"))
        return true;
    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *row = &g_array_index(state->instances, Instance, i);
        const InstanceFacts *facts = group_facts(controller->group, row->revision, row->slot, row->attempt);

        if (!row->ended && facts->address)
            g_ptr_array_add(addresses, facts->address);
    }
    g_ptr_array_sort(addresses, compare_texts);
    for (guint i = 0; i < addresses->len; i++)
        g_string_append_printf(key, "%s ", (char *)addresses->pdata[i]);
    if (g_strcmp0(key->str, controller->walled) == 0)
        return true;
    if (!firewall_apply(controller->group->name, (const char *const *)ruling->spec->shape.allow, addresses, error))
        return fail_prefix(error, "the firewall of group '%s'", controller->group->name);
    g_free(controller->walled);
    controller->walled = g_strdup(key->str);
    return true;
}

bool controller_step(Controller *controller, ControllerStep *ret, GError **error)
{
    Group *group = controller->group;
    g_autoptr(GArray) actions = g_array_new(FALSE, TRUE, sizeof(Action));

    *ret = (ControllerStep){0};
    if (!take_requests(controller, error) || !look_at_revocations(controller, error) || !world_observe(controller->world, error) ||
        !repair_balancers(controller, error) || !keep_firewall(controller, error) || !judge_step(controller, error))
        return false;
    if (repair_is_pending(controller)) { /* not at rest: it will agree, or be told again */
        ret->acted = true;
        ret->wait = WAIT_BALANCER;
        return true;
    }
    note_late(controller);
    group_next(group_rules(group), group->state, actions, &ret->wait);
    if (actions->len > 0) {
        ret->acted = true;
        return perform_batch(controller, actions, error) && world_extend(controller->world, error);
    }
    ret->settled = group_settled(group_rules(group), group->state);
    return true;
}

bool controller_is_quiet(const ControllerStep *step)
{
    return !step->acted && (step->wait >= WAIT_PAUSED || step->wait == WAIT_EPOCH || step->wait == WAIT_BALANCER || step->wait == WAIT_HOST);
}

static bool is_reached(const Controller *controller, const ControllerStep *step, ControllerUntil until)
{
    const GroupState *state = controller->group->state;
    bool rolling = state->target || state->next || state->phase == PHASE_DESTROY;

    if (step->acted || until == UNTIL_NEVER)
        return false;
    if (step->settled)
        return true;
    if (until == UNTIL_QUIET)
        return controller_is_quiet(step);
    if (until == UNTIL_STABLE)
        return !rolling && step->wait == WAIT_NOTHING;
    if (step->wait == WAIT_GATE || step->wait == WAIT_PAUSED || step->wait == WAIT_INCONCLUSIVE)
        return true;
    return state->phase == PHASE_HOLD && step->wait == WAIT_HOLD;
}

static void tell_wait(Controller *controller, const ControllerStep *step)
{
    const char *sentence = wait_sentence(step->wait);

    if (step->acted || step->settled || step->wait == WAIT_NOTHING || g_strcmp0(sentence, controller->last_wait) == 0)
        return;
    if (step->wait == WAIT_EPOCH || step->wait == WAIT_BALANCER || step->wait == WAIT_HOST || step->wait == WAIT_INCONCLUSIVE)
        log_info("%s: %s", controller->group->name, sentence); /* somebody may have to help */
    else
        log_verbose("%s: %s", controller->group->name, sentence);
    g_free(controller->last_wait);
    controller->last_wait = g_strdup(sentence);
}

static double pause_of(const Controller *controller, const ControllerStep *step)
{
    if (controller->failures > 0)
        return MIN(POLL_FAILED_MAX, 0.25 * (1u << MIN(controller->failures, 6u)));
    if (controller->disagree_since)
        return POLL;
    if (step->acted)
        return 0;
    return step->settled ? POLL_IDLE : POLL;
}

bool controller_run(Controller *controller, ControllerUntil until, Wait *ret_wait, GError **error)
{
    ControllerStep step;

    for (;;) {
        double pause;

        if (!interrupt_check(error) || !controller_step(controller, &step, error))
            return false;
        tell_wait(controller, &step);
        if (is_reached(controller, &step, until))
            break;
        pause = pause_of(controller, &step);
        if (pause > 0)
            world_wait(controller->world, pause);
    }
    if (ret_wait)
        *ret_wait = step.wait;
    return true;
}

