/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a running container is shown to run from an image's root file system, by what the kernel says and by nothing that stands in a file of ours.
 */
#ifndef KILN_DEPLOY_RUNC_PROOF_H
#define KILN_DEPLOY_RUNC_PROOF_H

#include "deploy/driver.h"
#include "deploy/rootfs.h"

typedef struct RuncProof {
    const char *name;   /* of the instance, for sentences */
    pid_t pid;
    const char *rootfs; /* path that must be the lower folder of its root */
    const char *upper;  /* what it wrote */
    const RootfsStamp *stamp; /* of @rootfs, which was checked just now */
} RuncProof;

/* Adds PROVEN_CHAIN, and PROVEN_GUEST where its program is one of the image's. What is disproven is false with the sentence. */
bool runc_proof_of(const RuncProof *proof, unsigned *flags, GError **error);

#endif
