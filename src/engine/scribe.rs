//! The journal's thread, last in the way of a decision: what the ledger decided and the kernel did is written down and
//! synced, and only then reported. Everything that queued up during one sync shares the next (group commit).
//!
//! Nobody waits for the disk but those who are told: the kernel enforces a ban before it comes here, and workers hand
//! over what they counted or go without. A disk that fails or hangs stops no verdict and no ban (open); then it is
//! reported all the same, `status` says degraded, and a snapshot is tried.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, never, select_biased};

use super::clock;
use super::enforcer::Answer;
use super::herald::Herald;
use super::keeper::{Errand, Health};
use super::notice::Notice;
use crate::state::{Journal, MOST_ACTIVITY_BYTES, Place, Record, SaveError};
use crate::stats::Stats;
use crate::webhook::wire::Event;

/// What comes to the scribe.
pub enum Task {
    /// Something was decided, and done where there was something to do.
    Write(Entry),
    /// A snapshot begins: what comes from now on belongs into a journal of that number, which is above that of every
    /// snapshot there is.
    Turn(Option<u64>, Sender<Result<Turned, SaveError>>),
    /// Write what came before, then leave.
    Stop,
}

/// What is to be written down, and what is reported after that.
#[derive(Default)]
pub struct Entry {
    /// For the journal.
    pub records: Vec<Record>,
    /// For people.
    pub notices: Vec<Notice>,
    /// For other systems.
    pub events: Vec<Event>,
    /// For whoever asked for it.
    pub answer: Option<Answer>,
}

/// A new journal was begun.
#[derive(Clone, Copy, Debug)]
pub struct Turned {
    /// Its number, and that of the snapshot that begins now.
    pub generation: u64,
    /// How often writing had failed by then; see [`Health::mended`].
    pub failures: u64,
}

/// The scribe before it runs; see [`Scribe::run`].
pub struct Scribe {
    desk: Desk,
    /// None: it could not be begun.
    journal: Option<Journal>,
    /// The number of the next one.
    next: u64,
}

/// What the scribe is wired to.
pub struct Desk {
    /// Where the journal lies.
    pub place: Place,
    /// From the enforcer, and from the keeper.
    pub tasks: Receiver<Task>,
    /// From the workers, bounded: what they counted and what was completed.
    pub activity: Receiver<Record>,
    /// Asked for a snapshot when the journal is too long, or broken.
    pub keeper: Sender<Errand>,
    /// Where failures show.
    pub health: Arc<Health>,
    /// To other systems.
    pub herald: Herald,
    /// Counts what workers did and nobody wrote down.
    pub stats: Arc<Stats>,
}

impl Scribe {
    /// Begins journal number `generation`; without one, nothing but the next snapshot is on the disk.
    pub fn begin(desk: Desk, generation: u64) -> Scribe {
        let mut scribe = Scribe {
            desk,
            journal: None,
            next: generation,
        };
        if let Err(error) = scribe.begin_journal() {
            scribe.fail(&error);
        }
        scribe
    }

    /// Writes until told to stop.
    pub fn run(mut self) {
        let mut activity = self.desk.activity.clone();
        loop {
            let batch = select_biased! {
                recv(self.desk.tasks) -> task => match task {
                    Ok(task) => self.gather(Some(task)),
                    Err(_) => return,
                },
                recv(activity) -> record => match record {
                    Ok(record) => {
                        let mut batch = self.gather(None);
                        batch.counted.insert(0, record);
                        batch
                    }
                    // The workers left.
                    Err(_) => {
                        activity = never();
                        continue;
                    }
                },
            };
            if !self.carry_out(batch) {
                return;
            }
        }
    }

    /// Everything that queued up, up to a task of another kind.
    fn gather(&self, first: Option<Task>) -> Batch {
        let mut batch = Batch::default();
        for task in first.into_iter().chain(self.desk.tasks.try_iter()) {
            match task {
                Task::Write(entry) => batch.entries.push(entry),
                other => {
                    batch.last = Some(other);
                    break;
                }
            }
        }
        batch
            .counted
            .extend(self.desk.activity.try_iter().take(MOST_AT_ONCE));
        batch
    }

