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
cache=${VERDICTD_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/verdictd-vm}
tool=$cache/cargo-deb-$version
out=target/debian

# Built once, without optimisation: two minutes on two cores with it, one without, and a package takes seconds.
if ! "$tool/bin/cargo-deb" --version >/dev/null 2>&1; then
    echo "deb.sh: building cargo-deb $version into $tool, once" >&2
    mkdir -p "$tool"
    [ -z "${SUDO_USER:-}" ] || chown "$SUDO_USER" "$tool"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        packaging/cargo.sh install --quiet --locked --no-default-features --root "$tool" "cargo-deb@$version" 2>&1 |
        grep -v 'be sure to add' >&2 || true
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
mkdir -p "$out"
rm -f "$out"/verdictd_*.deb "$out"/verdict-receiver_*.deb
PATH="$tool/bin:$PATH" packaging/cargo.sh deb --no-build "${options[@]}" 2>&1 | grep -v 'dev profile\|To enable debug' >&2
PATH="$tool/bin:$PATH" packaging/cargo.sh deb --no-build "${options[@]}" --variant receiver 2>&1 |
    grep -v 'dev profile\|To enable debug' >&2

# cargo-deb gives every package the crate's own words as synopsis; the receiver is something else.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for deb in "$out"/verdict-receiver_*.deb; do
    dpkg-deb --control "$deb" "$work/control"
    sed -i 's/^Description: .*/Description: receiver of the webhooks that verdictd sends/' "$work/control/control"
    tar --create --xz --file "$work/control.tar.xz" --owner=0 --group=0 --numeric-owner --sort=name \
        --mtime="@$(stat -c %Y Cargo.toml)" --directory "$work/control" .
    mv "$deb" "$work/package.deb"
    # The members of the archive keep their order: version, control, data.
    ar r "$work/package.deb" "$work/control.tar.xz" >/dev/null
    mv "$work/package.deb" "$deb"
done
[ -z "${SUDO_USER:-}" ] || [ "$(stat -c %u .)" = 0 ] || chown -R "$(stat -c %u .)" "$out"
ls "$out"/*.deb
