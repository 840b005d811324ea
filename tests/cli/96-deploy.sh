#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Groups from plan to destroy, on instances and a balancer that need no machine: what is printed, what exists, what comes back after a kill.
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4
. "$TREE/tests/deploy/lib.sh"

make_images || { result 1 'images to deploy'; finish; }

# --- plan and apply ---
group 1 3
fails 2 'a file that does not exist is one sentence' 'no file' kiln deploy plan nosuch.group.hcl
ok 'plan' kiln deploy plan app.group.hcl
matches 'the plan names the image' "$(cat "$WORK/.out")" "$image1"
matches 'the plan creates all three' "$(cat "$WORK/.out")" 'create app-r1-2-a1'
hash=$(sed -n 's/^ *hash //p' "$WORK/.out")
is 'the same plan has the same hash' "$(kiln deploy plan app.group.hcl | sed -n 's/^ *hash //p')" "$hash"
kiln deploy plan -detailed-exitcode app.group.hcl >/dev/null 2>&1
is 'there is something to do' $? 2
is 'planning made nothing' "$(instances)" ''
ok 'apply what was planned' kiln deploy apply --approve "$hash" --wait --reason first app.group.hcl
is 'three instances' "$(instances)" 'app-r1-0-a1 app-r1-1-a1 app-r1-2-a1'
is 'they serve' "$(status_of .serving)" 3
is 'with their image' "$(status_of .image)" "$image1"
kiln deploy plan -detailed-exitcode app.group.hcl >/dev/null 2>&1
is 'nothing is left to do' $? 0
matches 'every step was as planned' "$(kiln deploy history app)" 'stable, every step as planned'

# --- rolling to version 2 ---
group 2 3
fails 1 'another world, another plan' 'has changed' kiln deploy apply --approve "$hash" app.group.hcl
ok 'rolling to version 2' kiln deploy apply --wait app.group.hcl
is 'three new ones' "$(instances)" 'app-r2-0-a1 app-r2-1-a1 app-r2-2-a1'
matches 'as planned' "$(kiln deploy history app)" 'revision 2 is stable, every step as planned'

# --- a broken version goes back ---
group 3 3
echo '{"boot_fails": [{"revision": 3}]}' >"$world/faults.json"
fails 1 'a version that does not boot' '' kiln deploy apply --wait app.group.hcl
is 'the old ones serve' "$(status_of .serving)" 3
is 'nothing of it is left' "$(instances)" 'app-r2-0-a1 app-r2-1-a1 app-r2-2-a1'
fails 1 'it is not tried again by itself' 'rolled back' kiln deploy apply app.group.hcl
rm "$world/faults.json"
ok 'with --retry it is' kiln deploy apply --wait --retry app.group.hcl
is 'version 3 serves' "$(status_of .image)" "$image3"

# --- watch heals ---
echo '{"dies": ["app-r4-1-a1"]}' >"$world/faults.json"
ok 'watch --once' kiln deploy watch --once
is 'the dead one is replaced by its own image' "$(instances)" 'app-r4-0-a1 app-r4-1-a2 app-r4-2-a1'
rm "$world/faults.json"

# --- scale, rollback, bad words ---
ok 'scale up' kiln deploy scale app 5
is 'five serve' "$(status_of .serving)" 5
ok 'scale down' kiln deploy scale app 2
is 'two are left' "$(instances | wc -w)" 2
fails 2 'a size that is none' 'no size' kiln deploy scale app many
ok 'rollback' kiln deploy rollback app
is 'version 2 serves again' "$(status_of .image)" "$image2"
fails 1 'a group that is none' "no group 'nosuch'" kiln deploy status nosuch

# --- blue/green ---
group 1 2 'strategy "bluegreen" {}'
fails 2 'another strategy behind the same balancer' 'destroy' kiln deploy plan app.group.hcl
ok 'destroy' kiln deploy destroy app
is 'nothing is left' "$(instances)" ''
keep=60s
group 1 2 'strategy "bluegreen" {}'
ok 'blue' kiln deploy apply app.group.hcl
group 2 2 'strategy "bluegreen" {}'
ok 'resume passes no hold' kiln deploy apply app.group.hcl
finish
