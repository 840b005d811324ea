#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A manifest with a module, files, templates, services and Hiera's data configures nginx and PostgreSQL by the guest's own puppet; the booted
# image serves it.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap qemu-system-x86_64 curl

mkdir -p puppet/manifests puppet/modules/site/manifests puppet/modules/site/templates puppet/modules/site/files puppet/data
cat >puppet/hiera.yaml <<'END'
version: 5
defaults:
  datadir: data
  data_hash: yaml_data
hierarchy:
  - name: common
    path: common.yaml
END
cat >puppet/data/common.yaml <<'END'
site::heading: From Hiera
site::pages: [index, about, contact]
END
cat >puppet/modules/site/manifests/init.pp <<'END'
class site(String $heading, Array[String] $pages) {
  package { ['nginx-light', 'postgresql']: ensure => installed }
  file { '/srv/www': ensure => directory }
  $pages.each |$page| {
    file { "/srv/www/${page}.html": content => epp('site/page.epp', { 'title' => $heading, 'page' => $page }) }
  }
  file { '/srv/www/robots.txt': source => 'puppet:///modules/site/robots.txt', owner => 'www-data' }
  file { '/etc/nginx/sites-enabled/default': ensure => absent, notify => Service['nginx'] }
  file { '/etc/nginx/sites-enabled/site':
    content => "server { listen 80; root /srv/www; }\n",
    notify  => Service['nginx'],
  }
  file { '/etc/postgresql/15/main/conf.d/site.conf': content => "work_mem = 8MB\n", notify => Service['postgresql'] }
  service { 'nginx': ensure => running, enable => true }
  service { 'postgresql': ensure => running, enable => true }
  service { 'apt-daily.timer': enable => mask }
  exec { '/bin/sh -c "echo ran >/etc/ran"': creates => '/etc/ran' }
  file { '/etc/fact': content => "${facts['role']} ${facts['packer_build_name']}\n" }
}
END
echo '<%- | $title, $page | -%>
<h1><%= $title %>: <%= $page %></h1>' >puppet/modules/site/templates/page.epp
echo 'User-agent: *' >puppet/modules/site/files/robots.txt
echo 'include site' >puppet/manifests/site.pp
cat >site.pkr.hcl <<'END'
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "puppet-site"
  sources = ["source.bootstrap.base"]
  provisioner "packages" {
    install = ["puppet-agent", "nginx-light", "postgresql"]
  }
  provisioner "puppet-masterless" {
    manifest_file     = "puppet/manifests/site.pp"
    module_paths      = ["puppet/modules"]
    hiera_config_path = "puppet/hiera.yaml"
    facter            = { role = "front door" }
  }
  provisioner "shell" {
    inline = ["cat /srv/www/about.html /etc/fact /etc/ran", "systemctl is-enabled apt-daily.timer || :"]
  }
  provisioner "test" {
    enabled = ["nginx", "postgresql"]
    files   = ["/srv/www/index.html"]
  }
  output "disk" {}
}
END
ok 'it bakes' kiln bake site.pkr.hcl || finish
cp .err first
disk=$(id_of puppet-site disk <.out)
grep 'puppet-masterless done in' first | sed 's/^ */# /'
matches 'data of Hiera' "$(cat first)" 'shell: <h1>From Hiera: about</h1>'
matches 'facts' "$(cat first)" 'shell: front door base'
matches 'exec' "$(cat first)" 'shell: ran'
matches 'mask' "$(cat first)" 'shell: masked'
matches 'services wait for the boot' "$(cat first)" 'at boot: nginx, postgresql'
port=$(free_port)
ok 'the booted image serves it' kiln boot "$disk" --forward "$port:80" --check "http://127.0.0.1:$port/about.html" --timeout 400s

find puppet -exec touch {} +
ok 'touched files are the same files' kiln plan --offline -detailed-exitcode site.pkr.hcl
echo 'site::heading: Another' >puppet/data/common.yaml
kiln plan --offline site.pkr.hcl >plan 2>&1
matches 'changed data misses its step' "$(cat plan)" 'miss +2 +puppet-masterless'
sed -i 's/include site/include site\nnotify { "x": }\nfail("on purpose")/' puppet/manifests/site.pp
fails 1 'a manifest that fails' 'puppet apply exited with 1' kiln bake --offline site.pkr.hcl
finish
