#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Images to registries and back: containers byte for byte, disks as their changes, with all that belongs to them.
. "$(dirname "$0")/../lib.sh"
require docker-registry skopeo jq python3 mke2fs debugfs curl qemu-img zstd
in_memory 700
. "$TREE/tests/registry/lib.sh"
KILN_STORE=$WORK/store
other() { KILN_STORE=$WORK/other "$KILN" "$@"; }
registry "$WORK/reg"
log() { grep -o '"[A-Z]* /v2[^"]*" [0-9]*' "$WORK/reg.log"; }

# --- containers ---
mkdir root
head -c 3000000 /dev/urandom >root/big
echo hello >root/hello
tar -C root -cf layer.tar .
oci_layout layout layer.tar >/dev/null
ok 'an image' kiln import layout box
ok 'is signed' sh -c "'$KILN' sign --generate key && '$KILN' sign --key key box"
ok 'it is pushed' kiln push box docker://$registry/team/box:1
manifest=$(jq -r '.manifests[0].digest' layout/index.json)
is 'skopeo sees the same manifest' "sha256:$(raw_digest docker://$registry/team/box:1)" "$manifest"
before=$(log | wc -l)
ok 'once more' kiln push box docker://$registry/team/box:1
is 'no layer is sent again' "$(log | tail -n +$((before + 1)) | grep -c PATCH)" 0
ok 'into another repository' kiln push box docker://$registry/other/box:1
matches 'its layer is mounted there' "$(log | grep -c 'mount=.* 201')" '^2$'
ok 'it is pulled' other pull docker://$registry/team/box:1
is 'as the same image' "$(other --json images | jq -r '.images[0].id')" "$(kiln --json images | jq -r '.images[0].id')"
ok 'with its signature' other verify-signature --key key.pub box
ok 'and is known by its manifest' other show "box@$manifest"
ok 'the first knows it by that too' kiln show "box@$manifest"
ok 'in docker'"'"'s own words' kiln push box docker://$registry/team/box:docker --format=docker
is 'those are another manifest' "$(skopeo inspect --raw --tls-verify=false docker://$registry/team/box:docker | jq -r .mediaType)" \
    application/vnd.docker.distribution.manifest.v2+json
ok 'of the same image' sh -c "'$KILN' --store '$WORK/third' pull docker://$registry/team/box:docker"
is 'tags' "$(kiln tags docker://$registry/team/box | grep -v sha256 | tr '\n' ' ')" '1 docker '
fails 1 'a tag that is not there' 'not there' kiln pull docker://$registry/team/box:nothing
fails 2 'no such place' 'names nothing in a registry' kiln pull docker://$registry/Team/box

# --- Packer's docker-push ---
cat >push.pkr.hcl <<END
source "oci" "base" { from = "image:box" }
build {
  name    = "pushed"
  sources = ["source.oci.base"]
  post-processors {
    post-processor "docker-tag" {
      repository = "$registry/packer/app"
      tags       = ["1.0", "new"]
    }
    post-processor "docker-push" {}
  }
  post-processor "docker-push" { only = ["oci.nobody"] }
}
END
ok 'a bake that may not' kiln bake --offline push.pkr.hcl
matches 'says so' "$(cat .err)" 'nothing is pushed'
fails 1 'and does not' 'not there' kiln tags docker://$registry/packer/app
ok 'one that may' kiln bake push.pkr.hcl
is 'pushes each of its tags' "$(kiln tags docker://$registry/packer/app | grep -v sha256 | tr '\n' ' ')" '1.0 new '
is 'to the same manifest' "sha256:$(raw_digest docker://$registry/packer/app:new)" "$manifest"
sed -i '/docker-tag/,/}/d' push.pkr.hcl
fails 1 'where to must be said' 'nothing says where to' kiln bake push.pkr.hcl

