/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STORE/cache/downloads: what is being fetched, by digest, so that the next try goes on where this one broke.
 *
 * A file is locked (flock) by who writes to it; another process waits for it. Nobody trusts what is in one: it is held against its digest when
 * it is used. What nobody touched for three days goes.
 */
#ifndef KILN_STORE_DOWNLOADS_H
#define KILN_STORE_DOWNLOADS_H

#include "store/pool.h"

bool downloads_open(Store *store, int *ret_dirfd, GError **error);
/* @kind tells two ways of filling a file apart. *ret_have: bytes in it. Close @ret_fd to unlock. */
bool downloads_take(int dirfd, const Digest *digest, const char *kind, int *ret_fd, uint64_t *ret_have, GError **error);
void downloads_drop(int dirfd, const Digest *digest, const char *kind);
char *downloads_name(const Digest *digest, const char *kind);

#endif
