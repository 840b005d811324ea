/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files that read a group share: the group at hand, its blocks, and how a mistake in them is told.
 *
 *   group.c           files, the group's own arguments, the simple blocks
 *   group-part.c      one block of a group: typed, bounded look-ups that complain with place and caret
 *   group-network.c   network, addresses, firewall
 *   group-strategy.c  strategy, canary steps, analyses
 *   group-spec-json.c the spec as JSON and back
 *   group-image.c     what an image must not be for a group
 *
 * Reading goes on after a mistake, with the default instead of the wrong value, so that one run tells all of them.
 */
#ifndef KILN_DEPLOY_GROUP_PRIVATE_H
#define KILN_DEPLOY_GROUP_PRIVATE_H

#include "deploy/group.h"
#include "templates/templates.h"

enum {
    GROUP_SIZE_MAX = 10000,
    GROUP_ADDRESSES_MAX = 4096,
    GROUP_VOLUMES_MAX = 16,
    GROUP_ANALYSES_MAX = 16,
    GROUP_LIST_MAX = 1024, /* elements of any list */
    GROUP_USER_DATA_MAX = 256 * 1024,
    GROUP_MISTAKES_MAX = 50,
    GROUP_NAME_MAX = 48,
};

#define GROUP_DURATION_MAX (10 * 366 * 86400.0)
#define GROUP_MEMORY_MIN ((uint64_t)16 << 20)
#define GROUP_MEMORY_MAX ((uint64_t)64 << 40)
#define GROUP_VOLUME_MIN ((uint64_t)1 << 20)
#define GROUP_VOLUME_MAX ((uint64_t)64 << 40)

typedef struct GroupReader {
    const TemplateBlock *block;
    GroupFile *file;
    GroupSpec *spec;              /* the file's */
    const DriverOps *driver;      /* NULL: unknown */
    const BalancerOps *balancer;  /* NULL: unknown, or "none" where there is no such member */
    bool surge_given, unavailable_given;
    GString *mistakes;
    unsigned count;
} GroupReader;

/* A block of the group, or the group itself. */
typedef struct GroupPart {
    GroupReader *reader;
    const json_t *object; /* NULL: the block is absent, every look-up gives its default */
    const char *label;    /* NULL: it has none */
    char path[64];        /* for template_complain; "" is the group */
    char name[64];        /* for people: 'strategy "canary"' */
} GroupPart;

/* @argument NULL: the block itself. */
void part_wrong(const GroupPart *part, const char *argument, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* Tells every argument that is not in @allowed (NULL-terminated). */
void part_only(const GroupPart *part, const char *const *allowed);

/* The block @type of @part; more than one is told. @labelled: it has a label. */
void part_block(const GroupPart *part, const char *type, bool labelled, GroupPart *ret);
/* How often it is there, and one of them. Something that is no block is told, and counts as none. */
size_t part_blocks(const GroupPart *part, const char *type, bool labelled);
void part_block_at(const GroupPart *part, const char *type, size_t index, GroupPart *ret);

bool part_has(const GroupPart *part, const char *argument);
const char *part_string(const GroupPart *part, const char *argument, const char *otherwise); /* never empty; borrowed */
bool part_bool(const GroupPart *part, const char *argument, bool otherwise);
unsigned part_count(const GroupPart *part, const char *argument, unsigned otherwise, unsigned min, unsigned max);
double part_number(const GroupPart *part, const char *argument, double otherwise, double min, double max);
double part_duration(const GroupPart *part, const char *argument, double otherwise, double min, double max);
uint64_t part_size(const GroupPart *part, const char *argument, uint64_t otherwise, uint64_t min, uint64_t max);
char **part_strings(const GroupPart *part, const char *argument); /* NULL when absent */
/* One of @words (NULL-terminated); the default's index when absent. */
unsigned part_word(const GroupPart *part, const char *argument, const char *const *words, unsigned otherwise);

/* Printable, no blanks at the ends, at most @max bytes. */
bool group_text_is_plain(const char *text, size_t max);

void group_read_network(const GroupPart *group);
void group_read_firewall(const GroupPart *group); /* after health */
void group_check_addresses(const GroupPart *group, unsigned ceiling);
void group_read_strategy(const GroupPart *group); /* after volumes, driver and balancer */

/* Instances that a canary step means in a group of @size. */
unsigned group_step_count(const CanaryStep *step, unsigned size);

bool group_allow_parse(const char *entry, char ret_protocol[5], unsigned *ret_first, unsigned *ret_last);
void analysis_spec_free(AnalysisSpec *spec);
void volume_spec_free(VolumeSpec *spec);

#endif
