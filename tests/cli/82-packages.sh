#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packages: resolved on the host, from repositories that this script makes, for guests that do not deserve trust.
. "$(dirname "$0")/../lib.sh"
require python3 curl gpg dpkg-deb apt-get mmdebstrap umoci
KILN_STORE=$WORK/store # this script runs beside those that share one
. "$TREE/tests/repo.sh"

repo_start
repo_key bad
repo_key good

# ---- guests that are only looked at: no appliance is needed to plan ----

# A root that says what is installed: guest_new NAME, guest_has PACKAGE VERSION [LINE]..., files in guest-NAME/, guest_seal.
guest_new() {
    guest=$1
    mkdir -p "guest-$guest/var/lib/dpkg" "guest-$guest/etc/apt/sources.list.d" "guest-$guest/etc/apt/preferences.d" \
        "guest-$guest/etc/apt/trusted.gpg.d" "guest-$guest/etc/apt/apt.conf.d" "guest-$guest/usr/share/keyrings"
    guest_has dpkg 1.21.22
}
guest_has() { # package, version, more lines
    has=$1
    version=$2
    shift 2
    {
        printf 'Package: %s\nStatus: %s\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\nVersion: %s\n' "$has" \
            "${guest_status:-install ok installed}" "$version"
        [ $# -eq 0 ] || printf '%s\n' "$@"
        printf 'Description: %s\n\n' "$has"
    } >>"guest-$guest/var/lib/dpkg/status"
}
guest_source() { echo "deb $1 $repo_url/${2:-main} ${3:-stable} main" >>"guest-$guest/etc/apt/sources.list"; }
guest_seal() {
    tar -C "guest-$guest" --owner=0 --group=0 --mtime=@1600000000 -cf "$guest.tar" .
    oci_layout "layout-$guest" "$guest.tar" >/dev/null
    guest_template
    kiln bake "$guest.pkr.hcl" >/dev/null 2>.seal || explain .seal
}
guest_template() { # lines of the packages step
    {
        printf 'source "oci" "guest" { from = "oci:layout-%s:v1" }\nbuild {\n  name = "guest-%s"\n' "$guest" "$guest"
        printf '  sources = ["source.oci.guest"]\n'
        [ $# -eq 0 ] || { printf '  provisioner "packages" {\n'; printf '    %s\n' "$@"; printf '  }\n'; }
        printf '  output "oci" {}\n}\n'
    } >"$guest.pkr.hcl"
}
# Everything that a plan says, with what apt said to kiln.
plan() {
    guest_template "$@"
    KILN_TRACE=baker.resolve timeout 90 "$KILN" plan -detailed-exitcode "$guest.pkr.hcl" >.plan 2>&1
    status=$?
}
planned() { # description, regular expression, lines of the step...: there is work, and this is it
    what=$1
    expression=$2
    shift 2
    plan "$@"
    matches "$what" "exit $status: $(cat .plan)" "$expression"
    is "$what: there is work" "$status" 2
}
refused() { # description, fragment, lines of the step...: one sentence, exit status 1
    what=$1
    fragment=$2
    shift 2
    guest_template "$@"
    fails 1 "$what" "$fragment" timeout 90 "$KILN" plan -detailed-exitcode "$guest.pkr.hcl"
}

repo=main
repo_add app 1
repo_add app 2
repo_add held 2
repo_add other 2
repo_add needy 1 'Depends: unloved | loved'
repo_add unloved 1
repo_add loved 1
repo_publish
repo_suite=testing
repo_add app 3
repo_publish
repo_drop app 3
repo_suite=stable
repo_publish

own="repositories = [\"deb $repo_url/main stable main\"]"
key='repository_keys = ["good.gpg"]'

guest_new plain
guest_has app 1
guest_has held 1
guest_has other 1
guest_has kept 1
guest_seal
planned 'a repository and its key of the template' '1 new' 'install = ["loved"]' "$own" "$key"
planned 'what is installed is upgraded' 'app 1 -> 2' 'upgrade = "all"' "$own" "$key"
planned 'hold' '2 upgraded \(app 1 -> 2, other 1 -> 2\)' 'upgrade = "all"' 'hold = ["held"]' "$own" "$key"
planned 'exclude' 'Inst loved' 'install = ["needy"]' 'exclude = ["unloved"]' "$own" "$key"
is 'what is excluded stays out' "$(grep -c 'Inst unloved' .plan)" 0
planned 'a version of one package' 'other 1 -> 2' 'install = ["other=2"]' "$own" "$key"
both="repositories = [\"deb $repo_url/main stable main\", \"deb $repo_url/main testing main\"]"
planned 'the newest of two suites' 'app 1 -> 3' 'install = ["app"]' "$both" "$key"
planned 'default_release' 'app 1 -> 2' 'install = ["app"]' 'default_release = "stable"' "$both" "$key"
planned 'a package of another suite by name' 'app 1 -> 3' 'install = ["app/testing"]' 'default_release = "stable"' "$both" "$key"
refused 'a package that is nowhere' "package 'nowhere' does not exist" 'install = ["nowhere"]' "$own" "$key"
refused 'a mistyped name is no regular expression' "package 'ap.' does not exist" 'install = ["ap."]' "$own" "$key"
refused 'a held package that is not there' 'nothere' 'upgrade = "all"' 'hold = ["nothere"]' "$own" "$key"
refused 'a release that no source has' 'nosuch' 'install = ["app"]' 'default_release = "nosuch"' "$own" "$key"
refused 'the wrong key' 'cannot fetch the guest' 'install = ["app"]' "$own" 'repository_keys = ["bad.gpg"]'
matches 'the wrong key: the repository is named' "$(cat .err)" "$repo_url/main"
refused 'no key at all' 'cannot fetch the guest' 'install = ["app"]' "$own"
refused 'a key file that is not there' 'absent.gpg' 'install = ["app"]' "$own" 'repository_keys = ["absent.gpg"]'
repo_down
refused 'a repository that does not answer' '--offline' 'install = ["other"]' 'recommends = true' "$own" "$key"
guest_template 'install = ["other=2"]' "$own" "$key"
kiln plan --offline -detailed-exitcode plain.pkr.hcl >.plan 2>&1
is 'offline: the same as before' "$?" 2
matches 'offline: how old the release files are' "$(cat .plan)" "offline: '$repo_url/main/dists/stable/InRelease' is taken as it was [0-9]+"
repo_serve

# Signatures.
repo=forged
repo_add app 2
repo_publish
sed -i 's/^Label: Test/Label: Text/' repos/forged/dists/stable/InRelease
refused 'a signature that does not match' 'cannot fetch the guest' 'install = ["app"]' "repositories = [\"deb $repo_url/forged stable main\"]" "$key"
repo=swapped
repo_add app 2
repo_publish
echo >>repos/swapped/dists/stable/main/binary-amd64/Packages
refused 'an index that the release file does not name' 'cannot fetch the guest' 'install = ["app"]' \
    "repositories = [\"deb $repo_url/swapped stable main\"]" "$key"
repo=main

guest_new keys
cp good.gpg guest-keys/usr/share/keyrings/ours.gpg
guest_source "[signed-by=/usr/share/keyrings/ours.gpg]"
guest_seal
planned 'the guest brings the key: a keyring' '1 new' 'install = ["loved"]'
guest_new inside
{
    printf 'Types: deb\nURIs: %s/main\nSuites: stable\nComponents: main\nSigned-By:\n' "$repo_url"
    sed 's/^$/./; s/^/ /' good.asc
} >guest-inside/etc/apt/sources.list.d/ours.sources
guest_seal
planned 'the guest brings the key: inside its source' '1 new' 'install = ["loved"]'
guest_new trusted
cp good.asc guest-trusted/etc/apt/trusted.gpg.d/ours.asc
guest_source ''
guest_seal
planned 'the guest brings the key: trusted.gpg.d' '1 new' 'install = ["loved"]'
guest_new stranger
cp bad.gpg guest-stranger/etc/apt/trusted.gpg.d/other.gpg
guest_source ''
guest_seal
refused 'a key that only the template trusts does not sign what is of the guest' 'cannot fetch the guest' 'install = ["loved"]' \
    "repositories = [\"deb $repo_url/main testing main\"]" "$key"

# Another release, pins, a hold of its own.
guest_new later
cp good.gpg guest-later/etc/apt/trusted.gpg.d/ours.gpg
guest_source '' main testing
guest_has app 1
guest_has other 1
guest_status='hold ok installed' guest_has held 1
printf 'Package: other\nPin: version 1*\nPin-Priority: 1001\n' >guest-later/etc/apt/preferences.d/pin
printf 'Package: app\nPin: version 1*\nPin-Priority: 1001\n' >guest-later/etc/apt/preferences.d/pin.bak
guest_seal
planned 'a guest of another release, with pins and holds' '1 upgraded \(app 1 -> 3\)' 'upgrade = "all"' 'hold = ["held"]'

# Security updates only, by where they come from.
repo=secure
repo_suite=stable-security
repo_add other 1.1
repo_publish
repo_suite=stable
repo=main
guest_new patched
cp good.gpg guest-patched/etc/apt/trusted.gpg.d/ours.gpg
guest_source ''
guest_source '' secure stable-security
guest_has app 1
guest_has other 1
guest_has held 1
guest_seal
planned 'upgrade = "security"' '1 upgraded \(other 1 -> 1\.1\)' 'upgrade = "security"'

# ---- a guest that wants the host ----

marks=$repo_home/marks
mkdir -m 1777 "$marks"
mkdir -p evil bait
for method in http https file copy gpgv store; do
    printf '#!/bin/sh\ntouch %s/method-%s\n' "$marks" "$method" >"evil/$method"
done
chmod -R a+rx evil
cp -r evil "$repo_home/methods"
repo=bait
repo_add bait 1
repo_publish
cp -r repos/bait "$repo_home/bait"
repo=main

guest_new hostile
cp good.gpg guest-hostile/etc/apt/trusted.gpg.d/ours.gpg
guest_source ''
guest_has app 1
guest_has "-oAPT::Update::Pre-Invoke::=touch" 1
guest_has "?essential" 1
guest_has "held" '1;touch'
{
    echo "deb [trusted=yes] file:$repo_home/bait stable main"
    echo "deb [trusted=yes] copy:$repo_home/bait stable main"
    echo "deb [trusted=yes] store:$repo_home/bait stable main"
    echo "deb [trusted=yes] mirror+file:$repo_home/mirrors stable main"
    echo "deb [trusted=yes] ssh://localhost/$repo_home/bait stable main"
    echo "deb [trusted=yes] cdrom:[bait]/ stable main"
    echo "deb [signed-by=$WORK/good.gpg] $repo_url/secure stable-security main"
} >guest-hostile/etc/apt/sources.list.d/host.list
sed -i '$d' guest-hostile/etc/apt/sources.list.d/host.list
for hook in APT::Update::Pre-Invoke APT::Update::Post-Invoke APT::Update::Post-Invoke-Success APT::Update::Post-Invoke-Stats \
    DPkg::Pre-Invoke DPkg::Post-Invoke DPkg::Pre-Install-Pkgs AptCli::Hooks::Install Acquire::http::Proxy-Auto-Detect; do
    echo "$hook { \"touch $marks/$(echo "$hook" | tr -d :)\"; };"
done >guest-hostile/etc/apt/apt.conf.d/00hooks
cat >guest-hostile/etc/apt/apt.conf <<HOOKS
Dir::Bin::methods "$repo_home/methods";
Dir::Bin::dpkg "$repo_home/methods/http";
Dir::Bin::apt-key "$repo_home/methods/gpgv";
Dir::Log::Terminal "$marks/terminal";
Dir::State::status "/etc/shadow";
Dir::Cache "$marks/cache";
Acquire::http::Proxy "http://127.0.0.1:9/";
Acquire::https::Proxy "http://127.0.0.1:9/";
APT::Get::AllowUnauthenticated "true";
#include "/etc/shadow"
HOOKS
ln -s ../../../../../../../../../etc/shadow guest-hostile/etc/apt/sources.list.d/shadow.list
ln -s loop.list guest-hostile/etc/apt/sources.list.d/loop.list
mkdir guest-hostile/etc/apt/sources.list.d/folder.list guest-hostile/etc/apt/preferences.d/folder
mkfifo guest-hostile/etc/apt/sources.list.d/pipe.sources
printf 'Types: deb\nURIs: file:%s/bait\nSuites: stable\nComponents: main\nTrusted: yes\n' "$repo_home" \
    >guest-hostile/etc/apt/sources.list.d/bait.sources
guest_seal
planned 'a hostile guest is resolved' '1 new' 'install = ["loved"]'
refused 'files of the host are none of its sources' "package 'bait' does not exist" 'install = ["bait"]'
planned 'and upgraded' '-> ' 'upgrade = "all"'
guest_template 'upgrade = "security"'
timeout 90 "$KILN" plan hostile.pkr.hcl >.plan 2>&1
is 'it does not hang' "$(($? < 124))" 1
is 'no mark of it on the host' "$(ls -A "$marks")" ''
is 'no word of the host came out' "$(grep -c 'root:' .plan)" 0

for broken in 'Package: \001\n' 'Package: app\nStatus: install ok installed\n' ''; do
    guest_new broken
    printf "$broken" >guest-broken/var/lib/dpkg/status
    printf 'Package: *\nPin: nonsense\n' >guest-broken/etc/apt/preferences
    guest_seal
    guest_template 'install = ["loved"]' "$own" "$key"
    timeout 90 "$KILN" plan broken.pkr.hcl >.plan 2>&1
    is 'a broken database ends in a sentence or a plan' "$(($? < 3))$(grep -c 'Segm\|CRITICAL\|Assert' .plan)" 10
    rm -rf guest-broken layout-broken
done

# ---- real roots ----

cat >base.pkr.hcl <<'END_OF_TEMPLATE'
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "packages-base"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = ["rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*"]
  }
  output "oci" {}
}
END_OF_TEMPLATE
ok 'a root without sources of its own' kiln bake base.pkr.hcl || finish

