#!/usr/bin/env bash
# cargo for make targets that run under sudo. Root seldom has a Rust toolchain; the user who typed sudo does. Where
# that user may write here, cargo runs as that user, so that target/ stays theirs; only built programs run as root.
set -euo pipefail

user=${SUDO_USER:-}
home=${HOME:-/root}
if [ "$(id -u)" -ne 0 ] || [ "$user" = root ]; then
    user=
fi
if [ -n "$user" ]; then
    home=$(getent passwd "$user" | cut -d: -f6)
    export PATH="$home/.cargo/bin:$PATH"
    if [ -d "$home/.rustup" ]; then
        export RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
    fi
fi
# What root has only in its home counts too: sudo resets PATH, a login as root may not read ~/.cargo/env.
export PATH="$PATH:$home/.cargo/bin:${HOME:-/root}/.cargo/bin"
if ! command -v cargo >/dev/null; then
    echo "cargo.sh: no cargo in PATH nor in $home/.cargo/bin; https://rustup.rs installs it" >&2
    exit 1
fi

as_user=()
if [ -n "$user" ]; then
    as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups
        env HOME="$home" USER="$user" LOGNAME="$user")
    # target/ of an earlier run as root would be in the user's way.
    if [ -d target ] && [ "$(stat -c %u target)" -eq 0 ] && [ "$(stat -c %u .)" -ne 0 ]; then
        chown -R "$user" target
    fi
    "${as_user[@]}" test -w . || as_user=()
fi
exec "${as_user[@]}" cargo "$@"
