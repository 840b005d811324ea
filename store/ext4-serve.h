/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of ext4 file systems that runs confined: libext2fs behind a socket (store/ext4-wire.h). It holds no files, no store and no
 * secrets; what it is asked for it reads by asking back.
 */
#ifndef KILN_STORE_EXT4_SERVE_H
#define KILN_STORE_EXT4_SERVE_H

/* Answers until the other end is gone. */
void ext4_serve(int in, int out);

#endif
