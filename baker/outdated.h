/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which images are behind: their base moved or was revoked, they were revoked themselves, or updates wait for them.
 */
#ifndef KILN_BAKER_OUTDATED_H
#define KILN_BAKER_OUTDATED_H

#include "baker/bake.h"

/* *ret_why: NULL when the set of @image is up to date, else one phrase. Asks the network as a plan does. */
bool outdated_why(Store *store, const StoreImage *image, const BakeOptions *options, char **ret_why, GError **error);

/* The same for the newest set of @build's name; one that was never baked is outdated. */
bool outdated_why_build(Store *store, const TemplateBuild *build, const BakeOptions *options, char **ret_why, GError **error);

#endif
