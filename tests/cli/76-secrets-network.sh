#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a step may know and reach: secrets that stay nowhere, a network that is recorded, results that age.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap python3 zstd curl openssl
KILN_STORE=$WORK/store # this script runs beside those that share one

template() { # file, build, lines of the build
    cat >"$1" <<END
source "bootstrap" "base" { suite = "bookworm" }
variable "password" {
  default   = "correct-horse-battery"
  sensitive = true
}
build {
  name    = "$2"
  sources = ["source.bootstrap.base"]
$3
  output "oci" {}
}
END
}
# Every byte of the store, unpacked where it is packed.
store_holds() { # text
    find "$KILN_STORE" -type f | while read -r file; do
        grep -qaF -- "$1" "$file" && echo "$file"
        zstd -dcqf "$file" 2>/dev/null | grep -qaF -- "$1" && echo "$file unpacked"
    done
}
# Which of the texts are in a folder's files, as they are or unpacked.
found_in() { # folder, text...
    folder=$1
    shift
    for text in "$@"; do printf '%s\n' "$text"; done >.texts
    { find "$folder" -type f -exec cat {} +; find "$folder" -type f -exec zstd -dcqf {} + 2>/dev/null; } | grep -aoFf .texts | sort -u | tr '\n' ' '
}

# ---- secrets ----

TOKEN=$(head -c 18 /dev/urandom | od -An -tx1 | tr -d ' \n')
export TOKEN
encoded=$(printf %s "$TOKEN" | base64)
secret='  secret "token" { env = "TOKEN" }'
template quiet.pkr.hcl secrets "$secret
  provisioner \"shell\" {
    inline = [\"cat /run/secrets/token\", \"base64 -w0 </run/secrets/token; echo\", \"echo \${var.password}\", \"stat -f -c %T /run/secrets/token\", \"wc -c </run/secrets/token > /etc/length\"]
  }"
ok 'a step with a secret' kiln bake quiet.pkr.hcl || finish
is 'it is in no line' "$(grep -c "$TOKEN" .err)" 0
is 'nor is its base64' "$(grep -c "$encoded" .err)" 0
is 'nor is a sensitive value' "$(grep -c correct-horse .err)" 0
matches 'it lay on a tmpfs' "$(cat .err)" 'shell: tmpfs'
is 'it is in no byte of the store' "$(store_holds "$TOKEN")" ''
is 'a sensitive value neither' "$(store_holds correct-horse-battery)" ''
TOKEN=another-token-of-another-day kiln plan -detailed-exitcode quiet.pkr.hcl >.plan 2>&1
is 'another secret is no other step' "$?" 0
fails 2 'a secret that is not set' 'TOKEN is not set' env -u TOKEN "$KILN" bake quiet.pkr.hcl

leak() { # what, lines
    template leak.pkr.hcl secrets-leak "$secret
  provisioner \"shell\" {
    inline = [$2]
  }"
    fails 1 "$1: the step fails" "secret 'token' was written to the disk" kiln bake leak.pkr.hcl
    is "$1: nothing of it is kept" "$(store_holds "$TOKEN"; store_holds "$encoded")" ''
}
leak 'copied and deleted' '"cp /run/secrets/token /root/copy", "sync", "rm /root/copy"'
leak 'as base64 in the middle of a file' '"{ head -c 5000 /dev/zero; base64 -w0 /run/secrets/token; } > /root/packed"'
fails 1 'a sensitive value on the disk' 'a sensitive value was written to the disk' sh -c "
    sed 's/cat .run.secrets.token/echo \${var.password} > \/root\/password/' quiet.pkr.hcl > password.pkr.hcl; '$KILN' bake password.pkr.hcl"

# ---- what was deleted stays at home ----

# No text of the template has it in one piece, as the template goes with the image.
half=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
template deleted.pkr.hcl deleted "  provisioner \"shell\" {
    inline = [\"seq -f '%g same-'$half 3000 >/root/one\", \"sync\", \"rm /root/one\"]
  }
  provisioner \"shell\" {
    inline = [\"seq -f '%g later-'$half 3000 >/etc/two\"]
  }
  provisioner \"shell\" {
    inline = [\"rm /etc/two\"]
  }
  output \"disk\" {}"
ok 'a bake that makes and deletes secrets' kiln bake deleted.pkr.hcl
is 'the working disk has one: the search finds it' "$(found_in "$KILN_STORE/segments" "later-$half")" "later-$half "
. "$TREE/tests/registry/lib.sh"
serve() { # store, options: on $port, until stop_registries
    store=$1
    shift
    rm -f url
    port=$(free_port)
    "$KILN" --store "$store" serve --listen "127.0.0.1:$port" --access-log - "$@" >url 2>serve.err &
    servers="$servers $!"
    for _ in $(seq 400); do [ -s url ] && break; sleep 0.05; done
}
printf 'ci:%s\n' "$(openssl passwd -6 -salt salt ci-secret)" >users
serve taken --htpasswd users --write-users ci
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$port" "$(printf ci:ci-secret | base64)" >"$DOCKER_CONFIG/config.json"
places=127.0.0.1:$port
have docker-registry && registry "$WORK/registry" && places="$places $registry"
for place in $places; do
    for kind in disk oci; do ok "its $kind goes to a registry" kiln push "deleted/$kind" "docker://$place/deleted-$kind:1"; done
