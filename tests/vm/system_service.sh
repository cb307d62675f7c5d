# The units under a systemd that is pid 1: ready, a scan judged over the native queue, a webhook out of the sandbox, and
# every way in which an engine comes to harm. Bans hold all the while.
# shellcheck shell=bash source=tests/vm/system.sh
. tests/vm/system.sh

peers 10.77.0.1 10.77.0.3 10.77.0.4 10.77.0.5
serve 80
serve 81

# An authority of this host's own, so that both the names and the certificates of the sandbox are needed.
echo '127.0.0.1 hooks.test' >>/etc/hosts
cat target/vm/authority.crt >>/etc/ssl/certs/ca-certificates.crt
cat >"$work/answer" <<'EOF'
#!/bin/sh
printf 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
timeout 3 cat >>/run/hooks
EOF
chmod 755 "$work/answer"
: >/run/hooks
ncat --listen --keep-open --ssl --ssl-cert target/vm/hooks.crt --ssl-key target/vm/hooks.key --exec "$work/answer" \
    127.0.0.1 8443 >"$work/ncat" 2>&1 &

config <<'EOF'
[firewall]
firewall_mode = "detection_only"
[bans]
enforce = true
[engine]
workers = 2
[webhooks]
enabled = true
[[webhooks.endpoints]]
name = "hooks"
url = "https://hooks.test:8443/in"
secret = "0123456789abcdef0123456789abcdef"
EOF

# The monitor has its own part below; its self-test is a scan, too.
systemctl mask --quiet verdictd-monitor 2>/dev/null
# Installed over a configuration that is there already it begins with that.
install 1
active || fail "it is $(property ActiveState): $(cat "$work/dpkg")"
verdictctl status >"$work/status"
grep -qi 'degraded' "$work/status" && fail "degraded: $(cat "$work/status")"
grep -E 'confinement' <(journalctl -u verdictd -o cat) || fail "not a word about confinement"
journalctl -u verdictd -o cat | grep -i 'not confined\|confinement:.*not ' && fail "the sandbox keeps the engine from its own"
nft list table inet verdictd | grep -q 'queue flags bypass to 4100' || fail "no native queue"
step "active and ready, by the native queue"

until_true 20 knock 10.77.0.1 80 || fail "an open port does not answer"
verdictctl stats --json | tr -d ' \n' >"$work/stats"
grep -q '"waiting":[0-9]' "$work/stats" || fail "the queue counters cannot be read: $(cat "$work/stats")"
verdictctl ban 10.77.0.3 --for 1h >/dev/null || fail "no ban"
in_kernel 10.77.0.3 || fail "the ban is not in the kernel"
! knock 10.77.0.3 80 || fail "the banned source talks"

# Every SYN of it goes through the queue, is let through and answered by a reset; what crosses the line is not.
ip -n peer route add 10.77.0.2/32 dev lan0 src 10.77.0.4
ip netns exec peer bash -c 'for port in {1001..1009}; do (exec 3<>/dev/tcp/10.77.0.2/$port); done' 2>/dev/null &
scan=$!
until_true 20 in_kernel 10.77.0.4 || fail "the scanner is not banned: $(verdictctl stats)"
kill $scan
ip -n peer route del 10.77.0.2/32
verdictctl list >"$work/list"
grep -q '10.77.0.4 .*port_scanning' "$work/list" || fail "list: $(cat "$work/list")"
verdictctl stats --json | tr -d ' \n' >"$work/stats"
grep -q '"offence":1,' "$work/stats" && grep -q '"SYN_SCAN":[89]' "$work/stats" || fail "stats: $(cat "$work/stats")"
step "a scan is seen by the queue, and banned"

until_true 60 grep -aq ip_blocked /run/hooks || fail "no webhook came: $(verdictctl webhook status 2>&1)"
grep -aiq '^x-firewall-signature: sha256=' /run/hooks || fail "the webhook is not signed"
step "a webhook is delivered out of the sandbox, by name and certificate"

if [ "${VM_PART:-}" = short ]; then
    exit 0
fi

# Who is logged in by SSH is seen from inside.
ssh_server
in_ssh 10.77.0.5 sleep 1000 >"$work/ssh" 2>&1 &
protected() { verdictctl status | grep -q '10\.77\.0\.5'; }
until_true 60 protected || fail "the SSH session protects nobody: $(verdictctl status; ls -l /run/systemd/sessions)"
step "an SSH session is seen in logind's records"

# What the kernel loses is told by nft, so that no moment is missed.
nft monitor elements >"$work/lost" 2>&1 &
lost() { grep -q 'delete.*\(10\.77\.0\.[34]\|table\)\|flush' "$work/lost"; }

hurt() { # hurt WHAT SECONDS COMMAND...: the engine is another at most SECONDS later, bans hold all the while
    local what=$1 limit=$2 pid begun
    shift 2
    pid=$(property MainPID)
    begun=$(now)
    "$@"
    until replaced "$pid"; do
        [ $(($(now) - begun)) -lt 60000 ] || fail "$what: no other engine within a minute"
        sleep 0.5
    done
    took=$(($(now) - begun))
    lost && fail "$what: a ban was out of force: $(cat "$work/lost")"
    in_kernel 10.77.0.3 && in_kernel 10.77.0.4 || fail "$what: a ban is gone"
    [ $took -le $((limit * 1000)) ] || fail "$what: $took ms until another engine was ready"
    step "$what: another engine after $took ms, bans in force"
}
hurt "kill -STOP" 10 kill -STOP "$(property MainPID)"
journalctl -u verdictd -o cat | grep -qi 'watchdog' || fail "it was not the watchdog"
hurt "kill -9" 10 kill -9 "$(property MainPID)"

