#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Seeded faults of the transition function: each is put into a copy of its sources, and the explorer or a scenario must notice. A mutant that
# does not change its file any more is a failure of this script.
. "$(dirname "$0")/../lib.sh"
require cc pkg-config sed timeout

flags="-O1 -std=gnu11 -D_GNU_SOURCE $(pkg-config --cflags glib-2.0)"
libs=$(pkg-config --libs glib-2.0)
sources='transition seat scene scene-grow scene-shrink state action'

compile() { # program
    # shellcheck disable=SC2086 # flags are words
    cc $flags -I"$WORK" -o "$1" "$TREE/tests/unit/$1.c" $(for s in $sources; do echo "deploy/$s.c"; done) $libs
}

fresh() {
    rm -rf deploy test-explore test-transition
    mkdir deploy
    cp "$TREE"/deploy/transition.h "$TREE"/deploy/seat.h "$TREE"/deploy/scene.h deploy/
    for s in $sources; do cp "$TREE/deploy/$s.c" deploy/; done
}

caught() { # who notices; an explorer that takes too long says nothing
    if ! timeout 60 ./test-transition >scenario.out 2>&1; then
        by=" $(grep -m1 'Bail out' scenario.out | sed 's/.*tests.unit.//; s/: assertion.*//')"
    fi
    timeout 30 ./test-explore >explore.out 2>explore.err
    if [ $? -eq 1 ]; then
        by="$by $(grep -h -m1 BROKEN explore.err | sed 's/.*BROKEN: //; s/ (strategy.*//')"
    fi
    [ -n "$by" ]
}

mutant() { # rule, what, file, sed script
    fresh
    sed "$4" "$TREE/deploy/$3.c" >"deploy/$3.c"
    if cmp -s "$TREE/deploy/$3.c" "deploy/$3.c"; then
        result 1 "$1: $2: changes nothing any more"
        return
    fi
    if ! { compile test-explore && compile test-transition; } 2>compile.err; then
        explain compile.err
        result 1 "$1: $2: does not compile"
        return
    fi
    by=
    caught
    result $? "$(printf '%-8s %-58s caught:%s' "$1" "$2" "${by:-by nobody}")"
}

fresh
compile test-explore && compile test-transition
by=
if caught; then result 1 "without a mutant: $by"; else result 0 'without a mutant all is well'; fi

mutant floor 'one more may be drained than the floor allows' scene-shrink 's/budget->serving <= scene->floor/budget->serving < scene->floor/'
mutant floor 'the floor is one too low' seat 's/MIN(state->size, rules->max_unavailable)/MIN(state->size, rules->max_unavailable + 1)/'
mutant floor 'instances that fail their checks count as serving' seat 's/instance->route != ROUTE_IN || !instance->up/instance->route != ROUTE_IN/'
mutant floor 'the old one goes while the new one is on its way' scene-shrink 's/scene->blocking > 0 || //'
mutant floor 'a switch back to whoever is left' transition 's/(ready < need \&\& ready <= scene->serving)/false/'
mutant ceiling 'one create more than there is room' scene-grow 's/unsigned all_room = scene->ceiling - /unsigned all_room = scene->ceiling + 1 - /'
mutant ceiling 'dead instances do not count' seat 's/return instance->life != LIFE_NONE \&\&/return instance->life != LIFE_NONE \&\& instance->life != LIFE_DEAD \&\&/'
mutant ceiling 'instances on silent hosts do not count' seat 's/!(instance->ended \&\& instance->life == LIFE_UNKNOWN)/instance->life != LIFE_UNKNOWN/'
mutant ceiling 'exclusive slots are shared' scene-grow 's/return placing->slots \&\& (GPOINTER/return false \&\& (GPOINTER/'
mutant order 'destroy before leave' scene-shrink 's/one->row->place >= 0 || !instance_exists/!instance_exists/'
mutant order 'leave with sessions' scene-shrink 's/waiting |= .*/waiting = false;/'
mutant order 'two stages at once' transition 's/scene_advance(&scene) ||/(scene_advance(\&scene) | scene_shrink(\&scene)) ||/'
mutant proof 'no attest' scene 's/keeper->proof == PROOF_NONE/false/'
mutant proof 'traffic before the balancer sees it up' scene 's/return keeper->up ? STAGE_ROUTE : STAGE_UP/return STAGE_ROUTE/'
mutant proof 'enter before it is warm' scene 's/keeper->health != HEALTH_GOOD/keeper->health == HEALTH_BAD/'
mutant proof 'a wrong image stays' seat 's/row->proof == PROOF_BAD/false/'
mutant I11 'the old color is not kept while the new one holds' seat 's/if (rules->strategy == STRATEGY_BLUEGREEN)$/if (rules->strategy == STRATEGY_BLUEGREEN \&\& state->phase != PHASE_HOLD)/'
mutant I11 'no hold' transition 's/if (!state->hold_over) {/if (false) {/'
mutant I12 'healed with what comes next' scene-grow 's/\.revision = seat->revision, \.slot/.revision = scene->state->next ? scene->state->next : seat->revision, .slot/'
mutant I14 'a stale controller goes on' transition 's/if (state->newer_epoch) {/if (false) {/'
mutant I4 'attempts begin again' scene-grow 's/last = MAX(last, state_row(.*)->attempt)/last = 0/'
mutant I4 'a revision that comes back counts from one' scene-grow 's/revision ? revision->attempts : 0/0/'
mutant crash 'the place is told after the enter only' state 's/row->place = action->place;/(void)action;/; s/case ACTION_ENTER:$/case ACTION_ENTER: if (action->kind == ACTION_ENTER) row->place = action->place;/'
mutant crash 'a create that was not done is forgotten' transition 's/if (row->ended || row->life != LIFE_NONE || row == keeper)/if (row->ended || row->life != LIFE_NONE || !row->created || row == keeper)/'
mutant crash 'the fold looks at the world' state 's/if (!wrong || row->failed)/if (!wrong || row->failed || row->health == HEALTH_GOOD)/'
mutant cooled 'a failed attempt is repeated at once' scene 's/if (gated \&\& !newest->cooled) {/if (false) {/'
mutant cooled 'failures are not counted' state 's/state->failures++;/;/'
mutant color 'a revision begins in the color that has the traffic' transition 's/return 1 - (scene_color/return (scene_color/'
mutant color 'strays and the new revision share a pool' scene-grow 's/if (pool->foreign \&\& .*/if (false)/'
mutant color 'no switch on the way back' transition 's/case PHASE_BACK:$/case PHASE_BACK: if (state->phase == PHASE_BACK) return 0;/'
mutant silence 'the balancer is moved while it is silent' scene-shrink 's/return (scene->answers \&\& (/return ((/'
mutant gate 'the gate is open' transition 's/if (rules->gate \&\& !state->passed_gate)/if (false)/'
finish
