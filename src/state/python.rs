//! A file of the Python system where the state is looked for: at the first start its bans, ladder positions and windows
//! are taken over, once, and the file is kept. Whoever has a state of this program keeps that.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use time::OffsetDateTime;

use super::import::{Clock, Import, NotImported, import};
use super::load::Loaded;
use super::{Moment, Place, State};
use crate::core::attack::Baseline;

/// Takes over what `file`, found at `place` under `name`, holds; at most `most_sources` windows of it.
pub(super) fn take_over(
    place: &Place,
    name: &str,
    mut file: File,
    most_sources: usize,
    loaded: &mut Loaded,
) -> Option<State> {
    let clock = Clock::host();
    let read = file.seek(SeekFrom::Start(0)).map_err(NotImported::from);
    let read = read.and_then(|_| import(file, &clock));
    let (from, kept) = (place.directory.join(name), keep(place, name));
    match read {
        Ok(import) => {
            let (state, report) = import.into_state(&clock, most_sources);
            let (from, summary) = (from.display(), report.summary());
            loaded
                .notes
                .push(format!("{from} is of the Python system, {kept}: {summary}"));
            loaded.imported = Some(report);
            Some(state)
        }
        Err(why) => {
            loaded.troubles.push(format!(
                "{} is of the Python system and cannot be imported: {why}; {kept}",
                from.display()
            ));
            None
        }
    }
}

/// There is a state of this program as well, which knows more and stays as it is.
pub(super) fn pass_over(place: &Place, name: &str, loaded: &mut Loaded) {
    loaded.notes.push(format!(
        "{} is of the Python system, {}; it is not imported, for there is a state of verdictd already: \
         verdictctl state import does it",
        place.directory.join(name).display(),
        keep(place, name)
    ));
}

/// Under a name that nothing takes for a state, so that it is imported once.
fn keep(place: &Place, name: &str) -> String {
    if name.ends_with(KEPT) {
        return "kept already, and came to no snapshot before".into();
    }
    let from = place.directory.join(name);
    let names = (0..MOST_KEPT).map(|nth| match nth {
        0 => place.directory.join(format!("{name}{KEPT}")),
        nth => place.directory.join(format!("{name}{KEPT}.{nth}")),
    });
    let Some(to) = names.into_iter().find(|path| path.symlink_metadata().is_err()) else {
        return format!("left where it is, for {MOST_KEPT} such files are kept already");
    };
    match std::fs::rename(&from, &to) {
        Ok(()) => format!("kept as {}", to.display()),
        Err(error) => format!("left where it is, for it cannot be renamed: {error}"),
    }
}

impl Import {
    /// As a state that was saved when `clock` was read. Of windows the newest are kept.
    fn into_state(mut self, clock: &Clock, most_sources: usize) -> (State, super::import::Report) {
        self.sources.sort_by_key(|source| source.idle);
        self.sources.truncate(most_sources);
        let wall = OffsetDateTime::from_unix_timestamp_nanos(clock.now.as_nanosecond());
        let state = State {
            saved: Moment {
                wall: wall.unwrap_or(OffsetDateTime::UNIX_EPOCH),
                boot: None,
            },
            generation: None,
            seed: None,
            sources: self.sources,
            ladder: self.ladder,
            usual: Baseline::default(),
            bans: self.bans,
            skipped: 0,
        };
        (state, self.report)
    }
}

/// What the name of a file that was imported ends in.
pub(super) const KEPT: &str = ".python";
const MOST_KEPT: usize = 10;
