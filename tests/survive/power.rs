//! A power cut: what the block device has when the page cache is gone.
//!
//! The state is on ext4 in a file behind a loop device. What was written to that device is in the file; what ext4 still
//! holds back (it is told to hold back all it may) is not. A copy of the file is therefore what a disk has after a power
//! cut, and it is mounted, with the replay of its journal, and read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::command::run;
use crate::common::{count, secs, within};
use crate::kills::{Listened, World};
use crate::mounts::Mounts;
use crate::points::{Injection, draw, seed_of};
use crate::subject::files;
use crate::writer::writer;

/// A disk that can lose its power.
pub(crate) struct Disk {
    pub(crate) mounts: Mounts,
    images: tempfile::TempDir,
    at: PathBuf,
    current: u32,
}

impl Disk {
    /// One that is mounted at `at`.
    pub(crate) fn new(at: &Path) -> Disk {
        let mounts = Mounts::new();
        let images = tempfile::tempdir().unwrap();
        let folder = images.path().to_str().unwrap();
        mounts.must("mount", &["-t", "tmpfs", "-o", "size=64m", "images", folder]);
        let disk = Disk {
            mounts,
            images,
            at: at.into(),
            current: 0,
        };
        disk.mounts.must("truncate", &["-s", "16M", &disk.image(0)]);
        let format = [
            "-q",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            &disk.image(0),
        ];
        disk.mounts.must("mkfs.ext4", &format);
        disk.mount();
        disk
    }

    /// Nothing of what is done to the file system from now on is kept, nor what it had not written.
    pub(crate) fn cut_power(&mut self) {
        let [before, after] = [self.image(self.current), self.image(self.current + 1)];
        // Two copies that are equal: nothing was written while they were made, so each is of one moment.
        let [one, two] =
            [&after, &self.image(self.current + 2)].map(|image| self.mounts.see(Path::new(image)));
        let copied = (0..50).any(|_| {
            let copies = [&one, &two].map(|copy| {
                fs::copy(self.mounts.see(Path::new(&before)), copy).unwrap();
                fs::read(copy).unwrap()
            });
            copies[0] == copies[1]
        });
        assert!(copied, "the device is written to without end");
        // What another test forks has the files open that we read, until its exec.
        let mut unmount = self.mounts.inside(Command::new("umount").arg(&self.at));
        let unmounted = within(secs(20), || run(&mut unmount, secs(20)).status.success());
        assert!(unmounted, "the file system is in use without end");
        fs::remove_file(self.mounts.see(Path::new(&before))).unwrap();
        fs::remove_file(two).unwrap();
        self.current += 1;
        self.mount();
    }

    /// The folder as we see it.
    pub(crate) fn folder(&self) -> PathBuf {
        self.mounts.see(&self.at)
    }

    fn mount(&self) {
        // Nothing is written before it must be: neither every five seconds nor because of a rename (ext4(5)).
        let options = "loop,commit=300,noauto_da_alloc";
        let at = self.at.to_str().unwrap();
        self.mounts.must(
            "mount",
            &["-t", "ext4", "-o", options, &self.image(self.current), at],
        );
    }

    fn image(&self, number: u32) -> String {
        format!("{}/{number}", self.images.path().display())
    }
}

#[test]
fn what_was_synced_outlives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(folder.path());
    let mut world = World::default();
    let (begun, rounds, mut pulled) = (Instant::now(), count(60, 1500), 0);
    for round in 0..rounds {
        let mut seed = seed_of(round);
        let mut command = writer(folder.path(), round, 100_000);
        let mut after = None;
        match draw(&mut seed, 3) {
            0 => {
                after = Some((
                    1 + draw(&mut seed, 150),
                    Duration::from_micros(draw(&mut seed, 1500)),
                ))
            }
            // Between a call and the next one, where the folder and the file are at odds.
            _ => {
                let calls = [
                    "fsync",
                    "fdatasync",
                    "renameat",
                    "linkat",
                    "unlinkat",
                    "openat",
                    "write",
                ];
                let call = calls[draw(&mut seed, calls.len() as u64) as usize];
                let nth = 1 + draw(&mut seed, 20) as usize;
                let paths: Vec<_> = files(disk.folder(), 8);
                let paths: Vec<_> = paths
                    .iter()
                    .filter_map(|path| Some(folder.path().join(path.strip_prefix(disk.folder()).ok()?)))
                    .collect();
                command = Injection::kill(call, nth, &paths).around(&command);
                after = after.or(Some((400, Duration::ZERO)));
            }
        }
        let mut command = disk.mounts.inside(&command);
        let ended = Listened::start(&mut command).hear(&mut world, after);
        pulled += usize::from(!ended);
        disk.cut_power();
        let broken = world.broken(&disk.folder(), true);
        assert!(broken.is_empty(), "round {round}, {command:?}\n{broken}");
        world.lost_power();
    }
    println!(
        "power cut {pulled} times in {rounds} rounds, {} snapshots, {} promises kept, {:.1} s",
        world.snapshots(),
        world.promised(),
        begun.elapsed().as_secs_f64()
    );
}
