/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two trees side by side: one walk over both in path order.
 */
#include "store/tree.h"

#include <string.h>

void tree_diff(Tree *a, Tree *b, TreeDiffFn *fn, void *arg)
{
    size_t ia = 0, ib = 0;

    for (;;) {
        const TreeEntry *ea = tree_nth(a, ia), *eb = tree_nth(b, ib);
        int order;
        bool more = true;

        if (!ea && !eb)
            return;
        order = !ea ? 1 : !eb ? -1 : strcmp(ea->path, eb->path);
        if (order < 0)
            more = fn('-', ea, NULL, arg);
        else if (order > 0)
            more = fn('+', NULL, eb, arg);
        else if (!tree_entry_equal(ea, eb))
            more = fn('~', ea, eb, arg);
        if (!more)
            return;
        ia += order <= 0;
        ib += order >= 0;
    }
}
