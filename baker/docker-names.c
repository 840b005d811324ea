/* SPDX-License-Identifier: Apache-2.0 */
#include "baker/docker-names.h"

#include <glib.h>
#include <string.h>

const char *docker_without_registry(const char *repository)
{
    const char *slash = strchr(repository, '/');
    g_autofree char *first = slash ? g_strndup(repository, (gsize)(slash - repository)) : NULL;

    return first && (strpbrk(first, ".:") || strcmp(first, "localhost") == 0) ? slash + 1 : repository;
}

char *docker_name_in_store(const char *repository)
{
    return g_strdelimit(g_strdup(docker_without_registry(repository)), "/", '.');
}
