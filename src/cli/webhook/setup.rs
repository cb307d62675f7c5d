//! `verdictctl webhook setup`: a configuration with other endpoints than before, in force only if the whole of it is good.
//!
//! Each change is made to the text in memory and read by the parser that the engine uses; what it refuses changes
//! nothing. Files are written once, at the end: secrets first, so that the configuration never names one that is not
//! there.

use std::fs;
use std::path::{self, Path, PathBuf};

use super::super::print::plain;
use super::super::verify::tell_stale;
use super::super::{CliError, Client, Exit, Screen, reload};
use super::args::Setup;
use super::ask::Ask;
use super::edit::{Book, Change, EditError, SecretKey};
use super::save::{self, Original};
use super::{load, note, try_out, wizard};
use crate::config::{self, Config};
use crate::webhook::config::EndpointConfig;

pub(super) fn run(
    client: &Client,
    args: Setup,
    screen: &mut Screen<'_>,
    ask: &mut dyn Ask,
) -> Result<Exit, CliError> {
    let mut session = Session::open(&args.config)?;
    match &args.name {
        Some(name) if args.non_interactive => {
            session.put_as_told(name, &args)?;
            session.save(screen)?;
            finish_as_told(&session, name, &args, client, screen)
        }
        _ => wizard::run(&mut session, client, screen, ask),
    }
}

/// A configuration while it is changed.
pub(super) struct Session {
    original: Original,
    text: String,
    /// What `text` means.
    pub(super) config: Config,
    /// New secrets: file and text.
    files: Vec<(PathBuf, String)>,
    /// New secrets that stand in the configuration: endpoint and text.
    inline: Vec<(String, String)>,
}

/// Where a new endpoint's secret comes from.
#[derive(Debug)]
pub(super) enum NewSecret {
    Keep,
    None,
    /// Made, and written there.
    Make(PathBuf),
    MakeInline,
    Existing(PathBuf),
}

impl Session {
    fn open(path: &Path) -> Result<Session, CliError> {
        let config = load(path)?;
        let failed = |error| CliError::Failed(format!("{path:?} cannot be read: {error}"));
        let original = Original::read(path).map_err(failed)?;
        let text = original.text.clone();
        Ok(Session {
            original,
            text,
            config,
            files: Vec::new(),
            inline: Vec::new(),
        })
    }

    pub(super) fn endpoints(&self) -> &[EndpointConfig] {
        &self.config.webhooks.endpoints
    }

    pub(super) fn find(&self, name: &str) -> Option<&EndpointConfig> {
        self.endpoints().iter().find(|endpoint| endpoint.name == name)
    }

    pub(super) fn is_changed(&self) -> bool {
        self.text != self.original.text
    }

    /// Makes a change, unless the parser refuses what comes of it.
    pub(super) fn edit(
        &mut self,
        edit: impl FnOnce(&mut Book) -> Result<(), EditError>,
    ) -> Result<(), CliError> {
        let failed = |error: EditError| CliError::Failed(format!("{:?}: {error}", self.original.path));
        let mut book = Book::open(&self.text).map_err(failed)?;
        edit(&mut book).map_err(failed)?;
        let text = book.text();
        self.config = config::parse(&text, &self.original.path).map_err(CliError::Config)?;
        self.text = text;
        Ok(())
    }

    /// Adds the endpoint, or changes it if it is there.
    pub(super) fn put(&mut self, name: &str, mut change: Change, secret: NewSecret) -> Result<(), CliError> {
        let (mut file, mut inline) = (None, None);
        change.secret = match secret {
            NewSecret::Keep => None,
            NewSecret::None => Some(SecretKey::Unsigned),
            NewSecret::Existing(path) => Some(SecretKey::File(text_of(&path)?)),
            NewSecret::Make(path) => {
                let key = SecretKey::File(text_of(&path)?);
                file = Some((path, save::new_secret()?));
                Some(key)
            }
            NewSecret::MakeInline => {
                let secret = save::new_secret()?;
                inline = Some((name.to_owned(), secret.clone()));
                Some(SecretKey::Inline(secret))
            }
        };
        let known = self.find(name).is_some();
        self.edit(|book| {
            if known {
                return book.change(name, &change);
            }
            book.switch_on()?;
            book.add(name, &change)
        })?;
        self.files.extend(file);
        self.inline.extend(inline);
        Ok(())
    }

