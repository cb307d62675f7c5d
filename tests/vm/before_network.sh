# Before systemd: the outside is there first, and never rests. lan0 is down until somebody takes it up. Sourced by the
# guest's first shell (tests/vm/boot --before).
# shellcheck shell=bash
ip netns add peer
ip link add lan0 type veth peer name lan0 netns peer
for address in 10.77.0.1 10.77.0.3; do ip -n peer address add $address/24 dev lan0; done
ip -n peer link set lan0 up
# Both listen; the policy refuses the second.
ncat --listen --keep-open 0.0.0.0 80 >/dev/null 2>&1 &
ncat --listen --keep-open 0.0.0.0 81 >/dev/null 2>&1 &
# Each answer with when it came. One core does all this: no more processes than it takes.
cat >/run/ask.sh <<'EOF'
while :; do
    ncat -z --source "$2" --wait 1 10.77.0.2 "$3" 2>/dev/null && read -r up rest </proc/uptime && echo "$up" >>"/run/$1"
    sleep 1
done
EOF
ip netns exec peer bash /run/ask.sh banned 10.77.0.3 80 &
ip netns exec peer bash /run/ask.sh closed 10.77.0.1 81 &
ip netns exec peer bash /run/ask.sh open 10.77.0.1 80 &
