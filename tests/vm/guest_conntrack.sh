# Observing on a machine at its conntrack limit: 400 connections are open, nf_conntrack_max is 200, the engine is
# started with `enforce = false`: none is lost. The same machine then gets one ct rule, which shows that the
# limit bites: some connections do die of that.
# shellcheck shell=bash source=tests/vm/guest.sh
. tests/vm/guest.sh
connections=400

{ ip netns add host && ip netns add peer; } || fail "no namespaces"
ip link add lan0 netns host type veth peer name lan0 netns peer
ip -n host address add 10.77.0.2/24 dev lan0
ip -n peer address add 10.77.0.1/24 dev lan0
for ns in host peer; do
    ip -n $ns link set lo up
    ip -n $ns link set lan0 up
done
/run/vm/modprobe nf_conntrack
echo 200 >/proc/sys/net/netfilter/nf_conntrack_max || fail "no conntrack"

# One ncat holds all connections (--broker: what one says, all others hear; here it is only to keep them).
ip netns exec host ncat --listen --keep-open --max-conns 1000 --broker 0.0.0.0 8080 >"$work/ncat" 2>&1 &
server=$!
trap 'kill $server ${engine:-} 2>/dev/null' EXIT
until_true 10 ip netns exec host ncat -z 10.77.0.2 8080 || fail "no server"

# In the peer's namespace: opens all, then asks on every line of its standard input how many still live.
cat >"$work/client.sh" <<'EOF'
fds=()
for ((at = 0; at < $1; at++)); do
    exec {fd}<>/dev/tcp/10.77.0.2/8080 || exit 1
    fds+=("$fd")
done
echo "open ${#fds[@]}"
while read -r word; do
    # The broker hands each line to all others: whoever hears the last speaker's word lives, and so does the
    # last speaker if the first then hears it answer.
    alive=0
    first=${fds[0]} last=${fds[-1]}
    echo "$word" >&"$last"
    echo "$word" >&"$first"
    for fd in "${fds[@]}"; do
        heard=
        while read -r -t "$2" heard <&"$fd" && [ "$heard" != "$word" ]; do :; done
        [ "$heard" = "$word" ] && alive=$((alive + 1)) && continue
        # One is enough to know that the limit bites.
        [ "$word" != trapped ] || break
    done
    echo "$word $alive"
done
EOF
mkfifo "$work/ask"
ip netns exec peer bash "$work/client.sh" $connections 1 <"$work/ask" >"$work/answers" 2>&1 &
exec 3>"$work/ask"
until_true 60 grep -qx "open $connections" "$work/answers" || fail "no $connections connections"

alive() { # alive WORD: how many connections pass a word that was never said before
    echo "$1" >&3
    until_true 500 grep -q "^$1 " "$work/answers" || fail "no answer: $(cat "$work/answers")"
    sed -n "s/^$1 //p" "$work/answers"
}

before=$(alive before)
[ "$before" = $connections ] || fail "$before of $connections connections work before the engine starts"

printf '[bans]\nenforce = false\n' >"$work/observing.toml"
start_engine host "$work/observing.toml"
during=$(alive during)
[ "$during" = $connections ] || fail "$during of $connections connections live while observing"
count=$(ip netns exec host cat /proc/sys/net/netfilter/nf_conntrack_count)
[ "$count" = 0 ] || fail "conntrack woke up: $count entries"
stop_engine
after=$(alive after)
[ "$after" = $connections ] || fail "$after of $connections connections live after observing"
echo "ok: $connections connections, nf_conntrack_max 200, observing: none is lost"

ip netns exec host nft 'table inet trap { chain c { type filter hook prerouting priority 0; ct state new counter; }; }'
trapped=$(alive trapped)
[ "$trapped" -lt $connections ] || fail "one ct rule loses none: this test proves nothing here"
echo "ok: with one ct rule instead, connections are lost"
