#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packer's qemu, docker, null and file sources: what is said of templates before anything runs, and small bakes (a root of busybox) with a seed, a disk that
# grows, a container with changes, and templates on another base.
. "$(dirname "$0")/../lib.sh"
require busybox sgdisk mke2fs e2fsck tune2fs python3
KILN_STORE=$WORK/store # this script runs beside those that share one

qemu() { # name, more lines of the source
    cat >"$1.pkr.hcl" <<END
source "qemu" "base" {
  iso_url      = "https://images.example/base.raw"
  iso_checksum = "file:https://images.example/SUMS"
  disk_image   = true
  ssh_username = "user"
$2
}
build {
  sources = ["source.qemu.base"]
  provisioner "shell" { inline = ["true"] }
}
END
}

# --- what is said beforehand ---

qemu good 'headless = true
  accelerator = "kvm"
  boot_wait   = "1s"
  qemuargs    = [["-m", "1024M"], ["-cpu", "host"]]
  vnc_port_min = "5910"
  use_tpm1       = true
  disk_interface = "sd"'
ok 'a qemu template is valid' kiln validate good.pkr.hcl
qemu typo 'head_less = true'
fails 2 'a mistyped argument' "did you mean 'headless'" kiln validate typo.pkr.hcl
qemu type 'cpus = "many"'
fails 2 'an argument of a wrong type' "'cpus' is a number" kiln validate type.pkr.hcl
qemu word 'format = "vmdk"'
fails 2 'a word that is none' "'format' is one of qcow2 raw" kiln validate word.pkr.hcl
sed 's/disk_image   = true/disk_image = false/' good.pkr.hcl >installer.pkr.hcl
fails 2 'an installer is refused with the way out' "-rebase" kiln validate installer.pkr.hcl
sed '/iso_checksum/d' good.pkr.hcl >nosum.pkr.hcl
fails 2 'no checksum' "'iso_checksum' must be given" kiln validate nosum.pkr.hcl
sed 's/"file:.*SUMS"/"sha256:12"/' good.pkr.hcl >badsum.pkr.hcl
fails 2 'a checksum that is none' 'is no checksum' kiln validate badsum.pkr.hcl
sed '/ssh_username/d' good.pkr.hcl >nouser.pkr.hcl
fails 2 'no user to log in with' 'ssh_username must be specified' kiln validate nouser.pkr.hcl
ok 'without a communicator none is needed' kiln validate - <<'END'
source "qemu" "x" {
  iso_url      = "x.qcow2"
  iso_checksum = "none"
  disk_image   = true
  communicator = "none"
}
build { sources = ["source.qemu.x"] }
END

docker() { # name, lines
    printf 'source "docker" "base" {\n%s\n}\nbuild {\n  sources = ["source.docker.base"]\n}\n' "$2" >"$1.pkr.hcl"
}
docker d1 'image = "ubuntu:22.04"
commit = true
changes = ["CMD [\"nginx\"]", "ENV A=b C=\"d e\"", "ONBUILD RUN date", "EXPOSE 80 443"]
login = true
run_command = ["-d", "-i", "-t", "--", "{{.Image}}"]'
ok 'a docker template is valid' kiln validate d1.pkr.hcl
docker d2 'image = "ubuntu"'
fails 2 'nothing is to come of the container' "one of 'commit', 'discard' and 'export_path'" kiln validate d2.pkr.hcl
docker d3 'image = "ubuntu"
commit = true
discard = true'
fails 2 'too much is to come of it' 'only one of' kiln validate d3.pkr.hcl
docker d4 'image = "ubuntu"
commit = true
changes = ["RUN apt-get update"]'
fails 2 'an instruction that changes no image' 'RUN apt-get update' kiln validate d4.pkr.hcl
docker d6 'image = "ubuntu"
commit = true
platform = "linux/vax/v8"'
fails 2 'a machine that this one is not' "'platform' is \"linux/vax/v8\"" kiln validate d6.pkr.hcl
sed -i "s|linux/vax/v8|linux/$(uname -m)|" d6.pkr.hcl
ok 'the one that it is, as its kernel calls it' kiln validate d6.pkr.hcl
docker d7 'image = "ubuntu"
commit = true
ecr_login = true'
fails 2 'a login without a place' "'ecr_login' needs 'login_server'" kiln validate d7.pkr.hcl
{ cat d4.pkr.hcl; printf 'build {\n  name = "two"\n  sources = ["source.docker.base"]\n}\n'; } >d5.pkr.hcl
is 'a mistake in a source of two builds is told once' "$(kiln validate d5.pkr.hcl 2>&1 | grep -c MAINTAINER)" 1
fails 1 'an image that is nowhere' 'docker.io/library/ubuntu:22.04=' kiln bake --offline d1.pkr.hcl

