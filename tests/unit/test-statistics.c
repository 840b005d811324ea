/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canary judge's statistics against slow references that share no code with it: every way to divide small series, all
 * differences sorted, ranks counted one by one; against published results of R; and against chance, 10,000 times.
 */
#include "deploy/statistics.h"

#include <glib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define Z99 2.3263478740408408 /* qnorm(0.99) */

static const JudgeRules rules = {.confidence = 0.98, .tolerance = 0.25, .direction = DIRECTION_EITHER, .allowed_increase = 1, .allowed_decrease = 1};

static void assert_near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * MAX(1, fabs(b))))
        g_error("%.17g is not %.17g", a, b);
}

/* --- references --- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double u_by_pairs(const double *x, size_t nx, const double *y, size_t ny, double d)
{
    double u = 0;

    for (size_t i = 0; i < nx; i++)
        for (size_t j = 0; j < ny; j++)
            u += x[i] - d > y[j] ? 1 : x[i] - d == y[j] ? 0.5 : 0;
    return u;
}

static double *all_differences(const double *x, size_t nx, const double *y, size_t ny)
{
    double *d = g_new(double, nx * ny);

    for (size_t i = 0; i < nx; i++)
        for (size_t j = 0; j < ny; j++)
            d[i * ny + j] = x[i] - y[j];
    qsort(d, nx * ny, sizeof *d, by_value);
    return d;
}

/* How many of all divisions of nx + ny ranks into two series have each U. */
static double *divide_all_ways(size_t nx, size_t ny, double *ret_total)
{
    double *count = g_new0(double, nx * ny + 1);

    *ret_total = 0;
    for (unsigned set = 0; set < 1u << (nx + ny); set++) {
        size_t u = 0, below = 0;

        if ((size_t)__builtin_popcount(set) != nx)
            continue;
        for (size_t i = 0; i < nx + ny; i++) {
            u += set >> i & 1 ? below : 0;
            below += !(set >> i & 1);
        }
        count[u]++;
        (*ret_total)++;
    }
    return count;
}

static void exact_reference(const double *x, size_t nx, const double *y, size_t ny, double confidence, MannWhitney *ret)
{
    size_t n = nx * ny, u = (size_t)u_by_pairs(x, nx, y, ny, 0), qu = 0;
    double total, low = 0, high = 0, sum = 0;
    g_autofree double *count = divide_all_ways(nx, ny, &total), *d = all_differences(x, nx, y, ny);

    for (size_t i = 0; i <= n; i++) {
        low += i <= u ? count[i] : 0;
        high += i >= u ? count[i] : 0;
    }
    for (sum = count[0]; sum / total < (1 - confidence) / 2 - 1e-14; sum += count[qu])
        qu++;
    qu = MAX(qu, 1);
    *ret = (MannWhitney){.u = (double)u, .p = MIN(1, 2 * MIN(low, high) / total), .lower = d[qu - 1], .upper = d[n - qu]};
    ret->estimate = n % 2 ? d[n / 2] : (d[n / 2 - 1] + d[n / 2]) / 2;
}

/* Ties are looked for in the pooled series, one number at a time: t^3 - t over groups is the sum of t^2 - 1 over numbers. */
static double z_reference(const double *x, size_t nx, const double *y, size_t ny, double d)
{
    size_t n = nx + ny;
    double ties = 0, dz = u_by_pairs(x, nx, y, ny, d) - (double)(nx * ny) / 2, variance;
    g_autofree double *all = g_new(double, n);

    for (size_t i = 0; i < n; i++)
        all[i] = i < nx ? x[i] - d : y[i - nx];
    for (size_t i = 0; i < n; i++) {
        double same = 0;

        for (size_t j = 0; j < n; j++)
            same += all[j] == all[i];
        ties += same * same - 1;
    }
    variance = (double)(nx * ny) / 12 * ((double)(n + 1) - ties / (double)(n * (n - 1)));
    return (dz - (dz > 0 ? 0.5 : dz < 0 ? -0.5 : 0)) / sqrt(variance);
}

