#!/usr/bin/env bash
# `sudo make demo`: a real nmap against a real web server, without and with verdictd, and an honest client beside it.
# Three network namespaces of its own; under a minute; leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo "network namespaces need root: run sudo make demo" >&2; exit 1; }
programs=$(realpath "${VERDICTD_PROGRAMS:-target/release}")
[ -x "$programs/verdictd" ] || { echo "$programs/verdictd is missing: run sudo make demo" >&2; exit 1; }

attacker=vd-demo-attacker-$$ host=vd-demo-host-$$ client=vd-demo-client-$$
home=$(mktemp -d "${TMPDIR:-/tmp}/verdictd-demo.XXXXXX")
chmod 755 "$home"
server='' engine='' honest=''
socket=$home/run/control.sock

# ---- what is left of it: nothing -----------------------------------------------------------------------------------

finish() {
    trap - EXIT INT TERM
    local pid namespace
    for pid in $honest $engine $server; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    for namespace in $attacker $client $host; do
        ip netns delete "$namespace" 2>/dev/null || true
    done
    rm -rf "$home"
}
trap finish EXIT
trap 'exit 130' INT TERM

# ---- how it looks --------------------------------------------------------------------------------------------------

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' plain=$'\e[0m'; else bold='' dim='' green='' plain=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '  %s\n' "$*"; }
show() { printf '  %s$ %s%s\n' "$dim" "$*" "$plain"; }
indented() { sed 's/^/      /'; }
# verdictctl as an operator sees it; its exit code 4 (degraded) is part of the picture, no reason to stop.
ctl() {
    show "verdictctl $*"
    "$programs/verdictctl" --socket "$socket" "$@" | indented || say "(exit code ${PIPESTATUS[0]})"
}

# ---- the machines --------------------------------------------------------------------------------------------------

make_machines() {
    local namespace
    for namespace in $attacker $host $client; do
        ip netns add "$namespace"
        ip netns exec "$namespace" sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'
        ip -n "$namespace" link set lo up
    done
    join "$attacker" 10.77.0.1/24 "$host" 10.77.0.2/24 lan0
    join "$client" 10.77.1.1/24 "$host" 10.77.1.2/24 lan1
    ip -n "$client" route add 10.77.0.0/24 via 10.77.1.2
}

# join A ADDRESS B ADDRESS DEVICE: one cable.
join() {
    ip link add "$5" netns "$1" type veth peer name "$5" netns "$3"
    ip -n "$1" address add "$2" dev "$5"
    ip -n "$3" address add "$4" dev "$5"
    ip -n "$1" link set "$5" up
    ip -n "$3" link set "$5" up
}

# Programs in the background are started by `ip netns exec` itself and never through a function of this script:
# then the number that bash tells is the program's own, and a signal reaches it.
start_server() {
    mkdir "$home/nginx"
    cat > "$home/nginx.conf" <<NGINX
daemon off;
user root;
worker_processes 1;
pid $home/nginx/pid;
error_log $home/nginx/error.log;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $home/nginx/body;
    proxy_temp_path $home/nginx/proxy;
    fastcgi_temp_path $home/nginx/fastcgi;
    uwsgi_temp_path $home/nginx/uwsgi;
    scgi_temp_path $home/nginx/scgi;
    server {
        listen 22; listen 80; listen 443; listen 3306; listen 8080;
        location / { default_type text/plain; return 200 "hello from the protected host\n"; }
    }
}
NGINX
    ip netns exec "$host" nginx -c "$home/nginx.conf" -p "$home/nginx" 2> "$home/nginx/start.log" &
    server=$!
    local try
    for try in $(seq 100); do
        ip netns exec "$client" curl --silent --fail --max-time 1 http://10.77.0.2/ >/dev/null && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    echo "demo.sh: nginx does not answer after $try tries: $(cat "$home/nginx/start.log")" >&2
    exit 1
}

