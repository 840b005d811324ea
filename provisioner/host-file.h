/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the host that a step reads: where a name leads, and what goes into the step's key.
 */
#ifndef KILN_PROVISIONER_HOST_FILE_H
#define KILN_PROVISIONER_HOST_FILE_H

#include "provisioner/host.h"

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

#define HOST_FILES_MAX 1000000u /* files in one folder upload */
#define HOST_DEPTH_MAX 128u
#define HOST_TEXT_MAX ((size_t)4 << 20) /* bytes of a file that is looked into for the names of others */

/*
 * Finds @name as Packer does: beside the template, else in the working directory. The last component's link
 * is followed.
 * @who is the provisioner, for the error '<who> provisioner: cannot read "x": no such file'.
 */
bool host_file_find(const char *who, const char *name, const ProvisionerHost *host, char **ret_path,
                    struct stat *ret_st, GError **error);

/* The same as a whole path, for a program that reads names its own way. */
bool host_file_find_whole(const char *who, const char *name, const ProvisionerHost *host, char **ret_path,
                          GError **error);

/* Called for every entry below a folder, folders before their content, names sorted. @relative: path below
 * the folder. */
typedef bool HostFileFn(const char *path, const char *relative, const struct stat *st, void *arg,
                        GError **error);

/* Walks a folder without following links; sockets, devices and pipes are refused. */
bool host_file_walk(const char *who, const char *folder, HostFileFn *fn, void *arg, GError **error);

/* Appends ProvisionerInput* for @name: a file, or a folder with everything in it. */
bool host_file_add_inputs(const char *who, const char *name, const ProvisionerHost *host, GPtrArray *inputs,
                          GError **error);

/* Appends one ProvisionerInput for what @st says is at @path; @name as the user wrote it. */
bool host_file_add_entry(const char *name, const char *path, const struct stat *st, GPtrArray *inputs, GError **error);

/* The text of a symbolic link. */
bool host_file_readlink(const char *path, char **ret, GError **error);

#endif
