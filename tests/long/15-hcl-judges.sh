#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# HCL itself judges the language. By way of npm: does it take the same texts, and is `kiln fmt` what its formatter makes, byte for byte?
# By way of Go and Debian's source package of HCL: does its specification suite pass? What is not there is skipped, visibly.
. "$(dirname "$0")/../lib.sh"

tools=$TREE/tests/language
packages='@cdktf/hcl-tools@0.21.0 @cdktf/hcl2json@0.21.0'

judge_texts() {
    mkdir texts npm
    # shellcheck disable=SC2086 # two words
    if ! timeout 300 npm install --no-audit --no-fund --prefix npm $packages >npm.log 2>&1; then
        skip 'HCL by npm' 'npm does not get the packages'
        return
    fi
    python3 "$tools/texts.py" "$TREE" texts
    ok 'HCL reads the texts' env NODE_PATH=npm/node_modules timeout 600 node "$tools/judge.js" texts
    : >verdicts
    : >formats
    same=0
    total=0
    for text in texts/*.hcl; do
        base=${text%.hcl}
        total=$((total + 1))
        cp "$text" one.pkr.hcl
        verdict=reject
        kiln validate -syntax-only one.pkr.hcl >/dev/null 2>"$base.said" && verdict=accept
        grep -q "^$verdict" "$base.verdict" || echo "$text: $verdict here; there: $(cat "$base.verdict")" >>verdicts
        [ -f "$base.formatted" ] && [ $verdict = accept ] || continue
        if kiln fmt - <"$text" | cmp -s - "$base.formatted"; then
            same=$((same + 1))
        else
            echo "$text" >>formats
        fi
    done
    is "the verdict on each of $total texts is the same" "$(cat verdicts)" ''
    is "fmt of $same texts is the same byte for byte" "$(cat formats)" ''
    ok 'that is at least 200 texts' test "$same" -ge 200
}

judge_suite() {
    sources=/usr/share/gocode/src/github.com/hashicorp/hcl/v2
    if ! have go || [ ! -d $sources/cmd/hclspecsuite ]; then
        skip "HCL's specification suite" 'golang-go or golang-github-hashicorp-hcl-v2-dev is not installed'
        return
    fi
    mkdir -p go/src/suite
    cp $sources/cmd/hclspecsuite/*.go go/src/suite
    GO111MODULE=off GOPATH=$WORK/go:/usr/share/gocode GOCACHE=$WORK/gocache go build -o "$WORK/suite" suite || {
        result 1 "HCL's runner builds"
        return
    }
    ok "HCL's specification suite passes" timeout 120 "$WORK/suite" $sources/specsuite/tests "$TREE/build/tests/hcldec"
    ok 'and the cases here pass in its runner' timeout 120 "$WORK/suite" "$TREE/tests/data/language/suite" "$TREE/build/tests/hcldec"
}

if have node && have npm && have python3; then
    judge_texts
else
    skip 'HCL by npm' 'node, npm or python3 is not installed'
fi
if [ -x "$TREE/build/tests/hcldec" ]; then
    judge_suite
else
    skip "HCL's specification suite" 'build/tests/hcldec is not built (make language-tools)'
fi
finish
