/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's kernel that appliances boot: the newest of /boot that can be read and has its modules.
 */
#ifndef KILN_BASE_HOST_KERNEL_H
#define KILN_BASE_HOST_KERNEL_H

#include <glib.h>
#include <stdbool.h>

/* *ret_modules: its folder of modules; either may be NULL. The error says what to install or to change. */
bool host_kernel_find(char **ret_kernel, char **ret_modules, GError **error);

#endif