# --- copies ---
ok 'a copy to a folder' kiln copy docker://$registry/team/box:1 oci:copied:x
is 'has the manifest' "$(jq -r '.manifests[0].digest' copied/index.json)" "$manifest"
ok 'and its referrers' jq -e '.manifests[] | select(.artifactType == "application/vnd.kiln.signature.v1+json")' copied/index.json
ok 'from there to a registry' kiln copy oci:copied:x docker://$registry/third/box:y
is 'is the same' "sha256:$(raw_digest docker://$registry/third/box:y)" "$manifest"
ok 'with its signature' sh -c "'$KILN' --store '$WORK/fourth' pull docker://$registry/third/box:y && '$KILN' --store '$WORK/fourth' verify-signature --key key.pub box"
ok 'to an archive' kiln copy docker://$registry/team/box:1 oci-archive:copied.tar:x
is 'that skopeo reads' "sha256:$(skopeo inspect --raw oci-archive:copied.tar:x | sha256sum | cut -d' ' -f1)" "$manifest"
ok 'to docker'"'"'s archive' kiln copy oci-archive:copied.tar docker-archive:docker.tar
ok 'that skopeo reads too' skopeo inspect docker-archive:docker.tar
python3 - copied copied2 <<'END'
import hashlib, json, os, shutil, sys
shutil.copytree(*sys.argv[1:])
out = sys.argv[2]
top = json.load(open(out + "/index.json"))
entry = dict(top["manifests"][0]); entry.pop("annotations")
index = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
    dict(entry, platform={"os": "linux", "architecture": a}) for a in ("s390x", "amd64", "arm64")]}).encode()
name = hashlib.sha256(index).hexdigest()
open(f"{out}/blobs/sha256/{name}", "wb").write(index)
json.dump({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "sha256:" + name, "size": len(index)}]}, open(out + "/index.json", "w"))
END
ok 'an image of several machines' kiln copy oci:copied2 docker://$registry/team/many:1
is 'is copied whole' "$(skopeo inspect --raw --tls-verify=false docker://$registry/team/many:1 | jq '.manifests | length')" 3
ok 'and pulled for this one' sh -c "'$KILN' --store '$WORK/fourth' pull docker://$registry/team/many:1"
fails 1 'not for one that it does not know' 'no image for linux/riscv64' kiln pull docker://$registry/team/many:1 --arch=riscv64

# --- as a parent ---
cat >from.pkr.hcl <<END
source "oci" "box" { from = "docker://$registry/team/many:1" }
build { sources = ["source.oci.box"] }
END
ok 'a template starts from it' kiln plan from.pkr.hcl
matches 'and says so' "$(cat .out .err)" 'box'
fails 1 'offline it is what was asked before' 'offline' kiln --store "$WORK/fifth" plan --offline from.pkr.hcl

# --- as the base of Packer's docker source ---
docker() { # name, image, more lines
    printf 'source "docker" "box" {\n  image  = "%s"\n  commit = true\n%s\n}\nbuild { sources = ["source.docker.box"] }\n' "$2" "$3" >"$1.pkr.hcl"
}
asked() { log | grep -c 'manifests/1[" ]'; }
docker packer $registry/team/box:1 ''
docker kept $registry/team/box:1 'pull = false'
fails 1 'offline what was never asked is not known' "no --url-map docker://$registry/team/box:1=" kiln --store "$WORK/seventh" bake --offline kept.pkr.hcl
ok 'it pulls its image' kiln --store "$WORK/seventh" bake packer.pkr.hcl
ok 'with its files' sh -c "'$KILN' --store '$WORK/seventh' export --format=tar box out.tar && tar -xOf out.tar hello | grep -qx hello"
before=$(asked)
ok 'it asks each time' kiln --store "$WORK/seventh" plan packer.pkr.hcl
is 'whether the tag has moved' $(($(asked) - before)) 1
ok 'without pull' kiln --store "$WORK/seventh" plan kept.pkr.hcl
is 'what is known will do' $(($(asked) - before)) 1
ok 'with -pull=never' kiln --store "$WORK/seventh" plan -pull=never packer.pkr.hcl
is 'nothing is asked' $(($(asked) - before)) 1
ok 'with -pull=always' kiln --store "$WORK/seventh" plan -pull=always kept.pkr.hcl
is 'even what says that it need not be' $(($(asked) - before)) 2
fails 1 'never is never' '-pull=never forbids' kiln --store "$WORK/fifth" plan -pull=never from.pkr.hcl
fails 2 'always is not offline' '--offline forbids' kiln plan --offline -pull=always from.pkr.hcl
fails 2 'no other word' 'always, changed and never' kiln plan -pull=sometimes from.pkr.hcl

