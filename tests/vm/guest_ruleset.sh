# On a kernel with nft_queue: the text that the engine prints loads by `nft -f` and lists the same as the table
# that the engine loads by netlink, in every shape; and the tests of the table hold on this kernel too.
# shellcheck shell=bash source=tests/vm/guest.sh
. tests/vm/guest.sh

# Two listings differ at most in the seed, which an engine draws, and in what was counted.
listing() { table "$1" | sed -E 's/seed 0x[0-9a-f]+/seed S/; s/packets [0-9]+ bytes [0-9]+/packets N bytes N/'; }

# same TEXT CONFIG WHAT: TEXT loaded by nft lists as the table of an engine with CONFIG.
same() {
    { ip netns add text && ip netns add engine; } || fail "no namespaces"
    ip -n text link set lo up && ip -n engine link set lo up
    ip netns exec text nft -f "$1" || fail "$3: nft does not load the text"
    start_engine engine "$2"
    listing text >"$work/text"
    listing engine >"$work/engine"
    grep -q 'chain pre' "$work/text" || fail "$3: the table is empty"
    diff -u "$work/text" "$work/engine" || fail "$3: nft and the engine list different tables"
    stop_engine
    # An engine that finds the text's table goes on with its seed and numbers, and changes nothing.
    table text >"$work/before"
    start_engine text "$2"
    table text | sed -E 's/packets [0-9]+ bytes [0-9]+/packets 0 bytes 0/' >"$work/after"
    diff -u "$work/before" "$work/after" || fail "$3: the engine changed the table that it adopted"
    stop_engine
    ip netns del text && ip netns del engine
    echo "ok: $3"
}

config() { # config NAME: from stdin
    cat >"$work/$1.toml"
    target/debug/verdictd ruleset --config "$work/$1.toml" >"$work/$1.nft" || fail "$1: no text"
}

# The file for people, whose workers and seed are fixed.
cp config/examples/firewall.toml "$work/example.toml"
printf '\n[engine]\nworkers = 2\n' >>"$work/example.toml"
same nft/verdictd.nft "$work/example.toml" "nft/verdictd.nft"
grep -q 'queue flags bypass to 4100' "$work/after" || fail "no native queue on this kernel"

config closed <<'EOF'
[firewall]
firewall_mode = "firewall"
[allowed_ports]
tcp = [22, 443, 65535]
ranges = ["6000-6010"]
[trusted]
networks = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]
[engine]
workers = 3
on_loss = "closed"
EOF
same "$work/closed.nft" "$work/closed.toml" "closed, three workers"

config detection <<'EOF'
[firewall]
firewall_mode = "detection_only"
[engine]
workers = 1
EOF
same "$work/detection.nft" "$work/detection.toml" "detection_only, one worker"

config observing <<'EOF'
[bans]
enforce = false
EOF
same "$work/observing.nft" "$work/observing.toml" "observing"

# Four minutes of emulated time: only with --long (make soak).
if [ -n "$VM_TESTS" ]; then
    "$VM_TESTS" --test-threads 2 --quiet || fail "tests of the table"
fi
