/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generations and their stack against a plain buffer that gets the same writes.
 * The parent here is all zeroes; test-working-disk.c puts a real map below.
 */
#include "base/error.h"
#include "base/file.h"
#include "store/generation-stack.h"

#include <glib/gstdio.h>
#include <string.h>

#define B GENERATION_BLOCK
#define ODD_SIZE (300 * B + 1234) /* a last block that is not whole */

typedef struct Fixture {
    char *dir;
    GenerationStack *stack;
    uint8_t *model;
} Fixture;

static void set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;

    f->dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    f->model = g_malloc0(ODD_SIZE);
    generation_stack_open(NULL, f->dir, ODD_SIZE, &f->stack, &error);
    g_assert_no_error(error);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    generation_stack_close(f->stack);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0); /* nothing of it is left */
    g_free(f->dir);
    g_free(f->model);
}

static void put(Fixture *f, int byte, size_t size, uint64_t offset)
{
    g_autofree uint8_t *buf = g_malloc(size + 1);

    memset(buf, byte, size);
    g_assert_true(generation_stack_pwrite(f->stack, buf, size, offset, NULL));
    memset(f->model + offset, byte, size);
}

static void compare(Fixture *f)
{
    g_autofree uint8_t *got = g_malloc(ODD_SIZE);

    g_assert_true(generation_stack_pread(f->stack, got, ODD_SIZE, 0, NULL));
    for (size_t i = 0; i < ODD_SIZE; i++)
        if (got[i] != f->model[i])
            g_error("byte %zu of block %zu is %02x, not %02x", i % B, i / B, got[i], f->model[i]);
}

static void part_writes_keep_the_rest(Fixture *f, gconstpointer data)
{
    put(f, 0x11, 3 * B, 0);
    put(f, 0x22, 10, 100);         /* inside a dirty block */
    put(f, 0x33, B, 5 * B + 7);    /* over two clean ones */
    put(f, 0x44, 1, ODD_SIZE - 1); /* the tail of the disk */
    put(f, 0x55, 2 * B + 5, 7 * B - 3);
    compare(f);
}

static void trim_rounds_inwards(Fixture *f, gconstpointer data)
{
    put(f, 0x77, 4 * B, 0);
    g_assert_true(generation_stack_trim(f->stack, 2 * B, B / 2, NULL));
    memset(f->model + B, 0, B);
    compare(f);
    g_assert_true(generation_stack_trim(f->stack, B - 1, 3 * B, NULL)); /* no whole block in it */
    compare(f);
}

static void zero_is_exact(Fixture *f, gconstpointer data)
{
    put(f, 0x77, 4 * B, 0);
    g_assert_true(generation_stack_zero(f->stack, 2 * B, B / 2, NULL));
    memset(f->model + B / 2, 0, 2 * B);
    compare(f);
    put(f, 0x78, 1234, ODD_SIZE - 1234);
    g_assert_true(generation_stack_zero(f->stack, 1234, ODD_SIZE - 1234, NULL));
    memset(f->model + ODD_SIZE - 1234, 0, 1234);
    compare(f);
}

static void trimmed_blocks_are_dirty_holes(Fixture *f, gconstpointer data)
{
    uint64_t end;
    unsigned number;
    bool zero;
    g_autoptr(Generation) sealed = NULL;

    put(f, 0x77, 8 * B, 0);
    g_assert_true(generation_stack_trim(f->stack, 4 * B, 4 * B, NULL));
    generation_stack_extent(f->stack, 4 * B, ODD_SIZE, &end, &zero);
    g_assert_true(zero);
    generation_stack_extent(f->stack, 0, ODD_SIZE, &end, &zero);
    g_assert_false(zero);
    g_assert_cmpuint(end, <=, 8 * B);

    g_assert_true(generation_stack_seal(f->stack, &number, NULL));
    g_assert_true(generation_open(f->dir, number, ODD_SIZE, &sealed, NULL));
    g_assert_cmpuint(generation_dirty_blocks(sealed), ==, 8);
    g_assert_true(generation_is_dirty(sealed, 7));
    g_assert_false(generation_is_dirty(sealed, 8));
}

