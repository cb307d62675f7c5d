# What the guests under systemd share; sourced by them, in the guest.
# shellcheck shell=bash source=tests/vm/guest.sh
. tests/vm/guest.sh

# The journal says more than any file.
fail() {
    echo "FAILED: $*"
    systemctl --no-pager --lines=0 status verdictd verdictd-restore 2>&1 | sed 's/^/  /'
    journalctl --no-pager --output=short-monotonic -u verdictd -u verdictd-restore -u verdictd-monitor -n 60 | sed 's/^/  /'
    exit 1
}

# Milliseconds since the boot, of the clock that systemd's timestamps are of.
now() {
    local up rest
    read -r up rest </proc/uptime
    echo "$((10#${up/./} * 10))"
}

# What the package does, by hand.
install_by_hand() {
    adduser --system --group --no-create-home --home /nonexistent --quiet verdictd || fail "no user"
    install -m 755 target/vm/verdictd target/vm/verdictctl /usr/bin/ || fail "no programs"
    install -m 644 packaging/systemd/verdictd*.service /usr/lib/systemd/system/
    install -d -m 750 -g verdictd /etc/verdictd
}

config() { # config: from stdin
    cat >/etc/verdictd/verdictd.toml
    chown root:verdictd /etc/verdictd/verdictd.toml
    chmod 640 /etc/verdictd/verdictd.toml
}

# A host in this namespace and its peers in another, lan0 between them.
peers() { # peers ADDRESS...
    ip netns add peer || fail "no namespace"
    ip link add lan0 type veth peer name lan0 netns peer
    ip address add 10.77.0.2/24 dev lan0
    local address
    for address in "$@"; do ip -n peer address add "$address/24" dev lan0; done
    ip link set lan0 up
    ip -n peer link set lo up
    ip -n peer link set lan0 up
}

# knock SOURCE PORT: whether a connection comes about.
knock() { ip netns exec peer perl tests/vm/knock.pl "$1" "$2"; }

property() { systemctl show --property "$1" --value verdictd.service; }
active() { [ "$(property ActiveState)" = active ]; }
in_kernel() { nft get element inet verdictd banned4 "{ $1 }" >/dev/null 2>&1; }

# The engine is another than process $1, and ready.
replaced() {
    local pid
    pid=$(property MainPID)
    active && [ "$pid" != 0 ] && [ "$pid" != "$1" ]
}
