/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds the bytes of images: names, channels, groups, tags, keeps. For rm and prune, which ask one at a time what they may let go.
 */
#ifndef KILN_STORE_HOLD_H
#define KILN_STORE_HOLD_H

#include "store/pool.h"

typedef enum HoldKind {
    HOLD_NAME,    /* the newest of a name */
    HOLD_CHANNEL, /* a channel points at it */
    HOLD_BACK,    /* a channel goes back to it */
    HOLD_GROUP,   /* a group runs it or may go back to it */
    HOLD_TAG,     /* a tag that it was pushed by */
    HOLD_KEEP,    /* kiln keep */
} HoldKind;

typedef struct Hold {
    HoldKind kind;
    char *name;   /* HOLD_NAME, HOLD_TAG: which one; whose */
    char *phrase; /* what may stand behind "held by" */
} Hold;

/*
 * All of them: Digest* of an image -> GPtrArray of Hold*, in the order of HoldKind; free with g_hash_table_unref. What is found stays true
 * while the caller has the write locks of both databases, state's taken first.
 */
bool holds_load(Store *store, GHashTable **ret, GError **error);

#endif
