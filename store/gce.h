/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Google Compute Engine takes for an image: one tar in GNU's old format, compressed with gzip, that holds one sparse file `disk.raw`
 * whose size is a multiple of 1 GiB (`tar --format=oldgnu -Sczf`).
 */
#ifndef KILN_STORE_GCE_H
#define KILN_STORE_GCE_H

#include "store/map.h"

/* Equal disks give equal bytes: the frozen encoder of store/deflate.h, no times, no owners. @fd may be a pipe. */
struct Progress;
bool gce_write(StoreMap *map, int fd, struct Progress *progress, GError **error);

#endif
