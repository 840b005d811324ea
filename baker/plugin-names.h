/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which plugin of Packer a type of block is of, where a template does not say so itself: for refusals that name it.
 */
#ifndef KILN_BAKER_PLUGIN_NAMES_H
#define KILN_BAKER_PLUGIN_NAMES_H

/* "github.com/OWNER/NAME", or NULL. */
const char *plugin_known_for(const char *type);

#endif
