/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A limit that is passed before the program starts is passed by it all the same: it gets a moment, so that there is one sentence for both.
 */
#include "provisioner/host-run.h"

#include "base/error.h"

#define LEAST 0.001 /* seconds; 0 would mean no limit */

bool host_run(ProcessSpec *spec, const ProvisionerHost *host, const char *who, int *ret_code, GError **error)
{
    g_autoptr(GError) problem = NULL;

    if (host->deadline)
        spec->timeout = MAX((double)(host->deadline - g_get_monotonic_time()) / G_USEC_PER_SEC, LEAST);
    if (process_run(spec, ret_code, &problem))
        return true;
    if (spec->timeout > 0 && g_error_matches(problem, KILN_ERROR, KILN_ERROR_TIMEOUT))
        return fail_code(error, KILN_ERROR_TIMEOUT, "%s passed the step's time limit and was stopped", who);
    g_propagate_error(error, g_steal_pointer(&problem));
    return false;
}
