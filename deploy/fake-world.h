/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder in which the fake driver's instances "run". Tests, plans that want no machine, and people who try things out use it.
 *
 *   DIR/HOST/NAME.json     an instance: {"mark": GROUP, "id": {...}, "address", "created": us, "boot": s, "boots", "state": "up"|"dead", "seal"}
 *   DIR/images/HEX         an image that was brought here: its identity as text
 *   DIR/volumes/GROUP/...  one file per (volume, slot): the instance that has it
 *   DIR/changed/NAME.json  [{"path", "what"}]: what the instance's disk is said to have changed
 *   DIR/faults.json        rules that a test writes at any time, see below
 *   DIR/counts.json        how often a rule with "times" was used
 *   DIR/lock               held while the folder is changed
 *
 * faults.json is an object of lists. "host_silent": hosts. "dies": names of instances that are dead from now on. All others are lists
 * of rules {"image": "sha256:...", "revision": N, "slot": N, "name": "...", "host": "...", "times": N}: what a rule does not say fits all, and
 * "times" bounds how often it fits (absent: for ever).
 *   create_fails, destroy_fails, prepare_fails (only "image" counts), boot_fails (dead after its boot time), boot_hangs, wrong_image, ping_fails
 *
 * Everything is atomic and survives a kill of the reader or the writer; nothing is synced, a power cut may take it.
 */
#ifndef KILN_DEPLOY_FAKE_WORLD_H
#define KILN_DEPLOY_FAKE_WORLD_H

#include "deploy/driver.h"

typedef struct FakeWorld {
    char *dir;
    GHashTable *seen; /* path -> what was parsed and the stat it had then */
} FakeWorld;

typedef struct FakeInstance {
    char *name, *host, *mark, *address; /* address may be NULL */
    InstanceId id;   /* where !known as far as the name tells */
    bool known;      /* id was readable and fits the name */
    bool edited;     /* the seal does not fit what it seals */
    bool boots, hangs, dead;
    int64_t created; /* microseconds since 1970 */
    double boot;
} FakeInstance;

FakeWorld *fake_world_new(const char *dir);
void fake_world_free(FakeWorld *world);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FakeWorld, fake_world_free)

/* All instances of @host (NULL: all hosts), sorted by name; array of FakeInstance*, borrowed until the next call. */
bool fake_world_read(FakeWorld *world, const char *host, GPtrArray **ret, GError **error);
Life fake_instance_life(const FakeInstance *instance);

/* The JSON document DIR/NAME; *ret is NULL when there is none. */
bool fake_world_document(const FakeWorld *world, const char *name, json_t **ret, GError **error);

/* Is @word in the list @key of @faults (may be NULL)? */
bool fake_fault_names(const json_t *faults, const char *key, const char *word);

/* The first rule of @key that fits, counted in @counts (an object that the caller stores) where it has "times". @counts NULL: not counted. */
bool fake_fault_fits(const json_t *faults, const char *key, const InstanceId *id, const char *host, json_t *counts);

/* Over what of an instance's document must stay as it was created. */
char *fake_instance_seal(const json_t *document);

#endif
