/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of the host that read what a guest wrote run confined: as nobody, without capabilities and ways to get some, with limits.
 */
#ifndef KILN_BAKER_CONFINE_H
#define KILN_BAKER_CONFINE_H

#include <glib.h>

/* Whom they run as where kiln is root: what they are to read and write is made theirs. */
#define CONFINE_UID 65534u

/* Puts in front of the program that is added to @argv next what confines it. The strings are static. */
void confine_begin(GPtrArray *argv);

#endif
