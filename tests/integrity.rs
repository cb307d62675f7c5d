//! `verdictctl harden` and `verify` on real files as root, below a root of the test's own, beside the real sha256sum.
#![allow(clippy::unwrap_used)] // a test may

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, RenameFlags, mknodat};
use serde_json::Value;
use tempfile::TempDir;
use verdictd::cli::{self, Ask, AskError, Screen, Style};
use verdictd::control::server::{Handler, Peer, Server};
use verdictd::control::wire::{NoteKind, NoteResult, Reply, Request};
use verdictd::integrity::{Manifest, What};

#[path = "common/command.rs"]
mod command;

use command::{Output, run};

const MANIFEST: &str = "/etc/verdictd/integrity.sha256";
const CONFIG: &str = "/etc/verdictd/verdictd.toml";
const NFT: &str = "/etc/verdictd/verdictd.nft";
const BINARY: &str = "/usr/bin/verdictd";
const HELPER: &str = "/usr/lib/verdictd/seal-fits";
const UNIT: &str = "/usr/lib/systemd/system/verdictd.service";
const DROP_IN: &str = "/etc/systemd/system/verdictd.service.d/local.conf";
const SECRET: &str = "/etc/verdictd/soc.secret";
const TEXT: &str = "[firewall]\nmode = \"standard\"\n[webhooks]\nenabled = true\n[[webhooks.endpoints]]\nname = \
                    \"SOC\"\nurl = \"https://soc.example/hook\"\nsecret_file = \"/etc/verdictd/soc.secret\"\n";
const GID: u32 = 997;
const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(60);

/// A file, its dress and its content.
type Known = (PathBuf, (u32, u32, u32), Option<Vec<u8>>);

/// A small system in a folder.
struct Image(TempDir);

impl Image {
    /// With all that the package installs, owners and modes as an untidy hand left them.
    fn new() -> Image {
        let image = Image(tempfile::tempdir().unwrap());
        for (path, text) in [
            (BINARY, "engine"),
            ("/usr/bin/verdictctl", "control"),
            (HELPER, include_str!("../packaging/lib/seal-fits")),
            (UNIT, "[Service]\nExecStart=/usr/bin/verdictd run\n"),
            (DROP_IN, "[Service]\nNice=1\n"),
            (CONFIG, TEXT),
            (NFT, "table inet verdictd {}\n"),
            (SECRET, "hush\n"),
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nverdictd:x:998:997::/:/bin/false\n",
            ),
            ("/etc/group", "root:x:0:\nverdictd:x:997:\n"),
        ] {
            image.put(path, text);
        }
        fs::create_dir_all(image.at("/var/lib/verdictd")).unwrap();
        symlink("usr/lib", image.at("/lib")).unwrap();
        image
    }

    fn sealed() -> Image {
        let image = Image::new();
        image.harden(&[]).ends(0);
        image
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
    }

    /// Mode, owner and group.
    fn dress(&self, path: &str) -> (u32, u32, u32) {
        let metadata = fs::symlink_metadata(self.at(path)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    }

    fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
        command.args([verb, "--root"]).arg(self.0.path()).args(args);
        command
    }

    fn harden(&self, args: &[&str]) -> Ran {
        Ran(run(&mut self.command("harden", args), LIMIT))
    }

    fn verify(&self) -> Ran {
        Ran(run(&mut self.command("verify", &[]), LIMIT))
    }

    /// Every file with its dress and content, to see whether anything changed.
    fn everything(&self) -> Vec<Known> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                let content = metadata.is_file().then(|| fs::read(&path).unwrap());
                let dress = (metadata.mode(), metadata.uid(), metadata.gid());
                found.push((path, dress, content));
            }
        }
        found.sort();
        found
    }

    /// What the library finds, as the monitor asks it.
    fn mismatches(&self) -> Vec<(String, What)> {
        let manifest = Manifest::load_in(self.0.path(), Path::new(MANIFEST)).unwrap();
        let found = manifest.verify().into_iter();
        found
            .map(|mismatch| (mismatch.path.to_string_lossy().into_owned(), mismatch.what))
            .collect()
    }
}

struct Ran(Output);

