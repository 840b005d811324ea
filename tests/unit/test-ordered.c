/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces are worked on in any order and taken in theirs; the first error in order ends the work.
 */
#include "base/error.h"
#include "store/ordered.h"

#define PIECES 500u
#define SLOTS 5

typedef struct Run {
    unsigned next, taken, bad; /* @bad: this piece and all behind it fail */
    gint under_way, most;
} Run;

typedef struct Slot {
    unsigned number, result;
} Slot;

static bool fill(void *slot, void *arg)
{
    Run *run = arg;

    if (run->next == PIECES)
        return false;
    ((Slot *)slot)->number = run->next++;
    return true;
}

static bool work(void *slot, void *arg, GError **error)
{
    Run *run = arg;
    Slot *piece = slot;
    gint now = g_atomic_int_add(&run->under_way, 1) + 1;

    if (now > g_atomic_int_get(&run->most))
        g_atomic_int_set(&run->most, now);
    g_usleep(piece->number % 7 * 40); /* so that later ones overtake */
    piece->result = piece->number * 3;
    (void)g_atomic_int_add(&run->under_way, -1);
    return piece->number < run->bad || fail(error, "piece %u", piece->number);
}

static bool take(void *slot, void *arg, GError **error)
{
    Run *run = arg;
    const Slot *piece = slot;

    g_assert_cmpuint(piece->number, ==, run->taken);
    g_assert_cmpuint(piece->result, ==, run->taken * 3);
    run->taken++;
    return run->taken < 400 || run->bad != 1000 || fail(error, "taken enough");
}

static bool run_all(Run *run, GError **error)
{
    static const OrderedOps ops = {fill, work, take};
    Slot pieces[SLOTS];

    return ordered_run(&ops, pieces, sizeof *pieces, SLOTS, run, error);
}

static void test_order(void)
{
    Run run = {.bad = G_MAXUINT};
    g_autoptr(GError) error = NULL;

    (void)run_all(&run, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(run.taken, ==, PIECES);
    g_assert_cmpint(run.most, <=, (gint)ordered_threads());
}

static void test_first_error(void)
{
    Run run = {.bad = 123};
    g_autoptr(GError) error = NULL;

    g_assert_false(run_all(&run, &error));
    g_assert_cmpstr(error->message, ==, "piece 123");
    g_assert_cmpuint(run.taken, ==, 123);
}

static void test_take_fails(void)
{
    Run run = {.bad = 1000};
    g_autoptr(GError) error = NULL;

    g_assert_false(run_all(&run, &error));
    g_assert_cmpstr(error->message, ==, "taken enough");
    g_assert_cmpuint(run.taken, ==, 400);
}

static void test_nothing(void)
{
    Run run = {.next = PIECES};
    g_autoptr(GError) error = NULL;

    g_assert_true(run_all(&run, &error));
    g_assert_cmpuint(run.taken, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ordered/pieces-are-taken-in-order", test_order);
    g_test_add_func("/ordered/first-error-in-order-wins", test_first_error);
    g_test_add_func("/ordered/failing-take-ends-it", test_take_fails);
    g_test_add_func("/ordered/no-pieces", test_nothing);
    return g_test_run();
}
