#!/usr/bin/env bash
# Builds the two Debian packages into target/debian/.
#
#   packaging/deb.sh [PROFILE]      release (default), or dev: the build that tests use, stripped; quick
#   packaging/deb.sh --built        of what "cargo test" or "cargo build" left in target/debug, without building
#   packaging/deb.sh --tool         only makes sure that there is a cargo-deb
#
# What the packages hold stands in Cargo.toml, [package.metadata.deb]; their scripts are in packaging/debian/.
set -euo pipefail
cd "$(dirname "$0")/.."

# Later ones may refuse the dev profile.
version=3.8.0
cache=${VERDICTD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/verdictd-vm}
tool=$cache/cargo-deb-$version
out=target/debian

# Built once, without optimisation: two minutes on two cores with it, one without, and a package takes seconds.
if ! "$tool/bin/cargo-deb" --version >/dev/null 2>&1; then
    echo "deb.sh: building cargo-deb $version into $tool, once" >&2
    mkdir -p "$tool"
    [ -z "${SUDO_USER:-}" ] || chown "$SUDO_USER" "$tool"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        packaging/cargo.sh install --quiet --locked --no-default-features --root "$tool" "cargo-deb@$version" 2>&1 |
        sed '/be sure to add/d' >&2
    "$tool/bin/cargo-deb" --version >/dev/null || { echo "deb.sh: there is no cargo-deb" >&2; exit 1; }
fi
[ "${1:-}" != --tool ] || exit 0

profile=${1:-release}
built=
if [ "$profile" = --built ]; then
    profile=dev
    built=1
fi
options=(--profile "$profile" --strip --output "$out/" --compress-type xz)
[ "$profile" != dev ] || options+=(--fast)

[ -n "$built" ] || packaging/cargo.sh build --profile "$profile" --bins
# The same package of the same programs, whenever it is made.
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog --file packaging/debian/verdictd/changelog --show-field Timestamp)
export SOURCE_DATE_EPOCH

mkdir -p "$out"
rm -f "$out"/verdictd_*.deb "$out"/verdict-receiver_*.deb
pack() { PATH="$tool/bin:$PATH" packaging/cargo.sh deb --no-build "${options[@]}" "$@" 2>&1 | sed '/dev profile\|To enable debug/d' >&2; }
pack
pack --variant receiver

# cargo-deb gives every package the crate's own words as synopsis; the receiver is something else.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
deb=$(echo "$out"/verdict-receiver_*.deb)
dpkg-deb --raw-extract "$deb" "$work/tree"
sed -i 's/^Description: .*/Description: receiver of the webhooks that verdictd sends/' "$work/tree/DEBIAN/control"
level=6
[ "$profile" != dev ] || level=0
dpkg-deb -Zxz -z$level --root-owner-group --build "$work/tree" "$deb" >/dev/null
[ -z "${SUDO_USER:-}" ] || [ "$(stat -c %u .)" = 0 ] || chown -R "$(stat -c %u .)" "$out"
ls "$out"/*.deb
