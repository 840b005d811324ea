/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The drivers that there are.
 */
#include "deploy/driver.h"
#include "deploy/members.h"

static const DriverOps *const drivers[] = {
    &driver_fake_ops,
    &driver_fake_oci_ops,
    &driver_libvirt_ops,
    &driver_runc_ops,
    NULL,
};

const DriverOps *driver_find(const char *name, char **ret_names)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (size_t i = 0; drivers[i]; i++) {
        if (strcmp(drivers[i]->name, name) == 0)
            return drivers[i];
        g_string_append_printf(names, "%s%s", names->len > 0 ? ", " : "", drivers[i]->name);
    }
    if (ret_names)
        *ret_names = g_string_free(g_steal_pointer(&names), FALSE);
    return NULL;
}