/* The difference at which z falls past the quantile: z between two differences is that of their middle. */
static double bound_reference(const double *x, size_t nx, const double *y, size_t ny, double quantile)
{
    size_t n = nx * ny;
    g_autofree double *d = all_differences(x, nx, y, ny);

    if (z_reference(x, nx, y, ny, d[0]) <= quantile)
        return d[0];
    if (z_reference(x, nx, y, ny, d[n - 1]) >= quantile)
        return d[n - 1];
    for (size_t i = 0; i + 1 < n; i++)
        if (d[i] < d[i + 1] && z_reference(x, nx, y, ny, (d[i] + d[i + 1]) / 2) <= quantile)
            return d[i];
    return d[n - 1];
}

/* --- against the references --- */

static void fill(GRand *random, double *values, size_t n, double scale, bool ties)
{
    for (size_t i = 0; i < n; i++)
        values[i] = ties ? g_rand_int_range(random, 0, 9) : scale * g_rand_double(random);
}

static void test_exact_all_sizes(void)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(1);

    for (size_t nx = 1; nx <= 8; nx++)
        for (size_t ny = 1; ny <= 8; ny++) {
            double x[8], y[8];
            MannWhitney got, want;

            fill(random, x, nx, 1.6, false);
            fill(random, y, ny, 1, false);
            g_assert_true(mann_whitney(x, nx, y, ny, 0.98, &got));
            exact_reference(x, nx, y, ny, 0.98, &want);
            g_assert_true(got.exact);
            assert_near(got.u, want.u);
            assert_near(got.p, want.p);
            assert_near(got.lower, want.lower);
            assert_near(got.upper, want.upper);
            assert_near(got.estimate, want.estimate);
        }
}

static void test_exact_confidences(void)
{
    static const double confidences[] = {0.5, 0.8, 0.9, 0.95, 0.99, 0.999};
    g_autoptr(GRand) random = g_rand_new_with_seed(2);

    for (size_t i = 0; i < G_N_ELEMENTS(confidences); i++) {
        double x[7], y[8];
        MannWhitney got, want;

        fill(random, x, 7, 1, false);
        fill(random, y, 8, 1, false);
        g_assert_true(mann_whitney(x, 7, y, 8, confidences[i], &got));
        exact_reference(x, 7, y, 8, confidences[i], &want);
        assert_near(got.lower, want.lower);
        assert_near(got.upper, want.upper);
    }
}

static void test_approximate(void)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(3);

    for (unsigned round = 0; round < 40; round++) {
        size_t nx = 5 + round % 17, ny = 5 + round % 11, n;
        double x[60], y[60], z;
        MannWhitney got;

        if (round % 8 == 7)
            nx = ny = 55; /* too many for the exact test, without ties */
        fill(random, x, nx, 1.4, round % 8 != 7);
        fill(random, y, ny, 1, round % 8 != 7);
        n = nx * ny;
        g_assert_true(mann_whitney(x, nx, y, ny, 0.98, &got));
        g_assert_false(got.exact);
        z = z_reference(x, nx, y, ny, 0);
        assert_near(got.u, u_by_pairs(x, nx, y, ny, 0));
        assert_near(got.p, MIN(1, erfc(fabs(z) / sqrt(2))));
        assert_near(got.lower, bound_reference(x, nx, y, ny, Z99));
        assert_near(got.upper, bound_reference(x, nx, y, ny, -Z99));
        {
            g_autofree double *d = all_differences(x, nx, y, ny);

            assert_near(got.estimate, n % 2 ? d[n / 2] : (d[n / 2 - 1] + d[n / 2]) / 2);
        }
    }
}

/* The examples of R's own manual of wilcox.test, with the numbers that it prints. */
static void test_published(void)
{
    static const double x[] = {0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46}, y[] = {1.15, 0.88, 0.90, 0.74, 1.21};
    static const double may[] = {41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37};
    static const double august[] = {39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85};
    MannWhitney test;

    g_assert_true(mann_whitney(x, 10, y, 5, 0.95, &test));
    g_assert_cmpfloat(test.u, ==, 35);
    g_assert_cmpfloat_with_epsilon(test.p, 0.2544, 0.0001); /* one-sided 0.1272 */
    g_assert_true(test.exact);
    g_assert_true(mann_whitney(may, 26, august, 26, 0.95, &test));
    g_assert_cmpfloat(test.u, ==, 127.5);
    g_assert_cmpfloat_with_epsilon(test.p, 0.0001208, 0.0000001);
    g_assert_false(test.exact);
}

