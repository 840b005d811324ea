/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the appliance's build share. Each part writes one file of the folder.
 */
#ifndef KILN_BAKER_APPLIANCE_PARTS_H
#define KILN_BAKER_APPLIANCE_PARTS_H

#include <glib.h>
#include <stdbool.h>

/*
 * Writes FOLDER/kernel: the ELF image inside @kernel where qemu can start that directly (it carries the PVH note, see
 * Documentation/arch/x86/boot.rst and Xen's pvh.pandoc), else a copy of @kernel.
 */
bool appliance_kernel(const char *kernel, const char *folder, GError **error);

/* Writes FOLDER/initrd: @init, @runner and the modules of @modules (a folder of /lib/modules) that find disks, ports and the network card. */
bool appliance_initrd(const char *init, const char *runner, const char *modules, const char *folder, GError **error);

/* Writes FOLDER/root with supermin. @supermin_dir is libguestfs's own, *packages* the trimmed list. */
bool appliance_root(const char *supermin_dir, char **packages, const char *kernel, const char *modules, const char *folder, GError **error);
/* libguestfs's folder for supermin, and the packages of its list that we take. */
bool appliance_supermin_dir(char **ret, GError **error);
bool appliance_packages(const char *supermin_dir, char ***ret, GError **error);

/* Unpacks @in, a file or a piece of one, into the new file @out by the tool that its first bytes call for. *ret_known: they do. */
bool appliance_unpack(const void *data, size_t size, const char *out, bool *ret_known, GError **error);

#endif
