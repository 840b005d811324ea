#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The balancer member "haproxy" against real HAProxies, with services and clients that count every lost request: nobody gets work before its
# own checks passed, draining loses nothing, a reload (both ways) in the middle loses nothing, a lost balancer stops a change.
. "$(dirname "$0")/../lib.sh"
require haproxy cc python3 jq curl

make -s -C "$TREE" O="$(dirname "$KILN")" rollout-tools >make.log 2>&1 || { cat make.log; echo "1..0 # SKIP the tools do not build"; exit 1; }
tools=$(dirname "$KILN")/tests
pids=
trap 'for p in $pids; do kill -9 "$p" 2>/dev/null; done; cat *.pid 2>/dev/null | while read -r p; do kill -9 "$p" 2>/dev/null; done; cleanup' EXIT
NET=127.92.0
PORT=18920

service() { # last octet, version, more...: its pid in $last
    octet=$1
    version=$2
    shift 2
    "$tools/backend" --listen "$NET.$octet:8000" --version "$version" "$@" 2>>service.log &
    last=$!
    pids="$pids $last"
    eval "service_$octet=$last"
}
kill_service() {
    eval "kill -9 \$service_$1"
    eval "wait \$service_$1" 2>/dev/null
    return 0
}
arguments() { # name, more JSON members
    printf '{"sockets": ["%s/%s.sock"], "backend": "web", "state_file": "%s/%s.state", "map": "%s/%s.map", "config": "%s/%s.cfg", "reload_grace": "6s"}' \
        "$WORK" "$1" "$WORK" "$1" "$WORK" "$1" "$WORK" "$1"
}
SETTINGS=places=6,http=/,interval=0.5,rise=2,fall=3
balance() { # name, calls...
    name=$1
    shift
    "$tools/balance" haproxy "$(arguments "$name")" "$SETTINGS" "$@"
}
# The lines that kiln prints are the configuration; beside them only what belongs to no group.
configure() { # name, port
    : >"$1.map"
    balance "$1" lines | awk -v bind="$NET.1:$2" '
        /^frontend/ { print "defaults\n    mode http\n    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n    timeout tunnel 30s\n    retries 0\n" }
        { sub(/bind :80/, "bind " bind); print }' >"$1.cfg"
}
start() { # name
    haproxy -D -f "$1.cfg" -p "$1.pid" >>haproxy.log 2>&1
    answers "$1"
}
start_master() {
    haproxy -W -S "$WORK/$1.master" -D -f "$1.cfg" -p "$1.pid" >>haproxy.log 2>&1
    answers "$1"
}
answers() {
    for _ in $(seq 50); do
        raw "$1" 'show info' >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}
reload() { # -sf, as an init script does; the listeners come from the old process
    # shellcheck disable=SC2046 # pids are words
    haproxy -D -f "$1.cfg" -p "$1.pid" -x "$WORK/$1.sock" -sf $(cat "$1.pid") >>haproxy.log 2>&1
}
reload_master() {
    kill -USR2 "$(cat "$1.pid")"
    sleep 0.5
}
raw() { # name, command
    python3 - "$1.sock" "$2" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(3); s.connect(sys.argv[1]); s.sendall((sys.argv[2] + "\n").encode())
while True:
    b = s.recv(65536)
    if not b: break
    sys.stdout.write(b.decode())
END
}
load() { # result file, port, more...
    result=$1
    port=$2
    shift 2
    "$tools/load" "$NET.1:$port" --think 3 "$@" >"$result" &
    load=$!
    pids="$pids $load"
}
load_end() {
    kill -TERM $load
    wait $load
}
report() { jq -c '{requests, lost, retried, by_version}' "$1" | sed "s|^|# $2: |"; }

# --- what it says before anything runs ---
configure a $PORT
ok 'HAProxy takes the lines that kiln prints' haproxy -c -f a.cfg
fails 1 'a socket that is not there is named' "a.sock" balance a verify
matches 'and observe tells it instead of failing' "$(balance a observe)" "^answers 0 reached 0 .*a.sock"
fails 2 'a wrong argument is named' "no argument 'sokets'" "$tools/balance" haproxy '{"sokets": []}' - observe
fails 2 'sockets are needed' 'sockets names 0' "$tools/balance" haproxy '{"backend": "web"}' - observe
start a
ok 'all that is needed is there' balance a verify
fails 1 'a small pool is named' "server-template web 1-99" "$tools/balance" haproxy "$(arguments a)" places=99 verify
fails 1 'a missing backend is named' "no backend 'web-0'" "$tools/balance" haproxy "$(arguments a)" places=2,strategy=bluegreen verify
fails 1 'a cookie that a sticky group needs is named' "lacks 'cookie KILN" "$tools/balance" haproxy "$(arguments a)" places=2,sticky=1 verify
sed -i.keep '/load-server-state-from-file/d' a.cfg
fails 1 'a line that only the file shows is named' "lacks 'load-server-state-from-file local' in backend web" balance a verify
mv a.cfg.keep a.cfg