static void test_by_hand(void)
{
    static const double low[] = {1, 2, 3}, high[] = {4, 5, 6}, mixed[] = {2.5, 0.5, 9};
    MannWhitney test;

    g_assert_true(mann_whitney(high, 3, low, 3, 0.8, &test)); /* U = 9 of 9; p = 2 * 1/20; the 0.1 quantile of U is 1 */
    assert_near(test.u, 9);
    assert_near(test.p, 0.1);
    assert_near(test.estimate, 3);
    assert_near(test.lower, 1);
    assert_near(test.upper, 5);
    g_assert_true(mann_whitney(low, 3, high, 3, 0.8, &test));
    assert_near(test.u, 0);
    assert_near(test.p, 0.1);
    assert_near(test.estimate, -3);
    g_assert_true(mann_whitney(low, 3, mixed, 3, 0.8, &test)); /* 1>0.5, 2>0.5, 3>0.5, 3>2.5 */
    assert_near(test.u, 4);
    assert_near(test.p, 1);
}

static void test_refused(void)
{
    static const double fine[] = {1, 2}, odd[] = {1, NAN}, huge[] = {INFINITY, 1};
    MannWhitney test;

    g_assert_false(mann_whitney(fine, 0, fine, 2, 0.98, &test));
    g_assert_false(mann_whitney(fine, 2, fine, 0, 0.98, &test));
    g_assert_false(mann_whitney(odd, 2, fine, 2, 0.98, &test));
    g_assert_false(mann_whitney(fine, 2, huge, 2, 0.98, &test));
    g_assert_false(mann_whitney(fine, 2, fine, 2, 1, &test));
}

static void test_many_numbers(void)
{
    const size_t n = 20000;
    g_autofree double *x = g_new(double, n), *y = g_new(double, n);
    g_autoptr(GRand) random = g_rand_new_with_seed(4);
    MannWhitney test;

    fill(random, x, n, 1, false);
    fill(random, y, n, 1, false);
    for (size_t i = 0; i < n; i++)
        x[i] += 0.1;
    g_assert_true(mann_whitney(x, n, y, n, 0.98, &test));
    g_assert_cmpfloat_with_epsilon(test.estimate, 0.1, 0.01);
    g_assert_true(test.lower < test.estimate && test.estimate < test.upper && test.upper - test.lower < 0.05);
}

/* --- outliers and effects --- */

static void test_outliers(void)
{
    double values[] = {10, 12, 11, 13, 9, 1000, 11, -500, 10}, same[] = {0, 0, 0, 0, 5}, one[] = {7};
    size_t n = remove_outliers(values, 9, 3);

    g_assert_cmpuint(n, ==, 7);
    for (size_t i = 0; i < n; i++)
        g_assert_true(values[i] >= 9 && values[i] <= 13);
    g_assert_cmpfloat(values[5], ==, 11); /* order stays */
    g_assert_cmpuint(remove_outliers(same, 5, 3), ==, 4);
    g_assert_cmpuint(remove_outliers(one, 1, 3), ==, 1);
    g_assert_cmpuint(remove_outliers(one, 0, 3), ==, 0);
}

static void test_quartiles(void)
{
    double values[] = {1, 2, 3, 4, 6.26}, more[] = {1, 2, 3, 4, 6.24}; /* type 7: 2 and 4; with 1.12 ranges 6.24 is the border */

    g_assert_cmpuint(remove_outliers(values, 5, 1.12), ==, 4);
    g_assert_cmpuint(remove_outliers(more, 5, 1.12), ==, 5);
}

static void test_effects(void)
{
    static const double a[] = {2, 4}, b[] = {1, 2}, zero[] = {0, 0};

    assert_near(effect_mean_ratio(a, 2, b, 2), 2);
    assert_near(effect_mean_ratio(zero, 2, zero, 2), 1);
    assert_near(effect_mean_ratio(zero, 2, b, 2), 0);
    g_assert_true(isinf(effect_mean_ratio(a, 2, zero, 2)));
    assert_near(effect_cles(a, 2, b, 2), 0.875); /* 3 pairs above, 1 equal, of 4 */
    assert_near(effect_cles(b, 2, a, 2), 0.125);
    assert_near(effect_cles(b, 2, b, 2), 0.5);
}

