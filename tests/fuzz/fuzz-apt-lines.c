/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: what apt-get prints about packages and addresses that others chose. What is taken from a line goes to dpkg as arguments,
 * so it must be nothing that could be an option, a path or a second line.
 */
#include "baker/resolve-parts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_word(const char *text)
{
    if (!text || !*text || *text == '-' || strpbrk(text, " \n/[]()"))
        abort();
}

static void check_operation(const char *line)
{
    g_autoptr(AptOperation) operation = apt_operation_parse(line);

    if (!operation)
        return;
    check_word(operation->name);
    if (!strchr("icrp", operation->kind))
        abort();
    if (operation->kind == 'i') {
        check_word(operation->version);
        check_word(operation->architecture);
    }
}

static void check_uri(const char *line)
{
    g_autoptr(AptUri) uri = apt_uri_parse(line);

    if (uri && (!uri->uri || !uri->name || !uri->version || !uri->architecture))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *line = g_strndup((const char *)data, size);

    check_operation(line);
    check_uri(line);
    return 0;
}
