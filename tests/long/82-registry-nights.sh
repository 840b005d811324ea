#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A second night to a registry that holds the first: what is sent and fetched, against what the store itself had to add.
. "$(dirname "$0")/../lib.sh"
require docker-registry jq mke2fs debugfs curl qemu-img
. "$TREE/tests/registry/lib.sh"
KILN_STORE=$WORK/store
other() { KILN_STORE=$WORK/other "$KILN" "$@"; }
registry "$WORK/reg"
size_of() { du -sb --apparent-size "$1/segments" "$1/blobs" | awk '{ n += $1 } END { print n }'; }

# A root of about 300 MB from this machine's own files, and some 40 MB of them written anew in place, as by an update.
mkdir tree
cp -r /usr/bin /usr/sbin tree/ 2>/dev/null
[ "$(du -sm tree | cut -f1)" -gt 200 ] || cp -r /usr/lib/python3 tree/ 2>/dev/null
mke2fs -q -t ext4 -b 4096 -d tree one.raw 1500M 2>/dev/null >/dev/null
cp --sparse=always one.raw two.raw
i=0
find tree -type f -size +8k | sort | awk 'NR % 3 == 0' | head -n 600 | while read -r file; do
    i=$((i + 1))
    # Another version of the file: most of it moved by some bytes, as a compiler does.
    { head -c $((i * 7 + 13)) /dev/urandom; head -c 400000 "$file"; } >new
    mv new "new.$i"
    printf 'rm /%s\nwrite new.%s /%s\n' "${file#tree/}" "$i" "${file#tree/}" >>commands
done
debugfs -w -f commands two.raw >/dev/null 2>&1
ok 'the first night' kiln import one.raw night
ok 'is pushed' kiln push night docker://$registry/nights:1
ok 'and pulled' other pull docker://$registry/nights:1 night
before=$(size_of "$KILN_STORE")
ok 'the second night' kiln import two.raw night
new=$(($(size_of "$KILN_STORE") - before))
sent=$(kiln --json push night docker://$registry/nights:2 2>/dev/null)
is 'its push goes well' $? 0
got=$(other --json pull docker://$registry/nights:2 night 2>/dev/null)
is 'its pull, too' $? 0
echo "# the store grew by $new bytes; sent $(echo "$sent" | jq -c '[.bytes, .requests]'), fetched $(echo "$got" | jq -c '[.bytes, .requests]') (bytes, requests)"
ok 'at most 1.1 times of that was sent' test "$(echo "$sent" | jq .bytes)" -le $((new * 11 / 10))
ok 'and fetched' test "$(echo "$got" | jq .bytes)" -le $((new * 11 / 10))
ok 'with at most one request for each MiB' test "$(echo "$got" | jq .requests)" -le $(($(echo "$got" | jq .bytes) / 1048576 + 1))
ok 'the disk is the same' sh -c "KILN_STORE='$WORK/other' '$KILN' export night out.raw && qemu-img compare -f raw -F raw out.raw two.raw"
rm out.raw

# The same tree laid out from nothing shares its blocks all the same.
mkdir tree2
cp -r tree/. tree2/
while read -r word from to; do
    [ "$word" = write ] && cp "$from" "tree2$to"
done <commands
mke2fs -q -t ext4 -b 4096 -d tree2 three.raw 1500M 2>/dev/null >/dev/null
before=$(size_of "$KILN_STORE")
ok 'a night that was made anew' kiln import three.raw anew
new=$(($(size_of "$KILN_STORE") - before))
sent=$(kiln --json push anew docker://$registry/nights:3 2>/dev/null)
got=$(other --json pull docker://$registry/nights:3 anew 2>/dev/null)
echo "# the store grew by $new bytes; sent $(echo "$sent" | jq -c '[.bytes, .requests]'), fetched $(echo "$got" | jq -c '[.bytes, .requests]')"
ok 'sends what is new in it' test "$(echo "$sent" | jq .bytes)" -le $((new * 11 / 10 + 65536))
ok 'fetches that' test "$(echo "$got" | jq .bytes)" -le $((new * 11 / 10 + 65536))
ok 'and is what it was' sh -c "KILN_STORE='$WORK/other' '$KILN' export anew out.raw && qemu-img compare -f raw -F raw out.raw three.raw"
ok 'the store is whole' other fsck --read-data
finish
