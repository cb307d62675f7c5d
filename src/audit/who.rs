//! Who gave an order, for people: the login name of a user number, and who logged in before he became another.
//!
//! Names come from `/etc/passwd` alone: what a directory service would say may take seconds, load foreign code, and
//! change with the network.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

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
    /// Somebody may have: the control groups are more, or deeper, than are looked through.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub login_unknown: bool,
    /// That user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logged_in_as: Option<String>,
}

impl Who {
    /// Asks `/etc/passwd` and `/proc`. The process must still be there: it waits for its answer.
    pub fn of(uid: u32, gid: u32, pid: i32) -> Who {
        let passwd = bounded("/etc/passwd".as_ref()).unwrap_or_default();
        let (login_uid, login_unknown) = match login_uid(pid) {
            Login::Of(uid) => (Some(uid), false),
            Login::Nobody => (None, false),
            Login::Unknown => (None, true),
        };
        Who {
            uid,
            login: name_in(&passwd, uid),
            gid,
            pid,
            login_uid,
            login_unknown,
            logged_in_as: login_uid.and_then(|uid| name_in(&passwd, uid)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    Of(u32),
    Nobody,
    Unknown,
}

/// What audit(8) calls auid: set at login, kept by sudo and su. The unit's `ProtectProc=invisible` hides it of other
/// users' processes; whose session a process is part of is also told by its control group.
fn login_uid(pid: i32) -> Login {
    let Some(pid) = u32::try_from(pid).ok().filter(|pid| *pid > 0) else {
        return Login::Nobody;
    };
    match bounded(format!("/proc/{pid}/loginuid").as_ref()) {
        Some(text) => match text.trim().parse() {
            Ok(uid) if uid != UNSET => Login::Of(uid),
            _ => Login::Nobody,
        },
        None => session_uid(SESSIONS.as_ref(), pid),
    }
}

/// The N of systemd's `user-N.slice` below `sessions` in which the process is: only root moves it out. The order waits
/// for this, and every user makes as many groups as he likes: each has his share of what is looked through, and nobody
/// hides who is somewhere else.
fn session_uid(sessions: &Path, pid: u32) -> Login {
    let slices: Vec<(u32, PathBuf)> = folders(sessions)
        .filter_map(|folder| {
            let name = folder.file_name()?.to_str()?;
            let uid = name.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok()?;
            Some((uid, folder))
        })
        .take(MOST_GROUPS + 1)
        .collect();
    let share = MOST_GROUPS / slices.len().max(1);
    let mut found = Login::Nobody;
    for (uid, slice) in slices.iter().take(MOST_GROUPS) {
        match holds(slice, pid, share) {
            Some(true) => return Login::Of(*uid),
            Some(false) => {}
            None => found = Login::Unknown,
        }
    }
    match slices.len() > MOST_GROUPS {
        true => Login::Unknown,
        false => found,
    }
}

/// Whether the process is in `group` or one below; none if these are more than `most`.
fn holds(group: &Path, pid: u32, most: usize) -> Option<bool> {
    let mut groups = vec![group.to_owned()];
    for looked_at in 0.. {
        let Some(group) = groups.pop() else { break };
        if looked_at == most {
            return None;
        }
        let processes = bounded(&group.join("cgroup.procs")).unwrap_or_default();
        if processes.lines().any(|line| line.parse() == Ok(pid)) {
            return Some(true);
        }
        let room = most - groups.len().min(most);
        groups.extend(folders(&group).take(room + 1));
    }
    Some(false)
}

fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
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
/// Of all users together. A group takes 30 µs to look at (Linux 6.18), so that an order waits for some 60 ms of it.
const MOST_GROUPS: usize = 2048;
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
        let logins = [71, 7, 9, 10].map(|pid| session_uid(sessions.path(), pid));
        let known = [Login::Of(1000), Login::Of(1001), Login::Nobody, Login::Nobody];
        assert_eq!(logins, known);
        assert_eq!(session_uid(Path::new("/nowhere"), 7), Login::Nobody);
    }

    #[test]
    fn who_makes_many_groups_hides_himself_and_delays_nobody() {
        let sessions = tempfile::tempdir().unwrap();
        let group = |name: &str| sessions.path().join(name);
        for wide in 0..100 {
            for deep in 0..100 {
                fs::create_dir_all(group(&format!("user-1000.slice/{wide}/{deep}"))).unwrap();
            }
        }
        fs::create_dir_all(group("user-1001.slice/session-3.scope")).unwrap();
        fs::write(group("user-1001.slice/session-3.scope/cgroup.procs"), "71\n").unwrap();
        assert_eq!(session_uid(sessions.path(), 71), Login::Of(1001));
        assert_eq!(session_uid(sessions.path(), 72), Login::Unknown);
    }

    #[test]
    fn no_more_groups_are_looked_at_than_there_is_room_for() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_owned();
        (0..9).for_each(|_| deep.push("a"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("cgroup.procs"), "7").unwrap();
        assert_eq!(holds(root.path(), 7, 9), None);
        assert_eq!(holds(root.path(), 7, 10), Some(true));
        assert_eq!(holds(root.path(), 8, 10), Some(false));
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
