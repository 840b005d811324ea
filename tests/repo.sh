# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Signed apt repositories made from nothing, and a web server of this machine for them. Source it after lib.sh.
#
#   repo_start                        # sets $repo_url; also gives kiln's apt a cache of its own
#   repo_key good                     # makes good.gpg and good.asc here, and signs with it from now on
#   repo=main                         # which repository the next words mean: $repo_url/main
#   repo_add NAME VERSION [LINE]...   # a package; LINEs go into its control file, debs/NAME/ is what it installs
#   repo_publish                      # indexes and signature: `deb $repo_url/main stable main`
#
# A package's scripts and conffiles lie in debs/NAME/DEBIAN/.

repo=main
repo_suite=stable
repo_signer=

# The folder is short and open to all: gpg's socket must fit into 108 bytes, and apt runs as nobody below it.
repo_start() {
    repo_home=$(mktemp -d "${TMPDIR:-/tmp}/kiln-repo.XXXXXX") || exit 1
    chmod 755 "$repo_home"
    trap 'repo_stop; cleanup' EXIT
    mkdir -m 700 "$repo_home/gpg"
    mkdir -p "$WORK/repos"
    KILN_CACHE=$repo_home/cache
    export KILN_CACHE
    repo_port=$(free_port)
    repo_url=http://127.0.0.1:$repo_port
    repo_serve
}

repo_serve() {
    python3 -m http.server --bind 127.0.0.1 --directory "$WORK/repos" "$repo_port" >"$WORK/.server" 2>&1 &
    repo_server=$!
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        curl -sf -o /dev/null "$repo_url/" && return 0
        sleep 0.2
    done
    echo "# the repository's server does not answer"
    return 1
}

repo_down() {
    [ -n "${repo_server:-}" ] && kill "$repo_server" 2>/dev/null && wait "$repo_server" 2>/dev/null
    repo_server=
}

repo_stop() {
    repo_down
    GNUPGHOME=$repo_home/gpg gpgconf --kill all 2>/dev/null
    rm -rf "$repo_home"
}

repo_gpg() { gpg --homedir "$repo_home/gpg" --batch --yes --quiet --no-tty "$@" 2>>"$WORK/.gpg"; }

repo_key() { # name
    repo_signer=$1
    repo_gpg --passphrase '' --quick-gen-key "$1 <$1@example.org>" ed25519 sign never
    repo_gpg --export "$1@example.org" >"$1.gpg"
    repo_gpg --armor --export "$1@example.org" >"$1.asc"
}

repo_add() { # name, version, lines of the control file...
    repo_folder=$WORK/repos/$repo
    repo_deb=pool/$1_$2_all.deb
    mkdir -p "$repo_folder/pool" "$repo_folder/stanzas"
    rm -rf "$WORK/.deb"
    mkdir -p "$WORK/.deb/DEBIAN"
    [ -d "$WORK/debs/$1" ] && cp -a "$WORK/debs/$1/." "$WORK/.deb/"
    repo_stanza=$repo_folder/stanzas/$1_$2
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n' "$1" "$2" >"$repo_stanza"
    repo_what=$1
    shift 2
    [ $# -eq 0 ] || printf '%s\n' "$@" >>"$repo_stanza"
    echo "Description: $repo_what of a test" >>"$repo_stanza"
    cp "$repo_stanza" "$WORK/.deb/DEBIAN/control"
    chmod -R u=rwX,go=rX "$WORK/.deb"
    dpkg-deb --root-owner-group -Znone -b "$WORK/.deb" "$repo_folder/$repo_deb" >/dev/null || return 1
    printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' "$repo_deb" "$(stat -c %s "$repo_folder/$repo_deb")" \
        "$(sha256sum <"$repo_folder/$repo_deb" | cut -d' ' -f1)" >>"$repo_stanza"
}

repo_drop() { # name, version
    rm -f "$WORK/repos/$repo/pool/$1_$2_all.deb" "$WORK/repos/$repo/stanzas/$1_$2"
}

repo_publish() {
    repo_dist=$WORK/repos/$repo/dists/$repo_suite
    mkdir -p "$repo_dist/main/binary-amd64"
    cat "$WORK/repos/$repo/stanzas"/* >"$repo_dist/main/binary-amd64/Packages" 2>/dev/null
    {
        printf 'Origin: Test\nLabel: Test\nSuite: %s\nCodename: %s\nDate: %s\n' "$repo_suite" "$repo_suite" "$(LC_ALL=C date -u -R)"
        printf 'Architectures: amd64 all\nComponents: main\nSHA256:\n'
        printf ' %s %s main/binary-amd64/Packages\n' "$(sha256sum <"$repo_dist/main/binary-amd64/Packages" | cut -d' ' -f1)" \
            "$(stat -c %s "$repo_dist/main/binary-amd64/Packages")"
    } >"$repo_dist/Release"
    repo_gpg --local-user "$repo_signer@example.org" --clearsign -o "$repo_dist/InRelease.new" "$repo_dist/Release" &&
        mv "$repo_dist/InRelease.new" "$repo_dist/InRelease"
}
