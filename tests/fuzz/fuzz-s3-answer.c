/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: what something that says it is S3 answers in XML.
 */
#include "store/s3-answer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_auto(S3Answer) answer = {0};

    if (s3_answer_parse(data, size, &answer, NULL) && !answer.root)
        abort();
    for (guint i = 0; i < answer.entries->len; i++)
        if (!((RemoteEntry *)answer.entries->pdata[i])->key)
            abort();
    return 0;
}
