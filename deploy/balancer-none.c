/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No balancer: a group whose instances get their work from elsewhere (a queue, a database's replication, nothing at all). It has no
 * places, always answers, and whatever is asked of it is done already.
 */
#include "base/error.h"
#include "deploy/members.h"

static bool none_check(const json_t *arguments, Strategy strategy, const char **ret_argument, GError **error)
{
    static const char *const keys[] = {NULL};

    *ret_argument = NULL;
    if (arguments && !json_only_keys(arguments, keys, ret_argument))
        return fail_code(error, KILN_ERROR_USAGE, "balancer \"none\" has no argument '%s'", *ret_argument);
    if (strategy == STRATEGY_BLUEGREEN)
        return fail_code(error, KILN_ERROR_USAGE, "strategy \"bluegreen\" needs a balancer that can switch, and the group has none");
    return true;
}

static bool none_open(const BalancerConfig *config, Balancer **ret, GError **error)
{
    *ret = g_new0(Balancer, 1);
    (*ret)->ops = &balancer_none_ops;
    return true;
}

static void none_close(Balancer *balancer)
{
    g_free(balancer);
}

static char *none_config_lines(const BalancerConfig *config)
{
    return g_strdup("");
}

static bool none_verify(Balancer *balancer, GError **error)
{
    return true;
}

static bool none_observe(Balancer *balancer, BalancerView *ret, GError **error)
{
    *ret = (BalancerView){.answers = true, .reached = true, .color = -1};
    ret->entries = g_ptr_array_new_with_free_func((GDestroyNotify)balancer_entry_free);
    return true;
}

static bool none_enter(Balancer *balancer, uint32_t color, uint32_t place, const char *address, GError **error)
{
    return true;
}

static bool none_route(Balancer *balancer, uint32_t color, uint32_t place, unsigned weight, GError **error)
{
    return true;
}

static bool none_drain(Balancer *balancer, uint32_t color, uint32_t place, GError **error)
{
    return true;
}

static bool none_leave(Balancer *balancer, uint32_t color, uint32_t place, uint64_t *ret_cut, GError **error)
{
    *ret_cut = 0;
    return true;
}

const BalancerOps balancer_none_ops = {
    .name = "none",
    .check = none_check,
    .open = none_open,
    .close = none_close,
    .config_lines = none_config_lines,
    .verify = none_verify,
    .observe = none_observe,
    .enter = none_enter,
    .route = none_route,
    .drain = none_drain,
    .leave = none_leave,
};
