//! A Debian of its own: a root that is thrown away, with its own network, processes and mounts. What happens in it
//! reaches nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::command::{Output, run};
use crate::common::{secs, within};

/// Runs until it is dropped.
pub(crate) struct Host {
    outer: Child,
    /// Its first process, as we number it.
    init: u32,
    /// Where its root is mounted, in its own mounts alone.
    _folder: tempfile::TempDir,
}

impl Host {
    /// A freshly installed Debian, with the packages that were built below /debs.
    pub(crate) fn new() -> Host {
        assert!(
            rustix::process::geteuid().is_root(),
            "run it as root: sudo make test"
        );
        let folder = tempfile::Builder::new().prefix("vd-package-").tempdir().unwrap();
        let base = crate::debs::base();
        let outer = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
            ])
            .args(["sh", "-ec", ROOT, "sh"])
            .arg(folder.path())
            .arg(base)
            .arg(crate::debs::folder())
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare of util-linux");
        let mut host = Host {
            outer,
            init: 0,
            _folder: folder,
        };
        let ready = within(secs(60), || {
            host.init = host.child().unwrap_or(0);
            host.init != 0 && host.path("/tmp/.up").exists()
        });
        assert!(ready, "the host did not start");
        host
    }

    fn child(&self) -> Option<u32> {
        let pid = self.outer.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A shell's answer to `script`.
    pub(crate) fn sh(&self, script: &str) -> Output {
        self.enter(&["sh", "-c", script])
    }

    fn enter(&self, command: &[&str]) -> Output {
        let mut entering = Command::new("nsenter");
        entering
            .args([
                "--target",
                &self.init.to_string(),
                "--mount",
                "--net",
                "--pid",
                "--root",
                "--wd",
            ])
            .args([
                "env",
                "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root",
            ])
            .args(["LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"])
            .args(command);
        run(&mut entering, secs(120))
    }

    /// What `script` prints, which must succeed.
    #[track_caller]
    pub(crate) fn must(&self, script: &str) -> String {
        let output = self.sh(script);
        assert_eq!(output.code(), 0, "{script}: {}", output.text());
        output.text()
    }

    /// dpkg with `arguments`, which must succeed; what it and the packages' scripts say.
    #[track_caller]
    pub(crate) fn dpkg(&self, arguments: &str) -> String {
        self.must(&format!("dpkg {arguments} </dev/null"))
    }

    /// Whether `script` succeeds.
    pub(crate) fn holds(&self, script: &str) -> bool {
        self.sh(script).code() == 0
    }

    /// Every file with owner and mode, but for what dpkg and the account tools keep themselves.
    pub(crate) fn files(&self) -> Vec<String> {
        let all = self.must(
            "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -path /debs -prune -o \
             -path /tmp -prune -o -printf '%p %u:%g %m\\n' | sort",
        );
        let kept = [
            "/var/lib/dpkg/",
            "/etc/passwd",
            "/etc/group",
            "/etc/shadow",
            "/etc/gshadow",
            "/var/log/dpkg.log",
            "/etc/.pwd.lock",
        ];
        let ours = |line: &&str| !kept.iter().any(|kept| line.starts_with(kept));
        all.lines().filter(ours).map(str::to_owned).collect()
    }

    /// Whether our table is in its kernel.
    pub(crate) fn has_table(&self) -> bool {
        self.holds("nft list table inet verdictd")
    }

    /// A systemd that notes what is asked of it in /tmp/asked, and has units start but those of which there is a
    /// /tmp/fails-UNIT.
    pub(crate) fn pretend_systemd(&self) {
        self.write("/usr/local/bin/systemctl", SYSTEMCTL);
        self.must(
            "chmod 755 /usr/local/bin/systemctl; mkdir -p /run/systemd/system /tmp/units; : > /tmp/asked",
        );
    }

    /// What was asked of it since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.must("cat /tmp/asked; : > /tmp/asked");
        asked.lines().map(str::to_owned).collect()
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let place = self.path(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    }

    /// Where we see a file of it.
    fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.init)).join(path.trim_start_matches('/'))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // --kill-child ends its first process with it, and with that one the kernel ends all others and unmounts.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

/// FOLDER BASE DEBS: the root, whose first process then waits.
const ROOT: &str = r#"
folder=$1; root=$1/root
mount -t tmpfs -o size=1g tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$root"
mount -t overlay -o "lowerdir=$2,upperdir=$folder/upper,workdir=$folder/work" overlay "$root"
mkdir -p "$root/debs"
mount --bind "$3" "$root/debs"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
ip link set lo up
exec chroot "$root" bash -c ': > /tmp/.up; sleep infinity & wait'
"#;

const SYSTEMCTL: &str = r#"#!/bin/sh
# What the packages' scripts ask, as systemd would answer.
while :; do
    case "$1" in
        --property) property=$2; shift 2 ;;
        --property=*) property=${1#*=}; shift ;;
        --*) shift ;;
        *) break ;;
    esac
done
verb=$1
shift
quiet=
for word; do
    case "$word" in --property=*) property=${word#*=} ;; --property) property=next ;; --*) ;; *)
        if [ "$property" = next ]; then property=$word; else units="$units $word"; fi ;;
    esac
done
case "$verb" in start | stop | restart | daemon-reload) echo "$verb$units" >> /tmp/asked ;; esac
code=0
for unit in $units; do
    case "$verb" in
        start | restart)
            if [ -e "/tmp/fails-$unit" ]; then echo failed > "/tmp/units/$unit"; code=1
            else echo active > "/tmp/units/$unit"; fi ;;
        stop) echo inactive > "/tmp/units/$unit" ;;
        is-enabled) [ ! -e "/tmp/disabled-$unit" ] && echo enabled || { echo disabled; code=1; } ;;
        is-active) [ "$(cat "/tmp/units/$unit" 2>/dev/null)" = active ] || code=3 ;;
        show)
            case "$property" in
                ActiveState) cat "/tmp/units/$unit" 2>/dev/null || echo inactive ;;
                LoadState) echo loaded ;;
            esac ;;
    esac
done
exit $code
"#;
