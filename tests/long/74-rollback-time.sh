#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Going back from a blue/green that holds: how long after the command does the new version still get requests? KILN_TEST_ROLLBACKS (100) times; the slowest but one
# in a hundred must be within 500 ms, and nothing may be lost.
. "$(dirname "$0")/../lib.sh"
require haproxy runc cc jq umoci
. "$TREE/tests/deploy/lib.sh"
. "$TREE/tests/deploy/containers.sh"

make -s -C "$TREE" O="$(dirname "$KILN")" rollout-tools >make.log 2>&1 || { cat make.log; result 1 'the tools build'; finish; }
make_service_images 1 2 || { result 1 'images to deploy'; finish; }
trap 'end_all; cleanup' EXIT
rounds=${KILN_TEST_ROLLBACKS:-100}
size=2
keep=0s
service_group 1 bluegreen
start_balancer || { result 1 'HAProxy starts'; finish; }
ok 'version 1' kiln deploy apply --wait app.group.hcl
keep=10m
service_group 2 bluegreen
: >times
lost=0
for _ in $(seq "$rounds"); do
    kiln deploy apply --retry app.group.hcl >out 2>err || { result 1 'version 2 has the traffic'; explain err; break; }
    start_load load.json --keepalive 4 --new 2 --slow 0 --upload 0 --tunnel 0 --think 1
    sleep 0.5
    before=$(date +%s%3N)
    kiln deploy rollback app >out 2>err || { result 1 'rollback'; explain err; }
    stop_load
    echo $(($(jq '.last_seen.v2' load.json) - before)) >>times
    lost=$((lost + $(jq .lost load.json)))
done
sort -n times >sorted
p99=$(sed -n "$(((rounds * 99 + 99) / 100))p" sorted)
[ "$p99" -le 500 ]
result $? "$rounds rollbacks: the new version's last request was sent at most $p99 ms after the command (99 of 100), median $(sed -n "$(((rounds + 1) / 2))p" sorted) ms"
is 'lost' $lost 0
is 'rounds' "$(wc -l <times)" "$rounds"
finish