repo=stale
repo_add news 1
repo_publish
stale="repositories = [\"deb $repo_url/stale stable main\"]"
news() { # file, text of /etc/salt, further steps
    cat >"$1" <<END_OF_TEMPLATE
source "oci" "base" { from = "image:packages-base" }
build {
  name    = "packages-news"
  sources = ["source.oci.base"]
  provisioner "file" {
    content     = "$2"
    destination = "/etc/salt"
  }
  provisioner "packages" {
    install = ["news"]
    $stale
    $key
  }
$3
  provisioner "shell" {
    name = "tell"
    inline = ["dpkg-query -W -f 'it is \$\${Package} \$\${Version}\\\\n' news"]
  }
  output "oci" {}
}
END_OF_TEMPLATE
}
news news.pkr.hcl one ''
ok 'it bakes' kiln bake --lock news.lock news.pkr.hcl || finish
cp .out news.out
matches 'the package is there' "$(cat .err)" 'it is news 1'
kiln plan -detailed-exitcode news.pkr.hcl >.plan 2>&1
is 'then there is nothing to do' "$?" 0
news empty.pkr.hcl one "  provisioner \"packages\" {
    install = [\"news\"]
    $stale
    $key
  }"
kiln plan -detailed-exitcode empty.pkr.hcl >.plan 2>&1
is 'a step that has nothing to do changes no key behind it' "$?: $(grep -c '^  hit' .plan)" '0: 5'
matches 'and says so' "$(cat .plan)" 'hit .*nothing to do'

