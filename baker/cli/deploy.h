/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs of `kiln deploy` share.
 */
#ifndef KILN_BAKER_CLI_DEPLOY_H
#define KILN_BAKER_CLI_DEPLOY_H

#include "baker/cli/cli.h"
#include "deploy/deploy.h"

CliVerbFn deploy_plan, deploy_apply, deploy_approve, deploy_balancer_config;
CliVerbFn deploy_continue, deploy_pause, deploy_abort, deploy_rollback, deploy_resume, deploy_scale, deploy_destroy;
CliVerbFn deploy_watch;
CliVerbFn deploy_status, deploy_history, deploy_drift;

/* Prints why a run ended: in words, or one JSON document. Returns the exit status. */
int deploy_tell(CliContext *cli, const Controller *controller, Wait wait);

#endif
