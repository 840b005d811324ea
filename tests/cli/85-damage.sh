#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Disks and files that fail: damage found, named and repaired; full disks; stores that can only be read.
. "$(dirname "$0")/../lib.sh"
KILN_STORE=$WORK/store
export KILN_STORE
root=$(id -u)

# A disk image with noise of its own in it: disk FILE SEED
disk() {
    truncate -s 8M "$1"
    printf '\125\252' | dd of="$1" bs=1 seek=510 conv=notrunc 2>/dev/null
    printf '\203' | dd of="$1" bs=1 seek=450 conv=notrunc 2>/dev/null
    awk -v seed="$2" 'BEGIN { srand(seed); for (i = 0; i < 200000; i++) printf "%d", rand() * 1e6 }' | head -c 900K | dd of="$1" bs=1M seek=2 conv=notrunc 2>/dev/null
}
flip() { # file, byte
    old=$(od -An -tu1 -j "$2" -N1 "$1" | tr -d ' ')
    printf "\\$(printf %o $((old ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
segment() { find "$1/segments" -type f -size +64k | head -n1; }

disk one.raw 1
disk two.raw 2
ok 'a disk is imported' kiln import one.raw one
ok 'and another' kiln import two.raw two
cp -a "$KILN_STORE" copy

# --- reading, damage, repair
ok 'every byte is read' kiln fsck --read-data --rate 100M
matches 'and it is said how much' "$(cat .err)" 'read .*[KM]iB of [0-9]+ files'
ok 'a share of it' kiln fsck --read-data --subset 2/3
fails 2 'no such share' '2/7' kiln fsck --read-data --subset 4/3
fails 2 'a rate without reading' '--read-data' kiln fsck --rate 1M
timeout --foreground --preserve-status -s INT 1.5 "$KILN" fsck --read-data --rate 300K >/dev/null 2>cut.err
is 'Ctrl-C ends it' $? 130
matches 'and is told what was done' "$(cat cut.err)" 'the next run goes on behind them'
ok 'the next one goes on' kiln fsck --read-data
matches 'and says so' "$(cat .err)" 'went on with the run that began at'
flip "$(segment store)" 150000
fails 1 'a flipped bit is found' 'problem' kiln fsck --read-data
matches 'with its segment and frame' "$(cat .out)" '^segments/../[0-9a-f]{64} is damaged: of its [0-9]+ frames these cannot be read: [0-9]'
matches 'and its image' "$(cat .out)" 'image (one|two)/disk sha256:[0-9a-f]{64} needs it: [0-9]+ blocks?'
kiln --json fsck --read-data >json 2>/dev/null
have jq && is 'as JSON as well' "$(jq -r '.damage[0].images[0].kind + " " + (.damage[0].frames | length | tostring) + " " + (.clean | tostring)' json)" 'disk 1 false'
fails 1 'nobody here has the blocks' 'problem' kiln fsck --read-data --repair
ok 'another store has them' kiln fsck --read-data --repair --from copy
matches 'which is said' "$(cat .out)" "repaired: segments/.* taken whole from store"
ok 'all is well again' kiln fsck --read-data
ok 'an image goes to a remote' kiln sync push file:remote one
flip "$(segment store)" 140000
cp -a store lost
ok 'and comes back from there' kiln fsck --read-data --repair --from file:remote
matches 'where it was damaged' "$(cat .out)" '^repaired: segments/'
ok 'nothing of it stays' test -z "$(ls store/tmp)"
ok 'all is well again once more' kiln fsck --read-data --repair --from file:remote
fails 1 'a remote that is not there' "cannot open 'empty'" kiln --store lost fsck --read-data --repair --from file:empty
rm -rf lost remote
ok 'what was damaged is kept' test -n "$(ls store/damaged)"
ok 'the image comes out' kiln export one out.raw
ok 'as it was' cmp one.raw out.raw

# --- a letter in a database
python3 - store/catalog.db <<'END' || skip 'rows that change' 'needs python3'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
at = data.find(b"one")
assert at > 0
data[at] ^= 1
open(sys.argv[1], "r+b").write(data)
END
fails 1 'a changed letter in the catalog is found' 'problem' kiln fsck --read-data
matches 'with its page' "$(cat .out)" '^catalog.db is damaged: page [0-9]+ of [0-9]+'
ok 'the catalog is made again' kiln fsck --rebuild --read-data
ok 'and has the image' kiln show one

# --- read-only media, and users who may only read
readers() { # description, command prefix...
    what=$1
    shift
    ok "$what: images" "$@" "$KILN" --store "$ro" images
    ok "$what: show" "$@" "$KILN" --store "$ro" show one
    ok "$what: export" "$@" "$KILN" --store "$ro" export one "$out/ro.raw"
    cmp one.raw "$out/ro.raw" >/dev/null
    result $? "$what: as it was"
    rm -f "$out/ro.raw"
    ok "$what: fsck" "$@" "$KILN" --store "$ro" fsck
    ok "$what: fsck --read-data" "$@" "$KILN" --store "$ro" fsck --read-data
    fails 1 "$what: no import" "$reason" "$@" "$KILN" --store "$ro" import one.raw three
    fails 1 "$what: no gc" "$reason" "$@" "$KILN" --store "$ro" gc
    fails 1 "$what: no promote" "$reason" "$@" "$KILN" --store "$ro" promote one prod
    fails 1 "$what: no repair" "$reason" "$@" "$KILN" --store "$ro" fsck --repair
    if have nbdinfo && have nbdkit; then
        "$@" "$KILN" --store "$ro" --quiet nbd one --socket "$out/nbd" >/dev/null 2>nbd.err &
        server=$!
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -S "$out/nbd" ] && break; sleep 0.1; done
        is "$what: nbd" "$(nbdinfo --size "nbd+unix:///?socket=$out/nbd" 2>&1)" 8388608 || explain nbd.err
        kill $server
        wait $server 2>/dev/null
    fi
}
out=$WORK/out
mkdir -m 777 out
chmod 755 "$WORK"
if [ "$root" -eq 0 ] && mkdir ro && mount --bind "$KILN_STORE" ro 2>/dev/null && mount -o remount,ro,bind ro; then
    ro=$WORK/ro
    reason='mounted read-only'
    readers 'read-only mount'
    umount ro
