//! A look at everything that the seal covers: what is there, what it should be, and what stands against sealing it.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Change, Options, SealError, Turn};
use crate::audit::chain::Hash;
use crate::config::{self, Config};
use crate::files::identity;
use crate::integrity::accounts::Accounts;
use crate::integrity::files::{
    self, ACCOUNT, BINARIES, Kind, NFT_FILE, OWN_FOLDER, PRELOAD, WRITTEN_FOLDERS,
};
use crate::integrity::manifest::Dress;
use crate::integrity::root::{Odd, Root};
use crate::webhook::config::SecretSource;

/// A file or folder, open.
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// `None`: its owner is set, and it is no part of the seal.
    pub(super) kind: Option<Kind>,
    pub(super) now: Dress,
    pub(super) right: Dress,
    /// Hash and size, where the content is sealed.
    pub(super) sealed: Option<(Hash, u64)>,
    which: (u64, u64),
}

/// What was found.
pub(super) struct Survey<'a> {
    root: &'a Root,
    accounts: Accounts,
    pub(super) items: Vec<Item>,
    pub(super) notes: Vec<String>,
    problems: Vec<String>,
}

impl<'a> Survey<'a> {
    pub(super) fn of(root: &'a Root, options: &Options) -> Result<Survey<'a>, SealError> {
        let mut survey = Survey {
            root,
            accounts: Accounts::read(root),
            items: Vec::new(),
            notes: Vec::new(),
            problems: Vec::new(),
        };
        survey.accounts_there();
        survey.binaries(&options.binaries);
        survey.units();
        survey.optional(Path::new(PRELOAD), Kind::Loader);
        survey.own_folder();
        let config = survey.config(options)?;
        survey.optional(Path::new(NFT_FILE), Kind::Nft);
        if let Some(config) = config {
            survey.secrets(&config, options);
        }
        survey.written_folders();
        survey.ways(&options.manifest);
        match survey.problems.is_empty() {
            true => Ok(survey),
            false => Err(SealError::Problems(survey.problems)),
        }
    }

    /// Owners and modes that are not as they should be.
    pub(super) fn changes(&self) -> Vec<Change> {
        let wrong = self.items.iter().filter(|item| item.now != item.right);
        let change = |item: &Item| {
            let (now, right) = (item.now, item.right);
            let mode =
                (now.mode != right.mode).then(|| [now, right].map(|dress| format!("{:04o}", dress.mode)));
            let owner = ((now.uid, now.gid) != (right.uid, right.gid))
                .then(|| [now, right].map(|dress| self.accounts.pair(dress.uid, dress.gid)));
            Change {
                path: item.path.clone(),
                mode: mode.map(|[from, to]| Turn { from, to }),
                owner: owner.map(|[from, to]| Turn { from, to }),
            }
        };
        wrong.map(change).collect()
    }

    /// Without the group nobody but root may read what it would: closed, and the engine has to run as root.
    fn accounts_there(&mut self) {
        if self.accounts.group(ACCOUNT).is_none() {
            self.notes.push(format!(
                "there is no group {ACCOUNT}: configuration and secrets are for root alone (0600), and an engine that is \
                 not root cannot read them; add the group, then run verdictctl harden again"
            ));
        }
    }

    fn binaries(&mut self, folder: &Path) {
        for name in BINARIES {
            self.add(&folder.join(name), Kind::Binary);
        }
        match files::helpers(self.root) {
            Ok(helpers) => helpers.iter().for_each(|path| self.add(path, Kind::Binary)),
            Err(error) => self.problems.push(format!("helpers cannot be listed: {error}")),
        }
    }

    fn units(&mut self) {
        match files::units(self.root) {
            Ok(units) if units.is_empty() => {
                self.notes
                    .push("no unit of systemd is installed, so none is sealed".into());
            }
            Ok(units) => units.iter().for_each(|path| self.add(path, Kind::Unit)),
            Err(error) => self.problems.push(format!("units cannot be listed: {error}")),
        }
    }

    fn own_folder(&mut self) {
        let path = Path::new(OWN_FOLDER);
        match self.root.folder(path) {
            Err(Odd::Missing) => {}
            Err(odd) => self.odd(path, odd),
            Ok((folder, metadata)) => {
                if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
                    self.notes.push(format!(
                        "{OWN_FOLDER} was open to others than root until now: look at what is in it"
                    ));
                }
                self.push(path, folder, &metadata, Some(Kind::Folder), None);
            }
        }
    }

