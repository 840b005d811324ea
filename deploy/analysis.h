/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canary analysis: is the new revision worse than a fresh baseline of the old one? Collects samples while a step is watched, and says pass,
 * fail or inconclusive once there are enough.
 *
 *   analysis_new -> (analysis_sample, analysis_verdict)* -> analysis_free
 *
 * Samples live in memory only: a controller that starts again collects them anew, so a verdict never rests on a gap. There is one look
 * at the numbers, when the last sample is there: looking again and again until something shows would call half of all good canaries bad.
 */
#ifndef KILN_DEPLOY_ANALYSIS_H
#define KILN_DEPLOY_ANALYSIS_H

#include "deploy/group.h"

typedef struct Analysis Analysis;

/* @spec is borrowed, and outlives the analysis. */
Analysis *analysis_new(const GroupSpec *spec);
void analysis_free(Analysis *analysis);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Analysis, analysis_free)

typedef struct AnalysisInput {
    double now;    /* seconds of a clock that only goes forward */
    unsigned step; /* from 0; when it changes all begins anew */
    const BalancerCounters *canary, *baseline; /* sums over each side's instances; NULL: not read */
    const char *const *canary_addresses, *const *baseline_addresses; /* "IP:PORT", NULL-terminated; NULL: none. When they change counters start over */
} AnalysisInput;

/*
 * Takes the samples that are due; cheap when none is. Asking Prometheus takes at most 10 seconds, a command at most 30. What goes wrong
 * is no error of the call: it shows in the verdict.
 */
void analysis_sample(Analysis *analysis, const AnalysisInput *input);

/* When the next sample is due, on the same clock; infinite when none is needed any more. */
double analysis_due(const Analysis *analysis);

/*
 * Any that fails fails, else any that is inconclusive is inconclusive, else all passed, else (some are not ready) VERDICT_NONE. @ret_why (may be
 * NULL): sentences with numbers, for people and the journal.
 */
Verdict analysis_verdict(const Analysis *analysis, char **ret_why);

#endif
