#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A playbook of fifty tasks (role, collection from disk, handlers, templates, become, loops) configures nginx and PostgreSQL; the database
# runs inside the step while it is filled. The booted image serves a page that comes out of that database.
. "$(dirname "$0")/../lib.sh"
require ansible-playbook python3 mmdebstrap qemu-system-x86_64 curl

mkdir -p play/roles/web/tasks play/roles/web/handlers play/roles/web/templates play/roles/web/defaults play/roles/web/files play/group_vars \
    play/roles/db/tasks play/roles/db/templates play/roles/db/handlers
site=play/collections/ansible_collections/kiln/site
mkdir -p $site/plugins/filter $site/plugins/modules $site/roles/marks/tasks
cat >$site/galaxy.yml <<'END'
namespace: kiln
name: site
version: 1.0.0
readme: README.md
authors: [test]
END
cat >$site/plugins/filter/shout.py <<'END'
class FilterModule(object):
    def filters(self):
        return {"shout": lambda text: text.upper()}
END
cat >$site/plugins/modules/mark.py <<'END'
from ansible.module_utils.basic import AnsibleModule
import os
def main():
    module = AnsibleModule(argument_spec=dict(path=dict(required=True), text=dict(required=True)))
    path, text = module.params["path"], module.params["text"]
    same = os.path.exists(path) and open(path).read() == text
    if not same:
        open(path, "w").write(text)
    module.exit_json(changed=not same)
main()
END
cat >$site/roles/marks/tasks/main.yml <<'END'
- name: mark one
  kiln.site.mark: { path: /etc/mark-one, text: "{{ 'one' | kiln.site.shout }}" }
- name: mark two
  kiln.site.mark: { path: /etc/mark-two, text: two }
- name: mark three
  kiln.site.mark: { path: "/etc/mark-three", text: "{{ site_name }}" }
END
echo 'site_name: shop' >play/group_vars/web.yml
cat >play/roles/web/defaults/main.yml <<'END'
web_root: /srv/www
web_pages: [index, about, contact]
END
cat >play/roles/web/handlers/main.yml <<'END'
- name: reload nginx
  ansible.builtin.service: { name: nginx, state: reloaded }
- name: restart page
  ansible.builtin.systemd: { name: page, state: restarted, daemon_reload: true }
END
echo '<h1>{{ item }} of {{ site_name | upper }}</h1>' >play/roles/web/templates/page.html.j2
cat >play/roles/web/templates/site.conf.j2 <<'END'
server {
    listen 80 default_server;
    root {{ web_root }};
    location /db.txt { root /run/page; }
}
END
cat >play/roles/web/templates/page.service.j2 <<'END'
[Unit]
Description=A page out of the database
After=postgresql.service
Wants=postgresql.service
[Service]
Type=oneshot
RemainAfterExit=yes
User=postgres
RuntimeDirectory=page
RuntimeDirectoryPreserve=yes
ExecStart=/bin/sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do psql -Atd {{ site_name }} -c "select text from pages where id = 3" >/run/page/new && grep -qx "page 3 of {{ site_name }}" /run/page/new && mv /run/page/new /run/page/db.txt && exit 0; sleep 5; done; exit 1'
[Install]
WantedBy=multi-user.target
END
echo 'User-agent: *' >play/roles/web/files/robots.txt
{
    cat <<'END'
- name: its folder
  ansible.builtin.file: { path: "{{ web_root }}", state: directory, mode: "0755" }
- name: its pages
  ansible.builtin.template: { src: page.html.j2, dest: "{{ web_root }}/{{ item }}.html", mode: "0644" }
  loop: "{{ web_pages }}"
- name: robots
  ansible.builtin.copy: { src: robots.txt, dest: "{{ web_root }}/robots.txt", owner: www-data, mode: "0640" }
- name: the site
  ansible.builtin.template: { src: site.conf.j2, dest: /etc/nginx/sites-available/site }
  notify: reload nginx
- name: it is on
  ansible.builtin.file: { src: ../sites-available/site, dest: /etc/nginx/sites-enabled/site, state: link }
  notify: reload nginx
- name: the default is off
  ansible.builtin.file: { path: /etc/nginx/sites-enabled/default, state: absent }
- name: no version is told
  ansible.builtin.lineinfile: { path: /etc/nginx/nginx.conf, regexp: "server_tokens", line: "\tserver_tokens off;" }
  notify: reload nginx
- name: nginx takes it
  ansible.builtin.command: nginx -t
  changed_when: false
- name: nginx starts at boot
  ansible.builtin.systemd: { name: nginx, enabled: true, state: started }
- name: the page's unit
  ansible.builtin.template: { src: page.service.j2, dest: /etc/systemd/system/page.service }
  notify: restart page
- name: it starts at boot
  ansible.builtin.systemd: { name: page, enabled: true, daemon_reload: true }
- name: apt's timers are masked
  ansible.builtin.systemd: { name: "{{ item }}", masked: true }
  loop: [apt-daily.timer, apt-daily-upgrade.timer]
END
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do
        echo "- name: setting $i"
        echo "  ansible.builtin.lineinfile: { path: /etc/site.conf, create: true, line: \"setting$i = {{ $i * 2 }}\" }"
    done
} >play/roles/web/tasks/main.yml
cat >play/roles/db/handlers/main.yml <<'END'
- name: restart the database
  ansible.builtin.service: { name: postgresql, state: restarted }
