#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Crashes of the store, many: tests/unit/test-crash.c with all of its points, and the program itself killed at random while it works.
# KILN_TEST_POINTS bounds the points of the long recording, KILN_TEST_ROUNDS the kills.
. "$(dirname "$0")/../lib.sh"
KILN_TEST_POINTS=${KILN_TEST_POINTS:-8000}
KILN_TEST_ROUNDS=${KILN_TEST_ROUNDS:-60}
export KILN_TEST_POINTS KILN_TEST_ROUNDS

make -s -C "$TREE" build/tests/test-crash >out 2>&1
result $? 'the crash test builds' || { explain out; finish; }
"$TREE/build/tests/test-crash" --tap >out 2>err
result $? 'every crash point recovers, every broken order of writes is caught' || { grep '^not ok\|^Bail' out | sed 's/^/# /'; }
grep '^# .*\(points\|caught\|lives\)' out
grep '^#' err | head -50
points=$(sed -n 's/^# .*[^0-9]\([0-9]*\) points.*/\1/p; s/^# \([0-9]*\) points.*/\1/p' out | awk '{ n += $1 } END { print n + 0 }')
[ "$points" -ge 2000 ] || [ "$KILN_TEST_POINTS" -lt 2000 ]
result $? "$points crash points"

make -s -C "$TREE" build/tests/test-repack >out 2>&1
result $? 'the test of repacking builds' || { explain out; finish; }
"$TREE/tests/run-unit" "$TREE/build/tests/test-repack" --tap >out 2>err
result $? 'repacking is killed at every place' || grep '^not ok\|^Bail' out | sed 's/^/# /'

# The program itself. What it said it had imported must be there, whole, whatever became of the later ones.
KILN_STORE=$WORK/store
export KILN_STORE
disk() { # version
    rm -f "disk$1.raw"
    truncate -s 8M "disk$1.raw"
    printf '\125\252' | dd of="disk$1.raw" bs=1 seek=510 conv=notrunc 2>/dev/null
    printf '\203' | dd of="disk$1.raw" bs=1 seek=450 conv=notrunc 2>/dev/null
    head -c 1M /dev/urandom | dd of="disk$1.raw" bs=1M seek="$1" conv=notrunc 2>/dev/null
}
for n in 1 2 3 4 5; do disk $n; done
work() {
    while :; do
        for n in 1 2 3 4 5; do
            kiln --quiet import "disk$n.raw" "disk$n" >/dev/null 2>&1 && echo "disk$n" >>said
            kiln --quiet promote "disk$n" prod >/dev/null 2>&1 && echo "disk$n:prod" >>said
            [ "$n" -ne 3 ] || kiln --quiet gc --grace=0 >/dev/null 2>&1
        done
    done
}
: >said
bad=0
round=0
while [ $round -lt "$KILN_TEST_ROUNDS" ]; do
    work &
    worker=$!
    sleep "0.$(od -An -N2 -tu2 /dev/urandom | awk '{ printf "%03d", $1 % 700 }')"
    # The worker first, so that it starts nothing more; then what it started, which is what is to be killed.
    kill -STOP $worker
    child=$(ps -o pid= --ppid $worker | tr -d ' ')
    [ -z "$child" ] || kill -KILL $child 2>/dev/null
    kill -KILL $worker
    wait $worker 2>/dev/null
    kiln fsck --read-data >out 2>err || { bad=$((bad + 1)); echo "# round $round: fsck"; explain out 5; explain err 5; }
    for ref in $(sort -u said); do
        kiln show "$ref" >out 2>err || { bad=$((bad + 1)); echo "# round $round: $ref is lost"; explain err 3; }
    done
    round=$((round + 1))
done
is "$round processes killed: nothing that was said is lost" "$bad" 0
[ "$(sort -u said | wc -l)" -ge 5 ] || [ $round -lt 20 ]
result $? "they had said $(sort -u said | tr '\n' ' ')"
finish
