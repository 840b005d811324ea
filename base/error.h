/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: one GError, told once, by the function that noticed.
 *
 * Every function that can fail takes `GError **error` last and returns false
 * (or NULL). The fail_*() helpers set the error and return false, so a failure
 * reads `return fail(error, "...")`. Callers above may put a phrase in front
 * with fail_prefix(). Only baker/cli/ prints; the code decides the exit status.
 */
#ifndef KILN_BASE_ERROR_H
#define KILN_BASE_ERROR_H

#include <glib.h>
#include <stdbool.h>

#define KILN_ERROR (kiln_error_quark())
GQuark kiln_error_quark(void);

typedef enum KilnErrorCode {
    KILN_ERROR_FAILED,      /* exit 1: it was tried and did not work */
    KILN_ERROR_USAGE,       /* exit 2: command line or template is wrong */
    KILN_ERROR_NOT_FOUND,   /* exit 1: the named thing does not exist */
    KILN_ERROR_NO_SPACE,    /* exit 1: disk full */
    KILN_ERROR_INTERRUPTED, /* exit 130: the user asked us to stop */
    KILN_ERROR_TIMEOUT,     /* exit 1: a limit in time was passed */
} KilnErrorCode;

/* Sets a KILN_ERROR_FAILED error from a whole sentence without a final stop. Returns false. */
bool fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The same with another code. */
bool fail_code(GError **error, KilnErrorCode code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* "cannot <format>: <strerror(errno)>"; ENOSPC and EDQUOT give KILN_ERROR_NO_SPACE, ENOENT KILN_ERROR_NOT_FOUND. */
bool fail_errno(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Puts "<format>: " in front of the message that is there already. Returns false. */
bool fail_prefix(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* The exit status that design and manual promise for @error. */
int error_exit_status(const GError *error);

#endif
