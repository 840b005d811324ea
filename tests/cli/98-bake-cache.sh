#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A bake cache that machines share: a fresh one repeats another one's bake by fetching the result, goes on from another one's state, and believes
# nobody whose key it was not given.
. "$(dirname "$0")/../lib.sh"
require jq python3 curl openssl
. "$TREE/tests/fake-s3.sh"
KILN_STORE=$WORK/store-a
start_fake_s3 || { result 1 'a fake S3'; finish; }
cache=s3://bucket/ci

mkdir -p root/etc root/usr/share
head -c 20000000 /dev/urandom >root/usr/share/data
tar cf parent.tar -C root etc usr
oci_layout parent parent.tar >/dev/null
template() { # content of the last step
    cat >box.pkr.hcl <<END
source "oci" "parent" {
  from = "oci:parent:v1"
}
build {
  name    = "box"
  sources = ["source.oci.parent"]
  provisioner "file" {
    content     = "one\n"
    destination = "/etc/one"
  }
  provisioner "file" {
    content     = "$1\n"
    destination = "/etc/two"
  }
  output "oci" {}
}
END
}
template two
kiln sign --generate writer >/dev/null 2>&1
kiln sign --generate other >/dev/null 2>&1
shared="--cache-from=$cache --cache-key=writer.pub"
on() { store=$1; shift; kiln --store "$WORK/store-$store" "$@"; }
hits() { on "$1" --json plan $2 box.pkr.hcl 2>/dev/null | jq -c '[.plans[0].chains[0].steps[]? | .state]'; }

fails 2 'a cache without a key' '--cache-key' kiln bake "--cache-from=$cache" box.pkr.hcl
fails 1 'writing with half a key' '--cache-key' kiln bake "--cache-to=$cache" --cache-key=writer.pub box.pkr.hcl
fails 2 'verify reads no cache' 'cache-from' kiln verify "--cache-from=$cache" box.pkr.hcl
ok 'the first machine bakes' kiln bake "--cache-from=$cache" "--cache-to=$cache" --cache-key=writer box.pkr.hcl || finish
first=$(id_of box oci <"$WORK/.out")
fake_s3 _reset
ok 'again it sends nothing' kiln bake "--cache-to=$cache" --cache-key=writer box.pkr.hcl
is 'nothing' "$(s3_stats .in)" 0

# --- a second machine ---
fake_s3 _reset
ok 'the second machine repeats it' on b --json bake $shared box.pkr.hcl
is 'with the same result' "$(jq -r '.artifacts[0].id' "$WORK/.out")" "$first"
is 'without a step run' "$(jq -c '[.bakes[0].steps[].cached] | unique' "$WORK/.out")" '[true]'
fetched=$(s3_stats .out)
ok 'its store is whole' on b fsck --read-data
ok 'the result alone goes to another remote' kiln sync push s3://bucket/plain box
fake_s3 _reset
ok 'and comes from there' on c sync pull s3://bucket/plain box
plain=$(s3_stats .out)
echo "# fetched $fetched bytes, the result alone is $plain"
[ $((fetched - plain)) -le 1000000 ]
result $? 'the second machine fetched the result and at most 5 % of the disk'
on b export box b.tar --format=oci-archive >/dev/null 2>&1
kiln export box a.tar --format=oci-archive >/dev/null 2>&1
ok 'both have the same bytes' cmp a.tar b.tar

# --- what is not believed ---
is 'a plan sees the hits' "$(hits d "$shared")" '["hit","hit","hit"]'
is 'not those that another key signed' "$(hits e "--cache-from=$cache --cache-key=other.pub")" '["unknown","unknown"]'
python3 - "$WORK/bucket-root/bucket/ci/cache" <<'END'
import glob, json, os, shutil, sys
keep = sys.argv[1] + "/../keep"
shutil.copytree(sys.argv[1], keep)
for path in glob.glob(sys.argv[1] + "/state/*/*"):
    envelope = json.load(open(path))
    payload = json.loads(envelope["payload"])
    payload["content"] = "0" * 63 + "1"
    envelope["payload"] = json.dumps(payload)
    json.dump(envelope, open(path, "w"))
END
is 'nor changed ones' "$(hits e "$shared")" '["unknown","unknown"]'
restore() { rm -rf "$WORK/bucket-root/bucket/ci/cache" && cp -r "$WORK/bucket-root/bucket/ci/keep" "$WORK/bucket-root/bucket/ci/cache"; }
restore
said() { on e plan --verbose $shared box.pkr.hcl 2>&1 | grep 'shared cache: ' | head -n 1; }
python3 - "$WORK/bucket-root/bucket/ci/cache" <<'END'
import glob, shutil, sys
paths = sorted(glob.glob(sys.argv[1] + "/*/*/*"))
for kind in ("/state/", "/memo/", "/result/"):
    ours = [p for p in paths if kind in p]
    copies = {p: open(p).read() for p in ours}
    others = [p for p in paths if "/state/" in p] if len(ours) < 2 else ours
    for a, b in zip(ours, others[1:] + others[:1]):
        open(a, "w").write(copies.get(b) or open(b).read())