END
echo 'work_mem = 8MB # of {{ site_name }}' >play/roles/db/templates/site.conf.j2
{
    cat <<'END'
- name: its settings
  ansible.builtin.template: { src: site.conf.j2, dest: /etc/postgresql/15/main/conf.d/site.conf, owner: postgres }
  notify: restart the database
- name: a folder that a boot would make
  ansible.builtin.file: { path: /run/postgresql, state: directory, owner: postgres, group: postgres, mode: "2775" }
- name: the database runs in the step
  ansible.builtin.command: /usr/lib/postgresql/15/bin/pg_ctl -D /var/lib/postgresql/15/main -o "-c config_file=/etc/postgresql/15/main/postgresql.conf" -l /tmp/db.log -w start
  become_user: postgres
- name: its port is open
  ansible.builtin.wait_for: { port: 5432, timeout: 60 }
- name: a database
  ansible.builtin.command: createdb {{ site_name }}
  become_user: postgres
- name: a table
  ansible.builtin.command: psql -d {{ site_name }} -c "create table pages (id int primary key, text text)"
  become_user: postgres
END
    for i in 1 2 3 4 5 6 7 8 9 10; do
        echo "- name: row $i"
        echo "  ansible.builtin.command: psql -d {{ site_name }} -c \"insert into pages values ($i, 'page $i of {{ site_name }}')\""
        echo "  become_user: postgres"
    done
} >play/roles/db/tasks/main.yml
cat >play/site.yml <<'END'
- hosts: web
  become: true
  pre_tasks:
    - name: who we are
      ansible.builtin.set_fact: { greeting: "{{ site_name | kiln.site.shout }}" }
    - name: a user
      ansible.builtin.user: { name: shopkeeper, shell: /bin/bash }
    - name: its greeting
      ansible.builtin.copy: { content: "{{ greeting }}\n", dest: /home/shopkeeper/greeting }
      become_user: shopkeeper
  roles:
    - role: web
    - role: db
    - role: kiln.site.marks
  post_tasks:
    - name: all of it is there
      ansible.builtin.stat: { path: "{{ item }}" }
      loop: [/etc/mark-one, /etc/site.conf, /home/shopkeeper/greeting]
    - name: read the mark
      ansible.builtin.slurp: { src: /etc/mark-three }
      register: mark
    - name: it is what was said
      ansible.builtin.assert: { that: "mark.content | b64decode == 'shop'" }
END
cat >site.pkr.hcl <<'END'
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "ansible-site"
  sources = ["source.bootstrap.base"]
  provisioner "packages" {
    install = ["python3", "nginx-light", "postgresql"]
  }
  provisioner "ansible" {
    playbook_file    = "play/site.yml"
    collections_path = "play/collections"
    groups           = ["web"]
    user             = "debian"
    use_proxy        = false
  }
  provisioner "shell" {
    inline = ["cat /etc/mark-one; echo; grep -c = /etc/site.conf; stat -c %U /home/shopkeeper/greeting", "! pgrep -x postgres"]
  }
  provisioner "test" {
    enabled = ["nginx", "page", "postgresql"]
    files   = ["/srv/www/about.html"]
  }
  output "disk" {}
}
END
KILN_TRACE=provisioner.ansible kiln --json bake site.pkr.hcl >bake.json 2>first
result $? 'the play bakes' || { explain first; finish; }
ok 'and is known then' kiln bake --offline site.pkr.hcl
disk=$(id_of ansible-site disk <.out)
tasks=$(grep -c 'ansible: TASK \[' first)
[ "$tasks" -ge 50 ]
result $? "it has $tasks tasks"
grep 'ansible done in' first | sed 's/^ */# /'
# What kiln and Ansible cost beside what runs in the guest, by module (a request with a body is one).
seconds=$(python3 -c 'import json
print([s["seconds"] for s in json.load(open("bake.json"))["bakes"][0]["steps"] if s["step"] == "ansible"][-1])')
awk -v took="${seconds:-0}" '/provisioner.ansible/ { for (i = 1; i < NF; i++) { if ($i == "ran") ran += $(i + 2); if ($i == "put" && $(i + 1) > 0) n++ } }
    END { printf "# %d modules ran %.1f s in the guest, the step took %s s\n", n, ran, took }' first
matches 'services wait for the boot' "$(cat first)" 'at boot: nginx, page, postgresql'
matches 'SSH is no matter' "$(cat first)" 'without effect.*use_proxy'
matches 'the collection worked' "$(cat first)" 'shell: SHOP|shell: ONE'
matches 'a user was become without sudo' "$(cat first)" 'shell: shopkeeper'
port=$(free_port)
ok 'the booted image serves what came out of its database' kiln boot "$disk" --forward "$port:80" --check "http://127.0.0.1:$port/db.txt" --timeout 400s

find play -exec touch {} +
ok 'touched files are the same files' kiln plan --offline -detailed-exitcode site.pkr.hcl
echo '# more' >>play/roles/web/files/robots.txt
kiln plan --offline site.pkr.hcl >plan 2>&1
matches 'a changed file of a role misses its step' "$(cat plan)" 'miss +2 +ansible +\(file .*robots.txt: content\)'
matches 'and no other' "$(cat plan)" 'hit +1 '
finish
