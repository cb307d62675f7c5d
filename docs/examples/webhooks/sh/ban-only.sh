#!/bin/sh
# What the key of block_everywhere.py may do on a firewall, and nothing else. In ~ban/.ssh/authorized_keys, on one line:
#
#   restrict,command="/usr/local/lib/ban-only.sh" ssh-ed25519 AAAA… block-everywhere
#
# The account has to be in the group of verdictctl's socket.
set -eu

# Word splitting is wanted, globbing is not.
set -f
# shellcheck disable=SC2086
set -- ${SSH_ORIGINAL_COMMAND:-}

refuse() { echo "only: verdictctl ban ADDRESS --for SECONDSs" >&2; exit 1; }

[ $# -eq 5 ] || refuse
[ "$1 $2 $4" = "verdictctl ban --for" ] || refuse
case "$3" in '' | *[!0-9a-fA-F:./]*) refuse ;; esac
seconds=${5%s}
case "$seconds" in '' | *[!0-9]* | ??????*) refuse ;; esac
[ "$5" = "${seconds}s" ] || refuse
[ "$seconds" -le 86400 ] || refuse

exec verdictctl ban "$3" --for "${seconds}s" --reason "passed on by another firewall"
