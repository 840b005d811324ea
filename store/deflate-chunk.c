/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A DEFLATE encoder (RFC 1951) whose every choice is written down here, so that a
 * layer's gzip bytes can be made again from its blocks. FROZEN: a change that alters one output
 * bit makes stored, signed digests unreachable. Faster is welcome, different is not.
 *
 * What fixes the output:
 * 1. Input is cut into chunks of CHUNK bytes by its position alone, never by how callers cut it.
 * 2. A chunk is parsed with the WINDOW bytes before it and nothing else; matches end with the chunk. The hash
 *    chains start empty and are filled from that window. So chunks are encoded side by side and their
 *    bits joined (store/deflate.c); the cost of a stored block is counted without its padding for that reason.
 * 3. Parsing is lazy: a better match one position later wins; hash chains give candidates nearest first, a
 * bounded number of them.
 * 4. A block ends after BLOCK_TOKENS tokens or with the chunk, and takes the cheapest of stored, fixed and
 * dynamic form, in this order when equal.
 * 5. Code lengths: Huffman's algorithm over symbols sorted by (frequency, number), leaves before inner nodes
 * on equal weight, limited by the Kraft sum repair below. Integers only.
 *
 *     buffer: | window (32 KiB, tail of the chunk before) | chunk (256 KiB) |
 */
#include "store/deflate-chunk.h"

#include <assert.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 32768u
#define WINDOW_MASK (WINDOW - 1)
#define CHUNK (256u * 1024u)
#define BUFFER (WINDOW + CHUNK)
#define BLOCK_TOKENS 16384u
#define MATCH_MIN 3u
#define MATCH_MAX 258u
#define MATCH3_FAR 4096u /* a match of three bytes from further away costs more than literals */
#define HASH4_BITS 16
#define HASH3_BITS 14
#define DEPTH 48u /* candidates tried per position */
#define DEPTH_LAZY 24u
#define NICE 96u /* a match this long is taken at once */
#define N_LITLEN 288u
#define N_DIST 30u
#define N_PRE 19u
#define CODE_MAX 15u
#define PRE_MAX 7u
#define STORED_MAX 65535u
#define OUT_SIZE (CHUNK + 8192u) /* no block is longer than stored */
#define PARTS_MAX 64u            /* a block has 16384 tokens or more, but for the last; a stored one has a part for each 65535 bytes */

typedef struct Match {
    uint32_t length, distance;
} Match;

typedef struct Code {
    uint8_t length[N_LITLEN];
    uint16_t bits[N_LITLEN]; /* already reversed: DEFLATE sends codes from their highest bit */
} Code;

/* The run-length coded lengths of a dynamic block's header. */
typedef struct PreCode {
    Code code;
    uint8_t symbol[N_LITLEN + N_DIST];
    uint8_t extra[N_LITLEN + N_DIST];
    unsigned count, litlen_count, dist_count, pre_count;
} PreCode;

struct DeflateChunk {
    uint8_t buffer[BUFFER + 8]; /* 8 more: wide loads at the end stay inside */
    uint32_t start, end;        /* chunk bytes in buffer: [start, end); [0, start) is window */
    uint32_t crc;

    uint32_t head4[1u << HASH4_BITS]; /* position + 1; 0: none */
    uint32_t head3[1u << HASH3_BITS];
    uint32_t prev[WINDOW];

    uint32_t tokens[BLOCK_TOKENS + 4]; /* literal, or length << 16 | distance */
    uint32_t token_count;
    uint32_t block_start; /* position of the first byte that the tokens cover */
    uint32_t litlen_freq[N_LITLEN], dist_freq[N_DIST];
    Code litlen, dist;
    PreCode pre;

    uint64_t bits;
    unsigned bit_count;
    uint32_t out_used, part_start;
    DeflatePart parts[PARTS_MAX];
    unsigned part_count;
    uint8_t out[OUT_SIZE + 16];
};

/* --- tables of the format ------------------------------------------------- */

