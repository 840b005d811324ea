#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# After a failure: the next bake starts behind the last good step, whether the last one failed or was killed. Retries, cleanup, questions,
# breakpoints and shells leave nothing in an image. The root is a shell and a few programs of this machine, so that a guest costs little.
. "$(dirname "$0")/../lib.sh"
. "$TREE/tests/root.sh"
require python3 ldd bash
KILN_STORE=$WORK/store # which steps run is what this is about: none may be known from before

# Says what pages of text cannot: runs a program on a terminal and types when it sees what it waits for.
cat >terminal.py <<'END'
import os, pty, re, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "trap : INT; " + sys.argv[1] + '; echo "status $?"; stty -a'])
seen, at, end = b"", 0, time.time() + 150
script = [line.rstrip("\n").split(" => ") for line in open(sys.argv[2])]
while time.time() < end:
    if select.select([fd], [], [], 0.5)[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        seen += data
    while script and (found := re.search(script[0][0].encode(), seen[at:])):
        at += found.end()
        os.write(fd, script.pop(0)[1].encode().decode("unicode_escape").encode())
else:
    os.kill(pid, 9)
sys.stdout.write(seen.decode(errors="replace").replace("\r", ""))
print("never seen:", script[0][0]) if script else print("all seen")
END

small_root sh bash ls cat sleep touch stty rm chmod mkdir sync

template() { # breakpoint or nothing, then the last step's command
    cat <<END
variable "three" { default = "true" }
source "oci" "root" { from = "oci:parent:v1" }
build {
  name    = "resume"
  sources = ["source.oci.root"]
  provisioner "shell" {
    name   = "one"
    inline = ["echo 1 > /one"]
  }
  provisioner "shell" {
    name   = "two"
    inline = ["echo 2 > /two"]
  }
  $1
  provisioner "shell" {
    name         = "three"
    inline       = ["test ! -e /dirty || echo FOUND-DIRT", "touch /dirty", "echo tried", var.three, "rm /dirty", "echo 3 > /three"]
    pause_before = "1s"
    timeout      = "2s"
    max_retries  = 1
  }
  error-cleanup-provisioner "shell" {
    inline = ["echo CLEANING; ls /", "touch /cleaned"]
  }
}
END
}
template 'provisioner "breakpoint" { note = "look around" }' >resume.pkr.hcl
template '' >plain.pkr.hcl
sed 's/max_retries  = 1/max_retries  = 0/' resume.pkr.hcl >once.pkr.hcl
names() { # of the files in the image's last layers
    rm -rf out.oci
    "$KILN" export resume/oci out.oci --format=oci-dir >/dev/null 2>&1
    python3 - <<'END'
import json, tarfile
read = lambda digest: open("out.oci/blobs/sha256/" + digest.split(":")[1], "rb")
manifest = json.load(read(json.load(open("out.oci/index.json"))["manifests"][0]["digest"]))
names = set()
for layer in manifest["layers"][1:]:
    with tarfile.open(fileobj=read(layer["digest"]), mode="r:*") as tar:
        names |= {m.name.strip("./") for m in tar if m.isfile()}
print(" ".join(sorted(names)))
END
}
step() { grep -c "step $1 of" "$2"; }

# A step that runs into its limit, twice.
fails 1 'a step that takes too long fails' 'passed its time limit' kiln bake -var 'three=sleep 30' resume.pkr.hcl
cp .err first
is 'the steps before it ran' "$(step 1 first) $(step 2 first)" '1 1'
is 'it was tried again, each time after its pause' "$(grep -c 'three: tried' first) $(grep -c 'three: pausing' first)" '2 2'
is 'from a clean state' "$(grep -c FOUND-DIRT first)" 0
matches 'the cleanup saw what the step left' "$(sed -n '/CLEANING/,$p' first)" 'shell: dirty'
matches 'a breakpoint without a terminal is passed over' "$(cat first)" 'breakpoint: passed over, nobody sits at a terminal: look around'
matches 'where the next bake starts is told' "$(cat first)" 'starts again there \(--shell-at 4'

# The next one, with a script looking at the state before the step.
printf 'ls /\ntouch /by-shell\necho to-stderr >&2\n' >script
ok 'the next bake works' sh -c '"$0" bake --shell-at three resume.pkr.hcl <script' "$KILN" || finish
cp .out second.out
cp .err second
is 'it starts again after the last good step' "$(step 1 second) $(step 2 second) $(step 4 second)" '0 0 1'
is 'the shell saw the good steps and nothing else' "$(grep -E '^(one|two|three|dirty|cleaned)$' second.out | tr '\n' ' ')" 'one two '
matches 'its other output is not among results' "$(cat second)" '^to-stderr$'
id=$(id_of resume oci <second.out)
is 'only the steps are in the image' "$(names)" 'one three two'

# Everything is cached.
ok 'again' kiln bake resume.pkr.hcl
is 'the same image' "$(id_of resume oci <.out)" "$id"
is 'no appliance for a breakpoint nobody sees' "$(grep -c 'starting the appliance' .err)" 0
ok 'without the breakpoint' kiln bake plain.pkr.hcl
is 'the same image and no appliance' "$(id_of resume oci <.out) $(grep -c 'starting the appliance' .err)" "$id 0"

# On a terminal: --shell-at and a breakpoint stop in the same state, one after the other. Ctrl-C is typed when the program that it ends
# has said that it runs: before that it would meet the shell, which may be between two looks at its signals.
cat >typed <<'END'
before step 3 \(breakpoint\).*\n(.*\n)*.*# => sh -c 'echo as""leep; exec sleep 60'\n
\nasleep => \x03
\^C(.*\n)*.*# => echo by-hand > /by-hand; ls -d /by-hand\n
\n/by-hand\r\n(.*\n)*.*# => \x1d
breakpoint: look around.*\n(.*\n)*.*# => ls /by-hand; exit 7\n
END
python3 terminal.py "'$KILN' bake --shell-at 3 resume.pkr.hcl" typed >terminal.out
matches 'shells open though everything is cached' "$(tail -n 1 terminal.out)" 'all seen'
is 'what was written in the first is not in the second' "$(grep -c "cannot access '/by-hand'" terminal.out)" 1
matches 'the bake goes on' "$(cat terminal.out)" '^status 0$'
matches 'to the same image' "$(cat terminal.out)" "$id"
is 'with one appliance' "$(grep -c 'starting the appliance' terminal.out)" 1
matches 'and the terminal is as it was' "$(grep -E -- '-?icanon' terminal.out; grep -Ew -- '-?echo' terminal.out)" '(^| )icanon'

# A question.
cat >typed <<'END'
breakpoint: look around.*\n(.*\n)*.*# => exit\n
as the step left it:  => s\n
left it: a shell.*\n(.*\n)*.*# => ls /; touch /asked\n
dirty(.*\n)*.*# => exit\n
as the step left it:  => r\n
as the step left it:  => a\n
END
python3 terminal.py "'$KILN' bake -on-error=ask -var three=false once.pkr.hcl" typed >terminal.out
matches 'ask: look, retry, abort' "$(tail -n 1 terminal.out)" 'all seen'
is 'ask: the retry started clean' "$(grep -c 'three: tried' terminal.out) $(grep -c 'three: FOUND-DIRT' terminal.out)" '2 0'
is 'ask: abort runs no cleanup' "$(grep -c 'shell: CLEANING' terminal.out)" 0
matches 'ask: the bake failed' "$(cat terminal.out)" '^status 1$'

# Killed in the middle. What a shell-local before it does is done again, and nothing else.
sed 's/provisioner "breakpoint".*/provisioner "shell-local" { command = "true" }/; s/timeout .*/timeout = "60s"/' once.pkr.hcl >kill.pkr.hcl
"$KILN" bake -var 'three=sleep 60' kill.pkr.hcl >.out 2>.err &
victim=$!
waited=0
while ! grep -q 'three: tried' .err && [ $waited -lt 60 ]; do
    sleep 1
    waited=$((waited + 1))
done
kill -9 $victim
wait $victim 2>/dev/null
ok 'after a kill the next bake works' kiln bake -var 'three=echo more > /more' kill.pkr.hcl
is 'and runs what was not done' "$(step 1 .err) $(step 2 .err) $(step 3 .err) $(step 4 .err)" '0 0 1 1'
is 'with nothing of the killed try' "$(names)" 'more one three two'
is 'and leaves no process' "$(left_behind "$KILN_STORE")" ''

# Failures on the host cost no guest.
cat >local.pkr.hcl <<'END'
source "oci" "root" { from = "oci:parent:v1" }
build {
  name    = "local"
  sources = ["source.oci.root"]
  provisioner "shell-local" {
    command     = "echo x >> tries; exit 1"
    max_retries = 2
  }
  error-cleanup-provisioner "shell-local" { command = "echo x >> cleaned; exit 1" }
}
END
for how in '' -on-error=cleanup -on-error=run-cleanup-provisioner -on-error=abort -on-error=ask; do
    rm -f tries cleaned
    fails 1 "${how:-default}: the step's own failure is told" 'exited with 1' kiln bake $how local.pkr.hcl
    expected=1
    [ "$how" = -on-error=abort ] && expected=0
    is "${how:-default}: tries and cleanups" "$(grep -c x tries) $(cat cleaned 2>/dev/null | grep -c x)" "3 $expected"
done
matches 'ask without a terminal cleans up, and says so' "$(cat .err)" 'finds no terminal'
printf '%s\n' 'left it:  => x\n' 'left it:  => \x03' >typed
rm -f tries cleaned
python3 terminal.py "'$KILN' bake -on-error=ask local.pkr.hcl" typed >terminal.out
matches 'Ctrl-C at the question' "$(cat terminal.out)" '^status 130$'
is 'ends without a cleanup' "$(ls cleaned 2>/dev/null)" ''
is 'no appliance' "$(grep -c 'starting the appliance' .err)" 0

fails 2 'a step that is not there' '1 one, 2 two, 3 breakpoint, 4 three, 5 seal, end' kiln bake --shell-at four resume.pkr.hcl
fails 2 'an -on-error that is none' 'run-cleanup-provisioner' kiln bake -on-error=retry resume.pkr.hcl
fails 2 'one shell, one build' '-only' kiln bake --shell-at one resume.pkr.hcl local.pkr.hcl
finish
