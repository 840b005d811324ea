/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The little of Go's text/template that Packer's options use, beside HCL.
 *
 *   {{ .Path }}  {{ build_name }}  {{ upper .Vars }}  {{ .Name | clean_resource_name }}  {{ `literal {{` }}
 *   {{ if ne .X "a" }}..{{ else if .Y }}..{{ else }}..{{ end }}   {{- trim markers -}}   {{/ * comments * /}}
 *
 * Functions: upper lower replace replace_all split clean_resource_name isotime eq ne and or not. Fields (with
 * a dot) and functions without arguments (build_name, build_type, template_dir, pwd, timestamp, uuid,
 * packer_version ...) come from @values; isotime reads @values' "timestamp". `build "ID"` reads @values'
 * "build.ID". An unknown name is an error that tells it.
 */
#ifndef KILN_BASE_GOTEMPLATE_H
#define KILN_BASE_GOTEMPLATE_H

#include <glib.h>
#include <stdbool.h>

/* @values: name (without dot) -> text, e.g. "Path" or "build_name". Text without "{{" comes back as it is. */
bool gotemplate_expand(const char *text, GHashTable *values, char **ret, GError **error);

#endif
