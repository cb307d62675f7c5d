//! The monitor's file: written whole, read by `status` and by the monitor's next start. Nothing is trusted that root did
//! not write.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::places::{Places, make_folder_of};
use super::process::Process;
use crate::control::monitor_view::MonitorView;
use crate::control::views::timestamp;
use crate::files::{self, Dress};

/// Writes `view` for all who ask.
///
/// # Errors
/// If the state directory cannot be written.
pub(super) fn save(path: &Path, view: &MonitorView) -> io::Result<()> {
    let text = serde_json::to_string_pretty(view).map_err(io::Error::other)? + "\n";
    make_folder_of(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(folder)?;
    // `verdictctl status` of the group reads it.
    Ok(files::replace_in(
        directory,
        path,
        text.as_bytes(),
        Dress::PUBLIC,
    )?)
}

/// What was last written; none if nothing was, or not by root or this user.
pub(super) fn load(path: &Path) -> Option<MonitorView> {
    let file = files::open_to_read(path).ok()?;
    let found = file.metadata().ok()?;
    let owners = [0, rustix::process::geteuid().as_raw()];
    let trusted = owners.contains(&found.uid()) && found.mode() & 0o022 == 0;
    let mut text = String::new();
    trusted.then_some(())?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The monitor of `places` and what it found; none if there never was one.
pub fn view(places: &Places) -> Option<MonitorView> {
    let process = Process::monitor(places);
    let known = load(&places.report());
    if process.is_none() && known.is_none() {
        return None;
    }
    Some(MonitorView {
        running: process.is_some(),
        pid: process.map(|process| process.pid()),
        ..known.unwrap_or_default()
    })
}

/// The files have been looked at, or sealed anew, and all is well: `status` no longer says otherwise. Whether it did, and
/// the monitor that found it runs no more.
///
/// # Errors
/// If the file cannot be written.
pub fn forgive(places: &Places) -> io::Result<bool> {
    let path = places.report();
    match load(&path) {
        Some(mut view) if !view.integrity.violations.is_empty() => {
            view.integrity.violations.clear();
            save(&path, &view).map(|()| Process::monitor(places).is_none())
        }
        _ => Ok(false),
    }
}

/// This moment, as it is written.
pub(super) fn now() -> String {
    timestamp(SystemTime::now())
}

/// How long ago `moment` was; none if that is not known or lies ahead: a stepped clock postpones nothing.
pub(super) fn since(moment: Option<&str>) -> Option<Duration> {
    let then = OffsetDateTime::parse(moment?, &Rfc3339).ok()?;
    (OffsetDateTime::now_utc() - then).try_into().ok()
}

const LONGEST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_from_no_one_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("monitor.json");
        assert_eq!(load(&path), None);
        let mut view = MonitorView {
            restarts: 3,
            ..MonitorView::default()
        };
        save(&path, &view).unwrap();
        view.restarts = 4;
        save(&path, &view).unwrap();
        assert_eq!(load(&path), Some(view));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(load(&path), None, "anybody may have written it");
        let link = folder.path().join("link.json");
        symlink(&path, &link).unwrap();
        assert_eq!(load(&link), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(load(&path), None);
    }

    #[test]
    fn moments_are_told_apart_and_the_future_is_unknown() {
        let now = now();
        assert!(since(Some(&now)).unwrap() < Duration::from_secs(60));
        assert_eq!(since(Some("2999-01-01T00:00:00Z")), None);
        assert_eq!(since(Some("yesterday")), None);
        assert_eq!(since(None), None);
    }
}
