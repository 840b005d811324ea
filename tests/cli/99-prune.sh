#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Old images go by rules, but for their records, and not while something needs their bytes: a group of instances, a channel, a keep.
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4
. "$TREE/tests/deploy/lib.sh"

night() { # number: an image of the name app; its ID is $nightN
    truncate -s 4M night.raw
    mkfs.ext4 -q -F -U "22222222-2222-2222-2222-2222222222$1" night.raw && kiln import night.raw app >ids 2>err || { explain err; return 1; }
    eval "night$1=$(id_of app disk <ids)"
}
# What prune says of an image.
why() { kiln --json prune --keep-last 1 --dry-run 2>/dev/null | jq -r --arg id "$1" '.images[] | select(.image == $id or .id == $id) | .why'; }
# A group that runs one image by its ID.
runs() { # image
    group 1 1
    sed -i "s/app:v1/$1/" app.group.hcl
}

for n in 10 11 12 13 14 15; do
    night $n || { result 1 'images'; finish; }
done
keep=30m
# shellcheck disable=SC2154 # night() sets them
{
    runs "$night10"
    ok 'an instance of the oldest' kiln deploy apply app.group.hcl
    runs "$night12"
    ok 'and then of a later one' kiln deploy apply app.group.hcl
    ok 'a channel' kiln promote "$night11" prod
    ok 'moves on' kiln promote "$night15" prod
    ok 'one is kept' kiln keep --reason 'the audit' "$night13"
    matches 'a group that may go back' "$(why "$night10")" "group 'app'"
    matches 'a group that runs it' "$(why "$night12")" "group 'app'"
    matches 'a channel that goes back' "$(why "$night11")" 'goes back'
    matches 'a keep, and its reason' "$(why "$night13")" 'the audit'
    matches 'no reason' "$(why "$night14")" 'no rule'
    matches 'a rule' "$(why "$night15")" 'keep-last'
    ok 'prune' kiln prune --keep-last 1
    ok 'gc' kiln gc --grace 0
    is 'one went' "$(kiln images --all app | grep -c 'record only')" 1
    fails 1 'which says so' 'only the record' kiln export "$night14" out.raw
    ok 'but is known' kiln show "$night14"
    ok 'the others come out' sh -c "for i in $night10 $night11 $night12 $night13 $night15; do '$KILN' --quiet export \$i out.raw || exit 1; done"
    ok 'the group grows' kiln deploy scale app 2
    is 'by another one' "$(status_of .serving)" 2
    ok 'a group ends' kiln deploy destroy app
    ok 'a keep as well' kiln keep --release "$night13"
    ok 'prune again' kiln prune --keep-last 1
    ok 'gc again' kiln gc --grace 0
    is 'what nothing holds any more went' "$(kiln images --all app | grep -c 'record only')" 4
    ok 'all is well' kiln fsck --read-data
}
finish
