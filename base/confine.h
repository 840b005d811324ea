/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of the host that read what a guest wrote run confined: as nobody, without capabilities and ways to get some, with limits.
 * Foreign ones are started by confine_begin(); our own confine themselves, and harder, by confine_self().
 */
#ifndef KILN_BASE_CONFINE_H
#define KILN_BASE_CONFINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Whom they run as where kiln is root: what they are to read and write is made theirs. */
#define CONFINE_UID 65534u

/* Puts in front of the program that is added to @argv next what confines it. The strings are static. */
void confine_begin(GPtrArray *argv);

/*
 * From here on this process can compute, use @memory bytes and @seconds of processor time, and read and write the descriptors that are
 * open. Any other system call ends it with SIGSYS, more time with SIGXCPU; more memory is refused. There is no way back. False (errno)
 * when the kernel does not grant it: then do not go on.
 */
bool confine_self(uint64_t memory, unsigned seconds);

#endif
