#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is in an image, what differs between two, and the bill of materials: roots of several distributions, made here and imported.
. "$(dirname "$0")/../lib.sh"
require python3 jq dpkg-query diff sqlite3
KILN_STORE=$WORK/store

# ---- a root with packages of every kind ----

deb() { # root, package, version, owned path...
    deb_root=$1/var/lib/dpkg
    deb_name=$2
    mkdir -p "$deb_root/info"
    printf 'Package: %s\nStatus: install ok installed\nMaintainer: Some One <one@example.org>\nArchitecture: amd64\nSource: src-%s (1.0)\nVersion: %s\nDescription: %s\n more\n\n' \
        "$2" "$2" "$3" "$2" >>"$deb_root/status"
    shift 3
    printf '/.\n' >"$deb_root/info/$deb_name.list"
    printf '%s\n' "$@" >>"$deb_root/info/$deb_name.list"
}
root() { # name
    mkdir -p "$1/usr/bin" "$1/etc/app" "$1/opt/node_modules/left/lib" "$1/opt/node_modules/@scope/right" "$1/usr/lib/python3/dist-packages/snake-2.0.dist-info"
    ln -s usr/bin "$1/bin"
    printf 'ID=debian\nVERSION_ID="12"\n' >"$1/etc/os-release"
    printf 'one\ntwo\nthree\n' >"$1/etc/app/conf"
    printf 'binary\0bytes' >"$1/usr/bin/tool"
    ln -s /etc/app/conf "$1/usr/bin/conf-link"
    ln -s loop "$1/loop"
    ln "$1/usr/bin/tool" "$1/usr/bin/tool-too"
    echo '{"name": "left", "version": "1.2.3", "license": "MIT"}' >"$1/opt/node_modules/left/package.json"
    echo '{"name": "no"}' >"$1/opt/node_modules/left/lib/package.json"
    echo '{"name": "@scope/right", "version": "4.0.0", "license": {"type": "ISC"}}' >"$1/opt/node_modules/@scope/right/package.json"
    printf 'Metadata-Version: 2.1\nName: snake\nVersion: 2.0\nLicense: BSD\n\nText with\nVersion: 9\n' >"$1/usr/lib/python3/dist-packages/snake-2.0.dist-info/METADATA"
    printf 'snake/__init__.py,sha256=x,1\nsnake-2.0.dist-info/METADATA,,\n../../../bin/snake,,\n' >"$1/usr/lib/python3/dist-packages/snake-2.0.dist-info/RECORD"
    echo '#!/bin/sh' >"$1/usr/bin/snake"
}
take() { # root, name
    rm -rf "$1-layout"
    tar -C "$1" --sort=name --owner=0 --group=0 --mtime=@1600000000 -cf "$1.tar" . && oci_layout "$1-layout" "$1.tar" >/dev/null &&
        kiln import "$1-layout" "$2" >/dev/null 2>.import-error || cat .import-error
}

root old
deb old tool-package 1.0-1 /usr /usr/bin /bin/tool /usr/bin/tool-too
deb old app 3.0.15-1 /etc/app /etc/app/conf
deb old leaving 1 /usr/share/leaving
printf 'Package: half\nStatus: deinstall ok config-files\nVersion: 1\n\n' >>old/var/lib/dpkg/status
cp -a old new
rm -r new/var/lib/dpkg
deb new tool-package 1.0-1 /usr /usr/bin /bin/tool /usr/bin/tool-too
deb new app 3.0.16-1 /etc/app /etc/app/conf /etc/app/added
deb new coming 7 /usr/share/coming
printf 'one\n2\nthree\n' >new/etc/app/conf
echo added >new/etc/app/added
printf 'other\0bytes!' >new/usr/bin/tool
rm new/usr/bin/snake
chmod 600 new/etc/os-release
take old old
take new new

# ---- files and cat ----