    /// A file beside the configuration that is not there yet, for the secret of `name`.
    pub(super) fn secret_file(&self, name: &str) -> PathBuf {
        let folder = self.original.path.parent().unwrap_or(Path::new("/"));
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let stem: String = name.chars().map(plain).collect();
        let stem = stem.trim_matches('-');
        let stem = if stem.is_empty() { "webhook" } else { stem };
        let named = |n: u32| match n {
            1 => folder.join(format!("{stem}.secret")),
            n => folder.join(format!("{stem}-{n}.secret")),
        };
        let taken = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok() || self.files.iter().any(|(other, _)| other == path)
        };
        let free = (1..=u32::MAX).map(named).find(|path| !taken(path));
        free.unwrap_or_else(|| named(1))
    }

    /// Writes everything, or nothing.
    pub(super) fn save(&mut self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let path = &self.original.path;
        if !self.is_changed() {
            writeln!(
                screen.out,
                "{} is as it should be, nothing was changed",
                plain(&path.display().to_string())
            )?;
            return Ok(());
        }
        // One that no endpoint uses any more is not written.
        let text = &self.text;
        self.files
            .retain(|(path, _)| path.to_str().is_some_and(|path| text.contains(path)));
        self.inline.retain(|(_, secret)| text.contains(secret.as_str()));
        let mut made: Vec<&Path> = Vec::new();
        let written = self.files.iter().try_for_each(|(file, secret)| {
            save::write_secret(file, secret, path)
                .map_err(|error| CliError::Failed(format!("{file:?} cannot be made: {error}")))?;
            made.push(file);
            Ok(())
        });
        let failed =
            |error| CliError::Failed(format!("{path:?} cannot be replaced, it is unchanged: {error}"));
        let kept = written.and_then(|()| self.original.replace(&self.text).map_err(failed));
        let kept = kept.inspect_err(|_| made.iter().for_each(|file| drop(fs::remove_file(file))))?;
        self.tell_saved(&kept, screen)?;
        self.original.text.clone_from(&self.text);
        self.files.clear();
        self.inline.clear();
        Ok(())
    }

    fn tell_saved(&self, kept: &Path, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let shown = |path: &Path| plain(&path.display().to_string());
        let path = &self.original.path;
        writeln!(
            screen.out,
            "wrote {}; the old one is {}",
            shown(path),
            shown(kept)
        )?;
        for (file, _) in &self.files {
            let file = shown(file);
            writeln!(
                screen.out,
                "wrote a new secret to {file}: the receiver needs the same one"
            )?;
        }
        for (name, secret) in &self.inline {
            let name = plain(name);
            writeln!(
                screen.out,
                "the secret of {name}, shown this once; the receiver needs the same one:"
            )?;
            writeln!(screen.out, "{secret}")?;
        }
        if !self.inline.is_empty() && save::open_to_all(path) {
            let text =
                format!("every user of this machine can read {path:?}, which holds a secret: chmod o= it");
            note(screen, &text)?;
        }
        Ok(())
    }

    fn put_as_told(&mut self, name: &str, args: &Setup) -> Result<(), CliError> {
        let known = self.find(name).is_some();
        if !known && args.url.is_none() {
            return Err(CliError::Usage(format!(
                "{name:?} is a new endpoint: give its --url"
            )));
        }
        let secret = match &args.secret_file {
            _ if args.no_secret => NewSecret::None,
            Some(file) => {
                let file = path::absolute(file)?;
                match file.exists() {
                    true => NewSecret::Existing(file),
                    false => NewSecret::Make(file),
                }
            }
            None if known => NewSecret::Keep,
            None => NewSecret::Make(self.secret_file(name)),
        };
        let named = !args.include.is_empty() || !args.exclude.is_empty();
        let change = Change {
            url: args.url.clone(),
            enabled: Some(true),
            allow_http: args.allow_http.then_some(true),
            secret: None,
            events: named.then(|| [args.include.clone(), args.exclude.clone()]),
        };
        self.put(name, change, secret)?;
        self.check_secret(name)
    }

    /// A file that was named and cannot be used is found here and not by the first event.
    fn check_secret(&self, name: &str) -> Result<(), CliError> {
        let Some(endpoint) = self.find(name) else {
            return Ok(());
        };
        let ours = |path: &PathBuf| self.files.iter().any(|(file, _)| file == path);
        match &endpoint.secret {
            crate::webhook::config::SecretSource::File(path) if !ours(path) => {
                let read = endpoint.secret.read();
                read.map(drop).map_err(|error| CliError::Usage(error.to_string()))
            }
            _ => Ok(()),
        }
    }
}

fn finish_as_told(
    session: &Session,
    name: &str,
    args: &Setup,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let tried = match args.test {
        true => try_out::one(&session.config.webhooks, name, screen)?,
        false => Exit::Fine,
    };
    match args.reload {
        true => _ = reload::run(client, screen)?,
        false => {
            writeln!(screen.out, "{HOW_TO_RELOAD}")?;
            tell_stale(&session.original.path, screen)?;
        }
    }
    Ok(tried)
}

fn text_of(path: &Path) -> Result<String, CliError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| CliError::Usage(format!("{path:?} is not UTF-8, which a configuration is")))
}

pub(super) const HOW_TO_RELOAD: &str = "a running engine takes it at: verdictctl reload";
