#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The guest's own Ansible, Debian's, plays a book with a role, a collection of Debian's, handlers and services. chef-solo has no such test: Debian 12 has
# no Chef, and its maker's packages come from the network; tests/unit/test-ansible.c says what kiln would run.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap qemu-system-x86_64

mkdir -p play/roles/site/tasks play/roles/site/handlers play/roles/site/templates play/group_vars
echo 'site_name: shop' >play/group_vars/web.yml
echo 'server { listen 80; root /srv/{{ site_name }}; }' >play/roles/site/templates/site.j2
cat >play/roles/site/tasks/main.yml <<'END'
- name: a folder
  ansible.builtin.file: { path: "/srv/{{ site_name }}", state: directory, mode: "0755" }
- name: the site
  ansible.builtin.template: { src: site.j2, dest: /etc/nginx/sites-enabled/site }
  notify: reload nginx
- name: pages
  ansible.builtin.copy: { content: "{{ item }}\n", dest: "/srv/{{ site_name }}/{{ item }}.txt" }
  loop: [one, two]
- name: who writes one
  ansible.builtin.copy: { content: "me\n", dest: /var/www/me, mode: "0600" }
  become: true
  become_user: www-data
- name: it starts at boot
  ansible.builtin.systemd: { name: nginx, enabled: true, state: started }
END
cat >play/roles/site/handlers/main.yml <<'END'
- name: reload nginx
  ansible.builtin.service: { name: nginx, state: reloaded }
END
cat >play/site.yml <<'END'
- hosts: web
  pre_tasks:
    - name: www-data may write there
      ansible.builtin.file: { path: /var/www, owner: www-data, state: directory }
  roles: [site]
END
cat >site.pkr.hcl <<'END'
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "ansible-local-site"
  sources = ["source.bootstrap.base"]
  provisioner "packages" {
    install    = ["ansible-core", "nginx-light"]
    recommends = false
  }
  provisioner "ansible-local" {
    playbook_file    = "play/site.yml"
    playbook_dir     = "play"
    inventory_groups = ["web"]
    extra_arguments  = ["-e", "packer={{build_name}}"]
  }
  provisioner "shell" {
    inline = ["cat /srv/shop/two.txt /etc/nginx/sites-enabled/site", "stat -c '%U %a' /var/www/me", "ls -d /tmp/packer-provisioner-ansible-local* 2>/dev/null || echo tidy"]
  }
  provisioner "test" {
    enabled = ["nginx"]
    files   = ["/srv/shop/one.txt"]
  }
  output "disk" {}
}
END
ok 'it bakes' kiln bake site.pkr.hcl || finish
cp .err first
grep 'ansible-local done in' first | sed 's/^ */# /'
matches 'the loop ran' "$(cat first)" 'shell: two'
matches 'group variables count' "$(cat first)" 'shell: server \{ listen 80; root /srv/shop; \}'
matches 'a user was become without sudo' "$(cat first)" 'shell: www-data 600'
matches 'services wait for the boot' "$(cat first)" 'at boot: nginx'
ok 'it is known then' kiln bake --offline site.pkr.hcl
find play -exec touch {} +
ok 'touched files are the same files' kiln plan --offline -detailed-exitcode site.pkr.hcl
echo '# more' >>play/roles/site/handlers/main.yml
kiln plan --offline site.pkr.hcl >plan 2>&1
matches 'a changed file of a role misses its step' "$(cat plan)" 'miss +2 +ansible-local +\(file .*handlers/main.yml: content\)'
matches 'and no other' "$(cat plan)" 'hit +1 '
echo '- { name: breaks, ansible.builtin.command: "false" }' >>play/roles/site/tasks/main.yml
fails 1 'a task that fails is named' 'task "site : breaks"' kiln bake --offline site.pkr.hcl
finish
