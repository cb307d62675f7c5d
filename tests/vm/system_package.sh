# The packages on a fresh Debian 12, as an operator meets them: installed, observing, scanned, another policy tried out and
# lost, then confirmed. The same boot goes on with system_purge.sh.
# shellcheck shell=bash source=tests/vm/system.sh
. tests/vm/system.sh
. tests/vm/package.sh

# The port that the new policy closes is closed, the other is open.
in_force() { ! knock 10.77.0.1 81 && knock 10.77.0.1 80; }
watched() { systemctl list-units --no-legend --state=active 'verdictd-go-back-*' | grep -q verdictd-go-back; }
unwatched() { ! systemctl list-units --all --no-legend 'verdictd-go-back-*' | grep -q verdictd-go-back; }

# scan SOURCE: one SYN to each of a dozen ports.
scan() {
    ip -n peer route add 10.77.0.2/32 dev lan0 src "$1"
    ip netns exec peer bash -c 'for port in {1001..1012}; do (exec 3<>/dev/tcp/10.77.0.2/$port); done' 2>/dev/null
    ip -n peer route del 10.77.0.2/32
}

[ -z "$(nft list ruleset)" ] || fail "this is no fresh host: $(nft list ruleset)"
everything >/run/before
[ -z "$(ours /run/before)" ] || fail "this is no fresh host: $(ours /run/before)"

step "a fresh host"
install 1 verdictd verdict-receiver
active || fail "installed, and $(property ActiveState): $(cat "$work/dpkg")"
for unit in verdictd verdictd-monitor; do
    systemctl is-active --quiet $unit || fail "$unit does not run"
done
for unit in verdictd verdictd-monitor verdictd-restore; do
    systemctl is-enabled --quiet $unit || fail "$unit is not enabled"
done
for unit in verdict-receiver verdictd-exporter; do
    systemctl is-active --quiet $unit && fail "$unit runs, and nobody asked for it"
    systemctl is-enabled --quiet $unit && fail "$unit is enabled, and nobody asked for it"
done
words=$(systemd-analyze verify --man=no /usr/lib/systemd/system/verdict*.service 2>&1) && [ -z "$words" ] ||
    fail "systemd-analyze verify: $words"
verdictctl status >"$work/status" || fail "status: $(cat "$work/status")"
grep -q OBSERVING "$work/status" || fail "status says nothing of observing: $(cat "$work/status")"
verdictctl stats --json | tr -d ' \n' >"$work/stats"
grep -q '"mode":"detection_only"' "$work/stats" || fail "not detection_only: $(cat "$work/stats")"
grep -qx 'enforce = false' /etc/verdictd/verdictd.toml || fail "enforce is not false in the file"
step "installed, running, observing"

peers 10.77.0.1 10.77.0.3 10.77.0.4
serve 80
serve 81
until_true 20 knock 10.77.0.1 80 || fail "an open port does not answer"
knock 10.77.0.1 81 || fail "the other open port does not answer"

# The self-test of the monitor is a scan, too.
tested() { journalctl -u verdictd-monitor -o cat | grep -q '^self-test passed'; }
until_true 60 tested || fail "no self-test: $(journalctl -u verdictd-monitor -o cat)"
seen() { verdictctl stats --json | tr -d ' \n' | sed 's/.*"SYN_SCAN":\([0-9]*\).*/\1/'; }
before=$(seen)
# Every port of it answers by a reset: the scan sees the host as it is, and is seen.
scan 10.77.0.4
would_be() { verdictctl list --json | tr -d ' \n' | grep -q '"source":"10.77.0.4"[^}]*"reason":"port_scanning"[^}]*"enforced":false'; }
until_true 20 would_be || fail "the scanner is not recorded: $(verdictctl list --json)"
verdictctl stats >"$work/stats"
[ $(($(seen) - before)) -ge 8 ] || fail "stats does not count the scan: $before probes before it, $(seen) after"
grep -qi 'scan' "$work/stats" || fail "stats says nothing of a scan: $(cat "$work/stats")"
in_kernel 10.77.0.4 && fail "observing, and the scanner is banned"
knock 10.77.0.4 80 || fail "observing, and the scanner is refused"
step "a scan is in stats, and nobody is refused"

verdictctl ban 10.77.0.3 --for 2h >/dev/null || fail "no ban"
knock 10.77.0.3 80 && fail "the banned source talks"
old=$(sha256sum </etc/verdictd/verdictd.toml)
policy 22 80 >/root/firewall.toml

