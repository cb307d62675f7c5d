# Before systemd: the outside is there first, and never rests. lan0 is down until somebody takes it up. Sourced by the
# guest's first shell (tests/vm/boot --before).
# shellcheck shell=bash
ip netns add peer
ip link add lan0 type veth peer name lan0 netns peer
for address in 10.77.0.1 10.77.0.3; do ip -n peer address add $address/24 dev lan0; done
ip -n peer link set lan0 up
ncat --listen --keep-open 0.0.0.0 80 >/dev/null 2>&1 &
# Any answer counts, also "refused"; each with when it came.
ask() { # ask FILE SOURCE PORT
    while :; do
        ip netns exec peer ncat -zv --source "$2" --wait 1 10.77.0.2 "$3" 2>&1 |
            grep -q 'Connected\|refused' && cut -d' ' -f1 /proc/uptime >>"/run/$1"
        sleep 0.2
    done
}
ask banned 10.77.0.3 80 &
ask closed 10.77.0.1 81 &
ask open 10.77.0.1 80 &