# The text of the template never changes; the repository does.
missed=0
hit=0
for round in 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do
    repo_add news $round
    repo_publish
    kiln plan -detailed-exitcode news.pkr.hcl >.plan 2>&1
    [ $? -eq 2 ] && grep -q "miss .*(package news 1 -> $round)" .plan && missed=$((missed + 1)) || explain .plan 5
    repo_drop news $round
    repo_publish
    kiln plan -detailed-exitcode news.pkr.hcl >.plan 2>&1
    [ $? -eq 0 ] && hit=$((hit + 1)) || explain .plan 5
done
is 'a new version is seen, 20 of 20 times' $missed 20
is 'and without one there is nothing to do, 20 of 20 times' $hit 20

# A lock replays what was, whatever the repository has now: even a package that is gone from there.
repo_add news 2
repo_drop news 1
repo_publish
kiln plan -detailed-exitcode news.pkr.hcl >.plan 2>&1
is 'the repository has moved on' "$?" 2
kiln plan -detailed-exitcode --locked news.lock news.pkr.hcl >.plan 2>&1
is 'with the lock there is nothing to do' "$?" 0
ok 'bake --locked makes nothing' kiln bake --locked news.lock news.pkr.hcl
is 'and has the same images' "$(cat .out)" "$(cat news.out)"
news salted.pkr.hcl two ''
ok 'bake --locked behind another step' kiln bake --locked news.lock salted.pkr.hcl
matches 'replays the older version' "$(cat .err)" 'it is news 1$'

