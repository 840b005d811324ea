/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sources there are. A new one is a file beside this and a line here; and what takes a source's place.
 */
#include "baker/source-common.h"

#include <string.h>

static const SourceOps *const sources[] = {
    &source_bootstrap_ops, &source_disk_ops, &source_docker_ops, &source_file_ops, &source_null_ops, &source_oci_ops, &source_qemu_ops,
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

void source_base_clear(SourceBase *base)
{
    g_clear_pointer(&base->args, json_decref);
}

/* "image:REF", "oci:DIR[:TAG]", "oci-archive:FILE", or a disk image. */
void source_base(const char *type, const json_t *args, const char *rebase, SourceBase *ret)
{
    bool container;

    if (!rebase) {
        *ret = (SourceBase){.ops = source_find(type), .args = json_incref((json_t *)args)};
        return;
    }
    container = g_str_has_prefix(rebase, "oci:") || g_str_has_prefix(rebase, "oci-archive:") || strcmp(rebase, "scratch") == 0;
    *ret = (SourceBase){.ops = container ? &source_oci_ops : &source_disk_ops, .args = json_pack("{s:s}", "from", rebase)};
}