    /// What is sealed is what was parsed: it is read once.
    fn config(&mut self, options: &Options) -> Result<Option<Config>, SealError> {
        let path = &options.config;
        let read = self.root.file(path).and_then(|(file, metadata)| {
            let mut bytes = Vec::new();
            (&file).take(LARGEST_CONFIG + 1).read_to_end(&mut bytes)?;
            Ok((file, metadata, bytes))
        });
        let (file, metadata, bytes) = match read {
            Err(Odd::Missing) => {
                self.problems.push(format!(
                    "{path:?} is missing: name the configuration with --config"
                ));
                return Ok(None);
            }
            Err(odd) => {
                self.odd(path, odd);
                return Ok(None);
            }
            Ok(read) => read,
        };
        if bytes.len() as u64 > LARGEST_CONFIG {
            self.problems
                .push(format!("{path:?} is larger than 1 MiB, and no configuration is"));
            return Ok(None);
        }
        let sealed = (Hash::of(&bytes), bytes.len() as u64);
        self.push(path, file, &metadata, Some(Kind::Config), Some(sealed));
        let text = String::from_utf8_lossy(&bytes);
        match config::parse(&text, path) {
            Ok(config) => Ok(Some(config)),
            Err(error) if !options.force => Err(SealError::Config(error)),
            Err(error) => {
                self.notes.push(format!(
                    "{path:?} does not load and is sealed all the same (--force); its first problem: {}",
                    error.to_string().lines().next().unwrap_or_default()
                ));
                Ok(None)
            }
        }
    }

    /// Secrets that the configuration names, where they are ours to touch: in its folder or in [`OWN_FOLDER`]. It might
    /// name anything of this host.
    fn secrets(&mut self, config: &Config, options: &Options) {
        let ours = [options.config.parent(), Some(Path::new(OWN_FOLDER))];
        for endpoint in &config.webhooks.endpoints {
            let SecretSource::File(path) = &endpoint.secret else {
                continue;
            };
            let plain = super::is_plain(path) && ours.iter().flatten().any(|folder| path.starts_with(folder));
            let known = self.items.iter().any(|item| item.path == *path) || *path == options.manifest;
            if !plain {
                self.notes.push(format!(
                    "{path:?} is not in the folder of the configuration: its owner is left alone, it is not sealed"
                ));
            } else if !known {
                if let Err(Odd::Missing) = self.root.file(path) {
                    self.notes
                        .push(format!("{path:?} is named by the configuration and missing"));
                }
                self.optional(path, Kind::Secret);
            }
        }
    }

    /// What the engine writes is its own, and no part of the seal.
    fn written_folders(&mut self) {
        let (Some(uid), Some(gid)) = (self.accounts.user(ACCOUNT), self.accounts.group(ACCOUNT)) else {
            return;
        };
        for path in WRITTEN_FOLDERS.map(Path::new) {
            match self.root.folder(path) {
                Err(Odd::Missing) => {}
                Err(odd) => {
                    let why = io::Error::from(odd);
                    self.notes.push(format!("{path:?} is left as it is: {why}"));
                }
                Ok((folder, metadata)) => {
                    let right = Dress {
                        uid,
                        gid,
                        mode: 0o750,
                    };
                    self.push(path, folder, &metadata, None, None);
                    if let Some(item) = self.items.last_mut() {
                        item.right = right;
                    }
                }
            }
        }
    }