static const uint16_t length_base[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t dist_base[30] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                       33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                       1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t dist_extra[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                       6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
static const uint8_t pre_order[N_PRE] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static uint8_t length_symbol[MATCH_MAX + 1]; /* 0..28 */
static Code fixed_litlen, fixed_dist;
static uint32_t crc_table[8][256];

static inline unsigned log2_floor(uint32_t value)
{
    return 31u - (unsigned)__builtin_clz(value);
}

/* Distances 1..32768 to symbols: two symbols per power of two. */
static inline unsigned dist_symbol(uint32_t distance)
{
    uint32_t d = distance - 1;

    if (d < 2)
        return d;
    unsigned log = log2_floor(d);
    return 2 * log + ((d >> (log - 1)) & 1);
}

/* --- bits out --------------------------------------------------------------- */

/* At most 48 bits may wait, so at most 16 come at once. What is written behind the last byte is written again later. */
static inline void bits_put(DeflateChunk *z, uint32_t value, unsigned count)
{
    uint64_t word;

    z->bits |= (uint64_t)value << z->bit_count;
    z->bit_count += count;
    word = GUINT64_TO_LE(z->bits);
    memcpy(z->out + z->out_used, &word, sizeof word);
    z->out_used += z->bit_count >> 3;
    z->bits >>= z->bit_count & ~7u;
    z->bit_count &= 7;
}

/* Ends the run of bits; the next one starts on a byte of its own. */
static void part_end(DeflateChunk *z, bool stored, const uint8_t *bytes, uint32_t count)
{
    DeflatePart *part = &z->parts[z->part_count++];

    assert(z->part_count <= PARTS_MAX);
    part->bits = z->out + z->part_start;
    part->bit_count = (uint64_t)(z->out_used - z->part_start) * 8 + z->bit_count;
    part->stored = stored;
    part->bytes = bytes;
    part->byte_count = count;
    if (z->bit_count)
        z->out[z->out_used++] = (uint8_t)z->bits;
    z->bits = 0;
    z->bit_count = 0;
    z->part_start = z->out_used;
    assert(z->out_used <= OUT_SIZE);
}

/* --- Huffman codes ---------------------------------------------------------- */

typedef struct Leaf {
    uint32_t freq;
    uint16_t symbol;
} Leaf;

static int leaf_compare(const void *a, const void *b)
{
    const Leaf *x = a, *y = b;

    if (x->freq != y->freq)
        return x->freq < y->freq ? -1 : 1;
    return x->symbol < y->symbol ? -1 : 1;
}

static void canonical_bits(Code *code, unsigned n)
{
    uint16_t next[CODE_MAX + 2] = {0}, counts[CODE_MAX + 1] = {0};

    for (unsigned i = 0; i < n; i++)
        counts[code->length[i]]++;
    counts[0] = 0;
    for (unsigned l = 1; l <= CODE_MAX; l++)
        next[l + 1] = (uint16_t)((next[l] + counts[l]) << 1);
    for (unsigned i = 0; i < n; i++) {
        unsigned length = code->length[i], value, reversed = 0;

        if (length == 0)
            continue;
        value = next[length]++;
        for (unsigned b = 0; b < length; b++)
            reversed |= ((value >> b) & 1u) << (length - 1 - b);
        code->bits[i] = (uint16_t)reversed;
    }
}

/* How many leaves lie at each depth of the Huffman tree over the @n >= 2 sorted leaves. */
static void huffman_depths(const Leaf *leaves, unsigned n, unsigned counts[N_LITLEN])
{
    uint32_t weight[N_LITLEN];
    uint16_t parent[2 * N_LITLEN], depth[N_LITLEN];
    unsigned leaf = 0, inner = 0;

    for (unsigned made = 0; made < n - 1; made++) {
        uint32_t sum = 0;

        for (int side = 0; side < 2; side++) {
            if (leaf < n && (inner >= made || leaves[leaf].freq <= weight[inner])) {
                sum += leaves[leaf].freq;
                parent[leaf++] = (uint16_t)made;
            } else {
                sum += weight[inner];
                parent[N_LITLEN + inner++] = (uint16_t)made;
            }
        }
        weight[made] = sum;
    }
    memset(counts, 0, N_LITLEN * sizeof(counts[0]));
    depth[n - 2] = 0;
    for (unsigned i = n - 2; i-- > 0;)
        depth[i] = (uint16_t)(depth[parent[N_LITLEN + i]] + 1);
    for (unsigned i = 0; i < n; i++)
        counts[depth[parent[i]] + 1]++;
}

/* Moves leaves deeper than @max up to it, then makes room by lowering shallower ones until the Kraft sum
 * fits. */
static void limit_depths(unsigned counts[N_LITLEN], unsigned max)
{
    uint64_t kraft = 0;

    for (unsigned d = max + 1; d < N_LITLEN; d++) {
        counts[max] += counts[d];
        counts[d] = 0;
    }
    for (unsigned d = 1; d <= max; d++)
        kraft += (uint64_t)counts[d] << (max - d);
    while (kraft > (uint64_t)1 << max) {
        counts[max]--;
        for (unsigned d = max - 1; d > 0; d--)
            if (counts[d]) {
                counts[d]--;
                counts[d + 1] += 2;
                break;
            }
        kraft--;
    }
}

/* At least two symbols get a code, as some decoders want it. */
static void code_make(Code *code, const uint32_t *freq, unsigned n, unsigned max)
{
    Leaf leaves[N_LITLEN];
    unsigned counts[N_LITLEN], used = 0;

    memset(code->length, 0, sizeof(code->length));
    for (unsigned i = 0; i < n; i++)
        if (freq[i])
            leaves[used++] = (Leaf){freq[i], (uint16_t)i};
    for (unsigned i = 0; used < 2 && i < n; i++)
        if (!freq[i])
            leaves[used++] = (Leaf){1, (uint16_t)i};
    qsort(leaves, used, sizeof(leaves[0]), leaf_compare);
    huffman_depths(leaves, used, counts);
    limit_depths(counts, max);
    for (unsigned d = max, i = 0; d > 0; d--)
        for (unsigned k = 0; k < counts[d]; k++)
            code->length[leaves[i++].symbol] = (uint8_t)d;
    canonical_bits(code, n);
}

/* --- tables made once --------------------------------------------------------- */

static void tables_make(void)
{
    for (unsigned s = 0; s < 29; s++)
        for (unsigned l = length_base[s]; l <= MATCH_MAX && l < length_base[s] + (1u << length_extra[s]); l++)
            length_symbol[l] = (uint8_t)s;
    length_symbol[MATCH_MAX] = 28;
    for (unsigned i = 0; i < N_LITLEN; i++)
        fixed_litlen.length[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    canonical_bits(&fixed_litlen, N_LITLEN);
    memset(fixed_dist.length, 5, 32);
    canonical_bits(&fixed_dist, 32);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int k = 0; k < 8; k++)
            c = (c & 1) ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] = crc_table[0][crc_table[k - 1][i] & 0xff] ^ (crc_table[k - 1][i] >> 8);
}

static uint32_t crc_update(uint32_t crc, const uint8_t *p, size_t size)
{
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint32_t a =
            crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);

        crc = crc_table[7][a & 0xff] ^ crc_table[6][(a >> 8) & 0xff] ^ crc_table[5][(a >> 16) & 0xff] ^
              crc_table[4][a >> 24] ^ crc_table[3][p[4]] ^ crc_table[2][p[5]] ^ crc_table[1][p[6]] ^
              crc_table[0][p[7]];
    }
    for (; size; size--, p++)
        crc = crc_table[0][(crc ^ *p) & 0xff] ^ (crc >> 8);
    return ~crc;
}

