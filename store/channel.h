/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: named pointers per NAME and kind to an image ID, kept as a log that is only added to.
 *
 * A channel points where its last `promote` entry says. Entries are chained: each hash covers its own fields and the hash before
 * it, so a log that was changed afterwards does not verify. A channel may ask for something before it moves (`rules` entries).
 *
 * A revoked image stays readable and exportable; it can no longer be promoted, planned or baked from, and neither can
 * what was baked from it, over any number of bakes.
 */
#ifndef KILN_STORE_CHANNEL_H
#define KILN_STORE_CHANNEL_H

#include "store/image.h"

typedef struct StoreChannelEntry {
    int64_t number, at; /* seconds since 1970 */
    char *action;       /* "promote", "revoke", "rules", "keep" or "release" */
    char *name, *kind;  /* kind: empty for "rules" */
    char *channel;      /* empty for "revoke", "keep" and "release" */
    Digest image;       /* none for "rules" */
    char *who, *note;   /* Unix user; the reason. May be NULL */
    json_t *extra;      /* object or NULL: where the next four come from */
    Digest from;        /* promote: where the channel pointed before; none: nowhere, or written before it was recorded */
    const char *on_behalf_of; /* or NULL */
    bool stop;          /* revoke: what runs it is not healed either */
    const json_t *rules;      /* rules: as store_channel_set_rules() got them */
    Digest previous, hash;
} StoreChannelEntry;
void store_channel_entry_free(StoreChannelEntry *entry);

/* Names allowed: [a-z][a-z0-9._-]*, at most 64. */
bool store_channel_check(const char *channel, GError **error);

/* Why and for whom something is done: UTF-8 without control characters, at most 1024 and 128 bytes; both may be NULL. */
typedef struct StoreWhy {
    const char *reason, *on_behalf_of;
} StoreWhy;
bool store_why_check(const StoreWhy *why, GError **error);

typedef struct StorePromotion {
    const char *name, *channel;
    GPtrArray *images;  /* of StoreImage*: all kinds of one set, or one of them */
    StoreWhy why;
    const char *expect; /* compare-and-set: an image ID, 12 or more of its hex digits, or "none"; NULL: whatever is there */
    bool back;          /* to what the channel pointed at before: it met the channel's rules then, only a reason may be asked for */
} StorePromotion;

/*
 * Points the channel at the images, in one transaction. What it points at already is not logged again, nor judged by rules. @ret_moved may be NULL.
 * Refuses revoked images, an @expect that is not (or no longer) there, and what the channel's rules do not let in.
 */
bool store_promote(Store *store, const StorePromotion *promotion, bool *ret_moved, GError **error);

/*
 * What @channel pointed at before it last moved: each kind that moved then, or only @kind when that is given. Array of
 * StoreImage*. An error when it has not moved twice, or when the images are gone.
 */
bool store_channel_previous(Store *store, const char *name, const char *kind, const char *channel, GPtrArray **ret, GError **error);

/* Where channels point now, by name, channel and kind; @name NULL: all. With @history every entry, oldest first. */
bool store_channels(Store *store, const char *name, bool history, GPtrArray **ret, GError **error);

/* What a channel asks for. All false and NULL: nothing. */
typedef struct StoreChannelRules {
    bool reason;
    bool test;        /* a test that was passed: `tests` in the provenance of a set with the image */
    const char *from; /* the ID was in this channel of the same name and kind, now or before */
} StoreChannelRules;

/* Replaces the rules. Logged, so NAME needs no image yet. */
bool store_channel_set_rules(Store *store, const char *name, const char *channel, const StoreChannelRules *rules, const StoreWhy *why,
                             GError **error);
/* The entries that are in force, of channels that ask for something; array of StoreChannelEntry*. @name NULL: all. */
bool store_channel_rules(Store *store, const char *name, GPtrArray **ret, GError **error);
/* Of an entry's @rules; strings are borrowed from it. */
void store_channel_rules_read(const json_t *rules, StoreChannelRules *ret);

/* The chain, whole; a broken link is one sentence in @problems. */
bool store_channels_verify(Store *store, GPtrArray *problems, GError **error);

/* --- keeps --- */

/* The bytes of all of @images (StoreImage*) stay until they are released, whatever prune's rules say. To release what is not kept is an error. */
bool store_keep(Store *store, GPtrArray *images, const StoreWhy *why, bool release, GError **error);

/* What is kept now: the entries that say so, oldest first; array of StoreChannelEntry*. */
bool store_keeps(Store *store, GPtrArray **ret, GError **error);

/* --- revocation --- */

/* All of @images (StoreImage*) in one transaction; a reason is needed. It cannot be taken back. @stop: nor may what runs them be healed. */
bool store_revoke(Store *store, GPtrArray *images, const StoreWhy *why, bool stop, GError **error);

typedef struct StoreRevocation {
    bool revoked, stop;
    char *reason;       /* never empty when revoked */
    Digest because;     /* the image that was revoked: the one asked for or an ancestor */
} StoreRevocation;
void store_revocation_clear(StoreRevocation *revocation);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(StoreRevocation, store_revocation_clear)

/* Is @image revoked, or anything that it was baked from? One with @stop is told before one without. */
bool store_revocation(Store *store, const Digest *image, StoreRevocation *ret, GError **error);

/* The same as a phrase. *ret_why: NULL when @image was not revoked; else why, never empty, naming the ancestor if it is one. */
bool store_revoked(Store *store, const Digest *image, char **ret_why, GError **error);

/* What was baked from @image, transitively, and is in the store; newest first, array of StoreImage*. */
bool store_descendants(Store *store, const Digest *image, GPtrArray **ret, GError **error);

#endif
