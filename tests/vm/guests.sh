# Runs guest scripts one after the other in one boot: guests.sh NAME...; each finds the machine as the first did.
# shellcheck shell=bash
failed=0
limit=$(cat /proc/sys/net/netfilter/nf_conntrack_max 2>/dev/null)
for guest in "$@"; do
    echo "-- $guest"
    timeout 600 bash "tests/vm/guest_$guest.sh" || { echo "-- $guest: FAILED ($?)"; failed=1; }
    for namespace in $(ip netns list | cut -d' ' -f1); do
        ip netns pids "$namespace" | xargs -r kill -9
        ip netns delete "$namespace"
    done
    [ -z "$limit" ] || echo "$limit" >/proc/sys/net/netfilter/nf_conntrack_max
done
exit $failed
