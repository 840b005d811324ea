#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A patch night on a root of some 600 MB: one package of 5 MB is replaced. One layer of the container is new, and holds what changed; disk and store take little more.
. "$(dirname "$0")/../lib.sh"
require python3 curl gpg dpkg-deb apt-get mmdebstrap qemu-system-x86_64 jq gzip skopeo
. "$TREE/tests/repo.sh"
KILN_STORE=$WORK/store

app() { # version
    rm -rf debs/app
    mkdir -p debs/app/usr/lib/app
    i=0
    while [ $i -lt 20 ]; do
        # Text that compresses to a half, as programs do.
        head -c 190K /dev/urandom | base64 >debs/app/usr/lib/app/part-$i
        i=$((i + 1))
    done
    repo_add app "$1"
}

repo_start
repo_key good
app 1
repo_publish
cat >patch.pkr.hcl <<END
source "bootstrap" "base" {
  suite = "bookworm"
  size  = "3G"
}
build {
  name    = "patch"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = [
      "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*", "echo 'deb $repo_url/main stable main' > /etc/apt/sources.list",
      "mkdir -p /srv/data && for i in \$(seq 25); do head -c 7500000 /dev/urandom | base64 > /srv/data/\$i; done",
    ]
  }
  provisioner "file" {
    source      = "good.asc"
    destination = "/etc/apt/trusted.gpg.d/good.asc"
  }
  provisioner "packages" {
    install = ["app"]
  }
  output "disk" {}
  output "oci" { cmd = ["/bin/true"] }
}
END
printf 'image "patch" {\n  upgrade = "all"\n}\n' >night.nightly.hcl

# What a layer holds, by digest, and how large it is.
layers() { skopeo inspect --raw "oci:$1:$(jq -r '.manifests[0].annotations["org.opencontainers.image.ref.name"]' "$1/index.json")" | jq -r '.layers[] | .digest + " " + (.size | tostring)'; }
export_layers() { kiln --quiet export patch/oci "$1" --format=oci-dir && layers "$1" >"$1.layers" && [ -s "$1.layers" ]; }

ok 'the first image' kiln bake patch.pkr.hcl || finish
content=$(kiln files patch/disk / | awk '$1 ~ /^-/ { sum += $4 } END { print sum }')
is "a root of $((content / 1000000)) MB" "$((content > 550000000))" 1
kiln files --json patch/disk / >first.files
ok 'its layers' export_layers first
ok 'a night without news' kiln nightly night.nightly.hcl
matches 'changes nothing' "$(cat .out)" 'unchanged'

app 2
repo_drop app 1
repo_publish
ok 'a night with one new package' kiln --json nightly night.nightly.hcl
is 'is patched' "$(jq -r '.images[0].state' .out)" patched
took=$(for kind in disk oci; do kiln --json show patch/$kind | jq .new_bytes; done | awk '{ sum += $1 } END { print sum }')
ok 'its layers, too' export_layers second
new=$(grep -vxFf first.layers second.layers)
is 'every layer of before is there' "$(grep -cxFf second.layers first.layers)" "$(wc -l <first.layers)"
is 'and one more' "$(grep -vcxFf first.layers second.layers)" 1

# The contents that changed, alone, compressed file by file by gzip's best.
mkdir both
kiln --json diff "$(kiln --json images --all patch | jq -r '[.images[] | select(.kind == "oci")] | sort_by(.created) | .[-2].id')" patch/oci >diff.json
jq -r '.. | objects | select(has("path") and (.change // .what) != "removed") | .path' diff.json | sort -u >changed
while read -r path; do
    kiln cat patch/oci "$path" 2>/dev/null | gzip -9 | wc -c
done <changed | awk '{ sum += $1 } END { print sum + 0 }' >compressed
compressed=$(cat compressed)
size=${new##* }
echo "# $(wc -l <changed) paths changed, $compressed bytes when compressed; layer $size, disk and container in the store $took"
is 'the layer is at most 1.25 x the compressed changed content' "$((size * 100 <= compressed * 125))" 1
is 'disk and container together take at most that and 200 KB of the store' "$((took <= compressed * 125 / 100 + 200000))" 1
finish
