/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fsck --repair takes lost bytes from when that is no store: a registry or a remote. What it has of the damaged images becomes a store of its own, in the
 * damaged one's tmp, which is read like any other and then thrown away. So all that is fetched is verified as a pull verifies it, and the
 * repair knows nothing of networks.
 */
#ifndef KILN_BAKER_REPAIR_FROM_H
#define KILN_BAKER_REPAIR_FROM_H

#include "store/store.h"

typedef struct RepairFrom {
    Store *store; /* to repair from */
    char *folder;
} RepairFrom;
/* @place: what remote_is_location() takes. @damage: StoreFsckReport's. Of a remote the images that it names are fetched, as far as they are there; of a registry the one reference. */
bool repair_from_open(Store *damaged, const char *place, const json_t *damage, bool plain_http, RepairFrom *ret, GError **error);
void repair_from_clear(RepairFrom *from);

#endif
