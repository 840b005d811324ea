/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored disk over NBD, as it is: read-only, for any number of clients, without a copy. qemu boots a machine from it with an
 * overlay of its own.
 */
#ifndef KILN_STORE_DISK_SERVER_H
#define KILN_STORE_DISK_SERVER_H

#include "store/map.h"

/* One of the two. */
typedef struct DiskAddress {
    const char *socket; /* path; made here, and removed at the end */
    unsigned port;      /* of 127.0.0.1: any user of this machine may read then */
} DiskAddress;

/* Called once, when clients may come. */
typedef void DiskServeFn(const char *uri, void *arg);

/*
 * Serves the disk with the map @map until the user interrupts, which is success and ends what clients read. The caller holds a lease. A
 * read that fails is an I/O error for the client and a warning here.
 */
bool disk_serve(Store *store, const Digest *map, const DiskAddress *address, DiskServeFn *ready, void *arg, GError **error);

#endif
