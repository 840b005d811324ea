#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Post-processors: files that other programs read, written on every bake and only where that changes something. No machine is started.
. "$(dirname "$0")/../lib.sh"
require mkfs.ext4 qemu-img python3 tar gzip sha256sum

KILN_STORE=$WORK/store # this script runs beside those that share one
export KILN_STORE

mkdir -p root/etc root/usr/bin
echo web >root/etc/hostname
head -c 3000000 /dev/urandom >root/usr/bin/tool
seq 200000 >root/etc/numbers
truncate -s 32M disk.raw
mkfs.ext4 -q -F -d root disk.raw
ok 'a disk is imported' kiln import disk.raw vendor || finish
tar -C root --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1600000000 -cf layer.tar .
oci_layout layout layer.tar >/dev/null
ok 'a container image is imported' kiln import layout app || finish

disk_template() { # name, lines of post-processors
    printf 'source "disk" "base" { from = "image:vendor" }\nbuild {\n  name = "%s"\n  sources = ["source.disk.base"]\n%s\n}\n' "$1" "$2"
}
oci_template() {
    printf 'source "oci" "base" { from = "image:app" }\nbuild {\n  name = "%s"\n  sources = ["source.oci.base"]\n%s\n}\n' "$1" "$2"
}

# --- files of the build, checksums, archives, the manifest ---

disk_template web '
  post-processor "checksum" {
    checksum_types = ["sha256", "sha512"]
    output         = "sums/{{.BuildName}}.{{.ChecksumType}}"
  }
  post-processor "checksum" {}
  post-processors {
    post-processor "compress" {
      output = "web-{{.BuilderType}}.qcow2.gz"
    }
    post-processor "checksum" {
      output = "packed.sum"
    }
    post-processor "manifest" {
      output     = "packed.json"
      strip_path = true
    }
  }
  post-processor "compress" {
    output = "web.tar.zst"
  }
  post-processor "compress" {
    format            = "zip"
    output            = "web.archive"
    compression_level = 9
  }
  post-processor "manifest" {}
  post-processor "shell-local" {
    inline = ["echo \"$KILN_NAME $PACKER_BUILD_NAME $PACKER_BUILDER_TYPE $KILN_DISK\" >>ran", "test -n \"$KILN_STORE\"", "test -f \"$KILN_FILES\""]
  }' >web.pkr.hcl
ok 'it bakes' kiln bake web.pkr.hcl || finish
id=$(id_of web disk <.out)
disk=output-web/web.qcow2
ok 'the disk is written' qemu-img compare -q -f raw -F qcow2 disk.raw $disk
is 'sha256sum agrees' "$(cd output-web && sha256sum -c ../sums/base.sha256 2>&1)" 'web.qcow2: OK'
is 'sha512sum agrees' "$(cd output-web && sha512sum -c ../sums/base.sha512 2>&1)" 'web.qcow2: OK'
is 'without types it is sha256, under the name that Packer gives it' "$(cat packer_base_disk_sha256.checksum)" "$(cat sums/base.sha256)"
is 'gzip gives the disk back' "$(gzip -dc web-disk.qcow2.gz | sha256sum)" "$(sha256sum <$disk)"
is 'a chain sums up what it made' "$(sha256sum -c packed.sum 2>&1)" 'web-disk.qcow2.gz: OK'
if have zstd; then
    is 'zstd and tar give the disk back' "$(zstd -dcq web.tar.zst | tar -xOf - web.qcow2 | sha256sum)" "$(sha256sum <$disk)"
else
    skip 'zstd and tar give the disk back' 'zstd is not installed'
fi
is 'the zip has it, too' "$(python3 -c 'import zipfile, hashlib; z = zipfile.ZipFile("web.archive"); print(z.namelist(), hashlib.sha256(z.read("web.qcow2")).hexdigest())')" \
    "['web.qcow2'] $(sha256sum <$disk | cut -d ' ' -f 1)"
is 'a script knows what it is about' "$(cat ran)" "web base disk $id"
is 'the manifest lists the file with its sum' "$(python3 - <<'END'
import json, hashlib, os
build = json.load(open("packer-manifest.json"))["builds"][0]
file = build["files"][0]
print(len(build["files"]), file["name"], file["size"] == os.path.getsize(file["name"]), file["sha256"] == hashlib.sha256(open(file["name"], "rb").read()).hexdigest())
END
)" "1 $disk True True"
is 'that of a chain what the chain made' "$(python3 -c 'import json; print(sorted(f["name"] for f in json.load(open("packed.json"))["builds"][0]["files"]))')" \
    "['packed.sum', 'web-disk.qcow2.gz']"

# --- again: everything runs, nothing is written ---

