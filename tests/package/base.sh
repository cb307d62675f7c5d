#!/usr/bin/env bash
# A Debian 12 without systemd that the packages are installed in: a minute, made once, kept with what the VM needs.
# Prints where it is; nobody writes in it.
set -euo pipefail

cache=${VERDICTD_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/verdictd-vm}
# Count up when the list changes.
base=$cache/package-bookworm-1
packages=nftables,iproute2,adduser,libnftnl11,libmnl0,systemd-standalone-sysusers,systemd-standalone-tmpfiles

mkdir -p "$cache"
exec 9>"$cache/package.lock"
flock 9
if [ ! -e "$base.done" ]; then
    rm -rf "$base"
    mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$base" >&2
    touch "$base.done"
fi
echo "$base"
