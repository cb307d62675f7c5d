#!/usr/bin/env bash
# A Debian 12 that tests begin with: a minute, made once, kept. Prints where it is; nobody writes in it.
#
#   bookworm.sh NAME PACKAGE,...    minimal, and these packages with what they need
#
# Environment: VERDICTD_CACHE (default ~/.cache/verdictd-vm).
set -euo pipefail

name=$1 packages=$2
cache=${VERDICTD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/verdictd-vm}
base=$cache/bookworm-$name-$(cksum <<<"$packages" | cut -d' ' -f1)

mkdir -p "$cache"
exec 9>"$cache/bookworm.lock"
flock 9
if [ ! -e "$base.done" ]; then
    command -v mmdebstrap >/dev/null || { echo "bookworm.sh: there is no mmdebstrap: packaging/deps.sh test installs it" >&2; exit 1; }
    rm -rf "$cache/bookworm-$name-"*
    mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt='Acquire::Retries "3"' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$base" >"$base.log" 2>&1 || {
        tail -5 "$base.log" >&2
        exit 1
    }
    rm -f "$base"/var/cache/apt/*.bin "$base"/var/lib/apt/lists/*_*
    touch "$base.done"
fi
echo "$base"
