# What the guest scripts share; sourced by them, in the guest.
# shellcheck shell=bash
set -u
[ "${VERDICTD_VM:-}" = 1 ] || { echo "this runs in a virtual machine: tests/vm/run" >&2; exit 2; }
work=$(mktemp -d)
engine=

fail() {
    echo "FAILED: $*"
    [ ! -f "$work/engine.err" ] || sed 's/^/  engine: /' "$work/engine.err"
    exit 1
}

# until SECONDS COMMAND...: asks again until it says yes.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# start_engine NAMESPACE CONFIG: without any state; returns once it is ready.
start_engine() {
    rm -rf "$work/state"
    restart_engine "$@"
}

# restart_engine NAMESPACE CONFIG: with the state of the one before.
restart_engine() {
    rm -rf "$work/run"
    ip netns exec "$1" target/debug/verdictd run --config "$2" --state-dir "$work/state" \
        --runtime-dir "$work/run" >"$work/engine.out" 2>"$work/engine.err" &
    engine=$!
    until_true 180 grep -qx ready "$work/engine.out" || fail "the engine is not ready"
}

stop_engine() {
    kill "$engine"
    wait "$engine" || fail "the engine ended with $?"
    engine=
}

# Without the workers that beat, which come and go.
table() { ip netns exec "$1" nft list table inet verdictd | grep -vE "^[[:space:]]+(elements = \{ )?0x7664"; }