# start_engine MODE: with a clean slate, so that each part of the demo tells its own story.
start_engine() {
    rm -rf "$home/state" "$home/run"
    mkdir "$home/state" "$home/run"
    cat > "$home/verdictd.toml" <<CONFIG
[firewall]
mode = "standard"
firewall_mode = "$1"
[allowed_ports]
tcp = [22, 80, 443]
[bans]
enforce = true
CONFIG
    ip netns exec "$host" "$programs/verdictd" run --config "$home/verdictd.toml" --state-dir "$home/state" \
        --runtime-dir "$home/run" --ephemeral > "$home/said" 2> "$home/log" &
    engine=$!
    local try
    for try in $(seq 200); do
        grep -qx ready "$home/said" && return
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.05
    done
    echo "demo.sh: verdictd is not ready after $try tries:" >&2
    cat "$home/log" >&2
    exit 1
}

stop_engine() {
    kill -TERM "$engine"
    wait "$engine" || { echo "demo.sh: verdictd did not stop cleanly:" >&2; cat "$home/log" >&2; exit 1; }
    engine=
}

# An honest client: one page after the other, all the time.
start_honest() {
    : > "$home/honest"
    ip netns exec "$client" sh -c 'while :; do
        if curl --silent --fail --max-time 2 http://10.77.0.2/ >/dev/null; then echo ok; else echo failed; fi
        sleep 0.02
    done' >> "$home/honest" &
    honest=$!
}

stop_honest() {
    kill -TERM "$honest" 2>/dev/null || true
    wait "$honest" 2>/dev/null || true
    honest=
    local all failed
    all=$(grep -c . "$home/honest" || true)
    failed=$(grep -c failed "$home/honest" || true)
    say "${green}The honest client fetched $((all - failed)) of $all pages meanwhile.${plain}"
    [ "$failed" -eq 0 ]
}

# nmap's own words, without its banners. The floor under its rate keeps it from crawling where nobody answers.
scan() {
    show "nmap -sS -T5 --min-rate 500 -n -Pn $*"
    ip netns exec "$attacker" timeout 40 nmap -sS -T5 --min-rate 500 -n -Pn "$@" |
        grep -E '^(Not shown|PORT|All |[0-9]+/|Nmap done)' | grep -v '^Nmap scan' | indented
}

# ---- the story -----------------------------------------------------------------------------------------------------

title "Three machines on one cable each (network namespaces; nothing touches this host's network)"
cat <<'PICTURE'
    attacker 10.77.0.1 ───┐
    (nmap)                ├─── protected host 10.77.0.2: nginx on 22 80 443 3306 8080
    client   10.77.1.1 ───┘
    (curl, honest)
PICTURE
make_machines
start_server
ports=1-1000,3306,8080

title "1. Without verdictd: the attacker sees everything"
scan -p "$ports" 10.77.0.2

title "2. Firewall mode, ports 22 80 443 allowed, 7 distinct ports tolerated"
start_engine firewall
start_honest
say "Five ports are below the threshold: nobody is banned, 3306 and 8080 are refused silently."
scan -p 22,80,443,3306,8080 10.77.0.2
say "Then the scan. Its third further port is the eighth: that packet is dropped, and the kernel drops the rest."
scan -p "$ports" 10.77.0.2
stop_honest
ctl list
show "nft list set inet verdictd banned4"
ip netns exec "$host" nft list set inet verdictd banned4 | indented
stop_engine

title "3. Detection only (the default): every port stays open, the scanner is banned all the same"
start_engine detection_only
start_honest
scan -p "$ports" 10.77.0.2
stop_honest
ctl list
ctl stats
ctl unban 10.77.0.1
say "and the lifted address is served again:"
ip netns exec "$attacker" curl --silent --fail --max-time 5 http://10.77.0.2/ | indented
stop_engine

title "Done in $SECONDS s. The namespaces, their rules and every file of this demo are gone."
