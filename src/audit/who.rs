//! Who gave an order, for people: the login name of a user number, and who logged in before he became another.
//!
//! Names come from `/etc/passwd` alone: what a directory service would say may take seconds, load foreign code, and
//! change with the network.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::Serialize;

/// Whoever asks, by the kernel's word, and what he is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Who {
    /// User.
    pub uid: u32,
    /// His name, if `/etc/passwd` has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Group.
    pub gid: u32,
    /// Process; 0 when it lives in another pid namespace.
    pub pid: i32,
    /// Who logged in, before sudo or su; absent where the kernel does not keep it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// That user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logged_in_as: Option<String>,
}

impl Who {
    /// Asks `/etc/passwd` and `/proc`. The process must still be there: it waits for its answer.
    pub fn of(uid: u32, gid: u32, pid: i32) -> Who {
        let passwd = bounded("/etc/passwd".as_ref()).unwrap_or_default();
        let login_uid = login_uid(pid);
        Who {
            uid,
            login: name_in(&passwd, uid),
            gid,
            pid,
            login_uid,
            logged_in_as: login_uid.and_then(|uid| name_in(&passwd, uid)),
        }
    }
}

/// What audit(8) calls auid: set at login, kept by sudo and su. The unit's `ProtectProc=invisible` hides it of other
/// users' processes; whose session a process is part of is also told by its control group.
fn login_uid(pid: i32) -> Option<u32> {
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    match bounded(format!("/proc/{pid}/loginuid").as_ref()) {
        Some(text) => text.trim().parse().ok().filter(|uid| *uid != UNSET),
        None => session_uid(SESSIONS.as_ref(), pid),
    }
}

/// The N of systemd's `user-N.slice` below `sessions` in which the process is: only root moves it out.
fn session_uid(sessions: &Path, pid: u32) -> Option<u32> {
    let folders = fs::read_dir(sessions).ok()?.flatten().take(MOST_FOLDERS);
    folders
        .filter_map(|folder| {
            let name = folder.file_name().into_string().ok()?;
            let uid = name.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok()?;
            Some((uid, folder.path()))
        })
        .find(|(_, folder)| holds(folder, pid, DEEPEST))
        .map(|(uid, _)| uid)
}

fn holds(group: &Path, pid: u32, depth: usize) -> bool {
    let processes = bounded(&group.join("cgroup.procs")).unwrap_or_default();
    if processes.lines().any(|line| line.parse() == Ok(pid)) {
        return true;
    }
    let folders = fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .take(MOST_FOLDERS);
    depth > 0
        && folders
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .any(|entry| holds(&entry.path(), pid, depth - 1))
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let named = number.parse() == Ok(uid) && !name.is_empty() && name.len() <= LONGEST_NAME;
        named.then(|| name.to_owned())
    })
}

fn bounded(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(LARGEST)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `(uid_t)-1`: nobody logged in, as for what the system started.
const UNSET: u32 = u32::MAX;
/// Where systemd keeps the processes of who is logged in.
const SESSIONS: &str = "/sys/fs/cgroup/user.slice";
/// user@N.service/app.slice/a.scope/…: a user may make more below.
const DEEPEST: usize = 5;
/// In one folder: a user may make as many as he likes.
const MOST_FOLDERS: usize = 512;
/// `/etc/passwd` of ten thousand users is half of it.
const LARGEST: u64 = 1 << 20;
/// As utmp has it, with room.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_by_its_control_group() {
        let sessions = tempfile::tempdir().unwrap();
        let put = |group: &str, processes: &str| {
            let group = sessions.path().join(group);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("cgroup.procs"), processes).unwrap();
        };
        put("user-1000.slice/session-3.scope", "70\n71\n");
        put("user-1001.slice/user@1001.service/app.slice/tmux.scope", "7\n");
        put("user-x.slice", "9\n");
        put("machine.slice", "10\n");
        let uids: Vec<_> = [71, 7, 9, 10].map(|pid| session_uid(sessions.path(), pid)).into();
        assert_eq!(uids, [Some(1000), Some(1001), None, None]);
        assert_eq!(session_uid(Path::new("/nowhere"), 7), None);
    }

    #[test]
    fn a_number_is_called_by_the_first_line_that_has_it() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nbroken\n:x:7::\nalice:x:1000:1000::/:\nbob:x:1000:1::/:\n";
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("alice"));
        assert_eq!((name_in(passwd, 7), name_in(passwd, 1)), (None, None));
    }

    #[test]
    fn the_asker_is_named() {
        let me = rustix::process::getuid().as_raw();
        let who = Who::of(me, 0, i32::try_from(std::process::id()).unwrap());
        assert_eq!(who.uid, me);
        assert_eq!(Who::of(0, 0, 0).login.as_deref(), Some("root"));
    }
}
