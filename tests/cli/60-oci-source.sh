#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Container images as a source: layers stay byte for byte, and nothing of a file is lost on the way through the tree:
# 20,000 files, names with spaces, newlines and UTF-8, hard links, capabilities and other extended attributes.
. "$(dirname "$0")/../lib.sh"
require python3 umoci skopeo
KILN_STORE=$WORK/store # this script runs beside those that share one

cat >make.py <<'END'
import io, tarfile
tar = tarfile.open("parent.tar", mode="w", format=tarfile.PAX_FORMAT)
def add(name, data=None, kind=tarfile.REGTYPE, mode=0o644, link="", uid=0, gid=0, pax=None):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.uid, info.gid, info.mtime = kind, mode, link, uid, gid, 1600000000
    info.pax_headers = pax or {}
    info.size = len(data) if data else 0
    tar.addfile(info, io.BytesIO(data) if data else None)
for folder in ("etc", "usr", "usr/bin", "many", "odd"):
    add(folder, kind=tarfile.DIRTYPE, mode=0o755)
for i in range(20000):
    if i % 200 == 0:
        add(f"many/{i // 200:03}", kind=tarfile.DIRTYPE, mode=0o755)
    add(f"many/{i // 200:03}/file-{i}", b"content %d\n" % (i % 5000))
add("odd/two words", b"space\n")
add("odd/new\nline", b"newline\n")
add("odd/\u00fcn\u00efc\u00f6d\u00e9 \u2603", b"utf-8\n", uid=1000, gid=100, mode=0o640)
add("odd/100%", b"percent\n")
add("odd/setuid", b"x", mode=0o4755)
add("odd/link", kind=tarfile.SYMTYPE, link="two words", mode=0o777)
add("odd/hard", kind=tarfile.LNKTYPE, link="odd/two words")
add("odd/pipe", kind=tarfile.FIFOTYPE)
add("odd/empty", b"")
add("odd/block", b"b" * 4096)
add("odd/more", b"m" * 4097)
add("odd/capable", b"prog", mode=0o755, pax={"SCHILY.xattr.security.capability":
    bytes.fromhex("0100000200040000000000000000000000000000").decode("latin-1"), "SCHILY.xattr.user.note": "kept"})
tar.close()
END
python3 make.py
base=$(oci_layout parent parent.tar)

cat >child.pkr.hcl <<'END'
source "oci" "parent" {
  from = "oci:parent:v1"
}
build {
  name    = "child"
  sources = ["source.oci.parent"]
  provisioner "file" {
    content     = "added\n"
    destination = "/etc/added"
  }
  output "oci" {
    env = ["B=2"]
  }
}
END
ok 'it bakes' kiln bake child.pkr.hcl || finish
cp .out first
ok 'it bakes again' kiln bake child.pkr.hcl
is 'with the same image ID' "$(cat .out)" "$(cat first)"
ok 'export' kiln export child/oci child.oci --format=oci-dir
tag=$(python3 -c 'import json; print(json.load(open("child.oci/index.json"))["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])')
ok 'skopeo reads it' skopeo inspect "oci:child.oci:$tag"
is 'the parent'\''s layer is the first, unchanged' "$(python3 -c 'import json; print(json.load(open(".out"))["Layers"][0])')" "$base"
is 'and one layer is new' "$(python3 -c 'import json; print(len(json.load(open(".out"))["Layers"]))')" 2

# Whatever a trip through the rendered disk and back would lose of an entry would stand in the new layer as a change.
cat >top.py <<'END'
import json, tarfile
layout = "child.oci/blobs/sha256/"
read = lambda digest: open(layout + digest.split(":")[1], "rb")
manifest = json.load(read(json.load(open("child.oci/index.json"))["manifests"][0]["digest"]))
with tarfile.open(fileobj=read(manifest["layers"][1]["digest"]), mode="r:gz") as tar:
    print(" ".join(sorted(m.name.strip("./") for m in tar if m.name.strip("./"))))
END
is 'the new layer holds what was added and nothing else' "$(python3 top.py)" 'etc etc/added'

ok 'the whole tree as one layer again' sh -c 'skopeo copy -q "oci:$1:$2" oci-archive:child.tar' _ child.oci "$tag"
cat >flat.pkr.hcl <<'END'
source "oci" "flat" {
  from = "oci-archive:child.tar"
}
build {
  name    = "flat"
  sources = ["source.oci.flat"]
}
END
ok 'an archive bakes without steps' kiln bake flat.pkr.hcl
if [ "$(id -u)" -eq 0 ]; then
    ok 'umoci unpacks' umoci unpack --image "child.oci:$tag" bundle
    odd=bundle/rootfs/odd
    is '20,000 files' "$(find bundle/rootfs/many -type f | wc -l)" 20000
    is 'a space' "$(cat "$odd/two words")" space
    is 'a newline' "$(cat "$odd/new
line")" newline
    is 'hard links' "$(stat -c %h "$odd/hard")" 2
    is 'owner and mode' "$(stat -c '%u %g %a' "$odd"/*n*c*d*)" '1000 100 640'
    is 'the added file' "$(cat bundle/rootfs/etc/added)" added
    have getcap && matches 'capabilities' "$(getcap "$odd/capable")" 'cap_net_bind_service'
fi
ok 'fsck reads everything' kiln fsck --read-data
finish
