/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel log, for the files of store/ that add to it: promote.c and revoke.c.
 */
#ifndef KILN_STORE_CHANNEL_PRIVATE_H
#define KILN_STORE_CHANNEL_PRIVATE_H

#include "store/catalog.h"
#include "store/channel.h"

#define ENTRY_COLUMNS "number, at, action, name, kind, channel, image, who, note, extra, previous, hash"

/* One entry. Strings may be NULL but @action, @name, @kind and @channel. In a transaction. */
typedef struct ChannelAddition {
    int64_t at; /* entries of one transaction share it */
    const char *action, *name, *kind, *channel;
    const Digest *image; /* or NULL */
    const StoreWhy *why;
    const json_t *extra; /* what goes there beside on_behalf_of; may be NULL */
} ChannelAddition;
bool channel_append(Database *db, const ChannelAddition *addition, GError **error);

/* Entries of a query over ENTRY_COLUMNS. */
bool channel_entries(Query *query, GPtrArray **ret, GError **error);

/* keep.c: the entries of images that are kept now, oldest first. */
bool channel_keeps(Database *db, GPtrArray **ret, GError **error);

/* "disk" -> "disk", "oci" -> "container image". */
const char *channel_kind_name(const char *kind);

#endif