is 'every file is listed' "$(kiln files --json old | jq -r '.files[].path' | LC_ALL=C sort)" "$(tar -tf old.tar | sed 's,^\.,,; s,/$,,; s,^$,/,' | LC_ALL=C sort)"
matches 'with mode and size' "$(kiln files old /etc/app/conf)" '^-rw-r--r-- +0 +0 +14 .* /etc/app/conf$'
is 'a folder with what is below it' "$(kiln files --json old etc/app | jq -r '[.files[].path] | join(" ")')" '/etc/app /etc/app/conf'
is 'digests are those of the content' "$(kiln files --json old /etc/app/conf | jq -r '.files[0].digest')" "sha256:$(sha256sum <old/etc/app/conf | cut -d' ' -f1)"
is 'a file through links' "$(kiln cat old /bin/../bin/conf-link)" "$(cat old/etc/app/conf)"
ok 'bytes as they are' sh -c '"$0" cat old /usr/bin/tool-too | cmp - old/usr/bin/tool' "$KILN"
fails 1 'a file that is not there' "no '/nothing' in 'old'" kiln cat old /nothing
fails 1 'a loop of links' 'too many symbolic links' kiln cat old /loop
fails 1 'a folder is no file' 'not a regular file' kiln cat old /etc
ok 'a folder is taken out without a mount' kiln export old part.tar --path /etc/app
is 'as a tar of what is in it' "$(tar -tf part.tar | tr '\n' ' ')" './ conf '
fails 2 'in no other form' '--path' kiln export old part.raw --format=raw --path /etc

# ---- diff ----

ok 'diff' kiln diff old new
cp .out diff
is 'packages come first' "$(sed -n 1,4p diff | tr '\n' '|')" 'packages: 3|  ~ app 3.0.15-1 -> 3.0.16-1|  + coming 7|  - leaving 1|'
matches 'then files by package' "$(tr '\n' '|' <diff)" '\|  app\|    \+ /etc/app/added  6 B\|    ~ /etc/app/conf  content'
matches 'a mode alone' "$(cat diff)" '~ /etc/os-release  mode$'
matches 'what went' "$(cat diff)" '- /usr/bin/snake'
kiln diff --json old new >diff.json
is 'the same for programs' "$(jq -r '[.packages[] | .name + ":" + (.from // "") + ":" + (.to // "")] | join(" ")' diff.json)" 'app:3.0.15-1:3.0.16-1 coming::7 leaving:1:'
is 'every changed path and no other' "$(jq -r '.files[] | select(.what != ["time"]) | .path' diff.json | sort)" \
    "$( (cd old && find . -type f -o -type l) | cut -c2- | sort >a; (cd new && find . -type f -o -type l) | cut -c2- | sort >b; { comm -3 a b | tr -d '\t'; comm -12 a b | while read -r f; do [ -L "new$f" ] || cmp -s "old$f" "new$f" || echo "$f"; done; echo /etc/os-release; } | sort -u)"
ok 'a patch of text' sh -c '"$0" diff --patch old new >patch.out; sed -n "/^--- a.etc.app.conf/,/^ three/p" patch.out >one.patch; cp old/etc/app/conf conf && patch -s -p3 -d . <one.patch >/dev/null 2>&1; grep -q "^-two" one.patch && grep -q "^+2" one.patch' "$KILN"
is 'and of no bytes' "$(grep -c '^--- a/usr/bin/tool' patch.out)" 0
is 'nothing differs from itself' "$(kiln diff old old | tr '\n' '|')" 'packages: 0|files: 0|'

# ---- blame, without a bake: the package ----

matches 'blame names the package, also where the list goes through a link' "$(kiln blame new /usr/bin/tool)" 'package  tool-package 1.0-1'
matches 'a Python package' "$(kiln blame old /usr/bin/snake)" 'package  snake 2.0'
is 'a file of nobody' "$(kiln blame --json new /etc/os-release | jq -r '.files[0].package')" null
matches 'and says that no step was recorded' "$(kiln blame new /usr/bin/tool)" 'nothing was recorded'

# ---- bills of materials ----

