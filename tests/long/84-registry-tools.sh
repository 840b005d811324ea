#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Images between kiln and the tools that others use, by a registry and by layouts, in both directions: equal digests, equal files.
. "$(dirname "$0")/../lib.sh"
require docker-registry skopeo umoci jq curl
. "$TREE/tests/registry/lib.sh"
KILN_STORE=$WORK/store
registry "$WORK/reg"
insecure=--tls-verify=false
short_folder
echo '{}' >"$DOCKER_CONFIG/config.json"

mkdir root
echo hello >root/hello
head -c 500000 /dev/urandom >root/noise
cat >box.pkr.hcl <<'END'
source "oci" "nothing" { from = "scratch" }
build {
  name    = "box"
  sources = ["source.oci.nothing"]
  provisioner "file" {
    source      = "root/"
    destination = "/data"
  }
}
END
ok 'an image of our own' kiln bake box.pkr.hcl
id=$(kiln --json images box | jq -r '.images[0].id')
ok 'is pushed' kiln push box docker://$registry/box:kiln
digest=$(raw_digest docker://$registry/box:kiln)

# --- out ---
ok 'skopeo copies it' skopeo copy --src-tls-verify=false docker://$registry/box:kiln oci:by-skopeo:x
is 'with its digest' "$(jq -r '.manifests[0].digest' by-skopeo/index.json)" "sha256:$digest"
ok 'umoci unpacks it' umoci raw unpack --rootless --image by-skopeo:x unpacked
ok 'to the files that went in' sh -c 'cmp unpacked/data/noise root/noise && cmp unpacked/data/hello root/hello'
for tool in podman buildah; do
    have $tool || { skip "$tool pulls it" "$tool is not installed"; continue; }
    if $tool --root "$WORK/$tool" --runroot "$SHORT/$tool" --storage-driver vfs pull $insecure docker://$registry/box:kiln >"$WORK/$tool.out" 2>"$WORK/$tool.err"; then
        is "$tool pulls it as the same image" "sha256:$(tail -n 1 "$WORK/$tool.out")" "$id"
    else
        skip "$tool pulls it" "$(tail -n 1 "$WORK/$tool.err")"
    fi
done

# --- in ---
ok 'skopeo puts it elsewhere' skopeo copy --dest-tls-verify=false oci:by-skopeo:x docker://$registry/box:skopeo
ok 'kiln pulls that' kiln --store "$WORK/second" pull docker://$registry/box:skopeo
is 'as the same image' "$(kiln --store "$WORK/second" --json images box | jq -r '.images[0].id')" "$id"
ok 'as docker has it' skopeo copy --format v2s2 --dest-tls-verify=false oci:by-skopeo:x docker://$registry/box:v2s2
ok 'kiln pulls that, too' kiln --store "$WORK/third" pull docker://$registry/box:v2s2 v2s2
ok 'and gives its files' sh -c "'$KILN' --store '$WORK/third' cat v2s2 /data/noise | cmp - root/noise"
ok 'umoci adds to it' sh -c 'cp -r by-skopeo by-umoci && umoci unpack --rootless --image by-umoci:x bundle && cp root/hello bundle/rootfs/more && umoci repack --image by-umoci:x bundle'
ok 'kiln copies what it made' kiln copy oci:by-umoci:x docker://$registry/box:umoci
is 'byte for byte' "sha256:$(raw_digest docker://$registry/box:umoci)" "$(jq -r '.manifests[] | select(.annotations."org.opencontainers.image.ref.name" == "x") | .digest' by-umoci/index.json)"
ok 'and pulls it' sh -c "'$KILN' --json pull docker://$registry/box:umoci more >got.json"
ok 'without the layer that it has' test "$(jq .bytes got.json)" -lt 100000
ok 'with all its files' sh -c "'$KILN' cat more /more | cmp - root/hello && '$KILN' cat more /data/noise | cmp - root/noise"
ok 'pushed again' kiln push more docker://$registry/box:back
is 'it is what it was' "$(raw_digest docker://$registry/box:back)" "$(raw_digest docker://$registry/box:umoci)"
# Its tar ends with its last file's last byte.
ok 'umoci inserts into it' sh -c 'umoci insert --rootless --image by-umoci:x root/hello /inserted && umoci insert --rootless --image by-umoci:x root/noise /inserted2'
ok 'kiln takes that in' sh -c "skopeo copy -q --dest-tls-verify=false oci:by-umoci:x docker://$registry/box:inserted && '$KILN' pull docker://$registry/box:inserted inserted"
ok 'with all its files' sh -c "'$KILN' cat inserted /inserted | cmp - root/hello && '$KILN' cat inserted /inserted2 | cmp - root/noise"
ok 'pushed again' kiln push inserted docker://$registry/box:inserted-back
is 'it is what it was' "$(raw_digest docker://$registry/box:inserted-back)" "$(raw_digest docker://$registry/box:inserted)"
if have buildah && printf 'FROM scratch\nCOPY root /r\n' >Dockerfile &&
    buildah --root "$WORK/b" --runroot "$SHORT/b" --storage-driver vfs bud --isolation chroot -t made . >"$WORK/bud.out" 2>&1 &&
    buildah --root "$WORK/b" --runroot "$SHORT/b" --storage-driver vfs push $insecure made docker://$registry/made:1 >"$WORK/bud.out" 2>&1; then
    ok 'kiln pulls what buildah built' kiln pull docker://$registry/made:1
    ok 'with its files' sh -c "'$KILN' cat made /r/noise | cmp - root/noise"
    ok 'and pushes it back' kiln push made docker://$registry/made:back
    is 'as it was' "$(raw_digest docker://$registry/made:back)" "$(raw_digest docker://$registry/made:1)"
else
    skip 'kiln pulls what buildah built' "buildah does not build here: $(tail -n 1 "$WORK/bud.out")"
fi
finish
