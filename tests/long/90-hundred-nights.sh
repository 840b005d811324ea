#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A hundred nights of one image, of which ten stay: what is dead comes back, also while two writers run and collectors are killed, and
# every image that is left comes out as it went in; the newest one about as fast as the first. No appliance: the disks are made by mke2fs.
. "$(dirname "$0")/../lib.sh"
require mke2fs python3 sha256sum

nights=${KILN_TEST_NIGHTS:-100}
kept=10
KILN_STORE=$WORK/store
uuid=0b9f1c1e-5a0e-4b6e-9f61-0d7c5c6f1a11

# Writes files FIRST to LAST of folder DIR anew, 64 KiB each, from a seed.
files() { # folder, seed, first, last
    python3 - "$@" <<'PY'
import random, sys
folder, seed, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
for i in range(first, last):
    n = i % 400
    with open(f"{folder}/{n:03d}", "wb") as out:
        out.write(random.Random(seed * 1000 + n).randbytes(65536))
PY
}
disk() { # folder, file
    rm -f "$2"
    truncate -s 40M "$2" && mke2fs -q -F -t ext4 -U "$uuid" -E "hash_seed=$uuid" -d "$1" "$2" >/dev/null 2>&1
}
bytes() { # store
    KILN_STORE=$1 "$KILN" --json stats | python3 -c 'import json, sys; print(json.load(sys.stdin)["bytes"]["segments"])'
}
# Exports the kept nights and compares them with what was imported.
come_back() {
    while read -r night id digest; do
        kiln --quiet export "$id" out.raw --format=raw 2>/dev/null
        [ "$(sha256sum <out.raw)" = "$digest" ] || echo "night $night"
    done <kept.list
}

