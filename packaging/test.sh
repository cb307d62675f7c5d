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
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} RUST_BACKTRACE=${RUST_BACKTRACE:-1}
output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=()
shaky=()
total=0

# What libtest lists under its last "failures:".
failed_tests() {
    sed -n '/^failures:$/h; /^failures:$/!H; ${x; p}' "$output" | sed -n '/^failures:$/,/^test result/s/^    \([^ ]*\)$/\1/p'
}

# Packets, timeouts and full port scans share the cores with the other tests: one that failed among them is judged by
# a second run, alone. It is told in the end all the same, and more than three of a whole run are a failure: then it
# is not the machine. Not in soak, which has all the time there is.
again_alone() { # PROGRAM NAME
    local program=$1 name=$2 test tests
    tests=$(failed_tests)
    [ -n "$tests" ] && [ -z "${VERDICTD_SOAK:-}" ] || return 1
    [ $((${#shaky[@]} + $(wc -l <<<"$tests"))) -le 3 ] || return 1
    for test in $tests; do
        printf '\n-- %s %s failed among others; once more, alone\n' "$name" "$test"
        timeout --kill-after=10 "${TEST_LIMIT:-840}" "$program" --exact "$test" | tee "$output" || return 1
        grep -q '^test result: ok. 1 passed' "$output" || return 1
        shaky+=("$name $test")
    done
}

for program in $programs; do
    name=$(basename "$program")
    name=${name%-*}
    printf '\n== %s\n' "$name"
    timeout --kill-after=10 "${TEST_LIMIT:-840}" "$program" "$@" | tee "$output" || again_alone "$program" "$name" ||
        failed+=("$name")
    total=$((total + 1))
done
printf '\n== doc\n'
packaging/cargo.sh test --quiet --doc "${profile[@]}" || failed+=(doc)

echo
[ ${#shaky[@]} -eq 0 ] || printf 'shaky (failed among others, passed alone): %s\n' "${shaky[@]}"
if [ ${#failed[@]} -ne 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "all tests passed ($total programs, $SECONDS s)"
