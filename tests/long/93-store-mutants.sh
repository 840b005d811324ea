#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stores that forget a sync or write in another order: each is made from a copy of one source file, and the crash test must notice, or
# for gc the test of repacking. A mutant that does not change its file any more is a failure of this script. KILN_TEST_MUTANTS=TEXT makes
# those alone whose name has it.
. "$(dirname "$0")/../lib.sh"
require cc pkg-config sed timeout
KILN_TEST_POINTS=${KILN_TEST_MUTANT_POINTS:-1500}
KILN_TEST_STOP=1 # one wrong point is enough
export KILN_TEST_POINTS KILN_TEST_STOP

flags="-O1 -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I$TREE $(pkg-config --cflags $(sed -n 's/^PACKAGES *:= *//p' "$TREE/Makefile"))"
libs=$(link_words)

make -s -C "$TREE" all >out 2>&1
result $? 'kiln builds' || { explain out; finish; }
# shellcheck disable=SC2086 # flags are words
for f in "$TREE"/tests/unit/test-crash.c "$TREE"/tests/unit/test-repack.c "$TREE"/tests/unit/crash-*-support.c "$TREE"/tests/unit/oci-image-support.c \
    "$TREE"/tests/unit/store-support.c; do
    cc $flags -c -o "$(basename "$f" .c).o" "$f" || result 1 "$f compiles"
done

