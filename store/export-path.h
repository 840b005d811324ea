/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an export goes: "-", a pipe or a device is written to as it is, a file is replaced when the new one is whole and on the disk.
 */
#ifndef KILN_STORE_EXPORT_PATH_H
#define KILN_STORE_EXPORT_PATH_H

#include <glib.h>
#include <stdbool.h>

typedef bool ExportPathFn(int fd, void *arg, GError **error);

/* Calls @fn with what takes the bytes: empty, readable and seekable where it is a file. Folders and terminals are refused before. */
bool export_to_path(const char *path, ExportPathFn *fn, void *arg, GError **error);

#endif