kiln sbom old >spdx.json
is 'SPDX: every package, and not the half installed one' "$(jq -r '[.packages[1:][] | .name + "=" + .versionInfo] | join(" ")' spdx.json)" \
    "$(dpkg-query --admindir=old/var/lib/dpkg -W -f '${Status} ${Package}=${Version}\n' 2>/dev/null | sed -n 's/^install ok installed //p' | sort | tr '\n' ' ')@scope/right=4.0.0 left=1.2.3 snake=2.0"
is 'SPDX: what the specification wants' "$(jq -r '[.spdxVersion, .dataLicense, .SPDXID, (.relationships | length), (.packages | length)] | join(" ")' spdx.json)" 'SPDX-2.3 CC0-1.0 SPDXRef-DOCUMENT 7 7'
is 'SPDX: package URLs' "$(jq -r '.packages[1].externalRefs[0].referenceLocator' spdx.json)" 'pkg:deb/debian/app@3.0.15-1?arch=amd64'
is 'SPDX: what the image is, in the words of its schema' "$(jq -r '.packages[0].primaryPackagePurpose' spdx.json)" CONTAINER
is 'SPDX: IDs are unique' "$(jq -r '.packages[].SPDXID' spdx.json | sort | uniq -d)" ''
kiln sbom --format=cyclonedx old >cyclonedx.json
is 'CycloneDX: the same packages' "$(jq -r '.components[] | .name + "=" + .version' cyclonedx.json | sort)" "$(jq -r '.packages[1:][] | .name + "=" + .versionInfo' spdx.json | sort)"
is 'CycloneDX: what the specification wants' "$(jq -r '[.bomFormat, .specVersion, .version, (.metadata.component."bom-ref"), (.dependencies[0].dependsOn | length)] | join(" ")' cyclonedx.json)" 'CycloneDX 1.5 1 image 6'
is 'equal bytes when asked again' "$(kiln sbom old | sha256sum)" "$(sha256sum <spdx.json | sed 's/$//')"
fails 2 'an unknown format' 'spdx' kiln sbom --format=xml old

mkdir -p urls/etc urls/opt/Snake_Case-2.0.dist-info urls/opt/node_modules/@scope/right
echo 'ID=debian' >urls/etc/os-release
deb urls lib++ 1:1+b1
sed -i 's,^Description.*,Homepage: https://example.org/a b,' urls/var/lib/dpkg/status
printf 'Name: Snake_Case\nVersion: 2.0\nHome-page: https://example.org/ok?a=[1]\n' >urls/opt/Snake_Case-2.0.dist-info/METADATA
echo '{"name": "@scope/right", "version": "4.0.0", "homepage": "see http://example.org"}' >urls/opt/node_modules/@scope/right/package.json
take urls urls
is 'package URLs are written as their specification has it' "$(kiln sbom urls | jq -r '[.packages[1:][].externalRefs[0].referenceLocator] | join(" ")')" \
    'pkg:deb/debian/lib%2B%2B@1:1%2Bb1?arch=amd64 pkg:npm/%40scope/right@4.0.0 pkg:pypi/snake-case@2.0'
is 'a home page is a URL' "$(kiln sbom urls | jq -r '[.packages[].homepage // empty] | join(" ")')" 'https://example.org/ok?a=[1]'

# ---- find ----

found() { kiln find --json "$@" | jq -r '[.images[] | .name + "=" + .package.version] | sort | join(" ")'; }
is 'find a package in all images' "$(found --package tool-package)" 'new=1.0-1 old=1.0-1'
is 'older than a version' "$(found --package 'app<3.0.16')" 'old=3.0.15-1'
is 'by the rules for versions, as dpkg has them' "$(for pair in '1:1.0 2.0' '1.0~rc1 1.0' '1.0-10 1.0-9' '2:1 1:9' '1.0 1.0-0' '0:1 1' '1.a 1.0'; do
    set -- $pair
    for op in lt eq gt; do dpkg --compare-versions "$1" "$op" "$2" && echo "$pair $op"; done
