/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "sleep": taken and not obeyed. Templates sleep to wait for a booting machine or its services;
 * no guest of kiln's ever boots.
 */
#include "base/error.h"
#include "provisioner/arguments.h"
#include "provisioner/members.h"

#define SLEEP_ARGUMENTS(X) X(duration, DURATION)
ARGUMENTS_DEFINE(SLEEP_ARGUMENTS);

static bool sleep_check(const json_t *args, const char **ret_argument, GError **error)
{
    if (!arguments_check(args, argument_specs, ret_argument, error))
        return false;
    return argument_given(args, "duration") ? true
                                            : fail_code(error, KILN_ERROR_USAGE, "'duration' is needed");
}

static bool sleep_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    host->say("sleep is left out: nothing in a guest that is not booted needs time to settle", false,
              host->arg);
    return true;
}

const ProvisionerOps provisioner_sleep = {
    .type = "sleep",
    .arguments = argument_names,
    .check = sleep_check,
    .run = sleep_run,
};
