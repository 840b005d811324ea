/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking blobs and maps of a unit (remote-index.h) out of a remote into a store: only what the store has not, each verified before it gets its name.
 *
 * Nothing refers to them yet, so the store's own lease keeps them until the caller has written who does.
 */
#ifndef KILN_STORE_REMOTE_FETCH_H
#define KILN_STORE_REMOTE_FETCH_H

#include "store/remote-push.h"

typedef struct RemoteFetch RemoteFetch;
/* @cache: private maps and segments are taken, too, as what they are. */
bool remote_fetch_new(Store *store, Remote *remote, bool cache, RemoteFetch **ret, GError **error);
void remote_fetch_free(RemoteFetch *fetch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RemoteFetch, remote_fetch_free)

/* One that is there already is fine. KILN_ERROR_NOT_FOUND when the unit has none or the remote has lost it. */
bool remote_fetch_blob(RemoteFetch *fetch, const RemoteUnit *unit, const Digest *digest, GError **error);
/* Its blob, and every block of it. */
bool remote_fetch_map(RemoteFetch *fetch, const RemoteUnit *unit, const Digest *digest, GError **error);
/* All of the unit. */
bool remote_fetch_unit(RemoteFetch *fetch, const RemoteUnit *unit, GError **error);
const RemoteReport *remote_fetch_report(const RemoteFetch *fetch);

#endif
