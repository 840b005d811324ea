#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The host's Ansible on a small guest (busybox and this machine's Python): modules, files, a user that is become without sudo, what the step's
# key has, and sentences for what a guest that is not booted cannot do.
. "$(dirname "$0")/../lib.sh"
require ansible-playbook busybox sfdisk mke2fs ldd
python=$(readlink -f /usr/bin/python3)
[ -n "$python" ] && [ -x "$python" ] || { echo '1..0 # SKIP there is no /usr/bin/python3 to lend to a guest'; exit 0; }
KILN_STORE=$WORK/store # this script runs beside those that share one

version=$(basename "$python")
mkdir -p root/bin root/sbin root/etc root/root root/tmp root/run root/proc root/sys root/dev root/usr/bin root/usr/lib root/home/app
chmod 1777 root/tmp
cp "$(command -v busybox)" root/bin/busybox
for applet in sh ls cat rm mkdir chmod chown echo env su id sleep stat grep; do ln -s busybox "root/bin/$applet"; done
cp "$python" "root/usr/bin/$version"
ln -s "$version" root/usr/bin/python3
tar -C /usr/lib --exclude=__pycache__ --exclude=test --exclude=idlelib --exclude=lib2to3 --exclude='config-*' -cf - "$version" | tar -C root/usr/lib -xf -
for library in $(ldd "$python" "/usr/lib/$version"/lib-dynload/*.so 2>/dev/null | grep -o '/lib[^ ]*' | grep -v lib-dynload | sort -u); do
    [ -e "root$library" ] || { mkdir -p "root$(dirname "$library")" && cp -L "$library" "root$library"; }
done
printf 'ID=odd\nNAME=Odd\n' >root/etc/os-release
printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n' >root/etc/passwd
printf 'root:x:0:\napp:x:1000:\n' >root/etc/group
printf 'root:*:1::::::\napp:*:1::::::\n' >root/etc/shadow
truncate -s 200M disk.raw
printf 'label: dos\nlabel-id: 0x33333333\nstart=2048, type=83\n' | sfdisk -q disk.raw
mke2fs -q -t ext4 -d root -E offset=1048576 disk.raw 199m 2>.err || explain .err

mkdir -p play/roles/app/tasks play/roles/app/files play/roles/app/handlers
echo 'one' >play/roles/app/files/file
cat >play/roles/app/tasks/main.yml <<'END'
- name: a file of the role
  copy: { src: file, dest: /etc/app, mode: "0640" }
  notify: told
- name: as somebody else
  command: sh -c 'id -un >/tmp/who'
  become_user: app
- name: a port
  ansible.builtin.wait_for: { port: 80 }
  ignore_errors: true
END
cat >play/roles/app/handlers/main.yml <<'END'
- name: told
  raw: echo "$SOURCE_DATE_EPOCH {{ packer_build_name }} {{ ansible_user }}" >/etc/told
END
printf -- '- hosts: apps\n  gather_facts: false\n  become: true\n  roles: [app]\n' >play/site.yml
template() { # file, arguments of the step
    cat >"$1" <<END
source "disk" "odd" {
  from = "disk.raw"
}
build {
  name    = "ansible"
  sources = ["source.disk.odd"]
  provisioner "file" {
    content     = "before"
    destination = "/etc/before"
  }
  provisioner "ansible" {
    groups    = ["apps"]
    user      = "admin"
    use_proxy = false
$2
  }
  output "disk" {}
}
END
}
template app.pkr.hcl '    playbook_file = "play/site.yml"'
ok 'a play bakes' kiln bake app.pkr.hcl || finish
matches 'SSH is told to be no matter' "$(cat .err)" 'without effect.*use_proxy'
matches 'nothing waits for a port that nobody opens' "$(cat .err)" 'nothing can open port 80: the guest is not booted'
ok 'export' kiln export ansible/disk out.raw
dd if=out.raw of=part bs=1M skip=1 status=none
is 'the file is there' "$(debugfs -R 'cat /etc/app' part 2>/dev/null)" one
matches 'with its mode' "$(debugfs -R 'stat /etc/app' part 2>/dev/null)" 'Mode: +0640'
matches 'a user is become without sudo' "$(debugfs -R 'cat /etc/told' part 2>/dev/null)" '^[0-9]+ odd admin$'
is 'nothing of Ansible stays' "$(debugfs -R 'ls -p /root' part 2>/dev/null | grep -c ansible)" 0

find play -exec touch {} +
ok 'files that were only touched are the same' kiln plan -detailed-exitcode app.pkr.hcl
echo two >play/roles/app/files/file
kiln plan app.pkr.hcl >plan 2>&1
matches 'a changed file of a role misses its step' "$(cat plan)" 'miss +2 +ansible +\(file play/roles/app/files/file: content\)'
matches 'and none before it' "$(cat plan)" 'hit +1 +file'

template none.pkr.hcl '    playbook_file = "play/site.yml"
    command       = "no-such-ansible"'
fails 2 'no Ansible' "'no-such-ansible' is not installed on this machine" kiln bake none.pkr.hcl
sed 's/"ansible" {/"puppet-server" {/' none.pkr.hcl >server.pkr.hcl
fails 2 'what needs a server' 'puppet-masterless applies manifests' kiln bake server.pkr.hcl
finish
