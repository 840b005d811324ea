/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NoCloud seed that a qemu source would show its machine: on a CD or floppy of its own, on one of qemuargs, or over HTTP.
 */
#ifndef KILN_BAKER_SOURCE_SEED_H
#define KILN_BAKER_SOURCE_SEED_H

#include "baker/source.h"

/* Arguments of the step "first boot" (provisioner/first-boot.c); *ret is NULL where there is no seed. What is there and is none is told. */
bool source_seed(const SourceContext *context, const json_t *args, json_t **ret, GError **error);

/* source-iso.c: files at the top of an ISO 9660 image. @names: NULL-terminated; *ret_texts has as many places, NULL for what is not there. */
bool source_iso_read(const char *path, const char *const *names, size_t max, char **ret_texts, GError **error);
/* Its volume's label, "" where it is no such image. Free with g_free. */
char *source_iso_label(const char *path);

#endif