done
serve "$KILN_STORE"
mkdir fetched
for kind in disk oci; do
    curl -s "http://127.0.0.1:$port/v2/deleted/$kind/manifests/latest" >"fetched/$kind"
    grep -o 'sha256:[0-9a-f]*' "fetched/$kind" | while read -r digest; do
        curl -s "http://127.0.0.1:$port/v2/deleted/$kind/blobs/$digest" >"fetched/${digest#sha256:}"
    done
done
matches 'and all of it is fetched from this store' "$(du -sm fetched | cut -f1)" '^[0-9]{2,}$'
for folder in taken registry fetched; do
    [ -d $folder ] || continue
    is "of all bytes in '$folder' none is of a secret" "$(found_in $folder "same-$half" "later-$half" 'Debian GNU/Linux')" 'Debian GNU/Linux '
done
stop_registries() {
    for server in $servers; do kill "$server" 2>/dev/null; done
    servers=
}
stop_registries
rm -rf taken registry fetched

# ---- network ----

port=$(free_port)
mkdir -p served data
echo one >served/page
python3 -m http.server --bind 127.0.0.1 --directory served "$port" >/dev/null 2>&1 &
server=$!
trap 'kill $server; cleanup' EXIT
# The host's loopback services answer at the router of qemu's network.
fetch="bash -c 'exec 3<>/dev/tcp/169.254.2.2/$port; printf \\\"GET /page HTTP/1.0\\\\r\\\\n\\\\r\\\\n\\\" >&3; tail -n 1 <&3 > /etc/fetched'"
template net.pkr.hcl network "  provisioner \"shell\" {
    name    = \"quiet\"
    network = true
    refresh = \"3s\"
    inline  = [\"echo reached nothing > /etc/quiet\"]
  }
  provisioner \"shell\" {
    name    = \"fetch\"
    network = true
    refresh = \"3s\"
    inline  = [\"$fetch\"]
  }
  provisioner \"shell\" {
    name    = \"offline\"
    inline  = [\"if $fetch; then exit 9; fi 2>/dev/null; echo it is \$(cat /etc/fetched)\"]
  }"
ok 'steps with and without network' kiln --json bake net.pkr.hcl || finish
matches 'the one with it fetched' "$(cat .err)" 'offline: it is one'
reached() { python3 -c 'import json, sys
for s in json.load(open(".out"))["bakes"][0]["steps"]:
    if s["step"] == sys.argv[1]: print(" ".join(s.get("reached", ["unknown"])))' "$1"; }
is 'what it reached is recorded' "$(reached fetch)" "host:$port"
is 'and that another reached nothing' "$(reached quiet)" ''
sleep 4
kiln plan -detailed-exitcode net.pkr.hcl >.plan 2>&1
is 'the result of the network ages' "$?" 2
matches 'as the plan says' "$(cat .plan)" 'miss +2  fetch  \(refresh: [0-9]+ s old\)'
matches 'what reached nothing does not' "$(cat .plan)" 'hit +1  quiet'
ok 'it is fetched again' kiln --json bake net.pkr.hcl
is 'and what comes of it is the same, so nothing behind it runs' "$(python3 -c 'import json
print([s["step"] for s in json.load(open(".out"))["bakes"][0]["steps"] if not s["cached"]])')" "['fetch']"
echo two >served/page
ok 'asked for' kiln bake --refresh net.pkr.hcl
matches 'it is fetched at once' "$(cat .err)" 'offline: it is two'

# Declared inputs in place of an age.
echo 1 >data/a
sed -e 's/name    = "network"/name    = "declared"/' -e '/name    = "fetch"/,/inline/s/refresh = .*/inputs  = ["data\/*"]/' net.pkr.hcl >declared.pkr.hcl
ok 'a step with declared inputs' kiln bake declared.pkr.hcl
sleep 4
kiln plan -detailed-exitcode declared.pkr.hcl >.plan 2>&1
is 'does not age' "$?" 0
echo 2 >data/a
kiln plan -detailed-exitcode declared.pkr.hcl >.plan 2>&1
is 'but follows them' "$?" 2
matches 'which the plan names' "$(cat .plan)" 'miss +2  fetch  \(file data/a: content\)'
rm data/a
fails 2 'inputs that match nothing' 'data/*' kiln plan declared.pkr.hcl
sed -i 's/refresh = "3s"/refresh = "soon"/' net.pkr.hcl
fails 2 'a refresh that is no duration' 'refresh is a duration' kiln plan net.pkr.hcl
is 'no process is left' "$(left_behind "$KILN_STORE")" ''
ok 'fsck is clean' kiln fsck
finish
