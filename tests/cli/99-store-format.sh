#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stores that every earlier version wrote open, come up to date and give back the bytes they were given; newer ones are refused. A reader that
# knows kiln-store(5) and nothing else reads what kiln reads.
. "$(dirname "$0")/../lib.sh"
require python3 zstd sqlite3 jq
reader() { python3 -B "$TREE/tests/reader/kiln_store_reader.py" "$@"; }
unpack() { rm -rf "$2" && mkdir "$2" && zstd -dcq "$TREE/tests/data/stores/$1.tar.zst" | tar -C "$2" -x --no-same-owner; }
sum() { sha256sum <"$1" | cut -c 1-64; }
marks() { for db in state catalog; do sqlite3 "$1/$db.db" 'PRAGMA user_version'; done | tr '\n' ' '; }
latest=$(mktemp -d latest.XXXXXX)
kiln --store "$latest/store" images >/dev/null 2>&1
now=$(marks "$latest/store")

# --- stores of earlier versions; digests of the disk "web" and of the two layers of "box" as they were when they were written ---
while read -r name disk layers; do
    unpack "$name" old
    store=old/store
    was=$(marks "$store")
    ok "$name (databases $was): whole" kiln --store "$store" fsck --read-data
    is "$name is brought up to date" "$(marks "$store")" "$now"
    ok "$name: its disk" kiln --store "$store" export web disk.raw --format=raw
    is "$name: has the bytes it was given" "$(sum disk.raw)" "$disk"
    rm -rf box
    ok "$name: its container image" kiln --store "$store" export box box --format=oci-dir
    is "$name: has the layers it was given" "$(jq -r '.layers[].digest' "box/blobs/sha256/$(jq -r '.manifests[0].digest[7:]' box/index.json)" | xargs)" "$layers"
    rm -f again.raw
    reader "$store" disk web again.raw >err 2>&1 && cmp disk.raw again.raw >>err 2>&1
    result $? "$name: the reader reads the same disk" || explain err
    case $name in
    state-1 | catalog-2) # slow, and the same everywhere
        rm -rf read
        reader "$store" layers box read >err 2>&1 && for layer in $layers; do cmp "read/${layer#sha256:}" "box/blobs/sha256/${layer#sha256:}" >>err 2>&1 || exit; done
        result $? "$name: the reader makes the same layers" || explain err
        ;;
    esac
done <<'EOT'
state-1 594e0377dd0add3e3e5a1391fd4fd77948ad18219fbe8e08492de69c224db638 sha256:deb230b21e0d7ef6a0a2d65a19599d4251b5f08888a5155882fbef2ef71e1e11 sha256:f225ba6ff38d787b9b576fe10ebfc933fd65bcfd6bc85fad9d98881c210cf3d7
state-2 6b89d09390883464fb4eb29621ef8c60425f1a555f5bdbbb67db5633832eb94b sha256:deb230b21e0d7ef6a0a2d65a19599d4251b5f08888a5155882fbef2ef71e1e11 sha256:f225ba6ff38d787b9b576fe10ebfc933fd65bcfd6bc85fad9d98881c210cf3d7
state-3 919dfeebbbb527a82a7553d5c801fb04902aa084e04d254072e57f0ebf404c4e sha256:deb230b21e0d7ef6a0a2d65a19599d4251b5f08888a5155882fbef2ef71e1e11 sha256:f225ba6ff38d787b9b576fe10ebfc933fd65bcfd6bc85fad9d98881c210cf3d7
state-4 24b75d7b04eeb2226d3a2c9616be1ddc104b4dcaed08fae5c06d5f78ee991fbe sha256:deb230b21e0d7ef6a0a2d65a19599d4251b5f08888a5155882fbef2ef71e1e11 sha256:f225ba6ff38d787b9b576fe10ebfc933fd65bcfd6bc85fad9d98881c210cf3d7
state-5 a189ea57c7f93feaaa0f587a3a67f8ad6c8d3915b70881f2d52320826591d9e4 sha256:deb230b21e0d7ef6a0a2d65a19599d4251b5f08888a5155882fbef2ef71e1e11 sha256:f225ba6ff38d787b9b576fe10ebfc933fd65bcfd6bc85fad9d98881c210cf3d7
catalog-2 a189ea57c7f93feaaa0f587a3a67f8ad6c8d3915b70881f2d52320826591d9e4 sha256:deb230b21e0d7ef6a0a2d65a19599d4251b5f08888a5155882fbef2ef71e1e11 sha256:f225ba6ff38d787b9b576fe10ebfc933fd65bcfd6bc85fad9d98881c210cf3d7
catalog-4 a189ea57c7f93feaaa0f587a3a67f8ad6c8d3915b70881f2d52320826591d9e4 sha256:deb230b21e0d7ef6a0a2d65a19599d4251b5f08888a5155882fbef2ef71e1e11 sha256:f225ba6ff38d787b9b576fe10ebfc933fd65bcfd6bc85fad9d98881c210cf3d7
EOT

# --- the newest, with what today's kiln adds ---
unpack catalog-2 new
store=new/store
export KILN_STORE="$WORK/$store"
kiln export second second.raw --format=raw >/dev/null 2>&1
is 'a disk of which a segment was repacked' "$(sum second.raw)" c7275dfc4be2c30536d4cb190a01f3fcb0669d9d0d2067321b29ed818e2a501d
reader "$store" disk second second-read.raw && cmp second.raw second-read.raw
result $? 'the reader follows its table'
truncate -s 3M made.raw
printf '\125\252' | dd of=made.raw bs=1 seek=510 conv=notrunc status=none
printf '\203' | dd of=made.raw bs=1 seek=450 conv=notrunc status=none
head -c 200000 "$TREE/build/kiln" | dd of=made.raw bs=1000 seek=500 conv=notrunc status=none
ok 'a disk comes in' kiln import made.raw made
ok 'and is promoted' kiln promote made prod --reason 'it is "new": é'
ok 'another is revoked' kiln revoke web --reason 'old'
listing() { jq -r '.images[] | .name + " " + .kind + " " + .id' | sort; }
is 'the reader lists what kiln lists' "$(reader "$store" list)" "$(kiln --json images | listing)"
is 'from the ledger as well' "$(reader --ledger "$store" list)" "$(kiln --json images | listing)"
kiln export made made-again.raw --format=raw >/dev/null 2>&1
reader "$store" disk made made-read.raw && cmp made-read.raw made-again.raw && cmp made-read.raw made.raw
result $? 'and reads what came in'
ok 'every digest, hash and chain is right' reader "$store" verify
ok 'those that the ledger names as well' reader --ledger "$store" verify
sqlite3 "$store/state.db" "UPDATE channel_log SET who = 'somebody' WHERE number = 1"
not_ok 'the reader sees a log that was changed' reader "$store" verify

# --- newer ones ---
refuse() { # what, fragment, change
    unpack state-5 newer
    (cd newer/store && eval "$3")
    fails 1 "$1 of a newer kiln is refused" "$2" kiln --store newer/store images
    grep -Fq 'upgrade kiln' "$WORK/.err"
    result $? "$1: it says what to do"
}
refuse 'a store' 'newer kiln (format 2' 'echo kiln-store 2 >format'
refuse 'a state.db' 'newer kiln (schema 99' 'sqlite3 state.db "PRAGMA user_version = 99"'
refuse 'a catalog' 'newer kiln (schema 99' 'sqlite3 catalog.db "PRAGMA user_version = 99"'
fails 1 'nor is it made again' 'newer kiln (schema 99' kiln --store newer/store fsck --rebuild
finish