impl Ran {
    #[track_caller]
    fn ends(self, code: i32) -> Ran {
        assert_eq!(self.0.code(), code, "{}", self.0.text());
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Ran {
        let text = self.0.text();
        for word in words {
            assert!(text.contains(word), "no \"{word}\" in: {text}");
        }
        self
    }
}

#[test]
fn owners_and_modes_are_set_and_told_and_the_seal_is_sound() {
    let image = Image::new();
    image.mode(BINARY, 0o777);
    chown(image.at(CONFIG), Some(NOBODY), Some(NOBODY)).unwrap();
    image.harden(&[]).ends(0).says(&[
        "/usr/bin/verdictd: mode 0777 -> 0755\n",
        "/etc/verdictd/verdictd.toml: mode 0644 -> 0640, owner 65534:65534 -> root:verdictd\n",
        "nothing was sealed before",
        "SEALED: 3 binaries, 2 units, 1 folder, 1 config, 1 nft, 1 secret in /etc/verdictd/integrity.sha256",
    ]);
    for (path, dress) in [
        (BINARY, (0o755, 0, 0)),
        ("/usr/bin/verdictctl", (0o755, 0, 0)),
        (UNIT, (0o644, 0, 0)),
        (DROP_IN, (0o644, 0, 0)),
        (CONFIG, (0o640, 0, GID)),
        (NFT, (0o640, 0, GID)),
        (SECRET, (0o640, 0, GID)),
        ("/etc/verdictd", (0o750, 0, GID)),
        ("/var/lib/verdictd", (0o750, 998, GID)),
        (MANIFEST, (0o644, 0, 0)),
    ] {
        assert_eq!(image.dress(path), dress, "{path}");
    }
    image.verify().ends(0).says(&["SOUND: 9 files as sealed"]);
    // Once more: nothing to do, and the same bytes.
    let before = image.everything();
    image
        .harden(&[])
        .ends(0)
        .says(&["owners and modes: 0 to change, 10 right already"]);
    assert_eq!(image.everything(), before);
    let quiet = image.harden(&["--quiet", "--yes"]).ends(0);
    assert_eq!(quiet.0.text(), "");
}

/// The program itself and its libraries, copied below the image, so that it sees the paths that the manifest names.
#[test]
fn the_real_sha256sum_reads_the_manifest() {
    let image = Image::sealed();
    let libraries = run(Command::new("ldd").arg("/usr/bin/sha256sum"), LIMIT).stdout;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/usr/bin/sha256sum"]) {
        let to = image.at(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    let sum = || {
        let mut command = Command::new("chroot");
        command.arg(image.0.path());
        command.args(["/usr/bin/sha256sum", "-c", "--strict", MANIFEST]);
        run(&mut command, LIMIT)
    };
    let good = sum();
    assert_eq!(good.code(), 0, "{}", good.text());
    assert_eq!(
        (good.stdout.lines().count(), good.stderr.as_str()),
        (7, ""),
        "{}",
        good.text()
    );
    image.put(NFT, "table inet verdictd { }\n");
    let bad = sum();
    assert!(
        bad.code() == 1 && bad.stdout.contains("verdictd.nft: FAILED"),
        "{}",
        bad.text()
    );
}

#[test]
fn a_flipped_byte_is_named_in_every_kind_of_file() {
    let image = Image::sealed();
    for path in [BINARY, HELPER, UNIT, DROP_IN, CONFIG, NFT] {
        let right = fs::read(image.at(path)).unwrap();
        let mut flipped = right.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(image.at(path), flipped).unwrap();
        assert_eq!(image.mismatches(), [(path.to_owned(), What::Changed)]);
        image.verify().ends(1).says(&[
            &format!("{path} was changed: its sha256 is "),
            "if the change was yours",
        ]);
        // Longer, too: told by its size alone.
        fs::write(image.at(path), [&right[..], b"x"].concat()).unwrap();
        image.verify().ends(1).says(&[path, " bytes, sealed was "]);
        fs::write(image.at(path), right).unwrap();
    }
    image.verify().ends(0);
    // What is in a secret is not sealed: it is changed on purpose, and a hash of it would help to guess it.
    image.put(SECRET, "another\n");
    image.verify().ends(0);
    assert!(!image.read(MANIFEST).contains(&format!("  {SECRET}")));
}

/// What the units do before they start a program: coreutils compare it, which are not what they compare. An edited
/// configuration, or a mode, must not keep a host without its engine.
#[test]
fn units_start_no_program_that_is_another() {
    for unit in ["verdictd", "verdictd-restore", "verdictd-monitor"] {
        let path = format!("{}/packaging/systemd/{unit}.service", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).unwrap();
        let first = text.lines().find_map(|line| line.strip_prefix("ExecStartPre="));
        assert_eq!(first.unwrap().trim_start_matches('+'), HELPER, "{unit}");
    }
    let image = Image::new();
    image.mode(HELPER, 0o755);
    let starts = || {
        let mut command = Command::new("chroot");
        command.arg(image.0.path()).args(["/bin/sh", HELPER]);
        run(&mut command, LIMIT).code() == 0
    };
    for program in ["/bin/sh", "/usr/bin/grep", "/usr/bin/sha256sum"] {
        bring(&image, program);
    }
    assert!(starts(), "nothing was sealed");
    image.harden(&[]).ends(0);
    assert!(starts());
    image.put(CONFIG, "another");
    image.mode(BINARY, 0o775);
    assert!(starts(), "that is the monitor's to tell");
    for program in [BINARY, "/usr/bin/verdictctl"] {
        let text = image.read(program);
        image.put(program, "another");
        assert!(!starts(), "{program}");
        image.put(program, &text);
        assert!(starts());
    }
    image.put(MANIFEST, "");
    assert!(!starts(), "an emptied manifest is none");
}

/// A program of this system and what it loads, at the same places.
fn bring(image: &Image, program: &str) {
    let told = run(Command::new("ldd").arg(program), LIMIT);
    let loads = told
        .stdout
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for path in loads.chain([program]) {
        let there = image.at(path);
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::copy(path, there).unwrap();
    }
}

#[test]
fn whatever_stands_in_the_place_of_a_file_is_named() {
    let image = Image::sealed();
    let (at, aside) = (image.at(BINARY), image.at("/usr/bin/aside"));
    fs::rename(&at, &aside).unwrap();
    let found = || image.mismatches();
    assert_eq!(found(), [(BINARY.to_owned(), What::Missing)]);
    // The very same content behind a link is not the file.
    symlink("/usr/bin/aside", &at).unwrap();
    assert_eq!(found(), [(BINARY.to_owned(), What::Symlink)]);
    image
        .verify()
        .ends(1)
        .says(&["is a symbolic link to \"/usr/bin/aside\""]);
    fs::remove_file(&at).unwrap();
    // A fifo would hold whoever opens it.
    mknodat(CWD, &at, FileType::Fifo, 0o755.into(), 0).unwrap();
    assert_eq!(found(), [(BINARY.to_owned(), What::NotPlain)]);
    image.verify().ends(1).says(&["/usr/bin/verdictd is a pipe"]);
    fs::remove_file(&at).unwrap();
    let socket = UnixListener::bind(&at).unwrap();
    assert_eq!(found(), [(BINARY.to_owned(), What::NotPlain)]);
    drop(socket);
    fs::remove_file(&at).unwrap();
    fs::create_dir(&at).unwrap();
    assert_eq!(found(), [(BINARY.to_owned(), What::NotPlain)]);
    fs::remove_dir(&at).unwrap();
    // /dev/zero has no end.
    mknodat(
        CWD,
        &at,
        FileType::CharacterDevice,
        0o755.into(),
        rustix::fs::makedev(1, 5),
    )
    .unwrap();
    assert_eq!(found(), [(BINARY.to_owned(), What::NotPlain)]);
    fs::remove_file(&at).unwrap();
    // Another file's second name: its content gives it away.
    fs::hard_link(image.at("/usr/bin/verdictctl"), &at).unwrap();
    assert_eq!(found(), [(BINARY.to_owned(), What::Changed)]);
    fs::remove_file(&at).unwrap();
    fs::rename(&aside, &at).unwrap();
    image.verify().ends(0);
}

#[test]
fn owner_mode_and_folders_are_part_of_the_seal() {
    let image = Image::sealed();
    image.mode(CONFIG, 0o666);
    assert_eq!(image.mismatches(), [(CONFIG.to_owned(), What::Mode)]);
    image.verify().ends(1).says(&["has mode 0666, sealed was 0640"]);
    image.mode(CONFIG, 0o640);
    chown(image.at(SECRET), Some(NOBODY), None).unwrap();
    assert_eq!(image.mismatches(), [(SECRET.to_owned(), What::Owner)]);
    image
        .verify()
        .ends(1)
        .says(&["belongs to 65534:verdictd, sealed was root:verdictd"]);
    chown(image.at(SECRET), Some(0), None).unwrap();
    image.mode(BINARY, 0o4755);
    assert_eq!(image.mismatches(), [(BINARY.to_owned(), What::Mode)]);
    image.mode(BINARY, 0o755);
    image.mode("/usr", 0o1777);
    assert_eq!(image.mismatches(), [("/usr".to_owned(), What::Loose)]);
    image.mode("/usr", 0o755);
    // A drop-in can have another program started, or something loaded into ours; also one that is for every service, or
    // for this boot alone.
    for evil in [
        "/etc/systemd/system/verdictd-monitor.service.d/x.conf",
        "/etc/systemd/system/service.d/x.conf",
        "/run/systemd/system/verdictd.service.d/x.conf",
        "/run/systemd/system.control/verdictd.service",
        "/etc/ld.so.preload",
    ] {
        image.put(evil, "/tmp/evil.so\n");
        assert_eq!(image.mismatches(), [(evil.to_owned(), What::Added)]);
        image.verify().ends(1).says(&[evil, "was added"]);
        fs::remove_file(image.at(evil)).unwrap();
    }
    image.verify().ends(0);
}

#[test]
fn what_is_for_one_boot_is_sealed_for_one_boot() {
    let image = Image::new();
    let now = "/run/systemd/system/verdictd.service.d/x.conf";
    image.put(now, "[Service]\nNice=1\n");
    image.put("/etc/ld.so.preload", "/usr/lib/ours.so\n");
    image.harden(&[]).ends(0);
    image.put(now, "[Service]\nNice=2\n");
    image.put("/etc/ld.so.preload", "/usr/lib/evil.so\n");
    let changed = [now, "/etc/ld.so.preload"].map(|path| (path.to_owned(), What::Changed));
    assert_eq!(image.mismatches(), changed);
    image.put("/etc/ld.so.preload", "/usr/lib/ours.so\n");
    fs::remove_dir_all(image.at("/run")).unwrap();
    image.verify().ends(0);
    fs::remove_file(image.at("/etc/ld.so.preload")).unwrap();
    assert_eq!(
        image.mismatches(),
        [("/etc/ld.so.preload".to_owned(), What::Missing)]
    );
}

#[test]
fn a_manifest_that_is_no_good_is_refused_with_exit_2() {
    let image = Image::sealed();
    let good = image.read(MANIFEST);
    let refused = |words: &[&str]| {
        image.verify().ends(2).says(words).says(&["verdictctl harden"]);
    };
    fs::remove_file(image.at(MANIFEST)).unwrap();
    refused(&["there is no manifest at \"/etc/verdictd/integrity.sha256\""]);
    for (text, says) in [
        (String::new(), "line 1"),
        ("garbage\n".repeat(10), "line 1: \"garbage\""),
        (good.replacen("/usr/bin", "/usr/../bin", 1), "line 4: the path"),
        (
            good.replacen("0755", "0777", 1),
            "line 3: mode 0777 lets others write",
        ),
        (good.clone() + &"#\n".repeat(1 << 19), "larger than 1 MiB"),
    ] {
        image.put(MANIFEST, &text);
        image.mode(MANIFEST, 0o644);
        refused(&[says]);
    }
    image.put(MANIFEST, &good);
    image.mode(MANIFEST, 0o664);
    refused(&["0664 lets others write"]);
    image.mode(MANIFEST, 0o644);
    chown(image.at(MANIFEST), Some(NOBODY), None).unwrap();
    refused(&["it belongs to uid 65534"]);
    chown(image.at(MANIFEST), Some(0), None).unwrap();
    image.verify().ends(0);
    fs::rename(image.at(MANIFEST), image.at("/etc/aside")).unwrap();
    symlink("/etc/aside", image.at(MANIFEST)).unwrap();
    refused(&["it is a symbolic link"]);
    fs::remove_file(image.at(MANIFEST)).unwrap();
    mknodat(CWD, image.at(MANIFEST), FileType::Fifo, 0o644.into(), 0).unwrap();
    refused(&["it is a pipe"]);
    // Nor does harden take it for what was sealed before, or wait for it.
    image
        .harden(&[])
        .ends(1)
        .says(&["says nothing of what was sealed before", "say --yes"]);
    image.harden(&["--yes"]).ends(0);
    image.verify().ends(0);
}

#[test]
fn a_change_is_sealed_only_by_somebody_who_says_so() {
    let image = Image::sealed();
    let sealed = image.read(MANIFEST);
    image.put(CONFIG, &TEXT.replace("standard", "lenient"));
    image.put("/etc/systemd/system/verdictd.service", "[Service]\n");
    fs::remove_file(image.at(HELPER)).unwrap();
    let before = image.everything();
    let shown = [
        "/etc/verdictd/verdictd.toml: was changed",
        "/etc/systemd/system/verdictd.service: is new",
        "/usr/lib/verdictd/seal-fits: was sealed, and is gone",
    ];
    image.harden(&[]).ends(1).says(&shown).says(&["say --yes"]);
    image.harden(&["--quiet"]).ends(1).says(&shown);
    image
        .harden(&["--dry-run"])
        .ends(0)
        .says(&shown)
        .says(&["nothing was changed"]);
    assert_eq!(
        (image.everything(), image.read(MANIFEST)),
        (before, sealed.clone())
    );
    for (answer, code) in [(Ok(false), 1), (Err(AskError::Cancelled), 1), (Ok(true), 0)] {
        let (exit, asked) = answered(&image, answer);
        assert!(asked.contains("3 differences"), "{asked}");
        assert_eq!(exit, code);
        assert_eq!(image.read(MANIFEST) == sealed, code == 1);
    }
    image.verify().ends(0);
    assert_eq!(answered(&image, Ok(true)).1, "", "asked without a difference");
}

/// `harden` on a terminal on which somebody answers so; how it ended, and what was asked.
fn answered(image: &Image, answer: Result<bool, AskError>) -> (i32, String) {
    struct Answer(Result<bool, AskError>, String);
    impl Ask for Answer {
        fn one(&mut self, _: &str, _: &[String]) -> Result<usize, AskError> {
            Err(AskError::NoTerminal)
        }
        fn several(&mut self, _: &str, _: &[String], _: &[usize]) -> Result<Vec<usize>, AskError> {
            Err(AskError::NoTerminal)
        }
        fn text(&mut self, _: &str, _: &str) -> Result<String, AskError> {
            Err(AskError::NoTerminal)
        }
        fn yes(&mut self, question: &str, default: bool) -> Result<bool, AskError> {
            assert!(!default);
            self.1 = question.into();
            self.0.clone()
        }
    }
    let mut answer = Answer(answer, String::new());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let screen = Screen {
        out: &mut out,
        err: &mut err,
        style: Style::default(),
    };
    let args = ["verdictctl", "harden", "--root"].map(OsString::from);
    let args = args.into_iter().chain([image.0.path().into()]);
    let exit = cli::run(args, screen, &mut answer);
    (exit as i32, answer.1)
}

#[test]
fn what_stands_against_a_seal_is_named_all_at_once_and_nothing_is_changed() {
    let image = Image::new();
    image.put("/etc/shadow", "root:x\n");
    image.mode("/etc/shadow", 0o600);
    fs::remove_file(image.at(SECRET)).unwrap();
    fs::hard_link(image.at("/etc/shadow"), image.at(SECRET)).unwrap();
    fs::remove_file(image.at("/usr/bin/verdictctl")).unwrap();
    fs::rename(image.at(UNIT), image.at("/usr/lib/elsewhere")).unwrap();
    symlink("/usr/lib/elsewhere", image.at(UNIT)).unwrap();
    image.mode("/usr/bin", 0o775);
    chown(image.at("/etc/systemd"), Some(NOBODY), None).unwrap();
    let before = image.everything();
    let problems = [
        "nothing was changed, this has to be put right first",
        "\"/usr/bin/verdictctl\" is missing",
        "\"/usr/lib/systemd/system/verdictd.service\" is a symbolic link to \"/usr/lib/elsewhere\"",
        "\"/etc/verdictd/soc.secret\" has a second name",
        "\"/usr/bin\": its mode is 0775: others than root",
        "\"/etc/systemd\": it belongs to uid 65534",
    ];
    for args in [&["--yes"][..], &["--yes", "--force"], &["--dry-run"]] {
        image.harden(args).ends(1).says(&problems);
    }
    assert_eq!(image.everything(), before);
}

#[test]
fn a_config_that_does_not_load_is_not_sealed() {
    let image = Image::new();
    image.put(CONFIG, "[firewall]\nmode = \"strict\"\nfoo = 1\n");
    let before = image.everything();
    image
        .harden(&[])
        .ends(2)
        .says(&["/etc/verdictd/verdictd.toml:2:", "/etc/verdictd/verdictd.toml:3:"]);
    assert_eq!(image.everything(), before);
    image
        .harden(&["--force"])
        .ends(0)
        .says(&["does not load and is sealed all the same"]);
    image.verify().ends(0);
    fs::remove_file(image.at(CONFIG)).unwrap();
    image
        .harden(&["--yes"])
        .ends(1)
        .says(&["name the configuration with --config"]);
}

#[test]
fn a_config_cannot_have_files_of_others_opened() {
    let image = Image::new();
    image.put("/etc/shadow", "root:x\n");
    image.mode("/etc/shadow", 0o600);
    for path in ["/etc/shadow", "/etc/verdictd/../shadow"] {
        image.put(CONFIG, &TEXT.replace(SECRET, path));
        image
            .harden(&["--yes"])
            .ends(0)
            .says(&["is not in the folder of the configuration"]);
        assert_eq!(image.dress("/etc/shadow"), (0o600, 0, 0));
        assert!(!image.read(MANIFEST).contains("shadow"));
    }
}

#[test]
fn without_the_group_nobody_but_root_reads() {
    let image = Image::new();
    image.put("/etc/group", "root:x:0:\n");
    image
        .harden(&[])
        .ends(0)
        .says(&["there is no group verdictd", "add the group"]);
    assert_eq!(image.dress(CONFIG), (0o600, 0, 0));
    assert_eq!(image.dress(SECRET), (0o600, 0, 0));
    assert_eq!(image.dress("/etc/verdictd"), (0o700, 0, 0));
    assert_eq!(image.dress("/var/lib/verdictd").1, 0);
    image.verify().ends(0);
}

#[test]
fn an_open_folder_of_ours_is_closed_and_told() {
    let image = Image::new();
    image.mode("/etc/verdictd", 0o777);
    image.harden(&[]).ends(0).says(&[
        "/etc/verdictd was open to others than root until now",
        "mode 0777 -> 0750",
    ]);
    image.verify().ends(0);
}

#[test]
fn odd_names_and_unusual_places() {
    let image = Image::new();
    let name = OsString::from_vec(b"a b\nc\\d\re\xff.conf".to_vec());
    let folder = image.at("/etc/systemd/system/verdictd.service.d");
    fs::write(folder.join(&name), "x").unwrap();
    let place = "/opt/fire wall";
    for (from, to) in [
        ("/usr/bin", format!("{place}/bin")),
        (CONFIG, format!("{place}/c.toml")),
    ] {
        fs::create_dir_all(image.at(place)).unwrap();
        fs::rename(image.at(from), image.at(&to)).unwrap();
    }
    let [config, manifest, binaries] = ["c.toml", "m.sha256", "bin"].map(|name| format!("{place}/{name}"));
    let args = [
        "--config",
        &config,
        "--manifest",
        &manifest,
        "--binaries",
        &binaries,
    ];
    image.harden(&args).ends(0);
    let verify = || {
        Ran(run(
            &mut image.command("verify", &["--manifest", &manifest]),
            LIMIT,
        ))
    };
    verify().ends(0);
    fs::write(folder.join(&name), "y").unwrap();
    let said = verify()
        .ends(1)
        .says(&["a b\\nc\\d\\re\u{fffd}.conf was changed"]);
    assert_eq!(said.0.stdout.lines().count(), 3, "one line stays one line");
    image
        .harden(&["--config", "verdictd.toml"])
        .ends(2)
        .says(&["\"verdictd.toml\" is not an absolute path"]);
    image
        .harden(&["--config", "/etc/../etc/x"])
        .ends(2)
        .says(&["is not an absolute path"]);
}

#[test]
fn scripts_get_json() {
    let image = Image::new();
    let json = |ran: &Ran| serde_json::from_str::<Value>(&ran.0.stdout).unwrap();
    image.mode(BINARY, 0o777);
    let dry = json(&image.harden(&["--json", "--dry-run"]).ends(0));
    assert_eq!((&dry["sealed"], &dry["dry_run"]), (&false.into(), &true.into()));
    let done = json(&image.harden(&["--json"]).ends(0));
    assert_eq!(done["changes"][0]["path"], BINARY);
    assert_eq!(done["changes"][0]["mode"]["from"], "0777");
    assert_eq!(done["files"].as_array().unwrap().len(), 9);
    assert_eq!(done["changes"], dry["changes"]);
    let verify = || Ran(run(&mut image.command("verify", &["--json"]), LIMIT));
    let sound = json(&verify().ends(0));
    assert_eq!((&sound["sound"], &sound["files"]), (&true.into(), &9.into()));
    image.put(NFT, "x");
    let changed = json(&verify().ends(1));
    assert_eq!(changed["mismatches"][0]["path"], NFT);
    assert_eq!(changed["mismatches"][0]["what"], "changed");
}

/// Whenever it dies, there is one whole manifest; what it left behind is in nobody's way.
#[test]
fn killed_at_any_moment_it_leaves_a_whole_manifest() {
    let image = Image::sealed();
    image.put("/etc/verdictd/integrity.sha256.new", "half of a manif");
    for turn in 0..40u64 {
        let before = image.read(MANIFEST);
        image.put(CONFIG, &format!("{TEXT}# {turn}\n"));
        image.mode(CONFIG, 0o640);
        let mut harden = image.command("harden", &["--yes"]);
        let mut child = harden
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros(turn * 500));
        let _ = child.kill();
        child.wait().unwrap();
        let after = image.read(MANIFEST);
        let whole = Manifest::parse(after.as_bytes()).unwrap();
        assert_eq!(whole.files().count(), 9);
        assert_eq!(image.dress(MANIFEST), (0o644, 0, 0));
        if after == before {
            assert_eq!(image.mismatches(), [(CONFIG.to_owned(), What::Changed)]);
        } else {
            assert_eq!(image.mismatches(), []);
        }
    }
    image.harden(&["--yes"]).ends(0);
    image.verify().ends(0);
    assert!(!image.at("/etc/verdictd/integrity.sha256.new").exists());
}

#[test]
fn only_root_seals() {
    let image = Image::new();
    image.mode("/", 0o755);
    // Where the program was built nobody else may be let in.
    let program = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let program = (program.path().join("verdictctl"), program);
    // Not by this process: a child that another thread starts meanwhile would hold it open to write, and it be "busy".
    let built = env!("CARGO_BIN_EXE_verdictctl");
    assert_eq!(
        run(Command::new("cp").arg(built).arg(&program.0), LIMIT).code(),
        0
    );
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(&program.0)
            .args(args)
            .arg("--root")
            .arg(image.0.path());
        Ran(run(&mut command, LIMIT))
    };
    let before = image.everything();
    for args in [&["harden"][..], &["harden", "--dry-run"]] {
        as_nobody(args)
            .ends(1)
            .says(&["only root can set owners and seal"]);
    }
    assert_eq!(image.everything(), before);
    image.harden(&[]).ends(0);
    as_nobody(&["verify"])
        .ends(2)
        .says(&["cannot be read", "be root"]);
}

