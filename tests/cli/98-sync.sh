#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A store copied into another folder goes on there with a rollout that was cut short, and a promotion; lost databases come back.
. "$(dirname "$0")/../lib.sh"
require jq mkfs.ext4 sqlite3
. "$TREE/tests/deploy/lib.sh"
first=$KILN_STORE
copy=$WORK/elsewhere/copy

make_images || { result 1 'images to deploy'; finish; }
group 1 2
ok 'two instances of version 1' kiln deploy apply --wait app.group.hcl
group 2 2
KILN_TEST_KILL=7 kiln deploy apply --wait app.group.hcl >/dev/null 2>&1
is 'a rollout to version 2 is killed' $? 137
echo world >layer-file
cat >box.pkr.hcl <<'EOT'
source "oci" "from" { from = "scratch" }
build {
  name    = "box"
  sources = ["source.oci.from"]
  provisioner "file" {
    source      = "layer-file"
    destination = "/file"
  }
}
EOT
ok 'a container image, whose layer is a recipe' kiln bake box.pkr.hcl
kiln export box/oci box-before --format=oci-dir >/dev/null 2>&1

# What people see of a store, without when it was seen.
seen() { kiln --store "$1" --json images --all; kiln --store "$1" --json channels --history; kiln --store "$1" --json deploy history app; }
log_of() { sqlite3 "$1/state.db" "SELECT hex(hash) FROM channel_log ORDER BY number; SELECT hex(hash) FROM journal ORDER BY number"; }

# --- copying ---
fails 2 'all or nothing, yet' 'give --all' kiln sync "$copy"
ok 'a copy' kiln sync --all "$copy"
is 'says the same' "$(seen "$copy")" "$(seen "$first")"
is 'its logs have the same hashes' "$(log_of "$copy")" "$(log_of "$first")"
ok 'and is whole' kiln --store "$copy" fsck --read-data
is 'once more copies nothing' "$(kiln --json sync --all "$copy" 2>/dev/null | jq .bytes)" 0
fails 2 'not into itself' 'itself' kiln sync --all "$first"

# --- the first is gone ---
mv "$first" "$WORK/gone"
KILN_STORE=$copy
ok 'the rollout goes on in the copy' kiln deploy resume --wait app
is 'two of version 2' "$(status_of .image)" "$image2"
is 'they serve' "$(status_of .serving)" 2
ok 'a promotion in the copy' kiln promote app:v3 prod
group prod 2
sed -i 's/app:vprod/app:prod/' app.group.hcl
ok 'is rolled out' kiln deploy apply --wait app.group.hcl
is 'two of version 3' "$(status_of .image)" "$image3"
ok 'the chains are whole' kiln audit
before=$(seen "$copy")

# --- databases are lost ---
logs=$(log_of "$copy")
rm "$copy"/state.db* "$copy"/catalog.db*
fails 1 'without its databases it says what to do' 'kiln fsck --rebuild' kiln images
ok 'they are made again' kiln fsck --rebuild --read-data
matches 'which says what is lost' "$(cat "$WORK/.err")" 'bake cache'
is 'it says what it said' "$(seen "$copy")" "$before"
is 'the logs have the hashes that they had' "$(log_of "$copy")" "$logs"
kiln export box/oci box-after --format=oci-dir >/dev/null 2>&1
ok 'the layer is the same' diff -r box-before box-after
ok 'gc takes nothing of it' kiln gc --grace 0
ok 'nothing' kiln fsck --read-data
group 1 2
ok 'and the group rolls on' kiln deploy apply --wait app.group.hcl
is 'two of version 1' "$(status_of .image)" "$image1"

# --- back to where it was ---
fails 1 'the first one is no copy of the copy when it goes on' '' kiln --store "$WORK/gone" sync --all "$copy"
ok 'the copy comes home' kiln sync --all "$first"
is 'as it is' "$(seen "$first")" "$(seen "$copy")"
finish