    /// Whoever can rename in a folder on the way can replace the file, whatever its mode. Folders that are set right
    /// here are none of these.
    fn ways(&mut self, manifest: &Path) {
        let mut passed = BTreeMap::new();
        let units = files::unit_places(self.root);
        let paths = self.items.iter().map(|item| item.path.as_path());
        for path in paths.chain([manifest]).chain(units.iter().map(PathBuf::as_path)) {
            if let Err(error) = self.root.way(path, &mut passed) {
                self.problems
                    .push(format!("the folders above {path:?} cannot be looked at: {error}"));
                return;
            }
        }
        for (which, folder) in passed {
            let set_right = self.items.iter().any(|item| item.which == which);
            if let Some(why) = folder.looseness().filter(|_| !set_right) {
                self.problems.push(format!(
                    "{:?}: {why}: others than root can put something else in the place of files there; chown root and \
                     chmod go-w that folder",
                    folder.name
                ));
            }
        }
        let folder = manifest.parent().unwrap_or(Path::new("/"));
        if let Err(odd) = self.root.directory(folder) {
            let why = io::Error::from(odd);
            self.problems
                .push(format!("no manifest can be written in {folder:?}: {why}"));
        }
    }

    fn optional(&mut self, path: &Path, kind: Kind) {
        if !matches!(self.root.file(path), Err(Odd::Missing)) {
            self.add(path, kind);
        }
    }

    fn add(&mut self, path: &Path, kind: Kind) {
        let read = self.root.file(path).and_then(|(file, metadata)| {
            let sealed = kind.is_hashed().then(|| Hash::of_all(&file)).transpose()?;
            Ok((file, metadata, sealed))
        });
        match read {
            Err(odd) => self.odd(path, odd),
            Ok((file, metadata, sealed)) => self.push(path, file, &metadata, Some(kind), sealed),
        }
    }

    fn push(
        &mut self,
        path: &Path,
        file: File,
        metadata: &Metadata,
        kind: Option<Kind>,
        sealed: Option<(Hash, u64)>,
    ) {
        let now = Dress::of(metadata);
        let right = kind.map_or(now, |kind| self.right(kind));
        if metadata.is_file() && metadata.nlink() > 1 && now != right {
            self.problems.push(format!(
                "{path:?} has a second name (hard link): to change it would change another file; find that with \
                 find / -xdev -samefile, or copy this one"
            ));
        }
        self.items.push(Item {
            path: path.to_owned(),
            file,
            kind,
            now,
            right,
            sealed,
            which: identity(metadata),
        });
    }

    fn right(&self, kind: Kind) -> Dress {
        let root = |mode| Dress { uid: 0, gid: 0, mode };
        let group = self.accounts.group(ACCOUNT);
        let let_in = |mode, else_mode| match group {
            Some(gid) => Dress { uid: 0, gid, mode },
            None => root(else_mode),
        };
        match kind {
            Kind::Binary => root(0o755),
            Kind::Unit | Kind::Loader => root(0o644),
            Kind::Config | Kind::Nft | Kind::Secret => let_in(0o640, 0o600),
            Kind::Folder => let_in(0o750, 0o700),
        }
    }

    fn odd(&mut self, path: &Path, odd: Odd) {
        let words = match odd {
            Odd::Missing => {
                format!("{path:?} is missing: is this where verdictd is installed? (--root, --binaries)")
            }
            Odd::Link(target) => format!(
                "{path:?} is a symbolic link to {target:?}: put the file itself there, what a link leads to is not sealed"
            ),
            Odd::Kind(kind) => format!("{path:?} is {kind}: put the file itself there"),
            Odd::Failed(error) => format!("{path:?} cannot be read: {error}"),
        };
        self.problems.push(words);
    }
}

/// As [`config::load`] has it.
const LARGEST_CONFIG: u64 = 1 << 20;
