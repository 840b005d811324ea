/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group files: *.group.hcl, read by the templates' parser, checked whole, as plain structs (kiln-group(5)).
 *
 * A GroupSpec is what one revision is made of, without its size. Its canonical JSON is kept in the journal with each revision, and
 * group_spec_from_json() gives the same struct again: a revision is never re-read from a file that may have changed.
 */
#ifndef KILN_DEPLOY_GROUP_H
#define KILN_DEPLOY_GROUP_H

#include "deploy/balancer.h"
#include "deploy/driver.h"
#include "deploy/transition.h"
#include "templates/templates.h"

#define GROUP_SUFFIX ".group.hcl"

typedef enum AnalysisKind { ANALYSIS_BALANCER, ANALYSIS_PROMETHEUS, ANALYSIS_COMMAND } AnalysisKind;

/* analysis "KIND" { ... } in strategy "canary". */
typedef struct AnalysisSpec {
    AnalysisKind kind;
    char *url, *query_canary, *query_baseline; /* prometheus */
    char **command;                            /* argv; exit 0 pass, 1 fail, other inconclusive */
    double interval;                           /* seconds between samples */
    unsigned samples;                          /* needed before a verdict */
    double allowed_increase;                   /* ratio that is still fine: 1.0 = none (effect size, facts 1.4) */
    double confidence;                         /* of Mann-Whitney: 0.98 */
    double tolerance;                          /* of the Hodges-Lehmann estimate: 0.25 */
    double pass_score, marginal_score;         /* 0..100 */
} AnalysisSpec;

typedef struct GroupSpec {
    char *name;
    char *image_ref;      /* as written */
    char *driver, *balancer; /* member names; balancer "none" when the block is absent */
    json_t *driver_arguments, *balancer_arguments;
    InstanceShape shape;
    /* health */
    char *health_http;                   /* path, or NULL */
    bool health_tcp, health_agent;       /* none of the three and no http: running is enough */
    unsigned health_port;
    double health_interval, start_timeout;
    unsigned rise, fall;
    double drain_deadline;
    GroupRules rules;
    double canary_hold;
    bool sticky;
    GPtrArray *analyses;  /* of AnalysisSpec* */
    double rollback_keep; /* seconds */
    double deadline;      /* of a whole rollout; 0 none */
    double max_age;       /* 0 none */
    double host_lost_after; /* seconds after which a silent host's instances are counted as gone (a recorded override); 0 never */
    bool cure_replace;
    char **drift_ignore;  /* globs beside the shipped list */
    bool ephemeral;
    bool approval;        /* another person approves each plan */
    bool needs_test;      /* refuses images whose bake ran no test */
} GroupSpec;

void group_spec_free(GroupSpec *spec);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GroupSpec, group_spec_free)

typedef struct GroupFile {
    GroupSpec *spec;
    unsigned size;
    bool size_given;      /* size = N stands in the file; a later apply without it keeps what `scale` set */
} GroupFile;
void group_file_free(GroupFile *file);

/* A file, or all *.group.hcl of a folder; @vars as TemplateOptions.vars. Every mistake with place and caret, KILN_ERROR_USAGE. */
bool group_load(const char *path, const char *const *vars, const char *const *var_files, GPtrArray **ret /* of GroupFile* */, GError **error);
/* The same with a text instead of the file, and with mistakes as JSON (TemplateOptions' input and diagnostics). */
bool group_load_with(const char *path, const TemplateOptions *options, GPtrArray **ret, GError **error);
/* The name is a group file's, or it is a folder that holds one. */
bool group_file_is(const char *path);

/* Canonical: equal specs give equal JSON. Secrets have no place in group files. */
json_t *group_spec_json(const GroupSpec *spec);
bool group_spec_from_json(const json_t *json, GroupSpec **ret, GError **error);

/* The address list, expanded and checked (at most 4096); array of char* "IP", and its prefix length. */
bool group_addresses(const InstanceShape *shape, GPtrArray **ret, unsigned *ret_prefix_length, GError **error);

/* Refuses an image that would lose data: declares a VOLUME or holds a database's folder, and the group has neither volume nor `ephemeral`. */
bool group_check_image(Store *store, const GroupSpec *spec, const StoreImage *image, GError **error);

#endif