END
is 'nor those of another key' "$(hits e "$shared")" '["unknown","unknown"]'
matches 'which it says' "$(said)" 'not signed|signature'
restore
for entry in "$WORK"/bucket-root/bucket/ci/cache/state/*/* "$WORK"/bucket-root/bucket/ci/cache/result/*/*; do truncate -s 200 "$entry"; done
is 'nor those that were cut' "$(hits e "$shared")" '["unknown","unknown"]'
is 'which takes a line each, until it is not asked any more' "$(on e plan $shared box.pkr.hcl 2>&1 | grep -c 'shared cache: ')" "$(on e plan $shared box.pkr.hcl 2>&1 | grep -c 'shared cache: .*JSON')"
restore
rm -rf "$WORK/bucket-root/bucket/ci/keep"
fake_s3 _fault '{"method": "GET", "match": "state/", "do": "status", "status": 403, "times": 10}'
is 'a cache that is closed is no cache' "$(hits e "$shared")" '["unknown","unknown"]'
fake_s3 _reset

# --- private stays private ---
classes() { for f in "$1"/*/*; do od -An -tu4 -j20 -N4 "$f"; done | tr -d ' ' | sort | uniq | tr '\n' ' '; }
is 'segments of images are public' "$(classes "$WORK/bucket-root/bucket/ci/segments")" '1 '
matches 'those of states are private' "$(classes "$WORK/bucket-root/bucket/ci/cache/segments")" '^0 '

# --- registries ---
. "$TREE/tests/registry/lib.sh"
trap 'kill $s3_pid $server 2>/dev/null; stop_servers' EXIT
printf 'ci:%s\n' "$(openssl passwd -6 -salt salt ci-secret)" >users
"$KILN" --store served serve --listen 127.0.0.1:0 --htpasswd users --write-users ci --access-log - >url 2>serve.err &
server=$!
for _ in $(seq 100); do [ -s url ] && break; sleep 0.05; done
served=$(sed 's,http://,,' url)
printf '{"auths":{"%s":{"auth":"%s"}}}' "$served" "$(printf ci:ci-secret | base64)" >"$DOCKER_CONFIG/config.json"
repeats() { # what, remote
    ok "$1: the first machine shares its bake" kiln --json bake "--cache-to=$2" --cache-key=writer box.pkr.hcl
    sent=$(jq .cache.sent .out)
    ok "$1: once more" kiln --json bake "--cache-to=$2" --cache-key=writer box.pkr.hcl
    is "$1: sends nothing" "$(jq .cache.sent .out)" 0
    rm -rf "$WORK/store-r"
    ok "$1: a fresh machine repeats it" on r --json bake "--cache-from=$2" --cache-key=writer.pub box.pkr.hcl
    is "$1: with the same result and no step run" "$(jq -r '[.artifacts[0].id, ([.bakes[0].steps[].cached] | unique | tostring)] | join(" ")' .out)" "$first [true]"
    fetched=$(jq .cache.fetched .out)
    echo "# $1: sent $sent, fetched $fetched, the result alone is $plain"
    ok "$1: for the result and at most 5 %" test $((fetched - plain)) -le 1000000
    ok "$1: its store is whole" on r fsck --read-data
    ok "$1: the result goes there by itself" kiln sync push "${2%/cache}/plain" box
    ok "$1: and comes back" on r sync pull "${2%/cache}/plain" box
}
repeats 'kiln serve' "docker://$served/ci/cache"
printf '{"auths":{}}' >"$DOCKER_CONFIG/config.json"
kiln --json bake "--cache-to=docker://$served/ci/cache" --cache-key=writer box.pkr.hcl >.anon 2>.err
matches 'who may not write is told' "$(cat .anon .err)" 'asks for a login'
kill $server
wait $server
if have docker-registry; then
    registry "$WORK/reg"
    repeats 'docker-registry' "docker://$registry/ci/cache"
else
    skip 'docker-registry' 'it is not installed'
fi

# --- a machine that goes on from there ---
template other
is 'a plan of another last step' "$(hits d "$shared")" '["hit","miss","unknown"]'
ok 'the third machine runs that one' on d --json bake $shared box.pkr.hcl
is 'and no other' "$(jq -c '[.bakes[0].steps[].cached]' "$WORK/.out")" '[true,false,false]'
third=$(jq -r '.artifacts[0].id' "$WORK/.out")
ok 'its store is whole' on d fsck --read-data
ok 'also after gc' on d gc --grace 0
ok 'whole' on d fsck --read-data
ok 'its image goes to a remote' on d sync push s3://bucket/third box
is 'in public segments' "$(classes "$WORK/bucket-root/bucket/third/segments")" '1 '
ok 'the first machine bakes that too, with its own states' kiln --json bake box.pkr.hcl
is 'to the same image' "$(jq -r '.artifacts[0].id' "$WORK/.out")" "$third"

# --- what was promised is gone; two more guests, so for make check-long ---
[ -n "${KILN_TEST_ROUNDS:-}" ] || finish
rm -rf "$WORK/bucket-root/bucket/ci/cache/segments" "$WORK/bucket-root/bucket/ci/segments"
ok 'a fourth machine finds states whose bytes are gone' on f --json bake $shared box.pkr.hcl
is 'and bakes itself' "$(jq -r '.artifacts[0].id' "$WORK/.out")" "$third"
matches 'which it says' "$(cat "$WORK/.err")" 'beginning again without it'
ok 'the first machine brings back what is gone' kiln bake "--cache-to=$cache" --cache-key=writer box.pkr.hcl
template two
ok 'of all that it bakes' kiln bake "--cache-to=$cache" --cache-key=writer box.pkr.hcl
ok 'so that a fifth can repeat it' on g --json bake $shared box.pkr.hcl
is 'without a step run' "$(jq -c '[.bakes[0].steps[].cached] | unique' "$WORK/.out")" '[true]'
finish
