#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two HAProxies before one group: a change counts when both show it; one that is lost stops the rollout, and when it is back the rollout goes on; one that was
# told something else by somebody, or missed a word, is told again. Nothing is lost on the one that stays.
. "$(dirname "$0")/../lib.sh"
require haproxy runc cc jq umoci socat
. "$TREE/tests/deploy/lib.sh"
. "$TREE/tests/deploy/containers.sh"

make -s -C "$TREE" O="$(dirname "$KILN")" rollout-tools >make.log 2>&1 || { cat make.log; result 1 'the tools build'; finish; }
make_service_images 1 2 || { result 1 'images to deploy'; finish; }
balancer_lines="    sockets     = [\"$WORK/one.sock\", \"$WORK/two.sock\"]
    state_files = [\"$WORK/one.state\", \"$WORK/two.state\"]
    reload_grace = \"16s\""
size=3
second=$net.0.2:18941

# The printed lines have one part per balancer.
configure() { # name, part, address
    kiln deploy balancer-config app.group.hcl | awk -v part="$2" '/^# HAProxy with the stats socket/ { n++ } n == part' | awk -v bind="$3" '
        /^frontend/ { print "defaults\n    mode http\n    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n    timeout tunnel 30s\n    retries 0\n" }
        { sub(/bind :80/, "bind " bind); print }' >"$1.cfg"
}
start() { rm -f "$1.sock"; haproxy -D -f "$1.cfg" -p "$1.pid" >>haproxy.log 2>&1 || explain haproxy.log; }
ask() { echo "$2" | socat -t 2 - "UNIX-CONNECT:$WORK/$1.sock"; }
places() { ask "$1" 'show servers state app' | awk '$1 ~ /^[0-9]+$/ && $6 == 2 && $5 ~ /^127.94/ { print $5, $4 }' | sort | tr '\n' ';'; }
apply=
tidy() {
    [ -z "$apply" ] || kill "$apply" 2>/dev/null
    end_all
    for n in one two; do kill -9 "$(cat $n.pid 2>/dev/null)" 2>/dev/null; done
    cleanup
}
trap tidy EXIT

service_group 1 rolling
configure one 1 "$front"
configure two 2 "$second"
start one
start two
ok 'version 1' kiln deploy apply --wait app.group.hcl
is 'both have the same places in use' "$(places one)" "$(places two)"
is 'three of them' "$(places one | tr -cd ';' | wc -c)" 3

# --- one is lost in the middle ---
start_load load.json --keepalive 2 --new 2 --slow 1 --upload 0 --tunnel 0 --think 5
service_group 2 rolling
(exec "$KILN" deploy apply --wait app.group.hcl) >apply.out 2>apply.err &
apply=$!
tries=0
until grep -q 'route app-r2-' apply.err || [ $tries -gt 300 ]; do tries=$((tries + 1)); sleep 0.1; done
kill -9 "$(cat two.pid)"
sleep 4
kill -0 $apply 2>/dev/null
result $? 'the rollout waits'
before=$(places one)
sleep 2
is 'and changes nothing on the other' "$(places one)" "$before"
start two
wait $apply
result $? 'back again, the rollout goes on to its end' || explain apply.err
apply=
is 'both agree' "$(places one)" "$(places two)"
stop_load
is 'lost on the one that stayed' "$(jq .lost load.json)" 0

# --- somebody else's hand on one of them ---
name=$(ask two 'show servers state app' | awk '$1 ~ /^[0-9]+$/ && $6 == 2 && $5 ~ /^127.94/ { print $4; exit }')
ask two "set server app/$name state maint" >/dev/null
matches 'it shows' "$(kiln deploy drift app; kiln deploy status app)" 'agree|differ|out'
ok 'watch tells it again' timeout 60 kiln deploy watch --once app
is 'both agree again' "$(places one)" "$(places two)"
is 'three of them again' "$(places two | tr -cd ';' | wc -c)" 3
finish
