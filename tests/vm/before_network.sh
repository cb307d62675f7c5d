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
# One each: who waits for an answer that never comes does not keep the others.
for asked in "banned 10.77.0.3 80" "closed 10.77.0.1 81" "open 10.77.0.1 80"; do
    # shellcheck disable=SC2086 # a list of words
    ip netns exec peer perl tests/vm/knock.pl $asked &
done
