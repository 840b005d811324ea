#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a step says arrives, soon and whole, however much it is; what does not end is ended when its time is over.
. "$(dirname "$0")/../lib.sh"
require mmdebstrap python3

# Runs kiln with a clock beside each line: "SECONDS LINE" of stderr in .timed, the highest memory use in .memory.
cat >timed.py <<'END'
import subprocess, sys, threading, time
kiln = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, stdout=open(".out", "w"))
peak, running = 0, True
def watch():
    global peak
    while running:
        try:
            for line in open(f"/proc/{kiln.pid}/status"):
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]))
        except OSError:
            return
        time.sleep(0.1)
watcher = threading.Thread(target=watch)
watcher.start()
with open(".timed", "w") as timed, open(".long", "w") as long:
    bytes_seen = lines = 0
    for raw in kiln.stderr:
        now = time.time()
        if raw.startswith(b"    shell: 0123456789"):
            bytes_seen, lines = bytes_seen + len(raw) - len(b"    shell: "), lines + 1
            continue
        timed.write(f"{now:.3f} {raw.decode(errors='replace')}")
    long.write(f"{bytes_seen} {lines}\n")
status = kiln.wait()
end, running = time.time(), False
watcher.join()
open(".memory", "w").write(f"{peak}\n")
open(".end", "w").write(f"{end:.3f}\n")
sys.exit(status)
END
timed() { python3 timed.py "$KILN" "$@"; }
at() { awk -v text="$1" 'index($0, text) { print $1; exit }' .timed; } # when a line arrived
difference() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", a - b }'; }
at_most() { # description, number, limit
    awk -v a="$2" -v b="$3" 'BEGIN { exit !(a != "" && a <= b) }'
    result $? "$1 ($2, at most $3)"
}

template() { # name of the build, lines of its shell step
    printf 'source "bootstrap" "base" { suite = "bookworm" }\nbuild {\n  name = "%s"\n  sources = ["source.bootstrap.base"]\n' "$1"
    shift
    printf '  provisioner "shell" {\n'
    printf '    %s\n' "$@"
    printf '  }\n}\n'
}

# The network sets the guest's clock to the host's, so that the line can say when it was printed.
template talk 'network = true' \
    'inline = ["date +printed:%s.%N", "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -c 200000000", "echo the last line"]' >talk.pkr.hcl
ok '200 MB of output pass' timed bake talk.pkr.hcl
printed=$(sed -n 's/.*shell: printed://p' .timed)
at_most 'the first line is visible within a second' "$(difference "$(at 'shell: printed:')" "$printed")" 1
is 'every byte arrived' "$(cat .long)" '200000000 2500000'
matches 'and the last line' "$(cat .timed)" 'shell: the last line'
at_most 'memory of kiln while it passed, in KiB' "$(cat .memory)" 131072
echo "# 200 MB took $(difference "$(at 'the last line')" "$(at 'shell: printed:')") s"

template hang 'timeout = "5s"' \
    'inline = ["trap \"\" TERM", "setsid sh -c \"trap : TERM HUP; while :; do sleep 1; done\" &", "echo started", "while :; do sleep 1; done"]' >hang.pkr.hcl
timed bake hang.pkr.hcl
is 'a step that hangs fails' "$?" 1
at_most 'within 2 s of its limit of 5 s' "$(difference "$(at 'kiln: ')" "$(at 'shell: started')")" 7
at_most 'and so does kiln' "$(difference "$(cat .end)" "$(at 'shell: started')")" 7
matches 'and is told' "$(cat .timed)" 'kiln: hang: step 1 \(shell\): shell passed its time limit and was stopped'
is 'nothing of it is left' "$(left_behind "$KILN_STORE")" ''

# What runs on this machine has limits, too.
template hang-here 'inline = ["true"]' | sed 's/provisioner "shell" {/provisioner "shell-local" {\n    timeout = "2s"/; s/"true"/"trap \\"\\" TERM", "echo started", "while :; do sleep 1; done"/' >here.pkr.hcl
timed bake here.pkr.hcl
is 'a step on the host that hangs fails' "$?" 1
at_most 'within 2 s of its limit of 2 s' "$(difference "$(at 'kiln: ')" "$(at 'shell-local: started')")" 4
matches 'and is told' "$(cat .timed)" "kiln: hang-here: step 1 \(shell-local\): inline script on the host passed the step's time limit"
finish
