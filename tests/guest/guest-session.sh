#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The promises of provisioner/guest.h in a real appliance, and that nothing is left when kiln is interrupted or killed.
# KILN_TEST_ROOT_TAR may name a Debian root; otherwise one is bootstrapped.
. "$(dirname "$0")/../lib.sh"
require nbdkit sgdisk mke2fs e2fsck mmdebstrap cc

build=$(dirname "$KILN")
offset=1048576
socket=$WORK/nbd
session=$build/tests/guest-session
mkdir -p root tmp "$build/tests"

# shellcheck disable=SC2046 # words are wanted
ok 'the session program builds' cc -std=gnu11 -D_GNU_SOURCE -I"$TREE" $(pkg-config --cflags glib-2.0) -o "$session" \
    "$TREE/tests/guest/guest-session.c" "$build/libkiln.a" \
    $(link_words) || finish

if [ -n "${KILN_TEST_ROOT_TAR:-}" ]; then
    tar -C root -xpf "$KILN_TEST_ROOT_TAR"
else
    mmdebstrap --quiet --variant=minbase --mode=unshare --include=ca-certificates,systemd-sysv bookworm root.tar
    tar -C root -xpf root.tar
fi
truncate -s 1536M disk.raw
sgdisk -n 1:2048:0 disk.raw >/dev/null
mke2fs -q -t ext4 -d root -E offset=$offset disk.raw 1400M
rm -rf root root.tar
nbdkit -f -U "$socket" file disk.raw &
server=$!
trap 'kill $server; cleanup' EXIT
while [ ! -S "$socket" ]; do sleep 0.1; done

clean_disk() { # image: its file system, cut out, is clean without a journal replay
    cut_partition "$1" 1 part.raw
    e2fsck -fn part.raw >/dev/null 2>&1
    status=$?
    rm -f part.raw
    return $status
}
appliance() { pgrep -f "qemu-system.*$WORK" >/dev/null; }
gone_soon() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        appliance || return 0
        sleep 0.5
    done
    return 1
}
hang() { # starts a step that hangs, in the background
    "$session" "$socket" $offset "$WORK/tmp" hang >hang.log 2>&1 &
    hanging=$!
    for _ in $(seq 600); do
        grep -q '^hanging' hang.log && return 0
        sleep 0.2
    done
    return 1
}

SEAL_COMMAND="cp --sparse=always $WORK/disk.raw $WORK/copy.raw"
DROP_COMMAND="dd if=$WORK/copy.raw of=$WORK/disk.raw bs=1M conv=notrunc status=none"
export SEAL_COMMAND DROP_COMMAND
ok 'a rendered disk keeps every promise' "$session" "$socket" $offset "$WORK/tmp"
sed 's/^/# /' .out
ok 'the copy that was taken while frozen is clean' clean_disk copy.raw
ok 'the disk is clean at the end' clean_disk disk.raw
is 'nothing is left in the temporary folder' "$(ls tmp)" ''
ok 'a disk that has to be inspected does as well' "$session" "$socket" inspect "$WORK/tmp" exec no-trace checkpoint
ok 'a step may have network' "$session" "$socket" $offset "$WORK/tmp" network

hang
kill -INT $hanging
wait $hanging
is 'an interrupt ends with 130' $? 130
is 'and says so' "$(tail -n 1 hang.log)" 'ended: interrupted'
not_ok 'and the appliance is gone' appliance
is 'and nothing is left in the temporary folder' "$(ls tmp)" ''

hang
kill -9 $hanging
wait $hanging 2>/dev/null
ok 'after SIGKILL the appliance is gone within 5 seconds' gone_soon
ok 'and the next session works' "$session" "$socket" $offset "$WORK/tmp" exec
finish
