/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place that turns a code into an exit status and errno into words,
 * so that every error in kiln reads and ends the same way: names of strangers in it drive no terminal and are valid JSON (printable.h).
 */
#include "base/error.h"

#include "base/printable.h"

#include <errno.h>
#include <string.h>

GQuark kiln_error_quark(void)
{
    return g_quark_from_static_string("kiln-error");
}

static bool set_error(GError **error, KilnErrorCode code, const char *format, va_list args)
{
    g_autofree char *plain = g_strdup_vprintf(format, args), *message = printable_message(format, plain);

    g_set_error_literal(error, KILN_ERROR, code, message);
    return false;
}

bool fail(GError **error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set_error(error, KILN_ERROR_FAILED, format, args);
    va_end(args);
    return false;
}

bool fail_code(GError **error, KilnErrorCode code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set_error(error, code, format, args);
    va_end(args);
    return false;
}

static KilnErrorCode code_of_errno(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
        return KILN_ERROR_NO_SPACE;
    case ENOENT:
        return KILN_ERROR_NOT_FOUND;
    default:
        return KILN_ERROR_FAILED;
    }
}

bool fail_errno(GError **error, const char *format, ...)
{
    int number = errno;
    g_autofree char *plain = NULL, *what = NULL;
    va_list args;

    va_start(args, format);
    plain = g_strdup_vprintf(format, args);
    va_end(args);
    what = printable_message(format, plain);
    g_set_error(error, KILN_ERROR, code_of_errno(number), "cannot %s: %s", what, g_strerror(number));
    return false;
}

bool fail_prefix(GError **error, const char *format, ...)
{
    g_autofree char *plain = NULL, *what = NULL;
    va_list args;

    if (!error || !*error)
        return false;
    va_start(args, format);
    plain = g_strdup_vprintf(format, args);
    va_end(args);
    what = printable_message(format, plain);
    g_prefix_error(error, "%s: ", what);
    return false;
}

int error_exit_status(const GError *error)
{
    if (!error || error->domain != KILN_ERROR)
        return 1;
    switch ((KilnErrorCode)error->code) {
    case KILN_ERROR_USAGE:
        return 2;
    case KILN_ERROR_INTERRUPTED:
        return 130;
    default:
        return 1;
    }
}
