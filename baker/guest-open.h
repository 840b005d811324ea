/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening guests: the real one (libguestfs appliance with kiln's runner inside) and the fake one for tests.
 */
#ifndef KILN_BAKER_GUEST_OPEN_H
#define KILN_BAKER_GUEST_OPEN_H

#include "provisioner/guest.h"

typedef struct GuestMount {
    uint64_t offset; /* of the partition on the working disk */
    char *folder;
} GuestMount;

typedef struct GuestOpenSpec {
    const char *nbd_socket; /* the working disk */
    bool inspect;           /* find root and mount points as /etc/fstab says (vendor images) ... */
    bool root_known;        /* ... or on the partition at @root_offset; with @inspect it says which of several roots is */
    uint64_t root_offset;   /* meant, and is used alone where libguestfs finds no operating system it knows */
    const GPtrArray *mounts; /* of GuestMount*: with @inspect, what an inspection would find, known already; NULL: look */
    bool network;           /* some step needs it: a card is added */
    const char *appliance;  /* a fixed one, see appliance.h; NULL: libguestfs's stock one, or that of $LIBGUESTFS_PATH */
    const char *tmpdir;     /* for libguestfs's files; ours to remove */
    unsigned memory_mib;    /* 0: default */
    /*
     * Asked twice a second from a thread of the guest's; false ends the guest at once. A disk that fails must not be
     * left to the guest's kernel, which may retry for minutes. NULL: never asked.
     */
    bool (*disk_is_good)(void *arg);
    void *disk_arg;
} GuestOpenSpec;

/* Launches, mounts, starts the runner. Progress and boot failures are reported in one sentence.
 * Interruptible. */
bool guest_libguestfs_open(const GuestOpenSpec *spec, Guest **ret, GError **error);

/* A folder stands for the guest; programs run on the host with that folder as working directory. Unit tests
 * only need no VM. */
bool guest_fake_open(const char *folder, Guest **ret, GError **error);

#endif
