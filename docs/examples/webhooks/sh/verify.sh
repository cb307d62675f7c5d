#!/bin/sh
# Checks one recorded request by hand: verify.sh SECRET_FILE BODY_FILE SIGNATURE [TIMESTAMP SIGNATURE_V2]
#
# openssl takes the key as an argument, which other users of the machine can read while it runs: this is for looking
# into a problem, not for a server.
set -eu

secret=$(cat "$1")
body=$2
[ -n "$secret" ] || { echo "$1 is empty" >&2; exit 2; }

hmac() { openssl dgst -sha256 -hmac "$secret" | sed 's/^.* /sha256=/'; }

check() {
    if [ "$2" = "$3" ]; then
        echo "$1 fits"
    else
        echo "$1 does not fit: it would be $3"
        bad=1
    fi
}

bad=0
check X-Firewall-Signature "$3" "$(hmac < "$body")"
if [ $# -ge 5 ]; then
    check X-Firewall-Signature-V2 "$5" "$({ printf '%s.' "$4"; cat "$body"; } | hmac)"
    age=$(($(date +%s) - ${4%%.*}))
    echo "X-Firewall-Timestamp is $age s ago; receivers refuse more than 300"
fi
exit "$bad"
