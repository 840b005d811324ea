/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML 1.1 as JSON, as far as the two agree: what cloud-init and its like read. A door to libyaml.
 *
 * Plain scalars mean what they mean to PyYAML: yes, no, on and off are booleans, 0644 is octal, 0x1f hexadecimal; times and what else JSON has not are
 * text. Keys are text. The last of equal keys counts. Aliases cost what they stand for, depth and size are bounded.
 */
#ifndef KILN_BASE_YAML_H
#define KILN_BASE_YAML_H

#include "base/json.h"

/* The first document of @text; an empty one is null. @what names it in errors, which tell the line. New reference. */
bool yaml_parse(const char *text, size_t size, const char *what, json_t **ret, GError **error);

#endif
