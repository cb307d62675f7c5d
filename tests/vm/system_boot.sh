# The boot after the power went in a storm of bans (system_service.sh): what was acknowledged, and the policy, is in force
# before the network is, to who asks without rest from outside; then the engine takes it over. What was on trial is not.
# shellcheck shell=bash source=tests/vm/system.sh
. tests/vm/system.sh

stamp() { systemctl show --property "$2" --value "$1"; }
until_true 60 active || fail "the engine does not come up"
restored=$(stamp verdictd-restore ExecMainExitTimestampMonotonic)
pre=$(stamp network-pre.target ActiveEnterTimestampMonotonic)
network=$(stamp lan ExecMainStartTimestampMonotonic)
ready=$(stamp verdictd ActiveEnterTimestampMonotonic)
order="restored $restored, network-pre.target $pre, network $network, engine $ready (us)"
{ [ "$restored" -gt 0 ] && [ "$restored" -le "$pre" ] && [ "$pre" -le "$network" ] && [ "$network" -lt "$ready" ]; } ||
    fail "the order of the boot: $order"
echo "ok: $order"

missing=$(tr -s ' ,' '\n\n' </run/at-network | sort -u | comm -13 - <(sort -u /run/vm/out/acknowledged))
[ -z "$missing" ] || fail "acknowledged, and not in force when the network came: $missing"
grep -q 'chain pre' /run/at-network || fail "no policy when the network came"
verdictctl list --json | grep -o '[0-9]*\.[0-9]*\.[0-9]*\.[0-9]*' | sort -u >"$work/list"
missing=$(comm -13 "$work/list" <(sort -u /run/vm/out/acknowledged))
[ -z "$missing" ] || fail "the engine forgot $missing"
echo "ok: $(wc -l </run/vm/out/acknowledged) acknowledged bans are in force before the network, and known to the engine"

verdictctl status >"$work/status"
grep -q 'ON TRIAL' "$work/status" && fail "still on trial: $(cat "$work/status")"
[ -e /root/wider.toml ] || fail "there was no trial"
answered() { [ -s /run/open ]; }
until_true 30 answered || fail "an open port does not answer"
sleep 3
[ ! -e /run/banned ] || fail "the banned source had an answer: at $(head -1 /run/banned) s, $order"
[ ! -e /run/closed ] || fail "a refused port answered: at $(head -1 /run/closed) s, $order"
echo "ok: an open port answers from $(head -1 /run/open) s on, the banned source and a refused port never"

# A start that fails again and again: at first soon, then ever later, and it is never given up.
systemctl stop verdictd-monitor
mkdir -p /run/systemd/system/verdictd.service.d
printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >/run/systemd/system/verdictd.service.d/false.conf
systemctl daemon-reload
systemctl restart verdictd 2>/dev/null
sleep 20
many=$(stamp verdictd NRestarts)
{ [ "$many" -ge 4 ] && [ "$many" -le 8 ]; } || fail "$many restarts in 20 s"
[ "$(property ActiveState)" = activating ] || fail "given up: $(property ActiveState)"
in_kernel 10.77.0.3 || fail "the ban is gone"
echo "ok: $many restarts in 20 s of an engine that does not start"
