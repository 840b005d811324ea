/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content-defined cuts (FastCDC, 4/16/64 KiB): where bytes are cut depends on the 64 bytes before a cut and on the last cut, so that behind an
 * insertion the cuts are soon the old ones again. The cuts are part of the format only in so far as equal bytes should be cut alike for ever:
 * recipes write down every length.
 *
 *   from a cut on:   0 .. 4 KiB          no cut
 *                    4 KiB .. 16 KiB     a cut where 16 bits of the hash are zero
 *                    16 KiB .. 64 KiB    a cut where 12 bits are
 *                    64 KiB              a cut
 *
 * The hash is h = 2 h + gear[byte] modulo 2^64, from zero at 64 bytes before the place that is looked at; bits count from the highest.
 */
#ifndef KILN_STORE_CHUNKER_H
#define KILN_STORE_CHUNKER_H

#include <stddef.h>
#include <stdint.h>

#define CHUNK_MIN 4096u
#define CHUNK_NORMAL 16384u
#define CHUNK_MAX 65536u

/* Length of the first chunk of @data, which goes on to the end of what is cut: at most CHUNK_MAX, and @size when that is not above CHUNK_MIN. */
size_t chunker_cut(const uint8_t *data, size_t size);

#endif
