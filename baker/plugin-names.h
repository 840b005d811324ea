/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plugins of Packer: which one a type of block is of, where a template does not say so itself, and what stands in for it. For refusals and advice.
 */
#ifndef KILN_BAKER_PLUGIN_NAMES_H
#define KILN_BAKER_PLUGIN_NAMES_H

#include <stdbool.h>

/* "github.com/OWNER/NAME", or NULL. */
const char *plugin_known_for(const char *type);

/* What stands in for a plugin, by its source ("github.com/OWNER/NAME"), in words; *ret_usable: its blocks work here. */
const char *plugin_stand_in(const char *source, bool *ret_usable);

#endif