#[test]
fn the_running_system_is_not_touched_from_a_folder_that_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("verdictd.toml");
    fs::write(&config, "").unwrap();
    let before = fs::metadata(&config).unwrap().mode();
    let manifest = folder.path().join("m");
    let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
    let args: [&OsStr; 5] = [
        "harden".as_ref(),
        "--config".as_ref(),
        config.as_ref(),
        "--manifest".as_ref(),
        manifest.as_ref(),
    ];
    let loose = fs::metadata(std::env::temp_dir()).unwrap().mode() & 0o022 != 0;
    assert!(loose, "this test wants a temporary folder that others may write");
    Ran(run(command.args(args), LIMIT))
        .ends(1)
        .says(&["others than root can put something else"]);
    assert_eq!(fs::metadata(&config).unwrap().mode(), before);
    assert!(!manifest.exists());
}

/// Whoever can write the folder may try to have the monitor wait, by something that is replaced between two looks.
#[test]
fn what_changes_between_two_looks_holds_nobody() {
    let image = Image::sealed();
    let (at, fifo, file) = (
        image.at(BINARY),
        image.at("/usr/bin/fifo"),
        image.at("/usr/bin/file"),
    );
    fs::copy(&at, &file).unwrap();
    mknodat(CWD, &fifo, FileType::Fifo, 0o755.into(), 0).unwrap();
    let done = AtomicBool::new(false);
    let manifest = Manifest::load_in(image.0.path(), Path::new(MANIFEST)).unwrap();
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                for next in [&fifo, &file] {
                    rustix::fs::renameat_with(CWD, next, CWD, &at, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        for _ in 0..500 {
            let found = manifest.verify();
            assert!(
                found.iter().all(|mismatch| mismatch.path == Path::new(BINARY)),
                "{found:?}"
            );
        }
        done.store(true, Relaxed);
    });
    assert!(started.elapsed() < LIMIT);
}

