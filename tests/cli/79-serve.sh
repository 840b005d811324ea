#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kiln serve: every endpoint of the distribution specification; clients of others in both directions, with equal digests; what is the store's own;
# users, TLS, limits, sockets from outside, and an end at any moment.
. "$(dirname "$0")/../lib.sh"
require python3 curl skopeo jq openssl zstd
KILN_STORE=$WORK/store # this script runs beside those that share one
port=$(free_port)
url=http://127.0.0.1:$port
for user in writer reader; do printf '%s:%s\n' $user "$(openssl passwd -6 -salt "$user" "$user-secret")"; done >users
writer=writer:writer-secret
reader=reader:reader-secret

# Serves in the background until unserve; ready when it says where.
serve() {
    rm -f urls # the one before said where it was, too
    "$KILN" serve --listen "127.0.0.1:$port" --access-log access "$@" >urls 2>serve.err &
    server=$!
    for _ in $(seq 100); do
        [ -s urls ] && return 0
        kill -0 $server 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}
unserve() { kill "$server" 2>/dev/null && wait "$server"; }
trap 'kill $server 2>/dev/null; cleanup' EXIT
code() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

# --- the specification ---
ok 'it serves' serve --htpasswd users --write-users writer
python3 -B "$TREE/tests/serve/endpoints.py" "127.0.0.1:$port" $writer $reader >endpoints
result $? 'all of its endpoints are asked'
while read -r verdict name; do
    case $verdict in
    ok) result 0 "$name" ;;
    *) result 1 "${name#ok }" ;;
    esac
done <endpoints

# --- other people's clients ---
mkdir root root/etc root/usr
head -c 3000000 "$KILN" >root/usr/program
seq 20000 >root/etc/numbers
tar -C root --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1600000000 -cf layer.tar etc usr
oci_layout parent layer.tar >/dev/null
digest_of() { jq -r '.manifests[0].digest' "$1/index.json"; }
to="--dest-tls-verify=false --dest-creds=$writer"
from="--src-tls-verify=false --src-creds=$reader"
here=docker://127.0.0.1:$port
# shellcheck disable=SC2086 # options
{
    ok 'skopeo pushes' skopeo copy -q $to oci:parent:v1 "$here/box:1.0"
    ok 'skopeo pulls' skopeo copy -q $from "$here/box:1.0" oci:pulled:v1
    is 'the same manifest' "$(digest_of pulled)" "$(digest_of parent)"
    is 'the same layer' "$(cd pulled/blobs/sha256 && sha256sum -- * | awk '$1 != $2' | wc -l)" 0
    # The same layer as a plain tar: shares its blocks, and comes back.
    skopeo copy -q --dest-decompress oci:parent:v1 dir:plain >/dev/null 2>&1
    ok 'a plain tar' skopeo copy -q --preserve-digests $to dir:plain "$here/plain:1"
    skopeo copy -q $from "$here/plain:1" dir:plain-back
    is 'comes back as it was' "$(sha256sum <plain-back/manifest.json)" "$(sha256sum <plain/manifest.json)"
    matches 'as a recipe' "$(curl -s -u $reader "$url/metrics")" '^kiln_blobs_taken_as_recipes_total [1-9]'
    if have umoci; then
        ok 'umoci reads what was pulled' umoci unpack --rootless --image pulled:v1 unpacked
        is 'its files' "$(cmp root/usr/program unpacked/rootfs/usr/program && echo same)" same
    fi
    skopeo list-tags --tls-verify=false --creds=$reader "$here/box" >tags
    is 'tags: what was pushed, and the newest of the name' "$(jq -c .Tags tags)" '["1.0","latest"]'
    ok 'docker schema 2' skopeo copy -q --format v2s2 $to oci:parent:v1 "$here/docker:1"
    is 'as it came' "$(skopeo inspect --raw $(echo "$from" | sed 's/src-//g') "$here/docker:1" | jq -r .mediaType)" application/vnd.docker.distribution.manifest.v2+json
}

