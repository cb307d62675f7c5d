#!/usr/bin/env bash
# Installs what is missing to build, run and test verdictd on Debian and its kin. Quick when nothing is missing,
# so that every make target may call it.
#
#   packaging/deps.sh build    headers and tools that the build needs
#   packaging/deps.sh deb      also what makes Debian packages of it
#   packaging/deps.sh demo     also what the demo shows: a web server, nmap
#   packaging/deps.sh test     also what the tests drive
set -euo pipefail

build=(pkg-config libnftnl-dev libmnl-dev gcc nftables iproute2)
deb=("${build[@]}" binutils dpkg-dev xz-utils)
demo=("${build[@]}" nginx-light nmap curl iputils-ping)
tests=("${demo[@]}" "${deb[@]}" conntrack util-linux openssh-server openssh-client vsftpd traceroute openssl python3
    python3-aiosmtpd python3-flask nodejs gdb strace faketime e2fsprogs lintian mmdebstrap prometheus shellcheck systemd)

case "${1:-build}" in
    build) wanted=("${build[@]}") ;;
    deb) wanted=("${deb[@]}") ;;
    demo) wanted=("${demo[@]}") ;;
    test) wanted=("${tests[@]}") ;;
    *) echo "deps.sh: build, deb, demo or test, not \"$1\"" >&2; exit 2 ;;
esac

# A package counts as there when dpkg says so, or when what it brings is found (other distributions, own builds).
there() {
    case "$1" in
        libnftnl-dev) pkg-config --exists libnftnl 2>/dev/null ;;
        libmnl-dev) pkg-config --exists libmnl 2>/dev/null ;;
        nftables) found nft ;;
        iproute2) found ip ;;
        iputils-ping) found ping ;;
        nginx-light) found nginx ;;
        util-linux) found setpriv ;;
        openssh-server) found sshd ;;
        openssh-client) found ssh && found ssh-keygen ;;
        # Of Debian's own Python, which may not be the first in PATH.
        python3) [ -x /usr/bin/python3 ] ;;
        python3-aiosmtpd) /usr/bin/python3 -c 'import aiosmtpd' 2>/dev/null ;;
        python3-flask) /usr/bin/python3 -c 'import flask' 2>/dev/null ;;
        nodejs) found node ;;
        binutils) found ar && found strip ;;
        dpkg-dev) found dpkg-shlibdeps ;;
        xz-utils) found xz ;;
        e2fsprogs) found mkfs.ext4 ;;
        systemd) found systemd-analyze ;;
        *) found "$1" ;;
    esac
}
# nft, nginx and their like live where an ordinary user's PATH does not lead.
found() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

missing=()
for package in "${wanted[@]}"; do
    there "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "deps.sh: missing: ${missing[*]}, and there is no apt-get here to install it; these are Debian's names" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "deps.sh: missing: ${missing[*]}; as root: apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A server package would start itself on this host's ports; nginx and sshd are only wanted inside namespaces.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi
install() { apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >/dev/null; }
install 2>/dev/null || { apt-get update --quiet >/dev/null; install; }

for package in "${missing[@]}"; do
    there "$package" || { echo "deps.sh: $package is installed but what it brings is not found" >&2; exit 1; }
done
