#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The main job, its own way: one template becomes a disk that boots and a container that runs, and both show one page.
. "$(dirname "$0")/../lib.sh"
require qemu-img sgdisk e2fsck skopeo curl python3 jq

template=$TREE/templates/library/debian-web.pkr.hcl

ok 'the template is valid' kiln validate "$template"
ok 'it bakes' kiln bake "$template" || finish
cp .out first
disk=$(awk '$2 == "disk" { print $3 }' first)
oci=$(awk '$2 == "oci" { print $3 }' first)
name=$(awk '$2 == "disk" { print $1 }' first)
matches 'a disk image ID is printed' "$disk" '^sha256:[0-9a-f]{64}$'
matches 'a container image ID is printed' "$oci" '^sha256:[0-9a-f]{64}$'

start=$(date +%s)
ok 'it bakes again' kiln bake "$template"
is 'with the same image IDs' "$(cat .out)" "$(cat first)"
is 'in seconds, from the cache' "$(($(date +%s) - start < 15))" 1
is 'and leaves no process' "$(left_behind "$KILN_STORE")" ''

ok 'images are listed' sh -c '"$0" --json images | grep -q "$1"' "$KILN" "$disk"
ok 'show by name and kind' kiln show "$name/disk"
ok 'show by a prefix of the ID' kiln show "$(echo "$disk" | cut -c8-23)"

# What is in it, and who brought it.
ok 'blame' kiln blame --json "$name" /var/www/html/index.html /etc/nginx/nginx.conf /usr/bin/dpkg
is 'a file that a step uploaded' "$(jq -r '.files[0] | .step.type + " " + (.step.position | tostring)' .out)" 'file 2'
is 'one that a package brought in a step' "$(jq -r '.files[1] | .step.type + " " + .package.name' .out)" 'packages nginx-common'
is 'and one that came with the source' "$(jq -r '.files[2] | (.step | tostring) + " " + .package.name' .out)" 'null dpkg'
matches 'a file of the container' "$(kiln cat "$name/oci" /var/www/html/index.html)" 'Hello from kiln'
matches 'the bill of materials' "$(kiln sbom "$name" | jq -r '.packages[].externalRefs[0].referenceLocator')" 'pkg:deb/debian/nginx-light@'

# The disk.
ok 'export raw' kiln export "$disk" web.raw
ok 'export qcow2' kiln export "$name/disk" web.qcow2
ok 'qemu-img finds the qcow2 sound' qemu-img check -q web.qcow2
ok 'both hold the same disk' qemu-img compare -q -f raw -F qcow2 web.raw web.qcow2
ok 'export again gives equal bytes' sh -c '"$0" export "$1" again.qcow2 && cmp web.qcow2 again.qcow2' "$KILN" "$disk"
rm -f again.qcow2
ok 'export to a pipe gives the same disk' sh -c '"$0" export "$1" - --format=raw | cmp - web.raw' "$KILN" "$disk"
matches 'sgdisk finds the partition table sound' "$(sgdisk -v web.raw)" 'No problems found'
ok 'the root partition can be cut out' cut_partition web.raw 1 root.ext4
ok 'e2fsck finds the root clean' e2fsck -fn root.ext4
ok 'the ESP can be cut out' cut_partition web.raw 15 esp.fat
have fsck.vfat && ok 'fsck.vfat finds the ESP clean' fsck.vfat -n esp.fat
rm -f esp.fat
is 'the machine ID is empty' "$(debugfs -R 'cat /etc/machine-id' root.ext4 2>/dev/null)" ''
matches 'no host keys, no package lists' "$(debugfs -R 'ls -p /var/lib/apt/lists' root.ext4 2>/dev/null | grep -c _dists_)" '^0$'
rm -f root.ext4

port=$(free_port)
ok 'the disk boots and serves the page' kiln boot "$disk" --forward "$port:80" --check "http://127.0.0.1:$port/" --timeout 240s
if have_uefi; then
    ok 'and under UEFI' kiln boot "$disk" --firmware uefi --forward "$port:80" --check "http://127.0.0.1:$port/" --timeout 400s
else
    skip 'and under UEFI' 'ovmf is not installed'
fi
is 'booting leaves no process' "$(left_behind "$KILN_STORE")" ''

# The container.
ok 'export an OCI archive' kiln export "$oci" web.tar --format=oci-archive
ok 'export an OCI layout' kiln export "$name/oci" web.oci --format=oci-dir
tag=$(python3 -c 'import json; print(json.load(open("web.oci/index.json"))["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])')
ok 'skopeo reads the archive' skopeo inspect oci-archive:web.tar
python3 -c 'import json, sys; d = json.load(open(".out")); print(len(d["Layers"]))' >layers
is 'a base and a top layer at least' "$(($(cat layers) >= 2))" 1
ok 'skopeo reads the layout' skopeo inspect --config "oci:web.oci:$tag"
matches 'the config has entrypoint and port' "$(cat .out)" 'Entrypoint|ExposedPorts'
is 'the image ID is the digest of the config' "sha256:$(skopeo inspect --raw --config oci-archive:web.tar | sha256sum | cut -d' ' -f1)" "$oci"

if have umoci; then
    ok 'umoci unpacks the layout' umoci unpack $([ "$(id -u)" -eq 0 ] || echo --rootless) --image "web.oci:$tag" bundle
    page=$(find bundle/rootfs/var/www -name 'index*.html' | head -n 1)
    ok 'the page is in it' test -s "$page"
    is 'no host secrets came along' "$(cat bundle/rootfs/etc/machine-id 2>/dev/null)" ''
    cp "$page" page
    rm -rf bundle
fi

if have podman && have runc && [ -s page ]; then
    short_folder
    podman="podman --runtime runc --cgroup-manager=cgroupfs --root $WORK/podman --runroot $SHORT --storage-driver=vfs"
    # podman's own limits are higher than an unprivileged machine (a container, say) may give.
    limits='--ulimit nofile=1024:1024 --ulimit nproc=1024:1024'
    if $podman run --rm --network=none $limits --entrypoint /bin/true oci-archive:web.tar >.out 2>&1; then
        ok 'podman starts the container' $podman run -d --name web --network=none $limits oci-archive:web.tar
        sleep 2
        # The root has no HTTP client; bash can open the port.
        $podman exec web bash -c 'exec 3<>/dev/tcp/127.0.0.1/80; printf "GET / HTTP/1.0\r\n\r\n" >&3; cat <&3' 2>/dev/null |
            sed '1,/^\r*$/d' >container-page
        ok 'the container serves the page' cmp page container-page
        $podman rm -f web >/dev/null 2>&1
    else
        explain .out 3
        skip 'the container serves the page' 'podman cannot run containers here'
    fi
    $podman rmi -af >/dev/null 2>&1
fi

ok 'fsck is clean' kiln fsck
is 'nothing temporary stays' "$(ls -A "$KILN_STORE/tmp")" ''
finish
