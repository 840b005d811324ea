/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store with a little of everything that can be damaged, and files of it that are.
 */
#ifndef KILN_TESTS_SCRUB_SUPPORT_H
#define KILN_TESTS_SCRUB_SUPPORT_H

#include "store/store.h"

/* A disk with files of a tree in it, and a container image, both published as @name; contents depend on @seed. */
void scrub_publish(Store *store, const char *name, uint64_t seed);

/* Regular files below the store that hold something, as paths below it, sorted: no locks, no block index, nothing temporary. */
GPtrArray *scrub_files(const char *store);

void scrub_flip(const char *store, const char *file, uint64_t bit);
uint64_t scrub_size(const char *store, const char *file);

/* cp -a, over nothing. */
void scrub_copy(const char *from, const char *to);

/* Any of the sentences has @text in it. */
bool scrub_says(const GPtrArray *sentences, const char *text);

/* A database file with the same tables, rows and numbers of versions. */
void scrub_copy_tables(const char *from, const char *to);

#endif
