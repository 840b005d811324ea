/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Published disk images without a bake: small disks of known bytes.
 */
#ifndef KILN_TESTS_DISK_IMAGE_SUPPORT_H
#define KILN_TESTS_DISK_IMAGE_SUPPORT_H

#include "store/store.h"

/* Publishes @data as a disk image under @name, with the config that a bake writes. */
StoreImage *disk_image_publish(Store *store, const char *name, const uint8_t *data, size_t size);

/* A disk of @size bytes (at least 1 MiB) with holes, whose boot sector says "KILN-BOOTED" on the serial port and halts; @version makes them differ. */
StoreImage *disk_image_bootable(Store *store, const char *name, uint8_t version, size_t size);

#endif
