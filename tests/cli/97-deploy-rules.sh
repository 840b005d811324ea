#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What groups refuse and whom they obey: one controller, approvals, revocations, failed versions, canaries that are judged, drift, the audit.
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4 setpriv
. "$TREE/tests/deploy/lib.sh"

make_images || { result 1 'images to deploy'; finish; }
canary='strategy "canary" {
    steps     = [50, 100]
    hold      = "0s"
    max_surge = 2
    analysis "balancer" {
      interval = "1s"
      samples  = 5
    }
  }'

# --- a canary that is worse goes back, one that is as good goes on ---
group 1 2 "$canary"
ok 'version 1' kiln deploy apply --wait app.group.hcl
group 2 2 "$canary"
echo '{"r1": {"rate": 500, "error_share": 0.001, "mean_ms": 20}, "r2": {"rate": 500, "error_share": 0.2, "mean_ms": 20}}' >"$world/counters.json"
fails 1 'a canary with errors goes back' '' kiln deploy apply --wait app.group.hcl
matches 'the history says why' "$(kiln deploy history app)" 'failed revision 2.*errors'
is 'version 1 serves' "$(status_of '[.image, .serving] | map(tostring) | join(" ")')" "$image1 2"
echo '{"r1": {"rate": 500, "error_share": 0.01, "mean_ms": 20}, "r3": {"rate": 500, "error_share": 0.01, "mean_ms": 20}}' >"$world/counters.json"
ok 'tried again it is as good' kiln deploy apply --wait --retry app.group.hcl
is 'version 2 serves' "$(status_of '[.image, .serving] | map(tostring) | join(" ")')" "$image2 2"

# --- a gate, a pause, words from another process ---
gated='strategy "canary" {
    steps     = [50, 100]
    hold      = "0s"
    max_surge = 1
    gate      = "manual"
  }'
group 3 2 "$gated"
ok 'apply ends at the gate' kiln deploy apply app.group.hcl
matches 'it waits there' "$(kiln deploy status app)" 'phase|watch'
is 'half of it is new' "$(kiln --json deploy status app | jq '[.instances[] | select(.revision == 4 and .serving)] | length')" 1
ok 'continue' kiln deploy continue app
is 'version 3 serves' "$(status_of .image)" "$image3"
group 1 2 "$gated"
ok 'another rollout to its gate' kiln deploy apply app.group.hcl
ok 'abort goes back' kiln deploy abort app
is 'version 3 serves still' "$(status_of '[.image, .serving] | map(tostring) | join(" ")')" "$image3 2"

# --- one controller ---
boot=3
group 1 2
kiln deploy apply --wait --retry app.group.hcl >first.out 2>first.err &
first=$!
sleep 1.5
fails 1 'a second controller is refused' 'being worked on by process' kiln deploy apply app.group.hcl
ok 'a word reaches the first' kiln deploy abort --reason 'no more' app
wait $first
is 'the first one went back' $? 1
is 'version 3 serves after all' "$(status_of '[.image, .serving] | map(tostring) | join(" ")')" "$image3 2"
boot=0

# --- revocation ---
ok 'what a revocation would touch' kiln revoke --dry-run --reason 'a hole' app:v1
matches 'it names the channel' "$(cat "$WORK/.out")" 'v1'
ok 'revoke' kiln revoke --reason 'a hole' app:v1
fails 1 'a revoked image is not rolled out' 'revoked' kiln deploy apply --retry app.group.hcl
ok 'revoke what serves' kiln revoke --reason 'another hole' app:v3
echo '{"dies": ["'"$(instances | cut -d' ' -f1)"'"]}' >"$world/faults.json"
ok 'it is healed all the same' kiln deploy watch --once
is 'two serve' "$(status_of .serving)" 2
rm -f "$world/faults.json"
fails 1 'no rollback to a revoked one' 'revoked' kiln deploy rollback --to 1 app
ok 'but for a reason' kiln deploy rollback --to 1 --allow-revoked 'the lesser evil' app
is 'version 1 serves' "$(status_of .image)" "$image1"

# --- another person approves ---
group 2 2 '' 'approval = "another person"'
hash=$(kiln deploy plan --retry app.group.hcl | sed -n 's/^ *hash //p')
fails 1 'nobody approved' "another person's approval" kiln deploy apply --retry --approve "$hash" app.group.hcl
ok 'who applies approves' kiln deploy approve app "$hash"
fails 1 'who applies does not count' "another person's approval" kiln deploy apply --retry --approve "$hash" app.group.hcl
chmod -R a+rwX store world . 2>/dev/null
ok 'somebody else approves' setpriv --reuid=65534 --regid=65534 --clear-groups "$KILN" --store "$WORK/store" deploy approve app "$hash"
ok 'then it is done' kiln deploy apply --wait --retry --approve "$hash" --reason 'the fix' --on-behalf-of ticket-7 app.group.hcl
audit=$(kiln --json audit --group app)
is 'the audit has it all' "$(printf '%s' "$audit" | jq -c --arg h "$hash" '[.. | objects | select(.plan? == $h)][-1] | [.reason, .on_behalf_of, .approver != null]')" '["the fix","ticket-7",true]'

# --- drift ---
ok 'no drift' kiln deploy drift -detailed-exitcode app
file=$(find world -name 'app-r*.json' -path '*/a/*' | head -n 1)
jq '.id.image = "'"$image3"'"' "$file" >edited && cp edited "$file"
kiln deploy drift -detailed-exitcode app >drift.out 2>&1
is 'an edited instance is drift' $? 2
matches 'it is named' "$(cat drift.out)" "$(basename "$file" .json)"
ok 'watch replaces it: it is not proven to run its image' kiln deploy watch --once
is 'two serve again' "$(status_of .serving)" 2
rm "$(find world/a world/b -name 'app-r*.json' | head -n 1)"
matches 'a missing one is drift' "$(kiln deploy drift app)" 'missing|gone'
ok 'watch makes it anew' kiln deploy watch --once
is 'and two serve' "$(status_of .serving)" 2

# --- hosts and balancers that do not answer ---
echo '{"host_silent": ["b"]}' >"$world/faults.json"
group 2 3
fails 1 'a silent host' "does not answer" kiln deploy plan app.group.hcl
ok 'unless it may be left out' kiln deploy plan --without-silent-hosts app.group.hcl
rm -f "$world/faults.json"
: >"$world/lost"
fails 1 'a silent balancer' 'balancer' kiln deploy plan app.group.hcl
rm -f "$world/lost"
places=3
group 2 3
fails 1 'too few places' 'places' kiln deploy plan app.group.hcl
places=64

# --- a group that ends and comes again while it is watched ---
(exec "$KILN" deploy watch) >watch.out 2>watch.err &
watcher=$!
sleep 1
ok 'the watcher destroys it when told' kiln deploy destroy app
until_true() { # tries of 0.1 s, command...
    tries=$1
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}
gone() { [ -z "$(instances)" ]; }
until_true 100 gone
result $? 'it is gone'
group 2 2
ok 'deployed again' until_true 20 kiln deploy apply --wait --retry app.group.hcl
dead=$(instances | cut -d' ' -f1)
echo '{"dies": ["'"$dead"'"]}' >"$world/faults.json"
healed() { [ "$(instances | wc -w)" = 2 ] && ! instances | grep -qw "$dead"; }
until_true 150 healed
result $? 'it is watched again' || explain watch.err
kill $watcher
wait $watcher
rm -f "$world/faults.json"

# --- the end ---
group 2 2
ok 'destroy' kiln deploy destroy app
is 'nothing is left' "$(instances)" ''
ok 'every chain is whole' kiln audit
finish
