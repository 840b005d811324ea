/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot tests: a sealed disk is booted once, on an overlay that is thrown away, before its set is published.
 *
 *     provisioner "test" {
 *       boot {
 *         http    = "/health"   # answers 2xx or 3xx on `port`; without it the console must show `console`
 *         port    = 80
 *         console = "login:"
 *         timeout = "5m"
 *         memory  = "512M"
 *         firmware = "uefi"     # else "bios"
 *       }
 *     }
 */
#ifndef KILN_BAKER_BOOT_TEST_H
#define KILN_BAKER_BOOT_TEST_H

#include "base/json.h"
#include "store/store.h"

/* @spec: the arguments of one boot block, as provisioner "test" checked them; NULL: all defaults. The console's last lines are logged. */
bool boot_test(Store *store, const StoreImage *disk, const json_t *spec, const char *title, GError **error);

/* Does a change of these packages ([{name, ...}]) reach what a machine boots with: kernel, initramfs, boot loader, init, libc? The first name, or NULL. */
const char *boot_test_critical(const json_t *packages);

#endif