edit_lock() { # python expression with "t", the transaction of the step
    python3 -c 'import json, sys
lock = json.load(open("news.lock"))
t = lock["builds"]["packages-news"]["2"]
exec(sys.argv[1])
json.dump(lock, open("edited.lock", "w"))' "$1"
}
gone=$(printf '%064d' 7)
edit_lock "t['install'][0]['sha256'] = '$gone'"
news third.pkr.hcl three ''
fails 1 'a locked package that is nowhere any more' "package 'news'" kiln bake --locked edited.lock third.pkr.hcl
edit_lock "t['install'][0]['from'] = '0.5'"
fails 1 'a lock for another root' 'does not fit' kiln bake --locked edited.lock news.pkr.hcl
edit_lock "t['operations'][0] = ['unpack', 99]"
fails 1 'a lock with a hole' '--lock' kiln bake --locked edited.lock news.pkr.hcl
edit_lock 'del lock["builds"]["packages-news"]["2"]'
fails 1 'a lock without the step' 'no transaction for provisioner 2' kiln bake --locked edited.lock news.pkr.hcl
echo '{}' >edited.lock
fails 1 'a file that is no lock' 'edited.lock' kiln bake --locked edited.lock news.pkr.hcl
fails 1 'a lock that is not there' 'absent.lock' kiln plan --locked absent.lock news.pkr.hcl

