/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps on the host (shell-local) that say what they read and what they make: they need not run while both are as they were. The image they are
 * a step of has no part in it: what they made enters later keys as those steps' input files, and nothing else does.
 *
 *   memo "host-step:" + SHA-256 over arguments, environment and inputs -> [[name, mode, SHA-256], ...] of the outputs
 */
#ifndef KILN_BAKER_HOST_STEP_H
#define KILN_BAKER_HOST_STEP_H

#include "baker/bake-internal.h"

/* Has it `inputs` and `outputs`? */
bool host_step_is_declared(const BakeStep *step);

/* After bake_step_key(). *ret: it ran with these inputs and its outputs are as it left them. */
bool host_step_known(const BakeChain *chain, const BakeStep *step, bool *ret, GError **error);

/* After it ran. An output that is not there is an error. */
bool host_step_remember(const BakeChain *chain, const BakeStep *step, GError **error);

#endif
