#!/usr/bin/env bash
# Measures what each kind of scan meets and writes the table into docs/detection.md; two minutes, in network namespaces
# of its own. As root: sudo packaging/scan-table.sh
set -euo pipefail
cd "$(dirname "$0")/.."

docs=docs/detection.md
begin='<!-- scan table: begin -->' end='<!-- scan table: end -->'
[ "$(id -u)" -eq 0 ] || { echo "scan-table.sh: network namespaces need root: run sudo packaging/scan-table.sh" >&2; exit 1; }
for line in "$begin" "$end"; do
    grep -qxF "$line" "$docs" || { echo "scan-table.sh: $docs has no line \"$line\"" >&2; exit 1; }
done
packaging/deps.sh test

measured=$(mktemp "${TMPDIR:-/tmp}/verdictd-scan-table.XXXXXX")
trap 'rm -f "$measured" "$measured.md"' EXIT
packaging/cargo.sh test --no-run --test packets
program=$(packaging/cargo.sh test --no-run --test packets --message-format json 2>/dev/null |
    sed -n 's/.*"test":true},"features".*"executable":"\([^"]*\)".*/\1/p')
# The test compares what it measured with the docs: it may fail for that, and did its work all the same.
"$program" --exact scan_table::scans_meet_what_the_docs_say --nocapture > "$measured" 2>&1 || true
table=$(sed -n "/^$begin\$/,/^$end\$/p" "$measured")
case $table in
    "$begin"*"$end") ;;
    *) tail -n 40 "$measured" >&2; echo "scan-table.sh: nothing was measured" >&2; exit 1 ;;
esac
if grep -q ', expected ' "$measured"; then
    grep ', expected ' "$measured" >&2
    echo "scan-table.sh: this must not be; $docs stays as it is" >&2
    exit 1
fi
{
    sed "/^$begin\$/,\$d" "$docs"
    printf '%s\n' "$table"
    sed "1,/^$end\$/d" "$docs"
} > "$measured.md"
cat "$measured.md" > "$docs"
printf '%s\n' "$table"