# Everything that a transaction can do to a root.
debs() { # package, path, text: a configuration file of it
    mkdir -p "debs/$1/DEBIAN" "debs/$1/$(dirname "$2")"
    echo "$3" >"debs/$1/$2"
    grep -qsx "/$2" "debs/$1/DEBIAN/conffiles" || echo "/$2" >>"debs/$1/DEBIAN/conffiles"
}
repo=first
debs app etc/app.conf one
debs app etc/quiet.conf one
repo_add app 1 'Depends: lib-a' 'Recommends: extra'
repo_add lib-a 1
repo_add extra 1
repo_add held 1
repo_add keepme 1
mkdir -p debs/asker/DEBIAN
printf 'Template: asker/colour\nType: string\nDescription: Colour?\n\nTemplate: asker/sure\nType: boolean\nDescription: Sure?\n' \
    >debs/asker/DEBIAN/templates
printf '#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_input high asker/colour || true\ndb_go || true\n' >debs/asker/DEBIAN/config
cat >debs/asker/DEBIAN/postinst <<'SCRIPT'
#!/bin/sh
set -e
. /usr/share/debconf/confmodule
db_get asker/colour
colour=$RET
db_get asker/sure
echo "$colour $RET" >/etc/asker
SCRIPT
chmod 755 debs/asker/DEBIAN/config debs/asker/DEBIAN/postinst
repo_add asker 1
repo_publish
repo=second
debs app etc/app.conf two
debs app etc/quiet.conf two
repo_add app 2
repo_add held 2
repo_publish
repo=third
debs app etc/app.conf three
repo_add app 3
repo_publish
from() { printf 'repositories = ["deb %s/%s stable main"]\n    %s' "$repo_url" "$1" "$key"; }
state='"for f in app.conf quiet.conf asker; do echo \"$f: $(cat /etc/$f 2>&1)\"; done", "dpkg-query -W -f \"have: \\$${Package} \\$${Version} \\$${Status}\\n\" app lib-a extra held keepme asker 2>/dev/null || true", "dpkg --audit"'
cat >life.pkr.hcl <<END_OF_TEMPLATE
source "oci" "base" { from = "image:packages-base" }
build {
  name    = "packages-life"
  sources = ["source.oci.base"]
  provisioner "packages" {
    install = ["app", "held", "keepme", "asker"]
    debconf = { "asker asker/colour string" = "sky blue", "asker asker/sure boolean" = true }
    $(from first)
  }
  provisioner "shell" {
    name = "one"
    inline = [$state, "echo local > /etc/app.conf"]
  }
  provisioner "packages" {
    name = "keep"
    upgrade = "all"
    hold    = ["held"]
    $(from second)
  }
  provisioner "shell" {
    name = "two"
    inline = [$state, "cat /etc/app.conf.dpkg-dist"]
  }
  provisioner "packages" {
    name = "new"
    upgrade   = "all"
    conffiles = "new"
    hold      = ["held"]
    $(from third)
  }
  provisioner "packages" {
    name = "less"
    remove     = ["keepme"]
    autoremove = true
  }
  provisioner "packages" {
    name = "nothing"
    install = ["app"]
  }
  provisioner "shell" {
    name = "three"
    inline = [$state]
  }
  output "oci" {}
}
END_OF_TEMPLATE
ok 'a life of packages' kiln bake life.pkr.hcl || finish
cp .err life
is 'installed' "$(grep -E 'one: have.* ok installed' life | sed 's/.*have: //' | tr '\n' ';')" \
    'app 1 install ok installed;asker 1 install ok installed;held 1 install ok installed;keepme 1 install ok installed;lib-a 1 install ok installed;'
