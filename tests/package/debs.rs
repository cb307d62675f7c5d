//! The packages: built once a run from the programs as built for the tests, and later versions of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::common::command::run;
use crate::common::secs;

/// Both packages as `make deb PROFILE=dev` makes them, and their next version, in which programs and conffiles differ:
/// `verdictd_1.deb`, `verdictd_2.deb`, `verdict-receiver_1.deb`, `verdict-receiver_2.deb`.
pub(crate) fn folder() -> &'static Path {
    // Below target/, since nothing ends a static: 150 MB that the next run replaces.
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debs");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        must("packaging/deb.sh", &["--built"]);
        must("bash", &["-euc", NEXT, "sh", &folder.to_string_lossy()]);
        folder
    });
    &FOLDER
}

/// As lintian is to see them.
pub(crate) fn as_built() -> Vec<PathBuf> {
    folder();
    let built = must("sh", &["-c", "ls -d \"$PWD\"/target/debian/*.deb"]);
    built.lines().map(PathBuf::from).collect()
}

/// The Debian that they are installed in.
pub(crate) fn base() -> PathBuf {
    static BASE: LazyLock<PathBuf> = LazyLock::new(|| must("tests/package/base.sh", &[]).trim().into());
    BASE.clone()
}

fn must(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = run(&mut command, secs(600));
    assert_eq!(output.code(), 0, "{program}: {}", output.text());
    output.stdout
}

/// Unpacked and packed again, without compression.
const NEXT: &str = r##"
for name in verdictd verdict-receiver; do
    tree=$1/$name
    dpkg-deb --raw-extract target/debian/"$name"_*.deb "$tree"
    dpkg-deb -Znone --build "$tree" "$1/${name}_1.deb" >/dev/null
    sed -i 's/^Version: .*/Version: 99.0-1/' "$tree/DEBIAN/control"
    # A program runs all the same with something behind its end.
    for program in "$tree"/usr/bin/*; do echo >> "$program"; done
    for file in "$tree"/etc/verdictd/*; do [ ! -e "$file" ] || echo '# of 99' >> "$file"; done
    dpkg-deb -Znone --build "$tree" "$1/${name}_2.deb" >/dev/null
    rm -r "$tree"
done
"##;