# --- null, file, plugins ---

cat >small.pkr.hcl <<'END'
packer {
  required_plugins {
    amazon = {
      version = ">= 1.2.8"
      source  = "github.com/hashicorp/amazon"
    }
  }
}
source "null" "here" { communicator = "none" }
source "file" "note" {
  content = "a note of {{ build_name }}\n"
  target  = "out/note.txt"
}
source "amazon-ebs" "Cloud_Image" {
  ami_name      = "x"
  instance_type = "t2.micro"
  ssh_username  = "admin"
}
build {
  sources = ["source.null.here", "source.file.note", "source.amazon-ebs.Cloud_Image"]
  provisioner "shell-local" {
    except = ["amazon-ebs.Cloud_Image"]
    inline = ["echo $PACKER_BUILDER_TYPE >> ran"]
  }
  provisioner "shell" {
    only   = ["amazon-ebs.Cloud_Image"]
    inline = ["echo $PACKER_BUILD_NAME $PACKER_BUILDER_TYPE > /etc/baked", "sudo -E sh -c 'id -u' >> /etc/baked"]
  }
}
END
fails 2 'a plugin is named' "of Packer's plugin github.com/hashicorp/amazon," kiln validate small.pkr.hcl
ok 'what is not selected is no error' kiln validate -except 'amazon-ebs.*' small.pkr.hcl
ok 'null and file bake' kiln bake -only 'null.*,file.*' small.pkr.hcl
is 'the step of null ran, file has none' "$(cat ran)" null
is 'the file is written' "$(cat out/note.txt)" 'a note of note'
is 'nothing was published' "$(cat .out)" ''
cat >guestless.pkr.hcl <<'END'
source "null" "here" { communicator = "none" }
build {
  sources = ["source.null.here"]
  provisioner "shell" { inline = ["true"] }
}
END
ok 'a step in no guest is valid, as in Packer' kiln validate guestless.pkr.hcl
fails 2 'but cannot be baked' 'needs a guest' kiln bake guestless.pkr.hcl

# --- a disk of busybox ---

root=root
mkdir -p $root/bin $root/usr/bin $root/sbin $root/etc $root/root $root/proc $root/sys $root/dev $root/tmp $root/run $root/var/lib/cloud
cp "$(command -v busybox)" $root/bin/busybox
for applet in mount sh ls cat rm mkdir chmod chown touch echo env grep sed gzip sleep id df; do ln -s busybox "$root/bin/$applet"; done
ln -s ../bin/busybox $root/sbin/reboot # which would take the step's first process away
ln -s ../bin/busybox $root/sbin/shutdown
printf 'ID=small\nNAME=Small\n' >$root/etc/os-release
echo 'root:x:0:0:root:/root:/bin/sh' >$root/etc/passwd
echo 'root:x:0:' >$root/etc/group
truncate -s 64M base.raw
sgdisk -n 14:2048:+1M -t 14:ef02 -n 1:0:0 -t 1:8300 base.raw >/dev/null
set -- $(partition base.raw 1)
mke2fs -q -t ext4 -d $root -E offset="$1" base.raw "$(($2 / 1024))k" 2>.err
mkdir -p images
cp base.raw images/
(cd images && sha512sum base.raw >SUMS)
map="https://images.example/=$WORK/images"

qemu urls ''
sed -i 's|iso_url .*|iso_urls = ["https://images.example/gone.raw", "https://images.example/base.raw"]|; s|"file:.*SUMS"|"none"|' urls.pkr.hcl
ok 'one of several URLs will do' kiln --url-map "$map" plan urls.pkr.hcl
matches 'the next one was tried' "$(cat .err)" 'gone.raw.*the next of iso_urls is tried'

mkdir -p seed
echo 'instance-id: one' >seed/meta-data
cat >seed/user-data <<'END'
#cloud-config
hostname: small
write_files:
  - path: /etc/deep/seeded
    content: c2VlZGVk
    encoding: b64
    permissions: '0600'
