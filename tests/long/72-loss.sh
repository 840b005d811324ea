#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Nothing is lost: 20 rollouts (rolling, canary, rollback, blue/green; five each) of containers behind a real HAProxy, under keep-alive clients, new
# connections, slow answers, uploads and tunnels, retries off. At least KILN_TEST_REQUESTS (200,000) are asked for. A control without draining must lose some.
. "$(dirname "$0")/../lib.sh"
require haproxy runc cc jq umoci
. "$TREE/tests/deploy/lib.sh"
. "$TREE/tests/deploy/containers.sh"

make -s -C "$TREE" O="$(dirname "$KILN")" rollout-tools >make.log 2>&1 || { cat make.log; result 1 'the tools build'; finish; }
make_service_images 1 2 || { result 1 'images to deploy'; finish; }
trap 'end_all; cleanup' EXIT
rounds=${KILN_TEST_ROLLOUTS:-5}
wanted=${KILN_TEST_REQUESTS:-200000}
rollouts=0
asked=0
lost=0
version=1

begin_load() { start_load load.json --keepalive 6 --new 4 --slow 4 --upload 2 --tunnel 2 --tunnel-seconds 2 --think 2; }
end_load() { # title
    stop_load
    asked=$((asked + $(jq .requests load.json)))
    lost=$((lost + $(jq .lost load.json)))
    is "$1: lost of $(jq .requests load.json), both versions answered" "$(jq -c '[.lost, (.by_version | length >= 2)]' load.json)" '[0,true]'
    [ "$(jq .lost load.json)" = 0 ] || jq -c .first_errors load.json | sed 's/^/# /'
}
roll() { # strategy
    version=$((3 - version))
    service_group $version "$1"
    kiln deploy apply --wait app.group.hcl >out 2>err || { result 1 "$1 to version $version"; explain err; }
    rollouts=$((rollouts + 1))
}
roll_back() {
    kiln deploy rollback app >out 2>err || { result 1 'rollback'; explain err; }
    version=$((3 - version))
    rollouts=$((rollouts + 1))
}
block() { # title, command...
    title=$1
    shift
    begin_load
    for _ in $(seq "$rounds"); do "$@"; done
    end_load "$title"
}

service_group 1 canary # its ceiling is the highest
start_balancer || { result 1 'HAProxy starts'; finish; }
service_group 1 rolling
ok 'version 1' kiln deploy apply --wait app.group.hcl
block 'rolling' roll rolling
block 'canary' roll canary
block 'rollback' roll_back
while [ "$asked" -lt "$wanted" ] && [ "$rounds" -ge 5 ]; do block 'rolling, more of it' roll rolling; done

# The control: what serves is killed where it stands.
start_load control.json --keepalive 6 --new 4 --slow 4 --upload 2 --tunnel 2 --think 2
sleep 1
for pid in $(pgrep -f '^/backend$'); do
    tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -q "KILN_INSTANCE=app-" && kill -9 "$pid"
done
sleep 2
stop_load
[ "$(jq .lost control.json)" -gt 0 ]
result $? "the control, without draining, lost $(jq .lost control.json) of $(jq .requests control.json)"

kiln deploy destroy app >out 2>err
stop_balancer
keep=1s
service_group 1 bluegreen
start_balancer || { result 1 'HAProxy starts'; finish; }
version=1
ok 'blue' kiln deploy apply --wait app.group.hcl
block 'blue/green' roll bluegreen
is "$rollouts rollouts, $asked requests, lost" "$lost" 0
[ "$asked" -ge "$wanted" ] || [ "$rounds" -lt 5 ]
result $? "$asked requests are enough"
finish
