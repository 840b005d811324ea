/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The confined reader's two connections: to kiln, by a socket, and from libext2fs to the disk, by asking kiln.
 *
 * Only for the files of the reader (ext4-serve*.c); they include this and nothing else of libext2fs. Everything that libext2fs is
 * given was bounded first. There is no GError here: a failure is a sentence that was sent, and from then on everything fails.
 */
#ifndef KILN_STORE_EXT4_SERVE_IO_H
#define KILN_STORE_EXT4_SERVE_IO_H

#include "store/ext4-wire.h"

#include <glib.h>
#include <stdbool.h>

#include <ext2fs/ext2fs.h>

typedef struct Ext4Port Ext4Port;

Ext4Port *ext4_port_new(int in, int out);
void ext4_port_free(Ext4Port *port);

/* The next command and its path (followed by a NUL; in the port until the next call). False: kiln is gone, or says nonsense. */
bool ext4_port_command(Ext4Port *port, Ext4Command *ret, const char **ret_path);

/* Answers wait in a buffer until it is full or kiln is asked something. False once kiln is gone. */
bool ext4_say(Ext4Port *port, enum Ext4Word word, const void *head, size_t head_size, const void *body, size_t body_size);
bool ext4_flush(Ext4Port *port);
bool ext4_say_failed(Ext4Port *port, const char *format, ...) G_GNUC_PRINTF(2, 3); /* returns false; only the first is heard */
bool ext4_say_code(Ext4Port *port, errcode_t code, const char *format, ...) G_GNUC_PRINTF(3, 4); /* "cannot <what>: <libext2fs's words>" */
bool ext4_has_failed(const Ext4Port *port);

/* Bytes of the file system's place; beyond its end there are none. */
bool ext4_port_read(Ext4Port *port, void *to, size_t size, uint64_t at);

/*
 * Refused, in sentences: no ext file system, features we cannot read (encryption, external journal ...), a journal that waits for recovery
 * unless @unsettled, sizes that do not fit @size.
 */
bool ext4_open(Ext4Port *port, uint64_t size, bool unsettled, ext2_filsys *ret);
void ext4_close(ext2_filsys fs);

#endif