# --- a place's next tenant is judged by its own checks ---
service 11 v1
service 12 v1
service 13 v1
service 19 sick --broken
ok 'instances enter, are checked and get work' balance a enter:0:0:$NET.11:8000 enter:0:1:$NET.12:8000 enter:0:2:$NET.13:8000 \
    up:0:0:15 up:0:1:15 up:0:2:15 route:0:0:256 route:0:1:256 route:0:2:256
is 'nobody is up before its checks' "$(balance a enter:0:3:$NET.11:8000 observe | grep ^0/3)" "0/3 drained down weight 1 sessions 0 $NET.11:8000"
ok 'the healthy tenant goes' balance a up:0:3:15 drain:0:3 leave:0:3
raw a "set server web/web4 addr $NET.19 port 8000;set server web/web4 state drain;show servers state web" >raw.txt
is 'control: HAProxy itself calls a sick successor running, with the former result' "$(awk '$4 == "web4" { print $6, $12 }' raw.txt)" '2 3'
ok 'the place is left' balance a leave:0:3
# shellcheck disable=SC2046 # words are wanted
balance a enter:0:3:$NET.11:8000 up:0:3:15 leave:0:3 enter:0:3:$NET.19:8000 $(yes 'observe sleep:0.03' | head -n 60) >sick.txt
is 'a sick instance in a healthy one'"'"'s place is never up' "$(grep -c '^0/3 drained down' sick.txt) $(grep -c '^0/3 .* up ' sick.txt)" '60 0'
fails 1 'nobody enters a place that is taken' 'has another instance' balance a enter:0:3:$NET.12:8000
ok 'and it goes' balance a leave:0:3
fails 1 'what was not entered is not routed' 'was not entered' balance a route:0:3:256

# --- a rollout under load, with a reload in its middle ---
rollout() { # name, reload command, old octets base, new octets base, version, old places base, new places base
    for i in 0 1 2; do
        service $(($4 + i)) "$5"
        balance "$1" "enter:0:$(($7 + i)):$NET.$(($4 + i)):8000" "up:0:$(($7 + i)):15" "route:0:$(($7 + i)):256" || return 1
        balance "$1" "drain:0:$(($6 + i))" || return 1
        [ $i -eq 1 ] && { $2 "$1" || return 1; }
        balance "$1" "empty:0:$(($6 + i)):15" "leave:0:$(($6 + i))" || return 1
        kill_service $(($3 + i))
    done
}
load roll.json $PORT --tunnel-seconds 2
sleep 1
ok 'a rollout goes through a reload by -sf' rollout a reload 11 21 v2 0 3
sleep 1
load_end
report roll.json rollout
is 'and no request is lost' "$(jq .lost roll.json)" 0
is 'each of the two versions answered' "$(jq -c '.by_version | keys' roll.json)" '["v1","v2"]'
is 'after it the old places are empty' "$(balance a observe | grep -c ^0/)" 3

# --- the other way to reload ---
configure m $((PORT + 1))
sed -i 's/ expose-fd listeners//' m.cfg
start_master m
ok 'a master and its worker take the same calls' balance m verify enter:0:3:$NET.21:8000 enter:0:4:$NET.22:8000 enter:0:5:$NET.23:8000 \
    up:0:3:15 up:0:4:15 up:0:5:15 route:0:3:256 route:0:4:256 route:0:5:256
load master.json $((PORT + 1)) --tunnel-seconds 2
sleep 1
ok 'a rollout goes through the reload of a master' rollout m reload_master 21 31 v3 3 0
sleep 1
load_end
report master.json 'rollout, master'
is 'and no request is lost, again' "$(jq .lost master.json)" 0

# --- a reload that forgets is told ---
sed -i '/load-server-state-from-file/d' m.cfg
balance m observe sleep:1.5 observe >forget.txt &
waiting=$!
sleep 0.3
reload_master m
wait $waiting
matches 'a reload that forgets is told' "$(grep ^answers forget.txt | tail -n 1)" "was reloaded and forgot"
is 'and what is left is told as it is' "$(grep -c ' in ' forget.txt)" 3