/* Polynomials over GF(2) modulo the CRC's, reflected: the highest bit is x^0. */
static uint32_t poly_multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (; a; a <<= 1) {
        if (a & 0x80000000u)
            product ^= b;
        b = (b & 1) ? 0xedb88320u ^ (b >> 1) : b >> 1;
    }
    return product;
}

uint32_t deflate_crc_join(uint32_t first, uint32_t second, uint64_t size)
{
    uint32_t shift = 0x80000000u, square = 0x00800000u; /* x^0; x^8: one byte */

    for (; size; size >>= 1) {
        if (size & 1)
            shift = poly_multiply(square, shift);
        square = poly_multiply(square, square);
    }
    return poly_multiply(shift, first) ^ second;
}

/* --- blocks ---------------------------------------------------------------------- */

static uint64_t cost_of(const DeflateChunk *z, const Code *litlen, const Code *dist)
{
    uint64_t cost = 0;

    for (unsigned i = 0; i < N_LITLEN; i++)
        cost += (uint64_t)z->litlen_freq[i] *
                (litlen->length[i] + (i > 256 && i < 286 ? length_extra[i - 257] : 0u));
    for (unsigned i = 0; i < N_DIST; i++)
        cost += (uint64_t)z->dist_freq[i] * (dist->length[i] + dist_extra[i]);
    return cost;
}

