/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln's end of the conversation with the plugin.
 */
#include "store/nbd-control.h"

#include "base/error.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS (120 * 1000) /* requests under way finish first, and a host may be very busy */

bool nbd_control_read(int fd, char line[NBD_CONTROL_LINE_MAX], GError **error)
{
    size_t used = 0;

    while (used + 1 < NBD_CONTROL_LINE_MAX) {
        struct pollfd wait = {fd, POLLIN, 0};
        int ready = poll(&wait, 1, ANSWER_TIMEOUT_MS);
        ssize_t got;

        if (ready == 0)
            return fail_code(error, KILN_ERROR_TIMEOUT, "the disk's server (nbdkit) does not answer");
        got = ready < 0 ? -1 : read(fd, line + used, 1); /* short lines, rarely */
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fail(error, "the disk's server (nbdkit) ended unexpectedly");
        if (line[used] == '\n') {
            line[used] = '\0';
            return true;
        }
        used++;
    }
    return fail(error, "the disk's server (nbdkit) gave an answer that is too long");
}

bool nbd_control_answer(int fd, unsigned *ret_number, GError **error)
{
    char line[NBD_CONTROL_LINE_MAX];

    if (!nbd_control_read(fd, line, error))
        return false;
    if (g_str_has_prefix(line, "error "))
        return fail(error, "%s", line + strlen("error "));
    if (strcmp(line, "ok") != 0 && !g_str_has_prefix(line, "ok "))
        return fail(error, "the disk's server (nbdkit) answered '%s'", line);
    if (ret_number)
        *ret_number = line[2] ? (unsigned)g_ascii_strtoull(line + 3, NULL, 10) : 0;
    return true;
}