/* --- the judge --- */

static Classification judge_shift(const JudgeRules *with, double shift)
{
    double canary[20], baseline[20];
    Judgement j;

    for (unsigned i = 0; i < 20; i++) {
        baseline[i] = 100 + i;
        canary[i] = 100.5 + i + shift;
    }
    judge(with, canary, 20, baseline, 20, &j);
    return j.class;
}

static void test_classes(void)
{
    JudgeRules up = rules, down = rules, much = rules, cles = rules;

    up.direction = DIRECTION_INCREASE;
    down.direction = DIRECTION_DECREASE;
    much.allowed_increase = 1.5;
    cles.effect = EFFECT_CLES;
    cles.allowed_increase = cles.allowed_decrease = 0.5;
    g_assert_cmpint(judge_shift(&rules, 20), ==, CLASS_HIGH);
    g_assert_cmpint(judge_shift(&rules, -20), ==, CLASS_LOW);
    g_assert_cmpint(judge_shift(&rules, 0), ==, CLASS_PASS);
    g_assert_cmpint(judge_shift(&up, 20), ==, CLASS_HIGH);
    g_assert_cmpint(judge_shift(&up, -20), ==, CLASS_PASS);
    g_assert_cmpint(judge_shift(&down, 20), ==, CLASS_PASS);
    g_assert_cmpint(judge_shift(&down, -20), ==, CLASS_LOW);
    g_assert_cmpint(judge_shift(&much, 20), ==, CLASS_PASS); /* ratio 1.18 */
    g_assert_cmpint(judge_shift(&much, 200), ==, CLASS_HIGH);
    g_assert_cmpint(judge_shift(&cles, 20), ==, CLASS_HIGH);
    g_assert_cmpint(judge_shift(&cles, -20), ==, CLASS_LOW);
}

static void test_odd_series(void)
{
    double nothing[] = {NAN, INFINITY}, zeros[] = {0, 0, 0, 0, 0, 0}, fives[] = {5, 5, 5, 5, 5, 5}, shuffled[] = {2, 1, 3}, order[] = {1, 2, 3};
    Judgement j;

    judge(&rules, nothing, 2, fives, 6, &j);
    g_assert_cmpint(j.class, ==, CLASS_NODATA);
    judge(&rules, fives, 0, fives, 6, &j);
    g_assert_cmpint(j.class, ==, CLASS_NODATA);
    judge(&rules, shuffled, 3, order, 3, &j);
    g_assert_cmpint(j.class, ==, CLASS_PASS);
    judge(&rules, fives, 6, fives, 3, &j); /* one number, everywhere */
    g_assert_cmpint(j.class, ==, CLASS_PASS);
    judge(&rules, fives, 6, zeros, 6, &j); /* constant, and apart: no noise is needed to see it */
    g_assert_cmpint(j.class, ==, CLASS_HIGH);
    assert_near(j.test.lower, 5);
    judge(&rules, zeros, 6, fives, 6, &j);
    g_assert_cmpint(j.class, ==, CLASS_LOW);
}

static void test_tolerance(void)
{
    JudgeRules strict = rules, lenient = rules;
    double canary[12], baseline[12];
    Judgement j;

    for (unsigned i = 0; i < 12; i++) { /* wide: the interval's lower end is a small part of the estimate */
        baseline[i] = 10.0 * i;
        canary[i] = 10.0 * i + 54;
    }
    judge(&rules, canary, 12, baseline, 12, &j);
    g_assert_true(j.test.lower > 0 && j.test.lower < 0.9 * j.test.estimate);
    strict.tolerance = 0;
    lenient.tolerance = 0.9;
    judge(&strict, canary, 12, baseline, 12, &j);
    g_assert_cmpint(j.class, ==, CLASS_HIGH);
    judge(&lenient, canary, 12, baseline, 12, &j);
    g_assert_cmpint(j.class, ==, CLASS_PASS);
}

