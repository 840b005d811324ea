#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two libvirt hosts, one group, `kiln deploy watch` running: libvirtd and all guests of one host are killed. When the host is back the group is whole again
# without a command. A rollout in whose middle a host is lost waits for it and goes on.
. "$(dirname "$0")/../lib.sh"
require libvirtd virtlogd virsh qemu-system-x86_64 unshare nsenter jq mkfs.ext4
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP two libvirtd need root"; exit 0; }
unshare -m -n true 2>/dev/null || { echo "1..0 # SKIP no namespaces can be made here"; exit 0; }
. "$TREE/tests/deploy/lib.sh"
images=$WORK/images
chmod 755 "$WORK"
export KILN_ACCEL=tcg
. "$TREE/tests/deploy/hosts.sh"

make_images || { result 1 'images to deploy'; finish; }
unshare -n sleep 900 &
network=$!
watcher=
tidy() {
    [ -z "$watcher" ] || kill "$watcher" 2>/dev/null
    power_off a
    power_off b
    kill "$network" 2>/dev/null
    cleanup
}
trap tidy EXIT
sleep 0.2
nsenter -t "$network" -n sh -c 'ip link set lo up'
ok 'a first libvirtd' host a - "$network" || finish
ok 'a second libvirtd' host b 16599 "$network" || finish

inside() { nsenter -t "$network" -n "$KILN" "$@"; }
libvirt_group() { # version, size
    cat >app.group.hcl <<EOT
group "app" {
  size  = $2
  image = "app:v$1"
  instance { memory = "64M" }
  driver "libvirt" {
    hosts     = ["qemu+unix:///system?socket=$WORK/a/run/libvirt-sock", "qemu+tcp://127.0.0.1:16599/system"]
    image_dir = "$images"
    pool      = "kiln-test"
    console   = "log"
  }
  health { start_timeout = "60s" }
  strategy "rolling" { max_surge = 1 }
  rollback { keep = "0s" }
  ephemeral = true
}
EOT
}
serving() { inside --json deploy status app 2>/dev/null | jq "[.instances[] | select(.life == \"running\" and .serving)] | length"; }
# Until the number of serving instances is $1, for at most $2 seconds.
until_serving() {
    tries=0
    until [ "$(serving)" = "$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt "$2" ] || return 1
        sleep 1
    done
}

libvirt_group 1 3
ok 'three instances on two hosts' inside deploy apply --wait app.group.hcl
is 'they serve' "$(serving)" 3
on_b=$(on b list --name | grep -c app-)
[ "$on_b" -ge 1 ] && [ "$on_b" -le 2 ]
result $? "the second host has $on_b of them"

(exec nsenter -t "$network" -n "$KILN" deploy watch) >watch.out 2>watch.err &
watcher=$!
sleep 2
power_off b
sleep 3
ok 'the second host comes back, with nothing' host b 16599 "$network"
ok 'the group is whole again without a command' until_serving 3 90 || explain watch.err
is 'no duplicates' "$({ on a list --name; on b list --name; } | grep -c app-)" 3

# --- in the middle of a rollout ---
kill "$watcher"
wait "$watcher" 2>/dev/null
watcher=
libvirt_group 2 3
(exec nsenter -t "$network" -n "$KILN" deploy apply --wait app.group.hcl) >apply.out 2>apply.err &
apply=$!
tries=0
until { on a list --name; on b list --name; } 2>/dev/null | grep -q 'app-r2-' || [ $tries -gt 200 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
power_off b
sleep 2
kill -0 $apply 2>/dev/null
result $? 'the rollout is not over without the host'
ok 'the host comes back' host b 16599 "$network"
wait $apply
result $? 'the rollout went on to its end' || explain apply.err
is 'three of the new one serve' "$(inside --json deploy status app | jq -r '[.image, .serving] | map(tostring) | join(" ")')" "$image2 3"
is 'and nothing else exists' "$({ on a list --name; on b list --name; } | grep -c app-)" 3
ok 'destroy' inside deploy destroy app
is 'nothing is left' "$({ on a list --name; on b list --name; } | grep -c app-)" 0
finish
