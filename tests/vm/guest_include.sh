# Include mode: the operator's own nftables.conf flushes the ruleset and includes the engine's table; it is loaded
# again and again under traffic. The engine touches no chain, and its bans are back within a second.
# shellcheck shell=bash source=tests/vm/guest.sh
. tests/vm/guest.sh

{ ip netns add host && ip netns add peer; } || fail "no namespaces"
ip link add lan0 netns host type veth peer name lan0 netns peer
ip -n host address add 10.77.0.2/24 dev lan0
for address in 10.77.0.1 10.77.0.3; do ip -n peer address add $address/24 dev lan0; done
for ns in host peer; do
    ip -n $ns link set lo up
    ip -n $ns link set lan0 up
done
ctl() { target/debug/verdictctl --socket "$work/run/control.sock" "$@"; }

cat >"$work/include.toml" <<'CONFIG'
[firewall]
firewall_mode = "firewall"
[allowed_ports]
tcp = [80]
[engine]
manage_ruleset = false
workers = 2
queue_base = 4200
log_base = 4200
seed = 0x1234
CONFIG
target/debug/verdictd ruleset --config "$work/include.toml" >"$work/verdictd.nft" || fail "no text"
printf 'flush ruleset\ninclude "%s"\n' "$work/verdictd.nft" >"$work/nftables.conf"

# Without the table the engine says what to do, and loads none itself.
if ip netns exec host target/debug/verdictd run --config "$work/include.toml" --state-dir "$work/state" \
    --runtime-dir "$work/run" >"$work/engine.out" 2>"$work/engine.err"; then
    fail "it started without its table"
fi
grep -q 'verdictd ruleset' "$work/engine.err" || fail "the missing table is not explained"

# A table with another seed leads to the wrong workers: refused by name.
sed 's/0x1234/0x4321/; s/0x00001234/0x00004321/' "$work/verdictd.nft" >"$work/other.nft"
cmp -s "$work/verdictd.nft" "$work/other.nft" && fail "the text has no seed"
ip netns exec host nft -f "$work/other.nft" || fail "the other text does not load"
if ip netns exec host target/debug/verdictd run --config "$work/include.toml" --state-dir "$work/state" \
    --runtime-dir "$work/run" >"$work/engine.out" 2>"$work/engine.err"; then
    fail "it started on a table with another seed"
fi
grep -q 'seed is' "$work/engine.err" || fail "the other seed is not named"

ip netns exec host nft -f "$work/nftables.conf" || fail "the operator's file does not load"
table host >"$work/before"
ip netns exec host ncat --listen --keep-open --exec /bin/cat 0.0.0.0 80 >"$work/ncat" 2>&1 &
server=$!
trap 'kill $server ${engine:-} 2>/dev/null' EXIT
start_engine host "$work/include.toml"
table host | sed -E 's/packets [0-9]+ bytes [0-9]+/packets 0 bytes 0/' >"$work/after"
diff -u "$work/before" "$work/after" || fail "the engine changed the operator's table"
ctl status >"$work/status" || fail "status: $(cat "$work/status")"
echo "ok: the operator's table is taken as it is"

talks() { ip netns exec peer ncat -z --source "$1" --wait 3 10.77.0.2 80 2>/dev/null; }
until_true 10 talks 10.77.0.1 || fail "an allowed port does not answer"
ctl ban 10.77.0.3 --for 1h >/dev/null || fail "no ban"
ctl ban 198.51.100.0/24 --for 1h >/dev/null || fail "no prefix ban"
banned() {
    ip netns exec host nft list set inet verdictd banned4 | grep -q 10.77.0.3 &&
        ip netns exec host nft list set inet verdictd banned4_24 | grep -q 198.51.100.0
}
banned || fail "the bans are not in the operator's table"
# A witness that waits for nobody: what nft says happened to the ruleset, each line with the time it came.
witness() {
    while read -r line; do
        echo "${EPOCHREALTIME/./} $line"
    done
}
ip netns exec host stdbuf -oL nft monitor 2>&1 | witness >>"$work/events" &
monitor=$!
trap 'kill $server $monitor ${engine:-} 2>/dev/null' EXIT
# Two words of the witness, of this turn: the operator's table goes, both bans are back.
told() { grep -q 'add element.*banned4 .*10.77.0.3' "$work/events" && grep -q 'add element.*banned4_24 ' "$work/events"; }
at() { grep "$1" "$work/events" | tail -1 | cut -d' ' -f1; }
awake() {
    ip netns exec host nft 'table ip awake; delete table ip awake'
    [ -s "$work/events" ]
}
until_true 30 awake || fail "nft monitor says nothing"

for turn in 1 2 3 4 5; do
    : >"$work/events"
    ip netns exec host nft -f "$work/nftables.conf" || fail "reload $turn"
    until_true 20 told || fail "the bans do not come back after reload $turn: $(cat "$work/events")"
    took=$((($(at 'add element.*banned4') - $(at 'delete table inet verdictd')) / 1000))
    [ $took -le 1000 ] || fail "the bans came back only after $took ms"
    echo "ok: reload $turn, the bans are back after $took ms"
    banned || fail "the kernel does not list the bans"
    talks 10.77.0.1 || fail "a client is cut after reload $turn"
    ! talks 10.77.0.3 || fail "the banned source talks after reload $turn"
done
ctl status >"$work/status" || fail "status: $(cat "$work/status")"
# One transaction is one reason to look, and at most a second one for what trickled in.
looks=$(grep -c 'go into them again' "$work/engine.err")
[ "$looks" -le 12 ] || fail "$looks assertions of all bans for 5 reloads"
echo "ok: $looks assertions of all bans for 5 reloads"
stop_engine
