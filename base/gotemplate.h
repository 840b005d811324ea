/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The little of Go's text/template that Packer's options use: "{{ .Path }}",
 * "{{ .Vars }}", "{{ build_name }}", "{{ if .X }}..{{ else }}..{{ end }}", trim markers, and the
 * functions of Packer's engine: build_name build_type timestamp isotime upper lower clean_resource_name template_dir pwd.
 * Fields and functions without arguments come from @values; an unknown one is an error naming it.
 */
#ifndef KILN_BASE_GOTEMPLATE_H
#define KILN_BASE_GOTEMPLATE_H

#include <glib.h>
#include <stdbool.h>

/* @values: name (without dot) -> text, e.g. "Path" or "build_name". */
bool gotemplate_expand(const char *text, GHashTable *values, char **ret, GError **error);

#endif
