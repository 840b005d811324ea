/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds a canary step's analysis with what the balancer counted, and tells the state its verdict.
 */
#ifndef KILN_DEPLOY_JUDGE_H
#define KILN_DEPLOY_JUDGE_H

#include "deploy/controller.h"

/* After an observation, before the next decision. A verdict is journaled when it falls. */
bool judge_step(Controller *controller, GError **error);

#endif