short_folder
for tool in podman buildah; do
    have $tool || { skip "$tool" 'not installed'; continue; }
    run="$tool --root $WORK/$tool-root --runroot $SHORT/$tool --storage-driver vfs"
    # shellcheck disable=SC2086 # words
    {
        ok "$tool pulls" $run pull -q --tls-verify=false --creds $reader "127.0.0.1:$port/box:1.0"
        is "$tool has the manifest" "$($run images --format '{{.Digest}}' "127.0.0.1:$port/box:1.0")" "$(digest_of parent)"
        ok "$tool pushes what it makes of it" $run push -q --tls-verify=false --creds $writer --digestfile pushed "127.0.0.1:$port/box:1.0" "$here/$tool:1"
        is "the registry has what $tool sent" "$(curl -sI -u $reader -H 'Accept: */*' "$url/v2/$tool/manifests/1" | tr -d '\r' | sed -n 's/^Docker-Content-Digest: //p')" "$(cat pushed)"
        $run rmi -a -f >/dev/null 2>&1
    }
done

# --- what is pushed is an image of the store ---
is 'an image under its name' "$(kiln --json images box | jq -r '.images[0].manifest')" "$(digest_of parent)"
ok 'its files' kiln cat box /etc/numbers
ok 'it comes out of the store too' kiln export box box-out --format=oci-dir
is 'with the same manifest' "$(digest_of box-out)" "$(digest_of parent)"
ok 'it is promoted' kiln promote box prod
is 'a channel is a tag' "$(code -u $reader "$url/v2/box/manifests/prod")" 200
is 'that a push does not move' "$(code -u $writer -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "@parent/blobs/sha256/$(digest_of parent | cut -c 8-)" "$url/v2/box/manifests/prod")" 403
is 'nor takes away' "$(code -u $writer -X DELETE "$url/v2/box/manifests/$(digest_of parent)")" 405
fails 1 'nor kiln rm' 'channel' kiln rm box
id=$(kiln --json images box | jq -r '.images[0].id')
is 'the image ID is a tag' "$(code -u $reader "$url/v2/box/manifests/${id#sha256:}")" 200
is 'a digest of the store that no repository names opens nothing' "$(code -u $reader "$url/v2/box/blobs/$(basename "$(ls -d "$KILN_STORE"/segments/*/* | head -n 1)" | sed 's/^/sha256:/')")" 404

# --- gc, and an end at any moment ---
alone=$(head -c 100000 /dev/urandom | tee blob | sha256sum | cut -c 1-64)
curl -s -u $writer -X POST --data-binary @blob "$url/v2/late/blobs/uploads/?digest=sha256:$alone" >/dev/null
begun=$(curl -si -u $writer -X POST "$url/v2/late/blobs/uploads/" | tr -d '\r' | sed -n 's/^Location: //p')
curl -s -u $writer -X PATCH --data-binary @blob "$url$begun"
ok 'gc beside it' kiln gc --grace 0
is 'a blob that no manifest names yet stays' "$(code -u $reader "$url/v2/late/blobs/sha256:$alone")" 200
is 'an upload goes on' "$(code -u $writer -X PUT "$url$begun?digest=sha256:$alone")" 201
kill -9 "$server"
wait "$server" 2>/dev/null
ok 'after kill -9' serve --htpasswd users --write-users writer
is 'a blob is there' "$(curl -s -u $reader "$url/v2/late/blobs/sha256:$alone" | sha256sum | cut -c 1-64)" "$alone"
is 'a manifest is there' "$(curl -s -u $reader "$url/v2/box/manifests/1.0" | sha256sum | cut -c 1-64)" "$(digest_of parent | cut -c 8-)"
is 'an upload is not' "$(code -u $writer "$url$begun")" 404
is 'of the dead one nothing is left' "$(ls "$KILN_STORE/tmp" | grep -vc "^$server-")" 0
kill -TERM "$server"
wait "$server"
is 'SIGTERM ends it in peace' $? 0
ok 'the store is whole' kiln fsck --read-data
rm "$KILN_STORE"/catalog.db*
ok 'the catalog is lost, and made again' kiln fsck --rebuild
ok 'gc' kiln gc --grace 0
ok 'then' serve --htpasswd users --write-users writer
# shellcheck disable=SC2086 # options
{
    ok 'what was pushed is pulled' skopeo copy -q $from "$here/plain:1" dir:plain-again
    is 'as it was' "$(sha256sum <plain-again/manifest.json)" "$(sha256sum <plain/manifest.json)"
}
unserve
ok 'a copy of the store' kiln sync --all copy
KILN_STORE=$WORK/copy
ok 'serves the same' serve --htpasswd users
is 'what was pushed' "$(curl -s -u $reader "$url/v2/plain/manifests/1" | sha256sum | cut -c 1-64)" "$(sha256sum <plain/manifest.json | cut -c 1-64)"
layer=$(jq -r '.layers[0].digest' plain/manifest.json)
is 'and its layers' "$(curl -s -u $reader "$url/v2/plain/blobs/$layer" | sha256sum | cut -c 1-64)" "${layer#sha256:}"
unserve
KILN_STORE=$WORK/store

# --- an image leaves ---
serve --htpasswd users --write-users writer
fails 1 'not one that a channel holds under another name' 'box/oci:prod' kiln rm plain
seq 9 >root/etc/numbers
tar -C root -cf other.tar etc
oci_layout other other.tar >/dev/null
# shellcheck disable=SC2086 # options
skopeo copy -q $to oci:other:v1 "$here/other:1"
is 'one that was pushed' "$(code -u $reader "$url/v2/other/manifests/1")" 200
matches 'prune lets the newest stay' "$(kiln prune --dry-run --keep-last 1 2>&1)" '^stays other '
# shellcheck disable=SC2086 # options
skopeo copy -q $to oci:other:v1 "$here/second:1"
is 'the same under another name goes alone' "$(code -u $writer -X DELETE "$url/v2/second/manifests/$(digest_of other)")" 202
is 'it has gone' "$(code -u $reader "$url/v2/second/manifests/$(digest_of other)")" 404
ok 'is removed' kiln rm other
is 'with its tag' "$(code -u $reader "$url/v2/other/manifests/1")" 404
is 'and its manifest' "$(code -u $reader "$url/v2/other/manifests/$(digest_of other)")" 404
seq 10 >root/etc/numbers
tar -C root -cf held.tar etc
oci_layout held held.tar >/dev/null
# shellcheck disable=SC2086 # options
for layout in held parent; do skopeo copy -q $to "oci:$layout:v1" "$here/held:of-$layout"; done
matches 'a tag holds an older one against prune' "$(kiln prune --dry-run --keep-last 1 held 2>&1)" '^stays held .*the tag held:of-held'
unserve

# --- users and addresses ---
ok 'without users' serve
is 'everybody here may read' "$(code "$url/v2/box/manifests/1.0")" 200
is 'nobody may write' "$(code -X POST "$url/v2/box/blobs/uploads/")" 403
unserve

# --- its own disks, as their changes ---
if have mke2fs debugfs; then
    KILN_STORE=$WORK/disks
    mkdir tree
    head -c 4000000 "$KILN" >tree/program
    secret=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
    seq -f "%g $secret of the other" 30000 >theirs
    seq -f "%g $secret of last night" 30000 >ours
    mke2fs -q -t ext4 -b 4096 -d tree one.raw 32M 2>/dev/null
    for disk in other night; do cp one.raw $disk.raw; done
    debugfs -w -R 'write theirs theirs' other.raw >/dev/null 2>&1
    debugfs -w -R 'write ours ours' night.raw >/dev/null 2>&1
    kiln import other.raw other >/dev/null 2>&1
    kiln import night.raw web >/dev/null 2>&1
    last=$(kiln --json show web | jq -r '.id[7:]')
    kiln import one.raw web >/dev/null 2>&1
    kiln promote web prod >/dev/null
    ok 'a store with disks' serve
    fetch() { KILN_STORE=$WORK/fetched kiln "$@"; }
    # Every byte that a repository's manifests lead to, as it is sent and unpacked.
    served() {
        for version in $2; do
            curl -s "$url/v2/$1/manifests/$version" | jq -r '.config.digest, .layers[].digest' 2>/dev/null | while read -r digest; do
                curl -s "$url/v2/$1/blobs/$digest" >piece
                cat piece
                zstd -dcq piece 2>/dev/null || :
            done
        done
    }
    kept=$(du -sb "$KILN_STORE/blobs" | cut -f1)
    ok 'a disk is pulled' fetch pull "docker://127.0.0.1:$port/web/disk:$last" web
    ok 'for which the store keeps no copy of it' test $(($(du -sb "$KILN_STORE/blobs" | cut -f1) - kept)) -lt 1000000
    is 'the same image' "$(fetch --json images web | jq -r '.images[0].id')" "$(echo "sha256:$last")"
    fetch export web back.raw >/dev/null 2>&1
    is 'the same bytes' "$(kiln export "sha256:$last" - --format=raw 2>/dev/null | cmp - back.raw && echo same)" same
    is 'its tags' "$(curl -s "$url/v2/web/tags/list" | jq -r '.tags[] | select(length < 64)' | sort | tr '\n' ' ')" 'latest prod '
    had=$(awk '{ sum += $10 } END { print sum }' access)
    ok 'the next night' fetch pull "docker://127.0.0.1:$port/web:latest" web
    is 'moves what is new in it' "$(($(awk '{ sum += $10 } END { print sum }' access) - had < 300000))" 1
    fetch export web back.raw >/dev/null 2>&1
    is 'and is what it is' "$(kiln export web - --format=raw 2>/dev/null | cmp - back.raw && echo same)" same
    is 'another disk has a secret' "$(served other latest | grep -ac "$secret of the other" | sed 's/[0-9]*[1-9]/some/')" some
    is 'whose blocks it shares, and not that' "$(served web "$last latest" | grep -ac "$secret of the other")" 0
    segment=$(curl -s "$url/v2/other/manifests/latest" | jq -r '.layers[] | select(.mediaType == "application/vnd.kiln.segment.v1").digest' | head -n 1)
    is 'what a name serves' "$(code "$url/v2/other/blobs/$segment")" 200
    is 'another does not' "$(code "$url/v2/web/blobs/$segment")" 404
    is 'a disk is no container' "$(code "$url/v2/web/oci/manifests/latest")" 404
    before=$(curl -s "$url/v2/web/manifests/latest" | sha256sum)
    ok 'gc beside it' kiln gc --grace 0
    is 'leaves what was made' "$(curl -s "$url/v2/web/manifests/latest" | sha256sum)" "$before"
    ok 'it is known by that manifest' kiln show "web/disk@sha256:${before%% *}"
    is 'last night had a secret' "$(served web "$last" | grep -ac "$secret of last night" | sed 's/[0-9]*[1-9]/some/')" some
    segments=$(curl -s "$url/v2/web/manifests/$last" | jq -r '.layers[] | select(.mediaType == "application/vnd.kiln.segment.v1").digest')
    kiln rm "sha256:$last" >/dev/null 2>&1
    is 'that goes' "$(kiln --json images --all web | jq '.images | length')" 1
    is 'with its image' "$(served web "$last latest" | grep -ac "$secret of last night")" 0
    is 'by every digest that was known' "$(for digest in $segments; do curl -s "$url/v2/web/blobs/$digest" | zstd -dcq 2>/dev/null; done | grep -ac "$secret of last night")" 0
    ok 'a fresh store' env KILN_STORE="$WORK/fresh" "$KILN" pull "docker://127.0.0.1:$port/web/disk:prod" web
    is 'has the disk' "$(KILN_STORE=$WORK/fresh kiln export web - --format=raw 2>/dev/null | cmp - back.raw && echo same)" same
    rm -rf fetched fresh
    unserve
    ok 'the store is whole' kiln fsck --read-data
    KILN_STORE=$WORK/store
else
    skip 'disks' 'mke2fs or debugfs is not installed'
fi

# --- what the store made itself: a container whose layers are a recipe and a blob ---
mkdir own && zstd -dcq "$TREE/tests/data/stores/catalog-2.tar.zst" | tar -C own -x --no-same-owner
KILN_STORE=$WORK/own/store
kiln export box own-out --format=oci-dir >/dev/null 2>&1
rm -rf "$KILN_STORE/cache"
ok 'a store of its own' serve
ok 'its container is pulled' skopeo copy -q --src-tls-verify=false "$here/box:latest" oci:own-pulled:v1
is 'as it is exported' "$(digest_of own-pulled)" "$(digest_of own-out)"
rm -rf own-pulled
ok 'once more, by its kind' skopeo copy -q --src-tls-verify=false "$here/box/oci:latest" oci:own-pulled:v1
is 'a disk is no container' "$(code "$url/v2/box/disk/manifests/latest")" 404
matches 'it is among the repositories' "$(curl -s "$url/v2/_catalog")" '"box"'
unserve
KILN_STORE=$WORK/store
fails 2 'not for others' 'without users' kiln serve --listen 0.0.0.0:0
fails 2 'no passwords in the clear' 'in the clear' kiln serve --listen 0.0.0.0:0 --htpasswd users
fails 2 'writers need users' '--htpasswd' kiln serve --write-users writer
printf 'a:{SHA}abc\n' >weak
fails 1 'a weak hash' 'htpasswd -B' kiln serve --htpasswd weak
ok 'anonymous reading' serve --htpasswd users --write-users writer --anonymous-read
is 'reads' "$(code "$url/v2/box/manifests/1.0")" 200
is 'and no more' "$(code -X POST "$url/v2/box/blobs/uploads/")" 401
printf 'late:%s\n' "$(openssl passwd -6 -salt late late-secret)" >>users
sleep 1.1
is 'a user who came later' "$(code -u late:late-secret "$url/v2/")" 200
unserve
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null
ok 'TLS' serve --htpasswd users --write-users writer --tls-cert cert.pem --tls-key key.pem
is 'is spoken' "$(curl -s --cacert cert.pem -u $reader -o /dev/null -w '%{http_code}' "https://127.0.0.1:$port/v2/box/manifests/1.0")" 200
client() { KILN_STORE=$WORK/client DOCKER_CONFIG=$WORK/docker KILN_CERTS_D=$WORK/certs kiln "$@"; }
mkdir -p docker "certs/127.0.0.1:$port"
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$port" "$(printf %s $writer | base64 -w 0)" >docker/config.json
ok 'kiln has it' client import parent box
fails 1 'a certificate of nobody known' 'certificate' client push box "docker://127.0.0.1:$port/tls/box:1"
cp cert.pem "certs/127.0.0.1:$port/ca.crt"
ok 'kiln pushes as a user' client push box "docker://127.0.0.1:$port/tls/box:1"
ok 'and pulls' client pull "docker://127.0.0.1:$port/tls/box:1" again
is 'the same image' "$(client --json images again | jq -r '.images[0].manifest')" "$(digest_of parent)"
printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$port" "$(printf %s $reader | base64 -w 0)" >docker/config.json
fails 1 'who may read does not push' 'does not allow' client push box "docker://127.0.0.1:$port/tls/other:1"
unserve

# --- limits ---
ok 'small limits' serve --htpasswd users --write-users writer --max-blob 64K --max-uploads 200K --idle 1s --upload-idle 1s --max-connections-per-address 8
is 'a blob that is too large' "$(code -u $writer -X POST --data-binary @blob "$url/v2/lim/blobs/uploads/?digest=sha256:$alone")" 413
is 'an upload without end has one' "$(head -c 300000 /dev/zero | curl -s -o /dev/null -w '%{http_code}' -u $writer -X PATCH -T - "$url$(curl -si -u $writer -X POST "$url/v2/lim/blobs/uploads/" | tr -d '\r' | sed -n 's/^Location: //p')")" 413
slow=$(python3 - "$port" <<'END'
import socket, sys, time
sockets = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(4)]
began, open_ones = time.time(), 4
while time.time() - began < 8 and open_ones:
    for i, s in enumerate(sockets):
        if not s:
            continue
        try:
            s.sendall(b"G" if time.time() - began < 0.1 else b"x")
            s.settimeout(0.05)
            if s.recv(100) == b"":
                raise OSError
        except TimeoutError:
            pass
        except OSError:
            sockets[i], open_ones = None, open_ones - 1
    time.sleep(0.2)
print("ended" if not open_ones and time.time() - began < 7 else "still there")
END
)
is 'a byte now and then is no request' "$slow" ended
unserve

# --- a socket from outside ---
rm -f urls
python3 - "$KILN" "$port" <<'END' >urls 2>serve.err &
import os, socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[2])))
s.listen(16)
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[1], [sys.argv[1], "serve", "--access-log", "-"])
END
server=$!
for _ in $(seq 100); do [ -s urls ] && break; sleep 0.05; done
is 'systemd hands over a socket' "$(code "$url/v2/")" 200
unserve
if have systemd-analyze; then
    ok 'its unit is confined' systemd-analyze security --no-pager --offline=true --threshold=20 "$TREE/packaging/systemd/kiln-serve.service"
    matches 'and runs as a user of its own' "$(cat "$TREE/packaging/systemd/kiln-serve.service")" '^User=kiln$'
else
    skip 'its unit' 'systemd-analyze is not installed'
fi
matches 'each request is a line' "$(cat access)" '^127\.0\.0\.1 - writer \[.*\] "PUT /v2/box/manifests/1\.0 HTTP/1\.1" 201 .* digest=sha256:[0-9a-f]{64}$'
finish
