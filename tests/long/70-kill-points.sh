#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The controller is killed at every point at which a crash could leave something half done: after each record and between a record and what
# it announces. Each time the next run must end, within 2 seconds, in the state of the run that was not killed. KILN_TEST_POINTS bounds the points per strategy.
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4 python3
. "$TREE/tests/deploy/lib.sh"

make_images || { result 1 'images to deploy'; finish; }
limit=${KILN_TEST_POINTS:-100000}
total=0

save() { rm -rf "$1"; mkdir "$1"; cp -a store world "$1/"; }
restore() { rm -rf store world; cp -a "$1/store" "$1/world" .; }
now_ms() { date +%s%3N; }

# The end as far as it must be equal: instances, what serves, revision, phase, and the balancer's entries.
final() {
    instances
    status_of '[.revision, .target, .phase, .serving, .existing, .image] | map(tostring) | join(" ")'
    (cd world/entries && for f in *.json; do [ -f "$f" ] && echo "$f $(jq -c '[.address != null, .route]' "$f")"; done)
}

points() { # title, expected exit of the uncrashed run
    title=$1
    save before
    kiln deploy apply --wait app.group.hcl >out 2>err
    got=$?
    [ $got -eq "$2" ]
    result $? "$title: without a kill it ends with $2" || explain err
    final >expected
    n=1
    bad=0
    slowest=0
    while [ $n -le "$limit" ]; do
        restore before
        KILN_TEST_KILL=$n kiln deploy apply --wait app.group.hcl >out 2>err
        [ $? -eq 137 ] || break
        start=$(now_ms)
        kiln deploy resume --wait app >out 2>err
        took=$(($(now_ms) - start))
        [ $took -le $slowest ] || slowest=$took
        # Killed before anything was asked for: then nothing happens, and asking again does it.
        final >after
        if ! cmp -s after expected; then
            kiln deploy apply --wait --retry app.group.hcl >out 2>err
            final >after
            cmp -s after expected || { bad=$((bad + 1)); echo "# $title, point $n: the end differs"; diff expected after | sed 's/^/# /'; explain err 5; }
        fi
        n=$((n + 1))
    done
    total=$((total + n - 1))
    is "$title: $((n - 1)) points, all end alike" "$bad" 0
    [ $slowest -le 2000 ]
    result $? "$title: the slowest resume took $slowest ms"
    restore before
    kiln deploy apply --wait app.group.hcl >out 2>err
}

keep=0s
group 1 6 'strategy "rolling" {
    max_surge = 2
  }'
points 'first rollout' 0
group 2 6 'strategy "rolling" {
    max_surge       = 2
    max_unavailable = 1
  }'
points 'rolling' 0
group 1 6 'strategy "canary" {
    steps     = [20, 50, 100]
    hold      = "0s"
    max_surge = 2
  }'
points 'canary' 0
group 3 6 'strategy "rolling" {
    max_surge     = 2
    start_retries = 0
  }'
echo '{"boot_fails": [{"image": "'"$image3"'"}]}' >world/faults.json
points 'rolling that goes back' 1
rm -f world/faults.json
kiln deploy destroy app >out 2>err
group 1 4 'strategy "bluegreen" {}'
kiln deploy apply --wait app.group.hcl >out 2>err
group 2 4 'strategy "bluegreen" {}'
points 'blue/green' 0
[ $total -ge 300 ] || [ "$limit" -lt 1000 ]
result $? "$total kill points in all"
kiln audit >/dev/null 2>err
result $? 'every chain is whole' || explain err
finish
