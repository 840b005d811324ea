/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing blocks and blobs to a remote: only what is not there, and of segments only what the maps need.
 *
 * A segment goes as it is when every block of it is needed by what is pushed. Otherwise what is needed and not there yet is packed into new
 * segments, and a table (segment-moved.h) says where it went: nothing that a bake deleted, and nothing of another image, leaves with an image.
 * Tables are objects of their own, named by their bytes, and several may stand for one segment: whoever pushes next adds to them.
 *
 * Nothing there is ever changed, so any number of stores can push at once; at worst they bring the same block twice.
 */
#ifndef KILN_STORE_REMOTE_PUSH_H
#define KILN_STORE_REMOTE_PUSH_H

#include "store/pool.h"
#include "store/remote-index.h"

typedef struct RemoteReport {
    uint64_t segments, blobs, bytes; /* moved */
    uint64_t present;                /* objects, or files here, that were there already */
} RemoteReport;
void remote_report_add(RemoteReport *to, const RemoteReport *from);

typedef struct RemotePush RemotePush;
/* Lists what is there. @cache: for the bake cache: private blocks may go, and everything goes where the cache is. */
bool remote_push_new(Store *store, Remote *remote, bool cache, RemotePush **ret, GError **error);
void remote_push_free(RemotePush *push);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RemotePush, remote_push_free)

/* @blobs holds the maps' digests, too. *ret: the unit's JSON, for an index that is yet to be written. */
bool remote_push_unit(RemotePush *push, const GArray *blobs, const GArray *maps, json_t **ret, GError **error);
/* Is everything that the unit names still there? */
bool remote_push_has_unit(RemotePush *push, const RemoteUnit *unit);
Store *remote_push_store(const RemotePush *push);
Remote *remote_push_remote(const RemotePush *push);
const RemoteReport *remote_push_report(const RemotePush *push);

#endif
