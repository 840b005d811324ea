/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling balancers again what they were told last, where they do not agree.
 */
#ifndef KILN_DEPLOY_REPAIR_H
#define KILN_DEPLOY_REPAIR_H

#include "deploy/controller.h"

/* After an observation. Does nothing while they agree, or when one does not answer. */
bool repair_balancers(Controller *controller, GError **error);

/* They disagree, and may still come to agree by themselves or by being told again. */
bool repair_is_pending(const Controller *controller);

#endif
