/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All remotes there are.
 */
#include "store/remote-members.h"

#include <stddef.h>

const RemoteOps *const remote_table[] = {&remote_file_ops, &remote_s3_ops, &remote_registry_ops, NULL};