# --- disks ---
mkdir tree
seq 1 400000 >tree/numbers
head -c 6000000 /dev/urandom >tree/noise
mke2fs -q -t ext4 -b 4096 -d tree one.raw 48M 2>/dev/null
ok 'a disk' kiln import one.raw disk
id=$(kiln --json images disk | jq -r '.images[0].id')
ok 'is pushed' kiln push disk docker://$registry/team/disk:1
is 'as what it is' "$(skopeo inspect --raw --tls-verify=false docker://$registry/team/disk:1 | jq -r .artifactType)" application/vnd.kiln.disk.v1
ok 'and pulled' other pull docker://$registry/team/disk:1
is 'as the same image' "$(other --json images disk | jq -r '.images[0].id')" "$id"
ok 'byte for byte' sh -c "KILN_STORE='$WORK/other' '$KILN' export disk out.raw && cmp out.raw one.raw"
ok 'with its files' sh -c "KILN_STORE='$WORK/other' '$KILN' cat disk /numbers | cmp - tree/numbers"
skopeo inspect --raw --tls-verify=false docker://$registry/team/disk:1 | jq -c '.layers += [(.layers[0] | .mediaType = "application/vnd.kiln.segment.v1"),
    (.layers[0] | .mediaType = "application/vnd.kiln.segment.index.v1")]' >odd.json
