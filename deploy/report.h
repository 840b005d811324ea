/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be told about groups, as JSON: the command line prints it, as it is or as text.
 */
#ifndef KILN_DEPLOY_REPORT_H
#define KILN_DEPLOY_REPORT_H

#include "deploy/world.h"

/* One line's worth of a group: image, channel, whether the channel has moved on, age, last outcome. From store and journal alone. */
bool report_group(Store *store, const char *group, json_t **ret, GError **error);

/* All of it: slots, proofs, health, weights, phase and step, what is waited for, the bound of a rollback. Looks at the world. */
bool report_status(Store *store, const char *group, json_t **ret, GError **error);

/* Revisions, rollouts and verbs, oldest first; with @at (microseconds since 1970, 0: now) also what existed at that moment. */
bool report_history(Store *store, const char *group, int64_t at, json_t **ret, GError **error);

/* What is not as it was deployed. @disks: also what changed on disks, where that can be seen. *ret_found: there is something. */
bool report_drift(Store *store, const char *group, bool disks, json_t **ret, bool *ret_found, GError **error);

#endif
