/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that is a folder and a host that is another one: what tests of provisioners work on.
 */
#ifndef KILN_TESTS_PROVISIONER_BENCH_SUPPORT_H
#define KILN_TESTS_PROVISIONER_BENCH_SUPPORT_H

#include "folder-guest-support.h"

#include "base/json.h"

#include <sys/types.h>

typedef struct Bench {
    FolderGuest *fg;
    char *folder; /* the host's side */
    ProvisionerHost host;
} Bench;

/* As g_test_add() calls them. */
void bench_init(Bench *b, gconstpointer arg);
void bench_clear(Bench *b, gconstpointer arg);

void bench_write(Bench *b, const char *path, const char *text, mode_t mode); /* on the host, with parents */

json_t *bench_parse(const char *text); /* JSON of a test's own, so a mistake in it is fatal */

#endif
