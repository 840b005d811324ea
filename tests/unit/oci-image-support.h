/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small container image in a store, for the tests of what runs containers.
 */
#ifndef KILN_TESTS_OCI_IMAGE_SUPPORT_H
#define KILN_TESTS_OCI_IMAGE_SUPPORT_H

#include "store/store.h"

/*
 * Static busybox at /bin/busybox (left out with @busybox NULL) with links for sh, sleep and httpd, etc/passwd and etc/group, and etc/seed with @seed in
 * it. @args: of the output block. Published as @name.
 */
StoreImage *oci_image_make(Store *store, const char *name, const char *busybox, const char *seed, const json_t *args);

/* Path of a static busybox on this machine, or NULL. */
const char *oci_image_busybox(void);

#endif
