/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group's journal, folded: what is known of a group without looking at any host.
 *
 *   group_read (any process) or group_write (the one controller) -> fields -> group_free
 *
 * Records are JSON objects with "do":
 *   revision  {revision, image, kind, name, spec, hosts, attest}   a new revision; never changed afterwards
 *   want      {revision, plan, reason, on_behalf_of, approver, ...} apply or rollback ask for it
 *   begin     {revision, from_revision, ...}                       the rollout starts (decision)
 *   verb      {verb, arguments, reason, on_behalf_of}              scale, pause, continue, abort, rollback, destroy, approve, retry
 *   create attest enter route drain leave destroy switch           intents, with "n"
 *   done      {n, ok, error, proof, ...}                           the outcome of intent n
 *   lost phase stable failed returned ended                        decisions of the transition function
 * Unknown ones are skipped, so that older programs read newer journals.
 */
#ifndef KILN_DEPLOY_GROUP_JOURNAL_H
#define KILN_DEPLOY_GROUP_JOURNAL_H

#include "deploy/group.h"
#include "deploy/transition.h"

/* What the transition function need not know of an instance. */
typedef struct InstanceFacts {
    uint32_t revision, slot, attempt;
    char *address;                                              /* given or found; NULL */
    unsigned proofs;                                            /* ProofFlags */
    int64_t created_at, entered_at, routed_at, drained_at, ended_at; /* microseconds since 1970, 0: not yet */
} InstanceFacts;

typedef struct RevisionFacts {
    uint32_t number;
    Digest image;
    char *image_name, *kind;
    GroupSpec *spec;
    Digest spec_digest;
    char *tests;          /* what the image's bake tested, for the audit; NULL: nothing */
    int64_t at, failed_at;
    char *failed_why;
} RevisionFacts;

typedef struct Group {
    char *name;
    Store *store;
    StoreJournal *journal; /* NULL: only read */
    GroupState *state;
    GPtrArray *revisions;  /* RevisionFacts*, by number */
    GHashTable *instances; /* InstanceFacts*, see group_facts() */
    GPtrArray *hosts;      /* char* "DRIVER HOST", index as in the state */
    GHashTable *intents;   /* n -> Action*, those without outcome */
    GroupRules plain;      /* see group_rules() */
    json_t *want;          /* the last one that was asked for; may be NULL */
    json_t *rollout;       /* the record that began the present or last rollout */
    GString *executed;     /* the steps since that, as group_action_line(); for comparing with the plan */
    int64_t last_number, last_intent, begun_at, phase_at, ended_at;
    char *outcome;         /* of the last rollout: "stable", "rolled back: why", NULL: none or running */
    int32_t switched;      /* blue/green: color that the map was last told; -1: none yet */
    bool exists;           /* there is a journal */
    bool destroyed;
    bool end_volumes;      /* destroy --volumes was said */
} Group;

bool group_read(Store *store, const char *name, Group **ret, GError **error);
/* Takes the group's lock. A group that does not exist yet has size 0 and no revision. */
bool group_write(Store *store, const char *name, bool wait, Group **ret, GError **error);
/* Folds what was added since, by whomever. */
bool group_refresh(Group *group, GError **error);
void group_free(Group *group);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Group, group_free)

/* Appends records (taken) in one transaction and folds them. */
bool group_append(Group *group, GPtrArray *records, GError **error);
bool group_append_one(Group *group, json_t *record, GError **error);

/* A verb's record: new reference; @arguments borrowed, it and the texts may be NULL. */
json_t *group_verb_record(const char *verb, json_t *arguments, const char *reason, const char *on_behalf_of);
/* An error for one that nobody has deployed. */
bool group_check_exists(const Group *group, GError **error);

/* Folds a record that is not in the journal: for plans, on a group that was only read. */
bool group_imagine(Group *group, const json_t *record, GError **error);
/* The group as it was at a moment (microseconds since 1970). */
bool group_read_at(Store *store, const char *name, int64_t at, Group **ret, GError **error);

RevisionFacts *group_revision_facts(const Group *group, uint32_t number); /* NULL when absent */
InstanceFacts *group_facts(const Group *group, uint32_t revision, uint32_t slot, uint32_t attempt); /* made when absent */
/* The spec that rules now: the target's, else the current one's, else the wanted one's; NULL before the first. */
const RevisionFacts *group_ruling(const Group *group);
/* Its rules. On the way to an earlier revision a canary has no steps and nothing waits at a gate: it is known, and it is wanted now. */
const GroupRules *group_rules(const Group *group);
/* Index of "DRIVER HOST", appended when new. */
int group_host(Group *group, const char *driver, const char *host);

/* Name of the group's instance, as hosts know it. */
void group_instance_name(const Group *group, uint32_t revision, uint32_t slot, uint32_t attempt, char ret[96]);
/* "IP:PORT", as the balancer knows the instance; NULL while its address is not known. */
char *group_instance_address(const Group *group, const InstanceFacts *facts);
/* Of a revision: the backend its instances stand in; 0 for one that the state does not know. */
uint32_t group_color(const Group *group, uint32_t revision);

/* Images that may still be needed: Digest, to free with g_array_unref. */
GArray *group_holds(const Group *group);

/* A batch as records: intents get their numbers. */
json_t *group_action_record(Group *group, const Action *action);
/* "create web-r2-0-a1", "switch to color 1": without what a plan can't know (addresses, times). */
char *group_action_line(const Group *group, const Action *action);

#endif
