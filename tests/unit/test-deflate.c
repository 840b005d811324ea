/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frozen gzip encoder: every output must decode with zlib, be the same however the
 * input is cut, and have the digest written in tests/data/deflate/golden.txt. That
 * file never changes: a difference means that signed layers could not be made again.
 * The golden table is kept in the program too, so that the test needs no file around it.
 */
#include "base/digest.h"
#include "store/deflate.h"

#include <string.h>
#include <zlib.h>

static bool collect(const void *data, size_t size, void *arg, GError **error)
{
    g_byte_array_append(arg, data, (guint)size);
    return true;
}

static GByteArray *gzip_by(unsigned threads, const uint8_t *data, size_t size, size_t piece)
{
    g_autoptr(GzipWriter) z = NULL;
    GByteArray *out = g_byte_array_new();

    z = gzip_writer_new_with(threads, collect, out);
    for (size_t at = 0; at < size; at += piece)
        g_assert_true(gzip_writer_push(z, data + at, MIN(piece, size - at), NULL));
    g_assert_true(gzip_writer_finish(z, NULL));
    return out;
}

static GByteArray *gzip(const uint8_t *data, size_t size, size_t piece)
{
    return gzip_by(2, data, size, piece);
}

static void assert_decodes(const GByteArray *packed, const uint8_t *data, size_t size)
{
    g_autofree uint8_t *plain = g_malloc(size + 1);
    z_stream s = {
        .next_in = packed->data, .avail_in = packed->len, .next_out = plain, .avail_out = (uInt)size + 1};

    g_assert_cmpint(inflateInit2(&s, 15 + 16), ==, Z_OK);
    g_assert_cmpint(inflate(&s, Z_FINISH), ==, Z_STREAM_END);
    g_assert_cmpuint(s.total_out, ==, size);
    g_assert_cmpuint(s.avail_in, ==, 0);
    g_assert_cmpint(memcmp(plain, data, size), ==, 0);
    (void)inflateEnd(&s);
}

static uint32_t step(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void fill_random(uint8_t *data, size_t size)
{
    uint32_t state = 2463534242u;

    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(step(&state) >> 24);
}

static void fill_zero(uint8_t *data, size_t size)
{
    memset(data, 0, size);
}

/* Words of uneven frequency: like text, with matches near and far. */
static void fill_words(uint8_t *data, size_t size)
{
    uint32_t state = 88172645u;

    for (size_t i = 0; i < size;) {
        uint32_t rank = step(&state) >> 20, word = (rank & 1) ? rank % 61 : (rank & 2) ? rank % 509 : rank;
        uint32_t seed = word * 2654435761u + 1, n = 2 + word % 9;

        for (uint32_t k = 0; k < n && i < size; k++)
            data[i++] = (uint8_t)('a' + step(&seed) % 26);
        if (i < size)
            data[i++] = ' ';
    }
}

/* Records with counters, like tables in binaries and tar headers. */
static void fill_records(uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i % 64 < 4 ? (i / 64) >> (8 * (i % 4)) : i % 64 < 12 ? 0 : (i % 64) * 7);
}

/* Bytes whose frequencies are Fibonacci numbers: Huffman codes deeper than the format allows. */
static void fill_skewed(uint8_t *data, size_t size)
{
    uint64_t a = 1, b = 1;
    size_t at = 0;
    uint32_t state = 1234567u;

    for (unsigned symbol = 0; at < size; symbol++) {
        for (uint64_t k = 0; k < a && at < size; k++)
            data[at++] = (uint8_t)symbol;
        b += a;
        a = b - a;
    }
    for (size_t i = size; i > 1; i--) {
        size_t j = step(&state) % i;
        uint8_t swap = data[i - 1];

        data[i - 1] = data[j];
        data[j] = swap;
    }
}

/* Blocks of everything, so that block forms alternate. */
static void fill_mixed(uint8_t *data, size_t size)
{
    size_t part = size / 7;

    fill_random(data, part);
    fill_words(data + part, part);
    fill_zero(data + 2 * part, part);
    memcpy(data + 3 * part, data + part / 2, part);
    fill_records(data + 4 * part, part);
    fill_skewed(data + 5 * part, size - 5 * part);
}

static const struct {
    const char *name;
    void (*fill)(uint8_t *data, size_t size);
    size_t size;
    const char *golden;
} cases[] = {
    {"empty", fill_zero, 0, "ac73670af3abed54ac6fb4695131f4099be9fbe39d6076c5d0264a6bbdae9d83"},
    {"one-byte", fill_words, 1, "eeccaa0772d0ef89a09a3cc12d227b33bb0edcda42ae5919503bda7495cc7ddd"},
    {"short", fill_words, 300, "e08c6c8c232df8bc3d5f08551ff53d807faaf25dea730410a9260b0fa1ee4711"},
    {"zeroes", fill_zero, 1000000, "768eeac1042bfe5861d82eba4d13f4c85a8c9109a55fe47e5e91b53ca2434a5f"},
    {"random", fill_random, 700000, "cad81dad1cd062f58556a72d77d7b11569e26b6b222cf3bf3819b362ac65aee4"},
    {"words", fill_words, 1500000, "3a287b27da1b9569c68e81f89d236b2c864a406efa5aa874510c9fe591e0b1bb"},
    {"records", fill_records, 400000, "3079ca94ecd84878d945f0c5435bc4a880be1290537706d5da5e9225b4f29774"},
    {"skewed", fill_skewed, 1000000, "859c3d400753154bbae02b528b2b4d0aac2182c491235f8bde1afc5b4c07326f"},
    {"mixed", fill_mixed, 3000000, "eb2f220dfb3d57c9f9e959db15b499fd02ecc7aaf89126e5a66760d642cb2889"},
};