done)" "$(python3 - "$KILN" <<'END'
import json, subprocess, sys, sqlite3, os
db = sqlite3.connect(os.environ["KILN_STORE"] + "/catalog.db")
image = db.execute("SELECT max(number) FROM image").fetchone()[0]
pairs = ["1:1.0 2.0", "1.0~rc1 1.0", "1.0-10 1.0-9", "2:1 1:9", "1.0 1.0-0", "0:1 1", "1.a 1.0"]
for i, pair in enumerate(pairs):
    db.execute("INSERT INTO package (name, type, version, architecture) VALUES (?, 'deb', ?, '')", ("pair%d" % i, pair.split()[0]))
    db.execute("INSERT INTO image_package SELECT number, ? FROM package WHERE name = ?", (image, "pair%d" % i))
db.commit()
for i, pair in enumerate(pairs):
    for op, name in (("<", "lt"), ("=", "eq"), (">", "gt")):
        out = subprocess.run([sys.argv[1], "find", "--all", "--package", "pair%d%s%s" % (i, op, pair.split()[1])], capture_output=True, text=True).stdout
        if out: print(pair, name)
END
)"
sqlite3 "$KILN_STORE/catalog.db" 'UPDATE image SET indexed = 0; DELETE FROM image_package; DELETE FROM package'
is 'images that are in no index are entered first' "$(found --package 'app>=3')" 'new=3.0.16-1 old=3.0.15-1'
is 'nothing' "$(found --package nothing)" ''
fails 2 'an operator that there is not' "'app!=1' is no package" kiln find --package 'app!=1'
fails 2 'no version' "'app<' is no package" kiln find --package 'app<'

# ---- apk ----

mkdir -p alpine/lib/apk/db alpine/etc
printf 'P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:libc.so\n\nP:busybox\nV:1.36.1-r5\nA:x86_64\nL:GPL-2.0-only\n' >alpine/lib/apk/db/installed
printf 'ID=alpine\nVERSION_ID=3.18.4\n' >alpine/etc/os-release
echo x >alpine/lib/libc.so
take alpine alpine
is 'apk' "$(kiln sbom alpine | jq -r '[.packages[1:][].externalRefs[0].referenceLocator] | join(" ")')" 'pkg:apk/alpine/busybox@1.36.1-r5?arch=x86_64 pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64'
is "apk's order of versions" "$(found --package 'busybox<1.36.1-r6'; found --package 'busybox>1.36.1_rc1-r9'; found --package 'musl=1.2.4'; found --package 'musl>1.2.4_p0')" "alpine=1.36.1-r5
alpine=1.36.1-r5
alpine=1.2.4-r2"
matches 'apk: who owns a file' "$(kiln blame alpine /lib/libc.so)" 'package  musl 1.2.4-r2'

# ---- rpm ----

if have rpm rpmbuild; then
    printf 'Name: hello\nEpoch: 1\nVersion: 2.12\nRelease: 3\nSummary: s\nLicense: GPL-3.0-or-later\nVendor: Some\n%%description\nx\n%%install\nmkdir -p %%{buildroot}/usr/bin\necho hi >%%{buildroot}/usr/bin/hello\n%%files\n/usr/bin/hello\n' >hello.spec
    rpmbuild -bb --target noarch --define "_topdir $WORK/rpmbuild" hello.spec >.rpmbuild 2>&1
    mkdir -p fedora/etc fedora/usr/lib/sysimage/rpm
    printf 'ID=fedora\nVERSION_ID=40\n' >fedora/etc/os-release
    rpm --dbpath "$WORK/fedora/usr/lib/sysimage/rpm" -i --justdb --nodeps "$WORK"/rpmbuild/RPMS/noarch/hello-*.rpm 2>.rpm
    mkdir -p fedora/usr/bin
    echo hi >fedora/usr/bin/hello
    take fedora fedora
    is 'rpm' "$(kiln sbom fedora | jq -r '[.packages[1:][] | .name + "=" + .versionInfo + " " + .licenseComments] | join(" ")')" 'hello=1:2.12-3 The package says: GPL-3.0-or-later'
    is 'rpm: the epoch is no part of the version in a package URL' "$(kiln sbom fedora | jq -r '.packages[1].externalRefs[0].referenceLocator')" 'pkg:rpm/fedora/hello@2.12-3?arch=noarch&epoch=1'
    matches 'rpm: who owns a file' "$(kiln blame fedora /usr/bin/hello)" 'package  hello 1:2.12-3'
    is "rpm's order of versions" "$(found --package 'hello=1:2.12'; found --package 'hello<1:2.12^1'; found --package 'hello>2.13'; found --package 'hello<1:2.12~rc1')" "fedora=1:2.12-3
