#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `kiln verify IMAGE-ID`: a stored image is rebuilt from what its set recorded, its template, files, variables and source gone from where they were.
. "$(dirname "$0")/../lib.sh"
. "$TREE/tests/root.sh"
require python3 jq ldd bash
KILN_STORE=$WORK/store

small_root sh bash cat head od mkdir chmod
mkdir -p t/files
echo uploaded >t/files/page
echo 'echo "from a script" > /script' >t/run.sh
cat >t/web.pkr.hcl <<'END'
variable "word" { default = "nothing" }
variable "list" {
  type    = list(string)
  default = []
}
variable "other" { default = "as it was" }
variable "hidden" {
  type      = string
  sensitive = true
}
source "oci" "root" { from = "oci:../parent:v1" }
build {
  name    = "web"
  sources = ["source.oci.root"]
  provisioner "file" {
    source      = "files/page"
    destination = "/page"
  }
  provisioner "shell" { script = "${path.root}/run.sh" }
  provisioner "shell" {
    name   = "words"
    inline = ["echo '${var.word} ${join(",", var.list)} ${var.other} ${length(var.hidden)} ${file("files/page")}' > /words"]
  }
}
END
echo 'list = ["a", "b"]' >values.pkrvars.hcl

ok 'it bakes' env PKR_VAR_other=around "$KILN" bake -var word=hello -var-file values.pkrvars.hcl -var hidden=hush t/web.pkr.hcl
id=$(awk '{print $3}' .out)
mv t values.pkrvars.hcl "$WORK/root/"
grep -rqs hush "$KILN_STORE/blobs"
is 'the sensitive value is not kept' $? 1
fails 2 'it has to be given again' 'sensitive, so its value was not kept; give it again with -var hidden=VALUE' kiln verify "$id"
ok 'rebuilt from what was recorded' env PKR_VAR_word=wrong "$KILN" verify -var hidden=hush "$id"
is 'it is equal' "$(cat .out)" "web oci equal $id"
ok 'a name will do' kiln verify --json -var hidden=husk web
is 'and is equal again' "$(jq -r '.images[0].verdict' .out)" equal
not_ok 'another value' kiln verify -var hidden=longer web
matches 'is a difference with path, step and bytes' "$(cat .out)" '/words: content, by step 3 words'
is 'nothing was published' "$(kiln images --json | jq '.images | length')" 1

cat >bad.pkr.hcl <<'END'
source "oci" "root" { from = "oci:parent:v1" }
build {
  name    = "bad"
  sources = ["source.oci.root"]
  provisioner "shell" { inline = ["head -c 8 /dev/urandom | od -An -tx1 > /random"] }
}
END
ok 'one that is not reproducible' kiln bake bad.pkr.hcl
not_ok 'is told' kiln verify bad
matches 'by its path' "$(cat .out)" '/random: content, by step 1 shell'
is 'and leaves no process' "$(left_behind "$KILN_STORE")" ''
ok 'the store is whole' kiln fsck
finish