curl -sf --noproxy '*' -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @odd.json http://$registry/v2/team/disk/manifests/odd
ok 'segments that the map does not name are left there' kiln --store "$WORK/odd" pull docker://$registry/team/disk:odd
cp one.raw two.raw
head -c 700000 /dev/urandom >more
debugfs -w -R 'write more more' two.raw 2>/dev/null >/dev/null
before=$(du -sb "$KILN_STORE/segments" | cut -f1)
ok 'the next night' kiln import two.raw disk
id2=$(kiln --json images disk | jq -r '.images[0].id')
limit=$(($(du -sb "$KILN_STORE/segments" | cut -f1) - before + 200000))
sent=$(kiln --json push disk docker://$registry/team/disk:2 2>/dev/null | jq .bytes)
ok "sends what changed: $sent of at most $limit" test "$sent" -gt 700000 -a "$sent" -lt "$limit"
pulled=$(other --json pull docker://$registry/team/disk:2 2>/dev/null)
ok 'and it alone is fetched' test "$(echo "$pulled" | jq .bytes)" -lt "$limit"
ok 'byte for byte' sh -c "KILN_STORE='$WORK/other' '$KILN' export disk out.raw && cmp out.raw two.raw"
ok 'the store is whole' other fsck --read-data

# --- a disk by its URL ---
mkdir web
cp one.raw web/disk.raw
touch -d '2 days ago' web/disk.raw
port=$(free_port)
python3 -m http.server --bind 127.0.0.1 --directory web "$port" >/dev/null 2>web.log &
servers="$servers $!"
wait_for "http://127.0.0.1:$port/"
printf 'source "disk" "d" {\n  from     = "http://127.0.0.1:%s/disk.raw"\n  checksum = "none"\n}\nbuild { sources = ["source.disk.d"] }\n' "$port" >url.pkr.hcl
answers() { grep -o '/disk.raw HTTP/1.1" [0-9]*' web.log | tail -n "$1" | cut -d' ' -f3 | tr '\n' ' '; }
ok 'a template by a URL' other plan url.pkr.hcl
ok 'again' other plan url.pkr.hcl
is 'it is fetched once' "$(answers 9)" '200 304 '
ok 'with -pull=always' other plan -pull=always url.pkr.hcl
is 'whatever its server says' "$(answers 9)" '200 304 200 '
cp two.raw web/disk.raw
touch -d yesterday web/disk.raw
ok 'with -pull=never' other plan -pull=never url.pkr.hcl
is 'it is not asked' "$(answers 9)" '200 304 200 '
matches 'and that is said' "$(cat .err)" "not asked for: 'http.*disk.raw' was fetched"
ok 'when it changes' other plan url.pkr.hcl
is 'it is fetched anew' "$(answers 1)" '200 '

kiln --store "$WORK/sixth" import one.raw base >/dev/null 2>&1
pulled=$(kiln --store "$WORK/sixth" --json pull docker://$registry/team/disk:2 2>/dev/null)
ok 'who has the blocks from elsewhere fetches no more' test "$(echo "$pulled" | jq .bytes)" -lt "$limit"
ok 'as a plain qcow2' kiln push disk docker://$registry/team/plain:1 --format=qcow2
matches 'that is one layer' "$(skopeo inspect --raw --tls-verify=false docker://$registry/team/plain:1 | jq -r '.layers[].mediaType')" '^application/vnd.qemu.qcow2$'
ok 'as raw.zst' kiln push disk docker://$registry/team/plain:2 --format=raw.zst
layer=$(skopeo inspect --raw --tls-verify=false docker://$registry/team/plain:2 | jq -r '.layers[0].digest')
ok 'which is the disk' sh -c "curl -s --noproxy '*' http://$registry/v2/team/plain/blobs/$layer | zstd -dc | cmp - two.raw"

plain() { kiln --store "$WORK/plain" "$@"; }
before=$(log | grep -c "blobs/$layer")
for form in 1 2; do
    ok "the plain form $form comes back as a disk" plain pull docker://$registry/team/plain:$form disk$form
    ok 'byte for byte' sh -c "'$KILN' --store '$WORK/plain' export disk$form out.raw && cmp out.raw two.raw"
    is 'as the image that it was' "$(plain --json images disk$form | jq -r '.images[0].id')" "$id2"
done
is 'its blob is fetched once' $(($(log | grep -c "blobs/$layer") - before)) 1
ok 'with its files' sh -c "'$KILN' --store '$WORK/plain' cat disk1 /numbers | cmp - tree/numbers"
matches 'known by its manifest' "$(plain show "disk1@sha256:$(raw_digest docker://$registry/team/plain:1)")" disk
# artifact TAG TITLE FILE [MEDIA-TYPE [CONFIG-TYPE]]: as oras or a hand pushes one
artifact() { python3 "$TREE/tests/registry/artifact.py" "http://$registry" team/artifact "$@"; }
zstd -q one.raw -o one.raw.zst
qemu-img convert -O qcow2 -c one.raw compressed.qcow2
artifact img disk.img one.raw
artifact zst 'cloud.amd64.IMG.zst' one.raw.zst
artifact type '' compressed.qcow2 application/x-qcow2
for tag in img zst type; do
    ok "what others push as a disk: $tag" plain pull docker://$registry/team/artifact:$tag other
    ok 'byte for byte' sh -c "'$KILN' --store '$WORK/plain' export other out.raw && cmp out.raw one.raw"
done
source() { printf 'source "disk" "d" {\n  from = "docker://%s"\n}\nbuild { sources = ["source.disk.d"] }\n' "$2" >"$1.pkr.hcl"; }
source artifact "$registry/team/artifact:zst"
ok 'a bake starts from it' plain plan artifact.pkr.hcl
ok 'offline from what is known' plain plan --offline artifact.pkr.hcl
source pinned "$registry/team/artifact@sha256:$(raw_digest docker://$registry/team/artifact:zst)"
ok 'or from its digest' plain plan -pull=never pinned.pkr.hcl
source chest "$registry/team/box:1"
fails 1 'not from a container' 'an oci source' plain plan chest.pkr.hcl
source kilns "$registry/team/disk:1"
fails 1 'a disk of kiln'"'"'s is an image' 'image:NAME' plain plan kilns.pkr.hcl
qemu-img create -q -f qcow2 -F raw -b "$PWD/one.raw" over.qcow2
artifact over x.qcow2 over.qcow2
fails 1 'a backing file is refused, also where an overlay could be meant' 'backing file' plain pull docker://$registry/team/artifact:over other
qemu-img create -q -f qcow2 -o data_file="$PWD/ext.raw" ext.qcow2 1M
artifact ext x.qcow2 ext.qcow2
fails 1 'so are data elsewhere' 'keeps its data in another file' plain pull docker://$registry/team/artifact:ext other
head -c 100000 /dev/urandom >noise
artifact noise x.raw noise
fails 1 'what is no disk' 'no disk image' plain pull docker://$registry/team/artifact:noise other
head -c 1000000 one.raw.zst >cut.zst
artifact cut x.raw.zst cut.zst
fails 1 'what is cut off' 'cut off' plain pull docker://$registry/team/artifact:cut other
gzip -c one.raw >one.gz
artifact gz x.raw.gz one.gz
fails 1 'what is packed otherwise' 'gzip' plain pull docker://$registry/team/artifact:gz other
artifact chart chart.tgz noise application/vnd.cncf.helm.chart.content.v1.tar+gzip
fails 1 'what says nothing of a disk is not even fetched' 'no layer of it says' plain pull docker://$registry/team/artifact:chart other
is 'nothing of all that was published' "$(plain --json images --all other | jq '.images | length')" 1
ok 'nor is it left' test -z "$(ls "$WORK/plain/cache/downloads")" -a -z "$(ls "$WORK/plain/tmp")"

# --- repairs ---
segment=$(find "$WORK/other/segments" -type f -size +1M | head -n 1)
python3 -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(500000); b = f.read(1); f.seek(500000); f.write(bytes([b[0] ^ 1]))' "$segment"
rm "$(find "$WORK/other/segments" -type f ! -path "$segment" | head -n 1)"
fails 1 'a damaged store' 'problem' other fsck --read-data
fails 1 'is not made good by an image that is not there' 'not there' other fsck --read-data --repair --from docker://$registry/team/disk:nothing
other fsck --read-data --repair --from docker://$registry/team/disk:2 >.repaired 2>&1 # the container's blocks are not in the disk
ok 'it is by images that are' other fsck --read-data --repair --from docker://$registry/team/box:1
matches 'which is said' "$(cat .repaired .out)" '^repaired: segments/'
ok 'byte for byte' sh -c "KILN_STORE='$WORK/other' '$KILN' export disk out.raw && cmp out.raw two.raw"

# --- what was deleted stays at home ---
mkdir secret
echo "the secret is $(printf sesame)-$(printf 4711)" >secret/key
head -c 200000 /dev/urandom >>secret/key
mke2fs -q -t ext4 -d secret s1.raw 16M 2>/dev/null
cp s1.raw s2.raw
debugfs -w -R 'rm key' s2.raw 2>/dev/null >/dev/null
python3 - s2.raw secret/key <<'END'
import sys
disk, key = bytearray(open(sys.argv[1], "rb").read()), open(sys.argv[2], "rb").read()
for at in range(0, len(key), 1024): # what a guest that trims leaves of it
    piece = key[at:at + 1024]
    place = disk.find(piece)
    if place >= 0:
        disk[place:place + len(piece)] = bytes(len(piece))
open(sys.argv[1], "wb").write(disk)
END
kiln import s1.raw hush >/dev/null 2>&1
kiln import s2.raw public >/dev/null 2>&1
fake "$WORK/fake"
ok 'a disk without the secret that its store still has' kiln push public docker://$fake/public:1
sent() {
    for blob in "$WORK"/fake/blobs/*; do
        { cat "$blob"; zstd -dcq "$blob" 2>/dev/null; } | grep -aq 'sesame-4711' && return 0
    done
    return 1
}
not_ok 'nothing of it was sent' sent
kiln push hush docker://$fake/hush:1 >/dev/null 2>&1
ok 'and it would have been found' sent

# --- layers that are kept out of registries ---
foreign() { # tag, more of the layer
    jq -c "(.layers[0].mediaType = \"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip\") | .layers[0] += $2" "layout/blobs/sha256/${manifest#sha256:}" >foreign.json
    curl -sf --noproxy '*' -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @foreign.json "http://$fake/v2/box/manifests/$1"
}
kiln push box docker://$fake/box:1 >/dev/null 2>&1
foreign here '{}'
ok 'one that is there all the same' sh -c "'$KILN' --store '$WORK/sixth' pull docker://$fake/box:here && '$KILN' --store '$WORK/sixth' cat box /hello | grep -qx hello"
foreign away '{"urls": ["https://example.invalid/layer"]}'
fails 1 'one that is elsewhere' "'docker://$fake/box:away' has a layer that its maker keeps out" kiln --store "$WORK/eighth" pull docker://$fake/box:away
ok 'a copy leaves it where it is' kiln copy docker://$fake/box:away oci:away:x

# --- who may ---
echo '{"auth": {"user": "ann", "password": "pass:word", "requests": 5}}' >"$WORK/fake/faults.json"
fails 1 'without a login' 'asks for a login' kiln pull docker://$fake/public:1 x
printf '{"auths": {"%s": {"auth": "%s"}}}' "$fake" "$(printf ann:wrong | base64)" >"$DOCKER_CONFIG/config.json"
fails 1 'with a wrong one' 'logging in' kiln pull docker://$fake/public:1 x
printf '{"auths": {"%s": {"auth": "%s"}}}' "$fake" "$(printf ann:pass:word | base64)" >"$DOCKER_CONFIG/config.json"
ok 'with the right one, by tokens that end on the way' kiln push box docker://$fake/private:1
mkdir bin
cat >bin/docker-credential-test <<'END'
#!/bin/sh
read -r server
echo "{\"ServerURL\": \"$server\", \"Username\": \"ann\", \"Secret\": \"pass:word\"}"
END
chmod +x bin/docker-credential-test
printf '{"credHelpers": {"%s": "test"}}' "$fake" >"$DOCKER_CONFIG/config.json"
ok 'by a helper' env PATH="$WORK/bin:$PATH" "$KILN" --store "$WORK/fourth" pull docker://$fake/private:1 private
echo '{"basic": "ann:pass:word"}' >"$WORK/fake/faults.json"
ok 'by basic authentication' env PATH="$WORK/bin:$PATH" "$KILN" --store "$WORK/fifth" pull docker://$fake/private:1 private
rm "$DOCKER_CONFIG/config.json"
docker nobody $fake/private:1 ''
docker ann $fake/private:1 "login = true
login_server = \"https://$fake/\"
login_username = \"ann\"
login_password = \"pass:word\""
fails 1 'a template without a login' 'asks for a login' kiln plan nobody.pkr.hcl
ok 'and one with it' kiln plan ann.pkr.hcl
rm "$WORK/fake/faults.json"
host=$(hostname)
fails 1 'plain HTTP is not spoken to others' 'connect' kiln pull docker://$host:1/x:1 x
printf '[[registry]]\nprefix = "example.invalid/team"\nlocation = "example.invalid/team"\n[[registry.mirror]]\nlocation = "%s/team"\n' "$registry" >"$CONTAINERS_REGISTRIES_CONF"
ok 'a mirror is asked first' sh -c "'$KILN' --store '$WORK/fourth' pull docker://example.invalid/team/box:1 mirrored"
finish
