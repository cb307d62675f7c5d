# On a kernel before 6.12, which says yes to a longer timeout and keeps the old one: a ban that is extended, shortened,
# made permanent and timed again is held as the engine believes, and drops what it bans past its first length.
# shellcheck shell=bash source=tests/vm/guest.sh
. tests/vm/guest.sh
peer=10.77.0.1

{ ip netns add host && ip netns add peer; } || fail "no namespaces"
ip link add lan0 netns host type veth peer name lan0 netns peer
ip -n host address add 10.77.0.2/24 dev lan0
ip -n peer address add $peer/24 dev lan0
for ns in host peer; do
    ip -n $ns link set lo up
    ip -n $ns link set lan0 up
done
ip netns exec host ncat --listen --keep-open 0.0.0.0 8080 >"$work/ncat" 2>&1 &
server=$!
trap 'kill $server ${engine:-} 2>/dev/null' EXIT

knock() { ip netns exec peer ncat -z -w 2 10.77.0.2 8080; }
ctl() { target/debug/verdictctl --socket "$work/run/control.sock" "$@"; }
host_nft() { ip netns exec host nft "$@"; }

# In the guest a program that reads JSON takes longer to start than all the rest.
field() { # field KEY ADDRESS NAME: the number NAME of the object whose KEY is ADDRESS; "ever" if it has none
    local object
    object=$(tr -d ' \n' | grep -oE "\"$1\":\"${2//./\\.}\"[^}]*" | head -n 1)
    case $object in
    "") ;;
    *"\"$3\":"[0-9]*) sed -E "s/.*\"$3\":([0-9]+).*/\1/" <<<"$object" ;;
    *) echo ever ;;
    esac
}

# Seconds left by the kernel, rounded down: "ever" without an end, nothing if it is not held.
kernel_left() { # kernel_left ADDRESS
    local listed
    listed=$(host_nft -j list set inet verdictd banned4)
    case $(tr -d ' \n' <<<"$listed") in
    *"\"val\":\"$1\""*) field val "$1" expires <<<"$listed" ;;
    *"\"$1\""*) echo ever ;;
    esac
}

# Seconds left by the engine, rounded up.
engine_left() { ctl list --json | field source "$1" remaining_seconds; }

declare -A asked
ban() { # ban ADDRESS LENGTH
    asked[$1]=$SECONDS
    ctl ban "$1" --for "$2" >/dev/null || fail "no ban of $1 for $2"
}

# Both agree to the second: what the engine says lies between what the kernel says before and after. The last
# argument is the length that was asked for, in seconds, less what went by since.
agree() { # agree ADDRESS WHAT SECONDS
    local before during after
    before=$(kernel_left "$1")
    during=$(engine_left "$1")
    after=$(kernel_left "$1")
    local told="$2: the kernel holds it for \"$before\" to \"$after\", the engine believes \"$during\", \"$3\" was asked"
    if [ "$3" = ever ]; then
        [ "$before $during $after" = "ever ever ever" ] || fail "$told"
    else
        case "$before$during$after" in "" | *[!0-9]*) fail "$told" ;; esac
        { [ "$during" -le $((before + 2)) ] && [ "$during" -ge "$after" ]; } || fail "$told"
        { [ "$before" -le "$3" ] && [ "$before" -ge $(($3 - (SECONDS - asked[$1]) - 2)) ]; } || fail "$told"
    fi
    echo "ok: $2: $during by the engine, $before to $after by the kernel"
}

cat >"$work/ladder.toml" <<'EOF'
[firewall]
firewall_mode = "detection_only"
[bans]
enforce = true
[engine]
workers = 1
EOF
start_engine host "$work/ladder.toml"
until_true 20 knock || fail "no server"

# An operator's words over a live ban, each a renewal.
at=203.0.113.9
for step in "10m 600" "1h 3600" "365d 31536000" "2m 120" "1d 86400"; do
    ban $at "${step% *}"
    agree $at "ban for ${step% *}" "${step#* }"
done

# One that nobody ends, there before the engine starts, and shortened by it.
stop_engine
host_nft add element inet verdictd banned4 '{ 203.0.113.11 }' || fail "no element"
start_engine host "$work/ladder.toml"
agree 203.0.113.11 "without end across a start" ever
ban 203.0.113.11 2m
agree 203.0.113.11 "permanent, then 2m" 120
agree $at "across a start without the state" 86400

# Bans that only the state knows come back by their remaining time.
stop_engine
host_nft delete table inet verdictd
restart_engine host "$work/ladder.toml"
agree $at "across a start without the table" 86400

# Past the first length, what is banned is still dropped.
ban $peer 20s
first=$SECONDS
knock && fail "the banned peer gets through"
ban $peer 10m
agree $peer "20s, then 10m" 600
while [ $SECONDS -lt $((first + 23)) ]; do
    knock && fail "the banned peer gets through after $((SECONDS - first)) s"
done
agree $peer "past the first length" 600
ctl unban $peer >/dev/null || fail "no unban"
until_true 20 knock || fail "the peer is not free again"
stop_engine

# The elements themselves: every kind of step, ten thousand at once, a thousand at random.
if [ -n "${VM_SETS:-}" ]; then
    "$VM_SETS" --test-threads 2 --quiet fault_02 || fail "tests of the sets"
fi