/// Notes that somebody wants in the audit log.
#[derive(Default)]
struct Notes(Mutex<Vec<(NoteKind, NoteResult, String)>>);

impl Handler for Notes {
    fn handle(&self, request: Request, _: Peer) -> Reply {
        if let Request::AuditNote { kind, result, detail } = request {
            self.0.lock().unwrap().push((kind, result, detail));
        }
        Reply::Noted { written: true }
    }
}

#[test]
fn a_running_engine_is_told_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let [file, manifest, socket] = ["x\ny", "m", "s"].map(|name| folder.path().join(name));
    fs::write(&file, "a").unwrap();
    let sums = run(Command::new("sha256sum").arg(&file), LIMIT).stdout;
    fs::write(&manifest, sums).unwrap();
    fs::write(&file, "b").unwrap();
    let notes = Arc::new(Notes::default());
    let server = Server::start(&socket, Arc::clone(&notes) as Arc<dyn Handler>).unwrap();
    let verify = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verdictctl"));
        command
            .arg("--socket")
            .arg(&socket)
            .args(["verify", "--manifest"])
            .arg(&manifest);
        Ran(run(&mut command, LIMIT)).ends(1).says(&["x\\ny was changed"])
    };
    verify();
    server.stop();
    let notes = notes.0.lock().unwrap();
    let [(NoteKind::Integrity, NoteResult::Failed, detail)] = &notes[..] else {
        panic!("{notes:?}");
    };
    assert!(detail.contains("x\\ny was changed: "), "{detail}");
    // Without an engine it is said here, and that is all.
    let said = verify();
    assert_eq!(said.0.stderr, "");
    assert!(BufReader::new(said.0.stdout.as_bytes()).lines().count() >= 3);
}

