#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A base, three children of it and one that is nobody's child: what `bake --outdated` bakes when the base has news. And boot tests over HTTP.
. "$(dirname "$0")/../lib.sh"
require python3 curl gpg dpkg-deb apt-get mmdebstrap qemu-system-x86_64
. "$TREE/tests/repo.sh"

repo_start
repo_key good
repo_add app 1
repo_publish
cat >family.pkr.hcl <<END
source "bootstrap" "base" { suite = "bookworm" }
source "disk" "on-base" { from = "image:family-base" }
source "oci" "alone" { from = "scratch" }
build {
  name    = "family-base"
  sources = ["source.bootstrap.base"]
  provisioner "shell" {
    inline = ["rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*", "echo 'deb $repo_url/main stable main' > /etc/apt/sources.list"]
  }
  provisioner "file" {
    source      = "good.asc"
    destination = "/etc/apt/trusted.gpg.d/good.asc"
  }
  provisioner "packages" {
    install = ["app"]
  }
}
$(for child in one two three; do
    printf 'build {\n  name = "family-%s"\n  sources = ["source.disk.on-base"]\n  provisioner "file" {\n    content = "%s"\n    destination = "/etc/child"\n  }\n}\n' \
        $child $child
done)
build {
  name    = "family-alone"
  sources = ["source.oci.alone"]
}
END
ok 'a family' kiln bake family.pkr.hcl || finish
sort .out >before
ok 'nothing is outdated' kiln bake --outdated family.pkr.hcl
is 'and nothing baked' "$(cat .out)" ''

repo_add app 2
repo_publish
ok 'the base has news' kiln bake --outdated family.pkr.hcl
sort .out >after
is 'base and children are baked, the fourth is not' "$(cut -d' ' -f1 after | tr '\n' ' ')" 'family-base family-one family-three family-two '
is 'all are other images' "$(comm -12 before after | wc -l)" 0
matches 'the base first' "$(grep '^==>.*done in' .err | head -n 1)" 'family-base'
ok 'then nothing is outdated' kiln bake --outdated family.pkr.hcl
is 'and nothing baked again' "$(cat .out)" ''

# A boot test that asks the machine's own server.
cat >serves.pkr.hcl <<'END'
variable "path" { default = "/" }
source "bootstrap" "base" { suite = "bookworm" }
build {
  name    = "family-serves"
  sources = ["source.bootstrap.base"]
  provisioner "packages" {
    install = ["nginx-light"]
  }
  provisioner "file" {
    content     = "hello\n"
    destination = "/var/www/html/index.html"
  }
  provisioner "test" {
    enabled = ["nginx"]
    boot {
      http    = var.path
      port    = 80
      timeout = "4m"
    }
  }
  output "disk" {}
}
END
ok 'a disk is booted and asked before it is published' kiln bake serves.pkr.hcl
matches 'which is told' "$(cat .err)" 'boot test passed'
sed 's/timeout = "4m"/timeout = "60s"/' serves.pkr.hcl >absent.pkr.hcl
fails 1 'a page that is not there' 'did not answer within 60 s (last try: the server answered 404)' kiln bake -var path=/absent absent.pkr.hcl
is 'publishes nothing' "$(kiln images --all family-serves | grep -c ' disk ')" 1
is 'no process is left' "$(left_behind "$KILN_STORE")" ''
finish
