/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is expected to change on the disk of an instance that works: kiln's own list, the group's volumes and the group's own globs.
 */
#ifndef KILN_DEPLOY_DRIFT_IGNORE_H
#define KILN_DEPLOY_DRIFT_IGNORE_H

#include "deploy/group.h"

/* @path: as a DriftEntry has it. A folder's glob covers what lies below it. */
bool drift_ignored(const GroupSpec *spec, const char *path);

typedef struct DriftIgnore {
    const char *glob, *reason;
    bool alone; /* what lies below is told */
} DriftIgnore;
/* The shipped list; ends with a NULL glob. */
const DriftIgnore *drift_ignore_shipped(void);

#endif
