/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: named pointers per NAME and kind to an image ID, kept as a log that is only added to.
 *
 * A channel points where its last `promote` entry says. Entries are chained: each hash covers its own fields and the hash before
 * it, so a log that was changed afterwards does not verify. A revoked image stays readable and exportable; it can no longer be
 * promoted or baked from.
 */
#ifndef KILN_STORE_CHANNEL_H
#define KILN_STORE_CHANNEL_H

#include "store/image.h"

typedef struct StoreChannelEntry {
    int64_t number, at; /* seconds since 1970 */
    char *action;       /* "promote" or "revoke" */
    char *name, *kind;
    char *channel;      /* empty for "revoke" */
    Digest image;
    char *who, *note;   /* may be NULL */
    Digest previous, hash;
} StoreChannelEntry;
void store_channel_entry_free(StoreChannelEntry *entry);

/* Names allowed: [a-z][a-z0-9._-]*, at most 64. */
bool store_channel_check(const char *channel, GError **error);

/*
 * Points @channel of @name at @images (StoreImage*, all kinds of one set), in one transaction. What it points at already is not logged
 * again. @ret_moved may be NULL. Refuses revoked images.
 */
bool store_promote(Store *store, const char *name, GPtrArray *images, const char *channel, const char *note, bool *ret_moved,
                   GError **error);

/* Where channels point now, by name, channel and kind; @name NULL: all. With @history every entry, oldest first. */
bool store_channels(Store *store, const char *name, bool history, GPtrArray **ret, GError **error);

/* The chain, whole; a broken link is one sentence in @problems. */
bool store_channels_verify(Store *store, GPtrArray *problems, GError **error);

bool store_revoke(Store *store, const StoreImage *image, const char *why, GError **error);
/* *ret_why: NULL when @image was not revoked; else why, never empty. */
bool store_revoked(Store *store, const Digest *image, char **ret_why, GError **error);

#endif