# --- one of two balancers ---
both="{\"sockets\": [\"$WORK/a.sock\", \"$WORK/b.sock\"], \"backend\": \"web\", \"state_files\": [\"$WORK/a.state\", \"$WORK/b.state\"], \"reload_grace\": \"2s\"}"
two() { "$tools/balance" haproxy "$both" "$SETTINGS" "$@"; }
configure b $((PORT + 2))
start b
ok 'two balancers: the first is emptied' balance a leave:0:3 leave:0:4 leave:0:5
ok 'two balancers take a change together' two enter:0:0:$NET.31:8000 up:0:0:15 route:0:0:100
is 'and agree' "$(two observe | head -n 2 | tail -n 1)" "0/0 in up weight 100 sessions 0 $NET.31:8000"
raw b 'set server web/web1 weight 7' >/dev/null
matches 'a difference between them is told' "$(two observe | head -n 1)" '^answers 0 reached 1 .*do not agree about place 0'
ok 'the same call again makes them agree' two route:0:0:100
matches 'and they answer' "$(two observe | head -n 1)" '^answers 1'
kill -STOP "$(cat b.pid)"
began=$(date +%s)
fails 1 'a silent balancer stops a change' 'does not answer within 2 seconds' two drain:0:0
matches 'and is told' "$(two observe | head -n 1)" '^answers 0 reached 0 .*does not answer within 2 seconds'
ok 'within its limits' [ $(($(date +%s) - began)) -le 6 ]
kill -CONT "$(cat b.pid)"
ok 'once it is back the call is made again' two drain:0:0 empty:0:0:5 leave:0:0

# --- blue and green ---
SETTINGS=places=3,strategy=bluegreen,http=/,interval=0.5,rise=2,fall=3
configure g $((PORT + 3))
start g
service 41 blue
service 42 green
ok 'blue/green has what it needs' balance g verify
matches 'no color yet' "$(balance g observe | head -n 1)" ' color -1 '
ok 'both colors are warm' balance g enter:0:0:$NET.41:8000 enter:1:0:$NET.42:8000 up:0:0:15 up:1:0:15 route:0:0:256 route:1:0:256 switch:0
load green.json $((PORT + 3)) --tunnel-seconds 1
sleep 1.5
before=$(date +%s%3N)
ok 'the switch' balance g switch:1
after=$(date +%s%3N)
sleep 1
load_end
report green.json blue/green
is 'loses no request' "$(jq .lost green.json)" 0
overlap=$(jq ".last_seen.blue - $before" green.json)
echo "# the last request that blue answered was sent $overlap ms after the command began; the command took $((after - before)) ms"
ok 'and is over within 500 ms' [ "$overlap" -le 500 ]
matches 'counters count' "$(balance g counters:0:0)" '^requests [1-9][0-9]* errors 0 time [1-9]'
reload g
sleep 0.3
matches 'a reload keeps the color' "$(balance g observe | head -n 1)" ' color 1 '
# --- the control: without draining, this test sees losses ---
service 43 control
ok 'the control has two instances' balance g enter:1:1:$NET.43:8000 up:1:1:15 route:1:1:256
load control.json $((PORT + 3))
sleep 1
kill_service 42
sleep 0.7
load_end
report control.json 'control, not drained'
ok 'without draining requests are lost' [ "$(jq .lost control.json)" -gt 0 ]

# --- clients that stay with their instance ---
SETTINGS=places=3,sticky=1,http=/,interval=0.5,rise=2,fall=3
configure s $((PORT + 4))
start s
service 51 one
service 52 two
service 53 three
page() { curl -s -b jar -c jar --max-time 3 "http://$NET.1:$((PORT + 4))/"; }
ok 'a sticky group has what it needs' balance s verify enter:0:0:$NET.51:8000 up:0:0:15 route:0:0:256
is 'a client gets a cookie' "$(page; grep -c KILN jar)" "version one
1"
ok 'its instance is drained' balance s enter:0:1:$NET.52:8000 up:0:1:15 route:0:1:256 drain:0:0
is 'and keeps it meanwhile' "$(page)" 'version one'
ok 'the place has a next tenant' balance s leave:0:0 enter:0:0:$NET.53:8000 up:0:0:15
is 'whom the former one'"'"'s clients do not reach' "$(page)" 'version two'

is 'HAProxy complains of nothing it should not' "$(grep -ciE 'segfault|bug|panic' haproxy.log)" 0
finish
