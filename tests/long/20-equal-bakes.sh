#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Cold bakes of one template from one lock, each with a store of its own, in another folder, at another date, with another umask, zone, load and user:
# equal image IDs, raw and qcow2 disks and OCI manifests. For each template that ships, and for one that is full of what tends to differ.
#
#   KILN_TEST_BAKES      how many of each, default 20
#   KILN_TEST_TEMPLATES  which, default "debian-web site equal"
#   KILN_TEST_USER       a user with subordinate user IDs (/etc/subuid) who does each third bake; without: all are done by who runs this
#
# Dates need faketime, and where it is there the root is bootstrapped before the clock is moved: apt in the root checks signatures by that clock.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap sha256sum jq

bakes=${KILN_TEST_BAKES:-20}
templates=${KILN_TEST_TEMPLATES:-debian-web site equal}
chmod 711 "$WORK"

# A template's file goes into the folder $2; its variables to $vars.
put_template() { # name folder
    vars=
    case $1 in
    site)
        cp "$TREE/packaging/demo-groups/site.pkr.hcl" "$2/template.pkr.hcl"
        vars='-var version=1'
        ;;
    equal)
        cat >"$2/template.pkr.hcl" <<'END_OF_TEMPLATE'
source "bootstrap" "base" {
  suite    = "bookworm"
  packages = ["openssh-server", "python3-minimal"]
}
build {
  name    = "equal"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = [
      "useradd -m alice",
      "mkdir -p /srv/data && for i in $(seq 200); do echo line $i > /srv/data/$i; done",
      "ln /srv/data/1 /srv/data/one; setcap cap_net_raw+ep /usr/bin/true 2>/dev/null || true",
      "date > /etc/built; hostname > /etc/builder; umask > /etc/umask; echo $RANDOM > /dev/null",
      "python3 -c 'import json; print(json.dumps({\"a\": 1}))' > /etc/json",
    ]
  }
  output "disk" {}
  output "oci" { cmd = ["/bin/bash"] }
}
END_OF_TEMPLATE
        ;;
    *) cp "$TREE/templates/library/$1.pkr.hcl" "$2/template.pkr.hcl" ;;
    esac
}

# The same source alone: makes the bare root, which is shared by content.
put_bare() { # folder
    awk '/^variable|^locals|^source/ { on = 1 } on { print } /^}/ { on = 0 }' "$1/template.pkr.hcl" >"$1/bare.pkr.hcl"
    kind=$(sed -n 's/^source "\([a-z]*\)" "\([a-z]*\)".*/\1.\2/p' "$1/template.pkr.hcl")
    printf 'build {\n  name    = "bare"\n  sources = ["source.%s"]\n}\n' "$kind" >>"$1/bare.pkr.hcl"
}

can_be_other=
if [ -n "${KILN_TEST_USER:-}" ] && [ "$(id -u)" -eq 0 ] && have setpriv && grep -q "^$KILN_TEST_USER:" /etc/subuid; then can_be_other=yes; fi

# In the folder, by the user and in the zone of that number.
around() { # number command...
    set_user=
    if [ -n "$can_be_other" ] && [ $(($1 % 3)) -eq 0 ]; then
        set_user="setpriv --reuid=$(id -u "$KILN_TEST_USER") --regid=$(id -g "$KILN_TEST_USER") --init-groups"
    fi
    zone="Etc/GMT+$(($1 % 12))"
    case $(($1 % 3)) in 0) mask=077 ;; 1) mask=022 ;; *) mask=002 ;; esac
    shift
    # shellcheck disable=SC2086 # words
    (umask $mask && TZ=$zone exec $set_user env HOME="$PWD" XDG_CACHE_HOME="$PWD/cache" TMPDIR="$PWD/tmp" KILN_STORE="$PWD/store" "$@")
}

one_bake() { # template number
    folder="$WORK/$1 folder $2"
    mkdir -p "$folder/tmp"
    cd "$folder" || return 1
    put_template "$1" "$folder"
    lock='--lock lock'
    if [ -s "$WORK/$1.lock" ]; then cp "$WORK/$1.lock" lock && lock='--locked lock'; fi
    date=
    if have faketime; then
        put_bare "$folder"
        date="faketime -f +$(($2 * 7 % 13))d" # not more: Debian's lists of updates are good for a week or two; none before they were made
    fi
    [ -z "$can_be_other" ] || [ $(($2 % 3)) -ne 0 ] || chown -R "$KILN_TEST_USER" "$folder"
    load=
    if [ $(($2 % 2)) -eq 0 ]; then
        nice sha256sum /dev/zero &
        load=$!
    fi
    # shellcheck disable=SC2086 # words
    { [ -z "$date" ] || around "$2" "$KILN" bake $vars bare.pkr.hcl; } >log 2>&1 &&
        around "$2" $date "$KILN" bake --no-cache $lock $vars template.pkr.hcl >ids 2>>log
    status=$?
    [ -z "$load" ] || kill "$load"
    [ $status -eq 0 ] || return 1
    [ -s "$WORK/$1.lock" ] || cp lock "$WORK/$1.lock"
    name=$(awk 'NR == 1 { print $1 }' ids)
    # To files: what a pipe gets of an export that fails has an equal sum in every folder.
    around "$2" "$KILN" export "$name/disk" disk.raw 2>>log && around "$2" "$KILN" export "$name/disk" disk.qcow2 2>>log || return 1
    {
        cat ids
        sha256sum <disk.raw
        sha256sum <disk.qcow2
        ! grep -q ' oci ' ids || around "$2" "$KILN" show "$name/oci" --json | jq -r .manifest
    } >result
    rm -rf disk.raw disk.qcow2 store cache tmp
}

for template in $templates; do
    bake=1
    while [ "$bake" -le "$bakes" ]; do
        start=$(date +%s)
        ok "$template: bake $bake" one_bake "$template" "$bake" || { explain "$WORK/$template folder $bake/log"; break; }
        echo "# $(($(date +%s) - start)) s"
        cd "$WORK" || exit 1
        [ "$bake" -eq 1 ] ||
            is "$template: bake $bake: image IDs, raw disk, qcow2 and OCI manifest" "$(cat "$template folder $bake/result")" "$(cat "$template folder 1/result")"
        bake=$((bake + 1))
    done
done
[ -n "$can_be_other" ] || skip 'bakes by another user' 'KILN_TEST_USER names none with subordinate user IDs'
have faketime || skip 'bakes on other dates' 'faketime is not installed'
finish