static void pre_add(PreCode *pre, uint32_t *freq, unsigned symbol, unsigned extra)
{
    pre->symbol[pre->count] = (uint8_t)symbol;
    pre->extra[pre->count++] = (uint8_t)extra;
    freq[symbol]++;
}

/* Codes one run of @run equal lengths; repeats (16) need the value once before. */
static void pre_add_run(PreCode *pre, uint32_t *freq, unsigned length, unsigned run)
{
    if (length) {
        pre_add(pre, freq, length, 0);
        run--;
    }
    while (run >= 3) {
        unsigned most = length ? 6 : 138, n = MIN(run, most);

        if (length)
            pre_add(pre, freq, 16, n - 3);
        else if (n <= 10)
            pre_add(pre, freq, 17, n - 3);
        else
            pre_add(pre, freq, 18, n - 11);
        run -= n;
    }
    while (run-- > 0)
        pre_add(pre, freq, length, 0);
}

/* Makes the header of a dynamic block; returns its cost in bits. */
static uint64_t pre_make(DeflateChunk *z)
{
    PreCode *pre = &z->pre;
    uint8_t lengths[N_LITLEN + N_DIST];
    uint32_t freq[N_PRE] = {0};
    unsigned n;
    uint64_t cost;

    pre->count = 0;
    pre->litlen_count = 286;
    while (pre->litlen_count > 257 && z->litlen.length[pre->litlen_count - 1] == 0)
        pre->litlen_count--;
    pre->dist_count = N_DIST;
    while (pre->dist_count > 1 && z->dist.length[pre->dist_count - 1] == 0)
        pre->dist_count--;
    memcpy(lengths, z->litlen.length, pre->litlen_count);
    memcpy(lengths + pre->litlen_count, z->dist.length, pre->dist_count);
    n = pre->litlen_count + pre->dist_count;
    for (unsigned i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && lengths[i + run] == lengths[i]; run++)
            ;
        pre_add_run(pre, freq, lengths[i], run);
    }
    code_make(&pre->code, freq, N_PRE, PRE_MAX);
    pre->pre_count = N_PRE;
    while (pre->pre_count > 4 && pre->code.length[pre_order[pre->pre_count - 1]] == 0)
        pre->pre_count--;
    cost = 5 + 5 + 4 + 3 * pre->pre_count;
    for (unsigned i = 0; i < N_PRE; i++)
        cost += (uint64_t)freq[i] * (pre->code.length[i] + (i == 16 ? 2u : i == 17 ? 3u : i == 18 ? 7u : 0u));
    return cost;
}

static void pre_put(DeflateChunk *z)
{
    const PreCode *pre = &z->pre;

    bits_put(z, pre->litlen_count - 257, 5);
    bits_put(z, pre->dist_count - 1, 5);
    bits_put(z, pre->pre_count - 4, 4);
    for (unsigned i = 0; i < pre->pre_count; i++)
        bits_put(z, pre->code.length[pre_order[i]], 3);
    for (unsigned i = 0; i < pre->count; i++) {
        unsigned s = pre->symbol[i];

        bits_put(z, pre->code.bits[s], pre->code.length[s]);
        if (s >= 16)
            bits_put(z, pre->extra[i], s == 16 ? 2 : s == 17 ? 3 : 7);
    }
}

static void tokens_put(DeflateChunk *z, const Code *litlen, const Code *dist)
{
    for (uint32_t i = 0; i < z->token_count; i++) {
        uint32_t token = z->tokens[i], length = token >> 16, distance = token & 0xffff;

        if (length == 0) {
            bits_put(z, litlen->bits[token], litlen->length[token]);
            continue;
        }
        unsigned ls = length_symbol[length], ds = dist_symbol(distance);

        bits_put(z, litlen->bits[257 + ls], litlen->length[257 + ls]);
        bits_put(z, length - length_base[ls], length_extra[ls]);
        bits_put(z, dist->bits[ds], dist->length[ds]);
        bits_put(z, distance - dist_base[ds], dist_extra[ds]);
    }
    bits_put(z, litlen->bits[256], litlen->length[256]);
}

static void stored_put(DeflateChunk *z, const uint8_t *data, uint32_t size, bool last)
{
    do {
        uint32_t n = MIN(size, STORED_MAX);

        bits_put(z, last && n == size, 1);
        bits_put(z, 0, 2);
        part_end(z, true, data, n);
        data += n;
        size -= n;
    } while (size);
}

