/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All provisioners. A new one is its file, a line in members.h and a line here.
 */
#include "provisioner/members.h"

#include <string.h>

static const ProvisionerOps *const table[] = {
    &provisioner_ansible,  &provisioner_ansible_local,     &provisioner_breakpoint, &provisioner_chef_solo,   &provisioner_file,
    &provisioner_packages, &provisioner_puppet_masterless, &provisioner_shell,      &provisioner_shell_local, &provisioner_sleep,
    &provisioner_test,
};

const ProvisionerOps *provisioner_find(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
        if (strcmp(table[i]->type, type) == 0)
            return table[i];
    return NULL;
}

const char *const *provisioner_types(void)
{
    static const char *types[G_N_ELEMENTS(table) + 1]; /* the same values whoever fills them */

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
        types[i] = table[i]->type;
    return types;
}

bool provisioner_always_runs(const ProvisionerOps *ops, const json_t *args)
{
    return ops->always_runs || (ops->has_effects && ops->has_effects(args));
}

void provisioner_input_free(ProvisionerInput *input)
{
    if (!input)
        return;
    g_free(input->name);
    g_free(input->path);
    g_free(input);
}
