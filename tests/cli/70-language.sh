#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The verbs that look at templates and bake nothing.
. "$(dirname "$0")/../lib.sh"

ok 'new writes a starter' kiln new starter
ok 'which validates' kiln validate starter
ok 'and is laid out as fmt does it' kiln fmt -check starter
fails 2 'new overwrites nothing' 'exists already' kiln new starter

printf 'a=1\nbbb = {\nc=2 # x\n   d  =  -3\n}\n' >x.pkrvars.hcl
kiln fmt -check x.pkrvars.hcl >out 2>&1
is 'fmt -check that finds work exits with 3' $? 3
is 'fmt - writes to standard output' "$(kiln fmt - <x.pkrvars.hcl | sed -n 3,4p)" '  c = 2 # x
  d = -3'
matches 'fmt -diff shows lines' "$(kiln fmt -diff -write=false x.pkrvars.hcl)" '^\+  d = -3$'
ok 'validate -syntax-only takes files of values' kiln validate -syntax-only x.pkrvars.hcl
fails 2 'and tells where syntax is wrong' ':1:5:' sh -c 'echo "x = " >bad.pkr.hcl; exec "$1" validate -syntax-only bad.pkr.hcl' sh "$KILN"
matches 'mistakes as JSON have places' "$(echo 'x = ' | kiln validate --json - 2>/dev/null)" '"byte": 4'

ok 'standard input is JSON behind a byte order mark too' sh -c 'printf "\357\273\277{\"variable\": {}}" | "$1" validate -syntax-only -' sh "$KILN"
matches 'a mistake in one file does not hide that of the next' "$(kiln validate none.pkr.hcl bad.pkr.hcl 2>&1)" 'bad.pkr.hcl:1:5:'

is 'console evaluates' "$(kiln console '1 + 2 * 3')" 7
is 'console reads variables of a template' "$(echo 'upper(var.size)' | kiln console starter)" 2G
matches 'inspect shows builds' "$(kiln inspect starter)" 'bootstrap\.debian'
matches 'template inputs names files' "$(kiln template inputs starter)" 'index\.html'

cat >data.pkr.hcl <<'END'
data "http" "page" {
  url = "http://example.invalid/page.json"
}
data "null" "twice" {
  input = "${jsondecode(data.http.page.body).name}!"
}
source "bootstrap" "x" {
  suite = "bookworm"
  size  = "2G"
}
build {
  sources = ["source.bootstrap.x"]
}
END
ok 'validate asks no data source' kiln validate data.pkr.hcl
matches 'template inputs names the page' "$(kiln template inputs data.pkr.hcl)" 'http://example.invalid/page.json'
cat >after.pkr.hcl <<'END'
source "null" "x" {
  communicator = "none"
}
build {
  sources = ["source.null.x"]
  post-processor "shell-local" {
    scripts = ["after.sh"]
    inputs  = ["list.txt"]
    outputs = ["made.txt"]
  }
  post-processors {
    post-processor "artifice" { files = ["made.txt"] }
    post-processor "compress" { output = "made.tar" }
  }
}
END
kiln template inputs after.pkr.hcl >after.json
matches "and a post-processor's script" "$(cat after.json)" '/after\.sh"'
matches 'and what it says that it reads' "$(cat after.json)" '/list\.txt"'
is 'and nothing that it makes' "$(grep -c 'made\.' after.json)" 0
mkdir pages
echo '{"name": "x"}' >pages/page.json
ok 'unless it is told to' kiln --url-map http://example.invalid/=pages validate -evaluate-datasources data.pkr.hcl
echo '{}' >pages/page.json
fails 2 'and then sees what is wrong' 'no attribute' kiln --url-map http://example.invalid/=pages validate -evaluate-datasources data.pkr.hcl

cat >plugins.pkr.hcl <<'END'
packer {
  required_version = ">= 1.7.0"
  required_plugins {
    qemu = {
      version = ">= 1.0.0"
      source  = "github.com/hashicorp/qemu"
    }
  }
}
END
matches 'init says what stands in for a plugin' "$(kiln init plugins.pkr.hcl)" 'qemu.*disk'
sed 's/>= 1.7.0/> 99.0/' plugins.pkr.hcl >newer.pkr.hcl
fails 2 'a template of a newer Packer is refused' 'wants Packer > 99.0' kiln init newer.pkr.hcl
for wanted in '= 1.11.1' '~> 1.9.0' '< 1.12, > 1.7' '!= 1.16.0'; do
    sed "s/> 99.0/$wanted/" newer.pkr.hcl >older.pkr.hcl
    ok "one of an older one is not: $wanted" kiln init older.pkr.hcl
done
sed 's/> 99.0/>= 1.17, < 2/' newer.pkr.hcl >older.pkr.hcl
fails 2 'one of the next is' 'wants Packer >= 1.17, < 2' kiln init older.pkr.hcl
sed 's/> 99.0/= 1.2, = 1.3/' newer.pkr.hcl >older.pkr.hcl
fails 2 'one of none is' 'wants Packer = 1.2, = 1.3' kiln init older.pkr.hcl

# Types that only a plugin of Packer has are refused by the plugin's name, all at once; -only leaves them out.
cat plugins.pkr.hcl - >types.pkr.hcl <<'END'
source "qemu-like" "a" {}
source "proxmox-iso" "a" {}
source "bootstrap" "Big" {
  suite = "bookworm"
  size  = "2G"
}
build {
  name    = "b"
  sources = ["qemu-like.a", "proxmox-iso.a", "bootstrap.Big"]
  provisioner "windows-update" {
    only = ["proxmox-iso.a"]
  }
}
END
sed -i 's/^    qemu = {/    qemu-like = {/' types.pkr.hcl
kiln validate types.pkr.hcl >out 2>&1
is 'a template with types of plugins is refused' $? 2
matches 'with the plugin that required_plugins names' "$(cat out)" 'source "qemu-like" is of Packer.s plugin github.com/hashicorp/qemu,'
matches 'or that is known for the type' "$(cat out)" 'source "proxmox-iso" is of Packer.s plugin github.com/hashicorp/proxmox,'
matches 'and all of them at once' "$(cat out)" 'provisioner "windows-update" cannot be baked: it works on Windows'
is 'each as a diagnostic of its own' "$(kiln validate --json types.pkr.hcl 2>/dev/null | jq .error_count)" 3
ok '-except leaves out what it names' kiln validate -except=b.qemu-like.a,b.proxmox-iso.a types.pkr.hcl
matches 'names become names of images' "$(kiln inspect types.pkr.hcl)" '> b\.big:'
finish