compile() { # program, objects that go before the library's
    # shellcheck disable=SC2086
    cc -o "$@" ./*-support.o "$TREE/build/libkiln.a" $libs
}

caught() { # tests
    for test in $1; do
        case $test in
        repack) timeout 600 ./mutant.repack --tap >run.out 2>run.err ;;
        *) timeout 600 ./mutant --tap -p "/crash/$test" >run.out 2>run.err ;;
        esac && continue
        by="$test: $(grep -hm1 '^# after\|^Bail' run.err run.out | head -n 1 | cut -c3-130)"
        return 0
    done
    return 1
}

mutant() { # what, file, sed script[, tests]
    case $1 in
    *"${KILN_TEST_MUTANTS:-}"*) ;;
    *) return ;;
    esac
    sed "$3" "$TREE/store/$2.c" >"$2.c"
    if cmp -s "$TREE/store/$2.c" "$2.c"; then
        result 1 "$1: changes nothing any more"
        return
    fi
    # shellcheck disable=SC2086
    if ! { cc $flags -c -o "$2.o" "$2.c" && compile mutant "$2.o" test-crash.o && compile mutant.repack "$2.o" test-repack.o; } 2>compile.err; then
        explain compile.err
        result 1 "$1: does not compile"
        return
    fi
    by=
    caught "${4:-power-cuts power-cut-after-a-recovery}"
    result $? "$(printf '%-62s caught by %s' "$1" "${by:-nobody}")"
    rm -f "$2.o"
}

mutant 'segments are not synced' segment-file 's/return io_fdatasync(file->fd) == 0 ||/return true ||/'
mutant 'blobs are not synced' blob 's/ && io_fdatasync(fd) == 0)$/)/'
mutant 'segments are synced after the commit' writer \
    's/if (!segment_file_sync(file, error))/if (false)/; s/^    w->committed = true;/&\n    for (guint i = 0; i < w->files->len; i++)\n        (void)segment_file_sync(w->files->pdata[i], NULL);/'
mutant 'the folder of a new blob is not synced' blob 's/if (io_fsync(dir) < 0)/if (false)/'
mutant 'the folder of a new segment is not synced' arrival 's/ || io_fsync(dir) < 0)/)/'
mutant 'the folder of a new folder is not synced' io '/own name must survive/,+2s/io_fsync(dirfd) < 0/false/'
mutant 'an empty folder is taken for synced' io 's/folder_is_empty(fd) \&\& io_fsync/false \&\& io_fsync/'
mutant 'adopted files are not synced' recovery 's/return (io_fsync(dirfd) == 0 \&\& io_fsync(topfd) == 0)/return true/'
mutant 'a blob is committed before it has its name' blob \
    's/if (!blob_place(store, db, staged, g_get_real_time(), error)) {/if (!catalog_add_blob(db, \&staged->digest, staged->size, staged->stored, 1, error) || !database_commit(db, error) || !database_begin(db, false, error) || !blob_place(store, db, staged, 1, error)) {/'
mutant 'names before the catalog' publish 's/publish_catalog(p, error) \&\& publish_names(p, error)/publish_names(p, error) \&\& publish_catalog(p, error)/'
mutant 'the catalog is not durable before the names' publish '/^static bool publish_catalog/,/^}/s/database_begin(db, true/database_begin(db, false/'
mutant 'names are not durable' database 's/spec->full ? "PRAGMA synchronous = FULL"/spec->full ? "PRAGMA synchronous = NORMAL"/'
mutant 'rm: the catalog before the state' publish \
    's/if (!database_commit(state, error)) {/if (!database_commit(catalog, error)) {/; s/return database_commit(catalog, error);/return database_commit(state, error);/'
mutant 'gc: files go before their marks are durable' gc 's/database_begin(gc->db, true/database_begin(gc->db, false/'
repacking='power-cuts-of-repacking repack'
mutant 'repacking: tables are not synced' segment-moved 's/ && io_fdatasync(fd) == 0) ||/) ||/' "$repacking"
mutant 'repacking: the folder of a table is not synced' segment-moved 's/ && io_fsync(dir) == 0) ||/) ||/' "$repacking"
mutant 'repacking: tables are not written' repack 's/segment_moved_write(r->store, &name->digest, moved, error)/true/' "$repacking"
mutant 'repacking: files go before their tables' repack '/^static bool switch_name/i static bool remove_leaving(Repack *r, const Leaving *leaving, GError **error);
/if (!scan(r, check_covered, error) || !check_marks(r, error))/i \    for (guint i = 0; i < r->leaving->len; i++)\n        if (!((Leaving *)r->leaving->pdata[i])->stays \&\& !remove_leaving(r, r->leaving->pdata[i], error))\n            return false;' "$repacking"
mutant 'repacking: the copy is not held before the switch' repack 's/store_writer_add_hook(r->writer, &hook);/(void)hook;/' "$repacking"
mutant 'repacking: older leases are not waited for' repack 's/if (!store_oldest_lease(store, &oldest, error))/oldest = G_MAXINT64;\n    if (false)/' "$repacking"
mutant 'repacking: leaving blocks are offered to writers' block-index 's/dead != 0 OR leaving != 0/dead/' "$repacking"
mutant 'repacking: earlier names are forgotten' repack 's/if (!add_earlier_names(r, &leaving->digest, error))/if (false)/; s/^static bool add_earlier_names/G_GNUC_UNUSED &/' "$repacking"
mutant 'repacking: gc does not mark through tables' reach '/INSERT OR IGNORE INTO live_segment SELECT target/s/INSERT OR IGNORE INTO live_segment SELECT target FROM moved WHERE/& 0 AND/' "$repacking"
mutant 'repacking: recovery takes tables for half a file' recovery 's/return strlen(name) > 64/return false \&\& strlen(name) > 64/' "$repacking"
mutant 'repacking: recovery buries what tables serve' recovery 's/ || store_has_blocks(store, store_map_body(map)))/)/' "$repacking"
mutant 'repacking: recovery leaves rows of segments that were switched over' repack '/^bool repack_forget_gone/,/^}/s/return false;/return true;/; /^bool repack_forget_gone/,/^}/s/!catalog_digests/true || !catalog_digests/' "$repacking"
mutant 'format is not synced' pool 's/ && io_fdatasync(fd) == 0 &&$/ \&\&/'
mutant 'the folder above the store is not synced' pool 's/(fd >= 0 \&\& io_fsync(fd) == 0) ||/true ||/'
finish
