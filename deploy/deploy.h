/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The face of deploy: images onto machines, by image ID, under phoenix rules. The parts, in reading order:
 *
 *   deploy/group.h          group files, checked
 *   deploy/transition.h     what happens next: the pure function
 *   deploy/driver.h         port: where instances live
 *   deploy/balancer.h       port: what gives them traffic
 *   deploy/group-journal.h  a group's journal, folded
 *   deploy/world.h          what hosts, balancers and checks show
 *   deploy/plan.h           what apply would do, step by step
 *   deploy/controller.h     doing it
 *   deploy/report.h         status, history, drift
 */
#ifndef KILN_DEPLOY_DEPLOY_H
#define KILN_DEPLOY_DEPLOY_H

#include "deploy/controller.h"
#include "deploy/group.h"
#include "deploy/plan.h"
#include "deploy/report.h"

#endif
