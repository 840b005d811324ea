/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics of a canary's judge: is one series of numbers higher than another, or is that chance? Pure functions.
 *
 * The rules are those of Kayenta's judge: the Mann-Whitney U test with a confidence interval of the shift as R's wilcox.test computes
 * it, a tolerance in terms of the Hodges-Lehmann estimate, an effect size, and scores in percent with two decimals.
 */
#ifndef KILN_DEPLOY_STATISTICS_H
#define KILN_DEPLOY_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

enum { STATISTICS_MAX = 1000000 /* numbers in a series */ };

typedef struct MannWhitney {
    double u;            /* pairs in which x is above y, and half of those in which they are equal */
    double p;            /* two-sided */
    double estimate;     /* Hodges-Lehmann: the median of all differences x - y */
    double lower, upper; /* of the shift, at the confidence asked for */
    bool exact;          /* else by the normal approximation, with corrections for ties and continuity */
} MannWhitney;

/* Exact where both series have less than 50 numbers and no two are equal. Numbers are finite, at least one each; else false. */
bool mann_whitney(const double *x, size_t nx, const double *y, size_t ny, double confidence, MannWhitney *ret);

/* Keeps what lies within @factor interquartile ranges of the quartiles (those of R's type 7), in place; gives the new size. */
size_t remove_outliers(double *values, size_t n, double factor);

double mean_of(const double *values, size_t n); /* 0 of nothing */
/* x's mean in terms of y's: 1 when both are 0, infinite when only y's is. */
double effect_mean_ratio(const double *x, size_t nx, const double *y, size_t ny);
/* Common language effect size: how probable it is that one of x is above one of y; 0.5: alike. */
double effect_cles(const double *x, size_t nx, const double *y, size_t ny);

typedef enum Classification { CLASS_PASS, CLASS_HIGH, CLASS_LOW, CLASS_NODATA } Classification;
typedef enum Direction { DIRECTION_INCREASE = 1, DIRECTION_DECREASE = 2, DIRECTION_EITHER = 3 } Direction; /* which change is bad */
typedef enum EffectSize { EFFECT_MEAN_RATIO, EFFECT_CLES } EffectSize;

typedef struct JudgeRules {
    double confidence;      /* 0.98 */
    double tolerance;       /* 0.25: the interval must clear so much of the estimate */
    Direction direction;
    EffectSize effect;
    double allowed_increase, allowed_decrease; /* effect sizes from which on a change counts; 1.0, for CLES 0.5 */
    double outlier_factor;  /* 3.0; 0: nothing is removed */
} JudgeRules;

typedef struct Judgement {
    Classification class;
    MannWhitney test;   /* all 0 where none was needed */
    double effect;
    double canary, baseline; /* means */
    size_t canary_count, baseline_count; /* numbers that were judged */
} Judgement;

/* What is not finite is left out first. Equal series pass. */
void judge(const JudgeRules *rules, const double *canary, size_t n_canary, const double *baseline, size_t n_baseline, Judgement *ret);

/* Passed ones in percent of all but those without data (unless @nodata_fails); nothing left to count is 100. Two decimals. */
double score_of(const Classification *classes, size_t n, bool nodata_fails);
/* The sum of @scores by @weights in percent; a negative weight is an equal share of what the others leave. Two decimals. */
double score_sum(const double *scores, const double *weights, size_t n);

const char *classification_name(Classification class);

#endif
