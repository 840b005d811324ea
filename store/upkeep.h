/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upkeep: gc, fsck, stats. gc runs beside writers (leases, grace period); fsck reads.
 */
#ifndef KILN_STORE_UPKEEP_H
#define KILN_STORE_UPKEEP_H

#include "base/json.h"
#include "store/pool.h"

/*
 * How much of the memos whose keys start with @prefix gc leaves; 0 is no limit. Those that were asked for last stay longest.
 * A blob that a set refers to as well stays when its memo goes.
 */
typedef struct StoreMemoRule {
    const char *prefix; /* "" is every memo */
    double max_age;     /* seconds since it was last asked for, exact to an hour */
    uint64_t quota;     /* bytes of the blobs that they keep */
} StoreMemoRule;

typedef struct StoreGcOptions {
    bool dry_run;
    double grace;         /* seconds; younger unreachable things stay. Negative: the default, one hour */
    bool drop_states;     /* also forget the whole bake cache */
    uint64_t state_quota; /* bytes of private data to keep at most; 0: the default (20 GiB) */
    uint64_t rewrite_budget; /* bytes that may be written anew so that newest images are read fast; 0: the default (256 MiB) */
    const StoreMemoRule *memo_rules; /* memos that none of them speaks of stay */
    size_t memo_rule_count;
} StoreGcOptions;
typedef struct StoreGcReport {
    uint64_t segments_removed, segments_repacked, blobs_removed, memos_removed, bytes_freed;
    bool repack_failed; /* a warning says why; the rest was done */
} StoreGcReport;
/*
 * Ends the implicit lease of @store on what it committed and has not published. A segment of which less than 70 % of the blocks are needed is
 * repacked, as are segments over which the newest image of a name is scattered (store/fragments.h), unless @dry_run: that says only what
 * would go as a whole.
 */
bool store_gc(Store *store, const StoreGcOptions *options, StoreGcReport *ret, GError **error);

/* Every problem is one sentence naming the object; true with an empty list means clean. */
bool store_fsck(Store *store, bool read_data, GPtrArray **ret_problems /* of char* */, GError **error);

/* The same with all that can be asked for. A store that is open for reading is only looked at. */
typedef struct StoreFsckOptions {
    bool read_data;
    uint64_t rate;        /* bytes per second that are read at most; 0: no limit */
    unsigned part, parts; /* read_data: the share part of parts of the files; parts 0: all */
    bool repair;          /* make good what can be made good: store/repair.h */
    Store *from;          /* a store to take lost blocks and files from, or NULL */
    bool progress;
} StoreFsckOptions;
typedef struct StoreFsckReport {
    GPtrArray *problems; /* of char*: what is wrong and stayed so */
    GPtrArray *repairs;  /* of char*: what was made good */
    json_t *damage;      /* array, an object per damaged file: store/damage.h */
    uint64_t files, bytes, earlier_files, earlier_bytes; /* read, and verified before by the run that was cut and this one went on with */
    int64_t begun, oldest; /* when that one began (0: none); the verification longest ago (0: not all were ever verified); seconds since 1970 */
    bool noted;            /* times of verification were noted */
} StoreFsckReport;
bool store_fsck_with(Store *store, const StoreFsckOptions *options, StoreFsckReport *ret, GError **error);
void store_fsck_report_clear(StoreFsckReport *report);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(StoreFsckReport, store_fsck_report_clear)

/*
 * Makes a missing or damaged catalog.db or state.db of the closed store in @dir again. Array of sentences: what was wrong, what came back, what
 * did not; empty when both were whole.
 */
bool store_rebuild(const char *dir, GPtrArray **ret_notes, GError **error);

/* Derived index from the segments, for fsck --rebuild-index. */
bool store_rebuild_index(Store *store, GError **error);

/* {path, format, bytes{segments,private_segments,blobs,databases,layer_cache,total}, segments, frames, blocks, blobs, maps, images,
   records_without_bytes, sets,
   logical_bytes, states, memos, unreachable_segments} */
bool store_stats(Store *store, json_t **ret, GError **error);

/* How many memos have keys that start with @prefix, and the bytes of the blobs that they keep. */
bool store_memo_usage(Store *store, const char *prefix, uint64_t *ret_count, uint64_t *ret_bytes, GError **error);

#endif