fedora=1:2.12-3
fedora=1:2.12-3"
    # The same packages in SUSE's format, which Debian's rpm does not read.
    mkdir -p suse/etc suse/usr/lib/sysimage/rpm
    printf 'ID=sles\nVERSION_ID=15\n' >suse/etc/os-release
    rpmdb --dbpath "$WORK/fedora/usr/lib/sysimage/rpm" --exportdb >headers 2>.rpm
    python3 - <<'END'
import struct
headers, slots, blobs = open("headers", "rb").read(), b"", b""
while headers:
    entries, size = struct.unpack(">II", headers[8:16])
    length = 8 + 16 * entries + size
    slots += struct.pack("<4sIII", b"Slot", len(slots) // 16 + 1, 256 + len(blobs) // 16, -(-(length + 28) // 16))
    blob = struct.pack("<4sIII", b"BlbS", len(slots) // 16, 1, length) + headers[8 : 8 + length] + bytes(12)
    blobs += blob + bytes(-len(blob) % 16)
    headers = headers[8 + length :]
slots += (254 - len(slots) // 16) * struct.pack("<4sIII", b"Slot", 0, 0, 0)
open("suse/usr/lib/sysimage/rpm/Packages.db", "wb").write(struct.pack("<4sIIIIIII", b"RpmP", 0, 1, 1, 2, 0, 0, 0) + slots + blobs)
END
    take suse suse
    is "SUSE's rpm" "$(kiln sbom suse | jq -r '.packages[1].externalRefs[0].referenceLocator')" 'pkg:rpm/sles/hello@2.12-3?arch=noarch&epoch=1'
    head -c 4200 suse/usr/lib/sysimage/rpm/Packages.db >cut && mv cut suse/usr/lib/sysimage/rpm/Packages.db
    rm -rf suse-layout && take suse suse-cut && kiln sbom suse-cut >.out 2>.err
    cat .import-error >>.err
    matches 'one that is cut short is told' "$(cat .err)" "rpm database '/usr/lib/sysimage/rpm/Packages.db' is damaged"
else
    skip 'rpm' 'no rpm and rpmbuild here'
fi

# ---- Go ----

mkdir -p go/usr/bin go/etc
if have umoci && grep -qaF 'Go buildinf:' "$(command -v umoci)"; then
    cp "$(command -v umoci)" go/usr/bin/umoci
    take go go
    version=$(grep -aoE 'go1\.[0-9]+(\.[0-9]+)?' go/usr/bin/umoci | head -n 1)
    matches "a Go program's own library" "$(kiln sbom go | jq -r '.packages[1:][].externalRefs[0].referenceLocator')" "^pkg:golang/stdlib@${version#go}$"
else
    skip 'a Go program' 'none here'
fi
if have objcopy bash; then
    python3 - >section <<'END'
import sys
mod = b"path\tx.org/p\nmod\tx.org/p\tv1.0.0\t\ndep\tx.org/a\tv1.9.0\th1:x\ndep\tx.org/b\tv2.0.0\n=>\tx.org/c\tv2.1.0\th1:y\n"
text = b"\x30" * 16 + mod + b"\x31" * 16
size = bytes([len(text) & 0x7f | 0x80, len(text) >> 7])
sys.stdout.buffer.write(b"\xff Go buildinf:\x08\x02" + bytes(16) + b"\x06go1.20" + size + text)
END
    objcopy --add-section .go.buildinfo=section "$(command -v bash)" go/usr/bin/program && chmod 755 go/usr/bin/program
    rm -rf go-layout go.tar
    take go modules
    is 'its modules, and what stands for them' "$(kiln sbom modules | jq -r '[.packages[1:][] | select(.comment | endswith("program")) | .name + "@" + .versionInfo] | join(" ")')" \
        'stdlib@1.20 x.org/a@v1.9.0 x.org/c@v2.1.0 x.org/p@v1.0.0'
else
    skip 'modules of a Go program' 'no objcopy here'
fi

# ---- what a guest may write ----

mkdir -p hostile/var/lib/dpkg/info hostile/lib/apk/db hostile/node_modules/x hostile/usr/lib/sysimage/rpm
head -c 300000 /dev/urandom >hostile/var/lib/dpkg/status
printf '/../../etc/passwd\n/\n//\n\n' >hostile/var/lib/dpkg/info/:.list
head -c 100000 /dev/urandom >hostile/lib/apk/db/installed
head -c 5000 /dev/urandom >hostile/node_modules/x/package.json
head -c 5000 /dev/urandom >hostile/usr/lib/sysimage/rpm/rpmdb.sqlite
{ printf '\177ELF\002\001\001'; head -c 100000 /dev/urandom; } >hostile/node_modules/x/program
chmod 755 hostile/node_modules/x/program
take hostile hostile
ok 'random databases end in a bill of what can be read' kiln sbom hostile
ok 'and in a comparison' kiln diff hostile old

# ---- names with bytes that drive a terminal or are no text ----

python3 - <<'END'
import os
for root, text in (b"odd", "one\n"), (b"odd-too", "two\n"):
    os.makedirs(root + b"/dir\x1b[31m\xff")
    os.makedirs(root + b"/var/lib/dpkg/info")
    for name in b"new\nline", b"esc\x1b[2J", b"bad\xff", b"c1\xc2\x9b0m", b"quote\"'", b"back\\slash", b"tab\t", b"sp ace", b"e\xcc\x81t\xc3\xa9", b"x" * 255:
        open(root + b"/" + name, "w").write(text)
    os.link(root + b"/esc\x1b[2J", root + b"/zz\x1b\xff")
    os.symlink(b"to\x1b\xff", root + b"/link\x1b")
    open(root + b"/var/lib/dpkg/info/pk\x1b\xff.list", "w").write("/.\n/sp ace\n")
END
take odd odd
take odd-too odd-too
kiln files odd >odd.files
{ kiln diff odd odd-too; kiln blame odd "$(printf '/zz\033\377')" '/sp ace'; kiln cat odd "$(printf '/no\033\377')"; kiln cat odd "$(printf '/dir\033[31m\377')"; kiln files "$(printf 'no\033\377')"; } >odd.out 2>&1
is 'no control character and no byte that is no text is printed' "$(cat odd.files odd.out | python3 -c 'import sys; print(sum(c < " " and c != "\n" or "\x7f" <= c < "\xa0" for c in sys.stdin.buffer.read().decode()))')" 0
is 'each file has its line' "$(wc -l <odd.files)" "$(tar -tf odd.tar | wc -l)"
matches 'they are written out' "$(cat odd.files)" '/zz\\x1b\\xff same as /esc\\x1b\[2J$'
matches 'so that they can be read back' "$(cat odd.files)" '/back\\\\slash$'
matches 'in a comparison' "$(cat odd.out)" '~ /bad\\xff  content'
matches 'also the package, which is named by a file' "$(cat odd.out)" 'package  pk\\x1b\\xff'
matches 'in an error' "$(cat odd.out)" "^kiln: there is no '/no\\\\x1b\\\\xff' in 'odd'\$"
kiln files --json odd >odd.json
kiln diff --json odd odd-too >odd-diff.json
kiln blame --json odd "$(printf '/zz\033\377')" >odd-blame.json
kiln cat --json odd "$(printf '/no\033\377\n-')" >odd-error.json 2>/dev/null
kiln export --json --format=tar odd "$(printf 'odd\377.out')" >odd-export.json 2>/dev/null
is 'JSON is lossless' "$(python3 - <<'END'
import json, os, urllib.parse
def raw(entry, key):
    return urllib.parse.unquote_to_bytes(entry[key + "_encoded"]) if key + "_encoded" in entry else entry[key].encode()
listed = [json.load(open(n, encoding="utf-8")) for n in ("odd.json", "odd-diff.json", "odd-blame.json", "odd-error.json", "odd-export.json")]
files = listed[0]["files"]
there = {b"/"} | {os.path.join(at, n)[3:] for at, folders, names in os.walk(b"odd") for n in folders + names}
print({raw(f, "path") for f in files} == there, [raw(f, "target") for f in files if "target" in f] == [b"to\x1b\xff"],
      [raw(f, "same_as") for f in files if "same_as" in f], len(listed[1]["files"]) == 11, {raw(f, "path") for f in listed[1]["files"]} <= there,
      raw(listed[2]["files"][0], "path"), listed[3]["error"], listed[4]["file"])
END
)" "True True [b'/esc\\x1b[2J'] True True b'/zz\\x1b\\xff' there is no '/no\\x1b\\xff\\x0a-' in 'odd' odd\\xff.out"
is 'a tar has the names as they are' "$(tar -tf "$(printf 'odd\377.out')" | LC_ALL=C sed 's,^[.]/,,' | LC_ALL=C sort)" "$(tar -tf odd.tar | LC_ALL=C sed 's,^[.]/,,' | LC_ALL=C sort)"
kiln diff --patch odd odd-too >odd.patch
ok 'a patch is one for patch(1)' sh -c 'cp -a odd odd-patched && cd odd-patched && rm x* && sed "/^--- a.xxx/,/^+two/d" ../odd.patch | patch -s -p1 && cp ../odd-too/x* . && diff -r --no-dereference . ../odd-too'

# ---- layers over layers ----

python3 - <<'END'
import gzip, hashlib, io, json, os, tarfile
def layer(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            info.mtime = 1600000000
            info.mode = 0o755
            if what is None: info.type = tarfile.DIRTYPE
            elif what[0] == "l": info.type, info.linkname = tarfile.SYMTYPE, what[1:]
            elif what[0] == "h": info.type, info.linkname = tarfile.LNKTYPE, what[1:]
            else: info.size = len(what)
            tar.addfile(info, io.BytesIO(what.encode()) if info.isreg() else None)
    return out.getvalue()
layers = [
    layer(("usr", None), ("usr/bin", None), ("usr/bin/sh", "shell"), ("usr/bin/old", "old"), ("bin", "lusr/bin"), ("lib", "l/usr/lib"), ("round", "lround"), ("up", "l../../usr/bin"),
          ("usr/lib", None), ("usr/lib/opaque", None), ("usr/lib/opaque/a", "a"), ("replaced", "lusr/bin"), ("usr/bin/one", "1"), ("same", "husr/bin/one")),
    layer(("bin/new", "new"), ("bin/.wh.old", "-"), ("lib/deep/er/file", "deep"), ("lib/opaque/.wh..wh..opq", "-"), ("lib/opaque/b", "b"), ("replaced", None), ("replaced/own", "own"),
          ("up/ward", "up"), ("usr/bin/two", "hbin/one"), ("lib/three", "hbin/one")),
    layer(("bin/one", "changed"), ("bin/.wh.two", "-"), ("bin/new", "newer")),
]
os.makedirs("over/blobs/sha256")
def blob(kind, data):
    name = hashlib.sha256(data).hexdigest()
    open("over/blobs/sha256/" + name, "wb").write(data)
    return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + name, "size": len(data)}
config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(x).hexdigest() for x in layers]}}
manifest = blob("manifest.v1+json", json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": blob("config.v1+json", json.dumps(config).encode()), "layers": [blob("layer.v1.tar+gzip", gzip.compress(x, mtime=0)) for x in layers]}).encode())
manifest["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
json.dump({"schemaVersion": 2, "manifests": [manifest]}, open("over/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open("over/oci-layout", "w"))
END
ok 'layers that lead through links of lower ones' kiln import over over
is 'a file in a folder that is a link is where the link leads' "$(kiln files --json over | jq -r '.files[] | select(.type != "folder") | .path' | tr '\n' ' ')" \
    '/bin /lib /replaced/own /round /same /up /usr/bin/new /usr/bin/one /usr/bin/sh /usr/bin/ward /usr/lib/deep/er/file /usr/lib/opaque/b /usr/lib/three '
is 'so is the file that a hard link names' "$(kiln cat over /usr/lib/three)$(kiln cat over /bin/one)" 1changed
is 'a file is no other one for it' "$(kiln cat over /bin/sh)" shell
if have umoci && [ "$(id -u)" = 0 ] && umoci unpack --image over:v1 over-bundle >/dev/null 2>.umoci; then
    is 'as it is unpacked' "$(kiln files --json over | jq -r '.files[].path' | LC_ALL=C sort)" "$(cd over-bundle/rootfs && find . | sed 's,^\.,,; s,^$,/,' | LC_ALL=C sort)"
    is 'with its bytes' "$(for f in /usr/bin/new /usr/bin/ward /usr/lib/opaque/b /same; do kiln cat over $f; done)" "$(cd over-bundle/rootfs && cat usr/bin/new usr/bin/ward usr/lib/opaque/b same)"
fi

# ---- which file system of an imported disk is its root ----

if have mke2fs sfdisk debugfs; then
    mkdir -p disk-root/etc disk-data disk-boot
    echo root >disk-root/etc/hostname
    echo data >disk-data/data
    two_parts() { # image, first part, second part
        truncate -s 64M "$1"
        printf 'label: gpt\nstart=2048, size=16384\nstart=20480, size=65536\n' | sfdisk -q "$1"
        dd if="$2" of="$1" bs=1M seek=1 conv=notrunc status=none
        dd if="$3" of="$1" bs=1M seek=10 conv=notrunc status=none
    }
    mke2fs -q -t ext4 -d disk-root root.fs 8M >.out
    mke2fs -q -t ext4 -d disk-data data.fs 32M >.out
    two_parts both.raw root.fs data.fs
    ok 'a small root beside a large file system' kiln import both.raw both
    is 'the one with an /etc is the root' "$(kiln cat both /etc/hostname)" root
    mke2fs -q -t ext4 -d disk-boot boot.fs 8M >.out
    mke2fs -q -t ext4 -d disk-root live.fs 32M >.out
    debugfs -w -R 'feature needs_recovery' live.fs >/dev/null 2>&1
    two_parts live.raw boot.fs live.fs
    ok 'a root that was in use' kiln import live.raw live
    matches 'is not read, and it is told' "$(cat .err)" 'partition 2 was not unmounted cleanly'
    fails 1 'nor is the file system beside it taken for it' 'no list of the files' kiln files live
else
    skip 'the root of a disk' 'no mke2fs, sfdisk and debugfs here'
fi

# ---- when the bytes are gone ----

take new old
id=$(kiln images --all --json | jq -r --arg id "$(jq -r .from diff.json)" '.images[] | select(.id == $id) | .id')
ok 'prune lets the older one go' sh -c '"$0" prune --keep-last 1 old && "$0" gc --grace 0s' "$KILN"
fails 1 'its files are gone' 'only the record is left' kiln files "$id"
is 'its bill of materials is not' "$(kiln sbom "$id" | jq '.packages | length')" 7
finish