# Processor time of a restore in milliseconds, the least of nine, as others may be busy beside it.
restore_ms() { # store, image
    python3 - "$KILN" "$1" "$2" <<'PY'
import os, resource, subprocess, sys
kiln, store, image = sys.argv[1:]
def once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([kiln, "--quiet", "--store", store, "export", image, "timed.raw", "--format=raw"], check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(round(min(once() for _ in range(9)) * 1000, 1))
PY
}
came_back() { # description, bytes after, bytes needed
    echo "# $before bytes, $2 after, $3 needed: $(((before - $2) * 1000 / (before - $3))) of 1000 dead bytes came back"
    ok "$1" [ $(((before - $2) * 100)) -ge $(((before - $3) * 95)) ]
}
as_fast() { # description, milliseconds
    echo "# restore of the newest, $1: $2 ms; of the first when it was alone: $first ms"
    ok "the newest is restored as fast as the first was, $1" python3 -c "import sys; sys.exit($2 > 1.3 * $first)"
}

mkdir tree
files tree 0 0 400
n=1
: >all.list
while [ "$n" -le "$nights" ]; do
    files tree "$n" $((n * 137 % 400)) $((n * 137 % 400 + 20))
    disk tree night.raw
    id=$(kiln --quiet import night.raw web | awk '{ print $3 }')
    echo "$n $id $(sha256sum <night.raw)" >>all.list
    [ "$n" -gt 1 ] || first=$(restore_ms "$KILN_STORE" "$id")
    n=$((n + 1))
done
tail -n $kept all.list >kept.list
is 'every night is an image' "$(kiln images --all web | grep -c ' disk ')" "$nights"
before=$(bytes "$KILN_STORE")

# What a store has that never held anything else.
while read -r night id digest; do
    kiln --quiet export "$id" out.raw --format=raw && KILN_STORE=$WORK/ideal "$KILN" --quiet import out.raw web >/dev/null
done <kept.list
least=$(bytes "$WORK/ideal") web_alone=$(bytes "$WORK/ideal")

cp -a "$KILN_STORE" quiet
ok 'the nights go by a rule' env KILN_STORE="$WORK/quiet" "$KILN" prune --keep-last $kept web
ok 'and gc frees them' env KILN_STORE="$WORK/quiet" "$KILN" gc --grace 0
came_back '95 % of what was dead' "$(bytes "$WORK/quiet")" "$least"
ok 'that store is clean' env KILN_STORE="$WORK/quiet" "$KILN" fsck --read-data
is 'the nights that stayed come out of it' "$(KILN_STORE=$WORK/quiet come_back)" ''
is 'the others are records' "$(KILN_STORE=$WORK/quiet "$KILN" images --all web | grep -c 'record only')" $((nights - kept))

newest=$(tail -n 1 all.list | cut -d ' ' -f 2)
as_fast 'with ten nights left' "$(restore_ms "$WORK/quiet" "$newest")"

# All of them stay: the newest has blocks of each.
cp -a "$KILN_STORE" all
echo "# before gc: $(restore_ms "$WORK/all" "$newest") ms"
ok 'gc puts the newest in a row' env KILN_STORE="$WORK/all" "$KILN" gc --grace 0
as_fast 'with a hundred nights kept' "$(restore_ms "$WORK/all" "$newest")"
ok 'that store is clean, too' env KILN_STORE="$WORK/all" "$KILN" fsck --read-data
rm -rf all

# ---- beside two writers, and killed ----

writer() { # name
    mkdir "$1.tree"
    cp tree/* "$1.tree/"
    i=1
    while [ -e running ]; do
        files "$1.tree" "$((i + $2))" $((i * 61 % 400)) $((i * 61 % 400 + 40))
        disk "$1.tree" "$1.raw"
        kiln --quiet import "$1.raw" "$1" >"$1.id" 2>>"$1.err" || echo "import $i failed" >>"$1.err"
        id=$(awk '{ print $3 }' "$1.id")
        kiln --quiet export "$id" "$1.out" --format=raw 2>>"$1.err" && cmp -s "$1.raw" "$1.out" || echo "night $i differs" >>"$1.err"
        i=$((i + 1))
    done
}
touch running
writer one 5000 &
one=$!
writer two 6000 &
two=$!
kiln --quiet prune --keep-last $kept web >/dev/null
killed=0
for delay in 0.02 0.05 0.08 0.1 0.15 0.2 0.25 0.3 0.4 0.5; do
    "$KILN" --quiet gc --grace 0 >/dev/null 2>>gc.err &
    pid=$!
    sleep $delay
    kill -9 $pid 2>/dev/null && killed=$((killed + 1))
    wait $pid 2>/dev/null
    kiln --quiet prune --keep-last 2 one two >/dev/null 2>&1
done
for i in 1 2 3 4 5; do
    kiln --quiet gc --grace 0 >/dev/null 2>>gc.err || echo "gc $i failed" >>gc.err
done
rm running
wait $one
wait $two
echo "# killed $killed collectors"
is 'the writers had no trouble' "$(cat one.err two.err)" ''
is 'nor had the collectors that lived' "$(cat gc.err)" ''
kiln --quiet prune --keep-last $kept web >/dev/null
kiln --quiet prune --keep-last 1 one two >/dev/null
ok 'a last gc' kiln gc --grace 0
ok 'the store is clean' kiln fsck --read-data
is 'every kept night came through' "$(come_back)" ''
for name in one two; do
    kiln --quiet export $name out.raw --format=raw
    KILN_STORE=$WORK/ideal "$KILN" --quiet import out.raw $name >/dev/null
done
after=$(bytes "$KILN_STORE") least=$(bytes "$WORK/ideal")
echo "# $after bytes are left, $least are needed"
# What the writers left in segments that are needed for 70 % and more stays there.
ok 'and little that is dead is left' [ $((after * 100)) -le $((least * 150)) ]
ok 'the writers images go' kiln rm one two
ok 'with their bytes' kiln gc --grace 0
came_back '95 % of what was dead before the writers began' "$(bytes "$KILN_STORE")" "$web_alone"
finish
