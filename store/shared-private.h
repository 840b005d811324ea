/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the store asks an attached cache for what it lacks. @store's cache is never NULL in these; any failure but an interruption counts as
 * "not there", but of what was promised.
 */
#ifndef KILN_STORE_SHARED_PRIVATE_H
#define KILN_STORE_SHARED_PRIVATE_H

#include "store/image.h"

/* state.c: the store's own, whatever is attached. */
bool store_state_get_own(Store *store, const Digest *key, StoreState **ret, GError **error);
bool store_memo_get_own(Store *store, const char *key, char **ret_value, Digest *ret_blob, Digest *ret_map, GError **error);

/* shared-cache.c. *ret NULL, *ret_new false: not there. */
bool shared_find_state(Store *store, const Digest *key, StoreState **ret, GError **error);
bool shared_find_memo(Store *store, const char *key, char **ret_value, GError **error);
void shared_note_memo(Store *store, const char *key);
bool shared_find_set(Store *store, const Digest *key, const char *name, bool *ret_new, GError **error);
/* A promised map's own bytes; *ret NULL: it was not promised. */
bool shared_map_bytes(Store *store, const Digest *map, GBytes **ret, GError **error);
bool shared_provide_blob(Store *store, const Digest *blob, bool *ret_new, GError **error);

#endif