# Lost: nobody confirms.
verdictctl apply /root/firewall.toml --confirm 5s --yes >"$work/apply" || fail "apply: $(cat "$work/apply")"
in_force || fail "applied, and the port is open"
watched || fail "no unit watches the trial: $(systemctl list-units --all --no-legend 'verdictd*')"
[ "$(sha256sum </etc/verdictd/verdictd.toml)" = "$old" ] || fail "the file was written before it is confirmed"
until_true 60 knock 10.77.0.1 81 || fail "not confirmed, and it does not go back"
verdictctl status | grep -q 'went back\|WENT BACK' || fail "status says nothing of it: $(verdictctl status)"
until_true 30 unwatched || fail "the watcher stays"
[ -s /etc/verdictd/verdictd.toml.unconfirmed ] || fail "what was tried is not kept"
knock 10.77.0.3 80 && fail "the ban went with the trial"
step "in force, not confirmed, back"

# Lost with all who could go back: the shell, its connection and the engine, which nobody starts again. The session's
# processes are ended with it.
ssh_server
mkdir -p /run/systemd/logind.conf.d /run/systemd/system/verdictd.service.d
printf '[Login]\nKillUserProcesses=yes\nKillExcludeUsers=\n' >/run/systemd/logind.conf.d/kill.conf
printf '[Service]\nRestart=no\n' >/run/systemd/system/verdictd.service.d/no.conf
systemctl daemon-reload
systemctl restart systemd-logind
systemctl stop verdictd-monitor
in_ssh 10.77.0.1 'verdictctl apply /root/firewall.toml --confirm 12s --yes; echo applied; sleep 1000' >"$work/apply" 2>&1 &
client=$!
disown # that it is killed is no news
until_true 60 grep -q applied "$work/apply" || fail "no apply over SSH: $(cat "$work/apply")"
in_force || fail "applied over SSH, and the port is open: $(cat "$work/apply")"
watched || fail "no unit watches the trial of an SSH session"
kill -9 "$client" "$(property MainPID)"
session=$(loginctl list-sessions --no-legend | awk '$3 == "root" { print $1; exit }')
[ -n "$session" ] || fail "no session: $(loginctl)"
loginctl kill-session "$session" --signal=KILL
gone() { ! active && ! pgrep -f 'sleep 1000' >/dev/null; }
until_true 10 gone || fail "engine and shell live: $(property ActiveState), $(pgrep -af 'sleep 1000')"
in_force || fail "without an engine the rules are gone"
watched || fail "the watcher was ended with the session"
until_true 60 knock 10.77.0.1 81 || fail "engine and shell are dead, and it does not go back"
active && fail "somebody started the engine"
until_true 10 unwatched || fail "the watcher stays"
journalctl -o cat | grep -q 'the old policy is in the kernel again' || fail "the watcher says nothing"
knock 10.77.0.3 80 && fail "the ban went with the engine"
rm -r /run/systemd/logind.conf.d /run/systemd/system/verdictd.service.d
systemctl daemon-reload
systemctl start verdictd verdictd-monitor || fail "it does not start again"
[ "$(sha256sum </etc/verdictd/verdictd.toml)" = "$old" ] || fail "the file is another"
step "engine and shell killed: back all the same"

# Confirmed: not by the connection that it was typed in, by a new one, once.
in_ssh 10.77.0.1 'verdictctl apply /root/firewall.toml --confirm 120s --yes && ! verdictctl confirm' >"$work/apply" 2>&1 ||
    fail "its own connection confirms it: $(cat "$work/apply")"
in_force || fail "applied, and the port is open"
in_ssh 10.77.0.1 verdictctl confirm >"$work/confirm" 2>&1 || fail "a new connection cannot confirm: $(cat "$work/confirm")"
grep -q CONFIRMED "$work/confirm" || fail "confirm: $(cat "$work/confirm")"
in_ssh 10.77.0.1 verdictctl confirm >"$work/confirm" 2>&1 && fail "it is confirmed twice: $(cat "$work/confirm")"
until_true 30 unwatched || fail "confirmed, and still watched"
cmp -s /root/firewall.toml /etc/verdictd/verdictd.toml || fail "the file is not what was confirmed"
in_force || fail "confirmed, and not in force"
step "confirmed from a new connection"
