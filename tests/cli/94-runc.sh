#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Containers of an image that kiln baked: its layer came from elsewhere and is kept as it came. They answer on addresses of this host and on a
# bridge, their death is seen, a flipped bit starts none, and no process, mount, network or folder is left: the unit test's runs, over this image
# instead of its own.
. "$(dirname "$0")/../lib.sh"
require runc busybox python3 ip nft
KILN_STORE=$WORK/store
export KILN_STORE
[ "$(id -u)" -eq 0 ] || { echo "1..0 # SKIP containers need root"; exit 0; }
runs=$TREE/build/tests/test-driver-runc
[ -x "$runs" ] || make -s -C "$TREE" build/tests/test-driver-runc >&2 || exit 1

busybox=$(command -v busybox)
python3 - "$busybox" <<'END'
import io, sys, tarfile
tar = tarfile.open("parent.tar", mode="w", format=tarfile.PAX_FORMAT)
def add(name, data=None, kind=tarfile.REGTYPE, mode=0o644, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.mtime = kind, mode, link, 1600000000
    info.size = len(data) if data else 0
    tar.addfile(info, io.BytesIO(data) if data else None)
for folder in ("bin", "etc", "srv", "srv/deep"):
    add(folder, kind=tarfile.DIRTYPE, mode=0o755)
add("bin/busybox", open(sys.argv[1], "rb").read(), mode=0o755)
for word in ("sh", "httpd", "rm", "mkdir", "sleep"):
    add("bin/" + word, kind=tarfile.SYMTYPE, link="busybox", mode=0o777)
add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:1001:1002:web:/srv:/bin/sh\n")
add("etc/group", b"root:x:0:\nweb:x:1002:\n")
add("etc/seed", b"seed")
add("srv/index.html", b"hello\n")
add("srv/deep/file", b"deep\n")
tar.close()
END
oci_layout parent parent.tar >layer

cat >web.pkr.hcl <<'END'
source "oci" "parent" {
  from = "oci:parent:v1"
}
build {
  name    = "runc-web"
  sources = ["source.oci.parent"]
  output "oci" {
    entrypoint = ["/bin/sh", "-c", "eval \"$FIRST\"; exec /bin/httpd -f -p $KILN_ADDRESS:$KILN_PORT -h /srv"]
  }
}
END
ok 'it bakes' kiln bake web.pkr.hcl || finish

KILN_TEST_IMAGE=runc-web KILN_TEST_FLIPS=100 "$runs" --tap >runs 2>runs.err
status=$?
sed 's/^/# /' runs
[ $status -eq 0 ] || explain runs.err
for run in three-answer-on-addresses-of-this-host two-answer-on-a-bridge what-was-written-is-told a-flipped-bit-starts-none an-old-root-is-not-believed \
    what-was-left-half-made-is-cleared after-a-reboot-all-are-dead a-start-that-fails-leaves-nothing; do
    matches "$run" "$(cat runs)" "^ok [0-9]+ /driver-runc/$run( # SKIP .*)?\$"
done
is 'and none failed' "$status" 0

# The same config, and so the same image ID, with a layer that it does not name.
python3 - <<'END'
import gzip, hashlib, json, shutil
shutil.copytree("parent", "forged")
blobs = "forged/blobs/sha256/"
index = json.load(open("forged/index.json"))
manifest = json.load(open(blobs + index["manifests"][0]["digest"][7:]))
def blob(data, like):
    name = hashlib.sha256(data).hexdigest()
    open(blobs + name, "wb").write(data)
    return dict(like, digest="sha256:" + name, size=len(data))
layer = gzip.decompress(open(blobs + manifest["layers"][0]["digest"][7:], "rb").read()).replace(b"hello", b"HELLO")
manifest["layers"][0] = blob(gzip.compress(layer, mtime=0), manifest["layers"][0])
index["manifests"][0] = blob(json.dumps(manifest).encode(), index["manifests"][0])
json.dump(index, open("forged/index.json", "w"))
END
sed 's/oci:parent/oci:forged/; s/runc-web/runc-forged/' web.pkr.hcl >forged.pkr.hcl
if kiln bake forged.pkr.hcl >.out 2>.err; then
    KILN_TEST_IMAGE=runc-forged "$runs" --tap -p /driver-runc/three-answer-on-addresses-of-this-host >forged.out 2>&1
    matches 'layers that the config does not name are not unpacked' "$(cat forged.out)" 'layer 1 is not the one that the image.s config names'
else
    matches 'layers that the config does not name are not baked' "$(cat .err)" 'layer'
fi
finish
