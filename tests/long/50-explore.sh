#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The whole walk of the explorer over the transition function: at least a million states, within two minutes on one core.
. "$(dirname "$0")/../lib.sh"

explorer=$(dirname "$KILN")/tests/test-explore
if [ ! -x "$explorer" ]; then
    echo "1..0 # SKIP build/tests/test-explore is not built (make check-unit builds it)"
    exit 0
fi
ok 'every state keeps the rules, and every path ends' env KILN_TEST_LONG=1 "$explorer" --tap
line=$(grep -h 'distinct states' "$WORK/.out" "$WORK/.err")
echo "$line"
states=$(echo "$line" | sed 's/[^0-9]*\([0-9]*\).*/\1/')
took=$(echo "$line" | sed 's/.* \([0-9]*\) seconds.*/\1/')
ok "at least a million states ($states)" test "${states:-0}" -ge 1000000
ok "within two minutes of one core ($took s)" test "${took:-999}" -le 120
finish
