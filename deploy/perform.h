/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does what the transition function asked for.
 */
#ifndef KILN_DEPLOY_PERFORM_H
#define KILN_DEPLOY_PERFORM_H

#include "deploy/controller.h"

/* @actions: of Action, in order. An action that fails is journaled and told; false only when the journal cannot be written. */
bool perform_batch(Controller *controller, GArray *actions, GError **error);

#endif
