/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mann-Whitney and what a judge makes of it.
 *
 * Both series are sorted once. Then the U statistic of x shifted by -d against y is one walk along both, and everything that R finds by
 * sorting all differences or by uniroot() is found by halving an interval of d: U falls as d rises, in steps that lie at the
 * differences. So a test of n against m numbers needs no n*m differences.
 */
#include "deploy/statistics.h"

#include <glib.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

enum { EXACT_BELOW = 50, HALVINGS = 100 };

/* --- series --- */

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double *sorted(const double *values, size_t n)
{
    double *copy = g_memdup2(values, n * sizeof *values);

    qsort(copy, n, sizeof *copy, compare_numbers);
    return copy;
}

static bool all_finite(const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

double mean_of(const double *values, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += values[i];
    return n > 0 ? sum / (double)n : 0;
}

typedef struct Pair {
    const double *x, *y; /* sorted */
    size_t nx, ny;
} Pair;

/* U of x - d against y, doubled so that it is whole; and the sum of t^3 - t over groups of t equal numbers. */
static double shifted_u2(const Pair *p, double d, double *ret_ties)
{
    size_t i = 0, j = 0;
    double u2 = 0, ties = 0;

    while (i < p->nx || j < p->ny) {
        double xi = i < p->nx ? p->x[i] - d : INFINITY, yj = j < p->ny ? p->y[j] : INFINITY, at = MIN(xi, yj), t;
        size_t i0 = i, j0 = j;

        while (i < p->nx && p->x[i] - d == at)
            i++;
        while (j < p->ny && p->y[j] == at)
            j++;
        u2 += (double)(i - i0) * (double)(2 * j0 + (j - j0)); /* those of x here are above j0 of y, and equal to j - j0 */
        t = (double)(i - i0 + j - j0);
        ties += t * t * t - t;
    }
    *ret_ties = ties;
    return u2;
}

/* --- the exact distribution of U --- */

/*
 * ways[u]: in how many orders of m and n numbers U is u. The largest number is one of x, and then above all n of y, or one of y:
 * w(m, n, u) = w(m - 1, n, u - n) + w(m, n - 1, u). Sums only, so a double is right to all but its last digits.
 */
static double *count_ways(size_t m, size_t n, double *ret_total)
{
    size_t width = m * n + 1;
    g_autofree double *w = g_new0(double, (n + 1) * width);
    double *last, total = 0;

    for (size_t j = 0; j <= n; j++)
        w[j * width] = 1; /* m = 0 */
    for (size_t i = 1; i <= m; i++)
        for (size_t j = 1; j <= n; j++)
            for (size_t u = width; u-- > 0;)
                w[j * width + u] = (u >= j ? w[j * width + u - j] : 0) + w[(j - 1) * width + u];
    last = g_memdup2(w + n * width, width * sizeof *w);
    for (size_t u = 0; u < width; u++)
        total += last[u];
    *ret_total = total;
    return last;
}

static double probability_upto(const double *ways, double total, double u)
{
    double sum = 0;

    for (size_t i = 0; (double)i <= u; i++)
        sum += ways[i];
    return sum / total;
}

/* The smallest u that is reached with at least this probability. */
static size_t quantile_u(const double *ways, double total, double probability, size_t max)
{
    double sum = 0;

    for (size_t u = 0; u < max; u++) {
        sum += ways[u] / total;
        if (sum >= probability - 1e-15)
            return u;
    }
    return max;
}

/* --- differences --- */

static size_t differences_upto(const Pair *p, double d)
{
    size_t count = 0, j = p->ny;

    for (size_t i = 0; i < p->nx; i++) { /* as x rises, fewer y (from above) keep the difference at or below d */
        while (j > 0 && p->x[i] - p->y[p->ny - j] > d)
            j--;
        count += j;
    }
    return count;
}

/* The k-th smallest of all differences, from 1. */
static double difference(const Pair *p, size_t k)
{
    double low = p->x[0] - p->y[p->ny - 1], high = p->x[p->nx - 1] - p->y[0];

    if (differences_upto(p, low) >= k)
        return low;
    for (unsigned i = 0; i < HALVINGS && low < high; i++) { /* upto(low) < k <= upto(high) */
        double middle = low + (high - low) / 2;

        if (middle <= low || middle >= high)
            break;
        if (differences_upto(p, middle) >= k)
            high = middle;
        else
            low = middle;
    }
    return high;
}

static double median_difference(const Pair *p)
{
    size_t count = p->nx * p->ny;
    double upper = difference(p, count / 2 + 1);

    return count % 2 ? upper : (difference(p, count / 2) + upper) / 2;
}

/* --- the test --- */

static void test_exactly(const Pair *p, double confidence, MannWhitney *ret)
{
    size_t count = p->nx * p->ny, qu;
    double total, tail;
    g_autofree double *ways = count_ways(p->nx, p->ny, &total);

    tail = ret->u > (double)count / 2 ? 1 - probability_upto(ways, total, ret->u - 1) : probability_upto(ways, total, ret->u);
    ret->p = MIN(1, 2 * tail);
    qu = MAX(quantile_u(ways, total, (1 - confidence) / 2, count), 1);
    ret->lower = difference(p, qu);
    ret->upper = difference(p, count - qu + 1);
    ret->exact = true;
}

static double sign_of(double number)
{
    return (number > 0) - (number < 0);
}

/* How many standard deviations U of x - d lies from its mean, half a pair nearer (continuity). */
static double deviation(const Pair *p, double d)
{
    double nx = (double)p->nx, ny = (double)p->ny, n = nx + ny, ties, dz = shifted_u2(p, d, &ties) / 2 - nx * ny / 2;
    double variance = nx * ny / 12 * ((n + 1) - ties / (n * (n - 1)));

    return variance > 0 ? (dz - sign_of(dz) * 0.5) / sqrt(variance) : 0;
}

/* The shift at which the deviation passes @z. */
static double shift_at(const Pair *p, double z)
{
    double low = p->x[0] - p->y[p->ny - 1], high = p->x[p->nx - 1] - p->y[0];

    if (deviation(p, low) <= z)
        return low;
    if (deviation(p, high) >= z)
        return high;
    for (unsigned i = 0; i < HALVINGS; i++) {
        double middle = low + (high - low) / 2;

        if (middle <= low || middle >= high)
            break;
        if (deviation(p, middle) > z)
            low = middle;
        else
            high = middle;
    }
    return low + (high - low) / 2;
}

static double normal_upto(double z)
{
    return erfc(-z / G_SQRT2) / 2;
}

static double normal_quantile(double probability)
{
    double low = -40, high = 40;

    for (unsigned i = 0; i < HALVINGS; i++) {
        double middle = (low + high) / 2;

        if (normal_upto(middle) < probability)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

static void test_approximately(const Pair *p, double confidence, MannWhitney *ret)
{
    double z = deviation(p, 0), quantile = normal_quantile((1 - confidence) / 2);

    ret->p = MIN(1, 2 * MIN(normal_upto(z), normal_upto(-z)));
    ret->lower = shift_at(p, -quantile);
    ret->upper = shift_at(p, quantile);
}

bool mann_whitney(const double *x, size_t nx, const double *y, size_t ny, double confidence, MannWhitney *ret)
{
    g_autofree double *sx = NULL, *sy = NULL;
    double ties;
    Pair p;

    if (nx == 0 || ny == 0 || nx > STATISTICS_MAX || ny > STATISTICS_MAX || !all_finite(x, nx) || !all_finite(y, ny) || !(confidence > 0 && confidence < 1))
        return false;
    sx = sorted(x, nx);
    sy = sorted(y, ny);
    p = (Pair){sx, sy, nx, ny};
    *ret = (MannWhitney){.u = shifted_u2(&p, 0, &ties) / 2, .estimate = median_difference(&p)};
    if (nx < EXACT_BELOW && ny < EXACT_BELOW && ties == 0)
        test_exactly(&p, confidence, ret);
    else
        test_approximately(&p, confidence, ret);
    return true;
}

/* --- outliers, effects --- */

static double quantile(const double *values /* sorted */, size_t n, double part)
{
    double at = (double)(n - 1) * part, below = floor(at);
    size_t i = (size_t)below;

    return i + 1 < n ? values[i] + (at - below) * (values[i + 1] - values[i]) : values[i];
}

size_t remove_outliers(double *values, size_t n, double factor)
{
    g_autofree double *order = n > 0 ? sorted(values, n) : NULL;
    double q1, q3, low, high;
    size_t kept = 0;

    if (n == 0)
        return 0;
    q1 = quantile(order, n, 0.25);
    q3 = quantile(order, n, 0.75);
    low = q1 - factor * (q3 - q1);
    high = q3 + factor * (q3 - q1);
    for (size_t i = 0; i < n; i++)
        if (values[i] >= low && values[i] <= high)
            values[kept++] = values[i];
    return kept;
}

double effect_mean_ratio(const double *x, size_t nx, const double *y, size_t ny)
{
    double a = mean_of(x, nx), b = mean_of(y, ny);

    if (b == 0)
        return a == 0 ? 1 : INFINITY;
    return a / b;
}

double effect_cles(const double *x, size_t nx, const double *y, size_t ny)
{
    g_autofree double *sx = sorted(x, nx), *sy = sorted(y, ny);
    Pair p = {sx, sy, nx, ny};
    double ties;

    return nx > 0 && ny > 0 ? shifted_u2(&p, 0, &ties) / 2 / ((double)nx * (double)ny) : 0.5;
}

/* --- the judge --- */

static double *usable(const JudgeRules *rules, const double *values, size_t n, size_t *ret_n)
{
    double *copy = g_new(double, MAX(n, 1));
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i]))
            copy[kept++] = values[i];
    *ret_n = rules->outlier_factor > 0 ? remove_outliers(copy, kept, rules->outlier_factor) : kept;
    return copy;
}

