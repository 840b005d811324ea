/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: whole reads and writes, atomic publishing, folders.
 *
 * To publish a file: write it beside its target, fdatasync, rename, fsync the
 * folder. Readers see the old thing or the new one, also after a power cut.
 * FILE_SYNC_NO leaves out both syncs for what can be made again.
 */
#ifndef KILN_BASE_FILE_H
#define KILN_BASE_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum FileSync { FILE_SYNC_NO, FILE_SYNC_YES } FileSync;

/* Loops over short reads and EINTR. A read that ends early is an error naming @what. */
bool file_pread_full(int fd, void *buf, size_t size, uint64_t offset, const char *what, GError **error);
/* The same, but zeroes follow the end of the file. */
bool file_pread_padded(int fd, void *buf, size_t size, uint64_t offset, const char *what, GError **error);
bool file_pwrite_full(int fd, const void *buf, size_t size, uint64_t offset, const char *what, GError **error);
bool file_write_full(int fd, const void *buf, size_t size, const char *what, GError **error);

/* Reads from the current offset up to @size bytes; *ret_size is smaller only at the end of the file. */
bool file_read_upto(int fd, void *buf, size_t size, size_t *ret_size, const char *what, GError **error);

/* Whole file, refused when larger than @max bytes. @dirfd may be AT_FDCWD. The bytes are followed by a NUL. */
bool file_load(int dirfd, const char *name, size_t max, GBytes **ret, GError **error);

/* Replaces (dirfd, name) atomically. */
bool file_replace(int dirfd, const char *name, const void *data, size_t size, mode_t mode, FileSync sync,
                  GError **error);

/* rename + fsync of the folder; both folders are the same one or both are synced. */
bool file_publish(int from_dirfd, const char *from, int to_dirfd, const char *to, FileSync sync, GError **error);

bool file_make_dirs(const char *path, mode_t mode, GError **error); /* mkdir -p */

/* rm -rf without following links or crossing into other file systems; absent is fine. */
bool file_remove_tree(int dirfd, const char *name, GError **error);

/* Copies @size bytes from @in (current offset) to @out; holes are not kept. */
bool file_copy_stream(int in, int out, uint64_t size, const char *what, GError **error);

/* True when all bytes are zero; @buf 8-byte aligned or not. */
bool bytes_are_zero(const void *buf, size_t size);

/* Folder of the running program, for files shipped beside it (plugin, runner, library). Never fails. */
const char *file_program_dir(void);

/* Waits for the exclusive flock of @fd, which is @path, until the user interrupts; @waiting is said by log_verbose when there is a wait. */
bool file_lock(int fd, const char *path, const char *waiting, GError **error);

/* Where things are kept that can be had again: $KILN_CACHE, else /var/cache/kiln for root and $XDG_CACHE_HOME/kiln for others. */
char *file_cache_dir(void);

/* A private 0700 folder under $TMPDIR or /tmp with a short path (socket names are limited to 107 bytes). */
bool file_make_short_tmpdir(char **ret_path, GError **error);

#endif