else
    skip 'read-only mounts' 'needs root and mounts'
fi
if [ "$root" -eq 0 ] && have setpriv && setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$WORK/one.raw"; then
    ro=$KILN_STORE
    reason='you may not write to store'
    readers 'another user' setpriv --reuid=65534 --regid=65534 --clear-groups
    # With a writer at work, whose newest rows are in the log: he holds a transaction until he reads a line.
    "$KILN" nbd two --socket "$WORK/hold" >/dev/null 2>&1 &
    server=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do [ -S hold ] && break; sleep 0.1; done
    disk three.raw 3
    ok 'a third disk' kiln import three.raw three
    ok 'another user sees what is in the log alone' setpriv --reuid=65534 --regid=65534 --clear-groups "$KILN" show three
    kill $server
    wait $server 2>/dev/null

    # The group writes: what one member makes another goes on with.
    mkdir shared
    chgrp 65533 shared
    chmod 2775 shared
    umask 022
    as() { user=$1; shift; setpriv --reuid="$user" --regid="$user" --groups 65533 "$@"; }
    ok 'a member of the group makes a store' as 60001 "$KILN" --store shared import one.raw one
    ok 'another one writes to it' as 60002 "$KILN" --store shared import two.raw two
    ok 'and collects' as 60002 "$KILN" --store shared gc --grace=0
    ok 'and reads all of it' as 60001 "$KILN" --store shared fsck --read-data
    as 60001 sh -c "\"$KILN\" --quiet --store shared nbd one --socket out/kill >/dev/null 2>&1 & sleep 0.5; kill -9 \$!; wait"
    ok 'what a killed member left is cleared by another' as 60002 "$KILN" --store shared promote one prod
    ok 'others read' setpriv --reuid=65534 --regid=65534 --clear-groups "$KILN" --store shared show one
    fails 1 'and are told who writes' "you may not write" setpriv --reuid=65534 --regid=65534 --clear-groups "$KILN" --store shared gc
else
    skip 'other users' 'needs root, setpriv and a working folder that others may enter'
fi

# --- a full disk
if [ "$root" -eq 0 ] && mkdir full && mount -t tmpfs -o size=24M none full 2>/dev/null; then
    unset KILN_RESERVE
    KILN_STORE=$WORK/full/store
    for n in 1 2 3; do
        disk fill.raw "$n$n"
        kiln --quiet import fill.raw "fill$n" >/dev/null
    done
    ok 'a small disk has a small reserve' test "$(stat -c %s full/store/reserve)" -eq 786432
    kiln --quiet rm fill1 fill2 2>/dev/null
    dd if=/dev/zero of=full/ballast bs=4k 2>/dev/null
    is 'the disk is full' "$(df --output=avail full | tail -n1 | tr -d ' ')" 0
    fails 1 'nothing more fits' 'No space left' kiln import one.raw one
    ok 'fsck works on a full disk' kiln fsck --read-data
    matches 'by way of its reserve' "$(cat .err)" 'its reserve is used'
    ok 'which it gives back' test -s full/store/reserve
    fails 1 'still nothing fits' 'No space left' kiln import one.raw one
    ok 'gc works on a full disk' kiln gc --grace=0
    rm full/ballast
    ok 'prune as well' kiln prune --keep-last=5 --dry-run fill3
    ok 'there is a reserve again when there is room' test "$(stat -c %s full/store/reserve)" -eq 786432
    dd if=/dev/zero of=full/ballast bs=4k 2>/dev/null
    ok 'removing works on a full disk' kiln rm fill3
    ok 'and collecting, twice' sh -c "'$KILN' gc --grace=0 && '$KILN' gc --grace=0"
    rm full/ballast
    ok 'all is well' kiln fsck --read-data
    umount full
else
    skip 'full disks' 'needs root and mounts'
fi
finish
