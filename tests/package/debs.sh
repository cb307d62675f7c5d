#!/usr/bin/env bash
# Both packages of the programs that are built, as "make deb PROFILE=dev" makes them, and their next version, in which
# programs and conffiles differ, and one file is new:
#
#   debs.sh FOLDER    writes verdictd_1.deb verdictd_2.deb verdict-receiver_1.deb verdict-receiver_2.deb into it
#
# Unpacked and packed again without compression, which dpkg -i is quick with.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$1
mkdir -p "$folder"
packaging/deb.sh --built >/dev/null
for name in verdictd verdict-receiver; do
    tree=$folder/$name
    rm -rf "$tree"
    dpkg-deb --raw-extract target/debian/"$name"_*.deb "$tree"
    dpkg-deb -Znone --root-owner-group --build "$tree" "$folder/${name}_1.deb" >/dev/null
    sed -i 's/^Version: .*/Version: 99.0-1/' "$tree/DEBIAN/control"
    # A program runs all the same with something behind its end.
    for program in "$tree"/usr/bin/*; do echo >>"$program"; done
    for file in "$tree"/etc/verdictd/*; do [ ! -e "$file" ] || echo '# of 99' >>"$file"; done
    [ $name != verdictd ] || echo 'of 99' >"$tree/usr/lib/verdictd/of-99"
    (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-deb -Znone --root-owner-group --build "$tree" "$folder/${name}_2.deb" >/dev/null
    rm -r "$tree"
done
