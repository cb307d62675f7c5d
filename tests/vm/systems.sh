# Runs the scripts of a guest under systemd one after the other in one boot, each of which goes on from what the one before
# left: systems.sh NAME...
# shellcheck shell=bash
for part in "$@"; do
    echo "-- $part"
    bash "tests/vm/system_$part.sh" || exit
done
