/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a repository of Docker's is called in the store, which is here what Docker's daemon is to Packer: "registry.example:5000/team/app" is "team.app".
 */
#ifndef KILN_BAKER_DOCKER_NAMES_H
#define KILN_BAKER_DOCKER_NAMES_H

/* Docker's rule: the first part is a registry when it could not be a folder's name. */
const char *docker_without_registry(const char *repository);
char *docker_name_in_store(const char *repository); /* free with g_free */

#endif