static void test_scores(void)
{
    static const Classification some[] = {CLASS_PASS, CLASS_PASS, CLASS_HIGH, CLASS_NODATA}, none[] = {CLASS_NODATA, CLASS_NODATA};
    static const double scores[] = {100, 50, 66.67}, weights[] = {50, -1, -1}, all[] = {20, 30, 50};

    assert_near(score_of(some, 4, false), 66.67);
    assert_near(score_of(some, 4, true), 50);
    assert_near(score_of(some, 2, false), 100);
    assert_near(score_of(none, 2, false), 100);
    assert_near(score_of(none, 2, true), 0);
    assert_near(score_sum(scores, weights, 3), 79.17);
    assert_near(score_sum(scores, all, 3), 68.34); /* 20 + 15 + 33.335 */
}

/* --- chance --- */

static double normal(GRand *random)
{
    double a = 1 - g_rand_double(random), b = g_rand_double(random);

    return sqrt(-2 * log(a)) * cos(2 * G_PI * b);
}

/* Three shapes of latencies, with a mean near 100. */
static double draw(GRand *random, unsigned shape)
{
    if (shape == 0)
        return 100 + 20 * normal(random);
    if (shape == 1)
        return 98 * exp(0.2 * normal(random));
    return 50 - 50 * log(1 - g_rand_double(random)); /* a long tail */
}

static unsigned count_high(GRand *random, unsigned runs, unsigned shape, double factor)
{
    JudgeRules up = rules;
    unsigned high = 0;

    up.direction = DIRECTION_INCREASE;
    for (unsigned run = 0; run < runs; run++) {
        double canary[50], baseline[50];
        Judgement j;

        for (unsigned i = 0; i < 50; i++) {
            canary[i] = factor * draw(random, shape);
            baseline[i] = draw(random, shape);
        }
        judge(&up, canary, 50, baseline, 50, &j);
        high += j.class == CLASS_HIGH;
    }
    return high;
}

static void test_alike(void)
{
    unsigned runs = g_getenv("KILN_TEST_ROUNDS") ? 10000 : 1000;
    g_autoptr(GRand) random = g_rand_new_with_seed(5);

    for (unsigned shape = 0; shape < 3; shape++) {
        unsigned high = count_high(random, runs, shape, 1);

        g_test_message("shape %u: %u of %u equal pairs were called high", shape, high, runs);
        g_assert_cmpuint(high * 100, <=, runs * 2);
    }
}

static void test_shifted(void)
{
    unsigned runs = g_getenv("KILN_TEST_ROUNDS") ? 10000 : 1000;
    g_autoptr(GRand) random = g_rand_new_with_seed(6);

    for (unsigned shape = 0; shape < 2; shape++) {
        unsigned high = count_high(random, runs, shape, 1.25);

        g_test_message("shape %u: %u of %u shifts by 25 %% were found", shape, high, runs);
        g_assert_cmpuint(high * 100, >=, runs * 95);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/statistics/exact-as-by-enumeration", test_exact_all_sizes);
    g_test_add_func("/statistics/exact-at-any-confidence", test_exact_confidences);
    g_test_add_func("/statistics/approximate-as-by-ranks", test_approximate);
    g_test_add_func("/statistics/published-results", test_published);
    g_test_add_func("/statistics/by-hand", test_by_hand);
    g_test_add_func("/statistics/what-is-no-series-is-refused", test_refused);
    g_test_add_func("/statistics/many-numbers", test_many_numbers);
    g_test_add_func("/statistics/outliers", test_outliers);
    g_test_add_func("/statistics/quartiles-are-type-7", test_quartiles);
    g_test_add_func("/statistics/effect-sizes", test_effects);
    g_test_add_func("/statistics/classes", test_classes);
    g_test_add_func("/statistics/odd-series", test_odd_series);
    g_test_add_func("/statistics/tolerance", test_tolerance);
    g_test_add_func("/statistics/scores", test_scores);
    g_test_add_func("/statistics/equal-pairs-seldom-fail", test_alike);
    g_test_add_func("/statistics/a-shift-is-found", test_shifted);
    return g_test_run();
}
