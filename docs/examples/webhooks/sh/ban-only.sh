#!/bin/sh
# What the key of block_everywhere.py may do on a firewall, and nothing else. In ~ban/.ssh/authorized_keys, on one line:
#
#   restrict,command="/usr/local/lib/ban-only.sh" ssh-ed25519 AAAA… block-everywhere
#
# The account has to be in the group of verdictctl's socket. A network may be a /24 or a /48 at most: one key that is
# stolen shall not shut out half the world.
set -eu

# Word splitting is wanted, globbing is not.
set -f
# shellcheck disable=SC2086
set -- ${SSH_ORIGINAL_COMMAND:-}

refuse() {
    echo "only: verdictctl ban ADDRESS --for SECONDSs" >&2
    exit 1
}

[ $# -eq 5 ] || refuse
[ "$1 $2 $4" = "verdictctl ban --for" ] || refuse
case "$3" in '' | *[!0-9a-fA-F:./]*) refuse ;; esac
case "$3" in
    */*/*) refuse ;;
    *:*/*) widest=48 ;;
    */*) widest=24 ;;
    *) widest= ;;
esac
if [ "$widest" ]; then
    case "${3#*/}" in '' | *[!0-9]* | ????*) refuse ;; esac
    [ "${3#*/}" -ge "$widest" ] || refuse
fi
seconds=${5%s}
case "$seconds" in '' | *[!0-9]* | ??????*) refuse ;; esac
[ "$5" = "${seconds}s" ] || refuse
[ "$seconds" -le 86400 ] || refuse

# A new ban replaces what is there: a longer one, this firewall's own or its operator's, stays.
bans=$(verdictctl list --json)
longer=$(printf '%s' "$bans" | tr ',{}' '[\n*]' | awk -v source="$3" -v seconds="$seconds" '
    $1 == "\"source\":" { this = $2 == "\"" source "\"" }
    $1 == "\"remaining_seconds\":" { left = $2 }
    $1 == "\"enforced\":" && this && $2 == "true" && (left == "null" || left + 0 >= seconds) { print "longer" }')
[ -z "$longer" ] || exit 0

exec verdictctl ban "$3" --for "${seconds}s" --reason "passed on by another firewall"