matches 'what is recommended is not' "$(cat life)" 'one: quiet.conf: one'
matches 'debconf has its answers' "$(cat life)" 'one: asker: sky blue true'
is 'upgraded, but for what is held' "$(grep -E 'two: have: (app|held) ' life | sed 's/.*have: //' | tr '\n' ';')" \
    'app 2 install ok installed;held 1 install ok installed;'
matches 'a changed configuration file is kept' "$(cat life)" 'two: app.conf: local'
matches 'which is told' "$(cat life)" "keep: kept the guest's own /etc/app.conf; the package's is /etc/app.conf.dpkg-dist"
is 'once' "$(grep -c "kept the guest's own" life)" 1
matches "the package's lies beside it" "$(cat life)" 'two: two$'
matches 'an unchanged one is replaced' "$(cat life)" 'two: quiet.conf: two'
matches 'conffiles = "new" replaces the changed one' "$(cat life)" 'three: app.conf: three'
is 'removed, and what only that needed' "$(grep -E 'three: have.* ok installed' life | sed 's/.*have: //' | tr '\n' ';')" \
    'app 3 install ok installed;asker 1 install ok installed;held 1 install ok installed;'
is 'what has nothing to do does not run' "$(grep -c 'step 7 of' life)" 0
is 'dpkg finds nothing to complain about' "$(grep -c 'three: The following packages' life)" 0

# Kernels: all but the newest and one before it go in a night's upgrade, and a /boot that has no room is told before anything is unpacked.
repo=kernels
repo_add linux-image-5.1-test 1
repo_add linux-image-5.2-test 1
repo_add kernel-meta 1 'Depends: linux-image-5.2-test'
repo_publish
repo=newer
repo_add linux-image-5.3-test 1
repo_add kernel-meta 2 'Depends: linux-image-5.3-test'
repo_publish
cat >kernels.pkr.hcl <<END_OF_TEMPLATE
variable "size" { default = "1M" }
source "oci" "base" { from = "image:packages-base" }
build {
  name    = "packages-kernels"
  sources = ["source.oci.base"]
  provisioner "packages" {
    install = ["linux-image-5.1-test", "kernel-meta"]
    $(from kernels)
  }
  provisioner "shell" {
    inline = ["truncate -s \${var.size} /boot/initrd.img-5.2-test"]
  }
  provisioner "packages" {
    upgrade = "all"
    $(from newer)
  }
  provisioner "shell" {
    name = "left"
    inline = ["dpkg-query -W -f 'kernel \$\${Package} \$\${Status}\\\\n' 'linux-image-5*' | grep ' ok installed'"]
  }
  output "oci" {}
}
END_OF_TEMPLATE
ok 'a night with a new kernel' kiln bake kernels.pkr.hcl
is 'the one before it stays, older ones go' "$(sed -n 's/.*left: kernel \([^ ]*\) .*/\1/p' .err | tr '\n' ' ')" 'linux-image-5.2-test linux-image-5.3-test '
fails 1 'a full /boot is told before the install' '/boot is too full for a new kernel' kiln bake -var size=40G kernels.pkr.hcl
not_ok 'and nothing was unpacked' grep -q 'Unpacking linux-image-5.3' .err
is 'no process is left' "$(left_behind "$KILN_STORE")" ''
matches 'stats counts the fetched packages' "$(kiln stats)" '^packages.count +[1-9]'
ok 'gc that leaves no room for packages' kiln gc --package-quota 0
matches 'forgets them' "$(cat .out)" '[1-9][0-9]* memos'
matches 'all of them' "$(kiln stats)" '^packages.count +0'
fails 2 'a quota that is no size' "'much' is not a size" kiln gc --package-quota much
ok 'fsck is clean' kiln fsck
finish
