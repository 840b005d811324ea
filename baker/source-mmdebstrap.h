/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmdebstrap, run as the host's program in --mode=unshare: no root needed, and as root none of it used.
 *
 * It gets sources as one-line entries, the time by SOURCE_DATE_EPOCH, and its scratch space in a folder of ours that
 * is removed afterwards also when it was killed.
 */
#ifndef KILN_BAKER_SOURCE_MMDEBSTRAP_H
#define KILN_BAKER_SOURCE_MMDEBSTRAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Mmdebstrap {
    const char *suite, *variant, *architecture;
    const char *const *packages; /* beyond the variant's own */
    const char *const *lines;    /* "deb [signed-by=...] URI SUITE COMPONENT..." */
    int64_t epoch;
} Mmdebstrap;

/* "1.3.5"; its absence is an error that says how to install it. */
bool mmdebstrap_version(char **ret, GError **error);

/* What it would install, as sorted "NAME VERSION ARCHITECTURE" texts; the archive's signatures are checked. Seconds, not minutes. */
bool mmdebstrap_resolve(const Mmdebstrap *spec, char ***ret, GError **error);

/* Builds the root; @read is given the tar stream as it comes. An error of mmdebstrap goes before one of @read that it caused. */
bool mmdebstrap_run(const Mmdebstrap *spec, bool (*read)(int fd, void *arg, GError **error), void *arg, GError **error);

#endif