    /// `false`: that was the last.
    fn carry_out(&mut self, batch: Batch) -> bool {
        let Batch {
            mut entries,
            counted,
            last,
        } = batch;
        self.note(counted);
        let decided: Vec<Record> = entries
            .iter_mut()
            .flat_map(|entry| std::mem::take(&mut entry.records))
            .collect();
        if !decided.is_empty() {
            self.keep(&decided);
        }
        for entry in entries {
            self.report(entry);
        }
        match last {
            Some(Task::Turn(saved, to)) => {
                // The journal goes on as it was if there is no other. The keeper may have given up waiting.
                let _ = to.send(self.turn(saved));
                true
            }
            Some(Task::Stop) => false,
            Some(Task::Write(_)) | None => true,
        }
    }

    /// What speaks against sources that are not banned yet: written, and not synced. A kill loses none of it, a power
    /// failure what the system had not written by itself.
    fn note(&mut self, counted: Vec<Record>) {
        if counted.is_empty() {
            return;
        }
        let room = |journal: &&mut Journal| journal.bytes() < MOST_ACTIVITY_BYTES;
        let written = match self.journal.as_mut().filter(room) {
            Some(journal) => journal.append(&counted, &clock::moment(), Instant::now()),
            None => {
                self.desk.stats.activity_unwritten.add(counted.len() as u64);
                return;
            }
        };
        if let Err(error) = written {
            self.desk.stats.activity_unwritten.add(counted.len() as u64);
            self.fail(&error);
        }
        self.ask_if_long();
    }

    /// Bans, their ends, steps of the ladder: on the disk when this returns, or degraded.
    fn keep(&mut self, decided: &[Record]) {
        let kept = match &mut self.journal {
            Some(journal) => {
                let _at_work = self.desk.health.at_work();
                journal
                    .append(decided, &clock::moment(), Instant::now())
                    .and_then(|()| journal.sync())
            }
            // Said when it could not be begun; a snapshot is to hold it.
            None => {
                self.ask();
                return;
            }
        };
        if let Err(error) = kept {
            self.fail(&error);
        }
        self.ask_if_long();
    }

    fn report(&self, entry: Entry) {
        entry.notices.iter().for_each(Notice::print);
        for event in entry.events {
            self.desk.herald.hand_over(event);
        }
        if let Some(Answer { to, reply }) = entry.answer {
            // Whoever asked may have hung up.
            let _ = to.send(reply);
        }
    }

    /// Another journal than that of the snapshot `saved`; the one before stays until a snapshot holds what is in it. The
    /// one that was begun for a snapshot which failed serves for the next, or a disk that takes none would be filled with
    /// them.
    fn turn(&mut self, saved: Option<u64>) -> Result<Turned, SaveError> {
        let fresh = |journal: &Journal| !journal.is_broken() && Some(journal.generation()) > saved;
        let generation = match self.journal.as_ref().filter(|journal| fresh(journal)) {
            Some(journal) => journal.generation(),
            None => self.begin_journal()?,
        };
        Ok(Turned {
            generation,
            failures: self.desk.health.failures(),
        })
    }

    fn begin_journal(&mut self) -> Result<u64, SaveError> {
        let journal = Journal::begin(&self.desk.place, self.next, &clock::moment(), Instant::now())?;
        let generation = journal.generation();
        self.next = generation + 1;
        self.journal = Some(journal);
        Ok(generation)
    }

    /// A snapshot is to hold what the journal does not.
    fn fail(&self, failure: &SaveError) {
        self.desk.health.journal_fails(format!(
            "the journal is not written: {failure}; bans are enforced all the same, but those decided until the next \
             snapshot would not outlive a loss of power"
        ));
        self.ask();
    }

    fn ask_if_long(&self) {
        if self
            .journal
            .as_ref()
            .is_some_and(|journal| journal.bytes() >= LONG)
        {
            self.ask();
        }
    }

