#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A hundred nights with nothing to patch: the store does not grow, the image stays, no appliance starts. Every tenth night the
# repository is signed anew without news. What may grow is told below, with its bound.
. "$(dirname "$0")/../lib.sh"
require python3 curl gpg dpkg-deb apt-get mmdebstrap qemu-system-x86_64
. "$TREE/tests/repo.sh"

nights=${KILN_TEST_NIGHTS:-100}
KILN_STORE=$WORK/store

repo_start
repo_key good
repo_add app 1
repo_publish

cat >quiet.pkr.hcl <<END
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "quiet"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = ["rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*", "echo 'deb $repo_url/main stable main' > /etc/apt/sources.list"]
  }
  provisioner "file" {
    source      = "good.asc"
    destination = "/etc/apt/trusted.gpg.d/good.asc"
  }
  provisioner "packages" {
    install = ["app"]
  }
  output "disk" {}
}
END
cat >night.hcl <<'END'
image "quiet" {
  from    = "prod"
  upgrade = "all"
  to      = "prod"
  keep    = 3
  test {
    packages = ["app"]
  }
}
END

# Every table with its rows, every folder with its bytes: NAME NUMBER.
measure() {
    python3 - "$KILN_STORE" <<'END'
import os, sqlite3, sys
store = sys.argv[1]
for name in ("catalog.db", "state.db"):
    db = sqlite3.connect(f"file:{store}/{name}?mode=ro", uri=True)
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        print(f"rows:{name}:{table}", db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
    db.close()
for folder in ("segments", "blobs", "tmp"):
    sizes = [os.path.getsize(os.path.join(at, f)) for at, _, files in os.walk(f"{store}/{folder}") for f in files]
    print(f"files:{folder}", len(sizes))
    print(f"bytes:{folder}", sum(sizes))
print("bytes:databases", sum(os.path.getsize(f"{store}/{f}") for f in os.listdir(store) if ".db" in f))
print("bytes:index", sum(os.path.getsize(f"{store}/index/{f}") for f in os.listdir(f"{store}/index")))
END
}
cache_bytes() { du -sb "$KILN_CACHE" | cut -f1; }

ok 'an image' kiln bake quiet.pkr.hcl || finish
image=$(id_of quiet disk <.out)
ok 'promoted' kiln promote quiet prod
ok 'the first night' kiln nightly night.hcl
matches 'has nothing to do' "$(cat .out)" "quiet +unchanged +disk +$image"
measure >before
cache_before=$(cache_bytes)

: >seconds
: >odd
night=1
while [ "$night" -le "$nights" ]; do
    if [ $((night % 10)) -eq 0 ]; then
        sleep 1 # the file's date counts in seconds
        repo_publish
    fi
    start=$(date +%s%N)
    kiln nightly night.hcl >.out 2>.err || echo "night $night failed: $(tail -n 1 .err)" >>odd
    echo "$night $((($(date +%s%N) - start) / 1000000))" >>seconds
    grep -q "^quiet  *unchanged  *disk  *$image" .out || echo "night $night: $(grep '^quiet' .out)" >>odd
    grep -qi 'appliance' .err && echo "night $night started an appliance" >>odd
    night=$((night + 1))
done
is "$nights nights: the same image, no appliance" "$(cat odd)" ''

# Ordinary nights, and those with release files signed anew.
python3 - <<'END'
rows = [tuple(map(int, line.split())) for line in open("seconds")]
for what, keep in (("release files unchanged", lambda n: n % 10), ("release files signed anew", lambda n: n % 10 == 0)):
    took = sorted(ms for n, ms in rows if keep(n))
    if took:
        print(f"# {what}: median {took[len(took) // 2]} ms, slowest {took[-1]} ms, of {len(took)} nights")
END
measure >after
diff before after | sed 's/^/# /'
is 'no row, file or byte was added' "$(grep -v '^bytes:databases' after)" "$(grep -v '^bytes:databases' before)"
grown() { # name: bytes
    awk -v name="$1" '$1 == name { n = -n + $2 } END { print n }' before after
}
# SQLite's write-ahead logs: 1000 pages of 8 KiB each until they start anew.
[ "$(grown bytes:databases)" -le $((2 * 1001 * 8224)) ]
result $? "the databases' files grew by no more than their logs ($(grown bytes:databases) bytes)"
[ $(($(cache_bytes) - cache_before)) -le 65536 ]
result $? "nor did the package indexes ($(($(cache_bytes) - cache_before)) bytes)"
is 'one entry in the channel log' "$(kiln channels --history quiet | grep -c ' prod ')" 1

# The news still come through.
repo_add app 2
repo_publish
ok 'then a night with news' kiln nightly night.hcl
matches 'is one' "$(cat .out)" 'quiet +patched'
ok 'the store is whole' kiln fsck --read-data
finish
