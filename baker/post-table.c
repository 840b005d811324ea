/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All post-processors. A new one is its file, a line in post-members.h and a line here.
 */
#include "baker/post-members.h"

#include <string.h>

static const PostOps *const table[] = {
    &post_artifice_ops,
    &post_checksum_ops,
    &post_compress_ops,
    &post_docker_import_ops,
    &post_docker_push_ops,
    &post_docker_save_ops,
    &post_docker_tag_ops,
    &post_manifest_ops,
    &post_shell_local_ops,
};

const PostOps *post_find(const char *type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
        if (strcmp(table[i]->type, type) == 0)
            return table[i];
    return NULL;
}

const char *const *post_types(void)
{
    static const char *types[G_N_ELEMENTS(table) + 1]; /* the same values whoever fills them */

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
        types[i] = table[i]->type;
    return types;
}

const char *post_refusal(const char *type)
{
    static const struct {
        const char *type, *why;
    } refused[] = {
        {"amazon-import", "it needs a cloud's service; export the image and import it there"},
        {"googlecompute-import", "it needs a cloud's service; `kiln export --format=gce` writes what it imports"},
        {"vagrant", "kiln writes no Vagrant boxes; \"compress\" makes archives"},
        {"vagrant-cloud", "kiln writes no Vagrant boxes"},
        {"vsphere", "it needs a server of VMware's"},
        {"vsphere-template", "it needs a server of VMware's"},
        {"provenance", "every set has its provenance in the store; `kiln sign` signs it"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++)
        if (strcmp(refused[i].type, type) == 0)
            return refused[i].why;
    return NULL;
}
