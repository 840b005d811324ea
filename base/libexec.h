/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of ours that lie beside kiln: programs that it starts or carries into the appliance, plugins for other programs.
 */
#ifndef KILN_BASE_LIBEXEC_H
#define KILN_BASE_LIBEXEC_H

#include <glib.h>
#include <stdbool.h>

/* Beside the program (in the build folder, for tests one level up), where it is installed, or in $KILN_LIBEXEC_DIR. */
bool libexec_find(const char *name, char **ret_path, GError **error);

#endif
