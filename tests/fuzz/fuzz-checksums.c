/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: files of checksums that a mirror serves. What is found is a whole sum of its type.
 */
#include "baker/source-checksum.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    SourceChecksum sum;
    bool found;

    source_checksum_find((const char *)data, size, "a.qcow2", &sum, &found);
    if (found && (!sum.given || !sum.type || strlen(sum.hex) < 32 || strspn(sum.hex, "0123456789abcdef") != strlen(sum.hex)))
        abort();
    (void)source_checksum_parse(text, &sum, NULL);
    return 0;
}