static bool are_equal(const double *a, size_t na, const double *b, size_t nb)
{
    g_autofree double *sa = sorted(a, na), *sb = sorted(b, nb);

    for (size_t i = 0; na == nb && i < na; i++)
        if (sa[i] != sb[i])
            return false;
    return na == nb || (sa[0] == sa[na - 1] && sb[0] == sb[nb - 1] && sa[0] == sb[0]); /* or one number only, everywhere */
}

/* As Kayenta has it: the bound keeps the estimate's sign, so a decrease is "low" already when the interval reaches a little above 0. */
static Classification classify(const JudgeRules *rules, const Judgement *j)
{
    double bound = rules->tolerance * j->test.estimate;

    if ((rules->direction & DIRECTION_INCREASE) && j->test.lower > bound && j->effect >= rules->allowed_increase)
        return CLASS_HIGH;
    if ((rules->direction & DIRECTION_DECREASE) && j->test.upper < -bound && j->effect <= rules->allowed_decrease)
        return CLASS_LOW;
    return CLASS_PASS;
}

void judge(const JudgeRules *rules, const double *canary, size_t n_canary, const double *baseline, size_t n_baseline, Judgement *ret)
{
    g_autofree double *x = NULL, *y = NULL;
    size_t nx, ny;

    x = usable(rules, canary, n_canary, &nx);
    y = usable(rules, baseline, n_baseline, &ny);
    *ret = (Judgement){.class = CLASS_NODATA, .canary = mean_of(x, nx), .baseline = mean_of(y, ny), .canary_count = nx, .baseline_count = ny};
    if (nx == 0 || ny == 0)
        return;
    ret->effect = rules->effect == EFFECT_CLES ? effect_cles(x, nx, y, ny) : effect_mean_ratio(x, nx, y, ny);
    if (are_equal(x, nx, y, ny))
        ret->class = CLASS_PASS;
    else if (mann_whitney(x, nx, y, ny, rules->confidence, &ret->test))
        ret->class = classify(rules, ret);
}

/* --- scores --- */

static double two_decimals(double number)
{
    return round(number * 100) / 100;
}

double score_of(const Classification *classes, size_t n, bool nodata_fails)
{
    size_t passed = 0, counted = 0;

    for (size_t i = 0; i < n; i++) {
        passed += classes[i] == CLASS_PASS;
        counted += classes[i] != CLASS_NODATA || nodata_fails;
    }
    return counted > 0 ? two_decimals(100 * (double)passed / (double)counted) : 100;
}

double score_sum(const double *scores, const double *weights, size_t n)
{
    double left = 100, sum = 0;
    size_t open = 0;

    for (size_t i = 0; i < n; i++) {
        left -= MAX(weights[i], 0);
        open += weights[i] < 0;
    }
    for (size_t i = 0; i < n; i++)
        sum += scores[i] * (weights[i] < 0 ? MAX(left, 0) / (double)open : weights[i]) / 100;
    return two_decimals(sum);
}

const char *classification_name(Classification class)
{
    static const char *const names[] = {[CLASS_PASS] = "pass", [CLASS_HIGH] = "high", [CLASS_LOW] = "low", [CLASS_NODATA] = "no data"};

    return names[class];
}
