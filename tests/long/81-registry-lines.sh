#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The ways to a registry: TLS with a private CA, client certificates, HTTP/2, proxies, IPv6; Debian's docker-registry at their end.
. "$(dirname "$0")/../lib.sh"
require docker-registry openssl jq python3 curl
. "$TREE/tests/registry/lib.sh"
KILN_STORE=$WORK/store
other() { KILN_STORE=$WORK/other "$KILN" "$@"; }
mkdir root
head -c 300000 /dev/urandom >root/noise
tar -C root -cf layer.tar .
oci_layout layout layer.tar >/dev/null
kiln import layout box >/dev/null 2>&1

# --- certificates ---
authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" -keyout "$1.key" -out "$1.crt" 2>/dev/null; }
certificate() { # NAME AUTHORITY EXTENSION
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    echo "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}
authority ours
authority theirs
certificate server ours 'subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1,IP:::1'
certificate client ours 'extendedKeyUsage=clientAuth'
certificate stranger theirs 'extendedKeyUsage=clientAuth'

# tls FOLDER ADDRESS [MORE]: on $port
tls() {
    port=$(free_port)
    cat >"$1.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: $WORK/reg}, delete: {enabled: true}}
http:
  addr: "$2:$port"
  tls:
    certificate: $WORK/server.crt
    key: $WORK/server.key
${3:-}
END
    docker-registry serve "$1.yml" >"$1.log" 2>&1 &
    servers="$servers $!"
    wait_for "https://$2:$port/v2/" || wait_for "http://$2:$port/v2/"
}
trust() { # HOST:PORT [CLIENT]
    mkdir -p "$KILN_CERTS_D/$1"
    cp ours.crt "$KILN_CERTS_D/$1/ca.crt"
    if [ -n "${2:-}" ]; then
        cp "$2.crt" "$KILN_CERTS_D/$1/client.cert"
        cp "$2.key" "$KILN_CERTS_D/$1/client.key"
    fi
}

tls "$WORK/plain" 127.0.0.1
host=localhost:$port
fails 1 'who signed is not known' 'certificate' kiln push box docker://$host/box:1
trust "$host"
ok 'with its CA in certs.d' kiln push box docker://$host/box:1
ok 'and back' other pull docker://$host/box:1
matches 'by HTTP/2' "$(cat "$WORK/plain.log")" 'blobs/sha256:[0-9a-f]* HTTP/2'
cp theirs.crt "$KILN_CERTS_D/$host/ca.crt"
fails 1 'another CA does not do' 'certificate' other pull docker://$host/box:1 x
trust "127.0.0.2:$port"
fails 1 'nor another name' '127.0.0.2' other pull docker://127.0.0.2:$port/box:1 x

# --- client certificates ---
tls "$WORK/mutual" 127.0.0.1 "    clientcas: [$WORK/ours.crt]"
mutual=localhost:$port
trust "$mutual"
fails 1 'it wants to see a certificate' 'does it want a client certificate' other pull docker://$mutual/box:1 x
trust "$mutual" stranger
fails 1 'a stranger'"'"'s does not do' '' other pull docker://$mutual/box:1 x
trust "$mutual" client
ok 'the right one does' other pull docker://$mutual/box:1 x
rm "$KILN_CERTS_D/$mutual/client.key"
fails 1 'a certificate without its key is none' 'certificate' other pull docker://$mutual/box:1 x

# --- IPv6 ---
if [ -e /proc/net/if_inet6 ] && python3 -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))' 2>/dev/null; then
    tls "$WORK/six" '[::1]'
    trust "[::1]:$port"
    ok 'by an IPv6 address' other pull "docker://[::1]:$port/box:1" six
    ok 'pushed there, too' kiln push box "docker://[::1]:$port/six/box:1"
else
    skip 'by an IPv6 address' 'this machine has none'
fi

# --- proxies ---
# Nobody but the proxy knows where registry.test is.
relay=$(free_port)
python3 "$TREE/tests/registry/proxy.py" "$relay" "$WORK/proxy.log" &
servers="$servers $!"
wait_for "http://127.0.0.1:$relay/"
: >"$WORK/proxy.log"
name=registry.test:${host#*:}
trust "$name"
unset no_proxy NO_PROXY all_proxy ALL_PROXY http_proxy https_proxy HTTPS_PROXY
through() { https_proxy=http://127.0.0.1:$relay http_proxy=http://127.0.0.1:$relay "$@"; }
fails 1 'nobody knows that name' 'resolve' other pull docker://$name/box:1 x
ok 'the proxy does' through other pull docker://$name/box:1 proxied
matches 'it was asked for the host alone' "$(sort -u "$WORK/proxy.log")" "^CONNECT $name\$"
ok 'pushes go through it' through kiln push box docker://$name/proxied/box:1
fails 1 'no_proxy names hosts to be asked directly' 'resolve' env no_proxy=registry.test https_proxy=http://127.0.0.1:$relay "$KILN" --store "$WORK/other" pull docker://$name/box:1 x
: >"$WORK/proxy.log"
trust "$host"
ok 'this machine is never asked by a proxy' through other pull docker://$host/box:1 x
is 'as it would ask another one' "$(cat "$WORK/proxy.log")" ''
fails 1 'a proxy that is not there is named' 'proxy' env https_proxy=http://nowhere.invalid:1 "$KILN" --store "$WORK/other" pull docker://$name/box:1 x
registry "$WORK/open"
kiln push box docker://$registry/open/box:1 >/dev/null 2>&1
name=registry.test:${registry#*:}
ok 'plain HTTP by a proxy' through other pull --plain-http docker://$name/open/box:1 x
matches 'has whole URLs' "$(cat "$WORK/proxy.log")" "^GET http://$name/v2/"
finish