    /// A full channel holds the same errand already.
    fn ask(&self) {
        let _ = self.desk.keeper.try_send(Errand::Soon);
    }
}

/// What is done in one go.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    counted: Vec<Record>,
    last: Option<Task>,
}

/// What workers counted that goes into one write.
const MOST_AT_ONCE: usize = 4096;
/// A journal that is asked to become a snapshot: some half a million records, read in less than a second.
const LONG: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::thread;

    use crossbeam_channel::{bounded, unbounded};

    use super::*;
    use crate::control::wire::Reply;

    /// A scribe that ran over `tasks`, what it asked the keeper for, and how the state is.
    fn ran(directory: &Path, tasks: Vec<Task>, counted: Vec<Record>) -> (Receiver<Errand>, Arc<Health>, u64) {
        let (sender, receiver) = unbounded();
        let (activity_sender, activity) = bounded(counted.len().max(1));
        let (keeper, errands) = bounded(16);
        let (health, stats) = (
            Arc::new(Health::default()),
            Arc::new(Stats::new(1, Instant::now())),
        );
        for record in counted {
            activity_sender.try_send(record).unwrap();
        }
        drop(activity_sender);
        tasks.into_iter().for_each(|task| sender.send(task).unwrap());
        sender.send(Task::Stop).unwrap();
        let desk = Desk {
            place: Place::new(directory, None),
            tasks: receiver,
            activity,
            keeper,
            health: Arc::clone(&health),
            herald: Herald::default(),
            stats: Arc::clone(&stats),
        };
        let scribe = Scribe::begin(desk, 5);
        thread::spawn(move || scribe.run()).join().unwrap();
        let unwritten = stats.activity_unwritten.get();
        (errands, health, unwritten)
    }

    fn lift(source: &str) -> Record {
        Record::Lift {
            source: source.parse().unwrap(),
            at: Instant::now(),
        }
    }

    fn write(source: &str, to: Sender<Reply>) -> Task {
        Task::Write(Entry {
            records: vec![lift(source)],
            answer: Some(Answer {
                to,
                reply: Reply::refused(source),
            }),
            ..Entry::default()
        })
    }

    fn size(directory: &Path, generation: u64) -> u64 {
        let name = format!("state.toml.journal-{generation}");
        fs::metadata(directory.join(name)).map_or(0, |facts| facts.len())
    }

    #[test]
    fn everything_is_written_and_answered_and_a_turn_begins_another_file() {
        let home = tempfile::tempdir().unwrap();
        let (to, replies) = unbounded();
        let (turn, turned) = bounded(2);
        let tasks = vec![
            write("192.0.2.1", to.clone()),
            Task::Turn(Some(5), turn.clone()),
            Task::Turn(Some(5), turn),
            write("192.0.2.2", to),
        ];
        let (errands, health, unwritten) = ran(home.path(), tasks, vec![lift("192.0.2.3")]);
        assert_eq!(replies.iter().count(), 2);
        let generations = turned.iter().map(|turned| turned.unwrap().generation);
        assert!(
            generations.eq([6, 6]),
            "one that no snapshot goes with is used again"
        );
        let bare = tempfile::tempdir().unwrap();
        ran(bare.path(), Vec::new(), Vec::new());
        let header = size(bare.path(), 5);
        assert!(header > 0 && size(home.path(), 5) > header && size(home.path(), 6) > header);
        assert!(errands.is_empty() && unwritten == 0);
        assert_eq!(health.degraded(), [""; 0]);
    }

    #[test]
    fn what_cannot_be_written_is_reported_all_the_same_and_a_snapshot_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let (to, replies) = unbounded();
        let nowhere = home.path().join("gone");
        let (errands, health, unwritten) =
            ran(&nowhere, vec![write("192.0.2.1", to)], vec![lift("192.0.2.3")]);
        assert_eq!(replies.iter().count(), 1);
        assert!(matches!(errands.try_recv(), Ok(Errand::Soon)));
        assert_eq!(unwritten, 1);
        let said = health.degraded();
        assert!(said.len() == 1 && said[0].contains("journal"), "{said:?}");
    }
}
