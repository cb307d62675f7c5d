//! Who is connected. The number is bounded; where it is reached, a newcomer takes the place of whoever has been here
//! longest without a signed request, so that peers that finish nothing keep nobody out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All connections, the oldest first.
#[derive(Clone, Default)]
pub(crate) struct Guests(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    came: u64,
    here: BTreeMap<u64, Arc<Guest>>,
}

/// One connection; an extension of each request on it.
#[derive(Default)]
pub(crate) struct Guest {
    known: AtomicBool,
    out: Notify,
}

impl Guest {
    /// It sent a signed request: nobody takes its place any more.
    pub(crate) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

/// The place of one connection; free when dropped.
pub(crate) struct Seat {
    pub(crate) guest: Arc<Guest>,
    number: u64,
    guests: Guests,
}

impl Guests {
    /// A place for one more, if need be that of somebody else; none if all are taken by known ones.
    pub(crate) fn enter(&self) -> Option<Seat> {
        let mut book = self.book();
        if book.here.len() >= CONNECTIONS {
            let oldest = book
                .here
                .iter()
                .find(|(_, guest)| !guest.known.load(Ordering::Relaxed));
            let number = *oldest?.0;
            book.here.remove(&number)?.out.notify_one();
        }
        book.came += 1;
        let (number, guest) = (book.came, Arc::<Guest>::default());
        book.here.insert(number, Arc::clone(&guest));
        Some(Seat {
            guest,
            number,
            guests: self.clone(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Done when somebody else takes the place.
    pub(crate) async fn taken(&self) {
        self.guest.out.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.book().here.remove(&self.number);
    }
}

/// At once; with the database and a few files that is below the 1,024 that a process may open by default.
pub(crate) const CONNECTIONS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_stranger_makes_room_and_the_known_stay() {
        let guests = Guests::default();
        let mut seats: Vec<Seat> = (0..CONNECTIONS).map(|_| guests.enter().unwrap()).collect();
        seats[0].guest.is_known();
        seats.push(guests.enter().unwrap());
        seats[1].taken().await;
        assert_eq!(guests.book().here.len(), CONNECTIONS);
        assert!(guests.book().here.contains_key(&seats[0].number));
        seats.iter().for_each(|seat| seat.guest.is_known());
        assert!(guests.enter().is_none());
        drop(seats);
        assert_eq!(guests.book().here.len(), 0);
    }
}
