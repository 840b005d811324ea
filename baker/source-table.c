/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sources there are. A new one is a file beside this and a line here.
 */
#include "baker/source-common.h"

static const SourceOps *const sources[] = {
    &source_bootstrap_ops,
    &source_disk_ops,
    &source_oci_ops,
};

const SourceOps *source_find(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sources); i++)
        if (strcmp(sources[i]->type, type) == 0)
            return sources[i];
    return NULL;
}

const char *const *source_types(void)
{
    static const char *types[G_N_ELEMENTS(sources) + 1];

    for (size_t i = 0; i < G_N_ELEMENTS(sources); i++)
        types[i] = sources[i]->type;
    return types;
}
