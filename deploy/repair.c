/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Balancers that do not agree: one missed a word by a crash between two, by a reload, or somebody told it something by hand.
 */
#include "deploy/repair.h"

#include "base/error.h"
#include "base/log.h"

enum { REPAIRS_MAX = 5, REPAIR_SECONDS = 3 };

bool repair_is_pending(const Controller *controller)
{
    return controller->disagree_since && controller->repairs < REPAIRS_MAX;
}

/* One of them missed a change, by a crash between two or a reload: the last call is made again, which is harmless where it was heard. */
static bool repair_entry(Controller *controller, Instance *row, GError **error)
{
    World *world = controller->world;
    Balancer *balancer = world->balancer;
    const InstanceFacts *facts = group_facts(controller->group, row->revision, row->slot, row->attempt);
    uint32_t color = group_color(controller->group, row->revision), place = (uint32_t)row->place;
    g_autofree char *address = group_instance_address(controller->group, facts);
    uint64_t cut;

    if (row->drained) /* where it is out already, it shall be out everywhere */
        return balancer->ops->drain(balancer, color, place, NULL) || balancer->ops->leave(balancer, color, place, &cut, error);
    if (row->served && controller->repairs == 0 && balancer->ops->route(balancer, color, place, row->weight ? row->weight : WEIGHT_MAX, NULL))
        return true;
    return !address || balancer->ops->enter(balancer, color, place, address, error);
}

/* Disagreement for a moment is how changes arrive. What lasts is repaired, and gets time to show. */
bool repair_balancers(Controller *controller, GError **error)
{
    World *world = controller->world;
    GroupState *state = controller->group->state;

    if (!world->view.reached || world->view.answers) {
        controller->repairs = 0;
        controller->disagree_since = 0;
        return true;
    }
    if (!controller->disagree_since)
        controller->disagree_since = world->now;
    if ((double)(world->now - controller->disagree_since) < REPAIR_SECONDS * G_USEC_PER_SEC || controller->repairs >= REPAIRS_MAX)
        return true;
    log_warning("%s: the balancers do not agree, what they were told last is told again: %s", controller->group->name,
                world->view.problem ? world->view.problem : "");
    for (guint i = 0; i < state->instances->len; i++) {
        Instance *row = &g_array_index(state->instances, Instance, i);

        if (!row->ended && row->place >= 0 && row->route == ROUTE_UNKNOWN && group_revision(state, row->revision) && !repair_entry(controller, row, error))
            return false;
    }
    if (controller->group->switched >= 0 && world->balancer->ops->switch_color &&
        !world->balancer->ops->switch_color(world->balancer, (uint32_t)controller->group->switched, error))
        return false;
    controller->repairs++;
    controller->disagree_since = world->now;
    return true;
}