/// The running system, as far as it is `/`: programs and configuration lie on a disk that only this run sees.
#[test]
fn the_running_system_is_sealed_and_its_engine_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let notes = Arc::new(Notes::default());
    let server = Server::start(&socket, Arc::clone(&notes) as Arc<dyn Handler>).unwrap();
    let script = r#"
        set -e
        mount -t tmpfs -o mode=755 none /opt
        cp "$1" /opt/verdictctl; echo engine > /opt/verdictd; chmod 777 /opt/verdictd; : > /opt/verdictd.toml
        seal() { /opt/verdictctl --socket "$2" harden --config /opt/verdictd.toml --manifest /opt/manifest "$3"; }
        seal "$1" "$2" --quiet
        sha256sum -c --strict --quiet /opt/manifest
        /opt/verdictctl --socket "$2" verify --manifest /opt/manifest
        echo ENGINE > /opt/verdictd
        /opt/verdictctl --socket "$2" verify --manifest /opt/manifest || echo "verify: $?"
        seal "$1" "$2" --dry-run
        seal "$1" "$2" --yes
        stat -c "%a %u" /opt/verdictd /opt/manifest
    "#;
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        env!("CARGO_BIN_EXE_verdictctl"),
    ]);
    let ran = Ran(run(command.arg(&socket), LIMIT)).ends(0);
    ran.says(&[
        "SOUND: 3 files",
        "/opt/verdictd was changed",
        "verify: 1",
        "SEALED: 2 binaries",
        "755 0\n644 0\n",
    ]);
    server.stop();
    let notes = notes.0.lock().unwrap();
    let told: Vec<(NoteResult, &str)> = notes
        .iter()
        .map(|(_, result, detail)| (*result, detail.get(..20).unwrap_or(detail.as_str())))
        .collect();
    assert_eq!(
        told,
        [
            (NoteResult::Ok, "harden: sealed 2 bin"),
            (NoteResult::Ok, "3 files as sealed"),
            (NoteResult::Failed, "/opt/verdictd was ch"),
            (NoteResult::Ok, "harden: sealed 2 bin"),
        ]
    );
    assert!(
        notes[3].2.contains("accepted: /opt/verdictd: was changed"),
        "{}",
        notes[3].2
    );
}