static void test_golden(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree uint8_t *data = g_malloc(cases[i].size + 1);
        g_autoptr(GByteArray) packed = NULL;
        char hex[DIGEST_HEX_SIZE];
        Digest digest;

        cases[i].fill(data, cases[i].size);
        packed = gzip(data, cases[i].size, 65536);
        assert_decodes(packed, data, cases[i].size);
        digest_of(packed->data, packed->len, &digest);
        digest_to_hex(&digest, hex);
        if (strcmp(hex, cases[i].golden) != 0)
            g_test_message("%s %zu %u %s", cases[i].name, cases[i].size, packed->len, hex);
        g_assert_cmpstr(hex, ==, cases[i].golden);
    }
}

static void test_cutting(void)
{
    static const size_t pieces[] = {1, 7, 4096, 262143, 262144, 262145, 1u << 20};
    const size_t size = 600000;
    g_autofree uint8_t *data = g_malloc(size);
    g_autoptr(GByteArray) whole = NULL;

    fill_mixed(data, size);
    whole = gzip(data, size, size);
    for (size_t i = 0; i < G_N_ELEMENTS(pieces); i++) {
        g_autoptr(GByteArray) packed = gzip(data, size, pieces[i]);

        g_assert_cmpmem(packed->data, packed->len, whole->data, whole->len);
    }
}

/* Stored blocks start on a byte, wherever the chunk before ended: "mixed" has all forms, in every order. */
static void test_processors(void)
{
    const size_t size = 4000001;
    g_autofree uint8_t *data = g_malloc(size);
    g_autoptr(GByteArray) one = NULL;

    fill_mixed(data, size);
    one = gzip_by(1, data, size, size);
    assert_decodes(one, data, size);
    for (unsigned threads = 2; threads <= 16; threads += 7) {
        g_autoptr(GByteArray) many = gzip_by(threads, data, size, 77777);

        g_assert_cmpmem(many->data, many->len, one->data, one->len);
    }
}

static void test_every_small_size(void)
{
    uint8_t data[700];

    fill_words(data, sizeof(data));
    memcpy(data + 400, data, 300);
    for (size_t size = 0; size <= sizeof(data); size++) {
        g_autoptr(GByteArray) packed = gzip(data, size, 64);

        assert_decodes(packed, data, size);
    }
}

static void test_chunk_edges(void)
{
    static const size_t sizes[] = {262141, 262142, 262143, 262144, 262145, 262147, 524287, 524288, 524290};
    g_autofree uint8_t *data = g_malloc(600000);

    for (int kind = 0; kind < 2; kind++) {
        (kind ? fill_zero : fill_mixed)(data, 600000);
        for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
            g_autoptr(GByteArray) packed = gzip(data, sizes[i], 100000);

            assert_decodes(packed, data, sizes[i]);
        }
    }
}

/* Within five percent of zlib's level 6, and never much larger than the input. */
static void test_ratio(void)
{
    const size_t size = 2000000;
    g_autofree uint8_t *data = g_malloc(size);
    g_autofree uint8_t *theirs = g_malloc(compressBound(size));
    g_autoptr(GByteArray) words = NULL, random = NULL;
    uLongf their_size = compressBound(size);

    fill_words(data, size);
    words = gzip(data, size, size);
    g_assert_cmpint(compress2(theirs, &their_size, data, size, 6), ==, Z_OK);
    g_assert_cmpuint(words->len, <=, their_size + their_size / 20);
    fill_random(data, size);
    random = gzip(data, size, size);
    g_assert_cmpuint(random->len, <=, size + size / 1000);
}

static bool refuse(const void *data, size_t size, void *arg, GError **error)
{
    return g_set_error_literal(error, G_FILE_ERROR, G_FILE_ERROR_NOSPC, "full"), false;
}

static void test_output_failure(void)
{
    const size_t size = 3000000;
    g_autoptr(GzipWriter) z = gzip_writer_new_with(2, refuse, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *data = g_malloc(size);

    fill_random(data, size);
    g_assert_false(gzip_writer_push(z, data, size, &error)); /* and its threads are ended, chunks under way or not */
    g_assert_error(error, G_FILE_ERROR, G_FILE_ERROR_NOSPC);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/deflate/output-is-frozen", test_golden);
    g_test_add_func("/deflate/cutting-of-the-input-does-not-matter", test_cutting);
    g_test_add_func("/deflate/number-of-processors-does-not-matter", test_processors);
    g_test_add_func("/deflate/every-small-size-decodes", test_every_small_size);
    g_test_add_func("/deflate/chunk-edges-decode", test_chunk_edges);
    g_test_add_func("/deflate/as-small-as-zlib-6", test_ratio);
    g_test_add_func("/deflate/failing-output-is-an-error", test_output_failure);
    return g_test_run();
}