/* Sends the tokens, which cover [block_start, @end). */
static void block_put(DeflateChunk *z, uint32_t end, bool last)
{
    uint32_t size = end - z->block_start, pieces = size ? (size + STORED_MAX - 1) / STORED_MAX : 1;
    uint64_t stored = (uint64_t)size * 8 + (uint64_t)pieces * (7 + 32), fixed, dynamic;

    z->litlen_freq[256] = 1;
    code_make(&z->litlen, z->litlen_freq, 286, CODE_MAX);
    code_make(&z->dist, z->dist_freq, N_DIST, CODE_MAX);
    fixed = cost_of(z, &fixed_litlen, &fixed_dist);
    dynamic = cost_of(z, &z->litlen, &z->dist) + pre_make(z);

    if (stored <= fixed && stored <= dynamic) {
        stored_put(z, z->buffer + z->block_start, size, last);
    } else {
        bool use_fixed = fixed <= dynamic;

        bits_put(z, last, 1);
        bits_put(z, use_fixed ? 1 : 2, 2);
        if (!use_fixed)
            pre_put(z);
        tokens_put(z, use_fixed ? &fixed_litlen : &z->litlen, use_fixed ? &fixed_dist : &z->dist);
    }
    z->block_start = end;
    z->token_count = 0;
    memset(z->litlen_freq, 0, sizeof(z->litlen_freq));
    memset(z->dist_freq, 0, sizeof(z->dist_freq));
}

/* --- matches ---------------------------------------------------------------------- */

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return GUINT32_FROM_LE(v);
}

static inline uint32_t hash4(uint32_t v)
{
    return (v * 2654435761u) >> (32 - HASH4_BITS);
}

static inline uint32_t hash3(uint32_t v)
{
    return ((v & 0xffffff) * 506832829u) >> (32 - HASH3_BITS);
}

/* Positions whose four bytes lie inside the data; the chunk's last three positions start no match. */
static inline void insert(DeflateChunk *z, uint32_t pos)
{
    uint32_t v = load32(z->buffer + pos), h = hash4(v);

    z->prev[pos & WINDOW_MASK] = z->head4[h];
    z->head4[h] = pos + 1;
    z->head3[hash3(v)] = pos + 1;
}

static inline uint32_t common_length(const uint8_t *a, const uint8_t *b, uint32_t from, uint32_t max)
{
    uint32_t n = from;

    while (n + 8 <= max) {
        uint64_t x, y;

        memcpy(&x, a + n, 8);
        memcpy(&y, b + n, 8);
        x = GUINT64_FROM_LE(x) ^ GUINT64_FROM_LE(y);
        if (x)
            return n + (uint32_t)__builtin_ctzll(x) / 8;
        n += 8;
    }
    while (n < max && a[n] == b[n])
        n++;
    return n;
}

/*
 * Longest match at @pos longer than @best, nearest first; inserts @pos. @head3 is looked at only when nothing
 * better is known.
 */
static Match find(DeflateChunk *z, uint32_t pos, uint32_t best, uint32_t depth)
{
    const uint8_t *here = z->buffer + pos;
    uint32_t max = MIN(MATCH_MAX, z->end - pos), value, candidate, candidate3, h;
    uint32_t oldest = pos >= WINDOW ? pos - WINDOW + 1 : 0; /* distances up to 32767 */
    Match match = {0, 0};

    if (max < 4)
        return match;
    value = load32(here);
    h = hash4(value);
    candidate = z->head4[h];
    candidate3 = z->head3[hash3(value)];
    z->prev[pos & WINDOW_MASK] = candidate;
    z->head4[h] = pos + 1;
    z->head3[hash3(value)] = pos + 1;

    if (best < MATCH_MIN && candidate3 > oldest && pos - (candidate3 - 1) <= MATCH3_FAR &&
        ((load32(z->buffer + candidate3 - 1) ^ value) & 0xffffff) == 0) {
        match = (Match){MATCH_MIN, pos - (candidate3 - 1)};
        best = MATCH_MIN;
    }
    if (best < 3)
        best = 3;
    for (; candidate > oldest && depth > 0 && best < max; depth--) {
        const uint8_t *there = z->buffer + candidate - 1;

        if (load32(there + best - 3) == load32(here + best - 3) && load32(there) == value) {
            uint32_t n = common_length(here, there, 4, max);

            if (n > best) {
                match = (Match){n, pos - (candidate - 1)};
                best = n;
                if (n >= NICE)
                    break;
            }
        }
        candidate = z->prev[(candidate - 1) & WINDOW_MASK];
    }
    return match;
}

