/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every byte the store writes to its folder (databases excepted) passes through this table, so
 * that a test can record the calls, replay every prefix of them, and inject faults.
 *
 * KILN_TEST_FAIL=<call>:<n>:<errno name, SHORT or KILL> makes the n-th call (from 1) of that kind and
 * all later ones fail, move no more than half of their bytes (pread and pwrite), or kills the process there. With a fourth
 * word, `:once`, only the n-th fails. Calls are named as the table's members.
 *
 * What does not pass through it: files in tmp/ that only their own process reads (working disks, spools), whose loss is no
 * loss, and the mapped pages of the block index, which is made again after a power cut.
 */
#ifndef KILN_STORE_IO_H
#define KILN_STORE_IO_H

#include "base/digest.h"

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

typedef struct StoreIo {
    int (*open)(int dirfd, const char *name, int flags, mode_t mode);
    ssize_t (*pread)(int fd, void *buf, size_t size, off_t offset);
    ssize_t (*pwrite)(int fd, const void *buf, size_t size, off_t offset);
    int (*truncate)(int fd, off_t size);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd); /* folders */
    int (*rename)(int from_dirfd, const char *from, int to_dirfd, const char *to);
    int (*unlink)(int dirfd, const char *name, int flags);
    int (*mkdir)(int dirfd, const char *name, mode_t mode);
    int (*link)(int from_dirfd, const char *from, int to_dirfd, const char *to); /* a second name of a file */
} StoreIo;

/* NULL brings the real one back. Not while a store is open in another thread. */
void store_io_set(const StoreIo *io);
const StoreIo *store_io_real(void);

/* What the real member makes from now on may be written to by the file's group as by its owner, whatever the umask: for stores that a group has in common. */
void io_share_with_group(bool share);

/* Reads KILN_TEST_FAIL again and counts from one: for a test's forked child. */
void io_fault_reload(void);

int io_open(int dirfd, const char *name, int flags, mode_t mode);
int io_truncate(int fd, off_t size);
int io_fdatasync(int fd);
int io_fsync(int fd);
int io_rename(int from_dirfd, const char *from, int to_dirfd, const char *to);
int io_unlink(int dirfd, const char *name, int flags);
int io_mkdir(int dirfd, const char *name, mode_t mode);
int io_link(int from_dirfd, const char *from, int to_dirfd, const char *to);

/* Loop over short transfers; false with errno (a read past the end is EIO). */
bool io_pread_full(int fd, void *buf, size_t size, uint64_t offset);
bool io_pwrite_full(int fd, const void *buf, size_t size, uint64_t offset);

/* rm -rf of a folder in tmp/, without following links; absent is fine. false with errno. */
bool io_remove_tree(int dirfd, const char *name);

/*
 * Opens the folder (dirfd, first two hex digits) for @digest, made when @create; fills @name (65 bytes and
 * room for a suffix). -1 with errno.
 */
#define IO_NAME_SIZE 80
int io_open_fanout(int dirfd, const Digest *digest, bool create, char name[IO_NAME_SIZE]);

#endif
