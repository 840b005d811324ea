/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `changes` of Packer's docker source and of docker-import: lines of a Dockerfile that say what a container starts with.
 *
 *   CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL MAINTAINER ONBUILD STOPSIGNAL USER VOLUME WORKDIR
 *
 * As `docker commit --change` reads them: later lines win, ENTRYPOINT alone drops an inherited CMD, the shell form becomes
 * ["/bin/sh", "-c", TEXT] (or begins as the image's "Shell"), and $NAME is a variable of the image (not in CMD, ENTRYPOINT, HEALTHCHECK and ONBUILD).
 */
#ifndef KILN_BAKER_DOCKER_CHANGES_H
#define KILN_BAKER_DOCKER_CHANGES_H

#include "base/json.h"

/* Applies them to an OCI image config: {"config": {"Cmd", ...}, "author"}. A line that is not understood is a KILN_ERROR_USAGE that cites it. */
bool docker_changes_apply(const char *const *changes, json_t *image_config, GError **error);
/* The same before the image is known. */
bool docker_changes_check(const char *const *changes, GError **error);

#endif
