#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Instances that do not run their image never get traffic: wrong images, edited identities, exchanged and flipped files, KILN_TEST_CASES (200) of them through the
# controller. (tests/unit/test-driver-runc flips bits of real root file systems, hundreds more.)
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4
. "$TREE/tests/deploy/lib.sh"

make_images || { result 1 'images to deploy'; finish; }
cases=${KILN_TEST_CASES:-200}
start_timeout=4s
boot=0.5
group 1 2
ok 'version 1' kiln deploy apply --wait app.group.hcl
group 2 2 'strategy "rolling" {
    max_surge     = 1
    start_retries = 0
  }'

hex2=${image2#sha256:}

damage() { # kind: before or while the rollout runs
    case $1 in
    wrong) echo '{"wrong_image": [{"image": "'"$image2"'"}]}' >"$world/faults.json" ;;
    flipped) [ ! -f "$world/images/$hex2" ] || printf 'X' | dd of="$world/images/$hex2" bs=1 seek=$(($(od -An -N2 -tu2 /dev/urandom) % 20)) conv=notrunc status=none ;;
    exchanged) [ ! -f "$world/images/$hex2" ] || cp "$world/images/${image1#sha256:}" "$world/images/$hex2" ;;
    edited) # what is new, while it boots: an instance that serves already and is edited is drift
        ls "$world"/[ab]/app-r*.json >before 2>/dev/null
        (
        tries=0
        while [ $tries -lt 200 ]; do
            for f in "$world"/[ab]/app-r*.json; do
                grep -qxF "$f" before && continue
                jq -c '.id.image = "'"$image3"'"' "$f" >edit.tmp 2>/dev/null && mv edit.tmp "$f" && exit
            done
            sleep 0.01
            tries=$((tries + 1))
        done
    ) & ;;
    esac
}
bad=0
back=0
for n in $(seq "$cases"); do
    set -- wrong edited flipped exchanged
    shift $((n % 4))
    rm -f "$world/faults.json"
    damage "$1"
    kiln --json deploy apply --wait --retry app.group.hcl >out 2>err && done=yes || done=no
    wait
    rm -f "$world/faults.json"
    # Whoever has traffic now must be proven to run what its revision names, by what the host has.
    for entry in "$world"/entries/*.json; do
        [ -f "$entry" ] || continue
        [ "$(jq -r .route "$entry")" = in ] || continue
        address=$(jq -r .address "$entry" | cut -d: -f1)
        id=$(jq -r --arg a "$address" 'select(.address == $a) | .id.image' "$world"/a/app-*.json "$world"/b/app-*.json 2>/dev/null | sort -u)
        case $id in
        "$image1" | "$image2") ;;
        *) bad=$((bad + 1)); echo "# case $n ($1): '$id' has traffic at $address" ;;
        esac
    done
    [ $done = yes ] || back=$((back + 1))
    [ $done = no ] || { group 1 2; kiln deploy apply --wait --retry app.group.hcl >out 2>err || kiln deploy watch --once >out 2>err; group 2 2 'strategy "rolling" {
    max_surge     = 1
    start_retries = 0
  }'; }
done
is "$cases cases ($back went back, the others were made whole): wrong ones with traffic" $bad 0
[ $back -gt 0 ]
result $? 'some were refused'
ok 'the group is whole in the end' kiln deploy watch --once
is 'two serve' "$(status_of .serving)" 2
finish
