/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reading a layout and applying its layers share. Nobody outside includes this.
 */
#ifndef KILN_STORE_OCI_PRIVATE_H
#define KILN_STORE_OCI_PRIVATE_H

#include "store/oci.h"

/* The layer's bytes in a file without name, at its start: as its blob has them, or the tar where it is kept as a recipe. */
bool oci_open_layer(Store *store, const StoreLayerRef *ref, int *ret_fd, GError **error);

/* The recipe that makes @layer; digest_none when there is none. */
bool store_layer_recipe(Store *store, const Digest *layer, Digest *ret, GError **error);

#endif
