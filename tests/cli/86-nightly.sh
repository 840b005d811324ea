#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Images on top of images: batches in their order, channels, nights with and without news, what is outdated.
. "$(dirname "$0")/../lib.sh"
require python3 curl gpg dpkg-deb apt-get mmdebstrap qemu-system-x86_64
. "$TREE/tests/repo.sh"

repo_start
repo_key good
repo_add app 1
repo_add initramfs-extra 1
repo_publish

mkdir images
cat >images/all.pkr.hcl <<END
source "bootstrap" "base" { suite = "bookworm" }
source "disk" "on-base" { from = "image:night-base" }
source "disk" "on-broken" { from = "image:night-broken" }
source "oci" "alone" { from = "scratch" }

build {
  name    = "night-child"
  sources = ["source.disk.on-base"]
  provisioner "file" {
    content     = "a child\n"
    destination = "/etc/child"
  }
}
build {
  name    = "night-broken"
  sources = ["source.disk.on-base"]
  provisioner "shell" {
    inline = ["exit 3"]
  }
}
build {
  name    = "night-grandchild"
  sources = ["source.disk.on-broken"]
}
build {
  name    = "night-base"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = ["rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*", "echo 'deb $repo_url/main stable main' > /etc/apt/sources.list"]
  }
  provisioner "file" {
    source      = "../good.asc"
    destination = "/etc/apt/trusted.gpg.d/good.asc"
  }
  provisioner "packages" {
    install = ["app", "initramfs-extra"]
  }
  output "disk" {}
  output "oci" {
    cmd = ["/bin/true"]
  }
}
build {
  name    = "night-alone"
  sources = ["source.oci.alone"]
}
END

# ---- a batch ----

kiln plan -detailed-exitcode images >.plan 2>&1
is 'a plan of builds that need each other' "$?" 2
matches 'what waits for another build is told as that' "$(cat .plan)" 'night-child: would bake, after night-base'
fails 1 'a batch with one broken build' '2 of 5 bakes failed' kiln bake images
cp .out first.out
cp .err first.err
matches 'which one' "$(cat first.err)" 'night-broken: .*exited with 3'
matches 'who is skipped' "$(cat first.err)" "night-grandchild: skipped: it needs 'night-broken', which failed"
base=$(id_of night-base disk <first.out)
child=$(id_of night-child disk <first.out)
is 'the others are there' "$(awk '{ print $1, $2 }' first.out | sort | tr '\n' ';')" \
    'night-alone oci;night-base disk;night-base oci;night-child disk;night-child oci;'
kiln --json show night-base/disk >show.json
kept() { python3 -c 'import json, sys; print(*(n for n in sys.argv[1:] if not json.load(open("show.json"))["inputs"].get(n)))' "$@"; }
is 'a set keeps its template, lock and the files of its steps' "$(kept "$WORK/images/all.pkr.hcl" ../good.asc kiln.lock kiln.inputs)" ''
is 'a child has its own image' "$([ "$base" != "$child" ] && echo yes)" yes
ok 'the same batch again' sh -c "'$KILN' bake -except night-broken -except night-grandchild images"
is 'has nothing to do' "$(grep -c 'nothing to do' .err)" 3
is 'and the same IDs' "$(sort .out)" "$(sort first.out)"
ok 'the container of a child' kiln export night-child/oci child.tar
cat >circle.pkr.hcl <<'END'
source "disk" "a" { from = "image:circle-b" }
source "disk" "b" { from = "image:circle-a" }
build {
  name    = "circle-a"
  sources = ["source.disk.a"]
}
build {
  name    = "circle-b"
  sources = ["source.disk.b"]
}
END
fails 2 'builds in a circle' "needs itself" kiln bake circle.pkr.hcl

# ---- channels ----

fails 1 'a channel that nobody promoted to' "never promoted to channel 'prod'" kiln show night-base/disk:prod
ok 'promote' kiln promote night-base prod
is 'both kinds move' "$(grep -c 'night-base:prod' .out)" 2
is 'the channel is a reference' "$(kiln --json show night-base/disk:prod | grep -c "$base")" 1
fails 2 'no name of a channel' 'is no channel' kiln promote night-base 'Prod!'
fails 1 'what a channel points at stays' 'held by the channel' kiln rm "$base"

# ---- nights ----

cat >night.hcl <<'END'
variable "keep" { default = 2 }
image "night-base" {
  from    = "prod"
  upgrade = "all"
  to      = "prod"
  keep    = var.keep
  test {
    packages = ["app"]
  }
}
image "night-absent" {}
END
fails 1 'a night with an image that does not exist' "there is no image 'night-absent'" kiln nightly night.hcl
matches 'one table' "$(cat .out)" 'night-absent +failed'
matches 'nothing to patch: the same image' "$(cat .out)" "night-base +unchanged +disk +$base"
is 'and no appliance' "$(grep -c appliance .err)" 0
sed -i '/night-absent/d' night.hcl
ok 'nothing is outdated' sh -c "'$KILN' images --outdated | grep '^night-' >.late; ! [ -s .late ]"