static void runs_end_where_bits_change(void)
{
    g_autofree char *dir = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    g_autoptr(Generation) generation = NULL;
    bool dirty;

    g_assert_true(generation_create(dir, 1, 1000 * B, &generation, NULL));
    g_assert_cmpuint(generation_run(generation, 0, 1000, &dirty), ==, 1000);
    g_assert_false(dirty);
    g_assert_true(generation_zero(generation, 60, 70, NULL)); /* over two word borders */
    g_assert_cmpuint(generation_run(generation, 0, 1000, &dirty), ==, 60);
    g_assert_cmpuint(generation_run(generation, 60, 1000, &dirty), ==, 70);
    g_assert_true(dirty);
    g_assert_cmpuint(generation_run(generation, 63, 1000, &dirty), ==, 67);
    g_assert_cmpuint(generation_run(generation, 64, 100, &dirty), ==, 36);
    g_assert_cmpuint(generation_run(generation, 130, 1000, &dirty), ==, 870);
    g_assert_false(dirty);
    g_assert_cmpuint(generation_run(generation, 999, 5000, &dirty), ==, 1);
    g_assert_cmpuint(generation_dirty_blocks(generation), ==, 70);

    generation_unlink(generation);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

static void drop_goes_back_to_the_seal(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    unsigned number;

    put(f, 0x11, 3 * B, 0);
    g_assert_true(generation_stack_seal(f->stack, &number, NULL));
    g_assert_true(generation_stack_pwrite(f->stack, "xyz", 3, B, NULL));
    g_assert_true(generation_stack_trim(f->stack, B, 0, NULL));
    g_assert_true(generation_stack_drop(f->stack, NULL));
    compare(f);

    put(f, 0x22, 50, 10); /* fills the block from the sealed one below */
    compare(f);
    g_assert_false(generation_stack_seal(f->stack, &number, &error));
    g_assert_nonnull(error);
}

static void random_requests(Fixture *f, GRand *rand, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t offset = (uint64_t)g_rand_int_range(rand, 0, ODD_SIZE);
        uint64_t size = (uint64_t)g_rand_int_range(rand, 0, g_rand_boolean(rand) ? 2 * B : 20 * B);

        size = MIN(size, ODD_SIZE - offset);
        if (g_rand_boolean(rand))
            offset = offset / B * B;
        switch (g_rand_int_range(rand, 0, 4)) {
        case 0:
            g_assert_true(generation_stack_zero(f->stack, size, offset, NULL));
            memset(f->model + offset, 0, size);
            break;
        case 1: {
            uint64_t first = (offset + B - 1) / B * B, end = offset + size;

            g_assert_true(generation_stack_trim(f->stack, size, offset, NULL));
            if (end != ODD_SIZE)
                end = end / B * B;
            if (end > first)
                memset(f->model + first, 0, end - first);
            break;
        }
        default:
            put(f, g_rand_int_range(rand, 0, 256), size, offset);
        }
    }
}

static void random_requests_agree_with_a_model(Fixture *f, gconstpointer data)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(4711);
    g_autofree uint8_t *kept = NULL;
    unsigned number;

    random_requests(f, rand, 400);
    compare(f);
    g_assert_true(generation_stack_seal(f->stack, &number, NULL));
    compare(f);
    kept = g_memdup2(f->model, ODD_SIZE);
    random_requests(f, rand, 400);
    compare(f);
    g_assert_true(generation_stack_drop(f->stack, NULL));
    memcpy(f->model, kept, ODD_SIZE);
    compare(f);
    random_requests(f, rand, 100);
    compare(f);
}

static void oversized_disk_is_refused(void)
{
    g_autoptr(GError) error = NULL;
    Generation *generation = NULL;

    g_assert_false(generation_create("/nonexistent", 1, GENERATION_SIZE_MAX + 1, &generation, &error));
    g_assert_nonnull(strstr(error->message, "16 TiB"));
}

/* Eight threads write one byte each into the same blocks: no byte may be lost to another one's
 * read-fill-write. */
static gpointer write_own_bytes(gpointer arg)
{
    static gint next;
    Fixture *f = arg;
    uint8_t number = (uint8_t)g_atomic_int_add(&next, 1);

    for (uint64_t block = 0; block < 200; block++)
        g_assert_true(generation_stack_pwrite(f->stack, &number, 1, block * B + number, NULL));
    return NULL;
}

static void parallel_parts_of_a_block_all_arrive(Fixture *f, gconstpointer data)
{
    GThread *threads[8];

    for (int i = 0; i < 8; i++)
        threads[i] = g_thread_new("writer", write_own_bytes, f);
    for (int i = 0; i < 8; i++)
        (void)g_thread_join(threads[i]);
    for (uint64_t block = 0; block < 200; block++)
        for (uint8_t i = 0; i < 8; i++)
            f->model[block * B + i] = i;
    compare(f);
}

#define ADD(path, fn) g_test_add("/generation/" path, Fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("part-writes-keep-the-rest", part_writes_keep_the_rest);
    ADD("trim-rounds-inwards", trim_rounds_inwards);
    ADD("zero-is-exact", zero_is_exact);
    ADD("trimmed-blocks-are-dirty-holes", trimmed_blocks_are_dirty_holes);
    ADD("drop-goes-back-to-the-seal", drop_goes_back_to_the_seal);
    ADD("random-requests-agree-with-a-model", random_requests_agree_with_a_model);
    ADD("parallel-parts-of-a-block-all-arrive", parallel_parts_of_a_block_all_arrive);
    g_test_add_func("/generation/runs-end-where-bits-change", runs_end_where_bits_change);
    g_test_add_func("/generation/oversized-disk-is-refused", oversized_disk_is_refused);
    return g_test_run();
}