runcmd:
  - [sh, -c, 'echo ran >/etc/ran']
snap:
  commands: []
END
qemu disk 'disk_size        = "160M"
  format           = "raw"
  output_directory = "out/{{ build_name }}"
  vm_name          = "small.img"
  cd_files         = ["./seed/*"]
  cd_label         = "cidata"
  disk_additional_size = ["1G"]
  shutdown_command = "echo pass | sudo -S rm /etc/ran && sudo /sbin/shutdown -P now && echo off >/etc/off"'
sed -i 's/inline = \["true"\]/inline = ["cloud-init status --wait", "test -f \/var\/lib\/cloud\/instance\/boot-finished", "test -f \/run\/cloud-init\/result.json", "echo pass | sudo -S -u root env A=1 sh -c \x27echo $A > \/etc\/sudo\x27", "df -h \/ > \/etc\/size", "test -f \/etc\/ran", "cat \/proc\/sys\/kernel\/random\/boot_id >\/tmp\/id", "sudo \/sbin\/reboot", "! grep -f \/tmp\/id \/proc\/sys\/kernel\/random\/boot_id"]/' disk.pkr.hcl
ok 'a disk with a seed bakes' kiln --url-map "$map" bake disk.pkr.hcl || finish
cp .err bake.err
matches 'what has no meaning is one line' "$(grep -c 'without meaning here, as nothing boots' bake.err)" '^1$'
matches 'and one for each other reason' "$(cat bake.err)" 'as the image is one disk, and only that is written: disk_additional_size'
matches 'what is done as the machine goes off is a step' "$(cat bake.err)" 'shutdown_command'
matches 'what the seed did is told' "$(cat bake.err)" 'seed: 1 file, hostname small, runcmd'
matches 'and what was not applied' "$(cat bake.err)" 'not applied: snap'
ok 'the file that Packer would leave is there' test -f out/base/small.img
is 'it has the size' "$(stat -c %s out/base/small.img)" $((160 * 1024 * 1024))
matches 'its table is whole' "$(sgdisk -v out/base/small.img 2>&1)" 'No problems found'
set -- $(partition out/base/small.img 1)
is 'its partition grew to the end' "$(($1 + $2 > 158 * 1024 * 1024))" 1
cut_partition out/base/small.img 1 root.ext4
ok 'its file system is clean' e2fsck -fn root.ext4
is 'and as large as the partition' "$(tune2fs -l root.ext4 | awk '/^Block count/ { n = $3 } /^Block size/ { s = $3 } END { print (n * s > 150000000) }')" 1
is 'the seed is applied' "$(kiln cat base/disk /etc/deep/seeded) $(kiln cat base/disk /etc/hostname) $(kiln cat base/disk /etc/sudo)" 'seeded small 1'
kiln files base/disk >list 2>/dev/null
is 'the machine that went off had done what it should' "$(grep -cE 'etc/(ran|off)' list) $(kiln cat base/disk /etc/off)" '1 off'
is 'what reboots is the guest'"'"'s own' "$(grep -cE 'sbin/(reboot|shutdown) .*busybox' list)" 2
is 'of sudo, cloud-init and their marks nothing is left' "$(grep -cE 'usr/bin/(sudo|cloud-init|\.kiln)|boot-finished' list)" 0
before=$(stat -c '%i %Y' out/base/small.img)
ok 'again' kiln --url-map "$map" bake disk.pkr.hcl
matches 'all of it is known' "$(cat .err)" 'nothing to do'
is 'the file is left alone' "$(stat -c '%i %Y' out/base/small.img)" "$before"
rm out/base/small.img
ok 'a file that is gone' kiln --url-map "$map" bake disk.pkr.hcl
ok 'is written again' test -f out/base/small.img
ok 'without the network' kiln bake --offline disk.pkr.hcl
echo 'instance-id: two' >seed/meta-data
kiln plan --offline disk.pkr.hcl >plan 2>/dev/null
matches 'a seed that changed is baked again' "$(cat plan)" 'miss +1  first boot'
sed -i 's/^/0/' images/SUMS
fails 1 'a wrong checksum' 'iso_checksum' kiln --url-map "$map" bake disk.pkr.hcl
sed -i 's/^0//' images/SUMS