static inline void token_literal(DeflateChunk *z, uint8_t byte)
{
    z->tokens[z->token_count++] = byte;
    z->litlen_freq[byte]++;
}

static inline void token_match(DeflateChunk *z, Match match)
{
    z->tokens[z->token_count++] = match.length << 16 | match.distance;
    z->litlen_freq[257 + length_symbol[match.length]]++;
    z->dist_freq[dist_symbol(match.distance)]++;
}

/* Is the match one position later worth more than the literal it costs? */
static inline bool better(Match later, Match now)
{
    int gain = 4 * ((int)later.length - (int)now.length) + (int)log2_floor(now.distance) -
               (int)log2_floor(later.distance);

    return later.length >= now.length && gain > 2;
}

/* Takes a match at @pos or a better one behind it; returns the position after it. */
static uint32_t parse_match(DeflateChunk *z, uint32_t pos, Match match)
{
    uint32_t inserted = pos + 1; /* positions below are in the chains */

    while (match.length < NICE && z->token_count < BLOCK_TOKENS) {
        Match next = find(z, pos + 1, match.length - 1, DEPTH_LAZY);

        inserted = pos + 2;
        if (next.length == 0 || !better(next, match))
            break;
        token_literal(z, z->buffer[pos++]);
        match = next;
    }
    token_match(z, match);
    for (uint32_t end = MIN(pos + match.length, z->end > 3 ? z->end - 3 : 0); inserted < end; inserted++)
        insert(z, inserted);
    return pos + match.length;
}

/* --- the chunk ---------------------------------------------------------------------- */

static void seed(DeflateChunk *z)
{
    memset(z->head4, 0, sizeof(z->head4));
    memset(z->head3, 0, sizeof(z->head3));
    for (uint32_t pos = 0; pos < z->start && pos + 4 <= z->end; pos++)
        insert(z, pos);
}

void deflate_chunk_encode(DeflateChunk *z, bool last)
{
    z->crc = crc_update(0, z->buffer + z->start, z->end - z->start);
    seed(z);
    z->block_start = z->start;
    for (uint32_t pos = z->start; pos < z->end;) {
        Match match = find(z, pos, 0, DEPTH);

        if (match.length == 0)
            token_literal(z, z->buffer[pos++]);
        else
            pos = parse_match(z, pos, match);
        if (z->token_count >= BLOCK_TOKENS)
            block_put(z, pos, false);
    }
    if (z->token_count || last)
        block_put(z, z->end, last);
    part_end(z, false, NULL, 0);
}

DeflateChunk *deflate_chunk_new(void)
{
    static gsize once;

    if (g_once_init_enter(&once)) {
        tables_make();
        g_once_init_leave(&once, 1);
    }
    return g_new0(DeflateChunk, 1);
}

void deflate_chunk_free(DeflateChunk *z)
{
    g_free(z);
}

void deflate_chunk_begin(DeflateChunk *z, const DeflateChunk *before)
{
    uint32_t keep = before ? MIN(before->end, WINDOW) : 0;

    if (keep)
        memmove(z->buffer, before->buffer + before->end - keep, keep);
    z->start = z->end = keep;
    z->part_count = 0;
    z->part_start = z->out_used = 0;
}

size_t deflate_chunk_fill(DeflateChunk *z, const void *data, size_t size)
{
    size_t n = MIN(size, (size_t)(CHUNK - (z->end - z->start)));

    memcpy(z->buffer + z->end, data, n);
    z->end += (uint32_t)n;
    return n;
}

bool deflate_chunk_is_full(const DeflateChunk *z)
{
    return z->end - z->start == CHUNK;
}

const DeflatePart *deflate_chunk_parts(const DeflateChunk *z, unsigned *ret_count)
{
    *ret_count = z->part_count;
    return z->parts;
}

uint32_t deflate_chunk_crc(const DeflateChunk *z)
{
    return z->crc;
}

uint32_t deflate_chunk_size(const DeflateChunk *z)
{
    return z->end - z->start;
}
