//! The packages: built once a run from the programs as built for the tests, and later versions of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::common::command::run;
use crate::common::secs;

/// Both packages as `make deb PROFILE=dev` makes them, and their next version, in which programs and conffiles differ, and one file is new:
/// `verdictd_1.deb`, `verdictd_2.deb`, `verdict-receiver_1.deb`, `verdict-receiver_2.deb`.
pub(crate) fn folder() -> &'static Path {
    // Below target/, since nothing ends a static: 150 MB that the next run replaces.
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debs");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        must("tests/package/debs.sh", &[&folder.to_string_lossy()]);
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

/// The Debian that they are installed in, without systemd.
pub(crate) fn base() -> PathBuf {
    static BASE: LazyLock<PathBuf> =
        LazyLock::new(|| must("tests/bookworm.sh", &["package", HOLDS]).trim().into());
    BASE.clone()
}

fn must(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = run(&mut command, secs(600));
    assert_eq!(output.code(), 0, "{program}: {}", output.text());
    output.stdout
}

const HOLDS: &str =
    "nftables,iproute2,libnftnl11,libmnl0,systemd-standalone-sysusers,systemd-standalone-tmpfiles";
