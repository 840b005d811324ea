/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of remote-table.c.
 */
#ifndef KILN_STORE_REMOTE_MEMBERS_H
#define KILN_STORE_REMOTE_MEMBERS_H

#include "store/remote.h"

extern const RemoteOps remote_file_ops; /* a folder, perhaps of another machine */
extern const RemoteOps remote_s3_ops;   /* a bucket */
extern const RemoteOps remote_registry_ops; /* a repository of an OCI registry */

#endif
