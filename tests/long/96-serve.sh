#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kiln serve under load: fifty clients at once, without an error and in the memory it had; killed while clients push, again and again, it loses nothing that
# it said it has. KILN_TEST_ROUNDS kills more or less often.
. "$(dirname "$0")/../lib.sh"
require python3 curl skopeo openssl
KILN_STORE=$WORK/store
port=$(free_port)
printf 'all:%s\n' "$(openssl passwd -6 -salt all secret)" >users

serve() {
    rm -f urls
    "$KILN" serve --listen "127.0.0.1:$port" --htpasswd users --write-users all --access-log access >urls 2>serve.err &
    server=$!
    for _ in $(seq 200); do
        [ -s urls ] && return 0
        sleep 0.05
    done
    return 1
}
trap 'kill $server 2>/dev/null; cleanup' EXIT

# --- fifty clients ---
tar -C "$TREE/build" --sort=name --owner=0 --group=0 --mtime=@1600000000 -cf layer.tar kiln libkiln.a
oci_layout gzip layer.tar >/dev/null
skopeo copy -q --dest-decompress oci:gzip:v1 dir:plain
ok 'it serves' serve
to="--preserve-digests --dest-tls-verify=false --dest-creds=all:secret"
# shellcheck disable=SC2086 # options
{
    ok 'a compressed layer' skopeo copy -q $to oci:gzip:v1 "docker://127.0.0.1:$port/gzip:1"
    ok 'a plain one, which is made anew for its readers' skopeo copy -q $to dir:plain "docker://127.0.0.1:$port/plain:1"
}
kill "$server" && wait "$server"
serve # so that what pushing took is not counted
python3 -B "$TREE/tests/serve/clients.py" "127.0.0.1:$port" all:secret 50 1 gzip plain >clients
explain clients
matches 'fifty clients: no error' "$(cat clients)" '^requests=[0-9]+ errors=0 mib=[1-9]'
awk -F '[ =]' '/^requests/ { for (i = 1; i < NF; i++) if ($i == "before") before = $(i + 1); else if ($i == "highest") highest = $(i + 1); exit !(highest <= before + 128) }' clients
result $? 'no more than 128 MiB above where it was'
kill "$server" && wait "$server"
is 'it ends in peace' $? 0

# --- kill -9 ---
python3 -B "$TREE/tests/serve/killed.py" "$KILN" "127.0.0.1:$port" all:secret "${KILN_TEST_ROUNDS:-20}" >killed
explain killed
matches 'nothing is lost that it said it has' "$(tail -n 1 killed)" '^rounds=[0-9]+ acknowledged=[1-9][0-9]* lost=0$'
ok 'the store is whole' kiln fsck --read-data
finish
