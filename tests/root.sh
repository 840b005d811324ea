# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# A small root made of this machine's programs, as an OCI layout. Source it after lib.sh.
#
#   small_root sh cat ...     # writes the layout "parent" with the tag v1: from = "oci:parent:v1"

small_root() { # programs...
    mkdir -p "$WORK/root/usr/bin" "$WORK/root/usr/lib/x86_64-linux-gnu" "$WORK/root/usr/lib64" "$WORK/root/etc"
    for small_folder in bin lib lib64; do ln -s "usr/$small_folder" "$WORK/root/$small_folder"; done
    for small_program in "$@"; do
        small_path=$(readlink -f "$(command -v "$small_program")")
        cp "$small_path" "$WORK/root/usr/bin/$small_program"
        ldd "$small_path" | grep -o '/[^ ]*' | while read -r small_library; do
            mkdir -p "$WORK/root$(dirname "$small_library")"
            cp -n "$small_library" "$WORK/root$small_library"
        done
    done
    tar -C "$WORK/root" --sort=name --owner=0 --group=0 --mtime=@1600000000 -cf "$WORK/root.tar" . && oci_layout parent "$WORK/root.tar" >/dev/null
}
