/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balancers that there are.
 */
#include "deploy/balancer.h"
#include "deploy/members.h"

static const BalancerOps *const balancers[] = {
    &balancer_fake_ops,
    &balancer_haproxy_ops,
    &balancer_none_ops,
    NULL,
};

const BalancerOps *balancer_find(const char *name, char **ret_names)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (size_t i = 0; balancers[i]; i++) {
        if (strcmp(balancers[i]->name, name) == 0)
            return balancers[i];
        g_string_append_printf(names, "%s%s", names->len > 0 ? ", " : "", balancers[i]->name);
    }
    if (ret_names)
        *ret_names = g_string_free(g_steal_pointer(&names), FALSE);
    return NULL;
}
