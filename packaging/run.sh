#!/usr/bin/env bash
# `sudo make run`: the engine on this very host, as the Python system's default was: every port stays open, scanners
# are banned. Foreground; Ctrl-C takes its rules out again.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo "loading rules needs root: run sudo make run" >&2; exit 1; }
programs=${VERDICTD_PROGRAMS:-target/release}
[ -x "$programs/verdictd" ] || { echo "$programs/verdictd is missing: run sudo make run" >&2; exit 1; }

home=$(mktemp -d "${TMPDIR:-/tmp}/verdictd-run.XXXXXX")
engine=
# shellcheck disable=SC2317  # the trap calls it
finish() {
    trap - EXIT INT TERM
    if [ -n "$engine" ]; then
        kill -TERM "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
        echo
        echo "Stopped: the table inet verdictd and its bans are gone from this host."
    fi
    rm -rf "$home"
}
trap finish EXIT
trap 'exit 0' INT TERM
mkdir "$home/state" "$home/run"

# Whoever types this over the network shall not be able to ban themselves.
peer=$(who -m 2>/dev/null | sed -n 's/.*(\([0-9a-fA-F.:]*\))$/\1/p')
trusted=
[ -z "$peer" ] || trusted="\"$peer\""

cat > "$home/verdictd.toml" <<CONFIG
[firewall]
mode = "standard"                  # 7 distinct ports in 2 h are tolerated; bans of 10m, 2h, 1d, 7d
firewall_mode = "detection_only"   # no port is filtered
[bans]
enforce = true                     # scanners are banned in the kernel
[trusted]
ips = [$trusted]
CONFIG

mkfifo "$home/said"
"$programs/verdictd" run --config "$home/verdictd.toml" --state-dir "$home/state" --runtime-dir "$home/run" \
    --ephemeral > "$home/said" &
engine=$!
# The engine may end before it is ready; then the pipe closes and the loop ends too.
ready=no
exec 3< "$home/said"
while read -r line <&3; do
    [ "$line" = ready ] && { ready=yes; break; }
done
if [ "$ready" = no ]; then
    wait "$engine" && code=0 || code=$?
    engine=
    echo "verdictd did not start (exit code $code); why stands above" >&2
    exit 1
fi

socket=$home/run/control.sock
cat <<WORDS

verdictd runs on this host.
  What it does   It looks at the first packet of every connection that strangers open to this host. No port is closed.
                 Who knocks on more than 7 different ports within 2 hours is banned: 10 minutes the first time,
                 then 2 hours, 1 day, 7 days. The kernel drops what a banned address sends.
  If it dies     Bans hold until they end; everyone else gets through as if verdictd had never been here.
  Never banned   This host itself, loopback, gateways, resolvers${peer:+, and $peer (where you are logged in from)}.
  Look at it     (in another terminal, as root)
                 $programs/verdictctl --socket $socket status
                 $programs/verdictctl --socket $socket stats
                 $programs/verdictctl --socket $socket list
                 nft list set inet verdictd banned4
  Try it         from another machine: nmap -sS -p 1-1000 <an address of this host>
  Lift a ban     $programs/verdictctl --socket $socket unban ADDRESS
  Stop it        Ctrl-C: its rules go with it.

WORDS
"$programs/verdictctl" --socket "$socket" status || true
echo
wait "$engine" && code=0 || code=$?
engine=
exit "$code"