stat -c '%n %i %Y %Z' $disk web-disk.qcow2.gz web.tar.zst web.archive sums/* packed.sum >before
start=$(date +%s%N)
ok 'it bakes again' kiln bake web.pkr.hcl
echo "# $((($(date +%s%N) - start) / 1000000)) ms"
is 'to the same image' "$(id_of web disk <.out)" "$id"
is 'no file is touched' "$(stat -c '%n %i %Y %Z' $disk web-disk.qcow2.gz web.tar.zst web.archive sums/* packed.sum)" "$(cat before)"
is 'but scripts run' "$(grep -c . ran)" 2
is 'and manifests grow' "$(python3 -c 'import json; print(len(json.load(open("packer-manifest.json"))["builds"]))')" 2
printf x >>$disk
rm web.tar.zst
touch web.archive
inode=$(stat -c %i web.archive)
ok 'with files changed, lost and touched it bakes' kiln bake web.pkr.hcl
ok 'what was changed is whole again' qemu-img compare -q -f raw -F qcow2 disk.raw $disk
ok 'what was lost is there' test -s web.tar.zst
is 'what was only touched stays' "$(stat -c %i web.archive)" "$inode"
is 'nothing else lies about' "$(find . -name '.kiln-*')" ''

# --- inputs and outputs, chains, conditions ---

echo one >source.txt
disk_template once '
  post-processor "shell-local" {
    inputs  = ["source.txt"]
    outputs = ["made.txt"]
    inline  = ["cat source.txt >made.txt", "echo >>once"]
  }
  post-processors {
    post-processor "artifice" {
      files = ["source.*", "made.txt"]
    }
    post-processor "compress" {
      output = "both.tgz"
    }
    post-processor "compress" {
      output = "both.tgz.xz"
    }
  }
  post-processor "shell-local" {
    except = ["disk.base"]
    inline = ["echo >>never"]
  }
  post-processor "shell-local" {
    name   = "second"
    inline = ["echo >>dropped"]
  }' >once.pkr.hcl
ok 'it bakes' kiln bake -except second once.pkr.hcl
ok 'again' kiln bake -except second once.pkr.hcl
is 'a script that declares inputs and outputs runs once' "$(grep -c '' once)" 1
echo two >source.txt
ok 'with another input' kiln bake -except second once.pkr.hcl
is 'it runs' "$(grep -c '' once) $(cat made.txt)" '2 two'
rm made.txt
ok 'without its output' kiln bake -except second once.pkr.hcl
is 'it runs, too' "$(grep -c '' once) $(cat made.txt)" '3 two'
is 'except counts, in the template and on the command line' "$(ls never dropped 2>/dev/null)" ''
is 'what one made and another packed is removed' "$(ls both.tgz 2>/dev/null)" ''
is 'and was in it' "$(python3 -c 'import lzma, tarfile, io; print(tarfile.open(fileobj=io.BytesIO(lzma.open("both.tgz.xz").read())).getnames())')" \
    "['source.txt', 'made.txt']"
ok 'files that are not of the build stay' test -f source.txt

disk_template gone '
  post-processors {
    post-processor "compress" {
      output              = "gone.tar.gz"
      keep_input_artifact = false
    }
    post-processor "compress" {
      output              = "gone.tar.gz.zst"
      keep_input_artifact = true
    }
  }' >gone.pkr.hcl
ok 'it bakes' kiln bake gone.pkr.hcl
is 'what the template says is not kept is gone, what it says is kept stays' "$(ls output-gone gone.tar.gz gone.tar.gz.zst)" "$(printf 'gone.tar.gz\ngone.tar.gz.zst\n\noutput-gone:')"
inode=$(stat -c %i gone.tar.gz)
ok 'it bakes again' kiln bake gone.pkr.hcl
is 'the archive is the same' "$(stat -c %i gone.tar.gz)" "$inode"

# --- a step on the host with inputs and outputs ---

cat >step.pkr.hcl <<'END'
source "disk" "base" { from = "image:vendor" }
build {
  name    = "step"
  sources = ["source.disk.base"]
  provisioner "shell-local" {
    inputs  = ["source.txt"]
    outputs = ["out/*.txt"]
    inline  = ["mkdir -p out", "tr a-z A-Z <source.txt >out/a.txt", "echo >>steps"]
  }
}
END
ok 'it bakes' kiln bake step.pkr.hcl
ok 'again there is nothing to do' kiln plan -detailed-exitcode step.pkr.hcl
echo three >source.txt
kiln plan step.pkr.hcl >plan 2>&1
matches 'another input is told' "$(cat plan)" 'miss +1 +shell-local +\(file source.txt: content\)'
ok 'it bakes' kiln bake step.pkr.hcl
is 'it ran' "$(grep -c '' steps) $(cat out/a.txt)" '2 THREE'
echo else >out/a.txt
kiln plan step.pkr.hcl >plan 2>&1
matches 'a changed output is told' "$(cat plan)" 'miss +1 +shell-local +\(its outputs are not'
sed -i 's/out\/\*/none\/*/' step.pkr.hcl
fails 1 'outputs that are not made' "did not make what it declares as 'outputs'" kiln bake step.pkr.hcl

# --- containers ---

oci_template shop '
  post-processors {
    post-processor "docker-tag" {
      repository = "registry.example:5000/team/shop"
      tags       = ["1.2", "stable"]
    }
    post-processor "docker-save" {
      path = "shop.docker.tar"
    }
    post-processor "checksum" {
      output = "shop.sum"
    }
    post-processor "manifest" {
      output = "shop.json"
    }
  }
  post-processors {
    post-processor "docker-import" {
      repository = "team/plain"
      tag        = "0.1"
      changes = [
        "ENTRYPOINT [\"/usr/bin/tool\"]",
        "ENV A=2 B=\"two words\"",
        "EXPOSE 80 53/udp",
        "LABEL version=1.0",
        "USER nobody",
        "WORKDIR /srv",
        "VOLUME /data",
      ]
    }
    post-processor "docker-save" {
      path = "plain.docker.tar"
    }
  }' >shop.pkr.hcl
ok 'it bakes' kiln bake shop.pkr.hcl || finish
id=$(id_of shop oci <.out)
is 'the image has its other name' "$(kiln --json show team.shop 2>.err | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')" "$id"
is 'the archive has its tags' "$(tar -xOf shop.docker.tar manifest.json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["RepoTags"])')" \
    "['registry.example:5000/team/shop:1.2', 'registry.example:5000/team/shop:stable']"
is 'the manifest as well' "$(python3 -c 'import json; print(json.load(open("shop.json"))["builds"][0]["kiln"]["tags"][1])')" registry.example:5000/team/shop:stable
matches 'the archive is summed up' "$(sha256sum -c shop.sum 2>&1)" '^shop.docker.tar: OK'
if have skopeo; then
    ok 'skopeo reads it' skopeo copy -q --insecure-policy docker-archive:shop.docker.tar dir:copied
    ok 'and what was imported' skopeo copy -q --insecure-policy docker-archive:plain.docker.tar oci:plain:v1
    is 'which starts as the changes say' "$(skopeo inspect --config oci:plain:v1 | python3 -c 'import json, sys
c = json.load(sys.stdin)["config"]
print(c["Entrypoint"], c["Env"], sorted(c["ExposedPorts"]), c["Labels"], c["User"], c["WorkingDir"], c["Volumes"])')" \
        "['/usr/bin/tool'] ['A=2', 'B=two words'] ['53/udp', '80/tcp'] {'version': '1.0'} nobody /srv {'/data': {}}"
else
    skip 'skopeo reads it' 'skopeo is not installed'
fi
if have podman && [ "$(id -u)" -eq 0 ]; then
    short_folder
    boxes() { podman --root "$WORK/boxes" --runroot "$SHORT" --storage-driver vfs "$@"; }
    ok 'podman loads it' boxes load -q -i shop.docker.tar
    is 'under its tag, as the image that kiln names' "sha256:$(boxes image inspect registry.example:5000/team/shop:1.2 --format '{{.Id}}')" "$id"
else
    skip 'podman loads it' 'podman is not installed, or we are not root'
fi
stat -c '%n %i %Y %Z' shop.docker.tar plain.docker.tar >before
kiln images --all >images.before 2>.err
ok 'it bakes again' kiln bake shop.pkr.hcl
is 'no file is touched' "$(stat -c '%n %i %Y %Z' shop.docker.tar plain.docker.tar)" "$(cat before)"
is 'no image is published' "$(kiln images --all 2>.err)" "$(cat images.before)"

# --- what was tagged is a base, as with Docker's daemon ---

cat >again.pkr.hcl <<'END'
source "docker" "again" {
  image   = "team/shop"
  pull    = false
  commit  = true
  changes = ["ENV PATH=/opt:$PATH AGAIN=1"]
}
build { sources = ["source.docker.again"] }
END
ok 'an image that was only tagged is a base' kiln bake --offline again.pkr.hcl
matches 'it has what changes say' "$(kiln --json show again | tr -d ' \n')" 'AGAIN=1'
sed 's|"team/shop"|"team/shop:1.2"|' again.pkr.hcl >tagged.pkr.hcl
fails 1 'the store knows no tags' 'team/shop:1.2' kiln bake --offline tagged.pkr.hcl

disk_template root '
  post-processors {
    post-processor "artifice" {
      files = ["layer.tar"]
    }
    post-processor "docker-import" {
      repository = "rootfs"
      changes    = ["CMD cat /etc/hostname"]
    }
    post-processor "docker-save" {
      path = "rootfs.docker.tar"
    }
  }' >root.pkr.hcl
ok 'a tar is imported' kiln bake root.pkr.hcl
ok 'and is the image' kiln export rootfs rootfs.out.tar --format=tar
is 'with its files' "$(tar -xOf rootfs.out.tar etc/hostname)" web
kiln images --all >images.before 2>.err
ok 'it bakes again' kiln bake root.pkr.hcl
is 'no image is published' "$(kiln images --all 2>.err)" "$(cat images.before)"

# --- mistakes ---

# --- values in other types, as HCL converts them ---

oci_template typed '
  post-processors {
    post-processor "docker-tag" {
      repository          = "typed.app"
      tag                 = [1.2, 7]
      force               = "true"
      keep_input_artifact = "true"
    }
    post-processor "docker-save" { path = "typed.tar" }
    post-processor "compress" {
      output              = "typed.tar.gz"
      compression_level   = "9"
      keep_input_artifact = "true"
    }
    post-processor "manifest" {
      output      = "typed.json"
      strip_path  = "true"
      custom_data = { number = 3, yes = true }
    }
    post-processor "shell-local" {
      inline           = ["exit 3"]
      valid_exit_codes = ["3"]
    }
  }' >typed.pkr.hcl
ok 'it bakes' kiln bake typed.pkr.hcl
is 'numbers are tags' "$(tar -xOf typed.tar manifest.json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["RepoTags"])')" "['typed.app:1.2', 'typed.app:7']"
is 'custom data are texts, as in Packer' "$(python3 -c 'import json; print(json.load(open("typed.json"))["builds"][0]["custom_data"])')" "{'number': '3', 'yes': 'true'}"

mistake() { # description, fragment, lines
    disk_template wrong "$3" >wrong.pkr.hcl
    fails 2 "$1" "$2" kiln validate wrong.pkr.hcl
}
mistake 'a type that is near' 'did you mean "checksum"' '  post-processor "checksums" {}'
mistake 'a type that is refused' 'no Vagrant boxes' '  post-processor "vagrant" {}'
mistake 'a login that is not ours' 'aws ecr get-login-password' '  post-processor "docker-push" {
    ecr_login    = true
    login_server = "1.dkr.ecr.x.amazonaws.com"
  }'
mistake 'an argument that is near' "did you mean 'output'" '  post-processor "compress" { outputs = "x" }'
mistake 'a checksum type that there is not' '"sha3" is no checksum type' '  post-processor "checksum" { checksum_types = ["sha3"] }'
mistake 'a format that there is not' 'no format that kiln writes' '  post-processor "compress" { format = "rar" }'
mistake 'a level that there is not' "from 1 to 9" '  post-processor "compress" { compression_level = 11 }'
mistake 'neither true nor false' "'keep_input_artifact' must be true or false" '  post-processor "checksum" { keep_input_artifact = "maybe" }'
mistake 'no files' "'files' is needed" '  post-processor "artifice" {}'
mistake 'no path' "'path' is needed" '  post-processor "docker-save" {}'
mistake 'a tag that is none' 'is no tag' "  post-processor \"docker-tag\" {
    repository = \"x\"
    tags       = [\"a b\"]
  }"
mistake 'a change that is none' 'RUN make' "  post-processor \"docker-import\" {
    repository = \"x\"
    changes    = [\"RUN make\"]
  }"
disk_template failing '
  post-processor "shell-local" {
    inline = ["exit 7"]
  }
  post-processor "shell-local" {
    inline = ["echo >>after"]
  }' >failing.pkr.hcl
fails 1 'a script that fails fails the bake' "post-processor 'shell-local': inline script on the host exited with 7" kiln bake failing.pkr.hcl
ok 'not the other chains' test -s after
ok 'and what was baked is there' kiln show failing
disk_template several '  post-processor "docker-save" { path = "x.tar" }' >several.pkr.hcl
fails 1 'a disk is no container' 'output "oci" {}' kiln bake several.pkr.hcl

# Two builds of one run that name one file.
cat >two.pkr.hcl <<'END'
source "disk" "a" { from = "image:vendor" }
source "disk" "b" { from = "image:vendor" }
build {
  sources = ["source.disk.a", "source.disk.b"]
  post-processor "checksum" { output = "shared.sum" }
}
END
fails 1 'two builds do not take turns in one file' 'was written for' kiln bake two.pkr.hcl
sed -i 's/shared.sum/{{.BuildName}}.sum/' two.pkr.hcl
ok 'each has its own' kiln bake two.pkr.hcl
is 'and it is right' "$(cd output-a && sha256sum -c ../a.sum 2>&1; cd ../output-b && sha256sum -c ../b.sum 2>&1)" "$(printf 'a.qcow2: OK\nb.qcow2: OK')"
finish
