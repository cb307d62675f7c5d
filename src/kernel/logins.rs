//! Who is logged in from elsewhere, as the files of this host have it: utmp and systemd-logind. Both are written by
//! whoever authenticates (sshd, PAM), so that a stranger's open connection is in neither. Read as hostile bytes all
//! the same: a truncated or mangled file tells less, never wrong.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::files;

/// One login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Login {
    /// The process that let it in, which holds its connection.
    pub(super) pid: u32,
    /// Where it comes from; `None` if only a name is recorded (names are not looked up).
    pub(super) peer: Option<IpAddr>,
}

/// The SSH sessions of systemd-logind's directory; `None` if it holds no session of any kind.
pub(super) fn of_logind(directory: &Path) -> Option<Vec<Login>> {
    let entries = fs::read_dir(directory).ok()?.flatten().take(MOST_FILES);
    // Beside each session lies a fifo, NAME.ref.
    let sessions = entries.filter(|entry| !entry.file_name().as_encoded_bytes().contains(&b'.'));
    let read: Vec<Vec<u8>> = sessions
        .filter_map(|entry| bytes(&entry.path(), SESSION_BYTES))
        .collect();
    (!read.is_empty()).then(|| read.iter().filter_map(|session| logind(session)).collect())
}

/// The logins from elsewhere of the first of `paths` that holds a record; `None` if none does.
pub(super) fn of_utmp(paths: &[PathBuf]) -> Option<Vec<Login>> {
    let mut files = paths.iter().filter_map(|path| bytes(path, UTMP_BYTES));
    let file = files.find(|file| file.len() >= RECORD)?;
    Some(file.chunks_exact(RECORD).filter_map(utmp).collect())
}

/// One session of logind: lines of KEY=VALUE.
fn logind(session: &[u8]) -> Option<Login> {
    let text = String::from_utf8_lossy(session);
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim().trim_matches('"'))
    };
    let ssh = matches!(value("SERVICE"), Some("sshd" | "ssh" | "dropbear"));
    // A session that is closing has logged out; what still runs in it are leftovers.
    let over = value("STATE") == Some("closing");
    if !ssh || over || value("REMOTE") == Some("0") {
        return None;
    }
    let peer = value("REMOTE_HOST").and_then(address);
    Some(Login {
        pid: value("LEADER")?.parse().ok().filter(|pid| *pid > 0)?,
        peer,
    })
}

/// One record of utmp (glibc, bits/utmp.h): type, pid, line[32], id[4], user[32], host[256], exit, session, time,
/// address.
fn utmp(record: &[u8]) -> Option<Login> {
    if i16::from_ne_bytes(*record.first_chunk()?) != USER_PROCESS {
        return None;
    }
    let pid = i32::from_ne_bytes(*record.get(4..)?.first_chunk()?);
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let host = record.get(HOST..HOST + 256)?;
    let host = host.split(|byte| *byte == 0).next().unwrap_or_default();
    let recorded = recorded_address(record.get(ADDRESS..)?.first_chunk()?);
    // Without a host it is a login at the console.
    if recorded.is_none() && host.is_empty() {
        return None;
    }
    let peer = recorded.or_else(|| address(std::str::from_utf8(host).ok()?));
    Some(Login { pid, peer })
}

/// ut_addr_v6: IPv4 in the first four bytes, IPv6 in all; all zero: none.
fn recorded_address(bytes: &[u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, rest @ ..] = *bytes;
    let addr = match rest == [0; 12] {
        true => IpAddr::from(Ipv4Addr::new(a, b, c, d)),
        false => IpAddr::from(Ipv6Addr::from(*bytes)).to_canonical(),
    };
    (!addr.is_unspecified()).then_some(addr)
}

/// An address as text, its zone left off.
fn address(text: &str) -> Option<IpAddr> {
    let addr: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(addr.to_canonical())
}

/// What is in a regular file, up to `most` bytes.
fn bytes(path: &Path, most: u64) -> Option<Vec<u8>> {
    files::read_up_to(path, most).ok()
}

