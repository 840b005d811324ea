/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working disk: the block device a bake runs on.
 *
 * nbdkit with kiln's plugin serves parent blocks from the store; writes, zeroes
 * and trims go into a *generation*: a sparse delta file and a bitmap with a bit per 4 KiB
 * block, both in a temporary folder of the store and mapped by kiln too. Reads look in the newest generation
 * first. At most two are open: the one written and one sealed that is being captured.
 *
 *   open -> (guest writes) -> seal -> capture -> ... -> close
 *                          \-> drop
 *
 * seal: call it while the guest's file systems are frozen; returns at once.
 * capture: puts the sealed generation's dirty blocks into the store as a map on top of the parent, which is
 *       then the parent.
 * drop: forgets everything written since the last seal; the guest must have unmounted.
 *
 * Threads: every call may come from any thread. The server is started and held by a thread of the disk's own,
 * so it does not matter which thread opened it. It ends with the disk, or with kiln, whichever way kiln ends;
 * its files go with it.
 */
#ifndef KILN_STORE_WORKING_DISK_H
#define KILN_STORE_WORKING_DISK_H

#include "store/map.h"

typedef struct WorkingDisk WorkingDisk;

/* @size >= the parent's, which may be digest_none (an empty disk). The nbdkit process dies with the calling
 * process. */
bool working_disk_open(Store *store, const Digest *parent, uint64_t size, WorkingDisk **ret, GError **error);
const char *working_disk_socket(const WorkingDisk *disk); /* unix socket path, short */
/* Waits for a capture that runs; an earlier seal that was not captured is an error. */
bool working_disk_seal(WorkingDisk *disk, GError **error);
bool working_disk_dirty_bytes(WorkingDisk *disk,
                              uint64_t *ret); /* of the sealed generation; 0 when none is sealed */
/*
 * Every dirty block is shown to @scan before it enters a segment, by working_disk_capture(), with up to 64 KiB of the bytes that lie before
 * it on the disk; false fails the capture, and nothing of the generation is kept. Set before the first seal.
 */
typedef bool WorkingDiskScanFn(const void *data, size_t size, void *arg, GError **error);
void working_disk_set_scan(WorkingDisk *disk, WorkingDiskScanFn *scan, void *arg);
/*
 * Private class. *ret_map equals the parent when nothing was dirty, then nothing is written. *ret_new_bytes
 * is what the store grew by, compressed. May run in another thread while the guest writes on. After a failure
 * the generation is still sealed and shown; capture may be tried again.
 */
bool working_disk_capture(WorkingDisk *disk, Digest *ret_map, uint64_t *ret_new_bytes, GError **error);
/*
 * False when a read or write of the guest's has failed here or the server is gone, with the reason (a full store, a
 * damaged frame). The guest itself sees no more than an I/O error, so ask this first when a step fails.
 */
bool working_disk_check(WorkingDisk *disk, GError **error);
bool working_disk_drop(WorkingDisk *disk, GError **error);
void working_disk_close(WorkingDisk *disk); /* ends nbdkit, removes the folder */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(WorkingDisk, working_disk_close)

#endif
