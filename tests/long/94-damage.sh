#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bits that flip and calls that fail, all of them: 1,000 flips over every kind of file of a store, each found and named; repairs and operations with a
# fault at each of their calls. KILN_TEST_FLIPS flips more or fewer.
. "$(dirname "$0")/../lib.sh"
require timeout
KILN_TEST_FLIPS=${KILN_TEST_FLIPS:-1000}
KILN_TEST_POINTS=${KILN_TEST_POINTS:-1}
export KILN_TEST_FLIPS KILN_TEST_POINTS
make -s -C "$TREE" all build/tests/test-scrub build/tests/test-faults >out 2>&1
result $? 'kiln and its tests build' || { explain out; finish; }
for program in test-scrub test-faults; do
    timeout 7200 "$TREE/build/tests/$program" --tap >"$program.out" 2>"$program.err"
    result $? "$program: $(grep -E '^# [0-9]+ (flips|runs)' "$program.out" | tr -d '#' | tr '\n' ';')" || { explain "$program.out" 5; explain "$program.err" 20; }
done
finish
