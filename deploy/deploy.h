/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The face of deploy: puts images onto machines. Outsiders include this file and nothing else of this folder.
 *
 *   deploy/group.h   group files
 */
#ifndef KILN_DEPLOY_DEPLOY_H
#define KILN_DEPLOY_DEPLOY_H

#include "deploy/group.h"

#endif