# --- on another base ---

fails 2 'a base for nobody' 'no source of that name is baked here' kiln plan -rebase "amazon-ebs.cloud=$WORK/base.raw" small.pkr.hcl
ok "another cloud's template on a file" kiln bake -only 'amazon-ebs.*' -rebase "amazon-ebs.Cloud_Image=$WORK/base.raw" small.pkr.hcl
is 'it kept its name, in letters of ours' "$(cut -d' ' -f1 .out)" cloud_image
is 'and its environment' "$(kiln cat cloud_image/disk /etc/baked | tr '\n' ' ')" 'Cloud_Image amazon-ebs 0 '
ok 'an installer on an image of the store' kiln bake -rebase qemu.base=image:cloud_image installer.pkr.hcl
is 'is that image' "$(kiln cat base/disk /etc/baked | head -n 1)" 'Cloud_Image amazon-ebs'

# --- a container ---

tar -C $root --sort=name --owner=0 --group=0 --numeric-owner -cf layer.tar .
oci_layout mirror layer.tar >/dev/null
cat >made.pkr.hcl <<'END'
source "oci" "made" { from = "oci:made" }
source "null" "host" { communicator = "none" }
build { sources = ["source.oci.made"] }
build {
  name    = "deps"
  sources = ["source.null.host"]
  provisioner "shell-local" { inline = ["sleep 0.3", "cp -r mirror made"] }
}
END
ok 'a build waits for what another one makes on the host' kiln bake made.pkr.hcl
cat >container.pkr.hcl <<'END'
source "docker" "app" {
  image   = "example/base:v1"
  commit  = true
  author  = "somebody"
  message = "a message"
  changes = ["CMD [\"/bin/app\", \"-x\"]", "ENTRYPOINT /bin/run it", "ENV B=2 C=\"x y\"", "LABEL a=b", "EXPOSE 80/tcp 443", "VOLUME /data", "WORKDIR /srv", "WORKDIR sub", "USER nobody", "ONBUILD RUN date", "ENV PATH=/opt/app:$PATH A2=$${A}2"]
  volumes   = { "/var/cache" = "/var/cache" }
  exec_user = "root"
  privileged = true
  platform  = "linux"
}
source "docker" "tar" {
  image       = "example/base:v1"
  export_path = "out/image.tar"
}
build {
  sources = ["source.docker.app", "source.docker.tar"]
  provisioner "shell" { inline = ["echo $A > /etc/from-image", "sudo touch /etc/by-sudo"] }
}
END
ok 'containers bake' kiln --url-map "docker://docker.io/example/base=$WORK/mirror" bake container.pkr.hcl || finish
cp .err bake.err
matches 'why volumes mean nothing' "$(cat bake.err)" 'as folders of this machine are not mounted .*: volumes$'
matches 'why a user means nothing' "$(cat bake.err)" 'as steps run as root.*: exec_user$'
matches 'why the rest does' "$(cat bake.err)" 'as no container is started .*: privileged$'
ok 'export' kiln export app/oci app.dir --format=oci-dir
python3 - app.dir >config <<'END'
import json, sys
read = lambda d: json.load(open(sys.argv[1] + "/blobs/" + d.replace(":", "/")))
manifest = read(json.load(open(sys.argv[1] + "/index.json"))["manifests"][0]["digest"])
config = read(manifest["config"]["digest"])
print(config["author"], json.dumps(config["config"], sort_keys=True))
END
for part in '^somebody ' '"Cmd": \["/bin/app", "-x"\]' '"Entrypoint": \["/bin/sh", "-c", "/bin/run it"\]' '"A=1", "B=2", "C=x y", "PATH=/opt/app:.*", "A2=12"' '"a": "b"' '"443/tcp": \{\}' '"/data": \{\}' \
    '"WorkingDir": "/srv/sub"' '"User": "nobody"' '"OnBuild": \["RUN date"\]'; do
    matches "the image says $part" "$(cat config)" "$part"
done
is "its steps had the image's environment" "$(kiln cat app/oci /etc/from-image)" 1
is 'the tar is the root' "$(tar -tf out/image.tar | grep -cE '(^|/)etc/by-sudo$')" 1
is 'without the sudo that passed through' "$(tar -tf out/image.tar | grep -c 'bin/sudo')" 0
finish