# A file that cannot be used.
good=$(cat /etc/verdictd/verdictd.toml)
echo 'firewall_mode = ' >>/etc/verdictd/verdictd.toml
pid=$(property MainPID)
systemctl reload verdictd 2>/dev/null && fail "systemctl reloads a broken file"
[ "$(property MainPID)" = "$pid" ] || fail "a refused reload ended the engine"
step "a broken file is refused by systemctl reload"
hurt "restart with a broken file" 5 systemctl restart verdictd
active || fail "it does not start with a broken file"
verdictctl status >"$work/status" && fail "status is fine with a broken file"
grep -qi degraded "$work/status" || fail "not degraded: $(cat "$work/status")"
config <<<"$good"
systemctl reload verdictd || fail "it does not reload the mended file"
healthy() { verdictctl status >/dev/null; }
until_true 20 healthy || fail "degraded after the file was mended: $(verdictctl status)"
step "mended and reloaded"

# A state that nobody can read, and a kernel that lost the table: nothing to know bans from, and no reason to stay down.
broken_state() {
    systemctl stop verdictd
    for file in /var/lib/verdictd/state.toml* /var/lib/verdictd/*journal*; do
        [ ! -f "$file" ] || head -c 200 /dev/urandom >"$file"
    done
    systemctl start verdictd
}
hurt "broken state" 15 broken_state

# Somebody else has the numbers.
occupied() {
    systemctl stop verdictd
    nft delete table inet verdictd
    perl tests/vm/queue.pl hold {4100..4103} >"$work/hold" &
    holder=$!
    until_true 20 grep -q bound "$work/hold" || fail "the queues cannot be held"
    begun=$(now)
    systemctl start verdictd
}
occupied
active || fail "occupied queue numbers: it is $(property ActiveState)"
took=$(($(now) - begun))
until_true 20 in_kernel 10.77.0.3 || fail "occupied queue numbers: the ban is not back"
nft list table inet verdictd | grep -q 'queue flags bypass to 4104' || fail "it does not take the next numbers"
step "with its queue numbers held by another: ready after $took ms"
kill "$holder"

# The monitor has an engine started again once, not twice, and none that was stopped on purpose.
systemctl unmask --quiet verdictd-monitor
systemctl start verdictd-monitor || fail "no monitor"
began() { journalctl -u verdictd -o cat | grep -c '^Starting verdictd.service'; }
begun_before=$(began)
hurt "kill -9 with the monitor" 10 kill -9 "$(property MainPID)"
pid=$(property MainPID)
sleep 6
[ "$(property MainPID)" = "$pid" ] || fail "it was started twice"
[ "$(began)" = $((begun_before + 1)) ] || fail "it was started $(($(began) - begun_before)) times"
[ "$(pgrep -c -f '^/usr/bin/verdictd (run|monitor)')" = 2 ] || fail "not one engine and one monitor: $(pgrep -a verdict)"
systemctl stop verdictd
sleep 6
[ "$(property ActiveState)" = inactive ] || fail "the monitor started what systemctl stopped"
in_kernel 10.77.0.3 || fail "a stop ends the bans"
step "the monitor: started once, and respects systemctl stop"

# What a stock kernel tells of a packet's connection; the build kernels tell nothing.
perl tests/vm/queue.pl ct 77 >"$work/ct" &
until_true 20 grep -q bound "$work/ct" || fail "queue 77 cannot be held"
nft 'table ip seen { chain in { type filter hook input priority 0; udp dport 77 ct state new queue num 77; }; }'
echo | ip netns exec peer ncat --udp 10.77.0.2 77 2>/dev/null &
until_true 20 grep -q attributes "$work/ct" || fail "no packet came by queue 77"
grep -qw 11 "$work/ct" || fail "no NFQA_CT (11) on this kernel: $(cat "$work/ct")"
nft delete table ip seen
step "NFQA_CT is there when asked for"

# For the next boot (system_boot.sh): a policy, an interface that comes up as early as systemd lets anybody, and a storm
# of bans in which the power goes. What was acknowledged is told to the outside at once.
config <<'EOF'
[firewall]
firewall_mode = "firewall"
[allowed_ports]
tcp = [22, 80]
[engine]
workers = 2
EOF
cat >/etc/systemd/system/lan.service <<'EOF'
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/bin/sh -c 'nft list table inet verdictd >/run/at-network; ip address add 10.77.0.2/24 dev lan0; ip link set lan0 up'
[Install]
WantedBy=multi-user.target
EOF
systemctl daemon-reload
# The package enabled the others.
systemctl enable --quiet lan
systemctl start verdictd || fail "no engine in firewall mode"
verdictctl unban 10.77.0.4 >/dev/null
# A policy on trial goes with the power, too.
policy 22 80 81 >/root/wider.toml
verdictctl apply /root/wider.toml --confirm 1h --yes >"$work/apply" || fail "apply: $(cat "$work/apply")"
until_true 20 knock 10.77.0.1 81 || fail "what is on trial is not in force"
sync # of what is not the engine's; it has to see to its own
echo 10.77.0.3 >/run/vm/out/acknowledged
storm() {
    for host in {1..250}; do
        verdictctl ban "198.51.$1.$host" --for 1h >/dev/null && echo "198.51.$1.$host" >>/run/vm/out/acknowledged
    done
}
for net in 100 101 102; do storm $net & done
many() { [ "$(wc -l </run/vm/out/acknowledged)" -ge 50 ]; }
until_true 60 many || fail "no storm: $(wc -l </run/vm/out/acknowledged) bans"
step "the power goes in a storm of bans, and in the middle of a trial"
cat /proc/uptime >/run/vm/control/uptime
echo off >/run/vm/control/off
sleep 100
