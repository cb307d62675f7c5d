#!/usr/bin/env bash
# Builds every test as the user who typed sudo, then runs them all as root: real packets need network namespaces.
#
#   packaging/test.sh [--release] [FILTER]    FILTER: only tests whose names hold it
set -euo pipefail
cd "$(dirname "$0")/.."

profile=()
if [ "${1:-}" = --release ]; then
    profile=(--release)
    shift
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "test.sh: most tests make network namespaces, which needs root: run sudo make test" >&2
    exit 1
fi

# Twice: the first run shows warnings and errors as people read them, the second (all is built) names the programs
# (those of profile "test": the engine's own programs are built beside them).
packaging/cargo.sh test --no-run "${profile[@]}"
programs=$(packaging/cargo.sh test --no-run "${profile[@]}" --message-format json 2>/dev/null |
    sed -n 's/.*"test":true},"features".*"executable":"\([^"]*\)".*/\1/p')
[ -n "$programs" ] || { echo "test.sh: cargo built no test" >&2; exit 1; }

# More at once than there are cores: tests on real packets mostly wait (a full nmap scan takes a minute or two).
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-6} RUST_BACKTRACE=${RUST_BACKTRACE:-1}
failed=()
total=0
for program in $programs; do
    name=$(basename "$program")
    name=${name%-*}
    printf '\n== %s\n' "$name"
    timeout --kill-after=10 "${TEST_LIMIT:-840}" "$program" "$@" || failed+=("$name")
    total=$((total + 1))
done
printf '\n== doc\n'
packaging/cargo.sh test --quiet --doc "${profile[@]}" || failed+=(doc)

echo
if [ ${#failed[@]} -ne 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "all tests passed ($total programs, $SECONDS s)"
