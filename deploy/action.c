/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of journal, plan and status for what the transition function says.
 */
#include "deploy/transition.h"

#include <string.h>

static const char *const kind_names[] = {"create", "attest", "enter", "route", "drain", "leave", "destroy", "switch",
                                         "lost", "begin", "phase", "stable", "failed", "returned", "ended"};
static const char *const cause_names[] = {"rollout", "scale", "dead", "sick", "start-failed", "wrong-image", "replace", "stray",
                                          "analysis", "deadline", "asked", "held", "superseded", "destroy"};
static const char *const phase_names[] = {"idle", "roll", "watch", "hold", "clean", "back", "destroy"};
static const char *const wait_sentences[] = {
    "nothing", "a controller with a higher epoch has taken this group", "the balancers do not answer, do not agree or have no free entry",
    "a host does not answer", "no more instances may exist at once", "instances start", "health checks", "the pause before the next attempt",
    "sessions end", "the rollout is paused", "the analysis is inconclusive: `continue` or `abort`", "the gate: `continue` or `abort`",
    "the analysis", "the hold time",
};

static bool find(const char *const *names, unsigned count, const char *name, unsigned *ret)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

bool action_is_decision(ActionKind kind)
{
    return kind >= ACTION_LOST;
}

bool action_is_on_instance(ActionKind kind)
{
    return kind <= ACTION_DESTROY || kind == ACTION_LOST;
}

const char *action_kind_name(ActionKind kind)
{
    return kind_names[kind];
}

const char *cause_name(Cause cause)
{
    return cause_names[cause];
}

const char *phase_name(Phase phase)
{
    return phase_names[phase];
}

const char *wait_sentence(Wait wait)
{
    return wait_sentences[wait];
}

bool action_kind_parse(const char *name, ActionKind *ret)
{
    unsigned at;

    if (!find(kind_names, G_N_ELEMENTS(kind_names), name, &at))
        return false;
    *ret = (ActionKind)at;
    return true;
}

bool cause_parse(const char *name, Cause *ret)
{
    unsigned at;

    if (!find(cause_names, G_N_ELEMENTS(cause_names), name, &at))
        return false;
    *ret = (Cause)at;
    return true;
}

bool phase_parse(const char *name, Phase *ret)
{
    unsigned at;

    if (!find(phase_names, G_N_ELEMENTS(phase_names), name, &at))
        return false;
    *ret = (Phase)at;
    return true;
}
