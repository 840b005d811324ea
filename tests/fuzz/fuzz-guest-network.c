/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: packets that a hostile guest sent. Whatever they are, there is a bounded list of printable texts.
 */
#include "baker/guest-network.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const guint8 *data, size_t size);

int LLVMFuzzerTestOneInput(const guint8 *data, size_t size)
{
    g_autoptr(GPtrArray) reached = guest_network_parse(data, size);

    for (guint i = 0; i < reached->len; i++)
        for (const char *c = reached->pdata[i]; *c; c++)
            if (!g_ascii_isprint(*c))
                abort();
    return 0;
}
