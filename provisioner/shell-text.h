/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `shell` and `shell-local` share: a script's text and the {{.Vars}} of its command line.
 */
#ifndef KILN_PROVISIONER_SHELL_TEXT_H
#define KILN_PROVISIONER_SHELL_TEXT_H

#include "base/json.h"
#include "provisioner/host.h"

#include <glib.h>
#include <stdbool.h>

/* "#!SHEBANG", then `inline`'s lines, each expanded. */
bool shell_text_inline(const json_t *args, const ProvisionerHost *host, const char *shebang, GString **ret,
                       GError **error);

/*
 * Every variable of `env` and `environment_vars`, and PACKER_BUILD_NAME and PACKER_BUILDER_TYPE, sorted by
 * name, each written by
 * @format: a text with two %s, name and value. The value's single quotes are escaped for use inside single
 * quotes.
 */
bool shell_text_vars(const json_t *args, const ProvisionerHost *host, const char *format, char **ret,
                     GError **error);

/* @format must hold exactly two %s and no other conversion. */
bool shell_text_check_format(const json_t *args, const char **ret_argument, GError **error);

/* CRLF to LF, in place. */
void shell_text_strip_cr(GString *text);

/* The scripts by name: `script` or `scripts`, expanded. Empty for inline. */
bool shell_text_scripts(const json_t *args, const ProvisionerHost *host, char ***ret, GError **error);

#endif
