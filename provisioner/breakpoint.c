/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "breakpoint": a place where somebody looks around in the guest. It is no part of the image: what is written there is
 * dropped by the bake, and where nobody sits at a terminal it is passed over, so that a nightly bake never waits.
 */
#include "base/error.h"
#include "provisioner/arguments.h"
#include "provisioner/members.h"

#define BREAKPOINT_ARGUMENTS(X) X(note, TEXT) X(disable, BOOL)
ARGUMENTS_DEFINE(BREAKPOINT_ARGUMENTS);

static bool breakpoint_check(const json_t *args, const char **ret_argument, GError **error)
{
    return arguments_check(args, argument_specs, ret_argument, error);
}

static bool breakpoint_stops(const json_t *args)
{
    return !argument_bool(args, "disable", false);
}

static bool breakpoint_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_autofree char *note = argument_text(args, "note", ""), *text = NULL;
    const char *colon = *note ? ": " : "";
    bool stops = breakpoint_stops(args);

    if (stops && guest && host->shell) {
        text = g_strdup_printf("breakpoint%s%s", colon, note);
        return host->shell(text, host->arg, error);
    }
    text = g_strdup_printf("passed over, %s%s%s", stops ? "nobody sits at a terminal" : "it is disabled", colon, note);
    host->say(text, false, host->arg);
    return true;
}

const ProvisionerOps provisioner_breakpoint = {
    .type = "breakpoint",
    .arguments = argument_names,
    .needs_guest = true,
    .check = breakpoint_check,
    .run = breakpoint_run,
    .stops = breakpoint_stops,
};
