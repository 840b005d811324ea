/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boots a stored disk in qemu, throws away what it writes, and tells whether it works.
 *
 * The disk is served from the store by a working disk whose generation goes
 * with it; nothing is copied before and nothing kept after, also when kiln is
 * killed. The guest reaches no network by itself (unless asked for); ports of
 * this machine's loopback address can be forwarded to it.
 */
#ifndef KILN_BAKER_BOOT_H
#define KILN_BAKER_BOOT_H

#include "store/store.h"

/* Raw bytes of the serial console as they come. */
typedef void BootConsoleFn(const char *data, size_t size, void *arg);

typedef struct BootOptions {
    uint64_t memory;             /* bytes; 0: 512 MiB */
    unsigned cpus;               /* 0: one */
    const char *const *forwards; /* "HOSTPORT:GUESTPORT", NULL-terminated; may be NULL */
    uint64_t disk_size;          /* the disk is seen larger, as a cloud would make it; 0: as it is */
    bool uefi;                   /* started by OVMF instead of SeaBIOS */
    bool network;                /* the guest may reach the network (and so this machine's services) */
    const char *check; /* http(s) URL that shall answer 2xx or 3xx; NULL: run until the guest powers off */
    const char *until; /* text that the console shall show, where there is no check; NULL: none */
    double timeout;    /* seconds; 0: 180 with a check, else no limit */
    int input_fd;      /* typed into the console; -1: nothing */
    BootConsoleFn *on_console; /* may be NULL */
    void *arg;
} BootOptions;

typedef struct BootResult {
    bool checked;       /* the check succeeded, or the text was seen; false also when there was none */
    bool accelerated;   /* KVM */
    int status;         /* of the check's answer */
    double seconds;     /* from start to answer or end */
    GBytes *body;       /* of the check's answer, at most 1 MiB; may be NULL */
    char *console_tail; /* the last lines of the console as plain text; also set on failure */
} BootResult;

void boot_result_clear(BootResult *result);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(BootResult, boot_result_clear)

/*
 * True when the check succeeded, or without one when the guest powered off. A check that does
 * not succeed in time is KILN_ERROR_TIMEOUT. @ret is filled as far as known in any case. Call it
 * from a thread that stays: qemu ends with it.
 */
bool boot_run(Store *store, const StoreImage *image, const BootOptions *options, BootResult *ret,
              GError **error);

#endif
