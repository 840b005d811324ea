#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A template from the outside: another package, a script file, a folder upload, variables, loops. Nobody wrote kiln for it.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap umoci python3

mkdir -p scripts 'site/sub folder' conf
cat >scripts/setup.sh <<'END'
#!/bin/sh
set -eu
mkdir -p /opt/app
printf '%s %s\n' "$GREETING" "$(id -un)" > /opt/app/from-script
command -v tree > /opt/app/tree-path
END
echo 'one' >site/one.txt
echo 'two' >'site/sub folder/two words.txt'
printf '#!/bin/sh\necho run\n' >site/run.sh
chmod 755 site/run.sh
echo 'user=${user} port=${port}' >conf/app.tpl

cat >app.pkr.hcl <<'END'
packer {
  required_version = ">= 1.7.0"
}

variable "greeting" {
  type    = string
  default = "hello"
  validation {
    condition     = length(var.greeting) > 2
    error_message = "The greeting must have more than two letters."
  }
}
variable "users" {
  type    = list(string)
  default = ["ann", "bob"]
}

locals {
  shout = upper(var.greeting)
  lines = [for i, u in var.users : format("%02d %s", i, u)]
  ports = { ann = 8001, bob = 8002 }
}

source "bootstrap" "base" {
  suite = "bookworm"
}

build {
  name    = "app"
  sources = ["source.bootstrap.base"]

  provisioner "packages" {
    install = ["tree"]
  }
  provisioner "shell" {
    script           = "${path.root}/scripts/setup.sh"
    environment_vars = ["GREETING=${local.shout}"]
  }
  provisioner "file" {
    source      = "site"
    destination = "/opt/app"
  }
  provisioner "file" {
    source      = "site/"
    destination = "/opt/flat"
  }
  provisioner "file" {
    content     = join("\n", concat(local.lines, [""]))
    destination = "/opt/app/users"
  }
  provisioner "file" {
    content     = templatefile("${path.root}/conf/app.tpl", { user = var.users[0], port = lookup(local.ports, "ann", 0) })
    destination = "/opt/app/app.conf"
  }
  provisioner "shell" {
    inline = [
      for u in var.users : "useradd -m ${u}"
    ]
  }
  provisioner "shell" {
    inline            = ["exit 7"]
    valid_exit_codes  = [0, 7]
  }
  provisioner "shell" {
    inline = [<<-EOT
      cat > /opt/app/heredoc <<'INNER'
      %{ for u in var.users ~}
      user ${u}
      %{ endfor ~}
      INNER
      EOT
    ]
  }

  output "oci" {
    entrypoint = ["/opt/app/run.sh"]
    env        = ["APP=yes"]
    expose     = [8001]
  }
  post-processor "manifest" {
    output = "app-manifest.json"
  }
}
END

ok 'the template is valid' kiln validate app.pkr.hcl
fails 2 'a validation rule speaks' 'more than two letters' kiln validate -var greeting=hi app.pkr.hcl
ok 'it bakes' kiln bake -var greeting=good app.pkr.hcl || finish
id=$(awk '$2 == "oci" { print $3 }' .out)
ok 'export' kiln export "$id" app.oci --format=oci-dir
tag=$(python3 -c 'import json; print(json.load(open("app.oci/index.json"))["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])')
ok 'unpack' umoci unpack $([ "$(id -u)" -eq 0 ] || echo --rootless) --image "app.oci:$tag" bundle
root=bundle/rootfs
is 'the script ran with its environment' "$(cat $root/opt/app/from-script)" 'GOOD root'
is 'the package is installed' "$(cat $root/opt/app/tree-path)" /usr/bin/tree
is 'a folder without slash keeps its name' "$(cat "$root/opt/app/site/sub folder/two words.txt")" two
is 'a folder with slash gives its contents' "$(cat $root/opt/flat/one.txt)" one
is 'modes are kept' "$(stat -c %a $root/opt/flat/run.sh)" 755
is 'a loop made the list' "$(cat $root/opt/app/users)" "$(printf '00 ann\n01 bob')"
is 'templatefile was filled in' "$(cat $root/opt/app/app.conf)" 'user=ann port=8001'
is 'a loop made the commands' "$(grep -c -E '^(ann|bob):' $root/etc/passwd)" 2
matches 'a heredoc with a loop' "$(cat $root/opt/app/heredoc)" 'user bob'
is 'no package lists stay' "$(ls $root/var/lib/apt/lists 2>/dev/null | grep -c Packages)" 0
ok 'the manifest is JSON' python3 -c 'import json; m = json.load(open("app-manifest.json")); assert m["builds"][-1]["name"]'
grep -q "$id" app-manifest.json
is 'and names the image ID' $? 0

# A changed page costs its own step only.
echo 'new' >site/one.txt
start=$(date +%s)
ok 'with a changed file it bakes again' kiln bake -var greeting=good app.pkr.hcl
echo "# $(($(date +%s) - start)) s"
is 'the steps before do not run again' "$(grep -c -E 'from-script|useradd|packages: .*Setting up' .err)" 0
is 'the image is another one' "$(test "$(awk '$2 == "oci" { print $3 }' .out)" != "$id" && echo yes)" yes
finish
