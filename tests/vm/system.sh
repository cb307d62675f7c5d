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

# install VERSION [PACKAGE...]: by dpkg, from tests/package/debs.sh. What an operator wrote into /etc/verdictd stays.
install() {
    local version=$1 package packages=()
    shift
    for package in "${@:-verdictd}"; do packages+=("target/vm/debs/${package}_$version.deb"); done
    DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold -i "${packages[@]}" </dev/null \
        >"$work/dpkg" 2>&1 || fail "dpkg -i ${packages[*]}: $(cat "$work/dpkg")"
}

config() { # config: from stdin; owner and mode of a file that is there stay
    mkdir -p /etc/verdictd
    cat >/etc/verdictd/verdictd.toml
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

# A TCP server on PORT that takes everybody.
serve() { ncat --listen --keep-open 0.0.0.0 "$1" >/dev/null 2>&1 & }

# in_ssh ADDRESS COMMAND...: typed by root over SSH, from outside.
in_ssh() {
    local from=$1
    shift
    ip netns exec peer ssh -i /root/id -b "$from" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o LogLevel=ERROR root@10.77.0.2 "$@"
}
ssh_server() {
    command install -d -m 700 /root/.ssh
    cp target/vm/id /root/id
    chmod 600 /root/id
    cat target/vm/id.pub >/root/.ssh/authorized_keys
    systemctl start ssh || fail "no SSH server"
}

# What is tried: these ports and no other.
policy() { # policy PORT...
    local ports="$*"
    printf '[firewall]\nfirewall_mode = "firewall"\n[allowed_ports]\ntcp = [%s]\n' "${ports// /, }"
}

# What is told of each step, and when.
step() {
    told="ok: $*"
    echo "$(($(now) / 1000)) s $told"
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
