/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether machines on this host may use KVM.
 *
 * A /dev/kvm that opens proves little: in a virtual machine it may stop with an internal error or make no headway as soon as a
 * real kernel runs. So the host's own kernel is booted once, without a disk, up to where it misses its root: under a second
 * where KVM works. The answer is kept in the cache folder until the host boots again or its kernel or qemu changes.
 *
 * $KILN_ACCEL, "kvm" or "tcg", decides without asking.
 */
#ifndef KILN_BASE_ACCEL_H
#define KILN_BASE_ACCEL_H

#include <stdbool.h>

typedef enum Accel {
    ACCEL_TCG,    /* there is no KVM, or $KILN_ACCEL says so */
    ACCEL_BROKEN, /* there is one, and it does not work: emulated as well */
    ACCEL_KVM,
} Accel;

/* Thread-safe; the first call of a host's uptime may take some seconds. */
Accel accel_find(void);

#endif