repo_add app 2
repo_publish
kiln images --outdated >.late 2>.err
matches 'updates wait' "$(grep '^night-base .*disk' .late)" 'updates wait: .*app 1 -> 2'
matches 'also for the child' "$(grep '^night-child .*disk' .late)" 'app 1 -> 2'
is 'not for what has no packages' "$(grep -c '^night-alone' .late)" 0
ok 'a night with news' kiln --json nightly night.hcl
cp .out night.json
json() { python3 -c "import json,sys; d=json.load(open('night.json'))['images'][0]; print($1)"; }
is 'patched' "$(json 'd["state"], d["promoted"]')" 'patched True'
is 'which packages' "$(json '[(p["name"], p["from"], p["version"]) for p in d["packages"]]')" "[('app', '1', '2')]"
is 'both kinds again' "$(json 'sorted(i["kind"] for i in d["images"])')" "['disk', 'oci']"
patched=$(json '[i["id"] for i in d["images"] if i["kind"] == "disk"][0]')
is 'a patched set keeps its template' "$(kiln --json show "$patched" | grep -c '"kiln.template"')" 1
is 'the channel moved' "$(kiln --json show night-base/disk:prod | grep -c "$patched")" 1
is 'the log knows both' "$(kiln channels --history night-base | grep -c ' prod ')" 4
is 'nothing was booted for it' "$(grep -c 'boot test' .err)" 0
ok 'the night after' kiln nightly night.hcl
matches 'is quiet' "$(cat .out)" "unchanged +disk +$patched"

# ---- what is outdated ----

kiln images --outdated >.late 2>.err
matches 'the base of a child moved' "$(grep '^night-child .*disk' .late)" "its base 'night-base' moved"
is 'the base itself is up to date' "$(grep -c '^night-base' .late)" 0
ok 'bake --outdated' kiln bake --outdated -except night-broken -except night-grandchild images
is 'bakes the child alone' "$(awk '{ print $1 }' .out | sort -u)" night-child
ok 'then nothing is' sh -c "'$KILN' images --outdated | grep '^night-' >.late; ! [ -s .late ]"

# ---- what machines boot with ----

repo_add initramfs-extra 2
repo_publish
ok 'a night that changes what machines boot with' kiln nightly night.hcl
matches 'boots it first' "$(cat .err)" "'initramfs-extra' changed, which machines boot with"
matches 'and it came up' "$(cat .err)" 'boot test passed'
is 'keep = 2' "$(kiln images --all night-base | grep ' disk ' | grep -vc 'record only')" 2
cat >down.hcl <<'END'
image "night-base" {
  to = "prod"
  test {
    boot {
      console = "this is never shown"
      timeout = "5s"
    }
  }
}
END
repo_add app 3
repo_publish
before=$(kiln channels night-base | grep disk)
fails 1 'a boot test that fails' 'the console did not show' sh -c "'$KILN' nightly down.hcl >&2"
is 'the channel stands still' "$(kiln channels night-base | grep disk)" "$before"
is 'and nothing was published' "$(kiln images --all night-base | grep ' disk ' | grep -vc 'record only')" 2

# ---- revoked ----

ok 'revoke' kiln revoke --reason 'it leaks' night-base
fails 1 'a revoked image is not promoted' 'it leaks' kiln promote night-base other
fails 1 'and not baked from' 'was revoked: it leaks' kiln bake -only 'night-child.*' images
kiln images --outdated --offline >.late 2>.err
matches 'and is outdated' "$(grep '^night-base' .late)" 'revoked: it leaks'
matches 'so is what was baked from it' "$(grep '^night-child' .late)" 'moved|revoked'

# ---- nightly files with mistakes ----

mistake() { # description, fragment, lines
    what=$1
    fragment=$2
    shift 2
    printf '%s\n' "$@" >bad.hcl
    fails 2 "$what" "$fragment" kiln nightly bad.hcl
}
mistake 'no image' 'lists no image' 'locals { a = 1 }'
mistake 'an unknown argument' "has no argument 'fron'" 'image "night-base" {' '  fron = "prod"' '}'
mistake 'an upgrade that does not exist' 'upgrade' 'image "night-base" {' '  upgrade = "some"' '}'
mistake 'a wrong test' 'enabel' 'image "night-base" {' '  test {' '    enabel = ["x"]' '  }' '}'
mistake 'a wrong channel' 'is no channel' 'image "night-base" {' '  to = "Prod"' '}'
mistake 'an image twice' 'listed twice' 'image "night-base" {}' 'image "night-base" {}'
mistake 'no label' 'image "NAME"' 'image {}'
mistake 'no file of this language' 'bad.hcl:1' 'image "x" {'
fails 2 'a file that is not there' "'absent.hcl' cannot be read" kiln nightly absent.hcl

ok 'the store is whole' kiln fsck
finish
