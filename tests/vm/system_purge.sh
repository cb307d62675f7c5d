# Other versions of the engine's package with rules in force, without a moment in which they are not, and a purge of
# both that leaves nothing; after system_package.sh, in the same boot.
# shellcheck shell=bash source=tests/vm/system.sh
. tests/vm/system.sh
. tests/vm/package.sh

# Who is refused asks without rest, and nft tells of every moment.
for asked in "banned 10.77.0.3 80" "closed 10.77.0.1 81" "open 10.77.0.1 80"; do
    # shellcheck disable=SC2086 # a list of words
    ip netns exec peer perl tests/vm/knock.pl $asked &
    knocking+=($!)
done
nft monitor >"$work/lost" 2>&1 &
monitor=$!
# Rules are replaced within a chain, in one transaction with those that follow; a base chain or the ban never goes.
lost() { grep -qE '^(delete table inet verdictd( |$)|delete chain inet verdictd (raw|pre)( |$)|flush|delete element.*10\.77\.0\.3[ ,])' "$work/lost"; }
change() { # change VERSION NAME: to the package VERSION, which calls itself NAME
    local pid answered
    pid=$(property MainPID)
    answered=$(wc -l </run/open)
    install "$1"
    replaced "$pid" || fail "version $1: not another engine: $(cat "$work/dpkg")"
    [ "$(dpkg-query --show --showformat '${Version}' verdictd)" = "$2" ] || fail "it is not version $2"
    systemctl is-active --quiet verdictd-monitor || fail "version $1: no monitor: $(cat "$work/dpkg")"
    more() { [ "$(wc -l </run/open)" -gt "$answered" ]; }
    until_true 20 more || fail "version $1: nobody answers on an open port"
    ! lost || fail "version $1: rules were out of force: $(cat "$work/lost")"
    [ ! -e /run/banned ] || fail "version $1: the banned source had an answer"
    [ ! -e /run/closed ] || fail "version $1: a refused port answered"
    in_kernel 10.77.0.3 || fail "version $1: the ban is gone"
    [ "$(sha256sum </etc/verdictd/verdictd.toml)" = "$config" ] || fail "version $1: the file is another"
}
until_true 30 test -s /run/open || fail "an open port does not answer"
config=$(sha256sum </etc/verdictd/verdictd.toml)
first=$(dpkg-query --show --showformat '${Version}' verdictd)
change 2 99.0-1
step "upgraded, rules in force all the while"
change 1 "$first"
step "downgraded, rules in force all the while"
kill "${knocking[@]}" $monitor

DEBIAN_FRONTEND=noninteractive dpkg --purge verdictd verdict-receiver >"$work/dpkg" 2>&1 </dev/null ||
    fail "dpkg --purge: $(cat "$work/dpkg")"
step "purged"
[ -z "$(nft list ruleset)" ] || fail "purged, and in the kernel: $(nft list ruleset)"
everything >"$work/after"
[ -z "$(ours "$work/after")" ] || fail "purged, and left: $(ours "$work/after")"
comm -13 /run/before "$work/after" >"$work/left"
[ ! -s "$work/left" ] || fail "purged, and new: $(cat "$work/left")"
pgrep verdict && fail "purged, and running"
knock 10.77.0.1 81 || fail "purged, and a port is closed"
knock 10.77.0.3 80 || fail "purged, and a source is banned"
step "purged: nothing is left"
