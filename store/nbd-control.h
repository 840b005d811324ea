/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kiln and its nbdkit plugin say to each other: lines over a stream socket (store/nbd-plugin.c draws them), the same for working
 * disks and for stored ones that are served as they are.
 */
#ifndef KILN_STORE_NBD_CONTROL_H
#define KILN_STORE_NBD_CONTROL_H

#include <glib.h>
#include <stdbool.h>

#define NBD_CONTROL_LINE_MAX 4096

#define NBD_PLUGIN_FILE "kiln-nbd-plugin.so" /* for libexec_find() */

/* One line without its newline. No answer in time and the end of the server are errors. */
bool nbd_control_read(int fd, char line[NBD_CONTROL_LINE_MAX], GError **error);

/* Reads "ok [N]" or "error SENTENCE"; @ret_number may be NULL. */
bool nbd_control_answer(int fd, unsigned *ret_number, GError **error);

#endif
