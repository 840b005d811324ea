/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading every byte of a store: segments and blobs, those first whose last verification is longest ago.
 *
 * A file is whole when its bytes have the hash that they should have: a segment's is its name; a plain blob's too; that of a
 * compressed blob is noted in the catalog (blob.file) when its content was verified for the first time, so that later runs need not unpack it
 * and notice also a bit that unpacking does not. Only where something is wrong are frames unpacked: see damage.h.
 *
 * When a file was found whole, the catalog says so (segment.verified, blob.verified: microseconds since 1970). A run that ends early
 * has said so for what it verified; the next one with the same subset goes on behind that. Nothing is noted in a store that was opened for reading.
 */
#ifndef KILN_STORE_SCRUB_H
#define KILN_STORE_SCRUB_H

#include "store/damage.h"

typedef struct ScrubOptions {
    uint64_t rate;        /* bytes per second that are read at most; 0: as fast as it goes */
    unsigned part, parts; /* 1..parts: the share of files that is read; parts 0: all */
    bool progress;
} ScrubOptions;

typedef struct ScrubReport {
    uint64_t files, bytes;        /* read by this run */
    uint64_t earlier_files, earlier_bytes; /* that the run which was cut had verified */
    int64_t begun;                /* when that one began, seconds since 1970; 0: there was none */
    int64_t oldest;               /* the verification that is longest ago, the same; 0: something was never verified */
    bool noted;
} ScrubReport;

bool store_scrub(Store *store, const ScrubOptions *options, DamageList *damage, ScrubReport *ret, GError **error);

#endif