/// ut_type of a login.
const USER_PROCESS: i16 = 7;
/// Place of ut_host.
const HOST: usize = 76;
/// A record has 384 bytes, but 400 where time_t is not kept at 32 bits in it (glibc's __WORDSIZE_TIME64_COMPAT32).
const RECORD: usize = if cfg!(target_arch = "aarch64") { 400 } else { 384 };
/// Place of ut_addr_v6.
const ADDRESS: usize = if cfg!(target_arch = "aarch64") { 360 } else { 348 };
/// Ten thousand logins, and as many sessions; a session's file has some 400 bytes.
const UTMP_BYTES: u64 = 10_000 * RECORD as u64;
const MOST_FILES: usize = 20_000;
const SESSION_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, pid: i32, host: &str, addr: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; RECORD];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&pid.to_ne_bytes());
        bytes[HOST..HOST + host.len()].copy_from_slice(host.as_bytes());
        bytes[ADDRESS..ADDRESS + addr.len()].copy_from_slice(addr);
        bytes
    }

    fn login(pid: u32, peer: &str) -> Option<Login> {
        let peer = Some(peer.parse().unwrap());
        Some(Login { pid, peer })
    }

    #[test]
    fn logins_of_both_families_are_read() {
        assert_eq!(utmp(&record(7, 12, "", &[192, 0, 2, 9])), login(12, "192.0.2.9"));
        let v6: Ipv6Addr = "2001:db8::9".parse().unwrap();
        assert_eq!(
            utmp(&record(7, 13, "host.example", &v6.octets())),
            login(13, "2001:db8::9")
        );
        let mapped = Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped();
        assert_eq!(utmp(&record(7, 13, "", &mapped.octets())), login(13, "192.0.2.9"));
        assert_eq!(utmp(&record(7, 14, "fe80::1%eth0", &[])), login(14, "fe80::1"));
        let (pid, peer) = (15, None);
        assert_eq!(
            utmp(&record(7, 15, "host.example", &[])),
            Some(Login { pid, peer })
        );
    }

    #[test]
    fn what_is_no_login_from_elsewhere_is_left_out() {
        for (kind, pid, host) in [
            (8, 12, "192.0.2.9"),
            (2, 12, "192.0.2.9"),
            (7, 12, ""),
            (7, -1, "192.0.2.9"),
        ] {
            assert_eq!(utmp(&record(kind, pid, host, &[])), None, "{kind} {pid} {host}");
        }
        // A host without an end, and one that is no text.
        assert_eq!(utmp(&record(7, 12, &"9".repeat(256), &[])).unwrap().peer, None);
        let mut wild = record(7, 12, "", &[]);
        wild[HOST..HOST + 256].fill(0xff);
        assert_eq!(utmp(&wild).unwrap().peer, None);
    }

    #[test]
    fn a_file_cut_anywhere_tells_of_the_whole_records_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("utmp");
        let mut file = record(2, 0, "6.1.0", &[]);
        file.extend(record(7, 12, "", &[192, 0, 2, 9]));
        file.extend(record(7, 13, "", &[192, 0, 2, 10]));
        for length in (0..=file.len())
            .step_by(7)
            .chain([RECORD, 2 * RECORD, file.len()])
        {
            fs::write(&path, &file[..length]).unwrap();
            let whole = (length / RECORD).checked_sub(1);
            assert_eq!(
                of_utmp(std::slice::from_ref(&path)).map(|found| found.len()),
                whole,
                "{length}"
            );
        }
        let (none, fifo) = (folder.path().join("none"), folder.path().join("fifo"));
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(
            of_utmp(&[none, folder.path().to_owned(), fifo, path])
                .unwrap()
                .len(),
            2
        );
    }

    const SESSION: &str = "# This is private data. Do not parse.\nUID=0\nUSER=root\nACTIVE=1\nSTATE=active\nREMOTE=1\n\
                           TYPE=tty\nCLASS=user\nSCOPE=session-3.scope\nREMOTE_HOST=192.0.2.9\nSERVICE=sshd\n\
                           LEADER=4711\nREALTIME=1\n";

    #[test]
    fn sessions_of_logind_are_read() {
        assert_eq!(logind(SESSION.as_bytes()), login(4711, "192.0.2.9"));
        for (from, to) in [
            ("active", "closing"),
            ("sshd", "login"),
            ("REMOTE=1", "REMOTE=0"),
            ("4711", "-1"),
        ] {
            assert_eq!(logind(SESSION.replace(from, to).as_bytes()), None, "{to}");
        }
        let named = logind(SESSION.replace("192.0.2.9", "host.example").as_bytes()).unwrap();
        assert_eq!(named.peer, None);
        for end in 0..SESSION.len() {
            let _ = logind(&SESSION.as_bytes()[..end]);
        }
        assert_eq!(logind(&[0xff; 1000]), None);
    }

    #[test]
    fn an_empty_directory_of_logind_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_logind(&folder.path().join("none")), None);
        assert_eq!(of_logind(folder.path()), None);
        fs::write(folder.path().join("3.ref"), SESSION).unwrap();
        assert_eq!(of_logind(folder.path()), None);
        fs::write(folder.path().join("c1"), "SERVICE=gdm\nLEADER=1\n").unwrap();
        assert_eq!(of_logind(folder.path()), Some(Vec::new()));
        fs::write(folder.path().join("3"), SESSION).unwrap();
        assert_eq!(
            of_logind(folder.path()).unwrap(),
            [login(4711, "192.0.2.9").unwrap()]
        );
    }
}
