#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Releasing: channels that move by compare-and-set, ask for something and go back; revocation over generations; signatures; the audit.
# A store of its own, since it asks for the whole log.
. "$(dirname "$0")/../lib.sh"
require python3
KILN_STORE=$WORK/store
export KILN_STORE
unset KILN_SIGNING_KEY
XDG_CONFIG_HOME=$WORK/config
export XDG_CONFIG_HOME

json() { python3 -c 'import json, sys; d = json.load(open(".out")); print(eval(sys.argv[1]))' "$1"; }
points() { kiln --json channels "$1" | python3 -c 'import json, sys
print(*[e["image"] for e in json.load(sys.stdin)["channels"] if e["channel"] == sys.argv[1]])' "$2"; }
sql() { python3 -c 'import sqlite3, sys; c = sqlite3.connect("store/state.db"); c.executescript(sys.argv[1]); c.commit()' "$1"; }

image() { # NAME FROM VARIABLE
    cat >"$1-$3.pkr.hcl" <<END
source "oci" "from" { from = "$2" }
build {
  name    = "$1"
  sources = ["source.oci.from"]
  output "oci" { env = ["V=$3"] }
}
END
    kiln --quiet bake "$1-$3.pkr.hcl" | id_of "$1" oci
}
one=$(image web scratch 1)
two=$(image web scratch 2)
child=$(image child "image:$two" 3)
grandchild=$(image grandchild image:child 4)
not_ok 'four images' test -z "$one" -o -z "$two" -o -z "$child" -o -z "$grandchild"

# ---- channels ----

fails 1 'compare-and-set: nothing is there yet' 'points at nothing' kiln promote --expect "$one" "$two" prod
ok 'none is expected' kiln promote --expect none --reason 'the first' --on-behalf-of bob "$one" prod
fails 1 'compare-and-set: somebody was quicker' "points at oci $one" kiln promote --expect none "$two" prod
fails 2 'what cannot be expected' 'image ID' kiln promote --expect web "$two" prod
ok 'what is there is expected' kiln promote --note better --expect "$(echo "$one" | cut -c8-19)" "$two" prod
is 'it moved' "$(points web prod)" "$two"
ok 'the history' kiln --json channels --history web
is 'says from where, why and for whom' "$(json '[(e.get("from"), e["image"], e["reason"], e.get("on_behalf_of")) for e in d["channels"]] == [(None, "'"$one"'", "the first", "bob"), ("'"$one"'", "'"$two"'", "better", None)]')" True
is 'and who, which is somebody else' "$(json 'd["channels"][0]["who"]')" "$(id -un)"
matches 'a line for people' "$(kiln channels --history web)" "prod +$one .* for bob the first"
ok 'back' kiln promote --previous web prod
is 'to what was there before' "$(points web prod)" "$one"
ok 'and forth' kiln promote --previous --expect "$one" web/oci prod
is 'which is the same verb' "$(points web prod)" "$two"
fails 1 'no way back from nowhere' "never promoted to channel 'beta'" kiln promote --previous web beta
fails 2 'a reason of two lines' 'without line breaks' kiln promote --reason 'two
lines' "$one" prod

# ---- what a channel asks for ----

fails 2 'rules name a channel' 'NAME:CHANNEL' kiln channels set --require-reason web
fails 2 'rules say something' '--require-none' kiln channels set web:prod
fails 2 'all or nothing' '--require-none alone' kiln channels set --require-none --require-test web:prod
ok 'a channel asks' kiln channels set --require-reason --require-from staging web:prod
matches 'and shows it' "$(kiln channels web)" "web:prod asks for a reason, what was in 'staging'"
matches 'in its history, too' "$(kiln channels --history web)" 'prod +asks for a reason'
three=$(image web scratch 5)
fails 2 'a reason is asked for' 'asks for a reason' kiln promote web prod
fails 1 'a detour is asked for' "takes only what was in 'web:staging'" kiln promote --reason new web prod
ok 'the detour' kiln promote web staging
ok 'lets it in' kiln promote --reason new web prod
ok 'another asks for a test' kiln channels set --require-test web:tested
fails 1 'an untested image stays out' 'asks for a passed test' kiln promote web tested
ok 'nothing is asked for any more' kiln channels set --require-none --reason 'we trust you' web:prod
is 'and shown' "$(kiln channels web | grep -c asks)" 1
ok 'so anything goes' kiln promote "$one" prod

cat >tested.pkr.hcl <<'END'
source "oci" "from" { from = "scratch" }
build {
  name    = "proven"
  sources = ["source.oci.from"]
  provisioner "file" {
    content     = "here"
    destination = "/file"
  }
  provisioner "test" { files = ["/file"] }
}
END
cat >unchanged.pkr.hcl <<'END'
source "oci" "from" { from = "image:proven" }
build {
  name    = "unchanged"
  sources = ["source.oci.from"]
}
END
ok 'a bake with a test' kiln bake tested.pkr.hcl
ok 'its provenance says so' kiln --json show proven
is 'by step' "$(json 'd["provenance"]["tests"]')" "[{'step': 2, 'test': 'test', 'where': 'guest'}]"
ok 'a channel that asks for one' kiln channels set --require-test proven:prod
ok 'gets it' kiln promote proven prod
ok 'the same under another name' kiln bake unchanged.pkr.hcl
ok 'asks' kiln channels set --require-test unchanged:prod
ok 'and keeps its proof' kiln promote unchanged prod

# ---- signatures and the audit ----

fails 2 'no key, no signature' 'there is no key' kiln sign web
ok 'a key' kiln sign --generate key
is 'for its owner only' "$(stat -c %a key) $(stat -c %a key.pub)" '600 644'
fails 1 'never over another' 'File exists' kiln sign --generate key
ok 'sign' kiln sign --key key web
ok 'verify' kiln verify-signature --key key.pub web
if have openssl; then
    ok 'keys of openssl do' sh -c 'umask 077 && openssl genpkey -algorithm ed25519 -out other && openssl pkey -in other -pubout -out other.pub'
    fails 1 'another key' 'is not signed by this key' kiln verify-signature --key other.pub web
    ok 'an RSA key' sh -c 'umask 077 && openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -out rsa'
    fails 1 'is none of ours' 'no Ed25519 key' kiln sign --key rsa web
else
    skip 'keys of openssl' 'openssl is not installed'
fi
mkdir -p config/kiln
echo "signing_key = $WORK/key" >config/kiln/kiln.conf
ok 'a configured key signs the log' kiln promote web next
ok 'and the audit checks it' kiln --json audit
is 'one head' "$(json 'd["clean"], d["heads_checked"]')" '(True, 1)'
ok 'the logs by hand' kiln sign --heads
matches 'are printed, to keep elsewhere' "$(cat .out)" '^channels [0-9]+ sha256:[0-9a-f]{64} [A-Za-z0-9+/=]{88}$'
echo "signing_key = $WORK/none" >config/kiln/kiln.conf
fails 1 'a key that is not there stops it before anything moves' 'open key' kiln promote "$one" next
is 'so nothing moved' "$(points web next)" "$three"
rm config/kiln/kiln.conf

ok 'the audit of an image' kiln --json audit --image "$one"
is 'says what was done with it' "$(json 'sorted({(r["what"], r["channel"]) for r in d["rows"]})')" "[('promote', 'prod')]"
is 'and when it ended' "$(json '[r["to"] is None for r in d["rows"] if r["image"] == "'"$one"'"]')" '[False, False, True]'
for since in 7d 2020-01-01 2020-01-01T10:00:00Z; do
    ok "since $since" kiln --json audit --since $since
    is 'everything' "$(json 'len(d["rows"]) > 10')" True
done
ok 'since tomorrow' kiln --json audit --since "$(date -d '+2 days' +%Y-%m-%d)"
is 'nothing' "$(json 'd["rows"]')" '[]'
fails 2 'since when' '--since takes' kiln audit --since yesterday
fails 2 'what is no name of a group' 'is no group' kiln audit --group 'We/b'

# ---- revocation ----

fails 2 'a revocation needs a reason' 'needs a reason' kiln revoke "$two"
ok 'a channel of the grandchild' kiln promote grandchild live
ok 'a way back' kiln promote "$two" free
ok 'to the image' kiln promote "$one" free
ok 'a rehearsal' kiln --json revoke --dry-run "$two"
is 'lists descendants' "$(json '[i["id"] for i in d["descendants"]] == ["'"$grandchild"'", "'"$child"'"]')" True
is 'and channels' "$(json '[(c["name"], c["channel"]) for c in d["channels"]], d["groups"], d["revoked"]')" "([('grandchild', 'live')], [], False)"
ok 'and changes nothing' kiln promote "$two" prod
ok 'revoked' kiln revoke --reason 'it leaks' --stop "$two"
fails 1 'itself' 'it leaks' kiln promote "$two" beta
fails 1 'its child' "was baked from $two, which was revoked: it leaks" kiln promote child prod
fails 1 'its grandchild' 'it leaks' kiln promote grandchild prod
fails 1 'no bake from it' 'it leaks' kiln bake grandchild-4.pkr.hcl
fails 1 'no plan either' 'it leaks' kiln plan grandchild-4.pkr.hcl
fails 1 'no way back to it' 'it leaks' kiln promote --previous web free
ok 'others are free' kiln promote "$one" prod

# ---- who changes the log ----

ok 'clean' kiln fsck
cp -r store kept
sql 'UPDATE channel_log SET note = "harmless" WHERE note = "it leaks"'
fails 1 'a changed reason' 'do not verify' kiln audit
matches 'names the entry' "$(cat .out)" 'entry [0-9]+ of the channel log .* was changed'
fails 1 'fsck says so, too' 'problem' kiln fsck
rm -rf store && cp -r kept store
sql 'DELETE FROM channel_log WHERE number > 3; UPDATE sqlite_sequence SET seq = 3 WHERE name = "channel_log"'
not_ok 'an end cut off by somebody who knows how' kiln --json audit --key key.pub
matches 'is told by a signed head' "$(json 'd["problems"]')" 'of channels, which a signed head names, is gone'
finish
